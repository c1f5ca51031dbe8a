//! The program that sshd, PAM and the unit run on a host, and that starts watchers: which one it is, and what its command lines look like.
//!
//! What for: there are two programs with the same commands for a host. `hallpass` has them behind the word `host`; `hallpass-host` has no
//! others, and is smaller. Whoever runs writes lines for itself and starts itself, so a host needs one of them.
//!
//! Invariant: what [`Program::line`] writes, [`runs`] recognises.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program for hosts is called, wherever it lies: lines of configuration files are recognised by it.
pub const HOST_PROGRAM: &str = "hallpass-host";

/// Which of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `hallpass`: everything, a host's commands behind the word `host`.
    Whole,
    /// `hallpass-host`: a host's commands alone.
    Host,
}

impl Kind {
    /// What the program is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "hallpass",
            Self::Host => HOST_PROGRAM,
        }
    }

    /// Our own text as this program's user types it: what is said of `hallpass host …` holds for `hallpass-host …`.
    #[must_use]
    pub fn words(self, text: &str) -> String {
        match self {
            Self::Whole => text.to_owned(),
            Self::Host => text.replace("hallpass host ", "hallpass-host "),
        }
    }
}

/// A program with a host's commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    kind: Kind,
}

impl Program {
    /// The one at this path.
    #[must_use]
    pub const fn new(kind: Kind, path: PathBuf) -> Self {
        Self { path, kind }
    }

    /// The one that runs.
    ///
    /// # Errors
    /// In words, when the system does not say where its file is.
    pub fn own(kind: Kind) -> Result<Self, String> {
        let path = std::env::current_exe().map_err(|error| format!("cannot find our own program: {error}"))?;
        Ok(Self::new(kind, path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The words behind the program that run one of a host's commands.
    #[must_use]
    pub fn arguments<'a>(&self, command: &'a str) -> Vec<&'a str> {
        match self.kind {
            Kind::Whole => vec!["host", command],
            Kind::Host => vec![command],
        }
    }

    /// One of a host's commands, to be run.
    #[must_use]
    pub fn command(&self, command: &str) -> Command {
        let mut run = Command::new(&self.path);
        run.args(self.arguments(command));
        run
    }

    /// What stands in front of a host's command in configuration files: `/usr/local/bin/hallpass-host`, or `/usr/local/bin/hallpass host`.
    #[must_use]
    pub fn line(&self) -> String {
        let path = self.path.display();
        match self.kind {
            Kind::Whole => format!("{path} host"),
            Kind::Host => path.to_string(),
        }
    }
}

/// Whether a line of a configuration file runs this of a host's commands, by whichever program.
#[must_use]
pub fn runs(line: &str, command: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_ours = |word: &str| word == "host" || word.rsplit('/').next() == Some(HOST_PROGRAM);
    words.windows(2).any(|pair| matches!(pair, [before, word] if *word == command && is_ours(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_either_program_is_recognised_and_no_other_is() {
        for kind in [Kind::Whole, Kind::Host] {
            let program = Program::new(kind, Path::new("/opt/bin").join(kind.name()));
            let line = format!("session required pam_exec.so quiet {} guard", program.line());
            assert!(runs(&line, "guard") && !runs(&line, "principals"), "{line}");
            let principals = format!("{} principals --user=%u", program.line());
            assert!(runs(&principals, "principals") && !runs(&principals, "guard"), "{principals}");
            let run: Vec<String> = std::iter::once(program.command("watch").get_program().to_owned())
                .chain(program.command("watch").get_args().map(ToOwned::to_owned))
                .map(|word| word.into_string().unwrap())
                .collect();
            assert_eq!(run.join(" "), format!("{} watch", program.line()));
        }
        for line in [
            "",
            "guard",
            "/usr/bin/other guard",
            "/usr/local/bin/hallpass guard",
            "host the guard",
            "x-hallpass-host guard",
        ] {
            assert!(!runs(line, "guard"), "{line}");
        }
    }

    #[test]
    fn what_is_said_of_one_is_said_in_the_words_of_the_other() {
        let text = "sudo hallpass host check; hallpass admin join create";
        assert_eq!(Kind::Whole.words(text), text);
        assert_eq!(Kind::Host.words(text), "sudo hallpass-host check; hallpass admin join create");
    }
}
