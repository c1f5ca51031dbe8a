//! The log's newest signed checkpoint, kept apart from the database (I-10, I-27).
//!
//! What for: a database that was put back from a copy looks whole, but its log is shorter than what was already handed out:
//! serials would be used twice and a grant certified twice. What the service signed last, kept in another file, shows it.
//!
//! What not: no check of signatures or roots (the service does that), no history.
//!
//! The file is two places of [`PLACE_BYTES`] bytes, each with one checkpoint and line ends after it. A new checkpoint is written over the older
//! one, which is one sync of data; replacing a file is three of a journal. The file is replaced as a whole ([`durable`]) when it
//! is not as we left it: at the first write of a process, after an error, when it was moved, replaced, linked or changed in length. A bare
//! checkpoint, as auditors have them, is read as well.
//!
//! Invariant: the place that is written over is not the one that was synced last. A crash leaves the checkpoint before whole, beside the
//! new one or a part of it that does not verify. The one before is still right, only weaker: nothing rested on the new one yet.
//!
//! Known hole: of two services with one such file, which nobody should have, one may lose its checkpoint to the other. Each is told, by an error, unless the other
//! comes between its look and its write.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::StoreError;
use crate::durable;

/// How long a place is: disks and file systems write so much in one piece, so that a write that is cut off leaves the other place alone. Our checkpoints have
/// some 300 bytes.
const PLACE_BYTES: usize = 4096;

/// Where the second place begins, and how long the file is: the most that is read of one.
const SECOND: u64 = 4096;
const BYTES: u64 = 2 * SECOND;

/// Where the newest checkpoint is kept. Blocking: called off the async threads.
pub trait KeptHead: Send + Sync + std::fmt::Debug {
    /// What is kept: the newest checkpoint, and perhaps one before it or a part of one, in any order. None: nothing was kept yet.
    ///
    /// # Errors
    /// When the place can't be read.
    fn read(&self) -> Result<Vec<String>, StoreError>;

    /// Keeps this one, durably; it is the newest.
    ///
    /// # Errors
    /// When it can't be written; then nothing may rest on it.
    fn write(&self, checkpoint: &str) -> Result<(), StoreError>;

    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// A file, mode 0600.
#[derive(Debug)]
pub struct HeadFile {
    path: PathBuf,
    ours: Mutex<Option<Ours>>,
}

/// The file as we left it.
#[derive(Debug)]
struct Ours {
    /// Held open, so that no other file can have its number.
    file: File,
    /// Whether the second place is the older one, which is written over next.
    is_second_older: bool,
}

impl Ours {
    /// Whether the name still stands for it, and nothing else does.
    fn is_at(&self, path: &Path) -> bool {
        let (Ok(here), Ok(ours)) = (std::fs::symlink_metadata(path), self.file.metadata()) else { return false };
        let is_same = (here.dev(), here.ino()) == (ours.dev(), ours.ino());
        is_same && ours.len() == BYTES && ours.nlink() == 1
    }
}

impl HeadFile {
    /// This file; it need not exist yet, its folder must.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, ours: Mutex::new(None) }
    }

    /// Replaces the file by one with this place alone.
    fn replace(&self, mut whole: Vec<u8>) -> io::Result<Ours> {
        whole.resize(whole.len().saturating_mul(2), b'\n');
        let file = durable::replace_and_hold(&self.path, &whole, 0o600)?;
        Ok(Ours { file, is_second_older: true })
    }
}

/// What fills a place.
fn padded(checkpoint: &str) -> io::Result<Vec<u8>> {
    let mut place = checkpoint.as_bytes().to_vec();
    if place.len() > PLACE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the checkpoint is too long"));
    }
    place.resize(PLACE_BYTES, b'\n');
    Ok(place)
}

/// The checkpoints in what was read of such a file, or of one with a bare checkpoint, the newest or not first. One that was only partly written is among them.
#[must_use]
pub fn checkpoints(bytes: &[u8]) -> Vec<String> {
    if u64::try_from(bytes.len()) != Ok(BYTES) {
        return vec![String::from_utf8_lossy(bytes).into_owned()];
    }
    let text = |place: &[u8]| format!("{}\n", String::from_utf8_lossy(place).trim_end_matches('\n'));
    let (first, second) = bytes.split_at(PLACE_BYTES);
    // The second one may not have been used yet.
    std::iter::once(first).chain(Some(second).filter(|place| *place != [b'\n'; PLACE_BYTES])).map(text).collect()
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::Failed { doing, why: error.to_string() }
}

