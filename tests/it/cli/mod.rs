//! The command line as people and scripts meet it: the real program against a real server, every word and exit code pinned in
//! `tests/cli/*.txt` (`!` marks standard error, `[n]` the exit code). `UPDATE_GOLDEN=1` rewrites those; look at the diff.

mod backup;
mod ca_keys;
mod cas;
mod chromium;
mod completion;
mod device;
mod doctor;
mod enrol;
mod everyday;
mod false_certificates;
mod feed;
mod help;
mod host;
mod hostile;
mod inbox;
mod inventory;
mod key_material;
mod masters;
mod open;
mod operators;
mod plain_ssh;
mod plain_waiting;
mod report;
mod rotation;
mod sandbox;
pub(crate) mod schemas;
mod service;
mod session_keys;
mod stage;
mod still;
mod token;
mod watching;
mod webdriver;

use stage::{Ran, Stage};

const REASON: &str = "INC-7 pool exhausted";

/// Asks for web-1 as alice, without waiting; returns the request's id.
fn asked(stage: &mut Stage) -> String {
    let ran = stage.types("alice", &["request", "web-1", "--reason", REASON, "--for", "20m", "--no-wait", "--json"]);
    assert_eq!(ran.code, 8);
    ran.field("id")
}

#[test]
fn wrong_usage_says_what_and_exits_2_and_help_is_an_answer() {
    let mut stage = Stage::empty();
    for arguments in [
        &["aprove"][..],
        &["stauts"],
        &["policy", "aply"],
        &["xyzzy"],
        &["request"],
        &["request", "web-1", "--for", "soon"],
        &["request", "Web_1", "--json"],
        &["request", "web-1\u{1b}[2J\u{202e}"],
        &["request", &"a".repeat(300)],
        &["request", "web-1", "--as", "root;id"],
        &["request", "web-1", "--wait", "5m", "--no-wait"],
        &["approve", "IDONTKNOW"],
        &["approve", "7K3F", "--without", "everything"],
        &["requests", "--state", "open"],
        &["show"],
        &["status", "--profile", "../etc"],
        &["request", "web-1", "--reason", "--wait"],
        &["ssh", "-oProxyCommand=id"],
        &["ssh", "-p", "22", "web-1"],
        &["ssh", "web-1", "id"],
        &["ssh", "deploy@-oProxyCommand=id"],
        &["help", "nothing"],
    ] {
        let ran = stage.types("alice", arguments);
        assert_eq!(ran.code, if arguments[0] == "ssh" { 255 } else { 2 }, "{arguments:?}");
        assert_eq!(ran.out, "");
    }
    for arguments in [
        &["version"][..],
        &["version", "--json"],
        &["--version"],
        &["--help"],
        &["help", "exit-codes"],
        &["help", "environment"],
        &["help", "files"],
        &["help", "formatting"],
        &["help", "approve"],
        &["help", "audit", "search"],
    ] {
        let ran = stage.types("alice", arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
    }
    stage.check("usage");
}

#[test]
fn manual_pages_come_from_the_command_tree() {
    let stage = Stage::empty();
    let ran = stage.as_person("alice", &["man"]);
    assert!(ran.code == 0 && ran.out.contains(".TH hallpass 1"), "{}", ran.out);
    let ran = stage.as_person("alice", &["man", "--out", &stage.shown("man"), "--json"]);
    let written = ran.json()["written"].as_array().unwrap().len();
    assert!(written > 25, "{}", ran.out);
    assert!(std::fs::read_to_string(stage.path("man/man1/hallpass-policy-apply.1")).unwrap().contains("dry\\-run"));
    for topic in ["exit-codes", "environment", "files", "formatting"] {
        let page = std::fs::read_to_string(stage.path(&format!("man/man7/hallpass-{topic}.7"))).unwrap();
        let said = stage.as_person("alice", &["help", topic]).out;
        let body: String = page
            .lines()
            .skip_while(|line| *line != ".nf")
            .skip(1)
            .take_while(|line| *line != ".fi")
            .fold(String::new(), |text, line| text + line.trim_start_matches("\\&") + "\n");
        let said = said.split_once('\n').unwrap().1.to_owned();
        assert_eq!(body.replace("\\-", "-").replace("\\e", "\\"), said);
    }
}

#[test]
fn logging_in_recognises_the_server_and_the_person_or_says_why_not() {
    let mut stage = Stage::empty();
    stage.set_up();
    stage.start();
    let (url, pin) = (stage.url(), stage.pin());
    let key = stage.shown("alice/login_key");
    let login = |more: &[&'static str]| {
        let mut all = vec!["login".to_owned(), "--server".to_owned(), url.clone()];
        all.extend(more.iter().map(|m| (*m).to_owned()));
        all
    };
    let types = |stage: &mut Stage, arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        stage.types("alice", &arguments)
    };
    let with = |mut all: Vec<String>, more: &[&str]| {
        all.extend(more.iter().map(|m| (*m).to_owned()));
        all
    };
    stage.types("alice", &["status"]);
    stage.types("alice", &["login"]);
    stage.types("alice", &["login", "--server", "ftp://example.com", "--person", "alice"]);
    stage.types("alice", &["login", "--server", "https://127.0.0.1:1", "--person", "alice", "--timeout", "5s"]);
    types(&mut stage, login(&[]));
    types(&mut stage, login(&["--person", "alice@example.com"]));
    types(&mut stage, with(login(&["--person", "alice@example.com", "--pin"]), &["00"]));
    let wrong_pin = "0".repeat(64);
    let ran = types(&mut stage, with(login(&["--person", "alice@example.com", "--pin"]), &[&wrong_pin, "--key", &key]));
    assert_eq!(ran.code, 6);
    // No key at all, then somebody else's, then a file that is none.
    types(&mut stage, with(login(&["--person", "alice@example.com", "--pin"]), &[&pin]));
    let eve = stage.shown("eve/login_key");
    types(&mut stage, with(login(&["--person", "alice@example.com", "--pin"]), &[&pin, "--key", &eve]));
    let none = stage.shown("answers.toml");
    types(&mut stage, with(login(&["--person", "alice@example.com", "--pin"]), &[&pin, "--key", &none]));
    let ran = types(&mut stage, with(login(&["--person", "nobody@example.com", "--pin"]), &[&pin, "--key", &key]));
    assert_eq!(ran.code, 4);
    let ran = types(&mut stage, with(login(&["--person", "alice@example.com", "--pin"]), &[&pin, "--key", &key]));
    assert_eq!(ran.code, 0);
    // From now on the profile knows server, pin, person and key; the public half of the key is as good.
    stage.types("alice", &["login", "--json"]);
    let public = stage.shown("alice/login_key.pub");
    stage.types("alice", &["login", "--key", &public]);
    stage.types("alice", &["status"]);
    stage.types("alice", &["status", "--json"]);
    stage.types("alice", &["status", "--server", "https://elsewhere.example"]);
    stage.types("alice", &["status", "--profile", "work"]);
    stage.types("alice", &["logout"]);
    stage.types("alice", &["status"]);
    stage.types("alice", &["status", "--json"]);
    stage.types("alice", &["logout"]);
    stage.types("alice", &["logout", "--everywhere"]);
    stage.check("login");
}

