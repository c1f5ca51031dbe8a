//! Starting: identity of the log, policy in force. Certificates that a crash left between intent and outcome are
//! completed by their next fetch, when policy is asked again (P6).
//!
//! Order, and what a crash leaves: everything that can be refused is checked before anything is written; then one
//! commit holds the log's beginning, the first policy and the start, so that an empty store is either still empty or
//! complete.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, RwLock};

use tokio::sync::{Semaphore, broadcast};

use super::bundles::kept;
use super::clock::Watch;
use super::head::Head;
use super::inventory::Hosts;
use super::key_start::{May, Opened};
use super::keys::{Keys, Known, Tally};
use super::policy::{Checked, check_cas, check_text};
use super::{ASK_LOCKS, ATTEMPTS, CHANGES_KEPT, Failure, FirstPolicy, InForce, Outcome, Parts, SIGN_SLOTS, Service};
use crate::audit::checkpoint::{LogKey, LogVerifier};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::identity::browser::BrowserKeys;
use crate::identity::{Actor, Part};
use crate::name::PolicyVersion;
use crate::policy::Policy;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::{Basis, Change, Save, Store, StoreError, StoredPolicy};
use crate::time::{Clock, Timestamp};

impl Service {
    /// Starts: loads the policy in force (or applies `first` as version 1), writes `LogStarted` (entry 0) on an empty
    /// log, and `ServiceStarted`.
    ///
    /// # Errors
    /// `BadPolicy` when the policy has problems or fails its tests, `Unavailable` when there is none or the log is
    /// another key's.
    pub async fn start(parts: Parts, first: Option<FirstPolicy>) -> Outcome<Arc<Self>> {
        let Parts { store, kept_head, signer, next, host_signer, host_next, trusted, named, .. } = parts;
        let Parts { accepted_ca, log_key, clock, random, settings, .. } = parts;
        let mut service_id = [0_u8; 16];
        random.fill(&mut service_id)?;

        let verifier = log_key.verifier();
        let host = host_signer.as_ref();
        let opened =
            Opened { user: &signer, next: &next, host, host_next: &host_next, trusted: &trusted, named: &named };
        let mut service_keys: BTreeSet<Fingerprint> =
            opened.signers().map(|(_, signer)| signer.public_key().fingerprint()).collect();
        service_keys.extend(opened.listed().iter().map(PublicKey::fingerprint));
        service_keys.insert(log_key_fingerprint(&verifier)?);

        check_log(store.as_ref(), &verifier).await?;
        let head = Head::open(kept_head, store.as_ref(), &log_key).await?;
        let begun = Begun {
            store: store.as_ref(),
            verifier: &verifier,
            service_keys: &service_keys,
            opened: &opened,
            may: May { accepted: accepted_ca, published: settings.rotation.published },
            log_key: &log_key,
            service: format!("{} {}", data_encoding::HEXLOWER.encode(&service_id), settings.public_url),
        };
        let (version, policy, hosts) = begun.until_written(first, clock.as_ref()).await?;
        let (challenge_key, session_key) = (log_key.derive("login challenges"), log_key.derive("sessions"));
        let joined = Arc::new(with_hosts(&policy, &hosts)?);
        let browser_keys = BrowserKeys::new(|purpose| log_key.derive(purpose));
        let in_use = Known::read(store.as_ref()).await?.in_use(&settings.public_url, &log_key)?;
        let signers = opened.signers().map(|(ca, signer)| (ca, Arc::clone(signer))).collect();
        let listed = opened.listed();

        let service = Arc::new(Self {
            store,
            head,
            keys: Keys::new(signers, listed, in_use),
            tally: Tally::default(),
            figures: super::figures::Tally::new(),
            log_key,
            watch: Watch::new(clock.as_ref()),
            clock,
            random,
            settings,
            policy: RwLock::new(InForce { version, file: policy, joined }),
            hosts,
            policy_in_use: Arc::default(),
            policy_unsure: AtomicBool::new(false),
            challenge_key,
            session_key,
            browser_keys,
            configured_keys: service_keys,
            changed: broadcast::Sender::new(CHANGES_KEPT),
            waiting: super::waiting::Waiting::default(),
            sign_slots: Arc::new(Semaphore::new(SIGN_SLOTS)),
            asking: (0..ASK_LOCKS).map(|_| tokio::sync::Mutex::default()).collect(),
            swept: AtomicU64::new(0),
            keys_looked: AtomicU64::new(0),
            moves_looked: AtomicU64::new(0),
            keys_warned: AtomicU64::new(0),
            lost_keys: super::lost_keys::Looked::default(),
            followed: super::follow::Followed::default(),
            refusals: super::refusals::Refusals::default(),
        });
        service.keep_head(1).await?;
        Ok(service)
    }
}

