//! One test per rule about asking, deciding and taking back.

use std::collections::BTreeSet;

use hallpass::access::{Command, Narrowing, Refusal, RefusalKind, open};
use hallpass::name::{PersonName, PolicyVersion, RequestId};
use hallpass::policy::Question;
use hallpass::ssh::cert::Extension;
use hallpass::time::Lifetime;

use super::world::{
    AT_ONCE, NOON, NOTHING, ONE, Shape, TWO, World, at, check, hosts, key, kinds, minutes, people, person, proven,
    question,
};

/// Who approved what was granted last.
fn approvers(world: &World) -> BTreeSet<PersonName> {
    world.request.grant().unwrap().approvers.keys().cloned().collect()
}

// --- asking

#[test]
fn what_policy_allows_is_approved_at_once_with_its_window() {
    let (world, events) = World::asking(&AT_ONCE, &question(NOON)).unwrap();
    assert_eq!(kinds(&events), ["asked", "granted"]);
    assert_eq!(world.word(), "approved");
    assert_eq!(world.window(), (-30, 40 * 60));
    assert!(world.request.grant().unwrap().approvers.is_empty());
}

#[test]
fn what_policy_asks_about_waits_until_it_lapses() {
    let (mut world, events) = World::asking(&ONE, &question(NOON)).unwrap();
    assert_eq!(kinds(&events), ["asked"]);
    assert_eq!(world.word(), "pending");
    assert_eq!(world.request.next_tick(), Some(at(NOON + 1800)));
    assert_eq!(world.refused(Command::Tick, NOON + 1799), Refusal::NothingDue);
    assert_eq!(kinds(&world.step(Command::Tick, NOON + 1800)), ["lapsed"]);
    assert_eq!(world.word(), "lapsed");
}

#[test]
fn what_policy_refuses_makes_no_request() {
    let refused = World::asking(&NOTHING, &question(NOON)).unwrap_err();
    assert!(matches!(refused, Refusal::Policy { version: PolicyVersion(1), .. }), "{refused}");
    assert_eq!(refused.kind(), RefusalKind::Policy);
}

#[test]
fn nobody_asks_in_anothers_name_or_claims_to_have_held_it() {
    let (policy, id) = (check(&ONE, 1), RequestId::from_random([0; 5]));
    let refused = open(&proven("bob"), &question(NOON), key(1), &policy, id).unwrap_err();
    assert_eq!(refused.kind(), RefusalKind::Forbidden);
    let held = Question { held: minutes(1), ..question(NOON) };
    assert_eq!(open(&proven("alice"), &held, key(1), &policy, id).unwrap_err().kind(), RefusalKind::Invalid);
}

#[test]
fn a_rule_that_demands_a_checking_security_key_is_not_asked_with_another_key() {
    let strict = Shape { rule: "verify_required = true", ..ONE };
    let (policy, id) = (check(&strict, 1), RequestId::from_random([0; 5]));
    let refused = open(&proven("alice"), &question(NOON), key(1), &policy, id).unwrap_err();
    assert_eq!(refused.kind(), RefusalKind::Invalid);
    assert!(refused.to_string().contains("security key"), "{refused}");
}

#[test]
fn an_undecided_request_lapses_no_later_than_what_it_asks_for_is_over() {
    let asked = Question { start: Some(at(NOON + 600)), lifetime: Some(minutes(5)), ..question(NOON) };
    let (world, _) = World::asking(&ONE, &asked).unwrap();
    assert_eq!(world.request.next_tick(), Some(at(NOON + 900)));
}

// --- approving

#[test]
fn the_window_counts_from_the_approval_not_from_the_asking() {
    let mut world = World::asked(&ONE);
    let events = world.step(world.approve("bob"), NOON + 1000);
    assert_eq!(kinds(&events), ["approved", "granted"]);
    assert_eq!(world.window(), (970, 1000 + 40 * 60));
    assert_eq!(approvers(&world), people(&["bob"]));
}

#[test]
fn a_start_that_is_still_ahead_is_the_windows_start_and_one_that_has_passed_is_not() {
    let asked = Question { start: Some(at(NOON + 600)), ..question(NOON) };
    let (world, _) = World::asking(&ONE, &asked).unwrap();
    for (approved, window) in [(599, (600, 3000)), (600, (570, 3000)), (601, (571, 3001))] {
        let mut world = world.clone();
        world.step(world.approve("bob"), NOON + approved);
        assert_eq!(world.window(), window, "approved at {approved}");
    }
}

