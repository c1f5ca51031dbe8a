//! `hallpass demo`: the whole story on this machine with throw-away state, real processes and a real sshd.
//!
//! Every step is done by the same programs people use: `hallpass serve` as the service, `hallpass` as alice's and bob's
//! client, OpenSSH's own `ssh`, `sshd` and `ssh-keygen`. Nothing is left behind and nothing outside the folder is touched.

mod report;
pub mod sshd;
mod stage;
mod supervisor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::watch;

use crate::audit::checkpoint::{LogKey, usual_origin};
use crate::ssh::cert::Certificate;
use crate::time::{Clock as _, SystemClock, Timestamp};
use report::Report;
use stage::{Ran, Stage};

/// How the demo is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Keep everything running afterwards and say what to type.
    pub stay: bool,
    /// One JSON document instead of text.
    pub json: bool,
}

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const REASON: &str = "INC-4421 pool exhausted on web-1";

/// Runs the demo; true if everything held.
///
/// # Errors
/// Why it could not be shown: what is missing and what to do.
pub async fn run(args: Args) -> Result<bool, String> {
    let mut report = Report::new(args.json);
    let mut random = rand::rng();
    let mut play = Play::prepare(&mut report, &mut random).await?;
    let held = match play.story(&mut report).await {
        Ok(()) => report.held(),
        Err(why) => {
            report.step(false, "the story could not go on", why.lines().map(str::to_owned).collect());
            false
        }
    };
    report.finish();
    if args.stay && held {
        play.stay(&report).await?;
    }
    Ok(held)
}

