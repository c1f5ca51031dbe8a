//! Which hosts are enrolled: kept in memory as the log tells it, changed by operators and by hosts that join and leave.
//!
//! Invariants:
//! - A change is decided on the inventory in memory and committed only if the log has no later entry about hosts; if it has, they are
//!   read and it is decided anew. So a join token is spent and its host enrolled in one transaction, or neither.
//! - An inventory is replaced like a policy: no decision that rests on the old one is under way meanwhile (P6).
//! - The file's policy and the inventory never contradict each other: both sides look before they change.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use secrecy::SecretString;
use tokio::sync::Semaphore;

use super::host_state::States;
use super::host_tokens::HostTokens;
use super::seen::SeenHosts;
use super::text::{self, REASON_CHARS_MAX};
use super::waiting::{Listener, Waiting};
use super::{ATTEMPTS, Failure, Outcome, SIGN_SLOTS, Service, whole};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::identity::Proven;
use crate::identity::host::mint_join;
use crate::identity::mac::MacKey;
use crate::inventory::enrol::retag;
use crate::inventory::moves::moves;
use crate::inventory::{EnrolledHost, Inventory, Join};
use crate::name::{CaName, Digest, HostName, JoinId, NamePattern, Tag, TagKey};
use crate::policy::{Host, Policy};
use crate::ssh::Fingerprint;
use crate::store::{Change, LIST_MAX, Save, Store, StoreError};
use crate::time::Lifetime;

/// The longest life of a join token: 30 days (design).
const JOIN_LIFETIME_MAX: Lifetime = Lifetime::minutes(30 * 24 * 60);

/// What it is if nobody says: an hour (design).
const JOIN_LIFETIME: Lifetime = Lifetime::minutes(60);

/// The most hosts of one join token, and the most patterns of names. Our own choice.
const JOIN_USES_MAX: u64 = 10_000;
const JOIN_NAMES_MAX: usize = 16;
const JOIN_TAGS_MAX: usize = 64;

/// Who is to learn that something about hosts has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// This host.
    One(HostName),
    /// All of them.
    All,
}

/// The part of the service that knows about hosts.
pub(super) struct Hosts {
    inventory: RwLock<Arc<Inventory>>,
    pub(super) seen: SeenHosts,
    pub(super) states: Mutex<States>,
    pub(super) tokens: HostTokens,
    waiting: Waiting<HostName>,
    pub(super) challenge_key: MacKey,
    pub(super) session_key: MacKey,
    /// How many signatures of the host CA key may be under way.
    pub(super) sign_slots: Arc<Semaphore>,
}

impl Hosts {
    /// As the store has them.
    pub(super) async fn load(store: &dyn Store, keys: (MacKey, MacKey)) -> Outcome<Self> {
        let mut inventory = Inventory::default();
        read_on(store, &mut inventory, |_| ()).await?;
        Ok(Self {
            inventory: RwLock::new(Arc::new(inventory)),
            seen: SeenHosts::read(store.seen().await?),
            states: Mutex::default(),
            tokens: HostTokens::default(),
            waiting: Waiting::default(),
            challenge_key: keys.0,
            session_key: keys.1,
            sign_slots: Arc::new(Semaphore::new(SIGN_SLOTS)),
        })
    }

    pub(super) fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.inventory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The enrolled hosts of a CA whose file of trusted keys does not have this one, by what they said last.
    pub(super) fn without(&self, of: &CaName, ca: Fingerprint) -> BTreeSet<HostName> {
        let inventory = self.inventory();
        self.seen.without(&ca, inventory.active().filter(|host| host.ca == *of).map(|host| &host.name))
    }

    /// Another inventory is in force.
    pub(super) fn replace(&self, inventory: Inventory) {
        *self.inventory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(inventory);
    }

    /// The hosts as policy sees them.
    pub(super) fn for_policy(&self) -> Vec<Arc<Host>> {
        self.inventory().active().map(EnrolledHost::for_policy).collect()
    }
}

