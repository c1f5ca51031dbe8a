//! How CA keys move while the service runs: one step of a rotation, as moves of keys, each with its why. Pure.
//!
//! | Step | Moves | Refused for a user key | Refused for a host key |
//! |---|---|---|---|
//! | `start` | a new key to `staged` | while another key is `draining` | the same |
//! | `switch` | the `staged` key to `active`, the `active` one to `draining` | while a host does not prove that its sshd takes the new one | before clients could fetch the new one for long enough |
//! | `finish` | the `draining` key to `retired` | while a certificate of it lasts | while a host has one of it |
//! | `abort` | before the switch the `staged` key to `retired`, after it both keys back | when nothing has begun | the same |
//! | `compromise` | the lost key to `compromised`; if it was the active one, a key that is trusted already to `active` | with no such key | the same |
//!
//! Clients prove nothing: nobody knows who they all are. So a host key is published for a while instead, and whoever does not wait says so.
//!
//! Invariants: a step moves keys of one CA alone; after each but `compromise` one of them is active. No user key becomes active that a host does not provably
//! trust, unless the host was named (I-21) or the active key is lost; none ceases to be trusted while a certificate by it lasts, unless it
//! is lost (I-22). What was compromised moves no more. If the only key is compromised, none signs: better nothing than what a thief has.
//!
//! What not: no log and no clock of its own; who may do it, and what hosts prove, the caller knows.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::step::Step;
use super::{Ca, Ring, RingError, RingKey, forget};
use crate::name::{HostName, PersonName};
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp};

/// What a step goes by.
#[derive(Clone, Debug)]
pub struct Facts<'f> {
    /// Keys of which CA.
    pub ca: Ca,
    /// The keys of that CA whose backend this service has, in the order of the configuration.
    pub held: &'f [PublicKey],
    /// Keys that the configuration lists as trusted: they are not dropped while it does.
    pub listed: &'f [PublicKey],
    /// The key that is meant; without one, the only one that fits.
    pub key: Option<Fingerprint>,
    /// For each staged or draining key, the hosts that do not prove that they trust it, and why not.
    pub unproven: &'f BTreeMap<Fingerprint, BTreeMap<HostName, String>>,
    /// Hosts that may be locked out.
    pub accepted: &'f BTreeSet<HostName>,
    /// When the last certificate for people by a key ends.
    pub last_end: &'f BTreeMap<Fingerprint, Timestamp>,
    /// For each draining host key, the hosts that have a certificate by it, and until when.
    pub shown: &'f BTreeMap<Fingerprint, BTreeMap<HostName, Timestamp>>,
    /// How long clients must have been able to fetch a host key before it signs.
    pub published: Lifetime,
    /// Whether a host key may sign before that.
    pub is_early: bool,
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
    /// Whether a host key signs before clients could fetch it for long enough.
    pub is_early: bool,
}

/// Why a step can't be taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Blocked {
    /// No key is left to begin with.
    #[error("no further key is configured; add a [[{table}.next]] to the configuration, and start the service again", table = .0.table())]
    NoKey(Ca),
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
    /// Hosts that would show a certificate that nobody trusts.
    #[error("{} hosts have a host certificate by {key}", hosts.len())]
    Shown {
        /// The key.
        key: Fingerprint,
        /// They, and until when.
        hosts: BTreeMap<HostName, Timestamp>,
    },
    /// Clients may not have fetched it yet.
    #[error("clients can fetch {key} only since {since}; it may sign from {until}")]
    Early {
        /// The key.
        key: Fingerprint,
        /// Since when it is published.
        since: Timestamp,
        /// From when on it may sign.
        until: Timestamp,
    },
    /// It was proposed by the same person, and a second one is needed.
    #[error("{by} proposed it; another operator must give the same command before {until}")]
    Waits {
        /// Who proposed it.
        by: PersonName,
        /// When it lapses.
        until: Timestamp,
    },
    /// There is nothing to go back to.
    #[error("no rotation is under way")]
    NothingBegun,
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

