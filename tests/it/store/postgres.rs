//! What only PostgreSQL has: several nodes on one log, TLS, commits whose answer is lost, a server that goes back or away.

use std::sync::Arc;
use std::time::Duration;

use hallpass::audit::entry::Entry;
use hallpass::audit::tree::{Frontier, Node};
use hallpass::identity::mac::MacKey;
use hallpass::identity::session::TokenHash;
use hallpass::name::ReportId;
use hallpass::store::copy::{CopyError, Terms, copy};
use hallpass::store::postgres::{PostgresStore, Server, Settings};
use hallpass::store::sqlite::{SqliteStore, take_back};
use hallpass::store::{LIST_MAX, Note, RequestFilter, Save, Store, StoreError, Work};
use tokio::task::JoinSet;

use super::hosts::seen;
use super::{Desk, Postgres, Sqlite, change, event};
use crate::support::cut::{Cut, Proxy};
use crate::support::fixtures::{at, host, id, key, person};
use crate::support::postgres::{Cluster, cluster};

async fn append(store: &dyn Store, seconds: u64) -> Result<u64, StoreError> {
    let committed = store.commit(change(at(seconds), vec![], vec![event()])).await?;
    Ok(committed.entries[0])
}

async fn size(store: &dyn Store) -> u64 {
    store.head().await.unwrap().frontier.size()
}

/// The same, when the server was away: each connection that nobody has looked at since fails once.
async fn size_in_the_end(store: &dyn Store) -> u64 {
    for _ in 0..9 {
        if let Ok(head) = store.head().await {
            return head.frontier.size();
        }
    }
    size(store).await
}

/// The tree over all entries is the head's.
async fn check_log(store: &dyn Store) {
    let mut frontier = Frontier::default();
    loop {
        let entries = store.entries(frontier.size(), LIST_MAX).await.unwrap();
        if entries.is_empty() {
            break;
        }
        for bytes in &entries {
            assert_eq!(Entry::parse(bytes).unwrap().index, frontier.size());
            frontier.push(Entry::leaf_hash(bytes));
        }
    }
    assert_eq!(store.head().await.unwrap().frontier, frontier);
}

#[tokio::test]
async fn nodes_append_to_one_log_and_see_what_each_other_wrote() {
    let database = Postgres::new();
    let desk = Desk::new(&database).await;
    let other = Arc::new(database.try_open().await.unwrap());
    let mut changes = JoinSet::new();
    for n in 0..300_u64 {
        let node: Arc<dyn Store> = if n % 2 == 0 { Arc::clone(&desk.store) } else { Arc::clone(&other) as _ };
        changes.spawn(async move { append(&*node, n).await.unwrap() });
    }
    let mut indexes = changes.join_all().await;
    indexes.sort_unstable();
    assert_eq!(indexes, (1..=300).collect::<Vec<_>>());
    check_log(&*other).await;

    // A request of one node is the other's to move on, once.
    let stored = desk.ask(id(1), "alice@example.com", &["web-1"], at(400)).await;
    assert_eq!(other.request(id(1)).await.unwrap().as_ref(), Some(&stored));
    let ended = |stored: &hallpass::store::Stored| desk.house.withdraw(stored.request.clone(), at(401));
    let save =
        |step: &hallpass::access::Step| vec![Save::Request { request: step.request.clone(), expected: stored.version }];
    let (first, second) = (ended(&stored), ended(&stored));
    let (one, two) = tokio::join!(
        desk.store.commit(change(at(401), save(&first), first.events.clone())),
        other.commit(change(at(401), save(&second), second.events.clone()))
    );
    assert!(
        matches!((&one, &two), (Ok(_), Err(StoreError::Conflict)) | (Err(StoreError::Conflict), Ok(_))),
        "{one:?} {two:?}"
    );
}

