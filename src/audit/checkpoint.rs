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
//! The signature is over lines 1 to 3 with their line ends; key ids and verifier keys are those of [`crate::note`].
//!
//! Invariants: extension lines after the root are refused (we write none, so one means something that we don't understand);
//! signature lines of other keys (witnesses) are skipped.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use data_encoding::BASE64;
use thiserror::Error;
use zeroize::Zeroizing;

use super::tree::Hash;
use crate::identity::mac::MacKey;
use crate::note::{self, NoteError, NoteSigner, NoteVerifier};

/// Our choice: a note has three lines and some signatures; more than this is not one.
const NOTE_BYTES_MAX: usize = 16 * 1024;

/// The log key: signs checkpoints and trust bundles, never certificates. Wiped on drop.
pub struct LogKey(NoteSigner);

/// The public half as a signed-note verifier key: `name+hash+base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogVerifier(NoteVerifier);

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

/// Of the checkpoints in a text the one that says that it covers most: a service's own file has two, with many line ends behind each. A text without
/// such line ends is one checkpoint.
#[must_use]
pub fn newest(text: &str) -> String {
    // No note has three line ends in a row.
    let notes = text.split("\n\n\n").map(|note| note.trim_matches('\n')).filter(|note| !note.is_empty());
    let notes: Vec<String> = notes.map(|note| format!("{note}\n")).collect();
    if notes.len() < 2 && !text.ends_with("\n\n") {
        return text.to_owned();
    }
    notes.into_iter().max_by_key(|note| Checkpoint::claimed(note).ok().map(|claimed| claimed.size)).unwrap_or_default()
}

impl LogKey {
    /// The key for the log `origin` (a schema-less URL such as `hallpass.example.com/log`, no blanks or `+`).
    ///
    /// # Errors
    /// [`CheckpointError::Key`] for a bad origin.
    pub fn new(origin: &str, seed: &[u8; 32]) -> Result<Self, CheckpointError> {
        Ok(Self(NoteSigner::new(origin, seed)?))
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
        MacKey::new(*self.0.seed()).derive(purpose)
    }

    /// Its public half.
    #[must_use]
    pub fn verifier(&self) -> LogVerifier {
        LogVerifier(self.0.verifier().clone())
    }

    /// As the key that signs trust bundles.
    #[must_use]
    pub const fn notes(&self) -> &NoteSigner {
        &self.0
    }

    /// Signs a checkpoint; the origin is the key's own.
    #[must_use]
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let body = format!("{}\n{size}\n{}\n", self.0.verifier().name(), BASE64.encode(root));
        let line = self.0.sign(&body);
        format!("{body}\n{line}\n")
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogKey").field(&self.0.verifier().to_text()).finish()
    }
}

impl From<NoteError> for CheckpointError {
    fn from(error: NoteError) -> Self {
        match error {
            NoteError::Key => Self::Key,
            NoteError::Malformed => Self::Malformed,
            NoteError::Signature | NoteError::Unsigned => Self::Signature,
        }
    }
}

/// A log's name unless somebody chose one: the service's public URL without its scheme, and `/log`.
#[must_use]
pub fn usual_origin(public_url: &str) -> String {
    let authority = public_url.split_once("://").map_or(public_url, |(_, rest)| rest);
    format!("{authority}/log")
}

/// Whether this can be a log's name: visible ASCII without `+`, at most 200 bytes.
#[must_use]
pub fn is_origin(text: &str) -> bool {
    note::is_name(text)
}

impl LogVerifier {
    /// Parses the verifier key text.
    ///
    /// # Errors
    /// [`CheckpointError::Key`], also when its key id does not fit the key.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        Ok(Self(NoteVerifier::parse(text)?))
    }

    /// The verifier key text.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.to_text()
    }

    /// The name of its log.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.0.name()
    }

    /// As the key that trust bundles are checked with.
    #[must_use]
    pub const fn notes(&self) -> &NoteVerifier {
        &self.0
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
        let checked = self.0.check(&format!("{body}\n"), signatures);
        // A note of another log has no line of ours; say that it is another's.
        if checkpoint.origin != self.origin() && matches!(checked, Ok(()) | Err(NoteError::Unsigned)) {
            return Err(CheckpointError::Origin);
        }
        checked?;
        Ok(checkpoint)
    }
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
