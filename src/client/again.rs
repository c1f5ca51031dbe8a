//! When a call that was turned away is sent again: only one that has not begun, when the server says, and within the call's own time.
//!
//! A server with more to do than it can answers `busy` before anything has begun, so the same call may be sent again whatever it is. Every
//! other refusal, and every answer that did not come, is for whoever called: only they know whether asking again is right.
//!
//! A fraction of a second at random goes on top of what the server says, which are whole seconds: who was turned away in the same moment
//! should not come back in one.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::wire;

/// Longest pause that is taken from a server. Our own choice; ours names a few seconds.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whoever is told of pauses.
#[derive(Clone)]
pub(super) struct Pausing(Arc<dyn Fn(Duration) + Send + Sync>);

impl Pausing {
    pub(super) fn new(tell: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// There is a pause of so long.
    pub(super) fn tell(&self, pause: Duration) {
        (self.0)(pause);
    }
}

impl std::fmt::Debug for Pausing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pausing")
    }
}

/// How many seconds the server names, if it names any.
pub(super) fn named(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// How long to wait before the call is sent again; `None` if it is not, or there is no time for it before `until`. `random`: any number.
pub(super) fn pause(
    problem: &wire::Problem,
    named: Option<u64>,
    random: u16,
    (now, until): (Instant, Instant),
) -> Option<Duration> {
    if problem.code != "busy" || !problem.retryable {
        return None;
    }
    let fraction = Duration::from_millis(u64::from(random % 1_000));
    let pause = Duration::from_secs(named?).min(PAUSE_MAX).saturating_add(fraction);
    (now + pause < until).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> wire::Problem {
        wire::Problem { code: "busy".to_owned(), status: 503, retryable: true, ..wire::Problem::default() }
    }

    #[test]
    fn only_what_was_turned_away_is_sent_again_and_only_in_time() {
        let now = Instant::now();
        let until = now + Duration::from_secs(10);
        assert_eq!(pause(&busy(), Some(3), 250, (now, until)), Some(Duration::from_millis(3_250)));
        assert_eq!(pause(&busy(), Some(3), 1_250, (now, until)), Some(Duration::from_millis(3_250)));
        assert_eq!(pause(&busy(), Some(10), 0, (now, until)), None, "no time is left for an answer");
        assert_eq!(pause(&busy(), Some(u64::MAX), 0, (now, until)), None);
        assert_eq!(pause(&busy(), None, 0, (now, until)), None, "the server does not say when");
        for code in ["unavailable", "too_many", "internal", "conflict"] {
            let other = wire::Problem { code: code.to_owned(), ..busy() };
            assert_eq!(pause(&other, Some(1), 0, (now, until)), None, "{code} may have begun, or is no matter of time");
        }
    }

    #[test]
    fn pauses_are_spread_over_a_second() {
        let now = Instant::now();
        let until = now + Duration::from_secs(10);
        let pauses: std::collections::BTreeSet<Duration> =
            (0..1_000).filter_map(|random| pause(&busy(), Some(1), random, (now, until))).collect();
        assert_eq!(pauses.len(), 1_000);
    }

    #[test]
    fn only_whole_seconds_are_read_from_the_header() {
        let read = |text: &str| named(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(
            (read("3"), read("soon"), read("-1"), read("Wed, 21 Oct 2026 07:28:00 GMT")),
            (Some(3), None, None, None)
        );
        assert_eq!(named(&HeaderMap::new()), None);
    }
}
