//! Steps that two operators must want: proposed by one, carried out by another, and by nobody else.

use std::sync::Arc;

use hallpass::identity::Proven;
use hallpass::keyring::Ca;
use hallpass::keyring::plan::Blocked;
use hallpass::keyring::step::{Proposal, Step};
use hallpass::service::key_view::KeysView;
use hallpass::service::rotate::RotationWish;
use hallpass::service::{Failure, Outcome};
use hallpass::ssh::bundle::KeyState;
use hallpass::store;

use crate::support::postgres::cluster;
use crate::support::{Faulty, World, policy};

/// A policy by which omar and dana operate, and switches need both.
fn both_operate() -> String {
    let two = "operator = [\"group:platform\", \"person:dana@example.com\"]\nca_operators = 2";
    policy().replace("operator = [\"group:platform\"]", two)
}

async fn world() -> World {
    let mut world = World::with(&both_operate(), std::time::Duration::from_secs(30)).await;
    world.next = vec![Arc::new(Faulty::new([0xD1; 32]))];
    world.restart().await;
    world
}

async fn take(world: &World, by: &Proven, step: Step) -> Outcome<KeysView> {
    take_with(world, by, step, |_| {}).await
}

async fn take_with(world: &World, by: &Proven, step: Step, change: impl FnOnce(&mut Proposal)) -> Outcome<KeysView> {
    let mut what = Proposal { step, ca: Ca::USER, key: None, accepted: Default::default(), is_early: false };
    change(&mut what);
    world.service().rotate(by, RotationWish { what, reason: String::new() }).await
}

fn active(view: &KeysView) -> String {
    let active = view.keys.iter().find(|key| key.known.state == KeyState::Active).unwrap();
    active.known.key.fingerprint().to_string()
}

#[tokio::test]
async fn one_proposes_and_another_carries_out_the_same_to_the_letter() {
    let mut world = world().await;
    let (omar, dana) = (world.proven("omar").await, world.proven("dana").await);
    let (old, new) = (world.signer.public_key_of(), world.next[0].public_key_of());
    take(&world, &omar, Step::Start).await.unwrap();
    let bundle = world.service().trust_bundle();
    let proposed = take(&world, &omar, Step::Switch).await.unwrap();
    let pending = proposed.proposed.clone().unwrap();
    assert_eq!((pending.by.as_str(), pending.proposal.step), ("omar@example.com", Step::Switch));
    assert_eq!(active(&proposed), old.fingerprint().to_string(), "nothing has moved");
    assert_eq!(world.service().trust_bundle(), bundle, "and no host has to prove anything anew");
    let again = take(&world, &omar, Step::Switch).await;
    assert!(matches!(again, Err(Failure::Rotation(Blocked::Waits { .. }))), "{again:?}");

    // A restart knows it; something else is another proposal, in place of the first.
    world.restart().await;
    let other = take_with(&world, &dana, Step::Switch, |what| what.key = Some(new.fingerprint())).await.unwrap();
    assert_eq!(other.proposed.unwrap().by.as_str(), "dana@example.com");
    let done = take_with(&world, &omar, Step::Switch, |what| what.key = Some(new.fingerprint())).await.unwrap();
    assert_eq!((active(&done), done.proposed), (new.fingerprint().to_string(), None));

    // Beginning and giving up a stolen key need nobody else.
    let lost = |what: &mut Proposal| what.key = Some(old.fingerprint());
    take_with(&world, &dana, Step::Compromise, lost).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_proposal_lapses_and_counts_only_while_its_proposer_operates() {
    let world = world().await;
    let (omar, dana) = (world.proven("omar").await, world.proven("dana").await);
    take(&world, &omar, Step::Start).await.unwrap();
    take(&world, &omar, Step::Switch).await.unwrap();
    world.pass(3_600);
    let late = take(&world, &dana, Step::Switch).await.unwrap();
    assert_eq!(late.proposed.unwrap().by.as_str(), "dana@example.com", "it is a proposal of its own");
    // What is blocked is not even proposed.
    assert!(matches!(take(&world, &omar, Step::Finish).await, Err(Failure::Rotation(Blocked::None(_)))));

    // dana operates no longer: what she proposed is nobody's.
    let policy = world.service().policy_now().1.text().replace("person:dana@example.com", "person:bob@example.com");
    world.service().apply_policy(&omar, policy, None, false).await.unwrap();
    let mine = take(&world, &omar, Step::Switch).await.unwrap();
    assert_eq!(mine.proposed.unwrap().by, *omar.person());
    assert!(matches!(take(&world, &dana, Step::Switch).await, Err(Failure::Forbidden(_))));
    let bob = world.proven("bob").await;
    let done = take(&world, &bob, Step::Switch).await.unwrap();
    assert_eq!(active(&done), world.next[0].public_key_of().fingerprint().to_string());
    world.check().await;
}

#[tokio::test]
async fn a_proposal_that_was_stored_although_the_store_said_that_it_failed_is_one() {
    let world = world().await;
    let (omar, dana) = (world.proven("omar").await, world.proven("dana").await);
    take(&world, &omar, Step::Start).await.unwrap();
    world.store_lies.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(take(&world, &omar, Step::Switch).await.is_err());
    let done = take(&world, &dana, Step::Switch).await.unwrap();
    assert_eq!(active(&done), world.next[0].public_key_of().fingerprint().to_string());
    world.check().await;
}

#[tokio::test]
async fn what_one_proposes_on_one_node_another_carries_out_on_the_other() {
    let mut first = World::unstarted(std::time::Duration::from_secs(30));
    first.store = store::Settings::Postgres(cluster().settings(&cluster().database()));
    first.next = vec![Arc::new(Faulty::new([0xD1; 32]))];
    first.try_start(Some(&both_operate())).await.unwrap();
    let mut second = first.node_beside();
    second.try_start(None).await.unwrap();
    let (omar, dana) = (first.proven("omar").await, second.proven("dana").await);
    let new = first.next[0].public_key_of().fingerprint().to_string();

    // Neither follows the log, as if it had yet to hear of the other: what is asked of it is looked up.
    take(&first, &omar, Step::Start).await.unwrap();
    assert_eq!(take(&first, &omar, Step::Switch).await.unwrap().proposed.unwrap().by, *omar.person());
    let again = take(&second, &omar, Step::Switch).await;
    assert!(matches!(again, Err(Failure::Rotation(Blocked::Waits { .. }))), "{again:?}");
    let done = take(&second, &dana, Step::Switch).await.unwrap();
    assert_eq!((active(&done), done.proposed), (new.clone(), None));

    // The first one signs with what the second has put in force, and makes no proposal of what is done.
    let seen = take(&first, &omar, Step::Abort).await.unwrap();
    assert_eq!((active(&seen), seen.proposed.unwrap().by), (new, omar.person().clone()));
    let again = take(&second, &omar, Step::Abort).await;
    assert!(matches!(again, Err(Failure::Rotation(Blocked::Waits { .. }))), "{again:?}");
    assert_eq!(first.service().trust_bundle(), second.service().trust_bundle());
    first.check().await;
}
