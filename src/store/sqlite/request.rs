//! Requests: one row each, found by columns, read from `body`.
//!
//! The columns repeat what the body says so that indexes can find it; a row whose columns and body disagree is damaged.

use std::collections::BTreeSet;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params, params_from_iter};

use super::{failed, log};
use crate::access::AccessRequest;
use crate::audit::entry::Entry;
use crate::identity::mac::MacKey;
use crate::name::{HostName, PersonName, RequestId};
use crate::ssh::PublicKey;
use crate::store::columns::{Columns, live, readable};
use crate::store::numbers::{from_sql, limit_to_sql, time_to_sql};
use crate::store::{LIST_MAX, LiveCertificate, OpenRequests, RequestFilter, RowVersion, StoreError, Stored};
use crate::time::Timestamp;

const SAVING: &str = "saving a request";
const READING: &str = "reading requests";

/// The columns that [`columns`] reads.
macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT id, version, asker, state, asked, next_tick, body, waits, key FROM request ", $rest)
    };
}

/// A new request; its id must be free.
pub(super) fn insert(conn: &Connection, request: AccessRequest) -> Result<Stored, StoreError> {
    let row = Columns::of(&request, RowVersion::FIRST)?;
    let rows = conn
        .prepare_cached(
            "INSERT INTO request (id, version, asker, state, asked, next_tick, body, waits, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
        )
        .and_then(|mut s| run(&row, &mut s))
        .map_err(failed(SAVING))?;
    if rows != 1 {
        return Err(StoreError::Conflict);
    }
    save_hosts(conn, &request)?;
    Ok(Stored { request, version: RowVersion::FIRST })
}

/// The next state of a request whose row is still at `expected`.
pub(super) fn update(conn: &Connection, request: AccessRequest, expected: RowVersion) -> Result<Stored, StoreError> {
    let version = RowVersion(expected.0.saturating_add(1));
    // Who asked, when and for which key never changes; an index on a column that is not named is not touched.
    let Columns { id, version: number, asker, state, asked, next_tick, body, waits, key } =
        Columns::of(&request, version)?;
    let rows = conn
        .prepare_cached(
            "UPDATE request SET version = ?2, state = ?3, next_tick = ?4, body = ?5, waits = ?6
             WHERE id = ?1 AND version = ?2 - 1 AND asker = ?7 AND asked = ?8 AND key = ?9",
        )
        .and_then(|mut s| s.execute(params![id, number, state, next_tick, body, waits, asker, asked, key]))
        .map_err(failed(SAVING))?;
    if rows != 1 {
        return Err(StoreError::Conflict);
    }
    save_hosts(conn, &request)?;
    Ok(Stored { request, version })
}

