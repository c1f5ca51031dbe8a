//! `TbsCert`, the one thing a CA key may sign, and finished certificates (PROTOCOL.certkeys).
//!
//! What for: [`TbsCert::new`] lints and encodes what a permit allows; [`Certificate::assemble`] puts the CA's signature
//! behind it and refuses anything that doesn't verify or that an independent reader (the ssh-key crate) sees otherwise.
//!
//! What not: whether the window is open now (that is for `sshd` and the caller), and certificates of others.
//!
//! Three kinds, told apart by their key id, which the linter holds to the rest: a person's (`hallpass/<request>/<person>`), that of a
//! host's login to itself (`hallpass/check/<host>`), and a host's own (`hallpass/host/<host>`, the only one of OpenSSH's type "host").
//!
//! Invariants: what is encoded is read back as it was (`parse(x.bytes()) == x`), and nothing is read that would be
//! encoded differently, so there is one spelling per certificate; what the linter refuses can be neither made nor read.
//! The verdict of the ssh-key crate is never ours: it accepts no principals, unknown options and host certificates.
//!
//! Decision: one own encoder instead of the crate's builder. The builder verifies a signature in debug builds only, offers
//! "all principals", and gives no access to the bytes to be signed, which must be in the log before anything is signed.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod independent;
mod key_id;
mod lint;
mod options;
pub mod skim;

use std::collections::BTreeSet;
use std::fmt;

use data_encoding::BASE64;
use thiserror::Error;

pub use self::key_id::{KeyId, Purpose, Whose};
pub use self::lint::{CHECK_SECONDS_MAX, HOST_SECONDS_MAX, is_ca_algorithm};
use self::options::put_section;
pub use self::options::{Extension, ForceCommand, Options};
use super::encoding::{Reader, put_string, put_u32, put_u64};
use super::known::KnownKeys;
use super::{Fingerprint, KeyAlgorithm, KeyError, PublicKey, sig};
use crate::name::{Principal, Serial};
use crate::time::{Timestamp, Window};

/// The longest line of a certificate that is looked at.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// Room for most certificates without their signature, and for most keys.
const BYTES_USUAL: usize = 512;
const KEY_BYTES_USUAL: usize = 128;

/// What a certificate says, apart from keys and nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Index of its log entry.
    pub serial: Serial,
    /// Whose it is, and so which kind.
    pub key_id: KeyId,
    /// 1 to 256.
    pub principals: BTreeSet<Principal>,
    /// `[valid after, valid before)`.
    pub window: Window,
    /// Critical options and extensions.
    pub options: Options,
}

/// A certificate without its signature, linted: the only thing a CA key signs.
#[derive(Clone, PartialEq, Eq)]
pub struct TbsCert {
    bytes: Vec<u8>,
    fields: Fields,
    subject: PublicKey,
    ca: PublicKey,
}

/// A signed certificate whose signature has been verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    tbs: TbsCert,
    blob: Vec<u8>,
}

