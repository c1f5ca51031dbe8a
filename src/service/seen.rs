//! What hosts told of themselves last, as this node knows it, and when that was written for others.
//!
//! Invariant: what is written differs from what is known in no more than the time and how far the clock is off, and is no older than
//! `inventory::check_in` lets it be.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::inventory::check_in::Seen;
use crate::name::HostName;
use crate::ssh::Fingerprint;
use crate::time::Timestamp;

/// What one host told last.
#[derive(Debug)]
struct Known {
    seen: Seen,
    /// The time of what the store has.
    written: Timestamp,
}

impl Known {
    /// As the store has it.
    const fn read(seen: Seen) -> Self {
        Self { written: seen.at, seen }
    }
}

/// Of all of them.
#[derive(Debug)]
pub(super) struct SeenHosts(RwLock<BTreeMap<HostName, Known>>);

impl SeenHosts {
    /// As the store has them.
    pub(super) fn read(rows: BTreeMap<HostName, Seen>) -> Self {
        Self(RwLock::new(rows.into_iter().map(|(host, seen)| (host, Known::read(seen))).collect()))
    }

    fn lock(&self) -> RwLockReadGuard<'_, BTreeMap<HostName, Known>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this host told.
    pub(super) fn of(&self, host: &HostName) -> Option<Seen> {
        self.lock().get(host).map(|known| known.seen.clone())
    }

    /// What each host told.
    pub(super) fn all(&self) -> BTreeMap<HostName, Seen> {
        self.lock().iter().map(|(host, known)| (host.clone(), known.seen.clone())).collect()
    }

    /// Whether this host's file of trusted keys has this one, by what it told.
    pub(super) fn trusts(&self, host: &HostName, ca: &Fingerprint) -> bool {
        self.lock().get(host).is_some_and(|known| known.seen.check_in.keys.contains(ca))
    }

    /// Whether `seen` must be written down; in any case if what is written is of before `since`.
    pub(super) fn is_worth_a_row(&self, host: &HostName, seen: &Seen, since: Option<Timestamp>) -> bool {
        self.lock().get(host).is_none_or(|known| {
            since.is_some_and(|since| known.written < since) || seen.is_worth_a_row(&known.seen, known.written)
        })
    }

    /// The host told this; whether that `is_written`.
    pub(super) fn told(&self, host: HostName, seen: Seen, is_written: bool) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let written = all.get(&host).filter(|_| !is_written).map_or(seen.at, |known| known.written);
        all.insert(host, Known { seen, written });
    }

    /// Takes in what hosts told other nodes, unless something newer is known.
    pub(super) fn take(&self, rows: BTreeMap<HostName, Seen>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (host, seen) in rows {
            if all.get(&host).is_none_or(|known| known.seen.at <= seen.at) {
                all.insert(host, Known::read(seen));
            }
        }
    }
}
