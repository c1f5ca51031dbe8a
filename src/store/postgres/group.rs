//! One group of changes in one PostgreSQL transaction.
//!
//! A group: `BEGIN`; lock the log's one head row; read what its members rest on; decide all of them in memory (`sheet.rs`); write what
//! they did in a few statements; `COMMIT`. Every node locks the head before anything else, so that one log grows in one order and nothing
//! that was read under the lock changes until the commit. A group is two exchanges with the server: begin, lock and read; write and commit. Where
//! another node has written since our last group there are three, and its members are taken up in between: whoever came while we waited for
//! the lock goes along, and what is read is only what they name.
//!
//! Decision: *why READ COMMITTED and a lock, and not SERIALIZABLE?* All groups append to the same row anyway: SERIALIZABLE would let them run
//! and then undo all but one. With the lock they wait, and each statement after it sees all that was committed before (a statement's
//! snapshot is taken when it begins).
//!
//! What became of a commit whose answer was lost is not guessed. Each group writes its number into the node's row of `writer`; after a lost
//! answer the node connects anew, waits for the head's lock (that the lost transaction has, if it is alive) and reads the number. Only then
//! are the members answered; if it can't be read, they are told that it failed, and the service reads again.
//!
//! A database that has gone back (failed over to a copy that lacks transactions, or restored while we run) is noticed: what this process has
//! seen of the log must be there, as it was, whenever the log is not as we left it. A copy that others have written on since may be longer than
//! what was lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::known::{self, Known, Wanted};
use super::line::{Line, Uncommitted, Write, get};
use super::presence::Presence;
use super::settings::Connector;
use super::sheet::{Page, Sheet};
use super::{flush, log, schema};
use crate::audit::tree::Frontier;
use crate::fail;
use crate::identity::mac::MacKey;
use crate::store::log::HeadRow;
use crate::store::numbers::{damaged, to_sql};
use crate::store::writer::{self, Answer, Job, Queue, ROOM_BYTES};
use crate::store::{Head, StoreError};

const COMMITTING: &str = "committing a group of changes";

/// How a message ends when waiting for a lock took too long (PostgreSQL's `lock_not_available`).
const LOCKED: &str = "(55P03)";

/// How one ends when the role lacks a right (`insufficient_privilege`).
const FORBIDDEN: &str = "(42501)";

const FINDING: &str = "looking for room on the database's disk";

/// A page of PostgreSQL's, and how many rows of one `name` (64 bytes, and 28 to find it) are on one: nothing of that type is kept elsewhere.
const PAGE_BYTES: u32 = 8192;
const PAGE_ROWS: u32 = 88;

/// How often it is tried to learn what became of a commit.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The log as this process has seen it, by what it wrote and by what it read.
#[derive(Debug)]
pub(super) struct KnownLog(Mutex<Frontier>);

impl KnownLog {
    pub(super) const fn new(log: Frontier) -> Self {
        Self(Mutex::new(log))
    }

    fn newest(&self) -> Frontier {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is known to have begun like this.
    pub(super) fn know(&self, log: &Frontier) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.size() < log.size() {
            seen.clone_from(log);
        }
    }
}

/// The writer: a runtime of its own, on the writer's thread.
pub(super) struct Groups {
    runtime: Runtime,
    state: State,
}

struct State {
    connector: Connector,
    key: Arc<MacKey>,
    /// This process, in the table of writers.
    node: String,
    /// The number of the last group.
    number: u64,
    /// The log as this process has seen it.
    known: Arc<KnownLog>,
    presence: Arc<Presence>,
    /// How we left it.
    seen: Frontier,
    /// Whether nobody else had written when we last looked: then nobody is waited for.
    is_alone: bool,
    line: Option<Line>,
    /// Whether a group has failed for want of room since there last was some.
    is_in_doubt: bool,
}

/// A transaction that holds the head's lock.
struct Begun {
    line: Line,
    head: Head,
    known: Known,
}

impl Groups {
    pub(super) fn new(
        connector: Connector,
        key: Arc<MacKey>,
        node: String,
        known: Arc<KnownLog>,
        presence: Arc<Presence>,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StoreError::Failed { doing: "starting the writer", why: error.to_string() })?;
        let seen = known.newest();
        Ok(Self {
            runtime,
            state: State {
                connector,
                key,
                node,
                number: 0,
                known,
                presence,
                seen,
                is_alone: true,
                line: None,
                is_in_doubt: false,
            },
        })
    }
}

impl writer::Groups for Groups {
    fn write(&mut self, jobs: Vec<Job>, queue: &Queue<'_>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        self.runtime.block_on(self.state.write_or_doubt(jobs, queue, answers))
    }
}

