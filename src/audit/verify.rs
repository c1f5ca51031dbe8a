//! The offline verification of an export: finds and names any change, deletion, reordering or truncation.
//!
//! What for: an auditor with one file, the log key and perhaps an older checkpoint, on a machine without network.
//!
//! What is checked, line by line and without keeping the lines: the header; each entry's one spelling; numbers without gap and
//! times that never run backwards; what entries mean together (`replay`); the subtree lines; the root, against the signed
//! checkpoint; the older checkpoint, whose root must come out at its size. Whoever holds the log key can write another history that
//! is sound in itself: only an older checkpoint, kept elsewhere, shows that.
//!
//! Limits: a line of 1 MiB, 100 findings.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::io::{BufRead, Read as _};

use super::approvals::Approvals;
use super::checkpoint::{Checkpoint, LogVerifier};
use super::entry::{ENTRY_BYTES_MAX, Entry};
use super::event::Event;
use super::export::{GROUP, GROUP_LEVEL, Other, other_line, subtree_line};
use super::group::Group;
use super::replay::loss::Loss;
use super::replay::{Replay, Wrong};
use super::tree::{Frontier, Hash, leaf_hash};
use crate::name::Serial;
use crate::time::Timestamp;

/// More findings than these tell nobody more. Our own choice.
const FINDINGS_MAX: usize = 100;

/// What a clean export shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many entries.
    pub entries: u64,
    /// The checkpoint that covers them.
    pub checkpoint: Checkpoint,
    /// The key that signed it: the one given, else the file's own.
    pub key: LogVerifier,
    /// Times of the first and last entries.
    pub span: (Timestamp, Timestamp),
    /// How many certificates were about to be signed.
    pub certificates: u64,
    /// Of those, the ones without an outcome entry: perhaps handed out, perhaps not.
    pub without_outcome: Vec<Serial>,
    /// The approvals, and who signed them.
    pub approvals: Approvals,
    /// Each time that entries were given up.
    pub losses: Vec<Loss>,
}

/// One finding; there may be several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line in the file, from 1.
    pub line: u64,
    /// The entry, if it is about one.
    pub entry: Option<u64>,
    /// What kind.
    pub kind: FindingKind,
    /// What is wrong.
    pub what: String,
}

/// The kinds of finding, as documented for auditors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A line is not in the one form it can have, or not in its place.
    Format,
    /// An entry is missing, doubled or out of order.
    Sequence,
    /// Time runs backwards.
    Time,
    /// An entry contradicts those before it.
    Meaning,
    /// An approver's signature does not fit what the log says of the approval, or is missing where one is demanded.
    Approval,
    /// A group of 256 entries differs from its subtree line.
    Group,
    /// The checkpoint is not signed by the key.
    Signature,
    /// The checkpoint covers more or fewer entries.
    Size,
    /// The entries are not those that the checkpoint was signed for.
    Root,
    /// The older checkpoint does not fit: history was rewritten or cut.
    Earlier,
}

impl FindingKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Format,
        Self::Sequence,
        Self::Time,
        Self::Meaning,
        Self::Approval,
        Self::Group,
        Self::Signature,
        Self::Size,
        Self::Root,
        Self::Earlier,
    ];

    /// `format`, `sequence`, …
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Sequence => "sequence",
            Self::Time => "time",
            Self::Meaning => "meaning",
            Self::Approval => "approval",
            Self::Group => "group",
            Self::Signature => "signature",
            Self::Size => "size",
            Self::Root => "root",
            Self::Earlier => "earlier",
        }
    }
}

/// Verifies an export, read line by line.
///
/// `key` is the verifier key that the auditor holds (from the service's own page or an earlier export); without it the file's own
/// is taken, and the caller says so. `earlier` is a checkpoint kept from before.
///
/// # Errors
/// All findings, the first ones first, at most 100.
pub fn verify(input: impl BufRead, key: Option<&LogVerifier>, earlier: Option<&str>) -> Result<Verified, Vec<Finding>> {
    verify_showing(input, key, earlier, &mut |_| ())
}

