//! Whether stored parts make a request that this program could have written.
//!
//! What for: a row that was damaged, edited or written by another version is refused when it is read, before anything is
//! decided or signed on its word (P10). What approvers agreed to is checked against the digest they named, and each
//! certificate against the grant it was made for (P1, P4).
//!
//! What not: no policy; whether the same would be granted today is asked when something happens.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::{Extending, Grant, Parts, State, digest, permit, step};
use crate::time::Lifetime;

/// `Ok` if the condition holds, else what is wrong.
fn must(holds: bool, wrong: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(wrong) }
}

/// Checks that nothing in these parts contradicts the rest.
pub(super) fn check(parts: &Parts) -> Result<(), &'static str> {
    must(!parts.terms.hosts.is_empty(), "it names no host")?;
    must(parts.terms.lifetime > Lifetime::ZERO, "it lasts no time")?;
    check_state(parts)?;
    for grant in &parts.grants {
        check_grant(parts, grant)?;
    }
    if let Some(first) = parts.grants.first() {
        must(first.digest == digest::of_request(parts), "what was approved is not what it says")?;
        must(first.approvers.is_empty() == parts.quorum.is_none(), "its approvers do not fit its quorum")?;
        let window = step::first_window(parts.start, first.approved, parts.terms.backdate, parts.terms.lifetime);
        must(window == Ok(first.window), "its window is not the approved one")?;
    }
    for (before, grant) in parts.grants.iter().zip(parts.grants.iter().skip(1)) {
        check_next(before, grant)?;
    }
    match &parts.extension {
        Some(extension) => check_extension(parts, extension),
        None => Ok(()),
    }
}

/// What each state needs and excludes.
fn check_state(parts: &Parts) -> Result<(), &'static str> {
    let fetched = parts.grants.first().is_some_and(|grant| grant.certificate.is_some());
    match &parts.state {
        State::Pending { approvals, .. } => {
            must(parts.quorum.is_some(), "it waits for nobody")?;
            must(!approvals.contains_key(&parts.asker), "its asker is among its approvers")?;
            must(parts.grants.is_empty(), "it is undecided and has a window")?;
        }
        State::Denied { .. } | State::Lapsed => {
            must(parts.quorum.is_some(), "nobody had to decide it")?;
            must(parts.grants.is_empty(), "it was never granted and has a window")?;
        }
        State::Approved => must(parts.grants.len() == 1 && !fetched, "it is approved and has not one unused window")?,
        State::Withdrawn => must(parts.grants.len() <= 1 && !fetched, "it was withdrawn and has a certificate")?,
        State::Issued => must(fetched, "it is issued and has no certificate")?,
        State::Ended { .. } | State::Expired => {
            must(fetched || parts.grants.len() == 1, "it was granted and has no window")?;
        }
    }
    Ok(())
}

/// What each grant needs by itself.
fn check_grant(parts: &Parts, grant: &Grant) -> Result<(), &'static str> {
    must(!grant.approvers.contains_key(&parts.asker), "its asker is among its approvers")?;
    let Some(certified) = &grant.certificate else { return Ok(()) };
    let says = permit::fields(parts, grant, certified.serial).map_err(|_lint| "its certificate could not be made")?;
    must(*certified.tbs.fields() == says, "its certificate says something else than what was approved")?;
    must(*certified.tbs.subject() == parts.key, "its certificate is for another key")
}

/// What a grant needs after the one before it.
fn check_next(before: &Grant, grant: &Grant) -> Result<(), &'static str> {
    must(before.certificate.is_some(), "it was extended before its certificate was made")?;
    must(grant.window.end() > before.window.end(), "an extension did not move its end")?;
    must(grant.window.start() >= before.window.start(), "an extension moved its start back")?;
    must(grant.approved < before.window.end(), "it was extended after its end")
}

/// What a waiting extension needs.
fn check_extension(parts: &Parts, extension: &Extending) -> Result<(), &'static str> {
    let last = parts.grants.last().filter(|grant| parts.state == State::Issued && grant.certificate.is_some());
    let last = last.ok_or("an extension waits without a certificate to extend")?;
    must(extension.lifetime > Lifetime::ZERO, "an extension lasts no time")?;
    must(extension.decide_by <= last.window.end(), "an extension waits beyond the window it extends")?;
    must(!extension.approvals.contains_key(&parts.asker), "its asker is among its approvers")
}
