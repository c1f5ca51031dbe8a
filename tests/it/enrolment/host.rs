//! A machine with a stock sshd: a mount namespace with an `/etc` of its own in which a real sshd listens, takes SIGHUP, and knows nothing
//! of us yet. Needs root; a test calls [`Host::can_be_had`] first.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::service::{HALLPASS, HALLPASS_HOST};
use crate::guard::promise::Promise;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    /// Keeps the namespace.
    holder: Child,
    sshd: Child,
    pub(crate) port: u16,
    /// Its port while sshd is stopped: bound, so that no other test gets it, and not listened at.
    kept: Option<tokio::net::TcpSocket>,
}

impl Host {
    /// Whether this machine lets us: root, mount namespaces, real PAM, audit session ids, a stock sshd.
    pub(crate) fn can_be_had() -> bool {
        let has = |path: &str| Path::new(path).exists();
        let can = rustix::process::geteuid().is_root()
            && ["/proc/self/sessionid", "/etc/pam.d/sshd", "/usr/sbin/sshd", "/usr/sbin/useradd"].into_iter().all(has)
            && crate::guard::site::has_namespaces();
        if !can {
            println!(
                "not shown here: enrolling needs root, mount namespaces, a stock sshd with PAM, and a kernel with auditing"
            );
        }
        can
    }

    /// A machine whose `sshd_config` begins with `first`.
    pub(crate) fn start(first: &str) -> Self {
        Self::in_namespaces(first, "-m")
    }

    /// The same with a host key and a network of its own, in which there is nothing but loopback.
    pub(crate) fn start_in_network(first: &str) -> Self {
        Self::in_namespaces(first, "-mn")
    }

