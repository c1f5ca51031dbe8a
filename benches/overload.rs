//! What happens when five times as much comes as can be done: how soon the rest is turned away, whether approvals and status are still
//! answered, and when all is as before; and what two thousand slow clients do to everybody else.
//!
//! *ceiling*: asks per second, each connection with one under way. *overload*: five times as many are sent, at their times and whether or not
//! the ones before are answered, by people who do not come again; beside them one hand approves and one looks, each ten times a second. Latencies count
//! from when a call was due, so that a late sender hides nothing. *slow clients*: connections that send a byte now and then, say nothing, or
//! read no answer; beside them a few hands have certificates issued. The service has a process and a processor of its own, where there are two, as
//! if whoever sends were another machine: what shares its processor with the sender is starved before it can say no. What was really sent is printed
//! beside what was due.
//!
//! Run: `cargo bench --bench overload`; a smoke run in seconds: `cargo bench --bench overload -- --short`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
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
#[path = "overload/flood.rs"]
mod flood;
#[path = "overload/slow.rs"]
mod slow;

use std::sync::Arc;
use std::time::{Duration, Instant};

use apart::Apart;
use flood::{Flood, Outcome};
use hallpass::client::{Client, Server};
use hallpass::wire;
use tokio::task::JoinSet;

/// How much is measured.
pub(crate) struct Plan {
    /// For how long each part runs.
    pub(crate) length: Duration,
    /// People who ask, each on one connection.
    pub(crate) connections: usize,
    /// Connections that are slow on purpose.
    pub(crate) slow: usize,
}

const FULL: Plan = Plan { length: Duration::from_secs(8), connections: 64, slow: 2_000 };
const SHORT: Plan = Plan { length: Duration::from_millis(500), connections: 8, slow: 60 };

/// How many times the ceiling.
const TIMES: f64 = 5.0;

/// How often one approves, and one looks, while the flood lasts.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// How long after the flood at most it is waited for that all is as before.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// So many calls in a row that take no longer than before: it is as before.
const CALM: usize = 20;

