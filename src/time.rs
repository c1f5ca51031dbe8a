//! Whole seconds, spans of them, and the clock.
//!
//! What for: every moment in hallpass is a [`Timestamp`] (whole Unix seconds), every duration a [`Lifetime`]
//! and every span a half-open [`Window`] `[start, end)`, exactly as `sshd` compares them
//! (`now < valid_after` or `now >= valid_before` is refused).
//!
//! What not: no time zones (the policy's `when` has its own), no sub-second values, no wrapping arithmetic.
//!
//! Invariants: a `Timestamp` lies before the year 10000, so it always prints as RFC 3339 and never reaches the
//! values that OpenSSH reads as "forever"; `start < end` in every `Window`; arithmetic is checked.
//!
//! [`SystemClock`] is the only reader of the system time; everything else takes `now` as an argument.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// The last representable second: 9999-12-30T22:00:00Z. RFC 3339 has four-digit years, and the library that prints them keeps
/// a day free for offsets.
const TIMESTAMP_MAX: u64 = 253_402_207_200;

/// The longest lifetime: 366 days. Our own choice; nothing just-in-time lasts longer.
const LIFETIME_MAX_S: u32 = 366 * 86_400;

/// A moment, in whole seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// A duration in whole seconds, at most 366 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(u32);

/// A half-open span `[start, end)` of at least one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    start: Timestamp,
    end: Timestamp,
}

/// Why a text or number is not a time, lifetime or window.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TimeError {
    /// Not RFC 3339 in UTC or with an offset.
    #[error("{0:?} is not a time like 2026-01-05T10:00:00Z")]
    Timestamp(String),
    /// Not a number with a unit.
    #[error("{0:?} is not a duration like 90s, 45m, 2h, 1h30m or 1d")]
    Lifetime(String),
    /// Outside what hallpass represents.
    #[error("the time is out of range")]
    OutOfRange,
    /// The end is not after the start.
    #[error("a window must end after it starts")]
    EmptyWindow,
}

impl Timestamp {
    /// The first one that there is.
    pub const MIN: Self = Self(0);

    /// The last one that there is.
    pub const MAX: Self = Self(TIMESTAMP_MAX);

    /// The moment `seconds` after the Unix epoch.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`] behind the last day but one of the year 9999.
    pub fn from_unix(seconds: u64) -> Result<Self, TimeError> {
        if seconds > TIMESTAMP_MAX { Err(TimeError::OutOfRange) } else { Ok(Self(seconds)) }
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// Parses RFC 3339 with `T`, and `Z` or an offset; fractions of a second and leap seconds are refused.
    ///
    /// # Errors
    /// [`TimeError::Timestamp`] for anything else.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::Timestamp(text.chars().take(64).collect());
        // The library reads more than RFC 3339, and turns second 60 into 59.
        if !is_rfc3339(text.as_bytes()) {
            return Err(wrong());
        }
        let time: jiff::Timestamp = text.parse().ok().ok_or_else(wrong)?;
        u64::try_from(time.as_second()).ok().ok_or_else(wrong).and_then(|s| Self::from_unix(s).ok().ok_or_else(wrong))
    }

    /// Parses the `Date` of an HTTP answer: `Mon, 05 Jan 2026 10:00:00 GMT` (RFC 9110 section 5.6.7, the form that is sent today).
    ///
    /// # Errors
    /// [`TimeError::Timestamp`] for anything else.
    pub fn parse_http_date(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::Timestamp(text.chars().take(64).collect());
        let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().ok_or_else(wrong)?;
        u64::try_from(time.as_second()).ok().and_then(|s| Self::from_unix(s).ok()).ok_or_else(wrong)
    }

    /// This moment plus `span`.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`] behind the last day but one of the year 9999.
    pub fn plus(self, span: Lifetime) -> Result<Self, TimeError> {
        self.0.checked_add(u64::from(span.0)).ok_or(TimeError::OutOfRange).and_then(Self::from_unix)
    }

