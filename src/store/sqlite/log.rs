//! The log in SQLite: entries, tree nodes, head, and which certificates have an outcome.
//!
//! The head in memory and the head row change only with a commit. [`load_checked`] is run whenever the file is opened, so
//! that a head that doesn't fit its entries (a restored or edited file) stops the service instead of forking the log.
//!
//! The head row carries a seal (`identity::mac`), and an entry on which something rests is first proven to be in the head's
//! tree: what others wrote into the tables is damage, not history.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{damaged, failed, from_sql, limit_to_sql, time_from_sql, time_to_sql, to_sql};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::audit::tree::{Frontier, Hash, Node, inclusion_nodes, inclusion_proof, verify_inclusion};
use crate::identity::mac::MacKey;
use crate::name::{PolicyVersion, RequestId};
use crate::store::{Head, StoreError};
use crate::time::Timestamp;

const APPENDING: &str = "appending to the log";
const READING: &str = "reading the log";

/// Appends an event; returns its index. Log time never runs backwards: an earlier `at` is written as the last entry's.
pub(super) fn append(conn: &Connection, head: &mut Head, at: Timestamp, event: Event) -> Result<u64, StoreError> {
    let index = head.frontier.size();
    let number = to_sql(index)?;
    let entry = Entry { index, at: at.max(head.at), event };
    let bytes = entry.to_bytes();
    let request = entry.event.request();
    conn.prepare_cached("INSERT INTO log_entry (number, at, kind, request, bytes) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut insert| {
            let at = i64::try_from(entry.at.unix()).unwrap_or(i64::MAX);
            insert.execute(params![number, at, entry.event.kind(), request.as_ref().map(RequestId::digits), bytes])
        })
        .map_err(failed(APPENDING))?;
    for (node, hash) in head.frontier.push(Entry::leaf_hash(&bytes)) {
        conn.prepare_cached("INSERT INTO log_node (level, position, hash) VALUES (?1, ?2, ?3)")
            .and_then(|mut insert| insert.execute(params![node.level, node.position.cast_signed(), hash]))
            .map_err(failed(APPENDING))?;
    }
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
    note_certificate(conn, &entry.event)?;
    Ok(index)
}

/// Keeps the list of certificates whose outcome is not in the log, in the same transaction as the log itself.
fn note_certificate(conn: &Connection, event: &Event) -> Result<(), StoreError> {
    const MADE: &str = "INSERT INTO certificate (serial, request) VALUES (?1, ?2)";
    const SIGNED: &str = "UPDATE certificate SET signed = 1 WHERE serial = ?1 AND request = ?2 AND signed = 0";
    let (sql, whose, serial) = match event {
        Event::CertificateToBeSigned { request, serial, .. } => (MADE, request.digits(), serial),
        Event::CertificateSigned { request, serial, .. } => (SIGNED, request.digits(), serial),
        Event::Host(
            HostEvent::HostCertificateToBeSigned { host, serial, .. }
            | HostEvent::CheckCertificateToBeSigned { host, serial, .. },
        ) => (MADE, host.as_str(), serial),
        Event::Host(
            HostEvent::HostCertificateSigned { host, serial, .. }
            | HostEvent::CheckCertificateSigned { host, serial, .. },
        ) => (SIGNED, host.as_str(), serial),
        _ => return Ok(()),
    };
    let rows = conn
        .prepare_cached(sql)
        .and_then(|mut s| s.execute(params![serial.number().cast_signed(), whose]))
        .map_err(failed(APPENDING))?;
    // No row: the outcome is in the log already (or there is no such certificate). One outcome per certificate.
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
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

/// Writes the head row, last in a transaction that appended.
pub(super) fn save_head(conn: &Connection, key: &MacKey, head: &Head) -> Result<(), StoreError> {
    let size = to_sql(head.frontier.size())?;
    let at = time_to_sql(head.at)?;
    let (policy, seal) = (head.policy.map_or(0, |version| version.0), key.seal(&sealed_bytes(head)));
    let (keys, inventory) = (to_sql(head.keys.unwrap_or(0))?, to_sql(head.inventory)?);
    conn.prepare_cached(
        "UPDATE log_head SET size = ?1, frontier = ?2, at = ?3, policy = ?4, keys = ?5, seal = ?6, inventory = ?7
         WHERE one = 1",
    )
    .and_then(|mut update| {
        update.execute(params![size, head.frontier.roots().concat(), at, policy, keys, seal, inventory])
    })
    .map_err(failed(APPENDING))
    .and_then(|rows| if rows == 1 { Ok(()) } else { Err(damaged("the log's head", "its row is missing")) })
}

/// Writes something that nobody reads. It must differ from what is there: SQLite doesn't write what has not changed.
pub(super) fn probe(conn: &Connection) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE log_head SET probe = 1 - probe")
        .and_then(|mut update| update.execute([]))
        .map(drop)
        .map_err(failed("probing the database"))
}