#[tokio::test]
async fn a_node_hears_when_another_has_committed_and_reads_what_hosts_told_it() {
    let database = Postgres::new();
    let desk = Desk::new(&database).await;
    let other = database.try_open().await.unwrap();
    assert!(other.is_shared());
    // Whatever woke it before: that it has begun to listen, or the start of the log.
    while tokio::time::timeout(Duration::from_secs(2), other.woken()).await.is_ok() {}
    let hears = other.woken();
    append(&*desk.store, 1).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), hears).await.unwrap().unwrap();

    let (mark, none) = other.seen_since(0).await.unwrap();
    assert!(none.is_empty());
    desk.store.note(Note::Seen { host: host("web-1"), seen: seen(1) }).await.unwrap();
    desk.store.note(Note::Seen { host: host("web-2"), seen: seen(1) }).await.unwrap();
    let (mark, both) = other.seen_since(mark).await.unwrap();
    assert_eq!(both.len(), 2);
    desk.store.note(Note::Seen { host: host("web-1"), seen: seen(5) }).await.unwrap();
    let (mark, one) = other.seen_since(mark).await.unwrap();
    assert_eq!(one, [(host("web-1"), seen(5))].into());
    assert_eq!(other.seen_since(mark).await.unwrap(), (mark, [].into()));
}

/// The database reached by this proxy, with short patience.
async fn by_proxy(database: &Postgres) -> (Proxy, PostgresStore) {
    let (proxy, settings) = proxied(database).await;
    let store = PostgresStore::open(&settings, MacKey::new([3; 32])).await.unwrap();
    (proxy, store)
}

