//! People's decisions on what waits, the request or its extension: approve, perhaps narrowed, and deny.
//!
//! What for: who may decide is a matter of the policy and the directory in force at this moment, put to the question of
//! exactly what would then be granted, after narrowing (P4, P5, P6).
//!
//! Invariants: the asker decides nothing here (I-15); one person counts once; a narrowing that changes something drops
//! earlier approvals, because they were of something else; only people who count now become a grant's approvers (I-6). A
//! signature that comes with an approval must be good, also where policy would take the approval without one.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::{Check, Extending, Grant, Narrowing, Parts, Refusal, Signed, State, digest, question, statement, step};
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::name::{Digest, PersonName};
use crate::policy::{Approvals, Terms};
use crate::ssh::Fingerprint;
use crate::time::{Lifetime, Timestamp};

/// One person's approval, as received.
pub(super) struct Approval {
    pub(super) by: Proven,
    pub(super) digest: Digest,
    pub(super) narrow: Narrowing,
    pub(super) comment: String,
    pub(super) signed: Option<Box<Signed>>,
    pub(super) check: Check,
}

/// Approves what waits.
pub(super) fn approve(parts: &mut Parts, approval: Approval, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let before = match (&parts.state, &parts.extension) {
        (State::Pending { approvals, .. }, _) => approvals.clone(),
        (State::Issued, Some(extension)) => extension.approvals.clone(),
        (State::Approved, _) | (State::Issued, None) => return Err(decided(parts, Some(&approval))),
        (State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired, _) => {
            return Err(Refusal::over(&parts.state));
        }
    };
    not_their_own(parts, approval.by.person())?;
    let shown = digest::digest(parts);
    if approval.digest != shown {
        return Err(Refusal::DigestChanged { now: shown });
    }
    narrow(parts, &approval.narrow)?;
    let digest = digest::digest(parts);
    let narrowed = digest != shown;
    let before = if narrowed { Approvals::new() } else { before };
    let signed_by = signer(parts, &approval, shown, now)?;
    // A signature says more than the approval without it; another key's may count where the first key's no longer does.
    let is_new = before.get(approval.by.person()).is_none_or(|given| signed_by.is_some() && *given != signed_by);
    let Counted { approvals, approvers } = count(parts, before, (&approval, signed_by), now)?;
    // A repeated approval changes nothing, unless a changed policy is content with those there are.
    if !is_new && approvers.is_none() {
        return Err(Refusal::AlreadyApproved { by: approval.by.person().clone() });
    }

    let mut events = Vec::new();
    if narrowed {
        events.push(narrowed_event(parts, approval.by.person(), digest));
    }
    if is_new {
        events.push(Event::Approved {
            request: parts.id,
            by: approval.by.person().clone(),
            digest,
            comment: approval.comment,
            policy: approval.check.version,
            signature: approval.signed.map(|signed| signed.signature),
        });
    }
    match approvers {
        Some(approvers) => events.push(grant(parts, approvers, digest, &approval.check, now)?),
        None => keep(parts, approvals),
    }
    Ok(events)
}

/// Says no to what waits.
pub(super) fn deny(
    parts: &mut Parts,
    by: &Proven,
    reason: String,
    check: &Check,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    let extension = match &parts.state {
        State::Pending { .. } => false,
        State::Issued if parts.extension.is_some() => true,
        State::Approved | State::Issued => return Err(decided(parts, None)),
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => {
            return Err(Refusal::over(&parts.state));
        }
    };
    not_their_own(parts, by.person())?;
    // Where the policy in force refuses the request by now, those who could decide it when it was asked may still say no.
    let quorum = question::quorum_in_force(parts, &check.policy, now);
    let quorum = quorum.as_ref().or_else(|| question::quorum_as_asked(parts));
    let eligible = quorum.is_some_and(|quorum| quorum.is_eligible(by.person(), check.policy.directory()));
    if !eligible && !check.policy.is_operator(by.person()) {
        return Err(Refusal::NotEligible { person: by.person().clone(), version: check.version });
    }
    if reason.trim().is_empty() {
        return Err(Refusal::Invalid { what: "a denial needs a reason: the asker should know what to do instead" });
    }
    let event = Event::Denied { request: parts.id, by: by.person().clone(), reason: reason.clone(), extension };
    if extension {
        parts.extension = None;
    } else {
        parts.state = State::Denied { by: by.person().clone(), reason };
    }
    Ok(vec![event])
}

