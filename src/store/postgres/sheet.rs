//! A group of changes decided in memory: what it read (`known.rs`), what its members have written so far, and what one more tries to.
//!
//! Nobody else writes meanwhile, because every node locks the log's head first. So a member is refused here just as a statement of its
//! own would refuse it, is undone by forgetting its sheet, and the whole group goes to the database in a few statements, however many
//! members it has (`flush.rs`). The database's own constraints stand behind it: what should be wrong here fails the group.

use std::collections::{BTreeMap, BTreeSet};

use super::known::{Known, is_open};
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
use crate::store::columns::Columns;
use crate::store::log::EntryRow;
use crate::store::numbers::{from_sql, time_to_sql, to_sql};
use crate::store::{RowVersion, StoreError, Stored, StoredPolicy, host_rows};
use crate::time::Timestamp;

/// A request's row as it is to be.
#[derive(Clone)]
pub(in crate::store) struct Written {
    pub(in crate::store) columns: Columns,
    /// The end of the last grant.
    pub(in crate::store) until: Option<i64>,
    pub(in crate::store) hosts: BTreeSet<String>,
}

/// What is to be written.
#[derive(Default)]
pub(in crate::store) struct Sheet {
    pub(in crate::store) requests: BTreeMap<String, Written>,
    /// New requests, in the order of asking.
    pub(in crate::store) asked: Vec<String>,
    pub(in crate::store) entries: Vec<EntryRow>,
    pub(in crate::store) nodes: Vec<(Node, Hash)>,
    pub(in crate::store) certificates: BTreeMap<i64, String>,
    pub(in crate::store) signed: BTreeSet<i64>,
    /// New sessions; `None` for those that end.
    pub(in crate::store) sessions: BTreeMap<TokenHash, Option<Session>>,
    /// New sessions of browsers; `None` for those that end.
    pub(in crate::store) browser_sessions: BTreeMap<TokenHash, Option<BrowserSession>>,
    /// Whose sessions from before the group end.
    pub(in crate::store) ended: BTreeSet<String>,
    /// The sessions of which people and login keys from before the group end.
    pub(in crate::store) ended_by: BTreeSet<(String, String)>,
    /// Whether all sessions from before the group end.
    pub(in crate::store) all_ended: bool,
    pub(in crate::store) redemptions: BTreeMap<Vec<u8>, i64>,
    pub(in crate::store) policies: Vec<StoredPolicy>,
    pub(in crate::store) host_sessions: BTreeMap<Vec<u8>, HostSession>,
    pub(in crate::store) reports: BTreeMap<(String, String), i64>,
    pub(in crate::store) host_certificates: BTreeMap<(String, String), String>,
    pub(in crate::store) seen: BTreeMap<String, (i64, String)>,
    pub(in crate::store) swept: Option<Timestamp>,
    pub(in crate::store) probed: bool,
}

impl Sheet {
    /// Takes over what a member wrote.
    pub(super) fn take(&mut self, member: Self) {
        let Self {
            requests,
            asked,
            entries,
            nodes,
            certificates,
            signed,
            sessions,
            browser_sessions,
            ended,
            ended_by,
            all_ended,
            redemptions,
            policies,
            host_sessions,
            reports,
            host_certificates,
            seen,
            swept,
            probed,
        } = member;
        self.requests.extend(requests);
        self.asked.extend(asked);
        self.entries.extend(entries);
        self.nodes.extend(nodes);
        self.certificates.extend(certificates);
        self.signed.extend(signed);
        self.sessions.extend(sessions);
        self.browser_sessions.extend(browser_sessions);
        self.ended.extend(ended);
        self.ended_by.extend(ended_by);
        self.all_ended |= all_ended;
        self.redemptions.extend(redemptions);
        self.policies.extend(policies);
        self.host_sessions.extend(host_sessions);
        self.reports.extend(reports);
        self.host_certificates.extend(host_certificates);
        self.seen.extend(seen);
        self.swept = self.swept.max(swept);
        self.probed |= probed;
    }
}

/// One member's view: what is known, what the members before it wrote, and what it writes.
pub(super) struct Page<'s> {
    known: &'s Known,
    done: &'s Sheet,
    trial: Sheet,
}

/// The end of a request's last grant, as the column that finds it.
pub(in crate::store) fn until(request: &AccessRequest) -> Result<Option<i64>, StoreError> {
    request.parts().grants.last().map(|grant| time_to_sql(grant.window.end())).transpose()
}

/// Refuses unless it holds.
fn free(is_free: bool) -> Result<(), StoreError> {
    if is_free { Ok(()) } else { Err(StoreError::Conflict) }
}

impl<'s> Page<'s> {
    pub(super) fn new(known: &'s Known, done: &'s Sheet) -> Self {
        Self { known, done, trial: Sheet::default() }
    }

    /// What the member wrote.
    pub(super) fn written(self) -> Sheet {
        self.trial
    }

