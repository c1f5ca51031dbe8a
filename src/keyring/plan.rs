//! How CA keys move while the service runs: one step of a rotation, as moves of keys, each with its why. Pure.
//!
//! | Step | Moves | Refused |
//! |---|---|---|
//! | `start` | a new key to `staged` | while another key is `draining` |
//! | `switch` | the `staged` key to `active`, the `active` one to `draining` | while a host does not prove that its sshd takes the new one |
//! | `finish` | the `draining` key to `retired` | while a certificate of it lasts |
//! | `abort` | before the switch the `staged` key to `retired`, after it both keys back | when nothing has begun |
//! | `compromise` | the lost key to `compromised`; if it was the active one, a key that hosts know already to `active` | with no such key |
//!
//! Invariants: after each step one key is active. No key becomes active that a host does not provably trust, unless the host was named
//! (I-21) or the active key is lost; none ceases to be trusted while a certificate by it lasts, unless it is lost (I-22). What was
//! compromised moves no more.
//!
//! What not: no log and no clock of its own; who may do it, and what hosts prove, the caller knows.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::{Ring, RingError, RingKey, forget};
use crate::name::HostName;
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// A step of a rotation of the user CA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Hosts begin to learn a key.
    Start,
    /// It signs from now on.
    Switch,
    /// The old one is trusted no longer.
    Finish,
    /// Back to what was.
    Abort,
    /// A key is lost or stolen.
    Compromise,
}

/// What a step goes by.
#[derive(Clone, Debug)]
pub struct Facts<'f> {
    /// The keys whose backend this service has, in the order of the configuration.
    pub held: &'f [PublicKey],
    /// The key that is meant; without one, the only one that fits.
    pub key: Option<Fingerprint>,
    /// For each staged or draining key, the hosts that do not prove that they trust it, and why not.
    pub unproven: &'f BTreeMap<Fingerprint, BTreeMap<HostName, String>>,
    /// Hosts that may be locked out.
    pub accepted: &'f BTreeSet<HostName>,
    /// When the last certificate for people by a key ends.
    pub last_end: &'f BTreeMap<Fingerprint, Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// A key gets another state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The key.
    pub key: PublicKey,
    /// Its state before; none when it is new.
    pub from: Option<KeyState>,
    /// Its state from now on.
    pub to: KeyState,
    /// Why.
    pub why: String,
}

/// What a step comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What moves.
    pub moves: Vec<Move>,
    /// Hosts that do not prove that they trust the key that signs from now on.
    pub unproven: BTreeSet<HostName>,
}

/// Why a step can't be taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Blocked {
    /// No key is left to begin with.
    #[error("no further key is configured; add a [[ca.user.next]] to the configuration, and start the service again")]
    NoKey,
    /// A key is `staged` or `draining` already.
    #[error("a rotation is under way: {0} is {1}")]
    UnderWay(Fingerprint, KeyState),
    /// No key is in the state that the step is for.
    #[error("no key that this service can use is {0}")]
    None(KeyState),
    /// More than one is.
    #[error("more than one key is {0}; say which")]
    Several(KeyState),
    /// The key that was named does not fit.
    #[error("{0} is not a key for this: {1}")]
    NotThat(Fingerprint, String),
    /// Hosts that would be locked out.
    #[error("{} hosts do not prove that they trust {key}", hosts.len())]
    Unproven {
        /// The key.
        key: Fingerprint,
        /// They, and why not.
        hosts: BTreeMap<HostName, String>,
    },
    /// Certificates that would be cut off.
    #[error("certificates by {key} last until {until}")]
    Certificates {
        /// The key.
        key: Fingerprint,
        /// The end of the last one.
        until: Timestamp,
    },
    /// There is nothing to go back to.
    #[error("no rotation is under way")]
    NothingBegun,
    /// The active key is lost, and no other can take over.
    #[error(
        "no other key that hosts know can take over; configure a new key in place of the lost one, and start the service again"
    )]
    NoSuccessor,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Start, Self::Switch, Self::Finish, Self::Abort, Self::Compromise];

    /// `start`, `switch`, `finish`, `abort` or `compromise`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Switch => "switch",
            Self::Finish => "finish",
            Self::Abort => "abort",
            Self::Compromise => "compromise",
        }
    }

    /// The step of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.word() == word)
    }
}

