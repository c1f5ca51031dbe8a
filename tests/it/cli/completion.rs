//! Completion in the shells themselves: bash, zsh and fish read our script and complete real lines, offline. A shell that is not
//! installed is said and left out (`tests/run` installs all three).

use std::path::Path;
use std::process::{Command, Stdio};

use super::plain_ssh::Typed;
use super::stage::{HALLPASS, Ran, Stage};
use super::{REASON, asked};

/// A stage whose alice and bob have used hallpass: their caches know things. The server is stopped.
fn used() -> (Stage, String) {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["inbox"]).code, 0);
    assert_eq!(stage.as_person("alice", &["status"]).code, 0);
    stage.stop();
    for shell in ["bash", "zsh", "fish"] {
        let script = stage.as_person("alice", &["completion", shell]);
        assert_eq!((script.code, script.err.as_str()), (0, ""));
        stage.write(&format!("completion.{shell}"), &script.out);
    }
    (stage, id)
}

/// A shell as this person would have it, with our program in its path.
fn shell(stage: &Stage, person: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (key, value) in stage.command(person, &[]).get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    let path = std::env::var("PATH").unwrap();
    let ours = Path::new(HALLPASS).parent().unwrap().display();
    command.env("PATH", format!("{ours}:{path}")).env("TERM", "xterm").args(arguments).stdin(Stdio::null());
    command
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("NOT TESTED: {program} is not installed");
    }
    found
}

