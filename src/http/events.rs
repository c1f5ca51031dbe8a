//! `GET /v1/requests/{id}/events`: the present state of a request, then its state after each change, as server-sent events.
//!
//! Nothing is remembered between streams: whoever comes back is told the present state first, so neither a lost connection nor a
//! restarted server loses a change that matters.
//!
//! Before each event the session and the right to see the request are looked at anew; at each heartbeat the session. The stream ends
//! when either is gone, when the request is over, or when the server stops.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Frame;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Id, NoQuery};
use super::limit::Place;
use super::metrics::Counted;
use super::openapi::Problems;
use super::show;
use crate::name::{PersonName, RequestId, RequestPrefix};

/// A comment is sent after so much silence, so that both ends and everything between know that the stream lives.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(20);

/// Waits on a request: its state now, and after each change. Each event's data is a `Request`.
#[utoipa::path(get, path = "/v1/requests/{id}/events", tag = "requests",
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = crate::wire::Request, content_type = "text/event-stream"), Problems))]
pub(super) async fn events(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let place = app.limits.stream(caller.proven.person())?;
    // Listening before looking: a change between the two is then seen twice rather than never.
    let changes = app.service.changes();
    let view = app.service.view(&caller.proven, &id).await?;
    let watch = Watch {
        id: view.request.id(),
        prefix: RequestPrefix::parse(view.request.id().digits()).map_err(|e| Problem::invalid("id", &e))?,
        token: caller.into_token(),
        changes,
        stop: app.stop.subscribe(),
        sent: String::new(),
        beat: Instant::now() + HEARTBEAT,
        is_first: true,
        is_last: false,
        _counted: Counted::new(&app.metrics.streams),
        _place: place,
        app,
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Body::new(Unfold::new(watch))).into_response())
}

/// One stream.
struct Watch {
    app: App,
    id: RequestId,
    prefix: RequestPrefix,
    token: SecretString,
    changes: broadcast::Receiver<RequestId>,
    stop: watch::Receiver<bool>,
    /// What was sent last; the same again is no event.
    sent: String,
    beat: Instant,
    is_first: bool,
    is_last: bool,
    _counted: Counted,
    _place: Place<PersonName>,
}

enum Woken {
    Changed,
    Beat,
    Stopped,
}

impl Watch {
    /// The next piece of the stream; `None` ends it.
    async fn next_piece(mut self) -> Option<(Bytes, Self)> {
        if std::mem::take(&mut self.is_first) {
            return self.look().await.map(|data| (data, self));
        }
        loop {
            if self.is_last {
                return None;
            }
            match self.wait().await {
                Woken::Stopped => return None,
                Woken::Beat => {
                    self.beat = Instant::now() + HEARTBEAT;
                    self.app.service.caller(self.token.expose_secret()).await.ok()?;
                    return Some((Bytes::from_static(b": beat\n\n"), self));
                }
                Woken::Changed => {
                    let before = self.sent.clone();
                    let data = self.look().await?;
                    // A change that shows nothing new is no sign of life.
                    if self.sent != before {
                        self.beat = Instant::now() + HEARTBEAT;
                        return Some((data, self));
                    }
                }
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return Woken::Stopped,
                changed = self.changes.recv() => match changed {
                    Ok(id) if id != self.id => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return Woken::Changed,
                    Err(RecvError::Closed) => return Woken::Stopped,
                },
                () = tokio::time::sleep_until(self.beat) => return Woken::Beat,
            }
        }
    }

    /// The request as it stands, if the session and the right to see it still do.
    async fn look(&mut self) -> Option<Bytes> {
        let (proven, _) = self.app.service.caller(self.token.expose_secret()).await.ok()?;
        let view = self.app.service.view(&proven, &self.prefix).await.ok()?;
        self.is_last = view.request.next_tick().is_none();
        self.sent = serde_json::to_string(&show::request(&view)).ok()?;
        Some(Bytes::from(format!("data: {}\n\n", self.sent)))
    }
}

impl Pieces for Watch {
    fn next(self) -> impl Future<Output = Option<(Bytes, Self)>> + Send {
        self.next_piece()
    }
}

/// Something that a body is made of, piece by piece.
pub(super) trait Pieces: Sized + Send + 'static {
    /// The next piece; `None` ends it.
    fn next(self) -> impl Future<Output = Option<(Bytes, Self)>> + Send;
}

/// What the stream does next.
type Step<W> = Pin<Box<dyn Future<Output = Option<(Bytes, W)>> + Send>>;

/// A body made of the pieces of a watch; dropping it (the caller went away) drops the watch.
pub(super) struct Unfold<W>(Option<Step<W>>);

impl<W: Pieces> Unfold<W> {
    pub(super) fn new(watch: W) -> Self {
        Self(Some(Box::pin(watch.next())))
    }
}

impl<W: Pieces> hyper::body::Body for Unfold<W> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(step) = self.0.as_mut() else { return Poll::Ready(None) };
        match step.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.0 = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some((bytes, watch))) => {
                self.0 = Some(Box::pin(watch.next()));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }
}
