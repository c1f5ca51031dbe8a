//! A PostgreSQL server of our own: one for the test program, a database for each test; gone when the program ends.
//!
//! The server runs as an unprivileged user, in a folder of its own, on a Unix socket and (TLS only) on a loopback port. It ends when the
//! pipe to its keeper does, so however the tests end.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hallpass::store::postgres::{Server, Settings};

/// The one password there is.
pub(crate) const PASSWORD: &str = "correct horse";

/// Starts a server; when standard input ends, stops it at once and removes its folder. A line on it kills the server alone.
const KEEPER: &str = r#"
folder=$1; shift
"$@" </dev/null 2>"$folder/said" & server=$!
read -r _ && { kill -KILL $server; wait $server; exit; }
kill -QUIT $server 2>/dev/null; wait $server
rm -rf "$folder""#;

/// A running server.
pub(crate) struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    databases: AtomicU32,
    /// Its keeper; the pipe to it is held open as long as we live.
    keeper: Child,
}

/// The server that all tests share.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&[]))
}

/// The folder with the server's programs: the newest that Debian has, or the one of `initdb` in the path.
fn programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let bin = entry.path().join("bin");
        found.extend(version.filter(|_| bin.join("initdb").exists()).map(|version| (version, bin)));
    }
    if let Some((_, bin)) = found.into_iter().max() {
        return bin;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let bin = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    bin.expect("initdb of PostgreSQL 15 or later is needed (Debian: apt-get install postgresql)")
}

/// A command as somebody who is not root: PostgreSQL refuses root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

