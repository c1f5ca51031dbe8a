//! The sessions by our certificates that are on this host, for whoever looks after them: the host's daemon, or root by hand.
//!
//! What for: seeing them; giving those of a request another end, or ending them; and starting a watcher again where one is gone. What is
//! changed is the session's record: its watcher notices within a second, so nothing here has to stay for the end to come.
//!
//! What not: no session is safe because of this module. It makes good what went wrong, and carries out what was decided elsewhere.
//!
//! Invariants: a session whose record makes no sense, or whose watcher can't be had again, is ended. No extension goes beyond what the login's
//! other certificates allow. The record of a session without a watcher is written by whoever starts one again, and by nobody else but who
//! ends it: one that names a watcher of before, or of nobody, ends the session.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::arming::{Arms, Occasion};
use super::deadline::Deadline;
use super::ending::Target;
use super::journal;
use super::program::Program;
use super::record::{self, Folder, Key, Record};
use super::settings::{self, Settings};
use super::spool::Spool;
use super::sweep::{self, Place};
use crate::name::{RequestId, Serial};
use crate::ssh::Fingerprint;
use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp};

/// How long after [`Sessions::end`] a session ends: its watcher looks once a second, and its last words need 0.7 s.
const ENDS_IN: Duration = Duration::from_millis(1_800);

/// The sessions of this host. Everything here blocks, for some milliseconds; [`Sessions::tend`] for two seconds where it has to end something.
#[derive(Clone, Debug)]
pub struct Sessions {
    folder: Folder,
    spool: Spool,
    boot_id: String,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which.
    pub key: Key,
    /// What is known about it, or why nothing is.
    pub record: Result<Record, String>,
    /// Whether its watcher runs.
    pub is_watched: bool,
}

/// What is over before its time, by everything that a session can be known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Over {
    /// Requests that were ended.
    pub requests: BTreeSet<RequestId>,
    /// Certificates that were ended.
    pub serials: BTreeSet<Serial>,
    /// CA keys that are lost.
    pub cas: BTreeSet<Fingerprint>,
}

/// What [`Sessions::rearm`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rearmed {
    /// Sessions that have another end now.
    pub changed: usize,
    /// Sessions that would have, and have no watcher: it has to be done again once they have been tended.
    pub unwatched: usize,
}

/// What [`Sessions::tend`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Sessions that have a watcher again.
    pub watched: usize,
    /// Records of sessions of which nothing was left.
    pub forgotten: usize,
    /// Sessions that were ended, because nobody knows when they would have to.
    pub ended: usize,
}

