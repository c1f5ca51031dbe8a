//! Signed checkpoints: C2SP `tlog-checkpoint` in a `signed-note`, Ed25519.
//!
//! What for: one short text that fixes the whole log up to a size. Whoever keeps one can later prove any change of what it
//! covers. What not: no storage, no transport; which key to trust is the caller's question.
//!
//! The note (`\n` line ends, every line ended):
//!
//! | Line | Content |
//! |---|---|
//! | 1 | origin: the log's name, which is also the key's name |
//! | 2 | number of entries, decimal without leading zeros |
//! | 3 | root hash, base64 with padding |
//! | 4 | empty |
//! | 5… | `— NAME BASE64(key id ‖ signature)`, one or more |
//!
//! The signature is over lines 1 to 3 with their line ends. The key id is the first four bytes of
//! SHA-256(name ‖ `\n` ‖ 0x01 ‖ public key); the verifier key text is `NAME+HEX(key id)+BASE64(0x01 ‖ public key)`.
//!
//! Invariants: extension lines after the root are refused (we write none, so one means something that we don't understand);
//! signature lines of other keys (witnesses) are skipped; verification is the strict one (no malleable signatures, no keys of
//! small order).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::tree::Hash;
use crate::identity::mac::MacKey;

/// signed-note's algorithm byte for Ed25519.
const ED25519: u8 = 1;

/// Our choice: a note has three lines and some signatures; more than this is not one.
const NOTE_BYTES_MAX: usize = 16 * 1024;

/// Our choice: a URL without its scheme.
const ORIGIN_BYTES_MAX: usize = 200;

/// The log key: signs checkpoints, never certificates. Wiped on drop.
pub struct LogKey {
    verifier: LogVerifier,
    key: SigningKey,
}

/// The public half as a signed-note verifier key: `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogVerifier {
    origin: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's origin line.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Why a checkpoint or log key does not count.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not a checkpoint in the format.
    #[error("not a signed checkpoint")]
    Malformed,
    /// Not a log key, its seed or its origin in the format.
    #[error("not a log key")]
    Key,
    /// Another log's.
    #[error("the checkpoint is of another log")]
    Origin,
    /// No signature by this log key verifies.
    #[error("the checkpoint is not signed by this log's key")]
    Signature,
}

impl LogKey {
    /// The key for the log `origin` (a schema-less URL such as `hallpass.example.com/log`, no blanks or `+`).
    ///
    /// # Errors
    /// [`CheckpointError::Key`] for a bad origin.
    pub fn new(origin: &str, seed: &[u8; 32]) -> Result<Self, CheckpointError> {
        let key = SigningKey::from_bytes(seed);
        let verifier = LogVerifier::new(origin, key.verifying_key())?;
        Ok(Self { verifier, key })
    }

    /// The key whose seed is `text`, as it stands in the log key's file: 32 bytes in base64, on one line.
    ///
    /// # Errors
    /// [`CheckpointError::Key`]; the text is in no error.
    pub fn from_seed_text(origin: &str, text: &str) -> Result<Self, CheckpointError> {
        let bytes = BASE64.decode(text.trim_ascii_end().as_bytes()).map_err(|_| CheckpointError::Key)?;
        let bytes = Zeroizing::new(bytes);
        let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| CheckpointError::Key)?;
        Self::new(origin, seed)
    }

    /// The text for the log key's file. A secret.
    #[must_use]
    pub fn seed_text(seed: &[u8; 32]) -> Zeroizing<String> {
        let mut text = Zeroizing::new(BASE64.encode(seed));
        text.push('\n');
        text
    }

    /// The service's own key for one purpose, from the same secret: every node has it, and no database.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> MacKey {
        MacKey::new(self.key.to_bytes()).derive(purpose)
    }

    /// Its public half.
    #[must_use]
    pub fn verifier(&self) -> LogVerifier {
        self.verifier.clone()
    }

    /// Signs a checkpoint; the origin is the key's own.
    #[must_use]
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let origin = &self.verifier.origin;
        let body = format!("{origin}\n{size}\n{}\n", BASE64.encode(root));
        let signature = self.key.sign(body.as_bytes()).to_bytes();
        let signed = BASE64.encode(&[self.verifier.id.as_slice(), &signature].concat());
        format!("{body}\n— {origin} {signed}\n")
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKey").field("verifier", &self.verifier.to_text()).finish_non_exhaustive()
    }
}

