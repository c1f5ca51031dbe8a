//! The manual's page on security names a test for what it claims: each of them is there, and no row of either table is missing.
//! (With the fail points: some of those tests are there with them alone.)

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const MANUAL: &str = include_str!("../../docs/security.md");

/// How many failures of others, and how many invariants, the tables have.
const FAILURES: usize = 123;
const INVARIANTS: usize = 40;

/// The cells of each row of a table whose first cell is one of `numbers`.
fn rows(numbers: &[String]) -> Vec<(&str, Vec<&str>)> {
    let cells = |line: &'static str| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>();
    let rows = MANUAL.lines().filter(|line| line.starts_with('|')).map(cells);
    rows.filter_map(|cells| {
        let (number, rest) = cells.split_first()?;
        numbers.iter().any(|known| known == number).then(|| (*number, rest.to_vec()))
    })
    .collect()
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number}")).collect()
}

/// What this binary calls its tests.
fn listed() -> BTreeSet<String> {
    let listed = Command::new(std::env::current_exe().unwrap()).args(["--list", "--format=terse"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Whether a source file of ours has this inline test.
fn is_inline(name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let Some((test, modules)) = parts.split_last() else { return false };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // The last module may be one within the file.
    (1..=modules.len()).any(|depth| {
        let path = modules.iter().take(depth).collect::<PathBuf>();
        let files = [source.join(&path).with_extension("rs"), source.join(&path).join("mod.rs")];
        let has =
            |file: &PathBuf| std::fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {test}(")));
        files.iter().any(has)
    })
}

#[test]
fn each_failure_of_others_and_each_invariant_has_its_row() {
    for (prefix, count) in [("", FAILURES), ("I-", INVARIANTS)] {
        let numbers = numbered(prefix, count);
        let found: Vec<String> = rows(&numbers).into_iter().map(|(number, _)| number.to_owned()).collect();
        assert_eq!(found, numbers);
    }
}

#[test]
fn each_row_names_a_test_that_is_there_or_says_why_none_is_needed() {
    let listed = listed();
    assert!(listed.len() > 500, "this binary tells what it has: {}", listed.len());
    let numbers: Vec<String> = numbered("", FAILURES).into_iter().chain(numbered("I-", INVARIANTS)).collect();
    let mut wrong = Vec::new();
    for (number, cells) in rows(&numbers) {
        let shown = cells.last().copied().unwrap_or_default();
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && !shown.starts_with("not ours: ") {
            wrong.push(format!("{number} names no test: {shown:?}"));
        }
        let missing = names.iter().filter(|name| !listed.contains(**name) && !is_inline(name));
        wrong.extend(missing.map(|name| format!("{number} names {name}, which is not there")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
