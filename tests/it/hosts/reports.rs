//! Check-ins, and logins that fit what was granted or do not.

use hallpass::client::Client;
use hallpass::ssh::cert::Certificate;
use hallpass::wire::host as wire;
use hallpass::wire::{self as api};
use sha2::{Digest as _, Sha256};

use super::machine::{Machine, join_for, private, site};
use crate::api::site::{Site, problem};

const ENDLESS: &str = "2030-01-01T00:00:00Z";

async fn web(site: &Site, name: &str, seed: u8) -> Client {
    let wish = wire::JoinFor { names: vec!["app-*".into()], tags: vec!["role=web".into()], ..wire::JoinFor::default() };
    Machine::new(name, &[seed]).join(site, &join_for(site, wish).await.token).await
}

/// The kinds of the log's entries from `from` on.
async fn kinds(site: &Site, from: u64) -> Vec<String> {
    let ada = site.logged_in("ada").await;
    let entries: api::Entries = ada.get(&format!("/v1/log/entries?from={from}&limit=1000")).await.unwrap();
    let kind =
        |entry: &String| serde_json::from_str::<serde_json::Value>(entry).unwrap()["kind"].as_str().unwrap().to_owned();
    entries.entries.iter().map(kind).filter(|kind| kind != "logged_in").collect()
}

async fn size(site: &Site) -> u64 {
    site.logged_in("ada").await.get::<api::Checkpoint>("/v1/log/checkpoint").await.unwrap().size
}

/// The fingerprints of the CA keys in the bundle.
async fn bundle_keys(host: &Client) -> Vec<String> {
    let state: wire::State = host.get("/v1/hosts/self/state").await.unwrap();
    let keys = state.bundle.text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    keys.map(|line| hallpass::ssh::PublicKey::parse_openssh(line).unwrap().fingerprint().to_string()).collect()
}

fn check_in(keys: &[String], proven: &[String]) -> wire::CheckIn {
    wire::CheckIn {
        about: wire::About { program: "0.1.0".into(), sshd: "OpenSSH_9.2p1".into(), os: "Debian 12".into() },
        trust: wire::Trust {
            file_sha256: data_encoding::HEXLOWER.encode(&Sha256::digest(b"bundle")),
            keys: keys.to_vec(),
            proven: proven.to_vec(),
        },
        clock_ms: -120,
        guard: true,
        risky: vec!["permit-user-environment".into()],
        sessions: Vec::new(),
        run: None,
        shows: Vec::new(),
    }
}

#[tokio::test]
async fn a_check_in_is_written_down_only_when_something_changed() {
    let site = site().await;
    let host = web(&site, "app-1", 60).await;
    let keys = bundle_keys(&host).await;
    let from = size(&site).await;
    let ask = async |check_in: &wire::CheckIn| host.post::<_, wire::Nothing>("/v1/hosts/check-in", check_in).await;
    ask(&check_in(&keys, &[])).await.unwrap();
    ask(&wire::CheckIn { clock_ms: 700, ..check_in(&keys, &[]) }).await.unwrap();
    assert_eq!(kinds(&site, from).await, ["check_in_changed"]);
    ask(&check_in(&keys, &keys)).await.unwrap();
    ask(&wire::CheckIn { clock_ms: 60_000, ..check_in(&keys, &keys) }).await.unwrap();
    assert_eq!(kinds(&site, from).await, ["check_in_changed"; 3]);

    let ada = site.logged_in("ada").await;
    let shown = async || ada.get::<wire::HostDetail>("/v1/hosts/app-1").await.unwrap().seen.unwrap();
    let seen = shown().await;
    assert_eq!((seen.trust.as_str(), seen.clock_ms, seen.is_stale, seen.guard), ("proven", 60_000, false, true));
    ask(&check_in(&[], &[])).await.unwrap();
    assert_eq!(shown().await.trust, "behind");
    site.world.pass(16 * 60);
    let hosts: api::Hosts = ada.get("/v1/hosts?text=app-1").await.unwrap();
    assert!(hosts.hosts[0].seen.as_ref().unwrap().is_stale);
    let alice = site.logged_in("alice").await;
    let hosts: api::Hosts = alice.get("/v1/hosts?text=app-1").await.unwrap();
    assert!(hosts.hosts[0].seen.is_none(), "only operators and auditors see it");

    for wrong in [
        check_in(&[], &keys),
        check_in(&["SHA256:x".to_owned()], &[]),
        wire::CheckIn { risky: vec!["a\nb".into()], ..check_in(&keys, &[]) },
        wire::CheckIn { risky: (0..65).map(|n| n.to_string()).collect(), ..check_in(&keys, &[]) },
        wire::CheckIn { sessions: vec![open_session(); 1025], ..check_in(&keys, &[]) },
    ] {
        assert_eq!(problem(ask(&wrong).await).code, "invalid");
    }
    site.world.check().await;
}

