//! Has sessions looked after whose watcher is gone.
//!
//! Invariants: it is done by a process of its own, which can't leave us children to reap, and waited for by a task of its own, since one that hangs
//! must not keep the ends of sessions waiting; by one at a time, since of two watchers of one session the first ends it.

use std::path::Path;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};

use super::Say;
use crate::enrolment::programs::{self, Ran};
use crate::host::program::Program;
use crate::host::sessions::Sessions;
use crate::host::settings::{self, Settings};

/// How long starting watchers again may take.
const TEND_WITHIN: Duration = Duration::from_secs(30);

/// What looks after them.
pub(super) struct Tending<'a> {
    say: Say<'a>,
    /// The program that runs.
    program: Program,
    task: Option<JoinHandle<Result<Ran, String>>>,
}

impl<'a> Tending<'a> {
    /// Where it can't be seen which sessions there are, that is tried once.
    pub(super) fn new(say: Say<'a>, program: Program) -> Self {
        let mut tending = Self { say, program, task: None };
        tending.begin_if(true);
        tending
    }

    /// Has watchers started again where one is gone, unless that is under way.
    pub(super) fn begin(&mut self) {
        self.begin_if(false);
    }

    fn begin_if(&mut self, is_first: bool) {
        let Ok(settings) = Settings::load(Path::new(settings::PATH)) else { return };
        let is_needed = || match Sessions::open(&settings) {
            Ok(sessions) => sessions.list().iter().any(|session| !session.is_watched),
            Err(_) => is_first,
        };
        if self.task.is_some() || !is_needed() {
            return;
        }
        let program = self.program.clone();
        let tend = async move { programs::run(program.path(), &program.arguments("tend"), TEND_WITHIN).await };
        self.task = Some(tokio::spawn(tend));
    }

    /// Until that is done which is under way; for ever if nothing is. May be dropped and begun anew.
    pub(super) async fn finished(&mut self) {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ran = task.await.unwrap_or_else(|error: JoinError| Err(error.to_string()));
        self.task = None;
        match ran {
            Ok(ran) if ran.code == Some(0) => (self.say)(ran.output.trim()),
            Ok(ran) => (self.say)(&format!("sessions could not be looked after: {}", ran.complaint())),
            Err(why) => (self.say)(&why),
        }
    }

    /// The same, if something is under way: a watcher that is being started is not left to itself.
    pub(super) async fn stop(&mut self) {
        if self.task.is_some() {
            self.finished().await;
        }
    }
}
