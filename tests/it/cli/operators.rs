//! What operators type on the service's machine beside `serve`: which configuration they mean, what they need, and whom they must be.

use std::os::unix::fs::PermissionsExt as _;
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

/// systemd gives its credentials to the service alone. What is not needed is not asked for, and what is needed is named.
#[test]
fn a_command_needs_no_credential_but_those_that_it_reads() {
    let stage = stopped();
    let good = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let locked = good.replace("key = \"user_ca\"", "key = \"user_ca\"\npassphrase_file = \"credential:ca-passphrase\"");
    stage.write("service/config.toml", &locked);
    let made = admin(&stage, &["backup", "create", &stage.shown("one")]);
    assert_eq!(made.code, 0, "{}", made.err);
    let config = stage.shown("service/config.toml");
    let key = stage.shown("next_ca");
    let added = stage.as_person("omar", &["ca", "add", "user", &key, "--config", &config]);
    assert_eq!(added.code, 0, "{}", added.err);
    let served = stage.as_person("omar", &["serve", "--config", &config]);
    assert!(served.code == 2 && served.err.contains("there is no credential \"ca-passphrase\""), "{}", served.err);
    stage.write("service/config.toml", &locked.replace("key = \"log.key\"", "key = \"credential:log-key\""));
    for words in [&["backup", "verify", "one folder"][..], &["store", "recover"]] {
        let lacking = admin(&stage, words);
        assert_eq!(lacking.code, 1);
        let typed = if words.len() == 3 { "backup verify 'one folder'" } else { "store recover" };
        let next = format!(
            "next  sudo systemd-run --pty --uid=hallpass -p LoadCredential=log-key:FILE hallpass admin {typed} --config {config}\n"
        );
        assert!(lacking.err.contains(&next), "{}", lacking.err);
    }
    // As systemd does it.
    std::fs::create_dir(stage.path("credentials")).unwrap();
    std::fs::copy(stage.path("service/log.key"), stage.path("credentials/log-key")).unwrap();
    let mut given = stage.command("omar", &["admin", "backup", "verify", &stage.shown("one"), "--config", &config]);
    let given = Ran::of(given.env("CREDENTIALS_DIRECTORY", stage.path("credentials")).output().unwrap());
    assert_eq!(given.code, 0, "{}", given.err);
    // With the store on a server there are two.
    let there =
        "postgres = { host = \"/nowhere\", database = \"d\", user = \"u\", password_file = \"credential:password\" }";
    stage.write(
        "service/config.toml",
        &locked
            .replace("path = \"state/hallpass.db\"", there)
            .replace("key = \"log.key\"", "key = \"credential:log-key\""),
    );
    let from = format!("sqlite:{}", stage.shown("service/state/hallpass.db"));
    let moved = stage.as_person("omar", &["store", "migrate", "--from", &from, "--to", &format!("postgres:{config}")]);
    let loads = "-p LoadCredential=log-key:FILE -p LoadCredential=password:FILE hallpass store migrate";
    assert!(moved.code == 1 && moved.err.contains(loads), "{}", moved.err);
}

/// Only root can give a file away, so only root sees this.
#[test]
fn whoever_is_not_the_services_user_is_told_to_be_it() {
    let stage = stopped();
    let key = stage.path("service/log.key");
    if std::os::unix::fs::chown(&key, Some(12_345), None).is_err() {
        return;
    }
    std::os::unix::fs::chown(stage.path("service/config.toml"), Some(12_345), None).unwrap();
    let config = stage.shown("service/config.toml");
    std::fs::remove_file(stage.path("service/tls-key.pem")).unwrap();
    std::fs::remove_file(stage.path("service/tls-certificate.pem")).unwrap();
    for words in ["serve", "admin store recover", "admin backup create x"] {
        let typed: Vec<&str> = words.split(' ').chain(["--config", &config]).collect();
        let ran = stage.as_person("omar", &typed);
        assert_eq!(ran.code, 1);
        let next = format!("next  sudo -u '#12345' hallpass {words} --config {config}\n");
        assert!(ran.err.contains(&next) && !ran.err.contains("chown 12345 "), "{}", ran.err);
    }
    assert!(!stage.path("service/tls-key.pem").exists(), "root makes nothing that the service could not read");
}

#[test]
fn a_database_that_cannot_be_looked_for_is_not_said_to_be_lost() {
    let stage = stopped();
    let good = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/config.toml", &good.replace("state/hallpass.db", "policy.toml/hallpass.db"));
    for words in [&["store", "recover"][..], &["backup", "verify"]] {
        let ran = admin(&stage, words);
        assert_eq!(ran.code, 1);
        let (looked, why) = ("cannot look for the database", "Not a directory");
        assert!(ran.err.contains(looked) && ran.err.contains(why) && !ran.err.contains("restore"), "{}", ran.err);
    }
}

