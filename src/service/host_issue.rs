//! Certificates for hosts: for their keys, and for their logins to themselves. The steps are those of `issue`: intent durable, sign
//! with a deadline, verify, outcome durable, hand out.
//!
//! A host that asks again is given the certificate that it has, until half of its life is over, its names change or the CA key does. What
//! a crash leaves between intent and outcome is a certificate that nobody has; asking again makes another.

use std::sync::Arc;

use super::policy::sha256_hex;
use super::{Failure, Outcome, Service, whole};
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::fail;
use crate::identity::host::HostProven;
use crate::inventory::EnrolledHost;
use crate::inventory::permit::{CertifyRefusal, HostPermit, certify_check, certify_host, principals_of};
use crate::keyring::Ca;
use crate::name::HostName;
use crate::ssh::cert::{Certificate, Purpose, TbsCert};
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::{Change, Save};
use crate::time::Timestamp;

impl From<CertifyRefusal> for Failure {
    fn from(why: CertifyRefusal) -> Self {
        match why {
            CertifyRefusal::Retired => Self::Forbidden(why.to_string()),
            CertifyRefusal::OtherKey | CertifyRefusal::HostKey => Self::Invalid(why.to_string()),
            CertifyRefusal::Clock => Self::Unavailable(why.to_string()),
        }
    }
}

impl Service {
    /// Certificates for these keys of the host, in their order.
    ///
    /// # Errors
    /// `Invalid` for a key that is not the host's, `NotFound` without a host CA key, `Unavailable`.
    pub async fn host_certificates(
        self: &Arc<Self>,
        by: &HostProven,
        keys: Vec<PublicKey>,
    ) -> Outcome<Vec<Certificate>> {
        let (this, by) = (Arc::clone(self), by.clone());
        whole(async move {
            let host = this.enrolled(&by)?;
            this.settle_keys().await?;
            let ca = this.active_ca(&Ca::Host)?.key().clone();
            let now = this.clock.now();
            // All of them are looked at before anything is made.
            keys.iter().try_for_each(|key| certify_host(&host, key, now).map(drop))?;
            let kept = this.store.host_certificates(host.name.clone()).await?;
            let mut certificates = Vec::new();
            for key in &keys {
                let good = kept.iter().find(|kept| is_good(kept, &host, key, &ca, now));
                certificates.push(match good {
                    Some(good) => good.clone(),
                    None => {
                        let permit = |host: &EnrolledHost, now| certify_host(host, key, now);
                        let ca = |_: &EnrolledHost| Ok(this.active_ca(&Ca::Host)?.key().clone());
                        this.issue_to_host(&by, permit, ca).await?
                    }
                });
            }
            this.tell_hosts(super::inventory::HostChange::One(host.name));
            Ok(certificates)
        })
        .await
    }

    /// A certificate with which the host can log in to itself, for a moment and to do nothing.
    ///
    /// # Errors
    /// `Invalid` for a key that is no fresh one, `NotFound` for a CA key that hosts need not trust or that can't sign, `Unavailable`.
    pub async fn check_certificate(
        self: &Arc<Self>,
        by: &HostProven,
        key: PublicKey,
        ca: Option<Fingerprint>,
    ) -> Outcome<Certificate> {
        let (this, by) = (Arc::clone(self), by.clone());
        whole(async move {
            this.enrolled(&by)?;
            // Any key that the host must trust: so they prove that they do, before it signs for people.
            let ca = |host: &EnrolledHost| this.trusted_ca(host, ca);
            let (_, policy) = this.policy_now();
            let is_somebodys = policy.directory().holder(&key).is_some();
            if is_somebodys || this.is_service_key(&key) {
                return Err(CertifyRefusal::HostKey.into());
            }
            this.issue_to_host(&by, |host, now| certify_check(host, &key, now), ca).await
        })
        .await
    }

    /// From permit to certificate.
    async fn issue_to_host(
        &self,
        by: &HostProven,
        permit: impl Fn(&EnrolledHost, Timestamp) -> Result<HostPermit, CertifyRefusal>,
        ca: impl Fn(&EnrolledHost) -> Outcome<PublicKey>,
    ) -> Outcome<Certificate> {
        self.check_issuing().await?;
        self.settle_policy().await?;
        // Inventory and CA keys stay what they are until the commit, which rests on them: a host that is retired meanwhile gets nothing.
        let guard = Arc::clone(&self.policy_in_use).read_owned().await;
        let (host, expected, at) = (self.enrolled(by)?, self.inventory().entries(), self.clock.now());
        let (permit, ca) = (Box::new(permit(&host, at)?), ca(&host)?);
        let save = Save::CertifyHost { permit, ca, nonce: self.random()? };
        let saves = vec![Save::Inventory { expected }, save];
        let committed = self.commit_decision(Change { at, saves, events: Vec::new() }).await?;
        drop(guard);
        let tbs = committed.tbs.ok_or_else(|| Failure::internal("certifying a host", "the store made nothing"))?;
        fail::point("host.intent.durable");
        let kept = self.keep_head(tbs.fields().serial.number().saturating_add(1));
        let (certificate, ()) = tokio::try_join!(self.sign_tbs(&tbs), kept)?;
        fail::point("host.signed");
        self.record_host_outcome(&host.name, &tbs, &certificate).await?;
        Ok(certificate)
    }

    async fn record_host_outcome(&self, host: &HostName, tbs: &TbsCert, certificate: &Certificate) -> Outcome<()> {
        let (serial, sha256) = (tbs.fields().serial, sha256_hex(certificate.blob()));
        let host = host.clone();
        let (saves, event) = match tbs.purpose() {
            Purpose::User => (Vec::new(), HostEvent::CheckCertificateSigned { host, serial, sha256 }),
            Purpose::Host => {
                let certificate = Box::new(certificate.clone());
                let save = Save::HostCertificate { host: host.clone(), certificate };
                (vec![save], HostEvent::HostCertificateSigned { host, serial, sha256 })
            }
        };
        self.commit(Change { at: self.clock.now(), saves, events: vec![Event::from(event)] }).await?;
        Ok(())
    }
}

/// Whether this certificate of the host still serves: by this CA key, for this key and the names that the host has, and not yet half
/// over.
fn is_good(kept: &Certificate, host: &EnrolledHost, key: &PublicKey, ca: &PublicKey, now: Timestamp) -> bool {
    let (tbs, fields) = (kept.tbs(), kept.tbs().fields());
    let half = fields.window.seconds() / 2;
    tbs.purpose() == Purpose::Host
        && tbs.ca() == ca
        && tbs.subject() == key
        && fields.key_id.host() == Some(&host.name)
        && fields.principals == principals_of(host)
        && now.seconds_since(fields.window.start()) < half
        && now >= fields.window.start()
}
