//! The digest that approvals bind to: SHA-256 over everything that ends up in the certificate (P4, I-3).
//!
//! What for: an approver names the digest of what they saw. Change anything in it, and earlier approvals are worth
//! nothing. The database can't be edited into another certificate either: rows are checked against it when read.
//!
//! What not: what nobody approves (the longest time policy would have given, when it lapses).
//!
//! The hashed bytes are a version tag, then each field in a fixed order as `length ‖ bytes`, with `length` in 8 bytes
//! big endian; lists and options start with their count in the same form. So no two different requests share them.
//!
//! | Request, `hallpass request v1` | Extension, `hallpass extension v1` |
//! |---|---|
//! | id, asker, key in wire form, account | the request's digest |
//! | hosts with their principals | number of the grant it adds |
//! | lifetime, backdate, start (if asked) | present end, seconds added |
//! | forced command, source addresses, verify-required, extensions | reason, when asked |
//! | reason, ticket, when asked, policy version | policy version |
//! | the CA, if it has a name | |
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use sha2::{Digest as _, Sha256};

use super::Parts;
use crate::name::{Digest, PolicyVersion};
use crate::time::{Lifetime, Timestamp};

/// The digest of a request, or of its waiting extension.
#[must_use]
pub fn digest(parts: &Parts) -> Digest {
    match &parts.extension {
        Some(e) => of_extension(parts, e.lifetime, &e.reason, e.asked, e.policy),
        None => of_request(parts),
    }
}

/// The digest of the request itself, whatever else waits.
#[must_use]
pub fn of_request(parts: &Parts) -> Digest {
    let terms = &parts.terms;
    let mut fields = Fields::new("hallpass request v1");
    fields.text(parts.id.digits());
    fields.text(parts.asker.as_str());
    fields.bytes(parts.key.blob());
    fields.text(terms.account.as_str());
    fields.count(terms.hosts.len());
    for (host, principal) in &terms.hosts {
        fields.text(host.as_str());
        fields.text(principal.as_str());
    }
    fields.number(terms.lifetime.seconds().into());
    fields.number(terms.backdate.seconds().into());
    fields.count(parts.start.iter().len());
    if let Some(start) = parts.start {
        fields.number(start.unix());
    }
    let options = &terms.options;
    fields.option(options.force_command.as_ref().map(crate::ssh::cert::ForceCommand::as_str));
    fields.count(options.source_addresses.len());
    for net in &options.source_addresses {
        fields.text(&net.to_string());
    }
    fields.number(options.verify_required.into());
    fields.count(options.permits.len());
    for extension in &options.permits {
        fields.text(extension.name());
    }
    fields.text(&parts.reason);
    fields.option(parts.ticket.as_deref());
    fields.number(parts.asked.unix());
    fields.number(parts.policy.0.into());
    // Behind everything: what was asked before there were names has the digest that it had.
    if let Some(ca) = terms.ca.named() {
        fields.text(ca.as_str());
    }
    fields.finish()
}

/// The digest of an extension of this request by `lifetime`: it takes up the request's own and its present end.
#[must_use]
pub(super) fn of_extension(
    parts: &Parts,
    lifetime: Lifetime,
    reason: &str,
    asked: Timestamp,
    policy: PolicyVersion,
) -> Digest {
    let mut fields = Fields::new("hallpass extension v1");
    fields.bytes(of_request(parts).bytes());
    fields.count(parts.grants.len());
    fields.number(parts.grants.last().map_or(0, |grant| grant.window.end().unix()));
    fields.number(lifetime.seconds().into());
    fields.text(reason);
    fields.number(asked.unix());
    fields.number(policy.0.into());
    fields.finish()
}

/// Feeds fields to the hash, each with its length.
struct Fields(Sha256);

impl Fields {
    fn new(tag: &str) -> Self {
        let mut fields = Self(Sha256::new());
        fields.text(tag);
        fields
    }

    fn count(&mut self, count: usize) {
        // No list here can be longer than its bytes in memory, so it fits; the fallback keeps this total.
        self.0.update(u64::try_from(count).unwrap_or(u64::MAX).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn option(&mut self, text: Option<&str>) {
        self.count(text.iter().len());
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    fn finish(self) -> Digest {
        Digest::new(self.0.finalize().into())
    }
}
