//! What each program that a login runs takes by itself, started as PAM and sshd start it, by turns.
//!
//! Each runs below a shell of its own that takes a new audit session, as `pam_loginuid` does: the guard sees that shell as its connection. `true`
//! is what that alone takes; `hallpass-host` is the program for hosts. `-q` in front has the same read by the whole command tree, as any other command is.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::site::{GuardedHost, More, soon};

const HALLPASS: &str = env!("CARGO_BIN_EXE_hallpass");
const SMALL: &str = env!("CARGO_BIN_EXE_hallpass-host");

/// A new audit session, then the program. Not as the last word, which a shell may turn itself into: the guard's parent must be the shell.
const SHELL: &str = "echo 0 >/proc/self/loginuid && \"$@\"; exit $?";

/// Runs each program so many times.
pub(crate) async fn alone(count: usize) {
    let host = GuardedHost::start(&More::default()).await;
    let pass = host.pass(soon(3_600));
    let line = std::fs::read_to_string(pass.certificate.as_ref().unwrap()).unwrap();
    let mut words = line.split_whitespace();
    let (kind, base64) = (words.next().unwrap(), words.next().unwrap());
    let config = host.path("host.toml").display().to_string();
    let key_id = hallpass::ssh::cert::Certificate::parse_openssh(line.trim()).unwrap();
    let key_id = key_id.tbs().fields().key_id.as_str().to_owned();
    let serial = pass.serial.unwrap();
    let principals = [
        "host",
        "principals",
        "--config",
        &config,
        "--user=deploy",
        &format!("--serial={serial}"),
        &format!("--key-id={key_id}"),
        &format!("--cert={base64}"),
    ];
    let guard = ["host", "guard", "--config", &config];
    let contestants: [(&str, Vec<&str>); 9] = [
        ("true", vec!["/bin/true"]),
        ("hallpass version", vec![HALLPASS, "version"]),
        ("hallpass-host version", vec![SMALL, "version"]),
        ("hallpass -q host principals", [&[HALLPASS, "-q"], &principals[..]].concat()),
        ("hallpass host principals", [&[HALLPASS], &principals[..]].concat()),
        ("hallpass-host principals", [&[SMALL], &principals[1..]].concat()),
        ("hallpass -q host guard", [&[HALLPASS, "-q"], &guard[..]].concat()),
        ("hallpass host guard", [&[HALLPASS], &guard[..]].concat()),
        ("hallpass-host guard", [&[SMALL], &guard[1..]].concat()),
    ];
    if !run(&["/bin/true"], "") {
        println!(
            "not shown here: each program by itself; that needs audit sessions, which this container does not give"
        );
        return;
    }
    let info = format!("publickey {kind} {base64}\n");
    let mut times = contestants.each_ref().map(|_| Vec::new());
    // The first round is the warm-up.
    for round in 0..=count {
        for ((name, line), times) in contestants.iter().zip(&mut times) {
            let start = Instant::now();
            assert!(run(line, &info), "{name}");
            let took = start.elapsed();
            if round > 0 {
                times.push(took.as_secs_f64() * 1_000.0);
            }
            // Its connection has ended, so its watcher goes; not while the next one is timed.
            while host.watchers() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }
    let title = format!("{count} runs below a shell, ms");
    println!("\n{title:<32} {:>10} {:>10} {:>10}", "median", "p95", "p99");
    for ((name, _), times) in contestants.iter().zip(&mut times) {
        crate::show(name, times);
    }
}

/// Whether it goes well.
fn run(line: &[&str], info: &str) -> bool {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SHELL, "sh"]).args(line).current_dir(Path::new("/")).env_clear();
    shell.env("PAM_TYPE", "open_session").env("PAM_USER", "deploy").env("PAM_RHOST", "192.0.2.7");
    shell.env("SSH_AUTH_INFO_0", info).env("SSH_CONNECTION", "192.0.2.7 1 192.0.2.8 22");
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}
