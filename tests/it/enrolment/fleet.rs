//! Both CA keys are changed under three real sshds and two hundred simulated hosts, one of which is away: it is named, whatever is aborted goes
//! back, a service that is killed goes on, and somebody who logs in everywhere all the while never fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hallpass::ssh::Fingerprint;
use hallpass::ssh::cert::Certificate;
use hallpass::wire::ca as wire;

use super::fleet_machines::{Deed, Simulated, all_do, all_join as all_simulated_join};
use super::host::{Host, until};
use super::service::Service;
use super::three::{INSIDE, Member, SERVICE, access, all_join, lay_network, runs_inside};

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many hosts are simulated, and which of them is away.
const SIMULATED: u8 = 200;
const AWAY: &str = "web-150";
const NOBODY: &str = "";

/// A service with a further key for each purpose, and room for a crowd behind one address.
fn service() -> Service {
    let mut service = Service::start_at(SERVICE);
    service.kill();
    let path = service.path("service/config.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for (purpose, key) in [("user", "next_user"), ("host", "next_host")] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(service.path(&format!("service/{key}")));
        assert!(keygen.status().unwrap().success());
        config.push_str(&format!("\n[[ca.{purpose}.next]]\nkey = {key:?}\n"));
    }
    config.push_str("\n[limits]\nrequests_per_second = 10000\nburst = 10000\n");
    std::fs::write(&path, config).unwrap();
    service.start_again();
    service
}

