//! Who may begin, and who waits: so many at once, so many of each caller, a bounded queue, and turns by caller and not by call.
//!
//! What for: one script with a thousand calls gets as many turns as a person with one. Each caller who waits stands in a round; whoever has
//! had a turn goes to its end. Within a caller's own line first come is first served.
//!
//! What not: no time, no waking up, no HTTP. [`super`] has those; here is only the order, as a function of what came and went.
//!
//! Invariants (the property tests below):
//! - At most `at_once` calls are under way, at most `each` of one caller, and at most `waiting_max` wait.
//! - While anybody waits who is below `each`, no place is free.
//! - While a caller waits who is below `each`, nobody else begins twice.
//! - A call that has ended, however far it had come, holds nothing.
//!
//! *Why is the newest of the longest line put out when the queue is full, and not whoever comes?* Else one script that keeps the queue full
//! would keep everybody else out of it. Whoever has one call waiting is never put out.

use std::collections::{BTreeMap, VecDeque};

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Calls under way.
    pub(super) at_once: usize,
    /// Of them, of one caller.
    pub(super) each: usize,
    /// Calls that wait.
    pub(super) waiting_max: usize,
}

/// One call, from its coming to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What becomes of a call that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It may begin.
    Begins(Ticket),
    /// It waits for its turn; `put_out` had to go for it.
    Waits {
        /// The call.
        ticket: Ticket,
        /// A call that does not wait any more.
        put_out: Option<Ticket>,
    },
    /// There is no room for it.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fair<K: Ord> {
    bounds: Bounds,
    callers: BTreeMap<K, Calls>,
    /// Callers who have calls waiting, each once; the first has its turn next.
    round: VecDeque<K>,
    under_way: usize,
    waiting: usize,
    last: u64,
}

/// One caller's.
#[derive(Debug, Default)]
struct Calls {
    under_way: Vec<Ticket>,
    line: VecDeque<Ticket>,
}

