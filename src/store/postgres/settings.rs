//! Where the PostgreSQL server is and how to talk to it; never in plaintext over a network.
//!
//! Decision: *why is there no `sslmode`?* Its usual default connects in plaintext to a server that offers no TLS. Here a way to
//! the server is one of three, and only what cannot leave the machine goes without TLS; with TLS the server's certificate is always
//! checked, with its name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::secret;
use crate::store::StoreError;

/// The longest password file. Our own choice.
const PASSWORD_BYTES_MAX: usize = 4096;

/// How long a lost peer may leave sent bytes unacknowledged, and an idle connection unasked: well below a person's patience.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(Way);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Socket(PathBuf),
    Plain(String),
    Tls { host: String, ca_path: Option<PathBuf> },
}

impl Server {
    /// A Unix socket in this folder.
    #[must_use]
    pub const fn socket(folder: PathBuf) -> Self {
        Self(Way::Socket(folder))
    }

    /// TLS to this host; trusted is who the file vouches for, or the system's roots.
    #[must_use]
    pub const fn tls(host: String, ca_path: Option<PathBuf>) -> Self {
        Self(Way::Tls { host, ca_path })
    }

    /// Plaintext to this machine's own loopback address; `None` for any other.
    #[must_use]
    pub fn plain(host: String) -> Option<Self> {
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        is_loopback.then_some(Self(Way::Plain(host)))
    }

    /// The name or address that is connected to, unless it is a Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.0 {
            Way::Socket(_) => None,
            Way::Plain(host) | Way::Tls { host, .. } => Some(host),
        }
    }

    /// The file with the certificates that vouch for it, if it is not who the system trusts.
    #[must_use]
    pub fn ca_path(&self) -> Option<&Path> {
        match &self.0 {
            Way::Socket(_) | Way::Plain(_) => None,
            Way::Tls { ca_path, .. } => ca_path.as_deref(),
        }
    }

    /// For messages.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.0 {
            Way::Socket(folder) => folder.display().to_string(),
            Way::Plain(host) | Way::Tls { host, .. } => host.clone(),
        }
    }
}

/// The database and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The way to the server.
    pub server: Server,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// As whom.
    pub user: String,
    /// A file that holds the password, on one line.
    pub password_path: Option<PathBuf>,
    /// How many connections read at once; one more writes and one listens.
    pub connections: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How long a statement may wait for another node.
    pub lock_timeout: Duration,
    /// After how long the server gives up a node that stands still within a transaction, so that the others go on.
    pub idle_timeout: Duration,
}

/// How to connect, with everything read that is in files.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    /// How long any answer may take.
    pub(super) patience: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("patience", &self.patience).finish_non_exhaustive()
    }
}

fn refuse(why: String) -> StoreError {
    StoreError::Failed { doing: "connecting to the database", why }
}

impl Settings {
    /// Reads password and CA file.
    pub(super) fn connector(&self) -> Result<Connector, StoreError> {
        let mut config = Config::new();
        config.port(self.port).dbname(self.database.as_str()).user(self.user.as_str());
        config.application_name("hallpass").options(self.options());
        config.connect_timeout(self.connect_timeout).tcp_user_timeout(PEER_TIMEOUT).keepalives_idle(PEER_TIMEOUT);
        let trusted = match &self.server.0 {
            Way::Socket(folder) => {
                config.host_path(folder).ssl_mode(SslMode::Disable);
                Trusted::Nobody
            }
            Way::Plain(host) => {
                config.host(host.as_str()).ssl_mode(SslMode::Disable);
                Trusted::Nobody
            }
            Way::Tls { host, ca_path } => {
                config.host(host.as_str()).ssl_mode(SslMode::Require);
                ca_path.as_ref().map_or(Trusted::System, Trusted::File)
            }
        };
        if let Some(path) = &self.password_path {
            let named = |why: String| refuse(format!("the password file {path:?}: {why}"));
            let bytes = secret::read(path, PASSWORD_BYTES_MAX).map_err(named)?;
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            if line.is_empty() || line.contains(&b'\n') {
                return Err(named("it must hold one line".to_owned()));
            }
            config.password(line);
        }
        let tls = MakeRustlsConnect::new(trust(&trusted).map_err(refuse)?);
        let patience = self.statement_timeout.saturating_add(self.lock_timeout).saturating_add(self.connect_timeout);
        Ok(Connector { config, tls, patience })
    }

