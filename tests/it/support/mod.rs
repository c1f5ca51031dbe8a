//! The `World`: everything a story needs, real but for time, chance and the faults that a test asks for.
//!
//! Store, CA key, log key, policy, logins and service are the real ones, in a temporary folder. The clock stands
//! still until it is set, random bytes come from a seed, and [`Faulty`] can make the CA key fail at its interface.
//! [`World::check`] verifies everything that can be verified from outside: the export, each certificate against its
//! entry, and the promises by replaying the log.

pub(crate) mod check;
pub(crate) mod cut;
mod doubtful;
pub(crate) mod fixtures;
pub(crate) mod histories;
pub(crate) mod numbers;
pub(crate) mod postgres;
pub(crate) mod signer;
pub(crate) mod slate;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use doubtful::Doubtful;
use hallpass::audit::checkpoint::LogKey;
use hallpass::identity::Proven;
use hallpass::identity::approval::Statement;
use hallpass::identity::challenge::{Answer, statement};
use hallpass::name::{Account, CaName, Digest, PersonName, RequestId, RequestPrefix, Target};
use hallpass::service::access::{Approval, Ask, View};
use hallpass::service::login::NewSession;
use hallpass::service::{FirstPolicy, NamedCa, NoRandomness, Outcome, Parts, Random, Rotation, Service, Settings};
use hallpass::signer::Signer;
use hallpass::ssh::cert::Certificate;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::{APPROVAL_NAMESPACE, LOGIN_NAMESPACE, SshSignature};
use hallpass::ssh::{Fingerprint, PublicKey};
use hallpass::store::head_file::HeadFile;
use hallpass::store::{self, SEAL_PURPOSE, Store};
use hallpass::time::{Clock as _, Lifetime, ManualClock, Timestamp};
use rand::{Rng as _, SeedableRng as _};
pub(crate) use signer::{Fault, Faulty};

/// When every story begins: a Monday morning.
pub(crate) const START: &str = "2026-01-05T10:00:00Z";

/// The service's public URL.
pub(crate) const SERVER: &str = "https://hallpass.example.com";

/// Who there is: alice asks; bob and carol are sre, dana is dba; omar operates, ada audits; eve is in no group.
pub(crate) const PEOPLE: [&str; 7] = ["alice", "bob", "carol", "dana", "omar", "ada", "eve"];

/// Everything a story needs.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) signer: Arc<Faulty>,
    /// Further user CA keys, for rotations.
    pub(crate) next: Vec<Arc<Faulty>>,
    /// The host CA key; none unless a test puts one here before a start.
    pub(crate) host_signer: Option<Arc<Faulty>>,
    /// Further host CA keys, for rotations.
    pub(crate) host_next: Vec<Arc<Faulty>>,
    /// The CA key that may sign whoever trusts it.
    pub(crate) accepted_ca: Option<Fingerprint>,
    /// Further keys that hosts trust.
    pub(crate) trusted: Vec<PublicKey>,
    /// Further user CAs: of each the key that signs, and those to change to.
    pub(crate) named: BTreeMap<CaName, Vec<Arc<Faulty>>>,
    /// Set: the next commit (or check-in to be written) is said to have failed, and has not.
    pub(crate) store_lies: Arc<AtomicBool>,
    /// While it is true, the store writes no new request.
    pub(crate) store_holds: tokio::sync::watch::Sender<bool>,
    pub(crate) settings: Settings,
    /// Where its store is: a file, unless a test puts it elsewhere before the start.
    pub(crate) store: store::Settings,
    /// The log key's seed.
    pub(crate) log_seed: [u8; 32],
    service: Option<Arc<Service>>,
    /// What it works on, for [`Self::restart_on_open_store`].
    open: Option<Arc<dyn Store>>,
    random: Seeded,
    keys_made: AtomicU64,
    /// Each certificate that was handed out.
    handed: Mutex<Vec<(RequestId, Certificate)>>,
    /// Checkpoints that somebody kept.
    kept: Mutex<Vec<String>>,
}

/// Random bytes from a seed.
#[derive(Clone, Debug)]
struct Seeded(Arc<Mutex<rand::rngs::StdRng>>);

