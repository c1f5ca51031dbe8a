//! An older copy of the database was put back and nothing newer is left: the log goes on, says what it lost, and gives nothing twice.

use std::sync::Arc;

use hallpass::access::Refusal;
use hallpass::audit::checkpoint::LogKey;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::export::{self, Exporter};
use hallpass::name::PersonName;
use hallpass::service::Failure;
use hallpass::service::check::check;
use hallpass::service::recover::{Found, RecoverError, Recovered, Word, Wrong, examine, recover};
use hallpass::store::head_file::{HeadFile, KeptHead};
use hallpass::store::{self, Change, SEAL_PURPOSE, Store};

use crate::support::postgres::cluster;
use crate::support::{World, policy, prefix};

/// Where a world's store is, and a copy of it as it is now; nobody has it open.
pub(crate) type Copy = fn(&World) -> store::Settings;

pub(crate) fn file_copy(world: &World) -> store::Settings {
    let store::Settings::Sqlite(from) = &world.store else { panic!("a file") };
    let path = world.folder.path().join("copy.sqlite");
    std::fs::copy(&from.path, &path).unwrap();
    store::Settings::Sqlite(store::sqlite::Settings { path })
}

pub(crate) fn database_copy(world: &World) -> store::Settings {
    let store::Settings::Postgres(from) = &world.store else { panic!("a database") };
    let name = format!("{}_copy", from.database);
    // Connections of a store that was dropped may still be closing, and a database that is a template has none.
    let close = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", from.database);
    cluster().sql("postgres", &close);
    cluster().sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {}", from.database));
    store::Settings::Postgres(cluster().settings(&name))
}

pub(crate) fn key(world: &World) -> LogKey {
    LogKey::new("hallpass.example.com/log", &world.log_seed).unwrap()
}

fn head(world: &World) -> Arc<dyn KeptHead> {
    Arc::new(HeadFile::new(world.folder.path().join("head")))
}

async fn open(world: &World) -> Box<dyn Store> {
    store::open(&world.store, key(world).derive(SEAL_PURPOSE)).await.unwrap()
}

pub(crate) fn word(past: Option<u64>) -> Word {
    Word { by: PersonName::parse("omar@example.com").unwrap(), reason: "the disk died".to_owned(), past }
}

async fn find(world: &World, more: &[Arc<dyn KeptHead>]) -> Found {
    let places: Vec<Arc<dyn KeptHead>> = [head(world)].into_iter().chain(more.iter().cloned()).collect();
    examine(open(world).await.as_ref(), &key(world), &places).await.unwrap()
}

pub(crate) async fn try_recover(world: &World, word: &Word) -> Result<Recovered, RecoverError> {
    let (store, key, head) = (open(world).await, key(world), head(world));
    let found = examine(store.as_ref(), &key, &[Arc::clone(&head)]).await.unwrap();
    recover(store.as_ref(), (&key, head.as_ref()), (&found, word), world.now(), &mut |_, _| ()).await
}

