//! The log as an auditor meets it: one spelling per entry, a tree that agrees with the RFC, and an export in which nothing
//! can be changed, moved, added or cut without being found and named.

mod cas;
mod evidence;
mod hosts;
pub(crate) mod log;
mod lost;
mod manual;
mod meaning;
mod signed;
mod tree;

use std::collections::BTreeSet;

use hallpass::audit::checkpoint::LogKey;
use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::export::{Exporter, FindingKind, verify};
use hallpass::audit::report::{self, Demands};
use hallpass::audit::tree::{Frontier, leaf_hash};
use hallpass::keyring::step::Step;
use hallpass::ssh::bundle::KeyState;
use proptest::prelude::*;

use self::log::*;

#[test]
fn every_kind_of_entry_is_written_as_in_the_golden_file_and_read_back() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events.jsonl");
    let (started, staged) = rotated(Step::Start, (6, None, KeyState::Staged), &ring());
    let proposed = proposed(&staged);
    let browser = Event::BrowserSignedIn {
        person: person("alice"),
        key: public_key(4).fingerprint(),
        address: "192.0.2.7".to_owned(),
        expires: at(43_205),
    };
    let cas = cas::later_members().into_iter().map(|event| (9_002, event));
    let later = [(9_000, started), (9_001, browser), (9_001, proposed)].into_iter().chain(cas);
    let whole = cas::with_everything().into_iter().map(|event| (9_101, event));
    let story = hosts::hosts_story().into_iter().chain(later).chain(lost::given_up()).chain(whole);
    let entries = entries(story.collect());
    let lines: Vec<String> = entries.iter().map(|e| String::from_utf8(e.to_bytes()).unwrap()).collect();
    let text = format!("{}\n", lines.join("\n"));
    if std::env::var_os("HALLPASS_UPDATE_GOLDEN").is_some() {
        hallpass::durable::replace(&golden, text.as_bytes(), 0o644).unwrap();
    }
    assert_eq!(std::fs::read_to_string(golden).unwrap(), text, "set HALLPASS_UPDATE_GOLDEN=1 to write it anew");
    for (line, entry) in lines.iter().zip(&entries) {
        assert_eq!(Entry::parse(line.as_bytes()).as_ref(), Ok(entry));
    }
    let seen: BTreeSet<&str> = entries.iter().map(|entry| entry.event.kind()).collect();
    assert_eq!(seen, Event::KINDS.iter().copied().collect(), "a kind without an example");
}

#[test]
fn a_rotation_that_could_not_have_been_is_found() {
    use KeyState::{Active, Compromised, Draining, Retired, Staged};
    let staged = || (6, None, Staged);
    let found = |steps: &[(Step, Moved)]| {
        let (mut events, mut ring) = (story(), ring());
        for (step, moved) in steps {
            let (event, next) = rotated(*step, *moved, &ring);
            ring = next;
            events.push((9_000, event));
        }
        check(export(events).as_bytes()).err().unwrap_or_default().into_iter().map(|one| one.what).collect::<String>()
    };
    assert_eq!(found(&[(Step::Start, staged()), (Step::Abort, (6, Some(Staged), Retired))]), "");
    assert_eq!(found(&[(Step::Start, staged()), (Step::Compromise, (6, Some(Staged), Compromised))]), "");
    for (step, moved) in [(Step::Switch, staged()), (Step::Start, (6, None, Draining)), (Step::Finish, staged())] {
        assert!(found(&[(step, moved)]).contains("does not make"), "{moved:?}");
    }
    let lost = [(Step::Start, staged()), (Step::Compromise, (6, Some(Staged), Compromised))];
    let back = [&lost[..], &[(Step::Start, (6, Some(Compromised), Staged))]].concat();
    assert!(found(&back).contains("was compromised and is no longer"));
    assert_eq!(found(&[(Step::Compromise, (CA, Some(Active), Compromised))]), "", "better none than a thief's");
    let none = found(&[(Step::Switch, (CA, Some(Active), Draining))]);
    assert!(none.contains("no user CA key is active after it"), "{none}");
}

