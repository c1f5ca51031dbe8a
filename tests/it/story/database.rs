//! Whoever can write the database, or put an older one back, gets no access by it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hallpass::access::Refusal;
use hallpass::identity::session::mint;
use hallpass::service::Failure;
use rusqlite::Connection;
use secrecy::ExposeSecret as _;

use crate::support::{World, prefix};

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
