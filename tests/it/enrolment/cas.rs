//! A host with a real sshd goes over from one user CA to another: no login fails, and in the end the old key opens nothing there.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use hallpass::wire::host as wire;

use super::host::{Host, until};
use super::rotation::{access, enrolled, forge, signed_by};
use super::service::Service;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service with a CA for production, whose hosts are those with a tag.
async fn service() -> Service {
    let mut service = Service::start();
    service.kill();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(service.path("service/prod_ca"));
    assert!(keygen.status().unwrap().success());
    let path = service.path("service/config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}\n[ca.named.prod]\nkey = \"prod_ca\"\n")).unwrap();
    service.start_again();
    let policy = service.path("prod.toml");
    let text = std::fs::read_to_string(service.path("service/policy.toml")).unwrap();
    std::fs::write(&policy, format!("{text}\n[[ca]]\ntag = \"env=prod\"\nname = \"prod\"\n")).unwrap();
    service.run("omar", &["policy", "apply", policy.to_str().unwrap(), "--yes"]);
    service
}

/// The fingerprint of a key file's public half.
fn fingerprint(service: &Service, name: &str) -> String {
    let shown = Command::new("ssh-keygen").arg("-lf").arg(service.path(&format!("service/{name}"))).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

async fn when(service: &Service, host: &Host, what: &str, holds: impl Fn(&wire::HostDetail) -> bool) {
    let began = Instant::now();
    while !holds(&service.host("web-1").await) {
        let known = service.host("web-1").await;
        assert!(began.elapsed() < PATIENCE, "{what}: {known:?}\n{}\n{}", host.daemon_log(), host.last_log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_goes_over_to_another_ca_and_the_old_key_opens_nothing_there_in_the_end() {
    if !Host::can_be_had() {
        return;
    }
    let service = service().await;
    let (usual, prod) = (fingerprint(&service, "user_ca"), fingerprint(&service, "prod_ca"));
    let token = service.join_token().await;
    let host = enrolled(&service, &token);
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    let (first, key): (String, PathBuf) = access(&service);
    assert_eq!(signed_by(&key), usual);
    let stolen_usual = forge(&service, &host, "user_ca");
    let stolen_prod = forge(&service, &host, "prod_ca");
    assert!(host.opens(&key) && host.opens(&stolen_usual));
    assert!(!host.opens(&stolen_prod), "that key is for other hosts: {}", host.last_log());

    service.run("omar", &["admin", "host", "tag", "web-1", "env=prod"]);
    when(&service, &host, "it proves that it trusts the new key", |known| !known.waits).await;
    assert!(host.opens(&key), "what the old key signed lasts: {}", host.last_log());
    let (_, second) = access(&service);
    assert_eq!(signed_by(&second), prod);
    assert!(host.opens(&second), "{}", host.last_log());
    let known = service.host("web-1").await;
    assert_eq!((known.ca.as_deref(), known.keeps.as_slice()), (Some("prod"), std::slice::from_ref(&usual)));
    assert!(service.run("omar", &["admin", "host", "show", "web-1"]).contains(&format!("keeps       {usual}")));

    service.run("alice", &["end", &first]);
    when(&service, &host, "no certificate by the old key is left", |known| known.keeps.is_empty()).await;
    let file = || host.command("cat", &["/etc/ssh/hallpass/user_ca_keys"]).output().unwrap().stdout;
    until("the host forgets the old key", PATIENCE, || !String::from_utf8(file()).unwrap().contains(&usual));
    assert!(host.opens(&second) && !host.opens(&stolen_usual), "{}", host.last_log());
    assert!(host.ok(&["host", "status"]).contains("of CA prod"));
    daemon.stop();
    let told = service.run("omar", &["audit", "search", "kind:host_moved"]);
    assert!(told.contains("host web-1 is of CA prod, and still trusts"), "{told}");
}