async fn proxied(database: &Postgres) -> (Proxy, Settings) {
    let proxy = Proxy::start(cluster().port()).await;
    let settings = Settings {
        server: Server::plain("127.0.0.1".to_owned()).unwrap(),
        port: proxy.port,
        password_path: Some(cluster().folder().join("password")),
        connect_timeout: Duration::from_secs(1),
        statement_timeout: Duration::from_secs(1),
        lock_timeout: Duration::from_secs(1),
        ..cluster().settings(&database.name)
    };
    (proxy, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_done_twice() {
    let database = Postgres::new();
    let (proxy, store) = by_proxy(&database).await;
    assert_eq!(append(&store, 0).await.unwrap(), 0);
    for n in 1..4_u64 {
        proxy.cut(Cut::After);
        assert_eq!(append(&store, n).await.unwrap(), n, "it was committed, and that is said");
        assert!(proxy.is_done());
    }
    for n in 4..7_u64 {
        proxy.cut(Cut::Before);
        let error = append(&store, n).await.unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        assert!(proxy.is_done());
    }
    assert_eq!(append(&store, 7).await.unwrap(), 4);
    check_log(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_commit_whose_fate_cannot_be_learnt_nothing_is_claimed() {
    let database = Postgres::new();
    let (proxy, store) = by_proxy(&database).await;
    append(&store, 0).await.unwrap();
    proxy.cut(Cut::ForGood);
    let error = append(&store, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
    assert!(matches!(append(&store, 2).await, Err(StoreError::Failed { .. })), "and nothing else is written meanwhile");
    proxy.cut(Cut::Never);
    // It had reached the disk; the next one comes after it.
    assert_eq!(append(&store, 3).await.unwrap(), 2);
    check_log(&store).await;
}

#[tokio::test]
async fn over_a_network_there_is_tls_with_the_servers_name_checked_or_nothing() {
    let database = Postgres::new();
    let folder = cluster().folder();
    let open = async |host: &str, ca: Option<&str>, password: &str| {
        let settings = Settings {
            server: Server::tls(host.to_owned(), ca.map(|name| folder.join(name))),
            port: cluster().port(),
            password_path: Some(folder.join(password)),
            ..cluster().settings(&database.name)
        };
        PostgresStore::open(&settings, MacKey::new([3; 32])).await
    };
    let store = open("localhost", Some("ca.pem"), "password").await.unwrap();
    append(&store, 0).await.unwrap();
    let encrypted = "SELECT bool_and(ssl) AND count(*) > 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE datname = current_database() AND client_addr IS NOT NULL";
    assert_eq!(database.raw(encrypted).trim(), "t");

    let refused = async |host, ca, password| open(host, ca, password).await.unwrap_err().to_string();
    let unknown = refused("localhost", None, "password").await;
    assert!(unknown.contains("certificate"), "{unknown}");
    let other_name = refused("127.0.0.1", Some("ca.pem"), "password").await;
    assert!(other_name.contains("certificate"), "{other_name}");
    let wrong = refused("localhost", Some("ca.pem"), "wrong-password").await;
    assert!(wrong.contains("password authentication failed") && !wrong.contains("battery"), "{wrong}");
}

#[tokio::test]
async fn a_server_without_tls_or_without_durability_is_refused() {
    let mut server = Cluster::start(&["ssl=off"]);
    let name = server.database();
    let settings = Settings {
        server: Server::tls("localhost".to_owned(), Some(server.folder().join("ca.pem"))),
        password_path: Some(server.folder().join("password")),
        ..server.settings(&name)
    };
    let error = PostgresStore::open(&settings, MacKey::new([3; 32])).await.unwrap_err().to_string();
    assert!(error.contains("TLS"), "{error}");
    let by_socket = server.settings(&name);
    PostgresStore::open(&by_socket, MacKey::new([3; 32])).await.unwrap();

    for (setting, why) in
        [("fsync=off", "would lose what it confirmed"), ("data_sync_retry=on", "what the first one has lost")]
    {
        server.kill_and_restart(&[setting]);
        let error = PostgresStore::open(&by_socket, MacKey::new([3; 32])).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    // One that asks for less than the disk is told better by each of our sessions.
    server.kill_and_restart(&["synchronous_commit=off"]);
    let store = PostgresStore::open(&by_socket, MacKey::new([3; 32])).await.unwrap();
    append(&store, 0).await.unwrap();
    server.kill_and_restart(&[]);
    assert_eq!(size_in_the_end(&store).await, 1);
}

#[tokio::test]
async fn a_server_that_dies_is_found_again() {
    let mut server = Cluster::start(&[]);
    let name = server.database();
    let store = PostgresStore::open(&server.settings(&name), MacKey::new([3; 32])).await.unwrap();
    for n in 0..3 {
        assert_eq!(append(&store, n).await.unwrap(), n);
        server.kill_and_restart(&[]);
        assert_eq!(size_in_the_end(&store).await, n + 1, "what was confirmed is there");
    }
    check_log(&store).await;
}

#[tokio::test]
async fn a_program_that_is_too_old_for_the_schema_neither_starts_nor_writes_on() {
    let database = Postgres::new();
    let store = database.try_open().await.unwrap();
    append(&store, 0).await.unwrap();
    // A newer program that lets older ones go on.
    database.raw("UPDATE schema_version SET version = 99");
    append(&store, 1).await.unwrap();
    append(&database.try_open().await.unwrap(), 2).await.unwrap();
    // And one that does not.
    database.raw("UPDATE schema_version SET serves = 99");
    for error in [append(&store, 3).await.unwrap_err(), database.try_open().await.unwrap_err()] {
        assert!(error.to_string().contains("too old"), "{error}");
    }
    assert_eq!(size(&store).await, 3);
    database.raw("UPDATE schema_version SET version = 0, serves = 0");
    let error = append(&store, 3).await.unwrap_err().to_string();
    assert!(error.contains("put back"), "{error}");
}

#[tokio::test]
async fn the_tables_of_another_program_are_left_alone() {
    let database = Postgres::new();
    cluster().sql(&database.name, "CREATE SCHEMA hallpass; CREATE TABLE hallpass.request (theirs int)");
    let error = database.try_open().await.unwrap_err().to_string();
    assert!(error.contains("another program"), "{error}");
    assert_eq!(database.raw("SELECT count(*) FROM pg_class WHERE relnamespace = 'hallpass'::regnamespace").trim(), "1");
}

#[tokio::test]
async fn a_log_whose_head_does_not_fit_its_entries_is_refused() {
    let database = Postgres::new();
    {
        let store = database.try_open().await.unwrap();
        for seconds in 0..5 {
            append(&store, seconds).await.unwrap();
        }
    }
    database.raw("CREATE TABLE kept_head AS TABLE log_head; CREATE TABLE kept_entry AS TABLE log_entry; CREATE TABLE kept_node AS TABLE log_node");
    for sql in [
        "DELETE FROM log_entry WHERE number = 4",
        "DELETE FROM log_entry WHERE number = 0",
        "DELETE FROM log_entry",
        "UPDATE log_entry SET at = 0, bytes = bytes || ' '::bytea WHERE number = 4",
        "DELETE FROM log_node WHERE level = 0 AND position = 4",
        "UPDATE log_node SET hash = decode(repeat('00', 32), 'hex') WHERE level = 2",
        "UPDATE log_head SET size = 4",
        "UPDATE log_head SET size = 0, frontier = ''",
        "UPDATE log_head SET frontier = substr(frontier, 2)",
        "UPDATE log_head SET at = at - 1",
        "UPDATE log_head SET seal = ''",
        "UPDATE log_head SET policy = 1",
        "UPDATE log_head SET policy = 9999999999",
        "UPDATE log_head SET keys = 1",
        "UPDATE log_head SET inventory = 1",
        "DELETE FROM log_head",
    ] {
        database.raw(sql);
        let error = database.try_open().await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{sql}: {error}");
        database.raw(
            "DELETE FROM log_head; DELETE FROM log_entry; DELETE FROM log_node; INSERT INTO log_head TABLE kept_head;
             INSERT INTO log_entry TABLE kept_entry; INSERT INTO log_node TABLE kept_node",
        );
    }
    append(&database.try_open().await.unwrap(), 9).await.unwrap();
}

#[tokio::test]
async fn a_database_that_was_put_back_while_a_node_runs_is_not_written_on() {
    let database = Postgres::new();
    let (store, other) = (database.try_open().await.unwrap(), database.try_open().await.unwrap());
    let idle = database.try_open().await.unwrap();
    for seconds in 0..4 {
        append(&store, seconds).await.unwrap();
    }
    append(&other, 4).await.unwrap();
    database.raw("CREATE TABLE kept AS TABLE log_head");
    append(&idle, 5).await.unwrap();
    append(&store, 5).await.unwrap();
    let back = "DELETE FROM log_entry WHERE number >= 5; DELETE FROM log_node WHERE level = 0 AND position >= 5;
                DELETE FROM log_node WHERE level = 1 AND position >= 2; DELETE FROM log_head; INSERT INTO log_head TABLE kept";
    database.raw(back);
    let error = append(&store, 6).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { .. }) && error.to_string().contains("put back"), "{error}");
    assert!(append(&store, 6).await.is_err(), "nor with the next call");
    // Another node, that had not seen the lost entry, can't know; its own entry is another's in the same place.
    append(&other, 7).await.unwrap();
    append(&other, 7).await.unwrap();
    assert_eq!(size(&other).await, 7);
    let error = append(&store, 8).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { .. }), "the same size, and another tree: {error}");
    append(&other, 9).await.unwrap();
    // Grown beyond what it had seen, and seen anew on a new connection.
    let error = append(&store, 10).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { .. }), "its beginning is another: {error}");
    // On the connection that it had before, and that asked for nothing while the log was shorter.
    let error = append(&idle, 11).await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { .. }), "its beginning is another: {error}");
    append(&other, 12).await.unwrap();
}

