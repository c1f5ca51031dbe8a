//! Reading the log: checkpoint, entries, proofs; for operators and auditors.

use super::{Failure, Outcome, Service};
use crate::audit::tree::{Hash, consistency_nodes, consistency_proof, inclusion_nodes, inclusion_proof};
use crate::identity::Proven;

/// Most entries in one answer.
const ENTRIES_MAX: usize = 1000;

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