/// Why a certificate is not one that hallpass would issue.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CertError {
    /// Not the wire form, trailing bytes, over 256 KiB.
    #[error("not a certificate in the form hallpass issues: {0}")]
    Malformed(&'static str),
    /// A rule of the linter is broken.
    #[error("certificate refused by the linter: {0}")]
    Lint(&'static str),
    /// The CA's signature does not verify.
    #[error("the certificate's signature does not verify")]
    Signature,
}

impl TbsCert {
    /// Lints and encodes. Called by the permits alone, `access/permit.rs` and `inventory/permit.rs` (an architecture test looks for
    /// others).
    ///
    /// # Errors
    /// [`CertError::Lint`].
    pub fn new(fields: Fields, subject: &PublicKey, ca: &PublicKey, nonce: [u8; 32]) -> Result<Self, CertError> {
        Self::encode(Decoded { fields, subject: subject.clone(), ca: ca.clone(), nonce })
    }

    fn encode(Decoded { fields, subject, ca, nonce }: Decoded) -> Result<Self, CertError> {
        lint::check(&fields, &subject, &ca)?;
        let mut bytes = Vec::with_capacity(BYTES_USUAL);
        put_string(&mut bytes, certificate_name(subject.algorithm()).as_bytes());
        put_string(&mut bytes, &nonce);
        bytes.extend_from_slice(subject.numbers());
        put_u64(&mut bytes, fields.serial.number());
        put_u32(&mut bytes, fields.key_id.purpose().type_number());
        put_string(&mut bytes, fields.key_id.as_str().as_bytes());
        let mut principals = Vec::new();
        for principal in &fields.principals {
            put_string(&mut principals, principal.as_str().as_bytes());
        }
        put_string(&mut bytes, &principals);
        put_u64(&mut bytes, fields.window.start().unix());
        put_u64(&mut bytes, fields.window.end().unix());
        put_section(&mut bytes, &fields.options.critical());
        put_section(&mut bytes, &fields.options.extensions());
        put_string(&mut bytes, b""); // reserved
        put_string(&mut bytes, ca.blob());
        if bytes.len() > lint::BYTES_MAX {
            return Err(CertError::Lint("it is longer than 64 KiB"));
        }
        Ok(Self { bytes, fields, subject, ca })
    }

    /// Reads stored bytes back, strictly: `parse(x.bytes()) == x`, anything else is refused.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertError> {
        Self::parse_whole(bytes, PublicKey::parse_blob)
    }

    /// The same; keys that are known are not judged anew.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn parse_knowing(bytes: &[u8], known: &mut KnownKeys) -> Result<Self, CertError> {
        Self::parse_whole(bytes, |blob| known.parse_blob(blob))
    }

    fn parse_whole(bytes: &[u8], key: impl FnMut(&[u8]) -> Result<PublicKey, KeyError>) -> Result<Self, CertError> {
        let tbs = Self::parse_start(bytes, key)?;
        if tbs.bytes.len() == bytes.len() { Ok(tbs) } else { Err(CertError::Malformed("bytes behind its end")) }
    }

    /// Reads one from the start of `bytes`, whatever comes behind it; `key` reads its keys.
    fn parse_start(bytes: &[u8], key: impl FnMut(&[u8]) -> Result<PublicKey, KeyError>) -> Result<Self, CertError> {
        let tbs = Self::encode(decode(&mut Reader::new(bytes), key)?)?;
        // Writing it again catches every second spelling: order, repetition, host bits, padding.
        if bytes.starts_with(&tbs.bytes) {
            Ok(tbs)
        } else {
            Err(CertError::Malformed("not as it would be written here"))
        }
    }

    /// The bytes the CA key signs.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    #[must_use]
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// What its CA key must be for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.fields.key_id.purpose()
    }

    /// The key it certifies.
    #[must_use]
    pub const fn subject(&self) -> &PublicKey {
        &self.subject
    }

    /// The CA key that is to sign it.
    #[must_use]
    pub const fn ca(&self) -> &PublicKey {
        &self.ca
    }
}

impl Certificate {
    /// Puts `signature_blob` (wire form: algorithm name and signature) behind `tbs` and verifies the whole: signature by
    /// `tbs.ca()`, and an independent reader (the ssh-key crate) sees the same fields.
    ///
    /// # Errors
    /// [`CertError::Signature`] or [`CertError::Malformed`].
    pub fn assemble(tbs: TbsCert, signature_blob: &[u8]) -> Result<Self, CertError> {
        verify_ca_signature(&tbs.ca, signature_blob, &tbs.bytes)?;
        let mut blob = tbs.bytes.clone();
        put_string(&mut blob, signature_blob);
        independent::compare(&tbs, &blob)?;
        Ok(Self { tbs, blob })
    }

    /// Parses and verifies the wire form.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn parse_blob(blob: &[u8]) -> Result<Self, CertError> {
        let tbs = TbsCert::parse_start(blob, PublicKey::parse_blob)?;
        let mut reader = Reader::new(blob.strip_prefix(tbs.bytes()).unwrap_or_default());
        let signature = reader.string().filter(|_| reader.is_at_end());
        Self::assemble(tbs, signature.ok_or(CertError::Malformed("no signature, or bytes behind it"))?)
    }

    /// Parses and verifies one line as [`Self::to_openssh`] writes it.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn parse_openssh(line: &str) -> Result<Self, CertError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(CertError::Malformed("longer than 256 KiB"));
        }
        let line = line.strip_suffix('\n').unwrap_or(line);
        let base64 =
            line.split(' ').nth(1).ok_or(CertError::Malformed("not one line of a type, base64 and a comment"))?;
        let blob = BASE64.decode(base64.as_bytes()).ok().ok_or(CertError::Malformed("not base64"))?;
        let certificate = Self::parse_blob(&blob)?;
        if certificate.to_openssh() == line {
            Ok(certificate)
        } else {
            Err(CertError::Malformed("its type or comment is not that of the certificate"))
        }
    }

    /// The line for a `-cert.pub` file, with the key id as its comment.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        let name = certificate_name(self.tbs.subject.algorithm());
        format!("{name} {} {}", BASE64.encode(&self.blob), self.tbs.fields.key_id.as_str())
    }

    /// The to-be-signed part.
    #[must_use]
    pub const fn tbs(&self) -> &TbsCert {
        &self.tbs
    }

    /// The wire form.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The fingerprint of the CA key that signed it.
    #[must_use]
    pub fn ca_fingerprint(&self) -> Fingerprint {
        self.tbs.ca.fingerprint()
    }
}

