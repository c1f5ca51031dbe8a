//! Reports what happened to sessions, and forgets what the service has taken.

use std::path::Path;

use super::Daemon;
use crate::client::ClientError;
use crate::host::event::Event;
use crate::host::settings::{self, Settings};
use crate::host::spool::Spool;
use crate::wire::host::SessionEvent;

/// How many are reported at once; the service takes 256.
const BATCH: usize = 128;

/// How many batches in one round, so that nothing else has to wait for a long spool.
const ROUNDS: usize = 8;

/// Whether anything waits to be reported.
pub(super) fn is_waiting() -> bool {
    let settings = Settings::load(Path::new(settings::PATH));
    settings.is_ok_and(|settings| !Spool::at(&settings.spool).is_empty())
}

impl Daemon<'_> {
    /// Reports what is in the spool.
    ///
    /// # Errors
    /// [`ClientError`], when the service can't be asked now; everything is still in the spool then.
    pub(super) async fn report(&mut self) -> Result<(), ClientError> {
        let Ok(settings) = Settings::load(Path::new(settings::PATH)) else { return Ok(()) };
        let spool = Spool::at(&settings.spool);
        // Read once for all of the round.
        let all = spool.events(BATCH.saturating_mul(ROUNDS));
        let (mut left, mut size) = (all.as_slice(), BATCH);
        for _ in 0..ROUNDS {
            let Some((events, after)) =
                left.split_at_checked(size.min(left.len())).filter(|(events, _)| !events.is_empty())
            else {
                break;
            };
            match self.link.report(events.iter().map(wire).collect()).await {
                Ok(taken) => {
                    events.iter().filter(|event| taken.contains(&event.id)).for_each(|event| spool.remove(event));
                    left = after;
                }
                // One of them is not what the service takes: find it, and don't let it stand in front of the others.
                Err(error) if is_refused(&error) => match events {
                    [event] => {
                        (self.say)(&format!("the service does not take {}: {error}", event.id));
                        spool.remove(event);
                        (left, size) = (after, BATCH);
                    }
                    _ => size = 1,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the service will never take it: not a matter of time, load or login.
fn is_refused(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if matches!(problem.status, 400 | 413 | 422))
}

fn wire(event: &Event) -> SessionEvent {
    let Event { id, kind, serial, key_id, ca, account, from, at, why } = event;
    SessionEvent {
        id: id.clone(),
        kind: kind.word().to_owned(),
        serial: serial.number(),
        key_id: key_id.as_str().to_owned(),
        ca: ca.to_string(),
        account: account.to_string(),
        from: from.clone(),
        at: at.to_string(),
        why: why.clone(),
    }
}
