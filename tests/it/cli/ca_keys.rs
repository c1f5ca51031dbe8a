//! CA keys in an agent and in a token, end to end: the real service issues, a real sshd accepts, and what is lost is said and found again.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hallpass::ssh::bundle::Bundle;

use super::plain_ssh::Plain;
use super::stage::Stage;

/// A real agent for the service's keys, ended with its handle.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    /// One that holds these keys.
    fn start(stage: &Stage, keys: &[&str]) -> Self {
        let socket = stage.path("agent");
        drop(std::fs::remove_file(&socket));
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { child, socket };
        let until = Instant::now() + Duration::from_secs(20);
        // The name is there a moment before it can be reached.
        while UnixStream::connect(&agent.socket).is_err() {
            assert!(Instant::now() < until, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        for key in keys {
            let mut add = Command::new("ssh-add");
            add.arg("-q").arg(stage.path(key)).env("SSH_AUTH_SOCK", &agent.socket);
            assert!(add.status().unwrap().success());
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Puts other lines where the user CA key was configured.
pub(super) fn configure(stage: &Stage, lines: &str) {
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let (before, rest) = config.split_once("[ca.user]\n").unwrap();
    let (_, after) = rest.split_once("\n[ca.host]").unwrap();
    stage.write("service/config.toml", &format!("{before}[ca.user]\n{lines}\n[ca.host]{after}"));
}

/// Status and body of a probe.
fn probe(stage: &Stage, path: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sk", "--max-time", "20", "-w", "\n%{http_code}", &format!("{}{path}", stage.url())])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Waits until `/readyz` says so.
fn becomes(stage: &Stage, status: u16) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (now, body) = probe(stage, "/readyz");
        if now == status {
            return;
        }
        assert!(Instant::now() < until, "/readyz stays {now}: {body}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Issues one certificate and logs in with it, on a real sshd that has the service's trust bundle.
fn opens(plain: &mut Plain) {
    let id = plain.granted(&["web-1"]);
    let ran = plain.ssh(&["deploy@web-1", "echo", "in"]);
    assert_eq!((ran.code, ran.out.trim()), (0, "in"), "{}", ran.err);
    assert_eq!(plain.stage.as_person("alice", &["end", &id]).code, 0);
}

/// Logs in with what was granted; ssh-prepare does not ask a service again that has failed it a moment ago.
fn opens_again(plain: &Plain) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let ran = plain.ssh(&["deploy@web-1", "echo", "in"]);
        if ran.code == 0 {
            assert_eq!(ran.out.trim(), "in");
            return;
        }
        assert!(Instant::now() < until, "{}", ran.err);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A stage with these lines for the user CA key, people logged in.
fn stage_with(lines: impl FnOnce(&Stage) -> String, env: &[(&str, &str)]) -> Stage {
    let mut stage = Stage::empty();
    stage.set_up();
    let lines = lines(&stage);
    configure(&stage, &lines);
    stage.start_with(env);
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    stage
}

pub(super) fn make_ca(stage: &Stage, arguments: &[&str]) {
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-N", "", "-C", "", "-f"]).arg(stage.path("ca")).args(arguments);
    assert!(make.status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_key_in_an_agent_opens_a_real_host_and_its_loss_is_a_503_that_passes() {
    let mut agent = None;
    let lines = |stage: &Stage| {
        make_ca(stage, &["-t", "rsa", "-b", "3072"]);
        agent = Some(Agent::start(stage, &["ca"]));
        format!("agent = {:?}\npublic_key = {:?}\n", stage.shown("agent"), stage.shown("ca.pub"))
    };
    let stage = stage_with(lines, &[]);
    let Some(mut plain) = Plain::on(stage).await else { return };
    opens(&mut plain);
    let figures = probe(&plain.stage, "/metrics").1;
    assert!(figures.contains("hallpass_ca_key_up{purpose=\"user\"} 1"), "{figures}");
    assert!(figures.contains("hallpass_ca_signatures_total{purpose=\"user\",outcome=\"signed\"} 1"), "{figures}");

    drop(agent.take());
    let id = plain.granted(&["web-1"]);
    let before = plain.certificates();
    let ran = plain.ssh(&["deploy@web-1", "true"]);
    assert_eq!(ran.code, 255, "{}", ran.err);
    let (status, body) = probe(&plain.stage, "/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("the user CA key's backend can't be used"), "{body}");
    let figures = probe(&plain.stage, "/metrics").1;
    assert!(figures.contains("hallpass_ca_key_up{purpose=\"user\"} 0"), "{figures}");
    assert!(figures.contains("hallpass_ca_key_up{purpose=\"host\"} 1"), "{figures}");

    let _agent = Agent::start(&plain.stage, &["ca"]);
    becomes(&plain.stage, 200);
    opens_again(&plain);
    assert_eq!(plain.certificates(), before + 1, "the intent is in the log once, whenever it was signed");
    assert_eq!(plain.stage.as_person("alice", &["end", &id]).code, 0);
    let export = plain.stage.shown("log.jsonl");
    assert_eq!(plain.stage.as_person("omar", &["audit", "export", "--out", &export]).code, 0);
    assert_eq!(plain.stage.as_person("omar", &["audit", "verify", &export]).code, 0);
}

/// The states in the service's trust bundle, in its order.
fn states(plain: &Plain) -> Vec<String> {
    let bundle = Bundle::claimed(&plain.stage.as_person("alice", &["ca", "export"]).out).unwrap();
    bundle.keys().iter().map(|key| key.state.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_learn_a_key_before_it_signs_and_trust_the_old_one_until_somebody_says_otherwise() {
    let Some(mut plain) = Plain::new().await else { return };
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(plain.stage.path("service/next_ca"))
        .status();
    assert!(made.unwrap().success());
    // Each start is with these keys; hosts then get the bundle, or don't.
    let starts = |plain: &mut Plain, key: &str, trusted: &str, is_fetched: bool| {
        plain.stage.stop();
        configure(&plain.stage, &format!("key = {key:?}\ntrusted = [{trusted}]\n"));
        plain.stage.start();
        let bundle = plain.stage.as_person("alice", &["ca", "export"]).out;
        for host in (2..=4).filter(|_| is_fetched) {
            std::fs::write(plain.site.path(&format!("host-{host}/user_ca_keys")), &bundle).unwrap();
        }
    };
    let enters = |plain: &Plain, host: &str| plain.ssh(&[&format!("deploy@{host}"), "true"]).code == 0;
    plain.granted(&["web-1"]);
    assert!(enters(&plain, "web-1"));

    starts(&mut plain, "user_ca", "\"next_ca.pub\"", true);
    assert_eq!(states(&plain), ["active", "staged"]);
    assert!(enters(&plain, "web-1"));
    starts(&mut plain, "next_ca", "\"user_ca.pub\"", false);
    assert_eq!(states(&plain), ["draining", "active"]);
    plain.granted(&["web-2"]);
    assert!(enters(&plain, "web-1"), "by the old key");
    assert!(enters(&plain, "web-2"), "by the new key, with the bundle from before it signed");
    starts(&mut plain, "next_ca", "", true);
    assert_eq!(states(&plain), ["draining", "active"], "its certificate lasts");
    assert!(enters(&plain, "web-1"));
    let old = plain.stage.path("service/user_ca.pub");
    let shown = Command::new("ssh-keygen").arg("-lf").arg(old).output().unwrap();
    let old = String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let lost = ["ca", "compromise", &old, "--reason", "a backup was lost", "--yes"];
    assert_eq!(plain.stage.as_person("omar", &lost).code, 0);
    starts(&mut plain, "next_ca", "", true);
    assert_eq!(states(&plain), ["active"]);
    assert!(!enters(&plain, "web-1"), "the old key opens nothing any more");
    assert!(enters(&plain, "web-2"));
    let export = plain.stage.shown("log.jsonl");
    assert_eq!(plain.stage.as_person("omar", &["audit", "export", "--out", &export]).code, 0);
    assert_eq!(plain.stage.as_person("omar", &["audit", "verify", &export]).code, 0);
}

/// `SoftHSM` in this stage's folder, with one token.
pub(super) struct SoftHsm {
    pub(super) library: &'static str,
    pub(super) conf: String,
}

const LIBRARIES: [&str; 2] = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];

impl SoftHsm {
    pub(super) fn new(stage: &Stage) -> Self {
        let library = LIBRARIES.into_iter().find(|path| std::path::Path::new(path).exists());
        let library = library.expect("softhsm2 is installed (tests/run does it)");
        std::fs::create_dir_all(stage.path("tokens")).unwrap();
        stage.write("softhsm.conf", &format!("directories.tokendir = {}\nlog.level = ERROR\n", stage.shown("tokens")));
        let hsm = Self { library, conf: stage.shown("softhsm.conf") };
        hsm.run(
            "softhsm2-util",
            &["--init-token", "--free", "--label", "hallpass", "--pin", "1234", "--so-pin", "5678"],
        );
        stage.write("pin", "1234\n");
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(stage.path("pin"), std::fs::Permissions::from_mode(0o600)).unwrap();
        hsm
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(program).args(arguments).env("SOFTHSM2_CONF", &self.conf).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub(super) fn tool(&self, arguments: &[&str]) -> Vec<u8> {
        let login = ["--module", self.library, "--token-label", "hallpass", "--login", "--pin", "1234"];
        self.run("pkcs11-tool", &[&login[..], arguments].concat())
    }

    /// The public keys in the token, but for Ed25519 ones, as lines.
    pub(super) fn listed(&self) -> String {
        let listed = Command::new("ssh-keygen").args(["-D", self.library]).env("SOFTHSM2_CONF", &self.conf).output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    }

    /// Makes a key pair in the token, and writes its public half for the service, by the ways that the guide names.
    pub(super) fn make_key(&self, stage: &Stage, kind: &str, label: &str) {
        self.tool(&["--keypairgen", "--key-type", kind, "--label", label]);
        let line = if kind == "EC:edwards25519" {
            let pem = self.tool(&["--read-object", "--type", "pubkey", "--label", label]);
            stage.write("ed25519.pem", &String::from_utf8(pem).unwrap());
            let pem = stage.shown("ed25519.pem");
            let der = self.run("openssl", &["pkey", "-pubin", "-in", &pem, "-outform", "der"]);
            let blob = [&b"\0\0\0\x0bssh-ed25519\0\0\0\x20"[..], &der[der.len() - 32..]].concat();
            format!("ssh-ed25519 {}", data_encoding::BASE64.encode(&blob))
        } else {
            // One key of each type is in the token.
            let name = match kind {
                "EC:prime256v1" => "ecdsa-sha2-nistp256 ",
                "EC:secp384r1" => "ecdsa-sha2-nistp384 ",
                _ => "ssh-rsa ",
            };
            let listed = self.listed();
            listed.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{listed}")).to_owned()
        };
        stage.write(&format!("{label}.pub"), &format!("{line}\n"));
    }

    pub(super) fn lines(&self, stage: &Stage, label: &str) -> String {
        format!(
            "pkcs11 = {:?}\ntoken = \"hallpass\"\nlabel = {label:?}\npin_file = {:?}\npublic_key = {:?}\n",
            self.library,
            stage.shown("pin"),
            stage.shown(&format!("{label}.pub"))
        )
    }
}

pub(super) const KINDS: [(&str, &str); 4] =
    [("EC:edwards25519", "ed25519"), ("EC:prime256v1", "p256"), ("EC:secp384r1", "p384"), ("rsa:3072", "rsa")];

#[tokio::test(flavor = "multi_thread")]
async fn ca_keys_of_each_kind_in_a_token_open_a_real_host() {
    for (kind, label) in KINDS {
        let mut stage = Stage::empty();
        stage.set_up();
        let hsm = SoftHsm::new(&stage);
        hsm.make_key(&stage, kind, label);
        configure(&stage, &hsm.lines(&stage, label));
        // Once with what the library needs said: then nothing else is open to it.
        let is_told = kind == "EC:prime256v1";
        if is_told {
            let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
            let needs = format!("[sandbox]\nread = [{:?}]\nwrite = [{:?}]\n", hsm.conf, stage.shown("tokens"));
            stage.write("service/config.toml", &format!("{config}\n{needs}"));
        }
        stage.start_with(&[("SOFTHSM2_CONF", &hsm.conf)]);
        let is_open = stage.said().contains("part=\"files\" why=\"a token's library may need any;");
        assert_eq!(is_open, !is_told, "{}", stage.said());
        for person in ["alice", "bob", "omar"] {
            stage.log_in(person);
        }
        let Some(mut plain) = Plain::on(stage).await else { return };
        opens(&mut plain);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_away_is_a_503_and_works_again_when_it_is_back() {
    let mut stage = Stage::empty();
    stage.set_up();
    let hsm = SoftHsm::new(&stage);
    hsm.make_key(&stage, "EC:prime256v1", "p256");
    hsm.make_key(&stage, "rsa:3072", "rsa");
    configure(&stage, &hsm.lines(&stage, "p256"));
    // Both keys in one token: its library has to be let go by both before it sees the token again.
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let host = format!("[ca.host]\n{}", hsm.lines(&stage, "rsa"));
    stage.write("service/config.toml", &config.replace("[ca.host]\nkey = \"host_ca\"\n", &host));
    stage.start_with(&[("SOFTHSM2_CONF", &hsm.conf)]);
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    let Some(mut plain) = Plain::on(stage).await else { return };
    opens(&mut plain);
    std::fs::rename(plain.stage.path("tokens"), plain.stage.path("taken")).unwrap();
    plain.granted(&["web-1"]);
    assert_eq!(plain.ssh(&["deploy@web-1", "true"]).code, 255);
    becomes(&plain.stage, 503);
    std::fs::rename(plain.stage.path("taken"), plain.stage.path("tokens")).unwrap();
    becomes(&plain.stage, 200);
    opens_again(&plain);
    let until = Instant::now() + Duration::from_secs(60);
    while !probe(&plain.stage, "/metrics").1.contains("hallpass_ca_key_up{purpose=\"host\"} 1") {
        assert!(Instant::now() < until, "the host CA key does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_token_that_can_not_be_used_is_named_and_a_wrong_pin_is_tried_once() {
    let mut stage = Stage::empty();
    stage.set_up();
    let hsm = SoftHsm::new(&stage);
    hsm.make_key(&stage, "EC:prime256v1", "p256");
    hsm.make_key(&stage, "rsa:3072", "rsa");
    let good = hsm.lines(&stage, "p256");
    let config = stage.shown("service/config.toml");
    let serve = ["serve", "--config", config.as_str()];
    for lines in [
        good.replace("\"hallpass\"", "\"another\""),
        good.replace("label = \"p256\"", "label = \"none\""),
        good.replace("label = \"p256\"", "label = \"rsa\""),
        good.replace("p256.pub", "nothing.pub"),
        good.replace(hsm.library, "/nowhere/lib.so"),
    ] {
        configure(&stage, &lines);
        let ran = stage.types_with("omar", &serve, &[("SOFTHSM2_CONF", &hsm.conf)]);
        assert_eq!(ran.code, 1, "{lines}: {}", ran.err);
    }
    configure(&stage, &good);
    stage.write("pin", "9999\n");
    let ran = stage.types_with("omar", &serve, &[("SOFTHSM2_CONF", &hsm.conf)]);
    assert_eq!(ran.code, 2, "the unit does not restart after it: {}", ran.err);
    assert!(!ran.err.contains("9999"), "{}", ran.err);
    stage.check("ca_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_agent_and_of_a_token_are_added_as_printed_and_a_rotation_goes_from_one_to_the_other() {
    let mut stage = Stage::empty();
    stage.set_up();
    make_ca(&stage, &["-t", "ecdsa", "-b", "384"]);
    let _agent = Agent::start(&stage, &["ca"]);
    let hsm = SoftHsm::new(&stage);
    hsm.make_key(&stage, "rsa:3072", "rsa");
    let config = stage.shown("service/config.toml");
    let adds = |more: &[&str]| {
        let ran = stage
            .command("omar", &[&["ca", "add", "user", "--config", &config], more].concat())
            .env("SOFTHSM2_CONF", &hsm.conf)
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
        (ran.status.code(), out, err)
    };
    let (socket, public) = (stage.shown("agent"), stage.shown("ca.pub"));
    let by_agent = adds(&["--agent", &socket, "--public-key", &public]);
    assert_eq!(by_agent.0, Some(0), "{}", by_agent.2);
    let (pin, rsa) = (stage.shown("pin"), stage.shown("rsa.pub"));
    let token = ["--pkcs11", hsm.library, "--token", "hallpass", "--label", "rsa", "--pin-file", &pin, "--public-key"];
    let by_token = adds(&[&token[..], &[&rsa]].concat());
    assert_eq!(by_token.0, Some(0), "{}", by_token.2);
    // What is not what it is said to be is not added: another key's public half, in either place.
    assert_eq!(adds(&["--agent", &socket, "--public-key", &rsa]).0, Some(1));
    let other = adds(&[&token[..], &[&public]].concat());
    assert_eq!((other.0, other.1.as_str()), (Some(1), ""), "{}", other.2);

    let text = std::fs::read_to_string(&config).unwrap();
    stage.write("service/config.toml", &format!("{text}\n{}\n{}", by_agent.1, by_token.1));
    stage.start_with(&[("SOFTHSM2_CONF", &hsm.conf)]);
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    let Some(mut plain) = Plain::on(stage).await else { return };
    opens(&mut plain);
    // From the file to the agent, and from there to the token; each time hosts learn the key first.
    for key in ["ca.pub", "rsa.pub"] {
        let shown = Command::new("ssh-keygen").arg("-lf").arg(plain.stage.path(key)).output().unwrap();
        let key = String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned();
        let rotates = |plain: &Plain, step: &[&str]| {
            let ran = plain.stage.as_person("omar", &[&["ca", "rotate", "user"], step].concat());
            assert_eq!(ran.code, 0, "{step:?}: {}", ran.err);
        };
        rotates(&plain, &["start", "--key", &key]);
        let bundle = plain.stage.as_person("alice", &["ca", "export"]).out;
        for host in 2..=4 {
            std::fs::write(plain.site.path(&format!("host-{host}/user_ca_keys")), &bundle).unwrap();
        }
        opens(&mut plain);
        rotates(&plain, &["switch", "--yes"]);
        opens(&mut plain);
        let shown = plain.stage.as_person("omar", &["ca", "show", &key, "--json"]);
        assert_eq!(shown.field("state"), "active", "{}", shown.out);
        rotates(&plain, &["finish", "--yes"]);
    }
}
