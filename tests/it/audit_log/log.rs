//! A sound log with every kind of event in it, and exports of it as an honest service, or its forger, would make them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use hallpass::audit::checkpoint::LogKey;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::{Answer, Event, Mover};
use hallpass::audit::export::{Exporter, Finding, FindingKind, Verified, verify};
use hallpass::audit::tree::Frontier;
use hallpass::identity::approval::{Signature, Statement};
use hallpass::identity::{Actor, Part};
use hallpass::keyring::plan::{Move, apply};
use hallpass::keyring::step::{Proposal, Step};
use hallpass::keyring::{Ca, Configured, Ring, UserKeys};
use hallpass::name::{Account, Digest, HostName, PersonName, PolicyVersion, Principal, RequestId, RuleName, Serial};
use hallpass::ssh::PublicKey;
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::cert::{Extension, Fields, KeyId, Options, TbsCert};
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::{APPROVAL_NAMESPACE, SshSignature};
use hallpass::time::{Lifetime, Timestamp, Window};

/// 2026-01-05T10:00:00Z.
pub(crate) const START: u64 = 1_767_607_200;
pub(crate) const ORIGIN: &str = "hallpass.example.com/log";

pub(crate) fn person(name: &str) -> PersonName {
    PersonName::parse(name).unwrap()
}

pub(crate) fn hosts(names: &[&str]) -> BTreeSet<HostName> {
    names.iter().map(|name| HostName::parse(name).unwrap()).collect()
}

pub(crate) fn people(names: &[&str]) -> BTreeSet<PersonName> {
    names.iter().map(|name| person(name)).collect()
}

pub(crate) fn id(text: &str) -> RequestId {
    RequestId::parse(text).unwrap()
}

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(START + seconds).unwrap()
}

pub(crate) fn window(start: u64, end: u64) -> Window {
    Window::new(at(start), at(end)).unwrap()
}

pub(crate) fn seconds(seconds: u32) -> Lifetime {
    Lifetime::from_seconds(seconds).unwrap()
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::new([byte; 32])
}

pub(crate) fn public_key(byte: u8) -> PublicKey {
    SessionKey::generate([byte; 32]).public_key().clone()
}

pub(crate) fn log_key() -> LogKey {
    LogKey::new(ORIGIN, &[7; 32]).unwrap()
}

pub(crate) const POLICY: PolicyVersion = PolicyVersion(1);
pub(crate) const SUBJECT: u8 = 1;
pub(crate) const CA: u8 = 2;
pub(crate) const BOB: u8 = 5;

pub(crate) fn asked(request: &str, by: &str, lifetime: u32, verdict: Answer) -> Event {
    Event::Asked {
        request: id(request),
        person: person(by),
        key: public_key(SUBJECT).fingerprint(),
        hosts: hosts(&["web-1", "web-2"]),
        account: Account::parse("deploy").unwrap(),
        lifetime: seconds(lifetime),
        start: None,
        backdate: seconds(20),
        account_scope: BTreeSet::new(),
        permits: BTreeSet::from([Extension::Pty, Extension::AgentForwarding]),
        command: None,
        sources: BTreeSet::new(),
        verify_required: false,
        reason: "disk of \"web-1\" is full:\n\u{202e}\u{e9}\u{1f4be}\u{7f}".to_owned(),
        ticket: Some("INC-1".to_owned()),
        rules: vec![RuleName::parse("web-debug").unwrap(), RuleName::parse("a-later-one").unwrap()],
        policy: POLICY,
        digest: digest(1),
        verdict,
        ca: None,
    }
}

pub(crate) fn to_be_signed(request: &str, serial: u64, window: Window, host: &str) -> Event {
    to_be_signed_but(request, serial, window, host, &|_| ())
}

/// The same with other bytes to be signed than the request's.
pub(crate) fn to_be_signed_but(
    request: &str,
    serial: u64,
    window: Window,
    host: &str,
    change: &dyn Fn(&mut Fields),
) -> Event {
    let (request, serial, by) = (id(request), Serial::new(serial).unwrap(), person("alice"));
    let mut fields = Fields {
        serial,
        key_id: KeyId::new(&request, &by).unwrap(),
        principals: BTreeSet::from([Principal::parse(&format!("deploy@{host}")).unwrap()]),
        window,
        options: Options { permits: BTreeSet::from([Extension::Pty]), ..Options::default() },
    };
    change(&mut fields);
    let ca = public_key(CA);
    let tbs = TbsCert::new(fields, &public_key(SUBJECT), &ca, [3; 32]).unwrap();
    let (ca, tbs) = (ca.fingerprint(), tbs.bytes().to_vec());
    Event::CertificateToBeSigned { request, person: by, serial, ca, window, tbs, policy: POLICY }
}