#[test]
fn the_session_file_is_ours_alone_and_never_printed() {
    use std::os::unix::fs::PermissionsExt as _;
    let stage = Stage::new();
    let path = stage.path("alice/state/default/session");
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let token = std::fs::read_to_string(&path).unwrap();
    let token = serde_json::from_str::<serde_json::Value>(&token).unwrap()["token"].as_str().unwrap().to_owned();
    for arguments in [&["status", "--json", "-v"][..], &["login", "--json", "-v"], &["logout", "-v"]] {
        let ran = stage.as_person("alice", arguments);
        assert!(ran.code == 0 && !ran.out.contains(&token) && !ran.err.contains(&token), "{arguments:?}");
    }
    assert!(!path.exists());
}

#[test]
fn a_key_in_an_agent_logs_in_without_being_named() {
    let mut stage = Stage::new();
    let socket = stage.shown("agent");
    let mut agent = std::process::Command::new("ssh-agent")
        .args(["-D", "-a", &socket])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It says where it listens once it does.
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.stdout.take().unwrap()), &mut line).unwrap();
    let add = |key: &str| {
        let mut add = std::process::Command::new("ssh-add");
        add.arg("-q").arg(stage.path(key)).env("SSH_AUTH_SOCK", &socket);
        assert!(add.status().unwrap().success());
    };
    add("eve/login_key");
    add("bob/login_key");
    let (url, pin) = (stage.url(), stage.pin());
    let login = ["login", "--profile", "agent", "--server", &url, "--pin", &pin, "--person", "bob@example.com"];
    let with = stage.types_with("bob", &login, &[("SSH_AUTH_SOCK", &socket)]);
    let nobody = stage.types_with("bob", &login, &[("SSH_AUTH_SOCK", "/nowhere")]);
    // The agent signs approvals, too; without it the key is not to be had.
    let id = asked(&mut stage);
    let approve = ["approve", &id, "-y", "--profile", "agent"];
    let without = stage.types_with("bob", &approve, &[("SSH_AUTH_SOCK", "/nowhere")]);
    let approved = stage.types_with("bob", &approve, &[("SSH_AUTH_SOCK", &socket)]);
    assert_eq!((without.code, approved.code), (7, 0));
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!((with.code, nobody.code), (0, 4));
    stage.check("agent");
}

