//! What enrolled hosts call: joining, tokens, what they must know, what they report, certificates.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use super::App;
use super::admission::Held;
use super::caller::{Anyone, HostCaller};
use super::error::Problem;
use super::extract::{Json, NoQuery, Query};
use super::openapi::{Problems, ProblemsOpen};
use crate::identity::host::{HOST_KEYS_MAX, HostAnswer, HostProven};
use crate::inventory::check_in::CheckIn;
use crate::inventory::double::Runs;
use crate::name::{Digest, HostName, ReportId, Tag};
use crate::service::enrol::Enrolment;
use crate::service::host_report::{Report, ReportKind};
use crate::service::host_state::{HostGrant, HostState};
use crate::ssh::host::HostPurpose;
use crate::ssh::sig::SshSignature;
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;
use crate::wire::host as wire;

/// The longest that `wait` waits, in seconds; less where exchanges have a shorter deadline.
const WAIT_S_MAX: u64 = 60;

/// The most of the lists of a check-in, and the longest of its texts. Our own choice.
const KEYS_MAX: usize = 64;
const RISKY_MAX: usize = 64;
const SESSIONS_MAX: usize = 1024;
const TEXT_CHARS_MAX: usize = 120;

/// A challenge for a host that joins, or shows its key again. Says nothing about whether there is such a host.
#[utoipa::path(post, path = "/v1/hosts/challenge", tag = "host", request_body = wire::ChallengeFor, security(()),
    responses((status = 200, body = wire::HostChallenge), ProblemsOpen))]
pub(super) async fn challenge(
    _: Anyone,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::ChallengeFor>,
) -> Result<Answer<wire::HostChallenge>, Problem> {
    let purpose = HostPurpose::parse(&body.purpose).map_err(|e| Problem::invalid("purpose", &e))?;
    let (challenge, expires) = app.service.host_challenge(&host_name(&body.name)?, purpose)?;
    let server = app.service.settings().public_url.clone();
    Ok(Answer(wire::HostChallenge { challenge, server, expires: expires.to_string() }))
}

/// Joins with a join token. The same host again with the same token changes nothing and gives a new host token.
#[utoipa::path(post, path = "/v1/hosts/enrol", tag = "host", request_body = wire::Enrol, security(()),
    responses((status = 200, body = wire::Enrolled), ProblemsOpen))]
pub(super) async fn enrol(
    _: Anyone,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::Enrol>,
) -> Result<Answer<wire::Enrolled>, Problem> {
    if body.keys.len() > HOST_KEYS_MAX {
        return Err(Problem::invalid("keys", &format!("{} given, 1 to {HOST_KEYS_MAX} are taken", body.keys.len())));
    }
    about(&body.about)?;
    let proofs = body.keys.iter().map(|proof| key_and_signature(&proof.key, &proof.signature));
    let answer = HostAnswer {
        host: host_name(&body.name)?,
        purpose: HostPurpose::Enrol,
        challenge: body.challenge,
        proofs: proofs.collect::<Result<_, _>>()?,
    };
    let enrolment = Enrolment {
        token: body.token.into(),
        tags: set("tags", &body.tags, Tag::parse)?,
        names: set("names", &body.names, HostName::parse)?,
        answer,
    };
    let session = app.service.enrol(enrolment).await?;
    let state = app.service.host_state(&session.proven).await?;
    Ok(Answer(wire::Enrolled {
        host: session.proven.host().to_string(),
        state: shown(&state),
        token: session.token.into(),
        expires: session.expires.to_string(),
        log_key: app.service.log_verifier(),
    }))
}

/// A host token, for an hour, for a host that shows its identity key.
#[utoipa::path(post, path = "/v1/hosts/session", tag = "host", request_body = wire::SessionAnswer, security(()),
    responses((status = 200, body = wire::HostToken), ProblemsOpen))]
pub(super) async fn session(
    _: Anyone,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::SessionAnswer>,
) -> Result<Answer<wire::HostToken>, Problem> {
    let answer = HostAnswer {
        host: host_name(&body.name)?,
        purpose: HostPurpose::Session,
        challenge: body.challenge,
        proofs: vec![key_and_signature(&body.key, &body.signature)?],
    };
    let session = app.service.host_login(answer).await?;
    let token = session.token.into();
    Ok(Answer(wire::HostToken { token, expires: session.expires.to_string(), log_key: app.service.log_verifier() }))
}

/// What the host must know. With `If-None-Match`: 304 if that is what it knows; with `wait`, only after so long without a change.
#[utoipa::path(get, path = "/v1/hosts/self/state", tag = "host", security(("host" = [])),
    params(
        ("wait" = Option<u64>, Query, description = "how many seconds to wait for a change, at most 60"),
        ("If-None-Match" = Option<String>, Header, description = "the ETag of what the host knows"),
    ),
    responses((status = 200, body = wire::State), (status = 304), Problems))]
