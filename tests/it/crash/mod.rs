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
//! Without the `failpoints` feature the program can't die at a point, and only the list of points is checked.

#[cfg(feature = "failpoints")]
mod ledger;
#[cfg(feature = "failpoints")]
mod nodes;
mod points;
#[cfg(feature = "failpoints")]
mod server;
#[cfg(feature = "failpoints")]
mod story;
