//! `[[rule]]`: what a grant may say, what a refusal may say, and what only one of them may.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::people::{People, WHO_MAX};
use super::{Once, span};
use crate::document::{Found, Table, quoted};
use crate::name::{Account, RuleName};
use crate::policy::quorum::{Need, Who};
use crate::policy::rule::{Among, Defaults, Effect, Grant, HostPattern, Rule, Ticket};
use crate::policy::when::{Day, Hours, When};
use crate::ssh::cert::{Extension, ForceCommand, Options};

/// The most host patterns, accounts and source networks of a rule. Our choice.
const HOSTS_MAX: usize = 1_000;
const ACCOUNTS_MAX: usize = 100;
const SOURCES_MAX: usize = 32;

/// The most approval entries of a rule, and people needed of one. Our choice.
const APPROVALS_MAX: usize = 8;
const NEED_MAX: u64 = 10;

/// The longest demand on a reason, in characters, and what is demanded where a rule does not say.
const REASON_CHARS_MAX: u64 = 500;
const REASON_CHARS_DEFAULT: usize = 1;

/// The longest message of a refusing rule, in characters. Our choice; it is shown on a terminal.
const MESSAGE_CHARS_MAX: usize = 300;

pub(super) fn rule(
    table: &Table<'_>,
    defaults: &Defaults,
    people: &People,
    names: &mut Once<RuleName>,
) -> Option<Rule> {
    let name = table.needed("name", table.parsed("name", RuleName::parse), "name = \"prod-web-debug\"");
    if let Some(name) = &name {
        names.check(table.sheet(), name);
    }
    let is_refusal = table.parsed("effect", |text| match text {
        "grant" => Ok(false),
        "refuse" => Ok(true),
        other => Err(format!("{} is not an effect: \"grant\" or \"refuse\"", quoted(other))),
    });
    // With an effect that is neither, nothing is called missing, and a message tells which keys make sense.
    let is_unclear = is_refusal.is_none() && table.has("effect");
    let is_refusal = is_refusal.map_or(is_unclear && table.has("message"), |found| found.value);
    let may_lack = is_refusal || is_unclear;
    let who = table.list("who", WHO_MAX, Who::parse);
    if let Some(who) = &who {
        people.check_persons(table.sheet(), &who.value);
    }
    let who = among(table, "who", who, may_lack, "who = [\"group:backend\"]");
    let hosts = table.list("hosts", HOSTS_MAX, HostPattern::parse);
    let hosts = among(table, "hosts", hosts, may_lack, "hosts = [\"tag:role=web\"]");
    let accounts = table.list("accounts", ACCOUNTS_MAX, Account::parse);
    let accounts = among(table, "accounts", accounts, may_lack, "accounts = [\"deploy\"]");
    let when = when(table);
    table.refuse("emergency", "not supported yet: break-glass comes with a later release; remove this key");
    let effect = if is_refusal { refusal(table) } else { Some(grant(table, defaults, people)) };
    Some(Rule { name: name?.value, who: set(who?), hosts: hosts?, accounts: set(accounts?), when, effect: effect? })
}

/// A condition that a refusal may leave out, which means all, and a grant may not.
fn among<T>(
    table: &Table<'_>,
    key: &'static str,
    list: Option<Found<Vec<Found<T>>>>,
    may_lack: bool,
    example: &str,
) -> Option<Among<Vec<T>>> {
    if may_lack && !table.has(key) {
        return Some(Among::All);
    }
    let list = if may_lack { list } else { table.needed(key, list, example) }?;
    if list.value.is_empty() {
        let hint = if may_lack { "; leave the key out to mean all" } else { "" };
        table.sheet().problem(&list.spot, format!("an empty list matches nothing{hint}"));
    }
    Some(Among::Only(list.value.into_iter().map(|found| found.value).collect()))
}

fn set<T: Ord>(list: Among<Vec<T>>) -> Among<BTreeSet<T>> {
    match list {
        Among::All => Among::All,
        Among::Only(list) => Among::Only(list.into_iter().collect()),
    }
}

fn refusal(table: &Table<'_>) -> Option<Effect> {
    for key in ["window", "sources", "reason", "approval", "permit", "command", "verify_required"] {
        table.refuse(key, "a rule that refuses gives nothing, so this makes no sense in it; remove the key");
    }
    let message = table.parsed("message", |text| {
        let chars = text.trim().chars().count();
        match chars {
            0 => Err("the message is empty; say what to do instead".to_owned()),
            1..=MESSAGE_CHARS_MAX => Ok(text.trim().to_owned()),
            _ => Err(format!("a message of {chars} characters is too long; it takes {MESSAGE_CHARS_MAX}")),
        }
    });
    let message = table.needed("message", message, "message = \"what to do instead\"")?.value;
    Some(Effect::Refuse { message })
}

