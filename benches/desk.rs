//! The real service for benchmarks: its policy, its people, and what they do over HTTP.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hallpass::audit::checkpoint::LogKey;
use hallpass::client::{Client, Server};
use hallpass::http::{self, TlsFiles};
use hallpass::identity::challenge::statement;
use hallpass::identity::mac::MacKey;
use hallpass::name::PersonName;
use hallpass::service::{FirstPolicy, Parts, Service, Settings, SystemRandom};
use hallpass::signer::file::{self, FileSigner};
use hallpass::ssh::cert::Purpose;
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::LOGIN_NAMESPACE;
use hallpass::store::head_file::HeadFile;
use hallpass::store::{SEAL_PURPOSE, Store};
use hallpass::time::{Clock, Lifetime, SystemClock};
use hallpass::wire;

/// Rules in the policy.
const RULES: usize = 1000;

/// What all nodes are called by.
const PUBLIC_URL: &str = "https://bench.example";

pub(crate) fn login_key(place: usize) -> LoginKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(place as u64).to_be_bytes());
    LoginKey::parse(SessionKey::generate(seed).to_openssh("bench").unwrap().as_bytes(), None).unwrap()
}

/// People 0 to `people` who ask, one who approves, and [`RULES`] rules of which the last two count.
pub(crate) fn policy(people: usize) -> String {
    let mut text = "version = 1\n[roles]\noperator = [\"person:omar\"]\n".to_owned();
    for place in 0..=people {
        let (name, group) = if place == people { ("omar".to_owned(), "sre") } else { (format!("p{place}"), "dev") };
        let key = login_key(place).public_key().to_openssh();
        writeln!(text, "[[person]]\nname = \"{name}\"\ngroups = [\"{group}\"]\nkeys = [\"{key}\"]").unwrap();
    }
    for host in ["web-1", "staging-1"] {
        writeln!(text, "[[host]]\nname = \"{host}\"\ntags = {{ role = \"{host}\" }}").unwrap();
    }
    for rule in 2..RULES {
        writeln!(
            text,
            "[[rule]]\nname = \"r{rule}\"\nwho = [\"group:dev\"]\nhosts = [\"h{rule}-*\"]\naccounts = [\"deploy\"]"
        )
        .unwrap();
    }
    text.push_str(
        "[[rule]]\nname = \"staging\"\nwho = [\"group:dev\"]\nhosts = [\"staging-1\"]\naccounts = [\"deploy\"]\n\
         [[rule]]\nname = \"web\"\nwho = [\"group:dev\"]\nhosts = [\"web-*\"]\naccounts = [\"deploy\"]\n\
         approval = [{ need = 1, from = [\"group:sre\"] }]\n",
    );
    text
}

/// What the log key derives for the store.
pub(crate) fn seal() -> MacKey {
    log_key().derive(SEAL_PURPOSE)
}

pub(crate) fn log_key() -> LogKey {
    LogKey::new("bench.example/log", &[1; 32]).unwrap()
}

/// Starts the real service on this store, by the machine's clock; its URL and pin. Nodes that share a store share the folder, but for `node`'s own
/// files.
pub(crate) async fn serve(folder: &Path, node: usize, people: usize, store: Box<dyn Store>) -> Server {
    let service = service(folder, node, people, store, Arc::new(SystemClock)).await;
    tokio::spawn(Arc::clone(&service).follow());
    tokio::spawn(tick(Arc::clone(&service)));
    listen(folder, service)
}

/// What is due each second, as `hallpass serve` has it done.
async fn tick(service: Arc<Service>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        if service.tick().await.is_err() {
            // At the end the store is gone before we are.
            return;
        }
    }
}

/// The real service, nowhere to be reached.
pub(crate) async fn service(
    folder: &Path,
    node: usize,
    people: usize,
    store: Box<dyn Store>,
    clock: Arc<dyn Clock>,
) -> Arc<Service> {
    let ca = file::Settings { path: folder.join("ca"), passphrase_path: None };
    if !ca.path.exists() {
        FileSigner::create(&ca.path, "bench", None).unwrap();
    }
    let parts = Parts {
        store,
        kept_head: Arc::new(HeadFile::new(folder.join(format!("head-{node}")))),
        next: Vec::new(),
        host_signer: None,
        host_next: Vec::new(),
        accepted_ca: None,
        trusted: Vec::new(),
        named: Default::default(),
        signer: Arc::new(FileSigner::open(&ca, Purpose::User).unwrap()),
        log_key: log_key(),
        clock,
        random: Box::new(SystemRandom),
        settings: Settings {
            public_url: PUBLIC_URL.to_owned(),
            session: Lifetime::minutes(60),
            open_requests_max: u64::from(u32::MAX),
            sign_timeout: Duration::from_secs(5),
            rotation: hallpass::service::Rotation::default(),
        },
    };
    let first = FirstPolicy { text: policy(people), file: "policy.toml".to_owned() };
    Service::start(parts, Some(first)).await.unwrap()
}

