//! Who may pass: certificates of ours as issued, others' as `host.toml` says, nothing that can't be read.

use std::os::unix::fs::PermissionsExt as _;

use hallpass::ssh::private::SessionKey;
use hallpass::time::{Clock as _, Lifetime, SystemClock, Window};

use super::site::{GuardedHost, More, soon, write};

/// A host where sshd itself lets everything in that one of two CAs has signed for `deploy@web-1` or `deploy`.
async fn open_host(settings: &str) -> GuardedHost {
    let host = GuardedHost::start(&More { is_open: true, settings, ..More::default() }).await;
    let other = SessionKey::generate([77; 32]);
    hallpass::durable::replace(&host.path("other_ca"), other.to_openssh("other").unwrap().as_bytes(), 0o600).unwrap();
    let ours = std::fs::read_to_string(host.path("trust")).unwrap();
    write(&host.path("both"), &format!("{ours}{}\n", other.public_key().to_openssh()));
    write(&host.path("principals"), "deploy@web-1\ndeploy\n");
    host
}

/// Demands that the guard refused the last login, and why.
#[track_caller]
fn refused(host: &GuardedHost, (code, _): (i32, String), why: &str) {
    // ssh says 254 when it had logged in already.
    assert!(matches!(code, 254 | 255), "{code}");
    let logs = host.logs();
    assert!(logs.contains(why), "no {why:?} in:\n{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_keys_and_certificates_of_others_pass_unguarded() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = open_host("").await;
    let (code, out) = host.ssh(&host.plain_key(), "echo in").await;
    assert_eq!((code, out.trim()), (0, "in"), "{}", host.logs());
    let theirs = host.keygen_pass("theirs", "other_ca", &["-I", "theirs", "-n", "deploy", "-V", "+1h"]);
    let (code, out) = host.ssh(&theirs, "echo in").await;
    assert_eq!((code, out.trim()), (0, "in"), "{}", host.logs());
    assert!(host.records().is_empty() && host.watchers() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_for_our_certificates_alone_closes_on_everybody_else() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = open_host("others = \"refuse\"\n").await;
    let (code, _) = host.ssh(&host.pass(soon(600)), "true").await;
    assert_eq!(code, 0, "{}", host.logs());
    refused(&host, host.ssh(&host.plain_key(), "true").await, "takes only certificates by hallpass's CA");
    let theirs = host.keygen_pass("theirs", "other_ca", &["-I", "theirs", "-n", "deploy", "-V", "+1h"]);
    refused(&host, host.ssh(&theirs, "true").await, "takes only certificates by hallpass's CA");
}

/// Why enrolment and `host check` refuse such a stack: with real PAM, it opens what the guard has refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_below_that_resets_undoes_the_no_of_a_guard_that_does_not_end_the_stack() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = open_host("others = \"refuse\"\n").await;
    let (plain, pam) = (host.plain_key(), std::fs::read_to_string(host.path("pam")).unwrap());
    let below = "session [default=reset] pam_permit.so\nsession required pam_permit.so\n";
    write(&host.path("pam"), &format!("{pam}{below}"));
    let (code, out) = host.ssh(&plain, "echo in").await;
    assert_eq!((code, out.trim()), (0, "in"), "{}", host.logs());
    refused(&host, (255, out), "takes only certificates by hallpass's CA");
    let own = "session required pam_exec.so";
    assert!(pam.contains(own));
    write(&host.path("pam"), &format!("{}{below}", pam.replace(own, "session requisite pam_exec.so")));
    refused(&host, host.ssh(&plain, "echo in").await, "takes only certificates by hallpass's CA");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_sshd_takes_and_we_would_not_issue_are_refused() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = open_host("").await;
    let for_ever =
        host.keygen_pass("forever", "ca", &["-I", "hallpass/00000001/alice", "-z", "1", "-n", "deploy@web-1"]);
    refused(&host, host.ssh(&for_ever, "true").await, "by our CA is not one that hallpass issues");
    let odd = host.keygen_pass("odd", "ca", &["-I", "somebody", "-z", "1", "-n", "deploy@web-1", "-V", "+1h"]);
    refused(&host, host.ssh(&odd, "true").await, "by our CA is not one that hallpass issues");
    let stranger = ["-I", "hallpass/00000001/alice", "-z", "1", "-n", "deploy@web-1", "-V", "+1h"];
    let stranger = host.keygen_pass("stranger", "other_ca", &stranger);
    refused(&host, host.ssh(&stranger, "true").await, "its CA key is not in the trust bundle");
    // So large that PAM can't even run the guard.
    let names = format!("deploy@web-1,{}", "a".repeat(99_000));
    let large = host.keygen_pass("large", "ca", &["-I", "large", "-n", &names, "-V", "+1h"]);
    let (code, _) = host.ssh(&large, "true").await;
    assert!(code >= 254 && host.logs().contains("PAM: pam_open_session()"), "{code} {}", host.logs());
    assert!(host.records().is_empty() && host.watchers() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_only_the_host_account_and_time_that_it_names() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let settings = "tags = { role = \"web\" }\n";
    let host = GuardedHost::start(&More { settings, ..More::default() }).await;
    let now = SystemClock.now();
    let window = |from: u32, to: u32| {
        let at = |seconds| now.plus(Lifetime::from_seconds(seconds).unwrap()).unwrap();
        Window::new(at(from).minus(Lifetime::from_seconds(30).unwrap()).unwrap(), at(to)).unwrap()
    };
    for (principals, code) in [
        (&["deploy@web-1"][..], 0),
        (&["deploy@tag:role=web"], 0),
        (&["debug@web-1", "deploy@web-2", "deploy@tag:role=web"], 0),
        (&["deploy"], 255),
        (&["deploy@web-2"], 255),
        (&["debug@web-1"], 255),
        (&["deploy@tag:role=db"], 255),
        (&["deploy@tag:env=web"], 255),
    ] {
        let ran = host.ssh(&host.pass_for(window(0, 600), principals), "true").await;
        assert_eq!(ran.0, code, "{principals:?}\n{}", host.logs());
    }
    let (code, _) = host.ssh(&host.pass_for(window(300, 600), &["deploy@web-1"]), "true").await;
    assert!(code == 255 && host.logs().contains("Certificate invalid: not yet valid"));
    // Ended before its time: by sshd's question, and by the guard's own reading.
    let pass = host.pass(soon(600));
    let serial = pass.serial.unwrap();
    write(&host.path("ended"), &format!("1\n{serial}\n"));
    refused(&host, host.ssh(&pass, "true").await, "Certificate does not contain an authorized principal");
    write(&host.path("ended"), "garbage\n");
    refused(
        &host,
        host.ssh(&host.pass(soon(600)), "true").await,
        "Certificate does not contain an authorized principal",
    );
    std::fs::remove_file(host.path("ended")).unwrap();
    let trust = std::fs::read_to_string(host.path("trust")).unwrap();
    std::fs::set_permissions(host.path("trust"), std::fs::Permissions::from_mode(0o666)).unwrap();
    refused(
        &host,
        host.ssh(&host.pass(soon(600)), "true").await,
        "Certificate does not contain an authorized principal",
    );
    write(&host.path("trust"), &trust);
    let (code, _) = host.ssh(&host.pass(soon(600)), "true").await;
    assert_eq!(code, 0, "{}", host.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guard_needs_and_cannot_have_closes_the_host_to_certificates_and_not_to_keys() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = open_host("").await;
    let (pass, plain) = (host.pass(soon(600)), host.plain_key());
    write(&host.path("ended"), &format!("{}\n", pass.serial.unwrap()));
    refused(&host, host.ssh(&pass, "true").await, "was ended before its time");
    write(&host.path("ended"), "garbage\n");
    refused(&host, host.ssh(&pass, "true").await, "ended:1: not a serial");
    assert_eq!(host.ssh(&plain, "true").await.0, 0, "somebody has to be able to mend it");
    std::fs::remove_file(host.path("ended")).unwrap();
    let trust = std::fs::read_to_string(host.path("trust")).unwrap();
    write(&host.path("trust"), &format!("{trust}\ngarbage\n"));
    refused(&host, host.ssh(&pass, "true").await, "trust:3: ");
    assert_eq!(host.ssh(&plain, "true").await.0, 0, "somebody has to be able to mend it");
    // Right in itself, but others can put a CA key of theirs into it.
    write(&host.path("trust"), &trust);
    std::fs::set_permissions(host.path("trust"), std::fs::Permissions::from_mode(0o666)).unwrap();
    refused(&host, host.ssh(&pass, "true").await, "trust\" must be a file that only root can change");
    write(&host.path("trust"), &trust);
    std::os::unix::fs::chown(host.path("trust"), Some(65_534), None).unwrap();
    refused(&host, host.ssh(&pass, "true").await, "trust\" must be a file that only root can change");
    assert_eq!(host.ssh(&plain, "true").await.0, 0, "somebody has to be able to mend it");
    std::fs::remove_file(host.path("trust")).unwrap();
    write(&host.path("trust"), &trust);
    let settings = std::fs::read_to_string(host.path("host.toml")).unwrap();
    write(&host.path("host.toml"), &settings.replace("name = ", "nme = "));
    refused(&host, host.ssh(&pass, "true").await, "did you mean \"name\"?");
    let (code, _) = host.ssh(&plain, "true").await;
    assert_eq!(code, 0, "somebody has to be able to mend it");
    write(&host.path("host.toml"), &settings);
    // No folder to write to, no watcher to start: no session.
    std::fs::write(host.path("state"), "").unwrap();
    refused(&host, host.ssh(&pass, "true").await, "the end of this session can't be made sure");
    std::fs::remove_file(host.path("state")).unwrap();
    let pam = std::fs::read_to_string(host.path("pam")).unwrap();
    hallpass::durable::replace(
        &host.path("pam"),
        pam.replace("session required pam_loginuid.so\n", "").as_bytes(),
        0o644,
    )
    .unwrap();
    if std::fs::read_to_string("/proc/self/sessionid").unwrap().trim() == u32::MAX.to_string() {
        refused(&host, host.ssh(&pass, "true").await, "there is no audit session id");
    }
    write(&host.path("pam"), &pam);
    let (code, _) = host.ssh(&pass, "true").await;
    assert_eq!(code, 0, "{}", host.logs());
}
