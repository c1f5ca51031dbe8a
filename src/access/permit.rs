//! From a granted request to the one certificate of its grant: the check, the permit, the bytes to be signed.
//!
//! What for: a CA key signs a `TbsCert`, a `TbsCert` comes from a [`Permit`], and a `Permit` from `certify` here alone (P7).
//!
//! What not: no signing, no serial of our own choice: the store calls [`Permit::to_be_signed`] inside the transaction
//! that makes the log entry whose index is the serial (P2).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::{AccessRequest, Certified, Check, Parts, Refusal, State, question};
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::keyring::{ActiveKey, Ca};
use crate::name::{PolicyVersion, Serial};
use crate::ssh::cert::{CertError, Fields, KeyId, TbsCert};
use crate::time::Timestamp;

/// Unforgeable: this request may be certified now, with this window, on these terms. Only `step` makes one.
///
/// A permit says what was true of the row it was made from: whoever uses it saves with a compare-and-swap on that row, so
/// that two permits of one grant yield one certificate (P3, I-10).
#[derive(Debug)]
pub struct Permit {
    request: AccessRequest,
    version: PolicyVersion,
}

/// Whether the last grant may be certified now; the permit, unless it was certified before.
pub(super) fn certify(parts: Parts, by: &Proven, check: &Check, now: Timestamp) -> Result<Option<Permit>, Refusal> {
    if *by.person() != parts.asker {
        return Err(Refusal::NotTheirs { asker: parts.asker, act: "fetch its certificate" });
    }
    match &parts.state {
        State::Pending { .. } => return Err(Refusal::Undecided),
        State::Approved | State::Issued => {}
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => {
            return Err(Refusal::over(&parts.state));
        }
    }
    let Some(grant) = parts.grants.last() else { return Err(Refusal::Undecided) };
    // What starts later is certified then, by the policy of that hour (P6).
    if now < grant.window.start() {
        return Err(Refusal::NotYet { from: grant.window.start() });
    }
    let asked = question::granted(&parts, now);
    let (given, quorum) = question::ask(check, &asked)?;
    question::within(&parts.terms, asked.lifetime.unwrap_or(parts.terms.lifetime), &given, check.version)?;
    if quorum.is_some_and(|quorum| !quorum.is_met(&grant.approvers, check.policy.directory())) {
        return Err(Refusal::QuorumNoLongerMet { version: check.version });
    }
    if grant.certificate.is_some() {
        return Ok(None);
    }
    Ok(Some(Permit { request: AccessRequest(parts), version: check.version }))
}

/// What the certificate of this request's last grant says, if there is a grant. The one place that knows.
pub(super) fn fields(parts: &Parts, grant: &super::Grant, serial: Serial) -> Result<Fields, CertError> {
    let key_id = KeyId::new(&parts.id, &parts.asker).map_err(|_too_long| CertError::Lint("the key id is too long"))?;
    Ok(Fields {
        serial,
        key_id,
        principals: parts.terms.hosts.values().cloned().collect(),
        window: grant.window,
        options: parts.terms.options.clone(),
    })
}

impl Permit {
    /// Whom it is about.
    #[must_use]
    pub const fn request(&self) -> &AccessRequest {
        &self.request
    }

    /// The to-be-signed certificate with this serial, the request that has it, and the log entry that holds exactly these
    /// bytes. Called by the store inside the transaction that assigns the serial (the index of the log entry).
    ///
    /// # Errors
    /// The linter's refusal, and a key of another CA than that of the hosts; then nothing is written and nothing is issued.
    pub fn to_be_signed(
        &self,
        serial: Serial,
        ca: &ActiveKey,
        nonce: [u8; 32],
    ) -> Result<(AccessRequest, Event, TbsCert), CertError> {
        let mut parts = self.request.0.clone();
        if *ca.ca() != Ca::User(parts.terms.ca.clone()) {
            return Err(CertError::Lint("the key is of another CA than the hosts"));
        }
        let ca = ca.key();
        let grant = parts.grants.last().ok_or(CertError::Lint("nothing was granted"))?;
        let tbs = TbsCert::new(fields(&parts, grant, serial)?, &parts.key, ca, nonce)?;
        let event = Event::CertificateToBeSigned {
            request: parts.id,
            person: parts.asker.clone(),
            serial,
            ca: ca.fingerprint(),
            window: grant.window,
            tbs: tbs.bytes().to_vec(),
            policy: self.version,
        };
        if let Some(grant) = parts.grants.last_mut() {
            grant.certificate = Some(Certified { serial, tbs: tbs.clone() });
        }
        parts.state = State::Issued;
        Ok((AccessRequest(parts), event, tbs))
    }
}