#[test]
fn no_sentence_holds_a_character_that_could_deceive_a_terminal() {
    for (_, event) in story() {
        let sentence = event.sentence();
        let harmless = |c: char| !c.is_control() && !('\u{200b}'..='\u{206f}').contains(&c);
        assert!(sentence.chars().all(harmless), "{sentence:?}");
    }
}

#[test]
fn a_sound_export_is_verified_and_says_what_it_shows() {
    for size in [story().len(), 256, 257, 600] {
        let verified = check(export(long_story(size)).as_bytes()).unwrap();
        assert_eq!(verified.entries, u64::try_from(size).unwrap());
        assert_eq!((verified.certificates, verified.without_outcome.len()), (2, 0));
    }
}

#[test]
fn the_key_of_the_file_is_believed_only_when_none_is_given() {
    let text = export(story());
    assert_eq!(verify(text.as_bytes(), None, None).unwrap().key, log_key().verifier());
    let other = LogKey::new(ORIGIN, &[8; 32]).unwrap().verifier();
    let findings = verify(text.as_bytes(), Some(&other), None).unwrap_err();
    assert!(kinds(&findings).contains(&FindingKind::Signature));
}

#[test]
fn a_change_that_keeps_the_form_is_located_within_its_group() {
    let text = export(long_story(600));
    let changed = text.replacen("\"reason\":\"more\"", "\"reason\":\"less\"", 1);
    let findings = check(changed.as_bytes()).unwrap_err();
    assert_eq!(kinds(&findings), [FindingKind::Group, FindingKind::Root]);
    assert!(findings[0].what.contains("entries 0 to 255"), "{findings:?}");

    let mut events = long_story(600);
    events[599].1 = Event::LoggedOut { person: person("mallory") };
    let forged = entries(events).pop().unwrap();
    let original = entries(long_story(600)).pop().unwrap();
    let line = |entry: &Entry| String::from_utf8(entry.to_bytes()).unwrap();
    let findings = check(text.replace(&line(&original), &line(&forged)).as_bytes()).unwrap_err();
    assert_eq!(kinds(&findings), [FindingKind::Root]);
    assert!(findings[0].what.contains("entries 0 to 511 agree"), "{findings:?}");
}

#[test]
fn a_group_that_begins_elsewhere_is_still_a_group() {
    let text = export(long_story(600));
    let subtree = |entries: &[&str], position: usize| {
        let mut tree = Frontier::default();
        entries.iter().for_each(|entry| drop(tree.push(leaf_hash(entry.as_bytes()))));
        let hash = data_encoding::HEXLOWER.encode(&tree.root());
        format!("{{\"subtree\":{{\"hash\":\"{hash}\",\"level\":8,\"position\":{position}}}}}")
    };
    let (header, rest) = text.split_once('\n').unwrap();
    let (entries, checkpoint): (Vec<&str>, _) =
        (rest.lines().filter(|line| line.starts_with("{\"a")).collect(), rest.lines().last().unwrap());
    // A line that comes too early, and then one after each 256 entries from there.
    let mut lines = vec![header.to_owned()];
    for (position, group) in [&entries[..5], &entries[5..261], &entries[261..517]].into_iter().enumerate() {
        lines.extend(group.iter().map(|entry| (*entry).to_owned()));
        lines.push(subtree(group, position));
    }
    lines.extend(entries[517..].iter().map(|entry| (*entry).to_owned()));
    lines.push(checkpoint.to_owned());
    let findings = |lines: &[String]| {
        let found = check(format!("{}\n", lines.join("\n")).as_bytes()).unwrap_err();
        found.into_iter().map(|finding| (finding.line, finding.what)).collect::<Vec<_>>()
    };
    let early = (7, "a subtree line after 5 entries instead of 256".to_owned());
    assert_eq!(findings(&lines), std::slice::from_ref(&early));
    // The hash of the last of them is still looked at.
    lines[520] = subtree(&entries[260..516], 2);
    let other = "entries 261 to 516 are not those that the subtree line (level 8) was written for".to_owned();
    assert_eq!(findings(&lines), [early, (521, other)]);
}

