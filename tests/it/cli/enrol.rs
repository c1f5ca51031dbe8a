//! What whoever runs a host types and reads: on a machine with a stock sshd, at a service of its own.

use super::stage::{Ran, Stage};
use crate::enrolment::host::{Host, until};
use crate::enrolment::service::{client, join_token};

/// The files of this machine, so that the transcript does not depend on where it is made.
const SSHD: &str = "# The machine's own.\nInclude /etc/ssh/sshd_config.d/*.conf\n\nHostKey /etc/ssh/ssh_host_ed25519_key\nUsePAM yes\n\
    PasswordAuthentication no\nKbdInteractiveAuthentication no\n";
const PAM: &str = "# The machine's own.\nauth required pam_deny.so\naccount required pam_permit.so\n\
    session required pam_loginuid.so\nsession optional pam_motd.so\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_enrolled_looked_at_and_taken_out_by_hand() {
    if !Host::can_be_had() {
        return;
    }
    let mut stage = Stage::new();
    let host = Host::start("");
    let listens = |text: String| text.lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    host.edit("ssh/sshd_config", |text| format!("{}{SSHD}", listens(text)));
    host.edit("pam.d/sshd", |_| PAM.to_owned());
    join_token(&client(&stage.url(), &stage.pin(), &stage.path("omar/state/default/session")), &stage.path("join"))
        .await;
    let (url, pin, join) = (stage.url(), stage.pin(), stage.shown("join"));
    let enrol = ["host", "enrol", "--server", &url, "--pin", &pin, "--name", "web-3", "--token-file", &join];
    let mut types = |words: &[&str], code: i32| {
        let ran = Ran::of(host.hallpass(words, None));
        assert_eq!(ran.code, code, "{}{}{}", ran.out, ran.err, host.log());
        stage.note("root", words, &ran);
    };
    types(&["host", "status"], 0);
    types(&["host", "leave"], 7);
    types(&["host", "enrol"], 2);
    types(&[&["host", "enrol", "--yes"], &enrol[2..8]].concat(), 2);
    types(&[&enrol[..9], &["/etc/passwd"]].concat(), 7);
    let other = "0".repeat(64);
    types(&[&enrol[..5], &[&other], &enrol[6..], &["--yes"]].concat(), 6);
    // Nobody there, with a pin and without.
    let away = ["host", "enrol", "--server", "https://127.0.0.1:1", "--name", "web-3", "--token-file", &join, "--yes"];
    types(&away, 6);
    types(&[&away[..], &enrol[4..6], &["-q"]].concat(), 6);
    types(&[&enrol[..], &["--dry-run"]].concat(), 0);
    types(&[&enrol[..], &["--dry-run", "--json"]].concat(), 0);
    types(&[&enrol[..], &["--no-input"]].concat(), 2);
    types(&[&enrol[..], &["--yes", "--json"]].concat(), 0);
    types(&["host", "enrol", "--yes"], 0);
    types(&["host", "sessions"], 0);
    types(&["host", "sessions", "--json"], 0);
    let daemon = host.daemon();
    until("the daemon has checked in", std::time::Duration::from_secs(30), || {
        !Ran::of(host.hallpass(&["host", "status", "--json"], None)).out.contains("\"checked_in\":null")
    });
    types(&["host", "status"], 0);
    types(&["host", "status", "--json"], 0);
    types(&["host", "check"], 0);
    types(&["host", "check", "--json"], 0);
    daemon.stop();
    host.edit("pam.d/sshd", |_| PAM.to_owned());
    types(&["host", "check"], 7);
    types(&["host", "leave", "--dry-run"], 0);
    types(&["host", "leave", "--yes", "--json"], 0);
    for page in ["enrol", "leave", "run", "check", "sessions"] {
        types(&["help", "host", page], 0);
    }
    stage.check("enrol");
}
