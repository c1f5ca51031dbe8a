//! What a start of the service makes of the ring: the configured keys against those of before.
//!
//! What not: whether a key may sign that others do not trust yet; [`Ring::succession`] says which it is, and the caller decides.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::{Ca, Ring, RingError, RingKey, forget};
use crate::name::CaName;
use crate::ssh::bundle::KeyState;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// The keys of a user CA, as they are configured.
#[derive(Clone, Copy, Debug)]
pub struct UserKeys<'k> {
    /// The key that signs, unless the ring says that one of `next` does.
    pub first: &'k PublicKey,
    /// Further keys whose backend is there; hosts hear of them when a rotation says so.
    pub next: &'k [PublicKey],
    /// Further keys that hosts trust.
    pub trusted: &'k [PublicKey],
}

/// What is configured.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'k> {
    /// The default user CA.
    pub user: UserKeys<'k>,
    /// Further user CAs.
    pub named: &'k BTreeMap<CaName, UserKeys<'k>>,
    /// The key that signs host certificates, if there is one, unless the ring says that one of `host_next` does.
    pub host: Option<&'k PublicKey>,
    /// Further keys for host certificates whose backend is there; clients hear of them when a rotation says so.
    pub host_next: &'k [PublicKey],
    /// Keys by which certificates last: these are trusted until the last of them has ended, whatever is configured (I-22).
    pub lasting: &'k BTreeSet<Fingerprint>,
}

impl<'k> Configured<'k> {
    /// The CAs that have a key here, user CAs first.
    fn cas(&self) -> BTreeSet<Ca> {
        let named = self.named.keys().cloned().map(Ca::User);
        named.chain([Ca::USER]).chain(self.host.map(|_| Ca::Host)).collect()
    }

    /// A user CA's keys.
    fn user(&self, name: &CaName) -> Option<UserKeys<'k>> {
        if name.is_default() { Some(self.user) } else { self.named.get(name).copied() }
    }

    /// The keys of a CA whose backend is there, the first one first.
    fn of(&self, ca: &Ca) -> impl Iterator<Item = &'k PublicKey> + use<'k> {
        let (first, next): (Option<&'k PublicKey>, &'k [PublicKey]) = match ca {
            Ca::User(name) => self.user(name).map_or((None, &[]), |user| (Some(user.first), user.next)),
            Ca::Host => (self.host, self.host_next),
        };
        first.into_iter().chain(next)
    }

    /// Keys of a CA that hosts trust, and that sign nothing here.
    fn trusted(&self, ca: &Ca) -> &'k [PublicKey] {
        match ca {
            Ca::User(name) => self.user(name).map_or(&[], |user| user.trusted),
            Ca::Host => &[],
        }
    }
}

impl Ring {
    /// The ring with the configured keys: what a start of the service makes of the one before.
    ///
    /// The key that signs goes on signing while its backend is configured; else a configured key takes over, one that is trusted already
    /// before one that is not (whether it may, [`Self::succession`] and the caller say). A further key keeps its state: only a step of a
    /// rotation moves it. A key of `trusted` signs nothing here, and hosts trust it: `staged` before it has ever signed, `draining` after.
    /// A key that is configured no longer is `draining` while a certificate by it lasts, for its public half is all that trust needs; only
    /// a compromised one is dropped at once. Retired keys are forgotten, oldest first, where a bundle could not hold them.
    ///
    /// After the only key was compromised none signs until another one is configured: the service starts all the same, to tell hosts.
    ///
    /// # Errors
    /// [`RingError`] when the configured keys don't go together.
    pub fn configured(&self, keys: &Configured<'_>, now: Timestamp) -> Result<Self, RingError> {
        let cas = keys.cas();
        self.check_configured(&cas, keys)?;
        let mut signs = BTreeMap::new();
        for ca in &cas {
            signs.extend(self.signs(ca, keys)?.map(|key| (ca, key)));
        }
        let state = |known: &RingKey| self.state_of(known, signs.get(&known.ca).copied(), keys);
        let mut ring: Vec<RingKey> = self.0.iter().map(|known| known.moved(state(known), now)).collect();
        let active = signs.iter().map(|(ca, key)| (*ca, *key, KeyState::Active));
        let trusted = cas.iter().flat_map(|ca| keys.trusted(ca).iter().map(move |key| (ca, key, KeyState::Staged)));
        for (ca, key, state) in active.chain(trusted).filter(|(_, key, _)| self.known(key).is_none()) {
            ring.push(RingKey { ca: ca.clone(), key: key.clone(), state, since: now });
        }
        Self::new(forget(ring))
    }

