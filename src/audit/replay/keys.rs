//! CA keys, as far as the log tells: which could sign when, and whether each move was one that a rotation has.
//!
//! The rules of `keyring` stated a second time, over entries: one key signs at a time; a key signs for people only while it is active; none
//! is dropped by a rotation while a certificate of it lasts; what was compromised never comes back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Wrong, ensure};
use crate::keyring::Ring;
use crate::keyring::plan::Step;
use crate::name::RequestId;
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
    /// For each request that is not over, when the last of its certificates by each key ends.
    lasting: BTreeMap<RequestId, BTreeMap<Fingerprint, Timestamp>>,
}

impl Keys {
    /// Once the log says which CA keys there are, only the active one signs.
    pub(super) fn started(&mut self, ca: Fingerprint, keys: Option<&Ring>) -> Result<(), Wrong> {
        let Some(ring) = keys else {
            let known = self.ring.is_none() || self.signs.contains(&ca);
            self.signs.insert(ca);
            return ensure(known, || format!("the service started with {ca}, which is not the active CA key"));
        };
        let kept = self.check_compromised(ring);
        self.replace(ring);
        let is_active = self.signs.contains(&ca);
        self.signs.insert(ca);
        ensure(is_active, || format!("the service started with {ca}, which is not the active one of its CA keys"))?;
        kept
    }

    /// A step of a rotation.
    pub(super) fn changed(&mut self, step: Step, ring: &Ring, at: Timestamp) -> Result<(), Wrong> {
        let checked = self.check_compromised(ring).and_then(|()| self.check_moves(step, ring, at));
        let has_active = ring.active(Purpose::User).is_some();
        self.replace(ring);
        ensure(has_active, || "no user CA key is active after it".to_owned())?;
        checked
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

    fn check_moves(&self, step: Step, ring: &Ring, at: Timestamp) -> Result<(), Wrong> {
        for key in ring.keys() {
            let before = self.ring.as_ref().and_then(|before| before.known(&key.key)).map(|known| known.state);
            if before == Some(key.state) {
                continue;
            }
            let ca = key.key.fingerprint();
            ensure(key.purpose == Purpose::User && is_move(step, before, key.state), || {
                let before = before.map_or("unknown", KeyState::word);
                format!("\"{}\" does not make {ca} {}, which was {before}", step.word(), key.state)
            })?;
            let lasts = self.lasting.values().any(|ends| ends.get(&ca).is_some_and(|end| at < *end));
            ensure(key.state != KeyState::Retired || !lasts, || format!("certificates by {ca} lasted longer"))?;
        }
        Ok(())
    }
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
