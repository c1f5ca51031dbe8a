//! Entries about enrolled hosts: a sound story of one host with every kind, and what an auditor says of unsound ones.

use std::collections::BTreeSet;

use hallpass::audit::event::Event;
use hallpass::audit::host_event::{Flag, HostEvent};
use hallpass::name::{CaName, HostName, JoinId, NamePattern, Principal, ReportId, Serial, Tag, TagKey};
use hallpass::ssh::Fingerprint;
use hallpass::ssh::cert::{Fields, ForceCommand, KeyId, Options, TbsCert};

use super::log::*;

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn join() -> JoinId {
    JoinId::parse("7k3f9qx2").unwrap()
}

fn tags(texts: &[&str]) -> BTreeSet<Tag> {
    texts.iter().map(|text| Tag::parse(text).unwrap()).collect()
}

fn report(text: &str) -> ReportId {
    ReportId::parse(text).unwrap()
}

const KEY: u8 = 60;
const FIRST: u64 = 28;

pub(super) fn enrolled(name: &str, keys: &[u8], names: &[&str]) -> HostEvent {
    HostEvent::HostEnrolled {
        host: host(name),
        join: join(),
        keys: keys.iter().map(|seed| public_key(*seed)).collect(),
        names: hosts(names),
        tags: tags(&["role=web", "zone=eu"]),
    }
}

fn went_over(kept: Fingerprint) -> HostEvent {
    let ca = CaName::parse("prod").unwrap();
    HostEvent::HostMoved { host: host("web-1"), ca, keeps: BTreeSet::from([kept]), waits: true }
}

pub(super) fn created(uses: u64, expires: u64) -> HostEvent {
    HostEvent::JoinCreated {
        join: join(),
        by: person("olga"),
        token: digest(9),
        uses,
        expires: at(expires),
        names: BTreeSet::from([NamePattern::parse("web-*").unwrap()]),
        tags: tags(&["role=web"]),
        may_tag: Some(BTreeSet::from([TagKey::parse("zone").unwrap()])),
    }
}

/// The bytes of a host certificate with these names.
fn host_tbs(serial: u64, key: u8, names: &[&str]) -> Vec<u8> {
    let fields = Fields {
        serial: Serial::new(serial).unwrap(),
        key_id: KeyId::of_host(&host("web-1")).unwrap(),
        principals: names.iter().map(|name| Principal::of_host(&host(name))).collect(),
        window: window(0, 6000),
        options: Options::default(),
    };
    TbsCert::new(fields, &public_key(key), &public_key(CA), [3; 32]).unwrap().bytes().to_vec()
}

fn certified(serial: u64, tbs: Vec<u8>) -> HostEvent {
    let (serial, ca) = (Serial::new(serial).unwrap(), public_key(CA).fingerprint());
    HostEvent::HostCertificateToBeSigned { host: host("web-1"), serial, ca, window: window(0, 6000), tbs }
}

fn checked(serial: u64) -> HostEvent {
    let fields = Fields {
        serial: Serial::new(serial).unwrap(),
        key_id: KeyId::of_check(&host("web-1")).unwrap(),
        principals: BTreeSet::from([Principal::parse("hallpass-check@web-1").unwrap()]),
        window: window(2900, 3020),
        options: Options { force_command: Some(ForceCommand::parse("true").unwrap()), ..Options::default() },
    };
    let tbs = TbsCert::new(fields, &public_key(61), &public_key(CA), [3; 32]).unwrap().bytes().to_vec();
    let (serial, ca) = (Serial::new(serial).unwrap(), public_key(CA).fingerprint());
    HostEvent::CheckCertificateToBeSigned { host: host("web-1"), serial, ca, window: window(2900, 3020), tbs }
}