impl Cluster {
    /// A server of its own, with further settings.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let bin = programs();
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let data = folder.join("data");
        let options = ["-U", "hallpass", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        run(unprivileged(&bin.join("initdb")).arg("-D").arg(&data).args(options));
        let certificate = certify(&folder);
        std::fs::write(data.join("server.crt"), certificate.0).unwrap();
        run(unprivileged(Path::new("sh"))
            .args(["-c", "umask 077; cat >\"$1/server.key\" <<END\n$2\nEND", "sh"])
            .arg(&data)
            .arg(certificate.1));
        std::fs::write(
            data.join("pg_hba.conf"),
            "local all all trust\nlocal replication all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let cluster =
            Self { keeper: keeper_of(&bin, &folder, port, settings), folder, bin, port, databases: AtomicU32::new(0) };
        cluster.until_ready();
        cluster.sql("postgres", &format!("ALTER USER hallpass PASSWORD '{PASSWORD}'"));
        cluster
    }

    fn until_ready(&self) {
        for _ in 0..600 {
            let mut asked = Command::new(self.bin.join("pg_isready"));
            asked.arg("-q").arg("-h").arg(&self.folder).arg("-p").arg(self.port.to_string());
            if asked.status().unwrap().success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{}", std::fs::read_to_string(self.folder.join("said")).unwrap_or_default());
    }

    /// A program of the server's, told where the server is and to be the superuser.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.args(["-U", "hallpass", "-p", &self.port.to_string()]).arg("-h").arg(&self.folder);
        command
    }

    /// Runs SQL as the superuser; gives what it prints.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let mut command = self.program("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A new database's name.
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// How to reach a database by the socket.
    pub(crate) fn settings(&self, database: &str) -> Settings {
        Settings {
            server: Server::socket(self.folder.clone()),
            port: self.port,
            database: database.to_owned(),
            user: "hallpass".to_owned(),
            password_path: None,
            connections: 4,
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(10),
        }
    }

    /// The folder of the socket, of the CA's certificate (`ca.pem`) and of the password (`password`).
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The loopback port, with TLS and without.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What `kill -9` does to the whole server, and its start again.
    pub(crate) fn kill_and_restart(&mut self, settings: &[&str]) {
        self.kill();
        self.start_again(settings);
    }

    /// What `kill -9` does to the whole server.
    fn kill(&mut self) {
        let first = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let server: u32 = first.lines().next().unwrap().parse().unwrap();
        let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
        let keeper = self.keeper.stdin.as_mut().unwrap();
        keeper.write_all(b"kill\n").unwrap();
        drop(self.keeper.wait());
        for child in children.split_whitespace() {
            // An error means that it is gone already.
            drop(Command::new("kill").args(["-KILL", child]).stderr(Stdio::null()).status());
            while is_running(child) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn start_again(&mut self, settings: &[&str]) {
        self.keeper = keeper_of(&self.bin, &self.folder, self.port, settings);
        self.until_ready();
    }

    /// What a server must be started with to have a standby.
    #[cfg(feature = "failpoints")]
    pub(crate) const REPLICATED: &[&str] = &["wal_level=replica", "max_wal_senders=4", "wal_keep_size=256MB"];

    /// A standby, made of a base backup, that follows this server by streaming.
    #[cfg(feature = "failpoints")]
    pub(crate) fn standby(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap().keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let mut backup = unprivileged(&self.bin.join("pg_basebackup"));
        backup.args(["-U", "hallpass", "-p", &self.port.to_string(), "-R", "-X", "stream", "-c", "fast"]);
        run(backup.arg("-h").arg(&self.folder).arg("-D").arg(folder.join("data")));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let keeper = keeper_of(&self.bin, &folder, port, Self::REPLICATED);
        let standby = Self { keeper, folder, bin: self.bin.clone(), port, databases: AtomicU32::new(0) };
        standby.until_ready();
        self.until_replicas(1);
        standby
    }

    /// Waits until so many standbys follow.
    #[cfg(feature = "failpoints")]
    pub(crate) fn until_replicas(&self, count: u32) {
        let following = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        for _ in 0..600 {
            if self.sql("postgres", following).trim() == count.to_string() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not {count} standbys");
    }

    /// Does not follow any more.
    #[cfg(feature = "failpoints")]
    pub(crate) fn unfollow(&self) {
        self.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Dies, and its standby takes its place, with its address. Its own data stay, for [`Self::fail_back`].
    #[cfg(feature = "failpoints")]
    pub(crate) fn fail_over(&mut self, mut standby: Self) {
        self.kill();
        assert_eq!(standby.sql("postgres", "SELECT pg_promote()").trim(), "t");
        standby.sql("postgres", "CHECKPOINT");
        standby.kill();
        let (data, old) = (self.folder.join("data"), self.folder.join("old"));
        std::fs::rename(&data, old).unwrap();
        std::fs::rename(standby.folder.join("data"), data).unwrap();
        self.start_again(Self::REPLICATED);
    }

    /// The data that it had before [`Self::fail_over`].
    #[cfg(feature = "failpoints")]
    pub(crate) fn fail_back(&mut self) {
        self.kill();
        let (data, old) = (self.folder.join("data"), self.folder.join("old"));
        std::fs::rename(&data, self.folder.join("copy")).unwrap();
        std::fs::rename(old, data).unwrap();
        self.start_again(Self::REPLICATED);
    }
}

/// Whether this process has not ended. One that nobody has waited for counts as ended.
fn is_running(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The keeper ends the server when its input does.
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

fn keeper_of(bin: &Path, folder: &Path, port: u16, settings: &[&str]) -> Child {
    let socket = folder.display();
    let mut command = unprivileged(Path::new("sh"));
    command.args(["-c", KEEPER, "keeper"]).arg(folder).arg(bin.join("postgres")).arg("-D").arg(folder.join("data"));
    command.args(["-p", &port.to_string(), "-k", &socket.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "ssl=on",
        "max_connections=300",
        "shared_buffers=64MB",
        "wal_level=minimal",
        "max_wal_senders=0",
    ] {
        command.args(["-c", setting]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Makes a CA, and a certificate and key for the server.
fn certify(folder: &Path) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in [("password", PASSWORD), ("wrong-password", "battery staple")] {
        let password = folder.join(name);
        std::fs::write(&password, format!("{text}\n")).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    (certificate.pem(), key.serialize_pem())
}