    /// This moment minus `span`.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`] before 1970.
    pub fn minus(self, span: Lifetime) -> Result<Self, TimeError> {
        self.0.checked_sub(u64::from(span.0)).map(Self).ok_or(TimeError::OutOfRange)
    }

    /// Seconds from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whether the text has the shape `2026-01-05T10:00:00Z` or `…+01:00`, without second 60.
fn is_rfc3339(text: &[u8]) -> bool {
    let fits = |shape: &[u8]| {
        let same = |(given, wanted): (&u8, &u8)| if *wanted == b'0' { given.is_ascii_digit() } else { given == wanted };
        text.len() == shape.len() && text.iter().zip(shape).all(same)
    };
    let leaps = text.get(17) == Some(&b'6');
    !leaps
        && [&b"0000-00-00T00:00:00Z"[..], b"0000-00-00T00:00:00+00:00", b"0000-00-00T00:00:00-00:00"]
            .into_iter()
            .any(fits)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, as in `2026-01-05T10:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match i64::try_from(self.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()) {
            Some(time) => write!(f, "{time}"),
            None => write!(f, "@{}", self.0),
        }
    }
}

impl Lifetime {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `seconds` seconds.
    ///
    /// # Errors
    /// [`TimeError::OutOfRange`] above 366 days.
    pub const fn from_seconds(seconds: u32) -> Result<Self, TimeError> {
        if seconds > LIFETIME_MAX_S { Err(TimeError::OutOfRange) } else { Ok(Self(seconds)) }
    }

    /// `minutes` minutes, capped at 366 days.
    #[must_use]
    pub const fn minutes(minutes: u32) -> Self {
        let seconds = minutes.saturating_mul(60);
        Self(if seconds > LIFETIME_MAX_S { LIFETIME_MAX_S } else { seconds })
    }

    /// The number of seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// Parses `90s`, `45m`, `2h`, `1d` and sums such as `1h30m` (units from large to small, each once).
    ///
    /// # Errors
    /// [`TimeError::Lifetime`] for anything else, [`TimeError::OutOfRange`] above 366 days.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError::Lifetime(text.chars().take(64).collect());
        let mut total: u32 = 0;
        let mut number: Option<u32> = None;
        let mut last_unit = u32::MAX;
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let n = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                number = Some(n.ok_or(TimeError::OutOfRange)?);
                continue;
            }
            let unit = match c {
                's' => 1,
                'm' => 60,
                'h' => 3_600,
                'd' => 86_400,
                _ => return Err(wrong()),
            };
            let n = number.take().filter(|_| unit < last_unit).ok_or_else(wrong)?;
            last_unit = unit;
            total = n.checked_mul(unit).and_then(|s| total.checked_add(s)).ok_or(TimeError::OutOfRange)?;
        }
        if number.is_some() || last_unit == u32::MAX {
            return Err(wrong());
        }
        Self::from_seconds(total)
    }

    /// The sum, or the longest lifetime if it would be longer.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(LIFETIME_MAX_S))
    }
}

impl fmt::Display for Lifetime {
    /// The form [`Lifetime::parse`] reads: `1h30m`, `45s`, `2d`; `0s` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, letter) in [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')] {
            let n = rest.checked_div(unit).unwrap_or(0);
            rest = rest.checked_rem(unit).unwrap_or(0);
            if n > 0 {
                write!(f, "{n}{letter}")?;
            }
        }
        Ok(())
    }
}

impl Window {
    /// The window `[start, end)`.
    ///
    /// # Errors
    /// [`TimeError::EmptyWindow`] unless `start < end`.
    pub fn new(start: Timestamp, end: Timestamp) -> Result<Self, TimeError> {
        if start < end { Ok(Self { start, end }) } else { Err(TimeError::EmptyWindow) }
    }

    /// The first second inside.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        self.start
    }

    /// The first second after it.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        self.end
    }

    /// Whether `now` is inside.
    #[must_use]
    pub fn contains(self, now: Timestamp) -> bool {
        self.start <= now && now < self.end
    }

    /// Whether it is over at `now`.
    #[must_use]
    pub fn is_over(self, now: Timestamp) -> bool {
        now >= self.end
    }

    /// Its length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.start, self.end)
    }
}

/// Where the service gets the time from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current second.
    fn now(&self) -> Timestamp;

    /// Seconds by a clock that nobody sets. Only differences mean something.
    fn steady(&self) -> u64;
}

/// The machine's clock. A clock before 1970 or after 9999 reads as the nearest representable second.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one reader of the system time")]
    fn now(&self) -> Timestamp {
        let seconds =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Timestamp(seconds.min(TIMESTAMP_MAX))
    }

    fn steady(&self) -> u64 {
        // Counts while the machine is suspended, which `Instant` does not.
        rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec.unsigned_abs()
    }
}

/// What both clocks of the machine show at one moment, for what waits for a time: one that is set, one that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since 1970. Jumps when the clock is set.
    pub wall: std::time::Duration,
    /// Time since the machine started, suspended or not.
    pub boot: std::time::Duration,
}

impl SystemClock {
    /// This moment.
    #[must_use]
    pub fn moment(self) -> Moment {
        use rustix::time::{ClockId, clock_gettime};
        // A clock before 1970 shows 1970.
        let read = |clock| std::time::Duration::try_from(clock_gettime(clock)).unwrap_or_default();
        Moment { wall: read(ClockId::Realtime), boot: read(ClockId::Boottime) }
    }
}

/// A clock that stands still until it is set, for tests and for `policy test`.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicU64,
    /// By how much it leapt, modulo 2^64.
    leapt: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self { now: AtomicU64::new(now.0), leapt: AtomicU64::new(0) }
    }

    /// Sets it, forwards or back, as if so much time had passed.
    pub fn set(&self, now: Timestamp) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    /// Sets it as an operator (or a broken time source) sets the machine's clock, without time passing.
    pub fn leap(&self, now: Timestamp) {
        let before = self.now.swap(now.0, Ordering::SeqCst);
        self.leapt.fetch_add(now.0.wrapping_sub(before), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn steady(&self) -> u64 {
        self.now.load(Ordering::SeqCst).wrapping_sub(self.leapt.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_date_of_an_http_answer_is_read() {
        let parsed = Timestamp::parse_http_date("Mon, 05 Jan 2026 10:00:00 GMT").unwrap();
        assert_eq!(parsed.to_string(), "2026-01-05T10:00:00Z");
        for wrong in ["", "2026-01-05T10:00:00Z", "Mon, 05 Jan 1926 10:00:00 GMT", "Mon, 05 Jan 2026"] {
            Timestamp::parse_http_date(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_time_is_read_with_z_or_an_offset_and_printed_with_z() {
        let noon = Timestamp::from_unix(1_767_614_400).unwrap();
        assert_eq!(noon.to_string(), "2026-01-05T12:00:00Z");
        for text in ["2026-01-05T12:00:00Z", "2026-01-05T13:30:00+01:30", "2026-01-05T07:00:00-05:00"] {
            assert_eq!(Timestamp::parse(text), Ok(noon), "{text}");
        }
    }

    #[test]
    fn what_is_not_rfc_3339_in_whole_seconds_is_refused() {
        for text in [
            "",
            "now",
            "2026-01-05",
            "2026-01-05T12:00Z",
            "2026-01-05T12:00:00",
            "2026-01-05T12:00:00.5Z",
            "2026-01-05T12:00:00.000Z",
            "2026-01-05 12:00:00Z",
            "2026-01-05t12:00:00z",
            "2026-01-05T12:00:00Z[UTC]",
            "2026-01-05T12:00:00+0100",
            "2026-01-05T23:59:60Z",
            "2026-02-30T12:00:00Z",
            "2026-01-05T24:00:00Z",
            "2026-01-05T12:00:00+99:00",
            "1969-12-31T23:59:59Z",
            "+002026-01-05T12:00:00Z",
            " 2026-01-05T12:00:00Z",
            "2026-01-05T12:00:0\u{661}Z",
        ] {
            assert!(matches!(Timestamp::parse(text), Err(TimeError::Timestamp(_))), "{text:?}");
        }
    }

    #[test]
    fn times_end_with_the_year_9999() {
        let last = Timestamp::parse("9999-12-30T22:00:00Z").unwrap();
        assert_eq!(last.to_string(), "9999-12-30T22:00:00Z");
        assert_eq!(last.unix(), TIMESTAMP_MAX);
        assert_eq!(last.plus(Lifetime::from_seconds(1).unwrap()), Err(TimeError::OutOfRange));
        assert_eq!(Timestamp::from_unix(u64::MAX), Err(TimeError::OutOfRange));
        assert_eq!(Timestamp::from_unix(0).unwrap().minus(Lifetime::minutes(1)), Err(TimeError::OutOfRange));
        for text in ["9999-12-30T22:00:01Z", "9999-12-31T23:59:59-01:00"] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_is_a_sum_from_large_to_small_units() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("45m", 2_700), ("1h30m", 5_400), ("1d", 86_400), ("366d", 31_622_400)]
        {
            assert_eq!(Lifetime::parse(text).map(Lifetime::seconds), Ok(seconds), "{text}");
        }
        for text in ["", "5", "m", "1m1h", "1h1h", "1.5h", "-1h", "1h ", "1 h", "1H", "1w", "1h30", "\u{661}h"] {
            assert!(matches!(Lifetime::parse(text), Err(TimeError::Lifetime(_))), "{text:?}");
        }
        for text in ["367d", "366d1s", "4294967296s", "99999999999999999999d"] {
            assert_eq!(Lifetime::parse(text), Err(TimeError::OutOfRange), "{text:?}");
        }
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let at = |seconds| Timestamp::from_unix(seconds).unwrap();
        let window = Window::new(at(10), at(20)).unwrap();
        assert!(
            !window.contains(at(9)) && window.contains(at(10)) && window.contains(at(19)) && !window.contains(at(20))
        );
        assert!(!window.is_over(at(19)) && window.is_over(at(20)));
        assert_eq!(window.seconds(), 10);
        assert_eq!(Window::new(at(20), at(20)), Err(TimeError::EmptyWindow));
        assert_eq!(Window::new(at(21), at(20)), Err(TimeError::EmptyWindow));
    }

    #[test]
    fn a_manual_clock_goes_forwards_and_back() {
        let at = |seconds| Timestamp::from_unix(seconds).unwrap();
        let clock = ManualClock::at(at(10));
        clock.set(at(5));
        assert_eq!(clock.now(), at(5));
        assert_eq!((at(10).seconds_since(at(7)), at(7).seconds_since(at(10))), (3, 0));
    }

    proptest! {
        #[test]
        fn a_printed_time_is_read_back(seconds in 0..=TIMESTAMP_MAX) {
            let time = Timestamp::from_unix(seconds).unwrap();
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
        }

        #[test]
        fn a_printed_duration_is_read_back(seconds in 0..=LIFETIME_MAX_S) {
            let lifetime = Lifetime::from_seconds(seconds).unwrap();
            prop_assert_eq!(Lifetime::parse(&lifetime.to_string()), Ok(lifetime));
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            if let Ok(time) = Timestamp::parse(&text) {
                prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
            }
            if let Ok(lifetime) = Lifetime::parse(&text) {
                prop_assert_eq!(Lifetime::parse(&lifetime.to_string()), Ok(lifetime));
            }
        }

        #[test]
        fn adding_and_taking_away_come_back(seconds in 0..=TIMESTAMP_MAX, span in 0..=LIFETIME_MAX_S) {
            let (time, span) = (Timestamp::from_unix(seconds).unwrap(), Lifetime::from_seconds(span).unwrap());
            if let Ok(later) = time.plus(span) {
                prop_assert_eq!(later.minus(span), Ok(time));
                prop_assert_eq!(later.seconds_since(time), u64::from(span.seconds()));
            }
        }
    }
}
