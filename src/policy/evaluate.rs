//! The evaluation: a pure function of policy and question.
//!
//! For each host: a matching `refuse` rule wins; else the first grant in file order whose `who`, `hosts`, `accounts`
//! and `when` match decides, and then its demands (reason, ticket, window) must be met; else refused. A grant whose
//! demands are not met does not hand over to a later one: the first match decides, so that a strict rule above a
//! lax one means what it says.
//!
//! A host of scope "account" is opened by every certificate for that account on any such host; so a `refuse` rule for one
//! of them refuses the account on all of them, and what a grant for one of them demands is demanded for each: otherwise one
//! could ask for the host that needs nobody's approval, and reach the one that does.
//!
//! Several hosts: every one must be granted, and all must be of one CA; the terms are what all grants have in common, the needs of all
//! count. That a host of scope "account" may be of another CA loosens nothing of the above: such a host is made by hand, and nobody
//! knows whose keys it still trusts.
//!
//! Monotonicity (I-14), as the property tests state it:
//! - a further `refuse` rule, anywhere, leaves each outcome as it is or makes it a refusal;
//! - without some grant, only the outcomes that this grant decided change, and without the last grant of the file
//!   they become refusals (where it decided for an asked host; one for a host of scope "account" that nobody asked for
//!   takes only its demands with it, which a diff calls a gain);
//! - a shorter `max` or `total` never makes a refusal anything else, nor a lifetime longer.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Effect, Grant, Rule, TICKET_BYTES_MAX};
use super::{HOSTS_MAX, Host, Outcome, Policy, Question, Quorum, Refused, RefusedKind, Scope, Terms, Verdict, trace};
use crate::identity::Person;
use crate::name::Principal;
use crate::ssh::cert::Options;
use crate::time::{Lifetime, Timestamp};

/// How far ahead access may start: 7 days. Our choice; what is decided today should not be used next month.
const AHEAD_MAX: Lifetime = Lifetime::minutes(7 * 24 * 60);

/// How much of the trace is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// The rules for this person and account, as far as they fit.
    Short,
    /// Every rule.
    Full,
}

/// A host, and the grant that decided for it.
pub(super) struct Granted<'p> {
    host: &'p Host,
    number: usize,
    pub(super) rule: &'p Rule,
    pub(super) grant: &'p Grant,
}

/// What is needed to look at each host.
pub(super) struct Asked<'p> {
    pub(super) policy: &'p Policy,
    pub(super) question: &'p Question,
    pub(super) person: Option<&'p Person>,
    /// Numbers of the rules whose `who` and `accounts` match, in file order.
    pub(super) candidates: Vec<usize>,
    /// The moment at which `when` must hold.
    pub(super) moment: Timestamp,
}

impl<'p> Asked<'p> {
    pub(super) fn new(policy: &'p Policy, question: &'p Question) -> Self {
        let person = policy.directory.person(&question.person);
        let candidates = policy.index.for_account(person, &question.account);
        let moment = question.start.unwrap_or(question.at).max(question.at);
        Self { policy, question, person, candidates, moment }
    }

    /// Numbers of those candidates whose hosts may include this one, in file order.
    pub(super) fn about(&self, host: &Host) -> Vec<usize> {
        let mut about = self.policy.index.for_host(host);
        about.retain(|number| self.candidates.binary_search(number).is_ok());
        about
    }
}

pub(super) fn evaluate(policy: &Policy, question: &Question, detail: Detail) -> Verdict {
    let asked = Asked::new(policy, question);
    Verdict { outcome: outcome(&asked), trace: trace::trace(&asked, detail) }
}

fn outcome(asked: &Asked<'_>) -> Outcome {
    let count = asked.question.hosts.len();
    if count == 0 || count > HOSTS_MAX {
        let why = format!("a request is for 1 to {HOSTS_MAX} hosts, not {count}");
        return Outcome::Refuse(vec![Refused { host: None, rule: None, kind: RefusedKind::Unknown, why }]);
    }
    let (mut granted, mut refused) = (Vec::new(), Vec::new());
    for name in &asked.question.hosts {
        let Some(host) = asked.policy.hosts.get(name) else {
            let why = format!("host \"{name}\" is not known");
            refused.push(Refused { host: Some(name.clone()), rule: None, kind: RefusedKind::Unknown, why });
            continue;
        };
        match decide(asked, host) {
            Ok(found) => {
                refused.extend(unmet(asked, &found));
                refused.extend(opened_too(asked, &found));
                granted.push(found);
            }
            Err(no) => refused.push(no),
        }
    }
    let beside = granted_beside(asked, &granted);
    refused.extend(beside.iter().flat_map(|found| unmet_beside(asked, found)));
    if refused.is_empty() {
        combined(asked, &granted, &beside).unwrap_or_else(Outcome::Refuse)
    } else {
        Outcome::Refuse(refused)
    }
}

