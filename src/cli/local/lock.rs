//! Locks among our own processes: one ssh asks for a host at a time, and host files are written by one.
//!
//! What not: no lock is ever left over. It is the kernel's (flock(2)) and goes with the process, however that ends; the file that
//! stays behind means nothing.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FlockOperation, flock};

use super::Local;
use crate::cli::failure::Failure;

/// A lock among our own processes; it goes with the value, or with the process.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Whether whoever holds it has said that it takes long.
    fn is_long(&self) -> bool {
        self.0.metadata().is_ok_and(|metadata| metadata.len() > 0)
    }

    /// Says whether it takes long: others then need not wait.
    pub(crate) fn takes_long(&self, long: bool) {
        // Only a hint: nothing rests on it.
        let _ignored = self.0.set_len(u64::from(long));
    }
}

impl Local {
    /// Takes a lock of this name, asking `go_on` every 20 ms while somebody else has it; `None` when it says no. It is told whether
    /// they take long.
    ///
    /// # Errors
    /// When the lock's file can't be made.
    pub(crate) fn lock(&self, name: &str, mut go_on: impl FnMut(bool) -> bool) -> Result<Option<Lock>, Failure> {
        self.check_root()?;
        let path = self.root.join(format!("{name}.lock"));
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = Lock(open.map_err(|e| Failure::file("open lock", &path, &e))?);
        let mut was_long = false;
        loop {
            match flock(&lock.0, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    lock.takes_long(false);
                    return Ok(Some(lock));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    // What a killed one left in the file is there for a moment after the next one has the lock.
                    let is_long = lock.is_long();
                    if !go_on(is_long && was_long) {
                        return Ok(None);
                    }
                    was_long = is_long;
                    nap();
                }
                Err(e) => return Err(Failure::file("lock", &path, &e.into())),
            }
        }
    }
}

/// flock(2) knows no deadline. The process is ours alone, and Ctrl-C ends it.
#[expect(clippy::disallowed_methods, reason = "there is nothing to wait on; see above")]
fn nap() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_one_left_in_the_file_is_not_believed_at_first_sight() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::at(folder.path().join("run"));
        let first = local.lock("host-web-1", |_| true).unwrap().unwrap();
        // As it is between the moment a next one has the lock and the moment it clears what was left.
        first.takes_long(true);
        let mut heard = Vec::new();
        let second = local.lock("host-web-1", |takes_long| {
            heard.push(takes_long);
            first.takes_long(false);
            heard.len() < 3
        });
        assert!(second.unwrap().is_none());
        assert_eq!(heard, [false, false, false]);
        first.takes_long(true);
        assert!(local.lock("host-web-1", |takes_long| !takes_long).unwrap().is_none());
        assert!(local.lock("host-logs@web-1", |_| false).unwrap().is_some());
    }
}
