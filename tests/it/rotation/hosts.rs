//! The host CA key is changed: clients learn the new one first, hosts get certificates by it at once, and the old one goes when no host
//! shows it any more.

use std::sync::Arc;

use hallpass::client::Client;
use hallpass::ssh::cert::{Certificate, Purpose};
use hallpass::ssh::{Fingerprint, PublicKey};
use hallpass::wire::ca as wire;
use hallpass::wire::host::{CertificatesFor, HostCertificates, State};

use crate::api::site::{Site, problem};
use crate::hosts::machine::{Machine, join};
use crate::support::Faulty;

const DAY: u32 = 86_400;

/// A site with a host CA key, one to change to, and two hosts that have certificates.
async fn site() -> (Site, Vec<Machine>) {
    let mut site = Site::new().await;
    site.stop().await;
    site.world.host_signer = Some(Arc::new(Faulty::of([0xC1; 32], Purpose::Host)));
    site.world.host_next = vec![Arc::new(Faulty::of([0xC2; 32], Purpose::Host))];
    site.start().await;
    let token = join(&site, &["web-*"], 10).await.token;
    let machines = vec![Machine::new("web-7", &[0xE1]), Machine::new("web-8", &[0xE2])];
    for machine in &machines {
        machine.enrol(&site, &token).await.unwrap();
        assert_eq!(renew(&site, machine).await, old(&site).fingerprint());
    }
    (site, machines)
}

fn old(site: &Site) -> PublicKey {
    site.world.host_signer.as_ref().unwrap().public_key_of()
}

fn new(site: &Site) -> PublicKey {
    site.world.host_next[0].public_key_of()
}

async fn logged_in(site: &Site, machine: &Machine) -> Client {
    site.client(Some(&machine.session(site).await.unwrap().token))
}

/// What a daemon does that sees another CA key than that of its certificate; who has signed the new one.
async fn renew(site: &Site, machine: &Machine) -> Fingerprint {
    let keys = machine.keys.iter().map(|key| key.public_key().to_openssh()).collect();
    let client = logged_in(site, machine).await;
    let made: HostCertificates = client.post("/v1/hosts/certificates", &CertificatesFor { keys }).await.unwrap();
    Certificate::parse_openssh(&made.certificates[0]).unwrap().ca_fingerprint()
}

fn body(step: &str) -> wire::Rotate {
    wire::Rotate { step: step.to_owned(), purpose: "host".to_owned(), ..wire::Rotate::default() }
}

async fn take(site: &Site, body: &wire::Rotate) -> wire::Keys {
    site.logged_in("omar").await.post("/v1/ca/rotate", body).await.unwrap()
}

async fn refused(site: &Site, body: &wire::Rotate) -> String {
    let client = site.logged_in("omar").await;
    let problem = problem(client.post::<_, wire::Keys>("/v1/ca/rotate", body).await);
    assert_eq!(problem.code, "rotation_blocked");
    format!("{} {}", problem.title, problem.why.join("; "))
}

/// What clients fetch: which keys vouch for which hosts.
async fn known(site: &Site) -> (bool, bool) {
    let lines = site.logged_in("alice").await.text("/v1/ca/host-keys").await.unwrap();
    let has = |key: PublicKey| {
        let count = lines.lines().filter(|line| line.ends_with(&key.to_openssh())).count();
        assert!(count == 0 || count == 2, "{lines}");
        count == 2
    };
    (has(old(site)), has(new(site)))
}

fn state_of<'k>(keys: &'k wire::Keys, key: &PublicKey) -> &'k str {
    let fingerprint = key.fingerprint().to_string();
    &keys.keys.iter().find(|key| key.fingerprint == fingerprint).unwrap().state
}