/// Everything that can happen to hosts, after everything that can happen to people.
pub(super) fn hosts_story() -> Vec<(u64, Event)> {
    let (serial, check) = (Serial::new(FIRST + 3).unwrap(), Serial::new(FIRST + 5).unwrap());
    let (account, from, key_id) = ("deploy".to_owned(), "192.0.2.7".to_owned(), "hallpass/7K3F9QX2/alice".to_owned());
    let (request, ca) = (Some(id("7K3F-9QX2")), public_key(CA).fingerprint());
    let events = vec![
        created(2, 9000),
        enrolled("web-1", &[KEY], &["web-1.example.com"]),
        HostEvent::HostRefused {
            host: host("web-2"),
            join: join(),
            key: public_key(KEY).fingerprint(),
            known: host("web-1"),
            why: "a clone".to_owned(),
        },
        certified(FIRST + 3, host_tbs(FIRST + 3, KEY, &["web-1", "web-1.example.com"])),
        HostEvent::HostCertificateSigned { host: host("web-1"), serial, sha256: "00ff".repeat(16) },
        checked(FIRST + 5),
        HostEvent::CheckCertificateSigned { host: host("web-1"), serial: check, sha256: "00ff".repeat(16) },
        HostEvent::CheckInChanged {
            host: host("web-1"),
            program: "0.1.0".to_owned(),
            sshd: "OpenSSH_9.2p1".to_owned(),
            os: "Debian \u{1b}[2J".to_owned(),
            guard: true,
            clock_ok: false,
            file_sha256: digest(8),
            keys: BTreeSet::from([ca]),
            proven: BTreeSet::new(),
            risky: BTreeSet::from(["permit-user-environment".to_owned()]),
        },
        HostEvent::HostDoubled { host: host("web-1") },
        HostEvent::SessionOpened {
            host: host("web-1"),
            report: report("a.1"),
            serial: 9,
            key_id: key_id.clone(),
            ca,
            account: account.clone(),
            from: from.clone(),
            opened: at(30),
            request,
        },
        HostEvent::SessionFlagged {
            host: host("web-1"),
            report: report("a.1"),
            serial: 9,
            flag: Flag::OutsideGrant,
            why: "the request is for \u{202e}other".to_owned(),
            request,
        },
        HostEvent::SessionEnded {
            host: host("web-1"),
            report: report("a.2"),
            serial: 9,
            account: account.clone(),
            ended: at(40),
            why: "window over".to_owned(),
            request,
        },
        HostEvent::SessionRefused {
            host: host("web-1"),
            report: report("a.3"),
            serial: 0,
            key_id: "evil\n\u{1b}]0;".to_owned(),
            ca,
            account,
            from,
            refused: at(50),
            why: "no window".to_owned(),
            request: None,
        },
        HostEvent::HostTagged { host: host("web-1"), by: person("olga"), tags: tags(&["role=web"]) },
        went_over(ca),
        HostEvent::HostRetired { host: host("web-1"), by: person("olga"), reason: "gone".to_owned() },
        enrolled("web-2", &[KEY], &[]),
        HostEvent::HostLeft { host: host("web-2") },
        HostEvent::JoinRevoked { join: join(), by: person("olga") },
    ];
    story().into_iter().chain(events.into_iter().map(|event| (2901, event.into()))).collect()
}

/// What an auditor says when this happens to hosts after the first story.
fn findings(events: Vec<HostEvent>) -> Vec<String> {
    let events = story().into_iter().chain(events.into_iter().map(|event| (2901, event.into())));
    let found = check(export(events.collect()).as_bytes()).err().unwrap_or_default();
    found.into_iter().map(|finding| finding.what).collect()
}

#[test]
fn a_sound_story_of_hosts_is_sound_and_each_sentence_harmless() {
    check(export(hosts_story()).as_bytes()).unwrap();
    for (_, event) in hosts_story() {
        let sentence = event.sentence();
        let harmless = |c: char| !c.is_control() && !('\u{200b}'..='\u{206f}').contains(&c);
        assert!(sentence.chars().all(harmless), "{sentence:?}");
    }
}

/// web-1 enrols with these tags.
fn tagged(tags: &[&str]) -> HostEvent {
    let enrolled = enrolled("web-1", &[KEY], &[]);
    let HostEvent::HostEnrolled { host, join, keys, names, .. } = enrolled else { panic!("enrolled") };
    HostEvent::HostEnrolled { host, join, keys, names, tags: self::tags(tags) }
}

#[test]
fn a_host_has_tags_of_its_token_of_an_operator_and_those_that_the_token_lets_it_set() {
    let by_operator =
        |tags: &[&str]| HostEvent::HostTagged { host: host("web-1"), by: person("olga"), tags: self::tags(tags) };
    let any = match created(1, 9000) {
        HostEvent::JoinCreated { join, by, token, uses, expires, names, tags, .. } => {
            HostEvent::JoinCreated { join, by, token, uses, expires, names, tags, may_tag: None }
        }
        other => panic!("{other:?}"),
    };
    for events in [
        vec![created(1, 9000), tagged(&["role=web", "zone=a"]), tagged(&["role=web", "zone=b"])],
        vec![
            created(1, 9000),
            tagged(&["role=web"]),
            by_operator(&["role=web", "env=a"]),
            tagged(&["role=web", "env=a"]),
        ],
        // What an operator has said since the token was made stays; and in a log of before it was so, it did not.
        vec![created(1, 9000), tagged(&["role=web"]), by_operator(&["role=db"]), tagged(&["role=db"])],
        vec![created(1, 9000), tagged(&["role=web"]), by_operator(&[]), tagged(&[])],
        vec![created(1, 9000), tagged(&["role=web"]), by_operator(&["role=db"]), tagged(&["role=web"])],
        // A token of before there was such a thing.
        vec![any, tagged(&["role=web", "env=prod"])],
    ] {
        assert_eq!(findings(events), Vec::<String>::new());
    }
}

