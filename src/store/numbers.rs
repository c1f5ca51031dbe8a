//! Numbers and times as both databases keep them: signed 64-bit integers.

use super::{LIST_MAX, StoreError};
use crate::time::Timestamp;

pub(super) fn damaged(what: impl Into<String>, why: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: what.into(), why: why.into() }
}

/// A number as it is kept. What we count stays far below 2^63.
pub(super) fn to_sql(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number)
        .map_err(|error| StoreError::Failed { doing: "converting a number", why: format!("{number}: {error}") })
}

pub(super) fn time_to_sql(time: Timestamp) -> Result<i64, StoreError> {
    to_sql(time.unix())
}

pub(super) fn from_sql(what: &str, number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_negative| damaged(what, format!("negative number {number}")))
}

pub(super) fn time_from_sql(what: &str, number: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_unix(from_sql(what, number)?).map_err(|error| damaged(what, error.to_string()))
}

pub(super) fn limit_to_sql(limit: usize) -> i64 {
    i64::try_from(limit.min(LIST_MAX)).unwrap_or(0)
}
