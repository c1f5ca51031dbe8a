//! What holds session keys, after `hallpass setup --key`: the person's ssh-agent, agents that will not, and a security key.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use std::sync::{Arc, Mutex};

use hallpass::ssh::cert::Certificate;
use hallpass::time::{Clock as _, SystemClock};

use super::plain_ssh::Plain;
use super::stage::{HALLPASS, Ran, Stage};
use super::{REASON, asked, doctor};
use crate::formats::security_keys::{Authenticator, TOUCHED};

/// A real ssh-agent at this socket.
fn agent(socket: &str) -> Child {
    let mut agent = Command::new("ssh-agent").args(["-D", "-a", socket]).stdout(Stdio::piped()).spawn().unwrap();
    // It says where it listens once it does.
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    agent
}

/// What an agent lists, as `ssh-add -L` prints it; nothing if it holds nothing.
fn listed(socket: &str) -> Vec<String> {
    let ran = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", socket).output().unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with("The agent has")).map(str::to_owned).collect()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// Named fake: an agent that answers each message with what `answer` makes of it.
fn fake_agent(socket: &Path, answer: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream.unwrap(), &*answer));
        }
    });
}

fn serve(mut stream: UnixStream, answer: &dyn Fn(&[u8]) -> Vec<u8>) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(&string(&answer(&body))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_gets_the_certificate_alone_and_gives_it_back() {
    let Some(mut plain) = Plain::new().await else { return };
    let socket = plain.stage.shown("agent");
    let mut agent = agent(&socket);
    let config = plain.stage.shown("ssh_config");
    let env = [("SSH_AUTH_SOCK", socket.as_str())];
    assert_eq!(plain.stage.types_with("alice", &["setup", "--ssh-config", &config, "--key", "agent"], &env).code, 0);
    plain.granted(&["web-1"]);
    let ran = Ran::of(plain.program("ssh", &["-F", &config, "web-1", "true"]).envs(env).output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let entries = listed(&socket);
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].starts_with("ssh-ed25519-cert-v01@openssh.com "), "{entries:?}");
    assert!(entries[0].contains(" hallpass:default:web-1:"), "{entries:?}");
    // A program that reads no configuration of ours gets in by the agent alone.
    let port = plain.hosts[0].address().port().to_string();
    let known = format!("UserKnownHostsFile={}", plain.stage.shown("other_known_hosts"));
    let alone = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=accept-new", "-o", &known, "-p", &port];
    let login = [&alone[..], &["deploy@127.0.0.1", "id", "-un"]].concat();
    let ran = Ran::of(plain.program("ssh", &login).envs(env).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (0, "deploy\n"), "{}", ran.err);
    let mut looking = plain.stage.command("alice", &["doctor", "--json"]);
    let ran = Ran::of(looking.envs(env).output().unwrap());
    assert_eq!(doctor::check(&ran, "agent")["state"], "ok", "{}", ran.out);
    // More time: the new certificate takes the old one's place.
    let mut extending = plain.stage.command("alice", &["extend", "--for", "10m", "--no-wait"]);
    assert_eq!(Ran::of(extending.envs(env).output().unwrap()).code, 8);
    let id =
        plain.stage.as_person("bob", &["inbox", "--json"]).json()["requests"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(plain.stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let mut waiting = plain.stage.command("alice", &["wait", &id]);
    assert_eq!(Ran::of(waiting.envs(env).output().unwrap()).code, 0);
    let extended = listed(&socket);
    assert_eq!(extended.len(), 1, "{extended:?}");
    assert_ne!(extended, entries);
    let mut ending = plain.stage.command("alice", &["end", "web-1"]);
    assert_eq!(Ran::of(ending.envs(env).output().unwrap()).code, 0);
    assert_eq!(listed(&socket), Vec::<String>::new());
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_hold_no_certificates_are_named_and_ssh_works_all_the_same() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let set_up = ["setup", "--ssh-config", &config, "--key", "agent"];
    // None at all.
    let none = plain.stage.types_with("alice", &set_up, &[]);
    assert_eq!(none.code, 7);
    assert!(none.err.starts_with("hallpass: no ssh agent runs here\n"), "{}", none.err);
    const NOTHING_LISTED: [u8; 5] = [12, 0, 0, 0, 0];
    let refusing = |body: &[u8]| if body[0] == 11 { NOTHING_LISTED.to_vec() } else { vec![5] };
    let forgetful = |body: &[u8]| if body[0] == 11 { NOTHING_LISTED.to_vec() } else { vec![6] };
    fake_agent(&plain.stage.path("refusing"), refusing);
    fake_agent(&plain.stage.path("forgetful"), forgetful);
    for (name, why, host) in [
        ("refusing", "it refused to add one", "web-1"),
        ("forgetful", "it said that it had added one, and does not list it", "web-2"),
    ] {
        let socket = plain.stage.shown(name);
        let env = [("SSH_AUTH_SOCK", socket.as_str())];
        assert_eq!(plain.stage.types_with("alice", &set_up, &env).code, 0);
        plain.granted(&[host]);
        let ran = Ran::of(plain.program("ssh", &["-F", &config, host, "true"]).envs(env).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let said = format!(
            "hallpass: your ssh agent cannot hold certificates\n  why   {why}; the certificate is in its file, so ssh, scp, rsync and git work\n  next  hallpass setup --key file\n"
        );
        assert_eq!(ran.err, said);
        let again = Ran::of(plain.program("ssh", &["-F", &config, host, "true"]).envs(env).output().unwrap());
        assert_eq!((again.code, again.err.as_str()), (0, ""), "said once");
        let mut looking = plain.stage.command("alice", &["doctor", "--json"]);
        let ran = Ran::of(looking.envs(env).output().unwrap());
        let check = doctor::check(&ran, "agent");
        assert_eq!((check["state"].as_str(), check["code"].as_str()), (Some("bad"), Some("HP-301")), "{}", ran.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_key_is_certified_and_never_copied() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let [ed25519, p256] = Authenticator::both();
    for (name, key, host) in [("ed25519_sk", ed25519, "web-1"), ("ecdsa_sk", p256, "web-2")] {
        let public = key.public_key();
        plain.stage.write(name, "the handle of a key in a device\n");
        let file = plain.stage.shown(name);
        let set_up = ["setup", "--ssh-config", &config, "--key", &file];
        assert!(plain.stage.as_person("alice", &set_up).err.contains("is not the file of a security key"));
        plain.stage.write(&format!("{name}.pub"), &format!("{} laptop\n", public.to_openssh()));
        let ran = plain.stage.as_person("alice", &set_up);
        assert_eq!(ran.code, 0, "{}", ran.err);
        // The device is played at the agent's protocol: it holds the bare key, and is touched for each signature.
        let socket = plain.stage.shown(&format!("{name}.agent"));
        let blob = public.blob().to_vec();
        fake_agent(Path::new(&socket), move |body| match body[0] {
            11 => [&[12, 0, 0, 0, 1][..], &string(&blob), &string(b"laptop")].concat(),
            13 => {
                let key_length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
                let rest = &body[5 + key_length..];
                let length = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                [&[14][..], &string(&key.sign("ssh:", TOUCHED, 7, &rest[4..4 + length]))].concat()
            }
            _ => vec![5],
        });
        let id = plain.granted(&[host]);
        let shown = plain.stage.as_person("alice", &["show", &id, "--json"]);
        assert_eq!(shown.field("key"), public.fingerprint().to_string());
        let mut ssh = plain.program("ssh", &["-F", &config, host, "id", "-un"]);
        let ran = Ran::of(ssh.env("SSH_AUTH_SOCK", &socket).output().unwrap());
        assert_eq!((ran.code, ran.out.as_str()), (0, "deploy\n"), "{}", ran.err);
        let kept = plain.stage.path("alice/run/default").join(id.replace('-', "")).join("key");
        assert_eq!(std::fs::read_link(&kept).unwrap(), Path::new(&file));
        // The link is as it should be, what others can read behind it is not; and the host's word is had without a touch.
        let look = || plain.stage.as_person("alice", &["doctor", "--json", "--ssh-config", &config, host]);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(doctor::check(&look(), "files")["code"], "HP-303");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let ran = look();
        assert_eq!(ran.code, 0, "{}", ran.out);
        assert_eq!(doctor::check(&ran, "login")["what"], format!("{host} takes our certificate as deploy"));
        assert_eq!(plain.stage.as_person("alice", &["end", host]).code, 0);
        assert!(Path::new(&file).exists());
    }
}

/// The next `string` of a message, and what comes behind it.
fn next(body: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = body.split_at(4);
    rest.split_at(u32::from_be_bytes(length.try_into().unwrap()) as usize)
}

#[test]
fn an_agent_is_lent_a_certificate_until_a_minute_after_its_end() {
    let mut stage = Stage::new();
    let lent = Arc::new(Mutex::new(Vec::<u8>::new()));
    let kept = Arc::clone(&lent);
    fake_agent(&stage.path("agent"), move |body| match body[0] {
        11 if kept.lock().unwrap().is_empty() => vec![12, 0, 0, 0, 0],
        11 => {
            let kept = kept.lock().unwrap();
            let (_, rest) = next(&kept[1..]);
            [&[12, 0, 0, 0, 1][..], &string(next(rest).0), &string(b"x")].concat()
        }
        25 => {
            body.clone_into(&mut kept.lock().unwrap());
            vec![6]
        }
        _ => vec![5],
    });
    let (config, socket) = (stage.shown("ssh_config"), stage.shown("agent"));
    let env = [("SSH_AUTH_SOCK", socket.as_str())];
    assert_eq!(stage.types_with("alice", &["setup", "--ssh-config", &config, "--key", "agent"], &env).code, 0);
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let before = SystemClock.now().unix();
    assert_eq!(stage.types_with("alice", &["wait", &id], &env).code, 0);
    let after = SystemClock.now().unix();
    let message = lent.lock().unwrap().clone();
    let (kind, rest) = next(&message[1..]);
    assert_eq!(kind, b"ssh-ed25519-cert-v01@openssh.com", "never the bare key");
    let (certificate, rest) = next(rest);
    let end = Certificate::parse_blob(certificate).unwrap().tbs().fields().window.end().unix();
    let (_public, rest) = next(rest);
    let (_private, rest) = next(rest);
    let (comment, constraints) = next(rest);
    assert!(comment.starts_with(b"hallpass:default:web-1:"));
    let (kind, seconds) = constraints.split_at(1);
    let seconds = u64::from(u32::from_be_bytes(seconds.try_into().unwrap()));
    assert_eq!(kind, [1], "a lifetime");
    assert!((end - after + 60..=end - before + 60).contains(&seconds), "{seconds} s of {}", end - before);
}

/// Whether anybody but its owner may do anything with a file, or one below it.
fn open_to_others(path: &Path, found: &mut Vec<String>) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    if metadata.permissions().mode() & 0o077 != 0 {
        found.push(format!("{:o} {}", metadata.permissions().mode(), path.display()));
    }
    if metadata.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| open_to_others(&entry.unwrap().path(), found));
    }
}

#[test]
fn a_session_key_and_all_that_lies_beside_it_is_its_owners_alone_whatever_the_umask() {
    let stage = Stage::new();
    let types = |line: &str, code: i32| {
        let typed = format!("umask 0; exec {HALLPASS} {line}");
        let ran = Ran::of(stage.command_of("sh", "alice", &["-c", &typed]).output().unwrap());
        assert_eq!(ran.code, code, "{}", ran.err);
        ran
    };
    let id = types(&format!("request web-1 --reason '{REASON}' --for 20m --no-wait --json"), 8).field("id");
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    types(&format!("wait {id}"), 0);
    let folder = stage.path("alice/run/default");
    let key = folder.join(id.replace('-', "")).join("key");
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(folder.join("hosts/web-1.conf").exists());
    let mut found = Vec::new();
    open_to_others(&folder, &mut found);
    assert_eq!(found, Vec::<String>::new());
}
