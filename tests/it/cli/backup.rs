//! `hallpass admin backup` and `admin store recover`, as an operator meets them: a service runs, is backed up, goes on, loses its database,
//! and comes back by the older copy.

use std::path::Path;
use std::process::Command;

use super::stage::{HALLPASS, Stage};
use super::{REASON, asked};

const WORD: [&str; 5] = ["--apply", "--by", "omar@example.com", "--reason", "the disk died"];

/// An operator's command on the service's machine.
fn admin<'a>(config: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["admin"];
    all.extend(words);
    all.extend(["--config", config]);
    all
}

/// A stage whose configuration says the port that the service has, as every real one does: the log is named after it.
pub(super) fn on_its_port() -> Stage {
    let stage = Stage::new();
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/config.toml", &config.replace("127.0.0.1:0", &stage.url().replace("https://", "")));
    stage
}

/// Moves the database away, with what SQLite keeps beside it.
fn lose_database(stage: &Stage) {
    for suffix in ["", "-wal", "-shm"] {
        let path = stage.path(&format!("service/state/hallpass.db{suffix}"));
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

fn approve(stage: &Stage, id: &str) {
    assert_eq!(stage.as_person("bob", &["approve", id, "--yes"]).code, 0);
}

/// Gets a certificate of db-1, which policy allows at once; returns its serial.
fn issued(stage: &Stage) -> u64 {
    let ran = stage.as_person("alice", &["request", "db-1", "--reason", "looking", "--ticket", "INC-9", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    ran.json()["certificate"]["serial"].as_u64().unwrap_or_else(|| panic!("{}", ran.out))
}

/// Waits until the checkpoint that is kept aside covers so many entries, as it does within ten seconds.
fn kept_aside(stage: &Stage, size: u64) {
    let line = format!("\n{size}\n");
    while !std::fs::read_to_string(stage.path("service/log.head")).unwrap().contains(&line) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_service_comes_back_by_a_backup_and_says_what_it_lost() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let (folder, again) = (stage.shown("backup"), stage.shown("again"));
    let waiting = asked(&mut stage);
    // While it runs; not over what is there.
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "create", &folder])).code, 0);
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "create", &folder])).code, 1);
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "create", &again, "--json"])).code, 0);
    assert_eq!(names(Path::new(&folder)), ["hallpass.db", "manifest.json"]);
    for (path, mode) in [("backup", 0o700), ("backup/hallpass.db", 0o600), ("backup/manifest.json", 0o600)] {
        let meta = std::fs::metadata(stage.path(path)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, mode, "{path}");
    }
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "verify", &folder])).code, 0);
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "verify", &folder, "--json"])).code, 0);
    // What the backup does not know.
    approve(&stage, &waiting);
    let lost = issued(&stage);
    kept_aside(&stage, lost + 2);
    let lost_log = stage.shown("lost.jsonl");
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &lost_log]).code, 0);
    // A running service keeps its database.
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "restore", &folder])).code, 1);
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover"])).code, 1);
    drop(stage.stop());
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover"])).code, 0, "it is the newest");
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "restore", &folder])).code, 1, "the old one is there");
    lose_database(&stage);
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover"])).code, 1, "none is made");
    assert_eq!(names(&stage.path("service/state")), ["hallpass.db.lock"]);
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "restore", &folder])).code, 0);
    assert_eq!(stage.types("omar", &["serve", "--config", &config]).code, 1);
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover"])).code, 1);
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover", "--json"])).code, 1);
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover", "--apply"])).code, 2);
    assert_eq!(stage.types("omar", &admin(&config, &[&["store", "recover"][..], &WORD].concat())).code, 0);
    assert_eq!(stage.types("omar", &admin(&config, &[&["store", "recover"][..], &WORD].concat())).code, 1);
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover", "--json"])).code, 0);
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "verify", "--json"])).code, 0);
    stage.start();
    assert_eq!(stage.types("alice", &["requests"]).code, 4, "everybody logs in again");
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    assert_eq!(stage.as_person("alice", &["show", &waiting, "--json"]).field("state"), "lapsed");
    assert!(issued(&stage) > lost, "no serial is given twice");
    let log = stage.shown("log.jsonl");
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &log]).code, 0);
    let verified = stage.as_person("omar", &["audit", "verify", &log]);
    assert!(verified.code == 0 && verified.out.contains("  lost          entr"), "{}{}", verified.out, verified.err);
    assert_eq!(stage.types("omar", &["audit", "search", "kind:log_recovered"]).code, 0);
    let new = stage.shown("new.jsonl");
    assert_eq!(stage.types("omar", &["audit", "export", "--earlier", &lost_log, "--out", &new]).code, 1);
    assert!(!stage.path("new.jsonl").exists());
    // As it says.
    let rewritten = stage.as_person("omar", &["audit", "verify", "--earlier", &lost_log, &log]);
    assert!(rewritten.code == 1 && rewritten.out.contains("earlier"), "{}{}", rewritten.out, rewritten.err);
    // The backup is older than this, too.
    drop(stage.stop());
    lose_database(&stage);
    let put = stage.as_person("omar", &admin(&config, &["backup", "restore", &folder]));
    assert!(put.code == 0 && put.err.contains("it is not the newest"), "{}", put.err);
    assert_eq!(stage.as_person("omar", &["serve", "--config", &config]).code, 1);
    stage.check("recover");
}

