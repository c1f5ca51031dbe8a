//! What `hallpass setup` adds to plain `ssh` when the certificate is good: the real client against a real sshd on loopback.
//!
//! *bare*: key and certificate named in ssh's configuration. *hallpass*: the same pair by way of the fragment, whose `exec` runs
//! `hallpass ssh-prepare`. *trivial*: in place of it a program in Rust that does nothing, for what any `exec` costs. `ssh -G` only reads the
//! configuration, so the difference there is all of ours. Contestants take turns, one run each; the service is stopped.
//!
//! Also what a prompt and a completion key cost: `hallpass status --short` and an answer to bash, beside *trivial*.
//!
//! Run: `cargo bench --bench plain_ssh`; a smoke run in seconds: `cargo bench --bench plain_ssh -- --short`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::allow_attributes,
    missing_docs,
    reason = "a benchmark prints, and stops at what it did not expect"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hallpass::cli::demo::sshd;
use hallpass::ssh::private::SessionKey;

const HALLPASS: &str = env!("CARGO_BIN_EXE_hallpass");

/// Runs of each contestant.
const RUNS: usize = 60;
const RUNS_SHORT: usize = 3;

/// alice's laptop, with a certificate for `bench-1`.
struct Laptop {
    folder: PathBuf,
}

impl Laptop {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        hallpass::durable::replace(&self.folder.join(name), text.as_bytes(), 0o600).unwrap();
    }

    /// With alice's folders and nothing of the caller's.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", &self.folder);
        for place in ["CONFIG", "STATE", "RUNTIME"] {
            command.env(format!("HALLPASS_{place}_DIR"), self.folder.join(place));
        }
        command.stdin(Stdio::null());
        command
    }

    fn hallpass(&self, arguments: &[&str]) -> String {
        let ran = self.command(HALLPASS).args(arguments).output().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    /// A key of its own; the public line.
    fn make_key(&self, name: &str, seed: u8) -> String {
        let key = SessionKey::generate([seed; 32]);
        self.write(name, &key.to_openssh("bench").unwrap());
        key.public_key().to_openssh()
    }

    /// Sets the service up and starts it; policy allows alice at once.
    fn service(&self, account: &str) -> Child {
        let key = self.make_key("login", 1);
        self.write(
            "answers.toml",
            &format!(
                "url = \"https://127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\nfolder = {:?}\noperator = \"alice@example.com\"\noperator_key = {key:?}\n",
                self.path("service")
            ),
        );
        self.hallpass(&["init", "--answers", &self.path("answers.toml")]);
        self.write(
            "service/policy.toml",
            &format!(
                "version = 1\n[roles]\noperator = [\"person:alice@example.com\"]\n[[person]]\nname = \"alice@example.com\"\nkeys = [{key:?}]\n\
                 [[host]]\nname = \"bench-1\"\n[[rule]]\nname = \"bench\"\nwho = [\"person:alice@example.com\"]\nhosts = [\"bench-1\"]\n\
                 accounts = [{account:?}]\nwindow = {{ default = \"1h\", max = \"1h\" }}\n"
            ),
        );
        let mut child = self
            .command(HALLPASS)
            .args(["serve", "--config", &self.path("service/config.toml"), "--ready-file", &self.path("ready")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !Path::new(&self.path("ready")).exists() {
            assert!(child.try_wait().unwrap().is_none(), "the service did not start");
            std::thread::yield_now();
        }
        child
    }
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--short");
    let scratch = tempfile::tempdir().unwrap();
    let laptop = Laptop { folder: scratch.path().to_owned() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _host = prepare(&laptop, &runtime);
    let runs = if short { RUNS_SHORT } else { RUNS };
    let contestants = ["bare", "trivial", "hallpass"];
    for (what, arguments) in [("ssh -G bench-1", &["-G", "bench-1"][..]), ("ssh bench-1 true", &["bench-1", "true"])] {
        let mut times = vec![Vec::with_capacity(runs); contestants.len()];
        // The first round is the warm-up.
        for round in 0..=runs {
            for (name, times) in contestants.iter().zip(&mut times) {
                let mut command = laptop.command("ssh");
                command.args(["-F", &laptop.path(name)]).args(arguments).stdout(Stdio::null());
                let start = Instant::now();
                let status = command.status().unwrap();
                let took = start.elapsed();
                assert!(status.success(), "{what} by {name}: {status}");
                if round > 0 {
                    times.push(took);
                }
            }
        }
        let added = print(what, &contestants, &times);
        // A login differs from the next by more than either adds.
        if let ([_, trivial, ours], "-G") = (&added[..], arguments[0]) {
            println!("  ssh-prepare beside the trivial program: {:.1}", ours / trivial);
        }
    }
    local(&laptop, runs);
}

/// What answers from local files alone, at each prompt and each key.
fn local(laptop: &Laptop, runs: usize) {
    let contestants = ["trivial", "status --short", "completion"];
    let commands = || {
        let mut short = laptop.command(HALLPASS);
        short.args(["status", "--short"]);
        let mut completion = laptop.command(HALLPASS);
        completion
            .args(["--", "hallpass", "ssh", ""])
            .env("HALLPASS_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", "2");
        [laptop.command(&laptop.path("trivial-program")), short, completion]
    };
    let mut times = vec![Vec::with_capacity(runs); contestants.len()];
    for round in 0..=runs {
        for ((mut command, times), wanted) in
            commands().into_iter().zip(&mut times).zip(["", "default bench-1 ", "bench-1"])
        {
            let start = Instant::now();
            let ran = command.output().unwrap();
            let took = start.elapsed();
            let said = String::from_utf8(ran.stdout).unwrap();
            assert!(ran.status.success() && said.starts_with(wanted), "{command:?}: {said}");
            if round > 0 {
                times.push(took);
            }
        }
    }
    print("local answers", &contestants, &times);
}

/// Prints them; returns what each adds to the first, in milliseconds.
fn print(what: &str, contestants: &[&str], times: &[Vec<Duration>]) -> Vec<f64> {
    let mut all = Vec::with_capacity(times.len());
    println!("{what:<20} {:>12} {:>12} {:>8}", "median", "added", "ratio");
    for (name, own) in contestants.iter().zip(times) {
        // Pairwise, so that a machine that slows down slows both.
        let pairs = || own.iter().zip(&times[0]).map(|(took, bare)| (took.as_secs_f64(), bare.as_secs_f64()));
        let added = median(pairs().map(|(took, bare)| 1_000.0 * (took - bare)).collect());
        let ratio = median(pairs().map(|(took, bare)| took / bare).collect());
        let took = median(pairs().map(|(took, _)| 1_000.0 * took).collect());
        println!("  {name:<18} {took:>9.2} ms {added:>9.2} ms {ratio:>8.2}");
        all.push(added);
    }
    all
}

/// A program in Rust that does nothing.
fn make_trivial(laptop: &Laptop) -> String {
    laptop.write("trivial.rs", "fn main() {}");
    let program = laptop.path("trivial-program");
    let made = Command::new("rustc").args(["-O", "-o", &program, &laptop.path("trivial.rs")]).status().unwrap();
    assert!(made.success(), "{made}");
    program
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// A host that trusts the service, a certificate for it, and three configurations of ssh. The service is stopped again.
fn prepare(laptop: &Laptop, runtime: &tokio::runtime::Runtime) -> sshd::Host {
    let account = Command::new("id").arg("-un").output().unwrap();
    let account = String::from_utf8(account.stdout).unwrap().trim().to_owned();
    let mut service = laptop.service(&account);
    let ready = std::fs::read_to_string(laptop.path("ready")).unwrap();
    let (address, pin) = ready.trim().split_once(' ').unwrap();
    let (url, key) = (format!("https://{address}"), laptop.path("login"));
    laptop.hallpass(&["login", "--server", &url, "--pin", pin, "--person", "alice@example.com", "--key", &key]);
    let trust = laptop.hallpass(&["ca", "export"]);
    let host = runtime.block_on(async {
        let folder = laptop.folder.join("host");
        let host_key = SessionKey::generate([9; 32]).to_openssh("host").unwrap();
        let principal = format!("{account}@bench-1");
        let principals = [(account.as_str(), principal.as_str())];
        let setup = sshd::Setup {
            folder: &folder,
            trust: &trust,
            principals: Some(&principals),
            host_key: &host_key,
            extra: "",
        };
        let config = sshd::write(&setup).unwrap();
        let program = sshd::find(std::env::var_os("PATH").as_deref()).unwrap();
        sshd::Host::listen(sshd::Sshd { program, config, prefix: Vec::new() }).await.unwrap()
    });
    laptop.hallpass(&["request", "bench-1", "--reason", "measuring", "--no-wait"]);
    let held: serde_json::Value = serde_json::from_str(&laptop.hallpass(&["cert", "ls", "--json"])).unwrap();
    let certificate = held["certificates"][0]["path"].as_str().unwrap().to_owned();
    let base = format!(
        "Host bench-1\n    HostName 127.0.0.1\n    Port {}\n    StrictHostKeyChecking accept-new\n    UserKnownHostsFile {}\n    LogLevel ERROR\n",
        host.address().port(),
        laptop.path("known_hosts")
    );
    let pair = format!(
        "Host bench-1\n    User {account}\n    IdentitiesOnly yes\n    CertificateFile {certificate}\n    IdentityFile {}\n",
        certificate.trim_end_matches("-cert.pub")
    );
    laptop.write("bare", &format!("{pair}{base}"));
    let trivial = make_trivial(laptop);
    laptop.write("trivial", &format!("Match originalhost bench-1 exec {trivial}\n{pair}{base}"));
    laptop.write("hallpass", &base);
    laptop.hallpass(&["setup", "--ssh-config", &laptop.path("hallpass")]);
    service.kill().unwrap();
    service.wait().unwrap();
    host
}
