//! What real OpenSSH makes of the certificates that the service issues: `ssh-keygen -L` reads them, sshd accepts them inside
//! their window and on their terms, and refuses everything else.
//!
//! sshd runs under a frozen clock where the second matters, and with real accounts (see `site`).

mod cas;
pub(crate) mod desk;
mod hosts;
pub(crate) mod site;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use hallpass::ssh::cert::Certificate;
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Lifetime, Timestamp};

use desk::Issued;
use site::{Login, Site};

/// When every test's request is approved.
const APPROVED: &str = "2026-01-05T10:00:00Z";

/// A frozen clock for sshd, in faketime's form.
fn clock(at: Timestamp) -> String {
    at.to_string().replace('T', " ").replace('Z', "")
}

fn seconds(n: u32) -> Lifetime {
    Lifetime::from_seconds(n).unwrap()
}

/// The rule that most tests use, with more lines added.
fn rule(more: &str) -> String {
    let account = Site::account();
    format!(
        "[[rule]]\nname = \"r\"\nwho = [\"group:backend\"]\nhosts = [\"*\"]\naccounts = [\"{account}\"]\n\
         window = {{ default = \"30m\", max = \"2h\" }}\n{more}\n"
    )
}

async fn issue(more: &str) -> Issued {
    desk::issue(&rule(more), &["web-1"], &Site::account(), Timestamp::parse(APPROVED).unwrap()).await
}

fn login<'a>(issued: &'a Issued, account: &'a str, command: &'a [&'a str]) -> Login<'a> {
    Login { key: &issued.key, certificate: Some(&issued.certificate), account, options: &[], command }
}

/// What `ssh-keygen -L` says, by heading; lists are joined by commas.
fn listed(certificate: &Certificate) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key-cert.pub");
    std::fs::write(&path, certificate.to_openssh()).unwrap();
    let output =
        std::process::Command::new("ssh-keygen").arg("-L").arg("-f").arg(&path).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut heading = String::new();
    for line in String::from_utf8(output.stdout).unwrap().lines().skip(1) {
        // A heading is indented by 8, the items of a list by 16.
        if let Some(item) = line.strip_prefix("                ") {
            let list = fields.get_mut(&heading).unwrap();
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(item.trim_end());
        } else {
            let (name, value) = line.trim().split_once(':').unwrap();
            heading = name.to_owned();
            fields.insert(heading.clone(), value.trim().trim_start_matches("(none)").to_owned());
        }
    }
    fields
}

#[tokio::test]
async fn ssh_keygen_reads_the_very_fields_that_the_approval_named() {
    let account = Site::account();
    let more = "sources = [\"10.0.0.0/8\", \"192.0.2.7/32\"]\npermit = { pty = true, port_forwarding = true }\n\
                command = \"journalctl -n 1000 -u api\"\napproval = [{ need = 1, from = [\"group:sre\"] }]";
    let issued = issue(more).await;
    let fields = listed(&issued.certificate);
    let field = |name: &str| fields.get(name).unwrap_or_else(|| panic!("no {name} in {fields:?}")).as_str();
    let view = &issued.view;
    let window = view.request.grant().unwrap().window;
    assert_eq!(field("Type"), "ssh-ed25519-cert-v01@openssh.com user certificate");
    assert_eq!(field("Public key"), format!("ED25519-CERT {}", issued.key.public_key().fingerprint()));
    assert!(field("Signing CA").starts_with(&format!("ED25519 {} ", issued.certificate.ca_fingerprint())));
    assert_eq!(field("Key ID"), format!("\"hallpass/{}/alice@example.com\"", view.request.id().digits()));
    assert_eq!(field("Serial"), view.request.grant().unwrap().certificate.as_ref().unwrap().serial.to_string());
    let shown = |t: Timestamp| t.to_string().trim_end_matches('Z').to_owned();
    assert_eq!(field("Valid"), format!("from {} to {}", shown(window.start()), shown(window.end())));
    assert_eq!(field("Principals"), format!("{account}@web-1"));
    assert_eq!(
        field("Critical Options"),
        "force-command journalctl -n 1000 -u api,source-address 10.0.0.0/8,192.0.2.7/32"
    );
    assert_eq!(field("Extensions"), "permit-port-forwarding,permit-pty");
    // The window is what was approved: 30 s before approval for slow clocks, 30 min after it.
    let approved = Timestamp::parse(APPROVED).unwrap();
    assert_eq!(window.start(), approved.minus(seconds(30)).unwrap());
    assert_eq!(window.end(), approved.plus(seconds(1800)).unwrap());
}

