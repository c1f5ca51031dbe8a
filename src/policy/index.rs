//! Which rules can concern a person, an account and a host, without looking at all of them.
//!
//! What for: a verdict whose cost is that of the few rules about this person, account and host, not of the whole file,
//! however many people, hosts and rules there are.
//!
//! What not: no decision. The index only leaves out rules whose `who`, `accounts` or `hosts` can't match; a property test
//! compares with looking at every rule.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::Host;
use super::quorum::Who;
use super::rule::{Among, HostPattern, Rule};
use crate::identity::Person;
use crate::name::{Account, GroupName, HostName, PersonName, TagKey, TagValue};

/// Numbers of rules (from 0, in file order) by whom, for which account and for which hosts they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    everybody: ByAccount,
    groups: BTreeMap<GroupName, ByAccount>,
    people: BTreeMap<PersonName, ByAccount>,
    hosts: ByHost,
}

#[derive(Clone, Debug, Default)]
struct ByHost {
    any: Vec<usize>,
    named: BTreeMap<HostName, Vec<usize>>,
    tagged: BTreeMap<TagKey, BTreeMap<TagValue, Vec<usize>>>,
    /// By what stands before the first wildcard, by its length.
    begins: BTreeMap<usize, BTreeMap<String, Vec<usize>>>,
}

#[derive(Clone, Debug, Default)]
struct ByAccount {
    /// Each once, in file order.
    all: Vec<usize>,
    any: Vec<usize>,
    named: BTreeMap<Account, Vec<usize>>,
}

impl Index {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (number, rule) in rules.iter().enumerate() {
            index.hosts.add(number, rule);
            match &rule.who {
                Among::All => index.everybody.add(number, rule),
                Among::Only(who) => {
                    for who in who {
                        match who {
                            Who::Group(name) => index.groups.entry(name.clone()).or_default().add(number, rule),
                            Who::Person(name) => index.people.entry(name.clone()).or_default().add(number, rule),
                        }
                    }
                }
            }
        }
        index
    }

    /// The rules whose `who` includes this person and whose accounts include this one, in file order. `None`: a
    /// stranger, for whom only rules for everybody count.
    pub(super) fn for_account(&self, person: Option<&Person>, account: &Account) -> Vec<usize> {
        self.collect(person, |rules, list| {
            list.extend_from_slice(&rules.any);
            list.extend_from_slice(rules.named.get(account).map(Vec::as_slice).unwrap_or_default());
        })
    }

    /// The rules whose hosts may include this one, in file order.
    pub(super) fn for_host(&self, host: &Host) -> Vec<usize> {
        let ByHost { any, named, tagged, begins } = &self.hosts;
        let name = host.name.as_str();
        let named = named.get(&host.name);
        let tagged = host.tags.iter().filter_map(|(key, value)| tagged.get(key)?.get(value));
        let begins = begins.iter().filter_map(|(length, starts)| starts.get(name.get(..*length)?));
        let mut list = any.clone();
        list.extend(named.into_iter().chain(tagged).chain(begins).flatten());
        list.sort_unstable();
        list.dedup();
        list
    }

    /// The first `count` rules whose `who` includes this person, in file order.
    pub(super) fn for_person(&self, person: Option<&Person>, count: usize) -> Vec<usize> {
        let mut list = self.collect(person, |rules, list| list.extend(rules.all.iter().take(count)));
        list.truncate(count);
        list
    }

    fn collect(&self, person: Option<&Person>, take: impl Fn(&ByAccount, &mut Vec<usize>)) -> Vec<usize> {
        let mut list = Vec::new();
        take(&self.everybody, &mut list);
        if let Some(person) = person {
            let groups = person.groups.iter().filter_map(|name| self.groups.get(name));
            for rules in groups.chain(self.people.get(&person.name)) {
                take(rules, &mut list);
            }
        }
        list.sort_unstable();
        list.dedup();
        list
    }
}

impl ByHost {
    fn add(&mut self, number: usize, rule: &Rule) {
        let Among::Only(patterns) = &rule.hosts else { return self.any.push(number) };
        for pattern in patterns {
            let list = match pattern {
                HostPattern::Exact(name) => self.named.entry(name.clone()).or_default(),
                HostPattern::Tag(key, value) => {
                    self.tagged.entry(key.clone()).or_default().entry(value.clone()).or_default()
                }
                HostPattern::Glob(text) => {
                    let start = text.split(['*', '?']).next().unwrap_or_default();
                    self.begins.entry(start.len()).or_default().entry(start.to_owned()).or_default()
                }
            };
            list.push(number);
        }
    }
}

impl ByAccount {
    /// Numbers come in file order; one rule may name a group or person twice.
    fn add(&mut self, number: usize, rule: &Rule) {
        if self.all.last() != Some(&number) {
            self.all.push(number);
        }
        match &rule.accounts {
            Among::All => self.any.push(number),
            Among::Only(accounts) => {
                for account in accounts {
                    self.named.entry(account.clone()).or_default().push(number);
                }
            }
        }
    }
}
