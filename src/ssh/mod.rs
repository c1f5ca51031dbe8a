//! SSH public keys that hallpass accepts, and their fingerprints.
//!
//! What for: a [`PublicKey`] that exists is of an accepted algorithm and size, is no certificate, and has exactly one
//! spelling, so equality of its wire bytes (RFC 4253 section 6.6, PROTOCOL.u2f) is equality of keys.
//!
//! What not: whose key it is (that is `identity`), and whether its private half was proven (that is [`sig`]).
//!
//! Invariants: points lie on their curve and are not compressed, an Ed25519 key is not of small order, RSA numbers are
//! minimal, the modulus has 3072 to 8192 bits and the exponent at most 32; no trailing bytes anywhere.
//!
//! Decisions: sizes of RSA keys are ours to enforce, `sshd` 9.2 still takes 1024 bits. 8192 is the largest modulus that
//! the RSA crate verifies; a larger one could be certified but could never log in, so it is refused at once.
//!
//! This folder is the only user of the `ssh-key` crate.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

pub mod agent;
pub mod belonging;
pub mod bundle;
pub mod cert;
mod encoding;
pub mod host;
pub mod known;
pub mod private;
pub mod sig;
pub mod token;

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use encoding::Reader;

/// The most bytes in a key, as a line and on the wire. An RSA key of 8192 bits has 1,044.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// The sizes of an RSA modulus, in bits (NIST SP 800-57: 3072 for 128 bits of strength).
const RSA_BITS: std::ops::RangeInclusive<usize> = 3072..=8192;

/// The longest application string of a security key that is taken; OpenSSH's own is `ssh:`.
const APPLICATION_BYTES_MAX: usize = 256;

/// The algorithms hallpass accepts for subjects and logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyAlgorithm {
    /// `ssh-ed25519`
    Ed25519,
    /// `ecdsa-sha2-nistp256`
    EcdsaP256,
    /// `ecdsa-sha2-nistp384`
    EcdsaP384,
    /// `ecdsa-sha2-nistp521`
    EcdsaP521,
    /// `ssh-rsa` with a modulus of at least 3072 bits
    Rsa,
    /// `sk-ssh-ed25519@openssh.com`
    SkEd25519,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`
    SkEcdsaP256,
}

/// A public key of an accepted algorithm and size. Equality is by wire bytes; comments are not kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey {
    algorithm: KeyAlgorithm,
    blob: Vec<u8>,
}

/// The SHA-256 of a public key's wire form, shown as OpenSSH does: `SHA256:…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// Why a public key is not accepted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not a public key in OpenSSH's one-line form (or not its wire form).
    #[error("not an OpenSSH public key")]
    Malformed,
    /// A certificate where a key belongs (CVE-2025-49825's class).
    #[error("this is a certificate, not a public key")]
    IsCertificate,
    /// An algorithm hallpass does not accept.
    #[error("{0:?} keys are not accepted; use ed25519, ecdsa, rsa of 3072 bits or more, or a security key (sk-)")]
    Algorithm(String),
    /// An RSA key below 3072 or above 8192 bits.
    #[error("an RSA key of {0} bits is not accepted; it takes 3072 to 8192")]
    RsaSize(usize),
    /// `authorized_keys` options (`from="…"`, `cert-authority`) in front of the key.
    #[error("options before the key are not accepted; give the key alone, as in id_ed25519.pub")]
    HasOptions,
    /// More bytes than any accepted key has.
    #[error("the key is longer than 16 KiB")]
    TooLong,
}

