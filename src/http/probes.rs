//! What needs no login: probes, figures, the trust bundle, the API's own description.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use tokio::sync::Mutex;
use tracing::Instrument as _;

use super::App;
use super::caller::{Anyone, Caller};
use super::error::Problem;
use super::extract::NoQuery;
use super::inventory::path;
use super::openapi::{Problems, ProblemsOpen};
use crate::name::CaName;
use crate::service::Failure;

/// The `{ca}` of a path: a user CA's name.
#[derive(Debug)]
pub(super) struct CaOf(CaName);

impl FromRequestParts<App> for CaOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        CaName::parse(&path(parts, app).await?).map(Self).map_err(|error| Problem::invalid("ca", &error))
    }
}

/// The trust bundle: the content of the `TrustedUserCAKeys` file. Public keys only.
#[utoipa::path(get, path = "/v1/ca/user-keys", tag = "ca", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn user_keys(_: Anyone, _: NoQuery, State(app): State<App>) -> String {
    app.service.trust_bundle().text.to_string()
}

/// The trust bundle of a user CA with a name: its hosts trust no other one's keys. `default` is the one of `/v1/ca/user-keys`.
#[utoipa::path(get, path = "/v1/ca/user-keys/{ca}", tag = "ca", security(()),
    params(("ca" = String, Path, description = "the CA's name")),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn user_keys_of(
    _: Anyone,
    CaOf(ca): CaOf,
    _: NoQuery,
    State(app): State<App>,
) -> Result<String, Problem> {
    Ok(app.service.trust_bundle_of(&ca)?.text.to_string())
}

/// The host CA keys, as one `@cert-authority` line each for each name of each enrolled host; empty as long as there is no host CA. During a
/// rotation there are two. With a session, since it names hosts.
#[utoipa::path(get, path = "/v1/ca/host-keys", tag = "ca",
    responses((status = 200, body = String, content_type = "text/plain"), Problems))]
pub(super) async fn host_keys(_: Caller, _: NoQuery, State(app): State<App>) -> String {
    app.service.known_hosts()
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "application/json"), ProblemsOpen))]
pub(super) async fn document(_: Anyone, _: NoQuery, State(app): State<App>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.document.clone())
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn healthz(_: Anyone, _: NoQuery) -> &'static str {
    "ok\n"
}

/// How long a readiness answer holds: looking writes to the disk, and anybody may ask.
const READY_FOR: Duration = Duration::from_secs(1);

/// The last readiness answer, and when it was found.
pub(super) type LastReady = Arc<Mutex<Option<(Instant, Result<String, Problem>)>>>;

/// Whether certificates could be issued now; if not, says what is missing. Looks at most once a second.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn readyz(_: Anyone, _: NoQuery, State(app): State<App>) -> Result<String, Problem> {
    let mut last = Arc::clone(&app.ready).lock_owned().await;
    if let Some((at, outcome)) = last.as_ref()
        && at.elapsed() < READY_FOR
    {
        return outcome.clone();
    }
    // Goes on if the caller does not wait for it, so that hanging up buys no second look.
    let look = async move {
        let outcome = app.service.ready().await.map(|warnings| ready_text(&warnings)).map_err(missing);
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    };
    let looked = tokio::spawn(look.in_current_span()).await.map_err(|error| {
        tracing::error!(%error, "cannot look whether we are ready");
        Problem::internal()
    });
    looked?
}

/// `ready`, and a line for each thing that is wrong and stops nobody now: another CA key that can't be used, a database file that can't be written.
fn ready_text(warnings: &[String]) -> String {
    std::iter::once("ready\n".to_owned()).chain(warnings.iter().map(|one| format!("warning: {one}\n"))).collect()
}

/// What `ready` lacks is written for operators, and names no person, key or path.
fn missing(failure: Failure) -> Problem {
    let why = match &failure {
        Failure::Unavailable(why) => Some(why.clone()),
        _ => None,
    };
    Problem::from(failure).why(why)
}

/// Figures in the `OpenMetrics` text format.
#[utoipa::path(get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn metrics(_: Anyone, _: NoQuery, State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let text = app.metrics.text(app.service.figures().await).map_err(|error| {
        tracing::error!(%error, "cannot write the figures");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
