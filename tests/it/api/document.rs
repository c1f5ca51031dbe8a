//! The `OpenAPI` document and the handlers say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::site::Site;

/// The routes that the design promises, and no other.
const ROUTES: &str = "\
DELETE /v1/hosts/joins/{id}
DELETE /v1/session
GET /healthz
GET /metrics
GET /readyz
GET /v1/ca/host-keys
GET /v1/ca/keys
GET /v1/ca/user-keys
GET /v1/ca/user-keys/{ca}
GET /v1/hosts
GET /v1/hosts/inventory
GET /v1/hosts/joins
GET /v1/hosts/self/events
GET /v1/hosts/self/state
GET /v1/hosts/{name}
GET /v1/log/checkpoint
GET /v1/log/entries
GET /v1/log/proof
GET /v1/openapi.json
GET /v1/policy
GET /v1/policy/history
GET /v1/requests
GET /v1/requests/{id}
GET /v1/requests/{id}/events
GET /v1/requests/{id}/history
GET /v1/session
POST /v1/ca/rotate
POST /v1/certificates
POST /v1/explain
POST /v1/hosts/certificates
POST /v1/hosts/challenge
POST /v1/hosts/check-certificate
POST /v1/hosts/check-in
POST /v1/hosts/enrol
POST /v1/hosts/joins
POST /v1/hosts/leave
POST /v1/hosts/session
POST /v1/hosts/sessions
POST /v1/hosts/{name}/retire
POST /v1/hosts/{name}/tags
POST /v1/login/challenge
POST /v1/login/ssh
POST /v1/requests
POST /v1/requests/{id}/approve
POST /v1/requests/{id}/certificate
POST /v1/requests/{id}/deny
POST /v1/requests/{id}/end
POST /v1/requests/{id}/extend
POST /v1/requests/{id}/withdraw
POST /v1/session/browser
PUT /v1/policy
";

pub(super) const METHODS: [&str; 5] = ["delete", "get", "patch", "post", "put"];

/// `METHOD path` of all that the document describes.
pub(super) fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |m| (path, m)));
    operations
        .filter(|(_, method)| METHODS.contains(&method.as_str()))
        .map(|(path, method)| format!("{} {path}", method.to_uppercase()))
        .collect()
}

pub(super) fn document() -> Value {
    serde_json::from_str(&hallpass::http::openapi::document()).unwrap()
}

#[test]
fn the_document_describes_exactly_the_promised_routes() {
    let described: String = documented(&document()).iter().map(|route| format!("{route}\n")).collect();
    assert_eq!(described, ROUTES);
}

/// Codes and statuses of problems as `docs/errors.md` lists them.
pub(crate) fn documented_codes() -> Vec<(&'static str, u16)> {
    let rows = include_str!("../../../docs/errors.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let (code, rest) = row.split_once("` | ")?;
        Some((code, rest.split_once(' ')?.0.parse().ok()?))
    })
    .collect()
}

#[test]
fn the_codes_of_problems_are_the_documented_ones() {
    let codes: Vec<&str> = documented_codes().iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, hallpass::http::CODES);
}

#[tokio::test]
async fn every_documented_route_answers_and_no_other_method_does() {
    let site = Site::new().await;
    let served: Value = site.client(None).get("/v1/openapi.json").await.unwrap();
    assert_eq!(served, document());
    let documented = documented(&served);
    let http = site.http();
    for path in served["paths"].as_object().unwrap().keys() {
        for method in METHODS {
            let method = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let url = format!("{}{}", site.url(), path.replace("{id}", "7K3F-9QX2").replace("{name}", "web-1"));
            let answer = http.request(method.clone(), url).send().await.unwrap();
            let is_served = !matches!(answer.status().as_u16(), 404 | 405);
            assert_eq!(is_served, documented.contains(&format!("{method} {path}")), "{method} {path}");
        }
    }
}

#[test]
fn every_operation_says_what_it_answers_and_whether_it_needs_a_session() {
    let document = document();
    assert_eq!(document["security"], serde_json::json!([{ "session": [] }]));
    let open = ["/healthz", "/metrics", "/readyz", "/v1/ca/user-keys", "/v1/openapi.json", "/v1/login/"];
    let joining = ["/v1/hosts/challenge", "/v1/hosts/enrol", "/v1/hosts/session"];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
            assert!(responses.contains_key("4XX") && responses.contains_key("5XX"), "{method} {path}");
            let is_open = operation["security"] == serde_json::json!([{}]);
            assert_eq!(
                is_open,
                open.iter().any(|start| path.starts_with(start)) || joining.contains(&path.as_str()),
                "{method} {path}"
            );
            assert_eq!(responses.contains_key("401"), !is_open, "{method} {path}");
        }
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}
