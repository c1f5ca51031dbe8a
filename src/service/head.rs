//! The newest signed checkpoint, kept apart from the store: written before a certificate leaves, compared at start.
//!
//! What for: a store that was put back from a copy must not go on as if nothing had happened since (I-10, I-27): it would
//! use serials twice and certify a grant twice.
//!
//! Invariant: when a certificate is handed out, the kept checkpoint covers its log entry. One write serves everybody who
//! waits for it, like a group commit.
//!
//! What takes something away (a denial, an end, a logout, another policy, a use of a join token, a host that leaves) is covered before it is
//! answered, too, and all is at a stop: an older copy must not bring back what somebody was told is over. What is lost and was never covered (a
//! question, an approval, at most [`KEEP_EVERY_S`] old) is asked again; nothing was issued on it.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::lost::{self, Stands};
use super::{Failure, Outcome, Service};
use crate::audit::checkpoint::LogKey;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::audit::tree::Frontier;
use crate::store::{Store, head_file::KeptHead};

/// How old what is kept may become while entries are added, in seconds.
const KEEP_EVERY_S: u64 = 10;

/// The place, and the log's size that it covers.
#[derive(Debug)]
pub(super) struct Head {
    place: Arc<dyn KeptHead>,
    kept: Mutex<u64>,
}

impl Head {
    /// Compares what is kept with the store's log.
    ///
    /// # Errors
    /// `Unavailable` when the store's log is older than, or another than, what was signed; or the place can't be read.
    pub(super) async fn open(place: Arc<dyn KeptHead>, store: &dyn Store, key: &LogKey) -> Outcome<Self> {
        if let Some(entry) = lost::begun(store).await? {
            return Err(Failure::Unavailable(format!(
                "the log ends in lost entries, from {entry} on: a recovery was begun and not finished. To go on with it: hallpass admin store \
                 recover"
            )));
        }
        let reading = Arc::clone(&place);
        let read = tokio::task::spawn_blocking(move || reading.read()).await;
        let kept = read.map_err(|error| Failure::internal("reading the log's kept checkpoint", error))?;
        let unread =
            |why| Failure::Unavailable(format!("{}: {why}; the file must be the service's own", place.place()));
        let kept = kept.map_err(unread)?;
        let Some(note) = lost::newest(&key.verifier(), kept) else {
            let size = store.head().await?.frontier.size();
            if size > 0 {
                let place = place.place();
                tracing::warn!(%place, size, "no checkpoint is kept yet; whether this database is the newest is not known");
            }
            return Ok(Self { place, kept: Mutex::new(0) });
        };
        let refuse = |why: String| {
            let place = place.place();
            Failure::Unavailable(format!(
                "the log in the database and the checkpoint in {place} disagree: {why}. Serials would be used twice, so \
                 nothing is started. Put the newest database back; if it is lost: hallpass admin store recover"
            ))
        };
        match lost::stands(store, &key.verifier(), &note).await? {
            Stands::Covered(size) => {
                // What a process before us wrote may never have been synced, and something is about to rest on it.
                let keeping = Arc::clone(&place);
                let written = tokio::task::spawn_blocking(move || keeping.write(&note)).await;
                written.map_err(|error| Failure::internal("keeping the log's checkpoint", error))??;
                Ok(Self { place, kept: Mutex::new(size) })
            }
            Stands::GivenUp(entry) => {
                let place_shown = place.place();
                tracing::warn!(place = %place_shown, entry, "the kept checkpoint is of entries that were given up; a new one is kept");
                Ok(Self { place, kept: Mutex::new(0) })
            }
            Stands::Unusable(why) => Err(Failure::Unavailable(format!(
                "the checkpoint in {} does not count: {why}. Whether this database is the newest is not known, so nothing is started. What can be \
                 done says: hallpass admin store recover",
                place.place()
            ))),
            Stands::Behind(signed) => {
                let size = store.head().await?.frontier.size();
                Err(refuse(format!("the log has {size} entries, the checkpoint {signed}")))
            }
            Stands::Other(size) => Err(refuse(format!("the first {size} entries are not those that were signed"))),
            Stands::Missing => Err(Failure::internal("reading the log's kept checkpoint", "it is there and is not")),
        }
    }
}

