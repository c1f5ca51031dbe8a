//! ssh's shared connections when access is given back, and a session that runs while its access is extended: the real ssh and sshd.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use super::plain_ssh::{Plain, Typed};
use super::stage::{HALLPASS, Ran};

/// As `ssh` for hallpass: the real one with this configuration.
fn ssh_of(plain: &Plain, config: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let name = format!("{config}-program");
    plain.stage.write(&name, &format!("#!/bin/sh\nexec ssh -F '{}' \"$@\"\n", plain.stage.shown(config)));
    std::fs::set_permissions(plain.stage.path(&name), std::fs::Permissions::from_mode(0o755)).unwrap();
    plain.stage.shown(&name)
}

/// The configuration with masters kept under this name; returns its name.
fn with_masters(plain: &Plain, file: &str, socket: &str) -> String {
    let text = std::fs::read_to_string(plain.stage.path("ssh_config")).unwrap();
    let masters = format!("Host *\n    ControlMaster auto\n    ControlPersist 60\n    ControlPath {socket}\n");
    plain.stage.write(file, &(text + &masters));
    plain.stage.shown(file)
}

fn end(plain: &mut Plain, arguments: &[&str], ssh: &str) -> Ran {
    Ran::of(plain.stage.command("alice", arguments).env("HALLPASS_SSH", ssh).output().unwrap())
}

