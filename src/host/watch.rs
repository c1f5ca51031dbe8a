//! The watcher: one small process for each session, which ends it when its time has come.
//!
//! What for: it is started at login, detached from everything, and needs nobody: no daemon, no network, no service, no sshd but the
//! connection's own. It says the warnings, sees an extension or an early end in the session's record, and ends the session.
//!
//! Invariants: it reports itself armed only once nothing but its own death can keep it from ending the session. The deadline it
//! knows holds whatever happens to the record; a record that makes no sense ends the session (I-34), one that is gone is put back. It holds no lock and no
//! file while it waits.
//!
//! *Why a process for each session and not one for all?* Nothing has to be running for a login to be safe, and one that dies takes
//! no other session's deadline with it.

use std::io::{BufRead as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::deadline::{Notice, Pace};
use super::event::{Event, Kind};
use super::process::Process;
use super::record::{Folder, Key, Record};
use super::spool::Spool;
use super::sweep::Place;
use super::{ending, journal, sweep, terminal};
use crate::time::{Clock as _, SystemClock};

/// What a watcher is told when the record of a session that begins is written.
pub const GO: &str = "go\n";
/// The same for a session that was there with another watcher.
pub const GO_ON: &str = "go on\n";
/// What it says when it is ready.
pub const ARMED: &str = "armed\n";

/// How often to look whether anything is left of a session whose connection has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// The stack of the thread that puts down that the session began: it formats a line and writes a file.
const REPORT_STACK: usize = 128 * 1024;

/// A watcher at work.
struct Watcher {
    folder: Folder,
    spool: Spool,
    record: Record,
    /// The record's text as it was read last.
    text: String,
    /// Readable once the connection has ended; `None` afterwards.
    connection: Option<OwnedFd>,
    /// By the clock that nobody sets: when to look for what the connection left behind.
    look_at: Duration,
}

/// Watches over the session that the record at `path` is about, until it is over.
///
/// Waits for [`GO`] or [`GO_ON`] on standard input first,
/// and says [`ARMED`] on standard output. Puts down in `spool` what happens.
///
/// # Errors
/// When it can't be armed; nothing is watched then, and the login must not go on.
pub fn run(path: &Path, spool: Spool) -> Result<(), String> {
    let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(told("cannot read standard input"))?;
    if line != GO && line != GO_ON {
        return Err("it is the guard that starts this".to_owned());
    }
    rustix::process::setsid().map_err(|error| format!("cannot leave the session: {error}"))?;
    survive();
    let mut watcher = Watcher::open(path, spool)?;
    std::io::stdout().write_all(ARMED.as_bytes()).map_err(told("cannot report"))?;
    std::io::stdout().flush().map_err(told("cannot report"))?;
    silence();
    // Only now: the kernel takes its time, and the login waits no longer.
    leave_group();
    let reported = if line == GO { watcher.report_opened() } else { None };
    watcher.watch();
    // Nothing is left to end, so there is time to wait for the disk.
    reported.map_or(Ok(()), |thread| thread.join().map_err(|_| "the thread that reports failed".to_owned()))
}

/// The kernel's last resort when memory is short must not be us: we are small, and a session would be immortal.
fn survive() {
    // Where it is not allowed, we are no worse off than others.
    let file = std::fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj");
    drop(file.and_then(|mut file| file.write_all(b"-1000")));
}

/// Leaves the control group of the connection, which a service manager may empty when the connection ends, for the root's. Where
/// that can't be done, we are where everybody else is.
fn leave_group() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for folder in mounts.lines().filter_map(manager_group) {
        let file = std::fs::OpenOptions::new().write(true).open(Path::new(folder).join("cgroup.procs"));
        // "0" is whoever writes.
        drop(file.and_then(|mut file| file.write_all(b"0")));
    }
}

/// Where the control groups are mounted by which service managers keep processes: the one of version 2, or systemd's own of version 1.
fn manager_group(mount: &str) -> Option<&str> {
    let mut fields = mount.split(' ');
    let (folder, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
    (kind == "cgroup2" || options.split(',').any(|option| option == "name=systemd")).then_some(folder)
}

/// Lets go of the guard's pipes, so that nobody waits for us.
fn silence() {
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        // They end with the guard anyway.
        let _input = rustix::stdio::dup2_stdin(&null);
        let _output = rustix::stdio::dup2_stdout(&null);
        let _errors = rustix::stdio::dup2_stderr(&null);
    }
}

