//! The machine's processes at one moment: who is whose parent, who belongs to which login.
//!
//! What for: finding everything that a session consists of, and signalling exactly that.
//!
//! Invariants: a process is named by its pid *and* its start time, so that a reused pid is never signalled (I-35). A process
//! belongs to a login by its audit session id, which `pam_loginuid` sets and an ordinary user can't change, whatever it does
//! with `setsid` or double forks (OPENSSH facts 3.10). A descendant that has an audit session id of its own is a login of its own.
//! A process runs as long as any of its threads does: one whose first thread has ended is shown as a zombie, and is none.
//!
//! Linux only: it reads `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process at one moment of its machine: pids are reused, start times tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Clock ticks since boot at which it started (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

/// The audit session id of a login; never the "unset" of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(u32);

/// All processes of the machine as they were at one scan.
#[derive(Debug, Default)]
pub struct Processes {
    all: BTreeMap<i32, Look>,
}

/// What `/proc` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    parent: i32,
    started: u64,
    /// None of its threads runs any more.
    is_over: bool,
    /// Device number of its terminal, 0 for none.
    terminal: u32,
    session: Option<SessionId>,
}

/// What the kernel writes for processes of no login.
const SESSION_UNSET: u32 = u32::MAX;

impl SessionId {
    /// The login with this number; `None` for the kernel's "unset".
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == SESSION_UNSET { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The login that a process belongs to.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/sessionid")).ok()?;
        text.trim().parse().ok().and_then(Self::new)
    }
}

impl Process {
    /// This process.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn own() -> io::Result<Self> {
        Self::running(rustix::process::getpid().as_raw_pid())?.ok_or_else(|| io::Error::other("no /proc/self"))
    }

    /// The process that runs under this number now.
    ///
    /// # Errors
    /// When `/proc` can't be read.
    pub fn running(pid: i32) -> io::Result<Option<Self>> {
        Ok(look(pid)?.filter(|now| !now.is_over).map(|now| Self { pid, started: now.started }))
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(self) -> bool {
        Self::running(self.pid).is_ok_and(|now| now == Some(self))
    }

    /// A descriptor of exactly this process, readable once it has ended; `None` if it has.
    #[must_use]
    pub fn open(self) -> Option<OwnedFd> {
        // Opened first and compared after, so a reused pid is never meant.
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        self.is_running().then_some(fd)
    }

    /// Signals exactly this process. One that is gone already is fine.
    pub fn signal(self, signal: Signal) {
        if let Some(fd) = self.open() {
            // Only "no such process" can come back for a process we may signal; the next scan tells.
            let _gone = pidfd_send_signal(&fd, signal);
        }
    }
}

impl Processes {
    /// Scans `/proc`.
    ///
    /// # Errors
    /// When `/proc`, or what it says of a process that is there, can't be read: a process that can't be seen must not
    /// count as gone. Processes that vanish meanwhile are left out.
    pub fn scan() -> io::Result<Self> {
        let mut all = BTreeMap::new();
        for folder in std::fs::read_dir("/proc")? {
            let name = folder?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            if let Some(found) = look(pid)?.filter(|found| !found.is_over) {
                all.insert(pid, Look { session: SessionId::of(pid), ..found });
            }
        }
        Ok(Self { all })
    }

    /// The children of `pid`.
    #[must_use]
    pub fn children(&self, pid: i32) -> BTreeSet<Process> {
        self.all.iter().filter(|(_, look)| look.parent == pid).map(named).collect()
    }

    /// `roots`, as far as they still run, and everything below them.
    #[must_use]
    pub fn with_descendants(&self, roots: &BTreeSet<Process>) -> BTreeSet<Process> {
        self.descend(roots, |_| true)
    }

    /// Everything of one login: its connection's process, whatever has its audit session id, and what these started that
    /// belongs to no login.
    #[must_use]
    pub fn of_session(&self, session: SessionId, connection: Process) -> BTreeSet<Process> {
        let has_id = |(_, look): &(&i32, &Look)| look.session == Some(session);
        let mut roots: BTreeSet<Process> = self.all.iter().filter(has_id).map(named).collect();
        roots.insert(connection);
        self.descend(&roots, |look| look.session.is_none_or(|its| its == session))
    }

