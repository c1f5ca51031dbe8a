//! Enrolled hosts: who may join, which hosts there are, what they may be certified for, and what they tell of themselves.
//!
//! What for: an [`Inventory`] is made of the log's entries about it and of nothing else, in their order, so that a host, a tag, a key or
//! a join token exists only because the log says so. The service decides on one inventory and saves by compare-and-swap on how
//! many entries it is made of; there is no row that could say something else.
//!
//! What not: no policy (`policy` takes the hosts as an argument), no storing, no network.
//!
//! Invariants: names, further names and keys of active hosts are all different; a retired host is no host; the names and tags of a
//! host are those that its join token gave, but for tags that an operator changed; of a tag an operator's newest word counts, by hand or by token.
//!
//! | File | What |
//! |---|---|
//! | `enrol.rs` | whether a host may join, again or anew |
//! | `moves.rs` | hosts that go over to another user CA |
//! | `permit.rs` | certificates for a host's keys and for its login to itself |
//! | `check_in.rs` | what a host tells of itself, and what of it is news |
//! | `double.rs` | whether two machines tell it |
//!
//! *Why are hosts shared?* The inventory is replaced as a whole for each change, so that whoever reads one reads one state; with ten thousand hosts a copy of
//! each would be most of what a change costs. For the same reason whoever joins is not compared with each of the others: keys and further names are looked up.
//!
//! *Why no tables of hosts and tokens?* Rows would have to be compared with the log at each use, and what a row leaves out can't be
//! compared. An inventory has some hundred entries for each hundred hosts, and reads in a blink.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

pub mod check_in;
pub mod double;
pub mod enrol;
pub mod moves;
pub mod permit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::audit::entry::Entry;
use crate::audit::event::{Event, Stand};
use crate::audit::host_event::HostEvent;
use crate::identity::session::TokenHash;
use crate::name::{CaName, HostName, JoinId, NamePattern, PersonName, Tag, TagKey, TagValue};
use crate::policy::{Host, Scope};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// How many refused attempts on a host's name or keys are shown; older ones are in the log.
const CONFLICTS_MAX: usize = 16;

/// How many refusals of one join token are noted within an hour; further ones are refused alike. Our own choice: enough to see it by, and no way to fill the log.
const REFUSED_MAX: usize = 100;

/// The hosts and join tokens that the log tells of. Copies share what has not changed: each change is decided on one, and makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    entries: u64,
    next: u64,
    hosts: RedBlackTreeMapSync<HostName, Arc<EnrolledHost>>,
    joins: RedBlackTreeMapSync<JoinId, Arc<Join>>,
    /// Whose the keys and further names of active hosts are: one host's each, by the invariant.
    keys: RedBlackTreeMapSync<Fingerprint, HostName>,
    names: RedBlackTreeMapSync<HostName, HostName>,
    /// Which token has this hash.
    tokens: RedBlackTreeMapSync<TokenHash, JoinId>,
    /// Names and keys of hosts that an operator has retired, by the newest entry that says so.
    retired_names: RedBlackTreeMapSync<HostName, u64>,
    retired_keys: RedBlackTreeMapSync<Fingerprint, u64>,
}

/// A host that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledHost {
    /// Its name.
    pub name: HostName,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// Further names of its host certificate.
    pub names: BTreeSet<HostName>,
    /// Its SSH host keys, its identity first.
    pub keys: Vec<PublicKey>,
    /// The token with which it joined last.
    pub join: JoinId,
    /// When it joined first, since it was retired last.
    pub enrolled: Timestamp,
    /// Whether it is enrolled now; else it was retired or has left.
    pub is_active: bool,
    /// The user CA whose keys it trusts.
    pub ca: CaName,
    /// Keys of other CAs that it goes on trusting, while certificates for it by them last.
    pub keeps: BTreeSet<Fingerprint>,
    /// Whether nothing is issued for it until it proves that it trusts a key of its CA.
    pub waits: bool,
    /// The newest entry that says so; its trust bundle has no lesser version. None of a host that always was of the default CA.
    pub moved: Option<Stand>,
    /// The newest attempts to take its name or keys, oldest first.
    pub conflicts: Vec<Conflict>,
    /// Tags that an operator has set or taken away since it joined, by which of the inventory's entries; of its last token see [`Inventory::said`].
    said: BTreeMap<TagKey, u64>,
    for_policy: Arc<Host>,
}

