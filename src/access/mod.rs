//! The life of an access request: states, commands, one step function, and the permit that issuing needs.
//!
//! What for: every change of a request is [`open`] or [`step()`], pure functions that return the next request together with
//! what goes into the log, or a [`Refusal`] with nothing changed. The store writes both in one transaction.
//!
//! What not: no clock, no randomness, no storing, no signing. Who is calling is proven before (`identity`), what policy
//! says is asked here, by the step itself, about this request and at its own `now` (P6): no caller can bring a verdict on
//! another question.
//!
//! ```text
//!            ┌─ refuse ─▶ (no request)
//! ask ─policy┼─ allow ──▶ approved ──certify──▶ issued ──window over──▶ expired
//!            └─ ask ────▶ pending ─quorum─▶ approved │ │ ▲
//!                          │ │ │              │ │    │ └─┘ extend: new approvals, new grant, new certificate
//!                          │ │ │              │ │    └─ end ─▶ ended
//!                          │ │ │              │ └─ end ─▶ ended     window over ─▶ expired
//!                          │ │ └ withdraw ────┴─▶ withdrawn
//!                          │ └ deny ──▶ denied
//!                          └ decide_by passes ──▶ lapsed      cut (entries of the log are lost) ─▶ lapsed or ended
//! ```
//!
//! The whole table, state by command, is `tests/lifecycle/transitions.txt`; a test makes it anew from this code.
//!
//! Invariants: a certificate's validity is its grant's window to the second (P1); one grant yields one certificate (P3);
//! approvals bind to a digest of everything that ends up in it (P4), and a signed one names it in the approver's own words
//! ([`crate::identity::approval`]); the asker is never among the approvers, narrowing
//! never widens (P5); whoever approved must still count, under the policy then in force, when the quorum is reached and
//! again when the certificate is made (P6, I-6); nothing leaves a terminal state (I-12), so nothing is certified after a
//! denial, a withdrawal or an end (I-11).
//!
//! Why is an overdue request settled by any command, not only by `Tick`? Because the clock's tick may come late: a
//! decision one second after `decide_by` must not depend on whether it has come.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod decide;
pub mod digest;
mod logged;
mod parts;
mod permit;
mod question;
mod refusal;
mod statement;
pub mod step;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::audit::event::Event;
use crate::identity::Proven;
use crate::identity::approval::{Signature, Statement};
use crate::name::{Digest, HostName, PersonName, PolicyVersion, RequestId, Serial};
use crate::policy::{Approvals, Policy, Question, Quorum, Terms};
use crate::ssh::cert::{Extension, TbsCert};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp, Window};
pub use permit::Permit;
pub use refusal::{Refusal, RefusalKind};
pub use step::{Step, open, step};

/// Somebody asks to reach hosts as an account for a while. Private fields: only [`open`], [`step()`] and the store's
/// row conversion (through [`Parts`]) make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest(Parts);

/// Everything an access request holds, for the store to write and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Its id.
    pub id: RequestId,
    /// Who asked.
    pub asker: PersonName,
    /// The public key to be certified.
    pub key: PublicKey,
    /// Why.
    pub reason: String,
    /// The ticket.
    pub ticket: Option<String>,
    /// When it was asked.
    pub asked: Timestamp,
    /// The policy version that answered.
    pub policy: PolicyVersion,
    /// From when, if a start was asked for.
    pub start: Option<Timestamp>,
    /// What may be got: as policy said, or as narrowed since. Approvals bind to these.
    pub terms: Terms,
    /// Who must agree, per the policy at asking; `None` when allowed at once.
    pub quorum: Option<Quorum>,
    /// Where it stands.
    pub state: State,
    /// Windows granted so far: the first, then one per extension. Empty while pending.
    pub grants: Vec<Grant>,
    /// An extension that waits for decisions; only in state `Issued`.
    pub extension: Option<Extending>,
}

