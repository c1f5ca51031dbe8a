//! What benchmarks make of what they measured: medians, percentiles, and what the kernel says that a process has had of the processors.
#![allow(clippy::allow_attributes, dead_code, reason = "each benchmark needs some of it")]

use std::time::Duration;

/// The middle one; of an even number the higher of two.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// So many of a hundred took no longer; zero where there are none. Sorts them.
pub(crate) fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort();
    latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// What a process (its number, or `self`) has had of the processors, itself and the kernel for it, to a hundredth of a second.
pub(crate) fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let behind_the_name = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 =
        behind_the_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
