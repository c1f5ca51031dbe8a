//! What an auditor finds in a log by holding logins against grants.

use std::collections::BTreeSet;

use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::host_event::{Flag, HostEvent};
use hallpass::audit::reconcile::{FindingKind, Reconciled, Reconciler};
use hallpass::name::{HostName, JoinId, ReportId};

use crate::audit_log::log::{CA, at, digest, entries, id, public_key, story};

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn enrolled(name: &str, at: u64) -> (u64, Event) {
    let event = HostEvent::HostEnrolled {
        host: host(name),
        join: JoinId::from_random([1; 5]),
        keys: vec![public_key(60)],
        names: BTreeSet::new(),
        tags: BTreeSet::new(),
    };
    (at, event.into())
}

/// The host tells of itself, for the first time or anew.
fn checked_in(name: &str, guard: bool, at: u64) -> (u64, Event) {
    let event = HostEvent::CheckInChanged {
        host: host(name),
        program: "0.1.0".to_owned(),
        sshd: "9.2p1".to_owned(),
        os: "Debian 12".to_owned(),
        guard,
        clock_ok: true,
        file_sha256: digest(1),
        keys: BTreeSet::new(),
        proven: BTreeSet::new(),
        risky: BTreeSet::new(),
    };
    (at, event.into())
}

fn left(name: &str, at: u64) -> (u64, Event) {
    (at, HostEvent::HostLeft { host: host(name) }.into())
}

/// Enrolled, and in touch at once.
fn reports(name: &str, at: u64) -> Vec<(u64, Event)> {
    vec![enrolled(name, at), checked_in(name, true, at)]
}

/// A login to web-1 with certificate 9 of the story, whose window is from 0 to 1820.
fn login(serial: u64, account: &str, opened: u64, request: Option<&str>) -> (u64, Event) {
    let event = HostEvent::SessionOpened {
        host: host("web-1"),
        report: ReportId::parse("r").unwrap(),
        serial,
        key_id: "hallpass/7K3F9QX2/alice".to_owned(),
        ca: public_key(CA).fingerprint(),
        account: account.to_owned(),
        from: String::new(),
        opened: at(opened),
        request: request.map(id),
    };
    (2902, event.into())
}

/// The story of a log, with what hosts do and report.
fn reconciled(more: Vec<(u64, Event)>, since: u64) -> Reconciled {
    let mut reconciler = Reconciler::new(at(since));
    let mut all: Vec<Entry> = entries(story()).into_iter().chain(entries(more)).collect();
    // Numbers are the story's, since they are serials; what comes first is told by the time.
    all.sort_by_key(|entry| entry.at);
    for entry in all {
        reconciler.take(&entry);
    }
    reconciler.finish(at(5000))
}

fn kinds(found: &Reconciled) -> Vec<FindingKind> {
    found.findings.iter().map(|finding| finding.kind).collect()
}

const REQUEST: Option<&str> = Some("7K3F-9QX2");

#[test]
fn a_grant_that_was_used_as_granted_is_no_finding() {
    let found = reconciled([reports("web-1", 0), vec![login(9, "deploy", 100, REQUEST)]].concat(), 0);
    assert_eq!((found.sessions, kinds(&found)), (1, vec![]));
}

#[test]
fn each_way_in_which_a_login_does_not_fit_is_found() {
    let outside = FindingKind::Login(Flag::OutsideGrant);
    let without = FindingKind::Login(Flag::WithoutRequest);
    let after = FindingKind::Login(Flag::AfterEnd);
    for (event, kind) in [
        (login(9, "root", 100, REQUEST), outside),
        (login(14, "deploy", 100, REQUEST), outside),
        (login(9, "deploy", 1820, REQUEST), after),
        (login(14, "deploy", 1011, REQUEST), after),
        (login(10, "deploy", 100, REQUEST), without),
        (login(9, "deploy", 100, None), without),
    ] {
        let found = reconciled([reports("web-1", 0), vec![event.clone()]].concat(), 0);
        assert!(kinds(&found).contains(&kind), "{event:?}: {found:?}");
    }
}

#[test]
fn a_grant_that_nobody_used_is_found_if_its_hosts_report() {
    let found = reconciled(reports("web-1", 0), 0);
    assert_eq!((kinds(&found), found.reporting, found.unseen), (vec![FindingKind::NeverUsed], 1, 0));
    let found = reconciled(reports("web-2", 0), 0);
    assert_eq!((kinds(&found), found.reporting, found.unseen), (vec![], 1, 2), "web-1 reports nothing");
    assert_eq!(kinds(&reconciled(reports("web-1", 0), 3000)), [], "its window ended before");
    let found = reconciled([reports("web-1", 0), vec![login(9, "root", 100, REQUEST)]].concat(), 2903);
    assert_eq!((found.sessions, kinds(&found)), (0, vec![]), "used and reported before, and looked at only since");
}

#[test]
fn a_login_that_is_reported_late_or_by_a_clock_that_is_wrong_is_looked_at() {
    // Reported at 2902, whenever it was.
    for (opened, since, is_looked_at) in
        [(100, 2902, true), (100, 2903, false), (2950, 2940, true), (2930, 2940, false)]
    {
        let found = reconciled([reports("web-1", 0), vec![login(9, "root", opened, REQUEST)]].concat(), since);
        assert_eq!(found.sessions, u64::from(is_looked_at), "{opened} {since}");
    }
}

#[test]
fn nothing_follows_from_the_silence_of_a_host_that_did_not_report_all_the_while() {
    for (what, more) in [
        ("it joined when the window was over", reports("web-1", 2950)),
        ("it joined when the certificate was there already", reports("web-1", 500)),
        ("it joined, and was never heard of", vec![enrolled("web-1", 0)]),
        ("its guard was never armed", vec![enrolled("web-1", 0), checked_in("web-1", false, 0)]),
        ("its guard was not armed for a while", [reports("web-1", 0), vec![checked_in("web-1", false, 500)]].concat()),
        ("it left before the end", [reports("web-1", 0), vec![left("web-1", 500)]].concat()),
        ("it came again", [reports("web-1", 0), vec![left("web-1", 500)], reports("web-1", 600)].concat()),
    ] {
        let found = reconciled(more, 0);
        assert_eq!((kinds(&found), found.unseen), (vec![], 2), "{what}");
    }
    let found = reconciled(Vec::new(), 0);
    assert_eq!((found.reporting, found.unseen), (0, 2), "there is no host");
    let found = reconciled([reports("web-1", 0), vec![left("web-1", 1100)]].concat(), 0);
    assert_eq!(kinds(&found), [FindingKind::NeverUsed], "it left when the access had been ended");
}