#[test]
fn the_manuals_commands_for_a_lost_database_work_after_a_clean_stop() {
    let stage = stopped();
    let manual = include_str!("../../../docs/operations.md");
    let (_, rest) = manual.split_once("sudo -u hallpass sh -c '").unwrap();
    let (line, _) = rest.split_once('\'').unwrap();
    assert!(!stage.path("service/state/hallpass.db-wal").exists());
    let line = line.replace("/var/lib/hallpass", &stage.shown("service"));
    let ran = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    assert!(stage.path("service/state/lost/hallpass.db").exists() && !stage.path("service/state/hallpass.db").exists());
}

/// A configuration that is wrong is not tried again by a supervisor; what lacks a file is told apart from what may not be read.
#[test]
fn a_key_for_both_cas_is_a_wrong_configuration_and_a_key_that_others_can_read_is_not_to_be_made_anew() {
    let stage = stopped();
    let config = stage.shown("service/config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let serve = || stage.as_person("omar", &["serve", "--config", &config]);
    stage.write("service/config.toml", &good.replace("\"host_ca\"", "\"user_ca\""));
    let twice = serve();
    assert!(twice.code == 2 && twice.err.contains("one key stands there twice"), "{}{}", twice.code, twice.err);
    stage.write("service/config.toml", &good.replace("state/hallpass.db", "stat/hallpass.db"));
    let elsewhere = serve();
    assert!(elsewhere.code == 1 && elsewhere.err.contains("would begin a new log"), "{}", elsewhere.err);
    assert!(!stage.path("service/stat").exists());
    stage.write("service/config.toml", &good);
    std::fs::set_permissions(stage.path("service/user_ca"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let wide = serve();
    assert!(wide.code == 1 && wide.err.contains("chmod 600") && !wide.err.contains("hallpass init"), "{}", wide.err);
}

/// `docs/errors.md`: a failure has facts, and something to do.
#[test]
fn what_the_service_cannot_do_now_says_where_to_look() {
    let stage = Stage::new();
    let (database, away) = (stage.path("service/state/hallpass.db"), stage.path("service/state/away"));
    std::fs::rename(&database, &away).unwrap();
    let asked = stage.as_person("alice", &["request", "web-1", "--reason", super::REASON, "--no-wait"]);
    std::fs::rename(&away, &database).unwrap();
    assert_eq!(asked.code, 6, "{}{}", asked.out, asked.err);
    assert!(
        asked.err.contains("the service cannot do this now\n  why   what it lacks stands on its page /readyz"),
        "{}",
        asked.err
    );
    assert!(asked.err.contains("  next  try again in a while; if it stays, have an operator"), "{}", asked.err);
}

/// A login names the server as the service calls itself, and no key helps where another name is used.
#[test]
fn a_login_at_another_name_of_the_server_names_the_right_one() {
    let stage = Stage::new();
    let (url, pin, key) = (stage.url(), stage.pin(), stage.shown("alice/login_key"));
    let other = url.replace("127.0.0.1", "localhost");
    let person = "alice@example.com";
    let ran = stage.as_person(
        "bob",
        &["login", "--profile", "x", "--server", &other, "--person", person, "--pin", &pin, "--key", &key],
    );
    assert_eq!(ran.code, 4);
    let next = format!("next  hallpass login --server {url} --person {person} --pin {pin}\n");
    assert!(ran.err.contains(&next) && !ran.err.contains("list your key"), "{}", ran.err);
}

/// Runs our program as `nobody`, whom root has given all of the service but what a test says.
fn as_nobody(words: &[&str]) -> Ran {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(HALLPASS);
    Ran::of(command.args(words).env_clear().uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap())
}

const NOBODY: u32 = 65_534;

/// Gives everything of a stage's service to `nobody`; false where we are not root.
fn give_to_nobody(stage: &Stage) -> bool {
    let service = stage.path("service");
    let folder = service.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711)).unwrap();
    let given = Command::new("chown").args(["-R", "nobody"]).arg(&service).status().unwrap();
    given.success()
}

/// Each line to be typed leads on: none names a user that the next one sends away again.
#[test]
fn what_root_has_left_among_the_services_files_is_given_to_its_user_by_name() {
    let stage = stopped();
    if !give_to_nobody(&stage) {
        return;
    }
    let config = stage.shown("service/config.toml");
    let root = |name: &str| std::os::unix::fs::chown(stage.path(name), Some(0), Some(0)).unwrap();
    let mode = |name: &str, mode| {
        std::fs::set_permissions(stage.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let chown = |name: &str| format!("next  sudo chown nobody {}\n", stage.shown(name));
    root("service/config.toml");
    mode("service/config.toml", 0o600);
    for words in [&["serve"][..], &["admin", "backup", "create", "/nowhere/x"]] {
        let typed = [words, &["--config", &config]].concat();
        let theirs = as_nobody(&typed);
        assert!(theirs.code == 1 && theirs.err.contains(&chown("service/config.toml")), "{}", theirs.err);
        assert!(!theirs.err.contains("sudo -u"), "{}", theirs.err);
        let roots = stage.as_person("omar", &typed);
        let (_, then) = roots.err.split_once(&chown("service/config.toml")).unwrap_or_else(|| panic!("{}", roots.err));
        assert!(then.contains(&format!("sudo -u nobody hallpass {}\n", typed.join(" "))), "{}", roots.err);
    }
    std::os::unix::fs::chown(stage.path("service/config.toml"), Some(NOBODY), None).unwrap();
    mode("service/config.toml", 0);
    let closed = as_nobody(&["serve", "--config", &config]);
    assert!(closed.err.contains(&format!("next  chmod u+rw {config}\n")), "{}", closed.err);
    mode("service/config.toml", 0o600);
    for (name, its_mode) in [("service/log.key", 0o600), ("service/state/hallpass.db", 0o600), ("service/state", 0o700)]
    {
        root(name);
        let ran = as_nobody(&["serve", "--config", &config]);
        assert!(ran.code == 1 && ran.err.contains(&chown(name)), "{name}: {}", ran.err);
        std::os::unix::fs::chown(stage.path(name), Some(NOBODY), None).unwrap();
        mode(name, its_mode);
    }
    // A backup that root has put there is not a bad one.
    let made = stage.shown("service/backup");
    let created = as_nobody(&["admin", "backup", "create", &made, "--config", &config]);
    assert_eq!(created.code, 0, "{}", created.err);
    root("service/backup/manifest.json");
    let verified = as_nobody(&["admin", "backup", "verify", &made, "--config", &config]);
    let copy = format!("sudo install -o nobody -m 0600 -t COPY {made}/manifest.json {made}/hallpass.db\n");
    assert!(verified.err.contains("next  sudo install -d -o nobody -m 0700 COPY\n"), "{}", verified.err);
    assert!(verified.err.contains(&copy) && !verified.err.contains("to rely on"), "{}", verified.err);
    assert!(!verified.err.contains("chown"), "what root keeps stays root's: {}", verified.err);
    std::os::unix::fs::chown(stage.path("service/backup/manifest.json"), Some(NOBODY), None).unwrap();
    // Who reads a backup needs no database; who opens one does.
    root("service/state/hallpass.db");
    let verified = as_nobody(&["admin", "backup", "verify", &made, "--config", &config]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    for words in [&["store", "recover"][..], &["backup", "verify"]] {
        let opened = as_nobody(&[&["admin"], words, &["--config", &config]].concat());
        assert!(opened.code == 1 && opened.err.contains(&chown("service/state/hallpass.db")), "{}", opened.err);
    }
    // The kept checkpoint is replaced: that it can be read is enough.
    root("service/log.head");
    mode("service/log.head", 0o644);
    let ran = as_nobody(&["serve", "--config", &config]);
    assert!(ran.err.contains(&chown("service/state/hallpass.db")) && !ran.err.contains("log.head"), "{}", ran.err);
    std::os::unix::fs::chown(stage.path("service/state/hallpass.db"), Some(NOBODY), None).unwrap();
    let nothing = as_nobody(&["admin", "store", "recover", "--config", &config]);
    assert_eq!(nothing.code, 0, "{}{}", nothing.out, nothing.err);
    // A key that root made, the service could not read.
    let key = stage.shown("service/user_ca_2");
    let added = stage.as_person("omar", &["ca", "add", "user", &key, "--config", &config]);
    let next = format!("next  sudo -u nobody hallpass ca add user {key} --config {config}\n");
    assert!(added.code == 1 && added.err.contains(&next), "{}", added.err);
    assert!(!stage.path("service/user_ca_2").exists());
}

/// Who owns a folder of the system owns what is below it: no line that is offered gives one away.
#[test]
fn what_is_in_a_folder_of_the_systems_is_to_be_moved_and_the_folder_is_not_given_away() {
    let stage = stopped();
    if !give_to_nobody(&stage) {
        return;
    }
    let config = stage.shown("service/config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let moves = |path: &str| format!("next  move {path} to a folder of ");
    let roots = stage.path("roots");
    std::fs::create_dir_all(roots.join("hallpass")).unwrap();
    std::fs::write(roots.join("hallpass/config.toml"), &good).unwrap();
    std::fs::write(roots.join("shadow"), "").unwrap();
    let closed = |path: &str, mode| {
        std::fs::set_permissions(stage.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    closed("roots/shadow", 0o600);
    // A file that is no configuration by its name, and one behind a folder that is closed.
    for (name, mode) in [("roots/shadow", 0o755), ("roots/hallpass/config.toml", 0o700)] {
        closed("roots", mode);
        let named = stage.shown(name);
        let ran = as_nobody(&["serve", "--config", &named]);
        assert!(ran.code == 1 && ran.err.contains(&moves(&named)), "{}", ran.err);
        assert!(!ran.err.contains("chown") && !ran.err.contains("sudo -u"), "{}", ran.err);
    }
    // The folder of the database, and of the kept checkpoint.
    for (ours, theirs) in [("state/hallpass.db", "/var/lib/hallpass.db"), ("log.head", "/etc/log.head")] {
        stage.write("service/config.toml", &good.replace(&format!("\"{ours}\""), &format!("{theirs:?}")));
        let ran = as_nobody(&["serve", "--config", &config]);
        assert!(ran.code == 1 && ran.err.contains(&moves(theirs)) && !ran.err.contains("chown"), "{}", ran.err);
    }
    // The configuration's own folder, only while there is nothing else in it.
    stage.write("service/config.toml", &good);
    std::os::unix::fs::chown(stage.path("service"), Some(0), None).unwrap();
    closed("service", 0o755);
    let given = as_nobody(&["serve", "--config", &config]);
    let next = format!("next  sudo chown nobody {}\n", stage.shown("service"));
    assert!(given.err.contains(&next), "{}", given.err);
    stage.write("service/somebody-elses", "");
    let kept = as_nobody(&["serve", "--config", &config]);
    assert!(kept.err.contains(&moves(&stage.shown("service/log.head"))) && !kept.err.contains("chown"), "{}", kept.err);
}

#[test]
fn where_a_service_has_run_a_lost_key_is_not_made_anew() {
    let stage = stopped();
    let config = stage.shown("service/config.toml");
    let away = |name: &str| std::fs::rename(stage.path(name), stage.path(&format!("{name}.away"))).unwrap();
    let serve = || stage.as_person("omar", &["serve", "--config", &config]);
    for (name, section) in [
        ("service/user_ca", "docs/ca-keys.md, \"When a CA key is lost or stolen\""),
        ("service/log.key", "docs/operations.md, \"The log key was lost or stolen\""),
        ("service/config.toml", "docs/operations.md, \"What there is to keep\""),
    ] {
        away(name);
        let ran = serve();
        assert!(ran.code == 1 && ran.err.contains("put it back from the offline copy"), "{name}: {}", ran.err);
        assert!(ran.err.contains(section) && !ran.err.contains("hallpass init"), "{name}: {}", ran.err);
        if name != "service/config.toml" {
            std::fs::rename(stage.path(&format!("{name}.away")), stage.path(name)).unwrap();
        }
    }
    for name in ["policy.toml", "user_ca", "user_ca.pub", "host_ca", "host_ca.pub", "log.key"] {
        away(&format!("service/{name}"));
    }
    stage.write(
        "answers.toml",
        &format!(
            "folder = {:?}\noperator = \"omar@example.com\"\noperator_key = {:?}\n",
            stage.shown("service"),
            std::fs::read_to_string(stage.path("service/host_ca.pub.away")).unwrap().trim()
        ),
    );
    let made = stage.as_person("omar", &["init", "--answers", &stage.shown("answers.toml")]);
    assert!(
        made.code == 1 && made.err.contains("log.head") && made.err.contains("init would not make"),
        "{}",
        made.err
    );
    assert!(!stage.path("service/log.key").exists());
}

#[test]
fn a_key_in_a_folder_that_is_not_there_says_which_one_to_make() {
    let stage = stopped();
    let key = stage.shown("keys/user_ca_2");
    let ran = stage.as_person("omar", &["ca", "add", "user", &key, "--config", &stage.shown("service/config.toml")]);
    assert!(ran.code == 1 && ran.err.contains(&format!("there is no folder {:?}", stage.shown("keys"))), "{}", ran.err);
    assert!(ran.err.contains(&format!("-m 0700 {}\n", stage.shown("keys"))), "{}", ran.err);
}
