//! What other nodes write, when several work on one store: put in force here, and told to who waits here.
//!
//! The log is the message. Each node reads the entries that it has not written itself: whose request changed, which host; and by the
//! head, whether another policy, inventory or CA key is in force. A hint from the store says when to look, and without one it is looked
//! once a second, so that nothing depends on a hint. What hosts told last is not in the log; it is read beside it.
//!
//! Not relied on for what is right: a decision that rests on what another node has replaced is refused by the store itself
//! (`Save::OnBasis`), and made anew. Following only makes it rare, and waiting short.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::inventory::HostChange;
use super::{Failure, Outcome, Service};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::tree::Frontier;
use crate::name::{HostName, RequestId};
use crate::store::{Basis, Committed, Head, LIST_MAX};

/// How often it is looked without a hint: as often as requests lapse and expire.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it is not looked again after a look, however often there are hints: others may commit hundreds of times a second, and one look
/// takes in what all of them wrote. Nobody sees such a delay.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How far the log has been followed.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// One at a time.
    place: tokio::sync::Mutex<Place>,
    /// Entries of our own beyond it: who waits has been told of them.
    own: Mutex<BTreeSet<u64>>,
    /// The most entries that the log was seen to have.
    seen: AtomicU64,
    /// The log as far as it is known entry by entry: by what we wrote, and by each look that found it whole.
    known: Mutex<Frontier>,
    /// Whether it lacked what it had when it was last looked: an older copy has taken the database's place.
    is_lost: AtomicBool,
}

#[derive(Debug, Default)]
struct Place {
    /// So many entries; `None` before the first look.
    size: Option<u64>,
    /// What hosts told, up to here.
    mark: u64,
}

