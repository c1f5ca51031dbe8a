//! Asking, and explaining what asking would give.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::access::{Ask, Explain, View};
use super::issue::Intended;
use super::refusals::Refusals;
use super::text::{self, REASON_CHARS_MAX, TICKET_CHARS_MAX};
use super::{ATTEMPTS, Failure, Outcome, Service, whole};
use crate::access::{AccessRequest, Check, Command, Permit, Refusal, open, step};
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::name::{Account, HostName, PersonName, PolicyVersion, RequestId, Target};
use crate::policy::{Outcome as Answer, Policy, Question, RefusedKind, Shortage, Verdict};
use crate::ssh::PublicKey;
use crate::ssh::cert::Certificate;
use crate::store::{Change, RowVersion, Save, StoreError, Stored};
use crate::time::{Lifetime, Timestamp};

/// What came of an ask.
struct Asked {
    view: View,
    /// What is to be signed, if it may be fetched at once.
    intended: Option<Intended>,
}

/// What policy says of a question.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The version that says it.
    pub version: PolicyVersion,
    /// What it says.
    pub verdict: Verdict,
    /// Who could agree, where somebody must.
    pub eligible: BTreeSet<PersonName>,
    /// Why it could not be approved as the policy is, if it could not.
    pub shortage: Option<Shortage>,
}

/// Most hosts in one request (invariant I-4's usual limit: one principal each).
const HOSTS_MAX: usize = 16;

/// The states in which a request counts as open.
const OPEN: [&str; 3] = ["pending", "approved", "issued"];

impl Service {
    /// Asks. Same person, key and content again (a retried call) gives the same request.
    ///
    /// # Errors
    /// `Policy` when refused (logged), `Invalid`, `TooMany`.
    pub async fn ask(self: &Arc<Self>, by: &Proven, ask: Ask) -> Outcome<View> {
        let (this, by) = (Arc::clone(self), by.clone());
        whole(async move { Ok(this.ask_in_turn(&by, &ask, false).await?.view) }).await
    }

