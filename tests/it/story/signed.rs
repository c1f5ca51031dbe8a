//! Approvals that are signed statements, from the approver's key to the verified export.

use std::collections::BTreeSet;

use hallpass::access::{Narrowing, Refusal};
use hallpass::audit::event::Event;
use hallpass::audit::report::{self, Demands};
use hallpass::identity::approval::SignatureRefusal;
use hallpass::name::RequestId;
use hallpass::service::Failure;
use hallpass::service::access::{Approval, Ask, View};
use hallpass::ssh::cert::Extension;
use hallpass::ssh::private::{LoginKey, SessionKey};

use super::{minutes, principals};
use crate::support::{SERVER, World, login_key, person, policy, prefix, sign_approval, signed_by};

/// A world whose policy counts signed approvals only.
async fn strict() -> World {
    let world = World::new().await;
    let omar = world.proven("omar").await;
    let signed = policy().replace("[defaults]\n", "[defaults]\nsigned_approvals = \"required\"\n");
    world.service().apply_policy(&omar, signed, None, false).await.unwrap();
    world
}

fn code(outcome: Result<View, Failure>) -> &'static str {
    match outcome {
        Err(Failure::Refused(refusal)) => refusal.code(),
        other => panic!("{other:?}"),
    }
}

fn why(outcome: Result<View, Failure>) -> SignatureRefusal {
    match outcome {
        Err(Failure::Refused(Refusal::SignatureRefused { why })) => why,
        other => panic!("{other:?}"),
    }
}

/// The world's export, and what a report says of it that demands signatures by the people's own keys.
async fn is_proven(world: &World, names: &[&str]) -> bool {
    let ada = world.proven("ada").await;
    let entries = world.entries(&ada).await;
    let (checkpoint, _) = world.service().checkpoint().await.unwrap();
    let (mut exporter, mut text) = hallpass::audit::export::Exporter::new(
        hallpass::audit::checkpoint::LogVerifier::parse(&world.service().log_verifier()).unwrap(),
    );
    for entry in entries {
        text += &exporter.entry(&entry).unwrap();
    }
    text += &exporter.finish(&checkpoint).unwrap();
    let signers: String =
        names.iter().map(|name| format!("{} {}\n", person(name), login_key(name).public_key().to_openssh())).collect();
    let demands = Demands { signed: true, signers: Some(&signers), ..Demands::default() };
    report::verify(text.as_bytes(), demands).unwrap().is_sound
}

async fn asked(world: &World, target: &str, account: &str) -> RequestId {
    let alice = world.proven("alice").await;
    world.service().ask(&alice, world.ask(&[target], account)).await.unwrap().request.id()
}

#[tokio::test]
async fn where_policy_wants_signatures_only_they_count_and_an_auditor_needs_nobodys_word() {
    let mut world = strict().await;
    let id = asked(&world, "db-1", "postgres").await;
    let (bob, carol, dana) = (world.proven("bob").await, world.proven("carol").await, world.proven("dana").await);
    assert_eq!(code(world.approve(&bob, id).await), "signature_needed");
    assert!(world.service().view(&bob, &prefix(id)).await.unwrap().may_decide, "he may, with a signature");
    world.approve_signed("bob", &bob, id).await.unwrap();
    world.restart().await;
    let waiting = world.approve_signed("dana", &dana, id).await.unwrap();
    assert_eq!(waiting.eligible, BTreeSet::from([person("carol")]));
    let view = world.approve_signed("carol", &carol, id).await.unwrap();
    assert_eq!(view.request.parts().state.word(), "approved");
    world.restart().await;
    let alice = world.proven("alice").await;
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
    assert!(is_proven(&world, &["bob", "carol", "dana"]).await);
    assert!(!is_proven(&world, &["bob", "carol"]).await, "dana's key is not known to this auditor");
}

#[tokio::test]
async fn who_approved_without_signing_is_still_asked_where_one_signature_is_missing() {
    let world = World::new().await;
    let (bob, carol, omar) = (world.proven("bob").await, world.proven("carol").await, world.proven("omar").await);
    let mixed = "[{ need = 1, from = [\"group:sre\"] }, { need = 1, from = [\"group:sre\"], signed = true }]";
    let mixed = policy().replace("[{ need = 1, from = [\"group:sre\"] }]", mixed);
    // Two needs of one group that differ in their signature alone would be one; this rule means two people.
    let mixed =
        mixed.replacen("need = 1, from = [\"group:sre\"] }", "need = 1, from = [\"group:sre\", \"group:dba\"] }", 1);
    world.service().apply_policy(&omar, mixed, None, false).await.unwrap();
    let id = asked(&world, "web-1", "deploy").await;
    world.approve(&bob, id).await.unwrap();
    let view = world.approve(&carol, id).await.unwrap();
    assert_eq!(view.request.parts().state.word(), "pending", "neither signed");
    assert!(view.may_decide && view.eligible.contains(&person("bob")), "{:?}", view.eligible);
    let view = world.approve_signed("bob", &bob, id).await.unwrap();
    assert_eq!(view.request.parts().state.word(), "approved");
    world.check().await;
}

