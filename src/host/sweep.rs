//! Ends every session that is due, together.
//!
//! What for: hundreds of sessions may end in one second. One scan of the machine's processes serves all of them, so whoever gets the
//! lock ends what is due, and spares the others the work by ending their watchers too, once nothing of their sessions is left.
//!
//! Invariants: the caller's own session is ended whether it still has a record or not, and whoever holds the lock (I-34). A session
//! whose record can't be understood is due, if what the file's name says of it can still be true. A record of an earlier
//! start of the machine names nobody and is removed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::ending::{self, Ended, Ending, Target};
use super::journal;
use super::process::SessionId;
use super::record::{Folder, Key, Record};
use crate::time::{Moment, SystemClock};

/// How long to wait for whoever ends sessions now. It ends ours too if it can; a holder that is stuck must not keep it alive.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often to look whether the lock is free.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// What takes longer than P8's two seconds is worth a line in the log, and slower rounds from then on.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_PAUSE: Duration = Duration::from_millis(200);

/// Ends the caller's own session, and all others that are due until then. Returns when nothing of any is left.
pub fn end_due(folder: &Folder, own: Target, boot_id: &str) {
    let lock = lock(folder);
    let mut ending = Ending::default();
    ending.add(own);
    let (mut has_complained, mut is_blind) = (false, false);
    while !ending.is_done() {
        for target in due(folder, boot_id, SystemClock.moment()) {
            ending.add(target);
        }
        match ending.round() {
            Ok(ended) => ended.into_iter().for_each(|session| forget(folder, session, own.session)),
            Err(error) if !std::mem::replace(&mut is_blind, true) => {
                journal::note(&format!("cannot look for what is left of sessions, going on: {error}"));
            }
            Err(_) => {}
        }
        if ending.longest() < SLOW {
            Ending::pause();
        } else {
            if !std::mem::replace(&mut has_complained, true) {
                journal::note("something of a session did not end within 2 s; going on");
            }
            ending::wait(&[], SLOW_PAUSE);
        }
    }
    drop(lock);
}

/// The lock; `None` where it can't be had, which must not stop the end.
fn lock(folder: &Folder) -> Option<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
    let file = options.open(folder.lock_path()).ok()?;
    let began = Instant::now();
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > LOCK_WAIT {
            return None;
        }
        ending::wait(&[], LOCK_LOOK);
    }
    Some(file)
}

/// The sessions whose time has come.
fn due(folder: &Folder, boot_id: &str, now: Moment) -> Vec<Target> {
    let is_due = |key: Key| match folder.text(key) {
        Ok(Some(text)) => match Record::parse(&text) {
            Ok(record) if record.boot_id != boot_id => {
                folder.remove(key);
                None
            }
            Ok(record) if record.key == key => record.deadline.left(now).is_zero().then(|| record.target()),
            Ok(_) | Err(_) => by_name(key),
        },
        Ok(None) => None,
        Err(_) => by_name(key),
    };
    folder.keys().into_iter().filter_map(is_due).collect()
}

/// A session of which only the name is known: believed while its connection is there and says the same.
fn by_name(key: Key) -> Option<Target> {
    let holds = key.connection.is_running() && SessionId::of(key.connection.pid) == Some(key.session);
    holds.then_some(Target { session: key.session, connection: key.connection, watcher: None })
}

fn forget(folder: &Folder, ended: Ended, own: SessionId) {
    let Ended { target, processes } = ended;
    let key = Key { session: target.session, connection: target.connection };
    folder.remove(key);
    if let Some(watcher) = target.watcher.filter(|_| target.session != own) {
        watcher.signal(Signal::KILL);
    }
    journal::note(&format!("session {} is over: {processes} processes were ended", key.session.number()));
}
