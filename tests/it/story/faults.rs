//! The CA key fails, lies or hangs, the clock is wrong, the process stops: nothing is handed out that should not be,
//! and nothing is lost.

use std::time::Duration;

use hallpass::access::Refusal;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::service::Failure;

use crate::support::{Fault, Faulty, World, login_seed, policy, prefix};

/// Every certificate that the CA key was asked for in a story of one request has these bytes.
fn only_one(mut asked: Vec<Vec<u8>>) -> Vec<u8> {
    asked.dedup();
    assert_eq!(asked.len(), 1, "one certificate, however often it is signed");
    asked.remove(0)
}

#[tokio::test]
async fn a_ca_key_that_lies_or_fails_gets_nothing_out_and_the_same_bytes_are_signed_later() {
    for fault in [Fault::Fails, Fault::OtherKey, Fault::OtherBytes, Fault::Garbage, Fault::Panics] {
        let world = World::new().await;
        let alice = world.proven("alice").await;
        let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
        world.signer.set(fault);
        for _ in 0..2 {
            let failed = world.fetch(&alice, id).await;
            assert!(matches!(failed, Err(Failure::Unavailable(_))), "{fault:?}: {failed:?}");
        }
        assert_eq!(world.state(id).await, "issued", "an intent counts as issued (I-9)");
        world.signer.set(Fault::None);
        let certificate = world.fetch(&alice, id).await.unwrap();
        assert_eq!(only_one(world.signer.asked()), certificate.tbs().bytes());
        world.check().await;
    }
}

#[tokio::test]
async fn a_ca_key_is_asked_for_nothing_that_another_program_does_not_find_in_the_database() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.signer.set(Fault::Hangs);
    let (service, by) = (std::sync::Arc::clone(world.service()), alice.clone());
    let fetching = tokio::spawn(async move { service.certificate(&by, &prefix(id)).await });
    while world.signer.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let there = rusqlite::Connection::open(world.database()).unwrap();
    let newest = "SELECT bytes FROM log_entry WHERE kind = 'certificate_to_be_signed' ORDER BY number DESC LIMIT 1";
    let bytes: Vec<u8> = there.query_row(newest, [], |row| row.get(0)).unwrap();
    let Event::CertificateToBeSigned { tbs, serial, .. } = Entry::parse(&bytes).unwrap().event else { panic!() };
    assert_eq!(tbs.as_slice(), only_one(world.signer.asked()));
    drop(there);
    world.signer.set(Fault::None);
    assert_eq!(fetching.await.unwrap().unwrap().tbs().fields().serial, serial);
}

