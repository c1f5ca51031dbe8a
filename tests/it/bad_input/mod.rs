//! Bad input over the network: each is refused with a clear 4xx of ours, changes nothing, panics nothing, and is given back escaped.
//!
//! [`Attack`] sends and judges: whatever comes back must be an RFC 9457 problem with a documented code and status and a trace id,
//! free of raw control and direction characters, and the log must be as long as before (a refusal by *policy* is the one refusal that is logged).

mod network;
mod people;
mod proxied;
mod smuggling;
mod tls;

use hallpass::wire;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::api::document::documented_codes;
use crate::api::site::Site;

struct Attack {
    site: Site,
    http: reqwest::Client,
    token: String,
}

impl Attack {
    /// As alice.
    async fn new() -> Self {
        Self::by("alice").await
    }

    async fn by(name: &str) -> Self {
        Self::on(Site::new().await, name).await
    }

    async fn on(site: Site, name: &str) -> Self {
        let (http, token) = (site.http(), site.token(name).await);
        Self { site, http, token }
    }

    fn call(&self, route: &str) -> reqwest::RequestBuilder {
        let (method, path) = route.split_once(' ').unwrap();
        let url = format!("{}{path}", self.site.url());
        self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token)
    }

    /// The problem that this call ends in.
    async fn refused(&self, call: reqwest::RequestBuilder) -> wire::Problem {
        let before = self.log_size().await;
        let answer = call.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json", "{status}");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        let body = answer.text().await.unwrap();
        assert!(body.len() < 16 * 1024, "{} bytes", body.len());
        assert!(!body.chars().any(|c| c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c)), "{body:?}");
        let problem: wire::Problem = serde_json::from_str(&body).unwrap();
        assert_eq!(problem.status, status);
        assert!((400..500).contains(&status), "{problem:?}");
        assert!(documented_codes().contains(&(problem.code.as_str(), status)), "{problem:?}");
        assert_eq!(problem.kind, format!("https://hallpass.dev/problems/{}", problem.code));
        assert_eq!(problem.trace.as_deref().map(str::len), Some(16));
        for text in problem.why.iter().chain([&problem.title]) {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert_eq!(self.log_size().await, before, "{problem:?}");
        problem
    }

    async fn log_size(&self) -> u64 {
        self.site.world.service().checkpoint().await.unwrap().1
    }

    /// Status and code of the problem that a JSON body ends in.
    async fn body(&self, route: &str, body: &str) -> (u16, String) {
        let call = self.call(route).header(CONTENT_TYPE, "application/json").body(body.to_owned());
        let problem = self.refused(call).await;
        (problem.status, problem.code)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let problem = self.refused(self.call(&format!("GET {path}"))).await;
        (problem.status, problem.code)
    }

    /// A good ask with one field replaced.
    fn ask_with(&self, field: &str, value: Value) -> String {
        let mut ask = serde_json::to_value(self.site.ask("web-1", "deploy")).unwrap();
        ask[field] = value;
        ask.to_string()
    }
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn json_of_another_shape_is_refused() {
    let attack = Attack::new().await;
    let ask = attack.ask_with("reason", json!("INC-1 look at the logs"));
    let body = ask.trim_end_matches('}');
    let deep = format!("{{\"targets\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for broken in [
        "",
        "null",
        "[]",
        "\"web-1\"",
        "{",
        "{\"targets\":[\"web-1\"]",
        "{\"targets\":\"web-1\"}",
        "{\"targets\":[1]}",
        "{\"targets\":[\"web-1\"],\"reason\":null}",
        &format!("{body},\"unknown\":1}}"),
        &format!("{body},\"un\\u202eknown\\u001b[31m\":1}}"),
        &format!("{body},\"reason\":\"again\"}}"),
        &format!("{ask}{ask}"),
        &format!("{ask}\u{0}"),
        &format!("\u{feff}{ask}"),
        &format!("{body},\"ticket\":\"\\ud800\"}}"),
        &deep,
    ] {
        assert_eq!(attack.body("POST /v1/requests", broken).await, is(400, "bad_json"), "{broken:.100}");
    }
    for (route, broken) in [
        ("POST /v1/login/ssh", "{\"person\":\"alice@example.com\"}"),
        ("POST /v1/explain", "{\"targets\":[\"web-1\"],\"for\":30}"),
        ("POST /v1/requests/7K3F/approve", "{}"),
        ("POST /v1/requests/7K3F/deny", "{\"reason\":[]}"),
        ("POST /v1/requests/7K3F/extend", "{\"for\":null}"),
    ] {
        assert_eq!(attack.body(route, broken).await, is(400, "bad_json"), "{route} {broken}");
    }
    let attack = Attack::by("omar").await;
    for broken in [
        "{\"text\":\"version = 1\",\"base\":-1}",
        "{\"text\":\"version = 1\",\"base\":4294967296}",
        "{\"text\":\"version = 1\",\"dry_run\":\"no\"}",
    ] {
        assert_eq!(attack.body("PUT /v1/policy", broken).await, is(400, "bad_json"), "{broken}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_refused() {
    let attack = Attack::new().await;
    let ask = attack.ask_with("reason", json!("INC-1 @@@@@@@@@"));
    let mut bytes = ask.into_bytes();
    let place = bytes.iter().position(|b| *b == b'@').unwrap();
    bytes[place] = 0xFF;
    let call = attack.call("POST /v1/requests").header(CONTENT_TYPE, "application/json").body(bytes);
    assert_eq!(attack.refused(call).await.code, "bad_json");
    assert_eq!(attack.get("/v1/requests/%FF%FE").await, is(422, "invalid"));
    let (status, _) = attack.get("/v1/requests?person=%FF%FE").await;
    assert!(status == 400 || status == 422);
}

#[tokio::test]
async fn names_and_texts_outside_their_alphabet_are_refused() {
    let attack = Attack::new().await;
    let long = "a".repeat(300);
    let strange = [
        "",
        " ",
        "Web-1",
        "web_1",
        "-web",
        "web-",
        "web..1",
        "*",
        "web-1 ",
        "web-1\n",
        "web-1\u{0}",
        "wéb",
        "web\u{202e}1",
        "web\u{200b}1",
        "\u{1b}[31mweb",
        "../../etc/passwd",
        "$(id)",
        "'; DROP TABLE request; --",
        "tag:role",
        "tag:=",
        "tag:role=*",
        &long,
    ];
    for host in strange {
        let ask = attack.ask_with("targets", json!([host]));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{host:?}");
        assert_eq!(
            attack.body("POST /v1/explain", &json!({ "targets": [host] }).to_string()).await,
            is(422, "invalid")
        );
    }
    for account in strange
        .into_iter()
        .chain(["deploy@web-1", "deploy,root", "1abc"])
        .filter(|a| *a != "web-" && *a != "web..1" && *a != "web_1")
    {
        let ask = attack.ask_with("account", json!(account));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{account:?}");
    }
    for reason in [
        "a\u{0}b".to_owned(),
        "look\nat".to_owned(),
        "\u{202e}skool".to_owned(),
        "x".repeat(1001),
        "a\u{200b}b".to_owned(),
    ] {
        let ask = attack.ask_with("reason", json!(reason));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{reason:?}");
    }
    for ticket in ["\u{7}".to_owned(), "T".repeat(65), "A\u{2028}B".to_owned()] {
        let ask = attack.ask_with("ticket", json!(ticket));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{ticket:?}");
    }
}

#[tokio::test]
async fn times_durations_and_counts_out_of_range_are_refused() {
    let attack = Attack::new().await;
    for lifetime in ["", "-1h", "30", "1e9s", "99999999999999h", "1h1h", "1m1h", "367d", "forever", "30m\u{0}", "٣٠m"]
    {
        let ask = attack.ask_with("for", json!(lifetime));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{lifetime:?}");
    }
    for start in [
        "",
        "now",
        "2026-01-05",
        "2026-01-05T10:00:00",
        "10000-01-01T00:00:00Z",
        "1969-12-31T23:59:59Z",
        "2026-01-05T10:00:00.5Z",
    ] {
        let ask = attack.ask_with("start", json!(start));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{start:?}");
    }
    for targets in [json!([]), json!(vec!["web-1"; 10_000])] {
        let ask = attack.ask_with("targets", targets);
        assert_eq!(attack.body("POST /v1/requests", &ask).await.0, 422);
    }
}

#[tokio::test]
async fn keys_that_are_not_accepted_are_refused_with_the_reason() {
    let attack = Attack::new().await;
    let good = attack.site.world.fresh_key().to_openssh();
    let modulus = [vec![0], vec![0xff; 128]].concat();
    let numbers = [b"ssh-rsa".as_slice(), &[1, 0, 1], &modulus];
    let wire = numbers.map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes(), part].concat()).concat();
    let rsa_1024 = format!("ssh-rsa {}", data_encoding::BASE64.encode(&wire));
    for key in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-dss AAAAB3NzaC1kc3M=",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7",
        &rsa_1024,
        &format!("restrict {good}"),
        &format!("{good}\n{good}"),
        &format!("{good}\u{0}"),
        &"A".repeat(100_000),
    ] {
        let ask = attack.ask_with("key", json!(key));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{key:.60}");
    }
    let by_size = attack.call("POST /v1/requests").body(attack.ask_with("key", json!(rsa_1024)));
    let refused = attack.refused(by_size.header("content-type", "application/json")).await;
    assert!(refused.title.contains("an RSA key of 1024 bits is not accepted"), "{}", refused.title);
    let mut without = serde_json::to_value(attack.site.ask("web-1", "deploy")).unwrap();
    without.as_object_mut().unwrap().remove("key");
    assert_eq!(attack.body("POST /v1/requests", &without.to_string()).await, is(422, "invalid"));
    // A certificate is no key.
    let alice = attack.site.client(Some(&attack.token));
    let asked: wire::Request = alice.post("/v1/requests", &attack.site.ask("staging-1", "deploy")).await.unwrap();
    let made: wire::Certificate = alice.post(&format!("/v1/requests/{}/certificate", asked.id), &()).await.unwrap();
    let ask = attack.ask_with("key", json!(made.certificate));
    assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"));
}

