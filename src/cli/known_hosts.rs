//! `hallpass known-hosts`: the host CA keys that the service names, as lines for ssh's known hosts, and the profile's file of them.
//! `hallpass ca export --format known-hosts`: the same lines, for a file of the reader's own.
//!
//! What for: a host that shows a certificate of the organisation's host CA is known without a question at its first login.
//! What not: no host key is ever trusted here by itself, and checking is never weakened: ssh reads this file beside the user's own and
//! the system's (`GlobalKnownHostsFile` in the fragment, so that a `UserKnownHostsFile` of the user's stays what it is).
//!
//! Invariants: a line is `@cert-authority PATTERNS KEY` and nothing else; its patterns are within the hosts of the profile, never a
//! wildcard alone, so that a service can vouch for its own hosts and for no others; what does not parse is left out and said.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Context;
use super::confirmed::Hosts;
use super::failure::Failure;
use super::profile::{self, Places, write};
use super::setup;
use super::ssh_config::{self, Pattern};
use crate::client::{Client, ClientError};
use crate::ssh::PublicKey;

/// What begins a line that names a CA.
const MARKER: &str = "@cert-authority";

/// Most lines: one for each name of each enrolled host, and twice as many during a rotation. Our own choice.
const LINES_MAX: usize = 20_000;

/// A host CA key, and for which hosts it may vouch.
#[derive(Clone, Debug)]
struct Line {
    patterns: Vec<Pattern>,
    key: PublicKey,
}

/// What a service's answer came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownHosts {
    lines: Vec<Line>,
    /// Why other lines are not among them.
    left_out: Vec<String>,
}

impl Line {
    /// Reads `@cert-authority PATTERNS KEYTYPE KEY [COMMENT]`, for hosts that are among `ours`.
    fn parse(text: &str, ours: &[Pattern]) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(MARKER) {
            return Err(format!("it does not begin with {MARKER}"));
        }
        let patterns = words.next().unwrap_or_default().split(',').map(|pattern| {
            let pattern = Pattern::parse(pattern).map_err(|why| format!("{pattern:?}: {why}"))?;
            if pattern.is_within(ours) {
                Ok(pattern)
            } else {
                Err(format!("{:?} is no host of this profile", pattern.as_str()))
            }
        });
        let patterns = patterns.collect::<Result<Vec<Pattern>, String>>()?;
        let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let key = PublicKey::parse_openssh(&format!("{kind} {key}")).map_err(|why| why.to_string())?;
        Ok(Self { patterns, key })
    }

    fn text(&self) -> String {
        format!("{MARKER} {} {}", self.listed(), self.key.to_openssh())
    }

    fn listed(&self) -> String {
        self.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(",")
    }
}

impl KnownHosts {
    /// Reads an answer line by line, for hosts that are among `ours`.
    fn parse(text: &str, ours: &[Pattern]) -> Self {
        let mut known = Self::default();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        for (index, line) in lines {
            let number = index.saturating_add(1);
            match Line::parse(line, ours) {
                _ if known.lines.len() >= LINES_MAX => {
                    known.left_out.push(format!("line {number} and what follows: more than {LINES_MAX}"));
                    break;
                }
                Ok(line) => known.lines.push(line),
                Err(why) => known.left_out.push(format!("line {number}: {why}")),
            }
        }
        known
    }

    /// Asks the service.
    ///
    /// # Errors
    /// When it can't be asked.
    pub(crate) async fn fetch(client: &Client, ours: &[Pattern]) -> Result<Self, ClientError> {
        Ok(Self::parse(&client.text("/v1/ca/host-keys").await?, ours))
    }