/// The cast and the set.
struct Play {
    stage: Stage,
    host: Arc<sshd::Host>,
    account: String,
    /// Seconds that the left-over processes sleep: odd enough to recognise them.
    nap: u32,
    /// The log key's public half, as its owner knows it.
    log_key: String,
    windows: watch::Sender<BTreeMap<u64, Timestamp>>,
    ended: watch::Receiver<Vec<supervisor::Ended>>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl Drop for Play {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Play {
    /// Sets up keys, configuration, service and host.
    async fn prepare(report: &mut Report, random: &mut rand::rngs::ThreadRng) -> Result<Self, String> {
        let program = sshd::find(std::env::var_os("PATH").as_deref())
            .ok_or("no sshd on this machine; install openssh-server (deploy/demo does), then run this again")?;
        let account = own_account()?;
        if rustix::process::geteuid().is_root() {
            // sshd's own start scripts make this folder; without it sshd refuses to run as root.
            crate::durable::create_folder(Path::new("/run/sshd"), 0o755)
                .map_err(|e| format!("cannot create /run/sshd, which sshd needs: {e}"))?;
        }
        crate::host::ending::adopt_orphans().map_err(|e| format!("cannot look after orphaned processes: {e}"))?;
        let mut stage = Stage::new(random.random())?;
        let alice = stage.make_key("alice/login_key", random.random(), "alice's laptop")?;
        let bob = stage.make_key("bob/login_key", random.random(), "bob's laptop")?;
        let host_key = stage.make_key("web-1/key", random.random(), "web-1")?;
        crate::signer::file::FileSigner::create(&stage.path("user_ca"), "hallpass demo user CA", None)
            .map_err(|e| e.to_string())?;
        let seed: [u8; 32] = random.random();
        stage.write("log.key", &format!("{}\n", data_encoding::BASE64.encode(&seed)), 0o600)?;
        stage.write("config.toml", CONFIG, 0o600)?;
        stage.write("policy.toml", &policy(&account, &alice, &bob), 0o600)?;
        stage.start_service().await?;
        let (url, pin) = stage.server();
        let log_key = LogKey::new(&usual_origin(url), &seed).map_err(|e| e.to_string())?;
        let log_key = log_key.verifier().to_text();
        report.step(
            true,
            "the signing service runs, with a throw-away CA key",
            vec![format!("{url}  pin sha256 {pin}")],
        );
        for (person, name) in [("alice", ALICE), ("bob", BOB)] {
            let key = stage.path(&format!("{person}/login_key"));
            let key = key.to_string_lossy();
            let arguments = ["login", "--server", url, "--pin", pin, "--person", name, "--key", &key];
            let ran = stage.hallpass(person, &arguments).await?;
            expect_code(&ran, 0, &format!("{person}'s login"))?;
        }
        report.step(true, "alice and bob have logged in with their own SSH keys", Vec::new());
        let trust = stage.hallpass("bob", &["ca", "export"]).await?;
        expect_code(&trust, 0, "fetching the trust bundle")?;
        let private = std::fs::read_to_string(stage.path("web-1/key")).map_err(|e| e.to_string())?;
        let folder = stage.path("web-1/etc");
        let other = other_account(&account);
        let config = sshd::write(&sshd::Setup {
            folder: &folder,
            trust: &trust.out,
            // The other account is open to certificates too, only not to alice's.
            principals: Some(&[(&account, &format!("{account}@web-1")), (other, &format!("{other}@web-1"))]),
            host_key: &private,
            extra: "",
        });
        let config = config.map_err(|e| format!("cannot write the host's files: {e}"))?;
        let host = sshd::Host::listen(sshd::Sshd { program: program.clone(), config, prefix: Vec::new() }).await;
        let host = Arc::new(host.map_err(|e| format!("cannot listen for web-1: {e}"))?);
        stage.write("alice/known_hosts", &format!("web-1 {host_key}\n"), 0o600)?;
        let evidence = vec![
            format!("{} on {}", program.display(), host.address()),
            format!("TrustedUserCAKeys: {}", trust.out.lines().last().unwrap_or_default()),
            format!("AuthorizedPrincipalsFile for {account}: {account}@web-1"),
        ];
        report.step(true, "host web-1 runs: a real sshd that trusts the CA and nothing else", evidence);
        let (windows, seen) = watch::channel(BTreeMap::new());
        let (supervisor, ended) = supervisor::watch_over(Arc::clone(&host), seen);
        Ok(Self {
            stage,
            host,
            account,
            nap: random.random_range(100_000..1_000_000),
            log_key,
            windows,
            ended,
            supervisor,
        })
    }

    /// From the question to the verified log.
    async fn story(&mut self, report: &mut Report) -> Result<(), String> {
        let asked = self.ask(report).await?;
        self.refused_before(report, &asked).await?;
        let granted = self.approve(report, &asked).await?;
        self.reach(report, &granted).await?;
        self.wrong_account(report, &granted).await?;
        self.outstay(report, &granted).await?;
        self.refused_after(report, &granted).await?;
        self.audit(report, &granted).await?;
        report.gap("not shown here: warnings on the terminal before the end, and ending sessions through PAM on enrolled hosts");
        Ok(())
    }

    async fn ask(&self, report: &mut Report) -> Result<String, String> {
        let arguments =
            ["request", "web-1", "--as", &self.account, "--for", "20s", "--reason", REASON, "--no-wait", "--json"];
        let asked = self.stage.json("alice", &arguments).await?;
        let id = text(&asked, "id");
        let evidence = vec![
            format!("hallpass request web-1 --as {} --for 20s --reason {REASON:?}", self.account),
            format!("request {id} is {}, who may approve: {}", text(&asked, "state"), list(&asked, "eligible")),
        ];
        report.step(text(&asked, "state") == "pending", "alice asks for 20 s on web-1", evidence);
        Ok(id)
    }

    async fn refused_before(&self, report: &mut Report, id: &str) -> Result<(), String> {
        let early = self.stage.hallpass("alice", &["wait", id, "--timeout", "1s"]).await?;
        let evidence = vec![format!("hallpass wait {id}: exit {} ({})", early.code, complaint(&early.err))];
        report.step(early.code == 8, "before approval there is no certificate to be had", evidence);
        let key =
            stage::find_files(&self.stage.path("alice/run"), "key").pop().ok_or("alice's client has made no key")?;
        let config = self.ssh_config("before", &key, None)?;
        let ran = self.ssh(&config, &self.account, &["true"]).await?;
        let evidence = vec![format!("ssh web-1: exit {} ({})", ran.code, last_line(&ran.err))];
        report.step(ran.code == 255, "before approval sshd refuses alice's key", evidence);
        Ok(())
    }

    async fn approve(&self, report: &mut Report, id: &str) -> Result<Granted, String> {
        let inbox = self.stage.json("bob", &["inbox", "--json"]).await?;
        let waiting = inbox.get("requests").and_then(|r| r.as_array()).map_or(0, Vec::len);
        report.step(waiting == 1, "bob sees it in his inbox", vec![format!("{waiting} request waits for him")]);
        let own = self.stage.hallpass("alice", &["approve", id, "--yes"]).await?;
        let evidence = vec![format!("exit {}: {}", own.code, complaint(&own.err))];
        report.step(own.code == 3, "alice may not approve it herself", evidence);
        let approved = self.stage.json("bob", &["approve", id, "--yes", "--json"]).await?;
        let window = approved.get("window").cloned().unwrap_or_default();
        let evidence = vec![
            "signed with bob's own key: what was shown to him, and nothing else".to_owned(),
            format!("window {} to {}", text(&window, "not_before"), text(&window, "not_after")),
        ];
        report.step(text(&approved, "state") == "approved", "bob approves; the clock starts now", evidence);
        let ran = self.stage.hallpass("alice", &["wait", id]).await?;
        expect_code(&ran, 0, "alice's wait")?;
        let path = stage::find_files(&self.stage.path("alice/run"), "key-cert.pub")
            .pop()
            .ok_or("no certificate was written")?;
        let line = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
        let certificate = Certificate::parse_openssh(line.trim()).map_err(|e| e.to_string())?;
        let fields = certificate.tbs().fields();
        self.learn_windows();
        let mut list = Command::new("ssh-keygen");
        list.arg("-L").arg("-f").arg(&path).env("TZ", "UTC");
        let shown = stage::run(list).await?;
        let exact = text(&window, "not_before") == fields.window.start().to_string()
            && text(&window, "not_after") == fields.window.end().to_string();
        let evidence = shown.out.lines().skip(1).map(|l| l.trim_end().to_owned()).collect();
        report.step(
            shown.code == 0 && exact,
            "alice's client fetches the certificate; ssh-keygen -L reads it",
            evidence,
        );
        let key = path.with_file_name("key");
        let config = self.ssh_config("granted", &key, Some(&path))?;
        Ok(Granted { id: id.to_owned(), config, end: fields.window.end() })
    }

    async fn reach(&self, report: &mut Report, granted: &Granted) -> Result<(), String> {
        let ran = self.ssh(&granted.config, &self.account, &["echo \"I am $(id -un) on web-1\""]).await?;
        let mut evidence = vec![format!("ssh web-1: exit {}, it printed: {}", ran.code, first_line(&ran.out))];
        evidence.extend(self.logged("Accepted publickey"));
        report.step(
            ran.code == 0 && ran.out.contains("on web-1"),
            "alice's plain ssh runs a command on web-1",
            evidence,
        );
        Ok(())
    }

    async fn wrong_account(&self, report: &mut Report, granted: &Granted) -> Result<(), String> {
        let other = other_account(&self.account);
        let ran = self.ssh(&granted.config, other, &["true"]).await?;
        let logged = self.logged("Certificate does not contain an authorized principal");
        if logged.is_empty() && ran.code == 255 && !rustix::process::geteuid().is_root() {
            report.gap(&format!(
                "not shown without root: the same certificate refused for another account (an sshd that runs as you \
                 refuses {other} before it looks at certificates)"
            ));
            return Ok(());
        }
        let held = ran.code == 255 && !logged.is_empty();
        let mut evidence = vec![format!("ssh {other}@web-1: exit {}", ran.code)];
        evidence.extend(logged);
        report.step(held, &format!("the same certificate is refused for the account {other}"), evidence);
        Ok(())
    }

    async fn outstay(&mut self, report: &mut Report, granted: &Granted) -> Result<(), String> {
        // A detached process that ignores hang-ups, and a foreground one: neither may outlive the window.
        let nap = self.nap;
        let script = format!("nohup setsid sleep {nap} >/dev/null 2>&1 & echo open; sleep {nap}");
        let mut command = self.ssh_command(&granted.config, &self.account);
        let mut session = command
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot run ssh: {e}"))?;
        let mut lines = BufReader::new(session.stdout.take().ok_or("ssh has no output")?).lines();
        let opened = tokio::time::timeout(Duration::from_secs(15), lines.next_line()).await;
        let opened = matches!(opened, Ok(Ok(Some(line))) if line == "open");
        report.step(opened, "alice leaves a session open, with a detached process behind it", Vec::new());
        let left = granted.end.seconds_since(SystemClock.now()).saturating_add(10);
        let status = tokio::time::timeout(Duration::from_secs(left), session.wait()).await;
        let now = SystemClock.now();
        let status =
            status.map_err(|_| "the session was not ended 10 s after its window")?.map_err(|e| e.to_string())?;
        let late = now.seconds_since(granted.end);
        let early = granted.end.seconds_since(now);
        let said = tokio::time::timeout(Duration::from_secs(5), self.ended.wait_for(|all| !all.is_empty())).await;
        let outcome = said.ok().and_then(Result::ok).and_then(|all| all.last().cloned());
        let (all_gone, sentence) = match outcome {
            Some(supervisor::Ended { connection, outcome: Ok(n) }) => {
                (true, format!("connection {connection}: {n} processes ended"))
            }
            Some(supervisor::Ended { outcome: Err(why), .. }) => (false, why),
            None => (false, "the supervisor said nothing".to_owned()),
        };
        let survivors = survivors(nap);
        let evidence = vec![
            format!("window ended {}, ssh ended {now}, exit {}", granted.end, status.code().unwrap_or(-1)),
            sentence,
            format!("processes of the session that are left: {survivors}"),
        ];
        let held = early == 0 && late <= 2 && all_gone && survivors == 0 && status.code() == Some(255);
        report.step(held, "at the window's end the session and all its processes are ended", evidence);
        Ok(())
    }

    async fn refused_after(&self, report: &mut Report, granted: &Granted) -> Result<(), String> {
        let ran = self.ssh(&granted.config, &self.account, &["true"]).await?;
        let mut evidence = vec![format!("ssh web-1: exit {} ({})", ran.code, last_line(&ran.err))];
        let logged = self.logged("Certificate invalid");
        let held = ran.code == 255 && logged.iter().any(|l| l.contains("expired"));
        evidence.extend(logged);
        report.step(held, "after the window the same certificate is refused", evidence);
        Ok(())
    }

    async fn audit(&self, report: &mut Report, granted: &Granted) -> Result<(), String> {
        let path = self.stage.path("bob/log.jsonl");
        let path = path.to_string_lossy();
        let exported = self.stage.hallpass("bob", &["audit", "export", "--out", &path]).await?;
        expect_code(&exported, 0, "the log's export")?;
        let bobs = std::fs::read_to_string(self.stage.path("bob/login_key.pub")).map_err(|e| e.to_string())?;
        let signers = self.stage.write("bob/signers", &format!("bob@example.com {bobs}"), 0o600)?;
        let signers = signers.to_string_lossy();
        let verify = ["audit", "verify", &path, "--key", &self.log_key, "--signed", "--signers", &signers];
        let verified = self.stage.hallpass("bob", &verify).await?;
        let shown = self.stage.hallpass("bob", &["audit", "search", &format!("request:{}", granted.id)]).await?;
        let mut evidence: Vec<String> = shown.out.lines().map(str::to_owned).collect();
        let told = evidence.len() >= 4;
        evidence.extend(verified.out.lines().chain(verified.err.lines()).map(str::to_owned));
        report.step(
            verified.code == 0 && told,
            "the log tells who reached what, when and why, and verifies offline, bob's signature included",
            evidence,
        );
        Ok(())
    }

    /// Keeps everything running until interrupted, and ends alice's later sessions with their windows too.
    async fn stay(&self, report: &Report) -> Result<(), String> {
        let exports = |person: &str| {
            let all: Vec<String> =
                self.stage.environment(person).iter().map(|(k, v)| format!("{k}={}", v.display())).collect();
            format!("export {}", all.join(" "))
        };
        let config = self.ssh_config("stay", Path::new("none"), None)?;
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let program = program.display();
        report.say(&format!(
            "\nStill running until you press Ctrl-C. As alice, in a second terminal:\n\
             \n  {}\n  {program} ssh --as {} --for 2m --reason \"looking around\" web-1 -- -F {}\n\
             \nand as bob, in a third:\n\
             \n  {}\n  {program} inbox\n  {program} approve ID\n  {program} audit tail\n",
            exports("alice"),
            self.account,
            config.display(),
            exports("bob"),
        ));
        let mut look = tokio::time::interval(Duration::from_secs(1));
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                done = &mut interrupted => return done.map_err(|e| format!("cannot wait for Ctrl-C: {e}")),
                _ = look.tick() => self.learn_windows(),
            }
        }
    }

