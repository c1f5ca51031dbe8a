//! The store in one SQLite file: WAL, `synchronous=FULL`, one writer thread that groups concurrent changes into one commit.
//!
//! | File | What |
//! |---|---|
//! | `file.rs` | create, lock, connect, migrate, mark as moved |
//! | `group.rs` | one group of changes in one transaction, for the writer thread (`store/writer.rs`) |
//! | `reader.rs` | the reader threads |
//! | `merge.rs` | merging the write-ahead log into the file |
//! | `place.rs` | whether the file is still ours |
//! | `change.rs` | the rows that a change touches (`store/change.rs`), one statement each |
//! | `export.rs` | all rows in order, for a copy |
//! | `backup.rs` | the file as of one moment, and a place for one that comes back |
//! | `log.rs` | entries, tree nodes and head; what they must fulfil is in `store/log.rs` |
//! | `request.rs` `login.rs` `policy.rs` `host.rs` | the rows of each subject |
//!
//! Invariants: nothing is answered before its transaction is on disk; only the writer's connection writes; one process at
//! a time has the file (a lock beside it); no SQL runs on an async thread.
//!
//! Why not a pool of writers? SQLite has one writer at a time anyway, and a commit is one `fsync`: changes that wait while
//! it runs share the next one, which is worth 30 to 150 times the throughput of a commit each.

pub mod backup;
mod change;
pub(super) mod export;
mod file;
mod group;
mod host;
mod log;
mod login;
mod merge;
mod place;
mod policy;
mod reader;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::writer::{Job, Writer, stopped};
use super::{
    Change, Committed, Figures, Head, LiveCertificate, Note, OpenRequests, Pending, RequestFilter, Store, StoreError,
    Stored, StoredPolicy, Work,
};
use crate::audit::entry::Entry;
use crate::audit::tree::{Hash, Node};
use crate::identity::browser::BrowserSession;
use crate::identity::host::HostSession;
use crate::identity::mac::MacKey;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::name::{HostName, PersonName, PolicyVersion, ReportId, RequestId};
use crate::ssh::PublicKey;
use crate::ssh::cert::Certificate;
use crate::time::Timestamp;
use merge::{Merge, Merged};
use reader::Readers;

/// What is said of a file that another process has.
pub const IN_USE: &str = "is in use by another process";

/// Where the database is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file; its folder must exist. Created 0600.
    pub path: PathBuf,
}

/// Where a file was moved to: then it is not the log's database any more, and nothing is written into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The other database, in words.
    pub place: String,
    /// When.
    pub at: Timestamp,
}

impl Moved {
    /// What is told to whoever would go on with the file at `path`.
    #[must_use]
    pub fn refusal(&self, path: &str) -> String {
        let Self { place, at } = self;
        format!(
            "{path:?} was moved to the PostgreSQL database {place} ({at}), where the log goes on; it must not go on here as well. Name that database \
             under [store] in the configuration of each node; where none is to run, disable the unit. To come back to this file on purpose, with \
             every node stopped for good: hallpass store take-back --from sqlite:{path}"
        )
    }
}

/// Takes a file that was moved back, so that services start on it again; gives where it had been moved to, `None` if it was not.
///
/// # Errors
/// When it is no database of ours, is in use, or can't be written.
pub fn take_back(settings: &Settings) -> Result<Option<Moved>, StoreError> {
    file::check_ours(&settings.path)?;
    let _lock = file::prepare(&settings.path)?;
    file::write_log_again(&settings.path)?;
    let mut conn = file::connect_writer(&settings.path)?;
    let moved = file::unmark(&mut conn)?;
    file::keep_log_at_close(&conn, false)?;
    Ok(moved)
}

/// Where a file was moved to, `None` if it was not.
///
/// # Errors
/// When it is in use, or can't be read.
pub fn moved(settings: &Settings) -> Result<Option<Moved>, StoreError> {
    let _lock = file::prepare(&settings.path)?;
    file::write_log_again(&settings.path)?;
    file::moved(&file::connect_writer(&settings.path)?)
}

