//! A sheet written down: one statement for all rows of a kind, all sent at once.

use std::collections::BTreeSet;

use super::known::Known;
use super::line::{Line, Value};
use super::sheet::{Sheet, Written};
use crate::audit::tree::{Hash, Node};
use crate::identity::browser::BrowserSession;
use crate::identity::session::Session;
use crate::name::RequestId;
use crate::store::log::HeadRow;
use crate::store::numbers::{time_to_sql, to_sql};
use crate::store::sweep::{Ends, SWEEP_MAX};
use crate::store::{StoreError, StoredPolicy};

const WRITING: &str = "writing a group of changes";

/// Writes everything, the head among it.
pub(super) async fn write(line: &Line, known: &Known, sheet: &Sheet, head: &HeadRow) -> Result<(), StoreError> {
    tokio::try_join!(
        biased;
        new_requests(line, sheet),
        requests(line, known, sheet),
        hosts(line, known, sheet),
        entries(line, sheet),
        nodes(line, &sheet.nodes),
        certificates(line, sheet),
        sessions_and_browsers(line, sheet),
        redemptions(line, sheet),
        policies(line, &sheet.policies),
        host_sessions(line, sheet),
        reports(line, sheet),
        host_certificates(line, sheet),
        seen(line, sheet),
        save_head(line, sheet, head),
    )?;
    sweep(line, sheet).await
}

/// Refuses a group whose statement met other rows than were read under the lock.
fn all(wanted: usize, done: u64) -> Result<(), StoreError> {
    if u64::try_from(wanted).is_ok_and(|wanted| wanted == done) {
        return Ok(());
    }
    let why = format!("{done} rows of {wanted} are as they were read; somebody writes this database past the service");
    Err(StoreError::Failed { doing: WRITING, why })
}

async fn new_requests(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    let rows: Vec<&Written> = sheet.asked.iter().filter_map(|id| sheet.requests.get(id)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO request (id, version, asker, state, asked, next_tick, body, waits, key, until)
         SELECT id, version, asker, state, asked, next_tick, body, waits, key, until
         FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
                     $9::text[], $10::int8[])
              WITH ORDINALITY AS new (id, version, asker, state, asked, next_tick, body, waits, key, until, place)
         ORDER BY place";
    all(rows.len(), write_requests(line, sql, &rows, None).await?)
}

async fn requests(line: &Line, known: &Known, sheet: &Sheet) -> Result<(), StoreError> {
    let changed = sheet.requests.iter().filter_map(|(id, row)| Some((row, known.requests.get(id)?.version)));
    let (rows, read): (Vec<&Written>, Vec<i64>) = changed.unzip();
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE request SET version = new.version, asker = new.asker, state = new.state, asked = new.asked,
                next_tick = new.next_tick, body = new.body, waits = new.waits, key = new.key, until = new.until
         FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::text[], $8::bool[],
                     $9::text[], $10::int8[], $11::int8[])
              AS new (id, version, asker, state, asked, next_tick, body, waits, key, until, read)
         WHERE request.id = new.id AND request.version = new.read";
    all(rows.len(), write_requests(line, sql, &rows, Some(&read)).await?)
}

async fn write_requests(
    line: &Line,
    sql: &'static str,
    rows: &[&Written],
    read: Option<&Vec<i64>>,
) -> Result<u64, StoreError> {
    let text = |column: fn(&Written) -> &str| rows.iter().map(|row| column(row)).collect::<Vec<&str>>();
    let number = |column: fn(&Written) -> i64| rows.iter().map(|row| column(row)).collect::<Vec<i64>>();
    let maybe = |column: fn(&Written) -> Option<i64>| rows.iter().map(|row| column(row)).collect::<Vec<_>>();
    let waits: Vec<bool> = rows.iter().map(|row| row.columns.waits).collect();
    let (ids, versions, askers) =
        (text(|row| &row.columns.id), number(|row| row.columns.version), text(|row| &row.columns.asker));
    let (states, asked, ticks) =
        (text(|row| &row.columns.state), number(|row| row.columns.asked), maybe(|row| row.columns.next_tick));
    let (bodies, keys, until) = (text(|row| &row.columns.body), text(|row| &row.columns.key), maybe(|row| row.until));
    let mut values: Vec<Value<'_>> =
        vec![&ids, &versions, &askers, &states, &asked, &ticks, &bodies, &waits, &keys, &until];
    if let Some(read) = read {
        values.push(read);
    }
    line.execute(WRITING, sql, &values).await
}