    fn descend(&self, roots: &BTreeSet<Process>, belongs: impl Fn(&Look) -> bool) -> BTreeSet<Process> {
        let mut below: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
        for (pid, look) in self.all.iter().filter(|(_, look)| belongs(look)) {
            below.entry(look.parent).or_default().push(Process { pid: *pid, started: look.started });
        }
        let alive = |p: &Process| self.all.get(&p.pid).is_some_and(|look| look.started == p.started);
        let mut found: BTreeSet<Process> = roots.iter().filter(|p| alive(p)).copied().collect();
        let mut edge: Vec<Process> = found.iter().copied().collect();
        while let Some(parent) = edge.pop() {
            let children = below.get(&parent.pid).map(Vec::as_slice).unwrap_or_default();
            edge.extend(children.iter().filter(|child| found.insert(**child)));
        }
        found
    }
}

fn named((pid, look): (&i32, &Look)) -> Process {
    Process { pid: *pid, started: look.started }
}

/// The user that a process runs as.
pub(super) fn user_of(pid: i32) -> Option<u32> {
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|folder| folder.uid())
}

/// Looks again and again for what has come since a scan and belongs to these logins, and signals it as `signal` says.
///
/// Newest first, each as soon as it is seen. Returns the logins of which something was seen. For a process that forks and ends faster
/// than a scan takes: it has another pid by the time its turn comes, and would be missed for ever. Each process is opened before its
/// login is read, so a reused pid is never signalled.
pub(super) fn glance(
    since: &Processes,
    wanted: &BTreeSet<SessionId>,
    spared: &BTreeSet<i32>,
    signal: impl Fn(SessionId) -> Option<Signal>,
) -> BTreeSet<SessionId> {
    let (mut sighted, mut known): (_, BTreeSet<i32>) = (BTreeSet::new(), since.all.keys().copied().collect());
    for _ in 0..GLANCES {
        let Ok(folders) = std::fs::read_dir("/proc") else { return wanted.clone() };
        let pids = folders.flatten().filter_map(|folder| folder.file_name().to_str().and_then(|n| n.parse().ok()));
        let there: BTreeSet<i32> = pids.collect();
        for pid in there.iter().rev().filter(|pid| !known.contains(*pid) && !spared.contains(*pid)) {
            let Some(fd) = Pid::from_raw(*pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
                continue;
            };
            let Some(session) = SessionId::of(*pid).filter(|session| wanted.contains(session)) else { continue };
            if let Some(signal) = signal(session) {
                // Gone already is fine.
                let _gone = pidfd_send_signal(&fd, signal);
            }
            // What has ended says whose it was until its parent has been told, and runs nothing.
            if !look(*pid).is_ok_and(|look| look.is_some_and(|look| look.is_over)) {
                sighted.insert(session);
            }
        }
        known = there;
    }
    sighted
}

/// How many times [`glance`] looks. A process that lives for a tenth of a millisecond is seen in every second or third look.
const GLANCES: usize = 30;

