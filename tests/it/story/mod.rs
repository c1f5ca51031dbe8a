//! Whole stories through the service, each ending with a check of everything: how a request lives.

mod database;
mod faults;
mod histories;
mod login;
mod nodes;
mod policy;
pub(crate) mod recovery;
mod signed;

use std::collections::BTreeSet;

use hallpass::access::{Narrowing, Refusal};
use hallpass::name::{Account, HostName, RequestId};
use hallpass::policy::RefusedKind;
use hallpass::service::Failure;
use hallpass::service::access::{Approval, Ask, ListFilter, View};
use hallpass::ssh::cert::Extension;
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Lifetime, Timestamp};

use crate::support::{Fault, World, login_key, person, prefix};

fn minutes(minutes: u32) -> Lifetime {
    Lifetime::minutes(minutes)
}

fn principals(certificate: &hallpass::ssh::cert::Certificate) -> Vec<String> {
    certificate.tbs().fields().principals.iter().map(ToString::to_string).collect()
}

fn is_not_found<T>(outcome: &Result<T, Failure>) -> bool {
    matches!(outcome, Err(Failure::NotFound("request")))
}

#[tokio::test]
async fn what_policy_allows_is_issued_at_once_for_exactly_its_window() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let view = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap();
    assert_eq!(view.request.parts().state.word(), "approved");
    assert_eq!((view.quorum, view.eligible.len(), view.may_decide), (None, 0, false));
    world.pass(60);
    let id = view.request.id();
    let certificate = world.fetch(&alice, id).await.unwrap();
    let window = certificate.tbs().fields().window;
    assert_eq!(window.to_string(), "2026-01-05T09:59:30Z to 2026-01-05T10:30:00Z");
    assert_eq!(principals(&certificate), ["deploy@staging-1"]);
    assert_eq!(certificate.tbs().fields().options.permits, BTreeSet::from([Extension::Pty]));
    assert_eq!(world.state(id).await, "issued");
    world.pass(1739);
    assert_eq!(world.state(id).await, "issued");
    assert_eq!(world.fetch(&alice, id).await.unwrap(), certificate);
    world.pass(1);
    assert_eq!(world.state(id).await, "expired");
    let late = world.fetch(&alice, id).await;
    assert!(matches!(late, Err(Failure::Refused(Refusal::Over { state: "expired", .. }))), "{late:?}");
    world.check().await;
}

#[tokio::test]
async fn what_policy_allows_is_asked_and_fetched_in_one_call() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let ask = world.ask(&["staging-1"], "deploy");
    let (view, certificate) = world.service().ask_and_fetch(&alice, ask.clone()).await.unwrap();
    let (id, certificate) = (view.request.id(), certificate.unwrap());
    assert_eq!(view.request.parts().state.word(), "issued");
    assert_eq!(view.request.grant().unwrap().certificate.as_ref().unwrap().tbs, *certificate.tbs());
    let kinds: Vec<&str> =
        world.service().history(&alice, &prefix(id)).await.unwrap().iter().map(|entry| entry.event.kind()).collect();
    assert_eq!(kinds, ["asked", "granted", "certificate_to_be_signed", "certificate_signed"]);
    assert_eq!(world.fetch(&alice, id).await.unwrap(), certificate);
    // The same again is the same request; what was lost on the way is fetched.
    let (again, none) = world.service().ask_and_fetch(&alice, ask).await.unwrap();
    assert_eq!((again.request.id(), none), (id, None));

    // Nothing to be had at once: people decide, or it begins later.
    let (asked, none) = world.service().ask_and_fetch(&alice, world.ask(&["web-1"], "deploy")).await.unwrap();
    assert_eq!((asked.request.parts().state.word(), none), ("pending", None));
    let later = Ask { start: Some(world.now().plus(minutes(60)).unwrap()), ..world.ask(&["staging-1"], "deploy") };
    let (later, none) = world.service().ask_and_fetch(&alice, later).await.unwrap();
    assert_eq!((later.request.parts().state.word(), none), ("approved", None));
    let refused = world.service().ask_and_fetch(&alice, world.ask(&["staging-1"], "root")).await;
    assert!(matches!(refused, Err(Failure::Policy(_))), "{refused:?}");
    world.check().await;
}

