//! From permit to certificate: intent durable in the log, sign with a deadline, verify, outcome entry, hand out.
//!
//! | Step | A crash right after it leaves | Mended by |
//! |---|---|---|
//! | `Certify` refused or allowed by the rules | nothing | – |
//! | intent committed: serial, bytes and log entry at once (P2) | an issued certificate that nobody has | the next fetch |
//! | signed and verified | the same | the same |
//! | outcome committed | a recorded certificate that nobody has | the next fetch |
//! | checkpoint kept apart (`head`; beside the two before) | the same | the same |
//!
//! A signature that does not verify, comes too late or not at all is never handed out; the request stays issued, and
//! a later fetch gives the certificate over the same to-be-signed bytes (P3). Nothing is signed for a request that
//! was ended, or that policy refuses now (P6).
//!
//! Why is the outcome awaited, when the design would let it follow? It costs one more group commit, and then every
//! certificate that anybody has is complete in the log, whatever happens next.

use std::sync::Arc;

use super::policy::sha256_hex;
use super::{ATTEMPTS, Failure, Outcome, Service, whole};
use crate::access::{Certified, Command, Permit, Refusal, RefusalKind, step};
use crate::audit::event::Event;
use crate::fail;
use crate::identity::Proven;
use crate::keyring::{ActiveKey, Ca};
use crate::name::{PolicyVersion, RequestId, RequestPrefix, Serial};
use crate::ssh::cert::{Certificate, Purpose, TbsCert};
use crate::store::{Change, Save, StoreError};

/// What became of a certificate whose CA key was withdrawn before it was fetched.
const WITHDRAWN: &str =
    "the CA key that this certificate was to be signed with is trusted no longer; end the request, and ask again";

/// What is to be signed for which request: its entry is durable.
type Intended = (RequestId, Certified);

impl Service {
    /// The certificate of the caller's request. The first fetch of a grant makes it; later ones sign the same stored
    /// bytes.
    ///
    /// # Errors
    /// `NotFound`, `Refused`, `Unavailable` when the signer or the log can't.
    pub async fn certificate(self: &Arc<Self>, by: &Proven, id: &RequestPrefix) -> Outcome<Certificate> {
        let (this, by, prefix) = (Arc::clone(self), by.clone(), id.clone());
        whole(async move {
            this.check_issuing().await?;
            for _ in 0..ATTEMPTS {
                let Some((id, certified)) = this.certify(&by, &prefix).await? else { continue };
                // Side by side: neither needs the other, both must be done. A store put back from an older copy must
                // not use this serial again.
                let kept = this.keep_head(certified.serial.number().saturating_add(1));
                let (signed, ()) = tokio::try_join!(this.sign_and_record(&by, &prefix, id, &certified), kept)?;
                if let Some(certificate) = signed {
                    return Ok(certificate);
                }
            }
            Err(Failure::contended())
        })
        .await
    }

    /// Signs, asks the rules once more, and makes the outcome durable; `None` when another certificate took its place.
    async fn sign_and_record(
        &self,
        by: &Proven,
        prefix: &RequestPrefix,
        id: RequestId,
        certified: &Certified,
    ) -> Outcome<Option<Certificate>> {
        let certificate = self.sign(id, certified).await?;
        fail::point("issue.signed");
        // Signing takes a while: what was ended or forbidden meanwhile, here or by another node, is not handed out (I-11).
        self.check_issuing().await?;
        let Some((_, still)) = self.certify(by, prefix).await? else { return Ok(None) };
        if still.serial != certified.serial {
            return Ok(None);
        }
        self.record_outcome(id, certified.serial, &certificate).await?;
        fail::point("issue.outcome.durable");
        Ok(Some(certificate))
    }