#[test]
fn a_backup_that_was_changed_or_is_another_logs_is_not_put_back() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let folder = stage.shown("backup");
    assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "create", &folder])).code, 0);
    drop(stage.stop());
    lose_database(&stage);
    let (database, manifest) = (stage.path("backup/hallpass.db"), stage.path("backup/manifest.json"));
    let (good, said) = (std::fs::read(&database).unwrap(), std::fs::read_to_string(&manifest).unwrap());
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let entries = said.split("\"entries\": ").nth(1).unwrap().split(',').next().unwrap();
    for (bytes, text) in [
        (flipped, said.clone()),
        (good[..good.len() - 4096].to_vec(), said.clone()),
        (Vec::new(), said.clone()),
        (good.clone(), said.replacen(&format!("\"entries\": {entries}"), "\"entries\": 3", 1)),
        (good.clone(), said.replacen("\"format\"", "\"more\": 1,\n    \"format\"", 1)),
        (good.clone(), "{}".to_owned()),
        (good.clone(), String::new()),
    ] {
        std::fs::write(&database, bytes).unwrap();
        std::fs::write(&manifest, text).unwrap();
        for words in [&["backup", "verify", folder.as_str()][..], &["backup", "restore", &folder]] {
            assert_eq!(stage.types("omar", &admin(&config, words)).code, 1);
        }
        assert_eq!(names(&stage.path("service/state")), ["hallpass.db.lock"], "nothing was put back");
    }
    std::fs::write(&database, good).unwrap();
    std::fs::write(&manifest, &said).unwrap();
    let other = stage.path("service/log.key");
    let was = std::fs::read(&other).unwrap();
    std::fs::write(&other, "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n").unwrap();
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "verify", &folder])).code, 1);
    std::fs::write(&other, was).unwrap();
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "verify", &stage.shown("nothing")])).code, 1);
    // A place of its own, and one that is taken.
    let to = stage.shown("elsewhere.db");
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "restore", &folder, "--to", &to, "--json"])).code, 0);
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "restore", &folder, "--to", &to])).code, 1);
    std::fs::write(stage.path("service/state/hallpass.db-wal"), "an old one").unwrap();
    assert_eq!(
        stage.types("omar", &admin(&config, &["backup", "restore", &folder])).code,
        1,
        "it would be read into it"
    );
    stage.check("backup");
}

