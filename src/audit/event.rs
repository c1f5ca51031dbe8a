//! The closed list of events that can happen here; those about enrolled hosts are in `host_event`.
//!
//! The words are the same in log, API and pages. Adding one is a change of the log's format: old verifiers refuse it.

use std::collections::{BTreeMap, BTreeSet};

use super::host_event::HostEvent;
use crate::identity::Actor;
use crate::identity::approval::Signature;
use crate::keyring::Ring;
use crate::keyring::step::{Proposal, Step};
use crate::name::{
    Account, CaName, Digest, HostName, NameError, PersonName, PolicyVersion, RequestId, RuleName, Serial,
};
use crate::ssh::Fingerprint;
use crate::ssh::cert::{Extension, Purpose};
use crate::time::{Lifetime, Timestamp, Window};

/// How policy answered a question that became a request (a refusal makes none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Allowed at once.
    Allow,
    /// Allowed once people agree.
    Ask,
}

impl Answer {
    /// `allow` or `ask`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
        }
    }
}

/// Whoever moves CA keys. A person is written by the name alone, as it was when there were only people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mover(pub Actor);

impl Mover {
    /// Parses what `Display` writes.
    ///
    /// # Errors
    /// For what is neither a person nor a part of the system.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("system:") {
            Some(_) => Actor::parse(text).map(Self),
            None => PersonName::parse(text).map(|name| Self(Actor::Person(name))),
        }
    }

    /// The person, if it is one.
    #[must_use]
    pub const fn person(&self) -> Option<&PersonName> {
        match &self.0 {
            Actor::Person(name) => Some(name),
            Actor::System(_) => None,
        }
    }
}

impl std::fmt::Display for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Actor::Person(name) => name.fmt(f),
            Actor::System(_) => self.0.fmt(f),
        }
    }
}

/// Since when a trust bundle is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Its version: the index of the entry that changed it.
    pub version: u64,
    /// When that was.
    pub since: Timestamp,
}

/// User CAs whose trust bundle an entry leaves as it is.
pub type Kept = BTreeMap<CaName, Stand>;

