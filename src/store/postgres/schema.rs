//! The schema: brought to ours when a node starts, and looked at again by each group of changes.
//!
//! Old and new programs side by side: a step says the oldest program (by the schema it knows) that may go on working on what it
//! leaves. A program that is too old for the schema is refused when it starts, and one that runs writes no more: it looks under the
//! same lock under which every change is written. A new program never waits for the old ones; it migrates when it starts.

use super::line::{Line, get};
use crate::store::{StoreError, older_schema};

/// In order; a database at schema N has had the first N. Each: its SQL, and the oldest program that may work on what it leaves.
const MIGRATIONS: &[(&str, i32)] = &[
    (include_str!("../migrations/postgres/0001_start.sql"), 1),
    // Older programs go on until the first host has moved; from then on they read no inventory, and so decide nothing.
    (include_str!("../migrations/postgres/0002_moved_hosts.sql"), 1),
];

/// `hpas` in ASCII: the advisory lock of migrations. Our own choice; the same for all nodes of a database.
const LOCK: i64 = 0x6870_6173;

const OPENING: &str = "opening the database";
const MIGRATING: &str = "migrating the database";

fn refuse(why: impl Into<String>) -> StoreError {
    StoreError::Failed { doing: OPENING, why: why.into() }
}

fn ours() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Whether a program that knows our schema may work on this one.
pub(super) fn check(version: i32, serves: i32) -> Result<(), StoreError> {
    let ours = ours();
    if serves > ours {
        return Err(refuse(format!(
            "the database has schema {version}, which this program is too old for (it knows {ours}); run the newer program, or \
             restore the backup made before the upgrade"
        )));
    }
    if version < ours {
        return Err(refuse(format!(
            "the database has schema {version}, this program needs {ours}; it was put back while we ran"
        )));
    }
    Ok(())
}

/// What of the server could break a promise is looked at before anything is written.
pub(super) async fn check_server(line: &Line) -> Result<(), StoreError> {
    let row = line
        .one(
            OPENING,
            "SELECT current_setting('server_version_num')::int4, current_setting('fsync'), current_setting('full_page_writes'),
                    current_setting('synchronous_commit'), current_setting('server_encoding'), coalesce(current_setting('data_sync_retry', true), 'off')",
            &[],
        )
        .await?;
    let (version, fsync, pages): (i32, &str, &str) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
    let (durable, encoding, retries): (&str, &str, &str) = (get(&row, 3)?, get(&row, 4)?, get(&row, 5)?);
    if version < 150_000 {
        return Err(refuse(format!("it is PostgreSQL {}; 15 or later is needed", version / 10_000)));
    }
    if fsync != "on" || pages != "on" {
        return Err(refuse(
            "the server runs with fsync or full_page_writes off, and would lose what it confirmed; set both to on",
        ));
    }
    if retries != "off" {
        return Err(refuse(
            "the server runs with data_sync_retry on, and would take a second sync for what the first one has lost; set it to off",
        ));
    }
    if encoding != "UTF8" {
        return Err(refuse(format!("the database's encoding is {encoding}; create one with ENCODING 'UTF8'")));
    }
    if durable == "off" {
        // A stronger setting of the server's own (remote_apply) stays.
        line.run(OPENING, "SET synchronous_commit = on").await?;
    }
    Ok(())
}

/// Brings the schema to ours, one transaction per step: a crash leaves a whole schema of some version. One node at a time.
pub(super) async fn migrate(line: &Line) -> Result<(), StoreError> {
    line.execute(MIGRATING, "SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let migrated = migrate_alone(line).await;
    // The connection's end gives it up as well.
    line.execute(MIGRATING, "SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    migrated
}

/// Refuses a schema that is not ours yet.
pub(super) async fn check_there(line: &Line) -> Result<(), StoreError> {
    let version = present(line).await?;
    if version < ours() {
        let [version, ours] = [version, ours()].map(|version| usize::try_from(version).unwrap_or(0));
        return Err(refuse(older_schema(version, ours)));
    }
    check_newer(line, version).await
}

/// Whether there is one already, ours or an older one; refuses what is too new for us.
pub(super) async fn is_there(line: &Line) -> Result<bool, StoreError> {
    let version = present(line).await?;
    check_newer(line, version).await?;
    Ok(version > 0)
}

async fn migrate_alone(line: &Line) -> Result<(), StoreError> {
    let mut version = present(line).await?;
    let has_folder: bool = get(&line.one(OPENING, "SELECT to_regnamespace('hallpass') IS NOT NULL", &[]).await?, 0)?;
    if !has_folder {
        line.run(MIGRATING, "CREATE SCHEMA hallpass").await?;
    }
    check_newer(line, version).await?;
    for (sql, serves) in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
        version = version.saturating_add(1);
        line.run(
            MIGRATING,
            &format!("BEGIN; {sql}; UPDATE schema_version SET version = {version}, serves = {serves}; COMMIT"),
        )
        .await?;
    }
    Ok(())
}

/// Whether we may work on what a newer program has made of it.
async fn check_newer(line: &Line, version: i32) -> Result<(), StoreError> {
    if version > ours() {
        let row = line.one(OPENING, "SELECT version, serves FROM schema_version", &[]).await?;
        check(get(&row, 0)?, get(&row, 1)?)?;
        tracing::warn!(
            schema = version,
            ours = ours(),
            "a newer program has migrated the database, and lets this one go on"
        );
    }
    Ok(())
}

/// Which version there is; 0 for none.
async fn present(line: &Line) -> Result<i32, StoreError> {
    let row = line
        .one(
            OPENING,
            "SELECT to_regclass('hallpass.schema_version') IS NOT NULL,
                    (SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace('hallpass'))",
            &[],
        )
        .await?;
    let (has_version, tables): (bool, i64) = (get(&row, 0)?, get(&row, 1)?);
    if has_version {
        return get(&line.one(OPENING, "SELECT version FROM schema_version", &[]).await?, 0);
    }
    if tables > 0 {
        return Err(refuse("the schema \"hallpass\" of this database holds tables of another program"));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_works_on_what_serves_it_and_on_nothing_older_or_newer() {
        check(ours(), 1).unwrap();
        check(ours() + 3, ours()).unwrap();
        let newer = check(ours() + 1, ours() + 1).unwrap_err().to_string();
        assert!(newer.contains("too old"), "{newer}");
        check(ours() - 1, 0).unwrap_err();
    }
}
