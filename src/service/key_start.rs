//! The CA keys at a start: what the log says of them against what is configured.
//!
//! Invariants: no key is dropped while a certificate by it lasts (I-22). Where another key would sign than before, it must be one that
//! others were told to trust, and that each enrolled host has in the file that its sshd reads, by what it said last (I-21); or whoever
//! starts the service names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::inventory::Hosts;
use super::keys::Known;
use super::{Failure, NamedCa, Outcome};
use crate::inventory::Inventory;
use crate::inventory::check_in::Seen;
use crate::inventory::permit::HOST_LIFETIME;
use crate::keyring::{Ca, Configured, Ring, UserKeys};
use crate::name::{CaName, HostName};
use crate::signer::Signer;
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::Store;
use crate::time::{Lifetime, Timestamp};

/// For each CA key, the hosts with a host certificate by it that is not over, and until when.
pub(super) type Shown = BTreeMap<Fingerprint, BTreeMap<HostName, Timestamp>>;

/// The CA keys that are there.
pub(super) struct Opened<'o> {
    pub(super) user: &'o Arc<dyn Signer>,
    pub(super) next: &'o [Arc<dyn Signer>],
    pub(super) host: Option<&'o Arc<dyn Signer>>,
    pub(super) host_next: &'o [Arc<dyn Signer>],
    pub(super) trusted: &'o [PublicKey],
    pub(super) named: &'o BTreeMap<CaName, NamedCa>,
}

/// What a start goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct May {
    /// A CA key that may sign whoever trusts it.
    pub(super) accepted: Option<Fingerprint>,
    /// How long clients must have been able to fetch a host key before it signs.
    pub(super) published: Lifetime,
}

/// A start would have a CA key sign that others do not trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// Of which CA it is.
    pub ca: Ca,
    /// The key that signs now, and is not configured any more.
    pub old: Fingerprint,
    /// The one that would sign in its place.
    pub new: Fingerprint,
    /// Whether anybody was told to trust it.
    pub is_known: bool,
    /// Enrolled hosts that do not have it.
    pub hosts: BTreeSet<HostName>,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ca, old, new, is_known, hosts } = self;
        write!(f, "the active {ca} CA key {old} is not configured any more, and {new} would sign in its place, ")?;
        if !is_known {
            return f.write_str("which nobody was told to trust, or not for long enough");
        }
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        write!(f, "which these hosts do not trust yet: {}", names.join(", "))
    }
}

impl Opened<'_> {
    /// All of them, each with its CA.
    pub(super) fn signers(&self) -> impl Iterator<Item = (Ca, &Arc<dyn Signer>)> {
        let user = std::iter::once(self.user).chain(self.next).map(|signer| (Ca::USER, signer));
        let named = self.named.iter().flat_map(|(name, ca)| {
            std::iter::once(&ca.signer).chain(&ca.next).map(|signer| (Ca::User(name.clone()), signer))
        });
        let host = self.host.into_iter().chain(self.host_next).map(|signer| (Ca::Host, signer));
        user.chain(named).chain(host)
    }

    /// All keys that hosts trust by the configuration, and that sign nothing here.
    pub(super) fn listed(&self) -> Vec<PublicKey> {
        self.trusted.iter().chain(self.named.values().flat_map(|ca| &ca.trusted)).cloned().collect()
    }

    /// The user CAs that there are.
    pub(super) fn user_cas(&self) -> BTreeSet<CaName> {
        self.named.keys().cloned().chain([CaName::DEFAULT]).collect()
    }

    fn check_purposes(&self) -> Outcome<()> {
        if self.signers().all(|(ca, signer)| signer.purpose() == ca.purpose()) {
            return Ok(());
        }
        Err(Failure::internal("opening the CA keys", "a key was opened for the other purpose"))
    }

    /// The ring with these keys, if that is another one than the log says.
    ///
    /// # Errors
    /// `Invalid` when the keys don't go together, `Untrusted`.
    pub(super) async fn ring(
        &self,
        known: &Known,
        (store, hosts): (&dyn Store, &Hosts),
        may: May,
        now: Timestamp,
    ) -> Outcome<Option<Ring>> {
        self.check_purposes()?;
        let keys = |signers: &[Arc<dyn Signer>]| -> Vec<PublicKey> {
            signers.iter().map(|signer| signer.public_key().clone()).collect()
        };
        let (next, host_next) = (keys(self.next), keys(self.host_next));
        let lasting = self.lasting(&known.ring, (store, hosts), now).await?;
        let next_named: BTreeMap<&CaName, Vec<PublicKey>> =
            self.named.iter().map(|(name, ca)| (name, keys(&ca.next))).collect();
        let mut named = BTreeMap::new();
        for ((name, ca), next) in self.named.iter().zip(next_named.values()) {
            named.insert(name.clone(), UserKeys { first: ca.signer.public_key(), next, trusted: &ca.trusted });
        }
        let configured = Configured {
            user: UserKeys { first: self.user.public_key(), next: &next, trusted: self.trusted },
            named: &named,
            host: self.host.map(|signer| signer.public_key()),
            host_next: &host_next,
            lasting: &lasting,
        };
        let ring = known.ring.configured(&configured, now);
        let ring = ring.map_err(|why| Failure::Invalid(format!("the configured CA keys can't be used: {why}")))?;
        let cas: BTreeSet<&Ca> = ring.keys().iter().map(|known| &known.ca).collect();
        for ca in cas {
            check_succession((&known.ring, &ring), ca, hosts, (may, now))?;
        }
        warn_of_gone(&known.ring, &ring);
        Ok((ring != known.ring).then_some(ring))
    }

    /// The keys by which certificates last, as far as it matters: of those that are not configured any more.
    async fn lasting(
        &self,
        ring: &Ring,
        (store, hosts): (&dyn Store, &Hosts),
        now: Timestamp,
    ) -> Outcome<BTreeSet<Fingerprint>> {
        let is_gone = |key: &PublicKey| !self.signers().any(|(_, signer)| signer.public_key() == key);
        let gone = ring.keys().iter().filter(|known| known.state.is_trusted() && is_gone(&known.key));
        let purposes: BTreeSet<Purpose> = gone.map(crate::keyring::RingKey::purpose).collect();
        let mut lasting = BTreeSet::new();
        if purposes.contains(&Purpose::User) {
            lasting.extend(store.live_certificates(now).await?.iter().map(|one| one.ca));
        }
        if purposes.contains(&Purpose::Host) {
            let (inventory, seen) = (hosts.inventory(), store.seen().await?);
            let mut shown = shown(store, &inventory, now).await?;
            add_said(&mut shown, &inventory, |host| seen.get(host).cloned(), now);
            lasting.extend(shown.into_keys());
        }
        Ok(lasting)
    }
}

