//! Requests whose certificate is by a user CA key that was compromised: they end with the key.
//!
//! `rotate` ends them right after the entry that gives the key up. What a crash leaves of them, a certificate that another node made just before that
//! entry, and what failed, the next tick of any node ends. Hosts need none of it, since they are told of the key; people and lists do.
//!
//! Invariants: one request ends once, however many nodes do it at the same time (compare-and-swap on its row). No certificate is by a compromised key
//! after the entry that says so (P7), so once nothing is open under it there never will be, and nobody looks for it again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::tick::TICK_BATCH;
use super::{Failure, Outcome, Service, lost};
use crate::access::{Command, Step, step};
use crate::audit::entry::Entry;
use crate::audit::event::{Event, Mover};
use crate::identity::Actor;
use crate::keyring::step::Step as KeyStep;
use crate::keyring::{Ring, RingKey};
use crate::name::{PersonName, RequestId};
use crate::ssh::Fingerprint;
use crate::ssh::bundle::KeyState;
use crate::ssh::cert::Purpose;
use crate::store::{LIST_MAX, LiveCertificate, StoreError, Stored};
use crate::time::Timestamp;

/// How many requests one tick ends at most. Our own choice: a second's work for a slow disk; the next tick goes on.
const ENDED_AT_ONCE: usize = 32 * TICK_BATCH;

/// How long what could not be ended is left alone. Our own choice, as `schedule` looks at keys.
const REST_S: u64 = 60;

/// How many entries are searched for who gave a key up, from the time on that the ring says. It is among the first, unless the clock was set back.
const SEARCHED: u64 = 10_000;

/// What this node knows of it.
#[derive(Debug, Default)]
pub(super) struct Looked(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Compromised keys under which nothing is open any more.
    over: BTreeSet<Fingerprint>,
    /// When something under these keys was left that could not be ended, or a look at it began.
    stuck: Option<(Timestamp, BTreeSet<Fingerprint>)>,
}

impl Looked {
    /// Whether there is anything to look for.
    fn is_due(&self, lost: &BTreeSet<Fingerprint>, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rests =
            known.stuck.as_ref().is_some_and(|(at, keys)| now.unix().abs_diff(at.unix()) < REST_S && keys == lost);
        !rests && !lost.is_subset(&known.over)
    }

    fn over(&self, lost: BTreeSet<Fingerprint>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known { over: lost, stuck: None };
    }

    fn stuck(&self, stuck: Option<(Timestamp, BTreeSet<Fingerprint>)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stuck = stuck;
    }
}

/// The keys of user CAs that were compromised.
fn compromised(ring: &Ring) -> impl Iterator<Item = &RingKey> {
    ring.keys().iter().filter(|known| known.state == KeyState::Compromised && known.purpose() == Purpose::User)
}

impl Service {
    /// Ends what is left open under compromised keys; called by each tick. Gives how many requests it ended.
    pub(super) async fn tick_lost_keys(&self, now: Timestamp) -> Outcome<usize> {
        let in_use = self.keys.now();
        let lost: BTreeSet<Fingerprint> = compromised(&in_use.ring).map(|known| known.key.fingerprint()).collect();
        if !self.lost_keys.is_due(&lost, now) {
            return Ok(0);
        }
        // A look that fails is not begun anew each second: it reads all live certificates.
        self.lost_keys.stuck(Some((now, lost.clone())));
        let mut open: BTreeMap<Fingerprint, BTreeSet<RequestId>> = BTreeMap::new();
        for LiveCertificate { request, ca, .. } in self.store.live_certificates(now).await? {
            if lost.contains(&ca) {
                open.entry(ca).or_default().insert(request);
            }
        }
        if open.is_empty() {
            self.lost_keys.over(lost);
            return Ok(0);
        }
        let mut ended = 0_usize;
        for (ca, requests) in open {
            let Some(by) = self.who_gave_up(&in_use.ring, ca).await? else {
                tracing::error!(%ca, "the log does not say who gave this CA key up, so nobody can end what is open under it");
                continue;
            };
            let (requests, most) = (requests.into_iter().collect::<Vec<_>>(), ENDED_AT_ONCE.saturating_sub(ended));
            ended = ended.saturating_add(self.end_under(&by, ca, &requests, most).await?);
        }
        if ended > 0 {
            self.lost_keys.stuck(None);
            tracing::warn!(ended, "requests were still open under a CA key that was compromised, and have ended");
        }
        Ok(ended)
    }

