//! Three hosts and one service, each in a network of its own: a certificate opens the hosts that it is for and no others, and a host that is
//! cut off keeps what it was told, ends what is over, and makes log and inventory right when it is back.
//!
//! The test runs itself once more inside a network namespace, so that nothing of this machine's network is touched.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hallpass::time::Timestamp;

use super::host::{Daemon, Host, Session, until};
use super::service::Service;

/// How long anything may take that is not what a test is about.
const PATIENCE: Duration = Duration::from_secs(30);

/// Says to the second run that it is in a network of its own.
pub(super) const INSIDE: &str = "HALLPASS_TEST_NETWORK";

/// Where the service listens.
pub(super) const SERVICE: &str = "10.77.0.1";

/// Runs a test of this folder once more, inside a network namespace; false where there are none, which is said.
pub(super) fn runs_inside(module: &str, test: &str) -> bool {
    let ip = |words: &[&str]| Command::new("unshare").args(["-n", "ip"]).args(words).output();
    if !ip(&["link", "add", "lan", "type", "bridge"]).is_ok_and(|ran| ran.status.success()) {
        println!("not shown here: three hosts need network namespaces, a bridge, and the program `ip`");
        return false;
    }
    let name = format!("{}::{test}", module.split_once("::").unwrap().1);
    let mut again = Command::new("unshare");
    again.arg("-n").arg(std::env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]).env(INSIDE, "yes");
    let ran = again.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    true
}

