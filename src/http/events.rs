//! `GET /v1/requests/{id}/events`: the present state of a request, then its state after each change, as server-sent events.
//!
//! Whoever comes back is told the present state first, so neither a lost connection nor a restarted server loses a change that matters.
//! At each look the session and the right to see the request are looked at anew. The stream ends when either is gone, when the request is
//! over, or when the server stops.

use axum::extract::State;
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Id, NoQuery};
use super::openapi::Problems;
use super::show;
use super::stream::{self, Look, Subject};
use crate::name::{RequestId, RequestPrefix};
use crate::service::waiting::Listener;

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
    // The stream looks once more before it first waits, so that a change before the listening is seen.
    let view = app.service.view(&caller.proven, &id).await?;
    let changes = app.service.changes_of(view.request.id());
    let watch = Watch {
        prefix: RequestPrefix::parse(view.request.id().digits()).map_err(|e| Problem::invalid("id", &e))?,
        token: caller.into_token(),
        changes,
        sent: String::new(),
        app: app.clone(),
    };
    Ok(stream::answer(watch, place, &app))
}

/// Whoever watches a request.
struct Watch {
    app: App,
    prefix: RequestPrefix,
    token: SecretString,
    changes: Listener<RequestId>,
    /// What was sent last; the same again is no event.
    sent: String,
}

impl Subject for Watch {
    async fn changed(&mut self) -> bool {
        self.changes.changed().await;
        true
    }

    async fn look(&mut self) -> Option<Look> {
        let (proven, _) = self.app.service.caller(self.token.expose_secret()).await.ok()?;
        let view = self.app.service.view(&proven, &self.prefix).await.ok()?;
        let data = serde_json::to_string(&show::request(&view)).ok()?;
        if data == self.sent {
            return Some(Look::Same);
        }
        self.sent.clone_from(&data);
        Some(if view.request.next_tick().is_none() { Look::Last(data) } else { Look::News(data) })
    }
}
