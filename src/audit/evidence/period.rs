//! A stretch of time as an auditor names it, in UTC: `2026`, `2026-Q3`, `2026-07`, `2026-07-01..2026-09-30`.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use thiserror::Error;

use crate::time::{Lifetime, Timestamp};

/// A period: from its first second up to the first one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    name: String,
    from: Timestamp,
    to: Timestamp,
}

/// A text that names no period.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no period like 2026, 2026-Q3, 2026-07, or 2026-07-01..2026-09-30 with both days in it")]
pub struct PeriodError(String);

/// Where a moment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Before,
    Within,
    After,
}

impl Period {
    /// Parses one.
    ///
    /// # Errors
    /// [`PeriodError`] says what would be one.
    pub fn parse(text: &str) -> Result<Self, PeriodError> {
        let span = match text.split_once("..") {
            Some((first, last)) => days(first, last),
            None => named(text),
        };
        let span = span.filter(|(from, to)| from < to);
        let (from, to) = span.ok_or_else(|| PeriodError(text.chars().take(64).collect()))?;
        Ok(Self { name: text.to_owned(), from, to })
    }

    /// As it was named.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its first second.
    #[must_use]
    pub const fn from(&self) -> Timestamp {
        self.from
    }

    /// The first second after it.
    #[must_use]
    pub const fn to(&self) -> Timestamp {
        self.to
    }

    pub(super) fn place(&self, at: Timestamp) -> When {
        if at < self.from {
            When::Before
        } else if at < self.to {
            When::Within
        } else {
            When::After
        }
    }
}

fn day(text: &str) -> Option<Timestamp> {
    Timestamp::parse(&format!("{text}T00:00:00Z")).ok()
}

/// Both days are in it.
fn days(first: &str, last: &str) -> Option<(Timestamp, Timestamp)> {
    let whole = Lifetime::parse("1d").ok()?;
    Some((day(first)?, day(last)?.plus(whole).ok()?))
}

/// A year, or a quarter or a month of one.
fn named(text: &str) -> Option<(Timestamp, Timestamp)> {
    let (year, part) = text.split_once('-').map_or((text, None), |(year, part)| (year, Some(part)));
    let year = number(year, 4)?;
    let (first, months) = match part {
        None => (1, 12),
        Some("Q1") => (1, 3),
        Some("Q2") => (4, 3),
        Some("Q3") => (7, 3),
        Some("Q4") => (10, 3),
        Some(month) => (number(month, 2)?, 1),
    };
    let month = |year: u16, month: u16| day(&format!("{year:04}-{month:02}-01"));
    let after = match first.saturating_add(months) {
        after @ 0..=12 => month(year, after),
        after => month(year.saturating_add(1), after.saturating_sub(12)),
    };
    Some((month(year, first)?, after?))
}

/// A number of just so many digits.
fn number(text: &str, digits: usize) -> Option<u16> {
    let is_number = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_named_by_year_quarter_month_or_days() {
        for (text, from, to) in [
            ("2026", "2026-01-01", "2027-01-01"),
            ("2026-Q1", "2026-01-01", "2026-04-01"),
            ("2026-Q3", "2026-07-01", "2026-10-01"),
            ("2026-Q4", "2026-10-01", "2027-01-01"),
            ("2024-02", "2024-02-01", "2024-03-01"),
            ("2026-12", "2026-12-01", "2027-01-01"),
            ("2026-07-01..2026-09-30", "2026-07-01", "2026-10-01"),
            ("2026-02-28..2026-02-28", "2026-02-28", "2026-03-01"),
        ] {
            let period = Period::parse(text).unwrap();
            assert_eq!((period.from(), period.to()), (day(from).unwrap(), day(to).unwrap()), "{text}");
            assert_eq!(period.name(), text);
        }
    }

    #[test]
    fn what_is_no_period_is_refused() {
        for text in [
            "",
            "26",
            "2026-",
            "2026-Q5",
            "2026-q1",
            "2026-13",
            "2026-00",
            "2026-7",
            "2026-07-01",
            "2026-02-30..2026-03-01",
            "2026-07-02..2026-07-01",
            "..",
            "2026..2027",
            "+026",
            "9999",
        ] {
            let error = Period::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains("2026-Q3"), "{error}");
        }
    }

    #[test]
    fn the_first_second_is_in_it_and_the_last_one_is_not() {
        let period = Period::parse("2026-07").unwrap();
        let at = |text: &str| Timestamp::parse(text).unwrap();
        for (text, when) in [
            ("2026-06-30T23:59:59Z", When::Before),
            ("2026-07-01T00:00:00Z", When::Within),
            ("2026-07-31T23:59:59Z", When::Within),
            ("2026-08-01T00:00:00Z", When::After),
        ] {
            assert_eq!(period.place(at(text)), when, "{text}");
        }
    }
}
