//! The thread that merges the write-ahead log into the database file, so that the writer need not.
//!
//! A commit is durable once it is in the write-ahead log; no commit waits for what merges it. As long as this thread keeps up, what is left for the
//! writer is the last bit, once in [`WRITER_MERGES_FROM`] pages, after which the write-ahead log begins anew. Where this thread can't merge, the
//! writer tries at each commit from there on, and what can't be merged stays where it is durable.
//!
//! SQLite tells nobody when merging fails: all goes on, and the write-ahead log grows. So what came of it is kept for whoever watches.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{failed, file};
use crate::store::StoreError;

/// From how many pages in the write-ahead log on a commit merges what is not merged yet: 16 MiB. Our own choice: this thread is some hundred pages
/// behind at most, and a start after a crash has no more than this to read.
pub(super) const WRITER_MERGES_FROM: u32 = 4_096;

/// How long after a merge the next begins at the earliest. Our own choice: a page that is changed again within it is merged once.
const PAUSE: Duration = Duration::from_millis(100);

/// The same after a merge that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// From how many pages on that can't be merged somebody is told: 64 MiB, what the write-ahead log is cut back to after a burst.
const UNMERGED_MAX: u64 = 16_384;

/// What the merging thread and those it works for tell each other.
#[derive(Debug)]
pub(super) struct Merging {
    asked: Mutex<Asked>,
    rung: Condvar,
    unmerged: AtomicU64,
    wrong: Mutex<Option<String>>,
}

/// What the thread is to do.
#[derive(Debug)]
struct Asked {
    merge: bool,
    stop: bool,
}

