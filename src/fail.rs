//! Fail points: named places where a crash test makes the process die. Without the `failpoints` feature they are nothing.
//!
//! A point is armed as `NAME` or `NAME:N` (die at the N-th pass). Dying is `abort`: no destructor runs and no buffer is
//! flushed, as after `kill -9`. With `panic:` before the name only the thread that passes panics, as after a mistake of ours. Each durable step has one before and one after it, so that the crash tests, which go
//! through [`POINTS`], find out what a restart makes of every state that a crash can leave.

/// Every fail point there is; a test compares this list with the calls in the source.
pub const POINTS: &[&str] = &[
    // store/sqlite/group.rs, store/postgres/group.rs: a change is written, but its group is not committed.
    "store.change.written",
    // The whole group is written, the commit is the next instruction.
    "store.commit.before",
    // The group is durable, nobody has been told.
    "store.commit.after",
    // service/issue.rs: the to-be-signed bytes are durable in the log, the signer has not been called.
    "issue.intent.durable",
    // The signature exists and is verified, its outcome entry is not written.
    "issue.signed",
    // The outcome entry is durable, the certificate has not been handed out.
    "issue.outcome.durable",
    // service/enrol.rs: a host, its token spent and its session are durable, the host has not been told.
    "enrol.durable",
    // service/host_issue.rs: the to-be-signed bytes are durable in the log, the signer has not been called.
    "host.intent.durable",
    // The signature exists and is verified, its outcome entry is not written.
    "host.signed",
    // service/rotate.rs: the entry that says which CA keys there are is durable, the service still goes by the one before.
    "rotate.durable",
    // service/follow.rs: the log's head is read, what other nodes wrote is not.
    "follow.looked",
    // service/recover.rs: some lost entries have one in their place; some requests are over; somebody has answered for it; the kept
    // checkpoint is new.
    "recover.filled",
    "recover.ended",
    "recover.given_up",
    "recover.kept",
    // store/backup.rs: the database is copied; the manifest is there; the folder has its name.
    "backup.copied",
    "backup.written",
    "backup.placed",
    // cli/backup.rs: the database that comes back is checked, and not in its place; it is.
    "restore.checked",
    "restore.placed",
    // store/copy.rs: the copy is committed, the file is as it was; the file is marked as moved.
    "migrate.copied",
    "migrate.marked",
    // enrolment/: nothing is written down; the way back is; an account exists; before and after each file; sshd has read it; it has
    // let the host in; before and after it holds.
    "enrolment.journal.before",
    "enrolment.journal.durable",
    "enrolment.account.made",
    "enrolment.file.before",
    "enrolment.file.written",
    "enrolment.sshd.reloaded",
    "enrolment.login.proven",
    "enrolment.keep.before",
    "enrolment.keep.durable",
    // The way back: a file has come back; sshd's all have, and sshd does not know; an account is gone.
    "enrolment.file.restored",
    "enrolment.sshd.restored",
    "enrolment.account.removed",
];

/// Passes the fail point `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn point(name: &'static str) {
    let _ = name;
}

#[cfg(feature = "failpoints")]
static ARMED: std::sync::Mutex<Option<Armed>> = std::sync::Mutex::new(None);

#[cfg(feature = "failpoints")]
struct Armed {
    name: String,
    count: u32,
    panics: bool,
}

/// Arms one point, given as `NAME` or `NAME:N`; called by `cli/serve.rs` from the environment, in crash tests only. What is
/// not a point kills at once: a crash test that arms nothing would test nothing.
#[cfg(feature = "failpoints")]
pub fn arm(text: &str) {
    let (panics, text) = text.strip_prefix("panic:").map_or((false, text), |rest| (true, rest));
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let count = count.parse().ok().filter(|count| *count > 0);
    let (true, Some(count)) = (POINTS.contains(&name), count) else { std::process::abort() };
    *ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
        Some(Armed { name: name.to_owned(), count, panics });
}

/// Passes the fail point `name`; dies there if it is armed and this is the pass.
#[cfg(feature = "failpoints")]
pub fn point(name: &'static str) {
    let mut armed = ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(point) = armed.as_mut().filter(|point| point.name == name) else { return };
    point.count = point.count.saturating_sub(1);
    if point.count > 0 {
        return;
    }
    assert!(!point.panics, "fail point {name}");
    std::process::abort();
}
