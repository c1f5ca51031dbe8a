//! `hallpass host enrol`: look, plan, ask, write, prove; or take everything back.
//!
//! Order, and what a crash leaves behind: nothing is touched before the service has said yes (a join token that was spent then is no
//! loss: the same host key may come again without one). From [`Memory::begin`] on, the next `enrol` or `leave` takes back whatever was
//! done; until [`Memory::keep`], which is after sshd has really let the host log in to itself.
//!
//! Invariants: what is carried out is what was shown, but for what only the service tells (its CA keys and host certificates). A
//! trust bundle that the log key has not signed is not written, and none that the daemon would not take ([`had`]).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::back::{self, Left};
use super::check_in::{self, Patience, Proof};
use super::facts::{self, HostKey};
use super::had::{self, Before, Had, Wanted};
use super::host_certificate::Expected;
use super::ledger::Ledger;
use super::link::{Joining, Link};
use super::lock::{Lock, One};
use super::memory::{Memory, Standing, Which};
use super::places::{self, Root};
use super::plan::{self, Facts, Obstacle, Plan, Wish, Write};
use super::risks::Risk;
use super::service_file::ServiceFile;
use super::sshd::Sshd;
use super::{about, diff, machine, owned};
use crate::client::{ClientError, Server};
use crate::fail;
use crate::host::program::Program;
use crate::name::{HostName, TagKey, TagValue};
use crate::note::NoteVerifier;
use crate::ssh::bundle::{Bundle, BundleError};
use crate::time::{Clock as _, SystemClock};
use crate::wire::host as wire;

/// How long sshd may take until it listens again after it was told to read its configuration. Our own choice.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    /// The service.
    pub server: Server,
    /// The join token; none for a host that the service knows by its host key.
    pub token: Option<SecretString>,
    /// The log key, where it is known beforehand.
    pub log_key: Option<NoteVerifier>,
    /// What the host shall be called.
    pub name: HostName,
    /// What it was called here before.
    pub named: Option<HostName>,
    /// The tags that it asks for.
    pub tags: Vec<(TagKey, TagValue)>,
    /// The tags that it had here before. They are not asked for: the service keeps those of a host that it knows, and a host that it does
    /// not know, or has retired, has no say in them.
    pub had: Vec<(TagKey, TagValue)>,
    /// Further names of its host certificate.
    pub names: Vec<HostName>,
    /// Whether sessions shall end with their windows.
    pub has_guard: bool,
    /// Whether another CA may be replaced.
    pub may_replace: bool,
    /// How sshd is told to read its configuration again, where it is not as usual.
    pub reload: Option<String>,
    /// The program that sshd and PAM are to run.
    pub program: Program,
}

/// Why it was not done.
#[derive(Debug)]
pub enum Stop {
    /// These are in the way; nothing was changed.
    Obstacles(Vec<Obstacle>),
    /// Something can't be found out or done; nothing was changed.
    Unable(String),
    /// The service said no or can't be reached; nothing was changed.
    Service(ClientError),
    /// The log key that this host knows has not signed the service's trust bundle; nothing was changed.
    OtherLog(BundleError),
    /// The service's trust bundle is older than what this host has had, or another CA's; nothing was changed.
    OtherBundle {
        /// Why it is refused.
        why: String,
        /// Whether the host is enrolled, so that it can leave.
        is_enrolled: bool,
    },
    /// The service does not show whose trust bundle it is, as one that is older than this program; nothing was changed.
    OlderService(String),
    /// It was done and did not hold; everything was taken back, but for what is left.
    TakenBack {
        /// Why it did not hold.
        why: String,
        /// What could not be taken back; the next `enrol` or `leave` tries again.
        left: Left,
    },
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Service(error)
    }
}

/// A plan that can be shown, asked about and carried out.
#[derive(Debug)]
pub struct Prepared {
    request: Request,
    sshd: Sshd,
    memory: Memory,
    facts: Facts,
    keys: Vec<HostKey>,
    plan: Plan,
    accounts: Vec<String>,
    /// What an earlier, unfinished enrolment left and that was taken back first.
    pub recovered: bool,
    _lock: Lock,
}

/// What would be done to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The file.
    pub path: String,
    /// Its change, line by line; `None` for what only the service tells.
    pub diff: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Done {
    /// What the service knows of the host.
    pub state: wire::State,
    /// Fingerprints of the CA keys with which the host has logged in to itself.
    pub proven: Vec<String>,
    /// How many host certificates were installed.
    pub certificates: usize,
    /// Whether the daemon was started; else somebody has to.
    pub has_daemon: bool,
    /// What did not work and does not matter for logins.
    pub notes: Vec<String>,
}

