//! What strangers, other kinds of caller and broken hosts send.

use hallpass::client::Client;
use hallpass::ssh::host::HostPurpose;
use hallpass::wire::host as wire;
use hallpass::wire::{self as api};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::machine::{Machine, join, join_for, private, site};
use crate::api::site::{Site, problem};

/// Status and code of the answer to this body.
async fn sent(site: &Site, path: &str, token: Option<&str>, body: Value) -> (u16, String) {
    let mut call = site.http().post(format!("{}{path}", site.url())).json(&body);
    if let Some(token) = token {
        call = call.bearer_auth(token);
    }
    let answer = call.send().await.unwrap();
    let status = answer.status().as_u16();
    let code = answer.json::<Value>().await.unwrap()["code"].as_str().unwrap_or_default().to_owned();
    (status, code)
}

#[tokio::test]
async fn a_join_token_gives_only_the_names_and_tags_that_it_was_made_for() {
    let site = site().await;
    let wish = wire::JoinFor {
        names: vec!["app-*".into()],
        tags: vec!["role=web".into()],
        may_tag: vec!["zone".into()],
        uses: Some(10),
        ..wire::JoinFor::default()
    };
    let token = join_for(&site, wish).await.token;
    let machine = |name: &str, names: &[&str], tags: &[&str]| {
        let mut machine = Machine::new(name, &[60]);
        machine.names = names.iter().map(|name| (*name).to_owned()).collect();
        machine.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        machine
    };
    for (machine, code) in [
        (machine("web-9", &[], &[]), "join_refused"),
        (machine("app-1.evil", &["db-1"], &[]), "join_refused"),
        (machine("app-1", &["app-1"], &[]), "invalid"),
        (machine("app-1", &[], &["role=db"]), "invalid"),
        (machine("app-1", &[], &["zone=a", "zone=b"]), "invalid"),
        (machine("app-1", &[], &["env=prod"]), "join_refused"),
    ] {
        assert_eq!(problem(machine.enrol(&site, &token).await).code, code, "{}", machine.name);
    }
    machine("app-1", &["app-1.eu"], &["zone=a"]).join(&site, &token).await;
    let mut other = Machine::new("app-2", &[61]);
    for taken in ["app-1", "app-1.eu"] {
        other.names = vec![taken.to_owned()];
        assert_eq!(problem(other.enrol(&site, &token).await).code, "name_taken", "{taken}");
    }
    let all = join(&site, &["*"], 1).await.token;
    // A host of the policy's file has its name, too.
    other.names = vec!["db-1".into()];
    assert_eq!(problem(other.enrol(&site, &all).await).code, "name_taken");
    assert_eq!(problem(Machine::new("joins", &[61]).enrol(&site, &all).await).code, "invalid");
    site.world.check().await;
}

#[tokio::test]
async fn a_token_that_is_unknown_spent_revoked_or_over_lets_nobody_in() {
    let site = site().await;
    let machine = Machine::new("app-1", &[60]);
    let omar = site.logged_in("omar").await;
    let revoked = join(&site, &["*"], 1).await;
    omar.delete(&format!("/v1/hosts/joins/{}", revoked.join.id)).await.unwrap();
    assert_eq!(problem(omar.delete(&format!("/v1/hosts/joins/{}", revoked.join.id)).await).code, "conflict");
    assert_eq!(problem(omar.delete("/v1/hosts/joins/7k3f9qx2").await).code, "not_found");
    let session = site.token("omar").await;
    let unknown = format!("hpj_{}", &revoked.token[4..].chars().rev().collect::<String>());
    for token in [&*revoked.token, unknown.as_str(), "hpj_", "", session.as_str(), &"x".repeat(10_000)] {
        let refused = problem(machine.enrol(&site, token).await);
        assert_eq!((refused.status, refused.code.as_str()), (403, "join_refused"), "{token}");
        assert!(!serde_json::to_string(&refused).unwrap().contains(&*revoked.token), "no secret is given back");
    }
    let late = join(&site, &["*"], 1).await.token;
    site.world.pass(3600);
    assert_eq!(problem(machine.enrol(&site, &late).await).code, "join_refused");
    let spent = join(&site, &["*"], 1).await.token;
    machine.join(&site, &spent).await;
    assert_eq!(problem(Machine::new("app-2", &[61]).enrol(&site, &spent).await).code, "join_refused");
    site.world.check().await;
}

#[tokio::test]
async fn one_use_lets_one_of_many_hosts_in_that_come_at_once() {
    let site = site().await;
    let token = join(&site, &["app-*"], 3).await.token;
    let machines: Vec<Machine> = (0..20).map(|n| Machine::new(&format!("app-{n}"), &[100 + n])).collect();
    let joined = futures_of(machines.iter().map(|machine| machine.enrol(&site, &token))).await;
    assert_eq!(joined.iter().filter(|joined| joined.is_ok()).count(), 3);
    site.world.check().await;
}

