//! A server that lies: whatever it says, nothing of it reaches a terminal unescaped, and nothing makes the client fall over.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::stage::Stage;

/// Clears the screen, reorders, hides, ends the line and pretends to be another.
const EVIL: &str = "x\u{1b}[2J\u{9b}31m\u{202e}drow\u{200b}\u{e0041}\r\nroot approved\u{7}";

/// Answers every exchange on loopback with `answer(path)`: status and body.
pub(super) fn lying_server(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            let _closed = reader.read_exact(&mut body);
            let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
            let (status, body) = answer(&path);
            let body = body.to_string();
            let kind = if status == 200 { "application/json" } else { "application/problem+json" };
            let length = body.len();
            let _closed = write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    url
}

fn evil_request() -> Value {
    json!({
        "schema": EVIL, "id": "7K3F-9QX2", "state": EVIL, "person": EVIL, "hosts": [EVIL, "web-1"], "account": EVIL, "principals": [EVIL],
        "reason": EVIL, "ticket": EVIL, "for": EVIL, "asked": EVIL, "start": EVIL, "decide_by": EVIL,
        "window": { "not_before": EVIL, "not_after": EVIL }, "permit": [EVIL], "command": EVIL, "sources": [EVIL], "key": EVIL,
        "needs": [{ "need": 1, "from": [EVIL] }], "approved_by": [EVIL], "eligible": [EVIL], "closed": { "by": EVIL, "reason": EVIL },
        "extension": { "for": EVIL, "reason": EVIL, "decide_by": EVIL }, "serial": 1, "rules": [EVIL], "policy": 1, "digest": EVIL,
        "may_decide": true,
    })
}

fn evil_answers(path: &str) -> (u16, Value) {
    let path = path.split('?').next().unwrap_or_default();
    let body = match path {
        "/v1/session" => json!({ "person": EVIL, "groups": [EVIL], "roles": [EVIL], "expires": EVIL, "now": EVIL }),
        "/v1/requests" => json!({ "requests": [evil_request()] }),
        "/v1/certificates" => json!({ "request": evil_request(), "certificate": {
            "certificate": EVIL, "serial": 1, "key_id": EVIL, "principals": [EVIL], "window": { "not_before": EVIL, "not_after": EVIL },
        } }),
        "/v1/explain" => json!({
            "verdict": EVIL, "for": EVIL, "max": EVIL, "needs": [{ "need": 1, "from": [EVIL] }], "refused": [EVIL], "code": EVIL,
            "hosts": [{ "host": EVIL, "rules": [{ "rule": EVIL, "matched": true, "clauses": [EVIL] }] }], "policy": 1,
        }),
        "/v1/policy" => json!({ "version": 1, "by": EVIL, "at": EVIL, "text": EVIL }),
        "/v1/policy/history" => json!({ "versions": [{ "version": 1, "by": EVIL, "at": EVIL }] }),
        "/v1/log/checkpoint" => json!({ "checkpoint": EVIL, "log_key": EVIL, "size": 1 }),
        "/v1/log/entries" => json!({ "entries": [EVIL] }),
        "/v1/log/proof" => json!({ "proof": [EVIL] }),
        "/v1/requests/7K3F-9QX2/history" => json!({ "entries": [EVIL] }),
        "/v1/ca/keys" | "/v1/ca/rotate" => json!({
            "version": 1, "hosts": 1, "by_hand": [EVIL], "spare": [{ "fingerprint": EVIL, "key": EVIL }], "keys": [{
                "purpose": "user", "fingerprint": EVIL, "key": EVIL, "state": "staged", "since": EVIL, "backend": EVIL, "proven": 0,
                "unproven": [{ "host": EVIL, "why": EVIL }], "certificates": 1, "last_end": EVIL,
            }],
        }),
        "/v1/ca/user-keys" | "/v1/ca/host-keys" => json!(EVIL),
        "/v1/hosts" => json!({ "is_cut": true, "hosts": [{ "name": EVIL, "tags": [EVIL], "ways": [
            { "account": EVIL, "verdict": EVIL, "needs": [{ "need": 1, "from": [EVIL] }], "longest": EVIL, "rule": EVIL }
        ] }, { "name": "web-1", "tags": [], "ways": null }] }),
        _ if path.ends_with("/deny") || path.ends_with("/approve") || path.starts_with("/v1/requests/") => {
            evil_request()
        }
        _ => return evil_problem(path),
    };
    (200, body)
}

