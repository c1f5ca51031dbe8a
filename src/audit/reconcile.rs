//! Whether the logins that hosts report fit what was granted.
//!
//! What for: [`judge`] says what does not fit about one login, when a host reports it; a [`Reconciler`] goes through the log and does
//! the same for all of them, so that an auditor sees it without trusting that the service looked. It also finds grants that
//! nobody used.
//!
//! What not: logins that no host reports: those on hosts that are not enrolled, and those without a certificate of ours.
//!
//! Times of logins are by the host's clock, which its check-ins compare with ours.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Entry;
use super::event::Event;
use super::host_event::{Flag, HostEvent};
use crate::name::{HostName, RequestId};
use crate::ssh::Fingerprint;
use crate::time::{Timestamp, Window};

/// How long after a request was ended a login may still come: the time that hosts have to learn of it, and a clock that is a little
/// off. Ten seconds, our own choice.
const ENDED_GRACE_S: u64 = 10;

/// What is said of a login with a certificate whose entry is lost: it may have been granted all the same.
pub const LOST: &str = "; the log entry of this number is lost, so what was granted is not known";

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The hosts it is for.
    pub hosts: BTreeSet<HostName>,
    /// The account.
    pub account: String,
    /// Its certificates.
    pub certificates: Vec<Certified>,
    /// When it was ended before its time.
    pub ended: Option<Timestamp>,
}

/// One certificate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its serial.
    pub serial: u64,
    /// The CA key.
    pub ca: Fingerprint,
    /// Its window.
    pub window: Window,
}

/// A login as a host reports it.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// On which host.
    pub host: &'a HostName,
    /// The certificate's serial.
    pub serial: u64,
    /// The CA key that signed it.
    pub ca: Fingerprint,
    /// As which account.
    pub account: &'a str,
    /// When, by the host's clock.
    pub at: Timestamp,
}

/// What does not fit about a login with a certificate of this request; `None` for the request: there is no such request.
#[must_use]
pub fn judge(login: &Login<'_>, granted: Option<&Granted>) -> Option<(Flag, String)> {
    let Login { host, serial, ca, account, at } = *login;
    let Some(granted) = granted else {
        return Some((Flag::WithoutRequest, format!("no request has a certificate {serial}")));
    };
    let Some(certified) = granted.certificates.iter().find(|known| known.serial == serial) else {
        return Some((Flag::WithoutRequest, format!("the request has no certificate {serial}")));
    };
    let window = certified.window;
    let wrong = [
        (certified.ca != ca, Flag::WithoutRequest, format!("certificate {serial} is by another CA key")),
        (!granted.hosts.contains(host), Flag::OutsideGrant, format!("the request is not for {host}")),
        (granted.account != account, Flag::OutsideGrant, format!("the request is for the account {}", granted.account)),
        (at < window.start(), Flag::OutsideGrant, format!("its window begins at {}", window.start())),
        (window.is_over(at), Flag::AfterEnd, format!("its window ended at {}", window.end())),
    ];
    let early = granted.ended.filter(|ended| at.seconds_since(*ended) > ENDED_GRACE_S);
    let early = early.map(|ended| (Flag::AfterEnd, format!("the request was ended at {ended}")));
    wrong.into_iter().find(|(is_wrong, ..)| *is_wrong).map(|(_, flag, why)| (flag, why)).or(early)
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// The login, or the end of the window that nobody used.
    pub at: Timestamp,
    /// The log entry: the login's, or that of the certificate that nobody used.
    pub entry: u64,
    /// On which host; of several that nobody used, none.
    pub host: Option<HostName>,
    /// The request, if it is about one.
    pub request: Option<RequestId>,
    /// The certificate's serial.
    pub serial: u64,
    /// One sentence.
    pub why: String,
}

/// What kind of thing does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// A login.
    Login(Flag),
    /// A certificate was made, its window is over, and its hosts, which reported all the while, report no login with it.
    NeverUsed,
}

impl FindingKind {
    /// `without_request`, `outside_grant`, `after_end` or `never_used`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Login(flag) => flag.word(),
            Self::NeverUsed => "never_used",
        }
    }
}

/// What a whole log shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Logins looked at.
    pub sessions: u64,
    /// Hosts that reported at some time.
    pub reporting: u64,
    /// Certificates without a login whose hosts did not all report as long as one was possible: nothing can be said of them.
    pub unseen: u64,
    /// What does not fit, by entry.
    pub findings: Vec<Finding>,
}

