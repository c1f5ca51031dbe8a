//! The log's rules for every store: what an entry adds, what the sealed head covers, and what proves an entry.
//!
//! The head row carries a seal (`identity::mac`), and an entry on which something rests is first proven to be in the head's
//! tree: what others wrote into the tables is damage, not history. Pure: a database reads the rows, these judge them.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Rows;
use super::numbers::{damaged, from_sql, time_from_sql, time_to_sql, to_sql};
use super::{Head, LIST_MAX, StoreError};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::audit::tree::{Frontier, Hash, Node, inclusion_nodes, inclusion_proof, verify_inclusion};
use crate::identity::mac::MacKey;
use crate::name::{PolicyVersion, RequestId};
use crate::time::Timestamp;

const HEAD: &str = "the log's head";

/// A log entry as a row: the canonical bytes, and what finds them.
pub(super) struct EntryRow {
    pub(super) number: i64,
    pub(super) at: i64,
    pub(super) kind: &'static str,
    pub(super) request: Option<RequestId>,
    pub(super) bytes: Vec<u8>,
}

/// Appends an event; returns its index. Log time never runs backwards: an earlier `at` is written as the last entry's.
pub(super) fn append(rows: &mut impl Rows, head: &mut Head, at: Timestamp, event: Event) -> Result<u64, StoreError> {
    let index = head.frontier.size();
    let entry = Entry { index, at: at.max(head.at), event };
    let bytes = entry.to_bytes();
    let nodes = head.frontier.push(Entry::leaf_hash(&bytes));
    let row = EntryRow {
        number: to_sql(index)?,
        at: time_to_sql(entry.at)?,
        kind: entry.event.kind(),
        request: entry.event.request(),
        bytes,
    };
    rows.insert_entry(row, nodes)?;
    head.at = entry.at;
    if let Event::PolicyApplied { version, .. } = &entry.event {
        head.policy = Some(*version);
    }
    if matches!(&entry.event, Event::Host(event) if event.is_of_inventory()) {
        head.inventory = head.inventory.saturating_add(1);
    }
    if entry.event.ring().is_some() {
        head.keys = Some(index);
    }
    note_certificate(rows, &entry.event)?;
    Ok(index)
}

/// Keeps the list of certificates whose outcome is not in the log, in the same transaction as the log itself.
fn note_certificate(rows: &mut impl Rows, event: &Event) -> Result<(), StoreError> {
    match event {
        Event::CertificateToBeSigned { request, serial, .. } => rows.insert_certificate(*serial, request.digits()),
        Event::CertificateSigned { request, serial, .. } => rows.sign_certificate(*serial, request.digits()),
        Event::Host(
            HostEvent::HostCertificateToBeSigned { host, serial, .. }
            | HostEvent::CheckCertificateToBeSigned { host, serial, .. },
        ) => rows.insert_certificate(*serial, host.as_str()),
        Event::Host(
            HostEvent::HostCertificateSigned { host, serial, .. }
            | HostEvent::CheckCertificateSigned { host, serial, .. },
        ) => rows.sign_certificate(*serial, host.as_str()),
        _ => Ok(()),
    }
}

/// What the head's seal covers; the number of roots follows from the size.
fn sealed_bytes(head: &Head) -> Vec<u8> {
    let mut bytes = head.frontier.size().to_be_bytes().to_vec();
    bytes.extend_from_slice(&head.at.unix().to_be_bytes());
    bytes.extend_from_slice(&head.policy.map_or(0, |version| version.0).to_be_bytes());
    bytes.extend_from_slice(&head.frontier.roots().concat());
    // Heads from before there were such entries were sealed without them. The rest has a length that follows from the size, and the
    // two have different ones.
    bytes.extend(head.keys.iter().flat_map(|index| index.to_be_bytes()));
    if head.inventory > 0 {
        bytes.extend_from_slice(b"inventory");
        bytes.extend_from_slice(&head.inventory.to_be_bytes());
    }
    bytes
}

/// The head as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeadRow {
    pub(super) size: i64,
    pub(super) frontier: Vec<u8>,
    pub(super) at: i64,
    pub(super) policy: i64,
    pub(super) keys: i64,
    pub(super) seal: Vec<u8>,
    pub(super) inventory: i64,
}

