//! Hosts as far as the service can tell: real host keys, real enrolments and check-ins over HTTP, and an sshd that trusts what it fetched last.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hallpass::client::{Client, Server};
use hallpass::ssh::Fingerprint;
use hallpass::ssh::bundle::Bundle;
use hallpass::ssh::cert::Certificate;
use hallpass::ssh::private::SessionKey;
use hallpass::wire::host as wire;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::service::Service;
use crate::hosts::machine::Machine;

/// How many of them talk with the service at once.
const AT_ONCE: usize = 8;

/// A machine with what it has been told.
pub(super) struct Simulated {
    pub(super) machine: Machine,
    client: Client,
    /// The file that its sshd would read.
    file: String,
    /// Who signed the host certificate that it shows.
    pub(super) shows: Option<Fingerprint>,
}

/// Where the service is.
#[derive(Clone)]
struct At {
    url: String,
    pin: String,
}

fn client(at: &At, token: Option<&str>) -> Client {
    let server = Server { url: at.url.clone(), pin: Some(at.pin.clone()), proxy: None };
    Client::new(server, token.map(SecretString::from), Duration::from_secs(60)).unwrap()
}

impl Simulated {
    async fn join(at: &At, number: u8, token: &str) -> Self {
        let machine = Machine::new(&format!("web-{}", 100 + u32::from(number)), &[number]);
        let anonymous = client(at, None);
        let body = machine.enrolment_by(&anonymous, token).await.unwrap();
        let enrolled: wire::Enrolled = anonymous.post("/v1/hosts/enrol", &body).await.unwrap();
        let client = client(at, Some(&enrolled.token));
        Self { machine, client, file: String::new(), shows: None }
    }

    /// The keys that its sshd trusts.
    fn trusts(&self) -> BTreeSet<Fingerprint> {
        Bundle::claimed(&self.file).unwrap().keys().iter().map(|key| key.key.fingerprint()).collect()
    }

    /// Whether its sshd would take a certificate.
    pub(super) fn takes(&self, certificate: &Certificate) -> bool {
        self.trusts().contains(&certificate.ca_fingerprint())
    }

    /// What a daemon does when it is told that something has changed: fetch, prove with each key, say so.
    async fn sync(&mut self) {
        let state: wire::State = self.client.get("/v1/hosts/self/state").await.unwrap();
        self.file = state.bundle.text;
        let keys: Vec<String> = self.trusts().iter().map(ToString::to_string).collect();
        let mut proven = Vec::new();
        for ca in &keys {
            let fresh = SessionKey::generate(rand::random()).public_key().to_openssh();
            let body = wire::CheckCertificateFor { key: fresh, ca: Some(ca.clone()) };
            let made: wire::CheckCertificate = self.client.post("/v1/hosts/check-certificate", &body).await.unwrap();
            let certificate = Certificate::parse_openssh(&made.certificate).unwrap();
            assert!(self.takes(&certificate) && certificate.ca_fingerprint().to_string() == *ca);
            proven.push(ca.clone());
        }
        let file_sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(self.file.as_bytes()));
        let body = wire::CheckIn {
            about: wire::About { program: "0.1.0".into(), sshd: "OpenSSH_9.2p1".into(), os: "Debian 12".into() },
            trust: wire::Trust { file_sha256, keys, proven },
            clock_ms: 0,
            guard: true,
            risky: Vec::new(),
            sessions: Vec::new(),
            run: None,
            shows: self.shows.iter().map(ToString::to_string).collect(),
        };
        let _taken: wire::Nothing = self.client.post("/v1/hosts/check-in", &body).await.unwrap();
    }

    /// Asks for a host certificate, as it does when another CA key signs these.
    pub(super) async fn renew(&mut self) {
        let keys = self.machine.keys.iter().map(|key| key.public_key().to_openssh()).collect();
        let body = wire::CertificatesFor { keys };
        let made: wire::HostCertificates = self.client.post("/v1/hosts/certificates", &body).await.unwrap();
        self.shows = Some(Certificate::parse_openssh(&made.certificates[0]).unwrap().ca_fingerprint());
    }
}

/// What their daemons would do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// Fetch, prove, check in.
    Sync,
    /// Get a new host certificate.
    Renew,
}

/// So many of them, enrolled.
pub(super) async fn all_join(service: &Service, count: u8, token: &Path) -> Vec<Simulated> {
    let token: Arc<str> = std::fs::read_to_string(token).unwrap().trim().into();
    let (slots, at) = (Arc::new(Semaphore::new(AT_ONCE)), At { url: service.url.clone(), pin: service.pin.clone() });
    let join = |number| {
        let (slots, at, token) = (Arc::clone(&slots), at.clone(), Arc::clone(&token));
        tokio::spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            Simulated::join(&at, number, &token).await
        })
    };
    let joining: Vec<_> = (1..=count).map(join).collect();
    let mut all = Vec::new();
    for one in joining {
        all.push(one.await.unwrap());
    }
    all
}

/// All of them but one do this.
pub(super) async fn all_do(machines: &mut Vec<Simulated>, without: &str, deed: Deed) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let (left, doing): (Vec<_>, Vec<_>) =
        std::mem::take(machines).into_iter().partition(|one| one.machine.name == without);
    let run = |mut one: Simulated| {
        let slots = Arc::clone(&slots);
        tokio::spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            match deed {
                Deed::Sync => one.sync().await,
                Deed::Renew => one.renew().await,
            }
            one
        })
    };
    let doing: Vec<_> = doing.into_iter().map(run).collect();
    for one in doing {
        machines.push(one.await.unwrap());
    }
    machines.extend(left);
}
