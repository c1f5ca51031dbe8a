//! ssh's multiplexing masters: a connection that outlives the certificate it was opened with (OPENSSH L13). When access is given back,
//! those to its hosts are closed.
//!
//! How: `ssh -G` says where ssh keeps the socket for a host and an account; `ssh -O exit` closes it. Nothing is guessed, nothing is
//! sent but by ssh itself.
//!
//! Invariants: a master that may also serve another host, port or account is left alone, and said: its socket's name must change with
//! each of them. Only sockets of ours. Nothing hangs: each ssh has a deadline.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::openssh::ssh_program;
use super::output::escape;
use crate::name::{Account, HostName};

/// How long one ssh may take that connects to nothing.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a master may take to go, and how often we look.
const GOING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Names that no real host, port or account has: what changes with them is made from the real ones.
const OTHER_HOST: &str = "HostName=hallpass-other.invalid";
const OTHER_PORT: &str = "Port=1";
const OTHER_ACCOUNT: &str = "hallpass-other";

/// A master that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Master {
    host: HostName,
    path: PathBuf,
    fate: Fate,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Closed,
    /// Its socket's name does not say for which host, port and account it is.
    Shared,
    /// ssh could not close it.
    Stays,
}

impl Master {
    /// As one member of a JSON document.
    pub(crate) fn document(&self) -> Value {
        let fate = match self.fate {
            Fate::Closed => "closed",
            Fate::Shared => "shared",
            Fate::Stays => "stays",
        };
        json!({ "host": self.host.as_str(), "path": self.path, "fate": fate })
    }

    /// As one line.
    pub(crate) fn text(&self) -> String {
        let (host, path) = (&self.host, escape(&self.path.display().to_string()));
        match self.fate {
            Fate::Closed => format!("closed the shared connection to {host} ({path})"),
            Fate::Shared => format!(
                "left alone: the shared connection {path}, which may be to another host, too; ssh -O exit {host} closes it"
            ),
            Fate::Stays => format!("the shared connection to {host} ({path}) could not be closed; ssh -O exit {host}"),
        }
    }
}

/// Closes the masters that this person has to these hosts as this account.
pub(crate) async fn close(hosts: &[HostName], account: &Account) -> Vec<Master> {
    let mut found: Vec<Master> = Vec::new();
    for host in hosts {
        let target = Target { host, account };
        let Some(path) = target.socket(&[]).await.filter(|path| is_our_socket(path)) else { continue };
        if found.iter().any(|master| master.path == path && master.fate != Fate::Closed) {
            continue;
        }
        let fate = if target.is_alone(&path).await { target.exit(&path).await } else { Fate::Shared };
        found.push(Master { host: host.clone(), path, fate });
    }
    found
}

struct Target<'a> {
    host: &'a HostName,
    account: &'a Account,
}

impl Target<'_> {
    /// Where ssh has its control socket for this host and account, with these options on top.
    async fn socket(&self, options: &[&str]) -> Option<PathBuf> {
        self.socket_as(self.account.as_str(), options).await
    }

    async fn socket_as(&self, account: &str, options: &[&str]) -> Option<PathBuf> {
        let mut arguments = vec!["-G", "-l", account];
        arguments.extend(options.iter().flat_map(|option| ["-o", option]));
        let said = ssh(&arguments, self.host).await?;
        let path = said.lines().find_map(|line| line.strip_prefix("controlpath "))?;
        (path != "none").then(|| PathBuf::from(path)).filter(|path| path.is_absolute())
    }

    /// Whether this socket can only be of this host, port and account.
    async fn is_alone(&self, path: &Path) -> bool {
        let is_other = |found: Option<PathBuf>| found.is_some_and(|found| found != path);
        let by_account = is_other(self.socket_as(OTHER_ACCOUNT, &[]).await);
        let by_name = names(path, self.host.as_str());
        by_account
            && (by_name || is_other(self.socket(&[OTHER_HOST]).await) && is_other(self.socket(&[OTHER_PORT]).await))
    }

    /// Has ssh close it, and sees it go.
    async fn exit(&self, path: &Path) -> Fate {
        let asked = ssh(&["-O", "exit", "-l", self.account.as_str()], self.host).await;
        let by = Instant::now() + GOING;
        while asked.is_some() && is_our_socket(path) && Instant::now() < by {
            sleep(LOOK).await;
        }
        if asked.is_some() && !is_our_socket(path) { Fate::Closed } else { Fate::Stays }
    }
}

/// What ssh says to this; `None` when it fails or takes too long.
async fn ssh(arguments: &[&str], host: &HostName) -> Option<String> {
    let mut command = tokio::process::Command::new(ssh_program());
    command.args(arguments).arg("--").arg(host.as_str());
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let ran = timeout(DEADLINE, command.output()).await.ok()?.ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// Whether the host's name as typed stands in a socket's file name as a word of its own: `%n` cannot be tried out.
fn names(path: &Path, host: &str) -> bool {
    let Some(file) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    file.match_indices(host).any(|(at, found)| {
        let before = file.get(..at).and_then(|text| text.chars().next_back());
        let after = file.get(at.saturating_add(found.len())..).and_then(|text| text.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn is_our_socket(path: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket() && meta.uid() == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_only_as_a_word_of_its_own() {
        for (file, host, is_named) in [
            ("/s/deploy@web-1:22", "web-1", true),
            ("/s/web-1", "web-1", true),
            ("/s/deploy@web-11:22", "web-1", false),
            ("/s/my-web-1:22", "web-1", false),
            ("/s/web-1.example:22", "web-1", false),
            ("/web-1/master", "web-1", false),
            ("/s/0f3a", "web-1", false),
        ] {
            assert_eq!(names(Path::new(file), host), is_named, "{file}");
        }
    }
}