impl HeadRow {
    /// The row of this head, sealed.
    pub(super) fn of(head: &Head, key: &MacKey) -> Result<Self, StoreError> {
        Ok(Self {
            size: to_sql(head.frontier.size())?,
            frontier: head.frontier.roots().concat(),
            at: time_to_sql(head.at)?,
            policy: head.policy.map_or(0, |version| i64::from(version.0)),
            keys: to_sql(head.keys.unwrap_or(0))?,
            seal: key.seal(&sealed_bytes(head)).to_vec(),
            inventory: to_sql(head.inventory)?,
        })
    }

    /// The head, if its seal is ours. Only the head of an empty log has none.
    pub(super) fn head(self, key: &MacKey) -> Result<Head, StoreError> {
        let Self { size, frontier: roots, at, policy, keys, seal, inventory } = self;
        let (roots, rest) = roots.as_chunks::<32>();
        let frontier = Frontier::from_parts(from_sql(HEAD, size)?, roots.to_vec()).filter(|_| rest.is_empty());
        let frontier = frontier.ok_or_else(|| damaged(HEAD, "its roots don't fit its size"))?;
        let policy =
            u32::try_from(policy).map_err(|error| damaged(HEAD, format!("policy version {policy}: {error}")))?;
        let policy = Some(PolicyVersion(policy)).filter(|version| version.0 > 0);
        let (keys, inventory) = (Some(from_sql(HEAD, keys)?).filter(|index| *index > 0), from_sql(HEAD, inventory)?);
        let head = Head { frontier, at: time_from_sql(HEAD, at)?, policy, keys, inventory };
        if head.frontier.size() == 0 || key.has_sealed(&sealed_bytes(&head), &seal) {
            Ok(head)
        } else {
            Err(damaged(
                HEAD,
                "its seal is not by the configured log key; put that key back, or find out who else wrote here",
            ))
        }
    }
}

/// What to say when there is no head row.
pub(super) fn no_head() -> StoreError {
    damaged(HEAD, "its row is missing")
}

/// What of the log must fit its head.
pub(super) struct Edge {
    /// Number of the first entry.
    pub(super) first: Option<i64>,
    /// Number of the last one.
    pub(super) last: Option<i64>,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// The nodes of [`edge_nodes`], as far as they are there.
    pub(super) nodes: BTreeMap<Node, Hash>,
}

/// The tree nodes that [`check_edge`] looks at: the roots, and the last leaf.
pub(super) fn edge_nodes(head: &Head) -> Vec<Node> {
    let size = head.frontier.size();
    let leaf = size.checked_sub(1).map(|position| Node { level: 0, position });
    Frontier::nodes_of(size).into_iter().chain(leaf).collect()
}

/// Checks that entries and tree nodes agree with the head: a restored or edited database stops the service instead of forking the log.
pub(super) fn check_edge(head: &Head, edge: &Edge) -> Result<(), StoreError> {
    let what = "the log";
    let size = head.frontier.size();
    let Some(last) = edge.last else {
        return if size == 0 {
            Ok(())
        } else {
            Err(damaged(what, format!("its head says {size} entries, it has none")))
        };
    };
    let entries = from_sql(what, last)?.saturating_add(1);
    if edge.first != Some(0) || entries != size {
        return Err(damaged(what, format!("its head says {size} entries, its last entry is number {last}")));
    }
    let roots = Frontier::nodes_of(size);
    let roots: Vec<Hash> = roots.iter().filter_map(|node| edge.nodes.get(node).copied()).collect();
    if roots != head.frontier.roots() {
        return Err(damaged(what, "its head doesn't fit the tree"));
    }
    let entry = Entry::parse(&edge.bytes).map_err(|error| damaged(format!("log entry {last}"), error.to_string()))?;
    let leaf = Node { level: 0, position: size.saturating_sub(1) };
    let is_leaf = edge.nodes.get(&leaf) == Some(&Entry::leaf_hash(&edge.bytes));
    if !is_leaf || entry.index != leaf.position || entry.at != head.at {
        return Err(damaged(format!("log entry {last}"), "it doesn't fit the tree and the head"));
    }
    Ok(())
}

/// An entry's number and bytes, as they stand in their row.
pub(super) type Found = (i64, Vec<u8>);

