//! Plain `ssh`, `scp`, `sftp`, `rsync`, `git` and jump hosts, after `hallpass setup`: the real programs, a real sshd with real
//! accounts, and a real terminal where a person is asked.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::REASON;
use super::stage::{HALLPASS, Ran, Stage};
use crate::openssh::site::Site;
use hallpass::cli::demo::sshd;

/// alice's laptop, the service, and two hosts.
pub(super) struct Plain {
    pub(super) stage: Stage,
    pub(super) site: Site,
    pub(super) hosts: Vec<sshd::Host>,
}

impl Plain {
    /// Set up for plain ssh; `None` without root, because the accounts could not be had.
    pub(super) async fn new() -> Option<Self> {
        if !Site::has_accounts() {
            eprintln!("needs root: real accounts");
            return None;
        }
        Self::on(Stage::new()).await
    }

    /// The same with a stage whose service runs already.
    pub(super) async fn on(stage: Stage) -> Option<Self> {
        let mut site = Site::new();
        let trust = stage.as_person("alice", &["ca", "export"]).out;
        let mut hosts = Vec::new();
        let mut config = "# mine\nHost *\n    ConnectTimeout 20\n".to_owned();
        for name in ["web-1", "web-2", "free-1"] {
            let principal = format!("deploy@{name}");
            let host = site.host(&trust, Some(&[("deploy", &principal)]), None, "MaxAuthTries 6").await;
            config.push_str(&format!("Host {name}\n    HostName 127.0.0.1\n    Port {}\n", host.address().port()));
            hosts.push(host);
        }
        config.push_str(&format!(
            "Host web-1 web-2 free-1\n    StrictHostKeyChecking accept-new\n    UserKnownHostsFile {}\n    LogLevel ERROR\n",
            stage.shown("known_hosts")
        ));
        stage.write("ssh_config", &config);
        let plain = Self { stage, site, hosts };
        let ran = plain.setup(&[]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        Some(plain)
    }

    pub(super) fn setup(&self, arguments: &[&str]) -> Ran {
        let config = self.stage.shown("ssh_config");
        self.stage.as_person("alice", &[&["setup", "--ssh-config", &config], arguments].concat())
    }

    /// A program with alice's environment and no terminal.
    pub(super) fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        // Everything else as `hallpass` itself gets it.
        for (key, value) in self.stage.command("alice", &[]).get_envs() {
            if let Some(value) = value {
                command.env(key, value);
            }
        }
        command.env_remove("SSH_AUTH_SOCK").env("PATH", std::env::var_os("PATH").unwrap());
        command.args(arguments).stdin(Stdio::null());
        command
    }

    pub(super) fn ssh(&self, arguments: &[&str]) -> Ran {
        let config = self.stage.shown("ssh_config");
        Ran::of(self.program("ssh", &[&["-F", &config], arguments].concat()).output().unwrap())
    }

    /// alice asks for these hosts and bob agrees; the certificate stays where it is.
    pub(super) fn granted(&mut self, hosts: &[&str]) -> String {
        let ask = [&["request"], hosts, &["--reason", REASON, "--for", "20m", "--no-wait", "--json"]].concat();
        let asked = self.stage.as_person("alice", &ask);
        assert_eq!(asked.code, 8, "{}", asked.err);
        let id = asked.field("id");
        let approved = self.stage.as_person("bob", &["approve", &id, "--yes"]);
        assert_eq!(approved.code, 0, "{}", approved.err);
        id
    }

    /// How many certificates are on alice's machine; the service is not asked.
    pub(super) fn certificates_known(&self) -> usize {
        let listed = self.stage.as_person("alice", &["cert", "ls", "--json"]);
        listed.json()["certificates"].as_array().unwrap().len()
    }

    /// How many certificates were signed so far.
    pub(super) fn certificates(&self) -> usize {
        let log = self.stage.as_person("omar", &["audit", "search", "kind:certificate_to_be_signed", "--json"]);
        log.json()["entries"].as_array().unwrap().len()
    }
}

