//! Days and hours at which a rule counts.
//!
//! Decision: *when must it hold?* At the moment the access would start: now, or the start that was asked for. A window may
//! run past the end of the hours; who wants it shorter gives the rule a shorter `window.max`.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use crate::document::quoted;
use crate::time::Timestamp;

/// Days and hours in a time zone.
#[derive(Clone, Debug)]
pub(super) struct When {
    days: BTreeSet<Day>,
    hours: Option<Hours>,
    zone: TimeZone,
    text: String,
}

/// A day of the week, Monday first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(u8);

/// A span of the day in minutes since midnight, half-open; over midnight if `start > end`. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hours {
    start: u16,
    end: u16,
}

/// The three letters of the days, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl When {
    /// These days and hours there; `text` says the same to people.
    pub(super) fn new(days: BTreeSet<Day>, hours: Option<Hours>, zone: TimeZone, text: String) -> Self {
        Self { days, hours, zone, text }
    }

    /// Whether no moment is inside.
    pub(super) fn is_never(&self) -> bool {
        self.days.is_empty()
    }

    /// Whether this moment is inside. A span over midnight belongs to the day on which it starts.
    pub(super) fn holds(&self, at: Timestamp) -> bool {
        let Some((today, minute)) = self.local(at) else { return false };
        match self.hours {
            None => self.days.contains(&today),
            Some(Hours { start, end }) if start < end => self.days.contains(&today) && start <= minute && minute < end,
            Some(Hours { start, end }) => {
                (self.days.contains(&today) && start <= minute)
                    || (self.days.contains(&today.yesterday()) && minute < end)
            }
        }
    }

    /// That moment on the clocks there: `sat 21:14`.
    pub(super) fn clock(&self, at: Timestamp) -> String {
        let Some((day, minute)) = self.local(at) else { return at.to_string() };
        let (hour, minute) = (minute.checked_div(60).unwrap_or(0), minute.checked_rem(60).unwrap_or(0));
        format!("{day} {hour:02}:{minute:02}")
    }

    fn local(&self, at: Timestamp) -> Option<(Day, u16)> {
        let seconds = i64::try_from(at.unix()).ok()?;
        let local = jiff::Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone());
        let (hour, minute) = (u16::try_from(local.hour()).ok()?, u16::try_from(local.minute()).ok()?);
        Some((Day::from(local.weekday()), hour.checked_mul(60)?.checked_add(minute)?))
    }
}

impl fmt::Display for When {
    /// `mon-fri 08:00-20:00 Europe/Berlin`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for When {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Day {
    /// Parses `mon`, or a span such as `mon-fri` or `sat-mon`.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub(super) fn parse_span(text: &str) -> Result<Vec<Self>, String> {
        let wrong = || format!("{} is not a day: mon to sun, or a span such as mon-fri", quoted(text));
        let day = |name: &str| (0_u8..).zip(DAYS).find(|(_, d)| *d == name).map(|(n, _)| Self(n)).ok_or_else(wrong);
        let Some((first, last)) = text.split_once('-') else { return Ok(vec![day(text)?]) };
        let (mut at, last) = (day(first)?, day(last)?);
        let mut days = vec![at];
        while at != last {
            at = at.tomorrow();
            days.push(at);
        }
        Ok(days)
    }

    /// Every day.
    pub(super) fn all() -> BTreeSet<Self> {
        (0..7).map(Self).collect()
    }

    const fn tomorrow(self) -> Self {
        Self(if self.0 >= 6 { 0 } else { self.0.saturating_add(1) })
    }

    const fn yesterday(self) -> Self {
        Self(if self.0 == 0 { 6 } else { self.0.saturating_sub(1) })
    }
}

impl From<Weekday> for Day {
    fn from(day: Weekday) -> Self {
        Self(match day {
            Weekday::Monday => 0,
            Weekday::Tuesday => 1,
            Weekday::Wednesday => 2,
            Weekday::Thursday => 3,
            Weekday::Friday => 4,
            Weekday::Saturday => 5,
            Weekday::Sunday => 6,
        })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DAYS.get(usize::from(self.0)).copied().unwrap_or("?"))
    }
}

impl Hours {
    /// Parses `08:00-20:00`; `22:00-06:00` goes over midnight; `24:00` is the end of the day.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = quoted(text);
            format!("{shown} is not a span of the day such as 08:00-20:00 or, over midnight, 22:00-06:00")
        };
        let (start, end) = text.split_once('-').ok_or_else(wrong)?;
        let (start, end) = (minute_of_day(start).ok_or_else(wrong)?, minute_of_day(end).ok_or_else(wrong)?);
        if start == end || start == MINUTES_A_DAY {
            return Err(wrong());
        }
        // Until 00:00 means until the day's end.
        Ok(Self { start, end: if end == 0 { MINUTES_A_DAY } else { end } })
    }
}

const MINUTES_A_DAY: u16 = 24 * 60;

fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| {
        if digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u16>().ok() } else { None }
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|m| *m < 60)?);
    hour.checked_mul(60)?.checked_add(minute).filter(|m| *m <= MINUTES_A_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> String {
        Day::parse_span(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn days_are_single_or_spans_that_may_go_over_the_weeks_end() {
        assert_eq!(days("wed"), "wed");
        assert_eq!(days("mon-fri"), "mon tue wed thu fri");
        assert_eq!(days("sat-mon"), "sat sun mon");
        assert_eq!(days("tue-tue"), "tue");
        for bad in ["", "monday", "Mon", "mon-", "-fri", "mon-fri-sun", "mon,tue", "mon fri"] {
            assert!(Day::parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hours_are_two_times_of_five_characters_that_differ() {
        for (text, start, end) in [
            ("08:00-20:00", 480, 1200),
            ("22:00-06:00", 1320, 360),
            ("00:00-24:00", 0, 1440),
            ("20:00-00:00", 1200, 1440),
        ] {
            assert_eq!(Hours::parse(text).unwrap(), Hours { start, end });
        }
        for bad in [
            "",
            "08:00",
            "8:00-20:00",
            "08:00-08:00",
            "24:00-08:00",
            "08:00-24:01",
            "08:60-09:00",
            "+8:00-09:00",
            "08:00 - 20:00",
            "0800-2000",
        ] {
            assert!(Hours::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_day_of_23_hours_has_its_hours_by_the_clock_on_the_wall() {
        let zone = jiff::tz::TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap();
        let when = When::new(Day::all(), Some(Hours::parse("02:30-03:30").unwrap()), zone, String::new());
        // On 2026-03-29 the clocks go from 02:00 to 03:00: only half an hour of the span exists.
        let at = |text| Timestamp::parse(text).unwrap();
        assert!(!when.holds(at("2026-03-29T00:59:59Z")), "01:59:59");
        assert!(when.holds(at("2026-03-29T01:00:00Z")), "03:00:00");
        assert!(!when.holds(at("2026-03-29T01:30:00Z")), "03:30:00");
        assert_eq!(when.clock(at("2026-03-29T01:00:00Z")), "sun 03:00");
    }
}
