//! Reading the log: checkpoint, entries, proofs.

use axum::Json as Answer;
use axum::extract::State;

use super::App;
use super::caller::Caller;
use super::error::Problem;
use super::extract::{NoQuery, Query};
use super::openapi::Problems;
use crate::wire;

/// Most entries in one answer; the same cap as the service's.
const ENTRIES_MAX: u64 = 1000;

/// The signed checkpoint over the log as it stands.
#[utoipa::path(get, path = "/v1/log/checkpoint", tag = "log",
    responses((status = 200, body = wire::Checkpoint), Problems))]
pub(super) async fn checkpoint(
    _caller: Caller,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Answer<wire::Checkpoint>, Problem> {
    let (checkpoint, size) = app.service.checkpoint().await?;
    Ok(Answer(wire::Checkpoint { checkpoint, log_key: app.service.log_verifier(), size }))
}

/// Entries as they stand in the log. Operators and auditors.
#[utoipa::path(get, path = "/v1/log/entries", tag = "log",
    params(
        ("from" = Option<u64>, Query, description = "the first index; 0 if left out"),
        ("limit" = Option<u64>, Query, description = "at most so many, 1 to 1000; 1000 if left out"),
    ),
    responses((status = 200, body = wire::Entries), Problems))]
pub(super) async fn list(
    caller: Caller,
    mut query: Query,
    State(app): State<App>,
) -> Result<Answer<wire::Entries>, Problem> {
    let from = query.number("from")?.unwrap_or(0);
    let limit = query.number("limit")?.unwrap_or(ENTRIES_MAX);
    query.end()?;
    if !(1..=ENTRIES_MAX).contains(&limit) {
        return Err(Problem::invalid("limit", &format!("{limit} is not 1 to {ENTRIES_MAX}")));
    }
    let found = app.service.entries(&caller.proven, from, usize::try_from(limit).unwrap_or(1)).await?;
    entries(found.into_iter())
}

/// An inclusion proof (`index` and `size`) or a consistency proof (`old` and `size`).
#[utoipa::path(get, path = "/v1/log/proof", tag = "log",
    params(
        ("index" = Option<u64>, Query, description = "prove that this entry is in the tree of `size`"),
        ("old" = Option<u64>, Query, description = "prove that the tree of `old` is a prefix of that of `size`"),
        ("size" = u64, Query, description = "the tree's size"),
    ),
    responses((status = 200, body = wire::Proof), Problems))]
pub(super) async fn proof(
    _caller: Caller,
    mut query: Query,
    State(app): State<App>,
) -> Result<Answer<wire::Proof>, Problem> {
    let (index, old, size) = (query.number("index")?, query.number("old")?, query.number("size")?);
    query.end()?;
    let hashes = match (index, old, size) {
        (Some(index), None, Some(size)) => app.service.inclusion(index, size).await?,
        (None, Some(old), Some(size)) => app.service.consistency(old, size).await?,
        _ => return Err(Problem::invalid("query", &"give index and size, or old and size")),
    };
    Ok(Answer(wire::Proof { proof: hashes.iter().map(|hash| data_encoding::HEXLOWER.encode(hash)).collect() }))
}

/// Entries as JSON texts; canonical bytes are UTF-8.
pub(super) fn entries(found: impl Iterator<Item = Vec<u8>>) -> Result<Answer<wire::Entries>, Problem> {
    let entries: Result<Vec<String>, _> = found.map(String::from_utf8).collect();
    let entries = entries.map_err(|error| {
        tracing::error!(%error, "a log entry is not UTF-8");
        Problem::internal()
    })?;
    Ok(Answer(wire::Entries { entries }))
}
