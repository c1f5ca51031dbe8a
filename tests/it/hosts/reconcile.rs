//! What an auditor finds in a log by holding logins against grants.

use std::collections::BTreeSet;

use hallpass::audit::event::Event;
use hallpass::audit::host_event::{Flag, HostEvent};
use hallpass::audit::reconcile::{FindingKind, Reconciled, Reconciler};
use hallpass::name::{HostName, JoinId, ReportId};

use crate::audit_log::log::{CA, at, entries, id, public_key, story};

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn enrolled(name: &str) -> (u64, Event) {
    let event = HostEvent::HostEnrolled {
        host: host(name),
        join: JoinId::from_random([1; 5]),
        keys: vec![public_key(60)],
        names: BTreeSet::new(),
        tags: BTreeSet::new(),
    };
    (2901, event.into())
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

fn reconciled(more: Vec<(u64, Event)>, since: u64) -> Reconciled {
    let mut reconciler = Reconciler::new(at(since));
    for entry in entries(story().into_iter().chain(more).collect()) {
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
    let found = reconciled(vec![enrolled("web-1"), login(9, "deploy", 100, REQUEST)], 0);
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
        let found = reconciled(vec![enrolled("web-1"), event.clone()], 0);
        assert!(kinds(&found).contains(&kind), "{event:?}: {found:?}");
    }
}

#[test]
fn a_grant_that_nobody_used_is_found_if_its_hosts_report() {
    assert_eq!(kinds(&reconciled(vec![enrolled("web-1")], 0)), [FindingKind::NeverUsed]);
    assert_eq!(kinds(&reconciled(vec![enrolled("web-2")], 0)), [], "web-1 reports nothing");
    assert_eq!(kinds(&reconciled(vec![enrolled("web-1")], 3000)), [], "its window ended before");
    let found = reconciled(vec![enrolled("web-1"), login(9, "root", 100, REQUEST)], 200);
    assert_eq!((found.sessions, kinds(&found)), (0, vec![]), "used before, and looked at only since");
}
