//! Signatures as security tokens make them (PKCS#11), brought into SSH's form.
//!
//! | Key | The token is given | It answers | SSH wants |
//! |---|---|---|---|
//! | Ed25519 | the data | 64 bytes | the same |
//! | ECDSA P-256, P-384 | its SHA-256, SHA-384 | `r ‖ s`, of equal length | two `mpint` |
//! | RSA | the data (it hashes with SHA-512 itself) | as long as the modulus | the same |
//!
//! What not: whether a signature verifies.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256, Sha384};

use super::KeyAlgorithm;
use super::encoding::put_string;

/// What a token is given to sign `data`.
#[must_use]
pub fn input(algorithm: KeyAlgorithm, data: &[u8]) -> Option<Cow<'_, [u8]>> {
    match algorithm {
        KeyAlgorithm::Ed25519 | KeyAlgorithm::Rsa => Some(Cow::Borrowed(data)),
        KeyAlgorithm::EcdsaP256 => Some(Cow::Owned(Sha256::digest(data).to_vec())),
        KeyAlgorithm::EcdsaP384 => Some(Cow::Owned(Sha384::digest(data).to_vec())),
        KeyAlgorithm::EcdsaP521 | KeyAlgorithm::SkEd25519 | KeyAlgorithm::SkEcdsaP256 => None,
    }
}

/// The wire form of what a token answered.
#[must_use]
pub fn signature(algorithm: KeyAlgorithm, raw: &[u8]) -> Option<Vec<u8>> {
    let (name, bytes) = match algorithm {
        KeyAlgorithm::Ed25519 => (algorithm.name(), raw.to_vec()),
        KeyAlgorithm::Rsa => ("rsa-sha2-512", raw.to_vec()),
        KeyAlgorithm::EcdsaP256 => (algorithm.name(), two_numbers(raw, 32)?),
        KeyAlgorithm::EcdsaP384 => (algorithm.name(), two_numbers(raw, 48)?),
        KeyAlgorithm::EcdsaP521 | KeyAlgorithm::SkEd25519 | KeyAlgorithm::SkEcdsaP256 => return None,
    };
    let mut blob = Vec::new();
    put_string(&mut blob, name.as_bytes());
    put_string(&mut blob, &bytes);
    Some(blob)
}

/// `r ‖ s` as two `mpint` (RFC 4251 section 5): without zeros before, with one where the first bit would make it negative.
fn two_numbers(raw: &[u8], length: usize) -> Option<Vec<u8>> {
    let (r, s) = raw.split_at_checked(length).filter(|(_, s)| s.len() == length)?;
    let mut out = Vec::new();
    for number in [r, s] {
        let zeros = number.iter().take_while(|digit| **digit == 0).count();
        let digits = number.get(zeros..).unwrap_or_default();
        let mut mpint = Vec::new();
        if digits.first().is_some_and(|first| *first >= 0x80) {
            mpint.push(0);
        }
        mpint.extend_from_slice(digits);
        put_string(&mut out, &mpint);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_numbers_of_an_ecdsa_signature_are_in_their_shortest_form() {
        let mut raw = [0; 64];
        raw[31] = 5;
        raw[32] = 0x80;
        let two = two_numbers(&raw, 32).unwrap();
        let second: Vec<u8> = [&[0, 0, 0, 33, 0, 0x80][..], &[0; 31]].concat();
        assert_eq!(two, [&[0, 0, 0, 1, 5][..], &second].concat());
        assert!(two_numbers(&raw[..63], 32).is_none() && two_numbers(&[1; 65], 32).is_none());
        assert_eq!(two_numbers(&[0; 64], 32).unwrap(), [0; 8]);
    }
}
