//! Keys, certificates, signatures and agent frames against the real `ssh-keygen`, `ssh-add` and `ssh-agent`.

mod agent;
mod ca_agent;
mod ca_file;
mod certificates;
mod halves;
mod hosts;
mod keys;
mod many;
mod odd_signatures;
mod refused_certificates;
pub(crate) mod security_keys;
mod signatures;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hallpass::ssh::PublicKey;
use tempfile::TempDir;

/// The kinds of keys that `ssh-keygen` makes and hallpass accepts: arguments, algorithm.
const KINDS: [(&[&str], &str); 5] = [
    (&["-t", "ed25519"], "ssh-ed25519"),
    (&["-t", "ecdsa", "-b", "256"], "ecdsa-sha2-nistp256"),
    (&["-t", "ecdsa", "-b", "384"], "ecdsa-sha2-nistp384"),
    (&["-t", "ecdsa", "-b", "521"], "ecdsa-sha2-nistp521"),
    (&["-t", "rsa", "-b", "3072"], "ssh-rsa"),
];

/// A temporary folder in which the real tools run.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        hallpass::durable::replace(&path, content.as_ref(), 0o600).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Makes a key pair `name`, `name.pub` and returns the public line.
    fn keygen(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.path(name);
        run(Command::new("ssh-keygen").args(["-q", "-N", "", "-C", "some comment", "-f"]).arg(path).args(arguments));
        self.read(&format!("{name}.pub"))
    }

    fn public_key(&self, name: &str, arguments: &[&str]) -> PublicKey {
        PublicKey::parse_openssh(&self.keygen(name, arguments)).unwrap()
    }
}

/// Runs a tool that must succeed; gives its output.
fn run(command: &mut Command) -> String {
    let output = try_run(command, b"");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn try_run(command: &mut Command, input: &[u8]) -> Output {
    use std::io::Write as _;
    command.env("TZ", "UTC").env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A tool that fails early closes its end; its status is what counts.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

/// What `ssh-keygen -L` says, line by line, without the file's name and without indentation.
fn list_certificate(path: &Path) -> Vec<String> {
    let text = run(Command::new("ssh-keygen").arg("-L").arg("-f").arg(path));
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

/// Wire encoding of the tests' own, so that it shares nothing with what it checks.
fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
