//! Files on the host changed so that there is always a way back: what they were is durable before the first is touched.
//!
//! What for: [`Memory::begin`] writes down the way back, [`Memory::write`] changes one file, [`Memory::keep`] makes it last; until then
//! [`Memory::restore`] brings every file back byte for byte, with mode and owner. `host leave` restores what was there before the
//! first enrolment, from a second ledger.
//!
//! Layout, below `/var/lib/hallpass/host` (root alone): `changing.toml` and `changing/N` while a change is under way; `enrolled.toml`
//! and `enrolled/N` for as long as the host is enrolled. `N.after` is what was written over copy N. `told` from when the service has heard that the host
//! leaves, until it has left or joins again.
//!
//! What a crash leaves: before `changing.toml` is there, nothing is changed, and stray copies are overwritten next time. From then on the
//! next `enrol` or `leave` restores, which may be done any number of times. `enrolled.toml` with the change's id is the moment from
//! which it holds; what is left of the change then is swept away.
//!
//! Invariants: a file that somebody else has changed since is not put back as a whole: only our lines are taken out of it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use super::ledger::{self, Ledger, Original, Saved};
use super::places::{self, Root};
use super::plan::Write;
use super::{pam, texts};
use crate::durable;
use crate::fail;
use crate::name::HostName;

/// The longest file that is changed. Our own choice; the longest `sshd_config` seen has 12 KiB.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The file with the name by which the service has heard that the host leaves.
const TOLD: &str = "told";

/// Which of the two ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The change that is under way.
    Change,
    /// All since the host was enrolled.
    Enrolment,
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Change => "changing",
            Self::Enrolment => "enrolled",
        }
    }
}

/// What is remembered about the host before us.
#[derive(Clone, Debug)]
pub struct Memory {
    root: Root,
    folder: PathBuf,
}

/// What is known before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not enrolled, nothing under way.
    Fresh,
    /// A change was cut short, and must be taken back.
    Unfinished(Box<Ledger>),
    /// Enrolled.
    Enrolled(Box<Ledger>),
}

