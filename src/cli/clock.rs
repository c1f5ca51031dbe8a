//! The time as the server has it, on a machine whose own clock is wrong.
//!
//! What for: whether a certificate is good is a matter of the server's and the hosts' clocks, not of this machine's. When an answer shows
//! that ours is off, the server's time is kept in a small file and carried on by the clock that counts seconds since the machine was
//! started; so a laptop that is ten minutes off works, and is told so (HP-121).
//!
//! What not: no clock is set, and none is believed that was kept before the machine was last started. Without such a file (nearly always)
//! the machine's own clock is taken, and nothing but its absence is looked at.

use std::path::{Path, PathBuf};

use super::profile::{read_small, write};
use crate::client::ClockOffset;
use crate::time::{Clock as _, SystemClock, Timestamp};

/// From how many seconds on the server's time is taken instead of ours. What is less is within the measurement and the backdating.
const KEPT_FROM_S: u64 = 5;

/// From how many seconds on people are told: policy backdates certificates by 30 s unless it says otherwise.
const TOLD_FROM_S: u64 = 30;

/// The time as the server has it, as far as `folder` knows.
pub(crate) fn now(folder: &Path) -> Timestamp {
    kept(folder).unwrap_or_else(|| SystemClock.now())
}

/// The same, by what an answer of this run said; else as far as `folder` knows.
pub(crate) fn measured(offset: &ClockOffset, folder: Option<&Path>) -> Timestamp {
    match offset.seconds() {
        Some(ahead) if ahead.unsigned_abs() >= KEPT_FROM_S => shifted(ahead).unwrap_or_else(|| SystemClock.now()),
        Some(_) => SystemClock.now(),
        None => folder.map_or_else(|| SystemClock.now(), now),
    }
}

/// The server's time when ours is ahead by so many seconds.
fn shifted(ahead: i64) -> Option<Timestamp> {
    let here = i64::try_from(SystemClock.now().unix()).ok()?;
    Timestamp::from_unix(u64::try_from(here.checked_sub(ahead)?).ok()?).ok()
}

/// Keeps what an answer said about our clock, or forgets what was kept once it is right.
pub(crate) fn keep(folder: &Path, offset: &ClockOffset) {
    let Some(ahead) = offset.seconds() else { return };
    let path = file(folder);
    if ahead.unsigned_abs() < KEPT_FROM_S {
        if path.exists() {
            // What can't be deleted is read again, and is still right.
            drop(std::fs::remove_file(&path));
        }
        return;
    }
    let (Some(boot), Some(there)) = (boot(), shifted(ahead)) else { return };
    // Without it the next call to the server measures anew.
    drop(write(&path, format!("{boot} {} {}\n", SystemClock.steady(), there.unix()).as_bytes()));
}

/// HP-121, when the clock is so wrong that people should know.
pub(crate) fn warning(offset: &ClockOffset) -> Option<String> {
    let ahead = offset.seconds().filter(|ahead| ahead.unsigned_abs() >= TOLD_FROM_S)?;
    let which = if ahead > 0 { "ahead of" } else { "behind" };
    let (minutes, seconds) = (ahead.unsigned_abs() / 60, ahead.unsigned_abs() % 60);
    let span = if minutes == 0 { format!("{seconds} s") } else { format!("{minutes} min {seconds} s") };
    Some(format!(
        "warning: your clock is {span} {which} the server's (HP-121); access goes by the server's and works, set yours right: {}",
        "sudo timedatectl set-ntp true"
    ))
}

/// What was kept since this machine was started.
fn kept(folder: &Path) -> Option<Timestamp> {
    let text = read_small(&file(folder)).ok()??;
    let mut words = text.split_whitespace();
    let (boot_then, steady, there) = (words.next()?, words.next()?, words.next()?);
    if boot()? != boot_then {
        return None;
    }
    let passed = SystemClock.steady().checked_sub(steady.parse().ok()?)?;
    Timestamp::from_unix(there.parse::<u64>().ok()?.checked_add(passed)?).ok()
}

/// A name for this run of the machine.
fn boot() -> Option<String> {
    let id = read_small(Path::new("/proc/sys/kernel/random/boot_id")).ok()??;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

fn file(folder: &Path) -> PathBuf {
    folder.join("clock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_before_the_machine_was_started_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let shows = |text: String| {
            write(&folder.path().join("clock"), text.as_bytes()).unwrap();
            kept(folder.path()).map(Timestamp::unix)
        };
        let (boot, steady) = (boot().unwrap(), SystemClock.steady());
        let carried_on = shows(format!("{boot} {} 1000\n", steady - 5)).unwrap();
        assert!((1005..1060).contains(&carried_on), "{carried_on}");
        assert_eq!(shows(format!("another {steady} 1000\n")), None);
        assert_eq!(shows(format!("{boot} {} 1000\n", u64::MAX)), None, "a start that lies ahead");
        assert_eq!(shows(format!("{boot} 1 {}\n", u64::MAX)), None);
        assert_eq!(shows(format!("{boot} {steady}\n")), None);
        assert_eq!(shows(String::new()), None);
    }
}
