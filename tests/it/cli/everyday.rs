//! The rest of an engineer's day: what a prompt shows, what a window that stays open shows, hosts, further forms of asking, giving back.

use super::stage::{Ran, Stage};
use super::{REASON, asked};

#[test]
fn a_prompt_shows_what_is_held_from_local_files_alone() {
    let mut stage = Stage::new();
    assert_eq!(stage.types("alice", &["status", "--short"]).out, "");
    let id = asked(&mut stage);
    stage.types("bob", &["approve", &id, "-y"]);
    assert_eq!(stage.types("alice", &["status", "--short"]).out, "", "granted, but nothing is held yet");
    assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    stage.stop();
    std::fs::remove_file(stage.path("alice/state/default/session")).unwrap();
    let ran = stage.as_person("alice", &["status", "--short"]);
    assert!(ran.code == 0 && ["default web-1 19m\n", "default web-1 20m\n"].contains(&ran.out.as_str()), "{}", ran.out);
    let held = stage.as_person("alice", &["status", "--short", "--json"]).json();
    assert_eq!((held["profile"].as_str(), held["held"][0]["id"].as_str()), (Some("default"), Some(id.as_str())));
    assert!((1_100..=1_200).contains(&held["held"][0]["left_s"].as_u64().unwrap()), "{held}");
    assert_eq!(stage.as_person("alice", &["status", "--short", "--profile", "work"]).out, "");
    assert_eq!(stage.types("alice", &["status", "--short", "--json", "--profile", "work"]).code, 0);
    stage.check("short");
}

#[test]
fn a_status_that_stays_says_what_changes_and_ends_cleanly() {
    let mut stage = Stage::new();
    let mut watching = stage.starts("alice", &["status", "--watch"]);
    watching.prints("you hold no access");
    let id = asked(&mut stage);
    watching.prints("pending");
    stage.types("bob", &["approve", &id, "-y"]);
    watching.prints("approved");
    stage.stop();
    watching.hears("cannot be reached");
    stage.start();
    watching.hears("connected again");
    stage.types("alice", &["end", &id]);
    watching.prints("ended");
    watching.signal("INT");
    let ran = watching.ends();
    assert_eq!(ran.code, 0);
    assert!(!ran.out.contains('\u{1b}'), "no terminal, no codes");
    stage.note("alice", &["status", "--watch"], &ran);
    stage.check("watch");
}

#[test]
fn streams_are_one_document_per_line_and_only_where_things_happen_over_time() {
    let mut stage = Stage::new();
    for arguments in [
        &["requests", "--jsonl"][..],
        &["status", "--jsonl"],
        &["request", "web-1", "--reason", REASON, "--jsonl"],
        &["status", "--watch", "--json"],
        &["inbox", "--jsonl"],
        &["inbox", "--watch", "--json"],
        &["audit", "tail", "--follow", "--json"],
        &["wait", "--json", "--jsonl"],
        &["status", "--short", "--watch"],
    ] {
        let ran = stage.types("alice", arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
    }
    let documents = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut watching = stage.starts("alice", &["status", "--watch", "--jsonl"]);
    watching.prints("\"requests\":[]");
    let id = asked(&mut stage);
    watching.prints(&id);
    let mut waiting = stage.starts("alice", &["wait", &id, "--jsonl"]);
    waiting.prints("\"state\":\"pending\"");
    stage.types("bob", &["approve", &id, "-y"]);
    let ran = waiting.ends();
    let events = documents(&ran.out);
    let states: Vec<_> = events.iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!((ran.code, states), (0, vec!["pending", "issued"]), "{}", ran.out);
    assert!(events[1]["certificate"]["serial"].as_u64().is_some());
    stage.note("alice", &["wait", &id, "--jsonl"], &ran);
    watching.prints("\"state\":\"issued\"");
    watching.signal("INT");
    let ran = watching.ends();
    assert_eq!(ran.code, 0);
    let schemas: Vec<_> =
        documents(&ran.out).iter().map(|event| event["schema"].as_str().unwrap().to_owned()).collect();
    assert!(schemas.len() >= 3 && schemas.iter().all(|schema| schema == "hallpass.status.v1"), "{}", ran.out);
    // A failure is a line of JSON on standard error.
    assert_eq!(stage.types("alice", &["wait", "0000-0000", "--jsonl"]).code, 1);
    stage.check("streams");
}

#[test]
fn a_log_that_is_followed_prints_each_entry_once() {
    let mut stage = Stage::new();
    assert_eq!(stage.types("omar", &["audit", "tail", "-n", "1", "--jsonl"]).code, 0);
    let mut following = stage.starts("omar", &["audit", "tail", "-n", "1", "--follow", "--jsonl"]);
    following.prints("\"index\":");
    let id = asked(&mut stage);
    following.prints(&id);
    stage.stop();
    following.hears("cannot be reached");
    stage.start();
    following.hears("connected again");
    stage.types("alice", &["cancel", &id]);
    following.prints("withdrawn");
    following.signal("INT");
    let ran = following.ends();
    assert_eq!(ran.code, 0);
    let indexes: Vec<u64> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap())
        .collect();
    let first = indexes[0];
    let last = first + u64::try_from(indexes.len()).unwrap();
    assert_eq!(indexes, (first..last).collect::<Vec<_>>(), "each once, none left out");
    assert_eq!(stage.as_person("alice", &["audit", "tail", "--follow"]).code, 3);
}

