//! How much there is of everything in a period, in sums that add up.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::Evidence;
use super::certificates::For;
use super::exceptions::Kind;
use super::requests::Outcome;

/// How much there is of everything.
#[derive(Debug, Default)]
pub(super) struct Counts {
    outcomes: BTreeMap<Outcome, usize>,
    pub(super) asked: usize,
    pub(super) refused: usize,
    pub(super) person: usize,
    pub(super) extension: usize,
    pub(super) host: usize,
    pub(super) check: usize,
    pub(super) without_outcome: usize,
    pub(super) sessions: usize,
    pub(super) ended: usize,
    pub(super) exceptions: BTreeMap<Kind, usize>,
    /// Certificates of which nothing can be said, since their hosts did not report.
    pub(super) unseen: u64,
    pub(super) policies: usize,
    pub(super) hosts: (usize, usize),
}

impl Counts {
    pub(super) fn of(evidence: &Evidence, unseen: u64) -> Self {
        let requests = evidence.requests.of_period();
        let mut counts = Self {
            asked: requests.len(),
            refused: evidence.requests.refused(),
            person: evidence.certificates.count(For::Person),
            extension: evidence.certificates.count(For::Extension),
            host: evidence.certificates.count(For::Host),
            check: evidence.certificates.count(For::Check),
            without_outcome: evidence.certificates.without_outcome(),
            sessions: evidence.sessions.all().len(),
            ended: evidence.sessions.all().iter().filter(|session| session.ended.is_some()).count(),
            unseen,
            policies: evidence.changes.applied(),
            hosts: evidence.changes.hosts(),
            ..Self::default()
        };
        for request in requests {
            let count = counts.outcomes.entry(request.outcome()).or_default();
            *count = count.saturating_add(1);
        }
        for exception in &evidence.exceptions {
            let count = counts.exceptions.entry(exception.kind).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    pub(super) fn outcome(&self, outcome: Outcome) -> usize {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// Those that were granted and not taken back before there was a certificate.
    pub(super) fn granted(&self) -> usize {
        let [expired, ended, valid] = [Outcome::Expired, Outcome::Ended, Outcome::Valid].map(|one| self.outcome(one));
        expired.saturating_add(ended).saturating_add(valid)
    }

    pub(super) fn exceptions_of(&self, kind: Kind) -> usize {
        self.exceptions.get(&kind).copied().unwrap_or(0)
    }

    pub(super) fn all_exceptions(&self) -> usize {
        self.exceptions.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn certificates(&self) -> usize {
        [self.extension, self.host, self.check].into_iter().fold(self.person, usize::saturating_add)
    }

    /// All that was asked for, by what became of it.
    pub(super) fn asked_sum(&self) -> String {
        let parts = [Outcome::Denied, Outcome::Cancelled, Outcome::Lapsed, Outcome::Open];
        let parts = parts.map(|one| format!("{} {}", self.outcome(one), one.word()));
        format!("{} asked = {} granted + {}", self.asked, self.granted(), parts.join(" + "))
    }

    pub(super) fn granted_sum(&self) -> String {
        let [expired, ended, valid] = [Outcome::Expired, Outcome::Ended, Outcome::Valid].map(|one| self.outcome(one));
        format!("{} granted = {expired} expired + {ended} ended early + {valid} still valid", self.granted())
    }

    pub(super) fn certificates_sum(&self) -> String {
        let Self { person, extension, host, check, .. } = self;
        let all = self.certificates();
        format!(
            "{all} in all = {person} for requests + {extension} for extensions + {host} for hosts + {check} for hosts' logins to themselves"
        )
    }

    pub(super) fn sessions_sum(&self) -> String {
        let open = self.sessions.saturating_sub(self.ended);
        format!("{} opened = {} ended + {open} without a report of their end", self.sessions, self.ended)
    }
}
