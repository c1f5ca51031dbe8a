//! What a host tells of itself, and what of it is news for the log.
//!
//! A host checks in every few minutes and mostly says the same. What it says is kept as it is; an entry is written only when
//! something changed that somebody would act on: what runs there, the guard, the CA keys, a clock that went wrong, risky settings.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use super::double::Runs;
use crate::audit::host_event::HostEvent;
use crate::name::{Digest, HostName};
use crate::ssh::Fingerprint;
use crate::time::Timestamp;

/// How far a host's clock may be off before it counts as wrong: ten seconds. Our own choice; backdating covers 30.
const CLOCK_OK_MS: u64 = 10_000;

/// A host that was silent for longer is stale: three check-ins of five minutes. Our own choice.
pub const STALE_AFTER_S: u64 = 15 * 60;

/// For how long what a host says is not written again while it says the same.
///
/// Every second check-in then is; and who has only read what is written takes the host for stale ten minutes after it was heard last in the worst
/// case, not [`STALE_AFTER_S`]: one check-in may still be lost. Our own choice.
pub const WRITTEN_FOR_S: u64 = 5 * 60;

/// What a host tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckIn {
    /// Version of hallpass.
    pub program: String,
    /// Version of sshd.
    pub sshd: String,
    /// The operating system.
    pub os: String,
    /// Whether the guard is armed.
    pub guard: bool,
    /// SHA-256 of the file of CA keys that sshd reads.
    pub file_sha256: Digest,
    /// The CA keys in it.
    pub keys: BTreeSet<Fingerprint>,
    /// Those with which a login to itself has worked.
    pub proven: BTreeSet<Fingerprint>,
    /// The CA keys by which its host certificates are.
    pub shows: BTreeSet<Fingerprint>,
    /// How far its clock is ahead, in milliseconds.
    pub clock_ms: i64,
    /// Settings that weaken what hallpass promises.
    pub risky: BTreeSet<String>,
    /// How many sessions are open.
    pub sessions: u64,
    /// The run of the machine that told it; the service adds those before it.
    pub runs: Runs,
}

/// What a host told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Timestamp,
    /// What.
    pub check_in: CheckIn,
}

/// How far a host follows the trust bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustState {
    /// A login to itself has worked with every key.
    Proven,
    /// Its sshd's file has every key.
    Delivered,
    /// A key is missing.
    Behind,
}

impl TrustState {
    /// `proven`, `delivered` or `behind`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Delivered => "delivered",
            Self::Behind => "behind",
        }
    }
}

impl CheckIn {
    /// How far it follows a bundle of these keys.
    #[must_use]
    pub fn trust(&self, bundle: &BTreeSet<Fingerprint>) -> TrustState {
        // No bundle is none that anybody could follow.
        if bundle.is_empty() || !self.keys.is_superset(bundle) {
            TrustState::Behind
        } else if self.proven.is_superset(bundle) {
            TrustState::Proven
        } else {
            TrustState::Delivered
        }
    }

    /// Whether its clock is near ours.
    #[must_use]
    pub const fn is_clock_ok(&self) -> bool {
        self.clock_ms.unsigned_abs() <= CLOCK_OK_MS
    }

    /// The entry to be written, if this is news after what the host said before.
    #[must_use]
    pub fn news(&self, host: &HostName, before: Option<&Self>) -> Option<HostEvent> {
        let now = self.event(host);
        if before.is_some_and(|before| before.event(host) == now) { None } else { Some(now) }
    }

    /// Whether this is what `before` said, but for how far the clock is off while that is right.
    #[must_use]
    pub fn says_the_same(&self, before: &Self) -> bool {
        self.is_clock_ok() == before.is_clock_ok() && *before == Self { clock_ms: before.clock_ms, ..self.clone() }
    }

    fn event(&self, host: &HostName) -> HostEvent {
        HostEvent::CheckInChanged {
            host: host.clone(),
            program: self.program.clone(),
            sshd: self.sshd.clone(),
            os: self.os.clone(),
            guard: self.guard,
            clock_ok: self.is_clock_ok(),
            file_sha256: self.file_sha256,
            keys: self.keys.clone(),
            proven: self.proven.clone(),
            risky: self.risky.clone(),
        }
    }
}

impl Seen {
    /// Whether this must be written down, after `before` was heard, which was written at `written` or says the same as what was.
    #[must_use]
    pub fn is_worth_a_row(&self, before: &Self, written: Timestamp) -> bool {
        // (a clock that was set back: what is written must not be of a time to come)
        self.at < written
            || self.at.seconds_since(written) >= WRITTEN_FOR_S
            || !self.check_in.says_the_same(&before.check_in)
    }

    /// Whether that is longer ago than a host in order lets pass.
    #[must_use]
    pub const fn is_stale(&self, now: Timestamp) -> bool {
        now.seconds_since(self.at) > STALE_AFTER_S
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a host in order could say.
    pub(crate) fn seen(seconds: u64, clock_ms: i64, sessions: u64) -> Seen {
        let check_in = CheckIn {
            program: "0.1.0".to_owned(),
            sshd: "OpenSSH_9.2p1".to_owned(),
            os: "Debian 12".to_owned(),
            guard: true,
            file_sha256: Digest::new([1; 32]),
            keys: BTreeSet::new(),
            proven: BTreeSet::new(),
            shows: BTreeSet::new(),
            clock_ms,
            risky: BTreeSet::new(),
            sessions,
            runs: Runs::default(),
        };
        Seen { at: Timestamp::from_unix(1_767_607_200_u64.saturating_add(seconds)).unwrap(), check_in }
    }

    #[test]
    fn what_is_written_is_never_taken_for_stale_while_the_host_is_in_order() {
        let first = seen(1_000, 0, 0);
        let worth = |now: Seen| now.is_worth_a_row(&first, first.at);
        assert!(!worth(seen(1_150, 9_000, 0)) && !worth(seen(1_299, -9_000, 0)));
        assert!(worth(seen(1_300, 0, 0)), "long enough");
        assert!(worth(seen(999, 0, 0)), "set back");
        assert!(worth(seen(1_001, 0, 1)) && worth(seen(1_001, 11_000, 0)), "something else");
        let wrong = seen(1_100, 11_000, 0);
        assert!(!seen(1_200, 12_000, 0).is_worth_a_row(&wrong, wrong.at));
        assert!(seen(1_200, 9_000, 0).is_worth_a_row(&wrong, wrong.at), "the clock is right again");
        // One that is not written, the next one, and one that is lost.
        const { assert!(WRITTEN_FOR_S + 2 * 5 * 60 <= STALE_AFTER_S) }
    }
}
