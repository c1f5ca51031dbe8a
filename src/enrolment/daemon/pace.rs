//! When the daemon does what: never in a loop without a pause, never all hosts at once. Pure.

use std::time::Duration;

/// How long between two check-ins, when nothing has changed.
pub(super) const CHECK_IN_EVERY: Duration = Duration::from_secs(300);

/// How long a proof of trust counts, when neither bundle nor sshd has changed: each is an entry in the log.
pub(super) const PROVE_EVERY: Duration = Duration::from_secs(24 * 3_600);

/// How often to look for events to be reported and for sessions without a watcher.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How often to ask for the state although no event has come.
pub(super) const STATE_EVERY: Duration = Duration::from_secs(300);

/// How long an attempt at renewing certificates counts.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(3_600);

/// How long after an attempt at it that failed the next one may come.
pub(super) const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// The shortest pause before something is tried again, and the longest before the service is.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Pauses that double with each failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    failures: u32,
    most: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self::up_to(PAUSE_MAX)
    }
}

impl Pause {
    /// None is longer than `most`.
    pub(super) const fn up_to(most: Duration) -> Self {
        Self { failures: 0, most }
    }

    /// The next one, between half and the whole of what is due; `random` is any number.
    #[must_use]
    pub(super) fn next(&mut self, random: u32) -> Duration {
        let whole = PAUSE_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.most);
        self.failures = self.failures.saturating_add(1).min(20);
        spread(whole, random)
    }

    /// It went well.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A span between half of `whole` and `whole`.
#[must_use]
pub(super) fn spread(whole: Duration, random: u32) -> Duration {
    let half = whole / 2;
    half.saturating_add(half.saturating_mul(random % 1_000) / 1_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_when_it_went_well() {
        let mut pause = Pause::default();
        let spans: Vec<u64> = (0..9).map(|_| u64::try_from(pause.next(0).as_millis()).unwrap()).collect();
        assert_eq!(spans, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        pause.reset();
        assert_eq!(pause.next(0), Duration::from_millis(500));
        let mut longer = Pause::up_to(Duration::from_secs(900));
        let last = (0..99).map(|_| longer.next(0)).last();
        assert_eq!(last, Some(Duration::from_secs(450)));
    }

    proptest! {
        #[test]
        fn no_pause_is_shorter_than_half_a_second_or_longer_than_a_minute(failures in 0..50_u32, random: u32) {
            let mut pause = Pause::default();
            for _ in 0..failures {
                let one = pause.next(random);
                prop_assert!(one <= PAUSE_MAX);
            }
            let span = pause.next(random);
            prop_assert!((PAUSE_MIN / 2..=PAUSE_MAX).contains(&span));
        }
    }
}