fn not_their_own(parts: &Parts, person: &PersonName) -> Result<(), Refusal> {
    if *person == parts.asker { Err(Refusal::OwnRequest { asker: parts.asker.clone() }) } else { Ok(()) }
}

/// Why there is nothing to decide. A repeated plain approval of what was granted last is told apart: it is harmless.
fn decided(parts: &Parts, approval: Option<&Approval>) -> Refusal {
    let approvers = parts.grants.last().map(|grant| (&grant.approvers, grant.digest));
    if let (Some(approval), Some((approvers, digest))) = (approval, approvers) {
        let is_plain = approval.narrow == Narrowing::default();
        if is_plain && approval.digest == digest && approvers.contains_key(approval.by.person()) {
            return Refusal::AlreadyApproved { by: approval.by.person().clone() };
        }
    }
    let names: Vec<&str> = approvers.iter().flat_map(|(people, _)| people.keys()).map(PersonName::as_str).collect();
    let why = if names.is_empty() {
        "policy allowed it at once, there is nothing to decide; `end` ends it".to_owned()
    } else {
        format!("{} approved it, there is nothing left to decide; `end` ends it", names.join(", "))
    };
    Refusal::WrongState { state: parts.state.word(), why }
}

/// Takes away what `narrow` names; refuses whatever would not be taking away.
fn narrow(parts: &mut Parts, narrow: &Narrowing) -> Result<(), Refusal> {
    let lifetime = match &parts.extension {
        Some(extension) => shorter(extension.lifetime, narrow.lifetime)?,
        None => shorter(parts.terms.lifetime, narrow.lifetime)?,
    };
    if let Some(extension) = &mut parts.extension {
        if narrow.only.is_some() || !narrow.without.is_empty() {
            return Err(Refusal::Invalid {
                what: "an extension can be narrowed in time only; deny it, or `end` the access",
            });
        }
        extension.lifetime = lifetime;
        return Ok(());
    }
    parts.terms.lifetime = lifetime;
    if let Some(only) = &narrow.only {
        if only.is_empty() {
            return Err(Refusal::Invalid { what: "no host would be left; deny it instead" });
        }
        if let Some(host) = only.iter().find(|host| !parts.terms.hosts.contains_key(*host)) {
            return Err(Refusal::WouldWiden { what: format!("{host} was not asked for") });
        }
        let (kept, left_out): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut parts.terms.hosts).into_iter().partition(|(host, _)| only.contains(host));
        // Hosts of scope "account" share a principal: leaving one out would only look like less.
        if left_out.values().any(|principal| kept.values().any(|other| other == principal)) {
            return Err(Refusal::Invalid {
                what: "a host left out would stay open: these hosts share one principal (scope \"account\"); deny it instead",
            });
        }
        parts.terms.hosts = kept;
    }
    parts.terms.options.permits.retain(|extension| !narrow.without.contains(extension));
    Ok(())
}

fn shorter(asked: Lifetime, wanted: Option<Lifetime>) -> Result<Lifetime, Refusal> {
    match wanted {
        None => Ok(asked),
        Some(Lifetime::ZERO) => Err(Refusal::Invalid { what: "no time would be left; deny it instead" }),
        Some(wanted) if wanted > asked => {
            Err(Refusal::WouldWiden { what: format!("{wanted} is longer than the {asked} asked for") })
        }
        Some(wanted) => Ok(wanted),
    }
}

