//! Rotations of the user CA key, and what is known of all CA keys.
//!
//! The rules are `keyring::plan`'s; here is what they go by (what hosts prove, which certificates last), and one transaction for the step:
//! the entry that says which keys there are from then on. It is decided and written under the lock that a certificate's intent holds
//! for reading, so no certificate is made by a key that an earlier entry of the log has put out of use (I-21).
//!
//! *Why is the ring not a table?* Whoever can write the database could then have hosts trust another key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::text::{self, REASON_CHARS_MAX};
use super::{Failure, Outcome, Service, policy, whole};
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::keyring::plan::{Blocked, Facts, Plan, Step, apply, plan};
use crate::keyring::{Ring, RingKey};
use crate::name::{Digest, HostName, RequestPrefix};
use crate::signer::Health;
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::{Change, LiveCertificate, StoreError};
use crate::time::Timestamp;

/// The most hosts that one step may name. Our own choice.
const ACCEPTED_MAX: usize = 1_000;

/// What an operator wants to do.
#[derive(Clone, Debug)]
pub struct RotationWish {
    /// Which step.
    pub step: Step,
    /// The key that is meant; without one, the only one that fits.
    pub key: Option<Fingerprint>,
    /// Hosts that may be locked out.
    pub accepted: BTreeSet<HostName>,
    /// Why; may be empty.
    pub reason: String,
}

/// A CA key as operators and auditors see it.
#[derive(Clone, Debug)]
pub struct KeyView {
    /// The key, with its state.
    pub known: RingKey,
    /// Whether its backend can be used; none when no backend is configured for it.
    pub is_up: Option<bool>,
    /// Enrolled hosts that do not prove that they trust it, and why not; of keys that hosts must trust.
    pub unproven: BTreeMap<HostName, String>,
    /// How many certificates for people by it are not over.
    pub certificates: usize,
    /// When the last of these ends.
    pub last_end: Option<Timestamp>,
}

/// All CA keys.
#[derive(Clone, Debug)]
pub struct KeysView {
    /// Version of the trust bundle.
    pub version: u64,
    /// In the order in which they came.
    pub keys: Vec<KeyView>,
    /// Configured keys that no host has heard of.
    pub spare: Vec<PublicKey>,
    /// How many hosts are enrolled.
    pub hosts: usize,
    /// Hosts of the policy that are not enrolled: they prove nothing.
    pub by_hand: Vec<HostName>,
}

