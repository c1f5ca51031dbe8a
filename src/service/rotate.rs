//! Rotations of CA keys: who takes which step, and what it goes by.
//!
//! The rules are `keyring::plan`'s; here is what they go by (what hosts prove, which certificates last), and one transaction for the step:
//! the entry that says which keys there are from then on. It is decided and written under the lock that a certificate's intent holds
//! for reading, so no certificate is made by a key that an earlier entry of the log has put out of use (I-21).
//!
//! Where the policy wants two operators, the first one's wish is an entry and no more; the second one's, the same to the letter, is carried
//! out. What is proposed is read from the newest entry about CA keys, like these themselves, so a restart or another node knows it too.
//!
//! *Why is the ring not a table?* Whoever can write the database could then have hosts trust another key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bundles::{Stands, kept};
use super::key_view::KeysView;
use super::keys::{InUse, Proposed};
use super::text::{self, REASON_CHARS_MAX};
use super::{Failure, Outcome, Service, whole};
use crate::audit::event::{Event, Kept, Mover};
use crate::identity::{Actor, Proven};
use crate::keyring::plan::{Blocked, Facts, Plan, apply, plan};
use crate::keyring::step::{PROPOSAL_LIFETIME, Proposal, Step};
use crate::keyring::{Ca, Ring};
use crate::name::{PersonName, RequestId};
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
    /// What exactly: a second person must want the same.
    pub what: Proposal,
    /// Why; may be empty.
    pub reason: String,
}

/// What a step was decided on, and what it comes to.
struct Decided {
    in_use: Arc<InUse>,
    ca: Ca,
    plan: Plan,
    /// Certificates for people that are not over.
    live: Vec<LiveCertificate>,
}

/// Whether a step may be taken by one person alone.
enum Second {
    /// It may, or another one has proposed it.
    Here(Option<PersonName>),
    /// Somebody else has to want it, too.
    Missing,
}

impl Service {
    /// Takes a step of a rotation, or proposes it where another operator must agree; operators only. Gives the keys as they are then.
    ///
    /// # Errors
    /// `Forbidden`, `Invalid`, `Rotation` with what stands in the way.
    pub async fn rotate(self: &Arc<Self>, by: &Proven, wish: RotationWish) -> Outcome<KeysView> {
        self.check_operator(by, "rotate CA keys")?;
        let reason = text::check("reason", &wish.reason, REASON_CHARS_MAX)?;
        if wish.what.accepted.len() > ACCEPTED_MAX {
            return Err(Failure::Invalid(format!("at most {ACCEPTED_MAX} hosts can be named")));
        }
        let (this, by) = (Arc::clone(self), by.clone());
        let wish = RotationWish { reason, ..wish };
        whole(async move {
            this.check_clock()?;
            this.settle_with_others().await?;
            let taken = this.take_step(&by, &wish).await?;
            if wish.what.step == Step::Compromise {
                this.end_those_of(&by, &taken).await;
            }
            this.ca_keys(&by).await
        })
        .await
    }

    /// Decides and writes one step or its proposal, and puts it in force.
    async fn take_step(&self, by: &Proven, wish: &RotationWish) -> Outcome<Vec<LiveCertificate>> {
        let _guard = Arc::clone(&self.policy_in_use).write_owned().await;
        // Waiting for the lock may have outlasted the caller's own right.
        self.check_operator(by, "rotate CA keys")?;
        let now = self.clock.now();
        let decided = self.decide(&wish.what, now).await?;
        let Second::Here(proposer) = self.second(by, &wish.what, &decided.in_use, now)? else {
            self.propose(by, wish, &decided.in_use, now).await?;
            return Ok(Vec::new());
        };
        let mover = Mover(Actor::Person(by.person().clone()));
        self.write_step((mover, proposer), wish, &decided, now).await?;
        let lost = self.keys.now().lost();
        Ok(decided.live.into_iter().filter(|one| lost.contains(&one.ca)).collect())
    }