pub(crate) async fn refused_start(world: &mut World) -> String {
    match world.try_start(None).await {
        Err(Failure::Unavailable(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// The export as an auditor gets it.
pub(crate) async fn exported(world: &World) -> String {
    let ada = world.proven("ada").await;
    let entries = world.entries(&ada).await;
    let (mut exporter, mut text) = Exporter::new(key(world).verifier());
    entries.iter().for_each(|entry| text.push_str(&exporter.entry(entry).unwrap()));
    text + &exporter.finish(&world.service().checkpoint().await.unwrap().0).unwrap()
}

async fn whole_story(mut world: World, copy: Copy) {
    world.try_start(Some(&policy())).await.unwrap();
    let alice = world.login("alice").await;
    let by = &alice.proven;
    let ask = async |world: &World, host: &str| {
        world.service().ask(by, world.ask(&[host], "deploy")).await.unwrap().request.id()
    };
    let (unfetched, waiting, issued) =
        (ask(&world, "staging-1").await, ask(&world, "web-1").await, ask(&world, "staging-1").await);
    let known = world.fetch(by, issued).await.unwrap();
    world.stop();
    let kept = find(&world, &[]).await.size;
    let older = copy(&world);

    // What nobody will know of: two certificates, one of them of a request that the copy has.
    world.restart().await;
    let lost = ask(&world, "staging-1").await;
    let mut serials = Vec::new();
    for id in [unfetched, lost] {
        let certificate = world.service().certificate(by, &prefix(id)).await.unwrap();
        serials.push(certificate.tbs().fields().serial.number());
    }
    // And something that no certificate needed, so that another node may have kept a longer log.
    ask(&world, "web-1").await;
    let (checkpoint, length) = world.service().checkpoint().await.unwrap();
    world.stop();
    std::fs::write(world.folder.path().join("other-node"), &checkpoint).unwrap();
    world.store = older;

    let why = refused_start(&mut world).await;
    assert!(why.contains("used twice") && why.contains("hallpass admin store recover"), "{why}");
    let found = find(&world, &[]).await;
    assert_eq!((found.wrong(), found.size, found.open), (Wrong::Behind, kept, 3));
    let signed = found.longest().unwrap();
    assert!(serials.iter().all(|serial| *serial < signed) && signed <= length, "the kept checkpoint covers what left");

    world.pass(60);
    let done = try_recover(&world, &word(None)).await.unwrap();
    assert_eq!((done.kept, done.lost, done.ended), (kept, signed - kept, 3));
    assert_eq!(done.entry, Some(done.size - 1));
    assert_eq!(find(&world, &[]).await.wrong(), Wrong::Nothing);
    assert!(matches!(try_recover(&world, &word(None)).await, Err(RecoverError::Nothing)), "once is enough");

    // It issues again: nothing twice, nothing that may have been over, nobody who may have logged out.
    world.restart().await;
    let session = world.service().caller(secrecy::ExposeSecret::expose_secret(&alice.token)).await;
    assert!(matches!(session, Err(Failure::NotLoggedIn)), "{session:?}");
    for (id, state) in [(unfetched, "ended"), (issued, "ended"), (waiting, "lapsed")] {
        assert_eq!(world.state(id).await, state);
    }
    let alice = world.proven("alice").await;
    for id in [unfetched, issued] {
        let over = world.service().certificate(&alice, &prefix(id)).await;
        assert!(matches!(over, Err(Failure::Refused(Refusal::Over { .. }))), "{over:?}");
    }
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let fresh = world.fetch(&alice, id).await.unwrap().tbs().fields().serial.number();
    assert!(fresh > signed && known.tbs().fields().serial.number() < kept, "{fresh} {signed}");
    world.check().await;

    let text = exported(&world).await;
    let verified = export::verify(text.as_bytes(), Some(&key(&world).verifier()), None).unwrap();
    let [loss] = <[export::Loss; 1]>::try_from(verified.losses).unwrap();
    assert_eq!((loss.kept, loss.lost), (kept, Some((kept, signed - 1))));
    assert!(loss.sentence.contains("omar@example.com") && loss.sentence.contains("the disk died"), "{}", loss.sentence);
    world.stop();

    // Another node, whose checkpoint is of the lost log and a little longer, has to be answered for as well.
    std::fs::copy(world.folder.path().join("other-node"), world.folder.path().join("head")).unwrap();
    assert!(length > signed);
    assert!(refused_start(&mut world).await.contains("are not those that were signed"));
    assert_eq!(find(&world, &[]).await.wrong(), Wrong::Other);
    assert_eq!(try_recover(&world, &word(None)).await.unwrap().lost, 0);
    std::fs::copy(world.folder.path().join("other-node"), world.folder.path().join("head")).unwrap();
    // Once it was, every node that still holds it may start: the log says so.
    assert_eq!(find(&world, &[]).await.wrong(), Wrong::GivenUp);
    world.restart().await;
    world.stop();
    let store = open(&world).await;
    let checked = check(store.as_ref(), &key(&world), &mut |_| ()).await.unwrap();
    assert_eq!(checked.findings, Vec::<String>::new());
}

#[tokio::test]
async fn an_older_file_goes_on_and_gives_nothing_twice() {
    whole_story(World::unstarted(std::time::Duration::from_secs(30)), file_copy).await;
}

#[tokio::test]
async fn an_older_database_goes_on_and_gives_nothing_twice() {
    let mut world = World::unstarted(std::time::Duration::from_secs(30));
    world.store = store::Settings::Postgres(cluster().settings(&cluster().database()));
    whole_story(world, database_copy).await;
}

#[tokio::test]
async fn without_any_checkpoint_a_number_from_outside_says_how_long_the_lost_log_was() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap();
    world.stop();
    std::fs::write(world.folder.path().join("head"), "no checkpoint\n").unwrap();
    assert!(refused_start(&mut world).await.contains("does not count"));
    let found = find(&world, &[]).await;
    assert_eq!((found.wrong(), found.longest()), (Wrong::Unusable, None));
    let why = try_recover(&world, &word(None)).await.unwrap_err().to_string();
    assert!(why.contains("--past"), "{why}");
    let far = try_recover(&world, &word(Some(u64::MAX))).await.unwrap_err().to_string();
    assert!(far.contains("is that number right?"), "{far}");
    let done = try_recover(&world, &word(Some(found.size + 40))).await.unwrap();
    assert_eq!((done.lost, done.ended, done.entry), (41, 1, Some(found.size + 42)));
    world.restart().await;
    world.check().await;

    // A file that is gone says nothing; whoever knows better can say so.
    world.stop();
    std::fs::remove_file(world.folder.path().join("head")).unwrap();
    let found = find(&world, &[]).await;
    assert_eq!(found.wrong(), Wrong::Missing);
    assert_eq!(try_recover(&world, &word(Some(7))).await.unwrap().lost, 0);
    assert_eq!(find(&world, &[]).await.wrong(), Wrong::Nothing);
}

#[tokio::test]
async fn no_service_starts_on_a_recovery_that_was_not_finished_and_doing_it_again_goes_on() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.stop();
    let (size, was) = (find(&world, &[]).await.size, std::fs::read(world.folder.path().join("head")).unwrap());
    {
        let store = open(&world).await;
        let events = vec![Event::EntryLost { of: size + 5 }; 2];
        store.commit(Change { at: world.now(), saves: vec![], events }).await.unwrap();
    }
    // With and without the checkpoint that would show it.
    for head in [Some(was), None] {
        let path = world.folder.path().join("head");
        match head {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        assert!(refused_start(&mut world).await.contains("begun and not finished"));
        assert_eq!(find(&world, &[]).await.wrong(), Wrong::Begun);
    }
    let done = try_recover(&world, &word(None)).await.unwrap();
    assert_eq!((done.kept, done.lost, done.ended), (size, 2, 1));
    world.restart().await;
    assert_eq!(world.state(id).await, "ended");
    world.check().await;
}

#[tokio::test]
async fn a_word_without_a_place_in_the_tree_or_for_another_log_gives_nothing_up() {
    let mut world = World::new().await;
    world.stop();
    let size = find(&world, &[]).await.size;
    let lost = key(&world).sign(size, &[9; 32]);
    std::fs::write(world.folder.path().join("head"), &lost).unwrap();
    assert_eq!(find(&world, &[]).await.wrong(), Wrong::Other);
    // Somebody who can write the database, and has no log key.
    let raw = rusqlite::Connection::open(world.database()).unwrap();
    let event = Event::LogRecovered {
        by: PersonName::parse("mallory@example.com").unwrap(),
        reason: "nothing to see".to_owned(),
        kept: size,
        heads: vec![lost],
    };
    let at = find(&world, &[]).await.last;
    let bytes = Entry { index: size - 1, at, event }.to_bytes();
    raw.execute("UPDATE log_entry SET bytes = ?1 WHERE number = ?2", (bytes, i64::try_from(size - 1).unwrap()))
        .unwrap();
    drop(raw);
    let opened = store::open(&world.store, key(&world).derive(SEAL_PURPOSE)).await;
    assert!(opened.is_err(), "the last entry does not fit the tree");
}

#[tokio::test]
async fn whatever_takes_something_away_is_covered_by_the_kept_checkpoint_once_it_is_answered() {
    let world = World::new().await;
    let (alice, bob, omar) = (world.login("alice").await, world.proven("bob").await, world.proven("omar").await);
    let by = &alice.proven;
    let ask = async || {
        let asked = world.service().ask(by, world.ask(&["web-1"], "deploy")).await.unwrap();
        prefix(asked.request.id())
    };
    let covered = || {
        let kept = head(&world).read().unwrap();
        kept.iter().filter_map(|note| key(&world).verifier().check(note).ok()).map(|signed| signed.size).max().unwrap()
    };
    let size = async || world.service().checkpoint().await.unwrap().1;
    let (denied, withdrawn, ended) = (ask().await, ask().await, ask().await);
    assert!(covered() < size().await, "a question is asked again");
    world.service().deny(&bob, &denied, "use the replica".to_owned()).await.unwrap();
    assert_eq!(covered(), size().await);
    world.service().withdraw(by, &withdrawn).await.unwrap();
    assert_eq!(covered(), size().await);
    let id = hallpass::name::RequestId::parse(ended.as_str()).unwrap();
    world.approve(&bob, id).await.unwrap();
    world.service().end(by, &ended, String::new()).await.unwrap();
    assert_eq!(covered(), size().await);
    world.service().apply_policy(&omar, format!("{}\n# another\n", policy()), None, false).await.unwrap();
    assert_eq!(covered(), size().await);
    let token = secrecy::ExposeSecret::expose_secret(&alice.token).to_owned();
    world.service().logout(by, &token, true).await.unwrap();
    assert_eq!(covered(), size().await);
    // And all, at a stop.
    world.proven("bob").await;
    assert!(covered() < size().await);
    world.service().finish().await;
    assert_eq!(covered(), size().await);
}
