//! Keys that have been judged before, so that who reads many certificates judges each key of theirs once.
//!
//! What for: whether a point lies on its curve is most of what reading a certificate costs, and a log has the same keys again and again.
//!
//! What not: nothing global and nothing kept: whoever reads has one and drops it.
//!
//! Invariants: a key is known by all of its bytes, and only because the strict reader took just these; at most [`KEYS_MAX`] at a time.
//!
//! *Why a table in which one key puts out another?* Most subjects' keys are made for one certificate and never come again. Keeping one must cost
//! next to nothing, and which ones will come again nobody can say; those that do are soon here again.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::{KeyError, PublicKey};

/// The most keys that are kept: a megabyte, if all are the longest RSA ones. Our own choice.
const KEYS_MAX: usize = 1024;

/// Keys that the strict reader has taken.
#[derive(Debug, Default)]
pub struct KnownKeys {
    /// None, or [`KEYS_MAX`] places, each for the keys that end in the same two bytes.
    places: Vec<Option<PublicKey>>,
}

impl KnownKeys {
    /// As [`PublicKey::parse_blob`].
    ///
    /// # Errors
    /// The same.
    pub fn parse_blob(&mut self, blob: &[u8]) -> Result<PublicKey, KeyError> {
        let Some(place) = self.place_of(blob) else { return PublicKey::parse_blob(blob) };
        match place {
            Some(known) if known.blob == blob => Ok(known.clone()),
            Some(_) | None => {
                let key = PublicKey::parse_blob(blob)?;
                *place = Some(key.clone());
                Ok(key)
            }
        }
    }

    fn place_of(&mut self, blob: &[u8]) -> Option<&mut Option<PublicKey>> {
        if self.places.is_empty() {
            self.places.resize(KEYS_MAX, None);
        }
        let end = usize::from(u16::from_be_bytes(*blob.last_chunk()?));
        self.places.get_mut(end.checked_rem(KEYS_MAX)?)
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
    fn only_so_many_keys_are_kept_and_one_that_was_put_out_is_judged_anew() {
        let mut known = KnownKeys::default();
        let numbers = |number: u32| {
            let mut numbers = [3; 32];
            numbers[28..].copy_from_slice(&number.to_be_bytes());
            numbers
        };
        for round in 0..2 {
            // Numbers that are no points are not kept at all.
            for blob in (0..2_500).map(|number| blob_of(&numbers(number))) {
                let judged = known.parse_blob(&blob);
                assert_eq!(judged, PublicKey::parse_blob(&blob), "round {round}");
                let is_kept = known.places.iter().flatten().any(|key| key.blob == blob);
                assert_eq!(is_kept, judged.is_ok());
            }
        }
        assert_eq!(known.places.len(), KEYS_MAX);
        assert!(known.parse_blob(b"").is_err() && known.parse_blob(b"x").is_err());
    }
}
