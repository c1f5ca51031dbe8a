//! Kill −9 of the real program at every durable step: nothing is lost, nothing doubled, and every certificate that a client
//! ever received has its earlier log entry with the very bytes (P2, P3, P12).
//!
//! A run starts `hallpass serve` with one fail point armed at its N-th pass, and lets a client go through a story of API calls.
//! When the process dies, it is started again, and the client goes on as a client would: it looks, and asks again for what it
//! doesn't see done. Then everything is compared with the client's own ledger of what it was told. N grows until the story
//! comes to its end without dying, so that each pass of each point has its run.
//!
//! `nodes` has two of them on one PostgreSQL server, which is killed under load three times; fifty times with
//! `HALLPASS_PG_KILLS=50 cargo test --locked --features failpoints --test it -- crash::nodes`.
//!
//! `disk` fails the calls that it makes to the disk (`shim.c`, loaded before libc), file by file, while clients are served; `clocks` sets
//! its clock between approval and issue; `failover` puts a standby of the database in its place; `kills` kills it at random moments. These go
//! by another ledger (`load.rs`): all that any client was told, compared by a program that shares no code with the service (`checker.py`).
//! Long runs are the same tests with more of it, by the environment, `--nocapture` for their figures:
//!
//! | Variable | Usual | What |
//! |---|---|---|
//! | `HALLPASS_KILLS` | 6 | `crash::kills`: how often the service is killed at a random moment under load |
//! | `HALLPASS_PG_KILLS` | 3 | `crash::nodes`: how often the database server is |
//! | `HALLPASS_PAUSE_S` | 0 | `crash::nodes`: how long a node stands still while the other works |
//! | `HALLPASS_HISTORIES` | 24 and 12 | `story::histories`: how many random histories, or `FROM..TO` |
//!
//! Without the `failpoints` feature the program can't die at a point, and only the list of points is checked.

#[cfg(feature = "failpoints")]
mod checker;
#[cfg(feature = "failpoints")]
mod clocks;
#[cfg(feature = "failpoints")]
mod disk;
#[cfg(feature = "failpoints")]
mod failover;
#[cfg(feature = "failpoints")]
mod kills;
#[cfg(feature = "failpoints")]
mod ledger;
#[cfg(feature = "failpoints")]
mod load;
#[cfg(feature = "failpoints")]
mod nodes;
mod points;
#[cfg(feature = "failpoints")]
mod server;
#[cfg(feature = "failpoints")]
pub(crate) mod shim;
#[cfg(feature = "failpoints")]
mod story;
