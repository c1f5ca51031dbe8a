//! One line in the log for what happens again and again.

use std::time::{Duration, Instant};

/// A failure that repeats gets one line in so much time.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts what happens again and again, for one line in the log now and then.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    since: Option<Instant>,
    times: u64,
}

impl Repeated {
    /// Counts one; how many there were since the last line, if a line is due.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.times = self.times.saturating_add(1);
        if self.since.is_some_and(|since| now.saturating_duration_since(since) < LINE_EVERY) {
            return None;
        }
        self.since = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_gets_one_line_in_ten_seconds_with_its_count() {
        let (mut repeated, start) = (Repeated::default(), Instant::now());
        let mut count = |ms| repeated.count(start + Duration::from_millis(ms));
        assert_eq!(count(0), Some(1));
        assert_eq!((1..100).filter_map(|n| count(n * 100)).count(), 0);
        assert_eq!(count(10_000), Some(100));
        assert_eq!(count(10_001), None);
    }
}
