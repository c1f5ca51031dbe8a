//! Clients under load that never give up, and the ledger of all that they were told.
//!
//! Each client goes from key to key: it asks, fetches the certificate, and mostly gives the access back. Whatever goes wrong, it does the
//! same again with the same key, as a person would. Where the service is, and whether it runs, the clients are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hallpass::client::ClientError;
use hallpass::name::RequestId;
use hallpass::ssh::private::SessionKey;
use hallpass::wire;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::server::Server;
use super::story::{ALICE, Connection, PEOPLE};

/// How long recovery may take without hands (and the machine may be busy).
const RECOVERY: Duration = Duration::from_secs(30);

/// When a client gives up on a key: then something is lost for good.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two attempts.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How many clients there are.
const CLIENTS: u32 = 8;

/// Of so many requests one is left as it is, so that there are open ones; the others are ended, since a person may have only so many.
const LEFT_OPEN: u32 = 16;

/// Something that a client was told.
#[derive(Clone, Debug)]
pub(super) struct Fact {
    pub(super) key: u32,
    pub(super) id: RequestId,
    pub(super) certificate: Option<String>,
    pub(super) ended: bool,
}

impl Fact {
    /// That there is this request for this key.
    pub(super) fn asked(key: u32, id: RequestId) -> Self {
        Self { key, id, certificate: None, ended: false }
    }

    /// As the checker reads it.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut fact =
            serde_json::json!({ "key": public_key(self.key), "id": self.id.to_string(), "ended": self.ended });
        if let Some(line) = &self.certificate {
            fact["certificate"] = line.clone().into();
        }
        fact
    }

    /// The serial of its certificate.
    pub(super) fn serial(&self) -> Option<u64> {
        let certificate = hallpass::ssh::cert::Certificate::parse_openssh(self.certificate.as_ref()?).unwrap();
        Some(certificate.tbs().fields().serial.number())
    }
}

/// The bytes of a client's key.
pub(super) fn bytes_of(key: u32) -> [u8; 32] {
    let mut bytes = [78; 32];
    bytes[..4].copy_from_slice(&key.to_be_bytes());
    bytes
}

fn public_key(key: u32) -> String {
    SessionKey::generate(bytes_of(key)).public_key().to_openssh()
}

/// What the clients share.
struct Shared {
    next: AtomicU32,
    is_over: AtomicBool,
    failures: AtomicUsize,
    facts: Mutex<Vec<Fact>>,
}

/// The clients, and where they call.
pub(super) struct Load {
    shared: Arc<Shared>,
    server: watch::Sender<Option<Connection>>,
    clients: JoinSet<()>,
}

impl Load {
    /// Logs everybody in, and begins.
    pub(super) async fn start(server: &Server) -> Self {
        let mut connection = Connection::to(server.url.as_ref().unwrap(), BTreeMap::new()).await.unwrap();
        for (who, n) in PEOPLE {
            connection.login(who, n).await.unwrap();
        }
        let shared = Arc::new(Shared {
            next: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
            failures: AtomicUsize::new(0),
            facts: Mutex::default(),
        });
        let (server, called) = watch::channel(Some(connection));
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client(Arc::clone(&shared), called.clone()));
        }
        Self { shared, server, clients }
    }

    /// Where the service is now; its sessions are still good.
    pub(super) async fn call(&self, server: &Server) {
        let tokens = self.connection().tokens;
        self.server.send_replace(Some(Connection::to(server.url.as_ref().unwrap(), tokens).await.unwrap()));
    }

    pub(super) fn connection(&self) -> Connection {
        self.server.borrow().clone().unwrap()
    }

    /// All that was told so far.
    pub(super) fn facts(&self) -> Vec<Fact> {
        self.shared.facts.lock().unwrap().clone()
    }

    /// How many attempts failed so far.
    fn failures(&self) -> usize {
        self.shared.failures.load(Ordering::SeqCst)
    }

    /// Waits until so many more attempts have failed.
    pub(super) async fn fail(&self, more: usize) {
        let wanted = self.failures() + more;
        while self.failures() < wanted {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until so many more certificates were handed out, each client got two more keys' at least; how long the first took.
    pub(super) async fn works(&self, more: usize) -> Duration {
        let certificates = || self.facts().iter().filter(|fact| fact.certificate.is_some()).count();
        let (began, before) = (Instant::now(), certificates());
        let recovered = async {
            while certificates() == before {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            began.elapsed()
        };
        let took = timeout(RECOVERY, recovered).await.expect("it recovers without hands");
        while certificates() < before + more {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        took
    }

    /// Lets every client finish what it began; all that was told.
    pub(super) async fn finish(self) -> (Connection, Vec<Fact>) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let connection = self.connection();
        self.clients.join_all().await;
        let facts = self.shared.facts.lock().unwrap().clone();
        (connection, facts)
    }
}

/// One client.
async fn client(shared: Arc<Shared>, server: watch::Receiver<Option<Connection>>) {
    while !shared.is_over.load(Ordering::SeqCst) {
        let key = shared.next.fetch_add(1, Ordering::SeqCst);
        let tell = |fact: Fact| shared.facts.lock().unwrap().push(fact);
        let asked =
            again(
                &shared,
                &server,
                move |called: Connection| async move { called.ask_with("dev-1", bytes_of(key)).await },
            )
            .await;
        let id = RequestId::parse(&asked.id).unwrap();
        tell(Fact::asked(key, id));
        // Twice: it is the same.
        for _ in 0..2 {
            let got = again(&shared, &server, move |called: Connection| async move { called.fetch(id).await }).await;
            tell(Fact { certificate: Some(got.certificate), ..Fact::asked(key, id) });
        }
        if !key.is_multiple_of(LEFT_OPEN) {
            again(&shared, &server, move |called: Connection| async move { end(&called, id).await }).await;
            tell(Fact { ended: true, ..Fact::asked(key, id) });
        }
    }
}

/// Gives the access back, unless that is done.
async fn end(called: &Connection, id: RequestId) -> Result<(), ClientError> {
    if called.look(ALICE, id).await?.state == "ended" {
        return Ok(());
    }
    let why = wire::Why { reason: "done".to_owned() };
    called.act(ALICE, id, "end", &why).await.map(drop)
}

/// Does it until it is done.
async fn again<T, F: Future<Output = Result<T, ClientError>>>(
    shared: &Shared,
    server: &watch::Receiver<Option<Connection>>,
    act: impl Fn(Connection) -> F,
) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        let called = server.borrow().clone().unwrap();
        match act(called).await {
            Ok(done) => return done,
            // Away, or it says that it can't now. Anything else would be another fault than the one that is played.
            Err(ClientError::Problem(why)) if why.status < 500 => panic!("{why:?}"),
            Err(why) => assert!(Instant::now() < until, "{why:?}"),
        }
        shared.failures.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
