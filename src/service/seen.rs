//! What hosts told of themselves last, as this node knows it, and when that was written for others.
//!
//! Invariant: what is written differs from what is known in no more than the time and how far the clock is off, and is no older than
//! `inventory::check_in` lets it be; or it is known that it may, and then the host's next check-in is written, whatever it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::inventory::check_in::Seen;
use crate::name::HostName;
use crate::ssh::Fingerprint;
use crate::time::Timestamp;

/// What one host told last.
#[derive(Debug)]
struct Known {
    seen: Seen,
    /// The time of what the store has; `None` while nobody can say what it has.
    written: Option<Timestamp>,
    /// How often it was to be written.
    writes: u64,
}

impl Known {
    /// As the store has it now.
    const fn read(seen: Seen) -> Self {
        Self { written: Some(seen.at), seen, writes: 0 }
    }
}

/// A check-in that is to be written.
#[derive(Debug)]
pub(super) struct Unwritten(u64);

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

    fn lock_to_change(&self) -> RwLockWriteGuard<'_, BTreeMap<HostName, Known>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this host told.
    pub(super) fn of(&self, host: &HostName) -> Option<Seen> {
        self.lock().get(host).map(|known| known.seen.clone())
    }

    /// What each host told.
    pub(super) fn all(&self) -> BTreeMap<HostName, Seen> {
        self.lock().iter().map(|(host, known)| (host.clone(), known.seen.clone())).collect()
    }

    /// Those of these hosts whose file of trusted keys does not have this one, by what they told.
    pub(super) fn without<'h>(
        &self,
        ca: &Fingerprint,
        hosts: impl Iterator<Item = &'h HostName>,
    ) -> BTreeSet<HostName> {
        let all = self.lock();
        let has = |host: &HostName| all.get(host).is_some_and(|known| known.seen.check_in.keys.contains(ca));
        hosts.filter(|host| !has(host)).cloned().collect()
    }

    /// The host tells this. `Some`: it must be written first, and then be put down with [`SeenHosts::written`]; in any case if what is written is of before `since`.
    pub(super) fn hear(&self, host: &HostName, seen: &Seen, since: Option<Timestamp>) -> Option<Unwritten> {
        let mut all = self.lock_to_change();
        let Some(known) = all.get_mut(host) else { return Some(Unwritten(0)) };
        let is_written = known.written.is_some_and(|written| {
            since.is_none_or(|since| since <= written) && !seen.is_worth_a_row(&known.seen, written)
        });
        if is_written {
            known.seen = seen.clone();
            return None;
        }
        known.written = None;
        known.writes = known.writes.wrapping_add(1);
        Some(Unwritten(known.writes))
    }

    /// It is written. When another one was to be written meanwhile, nobody knows which of them came last.
    pub(super) fn written(&self, host: HostName, seen: Seen, unwritten: &Unwritten) {
        let mut all = self.lock_to_change();
        let is_last = all.get(&host).is_none_or(|known| known.writes == unwritten.0);
        let written = is_last.then_some(seen.at);
        let writes = all.get(&host).map_or(1, |known| known.writes);
        all.insert(host, Known { seen, written, writes });
    }

    /// Takes in what hosts told other nodes, and this one. Rows come in the order in which they were written: each is what the store has, whatever its time says.
    pub(super) fn take(&self, rows: BTreeMap<HostName, Seen>) {
        let mut all = self.lock_to_change();
        for (host, row) in rows {
            match all.get_mut(&host) {
                Some(known) if known.seen.check_in.says_the_same(&row.check_in) => {
                    known.written = Some(row.at);
                    known.seen.at = known.seen.at.max(row.at);
                }
                Some(known) => *known = Known { writes: known.writes, ..Known::read(row) },
                None => drop(all.insert(host, Known::read(row))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::check_in::tests;

    fn seen(seconds: u64, sessions: u64) -> Seen {
        tests::seen(seconds, 0, sessions)
    }

    /// The host tells this; whether it is written.
    fn told(hosts: &SeenHosts, host: &HostName, seen: Seen, since: Option<Timestamp>) -> bool {
        let unwritten = hosts.hear(host, &seen, since);
        if let Some(unwritten) = &unwritten {
            hosts.written(host.clone(), seen, unwritten);
        }
        unwritten.is_some()
    }

    #[test]
    fn what_another_node_wrote_is_what_there_is_whatever_its_clock_says() {
        let host = HostName::parse("web-1").unwrap();
        let hosts = SeenHosts::read(BTreeMap::new());
        let tell = |seconds, sessions| told(&hosts, &host, seen(seconds, sessions), None);
        assert_eq!([tell(0, 1), tell(60, 1)], [true, false]);
        // Another node was told of two sessions before, by its clock, and that comes to us only now.
        hosts.take([(host.clone(), seen(30, 2))].into());
        assert_eq!(hosts.of(&host), Some(seen(30, 2)));
        assert_eq!([tell(120, 1), tell(180, 1)], [true, false]);
        // The same: nothing to write for five minutes from then on, and the newer time is known.
        hosts.take([(host.clone(), seen(150, 1))].into());
        assert_eq!(hosts.of(&host), Some(seen(180, 1)));
        assert_eq!([tell(440, 1), tell(450, 1)], [false, true]);
        hosts.take([(host.clone(), seen(460, 3))].into());
        assert_eq!([tell(470, 3), tell(480, 1)], [false, true]);
    }

    #[test]
    fn what_may_not_be_what_is_written_is_written_again() {
        let host = HostName::parse("web-1").unwrap();
        let hosts = SeenHosts::read([(host.clone(), seen(0, 1))].into());
        // The store failed, perhaps after it had written.
        assert!(hosts.hear(&host, &seen(10, 2), None).is_some());
        assert_eq!(hosts.of(&host), Some(seen(0, 1)));
        let again = hosts.hear(&host, &seen(20, 1), None).unwrap();
        // Another one at the same time, which is put down last and may have been written first.
        let other = hosts.hear(&host, &seen(20, 2), None).unwrap();
        hosts.written(host.clone(), seen(20, 2), &other);
        hosts.written(host.clone(), seen(20, 1), &again);
        assert!(told(&hosts, &host, seen(30, 1), None));
        assert!(!told(&hosts, &host, seen(40, 1), None));
    }

    #[test]
    fn what_is_written_of_a_host_that_has_moved_is_of_after_that() {
        let host = HostName::parse("web-1").unwrap();
        let hosts = SeenHosts::read([(host.clone(), seen(0, 1))].into());
        let moved = Some(seen(50, 1).at);
        let tell = |seconds| told(&hosts, &host, seen(seconds, 1), moved);
        assert_eq!([tell(40), tell(60), tell(70)], [true, true, false]);
    }
}
