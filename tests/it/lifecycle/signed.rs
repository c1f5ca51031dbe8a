//! Approvals that are signed statements: whose signature counts, on what, for how long, and where policy wants one.

use std::collections::BTreeSet;

use hallpass::access::{Command, Narrowing, Refusal, RefusalKind, Signed};
use hallpass::audit::event::Event;
use hallpass::identity::approval::{Signature, SignatureRefusal, Statement};
use hallpass::name::{Account, HostName, Principal};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::Extension;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::{APPROVAL_NAMESPACE, LOGIN_NAMESPACE, SigError, SshSignature};
use hallpass::time::Lifetime;
use proptest::prelude::*;

use super::world::{NOON, ONE, Shape, TWO, World, at, hosts, key, kinds, minutes, person};

const SERVER: &str = "https://pass.example.com";

/// The seeds of the login keys in the policy of these tests.
const BOB: u8 = 11;
const CAROL: u8 = 12;

/// The key of a CA, which a policy should not list.
const CA: u8 = 77;

/// One of `sre` must agree, and sign.
const SIGNED: Shape = Shape { approval: ", signed = true", ..ONE };

/// Both of them must, and one rule wants it for both.
const BOTH_SIGNED: Shape = Shape { approval: ", signed = true", ..TWO };

fn login_key(seed: u8) -> LoginKey {
    LoginKey::parse(SessionKey::generate([seed; 32]).to_openssh("").unwrap().as_bytes(), None).unwrap()
}

/// A signature of the key of this seed on the statement, made at `signed`.
fn signature(seed: u8, namespace: &str, server: &str, statement: &Statement, signed: u64) -> Signature {
    let key = login_key(seed);
    let armoured = key.sign(namespace, statement.text(server, at(signed)).as_bytes()).unwrap();
    let sshsig = SshSignature::parse(&armoured).unwrap();
    Signature::new(SERVER.to_owned(), key.public_key().clone(), at(signed), sshsig).unwrap()
}

fn with(command: Command, signature: Signature) -> Command {
    let Command::Approve { by, digest, narrow, comment, check, .. } = command else { panic!("{command:?}") };
    let service_keys = BTreeSet::from([key(CA).fingerprint()]);
    let signed = Some(Box::new(Signed { signature, service_keys }));
    Command::Approve { by, digest, narrow, comment, signed, check }
}

/// What this person signs when they approve what waits, with the remark of these tests.
fn statement(world: &World, by: &str) -> Statement {
    world.request.statement(&person(by), "fine")
}

/// An approval with the signature of the key of this seed, made just now.
fn signed(world: &World, by: &str, seed: u8, now: u64) -> Command {
    let signature = signature(seed, APPROVAL_NAMESPACE, SERVER, &statement(world, by), now);
    with(world.approve(by), signature)
}

fn why(refused: Refusal) -> SignatureRefusal {
    assert_eq!((refused.kind(), refused.code()), (RefusalKind::Forbidden, "signature_refused"));
    let Refusal::SignatureRefused { why } = refused else { panic!("{refused}") };
    why
}

const WRONG: SignatureRefusal = SignatureRefusal::Wrong(SigError::Wrong);

