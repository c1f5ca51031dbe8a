//! One test per rule about what was granted: certificates and extensions.

use hallpass::access::digest::digest;
use hallpass::access::{Command, Narrowing, Refusal, RefusalKind};
use hallpass::audit::event::Event;
use hallpass::keyring::Ca;
use hallpass::name::{CaName, PolicyVersion, Serial};
use hallpass::policy::Question;
use hallpass::ssh::cert::{Extension, TbsCert};

use crate::support::fixtures::signs_for;

use super::world::{AT_ONCE, BOUND, NOON, ONE, Shape, World, are_bound, at, hosts, key, kinds, minutes, question};

#[test]
fn the_certificate_says_exactly_what_was_approved() {
    let mut world = World::asked(&ONE);
    let shorter = Narrowing { lifetime: Some(minutes(15)), only: Some(hosts(&["web-2"])), ..Narrowing::default() };
    world.step(world.approve_narrowed("bob", shorter), NOON + 60);
    let taken = world.try_step(world.certify("alice"), NOON + 90).unwrap();
    assert!(taken.events.is_empty(), "the entry comes from the permit");
    let event = world.use_permit(&taken.permit.unwrap());

    let grant = world.request.grant().unwrap();
    let certified = grant.certificate.as_ref().unwrap();
    let fields = certified.tbs.fields();
    assert_eq!(fields.window, grant.window, "to the second");
    assert_eq!(world.window(), (30, 60 + 15 * 60));
    assert_eq!(fields.principals.iter().map(ToString::to_string).collect::<Vec<_>>(), ["deploy@web-2"]);
    assert_eq!(fields.key_id.as_str(), format!("hallpass/{}/alice", world.request.id().digits()));
    assert_eq!(fields.options, world.request.parts().terms.options);
    assert_eq!(certified.tbs.subject(), &key(99));
    let Event::CertificateToBeSigned { serial, tbs, window, policy, .. } = event else { panic!("{event:?}") };
    assert_eq!((serial, tbs, window), (certified.serial, certified.tbs.bytes().to_vec(), grant.window));
    assert_eq!(policy, PolicyVersion(1));
    assert_eq!(world.word(), "issued");
}

#[test]
fn a_permit_for_hosts_of_one_ca_is_nothing_to_the_key_of_another() {
    let mut world = World::asked(&ONE);
    world.step(world.approve("bob"), NOON + 60);
    let permit = world.try_step(world.certify("alice"), NOON + 90).unwrap().permit.unwrap();
    let prod = CaName::parse("prod").unwrap();
    for ca in [Ca::User(prod.clone()), Ca::Host] {
        let refused = permit.to_be_signed(Serial::new(7).unwrap(), &signs_for(&ca), [5; 32]).unwrap_err();
        assert!(refused.to_string().contains("of another CA"), "{refused}");
    }
    assert!(permit.to_be_signed(Serial::new(7).unwrap(), &signs_for(&Ca::USER), [5; 32]).is_ok());
    // And what is approved names the CA: a row that says another one is another request.
    let mut parts = world.request.parts().clone();
    let approved = digest(&parts);
    parts.terms.ca = prod;
    assert_ne!(digest(&parts), approved);
}

#[test]
fn fetching_again_permits_nothing_new_and_writes_nothing() {
    let mut world = World::issued();
    let before = world.request.clone();
    let taken = world.try_step(world.certify("alice"), NOON + 120).unwrap();
    assert!(taken.permit.is_none() && taken.events.is_empty());
    assert_eq!(taken.request, before);
}

#[test]
fn only_the_asker_fetches_and_only_before_the_end() {
    let mut world = World::issued();
    assert_eq!(world.refused(world.certify("bob"), NOON + 90).kind(), RefusalKind::Forbidden);
    let end = NOON + 60 + 40 * 60;
    world.fetch(end - 1);
    assert_eq!(world.refused(world.certify("alice"), end).code(), "over");
    assert_eq!(kinds(&world.step(Command::Tick, end)), ["expired"]);
}

#[test]
fn a_request_that_is_not_decided_has_no_certificate() {
    let mut world = World::asked(&ONE);
    assert_eq!(world.refused(world.certify("alice"), NOON), Refusal::Undecided);
}

#[test]
fn an_extension_moves_the_end_once_it_is_approved_and_yields_another_certificate() {
    let mut world = World::issued();
    let first = world.request.digest();
    assert_eq!(kinds(&world.step(world.extend("alice", minutes(20)), NOON + 600)), ["extension_asked"]);
    assert_eq!((world.word(), world.window()), ("issued", (30, 60 + 40 * 60)));
    assert_ne!(world.request.digest(), first, "what waits has a digest of its own");
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON + 700)), ["approved", "granted"]);
    assert_eq!((world.word(), world.window()), ("issued", (670, 60 + 60 * 60)));
    world.fetch(NOON + 700);
    let serials: Vec<u64> =
        world.request.parts().grants.iter().map(|grant| grant.certificate.as_ref().unwrap().serial.number()).collect();
    assert_eq!(serials, [1, 2]);
}