#[test]
fn hosts_say_what_is_held_and_what_may_be_asked_for() {
    let mut stage = Stage::new();
    stage.types("alice", &["hosts"]);
    stage.types("alice", &["hosts", "--json"]);
    stage.types("alice", &["hosts", "web", "--tag", "role=web"]);
    stage.types("alice", &["hosts", "role=db"]);
    stage.types("alice", &["hosts", "--mine"]);
    let id = asked(&mut stage);
    stage.types("bob", &["approve", &id, "-y"]);
    assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    stage.types("alice", &["hosts", "--mine"]);
    stage.types("alice", &["hosts", "web-1", "--json"]);
    // Nobody lets bob ask for anything.
    stage.types("bob", &["hosts", "--requestable"]);
    stage.types("bob", &["hosts", "web-2"]);
    for arguments in [&["hosts", "a b"][..], &["hosts", "--tag", "role"], &["hosts", "--mine", "--requestable"]] {
        assert_eq!(stage.types("alice", arguments).code, 2);
    }
    stage.check("hosts");
}

#[test]
fn a_request_can_be_like_another_one_go_by_a_jump_host_and_end_at_a_time() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    stage.log_in("eve");
    assert_eq!(stage.types("eve", &["request", "--like", &id]).code, 1, "who may not see it can't copy it");
    // Hosts, account, duration and reason are the same; what is given here wins.
    stage.types("bob", &["deny", &id, "--reason", "ask again with more time"]);
    let ran = stage.types("alice", &["request", "--like", &id, "--no-wait", "--json"]);
    assert_eq!((ran.code, ran.field("for"), ran.field("reason")), (8, "20m".to_owned(), REASON.to_owned()));
    let like = ["request", "web-2", "--like", &id, "--for", "40m", "--ticket", "INC-8", "--no-wait", "--json"];
    let ran = stage.types("alice", &like);
    assert_eq!((ran.code, ran.field("for"), ran.field("ticket")), (8, "40m".to_owned(), "INC-8".to_owned()));
    assert_eq!(ran.json()["hosts"], serde_json::json!(["web-2"]));
    stage.types("alice", &["cancel", "web-1"]);
    stage.types("alice", &["cancel", "web-2"]);
    // One request for both; whoever approves sees both.
    let via = ["request", "web-1", "--via", "web-2", "--reason", REASON, "--wait"];
    let mut asking = stage.starts("alice", &via);
    asking.hears("waiting for");
    let waiting = stage.as_person("bob", &["inbox", "--json"]).json();
    let id = waiting["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(waiting["requests"][0]["hosts"], serde_json::json!(["web-1", "web-2"]));
    stage.types("bob", &["show", &id]);
    stage.types("bob", &["approve", &id, "-y"]);
    let ran = asking.ends();
    assert_eq!(ran.code, 0, "{}", ran.err);
    stage.note("alice", &via, &ran);
    assert_eq!(stage.types("alice", &["end", "--all"]).code, 0);
    assert_eq!(stage.types("alice", &["end", "--all"]).code, 0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let at = |s: u64| hallpass::time::Timestamp::from_unix(now + s).unwrap().to_string();
    let (start, until) = (at(86_400), at(86_400 + 25 * 60));
    let until = ["request", "web-1", "--start", &start, "--until", &until, "--reason", REASON, "--no-wait", "--json"];
    let ran = stage.types("alice", &until);
    assert_eq!((ran.code, ran.field("for")), (8, "25m".to_owned()));
    for arguments in [
        &["request", "web-1", "--until", "2026-01-05T10:00:00Z", "--reason", REASON][..],
        &["request", "web-1", "--until", "six", "--reason", REASON],
        &["request", "web-1", "--until", "18:00", "--for", "1h", "--reason", REASON],
        &["request", "--reason", REASON],
    ] {
        assert_eq!(stage.types("alice", arguments).code, 2);
    }
    stage.check("forms");
}

#[test]
fn without_a_host_ca_there_is_nothing_to_know_and_that_is_said() {
    let mut stage = Stage::new();
    let ran = stage.types("alice", &["known-hosts"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert_eq!(stage.types("alice", &["known-hosts", "--json"]).code, 0);
    // What is to be a file is not an empty one.
    for more in [&[][..], &["--json"], &["--ca", "prod"]] {
        let ran = stage.types("alice", &[&["ca", "export", "--format", "known-hosts"], more].concat());
        assert_eq!((ran.code, ran.out.as_str()), (if more == ["--ca", "prod"] { 2 } else { 1 }, ""));
    }
    assert_eq!(stage.as_person("alice", &["setup"]).code, 0);
    // Nothing about known hosts is written for nothing.
    let folder = stage.path("alice/config/ssh");
    assert!(!folder.join("default.known_hosts").exists());
    assert!(!std::fs::read_to_string(folder.join("default.conf")).unwrap().contains("KnownHosts"));
    stage.check("known_hosts");
}

#[test]
fn giving_everything_back_ends_all_that_is_held() {
    let mut stage = Stage::new();
    let ticket = ["request", "db-1", "--reason", "looking", "--ticket", "INC-9", "--no-wait"];
    assert_eq!(stage.types("alice", &ticket).code, 0);
    let id = asked(&mut stage);
    stage.types("bob", &["approve", &id, "-y"]);
    assert_eq!(stage.types("alice", &["end"]).code, 2, "several fit");
    assert_eq!(stage.types("alice", &["end", "web-1", "--all"]).code, 2);
    let ran = stage.types("alice", &["end", "--all", "--json"]);
    assert_eq!(ran.json()["requests"].as_array().unwrap().len(), 2);
    stage.types("alice", &["status"]);
    assert_eq!(stage.types("alice", &["end", "--all"]).out, "you hold no access\n");
    stage.check("end_all");
}

#[test]
fn a_reason_is_asked_for_only_where_the_policy_wants_one() {
    let mut stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let free = policy.replace(
        "reason = { min_length = 10 }\napproval = [{ need = 1, from = [\"group:sre\"] }]\n",
        "reason = { min_length = 0 }\n",
    );
    let free = free.replace("expect = \"ask\"", "expect = \"allow\"");
    stage.write("typo.toml", &free.replace("hosts = ", "hots = "));
    let typo = stage.as_person("omar", &["policy", "apply", &stage.shown("typo.toml"), "--yes"]);
    assert!(typo.code == 2 && typo.err.contains("/typo.toml:") && !typo.err.contains("policy.toml"), "{}", typo.err);
    stage.write("free.toml", &free);
    let file = stage.shown("free.toml");
    assert_eq!(stage.types("omar", &["policy", "apply", &file, "--yes"]).code, 0);
    assert_eq!(stage.types("alice", &["request", "web-1", "--for", "5m", "--no-wait"]).code, 0);
    // A reason that begins with a hyphen is one.
    let hyphen = ["request", "web-2", "--reason", "-rf was typed where it should not", "--no-wait", "--json"];
    assert_eq!(stage.as_person("alice", &hyphen).field("reason"), hyphen[3]);
    // Here the rule wants a ticket, and says so.
    assert_eq!(stage.types("alice", &["request", "db-1", "--no-wait"]).code, 2);
    assert_eq!(stage.types("alice", &["request", "nohost", "--no-wait"]).code, 5);
    assert_eq!(stage.types("alice", &["explain", "nohost", "--as", "deploy"]).code, 5);
    stage.check("reason");
}

#[test]
fn a_wait_without_a_decision_prints_the_request_and_one_for_a_host_is_none() {
    let stage = Stage::new();
    let ran = stage.as_person("alice", &["request", "web-1", "--wait", "1s", "--reason", REASON]);
    assert!(ran.code == 2 && ran.err.contains("--wait=1s"), "{}", ran.err);
    let ran = stage.as_person("alice", &["request", "web-1", "--wait=1s", "--reason", REASON, "--json"]);
    assert_eq!((ran.code, ran.field("state")), (8, "pending".to_owned()), "{}", ran.err);
    let ran = stage.as_person("alice", &["requests", "--json"]);
    assert_eq!(ran.json()["requests"].as_array().unwrap().len(), 1, "nobody was asked for a host called 1s");
}

#[test]
fn an_export_goes_to_standard_output_or_a_file_that_was_not_there() {
    let stage = Stage::new();
    let ran = stage.as_person("omar", &["audit", "export", "--out", "-"]);
    assert!(ran.code == 0 && ran.out.starts_with("{\"hallpass_log\""), "{}{}", ran.out, ran.err);
    assert!(!std::path::Path::new("-").exists());
    stage.write("printed.jsonl", &ran.out);
    let verified = stage.as_person("omar", &["audit", "verify", &stage.shown("printed.jsonl")]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    let file = stage.shown("my log.jsonl");
    let ran = stage.as_person("omar", &["audit", "export", "--out", &file]);
    assert!(ran.code == 0 && ran.err.contains(&format!("verify --key KEY '{file}'")), "{}", ran.err);
    let again = stage.as_person("omar", &["audit", "export", "--out", &file]);
    assert!(again.code == 1 && again.err.contains("it is there already\n  next  "), "{}", again.err);
}

#[test]
fn a_host_stands_for_its_request_and_an_extension_is_taken_back_like_one() {
    let mut stage = Stage::new();
    assert_eq!(stage.types("alice", &["cancel"]).code, 1);
    let id = asked(&mut stage);
    assert_eq!(stage.types("alice", &["extend", "web-1", "--for", "5m"]).code, 1, "it waits still");
    assert_eq!(stage.as_person("alice", &["show", "web-1", "--json"]).field("id"), id);
    assert_eq!(stage.as_person("bob", &["show", "web-1", "--json"]).field("id"), id, "it waits for bob");
    assert_eq!(stage.types("alice", &["approve", "web-1", "-y"]).code, 1, "nobody decides their own");
    assert_eq!(stage.as_person("bob", &["approve", "web-1", "-y"]).code, 0);
    // What `status` shows can be extended, fetched or not.
    let more = ["extend", "web-1", "--for", "10m", "--reason", "not done yet", "--no-wait"];
    assert_eq!(stage.types("alice", &more).code, 8);
    stage.types("alice", &["status"]);
    stage.types("bob", &["inbox"]);
    assert_eq!(stage.types("alice", &["extend", "web-1", "--for", "5m", "--no-wait"]).code, 3);
    let taken_back = stage.types("alice", &["cancel"]);
    assert!(taken_back.code == 0 && taken_back.out.contains("access goes on until"), "{}", taken_back.out);
    stage.types("alice", &["status"]);
    stage.types("alice", &["cancel", "web-1"]);
    assert_eq!(stage.as_person("alice", &["end", "web-1"]).code, 0);
    // Where several fit, each is named.
    asked(&mut stage);
    let second = stage.as_person("alice", &["request", "web-1", "web-2", "--reason", REASON, "--no-wait"]);
    assert_eq!(second.code, 8, "{}", second.err);
    for (person, words) in [
        ("alice", &["show", "web-1"][..]),
        ("alice", &["wait", "web-1"]),
        ("bob", &["approve", "web-1", "-y"]),
        ("bob", &["deny", "web-1", "--reason", "which one?"]),
    ] {
        assert_eq!(stage.types(person, words).code, 2, "{words:?}");
    }
    assert_eq!(stage.types("bob", &["show", "web-9"]).code, 1);
    stage.check("which");
}

#[test]
fn nobody_is_asked_to_approve_what_is_decided() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    // Who can't be asked is told that they would be, and how to say yes to it beforehand.
    let waiting = stage.as_person("bob", &["approve", &id, "--no-input"]);
    assert!(waiting.code == 2 && waiting.err.contains("--yes"), "{}", waiting.err);
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    let decided = stage.as_person("bob", &["approve", &id, "--for", "5m", "--no-input"]);
    assert!(decided.code == 3 && decided.err.contains("nothing left to decide"), "{}", decided.err);
}

#[test]
fn what_still_opens_a_host_is_said_whatever_was_granted_and_not_fetched() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    assert_eq!(stage.types("alice", &["end", "web-1"]).err, "", "nothing was fetched");
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    assert_eq!(stage.as_person("alice", &["wait", &id]).code, 0);
    let end = stage.as_person("alice", &["show", &id, "--json"]).json()["window"]["not_after"].clone();
    assert_eq!(stage.as_person("alice", &["extend", &id, "--for", "10m", "--no-wait"]).code, 8);
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    let shown = stage.as_person("alice", &["show", &id, "--json"]).json();
    assert!(shown["serial"].is_null() && shown["window"]["not_after"] != end, "{shown}");
    // Of the certificate before the extension, which is out.
    let ended = stage.types("alice", &["end", &id]);
    let end = hallpass::time::Timestamp::parse(end.as_str().unwrap()).unwrap();
    let minute = jiff::Timestamp::from_second(i64::try_from(end.unix()).unwrap()).unwrap();
    let minute = minute.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string();
    assert!(ended.err.contains("one fetched before is valid until") && ended.err.contains(&minute), "{}", ended.err);
    stage.check("end_unfetched");
}

#[test]
fn what_cannot_be_approved_is_said_when_it_is_asked_for() {
    let mut stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let pair = "\n[[rule]]\nname = \"pair\"\nwho = [\"group:sre\"]\nhosts = [\"web-2\"]\naccounts = [\"ops\"]\n\
                approval = [{ need = 2, from = [\"group:sre\"] }]\n";
    stage.write("more.toml", &(policy + pair));
    let file = stage.shown("more.toml");
    assert_eq!(stage.as_person("omar", &["policy", "apply", &file, "--yes"]).code, 0);
    stage.types("bob", &["explain", "web-2", "--as", "ops", "--reason", REASON]);
    stage.types("alice", &["explain", "web-1", "--reason", REASON, "--json"]);
    let ask = ["request", "web-2", "--as", "ops", "--reason", REASON, "--no-wait", "--json"];
    let asked = stage.types("bob", &ask);
    assert!(asked.code == 8 && asked.err.contains("can't be had as the policy is"), "{}", asked.err);
    let id = asked.field("id");
    let mut waiting = stage.starts("bob", &["wait", &id]);
    waiting.hears("but \"2 of group:sre\" can't be had");
    stage.types("bob", &["show", &id]);
    let approved = stage.types("omar", &["approve", &id, "-y"]);
    assert!(approved.out.contains("that is not enough, and nobody else is known"), "{}", approved.out);
    assert_eq!(stage.types("bob", &["cancel", &id]).code, 0);
    waiting.ends();
    stage.check("unmeetable");
}

#[test]
fn who_applies_a_policy_is_warned_of_what_it_can_hardly_mean() {
    let mut stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let rules = "\n[[rule]]\nname = \"pair\"\nwho = [\"group:sre\"]\nhosts = [\"web-2\"]\naccounts = [\"ops\"]\n\
                 approval = [{ need = 2, from = [\"group:sre\"] }]\n\n[[rule]]\nname = \"no-interns\"\neffect = \"refuse\"\n\
                 who = [\"group:intern\"]\nhosts = [\"tag:role=wbe\"]\nmessage = \"not yet\"\n";
    stage.write("more.toml", &(policy + rules));
    let file = stage.shown("more.toml");
    assert_eq!(stage.types("omar", &["policy", "apply", &file, "--dry-run", "--json"]).code, 0);
    let applied = stage.types("omar", &["policy", "apply", &file, "--yes"]);
    assert!(applied.code == 0 && applied.err.matches("warning: ").count() == 3, "{}", applied.err);
    stage.check("policy_warnings");
}

/// A time that is on another clock than the line above it makes people count on their fingers, or get it wrong.
#[test]
fn a_request_and_its_history_are_shown_by_one_clock_and_the_log_by_its_own() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let far_east = |person: &str, words: &[&str]| {
        let ran = Ran::of(stage.command(person, words).env("TZ", "XYZ-9").output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let is_time = |word: &str| word.len() == 9 && word.ends_with('Z') && word.matches(':').count() == 2;
    let is_utc = |line: &str| line.split_whitespace().any(|word| is_time(word.trim_end_matches(',')));
    let shown = far_east("alice", &["show", &id]);
    let history = shown.lines().filter(|line| line.contains(&format!("  {id}: "))).collect::<Vec<_>>();
    assert!(history.len() >= 3 && history.iter().all(|line| line.contains(" +09:00  ")), "{shown}");
    assert!(shown.matches(" +09:00 to ").count() >= 2 && !shown.lines().any(is_utc), "{shown}");
    let log = far_east("omar", &["audit", "tail"]);
    assert!(log.lines().all(is_utc) && !log.contains("+09:00"), "{log}");
}
