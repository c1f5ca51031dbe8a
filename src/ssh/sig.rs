//! SSH signatures (PROTOCOL.sshsig) under hallpass' own namespaces, and nothing else.
//!
//! What for: a login answer or a signed approval is an SSHSIG, as `ssh-keygen -Y sign` or an agent makes it; [`SshSignature::check`]
//! says whether a known key made it, for this purpose, over these bytes. A CA's signature on a certificate is verified
//! by the same few lines.
//!
//! What not: who may sign (that is `identity`), and `WebAuthn` signatures (browsers; PROTOCOL.u2f), which are refused.
//!
//! Invariants: version 1; the key is compared as a whole, never by fingerprint or comment; the hash is SHA-256 or
//! SHA-512; an RSA signature is `rsa-sha2-256` or `-512`, never SHA-1; Ed25519 is verified strictly (no small-order
//! points, one spelling); a security key was touched: the ssh-key crate and `ssh-keygen -Y verify` do not look.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256, Sha512};
use signature::Verifier as _;
use thiserror::Error;

use super::encoding::{Reader, put_string, put_u32};
use super::{KeyAlgorithm, PublicKey};

/// The namespace of login answers.
pub const LOGIN_NAMESPACE: &str = "login@hallpass";

/// The namespace of approvals: a login answer is none, and the other way round.
pub const APPROVAL_NAMESPACE: &str = "approval@hallpass";

/// What a CA key signs to show that it is there and whole. Nothing believes such a signature but the signer that asked for it.
pub const CA_CHECK_NAMESPACE: &str = "ca-check@hallpass";

/// The longest armoured signature. One by an RSA key of 8192 bits has about 3,000 bytes.
const ARMOURED_BYTES_MAX: usize = 16 * 1024;

const MAGIC: &[u8] = b"SSHSIG";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// The column at which `ssh-keygen` breaks the base64.
const ARMOUR_WIDTH: usize = 70;

/// Bit 0 of a security key's flags: the user was present (`WebAuthn` section 6.1).
const FLAG_USER_PRESENT: u8 = 1;

/// A finished, parsed, not yet verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSignature {
    key_blob: Vec<u8>,
    namespace: String,
    hash: Hash,
    signature_blob: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

/// Why a signature does not count.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SigError {
    /// Not an armoured SSHSIG of version 1, or longer than 16 KiB.
    #[error("not an SSH signature")]
    Malformed,
    /// Made under another namespace.
    #[error("the signature is for another purpose")]
    Namespace,
    /// Made by another key than the one expected.
    #[error("the signature is by another key")]
    Key,
    /// Hash or signature algorithm not accepted (SHA-1 RSA, say).
    #[error("the signature's algorithm is not accepted")]
    Algorithm,
    /// A security key that was not touched.
    #[error("the security key was not touched")]
    NotTouched,
    /// It does not verify.
    #[error("the signature does not verify")]
    Wrong,
}

impl SshSignature {
    /// Parses the armoured form.
    ///
    /// # Errors
    /// [`SigError::Malformed`]; [`SigError::Algorithm`] for a hash that is not accepted.
    pub fn parse(armoured: &str) -> Result<Self, SigError> {
        if armoured.len() > ARMOURED_BYTES_MAX {
            return Err(SigError::Malformed);
        }
        let inner = armoured.trim_ascii().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
        let base64: Vec<u8> =
            inner.ok_or(SigError::Malformed)?.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
        let blob = BASE64.decode(&base64).ok().ok_or(SigError::Malformed)?;
        Self::parse_blob(&blob)
    }

    fn parse_blob(blob: &[u8]) -> Result<Self, SigError> {
        let mut reader = Reader::new(blob.strip_prefix(MAGIC).ok_or(SigError::Malformed)?);
        if reader.u32() != Some(1) {
            return Err(SigError::Malformed);
        }
        let mut field = || reader.string().ok_or(SigError::Malformed);
        let (key_blob, namespace, reserved, hash, signature_blob) = (field()?, field()?, field()?, field()?, field()?);
        if !reader.is_at_end() || !reserved.is_empty() || namespace.is_empty() {
            return Err(SigError::Malformed);
        }
        Ok(Self {
            key_blob: key_blob.to_vec(),
            namespace: std::str::from_utf8(namespace).ok().ok_or(SigError::Malformed)?.to_owned(),
            hash: Hash::from_name(hash).ok_or(SigError::Algorithm)?,
            signature_blob: signature_blob.to_vec(),
        })
    }

