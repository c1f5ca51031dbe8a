//! Operators and their hosts: join tokens, the inventory, and logins held against what was granted.

use std::time::Duration;

use hallpass::client::{Client, Server};
use hallpass::wire::host as wire;

use super::stage::Stage;
use super::{REASON, asked};
use crate::hosts::machine::Machine;

fn client(stage: &Stage, token: Option<&str>) -> Client {
    let server = Server { url: stage.url(), pin: Some(stage.pin()), proxy: None };
    Client::new(server, token.map(Into::into), Duration::from_secs(20)).unwrap()
}

/// Runs what a host does beside the commands.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Enrols a machine; its host token, or the refusal's code.
pub(super) fn enrol(stage: &Stage, machine: &Machine, token: &str) -> Result<String, String> {
    run(async {
        let stranger = client(stage, None);
        let body = machine.enrolment_by(&stranger, token).await.unwrap();
        match stranger.post::<_, wire::Enrolled>("/v1/hosts/enrol", &body).await {
            Ok(enrolled) => Ok(enrolled.token.to_string()),
            Err(hallpass::client::ClientError::Problem(problem)) => Err(problem.code),
            Err(other) => panic!("{other}"),
        }
    })
}

pub(super) fn post<Q: serde::Serialize + Sync>(stage: &Stage, token: &str, path: &str, body: &Q) {
    run(async { client(stage, Some(token)).post::<_, serde_json::Value>(path, body).await.unwrap() });
}

/// What a host says of itself.
pub(super) fn check_in() -> wire::CheckIn {
    wire::CheckIn {
        about: wire::About { program: "0.1.0".into(), sshd: "9.2p1".into(), os: "Debian 12".into() },
        trust: wire::Trust { file_sha256: "ab".repeat(32), keys: Vec::new(), proven: Vec::new() },
        clock_ms: -250,
        guard: true,
        risky: vec!["permit-user-environment".into()],
        sessions: Vec::new(),
        run: None,
        shows: Vec::new(),
    }
}

/// Two machines check in as app-1, by turns.
fn two_machines(stage: &mut Stage, host: &str, check_in: &wire::CheckIn) {
    for run in ["11", "22", "11"] {
        let check_in = wire::CheckIn { run: Some(run.repeat(32)), ..check_in.clone() };
        post(stage, host, "/v1/hosts/check-in", &check_in);
    }
    stage.types("omar", &["admin", "host", "show", "app-1"]);
    stage.types("omar", &["admin", "host", "show", "app-1", "--json"]);
    stage.types("omar", &["admin", "host", "ls"]);
    stage.types("omar", &["hosts", "app"]);
    stage.types("omar", &["audit", "search", "kind:host_doubled"]);
}