impl Merging {
    /// What an earlier process left in the write-ahead log is to be merged first.
    fn new() -> Self {
        let asked = Mutex::new(Asked { merge: true, stop: false });
        Self { asked, rung: Condvar::new(), unmerged: AtomicU64::new(0), wrong: Mutex::new(None) }
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something new in the write-ahead log.
    pub(super) fn committed(&self) {
        if !std::mem::replace(&mut self.asked().merge, true) {
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        self.asked().stop = true;
        self.rung.notify_one();
    }

    /// Waits until there is something to merge: `true`; or until the end.
    fn wait(&self) -> bool {
        let waiting = self.rung.wait_while(self.asked(), |asked| !asked.merge && !asked.stop);
        let mut asked = waiting.unwrap_or_else(PoisonError::into_inner);
        asked.merge = false;
        !asked.stop
    }

    /// Does nothing for so long, or until the end.
    fn pause(&self, length: Duration) {
        drop(self.rung.wait_timeout_while(self.asked(), length, |asked| !asked.stop));
    }

    /// How many pages were in the write-ahead log alone after the last merge.
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

/// The running thread; it ends with this.
#[derive(Debug)]
pub(super) struct Merger {
    merging: Arc<Merging>,
    thread: Option<JoinHandle<()>>,
}

impl Merger {
    /// To be started once the schema is ours.
    pub(super) fn start(path: &Path) -> Result<Self, StoreError> {
        let merge = Merge::new(path)?;
        let merging = Arc::clone(&merge.merging);
        let thread = std::thread::Builder::new()
            .name("store-merger".to_owned())
            .spawn(move || merge.serve())
            .map_err(|error| StoreError::Failed { doing: "starting the merger", why: error.to_string() })?;
        Ok(Self { merging, thread: Some(thread) })
    }

    pub(super) const fn merging(&self) -> &Arc<Merging> {
        &self.merging
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        self.merging.stop();
        if let Some(thread) = self.thread.take() {
            // If it panicked, the writer has merged.
            drop(thread.join());
        }
    }
}

/// The thread's own.
struct Merge {
    conn: Connection,
    path: PathBuf,
    merging: Arc<Merging>,
}

impl Merge {
    fn new(path: &Path) -> Result<Self, StoreError> {
        let conn = file::connect_merger(path)?;
        Ok(Self { conn, path: path.to_owned(), merging: Arc::new(Merging::new()) })
    }

    fn serve(self) {
        while self.merging.wait() {
            let wrong = self.once().err();
            let is_wrong = wrong.is_some();
            self.merging.keep(wrong);
            if is_wrong {
                // Also when nobody commits: whoever watches is to see when it is well again.
                self.merging.committed();
            }
            self.merging.pause(if is_wrong { PAUSE_AFTER_FAILURE } else { PAUSE });
        }
    }

    fn once(&self) -> Result<(), String> {
        let unmergeable = |error: rusqlite::Error| {
            format!(
                "the database file can't be written ({error}); all that is new is in its write-ahead log, which grows"
            )
        };
        let length = self.length_said().map_err(|error| error.to_string())?;
        // As much as can be done without waiting for anybody: pages in the write-ahead log when it began, and those of them that are merged.
        let pages = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (all, done) = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], pages).map_err(unmergeable)?;
        if all < 0 {
            // Somebody else merges just now (the writer, or a program of the administrator's), and nothing is known of the pages.
            return Ok(());
        }
        let unmerged = u64::try_from(all.saturating_sub(done)).unwrap_or(0);
        self.merging.unmerged.store(unmerged, Ordering::Relaxed);
        if unmerged > UNMERGED_MAX {
            return Err(format!(
                "{unmerged} pages of the write-ahead log wait for a reader that does not end: a backup that hangs, or a program beside us"
            ));
        }
        if unmerged == 0 { self.check_length(length).map_err(|error| error.to_string()) } else { Ok(()) }
    }

    /// How many bytes the file has once all that is committed is merged.
    fn length_said(&self) -> Result<u64, StoreError> {
        let number =
            |pragma| self.conn.query_row(pragma, [], |row| row.get::<_, u32>(0)).map_err(failed("looking at the file"));
        Ok(u64::from(number("PRAGMA page_count")?).saturating_mul(u64::from(number("PRAGMA page_size")?)))
    }

    /// All that was there is merged: the file has at least these bytes.
    fn check_length(&self, wanted: u64) -> Result<(), StoreError> {
        // (told to anybody: without the path)
        let wrong = |why| StoreError::Failed { doing: "looking at the database file", why };
        let length = std::fs::metadata(&self.path).map_err(|error| wrong(error.to_string()))?.len();
        if length >= wanted {
            return Ok(());
        }
        Err(wrong(format!(
            "it has {length} bytes of {wanted}: somebody has cut it; stop the service and put a backup back"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(folder: &Path) -> (Connection, Merge) {
        let path = folder.join("hallpass.db");
        let _lock = file::prepare(&path).unwrap();
        let mut conn = file::connect_writer(&path).unwrap();
        file::migrate(&mut conn).unwrap();
        (conn, Merge::new(&path).unwrap())
    }

    #[test]
    fn pages_that_a_reader_holds_back_are_counted_and_a_file_that_was_cut_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, merge) = opened(folder.path());
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        let reader = file::connect_reader(&folder.path().join("hallpass.db")).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        reading.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        merge.once().unwrap();
        assert!(merge.merging.unmerged() > 0);
        drop(reading);
        merge.once().unwrap();
        assert_eq!(merge.merging.unmerged(), 0);
        let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("hallpass.db")).unwrap();
        file.set_len(8_192).unwrap();
        let wrong = merge.once().unwrap_err();
        assert!(wrong.contains("somebody has cut it"), "{wrong}");
    }

    #[test]
    fn what_was_committed_is_merged_without_the_writer_and_the_write_ahead_log_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, merge) = opened(folder.path());
        let length = || std::fs::metadata(folder.path().join("hallpass.db-wal")).unwrap().len();
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        let mut longest = 0;
        for _ in 0..30 {
            // A megabyte each.
            conn.execute_batch("INSERT INTO t VALUES (randomblob(1000000))").unwrap();
            merge.once().unwrap();
            longest = longest.max(length());
        }
        assert_eq!(merge.merging.unmerged(), 0);
        assert!(longest < 2 * 1_100_000, "{longest}: each commit found all merged, and began anew");
    }

    #[test]
    fn a_thread_that_does_not_merge_leaves_it_to_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, _merge) = opened(folder.path());
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        for _ in 0..60 {
            conn.execute_batch("INSERT INTO t VALUES (randomblob(1000000))").unwrap();
        }
        let length = std::fs::metadata(folder.path().join("hallpass.db-wal")).unwrap().len();
        assert!(length < 2 * 4096 * u64::from(WRITER_MERGES_FROM), "{length}");
    }

    #[test]
    fn the_thread_merges_what_it_is_told_of_and_ends_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, _) = opened(folder.path());
        let path = folder.path().join("hallpass.db");
        let merger = Merger::start(&path).unwrap();
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        merger.merging().committed();
        let in_file = || std::fs::metadata(&path).unwrap().len();
        let pages = || conn.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0)).unwrap();
        let said = || u64::from(pages()) * 4096;
        while in_file() < said() {
            std::thread::yield_now();
        }
        drop(merger);
    }
}
