//! A rotation of the user CA key with a real sshd: what is refused, what the host proves, and logins that go through all the while.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hallpass::wire::ca as wire;

use super::host::{Host, Session, until};
use super::service::Service;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service with further keys to change to.
pub(super) fn service_with(keys: &[&str]) -> Service {
    let mut service = Service::start();
    service.kill();
    let path = service.path("service/config.toml");
    let mut config = std::fs::read_to_string(&path).unwrap();
    for key in keys {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(service.path(&format!("service/{key}")));
        assert!(keygen.status().unwrap().success());
        config = config.replace("\n[ca.host]", &format!("\n[[ca.user.next]]\nkey = {key:?}\n\n[ca.host]"));
    }
    std::fs::write(&path, config).unwrap();
    service.start_again();
    service
}

pub(super) async fn keys(service: &Service) -> wire::Keys {
    service.client().get("/v1/ca/keys").await.unwrap()
}

/// The fingerprint of the user key in this state.
async fn in_state(service: &Service, state: &str) -> String {
    let all = keys(service).await;
    let key = all.keys.iter().find(|key| key.purpose == "user" && key.state == state);
    key.unwrap_or_else(|| panic!("no key is {state}: {all:?}")).fingerprint.clone()
}

/// Waits until all hosts prove that they trust the key in this state.
pub(super) async fn proven(service: &Service, host: &Host, state: &str) {
    let began = std::time::Instant::now();
    loop {
        let all = keys(service).await;
        let key = all.keys.iter().find(|key| key.purpose == "user" && key.state == state).unwrap();
        if key.unproven.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}\n{}\n{}", key.unproven, host.daemon_log(), host.last_log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a step that must be refused says.
async fn refused(service: &Service, step: &str) -> String {
    let body = wire::Rotate { step: step.to_owned(), ..wire::Rotate::default() };
    match service.client().post::<_, wire::Keys>("/v1/ca/rotate", &body).await {
        Err(hallpass::client::ClientError::Problem(problem)) => {
            format!("{}: {} {}", problem.code, problem.title, problem.why.join("; "))
        }
        other => panic!("{step} was not refused: {other:?}"),
    }
}

/// alice asks for a while on the host; the request, and her key with its certificate beside it.
pub(super) fn access(service: &Service) -> (String, PathBuf) {
    let words = ["request", "web-1", "--as", "deploy", "--for", "10m", "--reason", "trying the host", "--json"];
    let document = service.run("alice", &words);
    let id = regex::Regex::new("[0-9A-Z]{4}-[0-9A-Z]{4}").unwrap().find(&document).unwrap().as_str().to_owned();
    let key = service.path(&format!("alice/run/hallpass/default/{}/key", id.replace('-', "")));
    assert!(key.exists(), "{document}");
    (id, key)
}

/// The fingerprint of the CA key that signed the certificate beside a key.
pub(super) fn signed_by(key: &Path) -> String {
    let shown = Command::new("ssh-keygen").arg("-L").arg("-f").arg(format!("{}-cert.pub", key.display())).output();
    let text = String::from_utf8(shown.unwrap().stdout).unwrap();
    let line = text.lines().find(|line| line.contains("Signing CA")).unwrap().to_owned();
    line.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap().to_owned()
}

/// Ends a loop when it is dropped, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) fn enrolled(service: &Service, token: &Path) -> Host {
    let host = Host::start("");
    let words = service.enrol("web-1", token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_key_is_changed_under_a_real_sshd_and_no_login_fails() {
    if !Host::can_be_had() {
        return;
    }
    let service = service_with(&["next_ca"]);
    let token = service.join_token().await;
    let host = enrolled(&service, &token);
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    let old = in_state(&service, "active").await;
    let (oldest, first) = access(&service);
    assert_eq!(signed_by(&first), old);

    // From here on one who has a certificate by the old key logs in again and again.
    let (is_over, logins) = (AtomicBool::new(false), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!(host.opens(&first), "{}", host.last_log());
                logins.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let stop = Stop(&is_over);
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                // A host that is away proves nothing: it is named, and the step refused.
                daemon.stop();
                service.run("omar", &["ca", "rotate", "user", "start"]);
                let new = in_state(&service, "staged").await;
                let why = refused(&service, "switch").await;
                assert!(why.contains("rotation_blocked") && why.contains("web-1: its sshd does not read"), "{why}");
                let daemon = host.daemon();
                proven(&service, &host, "staged").await;
                assert!(host.log().contains(&new), "a login to itself with a certificate by the new key");
                service.run("omar", &["ca", "rotate", "user", "switch", "--yes"]);
                assert_eq!(
                    (in_state(&service, "active").await, in_state(&service, "draining").await),
                    (new.clone(), old.clone())
                );
                let (second, key) = access(&service);
                assert_eq!(signed_by(&key), new);
                for _ in 0..5 {
                    assert!(host.opens(&key) && host.opens(&first), "{}", host.last_log());
                }
                let why = refused(&service, "finish").await;
                assert!(why.contains("last until"), "{why}");
                // Back, and forth again: each at once, since the host has trusted both all the while.
                service.run("omar", &["ca", "rotate", "user", "abort", "--yes"]);
                assert_eq!(in_state(&service, "active").await, old);
                service.run("omar", &["ca", "rotate", "user", "abort", "--yes"]);
                assert!(host.opens(&key) && host.opens(&first));
                proven(&service, &host, "draining").await;
                drop(stop);
                looping.join().unwrap();
                // The last certificate by the old key is given back: now it can go.
                service.run("alice", &["end", &oldest]);
                service.run("omar", &["ca", "rotate", "user", "finish", "--yes"]);
                assert_eq!(in_state(&service, "retired").await, old);
                let file = || host.command("cat", &["/etc/ssh/hallpass/user_ca_keys"]).output().unwrap().stdout;
                until("the host forgets the old key", PATIENCE, || !String::from_utf8(file()).unwrap().contains(&old));
                assert!(host.opens(&key) && !host.opens(&first));
                service.run("alice", &["end", &second]);
                daemon.stop();
            });
        });
    });
    assert!(logins.load(Ordering::Relaxed) >= 5, "{logins:?}");
    let found = service.run("omar", &["audit", "search", "kind:ca_keys_changed"]);
    assert_eq!(found.lines().filter(|line| line.contains("rotated the user CA key")).count(), 5, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stolen_key_opened_ends_at_once_and_the_key_in_reserve_opens_the_host() {
    if !Host::can_be_had() {
        return;
    }
    let service = service_with(&["reserve_ca"]);
    let token = service.join_token().await;
    let host = enrolled(&service, &token);
    let daemon = host.daemon();
    let stolen = in_state(&service, "active").await;
    service.run("omar", &["ca", "rotate", "user", "start"]);
    proven(&service, &host, "staged").await;
    let (_, key) = access(&service);
    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    // What the thief makes of it is in no log, and opens the host as well as anything.
    let forged = forge(&service, &host, "user_ca");
    let mut thief = Session::start(host.ssh(&forged, "echo ready; sleep 1000"));

    let began = std::time::Instant::now();
    service.run("omar", &["ca", "compromise", &stolen, "--reason", "a laptop was stolen", "--yes"]);
    until("the stolen key opens nothing", PATIENCE, || !host.opens(&forged) && !host.opens(&key));
    until("the sessions end", PATIENCE, || host.ok(&["host", "sessions", "--json"]).contains("\"sessions\":[]"));
    println!("closed after {:?}", began.elapsed());
    assert_eq!((session.0.wait().unwrap().code(), thief.0.wait().unwrap().code()), (Some(255), Some(255)));
    assert_eq!(in_state(&service, "compromised").await, stolen);
    let (_, key) = access(&service);
    assert_eq!(signed_by(&key), in_state(&service, "active").await);
    assert!(host.opens(&key), "{}", host.last_log());
    let ended = service.run("omar", &["audit", "search", "kind:ended", "compromised"]);
    assert!(ended.contains("was compromised"), "{ended}");
    daemon.stop();
}

/// The command that finishes the rotation of the host CA key: whether it did, and what it said.
async fn finished(service: &Service) -> Result<(), String> {
    let body = wire::Rotate { purpose: "host".to_owned(), step: "finish".to_owned(), ..wire::Rotate::default() };
    match service.client().post::<_, wire::Keys>("/v1/ca/rotate", &body).await {
        Ok(_) => Ok(()),
        Err(hallpass::client::ClientError::Problem(problem)) => Err(problem.why.join("; ")),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sshd_that_cannot_be_told_keeps_the_host_ca_key_that_it_may_show_and_nothing_else_waiting() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = service_with(&[]);
    service.kill();
    let (path, key) = (service.path("service/config.toml"), service.path("service/next_host"));
    let mut keygen = Command::new("ssh-keygen");
    assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(key).status().unwrap().success());
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}\n[[ca.host.next]]\nkey = \"next_host\"\n")).unwrap();
    service.start_again();
    let token = service.join_token().await;
    // As it is told to be told, the daemon, too, tells it: by a command that hangs.
    let host = Host::start("");
    let words = service.enrol("web-1", &token);
    let reload = "kill -HUP $(cat /run/sshd.pid); test ! -e /run/hang || sleep 1000";
    let words = words.iter().map(String::as_str).chain(["--reload-command", reload]);
    host.ok(&words.collect::<Vec<_>>());
    host.ok_of("/bin/touch", &["/run/hang"]);
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    service.run("omar", &["ca", "rotate", "host", "start"]);
    service.run("omar", &["ca", "rotate", "host", "switch", "--now", "--yes"]);
    let untold = "new host certificates are there, but sshd was not told";
    let status = |words: &[&str]| host.ok(&[&["host", "status"], words].concat());
    // While it hangs, for ten seconds each time, an early end is as early as ever.
    let note = host.path("etc/ssh/hallpass/untold");
    until("certificates are written", PATIENCE, || note.exists());
    let (request, key) = access(&service);
    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    service.run("alice", &["end", &request]);
    until("the early end reaches the open session", Duration::from_secs(5), || {
        !host.ok(&["host", "sessions", "--json"]).contains(&request)
    });
    assert_eq!(session.0.wait().unwrap().code(), Some(255));
    until("that is shown", PATIENCE, || status(&[]).contains(&format!("\nnot in place yet: {untold}")));
    assert!(status(&["--json"]).contains(&format!("\"left\":[\"{untold}")));
    let checked = host.command("/usr/local/bin/hallpass-host", &["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.code() == Some(7) && said.contains(untold) && said.contains("sshd -t"), "{said}");
    // What sshd may show, the service hears, and waits for.
    let answered = || {
        regex::Regex::new("\"checked_in\":\"[^\"]*\"").unwrap().find(&status(&["--json"])).unwrap().as_str().to_owned()
    };
    let before = answered();
    until("it has checked in once more", PATIENCE, || answered() != before);
    let why = finished(&service).await.unwrap_err();
    assert!(why.contains("web-1: until"), "{why}");
    let other = host.command("/usr/local/bin/hallpass-host", &["run"]).output().unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("looks after this host already"), "{other:?}");
    // The next daemon tells it, also while the service is away.
    daemon.stop();
    service.kill();
    host.ok_of("/bin/rm", &["/run/hang"]);
    let daemon = host.daemon();
    until("sshd is told", PATIENCE, || host.daemon_log().contains("new host certificates are in place"));
    until("that is noted", PATIENCE, || !note.exists());
    service.start_again();
    let began = std::time::Instant::now();
    while let Err(why) = finished(&service).await {
        assert!(began.elapsed() < PATIENCE, "{why}\n{}", host.daemon_log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(host.daemon_log().matches("host certificates").count(), 1, "{}", host.daemon_log());
    daemon.stop();
}

/// A key with a certificate that whoever has the CA key file makes for themselves, as the service would make it.
pub(super) fn forge(service: &Service, host: &Host, ca: &str) -> PathBuf {
    let key = host.path(&format!("forged-by-{ca}"));
    let mut keygen = Command::new("ssh-keygen");
    assert!(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&key).status().unwrap().success());
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-s"])
        .arg(service.path(&format!("service/{ca}")))
        .args(["-I", "hallpass/7K3F9QX2/mallory@example.com"]);
    sign.args(["-z", "77777", "-n", "deploy@web-1", "-V", "-1m:+30m", "-O", "clear", "-O", "permit-pty"]);
    assert!(sign.arg(key.with_extension("pub")).status().unwrap().success());
    key
}
