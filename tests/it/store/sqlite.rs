//! What only the SQLite store has: its file, its schema, damage, a full queue, a full disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use hallpass::audit::entry::Entry;
use hallpass::identity::mac::MacKey;
use hallpass::identity::session::{Session, TokenHash};
use hallpass::name::RequestPrefix;
use hallpass::store::sqlite::SqliteStore;
use hallpass::store::{LIST_MAX, RequestFilter, Save, Store, StoreError, Work};
use rusqlite::Connection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::{Desk, Sqlite, change, event};
use crate::support::fixtures::{at, id, key, person};

/// The file as an intruder, or a newer program, could open it.
fn raw(database: &Sqlite) -> Connection {
    Connection::open(database.settings().path).unwrap()
}

/// A file beside the database.
fn beside(database: &Sqlite, suffix: &str) -> PathBuf {
    let mut path = database.settings().path.into_os_string();
    path.push(suffix);
    PathBuf::from(path)
}

/// Why the database can't be opened.
fn refusal(database: &Sqlite) -> StoreError {
    match database.try_open() {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

async fn append(store: &dyn Store, seconds: u64) -> Result<(), StoreError> {
    store.commit(change(at(seconds), vec![], vec![event()])).await.map(drop)
}

#[tokio::test]
async fn its_files_are_for_their_owner_alone() {
    let database = Sqlite::new();
    let store = database.open();
    append(&*store, 0).await.unwrap();
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mode = std::fs::metadata(beside(&database, suffix)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "hallpass.db{suffix}");
    }
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let database = Sqlite::new();
    drop(database.open());
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(database.settings().path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(&database).to_string();
        assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let database = Sqlite::new();
    drop(database.open());
    match std::os::unix::fs::chown(database.settings().path, Some(65_500), None) {
        Ok(()) => {
            let error = refusal(&database).to_string();
            assert!(error.contains("belongs to user 65500"), "{error}");
        }
        // Only root can give a file away; for others such a file can't be opened at all.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

#[test]
fn a_symbolic_link_in_its_place_is_refused() {
    let database = Sqlite::new();
    std::os::unix::fs::symlink("elsewhere", database.settings().path).unwrap();
    refusal(&database);
    assert!(!database.folder.path().join("elsewhere").exists());
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused() {
    let database = Sqlite::new();
    let store = database.open();
    let error = refusal(&database).to_string();
    assert!(error.contains("in use by another process"), "{error}");
    append(&*store, 0).await.unwrap();
    drop(store);
    append(&*database.open(), 1).await.unwrap();
}

#[tokio::test]
async fn a_second_store_beside_a_lock_that_was_removed_ends_the_first_and_nothing_else() {
    let database = Sqlite::new();
    let first = database.open();
    append(&*first, 0).await.unwrap();
    std::fs::remove_file(beside(&database, ".lock")).unwrap();
    let error = append(&*first, 1).await.unwrap_err().to_string();
    assert!(error.contains(".lock") && error.contains("moved, removed or replaced"), "{error}");
    let second = database.open();
    append(&*second, 2).await.unwrap();
    // A write without an entry would put the old head over the new one.
    for error in [append(&*first, 3).await.unwrap_err(), first.sweep(at(9)).await.unwrap_err()] {
        assert!(error.to_string().contains("another file has its place"), "{error}");
    }
    append(&*second, 4).await.unwrap();
    drop((first, second));
    append(&*database.open(), 5).await.unwrap();
}

#[tokio::test]
async fn what_another_process_wrote_without_a_lock_is_not_written_over() {
    let database = Sqlite::new();
    let store = database.open();
    append(&*store, 0).await.unwrap();
    raw(&database).execute("UPDATE log_head SET size = 2", []).unwrap();
    for error in [append(&*store, 1).await.unwrap_err(), append(&*store, 1).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    raw(&database).execute("UPDATE log_head SET size = 1", []).unwrap();
    append(&*store, 2).await.unwrap();
}

/// What is in the database's write-ahead log alone, and the database as it was before.
async fn torn_apart(database: &Sqlite) -> Vec<u8> {
    drop(database.open());
    let older = std::fs::read(database.settings().path).unwrap();
    let store = database.open();
    for seconds in 0..3 {
        append(&*store, seconds).await.unwrap();
    }
    let log = std::fs::read(beside(database, "-wal")).unwrap();
    assert!(log.len() > 4096);
    drop(store);
    std::fs::write(beside(database, "-wal"), &log).unwrap();
    std::fs::write(database.settings().path, older).unwrap();
    log
}

#[tokio::test]
async fn a_write_ahead_log_without_its_database_is_left_alone() {
    let database = Sqlite::new();
    let log = torn_apart(&database).await;
    let path = database.settings().path;
    let aside = database.folder.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    for is_empty in [false, true] {
        if is_empty {
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let error = refusal(&database).to_string();
        assert!(error.contains("-wal") && error.contains("back beside it"), "{error}");
        assert_eq!(path.exists(), is_empty);
        assert_eq!(std::fs::read(beside(&database, "-wal")).unwrap(), log);
    }
    std::fs::rename(&aside, &path).unwrap();
    append(&*database.open(), 4).await.unwrap();
}

#[tokio::test]
async fn a_write_ahead_log_that_does_not_fit_is_left_as_it_is() {
    let database = Sqlite::new();
    let log = torn_apart(&database).await;
    let path = database.settings().path;
    // Another database's, so that what comes of both is none.
    let other = Sqlite::new();
    drop(other.open());
    raw(&other).execute("UPDATE log_head SET seal = zeroblob(32)", []).unwrap();
    raw(&other).pragma_update(None, "user_version", 99).unwrap();
    raw(&other).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    std::fs::copy(other.settings().path, &path).unwrap();
    let before = std::fs::read(&path).unwrap();
    refusal(&database);
    assert_eq!(std::fs::read(beside(&database, "-wal")).unwrap(), log);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_clean_stop_leaves_one_whole_file_and_fills_none_that_was_cut() {
    let database = Sqlite::new();
    let store = database.open();
    for seconds in 0..40 {
        append(&*store, seconds).await.unwrap();
    }
    drop(store);
    assert!(!beside(&database, "-wal").exists(), "all is in the file");
    let store = database.open();
    append(&*store, 50).await.unwrap();
    // The first change is merged once it is answered; whoever is answered after it knows that this is over.
    append(&*store, 51).await.unwrap();
    let path = database.settings().path;
    let whole = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - 61_440).unwrap();
    drop(store);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), whole - 61_440);
    assert!(std::fs::metadata(beside(&database, "-wal")).unwrap().len() > 0);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let database = Sqlite::new();
    drop(database.open());
    raw(&database).pragma_update(None, "user_version", 99).unwrap();
    let error = refusal(&database).to_string();
    assert!(error.contains("schema 99") && error.contains("newer program"), "{error}");
    let version: i64 = raw(&database).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

/// Puts the file back to how schema 8 found what belongs to a request: by its id.
const BY_ID: &str = "
    CREATE TABLE request_host (host TEXT NOT NULL, request TEXT NOT NULL REFERENCES request (id), PRIMARY KEY (host, request))
        STRICT, WITHOUT ROWID;
    INSERT INTO request_host SELECT host, id FROM host_request JOIN request ON number = host_request.request;
    CREATE INDEX request_host_of_request ON request_host (request);
    CREATE INDEX log_entry_of_request ON log_entry (request, number) WHERE request IS NOT NULL;
    DROP TABLE host_request; DROP TABLE request_entry; PRAGMA user_version = 8;";

#[tokio::test]
async fn what_an_older_schema_found_by_id_is_found_by_number() {
    let database = Sqlite::new();
    let before = {
        let desk = Desk::new(&database).await;
        let issued = desk.issued(id(1), at(0)).await;
        desk.ask(id(2), "alice@example.com", &["web-1"], at(1)).await;
        let entries = [desk.store.entries_of(id(1)).await.unwrap(), desk.store.entries_of(id(2)).await.unwrap()];
        assert!(entries[0].len() >= 3 && entries[1].len() == 1);
        (issued, entries)
    };
    raw(&database).execute_batch(BY_ID).unwrap();

    let desk = Desk::new(&database).await;
    let after = [desk.store.entries_of(id(1)).await.unwrap(), desk.store.entries_of(id(2)).await.unwrap()];
    assert_eq!((desk.request(id(1)).await, after), before);
    for (host, found) in [("dev-1", vec![id(1)]), ("web-1", vec![id(2)]), ("web-2", vec![])] {
        let host = Some(hallpass::name::HostName::parse(host).unwrap());
        let requests =
            desk.store.requests(RequestFilter { host, limit: 10, ..RequestFilter::default() }).await.unwrap();
        assert_eq!(requests.iter().map(|stored| stored.request.id()).collect::<Vec<_>>(), found);
    }
}

#[tokio::test]
async fn whoever_looks_leaves_an_older_schema_as_it_is() {
    let database = Sqlite::new();
    append(&*database.open(), 0).await.unwrap();
    let look = || SqliteStore::open_to(Work::Look, &database.settings(), MacKey::new([3; 32]));
    assert_eq!(look().unwrap().head().await.unwrap().frontier.size(), 1);
    raw(&database).execute_batch(BY_ID).unwrap();

    let error = look().unwrap_err().to_string();
    assert!(error.contains("schema 8") && error.contains("can't be taken back"), "{error}");
    let version: i64 = raw(&database).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 8);
    SqliteStore::open_to(Work::Repair, &database.settings(), MacKey::new([3; 32])).unwrap();
    look().unwrap();

    std::fs::write(database.settings().path, "").unwrap();
    let error = look().unwrap_err().to_string();
    assert!(error.contains("nothing of hallpass is in it"), "{error}");
}

#[test]
fn a_database_of_another_program_is_refused_and_left_alone() {
    let database = Sqlite::new();
    raw(&database).execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1;").unwrap();
    std::fs::set_permissions(database.settings().path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let error = refusal(&database).to_string();
    assert!(error.contains("another program"), "{error}");
    let tables: i64 = raw(&database).query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let database = Sqlite::new();
    let path = database.settings().path;
    drop(database.open());
    let text = "not a database\n".repeat(1_000);
    {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    refusal(&database);
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}

#[tokio::test]
async fn a_clean_stop_leaves_one_whole_file() {
    let database = Sqlite::new();
    let store = database.open();
    append(&*store, 0).await.unwrap();
    drop(store);
    assert!(!beside(&database, "-wal").exists() && !beside(&database, "-shm").exists());
    let entries: i64 = raw(&database).query_row("SELECT count(*) FROM log_entry", [], |row| row.get(0)).unwrap();
    assert_eq!(entries, 1);
}

#[test]
fn a_missing_folder_is_named() {
    let mut settings = Sqlite::new().settings();
    settings.path = settings.path.join("nowhere").join("hallpass.db");
    let error = SqliteStore::open(&settings, MacKey::new([3; 32])).unwrap_err().to_string();
    assert!(error.contains("nowhere/hallpass.db"), "{error}");
}

#[tokio::test]
async fn a_log_whose_head_does_not_fit_its_entries_is_refused() {
    let cases = [
        "DELETE FROM log_entry WHERE number = 4",
        "DELETE FROM log_entry WHERE number >= 2",
        "DELETE FROM log_entry",
        "DELETE FROM log_entry WHERE number = 0",
        "INSERT INTO log_entry SELECT 5, at, kind, request, bytes FROM log_entry WHERE number = 4",
        "UPDATE log_entry SET bytes = CAST(replace(CAST(bytes AS TEXT), 'alice', 'malice') AS BLOB) WHERE number = 4",
        "UPDATE log_entry SET bytes = (SELECT bytes FROM log_entry WHERE number = 3) WHERE number = 4",
        "DELETE FROM log_node WHERE level = 0 AND position = 4",
        "DELETE FROM log_node WHERE level = 2",
        "UPDATE log_node SET hash = zeroblob(32) WHERE level = 2",
        "UPDATE log_head SET size = 4",
        "UPDATE log_head SET size = 6",
        "UPDATE log_head SET size = 0, frontier = x''",
        "UPDATE log_head SET frontier = zeroblob(64)",
        "UPDATE log_head SET frontier = zeroblob(63)",
        "UPDATE log_head SET at = at - 1",
        "UPDATE log_head SET at = -1",
        "UPDATE log_head SET seal = zeroblob(32)",
        "UPDATE log_head SET seal = x''",
        "UPDATE log_head SET policy = 1",
        "DELETE FROM log_head",
    ];
    for sql in cases {
        let database = Sqlite::new();
        {
            let store = database.open();
            for seconds in 0..5 {
                append(&*store, seconds).await.unwrap();
            }
        }
        raw(&database).execute_batch(&format!("PRAGMA ignore_check_constraints = ON; {sql}")).unwrap();
        let error = refusal(&database);
        assert!(matches!(error, StoreError::Damaged { .. }), "{sql}: {error}");
    }
}

#[tokio::test]
async fn an_entry_missing_in_the_middle_is_not_passed_over() {
    let database = Sqlite::new();
    let store = database.open();
    for seconds in 0..5 {
        append(&*store, seconds).await.unwrap();
    }
    raw(&database).execute("DELETE FROM log_entry WHERE number = 2", []).unwrap();
    assert_eq!(store.entries(3, 10).await.unwrap().len(), 2);
    let error = store.entries(0, 10).await.unwrap_err().to_string();
    assert!(error.contains("entry 2 is missing"), "{error}");
}

#[tokio::test]
async fn a_damaged_request_is_named_and_hides_no_other() {
    let cases = [
        "UPDATE request SET state = 'issued'",
        "UPDATE request SET asker = 'ann@example.com'",
        "UPDATE request SET asked = asked + 1",
        "UPDATE request SET next_tick = next_tick - 1",
        "UPDATE request SET version = -1",
        "UPDATE request SET body = 'null'",
        "UPDATE request SET body = body || ' '",
        "UPDATE request SET body = json_set(body, '$.v', 2)",
        "UPDATE request SET body = json_set(body, '$.surprise', 1)",
        "UPDATE request SET body = json_remove(body, '$.reason')",
        "UPDATE request SET body = json_set(body, '$.state', json('{\"paused\":{}}')), state = 'paused'",
        "UPDATE request SET body = json_set(body, '$.state.approved.surprise', 1)",
        "UPDATE request SET body = json_set(body, '$.terms.hosts.\"dev-1\"', '*')",
        "UPDATE request SET body = json_set(body, '$.terms.options.permits[0]', 'everything')",
        "UPDATE request SET body = json_set(body, '$.terms.options.permits', json('[\"pty\",\"pty\"]'))",
        "UPDATE request SET body = json_set(body, '$.grants', json('[]'))",
        "UPDATE request SET body = json_set(body, '$.grants[0].end', 1)",
        "UPDATE request SET body = json_set(body, '$.key', 'ssh-dss AAAA')",
        "UPDATE request SET body = json_set(body, '$.grants[0].signed', json('{}'))",
        "UPDATE request SET body = json_set(body, '$.grants[0].signed', json('{\"zoe\":\"SHA256:AAAA\"}'))",
        "UPDATE request SET body = json_set(body, '$.grants[0].signed', json('{\"zoe\":\"SHA256:4A9jyZBOhnKZvcGQ6TRFbf5Gymb41AfYvYaVmWHD+G4\"}'))",
    ];
    let database = Sqlite::new();
    let desk = Desk::new(&database).await;
    let (bad, good) = (desk.approved(id(1), at(0)).await, desk.approved(id(2), at(0)).await);
    let end = bad.request.next_tick().unwrap();
    let raw = raw(&database);
    for sql in cases {
        raw.execute_batch("SAVEPOINT clean; CREATE TEMP TABLE kept AS SELECT * FROM request;").unwrap();
        raw.execute(&format!("{sql} WHERE id = ?1"), [id(1).digits()]).unwrap();
        raw.execute_batch("RELEASE clean").unwrap();

        let error = desk.store.request(id(1)).await.unwrap_err();
        let StoreError::Damaged { what, .. } = &error else { panic!("{sql}: {error}") };
        assert!(what.contains(id(1).digits()), "{sql}: {error}");
        let all = RequestFilter { limit: 10, ..RequestFilter::default() };
        assert_eq!(desk.store.requests(all.clone()).await.unwrap(), vec![good.clone()], "{sql}");
        assert_eq!(desk.store.due(end, 10).await.unwrap(), vec![good.clone()], "{sql}");
        assert_eq!(desk.store.due(end, 1).await.unwrap(), vec![good.clone()], "{sql}: it takes nobody's place");
        let prefix = Some(RequestPrefix::parse(id(1).digits()).unwrap());
        let error = desk.store.requests(RequestFilter { prefix, ..all }).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{sql}: {error}");

        raw.execute_batch(
            "DELETE FROM host_request; DELETE FROM request; INSERT INTO request SELECT * FROM kept; DROP TABLE kept;",
        )
        .unwrap();
    }
    assert_eq!(desk.request(id(1)).await, bad);
}

#[tokio::test]
async fn a_request_that_nobody_signed_is_kept_as_before_there_were_signatures() {
    let database = Sqlite::new();
    let desk = Desk::new(&database).await;
    let asked = desk.ask(id(1), "alice@example.com", &["web-1"], at(0)).await;
    let body = |n: u32| -> String {
        let select = "SELECT body FROM request WHERE id = ?1";
        raw(&database).query_row(select, [id(n).digits()], |row| row.get(0)).unwrap()
    };
    let approved = desk.house.approve(asked.request.clone(), "bob@example.com", at(1));
    desk.save(approved, asked.version, at(1)).await.unwrap();
    let unsigned = body(1);
    assert!(unsigned.contains(r#""approvers":["bob@example.com"],"digest":"#), "{unsigned}");
    assert!(!unsigned.contains("signed"), "{unsigned}");

    let asked = desk.ask(id(2), "alice@example.com", &["web-1"], at(0)).await;
    let approved = desk.house.approve_signed(asked.request.clone(), "bob@example.com", at(1));
    let stored = desk.save(approved, asked.version, at(1)).await.unwrap();
    let signed = body(2);
    let key = key(3).fingerprint();
    let wanted = format!(r#""approvers":["bob@example.com"],"signed":{{"bob@example.com":"{key}"}},"digest":"#);
    assert!(signed.contains(&wanted), "{signed}");
    assert_eq!(desk.request(id(2)).await, stored);
}

#[tokio::test]
async fn a_damaged_session_entry_or_policy_is_refused() {
    let database = Sqlite::new();
    let desk = Desk::new(&database).await;
    let token = TokenHash([1; 32]);
    let login_key = key(1).fingerprint();
    let session = Session {
        token,
        person: person("alice@example.com"),
        key: login_key,
        opened: at(0),
        expires: at(9),
        seal: [5; 32],
    };
    desk.store.commit(change(at(0), vec![Save::NewSession(session)], vec![event()])).await.unwrap();
    desk.approved(id(1), at(0)).await;
    let raw = raw(&database);
    for sql in ["UPDATE session SET person = 'ALICE'", "UPDATE session SET person = 'alice', key = 'MD5:00'"] {
        raw.execute_batch(sql).unwrap();
        let error = desk.store.session(token).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{sql}: {error}");
    }
    raw.execute_batch(
        "UPDATE log_entry SET bytes = CAST(CAST(bytes AS TEXT) || ' ' AS BLOB) WHERE request IS NOT NULL",
    )
    .unwrap();
    let error = desk.store.entries_of(id(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    raw.execute_batch("INSERT INTO policy VALUES (1, 'text', 'nobody', 0)").unwrap();
    let error = desk.store.policy(None).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_full_queue_says_so_and_loses_nothing_that_it_took() {
    let database = Sqlite::new();
    let store = database.open();
    append(&*store, 0).await.unwrap();
    // Somebody else has the write lock, so the writer waits and its queue fills.
    let other = raw(&database);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut changes = JoinSet::new();
    for _ in 0..2_000 {
        let store = Arc::clone(&store);
        changes.spawn(async move { append(&*store, 1).await });
    }
    let mut refused = 0;
    // Each task hands its change over, or is refused, when it first runs; refusals come back at once.
    while let Some(result) = changes.join_next().await {
        if let Err(error) = result.unwrap() {
            assert!(matches!(error, StoreError::Busy), "{error}");
            refused += 1;
            if refused == 1 {
                other.execute_batch("COMMIT").unwrap();
            }
        }
    }
    assert!(refused > 0);
    let size = store.head().await.unwrap().frontier.size();
    assert_eq!(size, 2_001 - refused);
}

/// Set for the copy of this test program that plays with its own file size limit.
const SMALL_DISK: &str = "HALLPASS_TEST_SMALL_DISK";

#[test]
fn a_full_disk_fails_changes_and_the_store_goes_on_when_there_is_space_again() {
    if std::env::var_os(SMALL_DISK).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        return runtime.block_on(on_a_small_disk());
    }
    // In a process of its own: the limit is the whole process's, and its signal must be ignored, which only a parent can
    // arrange without unsafe code.
    let test = "store::sqlite::a_full_disk_fails_changes_and_the_store_goes_on_when_there_is_space_again";
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SMALL_DISK, "1")
        .output()
        .unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && shown.contains("the small disk held"), "{shown}");
}

async fn on_a_small_disk() {
    let database = Sqlite::new();
    let store = database.open();
    let mut done = 0;
    for seconds in 0..3 {
        append(&*store, seconds).await.unwrap();
        done += 1;
    }
    let used = std::fs::metadata(beside(&database, "-wal")).unwrap().len();
    let limits = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(used + 60_000), ..limits }).unwrap();
    // A failure may be followed by a success: what is left may do for a smaller transaction.
    let mut failures = 0;
    while failures < 5 {
        match append(&*store, done).await {
            Ok(()) => (done, failures) = (done + 1, 0),
            Err(error) => {
                assert!(matches!(error, StoreError::Failed { .. }), "{error}");
                failures += 1;
            }
        }
        assert!(done < 1_000, "the limit was never reached");
    }
    // It is not ready although the one page that a probe needs has room.
    assert!(matches!(store.ready().await, Err(StoreError::Failed { .. })));
    assert!(matches!(store.ready().await, Err(StoreError::Failed { .. })));
    // Not even that one page.
    setrlimit(Resource::Fsize, Rlimit { current: Some(0), ..limits }).unwrap();
    // Nothing more is claimed, and what was acknowledged can be read.
    assert!(matches!(store.ready().await, Err(StoreError::Failed { .. })));
    assert_eq!(store.head().await.unwrap().frontier.size(), done);

    setrlimit(Resource::Fsize, limits).unwrap();
    store.ready().await.unwrap();
    append(&*store, done).await.unwrap();
    done += 1;
    drop(store);
    let store = database.open();
    assert_eq!(store.head().await.unwrap().frontier.size(), done);
    let entries = store.entries(0, LIST_MAX).await.unwrap();
    assert!((0..).zip(&entries).all(|(index, bytes)| Entry::parse(bytes).unwrap().index == index));
    println!("the small disk held");
}
