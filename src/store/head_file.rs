//! The log's newest signed checkpoint, kept apart from the database (I-10, I-27).
//!
//! What for: a database that was put back from a copy looks whole, but its log is shorter than what was already handed out:
//! serials would be used twice and a grant certified twice. What the service signed last, kept in another file, shows it.
//!
//! What not: no check of signatures or roots (the service does that), no history: one checkpoint, the newest.
//!
//! A crash leaves the old or the new checkpoint; the old one is still right, only weaker.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use super::StoreError;
use crate::durable;

/// The longest checkpoint that is read; ours have some 300 bytes.
const BYTES_MAX: u64 = 4096;

/// A place for the newest checkpoint. Blocking: called off the async threads.
pub trait KeptHead: Send + Sync + std::fmt::Debug {
    /// The newest checkpoint, if there is one yet.
    ///
    /// # Errors
    /// When the place can't be read.
    fn read(&self) -> Result<Option<String>, StoreError>;

    /// Replaces it, durably.
    ///
    /// # Errors
    /// When it can't be written; then nothing may rest on it.
    fn write(&self, checkpoint: &str) -> Result<(), StoreError>;

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// A file, mode 0600.
#[derive(Clone, Debug)]
pub struct HeadFile(PathBuf);

impl HeadFile {
    /// This file; it need not exist yet, its folder must.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Failed { doing, why: error.to_string() }
}

impl KeptHead for HeadFile {
    fn read(&self) -> Result<Option<String>, StoreError> {
        let doing = "reading the log's kept checkpoint";
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed(doing))?,
        };
        let mut text = String::new();
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed(doing))?;
        Ok(Some(text))
    }

    fn write(&self, checkpoint: &str) -> Result<(), StoreError> {
        durable::replace(&self.0, checkpoint.as_bytes(), 0o600).map_err(failed("keeping the log's checkpoint"))
    }

    fn place(&self) -> String {
        self.0.display().to_string()
    }
}
