//! Files that people and hosts write: the policy, the service's configuration, and all that a host keeps.

use std::path::Path;

use hallpass::config::Config;
use hallpass::document::{self, PROBLEMS_MAX, Problem};
use hallpass::enrolment::ledger::Ledger;
use hallpass::enrolment::service_file::ServiceFile;
use hallpass::enrolment::sshd_config::{Effective, Release, includes, lines};
use hallpass::enrolment::{pam, texts};
use hallpass::host::event::Event;
use hallpass::host::record::Record;
use hallpass::host::settings::Settings;
use hallpass::host::trust;
use hallpass::name::{HostName, TagKey, TagValue};
use hallpass::policy::Policy;
use hallpass::policy::diff::diff;

use super::told;

/// Above this many bytes, two policies are not compared: the comparison may take seconds, by its own limit.
const COMPARED_MAX: usize = 4_096;

/// The most bytes that one problem may tell.
const PROBLEM_BYTES_MAX: usize = 2_500;

/// The text, or what is said of bytes that are none.
fn text(data: &[u8]) -> Option<&str> {
    match document::decode(data, "file") {
        Ok(text) => Some(text),
        Err(problem) => {
            told(&problem.to_string(), PROBLEM_BYTES_MAX);
            None
        }
    }
}

/// Every problem has a place that is in the text, and can be shown.
fn are_placed(text: &str, problems: &[Problem]) {
    assert!((1..=PROBLEMS_MAX + 1).contains(&problems.len()), "{} problems", problems.len());
    let lengths: Vec<usize> = text.split('\n').map(|line| line.chars().count()).collect();
    let mut last = (0, 0);
    for problem in problems {
        let place = (problem.line, problem.column);
        let length = problem.line.checked_sub(1).and_then(|index| lengths.get(index));
        assert!(length.is_some_and(|length| (1..=length + 1).contains(&problem.column)), "{problem} is nowhere");
        assert!(last <= place, "{problem} stands before the one above it");
        last = place;
        told(&problem.to_string(), PROBLEM_BYTES_MAX);
    }
}

/// `policy.toml`.
pub fn policy(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let policy = match Policy::parse(text, "policy.toml") {
        Ok(policy) => policy,
        Err(problems) => {
            are_placed(text, &problems);
            return false;
        }
    };
    assert_eq!(policy.text(), text);
    for tested in policy.run_tests() {
        told(&tested.failure.unwrap_or_default(), 100_000);
    }
    if text.len() <= COMPARED_MAX {
        let again = Policy::parse(text, "policy.toml").expect("it was read before");
        assert_eq!(diff(&policy, &again), [], "who gains by the same policy?");
    }
    true
}

/// `config.toml`.
pub fn config(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let parse = || Config::parse(text, "config.toml", Path::new("/etc/hallpass"), Some(Path::new("/run/credentials")));
    match parse() {
        Ok(config) => {
            assert_eq!(format!("{config:?}"), format!("{:?}", parse().expect("it was read before")));
            assert!(config.http.body_bytes_max > 0 && config.http.connections_max > 0, "every limit has a bound");
            assert!(config.log_key_path.is_absolute() && config.policy_path.is_absolute());
            true
        }
        Err(problems) => {
            are_placed(text, &problems);
            false
        }
    }
}

/// What lies on a host: `host.toml`, records, events, the way back, where the service is, and what sshd and PAM read.
pub fn host_files(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let settings = Settings::parse(text, "host.toml");
    match &settings {
        Ok(settings) => renamed(text, settings),
        Err(problems) => problems.lines().for_each(|problem| told(problem, PROBLEM_BYTES_MAX)),
    }
    let taken = [
        settings.is_ok(),
        is_written_as_read(text, Record::parse),
        is_written_as_read(text, Event::parse),
        is_written_as_read(text, Ledger::parse),
        service_file(text),
        trust_file(text),
        sshd_config(text),
        pam_stack(text),
    ];
    taken.contains(&true)
}

