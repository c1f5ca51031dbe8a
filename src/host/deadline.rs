//! When a session ends, and what is said to it before. Pure.
//!
//! Invariants: of the two clocks the one that comes first ends the session, so setting the machine's clock back lengthens
//! nothing, and setting it ahead ends the window as it does for sshd (I-36). No notice is given twice for one deadline.

use std::time::Duration;

use crate::time::{Moment, Timestamp};

/// How long before the end the last notice is written: what is still on its way to the terminal when its connection is
/// ended is lost, and half a second delivers it (OPENSSH facts L14).
const LAST_WORDS: Duration = Duration::from_millis(700);

/// How often to look again at the latest: the machine's clock may have been set, the record may have been rewritten.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The end of a session by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// By the machine's clock.
    pub wall: Timestamp,
    /// By the clock that nobody sets, since the machine's start.
    pub boot: Duration,
}

/// What is said on a session's terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Five minutes are left.
    FiveMinutes,
    /// One minute is left.
    OneMinute,
    /// It ends now.
    Over,
}

/// From the first notice to the last, each with the time that is left when it is due.
const NOTICES: [(Notice, Duration); 3] = [
    (Notice::FiveMinutes, Duration::from_secs(300)),
    (Notice::OneMinute, Duration::from_secs(60)),
    (Notice::Over, LAST_WORDS),
];

/// How far the notices have come.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What was left when it was asked last.
    left: Duration,
}

impl Deadline {
    /// The deadline of a window that ends at `end`.
    #[must_use]
    pub fn new(end: Timestamp, now: Moment) -> Self {
        let left = Duration::from_secs(end.unix()).saturating_sub(now.wall);
        Self { wall: end, boot: now.boot.saturating_add(left) }
    }

    /// What is left; nothing once it is over by either clock.
    #[must_use]
    pub fn left(self, now: Moment) -> Duration {
        let by_wall = Duration::from_secs(self.wall.unix()).saturating_sub(now.wall);
        by_wall.min(self.boot.saturating_sub(now.boot))
    }
}

impl Pace {
    /// For a session that begins with so much time left: what was due earlier is not said.
    #[must_use]
    pub const fn starting(left: Duration) -> Self {
        Self { left }
    }

    /// What is due now that so much time is left; of several, the last. More time than before starts anew from there.
    #[must_use]
    pub fn due(&mut self, left: Duration) -> Option<Notice> {
        let before = std::mem::replace(&mut self.left, left);
        NOTICES.iter().rev().find(|(_, at)| left <= *at && *at < before).map(|(notice, _)| *notice)
    }

    /// How long to wait until something may be due.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let until = NOTICES.iter().map(|(_, at)| *at).chain([Duration::ZERO]);
        until
            .filter_map(|at| self.left.checked_sub(at))
            .filter(|wait| !wait.is_zero())
            .min()
            .map_or(Duration::ZERO, |wait| wait.min(LOOK_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moment(wall: u64, boot: u64) -> Moment {
        Moment { wall: Duration::from_millis(wall), boot: Duration::from_millis(boot) }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(seconds).unwrap()
    }

    #[test]
    fn a_clock_that_is_set_back_lengthens_nothing_and_one_set_ahead_ends_it() {
        let deadline = Deadline::new(at(1_000), moment(900_000, 5_000));
        assert_eq!(deadline.boot, Duration::from_secs(105));
        assert_eq!(deadline.left(moment(900_000, 5_000)), Duration::from_secs(100));
        assert_eq!(deadline.left(moment(100_000, 15_000)), Duration::from_secs(90));
        assert_eq!(deadline.left(moment(1_000_000, 15_000)), Duration::ZERO);
        assert_eq!(deadline.left(moment(100_000, 105_000)), Duration::ZERO);
        assert_eq!(Deadline::new(at(1), moment(900_000, 5_000)).left(moment(0, 5_000)), Duration::ZERO);
    }

    #[test]
    fn each_notice_is_given_once_and_only_if_its_time_was_still_ahead() {
        let seconds = |n| Duration::from_secs(n);
        let mut pace = Pace::starting(seconds(400));
        assert_eq!(pace.due(seconds(301)), None);
        assert_eq!(pace.wait(), seconds(1));
        assert_eq!(pace.due(seconds(300)), Some(Notice::FiveMinutes));
        assert_eq!(pace.due(seconds(299)), None);
        assert_eq!(pace.due(seconds(59)), Some(Notice::OneMinute));
        // It was extended: everything is ahead again.
        assert_eq!(pace.due(seconds(900)), None);
        assert_eq!(pace.due(seconds(200)), Some(Notice::FiveMinutes));
        // The clock was set: the last one counts.
        assert_eq!(pace.due(Duration::from_millis(10)), Some(Notice::Over));
        assert_eq!(pace.wait(), Duration::from_millis(10));
        assert_eq!(pace.due(Duration::ZERO), None);
        assert_eq!(Pace::starting(seconds(20)).due(seconds(19)), None);
    }

    proptest! {
        #[test]
        fn whatever_the_clocks_do_the_end_is_never_later_than_either_of_them_says(
            end in 1..2_000_000_u64, start in moment_in(), later in moment_in()
        ) {
            let deadline = Deadline::new(at(end), start);
            let left = deadline.left(later);
            let window = Duration::from_secs(end).saturating_sub(start.wall);
            prop_assert!(left <= Duration::from_secs(end).saturating_sub(later.wall));
            prop_assert!(left <= (start.boot + window).saturating_sub(later.boot));
        }

        #[test]
        fn a_wait_never_passes_over_a_notice(left in 0..400_000_u64) {
            let mut pace = Pace::starting(Duration::from_millis(left));
            let wait = pace.wait();
            prop_assert!(wait <= LOOK_AGAIN && (left == 0) == wait.is_zero());
            let before = Duration::from_millis(left).saturating_sub(wait);
            let skipped = NOTICES.iter().any(|(_, at)| *at > before && *at < Duration::from_millis(left));
            prop_assert!(!skipped, "{:?}", pace.due(before));
        }
    }

    fn moment_in() -> impl Strategy<Value = Moment> {
        (0..2_000_000_000_u64, 0..2_000_000_000_u64).prop_map(|(wall, boot)| moment(wall, boot))
    }
}
