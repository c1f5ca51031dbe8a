//! Every request of a period, and what became of it as far as the log goes; and what policy refused at once, so that there is no request.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::period::When;
use super::table::Csv;
use crate::audit::entry::Entry;
use crate::audit::event::{Answer, Event};
use crate::audit::host_event::HostEvent;
use crate::name::{Account, HostName, PersonName, PolicyVersion, RequestId, RuleName};
use crate::time::{Lifetime, Timestamp, Window};

/// An entry of the log, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) entry: u64,
    pub(super) at: Timestamp,
}

impl Mark {
    pub(super) const fn of(entry: &Entry) -> Self {
        Self { entry: entry.index, at: entry.at }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Nobody has decided yet.
    Open,
    /// Somebody said no.
    Denied,
    /// The asker took it back, before it was granted or before there was a certificate.
    Cancelled,
    /// Nobody decided in time.
    Lapsed,
    /// Granted, and not over where the log ends.
    Valid,
    /// Granted, and ended before its time.
    Ended,
    /// Granted, and its window is over.
    Expired,
}

impl Outcome {
    pub(super) const ALL: [Self; 7] =
        [Self::Open, Self::Denied, Self::Cancelled, Self::Lapsed, Self::Valid, Self::Ended, Self::Expired];

    /// `open`, `denied`, …
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Lapsed => "lapsed",
            Self::Valid => "valid",
            Self::Ended => "ended",
            Self::Expired => "expired",
        }
    }
}

/// The decision on a request (not on more time for it).
#[derive(Debug)]
struct Decided {
    by: String,
    mark: Mark,
    policy: Option<PolicyVersion>,
}

/// How a request was closed.
#[derive(Debug)]
struct Over {
    outcome: Outcome,
    by: Option<PersonName>,
    reason: String,
    mark: Mark,
}

/// A request, as far as the log has told.
#[derive(Debug)]
pub(super) struct Request {
    id: RequestId,
    /// Whether it was asked for in the period.
    pub(super) is_within: bool,
    pub(super) asked: Mark,
    pub(super) person: PersonName,
    pub(super) account: Account,
    pub(super) hosts: BTreeSet<HostName>,
    pub(super) lifetime: Lifetime,
    pub(super) start: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) ticket: Option<String>,
    pub(super) rules: Vec<RuleName>,
    pub(super) policy: PolicyVersion,
    pub(super) verdict: Answer,
    /// The time that waits for a decision, or was granted last.
    waiting: Lifetime,
    /// All time that was granted, without what the window begins earlier.
    seconds: u64,
    /// What an approver left of the hosts.
    left: Option<BTreeSet<HostName>>,
    decided: Option<Decided>,
    over: Option<Over>,
    /// From the first window's start to the last one's end.
    pub(super) granted: Option<(Timestamp, Timestamp)>,
    pub(super) serials: Vec<u64>,
    extensions: usize,
    sessions: usize,
}

/// The requests that a report tells of: those of its period, and those that were open when it began.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: BTreeMap<RequestId, Request>,
    refused: Vec<Entry>,
}

impl Requests {
    /// Takes the next entry.
    pub(super) fn take(&mut self, entry: &Entry, when: When) {
        if when == When::Within && matches!(entry.event, Event::Refused { .. }) {
            self.refused.push(entry.clone());
        }
        if when != When::After
            && let Some(request) = Request::ask(entry, when)
        {
            self.all.insert(request.id, request);
            return;
        }
        let Some(id) = entry.event.request() else { return };
        let Some(request) = self.all.get_mut(&id) else { return };
        request.take(entry);
        // What was over before is of no report but an earlier one.
        if when == When::Before && request.over.is_some() {
            self.all.remove(&id);
        }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Request> {
        self.all.get(&id)
    }

    /// Those that were asked for in the period, in the order of the log.
    pub(super) fn of_period(&self) -> Vec<&Request> {
        let mut all: Vec<&Request> = self.all.values().filter(|request| request.is_within).collect();
        all.sort_by_key(|request| request.asked.entry);
        all
    }

    /// How many asks policy refused at once in the period.
    pub(super) const fn refused(&self) -> usize {
        self.refused.len()
    }

    pub(super) fn csv(&self) -> (String, usize) {
        let mut csv = Csv::new([
            "request",
            "asked_at",
            "asked_entry",
            "who",
            "hosts",
            "account",
            "for",
            "from",
            "reason",
            "ticket",
            "rules",
            "asked_policy",
            "policy_said",
            "decided_by",
            "decided_at",
            "decided_entry",
            "decided_policy",
            "hosts_left",
            "outcome",
            "over_at",
            "over_entry",
            "over_by",
            "over_reason",
            "valid_from",
            "valid_until",
            "serials",
            "extensions",
            "sessions",
        ]);
        self.of_period().into_iter().for_each(|request| csv.row(request.row()));
        csv.finish()
    }

    /// What policy refused at once.
    pub(super) fn refusals(&self) -> (String, usize) {
        let mut csv = Csv::new(["entry", "at", "who", "hosts", "account", "reason", "why", "policy"]);
        for entry in &self.refused {
            let Event::Refused { person, hosts, account, reason, why, policy } = &entry.event else { continue };
            csv.row([
                entry.index.to_string(),
                entry.at.to_string(),
                person.to_string(),
                joined(hosts),
                account.to_string(),
                reason.clone(),
                why.join("; "),
                policy.to_string(),
            ]);
        }
        csv.finish()
    }
}

impl Request {
    /// The request that an entry makes.
    pub(super) fn ask(entry: &Entry, when: When) -> Option<Self> {
        let Event::Asked {
            request,
            person,
            hosts,
            account,
            lifetime,
            start,
            reason,
            ticket,
            rules,
            policy,
            verdict,
            key: _,
            backdate: _,
            account_scope: _,
            permits: _,
            command: _,
            sources: _,
            verify_required: _,
            digest: _,
            ca: _,
        } = &entry.event
        else {
            return None;
        };
        Some(Self {
            id: *request,
            is_within: when == When::Within,
            asked: Mark::of(entry),
            person: person.clone(),
            account: account.clone(),
            hosts: hosts.clone(),
            lifetime: *lifetime,
            start: *start,
            reason: reason.clone(),
            ticket: ticket.clone(),
            rules: rules.clone(),
            policy: *policy,
            verdict: *verdict,
            waiting: *lifetime,
            seconds: 0,
            left: None,
            decided: None,
            over: None,
            granted: None,
            serials: Vec::new(),
            extensions: 0,
            sessions: 0,
        })
    }

