//! What every exchange passes: trace id, deadline, panic barrier, problem bodies (or pages), headers, figures, one log line.
//!
//! *Why are problems made into bytes here and not where they arise?* So that there is one place: a 404 of the router, a 405 of a
//! route, a 413 of a limit, a panic and a refusal of the service all leave in the same form, with their trace id.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use super::App;
use super::admission::Held;
use super::caller::Anyone;
use super::error::Problem;
use super::web;

/// The routes with everything around them.
pub(super) fn wrap(routes: Router<App>, app: &App) -> Router<App> {
    routes
        .fallback(no_route)
        .layer(DefaultBodyLimit::max(app.body_bytes_max))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(app.clone(), exchange))
}

/// A path that is not ours. It counts against the caller's address, like everything that needs no session.
async fn no_route(_anyone: Anyone) -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND).next("see /v1/openapi.json")
}

/// A handler panicked: our bug. The panic hook has printed where; the caller learns nothing of it.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    Problem::internal().into_response()
}

async fn exchange(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let trace = new_trace();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let held = Held::new(&method, &route, request.extensions().get().cloned());
    request.extensions_mut().insert(held.clone());
    let page = web::wants_page(&request).then(|| web::linked(&request));
    let span = tracing::info_span!("exchange", %trace, %method, %route, person = tracing::field::Empty);
    let mut response = async {
        let response = match tokio::time::timeout(app.request_timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => too_slow(app.request_timeout).into_response(),
        };
        held.release();
        note(&method, &response, began.elapsed());
        response
    }
    .instrument(span)
    .await;
    app.metrics.exchange(&route, &method, response.status(), began.elapsed());
    if response.status().is_client_error() || response.status().is_server_error() {
        response = match page {
            Some(linked) => web::problem(&app, response, &trace, linked),
            None => as_problem(response, trace),
        };
    }
    protect(response.headers_mut());
    response
}

/// The headers of every answer; those of a page allow it our own files.
fn protect(headers: &mut HeaderMap) {
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        web::guard(headers);
    }
}

fn too_slow(limit: Duration) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the service took too long")
        .why([format!("the limit is {} s", limit.as_secs())])
        .after(5)
}

/// The one log line of an exchange; reading is not worth a line unless one debugs, nor is each call that was turned away: the queue says
/// now and then how many.
fn note(method: &Method, response: &Response, took: Duration) {
    let (status, ms) = (response.status().as_u16(), took.as_millis());
    let is_busy = response.extensions().get::<Problem>().is_some_and(|problem| problem.body.code == "busy");
    if is_busy {
        tracing::debug!(status, ms, "turned away");
    } else if status >= 500 {
        tracing::error!(status, ms, "answered");
    } else if *method == Method::GET && status < 400 {
        tracing::debug!(status, ms, "answered");
    } else {
        tracing::info!(status, ms, "answered");
    }
}

/// The same answer with a problem body: the handler's own, or the one its status stands for. Headers that mean something
/// (`Allow`, `Retry-After`, `WWW-Authenticate`) stay.
fn as_problem(response: Response, trace: String) -> Response {
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove::<Problem>().unwrap_or_else(|| Problem::of_status(parts.status));
    let mut body = *problem.body;
    body.trace = Some(trace);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    match serde_json::to_vec(&body) {
        Ok(bytes) => Response::from_parts(parts, Body::from(bytes)),
        Err(_) => Response::from_parts(parts, Body::empty()),
    }
}

/// 64 random bits in hex: enough to find one exchange in the service's own log, no secret.
fn new_trace() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<u64>().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_internal_problem_that_tells_nothing() {
        async fn broken() -> &'static str {
            panic!("secret")
        }
        let router: Router =
            Router::new().route("/", axum::routing::get(broken)).layer(CatchPanicLayer::custom(panicked));
        let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
        let answer = as_problem(answer, new_trace());
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let bytes = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        let problem: crate::wire::Problem = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(problem.code, "internal");
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"));
    }
}