/// The head row as SQLite has it: size, roots, time, policy version, entry of the CA keys, seal, entries of the inventory.
type HeadRow = (i64, Vec<u8>, i64, u32, i64, Vec<u8>, i64);

/// The head row, if its seal is ours. Only the head of an empty log has none.
pub(super) fn head(conn: &Connection, key: &MacKey) -> Result<Head, StoreError> {
    let what = "the log's head";
    let (size, roots, at, policy, keys, seal, inventory): HeadRow = conn
        .prepare_cached("SELECT size, frontier, at, policy, keys, seal, inventory FROM log_head WHERE one = 1")
        .and_then(|mut s| {
            let row = |row: &Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
            };
            s.query_row([], row).optional()
        })
        .map_err(failed(READING))?
        .ok_or_else(|| damaged(what, "its row is missing"))?;
    let (roots, rest) = roots.as_chunks::<32>();
    let frontier = Frontier::from_parts(from_sql(what, size)?, roots.to_vec()).filter(|_| rest.is_empty());
    let frontier = frontier.ok_or_else(|| damaged(what, "its roots don't fit its size"))?;
    let policy = Some(PolicyVersion(policy)).filter(|version| version.0 > 0);
    let (keys, inventory) = (Some(from_sql(what, keys)?).filter(|index| *index > 0), from_sql(what, inventory)?);
    let head = Head { frontier, at: time_from_sql(what, at)?, policy, keys, inventory };
    if head.frontier.size() == 0 || key.has_sealed(&sealed_bytes(&head), &seal) {
        Ok(head)
    } else {
        Err(damaged(
            what,
            "its seal is not by the configured log key; put that key back, or find out who else wrote here",
        ))
    }
}

