//! CA keys: name the public key, sign a `TbsCert`, and nothing else.
//!
//! What for: the service signs through [`Signer`], whatever holds the key. A backend can't be asked to sign anything but a
//! [`TbsCert`], and only a permit can be made into one, so whoever calls, a CA key is no oracle (P7).
//!
//! What not: no policy, no requests, no log, and no judgement of its own signature: `ssh::cert::Certificate::assemble`
//! verifies what every backend returns.
//!
//! Invariant: a signer refuses a certificate that names another CA key than its own, or is of the other purpose ([`check`]).

pub mod file;

use thiserror::Error;

use crate::ssh::PublicKey;
use crate::ssh::cert::{Purpose, TbsCert};

/// A CA key in some backend. Blocking: the service runs it off the async threads, with a deadline.
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// The CA's public key.
    fn public_key(&self) -> &PublicKey;

    /// What it signs. A signer refuses certificates of the other purpose.
    fn purpose(&self) -> Purpose;

    /// Signs exactly `tbs.bytes()`; returns the wire form of the signature (algorithm name, signature).
    ///
    /// # Errors
    /// [`SignError`]; nothing was handed out.
    fn sign(&self, tbs: &TbsCert) -> Result<Vec<u8>, SignError>;
}

/// Refuses what `signer` must not sign; every backend asks this first.
///
/// # Errors
/// [`SignError::OtherKey`], [`SignError::OtherPurpose`].
pub fn check(signer: &dyn Signer, tbs: &TbsCert) -> Result<(), SignError> {
    if tbs.purpose() != signer.purpose() {
        return Err(SignError::OtherPurpose(signer.purpose()));
    }
    if tbs.ca() == signer.public_key() { Ok(()) } else { Err(SignError::OtherKey) }
}

/// Why a CA key could not be opened or did not sign.
#[derive(Debug, Error)]
pub enum SignError {
    /// `tbs.ca()` is not this signer's key.
    #[error("the certificate names another CA key")]
    OtherKey,
    /// A user certificate for a host CA key, or the other way round.
    #[error("this CA key signs {0} certificates only")]
    OtherPurpose(Purpose),
    /// The key could not be opened; the text says what and how to mend it, never key material.
    #[error("cannot use {path:?}: {why}")]
    Open {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The backend failed.
    #[error("the CA key's backend failed: {0}")]
    Backend(String),
}
