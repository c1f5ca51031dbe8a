//! Entries for other programs, out of a real service: what is new, in each format, however hostile the texts in it are.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::backup::on_its_port;
use super::stage::{Ran, Stage};

/// Begins like a formula, ends cells and fields of every kind, and is a reason that the service takes.
const HOSTILE: &str = "=HYPERLINK(\"http://x\";\"y\"), |a\\b suser=root";

/// A time between what was before and what is asked for then, to the second.
fn now_and_later() -> String {
    let now = || hallpass::time::Clock::now(&hallpass::time::SystemClock);
    let from = now();
    while now() == from {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    now().to_string()
}

fn ask(stage: &Stage) -> String {
    let ran = stage.as_person("alice", &["request", "web-1", "--reason", HOSTILE, "--no-wait", "--json"]);
    assert_eq!(ran.code, 8, "{}", ran.err);
    ran.field("id")
}

fn export(stage: &Stage, more: &[&str]) -> Ran {
    stage.as_person("omar", &[&["audit", "export"], more].concat())
}

/// Rows as another program's reader of CSV has them.
fn rows(text: &str) -> Vec<Vec<String>> {
    let script = "import csv,json,sys\nprint(json.dumps(list(csv.reader(sys.stdin))))";
    let mut python = Command::new("python3");
    let mut python = python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    serde_json::from_slice(&python.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn what_is_new_is_written_in_each_format_and_nothing_else() {
    let mut stage = Stage::new();
    let since = now_and_later();
    let id = ask(&stage);
    stage.as_person("bob", &["deny", &id, "--reason", "-1: no"]);
    let csv = export(&stage, &["--since", &since, "--format", "csv", "--out", "-"]);
    assert_eq!(csv.code, 0, "{}", csv.err);
    assert!(csv.err.contains("prove nothing by themselves; the whole log does: hallpass audit export --out FILE"));
    let rows = rows(&csv.out);
    assert_eq!(rows[0].join(","), "number,time,kind,who,request,host,account,serial,policy,address,reason,text");
    assert!(rows.iter().all(|row| row.len() == 12) && rows.len() == 3, "{rows:?}");
    let asked: Vec<&str> = rows[1].iter().map(String::as_str).collect();
    assert_eq!(asked[2..7], ["asked", "alice@example.com", id.as_str(), "web-1", "deploy"]);
    assert_eq!(asked[10], format!("'{HOSTILE}"));
    assert_eq!((rows[2][2].as_str(), rows[2][10].as_str()), ("denied", "'-1: no"));
    assert!(rows.iter().flatten().all(|cell| !cell.starts_with(['=', '+', '-', '@'])), "{rows:?}");

    let cef = export(&stage, &["--since", &since, "--format", "cef", "--out", "-"]);
    let lines: Vec<&str> = cef.out.lines().collect();
    let head = format!("CEF:0|hallpass|hallpass|{}|", env!("CARGO_PKG_VERSION"));
    assert!(lines[0].starts_with(&format!("{head}asked|asked|3|rt=")), "{}", cef.out);
    assert!(lines[1].starts_with(&format!("{head}denied|denied|6|rt=")) && lines.len() == 2, "{}", cef.out);
    let fields = format!(" suser=alice@example.com dhost=web-1 duser=deploy cs1Label=request cs1={id} ");
    let reason = "reason=\\=HYPERLINK(\"http://x\";\"y\"), |a\\\\b suser\\=root msg=";
    assert!(lines[0].contains(&fields) && lines[0].contains(reason), "{}", cef.out);

    let jsonl = export(&stage, &["--since", &since, "--out", "-"]);
    super::schemas::check_lines(&jsonl.out);
    let tail = stage.as_person("omar", &["audit", "tail", "-n", "2", "--jsonl"]);
    assert_eq!(jsonl.out, tail.out, "the shape of tail --jsonl");

    // All of it, and then again in files.
    let all = export(&stage, &["--format", "jsonl", "--out", "-"]);
    let numbers: Vec<u64> =
        all.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap()).collect();
    let size = u64::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (0..size).collect::<Vec<_>>());
    let file = stage.shown("new.csv");
    stage.types("omar", &["audit", "export", "--since", &since, "--format", "csv", "--out", &file]);
    assert_eq!(std::fs::read_to_string(stage.path("new.csv")).unwrap(), csv.out);
    stage.types("omar", &["audit", "export", "--since", &since, "--format", "csv", "--out", &file]);
    let file = stage.shown("all.cef");
    stage.types("omar", &["audit", "export", "--format", "cef", "--out", &file, "--json"]);
    stage.types("omar", &["audit", "export", "--since", "2099-01-01T00:00:00Z", "--format", "csv", "--out", "-"]);
    for wrong in [&["--since", "soon"][..], &["--format", "xml"], &["--since", "1h", "--earlier", "x"]] {
        stage.types("omar", &[&["audit", "export", "--out", "-"], wrong].concat());
    }
    stage.types("alice", &["audit", "export", "--since", "1h", "--out", &stage.shown("none")]);
    assert!(!stage.path("none").exists());
    stage.check("feed");
}

#[test]
fn a_time_in_any_second_of_the_log_is_found() {
    let stage = Stage::new();
    let all = export(&stage, &["--format", "jsonl", "--out", "-"]).out;
    let entries: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(entries.len() > 4, "{all}");
    for entry in &entries {
        let since = entry["at"].as_str().unwrap();
        let new = export(&stage, &["--since", since, "--out", "-"]);
        let wanted: String = all
            .lines()
            .zip(&entries)
            .filter(|(_, entry)| entry["at"].as_str().unwrap() >= since)
            .map(|(line, _)| format!("{line}\n"))
            .collect();
        assert_eq!((new.code, new.out), (0, wanted), "{since}: {}", new.err);
    }
}

#[test]
fn an_export_goes_on_when_the_service_comes_back() {
    let mut stage = on_its_port();
    drop(stage.stop());
    // A log of several answers, without as many calls.
    let config = stage.shown("service/config.toml");
    let word = ["--apply", "--by", "omar@example.com", "--reason", "a long log", "--past", "2500", "--yes"];
    let long = stage.as_person("omar", &[&["admin", "store", "recover", "--config", &config][..], &word].concat());
    assert_eq!(long.code, 0, "{}", long.err);
    stage.start();
    stage.log_in("omar");
    // What it writes is not read: it has got the first answer, and can't come to ask for the second.
    let mut exporting = stage.starts("omar", &["audit", "export", "--out", "-"]);
    exporting.prints("\"hallpass_log\"");
    drop(stage.stop());
    exporting.prints("\"index\":999,");
    stage.start();
    exporting.prints("\"index\":2501,");
    let ran = exporting.ends();
    assert_eq!(ran.code, 0, "{}", ran.err);
    stage.write("whole.jsonl", &ran.out);
    let verified = stage.as_person("omar", &["audit", "verify", &stage.shown("whole.jsonl")]);
    assert!(verified.code == 0, "{}{}", verified.out, verified.err);
}