/// Looks and plans. Changes nothing, unless an earlier enrolment was cut short: that is taken back first.
///
/// # Errors
/// [`Stop`].
pub async fn prepare(request: Request, is_dry: bool) -> Result<Prepared, Stop> {
    let root = Root::default();
    let lock = Lock::take(One::Enrolment).map_err(Stop::Unable)?;
    let sshd = Sshd::find(request.reload.clone()).map_err(Stop::Unable)?;
    let memory = Memory::new(&root);
    let recovered = recover(&memory, &sshd, is_dry).await?;
    sshd.test()
        .await
        .map_err(|why| Stop::Unable(format!("sshd's configuration is broken before anything is done: {why}")))?;
    let facts = facts::gather(&root, &sshd, &request.program).await.map_err(Stop::Unable)?;
    let keys = facts::host_keys(&root, &facts).map_err(Stop::Unable)?;
    let wish = wish(&request, &[], None, request.log_key.as_ref());
    let mut plan = plan::plan(&facts, &wish).map_err(Stop::Obstacles)?;
    plan.risks.extend(owned::risk(&facts.effective));
    let mut accounts = Vec::new();
    for account in &plan.accounts {
        if !machine::has_account(account).await.map_err(Stop::Unable)? {
            accounts.push((*account).to_owned());
        }
    }
    Ok(Prepared { request, sshd, memory, facts, keys, plan, accounts, recovered, _lock: lock })
}

/// Takes back what was cut short. Whether there was something.
async fn recover(memory: &Memory, sshd: &Sshd, is_dry: bool) -> Result<bool, Stop> {
    let Standing::Unfinished(change) = memory.standing().map_err(Stop::Unable)? else { return Ok(false) };
    if is_dry {
        let why = "an earlier enrolment was cut short; run `hallpass host enrol` or `hallpass host leave`, which takes it back";
        return Err(Stop::Unable(why.to_owned()));
    }
    let left = back::take_back(memory, Which::Change, &change, sshd).await;
    if !left.is_empty() {
        return Err(Stop::TakenBack { why: "an earlier enrolment was cut short".to_owned(), left });
    }
    memory.forget_change().map_err(Stop::Unable)?;
    Ok(true)
}

fn wish(request: &Request, certificates: &[String], bundle: Option<String>, log_key: Option<&NoteVerifier>) -> Wish {
    let service = log_key.map(|log_key| ServiceFile {
        server: request.server.clone(),
        log_key: log_key.clone(),
        reload: request.reload.clone(),
    });
    let tags = if request.tags.is_empty() { &request.had } else { &request.tags };
    Wish {
        name: request.name.clone(),
        tags: tags.iter().cloned().collect(),
        has_guard: request.has_guard,
        may_replace: request.may_replace,
        certificates: certificates.to_vec(),
        service: service.map(|service| service.to_text()),
        bundle,
    }
}

impl Prepared {
    /// What would be done to files, in order.
    #[must_use]
    pub fn files(&self) -> Vec<Shown> {
        let root = Root::default();
        let shown = |write: &Write| {
            let now = std::fs::read_to_string(root.path(&write.path)).unwrap_or_default();
            Shown { path: write.path.clone(), diff: write.text.as_ref().map(|text| diff::diff(&now, text)) }
        };
        self.plan.writes.iter().map(shown).filter(|shown| shown.diff.as_deref() != Some("")).collect()
    }

    /// Accounts that would be made.
    #[must_use]
    pub fn accounts(&self) -> &[String] {
        &self.accounts
    }

    /// What stays open beside us, or surprises.
    #[must_use]
    pub fn risks(&self) -> &[Risk] {
        &self.plan.risks
    }

    /// Whether the daemon would be started.
    #[must_use]
    pub const fn has_unit(&self) -> bool {
        self.plan.has_unit
    }

