//! Rows of both databases as their columns ↔ domain types: what a column says is parsed again when it is read (P10).
//!
//! A request's columns repeat what its body says (`rows.rs`) so that indexes can find it; a row whose columns and body disagree is
//! damaged.

use super::numbers::{damaged, from_sql, time_from_sql, time_to_sql, to_sql};
use super::{LiveCertificate, RowVersion, StoreError, Stored, StoredPolicy, host_rows, rows};
use crate::access::{AccessRequest, Grant};
use crate::identity::Actor;
use crate::identity::browser::BrowserSession;
use crate::identity::host::HostSession;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::name::{HostName, PersonName, PolicyVersion};
use crate::ssh::Fingerprint;
use crate::time::Timestamp;

/// A row of the table of requests.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) id: String,
    pub(super) version: i64,
    pub(super) asker: String,
    pub(super) state: String,
    pub(super) asked: i64,
    pub(super) next_tick: Option<i64>,
    pub(super) body: String,
    pub(super) waits: bool,
    pub(super) key: String,
}

impl Columns {
    pub(super) fn of(request: &AccessRequest, version: RowVersion) -> Result<Self, StoreError> {
        let parts = request.parts();
        Ok(Self {
            id: parts.id.digits().to_owned(),
            version: to_sql(version.0)?,
            asker: parts.asker.as_str().to_owned(),
            state: parts.state.word().to_owned(),
            asked: time_to_sql(parts.asked)?,
            next_tick: request.next_tick().map(time_to_sql).transpose()?,
            body: rows::to_json(request)?,
            waits: request.waits(),
            key: parts.key.to_openssh(),
        })
    }

    /// The request that this row holds.
    pub(super) fn stored(&self) -> Result<Stored, StoreError> {
        let what = format!("request {:?}", self.id);
        let version = RowVersion(from_sql(&what, self.version)?);
        let request = rows::from_json(&self.body).map_err(|why| damaged(what.as_str(), why))?;
        // The body is written in one way only, so equality of all columns also means that it says nothing twice.
        if Self::of(&request, version)? == *self {
            Ok(Stored { request, version })
        } else {
            Err(damaged(what, "its columns and its body say different things"))
        }
    }
}

/// The first `limit` that can be read: one damaged row must not hide the others or stop their clock. It is reported each
/// time.
pub(super) fn readable(
    rows: impl Iterator<Item = Result<Columns, StoreError>>,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let mut found = Vec::new();
    for row in rows {
        if found.len() >= limit {
            break;
        }
        match row?.stored() {
            Ok(request) => found.push(request),
            Err(error) => tracing::error!(%error, "a damaged request is left out of a list"),
        }
    }
    Ok(found)
}

/// The certificates of this request whose window is not over.
pub(super) fn live(stored: &Stored, now: Timestamp) -> Vec<LiveCertificate> {
    let request = stored.request.id();
    let live = |grant: &Grant| {
        let (ca, end) = (grant.certificate.as_ref()?.tbs.ca().fingerprint(), grant.window.end());
        (now < end).then_some(LiveCertificate { request, ca, end })
    };
    stored.request.parts().grants.iter().filter_map(live).collect()
}

/// A person's session as a row: person, key, opened, expires, seal.
pub(super) type SessionColumns = (String, String, i64, i64, [u8; 32]);

pub(super) fn session(
    token: TokenHash,
    (person, key, opened, expires, seal): SessionColumns,
) -> Result<Session, StoreError> {
    let what = "a session";
    Ok(Session {
        token,
        person: PersonName::parse(&person).map_err(|error| damaged(what, error.to_string()))?,
        key: Fingerprint::parse(&key).map_err(|error| damaged(what, error.to_string()))?,
        opened: time_from_sql(what, opened)?,
        expires: time_from_sql(what, expires)?,
        seal,
    })
}

/// A browser's session as a row: parent, opened, expires, seal.
pub(super) type BrowserSessionColumns = ([u8; 32], i64, i64, [u8; 32]);

pub(super) fn browser_session(
    token: TokenHash,
    (parent, opened, expires, seal): BrowserSessionColumns,
) -> Result<BrowserSession, StoreError> {
    let what = "a browser's session";
    let (opened, expires) = (time_from_sql(what, opened)?, time_from_sql(what, expires)?);
    Ok(BrowserSession { token, parent: TokenHash(parent), opened, expires, seal })
}

/// A host's session as a row: host, key, opened, seal.
pub(super) type HostSessionColumns = (String, String, i64, [u8; 32]);

pub(super) fn host_session(
    token: TokenHash,
    (host, key, opened, seal): HostSessionColumns,
) -> Result<HostSession, StoreError> {
    let what = "a host session";
    Ok(HostSession {
        token,
        host: HostName::parse(&host).map_err(|error| damaged(what, error.to_string()))?,
        key: Fingerprint::parse(&key).map_err(|error| damaged(what, error.to_string()))?,
        opened: time_from_sql(what, opened)?,
        seal,
    })
}

/// What a host told last: host, time, body. `None` if the row is damaged, which is reported: it is as if that host had not been seen.
pub(super) fn seen((host, at, body): (String, i64, String)) -> Option<(HostName, Seen)> {
    let what = format!("what host {host:?} told last");
    let parsed = HostName::parse(&host)
        .map_err(|error| damaged(what.as_str(), error.to_string()))
        .and_then(|host| Ok((host, time_from_sql(&what, at)?)))
        .and_then(|(host, at)| {
            let check_in = host_rows::from_json(&body).map_err(|why| damaged(what.as_str(), why))?;
            Ok((host, Seen { at, check_in }))
        });
    parsed.inspect_err(|error| tracing::error!(%error, "a damaged row is left out")).ok()
}

/// A policy as a row: version, text, by whom, when.
pub(super) type PolicyColumns = (u32, String, String, i64);

pub(super) fn policy((version, text, by, at): PolicyColumns) -> Result<StoredPolicy, StoreError> {
    let what = format!("policy version {version}");
    Actor::parse(&by).map_err(|error| damaged(what.as_str(), error.to_string()))?;
    Ok(StoredPolicy { version: PolicyVersion(version), text, by, at: time_from_sql(&what, at)? })
}
