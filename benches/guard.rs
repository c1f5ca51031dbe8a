//! What the guard costs a login, and how punctually it ends sessions: real ssh and sshd with PAM on loopback, as root.
//!
//! *bare*: sshd with PAM and a principals file. *`pam_exec` true*: PAM runs a program that does nothing; it closes every descriptor there
//! could be first, which takes longer than most programs. *guarded*: with `hallpass-host principals` (run twice by sshd) and
//! `hallpass-host guard`. Logins take turns, one each, and are compared pair by pair. Then each program by itself ([`programs`]). Then sessions that end one by one, each on a host of its own:
//! when nothing of it was left. Then every way to stay, fifty times each ([`kinds`]). Then many sessions whose windows end in the same second: when each client was gone, when everything was, whether
//! a session of somebody else was touched, and what a watcher holds in memory.
//!
//! Run: `cargo bench --bench guard`; a smoke run in seconds: `cargo bench --bench guard -- --short`; one part of it: `-- --only=kinds` (or
//! `logins`, `programs`, `one`, `together`).
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
    reason = "a benchmark prints, and stops at what it did not expect; the tests' site has more than it needs"
)]

mod kinds;
#[path = "../tests/it/guard/maker.rs"]
mod maker;
mod programs;
#[path = "../tests/it/guard/promise.rs"]
mod promise;
#[path = "../tests/it/guard/site.rs"]
mod site;
#[path = "../tests/it/guard/staying.rs"]
mod staying;

use std::time::{Duration, Instant};

use site::{GuardedHost, More, since, soon};

/// Logins of each contestant.
const LOGINS: usize = 100;
const LOGINS_SHORT: usize = 3;

/// Runs of each program by itself.
const PROGRAMS: usize = 200;

/// Sessions that end one by one.
const RUNS: u32 = 50;
const RUNS_SHORT: u32 = 2;

/// Batches, sessions of each kind in each, and the seconds until their end: enough for all of them to begin.
const KINDS: (u32, u32, u32) = (10, 5, 45);
const KINDS_SHORT: (u32, u32, u32) = (1, 1, 20);

/// Sessions that end together, and the seconds until then: enough for all of them to begin.
const SESSIONS: (usize, u32) = (200, 150);
const SESSIONS_SHORT: (usize, u32) = (5, 12);

fn main() {
    let short = std::env::args().any(|argument| argument == "--short");
    let only = std::env::args().find_map(|argument| argument.strip_prefix("--only=").map(str::to_owned));
    let is_wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if !GuardedHost::can_be_had() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if is_wanted("logins") {
            logins(if short { LOGINS_SHORT } else { LOGINS }).await;
        }
        if is_wanted("programs") {
            programs::alone(if short { LOGINS_SHORT } else { PROGRAMS }).await;
        }
        if is_wanted("one") {
            one_by_one(if short { RUNS_SHORT } else { RUNS }).await;
        }
        let (batches, each, seconds) = if short { KINDS_SHORT } else { KINDS };
        if is_wanted("kinds") {
            kinds::ends(batches, each, seconds).await;
        }
        let (count, seconds) = if short { SESSIONS_SHORT } else { SESSIONS };
        if is_wanted("together") {
            endings(count, seconds).await;
        }
    });
}

/// What a login takes with and without us.
async fn logins(count: usize) {
    let nothing = "session required pam_exec.so quiet type=open_session /bin/true";
    let bare = without_us("").await;
    let exec = without_us(nothing).await;
    let guarded = GuardedHost::start(&More::default()).await;
    let hosts = [("bare", &bare), ("pam_exec true", &exec), ("guarded", &guarded)];
    let passes = hosts.map(|(_, host)| host.pass(soon(3_600)));
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    // The first round is the warm-up.
    for round in 0..=count {
        for ((host, pass), times) in hosts.iter().map(|(_, host)| host).zip(&passes).zip(&mut times) {
            let start = Instant::now();
            let (code, _) = host.ssh(pass, "true").await;
            let took = start.elapsed();
            assert_eq!(code, 0, "{}", host.logs());
            if round > 0 {
                times.push(took.as_secs_f64() * 1_000.0);
            }
        }
    }
    let added = |with: usize, without: usize| -> Vec<f64> {
        times[with].iter().zip(&times[without]).map(|(with, without)| with - without).collect()
    };
    let (mut by_us, mut by_exec) = (added(2, 1), added(1, 0));
    println!("{:<32} {:>10} {:>10} {:>10}", "ssh web-1 true, ms", "median", "p95", "p99");
    for ((name, _), times) in hosts.iter().zip(&mut times) {
        show(name, times);
    }
    show("pam_exec adds", &mut by_exec);
    show("guard and principals add", &mut by_us);
}

