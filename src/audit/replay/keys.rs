//! CA keys, as far as the log tells: which could sign when, and whether each move was one that a rotation has.
//!
//! The rules of `keyring` stated a second time, over entries: one key signs at a time; a key signs for people only while it is active; none
//! is dropped by a rotation while a certificate of it lasts; what was compromised never comes back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::host::HostCa;
use super::{Wrong, ensure};
use crate::audit::entry::Entry;
use crate::audit::event::{Event, Kept, Mover, Stand};
use crate::keyring::step::{Proposal, Step};
use crate::keyring::{Ca, Ring};
use crate::name::{CaName, PersonName, RequestId};
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Timestamp, Window};

/// What is known of the CA keys after the entries so far.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// For each user CA, those that may sign certificates for people.
    signs: BTreeMap<CaName, BTreeSet<Fingerprint>>,
    /// The newest ring that an entry has said.
    ring: Option<Ring>,
    /// Since when the trust bundle of each user CA is what it is.
    stands: BTreeMap<CaName, Stand>,
    /// What is proposed, by whom, and until when.
    proposal: Option<(PersonName, Proposal, Timestamp)>,
    /// For each request that is not over, when the last of its certificates by each key ends.
    lasting: BTreeMap<RequestId, Vec<(Fingerprint, Timestamp)>>,
}

impl Keys {
    /// Once the log says which CA keys there are, only the active one signs.
    pub(super) fn started(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let Event::ServiceStarted { ca, keys, kept, .. } = &entry.event else { return Ok(()) };
        let (ca, at) = (*ca, entry.at);
        let Some(ring) = keys else {
            if self.ring.as_ref().is_some_and(|ring| ring.active(&Ca::USER).is_none()) {
                // None signs, so it does not matter which one was configured.
                return Ok(());
            }
            let signs = self.signs.entry(CaName::DEFAULT).or_default();
            let known = self.ring.is_none() || signs.contains(&ca);
            signs.insert(ca);
            return ensure(known, || format!("the service started with {ca}, which is not the active CA key"));
        };
        let stands = self.check_stands(ring, kept.as_ref());
        let kept_keys = self.check_compromised(ring).and_then(|()| self.check_kept(ring, at)).and(stands);
        self.replace(ring, kept.as_ref(), entry);
        self.proposal = None;
        let signs = self.signs.entry(CaName::DEFAULT).or_default();
        let is_active = signs.contains(&ca) || signs.is_empty();
        if is_active {
            return kept_keys;
        }
        signs.insert(ca);
        Err(format!("the service started with {ca}, which is not the active one of its CA keys").into())
    }

    /// A step of a rotation.
    pub(super) fn changed(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let Event::CaKeysChanged { by, step, keys: ring, purpose, proposer, ca, kept, .. } = &entry.event else {
            return Ok(());
        };
        let ca = Ca::of(purpose.unwrap_or(Purpose::User), ca.clone()).map_err(str::to_owned)?;
        let proposal = self.proposal.take();
        let checked = self
            .check_compromised(ring)
            .and_then(|()| self.check_moves((*step, &ca), ring, entry.at))
            .and_then(|()| self.check_stands(ring, kept.as_ref()))
            .and_then(|()| check_second((by, proposer.as_ref()), (*step, &ca), proposal.as_ref(), entry.at));
        let had_active = self.ring.as_ref().is_some_and(|ring| ring.active(&ca).is_some());
        let has_active = ring.active(&ca).is_some() || *step == Step::Compromise || !had_active;
        self.replace(ring, kept.as_ref(), entry);
        ensure(has_active, || format!("no {ca} CA key is active after it"))?;
        checked
    }

    /// Somebody proposes one; the keys stay what they are.
    pub(super) fn proposed(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let Event::CaStepProposed { by, proposal, until, keys, version, since, kept, .. } = &entry.event else {
            return Ok(());
        };
        self.proposal = Some((by.clone(), proposal.clone(), *until));
        let is_same = self.ring.as_ref().is_none_or(|ring| ring == keys);
        let usual = (CaName::DEFAULT, Stand { version: *version, since: *since });
        let stands: Kept = kept.iter().flatten().map(|(ca, stand)| (ca.clone(), *stand)).chain([usual]).collect();
        let are_same = self.ring.is_none() || stands == self.stands;
        self.replace(keys, Some(&stands), entry);
        ensure(is_same && are_same, || "a proposal changes the CA keys".to_owned())
    }