/// An attempt to take a host's name or keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// When.
    pub at: Timestamp,
    /// The name that was given.
    pub name: HostName,
    /// The key that it had.
    pub key: Fingerprint,
    /// What did not fit.
    pub why: String,
}

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Its id.
    pub id: JoinId,
    /// Which of the inventory's entries made it: tells apart what was made in one second.
    pub number: u64,
    /// Who made it.
    pub by: PersonName,
    /// When.
    pub created: Timestamp,
    /// The first second it is no longer valid.
    pub expires: Timestamp,
    /// How many hosts may join with it.
    pub uses: u64,
    /// How many have.
    pub used: u64,
    /// Those that have.
    pub hosts: RedBlackTreeSetSync<HostName>,
    /// Names that it gives.
    pub names: BTreeSet<NamePattern>,
    /// Tags that it fixes.
    pub tags: BTreeSet<Tag>,
    /// Keys of further tags that a host may give itself; `None`, in tokens of before: any.
    pub may_tag: Option<BTreeSet<TagKey>>,
    /// Whether it was taken back.
    pub is_revoked: bool,
    /// When it was refused for a host that is known, and that was noted: the newest [`REFUSED_MAX`], oldest first.
    refused: Vec<Timestamp>,
    token: TokenHash,
}

impl Join {
    /// Whether so much was refused with it within the hour that no more of it is noted.
    fn is_noted_enough(&self, now: Timestamp) -> bool {
        let oldest = self.refused.first().filter(|_| self.refused.len() >= REFUSED_MAX);
        oldest.is_some_and(|at| now.seconds_since(*at) < 3600)
    }

    /// `open`, `revoked`, `expired` or `spent`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.is_revoked {
            "revoked"
        } else if self.used >= self.uses {
            "spent"
        } else if now >= self.expires {
            "expired"
        } else {
            "open"
        }
    }
}

impl EnrolledHost {
    /// The key that it shows who it is with.
    #[must_use]
    pub fn identity(&self) -> Option<&PublicKey> {
        self.keys.first()
    }

    /// As policy sees it: an enrolled host is always opened by `account@host`.
    #[must_use]
    pub fn for_policy(&self) -> Arc<Host> {
        Arc::clone(&self.for_policy)
    }
}

fn for_policy(name: &HostName, tags: &BTreeSet<Tag>) -> Arc<Host> {
    Arc::new(Host { name: name.clone(), tags: pairs(tags), scope: Scope::Host })
}

/// Tags by key.
fn pairs(tags: &BTreeSet<Tag>) -> BTreeMap<TagKey, TagValue> {
    tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect()
}

