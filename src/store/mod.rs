//! What the service keeps, in domain types: each change goes in together with its log entries, in one durable transaction.
//!
//! One interface for SQLite (embedded, one process) and PostgreSQL (any number of nodes); one contract test suite for both.
//!
//! | File | What |
//! |---|---|
//! | `sqlite/` `postgres/` | the two databases: statements, connections, transactions |
//! | `writer.rs` | the queue and the thread that groups concurrent changes into one commit |
//! | `change.rs` `log.rs` `sweep.rs` | the rules of a change, of the log's head and proofs, of what is over: the same for both |
//! | `columns.rs` `rows.rs` `host_rows.rs` `numbers.rs` | rows ↔ domain types |
//! | `copy.rs` | from a SQLite file to an empty PostgreSQL database |
//! | `backup.rs` `scratch.rs` | a database file with a manifest, made while a service runs; where copies are made and looked at |
//! | `head_file.rs` | the newest checkpoint, apart from the database |

pub mod backup;
mod change;
mod columns;
pub mod copy;
pub mod head_file;
mod host_rows;
mod log;
mod numbers;
pub mod postgres;
pub mod rows;
pub mod scratch;
pub mod sqlite;
mod sweep;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use thiserror::Error;

use crate::access::{AccessRequest, Permit};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::tree::{Frontier, Hash, Node};
use crate::identity::browser::BrowserSession;
use crate::identity::challenge::Redemption;
use crate::identity::host::HostSession;
use crate::identity::mac::MacKey;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::inventory::permit::HostPermit;
use crate::keyring::ActiveKey;
use crate::name::{HostName, PersonName, PolicyVersion, ReportId, RequestId, RequestPrefix};
use crate::ssh::cert::{Certificate, TbsCert};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// The most that one call lists; a greater limit means this one. Our own choice: what one answer can hold.
pub const LIST_MAX: usize = 1_000;

/// What the key is for that seals the log's head (`identity::mac`), derived from the log key.
pub const SEAL_PURPOSE: &str = "log head";

/// Which database, and where.
#[derive(Clone, Debug)]
pub enum Settings {
    /// A file, for one process.
    Sqlite(sqlite::Settings),
    /// A server, for any number of nodes.
    Postgres(postgres::Settings),
}

impl Settings {
    /// The database's name, for messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Sqlite(file) => file.path.display().to_string(),
            Self::Postgres(settings) => format!("{} at {}", settings.database, settings.server.shown()),
        }
    }
}

/// Opens the store; `key` seals the log's head ([`SEAL_PURPOSE`]). May block.
///
/// # Errors
/// What the database's own `open` says.
pub async fn open(settings: &Settings, key: MacKey) -> Result<Box<dyn Store>, StoreError> {
    open_to(Work::Serve, settings, key).await
}

/// What a database is opened for. A file is one process's alone, whatever for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To work on it, perhaps beside other nodes.
    Serve,
    /// To look at it: it is of this program's schema, or refused, since making it so can't be taken back.
    Look,
    /// To change it while no node works on it.
    Repair,
    /// To read all of it for another place, also a file that was moved; it is brought to this program's schema.
    Copy,
}

/// The same, for other work.
///
/// # Errors
/// What the database's own `open` says; that nodes work on it, or that it is being repaired.
pub async fn open_to(work: Work, settings: &Settings, key: MacKey) -> Result<Box<dyn Store>, StoreError> {
    match settings {
        Settings::Sqlite(file) => Ok(Box::new(sqlite::SqliteStore::open_to(work, file, key)?)),
        Settings::Postgres(settings) => Ok(Box::new(postgres::PostgresStore::open_to(work, settings, key).await?)),
    }
}

/// Why a database of an older schema is not looked at (0: it has none).
fn older_schema(found: usize, ours: usize) -> String {
    if found == 0 {
        return "nothing of hallpass is in it, and looking changes nothing: no service has ever begun on it".to_owned();
    }
    format!(
        "it has schema {found}, and this program would bring it to {ours}, which can't be taken back, and looking changes nothing: look with \
         the program that last served it, or start this program's service on it, which brings it to {ours} first"
    )
}

