//! Whether the database file is still ours, and takes what is merged into it.
//!
//! A commit is durable once it is in the write-ahead log. From there SQLite merges it into the file by itself, and tells nobody when that fails:
//! all goes on, and the write-ahead log grows. So the writer merges now and then, too, and keeps what came of it for whoever watches.
//!
//! A file that was moved, removed or replaced under us is another matter: what is written then is gone with the process. So nothing is.
//!
//! Only names are looked at here, nothing is opened: closing a file gives up the locks that the whole process has on it, SQLite's among them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::failed;
use crate::store::StoreError;

/// How often the writer merges, beside what SQLite does by itself each thousand pages; and how often while it fails. Our own choice: two
/// syncs in so much time are nothing, and whoever watches looks every minute.
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

/// Which file a name stands for: device and number.
type Place = (u64, u64);

/// The writer's part.
#[derive(Debug)]
pub(super) struct Merge {
    /// The database and its write-ahead log, and which files they were when we began.
    files: [(PathBuf, Place); 2],
    next: Instant,
    merged: Arc<Merged>,
}

impl Merge {
    /// To be made once a connection has the write-ahead log open, which then stays as long as the store does.
    pub(super) fn new(path: &Path, merged: Arc<Merged>) -> Result<Self, StoreError> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let place = |path: PathBuf| match std::fs::metadata(&path) {
            Ok(found) => Ok((path, (found.dev(), found.ino()))),
            Err(error) => Err(gone(&path, &error.to_string())),
        };
        Ok(Self { files: [place(path.to_owned())?, place(PathBuf::from(log))?], next: Instant::now(), merged })
    }

    /// Whether the files are those that we opened.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, place) in &self.files {
            let now = std::fs::metadata(path).map_err(|error| gone(path, &error.to_string()))?;
            if *place != (now.dev(), now.ino()) {
                return Err(gone(path, "another file has its place"));
            }
        }
        Ok(())
    }

    /// After a commit: merges if it is time.
    pub(super) fn after_commit(&mut self, conn: &Connection) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let wrong = self.merge(conn).err();
        let pause = if wrong.is_some() { EVERY_WHILE_FAILING } else { EVERY };
        self.next = now.checked_add(pause).unwrap_or(now);
        self.merged.keep(wrong);
    }

    fn merge(&self, conn: &Connection) -> Result<(), String> {
        let unmergeable = |error: rusqlite::Error| {
            format!(
                "the database file can't be written ({error}); all that is new is in its write-ahead log, which grows"
            )
        };
        // As much as can be done without waiting for anybody: pages in the write-ahead log, and those of them that are merged.
        let pages = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (all, done) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], pages).map_err(unmergeable)?;
        if all < 0 {
            // Somebody else merges just now (a program of the administrator's), and nothing is known of the pages.
            return Ok(());
        }
        let unmerged = u64::try_from(all.saturating_sub(done)).unwrap_or(0);
        self.merged.unmerged.store(unmerged, Ordering::Relaxed);
        if unmerged > UNMERGED_MAX {
            return Err(format!(
                "{unmerged} pages of the write-ahead log wait for a reader that does not end: a backup that hangs, or a program beside us"
            ));
        }
        if unmerged == 0 { self.check_length(conn).map_err(|error| error.to_string()) } else { Ok(()) }
    }

    /// All is merged: the file is as long as it says.
    fn check_length(&self, conn: &Connection) -> Result<(), StoreError> {
        let number =
            |pragma| conn.query_row(pragma, [], |row| row.get::<_, u32>(0)).map_err(failed("looking at the file"));
        let wanted = u64::from(number("PRAGMA page_count")?).saturating_mul(u64::from(number("PRAGMA page_size")?));
        let [(path, _), _] = &self.files;
        // (told to anybody: without the path)
        let wrong = |why| StoreError::Failed { doing: "looking at the database file", why };
        let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
        if length >= wanted {
            return Ok(());
        }
        Err(wrong(format!(
            "it has {length} bytes of {wanted}: somebody has cut it; stop the service and put a backup back"
        )))
    }
}

fn gone(path: &Path, why: &str) -> StoreError {
    let why = format!(
        "{path:?} is not the file that was opened ({why}): it was moved, removed or replaced. What is written now would be lost, so nothing is. \
         Put it back, or stop the service before anything else"
    );
    StoreError::Failed { doing: "writing to the database", why }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn opened(folder: &Path) -> (Connection, Merge, Arc<Merged>) {
        let path = folder.join("hallpass.db");
        let _lock = file::prepare(&path).unwrap();
        let mut conn = file::connect_writer(&path).unwrap();
        file::migrate(&mut conn).unwrap();
        let merged = Arc::new(Merged::default());
        let merge = Merge::new(&path, Arc::clone(&merged)).unwrap();
        (conn, merge, merged)
    }

    #[test]
    fn a_file_that_was_moved_or_replaced_is_noticed_and_one_that_is_back_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (_conn, merge, _) = opened(folder.path());
        merge.check().unwrap();
        for name in ["hallpass.db", "hallpass.db-wal"] {
            let (path, aside) = (folder.path().join(name), folder.path().join("aside"));
            std::fs::rename(&path, &aside).unwrap();
            let error = merge.check().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("No such file"), "{error}");
            crate::durable::replace(&path, b"", 0o600).unwrap();
            assert!(merge.check().unwrap_err().to_string().contains("another file has its place"));
            std::fs::rename(&aside, &path).unwrap();
            merge.check().unwrap();
        }
    }

    #[test]
    fn pages_that_a_reader_holds_back_are_counted_and_a_file_that_was_cut_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (conn, mut merge, merged) = opened(folder.path());
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        let reader = file::connect_reader(&folder.path().join("hallpass.db")).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        reading.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        merge.after_commit(&conn);
        assert!(merged.unmerged() > 0 && merged.wrong().is_none());
        drop(reading);
        merge.next = Instant::now();
        merge.after_commit(&conn);
        assert!(merged.unmerged() == 0 && merged.wrong().is_none());
        let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("hallpass.db")).unwrap();
        file.set_len(8_192).unwrap();
        merge.next = Instant::now();
        merge.after_commit(&conn);
        assert!(merged.wrong().unwrap().contains("somebody has cut it"), "{merged:?}");
    }
}