/// The grants for hosts that nobody asked for, but that this certificate would open too (see [`opened_too`]): one for each
/// rule that decides there.
fn granted_beside<'p>(asked: &Asked<'p>, granted: &[Granted<'p>]) -> Vec<Granted<'p>> {
    if granted.iter().all(|found| found.host.scope != Scope::Account) {
        return Vec::new();
    }
    let mut rules: BTreeSet<usize> =
        granted.iter().filter(|found| found.host.scope == Scope::Account).map(|found| found.number).collect();
    let others = asked.policy.hosts().filter(|host| host.scope == Scope::Account);
    let others = others.filter(|host| !asked.question.hosts.contains(&host.name));
    others.filter_map(|host| decide(asked, host).ok()).filter(|found| rules.insert(found.number)).collect()
}

/// The demands of such a grant that the question does not meet.
fn unmet_beside(asked: &Asked<'_>, found: &Granted<'_>) -> Vec<Refused> {
    let name = &found.host.name;
    let explained = |mut refused: Refused| {
        refused.why.push_str(&format!(
            "; the rule is for {name}, which this certificate would open too: both have scope \"account\""
        ));
        refused
    };
    unmet(asked, found).into_iter().map(explained).collect()
}

/// The rule that decides for one host.
pub(super) fn decide<'p>(asked: &Asked<'p>, host: &'p Host) -> Result<Granted<'p>, Refused> {
    let mut first = None;
    for number in asked.about(host) {
        let Some(rule) = asked.policy.rules.get(number) else { continue };
        // Behind the first match only refusals can still matter.
        if first.is_some() && rule.grant().is_some() || !rule.has_host(host) || !rule.is_time(asked.moment) {
            continue;
        }
        match &rule.effect {
            Effect::Grant(grant) => first = Some(Granted { host, number, rule, grant }),
            Effect::Refuse { message } => {
                let why = format!("rule \"{}\" forbids it: {message}", rule.name);
                let (host, rule) = (Some(host.name.clone()), Some(rule.name.clone()));
                return Err(Refused { host, rule, kind: RefusedKind::Rule, why });
            }
        }
    }
    first.ok_or_else(|| Refused {
        host: Some(host.name.clone()),
        rule: None,
        kind: RefusedKind::NoRule,
        why: trace::no_rule(asked, host),
    })
}

/// The rule that forbids the account on a host of scope "account", and so on all of them.
pub(super) fn forbidden_by_scope<'p>(asked: &Asked<'p>) -> Option<(&'p Rule, &'p Host)> {
    let rules = asked.candidates.iter().filter_map(|number| asked.policy.rules.get(*number));
    let mut refusals = rules.filter(|rule| rule.grant().is_none() && rule.is_time(asked.moment));
    refusals.find_map(|rule| {
        let mut others = asked.policy.hosts().filter(|host| host.scope == Scope::Account);
        others.find(|host| rule.has_host(host)).map(|host| (rule, host))
    })
}

/// A refusal for a host that this certificate would open although nobody asked for it: the principal of a host of scope
/// "account" is the bare account, which every such host accepts. What a rule forbids on one of them is so forbidden on all.
fn opened_too(asked: &Asked<'_>, granted: &Granted<'_>) -> Option<Refused> {
    if granted.host.scope != Scope::Account {
        return None;
    }
    let (rule, host) = forbidden_by_scope(asked)?;
    let account = &asked.question.account;
    let why = format!(
        "rule \"{}\" forbids {account} on {}, which a certificate for {} would open too: both have scope \"account\"",
        rule.name, host.name, granted.host.name
    );
    let (host, rule) = (Some(granted.host.name.clone()), Some(rule.name.clone()));
    Some(Refused { host, rule, kind: RefusedKind::Rule, why })
}

/// The demands of the deciding grant that the question does not meet.
fn unmet(asked: &Asked<'_>, granted: &Granted<'_>) -> Vec<Refused> {
    let Granted { host, rule, grant, .. } = granted;
    let reasons = reason_problems(asked, rule, grant).into_iter().map(|why| (RefusedKind::Reason, why));
    let windows = window_problems(asked, rule, grant).into_iter().map(|why| (RefusedKind::Window, why));
    let refused = |(kind, why)| {
        let (host, rule) = (Some(host.name.clone()), Some(rule.name.clone()));
        Refused { host, rule, kind, why }
    };
    reasons.chain(windows).map(refused).collect()
}

fn reason_problems(asked: &Asked<'_>, rule: &Rule, grant: &Grant) -> Vec<String> {
    let (question, name) = (asked.question, &rule.name);
    let mut problems = Vec::new();
    let chars = question.reason.trim().chars().count();
    match grant.reason_chars_min {
        1 if chars == 0 => problems.push(format!("rule \"{name}\" needs a reason, and none is given")),
        least if chars < least && chars == 0 => {
            problems.push(format!("rule \"{name}\" needs a reason of at least {least} characters, and none is given"));
        }
        least if chars < least => {
            problems
                .push(format!("rule \"{name}\" needs a reason of at least {least} characters; this one has {chars}"));
        }
        _ => {}
    }
    if let Some(ticket) = grant.ticket.as_ref().filter(|ticket| !ticket.is_named_in(question)) {
        problems.push(match &question.ticket {
            Some(given) if given.len() > TICKET_BYTES_MAX => {
                format!("rule \"{name}\" needs a ticket like {ticket}; the one given is {} bytes long", given.len())
            }
            Some(given) => format!("rule \"{name}\" needs a ticket like {ticket}; {given:?} is not"),
            None => format!("rule \"{name}\" needs a ticket like {ticket}, and none is given"),
        });
    }
    problems
}

