//! What a certificate costs the service, beside what it can't do without: a signature, an exchange over the same transport, a row of the log; and what
//! the disk has to do with it.
//!
//! The service has a process and a processor of its own; of that process the kernel tells the processor time. *hello* is `GET /healthz` by the same clients. *row* is
//! a change of one entry among 64 callers, who share commits. *in memory*: the same service on a folder of `/dev/shm`, where a sync waits for nothing: what is left when no disk is.
//! There is no service without its log: a request is what its entries say.
//!
//! Run: `cargo bench --bench parts`; a smoke run in seconds: `cargo bench --bench parts -- --short`. For a profile of the service under certificates alone:
//! `-- --only=certificate`, and `perf record -g -p` with the number of the process that it tells.
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

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apart::Apart;
use ed25519_dalek::{Signer as _, SigningKey};
use figures::{median, processor_time};
use hallpass::audit::event::Event;
use hallpass::name::PersonName;
use hallpass::store::sqlite::{Settings, SqliteStore};
use hallpass::store::{Change, Store as _};
use hallpass::time::{Clock as _, SystemClock};
use tokio::task::JoinSet;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    connections: usize,
    slice: Duration,
    passes: usize,
}

const FULL: Plan = Plan { connections: 64, slice: Duration::from_secs(1), passes: 7 };
const SHORT: Plan = Plan { connections: 4, slice: Duration::from_millis(100), passes: 1 };

/// Callers of the bare store.
const CALLERS: usize = 64;

/// One connection's people.
struct Hand {
    askers: desk::Askers,
    place: usize,
    number: u64,
}

impl Hand {
    async fn issue(&mut self) {
        let mut seed = [5; 32];
        seed[..8].copy_from_slice(&(self.place as u64).to_be_bytes());
        seed[8..16].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        desk::issue(self.askers.next(), None, seed).await;
    }

    async fn hello(&mut self) {
        let health: String = self.askers.next().text("/healthz").await.unwrap();
        black_box(health);
    }
}

/// A service, and who calls it.
struct Place {
    service: Apart,
    hands: Vec<Hand>,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn new(folder: tempfile::TempDir, connections: usize) -> Self {
        let service = Apart::start(folder.path());
        let mut hands = Vec::new();
        for place in 0..connections {
            hands.push(Hand { askers: desk::Askers::log_in(&service.server, place).await, place, number: 0 });
        }
        Self { service, hands, _folder: folder }
    }

    /// All hands (or the first alone) for a slice.
    async fn slice(&mut self, is_hello: bool, hands: usize, length: Duration) -> Slice {
        let (began, used) = (Instant::now(), self.service.used());
        let rest = self.hands.split_off(hands);
        let mut tasks = JoinSet::new();
        for mut hand in self.hands.drain(..) {
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                while began.elapsed() < length {
                    let start = Instant::now();
                    if is_hello {
                        hand.hello().await;
                    } else {
                        hand.issue().await;
                    }
                    latencies.push(start.elapsed());
                }
                (hand, latencies)
            });
        }
        let (hands, latencies): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
        let took = began.elapsed();
        let mut latencies: Vec<Duration> = latencies.into_iter().flatten().collect();
        latencies.sort();
        let each = (self.service.used() - used).as_secs_f64() / latencies.len() as f64;
        self.hands = hands;
        self.hands.sort_by_key(|hand| hand.place);
        self.hands.extend(rest);
        Slice { rate: latencies.len() as f64 / took.as_secs_f64(), each, p50: latencies[latencies.len() / 2] }
    }
}

/// What a slice showed: calls a second, the service's processor time for each (in s), and the median latency.
struct Slice {
    rate: f64,
    each: f64,
    p50: Duration,
}

/// A signature of a certificate's size, in s.
fn signature(length: Duration) -> f64 {
    let (key, message) = (SigningKey::from_bytes(&[2; 32]), [7_u8; 400]);
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < length {
        black_box(key.sign(black_box(&message)));
        count += 1;
    }
    began.elapsed().as_secs_f64() / f64::from(count)
}

