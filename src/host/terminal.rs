//! What the people of a session read before it ends, on their terminals.
//!
//! Invariants: ASCII only, each line begins with `[hallpass]`. Never waits for a terminal. A terminal is written to only if it is a
//! pseudo-terminal that belongs to the user whose process has it: terminal numbers of another mount namespace mean somebody else's.
//!
//! Decision: the terminals below the connection's process, found by walking down from it. A scan of all processes would find a few
//! more (panes of a terminal multiplexer), but costs too much when hundreds of sessions end at once.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use super::deadline::Notice;
use super::process::{self, Process};
use super::record::Record;
use crate::time::{Lifetime, Timestamp};

/// The most processes below a connection that are looked at. Our own choice.
const PROCESSES_MAX: usize = 500;

/// The first and last major number of Unix98 pseudo-terminals (devices.txt).
const PTS_MAJOR: std::ops::RangeInclusive<u32> = 136..=143;

/// Says it on all terminals of the session.
pub fn say(record: &Record, notice: Notice) {
    let text = text(record, notice);
    for (device, user) in terminals(record.key.connection) {
        write(device, user, text.as_bytes());
    }
}

/// What is said: lines that stand alone, whatever the terminal's mode.
#[must_use]
pub fn text(record: &Record, notice: Notice) -> String {
    let (host, end) = (&record.host, clock(record.deadline.wall));
    // The host's login to itself has no request, and no terminal to say this on.
    let request = record.request().map(ToString::to_string).unwrap_or_default();
    let more = format!("for more time, on your laptop: hallpass extend {request} --for 30m");
    let lines = match notice {
        Notice::FiveMinutes => [format!("access to {host} ends in 5 minutes, at {end}"), more],
        Notice::OneMinute => [format!("access to {host} ends in 1 minute, at {end}"), more],
        Notice::Over => [
            format!("access to {host} ended {end} (granted {}), HP-207", granted(record)),
            format!(
                "its processes are ended, files stay where they are; to ask again, on your laptop: hallpass ssh {host}"
            ),
        ],
    };
    lines.iter().fold("\r\n".to_owned(), |text, line| format!("{text}[hallpass] {line}\r\n"))
}

fn granted(record: &Record) -> String {
    let seconds = record.deadline.wall.seconds_since(record.window.start());
    let lifetime = u32::try_from(seconds).ok().and_then(|seconds| Lifetime::from_seconds(seconds).ok());
    lifetime.unwrap_or(Lifetime::ZERO).to_string()
}

/// `04:00:51 UTC`: the host's own zone may be anything.
fn clock(at: Timestamp) -> String {
    at.to_string().split_once('T').map_or_else(|| at.to_string(), |(_, time)| time.replace('Z', " UTC"))
}

/// The terminals of the processes below `connection`, with their users.
fn terminals(connection: Process) -> BTreeSet<(u32, u32)> {
    let (mut found, mut edge, mut seen) = (BTreeSet::new(), vec![connection.pid], 0_usize);
    while let Some(pid) = edge.pop().filter(|_| seen < PROCESSES_MAX) {
        seen = seen.saturating_add(1);
        edge.extend(process::children_of(pid));
        found.extend(process::terminal_of(pid).zip(process::user_of(pid)));
    }
    found
}

/// Writes to the pseudo-terminal with this device number, if it is `user`'s.
fn write(device: u32, user: u32, bytes: &[u8]) {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    if !PTS_MAJOR.contains(&major) {
        return;
    }
    let number = major.saturating_sub(*PTS_MAJOR.start()).saturating_mul(256).saturating_add(minor);
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed();
    let path = format!("/dev/pts/{number}");
    let Ok(mut terminal) = OpenOptions::new().write(true).custom_flags(flags).open(path) else { return };
    let is_meant = terminal.metadata().is_ok_and(|found| {
        let device = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        device == (major, minor) && found.uid() == user
    });
    if is_meant {
        // A terminal that is stopped or gone takes nothing; the end does not wait for it.
        drop(terminal.write_all(bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::deadline::Deadline;
    use crate::host::record::tests::record;
    use crate::time::Window;

    #[test]
    fn the_lines_say_what_when_and_what_to_do_in_ascii() {
        let at = |text| Timestamp::parse(text).unwrap();
        let (start, end) = (at("2026-01-05T03:00:51Z"), at("2026-01-05T04:00:51Z"));
        let record = Record {
            deadline: Deadline { wall: end, boot: Duration::ZERO },
            window: Window::new(start, end).unwrap(),
            ..record()
        };
        let said = [Notice::FiveMinutes, Notice::OneMinute, Notice::Over].map(|notice| text(&record, notice));
        assert_eq!(
            said,
            [
                "\r\n[hallpass] access to web-1 ends in 5 minutes, at 04:00:51 UTC\r\n\
                 [hallpass] for more time, on your laptop: hallpass extend 7K3F-9QX2 --for 30m\r\n",
                "\r\n[hallpass] access to web-1 ends in 1 minute, at 04:00:51 UTC\r\n\
                 [hallpass] for more time, on your laptop: hallpass extend 7K3F-9QX2 --for 30m\r\n",
                "\r\n[hallpass] access to web-1 ended 04:00:51 UTC (granted 1h), HP-207\r\n\
                 [hallpass] its processes are ended, files stay where they are; to ask again, on your laptop: hallpass ssh web-1\r\n",
            ]
        );
        assert!(said.iter().all(|text| text.is_ascii()));
    }
}
