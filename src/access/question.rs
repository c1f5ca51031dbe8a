//! What a request asks of the policy in force, and whether its terms are still within what that policy gives.
//!
//! What for: policy is asked when a request is made, approved and certified (P6). Each time the question is made here, out
//! of the request as it stands then, so that it is always about exactly what would be certified.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use ipnet::IpNet;

use super::{Check, Parts, Refusal, State};
use crate::name::PolicyVersion;
use crate::policy::{Outcome, Policy, Question, Quorum, Terms};
use crate::ssh::cert::Options;
use crate::time::{Lifetime, Timestamp};

/// About what waits: the extension if there is one, else the request.
pub(super) fn waiting(parts: &Parts, now: Timestamp) -> Question {
    match &parts.extension {
        Some(extension) => extended(parts, extension.lifetime, &extension.reason, now),
        None => first(parts, now),
    }
}

/// About more time. An empty reason stands for the request's own.
pub(super) fn extended(parts: &Parts, lifetime: Lifetime, reason: &str, now: Timestamp) -> Question {
    let held = parts.grants.last().map_or(Lifetime::ZERO, |grant| held_until(parts, grant.window.end()));
    let reason = if reason.is_empty() { &parts.reason } else { reason };
    Question { lifetime: Some(lifetime), held, reason: reason.to_owned(), ..first(parts, now) }
}

/// About the last grant, which is to be certified now.
pub(super) fn granted(parts: &Parts, now: Timestamp) -> Question {
    match parts.grants.as_slice() {
        [.., before, last] => {
            let lifetime = span(before.window.end(), last.window.end());
            Question { lifetime: Some(lifetime), held: held_until(parts, before.window.end()), ..first(parts, now) }
        }
        [] | [_] => first(parts, now),
    }
}

/// About the request itself, as asked or narrowed.
fn first(parts: &Parts, now: Timestamp) -> Question {
    Question {
        person: parts.asker.clone(),
        hosts: parts.terms.hosts.keys().cloned().collect(),
        account: parts.terms.account.clone(),
        lifetime: Some(parts.terms.lifetime),
        held: Lifetime::ZERO,
        // A start that has passed means from now on.
        start: parts.start.filter(|start| *start > now),
        reason: parts.reason.clone(),
        ticket: parts.ticket.clone(),
        at: now,
    }
}

/// How long the person will have held this by `end`, counted from the first approval or the later start asked for:
/// what policy's `total` limits. Backdating does not count, it gives no more time.
fn held_until(parts: &Parts, end: Timestamp) -> Lifetime {
    parts.grants.first().map_or(Lifetime::ZERO, |grant| span(grant.approved.max(grant.window.start()), end))
}

/// The time between two moments; the longest lifetime if it is longer still, so that no limit is passed by it.
fn span(from: Timestamp, to: Timestamp) -> Lifetime {
    let seconds = u32::try_from(to.seconds_since(from)).unwrap_or(u32::MAX);
    Lifetime::from_seconds(seconds).unwrap_or(Lifetime::minutes(u32::MAX))
}

/// Puts the question: terms, and who must agree (`None` when it would be allowed at once).
pub(super) fn ask(check: &Check, question: &Question) -> Result<(Terms, Option<Quorum>), Refusal> {
    let verdict = check.policy.evaluate(question);
    match &verdict.outcome {
        Outcome::Allow(terms) => Ok((terms.clone(), None)),
        Outcome::Ask(terms, quorum) => Ok((terms.clone(), Some(quorum.clone()))),
        Outcome::Refuse(_) => Err(Refusal::Policy { version: check.version, verdict: Box::new(verdict) }),
    }
}

/// The quorum of what waits as it was when asked.
pub(super) fn quorum_as_asked(parts: &Parts) -> Option<&Quorum> {
    match &parts.state {
        State::Pending { .. } => parts.quorum.as_ref(),
        State::Issued => parts.extension.as_ref().map(|extension| &extension.quorum),
        State::Approved
        | State::Denied { .. }
        | State::Withdrawn
        | State::Lapsed
        | State::Ended { .. }
        | State::Expired => None,
    }
}

/// The quorum that approvals of what waits are counted against. Where the policy in force would allow it at once by now,
/// the quorum as asked stays: what people were asked to decide is not decided by a change of policy alone.
pub(super) fn quorum_in_force(parts: &Parts, policy: &Policy, now: Timestamp) -> Option<Quorum> {
    let as_asked = quorum_as_asked(parts)?;
    match policy.evaluate(&waiting(parts, now)).outcome {
        Outcome::Allow(_) => Some(as_asked.clone()),
        Outcome::Ask(_, quorum) => Some(quorum),
        Outcome::Refuse(_) => None,
    }
}

/// Whether `terms` give nothing that `given`, the policy's terms now, would not give. `lifetime` is the time in question.
pub(super) fn within(terms: &Terms, lifetime: Lifetime, given: &Terms, version: PolicyVersion) -> Result<(), Refusal> {
    let what = if terms.hosts.iter().any(|(host, principal)| given.hosts.get(host) != Some(principal)) {
        "the hosts or their principals differ"
    } else if terms.ca != given.ca {
        "the hosts are of another CA"
    } else if terms.account != given.account {
        "the account differs"
    } else if lifetime > given.lifetime_max {
        "the time is longer than it allows"
    } else if terms.backdate > given.backdate {
        "the window would start earlier"
    } else if let Some(option) = option_beyond(&terms.options, &given.options) {
        option
    } else {
        return Ok(());
    };
    Err(Refusal::PolicyChanged { version, what })
}

/// The first option by which `options` give more than `given`.
fn option_beyond(options: &Options, given: &Options) -> Option<&'static str> {
    let inside = |net: &IpNet| given.source_addresses.iter().any(|outer| outer.contains(net));
    let anywhere = options.source_addresses.is_empty();
    if given.force_command.is_some() && options.force_command != given.force_command {
        Some("it forces another command")
    } else if !given.source_addresses.is_empty() && (anywhere || !options.source_addresses.iter().all(inside)) {
        Some("it allows fewer source addresses")
    } else if given.verify_required && !options.verify_required {
        Some("it requires the security key's own check of its user")
    } else if !options.permits.is_subset(&given.permits) {
        Some("it allows fewer of the certificate's extensions")
    } else {
        None
    }
}