/// Keeps the list that finds requests by host; narrowing takes hosts away.
fn save_hosts(conn: &Connection, request: &AccessRequest) -> Result<(), StoreError> {
    let id = request.id();
    let id = id.digits();
    let hosts: BTreeSet<&str> = request.parts().terms.hosts.keys().map(HostName::as_str).collect();
    let run = || -> rusqlite::Result<()> {
        let listed: BTreeSet<String> = conn
            .prepare_cached("SELECT host FROM host_request WHERE request = (SELECT number FROM request WHERE id = ?1)")?
            .query_map([id], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for host in listed.iter().filter(|host| !hosts.contains(host.as_str())) {
            conn.prepare_cached(
                "DELETE FROM host_request WHERE host = ?1 AND request = (SELECT number FROM request WHERE id = ?2)",
            )?
            .execute([host.as_str(), id])?;
        }
        for host in hosts.iter().filter(|host| !listed.contains(**host)) {
            conn.prepare_cached(
                "INSERT INTO host_request (host, request) SELECT ?1, number FROM request WHERE id = ?2",
            )?
            .execute([*host, id])?;
        }
        Ok(())
    };
    run().map_err(failed(SAVING))
}

/// One request.
pub(super) fn one(conn: &Connection, id: RequestId) -> Result<Option<Stored>, StoreError> {
    conn.prepare_cached(select!("WHERE id = ?1"))
        .and_then(|mut s| s.query_row([id.digits()], columns).optional())
        .map_err(failed(READING))?
        .map(|row| row.stored())
        .transpose()
}

/// The version of one request's row.
pub(super) fn version_of(conn: &Connection, id: RequestId) -> Result<Option<RowVersion>, StoreError> {
    let version: Option<i64> = conn
        .prepare_cached("SELECT version FROM request WHERE id = ?1")
        .and_then(|mut s| s.query_row([id.digits()], |row| row.get(0)).optional())
        .map_err(failed(READING))?;
    version.map(|version| from_sql("a request", version).map(RowVersion)).transpose()
}

/// One request and the log's entries about it: one transaction, so that no change comes between.
pub(super) fn logged(
    conn: &Connection,
    key: &MacKey,
    id: RequestId,
) -> Result<Option<(Stored, Vec<Entry>)>, StoreError> {
    let as_of_now = conn.unchecked_transaction().map_err(failed(READING))?;
    let Some(stored) = one(&as_of_now, id)? else { return Ok(None) };
    Ok(Some((stored, log::entries_of(&as_of_now, key, id)?)))
}

/// Requests that match, newest first.
pub(super) fn matching(conn: &Connection, filter: &RequestFilter) -> Result<Vec<Stored>, StoreError> {
    let RequestFilter { asker, states, host, waits, since, prefix, limit } = filter;
    // A constant, not a parameter, so that the index of waiting requests can be used.
    let mut sql = if *waits { select!("WHERE waits = 1") } else { select!("WHERE 1") }.to_owned();
    let mut values: Vec<Value> = Vec::new();
    let mut and = |condition: &str, value: Value| {
        sql.push_str(" AND ");
        sql.push_str(condition);
        values.push(value);
    };
    if let Some(asker) = asker {
        and("asker = ?", asker.as_str().to_owned().into());
    }
    if !states.is_empty() {
        // One parameter however many states there are, so that the statement stays in the cache.
        let list = serde_json::to_string(states)
            .map_err(|error| StoreError::Failed { doing: READING, why: error.to_string() })?;
        and("state IN (SELECT value FROM json_each(?))", list.into());
    }
    if let Some(host) = host {
        and("number IN (SELECT request FROM host_request WHERE host = ?)", host.as_str().to_owned().into());
    }
    if let Some(since) = since {
        and("asked >= ?", time_to_sql(*since)?.into());
    }
    if let Some(prefix) = prefix {
        and("id >= ?", prefix.as_str().to_owned().into());
        // '[' comes right after 'Z', the last digit.
        and("id < ?", format!("{}[", prefix.as_str()).into());
    }
    sql.push_str(" ORDER BY asked DESC, number DESC LIMIT ?");
    values.push(limit_to_sql(*limit).into());
    let mut select = conn.prepare_cached(&sql).map_err(failed(READING))?;
    let rows = select.query_map(params_from_iter(values), columns).map_err(failed(READING))?;
    if prefix.is_some() { rows_of(rows).map(|row| row?.stored()).collect() } else { readable(rows_of(rows), LIST_MAX) }
}

/// Requests whose time has come.
pub(super) fn due(conn: &Connection, now: Timestamp, limit: usize) -> Result<Vec<Stored>, StoreError> {
    let now = time_to_sql(now)?;
    let mut select =
        conn.prepare_cached(select!("WHERE next_tick <= ?1 ORDER BY next_tick, number")).map_err(failed(READING))?;
    let rows = select.query_map([now], columns).map_err(failed(READING))?;
    readable(rows_of(rows), limit.min(LIST_MAX))
}

/// Certificates that are not over, neither by their window nor because their request was ended.
pub(super) fn live_certificates(conn: &Connection, now: Timestamp) -> Result<Vec<LiveCertificate>, StoreError> {
    let mut select = conn
        .prepare_cached(select!(
            "WHERE state IN ('approved', 'issued') AND json_extract(body, '$.grants[#-1].end') > ?1"
        ))
        .map_err(failed(READING))?;
    let rows = select.query_map([time_to_sql(now)?], columns).map_err(failed(READING))?;
    Ok(readable(rows_of(rows), usize::MAX)?.iter().flat_map(|stored| live(stored, now)).collect())
}

/// Requests for this host with a certificate whose last grant is not over.
pub(super) fn certified_for(conn: &Connection, host: &HostName, now: Timestamp) -> Result<Vec<RequestId>, StoreError> {
    // A quote within a text of the body has a backslash before it, so that only a certificate looks like one.
    let mut select = conn
        .prepare_cached(select!(
            "WHERE number IN (SELECT request FROM host_request WHERE host = ?1)
             AND instr(body, '\"certificate\":{') > 0 AND json_extract(body, '$.grants[#-1].end') > ?2
             ORDER BY number"
        ))
        .map_err(failed(READING))?;
    let rows = select.query_map(params![host.as_str(), time_to_sql(now)?], columns).map_err(failed(READING))?;
    Ok(readable(rows_of(rows), usize::MAX)?.iter().map(|stored| stored.request.id()).collect())
}

/// What this person has open: how many, and which of them hold this key.
pub(super) fn open_of(conn: &Connection, asker: &PersonName, key: &PublicKey) -> Result<OpenRequests, StoreError> {
    let mut select = conn
        .prepare_cached(select!("WHERE asker = ?1 AND key = ?2 AND state IN ('pending', 'approved', 'issued')"))
        .map_err(failed(READING))?;
    let rows = select.query_map([asker.as_str(), &key.to_openssh()], columns).map_err(failed(READING))?;
    // A damaged one may be this very ask: no guess.
    let with_key = rows_of(rows).map(|row| row?.stored()).collect::<Result<_, _>>()?;
    Ok(OpenRequests { count: count_open(conn, asker, key)?.0, with_key })
}

/// How many requests this person has open, and how many of them hold this key.
pub(super) fn count_open(conn: &Connection, asker: &PersonName, key: &PublicKey) -> Result<(u64, u64), StoreError> {
    // The states are constants, so that the index of open requests can be used.
    let (count, with_key): (i64, i64) = conn
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE key = ?2) FROM request
             WHERE asker = ?1 AND state IN ('pending', 'approved', 'issued')",
        )
        .and_then(|mut s| s.query_row([asker.as_str(), &key.to_openssh()], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(failed(READING))?;
    Ok((from_sql("a count", count)?, from_sql("a count", with_key)?))
}

/// Runs a statement whose nine parameters are our columns.
fn run(row: &Columns, statement: &mut Statement<'_>) -> rusqlite::Result<usize> {
    let Columns { id, version, asker, state, asked, next_tick, body, waits, key } = row;
    statement.execute(params![id, version, asker, state, asked, next_tick, body, waits, key])
}

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok(Columns {
        id: row.get(0)?,
        version: row.get(1)?,
        asker: row.get(2)?,
        state: row.get(3)?,
        asked: row.get(4)?,
        next_tick: row.get(5)?,
        body: row.get(6)?,
        waits: row.get(7)?,
        key: row.get(8)?,
    })
}

/// Rows as they come, failures of the database among them.
fn rows_of(rows: impl Iterator<Item = rusqlite::Result<Columns>>) -> impl Iterator<Item = Result<Columns, StoreError>> {
    rows.map(|row| row.map_err(failed(READING)))
}