    /// Ends these requests in the name of who gave the key up, `most` of them and the rest of a batch; gives how many it ended. What is over by now stays
    /// as it is, and what can't be ended keeps none of the others open.
    pub(super) async fn end_under(
        &self,
        by: &PersonName,
        ca: Fingerprint,
        requests: &[RequestId],
        most: usize,
    ) -> Outcome<usize> {
        let mut ended = 0_usize;
        for some in requests.chunks(TICK_BATCH) {
            if ended >= most {
                break;
            }
            let now = self.clock.now();
            let mut steps = Vec::with_capacity(some.len());
            for id in some {
                steps.extend(self.ending(by, ca, *id, now).await?);
            }
            ended = ended.saturating_add(self.move_all(&steps, now).await?);
        }
        Ok(ended)
    }

    /// The end of this request, if it is open and the log bears it out.
    async fn ending(
        &self,
        by: &PersonName,
        ca: Fingerprint,
        id: RequestId,
        now: Timestamp,
    ) -> Outcome<Option<(Stored, Step)>> {
        let Some((stored, entries)) = self.store.logged(id).await? else { return Ok(None) };
        let events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
        if let Err(why) = stored.request.check_logged(&events) {
            tracing::error!(request = %id, %why, "somebody else wrote into the database; a request by a compromised CA key is not ended");
            return Ok(None);
        }
        let cut = Command::Cut { by: by.clone(), reason: format!("the CA key {ca} was compromised") };
        Ok(step(stored.request.clone(), cut, now).ok().map(|taken| (stored, taken)))
    }

    /// Who gave this key up, by the log. Its entries are in the order of their times, so that few are read.
    async fn who_gave_up(&self, ring: &Ring, ca: Fingerprint) -> Outcome<Option<PersonName>> {
        let Some(key) = compromised(ring).find(|known| known.key.fingerprint() == ca) else { return Ok(None) };
        let head = self.store.head().await?;
        let (mut from, mut end) = (0, head.frontier.size());
        while from < end {
            let middle = from.midpoint(end);
            let Some(bytes) = self.store.entries(middle, 1).await?.into_iter().next() else { return Ok(None) };
            if parsed(&bytes)?.at < key.since { from = middle.saturating_add(1) } else { end = middle }
        }
        let last = head.frontier.size().min(from.saturating_add(SEARCHED));
        while from < last {
            let entries = self.store.entries(from, LIST_MAX).await?;
            if entries.is_empty() {
                break;
            }
            for (index, bytes) in (from..last).zip(&entries) {
                if let Some(by) = gives_up(&parsed(bytes)?.event, key)
                    && lost::is_in(self.store.as_ref(), &head, index, bytes).await?
                {
                    return Ok(Some(by));
                }
            }
            from = from.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
        }
        Ok(None)
    }
}

/// Who gives this key up by this event, if it is the one.
fn gives_up(event: &Event, key: &RingKey) -> Option<PersonName> {
    let Event::CaKeysChanged { by: Mover(Actor::Person(by)), step: KeyStep::Compromise, keys, .. } = event else {
        return None;
    };
    (keys.known(&key.key) == Some(key)).then(|| by.clone())
}

fn parsed(bytes: &[u8]) -> Result<Entry, Failure> {
    Entry::parse(bytes).map_err(|why| StoreError::Damaged { what: "the log".to_owned(), why: why.to_string() }.into())
}