/// How long a terminal may stay silent before a test gives up: far longer than anything here takes.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A program on a terminal of its own, which somebody types at.
pub(super) struct Typed {
    child: Child,
    heard: std::sync::mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Typed {
    /// Types this line. Whatever shell there is becomes the command: one that stayed would itself die of a Ctrl-C.
    pub(super) fn start(plain: &Plain, line: &str) -> Self {
        Self::run(plain.program("script", &["-qefc", &format!("exec {line}"), "/dev/null"]))
    }

    /// The same for a command that makes its own terminal.
    pub(super) fn run(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (sender, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut bytes) {
                let _nobody_listens = sender.send(bytes[..length].to_vec());
            }
        });
        Self { child, heard, seen: String::new() }
    }

    /// Reads on until `text` was seen.
    pub(super) fn sees(&mut self, text: &str) {
        while !self.seen.contains(text) {
            match self.heard.recv_timeout(SILENCE_MAX) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => {
                    let _ended_already = self.child.kill();
                    panic!("{text:?} never came:\n{}", self.seen);
                }
            }
        }
    }

    pub(super) fn types(&mut self, line: &str) {
        self.keys(&format!("{line}\n"));
    }

    /// Types without an end of line.
    pub(super) fn keys(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Reads to its end.
    pub(super) fn ends(mut self) -> (i32, String) {
        while let Ok(bytes) = self.heard.recv_timeout(SILENCE_MAX) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        drop(self.child.stdin.take());
        let code = self.child.wait().unwrap().code().unwrap();
        (code, self.seen)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_ssh_asks_for_the_reason_waits_and_becomes_a_shell() {
    let Some(plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let mut shell = Typed::start(&plain, &format!("ssh -F {config} web-1"));
    shell.sees("default · web-1: rule \"web-debug\" needs a reason of at least 10 characters");
    shell.sees("Reason: ");
    shell.types(REASON);
    shell.sees("waiting for bob@example.com");
    let inbox = plain.stage.as_person("bob", &["inbox", "--json"]).json();
    let id = inbox["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(inbox["requests"][0]["reason"], REASON);
    assert_eq!(plain.stage.as_person("bob", &["approve", &id, "--for", "15m", "--yes"]).code, 0);
    shell.sees("access to web-1 as deploy until ");
    shell.sees("(approved by bob@example.com)");
    shell.types("echo I am $(id -un); exit 7");
    shell.sees("I am deploy");
    let (code, seen) = shell.ends();
    assert_eq!(code, 7, "{seen}");
    assert_eq!(plain.certificates(), 1);
    // The next one has it, and nothing is said.
    let again = plain.ssh(&["web-1", "id", "-un"]);
    assert_eq!((again.code, again.out.as_str(), again.err.as_str()), (0, "deploy\n", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_ends_the_waiting_and_says_so() {
    let Some(plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let mut shell = Typed::start(&plain, &format!("ssh -F {config} web-1"));
    shell.sees("Reason: ");
    // Too short for the rule: asked again.
    shell.types("short");
    shell.sees("needs a reason of at least 10 characters");
    shell.types(REASON);
    shell.sees("waiting for bob@example.com");
    let inbox = plain.stage.as_person("bob", &["inbox", "--json"]).json();
    let id = inbox["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(plain.stage.as_person("bob", &["deny", &id, "--reason", "use the replica"]).code, 0);
    shell.sees(&format!("bob@example.com denied {id}"));
    let (code, seen) = shell.ends();
    assert_eq!(code, 255, "{seen}");
    assert!(seen.contains("use the replica") && seen.contains("Permission denied"), "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_access_and_without_a_person_everything_ends_soon_and_says_what_to_type() {
    let Some(plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let over_ssh = format!("ssh -F {config}");
    let here = plain.stage.shown("here");
    plain.stage.write("here", "x");
    let tries: [(&str, Vec<&str>); 5] = [
        ("ssh", vec!["-F", &config, "web-1", "true"]),
        ("scp", vec!["-F", &config, &here, "web-1:there"]),
        ("sftp", vec!["-F", &config, "-b", "/dev/null", "web-1"]),
        ("rsync", vec!["-e", &over_ssh, &here, "web-1:there"]),
        ("git", vec!["ls-remote", "ssh://web-1/repository"]),
    ];
    for (program, arguments) in tries {
        let mut command = plain.program(program, &arguments);
        command.env("GIT_SSH_COMMAND", &over_ssh);
        let began = Instant::now();
        let ran = Ran::of(command.output().unwrap());
        let took = began.elapsed();
        assert_ne!(ran.code, 0, "{program}");
        let ours: Vec<&str> = ran.err.lines().take(3).collect();
        assert_eq!(
            ours,
            [
                "hallpass: you have no access to web-1 yet",
                "  why   web-1: rule \"web-debug\" needs a reason of at least 10 characters, and none is given",
                "  next  hallpass request web-1",
            ],
            "{program}: {}",
            ran.err
        );
        assert_eq!(ran.err.matches("hallpass").count(), 2, "said once: {}", ran.err);
        // Generous: what is timed is that nobody waits for a person.
        assert!(took < Duration::from_secs(10), "{program} took {took:?}");
    }
    // An account that nobody may have, and one that is named.
    let root = plain.ssh(&["root@web-1", "true"]);
    assert!(
        root.err.starts_with("hallpass: policy does not let you ask for this\n  why   web-1: rule \"no-root\""),
        "{}",
        root.err
    );
    let named = plain.ssh(&["-l", "deploy", "web-1", "true"]);
    assert!(named.err.contains("  next  hallpass request web-1 --as deploy\n"), "{}", named.err);
    // Only looking asks nobody and says nothing.
    let looked = plain.ssh(&["-G", "web-1"]);
    assert_eq!((looked.code, looked.err.as_str()), (0, ""));
    // A host that is not ours never runs us.
    let other = plain.ssh(&["-o", "ConnectTimeout=1", "-p", "1", "127.0.0.1", "true"]);
    assert!(!other.err.contains("hallpass"), "{}", other.err);
    assert_eq!(
        plain.stage.as_person("alice", &["requests", "--mine", "--json"]).json()["requests"].as_array().unwrap().len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_access_everything_works_and_the_service_is_not_needed() {
    let Some(mut plain) = Plain::new().await else { return };
    plain.granted(&["web-1"]);
    let config = plain.stage.shown("ssh_config");
    let over_ssh = format!("ssh -F {config}");
    // Granted and not yet fetched: fetched now.
    let first = plain.ssh(&["web-1", "pwd"]);
    assert_eq!((first.code, first.err.as_str()), (0, ""), "{}", first.err);
    let home = PathBuf::from(first.out.trim());
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    drop(plain.stage.stop());
    let here = plain.stage.shown("here");
    plain.stage.write("here", "x");
    let made = Command::new("git").args(["init", "-q", "--bare"]).arg(home.join("repository")).status().unwrap();
    assert!(made.success());
    let repository = format!("ssh://web-1{}/repository", home.display());
    plain.stage.write("batch", &format!("put {here} by-sftp\n"));
    let batch = plain.stage.shown("batch");
    let tries: [(&str, Vec<&str>); 5] = [
        ("ssh", vec!["-F", &config, "web-1", "true"]),
        ("scp", vec!["-F", &config, &here, "web-1:by-scp"]),
        ("sftp", vec!["-F", &config, "-b", &batch, "web-1"]),
        ("rsync", vec!["-e", &over_ssh, &here, "web-1:by-rsync"]),
        ("git", vec!["-c", "safe.directory=*", "ls-remote", &repository]),
    ];
    for (program, arguments) in tries {
        let mut command = plain.program(program, &arguments);
        command.env("GIT_SSH_COMMAND", &over_ssh);
        let ran = Ran::of(command.output().unwrap());
        let is_git_owner = program == "git" && ran.err.contains("dubious ownership");
        assert!(ran.code == 0 || is_git_owner, "{program}: {}", ran.err);
        assert!(!ran.err.contains("hallpass"), "{program}: {}", ran.err);
    }
    for file in ["by-scp", "by-sftp", "by-rsync"] {
        assert!(home.join(file).exists(), "{file}");
    }
    // Another host: the server can't be asked.
    let other = plain.ssh(&["web-2", "true"]);
    assert!(other.err.starts_with("hallpass: cannot reach the access server\n  why   tried https://"), "{}", other.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_make_one_request_and_one_certificate() {
    let Some(plain) = Plain::new().await else { return };
    let policy = std::fs::read_to_string(plain.stage.path("service/policy.toml")).unwrap();
    let free = "\n[[host]]\nname = \"free-1\"\n\n[[rule]]\nname = \"free\"\nwho = [\"group:backend\"]\nhosts = [\"free-1\"]\naccounts = [\"deploy\"]\nreason = { min_length = 0 }\n";
    plain.stage.write("free.toml", &(policy + free));
    let file = plain.stage.shown("free.toml");
    assert_eq!(plain.stage.as_person("omar", &["policy", "apply", &file, "--yes"]).code, 0);
    // The fragment learns of the new host at the next login.
    plain.stage.log_in("alice");
    // Here it is about one certificate for all; how long one of fifty waits on a busy machine is not.
    let fragment = plain.stage.path("alice/config/ssh/default.conf");
    let text = std::fs::read_to_string(&fragment).unwrap();
    std::fs::write(&fragment, text.replace(" ssh-prepare ", " --timeout 60s ssh-prepare ")).unwrap();
    let config = plain.stage.shown("ssh_config");
    let many: Vec<Child> = (0..50)
        .map(|_| {
            let mut command = plain.program("ssh", &["-F", &config, "free-1", "true"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in many {
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    }
    assert_eq!(plain.certificates(), 1);
    let mine = plain.stage.as_person("alice", &["requests", "--mine", "--json"]).json();
    assert_eq!(mine["requests"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_host_takes_one_request_for_both() {
    let Some(mut plain) = Plain::new().await else { return };
    plain.granted(&["web-1", "web-2"]);
    let ran = plain.ssh(&["-J", "web-2", "web-1", "id", "-un"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "deploy\n", ""));
    assert_eq!(plain.certificates(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_full_of_keys_does_not_stand_in_the_way() {
    let Some(mut plain) = Plain::new().await else { return };
    plain.granted(&["web-1"]);
    let socket = plain.stage.shown("agent");
    let mut agent = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn().unwrap();
    while std::os::unix::net::UnixStream::connect(plain.stage.path("agent")).is_err() {
        tokio::task::yield_now().await;
    }
    for number in 0..10 {
        plain.stage.make_key(&format!("other-{number}"));
        let key = plain.stage.shown(&format!("other-{number}/login_key"));
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
        assert!(added.success());
    }
    let config = plain.stage.shown("ssh_config");
    let mut command = plain.program("ssh", &["-F", &config, "web-1", "true"]);
    let ran = Ran::of(command.env("SSH_AUTH_SOCK", &socket).output().unwrap());
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let log = plain.hosts[0].last_log().join("\n");
    assert_eq!(log.matches("Failed publickey").count(), 0, "the first offer succeeds:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_or_given_back_is_not_offered_any_more() {
    let Some(mut plain) = Plain::new().await else { return };
    plain.granted(&["web-1"]);
    assert_eq!(plain.ssh(&["web-1", "true"]).code, 0);
    assert_eq!(plain.stage.as_person("alice", &["end", "web-1"]).code, 0);
    let after = plain.ssh(&["web-1", "true"]);
    assert_eq!(after.code, 255);
    assert!(after.err.starts_with("hallpass: you have no access to web-1 yet"), "{}", after.err);
    let shown = plain.ssh(&["-G", "web-1"]).out;
    assert!(!shown.contains("certificatefile"), "{shown}");
    drop(plain.site);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_up_twice_and_taken_back_twice_leaves_no_trace() {
    let stage = Stage::new();
    let mine = "# a comment\n\nHost *\n    # another\n    ServerAliveInterval 7\n\tInclude config.d/*\nHost github.com\n  User git";
    std::fs::create_dir_all(stage.path("alice/.ssh/config.d")).unwrap();
    let write = |text: &str| std::fs::write(stage.path("alice/.ssh/config"), text).unwrap();
    let read = || std::fs::read_to_string(stage.path("alice/.ssh/config"));
    write(mine);
    let shows = |host: &str| {
        let config = stage.shown("alice/.ssh/config");
        let ran = Command::new("ssh").args(["-G", "-F", &config, host]).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    let before = shows("github.com");
    let dry = stage.as_person("alice", &["setup", "--dry-run"]);
    assert_eq!(dry.code, 0, "{}", dry.err);
    assert!(dry.out.contains("Match originalhost db-1,web-1,web-2 exec"), "{}", dry.out);
    assert_eq!(read().unwrap(), mine);
    let mut texts = Vec::new();
    for _ in 0..2 {
        let ran = stage.as_person("alice", &["setup"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        texts.push((read().unwrap(), ran.out));
    }
    assert!(texts[0].0.ends_with(mine) && texts[0].0.lines().nth(1).unwrap().starts_with("Include \""));
    assert_eq!((&texts[0].0, texts[1].1.as_str()), (&texts[1].0, "nothing to change\n"));
    assert_eq!(shows("github.com"), before);
    assert!(shows("web-1").contains("identitiesonly yes"));
    assert_eq!(std::fs::read_to_string(stage.path("alice/.ssh/config.before-hallpass")).unwrap(), mine);
    for text in ["changed", "nothing to change"] {
        let ran = stage.as_person("alice", &["setup", "--undo"]);
        assert!(ran.code == 0 && ran.out.contains(text), "{}{}", ran.out, ran.err);
        assert_eq!(read().unwrap(), mine);
    }
    // Again and again there is one copy of one text; and none at all is none again, whatever copies there are.
    for _ in 0..3 {
        assert_eq!(stage.as_person("alice", &["setup"]).code, 0);
        assert_eq!(stage.as_person("alice", &["setup", "--undo"]).code, 0);
    }
    assert!(!stage.path("alice/.ssh/config.before-hallpass-2").exists());
    std::fs::remove_file(stage.path("alice/.ssh/config")).unwrap();
    let ran = stage.as_person("alice", &["setup", "--hosts", "web-*"]);
    assert!(ran.code == 0 && !ran.err.contains("next"), "what it is for is no host: {}", ran.err);
    assert_eq!(stage.as_person("alice", &["setup", "--undo"]).code, 0);
    assert!(read().is_err());
    assert!(!stage.path("alice/.ssh/config.before-hallpass-2").exists());
    // A configuration that ssh does not take: everything as it was.
    write("Nonsense yes\n");
    let refused = stage.as_person("alice", &["setup"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("ssh does not take the new configuration; nothing was changed"), "{}", refused.err);
    assert_eq!(read().unwrap(), "Nonsense yes\n");
    assert!(!stage.path("alice/config/ssh/default.conf").exists());
    // An empty one stays an empty one.
    write("");
    std::fs::remove_file(stage.path("alice/.ssh/config.before-hallpass")).unwrap();
    assert_eq!(stage.as_person("alice", &["setup", "--hosts", "web-*"]).code, 0);
    assert_eq!(stage.as_person("alice", &["setup", "--undo"]).code, 0);
    assert_eq!(read().unwrap(), "");
    std::fs::remove_file(stage.path("alice/.ssh/config.before-hallpass")).unwrap();
    // None at all: made, and taken away again.
    std::fs::remove_file(stage.path("alice/.ssh/config")).unwrap();
    assert_eq!(stage.as_person("alice", &["setup", "--hosts", "web-*", "--coexist"]).code, 0);
    assert!(!shows("web-9").contains("identitiesonly yes"));
    assert_eq!(stage.as_person("alice", &["setup", "--undo"]).code, 0);
    assert!(read().is_err());
    assert!(PathBuf::from(HALLPASS).is_absolute());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_profiles_do_not_share_a_host() {
    let stage = Stage::new();
    let (url, pin, key) = (stage.url(), stage.pin(), stage.shown("alice/login_key"));
    let login = [
        "login",
        "--profile",
        "other",
        "--server",
        &url,
        "--pin",
        &pin,
        "--person",
        "alice@example.com",
        "--key",
        &key,
    ];
    assert_eq!(stage.as_person("alice", &login).code, 0);
    assert_eq!(stage.as_person("alice", &["setup", "--hosts", "web-*"]).code, 0);
    let overlapping = stage.as_person("alice", &["setup", "--profile", "other", "--hosts", "*-1"]);
    assert_eq!(overlapping.code, 2);
    assert!(overlapping.err.contains("profile \"default\" has \"web-*\" already"), "{}", overlapping.err);
    assert_eq!(stage.as_person("alice", &["setup", "--profile", "other", "--hosts", "db-?"]).code, 0);
    // One include serves both, and goes with the last.
    let read = || std::fs::read_to_string(stage.path("alice/.ssh/config"));
    assert_eq!(read().unwrap().matches("Include").count(), 1);
    assert_eq!(stage.as_person("alice", &["setup", "--undo"]).code, 0);
    assert!(read().unwrap().contains("Include"));
    assert_eq!(stage.as_person("alice", &["setup", "--profile", "other", "--undo"]).code, 0);
    assert!(read().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_come_later_are_taken_when_they_are_like_confirmed_ones_and_else_wait_for_setup() {
    let stage = Stage::new();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let with = |hosts: &[&str]| {
        let more: String = hosts.iter().map(|host| format!("\n[[host]]\nname = {host:?}\n")).collect();
        stage.write("more.toml", &(policy.clone() + &more));
        let file = stage.shown("more.toml");
        let applied = stage.as_person("omar", &["policy", "apply", &file, "--yes"]);
        assert_eq!(applied.code, 0, "{}", applied.err);
    };
    let (url, pin, key) = (stage.url(), stage.pin(), stage.shown("alice/login_key"));
    let login = || {
        stage.as_person(
            "alice",
            &["login", "--server", &url, "--pin", &pin, "--person", "alice@example.com", "--key", &key],
        )
    };
    let fragment = || std::fs::read_to_string(stage.path("alice/config/ssh/default.conf")).unwrap();
    let listed = || fragment().lines().find(|line| line.starts_with("Host ")).unwrap().to_owned();
    with(&["a.prod.example.com"]);
    let set_up = stage.as_person("alice", &["setup"]);
    assert!(set_up.code == 0 && !set_up.out.contains("confirmed  "), "{}{}", set_up.out, set_up.err);
    // What a service that was taken over would like, beside what a good one does.
    with(&["a.prod.example.com", "b.prod.example.com", "github.com", "web-9"]);
    let said = "left out until you confirm them by `hallpass setup`: github.com\n";
    for ran in [login(), stage.as_person("alice", &["known-hosts"])] {
        assert!(ran.code == 0 && ran.err.contains(said), "{}{}", ran.out, ran.err);
        assert_eq!(listed(), "Host a.prod.example.com b.prod.example.com db-1 web-1 web-2 web-9");
        assert!(!fragment().contains("github.com"));
    }
    let found = stage.as_person("alice", &["doctor"]);
    assert!(
        found.out.contains("warn     names        left out until you confirm them by `hallpass setup`: github.com\n"),
        "{}",
        found.out
    );
    // Shown, then wanted by the person.
    let shown = stage.as_person("alice", &["setup", "--dry-run"]);
    assert!(shown.out.contains("confirmed  github.com\n") && !fragment().contains("github.com"), "{}", shown.out);
    assert!(stage.as_person("alice", &["setup"]).out.contains("confirmed  github.com\n"));
    assert!(listed().contains(" github.com "), "{}", listed());
    assert!(!login().err.contains("left out"));
    let undone = stage.as_person("alice", &["setup", "--undo"]);
    assert!(undone.out.contains("deleted  "), "{}", undone.out);
    assert!(!stage.path("alice/config/ssh/default.confirmed").exists());
}
