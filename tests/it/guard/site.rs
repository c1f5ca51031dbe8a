//! A host with the guard: a real sshd with real PAM, accounts of its own, our CA, and hallpass at its usual place.
//!
//! Each connection's sshd runs in a mount namespace in which `/etc/passwd`, `/etc/shadow`, `/etc/pam.d/sshd` and `/usr/local/bin` are the
//! test's. Needs root; a test calls [`GuardedHost::can_be_had`] first.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hallpass::cli::demo::sshd;
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Clock as _, Lifetime, Moment, SystemClock, Timestamp, Window};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::maker::Maker;
use super::promise::Promise;

const HALLPASS_HOST: &str = env!("CARGO_BIN_EXE_hallpass-host");

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every host here is called.
pub(crate) const NAME: &str = "web-1";

/// A listening host.
pub(crate) struct GuardedHost {
    folder: tempfile::TempDir,
    host: sshd::Host,
    maker: Maker,
    uid: u32,
    serial: AtomicU32,
}

/// What a client comes with.
#[derive(Clone)]
pub(crate) struct Pass {
    /// The private key's file.
    pub(crate) key: PathBuf,
    /// The certificate's, if there is one.
    pub(crate) certificate: Option<PathBuf>,
    /// Its serial.
    pub(crate) serial: Option<u32>,
}

/// An `ssh` that runs.
pub(crate) struct Client {
    pub(crate) child: Child,
    output: BufReader<ChildStdout>,
}

/// What is different about a test's host.
#[derive(Default)]
pub(crate) struct More<'a> {
    /// sshd goes by files of its own, `both` and `principals`, so that more reaches the guard.
    pub(crate) is_open: bool,
    /// What PAM runs in place of the guard, with nothing of ours in sshd's configuration; for comparison.
    pub(crate) instead: Option<&'a str>,
    /// Lines for `host.toml`.
    pub(crate) settings: &'a str,
}

impl GuardedHost {
    /// Whether this machine lets us: root, mount namespaces, real PAM, audit session ids.
    pub(crate) fn can_be_had() -> bool {
        let can =
            rustix::process::geteuid().is_root() && Path::new("/proc/self/sessionid").exists() && has_namespaces();
        if !can {
            println!("not shown here: the guard needs root, mount namespaces, PAM and a kernel with auditing");
        }
        can
    }

