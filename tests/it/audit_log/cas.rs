//! Several user CAs in the log: a sound story of a host of one of them, and what an auditor says of unsound ones.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::audit::event::{Answer, Event, Mover, Stand};
use hallpass::audit::host_event::HostEvent;
use hallpass::identity::Actor;
use hallpass::keyring::plan::{Move, apply};
use hallpass::keyring::step::Step;
use hallpass::keyring::{Ca, Configured, Ring, UserKeys};
use hallpass::name::{CaName, HostName, ReportId, Serial};
use hallpass::ssh::Fingerprint;
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::cert::{Extension, Purpose, TbsCert};
use hallpass::time::Timestamp;

use super::hosts::{created, enrolled};
use super::log::*;

/// The seed of the other CA's key.
const PROD: u8 = 7;
const REQUEST: &str = "7K3F-9QX2";

fn prod() -> CaName {
    CaName::parse("prod").unwrap()
}

fn both() -> Ring {
    let (user, first) = (public_key(CA), public_key(PROD));
    let keys = |first| UserKeys { first, next: &[], trusted: &[] };
    let named = BTreeMap::from([(prod(), keys(&first))]);
    let lasting = BTreeSet::new();
    let configured = Configured { user: keys(&user), named: &named, host: None, host_next: &[], lasting: &lasting };
    Ring::default().configured(&configured, at(0)).unwrap()
}

fn fingerprints(seeds: &[u8]) -> BTreeSet<Fingerprint> {
    seeds.iter().map(|seed| public_key(*seed).fingerprint()).collect()
}

fn moved(ca: CaName, keeps: &[u8], waits: bool) -> Event {
    let host = HostName::parse("web-1").unwrap();
    HostEvent::HostMoved { host, ca, keeps: fingerprints(keeps), waits }.into()
}

/// web-1 says that its sshd trusts these keys.
fn proven(seeds: &[u8]) -> Event {
    let (keys, proven) = (fingerprints(seeds), fingerprints(seeds));
    HostEvent::CheckInChanged {
        host: HostName::parse("web-1").unwrap(),
        program: "0.1.0".to_owned(),
        sshd: "OpenSSH_9.2p1".to_owned(),
        os: "Debian 12".to_owned(),
        guard: true,
        clock_ok: true,
        file_sha256: digest(8),
        keys,
        proven,
        risky: BTreeSet::new(),
    }
    .into()
}

/// alice asks for web-1 as a host of this CA, is allowed at once, and gets a certificate by this key; `serial` is the third entry's index.
fn issued(ca: Option<CaName>, serial: u64, key: u8) -> Vec<Event> {
    let mut question = asked(REQUEST, "alice", 1800, Answer::Allow);
    if let Event::Asked { hosts, permits, ca: of, .. } = &mut question {
        *hosts = self::hosts(&["web-1"]);
        *permits = BTreeSet::from([Extension::Pty]);
        *of = ca;
    }
    let span = window(180, 2000);
    let granted = Event::Granted {
        request: id(REQUEST),
        approvers: BTreeSet::new(),
        window: span,
        digest: digest(1),
        policy: POLICY,
    };
    let mut certificate = to_be_signed(REQUEST, serial, span, "web-1");
    if let Event::CertificateToBeSigned { ca, tbs, .. } = &mut certificate {
        let ours = public_key(key);
        let fields = TbsCert::parse(tbs).unwrap().fields().clone();
        *tbs = TbsCert::new(fields, &public_key(SUBJECT), &ours, [3; 32]).unwrap().bytes().to_vec();
        *ca = ours.fingerprint();
    }
    let (request, serial) = (id(REQUEST), Serial::new(serial).unwrap());
    let signed = Event::CertificateSigned { request, serial, sha256: "00ff".repeat(16) };
    vec![question, granted, certificate, signed]
}

/// What an auditor says of a log with both CAs, in which web-1 has joined; what follows begins with entry 5.
fn findings(events: Vec<Event>) -> Vec<String> {
    let applied = story().into_iter().nth(1).unwrap().1;
    let ca = public_key(CA).fingerprint();
    let started = Event::ServiceStarted { ca, version: "0.1.0".to_owned(), keys: Some(both()), kept: None };
    let joined = [Event::from(created(1, 9000)), Event::from(enrolled("web-1", &[60], &[]))];
    let events = [applied, started].into_iter().chain(joined).chain(events);
    meaning_of(events.map(|event| (at(200), event)).collect::<Vec<(Timestamp, Event)>>())
}

fn found(events: Vec<Event>, what: &str) {
    let findings = findings(events);
    assert!(findings.iter().any(|finding| finding.contains(what)), "no {what:?} in {findings:?}");
}

#[test]
fn a_sound_story_of_two_cas_is_sound() {
    let new = |ca: Option<CaName>, serial, key| [vec![moved(prod(), &[], false)], issued(ca, serial, key)].concat();
    assert_eq!(findings(new(Some(prod()), 8, PROD)), Vec::<String>::new(), "it joined as one of that CA");
    assert_eq!(
        findings(issued(None, 7, CA)),
        Vec::<String>::new(),
        "a log without a word about it is the default one's"
    );
    let over =
        [issued(None, 7, CA), vec![moved(prod(), &[CA], true), proven(&[CA, PROD]), moved(prod(), &[CA], false)]];
    assert_eq!(findings(over.concat()), Vec::<String>::new(), "it went over with a certificate that lasts");
}