impl Memory {
    /// The memory of the host below `root`; nothing is made yet.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        Self { root: root.clone(), folder: root.path(places::MEMORY) }
    }

    /// Where the host stands.
    ///
    /// # Errors
    /// When a ledger is there and can't be read.
    pub fn standing(&self) -> Result<Standing, String> {
        let (changing, enrolled) = (self.load(Which::Change)?, self.load(Which::Enrolment)?);
        Ok(match (changing, enrolled) {
            (Some(change), Some(all)) if change.id == all.id => {
                // It held; only the sweeping is left.
                self.forget(Which::Change)?;
                Standing::Enrolled(Box::new(all))
            }
            (Some(change), _) => Standing::Unfinished(Box::new(change)),
            (None, Some(all)) => Standing::Enrolled(Box::new(all)),
            (None, None) => Standing::Fresh,
        })
    }

    /// What the enrolment as a whole started from.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn enrolled(&self) -> Result<Option<Ledger>, String> {
        self.load(Which::Enrolment)
    }

    /// Writes down the way back from what is about to be written, durably.
    ///
    /// # Errors
    /// In words; then nothing has been changed.
    pub fn begin(&self, id: &str, writes: &[Write], accounts: &[String], has_unit: bool) -> Result<Ledger, String> {
        fail::point("enrolment.journal.before");
        let copies = self.folder.join(Which::Change.name());
        // The folder above is not ours alone: a service may live there, too.
        let above = self.folder.parent().unwrap_or(&self.folder);
        durable::create_folder(above, 0o755).map_err(|error| error.to_string())?;
        durable::create_folder(&self.folder, 0o700).map_err(|error| error.to_string())?;
        durable::create_folder(&copies, 0o700).map_err(|error| error.to_string())?;
        let mut ledger = Ledger { id: id.to_owned(), accounts: accounts.to_vec(), has_unit, ..Ledger::default() };
        for write in writes {
            let Some(text) = &write.text else { continue };
            let original = self.save(&copies, write, text, ledger.next_copy())?;
            ledger.files.push(original);
            self.note_folders(&write.path, &mut ledger.folders);
        }
        self.store(Which::Change, &ledger)?;
        fail::point("enrolment.journal.durable");
        Ok(ledger)
    }

    /// Copies what is there.
    fn save(&self, copies: &Path, write: &Write, text: &str, copy: u64) -> Result<Original, String> {
        let path = self.root.path(&write.path);
        let Some((bytes, metadata)) = read(&path).map_err(|error| format!("cannot read {path:?}: {error}"))? else {
            return Ok(Original { path: write.path.clone(), is_ours: write.is_ours, was: None });
        };
        let told = |error: io::Error| error.to_string();
        durable::replace(&copies.join(copy.to_string()), &bytes, 0o600).map_err(told)?;
        durable::replace(&copies.join(format!("{copy}.after")), text.as_bytes(), 0o600).map_err(told)?;
        let was = Saved { copy, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() };
        Ok(Original { path: write.path.clone(), is_ours: write.is_ours, was: Some(was) })
    }

    /// The folders above `path` that are not there yet.
    fn note_folders(&self, path: &str, folders: &mut Vec<String>) {
        let missing = Path::new(path).ancestors().skip(1).take_while(|folder| !self.root.path(folder).is_dir());
        let mut missing: Vec<String> = missing.map(|folder| folder.display().to_string()).collect();
        missing.reverse();
        folders.extend(missing.into_iter().filter(|folder| !folders.contains(folder)).collect::<Vec<_>>());
    }

    /// Writes one file, under the mode and owner that it had.
    ///
    /// # Errors
    /// In words.
    pub fn write(&self, ledger: &Ledger, write: &Write) -> Result<(), String> {
        let Some(text) = &write.text else { return Ok(()) };
        fail::point("enrolment.file.before");
        let was = ledger.files.iter().find(|file| file.path == write.path).and_then(|file| file.was.as_ref());
        let path = self.root.path(&write.path);
        let told = |error: io::Error| error.to_string();
        if let Some(folder) = path.parent() {
            durable::create_folder(folder, 0o755).map_err(told)?;
        }
        // What sshd's unprivileged command reads must be readable, whatever was there before.
        let mode = if write.is_ours { 0o644 } else { was.map_or(0o644, |was| was.mode) };
        durable::replace(&path, text.as_bytes(), mode).map_err(told)?;
        if let Some(was) = was.filter(|_| !write.is_ours) {
            own(&path, was).map_err(|error| format!("cannot give {path:?} back to its owner: {error}"))?;
        }
        fail::point("enrolment.file.written");
        Ok(())
    }

    /// Makes a change last: from here on it is `host leave` that takes it back.
    ///
    /// # Errors
    /// In words; then it does not hold, and must be restored.
    pub fn keep(&self, change: &Ledger) -> Result<(), String> {
        let before = self.load(Which::Enrolment)?.unwrap_or_default();
        let (from, to) = (self.folder.join(Which::Change.name()), self.folder.join(Which::Enrolment.name()));
        durable::create_folder(&to, 0o700).map_err(|error| error.to_string())?;
        let mut copied = Ok(());
        let all = before.joined(change, |old, new| {
            for suffix in ["", ".after"] {
                let (old, new) = (from.join(format!("{old}{suffix}")), to.join(format!("{new}{suffix}")));
                let copy = fs::read(&old).and_then(|bytes| durable::replace(&new, &bytes, 0o600));
                if let Err(error) = copy {
                    copied = Err(format!("cannot keep a copy of {old:?}: {error}"));
                }
            }
        });
        copied?;
        fail::point("enrolment.keep.before");
        self.store(Which::Enrolment, &all)?;
        fail::point("enrolment.keep.durable");
        self.forget(Which::Change)
    }

    /// Puts back every file of a ledger whose `pick` holds, the last one first. May be done any number of times.
    ///
    /// # Errors
    /// In words: what could not be put back. Everything else is.
    pub fn restore(&self, which: Which, ledger: &Ledger, pick: impl Fn(&str) -> bool) -> Result<(), String> {
        let copies = self.folder.join(which.name());
        let files: Vec<&Original> = ledger.files.iter().rev().filter(|file| pick(&file.path)).collect();
        let mut left = Vec::new();
        for file in files {
            if self.restore_one(&copies, file).is_err() {
                left.push(file);
            }
            fail::point("enrolment.file.restored");
        }
        // On a full disk, what has gone meanwhile may have made the room.
        for file in left {
            self.restore_one(&copies, file)?;
        }
        Ok(())
    }

    fn restore_one(&self, copies: &Path, file: &Original) -> Result<(), String> {
        let path = self.root.path(&file.path);
        let told = |error: io::Error| format!("cannot put back {path:?}: {error}");
        sweep(&path);
        let now = read(&path).map_err(told)?;
        let Some(was) = &file.was else {
            return match now {
                Some(_) => remove(&path).map_err(told),
                None => Ok(()),
            };
        };
        let copy = |suffix: &str| fs::read(copies.join(format!("{}{suffix}", was.copy))).map_err(told);
        let (before, after) = (copy("")?, copy(".after")?);
        let bytes = match &now {
            Some((bytes, metadata)) if *bytes == before && metadata.mode() & 0o7777 == was.mode => return Ok(()),
            Some((bytes, _)) if !file.is_ours && *bytes != after && *bytes != before => {
                without_our_lines(bytes, &path)?
            }
            Some(_) | None => before,
        };
        durable::replace(&path, &bytes, was.mode).map_err(told)?;
        own(&path, was).map_err(told)
    }

    /// Removes the folders that were made, as far as they are empty: first what the daemon and half-done writes left in them.
    ///
    /// # Errors
    /// In words: which one holds something that is not ours.
    pub fn remove_folders(&self, ledger: &Ledger) -> Result<(), String> {
        for folder in ledger.folders.iter().rev() {
            let path = self.root.path(folder);
            if !path.is_dir() {
                continue;
            }
            if folder == places::SSHD_FOLDER {
                remove_kept_fresh(&path);
            }
            match fs::remove_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(format!("cannot remove {path:?}: {error}")),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Forgets the change under way, after it has been taken back.
    ///
    /// # Errors
    /// In words.
    pub fn forget_change(&self) -> Result<(), String> {
        self.forget(Which::Change)
    }

    /// Notes that the service has heard that the host of this name leaves: whoever is cut short tells it once, and knows that when it is done again.
    ///
    /// # Errors
    /// In words.
    pub fn note_told(&self, name: &str) -> Result<(), String> {
        durable::replace(&self.folder.join(TOLD), name.as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// The name by which the service has heard that the host leaves.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        let name = fs::read_to_string(self.folder.join(TOLD)).ok()?;
        HostName::parse(&name).ok().map(|name| name.to_string())
    }

    /// Forgets it: the host has left, or joins again.
    ///
    /// # Errors
    /// In words.
    pub fn forget_told(&self) -> Result<(), String> {
        let path = self.folder.join(TOLD);
        match remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("cannot remove {path:?}: {error}")),
            _ => Ok(()),
        }
    }

    /// Forgets that the host was ever enrolled.
    ///
    /// # Errors
    /// In words.
    pub fn forget_all(&self) -> Result<(), String> {
        self.forget(Which::Change)?;
        self.forget(Which::Enrolment)?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {:?}: {error}", self.folder));
            }
            _ => {}
        }
        // Not if anything else is in it, or it is somebody else's.
        if let Some(above) = self.folder.parent()
            && fs::metadata(above).is_ok_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw())
        {
            drop(fs::remove_dir(above));
        }
        Ok(())
    }

    /// The ledger goes first: without it, its copies mean nothing.
    fn forget(&self, which: Which) -> Result<(), String> {
        let ledger = self.folder.join(format!("{}.toml", which.name()));
        let told = |error: io::Error| format!("cannot remove {ledger:?}: {error}");
        match remove(&ledger) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(told(error)),
            _ => {}
        }
        match fs::remove_dir_all(self.folder.join(which.name())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(told(error)),
            _ => Ok(()),
        }
    }

    fn store(&self, which: Which, ledger: &Ledger) -> Result<(), String> {
        let path = self.folder.join(format!("{}.toml", which.name()));
        durable::replace(&path, ledger.to_string().as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    fn load(&self, which: Which) -> Result<Option<Ledger>, String> {
        let path = self.folder.join(format!("{}.toml", which.name()));
        let told = |why: String| format!("cannot read {path:?}: {why}");
        let Some((bytes, _)) = read(&path).map_err(|error| told(error.to_string()))? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|error| told(error.to_string()))?;
        if text.len() > ledger::BYTES_MAX {
            Err(told("it is too long".to_owned()))
        } else {
            Ledger::parse(&text).map(Some).map_err(told)
        }
    }
}