impl State {
    /// In doubt, the questions among these jobs are answered by whether there is room, and what else there is does not wait for it.
    async fn write_or_doubt(
        &mut self,
        mut jobs: Vec<Job>,
        queue: &Queue<'_>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StoreError> {
        let questions = if self.is_in_doubt { writer::take_questions(&mut jobs) } else { Vec::new() };
        if !questions.is_empty() {
            match self.find_room().await {
                Ok(()) => {
                    self.is_in_doubt = false;
                    jobs.extend(questions);
                }
                Err(error) => {
                    answers.extend(questions.into_iter().map(|question| question.refused(error.clone())));
                    if jobs.is_empty() {
                        return Err(error);
                    }
                }
            }
        }
        let written = Box::pin(self.write(jobs, queue, answers)).await;
        self.is_in_doubt |= written.as_ref().is_err_and(is_for_room);
        written
    }

    /// Fills a table of our own where the one that grows most is, and undoes it: the file goes with the table, at once. Rows that were undone in a
    /// table that stays would keep their room until it is vacuumed, so that looking would use up what is looked for. Its name is this node's: nobody
    /// is waited for. What stays is a few rows of the catalog's, some 3 KiB, which autovacuum gives back.
    async fn find_room(&mut self) -> Result<(), StoreError> {
        // One that is made for this is not kept: what is looked at on a new one before anything is written was not.
        let (line, is_checked) = match self.line.take() {
            Some(line) => (line, true),
            None => (Line::connect(&self.connector).await?, false),
        };
        match line.run(FINDING, &room_sql(&self.node)).await {
            Ok(()) => {
                self.line = Some(line).filter(|_| is_checked);
                Ok(())
            }
            // Who may make no table can't look; the next change tells.
            Err(StoreError::Failed { why, .. }) if why.ends_with(FORBIDDEN) => {
                tracing::warn!(%why, "it can't be looked for room on the database's disk");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write(
        &mut self,
        mut jobs: Vec<Job>,
        queue: &Queue<'_>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), StoreError> {
        let Begun { line, mut head, known } = match Box::pin(self.begin(&mut jobs, queue)).await {
            Ok(begun) => begun,
            Err(error) => {
                answers.extend(jobs.into_iter().map(Job::refusal));
                return Err(error);
            }
        };
        let mut sheet = Sheet::default();
        let mut is_written = false;
        for job in jobs {
            let mut page = Page::new(&known, &sheet);
            let mut trial = head.clone();
            if let Some(wrote) = writer::member(&mut page, &mut trial, job, answers) {
                let written = page.written();
                sheet.take(written);
                head = trial;
                is_written |= wrote;
                fail::point("store.change.written");
            }
        }
        if !is_written {
            // Nothing but refusals: no disk is needed to say so.
            line.run(COMMITTING, "ROLLBACK").await?;
            self.line = Some(line);
            return Ok(());
        }
        Box::pin(self.commit(line, &known, &sheet, &head)).await?;
        fail::point("store.commit.after");
        self.known.know(&head.frontier);
        self.seen = head.frontier;
        Ok(())
    }

    /// Writes the group and makes it durable.
    async fn commit(&mut self, line: Line, known: &Known, sheet: &Sheet, head: &Head) -> Result<(), StoreError> {
        self.number = self.number.saturating_add(1);
        let row = HeadRow::of(head, &self.key)?;
        let mut writes = flush::writes(known, sheet, &row)?;
        writes.push(sign(&self.node, self.number)?);
        fail::point("store.commit.before");
        match line.commit(COMMITTING, &writes).await {
            Ok(()) => {
                self.line = Some(line);
                Ok(())
            }
            Err(Uncommitted::Refused(why)) => Err(why),
            Err(Uncommitted::Unknown(lost)) => {
                drop(line);
                self.resolve(lost).await
            }
        }
    }

    /// Begins, on a new connection if there is none. One that was lost while nobody looked is replaced: nothing that was sent on it
    /// counts yet.
    async fn begin(&mut self, jobs: &mut Vec<Job>, queue: &Queue<'_>) -> Result<Begun, StoreError> {
        self.presence.check()?;
        if let Some(line) = self.line.take() {
            match self.begin_on(line, jobs, queue, false).await {
                Err(error) if is_lost(&error) => {
                    tracing::info!(%error, "the connection to the database was lost; connecting anew");
                }
                begun => return begun,
            }
        }
        let line = Line::connect(&self.connector).await?;
        schema::check_server(&line).await?;
        self.begin_on(line, jobs, queue, true).await
    }

    async fn begin_on(
        &mut self,
        line: Line,
        jobs: &mut Vec<Job>,
        queue: &Queue<'_>,
        is_new: bool,
    ) -> Result<Begun, StoreError> {
        let (head, known) = self.lock_and_read(&line, jobs, queue).await?;
        if is_new {
            log::check(&line, &head).await?;
        }
        self.is_alone = head.frontier == self.seen;
        Ok(Begun { line, head, known })
    }

    /// The log as it is under the lock, which is still the one that we have seen, and what the members rest on.
    async fn lock_and_read(
        &self,
        line: &Line,
        jobs: &mut Vec<Job>,
        queue: &Queue<'_>,
    ) -> Result<(Head, Known), StoreError> {
        // Nothing that is sent after the lock may overtake it: a statement sees what was committed before its own beginning.
        line.prepare(COMMITTING, log::LOCK).await?;
        let begun = line.run(COMMITTING, "BEGIN ISOLATION LEVEL READ COMMITTED");
        let locked = log::lock_head(line, &self.key);
        if self.is_alone {
            let wanted = Wanted::of(jobs);
            let ((), head, known) = tokio::try_join!(biased; begun, locked, Box::pin(known::read(line, &wanted)))?;
            self.check_seen(line, &head).await?;
            return Ok((head, known));
        }
        let ((), head) = tokio::try_join!(biased; begun, locked)?;
        queue.join(jobs);
        let wanted = Wanted::of(jobs);
        let (known, ()) = tokio::try_join!(Box::pin(known::read(line, &wanted)), self.check_seen(line, &head))?;
        Ok((head, known))
    }

    /// What we have seen of the log is still what it begins with. Nothing is read as long as nobody else writes.
    async fn check_seen(&self, line: &Line, head: &Head) -> Result<(), StoreError> {
        let known = self.known.newest();
        if head.frontier == known {
            return Ok(());
        }
        let (now, seen) = (head.frontier.size(), known.size());
        if now < seen {
            return Err(gone_back(&format!("it has {now} entries, and had {seen}")));
        }
        if known.begins(&log::nodes_on(line, &Frontier::nodes_of(seen)).await?) {
            return Ok(());
        }
        Err(gone_back(&format!("its first {seen} entries are others")))
    }

    /// Whether the group was committed although its answer was lost.
    async fn resolve(&self, lost: StoreError) -> Result<(), StoreError> {
        tracing::warn!(error = %lost, "the answer to a commit was lost; asking what became of it");
        let until = Instant::now() + self.connector.patience;
        loop {
            match self.last_committed().await {
                Ok(number) if number == to_sql(self.number)? => {
                    tracing::warn!("it was committed");
                    return Ok(());
                }
                Ok(_) => return Err(lost),
                Err(error) if Instant::now() >= until => {
                    tracing::error!(%error, "it is not known what became of it");
                    return Err(lost);
                }
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// The number of this node's last group that was committed, once nothing of it is under way any more.
    async fn last_committed(&self) -> Result<i64, StoreError> {
        let line = Line::connect(&self.connector).await?;
        line.run(COMMITTING, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let head = log::lock_head(&line, &self.key).await?;
        self.check_seen(&line, &head).await?;
        let rows = line.query(COMMITTING, "SELECT number FROM writer WHERE node = $1", &[&self.node]).await?;
        rows.first().map_or(Ok(0), |row| get(row, 0))
    }
}

/// Takes room and gives it back. In another place than the database's own only if we may make tables there.
fn room_sql(node: &str) -> String {
    let table: String = node.chars().filter(char::is_ascii_alphanumeric).collect();
    let rows = (ROOM_BYTES / PAGE_BYTES).saturating_mul(PAGE_ROWS);
    format!(
        "BEGIN;
         SELECT set_config('default_tablespace', coalesce((
             SELECT spcname FROM pg_catalog.pg_class AS class JOIN pg_catalog.pg_tablespace AS place ON place.oid = class.reltablespace
             WHERE class.oid = 'hallpass.log_entry'::regclass AND has_tablespace_privilege(place.oid, 'CREATE')), ''), true);
         CREATE TABLE hallpass.room_{table} (taken name);
         INSERT INTO hallpass.room_{table} SELECT 'room' FROM generate_series(1, {rows});
         ROLLBACK"
    )
}

/// Says that this group is its node's last, and wakes the other nodes when it is committed.
fn sign(node: &str, number: u64) -> Result<Write<'_>, StoreError> {
    let sql = "WITH woken AS (SELECT pg_notify('hallpass', $1))
               INSERT INTO writer (node, number, at) SELECT $1, $2, now() FROM woken
               ON CONFLICT (node) DO UPDATE SET number = excluded.number, at = excluded.at";
    Ok(Write { sql, values: vec![Box::new(node), Box::new(to_sql(number)?)] })
}

/// Whether a new connection could do better: not when another node has the lock, or the database is damaged.
fn is_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed { why, .. } if !why.ends_with(LOCKED))
}

/// Whether the server had no room, or its disk failed (PostgreSQL's classes 53 and 58): a lock or a connection that is waited for is no reason to doubt.
fn is_for_room(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed { why, .. } if ["(53", "(58"].iter().any(|class| why.contains(class)))
}

fn gone_back(why: &str) -> StoreError {
    let why = format!(
        "{why}; the database was put back to an older state while this node ran. Serials would be used twice, so nothing is written. Put the \
         newest database back; if it is lost, see docs/operations.md"
    );
    damaged("the log", why)
}