impl Followed {
    /// What is known of it.
    fn known(&self) -> Frontier {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn gone_back(what: &str) -> Failure {
    Failure::Unavailable(format!(
        "the database's log {what}: an older copy has taken its place. Put the newest one back and restart all nodes; if it is lost, stop all \
         nodes, and: hallpass admin store recover"
    ))
}

impl Service {
    /// The log is known up to here, and goes on from there or not at all.
    fn know(&self, log: &Frontier) {
        self.store.know(log);
        let mut known = self.followed.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.size() < log.size() {
            known.clone_from(log);
        }
        self.followed.seen.fetch_max(log.size(), Ordering::Relaxed);
    }

    /// What decisions rest on as they are made here.
    pub(super) fn basis(&self) -> Basis {
        let keys = self.keys.now().entry;
        Basis { policy: Some(self.in_force().version), inventory: self.inventory().entries(), keys: Some(keys) }
    }

    /// Whatever is in force here may not be by the log: it is read before the next decision.
    pub(super) fn doubt(&self) {
        self.keys.doubt();
        self.doubt_policy();
    }

    /// Doubts what is in force here if this head says something else.
    pub(super) fn notice(&self, head: &Head) {
        self.followed.seen.fetch_max(head.frontier.size(), Ordering::Relaxed);
        if self.store.is_shared() && Basis::of(head) != self.basis() {
            self.doubt();
        }
    }

    /// These entries are our own.
    pub(super) fn wrote(&self, committed: &Committed) {
        self.know(&committed.log);
        if self.store.is_shared() {
            self.followed.own.lock().unwrap_or_else(PoisonError::into_inner).extend(&committed.entries);
        }
    }

    /// Whether the log has all that it was seen to have. A database that failed over to an older copy has not, until the newest one is back or
    /// somebody has answered for what is lost; what it says of what there is not is no answer.
    ///
    /// # Errors
    /// `Unavailable`, and store failures.
    pub(super) async fn check_whole(&self) -> Outcome<()> {
        self.whole_head().await.map(drop)
    }

    /// The head of a log that has all that it was seen to have. What is known of one that has not is kept apart, so that whoever looks for what is
    /// lost learns of it, also when all nodes have stopped.
    async fn whole_head(&self) -> Outcome<Head> {
        let head = self.look_at_head().await;
        if self.followed.is_lost.load(Ordering::Relaxed) {
            self.keep_known(&self.followed.known()).await;
        }
        let head = head?;
        self.notice(&head);
        Ok(head)
    }

    /// The same, without keeping anything. That the log is long enough is not enough: others may have written on an older copy.
    pub(super) async fn look_at_head(&self) -> Outcome<Head> {
        // Taken first: what is written while we look only makes it longer.
        let (seen, known) = (self.followed.seen.load(Ordering::Relaxed), self.followed.known());
        let wanted = Frontier::nodes_of(known.size());
        let (head, nodes) = tokio::try_join!(self.store.head(), self.store.nodes(wanted))?;
        let is_known = known.begins(&nodes);
        let (size, first) = (head.frontier.size(), known.size());
        // If it lacked some, and what they were is not known entry by entry, only a start can compare it with what was signed.
        let is_unsure = self.followed.is_lost.load(Ordering::Relaxed) && first < seen;
        let lost = if size < seen {
            Some(format!("has {size} entries, and had {seen}"))
        } else if !is_known {
            Some(format!("begins with other entries than the {first} that it had"))
        } else {
            is_unsure.then(|| format!("lacked some of the {seen} entries that it had"))
        };
        self.followed.is_lost.store(lost.is_some(), Ordering::Relaxed);
        match lost {
            Some(what) => Err(gone_back(&what)),
            None => {
                self.know(&head.frontier);
                Ok(head)
            }
        }
    }

    /// The same as it was when it was last looked, for what is asked all the time.
    pub(super) fn check_was_whole(&self) -> Outcome<()> {
        if self.followed.is_lost.load(Ordering::Relaxed) {
            return Err(Failure::Unavailable("the database lacks what it had: see the service's own log".to_owned()));
        }
        Ok(())
    }

    /// Says that there is no such thing, if the database can be believed about that.
    pub(super) async fn absent<T>(&self, missing: Failure) -> Outcome<T> {
        if self.store.is_shared() {
            self.check_whole().await?;
        }
        Err(missing)
    }

    /// Follows what other nodes write, for ever; at once over where the store is this process's alone.
    pub async fn follow(self: Arc<Self>) {
        while self.store.is_shared() {
            if let Err(error) = self.catch_up().await {
                tracing::error!(%error, "cannot follow what other nodes write; trying again");
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            // Whatever comes of the hint, it is looked.
            drop(tokio::time::timeout(LOOK_EVERY, self.store.woken()).await);
        }
    }

    /// Takes in what other nodes have written up to now.
    ///
    /// # Errors
    /// Store failures; then it is taken in the next time.
    pub async fn catch_up(&self) -> Outcome<()> {
        let mut place = self.followed.place.lock().await;
        let head = self.whole_head().await?;
        crate::fail::point("follow.looked");
        self.settle_policy().await?;
        let size = head.frontier.size();
        let mut from = place.size.unwrap_or(size);
        while from < size {
            let entries = self.store.entries(from, LIST_MAX).await?;
            let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
            self.tell_of(from, &entries).await?;
            from = from.saturating_add(count.max(1));
            place.size = Some(from);
        }
        place.size = Some(from);
        self.take_seen(&mut place.mark).await
    }

    /// Tells who waits of what these entries changed, but for our own.
    async fn tell_of(&self, from: u64, entries: &[Vec<u8>]) -> Outcome<()> {
        let own = {
            let mut own = self.followed.own.lock().unwrap_or_else(PoisonError::into_inner);
            let to = from.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
            let later = own.split_off(&to);
            std::mem::replace(&mut *own, later)
        };
        let (mut requests, mut hosts): (BTreeSet<RequestId>, BTreeSet<HostName>) = (BTreeSet::new(), BTreeSet::new());
        for (index, bytes) in (from..).zip(entries).filter(|(index, _)| !own.contains(index)) {
            let entry = Entry::parse(bytes);
            let entry = entry.map_err(|why| Failure::internal("reading what other nodes wrote", why))?;
            tracing::trace!(index, kind = entry.event.kind(), "another node's");
            requests.extend(entry.event.request());
            if let Event::Host(event) = &entry.event {
                hosts.extend(event.host().cloned());
            }
        }
        if !requests.is_empty() {
            hosts.extend(self.store.hosts_of(requests.iter().copied().collect()).await?);
        }
        requests.into_iter().for_each(|id| self.tell(id));
        hosts.into_iter().for_each(|host| self.tell_hosts(HostChange::One(host)));
        Ok(())
    }

    /// Takes in what hosts told other nodes.
    async fn take_seen(&self, mark: &mut u64) -> Outcome<()> {
        loop {
            let (next, told) = self.store.seen_since(*mark).await?;
            if next == *mark {
                return Ok(());
            }
            *mark = next;
            self.hosts.seen.take(told);
        }
    }
}
