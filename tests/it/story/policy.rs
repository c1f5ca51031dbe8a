//! A policy is replaced whole, by an operator, and at once; decisions follow it (P6).

use hallpass::access::Refusal;
use hallpass::identity::{Actor, Part};
use hallpass::name::PolicyVersion;
use hallpass::note::NoteVerifier;
use hallpass::service::access::Explain;
use hallpass::service::ask::Explained;
use hallpass::service::policy::{Applied, LastRead, Reloaded};
use hallpass::service::{Failure, Outcome};
use hallpass::signer::Signer as _;
use hallpass::ssh::bundle::Bundle;
use hallpass::ssh::cert::Purpose;
use hallpass::ssh::private::SessionKey;

use crate::support::{Faulty, SERVER, World, login_key, person, policy, prefix};

async fn apply(world: &World, text: String) -> Outcome<Applied> {
    let omar = world.proven("omar").await;
    world.service().apply_policy(&omar, text, None, false).await
}

async fn from_file(world: &World, text: String, last: &mut LastRead) -> Outcome<Reloaded> {
    world.service().apply_policy_file(Actor::System(Part::Signal), text, "p.toml", last).await
}

#[tokio::test]
async fn a_file_that_nobody_edited_or_that_was_replaced_is_not_applied() {
    let world = World::new().await;
    let mut last = LastRead::of(&policy());
    let newer = policy().replace("accounts = [\"deploy\", \"debug\"]", "accounts = [\"deploy\"]");
    apply(&world, newer.clone()).await.unwrap();
    assert!(matches!(from_file(&world, policy(), &mut last).await.unwrap(), Reloaded::NotEdited));
    let replaced = from_file(&world, policy(), &mut LastRead::default()).await.unwrap();
    assert!(
        matches!(replaced, Reloaded::Replaced { old: PolicyVersion(1), in_force: PolicyVersion(2) }),
        "{replaced:?}"
    );
    assert_eq!(world.service().policy_now().1.text(), newer);
    // A broken one is tried again at the next reload.
    for _ in 0..2 {
        from_file(&world, "x".to_owned(), &mut last).await.unwrap_err();
    }
    let edited = from_file(&world, format!("{newer}# edited\n"), &mut last).await.unwrap();
    assert!(matches!(edited, Reloaded::Applied(Applied { unchanged: false, .. })), "{edited:?}");
    assert!(matches!(from_file(&world, format!("{newer}# edited\n"), &mut last).await.unwrap(), Reloaded::NotEdited));
    world.check().await;
}

