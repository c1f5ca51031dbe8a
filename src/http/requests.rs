//! Asking, looking and explaining.

use std::collections::BTreeSet;

use axum::Json as Answer;
use axum::extract::State;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Id, Json, NoQuery, Query};
use super::openapi::Problems;
use super::show;
use crate::name::{Account, HostName, PersonName, Target};
use crate::service::access::{Ask, Explain, ListFilter};
use crate::ssh::PublicKey;
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// The states a list can be narrowed to.
const STATES: [&str; 8] = ["pending", "approved", "issued", "denied", "withdrawn", "lapsed", "ended", "expired"];

/// Most hosts and tags that one question may name, as documented on [`wire::Ask`].
const TARGETS_MAX: usize = 16;

/// Most requests in one list; the same cap as the store's.
const LIST_MAX: u64 = 1000;

/// Asks for access. The same question again gives the same request.
#[utoipa::path(post, path = "/v1/requests", tag = "requests", request_body = wire::Ask,
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn ask(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Ask>,
) -> Result<Answer<wire::Request>, Problem> {
    Ok(Answer(show::request(&app.service.ask(&caller.proven, asked(body)?).await?)))
}

/// Asks for access; where policy grants it at once, the answer holds the certificate. Asked before, or decided by people: without one, and
/// it is fetched as any other.
#[utoipa::path(post, path = "/v1/certificates", tag = "requests", request_body = wire::Ask,
    responses((status = 200, body = wire::Access), Problems))]
pub(super) async fn ask_and_fetch(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Ask>,
) -> Result<Answer<wire::Access>, Problem> {
    let (view, certificate) = app.service.ask_and_fetch(&caller.proven, asked(body)?).await?;
    let certificate = certificate.as_ref().map(show::certificate);
    Ok(Answer(wire::Access { request: show::request(&view), certificate }))
}

/// What is asked for in a body.
fn asked(body: wire::Ask) -> Result<Ask, Problem> {
    if body.person.is_some() || body.at.is_some() {
        return Err(Problem::invalid("body", &"\"person\" and \"at\" belong to /v1/explain only"));
    }
    let key = body.key.as_deref().ok_or_else(|| Problem::invalid("key", &"a public key is needed"))?;
    let key = PublicKey::parse_openssh(key).map_err(|e| Problem::invalid("key", &e))?;
    let Explain { targets, account, lifetime, start, reason, ticket, at: _ } = question(body)?;
    Ok(Ask { targets, account, lifetime, start, reason, ticket, key })
}

/// What policy would say, rule by rule. Changes nothing.
#[utoipa::path(post, path = "/v1/explain", tag = "requests", request_body = wire::Ask,
    responses((status = 200, body = wire::Verdict), Problems))]
pub(super) async fn explain(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Ask>,
) -> Result<Answer<wire::Verdict>, Problem> {
    if body.key.is_some() {
        return Err(Problem::invalid("body", &"\"key\" belongs to /v1/requests only"));
    }
    let person = body.person.as_deref().map(PersonName::parse).transpose();
    let person = person.map_err(|e| Problem::invalid("person", &e))?;
    let explained = app.service.explain(&caller.proven, person, question(body)?).await?;
    Ok(Answer(show::verdict(&explained)))
}

/// The question in a body, without key and person.
fn question(body: wire::Ask) -> Result<Explain, Problem> {
    if !(1..=TARGETS_MAX).contains(&body.targets.len()) {
        let error = format!("{} given, 1 to {TARGETS_MAX} are taken", body.targets.len());
        return Err(Problem::invalid("targets", &error));
    }
    let targets: Result<Vec<Target>, Problem> =
        body.targets.iter().map(|t| Target::parse(t).map_err(|e| Problem::invalid("targets", &e))).collect();
    let time = |text: Option<&str>, what: &'static str| {
        text.map(Timestamp::parse).transpose().map_err(|e| Problem::invalid(what, &e))
    };
    Ok(Explain {
        targets: targets?,
        account: body
            .account
            .as_deref()
            .map(Account::parse)
            .transpose()
            .map_err(|e| Problem::invalid("account", &e))?,
        lifetime: body.lifetime.as_deref().map(Lifetime::parse).transpose().map_err(|e| Problem::invalid("for", &e))?,
        start: time(body.start.as_deref(), "start")?,
        at: time(body.at.as_deref(), "at")?,
        reason: body.reason,
        ticket: body.ticket,
    })
}

/// Requests the caller may see, newest first.
#[utoipa::path(get, path = "/v1/requests", tag = "requests",
    params(
        ("mine" = Option<bool>, Query, description = "only those the caller asked"),
        ("inbox" = Option<bool>, Query, description = "only those the caller may decide now"),
        ("state" = Option<String>, Query, description = "only in these states; several by comma or repetition"),
        ("host" = Option<String>, Query, description = "only for this host"),
        ("person" = Option<String>, Query, description = "only of this person"),
        ("since" = Option<String>, Query, description = "only asked at or after this time"),
        ("limit" = Option<u64>, Query, description = "at most so many, 1 to 1000; 100 if left out"),
    ),
    responses((status = 200, body = wire::Requests), Problems))]
pub(super) async fn list(
    caller: Caller,
    mut query: Query,
    State(app): State<App>,
) -> Result<Answer<wire::Requests>, Problem> {
    let mut filter = ListFilter {
        mine: query.flag("mine")?,
        inbox: query.flag("inbox")?,
        states: BTreeSet::new(),
        host: query.one("host", HostName::parse)?,
        person: query.one("person", PersonName::parse)?,
        since: query.one("since", Timestamp::parse)?,
        limit: 100,
    };
    for word in query.all("state") {
        let known = STATES.into_iter().find(|known| *known == word);
        let error = || Problem::invalid("state", &format!("{word:?} is not one of {}", STATES.join(", ")));
        filter.states.insert(known.ok_or_else(error)?);
    }
    if let Some(limit) = query.number("limit")? {
        if !(1..=LIST_MAX).contains(&limit) {
            return Err(Problem::invalid("limit", &format!("{limit} is not 1 to {LIST_MAX}")));
        }
        filter.limit = usize::try_from(limit).unwrap_or(100);
    }
    query.end()?;
    let views = app.service.list(&caller.proven, filter).await?;
    Ok(Answer(wire::Requests { requests: views.iter().map(show::request).collect() }))
}

/// One request.
#[utoipa::path(get, path = "/v1/requests/{id}", tag = "requests",
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn one(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Request>, Problem> {
    Ok(Answer(show::request(&app.service.view(&caller.proven, &id).await?)))
}

/// The log entries about one request, oldest first.
#[utoipa::path(get, path = "/v1/requests/{id}/history", tag = "requests",
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Entries), Problems))]
pub(super) async fn history(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Entries>, Problem> {
    let entries = app.service.history(&caller.proven, &id).await?;
    super::log::entries(entries.iter().map(crate::audit::entry::Entry::to_bytes))
}
