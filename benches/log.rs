//! The log: what sharing a commit is worth, and how fast an auditor verifies an export.
//!
//! *commits*: changes of one entry each, by one caller and by 64 at once, in the service's own SQLite store; slices take turns. *verify*: what a
//! real service has written for requests that policy allows at once (four entries each), exported over its API as `hallpass audit export` does,
//! and verified from memory by one thread: form, order, meaning, hashes and signature.
//!
//! Run: `cargo bench --bench log`; a smoke run in seconds: `cargo bench --bench log -- --short`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::allow_attributes,
    dead_code,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect; the desk has more than it needs"
)]

mod desk;
mod figures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use figures::median;
use hallpass::audit::event::Event;
use hallpass::audit::export::{Exporter, verify};
use hallpass::client::Client;
use hallpass::name::PersonName;
use hallpass::store::sqlite::{Settings, SqliteStore};
use hallpass::store::{Change, Store as _};
use hallpass::time::Timestamp;
use hallpass::wire;
use tokio::task::JoinSet;

/// How much is measured.
struct Plan {
    slice: Duration,
    passes: usize,
    requests: u64,
}

const FULL: Plan = Plan { slice: Duration::from_millis(600), passes: 7, requests: 10_000 };
const SHORT: Plan = Plan { slice: Duration::from_millis(100), passes: 1, requests: 40 };

/// Callers at once.
const MANY: usize = 64;

#[tokio::main]
async fn main() {
    let plan = if std::env::args().any(|arg| arg == "--short") { SHORT } else { FULL };
    // Beside the build, so that the disk is a disk.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let open = |name: &str| SqliteStore::open(&Settings { path: folder.path().join(name) }, desk::seal()).unwrap();
    commits(&plan, Arc::new(open("commits.sqlite"))).await;
    let server = desk::serve(folder.path(), 0, MANY, Box::new(open("hallpass.sqlite"))).await;
    let export = export(&plan, &server).await;
    verification(&plan, &export);
}

/// Commits as many as go into a slice; how many each second.
async fn rate(store: &Arc<SqliteStore>, callers: usize, slice: Duration) -> f64 {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut count = 0_u32;
            while began.elapsed() < slice {
                let person = PersonName::parse("alice").unwrap();
                let at = Timestamp::from_unix(1_767_607_200).unwrap();
                let change = Change { at, saves: Vec::new(), events: vec![Event::LoggedOut { person }] };
                store.commit(change).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    f64::from(count) / began.elapsed().as_secs_f64()
}

async fn commits(plan: &Plan, store: Arc<SqliteStore>) {
    let (mut one, mut many, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.passes {
        let alone = rate(&store, 1, plan.slice).await;
        let together = rate(&store, MANY, plan.slice).await;
        one.push(alone);
        many.push(together);
        ratios.push(together / alone);
    }
    println!("changes of one entry, each second: one caller {:.0}, {MANY} callers {:.0}", median(one), median(many));
    println!("shared commits beside one commit each: {:.1}\n", median(ratios));
}

/// Has the service write its log, and exports it.
async fn export(plan: &Plan, server: &hallpass::client::Server) -> String {
    let mut tasks = JoinSet::new();
    for place in 0..MANY {
        let (server, requests) = (server.clone(), plan.requests / MANY as u64 + 1);
        tasks.spawn(async move {
            let asker = desk::log_in(&server, &format!("p{place}"), place).await;
            for number in 0..requests {
                let mut seed = [5; 32];
                seed[..8].copy_from_slice(&(place as u64).to_be_bytes());
                seed[8..16].copy_from_slice(&number.to_be_bytes());
                desk::issue(&asker, None, seed).await;
            }
        });
    }
    tasks.join_all().await;
    let auditor = desk::log_in(server, "omar", MANY).await;
    read(&auditor).await
}

async fn read(auditor: &Client) -> String {
    let checkpoint: wire::Checkpoint = auditor.get("/v1/log/checkpoint").await.unwrap();
    let (mut exporter, mut text) = Exporter::new(desk::log_key().verifier());
    while exporter.size() < checkpoint.size {
        let left = (checkpoint.size - exporter.size()).min(1000);
        let path = format!("/v1/log/entries?from={}&limit={left}", exporter.size());
        let page: wire::Entries = auditor.get(&path).await.unwrap();
        for entry in page.entries {
            text.push_str(&exporter.entry(entry.as_bytes()).unwrap());
        }
    }
    text.push_str(&exporter.finish(&checkpoint.checkpoint).unwrap());
    text
}

fn verification(plan: &Plan, export: &str) {
    let key = desk::log_key().verifier();
    let (mut rates, mut entries) = (Vec::new(), 0);
    for _ in 0..plan.passes {
        let began = Instant::now();
        let verified = verify(export.as_bytes(), Some(&key), None).unwrap();
        entries = verified.entries;
        rates.push(entries as f64 / began.elapsed().as_secs_f64());
    }
    let bytes = export.len() as f64 / entries as f64;
    println!("verified: {entries} entries of {bytes:.0} bytes each, {:.0} entries/s on one core", median(rates));
}