#[test]
fn two_people_are_two_people() {
    let mut world = World::asked(&TWO);
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON)), ["approved"]);
    assert_eq!(world.refused(world.approve("bob"), NOON), Refusal::AlreadyApproved { by: person("bob") });
    assert_eq!(world.word(), "pending");
    assert_eq!(kinds(&world.step(world.approve("carol"), NOON)), ["approved", "granted"]);
    assert_eq!(approvers(&world), people(&["bob", "carol"]));
}

#[test]
fn nobody_decides_their_own_request_even_if_the_policy_names_them() {
    let mut world = World::asked(&ONE);
    let refused = world.refused(world.approve("alice"), NOON);
    assert_eq!(refused, Refusal::OwnRequest { asker: person("alice") });
    assert_eq!(refused.kind(), RefusalKind::Forbidden);
    assert_eq!(world.refused(world.deny("alice"), NOON), refused);
    assert!(!world.request.may_decide(&person("alice"), &world.check.policy, at(NOON)));
    assert!(world.request.may_decide(&person("bob"), &world.check.policy, at(NOON)));
}

#[test]
fn who_is_not_named_by_the_policy_does_not_decide() {
    let mut world = World::asked(&ONE);
    let not = Refusal::NotEligible { person: person("dave"), version: PolicyVersion(1) };
    assert_eq!(world.refused(world.approve("dave"), NOON), not);
    assert_eq!(world.refused(world.deny("dave"), NOON), not);
    assert!(!world.request.may_decide(&person("dave"), &world.check.policy, at(NOON)));
    // An operator may stop a request, but not grant one.
    assert_eq!(world.refused(world.approve("omar"), NOON).code(), "not_eligible");
    assert_eq!(kinds(&world.step(world.deny("omar"), NOON)), ["denied"]);
}

#[test]
fn an_approval_of_something_else_than_what_waits_is_refused() {
    let mut world = World::asked(&TWO);
    let seen = world.request.digest();
    let shorter = Narrowing { lifetime: Some(minutes(10)), ..Narrowing::default() };
    world.step(world.approve_narrowed("bob", shorter), NOON);
    let refused = world.refused(world.approve_digest("carol", Narrowing::default(), seen), NOON);
    assert_eq!(refused, Refusal::DigestChanged { now: world.request.digest() });
    assert_eq!(refused.kind(), RefusalKind::Conflict);
}

#[test]
fn a_late_decision_is_refused_whether_or_not_the_clock_has_ticked() {
    let mut world = World::asked(&ONE);
    for command in [world.approve("bob"), world.deny("bob"), world.withdraw("alice"), world.certify("alice")] {
        let refused = world.refused(command, NOON + 1800);
        assert!(matches!(refused, Refusal::Over { state: "lapsed", .. }), "{refused}");
    }
    assert_eq!(world.word(), "pending", "a refusal changes nothing");
}

#[test]
fn a_repeated_approval_of_what_was_granted_is_told_apart_from_a_late_one() {
    let mut world = World::asked(&ONE);
    let (bob, carol) = (world.approve("bob"), world.approve("carol"));
    world.step(bob.clone(), NOON);
    assert_eq!(world.refused(bob, NOON + 4), Refusal::AlreadyApproved { by: person("bob") });
    let late = world.refused(carol, NOON + 4);
    assert_eq!(late.to_string(), "it is approved: bob approved it, there is nothing left to decide; `end` ends it");
}

// --- narrowing

#[test]
fn a_narrowing_takes_away_and_counts_as_an_approval_of_what_is_left() {
    let mut world = World::asked(&ONE);
    let before = world.request.digest();
    let narrow = Narrowing {
        lifetime: Some(minutes(15)),
        only: Some(hosts(&["web-2"])),
        without: BTreeSet::from([Extension::PortForwarding]),
    };
    let events = world.step(world.approve_narrowed("bob", narrow), NOON);
    assert_eq!(kinds(&events), ["narrowed", "approved", "granted"]);
    let terms = &world.request.parts().terms;
    assert_eq!(terms.hosts.keys().cloned().collect::<BTreeSet<_>>(), hosts(&["web-2"]));
    assert_eq!(terms.options.permits, BTreeSet::from([Extension::Pty]));
    assert_eq!(world.window(), (-30, 15 * 60));
    assert_ne!(world.request.digest(), before);
    assert_eq!(world.request.grant().unwrap().digest, world.request.digest());
}

#[test]
fn hosts_that_share_a_principal_are_not_narrowed_to_some_of_them() {
    let mut world = World::asked(&Shape { host: "scope = \"account\"", ..ONE });
    let narrow = Narrowing { only: Some(hosts(&["web-2"])), ..Narrowing::default() };
    let refused = world.refused(world.approve_narrowed("bob", narrow), NOON);
    assert_eq!(refused.kind(), RefusalKind::Invalid);
    assert!(refused.to_string().contains("would stay open"), "{refused}");
}

