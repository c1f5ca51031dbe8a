//! Reading the log: checkpoint, entries, proofs; for operators and auditors.

use super::{Failure, Outcome, Service};
use crate::audit::entry::Entry;
use crate::audit::search::Search;
use crate::audit::tree::{Hash, consistency_nodes, consistency_proof, inclusion_nodes, inclusion_proof};
use crate::identity::Proven;

/// Most entries in one answer.
const ENTRIES_MAX: usize = 1000;

/// How many entries one search looks at; the next goes on from there. Our own choice: some tens of milliseconds.
const SEARCHED_MAX: u64 = 5000;

/// How many of them are read at once.
const SEARCHED_AT_ONCE: u64 = 500;

/// Entries that somebody looked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// Newest first.
    pub entries: Vec<Entry>,
    /// Where the next search goes on: no entry from here on was left out. `None` at the log's beginning.
    pub before: Option<u64>,
}

impl Service {
    /// The signed checkpoint over the log as it stands, and its size. Anyone logged in may have it.
    ///
    /// # Errors
    /// Store failures.
    pub async fn checkpoint(&self) -> Outcome<(String, u64)> {
        let frontier = self.store.head().await?.frontier;
        Ok((self.log_key.sign(frontier.size(), &frontier.root()), frontier.size()))
    }

    /// The log key's public half, as verifier key text.
    #[must_use]
    pub fn log_verifier(&self) -> String {
        self.log_key.verifier().to_text()
    }

    /// Canonical bytes of entries from `from`; operators and auditors only. At most 1000.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn entries(&self, by: &Proven, from: u64, limit: usize) -> Outcome<Vec<Vec<u8>>> {
        self.check_reader(by, "read the log")?;
        Ok(self.store.entries(from, limit.min(ENTRIES_MAX)).await?)
    }

    /// The newest entries before `before` (else of all) that `search` matches, at most `limit`; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn find_entries(
        &self,
        by: &Proven,
        search: &Search,
        before: Option<u64>,
        limit: usize,
    ) -> Outcome<Found> {
        self.check_reader(by, "read the log")?;
        let size = self.store.head().await?.frontier.size();
        let mut end = before.unwrap_or(size).min(size);
        let stop = end.saturating_sub(SEARCHED_MAX);
        let mut entries = Vec::new();
        while end > stop {
            let from = end.saturating_sub(SEARCHED_AT_ONCE).max(stop);
            let count = usize::try_from(end.saturating_sub(from)).unwrap_or(ENTRIES_MAX);
            for bytes in self.store.entries(from, count).await?.iter().rev() {
                let entry = Entry::parse(bytes).map_err(|error| Failure::internal("reading the log", error))?;
                end = entry.index;
                if search.matches(&entry) {
                    entries.push(entry);
                }
                if entries.len() == limit {
                    return Ok(Found { entries, before: Some(end).filter(|end| *end > 0) });
                }
            }
            end = end.min(from);
        }
        Ok(Found { entries, before: Some(end).filter(|end| *end > 0) })
    }

    /// Inclusion proof of `index` in the tree of `size`.
    ///
    /// # Errors
    /// `Invalid` when there is no such entry or tree.
    pub async fn inclusion(&self, index: u64, size: u64) -> Outcome<Vec<Hash>> {
        self.check_size(size).await?;
        if index >= size {
            return Err(Failure::Invalid(format!("a log of {size} entries has no entry {index}")));
        }
        let nodes = self.store.nodes(inclusion_nodes(index, size)).await?;
        inclusion_proof(index, size, &nodes).ok_or_else(|| Failure::internal("proving inclusion", "a node is missing"))
    }

    /// Consistency proof between two sizes.
    ///
    /// # Errors
    /// `Invalid` when the sizes don't fit.
    pub async fn consistency(&self, old: u64, new: u64) -> Outcome<Vec<Hash>> {
        self.check_size(new).await?;
        if old == 0 || old > new {
            return Err(Failure::Invalid(format!("no proof from size {old} to {new}; sizes go from 1 upwards")));
        }
        let nodes = self.store.nodes(consistency_nodes(old, new)).await?;
        consistency_proof(old, new, &nodes).ok_or_else(|| Failure::internal("proving consistency", "a node is missing"))
    }

    async fn check_size(&self, size: u64) -> Outcome<()> {
        let now = self.store.head().await?.frontier.size();
        if size <= now {
            return Ok(());
        }
        Err(Failure::Invalid(format!("the log has {now} entries, not {size}")))
    }
}
