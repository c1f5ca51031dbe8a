//! What holds the private half of session keys: a file of ours, a security key of the person's, or the file and their ssh-agent.
//!
//! What for: programs that speak to an agent and read no ssh configuration get in as well (`agent`), and a certificate may be bound to a
//! device that has to be touched (a security key's file). What it is for a profile is said once, by `hallpass setup --key`.
//!
//! Invariants: an agent gets the certificate's entry alone, never the bare key, and only until shortly after its end; after adding we look
//! whether it is there, because some agents say yes and keep nothing. A security key's own file is linked to, never copied.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::agent::exchange;
use super::failure::{Exit, Failure};
use super::local::Held;
use super::profile::{env, read_small};
use crate::ssh::PublicKey;
use crate::ssh::agent;
use crate::ssh::private::SessionKey;
use crate::time::Timestamp;

/// How long an agent may take to add, list or forget: it asks nobody.
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much longer than its certificate an entry may stay, for hosts whose clocks are behind.
const GRACE_S: u64 = 60;

/// What holds a profile's session keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) enum Holder {
    /// A file in our own folder.
    #[default]
    File,
    /// That file, and the person's ssh-agent.
    Agent,
    /// A security key; this is its private key file.
    SecurityKey(PathBuf),
}

impl From<String> for Holder {
    fn from(text: String) -> Self {
        match text.as_str() {
            "file" => Self::File,
            "agent" => Self::Agent,
            _ => Self::SecurityKey(text.into()),
        }
    }
}

impl From<Holder> for String {
    fn from(holder: Holder) -> Self {
        match holder {
            Holder::File => "file".to_owned(),
            Holder::Agent => "agent".to_owned(),
            Holder::SecurityKey(path) => path.display().to_string(),
        }
    }
}

impl Holder {
    /// Looks whether it can hold keys here and now: an agent answers, a security key's file is one.
    ///
    /// # Errors
    /// HP-301.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::File => Ok(()),
            Self::Agent => exchange(&socket()?, &agent::request_identities(), AGENT_TIMEOUT).map(drop),
            Self::SecurityKey(path) => security_key(path).map(drop),
        }
    }
}

/// The public half of a security key's file, which stands beside it.
///
/// # Errors
/// HP-301 when there is none, or it is of another kind.
pub(crate) fn security_key(path: &Path) -> Result<PublicKey, Failure> {
    let shown = path.display().to_string();
    let wrong = |why: String| {
        Failure::new(Exit::NotReady, "HP-301", format!("{shown:?} is not the file of a security key"))
            .because(why)
            .next("ssh-keygen -t ed25519-sk")
            .next("hallpass setup --key file")
    };
    if !path.is_file() {
        return Err(wrong("there is no such file".to_owned()));
    }
    let public = PathBuf::from(format!("{shown}.pub"));
    let line = read_small(&public)?.ok_or_else(|| wrong(format!("{:?} is missing", public.display().to_string())))?;
    let key = PublicKey::parse_openssh(line.trim()).map_err(|e| wrong(e.to_string()))?;
    if key.algorithm().is_security_key() {
        Ok(key)
    } else {
        Err(wrong(format!(
            "it is {}; a session key of a kind that can be copied is made by us",
            key.algorithm().name()
        )))
    }
}

/// Lends the agent what `held` has, until a little after its end, and looks whether it is there.
///
/// # Errors
/// HP-301 when it is not. The files are there all the same.
pub(crate) fn lend(held: &Held, comment: &str, now: Timestamp) -> Result<(), Failure> {
    let Some(certificate) = &held.certificate else { return Ok(()) };
    let left = certificate.tbs().fields().window.end().seconds_since(now);
    let seconds = u32::try_from(left.saturating_add(GRACE_S)).unwrap_or(u32::MAX);
    let refused = |why: &str| {
        Failure::new(Exit::NotReady, "HP-301", "your ssh agent cannot hold certificates")
            .because(why)
            .because("the certificate is in its file, so ssh, scp, rsync and git work")
            .next("hallpass setup --key file")
    };
    let pem = read_small(&held.key_path())?.map(zeroize::Zeroizing::new).ok_or_else(|| refused("its key is gone"))?;
    let key = SessionKey::parse(pem.as_bytes()).map_err(|e| refused(&e.to_string()))?;
    let ask = |question: &[u8]| {
        let answer = socket().and_then(|socket| exchange(&socket, question, AGENT_TIMEOUT));
        answer.map_err(|failure| refused(&failure.why.join("; ")))
    };
    if !agent::is_done(&ask(&agent::add_certificate(&key, certificate, comment, seconds))?) {
        return Err(refused("it refused to add one"));
    }
    match agent::lists(&ask(&agent::request_identities())?, certificate) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused("it said that it had added one, and does not list it")),
        Err(why) => Err(refused(&why.to_string())),
    }
}

/// Whether the agent lists what `held` has.
///
/// # Errors
/// HP-301 when the agent does not answer as agents do.
pub(crate) fn is_lent(held: &Held) -> Result<bool, Failure> {
    let Some(certificate) = &held.certificate else { return Ok(false) };
    let answer = exchange(&socket()?, &agent::request_identities(), AGENT_TIMEOUT)?;
    agent::lists(&answer, certificate)
        .map_err(|why| Failure::new(Exit::NotReady, "HP-301", "your ssh agent did not do it").because(why.to_string()))
}

/// Has the agent forget what `held` has. It does so by itself later, so not being able to is no failure.
pub(crate) fn forget(held: &Held) {
    if let (Some(certificate), Ok(socket)) = (&held.certificate, socket()) {
        drop(exchange(&socket, &agent::remove_certificate(certificate), AGENT_TIMEOUT));
    }
}

fn socket() -> Result<PathBuf, Failure> {
    env("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
        Failure::new(Exit::NotReady, "HP-301", "no ssh agent runs here")
            .because("SSH_AUTH_SOCK is not set")
            .next("eval \"$(ssh-agent)\"")
            .next("hallpass setup --key file")
    })
}
