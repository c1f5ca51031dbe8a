//! Starts of the service with other CA keys than before: nobody is locked out, and no key signs that nobody trusts.

use std::sync::Arc;

use hallpass::keyring::Ca;
use hallpass::keyring::step::{Proposal, Step};
use hallpass::service::Failure;
use hallpass::service::rotate::RotationWish;
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::cert::Purpose;
use hallpass::ssh::{Fingerprint, PublicKey};

use crate::support::{Faulty, World};

const OTHER: [u8; 32] = [0xD1; 32];

fn wish(step: Step, key: Option<Fingerprint>) -> RotationWish {
    let what = Proposal { step, ca: Ca::USER, key, accepted: Default::default(), is_early: false };
    RotationWish { what, reason: String::new() }
}

/// The state of a key, as operators see it.
async fn state(world: &World, key: &PublicKey) -> KeyState {
    let view = world.service().ca_keys(&world.proven("omar").await).await.unwrap();
    view.keys.iter().find(|one| one.known.key == *key).unwrap().known.state
}

#[tokio::test]
async fn a_key_that_vanished_is_trusted_until_its_last_certificate_has_ended() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let request = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let certificate = world.fetch(&alice, request).await.unwrap();
    let (old, end) = (world.signer.public_key_of(), certificate.tbs().fields().window.end());
    world.signer = Arc::new(Faulty::new(OTHER));
    world.accepted_ca = Some(world.signer.public_key_of().fingerprint());
    world.restart().await;
    assert_eq!(state(&world, &old).await, KeyState::Draining);
    assert!(world.service().trust_bundle().text.contains(&old.to_openssh()), "what it signed opens hosts");
    // A start is not what ends it, and neither is a tick before its time.
    world.accepted_ca = None;
    world.restart().await;
    world.service().tick().await.unwrap();
    assert_eq!(state(&world, &old).await, KeyState::Draining);
    world.clock.set(end);
    world.service().tick().await.unwrap();
    assert_eq!(state(&world, &old).await, KeyState::Retired);
    assert!(!world.service().trust_bundle().text.contains(&old.to_openssh()));
    world.check().await;
}

#[tokio::test]
async fn the_only_key_that_hosts_trust_is_not_replaced_by_one_that_they_do_not() {
    let mut world = World::new().await;
    let old = std::mem::replace(&mut world.signer, Arc::new(Faulty::new(OTHER)));
    let bundle = world.service().trust_bundle();
    let refused = world.try_start(None).await.unwrap_err();
    let (was, new) = (old.public_key_of().fingerprint(), world.signer.public_key_of().fingerprint());
    let Failure::Untrusted(why) = &refused else { panic!("{refused:?}") };
    assert_eq!((why.ca.clone(), why.old, why.new, why.is_known), (Ca::USER, was, new, false));
    assert!(refused.to_string().contains("nobody was told to trust"), "{refused}");

    // With the old one beside it all is as it was; once hosts have been told, it may go.
    world.next = vec![Arc::clone(&old)];
    world.restart().await;
    assert_eq!(world.service().trust_bundle(), bundle);
    let omar = world.proven("omar").await;
    world.service().rotate(&omar, wish(Step::Start, Some(new))).await.unwrap();
    world.next = Vec::new();
    world.restart().await;
    assert_eq!(state(&world, &world.signer.public_key_of()).await, KeyState::Active);
    assert_eq!(state(&world, &old.public_key_of()).await, KeyState::Retired, "no certificate by it lasts");
    world.check().await;
}

#[tokio::test]
async fn after_the_only_key_was_stolen_nothing_is_signed_until_there_is_another() {
    let mut world = World::new().await;
    let (omar, alice) = (world.proven("omar").await, world.proven("alice").await);
    let stolen = world.signer.public_key_of();
    let request = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.fetch(&alice, request).await.unwrap();
    let view = world.service().rotate(&omar, wish(Step::Compromise, Some(stolen.fingerprint()))).await.unwrap();
    assert!(view.attention.iter().any(|said| said.contains("no user CA key signs")), "{:?}", view.attention);
    assert!(!world.service().trust_bundle().text.contains("ssh-ed25519"), "no key is trusted");
    let next = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    assert!(matches!(world.fetch(&alice, next).await, Err(Failure::Unavailable(_))));
    assert!(matches!(world.service().ready().await, Err(Failure::Unavailable(_))));
    // The same again, to tell hosts; then a key in its place.
    world.restart().await;
    assert_eq!(state(&world, &stolen).await, KeyState::Compromised);
    world.signer = Arc::new(Faulty::new(OTHER));
    world.restart().await;
    let certificate = world.fetch(&alice, next).await.unwrap();
    assert_eq!(certificate.tbs().ca(), &world.signer.public_key_of());
    world.check().await;
}

#[tokio::test]
async fn all_backends_are_looked_at_and_only_the_one_that_signs_for_people_makes_it_unready() {
    use crate::support::Fault;
    let mut world = World::new().await;
    world.next = vec![Arc::new(Faulty::new(OTHER))];
    world.host_signer = Some(Arc::new(Faulty::of([0xCB; 32], Purpose::Host)));
    world.restart().await;
    assert_eq!(world.service().ready().await.unwrap(), Vec::<String>::new());
    world.next[0].set(Fault::Down);
    world.host_signer.as_ref().unwrap().set(Fault::Down);
    let warnings = world.service().ready().await.unwrap();
    let next = world.next[0].public_key_of().fingerprint();
    assert_eq!(warnings[0], format!("the backend of a CA key can't be used: user {next}, next"));
    assert!(warnings.len() == 2 && warnings[1].ends_with(", active"), "{warnings:?}");
    world.signer.set(Fault::Down);
    assert!(matches!(world.service().ready().await, Err(Failure::Unavailable(_))));
    world.signer.set(Fault::None);
    assert_eq!(world.service().ready().await.unwrap().len(), 2);
}
