//! The API from outside: real TLS on loopback, the real router and service, our own client.
//!
//! [`matrix`] holds who may call what; [`document`] compares the `OpenAPI` document with the handlers.

pub(crate) mod document;
mod matrix;
mod proxy;
pub(crate) mod site;

use hallpass::audit::checkpoint::LogVerifier;
use hallpass::audit::entry::Entry;
use hallpass::audit::tree::{Hash, verify_inclusion};
use hallpass::client::{Client, ClientError, EventStream, Server, fetch_pin};
use hallpass::http;
use hallpass::ssh::cert::Certificate;
use hallpass::wire;
use site::{Site, problem};
use std::time::Duration;

use crate::support::{login_key, sign_approval};

async fn next(client: &Client, stream: &mut EventStream) -> Option<String> {
    client.next_event(stream).await.unwrap().map(|request| request.state)
}

async fn pending(site: &Site, alice: &Client) -> wire::Request {
    alice.post("/v1/requests", &site.ask("web-1", "deploy")).await.unwrap()
}

pub(crate) async fn approve(by: &Client, id: &str) -> Result<wire::Request, ClientError> {
    let shown: wire::Request = by.get(&format!("/v1/requests/{id}")).await?;
    let body = wire::Approve { digest: shown.digest, ..wire::Approve::default() };
    by.post(&format!("/v1/requests/{id}/approve"), &body).await
}

/// The body that approves what is shown, with the signature of one person's key.
async fn signed_approval(site: &Site, by: &Client, id: &str, holder: &str) -> wire::Approve {
    let shown: wire::Request = by.get(&format!("/v1/requests/{id}")).await.unwrap();
    let bob = site.proven("bob").await;
    let prefix = hallpass::name::RequestPrefix::parse(id).unwrap();
    let request = site.world.service().view(&bob, &prefix).await.unwrap().request;
    let statement = request.statement(bob.person(), "fine");
    let (key, signed, sshsig) = sign_approval(&login_key(holder), &site.url(), &statement, site.world.now());
    let (key, signed, signature) = (key.to_openssh(), signed.to_string(), sshsig.to_armoured());
    wire::Approve {
        digest: shown.digest,
        comment: "fine".to_owned(),
        signature: Some(wire::ApprovalSignature { key, signed, signature }),
        ..wire::Approve::default()
    }
}

pub(crate) async fn certificate(by: &Client, id: &str) -> Result<wire::Certificate, ClientError> {
    by.post(&format!("/v1/requests/{id}/certificate"), &()).await
}

