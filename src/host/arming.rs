//! Starts the watcher of a session and makes sure that it watches.
//!
//! What for: the guard does it at each login, and whoever looks after sessions does it again for one whose watcher is gone.
//!
//! Order: start the watcher, which waits; write the record, which names it; let it go; wait until it says that it is armed. A crash before the
//! last step ends the watcher with its pipe.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::ending;
use super::process::Process;
use super::program::Program;
use super::record::{Folder, Key, Record};
use super::spool::Spool;
use super::watch::{ARMED, GO, GO_ON};

/// How long the watcher may take until it is armed. It takes some milliseconds; a login that waits longer than this is refused.
const ARM_WITHIN: Duration = Duration::from_secs(10);

/// What a watcher is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arms<'a> {
    /// The program that watches.
    pub program: &'a Program,
    /// Where the records are.
    pub folder: &'a Folder,
    /// Where events are put down.
    pub spool: &'a Spool,
}

/// Whether a session begins, or has been there with another watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It begins: the watcher puts that down.
    Login,
    /// It goes on.
    Again,
}

impl Arms<'_> {
    /// Arms the end of the session `key`; `record` tells its record by the watcher.
    ///
    /// # Errors
    /// In words. At a login no record is left then; a session that was there keeps its record.
    pub fn arm(&self, key: Key, occasion: Occasion, record: impl FnOnce(Process) -> Record) -> Result<Record, String> {
        let mut watcher = Watcher::start(self, key)?;
        let record = record(watcher.process().map_err(|error| error.to_string())?);
        self.folder.save(&record)?;
        if let Err(why) = watcher.release(occasion) {
            if occasion == Occasion::Login {
                self.folder.remove(key);
            }
            return Err(why);
        }
        Ok(record)
    }
}

/// A watcher that waits to be let go. Dropped before that, it ends.
struct Watcher {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    is_armed: bool,
}

impl Watcher {
    fn start(arms: &Arms<'_>, key: Key) -> Result<Self, String> {
        let mut command = arms.program.command("watch");
        command.arg("--spool").arg(arms.spool.folder()).arg(arms.folder.path(key));
        command.env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot run {:?}: {error}", arms.program.path()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Ok(Self { child, input, output, is_armed: false })
    }

    fn process(&self) -> std::io::Result<Process> {
        let pid = i32::try_from(self.child.id()).map_err(std::io::Error::other)?;
        Process::running(pid)?.ok_or_else(|| std::io::Error::other("the watcher has ended"))
    }

    /// Lets it go, and waits for its word.
    fn release(&mut self, occasion: Occasion) -> Result<(), String> {
        let lost = |error: std::io::Error| format!("the watcher is lost: {error}");
        let word = match occasion {
            Occasion::Login => GO,
            Occasion::Again => GO_ON,
        };
        self.input.take().ok_or("no pipe")?.write_all(word.as_bytes()).map_err(lost)?;
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