#[test]
fn a_narrowing_drops_earlier_approvals() {
    let mut world = World::asked(&TWO);
    world.step(world.approve("bob"), NOON);
    let shorter = Narrowing { lifetime: Some(minutes(10)), ..Narrowing::default() };
    assert_eq!(kinds(&world.step(world.approve_narrowed("carol", shorter), NOON)), ["narrowed", "approved"]);
    assert_eq!(world.word(), "pending", "bob approved 40 minutes, not 10");
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON)), ["approved", "granted"]);
}

#[test]
fn a_narrowing_that_takes_nothing_away_is_a_plain_approval() {
    let mut world = World::asked(&TWO);
    world.step(world.approve("bob"), NOON);
    let same = Narrowing {
        lifetime: Some(minutes(40)),
        only: Some(hosts(&["web-1", "web-2"])),
        without: BTreeSet::from([Extension::AgentForwarding]),
    };
    assert_eq!(kinds(&world.step(world.approve_narrowed("carol", same), NOON)), ["approved", "granted"]);
}

#[test]
fn nothing_is_ever_widened() {
    let mut world = World::asked(&ONE);
    let longer = Narrowing { lifetime: Some(minutes(41)), ..Narrowing::default() };
    let elsewhere = Narrowing { only: Some(hosts(&["web-1", "db-1"])), ..Narrowing::default() };
    for narrow in [longer, elsewhere] {
        let refused = world.refused(world.approve_narrowed("bob", narrow), NOON);
        assert!(matches!(refused, Refusal::WouldWiden { .. }), "{refused}");
        assert_eq!(refused.kind(), RefusalKind::Invalid);
    }
    let no_time = Narrowing { lifetime: Some(Lifetime::ZERO), ..Narrowing::default() };
    let no_host = Narrowing { only: Some(BTreeSet::new()), ..Narrowing::default() };
    for narrow in [no_time, no_host] {
        assert_eq!(world.refused(world.approve_narrowed("bob", narrow), NOON).code(), "invalid");
    }
    assert_eq!(world.word(), "pending");
}

// --- policy in between (P6)

#[test]
fn what_policy_refuses_by_now_is_not_approved_but_may_still_be_denied() {
    let mut world = World::asked(&ONE);
    world.switch(&NOTHING);
    assert_eq!(world.refused(world.approve("bob"), NOON).code(), "policy_refuses");
    assert_eq!(world.request.quorum(&world.check.policy, at(NOON)), None);
    assert_eq!(kinds(&world.step(world.deny("bob"), NOON)), ["denied"]);
}

#[test]
fn who_has_left_the_approvers_neither_approves_nor_counts() {
    let mut world = World::asked(&TWO);
    world.step(world.approve("bob"), NOON);
    world.switch(&Shape { need: 2, sre: &["carol", "dave"], ..TWO });
    assert_eq!(kinds(&world.step(world.approve("carol"), NOON)), ["approved"], "bob no longer counts");
    assert_eq!(kinds(&world.step(world.approve("dave"), NOON)), ["approved", "granted"]);
    assert_eq!(approvers(&world), people(&["carol", "dave"]));
}

#[test]
fn the_quorum_in_force_counts_not_the_one_at_asking() {
    let mut world = World::asked(&ONE);
    world.switch(&TWO);
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON)), ["approved"]);
    world.switch(&ONE);
    // One is enough by now: bob's word again changes nothing but that it is counted.
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON)), ["granted"]);
}

#[test]
fn a_policy_that_would_allow_it_at_once_leaves_a_waiting_request_to_its_approvers() {
    let mut world = World::asked(&TWO);
    world.switch(&AT_ONCE);
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON)), ["approved"]);
    assert_eq!(kinds(&world.step(world.approve("carol"), NOON)), ["approved", "granted"]);
}

#[test]
fn terms_beyond_what_policy_gives_by_now_are_not_approved() {
    let shapes = [
        Shape { rule: "permit = { pty = true }", ..ONE },
        Shape { rule: "command = \"uptime\"", ..ONE },
        Shape { rule: "sources = [\"10.0.0.0/8\"]\npermit = { pty = true, port_forwarding = true }", ..ONE },
    ];
    for shape in shapes {
        let mut world = World::asked(&ONE);
        world.switch(&shape);
        let refused = world.refused(world.approve("bob"), NOON);
        assert!(matches!(refused, Refusal::PolicyChanged { .. }), "{refused}");
    }
    let mut world = World::asked(&ONE);
    world.switch(&Shape { max: 20, ..ONE });
    assert_eq!(world.refused(world.approve("bob"), NOON).code(), "policy_refuses", "40 minutes are too long by now");
    let shorter = Narrowing { lifetime: Some(minutes(20)), ..Narrowing::default() };
    assert_eq!(kinds(&world.step(world.approve_narrowed("bob", shorter), NOON)), ["narrowed", "approved", "granted"]);
}

