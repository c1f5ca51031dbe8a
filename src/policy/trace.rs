//! Why a verdict is as it is: rule by rule, and in a sentence when no rule lets somebody ask.
//!
//! What not: no decision. The traces are made beside it, from the same conditions of the same rules.
//!
//! Invariant: [`no_rule`] names only rules whose `who` includes the asker, for it is shown to them; a full trace names
//! every rule and is for people who may read the policy.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use super::evaluate::{Asked, Detail};
use super::rule::{Among, Effect, Grant, Rule};
use super::{Host, HostTrace, RuleTrace};
use crate::name::HostName;

/// The most rules in a short trace, and the most entries of a list in a clause. Our choice.
const RULES_MAX: usize = 16;
const ENTRIES_MAX: usize = 8;

/// Among how many of the rules about a person the nearest one is looked for when none lets them ask: a refusal must
/// not cost more than a grant, and this is advice, not decision. Our choice.
const NEAREST_AMONG: usize = 256;

pub(super) fn trace(asked: &Asked<'_>, detail: Detail) -> Vec<HostTrace> {
    asked.question.hosts.iter().map(|name| host_trace(asked, name, detail)).collect()
}

fn host_trace(asked: &Asked<'_>, name: &HostName, detail: Detail) -> HostTrace {
    let rules = asked.policy.hosts.get(name).map(|host| match detail {
        Detail::Full => asked.policy.rules.iter().map(|rule| rule_trace(asked, host, rule)).collect(),
        Detail::Short => {
            let rule = |number: &usize| asked.policy.rules.get(*number);
            let about = asked.about(host);
            let near: Vec<&Rule> = about.iter().filter_map(rule).filter(|r| r.has_host(host)).take(RULES_MAX).collect();
            let all = asked.candidates.iter().filter_map(rule);
            let shown = if near.is_empty() { all.take(RULES_MAX).collect() } else { near };
            shown.into_iter().map(|rule| rule_trace(asked, host, rule)).collect()
        }
    });
    HostTrace { host: name.clone(), rules: rules.unwrap_or_default() }
}

fn rule_trace(asked: &Asked<'_>, host: &Host, rule: &Rule) -> RuleTrace {
    let mut clauses = Vec::new();
    let who = who_clause(asked, rule, &mut clauses);
    let hosts = hosts_clause(host, rule, &mut clauses);
    let accounts = accounts_clause(asked, rule, &mut clauses);
    let time = rule.is_time(asked.moment);
    if let Some(when) = &rule.when {
        let is = if time { "is within" } else { "is outside" };
        clauses.push(format!("when: {} {is} {when}", when.clock(asked.moment)));
    }
    let matched = who && hosts && accounts && time;
    match &rule.effect {
        Effect::Grant(grant) if matched => demands(grant, &mut clauses),
        Effect::Grant(_) => {}
        Effect::Refuse { message } if matched => clauses.push(format!("refuses: {message}")),
        Effect::Refuse { .. } => {}
    }
    RuleTrace { rule: rule.name.clone(), matched, clauses }
}

fn who_clause(asked: &Asked<'_>, rule: &Rule, clauses: &mut Vec<String>) -> bool {
    let Among::Only(who) = &rule.who else {
        clauses.push("who: everybody".to_owned());
        return true;
    };
    let person = &asked.question.person;
    let found = who.iter().find(|who| who.includes(person, &asked.policy.directory));
    clauses.push(match found {
        Some(who) => format!("who: {who} includes {person}"),
        None => format!("who: {person} is none of {}", listed(who)),
    });
    found.is_some()
}

fn hosts_clause(host: &Host, rule: &Rule, clauses: &mut Vec<String>) -> bool {
    let Among::Only(patterns) = &rule.hosts else {
        clauses.push("hosts: all".to_owned());
        return true;
    };
    let found = patterns.iter().find(|pattern| pattern.matches(host));
    clauses.push(match found {
        Some(pattern) => format!("hosts: {pattern} includes {}", host.name),
        None => format!("hosts: {} is none of {}", host.name, listed(patterns)),
    });
    found.is_some()
}

