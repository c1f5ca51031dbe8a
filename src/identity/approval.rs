//! Approvals that are signed statements: what an approver's own key says, and when it counts.
//!
//! What for: whoever holds the service's keys can write what they like into a log, but not sign in an approver's name. The
//! [`Statement`] is text that a person can read, made anew by everybody who looks at it: by the client out of what was shown, by the
//! service out of the request as it stands, and years later by an auditor out of the log alone. It names everything that ends
//! up in the certificate, after narrowing, so that nothing else can be issued on its strength (P4).
//!
//! What not: who may approve and how many must (`policy`, `access`); and whether a key was somebody's at that time, which a log
//! does not know: compare the key with the policy's text, or with a list of your own.
//!
//! Invariants: SSHSIG under a namespace of its own, so that neither a login nor a signed file is an approval; one fact a line, free
//! text quoted, so that no two statements share a text; a signature counts for [`FRESH`] around its own time only, and for
//! the digest that waited then.
//!
//! *Why both facts and digest?* The digest covers what has no line of its own (policy version, when it was asked) and makes each
//! state of a request different. The facts are what a person means, and what an auditor compares the certificate with.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use thiserror::Error;

use super::Directory;
use crate::name::{Account, Digest, HostName, PersonName, Principal, RequestId};
use crate::ssh::cert::Extension;
use crate::ssh::sig::{APPROVAL_NAMESPACE, SigError, SshSignature};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Lifetime, Timestamp};

/// How far the time of signing may be from the service's clock: ten minutes, our own choice. Time to touch a key, and for a
/// clock that nobody looks after.
pub const FRESH: Lifetime = Lifetime::minutes(10);

/// The longest server URL in a signature. Our own choice; a host name has at most 253 bytes.
const SERVER_BYTES_MAX: usize = 400;

/// What an approver agrees to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Who approves.
    pub approver: PersonName,
    /// The request.
    pub request: RequestId,
    /// The digest that they saw, before they narrowed anything.
    pub digest: Digest,
    /// For an extension: the end that moves on by `lifetime`.
    pub extends: Option<Timestamp>,
    /// Who gets access.
    pub person: PersonName,
    /// With which key.
    pub key: Fingerprint,
    /// As whom.
    pub account: Account,
    /// Where, after narrowing.
    pub hosts: BTreeSet<HostName>,
    /// The principals of these hosts.
    pub principals: BTreeSet<Principal>,
    /// For how long, after narrowing.
    pub lifetime: Lifetime,
    /// How much earlier than its approval the window begins.
    pub backdate: Lifetime,
    /// From when, if a start was asked for.
    pub start: Option<Timestamp>,
    /// The certificate's extensions, after narrowing.
    pub permits: BTreeSet<Extension>,
    /// The forced command.
    pub command: Option<String>,
    /// The only source addresses; none: any.
    pub sources: BTreeSet<String>,
    /// Whether a security key must check a PIN or finger.
    pub verify_required: bool,
    /// Why it was asked for; of an extension its own reason, perhaps empty.
    pub reason: String,
    /// The ticket.
    pub ticket: Option<String>,
    /// The approver's remark.
    pub comment: String,
}

/// An approver's signature on a [`Statement`], with what of it the request does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    server: String,
    key: PublicKey,
    signed: Timestamp,
    sshsig: SshSignature,
}

/// Why a signed approval does not count.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignatureRefusal {
    /// A server name that no statement can hold.
    #[error("it names no server")]
    Server,
    /// Signed too long ago, or in the future.
    #[error(
        "it was signed at {signed} and it is {now} here; a signature counts for {FRESH} around its time: look at your clock, and approve again"
    )]
    Stale {
        /// When it was signed, by the signer's clock.
        signed: Timestamp,
        /// The service's time.
        now: Timestamp,
    },
    /// A CA or log key.
    #[error("a signing key of the service approves nothing")]
    ServiceKey,
    /// Not a login key of the approver.
    #[error("{key} is not among the login keys that the policy in force lists for {approver}")]
    NotTheirs {
        /// The key.
        key: Fingerprint,
        /// Who would approve.
        approver: PersonName,
    },
    /// The signature does not fit this statement.
    #[error("it does not fit what would be approved now ({0}); look again, and approve again")]
    Wrong(#[from] SigError),
}

