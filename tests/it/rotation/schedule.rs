//! Rotations that the configuration wants every so often: they begin by themselves, and are never switched by themselves.

use std::sync::Arc;

use hallpass::keyring::Ca;
use hallpass::keyring::step::{Proposal, Step};
use hallpass::service::key_view::KeysView;
use hallpass::service::rotate::RotationWish;
use hallpass::service::schedule::Waits;
use hallpass::ssh::bundle::KeyState;
use hallpass::time::Lifetime;

use crate::support::{Faulty, World};

const DAY: u32 = 86_400;

async fn world() -> World {
    let mut world = World::new().await;
    world.settings.rotation.every.insert(Ca::USER, Lifetime::minutes(90 * 24 * 60));
    world.restart().await;
    world
}

async fn view(world: &World) -> KeysView {
    world.service().ca_keys(&world.proven("omar").await).await.unwrap()
}

async fn ticks(world: &World, days: u32) {
    for _ in 0..days {
        world.pass(DAY);
        world.service().tick().await.unwrap();
    }
}

#[tokio::test]
async fn a_rotation_that_is_due_begins_by_itself_and_waits_for_a_person() {
    let mut world = world().await;
    ticks(&world, 89).await;
    assert_eq!((world.service().rotation_due(), view(&world).await.attention), (Vec::new(), Vec::new()));
    ticks(&world, 1).await;
    assert_eq!(world.service().rotation_due()[0].waits, Waits::Key);
    let said = view(&world).await.attention;
    assert!(said[0].contains("signs for 90 days") && said[0].contains("add a [[ca.user.next]]"), "{said:?}");

    world.next = vec![Arc::new(Faulty::new([0xD1; 32]))];
    world.restart().await;
    world.service().tick().await.unwrap();
    let next = world.next[0].public_key_of().fingerprint();
    let staged = view(&world).await;
    let state = |key: &KeysView| key.keys.iter().map(|key| key.known.state).collect::<Vec<_>>();
    assert_eq!(state(&staged), [KeyState::Active, KeyState::Staged]);
    assert!(staged.attention[0].contains(&format!("{next} is staged and waits for your switch")), "{staged:?}");
    ticks(&world, 30).await;
    assert_eq!(state(&view(&world).await), [KeyState::Active, KeyState::Staged], "nobody has said to switch");

    // Whoever aborts it is left alone with that: the key was retired, and no other is there.
    let omar = world.proven("omar").await;
    let wish = |step| RotationWish {
        what: Proposal { step, ca: Ca::USER, key: None, accepted: Default::default(), is_early: false },
        reason: String::new(),
    };
    world.service().rotate(&omar, wish(Step::Abort)).await.unwrap();
    ticks(&world, 3).await;
    assert_eq!(state(&view(&world).await), [KeyState::Active, KeyState::Retired]);
    world.check().await;
    let found = world.service().entries(&world.proven("ada").await, 0, 1000).await.unwrap();
    let own =
        found.iter().filter(|entry| String::from_utf8_lossy(entry).contains("\"by\":\"system:schedule\"")).count();
    assert_eq!(own, 1, "the service began one, and did nothing else");
}
