//! Whoever can write the database, or put an older one back, gets no access by it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hallpass::access::Refusal;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::tree::Frontier;
use hallpass::identity::Actor;
use hallpass::identity::session::mint;
use hallpass::name::{PolicyVersion, RequestId};
use hallpass::service::Failure;
use hallpass::service::access::Approval;
use hallpass::ssh::cert::TbsCert;
use hallpass::time::Timestamp;
use rusqlite::Connection;
use secrecy::ExposeSecret as _;

use crate::support::{World, login_key, person, prefix};

fn raw(world: &World) -> Connection {
    Connection::open(world.database()).unwrap()
}

/// A database with what SQLite keeps beside it.
fn rename(from: &Path, to: &Path) {
    let beside = |path: &Path, suffix| format!("{}{suffix}", path.display());
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::rename(beside(from, suffix), beside(to, suffix)) {
            Err(error) if !suffix.is_empty() => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            done => done.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_session_that_was_written_into_the_database_is_no_login() {
    let world = World::new().await;
    let mine = world.login("eve").await;
    world.login("bob").await;
    let (token, hash) = mint([9; 32]);
    let raw = raw(&world);
    let copied =
        "INSERT INTO session SELECT ?1, person, key, opened, expires, seal FROM session WHERE person LIKE 'bob%'";
    assert_eq!(raw.execute(copied, [hash.0]).unwrap(), 1);
    let answer = world.service().caller(token.expose_secret()).await;
    assert!(matches!(answer, Err(Failure::NotLoggedIn)), "{answer:?}");

    let own = mine.token.expose_secret();
    world.service().caller(own).await.unwrap();
    let lent = "UPDATE session SET (person, key) = (SELECT person, key FROM session WHERE person LIKE 'bob%' LIMIT 1)
         WHERE person LIKE 'eve%'";
    assert_eq!(raw.execute(lent, []).unwrap(), 1);
    let answer = world.service().caller(own).await;
    assert!(matches!(answer, Err(Failure::NotLoggedIn)), "{answer:?}");
}

#[tokio::test]
async fn a_browsers_session_that_was_written_into_the_database_signs_nobody_in() {
    let world = World::new().await;
    let service = world.service();
    let (mine, bobs) = (world.login("eve").await, world.login("bob").await);
    let (sign_in, _) = service.sign_in_token(mine.token.expose_secret()).await.unwrap();
    let own = service.sign_in(sign_in, "192.0.2.7".to_owned()).await.unwrap().token;
    assert_eq!(service.browser(own.expose_secret()).await.unwrap().proven.person(), mine.proven.person());
    let raw = raw(&world);
    let parent = hallpass::identity::session::hash(bobs.token.expose_secret()).unwrap();
    let (token, hash) = hallpass::identity::browser::mint_browser([9; 32]);
    let copied = "INSERT INTO browser_session SELECT ?1, ?2, opened, expires, seal FROM browser_session";
    assert_eq!(raw.execute(copied, [hash.0, parent.0]).unwrap(), 1);
    assert_eq!(raw.execute("UPDATE browser_session SET parent = ?1", [parent.0]).unwrap(), 2);
    for token in [token, own] {
        let answer = service.browser(token.expose_secret()).await;
        assert!(matches!(answer, Err(Failure::NotLoggedIn)), "{answer:?}");
    }
}

#[tokio::test]
async fn a_policy_text_that_was_changed_in_the_database_stops_the_start_and_is_not_shown() {
    let mut world = World::new().await;
    let omar = world.proven("omar").await;
    raw(&world).execute("UPDATE policy SET text = replace(text, '4h', '8h') || '# '", []).unwrap();
    let shown = world.service().show_policy(&omar, None).await;
    assert!(matches!(shown, Err(Failure::Unavailable(_))), "{shown:?}");
    let started = world.try_start(None).await;
    let Err(Failure::Unavailable(why)) = started else { panic!("{started:?}") };
    assert!(why.contains("policy version 1"), "{why}");
}

#[tokio::test]
async fn an_older_database_put_back_is_refused_and_the_newest_goes_on() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let copy = world.database().with_extension("copy");
    raw(&world).execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
    let first = world.fetch(&alice, id).await.unwrap();
    world.stop();
    let newest = world.database().with_extension("newest");
    rename(&world.database(), &newest);
    rename(&copy, &world.database());
    let started = world.try_start(None).await;
    let Err(Failure::Unavailable(why)) = started else { panic!("{started:?}") };
    assert!(why.contains("used twice"), "{why}");

    rename(&world.database(), &copy);
    rename(&newest, &world.database());
    world.try_start(None).await.unwrap();
    let alice = world.proven("alice").await;
    let again = world.fetch(&alice, id).await.unwrap();
    assert_eq!(again.tbs().bytes(), first.tbs().bytes());
    world.service().end(&alice, &prefix(id), String::new()).await.unwrap();
    let over = world.fetch(&alice, id).await;
    assert!(matches!(over, Err(Failure::Refused(Refusal::Over { .. }))), "{over:?}");
}

#[tokio::test]
async fn a_kept_checkpoint_that_is_not_of_this_log_stops_the_start() {
    let mut world = World::new().await;
    world.stop();
    let head = world.database().with_file_name("head");
    let note = std::fs::read_to_string(&head).unwrap();
    let size = note.lines().nth(1).unwrap();
    std::fs::write(&head, note.replacen(&format!("\n{size}\n"), "\n2\n", 1)).unwrap();
    let started = world.try_start(None).await;
    let Err(Failure::Unavailable(why)) = started else { panic!("{started:?}") };
    assert!(why.contains("does not count"), "{why}");
}

/// A part of one request's row, by its path, and the columns that repeat the row's body.
fn edit(world: &World, id: RequestId, path: &str, json: &str, columns: &str) {
    let sql = format!("UPDATE request SET body = json_set(body, '{path}', json(?1)){columns} WHERE id = ?2");
    assert_eq!(raw(world).execute(&sql, [json, id.digits()]).unwrap(), 1);
}

fn is_internal<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::Internal { .. }))
}

