//! Random small policies and questions: the verdict against the plain definition, and monotonicity (I-14).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hallpass::name::{Account, HostName, PersonName, RuleName};
use hallpass::policy::{HostTrace, Outcome, Policy, Question, Quorum, RefusedKind, Terms};
use hallpass::time::{Lifetime, Timestamp};
use proptest::prelude::*;

/// A rule in small numbers; `who`, `accounts` and `permits` are sets of bits.
#[derive(Clone, Debug)]
pub(super) struct RuleSpec {
    pub(super) is_refusal: bool,
    pub(super) who: u8,
    pub(super) hosts: usize,
    pub(super) accounts: u8,
    pub(super) when: bool,
    pub(super) max_minutes: u32,
    pub(super) approval: u8,
    pub(super) reason: usize,
    pub(super) ticket: bool,
    pub(super) sources: usize,
    pub(super) command: bool,
    pub(super) permits: u8,
}

const WHO: [&str; 4] = ["group:g0", "group:g1", "person:p0", "person:p3"];
const HOSTS: [&str; 6] = ["\"h0\"", "\"h?\"", "\"tag:t=a\"", "\"*\"", "\"h1\", \"h2\"", "\"tag:t=b\", \"h0\""];
const ACCOUNTS: [&str; 3] = ["deploy", "debug", "root"];
const SOURCES: [&str; 3] = ["", "sources = [\"10.0.0.0/8\"]\n", "sources = [\"10.1.0.0/16\"]\n"];
const APPROVAL: [&str; 3] =
    ["", "{ need = 1, from = [\"group:g1\"] }", "{ need = 1, from = [\"person:p3\", \"group:g0\"] }"];

fn chosen<'a>(bits: u8, of: &[&'a str]) -> Vec<&'a str> {
    of.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0).map(|(_, text)| *text).collect()
}

impl RuleSpec {
    fn write(&self, name: &str, text: &mut String) {
        writeln!(text, "[[rule]]\nname = \"{name}\"").unwrap();
        let who = chosen(self.who, &WHO);
        if !who.is_empty() || !self.is_refusal {
            let who = if who.is_empty() { vec![WHO[0]] } else { who };
            writeln!(text, "who = {who:?}").unwrap();
        }
        writeln!(text, "hosts = [{}]", HOSTS[self.hosts]).unwrap();
        let accounts = chosen(self.accounts, &ACCOUNTS);
        if !accounts.is_empty() || !self.is_refusal {
            let accounts = if accounts.is_empty() { vec![ACCOUNTS[0]] } else { accounts };
            writeln!(text, "accounts = {accounts:?}").unwrap();
        }
        if self.when {
            text.push_str("when = { days = \"mon-fri\", hours = \"22:00-06:00\", zone = \"UTC\" }\n");
        }
        if self.is_refusal {
            text.push_str("effect = \"refuse\"\nmessage = \"no\"\n");
            return;
        }
        writeln!(text, "window = {{ max = \"{}m\" }}", self.max_minutes).unwrap();
        let needs: Vec<&str> = chosen(self.approval, &APPROVAL).into_iter().filter(|need| !need.is_empty()).collect();
        writeln!(text, "approval = [{}]", needs.join(", ")).unwrap();
        let ticket = if self.ticket { ", ticket = 'T-[0-9]'" } else { "" };
        writeln!(text, "reason = {{ min_length = {}{ticket} }}", self.reason).unwrap();
        text.push_str(SOURCES[self.sources]);
        if self.command {
            text.push_str("command = \"uptime\"\n");
        }
        let bit = |n: u8| self.permits & (1 << n) != 0;
        writeln!(text, "permit = {{ pty = {}, port_forwarding = {} }}", bit(0), bit(1)).unwrap();
    }
}

