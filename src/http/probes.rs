//! What needs no login: probes, figures, the trust bundle, the API's own description.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::App;
use super::caller::Anyone;
use super::error::Problem;
use super::extract::NoQuery;
use super::openapi::ProblemsOpen;

/// The trust bundle: the content of the `TrustedUserCAKeys` file. Public keys only.
#[utoipa::path(get, path = "/v1/ca/user-keys", tag = "ca", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn user_keys(_: Anyone, _: NoQuery, State(app): State<App>) -> String {
    app.service.trust_bundle()
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

/// Whether certificates could be issued now. What is missing stands in the service's own log.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn readyz(_: Anyone, _: NoQuery, State(app): State<App>) -> Result<&'static str, Problem> {
    app.service.ready().await?;
    Ok("ready\n")
}

/// Figures in the `OpenMetrics` text format.
#[utoipa::path(get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain"), ProblemsOpen))]
pub(super) async fn metrics(_: Anyone, _: NoQuery, State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let text = app.metrics.text().map_err(|error| {
        tracing::error!(%error, "cannot write the figures");
        Problem::internal()
    })?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