#[tokio::test]
async fn no_table_that_grows_is_read_whole_to_find_a_row_of_it() {
    // A server's figures of a connection are sure to be there once it has ended.
    let read = async |database: &Postgres, column: &str| -> i64 {
        let sql = format!(
            "SELECT coalesce(sum({column}), 0) FROM pg_stat_user_tables WHERE schemaname = 'hallpass'
             AND relname IN ('request', 'request_host', 'log_entry', 'log_node', 'certificate', 'session')"
        );
        while database.raw("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()").trim() != "1" {
            tokio::task::yield_now().await;
        }
        database.raw(&sql).trim().parse().unwrap()
    };
    let database = Postgres::new();
    drop(database.try_open().await.unwrap());
    let before = (read(&database, "seq_scan").await, read(&database, "idx_scan").await);
    {
        let (desk, other) = (Desk::new(&database).await, database.try_open().await.unwrap());
        for number in 1..9 {
            let seconds = u64::from(number) * 10;
            desk.issued(id(number), at(seconds)).await;
            append(&other, seconds + 5).await.unwrap();
            desk.store.entries_of(id(number)).await.unwrap();
            desk.store.hosts_of(vec![id(number)]).await.unwrap();
            desk.store.open_of(person("alice@example.com"), key(1)).await.unwrap();
        }
    }
    assert_eq!(read(&database, "seq_scan").await, before.0);
    assert!(read(&database, "idx_scan").await > before.1 + 50);
}

