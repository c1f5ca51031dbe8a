//! The accept loop: TLS with deadlines, a cap on connections, reload, drain.
//!
//! *Why HTTP/1 or HTTP/2 by the TLS handshake's answer and not by looking at the first bytes?* The looking has no deadline: who says
//! nothing after the handshake would hold a connection for ever.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::admission::LastCaller;
use super::caller::Peer;
use super::metrics::Counted;
use super::repeated::Repeated;
use super::tls::Certificates;
use super::{App, Settings};
use crate::service::Service;

/// Longest TLS handshake. Our own choice: three slow round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which answers are owed and nothing moves is cut after so many request timeouts: one is the handler's own.
const STALL_TIMEOUTS: u32 = 2;

/// An HTTP/2 connection is asked for a sign of life this often, and must give it within [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// See [`PING_INTERVAL`].
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection with nothing under way has to end after it was told to.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest drain after a stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a head (and of an HTTP/1 read buffer). Our own choice; a bearer token and a URL need less than 1 KiB.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Most header lines.
const HEADERS_MAX: usize = 64;

/// Most exchanges at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;

/// Most resets a peer may leave us to clean up before the connection is closed (rapid reset, CVE-2023-44487).
const RESETS_MAX: usize = 32;

/// How long to wait after a failed accept (no file descriptors left), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves on `listener` until `stop` resolves, then drains for at most 10 seconds.
///
/// The caller binds the listener (to `settings.listen`) before it starts the service: a taken port is found before anything is written, and with port 0 the public
/// URL can name the real port.
///
/// A message on `reload` reads the certificate files again; a broken file keeps the old pair.
///
/// # Errors
/// When it can't read the certificate; in words for the operator.
pub async fn serve(
    service: Arc<Service>,
    settings: Settings,
    listener: std::net::TcpListener,
    mut reload: mpsc::Receiver<()>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), String> {
    let certificates = Certificates::load(&settings.tls)?;
    let tls = TlsAcceptor::from(Arc::new(certificates.config()?));
    let unusable = |e: std::io::Error| format!("cannot listen on {}: {e}", settings.listen);
    listener.set_nonblocking(true).map_err(unusable)?;
    let listener = TcpListener::from_std(listener).map_err(unusable)?;
    let app = App::new(service, &settings);
    let door = Door { router: app.router(), tls, app: app.clone() };
    let free = Arc::new(Semaphore::new(settings.connections_max));
    let mut failed_accepts = Repeated::default();
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(()) = reload.recv() => match certificates.reload() {
                Ok(()) => tracing::info!("TLS certificate read again"),
                Err(why) => tracing::error!(%why, "TLS certificate not read again; the old one stays in use"),
            },
            Some(_) = connections.join_next() => {}
            (place, accepted) = accept(&listener, &free) => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(door.clone().hold(stream, peer, place));
                }
                Err(error) => {
                    if let Some(times) = failed_accepts.count(Instant::now()) {
                        tracing::error!(%error, times, "cannot accept connections");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    app.stop.send_replace(true);
    let drained = tokio::time::timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "connections cut at the end of the drain");
        connections.shutdown().await;
    }
    Ok(())
}

/// A connection once there is room for one; until then callers wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, std::io::Result<(TcpStream, SocketAddr)>) {
    // The semaphore is never closed.
    let place = Arc::clone(free).acquire_owned().await.ok();
    (place, listener.accept().await)
}

/// What a connection needs.
#[derive(Clone)]
struct Door {
    router: Router,
    tls: TlsAcceptor,
    app: App,
}

