//! `GET /v1/hosts/self/events`: what a host must know, at once and after each change, as server-sent events.
//!
//! At each look the host's token is looked at anew. The stream ends when the token does: the host then gets a new one and comes back.

use axum::extract::State;
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::App;
use super::caller::HostCaller;
use super::error::Problem;
use super::extract::NoQuery;
use super::host::shown;
use super::openapi::Problems;
use super::stream::{self, Look, Subject};
use crate::identity::host::HostProven;
use crate::name::HostName;
use crate::service::waiting::Listener;

/// What the host must know, now and after each change. Each event's data is a `State`.
#[utoipa::path(get, path = "/v1/hosts/self/events", tag = "host", security(("host" = [])),
    responses((status = 200, body = crate::wire::host::State, content_type = "text/event-stream"), Problems))]
pub(super) async fn events(caller: HostCaller, _: NoQuery, State(app): State<App>) -> Result<Response, Problem> {
    let place = app.limits.host_stream(caller.proven.host())?;
    let host = caller.proven.clone();
    let changes = app.service.host_changes(host.host());
    let watch = Watch { changes, token: caller.into_token(), host, sent: String::new(), app: app.clone() };
    Ok(stream::answer(watch, place, &app))
}

/// A host that listens.
struct Watch {
    app: App,
    host: HostProven,
    token: SecretString,
    changes: Listener<HostName>,
    /// The etag of what was sent last; the same again is no event.
    sent: String,
}

impl Subject for Watch {
    async fn changed(&mut self) -> bool {
        self.changes.changed().await;
        true
    }

    /// A window that has ended is no change that anybody tells: it is seen at the next heartbeat.
    async fn look(&mut self) -> Option<Look> {
        self.app.service.host_caller(self.token.expose_secret()).await.ok()?;
        let state = self.app.service.host_state(&self.host).await.ok()?;
        if state.etag == self.sent {
            return Some(Look::Same);
        }
        let data = serde_json::to_string(&shown(&state)).ok()?;
        self.sent.clone_from(&state.etag);
        Some(Look::News(data))
    }
}
