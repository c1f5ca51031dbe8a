//! The guard: run by PAM when sshd opens a session, it lets the login go on only once its end is certain. No network.
//!
//! What for: `session required pam_exec.so quiet type=open_session /usr/local/bin/hallpass host guard`, below `pam_loginuid`. An exit
//! code other than 0 makes sshd close the connection.
//!
//! Order, and what a crash leaves behind: judge the login; start the watcher, which waits; write the record; let the watcher go; wait
//! until it says that it is armed; only then succeed. A crash before the last step is a failure for PAM, so the login does not
//! go on; the watcher ends with its pipe, and the record of a session that never was goes with the next sweep after its time.
//!
//! Invariants: nothing but a login that is not ours, or an armed watcher, makes [`open`] succeed.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use thiserror::Error;

use super::deadline::Deadline;
use super::ending;
use super::judgement::{Denial, Governed, Judgement, Rules, judge};
use super::process::{Process, SessionId};
use super::record::{self, Folder, Key, Record};
use super::watch::{ARMED, GO};
use crate::time::{Clock as _, SystemClock};

/// How long the watcher may take until it is armed. It takes some milliseconds; a login that waits longer than this is refused.
const ARM_WITHIN: Duration = Duration::from_secs(10);

/// What PAM and sshd say of a login, from the environment.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// `PAM_USER`.
    pub account: String,
    /// `SSH_AUTH_INFO_0`.
    pub auth_info: Option<Vec<u8>>,
}

/// How a login went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// Not by our CA.
    NotOurs,
    /// No certificate, and `host.toml` can't be read: why not.
    Unguarded(String),
    /// By our CA; its end is armed.
    Armed(Box<Record>),
}

/// Why a login does not go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// A rule says so.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// Its end can't be made sure.
    #[error("the end of this session can't be made sure: {0}")]
    NotArmed(String),
}

/// A session is about to open: the caller is the child of the connection's process. `program` is hallpass.
///
/// # Errors
/// [`Refused`]: the connection must be closed.
pub fn open(login: &Login, settings: &Path, program: &Path) -> Result<Passed, Refused> {
    let rules = Rules::load(settings);
    match judge(login.auth_info.as_deref(), &login.account, &rules, SystemClock.now())? {
        Judgement::NotOurs => Ok(Passed::NotOurs),
        Judgement::Unguarded(why) => Ok(Passed::Unguarded(why)),
        Judgement::Governed(governed) => {
            let rules = rules.map_err(Refused::NotArmed)?;
            let record = arm(&governed, &rules, program).map_err(Refused::NotArmed)?;
            Ok(Passed::Armed(Box::new(record)))
        }
    }
}

/// Makes sure that the session ends.
fn arm(governed: &Governed, rules: &Rules, program: &Path) -> Result<Record, String> {
    let told = |error: std::io::Error| error.to_string();
    let key = Key { session: session()?, connection: connection()? };
    let folder = Folder::open(&rules.settings.state)?;
    let mut watcher = Watcher::start(program, &folder.path(key))?;
    let process = watcher.process().map_err(told)?;
    let deadline = Deadline::new(governed.fields.window.end(), SystemClock.moment());
    let record = Record::new(governed, rules.settings.name.clone(), key, process, deadline, record::boot_id()?);
    folder.save(&record)?;
    if let Err(why) = watcher.release() {
        folder.remove(key);
        return Err(why);
    }
    Ok(record)
}

/// The audit session id, by which everything of the session is found later.
fn session() -> Result<SessionId, String> {
    SessionId::of(rustix::process::getpid().as_raw_pid()).ok_or_else(|| {
        "there is no audit session id: pam_loginuid must stand above this line, and the kernel must have auditing"
            .to_owned()
    })
}

/// The connection's process: PAM runs us as its child.
fn connection() -> Result<Process, String> {
    let parent = rustix::process::getppid().ok_or("the connection's process is not visible here")?;
    let running = Process::running(parent.as_raw_pid()).map_err(|error| error.to_string())?;
    running.ok_or_else(|| "the connection's process has ended".to_owned())
}

/// A watcher that waits to be let go. Dropped before that, it ends.
struct Watcher {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    is_armed: bool,
}

impl Watcher {
    fn start(program: &Path, record: &Path) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.args(["host", "watch"]).arg(record).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot run {program:?}: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self { child, input, output, is_armed: false })
    }

    fn process(&self) -> std::io::Result<Process> {
        let pid = i32::try_from(self.child.id()).map_err(std::io::Error::other)?;
        Process::running(pid)?.ok_or_else(|| std::io::Error::other("the watcher has ended"))
    }

    /// Lets it go, and waits for its word.
    fn release(&mut self) -> Result<(), String> {
        let lost = |error: std::io::Error| format!("the watcher is lost: {error}");
        self.input.take().ok_or("no pipe")?.write_all(GO.as_bytes()).map_err(lost)?;
        let output = OwnedFd::from(self.output.take().ok_or("no pipe")?);
        ending::wait(&[&output], ARM_WITHIN);
        // Nothing to read after that wait would block for ever; so it is not read.
        rustix::io::ioctl_fionbio(&output, true).map_err(|error| lost(error.into()))?;
        let mut word = [0; ARMED.len()];
        std::fs::File::from(output).read_exact(&mut word).map_err(lost)?;
        self.is_armed = word == ARMED.as_bytes();
        if self.is_armed { Ok(()) } else { Err("the watcher is not armed".to_owned()) }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if !self.is_armed {
            // It has ended or ends now; what can't be ended here has no pipe to be let go by.
            drop(self.child.kill().and_then(|()| self.child.wait()));
        }
    }
}