#[tokio::test]
async fn a_policy_may_be_longer_than_other_bodies() {
    let attack = Attack::by("omar").await;
    let put = |bytes: usize| {
        let text = crate::support::policy() + &"#\n".repeat(bytes / 2);
        attack.call("PUT /v1/policy").json(&json!({ "text": text, "dry_run": true }))
    };
    let taken = put(1 << 20).send().await.unwrap();
    assert_eq!(taken.status(), 200, "{}", taken.text().await.unwrap());
    let refused = attack.refused(put(9 << 20)).await;
    assert_eq!((refused.status, refused.code.as_str()), (422, "bad_policy"));
    let refused = attack.refused(put(17 << 20)).await;
    assert_eq!((refused.status, refused.code.as_str()), (413, "too_large"));
}

#[tokio::test]
async fn who_may_not_apply_a_policy_has_no_long_text_read() {
    let attack = Attack::by("eve").await;
    // Longer than any body that is taken, so an answer about its length would show that it was looked at.
    let text = "#\n".repeat(17 << 19);
    let refused = attack.refused(attack.call("PUT /v1/policy").json(&json!({ "text": text, "dry_run": true }))).await;
    assert_eq!((refused.status, refused.code.as_str()), (403, "forbidden"));
}

#[tokio::test]
async fn bodies_of_another_type_or_too_large_are_refused() {
    let attack = Attack::new().await;
    let ask = attack.ask_with("reason", json!("INC-1 look at the logs"));
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "application/jsonx", ""]
    {
        let call = attack.call("POST /v1/requests").header(CONTENT_TYPE, kind).body(ask.clone());
        let problem = attack.refused(call).await;
        assert_eq!((problem.status, problem.code.as_str()), (415, "content_type"), "{kind}");
    }
    assert_eq!(attack.refused(attack.call("POST /v1/requests").body(ask.clone())).await.code, "content_type");
    let huge = attack.ask_with("reason", json!("x".repeat(10 * 1024 * 1024)));
    assert_eq!(attack.body("POST /v1/requests", &huge).await, is(413, "too_large"));
}