/// What happened. `kind()` words are the snake case of the arms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Entry 0: the log begins.
    LogStarted {
        /// The service's id (random, for life) and public URL.
        service: String,
        /// The log key that signs checkpoints: signed-note verifier key text.
        log_key: String,
    },
    /// The service began to run, with which CA key.
    ServiceStarted {
        /// The active user CA key.
        ca: Fingerprint,
        /// The program's version.
        version: String,
        /// All CA keys from now on, if this start changed them. Added to the format later. The index of the newest entry with such a
        /// member is the version of the trust bundle.
        keys: Option<Ring>,
        /// The user CAs whose keys hosts trust as before, with the version that their trust bundle keeps; of all others it is this entry.
        /// Added to the format later, and not there as long as the default CA is the only one.
        kept: Option<Kept>,
    },
    /// The CA keys are others from now on: a step of a rotation was taken, or a key was lost.
    CaKeysChanged {
        /// Who.
        by: Mover,
        /// Which step.
        step: Step,
        /// One sentence for each key that moved, and the reason that was given.
        why: Vec<String>,
        /// Enrolled hosts that do not prove that they trust the key that signs from now on, and were accepted.
        unproven: BTreeSet<HostName>,
        /// All CA keys from now on. The index of the entry is the version of the trust bundle.
        keys: Ring,
        /// What the keys that moved are for; user certificates if it is not there. Added to the format later, as what follows.
        purpose: Option<Purpose>,
        /// Whether a host key signs before clients could fetch it for long enough; no if it is not there.
        early: Option<bool>,
        /// Who proposed it, where two people are needed.
        proposer: Option<PersonName>,
        /// The user CA of the keys that moved, if it has a name.
        ca: Option<CaName>,
        /// As in [`Event::ServiceStarted`].
        kept: Option<Kept>,
    },
    /// Somebody proposes a step that needs a second person. The CA keys stay what they are.
    CaStepProposed {
        /// Who.
        by: PersonName,
        /// What exactly.
        proposal: Proposal,
        /// Why.
        reason: String,
        /// When it lapses.
        until: Timestamp,
        /// The version of the trust bundle, which stays what it is.
        version: u64,
        /// When that was written.
        since: Timestamp,
        /// All CA keys, so that the newest entry that says so is enough to know them and what is proposed.
        keys: Ring,
        /// The same of the trust bundles of user CAs with a name. Added to the format later.
        kept: Option<Kept>,
    },
    /// A policy version is in force.
    PolicyApplied {
        /// Who applied it.
        by: Actor,
        /// Its number.
        version: PolicyVersion,
        /// SHA-256 of its text, hex.
        sha256: String,
        /// How many of its own tests passed.
        tests: usize,
        /// Whether it was applied although people lose or gain access (count of differences).
        changes: usize,
    },
    /// A person logged in.
    LoggedIn {
        /// Who.
        person: PersonName,
        /// With which key.
        key: Fingerprint,
        /// From where.
        address: String,
        /// Until when.
        expires: Timestamp,
    },
    /// A person let a browser in, from a command line that was logged in.
    BrowserSignedIn {
        /// Who.
        person: PersonName,
        /// With which key that command line had logged in.
        key: Fingerprint,
        /// From where the browser came.
        address: String,
        /// Until when.
        expires: Timestamp,
    },
    /// A person logged out, or one of their browsers signed out.
    LoggedOut {
        /// Who.
        person: PersonName,
    },
    /// A request was refused by policy; there is no request.
    Refused {
        /// Who asked.
        person: PersonName,
        /// What.
        hosts: BTreeSet<HostName>,
        /// As whom.
        account: Account,
        /// Why they wanted it.
        reason: String,
        /// The sentences policy gave.
        why: Vec<String>,
        /// The policy that said so.
        policy: PolicyVersion,
    },
    /// A request was made; policy allowed or asks.
    Asked {
        /// The request.
        request: RequestId,
        /// By whom.
        person: PersonName,
        /// The key to be certified.
        key: Fingerprint,
        /// Hosts.
        hosts: BTreeSet<HostName>,
        /// Account.
        account: Account,
        /// For how long.
        lifetime: Lifetime,
        /// From when, if a start was asked for.
        start: Option<Timestamp>,
        /// How much earlier than its approval the window begins.
        backdate: Lifetime,
        /// Those of the hosts that are opened by the bare account as principal; the others by `account@host`.
        account_scope: BTreeSet<HostName>,
        /// The extensions that the certificate would have.
        permits: BTreeSet<Extension>,
        /// The forced command.
        command: Option<String>,
        /// The addresses from which it could be used; none: any.
        sources: BTreeSet<String>,
        /// Whether a security key must check a PIN or finger.
        verify_required: bool,
        /// Why.
        reason: String,
        /// Ticket.
        ticket: Option<String>,
        /// Rules that answered.
        rules: Vec<RuleName>,
        /// The policy that said so.
        policy: PolicyVersion,
        /// What approvals must name.
        digest: Digest,
        /// `allow` or `ask`.
        verdict: Answer,
        /// The user CA whose keys the hosts trust, if it has a name. Added to the format later.
        ca: Option<CaName>,
    },
    /// An approver took something away; earlier approvals no longer count.
    Narrowed {
        /// The request.
        request: RequestId,
        /// By whom.
        by: PersonName,
        /// The time now.
        lifetime: Lifetime,
        /// The hosts now.
        hosts: BTreeSet<HostName>,
        /// The extensions now.
        permits: BTreeSet<Extension>,
        /// The digest now.
        digest: Digest,
    },
    /// One person approved.
    Approved {
        /// The request.
        request: RequestId,
        /// By whom.
        by: PersonName,
        /// What they approved.
        digest: Digest,
        /// A remark.
        comment: String,
        /// The policy that let them.
        policy: PolicyVersion,
        /// Their own signature, if they signed. It was added to the format later: an approval without one has no such member.
        signature: Option<Signature>,
    },
    /// The quorum is met (or policy allowed it at once): this window is granted.
    Granted {
        /// The request.
        request: RequestId,
        /// All who approved.
        approvers: BTreeSet<PersonName>,
        /// The window.
        window: Window,
        /// The digest.
        digest: Digest,
        /// The policy that decided.
        policy: PolicyVersion,
    },
    /// Somebody said no to a request or to its extension.
    Denied {
        /// The request.
        request: RequestId,
        /// By whom.
        by: PersonName,
        /// Why.
        reason: String,
        /// Whether only the extension was denied.
        extension: bool,
    },
    /// The asker took it back (the request, or its waiting extension).
    Withdrawn {
        /// The request.
        request: RequestId,
        /// By whom.
        by: PersonName,
        /// Whether only the extension was taken back.
        extension: bool,
    },
    /// Nobody decided in time (the request, or its extension).
    Lapsed {
        /// The request.
        request: RequestId,
        /// Whether only the extension lapsed.
        extension: bool,
    },
    /// A certificate is about to be signed: exactly these bytes. Its serial is this entry's index.
    CertificateToBeSigned {
        /// The request.
        request: RequestId,
        /// For whom.
        person: PersonName,
        /// The serial.
        serial: Serial,
        /// The CA key.
        ca: Fingerprint,
        /// The window.
        window: Window,
        /// The to-be-signed bytes; base64 in JSON.
        tbs: Vec<u8>,
        /// The policy that let it (P6).
        policy: PolicyVersion,
    },
    /// It was signed, verified and may have been handed out.
    CertificateSigned {
        /// The request.
        request: RequestId,
        /// The serial.
        serial: Serial,
        /// SHA-256 of the finished certificate, hex.
        sha256: String,
    },
    /// A granted request was refused its certificate.
    CertificateRefused {
        /// The request.
        request: RequestId,
        /// To whom.
        person: PersonName,
        /// Why.
        why: String,
        /// The policy in force.
        policy: PolicyVersion,
    },
    /// More time was asked for.
    ExtensionAsked {
        /// The request.
        request: RequestId,
        /// By whom.
        person: PersonName,
        /// How much more.
        lifetime: Lifetime,
        /// Why.
        reason: String,
        /// The policy that answered.
        policy: PolicyVersion,
        /// What approvals must name.
        digest: Digest,
        /// `allow` or `ask`.
        verdict: Answer,
    },
    /// Access was given back or ended before its time.
    Ended {
        /// The request.
        request: RequestId,
        /// By whom.
        by: PersonName,
        /// Why.
        reason: String,
    },
    /// The window is over.
    Expired {
        /// The request.
        request: RequestId,
    },
    /// The entry that stood here is lost: an older copy of the database was put back. This one stands in its place, so that no serial is
    /// given twice.
    EntryLost {
        /// How many entries the log had, as far as is known.
        of: u64,
    },
    /// The log goes on from an older copy. What was open is over.
    LogRecovered {
        /// Who did it, by their own word: there is no login where this is done.
        by: PersonName,
        /// Why.
        reason: String,
        /// How many entries the copy had: those from here to this one are the lost ones.
        kept: u64,
        /// The signed checkpoints of the lost log, as far as somebody had them.
        heads: Vec<String>,
    },
    /// Something about enrolled hosts.
    Host(HostEvent),
}

impl Event {
    /// The CA keys from now on, if it says which they are.
    #[must_use]
    pub const fn ring(&self) -> Option<&Ring> {
        if let Self::CaKeysChanged { keys, .. } | Self::CaStepProposed { keys, .. } = self {
            Some(keys)
        } else if let Self::ServiceStarted { keys, .. } = self {
            keys.as_ref()
        } else {
            None
        }
    }
}

impl From<HostEvent> for Event {
    fn from(event: HostEvent) -> Self {
        Self::Host(event)
    }
}
