//! What PostgreSQL is sent at once: writes and their commit, changes that come while another node is waited for, and what many ask.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hallpass::identity::session::TokenHash;
use hallpass::store::{Save, Store as _, StoreError};
use tokio::task::JoinSet;

use super::contract::session;
use super::{Desk, Postgres, change, event, outcome};
use crate::support::fixtures::{at, id, key, person};
use crate::support::postgres::cluster;

/// Whatever is written to this table from now on, is not; and nobody is told so.
fn ignore_writes(database: &Postgres, table: &str) {
    database.raw(&format!(
        "CREATE OR REPLACE FUNCTION hallpass.ignore() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER ignored BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION hallpass.ignore()"
    ));
}

#[tokio::test]
async fn a_group_of_which_some_row_is_not_written_is_undone_although_its_commit_is_on_the_way() {
    let database = Postgres::new();
    let desk = Desk::new(&database).await;
    let asked = desk.ask(id(1), "alice@example.com", &["web-1"], at(1)).await;
    let issued = desk.issued(id(2), at(2)).await;
    let before = desk.store.head().await.unwrap();
    for table in ["log_head", "request", "certificate"] {
        ignore_writes(&database, table);
        let step = desk.house.withdraw(asked.request.clone(), at(3));
        let save = Save::Request { request: step.request, expected: asked.version };
        let events = step.events.into_iter().chain([outcome(&issued.request)]).collect();
        let error = desk.store.commit(change(at(3), vec![save], events)).await.unwrap_err().to_string();
        assert!(error.contains("somebody writes this database past the service"), "{table}: {error}");
        assert_eq!(desk.store.head().await.unwrap(), before, "{table}");
        assert_eq!(desk.request(id(1)).await, asked, "{table}");
        assert_eq!(desk.store.entries_of(id(1)).await.unwrap().len(), 1, "{table}");
        database.raw(&format!("DROP TRIGGER ignored ON {table}"));
    }
    // The first statement that fails says why, and everything goes on.
    database.raw(
        "CREATE FUNCTION hallpass.full() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE disk_full; END';
         CREATE TRIGGER refused BEFORE INSERT ON log_node FOR EACH ROW EXECUTE FUNCTION hallpass.full()",
    );
    let error = desk.store.commit(change(at(4), vec![], vec![event()])).await.unwrap_err().to_string();
    assert!(error.contains("(53100)"), "{error}");
    database.raw("DROP TRIGGER refused ON log_node");
    desk.store.commit(change(at(4), vec![], vec![event()])).await.unwrap();
    assert_eq!(desk.store.head().await.unwrap().frontier.size(), before.frontier.size() + 1);
}

/// Another node that has the lock of the log's head, until it is told to let go.
struct Holder(Child);

impl Holder {
    async fn hold(database: &Postgres) -> Self {
        let mut command = cluster().program("psql");
        command.args(["-X", "-q", "-d", &database.name]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lock = b"BEGIN; SELECT size FROM hallpass.log_head FOR UPDATE;\n";
        child.stdin.as_mut().unwrap().write_all(lock).unwrap();
        until(database, "state = 'idle in transaction' AND application_name = 'psql'").await;
        Self(child)
    }

    fn let_go(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Waits until there is such a session.
async fn until(database: &Postgres, session: &str) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {session}");
    while database.raw(&sql).trim() != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_comes_while_another_node_is_waited_for_shares_the_next_commit() {
    let database = Postgres::new();
    let (store, other) = (Arc::new(database.try_open().await.unwrap()), database.try_open().await.unwrap());
    // From here on this node knows that it is not alone.
    for (node, seconds) in [(&*store, 0), (&other, 1), (&*store, 2)] {
        node.commit(change(at(seconds), vec![], vec![event()])).await.unwrap();
    }
    let (holder, before) = (Holder::hold(&database).await, store.figures());
    let mut changes = JoinSet::new();
    let mut commit = |n: u8| {
        let store = Arc::clone(&store);
        let saves = vec![Save::NewSession(session(n, "alice@example.com", at(500)))];
        changes.spawn(async move { store.commit(change(at(3), saves, vec![event()])).await.map(|_| n) });
    };
    commit(0);
    until(&database, "wait_event_type = 'Lock'").await;
    (1..40).for_each(&mut commit);
    // One that can't be is refused alone.
    commit(7);
    while store.figures().waiting < 41 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    holder.let_go();
    let answers = changes.join_all().await;
    let refused = answers.iter().filter(|answer| matches!(answer, Err(StoreError::Conflict))).count();
    assert_eq!((answers.iter().filter(|answer| answer.is_ok()).count(), refused), (40, 1));
    assert_eq!(store.figures().groups, before.groups + 1);
    assert_eq!(store.head().await.unwrap().frontier.size(), 43);
}

#[tokio::test]
async fn of_many_who_ask_at_once_each_has_its_own_answer() {
    let database = Postgres::new();
    let desk = Desk::new(&database).await;
    let whose = |n: u8| if n.is_multiple_of(2) { "alice@example.com" } else { "bob@example.com" };
    let saves = (0..100).map(|n| Save::NewSession(session(n, whose(n), at(500)))).collect();
    desk.store.commit(change(at(0), saves, vec![event()])).await.unwrap();
    desk.approved(id(1), at(1)).await;
    // One that can't be read is nobody else's trouble.
    database.raw("UPDATE session SET person = 'ALICE' WHERE token = decode(repeat('05', 32), 'hex')");
    let mut asking = JoinSet::new();
    for n in 0..200_u8 {
        let store = Arc::clone(&desk.store);
        asking.spawn(async move { (n, store.session(TokenHash([n; 32])).await) });
    }
    for (n, found) in asking.join_all().await {
        match (n, found) {
            (5, found) => assert!(matches!(found, Err(StoreError::Damaged { .. })), "{found:?}"),
            (0..100, found) => assert_eq!(found.unwrap(), Some(session(n, whose(n), at(500)))),
            (100.., found) => assert_eq!(found.unwrap(), None),
        }
    }
    let mut asking = JoinSet::new();
    for n in 0..50_u8 {
        let (store, who) = (Arc::clone(&desk.store), person(whose(n)));
        asking.spawn(async move { (n, store.open_of(who, key(n)).await.unwrap()) });
    }
    let held = desk.request(id(1)).await;
    for (n, open) in asking.join_all().await {
        let is_alices = n.is_multiple_of(2);
        assert_eq!(open.count, u64::from(is_alices), "{n}");
        let holds = is_alices && held.request.parts().key == key(n);
        assert_eq!(open.with_key, if holds { vec![held.clone()] } else { vec![] }, "{n}");
    }
    // When nothing answers, nobody is left waiting; and it is asked again.
    cluster().sql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", database.name));
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", database.name);
    cluster().sql("postgres", &end);
    let mut asking = JoinSet::new();
    for n in 0..20_u8 {
        let store = Arc::clone(&desk.store);
        asking.spawn(async move { store.session(TokenHash([n; 32])).await });
    }
    assert!(asking.join_all().await.iter().all(|answer| matches!(answer, Err(StoreError::Failed { .. }))));
    cluster().sql("postgres", &format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", database.name));
    // Each connection that nobody has looked at since fails once.
    let mut again = desk.store.session(TokenHash([1; 32])).await;
    for _ in 0..9 {
        if again.is_ok() {
            break;
        }
        again = desk.store.session(TokenHash([1; 32])).await;
    }
    assert_eq!(again.unwrap(), Some(session(1, whose(1), at(500))));
}