#[tokio::test]
async fn sshd_accepts_the_first_and_the_last_second_of_the_window_and_neither_neighbour() {
    let account = Site::account();
    let principal = format!("{account}@web-1");
    let issued = issue("").await;
    let window = issued.view.request.grant().unwrap().window;
    let mut site = Site::new();
    for (at, accepted) in [
        (window.start().minus(seconds(1)).unwrap(), Err("Certificate invalid: not yet valid")),
        (window.start(), Ok(())),
        (window.end().minus(seconds(1)).unwrap(), Ok(())),
        (window.end(), Err("Certificate invalid: expired")),
    ] {
        let principals = [(account.as_str(), principal.as_str())];
        let host = site.host(&issued.trust, Some(&principals), Some(&clock(at)), "").await;
        let tried = site.ssh(&host, &login(&issued, &account, &["echo", "in"])).await;
        match accepted {
            Ok(()) => tried.expect_ok("in"),
            Err(why) => tried.expect_refused(why),
        }
    }
}

#[tokio::test]
async fn sshd_with_the_trust_file_alone_accepts_account_scope_inside_the_window_only() {
    let account = Site::account();
    let host = "[[host]]\nname = \"old-1\"\nscope = \"account\"\n";
    let approved = Timestamp::parse(APPROVED).unwrap();
    let issued = desk::issue(&format!("{host}{}", rule("")), &["old-1"], &account, approved).await;
    assert_eq!(listed(&issued.certificate).get("Principals").unwrap(), &account);
    let window = issued.view.request.grant().unwrap().window;
    let mut site = Site::new();
    for (at, why) in [
        (window.start().minus(seconds(1)).unwrap(), Some("Certificate invalid: not yet valid")),
        (approved, None),
        (window.end(), Some("Certificate invalid: expired")),
    ] {
        let host = site.host(&issued.trust, None, Some(&clock(at)), "").await;
        let tried = site.ssh(&host, &login(&issued, &account, &["echo", "in"])).await;
        match why {
            None => tried.expect_ok("in"),
            Some(why) => tried.expect_refused(why),
        }
        let other = if Site::has_accounts() { "debug" } else { "nobody" };
        let tried = site.ssh(&host, &login(&issued, other, &["true"])).await;
        assert_eq!(tried.code(), 255, "{}", tried.err());
    }
}

#[tokio::test]
async fn sshd_refuses_another_account_another_host_and_another_ca() {
    let account = Site::account();
    let other = if Site::has_accounts() { "debug" } else { "nobody" };
    let issued = issue("").await;
    let inside = clock(Timestamp::parse(APPROVED).unwrap());
    let mut site = Site::new();
    let (here, there) = (format!("{account}@web-1"), format!("{other}@web-1"));
    let principals = [(account.as_str(), here.as_str()), (other, there.as_str())];
    let web_1 = site.host(&issued.trust, Some(&principals), Some(&inside), "").await;
    site.ssh(&web_1, &login(&issued, &account, &["echo", "in"])).await.expect_ok("in");
    let tried = site.ssh(&web_1, &login(&issued, other, &["true"])).await;
    tried.expect_refused("Certificate does not contain an authorized principal");
    let elsewhere = format!("{account}@web-2");
    let web_2 = site.host(&issued.trust, Some(&[(account.as_str(), elsewhere.as_str())]), Some(&inside), "").await;
    let tried = site.ssh(&web_2, &login(&issued, &account, &["true"])).await;
    tried.expect_refused("Certificate does not contain an authorized principal");
    let stranger = SessionKey::generate([99; 32]).public_key().to_openssh();
    let foreign = site.host(&stranger, Some(&principals), Some(&inside), "").await;
    let tried = site.ssh(&foreign, &login(&issued, &account, &["true"])).await;
    assert_eq!(tried.code(), 255, "{}", tried.err());
    // The bare key, without its certificate, opens nothing.
    let bare = Login { certificate: None, ..login(&issued, &account, &["true"]) };
    assert_eq!(site.ssh(&web_1, &bare).await.code(), 255);
}

#[tokio::test]
async fn sshd_refuses_a_source_address_outside_the_policys() {
    let account = Site::account();
    let principal = format!("{account}@web-1");
    let principals = [(account.as_str(), principal.as_str())];
    let inside = clock(Timestamp::parse(APPROVED).unwrap());
    let mut site = Site::new();
    for (sources, accepted) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let issued = issue(&format!("sources = [\"{sources}\"]")).await;
        let host = site.host(&issued.trust, Some(&principals), Some(&inside), "").await;
        let tried = site.ssh(&host, &login(&issued, &account, &["echo", "in"])).await;
        if accepted {
            tried.expect_ok("in");
        } else {
            tried.expect_refused("not from a permitted source address");
        }
    }
}