    /// A certificate for people is about to be signed.
    pub(super) fn signing(&mut self, request: RequestId, ca: Fingerprint, window: Window) {
        // Most have one.
        let ends = self.lasting.entry(request).or_insert_with(|| Vec::with_capacity(1));
        ends.push((ca, window.end()));
        // By key, and of each key the latest.
        ends.sort_unstable_by_key(|(key, end)| (*key, Reverse(*end)));
        ends.dedup_by_key(|(key, _)| *key);
    }

    /// A request is over, by its time or before it.
    pub(super) fn over(&mut self, request: RequestId) {
        self.lasting.remove(&request);
    }

    /// Whether this key signs for this user CA.
    pub(super) fn signs_for(&self, ca: &CaName, key: Fingerprint) -> bool {
        self.signs.get(ca).is_some_and(|keys| keys.contains(&key))
    }

    /// Whether it signs for any.
    pub(super) fn signs_at_all(&self, key: Fingerprint) -> bool {
        self.signs.values().any(|keys| keys.contains(&key))
    }

    /// Whether hosts of this user CA trust this key.
    pub(super) fn is_of(&self, ca: &CaName, key: Fingerprint) -> bool {
        let trusted = self.ring.iter().flat_map(|ring| ring.trusted_by_hosts(ca));
        trusted.map(|known| known.key.fingerprint()).any(|known| known == key)
    }

    /// Whether any host may trust it.
    pub(super) fn is_trusted(&self, key: Fingerprint) -> bool {
        self.ring.iter().flat_map(Ring::user_cas).any(|ca| self.is_of(&ca, key))
    }

    /// The keys by which certificates of a request last.
    pub(super) fn lasting_of(&self, request: RequestId, at: Timestamp) -> impl Iterator<Item = Fingerprint> {
        let ends = self.lasting.get(&request).into_iter().flatten();
        ends.filter(move |(_, end)| at < *end).map(|(key, _)| *key)
    }

    /// A host logs in to itself with any key that it must trust.
    pub(super) fn check_trusted(&self, key: Fingerprint, host: Option<HostCa<'_>>) -> Result<(), Wrong> {
        let (Some(_), Some(host)) = (&self.ring, host) else { return Ok(()) };
        let is_kept = host.keeps.contains(&key) && self.is_trusted(key);
        ensure(is_kept || self.is_of(host.ca, key), || format!("hosts of CA {} do not trust {key}", host.ca))
    }

    /// A bundle that keeps its version is what it was.
    fn check_stands(&self, ring: &Ring, kept: Option<&Kept>) -> Result<(), Wrong> {
        let (Some(kept), Some(before)) = (kept, &self.ring) else { return Ok(()) };
        let is_same = |(ca, stand): &(&CaName, &Stand)| {
            self.stands.get(*ca) == Some(*stand) && before.trusted_by_hosts(ca) == ring.trusted_by_hosts(ca)
        };
        match kept.iter().find(|known| !is_same(known)) {
            Some((ca, _)) => Err(format!("the trust bundle of CA {ca} is another one, and keeps its version").into()),
            None => Ok(()),
        }
    }

    /// A host certificate is made by the active host key.
    pub(super) fn check_vouches(&self, ca: Fingerprint) -> Result<(), Wrong> {
        let vouches = |ring: &Ring| ring.active(&Ca::Host).is_none_or(|key| key.fingerprint() == ca);
        ensure(self.ring.as_ref().is_none_or(vouches), || format!("{ca} is not the active host CA key"))
    }

    fn lasts(&self, ca: Fingerprint, at: Timestamp) -> bool {
        self.lasting.values().flatten().any(|(key, end)| *key == ca && at < *end)
    }