/// The policy of these rules, named by their numbers.
pub(super) fn policy(rules: &[(usize, RuleSpec)]) -> Policy {
    let mut text = String::from("version = 1\n[roles]\noperator = [\"person:olga\"]\n");
    for (name, groups) in [("p0", "\"g0\""), ("p1", "\"g0\", \"g1\""), ("p2", "\"g1\""), ("p3", "")] {
        writeln!(text, "[[person]]\nname = \"{name}\"\ngroups = [{groups}]").unwrap();
    }
    text.push_str(
        "[[person]]\nname = \"olga\"\nkeys = [\"ssh-ed25519 \
         AAAAC3NzaC1lZDI1NTE5AAAAILasL2VM7oM2X06aM/W6FRWxOU6To1xFU83M5hUw+sIl\"]\n",
    );
    for (name, tag, scope) in [("h0", "a", "host"), ("h1", "a", "account"), ("h2", "b", "host"), ("x3", "b", "host")] {
        writeln!(text, "[[host]]\nname = \"{name}\"\ntags = {{ t = \"{tag}\" }}\nscope = \"{scope}\"").unwrap();
    }
    for (number, rule) in rules {
        rule.write(&format!("r{number}"), &mut text);
    }
    Policy::parse(&text, "p").unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

/// The rules with their numbers.
pub(super) fn numbered(rules: &[RuleSpec]) -> Vec<(usize, RuleSpec)> {
    rules.iter().cloned().enumerate().collect()
}

pub(super) fn any_rule() -> impl Strategy<Value = RuleSpec> {
    let conditions = (0..16_u8, 0..HOSTS.len(), 0..8_u8, prop::bool::weighted(0.25));
    let demands = (1..200_u32, 0..8_u8, 0..4_usize, prop::bool::weighted(0.2));
    let options = (0..SOURCES.len(), prop::bool::weighted(0.2), 0..4_u8);
    let parts = (prop::bool::weighted(0.2), conditions, demands, options);
    parts.prop_map(|(is_refusal, (who, hosts, accounts, when), (max_minutes, approval, reason, ticket), o)| {
        let (sources, command, permits) = o;
        RuleSpec {
            is_refusal,
            who,
            hosts,
            accounts,
            when,
            max_minutes,
            approval,
            reason,
            ticket,
            sources,
            command,
            permits,
        }
    })
}

pub(super) fn any_rules() -> impl Strategy<Value = Vec<RuleSpec>> {
    prop::collection::vec(any_rule(), 1..6)
}

/// A question of one to `hosts_max` hosts; one person in five is a stranger, one host in five unknown.
pub(super) fn any_question(hosts_max: usize) -> impl Strategy<Value = Question> {
    let who = (0..5_usize, prop::collection::btree_set(0..5_usize, 1..=hosts_max), 0..ACCOUNTS.len());
    let span = (prop::option::of(0..250_u32), 0..260_u32, prop::option::weighted(0.2, 0..800_000_u64));
    let why = (0..6_usize, prop::option::of(prop::sample::select(vec!["T-1", "T-12", ""])), 0..7 * 86_400_u64);
    (who, span, why).prop_map(|((person, hosts, account), (lifetime, held, start), (reason, ticket, at))| {
        let monday = Timestamp::parse("2026-01-05T00:00:00Z").unwrap().unix();
        let at = Timestamp::from_unix(monday + at).unwrap();
        let host = |n: &usize| HostName::parse(["h0", "h1", "h2", "x3", "nowhere"][*n]).unwrap();
        Question {
            person: PersonName::parse(["p0", "p1", "p2", "p3", "stranger"][person]).unwrap(),
            hosts: hosts.iter().map(host).collect(),
            account: Account::parse(ACCOUNTS[account]).unwrap(),
            lifetime: lifetime.map(Lifetime::minutes),
            held: Lifetime::minutes(held),
            start: start.map(|start| Timestamp::from_unix(at.unix() + start).unwrap()),
            reason: "r".repeat(reason),
            ticket: ticket.map(str::to_owned),
            at,
        }
    })
}

/// An outcome without its sentences, which may name other rules as the nearest.
#[derive(Debug, PartialEq)]
enum Essence {
    Granted(Terms, Option<Quorum>),
    Refused(Vec<(Option<HostName>, Option<RuleName>, RefusedKind)>),
}

fn essence(outcome: &Outcome) -> Essence {
    match outcome {
        Outcome::Allow(terms) => Essence::Granted(terms.clone(), None),
        Outcome::Ask(terms, quorum) => Essence::Granted(terms.clone(), Some(quorum.clone())),
        Outcome::Refuse(refused) => {
            Essence::Refused(refused.iter().map(|r| (r.host.clone(), r.rule.clone(), r.kind)).collect())
        }
    }
}

fn is_granted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Allow(_) | Outcome::Ask(..))
}

