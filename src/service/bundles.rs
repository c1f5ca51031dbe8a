//! Trust bundles: one for the hosts of each user CA, and of a host that goes over from one to another its own.
//!
//! Invariants: a bundle has the keys of its CA, and of another CA those alone by which certificates for this one host last. Whatever
//! changes it is an entry of the log; the greatest index of these is its version, so that it only grows, also when a host changes its CA.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::InUse;
use super::{Failure, Outcome, Service, TrustBundle};
use crate::audit::event::{Kept, Stand};
use crate::inventory::EnrolledHost;
use crate::keyring::{Ca, Ring};
use crate::name::CaName;
use crate::ssh::Fingerprint;
use crate::ssh::belonging::Belonging;
use crate::ssh::bundle::{Bundle, BundleKey, KeyState};

/// Since when the bundle of each user CA is what it is.
pub(super) type Stands = BTreeMap<CaName, Stand>;

/// The user CAs whose bundle is the same in the ring that follows, as an entry says it: nothing where there is the default CA alone.
pub(super) fn kept((before, stands): (&Ring, &Stands), after: &Ring) -> Option<Kept> {
    let cas = after.user_cas();
    if cas.iter().all(CaName::is_default) {
        return None;
    }
    let is_same = |ca: &CaName| before.trusted_by_hosts(ca) == after.trusted_by_hosts(ca);
    let same = cas.into_iter().filter(is_same).filter_map(|ca| stands.get(&ca).map(|stand| (ca.clone(), *stand)));
    Some(same.collect()).filter(|kept: &Kept| !kept.is_empty())
}

/// What an entry with this ring says of the stands.
pub(super) fn stands(ring: &Ring, kept: Option<&Kept>, entry: Stand) -> Stands {
    let stand = |ca: &CaName| kept.and_then(|kept| kept.get(ca)).copied().unwrap_or(entry);
    ring.user_cas().into_iter().map(|ca| (ca.clone(), stand(&ca))).collect()
}

impl Service {
    /// The trust bundle of the default CA: what `TrustedUserCAKeys` must hold now, with comments, signed by the log key.
    #[must_use]
    pub fn trust_bundle(&self) -> TrustBundle {
        self.keys.now().bundle.clone()
    }

    /// The same of a user CA; none if there is no such CA.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn trust_bundle_of(&self, ca: &CaName) -> Outcome<TrustBundle> {
        let in_use = self.keys.now();
        let stand = in_use.stands.get(ca).ok_or(Failure::NotFound("user CA"))?;
        self.written(ca, *stand, in_use.ring.trusted_by_hosts(ca))
    }

    /// The trust bundle of a host.
    ///
    /// # Errors
    /// `Internal` when it would be none.
    pub(super) fn bundle_of_host(&self, in_use: &InUse, host: &EnrolledHost) -> Outcome<TrustBundle> {
        let (stand, keys) = (stand_of(in_use, host), keys_of(in_use, host));
        if host.ca.is_default() && stand.version == in_use.bundle.version && host.keeps.is_empty() {
            return Ok(in_use.bundle.clone());
        }
        self.written(&host.ca, stand, keys)
    }

    /// Of which user CA a host is, signed: what tells it that a trust bundle of another CA than before is its own.
    pub(super) fn belonging(&self, host: &EnrolledHost) -> String {
        let since = host.moved.map_or(0, |moved| moved.version);
        Belonging { host: host.name.clone(), ca: host.ca.clone(), since }.to_text(self.log_key.notes())
    }

    /// The version of a host's trust bundle.
    pub(super) fn bundle_version(&self, host: &EnrolledHost) -> u64 {
        stand_of(&self.keys.now(), host).version
    }

    /// The CA keys that a host must trust.
    pub(super) fn bundle_keys(&self, host: &EnrolledHost) -> BTreeSet<Fingerprint> {
        keys_of(&self.keys.now(), host).iter().map(|known| known.key.fingerprint()).collect()
    }

    fn written(&self, ca: &CaName, stand: Stand, keys: Vec<BundleKey>) -> Outcome<TrustBundle> {
        write((&self.settings.public_url, ca), stand, keys, &self.log_key)
    }
}

/// A bundle as text.
pub(super) fn write(
    service_and_ca: (&str, &CaName),
    Stand { version, since }: Stand,
    keys: Vec<BundleKey>,
    log_key: &crate::audit::checkpoint::LogKey,
) -> Outcome<TrustBundle> {
    let bundle = Bundle::new(version, since, service_and_ca, keys);
    let bundle = bundle.map_err(|why| Failure::internal("making a trust bundle", why))?;
    Ok(TrustBundle { version, text: bundle.to_text(log_key.notes()).into() })
}

/// A host that keeps keys of other CAs has another bundle when one of those moves.
fn stand_of(in_use: &InUse, host: &EnrolledHost) -> Stand {
    let of_ca = |ca: &CaName| *ca == host.ca || !host.keeps.is_empty();
    let stands = in_use.stands.iter().filter(|(ca, _)| of_ca(ca)).map(|(_, stand)| *stand);
    let newest = stands.chain(host.moved).max_by_key(|stand| stand.version);
    // A CA that no key was ever of has no stand; nor has a host such a CA.
    newest.unwrap_or(Stand { version: in_use.entry, since: in_use.since })
}

fn keys_of(in_use: &InUse, host: &EnrolledHost) -> Vec<BundleKey> {
    let is_kept = |known: &&crate::keyring::RingKey| {
        let is_other = matches!(&known.ca, Ca::User(ca) if *ca != host.ca);
        is_other && known.state.is_trusted() && host.keeps.contains(&known.key.fingerprint())
    };
    let kept = in_use.ring.keys().iter().filter(is_kept).map(|known| BundleKey {
        key: known.key.clone(),
        // Whatever it does elsewhere: for this host it signs nothing more.
        state: KeyState::Draining,
        since: host.moved.map_or(known.since, |moved| moved.since),
    });
    in_use.ring.trusted_by_hosts(&host.ca).into_iter().chain(kept).collect()
}