/// Where a request stands. The names are the words of DESIGN section 3, the same in database, JSON and log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for approvals until `decide_by`.
    Pending {
        /// Approvals of the present digest so far.
        approvals: Approvals,
        /// The first second it is too late.
        decide_by: Timestamp,
    },
    /// May be certified; the last grant has no certificate yet.
    Approved,
    /// A certificate was logged and made.
    Issued,
    /// Somebody said no.
    Denied {
        /// Who.
        by: PersonName,
        /// Why.
        reason: String,
    },
    /// The asker took it back.
    Withdrawn,
    /// Nobody decided in time.
    Lapsed,
    /// Given back or ended before its time.
    Ended {
        /// By whom.
        by: PersonName,
        /// Why.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// Its window is over.
    Expired,
}

/// One approved window and, once fetched, its one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the certificate's validity is, to the second.
    pub window: Window,
    /// When it was approved; the window starts up to the terms' backdating earlier.
    pub approved: Timestamp,
    /// Who approved it (empty when policy allowed it at once).
    pub approvers: Approvals,
    /// The digest they approved.
    pub digest: Digest,
    /// The certificate's log entry and its to-be-signed bytes, once it is on its way.
    pub certificate: Option<Certified>,
}

/// A certificate that has its log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its serial: the index of that entry.
    pub serial: Serial,
    /// Exactly the bytes signed.
    pub tbs: TbsCert,
}

/// An extension that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extending {
    /// Seconds to be added to the end.
    pub lifetime: Lifetime,
    /// Why; empty means for the request's own reason.
    pub reason: String,
    /// When it was asked.
    pub asked: Timestamp,
    /// The first second it is too late.
    pub decide_by: Timestamp,
    /// Policy version that answered.
    pub policy: PolicyVersion,
    /// Who must agree.
    pub quorum: Quorum,
    /// Approvals of this extension's digest so far.
    pub approvals: Approvals,
}

/// What an approver may take away. Empty means: as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// A shorter time.
    pub lifetime: Option<Lifetime>,
    /// Only these hosts.
    pub only: Option<BTreeSet<HostName>>,
    /// Without these extensions.
    pub without: BTreeSet<Extension>,
}

/// An approver's own signature, and the keys that must not have made it.
#[derive(Clone, Debug)]
pub struct Signed {
    /// As received.
    pub signature: Signature,
    /// CA and log keys of the service.
    pub service_keys: BTreeSet<Fingerprint>,
}

/// What somebody wants done with a request. Service code makes them after authentication and policy evaluation.
#[derive(Clone, Debug)]
pub enum Command {
    /// Approve what `digest` names (the request, or its waiting extension), perhaps narrowed.
    Approve {
        /// By whom.
        by: Proven,
        /// The digest that they saw.
        digest: Digest,
        /// What they take away.
        narrow: Narrowing,
        /// A remark.
        comment: String,
        /// Their own signature on it, if they signed.
        signed: Option<Box<Signed>>,
        /// Policy at this moment.
        check: Check,
    },
    /// Say no to the request, or to its waiting extension.
    Deny {
        /// By whom.
        by: Proven,
        /// Why; never empty.
        reason: String,
        /// Policy at this moment.
        check: Check,
    },
    /// Take it back before it was decided or issued; or take a waiting extension back.
    Withdraw {
        /// The asker.
        by: Proven,
    },
    /// Time passes: lapse what was not decided, expire what is over.
    Tick,
    /// Hand out the certificate of the current grant.
    Certify {
        /// The asker.
        by: Proven,
        /// Policy at this moment.
        check: Check,
    },
    /// More time for an issued request whose last certificate was fetched.
    Extend {
        /// The asker.
        by: Proven,
        /// How much more.
        lifetime: Lifetime,
        /// Why; empty means for the request's own reason.
        reason: String,
        /// Policy at this moment.
        check: Check,
    },
    /// Give it back, or end it for somebody else.
    End {
        /// By whom.
        by: Proven,
        /// Whether `by` operates the service; else only the asker may.
        is_operator: bool,
        /// Why; may be empty for the asker.
        reason: String,
    },
    /// It is over for a reason outside of it: entries of the log are lost, in which it may have been denied, ended or certified; or its certificate is by
    /// a CA key that was compromised. It only ever takes access away, and so needs no proof of who gives it.
    Cut {
        /// By whom, as they say.
        by: PersonName,
        /// Why.
        reason: String,
    },
}

