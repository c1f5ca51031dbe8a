//! How far long work is, on standard error, now and then.

use std::time::{Duration, Instant};

use super::Context;

/// How often it is said.
const SAID_EVERY: Duration = Duration::from_secs(5);

/// Work that is being done.
pub(super) struct Progress<'c> {
    context: &'c Context,
    what: &'static str,
    said: Instant,
}

impl<'c> Progress<'c> {
    /// Begins; `what` is done, as in "log entries read".
    pub(super) fn new(context: &'c Context, what: &'static str) -> Self {
        Self { context, what, said: Instant::now() }
    }

    /// So far it has come; said if that was not said for a while.
    pub(super) fn tell(&mut self, how_far: impl FnOnce() -> String) {
        if self.said.elapsed() >= SAID_EVERY {
            self.said = Instant::now();
            self.context.out.note(&format!("{}: {}", self.what, how_far()));
        }
    }
}