fn is_alive(plain: &Plain, config: &str, host: &str) -> bool {
    let checked = Ran::of(plain.program("ssh", &["-F", config, "-O", "check", host]).output().unwrap());
    checked.code == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giving_access_back_closes_the_shared_connections_to_its_hosts_and_no_other() {
    let Some(mut plain) = Plain::new().await else { return };
    let sockets = plain.stage.path("s");
    std::fs::create_dir(&sockets).unwrap();
    let config = with_masters(&plain, "masters", &format!("{}/%C", sockets.display()));
    let ssh = ssh_of(&plain, "masters");
    let (one, two) = (plain.granted(&["web-1"]), plain.granted(&["web-2"]));
    for host in ["deploy@web-1", "deploy@web-2"] {
        let opened = Ran::of(plain.program("ssh", &["-F", &config, host, "true"]).output().unwrap());
        assert_eq!((opened.code, opened.err.as_str()), (0, ""), "{host}");
        assert!(is_alive(&plain, &config, host));
    }
    // Why it matters: the master needs no certificate any more.
    let ran = end(&mut plain, &["end", &one, "--json"], &ssh);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let masters = &ran.json()["masters"];
    assert_eq!(
        (masters[0]["host"].as_str(), masters[0]["fate"].as_str()),
        (Some("web-1"), Some("closed")),
        "{masters}"
    );
    assert!(ran.err.contains("closed the shared connection to web-1 ("), "{}", ran.err);
    assert!(!is_alive(&plain, &config, "deploy@web-1"));
    assert!(is_alive(&plain, &config, "deploy@web-2"), "another host's");
    let ran = end(&mut plain, &["end", &two], &ssh);
    assert!(ran.code == 0 && ran.err.contains("closed the shared connection to web-2"), "{}", ran.err);
    assert_eq!(std::fs::read_dir(&sockets).unwrap().count(), 0);
    // Nothing to close: nothing is said of it.
    let three = plain.granted(&["web-1"]);
    let ran = end(&mut plain, &["end", &three], &ssh);
    assert!(ran.code == 0 && !ran.err.contains("shared connection"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_connection_that_may_be_to_another_host_is_left_alone() {
    let Some(mut plain) = Plain::new().await else { return };
    // All hosts are 127.0.0.1 here: without the port, a name is no host's own.
    for (file, name, is_closed) in [
        ("any", "any", false),
        ("address", "%r@%h", false),
        ("no_account", "%h:%p", false),
        ("typed", "%r@%n", true),
        ("usual", "%r@%h:%p", true),
    ] {
        let config = with_masters(&plain, file, &plain.stage.shown(&format!("m-{name}")));
        let ssh = ssh_of(&plain, file);
        let id = plain.granted(&["web-1"]);
        let opened = Ran::of(plain.program("ssh", &["-F", &config, "deploy@web-1", "true"]).output().unwrap());
        assert_eq!((opened.code, opened.err.as_str()), (0, ""), "{name}");
        let ran = end(&mut plain, &["end", &id], &ssh);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let said =
            if is_closed { "closed the shared connection to web-1" } else { "left alone: the shared connection" };
        assert!(ran.err.contains(said), "{name}: {}", ran.err);
        assert_eq!(is_alive(&plain, &config, "deploy@web-1"), !is_closed, "{name}");
        let exited = plain.program("ssh", &["-F", &config, "-O", "exit", "deploy@web-1"]).output().unwrap();
        assert_eq!(exited.status.success(), !is_closed, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_gives_a_new_certificate_in_the_same_place_and_the_session_goes_on() {
    let Some(mut plain) = Plain::new().await else { return };
    let id = plain.granted(&["web-1"]);
    let config = plain.stage.shown("ssh_config");
    let mut session = plain
        .program("ssh", &["-F", &config, "web-1", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    let mut output = BufReader::new(output);
    let mut echo = |text: &str| {
        input.write_all(format!("{text}\n").as_bytes()).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{text}\n"));
    };
    echo("before");
    let certificate = plain.stage.path(&format!("alice/run/default/{}/key-cert.pub", id.replace('-', "")));
    let before = std::fs::read_to_string(&certificate).unwrap();
    let asked = plain.stage.as_person("alice", &["extend", &id, "--for", "10m", "--no-wait"]);
    assert_eq!(asked.code, 8, "{}", asked.err);
    echo("while it waits");
    assert_eq!(plain.stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let waited = plain.stage.as_person("alice", &["wait", &id, "--json"]);
    assert_eq!(waited.json()["certificate"]["path"].as_str(), certificate.to_str(), "{}", waited.err);
    assert_ne!(std::fs::read_to_string(&certificate).unwrap(), before);
    echo("after");
    drop(input);
    assert!(session.wait().unwrap().success());
    let next = plain.ssh(&["web-1", "true"]);
    assert_eq!((next.code, next.err.as_str()), (0, ""));
    assert_eq!((plain.certificates(), plain.hosts.len()), (2, 3), "one for each grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_the_status_is_drawn_over_itself_unless_text_must_stand_still() {
    let Some(plain) = Plain::new().await else { return };
    for (env, is_drawn) in [
        ("TERM=xterm", true),
        ("TERM=dumb", false),
        ("TERM=xterm ACCESSIBLE=1", false),
        ("TERM=xterm NO_COLOR=1", false),
    ] {
        let line = format!("env -u NO_COLOR -u ACCESSIBLE {env} {HALLPASS} status --watch");
        let mut screen = Typed::start(&plain, &line);
        screen.sees("you hold no access");
        let asked =
            plain.stage.as_person("alice", &["request", "web-1", "--reason", super::REASON, "--no-wait", "--json"]);
        assert_eq!(asked.code, 8, "{}", asked.err);
        let id = asked.field("id");
        screen.sees(&id);
        assert_eq!(plain.stage.as_person("alice", &["cancel", &id]).code, 0);
        screen.sees(if is_drawn { "\u{1b}[J" } else { "withdrawn" });
        screen.types("\u{3}");
        let (code, seen) = screen.ends();
        assert_eq!(code, 0, "{env}: {seen}");
        assert_eq!(seen.contains('\u{1b}'), is_drawn, "{env}: {seen:?}");
        assert_eq!(
            seen.contains("\u{1b}[4A\u{1b}[J") || seen.contains("\u{1b}[3A\u{1b}[J"),
            is_drawn,
            "{env}: {seen:?}"
        );
    }
}