/// What the log tells of a request.
#[derive(Debug)]
struct Known {
    granted: Granted,
    /// When its first certificate was to be signed: nobody logs in before.
    made: Option<Timestamp>,
    /// Whether a host reports a login with one of its certificates.
    is_used: bool,
}

/// When one host reported: from its first check-in with an armed guard until it says that the guard is not armed, or goes. What an enrolment
/// alone says is not enough: the host may never have let sshd ask us.
#[derive(Debug, Default)]
struct Reporting {
    is_enrolled: bool,
    since: Option<Timestamp>,
    before: Vec<(Timestamp, Timestamp)>,
}

impl Reporting {
    fn begin(&mut self, at: Timestamp) {
        if self.is_enrolled {
            self.since.get_or_insert(at);
        }
    }

    fn end(&mut self, at: Timestamp) {
        self.before.extend(self.since.take().map(|since| (since, at)));
    }

    fn has_any(&self) -> bool {
        self.since.is_some() || !self.before.is_empty()
    }

    fn covers(&self, from: Timestamp, until: Timestamp) -> bool {
        self.since.is_some_and(|since| since <= from)
            || self.before.iter().any(|(since, end)| *since <= from && until <= *end)
    }
}

/// Goes through a log, entry by entry.
#[derive(Debug)]
pub struct Reconciler {
    /// From when on logins are looked at: when they were, by the host's clock, or when the log has heard of them.
    logins: Timestamp,
    /// From when on windows that ended are.
    since: Timestamp,
    requests: BTreeMap<RequestId, Known>,
    hosts: BTreeMap<HostName, Reporting>,
    /// Entries that are lost.
    lost: BTreeSet<u64>,
    found: Reconciled,
}

impl Reconciler {
    /// Looks at logins that were, or were reported, from `since` on, since a host may report late or have a clock that is wrong; and at windows
    /// that ended. What was granted before counts as well.
    #[must_use]
    pub fn new(since: Timestamp) -> Self {
        Self::of(since, since)
    }

    /// Looks at all logins, and at windows that ended from `since` on.
    #[must_use]
    pub(super) fn of_all_logins(since: Timestamp) -> Self {
        Self::of(Timestamp::MIN, since)
    }

    const fn of(logins: Timestamp, since: Timestamp) -> Self {
        Self {
            logins,
            since,
            requests: BTreeMap::new(),
            hosts: BTreeMap::new(),
            lost: BTreeSet::new(),
            found: Reconciled { sessions: 0, reporting: 0, unseen: 0, findings: Vec::new() },
        }
    }

