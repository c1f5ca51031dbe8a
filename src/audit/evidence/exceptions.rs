//! What a careful auditor looks at first: all that the log knows of which does not go by the usual way.
//!
//! Not all of it is wrong: policy may let people in without asking anybody, and access that is given back early is good. It is what somebody
//! should have a reason for.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::requests::{Mark, Request, text};
use super::table::Csv;
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::{Flag, HostEvent};
use crate::audit::reconcile::{Finding, FindingKind};
use crate::name::{HostName, PersonName, RequestId, Serial};
use crate::time::{Lifetime, Timestamp};

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    PolicyAlone,
    UnsignedApproval,
    LongAccess,
    GivenBack,
    Revoked,
    CertificateRefused,
    NoOutcome,
    WithoutRequest,
    OutsideGrant,
    AfterEnd,
    NeverUsed,
    LoginRefused,
    CaKeysChanged,
    EntriesLost,
}

impl Kind {
    pub(super) const ALL: [Self; 14] = [
        Self::PolicyAlone,
        Self::UnsignedApproval,
        Self::LongAccess,
        Self::GivenBack,
        Self::Revoked,
        Self::CertificateRefused,
        Self::NoOutcome,
        Self::WithoutRequest,
        Self::OutsideGrant,
        Self::AfterEnd,
        Self::NeverUsed,
        Self::LoginRefused,
        Self::CaKeysChanged,
        Self::EntriesLost,
    ];

    /// As `exceptions.csv` has it; of logins as `audit reconcile` does.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::PolicyAlone => "policy_alone",
            Self::UnsignedApproval => "unsigned_approval",
            Self::LongAccess => "long_access",
            Self::GivenBack => "given_back",
            Self::Revoked => "revoked",
            Self::CertificateRefused => "certificate_refused",
            Self::NoOutcome => "no_outcome",
            Self::WithoutRequest => Flag::WithoutRequest.word(),
            Self::OutsideGrant => Flag::OutsideGrant.word(),
            Self::AfterEnd => Flag::AfterEnd.word(),
            Self::NeverUsed => FindingKind::NeverUsed.word(),
            Self::LoginRefused => "login_refused",
            Self::CaKeysChanged => "ca_keys_changed",
            Self::EntriesLost => "entries_lost",
        }
    }

    /// What it means, as the summary says it.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::PolicyAlone => "granted by policy, nobody was asked",
            Self::UnsignedApproval => "approved by a login alone, without the approver's signature",
            Self::LongAccess => "access that lasts longer than LONG in all, with its extensions",
            Self::GivenBack => "ended before its time by who had asked for it",
            Self::Revoked => "ended before its time by somebody else",
            Self::CertificateRefused => "granted, and then refused its certificate by policy",
            Self::NoOutcome => "a certificate that was about to be signed, and perhaps was",
            Self::WithoutRequest => "a login whose certificate is of no request in the log",
            Self::OutsideGrant => "a login on another host or account than was granted, or too early",
            Self::AfterEnd => "a login after the access was over",
            Self::NeverUsed => "a grant that nobody used, on hosts that reported all the while",
            Self::LoginRefused => "a host let nobody in on a certificate of ours",
            Self::CaKeysChanged => "the CA keys were changed",
            Self::EntriesLost => "entries of the log were lost and given up",
        }
    }
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Exception {
    pub(super) kind: Kind,
    mark: Mark,
    request: Option<RequestId>,
    who: Option<PersonName>,
    host: Option<HostName>,
    serial: Option<u64>,
    what: String,
}

