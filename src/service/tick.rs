//! What time alone does: undecided requests lapse, windows end, dead sessions are deleted. And what a crash left undone of a CA key that was given up.
//!
//! The rules take time into account at every step, so a tick that comes late changes no decision; it only lets the
//! store and the log say what is so already.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Outcome, Service, whole};
use crate::access::{Command, Step, step};
use crate::store::{Change, Save, StoreError, Stored};
use crate::time::{Lifetime, Timestamp};

/// How many requests one tick moves in one change. Our own choice: whoever has a certificate issued meanwhile waits for one such change, a
/// millisecond or two, and not for all that is due (`cargo bench --bench soak`: of 25 at a time p99 was 3.2 times p50, of 8 it is 2.5).
pub(super) const TICK_BATCH: usize = 8;

/// How many are read at once. Our own choice: a few that can't be moved, and so are due for ever, don't keep the others from being moved.
const TICK_READ: usize = 8 * TICK_BATCH;

/// How often one tick reads what is due at most; the rest waits for the next tick.
const TICK_READS: usize = 32;

/// For how long in a tick there is a pause after each batch, as long as the batch took. Whatever is due in a second is due at once: others must not
/// wait for all of it. Our own choice: most of the second until the next tick; what is left then is done without a pause.
const PAUSING: Duration = Duration::from_millis(800);

/// How often dead sessions and used challenges are deleted. A sweep takes 2,000 of a kind (`store/sweep.rs`), and a host leaves 24 of two kinds a
/// day: each minute, that keeps up with 100,000 hosts on one node. One that finds nothing costs next to nothing.
const SWEEP_EVERY_S: u64 = 60;

/// How long they are kept beyond their end: a day. A clock that is set back must not make a used challenge one that was never
/// used; a row has some fifty bytes.
const KEPT_BEYOND: Lifetime = Lifetime::minutes(24 * 60);

impl Service {
    /// Lapses and expires what is due; called every second by the server, and by tests. Returns how many changed; none while
    /// the clock has leapt.
    ///
    /// # Errors
    /// [`super::Failure`].
    pub async fn tick(self: &Arc<Self>) -> Outcome<usize> {
        let this = Arc::clone(self);
        whole(async move {
            // What a clock that leapt would lapse, expire and delete can't be brought back.
            if this.check_clock().is_err() {
                return Ok(0);
            }
            this.settle_policy().await?;
            let now = this.clock.now();
            let (mut changed, began) = (0_usize, Instant::now());
            for _ in 0..TICK_READS {
                let due = this.store.due(now, TICK_READ).await?;
                let (read, before) = (due.len(), changed);
                for batch in due.chunks(TICK_BATCH) {
                    let began_batch = Instant::now();
                    changed = changed.saturating_add(this.tick_all(batch, now).await?);
                    if began.elapsed() < PAUSING && read > TICK_BATCH {
                        tokio::time::sleep(began_batch.elapsed()).await;
                    }
                }
                if read < TICK_READ || changed == before {
                    break;
                }
            }
            this.sweep(now).await?;
            this.tick_keys(now).await?;
            this.settle_moves(now).await?;
            this.keep_head_now_and_then(now.unix()).await?;
            Ok(changed.saturating_add(this.tick_lost_keys(now).await?))
        })
        .await
    }

    /// Moves all of these on.
    async fn tick_all(&self, due: &[Stored], now: Timestamp) -> Outcome<usize> {
        let steps: Vec<(Stored, Step)> = due.iter().filter_map(|stored| tick_step(stored.clone(), now)).collect();
        self.move_all(&steps, now).await
    }

    /// Saves all of these steps, in one commit if nobody interferes, else one by one; gives how many it saved.
    pub(super) async fn move_all(&self, steps: &[(Stored, Step)], now: Timestamp) -> Outcome<usize> {
        if steps.is_empty() {
            return Ok(0);
        }
        match self.save_all(steps, now).await {
            Err(StoreError::Conflict) => {}
            done => return Ok(done.map(|()| steps.len())?),
        }
        let mut moved = 0_usize;
        for one in steps {
            match self.save_all(std::slice::from_ref(one), now).await {
                Err(StoreError::Conflict) => {}
                done => moved = done.map(|()| moved.saturating_add(1))?,
            }
        }
        Ok(moved)
    }

    async fn save_all(&self, steps: &[(Stored, Step)], at: Timestamp) -> Result<(), StoreError> {
        let save =
            |(read, step): &(Stored, Step)| Save::Request { request: step.request.clone(), expected: read.version };
        let saves = steps.iter().map(save).collect();
        let events = steps.iter().flat_map(|(_, step)| step.events.clone()).collect();
        self.commit(Change { at, saves, events }).await.map(|_| ())
    }

    /// Deletes what has been dead for long, now and then.
    async fn sweep(&self, now: Timestamp) -> Outcome<()> {
        let last = self.swept.load(Ordering::Relaxed);
        if now.unix().abs_diff(last) >= SWEEP_EVERY_S {
            if let Ok(over) = now.minus(KEPT_BEYOND) {
                self.store.sweep(over).await?;
            }
            self.swept.store(now.unix(), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The request with its tick taken, if one is due.
pub(super) fn tick_step(stored: Stored, now: Timestamp) -> Option<(Stored, Step)> {
    if stored.request.next_tick().is_none_or(|at| now < at) {
        return None;
    }
    match step(stored.request.clone(), Command::Tick, now) {
        Ok(taken) => (!taken.events.is_empty()).then_some((stored, taken)),
        Err(why) => {
            tracing::error!(request = %stored.request.id(), %why, "a due request could not be moved on");
            None
        }
    }
}