#[test]
fn what_is_written_into_the_log_for_good_is_looked_at_first() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    drop(stage.stop());
    std::fs::write(stage.path("service/log.head"), "nothing\n").unwrap();
    let (nothing, head) = (stage.shown("nothing"), stage.shown("service/log.head"));
    let word = |reason: &'static str| ["--apply", "--by", "omar@example.com", "--reason", reason];
    for (code, more) in [
        (1, &["--head", nothing.as_str()][..]),
        (2, &["--head", &head]),
        (1, &[]),
        (1, &word("the disk died")),
        (1, &[&word("")[..], &["--past", "9"]].concat()),
        (1, &[&word("a\u{202e}b")[..], &["--past", "9"]].concat()),
        (1, &[&word("the disk died")[..], &["--past", "99999999999"]].concat()),
        (2, &["--apply", "--by", "Omar Sharif", "--reason", "x"]),
        (2, &["--past", "-1"]),
        (2, &["--apply", "--by", "zork@example.com", "--reason", "the head was damaged", "--past", "9"]),
        // More than anybody writes by mistake is asked about.
        (2, &[&word("the head was damaged")[..], &["--past", "20000"]].concat()),
        (1, &["--past", "9"]),
        (0, &[&word("the head was damaged")[..], &["--past", "9"]].concat()),
        // Now it is sound, and nobody but the operator knows of a serial after it.
        (0, &["--past", "4000"]),
        (0, &["--past", "4000", "--json"]),
        (0, &["--past", "3"]),
        (0, &["--past", "99999999999"]),
        (2, &[&word("a slip of the pen")[..], &["--past", "4000"]].concat()),
        (1, &[&word("a slip of the pen")[..], &["--past", "3"]].concat()),
    ] {
        let ran = stage.types("omar", &admin(&config, &[&["store", "recover"][..], more].concat()));
        assert_eq!(ran.code, code, "{more:?}: {}{}", ran.out, ran.err);
    }
    // The clock, a year and a half ahead and a day behind.
    let mut ahead = Command::new("faketime");
    ahead
        .args(["-f", "+500d", HALLPASS])
        .args(admin(&config, &[&["store", "recover", "--past", "99"][..], &WORD].concat()));
    let refused = ahead.output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("500 days after the log's last entry"), "{said}");
    let mut behind = Command::new("faketime");
    behind.args(["-f", "-1d", HALLPASS]).args(admin(&config, &["store", "recover"]));
    let told = String::from_utf8(behind.output().unwrap().stdout).unwrap();
    assert!(told.contains("s behind the log's last entry: the service ran on a clock that was fast"), "{told}");
    // It really rested so long, and its copy is all that is left.
    let mut rested = Command::new("faketime");
    rested
        .args(["-f", "+500d", HALLPASS])
        .args(admin(&config, &[&["store", "recover", "--past", "99", "--accept-clock", "--yes"][..], &WORD].concat()));
    let done = rested.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    stage.check("recover_refused");
}

/// Only `log.head` is gone, and somebody has a checkpoint that the database covers.
#[test]
fn where_only_the_checkpoint_is_lost_nothing_is_given_up() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let waiting = asked(&mut stage);
    let log = stage.shown("log.jsonl");
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &log]).code, 0);
    drop(stage.stop());
    let head = stage.path("service/log.head");
    // Another node's, whose newest place is damaged: the other one counts.
    let mut others = std::fs::read(&head).unwrap();
    assert_eq!(others.len(), 8192);
    let newest = if others[4096] == b'\n' { 0 } else { 4096 };
    let note = others[newest..newest + 400].to_vec();
    others[4096 - newest..8192 - newest].fill(b'\n');
    others[4096 - newest..4096 - newest + 400].copy_from_slice(&note);
    let text = String::from_utf8_lossy(&note).replacen("\n7\n", "\n9\n", 1);
    others[newest..newest + 400].copy_from_slice(text.as_bytes());
    std::fs::write(stage.path("other.head"), others).unwrap();
    std::fs::write(&head, "").unwrap();
    assert_eq!(stage.types("omar", &["serve", "--config", &config]).code, 1);
    // An auditor's export ends with one, too.
    for given in [&log, &stage.shown("other.head")] {
        let look = ["store", "recover", "--head", given];
        assert_eq!(stage.types("omar", &admin(&config, &look)).code, 1);
        let refused = stage.types("omar", &admin(&config, &[&look[..], &WORD].concat()));
        assert!(refused.code == 1 && refused.err.contains("nothing says that anything is lost"), "{}", refused.err);
    }
    // As it says.
    std::fs::rename(&head, stage.path("service/log.head.damaged")).unwrap();
    assert_eq!(stage.types("omar", &admin(&config, &["store", "recover", "--head", &log])).code, 0);
    stage.start();
    assert_eq!(stage.as_person("alice", &["show", &waiting, "--json"]).field("state"), "pending", "and logged in");
    stage.check("recover_vouched");
}