/// The key that signed this approval of what waits, as narrowed, if one did.
fn signer(parts: &Parts, approval: &Approval, shown: Digest, now: Timestamp) -> Result<Option<Fingerprint>, Refusal> {
    let Some(Signed { signature, service_keys }) = approval.signed.as_deref() else { return Ok(None) };
    let statement = statement::of(parts, approval.by.person(), shown, &approval.comment);
    let checked = signature.check(&statement, approval.check.policy.directory(), service_keys, now);
    checked.map(Some).map_err(|why| Refusal::SignatureRefused { why })
}

/// Approvals with one more.
struct Counted {
    /// All of them.
    approvals: Approvals,
    /// Those that count, if they meet the quorum.
    approvers: Option<Approvals>,
}

/// Adds this approval, signed by this key or by none, under the policy in force.
fn count(
    parts: &Parts,
    mut approvals: Approvals,
    (approval, signed_by): (&Approval, Option<Fingerprint>),
    now: Timestamp,
) -> Result<Counted, Refusal> {
    let (by, check) = (approval.by.person(), &approval.check);
    let asked = question::waiting(parts, now);
    let (given, in_force) = question::ask(check, &asked)?;
    // See `quorum_in_force`: allowed at once by now means that the quorum as asked still stands.
    let quorum = in_force.as_ref().or_else(|| question::quorum_as_asked(parts));
    let not_eligible = || Refusal::NotEligible { person: by.clone(), version: check.version };
    let directory = check.policy.directory();
    let quorum = quorum.filter(|quorum| quorum.is_eligible(by, directory)).ok_or_else(not_eligible)?;
    question::within(&parts.terms, asked.lifetime.unwrap_or(parts.terms.lifetime), &given, check.version)?;
    if signed_by.is_some() || !approvals.contains_key(by) {
        approvals.insert(by.clone(), signed_by);
    }
    if approvals.get(by).is_some_and(|given| !quorum.counts(by, *given, directory)) {
        return Err(Refusal::SignatureNeeded { person: by.clone(), version: check.version });
    }
    let counts = |(person, given): &(&PersonName, &Option<Fingerprint>)| quorum.counts(person, **given, directory);
    let counting: Approvals = approvals.iter().filter(counts).map(|(person, given)| (person.clone(), *given)).collect();
    let met = quorum.is_met(&counting, directory);
    Ok(Counted { approvals, approvers: met.then_some(counting) })
}

/// Keeps approvals that don't suffice yet.
fn keep(parts: &mut Parts, all: Approvals) {
    if let State::Pending { approvals, .. } = &mut parts.state {
        *approvals = all;
    } else if let Some(extension) = &mut parts.extension {
        extension.approvals = all;
    }
}

/// Grants what waits: to a pending request its first window, to an extension a later end.
fn grant(
    parts: &mut Parts,
    approvers: Approvals,
    digest: Digest,
    check: &Check,
    now: Timestamp,
) -> Result<Event, Refusal> {
    let window = match parts.extension.take() {
        Some(Extending { lifetime, .. }) => step::extension_window(parts, lifetime, now)?,
        None => {
            let Terms { lifetime, backdate, .. } = parts.terms;
            parts.state = State::Approved;
            step::first_window(parts.start, now, backdate, lifetime)?
        }
    };
    let names = approvers.keys().cloned().collect();
    let event = Event::Granted { request: parts.id, approvers: names, window, digest, policy: check.version };
    parts.grants.push(Grant { window, approved: now, approvers, digest, certificate: None });
    Ok(event)
}

fn narrowed_event(parts: &Parts, by: &PersonName, digest: Digest) -> Event {
    Event::Narrowed {
        request: parts.id,
        by: by.clone(),
        lifetime: parts.extension.as_ref().map_or(parts.terms.lifetime, |extension| extension.lifetime),
        hosts: parts.terms.hosts.keys().cloned().collect(),
        permits: parts.terms.options.permits.clone(),
        digest,
    }
}
