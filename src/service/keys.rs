//! The CA keys: what the log says of them, what is configured now, the trust bundle that follows, and how they do.
//!
//! The ring is what the newest entry with one says, proven to be in the log; no table holds it, so that nobody who can write the
//! database can have hosts trust another key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::bundles::{Stands, stands, write};
use super::inventory::HostChange;
use super::{Failure, Outcome, Service, TrustBundle};
use crate::audit::checkpoint::LogKey;
use crate::audit::event::{Event, Stand};
use crate::identity::host::HostProven;
use crate::inventory::EnrolledHost;
use crate::keyring::step::Proposal;
use crate::keyring::{ActiveKey, Ca, Ring};
use crate::name::{CaName, PersonName};
use crate::signer::{Health, Signer};
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::Store;
use crate::time::Timestamp;

/// What is not there without a host CA key.
const NO_HOST_CA: &str = "this service has no host CA key that signs ([ca.host]), so it makes no host certificates";

/// What is not there after the only key of a user CA was compromised.
pub(super) fn none_signs(ca: &Ca) -> String {
    let table = ca.table();
    format!(
        "no {ca} CA key signs: the last one was compromised; put another key into [{table}], and start the service again"
    )
}

/// What the CA keys have done since the start.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<Ca, Counts>>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    signed: u64,
    failed: u64,
}

impl Tally {
    fn of(&self, ca: &Ca) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(ca).copied().unwrap_or_default()
    }

    /// One certificate was signed and believed, or not.
    pub(super) fn count(&self, ca: Ca, is_signed: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = counts.entry(ca).or_default();
        let counter = if is_signed { &mut counts.signed } else { &mut counts.failed };
        *counter = counter.saturating_add(1);
    }
}

/// How a CA key's backend does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFigures {
    /// Of which CA it is.
    pub ca: Ca,
    /// Which key.
    pub key: Fingerprint,
    /// Its state; none if nobody has been told of it.
    pub state: Option<KeyState>,
    /// Whether it can be used now, as far as is known without asking it.
    pub is_up: bool,
}

/// How the CA key that signs does, for figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFigures {
    /// Of which CA.
    pub ca: Ca,
    /// Whether it can be used now, as far as is known without asking it.
    pub is_up: bool,
    /// Certificates that it signed since the start.
    pub signed: u64,
    /// Those that it should have signed and did not, or wrongly.
    pub failed: u64,
}

/// A CA key whose backend is configured.
#[derive(Debug)]
pub(super) struct Held {
    /// Of which CA it is.
    pub(super) ca: Ca,
    /// Its public half as it was at start; a backend that shows another one later is not asked to sign (I-19).
    pub(super) key: PublicKey,
    pub(super) signer: Arc<dyn Signer>,
}

/// The CA keys: those that can sign, and what the log says of all of them.
pub(super) struct Keys {
    pub(super) held: Vec<Held>,
    /// Keys that the configuration lists as trusted, and that sign nothing here.
    pub(super) listed: Vec<PublicKey>,
    now: RwLock<Arc<InUse>>,
    /// Whether the store failed while it was to keep a change: then the log must say how it ended.
    unsure: AtomicBool,
}

/// The ring in force, with its trust bundle.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) ring: Ring,
    /// That of the default CA.
    pub(super) bundle: TrustBundle,
    pub(super) stands: Stands,
    /// The entry that says so; a proposal has a later one than the bundle.
    pub(super) entry: u64,
    /// When the trust bundle was written.
    pub(super) since: Timestamp,
    /// A step that somebody has proposed, perhaps long ago.
    pub(super) proposed: Option<Proposed>,
}

/// A step of a rotation that waits for a second person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Who proposed it.
    pub by: PersonName,
    /// What exactly.
    pub proposal: Proposal,
    /// Why; may be empty.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// When it lapses.
    pub until: Timestamp,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("version", &self.now().bundle.version).finish_non_exhaustive()
    }
}

impl Keys {
    /// These keys, with what the log says; those that a CA's own table names stand before its next ones.
    pub(super) fn new(signers: Vec<(Ca, Arc<dyn Signer>)>, listed: Vec<PublicKey>, in_use: InUse) -> Self {
        let held = |(ca, signer): (Ca, Arc<dyn Signer>)| Held { ca, key: signer.public_key().clone(), signer };
        let held = signers.into_iter().map(held).collect();
        Self { held, listed, now: RwLock::new(Arc::new(in_use)), unsure: AtomicBool::new(false) }
    }

