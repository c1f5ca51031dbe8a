//! A server that lies: whatever it says, nothing of it reaches a terminal unescaped, and nothing makes the client fall over.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use hallpass::audit::event::{Answer, Event};
use hallpass::client::ANSWER_BYTES_MAX;
use serde_json::{Value, json};

use super::plain_ssh::Typed;
use super::stage::{HALLPASS, Stage};
use crate::audit_log::log;

/// Clears the screen, reorders, hides, ends the line and pretends to be another.
const EVIL: &str = "x\u{1b}[2J\u{9b}31m\u{202e}drow\u{200b}\u{e0041}\r\nroot approved\u{7}";

/// What a client sent.
pub(super) struct Sent {
    head: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// A whole answer that is not cut off: status, one more header (or none) and body.
pub(super) fn whole(status: u16, header: &str, body: &str) -> Vec<u8> {
    let kind = if status == 200 { "application/json" } else { "application/problem+json" };
    let length = body.len();
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{header}connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Answers every exchange on loopback with `answer(path)`: status and body.
pub(super) fn lying_server(answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> String {
    answering(move |sent| {
        let (status, body) = answer(&sent.path);
        whole(status, "", &body.to_string())
    })
}

/// Answers every exchange on loopback with these bytes.
pub(super) fn answering(answer: impl Fn(&Sent) -> Vec<u8> + Send + 'static) -> String {
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
            let _closed = stream.write_all(&answer(&Sent { head, path, body }));
        }
    });
    url
}