impl Random for Seeded {
    fn fill(&self, out: &mut [u8]) -> Result<(), NoRandomness> {
        self.0.lock().unwrap().fill_bytes(out);
        Ok(())
    }
}

/// The person of this short name.
pub(crate) fn person(name: &str) -> PersonName {
    PersonName::parse(&format!("{name}@example.com")).unwrap()
}

/// The seed of the key that a person logs in with.
pub(crate) fn login_seed(name: &str) -> [u8; 32] {
    let place = PEOPLE.iter().position(|p| *p == name).map_or(0x99, |place| u8::try_from(place).unwrap());
    [0x50 + place; 32]
}

/// The private key that a person logs in with.
pub(crate) fn login_key(name: &str) -> LoginKey {
    let pem = SessionKey::generate(login_seed(name)).to_openssh(name).unwrap();
    LoginKey::parse(pem.as_bytes(), None).unwrap()
}

/// The same, made once: it takes as long as to sign with it.
fn kept_login_key(name: &str) -> Arc<LoginKey> {
    static KEPT: Mutex<BTreeMap<String, Arc<LoginKey>>> = Mutex::new(BTreeMap::new());
    let mut kept = KEPT.lock().unwrap();
    Arc::clone(kept.entry(name.to_owned()).or_insert_with(|| Arc::new(login_key(name))))
}

/// The sample policy.
pub(crate) fn policy() -> String {
    static TEXT: LazyLock<String> = LazyLock::new(made_policy);
    TEXT.clone()
}

fn made_policy() -> String {
    let groups = |name: &str| match name {
        "alice" => "\"backend\"",
        "bob" | "carol" => "\"sre\"",
        "dana" => "\"dba\"",
        "omar" => "\"platform\"",
        "ada" => "\"audit\"",
        _ => "",
    };
    let people: String = PEOPLE
        .iter()
        .map(|name| {
            let key = login_key(name).public_key().to_openssh();
            let (person, groups) = (person(name), groups(name));
            format!("[[person]]\nname = \"{person}\"\ngroups = [{groups}]\nkeys = [\"{key}\"]\n\n")
        })
        .collect();
    format!("version = 1\n\n{people}{}", include_str!("policy.toml"))
}

impl World {
    /// A world that has just begun.
    pub(crate) async fn new() -> Self {
        Self::with(&policy(), Duration::from_secs(30)).await
    }

    /// One with this policy, whose signer has this much time.
    pub(crate) async fn with(policy: &str, sign_timeout: Duration) -> Self {
        let mut world = Self::unstarted(sign_timeout);
        world.try_start(Some(policy)).await.unwrap();
        world
    }