/// The head, if entries and tree nodes agree with it.
pub(super) fn load_checked(conn: &Connection, key: &MacKey) -> Result<Head, StoreError> {
    let what = "the log";
    let head = head(conn, key)?;
    let size = head.frontier.size();
    let (first, last): (Option<i64>, Option<i64>) = conn
        .query_row("SELECT (SELECT min(number) FROM log_entry), (SELECT max(number) FROM log_entry)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(failed(READING))?;
    let Some(last) = last else {
        return if size == 0 {
            Ok(head)
        } else {
            Err(damaged(what, format!("its head says {size} entries, it has none")))
        };
    };
    let entries = from_sql(what, last)?.saturating_add(1);
    if first != Some(0) || entries != size {
        return Err(damaged(what, format!("its head says {size} entries, its last entry is number {last}")));
    }
    let wanted = Frontier::nodes_of(size);
    let stored = nodes(conn, wanted.clone())?;
    let roots: Vec<Hash> = wanted.iter().filter_map(|node| stored.get(node).copied()).collect();
    if roots != head.frontier.roots() {
        return Err(damaged(what, "its head doesn't fit the tree"));
    }
    let bytes: Vec<u8> = conn
        .query_row("SELECT bytes FROM log_entry WHERE number = ?1", [last], |row| row.get(0))
        .map_err(failed(READING))?;
    let leaf = Node { level: 0, position: size.saturating_sub(1) };
    let entry = Entry::parse(&bytes).map_err(|error| damaged(format!("log entry {last}"), error.to_string()))?;
    let is_leaf = nodes(conn, vec![leaf])?.get(&leaf) == Some(&Entry::leaf_hash(&bytes));
    if !is_leaf || entry.index != leaf.position || entry.at != head.at {
        return Err(damaged(format!("log entry {last}"), "it doesn't fit the tree and the head"));
    }
    Ok(head)
}

/// Canonical bytes from `from` on.
pub(super) fn entries(conn: &Connection, from: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let Ok(first) = i64::try_from(from) else { return Ok(Vec::new()) };
    let mut select = conn
        .prepare_cached("SELECT number, bytes FROM log_entry WHERE number >= ?1 ORDER BY number LIMIT ?2")
        .map_err(failed(READING))?;
    let rows = select
        .query_map(params![first, limit_to_sql(limit)], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .map_err(failed(READING))?;
    (first..)
        .zip(rows)
        .map(|(expected, row)| match row.map_err(failed(READING))? {
            (number, bytes) if number == expected => Ok(bytes),
            (number, _) => Err(damaged("the log", format!("entry {expected} is missing before entry {number}"))),
        })
        .collect()
}

/// An entry's number and bytes, as they stand in their row.
type Found = (i64, Vec<u8>);

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Entries about one request.
pub(super) fn entries_of(conn: &Connection, key: &MacKey, request: RequestId) -> Result<Vec<Entry>, StoreError> {
    let mut select = conn
        .prepare_cached("SELECT number, bytes FROM log_entry WHERE request = ?1 ORDER BY number")
        .map_err(failed(READING))?;
    let rows = select.query_map([request.digits()], found).map_err(failed(READING))?;
    let rows: Vec<Found> = rows.collect::<Result<_, _>>().map_err(failed(READING))?;
    proven(conn, key, &rows)
}

/// The entry with which this policy version was applied. Few entries are of this kind, and they have their own index.
pub(super) fn policy_entry(
    conn: &Connection,
    key: &MacKey,
    version: PolicyVersion,
) -> Result<Option<Entry>, StoreError> {
    let mut select = conn
        .prepare_cached("SELECT number, bytes FROM log_entry WHERE kind = 'policy_applied' ORDER BY number DESC")
        .map_err(failed(READING))?;
    let rows = select.query_map([], found).map_err(failed(READING))?;
    for row in rows {
        let row = row.map_err(failed(READING))?;
        let entry = Entry::parse(&row.1).map_err(|error| damaged("a policy's log entry", error.to_string()))?;
        if matches!(&entry.event, Event::PolicyApplied { version: applied, .. } if *applied == version) {
            return Ok(proven(conn, key, &[row])?.pop());
        }
    }
    Ok(None)
}

/// The entries that the inventory is made of, without the first `from`: one transaction, so that the head's count is of the same moment.
pub(super) fn inventory(conn: &Connection, key: &MacKey, from: u64) -> Result<Vec<Entry>, StoreError> {
    let as_of_now = conn.unchecked_transaction().map_err(failed(READING))?;
    let wanted = head(&as_of_now, key)?.inventory;
    // The kinds are constants, so that their index can be used.
    let mut select = as_of_now
        .prepare_cached(
            "SELECT number, bytes FROM log_entry WHERE kind IN ('join_created', 'join_revoked', 'host_enrolled',
             'host_refused', 'host_tagged', 'host_retired', 'host_left') ORDER BY number",
        )
        .map_err(failed(READING))?;
    let rows = select.query_map([], found).map_err(failed(READING))?;
    let rows: Vec<Found> = rows.collect::<Result<_, _>>().map_err(failed(READING))?;
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    if count != wanted {
        let why = format!("its head says {wanted} entries about hosts, there are {count}");
        return Err(damaged("the inventory of hosts", why));
    }
    let from = usize::try_from(from).unwrap_or(usize::MAX);
    let entries = proven(&as_of_now, key, rows.get(from..).unwrap_or_default())?;
    let is_of_inventory = |entry: &Entry| matches!(&entry.event, Event::Host(event) if event.is_of_inventory());
    match entries.iter().find(|entry| !is_of_inventory(entry)) {
        Some(entry) => Err(damaged(format!("log entry {}", entry.index), "it is of another kind than its row says")),
        None => Ok(entries),
    }
}

/// The newest entry that says which CA keys there are: the head names it.
pub(super) fn keys_entry(conn: &Connection, key: &MacKey) -> Result<Option<Entry>, StoreError> {
    let Some(index) = head(conn, key)?.keys else { return Ok(None) };
    let row = conn
        .prepare_cached("SELECT number, bytes FROM log_entry WHERE number = ?1")
        .and_then(|mut select| select.query_row([to_sql(index).unwrap_or(i64::MAX)], found).optional())
        .map_err(failed(READING))?
        .ok_or_else(|| damaged(format!("log entry {index}"), "it is missing"))?;
    Ok(proven(conn, key, &[row])?.pop())
}

/// These entries, if the tree under the sealed head has each of them at its number.
fn proven(conn: &Connection, key: &MacKey, rows: &[Found]) -> Result<Vec<Entry>, StoreError> {
    let tree = head(conn, key)?.frontier;
    let (size, root) = (tree.size(), tree.root());
    let numbers: Vec<u64> =
        rows.iter().map(|(number, _)| from_sql("a log entry", *number)).collect::<Result<_, _>>()?;
    // Neighbours share most of the nodes that prove them.
    let wanted: BTreeSet<Node> = numbers.iter().flat_map(|number| inclusion_nodes(*number, size)).collect();
    let stored = nodes(conn, wanted.into_iter().collect())?;
    let entry = |(number, (_, bytes)): (&u64, &Found)| {
        let what = || format!("log entry {number}");
        let entry = Entry::parse(bytes).map_err(|error| damaged(what(), error.to_string()))?;
        let proof = inclusion_proof(*number, size, &stored);
        let is_in = proof.is_some_and(|proof| verify_inclusion(&Entry::leaf_hash(bytes), *number, size, &proof, &root));
        if is_in && entry.index == *number {
            Ok(entry)
        } else {
            Err(damaged(what(), "it is not the one that the log's tree was made of"))
        }
    };
    numbers.iter().zip(rows).map(entry).collect()
}

/// Tree nodes.
pub(super) fn nodes(conn: &Connection, wanted: Vec<Node>) -> Result<BTreeMap<Node, Hash>, StoreError> {
    let mut select =
        conn.prepare_cached("SELECT hash FROM log_node WHERE level = ?1 AND position = ?2").map_err(failed(READING))?;
    let mut found = BTreeMap::new();
    for node in wanted {
        let Ok(position) = i64::try_from(node.position) else { continue };
        let hash =
            select.query_row(params![node.level, position], |row| row.get(0)).optional().map_err(failed(READING))?;
        found.extend(hash.map(|hash| (node, hash)));
    }
    Ok(found)
}