    /// Takes a step that needs no person.
    pub(super) async fn take_own_step(&self, by: Mover, wish: &RotationWish) -> Outcome<()> {
        let _guard = Arc::clone(&self.policy_in_use).write_owned().await;
        let now = self.clock.now();
        let decided = self.decide(&wish.what, now).await?;
        self.write_step((by, None), wish, &decided, now).await
    }

    /// What a step comes to now.
    async fn decide(&self, what: &Proposal, now: Timestamp) -> Outcome<Decided> {
        let in_use = self.keys.now();
        let ca = match what.key.filter(|_| what.step == Step::Compromise) {
            Some(lost) => ca_of(&in_use.ring, lost).unwrap_or_else(|| what.ca.clone()),
            None => what.ca.clone(),
        };
        if !self.keys.cas().contains(&ca) && !in_use.ring.keys().iter().any(|known| known.ca == ca) {
            return Err(Failure::NotFound("CA"));
        }
        let (live, shown) = (self.store.live_certificates(now).await?, self.shown_of_draining(now).await?);
        let held: Vec<PublicKey> = self.keys.held_for(&ca).cloned().collect();
        let mut last_end: BTreeMap<Fingerprint, Timestamp> = BTreeMap::new();
        for one in &live {
            let end = last_end.entry(one.ca).or_insert(one.end);
            *end = one.end.max(*end);
        }
        let facts = Facts {
            ca: ca.clone(),
            held: &held,
            listed: &self.keys.listed,
            key: what.key,
            unproven: &self.unproven(now),
            accepted: &what.accepted,
            last_end: &last_end,
            shown: &shown,
            published: self.settings.rotation.published,
            is_early: what.is_early,
            now,
        };
        let plan = plan(&in_use.ring, what.step, &facts)?;
        self.check_backend(&ca, &in_use.ring, &plan)?;
        Ok(Decided { in_use, ca, plan, live })
    }

    /// A key that takes over must be able to sign.
    fn check_backend(&self, ca: &Ca, ring: &Ring, planned: &Plan) -> Outcome<()> {
        let new = planned.moves.iter().find(|one| one.to == KeyState::Active);
        let Some(new) = new.filter(|one| ring.active(ca) != Some(&one.key)) else { return Ok(()) };
        match self.keys.signer(&new.key).map(|signer| signer.health()) {
            Some(Health::Up) => Ok(()),
            Some(Health::Down(_)) | None => Err(Failure::Unavailable(format!(
                "the backend of {} can't be used; the service's own log says why",
                new.key.fingerprint()
            ))),
        }
    }

    /// Whether this person may take the step now, and who has proposed it.
    fn second(&self, by: &Proven, what: &Proposal, in_use: &InUse, now: Timestamp) -> Outcome<Second> {
        let (_, policy) = self.policy_now();
        if policy.ca_operators() < 2 || !what.step.needs_two() {
            return Ok(Second::Here(None));
        }
        let proposed = in_use.proposed.as_ref().filter(|proposed| now < proposed.until && proposed.proposal == *what);
        match proposed {
            Some(Proposed { by: first, until, .. }) if first == by.person() => {
                Err(Blocked::Waits { by: first.clone(), until: *until }.into())
            }
            // Whoever operates no longer does not count.
            Some(Proposed { by: first, .. }) if policy.is_operator(first) => Ok(Second::Here(Some(first.clone()))),
            Some(_) | None => Ok(Second::Missing),
        }
    }