#[tokio::test]
async fn a_ca_key_that_does_not_sign_costs_the_certificate_and_not_the_request() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    for fault in [Fault::Fails, Fault::OtherBytes, Fault::Panics, Fault::Down] {
        world.signer.set(fault);
        let (view, none) = world.service().ask_and_fetch(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap();
        assert!(none.is_none(), "{fault:?}");
        let id = view.request.id();
        let failed = world.fetch(&alice, id).await;
        assert!(matches!(failed, Err(Failure::Unavailable(_))), "{fault:?}: {failed:?}");
        world.signer.set(Fault::None);
        world.fetch(&alice, id).await.unwrap();
    }
    world.check().await;
}

#[tokio::test]
async fn one_approval_of_somebody_else_is_needed_and_enough() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let asked = world.service().ask(&alice, world.ask(&["tag:role=web"], "debug")).await.unwrap();
    let id = asked.request.id();
    assert_eq!(asked.eligible, BTreeSet::from([person("bob"), person("carol")]));
    assert!(!asked.may_decide);
    let undecided = world.fetch(&alice, id).await;
    assert!(matches!(undecided, Err(Failure::Refused(Refusal::Undecided))), "{undecided:?}");
    let own = world.approve(&alice, id).await;
    assert!(matches!(own, Err(Failure::Refused(Refusal::OwnRequest { .. }))), "{own:?}");
    let own = world.service().deny(&alice, &prefix(id), "no".to_owned()).await;
    assert!(matches!(own, Err(Failure::Refused(Refusal::OwnRequest { .. }))), "{own:?}");

    assert!(world.service().view(&bob, &prefix(id)).await.unwrap().may_decide);
    world.pass(100);
    let view = world.approve(&bob, id).await.unwrap();
    assert_eq!((view.request.parts().state.word(), view.may_decide), ("approved", false));
    let again = world.approve(&bob, id).await;
    assert!(matches!(again, Err(Failure::Refused(_))), "{again:?}");
    world.pass(100);
    let certificate = world.fetch(&alice, id).await.unwrap();
    assert_eq!(certificate.tbs().fields().window.to_string(), "2026-01-05T10:01:10Z to 2026-01-05T10:31:40Z");
    assert_eq!(principals(&certificate), ["debug@web-1", "debug@web-2"]);
    assert_eq!(certificate.tbs().fields().options.permits, BTreeSet::from([Extension::PortForwarding, Extension::Pty]));
    world.check().await;
}

#[tokio::test]
async fn every_need_of_a_quorum_is_met_by_people_of_its_own() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let (bob, carol, dana) = (world.proven("bob").await, world.proven("carol").await, world.proven("dana").await);
    let id = world.service().ask(&alice, world.ask(&["db-1"], "postgres")).await.unwrap().request.id();
    let state = async |outcome: Result<View, Failure>| outcome.unwrap().request.parts().state.word();
    assert_eq!(state(world.approve(&bob, id).await).await, "pending");
    let twice = world.approve(&bob, id).await;
    assert!(matches!(twice, Err(Failure::Refused(Refusal::AlreadyApproved { .. }))), "{twice:?}");
    assert_eq!(state(world.approve(&dana, id).await).await, "pending");
    let eligible = world.service().view(&carol, &prefix(id)).await.unwrap().eligible;
    assert_eq!(eligible, BTreeSet::from([person("carol")]));
    assert_eq!(state(world.approve(&carol, id).await).await, "approved");
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn who_narrows_starts_approval_anew_and_nobody_widens() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let (bob, carol, dana) = (world.proven("bob").await, world.proven("carol").await, world.proven("dana").await);
    let id = world.service().ask(&alice, world.ask(&["db-1"], "postgres")).await.unwrap().request.id();
    let first = world.shown(&dana, id).await.unwrap();
    world.approve(&bob, id).await.unwrap();

    let approve = async |by, digest, narrow| {
        let approval = Approval { narrow, ..Approval::of(digest) };
        world.service().approve(by, &prefix(id), approval).await
    };
    let longer = Narrowing { lifetime: Some(minutes(59)), ..Narrowing::default() };
    let widened = approve(&carol, first, longer).await;
    assert!(matches!(widened, Err(Failure::Refused(Refusal::WouldWiden { .. }))), "{widened:?}");
    let shorter = Narrowing { lifetime: Some(minutes(10)), ..Narrowing::default() };
    let narrowed = approve(&carol, first, shorter).await.unwrap();
    assert!(narrowed.eligible.contains(&person("bob")), "bob approved something else");
    let stale = approve(&dana, first, Narrowing::default()).await;
    let now = narrowed.request.digest();
    assert!(matches!(stale, Err(Failure::Refused(Refusal::DigestChanged { now: shown })) if shown == now));
    assert_eq!(approve(&dana, now, Narrowing::default()).await.unwrap().request.parts().state.word(), "pending");
    assert_eq!(approve(&bob, now, Narrowing::default()).await.unwrap().request.parts().state.word(), "approved");
    let window = world.fetch(&alice, id).await.unwrap().tbs().fields().window;
    assert_eq!(window.to_string(), "2026-01-05T09:59:30Z to 2026-01-05T10:10:00Z");
    world.check().await;
}

