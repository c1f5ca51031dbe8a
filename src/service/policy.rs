//! Applying and showing policy versions.
//!
//! A policy is replaced whole or not at all: parsed, its own tests run, its keys compared with the service's,
//! committed, and only then put in force, while no decision that rests on the old one is under way.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use sha2::Digest as _;

use super::inventory::HostChange;
use super::{Failure, InForce, Outcome, Service, whole};
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::document::Problem;
use crate::identity::{Actor, Proven};
use crate::inventory::EnrolledHost;
use crate::inventory::moves::moves;
use crate::keyring::Ca;
use crate::name::{CaName, PolicyVersion};
use crate::policy::diff::{Change as Difference, diff};
use crate::policy::test::Tested;
use crate::policy::{Contradiction, Host, KnownHosts, Policy};
use crate::ssh::Fingerprint;
use crate::store::{Change, Save, StoreError, StoredPolicy};

/// What applying did, or would do.
#[derive(Debug)]
pub struct Applied {
    /// The version in force afterwards.
    pub version: PolicyVersion,
    /// Who gains and loses what.
    pub changes: Vec<Difference>,
    /// How many of its tests passed.
    pub tests: usize,
    /// What it can hardly mean, as sentences.
    pub warnings: Vec<String>,
    /// Whether the text was the same as the one in force (then nothing was written).
    pub unchanged: bool,
}

/// What the policy file held when it was last read and taken up (its SHA-256). `default()`: there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastRead(Option<String>);

impl LastRead {
    /// It held this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Some(sha256_hex(text.as_bytes())))
    }
}

/// What reading the policy file again came to.
#[derive(Debug)]
pub enum Reloaded {
    /// Nobody has edited it since it was last read.
    NotEdited,
    /// It holds a version that a newer one has replaced; nothing was done.
    Replaced {
        /// The version whose text it is.
        old: PolicyVersion,
        /// The version in force.
        in_force: PolicyVersion,
    },
    /// It was applied, or is in force already.
    Applied(Applied),
}

/// A text that is to become the policy in force.
struct Proposal {
    actor: Actor,
    text: String,
    file: String,
    base: Option<PolicyVersion>,
    dry_run: bool,
}