#[tokio::test]
async fn queries_with_unknown_doubled_or_senseless_keys_are_refused() {
    let attack = Attack::by("omar").await;
    for (path, code) in [
        ("/v1/requests?mine=yes", "invalid"),
        ("/v1/requests?mine=true&mine=false", "bad_query"),
        ("/v1/requests?unknown=1", "bad_query"),
        ("/v1/requests?un%E2%80%AEknown=1", "bad_query"),
        ("/v1/requests?state=open", "invalid"),
        ("/v1/requests?state=pending,,", "invalid"),
        ("/v1/requests?host=*", "invalid"),
        ("/v1/requests?person=%00", "invalid"),
        ("/v1/requests?since=yesterday", "invalid"),
        ("/v1/requests?limit=0", "invalid"),
        ("/v1/requests?limit=1001", "invalid"),
        ("/v1/requests?limit=99999999999999999999999", "invalid"),
        ("/v1/requests?limit=-1", "invalid"),
        ("/v1/session?everywhere=true", "bad_query"),
        ("/v1/policy?version=0x1", "invalid"),
        ("/v1/policy?version=4294967296", "invalid"),
        ("/v1/log/entries?limit=1001", "invalid"),
        ("/v1/log/entries?from=-1", "invalid"),
        ("/v1/log/proof", "invalid"),
        ("/v1/log/proof?index=1", "invalid"),
        ("/v1/log/proof?index=1&old=1&size=2", "invalid"),
        ("/v1/log/proof?index=2&size=2", "invalid"),
        ("/v1/log/proof?index=0&size=18446744073709551615", "invalid"),
        ("/v1/log/proof?old=3&size=2", "invalid"),
        ("/v1/hosts?x=1", "bad_query"),
        ("/healthz?x=1", "bad_query"),
    ] {
        assert_eq!(attack.get(path).await.1, code, "{path}");
    }
}

