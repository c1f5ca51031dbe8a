//! Ends what is left of SSH connections: their processes and everything these started. No network.
//!
//! What for: sshd never ends a session because its certificate expired (OPENSSH facts 3.9), so something else must. This
//! is the process side of it: find the processes below given roots, tell them to end, make sure that they did.
//!
//! What not: when to end (the caller knows the window) and which connections are ours.
//!
//! Invariants: a process is named by its pid *and* its start time, so that a reused pid is never signalled (I-35); the
//! set is scanned again after each round of signals until it is empty, because a process may fork while it is being ended.
//!
//! Why not only the connection's own process? Ending sshd leaves commands without a terminal, and everything that called
//! `setsid`, alive (OPENSSH facts 3.10). A process that left the tree by a double fork is found only where the caller is
//! the subreaper ([`adopt_orphans`]): orphans then become the caller's children instead of init's.
//!
//! Linux only: it reads `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process at one moment of its machine: pids are reused, start times tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Clock ticks since boot at which it started (field 22 of `/proc/PID/stat`).
    pub started: u64,
}

/// All processes of the machine as they were at one scan: who is whose parent.
#[derive(Debug)]
pub struct Processes {
    parents: BTreeMap<i32, (i32, u64)>,
}

/// How long [`end`] lets processes end by themselves before it kills them: enough for sshd to close its connection.
const GRACE: Duration = Duration::from_millis(300);

/// How long [`end`] tries in all: promise P8's two seconds.
const TRY_FOR: Duration = Duration::from_secs(2);

impl Processes {
    /// Scans `/proc`.
    ///
    /// # Errors
    /// When `/proc`, or what it says of a process that is there, can't be read: a process that can't be seen must not
    /// count as gone. Processes that vanish meanwhile are left out.
    pub fn scan() -> io::Result<Self> {
        let mut parents = BTreeMap::new();
        for folder in std::fs::read_dir("/proc")? {
            let name = folder?.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            if let Some(Look { is_over: false, parent, started }) = look(pid)? {
                parents.insert(pid, (parent, started));
            }
        }
        Ok(Self { parents })
    }

    /// The children of `pid`.
    #[must_use]
    pub fn children(&self, pid: i32) -> BTreeSet<Process> {
        let of = |(child, (parent, started)): (&i32, &(i32, u64))| {
            (*parent == pid).then_some(Process { pid: *child, started: *started })
        };
        self.parents.iter().filter_map(of).collect()
    }

    /// `roots`, as far as they still run, and everything below them.
    #[must_use]
    pub fn with_descendants(&self, roots: &BTreeSet<Process>) -> BTreeSet<Process> {
        let alive = |p: &Process| self.parents.get(&p.pid).is_some_and(|(_, started)| *started == p.started);
        let mut found: BTreeSet<Process> = roots.iter().filter(|p| alive(p)).copied().collect();
        let mut edge: Vec<Process> = found.iter().copied().collect();
        while let Some(parent) = edge.pop() {
            for child in self.children(parent.pid) {
                if found.insert(child) {
                    edge.push(child);
                }
            }
        }
        found
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    parent: i32,
    started: u64,
    /// A zombie: it runs nothing any more.
    is_over: bool,
}

/// Looks at a process; `None` when it is gone.
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
    parse_stat(&stat).map(Some).ok_or_else(unreadable)
}

/// "No such process", which reading a file of a process that has just ended gives.
const ESRCH: i32 = 3;

/// From a line of `/proc/PID/stat`. The command name is whatever bytes the process chose, also brackets, blanks and what is
/// not UTF-8, so fields are counted from the last `)` and nothing before it is looked at.
fn parse_stat(stat: &[u8]) -> Option<Look> {
    let rest = stat.rsplit(|byte| *byte == b')').next()?;
    let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Look { parent, started, is_over: matches!(state, "Z" | "X") })
}

/// Makes this process the parent of orphans below it, so that no double fork escapes [`Processes::with_descendants`].
///
/// # Errors
/// Where the kernel does not have it.
pub fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(io::Error::from)
}

/// Ends `roots` and everything below them, and `orphans()` (asked anew at each round): TERM first, then KILL until none is left.
/// Returns how many processes were signalled.
///
/// # Errors
/// When some are left after two seconds, or `/proc` can't be read.
pub async fn end(roots: &BTreeSet<Process>, orphans: impl Fn(&Processes) -> BTreeSet<Process>) -> io::Result<usize> {
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
        let waited = began.elapsed();
        if waited > TRY_FOR {
            let pids: Vec<String> = left.iter().map(|p| p.pid.to_string()).collect();
            return Err(io::Error::other(format!("processes {} did not end in {TRY_FOR:?}", pids.join(", "))));
        }
        for process in &left {
            if waited > GRACE {
                signal(*process, Signal::KILL);
            } else if !asked.contains(process) {
                signal(*process, Signal::TERM);
            }
            asked.insert(*process);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Signals exactly this process: a pidfd is opened first and the start time compared after, so a reused pid is never hit.
/// A process that is gone already is fine.
fn signal(process: Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if look(process.pid).is_ok_and(|now| now.is_some_and(|now| now.started == process.started)) {
        // Only "no such process" can come back for a process we may signal; the next scan tells.
        let _gone = pidfd_send_signal(&pidfd, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = b"42 (a) b (c)) S 7 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse_stat(stat), Some(Look { parent: 7, started: 12345, is_over: false }));
        let stat = b"42 (\xff\xfe) Z 7 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse_stat(stat), Some(Look { parent: 7, started: 12345, is_over: true }));
        assert_eq!(parse_stat(b"42 (x) S"), None);
    }

    #[tokio::test]
    async fn a_process_whose_name_is_not_text_is_ended_like_any_other() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = tokio::process::Command::new(&program).arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let root = Processes::scan().unwrap().children(own).into_iter().find(|p| p.pid == pid).unwrap();
        let reaped = tokio::spawn(async move { child.wait().await });
        assert_eq!(end(&BTreeSet::from([root]), |_| BTreeSet::new()).await.unwrap(), 1);
        assert!(!reaped.await.unwrap().unwrap().success());
    }

    #[test]
    fn descendants_stop_at_a_reused_pid() {
        let machine = Processes { parents: BTreeMap::from([(10, (1, 5)), (11, (10, 6)), (12, (11, 7))]) };
        let all = machine.with_descendants(&BTreeSet::from([Process { pid: 10, started: 5 }]));
        assert_eq!(all.iter().map(|p| p.pid).collect::<Vec<_>>(), [10, 11, 12]);
        let reused = machine.with_descendants(&BTreeSet::from([Process { pid: 10, started: 4 }]));
        assert!(reused.is_empty());
    }

    #[tokio::test]
    async fn a_process_that_ignores_term_and_its_children_are_ended() {
        let mut child = tokio::process::Command::new("sh")
            .args(["-c", "trap '' TERM; sleep 600 & echo started; wait; sleep 600"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Wait for its word that the trap is set and the child runs.
        let mut out = child.stdout.take().unwrap();
        let mut line = [0; 8];
        tokio::io::AsyncReadExt::read_exact(&mut out, &mut line).await.unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let scan = Processes::scan().unwrap();
        let root =
            scan.children(i32::try_from(std::process::id()).unwrap()).into_iter().find(|p| p.pid == pid).unwrap();
        let reaped = tokio::spawn(async move { child.wait().await });
        assert!(end(&BTreeSet::from([root]), |_| BTreeSet::new()).await.unwrap() >= 2);
        assert!(!reaped.await.unwrap().unwrap().success());
    }
}
