//! Policy versions.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failed;
use crate::name::PolicyVersion;
use crate::store::columns::{self, PolicyColumns};
use crate::store::numbers::time_to_sql;
use crate::store::{StoreError, StoredPolicy};

/// A new version; must be the last plus one.
pub(super) fn insert(conn: &Connection, policy: &StoredPolicy) -> Result<(), StoreError> {
    let at = time_to_sql(policy.at)?;
    let version = policy.version.0;
    let rows = conn
        .prepare_cached(
            "INSERT INTO policy (version, text, applied_by, at)
             SELECT ?1, ?2, ?3, ?4 WHERE ?1 = (SELECT coalesce(max(version), 0) + 1 FROM policy)",
        )
        .and_then(|mut s| s.execute(params![version, policy.text, policy.by, at]))
        .map_err(failed("saving a policy"))?;
    if rows == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// This version, or the newest.
pub(super) fn one(conn: &Connection, version: Option<PolicyVersion>) -> Result<Option<StoredPolicy>, StoreError> {
    conn.prepare_cached(
        "SELECT version, text, applied_by, at FROM policy
         WHERE ?1 IS NULL OR version = ?1 ORDER BY version DESC LIMIT 1",
    )
    .and_then(|mut s| s.query_row([version.map(|v| v.0)], row).optional())
    .map_err(failed("reading a policy"))?
    .map(columns::policy)
    .transpose()
}

/// The newest version with exactly this text.
pub(super) fn with_text(conn: &Connection, text: &str) -> Result<Option<PolicyVersion>, StoreError> {
    conn.prepare_cached("SELECT version FROM policy WHERE text = ?1 ORDER BY version DESC LIMIT 1")
        .and_then(|mut s| s.query_row([text], |row| row.get(0).map(PolicyVersion)).optional())
        .map_err(failed("looking for a policy"))
}

/// All versions without their texts, newest first.
pub(super) fn all(conn: &Connection) -> Result<Vec<StoredPolicy>, StoreError> {
    let doing = "listing policies";
    let mut select = conn
        .prepare_cached("SELECT version, '', applied_by, at FROM policy ORDER BY version DESC")
        .map_err(failed(doing))?;
    let rows = select.query_map([], row).map_err(failed(doing))?;
    rows.map(|row| columns::policy(row.map_err(failed(doing))?)).collect()
}

fn row(row: &Row<'_>) -> rusqlite::Result<PolicyColumns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}
