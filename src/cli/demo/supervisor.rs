//! The demo's stand-in for the guard: ends each connection when the window of the certificate that opened it ends.
//!
//! It reads which certificate opened a connection from what that connection's sshd logged, and the window's end from the
//! certificate. On real hosts a PAM session hook does this (and does not depend on a log).
//!
//! What not: a process that leaves the tree *and* clears its environment (`env -i setsid …`, then a double fork) is not
//! recognised here as the connection's. Enrolled hosts find it by its audit session id, which no process can change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::sshd::{Connection, Host};
use crate::host::ending;
use crate::host::process::{Process, Processes};
use crate::time::{Clock as _, SystemClock, Timestamp};

/// What became of one connection.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// Its number.
    pub(super) connection: u64,
    /// How many processes were signalled, or why some are left.
    pub(super) outcome: Result<usize, String>,
}

/// Watches a host until it is dropped. `windows` tells the end of a certificate's window by its serial.
pub(super) fn watch_over(
    host: Arc<Host>,
    windows: watch::Receiver<BTreeMap<u64, Timestamp>>,
) -> (tokio::task::JoinHandle<()>, watch::Receiver<Vec<Ended>>) {
    let (said, ended) = watch::channel(Vec::new());
    let task = tokio::spawn(async move {
        let mut done = BTreeSet::new();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            let now = SystemClock.now();
            for (number, connection) in host.connections() {
                let Some(process) = connection.process.filter(|_| !done.contains(&number)) else { continue };
                let over = serial(&connection.log).and_then(|s| windows.borrow().get(&s).copied());
                if over.is_some_and(|end| now >= end) {
                    done.insert(number);
                    let outcome = tokio::task::spawn_blocking(move || end(process, &connection)).await;
                    let outcome = outcome.map_err(|e| e.to_string()).and_then(|ended| ended.map_err(|e| e.to_string()));
                    said.send_modify(|all| all.push(Ended { connection: number, outcome }));
                }
            }
        }
    });
    (task, ended)
}

/// The serial in `Accepted publickey for … ID hallpass/… (serial 7) CA …`. The key id is ours and holds no blank, so the first
/// `(serial` after it is sshd's own.
fn serial(log: &[String]) -> Option<u64> {
    let line = log.iter().rev().find(|l| l.starts_with("Accepted publickey for "))?;
    let (_, rest) = line.split_once(" ID hallpass/")?;
    let (_, rest) = rest.split_once(" (serial ")?;
    rest.split_once(')')?.0.parse().ok()
}

/// Ends the connection's processes, and those that have left its tree: as subreaper they became ours, and their environment
/// still names the connection.
fn end(process: Process, connection: &Connection) -> std::io::Result<usize> {
    let mark = format!("SSH_CONNECTION={} {} ", connection.peer.ip(), connection.peer.port());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let orphans = |all: &Processes| {
        let of_session = |p: &Process| {
            std::fs::read(format!("/proc/{}/environ", p.pid))
                .is_ok_and(|env| env.split(|b| *b == 0).any(|v| v.starts_with(mark.as_bytes())))
        };
        all.children(own).into_iter().filter(of_session).collect()
    };
    ending::end(&BTreeSet::from([process]), orphans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_is_read_from_sshds_line_about_our_key_id() {
        let line = "Accepted publickey for deploy from 127.0.0.1 port 4242 ssh2: ED25519-CERT SHA256:x \
                    ID hallpass/7K3F9QX2/alice@example.com (serial 7) CA ED25519 SHA256:y";
        assert_eq!(serial(&[line.to_owned()]), Some(7));
        assert_eq!(serial(&["Accepted publickey for deploy from ::1 port 1 ssh2: ED25519 SHA256:x".to_owned()]), None);
        assert_eq!(serial(&[]), None);
    }
}
