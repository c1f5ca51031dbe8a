//! The service: load, decide, step, save (state and log entry together). No HTTP, no flags, no files.
//!
//! What for: the one place that knows store, CA key, policy in force, clock and randomness all five, and the only way
//! to change anything. Each public call is authorised here, below HTTP, so that every edge has the same rules.
//!
//! Invariants:
//! - Every decision is made by the pure rules (`policy`, `access`, `identity`) from what was just read, and saved by
//!   compare-and-swap with its log entries; if somebody was faster, it is made anew from what is there now.
//! - A call that has begun to change something runs to its end, whether or not its caller is still there.
//! - Decisions hold the policy they rest on (a read lock) until they are durable; a new policy waits for them, and
//!   none that began later rests on the old one. So in the log's order nothing rests on a policy that an earlier
//!   entry has replaced (P6).
//! - Nothing is signed unless the clock agrees with the log, and nothing before its entry is durable (`issue`).
//! - Nothing is written while the clock and a clock that nobody sets disagree (`clock`).
//!
//! Why is rights' source the policy in memory, not the session? Because leaving a group must work at once: a session
//! only proves who somebody is, and what they may is read anew at each call.

pub mod access;
pub mod ask;
pub mod browser;
mod bundles;
pub mod check;
pub mod clock;
pub mod desk;
pub mod enrol;
pub mod failure;
pub mod figures;
pub mod follow;
mod head;
mod host_issue;
pub mod host_report;
pub mod host_state;
mod host_tokens;
pub mod hosts;
pub mod inventory;
pub mod issue;
pub mod key_start;
pub mod key_view;
pub mod keys;
pub mod log;
pub mod login;
mod look;
pub mod lost;
mod lost_keys;
mod moving;
pub mod policy;
pub mod recover;
mod refusals;
pub mod rotate;
pub mod schedule;
mod seen;
mod start;
pub mod text;
mod tick;
pub mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{OwnedRwLockReadGuard, Semaphore, broadcast};
use tracing::Instrument as _;

use crate::access::Check;
use crate::audit::checkpoint::LogKey;
use crate::identity::Proven;
use crate::identity::browser::BrowserKeys;
use crate::identity::mac::MacKey;
use crate::keyring::Ca;
use crate::name::{CaName, PolicyVersion, RequestId};
use crate::policy::Policy;
use crate::signer::Signer;
use crate::ssh::{Fingerprint, PublicKey};
use crate::store::head_file::KeptHead;
use crate::store::{Change, Committed, Save, Store, StoreError};
use crate::time::{Clock, Lifetime, Timestamp};
pub use failure::{Failure, Outcome};

/// How often a decision is made anew when somebody else was faster. Each round somebody made progress, so a hundred
/// callers of one request need at most about as many rounds as it has steps to make; our own choice, with room.
const ATTEMPTS: usize = 16;

/// How far the clock may be behind the log's last entry before issuing stops: 30 s, the usual step of a clock that is
/// being set.
const CLOCK_TOLERANCE_S: u64 = 30;

/// How many signatures may be under way; a backend that hangs can't take more threads than these.
const SIGN_SLOTS: usize = 8;

/// How many changed ids a slow listener may lag behind before it must look for itself.
const CHANGES_KEPT: usize = 1024;

/// How many locks keep one person's asks in order.
const ASK_LOCKS: usize = 64;

/// 32 (or fewer) random bytes from the system, or seeded in tests.
pub trait Random: Send + Sync + std::fmt::Debug {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`NoRandomness`]; then nothing may be made from `out`.
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness>;
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        use rand::TryRng as _;
        rand::rngs::SysRng.try_fill_bytes(out).map_err(|error| {
            tracing::error!(%error, "no randomness");
            NoRandomness
        })
    }
}

impl From<NoRandomness> for Failure {
    fn from(_: NoRandomness) -> Self {
        Self::Unavailable("the system gives no random bytes".to_owned())
    }
}

/// What the service is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Public URL without a final slash, as clients use it: `https://hallpass.example.com:7722`.
    pub public_url: String,
    /// How long a login lasts; at most 12 h.
    pub session: Lifetime,
    /// How many open requests (pending, approved, issued) a person may have.
    pub open_requests_max: u64,
    /// How long a signer may take.
    pub sign_timeout: std::time::Duration,
    /// When CA keys are to be changed.
    pub rotation: Rotation,
}

/// When CA keys are to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// For each CA, how old its active key may become before its rotation begins by itself; never if it is not there.
    pub every: BTreeMap<Ca, Lifetime>,
    /// How long clients must have been able to fetch a host key before it signs.
    pub published: Lifetime,
}

impl Default for Rotation {
    /// Nothing by itself; a day for clients.
    fn default() -> Self {
        Self { every: BTreeMap::new(), published: Lifetime::minutes(24 * 60) }
    }
}