    /// One whose service has yet to be started.
    pub(crate) fn unstarted(sign_timeout: Duration) -> Self {
        let settings = Settings {
            public_url: SERVER.to_owned(),
            session: Lifetime::minutes(720),
            open_requests_max: 5,
            sign_timeout,
            rotation: Rotation::default(),
        };
        let folder = tempfile::tempdir().unwrap();
        let store = store::Settings::Sqlite(store::sqlite::Settings { path: folder.path().join("hallpass.sqlite") });
        Self {
            folder,
            store,
            clock: Arc::new(ManualClock::at(Timestamp::parse(START).unwrap())),
            signer: Arc::new(Faulty::new([0xCA; 32])),
            next: Vec::new(),
            host_signer: None,
            host_next: Vec::new(),
            accepted_ca: None,
            trusted: Vec::new(),
            named: BTreeMap::new(),
            store_lies: Arc::default(),
            store_holds: tokio::sync::watch::Sender::new(false),
            settings,
            log_seed: [0x10; 32],
            service: None,
            open: None,
            random: Seeded(Arc::new(Mutex::new(rand::rngs::StdRng::seed_from_u64(1)))),
            keys_made: AtomicU64::new(0),
            handed: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Another node on the same database, which has to be a server's: with the same keys, a checkpoint of its own, and yet to be started.
    pub(crate) fn node_beside(&self) -> Self {
        let mut node = Self::unstarted(self.settings.sign_timeout);
        node.store = self.store.clone();
        node.clock = Arc::clone(&self.clock);
        (node.signer, node.next) = (Arc::clone(&self.signer), self.next.clone());
        node.random = Seeded(Arc::new(Mutex::new(rand::rngs::StdRng::seed_from_u64(2))));
        node
    }

    /// The database file.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("hallpass.sqlite")
    }

    /// Starts the service on what is in the folder, with this first policy.
    pub(crate) async fn try_start(&mut self, policy: Option<&str>) -> Outcome<()> {
        self.stop();
        let log_key = self.log_key();
        let store: Arc<dyn Store> = store::open(&self.store, log_key.derive(SEAL_PURPOSE)).await?.into();
        self.try_start_on(store, policy).await
    }

    async fn try_start_on(&mut self, store: Arc<dyn Store>, policy: Option<&str>) -> Outcome<()> {
        let first = policy.map(|text| FirstPolicy { text: text.to_owned(), file: "policy.toml".to_owned() });
        let parts = Parts {
            store: Box::new(Doubtful {
                store: Arc::clone(&store),
                lies: Arc::clone(&self.store_lies),
                holds: self.store_holds.subscribe(),
            }),
            kept_head: Arc::new(HeadFile::new(self.folder.path().join("head"))),
            signer: Arc::clone(&self.signer) as Arc<_>,
            next: self.next.iter().map(|signer| Arc::clone(signer) as Arc<_>).collect(),
            host_signer: self.host_signer.clone().map(|signer| signer as Arc<_>),
            host_next: self.host_next.iter().map(|signer| Arc::clone(signer) as Arc<_>).collect(),
            trusted: self.trusted.clone(),
            named: self.named.iter().map(|(name, keys)| (name.clone(), named_ca(keys))).collect(),
            accepted_ca: self.accepted_ca,
            log_key: self.log_key(),
            clock: Arc::clone(&self.clock) as Arc<_>,
            random: Box::new(self.random.clone()),
            settings: self.settings.clone(),
        };
        self.service = Some(Service::start(parts, first).await?);
        self.open = Some(store);
        Ok(())
    }

    fn log_key(&self) -> LogKey {
        LogKey::new("hallpass.example.com/log", &self.log_seed).unwrap()
    }

    /// Stops the service.
    pub(crate) fn stop(&mut self) {
        drop((self.service.take(), self.open.take()));
    }

    /// Stops the service and starts it anew on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.try_start(None).await.unwrap();
    }

    /// The same, but the store stays open: what the service remembers is gone, connections are not.
    pub(crate) async fn restart_on_open_store(&mut self) {
        drop(self.service.take());
        let store = self.open.take().unwrap();
        self.try_start_on(store, None).await.unwrap();
    }

    /// From now on, chance and keys are those of this seed.
    pub(crate) fn reseed(&self, seed: u64) {
        *self.random.0.lock().unwrap() = rand::rngs::StdRng::seed_from_u64(seed);
        self.keys_made.store(seed << 16, Ordering::Relaxed);
    }

    /// The running service.
    pub(crate) fn service(&self) -> &Arc<Service> {
        self.service.as_ref().unwrap()
    }