/// What a join token shall let in.
#[derive(Clone, Debug)]
pub struct JoinWish {
    /// Names that hosts may take.
    pub names: BTreeSet<NamePattern>,
    /// Tags that they all have.
    pub tags: BTreeSet<Tag>,
    /// Keys of further tags that they may give themselves.
    pub may_tag: BTreeSet<TagKey>,
    /// How many; one if `None`.
    pub uses: Option<u64>,
    /// For how long; an hour if `None`.
    pub lifetime: Option<Lifetime>,
}

/// A new join token with its secret.
#[derive(Debug)]
pub struct NewJoin {
    /// What it lets in.
    pub join: Join,
    /// The token.
    pub token: SecretString,
}

/// What a change of the inventory comes to.
pub(super) enum Decided {
    /// This entry, with what is saved beside it.
    Change(HostEvent, Vec<Save>),
    /// Nothing is to be changed.
    Nothing,
    /// This entry, and then the caller is refused.
    Refuse(HostEvent, Failure),
}

impl Service {
    /// The inventory as it stands.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        self.hosts.inventory()
    }

    /// Told when this host has something new to know.
    #[must_use]
    pub fn host_changes(&self, host: &HostName) -> Listener<HostName> {
        self.hosts.waiting.listen(host.clone())
    }

    /// Makes a join token; operators only. The secret is shown this once.
    ///
    /// # Errors
    /// `Forbidden`, `Invalid`.
    pub async fn create_join(self: &Arc<Self>, by: &Proven, wish: JoinWish) -> Outcome<NewJoin> {
        self.check_operator(by, "make join tokens")?;
        let JoinWish { names, tags, may_tag, uses, lifetime } = wish;
        let (uses, lifetime) = (uses.unwrap_or(1), lifetime.unwrap_or(JOIN_LIFETIME));
        let keys: BTreeSet<&TagKey> = tags.iter().map(|tag| &tag.key).collect();
        let rules = [
            ((1..=JOIN_NAMES_MAX).contains(&names.len()), "name 1 to 16 names or patterns like \"web-*\""),
            (tags.len() <= JOIN_TAGS_MAX, "a join token fixes at most 64 tags"),
            (keys.len() == tags.len(), "a tag has two values"),
            (may_tag.len() <= JOIN_TAGS_MAX, "a join token lets a host set at most 64 tags"),
            (
                keys.iter().all(|key| !may_tag.contains(*key)),
                "a tag that the token fixes is none that the host may set",
            ),
            ((1..=JOIN_USES_MAX).contains(&uses), "a join token is for 1 to 10000 hosts"),
            (
                lifetime > Lifetime::ZERO && lifetime <= JOIN_LIFETIME_MAX,
                "a join token lasts at most 30 days, and more than no time",
            ),
        ];
        if let Some((_, broken)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(Failure::Invalid(broken.to_owned()));
        }
        let (token, hash) = mint_join(self.random()?);
        let id = JoinId::from_random(self.random()?);
        let expires = self.clock.now().plus(lifetime).map_err(|why| Failure::Unavailable(why.to_string()))?;
        let event = HostEvent::JoinCreated {
            join: id.clone(),
            by: by.person().clone(),
            token: Digest::new(hash.0),
            uses,
            expires,
            names,
            tags,
            may_tag: Some(may_tag),
        };
        let known = id.clone();
        self.change_inventory(move |inventory, _| match inventory.join(&known) {
            // One in 2^40; not worth another draw.
            Some(_) => Err(Failure::contended()),
            None => Ok(Decided::Change(event.clone(), Vec::new())),
        })
        .await?;
        let join = self.inventory().join(&id).cloned();
        let join = join.ok_or_else(|| Failure::internal("making a join token", "it is not in the inventory"))?;
        Ok(NewJoin { join, token })
    }

    /// All join tokens; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn joins(&self, by: &Proven) -> Outcome<Vec<Join>> {
        self.check_reader(by, "read join tokens")?;
        let mut joins: Vec<Join> = self.inventory().joins().cloned().collect();
        joins.sort_by_key(|join| std::cmp::Reverse(join.number));
        Ok(joins)
    }

    /// Takes a join token back; operators only. Hosts that have joined with it stay.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`; `Conflict` when it is revoked already.
    pub async fn revoke_join(self: &Arc<Self>, by: &Proven, id: &JoinId) -> Outcome<()> {
        self.check_operator(by, "revoke join tokens")?;
        let (id, person) = (id.clone(), by.person().clone());
        self.change_inventory(move |inventory, _| {
            let join = inventory.join(&id).ok_or(Failure::NotFound("join token"))?;
            if join.is_revoked {
                return Err(Failure::Conflict(format!("join token {id} is revoked already")));
            }
            Ok(Decided::Change(HostEvent::JoinRevoked { join: id.clone(), by: person.clone() }, Vec::new()))
        })
        .await
    }

    /// Sets and takes away tags of an enrolled host; operators only.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Invalid`.
    pub async fn tag_host(
        self: &Arc<Self>,
        by: &Proven,
        name: &HostName,
        set: BTreeSet<Tag>,
        unset: BTreeSet<TagKey>,
    ) -> Outcome<()> {
        self.check_operator(by, "tag hosts")?;
        let (name, person) = (name.clone(), by.person().clone());
        self.change_inventory(move |inventory, policy| {
            let host = active(inventory, &name)?;
            let tags = retag(host, &set, &unset, policy).map_err(|why| Failure::Invalid(why.to_string()))?;
            if tags == host.tags {
                return Ok(Decided::Nothing);
            }
            let event = HostEvent::HostTagged { host: name.clone(), by: person.clone(), tags };
            Ok(Decided::Change(event, Vec::new()))
        })
        .await
    }

    /// Takes a host out; operators only. From then on it is an unknown host.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`, `Invalid`.
    pub async fn retire_host(self: &Arc<Self>, by: &Proven, name: &HostName, reason: &str) -> Outcome<()> {
        self.check_operator(by, "retire hosts")?;
        let reason = text::check("reason", reason, REASON_CHARS_MAX)?;
        let (name, by) = (name.clone(), by.person().clone());
        self.change_inventory(move |inventory, _| {
            active(inventory, &name)?;
            let event = HostEvent::HostRetired { host: name.clone(), by: by.clone(), reason: reason.clone() };
            Ok(Decided::Change(event, Vec::new()))
        })
        .await
    }

    /// Decides on the inventory as it stands, commits, and puts the new one in force; decided anew when somebody else was faster.
    pub(super) async fn change_inventory(
        self: &Arc<Self>,
        decide: impl Fn(&Inventory, &Policy) -> Outcome<Decided> + Send + Sync + 'static,
    ) -> Outcome<()> {
        let this = Arc::clone(self);
        whole(async move {
            for _ in 0..ATTEMPTS {
                if let Some(done) = this.try_change_inventory(&decide).await? {
                    return done;
                }
            }
            Err(Failure::contended())
        })
        .await
    }

    /// One attempt; `None` when the log has entries about hosts that we had not read.
    async fn try_change_inventory(
        &self,
        decide: impl Fn(&Inventory, &Policy) -> Outcome<Decided>,
    ) -> Outcome<Option<Outcome<()>>> {
        self.settle_with_others().await?;
        let _guard = Arc::clone(&self.policy_in_use).write_owned().await;
        let (inventory, file) = (self.hosts.inventory(), self.in_force().file);
        let (event, mut saves, outcome) = match decide(&inventory, &file)? {
            Decided::Change(event, saves) => (event, saves, Ok(())),
            Decided::Nothing => return Ok(Some(Ok(()))),
            Decided::Refuse(event, why) => (event, Vec::new(), Err(why)),
        };
        saves.push(Save::Inventory { expected: inventory.entries() });
        let events = self.with_moves(event.clone(), (&inventory, &file))?;
        match self.commit_decision(Change { at: self.clock.now(), saves, events }).await {
            Ok(_) => {}
            Err(StoreError::Conflict) => {
                self.refresh_policy().await?;
                return Ok(None);
            }
            Err(why) => {
                // A commit that failed may be on the disk all the same.
                if !matches!(why, StoreError::Replayed | StoreError::Clock(_) | StoreError::Busy) {
                    self.doubt_policy();
                }
                return Err(why.into());
            }
        }
        // A crash here is mended by the next start, which reads the log.
        self.refresh_policy().await?;
        // A join token concerns no host that there is.
        if let Some(host) = event.host() {
            self.tell_hosts(HostChange::One(host.clone()));
        }
        Ok(Some(outcome))
    }

    /// This change of the inventory, and what it makes of the hosts' CAs.
    fn with_moves(&self, event: HostEvent, (before, file): (&Inventory, &Policy)) -> Outcome<Vec<Event>> {
        let mut after = before.clone();
        // Its own index is not known before it is written, and nothing here goes by it.
        let entry = Entry { index: 0, at: self.clock.now(), event: Event::from(event) };
        after.take(&entry);
        let Event::Host(event) = &entry.event else { return Ok(vec![entry.event]) };
        let Some(host) = event.host() else { return Ok(vec![entry.event]) };
        // What contradicts the file was refused when it was decided.
        let joined = file.with_changed(&self.in_force().joined, [after.named_for_policy(host.clone())]);
        let joined = joined.map_err(|_wrong| Failure::internal("changing the inventory", "the file says otherwise"))?;
        // No other host has become one of another CA: which one it is of is a matter of its own tags.
        let moved = moves(after.host(host), before, &joined, &self.keys.now().ring);
        Ok(std::iter::once(entry.event).chain(moved.into_iter().map(Event::from)).collect())
    }

    /// The inventory with what the log says of hosts beyond what we know, and the hosts that it says it of.
    pub(super) async fn read_inventory(&self) -> Outcome<(Inventory, BTreeSet<HostName>)> {
        let (mut inventory, mut changed) = ((*self.hosts.inventory()).clone(), BTreeSet::new());
        let note = |entry: &Entry| {
            if let Event::Host(event) = &entry.event {
                changed.extend(event.host().cloned());
            }
        };
        read_on(self.store.as_ref(), &mut inventory, note).await?;
        Ok((inventory, changed))
    }

    /// Tells who waits for this host's state.
    pub(super) fn tell_hosts(&self, change: HostChange) {
        self.hosts.states.lock().unwrap_or_else(PoisonError::into_inner).forget(&change);
        match change {
            HostChange::One(host) => self.hosts.waiting.tell(&host),
            HostChange::All => self.hosts.waiting.tell_all(),
        }
    }
}

/// Has the inventory take what the log says beyond it; `told` hears each entry. A page at a time: of a hundred thousand hosts only what is kept is in
/// memory at once.
///
/// # Errors
/// Store failures, among them that there are fewer or more entries than the log's head says; what was taken until then stays.
pub(super) async fn read_on(
    store: &dyn Store,
    inventory: &mut Inventory,
    mut told: impl FnMut(&Entry) + Send,
) -> Result<(), StoreError> {
    loop {
        let page = store.inventory(inventory.entries(), inventory.next()).await?;
        for entry in &page {
            inventory.take(entry);
            told(entry);
        }
        if page.len() < LIST_MAX {
            return Ok(());
        }
    }
}

/// This host, if it is enrolled.
pub(super) fn active<'i>(inventory: &'i Inventory, name: &HostName) -> Outcome<&'i EnrolledHost> {
    inventory.host(name).filter(|host| host.is_active).ok_or(Failure::NotFound("enrolled host"))
}
