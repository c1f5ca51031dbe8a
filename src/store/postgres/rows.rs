//! Sessions, policies, and what enrolled hosts leave: how their rows are read.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;

use super::line::{get, hash};
use super::pool::{maybe, rows};
use crate::identity::browser::BrowserSession;
use crate::identity::host::HostSession;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::name::{HostName, PolicyVersion, ReportId};
use crate::ssh::cert::Certificate;
use crate::store::numbers::{damaged, from_sql, to_sql};
use crate::store::{LIST_MAX, Pending, StoreError, StoredPolicy, columns};

const SESSIONS: &str = "reading a session";
const POLICIES: &str = "reading policies";
const HOSTS: &str = "reading about hosts";

/// The sessions with these token hashes.
pub(super) fn sessions(
    client: &Object,
    tokens: Vec<TokenHash>,
) -> Pending<'_, Vec<Result<Option<Session>, StoreError>>> {
    Box::pin(async move {
        let wanted: Vec<&[u8]> = tokens.iter().map(|token| token.0.as_slice()).collect();
        let sql = "SELECT token, person, key, opened, expires, seal FROM session WHERE token = ANY($1::bytea[])";
        let mut found = BTreeMap::new();
        for row in rows(client, SESSIONS, sql, &[&wanted]).await? {
            found.insert(TokenHash(hash(&row, 0)?), row);
        }
        Ok(tokens.iter().map(|token| found.get(token).map(|row| session_of(*token, row)).transpose()).collect())
    })
}

fn session_of(token: TokenHash, row: &Row) -> Result<Session, StoreError> {
    columns::session(token, (get(row, 1)?, get(row, 2)?, get(row, 3)?, get(row, 4)?, hash(row, 5)?))
}

async fn session(client: &impl GenericClient, token: TokenHash) -> Result<Option<Session>, StoreError> {
    let sql = "SELECT token, person, key, opened, expires, seal FROM session WHERE token = $1";
    maybe(client, SESSIONS, sql, &[&token.0.as_slice()]).await?.map(|row| session_of(token, &row)).transpose()
}

/// A browser's session, and the one that let it in; on a client that shows one moment.
pub(super) async fn browser_session(
    client: &impl GenericClient,
    token: TokenHash,
) -> Result<Option<(BrowserSession, Session)>, StoreError> {
    let sql = "SELECT parent, opened, expires, seal FROM browser_session WHERE token = $1";
    let Some(row) = maybe(client, SESSIONS, sql, &[&token.0.as_slice()]).await? else { return Ok(None) };
    let found = columns::browser_session(token, (hash(&row, 0)?, get(&row, 1)?, get(&row, 2)?, hash(&row, 3)?))?;
    Ok(session(client, found.parent).await?.map(|parent| (found, parent)))
}

pub(super) async fn host_session(
    client: &impl GenericClient,
    token: TokenHash,
) -> Result<Option<HostSession>, StoreError> {
    let sql = "SELECT host, key, opened, seal FROM host_session WHERE token = $1";
    let Some(row) = maybe(client, SESSIONS, sql, &[&token.0.as_slice()]).await? else { return Ok(None) };
    columns::host_session(token, (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?, hash(&row, 3)?)).map(Some)
}

fn stored_policy(row: &Row) -> Result<StoredPolicy, StoreError> {
    let version: i64 = get(row, 0)?;
    let version = u32::try_from(version).map_err(|error| damaged("a policy", format!("version {version}: {error}")))?;
    columns::policy((version, get(row, 1)?, get(row, 2)?, get(row, 3)?))
}

/// This version, or the newest.
pub(super) async fn policy(
    client: &impl GenericClient,
    version: Option<PolicyVersion>,
) -> Result<Option<StoredPolicy>, StoreError> {
    let sql = "SELECT version, text, applied_by, at FROM policy WHERE $1::int8 IS NULL OR version = $1
               ORDER BY version DESC LIMIT 1";
    let row = maybe(client, POLICIES, sql, &[&version.map(|version| i64::from(version.0))]).await?;
    row.as_ref().map(stored_policy).transpose()
}

/// The newest version with exactly this text.
pub(super) async fn policy_with_text(
    client: &impl GenericClient,
    text: &str,
) -> Result<Option<PolicyVersion>, StoreError> {
    let sql = "SELECT version, '', applied_by, at FROM policy WHERE text = $1 ORDER BY version DESC LIMIT 1";
    let row = maybe(client, POLICIES, sql, &[&text]).await?;
    Ok(row.as_ref().map(stored_policy).transpose()?.map(|policy| policy.version))
}

/// All versions without their texts, newest first.
pub(super) async fn policies(client: &impl GenericClient) -> Result<Vec<StoredPolicy>, StoreError> {
    let sql = "SELECT version, '', applied_by, at FROM policy ORDER BY version DESC";
    rows(client, POLICIES, sql, &[]).await?.iter().map(stored_policy).collect()
}

fn told(row: &Row) -> Result<Option<(HostName, Seen)>, StoreError> {
    Ok(columns::seen((get(row, 0)?, get(row, 1)?, get(row, 2)?)))
}

/// What all hosts told last. A damaged row is reported and left out: it is as if that host had not been seen.
pub(super) async fn seen(client: &impl GenericClient) -> Result<BTreeMap<HostName, Seen>, StoreError> {
    let found = rows(client, HOSTS, "SELECT host, at, body FROM host_seen", &[]).await?;
    Ok(found.iter().map(told).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// What was told since `mark`, as much as one answer lists, and the mark to go on from.
pub(super) async fn seen_since(
    client: &impl GenericClient,
    mark: u64,
) -> Result<(u64, BTreeMap<HostName, Seen>), StoreError> {
    let most = i64::try_from(LIST_MAX).unwrap_or(i64::MAX);
    let sql = "SELECT host, at, body, change FROM host_seen WHERE change > $1 ORDER BY change LIMIT $2";
    let found = rows(client, HOSTS, sql, &[&to_sql(mark)?, &most]).await?;
    let last = found.last().map_or(Ok(mark), |row| from_sql("a change", get(row, 3)?))?;
    Ok((last, found.iter().map(told).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()))
}

/// Those of these reports that were taken before.
pub(super) async fn known_reports(
    client: &impl GenericClient,
    host: &HostName,
    reports: Vec<ReportId>,
) -> Result<BTreeSet<ReportId>, StoreError> {
    let names: Vec<&str> = reports.iter().map(ReportId::as_str).collect();
    let sql = "SELECT report FROM host_report WHERE host = $1 AND report = ANY($2::text[])";
    let found = rows(client, HOSTS, sql, &[&host.as_str(), &names]).await?;
    let found: BTreeSet<String> = found.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
    Ok(reports.into_iter().filter(|report| found.contains(report.as_str())).collect())
}

/// The newest certificates of a host, as far as they verify.
pub(super) async fn host_certificates(
    client: &impl GenericClient,
    host: &HostName,
) -> Result<Vec<Certificate>, StoreError> {
    let sql = "SELECT line FROM host_certificate WHERE host = $1 ORDER BY key";
    let mut certificates = Vec::new();
    for row in rows(client, HOSTS, sql, &[&host.as_str()]).await? {
        match Certificate::parse_openssh(get(&row, 0)?) {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => tracing::error!(%host, %error, "a damaged host certificate is left out"),
        }
    }
    Ok(certificates)
}
