//! Why a service call did not succeed: a rule said no, or something broke.
//!
//! A rule's no is meant for the caller and carries its reasons. What broke is meant for the operator: it is traced
//! here, once, with its cause, and the caller learns only that it broke and whether to try again.

use crate::access::Refusal;
use crate::document::Problem;
use crate::inventory::enrol::EnrolRefusal;
use crate::policy::Verdict;
use crate::store::StoreError;
use crate::time::Timestamp;

/// The result of a service call.
pub type Outcome<T> = Result<T, Failure>;

/// Why not. `http/error.rs` maps each arm to status and code once.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No live session, or a refused login. 401.
    #[error("not logged in")]
    NotLoggedIn,
    /// A refused login; the caller learns nothing more. 401.
    #[error("login refused")]
    LoginRefused,
    /// Does not exist, or may not be seen by the caller. 404.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// May be seen, but not done by the caller; says by whom. 403.
    #[error("{0}")]
    Forbidden(String),
    /// Input that no state could make right; says what and what would be accepted. 422.
    #[error("{0}")]
    Invalid(String),
    /// Several accounts may be asked for, and none was named. 422.
    #[error("name the account, one of: {}", joined(.0))]
    Account(Vec<crate::name::Account>),
    /// A prefix fits several requests. 409.
    #[error("several requests start with this")]
    Ambiguous(Vec<crate::name::RequestId>),
    /// Policy refuses the question. 403 with kind-specific code.
    #[error("policy refuses")]
    Policy(Box<Verdict>),
    /// The request's state or the rules of the lifecycle refuse. 409 (403 for not being allowed).
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A limit is reached; says which. 429.
    #[error("{0}")]
    TooMany(String),
    /// A policy file with problems, or with failing tests. 422.
    #[error("the policy has problems")]
    BadPolicy {
        /// Problems of the text.
        problems: Vec<Problem>,
        /// Its own tests that fail.
        failed_tests: Vec<crate::policy::test::Tested>,
    },
    /// Somebody else changed it first, repeatedly, or the base version is not the newest. 409.
    #[error("{0}")]
    Conflict(String),
    /// A host may not join; it says why and what to do. 403, 409 or 422.
    #[error(transparent)]
    Enrol(#[from] EnrolRefusal),
    /// Something stands in the way of a rotation of the CA keys. 409.
    #[error(transparent)]
    Rotation(crate::keyring::plan::Blocked),
    /// A start would have a CA key sign that others do not trust.
    #[error("{0}")]
    Untrusted(Box<crate::service::key_start::Untrusted>),
    /// Can't be done now; try again. 503.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The clock was set by so many seconds while the service runs; nothing is written. 503.
    #[error("the service's clock was set by {0} s while it runs")]
    ClockLeapt(u64),
    /// Something broke; details are for the log only. 500.
    #[error("internal failure while {doing}: {why}")]
    Internal {
        /// What was attempted.
        doing: &'static str,
        /// The cause, for the log.
        why: String,
    },
}

impl Failure {
    /// Something that can only be our own fault or damage; traced here.
    pub(super) fn internal(doing: &'static str, why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        tracing::error!(doing, why, "internal failure");
        Self::Internal { doing, why }
    }

    /// The clock is behind the log's last entry; traced here.
    pub(super) fn behind(now: Timestamp, last: Timestamp) -> Self {
        tracing::error!(%now, %last, "the clock is behind the log; nothing is issued");
        let behind = last.seconds_since(now);
        Self::Unavailable(format!(
            "the service's clock is {behind} s behind its log ({now}, but the last entry is of {last}); set the clock"
        ))
    }

    /// Somebody else was faster, again and again.
    pub(super) fn contended() -> Self {
        Self::Conflict("others keep changing this at the same moment; try again".to_owned())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict | StoreError::Overtaken | StoreError::Superseded => Self::contended(),
            StoreError::Replayed => Self::LoginRefused,
            StoreError::Certificate(cause) => Self::internal("making the to-be-signed certificate", cause),
            StoreError::Damaged { .. } => Self::internal("reading the store", error),
            StoreError::Failed { doing, why } => {
                tracing::error!(doing, why, "the store failed");
                // What it was at names nothing; why may name files.
                Self::Unavailable(format!("the store failed at {doing}; the service's own log says why"))
            }
            StoreError::Clock(seconds) => Self::ClockLeapt(seconds),
            StoreError::Behind { now, last } => Self::behind(now, last),
            StoreError::Busy => {
                tracing::warn!("the store's queue is full");
                Self::Unavailable("too many changes are waiting for the disk".to_owned())
            }
        }
    }
}

fn joined(accounts: &[crate::name::Account]) -> String {
    accounts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