/// The processor time of a row of the log that shares its commit, in s.
async fn row(store: &Arc<SqliteStore>, length: Duration) -> f64 {
    let (began, before) = (Instant::now(), processor_time("self"));
    let mut tasks = JoinSet::new();
    for _ in 0..CALLERS {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut count = 0_u32;
            while began.elapsed() < length {
                let person = PersonName::parse("alice").unwrap();
                let change =
                    Change { at: SystemClock.now(), saves: Vec::new(), events: vec![Event::LoggedOut { person }] };
                store.commit(change).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    (processor_time("self") - before).as_secs_f64() / f64::from(count)
}

/// A page appended and synced: median.
fn sync(folder: &Path, count: u64) -> Duration {
    let file = File::create(folder.join("synced")).unwrap();
    let mut all: Vec<Duration> = (0..count)
        .map(|number| {
            let began = Instant::now();
            file.write_all_at(&[7; 4096], number * 4096).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    all.sort();
    all[all.len() / 2]
}

async fn processor(plan: &Plan, place: &mut Place, store: &Arc<SqliteStore>) {
    let (mut issues, mut hellos, mut rows, mut signatures) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.passes {
        issues.push(place.slice(false, plan.connections, plan.slice).await.each);
        hellos.push(place.slice(true, plan.connections, plan.slice).await.each);
        rows.push(row(store, plan.slice / 2).await);
        signatures.push(signature(plan.slice / 8));
    }
    let [issue, hello, row, signature] = [issues, hellos, rows, signatures].map(|all| median(all) * 1e6);
    println!("{} connections, µs of the service's processor", plan.connections);
    println!("  a certificate {issue:.0}; a signature {signature:.0}, hello {hello:.0}, a row {row:.0}");
    println!("  a certificate beside the three together: {:.1}", issue / (signature + hello + row));
    println!("  resident: {:.1} MiB", place.service.look().0);
}

async fn disk(plan: &Plan, place: &mut Place, memory: &mut Place) {
    let (mut rates, mut ratios, mut alone, mut alone_in_memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.passes {
        let on_disk = place.slice(false, plan.connections, plan.slice).await.rate;
        let in_memory = memory.slice(false, plan.connections, plan.slice).await.rate;
        rates.push(on_disk);
        ratios.push(on_disk / in_memory);
        alone.push(place.slice(false, 1, plan.slice / 2).await.p50.as_secs_f64() * 1e3);
        alone_in_memory.push(memory.slice(false, 1, plan.slice / 2).await.p50.as_secs_f64() * 1e3);
    }
    println!("certificates/s on the disk {:.0}, beside the same in memory: {:.2}", median(rates), median(ratios));
    let synced = sync(Path::new(env!("CARGO_TARGET_TMPDIR")), 200).as_secs_f64() * 1e3;
    let (alone, in_memory) = (median(alone), median(alone_in_memory));
    println!(
        "one alone, p50: {alone:.2} ms on the disk, {in_memory:.2} in memory; a page appended and synced {synced:.2}"
    );
    println!("  beside a sync and 1.5 times what it takes in memory: {:.2}", alone / (synced + 1.5 * in_memory));
}

/// Certificates alone, for a profile.
async fn profile(plan: &Plan, place: &mut Place) {
    println!("the service is process {}", place.service.id());
    for _ in 0..plan.passes {
        let Slice { rate, each, p50 } = place.slice(false, plan.connections, plan.slice).await;
        println!("{rate:.0} certificates/s, {:.0} µs of the service's processor, p50 {p50:.1?}", each * 1e6);
    }
}

async fn measure(plan: &Plan) {
    // Beside the build, so that the disk is a disk.
    let on_disk = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut place = Place::new(on_disk(), plan.connections).await;
    if std::env::args().any(|arg| arg == "--only=certificate") {
        return profile(plan, &mut place).await;
    }
    let mut memory = Place::new(tempfile::tempdir_in("/dev/shm").unwrap(), plan.connections).await;
    let bare = on_disk();
    let settings = Settings { path: bare.path().join("rows.sqlite") };
    let store = Arc::new(SqliteStore::open(&settings, desk::seal()).unwrap());
    processor(plan, &mut place, &store).await;
    disk(plan, &mut place, &mut memory).await;
}

fn main() {
    let plan = if std::env::args().any(|arg| arg == "--short") { SHORT } else { FULL };
    if apart::serve(desk::people_on(plan.connections), async |_| ()) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure(&plan));
}
