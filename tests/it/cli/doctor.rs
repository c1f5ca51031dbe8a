//! `hallpass doctor` against what really goes wrong: real ssh, real sshd, a real service, and files as people leave them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::REASON;
use super::plain_ssh::Plain;
use super::stage::{HALLPASS, Ran, Stage};
use crate::openssh::desk::Agent;
use hallpass::cli::demo::sshd;

/// The finding of this id in a report.
pub(super) fn check(ran: &Ran, id: &str) -> serde_json::Value {
    let all = ran.json();
    let found = all["checks"].as_array().unwrap().iter().find(|check| check["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {all:#}")).clone()
}

fn code(ran: &Ran, id: &str) -> String {
    check(ran, id)["code"].as_str().unwrap_or_default().to_owned()
}

/// The facts of a finding, one per line.
fn why(ran: &Ran, id: &str) -> String {
    let check = check(ran, id);
    check["why"]
        .as_array()
        .map(|all| all.iter().map(|w| w.as_str().unwrap()).collect::<Vec<_>>().join("\n"))
        .unwrap_or_default()
}

impl Plain {
    /// `hallpass doctor …` with this ssh configuration.
    fn doctor(&mut self, arguments: &[&str]) -> Ran {
        let config = self.stage.shown("ssh_config");
        self.stage.types("alice", &[&["doctor", "--ssh-config", &config], arguments].concat())
    }

