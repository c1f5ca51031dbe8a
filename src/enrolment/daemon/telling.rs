//! Tells sshd of new host certificates, until it can be told.
//!
//! Invariants: sshd is told by a task of its own, since a program that hangs must not keep the ends of sessions waiting; by one at a time. What was
//! written while it was being told, it is told of once more. It is told again only if it could not be told, with pauses that grow: what can't
//! be noted afterwards is no reason.

use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::pace::Pause;
use super::untold::{Shown, Untold};
use super::{Say, random};
use crate::enrolment::sshd::{Sshd, Told};

/// The longest pause. Our own choice: whoever mends sshd's configuration has sshd read it, most of the time.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// What has to be told, and how that goes.
pub(super) struct Telling<'a> {
    say: Say<'a>,
    sshd: Sshd,
    untold: Untold,
    /// Whether something was written that sshd has not been told of, nor is being told.
    is_wanted: bool,
    /// Whether sshd was told, and that is still to be noted.
    is_told: bool,
    task: Option<JoinHandle<Result<Told, String>>>,
    /// Why it could not be done.
    why: Option<String>,
    pause: Pause,
    due: Instant,
}

impl<'a> Telling<'a> {
    /// What an earlier daemon could not tell is due at once.
    pub(super) fn new(say: Say<'a>, sshd: Sshd, untold: Untold) -> Self {
        Self {
            say,
            sshd,
            is_wanted: untold.still().is_some(),
            untold,
            is_told: false,
            task: None,
            why: None,
            pause: Pause::up_to(PAUSE_MAX),
            due: Instant::now(),
        }
    }

    /// What sshd may still show that does not lie there any more.
    pub(super) fn still(&self) -> Shown {
        // What was told, and could not be noted, it does not show.
        if self.is_told { Shown::new() } else { self.untold.still().unwrap_or_default() }
    }

    /// Why sshd could not be told, or why that could not be noted.
    pub(super) fn left(&self) -> Option<&String> {
        self.why.as_ref()
    }

    /// Before certificates are written: these are what sshd has.
    ///
    /// # Errors
    /// In words; then nothing may be written.
    pub(super) fn before(&mut self, shown: &Shown) -> Result<(), String> {
        self.untold.note(shown)
    }

    /// Certificates were written, all or some.
    pub(super) fn written(&mut self) {
        (self.is_wanted, self.is_told) = (true, false);
        self.pause.reset();
        self.due = Instant::now();
    }

    /// None was written after all.
    pub(super) fn unwritten(&mut self) {
        if !self.is_wanted && self.task.is_none() {
            self.note_told();
        }
    }

    /// When there is something to do; not while sshd is being told.
    pub(super) fn due(&self) -> Option<Instant> {
        ((self.is_wanted || self.is_told) && self.task.is_none()).then_some(self.due)
    }

    /// Has sshd told, if that is due.
    pub(super) fn work(&mut self, now: Instant) {
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        if !self.is_wanted {
            return self.note_told();
        }
        self.is_wanted = false;
        let sshd = self.sshd.clone();
        self.task = Some(tokio::spawn(async move { sshd.reload().await }));
    }

    /// Until sshd has been told, or not, if that is under way; for ever otherwise. May be dropped and begun anew.
    pub(super) async fn finished(&mut self) {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let told = task.await.unwrap_or_else(|error: JoinError| Err(error.to_string()));
        self.task = None;
        match told {
            Ok(told) => {
                (self.say)(&match told {
                    Told::By(how) => format!("new host certificates are in place ({how})"),
                    Told::NotRunning => "new host certificates are in place; sshd does not run".to_owned(),
                });
                self.why = None;
                self.pause.reset();
                if !self.is_wanted {
                    self.note_told();
                }
            }
            Err(why) => {
                self.is_wanted = true;
                self.fail(format!("new host certificates are there, but sshd was not told: {why}"));
            }
        }
    }

    fn note_told(&mut self) {
        match self.untold.forget() {
            Ok(()) => (self.is_told, self.why) = (false, None),
            Err(why) => {
                self.is_told = true;
                self.fail(format!("sshd was told of new host certificates, which can't be noted: {why}"));
            }
        }
    }

    /// Says what is wrong, once, and waits.
    fn fail(&mut self, why: String) {
        if self.why.as_ref() != Some(&why) {
            (self.say)(&why);
            self.why = Some(why);
        }
        self.due = Instant::now() + self.pause.next(random());
    }
}
