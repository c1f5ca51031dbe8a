//! `hallpass doctor --bundle FILE`: all findings in one text that can be given to whoever runs the host or the service.
//!
//! Invariants: the file is new and 0600; there is no session token and no key in it, and of the user's other keys and hosts no name: of
//! `ssh -G` only the keywords that matter for this host are written, of `ssh -v` no line about a key that is not ours. Paths below the home
//! folder begin with `~`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::super::failure::Failure;
use super::super::output::escape;
use super::super::profile::env;
use super::probe::Shown;
use super::report::Report;

/// Keywords of `ssh -G` that hold nothing but how this host is reached.
const KEYWORDS: [&str; 24] = [
    "hostname",
    "host",
    "port",
    "user",
    "addressfamily",
    "batchmode",
    "checkhostip",
    "connecttimeout",
    "controlmaster",
    "controlpersist",
    "hostkeyalias",
    "hostkeyalgorithms",
    "identitiesonly",
    "identityagent",
    "passwordauthentication",
    "preferredauthentications",
    "proxyjump",
    "pubkeyauthentication",
    "pubkeyacceptedalgorithms",
    "casignaturealgorithms",
    "stricthostkeychecking",
    "globalknownhostsfile",
    "userknownhostsfile",
    "updatehostkeys",
];

/// What goes into a bundle.
pub(super) struct Bundle<'a> {
    /// The findings.
    pub(super) report: &'a Report,
    /// The time, and by which clock.
    pub(super) now: String,
    /// What `ssh -V` said.
    pub(super) ssh: String,
    /// `ssh -G HOST`.
    pub(super) shown: Option<&'a Shown>,
    /// `ssh -v HOST`.
    pub(super) lines: &'a [String],
    /// The folder of our own keys.
    pub(super) ours: &'a Path,
}

/// Writes a bundle.
///
/// # Errors
/// When the file is there already, or can't be written.
pub(super) fn write(path: &Path, bundle: &Bundle<'_>) -> Result<(), Failure> {
    let opened = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{:?} is there already", path.display().to_string())).next("name a new file")
        }
        _ => Failure::file("make", path, &e),
    })?;
    file.write_all(text(bundle).as_bytes()).map_err(|e| Failure::file("write", path, &e))
}

fn text(bundle: &Bundle<'_>) -> String {
    let mut text = format!(
        "hallpass doctor, {}\nhallpass {}, {}\n{}\n\n{}",
        bundle.now,
        env!("CARGO_PKG_VERSION"),
        system(),
        bundle.ssh,
        bundle.report.text()
    );
    let ours = bundle.ours.display().to_string();
    if let Some(shown) = bundle.shown {
        text.push_str("\nssh -G, what matters of it\n");
        for (key, value) in shown.lines() {
            match key {
                "identityfile" | "certificatefile" if value.starts_with(&ours) => {}
                "identityfile" | "certificatefile" => {
                    text.push_str(&format!("  {key} (one of your own)\n"));
                    continue;
                }
                _ if KEYWORDS.contains(&key) => {}
                _ => continue,
            }
            text.push_str(&format!("  {key} {}\n", escape(value)));
        }
    }
    if !bundle.lines.is_empty() {
        text.push_str("\nssh -v\n");
        for line in bundle.lines.iter().filter(|line| may_be_told(line, &ours)) {
            text.push_str(&format!("  {}\n", escape(line)));
        }
    }
    match env("HOME").filter(|home| home.len() > 1) {
        Some(home) => text.replace(&home, "~"),
        None => text,
    }
}

/// Whether a line of `ssh -v` is about the connection or a key of ours.
fn may_be_told(line: &str, ours: &str) -> bool {
    let about_a_key =
        ["identity file ", "certificate file ", "Will attempt key: ", "Offering public key: ", "Trying private key: "];
    let said = line.strip_prefix("debug1: ").unwrap_or(line);
    !about_a_key.iter().any(|start| said.starts_with(start)) || said.contains(ours)
}

/// The system's name and version.
fn system() -> String {
    let name = rustix::system::uname();
    let part = |text: &std::ffi::CStr| escape(&text.to_string_lossy());
    format!("{} {} {}", part(name.sysname()), part(name.release()), part(name.machine()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_users_other_keys_nothing_is_told() {
        for line in [
            "debug1: identity file /home/ann/.ssh/id_rsa type 0",
            "debug1: Will attempt key: /home/ann/.ssh/work RSA SHA256:x agent",
            "debug1: Offering public key: bob's key RSA SHA256:x agent",
        ] {
            assert!(!may_be_told(line, "/run/hallpass"), "{line}");
        }
        assert!(may_be_told("debug1: identity file /run/hallpass/x/key type 3", "/run/hallpass"));
        assert!(may_be_told("debug1: Connection established.", "/run/hallpass"));
    }
}
