//! What is done with a request: approve, deny, withdraw, extend, end, fetch the certificate.

use axum::Json as Answer;
use axum::extract::State;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Id, Json, NoQuery};
use super::openapi::Problems;
use super::show;
use crate::access::Narrowing;
use crate::name::{Digest, HostName};
use crate::service::access::Approval;
use crate::ssh::PublicKey;
use crate::ssh::sig::SshSignature;
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// Approves exactly what the digest names, perhaps narrowed.
#[utoipa::path(post, path = "/v1/requests/{id}/approve", tag = "requests", request_body = wire::Approve,
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn approve(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Approve>,
) -> Result<Answer<wire::Request>, Problem> {
    let digest = Digest::parse(&body.digest).map_err(|e| Problem::invalid("digest", &e))?;
    let only = body.only.map(|only| only.iter().map(|host| HostName::parse(host)).collect::<Result<_, _>>());
    let extension = |key: &String| {
        show::extension(key).ok_or_else(|| Problem::invalid("without", &format!("{key:?} is no extension")))
    };
    let narrow = Narrowing {
        lifetime: body.lifetime.as_deref().map(Lifetime::parse).transpose().map_err(|e| Problem::invalid("for", &e))?,
        only: only.transpose().map_err(|e| Problem::invalid("only", &e))?,
        without: body.without.iter().map(extension).collect::<Result<_, _>>()?,
    };
    let signature = body.signature.as_ref().map(signature).transpose()?;
    let approval = Approval { digest, narrow, comment: body.comment, signature };
    Ok(Answer(show::request(&app.service.approve(&caller.proven, &id, approval).await?)))
}

fn signature(given: &wire::ApprovalSignature) -> Result<(PublicKey, Timestamp, SshSignature), Problem> {
    let wire::ApprovalSignature { key, signed, signature } = given;
    Ok((
        PublicKey::parse_openssh(key.trim()).map_err(|e| Problem::invalid("signature.key", &e))?,
        Timestamp::parse(signed).map_err(|e| Problem::invalid("signature.signed", &e))?,
        SshSignature::parse(signature).map_err(|e| Problem::invalid("signature.signature", &e))?,
    ))
}

/// Says no, with a reason.
#[utoipa::path(post, path = "/v1/requests/{id}/deny", tag = "requests", request_body = wire::Why,
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn deny(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Why>,
) -> Result<Answer<wire::Request>, Problem> {
    Ok(Answer(show::request(&app.service.deny(&caller.proven, &id, body.reason).await?)))
}

/// Takes one's own request back.
#[utoipa::path(post, path = "/v1/requests/{id}/withdraw", tag = "requests",
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn withdraw(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Request>, Problem> {
    Ok(Answer(show::request(&app.service.withdraw(&caller.proven, &id).await?)))
}

/// Asks for more time.
#[utoipa::path(post, path = "/v1/requests/{id}/extend", tag = "requests", request_body = wire::Extend,
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn extend(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Extend>,
) -> Result<Answer<wire::Request>, Problem> {
    let lifetime = Lifetime::parse(&body.lifetime).map_err(|e| Problem::invalid("for", &e))?;
    Ok(Answer(show::request(&app.service.extend(&caller.proven, &id, lifetime, body.reason).await?)))
}

/// Gives access back, or ends somebody else's (operators).
#[utoipa::path(post, path = "/v1/requests/{id}/end", tag = "requests", request_body = wire::Why,
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Request), Problems))]
pub(super) async fn end(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Why>,
) -> Result<Answer<wire::Request>, Problem> {
    Ok(Answer(show::request(&app.service.end(&caller.proven, &id, body.reason).await?)))
}

/// The certificate of one's own request. Fetching again gives the same one.
#[utoipa::path(post, path = "/v1/requests/{id}/certificate", tag = "requests",
    params(("id" = String, Path, description = "the id, or a unique start of it")),
    responses((status = 200, body = wire::Certificate), Problems))]
pub(super) async fn certificate(
    caller: Caller,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Certificate>, Problem> {
    Ok(Answer(show::certificate(&app.service.certificate(&caller.proven, &id).await?)))
}
