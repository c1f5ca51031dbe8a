//! A sheet written down: one statement for all rows of a kind, in an order in which they can be sent at once.
//!
//! A statement that may meet other rows than were read under the lock counts them, and divides by whether there are as many as there should be:
//! the server then refuses it, and with it the commit behind it.

use std::collections::BTreeSet;

use tokio_postgres::types::ToSql;

use super::known::Known;
use super::line::Write;
use super::sheet::{Sheet, Written};
use crate::identity::browser::BrowserSession;
use crate::identity::host::HostSession;
use crate::identity::session::{Session, TokenHash};
use crate::name::RequestId;
use crate::store::log::HeadRow;
use crate::store::numbers::{time_to_sql, to_sql};
use crate::store::sweep::{Ends, SWEEP_MAX};
use crate::store::{StoreError, StoredPolicy};

type Values<'s> = Vec<Box<dyn ToSql + Send + Sync + 's>>;

/// What writes everything, the head among it.
pub(super) fn writes<'s>(known: &'s Known, sheet: &'s Sheet, head: &'s HeadRow) -> Result<Vec<Write<'s>>, StoreError> {
    let mut all = Vec::new();
    requests(known, sheet, &mut all);
    hosts(known, sheet, &mut all);
    log(sheet, head, &mut all)?;
    certificates(sheet, &mut all);
    sessions(sheet, &mut all)?;
    browser_sessions(sheet, &mut all)?;
    redemptions(sheet, &mut all);
    policies(&sheet.policies, &mut all)?;
    host_sessions(sheet, &mut all)?;
    reports(sheet, &mut all);
    host_certificates(sheet, &mut all);
    seen(sheet, &mut all);
    sweep(sheet, &mut all)?;
    Ok(all)
}

/// One column of these rows.
fn column<'s, R, C: ToSql + Send + Sync + 's>(
    rows: impl IntoIterator<Item = R>,
    of: impl FnMut(R) -> C,
) -> Box<dyn ToSql + Send + Sync + 's> {
    Box::new(rows.into_iter().map(of).collect::<Vec<C>>())
}

/// A column of what may not fit the database's numbers.
fn numbers<'s, R>(
    rows: impl IntoIterator<Item = R>,
    of: impl FnMut(R) -> Result<i64, StoreError>,
) -> Result<Box<dyn ToSql + Send + Sync + 's>, StoreError> {
    Ok(Box::new(rows.into_iter().map(of).collect::<Result<Vec<i64>, StoreError>>()?))
}

/// How many rows there should be.
fn count(rows: usize) -> Box<dyn ToSql + Send + Sync> {
    Box::new(i64::try_from(rows).unwrap_or(i64::MAX))
}

fn requests<'s>(known: &Known, sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    let new: Vec<&Written> = sheet.asked.iter().filter_map(|id| sheet.requests.get(id)).collect();
    if !new.is_empty() {
        let sql = "INSERT INTO request (id, version, asker, state, asked, next_tick, body, waits, key, until)
             SELECT id, version, asker, state, asked, next_tick, body, waits, key, until
             FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
                         $9::text[], $10::int8[])
                  WITH ORDINALITY AS new (id, version, asker, state, asked, next_tick, body, waits, key, until, place)
             ORDER BY place";
        all.push(Write { sql, values: request_columns(&new) });
    }
    let changed = sheet.requests.iter().filter_map(|(id, row)| Some((row, known.requests.get(id)?.version)));
    let (rows, read): (Vec<&Written>, Vec<i64>) = changed.unzip();
    if !rows.is_empty() {
        let sql = "WITH done AS (
                UPDATE request SET version = new.version, asker = new.asker, state = new.state, asked = new.asked,
                    next_tick = new.next_tick, body = new.body, waits = new.waits, key = new.key, until = new.until
                FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
                            $9::text[], $10::int8[], $11::int8[])
                     AS new (id, version, asker, state, asked, next_tick, body, waits, key, until, read)
                WHERE request.id = new.id AND request.version = new.read RETURNING 1)
             SELECT 1 / (count(*) = $12)::int4 FROM done";
        let mut values = request_columns(&rows);
        values.extend([column(read, |version| version), count(rows.len())]);
        all.push(Write { sql, values });
    }
}

