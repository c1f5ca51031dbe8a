//! The story of a host over the API: it joins, is asked for, is told what it must know, and leaves.

use std::time::Duration;

use hallpass::client::Client;
use hallpass::ssh::cert::{Certificate, Purpose, Whose};
use hallpass::ssh::host::HostPurpose;
use hallpass::ssh::private::SessionKey;
use hallpass::wire::host as wire;
use hallpass::wire::{self as api};
use reqwest::StatusCode;
use reqwest::header::{ETAG, IF_NONE_MATCH};

use super::machine::{Machine, join, join_for, private, site};
use crate::api::site::{Site, problem};
use crate::support::prefix;

/// A host of role web, as which policy lets alice in once bob agrees.
async fn web(site: &Site, name: &str, seed: u8) -> (Machine, Client, String) {
    let wish = wire::JoinFor { names: vec!["app-*".into()], tags: vec!["role=web".into()], ..wire::JoinFor::default() };
    let machine = Machine::new(name, &[seed]);
    let enrolled = machine.enrol(site, &join_for(site, wish).await.token).await.unwrap();
    (machine, site.client(Some(&enrolled.token)), enrolled.token.to_string())
}

/// Alice's request for this host, certified.
async fn certified(site: &Site, host: &str) -> (api::Request, api::Certificate) {
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let asked: api::Request = alice.post("/v1/requests", &site.ask(host, "deploy")).await.unwrap();
    let body = api::Approve { digest: asked.digest.clone(), ..api::Approve::default() };
    let approved: api::Request = bob.post(&format!("/v1/requests/{}/approve", asked.id), &body).await.unwrap();
    (approved, alice.post(&format!("/v1/requests/{}/certificate", asked.id), &()).await.unwrap())
}

async fn state(host: &Client) -> wire::State {
    host.get("/v1/hosts/self/state").await.unwrap()
}

