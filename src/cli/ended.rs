//! Access that is over before one connects: HP-206 with its times.

use super::failure::{Exit, Failure};
use super::{clock, output, render};
use crate::client::{Client, ClientError};
use crate::name::{Account, HostName};
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// Access that ended longer ago is no news.
const NEWS: Lifetime = Lifetime::minutes(24 * 60);

/// The last access of mine to this host, if it ended by itself or by somebody else within a day.
///
/// # Errors
/// When the server can't be asked.
pub(crate) async fn lately(
    client: &Client,
    host: &HostName,
    account: Option<&Account>,
) -> Result<Option<Failure>, ClientError> {
    // Not by state: what has just expired is listed under its old state until the service has written that down.
    let last: wire::Requests = client.get(&format!("/v1/requests?mine=true&host={host}&limit=20")).await?;
    let now = clock::measured(client.offset(), None);
    let fits = |request: &&wire::Request| {
        let is_over = matches!(request.state.as_str(), "expired" | "ended");
        let is_news = end(request).is_some_and(|end| now.seconds_since(end) < u64::from(NEWS.seconds()));
        // Who gave it back knows that.
        let by_others = request.closed.as_ref().is_none_or(|closed| closed.by != request.person);
        is_over && is_news && by_others && account.is_none_or(|account| request.account == account.as_str())
    };
    Ok(last.requests.iter().find(fits).map(|request| over(host.as_str(), request, now)))
}

/// HP-206: this access is over.
pub(crate) fn over(host: &str, request: &wire::Request, now: Timestamp) -> Failure {
    let what = match (&request.closed, end(request)) {
        (Some(closed), _) => format!("{} ended your access to {host}", closed.by),
        (None, Some(end)) if end <= now => {
            format!("your access to {host} ended {} ago", render::span(now.seconds_since(end)))
        }
        (None, _) => format!("your access to {host} is over"),
    };
    let mut failure = Failure::new(Exit::Over, "HP-206", what);
    if let Some(closed) = request.closed.as_ref().filter(|closed| !closed.reason.is_empty()) {
        failure = failure.because(closed.reason.clone());
    }
    if let Some(window) = &request.window {
        let (from, to) = (output::local_text(&window.not_before), output::local_text(&window.not_after));
        failure = failure.because(format!("{} ran from {from} to {to}; reason: {}", request.id, request.reason));
    }
    failure.next(format!("hallpass request --like {}", request.id))
}

fn end(request: &wire::Request) -> Option<Timestamp> {
    request.window.as_ref().and_then(|window| Timestamp::parse(&window.not_after).ok())
}