/// Whether a signature in wire form is one that a CA key of ours makes over `data`; RSA ones are by SHA-512 alone.
///
/// # Errors
/// [`CertError::Signature`].
pub fn verify_ca_signature(ca: &PublicKey, signature_blob: &[u8], data: &[u8]) -> Result<(), CertError> {
    if ca.algorithm() == KeyAlgorithm::Rsa && Reader::new(signature_blob).string() != Some(b"rsa-sha2-512") {
        return Err(CertError::Signature);
    }
    sig::verify(ca, signature_blob, data).ok().ok_or(CertError::Signature)
}

/// The type name of a certificate over a key.
const fn certificate_name(subject: KeyAlgorithm) -> &'static str {
    match subject {
        KeyAlgorithm::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
        KeyAlgorithm::EcdsaP256 => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
        KeyAlgorithm::EcdsaP384 => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
        KeyAlgorithm::EcdsaP521 => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
        KeyAlgorithm::Rsa => "ssh-rsa-cert-v01@openssh.com",
        KeyAlgorithm::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
        KeyAlgorithm::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    }
}

/// What is to be written, or was read, not yet linted.
struct Decoded {
    fields: Fields,
    subject: PublicKey,
    ca: PublicKey,
    nonce: [u8; 32],
}

/// Reads the fields in the order of PROTOCOL.certkeys. What is only a second spelling is left to the caller.
fn decode(
    reader: &mut Reader<'_>,
    mut key: impl FnMut(&[u8]) -> Result<PublicKey, KeyError>,
) -> Result<Decoded, CertError> {
    let wrong = CertError::Malformed;
    let name = reader.text().ok_or(wrong("its type"))?;
    let algorithm = KeyAlgorithm::ALL.into_iter().find(|algorithm| certificate_name(*algorithm) == name);
    let algorithm = algorithm.ok_or(wrong("its type"))?;
    let nonce = reader.string().and_then(|nonce| nonce.try_into().ok()).ok_or(wrong("its nonce"))?;
    let mut subject = Vec::with_capacity(KEY_BYTES_USUAL);
    put_string(&mut subject, algorithm.name().as_bytes());
    for _ in 0..algorithm.field_count() {
        put_string(&mut subject, reader.string().ok_or(wrong("its subject key"))?);
    }
    let subject = key(&subject).ok().ok_or(wrong("its subject key"))?;
    let serial = reader.u64().and_then(|serial| Serial::new(serial).ok()).ok_or(wrong("its serial"))?;
    let kind = reader.u32();
    let key_id = reader.text().and_then(|text| KeyId::parse(text).ok()).ok_or(wrong("its key id"))?;
    if kind != Some(key_id.purpose().type_number()) {
        return Err(wrong("its type is not that of its key id"));
    }
    let principals = decode_principals(reader.string().ok_or(wrong("its principals"))?)?;
    let mut moment = || reader.u64().and_then(|seconds| Timestamp::from_unix(seconds).ok()).ok_or(wrong("its window"));
    let window = Window::new(moment()?, moment()?).ok().ok_or(wrong("its window"))?;
    let (critical, extensions) = reader.string().zip(reader.string()).ok_or(wrong("its options"))?;
    let options = Options::parse(critical, extensions)?;
    if reader.string() != Some(b"") {
        return Err(wrong("its reserved field"));
    }
    let ca = reader.string().and_then(|blob| key(blob).ok()).ok_or(wrong("its CA key"))?;
    Ok(Decoded { fields: Fields { serial, key_id, principals, window, options }, subject, ca, nonce })
}

fn decode_principals(bytes: &[u8]) -> Result<BTreeSet<Principal>, CertError> {
    let mut reader = Reader::new(bytes);
    let mut principals = BTreeSet::new();
    while !reader.is_at_end() {
        let principal = reader.text().and_then(|text| Principal::parse(text).ok());
        principals.insert(principal.ok_or(CertError::Malformed("its principals"))?);
    }
    Ok(principals)
}

impl fmt::Debug for TbsCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TbsCert").field("fields", &self.fields).finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("fields", &self.tbs.fields).finish_non_exhaustive()
    }
}
