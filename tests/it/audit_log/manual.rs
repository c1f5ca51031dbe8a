//! `docs/audit.md` by its word: commands print what it shows, its script finds the root, its tables are complete; and the
//! program's exit codes.

use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::export::FindingKind;
use hallpass::audit::feed::{cef, csv};

use super::log::*;

/// The program, in a folder with the files that `docs/audit.md` speaks of.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = export(long_story(300));
        let lines: Vec<&str> = text.lines().collect();
        let mut moved = lines.clone();
        moved.swap(18, 19);
        let kept = export(long_story(200));
        for (name, content) in [
            ("log.jsonl", text.clone()),
            ("changed.jsonl", text.replacen("\"comment\":\"ok\"", "\"comment\":\"OK\"", 1)),
            ("moved.jsonl", format!("{}\n", moved.join("\n"))),
            ("kept.jsonl", format!("{}\n", kept.lines().last().unwrap())),
        ] {
            hallpass::durable::create(&folder.path().join(name), content.as_bytes(), 0o600).unwrap();
        }
        Self(folder)
    }

    fn run(&self, arguments: &[&str], input: Option<&str>) -> (i32, String, String) {
        let program = env!("CARGO_BIN_EXE_hallpass");
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(self.0.path()).env_clear();
        if let Some(file) = input {
            command.stdin(std::fs::File::open(self.0.path().join(file)).unwrap());
        }
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// Words of a command line; single quotes hold blanks together.
fn words(line: &str) -> Vec<&str> {
    let pieces = line.split('\'').enumerate();
    pieces.flat_map(|(i, piece)| if i % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() }).collect()
}

const MANUAL: &str = "docs/audit.md";

fn manual() -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(MANUAL)).unwrap()
}

fn blocks<'a>(manual: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("\n```{kind}\n");
    manual.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_manuals_examples_print_what_it_says() {
    let desk = Desk::new();
    let mut manual = manual();
    let shown: Vec<String> = blocks(&manual, "console").into_iter().map(str::to_owned).collect();
    assert_eq!(shown.len(), 4);
    for block in shown {
        let (command, _) = block.split_once('\n').unwrap();
        let arguments = words(command.strip_prefix("$ hallpass ").unwrap());
        let (_, stdout, _) = desk.run(&arguments, None);
        let wanted = format!("{command}\n{stdout}");
        if std::env::var_os("HALLPASS_UPDATE_GOLDEN").is_some() {
            manual = manual.replace(&block, &wanted);
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(MANUAL);
            hallpass::durable::replace(&path, manual.as_bytes(), 0o644).unwrap();
        } else {
            assert_eq!(block, wanted, "set HALLPASS_UPDATE_GOLDEN=1 to write it anew");
        }
    }
}

#[test]
fn the_manual_names_every_kind_of_entry_and_of_finding_and_its_entries_are_real() {
    let manual = manual();
    let words = Event::KINDS.iter().copied().chain(FindingKind::ALL.iter().map(|kind| kind.word()));
    for word in words.chain(hallpass::audit::search::KEYS) {
        assert!(manual.contains(word), "{word}");
    }
    let lines: Vec<&str> = blocks(&manual, "jsonl").into_iter().flat_map(str::lines).collect();
    assert!(!lines.is_empty());
    for line in lines {
        assert!(SHORT.lines().any(|entry| entry == line), "{line}");
    }
}

#[test]
fn the_manuals_lines_for_other_programs_are_those_of_real_entries_and_its_severities_the_programs() {
    let manual = manual();
    let golden = include_str!("../../golden/events.jsonl");
    let entries: Vec<Entry> = golden.lines().map(|line| Entry::parse(line.as_bytes()).unwrap()).collect();
    let csv: Vec<&str> = blocks(&manual, "csv").into_iter().flat_map(str::lines).collect();
    assert_eq!(csv[0], csv::HEAD.trim_end());
    let cef: Vec<&str> = blocks(&manual, "cef").into_iter().flat_map(str::lines).collect();
    assert!(csv.len() == 3 && !cef.is_empty());
    for line in &csv[1..] {
        assert!(entries.iter().any(|entry| csv::line(entry, str::to_owned).trim_end() == *line), "{line}");
    }
    for line in cef {
        assert!(entries.iter().any(|entry| cef::line(entry, "VERSION", str::to_owned).trim_end() == line), "{line}");
    }
    let severities: Vec<(u8, &str)> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter_map(|(number, kinds)| Some((number.parse().ok()?, kinds)))
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for entry in &entries {
        let (kind, severity) = (entry.event.kind(), cef::severity(&entry.event));
        let row = severities.iter().find(|(number, _)| *number == severity).unwrap_or_else(|| panic!("{kind}"));
        assert!(row.1.contains(&format!("`{kind}`")), "{kind} is {severity}");
        seen.insert(kind);
    }
    let named = severities.iter().map(|(_, kinds)| kinds.matches('`').count() / 2).sum::<usize>();
    // One of them has two rows.
    assert_eq!((seen.len(), named), (Event::KINDS.len(), Event::KINDS.len() + 1));
}

