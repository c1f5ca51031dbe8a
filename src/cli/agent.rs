//! One question to a person's ssh-agent, and its answer.
//!
//! Invariants: one deadline holds for all of it, from the connection to the answer's last byte, however slowly the agent drips; no more than
//! OpenSSH's own limit for a frame is read, or made room for.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::failure::{Exit, Failure};
use crate::ssh::agent::FRAME_BYTES_MAX;

/// An agent's socket, of which each piece comes and goes in what is left of the time for all of them.
struct Timed {
    stream: UnixStream,
    until: Instant,
}

/// One question to the agent and its answer, without its length; all of it within `timeout`, the answer within OpenSSH's own limit.
///
/// # Errors
/// HP-301 when the agent can't be reached, or does not answer as agents do, or not in time.
pub(super) fn exchange(socket: &Path, question: &[u8], timeout: Duration) -> Result<Vec<u8>, Failure> {
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            agent_failed(&format!("{}: no answer within {} s", socket.display(), timeout.as_secs_f32()))
        }
        _ => agent_failed(&format!("{}: {e}", socket.display())),
    };
    let mut agent = Timed::connect(socket, Instant::now() + timeout).map_err(failed)?;
    agent.write_all(question).map_err(failed)?;
    let mut length = [0_u8; 4];
    agent.read_exact(&mut length).map_err(failed)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(agent_failed("its answer is longer than 256 KiB, or empty"));
    }
    let mut body = vec![0_u8; length];
    agent.read_exact(&mut body).map_err(failed)?;
    Ok(body)
}

/// HP-301.
pub(super) fn agent_failed(why: &str) -> Failure {
    Failure::new(Exit::NotReady, "HP-301", "your ssh agent did not do it").because(why).next("ssh-add -l")
}

impl Timed {
    /// Connects; an agent that takes no connections any more holds nobody up for longer either.
    fn connect(path: &Path, until: Instant) -> std::io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(left(until)?))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { stream: UnixStream::from(socket), until })
    }
}

impl Read for Timed {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.until)?))?;
        self.stream.read(to)
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.until)?))?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// The time that is left, if any.
fn left(until: Instant) -> std::io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::ssh::agent::request_identities;

    /// Far shorter than what the agents here take; how much shorter says nothing.
    const SHORT: Duration = Duration::from_millis(300);

    /// Long enough for what is answered at once, on any machine.
    const LONG: Duration = Duration::from_secs(60);

    /// What is said of an agent that does this with whoever connects to it.
    fn asked(timeout: Duration, agent: impl FnOnce(UnixStream) + Send + 'static) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut vec![0; request_identities().len()]).unwrap();
            agent(stream);
        });
        let answer = exchange(&socket, &request_identities(), timeout);
        agent.join().unwrap();
        answer.map_err(|failure| failure.why.join("; ").replace(&socket.display().to_string(), "SOCKET"))
    }

    /// Waits until the one that asks has gone, or as long as a piece takes; gives whether it has gone.
    fn is_gone(stream: &mut UnixStream, piece: Option<Duration>) -> bool {
        stream.set_read_timeout(piece).unwrap();
        !matches!(stream.read(&mut [0]), Err(why) if why.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn an_agent_that_drips_has_no_more_time_than_one_that_says_nothing() {
        // Two hundred pieces at 20 ms each: no piece is late, all of them are.
        let drips = |mut stream: UnixStream| {
            for byte in [&[0, 0, 0, 196][..], &[12; 196]].concat() {
                if is_gone(&mut stream, Some(Duration::from_millis(20))) {
                    return;
                }
                drop(stream.write_all(&[byte]));
            }
        };
        assert_eq!(asked(SHORT, drips), Err("SOCKET: no answer within 0.3 s".to_owned()));
        let silent = |mut stream: UnixStream| assert!(is_gone(&mut stream, None));
        assert_eq!(asked(SHORT, silent), Err("SOCKET: no answer within 0.3 s".to_owned()));
    }

    #[test]
    fn an_answer_without_end_or_without_anything_is_not_waited_for() {
        let says = |bytes: &'static [u8]| {
            move |mut stream: UnixStream| {
                stream.write_all(bytes).unwrap();
                assert!(is_gone(&mut stream, None));
            }
        };
        let wrong = Err("its answer is longer than 256 KiB, or empty".to_owned());
        for length in [&[0xff; 4], &[0, 4, 0, 1], &[0; 4]] {
            assert_eq!(asked(LONG, says(length)), wrong, "{length:?}");
        }
        assert_eq!(asked(LONG, says(&[0, 0, 0, 2, 12, 7])), Ok(vec![12, 7]));
        let hangs_up = |stream: UnixStream| drop(stream);
        assert_eq!(asked(LONG, hangs_up), Err("SOCKET: failed to fill whole buffer".to_owned()));
    }

    #[test]
    fn an_agent_that_takes_no_connections_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let address = SocketAddrUnix::new(&path).unwrap();
        let new = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let listener = new(SocketFlags::CLOEXEC);
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // Its queue is filled by others.
        let others = std::iter::repeat_with(|| new(SocketFlags::NONBLOCK));
        let waiting: Vec<_> = others.take_while(|other| connect(other, &address).is_ok()).collect();
        assert!(!waiting.is_empty());
        let failure = exchange(&path, &request_identities(), SHORT).unwrap_err();
        assert_eq!(failure.why, [format!("{}: no answer within 0.3 s", path.display())]);
    }
}