#[tokio::test]
async fn an_unsigned_approval_is_found_by_an_auditor_who_demands_signatures() {
    let world = World::new().await;
    let id = asked(&world, "web-1", "deploy").await;
    world.approve(&world.proven("bob").await, id).await.unwrap();
    world.check().await;
    assert!(!is_proven(&world, &["bob"]).await);
}

#[tokio::test]
async fn what_is_signed_is_what_is_left_after_narrowing() {
    let world = strict().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let ask = Ask { lifetime: Some(minutes(60)), ..world.ask(&["web-1", "web-2"], "deploy") };
    let request = world.service().ask(&alice, ask).await.unwrap().request;
    let (id, digest) = (request.id(), request.digest());
    let only = BTreeSet::from([hallpass::name::HostName::parse("web-2").unwrap()]);
    let without = BTreeSet::from([Extension::PortForwarding]);
    let narrow = Narrowing { lifetime: Some(minutes(10)), only: Some(only.clone()), without };
    let shown = request.statement(bob.person(), "one is enough");
    let mut left = shown.clone();
    left.lifetime = minutes(10);
    left.hosts = only;
    left.principals.retain(|principal| principal.as_str() == "deploy@web-2");
    left.permits.remove(&Extension::PortForwarding);
    let approve = async |statement| {
        let signature = Some(signed_by("bob", statement, world.now()));
        let approval = Approval { digest, narrow: narrow.clone(), comment: "  one is enough ".to_owned(), signature };
        world.service().approve(&bob, &prefix(id), approval).await
    };
    assert!(matches!(why(approve(&shown).await), SignatureRefusal::Wrong(_)));
    approve(&left).await.unwrap();
    assert_eq!(principals(&world.fetch(&alice, id).await.unwrap()), ["deploy@web-2"]);

    world.service().extend(&alice, &prefix(id), minutes(10), String::new()).await.unwrap();
    assert_eq!(code(world.approve(&bob, id).await), "signature_needed", "more time is approved as access is");
    world.approve_signed("bob", &bob, id).await.unwrap();
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
    assert!(is_proven(&world, &["bob"]).await);
}

#[tokio::test]
async fn no_other_key_and_no_other_time_approves() {
    let world = World::new().await;
    let bob = world.proven("bob").await;
    let id = asked(&world, "web-1", "deploy").await;
    let request = world.service().view(&bob, &prefix(id)).await.unwrap().request;
    let statement = request.statement(bob.person(), "");
    let digest = request.digest();
    let approve = async |signature| {
        let approval = Approval { signature: Some(signature), ..Approval::of(digest) };
        world.service().approve(&bob, &prefix(id), approval).await
    };
    let log_key = SessionKey::generate(world.log_seed).to_openssh("").unwrap();
    let log_key = LoginKey::parse(log_key.as_bytes(), None).unwrap();
    let by_service = sign_approval(&log_key, SERVER, &statement, world.now());
    assert_eq!(why(approve(by_service).await), SignatureRefusal::ServiceKey);
    let carols = signed_by("carol", &statement, world.now());
    assert!(matches!(why(approve(carols).await), SignatureRefusal::NotTheirs { .. }));
    let now = signed_by("bob", &statement, world.now());
    world.pass(601);
    assert!(matches!(why(approve(now).await), SignatureRefusal::Stale { .. }));
    assert_eq!(world.state(id).await, "pending");
    let ada = world.proven("ada").await;
    let approvals = async || {
        let history = world.service().history(&ada, &prefix(id)).await.unwrap();
        history.iter().filter(|entry| matches!(entry.event, Event::Approved { .. })).count()
    };
    assert_eq!(approvals().await, 0, "nothing was changed");
    approve(signed_by("bob", &statement, world.now())).await.unwrap();
    assert_eq!(approvals().await, 1);
    world.check().await;
}