#[test]
fn the_manuals_script_finds_the_signed_root_without_our_code() {
    let desk = Desk::new();
    let manual = manual();
    let script = blocks(&manual, "python")[0];
    let run = |file: &str| {
        let output = std::process::Command::new("python3")
            .args(["-c", script, file])
            .current_dir(desk.0.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run("log.jsonl"), "300 entries; root as signed\n");
    assert_eq!(run("changed.jsonl"), "300 entries; ROOT DIFFERS\n");
}

/// The reason in the story has what a statement must escape, so the manual's example has a tamer one.
#[test]
fn the_manuals_statement_is_what_an_approver_signs() {
    let mut said = bobs_statement();
    said.reason = "disk of \"web-1\" is full".to_owned();
    assert_eq!(blocks(&manual(), "text"), [said.text(SERVER, at(19))]);
}

#[test]
fn the_manuals_script_makes_the_statement_and_ssh_keygen_verifies_it_without_our_code() {
    let desk = Desk::new();
    let manual = manual();
    let script = blocks(&manual, "python")[1];
    let signers = format!("bob,carol {}\n", public_key(BOB).to_openssh());
    hallpass::durable::create(&desk.0.path().join("allowed_signers"), signers.as_bytes(), 0o600).unwrap();
    let verify = |log: &str, approver: &str, entry: &str| {
        let run = |program: &str, arguments: &[&str], input: std::process::Stdio| {
            let mut command = std::process::Command::new(program);
            command.args(arguments).current_dir(desk.0.path()).stdin(input).output().unwrap()
        };
        let made = run("python3", &["-c", script, log, entry], std::process::Stdio::null());
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let statement = std::fs::File::open(desk.0.path().join("statement")).unwrap();
        let arguments =
            ["-Y", "verify", "-f", "allowed_signers", "-I", approver, "-n", "approval@hallpass", "-s", "statement.sig"];
        run("ssh-keygen", &arguments, statement.into()).status.success()
    };
    assert!(verify("log.jsonl", "bob", "7"));
    assert_eq!(
        std::fs::read_to_string(desk.0.path().join("statement")).unwrap(),
        bobs_statement().text(SERVER, at(19))
    );
    assert!(!verify("log.jsonl", "dave", "7"));
    assert!(!verify("changed.jsonl", "bob", "7"), "the remark was changed");
    // And of an extension.
    let mut more = story();
    let Event::Approved { signature: of, .. } = &mut more[12].1 else { panic!("not an approval") };
    let extension = carols_statement();
    *of = Some(signature(&extension));
    assert!(check(export(more.clone()).as_bytes()).is_ok());
    hallpass::durable::create(&desk.0.path().join("more.jsonl"), export(more).as_bytes(), 0o600).unwrap();
    assert!(verify("more.jsonl", "carol", "12"));
    assert_eq!(std::fs::read_to_string(desk.0.path().join("statement")).unwrap(), extension.text(SERVER, at(19)));
}

#[test]
fn the_manuals_shell_makes_the_reports_choice_again() {
    let desk = Desk::new();
    let manual = manual();
    let (_, rest) = manual.split_once("```sh\nseed=").unwrap();
    let script = format!("seed={}", rest.split("```").next().unwrap());
    let arguments =
        ["audit", "report", "--period", "2026", "--sample", "2", "--seed", "Ada 4 1 6 6", "--out", "report"];
    assert_eq!(desk.run(&[&arguments[..], &["log.jsonl"]].concat(), None).0, 0);
    let mut shell = std::process::Command::new("sh");
    let chosen = shell.args(["-ec", &script]).current_dir(desk.0.path()).output().unwrap();
    let chosen = String::from_utf8(chosen.stdout).unwrap();
    let mut chosen: Vec<String> = chosen.lines().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    chosen.sort();
    let pages = std::fs::read_dir(desk.0.path().join("report/sample")).unwrap();
    let mut pages: Vec<String> =
        pages.map(|page| page.unwrap().file_name().into_string().unwrap().replace(".md", "")).collect();
    pages.sort();
    assert_eq!((pages.len(), pages), (2, chosen));
}

#[test]
fn a_report_is_made_of_a_sound_export_alone_and_never_in_halves() {
    let desk = Desk::new();
    let names = || {
        let names = std::fs::read_dir(desk.0.path()).unwrap().map(|name| name.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let report = |more: &[&str], file: &str, input: Option<&str>| {
        desk.run(&[&["audit", "report", "--out", "report", "--period"], more, &[file]].concat(), input)
    };
    let (code, stdout, stderr) = report(&["2026"], "changed.jsonl", None);
    assert_eq!(code, 1);
    assert!(stdout.contains("NOT sound") && stderr.contains("no report was made"), "{stdout}{stderr}");
    let key = "hallpass.example.com/log+00000000+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
    assert_eq!(report(&["2026", "--key", key], "log.jsonl", None).0, 2);
    assert_eq!(report(&["2026", "--signed"], "log.jsonl", None).0, 1, "one approval is by a login alone");
    assert_eq!(report(&["2026"], "missing.jsonl", None).0, 1);
    for (wrong, code) in [
        (&["2026-Q5"][..], 2),
        (&["2026", "--sample", "3"], 2),
        (&["2026", "--seed", "x"], 2),
        (&["2026", "--sample", "0", "--seed", "x"], 2),
        (&["2026", "--sample", "3", "--seed", "a\nb"], 2),
        (&["2025"], 1),
        (&["2027-01"], 1),
    ] {
        assert_eq!(report(wrong, "log.jsonl", None).0, code, "{wrong:?}");
    }
    assert_eq!(names(), before);
    assert_eq!(report(&["2026"], "-", Some("log.jsonl")).0, 0);
    let (code, _, stderr) = report(&["2026"], "log.jsonl", None);
    assert!(code == 1 && stderr.contains("it is there already"), "{stderr}");
    let mut sums = std::process::Command::new("sha256sum");
    let checked = sums.args(["-c", "--quiet", "SHA256SUMS"]).current_dir(desk.0.path().join("report")).status();
    assert!(checked.unwrap().success());
    assert_eq!(names().len(), before.len() + 1);
}

#[test]
fn the_exit_code_tells_a_sound_log_from_an_unsound_one_and_from_wrong_usage() {
    let desk = Desk::new();
    let key = log_key().verifier().to_text();
    assert_eq!(desk.run(&["audit", "verify", "log.jsonl"], None).0, 0);
    assert_eq!(desk.run(&["audit", "verify", "-"], Some("log.jsonl")).0, 0);
    let (code, stdout, _) = desk.run(&["--json", "audit", "verify", "--key", &key, "log.jsonl"], None);
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &document["sound"], &document["entries"]), (0, &true.into(), &300.into()));
    let (code, stdout, stderr) = desk.run(&["audit", "verify", "changed.jsonl"], None);
    assert_eq!(code, 1);
    assert!(stdout.contains("group: entries 0 to 255") && stderr.contains("not sound"), "{stdout}{stderr}");
    assert_eq!(desk.run(&["audit", "verify", "missing.jsonl"], None).0, 1);
    assert_eq!(desk.run(&["audit", "verify", "--key", "x", "log.jsonl"], None).0, 2);
    assert_eq!(desk.run(&["audit", "verify", "--earlier", "log.jsonl", "log.jsonl"], None).0, 0);
    let entries = "{\"at\":1}\n{\"at\":2}\n";
    hallpass::durable::create(&desk.0.path().join("entries.jsonl"), entries.as_bytes(), 0o600).unwrap();
    assert_eq!(desk.run(&["audit", "verify", "--earlier", "entries.jsonl", "log.jsonl"], None).0, 2);
}
