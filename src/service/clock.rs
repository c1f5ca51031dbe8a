//! Whether the clock is to be believed (I-29).
//!
//! Windows, sessions and the log's order rest on the machine's clock. One that somebody sets while we run would lapse and
//! expire what has time left, or bring back what is over, and a time in the log can't be taken back: log time never runs
//! backwards. So the clock is compared with one that nobody sets, and while the two disagree nothing is written.
//!
//! Decision: a clock that then keeps its step for [`SETTLED_S`] is believed again. A machine that was paused or moved comes back
//! with just such a leap, and must not wait for hands; who can set the clock for so long could also restart the service, which
//! starts on the clock as it is. What protects from a clock that runs behind the log is another rule (`check_issuing`).

use std::sync::{Mutex, PoisonError};

use super::{Failure, Outcome, Service};
use crate::time::{Clock, Timestamp};

/// How far the clock may have moved more or less than time has passed: 60 s. A clock that is kept by NTP drifts
/// less in a year than that, and one that is set by more would show in windows, whose usual unit is minutes.
const LEAP_MAX_S: u64 = 60;

/// How long a clock that leapt must keep its step before it is believed: 5 min. Time for NTP to take back a wrong step, and for
/// somebody to read the alarm.
const SETTLED_S: u64 = 300;

/// How far after the log's last entry a start is believed: 400 days, more than the longest window. A service that nobody
/// used for longer is rare enough to ask for a word of confirmation; a clock that is wrong by less can't be told from a rest.
const REST_MAX_S: u64 = 400 * 86_400;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Timestamp,
    steady: u64,
}

impl Reading {
    fn of(clock: &dyn Clock) -> Self {
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

/// What the clock is compared with.
#[derive(Debug)]
pub(super) struct Watch(Mutex<Watched>);

#[derive(Debug)]
struct Watched {
    /// The reading that is believed.
    trusted: Reading,
    /// The first reading after a leap, while it is not believed.
    leapt: Option<Reading>,
}

/// What a look at the clock showed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Look {
    /// As it was: right, or wrong by so much.
    Same(Option<u64>),
    /// It has leapt by so much.
    Leapt(u64),
    /// It is right again.
    Back,
    /// It kept its step for long enough.
    Settled,
}

impl Watch {
    /// Starts now.
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self(Mutex::new(Watched { trusted: Reading::of(clock), leapt: None }))
    }

    fn look(&self, now: Reading) -> Look {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(leap) = watched.trusted.leap(now) else {
            return if watched.leapt.take().is_some() { Look::Back } else { Look::Same(None) };
        };
        let Some(since) = watched.leapt.filter(|since| since.leap(now).is_none()) else {
            watched.leapt = Some(now);
            return Look::Leapt(leap);
        };
        if now.steady.saturating_sub(since.steady) < SETTLED_S {
            return Look::Same(Some(leap));
        }
        *watched = Watched { trusted: now, leapt: None };
        Look::Settled
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
    /// Refuses while the clock has leapt.
    pub(super) fn check_clock(&self) -> Outcome<()> {
        self.clock_leap().map_or(Ok(()), |seconds| Err(Failure::ClockLeapt(seconds)))
    }

    /// By how many seconds the clock has leapt, until it is believed again. Its changes are said in the service's own log.
    pub(super) fn clock_leap(&self) -> Option<u64> {
        let now = Reading::of(self.clock.as_ref());
        match self.watch.look(now) {
            Look::Same(leap) => leap,
            Look::Leapt(seconds) => {
                tracing::error!(
                    seconds, now = %now.wall,
                    "the clock was set while the service runs: nothing is written until it is right again, \
                     or has kept its step for {SETTLED_S} s"
                );
                Some(seconds)
            }
            Look::Back => {
                tracing::info!(now = %now.wall, "the clock is right again");
                None
            }
            Look::Settled => {
                tracing::warn!(now = %now.wall, "the clock has kept its step and is believed from now on");
                None
            }
        }
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
    fn a_clock_that_leapt_is_believed_once_it_is_back_or_has_kept_its_step() {
        let watch = |wall, steady| Watch(Mutex::new(Watched { trusted: reading(wall, steady), leapt: None }));
        let back = watch(1_000_000, 0);
        for (wall, steady, seen) in [
            (1_000_010, 10, Look::Same(None)),
            (1_100_011, 11, Look::Leapt(100_000)),
            (1_100_012, 12, Look::Same(Some(100_000))),
            (1_000_013, 13, Look::Back),
            (1_000_014, 14, Look::Same(None)),
        ] {
            assert_eq!(back.look(reading(wall, steady)), seen, "{wall} {steady}");
        }
        let settled = watch(1_000_000, 0);
        for (wall, steady, seen) in [
            (1_100_000, 0, Look::Leapt(100_000)),
            (1_100_299, 299, Look::Same(Some(100_000))),
            // Another leap begins the wait anew.
            (1_200_300, 300, Look::Leapt(200_000)),
            (1_200_599, 599, Look::Same(Some(200_000))),
            (1_200_600, 600, Look::Settled),
            (1_200_601, 601, Look::Same(None)),
            (1_000_602, 602, Look::Leapt(200_000)),
        ] {
            assert_eq!(settled.look(reading(wall, steady)), seen, "{wall} {steady}");
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
