//! What enrolled hosts report: check-ins, and who logged in there.
//!
//! A host says what it saw; what of it fits what was granted is judged here, by the rule that an auditor's reconciliation uses too
//! (`audit::reconcile`). A report is in the log before the host is told that it was taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ATTEMPTS, Failure, Outcome, Service, whole};
use crate::access::{AccessRequest, State};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::audit::reconcile::{Certified, Granted, LOST, Login, judge};
use crate::identity::host::HostProven;
use crate::inventory::check_in::{CheckIn, Seen};
use crate::name::{HostName, ReportId, RequestId};
use crate::ssh::Fingerprint;
use crate::ssh::cert::{KeyId, Whose};
use crate::store::{Change, Note, Save, StoreError};
use crate::time::Timestamp;

/// The most reports of one call. Our own choice: one commit's worth.
pub const REPORTS_MAX: usize = 256;

/// The longest texts of a report, in characters: what does not fit is cut, since it may come from whoever tried to log in.
const KEY_ID_CHARS_MAX: usize = 256;
const ACCOUNT_CHARS_MAX: usize = 64;
const FROM_CHARS_MAX: usize = 80;
const WHY_CHARS_MAX: usize = 200;

/// What happened on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Somebody logged in.
    Opened,
    /// A session is over.
    Ended,
    /// Nobody was let in.
    Refused,
}

impl ReportKind {
    /// Parses `opened`, `ended` or `refused`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "opened" => Some(Self::Opened),
            "ended" => Some(Self::Ended),
            "refused" => Some(Self::Refused),
            _ => None,
        }
    }
}

/// One thing that happened on a host, as it says.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its own id for it.
    pub id: ReportId,
    /// What.
    pub kind: ReportKind,
    /// The certificate's serial.
    pub serial: u64,
    /// Its key id.
    pub key_id: String,
    /// The CA key that signed it.
    pub ca: Fingerprint,
    /// As which account.
    pub account: String,
    /// From which address.
    pub from: String,
    /// When, by the host's clock.
    pub at: Timestamp,
    /// Why it ended or was refused.
    pub why: String,
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

impl Service {
    /// Takes what a host tells of itself; an entry is written only if something material changed.
    ///
    /// # Errors
    /// `Forbidden` when it is retired.
    pub async fn check_in(self: &Arc<Self>, by: &HostProven, mut check_in: CheckIn) -> Outcome<()> {
        let (this, enrolled) = (Arc::clone(self), self.enrolled(by)?);
        let (host, moved, joined) = (enrolled.name, enrolled.moved.map(|moved| moved.since), enrolled.enrolled);
        whole(async move {
            this.check_clock()?;
            let at = this.clock.now();
            let before = this.seen(&host);
            // What it said before it was retired does not count: that it reports again is to be in the log.
            let told = before.as_ref().filter(|seen| seen.at >= joined);
            let news = check_in.news(&host, told.map(|seen| &seen.check_in));
            let last = before.as_ref().map(|seen| seen.at);
            let mut runs = before.map(|seen| seen.check_in.runs).unwrap_or_default();
            let is_doubled = runs.take(check_in.runs.now, last, at);
            check_in.runs = runs;
            let doubled = is_doubled.then(|| {
                tracing::warn!(%host, "two machines check in as this host, by turns");
                HostEvent::HostDoubled { host: host.clone() }
            });
            let events: Vec<Event> = [news, doubled].into_iter().flatten().map(Event::from).collect();
            if !events.is_empty() {
                this.commit(Change { at, saves: Vec::new(), events }).await?;
            }
            // A crash here leaves an entry that the next check-in writes once more.
            let seen = Seen { at, check_in };
            // Other nodes go by what is written; of a host that has moved they want to know what it said since.
            if let Some(unwritten) = this.hosts.seen.hear(&host, &seen, moved) {
                this.store.note(Note::Seen { host: host.clone(), seen: seen.clone() }).await?;
                this.hosts.seen.written(host.clone(), seen, &unwritten);
            }
            this.settle_move_of(&host, at).await
        })
        .await
    }

    /// What this host told last.
    pub(super) fn seen(&self, host: &HostName) -> Option<Seen> {
        self.hosts.seen.of(host)
    }

    /// Takes reports, oldest first; gives the ids of those that are in the log now, whether or not they were before.
    ///
    /// # Errors
    /// `Invalid` for too many, `Forbidden` when it is retired; store failures, after which the host sends them again.
    pub async fn take_reports(self: &Arc<Self>, by: &HostProven, reports: Vec<Report>) -> Outcome<Vec<ReportId>> {
        if reports.len() > REPORTS_MAX {
            let count = reports.len();
            return Err(Failure::Invalid(format!("{count} reports at once; at most {REPORTS_MAX} are taken")));
        }
        // Whoever has the keys of a host that was taken out writes nothing into the log.
        let (this, host) = (Arc::clone(self), self.enrolled(by)?.name);
        whole(async move {
            for _ in 0..ATTEMPTS {
                if this.try_take(&host, &reports).await? {
                    return Ok(reports.iter().map(|report| report.id.clone()).collect());
                }
            }
            Err(Failure::contended())
        })
        .await
    }

