//! `hallpass audit tail`: the last entries of the log, and with `--follow` those that come.
//!
//! What for: an operator's second window, and programs that read the log as it grows (`--jsonl`: one entry per line).
//! What not: nothing is proven here; that is `audit show` and `audit verify`.
//!
//! Following asks for the checkpoint every few seconds: the log has no stream of its own. A server that is away is waited for; no
//! entry is left out or printed twice, since each is asked for by its number.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::log_pages::entries;
use super::{Context, audit};
use crate::audit::entry::Entry;
use crate::audit::report;
use crate::client::Client;
use crate::wire;

/// How often we look for more. Our own choice: as soon as a person expects it, and one small call each time.
const PERIOD: Duration = Duration::from_secs(2);

/// `hallpass audit tail`.
pub(crate) fn tail(context: &Context, count: u64, follow: bool) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    context.block_on(async {
        let head: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
        let entries = entries(&client, head.size.saturating_sub(count), head.size).await?;
        if !follow && !context.out.is_stream() {
            return audit::print(context, &entries, "no entries\n");
        }
        let flow = events(context, &entries)?;
        if follow && flow.is_continue() { Follower::new(context, head.size)?.run(&client).await } else { Ok(()) }
    })
}

/// Prints entries, one at a time.
fn events(context: &Context, entries: &[String]) -> Result<ControlFlow<()>, Failure> {
    for text in entries {
        let document = match Entry::parse(text.as_bytes()) {
            Ok(entry) => report::document(&entry),
            // Of a newer service: people see it as it is, programs are not given what has no schema.
            Err(_) if context.out.is_json() => continue,
            Err(_) => serde_json::Value::Null,
        };
        if context.out.event(&document, &format!("{}\n", audit::line(text)))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

struct Follower<'a> {
    context: &'a Context,
    next: u64,
    interrupt: Signal,
    is_away: bool,
}

impl<'a> Follower<'a> {
    fn new(context: &'a Context, next: u64) -> Result<Self, Failure> {
        let caught = signal(SignalKind::interrupt());
        let interrupt = caught.map_err(|e| Failure::failed("cannot catch signals").because(e.to_string()))?;
        Ok(Self { context, next, interrupt, is_away: false })
    }

    /// Until Ctrl-C, or until nobody reads on.
    async fn run(mut self, client: &Client) -> Result<(), Failure> {
        loop {
            let from = self.next;
            let more = async {
                tokio::time::sleep(PERIOD).await;
                let head: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
                entries(client, from, head.size).await
            };
            let looked = tokio::select! {
                looked = more => looked,
                _ = self.interrupt.recv() => return Ok(()),
            };
            match looked {
                Ok(entries) => {
                    if std::mem::take(&mut self.is_away) {
                        self.context.out.note("connected again");
                    }
                    self.next = from.saturating_add(u64::try_from(entries.len()).unwrap_or(u64::MAX));
                    if events(self.context, &entries)?.is_break() {
                        return Ok(());
                    }
                }
                Err(failure) if failure.retryable => {
                    if !std::mem::replace(&mut self.is_away, true) {
                        self.context.out.note("the access server cannot be reached; trying again");
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}