#[test]
fn a_certificate_by_the_key_of_another_ca_than_its_hosts_is_found() {
    let joined = || vec![moved(prod(), &[], false)];
    found([joined(), issued(Some(prod()), 8, CA)].concat(), "is not the one that signs for CA prod");
    found(issued(None, 7, PROD), "is not the one that signs for CA default");
    found([joined(), issued(None, 8, CA)].concat(), "host web-1 was of CA prod, not of CA default");
    found(issued(Some(prod()), 7, PROD), "host web-1 was of CA default, not of CA prod");
    let waits = [vec![proven(&[CA]), moved(prod(), &[CA], true)], issued(Some(prod()), 9, PROD)].concat();
    found(waits, "had not proven that it trusts a key of CA prod");
}

#[test]
fn a_host_that_could_not_have_gone_over_so_is_found() {
    found(vec![proven(&[CA]), moved(prod(), &[CA], false)], "did not have to prove");
    let early = vec![proven(&[CA]), moved(prod(), &[CA], true), moved(prod(), &[CA], false)];
    found(early, "did not prove that it trusts the key of CA prod");
    found(vec![moved(prod(), &[9], false)], "trusts a key that it did not trust before");
    let cut_off = [issued(None, 7, CA), vec![moved(prod(), &[], true)]].concat();
    found(cut_off, "a certificate for it by that key lasts");
}

#[test]
fn a_trust_bundle_that_changes_and_keeps_its_version_is_found() {
    let step = |kept: Option<BTreeMap<CaName, Stand>>| {
        let staged = Move { key: public_key(8), from: None, to: KeyState::Staged, why: String::new() };
        let keys = apply(&both(), &Ca::User(prod()), &[staged], at(200)).unwrap();
        vec![Event::CaKeysChanged {
            by: Mover(Actor::Person(person("bob"))),
            step: Step::Start,
            why: vec!["as an example".to_owned()],
            unproven: BTreeSet::new(),
            keys,
            purpose: None,
            early: None,
            proposer: None,
            ca: Some(prod()),
            kept,
        }]
    };
    let stand = Stand { version: 2, since: at(200) };
    assert_eq!(findings(step(Some(BTreeMap::from([(CaName::DEFAULT, stand)])))), Vec::<String>::new());
    found(step(Some(BTreeMap::from([(prod(), stand)]))), "is another one, and keeps its version");
    let other = Stand { version: 1, since: at(200) };
    found(step(Some(BTreeMap::from([(CaName::DEFAULT, other)]))), "is another one, and keeps its version");
}

/// With every member that was added for several CAs; for the golden file.
pub(crate) fn later_members() -> Vec<Event> {
    let stand = Stand { version: 2, since: at(0) };
    let kept = Some(BTreeMap::from([(CaName::DEFAULT, stand), (prod(), stand)]));
    let ca = public_key(CA).fingerprint();
    let question = issued(Some(prod()), 8, PROD).remove(0);
    vec![Event::ServiceStarted { ca, version: "0.1.0".to_owned(), keys: Some(both()), kept }, question]
}

/// Of those kinds that can lack something one each that lacks nothing; for the golden file.
pub(crate) fn with_everything() -> Vec<Event> {
    let stand = Stand { version: 2, since: at(0) };
    let kept = || Some(BTreeMap::from([(prod(), stand)]));
    let mut question = issued(Some(prod()), 8, PROD).remove(0);
    if let Event::Asked { account_scope, command, sources, start: from, .. } = &mut question {
        *account_scope = hosts(&["web-1", "web-2"]);
        *command = Some("journalctl -u \"api\"".to_owned());
        *sources = BTreeSet::from(["10.0.0.0/8".to_owned(), "2001:db8::/32".to_owned()]);
        *from = Some(at(60));
    }
    let (mut rotated, _) = rotated(Step::Start, (9, None, KeyState::Staged), &both());
    if let Event::CaKeysChanged { purpose, early, proposer, ca, kept: keeps, .. } = &mut rotated {
        (*purpose, *early, *proposer) = (Some(Purpose::User), Some(true), Some(person("olga")));
        (*ca, *keeps) = (Some(prod()), kept());
    }
    let mut proposal = proposed(&both());
    if let Event::CaStepProposed { kept: keeps, .. } = &mut proposal {
        *keeps = kept();
    }
    let mut checked_in = proven(&[CA, PROD]);
    if let Event::Host(HostEvent::CheckInChanged { risky, .. }) = &mut checked_in {
        *risky = BTreeSet::from(["PermitRootLogin yes".to_owned()]);
    }
    let refused = HostEvent::SessionRefused {
        host: HostName::parse("web-1").unwrap(),
        report: ReportId::parse("r0000009").unwrap(),
        serial: 1,
        key_id: "hallpass/7K3F9QX2/alice".to_owned(),
        ca: public_key(CA).fingerprint(),
        account: "deploy".to_owned(),
        from: "192.0.2.17 port 51234".to_owned(),
        refused: at(9_003),
        why: "its window is over".to_owned(),
        request: Some(id("7K3F-9QX2")),
    };
    vec![question, rotated, proposal, checked_in, refused.into()]
}