    /// Writes those that are new; false when another call wrote one of them at the same moment.
    async fn try_take(&self, host: &HostName, reports: &[Report]) -> Outcome<bool> {
        let ids = reports.iter().map(|report| report.id.clone()).collect();
        let mut known = self.store.known_reports(host.clone(), ids).await?;
        let (mut saves, mut events) = (Vec::new(), Vec::new());
        for report in reports {
            // Twice in one call counts once.
            if !known.insert(report.id.clone()) || is_login_to_itself(host, report) {
                continue;
            }
            saves.push(Save::Report { host: host.clone(), report: report.id.clone() });
            events.extend(self.entries_for(host, report).await?);
        }
        if events.is_empty() {
            return Ok(true);
        }
        match self.commit(Change { at: self.clock.now(), saves, events }).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }

    /// The entry of a report, and one more if it does not fit what was granted.
    async fn entries_for(&self, host: &HostName, report: &Report) -> Outcome<Vec<Event>> {
        let Report { id, kind, serial, key_id, ca, account, from, at, why } = report.clone();
        let granted = self.granted_to(&key_id, serial).await?;
        let request = granted.as_ref().map(|(request, _)| *request);
        let (host, report) = (host.clone(), id);
        let (key_id, account) = (cut(&key_id, KEY_ID_CHARS_MAX), cut(&account, ACCOUNT_CHARS_MAX));
        let (from, why) = (cut(&from, FROM_CHARS_MAX), cut(&why, WHY_CHARS_MAX));
        let event = match kind {
            ReportKind::Ended => HostEvent::SessionEnded { host, report, serial, account, ended: at, why, request },
            ReportKind::Refused => {
                HostEvent::SessionRefused { host, report, serial, key_id, ca, account, from, refused: at, why, request }
            }
            ReportKind::Opened => {
                let login = Login { host: &host, serial, ca, account: &account, at };
                let mut flag = judge(&login, granted.as_ref().map(|(_, granted)| granted));
                if let Some((_, why)) = &mut flag
                    && self.is_lost(serial).await?
                {
                    why.push_str(LOST);
                }
                let flagged = flag.map(|(flag, why)| {
                    tracing::warn!(%host, serial, flag = flag.word(), %why, "a login does not fit what was granted");
                    let (host, report) = (host.clone(), report.clone());
                    HostEvent::SessionFlagged { host, report, serial, flag, why, request }
                });
                let opened =
                    HostEvent::SessionOpened { host, report, serial, key_id, ca, account, from, opened: at, request };
                return Ok([Some(opened), flagged].into_iter().flatten().map(Event::from).collect());
            }
        };
        Ok(vec![event.into()])
    }

    /// Whether the entry of this number is lost, by the log's own word.
    async fn is_lost(&self, serial: u64) -> Outcome<bool> {
        let entry = self.store.entries(serial, 1).await?;
        let entry = entry.first().and_then(|bytes| Entry::parse(bytes).ok());
        Ok(matches!(entry, Some(Entry { event: Event::EntryLost { .. }, .. })))
    }

    /// The request that this key id names, if it has a certificate of this serial and is what the log says.
    async fn granted_to(&self, key_id: &str, serial: u64) -> Outcome<Option<(RequestId, Granted)>> {
        let request = KeyId::parse(key_id).ok().and_then(|id| id.request().copied());
        let Some(request) = request else { return Ok(None) };
        let Some((stored, entries)) = self.store.logged(request).await? else { return Ok(None) };
        let events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
        if let Err(why) = stored.request.check_logged(&events) {
            let why = format!("{request}: {why}; somebody else wrote into the database");
            return Err(Failure::internal("comparing a request with the log", why));
        }
        let granted = granted(&stored.request);
        Ok(granted.certificates.iter().any(|known| known.serial == serial).then_some((request, granted)))
    }
}

/// A host's login to itself is between the host and us: it opens nothing, and its certificate is in the log.
fn is_login_to_itself(host: &HostName, report: &Report) -> bool {
    KeyId::parse(&report.key_id).is_ok_and(|id| matches!(id.whose(), Whose::Check(of) if of == host))
        && report.account == crate::ssh::host::CHECK_ACCOUNT
}

/// What a request gives, for judging a login.
fn granted(request: &AccessRequest) -> Granted {
    let parts = request.parts();
    let certified = |grant: &crate::access::Grant| {
        let made = grant.certificate.as_ref()?;
        Some(Certified { serial: made.serial.number(), ca: made.tbs.ca().fingerprint(), window: grant.window })
    };
    Granted {
        hosts: parts.terms.hosts.keys().cloned().collect::<BTreeSet<HostName>>(),
        account: parts.terms.account.to_string(),
        certificates: parts.grants.iter().filter_map(certified).collect(),
        ended: match &parts.state {
            State::Ended { at, .. } => Some(*at),
            State::Pending { .. }
            | State::Approved
            | State::Issued
            | State::Denied { .. }
            | State::Withdrawn
            | State::Lapsed
            | State::Expired => None,
        },
    }
}