/// Refuses what is no database file of ours, without making or changing anything.
///
/// # Errors
/// That it is none, or can't be read.
pub fn check_ours(settings: &Settings) -> Result<(), StoreError> {
    file::check_ours(&settings.path)
}

/// The opened store. Dropping it waits for the change that is being written.
#[derive(Debug)]
pub struct SqliteStore {
    // Dropped in this order: the writer closes last, which merges the write-ahead log into the file (readers can't), so
    // that what lies there after a clean stop is whole; then the lock is given up.
    readers: Readers,
    writer: Writer,
    key: Arc<MacKey>,
    merged: Arc<Merged>,
    moved: Option<Moved>,
    _lock: std::fs::File,
}

impl SqliteStore {
    /// Opens or creates it, migrates the schema, and checks that the log's head fits its entries. `key` seals the head (see
    /// `store::SEAL_PURPOSE`). Blocks.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it can't be opened, is in use by another process, readable by others, of another program
    /// or of a newer schema, or was moved; [`StoreError::Damaged`] when head, tree and entries disagree, or the head has not this key's seal.
    pub fn open(settings: &Settings, key: MacKey) -> Result<Self, StoreError> {
        Self::open_to(Work::Serve, settings, key)
    }

    /// The same, for other work.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::Failed`] when it is to be looked at and has an older schema.
    pub fn open_to(work: Work, settings: &Settings, key: MacKey) -> Result<Self, StoreError> {
        let key = Arc::new(key);
        let lock = file::prepare(&settings.path)?;
        file::write_log_again(&settings.path)?;
        let mut conn = file::connect_writer(&settings.path)?;
        match work {
            Work::Serve | Work::Repair => file::migrate(&mut conn)?,
            Work::Look => file::check_schema(&conn)?,
            Work::Copy => file::migrate_any(&mut conn)?,
        }
        let moved = file::moved(&conn)?;
        let head = log::load_checked(&conn, &key)?;
        let readers = Readers::start(&settings.path)?;
        let merged = Arc::new(Merged::default());
        let merge = Merge::new(&settings.path, Arc::clone(&merged));
        let groups = group::Groups::new(settings.path.clone(), Arc::clone(&key), (conn, head), merge)?;
        let writer = Writer::start(groups)?;
        Ok(Self { readers, writer, key, merged, moved, _lock: lock })
    }

    fn read<'a, T: Send + 'static>(
        &'a self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<'a, T> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.readers.submit(Box::new(move |conn| {
                // A caller who went away needs no answer.
                drop(reply.send(work(conn)));
            }))?;
            answer.await.map_err(|_dropped| stopped("reading"))?
        })
    }
}

impl Store for SqliteStore {
    fn is_alive(&self) -> bool {
        self.writer.is_alive() && self.readers.is_alive()
    }

    fn figures(&self) -> Figures {
        let is_merging = self.merged.wrong().is_none();
        Figures { unmerged: self.merged.unmerged(), is_merging, ..self.writer.figures() }
    }

    fn warnings(&self) -> Vec<String> {
        self.merged.wrong().into_iter().collect()
    }

    fn moved(&self) -> Option<&Moved> {
        self.moved.as_ref()
    }

