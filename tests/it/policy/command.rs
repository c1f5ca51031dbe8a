//! `hallpass policy check|test|explain|diff` on files: answers on standard output, exit codes, JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::SMALL;

fn hallpass(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hallpass")).args(arguments).output().unwrap()
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn answer(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policy.toml.example").to_str().unwrap().to_owned()
}

/// A file of this text in a folder that goes with the first value.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.toml");
    hallpass::durable::replace(&path, text.as_bytes(), 0o600).unwrap();
    (folder, path)
}

#[test]
fn checking_counts_what_is_in_a_good_file_and_lists_what_is_wrong_with_a_bad_one() {
    let good = hallpass(&["policy", "check", &example()]);
    assert_eq!((exit(&good), good.stderr.as_slice()), (0, b"".as_slice()));
    assert!(answer(&good).ends_with("policy.toml.example: a policy of 4 people, 4 hosts, 4 rules, 4 tests\n"));

    let (_folder, path) = file(&SMALL.replace("hosts", "hots"));
    let bad = hallpass(&["policy", "check", &example(), path.to_str().unwrap()]);
    assert_eq!(exit(&bad), 2);
    assert!(answer(&bad).contains(":23:1: rule[1].hots: unknown key; did you mean \"hosts\"?\n"), "{}", answer(&bad));
    assert!(answer(&bad).contains("policy.toml.example: a policy of"), "one bad file does not hide a good one");

    let json = hallpass(&["--json", "policy", "check", path.to_str().unwrap()]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((exit(&json), &document["ok"]), (2, &serde_json::Value::Bool(false)));
    let lines: Vec<&serde_json::Value> = document["problems"].as_array().unwrap().iter().map(|p| &p["line"]).collect();
    assert_eq!(lines, [20, 23, 26, 29]);
}

#[test]
fn a_file_that_is_not_there_is_no_policy_with_a_problem_and_one_that_is_not_text_is() {
    let missing = hallpass(&["policy", "check", "/nonexistent/policy.toml"]);
    assert_eq!(exit(&missing), 1);
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.starts_with("hallpass: cannot read policy \"/nonexistent/policy.toml\"\n"), "{said}");
    let (folder, path) = file("version = 1");
    hallpass::durable::replace(&path, b"version = 1 # \xff", 0o600).unwrap();
    let binary = hallpass(&["policy", "test", path.to_str().unwrap()]);
    assert_eq!(exit(&binary), 2);
    assert!(answer(&binary).contains("policy.toml:1:15: this byte is not UTF-8"), "{}", answer(&binary));
    drop(folder);
}

#[test]
fn failing_tests_are_told_with_place_expectation_and_reason() {
    let test =
        "[[test]]\nname = \"root is free\"\nask = { person = \"alice\", host = \"web-1\", account = \"root\" }\n";
    let (_folder, path) = file(&format!("{SMALL}{test}expect = \"allow\"\n"));
    let failed = hallpass(&["policy", "test", path.to_str().unwrap()]);
    assert_eq!(exit(&failed), 2);
    let why = "expected allow, but it is refuse: rule \"no-root\" forbids it: use sudo";
    assert!(answer(&failed).contains(&format!(":36:1: root is free: {why}\n")), "{}", answer(&failed));
    assert!(answer(&failed).ends_with("policy.toml: 0 of 1 tests passed\n"));

    let (_folder, path) = file(&format!("{SMALL}{test}expect = \"refuse\"\nexpect_rule = \"web\"\n"));
    let failed = hallpass(&["policy", "test", path.to_str().unwrap()]);
    assert!(answer(&failed).contains("expected rule \"web\" to decide, but it was \"no-root\""), "{}", answer(&failed));

    assert_eq!(exit(&hallpass(&["policy", "test", &example()])), 0);
}