impl Door {
    /// One connection, from the handshake to its end.
    async fn hold(self, stream: TcpStream, peer: SocketAddr, place: Option<OwnedSemaphorePermit>) {
        let _place = place;
        let Some(_share) = self.app.limits.connection(peer.ip()) else {
            return tracing::warn!(%peer, "too many connections from this address");
        };
        let Some(handshake) = self.app.limits.handshake(peer.ip()) else {
            return tracing::warn!(%peer, "too many connections that say nothing");
        };
        let _counted = Counted::new(&self.app.metrics.connections);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        };
        drop(handshake);
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let (router, work) = (self.router, Work::default());
        let (under_way, last_caller) = (work.clone(), LastCaller::default());
        let exchange = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(last_caller.clone());
            let (router, busy) = (router.clone(), under_way.begin());
            async move { router.oneshot(request).await.map(|answer| answer.map(|body| Tracked { body, busy })) }
        });
        let builder = builder(is_http2, self.app.request_timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), exchange);
        tokio::pin!(connection);
        let mut stop = self.app.stop.subscribe();
        let stall = self.app.request_timeout.saturating_mul(STALL_TIMEOUTS);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = async { stop.wait_for(|stop| *stop).await.map(drop).unwrap_or_default() } => None,
            () = work.idle_for(self.app.request_timeout) => None,
            () = work.stalled_for(stall) => return tracing::debug!(%peer, "answers are not taken; connection cut"),
        };
        let ended = match ended {
            Some(ended) => ended,
            // What is under way goes on to its end; a peer that does not even listen is not waited for.
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = work.idle_for(FAREWELL_TIMEOUT) => return,
                    () = work.stalled_for(stall) => return tracing::debug!(%peer, "answers are not taken; connection cut"),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

/// What is under way on one connection, event streams included.
#[derive(Clone, Default)]
struct Work(watch::Sender<Load>);

/// See [`Work`].
#[derive(Clone, Copy, Default)]
struct Load {
    /// Exchanges under way.
    under_way: usize,
    /// Those of them that do not wait for us to have something to say: their next step is the peer's (or the handler's, which
    /// has a deadline of its own).
    owed: usize,
}

/// One exchange under way; over when dropped.
struct Busy {
    load: watch::Sender<Load>,
    is_owed: bool,
}

impl Work {
    fn begin(&self) -> Busy {
        self.0.send_modify(|load| {
            load.under_way = load.under_way.saturating_add(1);
            load.owed = load.owed.saturating_add(1);
        });
        Busy { load: self.0.clone(), is_owed: true }
    }

    /// Resolves once nothing was under way for so long. Without it an idle HTTP/2 connection would keep its place for ever.
    async fn idle_for(&self, limit: Duration) {
        self.still_for(limit, |load| load.under_way == 0).await;
    }

    /// Resolves once something was under way, and nothing of it moved, for so long. Without it a peer that reads no answer
    /// (or gives HTTP/2 no window, and answers pings) would keep its place for ever. An event stream with nothing to say does
    /// not count.
    async fn stalled_for(&self, limit: Duration) {
        self.still_for(limit, |load| load.owed > 0).await;
    }

    /// Resolves once `held` was true for so long without any change.
    async fn still_for(&self, limit: Duration, held: impl Fn(&Load) -> bool) {
        let mut load = self.0.subscribe();
        loop {
            let is_held = held(&load.borrow_and_update());
            let changed = async { load.changed().await.unwrap_or_default() };
            if !is_held {
                changed.await;
            } else if tokio::time::timeout(limit, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Busy {
    /// A piece of the answer was taken up (`true`), or is waited for from us.
    fn moved(&mut self, has_piece: bool) {
        let was_owed = std::mem::replace(&mut self.is_owed, has_piece);
        self.load.send_if_modified(|load| {
            match (was_owed, has_piece) {
                (true, false) => load.owed = load.owed.saturating_sub(1),
                (false, true) => load.owed = load.owed.saturating_add(1),
                (true, true) | (false, false) => {}
            }
            has_piece || was_owed
        });
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.load.send_modify(|load| {
            load.under_way = load.under_way.saturating_sub(1);
            if self.is_owed {
                load.owed = load.owed.saturating_sub(1);
            }
        });
    }
}

/// An answer's body; its exchange is under way until it is sent or given up.
struct Tracked {
    body: Body,
    busy: Busy,
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.busy.moved(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// HTTP with limits. A whole head must come within `head_timeout`, which is also how long an idle HTTP/1 connection is kept.
fn builder(is_http2: bool, head_timeout: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(usize::try_from(HEAD_BYTES_MAX).unwrap_or(usize::MAX))
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    if is_http2 { builder.http2_only() } else { builder.http1_only() }
}
