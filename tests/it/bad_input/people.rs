//! Other people's credentials, challenges and requests.

use hallpass::identity::challenge::CHALLENGE_LIFETIME;
use hallpass::wire;
use reqwest::header::AUTHORIZATION;
use serde_json::json;

use super::{Attack, is};
use crate::api::site::answer_to;
use crate::support::{login_key, person};

#[tokio::test]
async fn strange_credentials_are_no_login() {
    let attack = Attack::new().await;
    let token = attack.token.clone();
    let session = format!("{}/v1/session", attack.site.url());
    let cut = token.get(..token.len() - 1).unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    for value in [
        String::new(),
        "Bearer".to_owned(),
        bearer(""),
        bearer(cut),
        bearer(&format!("{token}x")),
        bearer(&token.to_uppercase()),
        bearer(&format!(" {token}")),
        bearer(&format!("{token} {token}")),
        format!("Basic {token}"),
        token.clone(),
        bearer(&"x".repeat(8000)),
        bearer("' OR 1=1 --"),
    ] {
        let problem = attack.refused(attack.http.get(&session).header(AUTHORIZATION, &value)).await;
        assert_eq!((problem.status, problem.code.as_str()), (401, "not_logged_in"), "{value:.60}");
        assert!(!format!("{problem:?}").contains(cut), "a token is never given back");
    }
    let twice = attack.http.get(&session).header(AUTHORIZATION, bearer(&token)).header(AUTHORIZATION, bearer(&token));
    assert_eq!(attack.refused(twice).await.code, "not_logged_in");
    // Nor do cookies or queries carry one.
    assert_eq!(attack.refused(attack.http.get(&session).header("cookie", bearer(&token))).await.code, "not_logged_in");
    assert_eq!(attack.refused(attack.http.get(format!("{session}?token={token}"))).await.code, "not_logged_in");
}

#[tokio::test]
async fn expired_replayed_and_foreign_challenges_open_no_session() {
    let attack = Attack::new().await;
    let send = async |answer: &wire::LoginAnswer| {
        attack.body("POST /v1/login/ssh", &serde_json::to_string(answer).unwrap()).await
    };
    let refused = is(401, "login_refused");
    let nobody = attack.site.client(None);

    let used = attack.site.answer("bob").await;
    nobody.post::<_, wire::NewSession>("/v1/login/ssh", &used).await.unwrap();
    assert_eq!(send(&used).await, refused, "replayed");

    let challenge: wire::Challenge = nobody.post("/v1/login/challenge", &()).await.unwrap();
    let other_server = wire::Challenge { server: "https://elsewhere.example".to_owned(), ..challenge.clone() };
    assert_eq!(send(&answer_to(&other_server, "bob", "bob")).await, refused, "signed for another server");
    assert_eq!(send(&answer_to(&challenge, "alice", "bob")).await, refused, "in another's name");
    let renamed = wire::LoginAnswer { person: person("alice").to_string(), ..answer_to(&challenge, "bob", "bob") };
    assert_eq!(send(&renamed).await, refused, "in another's name, afterwards");
    let swapped =
        wire::LoginAnswer { key: login_key("alice").public_key().to_openssh(), ..answer_to(&challenge, "bob", "bob") };
    assert_eq!(send(&swapped).await, refused, "with another's key");
    assert_eq!(send(&answer_to(&challenge, "nobody", "bob")).await, refused, "unknown");
    let made_up = wire::Challenge { challenge: "A".repeat(challenge.challenge.len()), ..challenge.clone() };
    assert_eq!(send(&answer_to(&made_up, "bob", "bob")).await, refused, "a challenge of our own making");
    let cut = wire::Challenge { challenge: challenge.challenge.chars().take(20).collect(), ..challenge.clone() };
    assert_eq!(send(&answer_to(&cut, "bob", "bob")).await, refused, "cut");

    attack.site.world.pass(CHALLENGE_LIFETIME.seconds());
    assert_eq!(send(&answer_to(&challenge, "bob", "bob")).await, refused, "expired");

    for (field, value) in [("person", "Bob"), ("person", "bob\u{202e}"), ("key", "ssh-rsa x"), ("signature", "none")] {
        let mut answer = serde_json::to_value(attack.site.answer("bob").await).unwrap();
        answer[field] = json!(value);
        assert_eq!(attack.body("POST /v1/login/ssh", &answer.to_string()).await, is(422, "invalid"), "{field}");
    }
}

