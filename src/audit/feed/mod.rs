//! Entries as other programs read them, one line each: [`csv`] for spreadsheets, [`cef`] for what collects security events.
//!
//! What for: the log beside the other logs of a house, where people look for what belongs together. What not: proof. A line says less than its
//! entry, and nothing shows that it was ever in the log; the export does ([`super::export`]), and the entry's number leads there.
//!
//! Invariants: a line is one line whatever stands in an entry; reasons and what hosts report are whoever's who wrote them, so that nothing of
//! them ends a cell, begins a formula, or names a field. What a terminal would act on is the caller's to show (`shown`): here nobody
//! knows how the rest of the program does that.
//!
//! *Why are columns empty for so many kinds?* An entry says what happened, not all that led to it: a grant names its request, and the request its
//! hosts. The number of the request joins them.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

pub mod cef;
pub mod csv;
mod facts;

/// How a text is shown of which any character may stand in a reader's way.
pub type Shown = fn(&str) -> String;

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::super::event::Event;
    use super::*;
    use crate::name::{PersonName, RequestId};
    use crate::time::Timestamp;

    /// Entries of every kind.
    pub(super) const GOLDEN: &str = include_str!("../../../tests/golden/events.jsonl");

    /// What the program's own does, of the characters that these tests have.
    pub(super) fn shown(text: &str) -> String {
        let one =
            |c: char| if c.is_control() || c == '\u{202e}' { c.escape_unicode().to_string() } else { c.to_string() };
        text.chars().map(one).collect()
    }

    /// An entry with this text of somebody's.
    pub(super) fn ended(reason: &str) -> Entry {
        let by = PersonName::parse("alice@example.com").unwrap();
        let event = Event::Ended { request: RequestId::parse("7K3F-9QX2").unwrap(), by, reason: reason.to_owned() };
        Entry { index: 16, at: Timestamp::parse("2026-01-05T10:16:40Z").unwrap(), event }
    }

    #[test]
    fn an_entry_of_any_kind_is_one_line_without_anything_that_acts() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in GOLDEN.lines() {
            let entry = Entry::parse(line.as_bytes()).unwrap();
            kinds.insert(entry.event.kind());
            for (line, end) in [(csv::line(&entry, shown), "\r\n"), (cef::line(&entry, "1.0", shown), "\n")] {
                let text = line.strip_suffix(end).unwrap();
                assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text}");
                assert!(text.contains(entry.event.kind()), "{text}");
            }
        }
        assert_eq!(kinds.len(), Event::KINDS.len());
    }
}
