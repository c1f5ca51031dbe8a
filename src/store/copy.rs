//! From a SQLite file to an empty PostgreSQL database, with the log's proofs intact. Offline: the file is locked as by a service.
//!
//! Everything goes in one transaction, under the lock of the target's log head: a failure leaves the target as it was. Before it is
//! committed, what was written is read back: the tree is made anew of the entries and must be the sealed head's, and of every kind there
//! must be as many rows as were read. The source stays as it is (but for its schema, which is brought to this program's).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::postgres::copy::Target;
use super::sqlite::export::{Export, KINDS};
use super::{Head, StoreError, postgres, sqlite};
use crate::audit::entry::Entry;
use crate::audit::tree::{Frontier, Hash};
use crate::identity::mac::MacKey;

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The log's entries.
    pub entries: u64,
    /// The root of its tree.
    pub root: Hash,
    /// How many rows of each table, by its name in the database.
    pub rows: Vec<(&'static str, u64)>,
}

/// Copies everything. `key` seals the log's head in both.
///
/// # Errors
/// When the source is in use, damaged or empty; when the target is not empty; [`StoreError::Damaged`] when what was written does not
/// read back as it was. Then nothing was copied.
pub async fn copy(from: &sqlite::Settings, to: &postgres::Settings, key: MacKey) -> Result<Copied, StoreError> {
    let key = Arc::new(key);
    let source = Export::open(from, &key)?;
    let head = source.head().clone();
    if head.frontier.size() == 0 {
        return Err(refuse("the source has no log yet: there is nothing to copy"));
    }
    let target = Target::begin(to).await?;
    let mut rows = Vec::with_capacity(KINDS.len());
    for kind in KINDS {
        let mut select = source.prepare(kind)?;
        let (mut reading, mut read) = (select.start()?, 0_u64);
        while let Some((sheet, count)) = reading.next_sheet()? {
            target.write(&sheet, &head, &key).await?;
            read = read.saturating_add(count);
        }
        rows.push((kind.table(), read));
    }
    target.check(&head).await?;
    for (table, read) in &rows {
        let written = target.count(table).await?;
        if written != *read {
            return Err(differs(format!("{written} rows of {table} were written, and {read} read")));
        }
    }
    check_tree(&target, &head).await?;
    target.commit().await?;
    Ok(Copied { entries: head.frontier.size(), root: head.frontier.root(), rows })
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