/// Runs all of these at the same time.
async fn futures_of<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = work.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (work, done) in running.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(result) = work.as_mut().poll(context)
            {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_signature_of_another_key_host_purpose_or_challenge_proves_nothing() {
    let site = site().await;
    let token = join(&site, &["app-*"], 5).await.token;
    let machine = Machine::new("app-1", &[60, 61]);
    let good = machine.enrolment(&site, &token).await;
    let challenge =
        wire::HostChallenge { challenge: good.challenge.clone(), server: site.url(), expires: String::new() };
    let swap = |change: &dyn Fn(&mut wire::Enrol)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    let mallory = private(99);
    let bodies = [
        swap(&|body| body.keys[1].signature = body.keys[0].signature.clone()),
        swap(&|body| body.keys[0].key = mallory.public_key().to_openssh()),
        swap(&|body| body.name = "app-2".into()),
        swap(&|body| body.keys[0] = machine.proof(&machine.keys[0], &challenge, HostPurpose::Session)),
        swap(&|body| body.challenge = body.challenge.replace('A', "B")),
        swap(&|body| body.keys.clear()),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let refused = problem(site.client(None).post::<_, wire::Enrolled>("/v1/hosts/enrol", body).await);
        assert_eq!(refused.code, "login_refused", "body {number}");
    }
    assert_eq!(site.world.service().inventory().hosts().count(), 0);
    let _unused: wire::Enrolled = site.client(None).post("/v1/hosts/enrol", &good).await.unwrap();
    let replayed = site.client(None).post::<_, wire::Enrolled>("/v1/hosts/enrol", &good).await;
    assert_eq!(problem(replayed).code, "login_refused", "a challenge serves once");
    // Another key of the host is not its identity.
    let session = machine.challenge(&site, "session").await;
    let wire::KeyProof { key, signature } = machine.proof(&machine.keys[1], &session, HostPurpose::Session);
    let body = wire::SessionAnswer { name: "app-1".into(), challenge: session.challenge, key, signature };
    assert_eq!(
        problem(site.client(None).post::<_, wire::HostToken>("/v1/hosts/session", &body).await).code,
        "login_refused"
    );
}

#[tokio::test]
async fn a_person_is_no_host_and_a_host_is_no_person() {
    let site = site().await;
    let token = join(&site, &["app-*"], 1).await.token;
    let enrolled = Machine::new("app-1", &[60]).enrol(&site, &token).await.unwrap();
    let omar = site.token("omar").await;
    let calls = [
        ("GET", "/v1/hosts/self/state", json!(null)),
        ("GET", "/v1/hosts/self/events", json!(null)),
        ("POST", "/v1/hosts/leave", json!({})),
        ("POST", "/v1/hosts/sessions", json!({ "events": [] })),
        ("POST", "/v1/hosts/certificates", json!({ "keys": [] })),
    ];
    for (method, path, body) in calls {
        for wrong in [omar.as_str(), &*token, "hph_x"] {
            let call = site.http().request(method.parse().unwrap(), format!("{}{path}", site.url())).bearer_auth(wrong);
            let call = if body.is_null() { call } else { call.json(&body) };
            assert_eq!(call.send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path} with {wrong}");
        }
    }
    let host = site.client(Some(&enrolled.token));
    for path in
        ["/v1/session", "/v1/requests", "/v1/hosts", "/v1/hosts/joins", "/v1/hosts/inventory", "/v1/hosts/app-1"]
    {
        assert_eq!(problem(host.get::<Value>(path).await).code, "not_logged_in", "{path}");
    }
    let stranger = site.logged_in("eve").await;
    for path in ["/v1/hosts/joins", "/v1/hosts/inventory", "/v1/hosts/app-1", "/v1/hosts/nobody"] {
        assert_eq!(problem(stranger.get::<Value>(path).await).code, "forbidden", "{path}");
    }
}

#[tokio::test]
async fn hostile_names_keys_tags_and_sizes_are_refused_and_change_nothing() {
    let site = site().await;
    let token = join(&site, &["*"], 5).await.token;
    let good = serde_json::to_value(Machine::new("app-1", &[60]).enrolment(&site, &token).await).unwrap();
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };
    let key = |text: &str| json!([{ "key": text, "signature": good["keys"][0]["signature"] }]);
    let long = "a".repeat(70_000);
    for (body, wanted) in [
        (with("name", json!("../../etc")), (422, "invalid")),
        (with("name", json!("app-1\n[rule]")), (422, "invalid")),
        (with("name", json!("App-1")), (422, "invalid")),
        (with("name", json!("app-1,root@db-1")), (422, "invalid")),
        (with("name", json!(long)), (422, "invalid")),
        (with("name", json!(7)), (400, "bad_json")),
        (with("tags", json!(["role=*"])), (422, "invalid")),
        (with("tags", json!(["a=b; rm -rf /"])), (422, "invalid")),
        (with("names", json!(["*"])), (422, "invalid")),
        (with("keys", key("ssh-dss AAAAB3NzaC1kc3MAAACBA")), (422, "invalid")),
        (with("keys", key("-----BEGIN OPENSSH PRIVATE KEY-----")), (422, "invalid")),
        (with("keys", key(&long)), (422, "invalid")),
        (with("keys", json!(vec![good["keys"][0].clone(); 9])), (422, "invalid")),
        (with("keys", json!(vec![good["keys"][0].clone(); 2])), (422, "invalid")),
        (with("about", json!({ "os": "\u{1b}[2J" })), (422, "invalid")),
        (with("about", json!({ "os": long })), (422, "invalid")),
        (with("extra", json!(1)), (400, "bad_json")),
        (with("token", json!("x".repeat(10 << 20))), (413, "too_large")),
    ] {
        let shown: String = body.to_string().chars().take(200).collect();
        let (status, code) = sent(&site, "/v1/hosts/enrol", None, body).await;
        assert_eq!((status, code.as_str()), wanted, "{shown}");
    }
    // The challenge was not used up by any of them but the last that was proven, which named a key twice.
    assert_eq!(site.world.service().inventory().hosts().count(), 0);
    let (status, _) = sent(&site, "/v1/hosts/challenge", None, json!({ "name": "app-1", "purpose": "login" })).await;
    assert_eq!(status, 422);
    site.world.check().await;
}

