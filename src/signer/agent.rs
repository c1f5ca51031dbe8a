//! A CA key in an ssh-agent: whatever key the agent holds, a security module's or one that was only typed in, works.
//!
//! An agent signs anything for whoever reaches its socket, so it must be one of its own: a socket that only the service can open, with no
//! other key in it (`docs/ca-keys.md`). What comes from it is bounded: a frame has 256 KiB at most, and a deadline, however slowly it drips.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::worker::{Backend, Device, Trouble};
use crate::secret;
use crate::ssh::PublicKey;
use crate::ssh::agent::{FRAME_BYTES_MAX, parse_identities, parse_signature, request_identities, sign_request};

/// Where the key is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The public half, as in `id_ed25519.pub`: which of the agent's keys is meant.
    pub public_key: PathBuf,
}

/// An agent's socket.
pub(super) struct Agent {
    pub(super) socket: PathBuf,
}

/// One connection; a second key, or a second user of the agent, has another.
struct Connection {
    stream: UnixStream,
    key: PublicKey,
}

impl Backend for Agent {
    fn name(&self) -> String {
        format!("ssh-agent {}", self.socket.display())
    }

    fn connect(&mut self, key: &PublicKey, until: Instant) -> Result<Box<dyn Device>, Trouble> {
        secret::is_ours_to_ask(&self.socket).map_err(Trouble::new)?;
        let stream = UnixStream::connect(&self.socket).map_err(failed)?;
        let mut connection = Connection { stream, key: key.clone() };
        let answer = connection.ask(&request_identities(), until)?;
        let held = parse_identities(&answer).map_err(|error| Trouble::new(format!("its list of keys: {error}")))?;
        if held.iter().any(|(held, _)| held == key) {
            return Ok(Box::new(connection));
        }
        Err(Trouble::new(format!("it does not hold {} ({} keys in it): ssh-add it", key.fingerprint(), held.len())))
    }
}

impl Device for Connection {
    fn sign(&mut self, data: &[u8], until: Instant) -> Result<Vec<u8>, Trouble> {
        let answer = self.ask(&sign_request(&self.key, data), until)?;
        let signature = parse_signature(&answer).map_err(|error| Trouble::new(format!("its answer: {error}")))?;
        signature.ok_or_else(|| Trouble::new("it refused to sign"))
    }
}

impl Connection {
    /// Sends a frame, and reads one without its length.
    fn ask(&mut self, frame: &[u8], until: Instant) -> Result<Vec<u8>, Trouble> {
        self.stream.set_write_timeout(Some(left(until)?)).map_err(failed)?;
        self.stream.write_all(frame).map_err(failed)?;
        let mut length = [0; 4];
        self.read(&mut length, until)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(Trouble::new("its answer is longer than 256 KiB"));
        }
        let mut body = vec![0; length];
        self.read(&mut body, until)?;
        Ok(body)
    }

    /// Fills `to`; the deadline is for all of it, not for each piece.
    fn read(&mut self, mut to: &mut [u8], until: Instant) -> Result<(), Trouble> {
        while !to.is_empty() {
            self.stream.set_read_timeout(Some(left(until)?)).map_err(failed)?;
            match self.stream.read(to) {
                Ok(0) => return Err(Trouble::new("it hung up")),
                Ok(count) => to = to.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }
}

/// The time that is left, if any.
fn left(until: Instant) -> Result<Duration, Trouble> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Trouble::new("no answer in time")) } else { Ok(left) }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: std::io::Error) -> Trouble {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Trouble::new("no answer in time"),
        _ => Trouble::new(error.to_string()),
    }
}