#[test]
fn an_approver_signs_with_the_key_that_logged_in_and_an_auditor_proves_it() {
    let mut stage = Stage::empty();
    stage.set_up();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let policy = policy
        .replace("from = [\"group:sre\"] }]", "from = [\"group:sre\"], signed = true }]")
        .replace("[defaults]\n", "[defaults]\nbackdate = \"45s\"\n")
        .replace("reason = { min_length", "sources = [\"10.0.0.0/8\"]\ncommand = \"uptime -p\"\nreason = { min_length")
        .replace(
            "[[host]]\nname = \"db-1\"",
            "[[host]]\nname = \"web-3\"\nscope = \"account\"\ntags = { role = \"web\" }\n\n[[host]]\nname = \"db-1\"",
        )
        .replace("[roles]\n", "[roles]\nauditor = [\"person:omar@example.com\"]\n");
    stage.write("service/policy.toml", &policy);
    stage.start();
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    let id = asked(&mut stage);
    let unsigned = stage.types("bob", &["approve", &id, "-y", "--unsigned"]);
    // The key that logged in is gone; another one stands in its place.
    let away = stage.path("bob/away");
    std::fs::rename(stage.path("bob/login_key"), &away).unwrap();
    let gone = stage.types("bob", &["approve", &id, "-y"]);
    std::fs::copy(stage.path("eve/login_key"), stage.path("bob/login_key")).unwrap();
    let other = stage.types("bob", &["approve", &id, "-y", "--json"]);
    std::fs::rename(&away, stage.path("bob/login_key")).unwrap();
    let narrowed =
        ["approve", &id, "-y", "--for", "10m", "--without", "port_forwarding", "--comment", " short \"one\" "];
    let approved = stage.types("bob", &narrowed);
    assert_eq!((unsigned.code, gone.code, other.code, approved.code), (3, 7, 7, 0));
    // More time is signed like access.
    assert_eq!(stage.types("alice", &["wait", &id]).code, 0);
    stage.types("alice", &["extend", &id, "--for", "5m", "--reason", "not done yet", "--no-wait"]);
    assert_eq!(stage.types("bob", &["approve", &id, "-y"]).code, 0);

    // All that a statement can name, of hosts with principals of both kinds.
    let start = hallpass::time::Clock::now(&hallpass::time::SystemClock);
    let start = start.plus(hallpass::time::Lifetime::minutes(120)).unwrap().to_string();
    let mut more = vec!["request", "web-1", "web-3", "--reason", REASON, "--no-wait", "--json"];
    more.extend(["--ticket", "INC-7", "--start", &start]);
    let second = stage.types("alice", &more).field("id");
    assert_eq!(stage.types("bob", &["approve", &second, "-y", "--only", "web-3"]).code, 0);

    stage.types("omar", &["audit", "search", "kind:approved"]);
    let log = stage.shown("log.jsonl");
    assert_eq!(stage.types("omar", &["audit", "export", "--out", &log]).code, 0);
    let bobs = std::fs::read_to_string(stage.path("bob/login_key.pub")).unwrap();
    stage.write("signers", &format!("bob@example.com {bobs}"));
    stage.write("others", &format!("omar@example.com {bobs}"));
    let (signers, others) = (stage.shown("signers"), stage.shown("others"));
    let proven = stage.types("omar", &["audit", "verify", "--signed", "--signers", &signers, &log]);
    let json = stage.types("omar", &["audit", "verify", "--signed", "--signers", &signers, &log, "--json"]);
    let strange = stage.types("omar", &["audit", "verify", "--signers", &others, &log]);
    let none = stage.types("omar", &["audit", "verify", "--signers", &log, &log]);
    assert_eq!((proven.code, json.code, strange.code, none.code), (0, 0, 1, 2));
    stage.check("signed");
}