#[tokio::test]
async fn an_approver_takes_away_hosts_and_extensions() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let id = world.service().ask(&alice, world.ask(&["web-1", "web-2"], "deploy")).await.unwrap().request.id();
    let narrow = Narrowing {
        lifetime: None,
        only: Some(BTreeSet::from([HostName::parse("web-2").unwrap()])),
        without: BTreeSet::from([Extension::PortForwarding]),
    };
    let digest = world.shown(&bob, id).await.unwrap();
    let approval = Approval { narrow, comment: "one is enough".to_owned(), ..Approval::of(digest) };
    world.service().approve(&bob, &prefix(id), approval).await.unwrap();
    let certificate = world.fetch(&alice, id).await.unwrap();
    assert_eq!(principals(&certificate), ["deploy@web-2"]);
    assert_eq!(certificate.tbs().fields().options.permits, BTreeSet::from([Extension::Pty]));
    world.check().await;
}

#[tokio::test]
async fn denied_withdrawn_and_lapsed_requests_stay_so() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let ask = async || world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    let (denied, withdrawn, lapsed) = (ask().await, ask().await, ask().await);
    let empty = world.service().deny(&bob, &prefix(denied), "  ".to_owned()).await;
    assert!(matches!(empty, Err(Failure::Invalid(_))), "{empty:?}");
    world.service().deny(&bob, &prefix(denied), "use the replica".to_owned()).await.unwrap();
    let theirs = world.service().withdraw(&bob, &prefix(withdrawn)).await;
    assert!(matches!(theirs, Err(Failure::Refused(Refusal::NotTheirs { .. }))), "{theirs:?}");
    world.service().withdraw(&alice, &prefix(withdrawn)).await.unwrap();
    world.pass(1799);
    assert_eq!(world.service().tick().await.unwrap(), 0);
    world.pass(1);
    assert_eq!(world.state(lapsed).await, "lapsed", "shown before it is saved");
    let late = world.approve(&bob, lapsed).await;
    assert!(matches!(late, Err(Failure::Refused(Refusal::Over { state: "lapsed", .. }))), "{late:?}");
    assert_eq!(world.service().tick().await.unwrap(), 1);
    for (id, word) in [(denied, "denied"), (withdrawn, "withdrawn"), (lapsed, "lapsed")] {
        for outcome in [world.approve(&bob, id).await.map(|_| ()), world.fetch(&alice, id).await.map(|_| ())] {
            assert!(
                matches!(&outcome, Err(Failure::Refused(Refusal::Over { state, .. })) if *state == word),
                "{outcome:?}"
            );
        }
        assert_eq!(world.state(id).await, word);
    }
    world.check().await;
}

