//! Locks on a host: one enrolment or leaving at a time, and one daemon.
//!
//! No lock is ever left over: it is the kernel's, and goes with the process, however that ends; the file stays.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::places::Root;

/// What there may be one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum One {
    /// Enrolling, or leaving.
    Enrolment,
    /// The daemon.
    Daemon,
}

/// It is ours until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// In words: somebody else has it.
    pub fn take(one: One) -> Result<Self, String> {
        let (path, other) = match one {
            One::Enrolment => {
                ("/run/hallpass-enrolment.lock", "another `hallpass host enrol` or `leave` is at work here")
            }
            One::Daemon => ("/run/hallpass-host.lock", "another `hallpass host run` looks after this host already"),
        };
        let path: PathBuf = Root::default().path(path);
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(&path).map_err(|error| format!("cannot open {path:?}: {error}"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(_) => Err(other.to_owned()),
        }
    }
}