#[test]
fn an_extension_that_policy_allows_at_once_needs_nobody() {
    let mut world = World::asked(&AT_ONCE);
    world.fetch(NOON);
    assert_eq!(kinds(&world.step(world.extend("alice", minutes(20)), NOON + 10)), ["extension_asked", "granted"]);
    assert_eq!(world.window(), (-20, 60 * 60));
    let refused = world.refused(world.extend("alice", minutes(20)), NOON + 10);
    assert_eq!(refused.code(), "wrong_state", "{refused}");
}

#[test]
fn an_extension_is_bound_as_what_it_extends_is() {
    for loosened in [BOUND, ONE] {
        let mut world = World::issued_under(&BOUND);
        world.step(world.extend("alice", minutes(20)), NOON + 600);
        // A policy that gives more by now gives no more to what was asked before.
        world.switch(&loosened);
        world.step(world.approve("carol"), NOON + 700);
        world.fetch(NOON + 700);
        let grants = &world.request.parts().grants;
        let certified: Vec<_> = grants.iter().map(|grant| grant.certificate.as_ref().unwrap()).collect();
        assert_eq!(certified.iter().map(|one| one.serial.number()).collect::<Vec<_>>(), [1, 2]);
        for one in certified {
            // As another reader finds them in the bytes that are signed.
            let read = TbsCert::parse(one.tbs.bytes()).unwrap();
            let options = &read.fields().options;
            assert!(are_bound(options), "{options:?}");
            assert_eq!(options, &world.request.parts().terms.options);
            assert_eq!(options.permits, [Extension::PortForwarding, Extension::Pty].into());
            for name in ["force-command", "source-address", "verify-required"] {
                assert!(one.tbs.bytes().windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{name}");
            }
        }
    }
}

#[test]
fn what_is_less_bound_than_policy_now_demands_is_not_extended() {
    let mut world = World::issued();
    world.switch(&BOUND);
    assert_eq!(world.refused(world.extend("alice", minutes(20)), NOON + 600).code(), "policy_changed");
    world.switch(&ONE);
    world.step(world.extend("alice", minutes(20)), NOON + 600);
    world.step(world.approve("bob"), NOON + 600);
    world.switch(&BOUND);
    assert_eq!(world.refused(world.certify("alice"), NOON + 600).code(), "policy_changed");
}

#[test]
fn an_extension_counts_against_the_total_from_the_first_approval() {
    let mut world = World::issued();
    world.step(world.extend("alice", minutes(60)), NOON + 600);
    world.step(world.approve("bob"), NOON + 600);
    world.fetch(NOON + 600);
    let refused = world.refused(world.extend("alice", minutes(21)), NOON + 600);
    assert_eq!(refused.code(), "policy_refuses", "100 of 120 minutes are used");
    world.step(world.extend("alice", minutes(20)), NOON + 600);
}

#[test]
fn an_extension_beyond_a_total_that_has_shrunk_since_yields_no_certificate() {
    let mut world = World::issued();
    world.step(world.extend("alice", minutes(60)), NOON + 600);
    world.step(world.approve("bob"), NOON + 600);
    world.switch(&Shape { total: 99, ..ONE });
    assert_eq!(world.refused(world.certify("alice"), NOON + 600).code(), "policy_refuses", "100 minutes were granted");
    world.switch(&Shape { total: 100, ..ONE });
    world.fetch(NOON + 600);
}

#[test]
fn an_extension_is_asked_by_the_asker_one_at_a_time_and_only_for_what_was_fetched() {
    let mut world = World::asked(&ONE);
    assert_eq!(world.refused(world.extend("alice", minutes(5)), NOON), Refusal::Undecided);
    world.step(world.approve("bob"), NOON);
    assert_eq!(world.refused(world.extend("alice", minutes(5)), NOON).code(), "wrong_state");
    world.fetch(NOON);
    assert_eq!(world.refused(world.extend("bob", minutes(5)), NOON).kind(), RefusalKind::Forbidden);
    world.step(world.extend("alice", minutes(5)), NOON);
    assert_eq!(world.refused(world.extend("alice", minutes(5)), NOON).code(), "wrong_state");
    assert_eq!(world.refused(world.extend("alice", minutes(5)), NOON + 40 * 60).code(), "over");
}

#[test]
fn a_waiting_extension_can_be_denied_withdrawn_or_lapse_and_the_access_stays() {
    let mut world = World::issued();
    world.step(world.extend("alice", minutes(20)), NOON + 600);
    for command in [world.deny("bob"), world.withdraw("alice")] {
        let mut world = world.clone();
        let events = world.step(command, NOON + 601);
        assert!(matches!(
            &events[..],
            [Event::Denied { extension: true, .. } | Event::Withdrawn { extension: true, .. }]
        ));
        assert_eq!((world.word(), &world.request.parts().extension), ("issued", &None));
        world.step(world.extend("alice", minutes(20)), NOON + 602);
    }
    assert_eq!(world.request.next_tick(), Some(at(NOON + 600 + 1800)));
    assert_eq!(world.refused(world.approve("bob"), NOON + 2400).code(), "wrong_state", "too late");
    let events = world.step(world.extend("alice", minutes(20)), NOON + 2400);
    assert_eq!(kinds(&events), ["lapsed", "extension_asked"], "the lapsed one makes room");
    assert_eq!(world.request.next_tick(), Some(at(NOON + 2460)), "waits no longer than what it extends");
    assert_eq!(kinds(&world.step(Command::Tick, NOON + 2460)), ["lapsed", "expired"]);
}

#[test]
fn an_extension_is_narrowed_in_time_only() {
    let mut world = World::issued();
    world.step(world.extend("alice", minutes(20)), NOON + 600);
    let fewer = Narrowing { only: Some(hosts(&["web-1"])), ..Narrowing::default() };
    assert_eq!(world.refused(world.approve_narrowed("bob", fewer), NOON + 600).code(), "invalid");
    let longer = Narrowing { lifetime: Some(minutes(21)), ..Narrowing::default() };
    assert_eq!(world.refused(world.approve_narrowed("bob", longer), NOON + 600).code(), "would_widen");
    let shorter = Narrowing { lifetime: Some(minutes(7)), ..Narrowing::default() };
    assert_eq!(
        kinds(&world.step(world.approve_narrowed("bob", shorter), NOON + 600)),
        ["narrowed", "approved", "granted"]
    );
    assert_eq!(world.window(), (570, 60 + 47 * 60));
    assert_eq!(world.request.parts().terms.lifetime, minutes(40), "what was approved first stays as it was");
}

#[test]
fn fetching_while_an_extension_waits_gives_the_certificate_there_is() {
    let mut world = World::issued();
    world.step(world.extend("alice", minutes(60)), NOON + 600);
    // The extension alone would not be allowed any more; what was granted still is.
    world.switch(&Shape { max: 40, ..ONE });
    assert!(world.try_step(world.certify("alice"), NOON + 700).unwrap().permit.is_none());
    // Even when it has lapsed and the clock has not ticked yet, fetching writes nothing.
    assert!(world.try_step(world.certify("alice"), NOON + 2401).unwrap().events.is_empty());
}

#[test]
fn what_begins_later_is_certified_then_and_not_before() {
    let asked = Question { start: Some(at(NOON + 600)), ..question(NOON) };
    let (mut world, _) = World::asking(&AT_ONCE, &asked).unwrap();
    assert_eq!(world.refused(world.certify("alice"), NOON + 599), Refusal::NotYet { from: at(NOON + 600) });
    let ended = {
        world.step(world.end("alice"), NOON + 599);
        world.refused(world.certify("alice"), NOON + 600)
    };
    assert_eq!(ended.code(), "over", "what is ended before it begins was never certified");
    let (mut world, _) = World::asking(&AT_ONCE, &asked).unwrap();
    assert!(world.try_step(world.certify("alice"), NOON + 600).unwrap().permit.is_some());
}

#[test]
fn an_extension_does_not_begin_before_what_it_extends() {
    let asked = Question { start: Some(at(NOON + 600)), ..question(NOON) };
    let (mut world, _) = World::asking(&AT_ONCE, &asked).unwrap();
    assert_eq!(world.refused(world.extend("alice", minutes(20)), NOON + 10).code(), "wrong_state");
    world.fetch(NOON + 600);
    world.step(world.extend("alice", minutes(20)), NOON + 610);
    assert_eq!(world.window(), (600, 600 + 60 * 60));
}

#[test]
fn an_extension_approved_by_who_no_longer_counts_yields_no_certificate() {
    let mut world = World::issued();
    world.step(world.extend("alice", minutes(20)), NOON + 600);
    world.step(world.approve("bob"), NOON + 600);
    world.switch(&Shape { sre: &["carol"], ..ONE });
    assert_eq!(world.refused(world.certify("alice"), NOON + 600).code(), "quorum_no_longer_met");
}

#[test]
fn times_beyond_what_can_be_represented_are_refused() {
    let mut world = World::asked(&ONE);
    assert_eq!(world.refused(world.approve("bob"), 29).code(), "invalid", "backdating would start before 1970");
}
