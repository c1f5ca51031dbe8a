//! Logs that were signed whole and are not sound: each rule that the replay checks is broken once, and named.

use std::collections::BTreeSet;

use hallpass::audit::event::Event;
use hallpass::audit::export::{Finding, FindingKind};
use hallpass::name::{PolicyVersion, Principal, Serial};
use hallpass::ssh::cert::{Extension, Fields, ForceCommand};

use super::log::*;

/// Changes one event of the story; the export is then signed like any other.
fn forged(index: usize, change: impl FnOnce(&mut Event)) -> String {
    let mut events = story();
    change(&mut events[index].1);
    let findings = check(export(events).as_bytes()).unwrap_err();
    // What bob signed does not fit such a log either; that is told apart.
    let follows = |finding: &Finding| finding.kind == FindingKind::Approval && finding.entry == Some(7);
    let is_meaning = |finding: &Finding| finding.kind == FindingKind::Meaning;
    assert!(findings.iter().all(|finding| is_meaning(finding) || follows(finding)), "{findings:?}");
    findings.iter().find(|finding| is_meaning(finding)).unwrap_or_else(|| panic!("{findings:?}")).what.clone()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: one broken rule after the other")]
fn a_log_that_was_signed_whole_but_contradicts_itself_is_found() {
    let found = |index: usize, wanted: &str, change: &dyn Fn(&mut Event)| {
        let what = forged(index, change);
        assert!(what.contains(wanted), "entry {index}: {what}, not {wanted}");
    };
    found(7, "alice approved their own request", &|event| {
        if let Event::Approved { by, .. } = event {
            *by = person("alice");
        }
    });
    found(8, "alice approved their own request", &|event| {
        if let Event::Granted { approvers, .. } = event {
            approvers.insert(person("alice"));
        }
    });
    found(7, "something else than what waited", &|event| {
        if let Event::Approved { digest: of, .. } = event {
            *of = digest(9);
        }
    });
    found(8, "whose approval is not in the log", &|event| {
        if let Event::Granted { approvers, .. } = event {
            approvers.insert(person("carol"));
        }
    });
    found(8, "nobody approved it", &|event| {
        if let Event::Granted { approvers, .. } = event {
            approvers.clear();
        }
    });
    found(8, "ends later than what was granted", &|event| {
        if let Event::Granted { window: of, .. } = event {
            *of = window(0, 1821);
        }
    });
    found(13, "ends at another time than what was granted", &|event| {
        if let Event::Granted { window: of, .. } = event {
            *of = window(880, 2421);
        }
    });
    found(6, "an approver widened", &|event| {
        if let Event::Narrowed { lifetime, .. } = event {
            *lifetime = seconds(3601);
        }
    });
    found(6, "an approver widened", &|event| {
        if let Event::Narrowed { hosts: of, .. } = event {
            of.extend(hosts(&["db-1"]));
        }
    });
    found(9, "not the granted one", &|event| *event = to_be_signed("7K3F-9QX2", 9, window(0, 1821), "web-1"));
    found(9, "name another set of principals", &|event| {
        *event = to_be_signed("7K3F-9QX2", 9, window(0, 1820), "web-2");
    });
    found(8, "begins at another time than", &|event| {
        if let Event::Granted { window: of, .. } = event {
            *of = window(1, 1820);
        }
    });
    found(5, "begins before the start that was asked for", &|event| {
        if let Event::Asked { start, .. } = event {
            *start = Some(at(40));
        }
    });
    let but = |change: &dyn Fn(&mut Fields)| to_be_signed_but("7K3F-9QX2", 9, window(0, 1820), "web-1", change);
    let principals = |texts: &[&str]| texts.iter().map(|text| Principal::parse(text).unwrap()).collect();
    let bare = but(&|fields| fields.principals = principals(&["deploy"]));
    found(9, "name another set of principals", &|event| *event = bare.clone());
    let more = but(&|fields| fields.principals = principals(&["deploy@web-1", "deploy"]));
    found(9, "name another set of principals", &|event| *event = more.clone());
    let forwarding = but(&|fields| fields.options.permits.extend([Extension::PortForwarding]));
    found(9, "name another set of extensions", &|event| *event = forwarding.clone());
    let fewer = but(&|fields| fields.options.permits.clear());
    found(9, "name another set of extensions", &|event| *event = fewer.clone());
    let forced = but(&|fields| fields.options.force_command = Some(ForceCommand::parse("id").unwrap()));
    found(9, "name another forced command", &|event| *event = forced.clone());
    let from = but(&|fields| fields.options.source_addresses.extend(["10.0.0.0/8".parse::<ipnet::IpNet>().unwrap()]));
    found(9, "name another set of source addresses", &|event| *event = from.clone());
    // The same the other way round: a restriction that was asked for is missing from the certificate.
    found(5, "name another forced command", &|event| {
        if let Event::Asked { command, .. } = event {
            *command = Some("id".to_owned());
        }
    });
    found(5, "name another set of source addresses", &|event| {
        if let Event::Asked { sources, .. } = event {
            sources.insert("10.0.0.0/8".to_owned());
        }
    });
    found(5, "name another verify-required", &|event| {
        if let Event::Asked { verify_required, .. } = event {
            *verify_required = true;
        }
    });
    found(9, "not the number of its entry", &|event| *event = to_be_signed("7K3F-9QX2", 8, window(0, 1820), "web-1"));
    found(9, "the bytes to be signed", &|event| {
        if let Event::CertificateToBeSigned { tbs, .. } = event {
            tbs.pop();
        }
    });
    found(9, "name another window", &|event| {
        if let Event::CertificateToBeSigned { tbs, .. } = event {
            let Event::CertificateToBeSigned { tbs: other, .. } =
                to_be_signed("7K3F-9QX2", 9, window(0, 1821), "web-1")
            else {
                return;
            };
            *tbs = other;
        }
    });
    found(2, "is not the active one of its CA keys", &|event| {
        if let Event::ServiceStarted { ca, .. } = event {
            *ca = public_key(5).fingerprint();
        }
    });
    found(2, "was not announced", &|event| {
        if let Event::ServiceStarted { ca, keys, .. } = event {
            *ca = public_key(5).fingerprint();
            *keys = None;
        }
    });
    found(1, "policy 2 follows policy 0", &|event| {
        if let Event::PolicyApplied { version, .. } = event {
            *version = PolicyVersion(2);
        }
    });
    found(5, "a policy that was not in force (the last applied was 1)", &|event| {
        if let Event::Asked { policy, .. } = event {
            *policy = PolicyVersion(2);
        }
    });
    found(15, "was not about to be signed, or was signed before", &|event| {
        if let Event::CertificateSigned { serial, .. } = event {
            *serial = Serial::new(9).unwrap();
        }
    });
    found(17, "7K3F-9QX2 was asked for before", &|event| {
        if let Event::Asked { request, .. } = event {
            *request = id("7K3F-9QX2");
        }
    });
    found(5, "never asked for", &|event| *event = Event::LoggedOut { person: person("alice") });
    found(12, "something else was granted", &|event| {
        *event = Event::Narrowed {
            request: id("7K3F-9QX2"),
            by: person("carol"),
            lifetime: seconds(600),
            hosts: hosts(&["web-1"]),
            permits: BTreeSet::new(),
            digest: digest(8),
        };
    });
}

#[test]
fn times_that_run_backwards_or_ahead_of_a_window_are_found() {
    let mut events = story();
    events[4].0 = 4;
    let findings = check(export(events).as_bytes()).unwrap_err();
    assert_eq!(kinds(&findings), [FindingKind::Time]);
    assert_eq!(findings[0].what, "it is older than the entry before it, by 1 s");

    let mut events = story();
    events[26].0 = 2865;
    let findings = check(export(events).as_bytes()).unwrap_err();
    assert_eq!(findings[0].what, "expired: its window lasts until 2026-01-05 10:47:46Z");
}
