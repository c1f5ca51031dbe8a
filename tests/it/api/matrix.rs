//! Who may call what: every route by every kind of caller, as a table that people can review (`tests/access_matrix.txt`).
//!
//! Each cell is one call on a request of alice's that is in the right state for the route, so that a 2xx means "may". A route
//! without a row fails. `HALLPASS_UPDATE=1` writes the table anew; the diff is then to be reviewed.

use std::fmt::Write as _;

use hallpass::client::Client;
use hallpass::ssh::host::HostPurpose;
use hallpass::wire;
use serde_json::{Value, json};

use super::document::{document, documented};
use super::site::Site;
use super::{approve, certificate};
use crate::hosts::machine::{Machine, join};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/access_matrix.txt");

const HEADER: &str = "\
# Every route by every kind of caller: the status. Compared exactly by tests/it/api/matrix.rs.
# asker: asked for the request. stranger: has nothing to do with it. approver: may decide it. The state of
# the request fits the route (pending for approve, issued for end, ...). A dead session: one that has expired.
# host: an enrolled host with its token; what it is asked about is a host or join token of its own.
";

/// The kinds of caller, and who plays them; `None` is without a session.
const CALLERS: [(&str, Option<&str>); 8] = [
    ("nobody", None),
    ("dead", Some("bob")),
    ("asker", Some("alice")),
    ("stranger", Some("eve")),
    ("approver", Some("bob")),
    ("operator", Some("omar")),
    ("auditor", Some("ada")),
    ("host", Some("app-1")),
];

/// The state that a route's request is put into.
fn state_for(route: &str) -> &'static str {
    match route.rsplit('/').next() {
        Some("certificate") => "approved",
        Some("extend" | "end") => "issued",
        _ => "pending",
    }
}

/// What a route is called with: query and body.
async fn input(site: &Site, route: &str, request: &wire::Request) -> (String, Option<Value>) {
    let none = |query: &str| (query.to_owned(), None);
    let body = |body: Value| (String::new(), Some(body));
    match route {
        "POST /v1/login/ssh" => body(serde_json::to_value(site.answer("bob").await).unwrap()),
        "POST /v1/requests" | "POST /v1/certificates" => {
            body(serde_json::to_value(site.ask("web-1", "deploy")).unwrap())
        }
        "POST /v1/explain" => body(json!({ "targets": ["web-1"], "account": "deploy", "reason": "INC-1 look" })),
        "POST /v1/requests/{id}/approve" => body(json!({ "digest": request.digest })),
        "POST /v1/requests/{id}/deny" | "POST /v1/requests/{id}/end" => body(json!({ "reason": "no need any more" })),
        "POST /v1/requests/{id}/extend" => body(json!({ "for": "10m", "reason": "INC-1 not done yet" })),
        "POST /v1/hosts/challenge" => body(json!({ "name": "app-1", "purpose": "session" })),
        "POST /v1/hosts/enrol" => {
            let token = join(site, &["app-*"], 1).await.token;
            body(serde_json::to_value(Machine::new("app-1", &[60]).enrolment(site, &token).await).unwrap())
        }
        "POST /v1/hosts/session" => {
            let machine = Machine::new("app-1", &[60]);
            let challenge = machine.challenge(site, "session").await;
            let proof = machine.proof(&machine.keys[0], &challenge, HostPurpose::Session);
            let (key, signature) = (proof.key, proof.signature);
            body(json!({ "name": "app-1", "challenge": challenge.challenge, "key": key, "signature": signature }))
        }
        "POST /v1/ca/rotate" => body(json!({ "step": "start" })),
        "POST /v1/hosts/joins" => body(json!({ "names": ["other-*"] })),
        "POST /v1/hosts/sessions" => body(json!({ "events": [] })),
        "POST /v1/hosts/certificates" => {
            body(json!({ "keys": [Machine::new("app-1", &[60]).keys[0].public_key().to_openssh()] }))
        }
        "POST /v1/hosts/check-certificate" => body(json!({ "key": site.world.fresh_key().to_openssh() })),
        "POST /v1/hosts/check-in" => body(json!({
            "about": {}, "clock_ms": 0, "guard": true,
            "trust": { "file_sha256": "00".repeat(32), "keys": [], "proven": [] },
        })),
        "POST /v1/hosts/leave" => body(json!({})),
        "POST /v1/hosts/{name}/retire" => body(json!({ "reason": "gone" })),
        "POST /v1/hosts/{name}/tags" => body(json!({ "set": ["a=b"] })),
        "PUT /v1/policy" => body(json!({ "text": crate::support::policy(), "dry_run": true })),
        "GET /v1/log/proof" => none("?index=1&size=2"),
        "GET /v1/requests/{id}"
        | "GET /v1/requests/{id}/events"
        | "GET /v1/requests/{id}/history"
        | "POST /v1/requests/{id}/certificate"
        | "POST /v1/requests/{id}/withdraw" => none(""),
        "DELETE /v1/session"
        | "GET /healthz"
        | "GET /metrics"
        | "GET /readyz"
        | "GET /v1/ca/host-keys"
        | "GET /v1/ca/keys"
        | "GET /v1/ca/user-keys"
        | "GET /v1/ca/user-keys/{ca}"
        | "GET /v1/hosts"
        | "DELETE /v1/hosts/joins/{id}"
        | "GET /v1/hosts/inventory"
        | "GET /v1/hosts/joins"
        | "GET /v1/hosts/self/events"
        | "GET /v1/hosts/self/state"
        | "GET /v1/hosts/{name}"
        | "GET /v1/log/checkpoint"
        | "GET /v1/log/entries"
        | "GET /v1/openapi.json"
        | "GET /v1/policy"
        | "GET /v1/policy/history"
        | "GET /v1/requests"
        | "GET /v1/session"
        | "POST /v1/session/browser"
        | "POST /v1/login/challenge" => none(""),
        other => panic!("the route {other:?} has no row yet: say here how it is called"),
    }
}