    /// Takes the next entry.
    pub fn take(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Asked { request, hosts, account, .. } => {
                let (hosts, account) = (hosts.clone(), account.to_string());
                let granted = Granted { hosts, account, certificates: Vec::new(), ended: None };
                self.requests.insert(*request, Known { granted, made: None, is_used: false });
            }
            Event::Narrowed { request, hosts, .. } => {
                if let Some(known) = self.requests.get_mut(request).filter(|known| known.made.is_none()) {
                    known.granted.hosts.clone_from(hosts);
                }
            }
            Event::CertificateToBeSigned { request, serial, ca, window, .. } => {
                if let Some(known) = self.requests.get_mut(request) {
                    known.made.get_or_insert(entry.at);
                    let certified = Certified { serial: serial.number(), ca: *ca, window: *window };
                    known.granted.certificates.push(certified);
                }
            }
            Event::Ended { request, .. } => {
                if let Some(known) = self.requests.get_mut(request) {
                    known.granted.ended = Some(entry.at);
                }
            }
            Event::Host(event) => self.take_host(event, entry),
            Event::LogStarted { .. }
            | Event::ServiceStarted { .. }
            | Event::CaKeysChanged { .. }
            | Event::CaStepProposed { .. }
            | Event::PolicyApplied { .. }
            | Event::LoggedIn { .. }
            | Event::BrowserSignedIn { .. }
            | Event::LoggedOut { .. }
            | Event::Refused { .. }
            | Event::Approved { .. }
            | Event::Granted { .. }
            | Event::Denied { .. }
            | Event::Withdrawn { .. }
            | Event::Lapsed { .. }
            | Event::CertificateSigned { .. }
            | Event::CertificateRefused { .. }
            | Event::ExtensionAsked { .. }
            | Event::Expired { .. }
            | Event::LogRecovered { .. } => {}
            Event::EntryLost { .. } => drop(self.lost.insert(entry.index)),
        }
    }

    fn take_host(&mut self, event: &HostEvent, entry: &Entry) {
        match event {
            HostEvent::HostEnrolled { host, .. } => self.hosts.entry(host.clone()).or_default().is_enrolled = true,
            HostEvent::HostRetired { host, .. } | HostEvent::HostLeft { host } => {
                let host = self.hosts.entry(host.clone()).or_default();
                host.is_enrolled = false;
                host.end(entry.at);
            }
            HostEvent::CheckInChanged { host, guard, .. } => {
                let host = self.hosts.entry(host.clone()).or_default();
                if *guard { host.begin(entry.at) } else { host.end(entry.at) }
            }
            HostEvent::SessionOpened { host, serial, ca, account, opened, request, .. } => {
                let login = Login { host, serial: *serial, ca: *ca, account, at: *opened };
                self.take_login(&login, *request, entry);
            }
            HostEvent::JoinCreated { .. }
            | HostEvent::JoinRevoked { .. }
            | HostEvent::HostRefused { .. }
            | HostEvent::HostTagged { .. }
            | HostEvent::HostMoved { .. }
            | HostEvent::HostCertificateToBeSigned { .. }
            | HostEvent::HostCertificateSigned { .. }
            | HostEvent::CheckCertificateToBeSigned { .. }
            | HostEvent::CheckCertificateSigned { .. }
            | HostEvent::HostDoubled { .. }
            | HostEvent::SessionEnded { .. }
            | HostEvent::SessionRefused { .. }
            | HostEvent::SessionFlagged { .. } => {}
        }
    }

    fn take_login(&mut self, login: &Login<'_>, request: Option<RequestId>, entry: &Entry) {
        let Login { host, serial, at: opened, .. } = *login;
        let known = request.and_then(|id| self.requests.get_mut(&id));
        let granted = known.map(|known| {
            known.is_used = true;
            known.granted.clone()
        });
        if opened.max(entry.at) < self.logins {
            return;
        }
        self.found.sessions = self.found.sessions.saturating_add(1);
        let Some((flag, mut why)) = judge(login, granted.as_ref()) else { return };
        if self.lost.contains(&serial) {
            why.push_str(LOST);
        }
        self.found.findings.push(Finding {
            kind: FindingKind::Login(flag),
            at: opened,
            entry: entry.index,
            host: Some(host.clone()),
            request,
            serial,
            why,
        });
    }

    /// What was found, with the grants that nobody has used and whose window was over at `now`.
    #[must_use]
    pub fn finish(mut self, now: Timestamp) -> Reconciled {
        let reporting = self.hosts.values().filter(|host| host.has_any()).count();
        self.found.reporting = u64::try_from(reporting).unwrap_or(u64::MAX);
        for (request, Known { granted, made, is_used }) in &self.requests {
            let (Some(last), Some(made), false) = (granted.certificates.last(), *made, *is_used) else { continue };
            let end = last.window.end();
            if end > now || end < self.since {
                continue;
            }
            // A host that reports nothing shows nothing by its silence.
            let until = granted.ended.map_or(end, |ended| ended.min(end));
            let is_seen = |host: &HostName| self.hosts.get(host).is_some_and(|host| host.covers(made, until));
            if !granted.hosts.iter().all(is_seen) {
                let count = u64::try_from(granted.certificates.len()).unwrap_or(u64::MAX);
                self.found.unseen = self.found.unseen.saturating_add(count);
                continue;
            }
            let hosts: Vec<&str> = granted.hosts.iter().map(HostName::as_str).collect();
            self.found.findings.push(Finding {
                kind: FindingKind::NeverUsed,
                at: end,
                entry: last.serial,
                host: granted.hosts.first().filter(|_| granted.hosts.len() == 1).cloned(),
                request: Some(*request),
                serial: last.serial,
                why: format!("nobody logged in to {} as {}", hosts.join(", "), granted.account),
            });
        }
        self.found.findings.sort_by_key(|finding| finding.entry);
        self.found
    }
}