fn request_columns<'s>(rows: &[&'s Written]) -> Values<'s> {
    let rows = || rows.iter().copied();
    vec![
        column(rows(), |row| row.columns.id.as_str()),
        column(rows(), |row| row.columns.version),
        column(rows(), |row| row.columns.asker.as_str()),
        column(rows(), |row| row.columns.state.as_str()),
        column(rows(), |row| row.columns.asked),
        column(rows(), |row| row.columns.next_tick),
        column(rows(), |row| row.columns.body.as_str()),
        column(rows(), |row| row.columns.waits),
        column(rows(), |row| row.columns.key.as_str()),
        column(rows(), |row| row.until),
    ]
}

/// Keeps the list that finds requests by host; narrowing takes hosts away.
fn hosts<'s>(known: &'s Known, sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    static NONE: BTreeSet<String> = BTreeSet::new();
    let (mut gone, mut new) = (Vec::new(), Vec::new());
    for (id, row) in &sheet.requests {
        let listed = known.requests.get(id).map_or(&NONE, |known| &known.hosts);
        gone.extend(listed.difference(&row.hosts).map(|host| (host.as_str(), id.as_str())));
        new.extend(row.hosts.difference(listed).map(|host| (host.as_str(), id.as_str())));
    }
    let delete =
        "DELETE FROM request_host USING unnest($1::text[], $2::text[]) AS gone (h, r) WHERE host = h AND request = r";
    let insert = "INSERT INTO request_host (host, request) SELECT * FROM unnest($1::text[], $2::text[])";
    for (sql, rows) in [(delete, gone), (insert, new)] {
        if !rows.is_empty() {
            let values: Values<'s> = vec![column(&rows, |(host, _)| *host), column(&rows, |(_, request)| *request)];
            all.push(Write { sql, values });
        }
    }
}

/// Entries, the tree nodes that they complete, and the head, of which there is one.
fn log<'s>(sheet: &'s Sheet, head: &'s HeadRow, all: &mut Vec<Write<'s>>) -> Result<(), StoreError> {
    let (entries, nodes) = (&sheet.entries, &sheet.nodes);
    if entries.is_empty() && nodes.is_empty() && !sheet.probed {
        return Ok(());
    }
    let sql = "WITH entry AS (
            INSERT INTO log_entry (number, at, kind, request, bytes)
            SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::bytea[])),
        node AS (
            INSERT INTO log_node (level, position, hash) SELECT * FROM unnest($6::int2[], $7::int8[], $8::bytea[])),
        head AS (
            UPDATE log_head SET size = $9, frontier = $10, at = $11, policy = $12, keys = $13, seal = $14, inventory = $15,
                   probe = probe + 1 WHERE one = 1 RETURNING 1)
        SELECT 1 / (count(*) = 1)::int4 FROM head";
    let HeadRow { size, frontier, at, policy, keys, seal, inventory } = head;
    let values: Values<'s> = vec![
        column(entries, |row| row.number),
        column(entries, |row| row.at),
        column(entries, |row| row.kind),
        column(entries, |row| row.request.as_ref().map(RequestId::digits)),
        column(entries, |row| row.bytes.as_slice()),
        column(nodes, |(node, _)| i16::from(node.level)),
        numbers(nodes, |(node, _)| to_sql(node.position))?,
        column(nodes, |(_, hash)| hash.as_slice()),
        Box::new(size),
        Box::new(frontier.as_slice()),
        Box::new(at),
        Box::new(policy),
        Box::new(keys),
        Box::new(seal.as_slice()),
        Box::new(inventory),
    ];
    all.push(Write { sql, values });
    Ok(())
}

fn certificates<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    let new = &sheet.certificates;
    if !new.is_empty() {
        let sql = "INSERT INTO certificate (serial, request, signed)
                   SELECT * FROM unnest($1::int8[], $2::text[], $3::bool[])";
        let values: Values<'s> = vec![
            column(new.keys(), |serial| *serial),
            column(new.values(), String::as_str),
            column(new.keys(), |serial| sheet.signed.contains(serial)),
        ];
        all.push(Write { sql, values });
    }
    let before: Vec<i64> = sheet.signed.iter().copied().filter(|serial| !new.contains_key(serial)).collect();
    if !before.is_empty() {
        let sql = "WITH done AS (
                UPDATE certificate SET signed = true WHERE serial = ANY($1::int8[]) AND NOT signed RETURNING 1)
             SELECT 1 / (count(*) = $2)::int4 FROM done";
        let rows = count(before.len());
        all.push(Write { sql, values: vec![Box::new(before), rows] });
    }
}

