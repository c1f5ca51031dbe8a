//! Two nodes on one PostgreSQL: durable certificates per second beside single-row commits of the same server.
//!
//! *pgbench*: one prepared `INSERT` of 600 bytes and its commit, on as many connections. *issue*: a request that policy allows at once,
//! asked and fetched in one call over TLS 1.3 keep-alive, half of the clients on each node; four log entries each in two commits
//! before the answer. Contestants run in slices by turns; ratios are medians of the pairs of one pass. Clients, nodes and the database
//! share the machine.
//!
//! Run: `cargo bench --bench postgres`; a smoke run in seconds: `cargo bench --bench postgres -- --short`.
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
    missing_docs,
    dead_code,
    reason = "a benchmark prints, and stops at what it did not expect"
)]

mod desk;
mod figures;
#[path = "../tests/it/support/postgres.rs"]
mod server;

use std::time::{Duration, Instant};

use figures::median;
use hallpass::store::postgres::PostgresStore;
use server::Cluster;

/// How much is measured.
struct Plan {
    seconds: u64,
    passes: usize,
    connections: &'static [usize],
}

const FULL: Plan = Plan { seconds: 3, passes: 5, connections: &[16, 64] };
const SHORT: Plan = Plan { seconds: 1, passes: 1, connections: &[4] };

/// A client of one node.
struct Hand {
    askers: desk::Askers,
    seed: [u8; 32],
    asked: u64,
}

/// All hands work on their own connection for so long; certificates per second.
async fn issue(hands: Vec<Hand>, length: Duration) -> (Vec<Hand>, f64) {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut hand in hands {
        tasks.spawn(async move {
            let mut count = 0_u32;
            while began.elapsed() < length {
                hand.asked += 1;
                hand.seed[8..16].copy_from_slice(&hand.asked.to_be_bytes());
                desk::issue(hand.askers.next(), None, hand.seed).await;
                count += 1;
            }
            (hand, count)
        });
    }
    let (hands, counts): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
    (hands, f64::from(counts.into_iter().sum::<u32>()) / began.elapsed().as_secs_f64())
}

/// Single-row commits per second.
fn pgbench(cluster: &Cluster, database: &str, script: &std::path::Path, connections: usize, seconds: u64) -> f64 {
    let mut command = cluster.program("pgbench");
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &connections.to_string(), "-T", &seconds.to_string(), "-f"]);
    let output = command.arg(script).arg(database).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::main]
async fn main() {
    let plan = if std::env::args().any(|arg| arg == "--short") { SHORT } else { FULL };
    let most = plan.connections.iter().copied().max().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cluster = Cluster::start(&["wal_level=replica", "max_wal_size=2GB"]);
    let (ours, theirs) = (cluster.database(), cluster.database());
    cluster.sql(&theirs, "CREATE TABLE one_row (number bigserial PRIMARY KEY, text text NOT NULL)");
    let script = folder.path().join("one-row.sql");
    std::fs::write(&script, "INSERT INTO one_row (text) VALUES (repeat('x', 600));\n").unwrap();
    let mut nodes = Vec::new();
    for node in 0..2 {
        let store = PostgresStore::open(&cluster.settings(&ours), desk::seal()).await.unwrap();
        nodes.push(desk::serve(folder.path(), node, desk::people_on(most), Box::new(store)).await);
    }
    let mut hands = Vec::new();
    for place in 0..most {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&(place as u64).to_be_bytes());
        let askers = desk::Askers::log_in(&nodes[place % 2], place).await;
        hands.push(Hand { askers, seed, asked: 0 });
    }
    println!("{:>11} {:>12} {:>12} {:>24}", "connections", "pgbench", "certs/s", "ratio (range)");
    for connections in plan.connections.iter().copied() {
        let idle = hands.split_off(connections);
        let mut passes = Vec::new();
        // The first pass opens connections and fills caches.
        for pass in 0..=plan.passes {
            let rows = pgbench(&cluster, &theirs, &script, connections, plan.seconds);
            let (back, certificates) = issue(hands, Duration::from_secs(plan.seconds)).await;
            hands = back;
            if pass > 0 {
                passes.push((rows, certificates));
            }
        }
        hands.extend(idle);
        let ratios: Vec<f64> = passes.iter().map(|(rows, certificates)| certificates / rows).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, 0.0), |(a, b): (f64, f64), r| (a.min(*r), b.max(*r)));
        let (rows, certificates): (Vec<f64>, Vec<f64>) = passes.into_iter().unzip();
        println!(
            "{connections:>11} {:>12.0} {:>12.0} {:>12.2} ({least:.2} to {most:.2})",
            median(rows),
            median(certificates),
            median(ratios)
        );
    }
}