impl Service {
    /// Whether this person may apply a policy; for the edge, before it takes a long text.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_may_apply(&self, by: &Proven) -> Outcome<()> {
        self.check_operator(by, "change the policy")
    }

    /// Checks, tests and applies a policy text; operators only. `base`: the version it was made from; `dry_run`
    /// writes nothing.
    ///
    /// # Errors
    /// `Forbidden`, `BadPolicy`, `Conflict` when `base` is not in force any more.
    pub async fn apply_policy(
        self: &Arc<Self>,
        by: &Proven,
        text: String,
        base: Option<PolicyVersion>,
        dry_run: bool,
    ) -> Outcome<Applied> {
        self.check_may_apply(by)?;
        let (this, by) = (Arc::clone(self), by.clone());
        let proposal = Proposal { actor: by.actor(), text, file: "policy.toml".to_owned(), base, dry_run };
        whole(async move { this.apply(proposal, Some(&by)).await }).await
    }

    /// The same for the configured file at SIGHUP; the actor is a part of the system.
    ///
    /// The file is applied only if somebody has edited it since `last` was read, and not if its text was replaced by a
    /// newer version already: a reload for the sake of the TLS files must not bring an old policy back.
    ///
    /// # Errors
    /// As above; `last` then stays, so that the next reload tries again.
    pub async fn apply_policy_file(
        self: &Arc<Self>,
        actor: Actor,
        text: String,
        file: &str,
        last: &mut LastRead,
    ) -> Outcome<Reloaded> {
        let read = LastRead::of(&text);
        if *last == read {
            return Ok(Reloaded::NotEdited);
        }
        let (base, current) = self.policy_now();
        if current.text() != text
            && let Some(old) = self.store.policy_with_text(text.clone()).await?.filter(|old| *old < base)
        {
            return Ok(Reloaded::Replaced { old, in_force: base });
        }
        let this = Arc::clone(self);
        let proposal = Proposal { actor, text, file: file.to_owned(), base: Some(base), dry_run: false };
        let applied = whole(async move { this.apply(proposal, None).await }).await?;
        *last = read;
        Ok(Reloaded::Applied(applied))
    }

    async fn apply(&self, proposal: Proposal, by: Option<&Proven>) -> Outcome<Applied> {
        let Proposal { actor, text, file, base, dry_run } = proposal;
        self.settle_policy().await?;
        // Parsing, testing and comparing take their time; they go before the lock, and are done anew if the base has
        // moved.
        let old = self.in_force();
        let known = Known { joined: Arc::clone(&old.joined), hosts: self.hosts.for_policy() };
        let checked = check_text(text, file.clone(), self.service_keys(), Some(known)).await?.passed()?;
        let guard = match dry_run {
            true => None,
            false => Some(Arc::clone(&self.policy_in_use).write_owned().await),
        };
        let InForce { version, file: current, .. } = self.in_force();
        if let Some(by) = by {
            // Waiting for the lock may have outlasted the caller's own right.
            self.check_may_apply(by)?;
        }
        if base.is_some_and(|base| base != version) || !Arc::ptr_eq(&old.file, &current) {
            return Err(Failure::Conflict(format!(
                "policy version {version} is in force now; look at it and try again"
            )));
        }
        let Checked { policy, tested, changes, warnings } = checked;
        check_cas(&policy, &self.user_cas()).map_err(|what| {
            bad_policy(vec![Problem { file: file.clone(), line: 1, column: 1, key: "ca.name".to_owned(), what }])
        })?;
        let tests = tested.len();
        let unchanged = policy.text() == current.text();
        if unchanged || dry_run {
            return Ok(Applied { version, changes, tests, warnings, unchanged });
        }
        let version = PolicyVersion(version.0.saturating_add(1));
        self.replace_policy(version, policy, (&actor, &file), (tests, changes.len())).await?;
        drop(guard);
        tracing::info!(%version, by = %actor, "policy applied");
        Ok(Applied { version, changes, tests, warnings, unchanged })
    }

    /// Commits the new version and puts it in force. Called under the write lock.
    async fn replace_policy(
        &self,
        version: PolicyVersion,
        policy: Policy,
        (actor, file): (&Actor, &str),
        (tests, changes): (usize, usize),
    ) -> Outcome<()> {
        // A host may have joined since it was checked.
        let joined = join(&policy, self.hosts.for_policy(), file).map_err(bad_policy)?;
        let inventory = self.hosts.inventory();
        let moved = moves(inventory.active(), &inventory, &joined, &self.keys.now().ring);
        let at = self.clock.now();
        let sha256 = sha256_hex(policy.text().as_bytes());
        let stored = StoredPolicy { version, text: policy.text().to_owned(), by: actor.to_string(), at };
        let event = Event::PolicyApplied { by: actor.clone(), version, sha256, tests, changes };
        let mut saves = vec![Save::Inventory { expected: inventory.entries() }, Save::NewPolicy(stored)];
        // For good: whoever puts the person or the key back later does not bring a stolen session back with it.
        let before = self.in_force();
        let lost = before.file.directory().lost_to(policy.directory());
        saves.extend(lost.map(|(person, key)| Save::EndSessionsBy(person.clone(), key)));
        let events = std::iter::once(event).chain(moved.iter().cloned().map(Event::from)).collect();
        match self.commit_decision(Change { at, saves, events }).await {
            Ok(_) => {}
            Err(StoreError::Conflict) => {
                return Err(Failure::Conflict("another policy version was applied at the same moment".to_owned()));
            }
            Err(why) => {
                // A commit that failed may be on the disk all the same.
                self.policy_unsure.store(true, Ordering::Release);
                return Err(why.into());
            }
        }
        // A crash here is mended by the next start, which loads the newest version.
        self.refresh_policy().await?;
        moved.iter().filter_map(HostEvent::host).for_each(|host| self.tell_hosts(HostChange::One(host.clone())));
        Ok(())
    }

    /// The user CAs that have keys here.
    fn user_cas(&self) -> BTreeSet<CaName> {
        let name = |ca| match ca {
            Ca::User(name) => Some(name),
            Ca::Host => None,
        };
        self.keys.cas().into_iter().filter_map(name).collect()
    }

    /// Policy and inventory may not be what the log says.
    pub(super) fn doubt_policy(&self) {
        self.policy_unsure.store(true, Ordering::Release);
    }

    /// Puts in force what the log says, if it may be something else than what is: the store failed while it was to keep a change, or
    /// another node has made one. Until that is known nothing is decided.
    ///
    /// # Errors
    /// When the store can't say it.
    pub(super) async fn settle_policy(&self) -> Outcome<()> {
        self.settle_keys().await?;
        if !self.policy_unsure.load(Ordering::Acquire) {
            return Ok(());
        }
        let _guard = Arc::clone(&self.policy_in_use).write_owned().await;
        self.refresh_policy().await?;
        // Who follows the log tells each host that an entry is about.
        if !self.store.is_shared() {
            self.tell_hosts(HostChange::All);
        }
        Ok(())
    }

    /// The same, after a look at what other nodes have put in force by now: for what is refused without an entry of the log, since there
    /// the store has nothing to compare. What joined on one node a moment ago is known on every other.
    pub(super) async fn settle_with_others(&self) -> Outcome<()> {
        if self.store.is_shared() {
            self.notice(&self.store.head().await?);
        }
        self.settle_policy().await
    }

    /// Reads policy and inventory, and puts them in force together: each was checked against the other when it was written. Called under
    /// the policy's write lock.
    pub(super) async fn refresh_policy(&self) -> Outcome<()> {
        self.doubt_policy();
        let stored = self.store.policy(None).await?.ok_or(Failure::NotFound("policy version"))?;
        let InForce { version: before, file, joined } = self.in_force();
        let version = stored.version;
        let (inventory, changed) = self.read_inventory().await?;
        let (file, joined) = if version == before {
            let changed = changed.into_iter().map(|name| inventory.named_for_policy(name));
            let joined = file.with_changed(&joined, changed);
            (file, joined)
        } else {
            let file = self.stored_policy(stored).await?;
            let joined = file.with_hosts(inventory.active().map(EnrolledHost::for_policy));
            (file, joined)
        };
        let joined = Arc::new(joined.map_err(|wrong| bad_policy(contradictions(wrong, "the stored policy")))?);
        let in_force = InForce { version, file, joined };
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = in_force;
        self.hosts.replace(inventory);
        self.policy_unsure.store(false, Ordering::Release);
        Ok(())
    }

    /// Parses a stored policy whose hash the log holds.
    async fn stored_policy(&self, stored: StoredPolicy) -> Outcome<Arc<Policy>> {
        super::start::check_hash(self.store.as_ref(), &stored).await?;
        let file = format!("policy version {}", stored.version);
        let checked = check_text(stored.text, file, self.configured_keys.clone(), None).await?;
        tracing::info!(version = %stored.version, "another policy version is in force by the log");
        Ok(Arc::new(checked.policy))
    }

    /// A version with its text; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`.
    pub async fn show_policy(&self, by: &Proven, version: Option<PolicyVersion>) -> Outcome<StoredPolicy> {
        self.check_reader(by, "read the policy")?;
        let stored = self.store.policy(version).await?.ok_or(Failure::NotFound("policy version"))?;
        super::start::check_hash(self.store.as_ref(), &stored).await?;
        Ok(stored)
    }

    /// All versions without texts; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn policy_history(&self, by: &Proven) -> Outcome<Vec<StoredPolicy>> {
        self.check_reader(by, "read the policy")?;
        Ok(self.store.policies().await?)
    }
}

