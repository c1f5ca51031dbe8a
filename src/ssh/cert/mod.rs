//! `TbsCert`, the one thing a CA key may sign, and finished certificates (PROTOCOL.certkeys).
//!
//! What for: [`TbsCert::new`] lints and encodes what a permit allows; [`Certificate::assemble`] puts the CA's signature
//! behind it and refuses anything that doesn't verify or that an independent reader (the ssh-key crate) sees otherwise.
//!
//! What not: whether the window is open now (that is for `sshd` and the caller), and certificates of others. Host
//! certificates are not issued.
//!
//! Invariants: what is encoded is read back as it was (`parse(x.bytes()) == x`), and nothing is read that would be
//! encoded differently, so there is one spelling per certificate; what the linter refuses can be neither made nor read.
//! The verdict of the ssh-key crate is never ours: it accepts no principals, unknown options and host certificates.
//!
//! Decision: one own encoder instead of the crate's builder. The builder verifies a signature in debug builds only, offers
//! "all principals", and gives no access to the bytes to be signed, which must be in the log before anything is signed.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod independent;
mod lint;
mod options;

use std::collections::BTreeSet;
use std::fmt;

use data_encoding::BASE64;
use thiserror::Error;

pub use self::lint::is_ca_algorithm;
use self::options::put_section;
pub use self::options::{Extension, ForceCommand, Options};
use super::encoding::{Reader, put_string, put_u32, put_u64};
use super::{Fingerprint, KeyAlgorithm, PublicKey, sig};
use crate::name::{NameError, PersonName, Principal, RequestId, Serial};
use crate::time::{Timestamp, Window};

/// `SSH_CERT_TYPE_USER`.
const TYPE_USER: u32 = 1;

/// The longest line of a certificate that is looked at.
const LINE_BYTES_MAX: usize = 256 * 1024;

/// `hallpass/<request>/<person>`, at most 190 bytes of `[A-Za-z0-9._@:=/+-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyId {
    text: String,
    request: RequestId,
    person: PersonName,
}

/// What a certificate says, apart from keys and nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Index of its log entry.
    pub serial: Serial,
    /// Who and which request.
    pub key_id: KeyId,
    /// 1 to 256.
    pub principals: BTreeSet<Principal>,
    /// `[valid after, valid before)`.
    pub window: Window,
    /// Critical options and extensions.
    pub options: Options,
}

/// What a CA key is for. A key for one purpose signs nothing of the other (I-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Certificates with which people log in, trusted by hosts.
    User,
    /// Certificates with which hosts show who they are, trusted by clients.
    Host,
}

impl Purpose {
    /// Both.
    pub const ALL: [Self; 2] = [Self::User, Self::Host];

    /// `user` or `host`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Host => "host",
        }
    }

    /// The purpose of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.word() == word)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A user certificate without its signature, linted: the only thing a CA key signs.
#[derive(Clone, PartialEq, Eq)]
pub struct TbsCert {
    bytes: Vec<u8>,
    fields: Fields,
    subject: PublicKey,
    ca: PublicKey,
}

