//! The log in PostgreSQL: how its rows are read. What they must fulfil is said in `store/log.rs`.

use std::collections::BTreeMap;

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;

use super::line::{Line, get, hash};
use super::pool::{maybe, rows};
use crate::audit::entry::Entry;
use crate::audit::tree::{Hash, Node};
use crate::identity::mac::MacKey;
use crate::name::{PolicyVersion, RequestId};
use crate::store::log::{self, Edge, Found, HeadRow};
use crate::store::numbers::{damaged, from_sql, limit_to_sql, to_sql};
use crate::store::{Head, LIST_MAX, StoreError};

const READING: &str = "reading the log";

/// The columns that [`head_row`] reads.
macro_rules! head {
    ($rest:literal) => {
        concat!("SELECT size, frontier, at, policy, keys, seal, inventory FROM log_head WHERE one = 1", $rest)
    };
}

const NODES: &str = "SELECT level, position, hash FROM log_node JOIN unnest($1::int2[], $2::int8[]) AS wanted (l, p)
    ON level = l AND position = p";

const EDGE: &str =
    "SELECT (SELECT min(number) FROM log_entry), number, bytes FROM log_entry ORDER BY number DESC LIMIT 1";

fn head_row(row: &Row) -> Result<HeadRow, StoreError> {
    Ok(HeadRow {
        size: get(row, 0)?,
        frontier: get(row, 1)?,
        at: get(row, 2)?,
        policy: get(row, 3)?,
        keys: get(row, 4)?,
        seal: get(row, 5)?,
        inventory: get(row, 6)?,
    })
}

/// What [`lock_head`] sends.
pub(super) const LOCK: &str = head!(" FOR UPDATE");

/// Locks the head until the transaction ends, and reads it.
pub(super) async fn lock_head(line: &Line, key: &MacKey) -> Result<Head, StoreError> {
    let found = line.query("locking the log's head", LOCK, &[]).await?;
    head_row(found.first().ok_or_else(log::no_head)?)?.head(key)
}

/// The head.
pub(super) async fn head(client: &impl GenericClient, key: &MacKey) -> Result<Head, StoreError> {
    let row = maybe(client, READING, head!(""), &[]).await?;
    head_row(&row.ok_or_else(log::no_head)?)?.head(key)
}

/// Levels and positions as they are kept. What we never keep is nowhere.
fn places(wanted: &[Node]) -> (Vec<i16>, Vec<i64>) {
    let place = |node: &Node| Some((i16::from(node.level), i64::try_from(node.position).ok()?));
    wanted.iter().filter_map(place).unzip()
}

fn node(row: &Row) -> Result<(Node, Hash), StoreError> {
    let (level, position): (i16, i64) = (get(row, 0)?, get(row, 1)?);
    let level = u8::try_from(level).map_err(|error| damaged("a tree node", error.to_string()))?;
    Ok((Node { level, position: from_sql("a tree node", position)? }, hash(row, 2)?))
}

/// Tree nodes, on the writer's connection.
pub(super) async fn nodes_on(line: &Line, wanted: &[Node]) -> Result<BTreeMap<Node, Hash>, StoreError> {
    let (levels, positions) = places(wanted);
    line.query(READING, NODES, &[&levels, &positions]).await?.iter().map(node).collect()
}

/// Tree nodes.
pub(super) async fn nodes(client: &impl GenericClient, wanted: &[Node]) -> Result<BTreeMap<Node, Hash>, StoreError> {
    let (levels, positions) = places(wanted);
    rows(client, READING, NODES, &[&levels, &positions]).await?.iter().map(node).collect()
}

/// Checks that entries and tree nodes agree with the head, which is locked.
pub(super) async fn check(line: &Line, head: &Head) -> Result<(), StoreError> {
    let found = line.query(READING, EDGE, &[]).await?;
    let (first, last, bytes) = match found.first() {
        Some(row) => (get(row, 0)?, Some(get(row, 1)?), get(row, 2)?),
        None => (None, None, Vec::new()),
    };
    let nodes = nodes_on(line, &log::edge_nodes(head)).await?;
    log::check_edge(head, &Edge { first, last, bytes, nodes })
}

