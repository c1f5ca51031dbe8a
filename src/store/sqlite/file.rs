//! The database file: created for its owner alone, locked, connected, migrated; and marked once it was moved to another database.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior, params};
use rustix::fs::{FlockOperation, OFlags};

use super::{IN_USE, Moved, failed};
use crate::store::numbers::{time_from_sql, time_to_sql};
use crate::store::{StoreError, older_schema};
use crate::time::Timestamp;

/// `hpas` in ASCII, in the file's header: SQLite's `application_id`. Our own choice.
const APPLICATION_ID: i32 = 0x6870_6173;

/// In order; a database at schema N has had the first N.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_start.sql"),
    include_str!("../migrations/sqlite/0002_sealed_sessions.sql"),
    include_str!("../migrations/sqlite/0003_open_requests.sql"),
    include_str!("../migrations/sqlite/0004_sealed_head.sql"),
    include_str!("../migrations/sqlite/0005_ca_keys.sql"),
    include_str!("../migrations/sqlite/0006_hosts.sql"),
    include_str!("../migrations/sqlite/0007_browser_sessions.sql"),
    include_str!("../migrations/sqlite/0008_moved_hosts.sql"),
    include_str!("../migrations/sqlite/0009_by_number.sql"),
];

/// How long a statement waits for a lock. Only a reader during a checkpoint or an operator's backup ever holds one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// More than there are different statements, so that each is parsed once.
const CACHED_STATEMENTS: usize = 64;

/// How much of the file the writer keeps in memory at most, once it has read so much. Our own choice: the ends of tables and indexes, where all that is new
/// goes, and the upper pages of the others, in a store with a million requests (`cargo bench --bench growth`).
const WRITER_CACHE_KIB: u32 = 8 * 1024;

/// How long a start waits for who had the database before, and how often it looks. Our own choice: far longer than a program takes to begin.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How much of the write-ahead log is written again at once. Our own choice: few calls, little memory.
const REWRITTEN_AT_ONCE: usize = 256 * 1024;

/// What the schema's number has on top in a file that was moved to another database. Programs that don't know the mark refuse the number: to them it is
/// a newer schema. It goes with the file wherever it is copied, and into backups of it.
const MOVED: i64 = 1_000_000;

/// How every SQLite database begins; where its `application_id` is.
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_ID_AT: u64 = 68;

const OPENING: &str = "opening the database";
const MARKING: &str = "marking the file as moved";

fn refuse(why: String) -> StoreError {
    StoreError::Failed { doing: OPENING, why }
}

/// Locks it for this process, with patience: who ends just now may have started a program, which holds the lock with it until that has begun.
#[expect(clippy::disallowed_methods, reason = "half a second at a start, before anything else runs")]
fn take(lock: &File) -> rustix::io::Result<()> {
    let began = Instant::now();
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            taken => return taken,
        }
    }
}

/// Locks the database's place for this process.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let named = |error: io::Error| refuse(format!("{path:?}: {error}"));
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = private_file(&PathBuf::from(lock_path)).map_err(named)?;
    take(&lock).map_err(|error| {
        if error == rustix::io::Errno::WOULDBLOCK {
            refuse(format!("{path:?} {IN_USE}; only one service can run on a database"))
        } else {
            named(error.into())
        }
    })?;
    Ok(lock)
}

/// Creates the file if it is missing (0600; SQLite gives `-wal` and `-shm` the same mode), and locks it for this process.
/// The lock is on a file beside it, because SQLite keeps its own locks on the database itself. It goes with the handle.
pub(super) fn prepare(path: &Path) -> Result<File, StoreError> {
    let named = |error: io::Error| refuse(format!("{path:?}: {error}"));
    let lock = lock(path)?;
    let is_new = !path.try_exists().map_err(named)?;
    check_pair(path, is_new)?;
    let file = private_file(path).map_err(named)?;
    let (mode, owner) = file.metadata().map(|meta| (meta.mode(), meta.uid())).map_err(named)?;
    if owner != rustix::process::geteuid().as_raw() && owner != 0 {
        return Err(refuse(format!(
            "{path:?} belongs to user {owner}, who could change it; chown it to the service's"
        )));
    }
    if mode & 0o077 != 0 {
        let mode = mode & 0o777;
        return Err(refuse(format!(
            "{path:?} holds secrets and can be read or changed by others (mode {mode:04o}); chmod 600 it"
        )));
    }
    if is_new {
        // The name must survive a crash as well as the content.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(named)?;
    }
    Ok(lock)
}

/// A write-ahead log without its database: SQLite would take it for what is left of another one, and delete it, with all that it alone holds.
fn check_pair(path: &Path, is_new: bool) -> Result<(), StoreError> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let length = |path: &Path| match std::fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(refuse(format!("{path:?}: {error}"))),
    };
    if length(Path::new(&log))? > 0 && (is_new || length(path)? == 0) {
        return Err(refuse(format!(
            "{log:?} is there, and the database that it belongs to is not: it may hold what the database lacks, so neither is touched. Put \
             {path:?} back beside it, or move both away"
        )));
    }
    Ok(())
}