/// Serves it on an address of its own.
fn listen(folder: &Path, service: Arc<Service>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tls = TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    let pin = http::ensure_certificate(&tls, &["127.0.0.1".to_owned()]).unwrap();
    let settings = http::Settings {
        listen: address,
        tls,
        body_bytes_max: 256 * 1024,
        request_timeout: Duration::from_secs(30),
        connections_max: 4096,
        rate_per_s: 1_000_000,
        rate_burst: 1_000_000,
        sandbox: hallpass::sandbox::Standing::default(),
        calls_at_once: 48,
    };
    tokio::spawn(async move {
        let (_reload, reloads) = tokio::sync::mpsc::channel(1);
        http::serve(service, settings, listener, reloads, std::future::pending()).await.unwrap();
    });
    Server { url: format!("https://{address}"), pin: Some(pin), proxy: None }
}

pub(crate) async fn log_in(server: &Server, person: &str, place: usize) -> Client {
    let token = token(server, person, place).await;
    Client::new(server.clone(), Some(token.into()), Duration::from_secs(30)).unwrap()
}

/// How many people share a connection.
const SHARING: usize = 16;

/// People who share a connection and take turns, so that none has many requests open.
pub(crate) struct Askers {
    sessions: Vec<Client>,
    turn: usize,
}

/// How many people there are on so many connections.
pub(crate) const fn people_on(connections: usize) -> usize {
    connections * SHARING
}

impl Askers {
    /// Those of one connection, all logged in.
    pub(crate) async fn log_in(server: &Server, connection: usize) -> Self {
        let first = connection * SHARING;
        let mut sessions = vec![log_in(server, &format!("p{first}"), first).await];
        for place in first + 1..first + SHARING {
            let token = token(server, &format!("p{place}"), place).await;
            sessions.push(sessions[0].for_session(token.into()));
        }
        Self { sessions, turn: 0 }
    }

    pub(crate) fn next(&mut self) -> &Client {
        self.turn = (self.turn + 1) % self.sessions.len();
        &self.sessions[self.turn]
    }
}

/// The token of a new session.
pub(crate) async fn token(server: &Server, person: &str, place: usize) -> String {
    let nobody = Client::new(server.clone(), None, Duration::from_secs(30)).unwrap();
    let challenge: wire::Challenge = nobody.post("/v1/login/challenge", &()).await.unwrap();
    let key = login_key(place);
    let text = statement(&challenge.server, &PersonName::parse(person).unwrap(), &challenge.challenge);
    let answer = wire::LoginAnswer {
        person: person.to_owned(),
        challenge: challenge.challenge,
        key: key.public_key().to_openssh(),
        signature: key.sign(LOGIN_NAMESPACE, text.as_bytes()).unwrap(),
    };
    let session: wire::NewSession = nobody.post("/v1/login/ssh", &answer).await.unwrap();
    session.token.to_string()
}

/// An ask for this host, for a fresh key.
pub(crate) fn ask(host: &str, seed: [u8; 32]) -> wire::Ask {
    wire::Ask {
        targets: vec![host.to_owned()],
        account: Some("deploy".to_owned()),
        reason: "INC-1 look at the logs".to_owned(),
        key: Some(SessionKey::generate(seed).public_key().to_openssh()),
        ..wire::Ask::default()
    }
}

/// One certificate: asked, approved if somebody must, and fetched. One key, one request: a fresh one each, made here as clients do.
pub(crate) async fn issue(asker: &Client, approver: Option<&Client>, seed: [u8; 32]) {
    let ask = ask(if approver.is_some() { "web-1" } else { "staging-1" }, seed);
    let wire::Access { request: asked, certificate } = asker.post("/v1/certificates", &ask).await.unwrap();
    let Some(approver) = approver else {
        black_box(certificate.unwrap());
        return;
    };
    let approve = wire::Approve { digest: asked.digest, ..wire::Approve::default() };
    let path = format!("/v1/requests/{}/approve", asked.id);
    approver.post::<_, wire::Request>(&path, &approve).await.unwrap();
    let path = format!("/v1/requests/{}/certificate", asked.id);
    black_box(asker.post::<_, wire::Certificate>(&path, &()).await.unwrap());
}
