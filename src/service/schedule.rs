//! What time alone does to CA keys: a rotation that is due begins, and a key that nobody has configured any more is retired when its last
//! certificate has ended.
//!
//! What not: nothing is ever switched here. From when on a key signs, a person says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rotate::RotationWish;
use super::{Failure, Outcome, Service};
use crate::audit::event::Mover;
use crate::identity::{Actor, Part};
use crate::keyring::step::{Proposal, Step};
use crate::keyring::{Ca, RingKey};
use crate::ssh::Fingerprint;
use crate::ssh::bundle::KeyState;
use crate::time::{Lifetime, Timestamp};

/// How often CA keys are looked at. Our own choice: rotations last for hours.
const LOOK_EVERY_S: u64 = 60;

/// How long after the last change of a CA's keys a rotation may begin by itself. Our own choice: whoever has just aborted one meant it.
const REST_S: u64 = 86_400;

/// A CA key that has signed for longer than it was to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of which CA it is.
    pub ca: Ca,
    /// The key.
    pub key: Fingerprint,
    /// How long it has signed.
    pub age: Lifetime,
    /// For what.
    pub waits: Waits,
}

/// What a rotation that is due waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It begins with this key, by itself.
    Start(Fingerprint),
    /// An operator's switch to this key.
    Switch(Fingerprint),
    /// A further key in the configuration.
    Key,
}

impl Waits {
    /// `start`, `switch` or `key`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Switch(_) => "switch",
            Self::Key => "key",
        }
    }
}

impl Service {
    /// The rotations that are due by the configuration.
    #[must_use]
    pub fn rotation_due(&self) -> Vec<Due> {
        let now = self.clock.now();
        self.keys.cas().into_iter().filter_map(|ca| self.due(ca, now)).collect()
    }

    fn due(&self, ca: Ca, now: Timestamp) -> Option<Due> {
        let every = self.settings.rotation.every.get(&ca).copied()?;
        let in_use = self.keys.now();
        let mut ours = in_use.ring.keys().iter().filter(|known| known.ca == ca);
        let active = ours.clone().find(|known| known.state == KeyState::Active)?;
        let seconds = now.seconds_since(active.since);
        if seconds < u64::from(every.seconds()) || ours.clone().any(|known| known.state == KeyState::Draining) {
            return None;
        }
        let is_held = |known: &RingKey| self.keys.held_for(&ca).any(|key| *key == known.key);
        let staged = ours.find(|known| known.state == KeyState::Staged && is_held(known));
        let waits = match staged {
            Some(staged) => Waits::Switch(staged.key.fingerprint()),
            None => {
                let spare = self.keys.held_for(&ca).find(|key| in_use.ring.known(key).is_none());
                spare.map_or(Waits::Key, |key| Waits::Start(key.fingerprint()))
            }
        };
        let age = u32::try_from(seconds).ok().and_then(|seconds| Lifetime::from_seconds(seconds).ok());
        let key = active.key.fingerprint();
        Some(Due { ca, key, age: age.unwrap_or(every), waits })
    }

    /// Looks at the CA keys, now and then; called by each tick.
    pub(super) async fn tick_keys(self: &Arc<Self>, now: Timestamp) -> Outcome<()> {
        if now.unix().abs_diff(self.keys_looked.load(Ordering::Relaxed)) < LOOK_EVERY_S {
            return Ok(());
        }
        self.keys_looked.store(now.unix(), Ordering::Relaxed);
        self.settle_keys().await?;
        for due in self.rotation_due() {
            match due.waits {
                Waits::Start(next) if self.has_rested(&due.ca, now) => self.begin(due, next).await?,
                Waits::Start(_) | Waits::Switch(_) => {}
                Waits::Key => self.warn_of_missing(due, now),
            }
        }
        self.retire_gone(now).await
    }

    /// Once a day, and at each start.
    fn warn_of_missing(&self, due: Due, now: Timestamp) {
        let today = now.unix() / REST_S;
        if self.keys_warned.swap(today, Ordering::Relaxed) != today {
            let (of, ca) = (due.ca, due.key);
            tracing::warn!(%of, %ca, "a CA key is older than rotate_every, and no further one is configured");
        }
    }

    fn has_rested(&self, ca: &Ca, now: Timestamp) -> bool {
        let in_use = self.keys.now();
        let ours = in_use.ring.keys().iter().filter(|known| known.ca == *ca);
        ours.map(|known| known.since).max().is_none_or(|last| now.seconds_since(last) >= REST_S)
    }

    async fn begin(self: &Arc<Self>, due: Due, next: Fingerprint) -> Outcome<()> {
        let reason = format!("the active key has signed for {} days", due.age.seconds() / 86_400);
        let mover = Mover(Actor::System(Part::Schedule));
        self.move_by_itself(mover, (Step::Start, due.ca.clone(), next), reason).await?;
        tracing::warn!(of = %due.ca, ca = %next, "a rotation of the CA keys is due and has begun; it waits for an \
            operator's switch");
        Ok(())
    }

    /// Retires what drains, is not configured any more, and has no certificate left.
    async fn retire_gone(self: &Arc<Self>, now: Timestamp) -> Outcome<()> {
        let in_use = self.keys.now();
        let is_gone = |known: &&RingKey| {
            known.state == KeyState::Draining
                && !self.keys.listed.contains(&known.key)
                && !self.keys.held_for(&known.ca).any(|key| *key == known.key)
        };
        let gone: Vec<(Ca, Fingerprint)> = in_use
            .ring
            .keys()
            .iter()
            .filter(is_gone)
            .map(|known| (known.ca.clone(), known.key.fingerprint()))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let (live, shown) = (self.store.live_certificates(now).await?, self.shown_of_draining(now).await?);
        for (ca, key) in gone {
            if live.iter().any(|one| one.ca == key) || shown.contains_key(&key) {
                continue;
            }
            let reason = "it is not configured any more".to_owned();
            let mover = Mover(Actor::System(Part::Clock));
            self.move_by_itself(mover, (Step::Finish, ca, key), reason).await?;
        }
        Ok(())
    }

    async fn move_by_itself(
        self: &Arc<Self>,
        by: Mover,
        (step, ca, key): (Step, Ca, Fingerprint),
        reason: String,
    ) -> Outcome<()> {
        let what = Proposal { step, ca, key: Some(key), accepted: BTreeSet::new(), is_early: false };
        match self.take_own_step(by, &RotationWish { what, reason }).await {
            // Somebody was faster.
            Ok(()) | Err(Failure::Rotation(_)) => Ok(()),
            Err(why) => Err(why),
        }
    }
}