fn private_file(path: &Path) -> io::Result<File> {
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow).open(path)
}

/// Writes the write-ahead log that an earlier process left once more, as it reads now, and syncs it. Called once, at a start, with the lock.
///
/// After a failed `fsync` the kernel may show bytes that are not on the disk and never will be: a later `fsync` has nothing to write and
/// succeeds. A process that sees a sync fail writes these bytes again before it claims anything that comes after them (SQLite forgets a
/// failed transaction, and the next one takes its place). A process that starts doesn't know; without this, what it appends would
/// be lost with the bytes before it when the power fails.
pub(super) fn write_log_again(path: &Path) -> Result<(), StoreError> {
    let named = |error: io::Error| refuse(format!("writing the write-ahead log of {path:?} again: {error}"));
    let mut log_path = path.as_os_str().to_owned();
    log_path.push("-wal");
    let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(|error| named(io::Error::other(error)))?;
    let file = match OpenOptions::new().read(true).write(true).custom_flags(nofollow).open(PathBuf::from(log_path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(named)?,
    };
    rewrite(&file).map_err(named)
}

fn rewrite(file: &File) -> io::Result<()> {
    let mut bytes = vec![0; REWRITTEN_AT_ONCE];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut bytes, at)?;
        let Some(read) = bytes.get(..read).filter(|read| !read.is_empty()) else { break };
        file.write_all_at(read, at)?;
        at = at.saturating_add(u64::try_from(read.len()).map_err(io::Error::other)?);
    }
    file.sync_all()
}

/// The one connection that writes. When it is closed it leaves the write-ahead log as it is, unless [`super::merge::Merge::at_the_end`] finds that all of it
/// is in the file: what is in it may not belong there, or the file may lack what it had.
pub(super) fn connect_writer(path: &Path) -> Result<Connection, StoreError> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    keep_log_at_close(&conn, true)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed(OPENING))?;
    if mode != "wal" {
        return Err(refuse(format!("{path:?}: write-ahead logging can't be used here (journal mode {mode:?})")));
    }
    // FULL: the log is synced at each commit. The WAL file is cut back to 64 MiB after a burst.
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;").map_err(failed(OPENING))?;
    conn.execute_batch(&format!("PRAGMA cache_size = -{WRITER_CACHE_KIB};")).map_err(failed(OPENING))?;
    Ok(conn)
}

/// Whether the last connection leaves the write-ahead log as it is when it is closed, or merges it.
pub(super) fn keep_log_at_close(conn: &Connection, keep: bool) -> Result<(), StoreError> {
    let set = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep);
    set.map(drop).map_err(failed("keeping the write-ahead log"))
}

/// A connection that can't write.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // The first read opens the write-ahead log and its index, which then stay: so that reading goes on with a full disk, and
    // the writer can come back after a failure without anybody rebuilding them.
    conn.execute_batch("PRAGMA query_only = ON; SELECT 1 FROM sqlite_schema;").map_err(failed(OPENING))?;
    Ok(conn)
}

/// The connection that writes a copy, which stays one file.
pub(super) fn connect_copy(path: &Path) -> Result<Connection, StoreError> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, StoreError> {
    // Never CREATE: the file has been made with its mode. NO_MUTEX: each connection stays on one thread.
    check_pair(path, false)?;
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let real = path.canonicalize().map_err(|error| refuse(format!("{path:?}: {error}")))?;
    let conn = Connection::open_with_flags(real, flags).map_err(failed(OPENING))?;
    let set_up = || -> rusqlite::Result<()> {
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
        conn.execute_batch("PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;")
    };
    set_up().map_err(failed(OPENING))?;
    Ok(conn)
}

/// Refuses a file that is no database of ours, by its first bytes: nothing is opened, locked or made beside it.
pub(super) fn check_ours(path: &Path) -> Result<(), StoreError> {
    let named = |error: io::Error| refuse(format!("{path:?}: {error}"));
    let file = File::open(path).map_err(named)?;
    let is_file = file.metadata().map_err(named)?.is_file();
    let (mut magic, mut id) = ([0; MAGIC.len()], [0; 4]);
    // What is shorter is none; an id that is not there yet may be in the write-ahead log.
    let is_ours = is_file
        && file.read_exact_at(&mut magic, 0).is_ok()
        && file.read_exact_at(&mut id, APPLICATION_ID_AT).is_ok()
        && magic == MAGIC
        && [0, APPLICATION_ID].contains(&i32::from_be_bytes(id));
    if is_ours { Ok(()) } else { Err(refuse(format!("{path:?} is not a database of hallpass"))) }
}

/// Which schema a database has, and whether its file was moved.
struct Schema {
    /// 0 for none.
    done: usize,
    is_moved: bool,
}

fn schema(conn: &Connection) -> Result<Schema, StoreError> {
    let number = |pragma: &str| conn.query_row(pragma, [], |row| row.get::<_, i64>(0)).map_err(failed(OPENING));
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if tables > 0 && application != i64::from(APPLICATION_ID) {
        return Err(refuse("the file is a database of another program".to_owned()));
    }
    let is_moved = version >= MOVED;
    let version = if is_moved { version.saturating_sub(MOVED) } else { version };
    let done = usize::try_from(version).map_err(|error| refuse(format!("schema {version}: {error}")))?;
    let ours = MIGRATIONS.len();
    if done > ours {
        return Err(refuse(format!(
            "the database has schema {done}, this program knows {ours}; run the newer program, or restore the backup \
             made before the upgrade"
        )));
    }
    Ok(Schema { done, is_moved })
}