/// A signed user certificate whose signature has been verified.
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
    /// Lints and encodes. Called in one place, `access::Permit::to_be_signed` (an architecture test looks for others).
    ///
    /// # Errors
    /// [`CertError::Lint`].
    pub fn new(fields: Fields, subject: &PublicKey, ca: &PublicKey, nonce: [u8; 32]) -> Result<Self, CertError> {
        lint::check(&fields, subject, ca)?;
        let mut bytes = Vec::new();
        put_string(&mut bytes, certificate_name(subject.algorithm()).as_bytes());
        put_string(&mut bytes, &nonce);
        bytes.extend_from_slice(subject.numbers());
        put_u64(&mut bytes, fields.serial.number());
        put_u32(&mut bytes, TYPE_USER);
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
        Ok(Self { bytes, fields, subject: subject.clone(), ca: ca.clone() })
    }

    /// Reads stored bytes back, strictly: `parse(x.bytes()) == x`, anything else is refused.
    ///
    /// # Errors
    /// [`CertError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CertError> {
        let tbs = Self::parse_start(bytes)?;
        if tbs.bytes.len() == bytes.len() { Ok(tbs) } else { Err(CertError::Malformed("bytes behind its end")) }
    }

    /// Reads one from the start of `bytes`, whatever comes behind it.
    fn parse_start(bytes: &[u8]) -> Result<Self, CertError> {
        let Decoded { fields, subject, ca, nonce } = decode(&mut Reader::new(bytes))?;
        let tbs = Self::new(fields, &subject, &ca, nonce)?;
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

    /// The key it certifies.
    #[must_use]
    pub const fn subject(&self) -> &PublicKey {
        &self.subject
    }

    /// What the CA key that signs it must be for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        Purpose::User
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
        let tbs = TbsCert::parse_start(blob)?;
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

impl KeyId {
    /// The most bytes: with more, syslog's 500 bytes per message could lose the serial and the CA's fingerprint.
    const BYTES_MAX: usize = 190;

    /// The key id of a request's certificate.
    ///
    /// # Errors
    /// When it would be longer than 190 bytes.
    pub fn new(request: &RequestId, person: &PersonName) -> Result<Self, NameError> {
        let text = format!("hallpass/{}/{person}", request.digits());
        let is_safe = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@:=/+-".contains(&b));
        if is_safe && text.len() <= Self::BYTES_MAX {
            Ok(Self { text, request: *request, person: person.clone() })
        } else {
            Err(Self::wrong(&text))
        }
    }

    /// Parses one as [`Self::new`] makes it.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parts = text.strip_prefix("hallpass/").and_then(|rest| rest.split_once('/'));
        let (request, person) = parts.ok_or_else(|| Self::wrong(text))?;
        let id = Self::new(&RequestId::parse(request)?, &PersonName::parse(person)?)?;
        if id.text == text { Ok(id) } else { Err(Self::wrong(text)) }
    }

    fn wrong(text: &str) -> NameError {
        let rule = "hallpass/REQUEST/PERSON, at most 190 of A-Z a-z 0-9 . _ @ : = / + -";
        NameError { kind: "a key id", given: text.chars().take(64).collect(), rule }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The request.
    #[must_use]
    pub const fn request(&self) -> &RequestId {
        &self.request
    }

    /// The person.
    #[must_use]
    pub const fn person(&self) -> &PersonName {
        &self.person
    }
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

/// What was read, not yet linted.
struct Decoded {
    fields: Fields,
    subject: PublicKey,
    ca: PublicKey,
    nonce: [u8; 32],
}

/// Reads the fields in the order of PROTOCOL.certkeys. What is only a second spelling is left to the caller.
fn decode(reader: &mut Reader<'_>) -> Result<Decoded, CertError> {
    let wrong = CertError::Malformed;
    let name = reader.text().ok_or(wrong("its type"))?;
    let algorithm = KeyAlgorithm::ALL.into_iter().find(|algorithm| certificate_name(*algorithm) == name);
    let algorithm = algorithm.ok_or(wrong("its type"))?;
    let nonce = reader.string().and_then(|nonce| nonce.try_into().ok()).ok_or(wrong("its nonce"))?;
    let mut subject = Vec::new();
    put_string(&mut subject, algorithm.name().as_bytes());
    for _ in 0..algorithm.field_count() {
        put_string(&mut subject, reader.string().ok_or(wrong("its subject key"))?);
    }
    let subject = PublicKey::parse_blob(&subject).ok().ok_or(wrong("its subject key"))?;
    let serial = reader.u64().and_then(|serial| Serial::new(serial).ok()).ok_or(wrong("its serial"))?;
    if reader.u32() != Some(TYPE_USER) {
        return Err(wrong("it is not a user certificate"));
    }
    let key_id = reader.text().and_then(|text| KeyId::parse(text).ok()).ok_or(wrong("its key id"))?;
    let principals = decode_principals(reader.string().ok_or(wrong("its principals"))?)?;
    let mut moment = || reader.u64().and_then(|seconds| Timestamp::from_unix(seconds).ok()).ok_or(wrong("its window"));
    let window = Window::new(moment()?, moment()?).ok().ok_or(wrong("its window"))?;
    let (critical, extensions) = reader.string().zip(reader.string()).ok_or(wrong("its options"))?;
    let options = Options::parse(critical, extensions)?;
    if reader.string() != Some(b"") {
        return Err(wrong("its reserved field"));
    }
    let ca = reader.string().and_then(|blob| PublicKey::parse_blob(blob).ok()).ok_or(wrong("its CA key"))?;
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