/// A boxed future, so that the store can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Counts changes of one request; compare-and-swap on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowVersion(pub u64);

impl RowVersion {
    /// Of a row that has just been made.
    pub const FIRST: Self = Self(1);
}

/// A stored request with its row version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The request.
    pub request: AccessRequest,
    /// Its row version; give it back in `Save`'s `expected`.
    pub version: RowVersion,
}

/// One atomic change: all of it with its log entries, or nothing. Constructed whole by the service.
#[derive(Debug)]
pub struct Change {
    /// When; log time never runs backwards, so an earlier time is written as the last entry's.
    pub at: Timestamp,
    /// State changes, in order.
    pub saves: Vec<Save>,
    /// Log entries, in order; before that of a `Certify`, after those of the other saves. Never empty unless a save makes one.
    pub events: Vec<Event>,
}

/// One state change.
#[derive(Debug)]
pub enum Save {
    /// A new request; its id must be free.
    NewRequest(AccessRequest),
    /// The next state of a request; its row must still be at `expected`.
    Request {
        /// The next state.
        request: AccessRequest,
        /// The version that was read.
        expected: RowVersion,
    },
    /// Certify: assigns the serial (the index of the log entry it makes), saves request and to-be-signed bytes with it. Comes after all else of
    /// its change, so that what is asked and granted can be certified with it.
    Certify {
        /// From `access::step`.
        permit: Box<Permit>,
        /// The active key of the hosts' CA.
        ca: ActiveKey,
        /// 32 random bytes.
        nonce: [u8; 32],
        /// The version that was read.
        expected: RowVersion,
    },
    /// A new session.
    NewSession(Session),
    /// A session ends (no error when it is gone already), and those of browsers that it let in.
    EndSession(TokenHash),
    /// All sessions of a person end, and those of browsers that they let in.
    EndSessionsOf(PersonName),
    /// The sessions end that this person opened with this login key, with those of browsers that they let in.
    EndSessionsBy(PersonName, Fingerprint),
    /// All sessions of people end, and those of browsers.
    EndAllSessions,
    /// A new session of a browser; its parent must be there, else it is a [`StoreError::Conflict`].
    NewBrowserSession(BrowserSession),
    /// A browser's session ends (no error when it is gone already).
    EndBrowserSession(TokenHash),
    /// A challenge is used up; a second time is [`StoreError::Replayed`].
    Redeem(Redemption),
    /// A new policy version; must be the last plus one.
    NewPolicy(StoredPolicy),
    /// What is saved rests on an inventory of so many entries. Every change with such an entry says on which.
    Inventory {
        /// How many entries the inventory was made of.
        expected: u64,
    },
    /// What is saved rests on a log of so many entries; another number is a [`StoreError::Conflict`].
    AtSize(u64),
    /// What is saved rests on what the log said was in force; if it says something else by now, the change is
    /// [`StoreError::Overtaken`]. What makes P6 and P7 hold when several nodes write one log.
    OnBasis(Basis),
    /// What is saved rests on this request as it was read; another row version is [`StoreError::Superseded`].
    AsRead {
        /// Which.
        request: RequestId,
        /// The version that was read.
        version: RowVersion,
    },
    /// What is saved must not be dated long before the log's last entry; else [`StoreError::Behind`].
    OnTime {
        /// So many seconds are let pass.
        tolerance: u64,
    },
    /// What is saved rests on so many open requests of this person; other numbers are a [`StoreError::Conflict`].
    OpenAsRead {
        /// Whose.
        asker: PersonName,
        /// Under which key.
        key: PublicKey,
        /// How many are open.
        count: u64,
        /// How many of them hold the key.
        with_key: u64,
    },
    /// Certify a host, or its login to itself: assigns the serial, which is the index of the log entry it makes.
    CertifyHost {
        /// From `inventory::permit`.
        permit: Box<HostPermit>,
        /// The CA key.
        ca: PublicKey,
        /// 32 random bytes.
        nonce: [u8; 32],
    },
    /// A certificate of a host's own key, to be shown to the host again.
    HostCertificate {
        /// The host.
        host: HostName,
        /// The certificate.
        certificate: Box<Certificate>,
    },
    /// A new host session.
    NewHostSession(HostSession),
    /// A report of a host is taken up; a second time is a [`StoreError::Conflict`].
    Report {
        /// The host.
        host: HostName,
        /// Its own id of it.
        report: ReportId,
    },
}

