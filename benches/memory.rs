//! What stays in memory: the service and the daemon of an enrolled host (by either program), all idle, and how soon the service is ready.
//!
//! A real service, and a host that was enrolled at it in a mount namespace of its own (as root). Each is left alone for a while; then
//! the kernel is asked: what is resident, how much of it is the process's own, how much is pages of the program's file, which the kernel
//! shares with every other process of it and can drop, and what processor time was spent.
//!
//! Run: `cargo bench --bench memory`; a smoke run in seconds: `cargo bench --bench memory -- --short`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    dead_code,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect; the tests' stages have more than it needs"
)]

#[path = "../tests/it/guard"]
mod guard {
    pub(crate) mod maker;
    pub(crate) mod promise;
    pub(crate) mod site;
}
#[path = "../tests/it/enrolment"]
mod enrolment {
    pub(crate) mod host;
    pub(crate) mod service;
}

use std::time::{Duration, Instant};

use enrolment::host::{Host, until};
use enrolment::service::Service;

/// For how long each is left alone.
const REST: Duration = Duration::from_secs(120);
const REST_SHORT: Duration = Duration::from_secs(2);

fn main() {
    let short = std::env::args().any(|argument| argument == "--short");
    if !Host::can_be_had() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(look(if short { REST_SHORT } else { REST }));
}

async fn look(rest: Duration) {
    let mut service = Service::start();
    let host = Host::start("");
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    println!("{:<24} {:>10} {:>10} {:>10} {:>10}", "MiB, idle", "resident", "its own", "of files", "CPU");
    show("the service", service.child.id(), rest).await;
    for (name, program, words) in [
        ("hallpass-host run", "/usr/local/bin/hallpass-host", &["run"][..]),
        ("hallpass host run", "/usr/local/bin/hallpass", &["host", "run"]),
    ] {
        let daemon = host.daemon_of(program, words);
        until("the daemon is in touch", Duration::from_secs(30), || host.ok(&["host", "status"]).contains("in touch"));
        show(name, daemon.0.id(), rest).await;
        daemon.stop();
    }
    service.kill();
    let mut starts = Vec::new();
    for _ in 0..if rest == REST { 15 } else { 2 } {
        let began = Instant::now();
        service.start_again();
        starts.push(began.elapsed());
        service.kill();
    }
    starts.sort();
    println!("\nfrom start to ready: {:.0?} (median of {})", starts[starts.len() / 2], starts.len());
}

/// What a process has resident after it was left alone for a while, and what processor time it spent meanwhile.
async fn show(name: &str, pid: u32, rest: Duration) {
    let before = ticks(pid);
    tokio::time::sleep(rest).await;
    let spent = (ticks(pid) - before) as f64 / 100.0 / rest.as_secs_f64() * 100.0;
    let [resident, own, files] = ["VmRSS", "RssAnon", "RssFile"].map(|field| mib(pid, field));
    println!("{name:<24} {resident:>10.1} {own:>10.1} {files:>10.1} {spent:>8.2} %");
}

/// Processor time spent, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn mib(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
