//! Where a long answer goes, piece by piece: a new file, or standard output.
//!
//! Invariant: a file has its name once all of it is there; what fails before leaves nothing.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use super::Context;
use super::failure::Failure;
use super::output::{Output, is_shown};
use crate::durable::NewFile;

/// Whether this stands for standard output.
pub(super) fn is_stdout(out: &Path) -> bool {
    out.as_os_str() == "-"
}

/// Takes what is written.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// A file that will have this name.
    File(NewFile, &'a Path),
    /// Standard output.
    Stdout(Output),
}

impl<'a> Sink<'a> {
    /// Begins one for what is hashed, and so can't be escaped: not on a terminal, which would obey what stands in it.
    ///
    /// # Errors
    /// When it would be shown on a terminal, and as [`Self::begin`].
    pub(super) fn begin_exact(context: &Context, out: &'a Path) -> Result<Self, Failure> {
        if is_stdout(out) && is_shown() {
            return Err(Failure::usage("the log's own bytes are not written to a terminal")
                .because("a terminal obeys what people and servers wrote into them, and escaped they are not what was signed")
                .next("hallpass audit export --out FILE, or --out - into a pipe or file")
                .next("hallpass audit tail, which shows entries as they may be read"));
        }
        Self::begin(context, out)
    }

    /// Begins one for what is escaped.
    ///
    /// # Errors
    /// When the file is there already, or can't be made.
    pub(super) fn begin(context: &Context, out: &'a Path) -> Result<Self, Failure> {
        if is_stdout(out) {
            return Ok(Self::Stdout(context.out));
        }
        NewFile::begin(out, 0o600).map(|file| Self::File(file, out)).map_err(|why| unwritten(out, &why))
    }

    /// Writes the next piece, as it is.
    ///
    /// # Errors
    /// When it can't be written; one that says nothing when nobody reads on, and nobody has to be told.
    pub(super) fn write(&mut self, text: &str) -> Result<(), Failure> {
        match self {
            Self::File(file, out) => file.write_all(text.as_bytes()).map_err(|why| unwritten(out, &why)),
            Self::Stdout(output) => match output.stream(text.as_bytes())? {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Failure::silent()),
            },
        }
    }

    /// Gives the file its name, and says what is in it; of what went to standard output that is said on standard error. `said` is told the
    /// place, with a blank in front.
    ///
    /// # Errors
    /// When the file can't have its name, or standard output can't take the answer.
    pub(super) fn finish(
        self,
        context: &Context,
        document: &impl Serialize,
        said: impl FnOnce(&str) -> String,
    ) -> Result<(), Failure> {
        match self {
            Self::File(file, out) => {
                file.finish().map_err(|why| unwritten(out, &why))?;
                context.out.answer(document, &said(&format!(" in {}", out.display())))
            }
            Self::Stdout(output) => {
                output.note(&said(""));
                Ok(())
            }
        }
    }
}

fn unwritten(out: &Path, why: &std::io::Error) -> Failure {
    Failure::file("write export", out, why)
}