    /// Whether these keys go together, and with those of before.
    fn check_configured(&self, cas: &BTreeSet<Ca>, keys: &Configured<'_>) -> Result<(), RingError> {
        let all: Vec<(&Ca, &PublicKey)> =
            cas.iter().flat_map(|ca| keys.of(ca).chain(keys.trusted(ca)).map(move |key| (ca, key))).collect();
        let distinct: BTreeSet<&PublicKey> = all.iter().map(|(_, key)| *key).collect();
        let is_of_other = |(ca, key): &(&Ca, &PublicKey)| self.known(key).is_some_and(|known| known.ca != **ca);
        if distinct.len() != all.len() || all.iter().any(is_of_other) {
            return Err(RingError::Twice);
        }
        if cas.iter().flat_map(|ca| keys.trusted(ca)).any(|key| self.is_lost(key)) {
            return Err(RingError::Compromised);
        }
        Ok(())
    }

    fn is_lost(&self, key: &PublicKey) -> bool {
        self.known(key).is_some_and(|known| known.state == KeyState::Compromised)
    }

    /// Which key signs for a CA once these keys are configured.
    fn signs<'k>(&'k self, ca: &Ca, keys: &Configured<'k>) -> Result<Option<&'k PublicKey>, RingError> {
        let active = self.active(ca);
        if let Some(active) = active.filter(|active| keys.of(ca).any(|key| key == *active)) {
            return Ok(Some(active));
        }
        let Some(first) = keys.of(ca).next() else { return Ok(None) };
        let is_known = |key: &&PublicKey| self.is_begun(key);
        let successor = keys.of(ca).find(is_known).filter(|_| active.is_some() && !is_known(&first));
        match successor.unwrap_or(first) {
            key if active.is_none() && self.is_not_to_come_back(key) => Ok(None),
            key if self.is_lost(key) => Err(RingError::Compromised),
            key => Ok(Some(key)),
        }
    }

    /// Whether a key must not sign only because no other one does: it was compromised, or retired and another one was compromised since.
    fn is_not_to_come_back(&self, key: &PublicKey) -> bool {
        let Some(known) = self.known(key) else { return false };
        let mut ours = self.0.iter().filter(|other| other.ca == known.ca);
        known.state == KeyState::Compromised
            || (known.state == KeyState::Retired && ours.any(|other| other.state == KeyState::Compromised))
    }

    /// Whether others have been told to trust this key, and it does not sign.
    fn is_begun(&self, key: &PublicKey) -> bool {
        self.known(key).is_some_and(|known| matches!(known.state, KeyState::Staged | KeyState::Draining))
    }

    /// What becomes of a known key, where `signs` is the one that signs for its CA.
    fn state_of(&self, known: &RingKey, signs: Option<&PublicKey>, keys: &Configured<'_>) -> KeyState {
        let key = &known.key;
        let is_trusted = keys.trusted(&known.ca).contains(key);
        let is_held = keys.of(&known.ca).any(|held| held == key);
        match known.state {
            _ if signs == Some(key) => KeyState::Active,
            KeyState::Compromised => KeyState::Compromised,
            KeyState::Active | KeyState::Draining if is_trusted => KeyState::Draining,
            KeyState::Staged | KeyState::Retired if is_trusted => KeyState::Staged,
            state if is_held => state,
            KeyState::Active | KeyState::Draining if keys.lasting.contains(&key.fingerprint()) => KeyState::Draining,
            KeyState::Staged | KeyState::Active | KeyState::Draining | KeyState::Retired => KeyState::Retired,
        }
    }