async fn request(site: &Site, (alice, bob): (&Client, &Client), state: &str) -> wire::Request {
    let asked: wire::Request = alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap();
    if state != "pending" {
        approve(bob, &asked.id).await.unwrap();
    }
    if state == "issued" {
        certificate(alice, &asked.id).await.unwrap();
    }
    asked
}

#[tokio::test]
async fn every_route_answers_every_kind_of_caller_as_reviewed() {
    let mut site = crate::hosts::machine::site().await;
    site.stop().await;
    site.world.next = vec![std::sync::Arc::new(crate::support::Faulty::new([0xD1; 32]))];
    site.start().await;
    let dead = site.token("bob").await;
    site.world.pass(12 * 3600);
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let pending = request(&site, (&alice, &bob), "pending").await;
    let http = site.http();
    let mut table = HEADER.to_owned();
    write!(table, "{:38}", "").unwrap();
    CALLERS.iter().for_each(|(kind, _)| write!(table, " {kind:>8}").unwrap());
    for route in documented(&document()) {
        write!(table, "\n{route:38}").unwrap();
        let (method, path) = route.split_once(' ').unwrap();
        for (kind, name) in CALLERS {
            // A host that left or was retired is enrolled anew for the next caller.
            let token = join(&site, &["app-*"], 1).await;
            let host = Machine::new("app-1", &[60]).enrol(&site, &token.token).await.unwrap();
            let request = if path.contains("{id}") && !path.contains("/joins/") {
                request(&site, (&alice, &bob), state_for(&route)).await
            } else {
                pending.clone()
            };
            let (query, body) = input(&site, &route, &request).await;
            let url = format!("{}{}{query}", site.url(), path.replace("{name}", "app-1").replace("{ca}", "default"));
            let url = if path.contains("/joins/") {
                let spare = join(&site, &["app-*"], 1).await;
                url.replace("{id}", &spare.join.id)
            } else {
                url.replace("{id}", &request.id)
            };
            let mut call = http.request(method.parse().unwrap(), url);
            if let Some(name) = name {
                call = call.bearer_auth(match kind {
                    "dead" => dead.clone(),
                    "host" => host.token.to_string(),
                    _ => site.token(name).await,
                });
            }
            if let Some(body) = body {
                call = call.json(&body);
            }
            write!(table, " {:>8}", call.send().await.unwrap().status().as_u16()).unwrap();
        }
    }
    table.push('\n');
    if std::env::var_os("HALLPASS_UPDATE").is_some() {
        write(&table);
    }
    assert_eq!(
        table,
        std::fs::read_to_string(FILE).unwrap_or_default(),
        "run with HALLPASS_UPDATE=1 and review the diff"
    );
}

#[expect(clippy::disallowed_methods, reason = "a golden file is rewritten by hand, under review")]
fn write(table: &str) {
    std::fs::write(FILE, table).unwrap();
}