/// What a step comes to on this ring.
///
/// # Errors
/// [`Blocked`].
pub fn plan(ring: &Ring, step: Step, facts: &Facts<'_>) -> Result<Plan, Blocked> {
    let planner = Planner { ring, facts };
    match step {
        Step::Start => planner.start(),
        Step::Switch => planner.switch(),
        Step::Finish => planner.finish(),
        Step::Abort => planner.abort(),
        Step::Compromise => planner.compromise(),
    }
}

/// The ring after these moves.
///
/// # Errors
/// [`RingError`]; a plan for this ring fails only where there are too many keys.
pub fn apply(ring: &Ring, moves: &[Move], now: Timestamp) -> Result<Ring, RingError> {
    let to = |key: &PublicKey| moves.iter().find(|one| one.key == *key).map(|one| one.to);
    let mut keys: Vec<RingKey> =
        ring.keys().iter().map(|known| known.moved(to(&known.key).unwrap_or(known.state), now)).collect();
    for Move { key, to, .. } in moves.iter().filter(|one| ring.known(&one.key).is_none()) {
        keys.push(RingKey { purpose: Purpose::User, key: key.clone(), state: *to, since: now });
    }
    Ring::new(forget(keys))
}

struct Planner<'p> {
    ring: &'p Ring,
    facts: &'p Facts<'p>,
}