/// With another name and other tags, everything else stands as it stood.
fn renamed(text: &str, settings: &Settings) {
    let name = HostName::parse("another-1").expect("a host");
    let tag = (TagKey::parse("role").expect("a key"), TagValue::parse("another").expect("a value"));
    let wished = Settings { name: name.clone(), tags: [tag].into(), ..settings.clone() };
    let renamed = texts::renamed(text, &name, &wished.tags).expect("what was read can be rewritten");
    assert_eq!(Settings::parse(&renamed, "host.toml"), Ok(wished), "written as {renamed:?}");
}

fn is_written_as_read<T: ToString + PartialEq + std::fmt::Debug>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> bool {
    match parse(text) {
        Ok(value) => {
            assert_eq!(parse(&value.to_string()).as_ref(), Ok(&value), "written as {:?}", value.to_string());
            true
        }
        Err(why) => {
            told(&why, PROBLEM_BYTES_MAX);
            false
        }
    }
}

fn service_file(text: &str) -> bool {
    match ServiceFile::parse(text, "host-service.toml") {
        Ok(file) => {
            let written = file.to_text();
            let again = ServiceFile::parse(&written, "host-service.toml").expect("what is written is read");
            assert_eq!(again.to_text(), written);
            true
        }
        Err(problems) => {
            problems.lines().for_each(|problem| told(problem, PROBLEM_BYTES_MAX));
            false
        }
    }
}

fn trust_file(text: &str) -> bool {
    match trust::parse(text) {
        Ok(keys) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
            assert_eq!(lines.count(), keys.len(), "a key for each line that is one");
            true
        }
        Err((line, why)) => {
            assert!((1..=text.lines().count().max(1)).contains(&line));
            told(&why, 1_000);
            false
        }
    }
}

fn sshd_config(text: &str) -> bool {
    let found = lines(text);
    let mut last = 0;
    for line in &found {
        assert!(line.number > last && line.number <= text.lines().count());
        last = line.number;
        assert!(!line.keyword.contains(char::is_whitespace) && !line.keyword.starts_with('#'));
        let reads = |name: &str| includes(&line.value, "/etc/ssh/sshd_config.d", name);
        assert!(line.value != "/etc/ssh/sshd_config.d/*.conf" || reads("00-hallpass.conf"));
        assert!(!reads("00-hallpass.conf") || !line.value.is_empty());
    }
    // Our own lines come and go without a trace.
    let bare = texts::without_ours(text);
    assert_eq!(texts::without_ours(&bare), bare);
    assert_eq!(texts::without_ours(&texts::with_block(&bare, "UsePAM yes\n")), bare);
    assert_eq!(texts::without_ours(&texts::with_include(&bare)), bare);
    let effective = Effective::parse(text);
    for line in text.lines() {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        assert!(effective.all(&keyword.to_ascii_lowercase()).iter().any(|one| one == value.trim()));
    }
    if let Some(release) = Release::find(text) {
        assert!(text.contains("OpenSSH_"));
        assert_eq!(Release::find(&format!("OpenSSH_{release}p1")), Some(release));
    }
    !found.is_empty()
}

fn pam_stack(text: &str) -> bool {
    const PROGRAM: &str = "/usr/local/bin/hallpass host";
    assert_eq!(pam::without_guard(&pam::without_guard(text)), pam::without_guard(text));
    match pam::with_guard(text, PROGRAM) {
        Ok(with) => {
            assert_eq!(with.lines().filter(|line| pam::is_guard(line)).count(), 1, "the guard stands there once");
            assert_eq!(pam::with_guard(&with, PROGRAM).as_deref(), Ok(with.as_str()));
            let rest = pam::without_guard(text);
            let after = pam::without_guard(&with);
            // A last line without an end gets one where the guard's comes below it.
            assert!(after == rest || after == format!("{rest}\n"), "nothing else is changed");
            true
        }
        Err(why) => {
            told(&why.to_string(), 300);
            false
        }
    }
}
