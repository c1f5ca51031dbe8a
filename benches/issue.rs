//! Issuing over HTTP with the durable log: what certificates per second the real service gives beside a micro service that only issues.
//!
//! *anchor*: one call, see `anchor.rs`. *issue*: a request that policy allows at once, asked and certified in one call as clients do, over
//! TLS 1.3 keep-alive, with session (16 people share a connection and take turns, so that nobody has many requests open), a policy of 1,000 rules, and log entries for question, grant, certificate and outcome. *story*:
//! ask, approval by another person, fetch. Contestants run in slices by turns; ratios are medians of the pairs of one pass.
//! Client and servers share the machine, and the client is the same for all.
//!
//! Run: `cargo bench --bench issue`; a smoke run in seconds: `cargo bench --bench issue -- --short`. For a profile of one contestant:
//! `perf record -g cargo bench --bench issue -- --only=issue --connections=16`; it says the processor time for each, too.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect"
)]

mod anchor;
mod desk;
mod figures;

use std::hint::black_box;
use std::time::{Duration, Instant};

use desk::log_in;
use ed25519_dalek::{Signer as _, SigningKey};
use figures::{median, percentile, processor_time};
use hallpass::client::{Client, Server};
use hallpass::store::sqlite::{Settings, SqliteStore};

/// How much is measured.
struct Plan {
    slice: Duration,
    passes: usize,
    connections: Vec<usize>,
    /// One contestant alone, for a profile.
    only: Option<Contestant>,
}

impl Plan {
    fn read() -> Self {
        let mut plan = Self { slice: Duration::from_millis(600), passes: 7, connections: vec![1, 16, 64], only: None };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=').unwrap_or((&argument, "")) {
                ("--short", _) => {
                    plan = Self { slice: Duration::from_millis(150), passes: 1, connections: vec![1, 4], ..plan };
                }
                ("--connections", count) => plan.connections = vec![count.parse().unwrap()],
                ("--only", name) => {
                    plan.only = Some(CONTESTANTS.iter().find(|(known, _)| *known == name).unwrap().1);
                }
                _ => {}
            }
        }
        plan
    }
}

/// One connection's clients, and where they stand.
struct Hand {
    anchor: Client,
    askers: desk::Askers,
    approver: Client,
    seed: [u8; 32],
    question: anchor::Issue,
    asked: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    Anchor,
    Issue,
    Story,
}

const CONTESTANTS: [(&str, Contestant); 3] =
    [("anchor", Contestant::Anchor), ("issue", Contestant::Issue), ("story", Contestant::Story)];

impl Hand {
    async fn new(place: usize, connections: usize, server: &Server, anchor: &Server) -> Self {
        let person = format!("p{place}");
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&(place as u64).to_be_bytes());
        Self {
            anchor: Client::new(anchor.clone(), None, Duration::from_secs(30)).unwrap(),
            askers: desk::Askers::log_in(server, place).await,
            approver: log_in(server, "omar", desk::people_on(connections)).await,
            seed,
            question: anchor::Issue::by(&person, seed),
            asked: 0,
        }
    }

    /// One certificate.
    async fn once(&mut self, contestant: Contestant) {
        if contestant == Contestant::Anchor {
            let issued: anchor::Issued = self.anchor.post("/issue", &self.question).await.unwrap();
            black_box(issued.certificate);
            return;
        }
        self.asked += 1;
        self.seed[8..16].copy_from_slice(&self.asked.to_be_bytes());
        let approver = (contestant == Contestant::Story).then_some(&self.approver);
        desk::issue(self.askers.next(), approver, self.seed).await;
    }
}

/// What one slice showed.
struct Slice {
    rate: f64,
    latencies: Vec<Duration>,
}

/// All hands work on their own connection until the slice is over.
async fn slice(hands: Vec<Hand>, contestant: Contestant, length: Duration) -> (Vec<Hand>, Slice) {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut hand in hands {
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while began.elapsed() < length {
                let start = Instant::now();
                hand.once(contestant).await;
                latencies.push(start.elapsed());
            }
            (hand, latencies)
        });
    }
    let (hands, latencies): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
    let latencies: Vec<Duration> = latencies.into_iter().flatten().collect();
    (hands, Slice { rate: latencies.len() as f64 / began.elapsed().as_secs_f64(), latencies })
}