#[tokio::test]
async fn whoever_looks_leaves_an_older_schema_as_it_is() {
    let database = Postgres::new();
    let settings = cluster().settings(&database.name);
    let look = async || PostgresStore::open_to(Work::Look, &settings, MacKey::new([3; 32])).await;
    let error = look().await.unwrap_err().to_string();
    assert!(error.contains("nothing of hallpass is in it"), "{error}");
    assert_eq!(cluster().sql(&database.name, "SELECT to_regnamespace('hallpass') IS NULL").trim(), "t");

    drop(database.try_open().await.unwrap());
    drop(look().await.unwrap());
    database.raw("UPDATE schema_version SET version = 1");
    let error = look().await.unwrap_err().to_string();
    assert!(error.contains("schema 1") && error.contains("can't be taken back"), "{error}");
    assert_eq!(database.raw("SELECT version FROM schema_version").trim(), "1");
}

#[tokio::test]
async fn whoever_repairs_a_database_is_alone_and_whoever_looks_is_in_nobodys_way() {
    let database = Postgres::new();
    let settings = cluster().settings(&database.name);
    let open = async |work| PostgresStore::open_to(work, &settings, MacKey::new([3; 32])).await;
    let refused = |opened: Result<PostgresStore, StoreError>| opened.err().unwrap().to_string();
    let nodes = (open(Work::Serve).await.unwrap(), open(Work::Serve).await.unwrap());
    append(&nodes.0, 0).await.unwrap();
    assert!(refused(open(Work::Repair).await).contains("nodes are at work on it"));
    drop(nodes.0);
    assert!(refused(open(Work::Repair).await).contains("nodes are at work on it"));
    assert_eq!(size(&open(Work::Look).await.unwrap()).await, 1);
    drop(nodes.1);
    // The server hears a moment later that a connection has ended.
    let repairing = loop {
        match open(Work::Repair).await {
            Ok(alone) => break alone,
            Err(why) => assert!(why.to_string().contains("nodes are at work on it"), "{why}"),
        }
    };
    append(&repairing, 1).await.unwrap();
    assert!(refused(open(Work::Repair).await).contains("somebody repairs it already"));
    assert!(refused(open(Work::Serve).await).contains("being repaired"));
    assert_eq!(size(&open(Work::Look).await.unwrap()).await, 2);
    drop(repairing);
    let node = loop {
        match open(Work::Serve).await {
            Ok(node) => break node,
            Err(why) => assert!(why.to_string().contains("being repaired"), "{why}"),
        }
    };
    append(&node, 2).await.unwrap();
    // A node that loses its part, and finds that somebody repairs, writes nothing until that is over.
    let cut = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
               WHERE l.locktype = 'advisory' AND a.datname = current_database()";
    let repairing = loop {
        database.raw(cut);
        if let Ok(alone) = open(Work::Repair).await {
            break alone;
        }
    };
    let error = append(&node, 3).await.unwrap_err().to_string();
    assert!(error.contains("being repaired"), "{error}");
    append(&repairing, 3).await.unwrap();
    drop(repairing);
    while append(&node, 4).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(refused(open(Work::Repair).await).contains("nodes are at work on it"), "it has its part again");
}

#[tokio::test]
async fn a_database_that_can_only_be_read_is_read() {
    let database = Postgres::new();
    let store = database.try_open().await.unwrap();
    append(&store, 0).await.unwrap();
    let all = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()",
        database.name
    );
    cluster().sql("postgres", &format!("ALTER DATABASE {} SET default_transaction_read_only = on", database.name));
    cluster().sql("postgres", &all);
    let error = store.ready().await.unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    assert!(matches!(append(&store, 1).await, Err(StoreError::Failed { .. })));
    assert_eq!(size_in_the_end(&store).await, 1);
    cluster().sql("postgres", &format!("ALTER DATABASE {} RESET default_transaction_read_only", database.name));
    cluster().sql("postgres", &all);
    store.ready().await.unwrap();
    assert_eq!(append(&store, 1).await.unwrap(), 1);
}

