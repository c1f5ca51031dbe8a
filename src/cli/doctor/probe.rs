//! One real login attempt with our certificate and no other key, and what ssh said about it.
//!
//! What for: `ssh -v -N` with the way to the host that the user's configuration names (name, port, proxy, known hosts, algorithms), and
//! our own pair. It ends as soon as the host has said yes or no.
//! What not: no command runs on the host (`-N`: a forced command must not be set off by a check), no other key is offered, nothing
//! is asked, `known_hosts` is not written, no multiplexing master is joined or made.
//!
//! Limits: [`TIME_MAX`] in all, [`BYTES_MAX`] of output.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::super::failure::Failure;
use super::super::local::Held;
use super::super::openssh;
use crate::name::{Account, HostName};

/// Longest attempt: connecting may take ten seconds, a slow host a few more.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Most output that is read.
const BYTES_MAX: u64 = 256 * 1024;

/// What of the user's configuration leads to the host, and says by what it is recognised.
const WAY: [&str; 21] = [
    "hostname",
    "port",
    "addressfamily",
    "bindaddress",
    "bindinterface",
    "hostkeyalias",
    "hostkeyalgorithms",
    "kexalgorithms",
    "ciphers",
    "macs",
    "casignaturealgorithms",
    "pubkeyacceptedalgorithms",
    "pubkeyacceptedkeytypes",
    "globalknownhostsfile",
    "userknownhostsfile",
    "knownhostscommand",
    "revokedhostkeys",
    "proxycommand",
    "proxyusefdpass",
    "verifyhostkeydns",
    "ipqos",
];

/// What ssh makes of its configuration for one host: each keyword in small letters with its values.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown(BTreeMap<String, Vec<String>>);

impl Shown {
    /// Asks ssh itself (`ssh -G`), which runs our `ssh-prepare`, too; that one only looks then.
    ///
    /// # Errors
    /// When ssh can't be run or does not take its configuration.
    pub(super) async fn ask(
        config: Option<&Path>,
        account: Option<&Account>,
        host: &HostName,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(openssh::ssh_program());
        command.arg("-G").args(config.iter().flat_map(|path| ["-F".as_ref(), path.as_os_str()]));
        if let Some(account) = account {
            command.args(["-l", account.as_str()]);
        }
        command.arg(host.as_str()).stdin(Stdio::null()).kill_on_drop(true);
        let Ok(ran) = tokio::time::timeout(TIME_MAX, command.output()).await else {
            return Err(Failure::failed(format!("`ssh -G {host}` does not end")).because(format!(
                "it was given {} s; a `Match exec` of your configuration may hang",
                TIME_MAX.as_secs()
            )));
        };
        let ran = ran.map_err(|e| openssh::no_ssh(&e))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
            return Err(Failure::failed("ssh does not take your configuration").because(said));
        }
        Ok(Self::read(&String::from_utf8_lossy(&ran.stdout)))
    }

    fn read(text: &str) -> Self {
        let mut shown = BTreeMap::<String, Vec<String>>::new();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once(' ')) {
            shown.entry(key.to_ascii_lowercase()).or_default().push(value.to_owned());
        }
        Self(shown)
    }

    /// All values of a keyword.
    pub(super) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The value of a keyword.
    pub(super) fn one(&self, key: &str) -> Option<&str> {
        self.all(key).first().map(String::as_str)
    }

    /// All keywords with all values.
    pub(super) fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(key, values)| values.iter().map(|value| (key.as_str(), value.as_str())))
    }
}

