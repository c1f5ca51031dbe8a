//! The log in SQLite: entries, tree nodes, head, and which certificates have an outcome.
//!
//! The head in memory and the head row change only with a commit. [`load_checked`] is run whenever the file is opened, so
//! that a head that doesn't fit its entries (a restored or edited file) stops the service instead of forking the log.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{damaged, failed, from_sql, limit_to_sql, time_from_sql, time_to_sql, to_sql};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::tree::{Frontier, Hash, Node};
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
    note_certificate(conn, &entry.event)?;
    Ok(index)
}

/// Keeps the list of certificates whose outcome is not in the log, in the same transaction as the log itself.
fn note_certificate(conn: &Connection, event: &Event) -> Result<(), StoreError> {
    let (sql, request, serial) = match event {
        Event::CertificateToBeSigned { request, serial, .. } => {
            ("INSERT INTO certificate (serial, request) VALUES (?1, ?2)", request, serial)
        }
        Event::CertificateSigned { request, serial, .. } => {
            ("UPDATE certificate SET signed = 1 WHERE serial = ?1 AND request = ?2 AND signed = 0", request, serial)
        }
        _ => return Ok(()),
    };
    let rows = conn
        .prepare_cached(sql)
        .and_then(|mut s| s.execute(params![serial.number().cast_signed(), request.digits()]))
        .map_err(failed(APPENDING))?;
    // No row: the outcome is in the log already (or there is no such certificate). One outcome per certificate.
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Writes the head row, last in a transaction that appended.
pub(super) fn save_head(conn: &Connection, head: &Head) -> Result<(), StoreError> {
    let size = to_sql(head.frontier.size())?;
    let at = time_to_sql(head.at)?;
    conn.prepare_cached("UPDATE log_head SET size = ?1, frontier = ?2, at = ?3 WHERE one = 1")
        .and_then(|mut update| update.execute(params![size, head.frontier.roots().concat(), at]))
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

/// The head row.
pub(super) fn head(conn: &Connection) -> Result<Head, StoreError> {
    let what = "the log's head";
    let (size, roots, at): (i64, Vec<u8>, i64) = conn
        .prepare_cached("SELECT size, frontier, at FROM log_head WHERE one = 1")
        .and_then(|mut s| s.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional())
        .map_err(failed(READING))?
        .ok_or_else(|| damaged(what, "its row is missing"))?;
    let (roots, rest) = roots.as_chunks::<32>();
    let frontier = Frontier::from_parts(from_sql(what, size)?, roots.to_vec()).filter(|_| rest.is_empty());
    let frontier = frontier.ok_or_else(|| damaged(what, "its roots don't fit its size"))?;
    Ok(Head { frontier, at: time_from_sql(what, at)? })
}

/// The head, if entries and tree nodes agree with it.
pub(super) fn load_checked(conn: &Connection) -> Result<Head, StoreError> {
    let what = "the log";
    let head = head(conn)?;
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

/// Entries about one request.
pub(super) fn entries_of(conn: &Connection, request: RequestId) -> Result<Vec<Entry>, StoreError> {
    let mut select = conn
        .prepare_cached("SELECT number, bytes FROM log_entry WHERE request = ?1 ORDER BY number")
        .map_err(failed(READING))?;
    let rows = select
        .query_map([request.digits()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
        .map_err(failed(READING))?;
    rows.map(|row| {
        let (number, bytes) = row.map_err(failed(READING))?;
        Entry::parse(&bytes).map_err(|error| damaged(format!("log entry {number}"), error.to_string()))
    })
    .collect()
}

/// The entry with which this policy version was applied. Few entries are of this kind, and they have their own index.
pub(super) fn policy_entry(conn: &Connection, version: PolicyVersion) -> Result<Option<Entry>, StoreError> {
    let mut select = conn
        .prepare_cached("SELECT bytes FROM log_entry WHERE kind = 'policy_applied' ORDER BY number DESC")
        .map_err(failed(READING))?;
    let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).map_err(failed(READING))?;
    for row in rows {
        let entry = Entry::parse(&row.map_err(failed(READING))?)
            .map_err(|error| damaged("a policy's log entry", error.to_string()))?;
        if matches!(&entry.event, Event::PolicyApplied { version: applied, .. } if *applied == version) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
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
