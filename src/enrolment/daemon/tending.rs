//! Has sessions looked after whose watcher is gone.
//!
//! Invariants: it is done by a process of its own, which can't leave us children to reap, and waited for by a task of its own, since one that hangs
//! must not keep the ends of sessions waiting; by one at a time, since of two watchers of one session the first ends it. So a daemon that stops
//! leaves none behind: it ends what takes too long. That leaves no session worse off: a watcher that has not been let go ends with its
//! pipe, one that has been is named by its record already, and the next daemon looks after the rest. A daemon that is killed can't see to
//! that; the unit kills none, since it stops in time. Root may have the same done by hand, beside this.

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

/// How long a daemon that stops waits for that. Our own choice: it takes some milliseconds, and two seconds where something has to be ended;
/// the unit gives the daemon 20 s to stop, and `leave` and `enrol` wait [`programs::PATIENCE`] for the unit.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What looks after them.
pub(super) struct Tending<'a> {
    say: Say<'a>,
    /// The program that runs.
    program: Program,
    task: Option<JoinHandle<Result<Ran, String>>>,
    /// Whether a session waits for it that may have a watcher again by now.
    is_wanted: bool,
}

impl<'a> Tending<'a> {
    /// Where it can't be seen which sessions there are, that is tried once.
    pub(super) fn new(say: Say<'a>, program: Program) -> Self {
        let mut tending = Self { say, program, task: None, is_wanted: false };
        tending.begin_if(true);
        tending
    }

    /// Has it done at the next look even where root has started the watcher by then: a session that had none gets its end when this is done.
    pub(super) const fn want(&mut self) {
        self.is_wanted = true;
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
        if self.task.is_some() || !(self.is_wanted || is_needed()) {
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
        (self.task, self.is_wanted) = (None, false);
        match ran {
            Ok(ran) if ran.code == Some(0) => (self.say)(ran.output.trim()),
            Ok(ran) => (self.say)(&format!("sessions could not be looked after: {}", ran.complaint())),
            Err(why) => (self.say)(&why),
        }
    }

    /// Waits a while for what is under way, and ends it then.
    pub(super) async fn stop(&mut self) {
        self.stop_within(STOP_WITHIN).await;
    }

    async fn stop_within(&mut self, patience: Duration) {
        if self.task.is_none() || tokio::time::timeout(patience, self.finished()).await.is_ok() {
            return;
        }
        if let Some(task) = self.task.take() {
            task.abort();
            // Its program is killed by then, with what that has started.
            drop(task.await);
            (self.say)("sessions without a watcher are left to the next daemon: looking after them took too long");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::host::process::Process;
    use crate::host::program::Kind;

    #[tokio::test]
    async fn a_daemon_that_stops_leaves_nothing_behind_that_starts_watchers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let said = RefCell::new(Vec::new());
        let say = |text: &str| said.borrow_mut().push(text.to_owned());
        let hangs = format!("echo $$ > {}; exec sleep 1000", path.display());
        let tend = async move { programs::run(Path::new("/bin/sh"), &["-c", &hangs], TEND_WITHIN).await };
        let program = Program::new(Kind::Host, "/nowhere".into());
        let task = Some(tokio::spawn(tend));
        let mut tending = Tending { say: &say, program, task, is_wanted: false };
        let pid = loop {
            if let Some(pid) =
                std::fs::read_to_string(&path).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok())
            {
                break pid;
            }
            tokio::task::yield_now().await;
        };
        let hung = Process::running(pid).unwrap().unwrap();
        tending.stop_within(Duration::ZERO).await;
        assert!(tending.task.is_none());
        let began = std::time::Instant::now();
        while hung.is_running() {
            assert!(began.elapsed() < programs::PATIENCE, "it is killed");
            std::thread::yield_now();
        }
        assert!(said.borrow()[0].contains("left to the next daemon"), "{said:?}");
        // Nothing is under way, and what has ended is heard.
        tending.stop().await;
        tending.task =
            Some(tokio::spawn(async { Ok(Ran { code: Some(0), output: "watched".into(), ..Ran::default() }) }));
        tending.stop().await;
        assert_eq!(said.borrow()[1..], ["watched"]);
    }

    #[test]
    fn a_daemon_that_stops_is_not_killed_for_taking_too_long_nor_given_up() {
        let unit = include_str!("../../../deploy/hallpass-host.service");
        let unit = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.parse().ok()).unwrap();
        assert!(STOP_WITHIN < programs::PATIENCE && programs::PATIENCE < Duration::from_secs(unit));
    }
}
