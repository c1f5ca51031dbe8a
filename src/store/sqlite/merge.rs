//! Merging the write-ahead log into the database file, and whether that file takes it.
//!
//! A commit is durable once it is in the write-ahead log. From there SQLite would merge it by itself, within the commit that comes to a thousand
//! pages, and would tell nobody when that fails. So the writer merges, when it has answered, and keeps what came of it for whoever watches.
//!
//! Invariant: the write-ahead log begins anew only when all of it is in the file, synced. A sync that fails may have lost pages that
//! were merged before, which SQLite does not merge again; and a file that somebody has cut is filled with zeros by the next merge. After either nothing is merged
//! any more: all stays in the write-ahead log, and the next start merges all of it again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use super::{failed, file};
use crate::store::StoreError;

/// From how many pages in the write-ahead log on it is merged, unless merging has just taken its share of the time: whoever comes meanwhile waits for all
/// of a merge. With a thousand pages p99 was 2.5 times p50, with 500 2.4, with 250 2.0 (`cargo bench --bench soak`).
const PAGES: u64 = 250;

/// From how many on whatever its share: SQLite's own choice.
const PAGES_MAX: u64 = 1_000;

/// How many times as long as a merge took there is none after it: each is a sync or two, and where a disk is slow they must not be most of what it does.
const SHARE: u32 = 4;

/// How often it is merged although there are fewer, and how often while it fails. Our own choice: two syncs in so much time are nothing, and whoever watches
/// looks every minute.
const EVERY: Duration = Duration::from_secs(10);
const EVERY_WHILE_FAILING: Duration = Duration::from_secs(1);

/// From how many pages on that can't be merged somebody is told: 64 MiB, what the write-ahead log is cut back to after a burst.
const UNMERGED_MAX: u64 = 16_384;

/// What is known of it, for everybody.
#[derive(Debug, Default)]
pub(super) struct Merged {
    unmerged: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Merged {
    /// How many pages are in the write-ahead log alone.
    pub(super) fn unmerged(&self) -> u64 {
        self.unmerged.load(Ordering::Relaxed)
    }

    /// What is wrong with the file, if anything is.
    pub(super) fn wrong(&self) -> Option<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells once that it is wrong, and once that it is not any more.
    fn keep(&self, now: Option<String>) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*wrong, &now) {
            (before, Some(why)) if before.as_ref() != Some(why) => tracing::error!(why, "the database file is unwell"),
            (Some(_), None) => tracing::info!("the database file is well again"),
            _ => {}
        }
        *wrong = now;
    }
}

/// What a merge came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It is in the file, or waits for a reader that will end.
    Well,
    /// Somebody else merges just now.
    Unknown,
    /// It goes on failing, or ends by itself: disk full, a reader that does not end.
    Failing(String),
    /// Nothing may be merged any more.
    Broken(String),
}

/// The writer's part.
#[derive(Debug)]
pub(super) struct Merge {
    path: PathBuf,
    /// Pages in the write-ahead log, as of the last commit.
    pages: Arc<AtomicU64>,
    /// When it is merged although there are few.
    next: Instant,
    /// Before that not, unless there are too many.
    free: Instant,
    /// How long the file was when all was in it, or when it was opened.
    whole: u64,
    is_broken: bool,
    merged: Arc<Merged>,
}

impl Merge {
    pub(super) fn new(path: &Path, merged: Arc<Merged>) -> Self {
        let (pages, next) = (Arc::default(), Instant::now());
        let whole = std::fs::metadata(path).map_or(0, |found| found.len());
        Self { path: path.to_owned(), pages, next, free: next, whole, is_broken: false, merged }
    }