/// The tree nodes that prove these entries under this head. Neighbours share most of them.
pub(super) fn proving_nodes(head: &Head, rows: &[Found]) -> Result<Vec<Node>, StoreError> {
    let size = head.frontier.size();
    let mut wanted = BTreeSet::new();
    for (number, _) in rows {
        wanted.extend(inclusion_nodes(from_sql("a log entry", *number)?, size));
    }
    Ok(wanted.into_iter().collect())
}

/// These entries, if the tree under the sealed head has each of them at its number.
pub(super) fn proven(head: &Head, rows: &[Found], nodes: &BTreeMap<Node, Hash>) -> Result<Vec<Entry>, StoreError> {
    let (size, root) = (head.frontier.size(), head.frontier.root());
    let entry = |(number, bytes): &Found| {
        let number = from_sql("a log entry", *number)?;
        let what = || format!("log entry {number}");
        let entry = Entry::parse(bytes).map_err(|error| damaged(what(), error.to_string()))?;
        let proof = inclusion_proof(number, size, nodes);
        let is_in = proof.is_some_and(|proof| verify_inclusion(&Entry::leaf_hash(bytes), number, size, &proof, &root));
        if is_in && entry.index == number {
            Ok(entry)
        } else {
            Err(damaged(what(), "it is not the one that the log's tree was made of"))
        }
    };
    rows.iter().map(entry).collect()
}

/// Whether these, at most [`LIST_MAX`], are the next rows of the inventory after the first `from`, which are before `next`: all of them, if they are fewer.
/// The head says how many there are. Each in its order and once, or one that is hidden could be made up for by another, given twice.
pub(super) fn check_inventory(head: &Head, rows: &[Found], from: u64, next: u64) -> Result<(), StoreError> {
    let wrong = |why: String| Err(damaged("the inventory of hosts", why));
    let (wanted, count) = (head.inventory, u64::try_from(rows.len()).unwrap_or(u64::MAX).saturating_add(from));
    if count > wanted || (count < wanted && rows.len() < LIST_MAX) {
        return wrong(format!("its head says {wanted} entries about hosts, there are {count}"));
    }
    let first = rows.first().map_or(Ok(next), |(number, _)| from_sql("a log entry", *number))?;
    if first < next || !rows.is_sorted_by(|one, other| one.0 < other.0) {
        return wrong("its entries are not in their order".to_owned());
    }
    Ok(())
}

/// These entries, if all of them are of the inventory.
pub(super) fn of_inventory(entries: Vec<Entry>) -> Result<Vec<Entry>, StoreError> {
    let is_of_inventory = |entry: &Entry| matches!(&entry.event, Event::Host(event) if event.is_of_inventory());
    match entries.iter().find(|entry| !is_of_inventory(entry)) {
        Some(entry) => Err(damaged(format!("log entry {}", entry.index), "it is of another kind than its row says")),
        None => Ok(entries),
    }
}

/// Whether this row holds the entry with which `version` was applied.
pub(super) fn applies((_, bytes): &Found, version: PolicyVersion) -> Result<bool, StoreError> {
    let entry = Entry::parse(bytes).map_err(|error| damaged("a policy's log entry", error.to_string()))?;
    Ok(matches!(&entry.event, Event::PolicyApplied { version: applied, .. } if *applied == version))
}

/// The bytes of neighbouring entries from number `first` on, if none is missing.
pub(super) fn gapless(first: i64, rows: impl IntoIterator<Item = Found>) -> Result<Vec<Vec<u8>>, StoreError> {
    let bytes = |((number, bytes), expected): (Found, i64)| {
        if number == expected {
            Ok(bytes)
        } else {
            Err(damaged("the log", format!("entry {expected} is missing before entry {number}")))
        }
    };
    // In this order: behind the last number that there is no row is looked for, and so no next number made.
    rows.into_iter().zip(first..).map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_the_last_number_that_there_is_nothing_is_found() {
        assert_eq!(gapless(i64::MAX, []).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(gapless(7, [(7, vec![1]), (8, vec![2])]).unwrap(), [[1], [2]]);
        gapless(7, [(7, vec![1]), (9, vec![2])]).unwrap_err();
        gapless(7, [(8, vec![1])]).unwrap_err();
    }
}
