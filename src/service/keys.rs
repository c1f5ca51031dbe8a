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
use crate::keyring::{Configured, Ring};
use crate::signer::{Health, Signer};
use crate::ssh::bundle::{Bundle, KeyState};
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::Store;
use crate::time::Timestamp;

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

/// How a CA key does, for figures.
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

/// A user CA key whose backend is configured.
#[derive(Debug)]
pub(super) struct Held {
    /// Its public half as it was at start; a backend that shows another one later is not asked to sign (I-19).
    pub(super) key: PublicKey,
    pub(super) signer: Arc<dyn Signer>,
}

/// The user CA keys: those that can sign, and what the log says of all of them.
pub(super) struct Keys {
    pub(super) held: Vec<Held>,
    now: RwLock<Arc<InUse>>,
    /// Whether the store failed while it was to keep a change: then the log must say how it ended.
    unsure: AtomicBool,
}

/// The ring in force, with its trust bundle.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) ring: Ring,
    pub(super) bundle: TrustBundle,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("version", &self.now().bundle.version).finish_non_exhaustive()
    }
}

impl Keys {
    /// These keys, with what the log says; the first is the one that `[ca.user]` names.
    pub(super) fn new(signers: Vec<Arc<dyn Signer>>, in_use: InUse) -> Self {
        let held = |signer: Arc<dyn Signer>| Held { key: signer.public_key().clone(), signer };
        let held = signers.into_iter().map(held).collect();
        Self { held, now: RwLock::new(Arc::new(in_use)), unsure: AtomicBool::new(false) }
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

    /// Whether hosts trust it for user certificates.
    pub(super) fn is_trusted(&self, key: &PublicKey) -> bool {
        self.ring.known(key).is_some_and(|known| known.purpose == Purpose::User && known.state.is_trusted())
    }
}

impl Service {
    /// How the CA keys that sign do.
    #[must_use]
    pub fn key_figures(&self) -> Vec<KeyFigures> {
        let active = self.active_signer().ok();
        let figures = |purpose: Purpose, signer: Option<&Arc<dyn Signer>>| {
            let counts = self.tally.of(purpose);
            KeyFigures {
                purpose,
                is_up: signer.is_some_and(|signer| signer.health() == Health::Up),
                signed: counts.signed.load(Ordering::Relaxed),
                failed: counts.failed.load(Ordering::Relaxed),
            }
        };
        let host = self.host_signer.as_ref().map(|signer| figures(Purpose::Host, Some(signer)));
        std::iter::once(figures(Purpose::User, active.as_ref())).chain(host).collect()
    }

    /// Whether the active user CA key can be used, as far as is known. A lost host CA key stops nobody: host certificates last for days.
    pub(super) fn check_signer(&self) -> Outcome<()> {
        match self.active_signer()?.health() {
            Health::Up => Ok(()),
            // Why not, its own thread has said once.
            Health::Down(_) => Err(Failure::Unavailable(
                "the user CA key's backend can't be used; the service's own log says why".to_owned(),
            )),
        }
    }

    /// The user CA key that signs for people now.
    pub(super) fn active_ca(&self) -> Outcome<PublicKey> {
        let none = || Failure::internal("finding the user CA key", "none is active");
        self.keys.now().ring.active(Purpose::User).cloned().ok_or_else(none)
    }

    /// Its backend.
    pub(super) fn active_signer(&self) -> Outcome<Arc<dyn Signer>> {
        let signer = self.keys.signer(&self.active_ca()?).map(Arc::clone);
        let other = || Failure::Unavailable("the CA key's backend shows another key than at start".to_owned());
        signer.ok_or_else(other)
    }

    /// The user CA key of this fingerprint, if hosts must trust it and it can sign.
    pub(super) fn trusted_ca(&self, ca: Fingerprint) -> Option<PublicKey> {
        let now = self.keys.now();
        let held = self.keys.held.iter().find(|held| held.key.fingerprint() == ca)?;
        now.is_trusted(&held.key).then(|| held.key.clone())
    }