    pub(super) const fn id(&self) -> RequestId {
        self.id
    }

    /// Takes an entry about this request.
    fn take(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Narrowed { hosts, lifetime, .. } => {
                self.left = Some(hosts.clone());
                self.waiting = *lifetime;
            }
            Event::ExtensionAsked { lifetime, .. } => self.waiting = *lifetime,
            Event::Granted { approvers, window, policy, .. } => self.grant(approvers, *window, *policy, entry),
            Event::Denied { by, reason, extension: false, .. } => {
                self.decided = Some(Decided { by: by.to_string(), mark: Mark::of(entry), policy: None });
                self.close(Outcome::Denied, Some(by), reason, entry);
            }
            Event::Withdrawn { by, extension: false, .. } => self.close(Outcome::Cancelled, Some(by), "", entry),
            Event::Lapsed { extension: false, .. } => self.close(Outcome::Lapsed, None, "", entry),
            Event::Ended { by, reason, .. } => self.close(Outcome::Ended, Some(by), reason, entry),
            Event::Expired { .. } => self.close(Outcome::Expired, None, "", entry),
            Event::CertificateToBeSigned { serial, .. } => self.serials.push(serial.number()),
            Event::Host(HostEvent::SessionOpened { .. }) => self.sessions = self.sessions.saturating_add(1),
            Event::Denied { .. }
            | Event::Withdrawn { .. }
            | Event::Lapsed { .. }
            | Event::Approved { .. }
            | Event::CertificateSigned { .. }
            | Event::CertificateRefused { .. }
            | Event::Asked { .. }
            | Event::Host(_)
            | Event::LogStarted { .. }
            | Event::ServiceStarted { .. }
            | Event::CaKeysChanged { .. }
            | Event::CaStepProposed { .. }
            | Event::PolicyApplied { .. }
            | Event::LoggedIn { .. }
            | Event::BrowserSignedIn { .. }
            | Event::LoggedOut { .. }
            | Event::Refused { .. }
            | Event::EntryLost { .. }
            | Event::LogRecovered { .. } => {}
        }
    }

    fn grant(&mut self, approvers: &BTreeSet<PersonName>, window: Window, policy: PolicyVersion, entry: &Entry) {
        self.seconds = self.seconds.saturating_add(self.waiting.seconds().into());
        match self.granted {
            Some((start, _)) => {
                self.granted = Some((start.min(window.start()), window.end()));
                self.extensions = self.extensions.saturating_add(1);
            }
            None => {
                self.granted = Some((window.start(), window.end()));
                // No person's name has brackets.
                let by = if approvers.is_empty() { "(policy)".to_owned() } else { joined(approvers) };
                self.decided = Some(Decided { by, mark: Mark::of(entry), policy: Some(policy) });
            }
        }
    }

    fn close(&mut self, outcome: Outcome, by: Option<&PersonName>, reason: &str, entry: &Entry) {
        self.over = Some(Over { outcome, by: by.cloned(), reason: reason.to_owned(), mark: Mark::of(entry) });
    }

    /// What became of it.
    pub(super) fn outcome(&self) -> Outcome {
        match (&self.over, self.granted) {
            (Some(over), _) => over.outcome,
            (None, Some(_)) => Outcome::Valid,
            (None, None) => Outcome::Open,
        }
    }

    /// How much time was granted in all, in seconds.
    pub(super) const fn seconds(&self) -> u64 {
        self.seconds
    }

    fn row(&self) -> [String; 28] {
        let decided = self.decided.as_ref();
        let over = self.over.as_ref();
        [
            self.id.to_string(),
            self.asked.at.to_string(),
            self.asked.entry.to_string(),
            self.person.to_string(),
            joined(&self.hosts),
            self.account.to_string(),
            self.lifetime.to_string(),
            text(self.start),
            self.reason.clone(),
            self.ticket.clone().unwrap_or_default(),
            joined(&self.rules),
            self.policy.to_string(),
            self.verdict.word().to_owned(),
            decided.map(|decided| decided.by.clone()).unwrap_or_default(),
            text(decided.map(|decided| decided.mark.at)),
            text(decided.map(|decided| decided.mark.entry)),
            text(decided.and_then(|decided| decided.policy)),
            joined(self.left.as_ref().unwrap_or(&self.hosts)),
            self.outcome().word().to_owned(),
            text(over.map(|over| over.mark.at)),
            text(over.map(|over| over.mark.entry)),
            text(over.and_then(|over| over.by.as_ref())),
            over.map(|over| over.reason.clone()).unwrap_or_default(),
            text(self.granted.map(|(start, _)| start)),
            text(self.granted.map(|(_, end)| end)),
            joined(&self.serials),
            self.extensions.to_string(),
            self.sessions.to_string(),
        ]
    }
}

/// What is there, or nothing.
pub(super) fn text(what: Option<impl ToString>) -> String {
    what.map(|what| what.to_string()).unwrap_or_default()
}

/// Names and numbers side by side.
pub(super) fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}
