//! One line to the machine's log (syslog, RFC 3164's short form), for processes that have no terminal and no supervisor.
//!
//! Invariants: never waits: a log that does not take a line loses it. Nothing is written unescaped.

use std::os::unix::net::UnixDatagram;

/// Where the log listens.
const SOCKET: &str = "/dev/log";

/// Facility `authpriv` (10), severity `notice` (5).
const PRIORITY: u8 = 10 * 8 + 5;

/// The most characters of a line: syslog cuts at 500 bytes (OPENSSH facts 3.5).
const CHARS_MAX: usize = 400;

/// Writes one line.
pub fn note(text: &str) {
    let line = line(std::process::id(), text);
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), SOCKET)
    });
    // Without a log there is nobody to tell.
    drop(sent);
}

fn line(pid: u32, text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars().take(CHARS_MAX) {
        if c == ' ' || c.is_ascii_graphic() {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
    }
    format!("<{PRIORITY}>hallpass[{pid}]: {safe}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_of_ascii_with_an_end() {
        assert_eq!(line(7, "denied: a\nb\u{1b}[2J\u{202e}"), "<85>hallpass[7]: denied: a\\nb\\u{1b}[2J\\u{202e}");
        assert!(line(7, &"x".repeat(10_000)).len() < 450);
    }
}
