//! Sessions of people and their browsers, and challenges that have been used up.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::failed;
use crate::identity::browser::BrowserSession;
use crate::identity::challenge::Redemption;
use crate::identity::session::{Session, TokenHash};
use crate::name::PersonName;
use crate::ssh::Fingerprint;
use crate::store::numbers::time_to_sql;
use crate::store::sweep::{Ends, SWEEP_MAX};
use crate::store::{StoreError, columns};
use crate::time::Timestamp;

pub(super) fn insert_session(conn: &Connection, session: &Session) -> Result<(), StoreError> {
    let (opened, expires) = (time_to_sql(session.opened)?, time_to_sql(session.expires)?);
    let rows = conn
        .prepare_cached(
            "INSERT INTO session (token, person, key, opened, expires, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )
        .and_then(|mut s| {
            let key = session.key.to_string();
            s.execute(params![session.token.0, session.person.as_str(), key, opened, expires, session.seal])
        })
        .map_err(failed("saving a session"))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

pub(super) fn session(conn: &Connection, token: TokenHash) -> Result<Option<Session>, StoreError> {
    let row: Option<columns::SessionColumns> = conn
        .prepare_cached("SELECT person, key, opened, expires, seal FROM session WHERE token = ?1")
        .and_then(|mut s| {
            s.query_row([token.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
                .optional()
        })
        .map_err(failed("reading a session"))?;
    row.map(|row| columns::session(token, row)).transpose()
}

pub(super) fn end_session(conn: &Connection, token: TokenHash) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM session WHERE token = ?1")
        .and_then(|mut s| s.execute([token.0]))
        .map(drop)
        .map_err(failed("ending a session"))
}

pub(super) fn end_sessions_of(conn: &Connection, person: &PersonName) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM session WHERE person = ?1")
        .and_then(|mut s| s.execute([person.as_str()]))
        .map(drop)
        .map_err(failed("ending a person's sessions"))
}

pub(super) fn end_sessions_by(conn: &Connection, person: &PersonName, key: Fingerprint) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM session WHERE person = ?1 AND key = ?2")
        .and_then(|mut s| s.execute(params![person.as_str(), key.to_string()]))
        .map(drop)
        .map_err(failed("ending the sessions of a login key"))
}

/// Those of browsers go with them, by the foreign key.
pub(super) fn end_all_sessions(conn: &Connection) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM session")
        .and_then(|mut s| s.execute([]))
        .map(drop)
        .map_err(failed("ending all sessions"))
}

/// Its parent must be there; ended with the parent by the foreign key.
pub(super) fn insert_browser_session(conn: &Connection, session: &BrowserSession) -> Result<(), StoreError> {
    let (opened, expires) = (time_to_sql(session.opened)?, time_to_sql(session.expires)?);
    let rows = conn
        .prepare_cached(
            "INSERT INTO browser_session (token, parent, opened, expires, seal)
             SELECT ?1, token, ?3, ?4, ?5 FROM session WHERE token = ?2
             ON CONFLICT DO NOTHING",
        )
        .and_then(|mut s| s.execute(params![session.token.0, session.parent.0, opened, expires, session.seal]))
        .map_err(failed("saving a browser's session"))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

pub(super) fn browser_session(
    conn: &Connection,
    token: TokenHash,
) -> Result<Option<(BrowserSession, Session)>, StoreError> {
    let row: Option<columns::BrowserSessionColumns> = conn
        .prepare_cached("SELECT parent, opened, expires, seal FROM browser_session WHERE token = ?1")
        .and_then(|mut s| {
            s.query_row([token.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()
        })
        .map_err(failed("reading a browser's session"))?;
    let Some(row) = row else { return Ok(None) };
    let found = columns::browser_session(token, row)?;
    Ok(session(conn, found.parent)?.map(|parent| (found, parent)))
}

pub(super) fn end_browser_session(conn: &Connection, token: TokenHash) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM browser_session WHERE token = ?1")
        .and_then(|mut s| s.execute([token.0]))
        .map(drop)
        .map_err(failed("ending a browser's session"))
}

pub(super) fn redeem(conn: &Connection, redemption: &Redemption) -> Result<(), StoreError> {
    let expires = time_to_sql(redemption.expires)?;
    let rows = conn
        .prepare_cached("INSERT INTO redemption (nonce, expires) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .and_then(|mut s| s.execute(params![redemption.nonce, expires]))
        .map_err(failed("redeeming a challenge"))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Replayed) }
}

/// Deletes what was over at `now`; says whether there was any.
pub(super) fn sweep(conn: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let Ends { sessions: now, host_sessions, reports } = Ends::at(now)?;
    let mut deleted = 0;
    for (sql, now) in [
        ("DELETE FROM session WHERE token IN (SELECT token FROM session WHERE expires <= ?1 LIMIT ?2)", now),
        (
            "DELETE FROM browser_session WHERE token IN
             (SELECT token FROM browser_session WHERE expires <= ?1 LIMIT ?2)",
            now,
        ),
        ("DELETE FROM redemption WHERE nonce IN (SELECT nonce FROM redemption WHERE expires <= ?1 LIMIT ?2)", now),
        (
            "DELETE FROM host_session WHERE token IN (SELECT token FROM host_session WHERE opened <= ?1 LIMIT ?2)",
            host_sessions,
        ),
        (
            "DELETE FROM host_report WHERE (host, report) IN
             (SELECT host, report FROM host_report WHERE at <= ?1 LIMIT ?2)",
            reports,
        ),
    ] {
        deleted += conn
            .prepare_cached(sql)
            .and_then(|mut s| s.execute([now, SWEEP_MAX]))
            .map_err(failed("sweeping sessions"))?;
    }
    Ok(deleted > 0)
}
