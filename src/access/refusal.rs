//! Why a command on a request is refused: one arm per thing a caller can do about it.
//!
//! Every arm's text says what, why and what next, and is safe to show to whoever may see the request. Free text of
//! people is quoted with escapes.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use thiserror::Error;

use super::State;
use crate::identity::approval::SignatureRefusal;
use crate::name::{Digest, PersonName, PolicyVersion};
use crate::policy::Verdict;
use crate::time::Timestamp;

/// Why a command is refused; nothing was changed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Policy refuses it now.
    #[error("the policy in force (version {version}) refuses this now")]
    Policy {
        /// Its version.
        version: PolicyVersion,
        /// The verdict with its reasons.
        verdict: Box<Verdict>,
    },
    /// Policy would now give other terms than those approved, or asked to be approved.
    #[error("the policy in force (version {version}) no longer gives these terms: {what}; ask again")]
    PolicyChanged {
        /// Its version.
        version: PolicyVersion,
        /// What differs.
        what: &'static str,
    },
    /// Those who approved don't suffice any more, under the policy and directory now in force.
    #[error("the approvals no longer meet what the policy in force (version {version}) asks for; ask again")]
    QuorumNoLongerMet {
        /// Its version.
        version: PolicyVersion,
    },
    /// The asker would decide their own request.
    #[error("{asker} asked for it: nobody decides their own request; somebody else must, or withdraw it")]
    OwnRequest {
        /// Who asked.
        asker: PersonName,
    },
    /// Somebody else than the asker.
    #[error("{asker} asked for it: only they may {act}")]
    NotTheirs {
        /// Who asked.
        asker: PersonName,
        /// What was wanted: `withdraw it`.
        act: &'static str,
    },
    /// Not among those who may decide.
    #[error("{person} is not among those who may decide this (policy version {version})")]
    NotEligible {
        /// Who tried.
        person: PersonName,
        /// The policy in force.
        version: PolicyVersion,
    },
    /// Only signed approvals of this person count.
    #[error(
        "the policy in force (version {version}) wants {person} to sign the approval with a login key: approve with `hallpass approve`, without --unsigned"
    )]
    SignatureNeeded {
        /// Who tried.
        person: PersonName,
        /// The policy in force.
        version: PolicyVersion,
    },
    /// The signature that came with an approval does not count.
    #[error("the approval's signature does not count: {why}")]
    SignatureRefused {
        /// Why not.
        why: SignatureRefusal,
    },
    /// The approver saw something else than what waits now.
    #[error("it has changed since it was shown, and approvals start anew: look again, then approve {now}")]
    DigestChanged {
        /// The digest now.
        now: Digest,
    },
    /// A repeated approval; harmless.
    #[error("{by} has approved this already; nothing more to do")]
    AlreadyApproved {
        /// Who.
        by: PersonName,
    },
    /// Nobody has decided yet.
    #[error("it still waits for approval; wait until it is decided")]
    Undecided,
    /// Granted, but its window has not begun: until then an end, a changed policy or a changed directory must still
    /// be able to stop it, and nothing can take back a certificate that was handed out.
    #[error("its window begins at {from}: fetch the certificate then")]
    NotYet {
        /// The first second of the window.
        from: Timestamp,
    },
    /// The state does not fit the command.
    #[error("it is {state}: {why}")]
    WrongState {
        /// The state's word.
        state: &'static str,
        /// Why that doesn't fit, and what would.
        why: String,
    },
    /// Nothing can be done with it any more.
    #[error("it is over: {how}; to get access, ask again")]
    Over {
        /// The state's word.
        state: &'static str,
        /// How it ended.
        how: String,
    },
    /// A tick when nothing is due.
    #[error("nothing is due")]
    NothingDue,
    /// An approver may only take away.
    #[error("an approver may only take away: {what}")]
    WouldWiden {
        /// What would be more than asked.
        what: String,
    },
    /// The command makes no sense by itself.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it, and what would be right.
        what: &'static str,
    },
}

/// What kind of no it is, for those who map it to statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// This person may not; another may.
    Forbidden,
    /// Not in this state; the caller should look again.
    Conflict,
    /// The policy in force says no.
    Policy,
    /// The command itself is wrong.
    Invalid,
}

impl Refusal {
    /// What kind of no it is.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::Policy { .. } | Self::PolicyChanged { .. } | Self::QuorumNoLongerMet { .. } => RefusalKind::Policy,
            Self::OwnRequest { .. }
            | Self::NotTheirs { .. }
            | Self::NotEligible { .. }
            | Self::SignatureNeeded { .. }
            | Self::SignatureRefused { .. } => RefusalKind::Forbidden,
            Self::DigestChanged { .. }
            | Self::AlreadyApproved { .. }
            | Self::Undecided
            | Self::NotYet { .. }
            | Self::WrongState { .. }
            | Self::Over { .. }
            | Self::NothingDue => RefusalKind::Conflict,
            Self::WouldWiden { .. } | Self::Invalid { .. } => RefusalKind::Invalid,
        }
    }

    /// The arm's word: stable, for machines and tables.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "policy_refuses",
            Self::PolicyChanged { .. } => "policy_changed",
            Self::QuorumNoLongerMet { .. } => "quorum_no_longer_met",
            Self::OwnRequest { .. } => "own_request",
            Self::NotTheirs { .. } => "not_theirs",
            Self::NotEligible { .. } => "not_eligible",
            Self::SignatureNeeded { .. } => "signature_needed",
            Self::SignatureRefused { .. } => "signature_refused",
            Self::DigestChanged { .. } => "digest_changed",
            Self::AlreadyApproved { .. } => "already_approved",
            Self::Undecided => "undecided",
            Self::NotYet { .. } => "not_yet",
            Self::WrongState { .. } => "wrong_state",
            Self::Over { .. } => "over",
            Self::NothingDue => "nothing_due",
            Self::WouldWiden { .. } => "would_widen",
            Self::Invalid { .. } => "invalid",
        }
    }

    /// The refusal of every command in a state that nothing leaves.
    pub(super) fn over(state: &State) -> Self {
        let how = match state {
            State::Denied { by, reason } => format!("{by} denied it, saying {reason:?}"),
            State::Withdrawn => "its asker withdrew it".to_owned(),
            State::Lapsed => "nobody decided it in time, it lapsed".to_owned(),
            State::Ended { by, at, .. } => format!("{by} ended it at {at}"),
            State::Expired => "its window has passed, it expired".to_owned(),
            State::Pending { .. } | State::Approved | State::Issued => format!("it is {}", state.word()),
        };
        Self::Over { state: state.word(), how }
    }
}
