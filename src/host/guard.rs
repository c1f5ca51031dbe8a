//! The guard: run by PAM when sshd opens a session, it lets the login go on only once its end is certain. No network.
//!
//! What for: `session required pam_exec.so quiet type=open_session /usr/local/bin/hallpass-host guard`, below `pam_loginuid`. An exit
//! code other than 0 makes sshd close the connection.
//!
//! Order, and what a crash leaves behind: judge the login; arm its end ([`arming`](super::arming)); judge it again; only then succeed. A crash
//! before the last step is a failure for PAM, so the login does not go on; the watcher ends with its pipe, and the record of a session
//! that never was goes with the next sweep after its time. What is refused is put down for the service, too.
//!
//! Invariants: nothing but a login that is not ours, or an armed watcher, makes [`open`] succeed.
//!
//! *Why twice?* Whoever ends a certificate early writes the ended list first, and then ends the sessions that have a record. A login that had
//! read the list before that and had no record yet would be missed by both. So what opens it is read once more when the record is there.

use std::net::IpAddr;
use std::path::Path;

use thiserror::Error;

use super::arming::{Arms, Occasion};
use super::deadline::Deadline;
use super::event::{self, Event, Kind};
use super::judgement::{Denial, Governed, Judgement, Rules, first_of_ours, judge};
use super::process::{Process, SessionId};
use super::program::Program;
use super::record::{self, Folder, Key, Record};
use super::spool::Spool;
use crate::name::Account;
use crate::time::{Clock as _, SystemClock};

/// What PAM and sshd say of a login, from the environment.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// `PAM_USER`.
    pub account: String,
    /// `SSH_AUTH_INFO_0`.
    pub auth_info: Option<Vec<u8>>,
    /// The client's address: the first word of `SSH_CONNECTION`.
    pub from: Option<IpAddr>,
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

/// A session is about to open: the caller is the child of the connection's process. `program` is the one that runs.
///
/// # Errors
/// [`Refused`]: the connection must be closed.
pub fn open(login: &Login, settings: &Path, program: &Program) -> Result<Passed, Refused> {
    open_session(login, settings, program, || Ok(Key { session: session()?, connection: connection()? }))
}

/// The same for a session that the caller knows.
///
/// # Errors
/// [`Refused`]: the connection must be closed.
pub fn open_session(
    login: &Login,
    settings: &Path,
    program: &Program,
    key: impl FnOnce() -> Result<Key, String>,
) -> Result<Passed, Refused> {
    let rules = Rules::load(settings);
    let passed = try_open(login, &rules, program, key).and_then(|passed| match passed {
        // Its watcher sees the connection end.
        Passed::Armed(_) => still_open(login, &Rules::load(settings)).map(|()| passed),
        Passed::NotOurs | Passed::Unguarded(_) => Ok(passed),
    });
    if let (Err(why), Ok(rules)) = (&passed, &rules) {
        report(login, rules, &why.to_string());
    }
    passed
}

fn try_open(
    login: &Login,
    rules: &Result<Rules, String>,
    program: &Program,
    key: impl FnOnce() -> Result<Key, String>,
) -> Result<Passed, Refused> {
    match judge(login.auth_info.as_deref(), &login.account, rules, SystemClock.now())? {
        Judgement::NotOurs => Ok(Passed::NotOurs),
        Judgement::Unguarded(why) => Ok(Passed::Unguarded(why)),
        Judgement::Governed(governed) => {
            let rules = rules.as_ref().map_err(|why| Refused::NotArmed(why.clone()))?;
            let record = key().and_then(|key| arm(login, &governed, rules, program, key)).map_err(Refused::NotArmed)?;
            Ok(Passed::Armed(Box::new(record)))
        }
    }
}

/// Whether a login whose record is there would be let in by what is there now.
fn still_open(login: &Login, rules: &Result<Rules, String>) -> Result<(), Refused> {
    match judge(login.auth_info.as_deref(), &login.account, rules, SystemClock.now())? {
        Judgement::Governed(_) => Ok(()),
        Judgement::NotOurs | Judgement::Unguarded(_) => Err(Refused::Denied(Denial::Stranger)),
    }
}

/// Makes sure that the session ends.
fn arm(login: &Login, governed: &Governed, rules: &Rules, program: &Program, key: Key) -> Result<Record, String> {
    let (folder, spool) = (Folder::open(&rules.settings.state)?, Spool::at(&rules.settings.spool));
    let (host, boot_id) = (rules.settings.name.clone(), record::boot_id()?);
    let arms = Arms { program, folder: &folder, spool: &spool };
    arms.arm(key, Occasion::Login, |watcher| {
        let deadline = Deadline::new(governed.fields.window.end(), SystemClock.moment());
        Record { from: login.from, ..Record::new(governed, host, key, watcher, deadline, boot_id) }
    })
}

/// Puts down that a login by a certificate of ours was refused. Of others, and of what can't be read, nothing is known that could be told.
fn report(login: &Login, rules: &Rules, why: &str) {
    let (Some((fields, ca)), Ok(account)) =
        (first_of_ours(login.auth_info.as_deref(), rules), Account::parse(&login.account))
    else {
        return;
    };
    // The session is not one yet, so what tells it from others is our own process.
    let (Ok(own), Ok(boot_id), Some(session)) = (Process::own(), record::boot_id(), SessionId::new(0)) else { return };
    let event = Event {
        id: event::id(Kind::Refused, Key { session, connection: own }, &boot_id),
        kind: Kind::Refused,
        serial: fields.serial,
        key_id: fields.key_id,
        ca,
        account,
        from: login.from.map(|from| from.to_string()).unwrap_or_default(),
        at: SystemClock.now(),
        why: event::one_line(why),
    };
    Spool::at(&rules.settings.spool).put(&event);
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
