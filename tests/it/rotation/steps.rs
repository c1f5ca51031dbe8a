//! The service's steps: what each refuses, what the log says, and what is left when the answer of the store is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hallpass::identity::Proven;
use hallpass::keyring::Ca;
use hallpass::keyring::plan::Blocked;
use hallpass::keyring::step::{Proposal, Step};
use hallpass::service::access::Ask;
use hallpass::service::key_view::KeysView;
use hallpass::service::rotate::RotationWish;
use hallpass::service::{Failure, Outcome};
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::{Fingerprint, PublicKey};

use crate::support::{Fault, Faulty, World, login_key, policy};

/// A world with a key to change to, and another one in reserve.
async fn world() -> World {
    let mut world = World::new().await;
    world.next = vec![Arc::new(Faulty::new([0xD1; 32])), Arc::new(Faulty::new([0xD2; 32]))];
    world.restart().await;
    world
}

fn wish(step: Step, key: Option<&PublicKey>) -> RotationWish {
    let key = key.map(PublicKey::fingerprint);
    let what = Proposal { step, ca: Ca::USER, key, accepted: BTreeSet::new(), is_early: false };
    RotationWish { what, reason: "yearly".to_owned() }
}

async fn take(world: &World, by: &Proven, step: Step) -> Outcome<KeysView> {
    world.service().rotate(by, wish(step, None)).await
}

fn states(view: &KeysView) -> BTreeMap<Fingerprint, KeyState> {
    view.keys.iter().map(|key| (key.known.key.fingerprint(), key.known.state)).collect()
}

