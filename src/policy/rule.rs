//! The checked form of defaults and rules, and how one rule's conditions match.
//!
//! What not: which rule decides (that is `evaluate`), nor how a file is read (that is `spec`).
//!
//! Decisions:
//! - *Why our own glob?* Twenty lines that know `*` and `?` over host names and nothing else; a glob library brings
//!   classes, alternatives and path separators that a policy's reader would have to know.
//! - *Why is a pattern for tickets always matched as a whole?* Unanchored patterns have been somebody's hole
//!   (Fulcio): `INC-1` must not match `XINC-12; anything`.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::fmt;

use regex::{Regex, RegexBuilder};

use super::quorum::{Need, Who};
use super::when::When;
use super::{Host, Question};
use crate::name::{Account, HostName, RuleName, TagKey, TagValue, Target};
use crate::ssh::cert::Options;
use crate::time::{Lifetime, Timestamp};

/// The policy's `[defaults]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) backdate: Lifetime,
    pub(super) window: Span,
    pub(super) decide_by: Lifetime,
    /// Whether an approval entry that does not say wants signed approvals.
    pub(super) signed: bool,
}

/// How long access may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// When nothing else is asked; at most `max`.
    pub(super) default: Lifetime,
    /// At once; at most `total`.
    pub(super) max: Lifetime,
    /// With all extensions.
    pub(super) total: Lifetime,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rule {
    pub(super) name: RuleName,
    pub(super) who: Among<BTreeSet<Who>>,
    pub(super) hosts: Among<Vec<HostPattern>>,
    pub(super) accounts: Among<BTreeSet<Account>>,
    pub(super) when: Option<When>,
    pub(super) effect: Effect,
}

/// All of a kind (only for `refuse` rules), or only these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Among<T> {
    /// Whatever it is.
    All,
    /// One of these.
    Only(T),
}

/// What a matching rule does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// It lets people ask, on these conditions.
    Grant(Box<Grant>),
    /// It forbids.
    Refuse {
        /// What to do instead.
        message: String,
    },
}

/// What a granting rule demands and gives.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Grant {
    pub(super) window: Span,
    pub(super) reason_chars_min: usize,
    pub(super) ticket: Option<Ticket>,
    pub(super) approval: Vec<Need>,
    pub(super) options: Options,
}

/// The form of a ticket's name, matched as a whole.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pattern: String,
    regex: Regex,
}

/// A host, hosts with names like this, or hosts with a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HostPattern {
    /// This host.
    Exact(HostName),
    /// Names in which `*` stands for any characters and `?` for one.
    Glob(String),
    /// Hosts with this tag.
    Tag(TagKey, TagValue),
}

/// The longest ticket pattern, in bytes. Our choice.
const TICKET_PATTERN_BYTES_MAX: usize = 200;

/// How big a compiled ticket pattern may be, so that a file of them can't exhaust memory. Our choice; the usual
/// `^(INC|OPS)-[0-9]+$` needs about a hundredth.
const TICKET_REGEX_BYTES_MAX: usize = 64 * 1024;

/// The longest ticket, in bytes. Our choice.
pub(super) const TICKET_BYTES_MAX: usize = 128;

impl Rule {
    pub(super) fn has_host(&self, host: &Host) -> bool {
        match &self.hosts {
            Among::All => true,
            Among::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(host)),
        }
    }

    pub(super) fn has_account(&self, account: &Account) -> bool {
        match &self.accounts {
            Among::All => true,
            Among::Only(accounts) => accounts.contains(account),
        }
    }

    pub(super) fn is_time(&self, at: Timestamp) -> bool {
        self.when.as_ref().is_none_or(|when| when.holds(at))
    }

    pub(super) const fn grant(&self) -> Option<&Grant> {
        match &self.effect {
            Effect::Grant(grant) => Some(grant),
            Effect::Refuse { .. } => None,
        }
    }
}

