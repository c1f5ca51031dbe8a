//! Other programs of the machine that hang: the daemon goes on with everything else, above all with ends.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::host::{Host, Session, until};
use super::rotation::{enrolled, keys, proven, service_with};
use super::service::Service;
use super::whole::access;
use crate::guard::promise::Promise;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an early end may take on its way: it is pushed, and a session ends within two seconds.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How long a daemon may take to stop: `leave` does not wait much longer for its unit.
const STOPS_WITHIN: Duration = Duration::from_secs(8);

/// Puts a program on the machine, in the folder where programs are looked for first.
fn put(host: &Host, name: &str, script: &str) {
    let path = host.path("bin").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether a file is there on the machine.
fn has(host: &Host, path: &str) -> bool {
    host.command("test", &["-e", path]).status().unwrap().success()
}

/// Ends a request, and sees that its open session ends in time.
fn ends_in_time(service: &Service, host: &Host, request: &str, session: &mut Session) {
    assert!(session.0.try_wait().unwrap().is_none(), "it is open: {}", host.last_log());
    service.run("alice", &["end", request]);
    until("the early end reaches the open session", ENDS_WITHIN, || {
        !host.ok(&["host", "sessions", "--json"]).contains(request)
    });
    assert_eq!(session.0.wait().unwrap().code(), Some(255));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_end_does_not_wait_for_an_sshd_that_hangs_and_what_is_not_proven_is_not_said_to_be() {
    if !Host::can_be_had() {
        return;
    }
    let service = service_with(&["next_ca"]);
    let host = enrolled(&service, &service.join_token().await);
    // Never mind who asks: it does not say what it would do.
    let hangs =
        "test -e /run/hang && test \"$1\" = -T && touch /run/hangs && exec sleep 1000\nexec /usr/sbin/sshd \"$@\"";
    put(&host, "sshd", hangs);
    let daemon = host.daemon();
    until("the daemon has checked in", PATIENCE, || {
        host.ok(&["host", "status", "--json"]).contains("\"checked_in\":\"")
    });
    let (request, key) = access(&service, "web-1", "10m");
    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    // A new bundle has the host look at its sshd and log in to itself.
    host.ok_of("/bin/touch", &["/run/hang"]);
    service.run("omar", &["ca", "rotate", "user", "start"]);
    until("sshd hangs", PATIENCE, || has(&host, "/run/hangs"));
    ends_in_time(&service, &host, &request, &mut session);
    assert!(!host.opens(&key), "the list of ended certificates has arrived, too");
    let staged = keys(&service).await.keys.into_iter().find(|key| key.state == "staged").unwrap();
    assert!(!staged.unproven.is_empty(), "{staged:?}");
    host.ok_of("/bin/rm", &["/run/hang"]);
    proven(&service, &host, "staged").await;
    daemon.stop();
    // Nor does a daemon that is started meanwhile: it knows the host's keys from before.
    host.ok_of("/bin/touch", &["/run/hang"]);
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    let (request, key) = access(&service, "web-1", "10m");
    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    ends_in_time(&service, &host, &request, &mut session);
    assert!(!host.opens(&key), "the list of ended certificates has arrived, too");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_end_does_not_wait_until_other_sessions_have_a_watcher_again() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = enrolled(&service, &service.join_token().await);
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    let (first, key) = access(&service, "web-1", "10m");
    let mut watched = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    let (second, key) = access(&service, "web-1", "10m");
    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    // What starts watchers again hangs.
    let program = host.path("bin/hallpass-host");
    std::fs::rename(&program, host.path("bin/kept")).unwrap();
    put(&host, "hallpass-host", "echo $$ > /run/hangs; exec sleep 1000");
    let kill = format!("kill -9 $(sed -n 's/^watcher = //p' $(grep -l '{first}' /run/hallpass/sessions/*))");
    host.ok_of("/bin/sh", &["-c", &kill]);
    until("it hangs", PATIENCE, || has(&host, "/run/hangs"));
    // The daemon hears of this with the early end of the other at the latest.
    service.run("alice", &["extend", &first, "--for", "20m", "--reason", "not done yet"]);
    ends_in_time(&service, &host, &second, &mut session);
    let extended = format!("request {first}: 1 sessions go on until");
    assert!(!host.daemon_log().contains(&extended), "whoever starts its watcher writes its record");
    assert!(!host.daemon_log().contains("could not be looked after"), "it hangs still: {}", host.daemon_log());
    // The program is whole again.
    std::fs::rename(host.path("bin/kept"), &program).unwrap();
    host.ok_of("/bin/sh", &["-c", "kill -9 $(cat /run/hangs)"]);
    until("the other session has a watcher again", PATIENCE, || host.daemon_log().contains("watched again: 1"));
    until("and its end", PATIENCE, || host.daemon_log().contains(&extended));
    ends_in_time(&service, &host, &first, &mut watched);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_waits_neither_for_a_service_that_does_not_answer_nor_for_an_sshd_that_hangs() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = enrolled(&service, &service.join_token().await);
    rustix::process::kill_process(Pid::from_child(&service.child), Signal::STOP).unwrap();
    let daemon = host.daemon();
    until("it asks the service", PATIENCE, || host.daemon_log().contains("looking after web-1"));
    let promise = Promise::within(STOPS_WITHIN);
    daemon.stop();
    assert!(!promise.is_broken(), "{}", host.daemon_log());
    put(&host, "sshd", "touch /run/hangs\nexec sleep 1000");
    let daemon = host.daemon();
    until("it asks sshd", PATIENCE, || has(&host, "/run/hangs"));
    let promise = Promise::within(STOPS_WITHIN);
    daemon.stop();
    assert!(!promise.is_broken(), "{}", host.daemon_log());
}
