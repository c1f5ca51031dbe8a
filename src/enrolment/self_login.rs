//! The host's login to itself: a real `ssh` to its real sshd, with a certificate that opens nothing but that.
//!
//! What for: the proof that sshd trusts a CA key, asks our principals command and passes the guard, end to end; no reading of
//! configuration could say as much.
//!
//! Invariants: the key is made for this one login and is on disk for as long as that takes, in a folder that only root can enter. The
//! login goes to the sshd that has this host's own keys, and to no other that may listen there.
//!
//! *Why does exit code 1 count?* The account has no shell: its program says so and ends with 1. What matters is that it was started at all;
//! when sshd, the principals command or the guard says no, `ssh` ends with 255.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::places::CHECK_ACCOUNT;
use super::programs;
use crate::durable;
use crate::ssh::PublicKey;
use crate::ssh::private::SessionKey;

/// How long it may take; longer, and nobody would call that a login.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the host is called in the file of known hosts that is made for the login.
const ALIAS: &str = "hallpass-self";

/// A folder that is gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, String> {
        let made = durable::create_temporary_folder(Path::new("/run/hallpass-check"));
        made.map(Self).map_err(|error| error.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It holds a key that opens nothing for longer than two minutes.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Logs in to `address`, whose sshd must have one of `host_keys`.
///
/// # Errors
/// In words: what `ssh` says.
pub async fn log_in(
    address: SocketAddr,
    host_keys: &[PublicKey],
    key: &SessionKey,
    certificate: &str,
) -> Result<(), String> {
    let ssh = programs::find("ssh").ok_or("there is no `ssh` on this machine; install the OpenSSH client")?;
    let folder = Folder::new()?;
    let path = |name: &str| folder.0.join(name);
    let known: String = host_keys.iter().map(|key| format!("{ALIAS} {}\n", key.to_openssh())).collect();
    let pem = key.to_openssh(CHECK_ACCOUNT).map_err(|error| error.to_string())?;
    for (name, bytes) in
        [("key", pem.as_bytes()), ("key-cert.pub", certificate.as_bytes()), ("known_hosts", known.as_bytes())]
    {
        durable::replace(&path(name), bytes, 0o600).map_err(|error| error.to_string())?;
    }
    let ran = programs::run(&ssh, &arguments(&folder.0, address), PATIENCE).await?;
    let has_begun = ran.errors.contains("Authenticated to ");
    match ran.code {
        Some(0 | 1) if has_begun => Ok(()),
        _ if has_begun => {
            Err("sshd took the certificate and closed the connection: the guard said no, see the log (authpriv)"
                .to_owned())
        }
        _ => Err(last_words(&ran.errors)),
    }
}

fn arguments(folder: &Path, address: SocketAddr) -> Vec<String> {
    let mut arguments: Vec<String> = ["-F", "none", "-T", "-n", "-a", "-x"].map(str::to_owned).to_vec();
    let shown = |name: &str| folder.join(name).display().to_string();
    let mut set = |option: String| arguments.extend(["-o".to_owned(), option]);
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=/dev/null",
        "UpdateHostKeys=no",
        "ControlPath=none",
        "ConnectTimeout=5",
        // Says when the login has gone through.
        "LogLevel=VERBOSE",
    ] {
        set(option.to_owned());
    }
    set(format!("HostKeyAlias={ALIAS}"));
    set(format!("UserKnownHostsFile={}", shown("known_hosts")));
    set(format!("CertificateFile={}", shown("key-cert.pub")));
    arguments.extend(["-i".to_owned(), shown("key"), "-l".to_owned(), CHECK_ACCOUNT.to_owned()]);
    arguments.extend(["-p".to_owned(), address.port().to_string(), address.ip().to_string(), "true".to_owned()]);
    arguments
}

/// The last thing that `ssh` said.
fn last_words(text: &str) -> String {
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    format!("ssh says: {}", last.unwrap_or("nothing").chars().take(300).collect::<String>())
}
