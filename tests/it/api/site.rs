//! A running server: the real service of a [`World`], the real router, TLS on loopback, and clients for it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hallpass::client::{Client, ClientError, Server};
use hallpass::http::{self, TlsFiles};
use hallpass::identity::challenge::statement;
use hallpass::ssh::sig::LOGIN_NAMESPACE;
use hallpass::wire;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::support::{World, login_key, person, policy};

/// A running server.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) pin: String,
    pub(crate) settings: http::Settings,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    reload: mpsc::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

impl Site {
    /// One that has just begun.
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// One with other limits.
    pub(crate) async fn with(change: impl FnOnce(&mut http::Settings)) -> Self {
        let mut world = World::unstarted(Duration::from_secs(30));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        world.settings.public_url = format!("https://{address}");
        world.settings.open_requests_max = 10_000;
        world.try_start(Some(&policy())).await.unwrap();
        let folder = world.folder.path();
        let tls = TlsFiles { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        let pin = http::ensure_certificate(&tls, &["127.0.0.1".to_owned()]).unwrap();
        let mut settings = http::Settings {
            listen: address,
            tls,
            body_bytes_max: 256 * 1024,
            request_timeout: Duration::from_secs(30),
            connections_max: 100,
            rate_per_s: 100_000,
            rate_burst: 100_000,
            sandbox: hallpass::sandbox::Standing::default(),
            calls_at_once: 48,
        };
        change(&mut settings);
        let mut site = Self { world, pin, settings, running: None };
        site.serve(listener);
        site
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel();
        let (reload, reloads) = mpsc::channel(1);
        let (service, settings) = (Arc::clone(self.world.service()), self.settings.clone());
        let task = tokio::spawn(async move {
            http::serve(service, settings, listener, reloads, async { stopped.await.unwrap_or(()) }).await
        });
        self.running = Some(Running { stop, reload, task });
    }

    /// Stops the server the orderly way.
    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
    }

    /// Starts server and service anew, at the same address, on what the store holds.
    pub(crate) async fn start(&mut self) {
        self.world.restart().await;
        self.serve(TcpListener::bind(self.settings.listen).unwrap());
    }

    /// Tells the server to read its certificate again, as SIGHUP does.
    pub(crate) async fn reload(&self) {
        self.running.as_ref().unwrap().reload.send(()).await.unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.settings.listen)
    }

    /// A client with this token.
    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        self.client_for(token, Duration::from_secs(20))
    }

    /// The same with so much time for each call.
    pub(crate) fn client_for(&self, token: Option<&str>, timeout: Duration) -> Client {
        let server = Server { url: self.url(), pin: Some(self.pin.clone()), proxy: None };
        Client::new(server, token.map(Into::into), timeout).unwrap()
    }

    /// The body of a login by this person, for a fresh challenge.
    pub(crate) async fn answer(&self, name: &str) -> wire::LoginAnswer {
        let challenge: wire::Challenge = self.client(None).post("/v1/login/challenge", &()).await.unwrap();
        answer_to(&challenge, name, name)
    }

    /// Logs in over the API; the token.
    pub(crate) async fn token(&self, name: &str) -> String {
        let answer = self.answer(name).await;
        let session: wire::NewSession = self.client(None).post("/v1/login/ssh", &answer).await.unwrap();
        session.token.to_string()
    }

    /// Logs in over the API, for the proof alone.
    pub(crate) async fn proven(&self, name: &str) -> hallpass::identity::Proven {
        self.world.service().caller(&self.token(name).await).await.unwrap().0
    }

    /// A client that is logged in.
    pub(crate) async fn logged_in(&self, name: &str) -> Client {
        self.client(Some(&self.token(name).await))
    }

    /// An ask for this host with a fresh key.
    pub(crate) fn ask(&self, host: &str, account: &str) -> wire::Ask {
        wire::Ask {
            targets: vec![host.to_owned()],
            account: Some(account.to_owned()),
            reason: "INC-1 look at the logs".to_owned(),
            key: Some(self.world.fresh_key().to_openssh()),
            ..wire::Ask::default()
        }
    }

    /// A TLS connection that speaks HTTP/1.1, to say anything on.
    pub(crate) async fn raw(&self) -> TlsStream<TcpStream> {
        self.raw_as(b"http/1.1").await
    }

    /// A TLS connection that promises to speak this protocol.
    pub(crate) async fn raw_as(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.tls(&[protocol])));
        let stream = TcpStream::connect(self.settings.listen).await.unwrap();
        connector.connect(name_of(self.settings.listen), stream).await.unwrap()
    }

    /// An HTTP client that sends anything.
    pub(crate) fn http(&self) -> reqwest::Client {
        let tls = self.tls(&[b"h2", b"http/1.1"]);
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
    }

    /// The same, which shows redirections and does not follow them.
    pub(crate) fn http_as_it_is(&self) -> reqwest::Client {
        let tls = self.tls(&[b"h2", b"http/1.1"]);
        let stays = reqwest::redirect::Policy::none();
        reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().redirect(stays).build().unwrap()
    }

    fn tls(&self, alpn: &[&[u8]]) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.settings.tls.certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}

fn name_of(address: SocketAddr) -> ServerName<'static> {
    ServerName::from(address.ip())
}

/// The answer to this challenge in the name of one person, with the key of one.
pub(crate) fn answer_to(challenge: &wire::Challenge, name: &str, holder: &str) -> wire::LoginAnswer {
    let key = login_key(holder);
    let text = statement(&challenge.server, &person(name), &challenge.challenge);
    wire::LoginAnswer {
        person: person(name).to_string(),
        challenge: challenge.challenge.clone(),
        key: key.public_key().to_openssh(),
        signature: key.sign(LOGIN_NAMESPACE, text.as_bytes()).unwrap(),
    }
}

/// The problem that a call ended in.
pub(crate) fn problem<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> wire::Problem {
    match outcome {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("expected a problem, got {other:?}"),
    }
}
