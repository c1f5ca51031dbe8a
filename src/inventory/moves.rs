//! Hosts that go over from one user CA to another: what the log is to say of it, and when the move is over.
//!
//! What for: a host trusts the keys of one CA. When the policy or its tags make it one of another CA, it learns the new keys at once, and
//! keeps those of the old CA that may have signed for it until the last such certificate has ended (P7). Nothing is issued by the new CA
//! before the host proves that it trusts its key.
//!
//! What not: which CA a host is of is the policy's answer; which certificates last, and what hosts prove, the caller knows.
//!
//! *Why is a host's CA an entry, when the policy says it?* The log holds no policy text and no time at which a bundle becomes shorter.
//! With an entry for each change of it, a bundle's version is an entry's index like any other, and whoever has the log alone can tell
//! which key was the right one for a host, and when.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use super::{EnrolledHost, Inventory};
use crate::audit::host_event::HostEvent;
use crate::keyring::Ring;
use crate::policy::Policy;
use crate::ssh::Fingerprint;

/// The entries that make each of these hosts, which are of `after`, one of the CA that this policy says.
///
/// `before` is the inventory before the change that is made with them: a host that was not enrolled there has no certificates to keep
/// anything for.
#[must_use]
pub fn moves<'h>(
    hosts: impl IntoIterator<Item = &'h EnrolledHost>,
    before: &Inventory,
    policy: &Policy,
    ring: &Ring,
) -> Vec<HostEvent> {
    let moved = |host: &EnrolledHost| {
        let ca = policy.host(&host.name).map(|known| policy.ca_of(known)).filter(|ca| *ca != host.ca)?;
        let was = before.host(&host.name).filter(|was| was.is_active);
        let of_before = was.map(|was| was.keeps.union(&ring.have_signed(&was.ca)).copied().collect());
        let keeps: BTreeSet<Fingerprint> = of_before.unwrap_or_default();
        let own: BTreeSet<Fingerprint> =
            ring.trusted_by_hosts(&ca).iter().map(|known| known.key.fingerprint()).collect();
        let keeps = keeps.difference(&own).copied().collect();
        Some(HostEvent::HostMoved { host: host.name.clone(), ca, keeps, waits: was.is_some() })
    };
    hosts.into_iter().filter(|host| host.is_active).filter_map(moved).collect()
}

/// What is left of a move, if that is less than before: keys by which certificates for the host last (`lasting`), and the wait for its
/// proof.
#[must_use]
pub fn settled(host: &EnrolledHost, lasting: &BTreeSet<Fingerprint>, is_proven: bool) -> Option<HostEvent> {
    let keeps: BTreeSet<Fingerprint> = host.keeps.intersection(lasting).copied().collect();
    let waits = host.waits && !is_proven;
    let is_news = host.is_active && (waits != host.waits || keeps != host.keeps);
    is_news.then(|| HostEvent::HostMoved { host: host.name.clone(), ca: host.ca.clone(), keeps, waits })
}
