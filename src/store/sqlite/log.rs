//! The log in SQLite: entries, tree nodes, head, and which certificates have an outcome.
//!
//! The head in memory and the head row change only with a commit. [`load_checked`] is run whenever the file is opened. What rows
//! must fulfil is said in `store/log.rs`.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};

use super::failed;
use crate::audit::entry::Entry;
use crate::audit::tree::{Hash, Node};
use crate::identity::mac::MacKey;
use crate::name::{PolicyVersion, RequestId, Serial};
use crate::store::log::{self, Edge, EntryRow, Found, HeadRow};
use crate::store::numbers::{damaged, limit_to_sql, to_sql};
use crate::store::{Head, LIST_MAX, StoreError};

const APPENDING: &str = "appending to the log";
const READING: &str = "reading the log";

/// Writes an entry and its nodes; one about a request, after the request's row.
pub(super) fn insert(conn: &Connection, row: &EntryRow, nodes: Vec<(Node, Hash)>) -> Result<(), StoreError> {
    let EntryRow { number, at, kind, request, bytes } = row;
    conn.prepare_cached("INSERT INTO log_entry (number, at, kind, request, bytes) VALUES (?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut insert| {
            insert.execute(params![number, at, kind, request.as_ref().map(RequestId::digits), bytes])
        })
        .map_err(failed(APPENDING))?;
    if let Some(request) = request {
        conn.prepare_cached("INSERT INTO request_entry (request, entry) SELECT number, ?2 FROM request WHERE id = ?1")
            .and_then(|mut insert| insert.execute(params![request.digits(), number]))
            .map_err(failed(APPENDING))?;
    }
    for (node, hash) in nodes {
        conn.prepare_cached("INSERT INTO log_node (level, position, hash) VALUES (?1, ?2, ?3)")
            .and_then(|mut insert| insert.execute(params![node.level, node.position.cast_signed(), hash]))
            .map_err(failed(APPENDING))?;
    }
    Ok(())
}

/// A certificate whose outcome is not in the log yet.
pub(super) fn insert_certificate(conn: &Connection, serial: Serial, whose: &str) -> Result<(), StoreError> {
    one_row(conn, "INSERT INTO certificate (serial, request) VALUES (?1, ?2)", serial, whose)
}

/// No row: the outcome is in the log already (or there is no such certificate). One outcome per certificate.
pub(super) fn sign_certificate(conn: &Connection, serial: Serial, whose: &str) -> Result<(), StoreError> {
    const SIGN: &str = "UPDATE certificate SET signed = 1 WHERE serial = ?1 AND request = ?2 AND signed = 0";
    one_row(conn, SIGN, serial, whose)
}

fn one_row(conn: &Connection, sql: &str, serial: Serial, whose: &str) -> Result<(), StoreError> {
    let rows = conn
        .prepare_cached(sql)
        .and_then(|mut s| s.execute(params![serial.number().cast_signed(), whose]))
        .map_err(failed(APPENDING))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Writes the head row in the place of one with so many entries, last in a transaction that appended.
pub(super) fn save_head(conn: &Connection, key: &MacKey, head: &Head, before: u64) -> Result<(), StoreError> {
    let HeadRow { size, frontier, at, policy, keys, seal, inventory } = HeadRow::of(head, key)?;
    let before = to_sql(before)?;
    conn.prepare_cached(
        "UPDATE log_head SET size = ?1, frontier = ?2, at = ?3, policy = ?4, keys = ?5, seal = ?6, inventory = ?7
         WHERE one = 1 AND size = ?8",
    )
    .and_then(|mut update| update.execute(params![size, frontier, at, policy, keys, seal, inventory, before]))
    .map_err(failed(APPENDING))
    .and_then(|rows| if rows == 1 { Ok(()) } else { Err(overtaken()) })
}

fn overtaken() -> StoreError {
    damaged("the log", "its head is not as we left it: another process writes this database, too. Stop one of them")
}

/// Writes something that nobody reads. It must differ from what is there: SQLite doesn't write what has not changed.
pub(super) fn probe(conn: &Connection) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE log_head SET probe = 1 - probe")
        .and_then(|mut update| update.execute([]))
        .map(drop)
        .map_err(failed("probing the database"))
}