#[test]
fn what_is_missing_doubled_moved_or_cut_is_named() {
    let text = export(story());
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| format!("{}\n", lines.join("\n"));

    let mut without = lines.clone();
    without.remove(5);
    let findings = check(joined(&without).as_bytes()).unwrap_err();
    assert_eq!(findings[0].what, "entry 4 is missing before entry 5");
    assert_eq!((findings[0].line, findings[0].entry), (6, Some(5)));

    let mut swapped = lines.clone();
    swapped.swap(18, 20);
    let findings = check(joined(&swapped).as_bytes()).unwrap_err();
    assert_eq!(findings[0].kind, FindingKind::Sequence);

    let mut doubled = lines.clone();
    doubled.insert(6, lines[5]);
    let findings = check(joined(&doubled).as_bytes()).unwrap_err();
    assert_eq!(findings[0].what, "entry 4 stands where entry 5 belongs: doubled or out of order");

    for size in 1..lines.len() {
        let findings = check(joined(&lines[..size]).as_bytes()).unwrap_err();
        assert!(findings.iter().any(|finding| finding.what.contains("cut off")), "{size}");
    }

    let mut cut = lines.clone();
    cut.remove(lines.len() - 2);
    let findings = check(joined(&cut).as_bytes()).unwrap_err();
    assert_eq!(findings[0].what, "the checkpoint covers 28 entries, the file has 27");
    assert!(check(b"").is_err());
    assert!(check(format!("{text}{}\n", lines[3]).as_bytes()).is_err());
}

#[test]
fn a_history_written_anew_is_found_by_a_checkpoint_kept_from_before() {
    let earlier = checkpoint_at(&story()[..15]);
    let key = log_key().verifier();
    let with = |events| verify(export(events).as_bytes(), Some(&key), Some(&earlier));
    assert!(with(story()).is_ok());
    assert!(with(story()[..15].to_vec()).is_ok());

    let mut other = story();
    other[4].0 = 7;
    let findings = with(other).unwrap_err();
    assert_eq!(kinds(&findings), [FindingKind::Earlier]);
    assert!(findings[0].what.contains("the first 15 entries are not those"), "{findings:?}");

    let findings = with(story()[..14].to_vec()).unwrap_err();
    assert!(findings[0].what.contains("the log was cut"), "{findings:?}");
    let theirs = LogKey::new("other.example/log", &[7; 32]).unwrap().sign(3, &[0; 32]);
    assert!(verify(export(story()).as_bytes(), Some(&key), Some(&theirs)).is_err());
}

#[test]
fn an_exporter_refuses_what_does_not_fit_together() {
    let entries = entries(story());
    let (mut exporter, _) = Exporter::new(log_key().verifier());
    assert!(exporter.entry(&entries[1].to_bytes()).unwrap_err().to_string().contains("instead of entry 0"));
    assert!(exporter.entry(b"{}").is_err());
    exporter.entry(&entries[0].to_bytes()).unwrap();
    let root = leaf_hash(&entries[0].to_bytes());
    let finish = |note: String| {
        let (mut exporter, _) = Exporter::new(log_key().verifier());
        exporter.entry(&entries[0].to_bytes()).unwrap();
        exporter.finish(&note).map_err(|why| why.to_string())
    };
    assert!(finish(log_key().sign(1, &root)).is_ok());
    assert!(finish(log_key().sign(2, &root)).unwrap_err().contains("covers 2 entries"));
    assert!(finish(log_key().sign(1, &[0; 32])).unwrap_err().contains("not those"));
    assert!(finish(LogKey::new(ORIGIN, &[8; 32]).unwrap().sign(1, &root)).is_err());
}