#[tokio::test]
async fn clients_learn_the_new_host_key_before_it_signs_and_forget_the_old_one_when_nobody_shows_it() {
    let (mut site, machines) = site().await;
    assert_eq!(known(&site).await, (true, false));
    assert!(refused(&site, &body("switch")).await.contains("no key that this service can use is staged"));
    take(&site, &body("start")).await;
    assert_eq!(known(&site).await, (true, true));
    let early = refused(&site, &body("switch")).await;
    assert!(early.contains("only since") && early.contains("it may sign from"), "{early}");
    site.world.pass(DAY - 1);
    refused(&site, &body("switch")).await;
    site.world.pass(1);
    // A start in between changes nothing.
    site.stop().await;
    site.start().await;
    let state: State = logged_in(&site, &machines[0]).await.get("/v1/hosts/self/state").await.unwrap();
    assert_eq!((state.host_ca, state.certificates.len()), (Some(old(&site).fingerprint().to_string()), 1));
    let switched = take(&site, &body("switch")).await;
    assert_eq!((state_of(&switched, &old(&site)), state_of(&switched, &new(&site))), ("draining", "active"));
    let state: State = logged_in(&site, &machines[0]).await.get("/v1/hosts/self/state").await.unwrap();
    assert_eq!((state.host_ca, state.certificates.len()), (Some(new(&site).fingerprint().to_string()), 0));

    // The daemons renew at once; as long as one has not, clients must know both.
    let both = refused(&site, &body("finish")).await;
    assert!(both.contains("2 hosts") && both.contains("web-7: until") && both.contains("web-8: until"), "{both}");
    assert_eq!(renew(&site, &machines[0]).await, new(&site).fingerprint());
    let one = refused(&site, &body("finish")).await;
    assert!(!one.contains("web-7") && one.contains("web-8: until"), "{one}");
    assert_eq!(known(&site).await, (true, true));
    assert_eq!(renew(&site, &machines[1]).await, new(&site).fingerprint());
    let done = take(&site, &body("finish")).await;
    assert_eq!((state_of(&done, &old(&site)), known(&site).await), ("retired", (false, true)));
    site.world.check().await;
}

#[tokio::test]
async fn an_abort_at_each_phase_goes_back_and_hosts_follow() {
    let (site, machines) = site().await;
    take(&site, &body("start")).await;
    take(&site, &body("abort")).await;
    assert_eq!(known(&site).await, (true, false));
    let again = wire::Rotate { key: Some(new(&site).fingerprint().to_string()), ..body("start") };
    take(&site, &again).await;
    // Whoever does not wait says so, and the log has it.
    take(&site, &wire::Rotate { now: true, ..body("switch") }).await;
    renew(&site, &machines[0]).await;
    let back = take(&site, &body("abort")).await;
    assert_eq!((state_of(&back, &old(&site)), state_of(&back, &new(&site))), ("active", "draining"));
    assert!(refused(&site, &body("finish")).await.contains("web-7: until"));
    assert_eq!(renew(&site, &machines[0]).await, old(&site).fingerprint());
    take(&site, &body("finish")).await;
    assert_eq!(known(&site).await, (true, false));
    let log = site.world.service().entries(&site.proven("ada").await, 0, 1000).await.unwrap();
    let early = log.iter().filter(|entry| String::from_utf8_lossy(entry).contains("\"early\":true"));
    assert_eq!(early.count(), 1);
    // Where nothing waits, there is nothing to skip.
    for wrong in [
        wire::Rotate { now: true, ..body("finish") },
        wire::Rotate { accept_unreachable: vec!["web-7".to_owned()], ..body("switch") },
        wire::Rotate { purpose: "both".to_owned(), ..body("start") },
    ] {
        let problem = problem(site.logged_in("omar").await.post::<_, wire::Keys>("/v1/ca/rotate", &wrong).await);
        assert_eq!(problem.code, "invalid", "{wrong:?}");
    }
    site.world.check().await;
}

#[tokio::test]
async fn a_stolen_host_key_vouches_for_nobody_and_hosts_get_certificates_by_the_next_one() {
    let (site, machines) = site().await;
    take(&site, &body("start")).await;
    let lost = wire::Rotate { key: Some(old(&site).fingerprint().to_string()), ..wire::Rotate::default() };
    let after = take(&site, &wire::Rotate { step: "compromise".to_owned(), ..lost.clone() }).await;
    assert_eq!((state_of(&after, &old(&site)), state_of(&after, &new(&site))), ("compromised", "active"));
    assert_eq!(known(&site).await, (false, true));
    let state: State = logged_in(&site, &machines[0]).await.get("/v1/hosts/self/state").await.unwrap();
    assert_eq!(state.lost, [old(&site).fingerprint().to_string()]);
    assert_eq!(renew(&site, &machines[0]).await, new(&site).fingerprint());
    site.world.check().await;
}
