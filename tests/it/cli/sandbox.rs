//! The service in its sandbox, under the real kernel: what it denies itself is refused on every thread, and what it lives on is not.

use std::collections::BTreeMap;
#[cfg(feature = "failpoints")]
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::asked;
use super::doctor::check;
use super::stage::{HALLPASS, Stage};

/// Whether the kernel has all of it; a test that rests on that says so where it has not.
fn has_landlock(said: &str) -> bool {
    let lacks = said.lines().filter(|line| line.contains("lacks a part") && line.contains("landlock"));
    let lacks: Vec<_> = lacks.collect();
    if !lacks.is_empty() {
        eprintln!("NOT TESTED: {lacks:?}");
    }
    lacks.is_empty()
}

/// The lines of `/proc/PID/status` that matter, of each thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect::<BTreeMap<_, _>>()
    };
    // (one that has ended since it was listed has none)
    tasks.map(|task| status(task.unwrap().path())).filter(|status| !status.is_empty()).collect()
}

fn curl(url: &str) -> String {
    let output = Command::new("curl").args(["-sk", "--max-time", "20", url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What somebody who has taken the service over tried, and how it ended, by thread.
#[cfg(feature = "failpoints")]
fn tried(said: &str) -> BTreeMap<(String, String), String> {
    let part = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!(" {key}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let lines = said.lines().filter(|line| line.contains(" what=\""));
    lines.map(|line| ((part(line, "thread"), part(line, "what")), part(line, "how"))).collect()
}

/// A stage whose service tries it all, with this `[sandbox]`.
#[cfg(feature = "failpoints")]
fn attempted(lines: &str) -> (String, BTreeMap<(String, String), String>) {
    let mut stage = Stage::empty();
    stage.set_up();
    // (beside the stage, whose folder is that of the file that says when the service is ready)
    let beside = tempfile::tempdir().unwrap();
    std::fs::write(beside.path().join("file"), "not ours").unwrap();
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/config.toml", &format!("{config}\n{lines}"));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let attempt = format!("{} {}", beside.path().display(), server.local_addr().unwrap());
    stage.start_with(&[("HALLPASS_SANDBOX_ATTEMPT", &attempt)]);
    stage.log_in("alice");
    let said = stage.stop();
    let tried = tried(&said);
    assert_eq!(tried.len(), 32, "{said}");
    (said, tried)
}

#[cfg(feature = "failpoints")]
#[test]
fn a_service_that_is_taken_over_starts_nothing_reads_nothing_else_and_reaches_nobody() {
    let (said, tried) = attempted("");
    if !has_landlock(&said) {
        return;
    }
    for ((thread, what), how) in tried {
        let wanted = match what.as_str() {
            "read /etc/shadow" | "read a file beside" | "list a folder beside" => "EACCES",
            "write a file beside" | "remove a file beside" | "connect elsewhere" | "listen" => "EACCES",
            "look at packets" | "talk to the kernel" => "EAFNOSUPPORT",
            "connect elsewhere by datagrams" | "connect elsewhere by MPTCP" => "EAFNOSUPPORT",
            _ => "EPERM",
        };
        assert_eq!(how, wanted, "{what}, {thread} thread");
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn without_the_sandbox_all_of_that_can_be_done_so_that_the_test_shows_something() {
    let (said, tried) = attempted("[sandbox]\nmode = \"off\"\n");
    assert!(said.contains("the sandbox is switched off"), "{said}");
    for what in [
        "read a file beside",
        "write a file beside",
        "start a program",
        "connect elsewhere",
        "connect elsewhere by datagrams",
        "connect elsewhere with the first bytes",
        "listen",
    ] {
        assert_eq!(tried[&("first".to_owned(), what.to_owned())], "done", "{what}");
    }
}

#[test]
fn every_thread_is_in_it_and_the_figures_say_so() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let figures = curl(&format!("{}/metrics", stage.url()));
    let said = stage.said().to_owned();
    let threads = threads(stage.pid());
    assert!(threads.len() > 4, "{threads:?}");
    for thread in &threads {
        assert_eq!((thread["NoNewPrivs"].as_str(), thread["Seccomp"].as_str()), ("1", "2"), "{thread:?}");
        assert!(thread["Seccomp_filters"].parse::<u32>().unwrap() >= 3, "{thread:?}");
    }
    let is_restricted = |part: &str| figures.contains(&format!("hallpass_sandbox{{part=\"{part}\"}} 1\n"));
    assert!(is_restricted("calls"), "{figures}");
    // Operators hear it from the doctor as well; nobody else has anything to do about it.
    let words = stage.as_person("omar", &["doctor", "--json"]);
    let told = check(&words, "sandbox");
    let parts = ["calls", "files", "connections", "signals", "memory"];
    let wanted = if parts.into_iter().all(is_restricted) { "ok" } else { "warn" };
    assert_eq!(told["state"], wanted, "{told}");
    let open: Vec<&str> = parts.into_iter().filter(|part| !is_restricted(part)).collect();
    assert!(told["what"].as_str().unwrap().ends_with(&open.join(", ")), "{told}");
    let hers = stage.as_person("alice", &["doctor", "--json"]).json();
    assert!(hers["checks"].as_array().unwrap().iter().all(|check| check["id"] != "sandbox"), "{hers}");
    // What the process tells of itself it can still read.
    for figure in ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds_total "] {
        assert!(figures.contains(&format!("\n{figure}")), "{figure}");
    }
    let is_locked = threads[0]["VmLck"] != "0 kB";
    assert_eq!(is_restricted("memory"), is_locked, "{:?}", threads[0]);
    assert_eq!(is_locked, !said.contains("part=\"memory\""), "{said}");
    if !is_locked {
        eprintln!("NOT TESTED: we may not lock all of the memory here");
    }
    if has_landlock(&said) {
        assert!(["files", "connections", "signals"].into_iter().all(is_restricted), "{figures}");
    }
}

#[test]
fn files_that_are_replaced_are_read_again_also_by_way_of_links() {
    let mut stage = Stage::empty();
    stage.set_up();
    // As certificates are renewed: a link to the newest of several files in another folder, which gets a new one.
    std::fs::create_dir_all(stage.path("live")).unwrap();
    std::fs::create_dir_all(stage.path("archive")).unwrap();
    std::fs::rename(stage.path("service/policy.toml"), stage.path("archive/policy1.toml")).unwrap();
    std::os::unix::fs::symlink("../archive/policy1.toml", stage.path("live/policy.toml")).unwrap();
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let config = config.replace("policy = \"policy.toml\"\n", "");
    stage.write("service/config.toml", &format!("policy = {:?}\n{config}", stage.path("live/policy.toml")));
    stage.start();
    let text = std::fs::read_to_string(stage.path("archive/policy1.toml")).unwrap();
    stage.write("archive/policy2.toml", &text.replace("max = \"1h\"", "max = \"50m\""));
    std::os::unix::fs::symlink("../archive/policy2.toml", stage.path("live/new")).unwrap();
    std::fs::rename(stage.path("live/new"), stage.path("live/policy.toml")).unwrap();
    stage.signal("HUP");
    stage.hears("policy applied");
    // The server's own files, by new ones in their place.
    for name in ["tls-certificate.pem", "tls-key.pem"] {
        let (from, to) = (stage.path(&format!("service/{name}")), stage.path(&format!("service/{name}.new")));
        std::fs::copy(&from, &to).unwrap();
        std::fs::rename(to, from).unwrap();
    }
    stage.signal("HUP");
    stage.hears("TLS certificate read again");
}

/// The program that starts another one under an older kernel, built once.
fn older_kernel() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = tempfile::Builder::new().prefix("older").tempdir().unwrap().keep().join("older_kernel");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/older_kernel.c");
        let built = Command::new("cc").args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).status();
        assert!(built.unwrap().success());
        program
    })
}