impl PublicKey {
    /// Parses one line as in `id_ed25519.pub`; a comment is allowed and dropped, options are refused.
    ///
    /// # Errors
    /// [`KeyError`] with the reason.
    pub fn parse_openssh(line: &str) -> Result<Self, KeyError> {
        if line.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line).trim_matches(' ');
        if line.chars().any(char::is_control) {
            return Err(KeyError::Malformed);
        }
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let (Some(name), Some(base64)) = (words.next(), words.next()) else { return Err(KeyError::Malformed) };
        let Some(algorithm) = KeyAlgorithm::from_name(name) else {
            return Err(Self::why_not(name, std::iter::once(base64).chain(words)));
        };
        let blob = BASE64.decode(base64.as_bytes()).ok().ok_or(KeyError::Malformed)?;
        let key = Self::parse_blob(&blob)?;
        if key.algorithm == algorithm { Ok(key) } else { Err(KeyError::Malformed) }
    }

    /// Why a line whose first word is not an accepted algorithm is refused.
    fn why_not<'a>(name: &str, mut words: impl Iterator<Item = &'a str>) -> KeyError {
        if is_certificate_name(name) {
            KeyError::IsCertificate
        } else if words.any(|word| KeyAlgorithm::from_name(word).is_some()) {
            KeyError::HasOptions
        } else {
            KeyError::Algorithm(name.chars().take(64).collect())
        }
    }

    /// Parses the wire form (RFC 4253 section 6.6 and PROTOCOL.u2f).
    ///
    /// # Errors
    /// [`KeyError`] with the reason.
    pub fn parse_blob(blob: &[u8]) -> Result<Self, KeyError> {
        if blob.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        let mut reader = Reader::new(blob);
        let name = reader.text().ok_or(KeyError::Malformed)?;
        if is_certificate_name(name) {
            return Err(KeyError::IsCertificate);
        }
        let algorithm =
            KeyAlgorithm::from_name(name).ok_or_else(|| KeyError::Algorithm(name.chars().take(64).collect()))?;
        algorithm.check_numbers(&mut reader)?;
        // A second opinion, from the crate that verifies with this key later.
        let reread = ssh_key::PublicKey::from_bytes(blob).and_then(|key| key.to_bytes());
        if !reader.is_at_end() || reread.as_deref() != Ok(blob) {
            return Err(KeyError::Malformed);
        }
        Ok(Self { algorithm, blob: blob.to_vec() })
    }

    /// The wire form without the algorithm's name, as a certificate embeds it.
    fn numbers(&self) -> &[u8] {
        let mut reader = Reader::new(&self.blob);
        let name = reader.string();
        debug_assert_eq!(name, Some(self.algorithm.name().as_bytes()), "a key's wire form starts with its algorithm");
        reader.rest()
    }

    /// The application string (`ssh:`) of a security key, which its signatures cover.
    fn application(&self) -> Option<&[u8]> {
        let mut reader = Reader::new(self.numbers());
        let mut last = None;
        while let Some(field) = reader.string() {
            last = Some(field);
        }
        last.filter(|_| self.algorithm.is_security_key())
    }

    /// The wire form.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// The fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(&self.blob).into())
    }

    /// `ssh-ed25519 AAAA…`, without a comment.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        format!("{} {}", self.algorithm.name(), BASE64.encode(&self.blob))
    }
}

impl KeyAlgorithm {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// How many strings the wire form has behind the algorithm's name.
    const fn field_count(self) -> usize {
        match self {
            Self::Ed25519 => 1,
            Self::EcdsaP256 | Self::EcdsaP384 | Self::EcdsaP521 | Self::Rsa | Self::SkEd25519 => 2,
            Self::SkEcdsaP256 => 3,
        }
    }

    /// Reads and checks what follows the algorithm's name.
    fn check_numbers(self, reader: &mut Reader<'_>) -> Result<(), KeyError> {
        let mut field = || reader.string().ok_or(KeyError::Malformed);
        let good = match self {
            Self::Ed25519 => is_ed25519(field()?),
            Self::EcdsaP256 => field()? == b"nistp256" && is_on_p256(field()?),
            Self::EcdsaP384 => field()? == b"nistp384" && is_on_p384(field()?),
            Self::EcdsaP521 => field()? == b"nistp521" && is_on_p521(field()?),
            Self::Rsa => return check_rsa(field()?, field()?),
            Self::SkEd25519 => is_ed25519(field()?) && is_application(field()?),
            Self::SkEcdsaP256 => field()? == b"nistp256" && is_on_p256(field()?) && is_application(field()?),
        };
        if good { Ok(()) } else { Err(KeyError::Malformed) }
    }

