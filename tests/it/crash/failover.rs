//! The database's server dies under load and a real standby takes its place: with everything, and service goes on by itself; or without the
//! last transactions, and the kept checkpoint shows it.

use std::time::Duration;

use hallpass::client::ClientError;
use hallpass::name::RequestId;
use hallpass::wire;

use super::checker::Checker;
use super::load::Load;
use super::server::Site;
use super::story::ALICE;
use crate::support::postgres::Cluster;

/// Runs what blocks, and gives the server back.
async fn on<T: Send + 'static>(cluster: Cluster, act: impl FnOnce(&mut Cluster) -> T + Send + 'static) -> (Cluster, T) {
    let mut cluster = cluster;
    tokio::task::spawn_blocking(move || {
        let done = act(&mut cluster);
        (cluster, done)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_standby_that_has_everything_takes_over_and_nothing_is_lost_or_doubled() {
    let cluster = Cluster::start(Cluster::REPLICATED);
    let site = Site::of_nodes(cluster.settings(&cluster.database()));
    let server = site.start(None);
    let load = Load::start(&server).await;
    load.works(8).await;
    let (cluster, standby) = on(cluster, |cluster| {
        let standby = cluster.standby();
        // From here on a commit waits for the standby.
        cluster.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        cluster.sql("postgres", "SELECT pg_reload_conf()");
        standby
    })
    .await;
    load.works(8).await;
    let kept = site.kept();
    let (cluster, ()) = on(cluster, |cluster| cluster.fail_over(standby)).await;
    let took = load.works(8).await;
    let (connection, facts) = load.finish().await;
    let shown = Checker::read(&connection, kept).await.check(&facts, None);
    println!("first certificate {} ms after the standby was there; {shown}", took.as_millis());
    server.kill();
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_standby_without_the_last_transactions_is_noticed_and_not_served() {
    let cluster = Cluster::start(Cluster::REPLICATED);
    let site = Site::of_nodes(cluster.settings(&cluster.database()));
    let mut server = site.start(None);
    let load = Load::start(&server).await;
    load.works(8).await;
    let (cluster, standby) = on(cluster, |cluster| {
        let standby = cluster.standby();
        standby.unfollow();
        cluster.until_replicas(0);
        standby
    })
    .await;
    // What the standby will not have.
    let asked = load.connection().ask_with("dev-1", [0xF0; 32]).await.unwrap();
    let lost = RequestId::parse(&asked.id).unwrap();
    load.works(8).await;
    let (cluster, ()) = on(cluster, |cluster| cluster.fail_over(standby)).await;
    // The node that was there writes nothing on it, and says so.
    load.fail(60).await;
    let ready = load.connection().client(None).get::<wire::Problem>("/readyz").await;
    let Err(ClientError::Problem(problem)) = &ready else { panic!("{ready:?}") };
    assert!(problem.status == 503 && problem.why.concat().contains("an older copy has taken its place"), "{problem:?}");
    // What is lost is not said to be nowhere, and nobody is told that they are not logged in.
    let looked = load.connection().look(ALICE, lost).await;
    assert!(matches!(&looked, Err(ClientError::Problem(problem)) if problem.status == 503), "{looked:?}");
    let listed = load.connection().client(Some(ALICE)).get::<serde_json::Value>("/v1/requests").await;
    assert!(matches!(&listed, Err(ClientError::Problem(problem)) if problem.status == 503), "{listed:?}");
    let before = load.facts().iter().filter(|fact| fact.certificate.is_some()).count();
    load.fail(40).await;
    assert_eq!(load.facts().iter().filter(|fact| fact.certificate.is_some()).count(), before, "nothing is handed out");
    server.kill_now();
    // One that starts, too.
    let (code, said) = site.start(None).ended();
    assert!(code == Some(1) && said.contains("the log in the database and the checkpoint in"), "{code:?} {said}");
    // The newest database comes back, and everything with it.
    let (cluster, ()) = on(cluster, Cluster::fail_back).await;
    let server = site.start(None);
    load.call(&server).await;
    assert_eq!(load.connection().look(ALICE, lost).await.unwrap().id, asked.id);
    load.works(8).await;
    let (connection, facts) = load.finish().await;
    let shown = Checker::read(&connection, Vec::new()).await.check(&facts, None);
    println!("{shown}");
    server.kill();
    tokio::time::timeout(Duration::from_secs(60), on(cluster, |_cluster| ())).await.unwrap();
}