#[tokio::test]
async fn a_request_goes_from_question_to_certificate() {
    let site = Site::new().await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let me: wire::WhoAmI = alice.get("/v1/session").await.unwrap();
    assert_eq!((me.person.as_str(), me.groups, me.roles), ("alice@example.com", vec!["backend".to_owned()], vec![]));
    assert_eq!(me.now, "2026-01-05T10:00:00Z");
    assert_eq!(me.expires, "2026-01-05T22:00:00Z");

    let verdict: wire::Verdict =
        alice.post("/v1/explain", &wire::Ask { key: None, ..site.ask("web-1", "deploy") }).await.unwrap();
    assert_eq!((verdict.verdict.as_str(), verdict.lifetime.as_deref()), ("ask", Some("30m")));
    assert_eq!(verdict.needs[0].from, ["group:sre"]);

    let asked = pending(&site, &alice).await;
    assert_eq!(asked.state, "pending");
    assert_eq!(asked.decide_by.as_deref(), Some("2026-01-05T10:30:00Z"));
    assert_eq!(asked.eligible, ["bob@example.com", "carol@example.com"]);
    assert!(!asked.may_decide);
    assert_eq!(problem(certificate(&alice, &asked.id).await).code, "undecided");

    let inbox: wire::Requests = bob.get("/v1/requests?inbox=true").await.unwrap();
    assert_eq!(inbox.requests.len(), 1);
    assert!(inbox.requests[0].may_decide);
    site.world.pass(60);
    let approved = approve(&bob, &asked.id).await.unwrap();
    assert_eq!((approved.state.as_str(), approved.approved_by), ("approved", vec!["bob@example.com".to_owned()]));
    let window = approved.window.unwrap();
    assert_eq!(window.not_before, "2026-01-05T10:00:30Z");
    assert_eq!(window.not_after, "2026-01-05T10:31:00Z");

    let first = certificate(&alice, &asked.id).await.unwrap();
    let again = certificate(&alice, &asked.id).await.unwrap();
    assert_eq!(first.certificate, again.certificate);
    assert_eq!((first.window.not_before, first.window.not_after), (window.not_before, window.not_after));
    let parsed = Certificate::parse_openssh(&first.certificate).unwrap();
    assert_eq!(parsed.tbs().fields().serial.number(), first.serial);
    assert_eq!(first.principals, ["deploy@web-1"]);
    let bundle = site.client(None).text("/v1/ca/user-keys").await.unwrap();
    assert!(bundle.contains(&parsed.tbs().ca().to_openssh()));

    let shown: wire::Request = bob.get(&format!("/v1/requests/{}", asked.id)).await.unwrap();
    assert_eq!((shown.state.as_str(), shown.serial), ("issued", Some(first.serial)));
    let history: wire::Entries = bob.get(&format!("/v1/requests/{}/history", asked.id)).await.unwrap();
    let kinds: Vec<&str> =
        history.entries.iter().map(|entry| Entry::parse(entry.as_bytes()).unwrap().event.kind()).collect();
    assert_eq!(kinds, ["asked", "approved", "granted", "certificate_to_be_signed", "certificate_signed"]);

    alice.delete("/v1/session").await.unwrap();
    assert_eq!(problem(alice.get::<wire::WhoAmI>("/v1/session").await).code, "not_logged_in");
}

#[tokio::test]
async fn a_signed_approval_goes_from_the_approvers_key_into_the_log() {
    let site = Site::new().await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let policy = crate::support::policy();
    let strict = policy.replace("[defaults]\n", "[defaults]\nsigned_approvals = \"required\"\n");
    site.world.service().apply_policy(&site.proven("omar").await, strict, None, false).await.unwrap();
    let asked = pending(&site, &alice).await;
    assert!(asked.needs[0].signed);
    let path = format!("/v1/requests/{}/approve", asked.id);
    let post = async |body: &wire::Approve| bob.post::<_, wire::Request>(&path, body).await;

    let unsigned = problem(approve(&bob, &asked.id).await);
    assert_eq!((unsigned.code.as_str(), unsigned.status), ("signature_needed", 403));
    let good = signed_approval(&site, &bob, &asked.id, "bob").await;
    let with = |change: &dyn Fn(&mut wire::ApprovalSignature)| {
        let mut body = good.clone();
        change(body.signature.as_mut().unwrap());
        body
    };
    for (field, change) in [
        ("signature.key", &(|s: &mut wire::ApprovalSignature| s.key.clear()) as &dyn Fn(&mut wire::ApprovalSignature)),
        ("signature.signed", &|s| s.signed = "now".to_owned()),
        ("signature.signature", &|s| s.signature = "x".repeat(20_000)),
    ] {
        let refused = problem(post(&with(change)).await);
        assert_eq!((refused.code.as_str(), refused.status), ("invalid", 422));
        assert!(refused.title.starts_with(field), "{}", refused.title);
    }
    let of_carol = signed_approval(&site, &bob, &asked.id, "carol").await;
    let otherwise = wire::Approve { comment: "fine!".to_owned(), ..good.clone() };
    let shorter = wire::Approve { lifetime: Some("10m".to_owned()), ..good.clone() };
    let later = with(&|s| s.signed = "2026-01-05T10:00:01Z".to_owned());
    for body in [of_carol, otherwise, shorter, later] {
        let refused = problem(post(&body).await);
        assert_eq!((refused.code.as_str(), refused.status), ("signature_refused", 403), "{body:?}");
    }
    let another = pending(&site, &alice).await;
    let path = format!("/v1/requests/{}/approve", another.id);
    let replayed = wire::Approve { digest: another.digest, ..good.clone() };
    let replayed = problem(bob.post::<_, wire::Request>(&path, &replayed).await);
    assert_eq!(replayed.code, "signature_refused");

    assert_eq!(post(&good).await.unwrap().state, "approved");
    certificate(&alice, &asked.id).await.unwrap();
    let history: wire::Entries = bob.get(&format!("/v1/requests/{}/history", asked.id)).await.unwrap();
    let sshsig = good.signature.unwrap().signature;
    assert!(history.entries[1].contains(&serde_json::to_string(&sshsig).unwrap()), "{}", history.entries[1]);
}