/// A `ssh` that knows the host by nothing but the file of known CA keys, and insists.
fn opens_strictly(member: &Member, key: &Path, known: &Path) -> bool {
    let began = Instant::now();
    loop {
        let mut ssh = Command::new("nsenter");
        ssh.args(["-t", &member.host.pid(), "-n", "--", "ssh", "-F", "none", "-o", "BatchMode=yes"]);
        ssh.args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=yes"]);
        ssh.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "UpdateHostKeys=no", "-o", "LogLevel=ERROR"]);
        ssh.args(["-o", &format!("UserKnownHostsFile={}", known.display())]);
        ssh.args(["-o", &format!("HostKeyAlias={}", member.name), "-o", "ConnectTimeout=10", "-l", "deploy"]);
        ssh.args(["-p", &member.host.port.to_string(), "-i"]).arg(key).args(["127.0.0.1", "true"]);
        let ran = ssh.env_remove("SSH_AUTH_SOCK").stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        // sshd does not listen for a moment while it reads its configuration again.
        if ran.status.success() || !said.contains("Connection refused") || began.elapsed() > PATIENCE {
            assert!(ran.status.success() || said.contains("Permission denied"), "{}: {said}", member.name);
            return ran.status.success();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The service, and the hosts that are simulated.
struct Fleet {
    service: Service,
    simulated: Vec<Simulated>,
}

impl Fleet {
    async fn keys(&self) -> wire::Keys {
        self.service.client().get("/v1/ca/keys").await.unwrap()
    }

    async fn state(&self, key: &str) -> String {
        let all = self.keys().await;
        all.keys.iter().find(|one| one.fingerprint == key).map_or("unknown", |one| &one.state).to_owned()
    }

    async fn in_state(&self, purpose: &str, state: &str) -> String {
        let all = self.keys().await;
        let found = all.keys.iter().find(|key| key.purpose == purpose && key.state == state);
        found.unwrap_or_else(|| panic!("no {purpose} key is {state}: {all:?}")).fingerprint.clone()
    }

    fn step(&self, purpose: &str, words: &[&str]) {
        self.service.run("omar", &[&["ca", "rotate", purpose], words, &["--yes"]].concat());
    }

    /// Why a step is refused, one line for each host that it names.
    async fn refused(&self, purpose: &str, step: &str) -> Vec<String> {
        let body = wire::Rotate { step: step.to_owned(), purpose: purpose.to_owned(), ..wire::Rotate::default() };
        match self.service.client().post::<_, wire::Keys>("/v1/ca/rotate", &body).await {
            Err(hallpass::client::ClientError::Problem(problem)) if problem.code == "rotation_blocked" => problem.why,
            other => panic!("{step} was not refused: {other:?}"),
        }
    }

    /// Everybody but who is away follows; the real ones by their daemons.
    async fn follow(&mut self, real: &[Member], without: &str, state: &str) {
        all_do(&mut self.simulated, without, Deed::Sync).await;
        let began = Instant::now();
        loop {
            let all = self.keys().await;
            let key = all.keys.iter().find(|key| key.purpose == "user" && key.state == state).unwrap();
            if key.unproven.iter().all(|one| one.host == without) {
                return;
            }
            let logs = || real.iter().map(|one| one.host.daemon_log() + &one.host.last_log()).collect::<String>();
            assert!(began.elapsed() < PATIENCE, "{:?}\n{}", key.unproven, logs());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until this host alone has a certificate by the old key; the real ones say so by their daemons.
    async fn shown_by(&self, host: &str) {
        let began = Instant::now();
        loop {
            let all = self.keys().await;
            let key = all.keys.iter().find(|key| key.purpose == "host" && key.state == "draining").unwrap();
            if key.shown.iter().all(|one| one.host == host) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", key.shown);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Killed where it stands, and started again.
    fn killed(&mut self) {
        self.service.kill();
        self.service.start_again();
    }

    /// Writes what a client finds now.
    async fn fetch_known(&self, to: &Path) {
        let text = self.service.client().text("/v1/ca/host-keys").await.unwrap();
        // As `hallpass known-hosts` does: the old file, or the new one.
        let new = to.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, to).unwrap();
    }

    /// Every host takes every certificate that is not over.
    fn all_take(&self, keys: &[&PathBuf]) {
        for key in keys {
            let line = std::fs::read_to_string(format!("{}-cert.pub", key.display())).unwrap();
            let certificate = Certificate::parse_openssh(line.trim()).unwrap();
            for one in &self.simulated {
                assert!(one.takes(&certificate), "{}: {}", one.machine.name, certificate.ca_fingerprint());
            }
        }
    }
}

/// Somebody who logs in on all real hosts every second, with whatever certificates they hold at the time.
struct Logins {
    held: std::sync::Mutex<Vec<PathBuf>>,
    known: PathBuf,
    is_over: AtomicBool,
    count: AtomicU32,
}

impl Logins {
    fn run(&self, members: &[Member]) {
        while !self.is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let held = self.held.lock().unwrap();
            for (member, key) in members.iter().flat_map(|member| held.iter().map(move |key| (member, key))) {
                assert!(opens_strictly(member, key, &self.known), "{}: {}", member.name, member.host.last_log());
                self.count.fetch_add(1, Ordering::Relaxed);
            }
            drop(held);
            std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
        }
    }
}

/// Ends the logins when it is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ca_keys_are_changed_under_a_fleet_one_host_of_which_is_away_and_no_login_fails() {
    if !Host::can_be_had() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        let test = "both_ca_keys_are_changed_under_a_fleet_one_host_of_which_is_away_and_no_login_fails";
        runs_inside(module_path!(), test);
        return;
    }
    lay_network();
    let service = service();
    let token = service.join_token().await;
    let mut simulated = all_simulated_join(&service, SIMULATED, &token).await;
    all_do(&mut simulated, NOBODY, Deed::Sync).await;
    all_do(&mut simulated, NOBODY, Deed::Renew).await;
    let real = all_join(&service, &token);
    let mut fleet = Fleet { service, simulated };
    let (request, first) = access(&fleet.service, &["web-1", "web-2", "web-3"], "30m");
    let logins = Logins {
        held: std::sync::Mutex::new(vec![first.clone()]),
        known: fleet.service.path("known"),
        is_over: AtomicBool::new(false),
        count: AtomicU32::new(0),
    };
    fleet.fetch_known(&logins.known).await;
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| logins.run(&real));
        let stop = Stop(&logins.is_over);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let second = user_key(&mut fleet, &real, (&request, &first), &logins).await;
                host_key(&mut fleet, &real, &logins).await;
                fleet.all_take(&[&second]);
            });
        });
        drop(stop);
        looping.join().unwrap();
    });
    assert!(logins.count.load(Ordering::Relaxed) >= 30, "{:?}", logins.count);
    println!("{:?} logins", logins.count);
    let export = fleet.service.path("log.jsonl").display().to_string();
    fleet.service.run("omar", &["audit", "export", "--out", &export]);
    fleet.service.run("omar", &["audit", "verify", &export]);
}