    /// OpenSSH's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::Rsa => "ssh-rsa",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// Whether the private key lives in a FIDO security key.
    #[must_use]
    pub const fn is_security_key(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }
}

impl Fingerprint {
    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses `SHA256:` and 43 base64 digits.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let base64 = text.strip_prefix("SHA256:").filter(|digits| digits.len() == 43).ok_or(KeyError::Malformed)?;
        let mut bytes = [0; 32];
        BASE64_NOPAD.decode_mut(base64.as_bytes(), &mut bytes).ok().ok_or(KeyError::Malformed)?;
        Ok(Self(bytes))
    }
}

/// Of every version and by every party: one to come is a certificate, too, that nobody here can read, and not a key.
fn is_certificate_name(name: &str) -> bool {
    name.contains("-cert")
}

/// A point on the curve, in its one spelling (the library also takes some of RFC 8032's out-of-range numbers), not of small
/// order (for those, anybody can make signatures).
///
/// A point has a second spelling in two ways alone: its y beyond the field, or a sign where x is zero, and a point whose x is zero is of
/// small order. So nothing has to be computed to know that there is one. Nor for the order: eight points are of a small one, and have five y.
fn is_ed25519(bytes: &[u8]) -> bool {
    let Ok(bytes) = <[u8; 32]>::try_from(bytes) else { return false };
    is_in_field(bytes) && !is_of_small_order(bytes) && ed25519_dalek::VerifyingKey::from_bytes(&bytes).is_ok()
}

/// The y of the points of small order, lowest byte first: those of order 1, 2, 4, and twice 8.
const OF_SMALL_ORDER: [[u8; 32]; 5] = {
    let (mut one, mut minus_one) = ([0; 32], [0xff; 32]);
    [one[0], minus_one[0], minus_one[31]] = [1, 0xec, 0x7f];
    let of_8 = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    let minus_of_8 = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    [one, minus_one, [0; 32], of_8, minus_of_8]
};

/// Whether the y of a point, all but its highest bit, is that of a point of small order.
fn is_of_small_order(mut bytes: [u8; 32]) -> bool {
    let [.., highest] = &mut bytes;
    *highest &= 0x7f;
    OF_SMALL_ORDER.contains(&bytes)
}

/// Whether the y of a point, which is all but its highest bit, is below 2^255 - 19.
fn is_in_field(bytes: [u8; 32]) -> bool {
    let [lowest, middle @ .., highest] = &bytes;
    *highest & 0x7f != 0x7f || *lowest < 0xed || middle.iter().any(|byte| *byte != 0xff)
}

/// SEC 1 uncompressed points only, as RFC 5656 and OpenSSH have it.
fn is_uncompressed(point: &[u8]) -> bool {
    point.first() == Some(&4)
}

fn is_on_p256(point: &[u8]) -> bool {
    is_uncompressed(point) && p256::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok()
}

fn is_on_p384(point: &[u8]) -> bool {
    is_uncompressed(point) && p384::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok()
}

fn is_on_p521(point: &[u8]) -> bool {
    is_uncompressed(point) && p521::ecdsa::VerifyingKey::from_sec1_bytes(point).is_ok()
}

