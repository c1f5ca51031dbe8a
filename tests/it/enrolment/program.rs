//! Which of the two programs a host runs: what enrolling chooses, and that a host may be moved from one to the other.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use super::host::{Host, said, until};
use super::service::{HALLPASS_HOST, Service};
use super::whole::access;

const WHOLE: &str = "/usr/local/bin/hallpass";
const SMALL: &str = "/usr/local/bin/hallpass-host";

/// The lines that run us, of sshd and of PAM.
fn lines(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    for file in ["etc/ssh/sshd_config.d/00-hallpass.conf", "etc/pam.d/sshd"] {
        let text = std::fs::read_to_string(host.path(file)).unwrap();
        let ours = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.find(WHOLE).map(|at| &line[at..]));
        found.extend(ours.map(|line| line.split(" --").next().unwrap().to_owned()));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_enrolled_with_hallpass_alone_goes_on_and_moves_when_it_is_enrolled_again() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let small = host.path("bin/hallpass-host");
    std::fs::remove_file(&small).unwrap();
    let before = host.snapshot();
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    let told = host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(told.contains("have `hallpass host run` run"), "{told}");
    assert_eq!(lines(&host), [format!("{WHOLE} host principals"), format!("{WHOLE} host guard")]);
    let (_, key) = access(&service, "web-1", "10m");
    let daemon = host.daemon_of(WHOLE, &["host", "run"]);
    until("the daemon is in touch", Duration::from_secs(30), || host.ok(&["host", "status"]).contains("in touch"));
    assert!(host.opens(&key));

    // Another release beside it is not used, and that is said; neither is one that others can write to.
    let put = |text: &str, mode: u32| {
        std::fs::write(&small, text).unwrap();
        std::fs::set_permissions(&small, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("#!/bin/sh\necho hallpass-host 0.0.0\n", 0o755);
    let planned = host.ok(&["host", "enrol", "--dry-run"]);
    assert!(planned.contains("it says that it is \"hallpass-host 0.0.0\""), "{planned}");
    put("#!/bin/sh\ntouch /run/ran\n", 0o777);
    let planned = host.ok(&["host", "enrol", "--dry-run"]);
    assert!(planned.contains("must belong to root and be writable by nobody else"), "{planned}");
    assert!(!host.command("test", &["-e", "/run/ran"]).status().unwrap().success());

    // The upgrade: the right one comes beside it. Nothing changes, and all is in order as either program sees it.
    std::fs::remove_file(&small).unwrap();
    std::fs::copy(HALLPASS_HOST, &small).unwrap();
    assert!(host.opens(&key));
    assert!(host.ok_of(SMALL, &["check", "--json"]).contains("\"good\":true"));
    daemon.stop();

    // Enrolled again, it runs the smaller one, and needs the other no more.
    let told = host.ok(&["host", "enrol", "--yes"]);
    assert!(told.contains("web-1 is enrolled"), "{told}");
    assert_eq!(lines(&host), [format!("{SMALL} principals"), format!("{SMALL} guard")]);
    std::fs::remove_file(host.path("bin/hallpass")).unwrap();
    assert!(host.opens(&key));
    let daemon = host.daemon();
    until("the daemon is in touch", Duration::from_secs(30), || host.ok_of(SMALL, &["status"]).contains("in touch"));
    assert!(host.ok_of(SMALL, &["check", "--json"]).contains("\"good\":true"));
    daemon.stop();
    let unkept = host.command(SMALL, &["check"]).output().unwrap();
    assert!(said(&unkept).contains("or run `hallpass-host run`"), "in its own words: {}", said(&unkept));
    let left = host.ok_of(SMALL, &["leave", "--yes"]);
    assert!(left.contains("web-1 has left"), "{left}");
    host.same_as(&before, "as before");
}
