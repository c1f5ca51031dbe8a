//! A long run below what can be done: whether calls fail, whether they become slower, and whether memory, open files or threads grow.
//!
//! A server in a process and on a processor of its own (where there are two) is first driven as fast as it goes, until as many certificates expire as are issued, and half a minute more (*ceiling*); and then for half an hour at seven tenths of that, on 128
//! connections, by 16 people on each who have certificates issued for a minute at times that do not depend on the answers; latencies count from when a call was due.
//! Each minute it is said how it goes, and what the kernel says of the server's process. So requests expire as fast as they come, as they would in a year.
//! A machine that is faster in one minute than in the next makes p99 of all beside p50 of all worse than of any minute: both are told.
//!
//! Run: `cargo bench --bench soak`; a smoke run in seconds: `cargo bench --bench soak -- --short`; another length: `-- --minutes=5`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    dead_code,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect; the desk has more than it needs"
)]

mod apart;
mod desk;
mod figures;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use apart::Apart;
use figures::{median, percentile};
use hallpass::wire;
use tokio::task::JoinSet;

/// How much of the ceiling.
const SHARE: f64 = 0.7;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    connections: usize,
    /// As fast as it goes, until as many expire as are asked for.
    warm: Duration,
    ceiling: Duration,
    length: Duration,
    told_every: Duration,
}

impl Plan {
    fn read() -> Self {
        let minute = Duration::from_secs(60);
        let mut plan = Self {
            connections: 128,
            warm: minute * 3 / 2,
            ceiling: minute / 2,
            length: 30 * minute,
            told_every: minute,
        };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=').unwrap_or((&argument, "")) {
                ("--short", _) => {
                    let second = Duration::from_secs(1);
                    plan = Self {
                        connections: 8,
                        warm: second / 4,
                        ceiling: second / 2,
                        length: 2 * second,
                        told_every: second,
                    };
                }
                ("--minutes", count) => plan.length = count.parse::<u32>().unwrap() * minute,
                _ => {}
            }
        }
        plan
    }
}

fn main() {
    let plan = Plan::read();
    if apart::serve(desk::people_on(plan.connections), async |_| ()) {
        return;
    }
    // Beside the build, so that the disk is a disk.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let process = Apart::start(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(soak(&plan, &process));
}

/// What came of calls since it was last told.
#[derive(Default)]
struct Heard {
    latencies: Mutex<Vec<Duration>>,
    failed: AtomicU64,
}

/// One person's certificates; their number makes each key another one.
struct Hand {
    askers: desk::Askers,
    place: usize,
    number: u64,
}

impl Hand {
    async fn once(&mut self) -> bool {
        let mut seed = [5; 32];
        seed[..8].copy_from_slice(&(self.place as u64).to_be_bytes());
        seed[8..16].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        let ask = wire::Ask { lifetime: Some("1m".to_owned()), ..desk::ask("staging-1", seed) };
        match self.askers.next().post::<_, wire::Access>("/v1/certificates", &ask).await {
            Ok(access) if access.certificate.is_some() => true,
            Ok(access) => {
                println!("no certificate for {}", access.request.id);
                false
            }
            Err(error) => {
                println!("{error}");
                false
            }
        }
    }
}

async fn soak(plan: &Plan, process: &Apart) {
    let mut hands = Vec::new();
    for place in 0..plan.connections {
        hands.push(Hand { askers: desk::Askers::log_in(&process.server, place).await, place, number: 0 });
    }
    let (hands, _) = ceiling(hands, plan.warm).await;
    let (hands, ceiling) = ceiling(hands, plan.ceiling).await;
    println!(
        "ceiling: {ceiling:.0} certificates/s on {} connections; now {SHARE} of it for {:?}",
        plan.connections, plan.length
    );
    let heard = Arc::new(Heard::default());
    let pause = Duration::from_secs_f64(plan.connections as f64 / (ceiling * SHARE));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut hand in hands {
        let (heard, plan) = (Arc::clone(&heard), *plan);
        tasks.spawn(async move {
            let mut due = began + pause.mul_f64(hand.place as f64 / plan.connections as f64);
            while due < began + plan.length {
                tokio::time::sleep_until(due.into()).await;
                if hand.once().await {
                    heard.latencies.lock().unwrap().push(due.elapsed());
                } else {
                    heard.failed.fetch_add(1, Ordering::Relaxed);
                }
                due += pause;
            }
        });
    }
    let (mut all, ratios) = tell(plan, began, &heard, process).await;
    tasks.join_all().await;
    all.extend(std::mem::take(&mut *heard.latencies.lock().unwrap()));
    let (p50, p99) = (percentile(&mut all, 50), percentile(&mut all, 99));
    println!(
        "in all: {} certificates, {} failed; p50 {p50:.2?}, p99 {p99:.2?}, ratio {:.2}, that of the median minute {:.2}",
        all.len(),
        heard.failed.load(Ordering::Relaxed),
        p99.as_secs_f64() / p50.as_secs_f64(),
        median(ratios)
    );
}

/// How it goes, now and then until the end; all latencies, and how p99 was to p50 each time.
async fn tell(plan: &Plan, began: Instant, heard: &Heard, process: &Apart) -> (Vec<Duration>, Vec<f64>) {
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>6} {:>8} {:>12} {:>7} {:>8}",
        "after", "per second", "p50", "p99", "ratio", "failed", "resident MiB", "files", "threads"
    );
    let (mut all, mut ratios) = (Vec::new(), Vec::new());
    let mut told = began;
    while told + plan.told_every <= began + plan.length {
        told += plan.told_every;
        tokio::time::sleep_until(told.into()).await;
        let mut latencies = std::mem::take(&mut *heard.latencies.lock().unwrap());
        let (resident, files, threads) = process.look();
        let (p50, p99) = (percentile(&mut latencies, 50), percentile(&mut latencies, 99));
        let ratio = p99.as_secs_f64() / p50.as_secs_f64();
        println!(
            "{:>8.0?} {:>10.0} {p50:>10.2?} {p99:>10.2?} {ratio:>6.2} {:>8} {resident:>12.1} {files:>7} {threads:>8}",
            told - began,
            latencies.len() as f64 / plan.told_every.as_secs_f64(),
            heard.failed.load(Ordering::Relaxed),
        );
        ratios.push(ratio);
        all.append(&mut latencies);
    }
    (all, ratios)
}

/// As fast as it goes: each hand asks again once it has its answer.
async fn ceiling(hands: Vec<Hand>, length: Duration) -> (Vec<Hand>, f64) {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut hand in hands {
        tasks.spawn(async move {
            let mut done = 0_u32;
            while began.elapsed() < length {
                done += u32::from(hand.once().await);
            }
            (hand, done)
        });
    }
    let (mut hands, done): (Vec<Hand>, Vec<u32>) = tasks.join_all().await.into_iter().unzip();
    hands.sort_by_key(|hand| hand.place);
    (hands, f64::from(done.iter().sum::<u32>()) / began.elapsed().as_secs_f64())
}
