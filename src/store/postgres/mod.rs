//! The store in a PostgreSQL database, for any number of nodes: each is stateless, and the row with the log's head is the one thing that
//! they wait for each other at.
//!
//! | File | What |
//! |---|---|
//! | `settings.rs` | where the server is; TLS, password, time-outs |
//! | `schema.rs` | the schema, and which programs may work on it; what the server must be set to |
//! | `line.rs` `pool.rs` `gather.rs` | the writer's connection; the readers'; what many ask at once |
//! | `group.rs` | one group of changes in one transaction, for the writer thread (`store/writer.rs`) |
//! | `known.rs` `sheet.rs` `flush.rs` | what a group reads, decides in memory, and writes |
//! | `log.rs` `request.rs` `rows.rs` | how rows are read |
//! | `copy.rs` | the target of a copy |
//! | `listen.rs` | hears when another node has committed |
//!
//! Invariants: nothing is answered before its transaction is on the server's disk; nobody writes without the lock of the log's head; a
//! connection over a network is TLS with the server's name checked; every wait has an end.

pub(super) mod copy;
mod flush;
mod gather;
mod group;
mod known;
mod line;
mod listen;
mod log;
mod pool;
mod presence;
mod request;
mod rows;
mod schema;
mod settings;
pub(super) mod sheet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use settings::{Server, Settings};

use super::writer::{Job, Writer};
use super::{
    Change, Committed, Figures, Head, LiveCertificate, Note, OpenRequests, Pending, RequestFilter, Store, StoreError,
    Stored, StoredPolicy, Work,
};
use crate::audit::entry::Entry;
use crate::audit::tree::{Frontier, Hash, Node};
use crate::identity::browser::BrowserSession;
use crate::identity::host::HostSession;
use crate::identity::mac::MacKey;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::name::{HostName, PersonName, PolicyVersion, ReportId, RequestId};
use crate::ssh::PublicKey;
use crate::ssh::cert::Certificate;
use crate::time::Timestamp;
use gather::Gather;
use line::{Line, get};
use listen::Ear;
use pool::Reads;
use presence::Presence;

/// The opened store. Dropping it waits for the change that is being written.
#[derive(Debug)]
pub struct PostgresStore {
    reads: Reads,
    /// Who a token proves: asked with every call.
    sessions: Gather<TokenHash, Option<Session>>,
    /// What somebody has open: asked with every ask.
    open: Gather<(PersonName, PublicKey), OpenRequests>,
    writer: Writer,
    known: Arc<group::KnownLog>,
    ear: Ear,
    key: Arc<MacKey>,
    /// Keeps nodes away as long as it is there.
    _repairing: Option<Line>,
}

impl PostgresStore {
    /// Connects, migrates the schema, and checks that the log's head fits its entries. `key` seals the head (see
    /// `store::SEAL_PURPOSE`). Needs a runtime that lasts as long as the store.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it can't be reached, is set to lose what it confirms, or has the schema of a newer program;
    /// [`StoreError::Damaged`] when head, tree and entries disagree, or the head has not this key's seal.
    pub async fn open(settings: &Settings, key: MacKey) -> Result<Self, StoreError> {
        Self::open_to(Work::Serve, settings, key).await
    }