#[tokio::test]
async fn a_check_in_that_says_the_same_is_written_once_in_five_minutes() {
    let site = site().await;
    let host = web(&site, "app-1", 60).await;
    let keys = bundle_keys(&host).await;
    // How many changes the store was given by this, and when the host was seen.
    let told = async |check_in: &wire::CheckIn| {
        let changes = async || site.world.service().figures().await.store.members;
        let before = changes().await;
        host.post::<_, wire::Nothing>("/v1/hosts/check-in", check_in).await.unwrap();
        changes().await - before
    };
    let seen = async || {
        let ada = site.logged_in("ada").await;
        ada.get::<wire::HostDetail>("/v1/hosts/app-1").await.unwrap().seen.unwrap()
    };
    let same = check_in(&keys, &keys);
    assert_eq!(told(&same).await, 2, "the entry and the row");
    for _ in 0..2 {
        site.world.pass(149);
        assert_eq!(told(&wire::CheckIn { clock_ms: 300, ..same.clone() }).await, 0);
        let now = seen().await;
        assert_eq!((now.at, now.clock_ms), (site.world.now().to_string(), 300), "and known all the same");
    }
    site.world.pass(2);
    assert_eq!(told(&same).await, 1);
    site.world.pass(10);
    assert_eq!(told(&same).await, 0);
    // What nobody would act on is no entry, but a row at once; a clock that goes wrong is both.
    let open = wire::CheckIn { sessions: vec![open_session()], ..same.clone() };
    assert_eq!([told(&open).await, told(&open).await, told(&same).await], [1, 0, 1]);
    assert_eq!(told(&wire::CheckIn { clock_ms: 60_000, ..same.clone() }).await, 2);
    assert_eq!(told(&wire::CheckIn { clock_ms: 61_000, ..same.clone() }).await, 0);
    assert_eq!(told(&same).await, 2);
    site.world.check().await;
}

fn open_session() -> wire::OpenSession {
    wire::OpenSession {
        request: "7K3F-9QX2".into(),
        serial: 9,
        account: "deploy".into(),
        since: ENDLESS.into(),
        until: ENDLESS.into(),
    }
}

/// A certificate for this host, and the report of a login with it now.
async fn login(site: &Site, host: &str) -> (api::Request, wire::SessionEvent) {
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let asked: api::Request = alice.post("/v1/requests", &site.ask(host, "deploy")).await.unwrap();
    let body = api::Approve { digest: asked.digest.clone(), ..api::Approve::default() };
    let _unused: api::Request = bob.post(&format!("/v1/requests/{}/approve", asked.id), &body).await.unwrap();
    let certificate: api::Certificate =
        alice.post(&format!("/v1/requests/{}/certificate", asked.id), &()).await.unwrap();
    let event = wire::SessionEvent {
        id: format!("login-{}", certificate.serial),
        kind: "opened".into(),
        serial: certificate.serial,
        key_id: certificate.key_id,
        ca: Certificate::parse_openssh(&certificate.certificate).unwrap().ca_fingerprint().to_string(),
        account: "deploy".into(),
        from: "192.0.2.1".into(),
        at: site.world.now().to_string(),
        why: String::new(),
    };
    (asked, event)
}

