//! The real store, which can be told to say once that a commit failed although it is on the disk: what a database does whose
//! answer is lost; and to hold up new requests until they are let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hallpass::audit::entry::Entry;
use hallpass::audit::tree::{Frontier, Hash, Node};
use hallpass::identity::browser::BrowserSession;
use hallpass::identity::host::HostSession;
use hallpass::identity::session::{Session, TokenHash};
use hallpass::inventory::check_in::Seen;
use hallpass::name::{HostName, PersonName, PolicyVersion, ReportId, RequestId};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::Certificate;
use hallpass::store::{
    Change, Committed, Figures, Head, LiveCertificate, Note, OpenRequests, Pending, RequestFilter, Save, Store,
    StoreError, Stored, StoredPolicy,
};
use hallpass::time::Timestamp;
use tokio::sync::watch;

/// See above; `lies` is taken back with the commit that it concerns, or the host's check-in.
#[derive(Debug)]
pub(crate) struct Doubtful {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lies: Arc<AtomicBool>,
    /// While it is true, no new request is written.
    pub(crate) holds: watch::Receiver<bool>,
}

/// Hands a call on as it is.
macro_rules! same {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        $(fn $name(&self, $($argument: $type),*) -> Pending<'_, $answer> {
            self.store.$name($($argument),*)
        })+
    };
}

impl Store for Doubtful {
    fn is_alive(&self) -> bool {
        self.store.is_alive()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn know(&self, log: &Frontier) {
        self.store.know(log);
    }

    fn figures(&self) -> Figures {
        self.store.figures()
    }

    fn commit(&self, change: Change) -> Pending<'_, Committed> {
        Box::pin(async move {
            if change.saves.iter().any(|save| matches!(save, Save::NewRequest(_))) {
                // Nobody is left to let it go: then it goes.
                self.holds.clone().wait_for(|holds| !holds).await.map(drop).unwrap_or_default();
            }
            let committed = self.store.commit(change).await?;
            if self.lies.swap(false, Ordering::SeqCst) {
                return Err(StoreError::Failed { doing: "committing", why: "the answer was lost".to_owned() });
            }
            Ok(committed)
        })
    }

    fn note(&self, note: Note) -> Pending<'_, ()> {
        let may_lie = matches!(note, Note::Seen { .. });
        Box::pin(async move {
            self.store.note(note).await?;
            if may_lie && self.lies.swap(false, Ordering::SeqCst) {
                return Err(StoreError::Failed { doing: "keeping a note", why: "the answer was lost".to_owned() });
            }
            Ok(())
        })
    }

    same! {
        woken() -> ();
        seen_since(mark: u64) -> (u64, BTreeMap<HostName, Seen>);
        hosts_of(requests: Vec<RequestId>) -> BTreeSet<HostName>;
        request(id: RequestId) -> Option<Stored>;
        logged(id: RequestId) -> Option<(Stored, Vec<Entry>)>;
        requests(filter: RequestFilter) -> Vec<Stored>;
        due(now: Timestamp, limit: usize) -> Vec<Stored>;
        open_of(asker: PersonName, key: PublicKey) -> OpenRequests;
        live_certificates(now: Timestamp) -> Vec<LiveCertificate>;
        certified_for(host: HostName, now: Timestamp) -> Vec<RequestId>;
        session(token: TokenHash) -> Option<Session>;
        browser_session(token: TokenHash) -> Option<(BrowserSession, Session)>;
        sweep(now: Timestamp) -> ();
        policy(version: Option<PolicyVersion>) -> Option<StoredPolicy>;
        policy_entry(version: PolicyVersion) -> Option<Entry>;
        inventory(from: u64, next: u64) -> Vec<Entry>;
        host_session(token: TokenHash) -> Option<HostSession>;
        seen() -> BTreeMap<HostName, Seen>;
        known_reports(host: HostName, reports: Vec<ReportId>) -> BTreeSet<ReportId>;
        host_certificates(host: HostName) -> Vec<Certificate>;
        keys_entry() -> Option<Entry>;
        policy_with_text(text: String) -> Option<PolicyVersion>;
        policies() -> Vec<StoredPolicy>;
        head() -> Head;
        entries(from: u64, limit: usize) -> Vec<Vec<u8>>;
        entries_of(request: RequestId) -> Vec<Entry>;
        nodes(wanted: Vec<Node>) -> BTreeMap<Node, Hash>;
        ready() -> ();
    }
}
