//! The one function that moves a request along its states, and the one that makes a request.
//!
//! What not: deciding by people is in `decide`, certifying in `permit`; both are reached through [`step`] alone.
//!
//! Invariants: by value in and out, so a refusal changes nothing; events if and only if something changed (except that
//! `Certify` of a new certificate leaves both to its permit); matches over states and commands name every arm.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::decide::{self, Approval};
use super::{AccessRequest, Check, Command, Extending, Grant, Parts, Permit, Refusal, State, digest, permit, question};
use crate::audit::event::{Answer, Event};
use crate::identity::Proven;
use crate::name::{Digest, PersonName, PolicyVersion, Principal, RequestId};
use crate::policy::{Approvals, Question, Quorum, Terms};
use crate::ssh::PublicKey;
use crate::time::{Lifetime, TimeError, Timestamp, Window};

/// A command's effect: the next request, what goes into the log, and for `Certify` the permit.
#[derive(Debug)]
pub struct Step {
    /// The request afterwards (unchanged only for a repeated `Certify`, which has no events).
    pub request: AccessRequest,
    /// What happened, in order. For `Certify` of a new certificate it is empty: the entry comes from the permit.
    pub events: Vec<Event>,
    /// For `Certify` when the current grant has no certificate yet. When it has one, fetch signs `grant.certificate` again.
    pub permit: Option<Permit>,
}

/// A new request from a question, the policy in force at `question.at`, and a fresh id.
///
/// # Errors
/// [`Refusal::Policy`] when the verdict refuses; [`Refusal::NotTheirs`] when somebody asks in another's name;
/// [`Refusal::Invalid`] for times beyond what hallpass represents.
pub fn open(
    asker: &Proven,
    question: &Question,
    key: PublicKey,
    check: &Check,
    id: RequestId,
) -> Result<Step, Refusal> {
    if *asker.person() != question.person {
        return Err(Refusal::NotTheirs { asker: question.person.clone(), act: "do so" });
    }
    if question.held != Lifetime::ZERO {
        return Err(Refusal::Invalid { what: "a new request has held nothing yet; `extend` the one that has" });
    }
    let now = question.at;
    let (terms, quorum) = question::ask(check, question)?;
    if terms.options.verify_required && !key.algorithm().is_security_key() {
        // Said now: the linter would refuse it only after people have approved.
        return Err(Refusal::Invalid {
            what: "the rule demands a security key that checks its user; ask with a key of an sk- type",
        });
    }
    let decide_by = decide_by(question.start, &terms, now)?;
    let state = match quorum {
        Some(_) => State::Pending { approvals: Approvals::new(), decide_by },
        None => State::Approved,
    };
    let mut parts = Parts {
        id,
        asker: question.person.clone(),
        key,
        reason: question.reason.clone(),
        ticket: question.ticket.clone(),
        asked: now,
        policy: check.version,
        start: question.start,
        terms,
        quorum,
        state,
        grants: Vec::new(),
        extension: None,
    };
    let mut events = vec![asked_event(&parts)];
    if parts.quorum.is_none() {
        let window = first_window(parts.start, now, parts.terms.backdate, parts.terms.lifetime)?;
        let digest = digest::digest(&parts);
        events.push(grant_at_once(&mut parts, window, digest, check.version, now));
    }
    Ok(Step { request: AccessRequest(parts), events, permit: None })
}

/// When an undecided request lapses: at the latest when what it asks for would be over.
fn decide_by(start: Option<Timestamp>, terms: &Terms, now: Timestamp) -> Result<Timestamp, Refusal> {
    let decide_by = now.plus(terms.decide_by).map_err(|_time| OUT_OF_TIME)?;
    let Some(start) = start else { return Ok(decide_by) };
    Ok(decide_by.min(start.plus(terms.lifetime).map_err(|_time| OUT_OF_TIME)?))
}

/// Times beyond what hallpass represents.
const OUT_OF_TIME: Refusal = Refusal::Invalid { what: "the window would leave the range of times; check the clock" };

/// The window of a request approved at `approved`: from the start asked for if that is still ahead, else from now on,
/// with backdating that never moves its end (P1).
pub(super) fn first_window(
    start: Option<Timestamp>,
    approved: Timestamp,
    backdate: Lifetime,
    lifetime: Lifetime,
) -> Result<Window, Refusal> {
    let window = || -> Result<Window, TimeError> {
        match start.filter(|start| *start > approved) {
            Some(start) => Window::new(start, start.plus(lifetime)?),
            None => Window::new(approved.minus(backdate)?, approved.plus(lifetime)?),
        }
    };
    window().map_err(|_time| OUT_OF_TIME)
}

