//! What an auditor gets of a period: all that was asked, granted, certified and used, what stands out in it, and a sample to look into.
//!
//! What for: [`Evidence`] is shown each entry of an export while `verify` goes through it, and makes the files of a report in the end.
//!
//! What not: nothing is read or written here (`cli/report.rs`), and nothing proven: whether the export is sound `verify` says, and of one that is
//! not there is no report.
//!
//! *What belongs to a period?* What the log wrote in it. The log's times are the service's and never run backwards; by those that hosts tell,
//! a login could be told out of every period. What became of a request that was asked for in the period is told as far as the log goes.
//!
//! Invariants: the same export and the same [`Plan`] make the same bytes, so that whoever has the export can make the report again: no clock, no
//! path, no order but the log's. What people wrote passes [`table`] into each file.
//!
//! Memory: what is told of the period, and of each request before its end what [`reconcile`](super::reconcile) keeps.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod certificates;
mod changes;
mod counts;
mod exceptions;
mod hashed;
mod page;
mod period;
mod requests;
mod sample;
mod sessions;
mod summary;
mod table;

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

pub use self::hashed::Hashed;
pub use self::period::{Period, PeriodError};
pub use self::sample::{Sample, SeedError};

use self::certificates::Certificates;
use self::changes::Changes;
use self::counts::Counts;
use self::exceptions::Exception;
use self::period::When;
use self::requests::{Mark, Requests};
use self::sample::Chosen;
use self::sessions::Sessions;
use self::summary::{Listed, Summary};
use super::entry::Entry;
use super::event::Event;
use super::export::Verified;
use super::reconcile::{FindingKind, Reconciler};
use super::report::Demands;
use super::tree::Hash;
use crate::name::RequestId;
use crate::time::{Lifetime, Timestamp};

/// What a report is to tell.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of when.
    pub period: Period,
    /// Access that lasts longer than this in all is told as an exception.
    pub long: Lifetime,
    /// The requests to look into, if any.
    pub sample: Option<Sample>,
}

/// What the report was made of, and how far that can be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What the verification shows.
    pub verified: &'a Verified,
    /// The SHA-256 of the export.
    pub sha256: Hash,
    /// What the auditor brought along and demanded of it.
    pub demands: Demands<'a>,
}

/// A report: files, and what is said of it.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Each with its name, which may be in a folder (`sample/…`).
    pub files: Vec<(String, String)>,
    /// For people, several lines, each ended.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// A period of which the log tells nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Outside {
    /// It is too early.
    #[error("the log begins at {0}, when the period is over")]
    Early(Timestamp),
    /// It is too late.
    #[error("the log ends at {0}, before the period begins")]
    Late(Timestamp),
}

/// Goes through a log, entry by entry.
#[derive(Debug)]
pub struct Evidence {
    plan: Plan,
    requests: Requests,
    certificates: Certificates,
    sessions: Sessions,
    changes: Changes,
    chosen: Chosen,
    exceptions: Vec<Exception>,
    reconciler: Reconciler,
}

