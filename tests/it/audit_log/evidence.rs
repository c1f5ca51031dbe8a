//! What an auditor gets of a period: every file of a report on the story of these logs, counts that add up whatever the period, and texts that
//! stay texts.

use std::collections::BTreeMap;
use std::path::Path;

use hallpass::audit::event::{Answer, Event};
use hallpass::audit::evidence::{Evidence, Hashed, Outside, Pack, Period, Plan, Sample, Source};
use hallpass::audit::host_event::HostEvent;
use hallpass::audit::report::{self, Demands};
use hallpass::name::{HostName, ReportId};
use hallpass::time::{Lifetime, Window};

use super::hosts::hosts_story;
use super::log::*;

const DAY: u64 = 86_400;

fn plan(period: &str) -> Plan {
    Plan { period: Period::parse(period).unwrap(), long: seconds(8 * 3600), sample: None }
}

/// A report on an export, which must be sound.
fn made(plan: Plan, text: &str) -> Result<Pack, Outside> {
    let mut evidence = Evidence::new(plan);
    let mut input = Hashed::new(text.as_bytes());
    let key = log_key().verifier().to_text();
    let demands = Demands { key: Some(&key), ..Demands::default() };
    let (found, verified) = report::verify_showing(&mut input, demands, &mut |entry| evidence.take(entry)).unwrap();
    let verified = verified.unwrap_or_else(|| panic!("{}", found.text));
    evidence.finish(&Source { verified: &verified, sha256: input.finish(), demands })
}

fn pack(period: &str, events: Vec<(u64, Event)>) -> Pack {
    made(plan(period), &export(events)).unwrap()
}

fn file<'a>(pack: &'a Pack, name: &str) -> &'a str {
    &pack.files.iter().find(|(of, _)| of == name).unwrap_or_else(|| panic!("no {name}")).1
}

/// The rows of a table, by column. (No cell that these tests read has a comma.)
fn rows(pack: &Pack, name: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = file(pack, name).split_terminator("\r\n");
    let head: Vec<String> = lines.next().unwrap().split(',').map(str::to_owned).collect();
    lines.map(|line| head.iter().cloned().zip(line.split(',').map(str::to_owned)).collect()).collect()
}

fn column(pack: &Pack, name: &str, column: &str) -> Vec<String> {
    rows(pack, name).into_iter().map(|row| row[column].clone()).collect()
}

#[test]
fn the_files_of_a_report_are_those_of_the_golden_file() {
    let long = Lifetime::minutes(30);
    let sample = Sample::new(2, "Ada's 'dice'").unwrap();
    let plan = Plan { sample: Some(sample), long, ..plan("2026-Q1") };
    let text = export(hosts_story());
    let pack = made(plan.clone(), &text).unwrap();
    let shown = |(name, text): &(String, String)| format!("==== {name}\n{}\n", text.replace("\r\n", "\n"));
    let all: String = pack.files.iter().map(shown).collect::<String>() + "==== said\n" + &pack.text;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report.txt");
    if std::env::var_os("HALLPASS_UPDATE_GOLDEN").is_some() {
        hallpass::durable::replace(&golden, all.as_bytes(), 0o644).unwrap();
    }
    assert_eq!(std::fs::read_to_string(golden).unwrap(), all, "set HALLPASS_UPDATE_GOLDEN=1 to write it anew");
    let again = made(plan, &text).unwrap();
    assert_eq!((again.files, again.json, again.text), (pack.files, pack.json, pack.text));
}

#[test]
fn counts_add_up_and_each_thing_is_in_one_period() {
    // A request that is asked for on one day, granted and certified on the next, and given back the day after.
    let mut events: Vec<(u64, Event)> = story().into_iter().take(10).collect();
    let later = |(at, event): (u64, Event)| (if at < 20 { at } else { at + DAY }, event);
    events = events.into_iter().map(later).collect();
    let shift = |old: &mut Window| {
        *old = window(old.start().unix() - START + DAY, old.end().unix() - START + DAY);
    };
    for (_, event) in &mut events {
        if let Event::Granted { window: granted, .. } = event {
            shift(granted);
        }
    }
    events[9] = (DAY + 21, to_be_signed("7K3F-9QX2", 9, window(DAY, DAY + 1820), "web-1"));
    events.push((2 * DAY, Event::Expired { request: id("7K3F-9QX2") }));
    events.push((2 * DAY + 1, asked("00000001", "alice", 60, Answer::Ask)));
    let of = |period: &str| pack(period, events.clone());
    let (first, second, third) =
        (of("2026-01-05..2026-01-05"), of("2026-01-06..2026-01-06"), of("2026-01-07..2026-01-07"));
    // Each is told with what became of it, as far as the log goes.
    assert_eq!(column(&first, "requests.csv", "outcome"), ["expired"]);
    assert_eq!(column(&first, "requests.csv", "decided_by"), ["bob"]);
    assert_eq!(column(&second, "requests.csv", "outcome"), [""; 0]);
    assert_eq!(column(&third, "requests.csv", "outcome"), ["open"]);
    let serials = [&first, &second, &third].map(|pack| column(pack, "certificates.csv", "serial").len());
    assert_eq!(serials, [0, 1, 0]);
    assert_eq!(column(&second, "exceptions.csv", "kind"), ["no_outcome"]);
    assert_eq!(column(&second, "exceptions.csv", "who"), ["alice"], "of a request that was open when the period began");
    assert!(third.text.contains("1 asked = 0 granted + 0 denied + 0 cancelled + 0 lapsed + 1 open"), "{}", third.text);
    assert_eq!(column(&third, "policy.csv", "version"), ["1"], "the one that was in force");
    for (period, all) in [("2026", 2), ("2026-01-05..2026-01-06", 1), ("2026-01", 2)] {
        let pack = of(period);
        let requests = &pack.json["requests"];
        let outcomes = requests["outcomes"].as_object().unwrap();
        let sum: u64 = outcomes.values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!((sum, &requests["asked"]), (all, &all.into()), "{period}");
    }
}

