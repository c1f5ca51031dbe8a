//! What was done since the start, and how things stand, in numbers: for whoever watches the service.
//!
//! Invariants: nothing here names a person, a host or a request; what is counted comes from closed lists. Nothing is decided by these
//! numbers, so they are counted in memory alone, and begin anew at each start.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Service;
use crate::audit::event::Event;
use crate::inventory::EnrolledHost;
use crate::inventory::check_in::{Seen, TrustState};
use crate::keyring::{Ca, RingKey};
use crate::ssh::bundle::KeyState;
use crate::store::{self, Change, Committed, Save};
use crate::time::Timestamp;

/// Upper bounds of how long approvals take, in seconds: from somebody who sits beside it to the longest that an ask may wait. Our own choice.
pub const WAIT_SECONDS: [u32; 8] = [15, 60, 180, 600, 1_800, 3_600, 14_400, 86_400];

/// How things stand.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Log entries that this process wrote since its start, by kind; every kind is there.
    pub entries: BTreeMap<&'static str, u64>,
    /// How long people took to approve.
    pub approvals: Waits,
    /// The log's size and the time of its last entry; none if the store does not say.
    pub log: Option<(u64, Timestamp)>,
    /// What the store's writer did.
    pub store: store::Figures,
    /// How many hosts are enrolled.
    pub hosts: u64,
    /// How many of them were silent for too long, or never told anything.
    pub hosts_stale: u64,
    /// How many of them do not have every key of the trust bundle, by what they said last.
    pub hosts_behind: u64,
    /// How many of them end no session, since their sshd does not ask the guard.
    pub hosts_unguarded: u64,
    /// How many of them have a clock that is off.
    pub hosts_clock_off: u64,
    /// For how many seconds each active CA key has signed.
    pub key_ages: Vec<(Ca, u64)>,
}

/// How many waits there were, by length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many took up to so many seconds ([`WAIT_SECONDS`]) and longer than the bound before; longer than all in the last.
    pub counts: [u64; WAIT_SECONDS.len() + 1],
    /// All of them, in seconds.
    pub sum_s: u64,
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Tally {
    kinds: BTreeMap<&'static str, AtomicU64>,
    waits: Mutex<Waits>,
}

/// What of a change is counted once it is durable.
pub(super) struct Counted(Vec<&'static str>);

impl Counted {
    /// What this change will have written.
    pub(super) fn of(change: &Change) -> Self {
        let certified = change.saves.iter().filter_map(|save| match save {
            Save::Certify { .. } => Some("certificate_to_be_signed"),
            Save::CertifyHost { permit, .. } if permit.is_check() => Some("check_certificate_to_be_signed"),
            Save::CertifyHost { .. } => Some("host_certificate_to_be_signed"),
            _ => None,
        });
        Self(certified.chain(change.events.iter().map(Event::kind)).collect())
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        let kinds = Event::KINDS.iter().map(|kind| (*kind, AtomicU64::new(0))).collect();
        Self { kinds, waits: Mutex::default() }
    }

    /// A change is durable.
    pub(super) fn count(&self, counted: &Counted, committed: &Committed) {
        for kind in &counted.0 {
            if let Some(count) = self.kinds.get(kind) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if counted.0.contains(&"granted") {
            committed.requests.iter().for_each(|stored| self.granted(stored.request.parts()));
        }
    }

    /// How long the first grant took that people had to agree to; an extension's question is gone when it is answered.
    fn granted(&self, request: &crate::access::Parts) {
        let [grant] = request.grants.as_slice() else { return };
        if !grant.approvers.is_empty() {
            let took = grant.approved.seconds_since(request.asked);
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).add(took);
        }
    }
}

impl Waits {
    fn add(&mut self, seconds: u64) {
        let place = WAIT_SECONDS.iter().position(|bound| seconds <= u64::from(*bound)).unwrap_or(WAIT_SECONDS.len());
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        self.sum_s = self.sum_s.saturating_add(seconds);
    }
}

impl Service {
    /// How things stand. A store that does not answer leaves the log out, and nothing else.
    pub async fn figures(&self) -> Figures {
        let now = self.now();
        let head = self.store.head().await.ok();
        let inventory = self.inventory();
        let seen: Vec<Option<Seen>> = inventory.active().map(|host| self.seen(&host.name)).collect();
        let count = |is: &dyn Fn(Option<&Seen>) -> bool| {
            u64::try_from(seen.iter().filter(|seen| is(seen.as_ref())).count()).unwrap_or(u64::MAX)
        };
        let is_behind = |host: &EnrolledHost| {
            let seen = self.seen(&host.name);
            seen.is_none_or(|seen| seen.check_in.trust(&self.bundle_keys(host)) == TrustState::Behind)
        };
        let behind = inventory.active().filter(|host| is_behind(host)).count();
        let in_use = self.keys.now();
        let age = |known: &RingKey| (known.ca.clone(), now.seconds_since(known.since));
        Figures {
            entries: self.figures.kinds.iter().map(|(kind, count)| (*kind, count.load(Ordering::Relaxed))).collect(),
            approvals: self.figures.waits.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            log: head.map(|head| (head.frontier.size(), head.at)),
            store: self.store.figures(),
            hosts: count(&|_| true),
            hosts_stale: count(&|seen| seen.is_none_or(|seen| seen.is_stale(now))),
            hosts_behind: u64::try_from(behind).unwrap_or(u64::MAX),
            hosts_unguarded: count(&|seen| seen.is_none_or(|seen| !seen.check_in.guard)),
            hosts_clock_off: count(&|seen| seen.is_some_and(|seen| !seen.check_in.is_clock_ok())),
            key_ages: in_use.ring.keys().iter().filter(|known| known.state == KeyState::Active).map(age).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_counted_at_the_first_bound_that_holds_it() {
        let mut waits = Waits::default();
        [0, 15, 16, 86_400, 86_401].into_iter().for_each(|seconds| waits.add(seconds));
        assert_eq!(waits.counts, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(waits.sum_s, 15 + 16 + 86_400 + 86_401);
    }

    #[test]
    fn every_kind_of_entry_has_a_count_and_the_saves_that_make_entries_are_kinds() {
        let tally = Tally::new();
        assert_eq!(tally.kinds.len(), Event::KINDS.len());
        for kind in ["certificate", "host_certificate", "check_certificate"].map(|what| format!("{what}_to_be_signed"))
        {
            assert!(Event::KINDS.contains(&kind.as_str()), "{kind}");
        }
        assert!(Event::KINDS.contains(&"granted"));
    }
}
