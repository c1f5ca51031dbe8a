//! From a SQLite file to an empty PostgreSQL database, with the log's proofs intact. Offline: the file is locked as by a service.
//!
//! Everything goes in one transaction, under the lock of the target's log head: a failure leaves the target as it was. Before it is
//! committed, what was written is read back: the tree is made anew of the entries and must be the sealed head's, and of every kind there
//! must be as many rows as were read. The source keeps all that it has (its schema is brought to this program's).
//!
//! Then the source is marked as moved, under the lock that it was read under: two services must not go on from one beginning. Until the mark is
//! durable the source is as good as before; a crash between the two leaves both, and doing it again finds the copy and sets the mark. So it does after a
//! commit whose answer was lost. A source that is behind what is known of its log (nodes ran on the copy, with the checkpoint that is kept beside it) is marked
//! if the target has its copy, and else refused. Nodes may be at work on the copy by then: its schema stays as it is, and its log is locked no longer than to look at its edge.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::postgres::copy::{Found, Target};
use super::sqlite::Moved;
use super::sqlite::export::{Export, KINDS};
use super::{Head, Settings, StoreError, postgres, sqlite};
use crate::audit::entry::Entry;
use crate::audit::tree::{Frontier, Hash};
use crate::fail;
use crate::identity::mac::MacKey;
use crate::time::Timestamp;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The log's entries.
    pub entries: u64,
    /// The root of its tree.
    pub root: Hash,
    /// How many rows of each table, by its name in the database. None where the target had the copy already: nodes may be at work on it.
    pub rows: Vec<(&'static str, u64)>,
    /// If the target had the copy already: how many entries were written there since.
    pub since: Option<u64>,
}

/// Why it was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CopyError {
    /// Nothing was copied.
    #[error(transparent)]
    Nothing(#[from] StoreError),
    /// A copy was only to be found, and the target has none.
    #[error("the target has no copy of it")]
    Missing,
    /// The answer to the commit was lost: all was copied, or nothing.
    #[error("{0}")]
    Unknown(StoreError),
    /// The copy is whole, and the source could not be marked as moved.
    #[error("{0}")]
    Unmarked(StoreError),
}

/// What beside the two places a copy rests on.
#[derive(Debug)]
pub struct Terms {
    /// Seals the log's head in both.
    pub key: MacKey,
    /// Now.
    pub at: Timestamp,
    /// Whether a source that was moved to another place is copied once more.
    pub again: bool,
    /// Whether the source is as good as a copy that is there, and not to be copied: more of its log is known than it has.
    pub is_behind: bool,
}

/// Copies everything, and marks the source as moved. On a target that has the copy already, only the latter.
///
/// # Errors
/// When the source is in use, damaged, empty, or moved elsewhere; when the target holds anything else; [`StoreError::Damaged`] when what was
/// written does not read back as it was. Then nothing was copied. [`CopyError::Unmarked`] when it was; [`CopyError::Unknown`] when doing it again must
/// say; [`CopyError::Missing`] when the source is behind, and the target has nothing.
pub async fn copy(from: &sqlite::Settings, to: &postgres::Settings, terms: Terms) -> Result<Copied, CopyError> {
    let Terms { key, at, again, is_behind } = terms;
    let key = Arc::new(key);
    let mut source = Export::open(from, &key)?;
    let moved = source.moved()?;
    let head = source.head().clone();
    if head.frontier.size() == 0 {
        return Err(refuse("the source has no log yet: there is nothing to copy").into());
    }
    let (mut rows, mut since) = (Vec::new(), None);
    match Target::begin(to, (&head.frontier, &key), is_behind).await? {
        Found::Nothing => return Err(CopyError::Missing),
        Found::Copy(more) => since = Some(more),
        Found::Room(target) => {
            if let Some(Moved { place, at }) = moved.as_ref().filter(|_| !again) {
                return Err(refuse(&format!(
                "it was moved to the PostgreSQL database {place} ({at}). If that was given up before any node ran on it: --again"
            ))
            .into());
            }
            rows = write(&source, (&*target, &head), &key).await?;
            target.commit().await?;
        }
    }
    fail::point("migrate.copied");
    let place = Settings::Postgres(to.clone()).shown();
    if moved.is_none_or(|moved| moved.place != place) {
        source.mark(&place, at).map_err(CopyError::Unmarked)?;
    }
    fail::point("migrate.marked");
    Ok(Copied { entries: head.frontier.size(), root: head.frontier.root(), rows, since })
}

/// Writes everything, and reads it back; gives how many rows of each kind.
async fn write(
    source: &Export,
    (target, head): (&Target, &Head),
    key: &MacKey,
) -> Result<Vec<(&'static str, u64)>, StoreError> {
    let mut rows = Vec::with_capacity(KINDS.len());
    for kind in KINDS {
        let mut select = source.prepare(kind)?;
        let (mut reading, mut read) = (select.start()?, 0_u64);
        while let Some((sheet, count)) = reading.next_sheet()? {
            target.write(&sheet, head, key).await?;
            read = read.saturating_add(count);
        }
        rows.push((kind.table(), read));
    }
    target.check(head).await?;
    for (table, read) in &rows {
        let written = target.count(table).await?;
        if written != *read {
            return Err(differs(format!("{written} rows of {table} were written, and {read} read")));
        }
    }
    check_tree(target, head).await?;
    Ok(rows)
}

fn refuse(why: &str) -> StoreError {
    StoreError::Failed { doing: "copying a store", why: why.to_owned() }
}

fn differs(why: String) -> StoreError {
    StoreError::Damaged { what: "the copy".to_owned(), why }
}

/// The tree over the entries as they stand in the target is the head's, with every one of its nodes.
async fn check_tree(target: &Target, head: &Head) -> Result<(), StoreError> {
    let mut frontier = Frontier::default();
    while frontier.size() < head.frontier.size() {
        let entries = target.entries(frontier.size()).await?;
        if entries.is_empty() {
            break;
        }
        let mut nodes = BTreeMap::new();
        for bytes in entries {
            let index = frontier.size();
            let entry = Entry::parse(&bytes).map_err(|why| differs(format!("log entry {index}: {why}")))?;
            if entry.index != index {
                return Err(differs(format!("log entry {index} says that it is entry {}", entry.index)));
            }
            nodes.extend(frontier.push(Entry::leaf_hash(&bytes)));
        }
        let written = target.nodes(&nodes.keys().copied().collect::<Vec<_>>()).await?;
        if written != nodes {
            return Err(differs("its tree nodes are not those of its entries".to_owned()));
        }
    }
    if frontier == head.frontier {
        Ok(())
    } else {
        Err(differs("its entries make another tree than the log's".to_owned()))
    }
}
