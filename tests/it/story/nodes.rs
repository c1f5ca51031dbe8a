//! Nodes on one database that is put back to an older state while they run, and written on.

use hallpass::service::Failure;
use hallpass::store;

use super::recovery::refused_start;
use crate::support::postgres::cluster;
use crate::support::{World, policy};

/// Makes database `to` of what is in `from`, whose connections are cut.
fn copy(from: &str, to: &str) {
    let sql = |sql: String| drop(cluster().sql("postgres", &sql));
    sql(format!("ALTER DATABASE {from} ALLOW_CONNECTIONS false"));
    sql(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'"));
    sql(format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)"));
    sql(format!("CREATE DATABASE {to} TEMPLATE {from}"));
    sql(format!("ALTER DATABASE {from} ALLOW_CONNECTIONS true"));
}

async fn size(world: &World) -> u64 {
    world.service().checkpoint().await.unwrap().1
}

#[tokio::test]
async fn a_node_that_has_seen_more_serves_nothing_of_an_older_copy_however_long_it_has_grown() {
    let name = cluster().database();
    let mut first = World::unstarted(std::time::Duration::from_secs(30));
    first.store = store::Settings::Postgres(cluster().settings(&name));
    first.try_start(Some(&policy())).await.unwrap();
    let mut second = first.node_beside();
    second.try_start(None).await.unwrap();
    copy(&name, &format!("{name}_older"));

    let alice = first.proven("alice").await;
    first.service().ask(&alice, first.ask(&["web-1"], "deploy")).await.unwrap();
    second.service().catch_up().await.unwrap();
    let had = size(&second).await;
    copy(&format!("{name}_older"), &name);
    // A node that starts on it can't know, and goes on before either of the others looks.
    let mut third = first.node_beside();
    third.reseed(3);
    third.try_start(None).await.unwrap();
    while size(&third).await <= had {
        third.proven("bob").await;
    }
    for node in [&first, &second] {
        let told = node.service().ready().await;
        let Err(Failure::Unavailable(why)) = &told else { panic!("{told:?}") };
        assert!(why.contains("an older copy has taken its place"), "{why}");
        let asked = node.service().ask(&alice, node.ask(&["web-1"], "deploy")).await;
        assert!(asked.is_err(), "{asked:?}");
        assert!(node.service().catch_up().await.is_err(), "nor does it go on by itself");
    }
    // What they knew is kept, although no certificate was issued since: whoever looks for what is lost learns of it.
    for node in [&mut first, &mut second] {
        let why = refused_start(node).await;
        assert!(why.contains("are not those that were signed"), "{why}");
    }
}