/// The next event of a stream, within the five seconds that a host may take to learn of an end.
async fn next_state(stream: &mut reqwest::Response) -> wire::State {
    let mut text = String::new();
    let read = async {
        while !text.contains("\n\n") {
            let piece = stream.chunk().await.unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
    serde_json::from_str(text.trim().strip_prefix("data: ").unwrap()).unwrap()
}

#[tokio::test]
async fn a_host_joins_is_asked_for_learns_of_an_early_end_and_leaves() {
    let site = site().await;
    let (_, host, token) = web(&site, "app-1", 60).await;
    let mut stream =
        site.http().get(format!("{}/v1/hosts/self/events", site.url())).bearer_auth(&token).send().await.unwrap();
    let first = next_state(&mut stream).await;
    assert_eq!((first.name.as_str(), first.tags.as_slice()), ("app-1", ["role=web".to_owned()].as_slice()));
    assert_eq!((first.grants.len(), first.is_retired), (0, false));
    let ca = SessionKey::generate([0xCA; 32]).public_key().to_openssh();
    assert!(first.bundle.text.contains(&ca));

    let alice = site.logged_in("alice").await;
    let hosts: api::Hosts = alice.get("/v1/hosts?ways=true&text=app-").await.unwrap();
    assert!(hosts.hosts[0].is_enrolled && hosts.hosts[0].seen.is_none());
    assert_eq!(hosts.hosts[0].ways.as_ref().unwrap().len(), 2);

    let (request, certificate) = certified(&site, "app-1").await;
    assert_eq!(request.principals, ["deploy@app-1"]);
    let granted = loop {
        let state = next_state(&mut stream).await;
        if !state.grants.is_empty() {
            break state;
        }
    };
    let grant = &granted.grants[0];
    assert_eq!((grant.serial, grant.account.as_str(), grant.is_ended), (certificate.serial, "deploy", false));
    assert_eq!((&grant.request, &grant.until), (&request.id, &certificate.window.not_after));

    let end = api::Why { reason: "done".to_owned() };
    let _unused: api::Request = alice.post(&format!("/v1/requests/{}/end", request.id), &end).await.unwrap();
    assert!(next_state(&mut stream).await.grants[0].is_ended);
    site.world.pass(1800);
    assert_eq!(state(&host).await.grants.len(), 0, "a window that is over is nothing to know");

    let _: wire::Nothing = host.post("/v1/hosts/leave", &wire::Nothing {}).await.unwrap();
    assert!(next_state(&mut stream).await.is_retired);
    assert_eq!(
        problem(alice.post::<_, api::Request>("/v1/requests", &site.ask("app-1", "deploy")).await).code,
        "unknown_host"
    );
    assert_eq!(problem(host.post::<_, wire::Nothing>("/v1/hosts/leave", &wire::Nothing {}).await).code, "not_found");
    site.world.check().await;
}

#[tokio::test]
async fn the_end_of_an_extended_request_ends_each_of_its_certificates() {
    let site = site().await;
    let (_, host, _) = web(&site, "app-1", 60).await;
    let (request, first) = certified(&site, "app-1").await;
    let (alice, bob) = (site.logged_in("alice").await, site.logged_in("bob").await);
    let extend = api::Extend { lifetime: "20m".to_owned(), reason: "INC-1 not done yet".to_owned() };
    let waiting: api::Request = alice.post(&format!("/v1/requests/{}/extend", request.id), &extend).await.unwrap();
    let body = api::Approve { digest: waiting.digest, ..api::Approve::default() };
    let _unused: api::Request = bob.post(&format!("/v1/requests/{}/approve", request.id), &body).await.unwrap();
    let told = async || -> Vec<(u64, bool)> {
        state(&host).await.grants.iter().map(|grant| (grant.serial, grant.is_ended)).collect()
    };
    assert_eq!(told().await, [(first.serial, false)], "an extension without a certificate opens nothing");
    let second: api::Certificate = alice.post(&format!("/v1/requests/{}/certificate", request.id), &()).await.unwrap();
    assert!(second.serial > first.serial && second.window.not_after > first.window.not_after);
    assert_eq!(told().await, [(first.serial, false), (second.serial, false)]);
    // The first one is still in its window, and somebody may have kept it.
    let end = api::Why { reason: "done".to_owned() };
    let _unused: api::Request = alice.post(&format!("/v1/requests/{}/end", request.id), &end).await.unwrap();
    assert_eq!(told().await, [(first.serial, true), (second.serial, true)]);
    site.world.check().await;
}

#[tokio::test]
async fn an_early_end_is_told_however_many_grants_without_a_certificate_come_after_it() {
    let site = site().await;
    let wish =
        wire::JoinFor { names: vec!["app-1".into()], tags: vec!["role=staging".into()], ..wire::JoinFor::default() };
    let host = Machine::new("app-1", &[60]).join(&site, &join_for(&site, wish).await.token).await;
    let (world, alice) = (&site.world, site.world.proven("alice").await);
    let over = async |is_fetched: bool| {
        let asked = world.service().ask(&alice, world.ask(&["app-1"], "deploy")).await.unwrap();
        let id = asked.request.id();
        if is_fetched {
            world.fetch(&alice, id).await.unwrap();
        }
        world.service().end(&alice, &prefix(id), String::new()).await.unwrap();
        id.to_string()
    };
    let ended = over(true).await;
    for _ in 0..1_100 {
        over(false).await;
    }
    let grants = state(&host).await.grants;
    let told: Vec<(&str, bool)> = grants.iter().map(|grant| (grant.request.as_str(), grant.is_ended)).collect();
    assert_eq!(told, [(ended.as_str(), true)]);
}

#[tokio::test]
async fn polling_says_nothing_until_something_changes() {
    let site = site().await;
    let (_, host, token) = web(&site, "app-1", 60).await;
    let http = site.http();
    let url = format!("{}/v1/hosts/self/state", site.url());
    let ask = |query: &str, etag: &str| {
        http.get(format!("{url}{query}")).bearer_auth(&token).header(IF_NONE_MATCH, etag.to_owned())
    };
    let first = http.get(&url).bearer_auth(&token).send().await.unwrap();
    let etag = first.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", first.json::<wire::State>().await.unwrap().etag));
    let same = ask("", &etag).send().await.unwrap();
    assert_eq!((same.status(), same.headers()[ETAG].to_str().unwrap()), (StatusCode::NOT_MODIFIED, etag.as_str()));
    assert_eq!(same.text().await.unwrap(), "");

    let waiting = tokio::spawn(ask("?wait=20", &etag).send());
    web(&site, "app-2", 61).await;
    assert!(!waiting.is_finished(), "another host is no news for this one");
    certified(&site, "app-1").await;
    let woken = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(woken.status(), StatusCode::OK);
    assert_ne!(woken.headers()[ETAG].to_str().unwrap(), etag);
    assert_eq!(problem(host.get::<wire::State>("/v1/hosts/self/state?wait=61").await).code, "invalid");
}

#[tokio::test]
async fn a_host_that_comes_again_is_the_same_and_spends_no_second_use() {
    let site = site().await;
    let token = join(&site, &["app-*"], 1).await.token;
    let mut machine = Machine::new("app-1", &[60, 61]);
    let first = machine.enrol(&site, &token).await.unwrap();
    let size = site.world.service().inventory().entries();
    let again = machine.enrol(&site, &token).await.unwrap();
    assert_eq!(first.state, again.state);
    assert_ne!(*first.token, *again.token);
    assert_eq!(site.world.service().inventory().entries(), size, "nothing changed, so nothing is written");
    // The same host may say something else of itself with the same token.
    machine.names = vec!["app-1.example.com".into()];
    assert_eq!(machine.enrol(&site, &token).await.unwrap().state.names, ["app-1.example.com"]);
    let omar = site.logged_in("omar").await;
    let joins: wire::Joins = omar.get("/v1/hosts/joins").await.unwrap();
    assert_eq!(
        (joins.joins[0].state.as_str(), joins.joins[0].hosts.as_slice()),
        ("spent", ["app-1".to_owned()].as_slice())
    );
    let other = Machine::new("app-2", &[62]).enrol(&site, &token).await;
    assert_eq!(problem(other).code, "join_refused");
    site.world.check().await;
}

#[tokio::test]
async fn a_host_with_another_key_and_a_clone_are_refused_and_noted_until_the_host_is_retired() {
    let site = site().await;
    let token = join(&site, &["app-*"], 10).await.token;
    let first = Machine::new("app-1", &[60]).join(&site, &token).await;
    assert!(!state(&first).await.is_retired);
    let (reinstalled, clone) = (Machine::new("app-1", &[61]), Machine::new("app-2", &[62, 60]));
    for _ in 0..2 {
        for (machine, why) in [(&reinstalled, "enrolled with another key"), (&clone, "that of the enrolled host app-1")]
        {
            let refused = problem(machine.enrol(&site, &token).await);
            assert_eq!((refused.status, refused.code.as_str()), (409, "host_known"));
            assert!(refused.title.contains(why), "{}", refused.title);
            assert!(refused.next[0].contains("hallpass admin host retire"), "{:?}", refused.next);
        }
    }
    let omar = site.logged_in("omar").await;
    let detail: wire::HostDetail = omar.get("/v1/hosts/app-1").await.unwrap();
    assert_eq!(detail.conflicts.len(), 2, "each is noted once");
    assert_eq!((detail.conflicts[0].name.as_str(), detail.conflicts[1].name.as_str()), ("app-1", "app-2"));
    let why = api::Why { reason: "set up anew".to_owned() };
    let retired: wire::HostDetail = omar.post("/v1/hosts/app-1/retire", &why).await.unwrap();
    assert_eq!(retired.state, "retired");
    assert!(state(&first).await.is_retired, "it is told so");
    for machine in [&reinstalled, &clone] {
        let refused = problem(machine.enrol(&site, &token).await);
        assert_eq!((refused.status, refused.code.as_str()), (403, "join_refused"), "the token is older");
        assert!(refused.title.contains("was retired after the join token"), "{}", refused.title);
        assert!(refused.next[0].contains("hallpass admin join create"), "{:?}", refused.next);
    }
    let token = join(&site, &["app-*"], 10).await.token;
    let second = reinstalled.join(&site, &token).await;
    // Its token is not over, and was seen just now: but it is another machine's host.
    assert_eq!(problem(first.get::<wire::State>("/v1/hosts/self/state").await).code, "not_logged_in");
    assert!(!state(&second).await.is_retired);
    clone.join(&site, &token).await;
    site.world.check().await;
}

#[tokio::test]
async fn a_retired_host_gets_no_token_reports_nothing_and_comes_back_by_a_new_token_alone() {
    let site = site().await;
    let token = join(&site, &["app-*"], 10).await.token;
    let machine = Machine::new("app-1", &[60]);
    let host = machine.join(&site, &token).await;
    let omar = site.logged_in("omar").await;
    let why = api::Why { reason: "compromised".to_owned() };
    let _unused: wire::HostDetail = omar.post("/v1/hosts/app-1/retire", &why).await.unwrap();
    let size = async || site.world.service().checkpoint().await.unwrap().1;
    let before = size().await;

    let refused = problem(machine.session(&site).await);
    assert_eq!((refused.status, refused.code.as_str()), (403, "forbidden"));
    assert!(refused.title.contains("app-1 is retired") && refused.title.contains("join create"), "{}", refused.title);
    let event = wire::SessionEvent {
        id: "a.1".to_owned(),
        kind: "opened".to_owned(),
        serial: 7,
        key_id: "hallpass/7K3F9QX2/alice".to_owned(),
        ca: SessionKey::generate([0xCA; 32]).public_key().fingerprint().to_string(),
        account: "root".to_owned(),
        from: "192.0.2.6".to_owned(),
        at: site.world.now().to_string(),
        why: String::new(),
    };
    let events = wire::SessionEvents { events: vec![event] };
    assert_eq!(problem(host.post::<_, wire::Taken>("/v1/hosts/sessions", &events).await).code, "forbidden");
    for machine in [&machine, &Machine::new("app-1", &[61]), &Machine::new("app-2", &[61, 60])] {
        assert_eq!(problem(machine.enrol(&site, &token).await).code, "join_refused");
    }
    let mut further = Machine::new("app-3", &[62]);
    further.names = vec!["app-1".to_owned()];
    assert_eq!(problem(further.enrol(&site, &token).await).code, "join_refused");
    assert_eq!(size().await, before, "nothing is written");
    assert!(state(&host).await.is_retired, "it is told so, while it has a token");

    // Others come with that token as before, and who has left by itself does again.
    let other = Machine::new("app-4", &[64]);
    let _: wire::Nothing = other.join(&site, &token).await.post("/v1/hosts/leave", &wire::Nothing {}).await.unwrap();
    other.join(&site, &token).await;
    let new = join(&site, &["app-1"], 1).await.token;
    assert!(!state(&machine.join(&site, &new).await).await.is_retired);
    machine.session(&site).await.unwrap();
    site.world.check().await;
}

#[tokio::test]
async fn host_certificates_have_the_hosts_names_and_are_renewed_at_half() {
    let site = site().await;
    let token = join(&site, &["app-*", "*.example.com"], 1).await.token;
    let mut machine = Machine::new("app-1", &[60, 61]);
    machine.names = vec!["app-1.example.com".into()];
    let host = machine.join(&site, &token).await;
    let keys: Vec<String> = machine.keys.iter().map(|key| key.public_key().to_openssh()).collect();
    let wanted = wire::CertificatesFor { keys };
    let first: wire::HostCertificates = host.post("/v1/hosts/certificates", &wanted).await.unwrap();
    for (line, key) in first.certificates.iter().zip(&machine.keys) {
        let certificate = Certificate::parse_openssh(line).unwrap();
        let fields = certificate.tbs().fields();
        let names: Vec<&str> = fields.principals.iter().map(hallpass::name::Principal::as_str).collect();
        assert_eq!(names, ["app-1", "app-1.example.com"]);
        assert_eq!(certificate.tbs().purpose(), Purpose::Host);
        assert_eq!(certificate.tbs().subject(), key.public_key());
        assert!(matches!(fields.key_id.whose(), Whose::Host(host) if host.as_str() == "app-1"));
    }
    assert_eq!(state(&host).await.certificates.len(), 2);
    let again: wire::HostCertificates = host.post("/v1/hosts/certificates", &wanted).await.unwrap();
    assert_eq!(first.certificates, again.certificates, "they still serve");

    site.world.pass(4 * 86_400);
    let host = site.client(Some(&machine.session(&site).await.unwrap().token));
    let renewed: wire::HostCertificates = host.post("/v1/hosts/certificates", &wanted).await.unwrap();
    assert_ne!(first.certificates, renewed.certificates);
    let foreign = wire::CertificatesFor { keys: vec![private(99).public_key().to_openssh()] };
    assert_eq!(
        problem(host.post::<_, wire::HostCertificates>("/v1/hosts/certificates", &foreign).await).code,
        "invalid"
    );
    site.world.check().await;
}

#[tokio::test]
async fn without_a_host_ca_key_there_are_no_host_certificates_and_all_else_works() {
    let site = Site::new().await;
    let token = join(&site, &["app-*"], 1).await.token;
    let machine = Machine::new("app-1", &[60]);
    let host = machine.join(&site, &token).await;
    let wanted = wire::CertificatesFor { keys: vec![machine.keys[0].public_key().to_openssh()] };
    let refused = problem(host.post::<_, wire::HostCertificates>("/v1/hosts/certificates", &wanted).await);
    assert!(refused.title.contains("[ca.host]"), "{}", refused.title);
    assert_eq!(state(&host).await.certificates.len(), 0);
}

#[tokio::test]
async fn a_check_certificate_opens_one_account_of_its_own_host_for_a_moment_and_to_do_nothing() {
    let site = site().await;
    let token = join(&site, &["app-*"], 1).await.token;
    let machine = Machine::new("app-1", &[60]);
    let host = machine.join(&site, &token).await;
    let wanted = |seed: u8, ca| wire::CheckCertificateFor { key: private(seed).public_key().to_openssh(), ca };
    let made: wire::CheckCertificate = host.post("/v1/hosts/check-certificate", &wanted(70, None)).await.unwrap();
    let certificate = Certificate::parse_openssh(&made.certificate).unwrap();
    let fields = certificate.tbs().fields();
    let principals: Vec<&str> = fields.principals.iter().map(hallpass::name::Principal::as_str).collect();
    assert_eq!(principals, ["hallpass-check@app-1"]);
    assert_eq!(fields.key_id.as_str(), "hallpass/check/app-1");
    assert_eq!(fields.options.force_command.as_ref().unwrap().as_str(), "true");
    assert!(fields.options.permits.is_empty());
    assert_eq!(fields.window.end().seconds_since(site.world.now()), 120);
    let ca = certificate.ca_fingerprint().to_string();
    let _unused: wire::CheckCertificate =
        host.post("/v1/hosts/check-certificate", &wanted(71, Some(ca))).await.unwrap();
    let other = Some(private(99).public_key().fingerprint().to_string());
    for (wanted, code) in [(wanted(72, other), "not_found"), (wanted(60, None), "invalid")] {
        let refused = host.post::<_, wire::CheckCertificate>("/v1/hosts/check-certificate", &wanted).await;
        assert_eq!(problem(refused).code, code);
    }
    site.world.check().await;
}

#[tokio::test]
async fn operators_tag_hosts_and_what_they_may_not_contradict_is_refused() {
    let site = site().await;
    let wish = wire::JoinFor {
        names: vec!["*".into()],
        may_tag: vec!["role".into(), "zone".into()],
        uses: Some(3),
        ..wire::JoinFor::default()
    };
    let token = join_for(&site, wish).await.token;
    let (omar, ada) = (site.logged_in("omar").await, site.logged_in("ada").await);
    // web-1 is in the policy's file with role=web: its tags are joined, unless they contradict.
    let mut machine = Machine::new("web-1", &[60]);
    machine.tags = vec!["role=db".into()];
    let refused = problem(machine.enrol(&site, &token).await);
    assert!(refused.title.contains("the tag role is db here, but web by the policy's file"), "{}", refused.title);
    machine.tags = vec!["zone=eu".into()];
    machine.join(&site, &token).await;
    let set = |set: &[&str], unset: &[&str]| wire::SetTags {
        set: set.iter().map(|tag| (*tag).to_owned()).collect(),
        unset: unset.iter().map(|tag| (*tag).to_owned()).collect(),
    };
    let path = "/v1/hosts/web-1/tags";
    let tagged: wire::HostDetail = omar.post(path, &set(&["env=prod"], &["zone"])).await.unwrap();
    assert_eq!(tagged.tags, ["env=prod"]);
    let hosts: api::Hosts = ada.get("/v1/hosts?text=web-1").await.unwrap();
    assert_eq!(hosts.hosts[0].tags, ["env=prod", "role=web"]);
    assert_eq!(problem(omar.post::<_, wire::HostDetail>(path, &set(&["role=db"], &[])).await).code, "invalid");
    assert_eq!(problem(ada.post::<_, wire::HostDetail>(path, &set(&["a=b"], &[])).await).code, "forbidden");

    let policy =
        crate::support::policy().replacen("tags = { role = \"web\" }", "tags = { role = \"web\", env = \"test\" }", 1);
    let body = api::PutPolicy { text: policy, base: None, dry_run: false };
    let refused = problem(omar.put::<_, api::PolicyApplied>("/v1/policy", &body).await);
    assert_eq!(refused.code, "bad_policy");
    assert!(
        refused.why[0].contains("host web-1 is enrolled with env=prod, the file says env=test"),
        "{:?}",
        refused.why
    );
    site.world.check().await;
}

#[tokio::test]
async fn a_host_shows_its_key_again_and_its_challenge_serves_once() {
    let site = site().await;
    let token = join(&site, &["app-*"], 1).await.token;
    let machine = Machine::new("app-1", &[60, 61]);
    machine.join(&site, &token).await;
    let challenge = machine.challenge(&site, "session").await;
    let wire::KeyProof { key, signature } = machine.proof(&machine.keys[0], &challenge, HostPurpose::Session);
    let body = wire::SessionAnswer { name: "app-1".into(), challenge: challenge.challenge, key, signature };
    let session: wire::HostToken = site.client(None).post("/v1/hosts/session", &body).await.unwrap();
    let replayed = site.client(None).post::<_, wire::HostToken>("/v1/hosts/session", &body).await;
    assert_eq!(problem(replayed).code, "login_refused");
    let host = site.client(Some(&session.token));
    assert_eq!(state(&host).await.name, "app-1");
    site.world.pass(3600);
    assert_eq!(problem(host.get::<wire::State>("/v1/hosts/self/state").await).code, "not_logged_in");
}