/// What bob approves in the story: less than alice asked for.
pub(crate) fn bobs_statement() -> Statement {
    let Event::Asked { reason, ticket, .. } = asked("7K3F-9QX2", "alice", 3600, Answer::Ask) else { panic!("asked") };
    Statement {
        approver: person("bob"),
        request: id("7K3F-9QX2"),
        digest: digest(1),
        extends: None,
        person: person("alice"),
        key: public_key(SUBJECT).fingerprint(),
        account: Account::parse("deploy").unwrap(),
        hosts: hosts(&["web-1"]),
        principals: BTreeSet::from([Principal::parse("deploy@web-1").unwrap()]),
        lifetime: seconds(1800),
        backdate: seconds(20),
        start: None,
        permits: BTreeSet::from([Extension::Pty]),
        command: None,
        sources: BTreeSet::new(),
        verify_required: false,
        reason,
        ticket,
        comment: "ok".to_owned(),
    }
}

/// What carol would sign when she approves more time.
pub(crate) fn carols_statement() -> Statement {
    Statement {
        approver: person("carol"),
        digest: digest(3),
        extends: Some(at(1820)),
        lifetime: seconds(600),
        reason: "more".to_owned(),
        ..bobs_statement()
    }
}

/// The server that people of the story are logged in to.
pub(crate) const SERVER: &str = "https://hallpass.example.com";

/// The signature of bob's key.
pub(crate) fn signature(statement: &Statement) -> Signature {
    signature_by(BOB, APPROVAL_NAMESPACE, statement)
}

/// A signature of the key of this seed, for this purpose.
pub(crate) fn signature_by(seed: u8, namespace: &str, statement: &Statement) -> Signature {
    let key = SessionKey::generate([seed; 32]).to_openssh("").unwrap();
    let key = LoginKey::parse(key.as_bytes(), None).unwrap();
    let armoured = key.sign(namespace, statement.text(SERVER, at(19)).as_bytes()).unwrap();
    let sshsig = SshSignature::parse(&armoured).unwrap();
    Signature::new(SERVER.to_owned(), key.public_key().clone(), at(19), sshsig).unwrap()
}

/// A sound log with every kind of event, each with its second.
#[expect(clippy::too_many_lines, reason = "a table: one event after the other")]
pub(crate) fn story() -> Vec<(u64, Event)> {
    let (a, b, c, d, e) = ("7K3F-9QX2", "00000001", "00000002", "00000003", "00000004");
    let approved = |by: &str, byte: u8, signature: Option<Signature>| Event::Approved {
        request: id(a),
        by: person(by),
        digest: digest(byte),
        comment: "ok".to_owned(),
        policy: POLICY,
        signature,
    };
    let granted = |request: &str, approvers: &[&str], window: Window, byte: u8| Event::Granted {
        request: id(request),
        approvers: people(approvers),
        window,
        digest: digest(byte),
        policy: POLICY,
    };
    let signed = |serial: u64| Event::CertificateSigned {
        request: id(a),
        serial: Serial::new(serial).unwrap(),
        sha256: "00ff".repeat(16),
    };
    let started = Event::LogStarted { service: "0123 https://h".to_owned(), log_key: log_key().verifier().to_text() };
    vec![
        (0, started),
        (
            0,
            Event::PolicyApplied {
                by: Actor::System(Part::Start),
                version: POLICY,
                sha256: "ab".repeat(32),
                tests: 3,
                changes: 0,
            },
        ),
        (
            0,
            Event::ServiceStarted {
                ca: public_key(CA).fingerprint(),
                version: "0.1.0".to_owned(),
                keys: Some(ring()),
                kept: None,
            },
        ),
        (
            5,
            Event::LoggedIn {
                person: person("alice"),
                key: public_key(4).fingerprint(),
                address: "192.0.2.1".to_owned(),
                expires: at(43_205),
            },
        ),
        (
            6,
            Event::Refused {
                person: person("alice"),
                hosts: hosts(&["db-1"]),
                account: Account::parse("root").unwrap(),
                reason: String::new(),
                why: vec!["no rule".to_owned()],
                policy: POLICY,
            },
        ),
        (10, asked(a, "alice", 3600, Answer::Ask)),
        (
            20,
            Event::Narrowed {
                request: id(a),
                by: person("bob"),
                lifetime: seconds(1800),
                hosts: hosts(&["web-1"]),
                permits: BTreeSet::from([Extension::Pty]),
                digest: digest(2),
            },
        ),
        (20, approved("bob", 2, Some(signature(&bobs_statement())))),
        (20, granted(a, &["bob"], window(0, 1820), 2)),
        (21, to_be_signed(a, 9, window(0, 1820), "web-1")),
        (21, signed(9)),
        (
            900,
            Event::ExtensionAsked {
                request: id(a),
                person: person("alice"),
                lifetime: seconds(600),
                reason: "more".to_owned(),
                policy: POLICY,
                digest: digest(3),
                verdict: Answer::Ask,
            },
        ),
        (910, approved("carol", 3, None)),
        (910, granted(a, &["carol"], window(880, 2420), 3)),
        (911, to_be_signed(a, 14, window(880, 2420), "web-1")),
        (911, signed(14)),
        (1000, Event::Ended { request: id(a), by: person("alice"), reason: "done".to_owned() }),
        (1001, asked(b, "alice", 60, Answer::Ask)),
        (1002, Event::Denied { request: id(b), by: person("bob"), reason: "no".to_owned(), extension: false }),
        (1003, asked(c, "alice", 60, Answer::Ask)),
        (1004, Event::Withdrawn { request: id(c), by: person("alice"), extension: false }),
        (1005, asked(d, "alice", 60, Answer::Ask)),
        (2805, Event::Lapsed { request: id(d), extension: false }),
        (2806, asked(e, "alice", 60, Answer::Allow)),
        (2806, granted(e, &[], window(2786, 2866), 1)),
        (
            2807,
            Event::CertificateRefused {
                request: id(e),
                person: person("alice"),
                why: "the policy changed".to_owned(),
                policy: POLICY,
            },
        ),
        (2866, Event::Expired { request: id(e) }),
        (2900, Event::LoggedOut { person: person("alice") }),
    ]
}