/// What bash offers for this line, whose last word is being typed; without the flags, which every line may have.
fn bash(stage: &Stage, person: &str, line: &str) -> Vec<String> {
    // As bash cuts a line itself: `a@b` is `a`, `@`, `b`, and what is being typed begins with the `@`.
    let (before, typed) = line.rsplit_once(' ').unwrap();
    let (account, typed) = match typed.split_once('@') {
        Some((account, host)) => (Some(account), format!("@{host}")),
        None => (None, typed.to_owned()),
    };
    let mut words: Vec<&str> = before.split(' ').chain(account).collect();
    match typed.strip_prefix('@') {
        Some("") | None => words.push(&typed),
        Some(host) => words.extend(["@", host]),
    }
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let last = words.len() - 1;
    let script = format!(
        "source '{}'\nCOMP_WORDS=({})\nCOMP_CWORD={last}\nCOMP_TYPE=9\n\
         complete -p hallpass >/dev/null || exit 9\n_clap_complete_hallpass hallpass '{typed}' ''\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        stage.shown("completion.bash"),
        words.join(" "),
    );
    let ran = Ran::of(shell(stage, person, "bash", &["--norc", "-c", &script]).output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}");
    ran.out.lines().filter(|line| !line.is_empty() && !line.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_hosts_requests_and_profiles_offline() {
    let (stage, id) = used();
    assert_eq!(bash(&stage, "alice", "hallpass req"), ["request", "requests"]);
    assert_eq!(bash(&stage, "alice", "hallpass ssh "), ["db-1", "web-1", "web-2"]);
    assert_eq!(bash(&stage, "alice", "hallpass request web-1 w"), ["web-1", "web-2"]);
    assert_eq!(bash(&stage, "alice", "hallpass doctor d"), ["db-1"]);
    assert_eq!(bash(&stage, "alice", "hallpass doctor root@w"), ["@web-1", "@web-2"]);
    assert_eq!(bash(&stage, "alice", "hallpass ssh deploy@"), ["@db-1", "@web-1", "@web-2"]);
    assert_eq!(bash(&stage, "alice", "hallpass request --via d"), ["db-1"]);
    assert_eq!(bash(&stage, "bob", "hallpass approve "), [id.as_str(), "web-1"]);
    assert_eq!(bash(&stage, "alice", "hallpass approve "), [""; 0], "hers, so not to be decided by her");
    assert_eq!(bash(&stage, "alice", "hallpass wait "), [id.as_str(), "web-1"]);
    assert_eq!(bash(&stage, "alice", "hallpass cancel "), [id.as_str(), "web-1"]);
    assert_eq!(bash(&stage, "alice", "hallpass end "), [""; 0], "nothing is held");
    assert_eq!(bash(&stage, "alice", "hallpass status --profile d"), ["default"]);
    assert_eq!(bash(&stage, "alice", "hallpass ssh --profile other "), [""; 0], "another profile's cache");
    assert_eq!(bash(&stage, "alice", "hallpass open "), [id.as_str(), "hosts", "audit"]);
    assert_eq!(bash(&stage, "alice", "hallpass help env"), ["environment"]);
    assert_eq!(bash(&stage, "alice", "hallpass requests --state pe"), ["pending"]);
    assert_eq!(bash(&stage, "alice", "hallpass ssh"), ["ssh"], "what is hidden stays so");
}

#[test]
fn fish_completes_with_what_each_is() {
    if !is_there("fish") {
        return;
    }
    let (stage, id) = used();
    let complete = |person: &str, line: &str| {
        let script = format!("source '{}'; complete -C '{line}'", stage.shown("completion.fish"));
        let ran = Ran::of(shell(&stage, person, "fish", &["--no-config", "-c", &script]).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    assert_eq!(complete("alice", "hallpass ssh w"), "web-1\nweb-2\n");
    assert_eq!(complete("alice", "hallpass ssh deploy@w"), "deploy@web-1\ndeploy@web-2\n");
    assert!(
        complete("bob", "hallpass deny ").starts_with(&format!("{id}\tpending: web-1 as deploy\nweb-1\n--reason\t"))
    );
    assert!(complete("alice", "hallpass ext").starts_with("extend\tAsk for more time"));
}

#[test]
fn zsh_completes_on_its_own_line() {
    if !is_there("zsh") {
        return;
    }
    let (stage, _) = used();
    let init =
        format!("autoload -U compinit; compinit -u -D\nsource '{}'\nPS1='ready> '\n", stage.shown("completion.zsh"));
    std::fs::write(stage.path("alice/.zshrc"), init).unwrap();
    let mut command = shell(&stage, "alice", "script", &["-qefc", "zsh -i -d", "/dev/null"]);
    command.env("ZDOTDIR", stage.path("alice"));
    let mut zsh = Typed::run(command);
    zsh.sees("ready> ");
    zsh.keys("hallpass ssh db\t");
    zsh.sees("-1");
    // The line as it then stands, printed by the shell and not by its editor.
    zsh.keys("\u{1}print -r -- \"GOT=${:-\u{5}}\"\n");
    zsh.sees("GOT=hallpass ssh db-1");
    zsh.keys("exit\n");
    assert_eq!(zsh.ends().0, 0);
}

#[test]
fn a_cache_that_somebody_else_wrote_offers_names_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (stage, id) = used();
    let cache = stage.path("alice/.cache/hallpass/default");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&cache), mode(&cache.join("hosts")), mode(&cache.join("requests"))), (0o700, 0o600, 0o600));
    let hostile = "web-1\n$(touch /tmp/x)\n`id`\nweb;id\n-oProxyCommand=id\n\u{1b}[2J\nweb 2\n\u{202e}\nok-1\n";
    std::fs::write(cache.join("hosts"), hostile).unwrap();
    assert_eq!(bash(&stage, "alice", "hallpass ssh "), ["web-1", "ok-1"]);
    let kept = std::fs::read_to_string(cache.join("requests")).unwrap();
    let twisted = kept.replace(&id, "$(id)").replace("deploy", "a\u{1b}[2Jb");
    for text in [twisted.as_str(), "not json", "[1]", &"x".repeat(1_000_000)] {
        std::fs::write(cache.join("requests"), text).unwrap();
        assert_eq!(bash(&stage, "alice", "hallpass wait "), [""; 0], "{}", text.get(..40).unwrap_or(text));
    }
    // Safe to delete, and a place where it can't be written fails no command.
    std::fs::remove_dir_all(&cache).unwrap();
    assert_eq!(bash(&stage, "alice", "hallpass ssh "), [""; 0]);
    let mut stage = stage;
    stage.start();
    let mut command = stage.command("alice", &["request", "web-2", "--reason", REASON, "--no-wait"]);
    let ran = Ran::of(command.env("HALLPASS_CACHE_DIR", "/proc/nowhere").output().unwrap());
    assert_eq!(ran.code, 8, "{}", ran.err);
    // An unknown shell gets no answer, and no command is run.
    let mut command = stage.command("alice", &["--", "hallpass", "logout"]);
    let ran = Ran::of(command.env("HALLPASS_COMPLETE", "tcsh").output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
}