#[test]
fn a_host_that_comes_again_without_a_tag_of_its_token_is_found_unless_an_operator_took_it_away() {
    let by_operator =
        |tags: &[&str]| HostEvent::HostTagged { host: host("web-1"), by: person("olga"), tags: self::tags(tags) };
    for events in [
        vec![created(1, 9000), tagged(&["role=web"]), tagged(&[])],
        vec![created(1, 9000), tagged(&["role=web"]), by_operator(&["role=web", "env=a"]), tagged(&["env=a"])],
        vec![created(1, 9000), tagged(&["role=web"]), by_operator(&["role=db"]), tagged(&[])],
    ] {
        let found = findings(events);
        assert!(found.iter().any(|what| what.contains("it lacks a tag of its join token")), "{found:?}");
    }
}

#[test]
fn what_could_not_have_happened_to_hosts_is_found() {
    let second = HostEvent::JoinRevoked { join: join(), by: person("olga") };
    let web = || enrolled("web-1", &[KEY], &[]);
    let left = |name: &str| HostEvent::HostLeft { host: host(name) };
    let tagless = HostEvent::HostEnrolled {
        host: host("web-1"),
        join: join(),
        keys: vec![public_key(KEY)],
        names: BTreeSet::new(),
        tags: tags(&["zone=eu"]),
    };
    let unasked = HostEvent::SessionFlagged {
        host: host("web-1"),
        report: report("x"),
        serial: 1,
        flag: Flag::AfterEnd,
        why: String::new(),
        request: Some(id("ZZZZ-ZZZZ")),
    };
    let signed = HostEvent::HostCertificateSigned {
        host: host("web-1"),
        serial: Serial::new(FIRST).unwrap(),
        sha256: "00ff".repeat(16),
    };
    for (events, wanted) in [
        (vec![created(1, 9000), created(1, 9000)], "was made before"),
        (vec![second.clone()], "there is no join token 7k3f9qx2"),
        (vec![created(1, 9000), second.clone(), second.clone()], "was revoked before"),
        (vec![web()], "there is no join token 7k3f9qx2"),
        (vec![created(1, 9000), second, web()], "its join token was revoked"),
        (vec![created(1, 2000), web()], "its join token had expired"),
        (vec![created(1, 9000), web(), enrolled("web-2", &[61], &[])], "its join token was spent"),
        (vec![created(1, 9000), enrolled("db-1", &[KEY], &[])], "does not give this name"),
        (vec![created(1, 9000), enrolled("web-1", &[KEY], &["db-1"])], "does not give this name"),
        (vec![created(1, 9000), enrolled("web-1", &[], &[])], "it has no key"),
        (vec![created(1, 9000), tagless], "it lacks a tag of its join token"),
        (vec![created(1, 9000), tagged(&["role=web", "env=prod"])], "its join token does not give this tag"),
        (
            vec![created(1, 9000), tagged(&["role=web", "zone=a"]), tagged(&["role=web", "env=a"])],
            "does not give this tag",
        ),
        (vec![created(2, 9000), web(), enrolled("web-1", &[61], &[])], "another key has this name"),
        (vec![created(2, 9000), web(), enrolled("web-2", &[61], &["web-1"])], "another host has this name"),
        (vec![created(2, 9000), web(), enrolled("web-2", &[61, KEY], &[])], "another host has this key"),
        (vec![left("web-1")], "web-1 was not enrolled then"),
        (vec![created(2, 9000), web(), left("web-1"), left("web-1")], "web-1 was not enrolled then"),
        (vec![certified(FIRST, host_tbs(FIRST, KEY, &["web-1"]))], "web-1 was not enrolled then"),
        (
            vec![created(1, 9000), web(), certified(FIRST + 2, host_tbs(FIRST + 2, KEY, &["web-1", "db-1"]))],
            "another set of names",
        ),
        (
            vec![created(1, 9000), web(), certified(FIRST + 2, host_tbs(FIRST + 2, 61, &["web-1"]))],
            "another public key",
        ),
        (
            vec![created(1, 9000), web(), certified(FIRST + 9, host_tbs(FIRST + 9, KEY, &["web-1"]))],
            "its serial is not its own index",
        ),
        (vec![created(1, 9000), web(), signed], "was not about to be signed"),
        (vec![created(1, 9000), web(), unasked], "never asked for"),
    ] {
        let found = findings(events);
        assert!(found.iter().any(|what| what.contains(wanted)), "{wanted}: {found:?}");
    }
}
