//! A machine with SSH host keys, as far as the service can tell, and a site with a host CA key.

use std::sync::Arc;

use hallpass::client::{Client, ClientError};
use hallpass::name::HostName;
use hallpass::ssh::host::{HOST_NAMESPACE, HostPurpose, statement};
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::wire::host as wire;

use crate::api::site::Site;
use crate::support::Faulty;

/// A machine with host keys.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) keys: Vec<LoginKey>,
    pub(crate) tags: Vec<String>,
    pub(crate) names: Vec<String>,
}

/// The private key of this seed.
pub(crate) fn private(seed: u8) -> LoginKey {
    let text = SessionKey::generate([seed; 32]).to_openssh("").unwrap();
    LoginKey::parse(text.as_bytes(), None).unwrap()
}

impl Machine {
    /// One with the host keys of these seeds.
    pub(crate) fn new(name: &str, seeds: &[u8]) -> Self {
        let keys = seeds.iter().map(|seed| private(*seed)).collect();
        Self { name: name.to_owned(), keys, tags: Vec::new(), names: Vec::new() }
    }

    pub(crate) async fn challenge(&self, site: &Site, purpose: &str) -> wire::HostChallenge {
        self.challenge_by(&site.client(None), purpose).await.unwrap()
    }

    async fn challenge_by(&self, client: &Client, purpose: &str) -> Result<wire::HostChallenge, ClientError> {
        let body = wire::ChallengeFor { name: self.name.clone(), purpose: purpose.to_owned() };
        client.post("/v1/hosts/challenge", &body).await
    }

    pub(crate) fn proof(
        &self,
        key: &LoginKey,
        challenge: &wire::HostChallenge,
        purpose: HostPurpose,
    ) -> wire::KeyProof {
        let host = HostName::parse(&self.name).unwrap();
        let text = statement(&challenge.server, purpose, &host, &challenge.challenge);
        wire::KeyProof {
            key: key.public_key().to_openssh(),
            signature: key.sign(HOST_NAMESPACE, text.as_bytes()).unwrap(),
        }
    }

    /// The body with which it joins.
    pub(crate) async fn enrolment(&self, site: &Site, token: &str) -> wire::Enrol {
        self.enrolment_by(&site.client(None), token).await.unwrap()
    }

    /// The same, with a client of one's own.
    pub(crate) async fn enrolment_by(&self, client: &Client, token: &str) -> Result<wire::Enrol, ClientError> {
        let challenge = self.challenge_by(client, "enrol").await?;
        let keys = self.keys.iter().map(|key| self.proof(key, &challenge, HostPurpose::Enrol)).collect();
        Ok(wire::Enrol {
            token: token.to_owned().into(),
            name: self.name.clone(),
            tags: self.tags.clone(),
            names: self.names.clone(),
            challenge: challenge.challenge,
            keys,
            about: wire::About { program: "0.1.0".into(), sshd: "OpenSSH_9.2p1".into(), os: "Debian 12".into() },
        })
    }

    pub(crate) async fn enrol(&self, site: &Site, token: &str) -> Result<wire::Enrolled, ClientError> {
        let body = self.enrolment(site, token).await;
        site.client(None).post("/v1/hosts/enrol", &body).await
    }

    /// Joins; a client with its host token.
    pub(crate) async fn join(&self, site: &Site, token: &str) -> Client {
        let enrolled = self.enrol(site, token).await.unwrap();
        site.client(Some(&enrolled.token))
    }

    /// Shows its key again.
    pub(crate) async fn session(&self, site: &Site) -> Result<wire::HostToken, ClientError> {
        let challenge = self.challenge(site, "session").await;
        let wire::KeyProof { key, signature } = self.proof(&self.keys[0], &challenge, HostPurpose::Session);
        let body = wire::SessionAnswer { name: self.name.clone(), challenge: challenge.challenge, key, signature };
        site.client(None).post("/v1/hosts/session", &body).await
    }
}

/// A site with a host CA key.
pub(crate) async fn site() -> Site {
    let mut site = Site::new().await;
    site.stop().await;
    site.world.host_signer = Some(Arc::new(Faulty::of([0xCB; 32], hallpass::ssh::cert::Purpose::Host)));
    site.start().await;
    site
}

/// A join token of omar's.
pub(crate) async fn join_for(site: &Site, wish: wire::JoinFor) -> wire::NewJoin {
    site.logged_in("omar").await.post("/v1/hosts/joins", &wish).await.unwrap()
}

/// A join token for these names and so many hosts.
pub(crate) async fn join(site: &Site, names: &[&str], uses: u32) -> wire::NewJoin {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    join_for(site, wire::JoinFor { names, uses: Some(uses), ..wire::JoinFor::default() }).await
}
