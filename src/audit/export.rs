//! The export file: the whole log as lines of text that can be verified offline.
//!
//! Format (JSON lines, each in canonical form as in `entry`, each ended by `\n`):
//!
//! | Line | Content |
//! |---|---|
//! | first | `{"hallpass_log":1,"log_key":"…"}`: the format's version and the verifier key |
//! | then | each entry's canonical bytes, from entry 0 |
//! | after each 256 entries | `{"subtree":{"hash":"…","level":8,"position":n}}`: the tree hash over them, hex |
//! | last | `{"checkpoint":"…"}`: the signed checkpoint over exactly these entries |
//!
//! The subtree lines add nothing to the proof: they only let a change be located within 256 entries, where the checkpoint alone
//! says no more than "something differs".
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use serde_json::Value;
use thiserror::Error;

pub use super::approvals::Approvals;
pub use super::replay::loss::Loss;
pub use super::verify::{Finding, FindingKind, Lines, Verified, verify, verify_showing};

use super::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use super::entry::Entry;
use super::tree::{Frontier, Hash, Node};

/// The format's version.
pub(super) const VERSION: u64 = 1;

/// Level of the subtree lines: 256 entries, our own choice. Half a per cent more text, and few enough to read through.
pub(super) const GROUP_LEVEL: u8 = 8;

/// Entries between two subtree lines.
pub(super) const GROUP: u64 = 256;

/// The first line.
pub(super) fn header_line(log_key: &str) -> String {
    serde_json::json!({ "hallpass_log": VERSION, "log_key": log_key }).to_string()
}

/// A subtree line.
pub(super) fn subtree_line(position: u64, hash: &Hash) -> String {
    let hash = data_encoding::HEXLOWER.encode(hash);
    format!("{{\"subtree\":{{\"hash\":\"{hash}\",\"level\":{GROUP_LEVEL},\"position\":{position}}}}}")
}

/// The last line.
pub(super) fn checkpoint_line(note: &str) -> String {
    serde_json::json!({ "checkpoint": note }).to_string()
}

/// Why an export can't be written: what the service sent, or an older export has, does not fit together.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExportError {
    /// Something else than the next entry.
    #[error("instead of entry {wanted} came {got}")]
    Entry {
        /// The next.
        wanted: u64,
        /// What came.
        got: String,
    },
    /// The checkpoint is no good.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint covers another number of entries.
    #[error("the checkpoint covers {checkpoint} entries, and there are {entries}")]
    Size {
        /// What the checkpoint says.
        checkpoint: u64,
        /// How many there are.
        entries: u64,
    },
    /// The entries are not those that the checkpoint was signed for.
    #[error("the entries are not those that the checkpoint was signed for")]
    Root,
}

/// Reads an entry that is to be this one.
///
/// # Errors
/// [`ExportError::Entry`] if it is not canonical or another.
pub(super) fn next_entry(wanted: u64, bytes: &[u8]) -> Result<Entry, ExportError> {
    let wrong = |got: String| ExportError::Entry { wanted, got };
    let entry = Entry::parse(bytes).map_err(|why| wrong(why.to_string()))?;
    if entry.index == wanted { Ok(entry) } else { Err(wrong(format!("entry {}", entry.index))) }
}

/// Writes an export from entries as they come; checks the tree on the way, so that a wrong export isn't written unnoticed.
#[derive(Debug)]
pub struct Exporter {
    key: LogVerifier,
    tree: Frontier,
}

impl Exporter {
    /// An exporter of this key's log, and the first line (with its line end, like all).
    #[must_use]
    pub fn new(key: LogVerifier) -> (Self, String) {
        let header = format!("{}\n", header_line(&key.to_text()));
        (Self { key, tree: Frontier::default() }, header)
    }

    /// How many entries there were; the index of the next.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The text for the next entry: its line, and a subtree line where one is due.
    ///
    /// # Errors
    /// [`ExportError::Entry`] if it is not canonical or not the next.
    pub fn entry(&mut self, bytes: &[u8]) -> Result<String, ExportError> {
        let wanted = self.size();
        next_entry(wanted, bytes)?;
        let wrong = |got: String| ExportError::Entry { wanted, got };
        let text = std::str::from_utf8(bytes).map_err(|why| wrong(why.to_string()))?;
        let mut lines = format!("{text}\n");
        let group = |(node, _): &(Node, Hash)| node.level == GROUP_LEVEL;
        if let Some((node, hash)) = self.tree.push(Entry::leaf_hash(bytes)).into_iter().find(group) {
            lines.push_str(&subtree_line(node.position, &hash));
            lines.push('\n');
        }
        Ok(lines)
    }

    /// The text for the next line of an older export of this log, after its header: an entry's, nothing for a subtree line (nothing of which is
    /// believed); `None` for its checkpoint, when that is over just the entries so far.
    ///
    /// # Errors
    /// As [`Exporter::entry`] and [`Exporter::finish`].
    pub fn earlier_line(&mut self, line: &[u8]) -> Result<Option<String>, ExportError> {
        match other_line(line) {
            None => self.entry(line).map(Some),
            Some(Other::Subtree) => Ok(Some(String::new())),
            Some(Other::Checkpoint(note)) => self.check(&note).map(|()| None),
            Some(Other::Header(_)) => {
                Err(ExportError::Entry { wanted: self.size(), got: "the first line of an export".to_owned() })
            }
        }
    }

    /// The last line, with the signed checkpoint over all entries.
    ///
    /// # Errors
    /// When the checkpoint is not this log key's or not over exactly these entries.
    pub fn finish(self, note: &str) -> Result<String, ExportError> {
        self.check(note)?;
        Ok(format!("{}\n", checkpoint_line(note)))
    }

    /// Whether this is a checkpoint over just the entries so far.
    fn check(&self, note: &str) -> Result<(), ExportError> {
        let Checkpoint { size, root, .. } = self.key.check(note)?;
        let entries = self.size();
        if size != entries {
            return Err(ExportError::Size { checkpoint: size, entries });
        }
        if root != self.tree.root() {
            return Err(ExportError::Root);
        }
        Ok(())
    }
}

/// A line that is no entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// The first.
    Header(String),
    /// A subtree line, as it stands; the verifier writes what it should be and compares.
    Subtree,
    /// The last: the note.
    Checkpoint(String),
}

/// Reads a line that is no entry; `None` if it may be one.
pub(super) fn other_line(line: &[u8]) -> Option<Other> {
    // Each of these begins with its own name, since members are sorted; entries begin with `{"a…`.
    if line.starts_with(b"{\"a") {
        return None;
    }
    let line = std::str::from_utf8(line).ok()?;
    let name = ["hallpass_log", "subtree", "checkpoint"].into_iter().find(|name| {
        line.strip_prefix("{\"").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('"'))
    })?;
    if name == "subtree" {
        return Some(Other::Subtree);
    }
    let value: Value = serde_json::from_str(line).ok()?;
    let member = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let (other, text) = match name {
        "checkpoint" => member("checkpoint").map(|note| (Other::Checkpoint(note.clone()), checkpoint_line(&note)))?,
        _ => member("log_key").map(|key| (Other::Header(key.clone()), header_line(&key)))?,
    };
    (text == line).then_some(other)
}