fn grant(table: &Table<'_>, defaults: &Defaults, people: &People) -> Effect {
    table.refuse("message", "only a rule with effect = \"refuse\" has a message; remove the key");
    let (reason_chars_min, ticket) = reason(table);
    Effect::Grant(Box::new(Grant {
        window: span(table, defaults.window),
        reason_chars_min,
        ticket,
        approval: approval(table, defaults, people),
        options: options(table),
    }))
}

fn reason(table: &Table<'_>) -> (usize, Option<Ticket>) {
    let Some(reason) = table.table("reason") else { return (REASON_CHARS_DEFAULT, None) };
    let chars = reason.integer("min_length", 0..=REASON_CHARS_MAX).and_then(|found| usize::try_from(found.value).ok());
    let ticket = reason.parsed("ticket", Ticket::parse).map(|found| found.value);
    (chars.unwrap_or(REASON_CHARS_DEFAULT), ticket)
}

fn approval(table: &Table<'_>, defaults: &Defaults, people: &People) -> Vec<Need> {
    let mut needs = Vec::new();
    for entry in table.tables("approval", APPROVALS_MAX) {
        let sheet = entry.sheet();
        let need = entry.needed("need", entry.integer("need", 1..=NEED_MAX), "need = 1");
        let from = entry.needed("from", entry.list("from", WHO_MAX, Who::parse), "from = [\"group:sre\"]");
        let signed = entry.flag("signed").map_or(defaults.signed, |found| found.value);
        let (Some(need), Some(from)) = (need, from) else { continue };
        people.check_persons(sheet, &from.value);
        let are_there = people.check_groups(sheet, &from.value, "this could never be approved by it");
        let spot = from.spot.clone();
        let from: BTreeSet<Who> = from.value.into_iter().map(|found| found.value).collect();
        let need = Need { need: u8::try_from(need.value).unwrap_or(u8::MAX), from, signed };
        if are_there && !people.could_meet(std::slice::from_ref(&need)) {
            sheet.problem(&spot, format!("{need} can't be: not that many people are meant"));
        }
        needs.push(need);
    }
    let each_can = needs.iter().all(|need| people.could_meet(std::slice::from_ref(need)));
    if each_can && !people.could_meet(&needs) {
        let problem = "these entries together need more people than they mean: each approver counts for one entry only";
        table.sheet().problem(table.spot(), format!("approval: {problem}"));
    }
    needs
}

fn options(table: &Table<'_>) -> Options {
    let sources = table.list("sources", SOURCES_MAX, network);
    let force_command = table.parsed("command", ForceCommand::parse);
    let verify_required = table.flag("verify_required");
    let permit = table.table("permit");
    let mut permits = BTreeSet::new();
    for extension in Extension::ALL {
        let said = permit.as_ref().and_then(|permit| permit.flag(extension.key()));
        if said.map_or(extension == Extension::Pty, |found| found.value) {
            permits.insert(extension);
        }
    }
    Options {
        force_command: force_command.map(|found| found.value),
        source_addresses: sources.iter().flat_map(|found| &found.value).map(|found| found.value).collect(),
        verify_required: verify_required.is_some_and(|found| found.value),
        permits,
    }
}

/// Parses `10.0.0.0/8` or one address. A network with host bits is refused: sshd refuses the whole certificate for it.
fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let wrong = |_| format!("{} is not a network such as 10.0.0.0/8 or 2001:db8::/32, nor an address", quoted(text));
    let network: IpNet = text.parse().map_err(wrong)?;
    if let IpNet::V6(mapped) = network
        && mapped.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!("{text:?} is an IPv4 network in IPv6 form, which sshd never matches; write it as IPv4"));
    }
    if network.trunc() == network {
        Ok(network)
    } else {
        Err(format!("{text:?} is an address inside a network; write the network {:?}", network.trunc().to_string()))
    }
}

fn when(table: &Table<'_>) -> Option<When> {
    let when = table.table("when")?;
    let days = if when.is_list("days") {
        let spans = when.list("days", 7, Day::parse_span);
        spans.map(|found| found.value.into_iter().flat_map(|found| found.value).collect())
    } else {
        when.parsed("days", Day::parse_span).map(|found| found.value.into_iter().collect())
    };
    let hours = when.parsed("hours", Hours::parse);
    let zone = when.needed("zone", when.parsed("zone", zone), "zone = \"Europe/Berlin\"");
    if !when.has("days") && !when.has("hours") {
        when.sheet().problem(when.spot(), "say when: days = \"mon-fri\", hours = \"08:00-20:00\", or both");
    }
    let text: Vec<String> = ["days", "hours", "zone"].into_iter().filter_map(|key| when.shown(key)).collect();
    Some(When::new(days.unwrap_or_else(Day::all), hours.map(|found| found.value), zone?.value, text.join(" ")))
}

/// An IANA time zone, from the table that is compiled in: the same on every machine.
fn zone(text: &str) -> Result<TimeZone, String> {
    let wrong = |_| format!("{} is not a time zone of the IANA table, such as Europe/Berlin or UTC", quoted(text));
    TimeZoneDatabase::bundled().get(text).map_err(wrong)
}