    /// The keys of a CA that can sign.
    pub(super) fn held_for(&self, ca: &Ca) -> impl Iterator<Item = &PublicKey> {
        self.held.iter().filter(move |held| held.ca == *ca).map(|held| &held.key)
    }

    /// The CAs that have a key here.
    pub(super) fn cas(&self) -> BTreeSet<Ca> {
        self.held.iter().map(|held| held.ca.clone()).collect()
    }

    /// What is in force.
    pub(super) fn now(&self) -> Arc<InUse> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The log may say something else from now on.
    pub(super) fn doubt(&self) {
        self.unsure.store(true, Ordering::Release);
    }

    /// The backend of a key, if it still shows that key.
    pub(super) fn signer(&self, key: &PublicKey) -> Option<&Arc<dyn Signer>> {
        let held = self.held.iter().find(|held| held.key == *key)?;
        (held.signer.public_key() == key).then_some(&held.signer)
    }
}

impl InUse {
    /// The keys that were compromised.
    pub(super) fn lost(&self) -> BTreeSet<Fingerprint> {
        let lost = self.ring.keys().iter().filter(|known| known.state == KeyState::Compromised);
        lost.map(|known| known.key.fingerprint()).collect()
    }

    /// The CA whose certificates of this purpose are trusted by this key.
    pub(super) fn trusted(&self, purpose: Purpose, key: &PublicKey) -> Option<Ca> {
        let known = self.ring.known(key).filter(|known| known.purpose() == purpose && known.state.is_trusted());
        known.map(|known| known.ca.clone())
    }
}

impl Service {
    /// Keys that sign for the service, and those of which the log still tells: none of them logs in, approves or is certified (I-20). A CA key that is
    /// configured no more may be trusted by hosts still, or be in the hands of whoever stole it. (Of a CA's keys that just retired the log tells the newest.)
    pub(super) fn service_keys(&self) -> BTreeSet<Fingerprint> {
        let in_use = self.keys.now();
        let known = in_use.ring.keys().iter().map(|known| known.key.fingerprint());
        self.configured_keys.iter().copied().chain(known).collect()
    }

    /// Whether this is one of them.
    pub(super) fn is_service_key(&self, key: &PublicKey) -> bool {
        self.configured_keys.contains(&key.fingerprint()) || self.keys.now().ring.known(key).is_some()
    }

    /// How the CA keys that sign do.
    #[must_use]
    pub fn key_figures(&self) -> Vec<KeyFigures> {
        let figures = |ca: Ca| {
            let Counts { signed, failed } = self.tally.of(&ca);
            let is_up = self.active_signer(&ca).is_ok_and(|signer| signer.health() == Health::Up);
            KeyFigures { ca, is_up, signed, failed }
        };
        self.keys.cas().into_iter().map(figures).collect()
    }

    /// How all configured keys' backends do.
    #[must_use]
    pub fn backend_figures(&self) -> Vec<BackendFigures> {
        let in_use = self.keys.now();
        let figures = |held: &Held| BackendFigures {
            ca: held.ca.clone(),
            key: held.key.fingerprint(),
            state: in_use.ring.known(&held.key).map(|known| known.state),
            is_up: self.keys.signer(&held.key).is_some_and(|signer| signer.health() == Health::Up),
        };
        self.keys.held.iter().map(figures).collect()
    }

    /// Whether the active key of the default user CA can be used, as far as is known; and a warning for each other key that can't. A lost
    /// host CA key stops nobody: host certificates last for days; and one of a named CA stops nobody on the hosts of the others.
    pub(super) fn check_signers(&self) -> Outcome<Vec<String>> {
        match self.active_signer(&Ca::USER)?.health() {
            Health::Up => {}
            // Why not, its own thread has said once.
            Health::Down(_) => {
                return Err(Failure::Unavailable(
                    "the user CA key's backend can't be used; the service's own log says why".to_owned(),
                ));
            }
        }
        let warn = |one: BackendFigures| {
            let state = one.state.map_or("next", KeyState::word);
            format!("the backend of a CA key can't be used: {} {}, {state}", one.ca, one.key)
        };
        Ok(self.backend_figures().into_iter().filter(|one| !one.is_up).map(warn).collect())
    }

    /// The key that signs for a CA now.
    pub(super) fn active_ca(&self, ca: &Ca) -> Outcome<ActiveKey> {
        let none = || match ca {
            Ca::User(_) => Failure::Unavailable(none_signs(ca)),
            Ca::Host => Failure::Conflict(NO_HOST_CA.to_owned()),
        };
        self.keys.now().ring.signs_for(ca).ok_or_else(none)
    }