#[tokio::test]
async fn a_grant_that_was_written_into_the_database_opens_nothing() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let id = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    let digest = world.shown(&bob, id).await.unwrap();
    let now = world.now().unix();
    let (start, end) = (now - 30, now + 1800);
    let grant = format!(
        r#"[{{"start":{start},"end":{end},"approved":{now},"approvers":["{}"],"digest":"{digest}","certificate":null}}]"#,
        person("bob")
    );
    edit(&world, id, "$.grants", &grant, "");
    edit(&world, id, "$.state", r#"{"approved":{}}"#, &format!(", state = 'approved', waits = 0, next_tick = {end}"));
    assert_eq!(world.state(id).await, "approved");
    let fetched = world.service().certificate(&alice, &prefix(id)).await;
    assert!(is_internal(&fetched), "{fetched:?}");
}

#[tokio::test]
async fn an_approval_that_was_written_into_the_database_counts_for_nothing() {
    let world = World::new().await;
    let (alice, dana) = (world.proven("alice").await, world.proven("dana").await);
    let id = world.service().ask(&alice, world.ask(&["db-1"], "postgres")).await.unwrap().request.id();
    let digest = world.shown(&dana, id).await.unwrap();
    let approvals = format!(r#"["{}","{}"]"#, person("bob"), person("carol"));
    edit(&world, id, "$.state.pending.approvals", &approvals, "");
    let approved = world.service().approve(&dana, &prefix(id), Approval::of(digest)).await;
    assert!(is_internal(&approved), "{approved:?}");
}

#[tokio::test]
async fn an_approval_that_was_called_signed_in_the_database_counts_for_nothing() {
    let world = World::new().await;
    let (alice, bob, dana) = (world.proven("alice").await, world.proven("bob").await, world.proven("dana").await);
    let id = world.service().ask(&alice, world.ask(&["db-1"], "postgres")).await.unwrap().request.id();
    world.approve(&bob, id).await.unwrap();
    let (name, key) = (person("bob"), login_key("bob").public_key().fingerprint());
    let decide_by = world.now().unix() + 1800;
    let pending = format!(r#"{{"approvals":["{name}"],"signed":{{"{name}":"{key}"}},"decide_by":{decide_by}}}"#);
    edit(&world, id, "$.state.pending", &pending, "");
    assert_eq!(world.state(id).await, "pending", "the row reads back");
    let approved = world.approve(&dana, id).await;
    assert!(is_internal(&approved), "{approved:?}");
}

#[tokio::test]
async fn bytes_to_be_signed_that_were_changed_in_the_database_are_not_signed() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let first = world.fetch(&alice, id).await.unwrap();
    let tbs = first.tbs();
    let other = TbsCert::new(tbs.fields().clone(), tbs.subject(), tbs.ca(), [7; 32]).unwrap();
    let json = format!("\"{}\"", data_encoding::BASE64.encode(other.bytes()));
    edit(&world, id, "$.grants[0].certificate.tbs", &json, "");
    let again = world.service().certificate(&alice, &prefix(id)).await;
    assert!(is_internal(&again), "{again:?}");
}

#[tokio::test]
async fn an_end_that_was_taken_out_of_the_database_is_still_an_end() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.fetch(&alice, id).await.unwrap();
    let end = world.now().unix() + 1800;
    world.service().end(&alice, &prefix(id), String::new()).await.unwrap();
    edit(&world, id, "$.state", r#"{"issued":{}}"#, &format!(", state = 'issued', next_tick = {end}"));
    assert_eq!(world.state(id).await, "issued");
    let again = world.service().certificate(&alice, &prefix(id)).await;
    assert!(is_internal(&again), "{again:?}");
}

/// Replaces the hash of the first policy in its log entry, as whoever forges its text must.
fn forge_policy(world: &World) {
    let raw = raw(world);
    let text: String = raw.query_row("SELECT text FROM policy", [], |row| row.get(0)).unwrap();
    let forged = text.replace("group:platform", "group:backend");
    assert_ne!(text, forged);
    raw.execute("UPDATE policy SET text = ?1", [&forged]).unwrap();
    let sql =
        "UPDATE log_entry SET bytes = CAST(replace(CAST(bytes AS TEXT), ?1, ?2) AS BLOB) WHERE kind = 'policy_applied'";
    assert_eq!(raw.execute(sql, [sha256(&text), sha256(&forged)]).unwrap(), 1);
}

fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(text.as_bytes()))
}