    fn doctor_json(&self, arguments: &[&str]) -> Ran {
        let config = self.stage.shown("ssh_config");
        self.stage.as_person("alice", &[&["doctor", "--json", "--ssh-config", &config], arguments].concat())
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.stage.path("ssh_config")).unwrap()
    }

    /// Lets web-1 be another sshd, whose key is not known yet: also if an earlier one had its port.
    fn move_to(&mut self, host: sshd::Host) {
        let (old, new) = (self.hosts[0].address().port(), host.address().port());
        let known = std::fs::read_to_string(self.stage.path("known_hosts")).unwrap_or_default();
        let others = known.split_inclusive('\n').filter(|line| !line.starts_with(&format!("[127.0.0.1]:{new} ")));
        self.stage.write("known_hosts", &others.collect::<String>());
        self.stage.write("ssh_config", &self.config().replace(&format!("Port {old}\n"), &format!("Port {new}\n")));
        self.hosts[0] = host;
    }

    fn trust(&self) -> String {
        self.stage.as_person("alice", &["ca", "export"]).out
    }

    /// Held, connected once (so that the host's key is known), and the configuration in effect.
    async fn held() -> Option<Self> {
        let mut plain = Self::new().await?;
        plain.granted(&["web-1"]);
        let ran = plain.ssh(&["web-1", "true"]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        Some(plain)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_without_fault_is_said_to_be_and_a_real_login_is_tried() {
    let Some(mut plain) = Plain::held().await else { return };
    let before = plain.hosts[0].connections().len();
    let ran = plain.doctor(&["web-1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert_eq!(plain.hosts[0].connections().len(), before + 1, "it connects once");
    assert!(!plain.hosts[0].last_log().join("\n").contains("Starting session"), "and runs nothing there");
    assert_eq!(plain.doctor(&[]).code, 0);
    let ran = plain.doctor_json(&["deploy@web-1"]);
    assert_eq!(
        (ran.json()["schema"].as_str(), ran.json()["host"].as_str()),
        (Some("hallpass.doctor.v1"), Some("web-1"))
    );
    // A host that nothing is held for: said, with what to type; no login is tried.
    assert_eq!(plain.doctor(&["web-2"]).code, 7);
    assert_eq!(plain.doctor(&["root@web-2"]).code, 7);
    plain.stage.check("doctor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_include_below_a_host_line_is_found_and_moved_and_the_account_is_compared() {
    let Some(mut plain) = Plain::held().await else { return };
    let config = plain.config();
    let (ours, rest) = config.split_at(config.find("# mine").unwrap());
    let (ours, rest) = (ours.to_owned(), rest.to_owned());
    plain.stage.write("ssh_config", &format!("Host nothing\n    User me\n{ours}{rest}"));
    let refused = plain.ssh(&["-o", "BatchMode=yes", "web-1", "true"]);
    assert_eq!(refused.code, 255, "the Include has no effect there: {}", refused.err);
    assert_eq!(plain.doctor(&["web-1"]).code, 7);
    let before = plain.config();
    assert_eq!(plain.doctor(&["--fix", "--dry-run"]).code, 7);
    assert_eq!(plain.config(), before);
    assert_eq!(plain.doctor(&["--fix", "web-1"]).code, 0);
    assert_eq!(plain.config(), format!("{ours}Host nothing\n    User me\n{rest}"));
    assert_eq!(std::fs::read_to_string(plain.stage.path("ssh_config.before-hallpass-2")).unwrap(), before);
    assert_eq!(plain.ssh(&["web-1", "true"]).code, 0);
    // A user that the access is not for, by a line before ours.
    plain.stage.write("ssh_config", &format!("User deploi\n{ours}{rest}"));
    let ran = plain.doctor(&["web-1"]);
    assert!(ran.code == 7 && ran.out.contains("web-1 has no login `deploi` for this grant"), "{}", ran.out);
    // No Include at all.
    plain.stage.write("ssh_config", &rest);
    assert_eq!(plain.doctor(&["web-1"]).code, 7);
    // The fragment gone, or of a program that is gone.
    plain.stage.write("ssh_config", &format!("{ours}{rest}"));
    let fragment = plain.stage.path("alice/config/ssh/default.conf");
    let text = std::fs::read_to_string(&fragment).unwrap();
    std::fs::write(&fragment, text.replace(HALLPASS, "/nowhere/hallpass")).unwrap();
    assert_eq!(code(&plain.doctor_json(&[]), "fragment"), "HP-305");
    std::fs::write(&fragment, text.replace("/alice/run", "/elsewhere")).unwrap();
    assert_eq!(code(&plain.doctor_json(&[]), "fragment"), "HP-305");
    std::fs::remove_file(&fragment).unwrap();
    assert_eq!(code(&plain.doctor_json(&["web-1"]), "fragment"), "HP-305");
    plain.stage.check("doctor_config");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_others_can_read_are_found_and_only_ours_are_changed() {
    let Some(mut plain) = Plain::held().await else { return };
    let folders =
        || std::fs::read_dir(plain.stage.path("alice/run/default")).unwrap().map(|entry| entry.unwrap().path());
    let key = folders().map(|folder| folder.join("key")).find(|key| key.exists()).unwrap();
    let chmod = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    chmod(&key, 0o644);
    assert_ne!(plain.ssh(&["web-1", "true"]).code, 0, "ssh ignores it");
    let ran = plain.doctor(&["web-1"]);
    assert!(ran.code == 7 && ran.out.matches("HP-303").count() == 2, "{}", ran.out);
    assert_eq!((plain.doctor(&["--fix", "--dry-run"]).code, mode(&key)), (7, 0o644));
    // Closed to ourselves as well: the host is not the one to blame.
    chmod(&key, 0o000);
    let ran = plain.doctor(&["web-1"]);
    assert!(ran.code == 7 && ran.out.contains("we cannot read our own key"), "{}", ran.out);
    assert_eq!((plain.doctor(&["--fix"]).code, mode(&key)), (0, 0o600));
    chmod(&key, 0o644);
    let session = plain.stage.path("alice/state/default/session");
    let root = plain.stage.path("alice/run/default");
    chmod(&session, 0o640);
    chmod(&root, 0o755);
    // A link out of our folder is named, and what it leads to is left alone.
    let theirs = plain.stage.path("theirs");
    std::fs::write(&theirs, "x").unwrap();
    chmod(&theirs, 0o666);
    std::os::unix::fs::symlink(&theirs, root.join("link")).unwrap();
    let ran = plain.doctor(&["--fix"]);
    assert!(ran.code == 7 && ran.out.contains("a file in our folders is not yours"), "{}", ran.out);
    assert_eq!([mode(&key), mode(&session), mode(&root), mode(&theirs)], [0o600, 0o600, 0o700, 0o666]);
    std::fs::remove_file(root.join("link")).unwrap();
    assert_eq!(plain.doctor(&["web-1"]).code, 0);
    assert_eq!(plain.ssh(&["web-1", "true"]).code, 0);
    plain.stage.check("doctor_files");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_host_refuses_is_found_by_elimination() {
    let Some(mut plain) = Plain::held().await else { return };
    let (trust, other) = (plain.trust(), format!("{}\n", plain.stage.make_key("other-ca")));
    let deploy = [("deploy", "deploy@web-1")];
    let wrong = [("deploy", "deploy@web-9")];
    let cases = [
        ("unknown CA", other.as_str(), &deploy, None, "", "HP-401"),
        ("another principal", trust.as_str(), &wrong, None, "", "HP-401"),
        ("not yet valid there", trust.as_str(), &deploy, Some("2020-01-01 10:00:00"), "", "HP-401"),
        ("expired there", trust.as_str(), &deploy, Some("2037-01-01 10:00:00"), "", "HP-401"),
        ("revocation file missing", trust.as_str(), &deploy, None, "RevokedKeys /nowhere/revoked\n", "HP-401"),
        ("one try only", other.as_str(), &deploy, None, "MaxAuthTries 1\n", "HP-401"),
        ("no try at all", trust.as_str(), &deploy, None, "MaxAuthTries 0\n", "HP-404"),
        ("no keys at all", trust.as_str(), &deploy, None, "PubkeyAuthentication no\n", "HP-404"),
    ];
    for (name, trust, principals, clock, extra, expected) in cases {
        let host = plain.site.host(trust, Some(principals), clock, extra).await;
        plain.move_to(host);
        let refused = plain.ssh(&["web-1", "true"]);
        assert_eq!(refused.code, 255, "{name}: {}", refused.err);
        let ran = plain.doctor_json(&["web-1"]);
        assert_eq!((ran.code, code(&ran, "login").as_str()), (7, expected), "{name}: {}", ran.out);
        let facts = why(&ran, "login");
        assert_eq!(
            facts.contains("inferred: sshd there does not trust our CA"),
            expected == "HP-401",
            "{name}: {facts}"
        );
        assert_eq!(check(&ran, "effect")["state"], "ok", "{name}");
        if name == "unknown CA" || name == "no keys at all" {
            plain.doctor(&["web-1"]);
        }
    }
    // Another host key than the known one: nothing is offered.
    let address = plain.hosts[0].address();
    let key = plain.stage.make_key("other-host");
    plain.stage.write("known_hosts", &format!("[127.0.0.1]:{} {key}\n", address.port()));
    plain.doctor(&["web-1"]);
    assert_eq!(code(&plain.doctor_json(&["web-1"]), "login"), "HP-403");
    assert!(!plain.hosts[0].last_log().join("\n").contains("publickey"));
    // None known: not an error, and not trusted either.
    plain.stage.write("known_hosts", "");
    assert_eq!(check(&plain.doctor_json(&["web-1"]), "login")["state"], "warn");
    assert_eq!(std::fs::read_to_string(plain.stage.path("known_hosts")).unwrap(), "");
    // Nobody there, and no such name.
    plain.stage.write("ssh_config", &plain.config().replace(&format!("Port {}\n", address.port()), "Port 1\n"));
    plain.doctor(&["web-1"]);
    assert_eq!(code(&plain.doctor_json(&["web-1"]), "login"), "HP-406");
    plain.stage.check("doctor_host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_for_other_addresses_is_told_from_an_unknown_ca() {
    let Some(mut plain) = Plain::new().await else { return };
    let policy = std::fs::read_to_string(plain.stage.path("service/policy.toml")).unwrap();
    let policy =
        policy.replacen("accounts = [\"deploy\"]\n", "accounts = [\"deploy\"]\nsources = [\"10.9.0.0/16\"]\n", 1);
    plain.stage.write("policy.toml", &policy);
    let file = plain.stage.shown("policy.toml");
    let applied = plain.stage.as_person("omar", &["policy", "apply", &file, "--yes"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    plain.granted(&["web-1"]);
    let refused = plain.ssh(&["web-1", "true"]);
    assert_eq!(refused.code, 255, "{}", refused.err);
    let ran = plain.doctor(&["web-1"]);
    assert_eq!(ran.code, 7);
    assert_eq!(code(&plain.doctor_json(&["web-1"]), "login"), "HP-405");
    plain.stage.check("doctor_source");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_full_of_keys_without_our_lines_is_foretold() {
    let Some(plain) = Plain::held().await else { return };
    let agent = Agent::start(&plain.stage.path("agent"));
    let socket = agent.socket().display().to_string();
    for number in 0..10 {
        plain.stage.make_key(&format!("other-{number}"));
        let key = plain.stage.shown(&format!("other-{number}/login_key"));
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).status().unwrap();
        assert!(added.success());
    }
    let config = plain.config();
    plain.stage.write("ssh_config", &config[config.find("# mine").unwrap()..]);
    let path = plain.stage.shown("ssh_config");
    let mut ssh = plain.program("ssh", &["-F", &path, "deploy@web-1", "true"]);
    let really = Ran::of(ssh.env("SSH_AUTH_SOCK", &socket).output().unwrap());
    assert!(really.err.contains("Too many authentication failures"), "{}", really.err);
    let offered = plain.hosts[0].connections().len();
    let arguments = ["doctor", "--json", "--ssh-config", &path, "web-1"];
    let ran = Ran::of(plain.stage.command("alice", &arguments).env("SSH_AUTH_SOCK", &socket).output().unwrap());
    assert_eq!((ran.code, code(&ran, "offers").as_str(), code(&ran, "effect").as_str()), (7, "HP-302", "HP-305"));
    assert_eq!(check(&ran, "offers")["what"], "ssh offers 10 other keys to web-1 before our certificate");
    assert_eq!(check(&ran, "login")["state"], "ok", "our certificate alone is taken: {}", ran.out);
    assert_eq!(plain.hosts[0].connections().len(), offered + 1);
    assert_eq!(plain.hosts[0].last_log().join("\n").matches("Failed publickey").count(), 0, "no other key is offered");
    // The agent that is gone, when it is needed and when it is not.
    drop(agent);
    let key = plain.stage.shown("alice/login_key.pub");
    let profile = plain.stage.path("alice/config/profiles/default.toml");
    let mut gone = plain.stage.command("alice", &["doctor", "--json"]);
    gone.env("SSH_AUTH_SOCK", &socket);
    let ran = Ran::of(gone.output().unwrap());
    assert_eq!((check(&ran, "agent")["state"].as_str(), code(&ran, "agent").as_str()), (Some("warn"), "HP-301"));
    let text = std::fs::read_to_string(&profile).unwrap();
    std::fs::write(&profile, text.replace(&plain.stage.shown("alice/login_key"), &key)).unwrap();
    let ran = Ran::of(gone.output().unwrap());
    assert_eq!((check(&ran, "agent")["state"].as_str(), code(&ran, "agent").as_str()), (Some("bad"), "HP-301"));
    let ran = plain.doctor_json(&[]);
    assert_eq!((check(&ran, "agent")["state"].as_str(), code(&ran, "agent").as_str()), (Some("bad"), "HP-301"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_that_is_over_says_when_it_was() {
    let Some(mut plain) = Plain::new().await else { return };
    let ask = ["request", "web-1", "--reason", REASON, "--for", "2s", "--no-wait", "--json"];
    let id = plain.stage.as_person("alice", &ask).field("id");
    assert_eq!(plain.stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let state = || plain.stage.as_person("alice", &["show", &id, "--json"]).field("state");
    // Two seconds on the service's clock; each look takes a while.
    while state() != "expired" {}
    let ran = plain.doctor_json(&["web-1"]);
    assert_eq!(
        (ran.code, code(&ran, "access").as_str(), check(&ran, "login")["state"].as_str()),
        (7, "HP-206", Some("skipped"))
    );
    assert!(check(&ran, "access")["what"].as_str().unwrap().starts_with("your access to web-1 ended "), "{}", ran.out);
    assert!(why(&ran, "access").contains(&format!("{id} ran from ")) && why(&ran, "access").contains(REASON));
    let ssh = plain.ssh(&["web-1", "true"]);
    let lines: Vec<&str> = ssh.err.lines().collect();
    assert!(lines[0].starts_with("hallpass: your access to web-1 ended ") && lines[0].ends_with(" ago"), "{}", ssh.err);
    assert!(lines[1].starts_with(&format!("  why   {id} ran from ")), "{}", ssh.err);
    assert_eq!(lines[2], format!("  next  hallpass request --like {id}"));
    // Ended by somebody else: their reason.
    let id = plain.granted(&["web-1"]);
    assert_eq!(plain.ssh(&["web-1", "true"]).code, 0);
    assert_eq!(plain.stage.as_person("omar", &["end", &id, "--reason", "laptop lost"]).code, 0);
    for held in std::fs::read_dir(plain.stage.path("alice/run/default")).unwrap().map(|entry| entry.unwrap().path()) {
        if held.is_dir() {
            std::fs::remove_dir_all(held).unwrap();
        }
    }
    let ssh = plain.ssh(&["web-1", "true"]);
    assert!(
        ssh.err.starts_with("hallpass: omar@example.com ended your access to web-1\n  why   laptop lost; "),
        "{}",
        ssh.err
    );
    assert_eq!(plain.stage.as_person("alice", &["logout"]).code, 0);
    let ran = plain.doctor_json(&[]);
    assert_eq!(code(&ran, "session"), "HP-111");
    drop(plain.hosts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_host_and_a_master_connection_are_seen() {
    let Some(mut plain) = Plain::new().await else { return };
    plain.granted(&["web-1", "web-2"]);
    for host in ["web-1", "web-2"] {
        assert_eq!(plain.ssh(&[host, "true"]).code, 0);
    }
    let config = plain.config();
    let through =
        "Host web-1\n    ProxyJump web-2\n    ControlMaster auto\n    ControlPath /tmp/%C\n    ControlPersist 4h\n";
    plain.stage.write("ssh_config", &format!("{config}{through}"));
    // By the jump host the host is known under the name and port that it has from there.
    let before = plain.hosts[1].connections().len();
    let ran = plain.doctor_json(&["web-1"]);
    assert_eq!((ran.code, check(&ran, "login")["state"].as_str()), (0, Some("ok")), "{}", ran.out);
    assert_eq!(plain.hosts[1].connections().len(), before + 1, "the way leads through web-2");
    assert_eq!(check(&ran, "multiplexing")["state"], "warn", "{}", ran.out);
    assert!(why(&ran, "multiplexing").contains("ControlPersist 14400"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_host_that_may_not_pass_us_on_is_named_when_asking_and_by_doctor() {
    let Some(mut plain) = Plain::new().await else { return };
    let policy = std::fs::read_to_string(plain.stage.path("service/policy.toml")).unwrap();
    plain.stage.write("policy.toml", &policy.replace("port_forwarding = true", "port_forwarding = false"));
    let file = plain.stage.shown("policy.toml");
    assert_eq!(plain.stage.as_person("omar", &["policy", "apply", &file, "--yes"]).code, 0);
    let ask = ["request", "web-1", "--via", "web-2", "--reason", REASON, "--no-wait"];
    let asked = plain.stage.as_person("alice", &ask);
    assert!(asked.code == 8 && asked.err.contains("web-2 will not pass you on"), "{}", asked.err);
    assert_eq!(plain.stage.as_person("alice", &["cancel", "web-1"]).code, 0);
    plain.granted(&["web-1", "web-2"]);
    for host in ["web-1", "web-2"] {
        assert_eq!(plain.ssh(&[host, "true"]).code, 0);
    }
    let jumped = plain.ssh(&["-J", "web-2", "web-1", "true"]);
    assert!(jumped.err.contains("stdio forwarding failed"), "{}", jumped.err);
    plain.stage.write("ssh_config", &format!("{}Host web-1\n    ProxyJump web-2\n", plain.config()));
    let ran = plain.doctor_json(&["web-1"]);
    assert_eq!(check(&ran, "jump")["what"], "the jump host web-2 will not pass you on", "{}", ran.out);
    assert_eq!((ran.code, code(&ran, "login").as_str()), (7, "HP-406"), "{}", ran.out);
    assert!(check(&ran, "login")["what"].as_str().unwrap().contains("does not pass you on"), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_access_and_a_host_of_two_profiles_are_found() {
    let Some(mut plain) = Plain::held().await else { return };
    let folders =
        || std::fs::read_dir(plain.stage.path("alice/run/default")).unwrap().map(|entry| entry.unwrap().path());
    let request = folders().map(|folder| folder.join("request.json")).find(|file| file.exists()).unwrap();
    let text = std::fs::read_to_string(&request).unwrap();
    std::fs::write(&request, text.replace("\"state\":\"issued\"", "\"state\":\"ended\"")).unwrap();
    assert_eq!(check(&plain.doctor_json(&[]), "leftovers")["state"], "warn");
    let ran = plain.doctor_json(&["--fix", "--dry-run"]);
    assert!(ran.json()["changes"][0].as_str().unwrap().starts_with("delete ") && request.exists(), "{}", ran.out);
    let ran = plain.doctor_json(&["--fix"]);
    assert!(check(&ran, "leftovers")["state"] == "ok" && !request.exists(), "{}", ran.out);
    let fragment = std::fs::read_to_string(plain.stage.path("alice/config/ssh/default.conf")).unwrap();
    std::fs::write(plain.stage.path("alice/config/ssh/other.conf"), fragment).unwrap();
    let ran = plain.doctor(&[]);
    assert!(ran.code == 7 && ran.out.contains("profile \"other\" has "), "{}", ran.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_tells_what_is_needed_and_nothing_else() {
    let Some(mut plain) = Plain::held().await else { return };
    let mine = plain.stage.shown("my-own-key");
    plain.stage.write("ssh_config", &format!("{}Host *\n    IdentityFile {mine}\n", plain.config()));
    let file = plain.stage.shown("bundle.txt");
    let ran = plain.doctor(&["web-1", "--bundle", &file]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for part in [
        "login        web-1 lets you in as deploy",
        "\nssh -G",
        "hostname 127.0.0.1",
        "\nssh -v",
        "Server accepts key: ",
    ] {
        assert!(text.contains(part), "{part:?}:\n{text}");
    }
    let session: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(plain.stage.path("alice/state/default/session")).unwrap())
            .unwrap();
    for secret in [session["token"].as_str().unwrap(), "my-own-key", "BEGIN OPENSSH", "bob@example.com"] {
        assert!(!text.contains(secret), "{secret:?}:\n{text}");
    }
    let again = plain.stage.as_person("alice", &["doctor", "--bundle", &file]);
    assert!(again.code == 2 && again.err.contains("is there already"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn what_is_wrong_with_server_login_and_machine_is_told_apart() {
    let mut stage = Stage::new();
    stage.types("eve", &["doctor"]);
    stage.types("alice", &["doctor", "--net"]);
    let profile = stage.path("alice/config/profiles/default.toml");
    let text = std::fs::read_to_string(&profile).unwrap();
    std::fs::write(&profile, text.replace(&stage.pin(), &"0".repeat(64))).unwrap();
    let ran = stage.types("alice", &["doctor"]);
    assert!(ran.code == 7 && ran.out.contains("HP-102"), "{}", ran.out);
    std::fs::write(&profile, text).unwrap();
    assert_eq!(stage.as_person("alice", &["logout"]).code, 0);
    let ran = stage.types("alice", &["doctor"]);
    assert!(ran.code == 7 && ran.out.contains("HP-111"), "{}", ran.out);
    stage.log_in("alice");
    drop(stage.stop());
    let ran = stage.types("alice", &["doctor", "--net"]);
    assert!(ran.code == 7 && ran.out.matches("HP-101").count() == 2, "{}", ran.out);
    stage.check("doctor_server");
}

#[test]
fn a_clock_that_is_off_is_measured_and_an_old_ssh_is_named() {
    let stage = Stage::new();
    for (shift, which) in [("+370s", "ahead"), ("-370s", "behind")] {
        let mut shifted = Command::new("faketime");
        let plain = stage.command("alice", &[]);
        shifted.env_clear().envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shifted.args(["-f", shift, HALLPASS, "doctor", "--json"]).stdin(Stdio::null());
        let ran = Ran::of(shifted.output().unwrap());
        assert_eq!((ran.code, code(&ran, "clock").as_str()), (0, "HP-121"), "{}{}", ran.out, ran.err);
        assert_eq!((check(&ran, "clock")["state"].as_str(), ran.err.as_str()), (Some("warn"), ""), "said once");
        let what = check(&ran, "clock")["what"].as_str().unwrap().to_owned();
        // A second may pass between our look and the server's.
        assert!(what.starts_with("your clock is 6 min ") && what.ends_with(which), "{what}");
    }
    for (says, code_is) in [("OpenSSH_7.2p2 Ubuntu", "HP-304"), ("Sun_SSH_1.1", "HP-304"), ("OpenSSH_7.3p1", "")] {
        stage.write("old-ssh", &format!("#!/bin/sh\necho '{says}' >&2\n"));
        std::fs::set_permissions(stage.path("old-ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let ran = Ran::of(
            stage.command("alice", &["doctor", "--json"]).env("HALLPASS_SSH", stage.path("old-ssh")).output().unwrap(),
        );
        assert_eq!(code(&ran, "ssh"), code_is, "{says}: {}", ran.out);
    }
    let gone =
        Ran::of(stage.command("alice", &["doctor", "--json"]).env("HALLPASS_SSH", "/nowhere/ssh").output().unwrap());
    assert_eq!(code(&gone, "ssh"), "HP-304");
}
