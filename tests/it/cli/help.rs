//! Codes and their pages: each code that the program can say has one, each page is of a code that is said and provoked by a test, and the
//! documentation holds the same table.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

use super::stage::Stage;
use hallpass::time::Clock as _;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_under(&path, found) } else { found.push(path) }
    }
}

/// All codes that stand in these files.
fn codes_in(paths: &[PathBuf]) -> BTreeSet<String> {
    let code = Regex::new(r"\bHP-\d{3}\b").unwrap();
    let mut found = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(path).unwrap();
        // What an inline test makes up is not said by the program.
        let text = text.split("\n#[cfg(test)]\n").next().unwrap();
        found.extend(code.find_iter(text).map(|code| code.as_str().to_owned()));
    }
    found
}

fn listed(stage: &Stage) -> serde_json::Value {
    let ran = stage.as_person("alice", &["help", "codes", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    ran.json()
}

fn codes_of(list: &serde_json::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|page| page["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_code_in_the_source_has_a_page_and_each_page_is_of_a_code_in_the_source() {
    let list = listed(&Stage::empty());
    let mut sources = Vec::new();
    files_under(&root().join("src"), &mut sources);
    sources
        .retain(|path| !path.starts_with(root().join("src/cli/help")) && path.extension().is_some_and(|e| e == "rs"));
    assert!(sources.len() > 100, "the sources were not found");
    assert_eq!(codes_in(&sources), codes_of(&list["codes"]));
    let both: Vec<_> = codes_of(&list["codes"]).intersection(&codes_of(&list["reserved"])).cloned().collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn each_code_is_provoked_by_a_test() {
    let mut tests = Vec::new();
    files_under(&root().join("tests/cli"), &mut tests);
    files_under(&root().join("tests/it"), &mut tests);
    // Pages name other codes, and this file none but by pattern.
    tests.retain(|path| !path.ends_with("help.txt"));
    let missing: Vec<String> =
        codes_of(&listed(&Stage::empty())["codes"]).difference(&codes_in(&tests)).cloned().collect();
    assert!(missing.is_empty(), "no test provokes {missing:?}");
}

#[test]
fn the_documentation_has_the_same_table() {
    let list = listed(&Stage::empty());
    let text = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| HP-")).collect();
    let word = |page: &serde_json::Value, key: &str| page[key].as_str().unwrap().to_owned();
    let mut wanted: Vec<String> = Vec::new();
    for page in list["codes"].as_array().unwrap() {
        wanted.push(format!("| {} | {} | {} |", word(page, "code"), word(page, "situation"), word(page, "again")));
    }
    assert_eq!(rows, wanted, "what it has to be:\n{}\n", wanted.join("\n"));
    for page in list["reserved"].as_array().unwrap() {
        assert!(text.contains(&format!("{}: {}", word(page, "code"), word(page, "why"))), "{page}");
    }
}

#[test]
fn a_page_is_found_by_its_code_and_what_is_none_gets_the_nearest() {
    let mut stage = Stage::empty();
    for words in [&["codes"][..], &["HP-302"], &["hp-401"], &["HP-305", "--json"]] {
        let ran = stage.types("alice", &[&["help"], words].concat());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{words:?}");
    }
    for word in ["HP-399", "HP-112", "HP-", "HP-x\u{1b}[2J"] {
        let ran = stage.types("alice", &["help", word]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{word}");
    }
    stage.check("help");
}

/// Answers every call with a page, as a network's login page or another program does.
fn stranger() -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _gone = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>",
            );
        }
    });
    url
}

#[test]
fn what_is_no_hallpass_server_and_what_asks_too_much_have_codes() {
    let stage = Stage::new();
    let key = stage.shown("alice/login_key");
    let strange = stranger();
    let login = ["login", "--profile", "other", "--server", &strange, "--person", "alice@example.com", "--key", &key];
    let ran = stage.as_person("alice", &login);
    assert!(ran.code == 1 && ran.err.starts_with("hallpass: the server's answer is not hallpass'"), "{}", ran.err);
    assert!(ran.err.contains("this client is hallpass ") && ran.err.contains("hallpass help HP-104"), "{}", ran.err);
    // As many open requests as one person may have.
    let ask = |minutes: u32| {
        let lifetime = format!("{minutes}m");
        stage.as_person("alice", &["request", "web-1", "--reason", super::REASON, "--for", &lifetime, "--no-wait"])
    };
    let refused = (5..60).map(ask).find(|ran| ran.code != 8).expect("there is a limit");
    assert_eq!(refused.code, 1, "{}", refused.err);
    assert!(refused.err.contains("open requests") && refused.err.contains("hallpass help HP-103"), "{}", refused.err);
}

#[test]
fn what_has_not_begun_and_what_is_longer_than_the_rule_gives_have_codes() {
    let stage = Stage::new();
    let start = hallpass::time::SystemClock.now().plus(hallpass::time::Lifetime::minutes(60)).unwrap().to_string();
    let ask = ["request", "web-1", "--reason", super::REASON, "--start", &start, "--no-wait", "--json"];
    let id = stage.as_person("alice", &ask).field("id");
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let ran = stage.as_person("alice", &["wait", &id]);
    assert!(ran.code == 8 && ran.err.contains("hallpass help HP-210"), "{}", ran.err);
    // Extended past the rule's total.
    let id = stage
        .as_person("alice", &["request", "web-1", "--reason", super::REASON, "--for", "1h", "--no-wait", "--json"]);
    let id = id.field("id");
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    let mut codes = Vec::new();
    for _ in 0..5 {
        let ran = stage.as_person("alice", &["extend", &id, "--for", "1h", "--no-wait"]);
        codes.push(ran.code);
        if ran.code == 5 {
            assert!(ran.err.contains("hallpass help HP-208") && ran.err.contains("4h"), "{}", ran.err);
            return;
        }
        assert_eq!(ran.code, 8, "{}", ran.err);
        assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
        // The newer certificate is fetched: only what is in use is extended.
        assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    }
    panic!("the total is never reached: {codes:?}");
}

#[test]
fn a_request_that_nobody_decides_ends_the_waiting() {
    let stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    stage.write("policy.toml", &policy.replace("[defaults]\n", "[defaults]\ndecide_by = \"2s\"\n"));
    let file = stage.shown("policy.toml");
    let applied = stage.as_person("omar", &["policy", "apply", &file, "--yes"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    let ran = stage.as_person("alice", &["request", "web-1", "--reason", super::REASON, "--wait"]);
    assert!(ran.code == 9 && ran.err.contains("in time") && ran.err.contains("hallpass help HP-205"), "{}", ran.err);
}