/// What an exporter of this log's key makes of an older export, and how many entries it took over.
fn taken_over(text: &str) -> Result<(Exporter, String), String> {
    let (mut exporter, mut lines) = Exporter::new(log_key().verifier());
    for line in text.lines().skip(1) {
        match exporter.earlier_line(line.as_bytes()).map_err(|why| why.to_string())? {
            Some(more) => lines.push_str(&more),
            None => return Ok((exporter, lines)),
        }
    }
    Err("there is no checkpoint".to_owned())
}

#[test]
fn an_export_that_goes_on_from_an_older_one_is_the_same_as_a_whole_one() {
    let all = entries(long_story(600));
    let whole = export(long_story(600));
    for size in [1, 255, 256, 300, 512, 600] {
        let (mut exporter, mut lines) = taken_over(&export(long_story(size))).unwrap();
        assert_eq!(exporter.size(), u64::try_from(size).unwrap());
        for entry in &all[size..] {
            lines.push_str(&exporter.entry(&entry.to_bytes()).unwrap());
        }
        let mut tree = Frontier::default();
        all.iter().for_each(|entry| drop(tree.push(Entry::leaf_hash(&entry.to_bytes()))));
        lines.push_str(&exporter.finish(&log_key().sign(600, &tree.root())).unwrap());
        assert!(lines == whole, "from {size} entries on");
    }
}

#[test]
fn an_older_export_is_taken_over_only_if_its_checkpoint_is_over_it() {
    let text = export(long_story(300));
    let why = |text: &str| taken_over(text).err().unwrap_or_default();
    assert_eq!(
        why(&text.replacen("alice", "mallory", 1)),
        "the entries are not those that the checkpoint was signed for"
    );
    let lines: Vec<&str> = text.lines().collect();
    let without = |number: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != number).map(|(_, line)| format!("{line}\n"));
        kept.collect::<String>()
    };
    assert!(why(&without(5)).starts_with("instead of entry 4 came entry 5"), "{}", why(&without(5)));
    assert_eq!(why(&without(lines.len() - 2)), "the checkpoint covers 300 entries, and there are 299");
    assert_eq!(why(&without(lines.len() - 1)), "there is no checkpoint");
    assert!(why(&text.replacen('\n', &format!("\n{}\n", lines[0]), 1)).contains("the first line of an export"));
    let other = LogKey::new(ORIGIN, &[8; 32]).unwrap();
    let (mut exporter, _) = Exporter::new(other.verifier());
    let taken = lines[1..].iter().try_for_each(|line| exporter.earlier_line(line.as_bytes()).map(drop));
    assert_eq!(taken.unwrap_err().to_string(), "the checkpoint is not signed by this log's key");
}

#[test]
fn a_report_says_whose_key_it_believed() {
    let text = export(story());
    let key = log_key().verifier().to_text();
    let known = Demands { key: Some(&key), ..Demands::default() };
    let trusting = report::verify(text.as_bytes(), Demands::default()).unwrap();
    assert!(trusting.is_sound && trusting.text.contains("nobody vouched"), "{}", trusting.text);
    let checked = report::verify(text.as_bytes(), Demands { earlier: text.lines().last(), ..known }).unwrap();
    assert!(checked.is_sound && checked.text.contains("the log continues the one of 28 entries"), "{}", checked.text);
    assert_eq!(checked.json["key_given"], true);
    let changed = text.replacen("done", "gone", 1);
    let report = report::verify(changed.as_bytes(), known).unwrap();
    assert!(!report.is_sound && report.text.starts_with("the log is NOT sound: 1 finding\n"), "{}", report.text);
    assert_eq!(report.json["findings"][0]["kind"], "root");
    assert!(report::verify(text.as_bytes(), Demands { key: Some("x"), ..Demands::default() }).is_err());
    assert!(report::verify(text.as_bytes(), Demands { earlier: Some("x"), ..Demands::default() }).is_err());
}

