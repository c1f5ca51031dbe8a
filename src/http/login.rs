//! Logging in and out.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;

use super::App;
use super::caller::{Anyone, Caller};
use super::error::Problem;
use super::extract::{Json, NoQuery, Query};
use super::openapi::{Problems, ProblemsOpen};
use crate::identity::challenge::Answer as ChallengeAnswer;
use crate::name::PersonName;
use crate::ssh::PublicKey;
use crate::ssh::sig::SshSignature;
use crate::wire;

/// A challenge to be answered with `POST /v1/login/ssh`.
#[utoipa::path(post, path = "/v1/login/challenge", tag = "login", security(()),
    responses((status = 200, body = wire::Challenge), ProblemsOpen))]
pub(super) async fn challenge(
    _: Anyone,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Challenge>, Problem> {
    let (challenge, expires) = app.service.challenge()?;
    let server = app.service.settings().public_url.clone();
    Ok(Answer(wire::Challenge { challenge, server, expires: expires.to_string() }))
}

/// Answers a challenge with an SSH signature; opens a session.
#[utoipa::path(post, path = "/v1/login/ssh", tag = "login", security(()), request_body = wire::LoginAnswer,
    responses((status = 200, body = wire::NewSession), ProblemsOpen))]
pub(super) async fn ssh(
    anyone: Anyone,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::LoginAnswer>,
) -> Result<Answer<wire::NewSession>, Problem> {
    let answer = ChallengeAnswer {
        person: PersonName::parse(&body.person).map_err(|e| Problem::invalid("person", &e))?,
        challenge: body.challenge,
        key: PublicKey::parse_openssh(&body.key).map_err(|e| Problem::invalid("key", &e))?,
        signature: SshSignature::parse(&body.signature).map_err(|e| Problem::invalid("signature", &e))?,
    };
    let session = app.service.login(answer, anyone.address.to_string()).await?;
    Ok(Answer(wire::NewSession {
        token: session.token.into(),
        person: session.proven.person().to_string(),
        expires: session.expires.to_string(),
    }))
}

/// Who am I, and until when.
#[utoipa::path(get, path = "/v1/session", tag = "login", responses((status = 200, body = wire::WhoAmI), Problems))]
pub(super) async fn who_am_i(caller: Caller, _: NoQuery, State(app): State<App>) -> Answer<wire::WhoAmI> {
    let (_, policy) = app.service.policy_now();
    let person = caller.proven.person();
    let mut roles = Vec::new();
    if policy.is_operator(person) {
        roles.push("operator".to_owned());
    }
    if policy.is_auditor(person) {
        roles.push("auditor".to_owned());
    }
    Answer(wire::WhoAmI {
        person: person.to_string(),
        groups: caller.proven.groups().iter().map(ToString::to_string).collect(),
        roles,
        expires: caller.expires.to_string(),
        now: app.service.now().to_string(),
    })
}

/// A sign-in token, with which one browser signs in as the caller on the service's pages. It ends with this session.
#[utoipa::path(post, path = "/v1/session/browser", tag = "login",
    responses((status = 200, body = wire::SignIn), Problems))]
pub(super) async fn browser(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::SignIn>, Problem> {
    let (token, expires) = app.service.sign_in_token(caller.token()).await?;
    Ok(Answer(wire::SignIn { token: token.into(), expires: expires.to_string() }))
}

/// Logs out: this session, or all of the caller's, with the browsers that they let in.
#[utoipa::path(delete, path = "/v1/session", tag = "login",
    params(("everywhere" = Option<bool>, Query, description = "end all of the caller's sessions")),
    responses((status = 204), Problems))]
pub(super) async fn logout(caller: Caller, mut query: Query, State(app): State<App>) -> Result<StatusCode, Problem> {
    let everywhere = query.flag("everywhere")?;
    query.end()?;
    app.service.logout(&caller.proven, caller.token(), everywhere).await?;
    Ok(StatusCode::NO_CONTENT)
}