fn blocked(outcome: Outcome<KeysView>) -> Blocked {
    match outcome {
        Err(Failure::Rotation(blocked)) => blocked,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rotation_goes_through_its_steps_and_a_restart_at_each_changes_nothing() {
    let mut world = world().await;
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    let (old, new) = (world.signer.public_key_of(), world.next[0].public_key_of());
    let view = world.service().ca_keys(&omar).await.unwrap();
    assert_eq!((view.spare.len(), states(&view)), (2, BTreeMap::from([(old.fingerprint(), KeyState::Active)])));
    assert!(matches!(take(&world, &alice, Step::Start).await, Err(Failure::Forbidden(_))));
    assert!(matches!(world.service().ca_keys(&alice).await, Err(Failure::Forbidden(_))));
    assert_eq!(blocked(take(&world, &omar, Step::Switch).await), Blocked::None(KeyState::Staged));
    assert_eq!(blocked(take(&world, &omar, Step::Finish).await), Blocked::None(KeyState::Draining));
    assert_eq!(blocked(take(&world, &omar, Step::Abort).await), Blocked::NothingBegun);

    let first = world.service().trust_bundle();
    let begun = take(&world, &omar, Step::Start).await.unwrap();
    assert_eq!(states(&begun)[&new.fingerprint()], KeyState::Staged);
    let second = world.service().trust_bundle();
    assert!(second.version > first.version && second.text.contains(&new.to_openssh()));
    assert_eq!(blocked(take(&world, &omar, Step::Start).await), Blocked::UnderWay(new.fingerprint(), KeyState::Staged));
    world.restart().await;
    assert_eq!(world.service().trust_bundle(), second);

    // What the old key has signed lasts, and can still be fetched after the switch.
    let request = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let before = world.fetch(&alice, request).await.unwrap();
    assert_eq!(before.tbs().ca(), &old);
    take(&world, &omar, Step::Switch).await.unwrap();
    world.restart().await;
    let third = world.service().trust_bundle();
    assert_eq!(world.fetch(&alice, request).await.unwrap().tbs(), before.tbs(), "the same certificate again");
    let next = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    assert_eq!(world.fetch(&alice, next).await.unwrap().tbs().ca(), &new);
    let until = before.tbs().fields().window.end();
    let stands = Blocked::Certificates { key: old.fingerprint(), until };
    assert_eq!(blocked(take(&world, &omar, Step::Finish).await), stands);
    assert_eq!(
        blocked(take(&world, &omar, Step::Start).await),
        Blocked::UnderWay(old.fingerprint(), KeyState::Draining)
    );

    world.clock.set(until);
    let omar = world.proven("omar").await;
    let done = take(&world, &omar, Step::Finish).await.unwrap();
    assert_eq!(states(&done)[&old.fingerprint()], KeyState::Retired);
    world.restart().await;
    let last = world.service().trust_bundle();
    assert!(last.version > third.version && !last.text.contains(&old.to_openssh()));
    world.check().await;
}

#[tokio::test]
async fn an_abort_goes_back_before_the_switch_and_after_it() {
    let world = world().await;
    let omar = world.proven("omar").await;
    let (old, new) = (world.signer.public_key_of().fingerprint(), world.next[0].public_key_of().fingerprint());
    take(&world, &omar, Step::Start).await.unwrap();
    let back = take(&world, &omar, Step::Abort).await.unwrap();
    assert_eq!((states(&back)[&old], states(&back)[&new]), (KeyState::Active, KeyState::Retired));
    // Once more with the same key, which has to be named now that another one was never used.
    let again = wish(Step::Start, Some(&world.next[0].public_key_of()));
    world.service().rotate(&omar, again).await.unwrap();
    take(&world, &omar, Step::Switch).await.unwrap();
    let back = take(&world, &omar, Step::Abort).await.unwrap();
    assert_eq!((states(&back)[&old], states(&back)[&new]), (KeyState::Active, KeyState::Draining));
    let back = take(&world, &omar, Step::Finish).await.unwrap();
    assert_eq!((states(&back)[&old], states(&back)[&new]), (KeyState::Active, KeyState::Retired));
    world.check().await;
}

#[tokio::test]
async fn a_stolen_key_is_never_trusted_again_and_what_it_opened_is_over() {
    let mut world = world().await;
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    let (stolen, reserve) = (world.signer.public_key_of(), world.next[0].public_key_of());
    take(&world, &omar, Step::Start).await.unwrap();
    let request = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.fetch(&alice, request).await.unwrap();
    let after = world.service().rotate(&omar, wish(Step::Compromise, Some(&stolen))).await.unwrap();
    let states = states(&after);
    assert_eq!(states[&stolen.fingerprint()], KeyState::Compromised);
    assert_eq!(states[&reserve.fingerprint()], KeyState::Active);
    assert!(!world.service().trust_bundle().text.contains(&stolen.to_openssh()));
    assert_eq!(world.state(request).await, "ended");
    assert!(world.fetch(&alice, request).await.is_err());
    let next = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    assert_eq!(world.fetch(&alice, next).await.unwrap().tbs().ca(), &reserve);
    world.check().await;

    // It is still configured, which does no harm; but it can't be made the one that signs again.
    world.restart().await;
    let twice = world.service().rotate(&omar, wish(Step::Compromise, Some(&stolen))).await;
    assert!(matches!(blocked(twice), Blocked::NotThat(..)));
    let start = world.service().rotate(&omar, wish(Step::Start, Some(&stolen))).await;
    assert!(matches!(blocked(start), Blocked::NotThat(..)));
    world.next = Vec::new();
    assert!(world.try_start(None).await.unwrap_err().to_string().contains("compromised"));
    world.trusted = vec![stolen.clone()];
    world.signer = Arc::new(Faulty::new([0xD1; 32]));
    assert!(world.try_start(None).await.unwrap_err().to_string().contains("compromised"));
    world.trusted = Vec::new();
    world.try_start(None).await.unwrap();
    world.check().await;

    // Configured no more, it is nobody's key all the same: whoever stole it proves nothing by it.
    let alice = world.proven("alice").await;
    let with_it = Ask { key: stolen.clone(), ..world.ask(&["staging-1"], "deploy") };
    let refused = world.service().ask(&alice, with_it).await.unwrap_err().to_string();
    assert!(refused.contains("is a signing key of this service"), "{refused}");
    let listed = policy().replace(&login_key("alice").public_key().to_openssh(), &stolen.to_openssh());
    let omar = world.proven("omar").await;
    let refused = world.service().apply_policy(&omar, listed, None, false).await.unwrap_err();
    assert!(matches!(refused, Failure::BadPolicy { .. }), "{refused}");
}

#[tokio::test]
async fn a_step_that_was_stored_although_the_store_said_that_it_failed_is_in_force() {
    let world = world().await;
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    take(&world, &omar, Step::Start).await.unwrap();
    world.store_lies.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(take(&world, &omar, Step::Switch).await, Err(Failure::Unavailable(_))));
    let request = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let certificate = world.fetch(&alice, request).await.unwrap();
    assert_eq!(certificate.tbs().ca(), &world.next[0].public_key_of(), "nothing is signed by the old key after it");
    world.check().await;
}

#[tokio::test]
async fn a_lost_answer_of_a_backend_leaves_the_request_and_the_next_fetch_asks_the_same_key() {
    let world = world().await;
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    let request = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.signer.set(Fault::Fails);
    assert!(world.fetch(&alice, request).await.is_err());
    take(&world, &omar, Step::Start).await.unwrap();
    take(&world, &omar, Step::Switch).await.unwrap();
    world.signer.set(Fault::None);
    let certificate = world.fetch(&alice, request).await.unwrap();
    assert_eq!(certificate.tbs().ca(), &world.signer.public_key_of(), "its intent was in the log before the switch");
    world.check().await;
}
