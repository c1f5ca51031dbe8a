//! One request as the log tells it: what waits, what was granted, and what may follow.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::cas::SignsFor;
use super::{Wrong, ensure};
use crate::audit::entry::Entry;
use crate::audit::event::{Answer, Event};
use crate::audit::export::FindingKind;
use crate::audit::text_time;
use crate::identity::approval::{Signature, Statement};
use crate::name::{Account, CaName, Digest, HostName, PersonName, Principal, RequestId, Serial};
use crate::ssh::Fingerprint;
use crate::ssh::cert::{Extension, ForceCommand, TbsCert};
use crate::ssh::known::KnownKeys;
use crate::time::{Lifetime, Timestamp, Window};

/// A request that is not over.
#[derive(Debug)]
pub(super) struct Request {
    person: PersonName,
    key: Fingerprint,
    account: Account,
    hosts: BTreeSet<HostName>,
    account_scope: BTreeSet<HostName>,
    permits: BTreeSet<Extension>,
    command: Option<String>,
    sources: BTreeSet<String>,
    verify_required: bool,
    ca: CaName,
    start: Option<Timestamp>,
    backdate: Lifetime,
    reason: String,
    ticket: Option<String>,
    last: Option<Grant>,
    waiting: Option<Waiting>,
}

/// What waits for decisions: the request itself, or an extension.
#[derive(Debug)]
struct Waiting {
    lifetime: Lifetime,
    digest: Digest,
    /// An extension's own reason.
    reason: Option<String>,
    verdict: Answer,
    /// Each with the key that signed, if one did.
    approvals: BTreeMap<PersonName, Option<Fingerprint>>,
    /// Who has just narrowed it, and the digest that they saw.
    narrowed: Option<(PersonName, Digest)>,
}

impl Waiting {
    const fn new(lifetime: Lifetime, digest: Digest, reason: Option<String>, verdict: Answer) -> Self {
        Self { lifetime, digest, reason, verdict, approvals: BTreeMap::new(), narrowed: None }
    }
}

/// The window granted last.
#[derive(Debug)]
struct Grant {
    window: Window,
    certified: bool,
}

impl Request {
    /// The request that an `Asked` event makes.
    pub(super) fn ask(event: Event) -> Option<Self> {
        let Event::Asked {
            person,
            key,
            hosts,
            account,
            lifetime,
            start,
            backdate,
            account_scope,
            permits,
            command,
            sources,
            verify_required,
            reason,
            ticket,
            digest,
            verdict,
            ca,
            ..
        } = event
        else {
            return None;
        };
        let waiting = Some(Waiting::new(lifetime, digest, None, verdict));
        let ca = ca.unwrap_or_default();
        Some(Self {
            person,
            key,
            account,
            hosts,
            account_scope,
            permits,
            command,
            sources,
            verify_required,
            ca,
            start,
            backdate,
            reason,
            ticket,
            last: None,
            waiting,
        })
    }

    pub(super) fn is_for(&self, host: &HostName) -> bool {
        self.hosts.contains(host)
    }

    pub(super) fn is_something(&self) -> bool {
        !self.hosts.is_empty() && self.waiting.as_ref().is_some_and(|waiting| waiting.lifetime > Lifetime::ZERO)
    }

    /// Takes an event about this request, which is open.
    pub(super) fn take(
        &mut self,
        id: RequestId,
        entry: &Entry,
        cas: SignsFor<'_>,
        known: &mut KnownKeys,
    ) -> Result<(), Wrong> {
        let was_granted = self.last.is_some();
        match &entry.event {
            Event::Narrowed { by, lifetime, hosts, permits, digest, .. } => {
                self.narrow(by, (*lifetime, *digest), hosts, permits)
            }
            Event::Approved { by, digest, comment, signature, .. } => {
                self.approve(id, by, digest, (comment, signature.as_ref()))
            }
            Event::Granted { approvers, window, digest, .. } => self.grant(approvers, *window, digest, entry.at),
            Event::Denied { by, extension, .. } => {
                ensure(*by != self.person, || format!("{by} decided their own request"))?;
                self.close_waiting(*extension)
            }
            Event::Lapsed { extension, .. } => self.close_waiting(*extension),
            Event::Withdrawn { by, extension, .. } => {
                self.by_asker(by)?;
                let unfetched = self.last.as_ref().is_none_or(|grant| !grant.certified);
                if *extension {
                    self.close_waiting(true)
                } else {
                    ensure(unfetched, || "its certificate was out".to_owned())
                }
            }
            Event::CertificateToBeSigned { .. } => self.certify(id, entry, cas, known),
            Event::CertificateRefused { person, .. } => self.by_asker(person),
            Event::ExtensionAsked { person, lifetime, digest, reason, verdict, .. } => {
                self.extend(person, Waiting::new(*lifetime, *digest, Some(reason.clone()), *verdict))
            }
            Event::Ended { .. } => ensure(was_granted, || "nothing was granted that could be ended".to_owned()),
            Event::Expired { .. } => match &self.last {
                Some(grant) => ensure(grant.window.is_over(entry.at), || {
                    format!("its window lasts until {}", text_time(grant.window.end()))
                }),
                None => Err("nothing was granted that could expire".to_owned().into()),
            },
            Event::Host(_)
            | Event::LogStarted { .. }
            | Event::ServiceStarted { .. }
            | Event::CaKeysChanged { .. }
            | Event::CaStepProposed { .. }
            | Event::PolicyApplied { .. }
            | Event::LoggedIn { .. }
            | Event::BrowserSignedIn { .. }
            | Event::LoggedOut { .. }
            | Event::Refused { .. }
            | Event::Asked { .. }
            | Event::CertificateSigned { .. }
            | Event::EntryLost { .. }
            | Event::LogRecovered { .. } => Ok(()),
        }
    }