/// Something to be kept on which no decision rests, and which the log therefore need not hold.
#[derive(Debug)]
pub enum Note {
    /// A host has shown its key again and has a new token; the challenge is used up.
    HostSession {
        /// The challenge.
        redemption: Redemption,
        /// The session.
        session: HostSession,
    },
    /// What a host told of itself last.
    Seen {
        /// The host.
        host: HostName,
        /// What.
        seen: Seen,
    },
}

/// A policy version as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Its number.
    pub version: PolicyVersion,
    /// Its text.
    pub text: String,
    /// Who applied it: `person:…` or `system:…`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What a commit wrote.
#[derive(Debug, Default)]
pub struct Committed {
    /// Indexes of the log entries, in the order they were written.
    pub entries: Vec<u64>,
    /// The requests as saved, with their new row versions.
    pub requests: Vec<Stored>,
    /// The to-be-signed certificate of a `Certify` save.
    pub tbs: Option<TbsCert>,
    /// The log up to the last of its entries.
    pub log: Frontier,
}

/// Which requests to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    /// Only of this asker.
    pub asker: Option<PersonName>,
    /// Only in these states (words of `access::State::word`); empty means all.
    pub states: BTreeSet<&'static str>,
    /// Only for this host.
    pub host: Option<HostName>,
    /// Only those that wait for a decision: pending, or granted with an extension that waits.
    pub waits: bool,
    /// Only asked at or after.
    pub since: Option<Timestamp>,
    /// Only with this id or prefix.
    pub prefix: Option<RequestPrefix>,
    /// At most so many (the caller's cap is 1000).
    pub limit: usize,
}

/// What one person has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequests {
    /// How many requests.
    pub count: u64,
    /// Those among them that hold the key in question.
    pub with_key: Vec<Stored>,
}

/// A certificate whose window is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveCertificate {
    /// Of which request.
    pub request: RequestId,
    /// By which CA key.
    pub ca: Fingerprint,
    /// The end of its window.
    pub end: Timestamp,
}

/// The log's head: its size and growing edge, and the last entry's time.
///
/// Sealed where it is stored: who can write the database but has not the service's keys neither adds an entry that counts,
/// nor changes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The tree.
    pub frontier: Frontier,
    /// Time of the last entry.
    pub at: Timestamp,
    /// The newest policy version that the log names.
    pub policy: Option<PolicyVersion>,
    /// How many entries the inventory of hosts is made of.
    pub inventory: u64,
    /// The newest entry that says which CA keys there are.
    pub keys: Option<u64>,
}

/// What the log says is in force: what decisions rest on beside the rows that they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The policy version.
    pub policy: Option<PolicyVersion>,
    /// How many entries the inventory of hosts is made of.
    pub inventory: u64,
    /// The newest entry that says which CA keys there are.
    pub keys: Option<u64>,
}

impl Basis {
    /// What this head says.
    #[must_use]
    pub const fn of(head: &Head) -> Self {
        Self { policy: head.policy, inventory: head.inventory, keys: head.keys }
    }
}

