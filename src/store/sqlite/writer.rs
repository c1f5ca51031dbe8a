//! The writer thread: takes what waits, up to [`GROUP_MAX`], into one transaction, and answers after its commit.
//!
//! A group is a sequence:
//! 1. `BEGIN IMMEDIATE`;
//! 2. each member in a savepoint: a member that is refused (conflict, replay, linter) is undone alone;
//! 3. the log's head; 4. `COMMIT`, with its `fsync`; 5. the answers.
//!
//! A crash before 4 leaves none of the group, a crash after 4 all of it; no member was told of success before 5. When the
//! database fails (disk full, I/O error), every member of the group is told so, whatever it would have been told, and the
//! connection is opened anew before the next group, head and all: what the memory believed is not trusted any more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{change, failed, file, host, log, login, stopped};
use crate::fail;
use crate::identity::mac::MacKey;
use crate::store::{Change, Committed, Head, Note, StoreError};
use crate::time::Timestamp;

/// How many changes share a commit at most: beyond it the gain is small (PERFORMANCE.md) and the first waits for the last.
const GROUP_MAX: usize = 256;

/// How many jobs may wait. Four groups: what comes later would wait too long and is told to try again.
const QUEUE_MAX: usize = 4 * GROUP_MAX;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write.
pub(super) enum Job {
    /// A change with its log entries.
    Commit(Box<Change>, Reply<Committed>),
    /// Something on which no decision rests.
    Note(Box<Note>, Reply<()>),
    /// Forget what is over.
    Sweep(Timestamp, Reply<()>),
    /// A write that means nothing.
    Ready(Reply<()>),
}

/// Tells a member how it went, once the fate of its group is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

/// The running thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(path: PathBuf, key: Arc<MacKey>, conn: Connection, head: Head) -> Result<Self, StoreError> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || Groups { path, key, open: Some((conn, head)) }.serve(&receiver))
            .map_err(|error| StoreError::Failed { doing: "starting the writer", why: error.to_string() })?;
        Ok(Self { queue: Some(sender), thread: Some(thread) })
    }

    /// Whether its thread runs.
    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    pub(super) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or_else(|| stopped("writing"))?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => stopped("writing"),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has dropped its answers, which their callers saw as failures.
            drop(thread.join());
        }
    }
}

/// The thread's state: `open` is `None` after a failure, until the file could be opened again.
struct Groups {
    path: PathBuf,
    key: Arc<MacKey>,
    open: Option<(Connection, Head)>,
}

impl Groups {
    fn serve(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut jobs = vec![first];
            while jobs.len() < GROUP_MAX
                && let Ok(job) = queue.try_recv()
            {
                jobs.push(job);
            }
            self.write(jobs);
        }
    }

    fn write(&mut self, jobs: Vec<Job>) {
        let (conn, head) = match self.reopen() {
            Ok(open) => open,
            Err(error) => return jobs.into_iter().for_each(|job| job.refuse(error.clone())),
        };
        let mut answers = Vec::with_capacity(jobs.len());
        let outcome = write_group(&conn, &self.key, head, jobs, &mut answers);
        let fate = match outcome {
            Ok(head) => {
                self.open = Some((conn, head));
                Ok(())
            }
            Err(error) => {
                // Closing undoes what was open, before anybody is told.
                drop(conn);
                tracing::error!(%error, members = answers.len(), "a group of changes was not written");
                Err(error)
            }
        };
        for answer in answers {
            answer(fate.clone());
        }
    }

    fn reopen(&mut self) -> Result<(Connection, Head), StoreError> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let conn = file::connect_writer(&self.path)?;
        let head = log::load_checked(&conn, &self.key)?;
        Ok((conn, head))
    }
}

/// Writes a group; returns the head that is durable now. On an error nothing of it is claimed, and the connection is not
/// to be used again.
fn write_group(
    conn: &Connection,
    key: &MacKey,
    head: Head,
    jobs: Vec<Job>,
    answers: &mut Vec<Answer>,
) -> Result<Head, StoreError> {
    let doing = "committing a group of changes";
    let mut jobs = jobs.into_iter();
    let mut appending = head.clone();
    let mut is_written = false;
    let mut outcome = sql(conn, "BEGIN IMMEDIATE", doing);
    while outcome.is_ok()
        && let Some(job) = jobs.next()
    {
        outcome = member(conn, &mut appending, job, answers).map(|wrote| is_written |= wrote);
    }
    answers.extend(jobs.map(Job::refusal));
    outcome?;
    if !is_written {
        // Nothing but refusals and reads: no disk is needed to say so.
        sql(conn, "ROLLBACK", doing)?;
        return Ok(head);
    }
    log::save_head(conn, key, &appending)?;
    fail::point("store.commit.before");
    sql(conn, "COMMIT", doing)?;
    fail::point("store.commit.after");
    Ok(appending)
}

/// Runs one member in its savepoint. `Ok`: whether it wrote; an error ends the whole group.
fn member(conn: &Connection, head: &mut Head, job: Job, answers: &mut Vec<Answer>) -> Result<bool, StoreError> {
    let doing = "writing one of a group of changes";
    let mut trial = head.clone();
    if let Err(error) = sql(conn, "SAVEPOINT member", doing) {
        answers.push(job.refusal());
        return Err(error);
    }
    let wrote = match job {
        Job::Commit(change, reply) => {
            keep(change::apply(conn, &mut trial, *change).map(|done| (done, true)), reply, answers)
        }
        Job::Note(note, reply) => keep(host::note(conn, &note).map(|()| ((), true)), reply, answers),
        Job::Sweep(now, reply) => keep(login::sweep(conn, now).map(|wrote| ((), wrote)), reply, answers),
        Job::Ready(reply) => keep(log::probe(conn).map(|()| ((), true)), reply, answers),
    };
    if wrote.is_none() {
        sql(conn, "ROLLBACK TO member", doing)?;
    }
    sql(conn, "RELEASE member", doing)?;
    if conn.is_autocommit() {
        let why = "the database undid the transaction by itself".to_owned();
        return Err(StoreError::Failed { doing, why });
    }
    if wrote.is_some() {
        *head = trial;
    }
    let wrote = wrote.unwrap_or(false);
    if wrote {
        fail::point("store.change.written");
    }
    Ok(wrote)
}

/// Keeps a member's result until the fate of its group is known. `Some`: it succeeded, and whether it wrote.
fn keep<T: 'static>(result: Result<(T, bool), StoreError>, reply: Reply<T>, answers: &mut Vec<Answer>) -> Option<bool> {
    let wrote = result.as_ref().ok().map(|(_, wrote)| *wrote);
    answers.push(Box::new(move |fate| {
        // A caller who went away needs no answer; what was committed stands.
        drop(reply.send(fate.and_then(|()| result.map(|(done, _)| done))));
    }));
    wrote
}

fn sql(conn: &Connection, statement: &str, doing: &'static str) -> Result<(), StoreError> {
    conn.prepare_cached(statement).and_then(|mut s| s.execute([])).map(drop).map_err(failed(doing))
}

impl Job {
    /// The answer of a member that was not tried; only ever given with an error as the group's fate.
    fn refusal(self) -> Answer {
        Box::new(move |fate| {
            self.refuse(fate.err().unwrap_or_else(|| stopped("writing")));
        })
    }

    fn refuse(self, error: StoreError) {
        match self {
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::Note(_, reply) | Self::Sweep(_, reply) | Self::Ready(reply) => drop(reply.send(Err(error))),
        }
    }
}