    /// Reads the ends of all certificates that alice's client holds.
    fn learn_windows(&self) {
        for path in stage::find_files(&self.stage.path("alice/run"), "key-cert.pub") {
            let line = std::fs::read_to_string(path).unwrap_or_default();
            let Ok(certificate) = Certificate::parse_openssh(line.trim()) else { continue };
            let fields = certificate.tbs().fields();
            let _known =
                self.windows.send_if_modified(|all| all.insert(fields.serial.number(), fields.window.end()).is_none());
        }
    }

    fn ssh_config(&self, name: &str, key: &Path, certificate: Option<&Path>) -> Result<PathBuf, String> {
        let mut config = format!(
            "Host web-1\n  HostName {}\n  Port {}\n  HostKeyAlias web-1\n  UserKnownHostsFile {}\n  \
             StrictHostKeyChecking yes\n  IdentityAgent none\n  IdentitiesOnly yes\n  BatchMode yes\n  LogLevel ERROR\n",
            self.host.address().ip(),
            self.host.address().port(),
            self.stage.path("alice/known_hosts").display(),
        );
        if key.is_absolute() {
            config.push_str(&format!("  IdentityFile {}\n", key.display()));
        }
        if let Some(path) = certificate {
            config.push_str(&format!("  CertificateFile {}\n", path.display()));
        }
        self.stage.write(&format!("alice/ssh_config_{name}"), &config, 0o600)
    }

