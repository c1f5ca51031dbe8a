//! Which entries somebody looks for: a small expression of terms that must all hold.
//!
//! `person:alice host:web-1 request:7K3F kind:granted serial:12 since:2026-01-05 until:2h policy:3 word`: a term with a known key
//! compares that field, any other word is looked for in the entry's sentence, in either case. What is not understood is refused
//! (P10): a search that silently ignores a term shows too much, and one that takes it for a word shows too little.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use thiserror::Error;

use super::entry::Entry;
use super::event::Event;
use super::replay::policy_of;
use crate::identity::Actor;
use crate::name::{Account, HostName, PersonName, RequestPrefix, Serial};
use crate::time::{Lifetime, Timestamp};

/// The keys that terms can have, for messages and manuals.
pub const KEYS: [&str; 9] = ["person", "host", "account", "request", "kind", "serial", "policy", "since", "until"];

/// A parsed search expression; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Person(PersonName),
    Host(HostName),
    Account(Account),
    Request(RequestPrefix),
    Kind(&'static str),
    Serial(Serial),
    Policy(u32),
    Since(Timestamp),
    Until(Timestamp),
    Word(String),
}

/// A term that is not understood: what, and what would be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("search term {term:?}: {why}")]
pub struct SearchError {
    /// The term as given.
    pub term: String,
    /// What is wrong with it.
    pub why: String,
}

impl Search {
    /// Parses an expression; times may be relative to `now`: `since:2h` is two hours ago.
    ///
    /// # Errors
    /// [`SearchError`] for an unknown key or a value that can't be one.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, SearchError> {
        let terms: Result<Vec<Term>, SearchError> =
            text.split_whitespace().map(|word| Term::parse(word, now)).collect();
        terms.map(|terms| Self { terms })
    }

    /// Whether all terms hold.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        self.terms.iter().all(|term| term.matches(entry))
    }
}

impl Term {
    fn parse(term: &str, now: Timestamp) -> Result<Self, SearchError> {
        let wrong = |why: String| SearchError { term: term.chars().take(64).collect(), why };
        let Some((key, value)) = term.split_once(':') else { return Ok(Self::Word(term.to_lowercase())) };
        let parsed = match key {
            "person" => PersonName::parse(value).map(Self::Person),
            "host" => HostName::parse(value).map(Self::Host),
            "account" => Account::parse(value).map(Self::Account),
            "request" => RequestPrefix::parse(value).map(Self::Request),
            "kind" => {
                let known = Event::KINDS.iter().find(|kind| **kind == value);
                return known
                    .map(|kind| Self::Kind(kind))
                    .ok_or_else(|| wrong(format!("the kinds are {}", Event::KINDS.join(", "))));
            }
            "serial" => {
                let number = value.parse().map_err(|_| wrong("a serial is a number".to_owned()))?;
                Serial::new(number).map(Self::Serial)
            }
            "policy" => {
                return value.parse().map(Self::Policy).map_err(|_| wrong("a policy version is a number".to_owned()));
            }
            "since" => return moment(value, now).map(Self::Since).map_err(wrong),
            "until" => return moment(value, now).map(Self::Until).map_err(wrong),
            other => return Err(wrong(format!("the key {other:?} is not known; known are {}", KEYS.join(", ")))),
        };
        parsed.map_err(|why| wrong(why.to_string()))
    }

    fn matches(&self, entry: &Entry) -> bool {
        let event = &entry.event;
        match self {
            Self::Person(person) => people(event).contains(person),
            Self::Host(host) => hosts(event).contains(&host),
            Self::Account(account) => account_of(event) == Some(account),
            Self::Request(prefix) => event.request().is_some_and(|id| id.digits().starts_with(prefix.as_str())),
            Self::Kind(kind) => event.kind() == *kind,
            Self::Serial(serial) => serial_of(event) == Some(*serial),
            Self::Policy(number) => policy_of(event).is_some_and(|policy| policy.0 == *number),
            Self::Since(since) => entry.at >= *since,
            Self::Until(until) => entry.at < *until,
            Self::Word(word) => event.sentence().to_lowercase().contains(word),
        }
    }
}

