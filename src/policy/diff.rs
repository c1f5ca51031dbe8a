//! Who gains and who loses what between two policies.
//!
//! What for: whoever applies a policy sees what it means before it counts. (The log keeps the policy's hash and the number of changes.)
//!
//! Invariant: a change that lets somebody do more is marked as a gain; what can't be decided is marked as one.
//!
//! Decision: *why compare outcomes and not texts?* A rule moved up two lines can open a host; a rule rewritten whole
//! may change nothing. Only beyond [`PLACES_MAX`] combinations of people, accounts and hosts are rules compared, and
//! then the first line says so.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Among, Rule};
use super::standing::{Standing, candidates};
use super::trace::listed_up_to;
use super::{Host, Policy, Scope};
use crate::identity::Person;
use crate::name::{Account, CaName, HostName, PersonName, RuleName};

/// The most combinations of a person, an account and a host that are compared one by one. Our choice: two seconds.
const PLACES_MAX: usize = 500_000;

/// The most hosts that one sentence names. Our choice.
const HOSTS_MAX: usize = 32;

/// What it means for the others when a host of scope "account" is one no more.
const FREED: &str = "what its rules forbid and demand no longer counts for the other hosts of scope \"account\"";

/// What a difference means for somebody, in the order in which they are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Somebody can do more afterwards.
    Gain,
    /// Somebody can do less.
    Loss,
    /// Neither by itself: who gains and loses by it is said beside it.
    Neither,
}

impl Effect {
    /// As it stands before a sentence.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Gain => '+',
            Self::Loss => '-',
            Self::Neither => '~',
        }
    }
}

/// One difference, as a sentence: `alice@example.com loses deploy on web-1 (was: asks, up to 2h)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// What it means.
    pub effect: Effect,
    /// The sentence.
    pub text: String,
}

/// Every person × host × named account whose access differs, plus changed roles, keys, groups and hosts. Gains first.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Vec<Change> {
    let mut changes = Changes::default();
    access(old, new, &mut changes);
    let roles = [("an operator", &old.operators, &new.operators), ("an auditor", &old.auditors, &new.auditors)];
    for (role, before, after) in roles {
        after.difference(before).for_each(|name| changes.gain(format!("{name} becomes {role}")));
        before.difference(after).for_each(|name| changes.lose(format!("{name} is no longer {role}")));
    }
    if old.ca_operators != new.ca_operators {
        let text = format!("CA keys need {} operators (were: {})", new.ca_operators, old.ca_operators);
        changes.add(new.ca_operators < old.ca_operators, text);
    }
    people(old, new, &mut changes);
    hosts(old, new, &mut changes);
    cas(old, new, &mut changes);
    defaults(old, new, &mut changes);
    changes.in_order()
}

#[derive(Default)]
struct Changes(BTreeSet<Change>);

impl Changes {
    fn add(&mut self, gains: bool, text: String) {
        self.0.insert(Change { effect: if gains { Effect::Gain } else { Effect::Loss }, text });
    }

    fn note(&mut self, text: String) {
        self.0.insert(Change { effect: Effect::Neither, text });
    }

    fn gain(&mut self, text: String) {
        self.add(true, text);
    }

    fn lose(&mut self, text: String) {
        self.add(false, text);
    }

    fn in_order(self) -> Vec<Change> {
        self.0.into_iter().collect()
    }
}

/// What a person's access as an account was and is, for all hosts where both are the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Difference<'p> {
    person: &'p PersonName,
    account: &'p Account,
    gains: bool,
    was: String,
    is: String,
}