/// A log's name unless somebody chose one: the service's public URL without its scheme, and `/log`.
#[must_use]
pub fn usual_origin(public_url: &str) -> String {
    let authority = public_url.split_once("://").map_or(public_url, |(_, rest)| rest);
    format!("{authority}/log")
}

/// Whether this can be a log's name: visible ASCII without `+`, at most 256 bytes.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'+';
    !text.is_empty() && text.len() <= ORIGIN_BYTES_MAX && text.bytes().all(allowed)
}

impl LogVerifier {
    fn new(origin: &str, key: VerifyingKey) -> Result<Self, CheckpointError> {
        if !is_origin(origin) {
            return Err(CheckpointError::Key);
        }
        let digest: [u8; 32] = Sha256::new()
            .chain_update(origin)
            .chain_update([b'\n', ED25519])
            .chain_update(key.as_bytes())
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        Ok(Self { origin: origin.to_owned(), id: [a, b, c, d], key })
    }

    /// Parses the verifier key text.
    ///
    /// # Errors
    /// [`CheckpointError::Key`], also when its key id does not fit the key.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut parts = text.splitn(3, '+');
        let (Some(origin), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(CheckpointError::Key);
        };
        let key = BASE64.decode(key.as_bytes()).map_err(|_| CheckpointError::Key)?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(CheckpointError::Key) };
        let key: &[u8; 32] = key.try_into().map_err(|_| CheckpointError::Key)?;
        let key = VerifyingKey::from_bytes(key).map_err(|_| CheckpointError::Key)?;
        let verifier = Self::new(origin, key)?;
        if id == HEXLOWER.encode(&verifier.id) { Ok(verifier) } else { Err(CheckpointError::Key) }
    }

    /// The verifier key text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let key = BASE64.encode(&[[ED25519].as_slice(), self.key.as_bytes()].concat());
        format!("{}+{}+{key}", self.origin, HEXLOWER.encode(&self.id))
    }

    /// The name of its log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Checks a signed checkpoint and says what it states.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn check(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(CheckpointError::Malformed);
        }
        let (body, signatures) = note.split_once("\n\n").ok_or(CheckpointError::Malformed)?;
        let checkpoint = Checkpoint::parse_body(body)?;
        let signatures = signatures.strip_suffix('\n').ok_or(CheckpointError::Malformed)?;
        let signed = format!("{body}\n");
        let mut is_signed = false;
        for line in signatures.split('\n') {
            let (name, id, signature) = signature_line(line).ok_or(CheckpointError::Malformed)?;
            if name != self.origin || id != self.id {
                continue;
            }
            let signature = Signature::from_slice(&signature).map_err(|_| CheckpointError::Signature)?;
            self.key.verify_strict(signed.as_bytes(), &signature).map_err(|_| CheckpointError::Signature)?;
            is_signed = true;
        }
        if checkpoint.origin != self.origin {
            return Err(CheckpointError::Origin);
        }
        if is_signed { Ok(checkpoint) } else { Err(CheckpointError::Signature) }
    }
}

/// Name, key id and signature of one signature line.
fn signature_line(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, signed) = line.strip_prefix("— ")?.split_once(' ')?;
    let mut bytes = BASE64.decode(signed.as_bytes()).ok()?;
    if bytes.len() < 4 {
        return None;
    }
    let signature = bytes.split_off(4);
    let id = bytes.try_into().ok()?;
    (!name.is_empty() && !name.contains('+')).then_some((name, id, signature))
}

