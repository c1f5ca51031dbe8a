//! All rows of the file, read in order and in pieces, each checked as when it is read for use. A row that can't be read is not passed over.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, Rows, Statement};

use super::{Moved, Settings, failed, file, log};
use crate::audit::entry::Entry;
use crate::audit::tree::Node;
use crate::identity::mac::MacKey;
use crate::identity::session::TokenHash;
use crate::name::{HostName, ReportId};
use crate::ssh::cert::Certificate;
use crate::store::columns::{self, Columns};
use crate::store::log::EntryRow;
use crate::store::numbers::{damaged, from_sql, time_to_sql};
use crate::store::postgres::sheet::{Sheet, Written, until};
use crate::store::{Head, StoreError};
use crate::time::Timestamp;

/// How many rows go in one piece: some hundred KiB of the widest.
const PIECE: u64 = 1_000;

const READING: &str = "reading all rows";

/// What there is, in the order in which it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    Entries,
    Nodes,
    Certificates,
    Requests,
    Sessions,
    BrowserSessions,
    Redemptions,
    Policies,
    HostSessions,
    Seen,
    Reports,
    HostCertificates,
}

/// All kinds.
pub(in crate::store) const KINDS: [Kind; 12] = [
    Kind::Entries,
    Kind::Nodes,
    Kind::Certificates,
    Kind::Requests,
    Kind::Sessions,
    Kind::BrowserSessions,
    Kind::Redemptions,
    Kind::Policies,
    Kind::HostSessions,
    Kind::Seen,
    Kind::Reports,
    Kind::HostCertificates,
];

impl Kind {
    /// Its table, of the same name in both databases.
    pub(in crate::store) const fn table(self) -> &'static str {
        match self {
            Self::Entries => "log_entry",
            Self::Nodes => "log_node",
            Self::Certificates => "certificate",
            Self::Requests => "request",
            Self::Sessions => "session",
            Self::BrowserSessions => "browser_session",
            Self::Redemptions => "redemption",
            Self::Policies => "policy",
            Self::HostSessions => "host_session",
            Self::Seen => "host_seen",
            Self::Reports => "host_report",
            Self::HostCertificates => "host_certificate",
        }
    }

    const fn select(self) -> &'static str {
        match self {
            Self::Entries => "SELECT number, bytes FROM log_entry ORDER BY number",
            Self::Nodes => "SELECT level, position, hash FROM log_node ORDER BY level, position",
            Self::Certificates => "SELECT serial, request, signed FROM certificate ORDER BY serial",
            Self::Requests => {
                "SELECT id, version, asker, state, asked, next_tick, body, waits, key FROM request ORDER BY number"
            }
            Self::Sessions => "SELECT token, person, key, opened, expires, seal FROM session",
            Self::BrowserSessions => "SELECT token, parent, opened, expires, seal FROM browser_session",
            Self::Redemptions => "SELECT nonce, expires FROM redemption",
            Self::Policies => "SELECT version, text, applied_by, at FROM policy ORDER BY version",
            Self::HostSessions => "SELECT token, host, key, opened, seal FROM host_session",
            Self::Seen => "SELECT host, at, body FROM host_seen",
            Self::Reports => "SELECT host, report, at FROM host_report",
            Self::HostCertificates => "SELECT host, key, line FROM host_certificate",
        }
    }
}

/// The file, locked.
pub(in crate::store) struct Export {
    conn: Connection,
    head: Head,
    _lock: std::fs::File,
}

impl Export {
    /// Opens it as a service would, also if it was moved before.
    pub(in crate::store) fn open(settings: &Settings, key: &MacKey) -> Result<Self, StoreError> {
        let missing =
            |why: std::io::Error| StoreError::Failed { doing: READING, why: format!("{:?}: {why}", settings.path) };
        // `prepare` would create it.
        std::fs::metadata(&settings.path).map_err(missing)?;
        let lock = file::prepare(&settings.path)?;
        file::write_log_again(&settings.path)?;
        let mut conn = file::connect_writer(&settings.path)?;
        file::migrate_any(&mut conn)?;
        let head = log::load_checked(&conn, key)?;
        file::keep_log_at_close(&conn, false)?;
        Ok(Self { conn, head, _lock: lock })
    }

    /// The log's head.
    pub(in crate::store) const fn head(&self) -> &Head {
        &self.head
    }

    /// Where it was moved to before.
    pub(in crate::store) fn moved(&self) -> Result<Option<Moved>, StoreError> {
        file::moved(&self.conn)
    }

    /// Marks it as moved, durably: no service starts on it any more.
    pub(in crate::store) fn mark(&mut self, place: &str, at: Timestamp) -> Result<(), StoreError> {
        file::mark(&mut self.conn, place, at)
    }

    /// The statement that reads all rows of a kind.
    pub(in crate::store) fn prepare(&self, kind: Kind) -> Result<Select<'_>, StoreError> {
        Ok(Select { kind, statement: self.conn.prepare(kind.select()).map_err(failed(READING))? })
    }
}

/// A statement that reads all rows of a kind.
pub(in crate::store) struct Select<'e> {
    kind: Kind,
    statement: Statement<'e>,
}

