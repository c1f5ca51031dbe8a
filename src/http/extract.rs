//! Path, query and body into values, each refusal a [`Problem`] of ours.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::App;
use super::admission::Held;
use super::error::Problem;
use crate::name::RequestPrefix;

/// The most bytes of a body on a route with a limit of its own (which a layer of the route enforces).
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimit(pub(super) usize);

/// A JSON body of our own types, all of which refuse unknown keys.
///
/// Limits: the router's body limit, or the route's own [`BodyLimit`]; half the exchange's deadline for its arrival; nesting of 128 (`serde_json`'s own).
/// Once it is there, the call waits its turn ([`admission`](super::admission)).
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        if !is_json(&request) {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
                .next("send the header Content-Type: application/json"));
        }
        let most = request.extensions().get::<BodyLimit>().map_or(app.body_bytes_max, |limit| limit.0);
        let (deadline, held) = (half(app), Held::of(request.extensions()));
        let bytes = tokio::time::timeout(deadline, Bytes::from_request(request, app))
            .await
            .map_err(|_elapsed| late())?
            .map_err(|rejection| match rejection.into_response_status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE).why([format!("at most {most} bytes are taken")])
                }
                _ => Problem::new(StatusCode::BAD_REQUEST, "bad_json", "the body could not be read"),
            })?;
        held.arrived(app).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, "bad_json", "the body is not the JSON that belongs here")
                .why([error.to_string()])
                .next("see /v1/openapi.json")
        })
    }
}

/// How long a body may take to arrive.
fn half(app: &App) -> Duration {
    app.request_timeout.checked_div(2).unwrap_or(Duration::ZERO)
}

fn late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time").retryable()
}

/// The status that axum would have answered with.
trait IntoStatus {
    fn into_response_status(self) -> StatusCode;
}

impl IntoStatus for axum::extract::rejection::BytesRejection {
    fn into_response_status(self) -> StatusCode {
        axum::response::IntoResponse::into_response(self).status()
    }
}

/// Whether the one `Content-Type` is `application/json`, with or without `charset=utf-8`.
fn is_json(request: &Request) -> bool {
    let mut kinds = request.headers().get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
    let Ok(kind) = kind.to_str() else { return false };
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let parameters = parameters.trim();
    kind.trim().eq_ignore_ascii_case("application/json")
        && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8"))
}

/// The `{id}` of a path: an id or a prefix of one.
#[derive(Debug)]
pub(super) struct Id(pub(super) RequestPrefix);

impl FromRequestParts<App> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|_rejection| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the path is not UTF-8"))?;
        RequestPrefix::parse(&text).map(Self).map_err(|error| Problem::invalid("id", &error))
    }
}

/// A query (or form) of known keys, each at most once unless taken with [`Query::all`]. [`Query::end`] refuses what was not taken.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
    is_form: bool,
}

impl FromRequestParts<App> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let axum::extract::Query(pairs) = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, app)
            .await
            .map_err(|_rejection| bad_query("the query is not of the form key=value&key=value"))?;
        Ok(Self { pairs, known: Vec::new(), is_form: false })
    }
}

impl Query {
    /// The fields of a form. Limits: those of [`Json`].
    pub(super) async fn of_form(request: Request, app: &App) -> Result<Self, Problem> {
        let (deadline, held) = (half(app), Held::of(request.extensions()));
        let read = axum::Form::<Vec<(String, String)>>::from_request(request, app);
        let read = tokio::time::timeout(deadline, read).await.map_err(|_elapsed| late())?;
        let axum::Form(pairs) = read.map_err(|rejection| {
            let status = axum::response::IntoResponse::into_response(rejection).status();
            match status {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::of_status(status),
                StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(status, "content_type", "the body must be a form"),
                _ => Problem::new(StatusCode::BAD_REQUEST, "invalid", "the form could not be read"),
            }
        })?;
        held.arrived(app).await?;
        Ok(Self { pairs, known: Vec::new(), is_form: true })
    }

    /// What an unknown or doubled key is called.
    const fn noun(&self) -> &'static str {
        if self.is_form { "field" } else { "query key" }
    }

    /// All values of `key`, each split at commas.
    pub(super) fn all(&mut self, key: &'static str) -> Vec<String> {
        self.known.push(key);
        let (taken, rest) = std::mem::take(&mut self.pairs).into_iter().partition(|(name, _)| name == key);
        self.pairs = rest;
        let taken: Vec<(String, String)> = taken;
        taken.iter().flat_map(|(_, value)| value.split(',')).map(str::to_owned).collect()
    }

    /// The value of `key`, parsed.
    pub(super) fn one<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        self.known.push(key);
        let mut found = None;
        let mut rest = Vec::new();
        for (name, value) in std::mem::take(&mut self.pairs) {
            if name != key {
                rest.push((name, value));
            } else if found.replace(value).is_some() {
                return Err(bad_query(&format!("{key:?} is given twice")));
            }
        }
        self.pairs = rest;
        found.map(|value| parse(&value).map_err(|error| Problem::invalid(key, &error))).transpose()
    }

    /// `true` or `false`; false if left out.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool, Problem> {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("{other:?} is not true or false")),
        };
        Ok(self.one(key, parse)?.unwrap_or(false))
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<u64>, Problem> {
        self.one(key, |text| text.parse::<u64>().map_err(|_not_a_number| format!("{text:?} is not a whole number")))
    }

    /// Refuses keys that nobody took.
    pub(super) fn end(&mut self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, _)) if self.known.is_empty() => {
                Err(bad_query(&format!("{key:?} is no {} here; there are none", self.noun())))
            }
            Some((key, _)) => {
                Err(bad_query(&format!("{key:?} is no {} here; known: {}", self.noun(), self.known.join(", "))))
            }
        }
    }
}

/// No query at all.
#[derive(Debug)]
pub(super) struct NoQuery;

impl FromRequestParts<App> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Query::from_request_parts(parts, app).await?.end().map(|()| Self)
    }
}

fn bad_query(title: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_query", title)
}