/// Nothing new is made where something was.
#[test]
fn a_service_whose_database_is_gone_or_empty_makes_none() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    drop(stage.stop());
    lose_database(&stage);
    assert_eq!(stage.types("omar", &["serve", "--config", &config]).code, 1);
    assert_eq!(names(&stage.path("service/state")), ["hallpass.db.lock"]);
    let path = stage.path("service/state/hallpass.db");
    std::fs::write(&path, "").unwrap();
    assert_eq!(stage.types("omar", &["serve", "--config", &config]).code, 1);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    // A write-ahead log without what it belongs to is not SQLite's to delete, whoever comes.
    std::fs::write(stage.path("service/state/hallpass.db-wal"), "all that there is").unwrap();
    let folder = stage.shown("backup");
    assert_eq!(stage.types("omar", &admin(&config, &["backup", "create", &folder])).code, 1);
    assert_eq!(std::fs::read(stage.path("service/state/hallpass.db-wal")).unwrap(), b"all that there is");
    stage.check("no_database");
}

/// A request that was written into the database, and one that was changed there, are found in a backup.
#[test]
fn a_backup_of_a_database_that_somebody_wrote_into_is_found_to_be_one() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let id = asked(&mut stage).replace('-', "");
    let raw = rusqlite::Connection::open(stage.path("service/state/hallpass.db")).unwrap();
    let changed = "UPDATE request SET body = json_set(body, '$.reason', 'another one altogether') WHERE id = ?1";
    assert_eq!(raw.execute(changed, [&id]).unwrap(), 1);
    drop(raw);
    let folder = stage.shown("backup");
    assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "create", &folder])).code, 0);
    let found = stage.as_person("omar", &admin(&config, &["backup", "verify", &folder]));
    assert!(found.code == 1 && found.out.contains("the log tells of another request"), "{}{}", found.out, found.err);
    assert_eq!(
        stage.as_person("omar", &admin(&config, &["backup", "restore", &folder, "--to", &stage.shown("x")])).code,
        1
    );
    assert!(!stage.path("x").exists());
}