    /// The host keys that the service would learn, by file.
    pub fn host_keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.path.as_str())
    }

    /// Carries it out.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn carry_out(mut self) -> Result<Done, Stop> {
        let mut link = self.link()?;
        let about = about::about(&self.sshd).await;
        self.check_log(&link).await?;
        // Whatever comes of this: the service may know the host again, and leaving has to tell it.
        self.memory.forget_told().map_err(Stop::Unable)?;
        let state = self.join(&mut link, about).await?;
        let log_key = self.log_key(&link)?;
        let bundle = Bundle::open(&state.bundle.text, &log_key).map_err(Stop::OtherLog)?;
        let had = self.check_bundle(&state, &bundle, &log_key)?;
        let mut notes = self.lost_tags(&state.tags).into_iter().collect();
        let certificates = self.certificates(&mut link, &state, &mut notes).await;
        let paths: Vec<String> = certificates.iter().map(|write| write.path.clone()).collect();
        let mut wish = wish(&self.request, &paths, Some(state.bundle.text.clone()), Some(&log_key));
        wish.tags = parse_tags(&state.tags).map_err(Stop::Unable)?;
        self.plan = plan::plan(&self.facts, &wish).map_err(Stop::Obstacles)?;
        // Before what tells sshd to look for them.
        self.plan.writes.splice(0..0, certificates);
        let id = check_in::random_id().map_err(Stop::Unable)?;
        let change =
            self.memory.begin(&id, &self.plan.writes, &self.accounts, self.plan.has_unit).map_err(Stop::Unable)?;
        match self.write_and_prove(&change, &mut link, &bundle).await {
            Ok(proven) => {
                // Where that can't be, the bundle that is there says it, too.
                notes.extend(had.save(&had_path()).err());
                let has_daemon = self.start_daemon(&mut notes).await;
                let report = check_in::report(&self.sshd, &link, &proven).await;
                if let Err(why) = check_in::send(&mut link, report).await {
                    notes.push(format!(
                        "the first check-in did not reach the service; the daemon will go on trying: {why}"
                    ));
                }
                let proven = proven.keys.into_iter().collect();
                Ok(Done { state, proven, certificates: paths.len(), has_daemon, notes })
            }
            Err(why) => Err(self.take_back(&change, why).await),
        }
    }

    /// The line, with the first host key as the host's identity.
    fn link(&self) -> Result<Link, Stop> {
        let identity = facts::host_keys(&Root::default(), &self.facts).map_err(Stop::Unable)?.into_iter().next();
        let identity = identity.ok_or_else(|| Stop::Unable("there is no host key".to_owned()))?;
        Ok(Link::new(self.request.server.clone(), self.request.name.clone(), identity))
    }

    /// Looks whether it is the log that this host knows before a join token is spent. Where that can't be seen, joining shows it.
    async fn check_log(&self, link: &Link) -> Result<(), Stop> {
        let Some(key) = &self.request.log_key else { return Ok(()) };
        let Ok(text) = link.public_bundle().await else { return Ok(()) };
        match Bundle::open(&text, key) {
            Err(why @ BundleError::Signature(_)) => Err(Stop::OtherLog(why)),
            _ => Ok(()),
        }
    }

    /// Joins with the token, or comes back with the host key alone.
    async fn join(&self, link: &mut Link, about: wire::About) -> Result<wire::State, Stop> {
        let Some(token) = &self.request.token else {
            link.log_in().await?;
            return Ok(link.state().await?);
        };
        let tags = self.request.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let names = self.request.names.iter().map(ToString::to_string).collect();
        let enrolled = link.enrol(Joining { token, tags, names, about }, &self.keys).await?;
        Ok(enrolled.state)
    }

    /// What to say of tags that it had here and the service does not give it.
    fn lost_tags(&self, given: &[String]) -> Option<String> {
        let had = self.request.had.iter().map(|(key, value)| format!("{key}={value}"));
        let lost: Vec<String> = had.filter(|tag| !given.contains(tag)).collect();
        let again = lost.iter().map(|tag| format!(" --tag {tag}")).collect::<String>();
        let why = "did not ask for them and the join token does not give them; with a token that lets it";
        (!lost.is_empty()).then(|| {
            format!("host.toml had the tags {}, which this host has no more, since it {why}:{again}", lost.join(", "))
        })
    }

    /// The log key: the one that was given or is known, else the one that the service names now and is held to from now on.
    fn log_key(&self, link: &Link) -> Result<NoteVerifier, Stop> {
        if let Some(key) = &self.request.log_key {
            return Ok(key.clone());
        }
        let named = link.log_key().and_then(|text| NoteVerifier::parse(text).ok());
        named.ok_or_else(|| Stop::Unable("the service does not name its log key".to_owned()))
    }

    /// Whether this bundle may follow the newest one that this host has had, as the daemon has it. What is to be remembered.
    fn check_bundle(&self, state: &wire::State, bundle: &Bundle, log_key: &NoteVerifier) -> Result<Had, Stop> {
        let there = std::fs::read_to_string(Root::default().path(places::TRUST)).unwrap_or_default();
        let wanted = Wanted { host: &self.request.name, belongs: state.belongs.as_deref(), log_key };
        let Before { newest, installed } =
            Before::of(Had::load(&had_path()), &there, wanted, self.request.named.as_ref());
        let is_enrolled = matches!(self.memory.standing(), Ok(Standing::Enrolled(_)));
        had::check(bundle, newest.as_ref(), wanted).map_err(|had::Refused { why, is_service_older }| {
            if is_service_older { Stop::OlderService(why) } else { Stop::OtherBundle { why, is_enrolled } }
        })?;
        // The service may have another URL by now.
        if installed.is_some_and(|there| there.version() == bundle.version() && there.keys() != bundle.keys()) {
            let why = format!("there are two of version {}", bundle.version());
            return Err(Stop::OtherBundle { why, is_enrolled });
        }
        Ok(Had::of(bundle, wanted))
    }

    /// Host certificates, as far as the service makes any.
    async fn certificates(&self, link: &mut Link, state: &wire::State, notes: &mut Vec<String>) -> Vec<Write> {
        let found = match link.certificates(&self.keys).await {
            Ok(lines) => {
                let (name, now) = (&self.request.name, SystemClock.now());
                Expected::new(name, &state.names, state.host_ca.as_deref(), now).map(|expected| (expected, lines))
            }
            Err(error) => Err(error.to_string()),
        };
        let (expected, lines) = match found {
            Ok(found) => found,
            Err(why) => {
                notes.push(format!("no host certificates: {why}"));
                return Vec::new();
            }
        };
        let mut writes = Vec::new();
        for (key, line) in self.keys.iter().zip(lines) {
            match expected.check(&line, key.key.public_key()) {
                Ok(certificate) => writes.push(Write {
                    path: places::certificate_of(&key.path),
                    text: Some(format!("{}\n", certificate.to_openssh())),
                    is_ours: true,
                }),
                Err(why) => notes.push(format!("no host certificate for {}: {why}", key.path)),
            }
        }
        writes
    }

    /// From here on there is something to take back.
    async fn write_and_prove(&self, change: &Ledger, link: &mut Link, bundle: &Bundle) -> Result<Proof, String> {
        for account in &change.accounts {
            machine::add_account(account).await?;
            fail::point("enrolment.account.made");
        }
        for write in &self.plan.writes {
            self.memory.write(change, write)?;
        }
        self.sshd.test().await.map_err(|why| format!("sshd does not take its new configuration: {why}"))?;
        self.check_effective().await?;
        self.sshd.reload().await?;
        fail::point("enrolment.sshd.reloaded");
        let proof = self.prove(link, bundle).await?;
        fail::point("enrolment.login.proven");
        self.memory.keep(change)?;
        Ok(proof)
    }

    /// What sshd makes of it must be what was meant.
    async fn check_effective(&self) -> Result<(), String> {
        for account in [places::CHECK_ACCOUNT, "root"] {
            let effective = self.sshd.effective(account).await?;
            let command = effective.some("authorizedprincipalscommand").unwrap_or_default();
            let is_ours = effective.is("trustedusercakeys", places::TRUST)
                && command.starts_with(&self.facts.program)
                && effective.is("authorizedprincipalscommanduser", places::PRINCIPALS_ACCOUNT);
            if !is_ours {
                let found = effective.one("trustedusercakeys").unwrap_or("none");
                return Err(format!(
                    "for {account}, sshd still goes by other lines than ours (TrustedUserCAKeys {found})"
                ));
            }
        }
        Ok(())
    }

    /// Logs in to itself with each CA key; the first try waits until sshd listens again.
    async fn prove(&self, link: &mut Link, bundle: &Bundle) -> Result<Proof, String> {
        let patience = Patience::of(LISTEN_WITHIN);
        let proof = check_in::prove(&self.sshd, link, (bundle, &BTreeSet::new()), &self.keys, patience).await;
        match &proof.problem {
            None => Ok(proof),
            Some(why) => Err(format!("the host could not log in to itself: {why}")),
        }
    }

    async fn start_daemon(&self, notes: &mut Vec<String>) -> bool {
        if !self.plan.has_unit {
            return false;
        }
        match machine::start_unit().await {
            Ok(()) => true,
            Err(why) => {
                notes.push(format!("the daemon was not started: {why}"));
                false
            }
        }
    }

    async fn take_back(&self, change: &Ledger, why: String) -> Stop {
        let mut left = back::take_back(&self.memory, Which::Change, change, &self.sshd).await;
        if left.is_empty() {
            left.extend(self.memory.forget_change().err());
        }
        Stop::TakenBack { why, left }
    }
}

/// Where the newest bundle that this host has had is remembered; the daemon does so in the same file.
#[must_use]
pub fn had_path() -> PathBuf {
    Root::default().path(places::MEMORY).join(had::NAME)
}

/// Tags as the service has them.
///
/// # Errors
/// When one is none.
pub fn parse_tags(tags: &[String]) -> Result<std::collections::BTreeMap<TagKey, TagValue>, String> {
    let parse = |text: &String| {
        let wrong = || format!("the service names a tag that is none: {text:?}");
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok((TagKey::parse(key).map_err(|_| wrong())?, TagValue::parse(value).map_err(|_| wrong())?))
    };
    tags.iter().map(parse).collect()
}
