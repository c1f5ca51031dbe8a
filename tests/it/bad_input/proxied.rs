//! What a proxy would say of the caller and what a caller says of the server: nothing follows it. There is no setting that makes it count.

use std::collections::BTreeSet;

use hallpass::wire;
use reqwest::StatusCode;
use reqwest::header::{HOST, SET_COOKIE};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::api::site::Site;

/// Who is nobody here.
const OTHER: &str = "203.0.113.7";
const ELSEWHERE: &str = "elsewhere.invalid";

/// The headers, in the spellings that some take for each other.
fn claims() -> Vec<(String, String)> {
    let names =
        ["Forwarded", "X-Forwarded-For", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Via"];
    let address = names.map(|name| (name, format!("for={OTHER};host={ELSEWHERE};proto=http")));
    let address = address.map(|(name, all)| (name, if name == "Forwarded" { all } else { OTHER.to_owned() }));
    let names =
        ["X-Forwarded-Host", "X-Forwarded-Server", "X-Original-Host", "X-Host", "X-Original-URL", "X-Rewrite-URL"];
    let server = names.map(|name| (name, ELSEWHERE.to_owned()));
    let proto = [("X-Forwarded-Proto", "http".to_owned()), ("X-Forwarded-Port", "80".to_owned())];
    let all = address.into_iter().chain(server).chain(proto);
    all.flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.replace('-', "_"), value)]).collect()
}

fn with_claims(mut call: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    for (name, value) in claims() {
        call = call.header(name, value);
    }
    call
}

#[tokio::test]
async fn the_address_in_the_log_is_the_sockets_whatever_a_caller_claims() {
    let site = Site::new().await;
    let answer = site.answer("alice").await;
    let call = site.http().post(format!("{}/v1/login/ssh", site.url())).json(&answer);
    assert_eq!(with_claims(call).send().await.unwrap().status(), StatusCode::OK);
    let ada = site.logged_in("ada").await;
    let log: wire::Entries = ada.get("/v1/log/entries").await.unwrap();
    let addresses: BTreeSet<String> = log
        .entries
        .iter()
        .filter_map(|text| serde_json::from_str::<Value>(text).unwrap()["event"]["address"].as_str().map(str::to_owned))
        .chain(
            log.entries
                .iter()
                .filter_map(|text| serde_json::from_str::<Value>(text).unwrap()["address"].as_str().map(str::to_owned)),
        )
        .collect();
    assert_eq!(addresses, BTreeSet::from(["127.0.0.1".to_owned()]), "{:?}", log.entries);
    assert!(!log.entries.iter().any(|text| text.contains(OTHER)));
}

#[tokio::test]
async fn nobody_has_another_rate_by_claiming_another_address() {
    let site = Site::with(|settings| (settings.rate_per_s, settings.rate_burst) = (1, 20)).await;
    let http = site.http();
    let mut refused = 0;
    for n in 0..100 {
        let mut call = http.get(format!("{}/healthz", site.url()));
        for (name, _) in claims() {
            let other = format!("203.0.113.{n}");
            let value = if name == "Forwarded" { format!("for={other}") } else { other };
            call = call.header(name, value);
        }
        refused += usize::from(call.send().await.unwrap().status() == StatusCode::TOO_MANY_REQUESTS);
    }
    // Each would have its own bucket, if it were somebody else.
    assert!(refused > 0);
}

#[tokio::test]
async fn links_redirections_and_cookies_are_of_the_public_url_whatever_a_caller_claims() {
    let site = Site::new().await;
    let http = site.http_as_it_is();
    let token: wire::SignIn = site.logged_in("bob").await.post("/v1/session/browser", &()).await.unwrap();
    let get = |path: &str| http.get(format!("{}{path}", site.url())).header("accept", "text/html");
    let form = |path: &str| {
        let call = http.post(format!("{}{path}", site.url())).header("accept", "text/html");
        let call = call.header("origin", site.url()).header("sec-fetch-site", "same-origin");
        call.header("content-type", "application/x-www-form-urlencoded").body(format!("token={}&to=", &*token.token))
    };
    let post = |path: &str| http.post(format!("{}{path}", site.url()));
    let mut cookies = 0;
    for call in [
        get("/"),
        get("/sign-in"),
        get("/r/7K3F"),
        get("/nowhere"),
        form("/sign-in"),
        form("/sign-in/confirm"),
        get("/v1/openapi.json"),
        get("/v1/session"),
        post("/v1/login/challenge").json(&()),
    ] {
        let answer = with_claims(call.header(HOST, ELSEWHERE)).send().await.unwrap();
        for (name, value) in answer.headers() {
            let value = value.to_str().unwrap();
            assert!(!value.contains(ELSEWHERE) && !value.contains("http://"), "{name}: {value}");
        }
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("; Secure") && !cookie.contains("Domain"), "{cookie}");
            cookies += 1;
        }
        let text = answer.text().await.unwrap();
        assert!(!text.contains(ELSEWHERE) && !text.contains(OTHER), "{text}");
    }
    assert_eq!(cookies, 1, "signing in went through");
    // What is to be signed names the service as it calls itself.
    let call = post("/v1/login/challenge").json(&()).header(HOST, ELSEWHERE);
    let challenge: wire::Challenge = call.send().await.unwrap().json().await.unwrap();
    assert_eq!(challenge.server, site.url());
}

#[tokio::test]
async fn a_form_of_another_origin_is_none_of_ours_whatever_its_host_says() {
    let site = Site::new().await;
    let token: wire::SignIn = site.logged_in("bob").await.post("/v1/session/browser", &()).await.unwrap();
    for (origin, host) in [(format!("https://{ELSEWHERE}"), ELSEWHERE.to_owned()), (site.url(), ELSEWHERE.to_owned())] {
        let call = site.http_as_it_is().post(format!("{}/sign-in/confirm", site.url()));
        let call = call.header("origin", &origin).header("sec-fetch-site", "same-origin").header(HOST, host);
        let call = call.header("content-type", "application/x-www-form-urlencoded");
        let answer = call.body(format!("token={}&to=", &*token.token)).send().await.unwrap();
        // The origin is compared with the public URL, and the host with nothing.
        let wanted = if origin == site.url() { StatusCode::SEE_OTHER } else { StatusCode::FORBIDDEN };
        assert_eq!(answer.status(), wanted, "{origin}");
    }
}

#[tokio::test]
async fn odd_hosts_are_given_back_nowhere() {
    let site = Site::new().await;
    for hosts in [
        format!("host: {ELSEWHERE}"),
        format!("host: 127.0.0.1\r\nhost: {ELSEWHERE}"),
        format!("host: {ELSEWHERE}:99999"),
        format!("host: a@{ELSEWHERE}"),
        format!("host: {ELSEWHERE}/x?y#z"),
        format!("host:\r\nx-host: {ELSEWHERE}"),
        format!("hOsT: \"><script>{ELSEWHERE}"),
    ] {
        for target in
            ["/".to_owned(), "/sign-in".to_owned(), format!("https://{ELSEWHERE}/sign-in"), "/r/7K3F".to_owned()]
        {
            let mut raw = site.raw().await;
            let head = format!("GET {target} HTTP/1.1\r\n{hosts}\r\naccept: text/html\r\nconnection: close\r\n\r\n");
            raw.write_all(head.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            raw.read_to_end(&mut answer).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&answer);
            assert!(!text.contains(ELSEWHERE), "{hosts:?} {target}: {text}");
        }
    }
    site.client(None).text("/healthz").await.unwrap();
}
