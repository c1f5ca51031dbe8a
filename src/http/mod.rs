//! The server of the API and the pages: router, limits, TLS, shutdown.
//!
//! What for: the one way in from the network. A handler takes who is calling ([`caller`]), parses what came ([`extract`]), makes one
//! service call and shows the result ([`show`]). Routes and the `OpenAPI` document come from the same lines ([`openapi`]).
//!
//! Beside the API stand the pages for people ([`web`]), with the same service calls behind them.
//!
//! What not: no decision. What a person may do or see is the service's; here is only who they are, what they sent, and how
//! its answer looks in JSON.
//!
//! Each exchange passes, from outside in: TLS with deadlines and a cap on connections ([`server`], [`tls`]); a trace id,
//! deadline, panic barrier, problem bodies and headers ([`exchange`]); the body limit; then the handler, whose first argument says
//! who may call it: [`caller::Caller`] (a person with a live session, rate-limited by person), [`caller::HostCaller`] (an enrolled host,
//! rate-limited by host) or [`caller::Anyone`] (rate-limited by address); for pages `web::visitor`'s (a browser with a live session). With its
//! caller known and its body read, a call waits its turn ([`admission`]): so many of each kind are done at once, and what comes in too large
//! numbers is turned away soon.
//!
//! Invariants:
//! - Every answer that is not a success is RFC 9457 `application/problem+json` with a stable code ([`error`]), made in one place; for
//!   who looks at a page it is a page with the same code.
//!   The exceptions are below us: what is no HTTP, or has too large a head, is answered by the HTTP library with a bare status.
//! - Nothing that came from outside is given back unescaped, nor becomes a metric label.
//! - The caller's address is the socket's; `Forwarded` and its like are not read.
//! - Nothing waits without limit, and nothing grows without limit: bodies, heads, streams, connections, rates, calls under way and waiting.
//!
//! *Why no TLS-less mode for a proxy in front?* Bearer tokens would cross a network segment in the clear by one wrong setting.
//!
//! *Why are `/metrics`, `/readyz` and `/healthz` open?* They name nobody and nothing; a scraper should hold no session.

mod admission;
mod ca;
mod caller;
mod decide;
mod error;
mod events;
mod exchange;
mod extract;
mod figures;
mod host;
mod host_events;
mod inventory;
mod limit;
mod log;
mod login;
mod metrics;
pub mod openapi;
mod policy;
mod probes;
mod process;
mod repeated;
mod requests;
mod server;
mod show;
mod stream;
mod tls;
mod web;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::sandbox::Standing;
use crate::service::Service;
pub use error::CODES;
pub use server::serve;
pub use tls::ensure_certificate;

/// Limits and addresses of the server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificate chain and key, PEM. Read again at SIGHUP.
    pub tls: TlsFiles,
    /// Longest request body: 256 KiB by default.
    pub body_bytes_max: usize,
    /// Longest time for a request, without event streams; also for the arrival of its head, and of an idle connection's next one.
    /// Clients close idle connections after 20 s, so it should be longer.
    pub request_timeout: Duration,
    /// Most connections at once; one address may hold half of them.
    pub connections_max: usize,
    /// Requests per person (or address before login) and second, and the burst allowed.
    pub rate_per_s: u32,
    /// Burst.
    pub rate_burst: u32,
    /// What the process denies itself, for the figures.
    pub sandbox: Standing,
    /// How many calls of a kind (logins, asks, certificates, decisions, reads, hosts') are done at once; the others wait their turn. 48 by
    /// default: five kinds write, and what they have under way then fits into one group of the store's (256), so that whoever has a place
    /// waits for the commit that is being made and is in the next.
    pub calls_at_once: usize,
}

/// The server's certificate files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub certificate: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// What every handler can reach.
#[derive(Clone, Debug)]
struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    service: Arc<Service>,
    limits: limit::Limits,
    lanes: admission::Lanes,
    metrics: metrics::Metrics,
    request_timeout: Duration,
    body_bytes_max: usize,
    document: String,
    ready: probes::LastReady,
    streams: stream::Streams,
    /// Becomes true when the server stops; event streams then end.
    stop: watch::Sender<bool>,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The router over a service: the same one in the server and in tests. Event streams end only with their connection.
pub fn router(service: Arc<Service>, settings: &Settings) -> axum::Router {
    App::new(service, settings).router()
}

impl App {
    fn new(service: Arc<Service>, settings: &Settings) -> Self {
        let metrics = metrics::Metrics::new(Arc::clone(&service), settings.sandbox);
        Self(Arc::new(Parts {
            lanes: admission::Lanes::new(settings.calls_at_once, &metrics.admission),
            metrics,
            service,
            limits: limit::Limits::new(settings.rate_per_s, settings.rate_burst, settings.connections_max),
            request_timeout: settings.request_timeout,
            body_bytes_max: settings.body_bytes_max,
            document: openapi::document(),
            ready: probes::LastReady::default(),
            streams: stream::Streams::new(),
            stop: watch::Sender::new(false),
        }))
    }

    fn router(&self) -> axum::Router {
        let (routes, _) = openapi::api().split_for_parts();
        exchange::wrap(routes.merge(web::routes()), self).with_state(self.clone())
    }
}