/// Locks the head, and checks that entries and tree nodes agree with it.
pub(super) async fn check_locked(line: &Line, key: &MacKey) -> Result<Head, StoreError> {
    let head = lock_head(line, key).await?;
    check(line, &head).await?;
    Ok(head)
}

fn found(row: &Row) -> Result<Found, StoreError> {
    Ok((get(row, 0)?, get(row, 1)?))
}

fn all(rows: &[Row]) -> Result<Vec<Found>, StoreError> {
    rows.iter().map(found).collect()
}

/// Canonical bytes from `from` on.
pub(super) async fn entries(client: &impl GenericClient, from: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
    let Ok(first) = i64::try_from(from) else { return Ok(Vec::new()) };
    let sql = "SELECT number, bytes FROM log_entry WHERE number >= $1 ORDER BY number LIMIT $2";
    log::gapless(first, all(&rows(client, READING, sql, &[&first, &limit_to_sql(limit)]).await?)?)
}

/// Entries about one request.
pub(super) async fn entries_of(
    client: &impl GenericClient,
    key: &MacKey,
    request: RequestId,
) -> Result<Vec<Entry>, StoreError> {
    let sql = "SELECT number, bytes FROM log_entry WHERE request = $1 ORDER BY number";
    let digits = request.digits();
    let (rows, head) = tokio::try_join!(async { rows(client, READING, sql, &[&digits]).await }, head(client, key))?;
    proven(client, &head, &all(&rows)?).await
}

/// The entry with which this policy version was applied. Few entries are of this kind, and they have their own index.
pub(super) async fn policy_entry(
    client: &impl GenericClient,
    key: &MacKey,
    version: PolicyVersion,
) -> Result<Option<Entry>, StoreError> {
    let sql = "SELECT number, bytes FROM log_entry WHERE kind = 'policy_applied' ORDER BY number DESC";
    for row in all(&rows(client, READING, sql, &[]).await?)? {
        if log::applies(&row, version)? {
            return Ok(proven(client, &head(client, key).await?, &[row]).await?.pop());
        }
    }
    Ok(None)
}

/// The entries that the inventory is made of, without the first `from`, which are before `next`.
pub(super) async fn inventory(
    client: &impl GenericClient,
    key: &MacKey,
    from: u64,
    next: u64,
) -> Result<Vec<Entry>, StoreError> {
    let head = head(client, key).await?;
    // The kinds are constants, so that their index can be used.
    let sql = "SELECT number, bytes FROM log_entry WHERE kind IN ('join_created', 'join_revoked', 'host_enrolled',
               'host_refused', 'host_tagged', 'host_moved', 'host_retired', 'host_left') AND number >= $1 ORDER BY number LIMIT $2";
    let rows = all(&rows(client, READING, sql, &[&to_sql(next)?, &limit_to_sql(LIST_MAX)]).await?)?;
    log::check_inventory(&head, &rows, from, next)?;
    log::of_inventory(proven(client, &head, &rows).await?)
}

/// The newest entry that says which CA keys there are: the head names it.
pub(super) async fn keys_entry(client: &impl GenericClient, key: &MacKey) -> Result<Option<Entry>, StoreError> {
    let head = head(client, key).await?;
    let Some(index) = head.keys else { return Ok(None) };
    let row =
        maybe(client, READING, "SELECT number, bytes FROM log_entry WHERE number = $1", &[&to_sql(index)?]).await?;
    let row = found(&row.ok_or_else(|| damaged(format!("log entry {index}"), "it is missing"))?)?;
    Ok(proven(client, &head, &[row]).await?.pop())
}

/// These entries, if the tree under the sealed head has each of them at its number.
async fn proven(client: &impl GenericClient, head: &Head, rows: &[Found]) -> Result<Vec<Entry>, StoreError> {
    let stored = nodes(client, &log::proving_nodes(head, rows)?).await?;
    log::proven(head, rows, &stored)
}
