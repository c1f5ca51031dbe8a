//! Whether the clock is to be believed (I-29).
//!
//! Windows, sessions and the log's order rest on the machine's clock. One that somebody sets while we run would lapse and
//! expire what has time left, or bring back what is over, and a time in the log can't be taken back: log time never runs
//! backwards. So the clock is compared with one that nobody sets, and while the two disagree nothing is written.

use std::sync::PoisonError;

use super::{Failure, Outcome, Service};
use crate::time::{Clock, Timestamp};

/// How far the clock may have moved more or less than time has passed since the start: 60 s. A clock that is kept by NTP drifts
/// less in a year than that, and one that is set by more would show in windows, whose usual unit is minutes.
const LEAP_MAX_S: u64 = 60;

/// How far after the log's last entry a start is believed: 400 days, more than the longest window. A service that nobody
/// used for longer is rare enough to ask for a word of confirmation; a clock that is wrong by less can't be told from a rest.
const REST_MAX_S: u64 = 400 * 86_400;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    wall: Timestamp,
    steady: u64,
}

impl Reading {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), steady: clock.steady() }
    }

    /// How many seconds the clock was set by since `self`, forwards or back; `None` if it is within bounds.
    fn leap(self, now: Self) -> Option<u64> {
        // Later by both clocks, or earlier by one of them: the sums have no negative terms.
        let (by_wall, by_steady) =
            (now.wall.unix().saturating_add(self.steady), self.wall.unix().saturating_add(now.steady));
        Some(by_wall.abs_diff(by_steady)).filter(|leap| *leap > LEAP_MAX_S)
    }
}

/// Whether a service whose log ends at `last` may start at `now`; else why not.
///
/// # Errors
/// In words for the operator.
pub fn check_rest(last: Timestamp, now: Timestamp) -> Result<(), String> {
    let days = now.seconds_since(last) / 86_400;
    if now.seconds_since(last) <= REST_MAX_S {
        return Ok(());
    }
    Err(format!("the clock says {now}, {days} days after the log's last entry ({last})"))
}

impl Service {
    /// Refuses while the clock has leapt since the start.
    pub(super) fn check_clock(&self) -> Outcome<()> {
        self.clock_leap().map_or(Ok(()), |seconds| Err(Failure::ClockLeapt(seconds)))
    }

    /// By how much the clock has leapt since the start. Says so in the log once, and once when it is over.
    pub(super) fn clock_leap(&self) -> Option<u64> {
        let leap = self.began.leap(Reading::of(self.clock.as_ref()));
        let mut said = self.clock_leapt.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != leap.is_some() {
            *said = leap.is_some();
            match leap {
                Some(seconds) => tracing::error!(
                    seconds, now = %self.clock.now(),
                    "the clock was set while the service runs; nothing is written until it is right again or the service is restarted"
                ),
                None => tracing::info!(now = %self.clock.now(), "the clock is right again"),
            }
        }
        leap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: u64, steady: u64) -> Reading {
        Reading { wall: Timestamp::from_unix(wall).unwrap(), steady }
    }

    #[test]
    fn a_leap_is_the_difference_of_two_clocks_either_way() {
        let start = reading(1_000_000, 5);
        for (wall, steady, leap) in [
            (1_000_000, 5, None),
            (1_090_000, 90_005, None),
            (1_000_060, 5, None),
            (1_000_061, 5, Some(61)),
            (999_940, 5, None),
            (999_939, 5, Some(61)),
            (1_000_000, 66, Some(61)),
            (2_000_000, 5, Some(1_000_000)),
        ] {
            assert_eq!(start.leap(reading(wall, steady)), leap, "{wall} {steady}");
        }
    }

    #[test]
    fn a_rest_of_a_year_is_believed_and_one_of_a_decade_is_not() {
        let at = |days: u64| Timestamp::from_unix(days * 86_400).unwrap();
        check_rest(at(20_000), at(20_366)).unwrap();
        check_rest(at(20_000), at(10)).unwrap();
        assert!(check_rest(at(20_000), at(24_000)).unwrap_err().contains("4000 days"));
    }
}