#[test]
fn who_logged_in_without_a_known_key_or_cannot_use_it_may_approve_without_signing() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    // The key has got a passphrase since, and nobody is there to type it.
    let locked = ["-q", "-p", "-P", "", "-N", "secret", "-f"];
    let made = std::process::Command::new("ssh-keygen").args(locked).arg(stage.path("bob/login_key")).output();
    assert!(made.unwrap().status.success());
    assert_eq!(stage.types("bob", &["approve", &id, "-y"]).code, 7);
    // As an older hallpass wrote it.
    let session = stage.path("bob/state/default/session");
    let mut known: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&session).unwrap()).unwrap();
    known.as_object_mut().unwrap().remove("key").unwrap();
    std::fs::write(&session, known.to_string()).unwrap();
    let old = stage.types("bob", &["approve", &id, "-y"]);
    let unsigned = stage.types("bob", &["approve", &id, "-y", "--unsigned"]);
    assert_eq!((old.code, unsigned.code), (7, 0));
    stage.check("unsigned");
}

#[test]
fn the_main_story_from_question_to_end() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    stage.types("alice", &["request", "web-2", "--reason", REASON, "--no-wait"]);
    stage.types("alice", &["status"]);
    stage.types("bob", &["inbox"]);
    stage.types("bob", &["inbox", "--json"]);
    stage.types("eve", &["inbox"]);
    stage.types("alice", &["approve", &id, "-y"]);
    stage.types("bob", &["approve", &id]);
    stage.types("bob", &["approve", &id, "-y", "--digest", &"0".repeat(64)]);
    stage.types("bob", &["approve", &id, "-y", "--for", "2h"]);
    stage.types("bob", &["approve", &id, "-y", "--for", "10m", "--without", "port_forwarding", "--comment", "short"]);
    stage.types("omar", &["approve", &id, "-y", "--json"]);
    stage.types("alice", &["wait", &id]);
    let ran = stage.types("alice", &["wait", &id, "--json"]);
    let certificate = ran.json()["certificate"]["path"].as_str().unwrap().to_owned();
    stage.types("alice", &["cert", "show", &certificate]);
    stage.types("alice", &["cert", "show", &certificate, "--json"]);
    stage.types("alice", &["cert", "ls"]);
    stage.types("alice", &["cert", "ls", "--json"]);
    stage.types("alice", &["show", &id]);
    stage.types("alice", &["requests", "--mine"]);
    stage.types(
        "alice",
        &["requests", "--state", "issued", "--host", "web-1", "--person", "alice@example.com", "--since", "1h"],
    );
    stage.types("alice", &["requests", "--state", "expired", "--json"]);
    stage.types("alice", &["end", "web-1"]);
    stage.types("alice", &["end", "web-1"]);
    stage.types("alice", &["wait", &id]);
    stage.types("alice", &["cancel"]);
    stage.types("alice", &["cancel"]);
    stage.types("alice", &["cert", "ls"]);
    stage.check("story");
    assert!(!std::path::Path::new(&certificate).exists(), "what is over is swept");
}