    async fn propose(&self, by: &Proven, wish: &RotationWish, in_use: &InUse, now: Timestamp) -> Outcome<()> {
        let event = Event::CaStepProposed {
            by: by.person().clone(),
            proposal: wish.what.clone(),
            reason: wish.reason.clone(),
            until: now.plus(PROPOSAL_LIFETIME).map_err(|why| Failure::Unavailable(why.to_string()))?,
            version: in_use.bundle.version,
            since: in_use.since,
            keys: in_use.ring.clone(),
            kept: kept_of_named(&in_use.stands),
        };
        self.write_keys(event, now).await?;
        tracing::warn!(by = %by.person(), step = wish.what.step.word(), ca = %wish.what.ca, "a step of the CA keys \
            waits for a second operator");
        Ok(())
    }

    async fn write_step(
        &self,
        (by, proposer): (Mover, Option<PersonName>),
        wish: &RotationWish,
        decided: &Decided,
        now: Timestamp,
    ) -> Outcome<()> {
        let Decided { in_use, ca, plan, .. } = decided;
        let keys = apply(&in_use.ring, ca, &plan.moves, now).map_err(|why| Failure::Conflict(why.to_string()))?;
        let moved = plan.moves.iter().map(|one| format!("{} is {}: {}", one.key.fingerprint(), one.to, one.why));
        let reason = (!wish.reason.is_empty()).then(|| wish.reason.clone());
        let step = wish.what.step;
        let event = Event::CaKeysChanged {
            by: by.clone(),
            step,
            why: moved.chain(reason).collect(),
            unproven: plan.unproven.clone(),
            kept: kept((&in_use.ring, &in_use.stands), &keys),
            keys,
            ca: ca.named(),
            purpose: (*ca == Ca::Host).then_some(Purpose::Host),
            early: plan.is_early.then_some(true),
            proposer,
        };
        self.write_keys(event, now).await?;
        tracing::warn!(%by, step = step.word(), %ca, "the CA keys have changed");
        Ok(())
    }

    /// Writes an entry that says which CA keys there are, and puts it in force.
    async fn write_keys(&self, event: Event, at: Timestamp) -> Outcome<()> {
        let committed = self.commit_decision(Change { at, saves: Vec::new(), events: vec![event] }).await;
        let committed = committed.inspect_err(|why| {
            // A commit that failed may be on the disk all the same.
            if !matches!(why, StoreError::Replayed | StoreError::Clock(_) | StoreError::Busy) {
                self.keys.doubt();
            }
        })?;
        crate::fail::point("rotate.durable");
        self.refresh_keys().await?;
        let size = committed.entries.last().map_or(0, |index| index.saturating_add(1));
        // A store put back from an older copy must not bring back a key that was withdrawn.
        self.keep_head(size).await
    }

    /// Ends the requests whose certificate is by a lost key. What is left out by a crash, the next tick ends (`lost_keys`).
    async fn end_those_of(&self, by: &Proven, taken: &[LiveCertificate]) {
        let mut of: BTreeMap<Fingerprint, BTreeSet<RequestId>> = BTreeMap::new();
        for LiveCertificate { request, ca, .. } in taken {
            of.entry(*ca).or_default().insert(*request);
        }
        for (ca, requests) in of {
            let requests: Vec<RequestId> = requests.into_iter().collect();
            if let Err(why) = self.end_under(by.person(), ca, &requests, usize::MAX).await {
                tracing::warn!(%ca, %why, "requests whose certificate is by a lost CA key are not ended yet");
            }
        }
    }
}

/// Of which CA a key of this fingerprint is.
fn ca_of(ring: &Ring, key: Fingerprint) -> Option<Ca> {
    ring.keys().iter().find(|known| known.key.fingerprint() == key).map(|known| known.ca.clone())
}

/// The stands of the user CAs with a name, if there are any.
fn kept_of_named(stands: &Stands) -> Option<Kept> {
    let named = stands.iter().filter(|(ca, _)| !ca.is_default()).map(|(ca, stand)| (ca.clone(), *stand));
    Some(named.collect()).filter(|kept: &Kept| !kept.is_empty())
}

impl From<Blocked> for Failure {
    fn from(why: Blocked) -> Self {
        Self::Rotation(why)
    }
}