/// A regular file's content; `None` if nothing is there. Links are not followed.
fn read(path: &Path) -> io::Result<Option<(Vec<u8>, fs::Metadata)>> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is not a regular file, or too long to be what it should be"));
    }
    Ok(Some((fs::read(path)?, metadata)))
}

fn own(path: &Path, was: &Saved) -> io::Result<()> {
    let now = fs::metadata(path)?;
    if (now.uid(), now.gid()) == (was.uid, was.gid) { Ok(()) } else { chown(path, Some(was.uid), Some(was.gid)) }
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// What a write that was cut short left beside its target.
fn sweep(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let Ok(files) = fs::read_dir(folder) else { return };
    let is_stray = |file: &str| file.starts_with(&format!(".{name}.")) && file.ends_with(".tmp");
    for file in files.flatten().filter(|file| file.file_name().to_str().is_some_and(is_stray)) {
        // What can't be removed is in nobody's way.
        drop(fs::remove_file(file.path()));
    }
}

/// A file that was edited since, as it is, but without our lines.
fn without_our_lines(bytes: &[u8], path: &Path) -> Result<Vec<u8>, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| format!("{path:?} is not text any more: take our lines out by hand"))?;
    Ok(texts::without_ours(&pam::without_guard(text)).into_bytes())
}

/// What the daemon writes into sshd's folder.
fn remove_kept_fresh(folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else { return };
    let is_ours = |name: &str| {
        ["user_ca_keys", "ended", "untold"].contains(&name)
            || name.ends_with("-cert.pub")
            || (name.starts_with('.') && name.ends_with(".tmp"))
    };
    for file in files.flatten().filter(|file| file.file_name().to_str().is_some_and(is_ours)) {
        drop(fs::remove_file(file.path()));
    }
}