/// Which schema it has, moved or not.
pub(super) fn schema_number(conn: &Connection) -> Result<i64, StoreError> {
    i64::try_from(schema(conn)?.done).map_err(|error| refuse(error.to_string()))
}

/// Where the file was moved to, if it was.
pub(super) fn moved(conn: &Connection) -> Result<Option<Moved>, StoreError> {
    if !schema(conn)?.is_moved {
        return Ok(None);
    }
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let (place, at): (String, i64) =
        conn.query_row("SELECT place, at FROM moved", [], read).map_err(failed(OPENING))?;
    Ok(Some(Moved { place, at: time_from_sql("when the file was moved", at)? }))
}

/// Marks the file as moved, or as moved elsewhere: durable when it returns.
pub(super) fn mark(conn: &mut Connection, place: &str, at: Timestamp) -> Result<(), StoreError> {
    let done = schema_number(conn)?;
    let at = time_to_sql(at)?;
    let all = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(MARKING))?;
    all.execute_batch(&format!(
        "DROP TABLE IF EXISTS moved; CREATE TABLE moved (place TEXT NOT NULL, at INTEGER NOT NULL) STRICT;
         PRAGMA user_version = {};",
        done.saturating_add(MOVED)
    ))
    .and_then(|()| all.execute("INSERT INTO moved (place, at) VALUES (?1, ?2)", params![place, at]))
    .map_err(failed(MARKING))?;
    all.commit().map_err(failed(MARKING))
}

/// Takes the mark away, durably; gives what it said.
pub(super) fn unmark(conn: &mut Connection) -> Result<Option<Moved>, StoreError> {
    const UNMARKING: &str = "taking the file back";
    let Some(moved) = moved(conn)? else { return Ok(None) };
    let done = schema(conn)?.done;
    let all = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(UNMARKING))?;
    all.execute_batch(&format!("DROP TABLE moved; PRAGMA user_version = {done};")).map_err(failed(UNMARKING))?;
    all.commit().map_err(failed(UNMARKING))?;
    Ok(Some(moved))
}

/// Refuses a schema that is not ours yet.
pub(super) fn check_schema(conn: &Connection) -> Result<(), StoreError> {
    let done = schema(conn)?.done;
    if done < MIGRATIONS.len() { Err(refuse(older_schema(done, MIGRATIONS.len()))) } else { Ok(()) }
}

/// Brings the schema to ours; a file that was moved is refused.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    match moved(conn)? {
        Some(moved) => Err(refuse(moved.refusal(conn.path().unwrap_or("FILE")))),
        None => migrate_any(conn),
    }
}

/// Brings the schema to ours, one transaction per step: a crash leaves a whole schema of some version. A mark stays.
pub(super) fn migrate_any(conn: &mut Connection) -> Result<(), StoreError> {
    let Schema { done, is_moved } = schema(conn)?;
    let mark = if is_moved { MOVED } else { 0 };
    for (step, sql) in (1_u32..).zip(MIGRATIONS).skip(done) {
        let migrating = "migrating the database";
        if done > 0 {
            // Some steps read all that there is, and then a start takes longer than usual.
            tracing::info!(from = step.saturating_sub(1), to = step, "migrating the database");
        }
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed(migrating))?;
        transaction.execute_batch(sql).map_err(failed(migrating))?;
        transaction
            .execute_batch(&format!(
                "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {};",
                i64::from(step).saturating_add(mark)
            ))
            .map_err(failed(migrating))?;
        transaction.commit().map_err(failed(migrating))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(conn: &Connection, pragma: &str) -> i64 {
        conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn connections_are_durable_strict_and_of_one_kind_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        let _lock = prepare(&path).unwrap();
        let mut writer = connect_writer(&path).unwrap();
        migrate(&mut writer).unwrap();
        assert_eq!(number(&writer, "synchronous"), 2, "FULL");
        let reader = connect_reader(&path).unwrap();
        for conn in [&writer, &reader] {
            assert_eq!(number(conn, "foreign_keys"), 1);
            assert_eq!(number(conn, "trusted_schema"), 0);
            let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
        reader.execute("DELETE FROM log_head", []).unwrap_err();
        // Defensive: not even the writer can rewrite the schema behind SQLite's back.
        writer.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema;").unwrap_err();
    }

    #[test]
    fn migrating_again_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        let _lock = prepare(&path).unwrap();
        let mut writer = connect_writer(&path).unwrap();
        migrate(&mut writer).unwrap();
        let before = number(&writer, "schema_version");
        migrate(&mut writer).unwrap();
        assert_eq!(number(&writer, "schema_version"), before);
        assert_eq!(number(&writer, "user_version"), i64::try_from(MIGRATIONS.len()).unwrap());
    }
}