#[track_caller]
pub(super) fn ip(words: &str) {
    let ran = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(ran.status.success(), "ip {words}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// The network that the service and its hosts share.
pub(super) fn lay_network() {
    // With an address of its own: a bridge without one takes the lowest of its ports', so that each host that is plugged in may change it, and
    // what the others send to the one before is lost until they ask again.
    for words in [
        "link set lo up",
        "link add lan address 02:00:0a:4d:00:01 type bridge",
        "addr add 10.77.0.1/24 dev lan",
        "link set lan up",
    ] {
        ip(words);
    }
}

/// A host on the network.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) host: Host,
    pub(super) daemon: Option<Daemon>,
}

impl Member {
    fn new(number: u8, service: &Service, token: &Path) -> Self {
        let host = Host::start_in_network("");
        ip(&format!("link add cable{number} type veth peer name eth0 netns {}", host.pid()));
        ip(&format!("link set cable{number} master lan up"));
        for words in [format!("addr add 10.77.0.1{number}/24 dev eth0"), "link set eth0 up".to_owned()] {
            assert!(host.command("ip", &words.split(' ').collect::<Vec<_>>()).status().unwrap().success(), "{words}");
        }
        let name = format!("web-{number}");
        let words = service.enrol(&name, token);
        host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let daemon = Some(host.daemon());
        until("the daemon is in touch", PATIENCE, || host.ok(&["host", "status"]).contains("in touch"));
        Self { name, host, daemon }
    }

    /// A session that stays open until it is ended.
    fn session(&self, key: &Path) -> Session {
        Session::start(self.host.ssh(key, "echo ready; sleep 1000"))
    }

    fn has_sessions_of(&self, request: &str) -> bool {
        self.sessions_of(request) > 0
    }

    fn sessions_of(&self, request: &str) -> usize {
        self.host.ok(&["host", "sessions", "--json"]).matches(&format!("\"request\":\"{request}\"")).count()
    }
}

/// alice asks; the request, and her key with its certificate beside it.
pub(super) fn access(service: &Service, hosts: &[&str], lifetime: &str) -> (String, PathBuf) {
    let words = ["--as", "deploy", "--for", lifetime, "--reason", "three hosts", "--json"];
    let text = service.run("alice", &[&["request"], hosts, &words].concat());
    let id = regex::Regex::new("[0-9A-Z]{4}-[0-9A-Z]{4}").unwrap().find(&text).unwrap().as_str().to_owned();
    let key = service.path(&format!("alice/run/hallpass/default/{}/key", id.replace('-', "")));
    assert!(key.exists(), "{text}");
    (id, key)
}

/// The log's entries of a kind about a request.
fn logged(service: &Service, kind: &str, request: &str) -> Vec<serde_json::Value> {
    let query = [format!("request:{request}"), format!("kind:{kind}")];
    let text = service.run("omar", &["audit", "search", &query[0], &query[1], "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["entries"].as_array().unwrap().clone()
}

/// Three hosts enrol at the same time.
pub(super) fn all_join(service: &Service, token: &Path) -> Vec<Member> {
    std::thread::scope(|scope| {
        let joining: Vec<_> = (1..=3).map(|number| scope.spawn(move || Member::new(number, service, token))).collect();
        joining.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// `HOST: WHY` for each session of a request that is over, in order.
fn how_sessions_ended(service: &Service, request: &str) -> Vec<String> {
    let text = |entry: &serde_json::Value, member: &str| entry["entry"][member].as_str().unwrap().to_owned();
    let line = |entry: &serde_json::Value| format!("{}: {}", text(entry, "host"), text(entry, "why"));
    let mut ends: Vec<String> = logged(service, "session_ended", request).iter().map(line).collect();
    ends.sort();
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_hosts_one_is_cut_off_and_log_and_inventory_are_right_when_it_is_back() {
    if !Host::can_be_had() {
        return;
    }
    if std::env::var_os(INSIDE).is_none() {
        runs_inside(module_path!(), "of_three_hosts_one_is_cut_off_and_log_and_inventory_are_right_when_it_is_back");
        return;
    }
    lay_network();
    let service = Service::start_at(SERVICE);
    let token = service.join_token().await;
    let mut members = all_join(&service, &token);

    // All three trust one CA; a certificate opens what it is for.
    let opens = |members: &[Member], key: &Path| -> Vec<String> {
        members.iter().filter(|member| member.host.opens(key)).map(|member| member.name.clone()).collect()
    };
    service.run("omar", &["admin", "host", "tag", "web-2", "env=test"]);
    until("the tag reaches the host", PATIENCE, || {
        std::fs::read_to_string(members[1].host.path("etc/hallpass/host.toml")).unwrap().contains("\"env\" = \"test\"")
    });
    let (_, by_name) = access(&service, &["web-1"], "10m");
    assert_eq!(opens(&members, &by_name), ["web-1"]);
    let (_, by_tag) = access(&service, &["tag:env=test"], "10m");
    assert_eq!(opens(&members, &by_tag), ["web-2"]);
    let (request, key) = access(&service, &["web-1", "web-2", "web-3"], "10m");
    assert_eq!(opens(&members, &key), ["web-1", "web-2", "web-3"]);

    // web-3 is cut off, with a session that lasts and one whose window ends meanwhile; its daemon dies and comes back.
    let mut sessions: Vec<Session> = members.iter().map(|member| member.session(&key)).collect();
    // A login that only looked in may not be over yet: it must not be counted among those that are ended.
    for member in &members {
        until("only the session that lasts is left", PATIENCE, || member.sessions_of(&request) == 1);
    }
    let (short, short_key) = access(&service, &["web-3"], "6s");
    let mut over = members[2].session(&short_key);
    ip("link set cable3 down");
    members[2].daemon.take().unwrap().kill();
    assert!(members[2].host.opens(&key), "it needs nobody");
    service.run("alice", &["end", &request]);
    for member in &members[..2] {
        until("the early end reaches the host", Duration::from_secs(5), || !member.has_sessions_of(&request));
        assert!(!member.host.opens(&key), "{}", member.name);
    }
    assert_eq!(over.0.wait().unwrap().code(), Some(255));
    assert!(members[2].has_sessions_of(&request) && sessions[2].0.try_wait().unwrap().is_none(), "nobody told it");
    members[2].daemon = Some(members[2].host.daemon());
    until("the daemon says what is wrong", PATIENCE, || {
        members[2].host.ok(&["host", "status"]).contains("cannot reach")
    });

    ip("link set cable3 up");
    until("the early end reaches the host that was cut off", PATIENCE, || !members[2].has_sessions_of(&request));
    assert!(!members[2].host.opens(&key));
    for session in &mut sessions {
        assert_eq!(session.0.wait().unwrap().code(), Some(255));
    }
    until("everything is reported", PATIENCE, || logged(&service, "session_ended", &request).len() == 7);

    // What the log says: who was let in where, by which request, and how each session came to its end.
    let ends = how_sessions_ended(&service, &request);
    let (closed, early) = ("its connection was closed", "it was ended before its window");
    let expected = [("web-1", early), ("web-1", closed), ("web-2", early), ("web-2", closed)];
    let cut_off = [("web-3", early), ("web-3", closed), ("web-3", closed)];
    let expected: Vec<String> =
        expected.into_iter().chain(cut_off).map(|(host, why)| format!("{host}: {why}")).collect();
    assert_eq!(ends, expected);
    assert_eq!(logged(&service, "session_opened", &request).len(), 7);
    let ended = logged(&service, "session_ended", &short);
    let shown: serde_json::Value = serde_json::from_str(&service.run("alice", &["show", &short, "--json"])).unwrap();
    let window_end = Timestamp::parse(shown["window"]["not_after"].as_str().unwrap()).unwrap();
    let late = Timestamp::from_unix(ended[0]["entry"]["ended"].as_u64().unwrap()).unwrap().seconds_since(window_end);
    assert_eq!((ended.len(), ended[0]["entry"]["why"].as_str().unwrap()), (1, "its window is over"));
    assert!(late <= 2, "without daemon and service it ended {late} s late");
    let reconciled = service.run("omar", &["audit", "reconcile"]);
    assert!(reconciled.contains("10 logins looked at: everything fits what was granted"), "{reconciled}");

    // And the inventory.
    for name in ["web-1", "web-2", "web-3"] {
        let detail = service.host(name).await;
        let seen = detail.seen.unwrap();
        assert_eq!((detail.state.as_str(), seen.trust.as_str(), seen.guard), ("active", "proven", true), "{name}");
    }
}
