//! Logs that went on from an older copy: what an auditor is told, and what such a log must fulfil.

use hallpass::audit::event::Event;
use hallpass::audit::export::{Finding, FindingKind, verify};
use hallpass::audit::report::{self, Demands};

use super::log::*;

/// Events, each with its second.
type Events = Vec<(u64, Event)>;

/// How many entries are lost.
const LOST: u64 = 3;

/// The checkpoint that somebody kept of the lost log.
pub(super) fn lost_head() -> String {
    log_key().sign(kept() + LOST, &[9; 32])
}

fn kept() -> u64 {
    u64::try_from(story().len()).unwrap()
}

/// Entries that are lost, and who gave them up.
pub(super) fn given_up() -> Vec<(u64, Event)> {
    let lost = || (9_100, Event::EntryLost { of: kept() + LOST });
    let word = Event::LogRecovered {
        by: person("omar"),
        reason: "the disk of \"ca-1\" died".to_owned(),
        kept: kept(),
        heads: vec![lost_head()],
    };
    (0..LOST).map(|_| lost()).chain([(9_100, word)]).collect()
}

fn gone_on() -> Vec<(u64, Event)> {
    let out = (9_200, Event::LoggedOut { person: person("alice") });
    story().into_iter().chain(given_up()).chain([out]).collect()
}

fn findings(events: Vec<(u64, Event)>) -> Vec<Finding> {
    check(export(events).as_bytes()).err().unwrap_or_default()
}

#[test]
fn a_log_that_says_what_it_lost_is_sound_and_the_report_names_it() {
    let text = export(gone_on());
    let report = report::verify(text.as_bytes(), Demands::default()).unwrap();
    assert!(report.is_sound, "{}", report.text);
    let (first, last) = (kept(), kept() + LOST - 1);
    let line = format!(
        "  lost          entries {first} to {last}, given up in entry {}: omar had the log go on from a copy of {first} entries; those after \
         it are lost, of logs that had {} entries: \"the disk of \\\"ca-1\\\" died\"\n",
        last + 1,
        last + 1
    );
    assert!(report.text.contains(&line), "{}", report.text);
    let lost = &report.json["lost"][0];
    assert_eq!((lost["first"].as_u64(), lost["last"].as_u64()), (Some(first), Some(last)));
    assert_eq!(lost["heads"][0]["entries"], last + 1);
}

#[test]
fn a_checkpoint_of_lost_entries_is_told_from_one_of_a_rewritten_log() {
    let text = export(gone_on());
    let found = |earlier: &str| verify(text.as_bytes(), Some(&log_key().verifier()), Some(earlier)).unwrap_err();
    let only = |earlier: &str| {
        let [finding] = <[Finding; 1]>::try_from(found(earlier)).unwrap();
        assert_eq!(finding.kind, FindingKind::Earlier);
        finding.what
    };
    assert!(only(&lost_head()).contains(&format!("this very checkpoint is given up by entry {}", kept() + LOST)));
    let within = log_key().sign(kept() + 1, &[8; 32]);
    assert!(only(&within).contains("some of those are given up by entry"), "{}", only(&within));
    // What was kept must still be what it was.
    let before = only(&log_key().sign(kept() - 1, &[8; 32]));
    assert!(!before.contains("given up"), "{before}");
    // The lost log may have been longer than the checkpoint that was kept of it.
    let longer = only(&log_key().sign(kept() + LOST + 1, &[8; 32]));
    assert!(longer.contains("some of those are given up by entry"), "{longer}");
    let sound = verify(text.as_bytes(), Some(&log_key().verifier()), Some(&checkpoint_at(&story())));
    assert_eq!(sound.unwrap().losses.len(), 1);
}

#[test]
fn a_branch_of_which_nobody_knows_where_it_began_may_hold_any_checkpoint_up_to_its_end() {
    let head = log_key().sign(5, &[9; 32]);
    let word = Event::LogRecovered {
        by: person("omar"),
        reason: "a copy went on by itself".to_owned(),
        kept: kept(),
        heads: vec![head.clone()],
    };
    let text = export(story().into_iter().chain([(9_100, word)]).collect());
    let verified = check(text.as_bytes()).unwrap();
    assert_eq!(verified.losses[0].range(), "the last entries of another branch");
    for (earlier, is_given_up) in
        [(head, true), (log_key().sign(4, &[7; 32]), true), (log_key().sign(6, &[7; 32]), false)]
    {
        let findings = verify(text.as_bytes(), Some(&log_key().verifier()), Some(&earlier)).unwrap_err();
        assert_eq!(findings[0].what.contains("given up"), is_given_up, "{findings:?}");
    }
}

#[test]
fn a_log_that_hides_behind_a_loss_is_found() {
    let wrong = |change: &dyn Fn(&mut Events), wanted: &str| {
        let mut events = gone_on();
        change(&mut events);
        let found = findings(events);
        assert!(found.iter().any(|finding| finding.what.contains(wanted)), "{wanted}: {found:?}");
    };
    let word = usize::try_from(kept() + LOST).unwrap();
    let with = |change: fn(&mut u64, &mut Vec<String>)| {
        move |events: &mut Events| {
            if let Event::LogRecovered { kept, heads, .. } = &mut events[word].1 {
                change(kept, heads);
            }
        }
    };
    wrong(&with(|kept, _| *kept -= 1), "the first lost one is another");
    wrong(&with(|_, heads| heads[0] = log_key().sign(1_000, &[9; 32])), "a serial could be given twice");
    wrong(&with(|_, heads| heads[0] = heads[0].replace("\n\n", "\nmore\n\n")), "a lost checkpoint");
    let others = hallpass::audit::checkpoint::LogKey::new(ORIGIN, &[8; 32]).unwrap().sign(20, &[9; 32]);
    let others = move |events: &mut Events| {
        if let Event::LogRecovered { heads, .. } = &mut events[word].1 {
            heads[0].clone_from(&others);
        }
    };
    wrong(&others, "a lost checkpoint");
    wrong(&|events| drop(events.remove(word)), "nobody has given them up");
    wrong(&|events| events.truncate(word), "that nobody has given up");
    let asked = asked("7777-7777", "alice", 600, hallpass::audit::event::Answer::Ask);
    let opened = move |events: &mut Events| {
        if let Event::LogRecovered { kept, .. } = &mut events[word].1 {
            *kept += 1;
        }
        events.insert(word - 3, (9_050, asked.clone()));
    };
    wrong(&opened, "goes on, although it may have been over");
}