/// The tokens of what ends.
fn over<S>(sessions: &std::collections::BTreeMap<TokenHash, Option<S>>) -> Vec<&[u8]> {
    let over = sessions.iter().filter(|(_, session)| session.is_none());
    over.map(|(token, _)| token.0.as_slice()).collect()
}

fn sessions<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) -> Result<(), StoreError> {
    if sheet.all_ended {
        all.push(Write { sql: "DELETE FROM session", values: Vec::new() });
    }
    if !sheet.ended.is_empty() {
        let values: Values<'s> = vec![column(&sheet.ended, String::as_str)];
        all.push(Write { sql: "DELETE FROM session WHERE person = ANY($1::text[])", values });
    }
    if !sheet.ended_by.is_empty() {
        let sql =
            "DELETE FROM session USING unnest($1::text[], $2::text[]) AS ended (p, k) WHERE person = p AND key = k";
        let values: Values<'s> = vec![
            column(&sheet.ended_by, |(person, _)| person.as_str()),
            column(&sheet.ended_by, |(_, key)| key.as_str()),
        ];
        all.push(Write { sql, values });
    }
    let over = over(&sheet.sessions);
    if !over.is_empty() {
        all.push(Write { sql: "DELETE FROM session WHERE token = ANY($1::bytea[])", values: vec![Box::new(over)] });
    }
    let new: Vec<&Session> = sheet.sessions.values().flatten().collect();
    if new.is_empty() {
        return Ok(());
    }
    let rows = || new.iter().copied();
    let sql = "INSERT INTO session (token, person, key, opened, expires, seal)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::bytea[])";
    let values: Values<'s> = vec![
        column(rows(), |session| session.token.0.as_slice()),
        column(rows(), |session| session.person.as_str()),
        column(rows(), |session| session.key.to_string()),
        numbers(rows(), |session| time_to_sql(session.opened))?,
        numbers(rows(), |session| time_to_sql(session.expires))?,
        column(rows(), |session| session.seal.as_slice()),
    ];
    all.push(Write { sql, values });
    Ok(())
}

/// After the others: a browser's session needs its parent's row.
fn browser_sessions<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) -> Result<(), StoreError> {
    let over = over(&sheet.browser_sessions);
    if !over.is_empty() {
        let sql = "DELETE FROM browser_session WHERE token = ANY($1::bytea[])";
        all.push(Write { sql, values: vec![Box::new(over)] });
    }
    let new: Vec<&BrowserSession> = sheet.browser_sessions.values().flatten().collect();
    if new.is_empty() {
        return Ok(());
    }
    let rows = || new.iter().copied();
    let sql = "INSERT INTO browser_session (token, parent, opened, expires, seal)
               SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int8[], $4::int8[], $5::bytea[])";
    let values: Values<'s> = vec![
        column(rows(), |session| session.token.0.as_slice()),
        column(rows(), |session| session.parent.0.as_slice()),
        numbers(rows(), |session| time_to_sql(session.opened))?,
        numbers(rows(), |session| time_to_sql(session.expires))?,
        column(rows(), |session| session.seal.as_slice()),
    ];
    all.push(Write { sql, values });
    Ok(())
}

fn redemptions<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    let used = &sheet.redemptions;
    if !used.is_empty() {
        let sql = "INSERT INTO redemption (nonce, expires) SELECT * FROM unnest($1::bytea[], $2::int8[])";
        let values: Values<'s> = vec![column(used.keys(), Vec::as_slice), column(used.values(), |expires| *expires)];
        all.push(Write { sql, values });
    }
}