/// Why the store did not do it.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// A compare-and-swap lost: read again and decide again.
    #[error("changed in the meantime")]
    Conflict,
    /// Something else is in force than the change rests on: read what is, and decide again.
    #[error("another policy, inventory or CA key is in force by now")]
    Overtaken,
    /// The request is not as the change rests on it any more: decide again.
    #[error("the request has changed in the meantime")]
    Superseded,
    /// The change is dated before the log's last entry by more than a clock may be off.
    #[error("the clock is behind the log: it is {now}, but the last entry is of {last}")]
    Behind {
        /// When the change was to be.
        now: Timestamp,
        /// The last entry's time.
        last: Timestamp,
    },
    /// The challenge was used before.
    #[error("the challenge has been used already")]
    Replayed,
    /// The certificate linter refused what was to be signed.
    #[error(transparent)]
    Certificate(#[from] crate::ssh::cert::CertError),
    /// A row that we did not write like that: damaged, or of a newer program.
    #[error("cannot read {what}: {why}")]
    Damaged {
        /// Which row.
        what: String,
        /// Why.
        why: String,
    },
    /// The database failed or its queue is full; nothing was written, or its fate is unknown and the service re-reads.
    #[error("the database failed while {doing}: {why}")]
    Failed {
        /// What was attempted.
        doing: &'static str,
        /// The cause.
        why: String,
    },
    /// The caller's clock is not to be believed, so nothing was tried; made by the service.
    #[error("the clock was set while the service runs, by {0} s")]
    Clock(u64),
    /// The queue is full; try again.
    #[error("too many changes are waiting for the disk")]
    Busy,
}

/// What a store's writer did since it was opened, for figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Changes that wait or are being written.
    pub waiting: u64,
    /// Changes that were turned away because too many waited.
    pub refused: u64,
    /// Changes that were answered, whatever the answer.
    pub members: u64,
    /// Groups of changes, each with one durable commit.
    pub groups: u64,
    /// Groups that the database failed to write.
    pub failed: u64,
    /// Microseconds spent on groups.
    pub micros: u64,
    /// Pages that are in the write-ahead log alone; a store without one has none.
    pub unmerged: u64,
    /// Whether what is in the write-ahead log goes into the database file.
    pub is_merging: bool,
}

