//! Everything that is read from one word or line: names, ids, times, patterns, search terms, tokens.

use std::fmt::Display;

use hallpass::audit::event::Event;
use hallpass::audit::search::Search;
use hallpass::host::record::Key;
use hallpass::identity::{Actor, host, session};
use hallpass::name::{
    Account, CaName, Digest, GroupName, HostName, JoinId, NamePattern, PersonName, Principal, ReportId, RequestId,
    RequestPrefix, RuleName, Tag, TagKey, TagValue, Target,
};
use hallpass::policy::quorum::Who;
use hallpass::ssh::Fingerprint;
use hallpass::ssh::cert::{ForceCommand, KeyId};
use hallpass::time::{Lifetime, Timestamp};

use super::told;

/// What is told of one word: 64 characters of it, escaped, and what would be accepted.
const TOLD_MAX: usize = 1_200;

/// One word.
pub fn names(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let taken = [
        exact(text, PersonName::parse),
        exact(text, GroupName::parse),
        exact(text, Account::parse),
        exact(text, HostName::parse),
        exact(text, CaName::parse),
        exact(text, RuleName::parse),
        exact(text, TagKey::parse),
        exact(text, TagValue::parse),
        exact(text, Principal::parse),
        exact(text, Target::parse),
        exact(text, JoinId::parse),
        exact(text, ReportId::parse),
        exact(text, NamePattern::parse),
        exact(text, Digest::parse),
        exact(text, Actor::parse),
        exact(text, Who::parse),
        exact(text, Fingerprint::parse),
        exact(text, |text| Key::parse(text).ok_or("no file's name")),
        exact(text, |text| KeyId::parse(text).map(|id| id.as_str().to_owned())),
        exact(text, |text| ForceCommand::parse(text).map(|command| command.as_str().to_owned())),
        exact(text, |text| Tag::parse(text).map(|Tag { key, value }| format!("{key}={value}"))),
        spelt_again(text, RequestId::parse),
        spelt_again(text, |text| RequestPrefix::parse(text).map(|prefix| prefix.as_str().to_owned())),
        spelt_again(text, Timestamp::parse),
        spelt_again(text, Lifetime::parse),
        http_date(text),
        search(text),
        pattern(text),
    ];
    tokens(text);
    taken.contains(&true)
}

/// Something with one spelling: what is shown is what was given.
fn exact<T: Display, E: Display>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> bool {
    match parse(text) {
        Ok(value) => {
            assert_eq!(value.to_string(), text, "one spelling");
            assert!(text.is_ascii() && !text.is_empty() && text.bytes().all(|b| !b.is_ascii_control()));
            true
        }
        Err(why) => {
            told(&why.to_string(), TOLD_MAX);
            false
        }
    }
}

/// Something that people may spell in several ways: what is shown is read again, as the same.
fn spelt_again<T: Display, E: Display>(text: &str, parse: impl Fn(&str) -> Result<T, E>) -> bool {
    match parse(text) {
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(parse(&shown).map(|again| again.to_string()).ok().as_deref(), Some(shown.as_str()));
            true
        }
        Err(why) => {
            told(&why.to_string(), TOLD_MAX);
            false
        }
    }
}

fn http_date(text: &str) -> bool {
    match Timestamp::parse_http_date(text) {
        Ok(time) => {
            assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
            true
        }
        Err(why) => {
            told(&why.to_string(), TOLD_MAX);
            false
        }
    }
}

fn search(text: &str) -> bool {
    let now = Timestamp::from_unix(1_767_607_200).expect("a time");
    match Search::parse(text, now) {
        Ok(_) => text.contains(':'),
        Err(why) => {
            told(&why.to_string(), TOLD_MAX + Event::KINDS.len() * 40);
            false
        }
    }
}

/// `PATTERN NAME`: the matcher against a slow one that is easy to believe.
fn pattern(text: &str) -> bool {
    let Some((pattern, name)) = text.split_once(' ') else { return false };
    let (Ok(pattern), Ok(name)) = (NamePattern::parse(pattern), HostName::parse(name)) else { return false };
    let slow = is_like(pattern.as_str().as_bytes(), name.as_str().as_bytes());
    assert_eq!(pattern.matches(&name), slow, "{pattern} and {name}");
    true
}

/// Whether the end of `name` can be reached, keeping all places in the pattern that are possible.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let mut possible = vec![false; pattern.len() + 1];
    let skip_stars = |possible: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if possible[at] && pattern[at] == b'*' {
                possible[at + 1] = true;
            }
        }
    };
    possible[0] = true;
    skip_stars(&mut possible);
    for byte in name {
        let mut next = vec![false; pattern.len() + 1];
        for at in 0..pattern.len() {
            if possible[at] && pattern[at] == b'*' {
                next[at] = true;
            } else if possible[at] && pattern[at] == *byte {
                next[at + 1] = true;
            }
        }
        skip_stars(&mut next);
        possible = next;
    }
    possible[pattern.len()]
}

/// A token that is taken is of one kind, and what is kept of it is not the token.
fn tokens(text: &str) {
    let kinds = [session::hash(text).is_ok(), host::hash_join(text).is_ok(), host::hash_host(text).is_ok()];
    assert!(kinds.iter().filter(|is_one| **is_one).count() <= 1, "one token, two kinds");
    if let Err(refusal) = session::hash(text) {
        told(&refusal.to_string(), TOLD_MAX);
    }
}