fn accounts_clause(asked: &Asked<'_>, rule: &Rule, clauses: &mut Vec<String>) -> bool {
    let Among::Only(accounts) = &rule.accounts else {
        clauses.push("accounts: all".to_owned());
        return true;
    };
    let account = &asked.question.account;
    let has = accounts.contains(account);
    clauses.push(match has {
        true => format!("accounts: {account} is listed"),
        false => format!("accounts: {account} is none of {}", listed(accounts)),
    });
    has
}

/// What a matching grant demands and gives.
fn demands(grant: &Grant, clauses: &mut Vec<String>) {
    let span = &grant.window;
    clauses.push(format!("window: {} if not asked, at most {}, {} in total", span.default, span.max, span.total));
    if grant.reason_chars_min > 1 {
        clauses.push(format!("reason: at least {} characters", grant.reason_chars_min));
    }
    if let Some(ticket) = &grant.ticket {
        clauses.push(format!("ticket: like {ticket}"));
    }
    let needs: Vec<String> = grant.approval.iter().map(ToString::to_string).collect();
    clauses
        .push(format!("approval: {}", if needs.is_empty() { "none needed".to_owned() } else { needs.join(" and ") }));
}

/// Why no rule lets this person ask, with the nearest rule that is about them.
pub(super) fn no_rule(asked: &Asked<'_>, host: &Host) -> String {
    let question = asked.question;
    let (person, account) = (&question.person, &question.account);
    let no = format!("no rule lets {person} ask for {account} on {}", host.name);
    let Some(known) = asked.person else { return format!("{no}: nobody of this name is in the directory") };
    let numbers = asked.policy.index.for_person(asked.person, NEAREST_AMONG);
    let about = || numbers.iter().filter_map(|n| asked.policy.rules.get(*n)).filter(|rule| rule.grant().is_some());
    let here = |rule: &&Rule| rule.has_host(host);
    let so = |rule: &&Rule| rule.has_account(account);
    let closed = about().filter(so).find(here).and_then(|rule| Some((rule, rule.when.as_ref()?)));
    if let Some((rule, when)) = closed {
        let now = when.clock(asked.moment);
        return format!("{no} now: rule \"{}\" allows it {when}, and it is {now} there", rule.name);
    }
    if let Some(rule) = about().find(here) {
        return format!("{no}; nearest: rule \"{}\" allows {} there", rule.name, accounts(rule));
    }
    if let Some(rule) = about().find(so) {
        return format!("{no}; nearest: rule \"{}\" allows {account} on {}", rule.name, hosts(rule));
    }
    let groups = listed(&known.groups);
    let groups = if groups.is_empty() { "no group".to_owned() } else { format!("group {groups}") };
    format!("{no}; {person} is in {groups}")
}

fn accounts(rule: &Rule) -> String {
    match &rule.accounts {
        Among::All => "all accounts".to_owned(),
        Among::Only(accounts) => listed(accounts),
    }
}

fn hosts(rule: &Rule) -> String {
    match &rule.hosts {
        Among::All => "all hosts".to_owned(),
        Among::Only(patterns) => listed(patterns),
    }
}

/// `a, b, c and 4 more`.
pub(super) fn listed<T: fmt::Display>(entries: impl IntoIterator<Item = T>) -> String {
    listed_up_to(ENTRIES_MAX, entries)
}

/// The same with at most `count` entries.
pub(super) fn listed_up_to<T: fmt::Display>(count: usize, entries: impl IntoIterator<Item = T>) -> String {
    let mut texts = entries.into_iter().map(|entry| entry.to_string());
    let shown: Vec<String> = texts.by_ref().take(count).collect();
    match texts.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
