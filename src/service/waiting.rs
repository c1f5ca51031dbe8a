//! Who waits for which thing to change: only they are woken when it does.
//!
//! Invariants: whoever listens before looking misses no change, however many there were; many changes at once are one. Nothing is kept of
//! what nobody waits for.
//!
//! *Why not one channel for all, and each takes what concerns them?* Two thousand people and ten thousand hosts would all be woken by each
//! certificate, to find that it is not theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// All who wait.
#[derive(Clone, Debug)]
pub(super) struct Waiting<K>(Arc<Mutex<BTreeMap<K, watch::Sender<()>>>>);

impl<K> Default for Waiting<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Ord + Clone> Waiting<K> {
    /// Listens for changes of this from now on.
    pub(super) fn listen(&self, key: K) -> Listener<K> {
        let changes = self.lock().entry(key.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Listener { key, changes: Some(changes), waiting: self.clone() }
    }

    /// This has changed.
    pub(super) fn tell(&self, key: &K) {
        if let Some(sender) = self.lock().get(key) {
            sender.send_replace(());
        }
    }

    /// Anything may have changed.
    pub(super) fn tell_all(&self) {
        for sender in self.lock().values() {
            sender.send_replace(());
        }
    }
}

impl<K> Waiting<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for one thing.
#[derive(Debug)]
pub struct Listener<K: Ord> {
    key: K,
    /// There until it is dropped.
    changes: Option<watch::Receiver<()>>,
    waiting: Waiting<K>,
}

impl<K: Ord> Listener<K> {
    /// Resolves once it has changed since this was called last, or since the listening began.
    pub async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            // The sender is there as long as we are.
            changes.changed().await.unwrap_or_default();
        }
    }
}

impl<K: Ord> Drop for Listener<K> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        self.changes = None;
        if waiting.get(&self.key).is_some_and(watch::Sender::is_closed) {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_told(listener: &mut Listener<u8>) -> bool {
        pin!(listener.changed()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn only_who_waits_for_it_is_told_and_many_changes_are_one() {
        let waiting = Waiting::default();
        waiting.tell(&1);
        let (mut one, mut same, mut other) = (waiting.listen(1), waiting.listen(1), waiting.listen(2));
        assert!(!is_told(&mut one), "what was before the listening is not news");
        waiting.tell(&1);
        waiting.tell(&1);
        assert!(is_told(&mut one) && is_told(&mut same) && !is_told(&mut other));
        assert!(!is_told(&mut one));
        waiting.tell_all();
        assert!(is_told(&mut one) && is_told(&mut other));
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_waits_for() {
        let waiting = Waiting::default();
        let (one, same) = (waiting.listen(1), waiting.listen(1));
        drop(one);
        assert_eq!(waiting.lock().len(), 1);
        drop(same);
        assert!(waiting.lock().is_empty());
        waiting.tell(&1);
        assert!(!is_told(&mut waiting.listen(1)));
    }
}