/// A policy text that parses and gives no signing key to a person, how its own tests went, and what it changes.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) policy: Policy,
    pub(super) tested: Vec<Tested>,
    pub(super) changes: Vec<Difference>,
    pub(super) warnings: Vec<String>,
}

impl Checked {
    /// The same, if all of its tests passed.
    ///
    /// # Errors
    /// `BadPolicy` with the failing ones.
    pub(super) fn passed(self) -> Outcome<Self> {
        let failed_tests: Vec<Tested> = self.tested.iter().filter(|test| test.failure.is_some()).cloned().collect();
        if failed_tests.is_empty() { Ok(self) } else { Err(Failure::BadPolicy { problems: Vec::new(), failed_tests }) }
    }
}

/// Parses, runs the tests and compares, off the async threads: a policy of ten thousand rules takes a while.
///
/// # Errors
/// `BadPolicy` when it does not parse, or gives somebody a signing key of the service.
pub(super) async fn check_text(
    text: String,
    file: String,
    service_keys: BTreeSet<Fingerprint>,
    known: Option<Known>,
) -> Outcome<Checked> {
    let work = move || {
        let policy = Policy::parse(&text, &file)?;
        check_keys(&policy, &file, &service_keys)?;
        // Its own tests are about the hosts of the file: they must not depend on who has joined.
        let tested = policy.run_tests();
        let (changes, warnings) = match known {
            Some(Known { joined, hosts }) => {
                let new = join(&policy, hosts, &file)?;
                (diff(&joined, &new), new.warnings(KnownHosts::All))
            }
            None => (Vec::new(), Vec::new()),
        };
        Ok(Checked { policy, tested, changes, warnings })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(checked) => checked.map_err(bad_policy),
        Err(error) => Err(Failure::internal("checking a policy", error)),
    }
}