#[tokio::test]
async fn a_forced_command_can_not_be_escaped() {
    let account = Site::account();
    let principal = format!("{account}@web-1");
    let principals = [(account.as_str(), principal.as_str())];
    let inside = clock(Timestamp::parse(APPROVED).unwrap());
    let issued = issue("command = \"echo forced; echo agent=${SSH_AUTH_SOCK:-none}\"").await;
    let mut site = Site::new();
    let host = site.host(&issued.trust, Some(&principals), Some(&inside), "").await;
    // Another command.
    site.ssh(&host, &login(&issued, &account, &["echo", "mine"])).await.expect_ok("forced\nagent=none");
    // Agent forwarding, with a real agent to forward.
    let agent = desk::Agent::start(&site.path("agent"));
    let forward = format!("ForwardAgent={}", agent.socket().display());
    let with_agent = Login { options: &["-A", "-o", &forward], ..login(&issued, &account, &["true"]) };
    site.ssh(&host, &with_agent).await.expect_ok("forced\nagent=none");
    // sftp: the subsystem's request runs the command instead.
    let sftp = Login { options: &["-s"], ..login(&issued, &account, &["sftp"]) };
    site.ssh(&host, &sftp).await.expect_ok("forced\nagent=none");
    // A tunnel without a command: `-W` asks sshd for a channel to somewhere.
    let there = host.address().to_string();
    let tunnel = Login { options: &["-W", &there], ..login(&issued, &account, &[]) };
    let tried = site.ssh(&host, &tunnel).await;
    assert_ne!(tried.code(), 0, "{}", tried.out());
    assert!(tried.log.iter().any(|l| l.contains("refused local port forward")), "{}", tried.log.join("\n"));
    // A remote forward.
    let remote = Login {
        options: &["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:9"],
        ..login(&issued, &account, &["true"])
    };
    let tried = site.ssh(&host, &remote).await;
    assert_eq!(tried.code(), 255, "{}", tried.err());
    assert!(tried.err().contains("remote port forwarding failed"), "{}", tried.err());
    // A terminal is permitted by default, and still runs only the command.
    let terminal = Login { options: &["-tt"], ..login(&issued, &account, &[]) };
    assert!(site.ssh(&host, &terminal).await.out().starts_with("forced"));
}

#[tokio::test]
async fn the_accounts_own_rc_file_does_not_run_before_a_forced_command() {
    if !Site::has_accounts() {
        eprintln!("needs root: the file would have to be put into your own home");
        return;
    }
    let inside = clock(Timestamp::parse(APPROVED).unwrap());
    let mut site = Site::new();
    let principals = [("deploy", "deploy@web-1")];
    for (permit, runs) in [("", false), ("permit = { user_rc = true }\n", true)] {
        let issued = issue(&format!("{permit}command = \"cat rc-ran 2>/dev/null || echo quiet\"")).await;
        let host = site.host(&issued.trust, Some(&principals), Some(&inside), "").await;
        let home = site.home("deploy");
        std::fs::create_dir_all(home.join(".ssh")).unwrap();
        std::fs::write(home.join(".ssh/rc"), "echo loud > rc-ran\n").unwrap();
        for (path, mode) in [(".ssh/rc", 0o644), (".ssh", 0o755), ("", 0o777)] {
            std::fs::set_permissions(home.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let tried = site.ssh(&host, &login(&issued, "deploy", &["true"])).await;
        // Only the policy's own word makes it run: so the test can tell.
        tried.expect_ok(if runs { "loud" } else { "quiet" });
    }
}

#[tokio::test]
async fn sftp_scp_and_a_terminal_work_with_the_default_permits_and_forwarding_does_not() {
    let account = Site::account();
    let principal = format!("{account}@web-1");
    let principals = [(account.as_str(), principal.as_str())];
    let inside = clock(Timestamp::parse(APPROVED).unwrap());
    let issued = issue("").await;
    let mut site = Site::new();
    let host = site.host(&issued.trust, Some(&principals), Some(&inside), "").await;
    let terminal = Login { options: &["-tt"], ..login(&issued, &account, &["tty && echo has a terminal"]) };
    assert!(site.ssh(&host, &terminal).await.out().contains("has a terminal"));
    let there = host.address().to_string();
    let tunnel = Login { options: &["-W", &there], ..login(&issued, &account, &[]) };
    let tried = site.ssh(&host, &tunnel).await;
    assert!(tried.log.iter().any(|l| l.contains("refused local port forward")), "{}", tried.log.join("\n"));
    let sftp = Login { options: &["-s"], ..login(&issued, &account, &["sftp"]) };
    // An sftp server that reads the end of its input ends well; a refused subsystem would not.
    assert_eq!(site.ssh(&host, &sftp).await.code(), 0);
}
