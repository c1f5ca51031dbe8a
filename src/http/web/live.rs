//! `/live` and `/r/ID/live`: that a page has changed, as server-sent events. What has changed is read by loading the page again, under
//! the rules of pages.
//!
//! Before each event the session and the right to see the request are looked at anew, and at each heartbeat the session. The first
//! event tells nothing: who comes back after a lost connection looks at the page.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::super::App;
use super::super::error::Problem;
use super::super::events::{HEARTBEAT, Pieces, Unfold};
use super::super::extract::{Id, NoQuery};
use super::super::limit::Place;
use super::super::metrics::Counted;
use super::visitor::Visitor;
use crate::name::{PersonName, RequestId, RequestPrefix};

/// How long a browser waits before it comes back after a lost connection. Our own choice.
const RETRY: Duration = Duration::from_secs(3);

/// That the visitor's inbox or access may have changed.
pub(super) async fn of_desk(visitor: Visitor, _: NoQuery, State(app): State<App>) -> Result<Response, Problem> {
    stream(app, visitor, None)
}

/// That a request has changed.
pub(super) async fn of_request(
    visitor: Visitor,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let id = app.service.view(&visitor.browser.proven, &id).await?.request.id();
    stream(app, visitor, Some(id))
}

fn stream(app: App, visitor: Visitor, only: Option<RequestId>) -> Result<Response, Problem> {
    let watch = Watch {
        only,
        changes: app.service.changes(),
        stop: app.stop.subscribe(),
        beat: Instant::now() + HEARTBEAT,
        is_first: true,
        _counted: Counted::new(&app.metrics.streams),
        _place: app.limits.stream(visitor.browser.proven.person())?,
        token: visitor.into_token(),
        app,
    };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((headers, Body::new(Unfold::new(watch))).into_response())
}

/// One stream.
struct Watch {
    app: App,
    only: Option<RequestId>,
    token: SecretString,
    changes: broadcast::Receiver<RequestId>,
    stop: watch::Receiver<bool>,
    beat: Instant,
    is_first: bool,
    _counted: Counted,
    _place: Place<PersonName>,
}

enum Woken {
    /// This request, or any number of them.
    Changed(Option<RequestId>),
    Beat,
    Stopped,
}

impl Watch {
    async fn next_piece(mut self) -> Option<(Bytes, Self)> {
        if std::mem::take(&mut self.is_first) {
            return Some((Bytes::from(format!("retry: {}\n\n", RETRY.as_millis())), self));
        }
        loop {
            let woken = self.wait().await;
            let browser = match woken {
                Woken::Stopped => return None,
                Woken::Changed(_) | Woken::Beat => self.app.service.browser(self.token.expose_secret()).await.ok()?,
            };
            let piece = match woken {
                Woken::Changed(Some(id)) if !self.shows(&browser.proven, id).await => continue,
                Woken::Changed(_) => &b"data: changed\n\n"[..],
                Woken::Beat | Woken::Stopped => &b": beat\n\n"[..],
            };
            self.beat = Instant::now() + HEARTBEAT;
            return Some((Bytes::from_static(piece), self));
        }
    }

    /// Whether the visitor may see this request, and so that it has changed.
    async fn shows(&self, by: &crate::identity::Proven, id: RequestId) -> bool {
        let Ok(prefix) = RequestPrefix::parse(id.digits()) else { return false };
        self.app.service.view(by, &prefix).await.is_ok()
    }

    async fn wait(&mut self) -> Woken {
        loop {
            tokio::select! {
                _ = self.stop.wait_for(|stop| *stop) => return Woken::Stopped,
                changed = self.changes.recv() => match changed {
                    Ok(id) if self.only.is_some_and(|only| only != id) => {}
                    Ok(id) => return Woken::Changed(Some(id)),
                    Err(RecvError::Lagged(_)) => return Woken::Changed(self.only),
                    Err(RecvError::Closed) => return Woken::Stopped,
                },
                () = tokio::time::sleep_until(self.beat) => return Woken::Beat,
            }
        }
    }
}

impl Pieces for Watch {
    fn next(self) -> impl Future<Output = Option<(Bytes, Self)>> + Send {
        self.next_piece()
    }
}