fn policies<'s>(policies: &'s [StoredPolicy], all: &mut Vec<Write<'s>>) -> Result<(), StoreError> {
    for StoredPolicy { version, text, by, at } in policies {
        let sql = "INSERT INTO policy (version, text, applied_by, at) VALUES ($1, $2, $3, $4)";
        let values: Values<'s> = vec![
            Box::new(i64::from(version.0)),
            Box::new(text.as_str()),
            Box::new(by.as_str()),
            Box::new(time_to_sql(*at)?),
        ];
        all.push(Write { sql, values });
    }
    Ok(())
}

fn host_sessions<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) -> Result<(), StoreError> {
    let new = &sheet.host_sessions;
    if new.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO host_session (token, host, key, opened, seal)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int8[], $5::bytea[])";
    let values: Values<'s> = vec![
        column(new.keys(), Vec::as_slice),
        column(new.values(), |session: &HostSession| session.host.as_str()),
        column(new.values(), |session: &HostSession| session.key.to_string()),
        numbers(new.values(), |session: &HostSession| time_to_sql(session.opened))?,
        column(new.values(), |session: &HostSession| session.seal.as_slice()),
    ];
    all.push(Write { sql, values });
    Ok(())
}

fn reports<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    let new = &sheet.reports;
    if !new.is_empty() {
        let sql = "INSERT INTO host_report (host, report, at) SELECT * FROM unnest($1::text[], $2::text[], $3::int8[])";
        let values: Values<'s> = vec![
            column(new.keys(), |(host, _)| host.as_str()),
            column(new.keys(), |(_, report)| report.as_str()),
            column(new.values(), |at| *at),
        ];
        all.push(Write { sql, values });
    }
}

fn host_certificates<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    let newest = &sheet.host_certificates;
    if !newest.is_empty() {
        let sql =
            "INSERT INTO host_certificate (host, key, line) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
                   ON CONFLICT (host, key) DO UPDATE SET line = excluded.line";
        let values: Values<'s> = vec![
            column(newest.keys(), |(host, _)| host.as_str()),
            column(newest.keys(), |(_, key)| key.as_str()),
            column(newest.values(), String::as_str),
        ];
        all.push(Write { sql, values });
    }
}

fn seen<'s>(sheet: &'s Sheet, all: &mut Vec<Write<'s>>) {
    let told = &sheet.seen;
    if !told.is_empty() {
        let sql = "INSERT INTO host_seen (host, at, body, change)
                   SELECT h, a, b, nextval('host_seen_change') FROM unnest($1::text[], $2::int8[], $3::text[]) AS told (h, a, b)
                   ON CONFLICT (host) DO UPDATE SET at = excluded.at, body = excluded.body, change = excluded.change";
        let values: Values<'s> = vec![
            column(told.keys(), String::as_str),
            column(told.values(), |(at, _)| *at),
            column(told.values(), |(_, body)| body.as_str()),
        ];
        all.push(Write { sql, values });
    }
}

/// Deletes what is over, after everything else.
fn sweep<'s>(sheet: &Sheet, all: &mut Vec<Write<'s>>) -> Result<(), StoreError> {
    let Some(now) = sheet.swept else { return Ok(()) };
    let Ends { sessions, host_sessions, reports } = Ends::at(now)?;
    for (sql, end) in [
        ("DELETE FROM session WHERE token IN (SELECT token FROM session WHERE expires <= $1 LIMIT $2)", sessions),
        (
            "DELETE FROM browser_session WHERE token IN
             (SELECT token FROM browser_session WHERE expires <= $1 LIMIT $2)",
            sessions,
        ),
        ("DELETE FROM redemption WHERE nonce IN (SELECT nonce FROM redemption WHERE expires <= $1 LIMIT $2)", sessions),
        (
            "DELETE FROM host_session WHERE token IN (SELECT token FROM host_session WHERE opened <= $1 LIMIT $2)",
            host_sessions,
        ),
        (
            "DELETE FROM host_report WHERE (host, report) IN
             (SELECT host, report FROM host_report WHERE at <= $1 LIMIT $2)",
            reports,
        ),
    ] {
        all.push(Write { sql, values: vec![Box::new(end), Box::new(SWEEP_MAX)] });
    }
    // Nodes that have not committed for a day don't ask any more what became of a commit.
    let sql = "DELETE FROM writer WHERE at < now() - interval '1 day'";
    all.push(Write { sql, values: Vec::new() });
    Ok(())
}
