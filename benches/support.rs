//! Measuring by turns: what is compared runs in slices that alternate, so that a busy machine slows all of it alike.
//!
//! What not: no statistics beyond medians, no warm-up magic, no files. A ratio holds better than an absolute number; quote
//! the command beside it (`docs/performance.md`).

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one slice of one contestant should take.
const SLICE: Duration = Duration::from_millis(20);

/// Runs each closure in slices, by turns, `passes` times; prints the median time per call and its ratio to the first.
///
/// The name's place gives the closure's: they must be equally many.
pub(crate) fn compare(names: &[&str], closures: &mut [&mut dyn FnMut()], passes: usize) {
    assert_eq!(names.len(), closures.len(), "one name per closure");
    let calls: Vec<u32> = closures.iter_mut().map(|run| calls_per_slice(*run)).collect();
    let mut slices = vec![Vec::with_capacity(passes); closures.len()];
    for _ in 0..passes {
        for ((run, calls), times) in closures.iter_mut().zip(&calls).zip(&mut slices) {
            times.push(time(*run, *calls) / *calls);
        }
    }
    let medians: Vec<Duration> = slices.into_iter().map(median).collect();
    println!("{:<48} {:>12} {:>12} {:>8}", "", "median", "per second", "ratio");
    for (name, median) in names.iter().zip(&medians) {
        let per_second = 1.0 / median.as_secs_f64();
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("{name:<48} {median:>12.2?} {per_second:>12.0} {ratio:>8.2}");
    }
}

/// Doubles the number of calls until they fill a slice. The calls that it takes are the warm-up.
fn calls_per_slice(run: &mut dyn FnMut()) -> u32 {
    let mut calls = 1;
    while time(run, calls) < SLICE && calls < 1 << 20 {
        calls *= 2;
    }
    calls
}

fn time(run: &mut dyn FnMut(), calls: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(&mut *run)();
    }
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