/// The children of a process, by the kernel's own list; none where it keeps none.
pub(super) fn children_of(pid: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The device number of a process's terminal.
pub(super) fn terminal_of(pid: i32) -> Option<u32> {
    look(pid).ok().flatten().map(|look| look.terminal).filter(|device| *device != 0)
}

/// Looks at a process; `None` when it is gone. Its login is not looked at.
fn look(pid: i32) -> io::Result<Option<Look>> {
    let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        // It ended before the file was opened, or between that and the reading.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let unreadable = || io::Error::other(format!("/proc/{pid}/stat is not as proc(5) says"));
    let (found, threads) = parse_stat(&stat).ok_or_else(unreadable)?;
    // The state is the first thread's, and the others may run on without it.
    let is_over = found.is_over && (threads <= 1 || ended_threads(pid) >= threads);
    Ok(Some(Look { is_over, ..found }))
}

/// How many threads of a process are there and run no more. What can't be read counts as running, as does a thread that begins or goes
/// while the list is read: the next look tells.
fn ended_threads(pid: i32) -> u64 {
    let has_ended = |stat: Vec<u8>| parse_stat(&stat).is_some_and(|(thread, _)| thread.is_over);
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ended = threads.filter(|thread| std::fs::read(thread.path().join("stat")).is_ok_and(has_ended));
    u64::try_from(ended.count()).unwrap_or(0)
}

/// "No such process", which reading a file of a process that has just ended gives.
const ESRCH: i32 = 3;

/// From a line of `/proc/PID/stat`, or of a thread's: with how many threads the process has. The command name is whatever bytes the process chose, also brackets, blanks and what is
/// not UTF-8, so fields are counted from the last `)` and nothing before it is looked at.
fn parse_stat(stat: &[u8]) -> Option<(Look, u64)> {
    let rest = stat.rsplit(|byte| *byte == b')').next()?;
    let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // A signed number in the file, and a device number's bits in it.
    let terminal = fields.nth(2)?.parse::<i32>().ok()?.cast_unsigned();
    let threads = fields.nth(12)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some((Look { parent, started, is_over: matches!(state, "Z" | "X"), terminal, session: None }, threads))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(parent: i32, started: u64, session: Option<u32>) -> Look {
        Look { parent, started, is_over: false, terminal: 0, session: session.and_then(SessionId::new) }
    }

    fn pids(found: &BTreeSet<Process>) -> Vec<i32> {
        found.iter().map(|p| p.pid).collect()
    }

    #[test]
    fn a_command_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = b"42 (a) b (c)) S 7 42 42 34816 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let read = Look { terminal: 34816, ..look_at(7, 12345, None) };
        assert_eq!(parse_stat(stat), Some((read, 1)));
        let stat = b"42 (\xff\xfe) Z 7 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0";
        assert_eq!(parse_stat(stat), Some((Look { is_over: true, ..look_at(7, 12345, None) }, 3)));
        assert_eq!(parse_stat(b"42 (x) S"), None);
    }

    /// What the kernel says of the first thread alone.
    fn first_thread(pid: i32) -> (Look, u64) {
        parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).unwrap()).unwrap()
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_runs_until_the_last_one_has() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/guard/headless.c");
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("headless");
        let built = std::process::Command::new("cc").args(["-pthread", "-o"]).arg(&program).arg(source).status();
        assert!(built.unwrap().success());
        let mut child = std::process::Command::new(&program).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while !first_thread(pid).0.is_over {
            std::thread::yield_now();
        }
        let process = Process::running(pid).unwrap().unwrap();
        assert!(process.is_running() && process.open().is_some());
        let now = Processes::scan().unwrap();
        assert_eq!(pids(&now.with_descendants(&BTreeSet::from([process]))), [pid]);
        process.signal(Signal::KILL);
        while first_thread(pid).1 > 1 {
            std::thread::yield_now();
        }
        // Not waited for yet, so what it was is still there.
        assert!(!process.is_running() && process.open().is_none());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn descendants_stop_at_a_reused_pid() {
        let all = BTreeMap::from([(10, look_at(1, 5, None)), (11, look_at(10, 6, None)), (12, look_at(11, 7, None))]);
        let machine = Processes { all };
        let all = machine.with_descendants(&BTreeSet::from([Process { pid: 10, started: 5 }]));
        assert_eq!(pids(&all), [10, 11, 12]);
        let reused = machine.with_descendants(&BTreeSet::from([Process { pid: 10, started: 4 }]));
        assert!(reused.is_empty());
    }

    #[test]
    fn a_session_is_its_id_and_what_it_started_but_never_another_login() {
        let machine = Processes {
            all: BTreeMap::from([
                (1, look_at(0, 1, None)),
                (10, look_at(1, 5, Some(7))),  // the connection
                (11, look_at(10, 6, Some(7))), // its shell
                (20, look_at(1, 7, Some(7))),  // a double fork
                (30, look_at(11, 8, None)),    // belongs to no login
                (31, look_at(30, 9, Some(9))), // a login of its own below it
                (32, look_at(31, 9, None)),    // and what that started
                (40, look_at(1, 9, Some(9))),  // another login
            ]),
        };
        let seven = SessionId::new(7).unwrap();
        let connection = Process { pid: 10, started: 5 };
        assert_eq!(pids(&machine.of_session(seven, connection)), [10, 11, 20, 30]);
        // The connection's number now belongs to somebody else: found by the id alone.
        let gone = Process { pid: 40, started: 1 };
        assert_eq!(pids(&machine.of_session(seven, gone)), [10, 11, 20, 30]);
        assert!(machine.of_session(SessionId::new(8).unwrap(), gone).is_empty());
        assert_eq!(SessionId::new(u32::MAX), None);
    }

    #[test]
    fn a_process_that_has_ended_or_whose_number_was_reused_is_not_opened() {
        let own = Process::own().unwrap();
        assert!(own.is_running() && own.open().is_some());
        let earlier = Process { started: own.started.wrapping_sub(1), ..own };
        assert!(!earlier.is_running() && earlier.open().is_none());
        // Would end this test if it were sent.
        earlier.signal(Signal::KILL);
    }
}
