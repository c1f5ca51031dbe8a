//! What operators and auditors see of the CA keys: states, proofs, certificates that last, what waits for a person.

use std::collections::BTreeMap;

use super::key_start::{Shown, add_said, shown};
use super::keys::{Proposed, none_signs};
use super::schedule::Waits;
use super::{Outcome, Service, policy};
use crate::identity::Proven;
use crate::inventory::{EnrolledHost, Inventory};
use crate::keyring::{Ca, RingKey};
use crate::name::{CaName, Digest, HostName};
use crate::signer::Health;
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::LiveCertificate;
use crate::time::Timestamp;

/// A CA key as operators and auditors see it.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// The key, with its state.
    pub known: RingKey,
    /// Whether its backend can be used; none when no backend is configured for it.
    pub is_up: Option<bool>,
    /// Enrolled hosts that do not prove that they trust it, and why not; of keys that hosts must trust.
    pub unproven: BTreeMap<HostName, String>,
    /// Enrolled hosts with a host certificate by it that is not over, and until when; of a host key that drains.
    pub shown: BTreeMap<HostName, Timestamp>,
    /// How many certificates for people by it are not over.
    pub certificates: usize,
    /// When the last of its certificates ends, as far as they are counted.
    pub last_end: Option<Timestamp>,
    /// From when it may sign, if nobody says not to wait; of a host key that is staged.
    pub may_sign: Option<Timestamp>,
}

/// All CA keys.
#[derive(Clone, Debug)]
pub struct KeysView {
    /// Version of the trust bundle.
    pub version: u64,
    /// In the order in which they came.
    pub keys: Vec<KeyView>,
    /// Configured keys that nobody has heard of.
    pub spare: Vec<(Ca, PublicKey)>,
    /// How many hosts are enrolled, of each user CA.
    pub hosts: BTreeMap<CaName, usize>,
    /// Of each user CA the version of its trust bundle.
    pub versions: BTreeMap<CaName, u64>,
    /// Hosts of the policy that are not enrolled, of each user CA: they prove nothing.
    pub by_hand: BTreeMap<CaName, Vec<HostName>>,
    /// A step that waits for a second person.
    pub proposed: Option<Proposed>,
    /// What somebody ought to look at or do, in sentences.
    pub attention: Vec<String>,
}

/// For each key, the hosts that do not prove that they trust it.
pub(super) type Unproven = BTreeMap<Fingerprint, BTreeMap<HostName, String>>;

impl Service {
    /// The CA keys; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`, store failures.
    pub async fn ca_keys(&self, by: &Proven) -> Outcome<KeysView> {
        self.check_reader(by, "read about CA keys")?;
        self.settle_keys().await?;
        let (in_use, now) = (self.keys.now(), self.now());
        let (unproven, live) = (self.unproven(now), self.store.live_certificates(now).await?);
        let shown = self.shown_of_draining(now).await?;
        let (inventory, (_, policy)) = (self.inventory(), self.policy_now());
        let is_enrolled = |name: &HostName| inventory.host(name).is_some_and(|host| host.is_active);
        let mut by_hand: BTreeMap<CaName, Vec<HostName>> = BTreeMap::new();
        for host in policy.hosts().filter(|host| !is_enrolled(&host.name)) {
            by_hand.entry(policy.ca_of(host)).or_default().push(host.name.clone());
        }
        let keys: Vec<KeyView> =
            in_use.ring.keys().iter().map(|known| self.key_view(known, (&unproven, &shown), &live)).collect();
        let spare = self.keys.held.iter().filter(|held| in_use.ring.known(&held.key).is_none());
        Ok(KeysView {
            version: in_use.bundle.version,
            spare: spare.map(|held| (held.ca.clone(), held.key.clone())).collect(),
            hosts: hosts_by_ca(&inventory),
            versions: in_use.stands.iter().map(|(ca, stand)| (ca.clone(), stand.version)).collect(),
            by_hand,
            proposed: in_use.proposed.clone().filter(|proposed| now < proposed.until),
            attention: self.attention(&keys),
            keys,
        })
    }

    fn key_view(&self, known: &RingKey, (unproven, shown): (&Unproven, &Shown), live: &[LiveCertificate]) -> KeyView {
        let ca = known.key.fingerprint();
        let is_held = self.keys.held.iter().any(|held| held.key == known.key);
        let is_up = || self.keys.signer(&known.key).is_some_and(|signer| signer.health() == Health::Up);
        let its = || live.iter().filter(|one| one.ca == ca);
        let shown = shown.get(&ca).filter(|_| known.state == KeyState::Draining).cloned().unwrap_or_default();
        let is_published = known.ca == Ca::Host && known.state == KeyState::Staged;
        let may_sign = || known.since.plus(self.settings.rotation.published).ok();
        KeyView {
            is_up: is_held.then(is_up),
            unproven: unproven.get(&ca).cloned().unwrap_or_default(),
            certificates: its().count(),
            last_end: its().map(|one| one.end).chain(shown.values().copied()).max(),
            may_sign: is_published.then(may_sign).flatten(),
            shown,
            known: known.clone(),
        }
    }

