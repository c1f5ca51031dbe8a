//! What the service's process denies itself once it knows its configuration.
//!
//! Who takes it over, by a mistake of ours or of a library's, has no program to start, no other file to read and nowhere to connect to.
//!
//! | File | What |
//! |---|---|
//! | `bounds.rs` | what a configuration leaves open: which files, which ports |
//! | `files.rs` | files, connections and signals, by the kernel's landlock |
//! | `calls.rs` | system calls that a service never needs, by seccomp |
//! | `memory.rs` | nothing of the memory goes to the swap |
//!
//! What not: who the process is and what it sees of the machine is the unit's (`deploy/hallpass.service`: user, mounts, capabilities), which
//! goes on top; what is here holds however the service was started. Core dumps are forbidden before a configuration is read
//! (`cli/process.rs`).
//!
//! Invariants: entered once, before there is a second thread (landlock takes the caller and what it starts, not what runs beside it); nothing
//! is killed for what it tries, it is refused; what the kernel does not have is told, and never taken for granted.
//!
//! *Why a list of what is refused, where a list of what is allowed would be tighter?* The unit has that one (`SystemCallFilter=`), kept by who
//! ships the system. A list in here would have to know every call of every C library of the coming years, and who forgets one stops a service
//! that lets people in. What is newer than we know is answered as by an older kernel, which every library takes.

#[cfg(feature = "failpoints")]
pub mod attempt;
mod bounds;
mod calls;
mod files;
mod memory;

use std::os::fd::OwnedFd;

use thiserror::Error;

pub use bounds::{Access, Bounds, Files};

/// How much of it must be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Whatever the kernel has.
    #[default]
    On,
    /// No start without files, connections and system calls restricted.
    Required,
    /// Nothing.
    Off,
}

/// `[sandbox]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How much of it must be had.
    pub mode: Mode,
    /// What more is left open; `None` if nobody has said, which matters where a token's library has needs of its own.
    pub further: Option<Further>,
    /// Whether a token's library may start programs.
    pub programs: bool,
}

/// What more is left open than what the configuration names elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Further {
    /// Files and folders that may be read.
    pub read: Vec<std::path::PathBuf>,
    /// Files and folders that may be changed.
    pub write: Vec<std::path::PathBuf>,
    /// TCP ports that may be connected to.
    pub connect: Vec<u16>,
}

/// What is restricted, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// System calls that a service never needs, starting programs among them.
    Calls,
    /// Which files can be opened.
    Files,
    /// TCP: listening, and where to connect to.
    Connections,
    /// Signals to other processes, and abstract sockets of theirs.
    Signals,
    /// Nothing of the memory is written to the swap.
    Memory,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Calls, Self::Files, Self::Connections, Self::Signals, Self::Memory];

    /// Its word, for figures and messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Files => "files",
            Self::Connections => "connections",
            Self::Signals => "signals",
            Self::Memory => "memory",
        }
    }

    /// Whether there is no start without it where the sandbox is required.
    const fn is_required(self) -> bool {
        matches!(self, Self::Calls | Self::Files | Self::Connections)
    }
}

/// A part that is not restricted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Which one.
    pub part: Part,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.part.word(), self.why)
    }
}

/// The sandbox that this process is in; there is no way out of it.
#[derive(Debug)]
pub struct Sandbox {
    lacks: Vec<Lack>,
    /// Keeps the kernel's one entry for `/proc/self` in its memory: the rule is on that, and a new one would be another.
    _own: Option<OwnedFd>,
}

impl Sandbox {
    /// No sandbox.
    #[must_use]
    pub fn none() -> Self {
        let lacks = Part::ALL.map(|part| Lack { part, why: "switched off".to_owned() });
        Self { lacks: lacks.into(), _own: None }
    }

    /// What is not restricted.
    #[must_use]
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// Each part, and whether it is restricted.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing(Part::ALL.map(|part| (part, self.lacks.iter().all(|lack| lack.part != part))))
    }
}

/// Each part, and whether it is restricted.
#[derive(Clone, Copy, Debug)]
pub struct Standing(pub [(Part, bool); 5]);

impl Default for Standing {
    fn default() -> Self {
        Self(Part::ALL.map(|part| (part, false)))
    }
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The kernel has it, and refuses.
    #[error("cannot restrict {}: {why}", part.word())]
    Refused {
        /// What.
        part: Part,
        /// What it said.
        why: String,
    },
    /// The sandbox is required, and parts of it can't be had; the process may be in the others.
    #[error("it is required, and can't restrict {}", list(.0))]
    Lacking(Vec<Lack>),
}

fn list(lacks: &[Lack]) -> String {
    lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Enters the sandbox: from here on this thread and all that it starts are within the bounds.
///
/// # Errors
/// [`SandboxError`]; the process is to end then.
pub fn enter(mode: Mode, bounds: &Bounds) -> Result<Sandbox, SandboxError> {
    if mode == Mode::Off {
        return Ok(Sandbox::none());
    }
    let refused = |part| move |why: String| SandboxError::Refused { part, why };
    // Whatever the kernel has of the rest: nothing that is started gets more rights than we have.
    rustix::thread::set_no_new_privs(true).map_err(|error| refused(Part::Calls)(error.to_string()))?;
    let own = open_own();
    let mut lacks = memory::lock().err().map(|why| Lack { part: Part::Memory, why }).into_iter().collect::<Vec<_>>();
    lacks.extend(files::restrict(bounds).map_err(refused(Part::Files))?);
    lacks.extend(calls::restrict(bounds).err().map(|why| Lack { part: Part::Calls, why }));
    lacks.sort_by_key(|lack| lack.part);
    let required: Vec<Lack> = lacks.iter().filter(|lack| lack.part.is_required()).cloned().collect();
    if mode == Mode::Required && !required.is_empty() {
        return Err(SandboxError::Lacking(required));
    }
    Ok(Sandbox { lacks, _own: own })
}

/// Without it the process's own figures may go missing when the kernel is short of memory; nothing else.
fn open_own() -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/proc/self", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_what_a_taken_over_service_would_use_first() {
        let required: Vec<_> = Part::ALL.into_iter().filter(|part| part.is_required()).map(Part::word).collect();
        assert_eq!(required, ["calls", "files", "connections"]);
        let lack = Lack { part: Part::Files, why: "no landlock".to_owned() };
        let shown = SandboxError::Lacking(vec![lack]).to_string();
        assert_eq!(shown, "it is required, and can't restrict files (no landlock)");
    }

    #[test]
    fn a_sandbox_that_is_off_restricts_nothing_and_says_so() {
        let sandbox = enter(Mode::Off, &Bounds::default()).unwrap();
        assert_eq!(sandbox.lacks().len(), Part::ALL.len());
        assert!(sandbox.standing().0.iter().all(|(_, is_in_force)| !is_in_force));
    }
}