#[tokio::test]
async fn a_node_that_stands_still_within_a_transaction_is_given_up() {
    let database = Postgres::new();
    let settings = Settings { idle_timeout: Duration::from_secs(1), ..cluster().settings(&database.name) };
    let store = PostgresStore::open(&settings, MacKey::new([3; 32])).await.unwrap();
    append(&store, 0).await.unwrap();
    // What another node's session says at its start, and then nothing any more.
    let frozen = tokio::net::UnixStream::connect(cluster().folder().join(format!(".s.PGSQL.{}", cluster().port())));
    let mut frozen = frozen.await.unwrap();
    let said = format!(
        "user\0hallpass\0database\0{}\0options\0-c search_path=hallpass -c idle_in_transaction_session_timeout=1000\0\0",
        database.name
    );
    let length = |bytes: usize| u32::try_from(bytes + 4).unwrap().to_be_bytes();
    let mut bytes = [length(said.len() + 4).as_slice(), &196_608_u32.to_be_bytes(), said.as_bytes()].concat();
    let lock = "BEGIN; SELECT * FROM log_head FOR UPDATE\0";
    bytes.extend([b"Q".as_slice(), &length(lock.len()), lock.as_bytes()].concat());
    tokio::io::AsyncWriteExt::write_all(&mut frozen, &bytes).await.unwrap();
    let has_lock =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    while database.raw(has_lock).trim() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(append(&store, 1).await.unwrap(), 1);
}

/// Everything that can be read of a store, in words.
async fn all_of(store: &dyn Store) -> String {
    let all = RequestFilter { limit: LIST_MAX, ..RequestFilter::default() };
    let (mut entries, mut nodes) = (Vec::new(), Vec::new());
    while let Some(more) =
        Some(store.entries(entries.len() as u64, LIST_MAX).await.unwrap()).filter(|more| !more.is_empty())
    {
        entries.extend(more);
    }
    for level in 0..12 {
        nodes.extend((0..entries.len() as u64 >> level).map(|position| Node { level, position }));
    }
    let requests = store.requests(all).await.unwrap();
    let mut parts = vec![
        format!("{:?}", store.head().await.unwrap()),
        format!("{entries:?}"),
        format!("{:?}", store.nodes(nodes).await.unwrap()),
        format!("{requests:?}"),
        format!("{:?}", store.policies().await.unwrap()),
        format!("{:?}", store.policy(None).await.unwrap()),
        format!("{:?}", store.seen().await.unwrap()),
        format!("{:?}", store.inventory(0, 0).await.unwrap()),
        format!("{:?}", store.host_certificates(host("web-1")).await.unwrap()),
        format!("{:?}", store.known_reports(host("web-1"), vec![ReportId::parse("opened-1").unwrap()]).await.unwrap()),
    ];
    for n in 0..4 {
        parts.push(format!("{:?}", store.session(TokenHash([n; 32])).await.unwrap()));
        parts.push(format!("{:?}", store.host_session(TokenHash([n; 32])).await.unwrap()));
    }
    for stored in &requests {
        parts.push(format!("{:?}", store.logged(stored.request.id()).await.unwrap()));
        for host in stored.request.parts().terms.hosts.keys() {
            let filter = RequestFilter { host: Some(host.clone()), limit: LIST_MAX, ..RequestFilter::default() };
            parts.push(format!("{:?}", store.requests(filter).await.unwrap()));
        }
    }
    parts.join("\n")
}

