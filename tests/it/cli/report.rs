//! The evidence for a quarter, from a real service: people ask, decide, log in and give back; an auditor makes a report of an export, and makes it
//! again.

use std::collections::BTreeMap;

use hallpass::wire::host as wire;

use super::REASON;
use super::inventory::{check_in, enrol, post};
use super::stage::Stage;
use crate::hosts::machine::Machine;

/// All of it: the service has the machine's clock.
const EVER: &str = "2000-01-01..2099-12-31";

/// What happened on the host with this certificate.
fn event(id: &str, kind: &str, request: &str, (serial, ca): (u64, &str)) -> wire::SessionEvent {
    wire::SessionEvent {
        id: id.to_owned(),
        kind: kind.to_owned(),
        serial,
        key_id: format!("hallpass/{}/alice@example.com", request.replace('-', "")),
        ca: ca.to_owned(),
        account: "deploy".into(),
        from: "192.0.2.7".into(),
        at: hallpass::time::Clock::now(&hallpass::time::SystemClock).to_string(),
        why: if kind == "ended" { "logged out".into() } else { String::new() },
    }
}

/// A request that is approved, used and given back; its id.
fn used(stage: &Stage) -> String {
    let token = stage.as_person("omar", &["admin", "join", "create", "web-*", "--json"]).field("token");
    let host = enrol(stage, &Machine::new("web-1", &[60]), &token).unwrap();
    post(stage, &host, "/v1/hosts/check-in", &check_in());
    let ask = ["request", "web-1", "--reason", REASON, "--for", "20m", "--no-wait", "--json"];
    let id = stage.as_person("alice", &ask).field("id");
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    let serial = stage.as_person("alice", &["show", &id, "--json"]).json()["serial"].as_u64().unwrap();
    let started = stage.as_person("omar", &["audit", "search", "kind:service_started", "--json"]).json();
    let certificate = (serial, started["entries"][0]["entry"]["ca"].as_str().unwrap());
    let events = [("opened-b-1", "opened"), ("opened-b-2", "opened"), ("ended-b-1", "ended")];
    let events = events.into_iter().map(|(report, kind)| event(report, kind, &id, certificate)).collect();
    post(stage, &host, "/v1/hosts/sessions", &wire::SessionEvents { events });
    assert_eq!(stage.as_person("alice", &["end", &id]).code, 0);
    id
}

/// The files below a folder, with their bytes.
fn files(folder: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn an_auditor_makes_the_evidence_of_a_quarter_and_makes_it_again() {
    let mut stage = Stage::new();
    let id = used(&stage);
    // One that is denied, one that is taken back, one that policy grants alone, one that it refuses, and one that waits.
    let ask = |stage: &Stage| {
        let ran =
            stage.as_person("alice", &["request", "web-2", "--reason", "=1+1 | <b> of it", "--no-wait", "--json"]);
        ran.field("id")
    };
    let denied = ask(&stage);
    assert_eq!(stage.as_person("bob", &["deny", &denied, "--reason", "not now"]).code, 0);
    let cancelled = ask(&stage);
    assert_eq!(stage.as_person("alice", &["cancel", &cancelled]).code, 0);
    let at_once = ["request", "db-1", "--reason", "looking", "--ticket", "INC-9", "--no-wait"];
    assert_eq!(stage.as_person("alice", &at_once).code, 0);
    assert_eq!(stage.as_person("alice", &["request", "db-1", "--as", "root", "--reason", REASON]).code, 5);
    ask(&stage);

    let export = stage.shown("log.jsonl");
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &export]).code, 0);
    let key = stage.as_person("omar", &["audit", "verify", &export, "--json"]).field("key");
    let (first, again) = (stage.shown("evidence"), stage.shown("again"));
    let report = |out: &str| {
        let words = [
            "audit", "report", "--period", EVER, "--sample", "9", "--seed", "six dice", "--key", &key, "--out", out,
            &export,
        ];
        words.map(str::to_owned)
    };
    let types = |stage: &mut Stage, words: &[String], more: &[&str]| {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        stage.types("omar", &words)
    };
    assert_eq!(types(&mut stage, &report(&first), &[]).code, 0);
    assert_eq!(types(&mut stage, &report(&first), &[]).code, 1);
    // Nothing but the export is needed: no service, and no login.
    stage.stop();
    let ran = stage.as_person("eve", &report(&again).each_ref().map(String::as_str));
    assert_eq!((ran.code, ran.err.contains("next: read")), (0, true), "{}", ran.err);
    assert_eq!(files(&stage.path("evidence")), files(&stage.path("again")));

    let made = files(&stage.path("evidence"));
    let text = |name: &str| String::from_utf8(made[name].clone()).unwrap();
    assert_eq!(made.keys().filter(|name| name.starts_with("sample/")).count(), 5);
    let page = text(&format!("sample/{id}.md"));
    assert!(page.contains("| Who asked | alice@example.com |") && page.contains("yes: entries "), "{page}");
    assert!(page.contains("bob@example.com, signed with SHA256:") && page.contains("logged out (entry"), "{page}");
    assert!(page.contains("no end reported"), "{page}");
    let requests = text("requests.csv");
    let outcomes = ["ended", "denied", "cancelled", "valid", "open"];
    for (row, outcome) in requests.lines().skip(1).zip(outcomes) {
        assert!(row.contains(&format!(",{outcome},")), "{outcome}: {row}");
    }
    assert!(requests.contains(",'=1+1 | <b> of it,"), "{requests}");
    assert!(text("exceptions.csv").contains("policy_alone,") && text("exceptions.csv").contains("given_back,"));
    assert!(text("refusals.csv").contains("alice@example.com,db-1,root,"), "{}", text("refusals.csv"));
    let mut sums = std::process::Command::new("sha256sum");
    assert!(sums.args(["-c", "--quiet", "SHA256SUMS"]).current_dir(stage.path("again")).status().unwrap().success());

    stage.types("omar", &["audit", "report", "--period", EVER, "--out", &stage.shown("json"), &export, "--json"]);
    stage.types("omar", &["audit", "report", "--period", "1999", "--out", &stage.shown("none"), &export]);
    let log = std::fs::read_to_string(&export).unwrap();
    stage.write("twisted.jsonl", &log.replacen("not now", "not yet", 1));
    stage.types(
        "omar",
        &["audit", "report", "--period", EVER, "--out", &stage.shown("none"), &stage.shown("twisted.jsonl")],
    );
    assert!(!stage.path("none").exists());
    stage.check("report");
}
