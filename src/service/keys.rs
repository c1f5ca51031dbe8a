//! The CA keys: what the log says of them, what is configured now, the trust bundle that follows, and how they do.
//!
//! The ring is what the newest entry with one says, proven to be in the log; no table holds it, so that nobody who can write the
//! database can have hosts trust another key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Failure, Outcome, Service, TrustBundle};
use crate::audit::checkpoint::LogKey;
use crate::audit::event::Event;
use crate::keyring::{Configured, Ring};
use crate::signer::{Health, Signer};
use crate::ssh::PublicKey;
use crate::ssh::bundle::{Bundle, KeyState};
use crate::ssh::cert::Purpose;
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

impl Service {
    /// How the CA keys do.
    #[must_use]
    pub fn key_figures(&self) -> Vec<KeyFigures> {
        let signers = std::iter::once(&self.signer).chain(self.host_signer.as_ref());
        let figures = |signer: &Arc<dyn Signer>| {
            let purpose = signer.purpose();
            let counts = self.tally.of(purpose);
            KeyFigures {
                purpose,
                is_up: signer.health() == Health::Up,
                signed: counts.signed.load(Ordering::Relaxed),
                failed: counts.failed.load(Ordering::Relaxed),
            }
        };
        signers.map(figures).collect()
    }

    /// Whether the user CA key can be used, as far as is known. A lost host CA key stops nobody: host certificates last for days.
    pub(super) fn check_signer(&self) -> Outcome<()> {
        match self.signer.health() {
            Health::Up => Ok(()),
            // Why not, its own thread has said once.
            Health::Down(_) => Err(Failure::Unavailable(
                "the user CA key's backend can't be used; the service's own log says why".to_owned(),
            )),
        }
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
        match entry.event {
            Event::ServiceStarted { keys: Some(ring), .. } => Ok(Self { version, ring }),
            _ => Err(Failure::internal("reading the CA keys", "the entry that the log's head names holds none")),
        }
    }

    /// The ring in which the configured keys are active, if that is another one.
    ///
    /// # Errors
    /// `Unavailable` when the keys don't go together.
    pub(super) fn with(
        &self,
        user: &dyn Signer,
        host: Option<&dyn Signer>,
        trusted: &[PublicKey],
        now: Timestamp,
    ) -> Outcome<Option<Ring>> {
        if user.purpose() != Purpose::User || host.is_some_and(|host| host.purpose() != Purpose::Host) {
            return Err(Failure::internal("opening the CA keys", "a key was opened for the other purpose"));
        }
        let configured = Configured { user: user.public_key(), host: host.map(Signer::public_key), trusted };
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

    /// The trust bundle of this ring.
    pub(super) fn bundle(&self, public_url: &str, log_key: &LogKey) -> Outcome<TrustBundle> {
        let wrong = |why: String| Failure::internal("making the trust bundle", why);
        let (version, at) = self.version.ok_or_else(|| wrong("the log names no CA keys".to_owned()))?;
        let bundle = Bundle::new(version, at, public_url, self.ring.trusted_by_hosts());
        let bundle = bundle.map_err(|why| wrong(why.to_string()))?;
        Ok(TrustBundle { version, text: bundle.to_text(log_key.notes()) })
    }
}
