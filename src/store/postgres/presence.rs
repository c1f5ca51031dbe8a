//! Who is at work on a database: nodes, any number of them, or one that repairs it.
//!
//! It is an advisory lock of PostgreSQL's, which nodes share. It belongs to a connection and is gone with it: a node's is the one that listens, and is made
//! anew with that. A node whose lock somebody else has by then writes nothing until it has it again; and whoever repairs waits, once they have it,
//! until every node has noticed. What is written is checked all the same: by nodes against what they know of the log, by a recovery against its size.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::line::{Line, get};
use crate::store::{StoreError, Work};

const ENTERING: &str = "opening the database";

/// The number after the one by which the schema is migrated (`schema.rs`).
pub(super) const SHARED: &str = "SELECT pg_try_advisory_lock_shared(1752195444)";
const ALONE: &str = "SELECT pg_try_advisory_lock(1752195444)";

/// Who has it, as far as we may know.
const HOLDERS: &str =
    "SELECT coalesce(string_agg(DISTINCT coalesce(host(a.client_addr), 'this machine'), ', '), 'somewhere')
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.objid = 1752195444 AND l.granted AND a.datname = current_database()";

/// For how long whoever repairs waits, once nobody else can come in: a node that has just lost its connection is back by then, twice over, and has noticed.
const SETTLING: Duration = Duration::from_secs(2);

pub(super) const REPAIRED: &str = "it is being repaired (hallpass admin store recover): wait for that";

/// Takes part, as long as this connection lasts.
pub(super) async fn enter(line: &Line, work: Work) -> Result<(), StoreError> {
    let sql = match work {
        Work::Look | Work::Copy => return Ok(()),
        Work::Serve => SHARED,
        Work::Repair => ALONE,
    };
    let is_free: bool = get(&line.one(ENTERING, sql, &[]).await?, 0)?;
    if !is_free {
        let from: String = get(&line.one(ENTERING, HOLDERS, &[]).await?, 0)?;
        let why = match work {
            Work::Serve => format!("{REPAIRED}; by somebody connected from {from}"),
            Work::Repair | Work::Look | Work::Copy => {
                format!(
                    "nodes are at work on it, or somebody repairs it already, connected from {from}: stop them all first"
                )
            }
        };
        return Err(StoreError::Failed { doing: ENTERING, why });
    }
    if work == Work::Repair {
        tokio::time::sleep(SETTLING).await;
    }
    Ok(())
}

/// Whether this node may write.
#[derive(Debug, Default)]
pub(super) struct Presence {
    is_out: AtomicBool,
}

impl Presence {
    /// The connection that listens has got the lock, or somebody else has it.
    pub(super) fn is_in(&self, is_in: bool) {
        self.is_out.store(!is_in, Ordering::Relaxed);
    }

    /// Refuses to write while somebody repairs.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.is_out.load(Ordering::Relaxed) {
            return Err(StoreError::Failed { doing: "writing to the database", why: REPAIRED.to_owned() });
        }
        Ok(())
    }
}