    /// Asks the rules, and makes the intent durable if this is the grant's first fetch; `None` when somebody else was
    /// faster.
    async fn certify(&self, by: &Proven, id: &RequestPrefix) -> Outcome<Option<Intended>> {
        let (_guard, check) = self.hold_policy().await?;
        let (version, policy) = (check.version, Arc::clone(&check.policy));
        let stored = self.find_logged(by, id, &policy).await?;
        let (id, now) = (stored.request.id(), self.clock.now());
        let taken = match step(stored.request, Command::Certify { by: by.clone(), check }, now) {
            Ok(taken) => taken,
            Err(why) => {
                return match self.record_refusal(by, id, &why, version).await {
                    Ok(()) => Err(why.into()),
                    Err(StoreError::Conflict) => Ok(None),
                    Err(failed) => Err(failed.into()),
                };
            }
        };
        let Some(permit) = taken.permit else {
            let certified = taken.request.grant().and_then(|grant| grant.certificate.clone());
            let nothing = || Failure::internal("fetching a certificate", "neither a permit nor a certificate");
            return Ok(Some((id, certified.ok_or_else(nothing)?)));
        };
        let ca = self.ca_for(&permit)?;
        let save = Save::Certify { permit: Box::new(permit), ca, nonce: self.random()?, expected: stored.version };
        let tbs = match self.commit_decision(Change { at: now, saves: vec![save], events: taken.events }).await {
            Ok(committed) => committed.tbs,
            Err(StoreError::Conflict) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        fail::point("issue.intent.durable");
        let tbs = tbs.ok_or_else(|| Failure::internal("fetching a certificate", "the store made none"))?;
        Ok(Some((id, Certified { serial: tbs.fields().serial, tbs })))
    }

    /// The key that signs what this permit allows, if its backend is there, and the hosts are where the permit takes them to be.
    fn ca_for(&self, permit: &Permit) -> Outcome<ActiveKey> {
        let terms = &permit.request().parts().terms;
        let inventory = self.inventory();
        for host in terms.hosts.keys().filter_map(|name| inventory.host(name)).filter(|host| host.is_active) {
            if host.ca != terms.ca {
                return Err(Failure::internal("fetching a certificate", "the log has a host of it with another CA"));
            }
            if host.waits {
                return Err(Failure::Conflict(format!(
                    "host {} has gone over to CA {}, and does not prove yet that it trusts its key; its next check-in does, \
                     then fetch again",
                    host.name, host.ca
                )));
            }
        }
        let ca = Ca::User(terms.ca.clone());
        self.active_signer(&ca)?;
        self.active_ca(&ca)
    }

    /// A granted request that policy refuses now is worth an entry; one that is not granted or over is not.
    async fn record_refusal(
        &self,
        by: &Proven,
        request: RequestId,
        why: &Refusal,
        policy: PolicyVersion,
    ) -> Result<(), StoreError> {
        if why.kind() != RefusalKind::Policy {
            return Ok(());
        }
        let (person, why) = (by.person().clone(), why.to_string());
        let event = Event::CertificateRefused { request, person, why, policy };
        self.commit_decision(Change { at: self.clock.now(), saves: Vec::new(), events: vec![event] }).await.map(drop)
    }

    /// Has the CA key sign what is durably in the log for a request.
    pub(super) async fn sign(&self, id: RequestId, certified: &Certified) -> Outcome<Certificate> {
        self.sign_tbs(&certified.tbs).await.inspect_err(|_traced| tracing::error!(request = %id, "it stays issued"))
    }

    /// Has the CA key for its purpose sign what is durably in the log, off the async threads and with a deadline, and believes
    /// nothing of it.
    pub(super) async fn sign_tbs(&self, tbs: &TbsCert) -> Outcome<Certificate> {
        let unavailable = |why: &str| {
            let (serial, key_id) = (tbs.fields().serial, tbs.fields().key_id.as_str());
            tracing::error!(%serial, key_id, why, "signing failed; nothing was handed out");
            Failure::Unavailable("the CA key did not sign; fetch again later, the request stays as it is".to_owned())
        };
        let Some(ca) = self.keys.now().trusted(tbs.purpose(), tbs.ca()) else {
            return Err(Failure::Conflict(WITHDRAWN.to_owned()));
        };
        let slots = match tbs.purpose() {
            Purpose::User => &self.sign_slots,
            Purpose::Host => &self.hosts.sign_slots,
        };
        let signer = self.keys.signer(tbs.ca()).filter(|signer| signer.purpose() == tbs.purpose());
        let signer = Arc::clone(signer.ok_or_else(|| unavailable("there is no CA key for it"))?);
        let (slots, to_sign) = (Arc::clone(slots), tbs.clone());
        let work = async move {
            let slot = slots.acquire_owned().await.map_err(|closed| closed.to_string())?;
            let sign = move || {
                // Held by the thread itself: a backend that hangs keeps its slot although nobody waits any more.
                let _slot = slot;
                let blob = signer.sign(&to_sign).map_err(|why| why.to_string())?;
                Certificate::assemble(to_sign, &blob).map_err(|why| why.to_string())
            };
            tokio::task::spawn_blocking(sign).await.map_err(|error| error.to_string())?
        };
        let signed = tokio::time::timeout(self.settings.sign_timeout, work).await;
        let is_signed = matches!(&signed, Ok(Ok(certificate)) if certificate.tbs() == tbs);
        self.tally.count(ca, is_signed);
        match signed {
            Ok(Ok(certificate)) if certificate.tbs() == tbs => Ok(certificate),
            Ok(Ok(_)) => Err(unavailable("the certificate holds other bytes")),
            Ok(Err(why)) => Err(unavailable(&why)),
            Err(_) => Err(unavailable("no answer in time")),
        }
    }

    /// Writes the outcome entry; the store takes one per certificate, so that a repeated fetch adds nothing.
    pub(super) async fn record_outcome(
        &self,
        request: RequestId,
        serial: Serial,
        certificate: &Certificate,
    ) -> Outcome<()> {
        let event = Event::CertificateSigned { request, serial, sha256: sha256_hex(certificate.blob()) };
        match self.commit(Change { at: self.clock.now(), saves: Vec::new(), events: vec![event] }).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }
}
