//! An event as one line for people: who did what to which request.
//!
//! Free text (reasons, comments) is quoted with everything escaped that could move a cursor, start a line or turn the direction
//! of reading; names and ids are ASCII by their types.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use super::checkpoint::Checkpoint;
use super::event::{Answer, Event};
use super::key_sentence::key_sentence;
use crate::keyring::Ring;
use crate::name::RequestId;
use crate::time::{Timestamp, Window};

/// A time for people: `2026-01-05 10:00:00Z`.
#[must_use]
pub fn text_time(at: Timestamp) -> String {
    at.to_string().replace('T', " ")
}

/// How times are written: as [`text_time`] does, or as one reader's own clock has them.
pub type TimeText<'t> = &'t dyn Fn(Timestamp) -> String;

pub(super) fn span(window: &Window, time: TimeText<'_>) -> String {
    format!("{} to {}", time(window.start()), time(window.end()))
}

pub(super) fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    items.join(", ")
}

/// `, ticket "INC-1"`, or nothing.
pub(super) fn and(what: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{what}{text:?}") }
}

/// `user SHA256:… active, host SHA256:… active`.
pub(super) fn ring(ring: &Ring) -> String {
    list(ring.keys().iter().map(|k| format!("{} {} {}", k.ca, k.key.fingerprint(), k.state)))
}

const fn outcome(verdict: Answer) -> &'static str {
    match verdict {
        Answer::Allow => "allowed at once",
        Answer::Ask => "needs approval",
    }
}

impl Event {
    /// The request it is about, if it is about one.
    #[must_use]
    pub const fn request(&self) -> Option<RequestId> {
        match self {
            Self::LogStarted { .. }
            | Self::ServiceStarted { .. }
            | Self::CaKeysChanged { .. }
            | Self::CaStepProposed { .. }
            | Self::PolicyApplied { .. }
            | Self::LoggedIn { .. }
            | Self::BrowserSignedIn { .. }
            | Self::LoggedOut { .. }
            | Self::Refused { .. }
            | Self::EntryLost { .. }
            | Self::LogRecovered { .. } => None,
            Self::Asked { request, .. }
            | Self::Narrowed { request, .. }
            | Self::Approved { request, .. }
            | Self::Granted { request, .. }
            | Self::Denied { request, .. }
            | Self::Withdrawn { request, .. }
            | Self::Lapsed { request, .. }
            | Self::CertificateToBeSigned { request, .. }
            | Self::CertificateSigned { request, .. }
            | Self::CertificateRefused { request, .. }
            | Self::ExtensionAsked { request, .. }
            | Self::Ended { request, .. }
            | Self::Expired { request } => Some(*request),
            Self::Host(event) => event.request(),
        }
    }

    /// [`Self::sentence`] for logins, sign-ins of browsers, and their end.
    fn login(&self, time: TimeText<'_>) -> String {
        if let Self::LoggedIn { person, key, address, expires } = self {
            format!("{person} logged in from {address:?} with key {key} until {}", time(*expires))
        } else if let Self::BrowserSignedIn { person, key, address, expires } = self {
            let until = time(*expires);
            format!("{person} signed in a browser at {address:?} by a login with key {key}, until {until}")
        } else if let Self::LoggedOut { person } = self {
            format!("{person} logged out")
        } else {
            String::new()
        }
    }

    /// [`Self::sentence`] for entries that are lost.
    fn loss(&self) -> String {
        if let Self::LogRecovered { by, reason, kept, heads } = self {
            let sizes = heads.iter().filter_map(|note| Checkpoint::claimed(note).ok());
            let sizes = list(sizes.map(|lost| lost.size));
            let of = if sizes.is_empty() { String::new() } else { format!(", of logs that had {sizes} entries") };
            format!("{by} had the log go on from a copy of {kept} entries; those after it are lost{of}: {reason:?}")
        } else if let Self::EntryLost { of } = self {
            format!("the entry that stood here is lost, of a log of {of}")
        } else {
            String::new()
        }
    }