/// Killed at each durable step, it is all there or nothing is, and doing it again goes on.
#[cfg(feature = "failpoints")]
#[test]
fn dying_at_any_step_leaves_what_doing_it_again_goes_on_from() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let folder = stage.shown("backup");
    asked(&mut stage);
    let dies = |stage: &Stage, point: &str, words: &[&str]| {
        let mut command = stage.command("omar", &admin(&config, words));
        let ended = command.env("HALLPASS_FAILPOINT", point).output().unwrap();
        assert_eq!(ended.status.code(), None, "{point}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    for point in ["backup.copied", "backup.written", "backup.placed"] {
        dies(&stage, point, &["backup", "create", &folder]);
        let is_placed = point == "backup.placed";
        assert_eq!(stage.path("backup").exists(), is_placed, "{point}");
        // What the one before has left is swept.
        let all = std::fs::read_dir(stage.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        let left = all.filter(|name| name.to_str().unwrap().ends_with(".tmp")).count();
        assert_eq!(left, usize::from(!is_placed), "{point}");
    }
    assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "verify", &folder])).code, 0);
    issued(&stage);
    drop(stage.stop());
    let head = std::fs::read(stage.path("service/log.head")).unwrap();
    for point in ["restore.checked", "restore.placed"] {
        lose_database(&stage);
        dies(&stage, point, &["backup", "restore", &folder]);
        assert_eq!(stage.path("service/state/hallpass.db").exists(), point == "restore.placed", "{point}");
    }
    let recover = [&["store", "recover"][..], &WORD].concat();
    for point in ["recover.filled", "recover.ended", "recover.given_up", "recover.kept", "store.commit.before:2"] {
        lose_database(&stage);
        std::fs::write(stage.path("service/log.head"), &head).unwrap();
        assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "restore", &folder])).code, 0, "{point}");
        dies(&stage, point, &recover);
        let is_answered_for = ["recover.given_up", "recover.kept"].contains(&point);
        let looked = stage.as_person("omar", &admin(&config, &["store", "recover"]));
        assert_eq!(looked.code, i32::from(!is_answered_for), "{point}: {}", looked.out);
        if !is_answered_for {
            let started = stage.as_person("omar", &["serve", "--config", &config]);
            assert_eq!(started.code, 1, "{point}: {}", started.err);
            assert_eq!(stage.as_person("omar", &admin(&config, &recover)).code, 0, "{point}");
        }
        let whole = stage.as_person("omar", &admin(&config, &["backup", "verify"]));
        assert_eq!(whole.code, 0, "{point}: {}{}", whole.out, whole.err);
        assert!(whole.out.contains("1 request and 1 policy"), "{}", whole.out);
    }
    // The last one died when everything was done but one's own word of it.
    stage.start();
    stage.log_in("alice");
    issued(&stage);
}

/// The same with the database on a server, which an older copy of it replaces.
#[cfg(feature = "failpoints")]
#[test]
fn dying_at_any_step_of_a_recovery_on_a_database_server_leaves_what_doing_it_again_goes_on_from() {
    let mut stage = on_its_port();
    asked(&mut stage);
    drop(stage.stop());
    let postgres = crate::support::postgres::cluster();
    let settings = postgres.settings(&postgres.database());
    let table = format!(
        "postgres = {{ host = {:?}, port = {}, database = {:?}, user = \"hallpass\" }}",
        settings.server.shown(),
        settings.port,
        settings.database
    );
    let file = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/file.toml", &file);
    stage.write("service/config.toml", &file.replace("path = \"state/hallpass.db\"", &table));
    let config = stage.shown("service/config.toml");
    let (from, to) = (format!("sqlite:{}", stage.shown("service/state/hallpass.db")), format!("postgres:{config}"));
    assert_eq!(stage.as_person("omar", &["store", "migrate", "--from", &from, "--to", &to]).code, 0);
    let (newest, older) = (settings.database.clone(), format!("{}_older", settings.database));
    let replace = |gone: &str, by: &str| {
        for database in [gone, by] {
            let close = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
            postgres.sql("postgres", &close);
        }
        postgres.sql("postgres", &format!("DROP DATABASE IF EXISTS {gone}"));
        postgres.sql("postgres", &format!("CREATE DATABASE {gone} TEMPLATE {by} OWNER hallpass"));
    };
    replace(&older, &newest);
    stage.start();
    stage.log_in("alice");
    let lost = issued(&stage);
    drop(stage.stop());
    let head = std::fs::read(stage.path("service/log.head")).unwrap();
    let recover = [&["store", "recover"][..], &WORD].concat();
    for point in [
        "recover.filled",
        "recover.ended",
        "recover.given_up",
        "recover.kept",
        "store.commit.before:2",
        "store.commit.after:2",
    ] {
        replace(&newest, &older);
        std::fs::write(stage.path("service/log.head"), &head).unwrap();
        let mut command = stage.command("omar", &admin(&config, &recover));
        let died = command.env("HALLPASS_FAILPOINT", point).output().unwrap();
        assert_eq!(died.status.code(), None, "{point}: {}", String::from_utf8_lossy(&died.stderr));
        let is_answered_for = ["recover.given_up", "recover.kept"].contains(&point);
        let looked = stage.as_person("omar", &admin(&config, &["store", "recover"]));
        assert_eq!(looked.code, i32::from(!is_answered_for), "{point}: {}", looked.out);
        if !is_answered_for {
            let started = stage.as_person("omar", &["serve", "--config", &config]);
            assert_eq!(started.code, 1, "{point}: {}", started.err);
            assert_eq!(stage.as_person("omar", &admin(&config, &recover)).code, 0, "{point}");
        }
        let whole = stage.as_person("omar", &admin(&config, &["backup", "verify"]));
        assert_eq!(whole.code, 0, "{point}: {}{}", whole.out, whole.err);
        assert!(whole.out.contains("1 request and 1 policy"), "{}", whole.out);
    }
    stage.start();
    stage.log_in("alice");
    assert!(issued(&stage) > lost, "no serial is given twice");
}