pub(super) async fn state(
    caller: HostCaller,
    headers: HeaderMap,
    mut query: Query,
    held: Held,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let wait = query.number("wait")?.unwrap_or(0);
    query.end()?;
    if wait > WAIT_S_MAX {
        return Err(Problem::invalid("wait", &format!("{wait} is more than {WAIT_S_MAX}")));
    }
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let most = app.request_timeout.saturating_sub(Duration::from_secs(5));
    let until = Instant::now() + Duration::from_secs(wait).min(most);
    let state = changed_state(&app, (&caller.proven, &held), known, until).await?;
    let etag = format!("\"{}\"", state.etag);
    if known == Some(etag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    Ok(([(header::ETAG, etag)], Answer(shown(&state))).into_response())
}

/// The state when it is another than `known`, or at `until` as it is then. Whoever waits needs no place for it.
async fn changed_state(
    app: &App,
    (host, held): (&HostProven, &Held),
    known: Option<&str>,
    until: Instant,
) -> Result<std::sync::Arc<HostState>, Problem> {
    // Listening before looking: a change between the two is then seen twice rather than never.
    let mut changes = app.service.host_changes(host.host());
    let mut stop = app.stop.subscribe();
    loop {
        let state = app.service.host_state(host).await?;
        if known != Some(format!("\"{}\"", state.etag).as_str()) || Instant::now() >= until {
            return Ok(state);
        }
        held.release();
        tokio::select! {
            () = changes.changed() => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(state),
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// What the host tells of itself.
#[utoipa::path(post, path = "/v1/hosts/check-in", tag = "host", request_body = wire::CheckIn, security(("host" = [])),
    responses((status = 200, body = wire::Nothing), Problems))]
pub(super) async fn check_in(
    caller: HostCaller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::CheckIn>,
) -> Result<Answer<wire::Nothing>, Problem> {
    let wire::CheckIn { about: what, trust, clock_ms, guard, risky, sessions, run, shows } = body;
    about(&what)?;
    if trust.keys.len() > KEYS_MAX || shows.len() > KEYS_MAX || risky.len() > RISKY_MAX || sessions.len() > SESSIONS_MAX
    {
        let most = format!("at most {KEYS_MAX} keys, {RISKY_MAX} risky settings and {SESSIONS_MAX} sessions are taken");
        return Err(Problem::invalid("check-in", &most));
    }
    let keys = set("trust.keys", &trust.keys, Fingerprint::parse)?;
    let proven = set("trust.proven", &trust.proven, Fingerprint::parse)?;
    if !proven.is_subset(&keys) {
        return Err(Problem::invalid("trust.proven", &"a key is proven that is not in the file"));
    }
    let check_in = CheckIn {
        program: what.program,
        sshd: what.sshd,
        os: what.os,
        guard,
        file_sha256: Digest::parse(&trust.file_sha256).map_err(|e| Problem::invalid("trust.file_sha256", &e))?,
        keys,
        proven,
        shows: set("shows", &shows, Fingerprint::parse)?,
        clock_ms,
        risky: set("risky", &risky, |text| plain_text(text).map(|()| text.to_owned()))?,
        sessions: u64::try_from(sessions.len()).unwrap_or(u64::MAX),
        runs: Runs::of(run.as_deref().map(Digest::parse).transpose().map_err(|e| Problem::invalid("run", &e))?),
    };
    app.limits.check_in(caller.proven.host())?;
    app.service.check_in(&caller.proven, check_in).await?;
    Ok(Answer(wire::Nothing {}))
}

/// Who logged in on the host, and which sessions are over.
#[utoipa::path(post, path = "/v1/hosts/sessions", tag = "host", request_body = wire::SessionEvents, security(("host" = [])),
    responses((status = 200, body = wire::Taken), Problems))]
pub(super) async fn sessions(
    caller: HostCaller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::SessionEvents>,
) -> Result<Answer<wire::Taken>, Problem> {
    let reports: Vec<Report> = body.events.into_iter().map(report).collect::<Result<_, _>>()?;
    app.limits.reports(caller.proven.host(), reports.len())?;
    let taken = app.service.take_reports(&caller.proven, reports).await?;
    Ok(Answer(wire::Taken { taken: taken.iter().map(ToString::to_string).collect() }))
}

fn report(event: wire::SessionEvent) -> Result<Report, Problem> {
    let wire::SessionEvent { id, kind, serial, key_id, ca, account, from, at, why } = event;
    let kind = ReportKind::parse(&kind)
        .ok_or_else(|| Problem::invalid("kind", &format!("{kind:?} is not opened, ended or refused")))?;
    Ok(Report {
        id: ReportId::parse(&id).map_err(|e| Problem::invalid("id", &e))?,
        kind,
        serial,
        key_id,
        ca: Fingerprint::parse(&ca).map_err(|e| Problem::invalid("ca", &e))?,
        account,
        from,
        at: Timestamp::parse(&at).map_err(|e| Problem::invalid("at", &e))?,
        why,
    })
}

