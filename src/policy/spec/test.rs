//! `[[test]]`: questions with the answers that the policy's owner expects.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::people::People;
use super::{no_such, seconds};
use crate::document::{Found, Spot, Table, quoted};
use crate::name::{Account, HostName, PersonName, RuleName};
use crate::policy::test::{Case, Expected};
use crate::policy::{HOSTS_MAX, Hosts, Question};
use crate::time::{Lifetime, Timestamp};

/// The longest name of a test, in characters. Our choice.
const NAME_CHARS_MAX: usize = 200;

/// The reason that is given when a test names none. A test of the demand for a reason says `reason = ""`.
const REASON_DEFAULT: &str = "a test of the policy";

/// When a question is put if its test does not say: noon of a Monday, in UTC.
const AT_DEFAULT: &str = "2026-01-05T12:00:00Z";

/// What a test may name.
pub(super) struct Known<'p> {
    pub(super) people: &'p People,
    pub(super) hosts: &'p Hosts,
    /// The names of all rules, also of those with problems of their own.
    pub(super) rules: &'p BTreeMap<RuleName, Spot>,
}

pub(super) fn case(table: &Table<'_>, known: &Known<'_>) -> Option<Case> {
    let name = table.parsed("name", |text| match text.trim().chars().count() {
        0 => Err("a test needs a name that says what it shows".to_owned()),
        1..=NAME_CHARS_MAX => Ok(text.trim().to_owned()),
        chars => Err(format!("a name of {chars} characters is too long; it takes {NAME_CHARS_MAX}")),
    });
    let name = table.needed("name", name, "name = \"backend may debug web\"");
    let example = "ask = { person = \"…\", host = \"…\", account = \"…\" }";
    let ask = table.needed("ask", table.table("ask"), example);
    let question = ask.and_then(|ask| question(&ask, known));
    let expected = table.parsed("expect", |text| match text {
        "allow" => Ok(Expected::Allow),
        "ask" => Ok(Expected::Ask),
        "refuse" => Ok(Expected::Refuse),
        other => Err(format!("{} is not a verdict: \"allow\", \"ask\" or \"refuse\"", quoted(other))),
    });
    let expected = table.needed("expect", expected, "expect = \"refuse\"");
    let rule = table.parsed("expect_rule", RuleName::parse);
    if let Some(rule) = rule.as_ref().filter(|rule| !known.rules.contains_key(&rule.value)) {
        let problem = no_such("rule", &rule.value, known.rules.keys().map(RuleName::as_str));
        table.sheet().problem(&rule.spot, problem);
    }
    Some(Case {
        name: name?.value,
        place: table.sheet().shown_place(table.spot()),
        question: question?,
        expected: expected?.value,
        rule: rule.map(|found| found.value),
    })
}

fn question(ask: &Table<'_>, known: &Known<'_>) -> Option<Question> {
    let person = ask.needed("person", ask.parsed("person", PersonName::parse), "person = \"alice@example.com\"");
    if let Some(person) = person.as_ref().filter(|person| !known.people.has(&person.value)) {
        ask.sheet().problem(&person.spot, no_such("person", &person.value, known.people.names()));
    }
    let hosts = hosts(ask);
    for host in hosts.iter().flatten().filter(|host| !known.hosts.contains_key(&host.value)) {
        ask.sheet().problem(&host.spot, no_such("host", &host.value, known.hosts.keys().map(HostName::as_str)));
    }
    let account = ask.needed("account", ask.parsed("account", Account::parse), "account = \"deploy\"");
    let lifetime = ask.duration("for", seconds(1)..=Lifetime::minutes(366 * 24 * 60));
    let start = ask.parsed("start", Timestamp::parse);
    let at = ask.parsed("at", Timestamp::parse).map(|found| found.value);
    let reason = ask.string("reason").map_or(REASON_DEFAULT, |found| found.value);
    let ticket = ask.string("ticket").map(|found| found.value.to_owned());
    Some(Question {
        person: person?.value,
        hosts: hosts?.into_iter().map(|host| host.value).collect(),
        account: account?.value,
        lifetime: lifetime.map(|found| found.value),
        held: Lifetime::ZERO,
        start: start.map(|found| found.value),
        reason: reason.to_owned(),
        ticket,
        at: at.or_else(|| Timestamp::parse(AT_DEFAULT).ok())?,
    })
}

/// `host = "web-1"` or `hosts = ["web-1", "web-2"]`.
fn hosts(ask: &Table<'_>) -> Option<Vec<Found<HostName>>> {
    if !ask.has("hosts") {
        let host = ask.needed("host", ask.parsed("host", HostName::parse), "host = \"web-1\"")?;
        return Some(vec![host]);
    }
    ask.refuse("host", "say either host or hosts");
    let hosts = ask.list("hosts", HOSTS_MAX, HostName::parse)?;
    if hosts.value.is_empty() {
        ask.sheet().problem(&hosts.spot, "an empty list asks for nothing");
    }
    Some(hosts.value)
}
