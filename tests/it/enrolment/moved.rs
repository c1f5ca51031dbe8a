//! A service that is found elsewhere, or that is another: what its hosts are told to do, and that it helps.

use std::time::Duration;

use super::host::{Host, said, until};
use super::rotation::enrolled;
use super::service::Service;

const PATIENCE: Duration = Duration::from_secs(30);

/// The words of the line to be typed, from `hallpass` on.
fn typed<'a>(told: &'a str, command: &str) -> Vec<&'a str> {
    let line = told.lines().find(|line| line.contains(command)).unwrap_or_else(|| panic!("{command}: {told}"));
    let (_, words) = line.rsplit_once("sudo hallpass ").unwrap();
    words.trim_end_matches(['"', '.']).split(' ').collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_goes_by_another_url_says_so_to_its_hosts_and_they_follow() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = enrolled(&service, &service.join_token().await);
    service.kill();
    let old = service.url.clone();
    service.go_by("localhost");
    service.start_again();
    service.log_in("omar");

    let daemon = host.daemon();
    let named = format!("the service is called {} by now, and is known here as {old}", service.url);
    let line = format!("sudo hallpass host enrol --server {} --pin {}", service.url, service.pin);
    until("the daemon says what it is", PATIENCE, || host.ok(&["host", "status"]).contains(&named));
    assert!(host.ok(&["host", "status"]).contains(&line), "{}", host.ok(&["host", "status"]));
    // By the program that runs it, in its words.
    let daemons = line.replace("hallpass host", "hallpass-host");
    assert!(host.daemon_log().contains(&daemons), "{}", host.daemon_log());
    let check = said(&host.hallpass(&["host", "check"], None));
    assert!(check.contains(&format!("next: {line}\n")), "{check}");
    let enrol = host.hallpass(&["host", "enrol", "--yes"], None);
    let told = said(&enrol);
    assert!(enrol.status.code() == Some(4) && told.contains(&line) && !told.contains("join token"), "{told}");
    daemon.stop();

    let known = || std::fs::read_to_string(host.path("etc/hallpass/host-service.toml")).unwrap();
    let kept = |text: &str| text.lines().filter(|line| line.starts_with("log_key")).collect::<String>();
    let before = kept(&known());
    host.ok(&[typed(&told, "--server"), vec!["--yes"]].concat());
    assert_eq!(kept(&known()), before, "whoever answers there must have the same log key");
    let check = said(&host.hallpass(&["host", "check"], None));
    assert!(check.contains(&format!("ok   service     {}\n", service.url)), "{check}");
    assert_eq!(service.host("web-1").await.state, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_another_log_is_told_to_leave_before_it_spends_a_join_token() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = enrolled(&service, &service.join_token().await);
    service.kill();
    service.begin_anew();

    let check = said(&host.hallpass(&["host", "check"], None));
    assert!(check.contains("sudo hallpass host enrol --token-file FILE, with a new join token"), "{check}");
    let token = service.join_token_once().await;
    let words = ["host", "enrol", "--yes", "--token-file", &token.display().to_string()].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let refused = host.hallpass(&words, None);
    let told = said(&refused);
    assert!(refused.status.code() == Some(7) && told.contains("not signed by this key"), "{told}");
    assert!(told.contains("sudo hallpass host leave, then the same command again"), "{told}");
    // Nor does another URL make it the service that this host goes by: that may be anybody's.
    service.kill();
    service.go_by("localhost");
    service.start_again();
    service.log_in("omar");
    let elsewhere = service.enrol("web-1", &token);
    let refused = host.hallpass(&elsewhere.iter().map(String::as_str).collect::<Vec<_>>(), None);
    let told = said(&refused);
    assert!(refused.status.code() == Some(7) && told.contains("not signed by this key"), "{told}");
    host.ok(&["host", "leave", "--yes"]);
    // The one use of the token is left.
    let words = service.enrol("web-1", &token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(service.host("web-1").await.state, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_host_says_that_it_is_and_comes_back_without_the_tags_that_it_had() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let words = service.enrol("web-1", &service.join_token().await);
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["--tag", "env=prod"]).collect();
    host.ok(&words);
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    service.run("omar", &["admin", "host", "retire", "web-1", "--reason", "INC-1", "--yes"]);
    until("it is told", PATIENCE, || host.ok(&["host", "status"]).contains("web-1: retired at"));
    daemon.stop();
    // After a start it has no token any more.
    let daemon = host.daemon();
    until("it is told again", PATIENCE, || host.ok(&["host", "status", "--json"]).contains("\"retired\""));
    let check = said(&host.hallpass(&["host", "check"], None));
    assert!(check.contains("web-1 is retired") && check.contains("host enrol --token-file FILE"), "{check}");

    let token = service.join_token_once().await;
    let told = host.ok(&["host", "enrol", "--yes", "--token-file", &token.display().to_string()]);
    assert!(told.contains("web-1 is enrolled") && told.contains("--tag env=prod --tag role=web"), "{told}");
    until("the daemon sees it", PATIENCE, || host.ok(&["host", "status"]).contains("web-1: enrolled at"));
    daemon.stop();
}
