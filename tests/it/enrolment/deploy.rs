//! What `deploy/` has for many hosts: the Ansible role, cloud-init's user data, and the way back. Each on a real sshd, by the real programs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use super::host::{Host, Session, said, until};
use super::service::{HALLPASS, HALLPASS_HOST, Service};
use super::whole::access;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

fn words(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

fn uninstall(host: &Host, arguments: &[&str]) -> Output {
    let script = deploy("uninstall").display().to_string();
    host.command("sh", &[&[script.as_str()], arguments].concat()).stdin(Stdio::null()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalling_leaves_and_takes_everything_with_it_that_is_ours() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let (plain, before) = (host.plain_key(), host.snapshot());
    let program = host.path("bin/hallpass");
    let token = service.join_token().await;
    host.ok(&words(&service.enrol("web-1", &token)));
    let enrolled = host.snapshot();

    let planned = uninstall(&host, &["--dry-run"]);
    let text = said(&planned);
    assert!(
        planned.status.success()
            && text.contains("would remove /usr/local/bin/hallpass-host\nwould remove /usr/local/bin/hallpass\n"),
        "{text}"
    );
    assert!(text.contains("/etc/pam.d/sshd") && text.contains("nothing was changed"), "{text}");
    host.same_as(&enrolled, "as enrolled");
    assert!(program.exists());
    assert_eq!(uninstall(&host, &["--force"]).status.code(), Some(2));

    // A session that is open ends with its window: its watcher needs its record.
    let session = Session::start(host.ssh(&access(&service, "web-1", "10m").1, "echo ready; sleep 1000"));
    let done = uninstall(&host, &[]);
    let text = said(&done);
    assert!(done.status.success() && text.contains("kept /run/hallpass: sessions"), "{text}");
    assert!(
        text.contains("removed /usr/local/bin/hallpass-host\nremoved /usr/local/bin/hallpass\n")
            && text.contains("has left"),
        "{text}"
    );
    host.same_as(&before, "as before");
    assert!(!program.exists() && host.opens(&plain));
    assert_eq!(service.host("web-1").await.state, "retired");
    let folder = |path: &str| host.command("test", &["-e", path]).status().unwrap().success();
    assert!(!folder("/var/lib/hallpass") && !folder("/etc/hallpass") && !folder("/etc/ssh/hallpass"));
    assert!(folder("/run/hallpass/sessions"));
    drop(session);
    assert!(uninstall(&host, &[]).status.success(), "a second time there is nothing to do");
}

#[test]
fn uninstalling_stops_while_sshd_or_pam_still_run_hallpass() {
    if !Host::can_be_had() {
        return;
    }
    let host = Host::start("");
    let guard = std::fs::read_to_string(deploy("pam-sshd")).unwrap();
    host.edit("pam.d/sshd", |text| format!("{text}{guard}"));
    let stopped = uninstall(&host, &[]);
    let text = said(&stopped);
    assert_eq!(stopped.status.code(), Some(7), "{text}");
    assert!(text.contains("sshd or PAM still run hallpass") && text.contains("/etc/pam.d/sshd:session"), "{text}");
    assert!(host.path("bin/hallpass").exists());
    // One that goes on over a backslash, too.
    let wrapped = guard.replace(" /usr/local/bin/", " \\\n    /usr/local/bin/");
    assert_ne!(wrapped, guard);
    host.edit("pam.d/sshd", |text| text.replace(&guard, &wrapped));
    let stopped = uninstall(&host, &[]);
    let text = said(&stopped);
    assert_eq!(stopped.status.code(), Some(7), "{text}");
    assert!(
        text.contains("sshd or PAM still run hallpass") && text.contains("/etc/pam.d/sshd:    /usr/local"),
        "{text}"
    );
    assert!(host.path("bin/hallpass").exists());
    host.edit("pam.d/sshd", |text| text.replace(&wrapped, ""));
    host.edit("ssh/sshd_config", |text| {
        format!("AuthorizedPrincipalsCommand /usr/local/bin/hallpass host principals\nAuthorizedPrincipalsCommandUser nobody\n{text}")
    });
    let stopped = uninstall(&host, &[]);
    assert!(said(&stopped).contains("authorizedprincipalscommand /usr/local/bin/hallpass"), "{}", said(&stopped));
    assert!(host.path("bin/hallpass").exists());
    // A machine that signs, too, keeps the program.
    host.edit("ssh/sshd_config", |text| text.lines().skip(2).collect::<Vec<_>>().join("\n"));
    host.edit("systemd/system/hallpass.service", |_| "[Service]\n".to_owned());
    let kept = uninstall(&host, &[]);
    assert!(kept.status.success() && said(&kept).contains("more than a host"), "{}", said(&kept));
    assert!(host.path("bin/hallpass").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_data_for_cloud_init_enrols_and_leaves_no_token() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let token = std::fs::read_to_string(service.join_token().await).unwrap();
    let hash =
        data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(std::fs::read(HALLPASS_HOST).unwrap()));
    let none = "0".repeat(64);
    let script = script(&std::fs::read_to_string(deploy("cloud-init.yaml")).unwrap())
        .replace("server=https://hallpass.example.com", &format!("server={}", service.url))
        .replace(&format!("pin={none}"), &format!("pin={}", service.pin))
        .replace("https://downloads.example.com/hallpass-host", &format!("file://{HALLPASS_HOST}"))
        .replace("--yes", "--yes --name web-1");
    let wrong = script.clone();
    let right = script.replace(&format!("sha256={none}"), &format!("sha256={hash}"));
    host.bare();
    for (script, is_right) in [(wrong, false), (right, true)] {
        // As cloud-init writes them.
        for (name, text, mode) in [("token", &token, 0o600), ("enrol", &script, 0o700)] {
            let path = host.path(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let to = format!("/run/hallpass-join/{name}");
            let put = host.command("install", &["-D", "-m", &format!("{mode:o}"), &path.display().to_string(), &to]);
            assert!({ put }.status().unwrap().success());
        }
        let ran = host.command("sh", &["/run/hallpass-join/enrol"]).stdin(Stdio::null()).output().unwrap();
        assert_eq!(ran.status.success(), is_right, "{}", said(&ran));
        assert_eq!(host.path("bin/hallpass-host").exists(), is_right, "what has another hash is not installed");
        assert!(!host.command("test", &["-e", "/run/hallpass-join"]).status().unwrap().success());
    }
    assert_eq!(service.host("web-1").await.state, "active");
}

/// The script in the user data: the block of the file called `enrol`.
fn script(user_data: &str) -> String {
    let lines = user_data.lines().skip_while(|line| !line.ends_with("hallpass-join/enrol"));
    let lines = lines.skip_while(|line| !line.ends_with("content: |")).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with("      "));
    lines.map(|line| format!("{}\n", line.strip_prefix("      ").unwrap_or(line))).collect()
}

/// A play of the role, run by Ansible on the host itself.
struct Play<'a> {
    host: &'a Host,
    ansible: PathBuf,
}

impl<'a> Play<'a> {
    /// `None` where there is no Ansible: `tests/deploy-tools` installs it.
    fn new(host: &'a Host, service: &Service, token: &str) -> Option<Self> {
        let named = std::env::var_os("PATH").unwrap();
        let beside = Path::new(HALLPASS).ancestors().nth(2).unwrap().join("deploy-tools/bin");
        let mut folders = std::env::split_paths(&named).chain([beside]);
        let Some(ansible) = folders.find(|folder| folder.join("ansible-playbook").exists()) else {
            println!("not shown here: no ansible-playbook; tests/deploy-tools installs it");
            return None;
        };
        let vars = format!(
            "hallpass_host_binary: {HALLPASS_HOST}\nhallpass_host_server: {}/\nhallpass_host_pin: \"{}\"\nhallpass_host_name: web-1\n\
             hallpass_host_principals: [web-1.example.com]\nhallpass_host_tags: {{ zone: a, env: test }}\n",
            service.url, service.pin
        );
        std::fs::write(host.path("vars.yml"), vars).unwrap();
        std::fs::write(host.path("secret.yml"), format!("hallpass_host_join_token: {token}\n")).unwrap();
        std::fs::write(host.path("vault"), "correct horse\n").unwrap();
        let play = "- hosts: localhost\n  roles: [hallpass_host]\n";
        std::fs::write(host.path("play.yml"), play).unwrap();
        let play = Self { host, ansible };
        let secret = host.path("secret.yml").display().to_string();
        let made = play.run("ansible-vault", &["encrypt", &secret]);
        assert!(made.status.success(), "{}", said(&made));
        Some(play)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = self.host.command(&self.ansible.join(program).display().to_string(), arguments);
        let home = self.host.path("ansible");
        command
            .env("ANSIBLE_HOME", &home)
            .env("ANSIBLE_ROLES_PATH", deploy("ansible/roles"))
            .env("ANSIBLE_NOCOLOR", "1");
        command.env("ANSIBLE_VAULT_PASSWORD_FILE", self.host.path("vault")).env("ANSIBLE_LOCAL_TEMP", &home);
        // The Python that runs Ansible, not the first that it finds.
        let python = Some(self.ansible.join("python")).filter(|python| python.exists());
        command.env("ANSIBLE_PYTHON_INTERPRETER", python.unwrap_or_else(|| PathBuf::from("/usr/bin/python3")));
        command.env("ANSIBLE_REMOTE_TEMP", &home).env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).output().unwrap()
    }

    fn try_play(&self, more: &[&str]) -> (String, Output) {
        let path = |name: &str| self.host.path(name).display().to_string();
        let (vars, secret) = (format!("@{}", path("vars.yml")), format!("@{}", path("secret.yml")));
        let words = ["-i", "localhost,", "-c", "local", "-e", &vars, "-e", &secret, &path("play.yml")];
        let ran = self.run("ansible-playbook", &[&words[..], more].concat());
        (said(&ran), ran)
    }

    /// Plays it; what it says, and how many tasks changed something. It must go well.
    #[track_caller]
    fn play(&self, more: &[&str]) -> (String, u32) {
        let (text, ran) = self.try_play(more);
        assert!(ran.status.success(), "{more:?}: {text}\n{}", self.host.last_log());
        let changed = regex::Regex::new(r"changed=(\d+)").unwrap().captures(&text).unwrap()[1].parse().unwrap();
        (text, changed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ansible_role_enrols_once_then_changes_nothing_and_takes_it_all_back() {
    if !Host::can_be_had() {
        return;
    }
    let service = Service::start();
    let host = Host::start("");
    let token = std::fs::read_to_string(service.join_token().await).unwrap();
    let Some(play) = Play::new(&host, &service, &token) else { return };
    let before = host.snapshot();
    host.bare();

    let (dry, _) = play.play(&["--check"]);
    host.same_as(&before, "as before");
    assert!(!host.path("bin/hallpass-host").exists(), "{dry}");
    // No systemd here: the daemon is started by hand below, and only then all is in order.
    let (first, changed) = play.play(&["-vvv", "--diff", "-e", "{hallpass_host_check: false}"]);
    assert!(changed >= 3, "{first}");
    assert!(!first.contains(&token), "the token is nobody's to read");
    let detail = service.host("web-1").await;
    assert_eq!((detail.state.as_str(), detail.names), ("active", vec!["web-1.example.com".to_owned()]));
    assert_eq!(detail.tags, ["env=test", "role=web", "zone=a"]);
    let files = host.command("find", &["/tmp", "/run", "-name", "*.hallpass"]).output().unwrap();
    assert!(files.stdout.is_empty(), "{}", said(&files));

    let daemon = host.daemon();
    let in_touch = || host.ok_of("/usr/local/bin/hallpass-host", &["status"]).contains("in touch");
    until("the daemon is in touch", std::time::Duration::from_secs(60), in_touch);
    let enrolled = host.snapshot();
    let (second, changed) = play.play(&[]);
    assert_eq!(changed, 0, "{second}");
    host.same_as(&enrolled, "as enrolled");
    daemon.stop();
    let absent = ["-e", "hallpass_host_state=absent"];
    let (would, changed) = play.play(&[&absent[..], &["--check"]].concat());
    assert_eq!(changed, 1, "{would}");
    host.same_as(&enrolled, "as enrolled");
    assert_eq!(play.play(&absent).1, 1);
    host.same_as(&before, "as before");
    assert!(!host.path("bin/hallpass-host").exists());
    let (text, changed) = play.play(&absent);
    assert_eq!(changed, 0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ansible_role_follows_the_service_to_another_url_and_to_no_other_service() {
    if !Host::can_be_had() {
        return;
    }
    let mut service = Service::start();
    let host = Host::start("");
    let token = std::fs::read_to_string(service.join_token().await).unwrap();
    let Some(play) = Play::new(&host, &service, &token) else { return };
    play.play(&["-e", "{hallpass_host_check: false}"]);
    service.kill();
    service.go_by("localhost");
    service.start_again();
    service.log_in("omar");

    let server = format!("hallpass_host_server={}", service.url);
    let pin = format!("hallpass_host_pin={}", service.pin);
    let there = ["-e", "{hallpass_host_check: false}", "-e", &server, "-e", &pin];
    let (dry, _) = play.play(&[&there[..], &["--check"]].concat());
    assert!(dry.contains("it would be enrolled"), "{dry}");
    let log_key = || {
        let known = std::fs::read_to_string(host.path("etc/hallpass/host-service.toml")).unwrap();
        assert!(known.contains("log_key"), "{known}");
        known.lines().filter(|line| line.starts_with("log_key")).collect::<String>()
    };
    let before = log_key();
    // By now the token is nobody's, and no host is asked for it.
    let joins: serde_json::Value =
        serde_json::from_str(&service.run("omar", &["admin", "join", "ls", "--json"])).unwrap();
    service.run("omar", &["admin", "join", "revoke", joins["joins"][0]["id"].as_str().unwrap()]);
    play.play(&there);
    assert_eq!(log_key(), before);
    let check = said(&host.hallpass(&["host", "check"], None));
    assert!(check.contains(&format!("ok   service     {}\n", service.url)), "{check}");
    let (again, changed) = play.play(&there);
    assert_eq!(changed, 0, "{again}");

    // Whatever key is named for it: that is for the first time.
    let other = Service::start();
    let server = format!("hallpass_host_server={}", other.url);
    let pin = format!("hallpass_host_pin={}", other.pin);
    let token = std::fs::read_to_string(other.join_token().await).unwrap();
    let token = format!("hallpass_host_join_token={token}");
    let log = other.path("log.jsonl");
    other.run("omar", &["audit", "export", "--out", &log.display().to_string()]);
    let log = std::fs::read_to_string(log).unwrap();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let key = format!("hallpass_host_log_key={}", first["log_key"].as_str().unwrap());
    let (text, ran) = play.try_play(&["-e", &server, "-e", &pin, "-e", &token, "-e", &key]);
    assert!(!ran.status.success() && text.contains("not signed by this key"), "{text}");
    assert_eq!(log_key(), before);
}