impl Checkpoint {
    /// Reads the three lines before the empty one.
    fn parse_body(body: &str) -> Result<Self, CheckpointError> {
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed);
        };
        let number: u64 = size.parse().map_err(|_| CheckpointError::Malformed)?;
        let root = BASE64.decode(root.as_bytes()).ok().and_then(|bytes| Hash::try_from(bytes).ok());
        match root {
            Some(root) if number.to_string() == size && !origin.is_empty() => {
                Ok(Self { origin: origin.to_owned(), size: number, root })
            }
            Some(_) | None => Err(CheckpointError::Malformed),
        }
    }

    /// What an unchecked note claims, without looking at any signature. For messages only.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn claimed(note: &str) -> Result<Self, CheckpointError> {
        let (body, _) = note.split_once("\n\n").ok_or(CheckpointError::Malformed)?;
        Self::parse_body(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "hallpass.example.com/log";

    fn key() -> LogKey {
        LogKey::new(ORIGIN, &[7; 32]).unwrap()
    }

    #[test]
    fn a_signed_checkpoint_says_what_was_signed() {
        let note = key().sign(42, &[9; 32]);
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size: 42, root: [9; 32] };
        assert_eq!(key().verifier().check(&note), Ok(checkpoint.clone()));
        assert_eq!(Checkpoint::claimed(&note), Ok(checkpoint));
    }

    #[test]
    fn the_verifier_key_of_the_specification_is_read_and_its_note_verified() {
        // The example of the signed-note package, golang.org/x/mod/sumdb/note.
        let verifier =
            LogVerifier::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        assert_eq!(verifier.to_text(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let (_, id, signature) = signature_line(line).unwrap();
        assert_eq!(id, verifier.id);
        let signature = Signature::from_slice(&signature).unwrap();
        assert!(verifier.key.verify_strict(text.as_bytes(), &signature).is_ok());
    }

    #[test]
    fn any_change_of_a_note_is_refused() {
        let verifier = key().verifier();
        let note = key().sign(42, &[9; 32]);
        for (place, _) in note.char_indices() {
            let mut bytes = note.clone().into_bytes();
            bytes[place] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(verifier.check(&changed).is_err(), "{changed}");
            }
            assert!(verifier.check(note.split_at(place).0).is_err());
        }
    }

    #[test]
    fn signatures_of_others_are_skipped_and_extension_lines_refused() {
        let verifier = key().verifier();
        let note = key().sign(42, &[9; 32]);
        let witness = LogKey::new("witness.example", &[8; 32]).unwrap();
        let theirs = witness.sign(42, &[9; 32]);
        let (_, line) = theirs.split_once("\n\n").unwrap();
        assert!(verifier.check(&format!("{note}{line}")).is_ok());
        assert_eq!(witness.verifier().check(&format!("{note}{line}")), Err(CheckpointError::Signature));
        assert_eq!(verifier.check(&theirs), Err(CheckpointError::Origin));
        let (body, signatures) = note.split_once("\n\n").unwrap();
        assert_eq!(verifier.check(&format!("{body}\nmore\n\n{signatures}")), Err(CheckpointError::Malformed));
    }

    #[test]
    fn a_log_key_shows_only_its_public_half() {
        let text = LogKey::seed_text(&[7; 32]);
        assert_eq!(LogKey::from_seed_text(ORIGIN, &text).unwrap().verifier(), key().verifier());
        assert!(!format!("{:?}", key()).contains(text.trim()));
        assert!(LogKey::from_seed_text(ORIGIN, "c2hvcnQ=").is_err());
        for origin in ["", "a b", "a+b", "ä"] {
            assert!(LogKey::new(origin, &[7; 32]).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_verifier_key_with_another_id_is_refused() {
        let text = key().verifier().to_text();
        assert_eq!(LogVerifier::parse(&text), Ok(key().verifier()));
        let (origin, rest) = text.split_once('+').unwrap();
        assert!(LogVerifier::parse(&format!("other{origin}+{rest}")).is_err());
        assert!(LogVerifier::parse(origin).is_err());
    }
}