    /// Its backend.
    pub(super) fn active_signer(&self, ca: &Ca) -> Outcome<Arc<dyn Signer>> {
        let signer = self.keys.signer(self.active_ca(ca)?.key()).map(Arc::clone);
        let other = || Failure::Unavailable("the CA key's backend shows another key than at start".to_owned());
        signer.ok_or_else(other)
    }

    /// The user CA key of this fingerprint, if this host must trust it and it can sign; without one the key that signs for it now.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub(super) fn trusted_ca(&self, host: &EnrolledHost, ca: Option<Fingerprint>) -> Outcome<PublicKey> {
        let Some(ca) = ca else { return Ok(self.active_ca(&Ca::User(host.ca.clone()))?.key().clone()) };
        let trusted = self.bundle_keys(host);
        let held = self.keys.held.iter().map(|held| &held.key).find(|key| key.fingerprint() == ca);
        held.filter(|_| trusted.contains(&ca)).cloned().ok_or(Failure::NotFound("CA key that signs"))
    }

    /// With which user CA key a host would log in to itself.
    ///
    /// # Errors
    /// `NotFound` for one that it need not trust or that can't sign, `Forbidden` when it is retired.
    pub fn check_key(&self, by: &HostProven, ca: Option<Fingerprint>) -> Outcome<Fingerprint> {
        self.trusted_ca(&self.enrolled(by)?, ca).map(|key| key.fingerprint())
    }

    /// Reads what the log says of the CA keys, and puts it in force. Called under the policy's write lock.
    pub(super) async fn refresh_keys(&self) -> Outcome<()> {
        self.keys.doubt();
        let known = Known::read(self.store.as_ref()).await?;
        let in_use = known.in_use(&self.settings.public_url, &self.log_key)?;
        let is_news = self.keys.now().ring != in_use.ring;
        *self.keys.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(in_use);
        self.keys.unsure.store(false, Ordering::Release);
        if is_news {
            self.tell_hosts(HostChange::All);
        }
        Ok(())
    }

    /// Puts in force what the log says, if the store failed while it was to keep a change of the CA keys.
    pub(super) async fn settle_keys(&self) -> Outcome<()> {
        if !self.keys.unsure.load(Ordering::Acquire) {
            return Ok(());
        }
        let _guard = Arc::clone(&self.policy_in_use).write_owned().await;
        self.refresh_keys().await
    }
}

/// The ring as the log has it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Of each user CA's trust bundle the version, and when it was written; nothing in a log without one.
    pub(super) stands: Stands,
    /// The entry that says so.
    entry: u64,
    pub(super) ring: Ring,
    proposed: Option<Proposed>,
}

impl Known {
    /// What the log says.
    pub(super) async fn read(store: &dyn Store) -> Outcome<Self> {
        let Some(entry) = store.keys_entry().await? else { return Ok(Self::default()) };
        let none = || Failure::internal("reading the CA keys", "the entry that the log's head names holds none");
        let ring = entry.event.ring().cloned().ok_or_else(none)?;
        let (index, at) = (entry.index, entry.at);
        let here = Stand { version: index, since: at };
        match entry.event {
            Event::CaStepProposed { by, proposal, reason, until, version, since, kept, .. } => {
                let proposed = Some(Proposed { by, proposal, reason, at, until });
                let mut stands = stands(&ring, kept.as_ref(), here);
                stands.insert(CaName::DEFAULT, Stand { version, since });
                Ok(Self { stands, entry: index, ring, proposed })
            }
            Event::ServiceStarted { kept, .. } | Event::CaKeysChanged { kept, .. } => {
                Ok(Self { stands: stands(&ring, kept.as_ref(), here), entry: index, ring, proposed: None })
            }
            _ => Err(none()),
        }
    }

    /// The ring with its trust bundle.
    pub(super) fn in_use(self, public_url: &str, log_key: &LogKey) -> Outcome<InUse> {
        let none = || Failure::internal("making the trust bundle", "the log names no CA keys");
        let stand = self.stands.get(&CaName::DEFAULT).copied().ok_or_else(none)?;
        let keys = self.ring.trusted_by_hosts(&CaName::DEFAULT);
        let bundle = write((public_url, &CaName::DEFAULT), stand, keys, log_key)?;
        let Self { ring, stands, entry, proposed } = self;
        Ok(InUse { ring, bundle, stands, entry, since: stand.since, proposed })
    }

    /// The key that signs for the default CA in this ring, or in the one that follows it.
    pub(super) fn active(&self, next: Option<&Ring>) -> Option<Fingerprint> {
        next.unwrap_or(&self.ring).active(&Ca::USER).map(PublicKey::fingerprint)
    }
}