impl Ticket {
    /// A pattern, to be matched as a whole whether or not it is anchored.
    ///
    /// # Errors
    /// Says why it is not a usable regular expression.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        if pattern.len() > TICKET_PATTERN_BYTES_MAX {
            return Err(format!("the pattern is longer than {TICKET_PATTERN_BYTES_MAX} bytes"));
        }
        let compile = |text: &str| RegexBuilder::new(text).size_limit(TICKET_REGEX_BYTES_MAX).build();
        // Alone first: `a)|(b` is nothing by itself, but would become something inside the group below.
        let whole = compile(pattern).and_then(|_| compile(&format!("^(?:{pattern})$")));
        match whole {
            Ok(regex) => Ok(Self { pattern: pattern.to_owned(), regex }),
            Err(regex::Error::CompiledTooBig(_)) => Err("the pattern is too complex".to_owned()),
            Err(error) => Err(format!("not a regular expression: {}", last_line(&error.to_string()))),
        }
    }

    /// Whether the question names a ticket of this form: the ticket if one is given, else a word of the reason.
    pub(super) fn is_named_in(&self, question: &Question) -> bool {
        let fits = |text: &str| text.len() <= TICKET_BYTES_MAX && self.regex.is_match(text);
        match &question.ticket {
            Some(ticket) => fits(ticket),
            None => question.reason.split_whitespace().any(|word| fits(word.trim_matches([':', ',', ';', '.']))),
        }
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern)
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

impl HostPattern {
    /// Parses `web-1`, `web-*` or `tag:role=web`.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(['*', '?']) {
            let target = Target::parse(text).map_err(|error| error.to_string())?;
            return Ok(match target {
                Target::Host(name) => Self::Exact(name),
                Target::Tag(key, value) => Self::Tag(key, value),
            });
        }
        let is_pattern = text.len() <= 90
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-*?".contains(&b));
        if is_pattern {
            Ok(Self::Glob(text.to_owned()))
        } else {
            let shown = crate::document::quoted(text);
            Err(format!("{shown} is not a host pattern: 1 to 90 of a-z 0-9 . - and the wildcards * ?"))
        }
    }

    pub(super) fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(name) => *name == host.name,
            Self::Glob(pattern) => glob(pattern.as_bytes(), host.name.as_str().as_bytes()),
            Self::Tag(key, value) => host.tags.get(key) == Some(value),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Glob(pattern) => f.write_str(pattern),
            Self::Tag(key, value) => write!(f, "tag:{key}={value}"),
        }
    }
}

/// Whether `text` has the form of `pattern`. On a mismatch the last `*` takes one more byte, so the time is at most
/// the product of the lengths (both at most 90).
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let (mut after_star, mut from): (Option<&[u8]>, &[u8]) = (None, text);
    loop {
        match (pattern, text) {
            ([b'*', after @ ..], _) => {
                (after_star, from) = (Some(after), text);
                pattern = after;
            }
            ([p, pattern_rest @ ..], [t, text_rest @ ..]) if p == t || *p == b'?' => {
                (pattern, text) = (pattern_rest, text_rest);
            }
            ([], []) => return true,
            _ => {
                let (Some(after), [_, rest @ ..]) = (after_star, from) else { return false };
                from = rest;
                (pattern, text) = (after, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plainest definition of a pattern.
    fn plain(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', after @ ..], _) => (0..=text.len()).any(|taken| plain(after, &text[taken..])),
            ([p, pattern @ ..], [t, text @ ..]) => (p == t || *p == b'?') && plain(pattern, text),
            ([], _) | (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_its_plainest_definition_does(pattern in "[ab*?-]{0,8}", text in "[ab-]{0,10}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob(pattern, text), plain(pattern, text));
        }
    }

    #[test]
    fn the_worst_pattern_takes_no_longer_than_the_product_of_the_lengths() {
        let (pattern, text) = ("*a".repeat(45) + "b", "a".repeat(90));
        assert!(!glob(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn patterns_are_hosts_wildcards_or_tags_and_nothing_else() {
        for good in ["web-1", "*", "web-*", "?eb.example.com", "tag:role=web"] {
            assert_eq!(HostPattern::parse(good).unwrap().to_string(), good);
        }
        let long = "*".repeat(91);
        for bad in
            ["", "Web-*", "web_*", "web-[12]", "{a,b}*", "tag:role=*", "tag:*", "tag:role", "!web-*", "we b*", &long]
        {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ticket_is_matched_as_a_whole() {
        for pattern in ["INC-[0-9]+", "^INC-[0-9]+$", "INC-[0-9]+|OPS", "^INC-[0-9]+|OPS$", "(?i)inc-[0-9]+"] {
            let ticket = Ticket::parse(pattern).unwrap();
            assert!(ticket.regex.is_match("INC-12"), "{pattern}");
            for other in ["xINC-12", "INC-12x", "INC-12\n", "\nINC-12", "", "OPS INC-1"] {
                assert!(!ticket.regex.is_match(other), "{pattern} matches {other:?}");
            }
        }
    }
}