    /// The same, for other work.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::Failed`] when nodes work on it, it is being repaired, or it is to be looked at and has an older schema.
    pub async fn open_to(work: Work, settings: &Settings, key: MacKey) -> Result<Self, StoreError> {
        let key = Arc::new(key);
        let connector = settings.connector()?;
        let line = Line::connect(&connector).await?;
        presence::enter(&line, work).await?;
        schema::check_server(&line).await?;
        match work {
            Work::Serve | Work::Repair => schema::migrate(&line).await?,
            Work::Look | Work::Copy => schema::check_there(&line).await?,
        }
        line.run("opening the database", "BEGIN").await?;
        let checked = log::check_locked(&line, &key).await;
        // Whatever came of it: nobody waits for us any longer.
        line.run("opening the database", "ROLLBACK").await?;
        let head = checked?;
        let node: String = get(&line.one("opening the database", "SELECT gen_random_uuid()::text", &[]).await?, 0)?;
        let (entered, repairing) = match work {
            Work::Serve => (Some(line), None),
            Work::Repair => (None, Some(line)),
            Work::Look | Work::Copy => (None, None),
        };
        let presence = Arc::<Presence>::default();
        let known = Arc::new(group::KnownLog::new(head.frontier));
        let groups = group::Groups::new(
            connector.clone(),
            Arc::clone(&key),
            node.clone(),
            Arc::clone(&known),
            Arc::clone(&presence),
        )?;
        let reads = Reads::new(settings, connector.clone())?;
        Ok(Self {
            sessions: Gather::new("reading a session", reads.clone(), rows::sessions),
            open: Gather::new("reading requests", reads.clone(), request::open_of),
            reads,
            writer: Writer::start(groups)?,
            known,
            ear: Ear::open(connector, node, entered, presence),
            _repairing: repairing,
            key,
        })
    }
}

impl Store for PostgresStore {
    fn is_alive(&self) -> bool {
        self.writer.is_alive()
    }

