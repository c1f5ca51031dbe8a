//! The steps of a rotation, and the proposal of one that needs a second person.
//!
//! Invariant: what the second person carries out is to the letter what the first one proposed.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use super::Ca;
use crate::name::HostName;
use crate::ssh::Fingerprint;
use crate::time::Lifetime;

/// How long a proposal waits for a second person: an hour. Our own choice: two people who talk with each other.
pub const PROPOSAL_LIFETIME: Lifetime = Lifetime::minutes(60);

/// A step of a rotation of a CA key.
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

    /// Whether it needs a second person, where the policy wants two: all that a key's trust hangs on, and nothing that must be fast.
    #[must_use]
    pub const fn needs_two(self) -> bool {
        match self {
            Self::Switch | Self::Finish | Self::Abort => true,
            Self::Start | Self::Compromise => false,
        }
    }
}

/// A step as it was proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Which step.
    pub step: Step,
    /// Of which CA.
    pub ca: Ca,
    /// The key that was named, if one was.
    pub key: Option<Fingerprint>,
    /// Hosts that may be locked out.
    pub accepted: BTreeSet<HostName>,
    /// Whether a host key may sign before its time.
    pub is_early: bool,
}