/// As [`verify`]; `seen` is shown each entry as it comes, when nobody knows yet whether the export is sound: what is made of them counts for
/// nothing unless this ends well.
///
/// # Errors
/// As [`verify`].
pub fn verify_showing(
    mut input: impl BufRead,
    key: Option<&LogVerifier>,
    earlier: Option<&str>,
    seen: &mut (dyn FnMut(&Entry) + Send),
) -> Result<Verified, Vec<Finding>> {
    let mut check =
        Verification { key: key.cloned(), earlier_note: earlier, seen: Some(seen), ..Verification::default() };
    let mut line = Vec::new();
    while check.findings.len() < FINDINGS_MAX {
        check.line = check.line.saturating_add(1);
        line.clear();
        // One byte more than a line may have, and its end.
        let limit = u64::try_from(ENTRY_BYTES_MAX.saturating_add(2)).unwrap_or(u64::MAX);
        match input.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(why) => {
                check.find(None, FindingKind::Format, format!("cannot read on: {why}"));
                break;
            }
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            let what =
                if line.len() > ENTRY_BYTES_MAX { "the line is longer than 1 MiB" } else { "the last line is cut off" };
            check.find(None, FindingKind::Format, what.to_owned());
            break;
        };
        check.line(text);
        if check.is_foreign {
            return Err(check.findings);
        }
    }
    check.finish()
}

/// A verification of lines as they come, for who has the log itself and no file.
pub struct Lines(Verification<'static>);

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

impl Lines {
    /// Of the log of this key.
    #[must_use]
    pub fn new(key: &LogVerifier) -> Self {
        Self(Verification { key: Some(key.clone()), ..Verification::default() })
    }

    /// Takes the next lines, each with its end.
    pub fn take(&mut self, lines: &str) {
        for line in lines.lines() {
            self.0.line = self.0.line.saturating_add(1);
            self.0.line(line.as_bytes());
        }
    }

    /// As [`verify`].
    ///
    /// # Errors
    /// All findings.
    pub fn finish(self) -> Result<Verified, Vec<Finding>> {
        self.0.finish()
    }
}

/// What is known after the lines so far.
#[derive(Default)]
struct Verification<'a> {
    key: Option<LogVerifier>,
    earlier_note: Option<&'a str>,
    earlier: Option<Checkpoint>,
    /// Who else looks at the entries.
    seen: Option<&'a mut (dyn FnMut(&Entry) + Send)>,
    /// Where the older checkpoint turned out to be of other entries: what the log says of lost ones comes later.
    differs: Option<u64>,
    findings: Vec<Finding>,
    line: u64,
    /// The number that the next entry must have.
    next: u64,
    span: Option<(Timestamp, Timestamp)>,
    tree: Frontier,
    group: Group,
    /// How many subtree lines there were: the position of the next.
    groups: u64,
    replay: Replay,
    approvals: Approvals,
    checkpoint: Option<Checkpoint>,
    is_complete: bool,
    is_foreign: bool,
}

