//! A promise in seconds, kept where the machine has time for it.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What has to be true within a time from now on.
///
/// The time does not count in which this machine kept some task waiting for a processor or a disk, as it does where many tests run side
/// by side; three times as long is too long anywhere. Where only that was kept, it is said.
pub(crate) struct Promise {
    began: Instant,
    kept_waiting: [Duration; 2],
    within: Duration,
    is_late: Cell<bool>,
}

impl Promise {
    pub(crate) fn within(within: Duration) -> Self {
        Self { began: Instant::now(), kept_waiting: kept_waiting(), within, is_late: Cell::new(false) }
    }

    pub(crate) fn is_broken(&self) -> bool {
        let waited = kept_waiting().into_iter().zip(self.kept_waiting).map(|(now, then)| now.saturating_sub(then));
        let took = self.began.elapsed();
        if took >= self.within && !self.is_late.replace(true) {
            println!("not shown here: within {:?}; the machine is too busy", self.within);
        }
        took.saturating_sub(waited.max().unwrap()) >= self.within || took >= self.within * 3
    }
}

/// For how long some task has waited for a processor since the machine started, and for a disk; not at all where the kernel does not
/// count it (its `accounting/psi`).
fn kept_waiting() -> [Duration; 2] {
    ["cpu", "io"].map(|of| {
        let text = std::fs::read_to_string(format!("/proc/pressure/{of}")).unwrap_or_default();
        let total = text.lines().next().and_then(|some| some.rsplit_once("total=")?.1.parse().ok());
        total.map_or(Duration::ZERO, Duration::from_micros)
    })
}