#[tokio::test]
async fn other_peoples_requests_and_own_approvals_are_refused() {
    let alices = Attack::new().await;
    let alice = alices.site.client(Some(&alices.token));
    let asked: wire::Request = alice.post("/v1/requests", &alices.site.ask("web-1", "deploy")).await.unwrap();
    let own = json!({ "digest": asked.digest }).to_string();
    let path = |what: &str| format!("POST /v1/requests/{}/{what}", asked.id);
    assert_eq!(alices.body(&path("approve"), &own).await, is(403, "own_request"));
    assert_eq!(alices.body(&path("deny"), "{\"reason\":\"mine\"}").await, is(403, "own_request"));
    assert_eq!(alices.refused(alices.call(&path("certificate"))).await.code, "undecided");

    // To a stranger it does not exist: the same answer as for an id that is not there.
    let eves = Attack::on(alices.site, "eve").await;
    let mut hidden = eves.refused(eves.call(&format!("GET /v1/requests/{}", asked.id))).await;
    let mut absent = eves.refused(eves.call("GET /v1/requests/0000-0000")).await;
    (hidden.trace, absent.trace) = (None, None);
    assert_eq!(format!("{hidden:?}"), format!("{absent:?}"));
    for (what, body) in
        [("approve", own.as_str()), ("deny", "{\"reason\":\"no\"}"), ("end", "{}"), ("extend", "{\"for\":\"5m\"}")]
    {
        assert_eq!(eves.body(&path(what), body).await, is(404, "not_found"), "{what}");
    }
    for what in ["withdraw", "certificate"] {
        assert_eq!(eves.refused(eves.call(&path(what))).await.code, "not_found", "{what}");
    }
    assert_eq!(eves.get(&format!("/v1/requests/{}/events", asked.id)).await, is(404, "not_found"));
    assert_eq!(eves.get(&format!("/v1/requests/{}/history", asked.id)).await, is(404, "not_found"));

    // An approver decides, but fetches nothing, and decides only what was shown.
    let bobs = Attack::on(eves.site, "bob").await;
    assert_eq!(bobs.refused(bobs.call(&path("certificate"))).await.code, "not_theirs");
    assert_eq!(bobs.refused(bobs.call(&path("withdraw"))).await.code, "not_theirs");
    let stale = json!({ "digest": "0".repeat(64) }).to_string();
    assert_eq!(bobs.body(&path("approve"), &stale).await, is(409, "digest_changed"));
    for (field, value, code) in [
        ("digest", json!("xyz"), "invalid"),
        ("for", json!("2h"), "would_widen"),
        ("for", json!("-1s"), "invalid"),
        ("only", json!(["web-2"]), "would_widen"),
        ("only", json!(["*"]), "invalid"),
        ("without", json!(["everything"]), "invalid"),
        ("without", json!(["pty\u{1b}"]), "invalid"),
        ("comment", json!("\u{202e}"), "invalid"),
        ("comment", json!("x".repeat(1001)), "invalid"),
    ] {
        let mut body = json!({ "digest": asked.digest });
        body[field] = value;
        assert_eq!(bobs.body(&path("approve"), &body.to_string()).await.1, code, "{field}");
    }
    assert_eq!(bobs.body(&path("deny"), "{}").await.0, 422, "a denial has a reason");
}

#[tokio::test]
async fn explaining_in_the_name_of_others_and_fields_of_other_routes_are_refused() {
    let attack = Attack::new().await;
    let about = json!({ "targets": ["web-1"], "person": "bob@example.com" }).to_string();
    assert_eq!(attack.body("POST /v1/explain", &about).await, is(403, "forbidden"));
    let with_key = attack.ask_with("reason", json!("INC-1 look"));
    assert_eq!(attack.body("POST /v1/explain", &with_key).await, is(422, "invalid"));
    for field in ["person", "at"] {
        let ask = attack.ask_with(field, json!("2026-01-05T10:00:00Z"));
        assert_eq!(attack.body("POST /v1/requests", &ask).await, is(422, "invalid"), "{field}");
    }
}