/// Whether this takes away what somebody had, or might have had.
pub(super) const fn takes_away(event: &Event) -> bool {
    matches!(
        event,
        Event::Denied { .. }
            | Event::Withdrawn { .. }
            | Event::Ended { .. }
            | Event::Narrowed { .. }
            | Event::LoggedOut { .. }
            | Event::PolicyApplied { .. }
            | Event::Host(
                HostEvent::JoinRevoked { .. }
                    // A use of its join token.
                    | HostEvent::HostEnrolled { .. }
                    | HostEvent::HostTagged { .. }
                    | HostEvent::HostMoved { .. }
                    | HostEvent::HostRetired { .. }
                    | HostEvent::HostLeft { .. }
            )
    )
}

impl Service {
    /// Has the kept checkpoint cover the log's first `size` entries.
    ///
    /// # Errors
    /// When it can't be written; then nothing that rests on it may leave.
    pub(super) async fn keep_head(&self, size: u64) -> Outcome<()> {
        let mut kept = self.head.kept.lock().await;
        if *kept >= size {
            return Ok(());
        }
        *kept = self.write_head().await?;
        Ok(())
    }

    /// The same, for what is done and can't be taken back: that it is not kept is told to operators, here and by `/readyz`.
    pub(super) async fn keep_head_or_tell(&self, size: u64) {
        if let Err(error) = self.keep_head(size).await {
            tracing::error!(%error, size, "cannot keep a checkpoint of what was just decided: an older copy of the database would not show");
        }
    }

    /// Keeps the newest checkpoint: the last thing that a service does.
    pub async fn finish(&self) {
        match self.store.head().await {
            Ok(head) => self.keep_head_or_tell(head.frontier.size()).await,
            Err(error) => tracing::error!(%error, "cannot keep the log's last checkpoint"),
        }
    }

    /// Whether a checkpoint can be kept now: without one nothing is handed out. Keeps the newest.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) async fn check_head(&self) -> Outcome<()> {
        let mut kept = self.head.kept.lock().await;
        *kept = self.write_head().await?;
        Ok(())
    }

    /// Signs and keeps what the log is now; its size. Called with `kept` locked, so that an older one never replaces a newer.
    async fn write_head(&self) -> Outcome<u64> {
        // What was written on an older copy of a shared database must not take the place of what was there before.
        let head = if self.store.is_shared() { self.look_at_head().await? } else { self.store.head().await? };
        let frontier = head.frontier;
        self.keep_frontier(&frontier).await?;
        Ok(frontier.size())
    }

    async fn keep_frontier(&self, frontier: &Frontier) -> Outcome<()> {
        let note = self.log_key.sign(frontier.size(), &frontier.root());
        let place = Arc::clone(&self.head.place);
        let written = tokio::task::spawn_blocking(move || place.write(&note)).await;
        written.map_err(|error| Failure::internal("keeping the log's checkpoint", error))??;
        Ok(())
    }

    /// Keeps what is known of a log that is not there any more, unless as much is kept already: it is the last trace of it.
    pub(super) async fn keep_known(&self, known: &Frontier) {
        let mut kept = self.head.kept.lock().await;
        if *kept >= known.size() {
            return;
        }
        match self.keep_frontier(known).await {
            Ok(()) => *kept = known.size(),
            Err(error) => tracing::error!(%error, size = known.size(), "cannot keep a checkpoint of what the log had"),
        }
    }

    /// Keeps up, now and then, with entries that no certificate needs.
    pub(super) async fn keep_head_now_and_then(&self, now: u64) -> Outcome<()> {
        if !now.is_multiple_of(KEEP_EVERY_S) {
            return Ok(());
        }
        self.keep_head(self.store.head().await?.frontier.size()).await
    }
}
