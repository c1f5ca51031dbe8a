//! Who people are: persons, groups, actors, and the proof that a person has just been authenticated.
//!
//! What for: everything above asks "who is this, and how do we know?" here. A [`Proven`] exists only because a login
//! answer ([`challenge`]) or a live session ([`session`]) was checked against the directory in force. What a person signs of
//! their own when they approve is an [`approval`]. Browsers are let in by a session ([`browser`]); hosts show who they are with their
//! own keys ([`host`]).
//!
//! What not: who may do what (`policy`), and storing or looking up of sessions (`store`, `service`).
//!
//! Invariants: one name per person, the same everywhere, so that nobody approves their own request under another
//! spelling (I-15); rights are read from the directory at each use, never from a token.

pub mod approval;
pub mod browser;
pub mod challenge;
pub mod host;
pub mod mac;
pub mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::name::{GroupName, NameError, PersonName};
use crate::ssh::{Fingerprint, PublicKey};

/// A human in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their one name.
    pub name: PersonName,
    /// Their groups.
    pub groups: BTreeSet<GroupName>,
    /// Keys they log in with.
    pub keys: Vec<PublicKey>,
}

/// The people we know; today the policy's `[[person]]` tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    people: BTreeMap<PersonName, Person>,
    /// Whose login key it is: no two people have the same (the policy parser refuses that).
    holders: BTreeMap<PublicKey, PersonName>,
    /// Who is in each group.
    members: BTreeMap<GroupName, BTreeSet<PersonName>>,
}

impl Directory {
    /// A directory of these people; a later one of the same name replaces the earlier (the policy parser refuses that).
    #[must_use]
    pub fn new(people: impl IntoIterator<Item = Person>) -> Self {
        let people: BTreeMap<PersonName, Person> = people.into_iter().map(|p| (p.name.clone(), p)).collect();
        let keys = people.values().flat_map(|person| person.keys.iter().map(|key| (key.clone(), person.name.clone())));
        let holders = keys.collect();
        let mut members: BTreeMap<GroupName, BTreeSet<PersonName>> = BTreeMap::new();
        for person in people.values() {
            for group in &person.groups {
                members.entry(group.clone()).or_default().insert(person.name.clone());
            }
        }
        Self { people, holders, members }
    }

    /// The person of this name.
    #[must_use]
    pub fn person(&self, name: &PersonName) -> Option<&Person> {
        self.people.get(name)
    }

    /// Whether this is a login key of this person now.
    #[must_use]
    pub fn lists(&self, name: &PersonName, key: Fingerprint) -> bool {
        self.person(name).is_some_and(|person| person.keys.iter().any(|listed| listed.fingerprint() == key))
    }

    /// The login keys that this directory lists and `next` does not, each with its person.
    pub fn lost_to<'d>(&'d self, next: &'d Self) -> impl Iterator<Item = (&'d PersonName, Fingerprint)> {
        let lost = self.holders.iter().filter(|(key, holder)| next.holder(key) != Some(holder));
        lost.map(|(key, holder)| (holder, key.fingerprint()))
    }

    /// Whose login key this is.
    #[must_use]
    pub fn holder(&self, key: &PublicKey) -> Option<&PersonName> {
        self.holders.get(key)
    }

    /// Who is in this group, by name. Costs nothing for who is not.
    pub fn members(&self, group: &GroupName) -> impl Iterator<Item = &PersonName> {
        self.members.get(group).into_iter().flatten()
    }

    /// Everybody, by name.
    pub fn people(&self) -> impl Iterator<Item = &Person> {
        self.people.values()
    }
}

/// Whoever does something: a person, or a named part of the system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A person.
    Person(PersonName),
    /// A part of the service.
    System(Part),
}

/// The parts of the service that do things by themselves. A closed list, so that a log entry reads back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Time passing: lapse, expiry.
    Clock,
    /// Certificates.
    Issuer,
    /// The first start, or a restart.
    Start,
    /// An operator's signal on the machine (SIGHUP after editing the policy file).
    Signal,
    /// What the configuration wants done every so often.
    Schedule,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Clock, Self::Issuer, Self::Start, Self::Signal, Self::Schedule];

    /// `clock`, `issuer`, `start`, `signal`, `schedule`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Issuer => "issuer",
            Self::Start => "start",
            Self::Signal => "signal",
            Self::Schedule => "schedule",
        }
    }
}

impl Actor {
    /// Parses what `Display` writes.
    ///
    /// # Errors
    /// For another kind of actor, an unknown part, or a bad name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            kind: "an actor",
            given: text.chars().take(64).collect(),
            rule: "person:NAME, or system: and one of clock, issuer, start, signal, schedule",
        };
        if let Some(name) = text.strip_prefix("person:") {
            return PersonName::parse(name).map(Self::Person);
        }
        let part = text.strip_prefix("system:").ok_or_else(wrong)?;
        Part::ALL.into_iter().find(|p| p.word() == part).map(Self::System).ok_or_else(wrong)
    }
}

impl fmt::Display for Actor {
    /// `person:alice@example.com` or `system:clock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person(name) => write!(f, "person:{name}"),
            Self::System(part) => write!(f, "system:{}", part.word()),
        }
    }
}

/// Evidence that a person has just been authenticated (by a login answer or a live session) and is still in the
/// directory. Only this folder makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    person: PersonName,
    groups: BTreeSet<GroupName>,
    key: Fingerprint,
}

impl Proven {
    /// Private to this folder: its two checks are the only callers.
    fn of(person: &Person, key: Fingerprint) -> Self {
        Self { person: person.name.clone(), groups: person.groups.clone(), key }
    }

    /// Who.
    #[must_use]
    pub const fn person(&self) -> &PersonName {
        &self.person
    }

    /// Their groups at the moment of proof.
    #[must_use]
    pub const fn groups(&self) -> &BTreeSet<GroupName> {
        &self.groups
    }

    /// The login key that proved it.
    #[must_use]
    pub const fn key(&self) -> Fingerprint {
        self.key
    }

    /// As an actor.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Person(self.person.clone())
    }
}