pub(super) fn evil_request() -> Value {
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
pub(super) fn stage_at(url: &str) -> Stage {
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

/// The first character that a terminal would obey, or not show.
fn obeyed(text: &str) -> Option<char> {
    text.chars().find(|c| (c.is_control() && *c != '\n') || "\u{202e}\u{200b}\u{e0041}".contains(*c))
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
                    assert_eq!(obeyed(text), None, "{arguments:?}: {text:?}");
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

/// A log as a server signs it that names its own key, with one entry that says what it likes: of codes, the log's own spelling escapes only
/// those below U+0020.
fn evil_log() -> Vec<(u64, Event)> {
    let mut asked = log::asked("7K3F-9QX2", "alice", 600, Answer::Ask);
    if let Event::Asked { reason, ticket, .. } = &mut asked {
        *reason = format!("looking {EVIL}");
        *ticket = Some("\u{9b}2J\u{7f}\u{85}".to_owned());
    }
    vec![(0, asked)]
}

fn evil_log_answers(path: &str) -> (u16, Value) {
    let events = evil_log();
    let body = match path.split('?').next().unwrap_or_default() {
        "/v1/log/checkpoint" => json!({
            "checkpoint": log::checkpoint_at(&events), "log_key": log::log_key().verifier().to_text(), "size": 1,
        }),
        "/v1/log/entries" => {
            let entry = log::entries(events).remove(0).to_bytes();
            json!({ "entries": [String::from_utf8(entry).unwrap()] })
        }
        "/v1/log/proof" => json!({ "proof": [] }),
        _ => return evil_problem(path),
    };
    (200, body)
}

#[test]
fn what_a_log_says_reaches_no_terminal_unescaped_and_a_file_exactly() {
    let stage = stage_at(&lying_server(evil_log_answers));
    let whole = "audit export --out -";
    let escaped = ["audit tail", "audit show 0", "audit search looking", "audit export --out - --format csv"];
    let escaped = escaped
        .iter()
        .chain(&["audit export --out - --format cef", "audit export --out - --since 2020-01-01T00:00:00Z"]);
    for line in escaped.chain(&[whole]) {
        for json in ["", " --json"] {
            let typed = format!("exec {HALLPASS} {line}{json}");
            let (code, seen) = Typed::run(stage.command_of("script", "alice", &["-qefc", &typed, "/dev/null"])).ends();
            // The terminal itself ends lines so, and CSV does.
            let seen = seen.replace("\r\r\n", "\n").replace("\r\n", "\n");
            assert_eq!(obeyed(&seen), None, "{line}: {seen:?}");
            let is_whole = *line == whole;
            assert_eq!((code, seen.contains("looking")), (if is_whole { 2 } else { 0 }, !is_whole), "{line}: {seen}");
            assert!(!is_whole || seen.contains("--out FILE"), "{seen}");
        }
    }
    // What is hashed stays as it is where no terminal obeys it.
    let exact = log::export(evil_log());
    assert!(exact.contains('\u{9b}') && exact.contains('\u{202e}'));
    let words: Vec<&str> = whole.split(' ').collect();
    assert_eq!(stage.as_person("alice", &words).out, exact);
    let file = stage.shown("log.jsonl");
    assert_eq!(stage.as_person("alice", &["audit", "export", "--out", &file]).code, 0);
    assert_eq!(std::fs::read_to_string(file).unwrap(), exact);
}

/// A request that was granted at once, over the key that was sent, with other things in these fields.
fn granted_but(sent: &Sent, but: &[(&str, Value)]) -> Vec<u8> {
    let mut request = evil_request();
    let asked: Value = serde_json::from_slice(&sent.body).unwrap_or_default();
    let key = hallpass::ssh::PublicKey::parse_openssh(asked["key"].as_str().unwrap_or_default());
    let key = key.map(|key| key.fingerprint().to_string()).unwrap_or_default();
    for (field, value) in [
        ("account", json!("deploy")),
        ("state", json!("issued")),
        ("hosts", json!(["web-1"])),
        ("key", json!(key)),
        ("for", json!("30m")),
    ] {
        request[field] = value;
    }
    for (field, value) in but {
        request[field] = value.clone();
    }
    whole(200, "", &json!({ "request": request, "certificate": null }).to_string())
}

#[test]
fn what_is_no_name_becomes_neither_an_argument_of_ssh_nor_a_path() {
    for (field, value, code, why) in [
        ("account", "-oProxyCommand=x", 255, "the account differs"),
        ("account", "deploy -oProxyCommand=x", 255, "the account differs"),
        ("id", "../x", 255, "the server's answer is not hallpass'"),
        ("id", "/tmp/x", 255, "the server's answer is not hallpass'"),
        ("for", "8h", 255, "for how long it is differs"),
    ] {
        let url = answering(move |sent| granted_but(sent, &[(field, json!(value))]));
        let stage = stage_at(&url);
        let ran = stage.as_person("alice", &["ssh", "web-1", "--for", "1h", "--reason", "because"]);
        assert_eq!(ran.code, code, "{field} {value}: {}", ran.err);
        assert!(ran.err.contains(why), "{field} {value}: {}", ran.err);
        let kept: Vec<_> = std::fs::read_dir(stage.path("alice/run/default")).unwrap().flatten().collect();
        let is_waiting = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("new-");
        assert!(kept.iter().all(is_waiting), "{field} {value}: {kept:?}");
        assert!(!stage.path("alice/run/x").exists() && !stage.path("alice/x").exists(), "{field} {value}");
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    // As long as it may be, and longer; with its length said before, and without.
    for (length, is_said, is_taken) in
        [(ANSWER_BYTES_MAX, true, true), (ANSWER_BYTES_MAX + 1, true, false), (ANSWER_BYTES_MAX * 2, false, false)]
    {
        let url = answering(move |_| {
            let who = json!({ "person": "alice", "groups": [], "roles": [], "expires": "2126-01-05T10:00:00Z", "now": "2026-01-05T10:00:00Z" });
            let body = format!("{who}{}", " ".repeat(length - who.to_string().len()));
            if is_said {
                return whole(200, "", &body);
            }
            format!("HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}").into_bytes()
        });
        let ran = stage_at(&url).as_person("alice", &["explain", "web-1"]);
        assert_ne!(ran.code, 0);
        assert_eq!(
            ran.err.contains(&format!("longer than {ANSWER_BYTES_MAX} bytes")),
            !is_taken,
            "{length}: {}",
            ran.err
        );
    }
}

#[test]
fn a_redirect_is_not_followed_and_takes_no_token_along() {
    let (sender, asked) = std::sync::mpsc::channel();
    let elsewhere = answering(move |sent| {
        let _nobody_listens = sender.send(sent.head.clone());
        whole(200, "", "{}")
    });
    for status in [301, 302, 303, 307, 308] {
        let (to, (sender, shown)) = (elsewhere.clone(), std::sync::mpsc::channel());
        let url = answering(move |sent| {
            let _nobody_listens = sender.send(sent.head.clone());
            whole(status, &format!("location: {to}{}\r\n", sent.path), "{}")
        });
        let stage = stage_at(&url);
        for words in [&["status"][..], &["request", "web-1", "--reason", "because", "--no-wait"], &["logout"]] {
            let ran = stage.as_person("alice", words);
            assert_ne!(ran.code, 0, "{status} {words:?}: {}{}", ran.out, ran.err);
        }
        let heads: Vec<String> = shown.try_iter().collect();
        assert!(heads.iter().any(|head| head.contains("hps_x")), "the server itself is shown the session: {heads:?}");
    }
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
}