/// Tries to log in; without a signature (a security key would want to be touched) only until the host says that it would take the
/// certificate. Returns ssh's lines.
///
/// # Errors
/// When ssh can't be run.
pub(super) async fn log_in(
    shown: &Shown,
    config: Option<&Path>,
    host: &HostName,
    account: &Account,
    held: &Held,
    is_to_sign: bool,
) -> Result<Vec<String>, Failure> {
    let mut command = Command::new(openssh::ssh_program());
    command.args(["-v", "-N", "-F", "none"]);
    for key in WAY {
        if let Some(value) = shown.one(key).filter(|value| !value.is_empty()) {
            command.arg("-o").arg(format!("{key} {value}"));
        }
    }
    if let Some(jump) = shown.one("proxyjump").filter(|jump| *jump != "none") {
        command.arg("-o").arg(format!("proxycommand {}", through(jump, config)?));
    }
    for option in [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "PreferredAuthentications=publickey",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "ControlMaster=no",
        "ControlPath=none",
        "ConnectTimeout=10",
        "ConnectionAttempts=1",
        "ForwardAgent=no",
        "ForwardX11=no",
    ] {
        command.args(["-o", option]);
    }
    command.arg("-i").arg(held.key_path());
    command.arg("-o").arg(format!("CertificateFile=\"{}\"", held.certificate_path().display()));
    command.args(["-l", account.as_str(), host.as_str()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| openssh::no_ssh(&e))?;
    let mut lines = Vec::new();
    if let Some(errors) = child.stderr.take() {
        // Whatever was said until then is what there is.
        let _too_late = tokio::time::timeout(TIME_MAX, listen(errors, is_to_sign, &mut lines)).await;
    }
    Ok(lines)
}

/// Reads up to the host's yes, or the end; where nothing is to be signed, up to the host's word that it would take the key.
async fn listen(errors: tokio::process::ChildStderr, is_to_sign: bool, lines: &mut Vec<String>) {
    let mut reader = BufReader::new(errors.take(BYTES_MAX));
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let said = text.strip_prefix("debug1: ").unwrap_or(&text);
        let is_taken = said.starts_with("Server accepts key: ") && said.contains("-CERT ");
        let is_over = said.starts_with("Authenticated to ") || (is_taken && !is_to_sign);
        lines.push(text);
        if is_over {
            return;
        }
    }
}

/// A jump host as a proxy command: with `-F none` ssh's own `-J` would not know the user's configuration for it.
fn through(jump: &str, config: Option<&Path>) -> Result<String, Failure> {
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@:-[]/,".contains(&b));
    let config = config.map(|path| path.display().to_string());
    let program = openssh::ssh_program();
    if !is_plain(jump) || !is_plain(&program) || !config.iter().all(|path| is_plain(path)) {
        return Err(Failure::failed("the way through the jump host cannot be tried")
            .because(format!("{jump:?}, or a path, holds what a shell would read differently")));
    }
    let (before, last) = match jump.rsplit_once(',') {
        Some((before, last)) => (format!(" -J {before}"), last),
        None => (String::new(), jump),
    };
    let config = config.map_or_else(String::new, |path| format!(" -F {path}"));
    let last = if last.contains("://") { last.to_owned() } else { format!("ssh://{last}") };
    // So that it says why it is not passed on.
    let options = "-o BatchMode=yes -o LogLevel=INFO";
    Ok(format!("{program}{config}{before} {options} -W [%h]:%p {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_shows_is_read_with_repeated_keywords() {
        let shown = Shown::read("user deploy\nidentityfile ~/.ssh/a\nidentityfile ~/.ssh/b\nproxyjump\nport 22\n");
        assert_eq!(shown.one("user"), Some("deploy"));
        assert_eq!(shown.all("identityfile"), ["~/.ssh/a", "~/.ssh/b"]);
        assert_eq!((shown.one("proxyjump"), shown.all("x").len()), (None, 0));
    }

    #[test]
    fn a_jump_host_becomes_a_proxy_command_with_the_users_configuration() {
        assert_eq!(through("bastion", None).unwrap(), "ssh -o BatchMode=yes -o LogLevel=INFO -W [%h]:%p ssh://bastion");
        assert_eq!(
            through("a,ann@b:2222", Some(Path::new("/c"))).unwrap(),
            "ssh -F /c -J a -o BatchMode=yes -o LogLevel=INFO -W [%h]:%p ssh://ann@b:2222"
        );
        through("a;id", None).unwrap_err();
        through("a", Some(Path::new("/c d"))).unwrap_err();
    }
}