/// What the first entries of a start are made of.
struct Begun<'p> {
    store: &'p dyn Store,
    verifier: &'p LogVerifier,
    service_keys: &'p BTreeSet<Fingerprint>,
    /// The CA keys that are configured, and which of them may sign.
    opened: &'p Opened<'p>,
    may: May,
    log_key: &'p LogKey,
    /// How the log names the service, if it begins now.
    service: String,
}

/// What a start has found and put in force.
type InForceNow = (PolicyVersion, Arc<Policy>, Hosts);

impl Begun<'_> {
    /// Writes the start; again when another node was faster.
    async fn until_written(&self, first: Option<FirstPolicy>, clock: &dyn Clock) -> Outcome<InForceNow> {
        for _ in 0..ATTEMPTS {
            if let Some(in_force) = self.write(first.clone(), clock.now()).await? {
                return Ok(in_force);
            }
        }
        Err(Failure::contended())
    }

    /// One attempt: everything that can be refused is checked, then one commit holds it all.
    async fn write(&self, first: Option<FirstPolicy>, now: Timestamp) -> Outcome<Option<InForceNow>> {
        let basis = Basis::of(&self.store.head().await?);
        let is_new = check_log(self.store, self.verifier).await?;
        let (version, policy, applied) = load_policy(self.store, first, self.service_keys).await?;
        let mut change = Change { at: now, saves: vec![Save::OnBasis(basis)], events: Vec::new() };
        if is_new {
            let (service, log_key) = (self.service.clone(), self.verifier.to_text());
            change.events.push(Event::LogStarted { service, log_key });
        }
        if let Some(event) = applied {
            let (text, by) = (policy.text().to_owned(), STARTER.to_string());
            change.saves.push(Save::NewPolicy(StoredPolicy { version, text, by, at: now }));
            change.events.push(event);
        }
        check_cas(&policy, &self.opened.user_cas()).map_err(|why| unserved(version, &why))?;
        let known = Known::read(self.store).await?;
        let hosts = load_hosts(self.store, self.log_key).await?;
        with_hosts(&policy, &hosts).map(drop)?;
        let keys = self.opened.ring(&known, (self.store, &hosts), self.may, now).await?;
        let ca = known.active(keys.as_ref()).unwrap_or_else(|| self.opened.user.public_key().fingerprint());
        let kept = keys.as_ref().and_then(|keys| kept((&known.ring, &known.stands), keys));
        let program = env!("CARGO_PKG_VERSION").to_owned();
        change.events.push(Event::ServiceStarted { ca, version: program, keys, kept });
        match self.store.commit(change).await {
            Ok(_) => Ok(Some((version, policy, hosts))),
            Err(StoreError::Overtaken | StoreError::Conflict) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }
}

/// The hosts, as the log has them.
async fn load_hosts(store: &dyn Store, log_key: &LogKey) -> Outcome<Hosts> {
    Hosts::load(store, (log_key.derive("host challenges"), log_key.derive("host sessions"))).await
}

/// The policy with the enrolled hosts. Both sides look before they change, so that they never contradict each other.
fn with_hosts(policy: &Policy, hosts: &Hosts) -> Outcome<Policy> {
    policy.with_hosts(hosts.for_policy()).map_err(|wrong| {
        let why: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        Failure::Unavailable(format!("the policy and the enrolled hosts contradict each other: {}", why.join("; ")))
    })
}