/// Keeps the list that finds requests by host; narrowing takes hosts away.
async fn hosts(line: &Line, known: &Known, sheet: &Sheet) -> Result<(), StoreError> {
    let none = BTreeSet::new();
    let (mut gone, mut new) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for (id, row) in &sheet.requests {
        let listed = known.requests.get(id).map_or(&none, |known| &known.hosts);
        for host in listed.difference(&row.hosts) {
            gone.0.push(host.as_str());
            gone.1.push(id.as_str());
        }
        for host in row.hosts.difference(listed) {
            new.0.push(host.as_str());
            new.1.push(id.as_str());
        }
    }
    if !gone.0.is_empty() {
        let sql = "DELETE FROM request_host USING unnest($1::text[], $2::text[]) AS gone (h, r)
                   WHERE host = h AND request = r";
        line.execute(WRITING, sql, &[&gone.0, &gone.1]).await?;
    }
    if !new.0.is_empty() {
        let sql = "INSERT INTO request_host (host, request) SELECT * FROM unnest($1::text[], $2::text[])";
        line.execute(WRITING, sql, &[&new.0, &new.1]).await?;
    }
    Ok(())
}

async fn entries(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    let rows = &sheet.entries;
    if rows.is_empty() {
        return Ok(());
    }
    let numbers: Vec<i64> = rows.iter().map(|row| row.number).collect();
    let times: Vec<i64> = rows.iter().map(|row| row.at).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.kind).collect();
    let requests: Vec<Option<&str>> = rows.iter().map(|row| row.request.as_ref().map(RequestId::digits)).collect();
    let bytes: Vec<&[u8]> = rows.iter().map(|row| row.bytes.as_slice()).collect();
    let sql = "INSERT INTO log_entry (number, at, kind, request, bytes)
               SELECT * FROM unnest($1::int8[], $2::int8[], $3::text[], $4::text[], $5::bytea[])";
    line.execute(WRITING, sql, &[&numbers, &times, &kinds, &requests, &bytes]).await.map(drop)
}

async fn nodes(line: &Line, nodes: &[(Node, Hash)]) -> Result<(), StoreError> {
    if nodes.is_empty() {
        return Ok(());
    }
    let levels: Vec<i16> = nodes.iter().map(|(node, _)| i16::from(node.level)).collect();
    let positions: Vec<i64> = nodes.iter().map(|(node, _)| to_sql(node.position)).collect::<Result<_, _>>()?;
    let hashes: Vec<&[u8]> = nodes.iter().map(|(_, hash)| hash.as_slice()).collect();
    let sql = "INSERT INTO log_node (level, position, hash) SELECT * FROM unnest($1::int2[], $2::int8[], $3::bytea[])";
    line.execute(WRITING, sql, &[&levels, &positions, &hashes]).await.map(drop)
}

async fn certificates(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    if !sheet.certificates.is_empty() {
        let serials: Vec<i64> = sheet.certificates.keys().copied().collect();
        let whose: Vec<&str> = sheet.certificates.values().map(String::as_str).collect();
        let signed: Vec<bool> = serials.iter().map(|serial| sheet.signed.contains(serial)).collect();
        let sql = "INSERT INTO certificate (serial, request, signed)
                   SELECT * FROM unnest($1::int8[], $2::text[], $3::bool[])";
        line.execute(WRITING, sql, &[&serials, &whose, &signed]).await?;
    }
    let before = sheet.signed.iter().copied().filter(|serial| !sheet.certificates.contains_key(serial));
    let before: Vec<i64> = before.collect();
    if before.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE certificate SET signed = true WHERE serial = ANY($1::int8[]) AND NOT signed";
    all(before.len(), line.execute(WRITING, sql, &[&before]).await?)
}

