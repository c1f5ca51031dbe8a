//! What a group of changes must know of the database before it is decided in memory: read once for all members, under the head's lock.

use std::collections::{BTreeMap, BTreeSet};

use super::line::{Line, Value, get};
use super::schema;
use crate::access::AccessRequest;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::identity::challenge::Redemption;
use crate::store::writer::Job;
use crate::store::{Change, Note, Save, StoreError};

const READING: &str = "reading what changes rest on";

/// The states in which a request counts as open.
const OPEN: [&str; 3] = ["pending", "approved", "issued"];

/// What the members of a group name.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    requests: BTreeSet<String>,
    certificates: BTreeSet<i64>,
    sessions: BTreeSet<Vec<u8>>,
    browser_sessions: BTreeSet<Vec<u8>>,
    host_sessions: BTreeSet<Vec<u8>>,
    redemptions: BTreeSet<Vec<u8>>,
    reports: BTreeSet<(String, String)>,
    open: BTreeSet<(String, String)>,
    policy: bool,
}

/// A request's row, as far as a change must know it.
#[derive(Clone, Debug)]
pub(super) struct KnownRequest {
    pub(super) version: i64,
    pub(super) asker: String,
    pub(super) key: String,
    pub(super) is_open: bool,
    pub(super) hosts: BTreeSet<String>,
}

/// What the database has of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) requests: BTreeMap<String, KnownRequest>,
    /// Whose certificate, and whether its outcome is in the log.
    pub(super) certificates: BTreeMap<i64, (String, bool)>,
    /// Whose session.
    pub(super) sessions: BTreeMap<Vec<u8>, (String, String)>,
    pub(super) browser_sessions: BTreeSet<Vec<u8>>,
    pub(super) host_sessions: BTreeSet<Vec<u8>>,
    pub(super) redemptions: BTreeSet<Vec<u8>>,
    pub(super) reports: BTreeSet<(String, String)>,
    /// How many requests are open, and how many of them hold the key; by person and key.
    pub(super) open: BTreeMap<(String, String), (i64, i64)>,
    /// The newest policy version.
    pub(super) policy: i64,
}

/// Whether a request in this state counts as open.
pub(super) fn is_open(state: &str) -> bool {
    OPEN.contains(&state)
}

impl Wanted {
    /// What these jobs name.
    pub(super) fn of(jobs: &[Job]) -> Self {
        let mut wanted = Self::default();
        for job in jobs {
            match job {
                Job::Commit(change, _) => wanted.change(change),
                Job::Note(note, _) => wanted.note(note),
                Job::Sweep(..) | Job::Ready(_) => {}
            }
        }
        wanted
    }

    fn change(&mut self, Change { saves, events, .. }: &Change) {
        saves.iter().for_each(|save| self.save(save));
        for event in events {
            if let Event::CertificateSigned { serial, .. }
            | Event::Host(
                HostEvent::HostCertificateSigned { serial, .. } | HostEvent::CheckCertificateSigned { serial, .. },
            ) = event
            {
                self.certificates.insert(serial.number().cast_signed());
            }
        }
    }

    fn save(&mut self, save: &Save) {
        match save {
            Save::NewRequest(request) | Save::Request { request, .. } => self.request(request),
            Save::Certify { permit, .. } => self.request(permit.request()),
            Save::AsRead { request, .. } => drop(self.requests.insert(request.digits().to_owned())),
            Save::NewSession(session) => drop(self.sessions.insert(session.token.0.to_vec())),
            Save::NewBrowserSession(session) => {
                self.browser_sessions.insert(session.token.0.to_vec());
                self.sessions.insert(session.parent.0.to_vec());
            }
            Save::Redeem(redemption) => self.redemption(redemption),
            Save::NewPolicy(_) => self.policy = true,
            Save::OpenAsRead { asker, key, .. } => {
                self.open.insert((asker.as_str().to_owned(), key.to_openssh()));
            }
            Save::NewHostSession(session) => drop(self.host_sessions.insert(session.token.0.to_vec())),
            Save::Report { host, report } => {
                self.reports.insert((host.as_str().to_owned(), report.as_str().to_owned()));
            }
            // These are written whatever there is, or compared with the head.
            Save::EndSession(_)
            | Save::EndSessionsOf(_)
            | Save::EndSessionsBy(..)
            | Save::EndAllSessions
            | Save::AtSize(_)
            | Save::EndBrowserSession(_)
            | Save::Inventory { .. }
            | Save::OnBasis(_)
            | Save::OnTime { .. }
            | Save::CertifyHost { .. }
            | Save::HostCertificate { .. } => {}
        }
    }

    fn request(&mut self, request: &AccessRequest) {
        self.requests.insert(request.id().digits().to_owned());
    }

    fn redemption(&mut self, redemption: &Redemption) {
        self.redemptions.insert(redemption.nonce.to_vec());
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::HostSession { redemption, session } => {
                self.redemption(redemption);
                self.host_sessions.insert(session.token.0.to_vec());
            }
            Note::Seen { .. } => {}
        }
    }
}