    fn by_asker(&self, person: &PersonName) -> Result<(), Wrong> {
        ensure(*person == self.person, || format!("{person} did not ask for it"))
    }

    fn waiting(&mut self) -> Result<&mut Waiting, Wrong> {
        self.waiting.as_mut().ok_or_else(|| "nothing waited for a decision".to_owned().into())
    }

    /// What waits is denied, taken back or too late: the extension, or the request as a whole.
    fn close_waiting(&mut self, extension: bool) -> Result<(), Wrong> {
        let fits = extension == self.last.is_some();
        ensure(fits, || "it names the request where the extension waited, or the other way round".to_owned())?;
        self.waiting.take().map(drop).ok_or_else(|| "nothing waited for a decision".to_owned().into())
    }

    fn narrow(
        &mut self,
        by: &PersonName,
        (lifetime, digest): (Lifetime, Digest),
        hosts: &BTreeSet<HostName>,
        permits: &BTreeSet<Extension>,
    ) -> Result<(), Wrong> {
        ensure(*by != self.person, || format!("{by} decided their own request"))?;
        let fewer = hosts.is_subset(&self.hosts) && !hosts.is_empty() && permits.is_subset(&self.permits);
        let waiting = self.waiting()?;
        let shorter = lifetime <= waiting.lifetime && lifetime > Lifetime::ZERO;
        let seen = std::mem::replace(&mut waiting.digest, digest);
        waiting.narrowed = Some((by.clone(), seen));
        waiting.lifetime = lifetime;
        waiting.approvals = BTreeMap::new();
        self.hosts = hosts.clone();
        self.permits = permits.clone();
        ensure(fewer && shorter, || "an approver widened what was asked for".to_owned())
    }

    fn approve(
        &mut self,
        id: RequestId,
        by: &PersonName,
        digest: &Digest,
        (comment, signature): (&str, Option<&Signature>),
    ) -> Result<(), Wrong> {
        ensure(*by != self.person, || format!("{by} approved their own request"))?;
        let waiting = self.waiting()?;
        let narrowed = waiting.narrowed.take().filter(|(narrower, _)| narrower == by);
        let seen = narrowed.map_or(waiting.digest, |(_, seen)| seen);
        let signed_by = signature.map(|signature| signature.key().fingerprint());
        let before = waiting.approvals.insert(by.clone(), signed_by);
        ensure(*digest == waiting.digest, || format!("{by} approved something else than what waited"))?;
        let says_more = before.is_none_or(|before| signed_by.is_some() && signed_by != before);
        ensure(says_more, || format!("{by} approved it twice"))?;
        let Some((signature, statement)) = signature.zip(self.statement(id, by, seen, comment)) else { return Ok(()) };
        signature.verify(&statement).map_err(|why| {
            let what = format!("the signature of {by} does not fit what the log says that they approved: {why}");
            Wrong { kind: FindingKind::Approval, what }
        })
    }

    /// What an approver of what waits has signed, made anew out of what the log says.
    fn statement(&self, id: RequestId, approver: &PersonName, seen: Digest, comment: &str) -> Option<Statement> {
        let waiting = self.waiting.as_ref()?;
        let end = self.last.as_ref().map(|grant| grant.window.end());
        Some(Statement {
            approver: approver.clone(),
            request: id,
            digest: seen,
            extends: end.filter(|_| waiting.reason.is_some()),
            person: self.person.clone(),
            key: self.key,
            account: self.account.clone(),
            hosts: self.hosts.clone(),
            principals: self.principals(),
            lifetime: waiting.lifetime,
            backdate: self.backdate,
            start: self.start,
            permits: self.permits.clone(),
            command: self.command.clone(),
            sources: self.sources.clone(),
            verify_required: self.verify_required,
            reason: waiting.reason.as_ref().unwrap_or(&self.reason).clone(),
            ticket: self.ticket.clone(),
            comment: comment.to_owned(),
        })
    }