#[test]
fn operators_let_hosts_join_look_at_them_tag_and_retire_them() {
    let mut stage = Stage::new();
    stage.types("omar", &["admin", "host", "ls"]);
    stage.types("omar", &["admin", "join", "ls"]);
    stage.types(
        "omar",
        &["admin", "join", "create", "app-*", "*.example.com", "--tag", "role=web", "--uses", "3", "--for", "2h"],
    );
    let made = stage.types(
        "omar",
        &[
            "admin",
            "join",
            "create",
            "web-*",
            "app-*",
            "--tag",
            "role=web",
            "--may-tag",
            "zone",
            "--uses",
            "2",
            "--json",
        ],
    );
    let (token, id) = (made.field("token"), made.field("id"));
    let file = stage.shown("token");
    stage.types("omar", &["admin", "join", "create", "db-*", "--out", &file]);
    stage.types("omar", &["admin", "join", "create", "db-*", "--out", &file]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(stage.path("token")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for wrong in
        [&["admin", "join", "create"][..], &["admin", "join", "create", "Web"], &["admin", "join", "revoke", "ID"]]
    {
        stage.types("omar", wrong);
    }
    stage.types("alice", &["admin", "join", "create", "app-*"]);
    stage.types("alice", &["admin", "host", "ls"]);

    let mut machine = Machine::new("app-1", &[60]);
    machine.tags = vec!["zone=eu".into()];
    let host = enrol(&stage, &machine, &token).unwrap();
    assert_eq!(enrol(&stage, &Machine::new("app-2", &[60]), &token), Err("host_known".to_owned()));
    stage.types("omar", &["admin", "host", "ls"]);
    let check_in = check_in();
    post(&stage, &host, "/v1/hosts/check-in", &check_in);
    stage.types("omar", &["admin", "host", "ls"]);
    stage.types("omar", &["admin", "host", "ls", "--json"]);
    stage.types("omar", &["admin", "host", "show", "app-1"]);
    stage.types("omar", &["hosts", "app"]);
    stage.types("omar", &["hosts", "app", "--json"]);
    two_machines(&mut stage, &host, &check_in);
    stage.types("alice", &["hosts", "app"]);
    stage.types("alice", &["known-hosts"]);
    stage.types("omar", &["admin", "host", "tag", "app-1", "env=prod", "--remove", "zone"]);
    stage.types("omar", &["admin", "host", "tag", "app-1"]);
    stage.types("omar", &["admin", "host", "show", "app-9"]);
    stage.types("omar", &["admin", "host", "retire", "app-1"]);
    stage.types("omar", &["admin", "host", "retire", "app-1", "--reason", "replaced"]);
    stage.types("omar", &["admin", "host", "retire", "app-1", "--reason", "replaced", "-y"]);
    stage.types("omar", &["admin", "host", "show", "app-1", "--json"]);
    stage.types("alice", &["request", "app-1", "--reason", REASON, "--no-wait"]);
    stage.types("omar", &["admin", "join", "ls"]);
    stage.types("omar", &["admin", "join", "ls", "--json"]);
    stage.types("omar", &["admin", "join", "revoke", &id]);
    stage.types("omar", &["admin", "join", "revoke", &id, "--json"]);
    let spare = stage.as_person("omar", &["admin", "join", "create", "x", "--json"]).field("id");
    stage.types("omar", &["admin", "join", "revoke", &spare, "--json"]);
    stage.types("omar", &["audit", "search", "host:app-1"]);
    stage.check("inventory");
}

#[test]
fn host_ca_keys_are_exported_for_enrolled_hosts_and_both_of_them_in_a_rotation() {
    let mut stage = Stage::empty();
    stage.set_up();
    let (config, key) = (stage.shown("service/config.toml"), stage.shown("service/host_ca_2"));
    let lines = stage.as_person("omar", &["ca", "add", "host", &key, "--config", &config]).out;
    let text = std::fs::read_to_string(&config).unwrap();
    stage.write("service/config.toml", &format!("{text}\n{lines}"));
    stage.start();
    for person in ["alice", "omar"] {
        stage.log_in(person);
    }
    let token = stage.as_person("omar", &["admin", "join", "create", "web-*", "--json"]).field("token");
    enrol(&stage, &Machine::new("web-1", &[60]), &token).unwrap();
    let export = ["ca", "export", "--format", "known-hosts"];
    let public = |name: &str| std::fs::read_to_string(stage.path(&format!("service/{name}.pub"))).unwrap();
    let line = |name: &str| {
        let words = public(name);
        let words: Vec<&str> = words.split_whitespace().take(2).collect();
        format!("@cert-authority web-1 {}\n", words.join(" "))
    };
    let (first, second) = (line("host_ca"), line("host_ca_2"));
    let ran = stage.as_person("alice", &export);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, first.as_str(), ""));
    assert!(!stage.path("alice/config/ssh/default.known_hosts").exists(), "it changes nothing here");
    assert_eq!(stage.as_person("omar", &["ca", "rotate", "host", "start"]).code, 0);
    let ran = stage.types("alice", &export);
    assert_eq!(ran.out, format!("{first}{second}"));
    assert_eq!(stage.as_person("alice", &["known-hosts"]).out, ran.out, "the same lines");
    stage.types("alice", &[&export[..], &["--json"]].concat());
    let openssh = stage.as_person("alice", &["ca", "export", "--format", "openssh"]);
    assert_eq!(openssh.out, stage.as_person("alice", &["ca", "export"]).out);
    // Of a profile that has other hosts nothing is vouched for.
    assert_eq!(
        stage.as_person("alice", &["setup", "--hosts", "db-*", "--ssh-config", &stage.shown("ssh_config")]).code,
        0
    );
    assert_eq!(stage.types("alice", &export).code, 1);
    stage.check("host_ca_export");
}

#[test]
fn logins_are_held_against_what_was_granted() {
    let mut stage = Stage::new();
    let token = stage.as_person("omar", &["admin", "join", "create", "web-*", "--json"]).field("token");
    let host = enrol(&stage, &Machine::new("web-1", &[60]), &token).unwrap();
    stage.types("omar", &["audit", "reconcile"]);
    post(&stage, &host, "/v1/hosts/check-in", &check_in());
    stage.types("omar", &["audit", "reconcile"]);
    let id = asked(&mut stage);
    stage.as_person("bob", &["approve", &id, "-y"]);
    assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    let shown = stage.as_person("alice", &["show", &id, "--json"]).json();
    let serial = shown["serial"].as_u64().unwrap();
    let ca = stage.as_person("omar", &["audit", "search", "kind:service_started", "--json"]).json()["entries"][0]["entry"]["ca"]
        .clone();
    let login = |report: &str, serial: u64, account: &str| wire::SessionEvent {
        id: report.to_owned(),
        kind: "opened".into(),
        serial,
        key_id: format!("hallpass/{}/alice@example.com", id.replace('-', "")),
        ca: ca.as_str().unwrap().to_owned(),
        account: account.to_owned(),
        from: "192.0.2.7".into(),
        at: hallpass::time::Clock::now(&hallpass::time::SystemClock).to_string(),
        why: String::new(),
    };
    let good = wire::SessionEvents { events: vec![login("a", serial, "deploy")] };
    post(&stage, &host, "/v1/hosts/sessions", &good);
    stage.types("omar", &["audit", "reconcile"]);
    stage.types("omar", &["audit", "reconcile", "--json"]);
    let bad = wire::SessionEvents { events: vec![login("b", 9999, "deploy"), login("c", serial, "root")] };
    post(&stage, &host, "/v1/hosts/sessions", &bad);
    stage.types("omar", &["audit", "reconcile"]);
    stage.types("omar", &["audit", "reconcile", "--json"]);
    let export = stage.shown("log.jsonl");
    stage.as_person("omar", &["audit", "export", "--out", &export]);
    let file = ["audit", "reconcile", "--file", &export, "--since", "2099-01-01T00:00:00Z"];
    stage.types("omar", &file);
    stage.types("omar", &["audit", "reconcile", "--file", "/nowhere"]);
    stage.types("omar", &["audit", "reconcile", "--since", "soon"]);
    stage.types("alice", &["audit", "reconcile"]);
    stage.types("omar", &["audit", "search", "kind:session_flagged"]);
    assert_eq!(stage.as_person("omar", &["audit", "verify", &export]).code, 0);
    stage.check("reconcile");
}