#[tokio::test]
async fn an_extension_is_approved_anew_and_has_its_own_certificate_up_to_the_total() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let ask = Ask { lifetime: Some(minutes(60)), ..world.ask(&["web-1"], "deploy") };
    let id = world.service().ask(&alice, ask).await.unwrap().request.id();
    let extend = async |time| world.service().extend(&alice, &prefix(id), time, "INC-1 not done yet".to_owned()).await;
    let early = extend(minutes(10)).await;
    assert!(matches!(early, Err(Failure::Refused(Refusal::Undecided))), "{early:?}");
    world.approve(&bob, id).await.unwrap();
    let first = world.fetch(&alice, id).await.unwrap();
    world.pass(1800);
    let waiting = extend(minutes(60)).await.unwrap();
    assert_eq!(waiting.eligible, BTreeSet::from([person("bob"), person("carol")]));
    assert_eq!(world.fetch(&alice, id).await.unwrap(), first, "the first certificate stays until there is more");
    let inbox = ListFilter { inbox: true, ..ListFilter::default() };
    assert_eq!(world.service().list(&bob, inbox.clone()).await.unwrap().len(), 1);
    world.approve(&bob, id).await.unwrap();
    assert!(world.service().list(&bob, inbox).await.unwrap().is_empty());
    let second = world.fetch(&alice, id).await.unwrap();
    let (before, after) = (first.tbs().fields(), second.tbs().fields());
    assert!(after.serial > before.serial);
    assert_eq!(after.window.end(), before.window.end().plus(minutes(60)).unwrap());
    assert_eq!(first.tbs().subject(), second.tbs().subject());
    let more = extend(minutes(1)).await;
    assert!(matches!(&more, Err(Failure::Refused(Refusal::Policy { .. }))), "two hours in total: {more:?}");
    world.pass(5400);
    assert_eq!(world.state(id).await, "expired");
    world.check().await;
}

#[tokio::test]
async fn access_is_given_back_by_its_asker_or_ended_by_an_operator_with_a_reason() {
    let world = World::new().await;
    let (alice, bob, omar) = (world.proven("alice").await, world.proven("bob").await, world.proven("omar").await);
    let ask = async || world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let (own, other) = (ask().await, ask().await);
    world.fetch(&alice, own).await.unwrap();
    world.service().end(&alice, &prefix(own), String::new()).await.unwrap();
    let unseen = world.service().end(&bob, &prefix(other), "why not".to_owned()).await;
    assert!(is_not_found(&unseen), "{unseen:?}");
    let unsaid = world.service().end(&omar, &prefix(other), String::new()).await;
    assert!(matches!(unsaid, Err(Failure::Refused(Refusal::Invalid { .. }))), "{unsaid:?}");
    world.service().end(&omar, &prefix(other), "incident over".to_owned()).await.unwrap();
    for id in [own, other] {
        let after = world.fetch(&alice, id).await;
        assert!(matches!(after, Err(Failure::Refused(Refusal::Over { state: "ended", .. }))), "{after:?}");
    }
    world.check().await;
}

#[tokio::test]
async fn what_somebody_may_not_see_does_not_exist_for_them() {
    let world = World::new().await;
    let (alice, eve) = (world.proven("alice").await, world.proven("eve").await);
    let (ada, omar) = (world.proven("ada").await, world.proven("omar").await);
    let id = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    let digest = world.shown(&alice, id).await.unwrap();
    let (service, absent) = (world.service(), RequestId::from_random([7; 5]));
    for id in [id, absent].map(prefix) {
        assert!(is_not_found(&service.view(&eve, &id).await));
        assert!(is_not_found(&service.history(&eve, &id).await));
        assert!(is_not_found(&service.approve(&eve, &id, Approval::of(digest)).await));
        assert!(is_not_found(&service.deny(&eve, &id, "no".to_owned()).await));
        assert!(is_not_found(&service.withdraw(&eve, &id).await));
        assert!(is_not_found(&service.extend(&eve, &id, minutes(1), "more".to_owned()).await));
        assert!(is_not_found(&service.end(&eve, &id, "stop".to_owned()).await));
        assert!(is_not_found(&service.certificate(&eve, &id).await));
    }
    assert!(service.list(&eve, ListFilter::default()).await.unwrap().is_empty());
    for reader in [&ada, &omar] {
        assert_eq!(service.list(reader, ListFilter::default()).await.unwrap().len(), 1);
        assert_eq!(service.history(reader, &prefix(id)).await.unwrap().len(), 1);
        let fetched = service.certificate(reader, &prefix(id)).await;
        assert!(matches!(fetched, Err(Failure::Refused(Refusal::NotTheirs { .. }))), "{fetched:?}");
        let approved = world.approve(reader, id).await;
        assert!(matches!(approved, Err(Failure::Refused(Refusal::NotEligible { .. }))), "{approved:?}");
    }
    world.check().await;
}