    /// Makes the profile's file what this is; takes it away when there is nothing to know.
    ///
    /// # Errors
    /// When it can't be written, or its path can't stand in ssh's configuration.
    pub(crate) fn keep(&self, places: &Places, profile: &str) -> Result<(), Failure> {
        profile::check_name(profile)?;
        let path = places.known_hosts(profile);
        if self.lines.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("delete", &path, &e)),
                _ => Ok(()),
            };
        }
        ssh_config::check_path(&path).map_err(|why| {
            Failure::failed(format!("{:?} cannot stand in ssh's configuration", path.display().to_string()))
                .because(why)
        })?;
        let head = format!("# Written by hallpass for profile {profile}: host CA keys.\n");
        write(&path, (head + &self.text()).as_bytes())
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.text())).collect()
    }

    /// Prints the lines, and says what is not among them.
    fn print(&self, context: &Context, profile: &str, path: Option<&PathBuf>, hosts: &Hosts) -> Result<(), Failure> {
        context.out.answer(&self.document(profile, path), &self.text())?;
        let left_out = self.left_out.iter().map(|why| format!("left out, {why}"));
        left_out.chain(hosts.said()).for_each(|said| context.out.note(&said));
        Ok(())
    }

    fn document(&self, profile: &str, path: Option<&PathBuf>) -> Value {
        let key = |line: &Line| {
            let patterns: Vec<&str> = line.patterns.iter().map(Pattern::as_str).collect();
            json!({ "patterns": patterns, "key": line.key.fingerprint().to_string(), "line": line.text() })
        };
        let keys: Vec<Value> = self.lines.iter().map(key).collect();
        json!({ "schema": "hallpass.known-hosts.v1", "profile": profile, "path": path, "keys": keys, "left_out": self.left_out })
    }
}

/// `hallpass known-hosts`.
pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let places = context.places()?;
    let (known, hosts) = context.block_on(async {
        let hosts = setup::patterns(&places, &profile, &client).await?;
        let known = KnownHosts::fetch(&client, &hosts.ours).await?;
        known.keep(&places, &profile.name)?;
        setup::rewrite(&places, &profile, &hosts.ours)?;
        Ok((known, hosts))
    })?;
    let path = Some(places.known_hosts(&profile.name)).filter(|_| !known.lines.is_empty());
    known.print(context, &profile.name, path.as_ref(), &hosts)?;
    match path {
        Some(path) => context.out.note(&format!("also in {}, which ssh reads after `hallpass setup`", path.display())),
        None => context.out.note(
            "the service names no host CA key for your hosts: it does once one of them is enrolled and has a host certificate; \
             until then hosts are known by their own keys, as ever",
        ),
    }
    Ok(())
}