    fn ssh_command(&self, config: &Path, account: &str) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(config).args(["-l", account, "web-1"]).env_remove("SSH_AUTH_SOCK");
        command
    }

    async fn ssh(&self, config: &Path, account: &str, words: &[&str]) -> Result<Ran, String> {
        let mut command = self.ssh_command(config, account);
        command.args(words);
        stage::run(command).await
    }

    /// What the last connection's sshd said that holds this: newer ones name the certificate before the reason.
    fn logged(&self, text: &str) -> Vec<String> {
        let log = self.host.last_log();
        log.iter().filter(|l| l.contains(text)).map(|l| format!("sshd: {l}")).collect()
    }
}

/// What alice got.
struct Granted {
    id: String,
    config: PathBuf,
    end: Timestamp,
}

const CONFIG: &str = r#"listen = "127.0.0.1:0"
public_url = "https://127.0.0.1:0"
policy = "policy.toml"

[tls]
self_signed = true
certificate = "tls.crt"
key = "tls.key"

[store]
path = "hallpass.db"

[ca.user]
key = "user_ca"

[log]
key = "log.key"
"#;

fn policy(account: &str, alice: &str, bob: &str) -> String {
    format!(
        r#"version = 1

[defaults]
backdate = "2s"

[[person]]
name = "{ALICE}"
groups = ["backend"]
keys = ["{alice}"]

[[person]]
name = "{BOB}"
groups = ["sre"]
keys = ["{bob}"]

[roles]
operator = ["person:{BOB}"]

[[host]]
name = "web-1"
tags = {{ role = "web" }}

[[rule]]
name = "web-debug"
who = ["group:backend"]
hosts = ["tag:role=web"]
accounts = ["{account}"]
window = {{ default = "20s", max = "10m" }}
reason = {{ min_length = 10 }}
approval = [{{ need = 1, from = ["group:sre"] }}]

[[test]]
name = "a colleague has to agree"
ask = {{ person = "{ALICE}", host = "web-1", account = "{account}", for = "20s", reason = "{REASON}" }}
expect = "ask"
"#
    )
}