fn access(old: &Policy, new: &Policy, changes: &mut Changes) {
    let people: BTreeSet<&PersonName> = [old, new].iter().flat_map(|p| p.directory.people()).map(|p| &p.name).collect();
    let accounts: BTreeSet<&Account> =
        [old, new].iter().flat_map(|p| p.rules.iter()).flat_map(named_accounts).collect();
    let hosts: BTreeSet<&HostName> = [old, new].iter().flat_map(|p| p.hosts.keys()).collect();
    let pairs = people.iter().flat_map(|person| accounts.iter().map(move |account| (*person, *account)));
    let rules = |policy: &Policy, person, account| candidates(policy, policy.directory.person(person), account);
    let mut places: usize = 0;
    let mut found: BTreeMap<Difference<'_>, Vec<&HostName>> = BTreeMap::new();
    for (person, account) in pairs {
        let (before, after) = (rules(old, person, account), rules(new, person, account));
        if before.is_empty() && after.is_empty() {
            continue;
        }
        places = places.saturating_add(hosts.len());
        if places > PLACES_MAX {
            return by_rule(old, new, changes);
        }
        for name in &hosts {
            let standing = |policy, rules: &[usize]| standing(policy, rules, name);
            let (was, is) = (standing(old, &before), standing(new, &after));
            if was != is {
                let gains = !is.is_at_most(&was);
                if !gains && shares(old, new, name) {
                    changes.gain(format!(
                        "{person} as {account}: other hosts of scope \"account\" no longer share what {name} demanded"
                    ));
                }
                let difference = Difference { person, account, gains, was: was.to_string(), is: is.to_string() };
                found.entry(difference).or_default().push(name);
            }
        }
    }
    for (Difference { person, account, gains, was, is }, hosts) in found {
        let hosts = listed_up_to(HOSTS_MAX, &hosts);
        changes.add(
            gains,
            match (was.as_str(), is.as_str()) {
                ("nothing", _) => format!("{person} gains {account} on {hosts} ({is})"),
                (_, "nothing") => format!("{person} loses {account} on {hosts} (was: {was})"),
                _ => format!("{person} as {account} on {hosts}: was {was}; becomes {is}"),
            },
        );
    }
}

/// Whether what the rules demanded for this host counted for others too, and those are still there.
fn shares(old: &Policy, new: &Policy, name: &HostName) -> bool {
    let is_open = |host: &Host| host.scope == Scope::Account;
    old.host(name).is_some_and(is_open) && new.hosts().any(|host| is_open(host) && host.name != *name)
}

fn standing<'p>(policy: &'p Policy, rules: &[usize], host: &HostName) -> Standing<'p> {
    policy.hosts.get(host).map(|host| Standing::of(policy, rules, host)).unwrap_or_default()
}

fn named_accounts(rule: &Rule) -> impl Iterator<Item = &Account> {
    let accounts = match &rule.accounts {
        Among::All => None,
        Among::Only(accounts) => Some(accounts),
    };
    accounts.into_iter().flatten()
}

/// For policies too big for [`access`]: which rules differ. Whether that is more or less is not decided, so it counts as more.
fn by_rule(old: &Policy, new: &Policy, changes: &mut Changes) {
    let rules = |policy: &'_ Policy| -> BTreeMap<RuleName, usize> {
        policy.rules.iter().enumerate().map(|(n, rule)| (rule.name.clone(), n)).collect()
    };
    let (before, after) = (rules(old), rules(new));
    let text = "too many people and hosts to compare one by one; these are the rules that differ";
    changes.gain(text.to_owned());
    let mut order = (Vec::new(), Vec::new());
    for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
        match (before.get(name).and_then(|n| old.rules.get(*n)), after.get(name).and_then(|n| new.rules.get(*n))) {
            (Some(was), Some(is)) if was != is => changes.gain(format!("rule \"{name}\" changes")),
            (Some(_), None) => changes.gain(format!("rule \"{name}\" is removed")),
            (None, Some(_)) => changes.gain(format!("rule \"{name}\" is new")),
            (Some(_) | None, Some(_) | None) => {
                order.0.push((before.get(name), name));
                order.1.push((after.get(name), name));
            }
        }
    }
    order.0.sort();
    order.1.sort();
    if order.0.iter().map(|(_, name)| name).ne(order.1.iter().map(|(_, name)| name)) {
        changes.gain("rules stand in another order".to_owned());
    }
}

