//! Signed notes (C2SP `signed-note`, Ed25519): a text, and lines that say who signed it.
//!
//! What for: the log key signs three kinds of text, checkpoints of the log (`audit::checkpoint`), trust bundles ([`crate::ssh::bundle`]) and
//! whose bundle a host is to have ([`crate::ssh::belonging`]); all are checked offline by whoever kept the verifier key, a host among them.
//!
//! What not: what a text means, and which key to trust. No kind of text may pass for another: a checkpoint's first line is a
//! name without blanks; those of the others begin with `# ` and are two different ones.
//!
//! A signature line is `— NAME BASE64(key id ‖ signature)`. The key id is the first four bytes of
//! SHA-256(name ‖ `\n` ‖ 0x01 ‖ public key); the verifier key text is `NAME+HEX(key id)+BASE64(0x01 ‖ public key)`.
//!
//! Invariants: verification is the strict one (no malleable signatures, no keys of small order); the private half is wiped on drop and
//! never printed.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// signed-note's algorithm byte for Ed25519.
const ED25519: u8 = 1;

/// Our choice: a URL without its scheme.
const NAME_BYTES_MAX: usize = 200;

/// What begins a signature line.
const DASH: &str = "— ";

/// A key that signs notes. Wiped on drop.
pub struct NoteSigner {
    verifier: NoteVerifier,
    key: SigningKey,
}

/// The public half: `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    id: [u8; 4],
    key: VerifyingKey,
}

/// Why a key or a signature does not count.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NoteError {
    /// Not a verifier key, or a name that none can have.
    #[error("not a key that signs notes")]
    Key,
    /// Not a signature line.
    #[error("not a signature line")]
    Malformed,
    /// No line is by this key.
    #[error("not signed by this key")]
    Unsigned,
    /// A line that says that it is by this key is not.
    #[error("the signature does not verify")]
    Signature,
}

/// Whether a key can have this name: visible ASCII without `+`, at most 200 bytes.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'+';
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed)
}

impl NoteSigner {
    /// The key of these 32 bytes under this name.
    ///
    /// # Errors
    /// [`NoteError::Key`] for a name that none can have.
    pub fn new(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let key = SigningKey::from_bytes(seed);
        Ok(Self { verifier: NoteVerifier::new(name, key.verifying_key())?, key })
    }

    /// Its public half.
    #[must_use]
    pub const fn verifier(&self) -> &NoteVerifier {
        &self.verifier
    }

    /// The signature line over `text`, without a line end.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let signed = BASE64.encode(&[self.verifier.id.as_slice(), &signature].concat());
        format!("{DASH}{} {signed}", self.verifier.name)
    }

    /// The 32 bytes it was made from, to derive other secrets from.
    pub(crate) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }
}

impl NoteVerifier {
    fn new(name: &str, key: VerifyingKey) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Key);
        }
        let digest: [u8; 32] = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', ED25519])
            .chain_update(key.as_bytes())
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        Ok(Self { name: name.to_owned(), id: [a, b, c, d], key })
    }

    /// Parses the verifier key text.
    ///
    /// # Errors
    /// [`NoteError::Key`], also when its key id does not fit the key.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let key = BASE64.decode(key.as_bytes()).ok().ok_or(NoteError::Key)?;
        let Some((&ED25519, key)) = key.split_first() else { return Err(NoteError::Key) };
        let key: &[u8; 32] = key.try_into().ok().ok_or(NoteError::Key)?;
        let key = VerifyingKey::from_bytes(key).ok().ok_or(NoteError::Key)?;
        let verifier = Self::new(name, key)?;
        if id == HEXLOWER.encode(&verifier.id) { Ok(verifier) } else { Err(NoteError::Key) }
    }

    /// The verifier key text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let key = BASE64.encode(&[[ED25519].as_slice(), self.key.as_bytes()].concat());
        format!("{}+{}+{key}", self.name, HEXLOWER.encode(&self.id))
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Checks the signature lines (without the last line end) behind `text`. Lines of other keys are skipped; one that is not a
    /// signature line at all, or says that it is by this key and is not, spoils all.
    ///
    /// # Errors
    /// [`NoteError::Malformed`], [`NoteError::Signature`], [`NoteError::Unsigned`].
    pub fn check(&self, text: &str, lines: &str) -> Result<(), NoteError> {
        let mut is_signed = false;
        for line in lines.split('\n') {
            let (name, id, signature) = signature_line(line).ok_or(NoteError::Malformed)?;
            if name != self.name || id != self.id {
                continue;
            }
            let signature = Signature::from_slice(&signature).ok().ok_or(NoteError::Signature)?;
            self.key.verify_strict(text.as_bytes(), &signature).ok().ok_or(NoteError::Signature)?;
            is_signed = true;
        }
        if is_signed { Ok(()) } else { Err(NoteError::Unsigned) }
    }
}

/// Name, key id and signature of one signature line.
fn signature_line(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, signed) = line.strip_prefix(DASH)?.split_once(' ')?;
    let mut bytes = BASE64.decode(signed.as_bytes()).ok()?;
    if bytes.len() < 4 {
        return None;
    }
    let signature = bytes.split_off(4);
    let id = bytes.try_into().ok()?;
    let is_allowed = |c: char| c != '+' && !c.is_whitespace() && !c.is_control();
    (!name.is_empty() && name.chars().all(is_allowed)).then_some((name, id, signature))
}

/// Whether this is a signature line, whoever's.
pub(crate) fn is_signature_line(line: &str) -> bool {
    signature_line(line).is_some()
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoteSigner").field("verifier", &self.verifier.to_text()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_key_of_the_specification_is_read_and_its_note_verified() {
        // The example of the signed-note package, golang.org/x/mod/sumdb/note.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let verifier = NoteVerifier::parse(text).unwrap();
        assert_eq!(verifier.to_text(), text);
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        assert_eq!(verifier.check(note, line), Ok(()));
        assert_eq!(verifier.check(&note.replace("don't", "do"), line), Err(NoteError::Signature));
    }

    #[test]
    fn lines_of_others_are_skipped_and_lines_that_are_none_are_refused() {
        let (ours, theirs) = (NoteSigner::new("a", &[1; 32]).unwrap(), NoteSigner::new("b", &[2; 32]).unwrap());
        let both = format!("{}\n{}", theirs.sign("text\n"), ours.sign("text\n"));
        assert_eq!(ours.verifier().check("text\n", &both), Ok(()));
        assert_eq!(ours.verifier().check("text\n", &theirs.sign("text\n")), Err(NoteError::Unsigned));
        assert_eq!(ours.verifier().check("text\n", &format!("{both}\nx")), Err(NoteError::Malformed));
        assert_eq!(ours.verifier().check("text\n", ""), Err(NoteError::Malformed));
        for name in ["a\u{1b}[2J", "a\u{a0}b", "a+b", ""] {
            let odd = ours.sign("text\n").replacen("— a ", &format!("— {name} "), 1);
            assert_eq!(ours.verifier().check("text\n", &odd), Err(NoteError::Malformed), "{name:?}");
        }
    }
}
