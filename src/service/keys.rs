//! The CA keys: what the log says of them, what is configured now, the trust bundle that follows, and how they do.
//!
//! The ring is what the newest entry with one says, proven to be in the log; no table holds it, so that nobody who can write the
//! database can have hosts trust another key.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::inventory::HostChange;
use super::{Failure, Outcome, Service, TrustBundle};
use crate::audit::checkpoint::LogKey;
use crate::audit::event::Event;
use crate::keyring::Ring;
use crate::keyring::step::Proposal;
use crate::name::PersonName;
use crate::signer::{Health, Signer};
use crate::ssh::bundle::{Bundle, KeyState};
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::Store;
use crate::time::Timestamp;

/// What is not there without a host CA key.
const NO_HOST_CA: &str = "this service has no host CA key that signs ([ca.host]), so it makes no host certificates";

/// What is not there after the only user CA key was compromised.
pub(super) const NONE_SIGNS: &str =
    "no user CA key signs: the last one was compromised; put another key into [ca.user], and start the service again";

/// What the CA keys have done since the start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    user: Counts,
    host: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    signed: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    const fn of(&self, purpose: Purpose) -> &Counts {
        match purpose {
            Purpose::User => &self.user,
            Purpose::Host => &self.host,
        }
    }

    /// One certificate was signed and believed, or not.
    pub(super) fn count(&self, purpose: Purpose, is_signed: bool) {
        let counts = self.of(purpose);
        let counter = if is_signed { &counts.signed } else { &counts.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a CA key's backend does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendFigures {
    /// What it signs.
    pub purpose: Purpose,
    /// Which key.
    pub key: Fingerprint,
    /// Its state; none if nobody has been told of it.
    pub state: Option<KeyState>,
    /// Whether it can be used now, as far as is known without asking it.
    pub is_up: bool,
}

/// How the CA key that signs does, for figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFigures {
    /// Which one.
    pub purpose: Purpose,
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
    /// What it signs.
    pub(super) purpose: Purpose,
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
    pub(super) bundle: TrustBundle,
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
    /// These keys, with what the log says; those that `[ca.user]` and `[ca.host]` name themselves stand before their next ones.
    pub(super) fn new(signers: Vec<Arc<dyn Signer>>, listed: Vec<PublicKey>, in_use: InUse) -> Self {
        let held =
            |signer: Arc<dyn Signer>| Held { purpose: signer.purpose(), key: signer.public_key().clone(), signer };
        let held = signers.into_iter().map(held).collect();
        Self { held, listed, now: RwLock::new(Arc::new(in_use)), unsure: AtomicBool::new(false) }
    }

    /// The keys for a purpose that can sign.
    pub(super) fn held_for(&self, purpose: Purpose) -> impl Iterator<Item = &PublicKey> {
        self.held.iter().filter(move |held| held.purpose == purpose).map(|held| &held.key)
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

    /// Whether it is trusted for certificates of this purpose.
    pub(super) fn is_trusted(&self, purpose: Purpose, key: &PublicKey) -> bool {
        self.ring.known(key).is_some_and(|known| known.purpose == purpose && known.state.is_trusted())
    }
}

impl Service {
    /// How the CA keys that sign do.
    #[must_use]
    pub fn key_figures(&self) -> Vec<KeyFigures> {
        let figures = |purpose: Purpose| {
            let counts = self.tally.of(purpose);
            KeyFigures {
                purpose,
                is_up: self.active_signer(purpose).is_ok_and(|signer| signer.health() == Health::Up),
                signed: counts.signed.load(Ordering::Relaxed),
                failed: counts.failed.load(Ordering::Relaxed),
            }
        };
        let host = self.keys.held_for(Purpose::Host).next().map(|_| figures(Purpose::Host));
        std::iter::once(figures(Purpose::User)).chain(host).collect()
    }

    /// How all configured keys' backends do.
    #[must_use]
    pub fn backend_figures(&self) -> Vec<BackendFigures> {
        let in_use = self.keys.now();
        let figures = |held: &Held| BackendFigures {
            purpose: held.purpose,
            key: held.key.fingerprint(),
            state: in_use.ring.known(&held.key).map(|known| known.state),
            is_up: self.keys.signer(&held.key).is_some_and(|signer| signer.health() == Health::Up),
        };
        self.keys.held.iter().map(figures).collect()
    }

    /// Whether the active user CA key can be used, as far as is known; and a warning for each other key that can't. A lost host CA key
    /// stops nobody: host certificates last for days.
    pub(super) fn check_signers(&self) -> Outcome<Vec<String>> {
        match self.active_signer(Purpose::User)?.health() {
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
            format!("the backend of a CA key can't be used: {} {}, {state}", one.purpose, one.key)
        };
        Ok(self.backend_figures().into_iter().filter(|one| !one.is_up).map(warn).collect())
    }

    /// The CA key that signs for a purpose now.
    pub(super) fn active_ca(&self, purpose: Purpose) -> Outcome<PublicKey> {
        let none = || match purpose {
            Purpose::User => Failure::Unavailable(NONE_SIGNS.to_owned()),
            Purpose::Host => Failure::Conflict(NO_HOST_CA.to_owned()),
        };
        self.keys.now().ring.active(purpose).cloned().ok_or_else(none)
    }

    /// Its backend.
    pub(super) fn active_signer(&self, purpose: Purpose) -> Outcome<Arc<dyn Signer>> {
        let signer = self.keys.signer(&self.active_ca(purpose)?).map(Arc::clone);
        let other = || Failure::Unavailable("the CA key's backend shows another key than at start".to_owned());
        signer.ok_or_else(other)
    }

    /// The user CA key of this fingerprint, if hosts must trust it and it can sign; without one the key that signs now.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`.
    pub(super) fn trusted_ca(&self, ca: Option<Fingerprint>) -> Outcome<PublicKey> {
        let Some(ca) = ca else { return self.active_ca(Purpose::User) };
        let now = self.keys.now();
        let mut held = self.keys.held_for(Purpose::User).filter(|key| now.is_trusted(Purpose::User, key));
        held.find(|key| key.fingerprint() == ca).cloned().ok_or(Failure::NotFound("CA key that signs"))
    }

    /// With which user CA key a host would log in to itself.
    ///
    /// # Errors
    /// `NotFound` for one that hosts need not trust or that can't sign.
    pub fn check_key(&self, ca: Option<Fingerprint>) -> Outcome<Fingerprint> {
        self.trusted_ca(ca).map(|key| key.fingerprint())
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
    /// The version of the trust bundle, and when it was written; nothing in a log without one.
    version: Option<(u64, Timestamp)>,
    pub(super) ring: Ring,
    proposed: Option<Proposed>,
}

impl Known {
    /// What the log says.
    pub(super) async fn read(store: &dyn Store) -> Outcome<Self> {
        let Some(entry) = store.keys_entry().await? else { return Ok(Self::default()) };
        let none = || Failure::internal("reading the CA keys", "the entry that the log's head names holds none");
        let ring = entry.event.ring().cloned().ok_or_else(none)?;
        let version = Some((entry.index, entry.at));
        match entry.event {
            Event::CaStepProposed { by, proposal, reason, until, version, since, .. } => {
                let proposed = Some(Proposed { by, proposal, reason, at: entry.at, until });
                Ok(Self { version: Some((version, since)), ring, proposed })
            }
            _ => Ok(Self { version, ring, proposed: None }),
        }
    }

    /// The ring with its trust bundle.
    pub(super) fn in_use(self, public_url: &str, log_key: &LogKey) -> Outcome<InUse> {
        let wrong = |why: String| Failure::internal("making the trust bundle", why);
        let (version, at) = self.version.ok_or_else(|| wrong("the log names no CA keys".to_owned()))?;
        let bundle = Bundle::new(version, at, public_url, self.ring.trusted_by_hosts());
        let bundle = bundle.map_err(|why| wrong(why.to_string()))?;
        let bundle = TrustBundle { version, text: bundle.to_text(log_key.notes()) };
        Ok(InUse { ring: self.ring, bundle, since: at, proposed: self.proposed })
    }

    /// The key that signs in this ring, or in the one that follows it.
    pub(super) fn active(&self, next: Option<&Ring>) -> Option<Fingerprint> {
        next.unwrap_or(&self.ring).active(Purpose::User).map(PublicKey::fingerprint)
    }
}
