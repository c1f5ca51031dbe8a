//! What a person may do on a host as an account, whatever the time and the reason: the thing that two policies are
//! compared by.
//!
//! Invariant: [`Standing::is_at_most`] is true only when the new standing provably lets nobody do more. What can't be
//! proved counts as more, so that a reader of a diff is warned too often rather than too seldom.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use super::quorum::demand_all_of;
use super::rule::{Effect, Grant};
use super::trace::listed;
use super::when::When;
use super::{Host, Policy};
use crate::identity::Person;
use crate::name::Account;

/// The rules that can decide, in the order in which they count.
#[derive(Debug, Default)]
pub(super) struct Standing<'p> {
    /// When it is refused at certain times; all of them count.
    refused: Vec<&'p When>,
    /// Grants up to the first one that holds at all times. Empty when nothing is granted or it is always refused.
    granted: Vec<(&'p Grant, Option<&'p When>)>,
}

impl<'p> Standing<'p> {
    /// What `candidates` (the rules for this person and account, by number) say about this host.
    pub(super) fn of(policy: &'p Policy, candidates: &[usize], host: &Host) -> Self {
        let mut standing = Self::default();
        let mut is_decided = false;
        for rule in candidates.iter().filter_map(|n| policy.rules.get(*n)).filter(|rule| rule.has_host(host)) {
            match (&rule.effect, &rule.when) {
                (Effect::Refuse { .. }, None) => return Self::default(),
                (Effect::Refuse { .. }, Some(when)) => standing.refused.push(when),
                (Effect::Grant(_), _) if is_decided => {}
                (Effect::Grant(grant), when) => {
                    is_decided = when.is_none();
                    standing.granted.push((grant, when.as_ref()));
                }
            }
        }
        if standing.granted.is_empty() { Self::default() } else { standing }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.granted.is_empty()
    }

    /// Whether it is provably no more than `old`.
    pub(super) fn is_at_most(&self, old: &Self) -> bool {
        if self.is_nothing() {
            return true;
        }
        self.granted.len() == old.granted.len()
            && old.refused.iter().all(|when| self.refused.contains(when))
            && self.granted.iter().zip(&old.granted).all(|((new, new_when), (old, old_when))| {
                (old_when.is_none() || new_when == old_when) && is_at_most(new, old)
            })
    }
}

impl PartialEq for Standing<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.refused == other.refused && self.granted == other.granted
    }
}

/// The candidates for [`Standing::of`].
pub(super) fn candidates(policy: &Policy, person: Option<&Person>, account: &Account) -> Vec<usize> {
    policy.index.for_account(person, account)
}

/// Whether a grant provably gives no more than another.
fn is_at_most(new: &Grant, old: &Grant) -> bool {
    let (options, before) = (&new.options, &old.options);
    let is_inside = |net| before.source_addresses.iter().any(|old: &ipnet::IpNet| old.contains(net));
    let sources = before.source_addresses.is_empty()
        || (!options.source_addresses.is_empty() && options.source_addresses.iter().all(is_inside));
    let default = new.window.default <= old.window.default;
    default
        && new.window.max <= old.window.max
        && new.window.total <= old.window.total
        && new.reason_chars_min >= old.reason_chars_min
        && (old.ticket.is_none() || new.ticket == old.ticket)
        && demand_all_of(&new.approval, &old.approval)
        && sources
        && (before.force_command.is_none() || options.force_command == before.force_command)
        && (options.verify_required || !before.verify_required)
        && options.permits.is_subset(&before.permits)
}

impl fmt::Display for Standing<'_> {
    /// `1 of group:sre must agree, up to 2h`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("nothing");
        }
        for (place, (grant, when)) in self.granted.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { ", else " })?;
            show(grant, f)?;
            if let Some(when) = when {
                write!(f, ", {when}")?;
            }
        }
        for when in &self.refused {
            write!(f, ", never {when}")?;
        }
        Ok(())
    }
}

fn show(grant: &Grant, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let needs: Vec<String> = grant.approval.iter().map(ToString::to_string).collect();
    if needs.is_empty() {
        f.write_str("at once")?;
    } else {
        write!(f, "{} must agree", needs.join(" and "))?;
    }
    let (span, options) = (&grant.window, &grant.options);
    write!(f, ", {} up to {} ({} in total)", span.default, span.max, span.total)?;
    if let Some(command) = &options.force_command {
        write!(f, ", only {:?}", command.as_str())?;
    }
    if !options.source_addresses.is_empty() {
        write!(f, ", from {}", listed(&options.source_addresses))?;
    }
    if options.verify_required {
        f.write_str(", with a verified security key")?;
    }
    let permits: Vec<&str> = options.permits.iter().map(|permit| permit.key()).collect();
    if permits != ["pty"] {
        write!(f, ", permits {}", if permits.is_empty() { "nothing".to_owned() } else { permits.join(" ") })?;
    }
    match grant.reason_chars_min {
        0 => f.write_str(", without a reason")?,
        1 => {}
        least => write!(f, ", reason of {least}")?,
    }
    match &grant.ticket {
        Some(ticket) => write!(f, ", ticket {ticket}"),
        None => Ok(()),
    }
}