impl<'p> Planner<'p> {
    /// Keys for people in this state.
    fn in_state(&self, state: KeyState) -> impl Iterator<Item = &'p PublicKey> {
        let users = self.ring.keys().iter().filter(|known| known.purpose == Purpose::User);
        users.filter(move |known| known.state == state).map(|known| &known.key)
    }

    fn held_in(&self, state: KeyState) -> Vec<&'p PublicKey> {
        self.in_state(state).filter(|key| self.facts.held.contains(key)).collect()
    }

    /// The held key in this state that is meant.
    fn the(&self, state: KeyState) -> Result<&'p PublicKey, Blocked> {
        let all = self.held_in(state);
        let wanted = self.facts.key;
        match (all.as_slice(), wanted) {
            (_, Some(wanted)) => {
                let found = all.iter().find(|key| key.fingerprint() == wanted).copied();
                found.ok_or_else(|| Blocked::NotThat(wanted, format!("it is not {state}, or not configured")))
            }
            ([], None) => Err(Blocked::None(state)),
            ([one], None) => Ok(one),
            (_, None) => Err(Blocked::Several(state)),
        }
    }

    fn to(&self, key: &PublicKey, to: KeyState, why: impl Into<String>) -> Move {
        Move { key: key.clone(), from: self.ring.known(key).map(|known| known.state), to, why: why.into() }
    }

    /// Nothing new begins before the old is over.
    fn check_drained(&self) -> Result<(), Blocked> {
        match self.in_state(KeyState::Draining).next() {
            Some(key) => Err(Blocked::UnderWay(key.fingerprint(), KeyState::Draining)),
            None => Ok(()),
        }
    }

    fn unproven(&self, key: &PublicKey) -> BTreeMap<HostName, String> {
        self.facts.unproven.get(&key.fingerprint()).cloned().unwrap_or_default()
    }

    fn start(&self) -> Result<Plan, Blocked> {
        self.check_drained()?;
        let key = match self.facts.key {
            Some(wanted) => self.named(wanted)?,
            None => {
                // A key that waits in reserve has begun already; another one beside it is to be named.
                if let Some(staged) = self.held_in(KeyState::Staged).first() {
                    return Err(Blocked::UnderWay(staged.fingerprint(), KeyState::Staged));
                }
                self.facts.held.iter().find(|key| self.ring.known(key).is_none()).ok_or(Blocked::NoKey)?
            }
        };
        let moves = vec![self.to(key, KeyState::Staged, "hosts learn it before it signs")];
        Ok(Plan { moves, unproven: BTreeSet::new() })
    }

    /// A held key of this fingerprint that is new or retired.
    fn named(&self, wanted: Fingerprint) -> Result<&'p PublicKey, Blocked> {
        let not_that = |why: String| Blocked::NotThat(wanted, why);
        let held = self.facts.held.iter().find(|key| key.fingerprint() == wanted);
        let key = held.ok_or_else(|| not_that("it is not configured".to_owned()))?;
        match self.ring.known(key).map(|known| known.state) {
            None | Some(KeyState::Retired) => Ok(key),
            Some(state @ (KeyState::Staged | KeyState::Active | KeyState::Draining | KeyState::Compromised)) => {
                Err(not_that(format!("it is {state}")))
            }
        }
    }

    fn switch(&self) -> Result<Plan, Blocked> {
        self.check_drained()?;
        let key = self.the(KeyState::Staged)?;
        let (accepted, missing): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.unproven(key).into_iter().partition(|(host, _)| self.facts.accepted.contains(host));
        if !missing.is_empty() {
            return Err(Blocked::Unproven { key: key.fingerprint(), hosts: missing });
        }
        let why = if accepted.is_empty() {
            "every enrolled host proves that it trusts it".to_owned()
        } else {
            format!("every enrolled host but {} proves that it trusts it", accepted.len())
        };
        let mut moves = vec![self.to(key, KeyState::Active, why)];
        let old = self.in_state(KeyState::Active);
        moves.extend(old.map(|old| self.to(old, KeyState::Draining, "what it signed opens hosts to its end")));
        Ok(Plan { moves, unproven: accepted.into_keys().collect() })
    }

    fn finish(&self) -> Result<Plan, Blocked> {
        let key = self.the(KeyState::Draining)?;
        let last = self.facts.last_end.get(&key.fingerprint()).copied();
        if let Some(until) = last.filter(|until| self.facts.now < *until) {
            return Err(Blocked::Certificates { key: key.fingerprint(), until });
        }
        let moves = vec![self.to(key, KeyState::Retired, "its last certificate has ended")];
        Ok(Plan { moves, unproven: BTreeSet::new() })
    }

    fn abort(&self) -> Result<Plan, Blocked> {
        if !self.held_in(KeyState::Draining).is_empty() {
            // It never left the bundle, so whoever trusted it still does.
            let old = self.the(KeyState::Draining)?;
            let new = self.in_state(KeyState::Active);
            let mut moves: Vec<Move> =
                new.map(|new| self.to(new, KeyState::Draining, "what it signed opens hosts to its end")).collect();
            moves.push(self.to(old, KeyState::Active, "the rotation was aborted after the switch"));
            return Ok(Plan { moves, unproven: BTreeSet::new() });
        }
        if self.held_in(KeyState::Staged).is_empty() {
            return Err(Blocked::NothingBegun);
        }
        let key = self.the(KeyState::Staged)?;
        let moves = vec![self.to(key, KeyState::Retired, "the rotation was aborted before the switch")];
        Ok(Plan { moves, unproven: BTreeSet::new() })
    }

    fn compromise(&self) -> Result<Plan, Blocked> {
        let wanted = self.facts.key.ok_or(Blocked::NothingBegun)?;
        let mut users = self.ring.keys().iter().filter(|known| known.purpose == Purpose::User);
        let known = users.find(|known| known.key.fingerprint() == wanted);
        let known = known.ok_or_else(|| Blocked::NotThat(wanted, "no such key was ever trusted".to_owned()))?;
        if known.state == KeyState::Compromised {
            return Err(Blocked::NotThat(wanted, "it is compromised already".to_owned()));
        }
        let mut moves = vec![self.to(&known.key, KeyState::Compromised, "it is lost or stolen")];
        if known.state != KeyState::Active {
            return Ok(Plan { moves, unproven: BTreeSet::new() });
        }
        let known_to_hosts = self.held_in(KeyState::Draining).into_iter().chain(self.held_in(KeyState::Staged));
        let successor = known_to_hosts.min_by_key(|key| self.unproven(key).len()).ok_or(Blocked::NoSuccessor)?;
        let unproven: BTreeSet<HostName> = self.unproven(successor).into_keys().collect();
        moves.push(self.to(successor, KeyState::Active, "it takes over from a key that is lost"));
        Ok(Plan { moves, unproven })
    }
}
