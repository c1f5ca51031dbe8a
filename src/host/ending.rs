//! Ends processes: tells them to, makes sure that they did. No network.
//!
//! What for: sshd never ends a session because its certificate expired (OPENSSH facts 3.9), so something else must. [`Ending`] is
//! one round of that for any number of sessions, repeated by the caller until nothing is left; [`end`] does it for a tree of
//! processes (the demo's).
//!
//! What not: when to end (the caller knows the window) and which connections are ours.
//!
//! Invariants: only processes of the given sessions are signalled, each by pid and start time (I-35). The set is scanned again
//! after each round of signals, because a process may fork while it is being ended; a session counts as ended after two empty
//! scans in a row, because reading `/proc` takes time, and what is born behind the reader is not seen. A process that changes
//! its pid faster than a scan takes is looked for by glances, and struck as soon as it is seen.
//!
//! Why not only the connection's own process? Ending sshd leaves commands without a terminal, and everything that called
//! `setsid`, alive (OPENSSH facts 3.10). Killing it without asking first leaves the connection open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::process::{self, Process, Processes, SessionId};

/// How long processes may end by themselves before they are killed: enough for sshd to close its connection and for an
/// editor to write its recovery file. Our own choice, well inside P8's two seconds.
const GRACE: Duration = Duration::from_millis(500);

/// Until this time what is left is stopped before it is killed: who is stopped forks no more, and still counts for the account's limit
/// of processes. After it something may be escaping the scans: it is looked for in another way as well.
const STUBBORN: Duration = Duration::from_millis(700);

/// How long [`end`] tries in all: promise P8's two seconds.
const TRY_FOR: Duration = Duration::from_secs(2);

/// How long to wait between two scans.
const PAUSE: Duration = Duration::from_millis(20);

/// How many empty scans in a row mean that nothing is left.
const EMPTY_SCANS: u8 = 2;

/// One session that has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its audit session id.
    pub session: SessionId,
    /// The process of its connection.
    pub connection: Process,
    /// The process that watches over it, which is of the session too, and is spared.
    pub watcher: Option<Process>,
}

/// Sessions on their way out.
#[derive(Debug, Default)]
pub struct Ending {
    underway: BTreeMap<SessionId, Underway>,
}

/// One of them.
#[derive(Debug)]
struct Underway {
    target: Target,
    began: Instant,
    asked: BTreeSet<Process>,
    stopped: BTreeSet<Process>,
    empty_scans: u8,
}

/// A session of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub target: Target,
    /// How many processes were signalled.
    pub processes: usize,
}

impl Ending {
    /// Adds a session; one that is there already goes on as it was.
    pub fn add(&mut self, target: Target) {
        let fresh = || Underway {
            target,
            began: Instant::now(),
            asked: BTreeSet::new(),
            stopped: BTreeSet::new(),
            empty_scans: 0,
        };
        self.underway.entry(target.session).or_insert_with(fresh);
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.underway.is_empty()
    }

    /// How long the session that takes longest has been on its way.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.underway.values().map(|one| one.began.elapsed()).max().unwrap_or_default()
    }

    /// One scan and one round of signals. Returns the sessions of which nothing is left, which are then forgotten.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn round(&mut self) -> io::Result<Vec<Ended>> {
        let now = Processes::scan()?;
        let (mut there, mut unsure) = (BTreeSet::new(), BTreeSet::new());
        for (session, one) in &mut self.underway {
            let left = one.target.left(&now);
            if left.is_empty() || one.began.elapsed() > STUBBORN {
                unsure.insert(*session);
            }
            if !left.is_empty() {
                there.insert(*session);
                one.signal(&left);
            }
        }
        there.extend(self.glance(&now, &unsure));
        let mut ended = Vec::new();
        self.underway.retain(|session, one| {
            one.empty_scans = if there.contains(session) { 0 } else { one.empty_scans.saturating_add(1) };
            let is_over = one.empty_scans >= EMPTY_SCANS;
            if is_over {
                ended.push(Ended { target: one.target, processes: one.asked.len() });
            }
            !is_over
        });
        Ok(ended)
    }

    /// Which of these sessions something is there of after all; it is killed where its time to end by itself is over.
    fn glance(&self, since: &Processes, unsure: &BTreeSet<SessionId>) -> BTreeSet<SessionId> {
        if unsure.is_empty() {
            return BTreeSet::new();
        }
        let watchers = self.underway.values().filter_map(|one| one.target.watcher).map(|watcher| watcher.pid);
        let spared = watchers.chain([rustix::process::getpid().as_raw_pid()]).collect();
        let is_late = |session| self.underway.get(&session).is_some_and(|one| one.began.elapsed() > GRACE);
        process::glance(since, unsure, &spared, |session| is_late(session).then_some(Signal::KILL))
    }

    /// Waits a little before the next round.
    pub fn pause() {
        wait(&[], PAUSE);
    }
}

impl Target {
    /// What is there of it apart from its watcher and us.
    fn left(&self, now: &Processes) -> BTreeSet<Process> {
        let mut left = now.of_session(self.session, self.connection);
        let own = rustix::process::getpid().as_raw_pid();
        left.retain(|process| process.pid != own && Some(*process) != self.watcher);
        left
    }