    /// Lets this many seconds pass.
    pub(crate) fn pass(&self, seconds: u32) {
        self.clock.set(self.now().plus(Lifetime::from_seconds(seconds).unwrap()).unwrap());
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// An answer by this person, with their own key, to a fresh challenge.
    pub(crate) fn answer(&self, name: &str) -> Answer {
        let (challenge, _) = self.service().challenge().unwrap();
        answer_at(&self.settings.public_url, challenge, name, &kept_login_key(name))
    }

    /// Logs in.
    pub(crate) async fn login(&self, name: &str) -> NewSession {
        self.service().login(self.answer(name), "127.0.0.1:1".to_owned()).await.unwrap()
    }

    /// Logs in, for the proof alone.
    pub(crate) async fn proven(&self, name: &str) -> Proven {
        self.login(name).await.proven
    }

    /// A key that nobody has had before.
    pub(crate) fn fresh_key(&self) -> PublicKey {
        let mut seed = [0x33; 32];
        seed[..8].copy_from_slice(&self.keys_made.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        SessionKey::generate(seed).public_key().clone()
    }

    /// An ask for these targets, with a fresh key and a reason that every rule takes.
    pub(crate) fn ask(&self, targets: &[&str], account: &str) -> Ask {
        Ask {
            targets: targets.iter().map(|target| Target::parse(target).unwrap()).collect(),
            account: Some(Account::parse(account).unwrap()),
            lifetime: None,
            start: None,
            reason: "INC-1 look at the logs".to_owned(),
            ticket: None,
            key: self.fresh_key(),
        }
    }

    /// Fetches a certificate and remembers that it was handed out.
    pub(crate) async fn fetch(&self, by: &Proven, id: RequestId) -> Outcome<Certificate> {
        let certificate = self.service().certificate(by, &prefix(id)).await?;
        self.handed.lock().unwrap().push((id, certificate.clone()));
        Ok(certificate)
    }

    /// Approves what waits, as it is shown to this person now.
    pub(crate) async fn approve(&self, by: &Proven, id: RequestId) -> Outcome<View> {
        let digest = self.shown(by, id).await?;
        self.service().approve(by, &prefix(id), Approval::of(digest)).await
    }

    /// Approves what waits, signed by this person's own key.
    pub(crate) async fn approve_signed(&self, name: &str, by: &Proven, id: RequestId) -> Outcome<View> {
        let request = self.service().view(by, &prefix(id)).await?.request;
        let signature = Some(signed_by(name, &request.statement(by.person(), ""), self.now()));
        let approval = Approval { signature, ..Approval::of(request.digest()) };
        self.service().approve(by, &prefix(id), approval).await
    }

    /// The digest that this person sees.
    pub(crate) async fn shown(&self, by: &Proven, id: RequestId) -> Outcome<Digest> {
        Ok(self.service().view(by, &prefix(id)).await?.request.digest())
    }

    /// The state's word as operators see it.
    pub(crate) async fn state(&self, id: RequestId) -> &'static str {
        let omar = self.proven("omar").await;
        self.service().view(&omar, &prefix(id)).await.unwrap().request.parts().state.word()
    }
}

/// A user CA with these keys.
fn named_ca(keys: &[Arc<Faulty>]) -> NamedCa {
    let mut keys = keys.iter().map(|key| Arc::clone(key) as Arc<dyn Signer>);
    NamedCa { signer: keys.next().unwrap(), next: keys.collect(), trusted: Vec::new() }
}

/// The whole id as a prefix.
pub(crate) fn prefix(id: RequestId) -> RequestPrefix {
    RequestPrefix::parse(id.digits()).unwrap()
}

/// This person's signature on an approval statement, made at `signed`.
pub(crate) fn signed_by(name: &str, statement: &Statement, signed: Timestamp) -> (PublicKey, Timestamp, SshSignature) {
    sign_approval(&kept_login_key(name), SERVER, statement, signed)
}

/// The signature of `key` on an approval statement for this server.
pub(crate) fn sign_approval(
    key: &LoginKey,
    server: &str,
    statement: &Statement,
    signed: Timestamp,
) -> (PublicKey, Timestamp, SshSignature) {
    let armoured = key.sign(APPROVAL_NAMESPACE, statement.text(server, signed).as_bytes()).unwrap();
    (key.public_key().clone(), signed, SshSignature::parse(&armoured).unwrap())
}

/// The answer that `key` gives to this challenge in the name of `name`.
pub(crate) fn answer_to(challenge: String, name: &str, key: &LoginKey) -> Answer {
    answer_at(SERVER, challenge, name, key)
}

/// The same to the service at this URL.
fn answer_at(server: &str, challenge: String, name: &str, key: &LoginKey) -> Answer {
    let text = statement(server, &person(name), &challenge);
    let signature = SshSignature::parse(&key.sign(LOGIN_NAMESPACE, text.as_bytes()).unwrap()).unwrap();
    Answer { person: person(name), challenge, key: key.public_key().clone(), signature }
}