#[test]
fn what_is_refused_denied_or_not_there_has_its_own_exit_code() {
    let mut stage = Stage::new();
    for (code, arguments) in [
        (5, &["request", "web-1", "--as", "root", "--reason", REASON][..]),
        (5, &["request", "db-1", "--as", "deploy", "--reason", REASON]),
        (5, &["request", "web-1", "--reason", "short"]),
        (5, &["request", "db-1", "--reason", "looking", "--ticket", "OPS-1"]),
        (5, &["request", "web-1", "--reason", REASON, "--for", "3h"]),
        (5, &["request", "nowhere-1", "--reason", REASON]),
        (2, &["request", "tag:role=none", "--reason", REASON]),
        (2, &["request", "web-1", "--reason", "bell \u{7} and \u{202e}sdrawkcab"]),
        (2, &["request", "web-1"]),
    ] {
        let ran = stage.types("alice", arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.err);
    }
    stage.types("alice", &["request", "db-1", "--as", "deploy", "--reason", REASON, "--json"]);
    let id = asked(&mut stage);
    assert_eq!(stage.types("eve", &["show", &id]).code, 4);
    stage.log_in("eve");
    assert_eq!(stage.types("eve", &["show", &id]).code, 1);
    assert_eq!(stage.types("eve", &["approve", &id, "-y"]).code, 1);
    assert_eq!(stage.types("alice", &["deny", &id, "--reason", "changed my mind"]).code, 3);
    assert_eq!(stage.types("bob", &["deny", &id]).code, 2);
    assert_eq!(stage.types("bob", &["deny", &id, "--reason", "use the replica"]).code, 0);
    assert_eq!(stage.types("alice", &["wait", &id]).code, 3);
    assert_eq!(stage.types("alice", &["wait", &id, "--json"]).code, 3);
    assert_eq!(stage.types("bob", &["approve", &id, "-y"]).code, 3);
    assert_eq!(stage.types("alice", &["extend", "--for", "5m"]).code, 1);
    assert_eq!(stage.types("alice", &["wait"]).code, 1);
    stage.check("refused");
}

#[test]
fn what_policy_allows_at_once_comes_with_its_certificate() {
    let mut stage = Stage::new();
    let ran = stage.types("alice", &["request", "db-1", "--reason", "looking", "--ticket", "INC-9", "--no-wait"]);
    assert_eq!(ran.code, 0);
    stage.types("alice", &["cert", "ls"]);
    // More time, up to the rule's longest: the old key, a new certificate.
    let ran = stage.types("alice", &["extend", "db-1", "--for", "5m"]);
    assert_eq!(ran.code, 0);
    let ran = stage.types("alice", &["extend", "db-1", "--for", "5d"]);
    assert_eq!(ran.code, 5);
    stage.types("alice", &["end"]);
    stage.check("allowed");
}

#[test]
fn where_several_accounts_are_possible_each_is_a_line_to_type() {
    let mut stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let more =
        "\n[[rule]]\nname = \"web-logs\"\nwho = [\"group:backend\"]\nhosts = [\"web-1\"]\naccounts = [\"logs\"]\n";
    stage.write("more.toml", &(policy + more));
    let file = stage.shown("more.toml");
    assert_eq!(stage.as_person("omar", &["policy", "apply", &file, "--yes"]).code, 0);
    for (asked, code) in [
        (&["explain", "web-1"][..], 2),
        (&["request", "web-1", "--reason", REASON], 2),
        (&["ssh", "web-1", "--reason", REASON], 255),
    ] {
        assert_eq!(stage.types("alice", asked).code, code);
    }
    stage.check("accounts");
}

#[test]
fn an_extension_waits_for_its_own_decision() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    stage.types("bob", &["approve", &id, "-y"]);
    stage.types("alice", &["wait"]);
    let ran = stage.types("alice", &["extend", "web-1", "--for", "10m", "--no-wait"]);
    assert_eq!(ran.code, 8);
    // Alice waits in a second terminal while bob says no.
    let mut waiting = stage.starts("alice", &["wait", &id]);
    waiting.hears("waiting for");
    assert_eq!(stage.types("bob", &["deny", &id, "--reason", "finish up"]).code, 0);
    let ran = waiting.ends();
    stage.note("alice", &["wait", &id], &ran);
    assert_eq!(ran.code, 0, "access goes on");
    let mut extending = stage.starts("alice", &["extend", "--for", "15m", "--reason", "rollback running", "--wait"]);
    extending.hears("waiting for");
    stage.types("bob", &["show", &id]);
    assert_eq!(stage.types("bob", &["approve", &id, "-y"]).code, 0);
    let ran = extending.ends();
    stage.note("alice", &["extend", "--for", "15m", "--reason", "rollback running", "--wait"], &ran);
    assert_eq!(ran.code, 0);
    let mut extending = stage.starts("alice", &["extend", "--for", "1m", "--wait"]);
    extending.hears("waiting for");
    stage.types("bob", &["deny", &id, "--reason", "no"]);
    let ran = extending.ends();
    stage.note("alice", &["extend", "--for", "1m", "--wait"], &ran);
    assert_eq!(ran.code, 3);
    // Granted while nobody waited: found without its id, and fetched before a further one is asked for.
    for last in [&["wait"][..], &["extend", "web-1", "--for", "1m", "--no-wait"]] {
        assert_eq!(stage.types("alice", &["extend", "web-1", "--for", "2m", "--no-wait"]).code, 8);
        assert_eq!(stage.types("bob", &["approve", &id, "-y"]).code, 0);
        assert_eq!(stage.types("alice", last).code, if last == ["wait"] { 0 } else { 8 });
    }
    stage.check("extension");
}