async fn sessions(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    if sheet.all_ended {
        line.execute(WRITING, "DELETE FROM session", &[]).await?;
    }
    if !sheet.ended.is_empty() {
        let people: Vec<&str> = sheet.ended.iter().map(String::as_str).collect();
        line.execute(WRITING, "DELETE FROM session WHERE person = ANY($1::text[])", &[&people]).await?;
    }
    let over = sheet.sessions.iter().filter(|(_, session)| session.is_none());
    let over: Vec<&[u8]> = over.map(|(token, _)| token.0.as_slice()).collect();
    if !over.is_empty() {
        line.execute(WRITING, "DELETE FROM session WHERE token = ANY($1::bytea[])", &[&over]).await?;
    }
    let new: Vec<&Session> = sheet.sessions.values().flatten().collect();
    if new.is_empty() {
        return Ok(());
    }
    let tokens: Vec<&[u8]> = new.iter().map(|session| session.token.0.as_slice()).collect();
    let people: Vec<&str> = new.iter().map(|session| session.person.as_str()).collect();
    let keys: Vec<String> = new.iter().map(|session| session.key.to_string()).collect();
    let opened: Vec<i64> = new.iter().map(|session| time_to_sql(session.opened)).collect::<Result<_, _>>()?;
    let expires: Vec<i64> = new.iter().map(|session| time_to_sql(session.expires)).collect::<Result<_, _>>()?;
    let seals: Vec<&[u8]> = new.iter().map(|session| session.seal.as_slice()).collect();
    let sql = "INSERT INTO session (token, person, key, opened, expires, seal)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::bytea[])";
    line.execute(WRITING, sql, &[&tokens, &people, &keys, &opened, &expires, &seals]).await.map(drop)
}

/// A browser's session needs its parent's row.
async fn sessions_and_browsers(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    sessions(line, sheet).await?;
    let over = sheet.browser_sessions.iter().filter(|(_, session)| session.is_none());
    let over: Vec<&[u8]> = over.map(|(token, _)| token.0.as_slice()).collect();
    if !over.is_empty() {
        line.execute(WRITING, "DELETE FROM browser_session WHERE token = ANY($1::bytea[])", &[&over]).await?;
    }
    let new: Vec<&BrowserSession> = sheet.browser_sessions.values().flatten().collect();
    if new.is_empty() {
        return Ok(());
    }
    let tokens: Vec<&[u8]> = new.iter().map(|session| session.token.0.as_slice()).collect();
    let parents: Vec<&[u8]> = new.iter().map(|session| session.parent.0.as_slice()).collect();
    let opened: Vec<i64> = new.iter().map(|session| time_to_sql(session.opened)).collect::<Result<_, _>>()?;
    let expires: Vec<i64> = new.iter().map(|session| time_to_sql(session.expires)).collect::<Result<_, _>>()?;
    let seals: Vec<&[u8]> = new.iter().map(|session| session.seal.as_slice()).collect();
    let sql = "INSERT INTO browser_session (token, parent, opened, expires, seal)
               SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::int8[], $4::int8[], $5::bytea[])";
    line.execute(WRITING, sql, &[&tokens, &parents, &opened, &expires, &seals]).await.map(drop)
}

async fn redemptions(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    if sheet.redemptions.is_empty() {
        return Ok(());
    }
    let nonces: Vec<&[u8]> = sheet.redemptions.keys().map(Vec::as_slice).collect();
    let expires: Vec<i64> = sheet.redemptions.values().copied().collect();
    let sql = "INSERT INTO redemption (nonce, expires) SELECT * FROM unnest($1::bytea[], $2::int8[])";
    line.execute(WRITING, sql, &[&nonces, &expires]).await.map(drop)
}

async fn policies(line: &Line, policies: &[StoredPolicy]) -> Result<(), StoreError> {
    for StoredPolicy { version, text, by, at } in policies {
        let sql = "INSERT INTO policy (version, text, applied_by, at) VALUES ($1, $2, $3, $4)";
        line.execute(WRITING, sql, &[&i64::from(version.0), text, by, &time_to_sql(*at)?]).await?;
    }
    Ok(())
}

