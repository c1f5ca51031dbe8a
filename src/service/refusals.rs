//! How many refusals of one person go into the log: what policy refuses is an entry for good, with whatever was given as the reason, and
//! somebody who may do nothing could fill the disk with those.
//!
//! Invariant: no refusal is left out of the log. Whoever has had too many in an hour is not answered at all until it is over.
//!
//! What not: what is granted or waits has limits of its own ([`super::ask`]); of what happened on other nodes nothing is known here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::name::PersonName;
use crate::time::Timestamp;

/// Refusals of one person in an hour. Our own choice: more than anybody reads, and with the longest reasons 12 MB a day.
const EACH_PER_HOUR: u32 = 120;

const HOUR_S: u64 = 3_600;

/// The hour, and how many each person has had in it. At most as many people as are in the policy.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<(u64, BTreeMap<PersonName, u32>)>);

impl Refusals {
    /// Counts one more of this person's, if there may be one.
    pub(super) fn take(&self, person: &PersonName, now: Timestamp) -> bool {
        let hour = now.unix() / HOUR_S;
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 != hour {
            *counted = (hour, BTreeMap::new());
        }
        let count = counted.1.entry(person.clone()).or_default();
        *count = count.saturating_add(1);
        *count <= EACH_PER_HOUR
    }

    /// What whoever has had too many is told.
    pub(super) fn too_many() -> String {
        format!(
            "policy has refused {EACH_PER_HOUR} of your asks in this hour, and each is in the log for good; ask again in the next one. `hallpass explain` \
             and `hallpass request --dry-run` say what policy allows"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_person_has_so_many_in_an_hour() {
        let (refusals, alice) = (Refusals::default(), PersonName::parse("alice").unwrap());
        let at = |seconds: u64| Timestamp::from_unix(1_800_000_000 + seconds).unwrap();
        let taken = |person: &PersonName, now| (0..200).filter(|_| refusals.take(person, now)).count();
        assert_eq!(taken(&alice, at(0)), 120);
        assert_eq!(taken(&PersonName::parse("bob").unwrap(), at(1)), 120);
        assert_eq!(taken(&alice, at(3_599)), 0);
        assert_eq!(taken(&alice, at(3_600)), 120);
        assert!(Refusals::too_many().contains("120"));
    }
}
