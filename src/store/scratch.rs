//! A hidden folder for a copy of a database that is being made or looked at.
//!
//! Invariants: it is for this user alone, and gone with the value. A process that is killed leaves it, with all that was granted to anybody in
//! it; whoever next works at the same place sweeps it, by a lock that goes with the process, so that nobody's work is swept who is still at it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::durable;

/// Its file that is locked as long as somebody is at it.
const LOCK: &str = "lock";

/// A folder for work that is not done yet.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// Held as long as it is there.
    _lock: File,
}

impl Scratch {
    /// Makes one beside `path`, and sweeps what killed processes have left of theirs.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn beside(path: &Path) -> io::Result<Self> {
        sweep(path);
        let folder = durable::create_temporary_folder(path)?;
        let locked = lock_new(&folder);
        // What can't be removed hurts nobody.
        let lock = locked.inspect_err(|_why| drop(fs::remove_dir_all(&folder)))?;
        Ok(Self { folder, _lock: lock })
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives it the name `to`, which must be free, durably.
    ///
    /// # Errors
    /// Any I/O error, with the path in its text; it is gone then.
    pub fn place(self, to: &Path) -> io::Result<()> {
        fs::remove_file(self.file(LOCK))?;
        durable::place_new(&self.folder, to)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed hurts nobody. (After `place` there is nothing of this name.)
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// The lock, taken before it has its name: whoever sweeps finds none, or one that is held.
fn lock_new(folder: &Path) -> io::Result<File> {
    let new = folder.join("new");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(new, folder.join(LOCK))?;
    Ok(file)
}

/// Removes the folders beside `path` that nobody is at any more. One that can't be removed hurts nobody.
fn sweep(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let (Some(name), Ok(entries)) = (path.file_name().and_then(|name| name.to_str()), fs::read_dir(folder)) else {
        return;
    };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let found = entry.file_name();
        let hidden = found.to_str().and_then(|found| found.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.'));
        let is_ours = hidden.is_some_and(|rest| rest.ends_with(".tmp"))
            && entry.path().symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        if !is_ours {
            continue;
        }
        let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let lock = OpenOptions::new().read(true).custom_flags(no_link).open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(around: &Path) -> Vec<PathBuf> {
        fs::read_dir(around).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_a_killed_process_has_left_is_swept_and_what_somebody_is_at_is_not() {
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("backup");
        let held = Scratch::beside(&path).unwrap();
        durable::replace(&held.file("hallpass.db"), b"x", 0o600).unwrap();
        // Killed: the lock goes, the folder stays.
        let folder = durable::create_temporary_folder(&path).unwrap();
        drop(lock_new(&folder).unwrap());
        // Neither that of another name, nor one whose lock has no name yet.
        let other = Scratch::beside(&around.path().join("backup.2")).unwrap();
        let early = durable::create_temporary_folder(&path).unwrap();
        let next = Scratch::beside(&path).unwrap();
        assert!(!folder.exists());
        let mut kept = vec![held.folder.clone(), other.folder.clone(), early, next.folder.clone()];
        let mut found = hidden(around.path());
        kept.sort();
        found.sort();
        assert_eq!(found, kept);
        drop((held, other));
        next.place(&path).unwrap();
        assert_eq!(hidden(&path), <[PathBuf; 0]>::default());
    }
}
