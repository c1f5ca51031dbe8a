//! CA keys: what operators see of them, and the steps of a rotation.

use axum::Json as Answer;
use axum::extract::State;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Json, NoQuery};
use super::host::set;
use super::openapi::Problems;
use crate::keyring::plan::Step;
use crate::name::HostName;
use crate::service::rotate::{KeyView, KeysView, RotationWish};
use crate::ssh::Fingerprint;
use crate::wire::ca as wire;

/// All CA keys that the log knows. Operators and auditors.
#[utoipa::path(get, path = "/v1/ca/keys", tag = "ca", responses((status = 200, body = wire::Keys), Problems))]
pub(super) async fn keys(caller: Caller, _: NoQuery, State(app): State<App>) -> Result<Answer<wire::Keys>, Problem> {
    Ok(Answer(shown(&app.service.ca_keys(&caller.proven).await?)))
}

/// Takes a step of a rotation of the user CA key. Operators.
#[utoipa::path(post, path = "/v1/ca/rotate", tag = "ca", request_body = wire::Rotate,
    responses((status = 200, body = wire::Keys), Problems))]
pub(super) async fn rotate(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Rotate>,
) -> Result<Answer<wire::Keys>, Problem> {
    let step = Step::from_word(&body.step).ok_or("it is none of start, switch, finish, abort, compromise");
    let key = body.key.as_deref().map(Fingerprint::parse).transpose();
    let wish = RotationWish {
        step: step.map_err(|e| Problem::invalid("step", &e))?,
        key: key.map_err(|e| Problem::invalid("key", &e))?,
        accepted: set("accept_unreachable", &body.accept_unreachable, HostName::parse)?,
        reason: body.reason,
    };
    Ok(Answer(shown(&app.service.rotate(&caller.proven, wish).await?)))
}

fn shown(view: &KeysView) -> wire::Keys {
    let spare =
        |key: &crate::ssh::PublicKey| wire::Spare { fingerprint: key.fingerprint().to_string(), key: key.to_openssh() };
    wire::Keys {
        version: view.version,
        keys: view.keys.iter().map(|one| key(one, view.hosts)).collect(),
        spare: view.spare.iter().map(spare).collect(),
        hosts: view.hosts,
        by_hand: view.by_hand.iter().map(ToString::to_string).collect(),
    }
}

fn key(view: &KeyView, hosts: usize) -> wire::Key {
    let KeyView { known, is_up, unproven, certificates, last_end } = view;
    let is_for_hosts = known.purpose == crate::ssh::cert::Purpose::User && known.state.is_trusted();
    let without =
        unproven.iter().map(|(host, why)| wire::Unproven { host: host.to_string(), why: why.clone() }).collect();
    wire::Key {
        purpose: known.purpose.to_string(),
        fingerprint: known.key.fingerprint().to_string(),
        key: known.key.to_openssh(),
        state: known.state.word().to_owned(),
        since: known.since.to_string(),
        backend: is_up.map_or("none", |is_up| if is_up { "up" } else { "down" }).to_owned(),
        proven: is_for_hosts.then(|| hosts.saturating_sub(unproven.len())),
        unproven: without,
        certificates: *certificates,
        last_end: last_end.map(|end| end.to_string()),
    }
}
