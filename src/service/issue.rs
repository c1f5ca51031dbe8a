//! From permit to certificate: intent durable in the log, sign with a deadline, verify, outcome entry, hand out.
//!
//! | Step | A crash right after it leaves | Mended by |
//! |---|---|---|
//! | `Certify` refused or allowed by the rules | nothing | – |
//! | intent committed: serial, bytes and log entry at once (P2); for a question that policy allows at once, question and grant with it | an issued certificate that nobody has | the next fetch |
//! | signed and verified | the same | the same |
//! | outcome committed | a recorded certificate that nobody has | the next fetch |
//! | checkpoint kept apart (`head`; beside the two before) | the same | the same |
//!
//! A signature that does not verify, comes too late or not at all is never handed out; the request stays issued, and
//! a later fetch gives the certificate over the same to-be-signed bytes (P3). Nothing is signed for a request that
//! was ended, or that policy refuses now (P6); and as signing takes a while, the outcome is committed only if the request is as it was
//! and the same policy, inventory and CA keys are in force by the log (I-11). Else all is decided anew.
//!
//! Why is the outcome awaited, when the design would let it follow? It costs one more group commit, and then every
//! certificate that anybody has is complete in the log, whatever happens next.

use std::sync::Arc;

use super::policy::sha256_hex;
use super::refusals::Refusals;
use super::{ATTEMPTS, CLOCK_TOLERANCE_S, Failure, Outcome, Service, whole};
use crate::access::{AccessRequest, Certified, Command, Permit, Refusal, RefusalKind, step};
use crate::audit::event::Event;
use crate::fail;
use crate::identity::Proven;
use crate::keyring::{ActiveKey, Ca};
use crate::name::{PolicyVersion, RequestId, RequestPrefix};
use crate::ssh::cert::{Certificate, Purpose, TbsCert};
use crate::store::{Basis, Change, RowVersion, Save, StoreError};

/// What became of a certificate whose CA key was withdrawn before it was fetched.
const WITHDRAWN: &str =
    "the CA key that this certificate was to be signed with is trusted no longer; end the request, and ask again";

/// What is to be signed for which request, its entry durable; and what that rests on.
pub(super) struct Intended {
    pub(super) request: RequestId,
    pub(super) certified: Certified,
    pub(super) version: RowVersion,
    pub(super) basis: Basis,
}

impl Service {
    /// The certificate of the caller's request. The first fetch of a grant makes it; later ones sign the same stored
    /// bytes.
    ///
    /// # Errors
    /// `NotFound`, `Refused`, `Unavailable` when the signer or the log can't.
    pub async fn certificate(self: &Arc<Self>, by: &Proven, id: &RequestPrefix) -> Outcome<Certificate> {
        let (this, by, prefix) = (Arc::clone(self), by.clone(), id.clone());
        whole(async move {
            let mut signed = None;
            for _ in 0..ATTEMPTS {
                let Some(intended) = this.certify(&by, &prefix).await? else { continue };
                if let Some(certificate) = this.sign_intended(&intended, &mut signed).await? {
                    return Ok(certificate);
                }
            }
            Err(Failure::contended())
        })
        .await
    }

    /// Signs what is intended, and makes the outcome durable; `None` when what it rests on is not so any more. What was `signed` by then is
    /// kept for the next attempt: however slow a CA key is, an attempt after the first lasts no longer than a commit.
    pub(super) async fn sign_intended(
        &self,
        intended: &Intended,
        signed: &mut Option<Certificate>,
    ) -> Outcome<Option<Certificate>> {
        // Side by side: neither needs the other, both must be done. A store put back from an older copy must not use this serial again.
        let kept = self.keep_head(intended.certified.serial.number().saturating_add(1));
        let signing = async {
            let tbs = &intended.certified.tbs;
            let certificate = match signed.take().filter(|earlier| earlier.tbs() == tbs) {
                Some(earlier) => self.check_trusted(tbs).map(|_ca| earlier)?,
                None => self.sign(intended.request, &intended.certified).await?,
            };
            fail::point("issue.signed");
            let is_good = self.record_outcome(intended, &certificate).await?;
            fail::point("issue.outcome.durable");
            if is_good {
                return Ok(Some(certificate));
            }
            *signed = Some(certificate);
            Ok(None)
        };
        tokio::try_join!(signing, kept).map(|(certificate, ())| certificate)
    }

