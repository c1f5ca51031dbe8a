//! What the daemon keeps up when time passes, and when no events come.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hallpass::ssh::cert::Certificate;
use hallpass::time::{Clock as _, SystemClock};

use super::host::{Daemon, Host, Session, until};
use super::proxy;
use super::rotation::enrolled;
use super::service::{Service, fake_time};
use super::whole::access;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(30);

/// An attempt at renewing that fails, on a machine that is too busy, is made again after a minute.
const RENEWED: Duration = Duration::from_secs(100);

/// The host certificate that lies on a host, as sshd reads it.
fn certificate(host: &Host) -> Certificate {
    let folder = std::fs::read_dir(host.path("etc/ssh/hallpass")).unwrap().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| path.to_string_lossy().ends_with("ed25519_key-cert.pub");
    let path = folder.into_iter().find(is_one).unwrap();
    Certificate::parse_openssh(std::fs::read_to_string(path).unwrap().trim()).unwrap()
}

/// The certificate for that key that sshd shows, if it answers: ssh-keyscan has it from sshd itself.
fn shown(host: &Host) -> Option<String> {
    let port = host.port.to_string();
    let mut scan = std::process::Command::new("ssh-keyscan");
    let shown = scan.args(["-c", "-t", "ed25519", "-p", &port, "127.0.0.1"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let words: Vec<&str> = shown.split_whitespace().collect();
    let kind = words.iter().position(|word| word.ends_with("-cert-v01@openssh.com"))?;
    Some(format!("{} {}", words[kind], words[kind + 1]))
}

/// The same as the file says, without the comment that its line ends with.
fn line(certificate: &Certificate) -> Option<String> {
    Some(certificate.to_openssh().splitn(3, ' ').take(2).collect::<Vec<_>>().join(" "))
}

/// A daemon at another time.
fn daemon_later(host: &Host, ahead: &str, words: &[&str]) -> Daemon {
    let log = std::fs::File::create(host.path("daemon.log")).unwrap();
    let mut command = host.command("/usr/local/bin/hallpass-host", &[&["run"], words].concat());
    fake_time(&mut command, ahead);
    let command = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(log);
    Daemon(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_certificate_is_renewed_when_half_of_its_life_is_over_and_not_before() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = Host::start("");
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let first = certificate(&host);
    let window = first.tbs().fields().window;
    let lifetime = window.seconds();
    let until_half = window.start().unix() + lifetime / 2 - SystemClock.now().unix();
    let checked_in = |host: &Host| host.ok(&["host", "status", "--json"]).contains("\"checked_in\":\"");
    // An hour before the half, and an hour after it.
    for (ahead, is_due) in [(until_half - 3_600, false), (until_half + 3_600, true)] {
        service.kill();
        let ahead = format!("+{ahead}");
        service.start_later(&ahead);
        let daemon = daemon_later(&host, &ahead, &[]);
        until("the daemon has checked in", PATIENCE, || checked_in(&host));
        if is_due {
            until("the certificate is another one", RENEWED, || certificate(&host) != first);
            until("sshd reads it", PATIENCE, || host.daemon_log().contains("new host certificates are in place"));
        }
        assert_eq!(certificate(&host) != first, is_due, "{}", host.daemon_log());
        daemon.stop();
    }
    let (first, second) = (first.tbs(), certificate(&host));
    let second = second.tbs();
    assert_eq!((second.subject(), second.purpose()), (first.subject(), first.purpose()));
    assert_eq!(second.fields().principals, first.fields().principals, "names never widen");
    assert_eq!(second.fields().window.seconds(), lifetime);
    assert!(second.fields().window.start() > first.fields().window.start());
    // What sshd shows is what lies there. (It listens anew just now.)
    until("sshd shows it", PATIENCE, || shown(&host) == line(&certificate(&host)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sshd_is_told_of_a_new_certificate_until_it_can_be_told_also_by_the_next_daemon() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = enrolled(&service, &service.join_token().await);
    let first = certificate(&host);
    let window = first.tbs().fields().window;
    let ahead = format!("+{}", window.start().unix() + window.seconds() * 3 / 4 - SystemClock.now().unix());
    service.kill();
    service.start_later(&ahead);
    let reload = ["--reload-command", "test -e /run/may-reload && kill -HUP $(cat /run/sshd.pid)"];
    let untold = "new host certificates are there, but sshd was not told";
    let daemon = daemon_later(&host, &ahead, &reload);
    until("the daemon says what is wrong", RENEWED, || host.daemon_log().contains(untold));
    // (Whether it shows the old one depends on its release.)
    assert!(certificate(&host) != first);
    daemon.stop();
    let daemon = daemon_later(&host, &ahead, &reload);
    until("the next daemon says it, too", PATIENCE, || host.daemon_log().contains(untold));
    host.ok_of("/bin/touch", &["/run/may-reload"]);
    until("sshd is told", Duration::from_secs(70), || host.daemon_log().contains("new host certificates are in place"));
    until("sshd shows it", PATIENCE, || shown(&host) == line(&certificate(&host)));
    until("nothing is left", PATIENCE, || host.ok(&["host", "status", "--json"]).contains("\"left\":[]"));
    daemon.stop();
    // Once it was told, it is not told again.
    let daemon = daemon_later(&host, &ahead, &reload);
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    assert!(!host.daemon_log().contains("host certificates"), "{}", host.daemon_log());
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_event_gets_through_the_daemon_asks_every_few_seconds() {
    if !Host::can_be_had() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let mut streams = None;
    let service = Service::start_as(&url, "127.0.0.1", |folder, address| {
        streams = Some(proxy::start(listener, folder, address));
    });
    let streams = streams.unwrap();
    let host = Host::start("");
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let _daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    // First the proxy refuses streams; then it takes them, and passes nothing on.
    for swallows in [false, true] {
        streams.swallows.store(swallows, Ordering::SeqCst);
        let before = streams.count.load(Ordering::SeqCst);
        until("a stream is tried", PATIENCE, || streams.count.load(Ordering::SeqCst) > before);
        let (request, key) = access(&service, "web-1", "10m");
        let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
        service.run("alice", &["end", &request]);
        until("the early end reaches the open session", PATIENCE, || {
            !host.ok(&["host", "sessions", "--json"]).contains(&request)
        });
        assert_eq!(session.0.wait().unwrap().code(), Some(255));
        assert!(!host.opens(&key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_file_system_kept_out_is_written_once_there_is_room_and_open_sessions_end_meanwhile() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = Host::start("");
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    // What sshd reads lies on a small file system of its own.
    let small = "cp -a /etc/ssh/hallpass /run/kept && mount -t tmpfs -o size=64k,mode=755 tmpfs /etc/ssh/hallpass && \
                 cp -a /run/kept/. /etc/ssh/hallpass/";
    host.ok_of("/bin/sh", &["-c", small]);
    let _daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    let (request, key) = access(&service, "web-1", "10m");
    // `hallpass end` forgets the key; a thief has a copy.
    let copy = host.path("copy");
    std::fs::copy(&key, &copy).unwrap();
    std::fs::copy(format!("{}-cert.pub", key.display()), host.path("copy-cert.pub")).unwrap();
    let key = copy;
    let mut session = Session::start(host.ssh(&key, "echo ready; sleep 1000"));
    host.ok_of("/bin/sh", &["-c", "! cat /dev/zero > /etc/ssh/hallpass/fill 2>/dev/null"]);
    service.run("alice", &["end", &request]);
    assert_eq!(session.0.wait().unwrap().code(), Some(255), "the early end reaches the open session");
    until("the daemon says what is wrong", PATIENCE, || host.daemon_log().contains("/etc/ssh/hallpass/ended"));
    // The list could not be written, so the certificate still opens; what it opens ends at the next look.
    let ran = host.ssh(&key, "echo ready; sleep 1000").output().unwrap();
    assert_eq!((ran.status.code(), &ran.stdout[..]), (Some(255), &b"ready\n"[..]), "{ran:?}\n{}", host.last_log());
    // Room again, while nobody can be asked.
    service.kill();
    host.ok_of("/bin/rm", &["/etc/ssh/hallpass/fill"]);
    until("the list is written", Duration::from_secs(70), || {
        host.command("cat", &["/etc/ssh/hallpass/ended"]).output().unwrap().stdout.ends_with(b"\n")
    });
    assert!(!host.opens(&key));
    until("that is said", PATIENCE, || host.daemon_log().contains("is in place now"));
    assert_eq!(host.daemon_log().matches("No space left").count(), 1, "{}", host.daemon_log());
    host.ok_of("/bin/umount", &["/etc/ssh/hallpass"]);
}
