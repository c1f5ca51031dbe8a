//! A key is given up, and whoever was to end what is open under it is gone: the next tick of any node ends it, once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hallpass::access::State;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::identity::Proven;
use hallpass::keyring::Ca;
use hallpass::keyring::step::{Proposal, Step};
use hallpass::name::RequestId;
use hallpass::service::Outcome;
use hallpass::ssh::Fingerprint;
use hallpass::store;

use crate::support::postgres::cluster;
use crate::support::{Faulty, World, person, policy, prefix};

/// More than go in one commit.
const OPEN: usize = 10;

fn unstarted() -> World {
    let mut world = World::unstarted(std::time::Duration::from_secs(30));
    world.next = vec![Arc::new(Faulty::new([0xD1; 32]))];
    world.settings.open_requests_max = 50;
    world
}

async fn take(world: &World, by: &Proven, step: Step, key: Option<Fingerprint>) -> Outcome<()> {
    let what = Proposal { step, ca: Ca::USER, key, accepted: BTreeSet::new(), is_early: false };
    world.service().rotate(by, hallpass::service::rotate::RotationWish { what, reason: String::new() }).await.map(drop)
}

async fn issued(world: &World, alice: &Proven) -> RequestId {
    let id = world.service().ask(alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.fetch(alice, id).await.unwrap();
    id
}

/// The key that signs is given up in the log, and the service gets no further: its store does not say so.
async fn cut_short(world: &World) -> Vec<RequestId> {
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    take(world, &omar, Step::Start, None).await.unwrap();
    let mut open = Vec::new();
    for _ in 0..OPEN {
        open.push(issued(world, &alice).await);
    }
    world.store_lies.store(true, Ordering::SeqCst);
    let lost = world.signer.public_key_of().fingerprint();
    assert!(take(world, &omar, Step::Compromise, Some(lost)).await.is_err());
    open
}

/// Who the log says ended this request, and why.
async fn ended(world: &World, by: &Proven, id: RequestId) -> Vec<(String, String)> {
    let mut ended = Vec::new();
    for bytes in world.service().entries(by, 0, 1000).await.unwrap() {
        if let Event::Ended { request, by, reason } = Entry::parse(&bytes).unwrap().event
            && request == id
        {
            ended.push((by.to_string(), reason));
        }
    }
    ended
}

async fn all_are_over(world: &World, open: &[RequestId]) {
    let omar = world.proven("omar").await;
    let reason = format!("the CA key {} was compromised", world.signer.public_key_of().fingerprint());
    for id in open {
        let state = world.service().view(&omar, &prefix(*id)).await.unwrap().request.parts().state.clone();
        assert!(matches!(&state, State::Ended { by, .. } if *by == person("omar")), "{state:?}");
        assert_eq!(ended(world, &omar, *id).await, [(person("omar").to_string(), reason.clone())]);
    }
}

#[tokio::test]
async fn what_is_open_under_a_key_that_was_given_up_just_before_the_end_is_ended_by_the_next_start() {
    let mut world = unstarted();
    world.try_start(Some(&policy())).await.unwrap();
    let open = cut_short(&world).await;
    world.restart().await;
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    assert_eq!(world.state(open[0]).await, "issued", "a start does nothing, its first tick does");
    // Entries come between, and a newer one about CA keys: the log says who it was all the same.
    world.pass(10);
    let other = issued(&world, &alice).await;
    world.next.push(Arc::new(Faulty::new([0xD2; 32])));
    world.restart().await;
    world.pass(10);
    take(&world, &omar, Step::Start, None).await.unwrap();
    // One has been given back before.
    world.service().end(&alice, &prefix(open[3]), String::new()).await.unwrap();
    let rest: Vec<RequestId> = open.iter().copied().filter(|id| *id != open[3]).collect();

    assert_eq!(world.service().tick().await.unwrap(), OPEN - 1);
    all_are_over(&world, &rest).await;
    assert_eq!(ended(&world, &omar, open[3]).await, [(person("alice").to_string(), String::new())]);
    assert_eq!(world.state(other).await, "issued", "it is by another key");
    // That was all, for this service and the next.
    assert_eq!(world.service().tick().await.unwrap(), 0);
    world.restart().await;
    assert_eq!(world.service().tick().await.unwrap(), 0);
    world.check().await;
}

#[tokio::test]
async fn two_nodes_end_what_a_third_left_open_once() {
    let mut first = unstarted();
    first.store = store::Settings::Postgres(cluster().settings(&cluster().database()));
    first.try_start(Some(&policy())).await.unwrap();
    let open = cut_short(&first).await;
    let mut nodes = [first.node_beside(), first.node_beside()];
    for (node, seed) in nodes.iter_mut().zip([2, 3]) {
        node.reseed(seed);
        node.try_start(None).await.unwrap();
    }
    first.stop();
    let [one, two] = &nodes;
    let (one_ended, two_ended) = tokio::join!(one.service().tick(), two.service().tick());
    assert_eq!(one_ended.unwrap() + two_ended.unwrap(), OPEN);
    for node in &nodes {
        all_are_over(node, &open).await;
        assert_eq!(node.service().tick().await.unwrap(), 0);
    }
    one.check().await;
}
