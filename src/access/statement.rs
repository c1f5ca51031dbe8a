//! What an approver signs, out of a request as it stands (after narrowing).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::Parts;
use crate::identity::approval::Statement;
use crate::name::{Digest, PersonName};
use crate::ssh::cert::ForceCommand;

/// The statement on what waits; `shown` is the digest before narrowing.
pub(super) fn of(parts: &Parts, approver: &PersonName, shown: Digest, comment: &str) -> Statement {
    let (terms, options, extension) = (&parts.terms, &parts.terms.options, parts.extension.as_ref());
    let end = parts.grants.last().map(|grant| grant.window.end());
    Statement {
        approver: approver.clone(),
        request: parts.id,
        digest: shown,
        extends: extension.and(end),
        person: parts.asker.clone(),
        key: parts.key.fingerprint(),
        account: terms.account.clone(),
        hosts: terms.hosts.keys().cloned().collect(),
        principals: terms.hosts.values().cloned().collect(),
        lifetime: extension.map_or(terms.lifetime, |extension| extension.lifetime),
        backdate: terms.backdate,
        start: parts.start,
        permits: options.permits.clone(),
        command: options.force_command.as_ref().map(ForceCommand::as_str).map(str::to_owned),
        sources: options.source_addresses.iter().map(ToString::to_string).collect(),
        verify_required: options.verify_required,
        reason: extension.map_or(&parts.reason, |extension| &extension.reason).clone(),
        ticket: parts.ticket.clone(),
        comment: comment.to_owned(),
    }
}