/// The ring after these moves of keys of one CA.
///
/// # Errors
/// [`RingError`]; a plan for this ring fails only where there are too many keys.
pub fn apply(ring: &Ring, ca: &Ca, moves: &[Move], now: Timestamp) -> Result<Ring, RingError> {
    let to = |key: &PublicKey| moves.iter().find(|one| one.key == *key).map(|one| one.to);
    let mut keys: Vec<RingKey> =
        ring.keys().iter().map(|known| known.moved(to(&known.key).unwrap_or(known.state), now)).collect();
    for Move { key, to, .. } in moves.iter().filter(|one| ring.known(&one.key).is_none()) {
        keys.push(RingKey { ca: ca.clone(), key: key.clone(), state: *to, since: now });
    }
    Ring::new(forget(keys))
}

struct Planner<'p> {
    ring: &'p Ring,
    facts: &'p Facts<'p>,
}

impl<'p> Planner<'p> {
    /// Keys of the CA in this state.
    fn in_state(&self, state: KeyState) -> impl Iterator<Item = &'p RingKey> {
        let ours = self.ring.keys().iter().filter(|known| known.ca == self.facts.ca);
        ours.filter(move |known| known.state == state)
    }

    fn held_in(&self, state: KeyState) -> Vec<&'p RingKey> {
        self.in_state(state).filter(|known| self.facts.held.contains(&known.key)).collect()
    }

    /// The held key in this state that is meant.
    fn the(&self, state: KeyState) -> Result<&'p RingKey, Blocked> {
        self.meant(&self.held_in(state), state, "it is not configured")
    }

    /// The one of these that is meant.
    fn meant(&self, all: &[&'p RingKey], state: KeyState, other: &str) -> Result<&'p RingKey, Blocked> {
        match (all, self.facts.key) {
            (_, Some(wanted)) => {
                let found = all.iter().find(|known| known.key.fingerprint() == wanted).copied();
                found.ok_or_else(|| Blocked::NotThat(wanted, format!("it is not {state}, or {other}")))
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
            Some(known) => Err(Blocked::UnderWay(known.key.fingerprint(), KeyState::Draining)),
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
                    return Err(Blocked::UnderWay(staged.key.fingerprint(), KeyState::Staged));
                }
                let new = self.facts.held.iter().find(|key| self.ring.known(key).is_none());
                new.ok_or(Blocked::NoKey(self.facts.ca.clone()))?
            }
        };
        let why = match self.facts.ca.purpose() {
            Purpose::User => "hosts learn it before it signs",
            Purpose::Host => "clients learn it before it signs",
        };
        Ok(Plan::of(vec![self.to(key, KeyState::Staged, why)]))
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
        let known = self.the(KeyState::Staged)?;
        let (why, unproven, is_early) = match self.facts.ca.purpose() {
            Purpose::User => {
                let (why, accepted) = self.may_open(&known.key)?;
                (why, accepted, false)
            }
            Purpose::Host => {
                let (why, is_early) = self.may_vouch(known)?;
                (why, BTreeSet::new(), is_early)
            }
        };
        let mut moves = vec![self.to(&known.key, KeyState::Active, why)];
        let old = self.in_state(KeyState::Active);
        moves.extend(old.map(|old| self.to(&old.key, KeyState::Draining, self.lasts())));
        Ok(Plan { moves, unproven, is_early })
    }

    /// Why a key that drains is trusted further.
    const fn lasts(&self) -> &'static str {
        match self.facts.ca.purpose() {
            Purpose::User => "what it signed opens hosts to its end",
            Purpose::Host => "what it signed vouches for hosts to its end",
        }
    }

    /// Why a key may sign for people, and the hosts that do not trust it and were given up.
    fn may_open(&self, key: &PublicKey) -> Result<(String, BTreeSet<HostName>), Blocked> {
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
        Ok((why, accepted.into_keys().collect()))
    }

    /// Why a key may sign for hosts, and whether that is before its time.
    fn may_vouch(&self, known: &RingKey) -> Result<(String, bool), Blocked> {
        let (published, since, now) = (self.facts.published, known.since, self.facts.now);
        if now.seconds_since(since) >= u64::from(published.seconds()) {
            return Ok((format!("clients could fetch it for {published}"), false));
        }
        if self.facts.is_early {
            return Ok((format!("it was said not to wait until clients could fetch it for {published}"), true));
        }
        // Only at the end of time is there none.
        let until = since.plus(published).unwrap_or(since);
        Err(Blocked::Early { key: known.key.fingerprint(), since, until })
    }

    fn finish(&self) -> Result<Plan, Blocked> {
        // Also one that is configured no longer: nobody need sign for that.
        let all: Vec<&RingKey> =
            self.in_state(KeyState::Draining).filter(|known| !self.facts.listed.contains(&known.key)).collect();
        let listed = format!("it is listed in [{}] trusted", self.facts.ca.table());
        let known = self.meant(&all, KeyState::Draining, &listed)?;
        let ca = known.key.fingerprint();
        if let Some(until) = self.facts.last_end.get(&ca).copied().filter(|until| self.facts.now < *until) {
            return Err(Blocked::Certificates { key: ca, until });
        }
        match self.facts.shown.get(&ca).filter(|hosts| !hosts.is_empty()) {
            Some(hosts) => Err(Blocked::Shown { key: ca, hosts: hosts.clone() }),
            None => Ok(Plan::of(vec![self.to(&known.key, KeyState::Retired, "its last certificate has ended")])),
        }
    }

    fn abort(&self) -> Result<Plan, Blocked> {
        if !self.held_in(KeyState::Draining).is_empty() {
            // It never ceased to be trusted, so whoever trusted it still does.
            let old = self.the(KeyState::Draining)?;
            let new = self.in_state(KeyState::Active);
            let mut moves: Vec<Move> = new.map(|new| self.to(&new.key, KeyState::Draining, self.lasts())).collect();
            moves.push(self.to(&old.key, KeyState::Active, "the rotation was aborted after the switch"));
            return Ok(Plan::of(moves));
        }
        if self.held_in(KeyState::Staged).is_empty() {
            return Err(Blocked::NothingBegun);
        }
        let known = self.the(KeyState::Staged)?;
        Ok(Plan::of(vec![self.to(&known.key, KeyState::Retired, "the rotation was aborted before the switch")]))
    }

    fn compromise(&self) -> Result<Plan, Blocked> {
        let wanted = self.facts.key.ok_or(Blocked::NothingBegun)?;
        let mut ours = self.ring.keys().iter().filter(|known| known.ca == self.facts.ca);
        let known = ours.find(|known| known.key.fingerprint() == wanted);
        let known = known.ok_or_else(|| Blocked::NotThat(wanted, "no such key was ever trusted".to_owned()))?;
        if known.state == KeyState::Compromised {
            return Err(Blocked::NotThat(wanted, "it is compromised already".to_owned()));
        }
        let mut moves = vec![self.to(&known.key, KeyState::Compromised, "it is lost or stolen")];
        let begun = self.held_in(KeyState::Draining).into_iter().chain(self.held_in(KeyState::Staged));
        let begun = begun.filter(|_| known.state == KeyState::Active);
        let Some(successor) = begun.min_by_key(|other| self.unproven(&other.key).len()) else {
            return Ok(Plan::of(moves));
        };
        let unproven: BTreeSet<HostName> = self.unproven(&successor.key).into_keys().collect();
        moves.push(self.to(&successor.key, KeyState::Active, "it takes over from a key that is lost"));
        Ok(Plan { moves, unproven, is_early: false })
    }
}

impl Plan {
    /// These moves, at nobody's expense.
    const fn of(moves: Vec<Move>) -> Self {
        Self { moves, unproven: BTreeSet::new(), is_early: false }
    }
}
