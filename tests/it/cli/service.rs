//! `hallpass init` and `serve`, as an operator meets them.

use std::os::unix::fs::PermissionsExt as _;

use super::stage::{Running, Stage};

#[test]
fn init_writes_what_serve_accepts_and_overwrites_nothing() {
    let mut stage = Stage::empty();
    let key = stage.make_key("omar");
    stage.write("passphrase", "correct horse\n");
    let mode_of_passphrase = |mode| {
        std::fs::set_permissions(stage.path("passphrase"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode_of_passphrase(0o600);
    let answers = format!(
        "url = \"https://hallpass.example.com:7722\"\nfolder = {:?}\noperator = \"omar@example.com\"\noperator_key = {:?}\nhost = \"web-1\"\nca_passphrase_file = {:?}\n",
        stage.path("new"),
        stage.path("omar/login_key.pub"),
        stage.path("passphrase"),
    );
    stage.write("answers.toml", &answers);
    let file = stage.shown("answers.toml");
    let init = ["init", "--answers", file.as_str()];
    assert_eq!(stage.types("omar", &["init", "--answers", &file, "--dry-run"]).code, 0);
    assert!(!stage.path("new").exists());
    assert_eq!(stage.types("omar", &init).code, 0);
    let mode = |name: &str| std::fs::metadata(stage.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("new"), mode("new/user_ca"), mode("new/log.key")), (0o700, 0o600, 0o600));
    assert!(std::fs::read_to_string(stage.path("new/policy.toml")).unwrap().contains(key.split(' ').nth(1).unwrap()));
    // The README's set-up is for what is written here: its principals line, its first question.
    let readme = include_str!("../../../README.md");
    for line in ["echo deploy@web-1 | sudo tee /etc/ssh/hallpass/principals/deploy", "hallpass ssh web-1 --as deploy"] {
        assert!(readme.contains(line), "{line}");
    }
    let policy = stage.shown("new/policy.toml");
    let asked = [
        "--person",
        "omar@example.com",
        "--host",
        "web-1",
        "--as",
        "deploy",
        "--for",
        "30m",
        "--reason",
        "INC-4421 it hangs",
    ];
    let explain: Vec<&str> = ["policy", "explain"].into_iter().chain(asked).chain([policy.as_str()]).collect();
    assert_eq!(stage.types("omar", &explain).code, 0);
    let before = std::fs::read(stage.path("new/user_ca")).unwrap();
    assert_eq!(stage.types("omar", &init).code, 1);
    assert_eq!(std::fs::read(stage.path("new/user_ca")).unwrap(), before);
    // Unknown keys, missing answers, answers that make no sense, nobody to ask.
    for (code, answers) in [
        (2, "operatr = \"omar\"\n".to_owned()),
        (2, "operator = \"omar\"\n".to_owned()),
        (2, answers.replace("https://", "http://").replace("new", "other")),
        (2, answers.replace("omar@example.com", "Omar Sharif").replace("new", "other")),
        (2, answers.replace(".pub", "").replace("new", "other")),
    ] {
        stage.write("answers.toml", &answers);
        assert_eq!(stage.types("omar", &init).code, code, "{answers}");
    }
    assert!(!stage.path("other").exists());
    assert_eq!(stage.types("omar", &["init"]).code, 2);
    stage.check("init");
}

#[test]
fn a_service_that_cannot_start_says_why_before_it_writes_anything() {
    let mut stage = Stage::empty();
    stage.set_up();
    let config = stage.shown("service/config.toml");
    let serve = ["serve", "--config", config.as_str()];
    assert_eq!(stage.types("omar", &["serve", "--config", "/nowhere/config.toml"]).code, 1);
    let good = std::fs::read_to_string(&config).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (code, text) in [
        (2, good.replace("listen", "lisen")),
        (2, good.replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:7722\"")),
        (1, good.replace("127.0.0.1:0", &address)),
        (1, good.replace("\"user_ca\"", "\"nothing\"")),
        (1, good.replace("\"log.key\"", "\"config.toml\"")),
    ] {
        stage.write("service/config.toml", &text);
        std::fs::set_permissions(stage.path("service/config.toml"), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(stage.types("omar", &serve).code, code, "{text}");
    }
    stage.write("service/config.toml", &good);
    std::fs::set_permissions(stage.path("service/log.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(stage.types("omar", &serve).code, 1);
    std::fs::set_permissions(stage.path("service/log.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    stage.write("service/policy.toml", &policy.replace("approval", "aproval"));
    assert_eq!(stage.types("omar", &serve).code, 1);
    stage.write("service/policy.toml", &policy.replace("expect = \"ask\"", "expect = \"allow\""));
    assert_eq!(stage.types("omar", &serve).code, 1);
    stage.check("serve");
}

#[test]
fn where_the_log_is_json_so_is_why_the_service_ends() {
    let stage = Stage::empty();
    stage.set_up();
    let config = stage.shown("service/config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = |level: &str| {
        let logging = format!("[logging]\nformat = \"json\"\nlevel = {level:?}\n");
        stage.write("service/config.toml", &format!("{}\n{logging}", good.replace("127.0.0.1:0", &address)));
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(stage.path("service/config.toml"), mode).unwrap();
        let ran = stage.as_person("omar", &["serve", "--config", &config]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        ran.err
    };
    let err = said("info");
    let lines: Vec<serde_json::Value> = err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((last["level"].as_str().unwrap(), last["fields"]["code"].as_str().unwrap()), ("ERROR", "failed"));
    assert_eq!(last["fields"]["message"], format!("cannot listen on {address}"));
    assert!(last["fields"]["next"].as_str().unwrap().starts_with("change `listen`"), "{last}");
    // A log that is off still leaves nobody in the dark.
    assert!(said("off").contains(&format!("hallpass: cannot listen on {address}")), "{}", said("off"));
}

#[test]
fn a_hangup_applies_the_policy_file_and_a_broken_one_changes_nothing() {
    let mut stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let said = |stage: &mut Stage, text: &str| {
        stage.write("service/policy.toml", text);
        stage.signal("HUP");
    };
    said(&mut stage, &policy.replace("approval", "aproval"));
    // The waiting client hears nothing; the log of the service does. The next one is good, and comes after it.
    stage.hears("the policy in force stays");
    said(&mut stage, &policy.replace("max = \"10m\"", "max = \"9m\""));
    stage.hears("policy applied");
    let history = stage.as_person("omar", &["policy", "history", "--json"]).json();
    let versions = history["versions"].as_array().unwrap();
    assert_eq!((versions.len(), versions[0]["by"].as_str().unwrap()), (2, "system:signal"));
}

#[test]
fn a_hangup_for_the_tls_files_does_not_bring_a_replaced_policy_back() {
    let mut stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    stage.write("other.toml", &policy.replace("max = \"10m\"", "max = \"8m\""));
    let other = stage.shown("other.toml");
    assert_eq!(stage.as_person("omar", &["policy", "apply", &other, "--yes"]).code, 0);
    let newest =
        |stage: &Stage| stage.as_person("omar", &["policy", "history", "--json"]).json()["versions"][0].clone();
    stage.signal("HUP");
    stage.hears("has not changed since it was last read");
    assert_eq!(newest(&stage)["version"], 2);
    // Edited: applied. Edited back to what was replaced: not.
    stage.write("service/policy.toml", &policy.replace("max = \"10m\"", "max = \"9m\""));
    stage.signal("HUP");
    stage.hears("policy applied");
    assert_eq!(newest(&stage)["version"], 3);
    stage.write("service/policy.toml", &policy);
    stage.signal("HUP");
    stage.hears("holds a version that was replaced");
    assert_eq!(newest(&stage)["version"], 3);
}

/// What a running service is made to be by its parts elsewhere; here only that it ends well.
#[test]
fn a_service_that_is_told_to_stop_drains_and_exits_0() {
    let mut stage = Stage::new();
    let waiting: Running = stage.starts("alice", &["request", "web-1", "--reason", super::REASON, "--wait=1s"]);
    let said = stage.stop();
    assert!(said.ends_with("stopped\n"), "{said}");
    drop(waiting.ends());
}

/// A process that can't write any more is of no use to anybody, and whoever supervises it can start another one.
#[cfg(feature = "failpoints")]
#[test]
fn a_service_whose_database_thread_is_gone_ends_and_starts_again() {
    let mut stage = Stage::new();
    drop(stage.stop());
    stage.start_with(&[("HALLPASS_FAILPOINT", "panic:store.change.written:2")]);
    assert_ne!(stage.as_person("alice", &["logout"]).code, 0, "nothing is written");
    stage.hears("a database thread has ended");
    assert_eq!(stage.ended(), Some(1));
    stage.start();
    stage.log_in("alice");
}

#[test]
fn a_clock_that_is_years_ahead_of_the_log_needs_a_word() {
    let mut stage = Stage::new();
    drop(stage.stop());
    let config = stage.shown("service/config.toml");
    let mut ahead = std::process::Command::new("faketime");
    ahead.args(["-f", "+500d", super::stage::HALLPASS, "serve", "--config", &config]);
    let refused = ahead.output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("500 days after the log's last entry"), "{said}");
    assert!(said.contains("hallpass serve --accept-clock"), "{said}");
    stage.start();
    stage.log_in("alice");
}

#[test]
fn a_clock_that_is_behind_the_log_is_told_at_the_start() {
    let mut stage = Stage::new();
    stage.log_in("alice");
    drop(stage.stop());
    let shown = std::process::Command::new("faketime").args(["-f", "-3600", "env"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let variable = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    stage.start_with(&[
        ("LD_PRELOAD", variable("LD_PRELOAD")),
        ("FAKETIME", variable("FAKETIME")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]);
    stage.hears("s behind its log");
}

#[test]
fn the_public_url_may_change_but_the_logs_name_may_not() {
    let mut stage = Stage::new();
    drop(stage.stop());
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let address = stage.url().replace("https://", "");
    let elsewhere = config.replace("https://127.0.0.1:0", "https://localhost:7722").replace("127.0.0.1:0", &address);
    stage.write("service/config.toml", &elsewhere.replace("[log]", &format!("[log]\norigin = \"{address}/log\"")));
    stage.start();
    drop(stage.stop());
    stage.write("service/config.toml", &elsewhere);
    let refused = stage.as_person("omar", &["serve", "--config", &stage.shown("service/config.toml")]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("set [log] origin to the name"), "{}", refused.err);
}

const DB_LOGS: [&str; 6] = ["request", "db-1", "--reason", "looking", "--ticket", "INC-9"];

/// `docs/operations.md`, "The database was lost" and "The CA key was stolen": what it says happens.
#[test]
fn an_older_database_goes_on_only_after_somebody_said_so_and_with_a_new_ca_key() {
    let manual = include_str!("../../../docs/operations.md");
    let mut stage = Stage::new();
    let copy = stage.path("copy.db");
    let vacuum = format!("VACUUM INTO '{}'", copy.display());
    rusqlite::Connection::open(stage.path("service/state/hallpass.db")).unwrap().execute_batch(&vacuum).unwrap();
    assert!(manual.contains("\"VACUUM INTO '/var/lib/hallpass/copy.db'\""));
    let first = stage.as_person("alice", &DB_LOGS);
    assert_eq!(first.code, 0, "{}", first.err);
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    drop(stage.stop());
    for suffix in ["", "-wal", "-shm"] {
        let path = stage.path(&format!("service/state/hallpass.db{suffix}"));
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
    std::fs::rename(&copy, stage.path("service/state/hallpass.db")).unwrap();
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let address = stage.url().replace("https://", "");
    stage.write("service/config.toml", &config.replace("127.0.0.1:0", &address));
    let refused = stage.as_person("omar", &["serve", "--config", &stage.shown("service/config.toml")]);
    assert_eq!(refused.code, 1);
    for text in
        ["cannot start the service", "not available: the log in the database and the checkpoint in", "disagree: "]
    {
        assert!(refused.err.contains(text) && manual.contains(text), "{text}: {}", refused.err);
    }
    std::fs::rename(stage.path("service/log.head"), stage.path("service/log.head.lost")).unwrap();
    let key = stage.path("service/user_ca");
    let old_ca = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let (_, line) = manual.split_once("sudo -u hallpass sh -c 'cd /var/lib/hallpass && mv user_ca ").unwrap();
    let (line, _) = line.split_once('\'').unwrap();
    let line = format!("cd {} && mv user_ca {line}", stage.shown("service"));
    let made = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
    let printed = String::from_utf8(made.stdout).unwrap();
    // No host knows it, and whoever starts the service says that this is so.
    let refused = stage.as_person("omar", &["serve", "--config", &stage.shown("service/config.toml")]);
    assert!(refused.code == 1 && refused.err.contains("nobody was told to trust"), "{}", refused.err);
    let line = refused.err.lines().find(|line| line.contains("hallpass serve --accept-ca ")).unwrap();
    assert!(manual.contains("hallpass serve --accept-ca "));
    let mut words = line.split_whitespace().skip_while(|word| *word != "--accept-ca");
    let fingerprint = words.nth(1).unwrap().to_owned();
    assert!(printed.contains(&fingerprint), "{printed}");
    stage.start_as(&["--accept-ca", &fingerprint], &[]);
    assert!(manual.contains("no checkpoint is kept yet") && stage.said().contains("no checkpoint is kept yet"));
    let again = stage.as_person("alice", &DB_LOGS);
    assert_eq!(again.code, 0, "{}", again.err);
    let trusted = stage.as_person("alice", &["ca", "export"]).out;
    let material = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    let new_ca = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    assert!(trusted.contains(&material(&new_ca)) && !trusted.contains(&material(&old_ca)), "{trusted}");
    // Once is enough, and the old key never comes back.
    drop(stage.stop());
    stage.start();
    let stolen = std::fs::read_to_string(stage.path("service/user_ca.stolen.pub")).unwrap();
    let stolen = hallpass::ssh::PublicKey::parse_openssh(stolen.trim()).unwrap().fingerprint().to_string();
    let dropped = stage.as_person("omar", &["ca", "compromise", &stolen, "--reason", "INC-78 stolen", "--yes"]);
    assert_eq!(dropped.code, 0, "{}", dropped.err);
    let listed = stage.as_person("omar", &["ca", "ls"]).out;
    assert!(listed.lines().any(|line| line.contains(&stolen) && line.contains("compromised")), "{listed}");
}

/// No service goes on with a file that was moved, nor does anything else that writes; it can be read, and a copy of it is marked as well.
fn is_only_read(stage: &mut Stage, own: &str) {
    assert_eq!(stage.types("omar", &["serve", "--config", own]).code, 1);
    assert_eq!(stage.types("omar", &["admin", "store", "recover", "--config", own]).code, 1);
    let word = ["admin", "store", "recover", "--apply", "--past", "99", "--by", "omar@example.com", "--reason", "x"];
    assert_eq!(stage.types("omar", &[&word[..], &["--config", own]].concat()).code, 1, "nor is a repair begun");
    assert_eq!(stage.as_person("omar", &["admin", "backup", "verify", "--config", own]).code, 0);
    let copy = stage.shown("after");
    assert_eq!(stage.as_person("omar", &["admin", "backup", "create", &copy, "--config", own]).code, 0);
    assert_eq!(stage.as_person("omar", &["admin", "backup", "verify", &copy, "--config", own]).code, 0);
    let twin = stage.shown("twin.db");
    let restored = stage.as_person("omar", &["admin", "backup", "restore", &copy, "--to", &twin, "--config", own]);
    assert!(restored.code == 0 && restored.err.contains("was moved to"), "{}", restored.err);
}

/// Killed before the mark, a move leaves a file that is as good as before, and a copy on which a node may run: doing it again finds that, and sets the
/// mark. The file comes back at the end.
#[cfg(feature = "failpoints")]
fn dies_before_the_mark(stage: &mut Stage, (from, to, elsewhere): (&str, &str, &str), own: &str) {
    let arguments = ["store", "migrate", "--from", from, "--to", to];
    let mut command = stage.command("omar", &arguments);
    let ended = command.env("HALLPASS_FAILPOINT", "migrate.copied").output().unwrap();
    assert_eq!(ended.status.code(), None, "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(stage.as_person("omar", &["admin", "store", "recover", "--config", own]).code, 0);
    let take_back = ["store", "take-back", "--from", from, "--yes"];
    let again = stage.as_person("omar", &arguments);
    assert!(again.code == 0 && again.out.contains("copied before"), "{}{}", again.out, again.err);
    assert!(again.err.contains("you can still go back") && !again.out.contains("have gone on"), "{}", again.err);
    assert_eq!(stage.as_person("omar", &take_back).code, 0);

    // A node runs, and what is kept beside it knows more than the file.
    let read = |name: &str| std::fs::read_to_string(stage.path(name)).unwrap();
    let (config, node, head) = (read("service/config.toml"), read("service/node.toml"), read("service/log.head"));
    stage.write("service/config.toml", &node);
    stage.start();
    drop(stage.stop());
    stage.write("service/config.toml", &config);
    let none = stage.as_person("omar", &["store", "migrate", "--from", from, "--to", elsewhere]);
    assert!(none.code == 1 && none.err.contains("is not what the checkpoint in"), "no copy is there: {}", none.err);
    let again = stage.as_person("omar", &arguments);
    assert!(again.code == 0 && again.out.contains("nodes have gone on from it"), "{}{}", again.out, again.err);
    assert!(!again.err.contains("go back") && again.err.contains("is marked as moved"), "{}", again.err);
    let refused = stage.as_person("omar", &["serve", "--config", own]);
    assert!(refused.code == 1 && refused.err.contains("was moved to"), "{}", refused.err);
    let repeated = stage.as_person("omar", &arguments);
    assert!(repeated.code == 0 && repeated.out == again.out, "{}{}", repeated.out, repeated.err);
    stage.write("service/log.head", &head);
    assert_eq!(stage.as_person("omar", &take_back).code, 0);
}

#[test]
fn a_store_moves_from_a_file_to_a_server_and_the_log_goes_on() {
    let mut stage = Stage::new();
    let asked = ["request", "web-1", "--as", "deploy", "--for", "5m", "--reason", "INC-4421 it hangs", "--json"];
    let id = stage.as_person("alice", &asked).field("id");
    // As every real one does, the configuration says the port: the log is named after it.
    let before = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let before = before.replace("127.0.0.1:0", &stage.url().replace("https://", ""));
    let postgres = crate::support::postgres::cluster();
    let settings = postgres.settings(&postgres.database());
    let table = format!(
        "postgres = {{ host = {:?}, port = {}, database = {:?}, user = \"hallpass\" }}",
        settings.server.shown(),
        settings.port,
        settings.database
    );
    let config = before.replace("path = \"state/hallpass.db\"", &table);
    assert_ne!(config, before);
    stage.write("service/node.toml", &config);
    let (file, node) = (stage.shown("service/state/hallpass.db"), stage.shown("service/node.toml"));
    let (from, to) = (format!("sqlite:{file}"), format!("postgres:{node}"));
    let own = stage.shown("service/config.toml");
    let migrate = |more: &[&'static str]| {
        let mut arguments = vec!["store", "migrate", "--from", from.as_str(), "--to", to.as_str()];
        arguments.extend(more);
        arguments.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let types = |stage: &mut Stage, arguments: &[String]| {
        stage.types("omar", &arguments.iter().map(String::as_str).collect::<Vec<_>>()).code
    };
    // Not while the service runs, nor into a file, nor from nothing.
    assert_eq!(types(&mut stage, &migrate(&[])), 1);
    let said = stage.stop();
    assert!(!said.contains("ERROR"), "{said}");
    let file_config = format!("postgres:{}", stage.shown("service/config.toml"));
    assert_eq!(stage.types("omar", &["store", "migrate", "--from", &from, "--to", &file_config]).code, 2);
    let nothing = format!("sqlite:{}", stage.shown("nothing.db"));
    assert_eq!(stage.types("omar", &["store", "migrate", "--from", &nothing, "--to", &to]).code, 1);
    assert!(!stage.path("nothing.db").exists());
    assert_eq!(stage.types("omar", &["store", "migrate", "--from", &file, "--to", &to]).code, 2);
    // Nor one that is older than what was signed.
    std::fs::copy(stage.path("service/state/hallpass.db"), stage.path("older.db")).unwrap();
    stage.start();
    stage.log_in("bob");
    drop(stage.stop());
    let older = format!("sqlite:{}", stage.shown("older.db"));
    assert_eq!(stage.types("omar", &["store", "migrate", "--from", &older, "--to", &to]).code, 1);
    // Nor what is no database of ours, beside which nothing is left.
    let wrong = format!("sqlite:{}", stage.shown("service/config.toml"));
    assert_eq!(stage.types("omar", &["store", "migrate", "--from", &wrong, "--to", &to]).code, 1);
    assert!(!stage.path("service/config.toml.lock").exists());
    #[cfg(feature = "failpoints")]
    {
        let empty = postgres.settings(&postgres.database());
        stage.write("service/empty.toml", &config.replace(&settings.database, &empty.database));
        let empty = format!("postgres:{}", stage.shown("service/empty.toml"));
        dies_before_the_mark(&mut stage, (&from, &to, &empty), &own);
        postgres.sql(&settings.database, "DROP SCHEMA hallpass CASCADE");
    }
    assert_eq!(types(&mut stage, &migrate(&["--json"])), 0);
    assert_eq!(types(&mut stage, &migrate(&[])), 0, "the copy is there");
    is_only_read(&mut stage, &own);
    // Elsewhere only on purpose.
    let other = postgres.settings(&postgres.database());
    stage.write("service/other.toml", &config.replace(&settings.database, &other.database));
    let other = format!("postgres:{}", stage.shown("service/other.toml"));
    let elsewhere = ["store", "migrate", "--from", from.as_str(), "--to", other.as_str()];
    assert_eq!(stage.types("omar", &elsewhere).code, 1);
    assert_eq!(stage.as_person("omar", &[&elsewhere[..], &["--again"]].concat()).code, 0);
    // And back, when somebody says that nothing is lost by it.
    let back = ["store", "take-back", "--from", from.as_str()];
    assert_eq!(stage.types("omar", &back).code, 2, "nobody to ask");
    assert_eq!(stage.types("omar", &[&back[..], &["--yes"]].concat()).code, 0);
    assert_eq!(stage.types("omar", &[&back[..], &["--yes", "--json"]].concat()).code, 0);
    stage.start();
    drop(stage.stop());
    postgres.sql(&settings.database, "DROP SCHEMA hallpass CASCADE");
    assert_eq!(stage.as_person("omar", &migrate(&[]).iter().map(String::as_str).collect::<Vec<_>>()).code, 0);
    // The logins, the request and the log are there, and the log goes on.
    stage.write("service/config.toml", &config);
    stage.start();
    assert_eq!(stage.as_person("alice", &["show", &id, "--json"]).field("state"), "pending");
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &stage.shown("log.jsonl")]).code, 0);
    assert_eq!(stage.as_person("omar", &["audit", "verify", &stage.shown("log.jsonl")]).code, 0);
    stage.check("store");
}
