//! What waits for an approver: the list, and the window that stays open.

use super::plain_ssh::Typed;
use super::stage::{HALLPASS, Stage};
use super::{REASON, asked};

/// Asks for a host as alice; the request's id.
fn asked_for(stage: &Stage, host: &str) -> String {
    let ran = stage.as_person("alice", &["request", host, "--reason", REASON, "--for", "20m", "--no-wait", "--json"]);
    assert_eq!(ran.code, 8, "{}", ran.err);
    ran.field("id")
}

#[test]
fn the_oldest_stands_first_with_the_time_that_is_left() {
    let mut stage = Stage::new();
    let first = asked(&mut stage);
    let second = asked_for(&stage, "web-2");
    let ran = stage.as_person("bob", &["inbox"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with(&first) && lines[1].starts_with(&second), "{}", ran.out);
    assert!(lines.iter().all(|line| line.contains(" min left)  INC-7")), "{}", ran.out);
    let ids = stage.as_person("bob", &["inbox", "--json"]).json();
    assert_eq!((&ids["requests"][0]["id"], &ids["requests"][1]["id"]), (&first.into(), &second.into()));
}

#[test]
fn an_inbox_that_stays_says_what_comes_and_what_becomes_of_it() {
    let mut stage = Stage::new();
    let mut watching = stage.starts("bob", &["inbox", "--watch"]);
    watching.prints("nothing waits for you");
    let denied = asked_for(&stage, "web-1");
    watching.prints(&denied);
    assert_eq!(stage.as_person("omar", &["deny", &denied, "--reason", "use the replica"]).code, 0);
    watching.prints("denied");
    let approved = asked_for(&stage, "web-1");
    watching.prints("pending");
    stage.stop();
    watching.hears("cannot be reached");
    stage.start();
    watching.hears("connected again");
    assert_eq!(stage.as_person("bob", &["approve", &approved, "-y"]).code, 0);
    watching.prints("approved");
    // More time is asked for like access.
    assert_eq!(stage.as_person("alice", &["wait", &approved]).code, 0);
    let more = ["extend", &approved, "--for", "5m", "--reason", "not done yet", "--no-wait"];
    assert_eq!(stage.as_person("alice", &more).code, 8);
    watching.prints("asks for 5m more");
    assert_eq!(stage.as_person("alice", &["end", &approved]).code, 0);
    watching.prints("ended");
    watching.signal("INT");
    let ran = watching.ends();
    assert_eq!(ran.code, 0);
    assert!(!ran.out.contains('\u{1b}'), "no terminal, no codes");
    stage.note("bob", &["inbox", "--watch"], &ran);
    stage.check("inbox_watch");
}

#[test]
fn what_waits_for_somebody_else_still_is_said_to() {
    let stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    stage.write("two.toml", &policy.replace("need = 1", "need = 2"));
    let file = stage.shown("two.toml");
    assert_eq!(stage.as_person("omar", &["policy", "apply", &file, "--yes"]).code, 0);
    let mut stage = stage;
    let mut watching = stage.starts("bob", &["inbox", "--watch"]);
    watching.prints("nothing waits for you");
    let id = asked_for(&stage, "web-1");
    watching.prints(&id);
    assert_eq!(stage.as_person("bob", &["approve", &id, "-y"]).code, 0);
    watching.prints("pending, waits for others");
    watching.signal("INT");
    assert_eq!(watching.ends().code, 0);
}

#[test]
fn each_change_is_a_document_and_a_login_that_ends_ends_it() {
    let mut stage = Stage::new();
    let mut watching = stage.starts("bob", &["inbox", "--watch", "--jsonl"]);
    watching.prints("\"requests\":[]");
    let id = asked_for(&stage, "web-1");
    watching.prints(&id);
    assert_eq!(stage.as_person("alice", &["cancel", &id]).code, 0);
    watching.prints("\"requests\":[]");
    assert_eq!(stage.as_person("bob", &["logout", "--everywhere"]).code, 0);
    let ran = watching.ends();
    assert_eq!((ran.code, ran.out.lines().count()), (4, 3), "{}{}", ran.out, ran.err);
    super::schemas::check_lines(&ran.out);
    super::schemas::check_lines(&ran.err);
}

#[test]
fn on_a_terminal_the_list_is_drawn_over_itself_unless_text_must_stand_still() {
    let stage = Stage::new();
    for (env, flag, is_drawn) in
        [("TERM=xterm", "", true), ("TERM=dumb", "", false), ("TERM=xterm", " --no-color", false)]
    {
        let line = format!("exec env -u NO_COLOR -u ACCESSIBLE {env} {HALLPASS} inbox --watch{flag}");
        let mut screen = Typed::run(stage.command_of("script", "bob", &["-qefc", &line, "/dev/null"]));
        screen.sees("nothing waits for you");
        let id = asked_for(&stage, "web-1");
        screen.sees(&id);
        assert_eq!(stage.as_person("alice", &["cancel", &id]).code, 0);
        screen.sees(if is_drawn { "\u{1b}[2A\u{1b}[J" } else { "withdrawn" });
        screen.types("\u{3}");
        let (code, seen) = screen.ends();
        assert_eq!((code, seen.contains('\u{1b}')), (0, is_drawn), "{env}: {seen:?}");
        assert_eq!(seen.contains("min left)"), is_drawn, "{env}: {seen:?}");
    }
}