/// The window of an extension approved at `approved`: the old end moved by `lifetime`, never a start before the first.
pub(super) fn extension_window(parts: &Parts, lifetime: Lifetime, approved: Timestamp) -> Result<Window, Refusal> {
    let Some(last) = parts.grants.last() else { return Err(Refusal::Undecided) };
    let window = || -> Result<Window, TimeError> {
        let start = approved.minus(parts.terms.backdate)?.max(last.window.start());
        Window::new(start, last.window.end().plus(lifetime)?)
    };
    window().map_err(|_time| OUT_OF_TIME)
}

/// Carries out `command` on `request` at `now`.
///
/// # Errors
/// [`Refusal`], with nothing changed.
pub fn step(request: AccessRequest, command: Command, now: Timestamp) -> Result<Step, Refusal> {
    let mut parts = request.0.clone();
    let mut events = settle(&mut parts, now);
    let happened = match command {
        Command::Approve { by, digest, narrow, comment, signed, check } => {
            decide::approve(&mut parts, Approval { by, digest, narrow, comment, signed, check }, now)?
        }
        Command::Deny { by, reason, check } => decide::deny(&mut parts, &by, reason, &check, now)?,
        Command::Withdraw { by } => withdraw(&mut parts, &by)?,
        Command::Tick if events.is_empty() => return Err(Refusal::NothingDue),
        Command::Tick => Vec::new(),
        Command::Certify { by, check } => {
            return Ok(match permit::certify(parts, &by, &check, now)? {
                Some(permit) => Step { request: permit.request().clone(), events, permit: Some(permit) },
                // The clock's tick will settle what is due; fetching the same bytes again writes nothing.
                None => Step { request, events: Vec::new(), permit: None },
            });
        }
        Command::Extend { by, lifetime, reason, check } => extend(&mut parts, &by, lifetime, reason, &check, now)?,
        Command::End { by, is_operator, reason } => end(&mut parts, &by, is_operator, reason, now)?,
        Command::Cut { by, reason } => cut(&mut parts, by, reason, (now, !events.is_empty()))?,
    };
    events.extend(happened);
    Ok(Step { request: AccessRequest(parts), events, permit: None })
}

/// What time alone has done by `now`: lapse what nobody decided, expire what is over.
fn settle(parts: &mut Parts, now: Timestamp) -> Vec<Event> {
    let request = parts.id;
    match &parts.state {
        State::Pending { decide_by, .. } if now >= *decide_by => {
            parts.state = State::Lapsed;
            vec![Event::Lapsed { request, extension: false }]
        }
        State::Approved | State::Issued => {
            let mut events = Vec::new();
            if parts.extension.as_ref().is_some_and(|extension| now >= extension.decide_by) {
                parts.extension = None;
                events.push(Event::Lapsed { request, extension: true });
            }
            if parts.grants.last().is_some_and(|grant| grant.window.is_over(now)) {
                parts.state = State::Expired;
                events.push(Event::Expired { request });
            }
            events
        }
        State::Pending { .. }
        | State::Denied { .. }
        | State::Withdrawn
        | State::Lapsed
        | State::Ended { .. }
        | State::Expired => Vec::new(),
    }
}

fn withdraw(parts: &mut Parts, by: &Proven) -> Result<Vec<Event>, Refusal> {
    only_asker(parts, by, "withdraw it")?;
    let extension = match &parts.state {
        State::Pending { .. } | State::Approved => false,
        State::Issued if parts.extension.is_some() => true,
        State::Issued => {
            let why = "its certificate is out, so it can't be withdrawn; `end` gives it back".to_owned();
            return Err(Refusal::WrongState { state: parts.state.word(), why });
        }
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => {
            return Err(Refusal::over(&parts.state));
        }
    };
    if extension {
        parts.extension = None;
    } else {
        parts.state = State::Withdrawn;
    }
    Ok(vec![Event::Withdrawn { request: parts.id, by: parts.asker.clone(), extension }])
}

fn extend(
    parts: &mut Parts,
    by: &Proven,
    lifetime: Lifetime,
    reason: String,
    check: &Check,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    only_asker(parts, by, "extend it")?;
    let wrong = |why: &str| Refusal::WrongState { state: parts.state.word(), why: why.to_owned() };
    match &parts.state {
        State::Pending { .. } => return Err(Refusal::Undecided),
        State::Approved => return Err(wrong("there is nothing to extend before its certificate was fetched")),
        State::Issued => {}
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => {
            return Err(Refusal::over(&parts.state));
        }
    }
    if parts.extension.is_some() {
        let why = format!("an extension waits for approval already; `hallpass cancel {}` takes it back", parts.id);
        return Err(wrong(&why));
    }
    let Some(last) = parts.grants.last().filter(|grant| grant.certificate.is_some()) else {
        return Err(wrong("the last extension's certificate was not fetched yet; fetch it first"));
    };
    let old_end = last.window.end();
    let (given, quorum) = question::ask(check, &question::extended(parts, lifetime, &reason, now))?;
    question::within(&parts.terms, lifetime, &given, check.version)?;
    let window = extension_window(parts, lifetime, now)?;
    let decide_by = now.plus(given.decide_by).map_err(|_time| OUT_OF_TIME)?.min(old_end);
    let policy = check.version;
    let digest = digest::of_extension(parts, lifetime, &reason, now, policy);
    let mut events = vec![Event::ExtensionAsked {
        request: parts.id,
        person: parts.asker.clone(),
        lifetime,
        reason: reason.clone(),
        policy,
        digest,
        verdict: answer(quorum.as_ref()),
    }];
    match quorum {
        Some(quorum) => {
            let approvals = Approvals::new();
            parts.extension = Some(Extending { lifetime, reason, asked: now, decide_by, policy, quorum, approvals });
        }
        None => events.push(grant_at_once(parts, window, digest, policy, now)),
    }
    Ok(events)
}