async fn send(host: &Client, events: Vec<wire::SessionEvent>) -> Vec<String> {
    let body = wire::SessionEvents { events };
    host.post::<_, wire::Taken>("/v1/hosts/sessions", &body).await.unwrap().taken
}

#[tokio::test]
async fn a_login_that_fits_is_tied_to_its_request_once_and_its_end_too() {
    let site = site().await;
    let host = web(&site, "app-1", 60).await;
    let (request, opened) = login(&site, "app-1").await;
    let from = size(&site).await;
    let ended =
        wire::SessionEvent { id: "end".into(), kind: "ended".into(), why: "window over".into(), ..opened.clone() };
    let refused = wire::SessionEvent { id: "no".into(), kind: "refused".into(), why: "guard".into(), ..opened.clone() };
    let all = vec![opened.clone(), ended, refused];
    assert_eq!(send(&host, all.clone()).await.len(), 3);
    assert_eq!(send(&host, all).await.len(), 3, "again: taken, and written once");
    assert_eq!(kinds(&site, from).await, ["session_opened", "session_ended", "session_refused"]);
    let alice = site.logged_in("alice").await;
    let history: api::Entries = alice.get(&format!("/v1/requests/{}/history", request.id)).await.unwrap();
    assert_eq!(history.entries.iter().filter(|entry| entry.contains("\"session_")).count(), 3);
    // The request goes on as if nothing had been said.
    let end = api::Why { reason: "done".into() };
    let ended: api::Request = alice.post(&format!("/v1/requests/{}/end", request.id), &end).await.unwrap();
    assert_eq!(ended.state, "ended");
    site.world.check().await;
}

#[tokio::test]
async fn a_login_that_does_not_fit_is_flagged_with_what_does_not() {
    let site = site().await;
    let (host, other) = (web(&site, "app-1", 60).await, web(&site, "app-2", 61).await);
    let (_, good) = login(&site, "app-1").await;
    let from = size(&site).await;
    let wrong = |id: &str, change: &dyn Fn(&mut wire::SessionEvent)| {
        let mut event = wire::SessionEvent { id: id.to_owned(), ..good.clone() };
        change(&mut event);
        event
    };
    let events = vec![
        wrong("serial", &|event| event.serial = 4711),
        wrong("zero", &|event| event.serial = 0),
        wrong("key-id", &|event| event.key_id = "root\n\u{1b}[2J".repeat(60)),
        wrong("ca", &|event| event.ca = private(98).public_key().fingerprint().to_string()),
        wrong("account", &|event| event.account = "root".into()),
        wrong("early", &|event| event.at = "2020-01-01T00:00:00Z".into()),
        wrong("late", &|event| event.at = ENDLESS.into()),
    ];
    assert_eq!(send(&host, events).await.len(), 7);
    send(&other, vec![wrong("elsewhere", &|_| ())]).await;
    let ada = site.logged_in("ada").await;
    let entries: api::Entries = ada.get(&format!("/v1/log/entries?from={from}&limit=1000")).await.unwrap();
    let flags: Vec<(String, String)> = entries
        .entries
        .iter()
        .map(|entry| serde_json::from_str::<serde_json::Value>(entry).unwrap())
        .filter(|entry| entry["kind"] == "session_flagged")
        .map(|entry| (entry["report"].as_str().unwrap().to_owned(), entry["flag"].as_str().unwrap().to_owned()))
        .collect();
    let wanted = [
        ("serial", "without_request"),
        ("zero", "without_request"),
        ("key-id", "without_request"),
        ("ca", "without_request"),
        ("account", "outside_grant"),
        ("early", "outside_grant"),
        ("late", "after_end"),
        ("elsewhere", "outside_grant"),
    ];
    assert_eq!(flags, wanted.map(|(report, flag)| (report.to_owned(), flag.to_owned())));
    site.world.check().await;
}