impl Sessions {
    /// The sessions of the host with these settings.
    ///
    /// # Errors
    /// In words, when the folder of the records can't be had, or isn't safe.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        Self::at(&settings.state, &settings.spool)
    }

    /// Those that were left open by a host that has been enrolled; `None` if it never was since this machine's start.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn left_behind() -> Result<Option<Self>, String> {
        let state = Path::new(settings::STATE);
        if state.join("sessions").is_dir() { Self::at(state, Path::new(settings::SPOOL)).map(Some) } else { Ok(None) }
    }

    fn at(state: &Path, spool: &Path) -> Result<Self, String> {
        Ok(Self { folder: Folder::open(state)?, spool: Spool::at(spool), boot_id: record::boot_id()? })
    }

    /// Those of people: all but the host's own logins to itself.
    #[must_use]
    pub fn of_people(&self) -> Vec<Session> {
        let mut all = self.list();
        all.retain(|session| session.record.as_ref().map_or(true, |record| record.request().is_some()));
        all
    }

    /// All sessions with a record, by audit session id.
    #[must_use]
    pub fn list(&self) -> Vec<Session> {
        self.each().collect()
    }

    /// The same, each read only when it is its turn: whoever writes its record again writes over nothing of long ago.
    fn each(&self) -> impl Iterator<Item = Session> {
        let mut keys = self.folder.keys();
        keys.sort();
        keys.into_iter().filter_map(|key| self.session(key))
    }

    /// Gives the sessions of a request this end, as far as the login's other certificates allow, but for those that rest on what is over, or
    /// have no watcher.
    ///
    /// # Errors
    /// In words, for the first that could not be changed; the others are.
    pub fn rearm(&self, request: &RequestId, end: Timestamp, over: &Over) -> Result<Rearmed, String> {
        let mut unwatched = 0_usize;
        let changed = self.change(|record, is_watched| {
            let end = record.bound.map_or(end, |bound| bound.min(end));
            if record.request() != Some(request) || over.has(record) || record.deadline.wall == end {
                return None;
            }
            if !is_watched {
                // One may be started just now: its record must not name the one of before again.
                unwatched = unwatched.saturating_add(1);
                return None;
            }
            Some(Deadline::new(end, SystemClock.moment()))
        })?;
        Ok(Rearmed { changed, unwatched })
    }

    /// Ends the sessions of a request in two seconds at most, with a word on their terminals. How many.
    ///
    /// # Errors
    /// In words, for the first that could not be changed; the others are.
    pub fn end(&self, request: &RequestId) -> Result<usize, String> {
        self.end_where(|record| record.request() == Some(request))
    }

    /// Ends the sessions that rest on what is over, as [`Self::end`] does. How many. Cheap enough to be done again and again, for a
    /// session whose login was under way when it was done before.
    ///
    /// # Errors
    /// In words, for the first that could not be changed; the others are.
    pub fn end_over(&self, over: &Over) -> Result<usize, String> {
        if *over == Over::default() {
            return Ok(0);
        }
        self.end_where(|record| over.has(record))
    }

    fn end_where(&self, is_meant: impl Fn(&Record) -> bool) -> Result<usize, String> {
        let now = SystemClock.moment();
        let wall =
            SystemClock.now().plus(Lifetime::from_seconds(2).unwrap_or(Lifetime::ZERO)).map_err(|e| e.to_string())?;
        let soon = Deadline { wall, boot: now.boot.saturating_add(ENDS_IN) };
        // With or without a watcher: whichever its record names then, the session ends.
        self.change(|record, _| (is_meant(record) && record.deadline.left(now) > ENDS_IN).then_some(soon))
    }

    /// Looks after all sessions: starts a watcher again where one is gone, ends what nobody knows the end of, forgets what is over.
    ///
    /// The watchers are children of the caller, and outlive it; one that stays must reap them. So the daemon runs `hallpass host tend`.
    /// One caller at a time: of two watchers of one session the first ends it. `program` is the one that watches.
    ///
    /// # Errors
    /// In words, for the first that could not be looked after; the others are.
    pub fn tend(&self, program: &Program) -> Result<Tended, String> {
        let (mut tended, mut failed) = (Tended::default(), None);
        for session in self.each().filter(|session| !session.is_watched) {
            let done = match &session.record {
                Ok(record) if record.boot_id != self.boot_id => Ok(self.forget(record, "the machine was restarted")),
                Ok(record) => self.tend_known(record, program),
                Err(why) => self.tend_unknown(session.key, why),
            };
            match done {
                Ok(done) => tended.add(done),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        if tended.ended > 0 {
            sweep::end_due(&self.place(), None);
        }
        failed.map_or(Ok(tended), Err)
    }

    fn tend_known(&self, record: &Record, program: &Program) -> Result<Tended, String> {
        if !record.target().is_there().map_err(|error| error.to_string())? {
            return Ok(self.forget(record, "its connection was closed"));
        }
        journal::note(&format!("session {}: its watcher is gone, so another one watches", record.key));
        let arms = Arms { program, folder: &self.folder, spool: &self.spool };
        // Starting one takes its time: the session may have got another end meanwhile.
        let now = || self.session(record.key).and_then(|session| session.record.ok());
        let again = |watcher| Record { watcher, ..now().unwrap_or_else(|| record.clone()) };
        match arms.arm(record.key, Occasion::Again, again) {
            Ok(_) => Ok(Tended { watched: 1, ..Tended::default() }),
            Err(why) => {
                journal::note(&format!("session {}: no watcher can be had, so it is ended: {why}", record.key));
                let over = Deadline::new(SystemClock.now(), SystemClock.moment());
                self.folder.save(&Record { deadline: over, ..record.clone() })?;
                Ok(Tended { ended: 1, ..Tended::default() })
            }
        }
    }

    fn tend_unknown(&self, key: Key, why: &str) -> Result<Tended, String> {
        let target = Target { session: key.session, connection: key.connection, watcher: None };
        if key.connection.is_running() && target.is_there().map_err(|error| error.to_string())? {
            journal::note(&format!("session {key}: its record makes no sense, so it is ended: {why}"));
            return Ok(Tended { ended: 1, ..Tended::default() });
        }
        self.folder.remove(key);
        Ok(Tended { forgotten: 1, ..Tended::default() })
    }

    fn forget(&self, record: &Record, why: &str) -> Tended {
        sweep::forget(&self.place(), record, why);
        Tended { forgotten: 1, ..Tended::default() }
    }

    /// One session; `None` when it is over meanwhile.
    fn session(&self, key: Key) -> Option<Session> {
        let record = match self.folder.text(key) {
            Ok(text) => Record::parse(&text?).and_then(|record| {
                if record.key == key { Ok(record) } else { Err("it is about another session".to_owned()) }
            }),
            Err(why) => Err(why),
        };
        let is_watched =
            record.as_ref().is_ok_and(|record| record.boot_id == self.boot_id && record.watcher.is_running());
        Some(Session { key, record, is_watched })
    }

    /// Rewrites the records that are about this start of the machine and that `deadline` has another end for, by record and whether its watcher
    /// runs.
    fn change(&self, mut deadline: impl FnMut(&Record, bool) -> Option<Deadline>) -> Result<usize, String> {
        let (mut changed, mut failed) = (0_usize, None);
        let records = self.each().filter_map(|session| session.record.ok().map(|record| (record, session.is_watched)));
        for (record, is_watched) in records.filter(|(record, _)| record.boot_id == self.boot_id) {
            let Some(deadline) = deadline(&record, is_watched) else { continue };
            match self.folder.save(&Record { deadline, ..record }) {
                Ok(()) => changed = changed.saturating_add(1),
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    fn place(&self) -> Place<'_> {
        Place { folder: &self.folder, spool: &self.spool, boot_id: &self.boot_id }
    }
}

impl Over {
    fn has(&self, record: &Record) -> bool {
        record.request().is_some_and(|request| self.requests.contains(request))
            || self.serials.contains(&record.serial)
            || self.cas.contains(&record.ca)
    }
}

impl Tended {
    const fn add(&mut self, other: Self) {
        self.watched = self.watched.saturating_add(other.watched);
        self.forgotten = self.forgotten.saturating_add(other.forgotten);
        self.ended = self.ended.saturating_add(other.ended);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::event::Kind;
    use crate::host::process::Process;
    use crate::host::record::tests::record;

    /// A program that would be started as a watcher; none is here.
    fn nowhere() -> Program {
        Program::new(crate::host::program::Kind::Host, "/nowhere".into())
    }

    /// A host with one record, of a session of which nothing runs; its watcher is this test.
    fn host(state: &Path) -> (Sessions, Record) {
        let settings = Settings::parse("name = \"web-1\"\n", "x").unwrap();
        let settings = Settings { state: state.to_owned(), spool: state.join("spool"), ..settings };
        let sessions = Sessions::open(&settings).unwrap();
        sessions.spool.create().unwrap();
        let connection = Process { started: 0, ..Process::own().unwrap() };
        let session = crate::host::process::SessionId::new(u32::MAX - 1).unwrap();
        let record = Record {
            key: Key { session, connection },
            watcher: Process::own().unwrap(),
            deadline: Deadline::new(Timestamp::parse("2100-01-01T00:00:00Z").unwrap(), SystemClock.moment()),
            bound: Some(Timestamp::parse("2100-01-01T02:00:00Z").unwrap()),
            boot_id: record::boot_id().unwrap(),
            ..record()
        };
        sessions.folder.save(&record).unwrap();
        (sessions, record)
    }

    #[test]
    fn the_sessions_of_a_request_get_another_end_but_never_beyond_what_else_they_rest_on() {
        let state = tempfile::tempdir().unwrap();
        let (sessions, record) = host(state.path());
        let at = |text| Timestamp::parse(text).unwrap();
        let other = RequestId::parse("7K3F9QX3").unwrap();
        let rearm = |request: &RequestId, end| sessions.rearm(request, at(end), &Over::default());
        let (none, one) = (Ok(Rearmed::default()), Ok(Rearmed { changed: 1, unwatched: 0 }));
        assert_eq!(rearm(&other, "2100-01-01T01:00:00Z"), none);
        assert_eq!(rearm(record.request().unwrap(), "2100-01-01T00:00:00Z"), none, "it has that end");
        let over = Over { serials: BTreeSet::from([record.serial]), ..Over::default() };
        assert_eq!(sessions.rearm(record.request().unwrap(), at("2100-01-01T01:00:00Z"), &over), none, "it is over");
        let end = || sessions.list().pop().unwrap().record.unwrap().deadline.wall;
        for (asked, given) in
            [("2100-01-01T01:00:00Z", "2100-01-01T01:00:00Z"), ("2100-01-02T00:00:00Z", "2100-01-01T02:00:00Z")]
        {
            assert_eq!((rearm(record.request().unwrap(), asked), end()), (one.clone(), at(given)));
        }
        assert_eq!(
            (sessions.end(&other), sessions.end(record.request().unwrap()), sessions.end(record.request().unwrap())),
            (Ok(0), Ok(1), Ok(0))
        );
        let left = sessions.list().pop().unwrap().record.unwrap().deadline.left(SystemClock.moment());
        assert!(left <= ENDS_IN, "{left:?}");
    }

    #[test]
    fn what_rests_on_anything_that_is_over_ends_once_by_whichever_it_is_known() {
        let other_ca = Fingerprint::parse(&format!("SHA256:{}", "B".repeat(42) + "A")).unwrap();
        let others = Over {
            requests: BTreeSet::from([RequestId::parse("7K3F9QX3").unwrap()]),
            serials: BTreeSet::from([Serial::new(8).unwrap()]),
            cas: BTreeSet::from([other_ca]),
        };
        for pick in 0..3 {
            let state = tempfile::tempdir().unwrap();
            let (sessions, record) = host(state.path());
            let mut over = others.clone();
            assert_eq!((sessions.end_over(&Over::default()), sessions.end_over(&over)), (Ok(0), Ok(0)));
            match pick {
                0 => _ = over.requests.insert(*record.request().unwrap()),
                1 => _ = over.serials.insert(record.serial),
                // Whichever request it names: it may be the thief's.
                _ => _ = over.cas.insert(record.ca),
            }
            assert_eq!((sessions.end_over(&over), sessions.end_over(&over)), (Ok(1), Ok(0)));
            let left = sessions.list().pop().unwrap().record.unwrap().deadline.left(SystemClock.moment());
            assert!(left <= ENDS_IN, "{left:?}");
        }
    }

    #[test]
    fn a_watched_session_is_left_alone_and_what_is_over_or_of_an_earlier_start_is_forgotten_and_reported() {
        let state = tempfile::tempdir().unwrap();
        let (sessions, record) = host(state.path());
        assert_eq!(sessions.tend(&nowhere()), Ok(Tended::default()));
        let unwatched = Record { watcher: Process { started: 0, ..record.watcher }, ..record.clone() };
        let earlier = Record { boot_id: "01234567-89ab-cdef-0123-456789abcdef".to_owned(), ..record.clone() };
        for (record, why) in [(unwatched, "its connection was closed"), (earlier, "the machine was restarted")] {
            sessions.folder.save(&record).unwrap();
            assert_eq!(sessions.tend(&nowhere()), Ok(Tended { forgotten: 1, ..Tended::default() }));
            let events = sessions.spool.events(9);
            assert_eq!(
                events.iter().map(|event| (event.kind, event.why.as_str())).collect::<Vec<_>>(),
                [(Kind::Ended, why)]
            );
            sessions.spool.remove(&events[0]);
        }
        crate::durable::replace(&sessions.folder.path(record.key), b"garbage", 0o600).unwrap();
        assert!(sessions.list()[0].record.is_err());
        assert_eq!(sessions.tend(&nowhere()), Ok(Tended { forgotten: 1, ..Tended::default() }));
        assert_eq!(sessions.list(), []);
    }

    #[test]
    fn the_record_of_a_session_without_a_watcher_is_not_written_over_by_another_end_and_gets_an_early_one() {
        let state = tempfile::tempdir().unwrap();
        let (sessions, record) = host(state.path());
        let unwatched = Record { watcher: Process { started: 0, ..record.watcher }, ..record };
        sessions.folder.save(&unwatched).unwrap();
        let request = unwatched.request().unwrap();
        let rearm = |end| sessions.rearm(request, Timestamp::parse(end).unwrap(), &Over::default());
        assert_eq!(rearm("2100-01-01T01:00:00Z"), Ok(Rearmed { changed: 0, unwatched: 1 }));
        let text = sessions.folder.text(unwatched.key);
        assert_eq!(text, Ok(Some(unwatched.to_string())));
        assert_eq!(rearm("2100-01-01T00:00:00Z"), Ok(Rearmed::default()), "it has that end");
        assert_eq!(sessions.end(request), Ok(1));
    }

    /// Writes a program that watches nothing: it says that it is armed, after `script`. Not from here, where a process that is being started
    /// for another test may have it open.
    fn says_armed(folder: &Path, script: &str) -> Program {
        let path = folder.join("watches");
        let text = format!("#!/bin/sh\nread go\n{script}\necho armed\nexec sleep 1000 >/dev/null\n");
        let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
        let ran = std::process::Command::new("/bin/sh").args(["-c", write, "sh", &text]).arg(&path).status().unwrap();
        assert!(ran.success());
        Program::new(crate::host::program::Kind::Host, path)
    }

    /// A process that a session may rest on, or that watches.
    struct Killed(Process);

    impl Drop for Killed {
        fn drop(&mut self) {
            self.0.signal(rustix::process::Signal::KILL);
        }
    }

    #[test]
    fn a_session_keeps_the_end_that_it_is_given_while_watchers_are_started() {
        let state = tempfile::tempdir().unwrap();
        let (sessions, record) = host(state.path());
        sessions.folder.remove(record.key);
        let mut open = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let connection = Process::running(i32::try_from(open.id()).unwrap()).unwrap().unwrap();
        let _killed = Killed(connection);
        let [first, second] = [2, 1].map(|below| {
            let session = crate::host::process::SessionId::new(u32::MAX - below).unwrap();
            let (key, watcher) = (Key { session, connection }, Process { started: 0, ..record.watcher });
            Record { key, watcher, ..record.clone() }
        });
        for record in [&first, &second] {
            sessions.folder.save(record).unwrap();
        }
        // While the first gets a watcher, the second is given another end.
        let path = sessions.folder.path(second.key);
        let path = path.display();
        let given = format!("[ \"$4\" = {path} ] || sed -i 's/^end = .*/end = \"2100-01-01T01:00:00Z\"/' {path}");
        let program = says_armed(state.path(), &given);
        assert_eq!(sessions.tend(&program), Ok(Tended { watched: 2, ..Tended::default() }));
        let now = |key| sessions.session(key).unwrap().record.unwrap();
        let _watchers = [first.key, second.key].map(|key| Killed(now(key).watcher));
        let end = |key| now(key).deadline.wall.to_string();
        assert_eq!(
            (end(first.key), end(second.key)),
            (record.deadline.wall.to_string(), "2100-01-01T01:00:00Z".into())
        );
        // And the one whose turn it is.
        assert_eq!(sessions.tend_known(&second, &program), Ok(Tended { watched: 1, ..Tended::default() }));
        let _watcher = Killed(now(second.key).watcher);
        assert_eq!(end(second.key), "2100-01-01T01:00:00Z");
        open.kill().and_then(|()| open.wait()).unwrap();
    }
}