/// The user CA key, with an abort at each phase and a kill after each step; a certificate by the new key.
async fn user_key(fleet: &mut Fleet, real: &[Member], (request, first): (&str, &PathBuf), logins: &Logins) -> PathBuf {
    let old = fleet.in_state("user", "active").await;
    fleet.step("user", &["start"]);
    fleet.killed();
    let new = fleet.in_state("user", "staged").await;
    fleet.follow(real, AWAY, "staged").await;
    let why = fleet.refused("user", "switch").await;
    assert!(why.len() == 1 && why[0].starts_with(&format!("{AWAY}: its sshd does not read")), "{why:?}");
    fleet.step("user", &["abort"]);
    assert_eq!((fleet.state(&old).await.as_str(), fleet.state(&new).await.as_str()), ("active", "retired"));
    fleet.killed();

    fleet.step("user", &["start", "--key", &new]);
    fleet.follow(real, NOBODY, "staged").await;
    fleet.step("user", &["switch"]);
    fleet.killed();
    let (_, second) = access(&fleet.service, &["web-1", "web-2", "web-3"], "30m");
    logins.held.lock().unwrap().push(second.clone());
    fleet.all_take(&[first, &second]);
    fleet.step("user", &["abort"]);
    assert_eq!((fleet.state(&old).await.as_str(), fleet.state(&new).await.as_str()), ("active", "draining"));
    fleet.killed();
    fleet.step("user", &["abort"]);
    fleet.follow(real, NOBODY, "active").await;
    fleet.all_take(&[first, &second]);
    assert!(fleet.refused("user", "finish").await.is_empty(), "a certificate by the old key lasts");

    // It is given back; from then on nobody logs in with it.
    logins.held.lock().unwrap().retain(|key| key != first);
    fleet.service.run("alice", &["end", request]);
    fleet.step("user", &["finish"]);
    fleet.killed();
    assert_eq!((fleet.state(&old).await.as_str(), fleet.state(&new).await.as_str()), ("retired", "active"));
    all_do(&mut fleet.simulated, NOBODY, Deed::Sync).await;
    second
}

/// The host CA key, the same way.
async fn host_key(fleet: &mut Fleet, real: &[Member], logins: &Logins) {
    let old = fleet.in_state("host", "active").await;
    fleet.step("host", &["start"]);
    fleet.killed();
    let new = fleet.in_state("host", "staged").await;
    fleet.fetch_known(&logins.known).await;
    let lines = std::fs::read_to_string(&logins.known).unwrap();
    assert_eq!(lines.lines().count(), 2 * (usize::from(SIMULATED) + 3), "both keys, for each host");
    assert!(fleet.refused("host", "switch").await.is_empty(), "clients could not fetch it for a day");
    fleet.step("host", &["abort"]);
    assert_eq!((fleet.state(&old).await.as_str(), fleet.state(&new).await.as_str()), ("active", "retired"));
    fleet.step("host", &["start", "--key", &new]);
    fleet.step("host", &["switch", "--now"]);
    fleet.killed();
    let shown_by = |ca: &str| real.iter().filter(|member| host_ca(&member.host).to_string() == ca).count();
    until("all real hosts show a certificate by the new key", PATIENCE, || shown_by(&new) == 3);
    fleet.step("host", &["abort"]);
    until("all real hosts show one by the old key again", PATIENCE, || shown_by(&old) == 3);
    fleet.killed();
    fleet.step("host", &["abort"]);
    until("all real hosts show one by the new key", PATIENCE, || shown_by(&new) == 3);

    all_do(&mut fleet.simulated, AWAY, Deed::Renew).await;
    let why = fleet.refused("host", "finish").await;
    assert!(
        why.iter().any(|one| one.starts_with("web-101: until ")),
        "it has the new one, but says that it shows the old"
    );
    all_do(&mut fleet.simulated, AWAY, Deed::Sync).await;
    fleet.shown_by(AWAY).await;
    let why = fleet.refused("host", "finish").await;
    assert!(why.len() == 1 && why[0].starts_with(&format!("{AWAY}: until ")), "{why:?}");
    all_do(&mut fleet.simulated, NOBODY, Deed::Renew).await;
    all_do(&mut fleet.simulated, NOBODY, Deed::Sync).await;
    assert!(fleet.simulated.iter().all(|one| one.shows.is_some_and(|ca| ca.to_string() == new)));
    fleet.step("host", &["finish"]);
    fleet.killed();
    assert_eq!((fleet.state(&old).await.as_str(), fleet.state(&new).await.as_str()), ("retired", "active"));
    // Who fetches now knows the new key alone, and that is enough.
    fleet.fetch_known(&logins.known).await;
    let before = logins.count.load(Ordering::Relaxed);
    until("logins by the new file go through", PATIENCE, || logins.count.load(Ordering::Relaxed) >= before + 6);
}

/// Who signed the certificate that a host's sshd is told to show.
fn host_ca(host: &Host) -> Fingerprint {
    let shown = host.command("cat", &["/etc/ssh/hallpass/ssh_host_ed25519_key-cert.pub"]).output().unwrap();
    let line = String::from_utf8(shown.stdout).unwrap();
    Certificate::parse_openssh(line.trim()).unwrap().ca_fingerprint()
}