/// `hallpass ca export --format known-hosts`. Nothing on this machine is changed; that there is nothing to export is a failure, since the answer is
/// to be a file.
pub(super) fn export(context: &Context) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let places = context.places()?;
    let (known, hosts) = context.block_on(async {
        let hosts = setup::patterns(&places, &profile, &client).await?;
        Ok((KnownHosts::fetch(&client, &hosts.ours).await?, hosts))
    })?;
    if known.lines.is_empty() {
        let none = Failure::failed("the service names no host CA key for your hosts").because(
            "it names its host CA for enrolled hosts alone: none of yours is enrolled, or there is no host CA",
        );
        let count = known.left_out.len();
        let left_out = known.left_out.first().map(|why| format!("lines left out: {count}; {why}"));
        let none = left_out.into_iter().chain(hosts.said()).fold(none, Failure::because);
        return Err(none.next("hallpass ca ls").next("hallpass admin host ls"));
    }
    known.print(context, &profile.name, None, &hosts)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::cli::demo::sshd;
    use crate::ssh::private::SessionKey;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILasL2VM7oM2X06aM/W6FRWxOU6To1xFU83M5hUw+sIl";

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn a_line_vouches_for_hosts_of_the_profile_and_for_no_others() {
        let ours = patterns(&["web-*", "db-1"]);
        for (hosts, is_taken) in [
            ("web-*", true),
            ("web-7", true),
            ("web-7,db-1", true),
            ("db-1", true),
            ("db-2", false),
            ("web-7,db-2", false),
            // Wider than what is ours, or wide in another way: not taken apart, not taken.
            ("*", false),
            ("w*", false),
            ("web-?", false),
            ("*-1", false),
            ("!web-1", false),
            ("|1|c2FsdA==|aGFzaA==", false),
            ("[web-1]:22", false),
            ("", false),
        ] {
            assert_eq!(Line::parse(&format!("@cert-authority {hosts} {KEY}"), &ours).is_ok(), is_taken, "{hosts}");
        }
        for line in [
            format!("web-1 {KEY}"),
            format!("@revoked web-1 {KEY}"),
            "@cert-authority web-1".to_owned(),
            "@cert-authority web-1 ssh-ed25519 AAAA".to_owned(),
            format!("@cert-authority web-1 {} AAAA", "ssh-dss"),
        ] {
            Line::parse(&line, &ours).unwrap_err();
        }
    }

    #[test]
    fn good_lines_are_kept_and_bad_ones_named() {
        let text = format!("# ours\n\n@cert-authority web-1 {KEY} comment\nnonsense\n@cert-authority * {KEY}\n");
        let known = KnownHosts::parse(&text, &patterns(&["web-1"]));
        assert_eq!(known.text(), format!("@cert-authority web-1 {KEY}\n"));
        assert_eq!(known.left_out.len(), 2);
        assert!(known.left_out[0].starts_with("line 4: it does not begin with"), "{:?}", known.left_out);
        let many = format!("@cert-authority web-1 {KEY}\n").repeat(LINES_MAX + 5);
        assert_eq!(KnownHosts::parse(&many, &patterns(&["web-1"])).lines.len(), LINES_MAX);
    }

    /// The real sshd with a host certificate that the real ssh-keygen made; the real ssh with our file.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ssh_knows_a_host_by_its_certificate_and_checks_as_strictly_as_before() {
        let path = std::env::var_os("PATH");
        let Some(program) = sshd::find(path.as_deref()) else {
            eprintln!("NOT TESTED: sshd is not installed (tests/run does it)");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let run = |program: &str, arguments: &[&str]| {
            let ran = Command::new(program).args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
        };
        let key = SessionKey::generate([7; 32]);
        write(&at("host/host_key.pub"), key.public_key().to_openssh().as_bytes()).unwrap();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "ca"]);
        run("ssh-keygen", &["-q", "-s", "ca", "-h", "-I", "web-1", "-n", "web-1", "host/host_key.pub"]);
        let pem = key.to_openssh("host").unwrap();
        let extra = format!("HostCertificate {}\n", at("host/host_key-cert.pub").display());
        let host_folder = at("host");
        let setup = sshd::Setup { folder: &host_folder, trust: "", principals: None, host_key: &pem, extra: &extra };
        let config = sshd::write(&setup).unwrap();
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let host = sshd::Host::listen(sshd::Sshd { program, config, prefix: Vec::new() }).await.unwrap();
        // The very path that an answer of the service takes.
        let ca = std::fs::read_to_string(at("ca.pub")).unwrap();
        let places = Places::below(folder.path());
        let ours = patterns(&["web-1", "web-2"]);
        let known = KnownHosts::parse(&format!("@cert-authority web-1,web-2 {ca}"), &ours);
        known.keep(&places, "work").unwrap();
        let file = places.known_hosts("work");
        let config_of = |file: Option<PathBuf>| {
            let line = file.map(|file| ssh_config::global_known_hosts(&file)).unwrap_or_default();
            let text =
                format!("Host web-1 web-2 other\n{line}\nHost *\n    UserKnownHostsFile {}\n", at("mine").display());
            write(&at("ssh_config"), text.as_bytes()).unwrap();
        };
        let port = host.address().port().to_string();
        let tries = |name: &str| {
            let alias = format!("HostKeyAlias={name}");
            let ran = Command::new("ssh")
                .arg("-F")
                .arg(at("ssh_config"))
                .args(["-o", "BatchMode=yes", "-o", "HostName=127.0.0.1", "-o", &alias, "-p", &port, name, "true"])
                .env_remove("SSH_AUTH_SOCK")
                .output()
                .unwrap();
            String::from_utf8(ran.stderr).unwrap()
        };
        config_of(None);
        assert!(tries("web-1").contains("Host key verification failed"), "without our file nobody knows it");
        config_of(Some(file.clone()));
        // Known: what it then refuses is the login, for which there is no key.
        let said = tries("web-1");
        assert!(said.contains("Permission denied") && !said.contains("verification failed"), "{said}");
        // The certificate is for web-1 alone; and a host that is not ours is not vouched for.
        for name in ["web-2", "other"] {
            let said = tries(name);
            assert!(said.contains("Host key verification failed"), "{name}: {said}");
        }
        // The user's own file is still read: a key that it holds against the host stops everything.
        write(&at("mine"), format!("@revoked * {ca}").as_bytes()).unwrap();
        assert!(tries("web-1").contains("REVOKED"), "{}", tries("web-1"));
        assert!(!tries("web-1").contains("Permission denied"));
        // Nothing to know any more: the file is gone.
        KnownHosts::default().keep(&places, "work").unwrap();
        assert!(!file.exists());
    }
}
