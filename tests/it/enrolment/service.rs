//! A service of its own for hosts to be enrolled at: the real program, with people who are logged in.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use hallpass::client::{Client, Server};
use hallpass::wire;
use secrecy::SecretString;

pub(crate) const HALLPASS: &str = env!("CARGO_BIN_EXE_hallpass");
pub(crate) const HALLPASS_HOST: &str = env!("CARGO_BIN_EXE_hallpass-host");

/// A running service. Ended with its handle.
pub(crate) struct Service {
    folder: tempfile::TempDir,
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) pin: String,
}

impl Service {
    /// A service at which omar operates and alice may be `deploy` on every host that is tagged `role=web`.
    pub(crate) fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// The same on an address of this network.
    pub(crate) fn start_at(address: &str) -> Self {
        Self::start_as(&format!("https://{address}:0"), address, |_, _| {})
    }

    /// The same with a public URL of its own, where something stands in between that `between` starts: told the service's folder, and where it
    /// listens.
    pub(crate) fn start_as(url: &str, address: &str, between: impl FnOnce(&Path, &str)) -> Self {
        let folder = tempfile::Builder::new().prefix("hallpass-enrol").tempdir().unwrap();
        let key = make_key(folder.path(), "omar");
        let answers = format!(
            "url = {url:?}\nlisten = \"{address}:0\"\nfolder = {:?}\noperator = \"omar@example.com\"\noperator_key = {key:?}\n",
            folder.path().join("service")
        );
        let path = folder.path().join("answers.toml");
        std::fs::write(&path, answers).unwrap();
        let made = as_person(folder.path(), "omar", &["init", "--answers", &path.display().to_string()]);
        assert!(made.status.success(), "{made:?}");
        let alice = make_key(folder.path(), "alice");
        std::fs::write(folder.path().join("service/policy.toml"), policy(&key, &alice)).unwrap();
        let Started { child, url, pin, address } = serve(serving(folder.path()));
        between(&folder.path().join("service"), &address);
        let service = Self { folder, child, url, pin };
        for person in ["omar", "alice"] {
            service.log_in(person);
        }
        service
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command as a person; what it says.
    #[track_caller]
    pub(crate) fn run(&self, person: &str, words: &[&str]) -> String {
        let ran = as_person(self.folder.path(), person, words);
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{words:?}: {said}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// A file with a join token for every host.
    pub(crate) async fn join_token(&self) -> PathBuf {
        let path = self.path("join");
        join_token(&self.client(), &path).await;
        path
    }

    /// A file with a join token for one host.
    pub(crate) async fn join_token_once(&self) -> PathBuf {
        let path = self.path("join-once");
        let body = wire::host::JoinFor { names: vec!["web-*".to_owned()], ..wire::host::JoinFor::default() };
        let join: wire::host::NewJoin = self.client().post("/v1/hosts/joins", &body).await.unwrap();
        hallpass::durable::replace(&path, join.token.as_bytes(), 0o600).unwrap();
        path
    }

    /// What the service knows of a host.
    pub(crate) async fn host(&self, name: &str) -> wire::host::HostDetail {
        self.client().get(&format!("/v1/hosts/{name}")).await.unwrap()
    }

    /// omar's client.
    pub(crate) fn client(&self) -> Client {
        client(&self.url, &self.pin, &self.path("omar/.local/state/hallpass/default/session"))
    }

    /// Kills the service where it stands.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) fn start_again(&mut self) {
        let config = self.path("service/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        self.keep_address(&config, &text);
        self.child = serve(serving(self.folder.path())).child;
    }

    /// Has it go by another name from its next start on; its log keeps the one that it has.
    pub(crate) fn go_by(&mut self, name: &str) {
        let config = self.path("service/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        self.keep_address(&config, &text);
        let text = std::fs::read_to_string(&config).unwrap();
        let (old, port) = (self.url.clone(), self.url.rsplit_once(':').unwrap().1);
        self.url = format!("https://{name}:{port}");
        let text = text.replace(&format!("public_url = {old:?}"), &format!("public_url = {:?}", self.url));
        let origin = format!("[log]\norigin = \"{}/log\"", old.trim_start_matches("https://"));
        std::fs::write(&config, text.replace("[log]", &origin)).unwrap();
    }

    /// Begins a new log under another key in place of the one that it had, at the same address.
    pub(crate) fn begin_anew(&mut self) {
        for name in ["state", "log.key", "log.head"] {
            std::fs::rename(self.path("service").join(name), self.path("service").join(format!("{name}.old"))).unwrap();
        }
        hallpass::durable::create_folder(&self.path("service/state"), 0o700).unwrap();
        let key = hallpass::audit::checkpoint::LogKey::seed_text(&[7; 32]);
        hallpass::durable::create(&self.path("service/log.key"), key.as_bytes(), 0o600).unwrap();
        self.start_again();
        self.log_in("omar");
    }

    pub(crate) fn log_in(&self, person: &str) {
        let (name, key) = (format!("{person}@example.com"), self.path(&format!("{person}/login_key")));
        let server = ["--server", &self.url, "--pin", &self.pin];
        let key = key.display().to_string();
        self.run(person, &[&["login", "--person", &name, "--key", &key], &server[..]].concat());
    }

    /// The port that it had, on whatever address it listens.
    fn keep_address(&self, config: &Path, text: &str) {
        let address = self.url.trim_start_matches("https://");
        let any = format!("{}:0\"", address.split_once(':').unwrap().0);
        std::fs::write(config, text.replace(&any, &format!("{address}\""))).unwrap();
    }

    /// Starts it where it was, at another time: `ahead` as `faketime` takes it.
    pub(crate) fn start_later(&mut self, ahead: &str) {
        let config = self.path("service/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        self.keep_address(&config, &text);
        let mut command = serving(self.folder.path());
        fake_time(&mut command, ahead);
        self.child = serve(command).child;
    }

    /// Starts it anew: how often a host may log in to itself in an hour is counted in memory.
    #[cfg(feature = "failpoints")]
    pub(crate) fn forget_rates(&mut self) {
        self.kill();
        self.start_again();
    }

    /// The arguments with which a host is enrolled here.
    pub(crate) fn enrol(&self, name: &str, token: &Path) -> Vec<String> {
        let words =
            ["host", "enrol", "--yes", "--server", &self.url, "--pin", &self.pin, "--name", name, "--token-file"];
        words.into_iter().map(str::to_owned).chain([token.display().to_string()]).collect()
    }
}

/// The client of whoever's session is in a file.
pub(crate) fn client(url: &str, pin: &str, session: &Path) -> Client {
    let session: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(session).unwrap()).unwrap();
    let token = SecretString::from(session["token"].as_str().unwrap());
    let server = Server { url: url.to_owned(), pin: Some(pin.to_owned()), proxy: None };
    Client::new(server, Some(token), Duration::from_secs(20)).unwrap()
}

/// Writes a join token for all hosts called `web-…` into a file.
pub(crate) async fn join_token(operator: &Client, path: &Path) {
    let body = wire::host::JoinFor {
        names: vec!["web-*".to_owned()],
        tags: vec!["role=web".to_owned()],
        may_tag: vec!["env".to_owned(), "zone".to_owned()],
        uses: Some(1000),
        ..wire::host::JoinFor::default()
    };
    let join: wire::host::NewJoin = operator.post("/v1/hosts/joins", &body).await.unwrap();
    hallpass::durable::replace(path, join.token.as_bytes(), 0o600).unwrap();
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may be dead already.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Lets a program live at another time, as `faketime` does, but as itself: that stays in between, and would be what is killed.
pub(crate) fn fake_time(command: &mut Command, ahead: &str) {
    let shown = Command::new("faketime").args(["-f", ahead, "env"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let variables = shown.lines().filter_map(|line| line.split_once('='));
    for (name, value) in variables.filter(|(name, _)| ["LD_PRELOAD", "FAKETIME"].contains(name)) {
        command.env(name, value);
    }
    // What it waits for comes by the clock that nobody sets.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}

/// A service that has begun to serve.
struct Started {
    child: Child,
    url: String,
    pin: String,
    /// Where it listens.
    address: String,
}

/// The command that serves what is in a folder.
fn serving(folder: &Path) -> Command {
    let mut command = Command::new(HALLPASS);
    command.args(["serve", "--config"]).arg(folder.join("service/config.toml"));
    command
}

fn serve(mut command: Command) -> Started {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    // The line with the pin is the last before it serves; the port is bound before that.
    while !said.contains("--pin") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "the service did not start:\n{said}");
    }
    std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(drop));
    let words: Vec<&str> = said.split_whitespace().collect();
    let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1].to_owned();
    Started { child, url: after("--server"), pin: after("--pin"), address: after("on") }
}

fn as_person(folder: &Path, person: &str, words: &[&str]) -> Output {
    let home = folder.join(person);
    let run = home.join("run");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = Command::new(HALLPASS);
    command.args(words).env_clear().env("HOME", &home).env("XDG_RUNTIME_DIR", &run).env("HALLPASS_NO_INPUT", "1");
    command.env("PATH", std::env::var_os("PATH").unwrap()).stdin(Stdio::null());
    command.output().unwrap()
}

fn make_key(folder: &Path, person: &str) -> String {
    let path = folder.join(person).join("login_key");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", person, "-f"]).arg(&path);
    assert!(keygen.status().unwrap().success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
}

fn policy(omar: &str, alice: &str) -> String {
    format!(
        "version = 1\n\n[defaults]\nbackdate = \"30s\"\nwindow = {{ default = \"30m\", max = \"1h\", total = \"4h\" }}\n\n\
         [roles]\noperator = [\"person:omar@example.com\"]\nauditor = [\"person:omar@example.com\"]\n\n\
         [[person]]\nname = \"omar@example.com\"\ngroups = [\"ops\"]\nkeys = [{omar:?}]\n\n\
         [[person]]\nname = \"alice@example.com\"\ngroups = [\"backend\"]\nkeys = [{alice:?}]\n\n\
         [[rule]]\nname = \"web\"\nwho = [\"group:backend\"]\nhosts = [\"tag:role=web\"]\naccounts = [\"deploy\"]\npermit = {{ pty = true }}\n"
    )
}