    /// What each session is told at its start. A search path of ours alone: nobody's objects elsewhere take the place of ours. Nothing is worth
    /// compiling. A node whose machine is gone is gone for the server soon, with what it held.
    ///
    /// A plan is made once for each statement of a connection, whatever is looked up, and finds each row by an index. Left to itself the server takes the
    /// small tables of its first minutes for what they stay, and keeps plans that read all of them, under the head's lock (`cargo bench --bench postgres`).
    fn options(&self) -> String {
        let Self { statement_timeout, lock_timeout, idle_timeout, .. } = self;
        format!(
            "-c search_path=hallpass,pg_temp -c statement_timeout={} -c lock_timeout={} \
             -c idle_in_transaction_session_timeout={} -c default_transaction_isolation=read\\ committed -c jit=off \
             -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_material=off \
             -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3",
            statement_timeout.saturating_add(*lock_timeout).as_millis(),
            lock_timeout.as_millis(),
            idle_timeout.as_millis()
        )
    }
}

/// Whom to believe that it is the server.
enum Trusted<'p> {
    /// There is no TLS, and so nobody's certificate: the system's need not be readable.
    Nobody,
    System,
    File(&'p PathBuf),
}

fn trust(trusted: &Trusted<'_>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    let path = match trusted {
        Trusted::Nobody => return Ok(builder.with_root_certificates(roots).with_no_client_auth()),
        Trusted::System => {
            let wrong = |error| format!("the system's trusted certificates cannot be read: {error}");
            return Ok(builder.with_platform_verifier().map_err(wrong)?.with_no_client_auth());
        }
        Trusted::File(path) => path,
    };
    let named = |why: String| format!("the CA file {path:?}: {why}");
    let found = CertificateDer::pem_file_iter(path).map_err(|error| named(error.to_string()))?;
    for certificate in found {
        let certificate = certificate.map_err(|error| named(error.to_string()))?;
        roots.add(certificate).map_err(|error| named(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(named("it holds no certificate".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_address_goes_without_tls() {
        for host in ["127.0.0.1", "127.8.8.8", "::1"] {
            assert!(Server::plain(host.to_owned()).is_some(), "{host}");
        }
        // A name may mean another machine tomorrow.
        for host in ["192.0.2.1", "::", "localhost", "db.example.com", ""] {
            assert!(Server::plain(host.to_owned()).is_none(), "{host}");
        }
    }

    #[test]
    fn a_server_over_a_network_is_asked_for_tls_and_nothing_less() {
        let settings = |server| Settings {
            server,
            port: 5432,
            database: "hallpass".to_owned(),
            user: "hallpass".to_owned(),
            password_path: None,
            connections: 1,
            connect_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(2),
            lock_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(4),
        };
        let mode = |server| settings(server).connector().unwrap().config.get_ssl_mode();
        assert_eq!(mode(Server::tls("db.example.com".to_owned(), None)), SslMode::Require);
        assert_eq!(mode(Server::plain("127.0.0.1".to_owned()).unwrap()), SslMode::Disable);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        crate::durable::replace(&path, b"no certificate\n", 0o600).unwrap();
        let error = settings(Server::tls("db.example.com".to_owned(), Some(path))).connector().unwrap_err().to_string();
        assert!(error.contains("it holds no certificate"), "{error}");
    }

    #[test]
    fn a_password_file_is_private_and_holds_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let with = |text: &str, mode: u32| {
            crate::durable::replace(&path, text.as_bytes(), mode).unwrap();
            let settings = Settings {
                server: Server::socket("/run".into()),
                port: 5432,
                database: "hallpass".to_owned(),
                user: "hallpass".to_owned(),
                password_path: Some(path.clone()),
                connections: 1,
                connect_timeout: Duration::from_secs(1),
                statement_timeout: Duration::from_secs(2),
                lock_timeout: Duration::from_secs(3),
                idle_timeout: Duration::from_secs(4),
            };
            settings.connector().map(|connector| connector.config.get_password().map(<[u8]>::to_vec))
        };
        assert_eq!(with("tea and toast\n", 0o600).unwrap(), Some(b"tea and toast".to_vec()));
        for (text, mode, wrong) in
            [("tea\n", 0o644, "password file"), ("", 0o600, "one line"), ("tea\ntoast\n", 0o600, "one line")]
        {
            let error = with(text, mode).unwrap_err().to_string();
            assert!(error.contains(wrong) && !error.contains("toast"), "{error}");
        }
    }
}