    /// Starts one, with a spool as an enrolled host has it.
    pub(crate) async fn start(more: &More<'_>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let uid = 200_000 + (std::process::id() % 100_000) * 20 + COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let path = folder.path();
        let maker = Maker::new(path);
        for name in ["bin", "keys", "home"] {
            std::fs::create_dir(path.join(name)).unwrap();
            open_to_all(&path.join(name));
        }
        std::fs::create_dir_all("/run/sshd").unwrap();
        hallpass::durable::create_folder(&path.join("spool"), 0o700).unwrap();
        write(&path.join("bin/hallpass-host"), "");
        write(&path.join("trust"), &format!("{}\n", maker.key().to_openssh()));
        write(&path.join("host.toml"), &settings(path, more.settings));
        write(&path.join("sshd_config"), &config(path, more));
        write(&path.join("pam"), &pam(path, more.instead));
        let home = path.join("home");
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        write(&path.join("passwd"), &format!("deploy:x:{uid}:{uid}::{}:/bin/sh\n{passwd}", home.display()));
        write(&path.join("shadow"), "deploy:*:20000:0:99999:7:::\n");
        std::os::unix::fs::chown(&home, Some(uid), Some(uid)).unwrap();
        hallpass::durable::replace(
            &path.join("host_key"),
            SessionKey::generate([9; 32]).to_openssh("host").unwrap().as_bytes(),
            0o600,
        )
        .unwrap();
        let program = sshd::find(std::env::var_os("PATH").as_deref()).expect("openssh-server is installed");
        let prefix = ["unshare", "-m", "--", "sh", "-c", &mounts(path), "sh"].map(str::to_owned).to_vec();
        let host = sshd::Sshd { program, config: path.join("sshd_config"), prefix };
        let host = sshd::Host::listen(host).await.unwrap();
        Self { folder, host, maker, uid, serial: AtomicU32::new(1) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A key with a certificate for `deploy` until `end`, which permits everything.
    pub(crate) fn pass(&self, end: Timestamp) -> Pass {
        let start = SystemClock.now().minus(Lifetime::from_seconds(30).unwrap()).unwrap();
        self.pass_for(Window::new(start, end).unwrap(), &[&format!("deploy@{NAME}")])
    }

    /// A key with a certificate.
    pub(crate) fn pass_for(&self, window: Window, principals: &[&str]) -> Pass {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let certificate = self.maker.certificate(u64::from(serial), window, principals);
        let key = Maker::subject(u64::from(serial));
        let pass = self.plain(&format!("key-{serial}"), &key);
        let path = self.path(&format!("key-{serial}-cert.pub"));
        write(&path, &certificate.to_openssh());
        Pass { certificate: Some(path), serial: Some(serial), ..pass }
    }

    /// A certificate by this CA that `ssh-keygen` makes, so one that hallpass would not issue.
    pub(crate) fn keygen_pass(&self, name: &str, ca: &str, arguments: &[&str]) -> Pass {
        let key = SessionKey::generate([251; 32]);
        let pass = self.plain(name, &key);
        write(&self.path(&format!("{name}.pub")), &key.public_key().to_openssh());
        let mut keygen = std::process::Command::new("ssh-keygen");
        keygen.arg("-q").arg("-s").arg(self.path(ca)).args(arguments).arg(self.path(&format!("{name}.pub")));
        assert!(keygen.status().unwrap().success());
        Pass { certificate: Some(self.path(&format!("{name}-cert.pub"))), ..pass }
    }

    /// A key's file.
    fn plain(&self, name: &str, key: &SessionKey) -> Pass {
        let path = self.path(name);
        hallpass::durable::replace(&path, key.to_openssh("test").unwrap().as_bytes(), 0o600).unwrap();
        Pass { key: path, certificate: None, serial: None }
    }

    /// A plain key that `deploy` lists in its own file.
    pub(crate) fn plain_key(&self) -> Pass {
        let key = SessionKey::generate([250; 32]);
        write(&self.path("keys/deploy"), &format!("{}\n", key.public_key().to_openssh()));
        self.plain("plain", &key)
    }

    /// Arguments of every `ssh` to this host.
    pub(crate) fn options(&self, pass: &Pass) -> Vec<String> {
        let mut options: Vec<String> = ["-F", "none", "-i"].map(str::to_owned).to_vec();
        options.push(pass.key.display().to_string());
        let mut set = |option: String| options.extend(["-o".to_owned(), option]);
        for option in ["BatchMode=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "StrictHostKeyChecking=no"] {
            set(option.to_owned());
        }
        set("UserKnownHostsFile=/dev/null".to_owned());
        set("LogLevel=ERROR".to_owned());
        set(format!("Port={}", self.host.address().port()));
        set("User=deploy".to_owned());
        if let Some(certificate) = &pass.certificate {
            set(format!("CertificateFile={}", certificate.display()));
        }
        options
    }

    /// Starts an `ssh` (or `sftp`).
    pub(crate) fn client(&self, program: &str, pass: &Pass, before: &[&str], command: &[&str]) -> Client {
        self.client_with(program, self.options(pass), before, command)
    }

    /// The same with these options.
    pub(crate) fn client_with(&self, program: &str, options: Vec<String>, before: &[&str], command: &[&str]) -> Client {
        let mut ssh = Command::new(program);
        ssh.args(options).args(before).arg(self.host.address().ip().to_string()).args(command);
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        ssh.env_remove("SSH_AUTH_SOCK");
        let mut child = ssh.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Client { child, output }
    }

    /// Starts an `ssh` whose remote command says `ready`, and waits for that.
    pub(crate) async fn session(&self, pass: &Pass, before: &[&str], command: &str) -> Client {
        let mut client = self.client("ssh", pass, before, &[&format!("echo ready; {command}")]);
        client.wait_for("ready", self).await;
        client
    }

    /// An `ssh` to its end: exit code, output.
    pub(crate) async fn ssh(&self, pass: &Pass, command: &str) -> (i32, String) {
        let client = self.client("ssh", pass, &[], &[command]);
        client.finish().await
    }

    /// Everything that runs as this host's account.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = pids.filter_map(|folder| folder.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        pids.filter(|pid| {
            use std::os::unix::fs::MetadataExt as _;
            if !std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|folder| folder.uid() == self.uid) {
                return false;
            }
            // A process whose first thread has ended looks like one that is over, and may run on.
            let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let runs = |path: PathBuf| std::fs::read_to_string(path).is_ok_and(|stat| !stat.contains(") Z "));
            threads.map(|thread| thread.path().join("stat")).any(runs)
        })
        .collect()
    }

    /// Removes all state; a watcher may be putting its record back meanwhile.
    pub(crate) fn lose_state(&self) {
        while let Err(error) = std::fs::remove_dir_all(self.path("state")) {
            assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{error}");
        }
    }

    /// The files of sessions that the guard knows.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path("state/sessions")).map(|files| files.flatten().collect::<Vec<_>>());
        let files = files.unwrap_or_default().into_iter().map(|file| file.path());
        let mut files: Vec<_> =
            files.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect();
        files.sort();
        files
    }

    /// How many watchers run for this host.
    pub(crate) fn watchers(&self) -> usize {
        self.watcher_folders().len()
    }

    /// The `/proc` folder of each.
    pub(crate) fn watcher_folders(&self) -> Vec<PathBuf> {
        let state = self.path("state").display().to_string();
        let is_ours = |folder: &PathBuf| {
            let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            (line.contains("hallpass-host\0watch\0") || line.contains("hallpass\0host\0watch\0"))
                && line.contains(&state)
        };
        std::fs::read_dir("/proc").unwrap().flatten().map(|folder| folder.path()).filter(is_ours).collect()
    }

    /// Ends everything in the control group of the host's connections, as a service manager does when its unit is over. Whether
    /// there is one.
    pub(crate) fn end_group(&self) -> bool {
        group(self.folder.path()).is_some_and(|group| std::fs::write(group.join("cgroup.kill"), "1").is_ok())
    }

    /// What the guard said (it says only why it refuses), and sshd's logs.
    pub(crate) fn logs(&self) -> String {
        let guard = std::fs::read_to_string(self.path("guard.log")).unwrap_or_default();
        let sshd: Vec<String> = self.host.connections().into_values().flat_map(|connection| connection.log).collect();
        format!("{guard}\n{}", sshd.join("\n"))
    }
}

