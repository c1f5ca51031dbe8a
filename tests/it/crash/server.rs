//! The real program as a child process, in a folder that outlives it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use hallpass::audit::checkpoint::LogKey;
use hallpass::identity::mac::MacKey;
use hallpass::ssh::private::SessionKey;
use hallpass::store::{self, SEAL_PURPOSE, Store, postgres};

use crate::support::fixtures::House;

/// What clients are told to call; the port differs from start to start and is no part of it.
pub(crate) const PUBLIC_URL: &str = "https://localhost";

/// The seed of the log key.
const LOG_SEED: [u8; 32] = [201; 32];

/// The seed of the user CA key.
const USER_CA_SEED: [u8; 32] = [200; 32];

/// Everything the service keeps, and its settings.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    /// The database that its nodes share, if it is not a file.
    shared: Option<postgres::Settings>,
}

impl Site {
    /// One node, with a file.
    pub(crate) fn new() -> Self {
        Self::of(None)
    }

    /// Two nodes on this database.
    pub(crate) fn of_nodes(shared: postgres::Settings) -> Self {
        Self::of(Some(shared))
    }

    fn of(shared: Option<postgres::Settings>) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), shared };
        let ca = SessionKey::generate(USER_CA_SEED).to_openssh("user CA").unwrap();
        site.write("user-ca", &ca);
        let host_ca = SessionKey::generate([202; 32]).to_openssh("host CA").unwrap();
        site.write("host-ca", &host_ca);
        site.write("log.key", &LogKey::seed_text(&LOG_SEED));
        site.write("policy.toml", &House::text());
        site.configure("config.toml", 1);
        site.configure("config-2.toml", 2);
        site
    }

    /// The configuration of one node: what they must not share is the file of the newest checkpoint.
    fn configure(&self, name: &str, node: u8) {
        let store = self.shared.as_ref().map_or_else(
            || "path = \"hallpass.db\"".to_owned(),
            |settings| {
                format!(
                    "postgres = {{ host = \"{}\", port = {}, database = \"{}\", user = \"hallpass\", idle_timeout = \"1s\" }}",
                    settings.server.shown(),
                    settings.port,
                    settings.database
                )
            },
        );
        self.write(
            name,
            &format!(
                "listen = \"127.0.0.1:0\"\npublic_url = \"{PUBLIC_URL}\"\n\n[tls]\nself_signed = true\n\n\
                 [store]\n{store}\n\n[ca.user]\nkey = \"user-ca\"\n\n[ca.host]\nkey = \"host-ca\"\n\n\
                 [log]\nkey = \"log.key\"\nhead = \"log-{node}.head\"\n\n\
                 [limits]\nrequests_per_second = 10000\nburst = 10000\nopen_requests_max = 1000\n"
            ),
        );
    }

    fn write(&self, name: &str, text: &str) {
        use std::io::Write as _;
        let path = self.folder.path().join(name);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The key that seals the database's log head.
    pub(crate) fn seal_key(&self) -> MacKey {
        LogKey::new("any/log", &LOG_SEED).unwrap().derive(SEAL_PURPOSE)
    }

    /// The store, when no node writes to it any more.
    pub(crate) async fn open(&self) -> Box<dyn Store> {
        let settings = match &self.shared {
            Some(shared) => store::Settings::Postgres(shared.clone()),
            None => store::Settings::Sqlite(store::sqlite::Settings { path: self.folder.path().join("hallpass.db") }),
        };
        store::open(&settings, self.seal_key()).await.unwrap()
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The checkpoints that node 1 keeps apart: the newest, and perhaps the one before.
    pub(crate) fn kept(&self) -> Vec<String> {
        let text = std::fs::read(self.path("log-1.head")).unwrap();
        let note = |place: &[u8]| format!("{}\n", String::from_utf8_lossy(place).trim_end_matches('\n'));
        text.chunks(4096).map(note).filter(|note| note.contains("\n\n\u{2014} ")).collect()
    }

    /// The public half of the user CA key.
    pub(crate) fn user_ca() -> String {
        SessionKey::generate(USER_CA_SEED).public_key().to_openssh()
    }

    /// Starts the program; `point`: where it is to die, as in `issue.signed:2`.
    pub(crate) fn start(&self, point: Option<&str>) -> Server {
        self.start_with(|command| {
            command.envs(point.map(|point| ("HALLPASS_FAILPOINT", point)));
        })
    }

    /// Starts the program with more arguments or another environment.
    pub(crate) fn start_with(&self, set_up: impl FnOnce(&mut Command)) -> Server {
        Server::start(&self.path("config.toml"), |command| {
            self.trust_nobody(command);
            set_up(command);
        })
    }

    /// Starts the second node.
    pub(crate) fn start_second(&self) -> Server {
        Server::start(&self.path("config-2.toml"), |command| self.trust_nobody(command))
    }

    /// By a socket nobody's certificate is looked at: a node starts on a machine that trusts none.
    fn trust_nobody(&self, command: &mut Command) {
        if self.shared.is_some() {
            command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
        }
    }
}

/// A started program. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Its base URL; `None` when it died before it listened.
    pub(crate) url: Option<String>,
    errors: Option<JoinHandle<String>>,
}

impl Server {
    fn start(config: &Path, set_up: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.arg("--config").arg(config).arg("serve");
        command.env_remove("HALLPASS_FAILPOINT").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        set_up(&mut command);
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let mut url = None;
        // Until it says where it listens, or its end.
        for line in errors.by_ref() {
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once(" listens on ") {
                let address = rest.split_whitespace().next().unwrap();
                url = Some(format!("https://{address}"));
            }
            said.push_str(&line);
            said.push('\n');
            if url.is_some() {
                break;
            }
        }
        // The rest is read as it comes, so that the program never waits for us.
        let errors = std::thread::spawn(move || {
            errors.map_while(Result::ok).for_each(|line| {
                said.push_str(&line);
                said.push('\n');
            });
            said
        });
        Self { child, url, errors: Some(errors) }
    }

    /// Waits until it has died by its fail point.
    pub(crate) fn died(mut self) {
        let status = self.child.wait().unwrap();
        let said = self.errors.take().unwrap().join().unwrap();
        assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{status}\n{said}");
    }

    /// Waits for its end; its exit code, and what it said.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.errors.take().unwrap().join().unwrap())
    }

    /// Its process, for who can't wait for its end any longer.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it for a while, or lets it go on: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        assert!(kill.args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap().success());
    }

    /// What `kill -9` does.
    pub(crate) fn kill(mut self) -> ExitStatus {
        self.kill_now()
    }

    /// The same, of one that another takes the place of.
    pub(crate) fn kill_now(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
