//! What `host check` and check-ins say of an enrolled host when somebody has changed it since.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use hallpass::wire::host::Seen;

use super::host::{Host, said, until};
use super::rotation::keys;
use super::service::Service;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(60);

const TRUST: &str = "ssh/hallpass/user_ca_keys";
const AGAIN: [&str; 3] = ["host", "enrol", "--yes"];
const DEPLOY: &str = "Match User deploy\n    ";

/// What `host check` says, after it has found this to be bad.
#[track_caller]
fn bad(host: &Host, check: &str, why: &str) {
    let ran = host.hallpass(&["host", "check"], None);
    let told = said(&ran);
    assert_eq!(ran.status.code(), Some(7), "{told}");
    let line = told.lines().find(|line| line.starts_with(&format!("BAD  {check} "))).unwrap_or_default();
    assert!(line.contains(why), "{check} {why}: {told}");
}

/// What the service knows of the host, once this holds of it; a daemon that has just started tells it at once.
async fn seen(service: &Service, host: &Host, what: &str, holds: impl Fn(&Seen) -> bool) {
    let daemon = host.daemon();
    let began = std::time::Instant::now();
    loop {
        let seen = service.host("web-1").await.seen.unwrap();
        if holds(&seen) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {seen:?}\n{}", host.daemon_log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.stop();
}

/// Blocks that take from some logins what was set up for all.
async fn blocks(service: &Service, host: &Host) {
    let config = std::fs::read_to_string(host.path("etc/ssh/sshd_config")).unwrap();
    for (line, shown) in [
        ("TrustedUserCAKeys /etc/ssh/other", "sets TrustedUserCAKeys"),
        ("AuthorizedPrincipalsFile /etc/ssh/other", "sets AuthorizedPrincipalsFile"),
        ("AuthorizedPrincipalsCommand /bin/echo deploy", "sets AuthorizedPrincipalsCommand"),
    ] {
        host.edit("ssh/sshd_config", |text| format!("{text}\n{DEPLOY}{line}\n"));
        bad(host, "match", shown);
        host.edit("ssh/sshd_config", |_| config.clone());
    }
    // Also for root by a file that nobody looks at, and what is but a risk.
    host.edit("ssh/more", |_| "Match User root\nTrustedUserCAKeys /etc/ssh/other\n".to_owned());
    host.edit("ssh/sshd_config", |text| format!("Include /etc/ssh/more\n{text}"));
    bad(host, "match", "for root, sshd goes by another line");
    host.edit("ssh/sshd_config", |_| format!("{config}\n{DEPLOY}PermitTunnel yes\n"));
    let told = said(&host.hallpass(&["host", "check"], None));
    assert!(told.contains("ok   match ") && told.contains("for `Match User deploy`, tunnel devices"), "{told}");
    // What says the same as ours, and what only takes access away.
    let own = std::fs::read_to_string(host.path("etc/ssh/sshd_config.d/00-hallpass.conf")).unwrap();
    let own: Vec<&str> = own.lines().filter(|line| line.starts_with("AuthorizedPrincipalsCommand ")).collect();
    let same = format!("{DEPLOY}TrustedUserCAKeys /etc/{TRUST} # ours\n{}\n", own.concat());
    host.edit("ssh/sshd_config", |_| format!("{config}\n{same}Match User root # never\nTrustedUserCAKeys none\n"));
    let told = said(&host.hallpass(&["host", "check"], None));
    assert!(told.contains("ok   match ") && told.contains("for `Match User root`, no certificate opens"), "{told}");
    // A comment in an older encoding hides nothing.
    let block = format!("\n{DEPLOY}TrustedUserCAKeys /etc/ssh/other\n");
    let bytes = [b"# f\xfcr alle\n", config.as_bytes(), block.as_bytes()].concat();
    std::fs::write(host.path("etc/ssh/sshd_config"), bytes).unwrap();
    seen(service, host, "a block", |seen| seen.risky.contains(&"match".to_owned())).await;
    host.edit("ssh/sshd_config", |_| config.clone());
}

/// A guard that a session gets past.
async fn guards(service: &Service, host: &Host) {
    let stack = std::fs::read_to_string(host.path("etc/pam.d/sshd")).unwrap();
    let guard = stack.lines().find(|line| line.ends_with(" guard")).unwrap();
    for (line, why) in [
        (guard.replace("required", "optional"), "must be `required`"),
        (format!("session optional pam_mail.so\n{guard}"), "directly below pam_loginuid.so"),
        (guard.replace("type=open_session", "type=close_session"), "as enrolment writes it"),
    ] {
        host.edit("pam.d/sshd", |_| stack.replace(guard, &line));
        bad(host, "guard", why);
    }
    host.edit("pam.d/sshd", |_| stack.clone());
    let config = std::fs::read_to_string(host.path("etc/ssh/sshd_config")).unwrap();
    host.edit("ssh/sshd_config", |_| format!("UsePAM no\n{config}"));
    bad(host, "guard", "sshd does not ask PAM");
    host.edit("ssh/sshd_config", |_| config);
    host.edit("pam.d/sshd", |_| stack.replace(guard, &guard.replace("required", "optional")));
    seen(service, host, "a guard that is not armed", |seen| !seen.guard).await;
    host.ok(&AGAIN);
    assert_eq!(std::fs::read_to_string(host.path("etc/pam.d/sshd")).unwrap(), stack, "as `next` says");
    // One that goes on over a backslash is a guard like any other, and replaced by the one line.
    host.edit("pam.d/sshd", |_| stack.replace(guard, &guard.replacen(" type=", " \\\n  type=", 1)));
    let told = said(&host.hallpass(&["host", "check"], None));
    assert!(told.contains("ok   guard "), "{told}");
    host.ok(&AGAIN);
    assert_eq!(std::fs::read_to_string(host.path("etc/pam.d/sshd")).unwrap(), stack, "once");
}

/// Files that others can change.
async fn files(service: &Service, host: &Host) {
    let trust = host.path("etc").join(TRUST);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    mode(&trust, 0o666);
    bad(host, "files", "user_ca_keys");
    seen(service, host, "a trust file that others can write", |seen| {
        seen.trust == "delivered" && seen.risky.contains(&"open-files".to_owned())
    })
    .await;
    let unproven: Vec<_> = keys(service).await.keys.into_iter().flat_map(|key| key.unproven).collect();
    assert!(unproven[0].why.starts_with("others than root can change its files"), "{unproven:?}");
    mode(&trust, 0o644);
    chown(&trust, Some(1), None).unwrap();
    bad(host, "files", "belongs to user 1");
    chown(&trust, Some(0), None).unwrap();
    // A folder keeps nobody out, so it takes no proof away; nor does what sshd reads beside it.
    let etc = host.path("etc");
    mode(&etc, 0o775);
    bad(host, "files", "mode 775");
    assert!(!said(&host.hallpass(&["host", "check"], None)).contains("refuses every certificate"));
    let planned = said(&host.hallpass(&["--json", "host", "enrol", "--dry-run"], None));
    assert!(planned.contains("open-files") && planned.contains("mode 775"), "{planned}");
    seen(service, host, "a folder that others can write", |seen| {
        seen.trust == "proven" && seen.guard && seen.risky.contains(&"open-files".to_owned())
    })
    .await;
    mode(&etc, 0o755);
    for name in ["etc/ssh/sshd_config", "etc/pam.d/sshd"] {
        mode(&host.path(name), 0o664);
        bad(host, "files", name);
        mode(&host.path(name), 0o644);
    }
    let ended = host.path("etc/ssh/hallpass/ended");
    mode(&ended, 0o666);
    bad(host, "files", "ended");
    mode(&ended, 0o644);
    mode(&host.path("etc/hallpass/host.toml"), 0o666);
    bad(host, "files", "host.toml");
    mode(&host.path("etc/hallpass/host.toml"), 0o644);
    seen(service, host, "all is well again", |seen| {
        seen.trust == "proven" && seen.guard && !seen.risky.iter().any(|word| word == "match" || word == "open-files")
    })
    .await;
}

/// An older bundle, or another CA's, which the log key has signed as well.
fn bundles(host: &Host) {
    let newest = host.command("cat", &["/var/lib/hallpass/host/bundle-version"]).output().unwrap().stdout;
    let newest = String::from_utf8(newest).unwrap();
    let version = newest.lines().next().unwrap();
    let before = host.snapshot();
    for (had, why) in [
        (newest.replacen(version, "900", 1), format!("version {version} comes after version 900")),
        (newest.replace("ca default", "ca prod"), "of CA default, and this host is of CA prod".to_owned()),
    ] {
        assert_ne!(had, newest);
        let put = format!("printf '{}' > /var/lib/hallpass/host/bundle-version", had.replace('\n', "\\n"));
        assert!(host.command("sh", &["-c", &put]).status().unwrap().success());
        let ran = host.hallpass(&AGAIN, None);
        assert_eq!(ran.status.code(), Some(7), "{}", said(&ran));
        assert!(said(&ran).contains(&why) && said(&ran).contains("host leave"), "{}", said(&ran));
        host.same_as(&before, "nothing was changed");
    }
}

/// Leaving takes the guard out, over however many lines it goes by then: what is left of it would keep everybody out.
fn leaves(host: &Host) {
    host.edit("pam.d/sshd", |text| format!("# mine\n{}", text.replacen(" type=open", " \\\n  type=open", 1)));
    let wrapped = std::fs::read_to_string(host.path("etc/pam.d/sshd")).unwrap();
    assert!(wrapped.contains("quiet \\\n  type=open_session"), "{wrapped}");
    host.ok(&["host", "leave", "--yes"]);
    let text = std::fs::read_to_string(host.path("etc/pam.d/sshd")).unwrap();
    assert!(text.starts_with("# mine\n") && !text.contains("pam_exec.so") && !text.contains(" guard"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_on_a_host_since_it_was_enrolled_is_found_and_told() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = Host::start("");
    let token = service.join_token().await;
    let words = service.enrol("web-1", &token);
    // Its image is of another host, of another CA and with a newer bundle.
    let put = "mkdir -p -m 700 /var/lib/hallpass/host && printf '900\\nca prod\\nhost image\\n' > /var/lib/hallpass/host/bundle-version";
    assert!(host.command("sh", &["-c", put]).status().unwrap().success());
    host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let daemon = host.daemon();
    until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
    host.ok(&["host", "check"]);
    daemon.stop();
    blocks(&service, &host).await;
    // It counts how often a host logs in to itself, until it is started anew.
    service.kill();
    service.start_again();
    guards(&service, &host).await;
    service.kill();
    service.start_again();
    files(&service, &host).await;
    bundles(&host);
    leaves(&host);
}
