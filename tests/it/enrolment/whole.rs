//! The whole of it on a real sshd with a real service: enrolled, used, extended, ended early, cut off, left.

use std::path::PathBuf;
use std::time::Duration;

use super::host::{Host, Session, said, until};
use super::service::Service;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(30);

/// alice asks for a while on a host; the request, and her key with its certificate beside it.
pub(super) fn access(service: &Service, host: &str, lifetime: &str) -> (String, PathBuf) {
    let words = ["request", host, "--as", "deploy", "--for", lifetime, "--reason", "trying the host", "--json"];
    let document: serde_json::Value = serde_json::from_str(&service.run("alice", &words)).unwrap();
    let text = document.to_string();
    let id = regex::Regex::new("[0-9A-Z]{4}-[0-9A-Z]{4}").unwrap().find(&text).unwrap().as_str().to_owned();
    let key = service.path(&format!("alice/run/hallpass/default/{}/key", id.replace('-', "")));
    assert!(key.exists(), "{document}");
    (id, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_enrolled_used_extended_ended_and_left_as_it_was() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    // What keeps others out must not keep the host's own login out.
    let host = Host::start("AllowUsers deploy\nAuthenticationMethods publickey,publickey publickey\n");
    let (plain, before) = (host.plain_key(), host.snapshot());
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();

    let plan = host.ok(&[&words[..], &["--dry-run"]].concat());
    assert!(plan.contains("+AllowUsers hallpass-check") && plan.contains("nothing was changed"), "{plan}");
    host.same_as(&before, "as before");
    let told = host.ok(&words);
    assert!(told.contains("web-1 is enrolled"), "{told}");
    let detail = service.host("web-1").await;
    let seen = detail.seen.unwrap();
    assert_eq!((seen.trust.as_str(), seen.guard, detail.tags), ("proven", true, vec!["role=web".to_owned()]));
    assert!(host.log().contains("ID hallpass/check/web-1"), "{}", host.log());
    assert!(host.opens(&plain), "what was accepted before still is");

    // The host shows a certificate, which a client takes that trusts the host CA alone.
    let hosts = service.path("known_hosts");
    let ca = std::fs::read_to_string(service.path("service/host_ca.pub")).unwrap();
    std::fs::write(&hosts, format!("@cert-authority * {ca}")).unwrap();
    let (request, key) = access(&service, "web-1", "10m");
    let mut strict = std::process::Command::new("ssh");
    strict.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
    strict.args(["-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=web-1", "-o"]);
    strict.arg(format!("UserKnownHostsFile={}", hosts.display())).args(["-p", &host.port.to_string(), "-i"]).arg(&key);
    let shown = strict.args(["-l", "deploy", "127.0.0.1", "echo certified"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "certified\n", "{shown:?}");

    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    let check = host.ok(&["host", "check", "--json"]);
    assert!(check.contains("\"good\":true"), "{check}");

    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    let sessions = || host.ok(&["host", "sessions", "--json"]);
    let first = sessions();
    assert!(first.contains(&request), "{first}");
    service.run("alice", &["extend", &request, "--for", "20m", "--reason", "not done yet"]);
    until("the extension reaches the open session", Duration::from_secs(5), || sessions() != first);
    assert!(session.0.try_wait().unwrap().is_none(), "the shell is kept");
    service.run("alice", &["end", &request]);
    until("the early end reaches the open session", Duration::from_secs(5), || {
        host.ssh(&key, "true").status().is_ok_and(|status| !status.success()) && !sessions().contains(&request)
    });
    assert_eq!(session.0.wait().unwrap().code(), Some(255));

    daemon.stop();
    let left = host.ok(&["host", "leave", "--yes"]);
    assert!(left.contains("web-1 has left"), "{left}");
    host.same_as(&before, "as before");
    assert_eq!(service.host("web-1").await.state, "retired");
    assert!(host.opens(&plain));
    let again = host.hallpass(&["host", "leave", "--yes"], None);
    assert_eq!(again.status.code(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_service_away_everything_holds_and_nothing_is_lost() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = Host::start("");
    let (_plain, before) = (host.plain_key(), host.snapshot());
    let token = service.join_token().await;
    let words = service.enrol("web-2", &token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let (request, key) = access(&service, "web-2", "10m");
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    service.kill();
    // Logins go on, and what happens is kept, also over a daemon that is killed.
    assert!(host.opens(&key));
    daemon.kill();
    assert!(host.opens(&key));
    let daemon = host.daemon();
    until("the daemon says what is wrong", PATIENCE, || host.ok(&["host", "status"]).contains("cannot reach"));
    assert!(host.daemon_log().contains("cannot reach"), "{}", host.daemon_log());
    let check = host.hallpass(&["host", "check"], None);
    assert_eq!(check.status.code(), Some(7));
    service.start_again();
    until("the daemon is in touch again", Duration::from_secs(70), || {
        host.ok(&["host", "status"]).contains("in touch")
    });
    let spool = || host.command("ls", &["/var/lib/hallpass/host/spool"]).output().unwrap().stdout;
    until("everything is reported", PATIENCE, || spool().is_empty());
    let opened =
        service.run("omar", &["audit", "search", &format!("request:{request}"), "kind:session_opened", "--json"]);
    assert_eq!(opened.matches("\"report\":\"opened-").count(), 2, "{opened}");
    // A watcher that is killed is started again.
    let session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    let watchers = || {
        let records = host.command("sh", &["-c", "cat /run/hallpass/sessions/*"]).output().unwrap().stdout;
        let lines = String::from_utf8(records).unwrap();
        let of = |line: &str| line.strip_prefix("watcher = ").map(|pid| pid.parse::<i32>().unwrap());
        lines.lines().filter_map(of).collect::<Vec<_>>()
    };
    let before_that = watchers();
    assert!(!before_that.is_empty());
    for watcher in &before_that {
        // That of a session which has just ended may be gone.
        let _ended = rustix::process::kill_process(
            rustix::process::Pid::from_raw(*watcher).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
    until("it has a watcher again", PATIENCE, || watchers().iter().any(|watcher| !before_that.contains(watcher)));
    assert!(host.ok(&["host", "sessions", "--json"]).contains("\"watched\":true"));
    daemon.stop();
    // Leaving needs no service.
    service.kill();
    let left = host.ok(&["host", "leave", "--yes"]);
    assert!(left.contains("the service was not told"), "{left}");
    host.same_as(&before, "as before");
    // What is open is named, and can be ended yet.
    assert!(left.contains("1 session(s) by certificate are open") && left.contains("sessions shows them"), "{left}");
    assert!(host.ok(&["host", "sessions", "--json"]).contains(&request), "{left}");
    let ended = host.ok(&["host", "sessions", "--end", &request]);
    assert!(ended.contains("1 sessions of request"), "{ended}");
    until("it ends", PATIENCE, || host.ok(&["host", "sessions"]).contains("no session by certificate is open"));
    drop(session);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_running_sshd_the_reason_is_said_and_the_host_comes_again_by_its_key() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let mut host = Host::start("");
    host.stop_sshd();
    let before = host.snapshot();
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--reload-command", "true"]);
    for _ in 0..2 {
        let ran = host.hallpass(&words, None);
        let told = said(&ran);
        assert_eq!(ran.status.code(), Some(7), "{told}");
        assert!(told.contains("sshd does not listen at") && told.contains("Connection refused"), "{told}");
        assert!(told.contains("the join token is not needed again") && !told.contains("too many calls"), "{told}");
        host.same_as(&before, "as before");
    }
    // Nothing could be tried, so nothing was made for it.
    let checks = || {
        let found = service.run("omar", &["audit", "search", "kind:check_certificate_to_be_signed", "--json"]);
        serde_json::from_str::<serde_json::Value>(&found).unwrap()["entries"].as_array().unwrap().clone()
    };
    assert!(checks().is_empty());

    let host = host.start_sshd();
    let words: Vec<&str> =
        words.into_iter().filter(|word| *word != "--token-file" && *word != token.to_str().unwrap()).collect();
    let stranger: Vec<&str> = words.iter().map(|word| if *word == "web-1" { "web-7" } else { word }).collect();
    let ran = host.hallpass(&stranger, None);
    assert!(ran.status.code() == Some(2) && said(&ran).contains("needs a join token"), "{}", said(&ran));
    // sshd is told in the usual way now.
    let told = host.ok(&words[..words.len() - 2]);
    assert!(told.contains("web-1 is enrolled"), "{told}");
    assert_eq!(checks().len(), 1, "{:?}", checks());
}
