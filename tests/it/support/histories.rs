//! Random histories by seed. Each is made of its seed alone, a number, so that one that breaks something can be lived again by itself:
//!
//! - `HALLPASS_HISTORIES=100000` lives those of the seeds 0 to 99,999 instead of the usual few, as many side by side as there are
//!   processors, and says how far it is; `HALLPASS_HISTORIES=100000..200000` lives the next ones;
//! - `HALLPASS_HISTORY_SEED=17` lives one.
//!
//! A world takes longer to make than to live in: so several are lived one after the other in the same, which is called an age. When something
//! breaks, each history of its age is lived again alone, and the one that breaks it so is made short; if none does, the age is told.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use proptest::strategy::{BoxedStrategy, Strategy as _};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::numbers;

/// How often one that breaks something is made shorter.
const SHORTENED_MAX: u32 = 60;

/// After how many it is said how far a long run is.
const SAID_EACH: u64 = 1_000;

/// One history: its seed, and what happens.
pub(crate) type History<D> = (u64, Vec<D>);

/// How many are lived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Many {
    /// Unless the environment says otherwise.
    pub(crate) usual: u64,
    /// In the same world, one after the other: those of the seeds from a multiple of this on.
    pub(crate) together: u64,
}

/// Lives so many histories, or as many as the environment says. Each processor has a `place` of its own to live them in.
pub(crate) fn live<P, D: Clone + Debug>(
    many: Many,
    deeds: impl Fn() -> BoxedStrategy<Vec<D>> + Sync,
    place: impl Fn() -> P + Sync,
    age: impl Fn(&P, &[History<D>]) + Sync,
) {
    let seeds = wanted(many.usual);
    let is_long = seeds.end - seeds.start > many.usual;
    let side_by_side = if is_long { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let march = Mutex::new(March::new(seeds, many));
    let work = || {
        let (place, deeds) = (place(), deeds());
        loop {
            let next = march.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(seeds) = next else { break };
            let lived = one_age(seeds.clone(), &deeds, |histories| age(&place, histories));
            march.lock().unwrap_or_else(PoisonError::into_inner).done(&seeds, lived);
        }
    };
    std::thread::scope(|scope| (0..side_by_side).for_each(|_| drop(scope.spawn(work))));
    if let Some(why) = march.into_inner().unwrap().broken {
        panic!("{why}");
    }
}

/// How far it is.
struct March {
    seeds: Range<u64>,
    many: Many,
    /// The first of each age that is being lived.
    under_way: BTreeSet<u64>,
    next: u64,
    said: u64,
    broken: Option<String>,
}

impl March {
    fn new(seeds: Range<u64>, many: Many) -> Self {
        Self { next: seeds.start, said: seeds.start, seeds, many, under_way: BTreeSet::new(), broken: None }
    }

    /// The next age; none after something broke.
    fn next(&mut self) -> Option<Range<u64>> {
        let first = self.next;
        if self.broken.is_some() || first >= self.seeds.end {
            return None;
        }
        self.next = ((first / self.many.together + 1) * self.many.together).min(self.seeds.end);
        self.under_way.insert(first);
        Some(first..self.next)
    }

    /// It is over.
    fn done(&mut self, age: &Range<u64>, lived: Result<(), String>) {
        if let Err(why) = lived {
            self.broken.get_or_insert(why);
            return;
        }
        self.under_way.remove(&age.start);
        let hold = self.under_way.first().copied().unwrap_or(self.next);
        if self.broken.is_none() && hold >= self.said + SAID_EACH {
            self.said = hold - hold % SAID_EACH;
            println!("the histories of the seeds {} to {} hold", self.seeds.start, hold - 1);
        }
    }
}

/// The seeds of so many histories, or of those that the environment names.
fn wanted(usual: u64) -> Range<u64> {
    match std::env::var("HALLPASS_HISTORY_SEED") {
        Ok(text) => {
            let seed = numbers::number(&text);
            seed..seed + 1
        }
        Err(_) => numbers::wanted("HALLPASS_HISTORIES", 0..usual),
    }
}

/// What makes the history of this seed, and makes it short.
fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1, max_shrink_iters: SHORTENED_MAX, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// What happens in the history of this seed: what [`one`] lives first.
fn of<D: Clone + Debug>(seed: u64, deeds: &BoxedStrategy<Vec<D>>) -> Vec<D> {
    let first = Mutex::new(Vec::new());
    let taken = runner(seed).run(deeds, |deeds| {
        *first.lock().unwrap() = deeds;
        Ok(())
    });
    taken.unwrap();
    first.into_inner().unwrap()
}

/// Lives the histories of these seeds one after the other; what they break, and the shortest one that breaks something.
fn one_age<D: Clone + Debug>(
    seeds: Range<u64>,
    deeds: &BoxedStrategy<Vec<D>>,
    age: impl Fn(&[History<D>]),
) -> Result<(), String> {
    let histories: Vec<History<D>> = seeds.clone().map(|seed| (seed, of(seed, deeds))).collect();
    let Err(why) = catch_unwind(AssertUnwindSafe(|| age(&histories))) else { return Ok(()) };
    for seed in seeds.clone() {
        one(seed, deeds, &age)?;
    }
    let (first, last) = (seeds.start, seeds.end - 1);
    Err(format!(
        "the histories of the seeds {first} to {last} in one world, each of which holds alone (HALLPASS_HISTORIES={first}..{} lives \
         them): {}",
        last + 1,
        said(why.as_ref())
    ))
}

/// Lives the history of this seed alone; what it breaks, and the shortest like it that breaks something.
fn one<D: Clone + Debug>(seed: u64, deeds: &BoxedStrategy<Vec<D>>, age: impl Fn(&[History<D>])) -> Result<(), String> {
    let lived = runner(seed).run(deeds, |deeds| {
        age(&[(seed, deeds)]);
        Ok(())
    });
    lived.map_err(|error| match error {
        TestError::Fail(why, deeds) => format!(
            "the history of seed {seed} (HALLPASS_HISTORY_SEED={seed} lives it alone): {why}\nthe shortest like it: {deeds:#?}"
        ),
        TestError::Abort(why) => format!("the history of seed {seed}: {why}"),
    })
}

/// What a panic said.
fn said(why: &(dyn std::any::Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

#[test]
fn a_history_that_breaks_something_is_told_with_its_seed_and_made_short() {
    let deeds = proptest::collection::vec(0..10_u8, 20..40).boxed();
    let age = |histories: &[History<u8>]| {
        let breaks = |(_, deeds): &History<u8>| deeds.iter().all(|deed| *deed < 9);
        assert!(histories.iter().all(breaks), "it breaks");
    };
    let told = one_age(7..8, &deeds, age).unwrap_err();
    assert!(told.starts_with("the history of seed 7 (HALLPASS_HISTORY_SEED=7 lives it alone): it breaks"), "{told}");
    assert!(told.contains("9,\n") && !told.contains("8,\n"), "{told}");
    assert_eq!(one_age(7..8, &deeds, age).unwrap_err(), told);
    // In whatever company.
    assert_eq!(one_age(7..20, &deeds, age).unwrap_err(), told);
}

#[test]
fn a_history_is_the_same_alone_and_in_an_age() {
    let deeds = proptest::collection::vec(0..200_u8, 5..40).boxed();
    let lived = Mutex::new(Vec::new());
    let age = |histories: &[History<u8>]| lived.lock().unwrap().extend(histories.to_vec());
    one_age(0..9, &deeds, age).unwrap();
    (0..9).for_each(|seed| one(seed, &deeds, age).unwrap());
    let lived = lived.into_inner().unwrap();
    assert_eq!(lived[..9], lived[9..]);
    assert!(lived.windows(2).all(|two| two[0].1 != two[1].1), "{lived:?}");
}

#[test]
fn histories_that_break_something_together_alone_are_told_together() {
    let deeds = proptest::collection::vec(0..10_u8, 5..40).boxed();
    let age = |histories: &[History<u8>]| assert!(histories.len() < 3, "three are too many");
    let told = one_age(40..45, &deeds, age).unwrap_err();
    assert!(told.contains("seeds 40 to 44 in one world") && told.ends_with("them): three are too many"), "{told}");
    assert!(told.contains("HALLPASS_HISTORIES=40..45"), "{told}");
}

#[test]
fn an_age_begins_at_a_multiple_and_none_is_begun_after_something_broke() {
    let mut march = March::new(7..45, Many { usual: 1, together: 20 });
    assert_eq!([march.next(), march.next()], [Some(7..20), Some(20..40)]);
    march.done(&(20..40), Ok(()));
    assert_eq!(march.under_way, BTreeSet::from([7]));
    let mut broken = March::new(0..45, Many { usual: 1, together: 20 });
    let age = broken.next().unwrap();
    broken.done(&age, Err("it breaks".to_owned()));
    assert_eq!((broken.next(), broken.broken.as_deref()), (None, Some("it breaks")));
    assert_eq!([march.next(), march.next()], [Some(40..45), None]);
}