#[tokio::test]
async fn any_unique_prefix_names_a_request_among_those_the_caller_sees() {
    let world = World::new().await;
    let (alice, eve) = (world.proven("alice").await, world.proven("eve").await);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id());
    }
    let start = |text: &str| hallpass::name::RequestPrefix::parse(text).unwrap();
    for first in ids.iter().map(|id| id.digits().chars().next().unwrap().to_string()) {
        let fits: Vec<RequestId> = ids.iter().filter(|id| id.digits().starts_with(&first)).copied().collect();
        match (world.service().view(&alice, &start(&first)).await, fits.as_slice()) {
            (Ok(view), [only]) => assert_eq!(view.request.id(), *only),
            (Err(Failure::Ambiguous(found)), [_, _, ..]) => {
                assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), fits.into_iter().collect());
            }
            (other, _) => panic!("{first}: {other:?}"),
        }
        assert!(is_not_found(&world.service().view(&eve, &start(&first)).await));
    }
    world.check().await;
}

#[tokio::test]
async fn a_retried_ask_gives_the_same_request_and_a_key_serves_one_request() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let ask = world.ask(&["web-1", "web-2"], "deploy");
    let id = world.service().ask(&alice, ask.clone()).await.unwrap().request.id();
    assert_eq!(world.service().ask(&alice, ask.clone()).await.unwrap().request.id(), id);
    let narrow = Narrowing { only: Some(BTreeSet::from([HostName::parse("web-1").unwrap()])), ..Narrowing::default() };
    let digest = world.shown(&bob, id).await.unwrap();
    let approval = Approval { narrow, ..Approval::of(digest) };
    world.service().approve(&bob, &prefix(id), approval).await.unwrap();
    let again = world.service().ask(&alice, ask.clone()).await.unwrap();
    assert_eq!((again.request.id(), again.request.parts().state.word()), (id, "approved"), "also when narrowed");
    for other in [
        Ask { reason: "INC-2 another reason".to_owned(), ..ask.clone() },
        Ask { account: Some(Account::parse("debug").unwrap()), ..ask.clone() },
        Ask { lifetime: Some(minutes(5)), ..ask.clone() },
        Ask { targets: world.ask(&["web-1"], "deploy").targets, ..ask.clone() },
    ] {
        let refused = world.service().ask(&alice, other).await;
        assert!(matches!(&refused, Err(Failure::Invalid(why)) if why.contains(&id.to_string())), "{refused:?}");
    }
    world.service().end(&alice, &prefix(id), String::new()).await.unwrap();
    assert_ne!(world.service().ask(&alice, ask).await.unwrap().request.id(), id, "what is over has given its key back");
    world.check().await;
}