/// Who has host certificates by which CA key: the newest of each key of each enrolled host, as far as they are not over.
pub(super) async fn shown(store: &dyn Store, inventory: &Inventory, now: Timestamp) -> Outcome<Shown> {
    let mut shown = Shown::new();
    for host in inventory.active() {
        for certificate in store.host_certificates(host.name.clone()).await? {
            let (tbs, end) = (certificate.tbs(), certificate.tbs().fields().window.end());
            let is_its = tbs.purpose() == Purpose::Host && host.keys.contains(tbs.subject());
            if is_its && now < end {
                let until = shown.entry(certificate.ca_fingerprint()).or_default().entry(host.name.clone());
                let until = until.or_insert(end);
                *until = end.max(*until);
            }
        }
    }
    Ok(shown)
}

/// Adds what hosts say of themselves, as long as it can be true: what was handed out need not have been put in place.
pub(super) fn add_said(
    shown: &mut Shown,
    inventory: &Inventory,
    seen: impl Fn(&HostName) -> Option<Seen>,
    now: Timestamp,
) {
    for (host, seen) in inventory.active().filter_map(|host| Some((&host.name, seen(&host.name)?))) {
        let Ok(until) = seen.at.plus(HOST_LIFETIME) else { continue };
        for ca in seen.check_in.shows.iter().filter(|_| now < until) {
            shown.entry(*ca).or_default().entry(host.clone()).or_insert(until);
        }
    }
}

/// A start must not have a key sign that is not trusted.
fn check_succession(
    (before, after): (&Ring, &Ring),
    ca: &Ca,
    hosts: &Hosts,
    (may, now): (May, Timestamp),
) -> Outcome<()> {
    let Some((key, is_known)) = before.succession(after, ca) else { return Ok(()) };
    let (old, new) = (before.active(ca).map(PublicKey::fingerprint), key.fingerprint());
    if may.accepted == Some(new) {
        tracing::warn!(of = %ca, ca = %new, "another CA key signs, although not everybody is known to trust it");
        return Ok(());
    }
    let behind = match ca {
        Ca::User(name) => hosts.without(name, new),
        Ca::Host => BTreeSet::new(),
    };
    let is_new = |known: &crate::keyring::RingKey| {
        known.state == KeyState::Staged && now.seconds_since(known.since) < u64::from(may.published.seconds())
    };
    let is_known = is_known && !(*ca == Ca::Host && before.known(key).is_some_and(is_new));
    if is_known && behind.is_empty() {
        return Ok(());
    }
    let untrusted = Untrusted { ca: ca.clone(), old: old.unwrap_or(new), new, is_known, hosts: behind };
    Err(Failure::Untrusted(Box::new(untrusted)))
}

/// A key that is taken out while its certificates run is either stolen or a mistake.
fn warn_of_gone(before: &Ring, after: &Ring) {
    let moved = |known: &&crate::keyring::RingKey| {
        after.known(&known.key).is_some_and(|now| now.state == KeyState::Draining && known.state == KeyState::Active)
    };
    for gone in before.keys().iter().filter(moved) {
        let (ca, of) = (gone.key.fingerprint(), &gone.ca);
        tracing::warn!(%ca, %of, "a CA key signs no longer, and stays trusted until its last certificate has ended; \
            if it was stolen: hallpass ca compromise");
    }
}