pub(crate) fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort();
    latencies.get((latencies.len() * percent / 100).min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn show(what: &str, mut latencies: Vec<Duration>) {
    let (p50, p99) = (percentile(&mut latencies, 50), percentile(&mut latencies, 99));
    let most = latencies.last().copied().unwrap_or_default();
    println!("  {what:<44} {:>7}  p50 {p50:>9.2?}  p99 {p99:>9.2?}  most {most:>9.2?}", latencies.len());
}

/// Seeds that nobody has had before.
pub(crate) fn seed(of: u8, number: usize) -> [u8; 32] {
    let mut seed = [of; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    seed
}

/// Whoever approves and whoever looks while the flood lasts; the asks were there before it.
struct Probes {
    approver: Arc<Client>,
    asker: Arc<Client>,
    waiting: Vec<wire::Request>,
}

impl Probes {
    async fn new(server: &Server, plan: &Plan) -> Self {
        let asker = desk::log_in(server, "p0", 0).await;
        let count = usize::try_from(plan.length.as_millis() / PROBE_EVERY.as_millis()).unwrap();
        let mut waiting = Vec::new();
        for number in 0..count {
            waiting.push(asker.post("/v1/requests", &desk::ask("web-1", seed(3, number))).await.unwrap());
        }
        let approver = desk::log_in(server, "omar", desk::people_on(plan.connections)).await;
        Self { approver: Arc::new(approver), asker: Arc::new(asker), waiting }
    }

    /// One approval and one look each time, at their times, whether or not those before are answered; how long each took since it was due.
    async fn run(self) -> (Vec<Duration>, Vec<Duration>) {
        let mut due = Instant::now();
        let (mut approvals, mut looks) = (JoinSet::new(), JoinSet::new());
        for asked in self.waiting {
            tokio::time::sleep_until(due.into()).await;
            let path = format!("/v1/requests/{}", asked.id);
            let (approver, approve_path) = (Arc::clone(&self.approver), format!("{path}/approve"));
            approvals.spawn(async move {
                let approve = wire::Approve { digest: asked.digest, ..wire::Approve::default() };
                approver.post::<_, wire::Request>(&approve_path, &approve).await.unwrap();
                due.elapsed()
            });
            let asker = Arc::clone(&self.asker);
            looks.spawn(async move {
                asker.get::<wire::Request>(&path).await.unwrap();
                due.elapsed()
            });
            due += PROBE_EVERY;
        }
        (approvals.join_all().await, looks.join_all().await)
    }
}

/// One hand that asks, one call after the other.
async fn alone(asker: &Client, count: usize, of: u8) -> Vec<Duration> {
    let mut latencies = Vec::new();
    for number in 0..count {
        let ask = desk::ask("staging-1", seed(of, number));
        let began = Instant::now();
        asker.post::<_, wire::Request>("/v1/requests", &ask).await.unwrap();
        latencies.push(began.elapsed());
    }
    latencies
}

/// How long after now it takes until asks are as quick again as `usual`; `None` if not soon enough.
async fn back(asker: &Client, usual: Duration) -> Option<Duration> {
    let began = Instant::now();
    let mut calm = 0;
    let mut since = Duration::ZERO;
    for number in 0.. {
        let start = began.elapsed();
        if start > BACK_WITHIN {
            break;
        }
        let took = alone_once(asker, number).await;
        if took > usual {
            calm = 0;
            continue;
        }
        if calm == 0 {
            since = start;
        }
        calm += 1;
        if calm == CALM {
            return Some(since);
        }
    }
    None
}

async fn alone_once(asker: &Client, number: usize) -> Duration {
    let ask = desk::ask("staging-1", seed(6, number));
    let began = Instant::now();
    asker.post::<_, wire::Request>("/v1/requests", &ask).await.unwrap();
    began.elapsed()
}

async fn overload(server: &Server, folder: &std::path::Path, plan: &Plan) {
    let asker = desk::log_in(server, "p0", 0).await;
    let mut before = alone(&asker, if plan.connections == FULL.connections { 400 } else { 40 }, 5).await;
    // Twice the slowest of a hundred: what is no slower than that is as before.
    let usual = percentile(&mut before, 99) * 2;
    let flood = Flood::new(server, folder, plan).await;
    let ceiling = flood.ceiling(plan.length / 2).await;
    println!("ceiling: {ceiling:.0} asks/s on {} connections, each with one under way", plan.connections);
    show("one hand alone, before", before);
    let offered = ceiling * TIMES;
    let (probes, bodies) = (Probes::new(server, plan).await, flood.prepare(offered, plan.length));
    let probes = tokio::spawn(probes.run());
    let (sent, mut answers) = flood.send(bodies, offered).await;
    let came_back = back(&asker, usual).await;
    let (approvals, looks) = probes.await.unwrap();
    let mut outcomes = Vec::new();
    while let Some(one) = answers.recv().await {
        outcomes.push(one);
    }
    println!("overload: {offered:.0} asks/s due, {sent:.0} sent, for {:.1?}", plan.length);
    let of = |wanted: Outcome| -> Vec<Duration> {
        outcomes.iter().filter(|(outcome, _)| *outcome == wanted).map(|(_, took)| *took).collect()
    };
    show("asks done", of(Outcome::Done));
    show("asks turned away (503 busy)", of(Outcome::TurnedAway));
    show("asks that failed otherwise", of(Outcome::Failed));
    show("approvals", approvals);
    show("looks at a request", looks);
    match came_back {
        Some(after) => println!("  back to twice the p99 of before: {after:.2?} after the last was sent"),
        None => println!("  not back to twice the p99 of before within {BACK_WITHIN:?}"),
    }
}

fn main() {
    let plan = if std::env::args().any(|arg| arg == "--short") { SHORT } else { FULL };
    if apart::serve(desk::people_on(plan.connections)) {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let service = Apart::start(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        overload(&service.server, folder.path(), &plan).await;
        slow::measure(&service.server, folder.path(), &plan).await;
    });
}