    /// A start drops no key while a certificate by it lasts.
    fn check_kept(&self, ring: &Ring, at: Timestamp) -> Result<(), Wrong> {
        let before = self.ring.iter().flat_map(|ring| {
            let cas = ring.user_cas();
            cas.into_iter().flat_map(|ca| ring.trusted_by_hosts(&ca))
        });
        let is_kept = |key: &PublicKey| ring.known(key).is_some_and(|known| known.state.is_trusted());
        let mut dropped = before.map(|key| key.key).filter(|key| !is_kept(key)).map(|key| key.fingerprint());
        match dropped.find(|ca| self.lasts(*ca, at)) {
            Some(ca) => Err(format!("a start dropped {ca}, and certificates by it lasted longer").into()),
            None => Ok(()),
        }
    }

    fn replace(&mut self, ring: &Ring, kept: Option<&Kept>, entry: &Entry) {
        let here = Stand { version: entry.index, since: entry.at };
        let stand = |ca: &CaName| kept.and_then(|kept| kept.get(ca)).copied().unwrap_or(here);
        let signs = |ca: &CaName| ring.active(&Ca::User(ca.clone())).map(PublicKey::fingerprint).into_iter().collect();
        self.stands = ring.user_cas().into_iter().map(|ca| (ca.clone(), stand(&ca))).collect();
        self.signs = ring.user_cas().into_iter().map(|ca| (ca.clone(), signs(&ca))).collect();
        self.ring = Some(ring.clone());
    }

    fn check_compromised(&self, ring: &Ring) -> Result<(), Wrong> {
        let lost = self.ring.iter().flat_map(Ring::keys).filter(|known| known.state == KeyState::Compromised);
        let state = |key: &PublicKey| ring.known(key).map(|known| known.state);
        match lost.into_iter().find(|known| state(&known.key) != Some(KeyState::Compromised)) {
            Some(known) => Err(format!("{} was compromised and is no longer", known.key.fingerprint()).into()),
            None => Ok(()),
        }
    }

    fn check_moves(&self, (step, ca): (Step, &Ca), ring: &Ring, at: Timestamp) -> Result<(), Wrong> {
        for key in ring.keys() {
            let before = self.ring.as_ref().and_then(|before| before.known(&key.key)).map(|known| known.state);
            if before == Some(key.state) {
                continue;
            }
            let of = ca;
            let ca = key.key.fingerprint();
            ensure(key.ca == *of && is_move(step, before, key.state), || {
                let before = before.map_or("unknown", KeyState::word);
                format!("\"{}\" does not make {ca} {}, which was {before}", step.word(), key.state)
            })?;
            let lasts = key.state == KeyState::Retired && self.lasts(ca, at);
            ensure(!lasts, || format!("certificates by {ca} lasted longer"))?;
        }
        Ok(())
    }
}

/// A step that two people took was proposed by the other one, to the letter and in time.
fn check_second(
    (by, proposer): (&Mover, Option<&PersonName>),
    (step, ca): (Step, &Ca),
    proposal: Option<&(PersonName, Proposal, Timestamp)>,
    at: Timestamp,
) -> Result<(), Wrong> {
    let Some(proposer) = proposer else { return Ok(()) };
    ensure(by.person() != Some(proposer), || format!("{proposer} is both of the two people"))?;
    let fits = |(who, what, until): &(PersonName, Proposal, Timestamp)| {
        who == proposer && (what.step, &what.ca) == (step, ca) && at < *until
    };
    ensure(proposal.is_some_and(fits), || format!("{proposer} did not propose it, or it had lapsed"))
}

/// Whether a step moves a key so.
const fn is_move(step: Step, from: Option<KeyState>, to: KeyState) -> bool {
    use KeyState::{Active, Compromised, Draining, Retired, Staged};
    match step {
        Step::Start => matches!((from, to), (None | Some(Retired), Staged)),
        Step::Switch => matches!((from, to), (Some(Staged), Active) | (Some(Active), Draining)),
        Step::Finish => matches!((from, to), (Some(Draining), Retired)),
        Step::Abort => {
            matches!((from, to), (Some(Staged), Retired) | (Some(Draining), Active) | (Some(Active), Draining))
        }
        Step::Compromise => matches!((from, to), (Some(_), Compromised) | (Some(Staged | Draining), Active)),
    }
}
