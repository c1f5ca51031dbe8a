//! A host that checks in with one node and another: what is written for all, what one alone knows, and which of them counts.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use hallpass::inventory::check_in::CheckIn;
use hallpass::inventory::double::Runs;
use hallpass::name::{Digest, HostName};
use hallpass::service::hosts::HostFilter;
use hallpass::store;

use super::machine::{Machine, join};
use crate::api::site::Site;
use crate::support::postgres::cluster;
use crate::support::{World, policy};

const HOST: &str = "app-1";

/// Two nodes on one database, and the token of a host that has joined.
async fn nodes() -> (Site, World, String) {
    let mut site = Site::new().await;
    site.stop().await;
    site.world.store = store::Settings::Postgres(cluster().settings(&cluster().database()));
    std::fs::remove_file(site.world.folder.path().join("head")).unwrap();
    site.world.try_start(Some(&policy())).await.unwrap();
    site.start().await;
    let token = join(&site, &["app-*"], 1).await.token;
    let enrolled = Machine::new(HOST, &[60]).enrol(&site, &token).await.unwrap();
    let second = beside(&site.world, 2).await;
    (site, second, enrolled.token.to_string())
}

async fn beside(first: &World, seed: u64) -> World {
    let mut node = first.node_beside();
    node.settings.public_url.clone_from(&first.settings.public_url);
    node.reseed(seed);
    node.try_start(None).await.unwrap();
    node
}

/// The host checks in with this node, with so many sessions.
async fn tell(node: &World, token: &str, sessions: u64) -> bool {
    let check_in = CheckIn {
        program: "0.1.0".to_owned(),
        sshd: "OpenSSH_9.2p1".to_owned(),
        os: "Debian 12".to_owned(),
        guard: true,
        file_sha256: Digest::new([1; 32]),
        keys: BTreeSet::new(),
        proven: BTreeSet::new(),
        shows: BTreeSet::new(),
        clock_ms: 0,
        risky: BTreeSet::new(),
        sessions,
        runs: Runs::default(),
    };
    node.pass(60);
    let host = node.service().host_caller(token).await.unwrap();
    node.service().check_in(&host, check_in).await.is_ok()
}

/// What this node knows of the host: when it was told, and how many sessions.
async fn known(node: &World) -> (u64, u64) {
    node.service().catch_up().await.unwrap();
    let omar = node.proven("omar").await;
    let hosts = node.service().hosts(&omar, HostFilter::default()).await.unwrap().hosts;
    let host = HostName::parse(HOST).unwrap();
    let seen = hosts.into_iter().find(|view| view.host.name == host).unwrap().seen.unwrap().seen;
    (seen.at.unix(), seen.check_in.sessions)
}

#[tokio::test]
async fn what_a_host_told_one_node_and_was_not_written_is_not_taken_for_written_by_the_other() {
    let (site, second, token) = nodes().await;
    let first = &site.world;
    let now = || first.now().unix();
    assert!(tell(first, &token, 1).await);
    let written = now();
    assert_eq!([known(first).await, known(&second).await], [(written, 1); 2]);

    // The same again: each node knows the newest that it was told, and one that starts what is written.
    assert!(tell(first, &token, 1).await && tell(&second, &token, 1).await);
    assert_eq!([known(first).await, known(&second).await], [(now() - 60, 1), (now(), 1)]);
    assert_eq!(known(&beside(first, 3).await).await, (written, 1));

    // Something else is written, and is what there is, also for who was told of the other later.
    assert!(tell(first, &token, 2).await);
    let written = now();
    assert_eq!([known(first).await, known(&second).await], [(written, 2); 2]);
    // It is as before again: the second node has to write that, though it is what it was told last.
    assert!(tell(&second, &token, 1).await);
    let written = now();
    assert_eq!([known(first).await, known(&second).await], [(written, 1); 2]);

    // Five minutes count from what is written, whoever wrote it.
    for _ in 0..4 {
        assert!(tell(first, &token, 1).await);
    }
    assert_eq!([known(first).await, known(&second).await], [(now(), 1), (written, 1)]);
    assert!(tell(first, &token, 1).await);
    assert_eq!([known(first).await, known(&second).await], [(now(), 1); 2]);
    first.check().await;
}

#[tokio::test]
async fn after_a_check_in_of_which_nobody_knows_whether_it_is_written_the_next_one_is() {
    let (site, second, token) = nodes().await;
    let first = &site.world;
    assert!(tell(first, &token, 1).await);
    first.store_lies.store(true, Ordering::SeqCst);
    assert!(!tell(first, &token, 2).await, "it was written, and the answer was lost");
    assert_eq!(known(&second).await, (first.now().unix(), 2));
    // For the first node nothing has changed since what it was told before; for all others it has.
    assert!(tell(first, &token, 1).await);
    let now = first.now().unix();
    assert_eq!([known(&second).await, known(first).await], [(now, 1); 2]);
    assert_eq!(known(&beside(first, 3).await).await, (now, 1));
    first.check().await;
}
