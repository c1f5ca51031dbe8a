//! The writer thread of every store: takes what waits, up to [`GROUP_MAX`], into one transaction, and answers after its commit.
//!
//! A group is a sequence, whose database part is [`Groups`]:
//! 1. the transaction begins; a database that is waited for then takes what has come meanwhile;
//! 2. each member is tried: one that is refused (conflict, replay, linter) is undone alone;
//! 3. the log's head; 4. the commit, which makes it durable; 5. the answers; 6. what need not be done before them.
//!
//! A crash before 4 leaves none of the group, a crash after 4 all of it; no member was told of success before 5. When the
//! database fails (disk full, I/O error, connection lost), every member of the group is told so, whatever it would have been
//! told: a group has one fate. From then on the store is in doubt: what a probe needs may have room where a change has none. So who asks whether
//! a write would succeed is told no, until there was room for more than a change needs ([`ROOM_BYTES`]), taken and given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::change::{self, Rows};
use super::{Change, Committed, Figures, Head, Note, StoreError};
use crate::time::Timestamp;

/// How many changes share a commit at most: beyond it the gain is small (PERFORMANCE.md) and the first waits for the last.
pub(super) const GROUP_MAX: usize = 256;

/// How much room there must be after a failure before it is said again that a write would succeed. Our own choice: some ten times what a request needs in the
/// write-ahead log from question to certificate, and little on any disk that is not full.
pub(super) const ROOM_BYTES: u32 = 256 * 1024;

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

/// Takes those that ask whether a write would succeed out of these jobs.
pub(super) fn take_questions(jobs: &mut Vec<Job>) -> Vec<Job> {
    jobs.extract_if(.., |job| matches!(job, Job::Ready(_))).collect()
}

/// Tells a member how it went, once the fate of its group is known.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>)>;

/// What waits for the next group.
pub(super) struct Queue<'q>(&'q Receiver<Job>);

impl Queue<'_> {
    /// Takes what waits into this group, as far as it has room.
    pub(super) fn join(&self, jobs: &mut Vec<Job>) {
        while jobs.len() < GROUP_MAX
            && let Ok(job) = self.0.try_recv()
        {
            jobs.push(job);
        }
    }
}

/// One database's part of it. Used on the writer thread alone.
pub(super) trait Groups: Send + 'static {
    /// Writes a group durably; what waits in the queue may go along. Each job becomes one of the answers, which are called with the
    /// result: on an error nothing of the group is claimed, and what the memory believed of the database is read anew before the next
    /// group.
    fn write(&mut self, jobs: Vec<Job>, queue: &Queue<'_>, answers: &mut Vec<Answer>) -> Result<(), StoreError>;

    /// After the answers, what need not be done before them.
    fn rest(&mut self) {}
}

/// What it did since it was started.
#[derive(Debug, Default)]
struct Counts {
    taken: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
    groups: AtomicU64,
    failed: AtomicU64,
    micros: AtomicU64,
}

fn add(count: &AtomicU64, by: usize) {
    count.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The running thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(groups: impl Groups) -> Result<Self, StoreError> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || serve(groups, &receiver, &counted))
            .map_err(|error| StoreError::Failed { doing: "starting the writer", why: error.to_string() })?;
        Ok(Self { queue: Some(sender), counts, thread: Some(thread) })
    }

    /// Whether its thread runs.
    pub(super) fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Hands a job over, or refuses it at once.
    pub(super) fn submit(&self, job: Job) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or_else(|| stopped("writing"))?;
        // Counted before: the thread may answer before we come to it.
        add(&self.counts.taken, 1);
        queue.try_send(job).map_err(|error| {
            add(&self.counts.answered, 1);
            match error {
                TrySendError::Full(_) => {
                    add(&self.counts.refused, 1);
                    StoreError::Busy
                }
                TrySendError::Disconnected(_) => stopped("writing"),
            }
        })
    }

    /// What it did so far, and how much waits.
    pub(super) fn figures(&self) -> Figures {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let answered = read(&self.counts.answered);
        Figures {
            waiting: read(&self.counts.taken).saturating_sub(answered),
            refused: read(&self.counts.refused),
            members: answered.saturating_sub(read(&self.counts.refused)),
            groups: read(&self.counts.groups),
            failed: read(&self.counts.failed),
            micros: read(&self.counts.micros),
            unmerged: 0,
            is_merging: true,
        }
    }

    /// Hands a job over when it is first polled, and waits for its answer.
    pub(super) async fn run<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.submit(job(reply))?;
        answer.await.map_err(|_dropped| stopped("writing"))?
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

/// What a caller is told when the thread that should answer is gone.
pub(super) fn stopped(doing: &'static str) -> StoreError {
    StoreError::Failed { doing, why: "the database thread has stopped".to_owned() }
}

fn serve(mut groups: impl Groups, queue: &Receiver<Job>, counts: &Counts) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        let waiting = Queue(queue);
        waiting.join(&mut jobs);
        let mut answers = Vec::with_capacity(jobs.len());
        let began = Instant::now();
        let fate = groups.write(jobs, &waiting, &mut answers);
        add(&counts.groups, 1);
        add(&counts.failed, usize::from(fate.is_err()));
        counts.micros.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        add(&counts.answered, answers.len());
        if let Err(error) = &fate {
            tracing::error!(%error, members = answers.len(), "a group of changes was not written");
        }
        for answer in answers {
            answer(fate.clone());
        }
        groups.rest();
    }
}

/// Tries one member on these rows. `None`: it was refused, and what it did to the rows and to `head` is to be undone; `Some`:
/// whether it wrote.
pub(super) fn member(rows: &mut impl Rows, head: &mut Head, job: Job, answers: &mut Vec<Answer>) -> Option<bool> {
    match job {
        Job::Commit(change, reply) => keep(change::apply(rows, head, *change).map(|done| (done, true)), reply, answers),
        Job::Note(note, reply) => keep(change::note(rows, &note).map(|()| ((), true)), reply, answers),
        Job::Sweep(now, reply) => keep(rows.sweep(now).map(|wrote| ((), wrote)), reply, answers),
        Job::Ready(reply) => keep(rows.probe().map(|()| ((), true)), reply, answers),
    }
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

impl Job {
    /// The answer of a member that was not tried; only ever given with an error as the group's fate.
    pub(super) fn refusal(self) -> Answer {
        Box::new(move |fate| {
            self.refuse(fate.err().unwrap_or_else(|| stopped("writing")));
        })
    }

    /// The same, with an error of its own, whatever becomes of the group.
    pub(super) fn refused(self, error: StoreError) -> Answer {
        Box::new(move |_fate| self.refuse(error))
    }

    fn refuse(self, error: StoreError) {
        match self {
            Self::Commit(_, reply) => drop(reply.send(Err(error))),
            Self::Note(_, reply) | Self::Sweep(_, reply) | Self::Ready(reply) => drop(reply.send(Err(error))),
        }
    }
}
