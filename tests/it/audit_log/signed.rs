//! Signed approvals in a log: what was signed is compared with what the log says, and who signed with what the auditor knows.

use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::export::{Finding, FindingKind};
use hallpass::audit::report::{self, Demands, Report, UsageError};
use hallpass::identity::approval::Signature;
use hallpass::name::Account;
use hallpass::ssh::cert::Extension;
use hallpass::ssh::sig::{APPROVAL_NAMESPACE, LOGIN_NAMESPACE};

use super::log::*;

/// The entry in which alice asks, that in which bob narrows, and that in which he approves, signed.
const ASKED: usize = 5;
const NARROWED: usize = 6;
const APPROVED: usize = 7;

/// The findings in a log that was signed whole with one event changed.
fn forged(index: usize, change: &dyn Fn(&mut Event)) -> Vec<Finding> {
    let mut events = story();
    change(&mut events[index].1);
    check(export(events).as_bytes()).unwrap_err()
}

fn signature_of(event: &mut Event) -> &mut Option<Signature> {
    let Event::Approved { signature, .. } = event else { panic!("{event:?}") };
    signature
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: one lie after the other")]
fn a_log_that_lies_about_what_was_signed_is_found_although_it_was_signed_whole() {
    let found = |what: &str, index: usize, change: &dyn Fn(&mut Event)| {
        let findings = forged(index, change);
        let about = findings.iter().find(|finding| finding.kind == FindingKind::Approval);
        let about = about.unwrap_or_else(|| panic!("{what}: {findings:?}"));
        assert_eq!((about.entry, about.line), (Some(7), 9), "{what}");
        assert!(about.what.starts_with("approved: the signature of "), "{}", about.what);
    };
    found("digest", ASKED, &|event| {
        if let Event::Asked { digest: of, .. } = event {
            *of = digest(9);
        }
    });
    found("account", ASKED, &|event| {
        if let Event::Asked { account, .. } = event {
            *account = Account::parse("root").unwrap();
        }
    });
    found("key", ASKED, &|event| {
        if let Event::Asked { key, .. } = event {
            *key = public_key(9).fingerprint();
        }
    });
    found("asker", ASKED, &|event| {
        if let Event::Asked { person: asker, .. } = event {
            *asker = person("mallory");
        }
    });
    found("scope", ASKED, &|event| {
        if let Event::Asked { account_scope, .. } = event {
            *account_scope = hosts(&["web-1"]);
        }
    });
    found("backdating", ASKED, &|event| {
        if let Event::Asked { backdate, .. } = event {
            *backdate = seconds(19);
        }
    });
    found("start", ASKED, &|event| {
        if let Event::Asked { start, .. } = event {
            *start = Some(at(15));
        }
    });
    found("command", ASKED, &|event| {
        if let Event::Asked { command, .. } = event {
            *command = Some("true".to_owned());
        }
    });
    found("sources", ASKED, &|event| {
        if let Event::Asked { sources, .. } = event {
            sources.insert("10.0.0.0/8".to_owned());
        }
    });
    found("verify-required", ASKED, &|event| {
        if let Event::Asked { verify_required, .. } = event {
            *verify_required = true;
        }
    });
    found("reason", ASKED, &|event| {
        if let Event::Asked { reason, .. } = event {
            *reason = "routine".to_owned();
        }
    });
    found("ticket", ASKED, &|event| {
        if let Event::Asked { ticket, .. } = event {
            *ticket = None;
        }
    });
    found("time left", NARROWED, &|event| {
        if let Event::Narrowed { lifetime, .. } = event {
            *lifetime = seconds(1801);
        }
    });
    found("hosts left", NARROWED, &|event| {
        if let Event::Narrowed { hosts: left, .. } = event {
            *left = hosts(&["web-1", "web-2"]);
        }
    });
    found("extensions left", NARROWED, &|event| {
        if let Event::Narrowed { permits, .. } = event {
            permits.insert(Extension::AgentForwarding);
        }
    });
    found("who narrowed", NARROWED, &|event| {
        if let Event::Narrowed { by, .. } = event {
            *by = person("carol");
        }
    });
    found("approver", APPROVED, &|event| {
        if let Event::Approved { by, .. } = event {
            *by = person("carol");
        }
    });
    found("remark", APPROVED, &|event| {
        if let Event::Approved { comment, .. } = event {
            *comment = "not ok".to_owned();
        }
    });
}

#[test]
fn a_signature_that_was_changed_or_swapped_is_found() {
    let found = |what: &str, change: &dyn Fn(&Signature) -> Signature| {
        let findings = forged(APPROVED, &|event| {
            let signature = signature_of(event);
            *signature = signature.as_ref().map(change);
        });
        let [Finding { entry: Some(7), kind: FindingKind::Approval, .. }] = findings.as_slice() else {
            panic!("{what}: {findings:?}");
        };
    };
    let but = |s: &Signature, server: &str, key: u8, seconds: u64| {
        Signature::new(server.to_owned(), public_key(key), at(seconds), s.sshsig().clone()).unwrap()
    };
    found("server", &|s| but(s, "https://elsewhere", BOB, 19));
    found("time", &|s| but(s, SERVER, BOB, 20));
    found("key named beside it", &|s| but(s, SERVER, 9, 19));
    found("of another statement", &|_| {
        let mut other = bobs_statement();
        other.request = id("00000001");
        signature(&other)
    });
    found("of a login", &|_| signature_by(BOB, LOGIN_NAMESPACE, &bobs_statement()));
}

fn verified(events: Vec<(u64, Event)>, demands: Demands<'_>) -> Report {
    report::verify(export(events).as_bytes(), demands).unwrap()
}

#[test]
fn a_report_says_how_many_approvals_are_signed_by_whom_and_for_which_server() {
    let report = verified(story(), Demands::default());
    let key = public_key(BOB).fingerprint();
    assert!(report.is_sound);
    for line in [
        "  approvals     1 signed by the approver, 1 by login alone\n".to_owned(),
        format!("  signed by     bob with {key}: 1\n"),
        format!("  signed for    {SERVER}\n"),
        "compare them with the policy".to_owned(),
    ] {
        assert!(report.text.contains(&line), "{line}: {}", report.text);
    }
    let expected = serde_json::json!({
        "signed": 1, "unsigned": 1, "servers": [SERVER],
        "signers": [{ "person": "bob", "key": key.to_string(), "count": 1 }],
    });
    assert_eq!(report.json["approvals"], expected);
}

#[test]
fn where_every_approval_must_be_signed_a_stripped_signature_is_found() {
    let demands = Demands { signed: true, ..Demands::default() };
    let report = verified(story(), demands);
    assert!(!report.is_sound);
    assert!(report.text.contains("entry 12: approval: carol approved without a signature\n"), "{}", report.text);
    let mut stripped = story();
    *signature_of(&mut stripped[APPROVED].1) = None;
    assert!(
        verified(stripped.clone(), Demands::default()).is_sound,
        "as sound as a log of before there were signatures"
    );
    let report = verified(stripped, demands);
    let found: Vec<_> = report.json["findings"].as_array().unwrap().iter().map(|f| f["entry"].as_u64()).collect();
    assert_eq!(found, [Some(7), Some(12)]);
}

fn knowing(signers: &str) -> Demands<'_> {
    Demands { signers: Some(signers), ..Demands::default() }
}

