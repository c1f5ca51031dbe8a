//! The rows that a change touches, one statement each; the rules are in `store/change.rs`.

use rusqlite::Connection;

use super::{host, log, login, policy, request};
use crate::access::AccessRequest;
use crate::audit::tree::{Hash, Node};
use crate::identity::browser::BrowserSession;
use crate::identity::challenge::Redemption;
use crate::identity::host::HostSession;
use crate::identity::session::{Session, TokenHash};
use crate::inventory::check_in::Seen;
use crate::name::{HostName, PersonName, ReportId, RequestId, Serial};
use crate::ssh::cert::Certificate;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::change::Rows;
use crate::store::log::EntryRow;
use crate::store::{RowVersion, StoreError, Stored, StoredPolicy};
use crate::time::Timestamp;

impl Rows for &Connection {
    fn insert_request(&mut self, request: AccessRequest) -> Result<Stored, StoreError> {
        request::insert(self, request)
    }

    fn update_request(&mut self, request: AccessRequest, expected: RowVersion) -> Result<Stored, StoreError> {
        request::update(self, request, expected)
    }

    fn version_of(&mut self, id: RequestId) -> Result<Option<RowVersion>, StoreError> {
        request::version_of(self, id)
    }

    fn count_open(&mut self, asker: &PersonName, key: &PublicKey) -> Result<(u64, u64), StoreError> {
        request::count_open(self, asker, key)
    }

    fn insert_entry(&mut self, row: EntryRow, nodes: Vec<(Node, Hash)>) -> Result<(), StoreError> {
        log::insert(self, &row, nodes)
    }

    fn insert_certificate(&mut self, serial: Serial, whose: &str) -> Result<(), StoreError> {
        log::insert_certificate(self, serial, whose)
    }

    fn sign_certificate(&mut self, serial: Serial, whose: &str) -> Result<(), StoreError> {
        log::sign_certificate(self, serial, whose)
    }

    fn insert_session(&mut self, session: Session) -> Result<(), StoreError> {
        login::insert_session(self, &session)
    }

    fn end_session(&mut self, token: TokenHash) -> Result<(), StoreError> {
        login::end_session(self, token)
    }

    fn end_sessions_of(&mut self, person: &PersonName) -> Result<(), StoreError> {
        login::end_sessions_of(self, person)
    }

    fn end_sessions_by(&mut self, person: &PersonName, key: Fingerprint) -> Result<(), StoreError> {
        login::end_sessions_by(self, person, key)
    }

    fn end_all_sessions(&mut self) -> Result<(), StoreError> {
        login::end_all_sessions(self)
    }

    fn insert_browser_session(&mut self, session: BrowserSession) -> Result<(), StoreError> {
        login::insert_browser_session(self, &session)
    }

    fn end_browser_session(&mut self, token: TokenHash) -> Result<(), StoreError> {
        login::end_browser_session(self, token)
    }

    fn redeem(&mut self, redemption: &Redemption) -> Result<(), StoreError> {
        login::redeem(self, redemption)
    }

    fn insert_policy(&mut self, policy: StoredPolicy) -> Result<(), StoreError> {
        policy::insert(self, &policy)
    }

    fn insert_host_session(&mut self, session: HostSession) -> Result<(), StoreError> {
        host::insert_session(self, &session)
    }

    fn insert_report(&mut self, host: &HostName, report: &ReportId, at: Timestamp) -> Result<(), StoreError> {
        host::insert_report(self, host, report, at)
    }

    fn save_host_certificate(&mut self, host: &HostName, certificate: &Certificate) -> Result<(), StoreError> {
        host::save_certificate(self, host, certificate)
    }

    fn save_seen(&mut self, host: &HostName, seen: &Seen) -> Result<(), StoreError> {
        host::save_seen(self, host, seen)
    }

    fn sweep(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        login::sweep(self, now)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        log::probe(self)
    }
}
