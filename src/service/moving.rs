//! Hosts that go over from one user CA to another, until they are there: the proof that the host trusts the new key, and the end of
//! the last certificate by the old one.
//!
//! What not: that a host goes over is decided with what makes it so, a policy or a tag (`policy`, `inventory`); the rules are
//! `inventory::moves`'.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::inventory::Decided;
use super::{Outcome, Service};
use crate::inventory::EnrolledHost;
use crate::inventory::moves::settled;
use crate::keyring::Ca;
use crate::name::HostName;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// How often hosts are looked at that go over. Our own choice: nobody waits for it, and it reads all certificates that last.
const LOOK_EVERY_S: u64 = 10;

/// For each host, the CA keys by which certificates for it last.
type Lasting = BTreeMap<HostName, BTreeSet<Fingerprint>>;

fn is_moving(host: &EnrolledHost) -> bool {
    host.is_active && (host.waits || !host.keeps.is_empty())
}

impl Service {
    /// Looks how far all hosts are that go over, now and then; called by each tick.
    pub(super) async fn settle_moves(self: &Arc<Self>, now: Timestamp) -> Outcome<()> {
        if now.unix().abs_diff(self.moves_looked.load(Ordering::Relaxed)) < LOOK_EVERY_S {
            return Ok(());
        }
        self.moves_looked.store(now.unix(), Ordering::Relaxed);
        let inventory = self.inventory();
        let moving: Vec<&EnrolledHost> = inventory.active().filter(|host| is_moving(host)).collect();
        self.settle(moving, now).await
    }

    /// Looks how far this host is, which has just told of itself.
    pub(super) async fn settle_move_of(self: &Arc<Self>, name: &HostName, now: Timestamp) -> Outcome<()> {
        let inventory = self.inventory();
        self.settle(inventory.host(name).filter(|host| is_moving(host)).into_iter().collect(), now).await
    }

    async fn settle(self: &Arc<Self>, moving: Vec<&EnrolledHost>, now: Timestamp) -> Outcome<()> {
        if moving.is_empty() {
            return Ok(());
        }
        let lasting = self.lasting_for(&moving, now).await?;
        for host in moving {
            let (lasting, is_proven) = (lasting.get(&host.name).cloned().unwrap_or_default(), self.proves(host));
            if settled(host, &lasting, is_proven).is_none() {
                continue;
            }
            let (name, moved) = (host.name.clone(), host.moved);
            self.change_inventory(move |inventory, _| {
                // What was looked up is true of this move and no later one.
                let host = inventory.host(&name).filter(|host| host.moved == moved);
                let event = host.and_then(|host| settled(host, &lasting, is_proven));
                Ok(event.map_or(Decided::Nothing, |event| Decided::Change(event, Vec::new())))
            })
            .await?;
        }
        Ok(())
    }

    /// The keys by which certificates for these hosts last. No further one is made by a key of a CA that a host has left, so what is
    /// read after its move is all there is.
    async fn lasting_for(&self, moving: &[&EnrolledHost], now: Timestamp) -> Outcome<Lasting> {
        let kept: BTreeSet<Fingerprint> = moving.iter().flat_map(|host| &host.keeps).copied().collect();
        let mut lasting = Lasting::new();
        if kept.is_empty() {
            return Ok(lasting);
        }
        for one in self.store.live_certificates(now).await?.into_iter().filter(|one| kept.contains(&one.ca)) {
            let Some(stored) = self.store.request(one.request).await? else { continue };
            for host in stored.request.parts().terms.hosts.keys() {
                lasting.entry(host.clone()).or_default().insert(one.ca);
            }
        }
        Ok(lasting)
    }

    /// Whether the host has said since it moved that its sshd trusts the key that signs for its CA now, and let it in by it.
    fn proves(&self, host: &EnrolledHost) -> bool {
        let in_use = self.keys.now();
        let ca = in_use.ring.active(&Ca::User(host.ca.clone())).map(PublicKey::fingerprint);
        let Some((ca, seen)) = ca.zip(self.seen(&host.name)) else { return false };
        let is_since = host.moved.is_none_or(|moved| seen.at >= moved.since);
        is_since && seen.check_in.keys.contains(&ca) && seen.check_in.proven.contains(&ca)
    }
}