#[tokio::test]
async fn what_was_approved_is_not_issued_when_policy_has_changed_its_mind() {
    let world = World::new().await;
    let (alice, bob) = (world.proven("alice").await, world.proven("bob").await);
    let id = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    world.approve(&bob, id).await.unwrap();

    let no_rule = policy().replace("hosts = [\"tag:role=web\"]", "hosts = [\"tag:role=db\"]");
    // Then carol alone is sre, so the database rule may not ask for two of them.
    let no_bob = policy().replacen("groups = [\"sre\"]", "groups = [\"dba\"]", 1).replace("need = 2", "need = 1");
    let two = policy().replace("approval = [{ need = 1,", "approval = [{ need = 2,");
    let gone = policy().replace("alice@example.com", "alicia@example.com");
    for (text, what) in [(no_rule, "rule"), (no_bob, "approver"), (two, "need"), (gone, "asker")] {
        assert_ne!(text, policy(), "{what}");
        apply(&world, text).await.unwrap();
        let refused = world.fetch(&alice, id).await;
        assert!(matches!(refused, Err(Failure::Refused(_))), "{what}: {refused:?}");
        let history = world.service().history(&world.proven("ada").await, &prefix(id)).await.unwrap();
        assert_eq!(history.last().unwrap().event.kind(), "certificate_refused", "{what}");
    }
    assert!(world.signer.asked().is_empty());
    apply(&world, policy()).await.unwrap();
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_pending_request_follows_the_policy_in_force() {
    let world = World::new().await;
    let (alice, bob, dana) = (world.proven("alice").await, world.proven("bob").await, world.proven("dana").await);
    let id = world.service().ask(&alice, world.ask(&["web-1"], "deploy")).await.unwrap().request.id();
    let unseen = world.approve(&dana, id).await;
    assert!(matches!(unseen, Err(Failure::NotFound(_))), "{unseen:?}");
    let dba = policy().replace(
        "approval = [{ need = 1, from = [\"group:sre\"] }]",
        "approval = [{ need = 1, from = [\"group:dba\"] }]",
    );
    apply(&world, dba).await.unwrap();
    let refused = world.approve(&bob, id).await;
    assert!(matches!(refused, Err(Failure::Refused(Refusal::NotEligible { .. }))), "{refused:?}");
    world.approve(&dana, id).await.unwrap();
    world.fetch(&alice, id).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn only_operators_replace_the_policy_and_readers_read_it() {
    let world = World::new().await;
    let text = policy().replace("max = \"1h\"", "max = \"50m\"");
    for name in ["alice", "bob", "ada", "eve"] {
        let by = world.proven(name).await;
        let refused = world.service().apply_policy(&by, text.clone(), None, false).await;
        assert!(matches!(refused, Err(Failure::Forbidden(_))), "{name}: {refused:?}");
        let read = world.service().show_policy(&by, None).await;
        assert_eq!(read.is_ok(), name == "ada", "{name}: {read:?}");
        assert_eq!(world.service().policy_history(&by).await.is_ok(), name == "ada");
        assert_eq!(world.service().entries(&by, 0, 10).await.is_ok(), name == "ada");
    }
    let applied = apply(&world, text.clone()).await.unwrap();
    assert_eq!((applied.version, applied.unchanged, applied.tests), (PolicyVersion(2), false, 1));
    assert!(apply(&world, text.clone()).await.unwrap().unchanged);
    let ada = world.proven("ada").await;
    let stored = world.service().show_policy(&ada, None).await.unwrap();
    assert_eq!((stored.version, stored.text, stored.by.as_str()), (PolicyVersion(2), text, "person:omar@example.com"));
    assert_eq!(world.service().show_policy(&ada, Some(PolicyVersion(1))).await.unwrap().text, policy());
    let missing = world.service().show_policy(&ada, Some(PolicyVersion(3))).await;
    assert!(matches!(missing, Err(Failure::NotFound(_))), "{missing:?}");
    world.check().await;
}

#[tokio::test]
async fn a_policy_with_problems_changes_nothing() {
    let mut world = World::new().await;
    let ca = SessionKey::generate([0xCA; 32]).public_key().to_openssh();
    let log_key = SessionKey::generate([0x10; 32]).public_key().to_openssh();
    let dana = login_key("dana").public_key().to_openssh();
    let broken = [
        String::new(),
        policy().replace("version = 1", "version = 2"),
        policy().replace("[roles]", "[rolls]"),
        policy().replace("operator = [\"group:platform\"]", "operator = []"),
        policy().replace(&dana, &ca),
        policy().replace(&dana, &log_key),
        policy().replace("expect = \"refuse\"", "expect = \"allow\""),
    ];
    for (number, text) in broken.into_iter().enumerate() {
        let failed = apply(&world, text).await;
        let Err(Failure::BadPolicy { problems, failed_tests }) = failed else { panic!("{number}: {failed:?}") };
        assert_eq!((problems.is_empty(), failed_tests.is_empty()), (number == 6, number != 6), "{number}");
        assert_eq!(world.service().policy_now().0, PolicyVersion(1));
    }
    let from_file = from_file(&world, "x".to_owned(), &mut LastRead::default()).await;
    assert!(matches!(from_file, Err(Failure::BadPolicy { .. })), "{from_file:?}");
    world.restart().await;
    assert_eq!(world.service().policy_now().0, PolicyVersion(1));
    world.check().await;
}

#[tokio::test]
async fn an_outdated_base_is_a_conflict_and_a_dry_run_writes_nothing() {
    let mut world = World::new().await;
    let omar = world.proven("omar").await;
    let text = policy().replace("accounts = [\"deploy\", \"debug\"]", "accounts = [\"deploy\"]");
    let dry = world.service().apply_policy(&omar, text.clone(), Some(PolicyVersion(1)), true).await.unwrap();
    assert_eq!((dry.version, dry.unchanged), (PolicyVersion(1), false));
    assert!(!dry.changes.is_empty());
    assert_eq!(world.service().policy_now().1.text(), policy());
    let applied = world.service().apply_policy(&omar, text.clone(), Some(PolicyVersion(1)), false).await.unwrap();
    assert_eq!((applied.version, applied.changes), (PolicyVersion(2), dry.changes));
    let late = world.service().apply_policy(&omar, policy(), Some(PolicyVersion(1)), false).await;
    assert!(matches!(late, Err(Failure::Conflict(_))), "{late:?}");
    let file = from_file(&world, format!("{}# edited\n", policy()), &mut LastRead::default()).await.unwrap();
    assert!(matches!(file, Reloaded::Applied(Applied { version: PolicyVersion(3), .. })), "{file:?}");
    world.restart().await;
    assert_eq!(world.service().policy_now().0, PolicyVersion(3));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn decisions_and_policies_that_race_leave_a_log_in_which_each_decision_follows_its_policy() {
    let world = std::sync::Arc::new(World::new().await);
    let (alice, omar) = (world.proven("alice").await, world.proven("omar").await);
    let asking: Vec<_> = (0..40)
        .map(|_| {
            let (world, alice) = (world.clone(), alice.clone());
            tokio::spawn(async move {
                let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.ok()?.request.id();
                world.fetch(&alice, id).await.ok()?;
                world.service().end(&alice, &prefix(id), String::new()).await.ok()
            })
        })
        .collect();
    for round in 0..6 {
        let max = if round % 2 == 0 { "50m" } else { "1h" };
        let text = policy().replace("max = \"1h\"", &format!("max = \"{max}\""));
        world.service().apply_policy(&omar, text, None, false).await.unwrap();
    }
    for one in asking {
        one.await.unwrap();
    }
    assert_eq!(world.service().policy_now().0, PolicyVersion(7));
    world.check().await;
}

#[tokio::test]
async fn a_first_policy_with_problems_leaves_an_empty_store_empty() {
    let mut world = World::unstarted(std::time::Duration::from_secs(30));
    let none = world.try_start(None).await;
    assert!(matches!(none, Err(Failure::Unavailable(_))), "{none:?}");
    for bad in ["nonsense".to_owned(), policy().replace("expect = \"refuse\"", "expect = \"allow\"")] {
        let failed = world.try_start(Some(&bad)).await;
        assert!(matches!(failed, Err(Failure::BadPolicy { .. })), "{failed:?}");
    }
    world.try_start(Some(&policy())).await.unwrap();
    let ada = world.proven("ada").await;
    let kinds = world
        .entries(&ada)
        .await
        .iter()
        .take(4)
        .map(|bytes| hallpass::audit::entry::Entry::parse(bytes).unwrap().event.kind().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(kinds, ["log_started", "policy_applied", "service_started", "logged_in"]);
    world.try_start(Some("a first policy is not looked at again")).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn explaining_others_is_for_readers_and_logs_nothing() {
    let world = World::new().await;
    let (alice, ada) = (world.proven("alice").await, world.proven("ada").await);
    let before = world.entries(&ada).await.len();
    let question = || {
        let ask = world.ask(&["web-1"], "deploy");
        let (targets, account, reason) = (ask.targets, ask.account, ask.reason);
        Explain { targets, account, lifetime: None, start: None, reason, ticket: None, at: None }
    };
    let Explained { version, verdict: own, eligible, shortage } =
        world.service().explain(&alice, None, question()).await.unwrap();
    assert!(!eligible.is_empty() && shortage.is_none());
    assert!(matches!(own.outcome, hallpass::policy::Outcome::Ask(..)));
    assert_eq!(version, world.service().policy_now().0);
    let others = world.service().explain(&alice, Some(person("eve")), question()).await;
    assert!(matches!(others, Err(Failure::Forbidden(_))), "{others:?}");
    let full = world.service().explain(&ada, Some(person("eve")), question()).await.unwrap().verdict;
    assert!(matches!(full.outcome, hallpass::policy::Outcome::Refuse(_)));
    let rules = |verdict: &hallpass::policy::Verdict| verdict.trace.iter().map(|host| host.rules.len()).sum::<usize>();
    assert!(rules(&full) > rules(&own), "who reads the policy sees every rule");
    assert_eq!(world.entries(&ada).await.len(), before);
}

#[tokio::test]
async fn the_trust_bundle_is_comments_and_the_one_key() {
    let world = World::new().await;
    let bundle = world.service().trust_bundle();
    let (comments, keys): (Vec<&str>, Vec<&str>) = bundle.text.lines().partition(|line| line.starts_with('#'));
    let ca = SessionKey::generate([0xCA; 32]).public_key().clone();
    assert_eq!(keys, [ca.to_openssh()]);
    let text = comments.join("\n");
    assert!(text.contains("# active since 2026") && text.contains(&ca.fingerprint().to_string()), "{text}");
    assert!(bundle.text.ends_with('\n'));
    let log_key = NoteVerifier::parse(&world.service().log_verifier()).unwrap();
    let opened = Bundle::open(&bundle.text, &log_key).unwrap();
    assert_eq!((opened.version(), opened.service(), opened.keys().len()), (bundle.version, SERVER, 1));
}

#[tokio::test]
async fn the_bundles_version_grows_when_its_keys_change_and_only_then() {
    let mut world = World::new().await;
    let first = world.service().trust_bundle();
    world.pass(60);
    world.restart().await;
    assert_eq!(world.service().trust_bundle(), first, "another start, the same keys");
    let ca = std::mem::replace(&mut world.signer, std::sync::Arc::new(Faulty::new([0xCB; 32])));
    world.accepted_ca = Some(world.signer.public_key().fingerprint());
    world.restart().await;
    let second = world.service().trust_bundle();
    assert!(second.version > first.version);
    assert!(!second.text.contains(&ca.public_key().to_openssh()), "the old key is trusted no longer");
    world.signer = ca;
    world.accepted_ca = Some(world.signer.public_key().fingerprint());
    world.restart().await;
    let third = world.service().trust_bundle();
    assert!(third.version > second.version, "back to the first key, but not to the first version");
    world.check().await;
}

#[tokio::test]
async fn the_host_key_is_in_the_ring_and_not_in_the_bundle() {
    let mut world = World::new().await;
    let user_only = world.service().trust_bundle();
    world.host_signer = Some(std::sync::Arc::new(Faulty::of([0xCC; 32], Purpose::Host)));
    world.restart().await;
    let host_ca = SessionKey::generate([0xCC; 32]).public_key().clone();
    assert_eq!(world.service().host_ca().as_ref(), Some(&host_ca));
    let bundle = world.service().trust_bundle();
    assert!(bundle.version > user_only.version && !bundle.text.contains(&host_ca.to_openssh()));
    world.check().await;

    // One key for both purposes, or one opened for the other purpose, does not start.
    world.host_signer = Some(std::sync::Arc::new(Faulty::of([0xCA; 32], Purpose::Host)));
    assert!(world.try_start(None).await.unwrap_err().to_string().contains("need a key each"));
    world.host_signer = Some(std::sync::Arc::new(Faulty::of([0xCC; 32], Purpose::User)));
    assert!(world.try_start(None).await.is_err());
}

#[tokio::test]
async fn a_policy_that_was_stored_although_the_store_said_that_it_failed_is_in_force() {
    let world = World::new().await;
    let (alice, omar) = (world.proven("alice").await, world.proven("omar").await);
    let id = world.service().ask(&alice, world.ask(&["staging-1"], "deploy")).await.unwrap().request.id();
    let tighter =
        world.service().policy_now().1.text().replace("hosts = [\"tag:role=staging\"]", "hosts = [\"web-1\"]");
    world.store_lies.store(true, std::sync::atomic::Ordering::SeqCst);
    let failed = world.service().apply_policy(&omar, tighter.clone(), None, false).await;
    assert!(matches!(failed, Err(Failure::Unavailable(_))), "{failed:?}");
    // What the log says is in force is in force.
    let fetched = world.fetch(&alice, id).await;
    assert!(matches!(fetched, Err(Failure::Refused(_))), "{fetched:?}");
    let again = world.service().apply_policy(&omar, tighter, None, false).await.unwrap();
    assert!(again.unchanged && again.version == PolicyVersion(2), "{again:?}");
    world.check().await;
}