#[test]
fn a_signed_approval_counts_and_the_log_keeps_the_signature() {
    for shape in [ONE, SIGNED] {
        let mut world = World::asked(&shape);
        let command = signed(&world, "bob", BOB, NOON + 60);
        let statement = statement(&world, "bob");
        let events = world.step(command, NOON + 60);
        assert_eq!(kinds(&events), ["approved", "granted"]);
        let Event::Approved { signature: Some(signature), .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!(signature.verify(&statement), Ok(()));
        let approvers = &world.request.grant().unwrap().approvers;
        assert_eq!(approvers.get(&person("bob")), Some(&Some(key(BOB).fingerprint())));
        world.fetch(NOON + 60);
        assert_eq!(world.word(), "issued");
    }
}

#[test]
fn the_statement_is_text_that_a_person_can_read_with_one_fact_a_line() {
    let mut said = statement(&World::asked(&ONE), "bob");
    said.comment = "one\ntwo \"three\" \\ \u{7f}é".to_owned();
    said.command = Some("journalctl -u api".to_owned());
    said.sources = BTreeSet::from(["10.0.0.0/8".to_owned()]);
    let text = said.text(SERVER, at(NOON + 60));
    let digest = said.digest.to_string();
    let fingerprint = key(99).fingerprint().to_string();
    let expected = format!(
        "hallpass approval v1\nserver: https://pass.example.com\nsigned: 2026-01-05T10:01:00Z\napprover: bob\n\
         request: {}\ndigest: {digest}\nperson: alice\nkey: {fingerprint}\naccount: deploy\nhosts: web-1, web-2\n\
         principals: deploy@web-1, deploy@web-2\nextends: nothing\nseconds: 2400\nstart: at approval\nbackdate: 30\n\
         permits: port_forwarding, pty\ncommand: \"journalctl -u api\"\nsources: 10.0.0.0/8\nverify-required: no\n\
         reason: \"look at the queue\"\nticket: \"INC-7\"\ncomment: \"one\\u{{a}}two \\\"three\\\" \\\\ \\u{{7f}}é\"\n",
        said.request
    );
    assert_eq!(text, expected);
}

#[test]
#[expect(clippy::type_complexity, reason = "a table: one changed fact after the other")]
fn a_signature_on_any_other_statement_fits_nothing() {
    let changes: &[(&str, &dyn Fn(&mut Statement))] = &[
        ("another approver", &|s| s.approver = person("carol")),
        ("another request", &|s| s.request = hallpass::name::RequestId::from_random([9; 5])),
        ("another digest", &|s| s.digest = hallpass::name::Digest::new([0; 32])),
        ("an extension", &|s| s.extends = Some(at(NOON + 2400))),
        ("another asker", &|s| s.person = person("dave")),
        ("another key", &|s| s.key = key(98).fingerprint()),
        ("another account", &|s| s.account = Account::parse("root").unwrap()),
        ("fewer hosts", &|s| s.hosts = hosts(&["web-1"])),
        ("other hosts", &|s| {
            s.hosts.insert(HostName::parse("db-1").unwrap());
        }),
        ("other principals", &|s| {
            s.principals.insert(Principal::parse("deploy").unwrap());
        }),
        ("a shorter time", &|s| s.lifetime = minutes(39)),
        ("another backdating", &|s| s.backdate = Lifetime::ZERO),
        ("a start", &|s| s.start = Some(at(NOON))),
        ("fewer extensions", &|s| {
            s.permits.remove(&Extension::PortForwarding);
        }),
        ("a command", &|s| s.command = Some("true".to_owned())),
        ("a source", &|s| {
            s.sources.insert("10.0.0.0/8".to_owned());
        }),
        ("verify-required", &|s| s.verify_required = true),
        ("another reason", &|s| s.reason += "!"),
        ("no ticket", &|s| s.ticket = None),
        ("another remark", &|s| s.comment = "fine!".to_owned()),
    ];
    let mut world = World::asked(&ONE);
    let right = statement(&world, "bob");
    let mut texts = BTreeSet::from([right.text(SERVER, at(NOON))]);
    for (what, change) in changes {
        let mut other = right.clone();
        change(&mut other);
        assert!(texts.insert(other.text(SERVER, at(NOON))), "{what}: no line says so");
        let command = with(world.approve("bob"), signature(BOB, APPROVAL_NAMESPACE, SERVER, &other, NOON));
        assert_eq!(why(world.refused(command, NOON)), WRONG, "{what}");
    }
    let elsewhere = signature(BOB, APPROVAL_NAMESPACE, "https://pass.example.org", &right, NOON);
    let command = with(world.approve("bob"), elsewhere);
    assert_eq!(why(world.refused(command, NOON)), WRONG, "for another server");
    assert_eq!(world.word(), "pending");
    assert_eq!(kinds(&world.step(signed(&world, "bob", BOB, NOON), NOON)), ["approved", "granted"]);
}

#[test]
fn only_the_approvers_own_login_key_signs() {
    let mut world = World::asked(&ONE);
    let not_theirs = |seed| SignatureRefusal::NotTheirs { key: key(seed).fingerprint(), approver: person("bob") };
    for seed in [CAROL, 1, 10] {
        let command = signed(&world, "bob", seed, NOON);
        assert_eq!(why(world.refused(command, NOON)), not_theirs(seed), "key {seed}");
    }
    let command = signed(&world, "bob", CA, NOON);
    assert_eq!(why(world.refused(command, NOON)), SignatureRefusal::ServiceKey);
    // Carol's signature with bob's key named beside it.
    let carols = signature(CAROL, APPROVAL_NAMESPACE, SERVER, &statement(&world, "bob"), NOON);
    let renamed = Signature::new(SERVER.to_owned(), key(BOB), at(NOON), carols.sshsig().clone()).unwrap();
    let command = with(world.approve("bob"), renamed);
    assert_eq!(why(world.refused(command, NOON)), SignatureRefusal::Wrong(SigError::Key));
    let login = signature(BOB, LOGIN_NAMESPACE, SERVER, &statement(&world, "bob"), NOON);
    let command = with(world.approve("bob"), login);
    assert_eq!(why(world.refused(command, NOON)), SignatureRefusal::Wrong(SigError::Namespace));
}

#[test]
fn a_signature_counts_for_ten_minutes_around_its_time() {
    let long = Shape { rule: "", ..ONE };
    for (signed_at, now, counts) in
        [(0, 600, true), (0, 601, false), (600, 0, true), (601, 0, false), (1199, 1799, true), (1198, 1799, false)]
    {
        let mut world = World::asked(&long);
        let command = signed(&world, "bob", BOB, NOON + signed_at);
        match world.try_step(command, NOON + now) {
            Ok(_) => assert!(counts, "{signed_at} {now}"),
            Err(refused) => {
                assert!(!counts && matches!(why(refused), SignatureRefusal::Stale { .. }), "{signed_at} {now}");
            }
        }
    }
    // Another time beside the signature than the one that was signed.
    let mut world = World::asked(&long);
    let old = signature(BOB, APPROVAL_NAMESPACE, SERVER, &statement(&world, "bob"), NOON);
    let fresh = Signature::new(SERVER.to_owned(), key(BOB), at(NOON + 900), old.sshsig().clone()).unwrap();
    let command = with(world.approve("bob"), fresh);
    assert_eq!(why(world.refused(command, NOON + 900)), WRONG);
}

#[test]
fn an_approver_who_narrows_signs_what_is_left() {
    let narrow = Narrowing {
        lifetime: Some(minutes(10)),
        only: Some(hosts(&["web-2"])),
        without: BTreeSet::from([Extension::PortForwarding]),
    };
    let mut world = World::asked(&SIGNED);
    let shown = statement(&world, "bob");
    let mut left = shown.clone();
    left.lifetime = minutes(10);
    left.hosts = hosts(&["web-2"]);
    left.principals = BTreeSet::from([Principal::parse("deploy@web-2").unwrap()]);
    left.permits = BTreeSet::from([Extension::Pty]);
    let approve = |world: &World, statement: &Statement| {
        let signature = signature(BOB, APPROVAL_NAMESPACE, SERVER, statement, NOON);
        with(world.approve_narrowed("bob", narrow.clone()), signature)
    };
    let as_shown = approve(&world, &shown);
    assert_eq!(why(world.refused(as_shown, NOON)), WRONG, "signed more than is left");
    let mut less = left.clone();
    less.lifetime = minutes(9);
    let less = approve(&world, &less);
    assert_eq!(why(world.refused(less, NOON)), WRONG, "signed less than is left");
    let fits = approve(&world, &left);
    assert_eq!(kinds(&world.step(fits, NOON)), ["narrowed", "approved", "granted"]);
}

#[test]
fn a_signature_is_worth_nothing_after_a_narrowing_and_nothing_for_an_extension() {
    let mut world = World::asked(&BOTH_SIGNED);
    let old = signature(BOB, APPROVAL_NAMESPACE, SERVER, &statement(&world, "bob"), NOON);
    world.step(with(world.approve("bob"), old.clone()), NOON);
    let mut narrowed = statement(&world, "carol");
    narrowed.lifetime = minutes(10);
    let narrow = Narrowing { lifetime: Some(minutes(10)), ..Narrowing::default() };
    let carols = signature(CAROL, APPROVAL_NAMESPACE, SERVER, &narrowed, NOON);
    world.step(with(world.approve_narrowed("carol", narrow), carols), NOON);
    let replayed = with(world.approve("bob"), old);
    assert_eq!(why(world.refused(replayed, NOON)), WRONG, "bob signed for forty minutes");
    assert_eq!(kinds(&world.step(signed(&world, "bob", BOB, NOON), NOON)), ["approved", "granted"]);

    let mut world = World::asked(&SIGNED);
    let first = signature(BOB, APPROVAL_NAMESPACE, SERVER, &statement(&world, "bob"), NOON);
    world.step(with(world.approve("bob"), first.clone()), NOON);
    world.fetch(NOON);
    world.step(world.extend("alice", minutes(40)), NOON + 60);
    let replayed = with(world.approve("bob"), first);
    assert_eq!(why(world.refused(replayed, NOON + 60)), WRONG, "the request is not its extension");
    let said = statement(&world, "bob");
    assert_eq!((said.extends, said.reason.as_str()), (Some(at(NOON + 2400)), "not done yet"));
    assert_eq!(kinds(&world.step(signed(&world, "bob", BOB, NOON + 60), NOON + 60)), ["approved", "granted"]);
}

#[test]
fn a_bad_signature_is_refused_also_where_none_is_needed() {
    let mut world = World::asked(&ONE);
    let command = signed(&world, "bob", CAROL, NOON);
    assert_eq!(world.refused(command, NOON).code(), "signature_refused");
    assert_eq!(kinds(&world.step(world.approve("bob"), NOON)), ["approved", "granted"]);
}

#[test]
fn where_policy_wants_signatures_an_approval_without_one_is_refused_with_what_to_do() {
    let mut world = World::asked(&SIGNED);
    let refused = world.refused(world.approve("bob"), NOON);
    assert_eq!((refused.kind(), refused.code()), (RefusalKind::Forbidden, "signature_needed"));
    assert!(refused.to_string().contains("hallpass approve"), "{refused}");
    assert!(world.request.may_decide(&person("bob"), &world.check.policy, at(NOON)), "bob may, with a signature");
    assert_eq!(kinds(&world.step(signed(&world, "bob", BOB, NOON), NOON)), ["approved", "granted"]);
}

#[test]
fn who_approved_without_signing_signs_when_the_policy_begins_to_want_it() {
    let mut world = World::asked(&TWO);
    world.step(world.approve("bob"), NOON);
    world.switch(&BOTH_SIGNED);
    assert_eq!(kinds(&world.step(signed(&world, "carol", CAROL, NOON), NOON)), ["approved"], "bob's no longer counts");
    assert_eq!(world.refused(world.approve("bob"), NOON).code(), "signature_needed");
    assert_eq!(kinds(&world.step(signed(&world, "bob", BOB, NOON), NOON)), ["approved", "granted"]);
    let again = signed(&world, "bob", BOB, NOON);
    assert_eq!(world.refused(again, NOON).code(), "already_approved");
}

#[test]
fn a_signed_approval_is_not_unsaid_by_an_unsigned_one() {
    let mut world = World::asked(&TWO);
    world.step(signed(&world, "bob", BOB, NOON), NOON);
    assert_eq!(world.refused(world.approve("bob"), NOON).code(), "already_approved");
    world.switch(&BOTH_SIGNED);
    assert_eq!(kinds(&world.step(signed(&world, "carol", CAROL, NOON), NOON)), ["approved", "granted"]);
}

#[test]
fn what_was_approved_without_signatures_is_not_certified_once_the_policy_wants_them() {
    let mut world = World::asked(&ONE);
    world.step(world.approve("bob"), NOON);
    world.switch(&SIGNED);
    assert_eq!(world.refused(world.certify("alice"), NOON).code(), "quorum_no_longer_met");
}

#[test]
fn a_signature_counts_no_longer_when_its_key_is_no_longer_the_approvers() {
    let mut world = World::asked(&SIGNED);
    world.step(signed(&world, "bob", BOB, NOON), NOON);
    world.switch(&Shape { bobs_key: 91, ..SIGNED });
    assert_eq!(world.refused(world.certify("alice"), NOON).code(), "quorum_no_longer_met", "the key was lost, say");

    let mut world = World::asked(&BOTH_SIGNED);
    world.step(signed(&world, "bob", BOB, NOON), NOON);
    world.switch(&Shape { bobs_key: 91, ..BOTH_SIGNED });
    world.step(signed(&world, "carol", CAROL, NOON), NOON);
    assert_eq!(world.word(), "pending", "bob's first signature counts no longer");
    assert_eq!(kinds(&world.step(signed(&world, "bob", 91, NOON), NOON)), ["approved", "granted"]);
}

#[test]
fn a_security_key_signs_only_when_it_is_touched() {
    let device = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let name = string(b"sk-ssh-ed25519@openssh.com");
    let blob = [&name[..], &string(device.verifying_key().as_bytes()), &string(b"ssh:")].concat();
    let public = PublicKey::parse_blob(&blob).unwrap();
    for (flags, touched) in [(1_u8, true), (5, true), (0, false), (4, false)] {
        use ed25519_dalek::Signer as _;
        use sha2::Digest as _;
        let line: &'static str = Box::leak(public.to_openssh().into_boxed_str());
        let mut world = World::asked(&Shape { bobs_other_key: line, ..SIGNED });
        let text = statement(&world, "bob").text(SERVER, at(NOON));
        let data = SshSignature::to_be_signed(APPROVAL_NAMESPACE, text.as_bytes());
        let tail = [&[flags], &7_u32.to_be_bytes()[..]].concat();
        let signed = [&sha2::Sha256::digest(b"ssh:")[..], &tail, &sha2::Sha256::digest(&data)].concat();
        let blob = [&name[..], &string(&device.sign(&signed).to_bytes()), &tail].concat();
        let armoured = SshSignature::armour(&public, APPROVAL_NAMESPACE, &blob).unwrap();
        let sshsig = SshSignature::parse(&armoured).unwrap();
        let signature = Signature::new(SERVER.to_owned(), public.clone(), at(NOON), sshsig).unwrap();
        let taken = world.try_step(with(world.approve("bob"), signature), NOON);
        match taken {
            Ok(_) => assert!(touched),
            Err(refused) => {
                assert!(!touched);
                assert_eq!(why(refused), SignatureRefusal::Wrong(SigError::NotTouched));
            }
        }
    }
}

proptest! {
    #[test]
    fn no_free_text_can_pass_for_another_line_and_no_two_statements_share_a_text(
        one in prop::collection::vec("[a\\\\\"\n\r\u{85}\u{2028}: ]{0,6}", 4),
        other in prop::collection::vec("[a\\\\\"\n\r\u{85}\u{2028}: ]{0,6}", 4),
    ) {
        let plain = statement(&World::asked(&ONE), "bob");
        let text = |of: &[String]| {
            let mut said = plain.clone();
            (said.reason, said.comment) = (of[0].clone(), of[1].clone());
            said.ticket = (!of[2].is_empty()).then(|| of[2].clone());
            said.command = (!of[3].is_empty()).then(|| of[3].clone());
            said.text(SERVER, at(NOON))
        };
        prop_assert_eq!(text(&one).split('\n').count(), 23);
        let steers = text(&one).contains(['\r', '\u{85}']);
        prop_assert!(!steers);
        prop_assert_eq!(text(&one) == text(&other), one == other);
    }
}

#[test]
fn a_signature_names_a_server_that_a_statement_can_hold() {
    let sshsig = signature(BOB, APPROVAL_NAMESPACE, SERVER, &statement(&World::asked(&ONE), "bob"), NOON);
    for server in ["", "https://a b", "https://a\nsigned: x", "https://ä", &"x".repeat(401)] {
        let made = Signature::new(server.to_owned(), key(BOB), at(NOON), sshsig.sshsig().clone());
        assert_eq!(made, Err(SignatureRefusal::Server), "{server:?}");
    }
}
