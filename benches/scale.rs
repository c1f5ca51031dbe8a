//! What grows with use, for the plan in `docs/performance.md`: the log with accesses, memory and starts with hosts and entries.
//!
//! *access*: somebody asks, somebody approves, the certificate is fetched, a session is opened and ended, the window ends. How many entries and bytes that
//! is in the log, on a SQLite file and in PostgreSQL, and how much WAL. *entries*: a log that is filled with logins; how long a start takes on it (in a process of its own), how fast certificates are issued beside an empty log, and how fast the export is verified.
//! *hosts*: enrolled hosts; a start, what is resident after it, and how long it takes to change one of them. Sizes are the
//! same on every machine; times are not, and of those of *hosts* there is the processor's beside the clock's.
//!
//! Run: `cargo bench --bench scale`; one part: `-- --only=access` (`entries`, `hosts`); a smoke run in seconds: `-- --short`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::map_entry,
    clippy::allow_attributes,
    missing_docs,
    dead_code,
    unused_imports,
    reason = "a benchmark prints, and stops at what it did not expect; the tests' world has more than it needs"
)]

#[path = "support/grown.rs"]
mod grown;
#[path = "support/hosts.rs"]
mod hosts;
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hallpass::audit::checkpoint::LogVerifier;
use hallpass::audit::export;
use hallpass::name::HostName;
use hallpass::store::{self, sqlite};
use support::postgres::cluster;
use support::{World, policy};

/// How much is measured.
struct Plan {
    accesses: u32,
    entries: &'static [u64],
    hosts: &'static [u32],
    issued: u32,
}

const FULL: Plan = Plan { accesses: 500, entries: &[10_000, 1_000_000], hosts: &[1_000, 10_000, 100_000], issued: 500 };
const SHORT: Plan = Plan { accesses: 5, entries: &[1_000], hosts: &[100], issued: 5 };

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--start-on") {
        return start_on(Path::new(&arguments[at + 1])).await;
    }
    let plan = if arguments.iter().any(|argument| argument == "--short") { SHORT } else { FULL };
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--only="));
    let is_wanted = |part| only.is_none_or(|only| only == part);
    if is_wanted("access") {
        accesses(plan.accesses).await;
    }
    if is_wanted("entries") {
        entries(&plan).await;
    }
    if is_wanted("hosts") {
        hosts(&plan).await;
    }
}

async fn accesses(count: u32) {
    println!("{count} accesses; in the log each is");
    let mut world = World::unstarted(Duration::from_secs(30));
    world.try_start(Some(&policy())).await.unwrap();
    let before = entries_of(&world).await.len();
    grown::live(&mut world, count).await;
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for bytes in entries_of(&world).await.drain(before..) {
        let kind = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["kind"].as_str().unwrap().to_owned();
        let (number, size) = kinds.entry(kind).or_default();
        (*number, *size) = (*number + 1, *size + bytes.len() + 1);
    }
    let each = |number: usize| number as f64 / f64::from(count);
    for (kind, (number, size)) in &kinds {
        println!("{kind:>28} {:>8.2} entries of {:>5.0} bytes", each(*number), *size as f64 / *number as f64);
    }
    let (number, size) = kinds.values().fold((0, 0), |(n, s), (number, size)| (n + number, s + size));
    println!("{:>28} {:>8.2} entries, {:>6.0} bytes", "together", each(number), each(size));
    world.stop();
    let file = std::fs::metadata(world.database()).unwrap().len() as usize;
    println!("{:>28} {:>8.0} bytes of the SQLite file", "", each(file));

    let name = cluster().database();
    world = World::unstarted(Duration::from_secs(30));
    world.store = store::Settings::Postgres(cluster().settings(&name));
    world.try_start(Some(&policy())).await.unwrap();
    let ask = |sql: &str| cluster().sql(&name, sql).trim().parse::<f64>().unwrap();
    let size = "SELECT pg_database_size(current_database())";
    let wal = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn";
    let (size_before, wal_before) = (ask(size), ask(wal));
    grown::live(&mut world, count).await;
    let grown = |sql, before| (ask(sql) - before) / f64::from(count);
    println!("{:>28} {:>8.0} bytes of the PostgreSQL database", "", grown(size, size_before));
    println!("{:>28} {:>8.0} bytes of its WAL (one change a commit)\n", "", grown(wal, wal_before));
}