async fn host_sessions(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    let new = &sheet.host_sessions;
    if new.is_empty() {
        return Ok(());
    }
    let tokens: Vec<&[u8]> = new.keys().map(Vec::as_slice).collect();
    let hosts: Vec<&str> = new.values().map(|session| session.host.as_str()).collect();
    let keys: Vec<String> = new.values().map(|session| session.key.to_string()).collect();
    let opened: Vec<i64> = new.values().map(|session| time_to_sql(session.opened)).collect::<Result<_, _>>()?;
    let seals: Vec<&[u8]> = new.values().map(|session| session.seal.as_slice()).collect();
    let sql = "INSERT INTO host_session (token, host, key, opened, seal)
               SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int8[], $5::bytea[])";
    line.execute(WRITING, sql, &[&tokens, &hosts, &keys, &opened, &seals]).await.map(drop)
}

async fn reports(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    if sheet.reports.is_empty() {
        return Ok(());
    }
    let (hosts, reports): (Vec<&str>, Vec<&str>) =
        sheet.reports.keys().map(|(host, report)| (host.as_str(), report.as_str())).unzip();
    let times: Vec<i64> = sheet.reports.values().copied().collect();
    let sql = "INSERT INTO host_report (host, report, at) SELECT * FROM unnest($1::text[], $2::text[], $3::int8[])";
    line.execute(WRITING, sql, &[&hosts, &reports, &times]).await.map(drop)
}

async fn host_certificates(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    if sheet.host_certificates.is_empty() {
        return Ok(());
    }
    let (hosts, keys): (Vec<&str>, Vec<&str>) =
        sheet.host_certificates.keys().map(|(host, key)| (host.as_str(), key.as_str())).unzip();
    let lines: Vec<&str> = sheet.host_certificates.values().map(String::as_str).collect();
    let sql = "INSERT INTO host_certificate (host, key, line) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
               ON CONFLICT (host, key) DO UPDATE SET line = excluded.line";
    line.execute(WRITING, sql, &[&hosts, &keys, &lines]).await.map(drop)
}

async fn seen(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
    if sheet.seen.is_empty() {
        return Ok(());
    }
    let hosts: Vec<&str> = sheet.seen.keys().map(String::as_str).collect();
    let times: Vec<i64> = sheet.seen.values().map(|(at, _)| *at).collect();
    let bodies: Vec<&str> = sheet.seen.values().map(|(_, body)| body.as_str()).collect();
    let sql = "INSERT INTO host_seen (host, at, body, change)
               SELECT h, a, b, nextval('host_seen_change') FROM unnest($1::text[], $2::int8[], $3::text[]) AS told (h, a, b)
               ON CONFLICT (host) DO UPDATE SET at = excluded.at, body = excluded.body, change = excluded.change";
    line.execute(WRITING, sql, &[&hosts, &times, &bodies]).await.map(drop)
}

async fn save_head(line: &Line, sheet: &Sheet, head: &HeadRow) -> Result<(), StoreError> {
    if sheet.entries.is_empty() && !sheet.probed {
        return Ok(());
    }
    let HeadRow { size, frontier, at, policy, keys, seal, inventory } = head;
    let sql =
        "UPDATE log_head SET size = $1, frontier = $2, at = $3, policy = $4, keys = $5, seal = $6, inventory = $7,
               probe = probe + 1 WHERE one = 1";
    let values: [Value<'_>; 7] = [size, frontier, at, policy, keys, seal, inventory];
    all(1, line.execute(WRITING, sql, &values).await?)
}

/// Deletes what is over, after everything else.
async fn sweep(line: &Line, sheet: &Sheet) -> Result<(), StoreError> {
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
        line.execute(WRITING, sql, &[&end, &SWEEP_MAX]).await?;
    }
    // Nodes that have not committed for a day don't ask any more what became of a commit.
    line.execute(WRITING, "DELETE FROM writer WHERE at < now() - interval '1 day'", &[]).await.map(drop)
}