    /// This connection commits from now on; it merges nothing by itself.
    pub(super) fn adopt(&self, conn: &mut Connection) -> Result<(), StoreError> {
        let pages = Arc::clone(&self.pages);
        let count = move |_: &mut _, now: i32| {
            pages.store(u64::try_from(now).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        // In the place of SQLite's own hook, which merges.
        conn.wal_hook(Some(count)).map_err(failed("opening the database"))
    }

    /// Merges before the last connection is closed, which may then take the write-ahead log away if all of it is in the file.
    pub(super) fn at_the_end(&mut self, conn: &Connection) {
        if self.is_broken || self.merge(conn) != Outcome::Well || self.merged.unmerged() > 0 {
            return;
        }
        if let Err(error) = file::keep_log_at_close(conn, false) {
            tracing::warn!(%error, "the write-ahead log stays beside the database; the next start merges it");
        }
    }

    /// After the answers to a group: merges if it is time.
    pub(super) fn after_answers(&mut self, conn: &Connection) {
        let (now, pages) = (Instant::now(), self.pages.load(Ordering::Relaxed));
        let is_time = pages >= PAGES_MAX || (pages >= PAGES && now >= self.free) || now >= self.next;
        if self.is_broken || !is_time {
            return;
        }
        let outcome = self.merge(conn);
        self.free = now.checked_add(now.elapsed().saturating_mul(SHARE)).unwrap_or(now);
        let pause = if outcome == Outcome::Well { EVERY } else { EVERY_WHILE_FAILING };
        self.next = now.checked_add(pause).unwrap_or(now);
        match outcome {
            Outcome::Well => self.merged.keep(None),
            Outcome::Unknown => {}
            Outcome::Failing(why) => self.merged.keep(Some(why)),
            Outcome::Broken(why) => {
                self.is_broken = true;
                self.merged.keep(Some(why));
            }
        }
    }

    fn merge(&mut self, conn: &Connection) -> Outcome {
        let said = match length_said(conn) {
            Ok(said) => said,
            Err(error) => return Outcome::Failing(error.to_string()),
        };
        // Merging would fill what somebody has cut off with zeros. (A shorter file is right where an administrator's program made it so.)
        if let Err(outcome) = self.has_at_least(self.whole.min(said)) {
            return outcome;
        }
        // As much as can be done without waiting for anybody: pages in the write-ahead log, and those of them that are merged.
        let pages = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (all, done) = match conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], pages) {
            Ok(pages) => pages,
            Err(error) => return unmerged(&error),
        };
        if all < 0 {
            // Somebody else merges just now (a program of the administrator's), and nothing is known of the pages.
            return Outcome::Unknown;
        }
        let left = u64::try_from(all.saturating_sub(done)).unwrap_or(0);
        self.merged.unmerged.store(left, Ordering::Relaxed);
        if left > UNMERGED_MAX {
            return Outcome::Failing(format!(
                "more than {UNMERGED_MAX} pages of the write-ahead log wait for a reader that does not end: a backup that hangs, or a program beside us"
            ));
        }
        if left > 0 {
            return Outcome::Well;
        }
        self.pages.store(0, Ordering::Relaxed);
        if let Err(outcome) = self.has_at_least(said) {
            return outcome;
        }
        self.whole = said;
        Outcome::Well
    }

    fn has_at_least(&self, wanted: u64) -> Result<(), Outcome> {
        // (told to anybody: without the path)
        let length = match std::fs::metadata(&self.path) {
            Ok(found) => found.len(),
            Err(error) => return Err(Outcome::Failing(format!("looking at the database file: {error}"))),
        };
        if length >= wanted {
            return Ok(());
        }
        Err(Outcome::Broken(format!(
            "the database file has {length} bytes of {wanted}: somebody has cut it; stop the service and put a backup back"
        )))
    }
}

fn unmerged(error: &rusqlite::Error) -> Outcome {
    if error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_FSYNC) {
        return Outcome::Broken(format!(
            "the database file can't be synced ({error}), so that some of it may not be on the disk; all that is new stays in its write-ahead log, \
             which grows: see to the disk and restart the service, which then merges it once more"
        ));
    }
    Outcome::Failing(format!(
        "the database file can't be written ({error}); all that is new is in its write-ahead log, which grows"
    ))
}