impl<K: Ord + Clone> Fair<K> {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self { bounds, callers: BTreeMap::new(), round: VecDeque::new(), under_way: 0, waiting: 0, last: 0 }
    }

    /// How many wait.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are under way.
    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether somebody waits because all places are taken, and not because of their own share.
    pub(super) const fn is_short(&self) -> bool {
        self.waiting > 0 && self.under_way >= self.bounds.at_once
    }

    /// Whether there would be no room for a call of this caller.
    pub(super) fn is_full_for(&self, caller: &K) -> bool {
        let (under_way, waiting) = self.own(caller);
        let begins = self.under_way < self.bounds.at_once && under_way < self.bounds.each;
        !begins && self.waiting >= self.bounds.waiting_max && self.longer_than_with(waiting).is_none()
    }

    /// A call comes.
    pub(super) fn enter(&mut self, caller: &K) -> Entered {
        // Whoever waits while places are free has its own share under way, and so is not passed by.
        let (under_way, waiting) = self.own(caller);
        if self.under_way < self.bounds.at_once && under_way < self.bounds.each {
            let ticket = self.ticket();
            self.begin(caller.clone(), ticket);
            return Entered::Begins(ticket);
        }
        let mut put_out = None;
        if self.waiting >= self.bounds.waiting_max {
            put_out = self.shorten(waiting);
            if put_out.is_none() {
                return Entered::Full;
            }
        }
        let ticket = self.ticket();
        let calls = self.callers.entry(caller.clone()).or_default();
        if calls.line.is_empty() {
            self.round.push_back(caller.clone());
        }
        calls.line.push_back(ticket);
        self.waiting = self.waiting.saturating_add(1);
        Entered::Waits { ticket, put_out }
    }

    /// A call ends: it was under way, or it does not want to wait any longer, or it was put out. Who begins in its place.
    pub(super) fn end(&mut self, caller: &K, ticket: Ticket) -> Option<Ticket> {
        let calls = self.callers.get_mut(caller)?;
        if let Some(at) = calls.under_way.iter().position(|other| *other == ticket) {
            calls.under_way.swap_remove(at);
            self.under_way = self.under_way.saturating_sub(1);
            self.forget(caller);
            return self.next();
        }
        if let Some(at) = calls.line.iter().position(|other| *other == ticket) {
            calls.line.remove(at);
            self.waiting = self.waiting.saturating_sub(1);
            self.left_line(caller);
        }
        None
    }

    /// How many calls of this caller are under way, and how many wait.
    fn own(&self, caller: &K) -> (usize, usize) {
        self.callers.get(caller).map_or((0, 0), |calls| (calls.under_way.len(), calls.line.len()))
    }

    /// Who has the longest line, if that is longer than one of `own` calls would be with one more.
    fn longer_than_with(&self, own: usize) -> Option<&K> {
        let longest = self.callers.iter().max_by_key(|(_, calls)| calls.line.len());
        longest.filter(|(_, calls)| calls.line.len() > own.saturating_add(1)).map(|(caller, _)| caller)
    }

    fn ticket(&mut self) -> Ticket {
        self.last = self.last.saturating_add(1);
        Ticket(self.last)
    }

    fn begin(&mut self, caller: K, ticket: Ticket) {
        self.callers.entry(caller).or_default().under_way.push(ticket);
        self.under_way = self.under_way.saturating_add(1);
    }

    /// The next call that may begin, begun: of the first caller in the round who is below their share. Those who are not are few, and keep
    /// their place in it.
    fn next(&mut self) -> Option<Ticket> {
        if self.under_way >= self.bounds.at_once {
            return None;
        }
        let is_below =
            |caller: &K| self.callers.get(caller).is_some_and(|calls| calls.under_way.len() < self.bounds.each);
        let at = self.round.iter().position(is_below)?;
        let caller = self.round.remove(at)?;
        let calls = self.callers.get_mut(&caller)?;
        let ticket = calls.line.pop_front()?;
        self.waiting = self.waiting.saturating_sub(1);
        if !calls.line.is_empty() {
            self.round.push_back(caller.clone());
        }
        self.begin(caller, ticket);
        Some(ticket)
    }

    /// Puts out the newest call of the longest line, if that is longer than one of `own` calls will be.
    fn shorten(&mut self, own: usize) -> Option<Ticket> {
        let caller = self.longer_than_with(own)?.clone();
        let ticket = self.callers.get_mut(&caller)?.line.pop_back()?;
        self.waiting = self.waiting.saturating_sub(1);
        self.left_line(&caller);
        Some(ticket)
    }

    /// A call has left this caller's line without a turn.
    fn left_line(&mut self, caller: &K) {
        if self.callers.get(caller).is_some_and(|calls| calls.line.is_empty()) {
            self.round.retain(|other| other != caller);
            self.forget(caller);
        }
    }

    /// Keeps nothing of who has no call here.
    fn forget(&mut self, caller: &K) {
        if self.callers.get(caller).is_some_and(|calls| calls.under_way.is_empty() && calls.line.is_empty()) {
            self.callers.remove(caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const SMALL: Bounds = Bounds { at_once: 4, each: 2, waiting_max: 6 };

    /// What a test did to a queue, and what it must be like by that.
    struct Model {
        fair: Fair<u8>,
        waiting: BTreeMap<Ticket, u8>,
        under_way: BTreeMap<Ticket, u8>,
        /// For each caller who waits below their share: who has begun meanwhile.
        passed: BTreeMap<u8, BTreeSet<u8>>,
    }

    impl Model {
        fn new() -> Self {
            Self {
                fair: Fair::new(SMALL),
                waiting: BTreeMap::new(),
                under_way: BTreeMap::new(),
                passed: BTreeMap::new(),
            }
        }

        fn count(of: &BTreeMap<Ticket, u8>, caller: u8) -> usize {
            of.values().filter(|other| **other == caller).count()
        }

        fn enter(&mut self, caller: u8) {
            let full = self.waiting.len() == SMALL.waiting_max;
            let was_hopeless = self.fair.is_full_for(&caller);
            match self.fair.enter(&caller) {
                Entered::Begins(ticket) => {
                    assert!(!was_hopeless);
                    self.begun(ticket, caller);
                }
                Entered::Waits { ticket, put_out } => {
                    assert!(!was_hopeless);
                    assert_eq!(put_out.is_some(), full, "nobody goes without need");
                    if let Some(out) = put_out {
                        let whose = self.waiting.remove(&out).expect("who is put out did wait");
                        let (left, own) = (Self::count(&self.waiting, whose), Self::count(&self.waiting, caller));
                        assert!(left > own, "{whose} keeps {left}, and {caller} has {own}");
                        assert!(self.waiting.iter().all(|(other, of)| *of != whose || *other < out), "the newest goes");
                    }
                    self.waiting.insert(ticket, caller);
                }
                Entered::Full => {
                    assert!(full && was_hopeless);
                    let own = Self::count(&self.waiting, caller);
                    assert!((0..8).all(|other| Self::count(&self.waiting, other) <= own + 1), "somebody has more");
                }
            }
            self.check();
        }

        fn end(&mut self, nth: usize) {
            let all: Vec<(Ticket, u8)> = self.waiting.iter().chain(&self.under_way).map(|(t, c)| (*t, *c)).collect();
            let Some((ticket, caller)) = all.get(nth % all.len().max(1)).copied() else { return };
            let was_waiting = self.waiting.remove(&ticket).is_some();
            self.under_way.remove(&ticket);
            if let Some(next) = self.fair.end(&caller, ticket) {
                assert!(!was_waiting, "who gives up gives nobody a place");
                let whose = self.waiting.remove(&next).expect("who begins has waited");
                assert!(
                    self.waiting.iter().all(|(other, of)| *of != whose || *other > next),
                    "first come, first served"
                );
                self.begun(next, whose);
            }
            assert_eq!(self.fair.end(&caller, ticket), None, "what has ended holds nothing");
            self.check();
        }

        fn begun(&mut self, ticket: Ticket, caller: u8) {
            self.under_way.insert(ticket, caller);
            self.passed.remove(&caller);
            for (waits, passed) in &mut self.passed {
                assert!(passed.insert(caller), "{caller} begins twice while {waits} waits");
            }
        }

        fn check(&mut self) {
            assert_eq!((self.fair.waiting(), self.fair.under_way()), (self.waiting.len(), self.under_way.len()));
            assert!(self.waiting.len() <= SMALL.waiting_max && self.under_way.len() <= SMALL.at_once);
            for caller in 0..8 {
                let (under_way, waiting) = (Self::count(&self.under_way, caller), Self::count(&self.waiting, caller));
                assert!(under_way <= SMALL.each);
                if waiting > 0 && under_way < SMALL.each {
                    assert_eq!(self.under_way.len(), SMALL.at_once, "{caller} waits beside a free place");
                    self.passed.entry(caller).or_default();
                } else {
                    self.passed.remove(&caller);
                }
                let kept = self.fair.callers.contains_key(&caller);
                assert_eq!(kept, under_way + waiting > 0, "nothing is kept of who has no call here");
            }
        }
    }

    proptest! {
        #[test]
        fn turns_are_fair_and_bounded_and_nothing_is_lost(
            steps in prop::collection::vec((any::<bool>(), 0_u8..8, any::<usize>()), 0..200)
        ) {
            let mut model = Model::new();
            for (comes, caller, nth) in steps {
                if comes { model.enter(caller) } else { model.end(nth) }
            }
            while !model.under_way.is_empty() || !model.waiting.is_empty() {
                model.end(0);
            }
            prop_assert!(model.fair.callers.is_empty() && model.fair.round.is_empty());
        }

        #[test]
        fn each_of_n_callers_has_its_turn_within_n(n in 1_usize..40, greedy in 1_usize..50) {
            let mut fair = Fair::new(Bounds { at_once: 1, each: 1, waiting_max: 1_000 });
            let Entered::Begins(mut under_way) = fair.enter(&0) else { panic!("there is room") };
            let mut whose = BTreeMap::from([(under_way, 0)]);
            // The first is a script; the others come late, with one call each.
            for caller in std::iter::repeat_n(0, greedy).chain(1..n) {
                let Entered::Waits { ticket, put_out: None } = fair.enter(&caller) else { panic!("it waits") };
                whose.insert(ticket, caller);
            }
            let mut served = BTreeSet::new();
            for _ in 0..n {
                let Some(next) = fair.end(&whose[&under_way], under_way) else { break };
                under_way = next;
                served.insert(whose[&next]);
            }
            prop_assert_eq!(served.len(), n, "{:?}", served);
        }
    }

    #[test]
    fn who_has_one_call_waiting_is_never_put_out_by_a_script() {
        let mut fair = Fair::new(Bounds { at_once: 1, each: 1, waiting_max: 4 });
        fair.enter(&"script");
        for _ in 0..4 {
            assert!(matches!(fair.enter(&"script"), Entered::Waits { put_out: None, .. }));
        }
        assert_eq!(fair.enter(&"script"), Entered::Full);
        assert!(matches!(fair.enter(&"alice"), Entered::Waits { put_out: Some(_), .. }));
        assert!(matches!(fair.enter(&"bob"), Entered::Waits { put_out: Some(_), .. }));
        // Two of the script's are left, one of each other: nobody has to go for one more than that.
        assert!(matches!(fair.enter(&"carol"), Entered::Waits { put_out: Some(_), .. }));
        assert_eq!(fair.enter(&"dana"), Entered::Full);
        assert_eq!(fair.enter(&"script"), Entered::Full);
    }
}