/// What somebody could do to a file.
#[derive(Clone, Debug)]
enum Tampering {
    Flip(prop::sample::Index, u8),
    RemoveByte(prop::sample::Index),
    InsertByte(prop::sample::Index, u8),
    Truncate(prop::sample::Index),
    RemoveLine(prop::sample::Index),
    RepeatLine(prop::sample::Index, prop::sample::Index),
    SwapLines(prop::sample::Index, prop::sample::Index),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        (place(), 1_u8..).prop_map(|(place, mask)| Tampering::Flip(place, mask)),
        place().prop_map(Tampering::RemoveByte),
        (place(), any::<u8>()).prop_map(|(place, byte)| Tampering::InsertByte(place, byte)),
        place().prop_map(Tampering::Truncate),
        place().prop_map(Tampering::RemoveLine),
        (place(), place()).prop_map(|(from, to)| Tampering::RepeatLine(from, to)),
        (place(), place()).prop_map(|(one, other)| Tampering::SwapLines(one, other)),
    ]
}

fn tamper(text: &str, tampering: &Tampering) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    match tampering {
        Tampering::Flip(place, mask) => {
            let place = place.index(bytes.len());
            bytes[place] ^= mask;
        }
        Tampering::RemoveByte(place) => {
            bytes.remove(place.index(bytes.len()));
        }
        Tampering::InsertByte(place, byte) => bytes.insert(place.index(bytes.len() + 1), *byte),
        Tampering::Truncate(place) => bytes.truncate(place.index(bytes.len())),
        Tampering::RemoveLine(place) => {
            lines.remove(place.index(lines.len()));
            bytes = lines.concat().into_bytes();
        }
        Tampering::RepeatLine(from, to) => {
            lines.insert(to.index(lines.len() + 1), lines[from.index(lines.len())]);
            bytes = lines.concat().into_bytes();
        }
        Tampering::SwapLines(one, other) => {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
            bytes = lines.concat().into_bytes();
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_single_change_of_an_export_is_found(size in prop_oneof![Just(28_usize), Just(280)], tampering in tampering()) {
        let text: &str = if size == 28 { &SHORT } else { &LONG };
        let changed = tamper(text, &tampering);
        // Bytes repeated or swapped with equal ones change nothing.
        prop_assume!(changed != text.as_bytes());
        prop_assert!(check(&changed).is_err());
        prop_assert!(verify(changed.as_slice(), None, None).is_err());
    }

    #[test]
    fn no_finding_holds_a_control_character(tampering in prop::collection::vec(tampering(), 1..4)) {
        let mut text = SHORT.clone();
        for tampering in &tampering {
            text = String::from_utf8_lossy(&tamper(&text, tampering)).into_owned();
            if text.is_empty() {
                break;
            }
        }
        let findings = check(text.as_bytes()).err().unwrap_or_default();
        let texts: String = findings.iter().map(|finding| finding.what.as_str()).collect();
        prop_assert!(!texts.contains(|c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)), "{texts:?}");
    }

    #[test]
    fn bytes_that_parse_as_an_entry_are_its_only_spelling(index in 0_usize..28, tampering in tampering()) {
        let changed = tamper(SHORT.lines().nth(index + 1).unwrap(), &tampering);
        if let Ok(parsed) = Entry::parse(&changed) {
            prop_assert_eq!(parsed.to_bytes(), changed);
        }
    }

}

#[test]
fn a_file_that_is_something_else_altogether_is_one_finding() {
    let text = "root:x:0:0:root:/root:/bin/bash\n".repeat(30);
    let findings = verify(text.as_bytes(), None, None).unwrap_err();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].kind, FindingKind::Format);
    assert!(findings[0].what.contains("not that of a hallpass log export"), "{findings:?}");
}