/// Host certificates for the host's own keys, with the names that it has.
#[utoipa::path(post, path = "/v1/hosts/certificates", tag = "host", request_body = wire::CertificatesFor,
    security(("host" = [])), responses((status = 200, body = wire::HostCertificates), Problems))]
pub(super) async fn certificates(
    caller: HostCaller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::CertificatesFor>,
) -> Result<Answer<wire::HostCertificates>, Problem> {
    if !(1..=HOST_KEYS_MAX).contains(&body.keys.len()) {
        return Err(Problem::invalid("keys", &format!("{} given, 1 to {HOST_KEYS_MAX} are taken", body.keys.len())));
    }
    let keys = body.keys.iter().map(|key| public_key(key)).collect::<Result<_, _>>()?;
    let certificates = app.service.host_certificates(&caller.proven, keys).await?;
    Ok(Answer(wire::HostCertificates {
        certificates: certificates.iter().map(crate::ssh::cert::Certificate::to_openssh).collect(),
    }))
}

/// A certificate with which the host logs in to itself.
#[utoipa::path(post, path = "/v1/hosts/check-certificate", tag = "host", request_body = wire::CheckCertificateFor,
    security(("host" = [])), responses((status = 200, body = wire::CheckCertificate), Problems))]
pub(super) async fn check_certificate(
    caller: HostCaller,
    _: NoQuery,
    State(app): State<App>,
    Json(body): Json<wire::CheckCertificateFor>,
) -> Result<Answer<wire::CheckCertificate>, Problem> {
    let ca = body.ca.as_deref().map(Fingerprint::parse).transpose().map_err(|e| Problem::invalid("ca", &e))?;
    let key = public_key(&body.key)?;
    // Only keys that there are make a count of their own.
    app.limits.check(caller.proven.host(), app.service.check_key(&caller.proven, ca)?)?;
    let certificate = app.service.check_certificate(&caller.proven, key, ca).await?;
    Ok(Answer(wire::CheckCertificate { certificate: certificate.to_openssh() }))
}

/// The host takes itself out.
#[utoipa::path(post, path = "/v1/hosts/leave", tag = "host", request_body = wire::Nothing, security(("host" = [])),
    responses((status = 200, body = wire::Nothing), Problems))]
pub(super) async fn leave(
    caller: HostCaller,
    _: NoQuery,
    State(app): State<App>,
    Json(nothing): Json<wire::Nothing>,
) -> Result<Answer<wire::Nothing>, Problem> {
    app.service.leave(&caller.proven).await?;
    Ok(Answer(nothing))
}

/// What a host must know, as JSON.
pub(super) fn shown(state: &HostState) -> wire::State {
    let grant = |grant: &HostGrant| wire::Grant {
        request: grant.request.to_string(),
        serial: grant.serial.number(),
        account: grant.account.to_string(),
        until: grant.until.to_string(),
        is_ended: grant.is_ended,
    };
    wire::State {
        etag: state.etag.clone(),
        name: state.host.name.to_string(),
        tags: state.host.tags.iter().map(ToString::to_string).collect(),
        names: state.host.names.iter().map(ToString::to_string).collect(),
        bundle: wire::Bundle { version: state.bundle_version, text: state.bundle.to_string() },
        belongs: Some(state.belongs.clone()),
        grants: state.grants.iter().map(grant).collect(),
        certificates: state.certificates.clone(),
        host_ca: state.host_ca.map(|ca| ca.to_string()),
        lost: state.lost.iter().map(ToString::to_string).collect(),
        is_retired: !state.host.is_active,
    }
}

fn host_name(text: &str) -> Result<HostName, Problem> {
    HostName::parse(text).map_err(|e| Problem::invalid("name", &e))
}

fn public_key(text: &str) -> Result<PublicKey, Problem> {
    PublicKey::parse_openssh(text).map_err(|e| Problem::invalid("key", &e))
}

fn key_and_signature(key: &str, signature: &str) -> Result<(PublicKey, SshSignature), Problem> {
    let signature = SshSignature::parse(signature).map_err(|e| Problem::invalid("signature", &e))?;
    Ok((public_key(key)?, signature))
}

/// A set; what is said twice is said once.
pub(super) fn set<T: Ord, E: std::fmt::Display>(
    what: &'static str,
    list: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<BTreeSet<T>, Problem> {
    list.iter().map(|text| parse(text).map_err(|e| Problem::invalid(what, &e))).collect()
}

/// Short visible ASCII, as versions and names of settings are.
fn plain_text(text: &str) -> Result<(), String> {
    let is_visible = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if is_visible && text.len() <= TEXT_CHARS_MAX {
        Ok(())
    } else {
        Err(format!("it is not at most {TEXT_CHARS_MAX} visible ASCII characters"))
    }
}

fn about(about: &wire::About) -> Result<(), Problem> {
    for text in [&about.program, &about.sshd, &about.os] {
        plain_text(text).map_err(|e| Problem::invalid("about", &e))?;
    }
    Ok(())
}
