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
//!
//! Invariants: for each purpose at most one key is active; a key has one purpose and stands in the ring once (I-20): a key that signs
//! user certificates must not be able to make a host believable, nor the other way round.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use thiserror::Error;

use crate::ssh::PublicKey;
use crate::ssh::bundle::{BundleKey, KEYS_MAX, KeyState};
use crate::ssh::cert::{Purpose, is_ca_algorithm};
use crate::time::Timestamp;

/// One CA key in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingKey {
    /// What it signs.
    pub purpose: Purpose,
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
    /// More than one active key for a purpose.
    #[error("two CA keys are active for one purpose")]
    TwoActive,
    /// A key twice, perhaps for both purposes.
    #[error("one key stands for two CA keys; user and host certificates need a key each")]
    Twice,
    /// More keys than a trust bundle can hold.
    #[error("there are more than 16 CA keys")]
    TooMany,
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
        let active = |purpose| keys.iter().filter(|k| k.purpose == purpose && k.state == KeyState::Active).count();
        let distinct = keys.iter().map(|k| &k.key).collect::<BTreeSet<_>>().len();
        if distinct != keys.len() {
            return Err(RingError::Twice);
        }
        if Purpose::ALL.into_iter().any(|purpose| active(purpose) > 1) {
            return Err(RingError::TwoActive);
        }
        if keys.len() > KEYS_MAX {
            return Err(RingError::TooMany);
        }
        if keys.iter().all(|k| is_ca_algorithm(k.key.algorithm())) { Ok(Self(keys)) } else { Err(RingError::Algorithm) }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[RingKey] {
        &self.0
    }

    /// The key that signs for this purpose.
    #[must_use]
    pub fn active(&self, purpose: Purpose) -> Option<&PublicKey> {
        self.0.iter().find(|k| k.purpose == purpose && k.state == KeyState::Active).map(|k| &k.key)
    }

    /// The ring in which exactly the configured keys are active: what a start of the service makes of the one before.
    ///
    /// A key that is configured no longer is retired at once: whoever took it out of the configuration may have done so because it was
    /// stolen. Retired keys are forgotten, oldest first, where a bundle could not hold them.
    ///
    /// # Errors
    /// [`RingError`] when the configured keys don't go together.
    pub fn configured(&self, user: &PublicKey, host: Option<&PublicKey>, now: Timestamp) -> Result<Self, RingError> {
        let wanted: Vec<(Purpose, &PublicKey)> =
            std::iter::once((Purpose::User, user)).chain(host.map(|key| (Purpose::Host, key))).collect();
        let is_wanted = |key: &RingKey| wanted.contains(&(key.purpose, &key.key));
        let into = |state: KeyState, key: &RingKey| {
            let since = if key.state == state { key.since } else { now };
            RingKey { state, since, ..key.clone() }
        };
        let state = |key: &RingKey| if is_wanted(key) { KeyState::Active } else { KeyState::Retired };
        let mut keys: Vec<RingKey> = self.0.iter().map(|key| into(state(key), key)).collect();
        for &(purpose, key) in &wanted {
            if !self.0.iter().any(|known| known.purpose == purpose && known.key == *key) {
                keys.push(RingKey { purpose, key: key.clone(), state: KeyState::Active, since: now });
            }
        }
        while keys.len() > KEYS_MAX {
            let Some(oldest) = keys.iter().position(|key| key.state == KeyState::Retired) else { break };
            keys.remove(oldest);
        }
        Self::new(keys)
    }

    /// What hosts must trust for user certificates.
    #[must_use]
    pub fn trusted_by_hosts(&self) -> Vec<BundleKey> {
        let trusted = self.0.iter().filter(|k| k.purpose == Purpose::User && k.state.is_trusted());
        trusted.map(|k| BundleKey { key: k.key.clone(), state: k.state, since: k.since }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::private::SessionKey;

    fn key(seed: u8) -> PublicKey {
        SessionKey::generate([seed; 32]).public_key().clone()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_767_607_200_u64.saturating_add(seconds)).unwrap()
    }

    fn states(ring: &Ring) -> Vec<(Purpose, KeyState, Timestamp)> {
        ring.keys().iter().map(|k| (k.purpose, k.state, k.since)).collect()
    }

    #[test]
    fn the_configured_keys_are_active_and_the_same_again_changes_nothing() {
        let first = Ring::default().configured(&key(1), Some(&key(2)), at(0)).unwrap();
        assert_eq!(
            states(&first),
            [(Purpose::User, KeyState::Active, at(0)), (Purpose::Host, KeyState::Active, at(0))]
        );
        assert_eq!(first.configured(&key(1), Some(&key(2)), at(9)), Ok(first.clone()));
        assert_eq!(first.active(Purpose::User), Some(&key(1)));
        assert_eq!(first.trusted_by_hosts().len(), 1, "hosts do not trust the host key for users");
    }

    #[test]
    fn a_key_that_is_configured_no_longer_is_trusted_no_longer() {
        let first = Ring::default().configured(&key(1), Some(&key(2)), at(0)).unwrap();
        let second = first.configured(&key(3), None, at(5)).unwrap();
        assert_eq!(
            states(&second),
            [
                (Purpose::User, KeyState::Retired, at(5)),
                (Purpose::Host, KeyState::Retired, at(5)),
                (Purpose::User, KeyState::Active, at(5)),
            ]
        );
        assert_eq!(second.trusted_by_hosts().iter().map(|k| k.key.clone()).collect::<Vec<_>>(), [key(3)]);
    }

    #[test]
    fn one_key_never_serves_both_purposes() {
        assert_eq!(Ring::default().configured(&key(1), Some(&key(1)), at(0)), Err(RingError::Twice));
        let first = Ring::default().configured(&key(1), None, at(0)).unwrap();
        let swapped = first.configured(&key(2), Some(&key(1)), at(1));
        assert_eq!(swapped, Err(RingError::Twice), "some host may still trust it for the other");
    }

    #[test]
    fn a_ring_that_is_full_forgets_retired_keys_first() {
        let mut ring = Ring::default();
        for seed in 0..40 {
            ring = ring.configured(&key(seed), None, at(u64::from(seed))).unwrap();
        }
        assert_eq!((ring.keys().len(), ring.active(Purpose::User)), (KEYS_MAX, Some(&key(39))));
    }
}
