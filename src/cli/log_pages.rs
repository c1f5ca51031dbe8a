//! The service's log, read from one entry to another: page by page, and [`each`] has no more than a page in memory.
//!
//! What not: nothing is proven here; `audit show` and `audit export` do.

use std::time::Duration;

use super::Context;
use super::failure::Failure;
use super::progress::Progress;
use crate::client::{Client, ClientError};
use crate::wire;

/// Entries in one call: the API's own limit.
const PAGE: u64 = 1000;

/// How long and how often to wait when the service's rate is reached, whose slowest setting gives one call a second, or when it is away for a moment.
const PAGE_PAUSE: Duration = Duration::from_secs(1);
const PAGE_TRIES: usize = 60;

/// Entries `[from, to)`, of which there are few.
pub(super) async fn entries(client: &Client, from: u64, to: u64) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    let mut next = from;
    while next < to {
        let page = page(client, next, to).await?;
        next = next.saturating_add(length(&page));
        all.extend(page);
    }
    Ok(all)
}

/// The number of the first of `to` entries for which `is_so`, as it is for all behind it; `to` if there is none.
pub(super) async fn first(
    client: &Client,
    to: u64,
    is_so: impl Fn(&str) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    let (mut from, mut to) = (0, to);
    while from < to {
        let middle = from.midpoint(to);
        let entry = page(client, middle, middle.saturating_add(1)).await?.pop().unwrap_or_default();
        if is_so(&entry)? {
            to = middle;
        } else {
            from = middle.saturating_add(1);
        }
    }
    Ok(from)
}

/// Those of the first `to` entries that fit.
pub(super) async fn fitting(
    context: &Context,
    client: &Client,
    to: u64,
    fits: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Failure> {
    let mut kept = Vec::new();
    let keep = |entry: &str| {
        kept.extend(fits(entry).then(|| entry.to_owned()));
        Ok(())
    };
    each(context, client, 0, to, keep).await?;
    Ok(kept)
}

/// Hands over entries `[from, to)`, one after the other, and says now and then how far it is.
pub(super) async fn each(
    context: &Context,
    client: &Client,
    from: u64,
    to: u64,
    mut take: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut progress = Progress::new(context, "log entries fetched");
    let mut next = from;
    while next < to {
        let page = page(client, next, to).await?;
        next = next.saturating_add(length(&page));
        page.iter().try_for_each(|entry| take(entry))?;
        progress.tell(|| format!("{} of {}", next.saturating_sub(from), to.saturating_sub(from)));
    }
    Ok(())
}

fn length(page: &[String]) -> u64 {
    u64::try_from(page.len()).unwrap_or(u64::MAX)
}

/// One page, of at least one entry. A long log has more of them than the service gives a person at once, and takes so long that a service is
/// started anew meanwhile: then we wait, for what is being read does not run away.
async fn page(client: &Client, next: u64, to: u64) -> Result<Vec<String>, Failure> {
    let limit = to.saturating_sub(next).min(PAGE);
    let path = format!("/v1/log/entries?from={next}&limit={limit}");
    let mut left = PAGE_TRIES;
    let entries = loop {
        match client.get::<wire::Entries>(&path).await {
            Err(error) if left > 0 && is_for_a_moment(&error) => {
                left = left.saturating_sub(1);
                tokio::time::sleep(PAGE_PAUSE).await;
            }
            answered => break answered?.entries,
        }
    };
    match length(&entries) {
        0 => {
            Err(Failure::failed("the server's log is shorter than its checkpoint says")
                .because(format!("no entry {next}")))
        }
        count if count > limit => Err(Failure::failed("the server sent more of its log than it was asked for")
            .because(format!("{count} entries from {next} on; {limit} were asked for"))),
        _ => Ok(entries),
    }
}

fn is_for_a_moment(error: &ClientError) -> bool {
    match error {
        ClientError::Problem(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
        ClientError::Unreachable { .. } => true,
        _ => false,
    }
}