impl Evidence {
    /// Nothing yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self {
            reconciler: Reconciler::of_all_logins(plan.period.from()),
            plan,
            requests: Requests::default(),
            certificates: Certificates::default(),
            sessions: Sessions::default(),
            changes: Changes::default(),
            chosen: Chosen::default(),
            exceptions: Vec::new(),
        }
    }

    /// Takes the next entry.
    pub fn take(&mut self, entry: &Entry) {
        let when = self.plan.period.place(entry.at);
        // What is asked for later is of no report but a later one.
        if when != When::After || !matches!(entry.event, Event::Asked { .. }) {
            self.reconciler.take(entry);
        }
        self.changes.take(entry, when);
        self.requests.take(entry, when);
        if let Some(sample) = &self.plan.sample {
            self.chosen.take(sample, entry, when == When::Within);
        }
        let request = entry.event.request().and_then(|id| self.requests.get(id));
        if when == When::Within {
            self.certificates.begin(entry, request.is_some_and(|request| request.serials.len() > 1));
            self.sessions.begin(entry);
            self.exceptions.extend(exceptions::of_entry(entry, request, self.plan.long));
        }
        self.certificates.end(entry);
        self.sessions.end(entry);
    }

    /// The report, of an export that is sound.
    ///
    /// # Errors
    /// [`Outside`].
    pub fn finish(mut self, source: &Source<'_>) -> Result<Pack, Outside> {
        let (first, last) = source.verified.span;
        if last < self.plan.period.from() {
            return Err(Outside::Late(last));
        }
        if first >= self.plan.period.to() {
            return Err(Outside::Early(first));
        }
        let unseen = self.reconcile(last);
        self.without_outcome();
        exceptions::sort(&mut self.exceptions);
        Ok(self.pack(source, unseen))
    }

    /// Adds what does not fit what was granted; how many certificates of the period nothing can be said of.
    fn reconcile(&mut self, last: Timestamp) -> u64 {
        let reconciler = std::mem::replace(&mut self.reconciler, Reconciler::of_all_logins(last));
        // The first second after the period is of the next one.
        let second = Lifetime::from_seconds(1).unwrap_or(Lifetime::ZERO);
        let end = self.plan.period.to().minus(second).unwrap_or(last);
        let found = reconciler.finish(end.min(last));
        let reported: BTreeMap<u64, Mark> =
            self.sessions.all().iter().map(|session| (session.mark.entry, session.mark)).collect();
        for finding in &found.findings {
            let at = match finding.kind {
                FindingKind::NeverUsed => finding.at,
                FindingKind::Login(_) => match reported.get(&finding.entry) {
                    Some(mark) => mark.at,
                    // Reported before or after.
                    None => continue,
                },
            };
            let who = finding.request.and_then(|id| self.requests.get(id)).map(|request| request.person.clone());
            self.exceptions.push(Exception::of_finding(finding, at, who));
        }
        found.unseen
    }

    fn without_outcome(&mut self) {
        for (serial, certificate) in self.certificates.iter().filter(|(_, certificate)| certificate.signed.is_none()) {
            let (request, who) = (certificate.request, certificate.who.clone());
            self.exceptions.push(Exception::no_outcome(serial, certificate.mark, request, who));
        }
    }

    fn pack(&self, source: &Source<'_>, unseen: u64) -> Pack {
        let flags = self.exceptions.iter().filter_map(Exception::flag).collect();
        let listed = [
            Listed::new("requests.csv", "every request that was asked for", self.requests.csv()),
            Listed::new(
                "refusals.csv",
                "what policy refused at once, so that there is no request",
                self.requests.refusals(),
            ),
            Listed::new("certificates.csv", "every certificate that was about to be signed", self.certificates.csv()),
            Listed::new("sessions.csv", "every login that a host reported", self.sessions.csv(&flags)),
            Listed::new("exceptions.csv", "what does not go by the usual way", exceptions::csv(&self.exceptions)),
            Listed::new(
                "policy.csv",
                "the policy in force at the beginning, and each one applied",
                self.changes.policy_csv(),
            ),
            Listed::new("hosts.csv", "who may enrol, and hosts enrolled, moved, retired", self.changes.hosts_csv()),
        ];
        let sampled: Vec<RequestId> = self.chosen.iter().map(|(id, _)| id).collect();
        let counts = Counts::of(self, unseen);
        let summary = Summary { plan: &self.plan, source, counts: &counts, listed: &listed, sampled: &sampled };
        let (page, text, mut json) = (summary.page(), summary.text(), summary.json());
        let mut files = vec![("summary.md".to_owned(), page)];
        files.extend(listed.into_iter().map(|listed| (listed.name.to_owned(), listed.text)));
        for (id, entries) in self.chosen.iter() {
            let Some(request) = self.requests.get(id) else { continue };
            files.push((format!("sample/{id}.md"), page::page(request, entries, &self.changes)));
        }
        let sums = summary::sums(&files);
        files.push(("SHA256SUMS".to_owned(), sums));
        if let Some(members) = json.as_object_mut() {
            let names = files.iter().map(|(name, _)| Value::from(name.as_str())).collect();
            members.insert("files".to_owned(), names);
        }
        Pack { files, text, json }
    }
}