async fn entries(plan: &Plan) {
    println!("{:>9} {:>10} {:>12} {:>14}", "entries", "start", "issued/s", "verified/s");
    let mut world = World::new().await;
    println!("{:>9} {:>10} {:>12.0}", "few", "", issue(&world, plan.issued).await);
    for count in plan.entries {
        world = World::new().await;
        world.stop();
        grown::with_entries(&world, *count).await;
        let start = start_apart(&world);
        world.restart().await;
        let (rate, verified) = (issue(&world, plan.issued).await, verify(&world).await);
        println!("{count:>9} {:>7.0} ms {rate:>12.0} {verified:>14.0}", ms(start.0.all));
    }
    println!();
}

async fn hosts(plan: &Plan) {
    println!("{:>9} {:>24} {:>14} {:>24}", "hosts", "start (processor)", "bytes of each", "changing one");
    let mut world = World::new().await;
    world.stop();
    let (_, without) = start_apart(&world);
    for count in plan.hosts {
        world = World::new().await;
        world.stop();
        grown::with_hosts(&world, *count).await;
        let (start, resident) = start_apart(&world);
        world.restart().await;
        let changed = change(&world).await;
        let each = (resident as f64 - without as f64) / f64::from(*count);
        println!("{count:>9} {:>24} {each:>14.0} {:>24}", start.shown(), changed.shown());
    }
}

/// When something began, by the clock and by what this process has spent.
struct Began(Instant, Duration);

/// How long something took, and how much of it was this process's work.
#[derive(Clone, Copy)]
struct Took {
    all: Duration,
    processor: Duration,
}

impl Began {
    fn now() -> Self {
        Self(Instant::now(), spent())
    }

    fn took(&self) -> Took {
        Took { all: self.0.elapsed(), processor: spent() - self.1 }
    }
}

impl Took {
    fn shown(self) -> String {
        format!("{:.1} ms ({:.1})", ms(self.all), ms(self.processor))
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Processor time of this process.
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn entries_of(world: &World) -> Vec<Vec<u8>> {
    let ada = world.proven("ada").await;
    world.entries(&ada).await
}

/// Certificates per second, one after the other: asked for, allowed at once, fetched, ended.
async fn issue(world: &World, count: u32) -> f64 {
    let alice = world.proven("alice").await;
    let began = Instant::now();
    for _ in 0..count {
        let view = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap();
        world.fetch(&alice, view.request.id()).await.unwrap();
        world.service().end(&alice, &support::prefix(view.request.id()), "done".to_owned()).await.unwrap();
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// Entries of the export that are verified in a second.
async fn verify(world: &World) -> f64 {
    let entries = entries_of(world).await;
    let (checkpoint, size) = world.service().checkpoint().await.unwrap();
    let file = world.export(&entries[..usize::try_from(size).unwrap()], &checkpoint);
    let key = LogVerifier::parse(&world.service().log_verifier()).unwrap();
    let began = Instant::now();
    let verified = export::verify(file.as_slice(), Some(&key), None).unwrap();
    verified.entries as f64 / began.elapsed().as_secs_f64()
}

/// How long it takes until a host has another tag.
async fn change(world: &World) -> Took {
    let omar = world.proven("omar").await;
    let host = HostName::parse(&hosts::host_name(0)).unwrap();
    let mut times: Vec<Took> = Vec::new();
    for round in 0..5 {
        let tag = hallpass::name::Tag::parse(&format!("round={round}")).unwrap();
        let began = Began::now();
        world.service().tag_host(&omar, &host, [tag].into(), Default::default()).await.unwrap();
        times.push(began.took());
    }
    times.sort_by_key(|took| took.all);
    times[2]
}

/// Starts the service in a process of its own: how long that took, and what that process has resident of its own then.
fn start_apart(world: &World) -> (Took, u64) {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).arg("--start-on").arg(world.database()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().unwrap());
    let mut next = || numbers.next().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (Took { all: Duration::from_micros(next()), processor: Duration::from_micros(next()) }, next())
}

/// What [`start_apart`] runs.
async fn start_on(database: &Path) {
    let mut world = World::unstarted(Duration::from_secs(30));
    world.store = store::Settings::Sqlite(sqlite::Settings { path: database.to_owned() });
    let began = Began::now();
    world.try_start(None).await.unwrap();
    let took = began.took();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = own.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{} {} {}", took.all.as_micros(), took.processor.as_micros(), kib * 1024);
}
