//! What a machine watches the service by: its figures, as a real Prometheus reads them; the alerts and the dashboard that rest on them;
//! and what the service manager is told.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;

use super::asked;
use super::stage::Stage;

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sk", "--max-time", "20"]).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that the alerts and the dashboard ask Prometheus.
fn expressions() -> Vec<String> {
    let rules = include_str!("../../../deploy/prometheus/hallpass.rules.yml");
    let block = Regex::new(r"(?m)^        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)").unwrap();
    let rules = block.captures_iter(rules).map(|found| found.get(1).or(found.get(2)).unwrap().as_str().to_owned());
    let board: Value = serde_json::from_str(include_str!("../../../deploy/grafana/hallpass.json")).unwrap();
    let targets = board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let board = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    rules.chain(board).collect()
}

/// The metrics of an exposition, by what samples of them are called.
fn metrics(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            "gauge" => &[""],
            other => panic!("{name} is a {other}"),
        };
        names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    names
}

#[test]
fn alerts_and_dashboard_rest_on_figures_that_there_are() {
    let mut stage = Stage::new();
    let id = asked(&mut stage);
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let text = curl(&[&format!("{}/metrics", stage.url())]);
    let (known, name) = (metrics(&text), Regex::new(r"\b(?:hallpass|process)_[a-z_]+").unwrap());
    let used: BTreeSet<String> = expressions()
        .iter()
        .flat_map(|one| name.find_iter(one).map(|found| found.as_str().to_owned()).collect::<Vec<_>>())
        .collect();
    assert!(used.len() > 15, "{used:?}");
    let missing: Vec<_> = used.difference(&known).collect();
    assert!(missing.is_empty(), "{missing:?}\n{text}");

    let has = |line: &str| assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    has("hallpass_log_written_total{kind=\"asked\"} 1");
    has("hallpass_log_written_total{kind=\"granted\"} 1");
    has("hallpass_log_written_total{kind=\"session_flagged\"} 0");
    has("hallpass_approval_seconds_count 1");
    has("hallpass_hosts 0");
    has("hallpass_store_waiting 0");
    has("hallpass_store_commits_failed_total 0");
    let entries = hallpass_entries(&text);
    assert_eq!(text.lines().filter(|line| *line == format!("hallpass_log_entries {entries}")).count(), 1);
    for secret in ["alice", "bob", &id, "web-1"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// How many entries the process says that it wrote; nobody else writes this log, but for the start's own.
fn hallpass_entries(text: &str) -> u64 {
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    let written: u64 = text.lines().filter(|line| line.starts_with("hallpass_log_written_total{")).map(value).sum();
    // `log_started`, `policy_applied`, `service_started`: before there is a service that counts.
    written + 3
}

/// A real Prometheus, ended with its handle.
struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Reads the service of this stage once a second; none without the program (`tests/run` fetches it).
    fn start(stage: &Stage) -> Option<Self> {
        let Some(program) = std::env::var_os("HALLPASS_PROMETHEUS") else {
            eprintln!("not tested: no HALLPASS_PROMETHEUS names the program");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let target = stage.url().trim_start_matches("https://").to_owned();
        let scrape = include_str!("../../../deploy/prometheus/scrape.yml")
            .replace("hallpass.example.com:7722", &target)
            .replace("/etc/prometheus/hallpass.pem", &stage.shown("service/tls-certificate.pem"))
            .replace("hallpass.rules.yml", &stage.shown("hallpass.rules.yml"));
        let rules = include_str!("../../../deploy/prometheus/hallpass.rules.yml");
        stage.write("hallpass.rules.yml", rules);
        stage.write("prometheus.yml", &format!("global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n{scrape}"));
        let child = Command::new(program)
            .arg(format!("--config.file={}", stage.shown("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", stage.shown("tsdb")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { child, url: format!("http://127.0.0.1:{port}") })
    }

    fn ask(&self, path: &str, query: &str) -> Value {
        let text = curl(&["-G", &format!("{}{path}", self.url), "--data-urlencode", &format!("query={query}")]);
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The answer to a query once there is one that is not empty.
    fn has(&self, query: &str) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.ask("/api/v1/query", query);
            if answer["data"]["result"].as_array().is_some_and(|found| !found.is_empty()) {
                return answer;
            }
            assert!(Instant::now() < until, "{query}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_real_prometheus_reads_the_figures_and_wakes_nobody_over_a_service_that_is_well() {
    let stage = Stage::new();
    let Some(prometheus) = Prometheus::start(&stage) else { return };
    let up = prometheus.has("up{job=\"hallpass\"} == 1");
    assert_eq!(up["data"]["result"][0]["value"][1], "1", "{up}");
    prometheus.has("hallpass_ca_key_up{purpose=\"user\"} == 1");
    prometheus.has("process_resident_memory_bytes > 1000000");
    let filled = |one: String| {
        one.replace("$job", "hallpass").replace("$__rate_interval", "1m").replace("${datasource}", "prometheus")
    };
    for expression in expressions().into_iter().map(filled) {
        let answer = prometheus.ask("/api/v1/query", &expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    let rules = prometheus.ask("/api/v1/rules", "");
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 15 && rules.iter().all(|rule| rule["state"] != "firing"), "{rules:#?}");
}

#[test]
fn the_service_manager_hears_when_it_is_ready_and_when_it_stops() {
    let mut stage = Stage::empty();
    stage.set_up();
    let socket = UnixDatagram::bind(stage.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let path = stage.shown("notify");
    stage.start_with(&[("NOTIFY_SOCKET", &path)]);
    let heard = || {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(heard(), "READY=1");
    stage.stop();
    assert_eq!(heard(), "STOPPING=1");
}