#[tokio::test]
async fn anyone_logged_in_can_prove_that_an_entry_is_in_the_log() {
    let site = Site::new().await;
    let (alice, ada) = (site.logged_in("alice").await, site.logged_in("ada").await);
    let asked: wire::Request = alice.post("/v1/requests", &site.ask("staging-1", "deploy")).await.unwrap();
    let made = certificate(&alice, &asked.id).await.unwrap();

    let head: wire::Checkpoint = alice.get("/v1/log/checkpoint").await.unwrap();
    let checkpoint = LogVerifier::parse(&head.log_key).unwrap().check(&head.checkpoint).unwrap();
    assert_eq!(checkpoint.size, head.size);
    let path = format!("/v1/log/entries?from={}&limit=1", made.serial);
    let entry: wire::Entries = ada.get(&path).await.unwrap();
    let path = format!("/v1/log/proof?index={}&size={}", made.serial, head.size);
    let proof: wire::Proof = alice.get(&path).await.unwrap();
    let hash = |hex: &String| Hash::try_from(data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap();
    let proof: Vec<Hash> = proof.proof.iter().map(hash).collect();
    let leaf = Entry::leaf_hash(entry.entries[0].as_bytes());
    assert!(verify_inclusion(&leaf, made.serial, head.size, &proof, &checkpoint.root));
    assert_eq!(problem(alice.get::<wire::Entries>("/v1/log/entries").await).code, "forbidden");
}

#[tokio::test]
async fn waiting_survives_a_restarted_server() {
    let mut site = Site::new().await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let asked = pending(&site, &alice).await;
    let mut stream = alice.events(&asked.id).await.unwrap();
    assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("pending"));

    site.stop().await;
    assert_eq!(next(&alice, &mut stream).await, None);
    assert!(matches!(alice.events(&asked.id).await, Err(ClientError::Unreachable { .. })));
    site.start().await;

    let mut stream = alice.events(&asked.id).await.unwrap();
    assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("pending"));
    approve(&bob, &asked.id).await.unwrap();
    assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("approved"));
    certificate(&alice, &asked.id).await.unwrap();
    assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("issued"));
    site.world.pass(3600);
    site.world.service().tick().await.unwrap();
    assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("expired"));
    assert_eq!(next(&alice, &mut stream).await, None, "nothing can happen to it any more");
}

#[tokio::test]
async fn a_stream_tells_nothing_after_its_session_ended() {
    let site = Site::new().await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let other = site.logged_in("alice").await;
    let asked = pending(&site, &alice).await;
    let mut stream = alice.events(&asked.id).await.unwrap();
    assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("pending"));
    other.delete("/v1/session?everywhere=true").await.unwrap();
    approve(&bob, &asked.id).await.unwrap();
    assert_eq!(next(&alice, &mut stream).await, None);
}