#[test]
fn a_period_of_which_the_log_tells_nothing_has_no_report_and_a_log_that_ends_within_says_so() {
    let text = export(story());
    assert!(matches!(made(plan("2025"), &text), Err(Outside::Early(first)) if first == at(0)));
    assert!(matches!(made(plan("2026-02"), &text), Err(Outside::Late(last)) if last == at(2900)));
    let cut = made(plan("2026-01"), &text).unwrap();
    assert_eq!(cut.json["cut_off"], at(2900).to_string());
    assert!(file(&cut, "summary.md").contains("up to 2026-01-05 10:48:20Z, where the log ends"));
    let mut longer = story();
    longer.push((40 * DAY, Event::LoggedOut { person: person("alice") }));
    let whole = pack("2026-01", longer);
    assert_eq!(whole.json["cut_off"], serde_json::Value::Null);
    assert!(file(&whole, "summary.md").contains("| Covered | the whole period |"));
}

/// A login with certificate 9 of the story.
fn login(report: &str, opened: u64) -> Event {
    HostEvent::SessionOpened {
        host: HostName::parse("web-1").unwrap(),
        report: ReportId::parse(report).unwrap(),
        serial: 9,
        key_id: "hallpass/7K3F9QX2/alice".to_owned(),
        ca: public_key(CA).fingerprint(),
        account: "deploy".to_owned(),
        from: "192.0.2.7".to_owned(),
        opened: at(opened),
        request: Some(id("7K3F-9QX2")),
    }
    .into()
}

#[test]
fn a_login_that_is_reported_late_is_told_when_it_is_reported_and_held_against_what_was_granted_then() {
    let enrolled = hosts_story().into_iter().skip(story().len()).take(2);
    let mut events: Vec<(u64, Event)> = story().into_iter().chain(enrolled).collect();
    events.push((40 * DAY, login("opened-b-1", 100)));
    events.push((40 * DAY, login("opened-b-2", 5000)));
    let (january, february) = (pack("2026-01", events.clone()), pack("2026-02", events));
    assert_eq!(column(&january, "sessions.csv", "serial"), [""; 0]);
    assert_eq!(column(&january, "requests.csv", "sessions")[0], "2");
    assert_eq!(column(&february, "sessions.csv", "fits"), ["yes", "after_end"]);
    assert_eq!(column(&february, "exceptions.csv", "kind"), ["after_end"]);
}

#[test]
fn what_people_wrote_is_text_in_every_file() {
    let mut events = story();
    let evil = "=HYPERLINK(\"http://evil\")|<b>x</b>\r\n| new | row |\u{1b}[2J\u{202e}`";
    for (_, event) in &mut events {
        match event {
            Event::Asked { reason, ticket, request, .. } if *request != id("7K3F-9QX2") => {
                *reason = evil.to_owned();
                *ticket = Some("@SUM(1)".to_owned());
            }
            Event::Denied { reason, .. } | Event::Ended { reason, .. } => *reason = evil.to_owned(),
            _ => {}
        }
    }
    let plan = Plan { sample: Some(Sample::new(9, "all of them").unwrap()), ..plan("2026-Q1") };
    let pack = made(plan, &export(events)).unwrap();
    assert_eq!(pack.json["sample"].as_array().unwrap().len(), 5);
    for (name, text) in &pack.files {
        let harmless = |c: char| c == '\n' || c == '\r' || (!c.is_control() && !('\u{200b}'..='\u{206f}').contains(&c));
        assert!(text.chars().all(harmless), "{name}: {text}");
        assert!(!text.contains("<b>") && !text.contains("| new | row |") || name.ends_with(".csv"), "{name}: {text}");
        assert!(!text.contains("http://") || name.ends_with(".csv"), "{name}: {text}");
    }
    let requests = file(&pack, "requests.csv");
    assert!(requests.contains(",\"'=HYPERLINK(\"\"http://evil\"\")|<b>x</b>\\u{d}\\u{a}| new"), "{requests}");
    assert!(requests.contains(",'@SUM(1),"), "{requests}");
    assert_eq!(requests.lines().count(), 6, "{requests}");
}

#[test]
fn a_page_tells_from_the_log_whether_agreement_came_first() {
    let plan = Plan { sample: Some(Sample::new(9, "all of them").unwrap()), ..plan("2026-Q1") };
    let pack = made(plan, &export(hosts_story())).unwrap();
    let page = file(&pack, "sample/7K3F-9QX2.md");
    assert!(page.contains("yes: entries 7 8, then 9") && page.contains("yes: entries 12 13, then 14"), "{page}");
    assert!(page.contains("narrowed by bob to web-1 for 30m"), "{page}");
    assert!(page.contains("signed with SHA256:") && page.contains("carol, by a login alone: ok"), "{page}");
    let page = file(&pack, "sample/0000-0004.md");
    assert!(page.contains("nobody was asked: policy allows it"), "{page}");
    let page = file(&pack, "sample/0000-0003.md");
    assert!(page.contains("nobody") && page.contains("lapsed (2026-01-05 10:46:45Z, entry 22)"), "{page}");
}