/// How many bytes the file has once all that is committed is in it.
fn length_said(conn: &Connection) -> Result<u64, StoreError> {
    let number = |pragma| conn.query_row(pragma, [], |row| row.get::<_, u32>(0)).map_err(failed("looking at the file"));
    Ok(u64::from(number("PRAGMA page_count")?).saturating_mul(u64::from(number("PRAGMA page_size")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> (Connection, Merge, Arc<Merged>) {
        let path = folder.join("hallpass.db");
        let _lock = file::prepare(&path).unwrap();
        let mut conn = file::connect_writer(&path).unwrap();
        file::migrate(&mut conn).unwrap();
        let merged = Arc::new(Merged::default());
        let merge = Merge::new(&path, Arc::clone(&merged));
        merge.adopt(&mut conn).unwrap();
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        (conn, merge, merged)
    }

    fn now(merge: &mut Merge, conn: &Connection) {
        merge.next = Instant::now();
        merge.after_answers(conn);
    }

    fn add_a_megabyte(conn: &Connection) {
        conn.execute_batch("INSERT INTO t VALUES (randomblob(1000000))").unwrap();
    }

    fn length(folder: &Path, name: &str) -> u64 {
        std::fs::metadata(folder.join(name)).unwrap().len()
    }

    fn cut(folder: &Path, to: u64) {
        std::fs::OpenOptions::new().write(true).open(folder.join("hallpass.db")).unwrap().set_len(to).unwrap();
    }

    #[test]
    fn pages_that_a_reader_holds_back_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, mut merge, merged) = opened(folder.path());
        let reader = file::connect_reader(&folder.path().join("hallpass.db")).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        reading.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        now(&mut merge, &conn);
        assert!(merged.unmerged() > 0 && merged.wrong().is_none());
        drop(reading);
        now(&mut merge, &conn);
        assert!(merged.unmerged() == 0 && merged.wrong().is_none());
    }

    #[test]
    fn pages_are_merged_as_they_come_and_the_write_ahead_log_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, mut merge, merged) = opened(folder.path());
        now(&mut merge, &conn);
        for _ in 0..30 {
            add_a_megabyte(&conn);
            // Not yet time but for the pages.
            merge.after_answers(&conn);
        }
        assert!(length(folder.path(), "hallpass.db") > 25_000_000 && merged.wrong().is_none());
        let log = length(folder.path(), "hallpass.db-wal");
        assert!(log < 2 * 4_096 * PAGES_MAX, "{log}");
    }

    #[test]
    fn a_file_that_was_cut_is_not_filled_with_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, mut merge, merged) = opened(folder.path());
        add_a_megabyte(&conn);
        now(&mut merge, &conn);
        let whole = length(folder.path(), "hallpass.db");
        cut(folder.path(), whole - 61_440);
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        for _ in 0..3 {
            now(&mut merge, &conn);
            assert!(merged.wrong().unwrap().contains("somebody has cut it"), "{merged:?}");
            assert_eq!(length(folder.path(), "hallpass.db"), whole - 61_440);
        }
        drop(conn);
        assert_eq!(length(folder.path(), "hallpass.db"), whole - 61_440, "nor at the end");
        assert!(length(folder.path(), "hallpass.db-wal") > 0);
    }

    #[test]
    fn a_file_that_an_administrator_has_made_shorter_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, mut merge, merged) = opened(folder.path());
        add_a_megabyte(&conn);
        now(&mut merge, &conn);
        let whole = length(folder.path(), "hallpass.db");
        conn.execute_batch("DELETE FROM t; VACUUM").unwrap();
        for _ in 0..2 {
            now(&mut merge, &conn);
        }
        assert!(merged.wrong().is_none(), "{merged:?}");
        assert!(length(folder.path(), "hallpass.db") < whole);
    }
}