    /// Verifies it: `key` signed `message` under `namespace`, with user presence if it is a security key.
    ///
    /// # Errors
    /// [`SigError`] with the reason.
    pub fn check(&self, key: &PublicKey, namespace: &str, message: &[u8]) -> Result<(), SigError> {
        if self.namespace != namespace {
            return Err(SigError::Namespace);
        }
        if self.key_blob != key.blob() {
            return Err(SigError::Key);
        }
        verify(key, &self.signature_blob, &self.hash.to_be_signed(namespace, message))
    }

    /// The bytes that an agent or security key must sign for `message` under `namespace` (SHA-512).
    #[must_use]
    pub fn to_be_signed(namespace: &str, message: &[u8]) -> Vec<u8> {
        Hash::Sha512.to_be_signed(namespace, message)
    }

    /// The armoured SSHSIG made of an agent's signature blob over [`Self::to_be_signed`].
    ///
    /// # Errors
    /// [`SigError::Malformed`] if `signature_blob` is not a signature.
    pub fn armour(key: &PublicKey, namespace: &str, signature_blob: &[u8]) -> Result<String, SigError> {
        split(key, signature_blob)?;
        let (key_blob, namespace) = (key.blob().to_vec(), namespace.to_owned());
        Ok(Self { key_blob, namespace, hash: Hash::Sha512, signature_blob: signature_blob.to_vec() }.to_armoured())
    }

    /// The armoured form, as `ssh-keygen` writes it: one spelling of each signature.
    #[must_use]
    pub fn to_armoured(&self) -> String {
        let Self { key_blob, namespace, hash, signature_blob } = self;
        let mut blob = MAGIC.to_vec();
        put_u32(&mut blob, 1);
        put_string(&mut blob, key_blob);
        put_string(&mut blob, namespace.as_bytes());
        put_string(&mut blob, b"");
        put_string(&mut blob, hash.name().as_bytes());
        put_string(&mut blob, signature_blob);

        let mut armoured = String::from(BEGIN);
        for (place, digit) in BASE64.encode(&blob).chars().enumerate() {
            if place % ARMOUR_WIDTH == 0 {
                armoured.push('\n');
            }
            armoured.push(digit);
        }
        armoured.push('\n');
        armoured.push_str(END);
        armoured.push('\n');
        armoured
    }
}

impl Hash {
    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|hash| hash.name().as_bytes() == name)
    }

    fn to_be_signed(self, namespace: &str, message: &[u8]) -> Vec<u8> {
        let mut data = MAGIC.to_vec();
        put_string(&mut data, namespace.as_bytes());
        put_string(&mut data, b"");
        put_string(&mut data, self.name().as_bytes());
        match self {
            Self::Sha256 => put_string(&mut data, &Sha256::digest(message)),
            Self::Sha512 => put_string(&mut data, &Sha512::digest(message)),
        }
        data
    }
}

/// The parts of a signature blob: algorithm name, signature, and for security keys the flags and counter.
#[derive(Clone, Copy)]
struct Parts<'a> {
    bytes: &'a [u8],
    rsa_hash: Option<ssh_key::HashAlg>,
    flags_and_counter: Option<(u8, u32)>,
}

