//! How a kept checkpoint stands to the store's log: covered by it, ahead of it, of another branch, or of one that was given up.
//!
//! What for: the start refuses what does not fit (`head`), and `recover` says what it is and has the log go on. Both go by this.
//!
//! A branch is given up by an entry of the log that holds its signed checkpoint, and that is proven to be in the tree under the sealed
//! head. So every node can tell a loss that somebody has answered for from one that nobody knows of, whenever it starts.

use crate::audit::checkpoint::{Checkpoint, LogVerifier};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::tree::{Frontier, inclusion_nodes, inclusion_proof, verify_inclusion};
use crate::store::{Head, LIST_MAX, Store, StoreError};

/// How many entries are looked at at once from the log's end backwards.
const BACK: u64 = 100;

/// What every entry that gives a branch up holds, so that others need not be parsed.
const KIND: &[u8] = b"\"kind\":\"log_recovered\"";

/// How a kept checkpoint stands to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// There is none.
    Missing,
    /// It can't be read, or it does not count.
    Unusable(String),
    /// The log has what it covers.
    Covered(u64),
    /// The log has fewer entries than it covers.
    Behind(u64),
    /// The log has as many, and they are others.
    Other(u64),
    /// It is of a branch that this entry gives up.
    GivenUp(u64),
}

/// Of what is kept in one place, the checkpoint that covers most; one that does not verify only when none does. `None`: nothing is kept.
pub(super) fn newest(verifier: &LogVerifier, kept: Vec<String>) -> Option<String> {
    kept.into_iter().max_by_key(|note| verifier.check(note).ok().map(|signed| signed.size))
}

/// How this signed checkpoint stands to the store's log.
///
/// # Errors
/// Store failures.
pub(super) async fn stands(store: &dyn Store, verifier: &LogVerifier, note: &str) -> Result<Stands, StoreError> {
    let signed = match verifier.check(note) {
        Ok(signed) => signed,
        Err(why) => return Ok(Stands::Unusable(why.to_string())),
    };
    let head = store.head().await?;
    let size = head.frontier.size();
    if size < signed.size {
        return Ok(Stands::Behind(signed.size));
    }
    let wanted = Frontier::nodes_of(signed.size);
    let nodes = store.nodes(wanted.clone()).await?;
    let roots = wanted.iter().filter_map(|node| nodes.get(node).copied()).collect();
    match Frontier::from_parts(signed.size, roots) {
        Some(then) if then.root() == signed.root => Ok(Stands::Covered(signed.size)),
        Some(_) | None => match given_up(store, &head, &signed).await? {
            Some(entry) => Ok(Stands::GivenUp(entry)),
            None => Ok(Stands::Other(signed.size)),
        },
    }
}

/// The entry that gives this checkpoint's branch up. It comes after all that the checkpoint covers.
async fn given_up(store: &dyn Store, head: &Head, signed: &Checkpoint) -> Result<Option<u64>, StoreError> {
    let size = head.frontier.size();
    let mut from = signed.size;
    while from < size {
        let entries = store.entries(from, LIST_MAX).await?;
        if entries.is_empty() {
            break;
        }
        for (index, bytes) in (from..size).zip(&entries) {
            if gives_up(bytes, signed) && is_in(store, head, index, bytes).await? {
                return Ok(Some(index));
            }
        }
        from = from.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
    }
    Ok(None)
}

fn gives_up(bytes: &[u8], signed: &Checkpoint) -> bool {
    if !bytes.windows(KIND.len()).any(|part| part == KIND) {
        return false;
    }
    let Ok(Entry { event: Event::LogRecovered { heads, .. }, .. }) = Entry::parse(bytes) else { return false };
    heads.iter().any(|note| Checkpoint::claimed(note).as_ref() == Ok(signed))
}

/// Whether this entry is in the tree under the head.
pub(super) async fn is_in(store: &dyn Store, head: &Head, index: u64, bytes: &[u8]) -> Result<bool, StoreError> {
    let (size, root) = (head.frontier.size(), head.frontier.root());
    let nodes = store.nodes(inclusion_nodes(index, size)).await?;
    let proof = inclusion_proof(index, size, &nodes);
    Ok(proof.is_some_and(|proof| verify_inclusion(&Entry::leaf_hash(bytes), index, size, &proof, &root)))
}

/// The first of the lost entries that the log ends in, if a recovery was begun and not finished.
///
/// # Errors
/// Store failures, and entries that can't be read.
pub(super) async fn begun(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    let mut end = store.head().await?.frontier.size();
    let mut first = None;
    while end > 0 {
        let from = end.saturating_sub(BACK);
        let count = usize::try_from(end.saturating_sub(from)).unwrap_or(LIST_MAX);
        for bytes in store.entries(from, count).await?.iter().rev() {
            let entry = Entry::parse(bytes).map_err(|why| damaged(why.to_string()))?;
            match (&entry.event, first) {
                (Event::EntryLost { .. }, _) => first = Some(entry.index),
                // What was open ends after the lost entries, and before somebody answers for them.
                (Event::Lapsed { .. } | Event::Ended { .. } | Event::Expired { .. }, None) => {}
                _ => return Ok(first),
            }
        }
        end = from;
    }
    Ok(first)
}

fn damaged(why: String) -> StoreError {
    StoreError::Damaged { what: "the log".to_owned(), why }
}
