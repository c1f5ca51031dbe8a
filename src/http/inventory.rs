//! What operators see and change of join tokens and enrolled hosts.

use axum::Json as Answer;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Json, NoQuery};
use super::host::set;
use super::openapi::Problems;
use crate::inventory::{Conflict, Join};
use crate::name::{HostName, JoinId, NamePattern, Tag, TagKey};
use crate::service::hosts::{EnrolledView, SeenView};
use crate::service::inventory::JoinWish;
use crate::time::{Lifetime, Timestamp};
use crate::wire::Why;
use crate::wire::host as wire;

/// The `{name}` of a path: a host's.
#[derive(Debug)]
pub(super) struct Name(HostName);

/// The `{id}` of a path: a join token's.
#[derive(Debug)]
pub(super) struct JoinOf(JoinId);

pub(super) async fn path(parts: &mut Parts, app: &App) -> Result<String, Problem> {
    let Path(text) = Path::<String>::from_request_parts(parts, app)
        .await
        .map_err(|_rejection| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "the path is not UTF-8"))?;
    Ok(text)
}

impl FromRequestParts<App> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        HostName::parse(&path(parts, app).await?).map(Self).map_err(|error| Problem::invalid("name", &error))
    }
}

impl FromRequestParts<App> for JoinOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        JoinId::parse(&path(parts, app).await?).map(Self).map_err(|error| Problem::invalid("id", &error))
    }
}

/// Makes a join token. Operators.
#[utoipa::path(post, path = "/v1/hosts/joins", tag = "inventory", request_body = wire::JoinFor,
    responses((status = 200, body = wire::NewJoin), Problems))]
pub(super) async fn create_join(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::JoinFor>,
) -> Result<Answer<wire::NewJoin>, Problem> {
    let lifetime = body.lifetime.as_deref().map(Lifetime::parse).transpose();
    let wish = JoinWish {
        names: set("names", &body.names, NamePattern::parse)?,
        tags: set("tags", &body.tags, Tag::parse)?,
        may_tag: set("may_tag", &body.may_tag, TagKey::parse)?,
        uses: body.uses.map(u64::from),
        lifetime: lifetime.map_err(|e| Problem::invalid("for", &e))?,
    };
    let new = app.service.create_join(&caller.proven, wish).await?;
    let (join, token) = (join(&new.join, app.service.now()), new.token.into());
    Ok(Answer(wire::NewJoin { join, token }))
}

/// All join tokens, without their secrets. Operators and auditors.
#[utoipa::path(get, path = "/v1/hosts/joins", tag = "inventory", responses((status = 200, body = wire::Joins), Problems))]
pub(super) async fn joins(caller: Caller, _: NoQuery, State(app): State<App>) -> Result<Answer<wire::Joins>, Problem> {
    let now = app.service.now();
    let joins = app.service.joins(&caller.proven)?;
    Ok(Answer(wire::Joins { joins: joins.iter().map(|known| join(known, now)).collect() }))
}

/// Takes a join token back. Operators.
#[utoipa::path(delete, path = "/v1/hosts/joins/{id}", tag = "inventory",
    params(("id" = String, Path, description = "the token's id")), responses((status = 204), Problems))]
pub(super) async fn revoke_join(
    caller: Caller,
    JoinOf(id): JoinOf,
    _: NoQuery,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    app.service.revoke_join(&caller.proven, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All hosts that are or were enrolled. Operators and auditors.
#[utoipa::path(get, path = "/v1/hosts/inventory", tag = "inventory",
    responses((status = 200, body = wire::Inventory), Problems))]
pub(super) async fn list(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Inventory>, Problem> {
    let hosts = app.service.enrolled_hosts(&caller.proven)?;
    Ok(Answer(wire::Inventory { hosts: hosts.iter().map(detail).collect() }))
}

/// One enrolled host. Operators and auditors.
#[utoipa::path(get, path = "/v1/hosts/{name}", tag = "inventory",
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, body = wire::HostDetail), Problems))]
pub(super) async fn one(
    caller: Caller,
    Name(name): Name,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::HostDetail>, Problem> {
    Ok(Answer(detail(&app.service.enrolled_host(&caller.proven, &name)?)))
}

/// Sets and takes away tags of an enrolled host. Operators.
#[utoipa::path(post, path = "/v1/hosts/{name}/tags", tag = "inventory", request_body = wire::SetTags,
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, body = wire::HostDetail), Problems))]
pub(super) async fn tags(
    caller: Caller,
    Name(name): Name,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::SetTags>,
) -> Result<Answer<wire::HostDetail>, Problem> {
    let (add, unset) = (set("set", &body.set, Tag::parse)?, set("unset", &body.unset, TagKey::parse)?);
    app.service.tag_host(&caller.proven, &name, add, unset).await?;
    Ok(Answer(detail(&app.service.enrolled_host(&caller.proven, &name)?)))
}

/// Takes a host out of the inventory: from then on it is an unknown host. Operators.
#[utoipa::path(post, path = "/v1/hosts/{name}/retire", tag = "inventory", request_body = Why,
    params(("name" = String, Path, description = "its name")),
    responses((status = 200, body = wire::HostDetail), Problems))]
pub(super) async fn retire(
    caller: Caller,
    Name(name): Name,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<Why>,
) -> Result<Answer<wire::HostDetail>, Problem> {
    app.service.retire_host(&caller.proven, &name, &body.reason).await?;
    Ok(Answer(detail(&app.service.enrolled_host(&caller.proven, &name)?)))
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn join(join: &Join, now: Timestamp) -> wire::Join {
    wire::Join {
        id: join.id.to_string(),
        state: join.state(now).to_owned(),
        by: join.by.to_string(),
        created: join.created.to_string(),
        expires: join.expires.to_string(),
        uses: u32::try_from(join.uses).unwrap_or(u32::MAX),
        hosts: texts(&join.hosts),
        names: texts(&join.names),
        tags: texts(&join.tags),
        may_tag: join.may_tag.as_ref().map(texts),
    }
}

fn detail(view: &EnrolledView) -> wire::HostDetail {
    let EnrolledView { host, seen: told } = view;
    let conflict = |conflict: &Conflict| wire::Conflict {
        at: conflict.at.to_string(),
        name: conflict.name.to_string(),
        key: conflict.key.to_string(),
        why: conflict.why.clone(),
    };
    wire::HostDetail {
        schema: "hallpass.host.v1".to_owned(),
        name: host.name.to_string(),
        state: if host.is_active { "active" } else { "retired" }.to_owned(),
        tags: texts(&host.tags),
        names: texts(&host.names),
        keys: texts(host.keys.iter().map(crate::ssh::PublicKey::fingerprint)),
        enrolled: host.enrolled.to_string(),
        join: host.join.to_string(),
        seen: told.as_ref().map(seen),
        ca: host.ca.named().map(|ca| ca.to_string()),
        keeps: texts(&host.keeps),
        waits: host.waits,
        conflicts: host.conflicts.iter().map(conflict).collect(),
    }
}

/// What a host told last.
pub(super) fn seen(view: &SeenView) -> wire::Seen {
    let told = &view.seen.check_in;
    wire::Seen {
        at: view.seen.at.to_string(),
        is_stale: view.is_stale,
        about: wire::About { program: told.program.clone(), sshd: told.sshd.clone(), os: told.os.clone() },
        guard: told.guard,
        trust: view.trust.word().to_owned(),
        clock_ms: told.clock_ms,
        risky: told.risky.iter().cloned().collect(),
        sessions: told.sessions,
        doubled: told.runs.doubled.filter(|_| view.is_doubled).map(|at| at.to_string()),
    }
}