#[tokio::test]
async fn a_ca_key_that_hangs_is_given_up_and_does_not_take_all_threads() {
    let world = World::with(&policy(), Duration::from_millis(50)).await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.signer.set(Fault::Hangs);
    for _ in 0..10 {
        let failed = world.fetch(&alice, id).await;
        assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
    }
    assert_eq!(world.signer.asked().len(), 8, "as many as there are slots");
    assert!(matches!(world.service().ready().await, Err(Failure::Unavailable(_))));
    world.signer.set(Fault::None);
    let certificate = loop {
        match world.fetch(&alice, id).await {
            Ok(certificate) => break certificate,
            Err(Failure::Unavailable(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(only_one(world.signer.asked()), certificate.tbs().bytes());
    world.service().ready().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn what_is_ended_while_the_ca_key_is_slow_is_not_handed_out() {
    let world = std::sync::Arc::new(World::new().await);
    let (alice, omar) = (world.proven("alice").await, world.proven("omar").await);
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.signer.set(Fault::Hangs);
    let fetching = tokio::spawn({
        let (world, alice) = (world.clone(), alice.clone());
        async move { world.fetch(&alice, id).await }
    });
    while world.signer.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    world.service().end(&omar, &prefix(id), "incident over".to_owned()).await.unwrap();
    world.signer.set(Fault::None);
    let fetched = fetching.await.unwrap();
    assert!(matches!(fetched, Err(Failure::Refused(Refusal::Over { state: "ended", .. }))), "{fetched:?}");
    world.check().await;
}

#[tokio::test]
async fn a_policy_that_comes_while_the_ca_key_is_slow_is_asked_too_and_nothing_is_signed_twice() {
    let world = std::sync::Arc::new(World::new().await);
    let (alice, omar) = (world.proven("alice").await, world.proven("omar").await);
    for (text, is_allowed) in [
        (format!("{}\n# the same in other words", policy()), true),
        (policy().replace("staging-1", "staging-2"), false),
    ] {
        let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
        let before = world.signer.asked().len();
        world.signer.set(Fault::Hangs);
        let fetching = tokio::spawn({
            let (world, alice) = (world.clone(), alice.clone());
            async move { world.fetch(&alice, id).await }
        });
        while world.signer.asked().len() == before {
            tokio::task::yield_now().await;
        }
        world.service().apply_policy(&omar, text, None, false).await.unwrap();
        world.signer.set(Fault::None);
        let fetched = fetching.await.unwrap();
        assert_eq!(world.signer.asked().len(), before + 1);
        match fetched {
            Ok(certificate) => {
                assert!(is_allowed);
                assert_eq!(world.signer.asked().last().unwrap(), certificate.tbs().bytes());
            }
            Err(why) => assert!(!is_allowed && matches!(why, Failure::Policy(_) | Failure::Refused(_)), "{why:?}"),
        }
    }
    world.check().await;
}

#[tokio::test]
async fn what_was_logged_but_not_signed_is_completed_by_its_next_fetch_and_never_by_a_start_alone() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let ask = async |world: &World| {
        let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
        world.signer.set(Fault::Fails);
        world.fetch(&alice, id).await.unwrap_err();
        world.signer.set(Fault::None);
        id
    };
    let (open, ended) = (ask(&world).await, ask(&world).await);
    world.service().end(&alice, &prefix(ended), String::new()).await.unwrap();
    let before = world.signer.asked();
    world.restart().await;
    assert_eq!(world.signer.asked().len(), before.len(), "nobody asked for it, and policy was not asked");
    let outcomes = async |world: &World, id| {
        let history = world.service().history(&alice, &prefix(id)).await.unwrap();
        history.iter().filter(|entry| entry.event.kind() == "certificate_signed").count()
    };
    let certificate = world.fetch(&alice, open).await.unwrap();
    assert_eq!(certificate.tbs().bytes(), before[0], "a later fetch gives the same bytes");
    world.fetch(&alice, ended).await.unwrap_err();
    assert_eq!((outcomes(&world, open).await, outcomes(&world, ended).await), (1, 0));
    world.check().await;
    world.restart().await;
    world.check().await;
}

#[tokio::test]
async fn a_start_with_a_failing_ca_key_serves_all_but_certificates() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.signer.set(Fault::Fails);
    world.fetch(&alice, id).await.unwrap_err();
    world.restart().await;
    let alice = world.proven("alice").await;
    assert!(matches!(world.fetch(&alice, id).await, Err(Failure::Unavailable(_))));
    world.signer.set(Fault::None);
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn nothing_is_signed_while_the_clock_is_behind_the_log() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let asked_at = world.now();
    let back = |seconds| asked_at.minus(hallpass::time::Lifetime::from_seconds(seconds).unwrap()).unwrap();
    world.clock.set(back(31));
    for _ in 0..2 {
        let failed = world.fetch(&alice, id).await;
        assert!(matches!(&failed, Err(Failure::Unavailable(why)) if why.contains("clock")), "{failed:?}");
        assert!(matches!(world.service().ready().await, Err(Failure::Unavailable(_))));
        assert!(world.signer.asked().is_empty());
        world.restart().await;
    }
    world.clock.set(back(30));
    world.service().ready().await.unwrap();
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn nothing_is_written_after_a_leap_until_the_clock_is_back_or_has_kept_its_step() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let began = world.now();
    let after = |seconds| began.plus(hallpass::time::Lifetime::from_seconds(seconds).unwrap()).unwrap();
    world.clock.leap(after(1200));
    for _ in 0..2 {
        assert!(matches!(world.fetch(&alice, id).await, Err(Failure::ClockLeapt(1200))));
        let asked = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await;
        assert!(matches!(asked, Err(Failure::ClockLeapt(1200))), "{asked:?}");
        assert!(matches!(world.service().ready().await, Err(Failure::ClockLeapt(1200))));
        assert_eq!(world.service().tick().await.unwrap(), 0, "nothing lapses");
        assert!(world.signer.asked().is_empty(), "the CA key is not asked");
        world.pass(100);
    }
    // Set right: as if nothing had been.
    world.clock.leap(after(200));
    world.fetch(&alice, id).await.unwrap();
    // A machine that was paused: it comes back ahead and stays there.
    world.clock.leap(after(1200));
    assert!(matches!(world.service().ready().await, Err(Failure::ClockLeapt(1000))));
    world.pass(299);
    assert!(matches!(world.service().ready().await, Err(Failure::ClockLeapt(1000))));
    world.pass(1);
    world.service().ready().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_clock_that_leaps_forward_lapses_and_expires_and_no_more() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let issued = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    world.fetch(&alice, issued).await.unwrap();
    let pending = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    world.pass(300 * 86_400);
    assert_eq!(world.service().tick().await.unwrap(), 2);
    assert_eq!(world.service().tick().await.unwrap(), 0);
    assert_eq!((world.state(issued).await, world.state(pending).await), ("expired", "lapsed"));
    assert!(world.approve(&bob, pending).await.is_err());
    world.check().await;
}

#[tokio::test]
async fn a_store_is_not_served_under_another_log_key_nor_with_a_ca_key_that_somebody_logs_in_with() {
    let mut world = World::new().await;
    let ada = world.proven("ada").await;
    let before = world.entries(&ada).await.len();
    world.log_seed = [0x11; 32];
    let other = world.try_start(None).await;
    assert!(other.as_ref().is_err_and(|why| why.to_string().contains("log key")), "{other:?}");
    world.log_seed = [0x10; 32];
    let ca = std::mem::replace(&mut world.signer, std::sync::Arc::new(Faulty::new(login_seed("dana"))));
    let shared = world.try_start(None).await;
    assert!(
        matches!(&shared, Err(Failure::BadPolicy { problems, .. }) if problems[0].what.contains("dana")),
        "{shared:?}"
    );
    world.signer = ca;
    world.restart().await;
    assert_eq!(world.entries(&ada).await.len(), before + 1, "only the start that worked left an entry");
    world.check().await;
}

/// The log's time never runs backwards, and a clock that is set back by what is tolerated lags behind it.
#[tokio::test]
async fn nothing_is_issued_for_a_window_that_is_over_by_the_log_and_not_by_the_clock() {
    let mut world = World::new().await;
    let alice = world.proven("alice").await;
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let view = world.service().view(&alice, &prefix(id)).await.unwrap();
    let end = view.request.grant().unwrap().window.end();
    world.clock.set(end);
    world.restart().await;
    world.proven("omar").await;
    world.clock.set(end.minus(hallpass::time::Lifetime::from_seconds(29).unwrap()).unwrap());
    let alice = world.proven("alice").await;
    let refused = world.fetch(&alice, id).await;
    assert!(matches!(&refused, Err(Failure::Unavailable(why)) if why.contains("clock")), "{refused:?}");
    assert!(world.signer.asked().is_empty());
    world.check().await;
}