#[tokio::test]
async fn what_operators_wish_for_has_limits() {
    let site = site().await;
    let omar = site.logged_in("omar").await;
    let many: Vec<String> = (0..17).map(|n| format!("web-{n}")).collect();
    for wish in [
        wire::JoinFor::default(),
        wire::JoinFor { names: many, ..wire::JoinFor::default() },
        wire::JoinFor { names: vec!["web-?".into()], ..wire::JoinFor::default() },
        wire::JoinFor { names: vec!["*".into()], uses: Some(0), ..wire::JoinFor::default() },
        wire::JoinFor { names: vec!["*".into()], uses: Some(10_001), ..wire::JoinFor::default() },
        wire::JoinFor { names: vec!["*".into()], lifetime: Some("31d".into()), ..wire::JoinFor::default() },
        wire::JoinFor { names: vec!["*".into()], tags: vec!["a=b".into(), "a=c".into()], ..wire::JoinFor::default() },
        wire::JoinFor {
            names: vec!["*".into()],
            tags: vec!["a=b".into()],
            may_tag: vec!["a".into()],
            ..wire::JoinFor::default()
        },
    ] {
        assert_eq!(problem(omar.post::<_, wire::NewJoin>("/v1/hosts/joins", &wish).await).code, "invalid", "{wish:?}");
    }
    let alice = site.logged_in("alice").await;
    let wish = wire::JoinFor { names: vec!["*".into()], ..wire::JoinFor::default() };
    assert_eq!(problem(alice.post::<_, wire::NewJoin>("/v1/hosts/joins", &wish).await).code, "forbidden");
    let why = api::Why { reason: String::new() };
    assert_eq!(problem(omar.post::<_, wire::HostDetail>("/v1/hosts/web-1/retire", &why).await).code, "not_found");
}

#[tokio::test]
async fn a_host_that_calls_too_often_is_told_when_to_come_back() {
    let site = site().await;
    let token = join(&site, &["app-*"], 2).await.token;
    let busy = Machine::new("app-1", &[60]).join(&site, &token).await;
    let quiet = Machine::new("app-2", &[61]).join(&site, &token).await;
    let mut refused = None;
    for _ in 0..200 {
        if let Err(error) = busy.get::<wire::State>("/v1/hosts/self/state").await {
            refused = Some(problem::<()>(Err(error)));
            break;
        }
    }
    assert_eq!(refused.unwrap().code, "too_many");
    let state: wire::State = quiet.get("/v1/hosts/self/state").await.unwrap();
    assert_eq!(state.name, "app-2");
    let check = |seed: u8| wire::CheckCertificateFor { key: private(seed).public_key().to_openssh(), ca: None };
    let mut made = 0;
    let mut last = String::new();
    for seed in 0..40 {
        match checked(&quiet, &check(seed)).await {
            Ok(_) => made += 1,
            Err(problem) => last = problem.code,
        }
    }
    assert_eq!((made, last.as_str()), (12, "too_many"), "each is two entries of the log");
}

async fn checked(host: &Client, wanted: &wire::CheckCertificateFor) -> Result<wire::CheckCertificate, api::Problem> {
    match host.post("/v1/hosts/check-certificate", wanted).await {
        Ok(made) => Ok(made),
        Err(error) => Err(problem::<()>(Err(error))),
    }
}