/// [`story`] and so many log-outs that there are `size` entries.
pub(crate) fn long_story(size: usize) -> Vec<(u64, Event)> {
    let out = || (3000, Event::LoggedOut { person: person("alice") });
    story().into_iter().chain(std::iter::repeat_with(out)).take(size).collect()
}

pub(crate) fn entries(events: Vec<(u64, Event)>) -> Vec<Entry> {
    let entry = |(index, (seconds, event)): (u64, (u64, Event))| Entry { index, at: at(seconds), event };
    (0..).zip(events).map(entry).collect()
}

/// A whole export, signed by the log key whatever it says.
pub(crate) fn export(events: Vec<(u64, Event)>) -> String {
    let (mut exporter, mut text) = Exporter::new(log_key().verifier());
    let mut tree = Frontier::default();
    for entry in entries(events) {
        tree.push(Entry::leaf_hash(&entry.to_bytes()));
        text.push_str(&exporter.entry(&entry.to_bytes()).unwrap());
    }
    text.push_str(&exporter.finish(&log_key().sign(tree.size(), &tree.root())).unwrap());
    text
}

pub(crate) fn checkpoint_at(events: &[(u64, Event)]) -> String {
    let mut tree = Frontier::default();
    for entry in entries(events.to_vec()) {
        tree.push(Entry::leaf_hash(&entry.to_bytes()));
    }
    log_key().sign(tree.size(), &tree.root())
}

pub(crate) fn check(text: &[u8]) -> Result<Verified, Vec<Finding>> {
    verify(text, Some(&log_key().verifier()), None)
}

pub(crate) fn kinds(findings: &[Finding]) -> Vec<FindingKind> {
    findings.iter().map(|finding| finding.kind).collect()
}

pub(crate) static SHORT: LazyLock<String> = LazyLock::new(|| export(story()));
pub(crate) static LONG: LazyLock<String> = LazyLock::new(|| export(long_story(280)));

/// What an auditor finds in a log of these events, which begin after its start.
pub(crate) fn meaning_of(events: Vec<(Timestamp, Event)>) -> Vec<String> {
    let started = Event::LogStarted { service: "0123 https://h".to_owned(), log_key: log_key().verifier().to_text() };
    let events = events.into_iter().map(|(at, event)| (at.unix() - START, event));
    let text = export([(0, started)].into_iter().chain(events).collect());
    check(text.as_bytes()).err().unwrap_or_default().into_iter().map(|finding| finding.what).collect()
}

/// A key, by its seed, with its state before and after.
pub(crate) type Moved = (u8, Option<KeyState>, KeyState);

/// A step of a rotation, after which one key has this state.
pub(crate) fn rotated(step: Step, (key, from, to): Moved, ring: &Ring) -> (Event, Ring) {
    let key = public_key(key);
    let why = vec![format!("{} is {to}: as an example", key.fingerprint())];
    let keys = apply(ring, &Ca::USER, &[Move { key, from, to, why: String::new() }], at(9_000)).unwrap();
    let event = Event::CaKeysChanged {
        by: Mover(Actor::Person(person("bob"))),
        step,
        why,
        unproven: hosts(&["web-1"]),
        keys: keys.clone(),
        purpose: None,
        early: None,
        proposer: None,
        ca: None,
        kept: None,
    };
    (event, keys)
}

/// bob proposes a step, with everything that a proposal can have.
pub(crate) fn proposed(ring: &Ring) -> Event {
    let (step, ca, key) = (Step::Switch, Ca::Host, Some(public_key(6).fingerprint()));
    Event::CaStepProposed {
        by: person("bob"),
        proposal: Proposal { step, ca, key, accepted: hosts(&["web-1"]), is_early: true },
        reason: "yearly".to_owned(),
        until: at(12_600),
        version: 2,
        since: at(0),
        keys: ring.clone(),
        kept: None,
    }
}

/// The CA key of these logs, alone.
pub(crate) fn ring() -> Ring {
    let user = public_key(CA);
    let keys = Configured {
        user: UserKeys { first: &user, next: &[], trusted: &[] },
        named: &BTreeMap::new(),
        host: None,
        host_next: &[],
        lasting: &BTreeSet::new(),
    };
    Ring::default().configured(&keys, at(0)).unwrap()
}