/// The store. Every method is durable before it answers; no method blocks an async thread.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Whether it can still do anything: false once what works for it in the background is gone for good.
    fn is_alive(&self) -> bool {
        true
    }

    /// Whether other processes write it, too: then what is in force may change without this one having done it.
    fn is_shared(&self) -> bool {
        false
    }

    /// The log is known to have begun like this: where other processes write it, too, nothing more is written on one that does not.
    fn know(&self, _log: &Frontier) {}

    /// What its writer did so far.
    fn figures(&self) -> Figures;

    /// What is wrong with it that stops nobody now, for operators.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Where its file was moved to, if it was: then it is only to be read.
    fn moved(&self) -> Option<&sqlite::Moved> {
        None
    }

    /// Waits until another process may have written. For one listener; only ever sooner than looking for oneself.
    fn woken(&self) -> Pending<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// What hosts told of themselves since `mark`, and the mark to go on from; a store of one process has nothing to tell.
    fn seen_since(&self, mark: u64) -> Pending<'_, (u64, BTreeMap<HostName, Seen>)> {
        Box::pin(std::future::ready(Ok((mark, BTreeMap::new()))))
    }

    /// The hosts that these requests are for now, as far as they are known: a hint whom to tell that something has changed. A store of one
    /// process tells by itself.
    fn hosts_of(&self, _requests: Vec<RequestId>) -> Pending<'_, BTreeSet<HostName>> {
        Box::pin(std::future::ready(Ok(BTreeSet::new())))
    }

    /// Writes one change with its log entries, durably. Dropping the future does not take it back.
    ///
    /// The second outcome entry (`CertificateSigned`) of one certificate is a [`StoreError::Conflict`].
    fn commit(&self, change: Change) -> Pending<'_, Committed>;

    /// One request.
    fn request(&self, id: RequestId) -> Pending<'_, Option<Stored>>;

    /// One request and the log's entries about it, oldest first, as of one moment; the entries proven to be in the log's tree.
    fn logged(&self, id: RequestId) -> Pending<'_, Option<(Stored, Vec<Entry>)>>;

    /// Requests that match, newest first; at most [`LIST_MAX`]. A damaged row is reported and left out, but not when a prefix
    /// asks for it.
    fn requests(&self, filter: RequestFilter) -> Pending<'_, Vec<Stored>>;

    /// Requests whose `next_tick` is at or before `now`, at most `limit`, oldest first. A damaged row is reported and left
    /// out, and does not count: it must not stop the others' clock.
    fn due(&self, now: Timestamp, limit: usize) -> Pending<'_, Vec<Stored>>;

    /// What this person has open (pending, approved or issued), as far as an ask under this key needs it.
    fn open_of(&self, asker: PersonName, key: PublicKey) -> Pending<'_, OpenRequests>;

    /// The certificates that are not over at `now`, neither by their window nor because their request was ended. A damaged row is reported and left out.
    fn live_certificates(&self, now: Timestamp) -> Pending<'_, Vec<LiveCertificate>>;

    /// The requests for this host with a certificate, whatever became of them, whose last grant is not over at `now`, in the order of asking: all of
    /// them, however many there are, since what is left out of them would stay open. A damaged row is reported and left out.
    fn certified_for(&self, host: HostName, now: Timestamp) -> Pending<'_, Vec<RequestId>>;

    /// The session with this token hash.
    fn session(&self, token: TokenHash) -> Pending<'_, Option<Session>>;

    /// The browser's session with this token hash, and the session that let it in.
    fn browser_session(&self, token: TokenHash) -> Pending<'_, Option<(BrowserSession, Session)>>;

    /// Deletes sessions, redemptions and records of reports that were over at `now`; no log entry (they are dead already). It
    /// may leave some for the next time when there are thousands.
    fn sweep(&self, now: Timestamp) -> Pending<'_, ()>;

    /// The policy version, or the newest.
    fn policy(&self, version: Option<PolicyVersion>) -> Pending<'_, Option<StoredPolicy>>;

    /// The log's `policy_applied` entry of this version, for comparing its hash with a text. Proven to be in the log's tree.
    fn policy_entry(&self, version: PolicyVersion) -> Pending<'_, Option<Entry>>;

    /// The log's entries about joining and enrolled hosts from index `next` on, oldest first, [`LIST_MAX`] at most; `from` of them are before it. Proven to
    /// be in the log's tree; where there are fewer than that, all of them, as many as the head says. What is before `next` is not looked at again.
    fn inventory(&self, from: u64, next: u64) -> Pending<'_, Vec<Entry>>;

    /// The host session with this token hash.
    fn host_session(&self, token: TokenHash) -> Pending<'_, Option<HostSession>>;

    /// Keeps what no decision rests on, durably, without a log entry. A challenge used before is [`StoreError::Replayed`].
    fn note(&self, note: Note) -> Pending<'_, ()>;

    /// What all hosts told of themselves last.
    fn seen(&self) -> Pending<'_, BTreeMap<HostName, Seen>>;

    /// Those of these reports of a host that were taken up before.
    fn known_reports(&self, host: HostName, reports: Vec<ReportId>) -> Pending<'_, BTreeSet<ReportId>>;

    /// The newest certificates of a host's keys; their signatures are verified, not by whom they are.
    fn host_certificates(&self, host: HostName) -> Pending<'_, Vec<Certificate>>;

    /// The newest log entry that says which CA keys there are. Proven to be in the log's tree, and to be the newest.
    fn keys_entry(&self) -> Pending<'_, Option<Entry>>;

    /// The newest policy version with exactly this text.
    fn policy_with_text(&self, text: String) -> Pending<'_, Option<PolicyVersion>>;

    /// All policy versions, newest first, without their texts.
    fn policies(&self) -> Pending<'_, Vec<StoredPolicy>>;

    /// The log's head.
    fn head(&self) -> Pending<'_, Head>;

    /// Canonical bytes of entries `[from, from + limit)`, as far as there are; at most [`LIST_MAX`].
    fn entries(&self, from: u64, limit: usize) -> Pending<'_, Vec<Vec<u8>>>;

    /// Entries about one request, oldest first; proven to be in the log's tree.
    fn entries_of(&self, request: RequestId) -> Pending<'_, Vec<Entry>>;

    /// These tree nodes; missing ones are left out.
    fn nodes(&self, wanted: Vec<Node>) -> Pending<'_, BTreeMap<Node, Hash>>;

    /// Whether a write would succeed now (for `/readyz`).
    fn ready(&self) -> Pending<'_, ()>;
}
