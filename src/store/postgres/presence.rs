//! Who is at work on a database: nodes, any number of them, or one that repairs it.
//!
//! It is an advisory lock of PostgreSQL's, which nodes share. It belongs to a connection and is gone with it: a node's is the one that listens, and is made
//! anew with that. Not relied on for what is right: a node that has lost it writes on, and then whoever repairs finds that the log grows under their
//! hands, and stops.

use super::line::{Line, get};
use crate::store::{StoreError, Work};

const ENTERING: &str = "opening the database";

/// The number after the one by which the schema is migrated (`schema.rs`).
pub(super) const SHARED: &str = "SELECT pg_try_advisory_lock_shared(1752195444)";
const ALONE: &str = "SELECT pg_try_advisory_lock(1752195444)";

/// Takes part, as long as this connection lasts.
pub(super) async fn enter(line: &Line, work: Work) -> Result<(), StoreError> {
    let (sql, why) = match work {
        Work::Look => return Ok(()),
        Work::Serve => (SHARED, "it is being repaired (hallpass admin store recover): wait for that"),
        Work::Repair => (ALONE, "nodes are at work on it, or somebody repairs it already: stop them all first"),
    };
    let is_free: bool = get(&line.one(ENTERING, sql, &[]).await?, 0)?;
    if is_free { Ok(()) } else { Err(StoreError::Failed { doing: ENTERING, why: why.to_owned() }) }
}
