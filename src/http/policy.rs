//! The policy in force, its versions, and the hosts it knows.

use std::convert::Infallible;

use axum::extract::{DefaultBodyLimit, State};
use axum::{Extension, Json as Answer};
use utoipa_axum::router::{UtoipaMethodRouter, UtoipaMethodRouterExt as _};

use super::App;
use super::caller::{Caller, Operator};
use super::error::Problem;
use super::extract::{BodyLimit, Json, NoQuery, Query};
use super::openapi::Problems;
use super::show;
use crate::name::{PolicyVersion, Target};
use crate::policy::TEXT_BYTES_MAX;
use crate::service::hosts::HostFilter;
use crate::wire;

/// The longest text that hosts are looked for by; no name or tag is longer.
const TEXT_MAX: usize = 253;

/// The hosts that policy knows, by name.
#[utoipa::path(get, path = "/v1/hosts", tag = "policy",
    params(
        ("text" = Option<String>, Query, description = "only those with this in their name or in a tag"),
        ("tag" = Option<String>, Query, description = "only those with this tag, `key=value`"),
        ("ways" = Option<bool>, Query, description = "say what the caller may ask for; then at most 1000 hosts"),
    ),
    responses((status = 200, body = wire::Hosts), Problems))]
pub(super) async fn hosts(
    caller: Caller,
    mut query: Query,
    State(app): State<App>,
) -> Result<Answer<wire::Hosts>, Problem> {
    let text = |text: &str| match text.len() {
        0 => Err("it is empty".to_owned()),
        1..=TEXT_MAX => Ok(text.to_owned()),
        _ => Err(format!("it is longer than {TEXT_MAX} bytes")),
    };
    let tag = |text: &str| match Target::parse(&format!("tag:{text}")) {
        Ok(Target::Tag(key, value)) => Ok((key, value)),
        Ok(Target::Host(_)) | Err(_) => Err(format!("{text:?} is not key=value")),
    };
    let filter = HostFilter { text: query.one("text", text)?, tag: query.one("tag", tag)?, ways: query.flag("ways")? };
    query.end()?;
    let list = app.service.hosts(&caller.proven, filter).await?;
    Ok(Answer(wire::Hosts { hosts: list.hosts.iter().map(show::host).collect(), is_cut: list.is_cut }))
}

/// The policy in force, or another version, with its text. Operators and auditors.
#[utoipa::path(get, path = "/v1/policy", tag = "policy",
    params(("version" = Option<u32>, Query, description = "the version; the one in force if left out")),
    responses((status = 200, body = wire::PolicyVersion), Problems))]
pub(super) async fn current(
    caller: Caller,
    mut query: Query,
    State(app): State<App>,
) -> Result<Answer<wire::PolicyVersion>, Problem> {
    let number = |text: &str| {
        text.parse().map(PolicyVersion).map_err(|_not_a_number| format!("{text:?} is not a version number"))
    };
    let version = query.one("version", number)?;
    query.end()?;
    let stored = app.service.show_policy(&caller.proven, version).await?;
    Ok(Answer(wire::PolicyVersion {
        version: stored.version.0,
        by: stored.by,
        at: stored.at.to_string(),
        text: Some(stored.text),
    }))
}

/// Checks, tests and applies a policy. Operators.
#[utoipa::path(put, path = "/v1/policy", tag = "policy", request_body = wire::PutPolicy,
    responses((status = 200, body = wire::PolicyApplied), Problems))]
pub(super) async fn apply(
    Operator(caller): Operator,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::PutPolicy>,
) -> Result<Answer<wire::PolicyApplied>, Problem> {
    let base = body.base.map(PolicyVersion);
    let applied = app.service.apply_policy(&caller.proven, body.text, base, body.dry_run).await?;
    Ok(Answer(show::applied(&applied, body.dry_run)))
}

/// The route with a body limit that takes every text the parser takes: in JSON each byte of a TOML text is at most two, and
/// there are three other members.
pub(super) fn sized(routes: UtoipaMethodRouter<App>) -> UtoipaMethodRouter<App> {
    let most = TEXT_BYTES_MAX.saturating_mul(2).saturating_add(1024);
    routes.layer::<_, Infallible>(DefaultBodyLimit::max(most)).layer::<_, Infallible>(Extension(BodyLimit(most)))
}

/// All policy versions without their texts, newest first. Operators and auditors.
#[utoipa::path(get, path = "/v1/policy/history", tag = "policy",
    responses((status = 200, body = wire::PolicyVersions), Problems))]
pub(super) async fn history(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::PolicyVersions>, Problem> {
    let stored = app.service.policy_history(&caller.proven).await?;
    let version = |stored: crate::store::StoredPolicy| wire::PolicyVersion {
        version: stored.version.0,
        by: stored.by,
        at: stored.at.to_string(),
        text: None,
    };
    Ok(Answer(wire::PolicyVersions { versions: stored.into_iter().map(version).collect() }))
}
