//! Policy files through the library and the command line: what is accepted, what is refused and how, and what verdicts
//! follow.
//!
//! `tests/policy_cases/` holds the cases: each `NAME.toml` is a policy whose own tests must pass, or, as `bad-*.toml`, one with
//! mistakes. Beside it `NAME.txt` holds every sentence that comes out, as a reader would see it; set
//! `HALLPASS_UPDATE_GOLDEN=1` to write them anew, and review the difference.

mod bad;
mod command;
mod diff;
mod properties;
mod quorum;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use hallpass::name::{Account, HostName, PersonName};
use hallpass::policy::{Outcome, Policy, Question, Verdict};
use hallpass::time::{Lifetime, Timestamp};

/// Everything that is in the folder of cases and ends in `.toml`, by name.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy_cases");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    cases.sort();
    cases
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Compares with the golden file beside `case`, or writes it when asked to.
fn check_golden(case: &Path, text: &str) {
    let golden = case.with_extension("txt");
    if std::env::var_os("HALLPASS_UPDATE_GOLDEN").is_some() {
        hallpass::durable::replace(&golden, text.as_bytes(), 0o644).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    let different = expected.lines().zip(text.lines()).find(|(expected, came)| expected != came);
    assert!(expected == text, "{}: first difference {different:?}; all of it:\n{text}", golden.display());
}

/// A verdict without its trace, as people would be told.
fn told(verdict: &Verdict) -> String {
    match &verdict.outcome {
        Outcome::Allow(terms) => format!("  allow {terms}\n{}", told_terms(terms)),
        Outcome::Ask(terms, quorum) => format!("  ask {terms}\n  {quorum}\n{}", told_terms(terms)),
        Outcome::Refuse(refused) => {
            refused.iter().map(|refused| format!("  refuse {:?}: {}\n", refused.kind, refused.why)).collect()
        }
    }
}

fn told_terms(terms: &hallpass::policy::Terms) -> String {
    let principals: Vec<&str> = terms.hosts.values().map(hallpass::name::Principal::as_str).collect();
    let permits: Vec<&str> = terms.options.permits.iter().map(|permit| permit.key()).collect();
    let mut text = format!("  up to {}, principals {principals:?}, permits {permits:?}", terms.lifetime_max);
    if !terms.options.source_addresses.is_empty() {
        let sources: Vec<String> = terms.options.source_addresses.iter().map(ToString::to_string).collect();
        write!(text, ", from {sources:?}").unwrap();
    }
    if let Some(command) = &terms.options.force_command {
        write!(text, ", only {:?}", command.as_str()).unwrap();
    }
    if terms.options.verify_required {
        text.push_str(", verified");
    }
    if let Some(ca) = terms.ca.named() {
        write!(text, ", by CA {ca}").unwrap();
    }
    text.push('\n');
    text
}

#[test]
fn each_good_case_passes_its_own_tests_and_says_what_it_said() {
    let cases: Vec<PathBuf> = cases().into_iter().filter(|path| !name_of(path).starts_with("bad-")).collect();
    assert!(cases.len() >= 5, "the cases are missing");
    for case in cases {
        let policy = Policy::parse(&std::fs::read_to_string(&case).unwrap(), &name_of(&case))
            .unwrap_or_else(|problems| panic!("{}: {problems:#?}", case.display()));
        for tested in policy.run_tests() {
            assert_eq!(tested.failure, None, "{}: {}", tested.place, tested.name);
        }
        let mut text = String::new();
        for test in policy.tests() {
            write!(text, "{}\n{}\n", test.name(), told(&policy.evaluate(test.question()))).unwrap();
        }
        check_golden(&case, &text);
    }
}

#[test]
fn each_bad_case_is_refused_with_every_problem_and_its_place() {
    let cases: Vec<PathBuf> = cases().into_iter().filter(|path| name_of(path).starts_with("bad-")).collect();
    assert!(cases.len() >= 5, "the cases are missing");
    for case in cases {
        let text = std::fs::read_to_string(&case).unwrap();
        let problems = Policy::parse(&text, &name_of(&case)).unwrap_err();
        let told: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        check_golden(&case, &told);
    }
}

#[test]
fn a_policy_has_unknown_hosts_and_too_many_hosts_refused() {
    let policy = small();
    let mut question = question("alice", "web-9", "deploy");
    assert_eq!(told(&policy.evaluate(&question)), "  refuse Unknown: host \"web-9\" is not known\n");
    question.hosts = (0..17).map(|n| HostName::parse(&format!("web-{n}")).unwrap()).collect();
    assert_eq!(told(&policy.evaluate(&question)), "  refuse Unknown: a request is for 1 to 16 hosts, not 17\n");
    question.hosts.clear();
    assert_eq!(told(&policy.evaluate(&question)), "  refuse Unknown: a request is for 1 to 16 hosts, not 0\n");
}

#[test]
fn an_extension_counts_what_was_held_before() {
    let policy = small();
    let extended = |held: &str, more: &str| {
        let mut question = question("alice", "web-1", "deploy");
        question.held = Lifetime::parse(held).unwrap();
        question.lifetime = Some(Lifetime::parse(more).unwrap());
        told(&policy.evaluate(&question))
    };
    assert!(extended("3h", "1h").starts_with("  ask deploy on web-1 for 1h (rule \"web\")"));
    assert_eq!(
        extended("3h30m", "31m"),
        "  refuse Window: rule \"web\" allows 4h in total, and 3h30m is used: at most 30m more, not 31m\n"
    );
    assert_eq!(extended("1h", "61m"), "  refuse Window: 1h1m is longer than the 1h that rule \"web\" allows\n");
    assert_eq!(extended("4h", "1s"), "  refuse Window: rule \"web\" allows 4h in total, and 4h is used\n");
    assert_eq!(extended("1h", "0s"), "  refuse Window: access must last at least 1s\n");
    let mut question = question("alice", "web-1", "deploy");
    question.held = Lifetime::parse("3h50m").unwrap();
    let Outcome::Ask(terms, _) = policy.evaluate(&question).outcome else { panic!("it must be asked for") };
    assert_eq!((terms.lifetime.to_string(), terms.lifetime_max.to_string()), ("10m".to_owned(), "10m".to_owned()));
}

#[test]
fn a_refusal_names_no_rule_about_other_people() {
    let why = told(&small().evaluate(&question("alice", "db-1", "postgres")));
    assert!(why.contains("no rule lets alice ask for postgres on db-1"), "{why}");
    assert!(!why.contains("\"db\"") && !why.contains("sre"), "{why}");
    let why = told(&small().evaluate(&question("mallory", "web-1", "deploy")));
    assert!(why.contains("nobody of this name is in the directory") && !why.contains("\"web\""), "{why}");
}

#[test]
fn an_explanation_has_every_rule_with_each_condition() {
    let verdict = small().explain(&question("alice", "web-1", "root"));
    let [trace] = verdict.trace.as_slice() else { panic!("one host was asked for") };
    let clauses: Vec<(&str, bool, Vec<&str>)> = trace
        .rules
        .iter()
        .map(|rule| (rule.rule.as_str(), rule.matched, rule.clauses.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        clauses,
        [
            (
                "web",
                false,
                vec![
                    "who: group:backend includes alice",
                    "hosts: web-* includes web-1",
                    "accounts: root is none of deploy"
                ]
            ),
            (
                "db",
                false,
                vec![
                    "who: alice is none of group:sre",
                    "hosts: web-1 is none of db-1",
                    "accounts: root is none of postgres"
                ]
            ),
            ("no-root", true, vec!["who: everybody", "hosts: all", "accounts: root is listed", "refuses: use sudo"]),
        ]
    );
}

const SMALL: &str = r#"
version = 1
[roles]
operator = ["person:carol"]
[[person]]
name = "alice"
groups = ["backend"]
[[person]]
name = "bob"
groups = ["sre"]
[[person]]
name = "carol"
keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILasL2VM7oM2X06aM/W6FRWxOU6To1xFU83M5hUw+sIl carol@laptop"]
[[host]]
name = "web-1"
tags = { role = "web" }
[[host]]
name = "db-1"
tags = { role = "db" }
[[rule]]
name = "web"
who = ["group:backend"]
hosts = ["web-*"]
accounts = ["deploy"]
approval = [{ need = 1, from = ["group:sre"] }]
[[rule]]
name = "db"
who = ["group:sre"]
hosts = ["db-1"]
accounts = ["postgres"]
[[rule]]
name = "no-root"
effect = "refuse"
accounts = ["root"]
message = "use sudo"
"#;

fn small() -> Policy {
    Policy::parse(SMALL, "policy.toml").unwrap()
}

fn question(person: &str, host: &str, account: &str) -> Question {
    Question {
        person: PersonName::parse(person).unwrap(),
        hosts: BTreeSet::from([HostName::parse(host).unwrap()]),
        account: Account::parse(account).unwrap(),
        lifetime: None,
        held: Lifetime::ZERO,
        start: None,
        reason: "look at the logs".to_owned(),
        ticket: None,
        at: Timestamp::parse("2026-01-05T10:00:00Z").unwrap(),
    }
}
