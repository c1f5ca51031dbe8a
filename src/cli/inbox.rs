//! `hallpass inbox`: what waits for me, the oldest first, with the time that is left; `--watch` for a window that an approver leaves open.
//!
//! What not: nothing is decided here; `approve` and `deny` do.

use clap::Args;
use serde_json::{Value, json};

use super::cache::Cache;
use super::failure::Failure;
use super::profile::Profile;
use super::watch::{self, View};
use super::{Context, list, render};
use crate::client::{Client, ClientError};
use crate::time::Timestamp;
use crate::wire;

/// Arguments of `hallpass inbox`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct InboxArgs {
    /// Stay and show what changes, until Ctrl-C; with --jsonl one document per change
    #[arg(long)]
    watch: bool,
}

impl InboxArgs {
    /// Whether this is a stream.
    pub(crate) const fn is_stream(self) -> bool {
        self.watch
    }
}

/// `hallpass inbox`.
pub(crate) fn run(context: &Context, args: InboxArgs) -> Result<(), Failure> {
    if args.watch {
        return watch::run::<Inbox>(context);
    }
    let (profile, client) = context.connect()?;
    let inbox = context.block_on(async { Ok(Inbox::look(&client).await?) })?;
    if let Some(cache) = context.cache() {
        inbox.keep(&cache, &profile);
    }
    context.out.answer(&inbox.document(&profile), &inbox.text(&profile, context.now()))
}

/// What waits for somebody, the oldest first.
#[derive(Clone, Debug)]
struct Inbox(Vec<wire::Request>);

impl View for Inbox {
    const GONE: &'static str = "waits for you no longer";

    async fn look(client: &Client) -> Result<Self, ClientError> {
        // As many as there can be, since the answer begins with the newest.
        let list: wire::Requests = client.get("/v1/requests?inbox=true&limit=1000").await?;
        Ok(Self(list.requests.into_iter().rev().collect()))
    }

    fn document(&self, _: &Profile) -> Value {
        json!({ "schema": "hallpass.requests.v1", "requests": self.0 })
    }

    fn text(&self, _: &Profile, now: Timestamp) -> String {
        if self.0.is_empty() {
            return "nothing waits for you\n".to_owned();
        }
        render::columns(&self.0.iter().map(|request| row(request, now)).collect::<Vec<_>>())
    }

    fn is_same(&self, other: &Self) -> bool {
        list::are_same(&self.0, &other.0)
    }

    fn requests(&self) -> &[wire::Request] {
        &self.0
    }

    fn keep(&self, cache: &Cache, profile: &Profile) {
        cache.keep_inbox(profile, &self.0);
    }
}

/// One line: as everywhere, and how long it can still be decided.
fn row(request: &wire::Request, now: Timestamp) -> [String; 6] {
    let by = request.extension.as_ref().map(|extension| &extension.decide_by).or(request.decide_by.as_ref());
    let left = by.map(|by| render::left(by, now)).unwrap_or_default();
    let [id, state, person, what, reason] = render::row(request);
    [id, state, person, what, left, reason]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests_request;

    fn asked(decide_by: Option<&str>) -> wire::Request {
        wire::Request { decide_by: decide_by.map(str::to_owned), ..tests_request() }
    }

    #[test]
    fn a_row_says_how_long_there_is() {
        let at = |decide_by| row(&asked(decide_by), Timestamp::parse("2026-01-05T10:30:30Z").unwrap())[4].clone();
        let cells = [Some("2026-01-05T10:31:00Z"), Some("2026-01-05T10:35:00Z"), Some("2026-01-05T10:30:30Z"), None];
        assert_eq!(cells.map(at), ["(30 s left)", "(4 min left)", "", ""]);
        let request = wire::Request { reason: "x\u{1b}".to_owned(), ..asked(None) };
        assert_eq!(row(&request, Timestamp::from_unix(0).unwrap())[5], "x\\u{1b}");
    }

    #[test]
    fn of_an_extension_its_own_end_counts_and_of_what_is_over_none_does() {
        let extension = wire::Extension {
            lifetime: "10m".to_owned(),
            reason: "more".to_owned(),
            decide_by: "2026-01-05T11:00:00Z".to_owned(),
        };
        let request = wire::Request { extension: Some(extension), ..asked(Some("2026-01-05T10:31:00Z")) };
        let at = |text: &str| row(&request, Timestamp::parse(text).unwrap())[4].clone();
        assert_eq!(at("2026-01-05T10:50:00Z"), "(10 min left)");
        assert_eq!(at("2026-01-05T11:00:00Z"), "");
    }
}