#[test]
fn a_key_that_the_holder_of_the_log_key_made_up_is_found_by_a_list_of_signers() {
    let mut forged = story();
    *signature_of(&mut forged[APPROVED].1) = Some(signature_by(66, APPROVAL_NAMESPACE, &bobs_statement()));
    assert!(verified(forged.clone(), Demands::default()).is_sound, "the signature fits, whosever the key is");
    let line = |name: &str, seed: u8| format!("{name} {} a comment\n", public_key(seed).to_openssh());
    let known = format!("# who signs\n\n{}{}", line("carol", 67), line("robert,bob", BOB));
    let report = verified(forged, knowing(&known));
    let made_up = public_key(66).fingerprint();
    let line_of_it = format!("entry 7: approval: {made_up} is none of your keys for bob\n");
    assert!(!report.is_sound && report.text.contains(&line_of_it), "{}", report.text);
    let report = verified(story(), knowing(&known));
    assert!(report.is_sound && !report.text.contains("compare them with the policy"), "{}", report.text);
    let carols = line("carol", BOB);
    assert!(!verified(story(), knowing(&carols)).is_sound, "bob's key in another name");
    for (bad, why) in [
        ("bob", "line 1: not a name and a key"),
        ("\nbob ssh-ed25519", "line 2: not an OpenSSH public key"),
        ("Bob ssh-ed25519 AAAA", "line 1: "),
    ] {
        let error = report::verify(SHORT.as_bytes(), knowing(bad)).unwrap_err();
        assert!(matches!(&error, UsageError::Signers(said) if said.contains(why)), "{error}");
    }
}

#[test]
fn an_approval_of_before_there_were_signatures_keeps_its_one_spelling() {
    let old = r#"{"at":1767608110,"by":"carol","comment":"ok","digest":"0303030303030303030303030303030303030303030303030303030303030303","index":12,"kind":"approved","policy":1,"request":"7K3F-9QX2","v":1}"#;
    let entry = Entry::parse(old.as_bytes()).unwrap();
    assert!(matches!(&entry.event, Event::Approved { signature: None, .. }));
    assert_eq!(entry.to_bytes(), old.as_bytes());
    let null = old.replace("\"v\":1", "\"signature\":null,\"v\":1");
    assert!(Entry::parse(null.as_bytes()).is_err(), "a second spelling of the same");
}

#[test]
fn a_logged_signature_has_one_spelling() {
    let line = SHORT.lines().nth(APPROVED + 1).unwrap();
    assert!(Entry::parse(line.as_bytes()).is_ok());
    for (from, to) in [
        ("-----BEGIN SSH", "\\n-----BEGIN SSH"),
        ("SIGNATURE-----\\nU1", "SIGNATURE-----\\r\\nU1"),
        ("SIGNATURE-----\\nU1", "SIGNATURE-----U1"),
        ("\"key\":\"ssh-ed25519 ", "\"key\":\"ssh-ed25519  "),
        ("\"server\":", "\"more\":1,\"server\":"),
        ("\"signed\":1767607219,", ""),
        ("\"server\":\"https://", "\"server\":\"https:// "),
    ] {
        assert!(line.contains(from), "{from}");
        assert!(Entry::parse(line.replacen(from, to, 1).as_bytes()).is_err(), "{from} as {to}");
    }
}

#[test]
fn a_signed_approval_is_told_with_its_key() {
    let key = public_key(BOB).fingerprint();
    let sentences: Vec<String> = story().into_iter().map(|(_, event)| event.sentence()).collect();
    assert_eq!(sentences[APPROVED], format!("7K3F-9QX2: bob approved it, signed by {key}: \"ok\""));
    assert_eq!(sentences[12], "7K3F-9QX2: carol approved it: \"ok\"");
    let entry = entries(story()).swap_remove(APPROVED);
    let shown = report::details(&entry);
    assert!(shown.contains("  signature     by \"ssh-ed25519 "), "{shown}");
    assert!(!shown.contains("BEGIN SSH"), "{shown}");
}
