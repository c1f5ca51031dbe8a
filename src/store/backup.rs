//! A backup: a folder with the whole database as one file, and a manifest that says what it is.
//!
//! What for: an online copy of a database file, complete and consistent, whose loss of a bit or change by somebody is noticed before it is
//! put back. What not: no key, no passphrase, no token (the database holds hashes of tokens alone), and not the kept checkpoint
//! ([`super::head_file`]): it is what tells an old backup from the newest database, so it must not go with the backup.
//!
//! Invariants: the folder appears whole or not at all, and never in place of another; the manifest is sealed with a key that is derived from
//! the log key, so nobody without it makes or changes a backup that passes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::scratch::Scratch;
use super::{SEAL_PURPOSE, StoreError, sqlite};
use crate::audit::checkpoint::LogKey;
use crate::durable;
use crate::fail;
use crate::time::Timestamp;

/// The database in a backup.
pub const DATABASE: &str = "hallpass.db";

/// What says what it is.
pub const MANIFEST: &str = "manifest.json";

/// The version of the format.
const FORMAT: u32 = 1;

/// What the key is for that seals manifests.
const MANIFEST_PURPOSE: &str = "backup manifest";

/// The longest manifest that is read; ours have less than a KiB.
const BYTES_MAX: u64 = 16 * 1024;

const DOING: &str = "making a backup";
const READING: &str = "reading a backup";

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: u32,
    /// The program that made it.
    pub program: String,
    /// When, RFC 3339.
    pub made: String,
    /// The database's schema.
    pub schema: i64,
    /// How many entries its log has.
    pub entries: u64,
    /// When the last of them was written, RFC 3339.
    pub last: String,
    /// The signed checkpoint over them.
    pub checkpoint: String,
    /// How many bytes the database has.
    pub bytes: u64,
    /// Their SHA-256, hex.
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    backup: Manifest,
    seal: String,
}

fn failed(doing: &'static str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Failed { doing, why: why.to_string() }
}

fn wrong(why: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { what: "the backup".to_owned(), why: why.to_string() }
}

/// Makes a backup of a database file in the new folder `to`, while a service may run on it. `told` hears pages done, and all of them.
///
/// # Errors
/// When `to` is there, or the database can't be read, or does not hold; then nothing is there.
pub fn create(
    from: &sqlite::Settings,
    to: &Path,
    (key, now): (&LogKey, Timestamp),
    told: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Manifest, StoreError> {
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(failed(DOING, format!("{to:?} is there already; give a new name")));
    }
    let scratch = Scratch::beside(to).map_err(|why| failed(DOING, format!("{to:?}: {why}")))?;
    let database = scratch.file(DATABASE);
    let (head, schema) = sqlite::backup::copy(&from.path, &database, &key.derive(SEAL_PURPOSE), told)?;
    if head.frontier.size() == 0 {
        return Err(failed(DOING, "the database has no log yet: there is nothing to keep"));
    }
    fail::point("backup.copied");
    let (bytes, sha256) =
        File::open(&database).and_then(|file| hash(file, io::sink())).map_err(|why| failed(DOING, why))?;
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made: now.to_string(),
        schema,
        entries: head.frontier.size(),
        last: head.at.to_string(),
        checkpoint: key.sign(head.frontier.size(), &head.frontier.root()),
        bytes,
        sha256,
    };
    let text = manifest.to_text(key)?;
    File::open(&database).and_then(|file| file.sync_all()).map_err(|why| failed(DOING, why))?;
    durable::create(&scratch.file(MANIFEST), text.as_bytes(), 0o600).map_err(|why| failed(DOING, why))?;
    fail::point("backup.written");
    scratch.place(to).map_err(|why| failed(DOING, why))?;
    fail::point("backup.placed");
    Ok(manifest)
}

impl Manifest {
    fn body(&self) -> Result<Vec<u8>, StoreError> {
        serde_json::to_vec(self).map_err(|why| failed(DOING, why))
    }

    fn to_text(&self, key: &LogKey) -> Result<String, StoreError> {
        let seal = data_encoding::HEXLOWER.encode(&key.derive(MANIFEST_PURPOSE).seal(&self.body()?));
        let text =
            serde_json::to_string_pretty(&Sealed { backup: self.clone(), seal }).map_err(|why| failed(DOING, why))?;
        Ok(format!("{text}\n"))
    }

    /// Reads the manifest of the backup in `folder`.
    ///
    /// # Errors
    /// When it can't be read, or was not made with this log key.
    pub fn read(folder: &Path, key: &LogKey) -> Result<Self, StoreError> {
        let path = folder.join(MANIFEST);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        read.map_err(|why| failed(READING, format!("{path:?}: {why}")))?;
        let Sealed { backup, seal } =
            serde_json::from_str(&text).map_err(|why| wrong(format!("its manifest: {why}")))?;
        let seal = data_encoding::HEXLOWER.decode(seal.as_bytes()).unwrap_or_default();
        if !key.derive(MANIFEST_PURPOSE).has_sealed(&backup.body()?, &seal) {
            return Err(wrong("its manifest was not made with the configured log key, or was changed"));
        }
        if backup.format != FORMAT {
            return Err(wrong(format!("it has format {}, this program knows {FORMAT}", backup.format)));
        }
        Ok(backup)
    }

    /// Copies the database of the backup in `folder` to the new file `to`, if every byte is as it was.
    ///
    /// # Errors
    /// When it is not, or can't be read or written.
    pub fn take_out(&self, folder: &Path, to: &Path) -> Result<(), StoreError> {
        let path = folder.join(DATABASE);
        let named = |why: io::Error| failed(READING, format!("{path:?}: {why}"));
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(named)?;
        let (bytes, sha256) = File::open(&path).and_then(|file| hash(file, &new)).map_err(named)?;
        if (bytes, &sha256) != (self.bytes, &self.sha256) {
            return Err(wrong("its database is not the one that the manifest was made for: it was damaged or changed"));
        }
        new.sync_all().map_err(named)
    }
}

/// Copies all bytes; gives how many, and their hash.
fn hash(mut from: File, mut to: impl io::Write) -> io::Result<(u64, String)> {
    let (mut sha, mut count) = (Sha256::new(), 0_u64);
    let mut piece = vec![0; 1024 * 1024];
    loop {
        let read = from.read(&mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        sha.update(bytes);
        to.write_all(bytes)?;
        count = count.saturating_add(u64::try_from(read).unwrap_or(0));
    }
    Ok((count, data_encoding::HEXLOWER.encode(&sha.finalize())))
}