#[tokio::test]
async fn a_stream_tells_nothing_to_whom_policy_no_longer_lets_see_the_request() {
    let site = Site::new().await;
    let (alice, bob, carol) =
        (site.logged_in("alice").await, site.logged_in("bob").await, site.logged_in("carol").await);
    let omar = site.logged_in("omar").await;
    let asked = pending(&site, &alice).await;
    let mut stream = carol.events(&asked.id).await.unwrap();
    assert_eq!(next(&carol, &mut stream).await.as_deref(), Some("pending"));
    // Carol leaves sre for dba.
    let text = crate::support::policy();
    let carols = text.find("carol@example.com").unwrap();
    let (before, after) = text.split_at(carols);
    let text = format!("{before}{}", after.replacen("\"sre\"", "\"dba\"", 1)).replace("need = 2", "need = 1");
    let put = wire::PutPolicy { text, base: Some(1), dry_run: false };
    let applied: wire::PolicyApplied = omar.put("/v1/policy", &put).await.unwrap();
    assert_eq!(applied.version, 2);
    approve(&bob, &asked.id).await.unwrap();
    assert_eq!(next(&carol, &mut stream).await, None);
}

#[tokio::test]
async fn logging_out_ends_this_session_or_all_of_them() {
    let site = Site::new().await;
    let (here, there, bob) =
        (site.logged_in("alice").await, site.logged_in("alice").await, site.logged_in("bob").await);
    here.delete("/v1/session").await.unwrap();
    assert_eq!(problem(here.get::<wire::WhoAmI>("/v1/session").await).code, "not_logged_in");
    there.get::<wire::WhoAmI>("/v1/session").await.unwrap();
    let anew = site.logged_in("alice").await;
    there.delete("/v1/session?everywhere=true").await.unwrap();
    for ended in [&there, &anew] {
        assert_eq!(problem(ended.get::<wire::WhoAmI>("/v1/session").await).code, "not_logged_in");
    }
    bob.get::<wire::WhoAmI>("/v1/session").await.unwrap();
}

#[tokio::test]
async fn a_session_ends_after_its_twelve_hours() {
    let site = Site::new().await;
    let alice = site.logged_in("alice").await;
    site.world.pass(12 * 3600 - 1);
    alice.get::<wire::WhoAmI>("/v1/session").await.unwrap();
    site.world.pass(1);
    assert_eq!(problem(alice.get::<wire::WhoAmI>("/v1/session").await).code, "not_logged_in");
}

