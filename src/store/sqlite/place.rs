//! Whether the names of the database, its write-ahead log and its lock still stand for the files that were opened.
//!
//! What is written into a file that was moved, removed or replaced under us is gone with the process; and where the lock is another file, another
//! process may have it, and write as well. So nothing is.
//!
//! Only names are looked at, nothing is opened: closing a file gives up the locks that the whole process has on it, SQLite's among them.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// Which file a name stands for: device and number.
type Place = (u64, u64);

/// These files, and which they were when we began.
#[derive(Debug)]
pub(super) struct Places([(PathBuf, Place); 3]);

impl Places {
    /// To be made once a connection has the write-ahead log open, which then stays as long as the store does.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let place = |path: PathBuf| match std::fs::metadata(&path) {
            Ok(found) => Ok((path, (found.dev(), found.ino()))),
            Err(error) => Err(gone(&path, &error.to_string())),
        };
        Ok(Self([place(path.to_owned())?, place(beside("-wal"))?, place(beside(".lock"))?]))
    }

    /// Whether the files are those that we opened.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (path, place) in &self.0 {
            let now = std::fs::metadata(path).map_err(|error| gone(path, &error.to_string()))?;
            if *place != (now.dev(), now.ino()) {
                return Err(gone(path, "another file has its place"));
            }
        }
        Ok(())
    }
}

fn gone(path: &Path, why: &str) -> StoreError {
    let why = format!(
        "{path:?} is not the file that was opened ({why}): it was moved, removed or replaced. What is written now would be lost, or another service's \
         be damaged, so nothing is. Put it back, or stop the service before anything else"
    );
    StoreError::Failed { doing: "writing to the database", why }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_file_that_was_moved_or_replaced_is_noticed_and_one_that_is_back_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass.db");
        let _lock = file::prepare(&path).unwrap();
        let mut conn = file::connect_writer(&path).unwrap();
        file::migrate(&mut conn).unwrap();
        let places = Places::of(&path).unwrap();
        places.check().unwrap();
        for name in ["hallpass.db", "hallpass.db-wal", "hallpass.db.lock"] {
            let (path, aside) = (folder.path().join(name), folder.path().join("aside"));
            std::fs::rename(&path, &aside).unwrap();
            let error = places.check().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("No such file"), "{error}");
            crate::durable::replace(&path, b"", 0o600).unwrap();
            assert!(places.check().unwrap_err().to_string().contains("another file has its place"));
            std::fs::rename(&aside, &path).unwrap();
            places.check().unwrap();
        }
    }
}
