//! Random histories by seed. Each is made of its seed alone, a number, so that one that breaks something can be lived again by itself:
//!
//! - `HALLPASS_HISTORIES=100000` lives those of the seeds 0 to 99,999 instead of the usual few, as many side by side as there are
//!   processors; `HALLPASS_HISTORIES=100000..200000` lives the next ones;
//! - `HALLPASS_HISTORY_SEED=17` lives one.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// How often one that breaks something is made shorter.
const SHORTENED_MAX: u32 = 60;

/// Lives so many histories, or as many as the environment says. Each processor has a `place` of its own to live them in.
pub(crate) fn live<P, D: Debug>(
    usual: u64,
    deeds: impl Fn() -> proptest::strategy::BoxedStrategy<Vec<D>> + Sync,
    place: impl Fn() -> P + Sync,
    life: impl Fn(&P, Vec<D>) + Sync,
) {
    let seeds = wanted(usual);
    let is_long = seeds.end - seeds.start > usual;
    let side_by_side = if is_long { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let (next, broken) = (AtomicU64::new(seeds.start), Mutex::new(None));
    let work = || {
        let (place, deeds) = (place(), deeds());
        while broken.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            if let Err(why) = one(seed, &deeds, |deeds| life(&place, deeds)) {
                *broken.lock().unwrap() = Some(why);
            }
        }
    };
    std::thread::scope(|scope| (0..side_by_side).for_each(|_| drop(scope.spawn(work))));
    if let Some(why) = broken.into_inner().unwrap() {
        panic!("{why}");
    }
}

/// The seeds of so many histories, or of those that the environment names.
fn wanted(usual: u64) -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{text:?} is no number"));
    if let Ok(seed) = std::env::var("HALLPASS_HISTORY_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("HALLPASS_HISTORIES") {
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => 0..number(&text),
        },
        Err(_) => 0..usual,
    }
}

/// Lives the history of this seed; what it breaks, and the shortest like it that breaks something.
fn one<D: Debug>(seed: u64, deeds: &impl Strategy<Value = Vec<D>>, life: impl Fn(Vec<D>)) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1, max_shrink_iters: SHORTENED_MAX, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let lived = runner.run(deeds, |deeds| {
        life(deeds);
        Ok(())
    });
    lived.map_err(|error| match error {
        TestError::Fail(why, deeds) => format!(
            "the history of seed {seed} (HALLPASS_HISTORY_SEED={seed} lives it alone): {why}\nthe shortest like it: {deeds:#?}"
        ),
        TestError::Abort(why) => format!("the history of seed {seed}: {why}"),
    })
}

#[test]
fn a_history_that_breaks_something_is_told_with_its_seed_and_made_short() {
    let deeds = proptest::collection::vec(0..10_u8, 20..40);
    let told = one(7, &deeds, |deeds| assert!(deeds.iter().all(|deed| *deed < 9), "it breaks")).unwrap_err();
    assert!(told.starts_with("the history of seed 7 (HALLPASS_HISTORY_SEED=7 lives it alone): it breaks"), "{told}");
    assert!(told.contains("9,\n") && !told.contains("8,\n"), "{told}");
    let same = one(7, &deeds, |deeds| assert!(deeds.iter().all(|deed| *deed < 9), "it breaks")).unwrap_err();
    assert_eq!(told, same);
}