/// Has so many bytes written to the write-ahead log, and undoes it: what the disk has no room for, or can't write, fails here.
pub(super) fn find_room(conn: &Connection, bytes: u32) -> Result<(), StoreError> {
    let find = || {
        // Dropped without a commit.
        let undone = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        undone.execute(
            "INSERT INTO log_entry (number, at, kind, bytes) VALUES (9223372036854775807, 0, 'room', zeroblob(?1))",
            [bytes],
        )?;
        conn.cache_flush()
    };
    find().map_err(failed("looking for room on the disk"))
}

/// The head row, if its seal is ours.
pub(super) fn head(conn: &Connection, key: &MacKey) -> Result<Head, StoreError> {
    conn.prepare_cached("SELECT size, frontier, at, policy, keys, seal, inventory FROM log_head WHERE one = 1")
        .and_then(|mut s| {
            let row = |row: &Row<'_>| {
                Ok(HeadRow {
                    size: row.get(0)?,
                    frontier: row.get(1)?,
                    at: row.get(2)?,
                    policy: row.get(3)?,
                    keys: row.get(4)?,
                    seal: row.get(5)?,
                    inventory: row.get(6)?,
                })
            };
            s.query_row([], row).optional()
        })
        .map_err(failed(READING))?
        .ok_or_else(log::no_head)?
        .head(key)
}

/// The head, if entries and tree nodes agree with it.
pub(super) fn load_checked(conn: &Connection, key: &MacKey) -> Result<Head, StoreError> {
    let head = head(conn, key)?;
    let (first, last): (Option<i64>, Option<i64>) = conn
        .query_row("SELECT (SELECT min(number) FROM log_entry), (SELECT max(number) FROM log_entry)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(failed(READING))?;
    let bytes = match last {
        Some(last) => conn
            .query_row("SELECT bytes FROM log_entry WHERE number = ?1", [last], |row| row.get(0))
            .map_err(failed(READING))?,
        None => Vec::new(),
    };
    let nodes = nodes(conn, log::edge_nodes(&head))?;
    log::check_edge(&head, &Edge { first, last, bytes, nodes })?;
    Ok(head)
}

/// Canonical bytes from `from` on.
pub(super) fn entries(conn: &Connection, from: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let Ok(first) = i64::try_from(from) else { return Ok(Vec::new()) };
    let mut select = conn
        .prepare_cached("SELECT number, bytes FROM log_entry WHERE number >= ?1 ORDER BY number LIMIT ?2")
        .map_err(failed(READING))?;
    let rows = select.query_map(params![first, limit_to_sql(limit)], found).map_err(failed(READING))?;
    let rows: Vec<Found> = rows.collect::<Result<_, _>>().map_err(failed(READING))?;
    log::gapless(first, rows)
}

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Entries about one request.
pub(super) fn entries_of(conn: &Connection, key: &MacKey, request: RequestId) -> Result<Vec<Entry>, StoreError> {
    let mut select = conn
        .prepare_cached(
            "SELECT log_entry.number, log_entry.bytes FROM request JOIN request_entry ON request_entry.request = request.number
             JOIN log_entry ON log_entry.number = request_entry.entry WHERE request.id = ?1 ORDER BY request_entry.entry",
        )
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
        if log::applies(&row, version)? {
            return Ok(proven(conn, key, &[row])?.pop());
        }
    }
    Ok(None)
}

/// The entries that the inventory is made of, without the first `from`, which are before `next`: one transaction, so that the head's count is of the same
/// moment.
pub(super) fn inventory(conn: &Connection, key: &MacKey, from: u64, next: u64) -> Result<Vec<Entry>, StoreError> {
    let as_of_now = conn.unchecked_transaction().map_err(failed(READING))?;
    let head = head(&as_of_now, key)?;
    // The kinds are constants, so that their index can be used.
    let mut select = as_of_now
        .prepare_cached(
            "SELECT number, bytes FROM log_entry WHERE kind IN ('join_created', 'join_revoked', 'host_enrolled',
             'host_refused', 'host_tagged', 'host_moved', 'host_retired', 'host_left') AND number >= ?1 ORDER BY number LIMIT ?2",
        )
        .map_err(failed(READING))?;
    let rows = select.query_map([to_sql(next)?, limit_to_sql(LIST_MAX)], found).map_err(failed(READING))?;
    let rows: Vec<Found> = rows.collect::<Result<_, _>>().map_err(failed(READING))?;
    log::check_inventory(&head, &rows, from, next)?;
    log::of_inventory(proven(&as_of_now, key, &rows)?)
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
    let head = head(conn, key)?;
    let stored = nodes(conn, log::proving_nodes(&head, rows)?)?;
    log::proven(&head, rows, &stored)
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
