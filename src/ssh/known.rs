//! Keys that have been judged before, so that who reads many certificates judges each key of theirs once.
//!
//! What for: whether a point lies on its curve is most of what reading a certificate costs, and a log has the same keys again and again.
//!
//! What not: nothing global and nothing kept: whoever reads has one and drops it.
//!
//! Invariants: a key is known by all of its bytes, and only because the strict reader took just these; at most [`KEYS_MAX`] at a time.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::{KeyAlgorithm, KeyError, PublicKey};

/// The most keys that are kept: a megabyte, if all are the longest RSA ones. Our own choice.
const KEYS_MAX: usize = 1_000;

/// Keys that the strict reader has taken.
#[derive(Debug, Default)]
pub struct KnownKeys(BTreeMap<Vec<u8>, KeyAlgorithm>);

impl KnownKeys {
    /// As [`PublicKey::parse_blob`].
    ///
    /// # Errors
    /// The same.
    pub fn parse_blob(&mut self, blob: &[u8]) -> Result<PublicKey, KeyError> {
        if let Some(algorithm) = self.0.get(blob) {
            return Ok(PublicKey { algorithm: *algorithm, blob: blob.to_vec() });
        }
        let key = PublicKey::parse_blob(blob)?;
        if self.0.len() >= KEYS_MAX {
            // Which ones come again, nobody can say; those that do are soon here.
            self.0.clear();
        }
        self.0.insert(blob.to_vec(), key.algorithm);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::super::encoding::put_string;
    use super::*;

    fn blob_of(numbers: &[u8]) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, numbers);
        blob
    }

    #[test]
    fn a_key_is_judged_as_without_knowing_any_the_first_time_and_later() {
        let good = blob_of(SigningKey::from_bytes(&[7; 32]).verifying_key().as_bytes());
        let mut known = KnownKeys::default();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut other = good.clone();
                other[at] ^= 1 << bit;
                for blob in [&other, &good, &other] {
                    assert_eq!(known.parse_blob(blob), PublicKey::parse_blob(blob), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn only_so_many_keys_are_kept() {
        let mut known = KnownKeys::default();
        for number in 0..2_500_u32 {
            // Numbers that are no points are not kept at all.
            let mut numbers = [3; 32];
            numbers[..4].copy_from_slice(&number.to_le_bytes());
            let is_good = known.parse_blob(&blob_of(&numbers)).is_ok();
            assert_eq!(known.0.contains_key(&blob_of(&numbers)), is_good);
            assert!(known.0.len() <= KEYS_MAX);
        }
        assert!(known.0.len() < KEYS_MAX, "it was emptied once");
    }
}