fn end(
    parts: &mut Parts,
    by: &Proven,
    is_operator: bool,
    reason: String,
    now: Timestamp,
) -> Result<Vec<Event>, Refusal> {
    if !is_operator {
        only_asker(parts, by, "end it, or an operator")?;
    }
    match &parts.state {
        State::Pending { .. } => {
            let why = format!(
                "there is no access to end; `hallpass cancel {0}` takes it back, `hallpass deny {0}` denies it",
                parts.id
            );
            return Err(Refusal::WrongState { state: parts.state.word(), why });
        }
        State::Approved | State::Issued => {}
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => {
            return Err(Refusal::over(&parts.state));
        }
    }
    if *by.person() != parts.asker && reason.trim().is_empty() {
        return Err(Refusal::Invalid { what: "ending somebody else's access needs a reason" });
    }
    let by = by.person().clone();
    parts.extension = None;
    parts.state = State::Ended { by: by.clone(), reason: reason.clone(), at: now };
    Ok(vec![Event::Ended { request: parts.id, by, reason }])
}

/// What is open is over; what time alone has just settled needs nothing more.
fn cut(
    parts: &mut Parts,
    by: PersonName,
    reason: String,
    (now, is_settled): (Timestamp, bool),
) -> Result<Vec<Event>, Refusal> {
    let request = parts.id;
    match &parts.state {
        State::Pending { .. } => {
            parts.state = State::Lapsed;
            Ok(vec![Event::Lapsed { request, extension: false }])
        }
        State::Approved | State::Issued => {
            parts.extension = None;
            parts.state = State::Ended { by: by.clone(), reason: reason.clone(), at: now };
            Ok(vec![Event::Ended { request, by, reason }])
        }
        State::Lapsed | State::Expired if is_settled => Ok(Vec::new()),
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => {
            Err(Refusal::over(&parts.state))
        }
    }
}

fn only_asker(parts: &Parts, by: &Proven, act: &'static str) -> Result<(), Refusal> {
    if *by.person() == parts.asker { Ok(()) } else { Err(Refusal::NotTheirs { asker: parts.asker.clone(), act }) }
}

/// Grants `window` without anybody's approval, as policy says.
fn grant_at_once(
    parts: &mut Parts,
    window: Window,
    digest: Digest,
    policy: PolicyVersion,
    approved: Timestamp,
) -> Event {
    parts.grants.push(Grant { window, approved, approvers: Approvals::new(), digest, certificate: None });
    Event::Granted { request: parts.id, approvers: std::collections::BTreeSet::new(), window, digest, policy }
}

/// The policy's answer, for the log.
const fn answer(quorum: Option<&Quorum>) -> Answer {
    if quorum.is_some() { Answer::Ask } else { Answer::Allow }
}

fn asked_event(parts: &Parts) -> Event {
    let (terms, options) = (&parts.terms, &parts.terms.options);
    let bare = terms.hosts.iter().filter(|(_, principal)| **principal == Principal::of_account(&terms.account));
    Event::Asked {
        request: parts.id,
        person: parts.asker.clone(),
        key: parts.key.fingerprint(),
        hosts: parts.terms.hosts.keys().cloned().collect(),
        account: parts.terms.account.clone(),
        lifetime: parts.terms.lifetime,
        start: parts.start,
        backdate: terms.backdate,
        account_scope: bare.map(|(host, _)| host.clone()).collect(),
        permits: options.permits.clone(),
        command: options.force_command.as_ref().map(|command| command.as_str().to_owned()),
        sources: options.source_addresses.iter().map(ToString::to_string).collect(),
        verify_required: options.verify_required,
        reason: parts.reason.clone(),
        ticket: parts.ticket.clone(),
        rules: parts.terms.rules.clone(),
        policy: parts.policy,
        digest: digest::digest(parts),
        verdict: answer(parts.quorum.as_ref()),
        ca: terms.ca.named(),
    }
}
