//! From the policy file's text to [`Policy`], with every problem at once.
//!
//! What for: the format of `policy.toml` (`DESIGN.md` section 5), documented key by key in `policy.toml.example`.
//!
//! Invariants: what is not understood is refused; a policy that nobody could operate, a rule that could never be
//! approved, and a name that means nobody are refused, because each is a lock-out or a hole that looks like a rule.
//!
//! Decisions:
//! - *Why may `who` name a group without members, but `approval` not?* A rule for a team that is still empty does no
//!   harm; a request that nobody may approve costs somebody an outage. `warn` tells of the former: it may be a slip.
//! - *Why is there no default for `who`, `hosts` and `accounts` of a grant?* Whom a rule lets in must be written down.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod people;
mod rule;
mod test;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use self::people::People;
use super::cas::CaRule;
use super::index::Index;
use super::rule::{Defaults, Rule, Span};
use super::{Host, Hosts, Policy, Scope};
use crate::document::{self, Found, Problem, Sheet, Spot, Table, nearest};
use crate::name::{CaName, HostName, Tag, TagKey, TagValue};
use crate::time::Lifetime;

/// The longest policy file: 8 MiB. Our choice: 10,000 rules, 10,000 hosts and 1,000 people need about 4.
pub const TEXT_BYTES_MAX: usize = 8 << 20;

/// The most rules, hosts, people and tests. Our choice; beyond them a verdict's cost has not been measured.
const RULES_MAX: usize = 10_000;
const HOSTS_MAX: usize = 100_000;
const TESTS_MAX: usize = 10_000;

/// The most tags of a host. Our choice.
const TAGS_MAX: usize = 64;

/// The most tags that say of which CA a host is. Our choice: an order that people can still follow.
const CA_RULES_MAX: usize = 64;

/// The longest total of a request with its extensions: 30 days. Our choice; longer is not just in time.
const LIFETIME_MAX: Lifetime = Lifetime::minutes(30 * 24 * 60);

/// The longest backdating: 10 minutes. Our choice; a host clock further behind needs mending, not waiting for.
const BACKDATE_MAX: Lifetime = Lifetime::minutes(10);

/// The longest time a request may wait for decisions: 7 days. Our choice.
const DECIDE_BY_MAX: Lifetime = Lifetime::minutes(7 * 24 * 60);

/// What holds where `[defaults]` says nothing (`DESIGN.md` section 5).
fn built_in() -> Defaults {
    let window = Span { default: Lifetime::minutes(30), max: Lifetime::minutes(60), total: Lifetime::minutes(240) };
    Defaults { backdate: seconds(30), window, decide_by: Lifetime::minutes(30), signed: false }
}

fn seconds(seconds: u32) -> Lifetime {
    Lifetime::from_seconds(seconds).unwrap_or(Lifetime::ZERO)
}

pub(super) fn parse(text: &str, file: &str) -> Result<Policy, Vec<Problem>> {
    document::read(text, file, TEXT_BYTES_MAX, |root| policy(root, text))
}

/// Everything is read before anything is given up, so that every problem is found.
fn policy(root: &Table<'_>, text: &str) -> Option<Policy> {
    let version = root.needed("version", root.integer("version", 1..=1), "version = 1");
    let defaults = defaults(root);
    let people = People::read(root);
    let roles = people::roles(root, &people);
    let (hosts, cas) = (hosts(root), cas(root));
    let mut names = Once::new("rule");
    let tables = root.tables("rule", RULES_MAX);
    let rules: Vec<Rule> =
        tables.iter().filter_map(|table| rule::rule(table, &defaults, &people, &mut names)).collect();
    drop(tables);
    let known = test::Known { people: &people, hosts: &hosts, rules: &names.seen };
    let tests = root.tables("test", TESTS_MAX).iter().filter_map(|table| test::case(table, &known)).collect();
    version?;
    let people::Roles { operators, auditors, ca_operators } = roles?;
    let index = Arc::new(Index::new(&rules));
    let directory = Arc::new(people.into_directory());
    Some(Policy {
        text: text.into(),
        defaults,
        directory,
        operators,
        auditors,
        ca_operators,
        cas,
        hosts,
        rules: rules.into(),
        index,
        tests,
    })
}