#[tokio::test]
async fn keys_of_the_service_and_of_other_people_are_not_certified() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let log_key = SessionKey::generate([0x10; 32]).public_key().clone();
    let ca = SessionKey::generate([0xCA; 32]).public_key().clone();
    for key in [ca, log_key, login_key("bob").public_key().clone()] {
        let refused = world.service().ask(&alice, Ask { key, ..world.ask(&["staging-1"], "deploy") }).await;
        assert!(matches!(refused, Err(Failure::Invalid(_))), "{refused:?}");
    }
    let own = Ask { key: login_key("alice").public_key().clone(), ..world.ask(&["staging-1"], "deploy") };
    world.service().ask(&alice, own).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn open_requests_are_limited_and_ended_ones_do_not_count() {
    let world = World::new().await;
    let alice = world.proven("alice").await;
    let ask = async || world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await;
    let first = ask().await.unwrap().request.id();
    for _ in 1..5 {
        ask().await.unwrap();
    }
    assert!(matches!(ask().await, Err(Failure::TooMany(_))));
    world.service().end(&alice, &prefix(first), String::new()).await.unwrap();
    ask().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn whoever_is_refused_again_and_again_does_not_fill_the_log() {
    let world = World::new().await;
    let (eve, ada) = (world.proven("eve").await, world.proven("ada").await);
    let before = world.entries(&ada).await.len();
    let mut refused = 0;
    let why = loop {
        match world.service().ask(&eve, world.ask(&["web-1"], "deploy")).await {
            Err(Failure::Policy(_)) => refused += 1,
            other => break other,
        }
    };
    assert!(matches!(&why, Err(Failure::TooMany(why)) if why.contains("in this hour")), "{why:?}");
    assert_eq!((refused, world.entries(&ada).await.len()), (120, before + 120));
    let alice = world.proven("alice").await;
    assert!(matches!(world.service().ask(&alice, world.ask(&["web-1"], "root")).await, Err(Failure::Policy(_))));
    world.pass(3_600);
    let eve = world.proven("eve").await;
    assert!(matches!(world.service().ask(&eve, world.ask(&["web-1"], "deploy")).await, Err(Failure::Policy(_))));
}

#[tokio::test]
async fn a_refused_ask_is_logged_and_makes_no_request() {
    let world = World::new().await;
    let (alice, eve, ada) = (world.proven("alice").await, world.proven("eve").await, world.proven("ada").await);
    let before = world.entries(&ada).await.len();
    for (who, targets, account, kind) in [
        (&alice, "web-1", "root", RefusedKind::Rule),
        (&eve, "web-1", "deploy", RefusedKind::NoRule),
        (&alice, "nowhere", "deploy", RefusedKind::Unknown),
    ] {
        let refused = world.service().ask(who, world.ask(&[targets], account)).await;
        let Err(Failure::Policy(verdict)) = refused else { panic!("{targets} {account}: {refused:?}") };
        let hallpass::policy::Outcome::Refuse(why) = verdict.outcome else { panic!("{verdict:?}") };
        assert_eq!(why[0].kind, kind, "{why:?}");
    }
    let short = Ask { reason: "short".to_owned(), ..world.ask(&["web-1"], "deploy") };
    assert!(matches!(world.service().ask(&alice, short).await, Err(Failure::Policy(_))));
    assert_eq!(world.entries(&ada).await.len(), before + 4);
    for bad in ["INC-1 \u{202e}reversed", "INC-1\nok: approved", "INC-1 \u{1b}[2J cleared", "INC-1 \u{200b}hidden"] {
        let refused =
            world.service().ask(&alice, Ask { reason: bad.to_owned(), ..world.ask(&["web-1"], "deploy") }).await;
        assert!(matches!(refused, Err(Failure::Invalid(_))), "{refused:?}");
    }
    assert_eq!(world.entries(&ada).await.len(), before + 4, "what makes no sense is not logged");
    world.check().await;
}

#[tokio::test]
async fn a_missing_account_is_the_only_possible_one_or_an_error_that_names_them() {
    let world = World::new().await;
    let (alice, eve) = (world.proven("alice").await, world.proven("eve").await);
    let ask = |targets| Ask { account: None, ..world.ask(targets, "x") };
    let view = world.service().ask(&alice, ask(&["db-1"])).await.unwrap();
    assert_eq!(view.request.parts().terms.account.as_str(), "postgres");
    let several = world.service().ask(&alice, ask(&["web-1"])).await;
    assert!(
        matches!(&several, Err(failure @ Failure::Account(_)) if failure.to_string().contains("debug, deploy")),
        "{several:?}"
    );
    let none = world.service().ask(&eve, ask(&["db-1"])).await;
    assert!(matches!(none, Err(Failure::Policy(_))), "{none:?}");
    let nothing = world.service().ask(&alice, ask(&[])).await;
    assert!(matches!(nothing, Err(Failure::Invalid(_))), "{nothing:?}");
    let untagged = world.service().ask(&alice, ask(&["tag:role=none"])).await;
    assert!(matches!(untagged, Err(Failure::Invalid(_))), "{untagged:?}");
    world.check().await;
}

#[tokio::test]
async fn a_start_that_was_asked_for_begins_the_window_to_the_second() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let start = Timestamp::parse("2026-01-05T12:00:00Z").unwrap();
    let asked = Ask { start: Some(start), ..world.ask(&["web-1"], "deploy") };
    let id = world.service().ask(&alice, asked).await.unwrap().request.id();
    world.approve(&bob, id).await.unwrap();
    let early = world.fetch(&alice, id).await;
    assert!(matches!(early, Err(Failure::Refused(Refusal::NotYet { .. }))), "{early:?}");
    world.pass(u32::try_from(start.seconds_since(world.now())).unwrap());
    let certificate = world.fetch(&alice, id).await.unwrap();
    assert_eq!(certificate.tbs().fields().window.to_string(), "2026-01-05T12:00:00Z to 2026-01-05T12:30:00Z");
    world.check().await;
}

