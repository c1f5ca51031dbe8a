//! One group of changes in one SQLite transaction, each member in a savepoint.
//!
//! After a failure the connection is opened anew before the next group, head and all: what the memory believed is not trusted
//! any more.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;

use super::merge::Merge;
use super::place::Places;
use super::{failed, file, log};
use crate::fail;
use crate::identity::mac::MacKey;
use crate::store::writer::{self, Answer, Job, Queue, ROOM_BYTES};
use crate::store::{Head, StoreError};

/// The writer's state: `open` is `None` after a failure, until the file could be opened again.
pub(super) struct Groups {
    path: PathBuf,
    key: Arc<MacKey>,
    open: Option<(Connection, Head)>,
    places: Places,
    merge: Merge,
    /// Whether a group has failed since there last was room.
    is_in_doubt: bool,
}

impl Groups {
    pub(super) fn new(
        path: PathBuf,
        key: Arc<MacKey>,
        (mut conn, head): (Connection, Head),
        merge: Merge,
    ) -> Result<Self, StoreError> {
        let places = Places::of(&path)?;
        merge.adopt(&mut conn)?;
        Ok(Self { path, key, open: Some((conn, head)), places, merge, is_in_doubt: false })
    }

    fn reopen(&mut self) -> Result<(Connection, Head), StoreError> {
        self.places.check()?;
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let mut conn = file::connect_writer(&self.path)?;
        self.merge.adopt(&mut conn)?;
        let head = log::load_checked(&conn, &self.key)?;
        Ok((conn, head))
    }

    /// Whether there is room for more than a probe.
    fn find_room(&mut self) -> Result<(), StoreError> {
        let (conn, head) = self.reopen()?;
        log::find_room(&conn, ROOM_BYTES)?;
        self.open = Some((conn, head));
        Ok(())
    }

    /// In doubt, the questions among these jobs are answered by whether there is room, and what else there is does not wait for it.
    fn answer_in_doubt(&mut self, jobs: &mut Vec<Job>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        let questions = writer::take_questions(jobs);
        if questions.is_empty() {
            return Ok(());
        }
        match self.find_room() {
            Ok(()) => {
                self.is_in_doubt = false;
                jobs.extend(questions);
                Ok(())
            }
            Err(error) => {
                answers.extend(questions.into_iter().map(|question| question.refused(error.clone())));
                if jobs.is_empty() { Err(error) } else { Ok(()) }
            }
        }
    }

    fn write_jobs(&mut self, jobs: Vec<Job>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        let (conn, head) = match self.reopen() {
            Ok(open) => open,
            Err(error) => {
                answers.extend(jobs.into_iter().map(Job::refusal));
                return Err(error);
            }
        };
        // Dropping the connection undoes what was open, before anybody is told.
        let head = write_group(&conn, &self.key, head, jobs, answers)?;
        self.open = Some((conn, head));
        Ok(())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        if let Some((conn, _)) = &self.open {
            self.merge.at_the_end(conn);
        }
    }
}

impl writer::Groups for Groups {
    fn write(&mut self, mut jobs: Vec<Job>, _queue: &Queue<'_>, answers: &mut Vec<Answer>) -> Result<(), StoreError> {
        if self.is_in_doubt {
            self.answer_in_doubt(&mut jobs, answers)?;
        }
        let written = self.write_jobs(jobs, answers);
        self.is_in_doubt |= written.is_err();
        written
    }

    fn rest(&mut self) {
        if let Some((conn, _)) = &self.open {
            self.merge.after_answers(conn);
        }
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
    log::save_head(conn, key, &appending, head.frontier.size())?;
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
    let wrote = writer::member(&mut &*conn, &mut trial, job, answers);
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

fn sql(conn: &Connection, statement: &str, doing: &'static str) -> Result<(), StoreError> {
    conn.prepare_cached(statement).and_then(|mut s| s.execute([])).map(drop).map_err(failed(doing))
}