    /// The version of a request's row, if there is one.
    fn version(&self, id: &str) -> Option<i64> {
        let written = self.trial.requests.get(id).or_else(|| self.done.requests.get(id));
        let known = || self.known.requests.get(id).map(|known| known.version);
        written.map(|row| row.columns.version).or_else(known)
    }

    fn write(&mut self, request: AccessRequest, version: RowVersion) -> Result<Stored, StoreError> {
        let columns = Columns::of(&request, version)?;
        let hosts = request.parts().terms.hosts.keys().map(|host| host.as_str().to_owned()).collect();
        let written = Written { until: until(&request)?, hosts, columns };
        self.trial.requests.insert(written.columns.id.clone(), written);
        Ok(Stored { request, version })
    }

    /// Whether a session is there now.
    fn has_session(&self, token: TokenHash) -> bool {
        if let Some(written) = self.trial.sessions.get(&token).or_else(|| self.done.sessions.get(&token)) {
            return written.is_some();
        }
        let ends = |sheet: &Sheet, opener: &(String, String)| {
            sheet.all_ended || sheet.ended.contains(&opener.0) || sheet.ended_by.contains(opener)
        };
        let is_ended = |opener: &(String, String)| ends(&self.trial, opener) || ends(self.done, opener);
        self.known.sessions.get(token.0.as_slice()).is_some_and(|opener| !is_ended(opener))
    }

    /// New sessions end that are such; those from before the group the database takes away.
    fn end_new(&mut self, such: impl Fn(&Session) -> bool) {
        let new = self.done.sessions.iter().chain(&self.trial.sessions);
        let ends = new.filter(|(_, session)| session.as_ref().is_some_and(&such));
        let tokens: Vec<TokenHash> = ends.map(|(token, _)| *token).collect();
        self.trial.sessions.extend(tokens.into_iter().map(|token| (token, None)));
    }

    /// New sessions of browsers end with their parent; those from before the group the database takes away.
    fn end_browsers_of(&mut self) {
        let new = self.done.browser_sessions.iter().chain(&self.trial.browser_sessions);
        let orphans =
            new.filter(|(_, session)| session.as_ref().is_some_and(|session| !self.has_session(session.parent)));
        let tokens: Vec<TokenHash> = orphans.map(|(token, _)| *token).collect();
        self.trial.browser_sessions.extend(tokens.into_iter().map(|token| (token, None)));
    }

    /// How this group changes the number of open requests that `counts`.
    fn opened(&self, counts: impl Fn(&str, &str) -> bool) -> i64 {
        let done = self.done.requests.iter().filter(|(id, _)| !self.trial.requests.contains_key(*id));
        let rows = || done.clone().chain(&self.trial.requests);
        let now = rows().filter(|(_, row)| is_open(&row.columns.state) && counts(&row.columns.asker, &row.columns.key));
        let before = rows().filter_map(|(id, _)| self.known.requests.get(id));
        let before = before.filter(|known| known.is_open && counts(&known.asker, &known.key)).count();
        let now = now.count();
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        number(now).saturating_sub(number(before))
    }
}