/// What a new policy is compared with.
pub(super) struct Known {
    /// The policy in force, with the enrolled hosts.
    pub(super) joined: Arc<Policy>,
    /// The enrolled hosts.
    pub(super) hosts: Vec<Arc<Host>>,
}

const fn bad_policy(problems: Vec<Problem>) -> Failure {
    Failure::BadPolicy { problems, failed_tests: Vec::new() }
}

/// The policy with these enrolled hosts, unless its file contradicts one of them.
fn join(policy: &Policy, hosts: Vec<Arc<Host>>, file: &str) -> Result<Policy, Vec<Problem>> {
    policy.with_hosts(hosts).map_err(|wrong| contradictions(wrong, file))
}

/// What is to be changed where the file contradicts enrolled hosts.
fn contradictions(wrong: Vec<Contradiction>, file: &str) -> Vec<Problem> {
    let problem = |wrong: Contradiction| Problem {
        file: file.to_owned(),
        line: 1,
        column: 1,
        key: format!("host {}: tags.{}", wrong.host, wrong.key),
        what: format!("{wrong}; change the file, or hallpass admin host tag {}", wrong.host),
    };
    wrong.into_iter().map(problem).collect()
}

/// A policy gives hosts to no CA that there is not: nobody could sign for them.
pub(super) fn check_cas(policy: &Policy, cas: &BTreeSet<CaName>) -> Result<(), String> {
    let Some(unknown) = policy.cas().into_iter().find(|ca| !cas.contains(ca)) else { return Ok(()) };
    let known: Vec<&str> = cas.iter().map(CaName::as_str).collect();
    Err(format!("the service has no CA \"{unknown}\" ([ca.named.{unknown}]); it has: {}", known.join(", ")))
}

/// Login keys and signing keys are disjoint (I-20).
fn check_keys(policy: &Policy, file: &str, service_keys: &BTreeSet<Fingerprint>) -> Result<(), Vec<Problem>> {
    let problem = |person: &crate::identity::Person, key: Fingerprint| Problem {
        file: file.to_owned(),
        line: 1,
        column: 1,
        key: "person.keys".to_owned(),
        what: format!("{key} of {} is a signing key of this service; no person may log in with it", person.name),
    };
    let fingerprints = |person: &'_ crate::identity::Person| {
        person.keys.iter().map(crate::ssh::PublicKey::fingerprint).collect::<Vec<_>>()
    };
    let problems: Vec<Problem> = policy
        .directory()
        .people()
        .flat_map(|person| fingerprints(person).into_iter().map(move |key| (person, key)))
        .filter(|(_, key)| service_keys.contains(key))
        .map(|(person, key)| problem(person, key))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The SHA-256 of these bytes in hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes))
}