    fn principals(&self) -> BTreeSet<Principal> {
        let opens = |host| match self.account_scope.contains(host) {
            true => Principal::of_account(&self.account),
            false => Principal::on_host(&self.account, host),
        };
        self.hosts.iter().map(opens).collect()
    }

    fn grant(
        &mut self,
        approvers: &BTreeSet<PersonName>,
        window: Window,
        digest: &Digest,
        at: Timestamp,
    ) -> Result<(), Wrong> {
        let before = self.last.replace(Grant { window, certified: false });
        let waiting = self.waiting.take().ok_or_else(|| "nothing waited for a decision".to_owned())?;
        ensure(!approvers.contains(&self.person), || format!("{} approved their own request", self.person))?;
        ensure(*digest == waiting.digest, || "something else was granted than what waited".to_owned())?;
        ensure(approvers.iter().all(|name| waiting.approvals.contains_key(name)), || {
            "an approver is named whose approval is not in the log".to_owned()
        })?;
        ensure(waiting.verdict == Answer::Allow || !approvers.is_empty(), || "nobody approved it".to_owned())?;
        match before {
            // An extension moves the end on, and the start at most to its own approval.
            Some(last) => {
                ensure(window.start() >= last.window.start(), || {
                    "the extension starts before the first window".to_owned()
                })?;
                ensure(last.window.end().plus(waiting.lifetime) == Ok(window.end()), || {
                    "the window ends at another time than what was granted".to_owned()
                })
            }
            None => self.first_window(window, waiting.lifetime, at),
        }
    }

    /// The first window lasts as long as was granted from its approval, or from the start that was asked for; backdating
    /// moves its start from there and never its end. Log time may be later than the approval, never earlier.
    fn first_window(&self, window: Window, lifetime: Lifetime, at: Timestamp) -> Result<(), Wrong> {
        let from =
            window.end().minus(lifetime).map_err(|_| "the window is shorter than what was granted".to_owned())?;
        ensure(from <= self.start.map_or(at, |start| start.max(at)), || {
            "the window ends later than what was granted".to_owned()
        })?;
        ensure(self.start.is_none_or(|start| from >= start), || {
            "the window begins before the start that was asked for".to_owned()
        })?;
        let backdated = from.minus(self.backdate);
        let fits = backdated == Ok(window.start()) || (self.start == Some(from) && window.start() == from);
        ensure(fits, || "the window begins at another time than what was granted".to_owned())
    }

    fn extend(&mut self, person: &PersonName, asked: Waiting) -> Result<(), Wrong> {
        let certified = self.last.as_ref().is_some_and(|grant| grant.certified);
        let before = self.waiting.replace(asked);
        self.by_asker(person)?;
        ensure(certified && before.is_none(), || {
            "there was no certificate to extend, or something waited already".to_owned()
        })
    }

    fn certify(&mut self, id: RequestId, entry: &Entry, cas: SignsFor<'_>, known: &mut KnownKeys) -> Result<(), Wrong> {
        let Event::CertificateToBeSigned { person, serial, ca, window, tbs, .. } = &entry.event else { return Ok(()) };
        ensure(serial.number() == entry.index, || format!("the serial {serial} is not the number of its entry"))?;
        let Some(grant) = &mut self.last else { return Err("a certificate without a grant".to_owned().into()) };
        let first = !std::mem::replace(&mut grant.certified, true);
        ensure(first, || "a second certificate for one grant".to_owned())?;
        ensure(grant.window == *window, || "the certificate's window is not the granted one".to_owned())?;
        self.by_asker(person)?;
        cas.check(*ca, &self.ca, &self.hosts)?;
        let tbs = TbsCert::parse_knowing(tbs, known).map_err(|why| format!("the bytes to be signed: {why}"))?;
        self.compare(id, &tbs, *serial, *ca)
    }

    /// The bytes to be signed must say what the log says of the request.
    fn compare(&self, id: RequestId, tbs: &TbsCert, serial: Serial, ca: Fingerprint) -> Result<(), Wrong> {
        let fields = tbs.fields();
        let window = self.last.as_ref().map(|grant| grant.window);
        let options = &fields.options;
        let principals = self.principals();
        let sources: BTreeSet<String> = options.source_addresses.iter().map(ToString::to_string).collect();
        let command = options.force_command.as_ref().map(ForceCommand::as_str);
        let differs = [
            ("serial", fields.serial != serial),
            ("window", Some(fields.window) != window),
            ("request", fields.key_id.request() != Some(&id)),
            ("person", fields.key_id.person() != Some(&self.person)),
            ("set of principals", fields.principals != principals),
            ("set of extensions", options.permits != self.permits),
            ("forced command", command != self.command.as_deref()),
            ("set of source addresses", sources != self.sources),
            ("verify-required", options.verify_required != self.verify_required),
            ("public key", tbs.subject().fingerprint() != self.key),
            ("CA key", tbs.ca().fingerprint() != ca),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            Some((what, _)) => Err(format!("the bytes to be signed name another {what} than the log").into()),
            None => Ok(()),
        }
    }
}