#[tokio::test]
async fn a_policy_is_shown_compared_and_applied() {
    let site = Site::new().await;
    let omar = site.logged_in("omar").await;
    let now: wire::PolicyVersion = omar.get("/v1/policy").await.unwrap();
    let text = now.text.unwrap().replace("max = \"1h\"", "max = \"2h\"");
    let put = |dry_run| wire::PutPolicy { text: text.clone(), base: Some(now.version), dry_run };
    let would: wire::PolicyApplied = omar.put("/v1/policy", &put(true)).await.unwrap();
    assert!(would.dry_run && !would.changes.is_empty() && would.tests == 1);
    let did: wire::PolicyApplied = omar.put("/v1/policy", &put(false)).await.unwrap();
    assert_eq!((did.version, did.changes), (2, would.changes));
    let history: wire::PolicyVersions = omar.get("/v1/policy/history").await.unwrap();
    assert_eq!(history.versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(history.versions[0].by, "person:omar@example.com");
    let first: wire::PolicyVersion = omar.get("/v1/policy?version=1").await.unwrap();
    assert_eq!(first.text, Some(crate::support::policy()));
    let stale = omar.put::<_, wire::PolicyApplied>("/v1/policy", &put(false)).await;
    assert_eq!(problem(stale).code, "conflict");
    let broken = wire::PutPolicy { text: "version = 1\nnonsense = 1\n".to_owned(), base: None, dry_run: false };
    let problem = problem(omar.put::<_, wire::PolicyApplied>("/v1/policy", &broken).await);
    assert_eq!(problem.code, "bad_policy");
    assert!(problem.why.iter().any(|line| line.contains(":2:1: ") && line.contains("nonsense")), "{:?}", problem.why);
}

#[tokio::test]
async fn another_server_than_the_pinned_one_is_not_talked_to() {
    let site = Site::new().await;
    let timeout = Duration::from_secs(20);
    assert_eq!(fetch_pin(&site.url(), None, timeout).await.unwrap(), site.pin);
    let wrong = Server { url: site.url(), pin: Some("0".repeat(64)), proxy: None };
    let outcome = Client::new(wrong, Some("hps_secret".into()), timeout).unwrap().text("/healthz").await;
    match outcome {
        Err(ClientError::Pin { expected, got }) => assert_eq!((expected, got), ("0".repeat(64), site.pin.clone())),
        other => panic!("{other:?}"),
    }
    let unpinned = Server { url: site.url(), pin: None, proxy: None };
    // Without any trusted roots on the machine the set-up itself fails, which is as good.
    if let Ok(client) = Client::new(unpinned, None, timeout) {
        assert!(matches!(client.text("/healthz").await, Err(ClientError::Unreachable { .. })));
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_after_a_reload_and_a_broken_one_is_not() {
    let site = Site::new().await;
    let timeout = Duration::from_secs(20);
    let fetch = || async { fetch_pin(&site.url(), None, timeout).await.unwrap() };
    assert_eq!(fetch().await, site.pin);
    replace(&site.settings.tls.certificate, b"broken");
    site.reload().await;
    assert_eq!(fetch().await, site.pin);
    for file in [&site.settings.tls.certificate, &site.settings.tls.key] {
        std::fs::remove_file(file).unwrap();
    }
    let new = http::ensure_certificate(&site.settings.tls, &["127.0.0.1".to_owned()]).unwrap();
    assert_ne!(new, site.pin);
    // A message is taken between two connections; the second send waits until the first was taken.
    site.reload().await;
    site.reload().await;
    assert_eq!(fetch().await, new);
}

#[expect(clippy::disallowed_methods, reason = "a test breaks files the way operators do")]
fn replace(path: &std::path::Path, text: &[u8]) {
    std::fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_stopping_server_lets_waiting_people_go_at_once() {
    let mut site = Site::new().await;
    let alice = site.logged_in("alice").await;
    let asked = pending(&site, &alice).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = alice.events(&asked.id).await.unwrap();
        assert_eq!(next(&alice, &mut stream).await.as_deref(), Some("pending"));
        streams.push(stream);
    }
    site.stop().await;
    for mut stream in streams {
        assert_eq!(next(&alice, &mut stream).await, None);
    }
}

#[tokio::test]
async fn whoever_calls_too_often_is_told_when_to_come_back() {
    let site = Site::with(|settings| (settings.rate_per_s, settings.rate_burst) = (1, 20)).await;
    let alice = site.logged_in("alice").await;
    let mut refused = None;
    for _ in 0..100 {
        refused = alice.get::<wire::WhoAmI>("/v1/session").await.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = problem(refused.map_or(Ok(()), Err));
    assert_eq!((refused.status, refused.code.as_str(), refused.retryable), (429, "too_many", true));
    // Whoever has no session is counted by address.
    let nobody = site.client(Some("hps_guess"));
    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(problem(nobody.get::<wire::WhoAmI>("/v1/session").await).code);
    }
    assert_eq!((codes[0].as_str(), codes[29].as_str()), ("not_logged_in", "too_many"));
}

#[tokio::test]
async fn figures_name_nobody_and_count_routes_not_paths() {
    let site = Site::new().await;
    let alice = site.logged_in("alice").await;
    let asked = pending(&site, &alice).await;
    alice.get::<wire::Request>(&format!("/v1/requests/{}", asked.id)).await.unwrap();
    problem(alice.get::<wire::Request>("/v1/made-up-path").await);
    let text = site.client(None).text("/metrics").await.unwrap();
    let line = "hallpass_http_exchanges_total{route=\"/v1/requests/{id}\",method=\"GET\",status=\"200\"} 1";
    assert!(text.contains(line), "{text}");
    for secret in ["alice", &asked.id, "made-up", "web-1"] {
        assert!(!text.contains(secret), "{secret}");
    }
}