/// The keys of a user CA with a name, all opened.
#[derive(Clone, Debug)]
pub struct NamedCa {
    /// The key that signs when the log does not say that one of `next` does.
    pub signer: Arc<dyn Signer>,
    /// Further keys, for rotations.
    pub next: Vec<Arc<dyn Signer>>,
    /// Further keys that its hosts must trust; none of them signs here.
    pub trusted: Vec<PublicKey>,
}

/// The parts, all opened; built by `cli/serve.rs` and by tests.
pub struct Parts {
    /// The store.
    pub store: Box<dyn Store>,
    /// Where the newest signed checkpoint is kept, apart from the store.
    pub kept_head: Arc<dyn KeptHead>,
    /// The key of the default user CA that signs when the log does not say that one of `next` does.
    pub signer: Arc<dyn Signer>,
    /// Further keys of it, for rotations.
    pub next: Vec<Arc<dyn Signer>>,
    /// Further user CAs.
    pub named: BTreeMap<CaName, NamedCa>,
    /// The host CA key that signs when the log does not say that one of `host_next` does, if there is one.
    pub host_signer: Option<Arc<dyn Signer>>,
    /// Further host CA keys, for rotations.
    pub host_next: Vec<Arc<dyn Signer>>,
    /// Further keys that hosts of the default user CA must trust; none of them signs here.
    pub trusted: Vec<PublicKey>,
    /// A CA key that may sign from now on although not everybody is known to trust it.
    pub accepted_ca: Option<Fingerprint>,
    /// The log key.
    pub log_key: LogKey,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Box<dyn Random>,
    /// Settings.
    pub settings: Settings,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The service. One per process; shared by all handlers.
pub struct Service {
    store: Box<dyn Store>,
    head: head::Head,
    keys: keys::Keys,
    tally: keys::Tally,
    figures: figures::Tally,
    log_key: LogKey,
    clock: Arc<dyn Clock>,
    watch: clock::Watch,
    random: Box<dyn Random>,
    settings: Settings,
    policy: RwLock<InForce>,
    hosts: inventory::Hosts,
    /// Read while a decision is made and saved, written while a policy is replaced.
    policy_in_use: Arc<tokio::sync::RwLock<()>>,
    /// Whether the store failed while it was to keep a new policy: then it must say which one is in force.
    policy_unsure: AtomicBool,
    challenge_key: MacKey,
    session_key: MacKey,
    browser_keys: BrowserKeys,
    /// Keys that are configured to sign for the service; [`Service::service_keys`] has all that are nobody's.
    configured_keys: BTreeSet<Fingerprint>,
    changed: broadcast::Sender<RequestId>,
    waiting: waiting::Waiting<RequestId>,
    sign_slots: Arc<Semaphore>,
    /// One person's asks run one after the other: the limit and "one key, one request" look before they leap.
    asking: Vec<tokio::sync::Mutex<()>>,
    swept: AtomicU64,
    /// When CA keys were looked at last for what time alone does to them.
    keys_looked: AtomicU64,
    /// When hosts were looked at last that go over to another user CA.
    moves_looked: AtomicU64,
    /// On which day somebody was last told that a further one is missing.
    keys_warned: AtomicU64,
    lost_keys: lost_keys::Looked,
    followed: follow::Followed,
    refusals: refusals::Refusals,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("store", &self.store)
            .field("keys", &self.keys)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The trust bundle in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// The index of the log entry that changed it last; it only grows.
    pub version: u64,
    /// The file's content ([`crate::ssh::bundle`]).
    pub text: Arc<str>,
}

/// The policy in force.
#[derive(Clone, Debug)]
struct InForce {
    version: PolicyVersion,
    /// As its text says it.
    file: Arc<Policy>,
    /// With the enrolled hosts.
    joined: Arc<Policy>,
}

/// What the first policy is, when the store has none yet.
#[derive(Clone, Debug)]
pub struct FirstPolicy {
    /// Its text.
    pub text: String,
    /// Its file name, for problems.
    pub file: String,
}

impl Service {
    /// Version and policy in force, with the enrolled hosts.
    #[must_use]
    pub fn policy_now(&self) -> (PolicyVersion, Arc<Policy>) {
        let InForce { version, joined, .. } = self.in_force();
        (version, joined)
    }