    /// Asks the rules, and makes the intent durable if this is the grant's first fetch; `None` when somebody else was
    /// faster.
    async fn certify(&self, by: &Proven, id: &RequestPrefix) -> Outcome<Option<Intended>> {
        self.check_issuing().await?;
        let (_guard, check) = self.hold_policy().await?;
        let basis = self.basis();
        let (policy_version, policy) = (check.version, Arc::clone(&check.policy));
        let stored = self.find_logged(by, id, &policy).await?;
        let (request, version, now) = (stored.request.id(), stored.version, self.clock.now());
        let taken = match step(stored.request, Command::Certify { by: by.clone(), check }, now) {
            Ok(taken) => taken,
            Err(why) => {
                if why.kind() == RefusalKind::Policy && !self.refusals.take(by.person(), now) {
                    return Err(Failure::TooMany(Refusals::too_many()));
                }
                return match self.record_refusal(by, request, &why, policy_version).await {
                    Ok(()) => Err(why.into()),
                    Err(StoreError::Conflict) => Ok(None),
                    Err(failed) => Err(failed.into()),
                };
            }
        };
        let Some(permit) = taken.permit else {
            let certified = taken.request.grant().and_then(|grant| grant.certificate.clone());
            let nothing = || Failure::internal("fetching a certificate", "neither a permit nor a certificate");
            return Ok(Some(Intended { request, certified: certified.ok_or_else(nothing)?, version, basis }));
        };
        let change = Change { at: now, saves: Vec::new(), events: taken.events };
        self.intend(permit, version, basis, change).await.map(|done| done.map(|(intended, _)| intended))
    }

    /// Commits `change`, and with it the intent to certify what `permit` allows of the row at `version`; `None` when somebody else was
    /// faster. Gives the request as it is then. Called with the policy held since before `basis` was read.
    pub(super) async fn intend(
        &self,
        permit: Permit,
        version: RowVersion,
        basis: Basis,
        mut change: Change,
    ) -> Outcome<Option<(Intended, AccessRequest)>> {
        self.check_clock()?;
        let ca = self.ca_for(&permit)?;
        change.saves.splice(0..0, [Save::OnBasis(basis), Save::OnTime { tolerance: CLOCK_TOLERANCE_S }]);
        change.saves.push(Save::Certify { permit: Box::new(permit), ca, nonce: self.random()?, expected: version });
        let mut committed = match self.commit(change).await {
            Ok(committed) => committed,
            Err(StoreError::Conflict) => return Ok(None),
            Err(why) => return Err(why.into()),
        };
        fail::point("issue.intent.durable");
        let (Some(tbs), Some(stored)) = (committed.tbs, committed.requests.pop()) else {
            return Err(Failure::internal("fetching a certificate", "the store made none"));
        };
        let certified = Certified { serial: tbs.fields().serial, tbs };
        let intended = Intended { request: stored.request.id(), certified, version: stored.version, basis };
        Ok(Some((intended, stored.request)))
    }

    /// The key that signs what this permit allows, if its backend is there, and the hosts are where the permit takes them to be.
    pub(super) fn ca_for(&self, permit: &Permit) -> Outcome<ActiveKey> {
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

    /// The CA of a certificate that is to be signed, if its key is trusted still.
    fn check_trusted(&self, tbs: &TbsCert) -> Outcome<Ca> {
        self.keys.now().trusted(tbs.purpose(), tbs.ca()).ok_or_else(|| Failure::Conflict(WITHDRAWN.to_owned()))
    }

    /// Has the CA key for its purpose sign what is durably in the log, with a deadline and (unless it is quick) off the async threads, and
    /// believes nothing of it.
    pub(super) async fn sign_tbs(&self, tbs: &TbsCert) -> Outcome<Certificate> {
        let unavailable = |why: &str| {
            let (serial, key_id) = (tbs.fields().serial, tbs.fields().key_id.as_str());
            tracing::error!(%serial, key_id, why, "signing failed; nothing was handed out");
            Failure::Unavailable("the CA key did not sign; fetch again later, the request stays as it is".to_owned())
        };
        let ca = self.check_trusted(tbs)?;
        let slots = match tbs.purpose() {
            Purpose::User => &self.sign_slots,
            Purpose::Host => &self.hosts.sign_slots,
        };
        let signer = self.keys.signer(tbs.ca()).filter(|signer| signer.purpose() == tbs.purpose());
        let signer = Arc::clone(signer.ok_or_else(|| unavailable("there is no CA key for it"))?);
        let (slots, to_sign, is_quick) = (Arc::clone(slots), tbs.clone(), signer.is_quick());
        let work = async move {
            let slot = slots.acquire_owned().await.map_err(|closed| closed.to_string())?;
            let sign = move || {
                // Held by the thread itself: a backend that hangs keeps its slot although nobody waits any more.
                let _slot = slot;
                let blob = signer.sign(&to_sign).map_err(|why| why.to_string())?;
                Certificate::assemble(to_sign, &blob).map_err(|why| why.to_string())
            };
            if is_quick {
                return sign();
            }
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

    /// Writes the outcome entry; the store takes one per certificate, so that a repeated fetch adds nothing. False: what it rests on is not
    /// so any more.
    async fn record_outcome(&self, intended: &Intended, certificate: &Certificate) -> Outcome<bool> {
        let Intended { request, certified, version, basis } = intended;
        let (request, serial) = (*request, certified.serial);
        let saves = vec![Save::OnBasis(*basis), Save::AsRead { request, version: *version }];
        let event = Event::CertificateSigned { request, serial, sha256: sha256_hex(certificate.blob()) };
        match self.try_commit(Change { at: self.clock.now(), saves, events: vec![event] }).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(true),
            Err(StoreError::Superseded) => Ok(false),
            Err(StoreError::Overtaken) => {
                if self.store.is_shared() {
                    self.doubt();
                }
                Ok(false)
            }
            Err(why) => Err(why.into()),
        }
    }
}
