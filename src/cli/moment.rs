//! Moments as people say them: `18:00` on their own clock, or RFC 3339.
//!
//! What not: no durations (`time::Lifetime`), and no printing (`output`).

use jiff::civil;
use jiff::tz::TimeZone;

use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp};

/// Parses `18:00` (the next time that it is so late here) or RFC 3339.
///
/// # Errors
/// What is accepted.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, SystemClock.now(), &TimeZone::system())
}

/// From `from` until `until`, in whole minutes where that is more than a few: nobody means the seconds.
///
/// # Errors
/// When `until` is not later.
pub(crate) fn span(from: Timestamp, until: Timestamp) -> Result<Lifetime, String> {
    let seconds = until.seconds_since(from);
    let whole = if seconds < 300 { seconds } else { seconds / 60 * 60 };
    match u32::try_from(whole).ok().map(Lifetime::from_seconds) {
        _ if seconds == 0 => Err("it is not later than the start".to_owned()),
        Some(Ok(span)) => Ok(span),
        Some(Err(_)) | None => Err("it is too far ahead".to_owned()),
    }
}

fn parse_at(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is neither a time of day like 18:00 nor a time like 2026-01-05T18:00:00Z");
    let Some(time) = time_of_day(text) else { return Timestamp::parse(text).map_err(|_neither| wrong()) };
    let here = i64::try_from(now.unix()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).ok_or_else(wrong)?;
    let today = here.to_zoned(zone.clone()).date();
    // A time that a change of clocks leaves out or has twice is taken as jiff has it: the gap's end, the first of two.
    let on = |day: civil::Date| {
        let zoned = day.to_datetime(time).to_zoned(zone.clone()).ok()?;
        Timestamp::from_unix(u64::try_from(zoned.timestamp().as_second()).ok()?).ok()
    };
    match on(today) {
        Some(at) if at > now => Ok(at),
        _ => today.tomorrow().ok().and_then(on).ok_or_else(wrong),
    }
}

/// `18:00` or `9:05`.
fn time_of_day(text: &str) -> Option<civil::Time> {
    let (hours, minutes) = text.split_once(':')?;
    let is_number = |text: &str| !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(hours) || !is_number(minutes) || minutes.len() != 2 {
        return None;
    }
    civil::Time::new(hours.parse().ok()?, minutes.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_time_of_day_is_the_next_one_on_the_clock_here() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now = at("2026-01-05T10:00:00Z");
        for (text, means) in [
            ("18:00", "2026-01-05T17:00:00Z"),
            ("11:01", "2026-01-05T10:01:00Z"),
            // It is 11:00 there: the next 11:00 is tomorrow's.
            ("11:00", "2026-01-06T10:00:00Z"),
            ("9:05", "2026-01-06T08:05:00Z"),
            ("2026-01-05T18:00:00+01:00", "2026-01-05T17:00:00Z"),
        ] {
            assert_eq!(parse_at(text, now, &zone), Ok(at(means)), "{text}");
        }
        for text in ["", "18", "18:0", "24:00", "18:60", "18:00:00", "-1:00", "1 :00", "soon", "2026-01-05"] {
            parse_at(text, now, &zone).unwrap_err();
        }
    }

    #[test]
    fn a_clock_that_is_put_forward_leaves_no_gap_and_put_back_none_twice() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        // At 02:00 on 29 March 2026 clocks go to 03:00.
        assert_eq!(parse_at("2:30", at("2026-03-29T00:30:00Z"), &zone), Ok(at("2026-03-29T01:30:00Z")));
        assert_eq!(parse_at("2:30", at("2026-10-25T00:00:00Z"), &zone), Ok(at("2026-10-25T00:30:00Z")));
    }

    #[test]
    fn a_span_is_never_longer_than_to_that_moment() {
        let now = at("2026-01-05T10:00:17Z");
        assert_eq!(span(now, at("2026-01-05T10:45:00Z")).unwrap().to_string(), "44m");
        assert_eq!(span(now, at("2026-01-05T10:01:00Z")).unwrap().to_string(), "43s");
        span(now, now).unwrap_err();
        span(now, at("2029-01-05T10:01:00Z")).unwrap_err();
    }
}
