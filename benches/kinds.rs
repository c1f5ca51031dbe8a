//! How long after the end of its window anything of a session is there, for each way to stay by itself.
//!
//! Sessions of all kinds end side by side, in batches; the time of each is its own: when the last process of its audit session was gone, that of
//! its connection included, its watcher (which then puts that down) not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::site::{GuardedHost, More, since, soon, wait_until};
use crate::staying::{Kind, Stay};

/// How many sessions open at the same time: sshd turns some away when ten are on their way in.
const AT_ONCE: usize = 6;

/// Ends `each` sessions of each kind in each of so many batches, whose windows last for `seconds`; prints when nothing of them was left.
pub(crate) async fn ends(batches: u32, each: u32, seconds: u32) {
    let mut times: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    for _ in 0..batches {
        for (kind, time) in batch(each, seconds).await {
            times.entry(kind).or_default().push(time);
        }
    }
    let (of_each, side_by_side) = (batches * each, each as usize * Kind::ALL.len());
    let title = format!("{of_each} of each, {side_by_side} at once, ms");
    println!("\n{title:<32} {:>10} {:>10} {:>10}", "median", "p95", "p99");
    let mut all: Vec<f64> = times.values().flatten().copied().collect();
    for (kind, times) in &mut times {
        crate::show(kind.name(), times);
    }
    crate::show("all", &mut all);
}

/// One batch: when nothing of each session was left.
async fn batch(each: u32, seconds: u32) -> Vec<(Kind, f64)> {
    let host = Arc::new(GuardedHost::start(&More::default()).await);
    let end = soon(seconds);
    let ways_in = Arc::new(Semaphore::new(AT_ONCE));
    let mut starting = JoinSet::new();
    for (number, kind) in (0..each).flat_map(|_| Kind::ALL).enumerate() {
        let (host, ways_in, pass) = (Arc::clone(&host), Arc::clone(&ways_in), host.pass(end));
        starting.spawn(async move {
            let _way_in = ways_in.acquire().await.unwrap();
            let stay = Stay::start(&host, &pass, kind, u32::try_from(number).unwrap()).await;
            (pass.serial.unwrap(), kind, stay)
        });
    }
    let mut stays = starting.join_all().await;
    let sessions = sessions(&host);
    wait_until(end, -200).await;
    assert!(stays.iter_mut().all(|(_, _, stay)| stay.is_there()), "not before the end; the windows are too short here");
    let kinds: BTreeMap<u32, Kind> = stays.iter().map(|(serial, kind, _)| (sessions[serial], *kind)).collect();
    let (mut left, mut gone): (BTreeSet<u32>, Vec<(Kind, f64)>) = (kinds.keys().copied().collect(), Vec::new());
    while !left.is_empty() {
        let there = there(&left);
        let time = since(end) as f64;
        gone.extend(left.difference(&there).map(|session| (kinds[session], time)));
        left = there;
        assert!(time < 60_000.0, "still there: {left:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while !stays.iter_mut().all(|(_, _, stay)| stay.is_over()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(host.processes().is_empty());
    gone
}

/// The audit sessions of a host, by the serials of their certificates.
fn sessions(host: &GuardedHost) -> BTreeMap<u32, u32> {
    let session = |path: &std::path::PathBuf| {
        let serial = std::fs::read_to_string(path).ok()?;
        let serial = serial.lines().find_map(|line| line.strip_prefix("serial = "))?.parse().ok()?;
        Some((serial, path.file_name()?.to_str()?.split('-').next()?.parse().ok()?))
    };
    host.records().iter().filter_map(session).collect()
}

/// Those of these audit sessions of which a process runs that is no watcher.
fn there(sessions: &BTreeSet<u32>) -> BTreeSet<u32> {
    let read = |folder: &std::path::Path, name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let folders = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let session = |folder: std::path::PathBuf| {
        let session = read(&folder, "sessionid")?.trim().parse().ok().filter(|session| sessions.contains(session))?;
        let is_zombie = read(&folder, "stat")?.contains(") Z ");
        let is_watcher = read(&folder, "cmdline")?.contains("hallpass-host\0watch\0");
        (!is_zombie && !is_watcher).then_some(session)
    };
    folders.filter_map(session).collect()
}