fn defaults(root: &Table<'_>) -> Defaults {
    let built_in = built_in();
    let Some(table) = root.table("defaults") else { return built_in };
    let backdate = table.duration("backdate", Lifetime::ZERO..=BACKDATE_MAX);
    let decide_by = table.duration("decide_by", seconds(1)..=DECIDE_BY_MAX);
    let signed = table.parsed("signed_approvals", |text| match text {
        "required" => Ok(true),
        "accepted" => Ok(false),
        other => Err(format!("{} is neither \"required\" nor \"accepted\"", document::quoted(other))),
    });
    Defaults {
        backdate: backdate.map_or(built_in.backdate, |found| found.value),
        window: span(&table, built_in.window),
        decide_by: decide_by.map_or(built_in.decide_by, |found| found.value),
        signed: signed.map_or(built_in.signed, |found| found.value),
    }
}

/// The `window` of `parent`; what it does not say comes from `base`. A shorter `max` shortens the default with it; a
/// longer one does not silently raise the total.
fn span(parent: &Table<'_>, base: Span) -> Span {
    let Some(table) = parent.table("window") else { return base };
    let given = |key| table.duration(key, seconds(1)..=LIFETIME_MAX);
    let (default, max, total) = (given("default"), given("max"), given("total"));
    let most = max.as_ref().map_or(base.max, |found| found.value);
    let span = Span {
        default: default.as_ref().map_or(base.default.min(most), |found| found.value),
        max: most,
        total: total.as_ref().map_or(base.total, |found| found.value),
    };
    if span.default > span.max {
        let spot = default.as_ref().map_or(table.spot(), |found| &found.spot);
        let problem = format!("the default {} is longer than max, which is {}", span.default, span.max);
        table.sheet().problem(spot, problem);
    }
    if span.max > span.total {
        let spot = max.as_ref().or(total.as_ref()).map_or(table.spot(), |found| &found.spot);
        let problem = format!("max {} is longer than total, which is {}; set total as well", span.max, span.total);
        table.sheet().problem(spot, problem);
    }
    span
}

fn hosts(root: &Table<'_>) -> Hosts {
    let (mut hosts, mut names) = (Hosts::new_sync(), Once::new("host"));
    for table in root.tables("host", HOSTS_MAX) {
        let name = table.needed("name", table.parsed("name", HostName::parse), "name = \"web-1\"");
        let tags = table.pairs("tags", TAGS_MAX, TagKey::parse, TagValue::parse);
        let scope = table.parsed("scope", |text| match text {
            "host" => Ok(Scope::Host),
            "account" => Ok(Scope::Account),
            other => Err(format!("{} is not a scope: \"host\" or \"account\"", document::quoted(other))),
        });
        let Some(name) = name else { continue };
        names.check(table.sheet(), &name);
        let tags = tags.unwrap_or_default().into_iter().collect();
        let scope = scope.map_or(Scope::Host, |found| found.value);
        hosts.insert_mut(name.value.clone(), Arc::new(Host { name: name.value, tags, scope }));
    }
    hosts
}

/// `[[ca]]`: which tag makes a host one of which CA. One tag twice would leave open which of them is meant.
fn cas(root: &Table<'_>) -> Vec<CaRule> {
    let (mut rules, mut tags) = (Vec::new(), Once::new("ca"));
    for table in root.tables("ca", CA_RULES_MAX) {
        let tag = table.needed("tag", table.parsed("tag", Tag::parse), "tag = \"env=prod\"");
        let ca = table.needed(
            "name",
            table.parsed("name", CaName::parse),
            "name = \"prod\", a [ca.named.prod] of the service",
        );
        let Some((tag, ca)) = tag.zip(ca) else { continue };
        tags.check(table.sheet(), &tag);
        rules.push(CaRule { tag: tag.value, ca: ca.value });
    }
    rules
}

