//! Asks that come at their times, answered or not, from people who do not come again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hallpass::client::Server;
use reqwest::StatusCode;
use tokio::sync::mpsc;

use super::{Plan, desk, seed};

/// How often some are sent.
const BEAT: Duration = Duration::from_millis(5);

/// The longest that an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What became of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    TurnedAway,
    /// Another answer, or none.
    Failed,
}

/// What became of each ask, as it is answered.
pub(crate) type Outcomes = mpsc::UnboundedReceiver<(Outcome, Duration)>;

/// Everybody who asks, each with a connection.
pub(crate) struct Flood {
    url: String,
    people: Vec<(reqwest::Client, String)>,
    bodies: Bodies,
}

/// Asks that nobody has made before.
struct Bodies(AtomicUsize);

impl Bodies {
    fn next(&self) -> String {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        serde_json::to_string(&desk::ask("staging-1", seed(4, number))).unwrap()
    }
}

/// TLS that trusts the server's own certificate.
pub(crate) fn trust(folder: &Path, alpn: &[u8]) -> rustls::ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("tls.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

/// Says why, of the first few.
fn failed(why: &str) -> Outcome {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    if TOLD.fetch_add(1, Ordering::Relaxed) < 3 {
        println!("failed: {why}");
    }
    Outcome::Failed
}

impl Flood {
    pub(crate) async fn new(server: &Server, folder: &Path, plan: &Plan) -> Self {
        let mut people = Vec::new();
        for place in 0..plan.connections {
            let builder = reqwest::Client::builder().tls_backend_preconfigured(trust(folder, b"h2")).no_proxy();
            let client = builder.timeout(TIMEOUT).build().unwrap();
            for place in desk::people_on(place)..desk::people_on(place + 1) {
                people.push((client.clone(), desk::token(server, &format!("p{place}"), place).await));
            }
        }
        Self { url: format!("{}/v1/requests", server.url), people, bodies: Bodies(AtomicUsize::new(0)) }
    }

    fn ask(&self, person: usize, body: String) -> impl Future<Output = Outcome> + Send + 'static {
        let (client, token) = &self.people[person];
        let request = client.post(&self.url).bearer_auth(token).header("content-type", "application/json").body(body);
        async move {
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => return failed(&format!("{error:?}")),
            };
            let status = answer.status();
            let text = match answer.text().await {
                Ok(text) => text,
                Err(error) => return failed(&format!("{error:?}")),
            };
            match status {
                StatusCode::OK => Outcome::Done,
                StatusCode::SERVICE_UNAVAILABLE if text.contains("\"busy\"") => Outcome::TurnedAway,
                _ => failed(&format!("{status} {text}")),
            }
        }
    }

    /// Asks per second when each connection has one under way.
    pub(crate) async fn ceiling(&self, length: Duration) -> f64 {
        let began = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        let mut done = 0_usize;
        for person in (0..self.people.len()).step_by(desk::people_on(1)) {
            let one = self.ask(person, self.bodies.next());
            all.spawn(async move { (person, one.await) });
        }
        while let Some(answered) = all.join_next().await {
            let (person, outcome) = answered.unwrap();
            done += usize::from(outcome == Outcome::Done);
            if began.elapsed() < length {
                // The next of those who share the connection.
                let first = person - person % desk::people_on(1);
                let person = first + (person + 1) % desk::people_on(1);
                let one = self.ask(person, self.bodies.next());
                all.spawn(async move { (person, one.await) });
            }
        }
        done as f64 / began.elapsed().as_secs_f64()
    }

    /// What is needed for so many a second for so long: made before, since making a key takes the sender about as long as asking.
    pub(crate) fn prepare(&self, per_second: f64, length: Duration) -> Vec<String> {
        (0..(per_second * length.as_secs_f64()) as usize).map(|_| self.bodies.next()).collect()
    }

    /// Sends these, so many a second; how many a second were really sent, and where it is told what becomes of each how long after it was due.
    pub(crate) async fn send(&self, bodies: Vec<String>, per_second: f64) -> (f64, Outcomes) {
        let total = bodies.len();
        let (told, outcomes) = mpsc::unbounded_channel();
        let began = Instant::now();
        let mut sent = 0_usize;
        let mut bodies = bodies.into_iter();
        while sent < total {
            let due_now = ((began.elapsed().as_secs_f64() * per_second) as usize).min(total);
            while sent < due_now {
                let due = began + Duration::from_secs_f64(sent as f64 / per_second);
                let (one, told) = (self.ask(sent % self.people.len(), bodies.next().unwrap()), told.clone());
                tokio::spawn(async move {
                    let outcome = one.await;
                    told.send((outcome, due.elapsed())).unwrap();
                });
                sent += 1;
            }
            tokio::time::sleep(BEAT).await;
        }
        (sent as f64 / began.elapsed().as_secs_f64(), outcomes)
    }
}
