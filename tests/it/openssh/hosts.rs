//! A real `sshd` with a host certificate of the service's, and a real `ssh` that goes by the service's known-hosts lines.

use hallpass::time::{Clock as _, SystemClock};
use hallpass::wire::host as wire;

use super::site::Site as Sshd;
use crate::hosts::machine::{Machine, join, site};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_knows_an_enrolled_host_by_its_names_and_by_no_other() {
    let site = site().await;
    // ssh looks at the certificate's window by the real clock.
    site.world.clock.set(SystemClock.now());
    let token = join(&site, &["app-*"], 1).await.token;
    // The seed of the first host key that the other site makes.
    let mut machine = Machine::new("app-1", &[2]);
    machine.names = vec!["app-1.example.com".into()];
    let host = machine.join(&site, &token).await;
    let keys = vec![machine.keys[0].public_key().to_openssh()];
    let made: wire::HostCertificates =
        host.post("/v1/hosts/certificates", &wire::CertificatesFor { keys }).await.unwrap();

    let mut sshd = Sshd::new();
    let path = sshd.path("host-cert.pub");
    std::fs::write(&path, format!("{}\n", made.certificates[0])).unwrap();
    let listening = sshd.host("", None, None, &format!("HostCertificate {}\n", path.display())).await;
    let known = sshd.path("known_hosts");
    let lines = site.logged_in("alice").await.text("/v1/ca/host-keys").await.unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    std::fs::write(&known, lines).unwrap();
    let port = listening.address().port().to_string();
    let tries = |name: &str| {
        let ran = std::process::Command::new("ssh")
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"])
            .args([
                "-o",
                "IdentityAgent=none",
                "-o",
                "IdentityFile=none",
                "-o",
                "GlobalKnownHostsFile=none",
                "-p",
                &port,
            ])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .arg("-o")
            .arg(format!("HostKeyAlias={name}"))
            .args(["127.0.0.1", "true"])
            .output()
            .unwrap();
        String::from_utf8(ran.stderr).unwrap()
    };
    // Known: what is then refused is the login, for which there is no key.
    for name in ["app-1", "app-1.example.com"] {
        let said = tries(name);
        assert!(said.contains("Permission denied") && !said.contains("verification failed"), "{name}: {said}");
    }
    for name in ["app-2", "web-1"] {
        let said = tries(name);
        assert!(said.contains("Host key verification failed"), "{name}: {said}");
    }
}
