//! What enrolled hosts leave in tables: tokens, what they told last, which reports were taken, their newest certificates.
//!
//! None of it says which hosts there are: that is the log's (`log::inventory`).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::failed;
use crate::identity::host::HostSession;
use crate::identity::session::TokenHash;
use crate::inventory::check_in::Seen;
use crate::name::{HostName, ReportId};
use crate::ssh::cert::Certificate;
use crate::store::numbers::time_to_sql;
use crate::store::{StoreError, columns, host_rows};
use crate::time::Timestamp;

const READING: &str = "reading about hosts";
const SAVING: &str = "saving about hosts";

/// A new host session.
pub(super) fn insert_session(conn: &Connection, session: &HostSession) -> Result<(), StoreError> {
    let HostSession { token, host, key, opened, seal } = session;
    let opened = time_to_sql(*opened)?;
    let rows = conn
        .prepare_cached(
            "INSERT INTO host_session (token, host, key, opened, seal) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO NOTHING",
        )
        .and_then(|mut s| s.execute(params![token.0, host.as_str(), key.to_string(), opened, seal]))
        .map_err(failed(SAVING))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

pub(super) fn session(conn: &Connection, token: TokenHash) -> Result<Option<HostSession>, StoreError> {
    let row: Option<columns::HostSessionColumns> = conn
        .prepare_cached("SELECT host, key, opened, seal FROM host_session WHERE token = ?1")
        .and_then(|mut s| {
            s.query_row([token.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()
        })
        .map_err(failed(READING))?;
    row.map(|row| columns::host_session(token, row)).transpose()
}

/// What a host told of itself last.
pub(super) fn save_seen(conn: &Connection, host: &HostName, seen: &Seen) -> Result<(), StoreError> {
    let (at, body) = (time_to_sql(seen.at)?, host_rows::to_json(&seen.check_in)?);
    conn.prepare_cached(
        "INSERT INTO host_seen (host, at, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (host) DO UPDATE SET at = excluded.at, body = excluded.body",
    )
    .and_then(|mut s| s.execute(params![host.as_str(), at, body]))
    .map(drop)
    .map_err(failed(SAVING))
}

/// What all hosts told last. A damaged row is reported and left out: it is as if that host had not been seen.
pub(super) fn seen(conn: &Connection) -> Result<BTreeMap<HostName, Seen>, StoreError> {
    let mut select = conn.prepare_cached("SELECT host, at, body FROM host_seen").map_err(failed(READING))?;
    let rows = select
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?)))
        .map_err(failed(READING))?;
    let mut found = BTreeMap::new();
    for row in rows {
        found.extend(columns::seen(row.map_err(failed(READING))?));
    }
    Ok(found)
}

/// A report is taken once.
pub(super) fn insert_report(
    conn: &Connection,
    host: &HostName,
    report: &ReportId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let at = time_to_sql(at)?;
    let rows = conn
        .prepare_cached("INSERT INTO host_report (host, report, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
        .and_then(|mut s| s.execute(params![host.as_str(), report.as_str(), at]))
        .map_err(failed(SAVING))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Those of these reports that were taken before.
pub(super) fn known_reports(
    conn: &Connection,
    host: &HostName,
    reports: Vec<ReportId>,
) -> Result<BTreeSet<ReportId>, StoreError> {
    let mut select =
        conn.prepare_cached("SELECT 1 FROM host_report WHERE host = ?1 AND report = ?2").map_err(failed(READING))?;
    let mut known = BTreeSet::new();
    for report in reports {
        if select.exists(params![host.as_str(), report.as_str()]).map_err(failed(READING))? {
            known.insert(report);
        }
    }
    Ok(known)
}

/// The newest certificate of one host key.
pub(super) fn save_certificate(
    conn: &Connection,
    host: &HostName,
    certificate: &Certificate,
) -> Result<(), StoreError> {
    let (key, line) = (certificate.tbs().subject().fingerprint().to_string(), certificate.to_openssh());
    conn.prepare_cached(
        "INSERT INTO host_certificate (host, key, line) VALUES (?1, ?2, ?3)
         ON CONFLICT (host, key) DO UPDATE SET line = excluded.line",
    )
    .and_then(|mut s| s.execute(params![host.as_str(), key, line]))
    .map(drop)
    .map_err(failed(SAVING))
}

/// The newest certificates of a host, as far as they verify.
pub(super) fn certificates(conn: &Connection, host: &HostName) -> Result<Vec<Certificate>, StoreError> {
    let mut select = conn
        .prepare_cached("SELECT line FROM host_certificate WHERE host = ?1 ORDER BY key")
        .map_err(failed(READING))?;
    let rows = select.query_map([host.as_str()], |row| row.get::<_, String>(0)).map_err(failed(READING))?;
    let mut found = Vec::new();
    for row in rows {
        match Certificate::parse_openssh(&row.map_err(failed(READING))?) {
            Ok(certificate) => found.push(certificate),
            Err(error) => tracing::error!(%host, %error, "a damaged host certificate is left out"),
        }
    }
    Ok(found)
}