fn is_application(bytes: &[u8]) -> bool {
    (1..=APPLICATION_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// Checks an RSA key's numbers by their bytes alone: nothing is computed with them, however large they are.
fn check_rsa(exponent: &[u8], modulus: &[u8]) -> Result<(), KeyError> {
    let (exponent, modulus) =
        positive(exponent).zip(positive(modulus)).filter(|(e, n)| is_odd(e) && is_odd(n)).ok_or(KeyError::Malformed)?;
    let bits = bit_length(modulus);
    if !RSA_BITS.contains(&bits) {
        return Err(KeyError::RsaSize(bits));
    }
    if (2..=32).contains(&bit_length(exponent)) { Ok(()) } else { Err(KeyError::Malformed) }
}

/// The digits of a positive `mpint` in its shortest form (RFC 4251 section 5).
fn positive(mpint: &[u8]) -> Option<&[u8]> {
    match mpint {
        [0, digits @ ..] if digits.first().is_some_and(|b| *b >= 0x80) => Some(digits),
        [first, ..] if (1..0x80).contains(first) => Some(mpint),
        _ => None,
    }
}

fn is_odd(digits: &[u8]) -> bool {
    digits.last().is_some_and(|last| last % 2 == 1)
}

fn bit_length(digits: &[u8]) -> usize {
    let unused = digits.first().map_or(0, |first| first.leading_zeros());
    digits.len().saturating_mul(8).saturating_sub(usize::try_from(unused).unwrap_or(0))
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.algorithm.name(), self.fingerprint())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("SHA256:{}", BASE64_NOPAD.encode(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by computing: what is found is written again.
    fn is_written_so(bytes: [u8; 32]) -> bool {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok();
        key.is_some_and(|key| key.to_edwards().compress().as_bytes() == &bytes && !key.is_weak())
    }

    /// With both signs.
    fn with_signs(y: [u8; 32]) -> [[u8; 32]; 2] {
        let mut other = y;
        other[31] ^= 0x80;
        [y, other]
    }

    #[test]
    fn a_point_beyond_the_field_or_of_small_order_is_no_key() {
        // 2^255 - 19 and the 18 numbers behind it, of which several are points of the curve.
        let beyond = (0xed..=0xff_u8).map(|lowest| {
            let mut y = [0xff; 32];
            (y[0], y[31]) = (lowest, 0x7f);
            y
        });
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let mut one = [0; 32];
        one[0] = 1;
        let of_order_8 = data_encoding::HEXLOWER
            .decode(b"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
            .unwrap()
            .try_into()
            .unwrap();
        let all = beyond.chain([minus_one, one, [0; 32], of_order_8]).flat_map(with_signs);
        for bytes in all {
            assert!(!is_ed25519(&bytes) && !is_written_so(bytes), "{bytes:?}");
        }
        assert!(!is_ed25519(&[9; 31]) && !is_ed25519(&[9; 33]));
    }

    #[test]
    fn the_points_of_small_order_are_the_multiples_of_one_of_order_8() {
        // Whatever is of small order is a multiple of a point of order 8: the curve has eight times a prime of points.
        let of_8 = ed25519_dalek::VerifyingKey::from_bytes(&OF_SMALL_ORDER[3]).unwrap().to_edwards();
        let mut multiples = vec![of_8];
        while let Some(last) = multiples.last().filter(|_| multiples.len() < 8) {
            multiples.push(last + of_8);
        }
        let all: std::collections::BTreeSet<[u8; 32]> =
            multiples.iter().map(|point| point.compress().to_bytes()).collect();
        assert_eq!(all.len(), 8, "of order 8 and no other");
        assert_eq!(multiples[7] + of_8, of_8);
        let ys = all.iter().map(|point| with_signs(*point).into_iter().min_by_key(|y| y[31]).unwrap());
        let known = std::collections::BTreeSet::from(OF_SMALL_ORDER);
        assert_eq!(ys.collect::<std::collections::BTreeSet<_>>(), known);
        for y in OF_SMALL_ORDER.into_iter().flat_map(with_signs) {
            assert!(is_of_small_order(y) && !is_ed25519(&y));
            assert!(ed25519_dalek::VerifyingKey::from_bytes(&y).is_ok_and(|key| key.is_weak()));
        }
    }

    proptest! {
        #[test]
        fn a_point_is_taken_when_it_would_be_written_so(bytes in any::<[u8; 32]>(), edge in 0_usize..32, fill in prop_oneof![Just(0), Just(0xff)]) {
            // Some near the edges of the field.
            let mut near = bytes;
            near[edge..].fill(fill);
            for bytes in [bytes, near].into_iter().flat_map(with_signs) {
                prop_assert_eq!(is_ed25519(&bytes), is_written_so(bytes));
            }
        }
    }
}