#[test]
fn waiting_survives_a_restarted_server() {
    let mut stage = Stage::new();
    let mut waiting = stage.starts("alice", &["request", "web-1", "--reason", REASON, "--wait"]);
    waiting.hears("waiting for");
    stage.stop();
    waiting.hears("cannot be reached");
    let away = stage.types("bob", &["inbox"]);
    assert_eq!(away.code, 6);
    stage.types("bob", &["inbox", "--json"]);
    assert_eq!(stage.types("omar", &["admin", "host", "ls"]).code, 6);
    stage.start();
    let id = stage.as_person("bob", &["inbox", "--json"]).json()["requests"][0]["id"].as_str().unwrap().to_owned();
    waiting.hears("connected again");
    stage.types("bob", &["approve", &id, "-y"]);
    let ran = waiting.ends();
    stage.note("alice", &["request", "web-1", "--reason", REASON, "--wait"], &ran);
    assert_eq!(ran.code, 0);
    stage.check("restart");
}

#[test]
fn an_interrupted_wait_leaves_the_request_open() {
    let mut stage = Stage::new();
    let mut waiting = stage.starts("alice", &["request", "web-1", "--reason", REASON, "--wait"]);
    waiting.hears("waiting for");
    waiting.signal("INT");
    let ran = waiting.ends();
    stage.note("alice", &["request", "web-1", "--reason", REASON, "--wait"], &ran);
    assert_eq!(ran.code, 130);
    assert_eq!(stage.types("alice", &["request", "web-1", "--reason", REASON, "--wait=1s"]).code, 8);
    assert_eq!(stage.types("alice", &["wait"]).code, 2);
    assert_eq!(stage.types("alice", &["requests", "--state", "pending"]).code, 0);
    stage.check("interrupted");
}