/// The account this runs as: the one that an unprivileged sshd can log in, and the one that exists everywhere.
fn own_account() -> Result<String, String> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|e| format!("cannot read /etc/passwd: {e}"))?;
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let name = name.ok_or_else(|| format!("no account with the user id {uid} in /etc/passwd"))?;
    crate::name::Account::parse(&name).map_err(|e| e.to_string())?;
    Ok(name)
}

/// An account that exists everywhere and is not ours.
fn other_account(account: &str) -> &'static str {
    if account == "nobody" { "daemon" } else { "nobody" }
}

/// How many of the session's own processes still run, recognised by the odd length of their sleep.
fn survivors(nap: u32) -> usize {
    let Ok(all) = std::fs::read_dir("/proc") else { return usize::MAX };
    let line = format!("sleep\0{nap}\0");
    all.flatten().filter(|f| std::fs::read(f.path().join("cmdline")).is_ok_and(|l| l == line.as_bytes())).count()
}

fn expect_code(ran: &Ran, code: i32, what: &str) -> Result<(), String> {
    if ran.code == code { Ok(()) } else { Err(format!("{what} ended with {}: {}", ran.code, ran.err.trim())) }
}

fn text(value: &serde_json::Value, key: &str) -> String {
    value.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
}

fn list(value: &serde_json::Value, key: &str) -> String {
    let all = value.get(key).and_then(|v| v.as_array()).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>().join(", ")
}

/// The line in which our command line says what went wrong.
fn complaint(text: &str) -> &str {
    text.lines().find(|l| l.starts_with("hallpass: ")).unwrap_or_else(|| last_line(text))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}