/// The policy in force at this moment; the step puts its question to it (P6).
#[derive(Clone, Debug)]
pub struct Check {
    /// The version in force.
    pub version: PolicyVersion,
    /// Its rules, and its directory: who is in which group now.
    pub policy: Arc<Policy>,
}

impl AccessRequest {
    /// All of it, to read and to store.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.0
    }

    /// The request that these stored parts make.
    ///
    /// # Errors
    /// When the parts contradict each other (`what`): a row that was damaged or is of another version.
    pub fn from_parts(parts: Parts) -> Result<Self, &'static str> {
        parts::check(&parts)?;
        Ok(Self(parts))
    }

    /// Whether it is what the log says of it; `events` are all that are about it, in their order.
    ///
    /// # Errors
    /// What the log says otherwise: somebody else wrote the row.
    pub fn check_logged(&self, events: &[Event]) -> Result<(), &'static str> {
        logged::check(&self.0, events)
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> RequestId {
        self.0.id
    }

    /// Whether somebody is still to decide: on the request, or on its extension.
    #[must_use]
    pub const fn waits(&self) -> bool {
        matches!(self.0.state, State::Pending { .. }) || self.0.extension.is_some()
    }

    /// The digest an approver must name now: of the request, or of its extension while one waits.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest::digest(&self.0)
    }

    /// The current grant: the last one.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.0.grants.last()
    }

    /// The question that a decision on this request is about, put at `now`: the waiting extension if there is one, else
    /// the request as it was asked or narrowed. [`step()`] puts it itself; this is for showing.
    #[must_use]
    pub fn question(&self, now: Timestamp) -> Question {
        question::waiting(&self.0, now)
    }

    /// Who must agree to what waits here, by the policy in force at `now`; `None` if nothing waits or the policy now
    /// refuses it. The same that [`step()`] counts approvals against.
    #[must_use]
    pub fn quorum(&self, policy: &Policy, now: Timestamp) -> Option<Quorum> {
        question::quorum_in_force(&self.0, policy, now)
    }

    /// Whether this person may decide what waits here, by the policy in force at `now`: eligible and not the asker.
    #[must_use]
    pub fn may_decide(&self, person: &PersonName, policy: &Policy, now: Timestamp) -> bool {
        *person != self.0.asker
            && self.quorum(policy, now).is_some_and(|quorum| quorum.is_eligible(person, policy.directory()))
    }

    /// What an approver of what waits signs, when they take nothing away. For those who sign; [`step()`] makes it itself.
    #[must_use]
    pub fn statement(&self, approver: &PersonName, comment: &str) -> Statement {
        statement::of(&self.0, approver, self.digest(), comment)
    }

    /// When `Tick` would next change it, if ever: the lapse of what waits, or the window's end.
    #[must_use]
    pub fn next_tick(&self) -> Option<Timestamp> {
        match &self.0.state {
            State::Pending { decide_by, .. } => Some(*decide_by),
            State::Approved | State::Issued => {
                let lapse = self.0.extension.as_ref().map(|extension| extension.decide_by);
                let end = self.grant().map(|grant| grant.window.end());
                lapse.into_iter().chain(end).min()
            }
            State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => None,
        }
    }
}

impl State {
    /// `pending`, `approved`, `issued`, `denied`, `withdrawn`, `lapsed`, `ended`, `expired`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Approved => "approved",
            Self::Issued => "issued",
            Self::Denied { .. } => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Lapsed => "lapsed",
            Self::Ended { .. } => "ended",
            Self::Expired => "expired",
        }
    }
}