/// Takes a signature blob apart; its algorithm must be one that `key` can make.
fn split<'a>(key: &PublicKey, signature_blob: &'a [u8]) -> Result<Parts<'a>, SigError> {
    let mut reader = Reader::new(signature_blob);
    let (name, bytes) = reader.text().zip(reader.string()).ok_or(SigError::Malformed)?;
    let rsa_hash = match (key.algorithm(), name) {
        (KeyAlgorithm::Rsa, "rsa-sha2-256") => Some(ssh_key::HashAlg::Sha256),
        (KeyAlgorithm::Rsa, "rsa-sha2-512") => Some(ssh_key::HashAlg::Sha512),
        (KeyAlgorithm::Rsa, _) => return Err(SigError::Algorithm),
        (algorithm, name) if algorithm.name() == name => None,
        _ => return Err(SigError::Algorithm),
    };
    let flags_and_counter = if key.algorithm().is_security_key() {
        Some(reader.byte().zip(reader.u32()).ok_or(SigError::Malformed)?)
    } else {
        None
    };
    if reader.is_at_end() { Ok(Parts { bytes, rsa_hash, flags_and_counter }) } else { Err(SigError::Malformed) }
}

/// Verifies a signature blob (algorithm name and signature) by `key` over `data`, with touch for a security key.
pub(crate) fn verify(key: &PublicKey, signature_blob: &[u8], data: &[u8]) -> Result<(), SigError> {
    let parts = split(key, signature_blob)?;
    match key.algorithm() {
        KeyAlgorithm::Ed25519 => verify_ed25519(key, parts.bytes, data),
        KeyAlgorithm::SkEd25519 => verify_ed25519(key, parts.bytes, &security_key_data(key, parts, data)?),
        KeyAlgorithm::EcdsaP256
        | KeyAlgorithm::EcdsaP384
        | KeyAlgorithm::EcdsaP521
        | KeyAlgorithm::Rsa
        | KeyAlgorithm::SkEcdsaP256 => verify_by_crate(key, parts, data),
    }?;
    match parts.flags_and_counter {
        Some((flags, _)) if flags & FLAG_USER_PRESENT == 0 => Err(SigError::NotTouched),
        _ => Ok(()),
    }
}

fn verify_ed25519(key: &PublicKey, signature: &[u8], data: &[u8]) -> Result<(), SigError> {
    let bytes = Reader::new(key.numbers()).string().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let key = bytes.and_then(|b| ed25519_dalek::VerifyingKey::from_bytes(&b).ok()).ok_or(SigError::Wrong)?;
    let signature = ed25519_dalek::Signature::from_slice(signature).ok().ok_or(SigError::Malformed)?;
    key.verify_strict(data, &signature).ok().ok_or(SigError::Wrong)
}

/// What a security key signs in place of `data` (PROTOCOL.u2f, "SSH U2F Signatures").
fn security_key_data(key: &PublicKey, parts: Parts<'_>, data: &[u8]) -> Result<Vec<u8>, SigError> {
    let ((flags, counter), application) = parts.flags_and_counter.zip(key.application()).ok_or(SigError::Malformed)?;
    let mut signed = Sha256::digest(application).to_vec();
    signed.push(flags);
    put_u32(&mut signed, counter);
    signed.extend_from_slice(&Sha256::digest(data));
    Ok(signed)
}

fn verify_by_crate(key: &PublicKey, parts: Parts<'_>, data: &[u8]) -> Result<(), SigError> {
    use ssh_key::{Algorithm, EcdsaCurve};
    let algorithm = match key.algorithm() {
        KeyAlgorithm::Ed25519 => Algorithm::Ed25519,
        KeyAlgorithm::SkEd25519 => Algorithm::SkEd25519,
        KeyAlgorithm::EcdsaP256 => Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        KeyAlgorithm::EcdsaP384 => Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        KeyAlgorithm::EcdsaP521 => Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        KeyAlgorithm::Rsa => Algorithm::Rsa { hash: parts.rsa_hash },
        KeyAlgorithm::SkEcdsaP256 => Algorithm::SkEcdsaSha2NistP256,
    };
    let mut bytes = parts.bytes.to_vec();
    if let Some((flags, counter)) = parts.flags_and_counter {
        // The crate keeps a security key's flags and counter behind the signature.
        bytes.push(flags);
        put_u32(&mut bytes, counter);
    }
    let signature = ssh_key::Signature::new(algorithm, bytes).ok().ok_or(SigError::Malformed)?;
    let key = ssh_key::PublicKey::from_bytes(key.blob()).ok().ok_or(SigError::Key)?;
    key.key_data().verify(data, &signature).ok().ok_or(SigError::Wrong)
}