impl Inventory {
    /// How many of the log's entries it is made of; grows with each change.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// The first index of the log that comes after all of them.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// All hosts, also retired ones, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &EnrolledHost> {
        self.hosts.values().map(|host| &**host)
    }

    /// The hosts that are enrolled now, by name.
    pub fn active(&self) -> impl Iterator<Item = &EnrolledHost> {
        self.hosts().filter(|host| host.is_active)
    }

    /// This host, also if it is retired.
    #[must_use]
    pub fn host(&self, name: &HostName) -> Option<&EnrolledHost> {
        self.hosts.get(name).map(|host| &**host)
    }

    /// A host by this name as policy sees it, if one is enrolled.
    #[must_use]
    pub fn named_for_policy(&self, name: HostName) -> (HostName, Option<Arc<Host>>) {
        let host = self.host(&name).filter(|host| host.is_active).map(EnrolledHost::for_policy);
        (name, host)
    }

    /// The host that is enrolled with this key.
    #[must_use]
    pub fn with_key(&self, key: &PublicKey) -> Option<&EnrolledHost> {
        self.host(self.keys.get(&key.fingerprint())?)
    }

    /// The enrolled hosts that have this name: as their own, or among their further names.
    pub fn called(&self, name: &HostName) -> impl Iterator<Item = &EnrolledHost> {
        let further = self.names.get(name).and_then(|owner| self.host(owner));
        self.host(name).filter(|host| host.is_active).into_iter().chain(further)
    }

    /// All join tokens, by id.
    pub fn joins(&self) -> impl Iterator<Item = &Join> {
        self.joins.values().map(|join| &**join)
    }

    /// This join token.
    #[must_use]
    pub fn join(&self, id: &JoinId) -> Option<&Join> {
        self.joins.get(id).map(|join| &**join)
    }

    /// Which of the entries says newest what this tag of a host is, by an operator: by hand, or by the token of its last joining.
    fn said(&self, host: &EnrolledHost, key: &TagKey) -> Option<u64> {
        let join = self.join(&host.join).filter(|join| join.tags.iter().any(|tag| tag.key == *key));
        host.said.get(key).copied().max(join.map(|join| join.number))
    }

    /// The join token with this hash.
    fn with_token(&self, token: TokenHash) -> Option<&Join> {
        self.join(self.tokens.get(&token)?)
    }

    /// Takes the next entry; one that is not about hosts changes nothing.
    pub fn take(&mut self, entry: &Entry) {
        let Event::Host(event) = &entry.event else { return };
        if event.is_of_inventory() {
            self.entries = self.entries.saturating_add(1);
            self.next = self.next.max(entry.index.saturating_add(1));
            self.take_event(event, Stand { version: entry.index, since: entry.at });
        }
    }

    fn take_event(&mut self, event: &HostEvent, entry: Stand) {
        let at = entry.since;
        match event {
            HostEvent::JoinCreated { join, by, token, uses, expires, names, tags, may_tag } => {
                let new = Join {
                    id: join.clone(),
                    number: self.entries,
                    by: by.clone(),
                    created: at,
                    expires: *expires,
                    uses: *uses,
                    used: 0,
                    hosts: RedBlackTreeSetSync::new_sync(),
                    names: names.clone(),
                    tags: tags.clone(),
                    may_tag: may_tag.clone(),
                    is_revoked: false,
                    refused: Vec::new(),
                    token: TokenHash(*token.bytes()),
                };
                self.tokens.insert_mut(new.token, join.clone());
                self.joins.insert_mut(join.clone(), Arc::new(new));
            }
            HostEvent::JoinRevoked { join, .. } => {
                if let Some(join) = self.joins.get_mut(join).map(Arc::make_mut) {
                    join.is_revoked = true;
                }
            }
            HostEvent::HostEnrolled { host, join, keys, names, tags } => {
                self.take_host(host, join, (keys, names, tags), entry);
            }
            HostEvent::HostRefused { host, join, key, known, why } => {
                if let Some(join) = self.joins.get_mut(join).map(Arc::make_mut) {
                    join.refused.push(at);
                    let over = join.refused.len().saturating_sub(REFUSED_MAX);
                    join.refused.drain(..over);
                }
                if let Some(known) = self.host_mut(known) {
                    known.conflicts.push(Conflict { at, name: host.clone(), key: *key, why: why.clone() });
                    let over = known.conflicts.len().saturating_sub(CONFLICTS_MAX);
                    known.conflicts.drain(..over);
                }
            }
            HostEvent::HostTagged { host, tags, .. } => {
                let number = self.entries;
                if let Some(host) = self.host_mut(host) {
                    let changed = host.tags.symmetric_difference(tags).map(|tag| (tag.key.clone(), number));
                    host.said.extend(changed.collect::<Vec<_>>());
                    host.tags.clone_from(tags);
                    host.for_policy = for_policy(&host.name, tags);
                }
            }
            HostEvent::HostMoved { host, ca, keeps, waits } => {
                if let Some(host) = self.host_mut(host) {
                    host.ca.clone_from(ca);
                    host.keeps.clone_from(keeps);
                    host.waits = *waits;
                    host.moved = Some(entry);
                }
            }
            HostEvent::HostRetired { host, .. } | HostEvent::HostLeft { host } => {
                if matches!(event, HostEvent::HostRetired { .. }) {
                    self.note_retired(host);
                }
                self.disown(host);
                if let Some(host) = self.host_mut(host) {
                    host.is_active = false;
                }
            }
            HostEvent::HostCertificateToBeSigned { .. }
            | HostEvent::HostCertificateSigned { .. }
            | HostEvent::CheckCertificateToBeSigned { .. }
            | HostEvent::CheckCertificateSigned { .. }
            | HostEvent::CheckInChanged { .. }
            | HostEvent::HostDoubled { .. }
            | HostEvent::SessionOpened { .. }
            | HostEvent::SessionEnded { .. }
            | HostEvent::SessionRefused { .. }
            | HostEvent::SessionFlagged { .. } => {}
        }
    }

    /// This host, to be changed here alone.
    fn host_mut(&mut self, name: &HostName) -> Option<&mut EnrolledHost> {
        self.hosts.get_mut(name).map(Arc::make_mut)
    }

    /// A token that was made before this lets neither the name of this host nor its keys in any more.
    fn note_retired(&mut self, name: &HostName) {
        let Some(host) = self.hosts.get(name).map(Arc::clone) else { return };
        for key in &host.keys {
            self.retired_keys.insert_mut(key.fingerprint(), self.entries);
        }
        self.retired_names.insert_mut(name.clone(), self.entries);
    }

    /// The keys and further names of this host are nobody's.
    fn disown(&mut self, name: &HostName) {
        let Some(host) = self.hosts.get(name).filter(|host| host.is_active).map(Arc::clone) else { return };
        for key in host.keys.iter().map(PublicKey::fingerprint) {
            if self.keys.get(&key) == Some(name) {
                self.keys.remove_mut(&key);
            }
        }
        for further in &host.names {
            if self.names.get(further) == Some(name) {
                self.names.remove_mut(further);
            }
        }
    }

    /// What operators have said of the tags of a host that comes again with this token: by hand, and by a newer token before.
    fn said_before(&self, known: &EnrolledHost, join: &JoinId) -> BTreeMap<TagKey, u64> {
        let (last, now) = (self.join(&known.join), self.join(join));
        let newer = last.filter(|last| now.is_none_or(|now| now.number < last.number));
        let by_token = newer.into_iter().flat_map(|last| last.tags.iter().map(|tag| (tag.key.clone(), last.number)));
        let mut said = known.said.clone();
        for (key, number) in by_token {
            let kept = said.entry(key).or_insert(number);
            *kept = number.max(*kept);
        }
        said
    }

    fn take_host(
        &mut self,
        name: &HostName,
        join: &JoinId,
        (keys, names, tags): (&[PublicKey], &BTreeSet<HostName>, &BTreeSet<Tag>),
        entry: Stand,
    ) {
        let at = entry.since;
        let earlier = self.hosts.get(name);
        let known = earlier.filter(|known| known.is_active);
        let is_again = known.is_some_and(|known| known.join == *join);
        let (enrolled, conflicts) = known.map_or((at, Vec::new()), |known| (known.enrolled, known.conflicts.clone()));
        let said = known.map(|known| self.said_before(known, join)).unwrap_or_default();
        let mut tags = tags.clone();
        if let Some(join) = self.joins.get_mut(join).map(Arc::make_mut) {
            join.used = join.used.saturating_add(u64::from(!is_again));
            join.hosts.insert_mut(name.clone());
            // Thousands of hosts have the tags of one token: one text for all of them.
            tags = tags.iter().map(|tag| join.tags.get(tag).unwrap_or(tag).clone()).collect();
        }
        let host = EnrolledHost {
            name: name.clone(),
            for_policy: for_policy(name, &tags),
            tags,
            names: names.clone(),
            keys: keys.to_vec(),
            join: join.clone(),
            enrolled,
            is_active: true,
            ca: known.map(|known| known.ca.clone()).unwrap_or_default(),
            keeps: known.map(|known| known.keeps.clone()).unwrap_or_default(),
            waits: known.is_some_and(|known| known.waits),
            // Whoever was of another CA before it was retired may have a bundle of a greater version yet.
            moved: match known {
                Some(known) => known.moved,
                None => earlier.and_then(|earlier| earlier.moved).map(|_| entry),
            },
            conflicts,
            said,
        };
        self.disown(name);
        for key in &host.keys {
            self.keys.insert_mut(key.fingerprint(), name.clone());
        }
        for further in &host.names {
            self.names.insert_mut(further.clone(), name.clone());
        }
        self.hosts.insert_mut(name.clone(), Arc::new(host));
    }
}