/// Raw Ed25519 signatures of a certificate's size, one thread, per second.
fn raw(length: Duration) -> f64 {
    let (key, message) = (SigningKey::from_bytes(&[2; 32]), [7_u8; 400]);
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < length {
        black_box(key.sign(black_box(&message)));
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// One contestant by itself.
async fn measure_one(plan: &Plan, contestant: Contestant, connections: usize, hands: &mut Vec<Hand>) {
    let idle = hands.split_off(connections);
    let (began, used) = (Instant::now(), processor_time("self"));
    let (back, mut one) =
        slice(std::mem::take(hands), contestant, plan.slice * u32::try_from(plan.passes).unwrap()).await;
    let (used, took) = (processor_time("self") - used, began.elapsed());
    println!(
        "{connections} connections: {:.0} certificates/s, p50 {:.2?}, p99 {:.2?}, {:.0?} of processor each, {:.2} processors busy",
        one.rate,
        percentile(&mut one.latencies, 50),
        percentile(&mut one.latencies, 99),
        used / u32::try_from(one.latencies.len()).unwrap(),
        used.as_secs_f64() / took.as_secs_f64(),
    );
    *hands = back;
    hands.extend(idle);
}

async fn measure(plan: &Plan, connections: usize, hands: &mut Vec<Hand>) {
    let mut slices: [Vec<Slice>; 3] = Default::default();
    let mut raws = Vec::new();
    let idle = hands.split_off(connections);
    for _ in 0..=plan.passes {
        raws.push(raw(plan.slice / 4));
        for (place, (_, contestant)) in CONTESTANTS.into_iter().enumerate() {
            let (back, one) = slice(std::mem::take(hands), contestant, plan.slice).await;
            *hands = back;
            slices[place].push(one);
        }
    }
    hands.extend(idle);
    // The first pass opened the connections.
    raws.remove(0);
    slices.iter_mut().for_each(|slices| drop(slices.remove(0)));
    println!("\n{connections} connections; raw Ed25519 {:.0} signatures/s (one thread)", median(raws));
    println!("{:8} {:>10} {:>10} {:>10} {:>24}", "", "certs/s", "p50", "p99", "ratio to anchor (range)");
    for (place, (name, _)) in CONTESTANTS.into_iter().enumerate() {
        let pairs = slices[0].iter().zip(&slices[place]);
        let ratios: Vec<f64> = pairs.map(|(anchor, own)| own.rate / anchor.rate).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, 0.0), |(a, b): (f64, f64), r| (a.min(*r), b.max(*r)));
        let mut latencies: Vec<Duration> = slices[place].iter().flat_map(|s| s.latencies.iter().copied()).collect();
        let rate = median(slices[place].iter().map(|slice| slice.rate).collect());
        println!(
            "{name:8} {rate:>10.0} {:>10.2?} {:>10.2?} {:>8.2} ({least:.2} to {most:.2})",
            percentile(&mut latencies, 50),
            percentile(&mut latencies, 99),
            median(ratios),
        );
    }
}

#[tokio::main]
async fn main() {
    let plan = Plan::read();
    let connections = plan.connections.iter().copied().max().unwrap();
    // Beside the build, so that the disk is a disk.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = SqliteStore::open(&Settings { path: folder.path().join("hallpass.sqlite") }, desk::seal()).unwrap();
    let server = desk::serve(folder.path(), 0, desk::people_on(connections), Box::new(store)).await;
    let address = anchor::serve(&folder.path().join("anchor.sqlite")).await;
    let anchor = Server { url: format!("http://{address}"), ..Server::default() };
    let mut hands = Vec::new();
    for place in 0..connections {
        hands.push(Hand::new(place, connections, &server, &anchor).await);
    }
    for connections in plan.connections.clone() {
        match plan.only {
            Some(contestant) => measure_one(&plan, contestant, connections, &mut hands).await,
            None => measure(&plan, connections, &mut hands).await,
        }
    }
}