#[tokio::test]
async fn changes_are_told_to_those_who_wait() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let mut changes = world.service().changes();
    let id = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    assert_eq!(changes.try_recv().unwrap(), id);
    world.approve(&bob, id).await.unwrap();
    assert_eq!(changes.try_recv().unwrap(), id);
    assert!(changes.try_recv().is_err());
    world.pass(1800);
    world.service().tick().await.unwrap();
    assert_eq!(changes.try_recv().unwrap(), id);
}

#[tokio::test]
async fn a_list_is_cut_to_what_was_asked_for() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let web = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    world.pass(1);
    let staging = world.service().ask(&bob, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let list = async |by, filter: ListFilter| -> Vec<RequestId> {
        world.service().list(by, filter).await.unwrap().iter().map(|view| view.request.id()).collect()
    };
    let all = ListFilter::default;
    assert_eq!(list(&bob, all()).await, [staging, web], "newest first");
    assert_eq!(list(&alice, all()).await, [web], "staging needs nobody, so it is bob's alone");
    assert_eq!(list(&bob, ListFilter { mine: true, ..all() }).await, [staging]);
    assert_eq!(list(&bob, ListFilter { inbox: true, ..all() }).await, [web]);
    assert_eq!(list(&bob, ListFilter { limit: 1, ..all() }).await, [staging]);
    assert_eq!(list(&bob, ListFilter { states: BTreeSet::from(["pending"]), ..all() }).await, [web]);
    assert_eq!(list(&bob, ListFilter { host: Some(HostName::parse("web-1").unwrap()), ..all() }).await, [web]);
    assert_eq!(list(&bob, ListFilter { person: Some(person("alice")), ..all() }).await, [web]);
    assert_eq!(list(&bob, ListFilter { mine: true, person: Some(person("alice")), ..all() }).await, []);
    assert_eq!(list(&bob, ListFilter { since: Some(world.now()), ..all() }).await, [staging]);
    world.pass(1799);
    assert_eq!(list(&bob, ListFilter { inbox: true, ..all() }).await, [], "it has lapsed, saved or not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_parallel_approvals_and_fetches_yield_one_serial() {
    let world = std::sync::Arc::new(World::new().await);
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let id = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    let digest = world.shown(&bob, id).await.unwrap();
    let approving = (0..100).map(|_| {
        let (world, bob) = (world.clone(), bob.clone());
        tokio::spawn(async move {
            let none = Narrowing::default();
            world.service().approve(&bob, &prefix(id), Approval { narrow: none, ..Approval::of(digest) }).await.is_ok()
        })
    });
    let fetching = (0..100).map(|_| {
        let (world, alice) = (world.clone(), alice.clone());
        tokio::spawn(async move {
            loop {
                match world.fetch(&alice, id).await {
                    Ok(certificate) => return certificate,
                    Err(Failure::Refused(Refusal::Undecided)) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    });
    let (fetching, approving): (Vec<_>, Vec<_>) = (fetching.collect(), approving.collect());
    let mut approved = 0;
    for one in approving {
        approved += usize::from(one.await.unwrap());
    }
    assert_eq!(approved, 1, "one approval counts");
    let mut blobs = BTreeSet::new();
    for one in fetching {
        blobs.insert(one.await.unwrap().blob().to_vec());
    }
    assert_eq!(blobs.len(), 1);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_retries_of_one_ask_make_one_request() {
    let world = std::sync::Arc::new(World::new().await);
    let alice = world.proven("alice").await;
    let ask = world.ask(&["web-1"], "deploy");
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (world, alice, ask) = (world.clone(), alice.clone(), ask.clone());
            tokio::spawn(async move { world.service().ask(&alice, ask).await.unwrap().request.id() })
        })
        .collect();
    let mut ids = BTreeSet::new();
    for one in asking {
        ids.insert(one.await.unwrap());
    }
    assert_eq!(ids.len(), 1);
    world.check().await;
}