#[test]
fn narrower_source_addresses_stay_within_wider_ones() {
    const SOURCES: [&str; 3] = ["sources = [\"10.1.0.0/16\"]", "sources = [\"10.0.0.0/8\"]", ""];
    for (asked, now) in [(0, 0), (0, 1), (0, 2)] {
        let mut world = World::asked(&Shape { rule: SOURCES[asked], ..ONE });
        world.switch(&Shape { rule: SOURCES[now], ..ONE });
        world.step(world.approve("bob"), NOON);
    }
    for (asked, now) in [(1, 0), (2, 0), (2, 1)] {
        let mut world = World::asked(&Shape { rule: SOURCES[asked], ..ONE });
        world.switch(&Shape { rule: SOURCES[now], ..ONE });
        assert_eq!(world.refused(world.approve("bob"), NOON).code(), "policy_changed", "{asked} {now}");
    }
}

#[test]
fn a_certificate_needs_the_quorum_in_force_when_it_is_made() {
    let mut world = World::asked(&ONE);
    world.step(world.approve("bob"), NOON);
    let mut gone = world.clone();
    gone.switch(&Shape { sre: &["carol"], ..ONE });
    let refused = gone.refused(gone.certify("alice"), NOON);
    assert_eq!(refused, Refusal::QuorumNoLongerMet { version: PolicyVersion(2) });
    gone.switch(&TWO);
    assert_eq!(gone.refused(gone.certify("alice"), NOON).code(), "quorum_no_longer_met");
    gone.switch(&NOTHING);
    assert_eq!(gone.refused(gone.certify("alice"), NOON).code(), "policy_refuses");
    gone.switch(&Shape { rule: "", ..ONE });
    assert_eq!(gone.refused(gone.certify("alice"), NOON).code(), "policy_changed");
    gone.switch(&ONE);
    gone.fetch(NOON);

    let mut at_once = World::asked(&AT_ONCE);
    at_once.switch(&ONE);
    assert_eq!(at_once.refused(at_once.certify("alice"), NOON).code(), "quorum_no_longer_met");
}

// --- denying, withdrawing, ending

#[test]
fn a_denial_needs_a_reason() {
    let mut world = World::asked(&ONE);
    let deny = Command::Deny { by: proven("bob"), reason: " \t".to_owned(), check: world.check.clone() };
    assert_eq!(world.refused(deny, NOON).kind(), RefusalKind::Invalid);
    world.step(world.deny("bob"), NOON);
    let refused = world.refused(world.approve("carol"), NOON);
    assert_eq!(refused.to_string(), "it is over: bob denied it, saying \"use the replica\"; to get access, ask again");
}

#[test]
fn only_the_asker_withdraws_and_only_before_a_certificate_is_out() {
    let mut world = World::asked(&ONE);
    assert_eq!(world.refused(world.withdraw("bob"), NOON).kind(), RefusalKind::Forbidden);
    world.step(world.approve("bob"), NOON);
    let mut approved = world.clone();
    assert_eq!(kinds(&approved.step(approved.withdraw("alice"), NOON)), ["withdrawn"]);
    assert_eq!(approved.refused(approved.certify("alice"), NOON).code(), "over");
    world.fetch(NOON);
    assert_eq!(world.refused(world.withdraw("alice"), NOON).code(), "wrong_state");
}

#[test]
fn access_is_ended_by_its_asker_or_an_operator_with_a_reason() {
    let mut world = World::issued();
    assert_eq!(world.refused(world.end("bob"), NOON + 90).kind(), RefusalKind::Forbidden);
    let silent = |by: &str, is_operator| Command::End { by: proven(by), is_operator, reason: String::new() };
    assert_eq!(world.refused(silent("omar", true), NOON + 90).kind(), RefusalKind::Invalid);
    let mut given_back = world.clone();
    assert_eq!(kinds(&given_back.step(silent("alice", false), NOON + 90)), ["ended"]);
    assert_eq!(kinds(&world.step(world.end("omar"), NOON + 90)), ["ended"]);
    assert_eq!(world.refused(world.certify("alice"), NOON + 90).code(), "over");
}