#[tokio::test]
async fn ids_that_are_none_and_paths_that_are_not_ours_are_refused() {
    let attack = Attack::new().await;
    for id in ["7K3F-9QX2X", "U", "%20", "7K3F%2F..", "%00", "..%2Fhosts", "%E2%80%AE", &"7".repeat(300)] {
        assert_eq!(attack.get(&format!("/v1/requests/{id}")).await, is(422, "invalid"), "{id}");
    }
    for id in ["7K3F-9QX2", "7", "o"] {
        assert_eq!(attack.get(&format!("/v1/requests/{id}")).await, is(404, "not_found"), "{id}");
    }
    for path in [
        "/index.html",
        "/r",
        "/r/",
        "/v1",
        "/v1/",
        "/v2/requests",
        "/v1/requests/",
        "/v1/requests/7K3F/",
        "/V1/hosts",
        "//v1/hosts",
        "/%2e%2e/etc",
    ] {
        assert_eq!(attack.get(path).await, is(404, "not_found"), "{path}");
    }
    for route in [
        "PUT /v1/requests",
        "PATCH /v1/policy",
        "DELETE /v1/hosts",
        "OPTIONS /v1/session",
        "TRACE /healthz",
        "BREW /healthz",
    ] {
        let problem = attack.refused(attack.call(route)).await;
        assert_eq!((problem.status, problem.code.as_str()), (405, "method_not_allowed"), "{route}");
    }
}