fn rule_name(number: usize) -> RuleName {
    RuleName::parse(&format!("r{number}")).unwrap()
}

/// The rule that decides for a host by the plain definition, and whether it refuses.
fn decider(trace: &HostTrace, rules: &[RuleSpec]) -> Option<(usize, bool)> {
    let matched = |refusal: bool| {
        let all = trace.rules.iter().enumerate();
        all.filter(|(n, rule)| rule.matched && rules[*n].is_refusal == refusal).map(|(n, _)| n).next()
    };
    matched(true).map(|n| (n, true)).or(matched(false).map(|n| (n, false)))
}

proptest! {
    #[test]
    fn a_refusal_wins_else_the_first_match_decides_else_it_is_refused(
        rules in any_rules(), question in any_question(1),
    ) {
        let policy = policy(&numbered(&rules));
        let (short, full) = (policy.evaluate(&question), policy.explain(&question));
        prop_assert_eq!(&short.outcome, &full.outcome, "explaining changes nothing");
        let trace = &full.trace[0];
        match (decider(trace, &rules), &short.outcome) {
            (Some((n, true)), Outcome::Refuse(refused)) => {
                prop_assert_eq!(&refused[0].rule, &Some(rule_name(n)));
                prop_assert_eq!(refused[0].kind, RefusedKind::Rule);
            }
            (Some((n, false)), Outcome::Refuse(refused)) => {
                prop_assert!(refused.iter().all(|r| r.rule == Some(rule_name(n))));
                prop_assert!(refused.iter().all(|r| matches!(r.kind, RefusedKind::Reason | RefusedKind::Window)));
            }
            (Some((n, false)), Outcome::Allow(terms) | Outcome::Ask(terms, _)) => {
                prop_assert_eq!(&terms.rules, &[rule_name(n)]);
            }
            (None, Outcome::Refuse(refused)) => {
                let kind = if trace.rules.is_empty() { RefusedKind::Unknown } else { RefusedKind::NoRule };
                prop_assert_eq!(refused[0].kind, kind);
            }
            (decided, outcome) => prop_assert!(false, "{decided:?} decided, and it is {outcome:?}"),
        }
    }

    #[test]
    fn what_is_granted_is_within_every_deciding_rule(rules in any_rules(), question in any_question(3)) {
        let policy = policy(&numbered(&rules));
        let (terms, quorum) = match policy.evaluate(&question).outcome {
            Outcome::Allow(terms) => (terms, None),
            Outcome::Ask(terms, quorum) => (terms, Some(quorum)),
            Outcome::Refuse(_) => return Ok(()),
        };
        prop_assert!(terms.hosts.keys().eq(&question.hosts));
        prop_assert_eq!(&terms.account, &question.account);
        prop_assert!(Lifetime::ZERO < terms.lifetime && terms.lifetime <= terms.lifetime_max);
        prop_assert!(question.lifetime.is_none_or(|asked| asked == terms.lifetime));
        prop_assert!(question.held.seconds() + terms.lifetime.seconds() <= 4 * 3600);
        let mut needs = BTreeSet::new();
        for trace in policy.explain(&question).trace {
            let (n, _) = decider(&trace, &rules).unwrap();
            let rule = &rules[n];
            prop_assert!(terms.lifetime_max <= Lifetime::minutes(rule.max_minutes));
            prop_assert!(terms.rules.contains(&rule_name(n)));
            prop_assert_eq!(terms.options.force_command.is_some(), rule.command);
            prop_assert!(rule.sources == 0 || !terms.options.source_addresses.is_empty());
            let bits: BTreeSet<&str> = chosen(rule.permits, &["pty", "port_forwarding"]).into_iter().collect();
            let is_permitted = terms.options.permits.iter().all(|permit| bits.contains(permit.key()));
            prop_assert!(is_permitted, "more is permitted than the rule says");
            prop_assert!(question.reason.len() >= rule.reason);
            prop_assert!(!rule.ticket || question.ticket.as_deref() == Some("T-1"));
            let approval = chosen(rule.approval, &APPROVAL).into_iter().filter(|need| !need.is_empty());
            needs.extend(approval.map(str::to_owned));
        }
        prop_assert_eq!(quorum.map_or(0, |quorum| quorum.needs().len()), needs.len());
    }

    #[test]
    fn a_further_refusal_leaves_an_outcome_as_it_is_or_refuses_it(
        rules in any_rules(), more in any_rule(), place in 0..6_usize, question in any_question(3),
    ) {
        let mut with = numbered(&rules);
        with.insert(place.min(rules.len()), (99, RuleSpec { is_refusal: true, ..more }));
        let before = policy(&numbered(&rules)).evaluate(&question).outcome;
        let after = policy(&with).evaluate(&question).outcome;
        prop_assert!(!is_granted(&after) || essence(&after) == essence(&before));
    }

    #[test]
    fn without_a_grant_only_what_it_decided_changes(
        rules in any_rules(), place in 0..6_usize, question in any_question(3),
    ) {
        let place = place % rules.len();
        prop_assume!(!rules[place].is_refusal);
        let whole = policy(&numbered(&rules));
        let mut without = numbered(&rules);
        without.remove(place);
        let before = whole.evaluate(&question).outcome;
        let after = policy(&without).evaluate(&question).outcome;
        let traces = whole.explain(&question).trace;
        let decided = traces.iter().any(|trace| decider(trace, &rules) == Some((place, false)));
        if !decided {
            prop_assert_eq!(essence(&after), essence(&before));
        } else if rules[place..].iter().skip(1).all(|rule| rule.is_refusal) {
            prop_assert!(!is_granted(&after), "there was no later grant to take its place");
        }
    }

    #[test]
    fn a_shorter_maximum_grants_nothing_new_and_nothing_longer(
        rules in any_rules(), place in 0..6_usize, less in 0..200_u32, question in any_question(3),
    ) {
        let place = place % rules.len();
        let mut shorter = rules.clone();
        shorter[place].max_minutes = rules[place].max_minutes.saturating_sub(less).max(1);
        let before = policy(&numbered(&rules)).evaluate(&question).outcome;
        let after = policy(&numbered(&shorter)).evaluate(&question).outcome;
        match (before, after) {
            (_, Outcome::Refuse(_)) => {}
            (Outcome::Allow(was), Outcome::Allow(is)) | (Outcome::Ask(was, _), Outcome::Ask(is, _)) => {
                prop_assert!(is.lifetime <= was.lifetime && is.lifetime_max <= was.lifetime_max);
                let like_before = Terms { lifetime: was.lifetime, lifetime_max: was.lifetime_max, ..is };
                prop_assert_eq!(like_before, was);
            }
            (was, is) => prop_assert!(false, "was {was:?}, is {is:?}"),
        }
    }
}

