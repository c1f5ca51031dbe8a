//! A copy of the database file as of one moment, while a service may be writing it; and a place for one that comes back.
//!
//! The copy is read in one transaction, so that it holds a whole log with the rows that belong to it, whatever is committed meanwhile; and
//! page by page, so that it can be said how far it is. Nobody waits for it: readers and the writer do not block each other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};

use super::{failed, file, log};
use crate::identity::mac::MacKey;
use crate::store::{Head, StoreError};

const COPYING: &str = "copying the database";
const PLACING: &str = "putting a database back";

/// Pages of one step: 4 MiB.
const STEP: i32 = 1_024;

/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

fn refuse(doing: &'static str, why: String) -> StoreError {
    StoreError::Failed { doing, why }
}

/// Copies the file at `from` to the new file `to` (0600); gives the copy's head and schema. `told` hears pages done, and all of them.
pub(in crate::store) fn copy(
    from: &Path,
    to: &Path,
    key: &MacKey,
    told: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(Head, i64), StoreError> {
    check_owner(from, COPYING)?;
    let source = file::connect_reader(from)?;
    let moment = source.unchecked_transaction().map_err(failed(COPYING))?;
    // The first read is when the moment begins.
    moment.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map_err(failed(COPYING))?;
    let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    drop(new.map_err(|why| refuse(COPYING, format!("{to:?}: {why}")))?);
    let mut target = file::connect_copy(to)?;
    {
        let backup = Backup::new(&moment, &mut target).map_err(failed(COPYING))?;
        loop {
            let step = backup.step(STEP).map_err(failed(COPYING))?;
            let progress = backup.progress();
            let (all, left) = (progress.pagecount, progress.remaining);
            told(u64::try_from(all.saturating_sub(left)).unwrap_or(0), u64::try_from(all).unwrap_or(0));
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                other => return Err(refuse(COPYING, format!("the database is {other:?}"))),
            }
        }
    }
    let mode: String =
        target.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).map_err(failed(COPYING))?;
    if mode != "delete" {
        return Err(refuse(COPYING, format!("the copy stays in journal mode {mode:?}")));
    }
    let whole: String = target.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed(COPYING))?;
    if whole != "ok" {
        return Err(StoreError::Damaged { what: "the database".to_owned(), why: whole });
    }
    let schema = file::schema_number(&target)?;
    let head = log::load_checked(&target, key)?;
    target.close().map_err(|(_, why)| failed(COPYING)(why))?;
    Ok((head, schema))
}

/// A service runs as one user, and what another one leaves beside its database locks it out.
fn check_owner(path: &Path, doing: &'static str) -> Result<(), StoreError> {
    let owner = std::fs::metadata(path).map_err(|why| refuse(doing, format!("{path:?}: {why}")))?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(refuse(doing, format!("{path:?} belongs to user {owner}; run this as that user (sudo -u)")))
}

/// A place for a database: locked as by a service, and free. The lock goes with the value.
#[derive(Debug)]
pub struct Free {
    path: PathBuf,
    _lock: File,
}

impl Free {
    /// Claims it.
    ///
    /// # Errors
    /// When a service has it, when anything of a database is there, or when its folder is another user's.
    pub fn claim(path: &Path) -> Result<Self, StoreError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        check_owner(folder, PLACING)?;
        let lock = file::lock(path)?;
        let beside = BESIDE.iter().map(|suffix| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        });
        for file in std::iter::once(path.to_path_buf()).chain(beside) {
            if std::fs::symlink_metadata(&file).is_ok() {
                let why = format!(
                    "{file:?} is there; move the database with its -wal, -shm and -journal away first, all together"
                );
                return Err(refuse(PLACING, why));
            }
        }
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Puts a file there that has been checked, durably; it is moved.
    ///
    /// # Errors
    /// Any I/O error; then nothing is there.
    pub fn put(self, from: &Path) -> Result<(), StoreError> {
        crate::durable::place_new(from, &self.path).map_err(|why| refuse(PLACING, why.to_string()))
    }
}
