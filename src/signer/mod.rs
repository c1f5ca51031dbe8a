//! CA keys: name the public key, sign a `TbsCert`, and nothing else.
//!
//! What for: the service signs through [`Signer`], whatever holds the key. A backend can't be asked to sign anything but a
//! [`TbsCert`], and only a permit can be made into one, so whoever calls, a CA key is no oracle (P7).
//!
//! Backends: a key file ([`mod@file`]), an ssh-agent ([`agent`]), a PKCS#11 token ([`pkcs11`]). Another kind is another file here, two
//! functions long for the thread in `worker` that keeps deadlines, and an arm in [`open`]; nothing outside `signer` changes.
//!
//! What not: no policy, no requests, no log, and no judgement of its own signature: `ssh::cert::Certificate::assemble`
//! verifies what every backend returns.
//!
//! Invariant: a signer refuses a certificate that names another CA key than its own, or is of the other purpose ([`check`]).

pub mod agent;
pub mod file;
pub mod pkcs11;
mod worker;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::secret;
use crate::ssh::PublicKey;
use crate::ssh::cert::{Purpose, TbsCert, is_ca_algorithm};

/// The longest public key file: an RSA key of 8192 bits has 1,400 bytes.
const PUBLIC_KEY_BYTES_MAX: u64 = 16 * 1024;

/// Which backend holds a CA key, and where.
#[derive(Clone, Debug)]
pub enum Settings {
    /// A private key file.
    File(file::Settings),
    /// An ssh-agent.
    Agent(agent::Settings),
    /// A PKCS#11 token.
    Pkcs11(pkcs11::Settings),
}

/// Whether a CA key can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Up,
    /// Not; says why, without a secret.
    Down(String),
}

/// Opens a CA key: reaches its backend, and makes sure that it signs with the configured key. `patience` is how long a backend may take
/// for each answer.
///
/// # Errors
/// [`SignError::Open`], [`SignError::Remote`], [`SignError::Pin`].
pub fn open(settings: &Settings, purpose: Purpose, patience: Duration) -> Result<Arc<dyn Signer>, SignError> {
    match settings {
        Settings::File(settings) => Ok(Arc::new(file::FileSigner::open(settings, purpose)?)),
        Settings::Agent(settings) => {
            let key = public_key(&settings.public_key)?;
            let agent = agent::Agent { socket: settings.socket.clone() };
            Ok(Arc::new(worker::Remote::open(agent, key, purpose, patience)?))
        }
        Settings::Pkcs11(settings) => {
            let key = public_key(&settings.public_key)?;
            let pin = secret::passphrase(&settings.pin_path).map_err(|why| refuse(&settings.pin_path, why))?;
            let token = pkcs11::Token { settings: settings.clone(), pin };
            Ok(Arc::new(worker::Remote::open(token, key, purpose, patience)?))
        }
    }
}

/// The public half of a CA key, from a file as `id_ed25519.pub`.
///
/// # Errors
/// [`SignError::Open`].
pub fn public_key(path: &Path) -> Result<PublicKey, SignError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(PUBLIC_KEY_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| refuse(path, error.to_string()))?;
    let key = PublicKey::parse_openssh(text.trim_end()).map_err(|error| refuse(path, error.to_string()))?;
    if is_ca_algorithm(key.algorithm()) {
        return Ok(key);
    }
    let name = key.algorithm().name();
    Err(refuse(
        path,
        format!("{name} is not for CA keys; take ed25519, ECDSA on P-256 or P-384, or RSA from 3072 bits"),
    ))
}

fn refuse(path: &Path, why: String) -> SignError {
    SignError::Open { path: path.display().to_string(), why }
}

/// A CA key in some backend. Blocking, unless it is quick: the service runs it off the async threads, with a deadline.
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

    /// Whether it signs where it is called, as a key in memory does: in less time than it takes to have another thread do it.
    fn is_quick(&self) -> bool {
        false
    }

    /// Whether it can be used now, without asking it. A key in memory always can.
    fn health(&self) -> Health {
        Health::Up
    }
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
    /// An agent or a token can't be used.
    #[error("cannot use the CA key, {name}: {why}")]
    Remote {
        /// Which one.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A token did not take the PIN, which must not be tried again and again: most lock themselves.
    #[error("cannot use the CA key, {name}: {why}")]
    Pin {
        /// Which token.
        name: String,
        /// What it said.
        why: String,
    },
    /// The backend failed.
    #[error("the CA key's backend failed: {0}")]
    Backend(String),
}
