//! The key ring: which CA keys there are, what for, and in which state.
//!
//! What for: the ring is written whole into the log entry that changes it, so the log alone says which key could sign what, when; the
//! index of that entry is the version of the trust bundle. What not: no private halves, no backends (`signer`).
//!
//! | State | Signs | Hosts trust it |
//! |---|---|---|
//! | `staged` | no | learning |
//! | `active` | yes | yes |
//! | `draining` | no | until its last certificate has ended |
//! | `retired` | no | no |
//! | `compromised` | no, and never again | no |
//!
//! How a key moves while the service runs is in [`plan`]; which CAs there are is in [`ca`].
//!
//! Invariants: for each CA at most one key is active; a key is of one CA and stands in the ring once (I-20): a key that signs
//! user certificates must not be able to make a host believable, nor the other way round, nor open the hosts of another CA.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

pub mod ca;
mod configured;
pub mod plan;
pub mod step;

use std::collections::BTreeSet;

use thiserror::Error;

use crate::name::CaName;
use crate::ssh::bundle::{BundleKey, KEYS_MAX, KeyState};
use crate::ssh::cert::{Purpose, is_ca_algorithm};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;
pub use ca::{ActiveKey, Ca};
pub use configured::{Configured, UserKeys};

/// The most user CAs with a name. Our own choice: a ring with all keys of all of them still fits into one log entry.
pub const NAMED_MAX: usize = 8;

/// One CA key in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingKey {
    /// Whose it is.
    pub ca: Ca,
    /// Its public half.
    pub key: PublicKey,
    /// Its state.
    pub state: KeyState,
    /// Since when.
    pub since: Timestamp,
}

/// All CA keys, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring(Vec<RingKey>);

/// Why a list of keys is no ring.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RingError {
    /// More than one active key of a CA.
    #[error("two keys of one CA are active")]
    TwoActive,
    /// A key twice, perhaps of two CAs.
    #[error("one key stands there twice; user and host certificates need a key each, and so does each named CA")]
    Twice,
    /// More keys than a trust bundle can hold.
    #[error("there are more than 16 keys of one CA")]
    TooMany,
    /// A key that was compromised shall be trusted again.
    #[error("a CA key that was compromised can't be used again; take it out of the configuration, and make a new one")]
    Compromised,
    /// An algorithm that is none for CA keys.
    #[error("the algorithm is not one for CA keys: Ed25519, ECDSA on P-256 or P-384, RSA of 3072 bits or more")]
    Algorithm,
}

impl Ring {
    /// The ring of these keys.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn new(keys: Vec<RingKey>) -> Result<Self, RingError> {
        let cas: BTreeSet<&Ca> = keys.iter().map(|known| &known.ca).collect();
        let active = |ca: &&Ca| keys.iter().filter(|k| k.ca == **ca && k.state == KeyState::Active).count() > 1;
        let distinct = keys.iter().map(|k| &k.key).collect::<BTreeSet<_>>().len();
        if distinct != keys.len() {
            return Err(RingError::Twice);
        }
        if cas.iter().any(active) {
            return Err(RingError::TwoActive);
        }
        if cas.iter().any(|ca| keys.iter().filter(|known| known.ca == **ca).count() > KEYS_MAX) {
            return Err(RingError::TooMany);
        }
        if keys.iter().all(|k| is_ca_algorithm(k.key.algorithm())) { Ok(Self(keys)) } else { Err(RingError::Algorithm) }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[RingKey] {
        &self.0
    }

    /// The key that signs for this CA.
    #[must_use]
    pub fn active(&self, ca: &Ca) -> Option<&PublicKey> {
        self.0.iter().find(|k| k.ca == *ca && k.state == KeyState::Active).map(|k| &k.key)
    }

    /// The same, with the CA that it signs for.
    #[must_use]
    pub fn signs_for(&self, ca: &Ca) -> Option<ActiveKey> {
        self.active(ca).map(|key| ActiveKey::new(ca.clone(), key.clone()))
    }

    /// The user CAs that have a key here, whatever its state; the default one in any case.
    #[must_use]
    pub fn user_cas(&self) -> BTreeSet<CaName> {
        let name = |known: &RingKey| match &known.ca {
            Ca::User(name) => Some(name.clone()),
            Ca::Host => None,
        };
        self.0.iter().filter_map(name).chain([CaName::DEFAULT]).collect()
    }

    /// What is known of this key.
    #[must_use]
    pub fn known(&self, key: &PublicKey) -> Option<&RingKey> {
        self.0.iter().find(|known| known.key == *key)
    }

    /// The keys that clients must trust for host certificates.
    pub fn trusted_by_clients(&self) -> impl Iterator<Item = &PublicKey> {
        let trusted = self.0.iter().filter(|known| known.ca == Ca::Host && known.state.is_trusted());
        trusted.map(|known| &known.key)
    }

    /// What the hosts of a CA must trust for user certificates.
    #[must_use]
    pub fn trusted_by_hosts(&self, name: &CaName) -> Vec<BundleKey> {
        let is_its = |known: &&RingKey| matches!(&known.ca, Ca::User(of) if of == name) && known.state.is_trusted();
        let trusted = self.0.iter().filter(is_its);
        trusted.map(|k| BundleKey { key: k.key.clone(), state: k.state, since: k.since }).collect()
    }

    /// The keys of a user CA by which certificates may last: what a host keeps that goes over to another CA.
    #[must_use]
    pub fn have_signed(&self, name: &CaName) -> BTreeSet<Fingerprint> {
        let trusted = self.trusted_by_hosts(name).into_iter();
        trusted.filter(|known| known.state != KeyState::Staged).map(|known| known.key.fingerprint()).collect()
    }
}

impl RingKey {
    /// What it signs.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.ca.purpose()
    }

    /// In this state from now on, or as it was.
    fn moved(&self, state: KeyState, now: Timestamp) -> Self {
        let since = if self.state == state { self.since } else { now };
        Self { state, since, ..self.clone() }
    }
}

/// Retired keys are forgotten, oldest first, where a CA has too many. What was compromised is never forgotten.
fn forget(mut keys: Vec<RingKey>) -> Vec<RingKey> {
    let cas: BTreeSet<Ca> = keys.iter().map(|known| known.ca.clone()).collect();
    for ca in cas {
        while keys.iter().filter(|known| known.ca == ca).count() > KEYS_MAX {
            let Some(oldest) = keys.iter().position(|k| k.ca == ca && k.state == KeyState::Retired) else { break };
            keys.remove(oldest);
        }
    }
    keys
}