impl Rows for Page<'_> {
    fn insert_request(&mut self, request: AccessRequest) -> Result<Stored, StoreError> {
        let id = request.id().digits().to_owned();
        free(self.version(&id).is_none())?;
        self.trial.asked.push(id);
        self.write(request, RowVersion::FIRST)
    }

    fn update_request(&mut self, request: AccessRequest, expected: RowVersion) -> Result<Stored, StoreError> {
        free(self.version(request.id().digits()) == Some(to_sql(expected.0)?))?;
        self.write(request, RowVersion(expected.0.saturating_add(1)))
    }

    fn version_of(&mut self, id: RequestId) -> Result<Option<RowVersion>, StoreError> {
        let version = self.version(id.digits());
        version.map(|version| from_sql("a request", version).map(RowVersion)).transpose()
    }

    fn count_open(&mut self, asker: &PersonName, key: &PublicKey) -> Result<(u64, u64), StoreError> {
        let (asker, key) = (asker.as_str(), key.to_openssh());
        let (count, with_key) = self.known.open.get(&(asker.to_owned(), key.clone())).copied().unwrap_or_default();
        let count = count.saturating_add(self.opened(|whose, _| whose == asker));
        let with_key = with_key.saturating_add(self.opened(|whose, held| whose == asker && held == key));
        Ok((from_sql("a count", count)?, from_sql("a count", with_key)?))
    }

    fn insert_entry(&mut self, row: EntryRow, nodes: Vec<(Node, Hash)>) -> Result<(), StoreError> {
        self.trial.entries.push(row);
        self.trial.nodes.extend(nodes);
        Ok(())
    }

    fn insert_certificate(&mut self, serial: Serial, whose: &str) -> Result<(), StoreError> {
        self.trial.certificates.insert(to_sql(serial.number())?, whose.to_owned());
        Ok(())
    }

    fn sign_certificate(&mut self, serial: Serial, whose: &str) -> Result<(), StoreError> {
        let serial = to_sql(serial.number())?;
        let is_signed = |sheet: &Sheet| sheet.signed.contains(&serial);
        let made = |sheet: &Sheet| sheet.certificates.get(&serial).map(|whose| (whose.clone(), false));
        let known = || self.known.certificates.get(&serial).cloned();
        let found = made(&self.trial).or_else(|| made(self.done)).or_else(known);
        free(found.is_some_and(|found| found == (whose.to_owned(), false)))?;
        free(!is_signed(&self.trial) && !is_signed(self.done))?;
        self.trial.signed.insert(serial);
        Ok(())
    }

    fn insert_session(&mut self, session: Session) -> Result<(), StoreError> {
        free(!self.has_session(session.token))?;
        self.trial.sessions.insert(session.token, Some(session));
        Ok(())
    }

    fn end_session(&mut self, token: TokenHash) -> Result<(), StoreError> {
        self.trial.sessions.insert(token, None);
        self.end_browsers_of();
        Ok(())
    }

    fn end_sessions_of(&mut self, person: &PersonName) -> Result<(), StoreError> {
        self.end_new(|session| session.person == *person);
        self.trial.ended.insert(person.as_str().to_owned());
        self.end_browsers_of();
        Ok(())
    }

    fn end_sessions_by(&mut self, person: &PersonName, key: Fingerprint) -> Result<(), StoreError> {
        self.end_new(|session| session.person == *person && session.key == key);
        self.trial.ended_by.insert((person.as_str().to_owned(), key.to_string()));
        self.end_browsers_of();
        Ok(())
    }

    fn end_all_sessions(&mut self) -> Result<(), StoreError> {
        self.end_new(|_| true);
        self.trial.all_ended = true;
        self.end_browsers_of();
        Ok(())
    }

    fn insert_browser_session(&mut self, session: BrowserSession) -> Result<(), StoreError> {
        let token = session.token;
        let written = self.trial.browser_sessions.get(&token).or_else(|| self.done.browser_sessions.get(&token));
        free(written.map_or_else(|| !self.known.browser_sessions.contains(token.0.as_slice()), Option::is_none))?;
        free(self.has_session(session.parent))?;
        self.trial.browser_sessions.insert(token, Some(session));
        Ok(())
    }

    fn end_browser_session(&mut self, token: TokenHash) -> Result<(), StoreError> {
        self.trial.browser_sessions.insert(token, None);
        Ok(())
    }

    fn redeem(&mut self, redemption: &Redemption) -> Result<(), StoreError> {
        let nonce = redemption.nonce.to_vec();
        let is_used = |sheet: &Sheet| sheet.redemptions.contains_key(&nonce);
        if self.known.redemptions.contains(&nonce) || is_used(self.done) || is_used(&self.trial) {
            return Err(StoreError::Replayed);
        }
        self.trial.redemptions.insert(nonce, time_to_sql(redemption.expires)?);
        Ok(())
    }

    fn insert_policy(&mut self, policy: StoredPolicy) -> Result<(), StoreError> {
        let new = self.done.policies.iter().chain(&self.trial.policies).map(|policy| i64::from(policy.version.0));
        let last = new.max().unwrap_or(self.known.policy);
        free(i64::from(policy.version.0) == last.saturating_add(1))?;
        self.trial.policies.push(policy);
        Ok(())
    }

    fn insert_host_session(&mut self, session: HostSession) -> Result<(), StoreError> {
        let token = session.token.0.to_vec();
        let is_there = |sheet: &Sheet| sheet.host_sessions.contains_key(&token);
        free(!self.known.host_sessions.contains(&token) && !is_there(self.done) && !is_there(&self.trial))?;
        self.trial.host_sessions.insert(token, session);
        Ok(())
    }

    fn insert_report(&mut self, host: &HostName, report: &ReportId, at: Timestamp) -> Result<(), StoreError> {
        let id = (host.as_str().to_owned(), report.as_str().to_owned());
        let is_there = |sheet: &Sheet| sheet.reports.contains_key(&id);
        free(!self.known.reports.contains(&id) && !is_there(self.done) && !is_there(&self.trial))?;
        self.trial.reports.insert(id, time_to_sql(at)?);
        Ok(())
    }

    fn save_host_certificate(&mut self, host: &HostName, certificate: &Certificate) -> Result<(), StoreError> {
        let key = certificate.tbs().subject().fingerprint().to_string();
        self.trial.host_certificates.insert((host.as_str().to_owned(), key), certificate.to_openssh());
        Ok(())
    }

    fn save_seen(&mut self, host: &HostName, seen: &Seen) -> Result<(), StoreError> {
        let row = (time_to_sql(seen.at)?, host_rows::to_json(&seen.check_in)?);
        self.trial.seen.insert(host.as_str().to_owned(), row);
        Ok(())
    }

    fn sweep(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.trial.swept = self.trial.swept.max(Some(now));
        Ok(true)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.trial.probed = true;
        Ok(())
    }
}
