//! What operators type on the service's machine beside `serve`: which configuration they mean, what they need, and whom they must be.

use std::process::Command;

use super::stage::{HALLPASS, Ran, Stage};

/// A stage whose service has run and is stopped.
fn stopped() -> Stage {
    let mut stage = Stage::new();
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/config.toml", &config.replace("127.0.0.1:0", &stage.url().replace("https://", "")));
    drop(stage.stop());
    stage
}

fn admin(stage: &Stage, words: &[&str]) -> Ran {
    let config = stage.shown("service/config.toml");
    stage.as_person("omar", &[&["admin"][..], words, &["--config", &config]].concat())
}

/// Where `hallpass init` and the unit have it, no command needs to be told; where there is none, none says that one is to be made.
#[test]
fn the_configuration_is_found_where_the_set_up_puts_it() {
    let stage = stopped();
    let service = stage.shown("service");
    let ran_after = |set_up: &str, command: &str| {
        let command = command.replacen("hallpass ", &format!("{HALLPASS} "), 1);
        let script = format!("mount -t tmpfs -o mode=0755 tmpfs /var/lib && {set_up} && {command}");
        Ran::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap())
    };
    let ran = |command: &str| ran_after("true", command);
    for command in ["hallpass admin store recover", "hallpass admin backup verify x", "hallpass admin backup create x"]
    {
        let none = ran(command);
        assert_eq!(none.code, 1, "{command}: {}", none.err);
        assert!(
            none.err.contains("looked for /etc/hallpass/config.toml and /var/lib/hallpass/config.toml"),
            "{}",
            none.err
        );
        assert!(none.err.contains("next  pass --config FILE\n") && !none.err.contains("init"), "{}", none.err);
    }
    assert!(ran("hallpass serve").err.contains("next  hallpass init\n"));
    let copy = format!("cp -a {service} /var/lib/hallpass");
    for command in ["hallpass admin store recover", "hallpass admin backup verify"] {
        let found = ran_after(&copy, command);
        assert_eq!(found.code, 0, "{command}: {}{}", found.out, found.err);
        assert!(found.out.contains("/var/lib/hallpass/state/hallpass.db"), "{}", found.out);
    }
    // What was named is named again, and only then.
    let lost = format!("{copy} && rm /var/lib/hallpass/state/hallpass.db*");
    let next = "next  put the newest copy back first: hallpass admin backup restore FOLDER";
    let bare = ran_after(&lost, "hallpass admin store recover");
    assert!(bare.err.contains(&format!("{next}\n")), "{}", bare.err);
    let named = ran_after(&lost, "hallpass admin store recover --config /var/lib/hallpass/config.toml");
    assert!(named.err.contains(&format!("{next} --config /var/lib/hallpass/config.toml\n")), "{}", named.err);
}

#[test]
fn a_backup_in_a_folder_that_is_not_there_says_which_one_to_make() {
    let stage = stopped();
    let ran = admin(&stage, &["backup", "create", &stage.shown("backups/monday")]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains(&format!("cannot make a backup in {:?}", stage.shown("backups"))), "{}", ran.err);
    assert!(ran.err.contains("next  sudo install -d -o ") && ran.err.contains(&stage.shown("backups")), "{}", ran.err);
}