#[test]
fn explaining_exits_0_for_what_may_be_asked_and_5_for_what_may_not() {
    let ask = |more: &[&str]| {
        let path = example();
        let mut arguments =
            vec!["policy", "explain", &path, "--person", "alice@example.com", "--at", "2026-01-05T10:00:00Z"];
        arguments.extend(more);
        hallpass(&arguments)
    };
    let may = ask(&["--host", "tag:role=web", "--as", "deploy", "--ticket", "INC-1", "--for", "1h"]);
    assert_eq!(exit(&may), 0);
    let told = answer(&may);
    assert!(told.starts_with("may be asked for: deploy on web-1, web-2 for 1h (rule \"prod-web-debug\")\n"), "{told}");
    assert!(told.contains("  could agree: bob@example.com, carol@example.com\n"), "{told}");

    let unmet = ask(&["--host", "web-1", "--as", "deploy", "--ticket", "nonsense"]);
    assert_eq!(exit(&unmet), 5);
    assert!(
        answer(&unmet).contains("needs a ticket like ^(INC|OPS)-[0-9]+$; \"nonsense\" is not\n"),
        "{}",
        answer(&unmet)
    );

    assert_eq!(exit(&ask(&["--host", "db-1", "--as", "root"])), 5);
    assert_eq!(exit(&ask(&["--host", "nowhere", "--as", "deploy"])), 5);
    assert_eq!(exit(&ask(&["--host", "tag:role=nothing", "--as", "deploy"])), 2);
    assert_eq!(exit(&ask(&["--host", "web-1", "--as", "Deploy"])), 2);

    let json = ask(&["--json", "--host", "legacy-1", "--as", "debug"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["verdict"], "allow");
    assert_eq!(document["terms"]["principals"], serde_json::json!(["debug"]));
    assert_eq!(document["terms"]["command"], "journalctl -n 1000 -u api");
}

#[test]
fn a_difference_is_told_and_exits_0() {
    let (_old_folder, old) = file(SMALL);
    let (_new_folder, new) = file(&SMALL.replace("accounts = [\"postgres\"]", "accounts = [\"postgres\", \"dba\"]"));
    let told = hallpass(&["policy", "diff", old.to_str().unwrap(), new.to_str().unwrap()]);
    assert_eq!((exit(&told), answer(&told)), (0, "+ bob gains dba on db-1 (at once, 30m up to 1h (4h in total))\n"));
    let same = hallpass(&["policy", "diff", old.to_str().unwrap(), old.to_str().unwrap()]);
    assert_eq!((exit(&same), answer(&same)), (0, "nobody gains or loses anything\n"));
}

#[test]
fn a_hyphen_is_standard_input_for_one_file() {
    let run = |arguments: &[&str], text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let good = run(&["policy", "check", "-"], SMALL);
    assert!(exit(&good) == 0 && answer(&good).starts_with("<stdin>: a policy of "), "{good:?}");
    let bad = run(&["policy", "check", "-"], &SMALL.replace("hosts", "hots"));
    assert!(exit(&bad) == 2 && answer(&bad).contains("<stdin>:23:1: rule[1].hots"), "{bad:?}");
    let same = run(&["policy", "diff", "-", &example()], &std::fs::read_to_string(example()).unwrap());
    assert_eq!((exit(&same), answer(&same)), (0, "nobody gains or loses anything\n"));
    assert_eq!(exit(&hallpass(&["policy", "diff", "-", "-"])), 2);
}

/// A policy with a refusal that refuses nothing, and with approvals that some who may ask can't get.
fn doubtful() -> String {
    let refusal = "[[rule]]\nname = \"no-contractors\"\neffect = \"refuse\"\nwho = [\"group:backand\", \"group:sre\"]\n\
                   hosts = [\"tag:role=wbe\", \"db-11\", \"mail-*\", \"web-*\", \"db-1\"]\nwhen = { days = [], zone = \"UTC\" }\nmessage = \"ask us\"\n";
    let pair = "[[rule]]\nname = \"pair\"\nwho = [\"group:sre\", \"group:backend\", \"group:later\"]\nhosts = [\"web-1\"]\naccounts = [\"ops\"]\n\
                approval = [{ need = 2, from = [\"group:sre\", \"person:carol\"] }]\n";
    format!("{SMALL}{refusal}{pair}")
}

#[test]
fn what_a_policy_can_hardly_mean_is_warned_of_and_it_is_one_all_the_same() {
    let (_folder, path) = file(&doubtful());
    let path = path.to_str().unwrap();
    let told = hallpass(&["policy", "check", path]);
    let warning = |line: &str| line.split_once(": warning: ").map(|(_, what)| what.to_owned());
    let warnings: Vec<String> = answer(&told).lines().filter_map(warning).collect();
    let of_file = "means no host of this file (enrolled ones are known to the service), so that keeps nobody out";
    let expected = [
        "rule no-contractors: nobody is in group \"backand\", so that keeps nobody out; did you mean \"backend\"?".to_owned(),
        format!("rule no-contractors: \"tag:role=wbe\" {of_file}; did you mean \"tag:role=web\"?"),
        format!("rule no-contractors: \"db-11\" {of_file}; did you mean \"db-1\"?"),
        format!("rule no-contractors: \"mail-*\" {of_file}"),
        "rule no-contractors: \"when\" names no day, so that it refuses nothing; without \"days\" it counts on all of them".to_owned(),
        "rule pair: nobody is in group \"later\", so that lets nobody ask".to_owned(),
        "rule pair: it needs 2 of group:sre, person:carol, which bob can't get: nobody approves their own request, and \
         there are not enough others"
            .to_owned(),
    ];
    assert_eq!((exit(&told), warnings.as_slice()), (0, expected.as_slice()));
    let json = hallpass(&["policy", "check", path, "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(document["policies"][0]["warnings"], serde_json::json!(expected));
    let diff = hallpass(&["policy", "diff", path, path]);
    assert!(answer(&diff).contains("\nwarning: rule no-contractors: nobody is in group"), "{}", answer(&diff));
    assert!(!answer(&hallpass(&["policy", "check", &example()])).contains("warning"));
    // Where the file has no hosts, refusals are for those that enrol.
    let hosts = SMALL.find("[[host]]").unwrap()..SMALL.find("[[rule]]").unwrap();
    let (_folder, path) = file(&doubtful().replace(&SMALL[hosts], ""));
    let told = hallpass(&["policy", "check", path.to_str().unwrap()]);
    assert!(exit(&told) == 0 && !answer(&told).contains("means no host"), "{}", answer(&told));
}

#[test]
fn restrictions_that_leave_more_open_than_they_seem_to_are_warned_of() {
    let rule = |lines: &str| {
        let (_folder, path) = file(&format!(
            "{SMALL}[[rule]]\nname = \"task\"\nwho = [\"group:sre\"]\nhosts = [\"web-1\"]\naccounts = [\"ops\"]\n{lines}\n"
        ));
        let told = hallpass(&["policy", "check", path.to_str().unwrap()]);
        assert_eq!(exit(&told), 0, "{told:?}");
        let warnings = answer(&told).lines().filter_map(|line| line.split_once(": warning: rule task: "));
        warnings.map(|(_, what)| what.to_owned()).collect::<Vec<_>>()
    };
    let beside = |what: &str| {
        format!(
            "\"command\" does not stop what \"permit\" gives beside it ({what}); without that, the command is all that can be done"
        )
    };
    let command = "command = \"journalctl -u api\"\n";
    for key in ["x11_forwarding", "agent_forwarding", "port_forwarding", "user_rc"] {
        assert_eq!(rule(&format!("{command}permit = {{ {key} = true }}")), [beside(key)]);
        assert!(rule(&format!("permit = {{ {key} = true }}")).is_empty(), "a shell can do all of it");
        assert!(rule(&format!("{command}permit = {{ {key} = false, pty = true }}")).is_empty());
    }
    let all = "permit = { pty = true, port_forwarding = true, agent_forwarding = true, x11_forwarding = true, user_rc = true }";
    assert_eq!(
        rule(&format!("{command}{all}")),
        [beside("x11_forwarding, agent_forwarding, port_forwarding, user_rc")]
    );
    let everything = |network: &str, family: &str| {
        format!("\"sources\" names {network}, which is every {family} address, so that keeps none of them out")
    };
    assert_eq!(
        rule("sources = [\"::/0\", \"10.0.0.0/8\", \"0.0.0.0/0\"]"),
        [everything("0.0.0.0/0", "IPv4"), everything("::/0", "IPv6")]
    );
    assert!(rule("sources = [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.1\"]").is_empty());
}

#[test]
fn who_asks_for_what_cannot_be_approved_is_told_who_could() {
    let (_folder, path) =
        file(&doubtful().replace("effect = \"refuse\"\nwho", "effect = \"refuse\"\naccounts = [\"x\"]\nwho"));
    let ask = |person: &str, more: &[&str]| {
        let mut words =
            vec!["policy", "explain", path.to_str().unwrap(), "--host", "web-1", "--as", "ops", "--person", person];
        words.extend(more);
        hallpass(&words)
    };
    let short = "\"2 of group:sre, person:carol\" can't be had as the policy is: besides bob, who asks, only carol could approve";
    let told = ask("bob", &[]);
    assert!(
        exit(&told) == 0 && answer(&told).contains(&format!("  could agree: carol\n  but {short}\n")),
        "{}",
        answer(&told)
    );
    let json: serde_json::Value = serde_json::from_slice(&ask("bob", &["--json"]).stdout).unwrap();
    assert_eq!(json["unmeetable"], short);
    let told = ask("alice", &[]);
    assert!(answer(&told).contains("could agree: bob, carol\n") && !answer(&told).contains("but"), "{}", answer(&told));
}
