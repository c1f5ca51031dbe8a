//! The CA keys at start: what the log says of them, what is configured now, and the trust bundle that follows.
//!
//! The ring is what the newest entry with one says, proven to be in the log; no table holds it, so that nobody who can write the
//! database can have hosts trust another key.

use super::{Failure, Outcome, TrustBundle};
use crate::audit::checkpoint::LogKey;
use crate::audit::event::Event;
use crate::keyring::Ring;
use crate::signer::Signer;
use crate::ssh::bundle::Bundle;
use crate::ssh::cert::Purpose;
use crate::store::Store;
use crate::time::Timestamp;

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
    pub(super) fn with(&self, user: &dyn Signer, host: Option<&dyn Signer>, now: Timestamp) -> Outcome<Option<Ring>> {
        if user.purpose() != Purpose::User || host.is_some_and(|host| host.purpose() != Purpose::Host) {
            return Err(Failure::internal("opening the CA keys", "a key was opened for the other purpose"));
        }
        let ring = self.ring.configured(user.public_key(), host.map(Signer::public_key), now);
        let ring = ring.map_err(|why| Failure::Unavailable(format!("the configured CA keys can't be used: {why}")))?;
        Ok((ring != self.ring).then_some(ring))
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