/// A moment: RFC 3339, a day in UTC, or so long ago.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let day = || Timestamp::parse(&format!("{text}T00:00:00Z")).ok();
    let ago = || Lifetime::parse(text).ok().and_then(|ago| now.minus(ago).ok());
    Timestamp::parse(text)
        .ok()
        .or_else(day)
        .or_else(ago)
        .ok_or_else(|| "a time is like 2026-01-05T10:00:00Z, 2026-01-05, or 2h (ago)".to_owned())
}

/// Everybody whom an event names.
pub(super) fn people(event: &Event) -> BTreeSet<&PersonName> {
    match event {
        Event::PolicyApplied { by: Actor::Person(person), .. }
        | Event::LoggedIn { person, .. }
        | Event::BrowserSignedIn { person, .. }
        | Event::LoggedOut { person }
        | Event::Refused { person, .. }
        | Event::Asked { person, .. }
        | Event::CertificateToBeSigned { person, .. }
        | Event::CertificateRefused { person, .. }
        | Event::ExtensionAsked { person, .. }
        | Event::Narrowed { by: person, .. }
        | Event::Approved { by: person, .. }
        | Event::Denied { by: person, .. }
        | Event::Withdrawn { by: person, .. }
        | Event::CaStepProposed { by: person, .. }
        | Event::Ended { by: person, .. }
        | Event::LogRecovered { by: person, .. } => BTreeSet::from([person]),
        Event::Host(event) => event.person().into_iter().collect(),
        Event::CaKeysChanged { by, proposer, .. } => by.person().into_iter().chain(proposer).collect(),
        Event::Granted { approvers, .. } => approvers.iter().collect(),
        Event::LogStarted { .. }
        | Event::ServiceStarted { .. }
        | Event::PolicyApplied { by: Actor::System(_), .. }
        | Event::Lapsed { .. }
        | Event::CertificateSigned { .. }
        | Event::Expired { .. }
        | Event::EntryLost { .. } => BTreeSet::new(),
    }
}

/// The hosts that an event names.
pub(super) fn hosts(event: &Event) -> Vec<&HostName> {
    if let Event::Host(event) = event {
        event.host().into_iter().collect()
    } else if let Event::CaKeysChanged { unproven: hosts, .. }
    | Event::Refused { hosts, .. }
    | Event::Asked { hosts, .. }
    | Event::Narrowed { hosts, .. } = event
    {
        hosts.iter().collect()
    } else if let Event::CaStepProposed { proposal, .. } = event {
        proposal.accepted.iter().collect()
    } else {
        Vec::new()
    }
}

const fn account_of(event: &Event) -> Option<&Account> {
    if let Event::Refused { account, .. } | Event::Asked { account, .. } = event { Some(account) } else { None }
}

pub(super) fn serial_of(event: &Event) -> Option<Serial> {
    if let Event::Host(event) = event {
        event.serial()
    } else if let Event::CertificateToBeSigned { serial, .. } | Event::CertificateSigned { serial, .. } = event {
        Some(*serial)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-05T12:00:00Z").unwrap()
    }

    fn refused() -> Entry {
        let event = Event::Refused {
            person: PersonName::parse("alice").unwrap(),
            hosts: BTreeSet::from([HostName::parse("web-1").unwrap()]),
            account: Account::parse("root").unwrap(),
            reason: "Disk full".to_owned(),
            why: vec!["no rule".to_owned()],
            policy: crate::name::PolicyVersion(3),
        };
        Entry { index: 4, at: Timestamp::parse("2026-01-05T10:00:00Z").unwrap(), event }
    }

    #[test]
    fn an_entry_is_found_when_all_terms_hold() {
        for (text, is_found) in [
            ("", true),
            ("person:alice host:web-1 account:root kind:refused policy:3 disk FULL", true),
            ("since:2h until:2026-01-06", true),
            ("since:2026-01-05T10:00:01Z", false),
            ("until:2026-01-05T10:00:00Z", false),
            ("person:alice host:web-2", false),
            ("person:bob", false),
            ("request:7", false),
            ("serial:4", false),
            ("memory", false),
        ] {
            assert_eq!(Search::parse(text, now()).unwrap().matches(&refused()), is_found, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        for (text, why) in [
            ("who:alice", "known are person, host"),
            ("kind:refuse", "log_started"),
            ("serial:x", "a number"),
            ("serial:0", "not a serial"),
            ("since:yesterday", "2h (ago)"),
            ("person:Alice", "not a person"),
        ] {
            let error = Search::parse(text, now()).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}
