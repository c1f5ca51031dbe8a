//! Plain `ssh` while somebody waits, and on a machine whose clock is wrong.

use std::process::Command;

use super::REASON;
use super::plain_ssh::{Plain, Typed};
use super::stage::{HALLPASS, Ran};

/// The id of the one request that waits for bob.
fn waiting_for_bob(plain: &Plain) -> String {
    plain.stage.as_person("bob", &["inbox", "--json"]).json()["requests"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_waited_for_and_the_shell_comes_all_the_same() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let mut shell = Typed::start(&plain, &format!("ssh -F {config} web-1"));
    shell.sees("Reason: ");
    shell.types(REASON);
    shell.sees("waiting for bob@example.com");
    let id = waiting_for_bob(&plain);
    plain.stage.kill();
    shell.sees("the access server cannot be reached");
    plain.stage.start();
    shell.sees("connected again");
    assert_eq!(plain.stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    shell.sees("access to web-1 as deploy until ");
    shell.types("exit 3");
    assert_eq!(shell.ends().0, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_is_denied_taken_back_or_ended_says_so_by_its_exit_code() {
    let Some(mut plain) = Plain::new().await else { return };
    for (by, command, code, said) in [
        ("bob", "deny", 3, "bob@example.com denied "),
        ("alice", "cancel", 9, "was taken back"),
        ("omar", "end", 9, "omar@example.com ended "),
    ] {
        let mut waiting = plain.stage.starts("alice", &["request", "web-1", "--reason", REASON, "--wait"]);
        waiting.hears("waiting for");
        let id = waiting_for_bob(&plain);
        let with_reason = [command, &id, "--reason", "not tonight"];
        let arguments = if command == "cancel" { &with_reason[..2] } else { &with_reason[..] };
        let done = plain.stage.as_person(by, arguments);
        if command == "end" {
            // What waits is not ended but denied: ending is for what was granted.
            assert_eq!(done.code, 3, "{}", done.err);
            assert_eq!(plain.stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
            assert_eq!(waiting.ends().code, 0);
            let extending = ["extend", &id, "--for", "10m", "--wait"];
            let mut waiting = plain.stage.starts("alice", &extending);
            waiting.hears("waiting for");
            assert_eq!(plain.stage.as_person(by, arguments).code, 0);
            let ran = waiting.ends();
            assert_eq!(ran.code, code, "{}", ran.err);
            assert!(ran.err.contains(said), "{}", ran.err);
            continue;
        }
        assert_eq!(done.code, 0, "{}", done.err);
        let ran = waiting.ends();
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_one_account_does_not_hold_up_another() {
    let Some(plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let mut asked = Typed::start(&plain, &format!("ssh -F {config} deploy@web-1"));
    asked.sees("Reason: ");
    let same = plain.ssh(&["deploy@web-1", "true"]);
    assert!(same.err.starts_with("hallpass: web-1: another ssh waits for access\n"), "{}", same.err);
    let other = plain.ssh(&["logs@web-1", "true"]);
    assert!(!other.err.contains("another ssh waits"), "{}", other.err);
    assert!(other.err.contains("web-1"), "{}", other.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_lapses_while_somebody_waits_ends_the_waiting() {
    let Some(plain) = Plain::new().await else { return };
    let policy = std::fs::read_to_string(plain.stage.path("service/policy.toml")).unwrap();
    plain.stage.write("soon.toml", &policy.replace("[defaults]\n", "[defaults]\ndecide_by = \"2s\"\n"));
    let file = plain.stage.shown("soon.toml");
    let applied = plain.stage.as_person("omar", &["policy", "apply", &file, "--yes"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    let ran = plain.stage.as_person("alice", &["request", "web-1", "--reason", REASON, "--wait"]);
    assert_eq!(ran.code, 9, "{}", ran.err);
    assert!(ran.err.contains("nobody decided "), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_laptop_whose_clock_is_off_is_told_by_how_much_and_gets_in() {
    for (off, said) in [("+10m", "10 min 0 s ahead of"), ("-10m", "10 min 0 s behind"), ("+40m", "40 min 0 s ahead of")]
    {
        let Some(mut plain) = Plain::new().await else { return };
        let config = plain.stage.shown("ssh_config");
        plain.granted(&["web-1"]);
        let wrong = |plain: &Plain, arguments: &[&str]| {
            let all = [&["-f", off], arguments].concat();
            Ran::of(plain.program("faketime", &all).output().unwrap())
        };
        let ran = wrong(&plain, &["ssh", "-F", &config, "web-1", "id", "-un"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "deploy\n"), "{}", ran.err);
        let about = &said[..6];
        let warning = ran.err.lines().find(|line| line.contains("HP-121")).unwrap_or_else(|| panic!("{}", ran.err));
        assert!(warning.contains("your clock is ") && warning.contains(&said[10..]), "{warning}");
        assert!(warning.contains(about) || warning.contains("9 min 59 s"), "{warning}");
        // The next one has a certificate, by the server's clock: silent, and without the server.
        drop(plain.stage.stop());
        let again = wrong(&plain, &["ssh", "-F", &config, "web-1", "true"]);
        assert_eq!((again.code, again.err.as_str()), (0, ""));
        assert_eq!(plain.certificates_known(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_within_the_backdating_is_nobodys_business() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    plain.granted(&["web-1"]);
    for off in ["+20s", "-20s"] {
        let ran =
            Ran::of(plain.program("faketime", &["-f", off, "ssh", "-F", &config, "web-1", "true"]).output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_set_up_has_ssh_refuse_where_the_ssh_is_new_enough() {
    let Some(mut plain) = Plain::new().await else { return };
    let set_up = plain.setup(&["--strict"]);
    let said = Command::new("ssh").arg("-V").output().unwrap();
    let said = String::from_utf8(said.stderr).unwrap();
    let version: Vec<u32> =
        said.trim_start_matches("OpenSSH_").splitn(3, ['.', 'p']).take(2).map(|n| n.parse().unwrap()).collect();
    if version < vec![10, 1] {
        assert_eq!(set_up.code, 7);
        assert!(
            set_up.err.contains("is too old for --strict\n  why   it takes OpenSSH 10.1 or newer\n"),
            "{}",
            set_up.err
        );
        return;
    }
    assert_eq!(set_up.code, 0, "{}", set_up.err);
    let refused = plain.ssh(&["web-1", "true"]);
    assert_eq!(refused.code, 255);
    assert!(refused.err.starts_with("hallpass: you have no access to web-1 yet\n"), "{}", refused.err);
    assert!(refused.err.contains("no access yet; hallpass has said why"), "{}", refused.err);
    assert!(!refused.err.contains("Permission denied"), "{}", refused.err);
    // Who names a key of their own is let through, and looking is no connecting.
    let own = plain.ssh(&["-i", "/nowhere", "web-1", "true"]);
    assert!(own.err.contains("Permission denied"), "{}", own.err);
    assert_eq!(plain.ssh(&["-G", "web-1"]).code, 0);
    plain.granted(&["web-1"]);
    let ran = plain.ssh(&["web-1", "true"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_good_certificate_nothing_of_ours_touches_the_network() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    plain.granted(&["web-1"]);
    assert_eq!(plain.ssh(&["web-1", "true"]).code, 0);
    let trace = plain.stage.shown("trace");
    let traced = ["-f", "-e", "trace=execve,%network", "-o", &trace, "ssh", "-F", &config, "web-1", "true"];
    let ran = Ran::of(plain.program("strace", &traced).output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let text = std::fs::read_to_string(&trace).unwrap();
    let lines = || text.lines().filter_map(|line| line.split_once(' '));
    // From our program's start on: the shell that starts it looks at its own input.
    let (mut ours, mut calls) = (Vec::new(), Vec::new());
    for (pid, call) in lines() {
        if call.contains(&format!("execve({HALLPASS:?}")) {
            ours.push(pid);
        } else if ours.contains(&pid) && call.contains('(') {
            calls.push(call);
        }
    }
    assert_eq!((ours.len(), calls), (1, Vec::new()), "{text}");
    // The tracer does see such calls: ssh's own.
    assert!(lines().any(|(_, call)| call.trim_start().starts_with("connect(")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_holds_up_one_ssh_and_not_the_others() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    drop(plain.stage.stop());
    // It takes connections on the service's port, and says nothing.
    let address = plain.stage.url().trim_start_matches("https://").to_owned();
    let _silent = std::net::TcpListener::bind(&address).unwrap();
    let many: Vec<_> = (0..10)
        .map(|_| {
            let mut ssh = plain.program("ssh", &["-F", &config, "web-1", "true"]);
            ssh.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let said: Vec<String> = many.into_iter().map(|child| Ran::of(child.wait_with_output().unwrap()).err).collect();
    assert!(said.iter().all(|err| err.starts_with("hallpass: cannot reach the access server\n  why   ")), "{said:?}");
    let waited = said.iter().filter(|err| err.contains("in 1.5 s") || err.contains("in time")).count();
    let believed = said.iter().filter(|err| err.contains("did not answer another ssh")).count();
    assert!(waited < 4 && waited + believed == 10, "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_without_access_can_be_chosen() {
    let Some(plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let with = |on_missing: &str| {
        let mut ssh = plain.program("ssh", &["-F", &config, "web-1", "true"]);
        Ran::of(ssh.env("HALLPASS_ON_MISSING", on_missing).env("HALLPASS_REASON", REASON).output().unwrap())
    };
    let open = || {
        plain.stage.as_person("alice", &["requests", "--mine", "--json"]).json()["requests"].as_array().unwrap().len()
    };
    for hint in ["hint", "ask"] {
        let ran = with(hint);
        assert!(
            ran.err.starts_with("hallpass: you have no access to web-1 yet\n  why   approval by 1 of group:sre\n"),
            "{}",
            ran.err
        );
        assert_eq!(open(), 0);
    }
    let odd = with("maybe");
    assert!(odd.err.starts_with("hallpass: HALLPASS_ON_MISSING is \"maybe\"\n"), "{}", odd.err);
    for _ in 0..2 {
        let ran = with("request");
        assert!(ran.err.contains(" is not decided yet\n  why   can approve: bob@example.com"), "{}", ran.err);
        assert_eq!(open(), 1);
    }
}