impl Select<'_> {
    /// Begins at the first row.
    pub(in crate::store) fn start(&mut self) -> Result<Reading<'_>, StoreError> {
        Ok(Reading { kind: self.kind, rows: self.statement.query([]).map_err(failed(READING))? })
    }
}

/// Rows that are being read.
pub(in crate::store) struct Reading<'s> {
    kind: Kind,
    rows: Rows<'s>,
}

impl Reading<'_> {
    /// The next piece, with how many rows it has; `None` after the last.
    pub(in crate::store) fn next_sheet(&mut self) -> Result<Option<(Sheet, u64)>, StoreError> {
        let (mut sheet, mut count) = (Sheet::default(), 0);
        while count < PIECE
            && let Some(row) = self.rows.next().map_err(failed(READING))?
        {
            put(&mut sheet, self.kind, row)?;
            count += 1;
        }
        Ok((count > 0).then_some((sheet, count)))
    }
}

fn get<T: rusqlite::types::FromSql>(row: &Row<'_>, place: usize) -> Result<T, StoreError> {
    row.get(place).map_err(failed(READING))
}

fn parsed<T, E: std::fmt::Display>(what: &str, parsed: Result<T, E>) -> Result<T, StoreError> {
    parsed.map_err(|why| damaged(what, why.to_string()))
}

/// Puts one row on the sheet.
fn put(sheet: &mut Sheet, kind: Kind, row: &Row<'_>) -> Result<(), StoreError> {
    match kind {
        Kind::Entries => sheet.entries.push(entry(row)?),
        Kind::Nodes => {
            let position = from_sql("a tree node", get(row, 1)?)?;
            sheet.nodes.push((Node { level: get(row, 0)?, position }, get(row, 2)?));
        }
        Kind::Certificates => {
            let serial: i64 = get(row, 0)?;
            sheet.certificates.insert(serial, get(row, 1)?);
            if get(row, 2)? {
                sheet.signed.insert(serial);
            }
        }
        Kind::Requests => request(sheet, row)?,
        Kind::Sessions => {
            let token = TokenHash(get(row, 0)?);
            let read = (get(row, 1)?, get(row, 2)?, get(row, 3)?, get(row, 4)?, get(row, 5)?);
            sheet.sessions.insert(token, Some(columns::session(token, read)?));
        }
        Kind::BrowserSessions => {
            let token = TokenHash(get(row, 0)?);
            let read = (get(row, 1)?, get(row, 2)?, get(row, 3)?, get(row, 4)?);
            sheet.browser_sessions.insert(token, Some(columns::browser_session(token, read)?));
        }
        Kind::Redemptions => drop(sheet.redemptions.insert(get::<[u8; 16]>(row, 0)?.to_vec(), get(row, 1)?)),
        Kind::Policies => {
            sheet.policies.push(columns::policy((get(row, 0)?, get(row, 1)?, get(row, 2)?, get(row, 3)?))?);
        }
        Kind::HostSessions => {
            let token = TokenHash(get(row, 0)?);
            let read = (get(row, 1)?, get(row, 2)?, get(row, 3)?, get(row, 4)?);
            sheet.host_sessions.insert(token.0.to_vec(), columns::host_session(token, read)?);
        }
        Kind::Seen => {
            let (host, at, body): (String, i64, String) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
            if columns::seen((host.clone(), at, body.clone())).is_none() {
                return Err(damaged(format!("what host {host:?} told last"), "it can't be read"));
            }
            sheet.seen.insert(host, (at, body));
        }
        Kind::Reports => {
            let (host, report): (String, String) = (get(row, 0)?, get(row, 1)?);
            parsed("a report's host", HostName::parse(&host))?;
            parsed("a report", ReportId::parse(&report))?;
            sheet.reports.insert((host, report), get(row, 2)?);
        }
        Kind::HostCertificates => {
            let line: String = get(row, 2)?;
            parsed("a host certificate", Certificate::parse_openssh(&line))?;
            sheet.host_certificates.insert((get(row, 0)?, get(row, 1)?), line);
        }
    }
    Ok(())
}

/// The bytes say what the entry is; the columns that find it are made of them anew.
fn entry(row: &Row<'_>) -> Result<EntryRow, StoreError> {
    let number: i64 = get(row, 0)?;
    let bytes: Vec<u8> = get(row, 1)?;
    let what = format!("log entry {number}");
    let entry = parsed(&what, Entry::parse(&bytes))?;
    let (at, kind, request) = (time_to_sql(entry.at)?, entry.event.kind(), entry.event.request());
    Ok(EntryRow { number, at, kind, request, bytes })
}

fn request(sheet: &mut Sheet, row: &Row<'_>) -> Result<(), StoreError> {
    let columns = Columns {
        id: get(row, 0)?,
        version: get(row, 1)?,
        asker: get(row, 2)?,
        state: get(row, 3)?,
        asked: get(row, 4)?,
        next_tick: get(row, 5)?,
        body: get(row, 6)?,
        waits: get(row, 7)?,
        key: get(row, 8)?,
    };
    let request = columns.stored()?.request;
    let hosts: BTreeSet<String> = request.parts().terms.hosts.keys().map(|host| host.as_str().to_owned()).collect();
    sheet.asked.push(columns.id.clone());
    sheet.requests.insert(columns.id.clone(), Written { until: until(&request)?, hosts, columns });
    Ok(())
}