fn unserved(version: PolicyVersion, why: &str) -> Failure {
    Failure::Unavailable(format!(
        "policy version {version} can't be served: {why}; put the keys of that CA back into the configuration, and \
         take it out of the policy before you take its keys away"
    ))
}

/// Who applies the first policy.
const STARTER: Actor = Actor::System(Part::Start);

/// Whether the log is empty; if not, it must have been started with this log key: a second history under another key
/// would be worth nothing to whoever keeps checkpoints.
pub(super) async fn check_log(store: &dyn Store, verifier: &LogVerifier) -> Outcome<bool> {
    let Some(bytes) = store.entries(0, 1).await?.into_iter().next() else { return Ok(true) };
    let entry = Entry::parse(&bytes).map_err(|why| Failure::internal("reading the log's first entry", why))?;
    let Event::LogStarted { log_key, .. } = entry.event else {
        return Err(Failure::internal("reading the log's first entry", "it does not start a log"));
    };
    if log_key == verifier.to_text() {
        return Ok(false);
    }
    Err(Failure::Unavailable(format!(
        "the log in this store was started with the log key {log_key:?}, not with the configured \
         {:?}; put back the old key file, and set [log] origin to the name before its first \"+\"; or use an empty store",
        verifier.to_text()
    )))
}

/// The policy in force and, if `first` is to become it, the event that says so.
async fn load_policy(
    store: &dyn Store,
    first: Option<FirstPolicy>,
    service_keys: &BTreeSet<Fingerprint>,
) -> Outcome<(PolicyVersion, Arc<Policy>, Option<Event>)> {
    let stored = store.policy(None).await?;
    let (newest, logged) = (stored.as_ref().map(|stored| stored.version), store.head().await?.policy);
    if newest != logged {
        let shown = |version: Option<PolicyVersion>| version.map_or_else(|| "none".to_owned(), |v| v.to_string());
        return Err(Failure::Unavailable(format!(
            "the newest policy version in the log is {}, in the database {}; find out who changed it, and put the \
             database back as it was",
            shown(logged),
            shown(newest)
        )));
    }
    if let Some(stored) = stored {
        check_hash(store, &stored).await?;
        let file = format!("policy version {}", stored.version);
        // Its tests passed when it was applied; a policy in force is not put out of force by a test that looks at a
        // date.
        let checked = check_text(stored.text, file, service_keys.clone(), None).await?;
        return Ok((stored.version, Arc::new(checked.policy), None));
    }
    let Some(first) = first else {
        return Err(Failure::Unavailable("there is no policy yet, and none was given to begin with".to_owned()));
    };
    let Checked { policy, tested, .. } =
        check_text(first.text, first.file, service_keys.clone(), None).await?.passed()?;
    let version = PolicyVersion(1);
    let event = Event::PolicyApplied {
        by: STARTER,
        version,
        sha256: super::policy::sha256_hex(policy.text().as_bytes()),
        tests: tested.len(),
        changes: 0,
    };
    Ok((version, Arc::new(policy), Some(event)))
}

/// A policy's text counts only if it is the one whose hash the log holds: the database alone must not be able to say who
/// may do what.
pub(super) async fn check_hash(store: &dyn Store, stored: &StoredPolicy) -> Outcome<()> {
    let entry = store.policy_entry(stored.version).await?;
    let logged = entry.as_ref().and_then(|entry| match &entry.event {
        Event::PolicyApplied { sha256, .. } => Some(sha256.as_str()),
        _ => None,
    });
    if logged == Some(super::policy::sha256_hex(stored.text.as_bytes()).as_str()) {
        return Ok(());
    }
    Err(Failure::Unavailable(format!(
        "the text of policy version {} in the database is not the one that was applied: the log holds another hash; \
         find out who changed it, and put the database back as it was",
        stored.version
    )))
}

/// The log key as the SSH key it could be used as.
fn log_key_fingerprint(verifier: &LogVerifier) -> Outcome<Fingerprint> {
    let mut blob = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), verifier.notes().public_key()] {
        blob.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        blob.extend(part);
    }
    match PublicKey::parse_blob(&blob) {
        Ok(key) => Ok(key.fingerprint()),
        Err(why) => Err(Failure::internal("reading the log key", why)),
    }
}
