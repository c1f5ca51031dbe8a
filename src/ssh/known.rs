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