fn window_problems(asked: &Asked<'_>, rule: &Rule, grant: &Grant) -> Vec<String> {
    let (question, name, span) = (asked.question, &rule.name, &grant.window);
    let mut problems = Vec::new();
    let left = left(grant, question.held);
    if question.lifetime == Some(Lifetime::ZERO) {
        problems.push("access must last at least 1s".to_owned());
    } else if left == Lifetime::ZERO {
        let (total, held) = (span.total, question.held);
        problems.push(format!("rule \"{name}\" allows {total} in total, and {held} is used"));
    } else if let Some(lifetime) = question.lifetime {
        if lifetime > span.max {
            problems.push(format!("{lifetime} is longer than the {} that rule \"{name}\" allows", span.max));
        } else if lifetime > left {
            let (total, held) = (span.total, question.held);
            let so_far = format!("rule \"{name}\" allows {total} in total, and {held} is used");
            problems.push(format!("{so_far}: at most {left} more, not {lifetime}"));
        }
    }
    if let Some(start) = question.start {
        if start < question.at {
            problems.push(format!("the start {start} is in the past; it is {} now", question.at));
        } else if start.seconds_since(question.at) > u64::from(AHEAD_MAX.seconds()) {
            problems.push(format!("the start {start} is more than {AHEAD_MAX} ahead"));
        }
    }
    problems
}

/// What of the total is not used yet.
fn left(grant: &Grant, held: Lifetime) -> Lifetime {
    let seconds = grant.window.total.seconds().saturating_sub(held.seconds());
    Lifetime::from_seconds(seconds).unwrap_or(Lifetime::ZERO)
}

/// The outcome of several grants together: the narrowest of each. `beside` are those for hosts that nobody asked for.
fn combined(asked: &Asked<'_>, granted: &[Granted<'_>], beside: &[Granted<'_>]) -> Result<Outcome, Vec<Refused>> {
    let question = asked.question;
    let ca = super::cas::one_ca(asked.policy, granted.iter().map(|g| g.host));
    let ca = ca.map_err(|why| vec![Refused { host: None, rule: None, kind: RefusedKind::NoRule, why }])?;
    let all = || granted.iter().chain(beside);
    let most = |g: &Granted<'_>| g.grant.window.max.min(left(g.grant, question.held));
    let lifetime_max = all().map(most).min().unwrap_or(Lifetime::ZERO);
    let default = all().map(|g| g.grant.window.default).min().unwrap_or(Lifetime::ZERO);
    let principal = |host: &Host| match host.scope {
        Scope::Host => Principal::on_host(&question.account, &host.name),
        Scope::Account => Principal::of_account(&question.account),
    };
    let numbers: BTreeMap<usize, &Rule> = all().map(|g| (g.number, g.rule)).collect();
    let terms = Terms {
        hosts: granted.iter().map(|g| (g.host.name.clone(), principal(g.host))).collect(),
        ca,
        account: question.account.clone(),
        lifetime: question.lifetime.unwrap_or_else(|| default.min(lifetime_max)),
        lifetime_max,
        backdate: asked.policy.defaults.backdate,
        decide_by: asked.policy.defaults.decide_by,
        options: options(granted.iter(), "ask for these hosts separately")
            .and_then(|_| options(all(), "one certificate opens all hosts of scope \"account\""))?,
        rules: numbers.into_values().map(|rule| rule.name.clone()).collect(),
    };
    Ok(match Quorum::of_all(all().map(|g| g.grant.approval.as_slice())) {
        Some(quorum) => Outcome::Ask(terms, quorum),
        None => Outcome::Allow(terms),
    })
}

/// What all grants permit. Restrictions that can't be joined in one certificate are refused rather than loosened.
fn options<'g>(mut granted: impl Iterator<Item = &'g Granted<'g>>, so: &str) -> Result<Options, Vec<Refused>> {
    let apart = |what: &str, a: &Rule, b: &Rule| {
        let why = format!("rules \"{}\" and \"{}\" {what}; {so}", a.name, b.name);
        vec![Refused { host: None, rule: None, kind: RefusedKind::NoRule, why }]
    };
    let Some(first) = granted.next() else { return Ok(Options::default()) };
    let (mut joined, mut sources_from) = (first.grant.options.clone(), first.rule);
    for other in granted {
        let options = &other.grant.options;
        if options.force_command != joined.force_command {
            return Err(apart("force different commands", first.rule, other.rule));
        }
        if joined.source_addresses.is_empty() {
            joined.source_addresses.clone_from(&options.source_addresses);
            sources_from = other.rule;
        } else if !options.source_addresses.is_empty() && options.source_addresses != joined.source_addresses {
            return Err(apart("accept different source addresses", sources_from, other.rule));
        }
        joined.verify_required |= options.verify_required;
        joined.permits.retain(|permit| options.permits.contains(permit));
    }
    Ok(joined)
}