impl Watcher {
    fn open(path: &Path, spool: Spool) -> Result<Self, String> {
        let name = path.file_name().and_then(|name| name.to_str());
        let key = name.and_then(Key::parse).ok_or("the record's name is not that of a session")?;
        let folder = Folder::of(path).ok_or("the record is in no folder")?;
        let text = folder.text(key)?.ok_or("there is no record")?;
        let record = Record::parse(&text)?;
        let own = Process::own().map_err(|error| error.to_string())?;
        if record.key != key || record.watcher != own {
            return Err("the record is not about this session and this process".to_owned());
        }
        let connection = key.connection.open();
        Ok(Self { folder, spool, record, text, connection, look_at: Duration::ZERO })
    }

    /// In a thread of its own: the end comes also when the disk does not answer.
    fn report_opened(&self) -> Option<std::thread::JoinHandle<()>> {
        let (spool, event) = (self.spool.clone(), Event::of(&self.record, Kind::Opened, SystemClock.now(), ""));
        // Without a thread the log of the machine has it, which the guard wrote.
        std::thread::Builder::new().stack_size(REPORT_STACK).spawn(move || spool.put(&event)).ok()
    }

    fn watch(&mut self) {
        let mut pace = Pace::starting(self.record.deadline.left(SystemClock.moment()));
        loop {
            let makes_sense = self.refresh();
            let now = SystemClock.moment();
            let left = self.record.deadline.left(now);
            if let Some(notice) = pace.due(left) {
                terminal::say(&self.record, notice);
            }
            if !makes_sense || left.is_zero() {
                sweep::end_due(&self.place(), Some(&self.record));
                return;
            }
            if self.is_over(now.boot) {
                sweep::forget(&self.place(), &self.record, "its connection was closed");
                return;
            }
            ending::wait(&self.connection.iter().collect::<Vec<_>>(), pace.wait());
        }
    }

    fn place(&self) -> Place<'_> {
        Place { folder: &self.folder, spool: &self.spool, boot_id: &self.record.boot_id }
    }

    /// Reads the record again. Whether it makes sense; one that is gone changes nothing and is put back.
    fn refresh(&mut self) -> bool {
        let text = match self.folder.text(self.record.key) {
            Ok(Some(text)) if text != self.text => text,
            Ok(Some(_)) => return true,
            Ok(None) => {
                // Where that can't be done, the deadline that we know holds all the same.
                drop(self.folder.restore(&self.record));
                return true;
            }
            Err(why) => return self.nonsense(&why),
        };
        match Record::parse(&text) {
            Ok(record) if (record.key, record.watcher) == (self.record.key, self.record.watcher) => {
                (self.record, self.text) = (record, text);
                true
            }
            Ok(_) => self.nonsense("it is about another session"),
            Err(why) => self.nonsense(&why),
        }
    }

    fn nonsense(&self, why: &str) -> bool {
        journal::note(&format!("session {}: its record makes no sense, so it is ended: {why}", self.record.key));
        terminal::say(&self.record, Notice::Over);
        false
    }

    /// Whether the connection has ended and left nothing behind.
    fn is_over(&mut self, now: Duration) -> bool {
        if self.connection.is_some() && self.record.key.connection.is_running() {
            return false;
        }
        self.connection = None;
        if now < self.look_at {
            return false;
        }
        self.look_at = now.saturating_add(LEFT_BEHIND);
        // What can't be looked for counts as there.
        self.record.target().is_there().is_ok_and(|is_there| !is_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_managers_groups_are_found_among_the_mounts() {
        for (mount, folder) in [
            ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0", Some("/sys/fs/cgroup")),
            ("cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0", Some("/sys/fs/cgroup/systemd")),
            ("cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0", None),
            ("tmpfs /run tmpfs rw 0 0", None),
            ("", None),
        ] {
            assert_eq!(manager_group(mount), folder, "{mount}");
        }
    }
}