impl KeptHead for HeadFile {
    fn read(&self) -> Result<Vec<String>, StoreError> {
        let doing = "reading the log's kept checkpoint";
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.map_err(failed(doing))?,
        };
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes).map_err(failed(doing))?;
        Ok(checkpoints(&bytes))
    }

    fn write(&self, checkpoint: &str) -> Result<(), StoreError> {
        let failed = || failed("keeping the log's checkpoint");
        let bytes = padded(checkpoint).map_err(failed())?;
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken: after an error nothing is known of the file, and the next write makes a new one.
        let written = match ours.take().filter(|ours| ours.is_at(&self.path)) {
            Some(Ours { file, is_second_older }) => {
                let offset = if is_second_older { SECOND } else { 0 };
                file.write_all_at(&bytes, offset).and_then(|()| file.sync_data()).map_err(failed())?;
                Ours { file, is_second_older: !is_second_older }
            }
            None => self.replace(bytes).map_err(failed())?,
        };
        if !written.is_at(&self.path) {
            return Err(failed()(io::Error::other("somebody else writes this file, too")));
        }
        *ours = Some(written);
        Ok(())
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::audit::checkpoint::{LogKey, newest};

    fn note(size: u64) -> String {
        format!("example.com/log\n{size}\nroot\n\n— example.com/log signature\n")
    }

    fn head() -> (tempfile::TempDir, HeadFile, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        (folder, HeadFile::new(path.clone()), path)
    }

    #[test]
    fn the_checkpoint_before_stays_beside_the_newest() {
        let (_folder, head, path) = head();
        assert_eq!(head.read().unwrap(), Vec::<String>::new());
        head.write(&note(1)).unwrap();
        assert_eq!(head.read().unwrap(), [note(1)]);
        let number = std::fs::metadata(&path).unwrap().ino();
        for size in 2..9 {
            head.write(&note(size)).unwrap();
            let mut kept = head.read().unwrap();
            kept.sort();
            assert_eq!(kept, [note(size - 1), note(size)]);
            let found = std::fs::metadata(&path).unwrap();
            assert_eq!((found.ino(), found.len()), (number, BYTES), "written in place");
        }
        // The next process knows nothing of this one's syncs.
        HeadFile::new(path.clone()).write(&note(9)).unwrap();
        assert_ne!(std::fs::metadata(&path).unwrap().ino(), number);
        assert_eq!(head.read().unwrap(), [note(9)]);
        head.write(&note(10)).unwrap();
        assert_eq!(head.read().unwrap(), [note(10)], "and this one nothing of that one's");
    }

    #[test]
    fn an_auditor_takes_the_newest_checkpoint_in_it() {
        let key = LogKey::new("example.com/log", &[1; 32]).unwrap();
        let (_folder, head, path) = head();
        for size in [9, 10, 11, 99] {
            let note = key.sign(size, &[7; 32]);
            head.write(&note).unwrap();
            assert_eq!(newest(&std::fs::read_to_string(&path).unwrap()), note);
            assert_eq!(newest(&note), note);
        }
        for other in ["", "no checkpoint", "\n"] {
            assert_eq!(newest(other), other);
        }
    }

    #[test]
    fn a_file_that_is_not_as_we_left_it_is_replaced() {
        let (folder, head, path) = head();
        let aside = folder.path().join("aside");
        let spoil: [fn(&PathBuf, &PathBuf); 7] = [
            |path, aside| {
                drop(std::fs::remove_file(aside));
                std::fs::hard_link(path, aside).unwrap();
            },
            |path, _| {
                // Two others have it, one after the other: file systems give a number that is free again.
                HeadFile::new(path.clone()).write(&note(8)).unwrap();
                HeadFile::new(path.clone()).write(&note(9)).unwrap();
            },
            |path, _| std::fs::remove_file(path).unwrap(),
            |path, aside| std::fs::rename(path, aside).unwrap(),
            |path, _| drop(OpenOptions::new().write(true).truncate(true).open(path).unwrap()),
            |path, aside| {
                std::fs::rename(path, aside).unwrap();
                std::fs::copy(aside, path).unwrap();
            },
            |path, aside| {
                std::fs::rename(path, aside).unwrap();
                std::os::unix::fs::symlink(aside, path).unwrap();
            },
        ];
        for spoil in spoil {
            head.write(&note(1)).unwrap();
            head.write(&note(2)).unwrap();
            spoil(&path, &aside);
            let before = std::fs::read(&aside).unwrap_or_default();
            head.write(&note(3)).unwrap();
            assert_eq!(head.read().unwrap(), [note(3)]);
            assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
            assert_eq!(std::fs::read(&aside).unwrap_or_default(), before, "what was moved away is left alone");
        }
    }

    #[test]
    fn bare_checkpoints_and_what_is_none_are_read_as_they_stand() {
        let (_folder, head, path) = head();
        for (bytes, read) in [(note(7), note(7)), (String::new(), String::new()), ("nothing".into(), "nothing".into())]
        {
            durable::replace(&path, bytes.as_bytes(), 0o600).unwrap();
            assert_eq!(head.read().unwrap(), [read]);
        }
        let long = format!("{}\n{}", "a".repeat(PLACE_BYTES), note(1));
        assert!(head.write(&long).unwrap_err().to_string().contains("too long"));
        assert_eq!((u64::try_from(PLACE_BYTES), head.read().unwrap()), (Ok(SECOND), vec!["nothing".to_owned()]));
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_one_before() {
        let (_folder, head, path) = head();
        head.write(&note(1)).unwrap();
        head.write(&note(2)).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"example.com/log\n3\nro", 0).unwrap();
        let kept = head.read().unwrap();
        assert!(kept.len() == 2 && kept.contains(&note(2)), "{kept:?}");
    }
}