    /// One line for people: who did what to which request, escaped.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.sentence_in(&text_time)
    }

    /// The same, with times written so.
    #[must_use]
    pub fn sentence_in(&self, time: TimeText<'_>) -> String {
        match self {
            Self::LogStarted { service, log_key } => {
                format!("the log of {service:?} began, checkpoints by {log_key:?}")
            }
            Self::ServiceStarted { ca, version, keys, .. } => {
                let keys = keys.as_ref().map(|keys| format!("; CA keys are now {}", ring(keys))).unwrap_or_default();
                format!("the service {version:?} started with CA key {ca}{keys}")
            }
            Self::CaKeysChanged { .. } | Self::CaStepProposed { .. } => key_sentence(self, time),
            Self::PolicyApplied { by, version, sha256, tests, changes } => {
                format!("{by} applied policy {version}: {changes} changes, {tests} tests passed, SHA-256 {sha256:?}")
            }
            Self::LoggedIn { .. } | Self::BrowserSignedIn { .. } | Self::LoggedOut { .. } => self.login(time),
            Self::Refused { person, hosts, account, reason, why, policy } => {
                let why: Vec<String> = why.iter().map(|w| format!("{w:?}")).collect();
                let (hosts, why, reason) = (list(hosts), list(why), and(", who gave as reason ", reason));
                format!("policy {policy} refused {person} access to {hosts} as {account}: {why}{reason}")
            }
            Self::Asked { request, person, hosts, account, lifetime, start, reason, ticket, verdict, .. } => {
                let (hosts, outcome) = (list(hosts), outcome(*verdict));
                let start = start.map(|s| format!(" from {}", time(s))).unwrap_or_default();
                let ticket = and(", ticket ", ticket.as_deref().unwrap_or_default());
                format!(
                    "{request}: {person} asked for {hosts} as {account} for {lifetime}{start}: {reason:?}{ticket}, {outcome}"
                )
            }
            Self::Narrowed { request, by, lifetime, hosts, permits, .. } => {
                let (hosts, permits) = (list(hosts), list(permits.iter().map(|p| p.key())));
                let permits = if permits.is_empty() { "nothing but commands".to_owned() } else { permits };
                format!("{request}: {by} narrowed it to {hosts} for {lifetime}, with {permits}")
            }
            Self::Approved { request, by, comment, signature, .. } => {
                let signed = signature.as_ref().map(|s| format!(", signed by {}", s.key().fingerprint()));
                format!("{request}: {by} approved it{}{}", signed.unwrap_or_default(), and(": ", comment))
            }
            Self::Granted { request, approvers, window, policy, .. } if approvers.is_empty() => {
                format!("{request}: granted by policy {policy} alone, {}", span(window, time))
            }
            Self::Granted { request, approvers, window, policy, .. } => {
                format!("{request}: granted by {} under policy {policy}, {}", list(approvers), span(window, time))
            }
            Self::Denied { request, by, reason, extension } => {
                let what = if *extension { "the extension" } else { "it" };
                format!("{request}: {by} denied {what}{}", and(": ", reason))
            }
            Self::Withdrawn { request, by, extension } => {
                let what = if *extension { "the extension" } else { "it" };
                format!("{request}: {by} took {what} back")
            }
            Self::Lapsed { request, extension } => {
                let what = if *extension { "the extension" } else { "it" };
                format!("{request}: {what} lapsed, nobody decided in time")
            }
            Self::CertificateToBeSigned { request, person, serial, ca, window, .. } => {
                format!(
                    "{request}: certificate {serial} for {person} is about to be signed by {ca}, {}",
                    span(window, time)
                )
            }
            Self::CertificateSigned { request, serial, sha256 } => {
                format!("{request}: certificate {serial} was signed, SHA-256 {sha256:?}")
            }
            Self::CertificateRefused { request, person, why, policy } => {
                format!("{request}: policy {policy} refused {person} the certificate: {why:?}")
            }
            Self::ExtensionAsked { request, person, lifetime, reason, verdict, .. } => {
                let (reason, outcome) = (and(": ", reason), outcome(*verdict));
                format!("{request}: {person} asked for {lifetime} more{reason}, {outcome}")
            }
            Self::Ended { request, by, reason } => format!("{request}: {by} ended it{}", and(": ", reason)),
            Self::Expired { request } => format!("{request}: its window is over"),
            Self::EntryLost { .. } | Self::LogRecovered { .. } => self.loss(),
            Self::Host(event) => event.sentence_in(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::audit::entry::Entry;

    #[test]
    fn every_time_of_every_kind_of_sentence_is_the_readers() {
        let golden = include_str!("../../tests/golden/events.jsonl");
        let has_time = |text: &str| {
            let is = |c: char| if c.is_ascii_digit() { '0' } else { c };
            text.chars().map(is).collect::<String>().contains("0000-00-00 00:00:00")
        };
        let mut timed = 0;
        for line in golden.lines() {
            let event = Entry::parse(line.as_bytes()).unwrap().event;
            let told = event.sentence_in(&|at| format!("<{}>", at.unix()));
            timed += usize::from(has_time(&event.sentence()));
            assert!(!has_time(&told) && told.contains('<') == has_time(&event.sentence()), "{told}");
        }
        assert!(timed > 10, "{timed}");
    }
}
