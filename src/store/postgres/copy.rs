//! The target of a copy (`store/copy.rs`): one transaction on an empty database; one that has the copy already is only looked at.

use std::collections::BTreeMap;

use super::known::Known;
use super::line::{Line, Uncommitted, get};
use super::settings::Settings;
use super::sheet::Sheet;
use super::{flush, log, schema};
use crate::audit::tree::{Frontier, Hash, Node};
use crate::identity::mac::MacKey;
use crate::store::copy::CopyError;
use crate::store::log::{self as rows, HeadRow, gapless};
use crate::store::numbers::{from_sql, to_sql};
use crate::store::{Head, StoreError};

const COPYING: &str = "copying a store";

/// The open transaction; dropping it undoes everything.
pub(in crate::store) struct Target(Line);

/// What the database holds.
pub(in crate::store) enum Found {
    /// The whole log, and so many entries more.
    Copy(u64),
    /// Nothing, and there it is to be written.
    Room(Box<Target>),
    /// Nothing, and it was only looked at.
    Nothing,
}

fn refuse(why: String) -> StoreError {
    StoreError::Failed { doing: COPYING, why }
}

impl Target {
    /// Connects, and looks whether the database holds this log already. If it holds nothing, migrates the schema and locks the log's head, unless this is
    /// only `to_look`. Refuses one that holds anything else.
    pub(in crate::store) async fn begin(
        settings: &Settings,
        copied: (&Frontier, &MacKey),
        to_look: bool,
    ) -> Result<Found, StoreError> {
        let line = Line::connect(&settings.connector()?).await?;
        schema::check_server(&line).await?;
        // Where nodes may be at work, the schema is theirs.
        if schema::is_there(&line).await? && size(&line, "SELECT size FROM log_head WHERE one = 1").await? != 0 {
            return check_same(&line, copied).await;
        }
        if to_look {
            return Ok(Found::Nothing);
        }
        schema::migrate(&line).await?;
        line.run(COPYING, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        if size(&line, "SELECT size FROM log_head WHERE one = 1 FOR UPDATE").await? != 0 {
            line.run(COPYING, "ROLLBACK").await?;
            return check_same(&line, copied).await;
        }
        let target = Self(line);
        for table in TABLES {
            if target.count(table).await? > 0 {
                return Err(refuse(format!("the target's table {table} is not empty; give an empty database")));
            }
        }
        Ok(Found::Room(Box::new(target)))
    }

    /// Writes rows; the head with the entries among them.
    pub(in crate::store) async fn write(&self, sheet: &Sheet, head: &Head, key: &MacKey) -> Result<(), StoreError> {
        let (known, row) = (Known::default(), HeadRow::of(head, key)?);
        self.0.write(COPYING, &flush::writes(&known, sheet, &row)?).await
    }

    /// How many rows a table has.
    pub(in crate::store) async fn count(&self, table: &str) -> Result<u64, StoreError> {
        let sql = match table {
            "log_entry" => "SELECT count(*) FROM log_entry",
            "log_node" => "SELECT count(*) FROM log_node",
            "certificate" => "SELECT count(*) FROM certificate",
            "request" => "SELECT count(*) FROM request",
            "session" => "SELECT count(*) FROM session",
            "browser_session" => "SELECT count(*) FROM browser_session",
            "redemption" => "SELECT count(*) FROM redemption",
            "policy" => "SELECT count(*) FROM policy",
            "host_session" => "SELECT count(*) FROM host_session",
            "host_seen" => "SELECT count(*) FROM host_seen",
            "host_report" => "SELECT count(*) FROM host_report",
            "host_certificate" => "SELECT count(*) FROM host_certificate",
            other => return Err(refuse(format!("there is no table {other:?}"))),
        };
        from_sql("a count", get(&self.0.one(COPYING, sql, &[]).await?, 0)?)
    }

    /// Checks the edge of the log.
    pub(in crate::store) async fn check(&self, head: &Head) -> Result<(), StoreError> {
        log::check(&self.0, head).await
    }

    /// These tree nodes.
    pub(in crate::store) async fn nodes(&self, wanted: &[Node]) -> Result<BTreeMap<Node, Hash>, StoreError> {
        log::nodes_on(&self.0, wanted).await
    }

    /// Entries from `from` on, as many as one answer holds.
    pub(in crate::store) async fn entries(&self, from: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let first = to_sql(from)?;
        let sql = "SELECT number, bytes FROM log_entry WHERE number >= $1 ORDER BY number LIMIT 1000";
        let rows = self.0.query(COPYING, sql, &[&first]).await?;
        let found = rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?)));
        gapless(first, found.collect::<Result<Vec<rows::Found>, StoreError>>()?)
    }

    /// Makes it durable.
    pub(in crate::store) async fn commit(self) -> Result<(), CopyError> {
        self.0.commit(COPYING, &[]).await.map_err(|uncommitted| match uncommitted {
            Uncommitted::Refused(why) => CopyError::Nothing(why),
            Uncommitted::Unknown(lost) => CopyError::Unknown(lost),
        })
    }
}

/// How many entries its log has.
async fn size(line: &Line, sql: &'static str) -> Result<i64, StoreError> {
    get(&line.one(COPYING, sql, &[]).await?, 0)
}

/// Refuses a log that doesn't begin with all of this one. A copy is made in one transaction, so that where it does all else was copied with it. The
/// head is locked meanwhile.
async fn check_same(line: &Line, (copied, key): (&Frontier, &MacKey)) -> Result<Found, StoreError> {
    line.run(COPYING, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let head = log::check_locked(line, key).await?;
    let nodes = log::nodes_on(line, &Frontier::nodes_of(copied.size())).await?;
    line.run(COPYING, "ROLLBACK").await?;
    match head.frontier.size().checked_sub(copied.size()) {
        Some(more) if copied.begins(&nodes) => Ok(Found::Copy(more)),
        Some(_) | None => Err(refuse("the target has another log already; give an empty database".to_owned())),
    }
}

/// The tables that must be empty.
const TABLES: [&str; 12] = [
    "log_entry",
    "log_node",
    "certificate",
    "request",
    "session",
    "browser_session",
    "redemption",
    "policy",
    "host_session",
    "host_seen",
    "host_report",
    "host_certificate",
];
