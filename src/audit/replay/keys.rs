//! CA keys, as far as the log tells: which could sign when, and whether each move was one that a rotation has.
//!
//! The rules of `keyring` stated a second time, over entries: one key signs at a time; a key signs for people only while it is active; none
//! is dropped by a rotation while a certificate of it lasts; what was compromised never comes back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Wrong, ensure};
use crate::audit::entry::Entry;
use crate::audit::event::{Event, Mover};
use crate::keyring::Ring;
use crate::keyring::step::{Proposal, Step};
use crate::name::{PersonName, RequestId};
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Timestamp, Window};

/// What is known of the CA keys after the entries so far.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Those that may sign user certificates for people.
    pub(super) signs: BTreeSet<Fingerprint>,
    /// The newest ring that an entry has said.
    ring: Option<Ring>,
    /// What is proposed, by whom, and until when.
    proposal: Option<(PersonName, Proposal, Timestamp)>,
    /// For each request that is not over, when the last of its certificates by each key ends.
    lasting: BTreeMap<RequestId, BTreeMap<Fingerprint, Timestamp>>,
}

impl Keys {
    /// Once the log says which CA keys there are, only the active one signs.
    pub(super) fn started(&mut self, ca: Fingerprint, keys: Option<&Ring>, at: Timestamp) -> Result<(), Wrong> {
        let Some(ring) = keys else {
            if self.ring.as_ref().is_some_and(|ring| ring.active(Purpose::User).is_none()) {
                // None signs, so it does not matter which one was configured.
                return Ok(());
            }
            let known = self.ring.is_none() || self.signs.contains(&ca);
            self.signs.insert(ca);
            return ensure(known, || format!("the service started with {ca}, which is not the active CA key"));
        };
        let kept = self.check_compromised(ring).and_then(|()| self.check_kept(ring, at));
        self.replace(ring);
        self.proposal = None;
        let is_active = self.signs.contains(&ca) || self.signs.is_empty();
        if is_active {
            return kept;
        }
        self.signs.insert(ca);
        Err(format!("the service started with {ca}, which is not the active one of its CA keys").into())
    }

    /// A step of a rotation.
    pub(super) fn changed(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let Event::CaKeysChanged { by, step, keys: ring, purpose, proposer, .. } = &entry.event else { return Ok(()) };
        let purpose = purpose.unwrap_or(Purpose::User);
        let proposal = self.proposal.take();
        let checked = self
            .check_compromised(ring)
            .and_then(|()| self.check_moves((*step, purpose), ring, entry.at))
            .and_then(|()| check_second((by, proposer.as_ref()), (*step, purpose), proposal.as_ref(), entry.at));
        let had_active = self.ring.as_ref().is_some_and(|ring| ring.active(purpose).is_some());
        let has_active = ring.active(purpose).is_some() || *step == Step::Compromise || !had_active;
        self.replace(ring);
        ensure(has_active, || format!("no {purpose} CA key is active after it"))?;
        checked
    }

    /// Somebody proposes one; the keys stay what they are.
    pub(super) fn proposed(&mut self, entry: &Entry) -> Result<(), Wrong> {
        let Event::CaStepProposed { by, proposal, until, keys, .. } = &entry.event else { return Ok(()) };
        self.proposal = Some((by.clone(), proposal.clone(), *until));
        let is_same = self.ring.as_ref().is_none_or(|ring| ring == keys);
        self.replace(keys);
        ensure(is_same, || "a proposal changes the CA keys".to_owned())
    }

    /// A certificate for people is about to be signed.
    pub(super) fn signing(&mut self, request: RequestId, ca: Fingerprint, window: Window) {
        let end = self.lasting.entry(request).or_default().entry(ca).or_insert(window.end());
        *end = window.end().max(*end);
    }

    /// A request is over, by its time or before it.
    pub(super) fn over(&mut self, request: RequestId) {
        self.lasting.remove(&request);
    }

    /// A host logs in to itself with any key that it must trust.
    pub(super) fn check_trusted(&self, ca: Fingerprint) -> Result<(), Wrong> {
        let is_trusted = |ring: &Ring| ring.trusted_by_hosts().iter().any(|key| key.key.fingerprint() == ca);
        ensure(self.ring.as_ref().is_none_or(is_trusted), || format!("hosts do not trust {ca}"))
    }

    /// A host certificate is made by the active host key.
    pub(super) fn check_vouches(&self, ca: Fingerprint) -> Result<(), Wrong> {
        let vouches = |ring: &Ring| ring.active(Purpose::Host).is_none_or(|key| key.fingerprint() == ca);
        ensure(self.ring.as_ref().is_none_or(vouches), || format!("{ca} is not the active host CA key"))
    }

    fn lasts(&self, ca: Fingerprint, at: Timestamp) -> bool {
        self.lasting.values().any(|ends| ends.get(&ca).is_some_and(|end| at < *end))
    }

    /// A start drops no key while a certificate by it lasts.
    fn check_kept(&self, ring: &Ring, at: Timestamp) -> Result<(), Wrong> {
        let before = self.ring.iter().flat_map(Ring::trusted_by_hosts);
        let is_kept = |key: &PublicKey| ring.known(key).is_some_and(|known| known.state.is_trusted());
        let mut dropped = before.map(|key| key.key).filter(|key| !is_kept(key)).map(|key| key.fingerprint());
        match dropped.find(|ca| self.lasts(*ca, at)) {
            Some(ca) => Err(format!("a start dropped {ca}, and certificates by it lasted longer").into()),
            None => Ok(()),
        }
    }

    fn replace(&mut self, ring: &Ring) {
        self.signs = ring.active(Purpose::User).map(PublicKey::fingerprint).into_iter().collect();
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

    fn check_moves(&self, (step, purpose): (Step, Purpose), ring: &Ring, at: Timestamp) -> Result<(), Wrong> {
        for key in ring.keys() {
            let before = self.ring.as_ref().and_then(|before| before.known(&key.key)).map(|known| known.state);
            if before == Some(key.state) {
                continue;
            }
            let ca = key.key.fingerprint();
            ensure(key.purpose == purpose && is_move(step, before, key.state), || {
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
    (step, purpose): (Step, Purpose),
    proposal: Option<&(PersonName, Proposal, Timestamp)>,
    at: Timestamp,
) -> Result<(), Wrong> {
    let Some(proposer) = proposer else { return Ok(()) };
    ensure(by.person() != Some(proposer), || format!("{proposer} is both of the two people"))?;
    let fits = |(who, what, until): &(PersonName, Proposal, Timestamp)| {
        who == proposer && (what.step, what.purpose) == (step, purpose) && at < *until
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