impl Statement {
    /// The text that is signed. `server` is the public URL as the approver was told to use it, without a final slash; `signed` is the
    /// approver's clock.
    #[must_use]
    pub fn text(&self, server: &str, signed: Timestamp) -> String {
        let Self { approver, request, digest, extends, person, key, account, hosts, principals, .. } = self;
        let Self { lifetime, backdate, start, permits, command, sources, verify_required, .. } = self;
        let Self { reason, ticket, comment, .. } = self;
        let or = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
        let lines = [
            ("server", server.to_owned()),
            ("signed", signed.to_string()),
            ("approver", approver.to_string()),
            ("request", request.to_string()),
            ("digest", digest.to_string()),
            ("person", person.to_string()),
            ("key", key.to_string()),
            ("account", account.to_string()),
            ("hosts", list(hosts)),
            ("principals", list(principals)),
            ("extends", or(extends.map(|end| end.to_string()), "nothing")),
            ("seconds", lifetime.seconds().to_string()),
            ("start", or(start.map(|start| start.to_string()), "at approval")),
            ("backdate", backdate.seconds().to_string()),
            ("permits", list(permits.iter().map(|extension| extension.key()))),
            ("command", or(command.as_deref().map(quoted), "any")),
            ("sources", if sources.is_empty() { "any".to_owned() } else { list(sources) }),
            ("verify-required", if *verify_required { "yes" } else { "no" }.to_owned()),
            ("reason", quoted(reason)),
            ("ticket", or(ticket.as_deref().map(quoted), "none")),
            ("comment", quoted(comment)),
        ];
        let lines: Vec<String> = lines.into_iter().map(|(what, fact)| format!("{what}: {fact}\n")).collect();
        format!("hallpass approval v1\n{}", lines.concat())
    }
}

/// Sorted as text, so that a reader in another language can make it.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: BTreeSet<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_owned() } else { items.into_iter().collect::<Vec<_>>().join(", ") }
}

/// Free text on one line: `\`, `"` and control characters escaped. Our own rule and not Rust's, which follows Unicode's tables.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Signature {
    /// A signature as received or logged; not yet checked.
    ///
    /// # Errors
    /// [`SignatureRefusal::Server`] for a server name with blanks, control characters or more than 400 bytes.
    pub fn new(
        server: String,
        key: PublicKey,
        signed: Timestamp,
        sshsig: SshSignature,
    ) -> Result<Self, SignatureRefusal> {
        let is_name = (1..=SERVER_BYTES_MAX).contains(&server.len()) && server.bytes().all(|b| b.is_ascii_graphic());
        if is_name { Ok(Self { server, key, signed, sshsig }) } else { Err(SignatureRefusal::Server) }
    }

    /// The server that the approver meant.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The key that signed.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// When, by the approver's clock.
    #[must_use]
    pub const fn signed(&self) -> Timestamp {
        self.signed
    }

    /// The SSHSIG.
    #[must_use]
    pub const fn sshsig(&self) -> &SshSignature {
        &self.sshsig
    }

    /// Whether the key signed this statement; whose key it is, and when, is not looked at.
    ///
    /// # Errors
    /// [`SigError`] with the reason.
    pub fn verify(&self, statement: &Statement) -> Result<(), SigError> {
        let text = statement.text(&self.server, self.signed);
        self.sshsig.check(&self.key, APPROVAL_NAMESPACE, text.as_bytes())
    }

    /// Checks it as of `now`: the approver's own login key signed exactly this, just now. Gives the key.
    ///
    /// # Errors
    /// [`SignatureRefusal`] with the reason.
    pub fn check(
        &self,
        statement: &Statement,
        directory: &Directory,
        service_keys: &BTreeSet<Fingerprint>,
        now: Timestamp,
    ) -> Result<Fingerprint, SignatureRefusal> {
        let apart = now.seconds_since(self.signed).max(self.signed.seconds_since(now));
        if apart > u64::from(FRESH.seconds()) {
            return Err(SignatureRefusal::Stale { signed: self.signed, now });
        }
        let key = self.key.fingerprint();
        if service_keys.contains(&key) {
            return Err(SignatureRefusal::ServiceKey);
        }
        let approver = &statement.approver;
        if !directory.person(approver).is_some_and(|person| person.keys.contains(&self.key)) {
            return Err(SignatureRefusal::NotTheirs { key, approver: approver.clone() });
        }
        self.verify(statement)?;
        Ok(key)
    }
}