    fn in_namespaces(first: &str, namespaces: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let uid = 400_000 + (std::process::id() % 100_000) * 20 + COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("hallpass-host").tempdir().unwrap();
        let path = folder.path();
        open_to_all(path);
        for name in ["bin", "home"] {
            std::fs::create_dir(path.join(name)).unwrap();
            open_to_all(&path.join(name));
        }
        assert!(Command::new("cp").args(["-a", "/etc"]).arg(path).status().unwrap().success());
        std::fs::copy(HALLPASS, path.join("bin/hallpass")).unwrap();
        std::fs::copy(HALLPASS_HOST, path.join("bin/hallpass-host")).unwrap();
        // Free now; whoever takes it in between makes this test fail, not pass.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = Self {
            holder: hold(path, namespaces),
            sshd: Command::new("true").spawn().unwrap(),
            folder,
            port,
            kept: None,
        };
        host.edit("ssh/sshd_config", |text| format!("{first}Port {port}\nListenAddress 127.0.0.1\n{text}"));
        host.edit("passwd", |text| format!("deploy:x:{uid}:{uid}::{}:/bin/sh\n{text}", path_of(&host, "home")));
        host.edit("group", |text| format!("deploy:x:{uid}:\n{text}"));
        host.edit("shadow", |text| format!("deploy:*:20000:0:99999:7:::\n{text}"));
        std::os::unix::fs::chown(host.path("home"), Some(uid), Some(uid)).unwrap();
        if namespaces.contains('n') {
            host.with_another_key();
        }
        host.with_sshd()
    }

    /// Not this machine's keys, which the others have, too: the service would take it for a clone.
    fn with_another_key(&self) {
        for kind in ["rsa", "ecdsa", "ed25519"] {
            for name in [format!("ssh_host_{kind}_key"), format!("ssh_host_{kind}_key.pub")] {
                // Whatever keys this machine has.
                drop(std::fs::remove_file(self.path("etc/ssh").join(name)));
            }
        }
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(self.path("etc/ssh/ssh_host_ed25519_key"));
        assert!(keygen.status().unwrap().success());
    }

    fn with_sshd(mut self) -> Self {
        let log = path_of(&self, "sshd.log");
        self.sshd = self
            .command("/usr/sbin/sshd", &["-D", "-E", &log])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !self.log().contains("Server listening") {
            assert!(began.elapsed() < PATIENCE, "sshd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Stops its sshd.
    pub(crate) fn stop_sshd(&mut self) {
        self.sshd.kill().unwrap();
        self.sshd.wait().unwrap();
        let kept = tokio::net::TcpSocket::new_v4().unwrap();
        // As sshd does, since its connections have not been forgotten yet.
        kept.set_reuseaddr(true).unwrap();
        kept.bind((std::net::Ipv4Addr::LOCALHOST, self.port).into()).unwrap();
        self.kept = Some(kept);
    }

    /// Starts it again.
    pub(crate) fn start_sshd(mut self) -> Self {
        self.kept = None;
        std::fs::remove_file(self.path("sshd.log")).unwrap();
        self.with_sshd()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The process that keeps its namespaces.
    pub(crate) fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// What sshd said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("sshd.log")).unwrap_or_default()
    }

    /// The last of it, for a test that fails.
    pub(crate) fn last_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Edits a file below `/etc`.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.path("etc").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, change(text)).unwrap();
    }

    /// A command that will run on the machine, as root.
    pub(crate) fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "-m", "-n", "--", program]).args(words);
        command.env_remove("HALLPASS_FAILPOINT").env_remove("SSH_AUTH_SOCK");
        command
    }

    /// Runs hallpass on the machine to its end.
    pub(crate) fn hallpass(&self, words: &[&str], point: Option<&str>) -> Output {
        let mut command = self.command("/usr/local/bin/hallpass", words);
        if let Some(point) = point {
            command.env("HALLPASS_FAILPOINT", point);
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// As it came: neither of our programs is there yet.
    pub(crate) fn bare(&self) {
        for program in ["bin/hallpass", "bin/hallpass-host"] {
            std::fs::remove_file(self.path(program)).unwrap();
        }
    }

    /// The same; it must go well. What it says.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        self.ok_of("/usr/local/bin/hallpass", words)
    }

    /// The same with another program.
    #[track_caller]
    pub(crate) fn ok_of(&self, program: &str, words: &[&str]) -> String {
        let ran = self.command(program, words).stdin(Stdio::null()).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {}\n{}", said(&ran), self.last_log());
        said(&ran)
    }

    /// Starts the daemon.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_of("/usr/local/bin/hallpass-host", &["run"])
    }

    /// Starts the daemon that this program has.
    pub(crate) fn daemon_of(&self, program: &str, words: &[&str]) -> Daemon {
        let log = std::fs::File::create(self.path("daemon.log")).unwrap();
        let mut command = self.command(program, words);
        Daemon(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// What the daemon has said.
    pub(crate) fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// An `ssh` to the machine's `deploy` with a key file (and its certificate beside it, if there is one).
    pub(crate) fn ssh(&self, key: &Path, command: &str) -> Command {
        let mut ssh = Command::new("nsenter");
        ssh.args([
            "-t",
            &self.pid(),
            "-n",
            "--",
            "ssh",
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "IdentityAgent=none",
        ]);
        ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", "ConnectTimeout=10", "-l", "deploy", "-p", &self.port.to_string(), "-i"]).arg(key);
        ssh.args(["127.0.0.1", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        ssh.env_remove("SSH_AUTH_SOCK");
        ssh
    }

    /// Whether a key logs in. sshd does not listen for a moment while it reads its configuration again.
    pub(crate) fn opens(&self, key: &Path) -> bool {
        let began = Instant::now();
        loop {
            let ran = self.ssh(key, "true").output().unwrap();
            let is_refused = String::from_utf8_lossy(&ran.stderr).contains("Connection refused");
            if !is_refused || began.elapsed() > PATIENCE {
                return ran.status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A plain key with which `deploy` can log in, today as before.
    pub(crate) fn plain_key(&self) -> PathBuf {
        let key = self.path("plain");
        let mut keygen = Command::new("ssh-keygen");
        assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap().success());
        let folder = self.path("home/.ssh");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(key.with_extension("pub"), folder.join("authorized_keys")).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(self.path("home")).unwrap());
        for path in [folder.clone(), folder.join("authorized_keys")] {
            std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        }
        key
    }

    /// Everything that enrolment could touch below `/etc`: path, mode, content. Accounts by their names.
    pub(crate) fn snapshot(&self) -> Vec<(String, u32, Vec<u8>)> {
        let mut all = Vec::new();
        for name in ["ssh", "pam.d", "hallpass", "systemd"] {
            collect(&self.path("etc").join(name), &mut all);
        }
        let accounts = std::fs::read_to_string(self.path("etc/passwd")).unwrap();
        let names: Vec<&str> = accounts.lines().filter_map(|line| line.split(':').next()).collect();
        all.push(("accounts".to_owned(), 0, names.join(" ").into_bytes()));
        all.sort();
        all
    }
}

impl Host {
    /// Fails, naming what is different, unless the machine is as it was.
    #[track_caller]
    pub(crate) fn same_as(&self, before: &[(String, u32, Vec<u8>)], when: &str) {
        let now = self.snapshot();
        let shown = |all: &[(String, u32, Vec<u8>)], other: &[(String, u32, Vec<u8>)]| -> Vec<String> {
            let only = all.iter().filter(|one| !other.contains(one));
            only.map(|(path, mode, bytes)| format!("{path} {mode:o} {}", String::from_utf8_lossy(bytes))).collect()
        };
        let (gone, new) = (shown(before, &now), shown(&now, before));
        assert!(gone.is_empty() && new.is_empty(), "{when}: gone {gone:#?}, new {new:#?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the daemon said:\n{}", self.daemon_log());
        }
        for child in [&mut self.sshd, &mut self.holder] {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// An `ssh` that goes on beside the test. Killed when dropped.
pub(crate) struct Session(pub(crate) Child);

impl Session {
    /// Starts it, and waits until its remote command, which must begin with `echo ready;`, runs.
    pub(crate) fn start(mut ssh: Command) -> Self {
        let mut session = Self(ssh.spawn().unwrap());
        let mut ready = [0; 6];
        std::io::Read::read_exact(session.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// A daemon. Killed when dropped.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    /// What `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// What a service manager does.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

pub(crate) fn said(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn until(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let promise = Promise::within(within);
    while !holds() {
        assert!(!promise.is_broken(), "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn path_of(host: &Host, name: &str) -> String {
    host.path(name).display().to_string()
}

fn hold(path: &Path, namespaces: &str) -> Child {
    let shown = path.display();
    let network = if namespaces.contains('n') { "ip link set lo up && " } else { "" };
    let script = format!(
        "{network}mount --bind '{shown}/etc' /etc && mount --bind '{shown}/bin' /usr/local/bin && mount -t tmpfs tmpfs /var/lib && \
         mount -t tmpfs tmpfs /run && mkdir -p /run/sshd && echo ready > '{shown}/ready' && exec sleep infinity"
    );
    let child = Command::new("unshare").args([namespaces, "sh", "-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    until("the namespace", PATIENCE, || path.join("ready").exists());
    child
}

fn collect(folder: &Path, all: &mut Vec<(String, u32, Vec<u8>)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, metadata) = (entry.path(), entry.metadata().unwrap());
        let bytes = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        all.push((path.display().to_string(), metadata.permissions().mode(), bytes));
        if metadata.is_dir() {
            collect(&path, all);
        }
    }
}

fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
