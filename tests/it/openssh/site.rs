//! Real hosts for tests: sshd with accounts of its own, under any clock, on loopback.
//!
//! As root, sshd runs in a mount namespace of its own in which `/etc/passwd` also holds `deploy` and `debug`: real logins to real
//! accounts without touching the machine's. Without root only the caller's own account can be logged in to; tests
//! then use that one as `deploy` (see [`Site::account`]).

use std::path::{Path, PathBuf};
use std::process::Output;

use hallpass::cli::demo::sshd;
use hallpass::ssh::cert::Certificate;
use hallpass::ssh::private::SessionKey;

/// Killed with its program, `faketime` leaves a semaphore of its process id behind, and one that gets this id later is refused by it.
const FAKETIME: &str = r#"rm -f /dev/shm/sem.faketime_sem_$$ /dev/shm/faketime_shm_$$; exec faketime "$@""#;

/// A machine that can be one or several hosts.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    seed: u8,
}

/// What a client comes with.
pub(crate) struct Login<'a> {
    pub(crate) key: &'a SessionKey,
    pub(crate) certificate: Option<&'a Certificate>,
    pub(crate) account: &'a str,
    /// Arguments before the host.
    pub(crate) options: &'a [&'a str],
    /// The remote command.
    pub(crate) command: &'a [&'a str],
}

/// How a login went: what the client said, and what sshd logged.
pub(crate) struct Tried {
    pub(crate) output: Output,
    pub(crate) log: Vec<String>,
}

impl Site {
    pub(crate) fn new() -> Self {
        // Everybody must be able to reach the accounts' home folders.
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        Self { folder, seed: 1 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether real accounts can be had (we are root).
    pub(crate) fn has_accounts() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// The account that stands for `deploy`.
    pub(crate) fn account() -> String {
        if Self::has_accounts() {
            return "deploy".to_owned();
        }
        let output = std::process::Command::new("id").arg("-un").output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The home folder of an account.
    pub(crate) fn home(&self, account: &str) -> PathBuf {
        self.path(&format!("home-{account}"))
    }

    /// A listening host. `principals`: per account the one line of its principals file, or account scope. `clock`: a frozen
    /// time such as `2026-01-05 10:00:00` (UTC), else the real one.
    pub(crate) async fn host(
        &mut self,
        trust: &str,
        principals: Option<&[(&str, &str)]>,
        clock: Option<&str>,
        extra: &str,
    ) -> sshd::Host {
        self.seed += 1;
        let folder = self.path(&format!("host-{}", self.seed));
        let host_key = SessionKey::generate([self.seed; 32]).to_openssh("host").unwrap();
        let setup = sshd::Setup { folder: &folder, trust, principals, host_key: &host_key, extra };
        let config = sshd::write(&setup).unwrap();
        let path = std::env::var_os("PATH");
        let program = sshd::find(path.as_deref()).expect("openssh-server is installed (tests/run does it)");
        let mut prefix = Vec::new();
        if Self::has_accounts() {
            std::fs::create_dir_all("/run/sshd").unwrap();
            let passwd = self.passwd();
            let script = format!(
                "mount --bind '{}' /etc/passwd && mount --bind '{}' /etc/shadow && exec \"$@\"",
                passwd.display(),
                self.shadow().display()
            );
            prefix.extend(["unshare", "-m", "--", "sh", "-c", &script, "sh"].map(str::to_owned));
        }
        if let Some(clock) = clock {
            prefix.extend(["env", "TZ=UTC", "sh", "-c", FAKETIME, "faketime", "-f", clock].map(str::to_owned));
        }
        sshd::Host::listen(sshd::Sshd { program, config, prefix }).await.unwrap()
    }

    /// The machine's accounts and two of our own, which come first: the machine may have a `deploy` too.
    fn passwd(&self) -> PathBuf {
        let mut text = String::new();
        for (account, id) in [("deploy", 64_001), ("debug", 64_002)] {
            let home = self.home(account);
            std::fs::create_dir_all(&home).unwrap();
            open_to_all(&home);
            text.push_str(&format!("{account}:x:{id}:{id}::{}:/bin/sh\n", home.display()));
        }
        text.push_str(&std::fs::read_to_string("/etc/passwd").unwrap());
        let path = self.path("passwd");
        std::fs::write(&path, text).unwrap();
        open_to_all(&path);
        path
    }

    /// Passwords that nobody has; the machine's own account of one of these names may be locked, which sshd minds.
    fn shadow(&self) -> PathBuf {
        let path = self.path("shadow");
        std::fs::write(&path, "deploy:*:20000:0:99999:7:::\ndebug:*:20000:0:99999:7:::\n").unwrap();
        path
    }

    /// A real `ssh` to the host, to its end.
    pub(crate) async fn ssh(&mut self, host: &sshd::Host, login: &Login<'_>) -> Tried {
        self.seed += 1;
        let folder = self.path(&format!("client-{}", self.seed));
        std::fs::create_dir_all(&folder).unwrap();
        let key = folder.join("key");
        hallpass::durable::replace(&key, login.key.to_openssh("test").unwrap().as_bytes(), 0o600).unwrap();
        let mut command = tokio::process::Command::new("ssh");
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]);
        command.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        command.arg("-i").arg(&key);
        if let Some(certificate) = login.certificate {
            let path = folder.join("key-cert.pub");
            std::fs::write(&path, certificate.to_openssh()).unwrap();
            command.arg("-o").arg(format!("CertificateFile={}", path.display()));
        }
        let address = host.address();
        command.args(["-p", &address.port().to_string(), "-l", login.account]);
        command.args(login.options).arg(address.ip().to_string()).args(login.command);
        command.stdin(std::process::Stdio::null()).env_remove("SSH_AUTH_SOCK").kill_on_drop(true);
        let output = tokio::time::timeout(std::time::Duration::from_secs(30), command.output()).await;
        let output = output.expect("ssh ends within 30 s").unwrap();
        Tried { output, log: finished_log(host).await }
    }
}

/// The log of the connection opened last, once its sshd has ended.
async fn finished_log(host: &sshd::Host) -> Vec<String> {
    let mut changes = host.changes();
    let over = async {
        loop {
            changes.borrow_and_update();
            if host.connections().pop_last().is_none_or(|(_, c)| c.process.is_none()) {
                break host.last_log();
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), over).await.expect("sshd ends with its connection")
}

impl Tried {
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Demands that the login worked and printed this.
    #[track_caller]
    pub(crate) fn expect_ok(&self, out: &str) {
        assert_eq!((self.code(), self.out().trim()), (0, out), "{}\n{}", self.err(), self.log.join("\n"));
    }

    /// Demands that sshd refused it and logged why.
    #[track_caller]
    pub(crate) fn expect_refused(&self, why: &str) {
        assert_eq!(self.code(), 255, "{}\n{}", self.err(), self.log.join("\n"));
        assert!(self.err().contains("Permission denied"), "{}", self.err());
        assert!(self.log.iter().any(|l| l.contains(why)), "no {why:?} in:\n{}", self.log.join("\n"));
    }
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
