//! What is over, for every store: sessions, used challenges and records of reports that nobody can use any more.

use super::StoreError;
use super::numbers::time_to_sql;
use crate::identity::host::HOST_SESSION_LIFETIME;
use crate::time::{Lifetime, Timestamp};

/// How many rows of a kind one sweep deletes: the writer must not be kept from others. The next sweep goes on.
pub(super) const SWEEP_MAX: i64 = 2_000;

/// How long it is remembered that a report was taken: a host gives up one that it can't deliver long before. Our own choice.
const REPORTS_KEPT: Lifetime = Lifetime::minutes(90 * 24 * 60);

/// Up to when rows are over, by kind.
pub(super) struct Ends {
    /// Sessions and redemptions that expire at or before.
    pub(super) sessions: i64,
    /// Host sessions that were opened at or before.
    pub(super) host_sessions: i64,
    /// Reports that were taken at or before.
    pub(super) reports: i64,
}

impl Ends {
    pub(super) fn at(now: Timestamp) -> Result<Self, StoreError> {
        let ago = |span| now.minus(span).map_or(Ok(0), time_to_sql);
        Ok(Self {
            sessions: time_to_sql(now)?,
            host_sessions: ago(HOST_SESSION_LIFETIME)?,
            reports: ago(REPORTS_KEPT)?,
        })
    }
}