impl Verification<'_> {
    fn find(&mut self, entry: Option<u64>, kind: FindingKind, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { line: self.line, entry, kind, what });
        }
    }

    fn line(&mut self, bytes: &[u8]) {
        if self.is_complete {
            return self.find(None, FindingKind::Format, "there are lines after the checkpoint".to_owned());
        }
        match other_line(bytes) {
            Some(Other::Header(key)) if self.line == 1 => self.header(&key),
            Some(Other::Header(_)) => self.find(None, FindingKind::Format, "a second first line".to_owned()),
            _ if self.line == 1 => {
                self.find(None, FindingKind::Format, "the first line is not that of a hallpass log export".to_owned());
                // Of a file that is something else altogether, one finding says enough.
                match Entry::parse(bytes) {
                    Ok(_) => self.entry(bytes),
                    Err(_) => self.is_foreign = true,
                }
            }
            Some(Other::Subtree) => self.subtree(bytes),
            Some(Other::Checkpoint(note)) => self.checkpoint(&note),
            None => self.entry(bytes),
        }
    }

    fn header(&mut self, text: &str) {
        match (LogVerifier::parse(text), &self.key) {
            (Err(why), _) => self.find(None, FindingKind::Format, format!("the log key: {why}")),
            (Ok(own), None) => self.key = Some(own),
            (Ok(own), Some(given)) if own != *given => {
                let what = format!("the file names the log key {:?}, not the one given", own.to_text());
                self.find(None, FindingKind::Signature, what);
            }
            (Ok(_), Some(_)) => {}
        }
        if let (Some(note), Some(key)) = (self.earlier_note, &self.key) {
            match key.check(note) {
                Ok(earlier) => self.earlier = Some(earlier),
                Err(why) => self.find(None, FindingKind::Earlier, format!("the earlier checkpoint: {why}")),
            }
        }
    }

    fn entry(&mut self, bytes: &[u8]) {
        if self.group.size() >= GROUP {
            self.find(None, FindingKind::Format, format!("the subtree line after {GROUP} entries is missing"));
            self.next_group();
        }
        self.grow(leaf_hash(bytes));
        let expected = self.next;
        match Entry::parse(bytes) {
            Ok(entry) => self.parsed(entry, expected),
            Err(why) => {
                self.next = expected.saturating_add(1);
                self.find(Some(expected), FindingKind::Format, why.to_string());
            }
        }
        self.compare_earlier();
    }

    fn grow(&mut self, leaf: Hash) {
        let mut group = None;
        self.tree.push_with(leaf, |node, hash| {
            if node.level == GROUP_LEVEL {
                group = Some(*hash);
            }
        });
        self.group.push(leaf, group);
    }

    fn parsed(&mut self, entry: Entry, expected: u64) {
        let index = entry.index;
        if index != expected {
            let what = if index < expected {
                format!("entry {index} stands where entry {expected} belongs: doubled or out of order")
            } else {
                let last = index.saturating_sub(1);
                let gap = if last == expected {
                    format!("entry {last} is")
                } else {
                    format!("entries {expected} to {last} are")
                };
                format!("{gap} missing before entry {index}")
            };
            self.find(Some(index), FindingKind::Sequence, what);
        }
        // After a gap go on behind it; after a step back stay, so that one swap is not one finding for each later entry.
        self.next = expected.max(index.saturating_add(1));
        let (first, last) = self.span.unwrap_or((entry.at, entry.at));
        if entry.at < last {
            let what = format!("it is older than the entry before it, by {} s", last.seconds_since(entry.at));
            self.find(Some(index), FindingKind::Time, what);
        }
        self.span = Some((first, entry.at));
        if expected == 0 {
            self.first(&entry);
        }
        self.approvals.count(&entry.event, self.line, index);
        if let Some(seen) = &mut self.seen {
            seen(&entry);
        }
        self.lost_heads(&entry);
        let word = entry.event.kind();
        if let Err(Wrong { kind, what }) = self.replay.take(entry) {
            self.find(Some(index), kind, format!("{word}: {what}"));
        }
    }

    /// Entry 0 names the log key, under the tree's hash.
    fn first(&mut self, entry: &Entry) {
        let key = self.key.as_ref().map(LogVerifier::to_text);
        let Event::LogStarted { log_key, .. } = &entry.event else {
            let what = "the log does not begin with its start".to_owned();
            return self.find(Some(entry.index), FindingKind::Meaning, what);
        };
        if key.is_none_or(|key| key == *log_key) {
            return;
        }
        let what = format!("the log began with another key, {log_key:?}");
        self.find(Some(entry.index), FindingKind::Meaning, what);
    }

    fn subtree(&mut self, bytes: &[u8]) {
        let count = self.group.size();
        let is_wanted = |root| subtree_line(self.groups, &root).as_bytes() == bytes;
        if count != GROUP {
            let what = format!("a subtree line after {count} entries instead of {GROUP}");
            self.find(None, FindingKind::Group, what);
        } else if !self.group.root().is_some_and(is_wanted) {
            let last = self.tree.size().saturating_sub(1);
            let first = self.tree.size().saturating_sub(GROUP);
            let what = format!(
                "entries {first} to {last} are not those that the subtree line (level {GROUP_LEVEL}) was written for"
            );
            self.find(None, FindingKind::Group, what);
        }
        self.next_group();
    }

    fn next_group(&mut self) {
        self.group = Group::behind(self.tree.size());
        self.groups = self.groups.saturating_add(1);
    }

    fn compare_earlier(&mut self) {
        let Some(earlier) = self.earlier.as_ref().filter(|earlier| earlier.size == self.tree.size()) else { return };
        if earlier.root != self.tree.root() {
            self.differs = Some(self.line);
        }
    }

    /// The checkpoints of a lost log were signed by this log's key.
    fn lost_heads(&mut self, entry: &Entry) {
        let (Event::LogRecovered { heads, .. }, Some(key)) = (&entry.event, &self.key) else { return };
        if let Some(why) = heads.iter().find_map(|note| key.check(note).err()) {
            self.find(Some(entry.index), FindingKind::Signature, format!("a lost checkpoint: {why}"));
        }
    }

    /// Says that the older checkpoint does not fit, and whether that may be because of entries that the log itself calls lost.
    fn say_differs(&mut self) {
        let (Some(line), Some(earlier)) = (self.differs, &self.earlier) else { return };
        let size = earlier.size;
        let what = format!("the first {size} entries are not those that the earlier checkpoint was signed for");
        let loss = self.replay.losses.known.iter().find(|loss| loss.may_be_of(size));
        let what = loss.map_or(what.clone(), |loss| {
            let (range, entry) = (loss.range(), loss.entry);
            let is_given_up = loss.heads.contains(earlier);
            let whose = if is_given_up { "this very checkpoint is given up" } else { "some of those are given up" };
            format!(
                "{what}; {whose} by entry {entry} ({range} lost): what stood there only a copy of the lost log shows"
            )
        });
        self.line = line;
        self.find(None, FindingKind::Earlier, what);
    }

    fn checkpoint(&mut self, note: &str) {
        self.is_complete = true;
        if self.group.size() >= GROUP {
            self.find(None, FindingKind::Format, format!("the subtree line after {GROUP} entries is missing"));
        }
        let Some(key) = &self.key else { return };
        let checkpoint = match key.check(note) {
            Ok(checkpoint) => checkpoint,
            Err(why) => return self.find(None, FindingKind::Signature, why.to_string()),
        };
        let (size, entries) = (checkpoint.size, self.tree.size());
        if size != entries {
            let what = format!("the checkpoint covers {size} entries, the file has {entries}");
            self.find(None, FindingKind::Size, what);
        } else if checkpoint.root != self.tree.root() {
            self.find(None, FindingKind::Root, self.where_root_differs());
        }
        self.checkpoint = Some(checkpoint);
    }

    /// The checkpoint says that something differs; the subtree lines may say where it does not.
    fn where_root_differs(&self) -> String {
        let what = "the entries are not those that the checkpoint was signed for";
        if self.findings.iter().any(|finding| finding.kind == FindingKind::Group) {
            return what.to_owned();
        }
        match self.groups.saturating_mul(GROUP).checked_sub(1) {
            None => what.to_owned(),
            Some(last) => {
                format!("{what}; entries 0 to {last} agree with their subtree lines, if nobody changed those as well")
            }
        }
    }

    fn finish(mut self) -> Result<Verified, Vec<Finding>> {
        self.say_differs();
        if let Some(since) = self.replay.losses.unfinished() {
            let what = format!("the log ends in lost entries, from {since} on, that nobody has given up");
            self.find(Some(since), FindingKind::Meaning, what);
        }
        if !self.is_complete && self.findings.len() < FINDINGS_MAX {
            self.find(None, FindingKind::Size, "the file ends before its checkpoint: it was cut off".to_owned());
        }
        if let Some(earlier) = self.earlier.as_ref().filter(|earlier| earlier.size > self.tree.size()) {
            let (size, entries) = (earlier.size, self.tree.size());
            let what = format!("the earlier checkpoint covers {size} entries, the file has {entries}: the log was cut");
            self.find(None, FindingKind::Earlier, what);
        }
        match (self.checkpoint, self.key, self.span) {
            (Some(checkpoint), Some(key), Some(span)) if self.findings.is_empty() => Ok(Verified {
                entries: self.tree.size(),
                checkpoint,
                key,
                span,
                certificates: self.replay.to_be_signed,
                without_outcome: self.replay.without_outcome(),
                approvals: self.approvals,
                losses: self.replay.losses.known,
            }),
            _ => {
                if self.findings.is_empty() {
                    let what = "there are no entries".to_owned();
                    self.findings.push(Finding { line: self.line, entry: None, kind: FindingKind::Format, what });
                }
                Err(self.findings)
            }
        }
    }
}
