//! What `hallpass policy check|test|explain|diff` say about policy files: pure of arguments and printing.
//!
//! What for: offline work on policies, for their authors and for the pipeline that guards the policy repository.
//!
//! What not: no service, no store. The verdicts are those of the same code that the service runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use crate::document::{self, Problem};
use crate::name::{Account, HostName, PersonName, Target};
use crate::policy::diff::Effect;
use crate::policy::{KnownHosts, Outcome, Policy, Question, Refused, RefusedKind, Terms, Verdict, diff};
use crate::ssh::cert::ForceCommand;
use crate::time::{Lifetime, Timestamp};

/// More than this is not read; the parser's own limit is below it.
const FILE_BYTES_MAX: usize = 16 << 20;

/// What there is to say, for people and for programs, and how it failed, if it did.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) text: String,
    pub(super) document: Value,
    pub(super) failure: Option<Failure>,
}

/// A question to a policy file.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) person: PersonName,
    pub(super) targets: Vec<Target>,
    pub(super) account: Account,
    pub(super) lifetime: Option<Lifetime>,
    pub(super) start: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) ticket: Option<String>,
    pub(super) at: Timestamp,
}

/// A file's bytes, as many as may be and one more; of `-` those of standard input.
pub(super) fn read(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    if is_standard_input(path) {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Whether it stands for standard input.
pub(super) fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A file as problems name it.
pub(super) fn label(path: &Path) -> String {
    if is_standard_input(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// The policy of a file, or its problems.
fn load(path: &Path) -> Result<Policy, Vec<Problem>> {
    let file = label(path);
    let problem = |what: String| vec![Problem { file: file.clone(), line: 1, column: 1, key: String::new(), what }];
    let bytes = read(path, FILE_BYTES_MAX).map_err(|error| problem(format!("cannot read the file: {error}")))?;
    let text = document::decode(&bytes, &file).map_err(|problem| vec![problem])?;
    Policy::parse(text, &file)
}

fn problems_json(problems: &[Problem]) -> Value {
    let one = |p: &Problem| json!({"file": p.file, "line": p.line, "column": p.column, "key": p.key, "what": p.what});
    problems.iter().map(one).collect()
}

/// The report about files that could not be read as policies.
fn bad(schema: &str, problems: &[Problem]) -> Report {
    let text = problems.iter().map(|problem| format!("{problem}\n")).collect();
    Report {
        text,
        document: json!({"schema": schema, "ok": false, "problems": problems_json(problems)}),
        failure: failed(problems, 0),
    }
}

/// The failure for so many problems and failed tests, if there are any.
fn failed(problems: &[Problem], tests: usize) -> Option<Failure> {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let what = match (problems.len(), tests) {
        (0, 0) => return None,
        (0, tests) => format!("{} of the policy failed", count(tests, "test")),
        (problems, 0) => format!("the policy has {}", count(problems, "problem")),
        (problems, tests) => format!("{} and {}", count(problems, "problem"), count(tests, "failed test")),
    };
    Some(Failure::new(Exit::Usage, "bad_policy", what))
}

/// `hallpass policy check FILE…`: whether each is a policy.
pub(super) fn check<P: AsRef<Path>>(files: &[P]) -> Report {
    let (mut text, mut good, mut all) = (String::new(), Vec::new(), Vec::new());
    for path in files {
        match load(path.as_ref()) {
            Ok(policy) => {
                let file = label(path.as_ref());
                let counts = policy.counts();
                let warnings = policy.warnings(KnownHosts::OfFile);
                say(&mut text, format_args!("{file}: a policy of {counts}"));
                warnings.iter().for_each(|what| say(&mut text, format_args!("{file}: warning: {what}")));
                good.push(json!({
                    "file": file, "people": counts.people, "hosts": counts.hosts,
                    "rules": counts.rules, "tests": counts.tests, "warnings": warnings,
                }));
            }
            Err(problems) => {
                problems.iter().for_each(|problem| say(&mut text, format_args!("{problem}")));
                all.extend(problems);
            }
        }
    }
    let is_good = all.is_empty();
    let document =
        json!({"schema": "hallpass.policy-check.v1", "ok": is_good, "policies": good, "problems": problems_json(&all)});
    Report { text, document, failure: failed(&all, 0) }
}

/// `hallpass policy test FILE…`: whether each one's `[[test]]`s go as expected.
pub(super) fn test<P: AsRef<Path>>(files: &[P]) -> Report {
    let (mut text, mut tests, mut problems, mut bad_tests) = (String::new(), Vec::new(), Vec::new(), 0_usize);
    for path in files {
        let file = path.as_ref().display().to_string();
        let policy = match load(path.as_ref()) {
            Ok(policy) => policy,
            Err(found) => {
                found.iter().for_each(|problem| say(&mut text, format_args!("{problem}")));
                problems.extend(found);
                continue;
            }
        };
        let results = policy.run_tests();
        let bad = results.iter().filter(|tested| tested.failure.is_some()).count();
        bad_tests = bad_tests.saturating_add(bad);
        for tested in &results {
            if let Some(failure) = &tested.failure {
                say(&mut text, format_args!("{}: {}: {failure}", tested.place, tested.name));
            }
            tests.push(json!({"place": tested.place, "name": tested.name, "failure": tested.failure}));
        }
        match results.len() {
            0 => say(&mut text, format_args!("{file}: no [[test]] in it")),
            all => say(&mut text, format_args!("{file}: {} of {all} tests passed", all.saturating_sub(bad))),
        }
    }
    let is_good = problems.is_empty() && bad_tests == 0;
    let document = json!({"schema": "hallpass.policy-test.v1", "ok": is_good, "failed": bad_tests, "tests": tests, "problems": problems_json(&problems)});
    Report { text, document, failure: failed(&problems, bad_tests) }
}

/// `hallpass policy diff OLD NEW`: who gains and loses what.
pub(super) fn diff(old: &Path, new: &Path) -> Report {
    let (old, new) = match (load(old), load(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            return bad(
                "hallpass.policy-diff.v1",
                &[old.err(), new.err()].into_iter().flatten().flatten().collect::<Vec<Problem>>(),
            );
        }
    };
    let changes = diff::diff(&old, &new);
    let mut text = String::new();
    for change in &changes {
        say(&mut text, format_args!("{} {}", change.effect.sign(), change.text));
    }
    if changes.is_empty() {
        say(&mut text, format_args!("nobody gains or loses anything"));
    }
    let one = |change: &diff::Change| {
        let is = |effect| change.effect == effect;
        json!({"gains": is(Effect::Gain), "loses": is(Effect::Loss), "text": change.text})
    };
    let shown: Value = changes.iter().map(one).collect();
    let warnings = new.warnings(KnownHosts::OfFile);
    warnings.iter().for_each(|what| say(&mut text, format_args!("warning: {what}")));
    let document = json!({"schema": "hallpass.policy-diff.v1", "ok": true, "changes": shown, "warnings": warnings});
    Report { text, document, failure: None }
}

/// `hallpass policy explain FILE …`: the verdict on a question, and why, rule by rule. Exits 0 for allow and ask, 5 when it
/// is refused, as `hallpass explain` and `request` do.
///
/// # Errors
/// When the question itself makes no sense.
pub(super) fn explain(file: &Path, asked: Asked) -> Result<Report, Failure> {
    let policy = match load(file) {
        Ok(policy) => policy,
        Err(problems) => return Ok(bad("hallpass.policy-explain.v1", &problems)),
    };
    let Asked { person, targets, account, lifetime, start, reason, ticket, at } = asked;
    let hosts = hosts_of(&policy, targets)?;
    let held = Lifetime::ZERO;
    let question = Question { person, hosts, account, lifetime, held, start, reason, ticket, at };
    let verdict = policy.explain(&question);
    let (word, failure) = match &verdict.outcome {
        Outcome::Allow(_) => ("allow", None),
        Outcome::Ask(..) => ("ask", None),
        Outcome::Refuse(refused) => ("refuse", Some(refusal(refused))),
    };
    let mut text = String::new();
    let (mut terms_json, mut eligible, mut refused_json) = (Value::Null, Vec::new(), Vec::new());
    let mut unmeetable = None;
    match &verdict.outcome {
        Outcome::Allow(terms) => {
            say(&mut text, format_args!("allowed at once: {terms}"));
            terms_json = show_terms(&mut text, terms);
        }
        Outcome::Ask(terms, quorum) => {
            say(&mut text, format_args!("may be asked for: {terms}"));
            terms_json = show_terms(&mut text, terms);
            let able = quorum.eligible(&question.person, policy.directory());
            eligible.extend(able.iter().map(ToString::to_string));
            say(&mut text, format_args!("  {quorum}"));
            let who = if eligible.is_empty() { "nobody".to_owned() } else { eligible.join(", ") };
            say(&mut text, format_args!("  could agree: {who}"));
            unmeetable = quorum.shortage(&question.person, policy.directory()).map(|short| short.to_string());
            unmeetable.iter().for_each(|why| say(&mut text, format_args!("  but {why}")));
        }
        Outcome::Refuse(refused) => {
            say(&mut text, format_args!("refused"));
            for refused in refused {
                say(&mut text, format_args!("  {}", refused.why));
                refused_json.push(json!({
                    "host": refused.host.as_ref().map(ToString::to_string),
                    "rule": refused.rule.as_ref().map(ToString::to_string),
                    "code": code(refused.kind), "why": refused.why,
                }));
            }
        }
    }
    show_trace(&mut text, &verdict);
    let document = json!({
        "schema": "hallpass.policy-explain.v1", "verdict": word, "terms": terms_json, "eligible": eligible,
        "unmeetable": unmeetable, "refused": refused_json,
        "hosts": trace_json(&verdict),
    });
    Ok(Report { text, document, failure })
}

/// The hosts that are meant; a tag means those that have it.
fn hosts_of(policy: &Policy, targets: Vec<Target>) -> Result<BTreeSet<HostName>, Failure> {
    let mut hosts = BTreeSet::new();
    for target in targets {
        match target {
            Target::Host(name) => drop(hosts.insert(name)),
            Target::Tag(key, value) => {
                let mut tagged = policy.hosts_with_tag(&key, &value).map(|host| host.name.clone()).peekable();
                if tagged.peek().is_none() {
                    return Err(Failure::usage(format!("no host has the tag {key}={value}")));
                }
                hosts.extend(tagged);
            }
        }
    }
    Ok(hosts)
}

fn refusal(refused: &[Refused]) -> Failure {
    let is_demand = |refused: &&Refused| matches!(refused.kind, RefusedKind::Reason | RefusedKind::Window);
    let hard = refused.iter().find(|refused| !is_demand(refused));
    let kind = hard.or(refused.first()).map_or(RefusedKind::NoRule, |refused| refused.kind);
    let what = if kind == RefusedKind::Reason { "the policy wants other words" } else { "the policy refuses this" };
    Failure::new(Exit::NoRule, code(kind), what)
}

/// The same words as the API's.
const fn code(kind: RefusedKind) -> &'static str {
    match kind {
        RefusedKind::NoRule => "no_rule",
        RefusedKind::Rule => "refuse_rule",
        RefusedKind::Reason => "reason",
        RefusedKind::Window => "window",
        RefusedKind::Unknown => "unknown_host",
    }
}

fn show_terms(text: &mut String, terms: &Terms) -> Value {
    let principals: Vec<String> = terms.hosts.values().map(ToString::to_string).collect();
    let permits: Vec<&str> = terms.options.permits.iter().map(|permit| permit.key()).collect();
    let sources: Vec<String> = terms.options.source_addresses.iter().map(ToString::to_string).collect();
    let command = terms.options.force_command.as_ref().map(ForceCommand::as_str);
    let (max, backdate) = (terms.lifetime_max, terms.backdate);
    say(
        text,
        format_args!(
            "  longest {max}; the window starts {backdate} before approval; decided within {}",
            terms.decide_by
        ),
    );
    say(text, format_args!("  principals: {}", principals.join(", ")));
    say(
        text,
        format_args!("  permits: {}", if permits.is_empty() { "nothing".to_owned() } else { permits.join(", ") }),
    );
    if let Some(command) = command {
        say(text, format_args!("  only this command: {command}"));
    }
    if !sources.is_empty() {
        say(text, format_args!("  only from: {}", sources.join(", ")));
    }
    if terms.options.verify_required {
        say(text, format_args!("  only with a security key that checks a PIN or finger"));
    }
    json!({
        "hosts": terms.hosts.keys().map(ToString::to_string).collect::<Vec<_>>(), "principals": principals,
        "account": terms.account.as_str(), "for": terms.lifetime.to_string(), "max": max.to_string(),
        "backdate": backdate.to_string(), "decide_by": terms.decide_by.to_string(), "permit": permits,
        "sources": sources, "command": command, "verify_required": terms.options.verify_required,
        "rules": terms.rules.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn show_trace(text: &mut String, verdict: &Verdict) {
    for host in &verdict.trace {
        say(text, format_args!("{}", host.host));
        for rule in &host.rules {
            let word = if rule.matched { "matches" } else { "does not match" };
            say(text, format_args!("  rule {} {word}", rule.rule));
            rule.clauses.iter().for_each(|clause| say(text, format_args!("    {clause}")));
        }
    }
}

fn trace_json(verdict: &Verdict) -> Value {
    let rule = |rule: &crate::policy::RuleTrace| json!({"rule": rule.rule.as_str(), "matched": rule.matched, "clauses": rule.clauses});
    let host = |host: &crate::policy::HostTrace| json!({"host": host.host.as_str(), "rules": host.rules.iter().map(rule).collect::<Vec<_>>()});
    verdict.trace.iter().map(host).collect()
}

/// A line.
fn say(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String does not fail.
    if writeln!(text, "{line}").is_err() {
        text.push('\n');
    }
}