    /// Whether anything is there of it apart from its watcher and us.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn is_there(&self) -> io::Result<bool> {
        let now = Processes::scan()?;
        if !self.left(&now).is_empty() {
            return Ok(true);
        }
        let watcher = self.watcher.map(|watcher| watcher.pid);
        let spared = watcher.into_iter().chain([rustix::process::getpid().as_raw_pid()]).collect();
        Ok(!process::glance(&now, &BTreeSet::from([self.session]), &spared, |_| None).is_empty())
    }
}

impl Underway {
    /// TERM once, then STOP until nothing new comes, then KILL.
    fn signal(&mut self, left: &BTreeSet<Process>) {
        let waited = self.began.elapsed();
        let new: Vec<&Process> = left.iter().filter(|process| !self.stopped.contains(*process)).collect();
        if waited > GRACE && waited <= STUBBORN && !new.is_empty() {
            new.iter().for_each(|process| process.signal(Signal::STOP));
            self.stopped.extend(new);
            self.asked.extend(left);
            return;
        }
        // The connection first: it then closes in an orderly way.
        let first = left.get(&self.target.connection);
        let others = left.iter().filter(|process| **process != self.target.connection);
        ask(first.into_iter().chain(others), &mut self.asked, waited);
    }
}

/// TERM once, then KILL.
fn ask<'p>(left: impl Iterator<Item = &'p Process>, asked: &mut BTreeSet<Process>, waited: Duration) {
    for process in left {
        let is_new = asked.insert(*process);
        if waited > GRACE {
            process.signal(Signal::KILL);
        } else if is_new {
            process.signal(Signal::TERM);
        }
    }
}

/// Waits until one of these is readable, or `at_most` has passed.
pub(super) fn wait(on: &[&OwnedFd], at_most: Duration) {
    let mut fds: Vec<PollFd<'_>> = on.iter().map(|fd| PollFd::new(*fd, PollFlags::IN)).collect();
    let at_most = Timespec::try_from(at_most).ok();
    // An interruption is as good as the time having passed: every caller looks again.
    let _ready = poll(&mut fds, at_most.as_ref());
}

/// Makes this process the parent of orphans below it, so that no double fork escapes [`Processes::with_descendants`].
///
/// # Errors
/// Where the kernel does not have it.
pub fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(io::Error::from)
}

/// Ends `roots` and everything below them, and `orphans()` (asked anew at each round).
///
/// TERM first, then KILL until none is left. Returns how many processes were signalled. Blocks for two seconds at most.
///
/// # Errors
/// When some are left after two seconds, or `/proc` can't be read.
pub fn end(roots: &BTreeSet<Process>, orphans: impl Fn(&Processes) -> BTreeSet<Process>) -> io::Result<usize> {
    let began = Instant::now();
    let mut known = roots.clone();
    let mut asked = BTreeSet::new();
    loop {
        let now = Processes::scan()?;
        known.extend(orphans(&now));
        let left = now.with_descendants(&known);
        known.extend(left.iter().copied());
        if left.is_empty() {
            return Ok(asked.len());
        }
        if began.elapsed() > TRY_FOR {
            let pids: Vec<String> = left.iter().map(|p| p.pid.to_string()).collect();
            return Err(io::Error::other(format!("processes {} did not end in {TRY_FOR:?}", pids.join(", "))));
        }
        ask(left.iter(), &mut asked, began.elapsed());
        wait(&[], PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::{Child, Command, ExitStatus, Stdio};

    use super::*;

    /// Ends a child of this test with all below it; how many were signalled and how it ended.
    fn end_child(mut child: Child) -> (usize, ExitStatus) {
        let root = Process::running(i32::try_from(child.id()).unwrap()).unwrap().unwrap();
        let reaped = std::thread::spawn(move || child.wait().unwrap());
        (end(&BTreeSet::from([root]), |_| BTreeSet::new()).unwrap(), reaped.join().unwrap())
    }

    #[test]
    fn a_process_whose_name_is_not_text_is_ended_like_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
        std::fs::copy("/bin/sleep", &program).unwrap();
        let (count, status) = end_child(Command::new(&program).arg("600").spawn().unwrap());
        assert!(count == 1 && !status.success());
    }

    #[test]
    fn a_process_that_ignores_term_and_its_children_are_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; sleep 600 & echo started; wait; sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Wait for its word that the trap is set and the child runs.
        child.stdout.take().unwrap().read_exact(&mut [0; 8]).unwrap();
        let (count, status) = end_child(child);
        assert!(count >= 2 && !status.success());
    }

    #[test]
    fn a_session_of_which_nothing_runs_is_over_after_two_scans_and_nothing_is_signalled() {
        let target = Target {
            session: SessionId::new(u32::MAX - 1).unwrap(),
            connection: Process { started: 0, ..Process::own().unwrap() },
            watcher: None,
        };
        let mut ending = Ending::default();
        ending.add(target);
        assert_eq!(ending.round().unwrap(), []);
        assert_eq!(ending.round().unwrap(), [Ended { target, processes: 0 }]);
        assert!(ending.is_done());
    }
}