#[tokio::test]
async fn a_copy_of_a_file_holds_all_that_it_held_and_goes_on() {
    let (file, database) = (Sqlite::new(), Postgres::new());
    let desk = Desk::new(&file).await;
    let made = super::contract::one_of_each(&desk).await;
    super::hosts::leave_something(&desk).await;
    let issued = made.iter().find(|stored| stored.request.parts().state.word() == "issued").unwrap().clone();
    for n in 0..1_200 {
        append(&*desk.store, n).await.unwrap();
    }
    let before = all_of(&*desk.store).await;
    let settings = cluster().settings(&database.name);
    let held = copy(&file.settings(), &settings, terms(3)).await.unwrap_err().to_string();
    assert!(held.contains("in use"), "{held}");
    let Desk { house, store } = desk;
    drop(store);
    let other = copy(&file.settings(), &settings, terms(4)).await.unwrap_err().to_string();
    assert!(other.contains("seal"), "another log's key: {other}");

    let copied = copy(&file.settings(), &settings, terms(3)).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(database.try_open().await.unwrap());
    assert_eq!(all_of(&*store).await, before);
    assert_eq!(copied.entries, size(&*store).await);
    assert_eq!(copied.since, None);
    // The file keeps what it has, and no service goes on with it.
    let refused = file.try_open().unwrap_err().to_string();
    assert!(refused.contains(&database.name) && refused.contains("must not go on here"), "{refused}");
    let read = SqliteStore::open_to(Work::Copy, &file.settings(), MacKey::new([3; 32])).unwrap();
    assert_eq!(all_of(&read).await, before, "the file stays as it is");
    drop(read);

    // What was issued there has its outcome here, once.
    let outcome = super::outcome(&issued.request);
    store.commit(change(at(9_000), vec![], vec![outcome.clone()])).await.unwrap();
    assert!(matches!(store.commit(change(at(9_000), vec![], vec![outcome])).await, Err(StoreError::Conflict)));
    let desk = Desk { house, store };
    desk.approved(id(77), at(9_001)).await;
    check_log(&*desk.store).await;

    // Once more to the same place finds the copy, also when it has gone on, and leaves its schema to the nodes at work on it; another log finds that it
    // is not its own.
    let ours = database.raw("SELECT version FROM hallpass.schema_version");
    database.raw("UPDATE hallpass.schema_version SET version = 1, serves = 1");
    let again = copy(&file.settings(), &settings, terms(3)).await.unwrap();
    assert!(again.since.is_some_and(|more| more > 0) && again.entries == copied.entries && again.rows.is_empty());
    assert_eq!(database.raw("SELECT version FROM hallpass.schema_version").trim(), "1");
    database.raw(&format!("UPDATE hallpass.schema_version SET version = {ours}"));
    let elsewhere = copy(&file.settings(), &cluster().settings(&Postgres::new().name), terms(3)).await;
    assert!(elsewhere.unwrap_err().to_string().contains("--again"));
    // Of a file that is behind what is known of its log nothing is made; only the copy is found.
    let behind = || Terms { is_behind: true, ..terms(3) };
    assert_eq!(copy(&file.settings(), &settings, behind()).await.unwrap(), again);
    let empty = Postgres::new();
    let missing = copy(&file.settings(), &cluster().settings(&empty.name), behind()).await;
    assert!(matches!(missing, Err(CopyError::Missing)), "{missing:?}");
    assert_eq!(empty.raw("SELECT count(*) FROM pg_namespace WHERE nspname = 'hallpass'").trim(), "0");
    let stranger = Sqlite::new();
    drop(Desk::new(&stranger).await);
    append(&*stranger.open(), 5).await.unwrap();
    let other = copy(&stranger.settings(), &settings, terms(3)).await.unwrap_err().to_string();
    assert!(other.contains("has another log"), "{other}");
    drop(stranger.open());
    // What was moved on purpose comes back on purpose.
    let moved = take_back(&file.settings()).unwrap().unwrap();
    assert!(moved.place.starts_with(&database.name) && moved.at == at(9_500), "{moved:?}");
    assert_eq!(all_of(&*file.open()).await, before);
    assert_eq!(take_back(&file.settings()).unwrap(), None);
}

/// All was copied, or nothing; doing it again says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_commit_is_not_answered_is_found_or_made_when_it_is_done_again() {
    for cut in [Cut::After, Cut::Before] {
        let (file, database) = (Sqlite::new(), Postgres::new());
        drop(Desk::new(&file).await);
        append(&*file.open(), 1).await.unwrap();
        let (proxy, settings) = proxied(&database).await;
        // The steps of the schema are commits of their own.
        drop(PostgresStore::open(&settings, MacKey::new([3; 32])).await.unwrap());
        proxy.cut(cut);
        let lost = copy(&file.settings(), &settings, terms(3)).await;
        assert!(matches!(lost, Err(CopyError::Unknown(_))) && proxy.is_done(), "{lost:?}");
        drop(file.open());
        let again = copy(&file.settings(), &settings, terms(3)).await.unwrap();
        assert_eq!(again.since.is_some(), cut == Cut::After);
        assert!(file.try_open().unwrap_err().to_string().contains("was moved"));
        assert_eq!(size(&database.try_open().await.unwrap()).await, again.entries);
    }
}

