//! Requests: one row each, found by columns, read from `body` (`store/columns.rs`).

use std::collections::BTreeSet;

use deadpool_postgres::{GenericClient, Object};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::line::{Value, get};
use super::pool::{maybe, rows};
use super::sheet::until;
use crate::audit::entry::Entry;
use crate::identity::mac::MacKey;
use crate::name::{HostName, PersonName, RequestId};
use crate::ssh::PublicKey;
use crate::store::columns::{Columns, live};
use crate::store::numbers::{damaged, from_sql, limit_to_sql, time_to_sql};
use crate::store::{LIST_MAX, LiveCertificate, OpenRequests, Pending, RequestFilter, StoreError, Stored};
use crate::time::Timestamp;

const READING: &str = "reading requests";

/// The columns that [`stored`] reads.
macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT id, version, asker, state, asked, next_tick, body, waits, key, until FROM request ", $rest)
    };
}

/// The request that this row holds.
fn stored(row: &Row) -> Result<Stored, StoreError> {
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
    let stored = columns.stored()?;
    if until(&stored.request)? == get(row, 9)? {
        Ok(stored)
    } else {
        Err(damaged(format!("request {:?}", columns.id), "its columns and its body say different things"))
    }
}

/// Those that can be read: one damaged row must not hide the others. It is reported each time.
fn readable(rows: &[Row]) -> Vec<Stored> {
    let read = |row: &Row| {
        stored(row).inspect_err(|error| tracing::error!(%error, "a damaged request is left out of a list")).ok()
    };
    rows.iter().filter_map(read).collect()
}

/// One request.
pub(super) async fn one(client: &impl GenericClient, id: RequestId) -> Result<Option<Stored>, StoreError> {
    maybe(client, READING, select!("WHERE id = $1"), &[&id.digits()]).await?.as_ref().map(stored).transpose()
}

/// One request and the log's entries about it, on a client that shows one moment.
pub(super) async fn logged(
    client: &impl GenericClient,
    key: &MacKey,
    id: RequestId,
) -> Result<Option<(Stored, Vec<Entry>)>, StoreError> {
    let (stored, entries) = tokio::try_join!(one(client, id), super::log::entries_of(client, key, id))?;
    Ok(stored.map(|stored| (stored, entries)))
}

/// A condition for each part of a filter, with its value.
struct Conditions {
    sql: String,
    values: Vec<Box<dyn ToSql + Send + Sync>>,
}

impl Conditions {
    fn of(filter: &RequestFilter) -> Result<Self, StoreError> {
        let RequestFilter { asker, states, host, waits, since, prefix, limit } = filter;
        // A constant, not a parameter, so that the index of waiting requests can be used.
        let sql = if *waits { select!("WHERE waits") } else { select!("WHERE true") };
        let mut all = Self { sql: sql.to_owned(), values: Vec::new() };
        if let Some(asker) = asker {
            all.and(" AND asker = ", "", asker.as_str().to_owned());
        }
        if !states.is_empty() {
            let states: Vec<String> = states.iter().map(|state| (*state).to_owned()).collect();
            all.and(" AND state = ANY(", "::text[])", states);
        }
        if let Some(host) = host {
            all.and(" AND id IN (SELECT request FROM request_host WHERE host = ", ")", host.as_str().to_owned());
        }
        if let Some(since) = since {
            all.and(" AND asked >= ", "", time_to_sql(*since)?);
        }
        if let Some(prefix) = prefix {
            all.and(" AND id >= ", "", prefix.as_str().to_owned());
            // '[' comes right after 'Z', the last digit.
            all.and(" AND id < ", "", format!("{}[", prefix.as_str()));
        }
        all.and(" ORDER BY asked DESC, number DESC LIMIT ", "", limit_to_sql(*limit));
        Ok(all)
    }

    fn and(&mut self, before: &str, after: &str, value: impl ToSql + Send + Sync + 'static) {
        self.values.push(Box::new(value));
        self.sql.push_str(&format!("{before}${}{after}", self.values.len()));
    }

    fn values(&self) -> Vec<Value<'_>> {
        self.values.iter().map(|value| -> Value<'_> { value.as_ref() }).collect()
    }
}

/// Requests that match, newest first; on a client that shows one moment.
pub(super) async fn matching(client: &impl GenericClient, filter: &RequestFilter) -> Result<Vec<Stored>, StoreError> {
    let conditions = Conditions::of(filter)?;
    let values = conditions.values();
    let found = rows(client, READING, &conditions.sql, &values).await?;
    if filter.prefix.is_some() { found.iter().map(stored).collect() } else { Ok(readable(&found)) }
}