    /// Reads what the log says of the CA keys, and puts it in force. Called under the policy's write lock.
    pub(super) async fn refresh_keys(&self) -> Outcome<()> {
        self.keys.doubt();
        let known = Known::read(self.store.as_ref()).await?;
        let in_use = known.in_use(&self.settings.public_url, &self.log_key)?;
        *self.keys.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(in_use);
        self.keys.unsure.store(false, Ordering::Release);
        self.tell_hosts(HostChange::All);
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
    /// The entry's index, and when it was written; nothing in a log without one.
    version: Option<(u64, Timestamp)>,
    ring: Ring,
}

impl Known {
    /// What the log says.
    pub(super) async fn read(store: &dyn Store) -> Outcome<Self> {
        let Some(entry) = store.keys_entry().await? else { return Ok(Self::default()) };
        let version = Some((entry.index, entry.at));
        match entry.event.ring() {
            Some(ring) => Ok(Self { version, ring: ring.clone() }),
            None => Err(Failure::internal("reading the CA keys", "the entry that the log's head names holds none")),
        }
    }

    /// The ring in which the configured keys are active, if that is another one.
    ///
    /// # Errors
    /// `Unavailable` when the keys don't go together.
    pub(super) fn with(
        &self,
        (user, next): (&dyn Signer, &[Arc<dyn Signer>]),
        host: Option<&dyn Signer>,
        trusted: &[PublicKey],
        now: Timestamp,
    ) -> Outcome<Option<Ring>> {
        let is_user = next.iter().all(|signer| signer.purpose() == Purpose::User) && user.purpose() == Purpose::User;
        if !is_user || host.is_some_and(|host| host.purpose() != Purpose::Host) {
            return Err(Failure::internal("opening the CA keys", "a key was opened for the other purpose"));
        }
        let next: Vec<PublicKey> = next.iter().map(|signer| signer.public_key().clone()).collect();
        let (user, host) = (user.public_key(), host.map(Signer::public_key));
        let configured = Configured { user, next: &next, host, trusted };
        let ring = self.ring.configured(&configured, now);
        let ring = ring.map_err(|why| Failure::Unavailable(format!("the configured CA keys can't be used: {why}")))?;
        self.warn_of_gone(&ring);
        Ok((ring != self.ring).then_some(ring))
    }

    /// A key that is taken out while its certificates run is either stolen or a mistake.
    fn warn_of_gone(&self, next: &Ring) {
        let trusted = self.ring.trusted_by_hosts();
        let is_gone = |key: &PublicKey| next.keys().iter().any(|k| k.key == *key && k.state == KeyState::Retired);
        for gone in trusted.iter().filter(|known| is_gone(&known.key)) {
            let ca = gone.key.fingerprint();
            tracing::warn!(%ca, "a CA key is configured no longer, and hosts will refuse its certificates; if it was not \
                stolen, list it as trusted in [ca.user] until they have ended");
        }
    }

    /// The ring with its trust bundle.
    pub(super) fn in_use(self, public_url: &str, log_key: &LogKey) -> Outcome<InUse> {
        let wrong = |why: String| Failure::internal("making the trust bundle", why);
        let (version, at) = self.version.ok_or_else(|| wrong("the log names no CA keys".to_owned()))?;
        let bundle = Bundle::new(version, at, public_url, self.ring.trusted_by_hosts());
        let bundle = bundle.map_err(|why| wrong(why.to_string()))?;
        let bundle = TrustBundle { version, text: bundle.to_text(log_key.notes()) };
        Ok(InUse { ring: self.ring, bundle })
    }

    /// The key that signs in this ring, or in the one that follows it.
    pub(super) fn active(&self, next: Option<&Ring>) -> Option<Fingerprint> {
        next.unwrap_or(&self.ring).active(Purpose::User).map(PublicKey::fingerprint)
    }
}