/// What an entry tells by itself; `request` is the one that it is about, and access that lasts longer than `long` is told.
pub(super) fn of_entry(entry: &Entry, request: Option<&Request>, long: Lifetime) -> Vec<Exception> {
    let is_asker = |by: &PersonName| request.is_some_and(|request| request.person == *by);
    let is_long = request.is_some_and(|request| request.seconds() > u64::from(long.seconds()));
    let kinds = match &entry.event {
        Event::Granted { approvers, .. } => {
            let alone = approvers.is_empty().then_some(Kind::PolicyAlone);
            alone.into_iter().chain(is_long.then_some(Kind::LongAccess)).collect()
        }
        Event::Approved { signature: None, .. } => vec![Kind::UnsignedApproval],
        Event::Ended { by, .. } if is_asker(by) => vec![Kind::GivenBack],
        Event::Ended { .. } => vec![Kind::Revoked],
        Event::CertificateRefused { .. } => vec![Kind::CertificateRefused],
        Event::CaKeysChanged { .. } => vec![Kind::CaKeysChanged],
        Event::LogRecovered { .. } => vec![Kind::EntriesLost],
        Event::Host(HostEvent::SessionRefused { .. }) => vec![Kind::LoginRefused],
        Event::Approved { .. }
        | Event::Host(_)
        | Event::LogStarted { .. }
        | Event::ServiceStarted { .. }
        | Event::CaStepProposed { .. }
        | Event::PolicyApplied { .. }
        | Event::LoggedIn { .. }
        | Event::BrowserSignedIn { .. }
        | Event::LoggedOut { .. }
        | Event::Refused { .. }
        | Event::Asked { .. }
        | Event::Narrowed { .. }
        | Event::Denied { .. }
        | Event::Withdrawn { .. }
        | Event::Lapsed { .. }
        | Event::CertificateToBeSigned { .. }
        | Event::CertificateSigned { .. }
        | Event::ExtensionAsked { .. }
        | Event::Expired { .. }
        // (each of which `LogRecovered` counts)
        | Event::EntryLost { .. } => Vec::new(),
    };
    let host = if let Event::Host(event) = &entry.event { event.host().cloned() } else { None };
    let serial = if let Event::Host(event) = &entry.event { event.serial() } else { None };
    let one = |kind| Exception {
        kind,
        mark: Mark::of(entry),
        request: entry.event.request(),
        who: request.map(|request| request.person.clone()),
        host: host.clone(),
        serial: serial.map(Serial::number),
        what: entry.event.sentence(),
    };
    kinds.into_iter().map(one).collect()
}

impl Exception {
    /// Of a login that does not fit: the entry that reports it, and what does not.
    pub(super) const fn flag(&self) -> Option<(u64, &'static str)> {
        match self.kind {
            Kind::WithoutRequest | Kind::OutsideGrant | Kind::AfterEnd => Some((self.mark.entry, self.kind.word())),
            Kind::PolicyAlone
            | Kind::UnsignedApproval
            | Kind::LongAccess
            | Kind::GivenBack
            | Kind::Revoked
            | Kind::CertificateRefused
            | Kind::NoOutcome
            | Kind::NeverUsed
            | Kind::LoginRefused
            | Kind::CaKeysChanged
            | Kind::EntriesLost => None,
        }
    }

    /// A certificate without an outcome.
    pub(super) fn no_outcome(serial: u64, mark: Mark, request: Option<RequestId>, who: Option<PersonName>) -> Self {
        let what = format!("certificate {serial} was about to be signed, and nothing says whether it was");
        Self { kind: Kind::NoOutcome, mark, request, who, host: None, serial: Some(serial), what }
    }

    /// What a login that does not fit, or a grant that nobody used, comes to. `at` is when the login was reported, or the unused window's end.
    pub(super) fn of_finding(finding: &Finding, at: Timestamp, who: Option<PersonName>) -> Self {
        let kind = match finding.kind {
            FindingKind::Login(Flag::WithoutRequest) => Kind::WithoutRequest,
            FindingKind::Login(Flag::OutsideGrant) => Kind::OutsideGrant,
            FindingKind::Login(Flag::AfterEnd) => Kind::AfterEnd,
            FindingKind::NeverUsed => Kind::NeverUsed,
        };
        Self {
            kind,
            mark: Mark { entry: finding.entry, at },
            request: finding.request,
            who,
            host: finding.host.clone(),
            serial: Some(finding.serial),
            what: finding.why.clone(),
        }
    }
}

/// Sorted by their entries.
pub(super) fn csv(exceptions: &[Exception]) -> (String, usize) {
    let mut csv = Csv::new(["kind", "entry", "at", "request", "who", "host", "serial", "what"]);
    for Exception { kind, mark, request, who, host, serial, what } in exceptions {
        csv.row([
            kind.word().to_owned(),
            mark.entry.to_string(),
            mark.at.to_string(),
            text(*request),
            text(who.as_ref()),
            text(host.as_ref()),
            text(*serial),
            what.clone(),
        ]);
    }
    csv.finish()
}

/// By entry, and of one entry by kind.
pub(super) fn sort(exceptions: &mut [Exception]) {
    exceptions.sort_by_key(|exception| (exception.mark.entry, exception.kind));
}