    /// Asks; and where policy grants it from now on, and there was no such request before, gives the certificate with the answer. Without
    /// one (nobody has agreed yet, or the CA key does not sign), [`Self::certificate`] is the way to it.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_and_fetch(self: &Arc<Self>, by: &Proven, ask: Ask) -> Outcome<(View, Option<Certificate>)> {
        let (this, by) = (Arc::clone(self), by.clone());
        whole(async move {
            let Asked { view, intended } = this.ask_in_turn(&by, &ask, true).await?;
            let certificate = match intended {
                // What went wrong is traced where it did, and the fetch will say it.
                Some(intended) => this.sign_intended(&intended, &mut None).await.ok().flatten(),
                None => None,
            };
            Ok((view, certificate))
        })
        .await
    }

    /// Asks when no other ask of this person runs.
    async fn ask_in_turn(&self, by: &Proven, ask: &Ask, fetches: bool) -> Outcome<Asked> {
        let _turn = self.turn_of(by.person()).lock().await;
        for _ in 0..ATTEMPTS {
            if let Some(asked) = self.try_ask(by, ask, fetches).await? {
                return Ok(asked);
            }
        }
        Err(Failure::contended())
    }

    /// What policy would say, and which version says it; logs nothing, changes nothing. `person`: another person, for operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`, `Invalid`.
    pub async fn explain(&self, by: &Proven, person: Option<PersonName>, ask: Explain) -> Outcome<Explained> {
        let (version, policy) = self.policy_now();
        let person = person.unwrap_or_else(|| by.person().clone());
        if person != *by.person() {
            self.check_reader(by, "ask what others may")?;
        }
        let Explain { targets, account, lifetime, start, reason, ticket, at } = ask;
        let at = at.unwrap_or_else(|| self.clock.now());
        let wanted = Wanted { targets, account, lifetime, start, reason, ticket };
        let question = wanted.question(&person, &policy, at)?;
        // The rules for other people are for those who may read the policy.
        let verdict = if Self::reads_all(by, &policy) { policy.explain(&question) } else { policy.evaluate(&question) };
        let quorum = match &verdict.outcome {
            Answer::Ask(_, quorum) => Some(quorum),
            Answer::Allow(_) | Answer::Refuse(_) => None,
        };
        let eligible = quorum.map(|quorum| quorum.eligible(&person, policy.directory())).unwrap_or_default();
        let shortage = quorum.and_then(|quorum| quorum.shortage(&person, policy.directory()));
        Ok(Explained { version, verdict, eligible, shortage })
    }

    /// The lock that keeps this person's asks in order.
    fn turn_of(&self, person: &PersonName) -> &tokio::sync::Mutex<()> {
        static NOBODY_ELSE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let sum =
            person.as_str().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let place = sum.checked_rem(self.asking.len()).unwrap_or_default();
        self.asking.get(place).unwrap_or(&NOBODY_ELSE)
    }

    /// Decides from what is there now and saves it; `None` when the drawn id is taken.
    async fn try_ask(&self, by: &Proven, ask: &Ask, fetches: bool) -> Outcome<Option<Asked>> {
        let (_guard, check) = self.hold_policy().await?;
        let basis = self.basis();
        let policy = &check.policy;
        let now = self.clock.now();
        let question = Wanted::from(ask.clone()).question(by.person(), policy, now)?;
        self.check_subject_key(by, &ask.key, policy)?;
        let open_before = self.store.open_of(by.person().clone(), ask.key.clone()).await?;
        let with_key = u64::try_from(open_before.with_key.len()).unwrap_or(u64::MAX);
        if let Some(request) = self.asked_before(open_before.with_key, &question, now).await? {
            return Ok(Some(Asked { view: Self::view_of(request, by, policy, now), intended: None }));
        }
        let id = RequestId::from_random(self.random()?);
        let taken = match open(by, &question, ask.key.clone(), &check, id) {
            Ok(taken) => taken,
            Err(Refusal::Policy { version, verdict }) => {
                return match self.record_refused_ask(question, *verdict, version).await {
                    Ok(refusal) => Err(refusal),
                    Err(StoreError::Conflict) => Ok(None),
                    Err(why) => Err(why.into()),
                };
            }
            Err(why) => return Err(why.into()),
        };
        let most = self.settings.open_requests_max;
        if open_before.count >= most {
            let count = open_before.count;
            let why = format!("you have {count} open requests; {most} are allowed: withdraw or end one");
            return Err(Failure::TooMany(why));
        }
        // Another node may take an ask of the same person at the same moment.
        let (asker, key, count) = (by.person().clone(), ask.key.clone(), open_before.count);
        let as_read = Save::OpenAsRead { asker, key, count, with_key };
        let saves = vec![as_read, Save::NewRequest(taken.request.clone())];
        let change = Change { at: now, saves, events: taken.events };
        if let Some(permit) = fetches.then(|| self.permit_now(by, &taken.request, &check, now)).flatten() {
            let done = self.intend(permit, RowVersion::FIRST, basis, change).await?;
            let asked =
                |(intended, request)| Asked { view: Self::view_of(request, by, policy, now), intended: Some(intended) };
            return Ok(done.map(asked));
        }
        match self.commit_decision(change).await {
            Ok(_) => Ok(Some(Asked { view: Self::view_of(taken.request, by, policy, now), intended: None })),
            Err(StoreError::Conflict) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// Whether this new request may be certified at once, and its CA key be used.
    fn permit_now(&self, by: &Proven, request: &AccessRequest, check: &Check, now: Timestamp) -> Option<Permit> {
        let command = Command::Certify { by: by.clone(), check: check.clone() };
        let permit = step(request.clone(), command, now).ok()?.permit?;
        self.ca_for(&permit).is_ok().then_some(permit)
    }

    /// Logs the refusal and gives it back; or says that there have been too many.
    async fn record_refused_ask(
        &self,
        question: Question,
        verdict: Verdict,
        policy: PolicyVersion,
    ) -> Result<Failure, StoreError> {
        let why = match &verdict.outcome {
            Answer::Refuse(refused) => refused.iter().map(|refused| refused.why.clone()).collect(),
            Answer::Allow(_) | Answer::Ask(..) => Vec::new(),
        };
        let Question { person, hosts, account, reason, at, .. } = question;
        if !self.refusals.take(&person, at) {
            return Ok(Failure::TooMany(Refusals::too_many()));
        }
        let event = Event::Refused { person, hosts, account, reason, why, policy };
        self.commit_decision(Change { at, saves: Vec::new(), events: vec![event] }).await?;
        Ok(Failure::Policy(Box::new(verdict)))
    }

    /// A key that signs for the service is never certified; another person's login key would give them this person's
    /// access.
    fn check_subject_key(&self, by: &Proven, key: &PublicKey, policy: &Policy) -> Outcome<()> {
        let fingerprint = key.fingerprint();
        if self.is_service_key(key) {
            return Err(Failure::Invalid(format!(
                "{fingerprint} is a signing key of this service; make a key of your own"
            )));
        }
        if policy.directory().holder(key).is_some_and(|holder| holder != by.person()) {
            return Err(Failure::Invalid(format!("{fingerprint} is somebody else's login key; use a key of your own")));
        }
        Ok(())
    }

    /// The one of the open requests with the asked key that this very ask made before. An open request keeps its key for
    /// itself: one key, one request (P3).
    async fn asked_before(
        &self,
        with_key: Vec<Stored>,
        question: &Question,
        now: Timestamp,
    ) -> Outcome<Option<AccessRequest>> {
        let mut with_key = with_key.into_iter().map(|stored| super::look::settled(stored, now));
        let Some(request) = with_key.find(|request| OPEN.contains(&request.parts().state.word())) else {
            return Ok(None);
        };
        // As asked, not as narrowed since: that is what the log's entry holds.
        let history = self.store.entries_of(request.id()).await?;
        if history.iter().any(|entry| is_this_ask(&entry.event, question)) {
            return Ok(Some(request));
        }
        Err(Failure::Invalid(format!(
            "this key belongs to your open request {}; one key, one request: make a new key, or end that one",
            request.id()
        )))
    }
}

/// Whether this entry is the ask that puts `question`. A retry that leaves the time to the policy is the same ask,
/// whatever was given.
fn is_this_ask(event: &Event, question: &Question) -> bool {
    let Event::Asked { hosts, account, lifetime, start, reason, ticket, .. } = event else { return false };
    *hosts == question.hosts
        && *account == question.account
        && question.lifetime.is_none_or(|wanted| wanted == *lifetime)
        && *start == question.start
        && *reason == question.reason
        && *ticket == question.ticket
}

/// What is asked or to be explained, without a key.
struct Wanted {
    targets: Vec<Target>,
    account: Option<Account>,
    lifetime: Option<Lifetime>,
    start: Option<Timestamp>,
    reason: String,
    ticket: Option<String>,
}

impl From<Ask> for Wanted {
    fn from(ask: Ask) -> Self {
        let Ask { targets, account, lifetime, start, reason, ticket, key: _ } = ask;
        Self { targets, account, lifetime, start, reason, ticket }
    }
}

impl Wanted {
    /// The question for policy: texts checked, tags expanded, account filled in.
    fn question(self, person: &PersonName, policy: &Policy, at: Timestamp) -> Outcome<Question> {
        let reason = text::check("reason", &self.reason, REASON_CHARS_MAX)?;
        let ticket = self.ticket.map(|ticket| text::check("ticket", &ticket, TICKET_CHARS_MAX)).transpose()?;
        let ticket = ticket.filter(|ticket| !ticket.is_empty());
        let hosts = expand(&self.targets, policy)?;
        let Some(any) = self.account.as_ref().or_else(|| policy.accounts().first().copied()).cloned() else {
            return Err(Failure::Invalid("name the account; no rule names one".to_owned()));
        };
        let question = Question {
            person: person.clone(),
            hosts,
            account: any,
            lifetime: self.lifetime,
            held: Lifetime::ZERO,
            start: self.start,
            reason,
            ticket,
            at,
        };
        if self.account.is_some() { Ok(question) } else { only_account(question, policy) }
    }
}

/// The question as the only account that the rules let this person ask for there. If there is none, policy's own
/// refusal says it best.
fn only_account(question: Question, policy: &Policy) -> Outcome<Question> {
    let as_account = |account: &Account| Question { account: account.clone(), ..question.clone() };
    let mut possible = policy.accounts();
    possible.retain(|account| may_be_asked(&policy.evaluate(&as_account(account))));
    match (possible.len(), possible.first()) {
        (1, Some(only)) => Ok(as_account(only)),
        (0, _) | (_, None) => Ok(question),
        (_, Some(_)) => Err(Failure::Account(possible.into_iter().cloned().collect())),
    }
}

/// Whether a rule lets this be asked at all, perhaps with another reason or less time.
fn may_be_asked(verdict: &Verdict) -> bool {
    match &verdict.outcome {
        Answer::Allow(_) | Answer::Ask(..) => true,
        Answer::Refuse(refused) => {
            refused.iter().all(|refused| matches!(refused.kind, RefusedKind::Reason | RefusedKind::Window))
        }
    }
}

/// The hosts that these targets mean now, 1 to 16.
fn expand(targets: &[Target], policy: &Policy) -> Outcome<BTreeSet<HostName>> {
    let mut hosts = BTreeSet::new();
    for target in targets {
        match target {
            Target::Host(host) => hosts.extend([host.clone()]),
            Target::Tag(key, value) => {
                let mut tagged = policy.hosts_with_tag(key, value).map(|host| host.name.clone()).peekable();
                if tagged.peek().is_none() {
                    return Err(Failure::Invalid(format!("no host has the tag {target}")));
                }
                hosts.extend(tagged);
            }
        }
    }
    match hosts.len() {
        0 => Err(Failure::Invalid("name at least one host".to_owned())),
        1..=HOSTS_MAX => Ok(hosts),
        count => Err(Failure::Invalid(format!("{count} hosts are too many for one request; it takes {HOSTS_MAX}"))),
    }
}