/// Each step says that it could not be done, and doing it again goes on.
#[cfg(feature = "failpoints")]
#[test]
fn a_recovery_on_a_full_disk_is_not_done_and_goes_on_when_there_is_room() {
    use crate::crash::shim::{EIO, ENOSPC, Shim};
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let folder = stage.shown("backup");
    asked(&mut stage);
    assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "create", &folder])).code, 0);
    let lost = issued(&stage);
    drop(stage.stop());
    let head = std::fs::read(stage.path("service/log.head")).unwrap();
    let recover = [&["store", "recover"][..], &WORD].concat();
    let shim = Shim::new(&stage.path(""));
    for rule in [
        ("pwrite", "hallpass.db-wal", ENOSPC),
        ("pwrite", "hallpass.db*", ENOSPC),
        ("fsync", "hallpass.db-wal", EIO),
        ("write", ".log.head.*.tmp", ENOSPC),
        ("rename", ".log.head.*.tmp", EIO),
    ] {
        lose_database(&stage);
        std::fs::write(stage.path("service/log.head"), &head).unwrap();
        assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "restore", &folder])).code, 0);
        shim.fail(&[rule], 1);
        let mut command = stage.command("omar", &admin(&config, &recover));
        shim.wrap(&mut command);
        let failed = command.output().unwrap();
        let said = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(failed.status.code(), Some(1), "{rule:?}: {said}");
        assert!(said.contains("next") && !said.contains("panicked"), "{rule:?}: {said}");
        // What is kept aside is what it was: no service starts on what is half done.
        assert_eq!(std::fs::read(stage.path("service/log.head")).unwrap(), head, "{rule:?}");
        shim.mend();
        let is_answered_for = rule.1.contains("head");
        if !is_answered_for {
            assert_eq!(stage.as_person("omar", &["serve", "--config", &config]).code, 1, "{rule:?}");
        }
        let again = stage.as_person("omar", &admin(&config, &recover));
        assert_eq!(again.code, 0, "{rule:?}: {}{}", again.out, again.err);
        let whole = stage.as_person("omar", &admin(&config, &["backup", "verify"]));
        assert!(
            whole.code == 0 && whole.out.contains("1 request and 1 policy"),
            "{rule:?}: {}{}",
            whole.out,
            whole.err
        );
    }
    stage.start();
    stage.log_in("alice");
    assert!(issued(&stage) > lost, "no serial is given twice");
}