fn people(old: &Policy, new: &Policy, changes: &mut Changes) {
    let nobody = |name: &PersonName| Person { name: name.clone(), groups: BTreeSet::new(), keys: Vec::new() };
    let names: BTreeSet<&PersonName> = [old, new].iter().flat_map(|p| p.directory.people()).map(|p| &p.name).collect();
    for name in names {
        let (was, is) = (old.directory.person(name), new.directory.person(name));
        match (was, is) {
            (None, Some(_)) => changes.gain(format!("{name} is new in the directory")),
            (Some(_), None) => changes.lose(format!("{name} is no longer in the directory")),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let was = was.cloned().unwrap_or_else(|| nobody(name));
        let is = is.cloned().unwrap_or_else(|| nobody(name));
        is.groups.difference(&was.groups).for_each(|group| changes.gain(format!("{name} joins group {group}")));
        was.groups.difference(&is.groups).for_each(|group| changes.lose(format!("{name} leaves group {group}")));
        for key in is.keys.iter().filter(|key| !was.keys.contains(key)) {
            changes.gain(format!("{name} may log in with {}", key.fingerprint()));
        }
        for key in was.keys.iter().filter(|key| !is.keys.contains(key)) {
            changes.lose(format!("{name} may no longer log in with {}", key.fingerprint()));
        }
    }
}

fn hosts(old: &Policy, new: &Policy, changes: &mut Changes) {
    let tags = |host: &Host| listed_up_to(HOSTS_MAX, host.tags.iter().map(|(key, value)| format!("{key}={value}")));
    for host in new.hosts() {
        let Some(was) = old.hosts.get(&host.name) else {
            changes.note(format!("host {} is new", host.name));
            continue;
        };
        if was.tags != host.tags {
            changes.note(format!("host {} has other tags: was {}; becomes {}", host.name, tags(was), tags(host)));
        }
        match (was.scope, host.scope) {
            (Scope::Host, Scope::Account) => {
                let wider = "takes plain account names now, like every other host of that scope";
                changes.gain(format!("host {} {wider}", host.name));
            }
            (Scope::Account, Scope::Host) => {
                changes.gain(format!("host {} takes account@host now: {FREED}", host.name));
            }
            (Scope::Host, Scope::Host) | (Scope::Account, Scope::Account) => {}
        }
    }
    for host in old.hosts().filter(|host| !new.hosts.contains_key(&host.name)) {
        match host.scope {
            Scope::Host => changes.note(format!("host {} is gone", host.name)),
            Scope::Account => changes.gain(format!("host {} is gone: {FREED}", host.name)),
        }
    }
}

/// Hosts that trust another CA's keys from now on: those of the file, and by their tags those that have enrolled.
fn cas(old: &Policy, new: &Policy, changes: &mut Changes) {
    let lines = |policy: &Policy| -> Vec<String> {
        policy.cas.iter().map(|rule| format!("hosts with {} are of CA {}", rule.tag, rule.ca)).collect()
    };
    let (before, after) = (lines(old), lines(new));
    after.iter().filter(|line| !before.contains(line)).for_each(|line| changes.note(format!("new: {line}")));
    before.iter().filter(|line| !after.contains(line)).for_each(|line| changes.note(format!("no longer: {line}")));
    let kept = |lines: &[String], others: &[String]| -> Vec<String> {
        lines.iter().filter(|line| others.contains(line)).cloned().collect()
    };
    if kept(&before, &after) != kept(&after, &before) {
        changes.note("tags are looked at in another order for the CA of a host".to_owned());
    }
    let mut moved: BTreeMap<(CaName, CaName), Vec<&HostName>> = BTreeMap::new();
    for host in new.hosts() {
        let Some(was) = old.hosts.get(&host.name) else { continue };
        let (was, is) = (old.ca_of(was), new.ca_of(host));
        if was != is {
            moved.entry((was, is)).or_default().push(&host.name);
        }
    }
    for ((was, is), hosts) in moved {
        let hosts = listed_up_to(HOSTS_MAX, &hosts);
        changes.note(format!("CA {is} instead of {was} for {hosts}"));
    }
}

fn defaults(old: &Policy, new: &Policy, changes: &mut Changes) {
    let (was, is) = (&old.defaults, &new.defaults);
    for (what, was, is) in [("backdate", was.backdate, is.backdate), ("decide_by", was.decide_by, is.decide_by)] {
        if was != is {
            changes.add(is > was, format!("{what} becomes {is}, was {was}"));
        }
    }
}