/// Landlock's three calls have these numbers everywhere.
const LANDLOCK: [&str; 2] = ["444", "446"];

#[cfg(target_arch = "x86_64")]
const SECCOMP: [&str; 2] = ["317", "317"];
#[cfg(not(target_arch = "x86_64"))]
const SECCOMP: [&str; 2] = ["277", "277"];

#[test]
fn what_an_older_kernel_lacks_is_said_and_the_rest_holds_and_required_means_required() {
    for (calls, part) in [(LANDLOCK, "files"), (SECCOMP, "calls")] {
        let mut stage = Stage::empty();
        stage.set_up();
        let good = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
        let config = stage.shown("service/config.toml");
        stage.write("service/config.toml", &format!("{good}\n[sandbox]\nmode = \"required\"\n"));
        let serve = ["serve", "--config", config.as_str()];
        let mut command = Command::new(older_kernel());
        command.args(calls).arg(HALLPASS).args(serve).stdin(Stdio::null());
        let refused = command.output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains("cannot enter the sandbox") && said.contains(part) && said.contains("[sandbox]"),
            "{said}"
        );
        assert!(!stage.path("service/hallpass.db").exists(), "nothing was written");
        stage.write("service/config.toml", &good);
        stage.start_by(older_kernel(), &calls);
        stage.log_in("alice");
        let standing = threads(stage.pid());
        assert_eq!(standing[0]["NoNewPrivs"], "1");
        let said = stage.stop();
        assert!(said.contains(&format!("the sandbox lacks a part part=\"{part}\"")), "{said}");
    }
    // And under this one.
    let mut stage = Stage::empty();
    stage.set_up();
    stage.start();
    let is_whole = has_landlock(&stage.stop());
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/config.toml", &format!("{config}\n[sandbox]\nmode = \"required\"\n"));
    if is_whole {
        stage.start();
        assert!(!stage.said().contains("landlock"), "{}", stage.said());
    }
}