/// For each key, the hosts that do not prove that they trust it.
type Unproven = BTreeMap<Fingerprint, BTreeMap<HostName, String>>;

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
        let (inventory, (_, policy)) = (self.inventory(), self.policy_now());
        let is_enrolled = |name: &HostName| inventory.host(name).is_some_and(|host| host.is_active);
        let is_up = |key: &PublicKey| {
            let is_held = self.keys.held.iter().any(|held| held.key == *key);
            is_held.then(|| self.keys.signer(key).is_some_and(|signer| signer.health() == Health::Up))
        };
        let host_up = |key: &PublicKey| {
            let signer = self.host_signer.as_ref().filter(|signer| signer.public_key() == key);
            signer.map(|signer| signer.health() == Health::Up)
        };
        let view = |known: &RingKey| {
            let ca = known.key.fingerprint();
            let its = || live.iter().filter(|one| one.ca == ca);
            KeyView {
                is_up: if known.purpose == Purpose::User { is_up(&known.key) } else { host_up(&known.key) },
                unproven: unproven.get(&ca).cloned().unwrap_or_default(),
                certificates: its().count(),
                last_end: its().map(|one| one.end).max(),
                known: known.clone(),
            }
        };
        let spare = self.keys.held.iter().filter(|held| in_use.ring.known(&held.key).is_none());
        Ok(KeysView {
            version: in_use.bundle.version,
            keys: in_use.ring.keys().iter().map(view).collect(),
            spare: spare.map(|held| held.key.clone()).collect(),
            hosts: inventory.active().count(),
            by_hand: policy.hosts().map(|host| host.name.clone()).filter(|name| !is_enrolled(name)).collect(),
        })
    }

    /// Takes a step of a rotation; operators only. Gives the keys as they are then.
    ///
    /// # Errors
    /// `Forbidden`, `Invalid`, `Rotation` with what stands in the way.
    pub async fn rotate(self: &Arc<Self>, by: &Proven, wish: RotationWish) -> Outcome<KeysView> {
        self.check_operator(by, "rotate CA keys")?;
        let reason = text::check("reason", &wish.reason, REASON_CHARS_MAX)?;
        if wish.accepted.len() > ACCEPTED_MAX {
            return Err(Failure::Invalid(format!("at most {ACCEPTED_MAX} hosts can be named")));
        }
        let (this, by) = (Arc::clone(self), by.clone());
        let wish = RotationWish { reason, ..wish };
        whole(async move {
            this.check_clock()?;
            this.settle_policy().await?;
            let taken = this.take_step(&by, &wish).await?;
            if wish.step == Step::Compromise {
                this.end_those_of(&by, &taken).await;
            }
            this.ca_keys(&by).await
        })
        .await
    }

    /// Decides and writes one step, and puts it in force.
    async fn take_step(&self, by: &Proven, wish: &RotationWish) -> Outcome<Vec<LiveCertificate>> {
        let _guard = Arc::clone(&self.policy_in_use).write_owned().await;
        // Waiting for the lock may have outlasted the caller's own right.
        self.check_operator(by, "rotate CA keys")?;
        let (in_use, now) = (self.keys.now(), self.clock.now());
        let live = self.store.live_certificates(now).await?;
        let held: Vec<PublicKey> = self.keys.held.iter().map(|held| held.key.clone()).collect();
        let mut last_end: BTreeMap<Fingerprint, Timestamp> = BTreeMap::new();
        for one in &live {
            let end = last_end.entry(one.ca).or_insert(one.end);
            *end = one.end.max(*end);
        }
        let (unproven, last_end) = (self.unproven(now), last_end);
        let facts = Facts {
            held: &held,
            key: wish.key,
            unproven: &unproven,
            accepted: &wish.accepted,
            last_end: &last_end,
            now,
        };
        let planned = plan(&in_use.ring, wish.step, &facts)?;
        self.check_backend(&in_use.ring, &planned)?;
        self.write_step(by, wish, (&in_use.ring, &planned), now).await?;
        let lost = self.keys.now().lost();
        Ok(live.into_iter().filter(|one| lost.contains(&one.ca)).collect())
    }

    /// A key that takes over must be able to sign.
    fn check_backend(&self, ring: &Ring, planned: &Plan) -> Outcome<()> {
        let new = planned.moves.iter().find(|one| one.to == KeyState::Active);
        let Some(new) = new.filter(|one| ring.active(Purpose::User) != Some(&one.key)) else { return Ok(()) };
        match self.keys.signer(&new.key).map(|signer| signer.health()) {
            Some(Health::Up) => Ok(()),
            Some(Health::Down(_)) | None => Err(Failure::Unavailable(format!(
                "the backend of {} can't be used; the service's own log says why",
                new.key.fingerprint()
            ))),
        }
    }

    async fn write_step(
        &self,
        by: &Proven,
        wish: &RotationWish,
        (ring, planned): (&Ring, &Plan),
        now: Timestamp,
    ) -> Outcome<()> {
        let keys = apply(ring, &planned.moves, now).map_err(|why| Failure::Conflict(why.to_string()))?;
        let moved = planned.moves.iter().map(|one| format!("{} is {}: {}", one.key.fingerprint(), one.to, one.why));
        let reason = (!wish.reason.is_empty()).then(|| wish.reason.clone());
        let event = Event::CaKeysChanged {
            by: by.person().clone(),
            step: wish.step,
            why: moved.chain(reason).collect(),
            unproven: planned.unproven.clone(),
            keys,
        };
        let committed = self.commit_decision(Change { at: now, saves: Vec::new(), events: vec![event] }).await;
        let committed = committed.inspect_err(|why| {
            // A commit that failed may be on the disk all the same.
            if !matches!(why, StoreError::Replayed | StoreError::Clock(_) | StoreError::Busy) {
                self.keys.doubt();
            }
        })?;
        crate::fail::point("rotate.durable");
        self.refresh_keys().await?;
        tracing::warn!(by = %by.person(), step = wish.step.word(), "the user CA keys have changed");
        let size = committed.entries.last().map_or(0, |index| index.saturating_add(1));
        // A store put back from an older copy must not bring back a key that was withdrawn.
        self.keep_head(size).await
    }

    /// Ends the requests whose certificate is by a lost key. What is left out by a crash, hosts end all the same: they are told of the key.
    async fn end_those_of(self: &Arc<Self>, by: &Proven, taken: &[LiveCertificate]) {
        for LiveCertificate { request, ca, .. } in taken {
            let Ok(prefix) = RequestPrefix::parse(&request.to_string()) else { continue };
            let reason = format!("the CA key {ca} was compromised");
            if let Err(why) = self.end(by, &prefix, reason).await {
                tracing::warn!(%request, %why, "a request whose certificate is by a lost CA key was not ended");
            }
        }
    }

    /// For each key that hosts must trust, the enrolled hosts that do not prove that they do.
    fn unproven(&self, now: Timestamp) -> Unproven {
        let in_use = self.keys.now();
        let file = Digest::parse(&policy::sha256_hex(in_use.bundle.text.as_bytes())).ok();
        let inventory = self.inventory();
        let trusted = in_use.ring.trusted_by_hosts();
        let of_key = |ca: Fingerprint| {
            let hosts = inventory.active().map(|host| &host.name);
            hosts.filter_map(|host| Some((host.clone(), self.why_unproven(host, ca, file, now)?))).collect()
        };
        trusted.iter().map(|key| key.key.fingerprint()).map(|ca| (ca, of_key(ca))).collect()
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
        (!is_proven).then(|| "it has not logged in to itself with a certificate by this key".to_owned())
    }
}

impl From<Blocked> for Failure {
    fn from(why: Blocked) -> Self {
        Self::Rotation(why)
    }
}