#[test]
fn a_key_whose_answer_was_lost_is_found_again() {
    let stage = Stage::new();
    let ran = stage.as_person("alice", &["request", "web-1", "--reason", REASON, "--no-wait", "--json"]);
    let id = ran.field("id");
    // As a kill between the answer and the renaming of the folder leaves it.
    let root = stage.path("alice/run/default");
    std::fs::rename(root.join(id.replace('-', "")), root.join("new-0011223344556677")).unwrap();
    std::fs::remove_file(root.join("new-0011223344556677/request.json")).unwrap();
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    let ran = stage.as_person("alice", &["wait", &id, "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(root.join(id.replace('-', "")).join("key-cert.pub").exists());
    // On another machine there is no key, and so no certificate.
    let mut elsewhere = stage.command("alice", &["wait", &id]);
    let ran = Ran::of(elsewhere.env("HALLPASS_RUNTIME_DIR", stage.path("alice/elsewhere")).output().unwrap());
    assert!(ran.code == 0 && ran.err.contains("not on this machine"), "{}", ran.err);
}

#[test]
fn key_folders_that_others_can_reach_are_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut stage = Stage::new();
    let root = stage.path("alice/run/default");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = ["request", "web-1", "--reason", REASON, "--no-wait"];
    assert_eq!(stage.types("alice", &arguments).code, 7);
    std::fs::remove_dir(&root).unwrap();
    std::fs::create_dir(stage.path("alice/other")).unwrap();
    std::os::unix::fs::symlink(stage.path("alice/other"), &root).unwrap();
    assert_eq!(stage.types("alice", &arguments).code, 7);
    let odd = stage.shown("alice/100%");
    assert_eq!(stage.types_with("alice", &arguments, &[("HALLPASS_RUNTIME_DIR", &odd)]).code, 1);
    stage.check("key_folder");
    assert!(stage.as_person("alice", &["requests"]).out.starts_with("no requests"), "nothing was asked");
}

#[test]
fn ssh_asks_waits_and_becomes_ssh() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut stage = Stage::new();
    let fake = stage.shown("fake-ssh");
    stage.write("fake-ssh", "#!/bin/sh\nfor word; do printf 'ssh got: %s\\n' \"$word\"; done\nexit 42\n");
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let env = [("HALLPASS_SSH", fake.as_str())];
    // Before it starts, every failure is 255.
    assert_eq!(stage.types_with("alice", &["ssh", "web-1"], &env).code, 255);
    assert_eq!(stage.types_with("alice", &["ssh", "db-1", "--as", "root", "--reason", REASON], &env).code, 255);
    assert_eq!(stage.types_with("eve", &["ssh", "web-1", "--reason", REASON], &env).code, 255);
    // Without an ssh nobody is asked for anything.
    let nowhere = [("HALLPASS_SSH", "/nowhere/ssh")];
    assert_eq!(stage.types_with("alice", &["ssh", "web-1", "--reason", REASON], &nowhere).code, 255);
    assert!(stage.as_person("alice", &["requests"]).out.starts_with("no requests"));
    // Nor for a reason, where it would be for nothing.
    assert_eq!(stage.types_with("alice", &["ssh", "nohost"], &env).code, 255);
    let wait = ["ssh", "web-1", "--reason", REASON, "--wait", "1s"];
    assert_eq!(stage.types_with("alice", &wait, &env).code, 255);
    let id = stage.as_person("alice", &["requests", "--json"]).json()["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(stage.types("bob", &["approve", &id, "-y"]).code, 0);
    // The open request is taken up again, not asked anew.
    let ran = stage.types_with("alice", &["ssh", "web-1", "--", "-p", "2222", "uptime", "-p"], &env);
    assert_eq!(ran.code, 42);
    assert_eq!(stage.types_with("alice", &["ssh", "deploy@web-1"], &env).code, 42);
    assert_eq!(stage.types_with("alice", &["ssh", "--as", "debug", "deploy@web-1"], &env).code, 255);
    assert_eq!(stage.types_with("alice", &["ssh", "web-1"], &[("HALLPASS_SSH", "/nowhere/ssh")]).code, 255);
    // With a live certificate the server is not needed.
    stage.stop();
    assert_eq!(stage.types_with("alice", &["ssh", "web-1", "true"], &env).code, 255);
    assert_eq!(stage.types_with("alice", &["ssh", "web-1", "--", "true"], &env).code, 42);
    stage.check("ssh");
}

#[test]
fn explain_says_what_each_rule_thinks() {
    let mut stage = Stage::new();
    stage.types("alice", &["explain", "web-1", "--reason", REASON]);
    stage.types("alice", &["explain", "web-1", "--reason", REASON, "--json"]);
    stage.types("alice", &["explain", "db-1", "--as", "root", "--reason", REASON]);
    stage.types("omar", &["explain", "web-1", "--person", "eve@example.com", "--as", "deploy", "--reason", REASON]);
    assert_eq!(stage.types("alice", &["explain", "web-1", "--person", "eve@example.com"]).code, 3);
    // The same, of the very words of a request: nothing is asked for, and no key is made.
    for (code, more) in [
        (0, &["web-1", "--reason", REASON, "--for", "5m"][..]),
        (0, &["web-1", "--reason", REASON, "--json"]),
        (5, &["web-1"]),
        (5, &["db-1", "--as", "root", "--reason", REASON]),
        (2, &["web-1", "--reason", REASON, "--wait"]),
    ] {
        let words = [&["request", "--dry-run"][..], more].concat();
        assert_eq!(stage.types("alice", &words).code, code, "{more:?}");
    }
    assert!(stage.as_person("alice", &["requests", "--json"]).out.contains("\"requests\":[]"));
    assert!(stage.as_person("omar", &["audit", "search", "kind:asked"]).out.contains("no entry"));
    stage.check("explain");
}

#[test]
fn operators_apply_policies_and_read_the_log() {
    let mut stage = Stage::new();
    let policy = stage.shown("service/policy.toml");
    stage.types("omar", &["policy", "history"]);
    stage.types("omar", &["policy", "apply", &policy, "-y"]);
    let text = std::fs::read_to_string(&policy).unwrap();
    stage.write("service/policy.toml", &text.replace("max = \"10m\"", "max = \"8m\""));
    stage.types("omar", &["policy", "apply", &policy, "--dry-run"]);
    assert_eq!(stage.types("omar", &["policy", "apply", &policy]).code, 2);
    assert_eq!(stage.types("omar", &["policy", "apply", &policy, "-y"]).code, 0);
    assert_eq!(stage.types("bob", &["policy", "apply", &policy, "-y"]).code, 3);
    stage.write("broken.toml", &text.replace("[roles]", "[rolls]"));
    let broken = stage.shown("broken.toml");
    assert_eq!(stage.types("omar", &["policy", "apply", &broken, "-y"]).code, 2);
    stage.write("failing.toml", &text.replace("expect = \"ask\"", "expect = \"allow\""));
    let failing = stage.shown("failing.toml");
    assert_eq!(stage.types("omar", &["policy", "apply", &failing, "-y"]).code, 2);
    stage.types("omar", &["policy", "history", "--json"]);
    assert_eq!(stage.as_person("omar", &["policy", "show", "1"]).out, text);
    assert_eq!(stage.types("omar", &["policy", "show", "9"]).code, 1);
    stage.types("alice", &["ca", "export"]);
    let id = asked(&mut stage);
    stage.types("omar", &["audit", "tail", "-n", "4"]);
    stage.types("omar", &["audit", "search", "kind:policy_applied"]);
    stage.types("omar", &["audit", "search", &format!("request:{id}"), "pool", "--json"]);
    stage.types("omar", &["audit", "search", "xyzzy"]);
    stage.types("omar", &["audit", "show", "0"]);
    assert_eq!(stage.types("omar", &["audit", "show", "999"]).code, 1);
    assert_eq!(stage.types("alice", &["audit", "tail"]).code, 3);
    let out = stage.shown("log.jsonl");
    stage.types("omar", &["audit", "export", "--out", &out]);
    assert_eq!(stage.types("omar", &["audit", "export", "--out", &out]).code, 1);
    assert_eq!(stage.types("omar", &["audit", "verify", &out]).code, 0);
    assert_eq!(stage.as_person("alice", &["cancel", &id]).code, 0);
    let newer = stage.shown("newer.jsonl");
    assert_eq!(stage.types("omar", &["audit", "export", "--earlier", &out, "--out", &newer]).code, 0);
    let kept = stage.as_person("omar", &["audit", "verify", "--earlier", &out, &newer]);
    assert!(kept.code == 0 && kept.out.contains("the log continues the one of 8 entries"), "{}{}", kept.out, kept.err);
    let same = stage.shown("same.jsonl");
    assert_eq!(stage.types("omar", &["audit", "export", "--earlier", &newer, "--out", &same]).code, 0);
    let whole = stage.shown("whole.jsonl");
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &whole]).code, 0);
    let read = |name: &str| std::fs::read_to_string(stage.path(name)).unwrap();
    assert_eq!(read("newer.jsonl"), read("whole.jsonl"));
    assert_eq!(read("same.jsonl"), read("whole.jsonl"));
    // An older export that is none, is damaged, cut off, or of another log: nothing is written.
    let folder = stage.path("");
    let names = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|name| name.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let (old, other) = (read("log.jsonl"), read("log.jsonl").replacen("/log+", "/other+", 1));
    stage.write("twisted.jsonl", &old.replacen("policy_applied", "policy_replied", 1));
    stage.write("moved.jsonl", &old.replacen("bob", "eve", 1));
    stage.write("cut.jsonl", old.trim_end());
    stage.write("other.jsonl", &other);
    stage.write("more.jsonl", &format!("{old}{old}"));
    let before = names();
    for name in ["none", "twisted", "moved", "cut", "other", "more"] {
        let earlier = stage.shown(&format!("{name}.jsonl"));
        assert_eq!(
            stage.types("omar", &["audit", "export", "--earlier", &earlier, "--out", &stage.shown("new")]).code,
            1
        );
    }
    assert_eq!(names(), before);
    stage.check("operator");
}