/// A program that does not know the mark takes it for a schema that is newer than its own.
#[tokio::test]
async fn a_file_that_was_moved_has_a_schema_that_older_programs_refuse() {
    let (file, database) = (Sqlite::new(), Postgres::new());
    drop(Desk::new(&file).await);
    append(&*file.open(), 1).await.unwrap();
    copy(&file.settings(), &cluster().settings(&database.name), terms(3)).await.unwrap();
    let raw = rusqlite::Connection::open(file.settings().path).unwrap();
    let schema: i64 = raw.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert!(schema > 1_000_000, "{schema}");
}

fn terms(key: u8) -> Terms {
    Terms { key: MacKey::new([key; 32]), at: at(9_500), again: false, is_behind: false }
}

/// A change needs room that a probe doesn't.
#[tokio::test]
async fn a_server_whose_disk_is_full_is_not_ready_until_there_is_room() {
    let database = Postgres::new();
    let store = database.try_open().await.unwrap();
    append(&store, 1).await.unwrap();
    database.raw(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON log_entry FOR EACH ROW EXECUTE FUNCTION full_disk();
         CREATE FUNCTION full_disk_too() RETURNS event_trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
         CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION full_disk_too()",
    );
    store.ready().await.unwrap();
    append(&store, 2).await.unwrap_err();
    for _ in 0..2 {
        let error = store.ready().await.unwrap_err().to_string();
        assert!(error.contains("looking for room") && error.contains("53100"), "{error}");
    }
    database.raw("DROP TRIGGER full_disk ON log_entry; DROP EVENT TRIGGER full_disk");
    for seconds in 3..6 {
        store.ready().await.unwrap();
        append(&store, seconds).await.unwrap();
    }
    assert_eq!(size(&store).await, 4);
}

/// What looking for room took is back when it is over, however often; and two nodes look at once.
#[tokio::test]
async fn looking_for_room_uses_none_up() {
    let database = Postgres::new();
    let nodes = [database.try_open().await.unwrap(), database.try_open().await.unwrap()];
    append(&nodes[0], 1).await.unwrap();
    let fails = "CREATE TRIGGER full_disk BEFORE INSERT ON log_entry FOR EACH ROW EXECUTE FUNCTION full_disk()";
    database.raw(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
    );
    let taken = || {
        let bytes = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'hallpass'::regnamespace AND relkind = 'r'";
        database.raw(bytes).trim().to_owned()
    };
    let before = taken();
    for _ in 0..5 {
        database.raw(fails);
        for node in &nodes {
            append(node, 2).await.unwrap_err();
        }
        database.raw("DROP TRIGGER full_disk ON log_entry");
        let (one, two) = tokio::join!(nodes[0].ready(), nodes[1].ready());
        one.and(two).unwrap();
    }
    assert_eq!(taken(), before);
    let files = database.raw("SELECT count(*) FROM pg_class WHERE relname LIKE 'room%'");
    assert_eq!(files.trim(), "0");
    append(&nodes[0], 3).await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_not_copied_and_leaves_nothing_behind() {
    for sql in [
        "UPDATE request SET state = 'issued'",
        "UPDATE session SET person = 'ALICE'",
        "UPDATE log_entry SET bytes = CAST(replace(CAST(bytes AS TEXT), 'alice', 'mallo') AS BLOB) WHERE number = 1",
        "DELETE FROM log_entry WHERE number = 1",
        "UPDATE log_node SET hash = zeroblob(32) WHERE level = 0 AND position = 0",
    ] {
        let (file, database) = (Sqlite::new(), Postgres::new());
        {
            let desk = Desk::new(&file).await;
            desk.approved(id(1), at(0)).await;
            desk.store.commit(super::contract::a_login()).await.unwrap();
        }
        let raw = rusqlite::Connection::open(file.settings().path).unwrap();
        raw.execute_batch(sql).unwrap();
        drop(raw);
        let settings = cluster().settings(&database.name);
        let error = copy(&file.settings(), &settings, terms(3)).await;
        assert!(matches!(error, Err(CopyError::Nothing(StoreError::Damaged { .. }))), "{sql}: {error:?}");
        let store = database.try_open().await.unwrap();
        assert_eq!(size(&store).await, 0, "{sql}");
        assert_eq!(database.raw("SELECT count(*) FROM request").trim(), "0", "{sql}");
    }
}
