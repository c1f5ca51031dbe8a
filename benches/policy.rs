//! What a verdict costs with 10, 1,000 and 10,000 rules, 1,000 people and 10,000 hosts (`PERFORMANCE` goal 6: at most
//! 100 µs, and flat in people and hosts), and what parsing such a policy costs.
//!
//! Run: `cargo bench --bench policy`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::panic,
    clippy::print_stdout,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect"
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use hallpass::name::{Account, HostName, PersonName};
use hallpass::policy::{Outcome, Policy, Question, RefusedKind};
use hallpass::time::{Lifetime, Timestamp};

const PASSES: usize = 31;
const PEOPLE: usize = 1_000;
const HOSTS: usize = 10_000;
const GROUPS: usize = 100;
const ACCOUNTS: usize = 5;

/// Rule `n` is for group `n % 100` (every tenth for everybody's group), for hosts of its own by name, tag or both, as account
/// `n % 5`; each second one asks. Twenty rules refuse. So a person is in four groups, with a twentieth of the rules each.
fn text(rules: usize, people: usize, hosts: usize) -> String {
    let mut text = String::from("version = 1\n[roles]\noperator = [\"person:p0\"]\n");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILasL2VM7oM2X06aM/W6FRWxOU6To1xFU83M5hUw+sIl";
    for n in 0..people {
        let groups = [n % GROUPS, (n + 33) % GROUPS, (n + 66) % GROUPS].map(|g| format!("\"g{g}\"")).join(", ");
        let keys = if n == 0 { format!("\"{key}\"") } else { String::new() };
        writeln!(text, "[[person]]\nname = \"p{n}\"\ngroups = [\"all\", {groups}]\nkeys = [{keys}]").unwrap();
    }
    for n in 0..hosts {
        let app = n % rules;
        writeln!(text, "[[host]]\nname = \"app{app}-{n}\"\ntags = {{ app = \"a{app}\", env = \"prod\" }}").unwrap();
    }
    for n in 0..rules {
        let group = if n % 10 == 9 { "all".to_owned() } else { format!("g{}", n % GROUPS) };
        let patterns =
            [format!("\"app{n}-*\""), format!("\"tag:app=a{n}\""), format!("\"app{n}-?\", \"tag:app=a{n}\"")];
        let approval = if n % 2 == 0 { "" } else { "{ need = 1, from = [\"group:g0\"] }" };
        let (hosts, account) = (&patterns[n % 3], n % ACCOUNTS);
        writeln!(text, "[[rule]]\nname = \"r{n}\"\nwho = [\"group:{group}\"]\nhosts = [{hosts}]").unwrap();
        writeln!(text, "accounts = [\"account{account}\"]\napproval = [{approval}]").unwrap();
        if n % (rules / 20).max(1) == 0 {
            writeln!(text, "[[rule]]\nname = \"no{n}\"\neffect = \"refuse\"\nmessage = \"no\"").unwrap();
            writeln!(text, "hosts = [\"tag:env=none{n}\", \"closed*\"]").unwrap();
        }
    }
    text
}

fn question(person: usize, host: &str, account: usize) -> Question {
    Question {
        person: PersonName::parse(&format!("p{person}")).unwrap(),
        hosts: BTreeSet::from([HostName::parse(host).unwrap()]),
        account: Account::parse(&format!("account{account}")).unwrap(),
        lifetime: Some(Lifetime::minutes(30)),
        held: Lifetime::ZERO,
        start: None,
        reason: "a benchmark".to_owned(),
        ticket: None,
        at: Timestamp::parse("2026-01-05T10:00:00Z").unwrap(),
    }
}

/// The last rule of this parity that is for one group, asked by somebody in it.
fn question_for(rules: usize, is_ask: bool) -> Question {
    let rule = (0..rules).rev().find(|n| n % 10 != 9 && (n % 2 == 1) == is_ask).unwrap();
    question(rule % GROUPS, &format!("app{rule}-{rule}"), rule % ACCOUNTS)
}

fn parse(rules: usize, people: usize, hosts: usize) -> Policy {
    let text = text(rules, people, hosts);
    let start = Instant::now();
    let policy = Policy::parse(&text, "bench").unwrap_or_else(|problems| panic!("{}", problems[0]));
    println!(
        "{policy_counts}: {} KiB parsed in {:.0?}",
        text.len() / 1024,
        start.elapsed(),
        policy_counts = policy.counts()
    );
    policy
}

fn measure(title: &str, policy: &Policy, rules: usize) {
    let (allow, ask) = (question_for(rules, false), question_for(rules, true));
    let none = question(7, &format!("app0-{}", 0), 3);
    assert!(matches!(policy.evaluate(&allow).outcome, Outcome::Allow(_)));
    assert!(matches!(policy.evaluate(&ask).outcome, Outcome::Ask(..)));
    assert!(matches!(&policy.evaluate(&none).outcome, Outcome::Refuse(why) if why[0].kind == RefusedKind::NoRule));
    let names = [format!("{title}, allow"), format!("{title}, ask"), format!("{title}, refuse")];
    support::compare(
        &names.each_ref().map(String::as_str),
        &mut [
            &mut || drop(black_box(policy.evaluate(black_box(&allow)))),
            &mut || drop(black_box(policy.evaluate(black_box(&ask)))),
            &mut || drop(black_box(policy.evaluate(black_box(&none)))),
        ],
        PASSES,
    );
}

fn main() {
    for rules in [10, 1_000, 10_000 - 20] {
        let policy = parse(rules, PEOPLE, HOSTS);
        measure(&format!("{} rules", policy.counts().rules), &policy, rules);
    }
    println!("\nfewer people and hosts must change nothing:");
    let policy = parse(1_000, PEOPLE / 10, HOSTS / 10);
    measure("1,020 rules, a tenth of people and hosts", &policy, 1_000);
}