/// Reads it, all questions at once; and looks whether the schema is still one that we know.
pub(super) async fn read(line: &Line, wanted: &Wanted) -> Result<Known, StoreError> {
    const BROWSERS: &str = "SELECT token FROM browser_session WHERE token = ANY($1::bytea[])";
    const HOST_SESSIONS: &str = "SELECT token FROM host_session WHERE token = ANY($1::bytea[])";
    const REDEMPTIONS: &str = "SELECT nonce FROM redemption WHERE nonce = ANY($1::bytea[])";
    let (requests, certificates, sessions, browser_sessions, host_sessions, redemptions, reports, open, policy, ()) = tokio::try_join!(
        requests(line, &wanted.requests),
        certificates(line, &wanted.certificates),
        sessions(line, &wanted.sessions),
        present(line, BROWSERS, &wanted.browser_sessions),
        present(line, HOST_SESSIONS, &wanted.host_sessions),
        present(line, REDEMPTIONS, &wanted.redemptions),
        reports(line, &wanted.reports),
        open(line, &wanted.open),
        policy(line, wanted.policy),
        served(line),
    )?;
    Ok(Known { requests, certificates, sessions, browser_sessions, host_sessions, redemptions, reports, open, policy })
}

/// The rows that this gives for these keys; nothing is asked for no keys.
async fn rows<K>(
    line: &Line,
    sql: &'static str,
    keys: &BTreeSet<K>,
    values: &[Value<'_>],
) -> Result<Vec<tokio_postgres::Row>, StoreError> {
    if keys.is_empty() { Ok(Vec::new()) } else { line.query(READING, sql, values).await }
}

async fn requests(line: &Line, ids: &BTreeSet<String>) -> Result<BTreeMap<String, KnownRequest>, StoreError> {
    let list: Vec<&str> = ids.iter().map(String::as_str).collect();
    let found = rows(
        line,
        "SELECT id, version, asker, key, state, ARRAY(SELECT host FROM request_host WHERE request = id) FROM request
         WHERE id = ANY($1::text[])",
        ids,
        &[&list],
    )
    .await?;
    let request = |row: &tokio_postgres::Row| {
        let known = KnownRequest {
            version: get(row, 1)?,
            asker: get(row, 2)?,
            key: get(row, 3)?,
            is_open: is_open(get(row, 4)?),
            hosts: get::<Vec<String>>(row, 5)?.into_iter().collect(),
        };
        Ok((get(row, 0)?, known))
    };
    found.iter().map(request).collect()
}

async fn certificates(line: &Line, serials: &BTreeSet<i64>) -> Result<BTreeMap<i64, (String, bool)>, StoreError> {
    let list: Vec<i64> = serials.iter().copied().collect();
    let sql = "SELECT serial, request, signed FROM certificate WHERE serial = ANY($1::int8[])";
    let found = rows(line, sql, serials, &[&list]).await?;
    found.iter().map(|row| Ok((get(row, 0)?, (get(row, 1)?, get(row, 2)?)))).collect()
}

async fn sessions(line: &Line, tokens: &BTreeSet<Vec<u8>>) -> Result<BTreeMap<Vec<u8>, (String, String)>, StoreError> {
    let list: Vec<&[u8]> = tokens.iter().map(Vec::as_slice).collect();
    let sql = "SELECT token, person, key FROM session WHERE token = ANY($1::bytea[])";
    let found = rows(line, sql, tokens, &[&list]).await?;
    found.iter().map(|row| Ok((get(row, 0)?, (get(row, 1)?, get(row, 2)?)))).collect()
}

async fn present(line: &Line, sql: &'static str, keys: &BTreeSet<Vec<u8>>) -> Result<BTreeSet<Vec<u8>>, StoreError> {
    let list: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    rows(line, sql, keys, &[&list]).await?.iter().map(|row| get(row, 0)).collect()
}

async fn reports(line: &Line, wanted: &BTreeSet<(String, String)>) -> Result<BTreeSet<(String, String)>, StoreError> {
    let (hosts, reports): (Vec<&str>, Vec<&str>) = wanted.iter().map(|(h, r)| (h.as_str(), r.as_str())).unzip();
    let found = rows(
        line,
        "SELECT host, report FROM host_report JOIN unnest($1::text[], $2::text[]) AS wanted (h, r)
         ON host = h AND report = r",
        wanted,
        &[&hosts, &reports],
    )
    .await?;
    found.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}

async fn open(
    line: &Line,
    wanted: &BTreeSet<(String, String)>,
) -> Result<BTreeMap<(String, String), (i64, i64)>, StoreError> {
    let (askers, keys): (Vec<&str>, Vec<&str>) = wanted.iter().map(|(a, k)| (a.as_str(), k.as_str())).unzip();
    let found = rows(
        line,
        "SELECT a, k, (SELECT count(*) FROM request WHERE asker = a AND state IN ('pending', 'approved', 'issued')),
                (SELECT count(*) FROM request WHERE asker = a AND key = k AND state IN ('pending', 'approved', 'issued'))
         FROM unnest($1::text[], $2::text[]) AS wanted (a, k)",
        wanted,
        &[&askers, &keys],
    )
    .await?;
    found.iter().map(|row| Ok(((get(row, 0)?, get(row, 1)?), (get(row, 2)?, get(row, 3)?)))).collect()
}

async fn policy(line: &Line, is_wanted: bool) -> Result<i64, StoreError> {
    if !is_wanted {
        return Ok(0);
    }
    get(&line.one(READING, "SELECT coalesce(max(version), 0)::int8 FROM policy", &[]).await?, 0)
}

/// Refuses a schema that this program is too old or too new for.
async fn served(line: &Line) -> Result<(), StoreError> {
    let row = line.one(READING, "SELECT version, serves FROM schema_version WHERE one = 1", &[]).await?;
    schema::check(get(&row, 0)?, get(&row, 1)?)
}