/// Names that may be there only once.
struct Once<T> {
    kind: &'static str,
    seen: BTreeMap<T, Spot>,
}

impl<T: Ord + Clone> Once<T> {
    const fn new(kind: &'static str) -> Self {
        Self { kind, seen: BTreeMap::new() }
    }

    fn check(&mut self, sheet: &Sheet<'_>, name: &Found<T>) {
        match self.seen.get(&name.value) {
            Some(first) => {
                let what = format!("another {} has this name already, at {}", self.kind, sheet.shown_place(first));
                sheet.problem(&name.spot, what);
            }
            None => drop(self.seen.insert(name.value.clone(), name.spot.clone())),
        }
    }
}

/// `no host "web-l" is in this policy; did you mean "web-1"?`
fn no_such<'k>(kind: &str, name: &impl fmt::Display, known: impl IntoIterator<Item = &'k str>) -> String {
    let name = name.to_string();
    let hint = nearest(&name, known).map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
    format!("no {kind} {name:?} is in this policy{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../policy.toml.example");

    /// Whether some table at `path` (with `[]` for each index) has its last key.
    fn has(table: &Table<'_>, path: &str) -> bool {
        // Keys are 'static so that nobody makes them up at run time; a test may.
        let leak = |key: &str| -> &'static str { Box::leak(key.to_owned().into_boxed_str()) };
        let Some((first, rest)) = path.split_once('.') else { return table.has(leak(path)) };
        match first.strip_suffix("[]") {
            Some(list) => table.tables(leak(list), usize::MAX).iter().any(|table| has(table, rest)),
            None => table.table(leak(first)).is_some_and(|table| has(&table, rest)),
        }
    }

    #[test]
    fn every_key_that_is_known_stands_in_the_example() {
        let name = "policy.toml.example";
        let known = document::read(EXAMPLE, name, TEXT_BYTES_MAX, |root| {
            policy(root, EXAMPLE).map(|_| root.sheet().keys.borrow().clone())
        });
        let known = known.unwrap();
        let unset = ["rule[].emergency"];
        let mut missing = Vec::new();
        // The result is all unknown keys; only what was looked for counts.
        let _unknown = document::read(EXAMPLE, name, TEXT_BYTES_MAX, |root| {
            missing.extend(known.iter().filter(|key| !unset.contains(&key.as_str()) && !has(root, key)));
            Some(())
        });
        assert_eq!(missing, Vec::<&String>::new());
        assert!(known.len() > 50, "{known:?}");
    }

    #[test]
    fn the_example_passes_its_own_tests() {
        let policy = parse(EXAMPLE, "policy.toml.example").unwrap();
        let results = policy.run_tests();
        assert_eq!(results.len(), 4);
        for result in results {
            assert_eq!(result.failure, None, "{}", result.name);
        }
    }

    #[test]
    fn what_the_example_calls_a_default_is_the_default() {
        let bare = EXAMPLE
            .replace("backdate = \"30s\"\n", "")
            .replace("window = { default = \"30m\", max = \"1h\", total = \"4h\" }\n", "")
            .replace("decide_by = \"30m\"\n", "")
            .replace("signed_approvals = \"accepted\"\n", "")
            .replace(", signed = false", "")
            .replace("scope = \"host\"\n", "")
            .replace("effect = \"grant\"\n", "")
            .replace("permit = { pty = true, port_forwarding = false, agent_forwarding = false, x11_forwarding = false, user_rc = false }\n", "")
            .replace("verify_required = false\n", "");
        assert!(bare.len() + 250 < EXAMPLE.len());
        let (bare, full) = (parse(&bare, "x").unwrap(), parse(EXAMPLE, "x").unwrap());
        assert_eq!(super::super::diff::diff(&full, &bare), Vec::new());
        assert_eq!(bare.defaults, full.defaults);
        assert_eq!(bare.hosts, full.hosts);
        assert_eq!(bare.rules, full.rules);
    }
}