    fn figures(&self) -> Figures {
        self.writer.figures()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn know(&self, log: &Frontier) {
        self.known.know(log);
    }

    fn woken(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.ear.heard().await;
            Ok(())
        })
    }

    fn seen_since(&self, mark: u64) -> Pending<'_, (u64, BTreeMap<HostName, Seen>)> {
        self.reads.read("reading about hosts", move |client| Box::pin(rows::seen_since(client, mark)))
    }

    fn hosts_of(&self, requests: Vec<RequestId>) -> Pending<'_, BTreeSet<HostName>> {
        self.reads
            .read("reading requests", move |client| Box::pin(async move { request::hosts_of(client, &requests).await }))
    }

    fn commit(&self, change: Change) -> Pending<'_, Committed> {
        Box::pin(self.writer.run(move |reply| Job::Commit(Box::new(change), reply)))
    }

    fn request(&self, id: RequestId) -> Pending<'_, Option<Stored>> {
        self.reads.read("reading requests", move |client| Box::pin(request::one(client, id)))
    }

    fn logged(&self, id: RequestId) -> Pending<'_, Option<(Stored, Vec<Entry>)>> {
        let key = Arc::clone(&self.key);
        self.reads.snapshot("reading requests", move |moment| {
            Box::pin(async move { request::logged(moment, &key, id).await })
        })
    }

    fn requests(&self, filter: RequestFilter) -> Pending<'_, Vec<Stored>> {
        self.reads.snapshot("reading requests", move |moment| {
            Box::pin(async move { request::matching(moment, &filter).await })
        })
    }

    fn due(&self, now: Timestamp, limit: usize) -> Pending<'_, Vec<Stored>> {
        self.reads.snapshot("reading requests", move |moment| Box::pin(request::due(moment, now, limit)))
    }

    fn open_of(&self, asker: PersonName, key: PublicKey) -> Pending<'_, OpenRequests> {
        self.open.get((asker, key))
    }

    fn certified_for(&self, host: HostName, now: Timestamp) -> Pending<'_, Vec<RequestId>> {
        self.reads.read("reading requests", move |client| {
            Box::pin(async move { request::certified_for(client, &host, now).await })
        })
    }

    fn live_certificates(&self, now: Timestamp) -> Pending<'_, Vec<LiveCertificate>> {
        self.reads.read("reading requests", move |client| Box::pin(request::live_certificates(client, now)))
    }

    fn session(&self, token: TokenHash) -> Pending<'_, Option<Session>> {
        self.sessions.get(token)
    }

    fn browser_session(&self, token: TokenHash) -> Pending<'_, Option<(BrowserSession, Session)>> {
        self.reads.snapshot("reading a session", move |moment| Box::pin(rows::browser_session(moment, token)))
    }

    fn sweep(&self, now: Timestamp) -> Pending<'_, ()> {
        Box::pin(self.writer.run(move |reply| Job::Sweep(now, reply)))
    }

    fn policy(&self, version: Option<PolicyVersion>) -> Pending<'_, Option<StoredPolicy>> {
        self.reads.read("reading policies", move |client| Box::pin(rows::policy(client, version)))
    }

    fn policy_entry(&self, version: PolicyVersion) -> Pending<'_, Option<Entry>> {
        let key = Arc::clone(&self.key);
        self.reads.snapshot("reading the log", move |moment| {
            Box::pin(async move { log::policy_entry(moment, &key, version).await })
        })
    }

    fn inventory(&self, from: u64, next: u64) -> Pending<'_, Vec<Entry>> {
        let key = Arc::clone(&self.key);
        self.reads.snapshot("reading the log", move |moment| {
            Box::pin(async move { log::inventory(moment, &key, from, next).await })
        })
    }

    fn host_session(&self, token: TokenHash) -> Pending<'_, Option<HostSession>> {
        self.reads.read("reading a session", move |client| Box::pin(rows::host_session(client, token)))
    }

    fn note(&self, note: Note) -> Pending<'_, ()> {
        Box::pin(self.writer.run(move |reply| Job::Note(Box::new(note), reply)))
    }

    fn seen(&self) -> Pending<'_, BTreeMap<HostName, Seen>> {
        self.reads.read("reading about hosts", move |client| Box::pin(rows::seen(client)))
    }

    fn known_reports(&self, host: HostName, reports: Vec<ReportId>) -> Pending<'_, BTreeSet<ReportId>> {
        self.reads.read("reading about hosts", move |client| {
            Box::pin(async move { rows::known_reports(client, &host, reports).await })
        })
    }

    fn host_certificates(&self, host: HostName) -> Pending<'_, Vec<Certificate>> {
        self.reads.read("reading about hosts", move |client| {
            Box::pin(async move { rows::host_certificates(client, &host).await })
        })
    }

    fn keys_entry(&self) -> Pending<'_, Option<Entry>> {
        let key = Arc::clone(&self.key);
        self.reads
            .snapshot("reading the log", move |moment| Box::pin(async move { log::keys_entry(moment, &key).await }))
    }

    fn policy_with_text(&self, text: String) -> Pending<'_, Option<PolicyVersion>> {
        self.reads.read("reading policies", move |client| {
            Box::pin(async move { rows::policy_with_text(client, &text).await })
        })
    }

    fn policies(&self) -> Pending<'_, Vec<StoredPolicy>> {
        self.reads.read("reading policies", move |client| Box::pin(rows::policies(client)))
    }

    fn head(&self) -> Pending<'_, Head> {
        let key = Arc::clone(&self.key);
        self.reads.read("reading the log", move |client| Box::pin(async move { log::head(client, &key).await }))
    }

    fn entries(&self, from: u64, limit: usize) -> Pending<'_, Vec<Vec<u8>>> {
        self.reads.read("reading the log", move |client| Box::pin(log::entries(client, from, limit)))
    }

    fn entries_of(&self, request: RequestId) -> Pending<'_, Vec<Entry>> {
        let key = Arc::clone(&self.key);
        self.reads.snapshot("reading the log", move |moment| {
            Box::pin(async move { log::entries_of(moment, &key, request).await })
        })
    }

    fn nodes(&self, wanted: Vec<Node>) -> Pending<'_, BTreeMap<Node, Hash>> {
        self.reads.read("reading the log", move |client| Box::pin(async move { log::nodes(client, &wanted).await }))
    }

    fn ready(&self) -> Pending<'_, ()> {
        Box::pin(self.writer.run(Job::Ready))
    }
}