#[tokio::test]
async fn a_policy_that_was_forged_together_with_its_log_entry_stops_the_start() {
    let mut world = World::new().await;
    world.stop();
    forge_policy(&world);
    let started = world.try_start(None).await;
    assert!(started.is_err(), "{started:?}");
}

/// Appends an event to the log as only the service may: entry, tree, head, all of it sound.
fn forge_entry(world: &World, event: Event) {
    let raw = raw(world);
    let sql = "SELECT size, frontier, at FROM log_head";
    let (size, roots, at): (i64, Vec<u8>, i64) =
        raw.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let roots = roots.chunks(32).map(|root| root.try_into().unwrap()).collect();
    let mut tree = Frontier::from_parts(size.cast_unsigned(), roots).unwrap();
    let kind = event.kind();
    let entry = Entry { index: size.cast_unsigned(), at: Timestamp::from_unix(at.cast_unsigned()).unwrap(), event };
    let bytes = entry.to_bytes();
    raw.execute("INSERT INTO log_entry VALUES (?1, ?2, ?3, NULL, ?4)", rusqlite::params![size, at, kind, bytes])
        .unwrap();
    for (node, hash) in tree.push(Entry::leaf_hash(&bytes)) {
        let node = rusqlite::params![node.level, node.position.cast_signed(), hash];
        raw.execute("INSERT INTO log_node VALUES (?1, ?2, ?3)", node).unwrap();
    }
    raw.execute("UPDATE log_head SET size = size + 1, frontier = ?1", [tree.roots().concat()]).unwrap();
}

#[tokio::test]
async fn an_entry_that_others_appended_to_the_log_stops_the_start() {
    let mut world = World::new().await;
    world.stop();
    let text: String = raw(&world).query_row("SELECT text FROM policy", [], |row| row.get(0)).unwrap();
    let text = text.replace("group:platform", "group:backend");
    let (by, version) = (Actor::Person(person("omar")), PolicyVersion(2));
    forge_entry(&world, Event::PolicyApplied { by, version, sha256: sha256(&text), tests: 1, changes: 1 });
    raw(&world).execute("INSERT INTO policy SELECT 2, ?1, applied_by, at FROM policy", [&text]).unwrap();
    let started = world.try_start(None).await;
    assert!(started.is_err(), "{started:?}");
}

#[tokio::test]
async fn an_entry_that_others_appended_while_the_service_runs_is_not_signed() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    forge_entry(&world, Event::LoggedOut { person: person("bob") });
    let signed = world.service().checkpoint().await;
    assert!(signed.is_err(), "{signed:?}");
    // Whatever the service would write next stands on a place that is taken.
    let asked = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await;
    assert!(asked.is_err(), "{asked:?}");
    let again = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn a_policy_version_that_was_taken_out_of_the_database_stops_the_start() {
    let mut world = World::new().await;
    let omar = world.proven("omar").await;
    let text = format!("{}\n# the second\n", world.service().policy_now().1.text());
    assert_eq!(world.service().apply_policy(&omar, text, None, false).await.unwrap().version, PolicyVersion(2));
    world.stop();
    let hidden = "DELETE FROM policy WHERE version = 2;
         UPDATE log_entry SET kind = 'logged_out' WHERE kind = 'policy_applied' AND number > 1;";
    raw(&world).execute_batch(hidden).unwrap();
    let started = world.try_start(None).await;
    assert!(started.is_err(), "{started:?}");
}