/// A host with this line in place of the guard's, and a principals file.
async fn without_us(line: &str) -> GuardedHost {
    let host = GuardedHost::start(&More { is_open: true, settings: "", instead: Some(line) }).await;
    std::fs::copy(host.path("trust"), host.path("both")).unwrap();
    site::write(&host.path("principals"), "deploy@web-1\n");
    host
}

/// How long after the end of its window anything of a session is there: a command that ignores TERM, and a detached one.
async fn one_by_one(count: u32) {
    let mut runs = Vec::new();
    for _ in 0..count {
        let host = GuardedHost::start(&More::default()).await;
        let end = soon(10);
        let command = "trap '' TERM HUP; nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600; sleep 600";
        let mut session = host.session(&host.pass(end), &[], command).await;
        // The next begin while this one waits for its end.
        runs.push(tokio::spawn(async move {
            site::wait_until(end, -200).await;
            assert!(host.processes().len() >= 3, "not before the end");
            while session.is_running() || !host.processes().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            since(end) as f64
        }));
    }
    let mut times = Vec::new();
    for run in runs {
        times.push(run.await.unwrap());
    }
    println!("\n{:<32} {:>10} {:>10} {:>10}", format!("{count} runs, ms after the end"), "median", "p95", "p99");
    show("nothing is left", &mut times);
}

/// How long after the end of their window sessions are there, when all end in one second.
async fn endings(count: usize, seconds: u32) {
    let host = GuardedHost::start(&More::default()).await;
    // The same account by a plain key, and by a certificate that goes on.
    let mut others = [
        host.session(&host.plain_key(), &[], "nohup setsid sleep 900 >/dev/null 2>&1 & sleep 900").await,
        host.session(&host.pass(soon(3_600)), &[], "sleep 900").await,
    ];
    while host.processes().len() != 7 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let kept = host.processes();
    let end = soon(seconds);
    let pass = host.pass(end);
    let mut sessions = Vec::new();
    for index in 0..count {
        // Every other one with a detached process that ignores TERM.
        let command = if index % 2 == 0 { "sleep 600" } else { "trap '' TERM; setsid sleep 600 & sleep 600" };
        sessions.push(host.session(&pass, &[], command).await);
    }
    println!("\n{count} sessions began, {} s before their end", -since(end) / 1_000);
    let mut memory: Vec<f64> = host.watcher_folders().iter().filter_map(|folder| own_kib(folder)).collect();
    let ended = sessions.into_iter().map(|session| {
        tokio::spawn(async move {
            let mut session = session;
            let _status = session.child.wait().await;
            since(end) as f64
        })
    });
    let ended: Vec<_> = ended.collect();
    let all_gone = async {
        while !host.processes().is_subset(&kept) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let gone = since(end);
        while host.watchers() > 1 || host.records().len() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (gone, since(end))
    };
    let (all_gone, all_known) = all_gone.await;
    assert_eq!(host.processes(), kept, "nothing of anybody else's is touched");
    assert!(others.iter_mut().all(site::Client::is_running));
    let mut times = Vec::new();
    for one in ended {
        times.push(one.await.unwrap());
    }
    println!("{:<32} {:>10} {:>10} {:>10}", "after the end, ms", "median", "p95", "p99");
    show("a client is gone", &mut times);
    println!("{:<32} {all_gone:>10}", "nothing is left");
    println!("{:<32} {all_known:>10}", "and all of it is put down");
    println!("{:<32} {:>10} {:>10} {:>10}", "a watcher holds, KiB", "median", "p95", "p99");
    show("of its own", &mut memory);
}

/// Memory of a process that it shares with nobody.
fn own_kib(folder: &std::path::Path) -> Option<f64> {
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?.trim();
    line.strip_suffix(" kB")?.parse().ok()
}

pub(crate) fn show(name: &str, numbers: &mut [f64]) {
    numbers.sort_by(f64::total_cmp);
    let at = |share: f64| numbers[((numbers.len() - 1) as f64 * share).round() as usize];
    println!("{name:<32} {:>10.2} {:>10.2} {:>10.2}", at(0.5), at(0.95), at(0.99));
}
