//! `GET /v1/hosts/self/events`: what a host must know, at once and after each change, as server-sent events.
//!
//! As with requests, nothing is remembered between streams, and before each event the host's token is looked at anew. The stream ends when
//! the token does: the host then gets a new one and comes back.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::App;
use super::caller::HostCaller;
use super::error::Problem;
use super::events::{HEARTBEAT, Pieces, Unfold};
use super::extract::NoQuery;
use super::host::{concerned, shown};
use super::limit::Place;
use super::metrics::Counted;
use super::openapi::Problems;
use crate::identity::host::HostProven;
use crate::name::HostName;
use crate::service::inventory::HostChange;

/// What the host must know, now and after each change. Each event's data is a `State`.
#[utoipa::path(get, path = "/v1/hosts/self/events", tag = "host", security(("host" = [])),
    responses((status = 200, body = crate::wire::host::State, content_type = "text/event-stream"), Problems))]
pub(super) async fn events(caller: HostCaller, _: NoQuery, State(app): State<App>) -> Result<Response, Problem> {
    let place = app.limits.host_stream(caller.proven.host())?;
    let host = caller.proven.clone();
    let watch = Watch {
        changes: app.service.host_changes(),
        stop: app.stop.subscribe(),
        token: caller.into_token(),
        host,
        sent: String::new(),
        beat: Instant::now() + HEARTBEAT,
        is_first: true,
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
    host: HostProven,
    token: SecretString,
    changes: broadcast::Receiver<HostChange>,
    stop: watch::Receiver<bool>,
    /// The etag of what was sent last; the same again is no event.
    sent: String,
    beat: Instant,
    is_first: bool,
    _counted: Counted,
    _place: Place<HostName>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    Changed,
    Beat,
    Stopped,
}

impl Watch {
    async fn wait(&mut self) -> Woken {
        tokio::select! {
            _ = self.stop.wait_for(|stop| *stop) => Woken::Stopped,
            () = concerned(&mut self.changes, self.host.host()) => Woken::Changed,
            () = tokio::time::sleep_until(self.beat) => Woken::Beat,
        }
    }

    /// The state as it stands, if the token still counts and it is news.
    async fn look(&mut self) -> Option<Option<Bytes>> {
        self.app.service.host_caller(self.token.expose_secret()).await.ok()?;
        let state = self.app.service.host_state(&self.host).await.ok()?;
        if state.etag == self.sent {
            return Some(None);
        }
        let data = serde_json::to_string(&shown(&state)).ok()?;
        self.sent.clone_from(&state.etag);
        self.beat = Instant::now() + HEARTBEAT;
        Some(Some(Bytes::from(format!("data: {data}\n\n"))))
    }
}

impl Pieces for Watch {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        if std::mem::take(&mut self.is_first) {
            return self.look().await?.map(|data| (data, self));
        }
        loop {
            let woken = self.wait().await;
            if woken == Woken::Stopped {
                return None;
            }
            // A window that has ended is no change that anybody tells: looked at with each beat.
            if let Some(data) = self.look().await? {
                return Some((data, self));
            }
            if woken == Woken::Beat {
                self.beat = Instant::now() + HEARTBEAT;
                return Some((Bytes::from_static(b": beat\n\n"), self));
            }
        }
    }
}