proptest! {
    /// What the list of hosts says may be asked for is what a question would not be refused for by a rule, or for want of one.
    #[test]
    fn the_ways_into_a_host_are_those_that_a_question_may_take(rules in any_rules(), question in any_question(1)) {
        let policy = policy(&numbered(&rules));
        let hosts: Vec<_> = policy.hosts().collect();
        let ways = policy.ways(&question.person, &hosts, question.at);
        for (host, ways) in hosts.iter().zip(&ways) {
            for account in ACCOUNTS.map(|name| Account::parse(name).unwrap()) {
                let hosts = BTreeSet::from([host.name.clone()]);
                let asked = Question { hosts, account: account.clone(), start: None, held: Lifetime::ZERO, ..question.clone() };
                let way = ways.iter().find(|way| way.account == account);
                let says_no = match &policy.evaluate(&asked).outcome {
                    Outcome::Refuse(refused) => {
                        refused.iter().any(|no| matches!(no.kind, RefusedKind::NoRule | RefusedKind::Rule | RefusedKind::Unknown))
                    }
                    Outcome::Allow(terms) => {
                        let way = way.expect("allowed, so listed");
                        prop_assert_eq!((&way.quorum, way.longest), (&None, terms.lifetime_max));
                        false
                    }
                    Outcome::Ask(terms, quorum) => {
                        let way = way.expect("may be asked, so listed");
                        prop_assert_eq!((way.quorum.as_ref(), way.longest), (Some(quorum), terms.lifetime_max));
                        prop_assert_eq!(&terms.rules, &vec![way.rule.clone()]);
                        false
                    }
                };
                prop_assert_eq!(way.is_none(), says_no, "{} as {}", host.name, account);
            }
        }
    }
}