    /// The key of a CA that signs in `next` where another one signs here, and whether it was trusted before: a start must not
    /// make a key sign that nobody trusts (I-21).
    #[must_use]
    pub fn succession<'n>(&self, next: &'n Self, ca: &Ca) -> Option<(&'n PublicKey, bool)> {
        let (old, new) = (self.active(ca)?, next.active(ca)?);
        (old != new).then(|| (new, self.is_begun(new)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ssh::bundle::KEYS_MAX;
    use crate::ssh::cert::Purpose;
    use crate::ssh::private::SessionKey;

    fn key(seed: u8) -> PublicKey {
        SessionKey::generate([seed; 32]).public_key().clone()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_767_607_200_u64.saturating_add(seconds)).unwrap()
    }

    /// The ring once these keys are configured: user, host, trusted. No certificate lasts.
    fn next(ring: &Ring, user: u8, host: Option<u8>, trusted: &[u8], seconds: u64) -> Result<Ring, RingError> {
        next_beside(ring, (user, host, trusted), &[], seconds)
    }

    /// The same while certificates by some keys last.
    fn next_beside(
        ring: &Ring,
        (user, host, trusted): (u8, Option<u8>, &[u8]),
        lasting: &[u8],
        seconds: u64,
    ) -> Result<Ring, RingError> {
        let (user, host) = (key(user), host.map(key));
        let trusted: Vec<PublicKey> = trusted.iter().copied().map(key).collect();
        let lasting = lasting.iter().map(|seed| key(*seed).fingerprint()).collect();
        let user = UserKeys { first: &user, next: &[], trusted: &trusted };
        let keys = Configured { user, named: &BTreeMap::new(), host: host.as_ref(), host_next: &[], lasting: &lasting };
        ring.configured(&keys, at(seconds))
    }

    fn states(ring: &Ring) -> Vec<(Purpose, KeyState, Timestamp)> {
        ring.keys().iter().map(|k| (k.purpose(), k.state, k.since)).collect()
    }

    fn bundle(ring: &Ring) -> BTreeSet<PublicKey> {
        ring.trusted_by_hosts(&CaName::DEFAULT).into_iter().map(|k| k.key).collect()
    }

    #[test]
    fn the_configured_keys_are_active_and_the_same_again_changes_nothing() {
        let first = next(&Ring::default(), 1, Some(2), &[], 0).unwrap();
        assert_eq!(
            states(&first),
            [(Purpose::User, KeyState::Active, at(0)), (Purpose::Host, KeyState::Active, at(0))]
        );
        assert_eq!(next(&first, 1, Some(2), &[], 9), Ok(first.clone()));
        assert_eq!(first.active(&Ca::USER), Some(&key(1)));
        assert_eq!(bundle(&first).len(), 1, "hosts do not trust the host key for users");
    }

    #[test]
    fn a_key_that_is_configured_no_longer_is_trusted_while_its_certificates_last_and_no_longer() {
        let first = next(&Ring::default(), 1, Some(2), &[], 0).unwrap();
        let meanwhile = next_beside(&first, (3, None, &[]), &[1, 2], 5).unwrap();
        assert_eq!(
            states(&meanwhile),
            [
                (Purpose::User, KeyState::Draining, at(5)),
                (Purpose::Host, KeyState::Draining, at(5)),
                (Purpose::User, KeyState::Active, at(5)),
            ]
        );
        assert_eq!(bundle(&meanwhile), BTreeSet::from([key(1), key(3)]));
        assert_eq!(meanwhile.trusted_by_clients().collect::<Vec<_>>(), [&key(2)]);
        assert_eq!(first.succession(&meanwhile, &Ca::USER), Some((&key(3), false)), "nobody trusts it yet");
        assert_eq!(first.succession(&meanwhile, &Ca::Host), None, "none signs for hosts any more");
        let done = next(&meanwhile, 3, None, &[], 9).unwrap();
        assert_eq!(bundle(&done), BTreeSet::from([key(3)]));
        let second = next(&first, 3, None, &[], 5).unwrap();
        assert_eq!(
            states(&second),
            [
                (Purpose::User, KeyState::Retired, at(5)),
                (Purpose::Host, KeyState::Retired, at(5)),
                (Purpose::User, KeyState::Active, at(5)),
            ]
        );
        assert_eq!(bundle(&second), BTreeSet::from([key(3)]));
    }

    #[test]
    fn a_key_is_learnt_before_it_signs_and_trusted_while_its_certificates_last() {
        let one = next(&Ring::default(), 1, None, &[2], 0).unwrap();
        let both = BTreeSet::from([key(1), key(2)]);
        assert_eq!((states(&one)[1], bundle(&one)), ((Purpose::User, KeyState::Staged, at(0)), both.clone()));
        let two = next(&one, 2, None, &[1], 5).unwrap();
        let states_now: Vec<KeyState> = two.keys().iter().map(|k| k.state).collect();
        assert_eq!((states_now, bundle(&two)), (vec![KeyState::Draining, KeyState::Active], both));
        let three = next(&two, 2, None, &[], 9).unwrap();
        assert_eq!((three.keys()[0].state, bundle(&three)), (KeyState::Retired, BTreeSet::from([key(2)])));
        assert_eq!(next(&Ring::default(), 1, None, &[1], 0), Err(RingError::Twice));
        assert_eq!(next(&Ring::default(), 1, Some(2), &[2], 0), Err(RingError::Twice));
    }

    #[test]
    fn where_the_key_that_signs_is_gone_one_that_hosts_trust_takes_over() {
        let (first, spare, other) = (key(1), key(2), key(3));
        let none = BTreeSet::new();
        let named = BTreeMap::new();
        let keys = |first, next| Configured {
            user: UserKeys { first, next, trusted: &[] },
            named: &named,
            host: None,
            host_next: &[],
            lasting: &none,
        };
        let ring = Ring::default().configured(&keys(&first, std::slice::from_ref(&spare)), at(0)).unwrap();
        let staged = RingKey { ca: Ca::USER, key: spare.clone(), state: KeyState::Staged, since: at(1) };
        let ring = Ring::new([ring.keys(), &[staged]].concat()).unwrap();
        let after = ring.configured(&keys(&other, std::slice::from_ref(&spare)), at(2)).unwrap();
        assert_eq!((after.active(&Ca::USER), ring.succession(&after, &Ca::USER)), (Some(&spare), Some((&spare, true))));
    }

    #[test]
    fn after_the_only_key_was_compromised_none_signs_until_there_is_another() {
        let lost = RingKey { ca: Ca::USER, key: key(1), state: KeyState::Compromised, since: at(0) };
        let ring = Ring::new(vec![lost]).unwrap();
        assert_eq!(next(&ring, 1, None, &[], 5), Ok(ring.clone()), "it starts, to tell hosts");
        let retired = RingKey { ca: Ca::USER, key: key(7), state: KeyState::Retired, since: at(0) };
        let both = Ring::new([ring.keys(), &[retired]].concat()).unwrap();
        assert_eq!(next(&both, 7, None, &[], 5), Ok(both), "nobody trusts that one any more");
        let mended = next(&ring, 2, None, &[], 5).unwrap();
        assert_eq!((mended.active(&Ca::USER), bundle(&mended)), (Some(&key(2)), BTreeSet::from([key(2)])));
        assert_eq!(next(&mended, 1, None, &[], 9), Err(RingError::Compromised));
        assert_eq!(next(&mended, 2, None, &[1], 9), Err(RingError::Compromised));
    }

    #[test]
    fn one_key_never_serves_both_purposes() {
        assert_eq!(next(&Ring::default(), 1, Some(1), &[], 0), Err(RingError::Twice));
        let first = next(&Ring::default(), 1, None, &[], 0).unwrap();
        let swapped = next(&first, 2, Some(1), &[], 1);
        assert_eq!(swapped, Err(RingError::Twice), "some host may still trust it for the other");
    }

    #[test]
    fn each_ca_has_a_key_that_signs_and_no_key_is_of_two() {
        let (usual, first, spare, none) = (key(1), key(2), key(3), BTreeSet::new());
        let (lab, prod) = (CaName::parse("lab").unwrap(), CaName::parse("prod").unwrap());
        let keys = |first, next| UserKeys { first, next, trusted: &[] };
        let ring = |ring: &Ring, named: &BTreeMap<CaName, UserKeys<'_>>, seconds| {
            let user = keys(&usual, &[]);
            ring.configured(&Configured { user, named, host: None, host_next: &[], lasting: &none }, at(seconds))
        };
        let of_prod = BTreeMap::from([(prod.clone(), keys(&first, std::slice::from_ref(&spare)))]);
        let both = ring(&Ring::default(), &of_prod, 0).unwrap();
        let signs =
            |ring: &Ring, name: &CaName| ring.signs_for(&Ca::User(name.clone())).map(|active| active.key().clone());
        assert_eq!((signs(&both, &CaName::DEFAULT), signs(&both, &prod)), (Some(key(1)), Some(key(2))));
        assert_eq!((signs(&both, &lab), both.user_cas()), (None, BTreeSet::from([CaName::DEFAULT, prod.clone()])));
        assert_eq!(ring(&both, &of_prod, 9), Ok(both.clone()), "the same again changes nothing");
        let trusted = |ring: &Ring, name: &CaName| -> Vec<PublicKey> {
            ring.trusted_by_hosts(name).into_iter().map(|known| known.key).collect()
        };
        assert_eq!((trusted(&both, &CaName::DEFAULT), trusted(&both, &prod)), (vec![key(1)], vec![key(2)]));
        // Neither now nor later: some host of the one may still trust it.
        let twice = BTreeMap::from([(prod.clone(), keys(&usual, &[]))]);
        assert_eq!(ring(&Ring::default(), &twice, 0), Err(RingError::Twice));
        let moved = BTreeMap::from([(lab, keys(&first, &[]))]);
        assert_eq!(ring(&both, &moved, 5), Err(RingError::Twice));
        // What is configured no longer is gone, and the others are what they were.
        let gone = ring(&both, &BTreeMap::new(), 5).unwrap();
        assert_eq!((signs(&gone, &prod), trusted(&gone, &prod)), (None, Vec::new()));
        assert_eq!(trusted(&gone, &CaName::DEFAULT), vec![key(1)]);
    }

    #[test]
    fn a_ring_that_is_full_forgets_retired_keys_first() {
        let mut ring = Ring::default();
        for seed in 0..40 {
            ring = next(&ring, seed, None, &[], u64::from(seed)).unwrap();
        }
        assert_eq!((ring.keys().len(), ring.active(&Ca::USER)), (KEYS_MAX, Some(&key(39))));
    }

    proptest! {
        /// Whatever was configured before, one key signs, hosts trust exactly what is configured now, and nothing moves without a change.
        #[test]
        fn after_any_history_hosts_trust_what_is_configured_and_nothing_else(
            history in proptest::collection::vec((0_u8..6, proptest::collection::vec(0_u8..6, 0..4)), 1..12)
        ) {
            let mut ring = Ring::default();
            for (number, (user, trusted)) in (0..).zip(&history) {
                let configured: BTreeSet<PublicKey> = trusted.iter().chain([user]).copied().map(key).collect();
                let after = next(&ring, *user, None, trusted, number);
                if configured.len() <= trusted.len() {
                    prop_assert_eq!(after, Err(RingError::Twice));
                    continue;
                }
                let after = after.unwrap();
                prop_assert_eq!(after.active(&Ca::USER), Some(&key(*user)));
                prop_assert_eq!(bundle(&after), configured);
                for old in ring.keys() {
                    let new = after.keys().iter().find(|new| new.key == old.key).unwrap();
                    prop_assert_eq!(new.since == old.since, new.state == old.state);
                    let had_signed = matches!(old.state, KeyState::Active | KeyState::Draining);
                    prop_assert!(!(had_signed && new.state == KeyState::Staged), "what has signed is not new");
                }
                prop_assert_eq!(next(&after, *user, None, trusted, number.saturating_add(1)), Ok(after.clone()));
                ring = after;
            }
        }
    }
}