    fn in_force(&self) -> InForce {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Told the id of every request that changes; for who looks at all of them.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<RequestId> {
        self.changed.subscribe()
    }

    /// Told when this request changes; for who waits for one.
    #[must_use]
    pub fn changes_of(&self, id: RequestId) -> waiting::Listener<RequestId> {
        self.waiting.listen(id)
    }

    /// The settings it was started with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The time by the service's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The active host CA key, if there is one: what clients may trust for the names of hosts.
    #[must_use]
    pub fn host_ca(&self) -> Option<PublicKey> {
        self.keys.now().ring.active(&Ca::Host).cloned()
    }

    /// Whether the service can issue now: store writable, checkpoint kept, clock not behind the log, signer not stuck and still the
    /// same key. Gives a warning for each other CA key that can't be used, and for what is wrong with the database file.
    ///
    /// # Errors
    /// [`Failure::Unavailable`] with what is missing.
    pub async fn ready(&self) -> Outcome<Vec<String>> {
        if self.store.is_shared() {
            self.check_whole().await?;
        }
        self.store.ready().await?;
        self.check_issuing().await?;
        self.check_head().await?;
        let mut warnings = self.check_signers()?;
        warnings.extend(self.store.warnings());
        match tokio::time::timeout(self.settings.sign_timeout, self.sign_slots.acquire()).await {
            Ok(Ok(_slot)) => Ok(warnings),
            Ok(Err(_)) | Err(_) => Err(Failure::Unavailable("the CA key's backend does not answer".to_owned())),
        }
    }

    /// What must hold before anything is signed (I-29); whether the store can be written shows in the commit that follows, and whether
    /// the key can be used (I-19) is asked of the one that is to sign.
    ///
    /// # Errors
    /// What does not hold: the clock. Or why the log can't be asked. Writes nothing.
    pub async fn check_issuing(&self) -> Outcome<()> {
        self.check_clock()?;
        let (head, now) = (self.store.head().await?, self.clock.now());
        self.notice(&head);
        if head.at.seconds_since(now) > CLOCK_TOLERANCE_S { Err(Failure::behind(now, head.at)) } else { Ok(()) }
    }

    /// `N` random bytes.
    fn random<const N: usize>(&self) -> Outcome<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// The policy in force, held in force until the guard is dropped.
    async fn hold_policy(&self) -> Outcome<(OwnedRwLockReadGuard<()>, Check)> {
        self.settle_policy().await?;
        let guard = Arc::clone(&self.policy_in_use).read_owned().await;
        let (version, policy) = self.policy_now();
        Ok((guard, Check { version, policy }))
    }

    /// Commits a decision: only if what it rests on (policy, inventory, CA keys) is in force by the log, too. Another node may have put
    /// something else in force; then the caller decides anew, after that has been read. Called with the policy held.
    async fn commit_decision(&self, mut change: Change) -> Result<Committed, StoreError> {
        change.saves.insert(0, Save::OnBasis(self.basis()));
        self.commit(change).await
    }

    /// As [`Self::try_commit`]; what was overtaken is read anew before the next decision.
    async fn commit(&self, change: Change) -> Result<Committed, StoreError> {
        match self.try_commit(change).await {
            Err(StoreError::Overtaken) => {
                self.doubt();
                Err(StoreError::Conflict)
            }
            done => done,
        }
    }

    /// Commits, and tells who waits for the requests that changed. Not while the clock has leapt.
    async fn try_commit(&self, change: Change) -> Result<Committed, StoreError> {
        if let Some(seconds) = self.clock_leap() {
            return Err(StoreError::Clock(seconds));
        }
        let counted = figures::Counted::of(&change);
        let takes_away = change.events.iter().any(head::takes_away);
        let committed = self.store.commit(change).await?;
        self.wrote(&committed);
        self.figures.count(&counted, &committed);
        for stored in &committed.requests {
            self.tell(stored.request.id());
            for host in stored.request.parts().terms.hosts.keys() {
                self.tell_hosts(inventory::HostChange::One(host.clone()));
            }
        }
        if takes_away {
            self.keep_head_or_tell(committed.log.size()).await;
        }
        Ok(committed)
    }

    /// Whether the store still works at all; if not, only a new process helps.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.store.is_alive()
    }

    /// Tells who waits for this request.
    fn tell(&self, id: RequestId) {
        // An error means that nobody listens, which is no error.
        drop(self.changed.send(id));
        self.waiting.tell(&id);
    }

    /// Whether this person reads everything.
    fn reads_all(by: &Proven, policy: &Policy) -> bool {
        policy.is_operator(by.person()) || policy.is_auditor(by.person())
    }

    /// Refuses everybody but operators and auditors.
    fn check_reader(&self, by: &Proven, what: &str) -> Outcome<()> {
        let (_, policy) = self.policy_now();
        if Self::reads_all(by, &policy) {
            return Ok(());
        }
        Err(Failure::Forbidden(format!("only operators and auditors may {what}")))
    }

    /// Refuses everybody but operators.
    fn check_operator(&self, by: &Proven, what: &str) -> Outcome<()> {
        let (_, policy) = self.policy_now();
        if policy.is_operator(by.person()) {
            return Ok(());
        }
        Err(Failure::Forbidden(format!("only operators may {what}")))
    }
}

/// Runs `work` to its end even if the caller stops waiting (a closed connection drops its handler), so that what is
/// half done in the store is never half done in memory.
async fn whole<T: Send + 'static>(work: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::internal("finishing a call", error)),
    }
}
