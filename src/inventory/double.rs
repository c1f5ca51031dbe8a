//! Two machines with one name and one host key: a copied disk, or a copied virtual machine.
//!
//! Neither name nor key tells them apart, so each check-in says which *run* of which machine it comes from: a hash of the machine's id and of
//! the kernel's boot id. A host that is started again has a new one, and the old one never comes back; where it does come back while
//! another was there in between (A, B, A), two machines take turns.
//!
//! What not: which of the two is the right one, nobody can see from here. A machine that was set back to a snapshot of its memory
//! looks the same, once.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use crate::name::Digest;
use crate::time::Timestamp;

/// How long a run is remembered after another took its place: an hour, twelve check-ins of a host in order. Our own choice.
const REMEMBERED_S: u64 = 60 * 60;

/// The most runs that are remembered; more starts than that within an hour are no start of a machine. Our own choice.
const RUNS_MAX: usize = 8;

/// How long after a run came back the host counts as doubled: a day without it, and it is over. Our own choice.
const DOUBLED_S: u64 = 24 * 60 * 60;

/// The runs that a host has checked in from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The one that checked in last.
    pub now: Option<Digest>,
    /// Those before it, oldest first, and when each was there last.
    pub before: Vec<(Digest, Timestamp)>,
    /// When one of them came back last.
    pub doubled: Option<Timestamp>,
}

impl Runs {
    /// This one and no other.
    #[must_use]
    pub const fn of(run: Option<Digest>) -> Self {
        Self { now: run, before: Vec::new(), doubled: None }
    }

    /// Takes the run that a check-in at `at` comes from; `last` is when the one before it came. Whether it is news that there are two machines.
    pub fn take(&mut self, run: Option<Digest>, last: Option<Timestamp>, at: Timestamp) -> bool {
        let was_doubled = self.is_doubled(at);
        // A daemon of before this says nothing, which is no sign of anything.
        let Some(run) = run.filter(|run| self.now != Some(*run)) else { return false };
        self.before.retain(|(_, left)| at.seconds_since(*left) <= REMEMBERED_S);
        let has_come_back = self.before.iter().any(|(known, _)| *known == run);
        self.before.retain(|(known, _)| *known != run);
        if let (Some(now), Some(last)) = (self.now.replace(run), last) {
            self.before.push((now, last));
            let over = self.before.len().saturating_sub(RUNS_MAX);
            self.before.drain(..over);
        }
        if has_come_back {
            self.doubled = Some(at);
        }
        has_come_back && !was_doubled
    }

    /// Whether two machines take turns as this host.
    #[must_use]
    pub fn is_doubled(&self, now: Timestamp) -> bool {
        self.doubled.is_some_and(|at| now.seconds_since(at) <= DOUBLED_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_767_607_200_u64.saturating_add(seconds)).unwrap()
    }

    /// Tells these runs at these times; when that was news, and whether it is doubled in the end.
    fn told(runs: &[(u8, u64)]) -> (Vec<u64>, bool) {
        let (mut known, mut last, mut news) = (Runs::default(), None, Vec::new());
        for (run, seconds) in runs {
            let run = Some(Digest::new([*run; 32])).filter(|_| *run > 0);
            if known.take(run, last, at(*seconds)) {
                news.push(*seconds);
            }
            last = Some(at(*seconds));
            assert!(known.before.len() <= RUNS_MAX);
        }
        (news, known.is_doubled(last.unwrap()))
    }

    #[test]
    fn a_host_that_is_started_again_and_again_is_one_machine() {
        assert_eq!(told(&[(1, 0), (1, 300)]), (vec![], false));
        assert_eq!(told(&[(1, 0), (2, 60), (2, 300), (3, 360), (4, 400)]), (vec![], false));
        // A daemon of before, and a kernel that does not say.
        assert_eq!(told(&[(0, 0), (1, 60), (0, 120), (1, 180)]), (vec![], false));
    }

    #[test]
    fn a_run_that_comes_back_is_two_machines_and_news_once() {
        assert_eq!(told(&[(1, 0), (2, 60), (1, 120)]), (vec![120], true));
        assert_eq!(told(&[(1, 0), (2, 60), (1, 120), (2, 180), (1, 240), (1, 300)]), (vec![120], true));
        // Three copies; and one of them started again in between.
        assert_eq!(told(&[(1, 0), (2, 60), (3, 120), (1, 180), (4, 200), (3, 240)]), (vec![180], true));
    }

    #[test]
    fn what_is_too_long_ago_does_not_count_and_a_day_without_it_is_over() {
        assert_eq!(told(&[(1, 0), (2, 60), (2, HOUR + 2), (1, HOUR + 3)]), (vec![], false));
        assert_eq!(told(&[(1, 0), (2, 60), (1, HOUR)]), (vec![HOUR], true));
        let day = 24 * HOUR;
        assert_eq!(told(&[(1, 0), (2, 60), (1, 120), (1, 120 + day)]), (vec![120], true));
        assert_eq!(told(&[(1, 0), (2, 60), (1, 120), (1, 121 + day)]), (vec![120], false));
        let later = 130 + day;
        let again = [(1, 0), (2, 60), (1, 120), (1, later - 9), (2, later), (1, later + 9)];
        assert_eq!(told(&again), (vec![120, later + 9], true));
    }

    #[test]
    fn many_runs_are_forgotten_oldest_first() {
        let many: Vec<(u8, u64)> = (1..=20).map(|run| (run, u64::from(run))).collect();
        assert_eq!(told(&[&many[..], &[(1, 30)]].concat()), (vec![], false));
        assert_eq!(told(&[&many[..], &[(13, 30)]].concat()), (vec![30], true));
    }
}