    /// Which hosts have certificates by a host key that drains. Nobody asks as long as there is none.
    pub(super) async fn shown_of_draining(&self, now: Timestamp) -> Outcome<Shown> {
        let in_use = self.keys.now();
        let drains = |known: &&RingKey| known.ca == Ca::Host && known.state == KeyState::Draining;
        if in_use.ring.keys().iter().find(drains).is_none() {
            return Ok(Shown::new());
        }
        let inventory = self.inventory();
        let mut shown = shown(self.store.as_ref(), &inventory, now).await?;
        add_said(&mut shown, &inventory, |host| self.seen(host), now);
        Ok(shown)
    }

    /// What somebody ought to look at or do.
    fn attention(&self, keys: &[KeyView]) -> Vec<String> {
        let cas = self.keys.cas().into_iter().filter(|ca| ca.purpose() == Purpose::User);
        let mut said: Vec<String> = cas.filter(|ca| self.active_ca(ca).is_err()).map(|ca| none_signs(&ca)).collect();
        for due in self.rotation_due() {
            let (ca, key, days) = (due.ca, due.key, due.age.seconds() / 86_400);
            let age = format!("the active {ca} CA key {key} signs for {days} days, which is longer than rotate_every");
            said.push(match due.waits {
                Waits::Switch(next) => format!("{age}; {next} is staged and waits for your switch"),
                Waits::Start(next) => {
                    format!("{age}; {next} is staged by itself as soon as the last change is a day ago")
                }
                Waits::Key => format!("{age}; no further key is configured: add a [[{}.next]]", ca.table()),
            });
        }
        for key in keys.iter().filter(|key| key.known.state == KeyState::Draining && key.last_end.is_none()) {
            let (of, ca) = (&key.known.ca, key.known.key.fingerprint());
            said.push(format!("no certificate by the draining {of} CA key {ca} is left; it waits for your finish"));
        }
        let down = self.backend_figures().into_iter().filter(|one| !one.is_up);
        said.extend(down.map(|one| format!("the backend of the {} CA key {} can't be used", one.ca, one.key)));
        said
    }

    /// For each key that hosts must trust, the enrolled hosts of its CA that do not prove that they do.
    pub(super) fn unproven(&self, now: Timestamp) -> Unproven {
        let in_use = self.keys.now();
        let inventory = self.inventory();
        let usual = sha256(&in_use.bundle.text);
        let file = |host: &EnrolledHost| match self.bundle_of_host(&in_use, host) {
            Ok(bundle) if bundle == in_use.bundle => usual,
            Ok(bundle) => sha256(&bundle.text),
            Err(_told) => None,
        };
        let files: BTreeMap<&HostName, Option<Digest>> =
            inventory.active().map(|host| (&host.name, file(host))).collect();
        let of_key = |known: &RingKey| {
            let ca = known.key.fingerprint();
            let hosts = inventory.active().filter(|host| Ca::User(host.ca.clone()) == known.ca).map(|host| &host.name);
            let why = |host: &HostName| self.why_unproven(host, ca, files.get(host).copied().flatten(), now);
            (ca, hosts.filter_map(|host| Some((host.clone(), why(host)?))).collect())
        };
        let trusted = in_use.ring.keys().iter();
        trusted.filter(|key| key.purpose() == Purpose::User && key.state.is_trusted()).map(of_key).collect()
    }

    /// Why this host does not prove now that it trusts a key; `None` if it does.
    fn why_unproven(&self, host: &HostName, ca: Fingerprint, file: Option<Digest>, now: Timestamp) -> Option<String> {
        let Some(seen) = self.seen(host) else { return Some("it has never checked in".to_owned()) };
        if seen.is_stale(now) {
            return Some(format!("it has not checked in since {}", seen.at));
        }
        if Some(seen.check_in.file_sha256) != file {
            return Some("its sshd does not read the newest trust bundle".to_owned());
        }
        let is_proven = seen.check_in.keys.contains(&ca) && seen.check_in.proven.contains(&ca);
        // It may say so although its logins go through, but then it has proven the key.
        if !is_proven && seen.check_in.risky.contains("open-files") {
            return Some("others than root can change its files (hallpass host check)".to_owned());
        }
        (!is_proven).then(|| "it has not logged in to itself with a certificate by this key".to_owned())
    }
}

/// The SHA-256 of a bundle's text, as a host reports that of its file.
fn sha256(text: &str) -> Option<Digest> {
    Digest::parse(&policy::sha256_hex(text.as_bytes())).ok()
}

fn hosts_by_ca(inventory: &Inventory) -> BTreeMap<CaName, usize> {
    let mut hosts: BTreeMap<CaName, usize> = BTreeMap::new();
    for host in inventory.active() {
        let count = hosts.entry(host.ca.clone()).or_default();
        *count = count.saturating_add(1);
    }
    hosts
}