fn evil_problem(_: &str) -> (u16, Value) {
    let body = json!({
        "type": EVIL, "status": 403, "title": EVIL, "code": EVIL, "why": [EVIL], "next": [EVIL], "retryable": false, "trace": EVIL,
    });
    (403, body)
}

/// A stage whose alice is logged in at a server that we play.
fn stage_at(url: &str) -> Stage {
    let stage = Stage::empty();
    std::fs::create_dir_all(stage.path("alice/config/profiles")).unwrap();
    std::fs::create_dir_all(stage.path("alice/state/default")).unwrap();
    stage.write("alice/config/profiles/default.toml", &format!("server = \"{url}\"\nperson = \"alice\"\n"));
    let session = json!({ "server": url, "person": "alice", "token": "hps_x", "expires": "2126-01-05T10:00:00Z" });
    stage.write("alice/state/default/session", &session.to_string());
    stage
}

fn commands() -> Vec<Vec<&'static str>> {
    let all = [
        "status",
        "hosts",
        "known-hosts",
        "request --like 7K3F --no-wait",
        "end --all",
        "requests",
        "inbox",
        "show 7K3F",
        "explain web-1",
        "approve 7K3F -y",
        "deny 7K3F --reason no",
        "request web-1 --reason because --no-wait",
        "wait 7K3F --timeout 1s",
        "cancel web-1",
        "extend web-1 --for 5m --no-wait",
        "end web-1",
        "policy show",
        "policy history",
        "ca export",
        "ca export --format known-hosts",
        "audit tail",
        "audit search x",
        "audit show 0",
        "audit export --since 1h --out -",
        "logout",
    ];
    all.iter().map(|line| line.split(' ').collect()).collect()
}

#[test]
fn nothing_a_server_says_reaches_the_terminal_unescaped() {
    for answer in [evil_answers, evil_problem] {
        let url = lying_server(answer);
        for json in [false, true] {
            for mut arguments in commands() {
                // `logout` forgets the session, so each command has its own stage.
                let stage = stage_at(&url);
                if json {
                    arguments.push("--json");
                }
                let ran = stage.as_person("alice", &arguments);
                assert!((0..=130).contains(&ran.code) && ran.code != 101, "{arguments:?}: {} {}", ran.code, ran.err);
                for text in [&ran.out, &ran.err] {
                    let bad = text
                        .chars()
                        .find(|c| (c.is_control() && *c != '\n') || "\u{202e}\u{200b}\u{e0041}".contains(*c));
                    assert_eq!(bad, None, "{arguments:?}: {text:?}");
                    // A policy is a file: its lines are the server's own, each escaped.
                    let is_file = arguments.starts_with(&["policy", "show"]);
                    let forged = text.lines().any(|line| line.starts_with("root approved"));
                    assert!(is_file || !forged, "{arguments:?}: {text}");
                }
                if json && ran.code != 0 {
                    let last = ran.err.lines().last().unwrap_or_default();
                    let failure: Value =
                        serde_json::from_str(last).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", ran.err));
                    assert_eq!(failure["exit"], ran.code);
                }
            }
        }
    }
}

/// Grants at once, but another account than was asked for.
fn another_account(_: &str) -> (u16, Value) {
    let mut request = evil_request();
    for (field, value) in [("account", "root"), ("state", "approved"), ("key", "SHA256:x")] {
        request[field] = json!(value);
    }
    request["hosts"] = json!(["web-1"]);
    (200, json!({ "request": request, "certificate": null }))
}

#[test]
fn an_answer_to_something_else_than_was_asked_is_not_acted_upon() {
    let url = lying_server(another_account);
    let asks = ["request web-1 --as deploy --reason because", "ssh web-1 --as deploy --reason because"];
    for (ask, code) in asks.into_iter().zip([1, 255]) {
        let ran = stage_at(&url).as_person("alice", &ask.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains("not to what was asked"), "{}", ran.err);
        assert!(ran.err.contains("the account differs"), "{}", ran.err);
    }
}

#[test]
fn a_session_is_shown_to_no_other_server() {
    let url = lying_server(evil_problem);
    let stage = stage_at("http://127.0.0.1:9");
    // The profile now points elsewhere; the session was given by the old server.
    stage.write("alice/config/profiles/default.toml", &format!("server = \"{url}\"\nperson = \"alice\"\n"));
    let ran = stage.as_person("alice", &["status"]);
    assert_eq!(ran.code, 4, "{}", ran.err);
}