#[tokio::test]
async fn a_login_after_an_early_end_is_flagged_once_the_host_had_time_to_learn_of_it() {
    let site = site().await;
    let host = web(&site, "app-1", 60).await;
    let (request, login) = login(&site, "app-1").await;
    let end = api::Why { reason: "done".into() };
    let alice = site.logged_in("alice").await;
    let _unused: api::Request = alice.post(&format!("/v1/requests/{}/end", request.id), &end).await.unwrap();
    let from = size(&site).await;
    for (id, seconds) in [("just", 10), ("late", 1)] {
        site.world.pass(seconds);
        send(&host, vec![wire::SessionEvent { id: id.into(), at: site.world.now().to_string(), ..login.clone() }])
            .await;
    }
    assert_eq!(kinds(&site, from).await, ["session_opened", "session_opened", "session_flagged"]);
    site.world.check().await;
}

#[tokio::test]
async fn a_hosts_login_to_itself_and_bad_reports_leave_no_entry() {
    let site = site().await;
    let host = web(&site, "app-1", 60).await;
    let (_, good) = login(&site, "app-1").await;
    let from = size(&site).await;
    let itself =
        wire::SessionEvent { key_id: "hallpass/check/app-1".into(), account: "hallpass-check".into(), ..good.clone() };
    assert_eq!(send(&host, vec![itself]).await.len(), 1);
    for wrong in [
        wire::SessionEvent { id: "a b".into(), ..good.clone() },
        wire::SessionEvent { kind: "stolen".into(), ..good.clone() },
        wire::SessionEvent { ca: "x".into(), ..good.clone() },
        wire::SessionEvent { at: "yesterday".into(), ..good.clone() },
    ] {
        let body = wire::SessionEvents { events: vec![wrong] };
        assert_eq!(problem(host.post::<_, wire::Taken>("/v1/hosts/sessions", &body).await).code, "invalid");
    }
    let body = wire::SessionEvents { events: vec![good; 257] };
    assert_eq!(problem(host.post::<_, wire::Taken>("/v1/hosts/sessions", &body).await).code, "invalid");
    assert_eq!(kinds(&site, from).await, Vec::<String>::new());
}

#[tokio::test]
async fn two_machines_with_one_host_key_are_noticed_and_written_down_once() {
    let site = site().await;
    let host = web(&site, "app-1", 60).await;
    let keys = bundle_keys(&host).await;
    let run = |text: &str| Some(data_encoding::HEXLOWER.encode(&Sha256::digest(text)));
    let told = async |text: &str| {
        let check_in = wire::CheckIn { run: run(text), ..check_in(&keys, &[]) };
        host.post::<_, wire::Nothing>("/v1/hosts/check-in", &check_in).await.unwrap();
        site.world.pass(60);
    };
    let doubled = async || {
        let ada = site.logged_in("ada").await;
        ada.get::<wire::HostDetail>("/v1/hosts/app-1").await.unwrap().seen.unwrap().doubled
    };
    told("original").await;
    let from = size(&site).await;
    for text in ["started again", "started again", "and again"] {
        told(text).await;
    }
    assert_eq!((doubled().await, kinds(&site, from).await.len()), (None, 0));
    for text in ["copy", "and again", "copy", "and again"] {
        told(text).await;
    }
    assert!(doubled().await.is_some());
    assert_eq!(kinds(&site, from).await, ["host_doubled"]);
    let bad = wire::CheckIn { run: Some("4711".into()), ..check_in(&keys, &[]) };
    let refused = host.post::<_, wire::Nothing>("/v1/hosts/check-in", &bad).await;
    assert_eq!(problem(refused).code, "invalid");
    // A day without the copy.
    site.world.pass(24 * 3600 + 1);
    assert_eq!(doubled().await, None);
}
