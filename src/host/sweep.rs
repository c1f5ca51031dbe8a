//! Ends every session that is due, together.
//!
//! What for: hundreds of sessions may end in one second. One scan of the machine's processes serves all of them, so whoever gets the
//! lock ends what is due, and spares the others the work by ending their watchers too, once nothing of their sessions is left.
//!
//! Invariants: the caller's own session is ended whether it still has a record or not, and whoever holds the lock (I-34). A session
//! whose record can't be understood is due, if what the file's name says of it can still be true. A record of an earlier
//! start of the machine names nobody and is forgotten.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::ending::{self, Ended, Ending, Target};
use super::event::{Event, Kind};
use super::journal;
use super::process::SessionId;
use super::record::{Folder, Key, Record};
use super::spool::Spool;
use crate::time::{Clock as _, Moment, SystemClock};

/// How long to wait for whoever ends sessions now. It ends ours too if it can; a holder that is stuck must not keep it alive.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often to look whether the lock is free.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// What takes longer than P8's two seconds is worth a line in the log, and slower rounds from then on.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_PAUSE: Duration = Duration::from_millis(200);

/// Why a session has ended, for the log.
const OVER: &str = "its window is over";
const EARLY: &str = "it was ended before its window";
const NONSENSE: &str = "its record made no sense";

/// Where sessions are known, and where their ends are put down.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Folder of the records.
    pub folder: &'a Folder,
    /// Where events go.
    pub spool: &'a Spool,
    /// Which start of the machine this is.
    pub boot_id: &'a str,
}

/// Ends the caller's own session, if it has one, and all others that are due until then. Returns when nothing of any is left.
pub fn end_due(place: &Place<'_>, own: Option<&Record>) {
    let lock = lock(place.folder);
    let mut ending = Ending::default();
    own.into_iter().for_each(|record| ending.add(record.target()));
    let (mut has_complained, mut is_blind) = (false, false);
    let mut over = BTreeSet::new();
    loop {
        for target in due(place, &over, SystemClock.moment()) {
            ending.add(target);
        }
        if ending.is_done() {
            break;
        }
        match ending.round() {
            Ok(ended) => over.extend(ended.into_iter().map(|session| dismiss(session, own))),
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
    // A disk that does not answer must keep nobody from ending the next ones.
    drop(lock);
    for key in over {
        report(place, key, own);
        place.folder.remove(key);
    }
    forget_earlier(place);
}

/// Forgets the sessions of an earlier start of the machine: none of them is left.
fn forget_earlier(place: &Place<'_>) {
    let read = |key| Record::parse(&place.folder.text(key).ok()??).ok();
    for record in place.folder.keys().into_iter().filter_map(read).filter(|record| record.boot_id != place.boot_id) {
        forget(place, &record, "the machine was restarted");
    }
}

/// Puts down that a session has ended, and forgets it.
pub(super) fn forget(place: &Place<'_>, record: &Record, why: &str) {
    place.spool.put(&Event::of(record, Kind::Ended, SystemClock.now(), why));
    place.folder.remove(record.key);
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

/// The sessions whose time has come, but for those that are over.
fn due(place: &Place<'_>, over: &BTreeSet<Key>, now: Moment) -> Vec<Target> {
    let folder = place.folder;
    let is_due = |key: Key| match folder.text(key) {
        Ok(Some(text)) => match Record::parse(&text) {
            Ok(record) if record.boot_id != place.boot_id => None,
            Ok(record) if record.key == key => record.deadline.left(now).is_zero().then(|| record.target()),
            Ok(_) | Err(_) => by_name(key),
        },
        Ok(None) => None,
        Err(_) => by_name(key),
    };
    folder.keys().into_iter().filter(|key| !over.contains(key)).filter_map(is_due).collect()
}

/// A session of which only the name is known: believed while its connection is there and says the same.
fn by_name(key: Key) -> Option<Target> {
    let holds = key.connection.is_running() && SessionId::of(key.connection.pid) == Some(key.session);
    holds.then_some(Target { session: key.session, connection: key.connection, watcher: None })
}

/// Nothing is left of it: its watcher, if that is not us, has nothing more to do.
fn dismiss(ended: Ended, own: Option<&Record>) -> Key {
    let Ended { target, processes } = ended;
    let is_own = own.is_some_and(|own| own.key.session == target.session);
    if let Some(watcher) = target.watcher.filter(|_| !is_own) {
        watcher.signal(Signal::KILL);
    }
    journal::note(&format!("session {} is over: {processes} processes were ended", target.session.number()));
    Key { session: target.session, connection: target.connection }
}

/// Puts down that a session has ended. Of one that nothing is known about, nothing can be told.
fn report(place: &Place<'_>, key: Key, own: Option<&Record>) {
    let own = own.filter(|own| own.key == key);
    let (record, why) = match place.folder.text(key).map(|text| text.map(|text| Record::parse(&text))) {
        Ok(Some(Ok(record))) if record.key == key => {
            let why = if record.deadline.wall < record.window.end() { EARLY } else { OVER };
            (Some(record), why)
        }
        Ok(None) => (own.cloned(), OVER),
        _ => (own.cloned(), NONSENSE),
    };
    if let Some(record) = record {
        place.spool.put(&Event::of(&record, Kind::Ended, SystemClock.now(), why));
    }
}