/// Requests whose time has come. A damaged one takes nobody's place.
pub(super) async fn due(client: &impl GenericClient, now: Timestamp, limit: usize) -> Result<Vec<Stored>, StoreError> {
    let limit = limit.min(LIST_MAX);
    let (now, batch) = (time_to_sql(now)?, limit_to_sql(limit));
    let (mut due, mut skip) = (Vec::new(), 0_i64);
    while due.len() < limit {
        let sql = select!("WHERE next_tick <= $1 ORDER BY next_tick, number LIMIT $2 OFFSET $3");
        let found = rows(client, READING, sql, &[&now, &batch, &skip]).await?;
        due.extend(readable(&found));
        if found.len() < limit {
            break;
        }
        skip = skip.saturating_add(batch);
    }
    due.truncate(limit);
    Ok(due)
}

/// Certificates that are not over, neither by their window nor because their request was ended.
pub(super) async fn live_certificates(
    client: &impl GenericClient,
    now: Timestamp,
) -> Result<Vec<LiveCertificate>, StoreError> {
    let sql = select!("WHERE state IN ('approved', 'issued') AND until > $1");
    let found = rows(client, READING, sql, &[&time_to_sql(now)?]).await?;
    Ok(readable(&found).iter().flat_map(|stored| live(stored, now)).collect())
}

/// Requests for this host with a certificate whose last grant is not over.
pub(super) async fn certified_for(
    client: &impl GenericClient,
    host: &HostName,
    now: Timestamp,
) -> Result<Vec<RequestId>, StoreError> {
    // A quote within a text of the body has a backslash before it, so that only a certificate looks like one.
    let sql = select!(
        "WHERE id IN (SELECT request FROM request_host WHERE host = $1)
         AND until > $2 AND strpos(body, '\"certificate\":{') > 0
         ORDER BY number"
    );
    let found = rows(client, READING, sql, &[&host.as_str(), &time_to_sql(now)?]).await?;
    Ok(readable(&found).iter().map(|stored| stored.request.id()).collect())
}

/// What these people have open: how many, and which of them hold this key.
pub(super) fn open_of(
    client: &Object,
    wanted: Vec<(PersonName, PublicKey)>,
) -> Pending<'_, Vec<Result<OpenRequests, StoreError>>> {
    // The states are constants, so that the index of open requests can be used.
    const SQL: &str = "SELECT id, version, asker, state, asked, next_tick, body, waits, key, until, place - 1,
            (SELECT count(*) FROM request WHERE asker = a AND state IN ('pending', 'approved', 'issued'))
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (a, k, place)
             LEFT JOIN request ON asker = a AND key = k AND state IN ('pending', 'approved', 'issued')";
    Box::pin(async move {
        let askers: Vec<&str> = wanted.iter().map(|(asker, _)| asker.as_str()).collect();
        let keys: Vec<String> = wanted.iter().map(|(_, key)| key.to_openssh()).collect();
        let mut open: Vec<Result<OpenRequests, StoreError>> =
            wanted.iter().map(|_| Err(damaged("a count", "there is none"))).collect();
        for row in rows(client, READING, SQL, &[&askers, &keys]).await? {
            let place = usize::try_from(get::<i64>(&row, 10)?).unwrap_or(usize::MAX);
            if let Some(open) = open.get_mut(place) {
                *open = with(open.as_ref().ok(), &row);
            }
        }
        Ok(open)
    })
}

/// What is open, with one row more. A damaged one may be this very ask: no guess.
fn with(before: Option<&OpenRequests>, row: &Row) -> Result<OpenRequests, StoreError> {
    let count = from_sql("a count", get(row, 11)?)?;
    let mut with_key = before.map(|open| open.with_key.clone()).unwrap_or_default();
    if get::<Option<&str>>(row, 0)?.is_some() {
        with_key.push(stored(row)?);
    }
    Ok(OpenRequests { count, with_key })
}

/// The hosts of these requests.
pub(super) async fn hosts_of(
    client: &impl GenericClient,
    requests: &[RequestId],
) -> Result<BTreeSet<HostName>, StoreError> {
    let ids: Vec<&str> = requests.iter().map(RequestId::digits).collect();
    let sql = "SELECT DISTINCT host FROM request_host WHERE request = ANY($1::text[])";
    let host =
        |row: &Row| HostName::parse(get(row, 0)?).map_err(|error| damaged("a request's host", error.to_string()));
    rows(client, READING, sql, &[&ids]).await?.iter().map(host).collect()
}