    fn commit(&self, change: Change) -> Pending<'_, Committed> {
        Box::pin(self.writer.run(move |reply| Job::Commit(Box::new(change), reply)))
    }

    fn request(&self, id: RequestId) -> Pending<'_, Option<Stored>> {
        self.read(move |conn| request::one(conn, id))
    }

    fn logged(&self, id: RequestId) -> Pending<'_, Option<(Stored, Vec<Entry>)>> {
        let key = Arc::clone(&self.key);
        self.read(move |conn| request::logged(conn, &key, id))
    }

    fn requests(&self, filter: RequestFilter) -> Pending<'_, Vec<Stored>> {
        self.read(move |conn| request::matching(conn, &filter))
    }

    fn due(&self, now: Timestamp, limit: usize) -> Pending<'_, Vec<Stored>> {
        self.read(move |conn| request::due(conn, now, limit))
    }

    fn open_of(&self, asker: PersonName, key: PublicKey) -> Pending<'_, OpenRequests> {
        self.read(move |conn| request::open_of(conn, &asker, &key))
    }

    fn session(&self, token: TokenHash) -> Pending<'_, Option<Session>> {
        self.read(move |conn| login::session(conn, token))
    }

    fn browser_session(&self, token: TokenHash) -> Pending<'_, Option<(BrowserSession, Session)>> {
        self.read(move |conn| login::browser_session(conn, token))
    }

    fn sweep(&self, now: Timestamp) -> Pending<'_, ()> {
        Box::pin(self.writer.run(move |reply| Job::Sweep(now, reply)))
    }

    fn certified_for(&self, host: HostName, now: Timestamp) -> Pending<'_, Vec<RequestId>> {
        self.read(move |conn| request::certified_for(conn, &host, now))
    }

    fn live_certificates(&self, now: Timestamp) -> Pending<'_, Vec<LiveCertificate>> {
        self.read(move |conn| request::live_certificates(conn, now))
    }

    fn policy(&self, version: Option<PolicyVersion>) -> Pending<'_, Option<StoredPolicy>> {
        self.read(move |conn| policy::one(conn, version))
    }

    fn policy_entry(&self, version: PolicyVersion) -> Pending<'_, Option<Entry>> {
        let key = Arc::clone(&self.key);
        self.read(move |conn| log::policy_entry(conn, &key, version))
    }

    fn inventory(&self, from: u64, next: u64) -> Pending<'_, Vec<Entry>> {
        let key = Arc::clone(&self.key);
        self.read(move |conn| log::inventory(conn, &key, from, next))
    }

    fn host_session(&self, token: TokenHash) -> Pending<'_, Option<HostSession>> {
        self.read(move |conn| host::session(conn, token))
    }

    fn note(&self, note: Note) -> Pending<'_, ()> {
        Box::pin(self.writer.run(move |reply| Job::Note(Box::new(note), reply)))
    }

    fn seen(&self) -> Pending<'_, BTreeMap<HostName, Seen>> {
        self.read(host::seen)
    }

    fn known_reports(&self, host: HostName, reports: Vec<ReportId>) -> Pending<'_, BTreeSet<ReportId>> {
        self.read(move |conn| host::known_reports(conn, &host, reports))
    }

    fn host_certificates(&self, host: HostName) -> Pending<'_, Vec<Certificate>> {
        self.read(move |conn| host::certificates(conn, &host))
    }

    fn keys_entry(&self) -> Pending<'_, Option<Entry>> {
        let key = Arc::clone(&self.key);
        self.read(move |conn| log::keys_entry(conn, &key))
    }

    fn policy_with_text(&self, text: String) -> Pending<'_, Option<PolicyVersion>> {
        self.read(move |conn| policy::with_text(conn, &text))
    }

    fn policies(&self) -> Pending<'_, Vec<StoredPolicy>> {
        self.read(policy::all)
    }

    fn head(&self) -> Pending<'_, Head> {
        let key = Arc::clone(&self.key);
        self.read(move |conn| log::head(conn, &key))
    }

    fn entries(&self, from: u64, limit: usize) -> Pending<'_, Vec<Vec<u8>>> {
        self.read(move |conn| log::entries(conn, from, limit))
    }

    fn entries_of(&self, request: RequestId) -> Pending<'_, Vec<Entry>> {
        let key = Arc::clone(&self.key);
        self.read(move |conn| log::entries_of(conn, &key, request))
    }

    fn nodes(&self, wanted: Vec<Node>) -> Pending<'_, BTreeMap<Node, Hash>> {
        self.read(move |conn| log::nodes(conn, wanted))
    }

    fn ready(&self) -> Pending<'_, ()> {
        Box::pin(self.writer.run(Job::Ready))
    }
}

/// Maps a database error to [`StoreError::Failed`]. SQLite's messages hold names of tables and files, never values.
fn failed(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| StoreError::Failed { doing, why: error.to_string() }
}
