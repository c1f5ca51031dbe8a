//! CA keys: what operators see of them, and the steps of a rotation.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json as Answer;
use axum::extract::State;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{Json, NoQuery};
use super::host::set;
use super::openapi::Problems;
use crate::keyring::Ca;
use crate::keyring::step::{Proposal, Step};
use crate::name::{CaName, HostName};
use crate::service::key_view::{KeyView, KeysView};
use crate::service::keys::Proposed;
use crate::service::rotate::RotationWish;
use crate::ssh::Fingerprint;
use crate::ssh::cert::Purpose;
use crate::wire::ca as wire;

/// All CA keys that the log knows. Operators and auditors.
#[utoipa::path(get, path = "/v1/ca/keys", tag = "ca", responses((status = 200, body = wire::Keys), Problems))]
pub(super) async fn keys(caller: Caller, _: NoQuery, State(app): State<App>) -> Result<Answer<wire::Keys>, Problem> {
    Ok(Answer(shown(&app.service.ca_keys(&caller.proven).await?)))
}

/// Takes a step of a rotation of a CA key; or proposes it, where the policy wants two operators for it: then the answer has the proposal.
/// Operators.
#[utoipa::path(post, path = "/v1/ca/rotate", tag = "ca", request_body = wire::Rotate,
    responses((status = 200, body = wire::Keys), Problems))]
pub(super) async fn rotate(
    caller: Caller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Rotate>,
) -> Result<Answer<wire::Keys>, Problem> {
    let wish = wish(body)?;
    Ok(Answer(shown(&app.service.rotate(&caller.proven, wish).await?)))
}

fn wish(body: wire::Rotate) -> Result<RotationWish, Problem> {
    let step = Step::from_word(&body.step).ok_or("it is none of start, switch, finish, abort, compromise");
    let step = step.map_err(|e| Problem::invalid("step", &e))?;
    let purpose = Purpose::from_word(&body.purpose).ok_or("it is neither user nor host");
    let purpose = purpose.map_err(|e| Problem::invalid("purpose", &e))?;
    let name = body.ca.as_deref().map(CaName::parse).transpose().map_err(|e| Problem::invalid("ca", &e))?;
    let ca = Ca::of(purpose, name).map_err(|e| Problem::invalid("ca", &e))?;
    let key = body.key.as_deref().map(Fingerprint::parse).transpose();
    let accepted = set("accept_unreachable", &body.accept_unreachable, HostName::parse)?;
    if !accepted.is_empty() && (step, purpose) != (Step::Switch, Purpose::User) {
        return Err(Problem::invalid("accept_unreachable", &"only the switch of a user key goes by what hosts prove"));
    }
    if body.now && (step, purpose) != (Step::Switch, Purpose::Host) {
        return Err(Problem::invalid("now", &"only the switch of a host key waits for clients"));
    }
    let key = key.map_err(|e| Problem::invalid("key", &e))?;
    let what = Proposal { step, ca, key, accepted, is_early: body.now };
    Ok(RotationWish { what, reason: body.reason })
}

fn shown(view: &KeysView) -> wire::Keys {
    let spare = |(ca, key): &(Ca, crate::ssh::PublicKey)| wire::Spare {
        purpose: ca.purpose().to_string(),
        ca: named(ca),
        fingerprint: key.fingerprint().to_string(),
        key: key.to_openssh(),
    };
    wire::Keys {
        version: view.version,
        cas: user_cas(view),
        keys: view.keys.iter().map(|one| key(one, &view.hosts)).collect(),
        spare: view.spare.iter().map(spare).collect(),
        hosts: view.hosts.values().sum(),
        by_hand: by_hand(view.by_hand.values().flatten()),
        proposal: view.proposed.as_ref().map(proposal),
        attention: view.attention.clone(),
    }
}

/// The name of a user CA, if it has one.
fn named(ca: &Ca) -> Option<String> {
    ca.named().map(|name| name.to_string())
}

/// Names, sorted.
fn by_hand<'v>(hosts: impl Iterator<Item = &'v HostName>) -> Vec<String> {
    hosts.collect::<BTreeSet<_>>().into_iter().map(ToString::to_string).collect()
}

fn user_cas(view: &KeysView) -> Vec<wire::UserCa> {
    if view.versions.keys().all(CaName::is_default) {
        return Vec::new();
    }
    let ca = |(name, version): (&CaName, &u64)| {
        let hosts = view.hosts.get(name).copied().unwrap_or_default();
        let by_hand = by_hand(view.by_hand.get(name).into_iter().flatten());
        wire::UserCa { name: name.to_string(), version: *version, hosts, by_hand }
    };
    view.versions.iter().map(ca).collect()
}

fn proposal(proposed: &Proposed) -> wire::Proposal {
    let Proposed { by, proposal, reason, at, until } = proposed;
    let Proposal { step, ca, key, accepted, is_early } = proposal;
    wire::Proposal {
        by: by.to_string(),
        purpose: ca.purpose().to_string(),
        ca: named(ca),
        step: step.word().to_owned(),
        key: key.map(|key| key.to_string()),
        accept_unreachable: accepted.iter().map(ToString::to_string).collect(),
        now: *is_early,
        reason: reason.clone(),
        at: at.to_string(),
        until: until.to_string(),
    }
}

fn key(view: &KeyView, hosts: &BTreeMap<CaName, usize>) -> wire::Key {
    let KeyView { known, is_up, unproven, shown, certificates, last_end, may_sign } = view;
    let of_ca = match &known.ca {
        Ca::User(name) if known.state.is_trusted() => Some(hosts.get(name).copied().unwrap_or_default()),
        Ca::User(_) | Ca::Host => None,
    };
    let without =
        unproven.iter().map(|(host, why)| wire::Unproven { host: host.to_string(), why: why.clone() }).collect();
    let with = shown.iter().map(|(host, until)| wire::Shown { host: host.to_string(), until: until.to_string() });
    wire::Key {
        purpose: known.purpose().to_string(),
        ca: named(&known.ca),
        fingerprint: known.key.fingerprint().to_string(),
        key: known.key.to_openssh(),
        state: known.state.word().to_owned(),
        since: known.since.to_string(),
        backend: is_up.map_or("none", |is_up| if is_up { "up" } else { "down" }).to_owned(),
        proven: of_ca.map(|hosts| hosts.saturating_sub(unproven.len())),
        unproven: without,
        shown: with.collect(),
        certificates: *certificates,
        last_end: last_end.map(|end| end.to_string()),
        may_sign: may_sign.map(|from| from.to_string()),
    }
}