/// Where there is no room, nothing half stays.
#[test]
fn a_full_disk_leaves_no_half_backup_and_no_half_database() {
    let mut stage = on_its_port();
    let config = stage.shown("service/config.toml");
    let (folder, small) = (stage.shown("backup"), stage.shown("small"));
    assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "create", &folder])).code, 0);
    std::fs::create_dir(&small).unwrap();
    let create = format!("{HALLPASS} admin backup create {small}/backup --config {config}");
    let restore = format!("{HALLPASS} admin backup restore {folder} --to {small}/new.db --config {config}");
    for (size, command) in [("8k", &create), ("64k", &create), ("8k", &restore), ("64k", &restore), ("160k", &restore)]
    {
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs {small} && {{ {command}; echo \"code $?\"; ls -A {small} | grep -v '^new.db.lock$'; true; }}"
        );
        let ran = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
        assert!(ran.status.success(), "{err}");
        assert_eq!(out, "code 1\n", "{size} {command}: {err}");
        // What has no room says nothing about the backup.
        assert!(!err.contains("no backup to rely on") && err.contains(&small), "{size} {command}: {err}");
    }
    let verify = format!(
        "mount -t tmpfs -o size=64k tmpfs {small} && {HALLPASS} admin backup verify {folder} --work {small} --config {config}"
    );
    let full = Command::new("unshare").args(["--mount", "sh", "-c", &verify]).output().unwrap();
    let said = String::from_utf8(full.stderr).unwrap();
    assert!(said.contains("cannot take the database of") && said.contains("--work FOLDER"), "{said}");
    assert_eq!(stage.as_person("alice", &["request", "web-1", "--reason", REASON, "--no-wait"]).code, 8, "it runs on");
    // What a killed service leaves is its newest changes in a file beside the database; they are in a backup, too.
    stage.kill();
    let after = stage.shown("after");
    let made = stage.as_person("omar", &admin(&config, &["backup", "create", &after, "--json"]));
    assert!(made.code == 0 && made.json()["entries"].as_u64() > Some(6), "{}{}", made.out, made.err);
    // A place for the work that is not beside the backup, which can't be written to.
    let read_only = format!(
        "mount -t tmpfs tmpfs {small} && cp -r {after} {small}/b && mount -o remount,ro {small} && {HALLPASS} admin backup verify {small}/b --config {config}"
    );
    for (code, more) in [(1, String::new()), (0, format!(" --work {}", stage.shown("omar")))] {
        let script = format!("{read_only}{more}");
        let ran = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("--work FOLDER"), code == 1, "{said}");
    }
}

#[test]
fn a_store_in_postgresql_names_its_own_backups_and_is_checked_in_its_place() {
    let mut stage = on_its_port();
    asked(&mut stage);
    drop(stage.stop());
    let before = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let postgres = crate::support::postgres::cluster();
    let settings = postgres.settings(&postgres.database());
    let table = format!(
        "postgres = {{ host = {:?}, port = {}, database = {:?}, user = \"hallpass\" }}",
        settings.server.shown(),
        settings.port,
        settings.database
    );
    stage.write("service/node.toml", &before.replace("path = \"state/hallpass.db\"", &table));
    let (file, node) = (stage.shown("service/state/hallpass.db"), stage.shown("service/node.toml"));
    let folder = stage.shown("backup");
    let (from, to) = (format!("sqlite:{file}"), format!("postgres:{node}"));
    assert_eq!(stage.as_person("omar", &["store", "migrate", "--from", &from, "--to", &to]).code, 0);
    let refused = stage.as_person("omar", &admin(&node, &["backup", "create", &folder]));
    assert!(refused.code == 2 && refused.err.contains("pg_dump"), "{}", refused.err);
    let checked = stage.as_person("omar", &admin(&node, &["backup", "verify"]));
    assert!(checked.code == 0 && checked.out.contains("1 request and 1 policy"), "{}{}", checked.out, checked.err);
    let config = stage.shown("service/config.toml");
    assert_eq!(stage.as_person("omar", &admin(&config, &["backup", "create", &folder])).code, 0, "no service runs");
    let refused = stage.as_person("omar", &admin(&node, &["backup", "restore", &folder]));
    assert!(refused.code == 2 && refused.err.contains("store migrate"), "{}", refused.err);
    assert_eq!(stage.as_person("omar", &admin(&node, &["store", "recover"])).code, 0);
}
