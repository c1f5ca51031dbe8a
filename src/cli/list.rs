//! `hallpass show`, `requests`: look at requests.

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::local::Local;
use super::which::{self, Among, Sought};
use super::{Context, audit, render, wait};
use crate::name::{HostName, PersonName};
use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp};
use crate::wire;

/// Arguments of `hallpass show`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    /// The request or its host
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: String,
}

/// Arguments of `hallpass requests`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RequestsArgs {
    /// Only mine
    #[arg(long)]
    mine: bool,
    /// Only in these states
    #[arg(long, value_name = "STATE", num_args = 1.., value_enum)]
    state: Vec<State>,
    /// Only for this host
    #[arg(long, value_parser = HostName::parse)]
    host: Option<HostName>,
    /// Only of this person
    #[arg(long, value_parser = PersonName::parse)]
    person: Option<PersonName>,
    /// Only asked since then: a time (RFC 3339), or how long ago (`2d`)
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Timestamp>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

/// The words for a request's state.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    Pending,
    Approved,
    Issued,
    Denied,
    Withdrawn,
    Lapsed,
    Ended,
    Expired,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Issued => "issued",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
            Self::Lapsed => "lapsed",
            Self::Ended => "ended",
            Self::Expired => "expired",
        }
    }
}

/// A moment, or a duration before now.
pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    match Lifetime::parse(text) {
        Ok(ago) => SystemClock.now().minus(ago).map_err(|e| e.to_string()),
        Err(_) => Timestamp::parse(text).map_err(|e| format!("{e}, nor a duration like 2d")),
    }
}

/// `hallpass show`.
pub(crate) fn show(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let (request, history) = context.block_on(async {
        let sought = Sought {
            among: Among::Both,
            fits: |_| true,
            none: "you have no such request",
            line: &|id| format!("hallpass show {id}"),
        };
        let id = sought.find(&client, Some(&args.which)).await?;
        let request: wire::Request = client.get(&format!("/v1/requests/{id}")).await?;
        let history: wire::Entries = client.get(&format!("/v1/requests/{}/history", request.id)).await?;
        Ok((request, history))
    })?;
    if let Some(cache) = context.cache() {
        cache.keep_requests(&profile, std::slice::from_ref(&request));
    }
    let entries: Vec<serde_json::Value> = history.entries.iter().filter_map(|e| serde_json::from_str(e).ok()).collect();
    let document = wait::document_with(&request, "history", json!(entries))?;
    let mut text = render::details(&request, context.now());
    if let Some(folder) = Local::new(&context.places()?, &profile.name).folder_of(&request)? {
        text.push_str(&format!("  {:<11}  {}\n", "files", folder.display()));
    }
    for entry in &history.entries {
        text.push_str(&format!("  {}\n", audit::local_line(entry)));
    }
    context.out.answer(&document, &text)
}

/// `hallpass requests`.
pub(crate) fn requests(context: &Context, args: &RequestsArgs) -> Result<(), Failure> {
    let mut query = vec![format!("limit={}", args.limit)];
    if args.mine {
        query.push("mine=true".to_owned());
    }
    query.extend(args.state.iter().map(|s| format!("state={}", s.word())));
    query.extend(args.host.iter().map(|h| format!("host={h}")));
    // `+` is the one character of a name that a query would read differently.
    query.extend(args.person.iter().map(|p| format!("person={}", p.as_str().replace('+', "%2B"))));
    query.extend(args.since.iter().map(|s| format!("since={s}")));
    let query = query.join("&");
    let (profile, client) = context.connect()?;
    let list: wire::Requests = context.block_on(async { Ok(client.get(&format!("/v1/requests?{query}")).await?) })?;
    if let Some(cache) = context.cache() {
        cache.keep_requests(&profile, &list.requests);
    }
    let document = json!({ "schema": "hallpass.requests.v1", "requests": list.requests });
    context.out.answer(&document, &render::table(&list.requests, "no requests"))
}

/// Whether two looks at a request saw the same.
pub(crate) fn is_same(a: &wire::Request, b: &wire::Request) -> bool {
    matches!((serde_json::to_value(a), serde_json::to_value(b)), (Ok(a), Ok(b)) if a == b)
}

/// The same of lists.
pub(crate) fn are_same(a: &[wire::Request], b: &[wire::Request]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
}