impl Drop for GuardedHost {
    fn drop(&mut self) {
        // Can't be removed while something of it runs; it is empty then, and in nobody's way.
        let _removed = group(self.folder.path()).map(std::fs::remove_dir);
    }
}

impl Client {
    /// Reads until a line contains `text`.
    pub(crate) async fn wait_for(&mut self, text: &str, host: &GuardedHost) -> String {
        let mut seen = String::new();
        let found = async {
            while !seen.contains(text) {
                if self.output.read_line(&mut seen).await.unwrap() == 0 {
                    panic!("no {text:?} in {seen:?}\n{}", host.logs());
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("it says so in time");
        seen
    }

    /// Waits for its end: exit code, and the rest of what it printed.
    pub(crate) async fn finish(mut self) -> (i32, String) {
        let mut text = Vec::new();
        let ended = async {
            // A process that outlives the client may hold the pipe; the client's end is what counts.
            let status = self.child.wait().await.unwrap();
            let _rest = tokio::time::timeout(Duration::from_secs(1), self.output.read_to_end(&mut text)).await;
            status.code().unwrap_or(-1)
        };
        let code = tokio::time::timeout(PATIENCE, ended).await.expect("ssh ends in time");
        (code, String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// `seconds` from now.
pub(crate) fn soon(seconds: u32) -> Timestamp {
    SystemClock.now().plus(Lifetime::from_seconds(seconds).unwrap()).unwrap()
}

/// Waits until so long after `end` (or before it, for a negative number of milliseconds).
pub(crate) async fn wait_until(end: Timestamp, milliseconds: i64) {
    let at = i64::try_from(end.unix()).unwrap() * 1_000 + milliseconds;
    let Moment { wall, .. } = SystemClock.moment();
    let left = at - i64::try_from(wall.as_millis()).unwrap();
    tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
}

/// Demands that something holds shortly before `end`; where the machine is too busy to look in time, nothing is shown.
#[track_caller]
pub(crate) fn still(end: Timestamp, what: &str, holds: impl FnOnce() -> bool) {
    if !holds() {
        assert!(since(end) >= 0, "{what}: not before the end");
        println!("not shown here: {what} until the end; the machine is too busy");
    }
}

/// What has to be gone two seconds after an end (promise P8).
pub(crate) struct Due {
    end: Timestamp,
    promise: Promise,
}

impl Due {
    /// To be had before the end.
    pub(crate) fn at(end: Timestamp) -> Self {
        let early = u64::try_from(-since(end)).unwrap_or_default();
        Self { end, promise: Promise::within(Duration::from_millis(2_000 + early)) }
    }

    /// How many milliseconds the end is past.
    pub(crate) fn since(&self) -> i64 {
        since(self.end)
    }

    /// Whether it is too late.
    pub(crate) fn is_over(&self) -> bool {
        self.promise.is_broken()
    }
}

/// How many milliseconds `end` is past.
pub(crate) fn since(end: Timestamp) -> i64 {
    i64::try_from(SystemClock.moment().wall.as_millis()).unwrap() - i64::try_from(end.unix()).unwrap() * 1_000
}

fn settings(path: &Path, more: &str) -> String {
    format!(
        "name = \"{NAME}\"\ntrust = \"{0}/trust\"\nended = \"{0}/ended\"\nstate = \"{0}/state\"\n\
         spool = \"{0}/spool\"\n{more}\n",
        path.display()
    )
}

fn config(path: &Path, more: &More<'_>) -> String {
    // sshd keeps the first value that it reads.
    let own = format!("TrustedUserCAKeys {0}/both\nAuthorizedPrincipalsFile {0}/principals\n", path.display());
    let command = format!(
        "AuthorizedPrincipalsCommand /usr/local/bin/hallpass-host principals --config {0}/host.toml \
         --user=%u --serial=%s --key-id=%i --cert=%k\nAuthorizedPrincipalsCommandUser nobody\n",
        path.display()
    );
    format!(
        "{1}{2}HostKey {0}/host_key\nTrustedUserCAKeys {0}/trust\nAuthorizedKeysFile {0}/keys/%u\nStrictModes no\n\
         UsePAM yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PidFile none\nPrintMotd no\nLogLevel VERBOSE\nMaxSessions 20\nSubsystem sftp internal-sftp\n",
        path.display(),
        if more.is_open { own } else { String::new() },
        if more.instead.is_some() { String::new() } else { command }
    )
}

fn pam(path: &Path, instead: Option<&str>) -> String {
    let guard = format!(
        "session required pam_exec.so quiet type=open_session log={0}/guard.log /usr/local/bin/hallpass-host guard --config {0}/host.toml",
        path.display()
    );
    let session = instead.unwrap_or(&guard);
    format!("auth required pam_deny.so\naccount required pam_permit.so\nsession required pam_loginuid.so\n{session}\n")
}

fn mounts(path: &Path) -> String {
    let bind = |from: &str, to: &str| format!("mount --bind '{from}' {to} && ");
    let own = |name: &str, to: &str| bind(&path.join(name).display().to_string(), to);
    let mut script = String::new();
    for (name, to) in
        [("passwd", "/etc/passwd"), ("shadow", "/etc/shadow"), ("pam", "/etc/pam.d/sshd"), ("bin", "/usr/local/bin")]
    {
        script.push_str(&own(name, to));
    }
    script.push_str(&bind(HALLPASS_HOST, "/usr/local/bin/hallpass-host"));
    if let Some(group) = group(path) {
        script.push_str(&format!("echo $$ > '{}/cgroup.procs' && ", group.display()));
    }
    script + "exec \"$@\""
}

/// A control group for all connections of a host, as a service manager has it, where this machine lets us make one.
fn group(path: &Path) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let root = mounts.lines().find_map(|line| line.split(' ').nth(1).filter(|_| line.contains(" cgroup2 rw")))?;
    let group = Path::new(root).join(format!("hallpass-test{}", path.file_name().unwrap().display()));
    std::fs::create_dir_all(&group).ok()?;
    std::fs::read_to_string(group.join("cgroup.procs")).ok().map(|_| group)
}

pub(crate) fn write(path: &Path, text: &str) {
    hallpass::durable::replace(path, text.as_bytes(), 0o644).unwrap();
}

fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether root may make a mount namespace here; in many containers it may not.
pub(crate) fn has_namespaces() -> bool {
    let tried = std::process::Command::new("unshare").args(["-m", "--", "true"]).output();
    tried.is_ok_and(|ran| ran.status.success())
}
