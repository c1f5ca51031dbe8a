//! `hallpass cancel`, `extend`: what an asker does with a request of theirs afterwards.
//!
//! What not: which request a host means is for `which`.

use clap::Args;

use super::failure::{Exit, Failure};
use super::local::Local;
use super::profile::Profile;
use super::request::WaitingArgs;
use super::which::{self, Among, Sought};
use super::{Context, output, render, usage, wait};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::client::Client;
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// Arguments of `hallpass cancel`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CancelArgs {
    /// The request or its host; the only one that waits, if left out
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: Option<String>,
}

/// Arguments of `hallpass extend`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExtendArgs {
    /// The request or its host; the only live one, if left out
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: Option<String>,
    /// How much more
    #[arg(long = "for", value_name = "DURATION", value_parser = Lifetime::parse)]
    lifetime: Lifetime,
    /// Why; the first reason if left out
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: String,
    #[command(flatten)]
    waiting: WaitingArgs,
}

/// `hallpass cancel`.
pub(crate) fn cancel(context: &Context, args: &CancelArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let request = context.block_on(async {
        let sought = Sought {
            among: Among::Mine,
            fits: |request| matches!(request.state.as_str(), "pending" | "approved") || request.extension.is_some(),
            none: "nothing of yours can be taken back: no request or extension waits, and nothing is unfetched",
            line: &|id| format!("hallpass cancel {id}"),
        };
        let id = sought.find(&client, args.which.as_deref()).await?;
        Ok(client.post::<_, wire::Request>(&format!("/v1/requests/{id}/withdraw"), &serde_json::json!({})).await?)
    })?;
    closed(context, &profile, &request, &taken_back(&request, context.now()))
}

/// What was taken back: of access that goes on it was the extension.
fn taken_back(request: &wire::Request, now: Timestamp) -> String {
    match &request.window {
        Some(window) if request.state == "issued" => {
            format!("its extension is taken back; access goes on until {}", render::until(&window.not_after, now))
        }
        _ => "taken back".to_owned(),
    }
}

/// Notes that a request is over, deletes its files, says so.
fn closed(context: &Context, profile: &Profile, request: &wire::Request, what: &str) -> Result<(), Failure> {
    if let Some(cache) = context.cache() {
        cache.keep_requests(profile, std::slice::from_ref(request));
    }
    let local = Local::new(&context.places()?, &profile.name);
    local.save_request(request)?;
    local.sweep();
    let colon = if request.state == "issued" { ":" } else { "" };
    context.out.answer(&wait::document(request)?, &format!("{}{colon} {what}", output::escape(&request.id)))
}

/// `hallpass extend`.
pub(crate) fn extend(context: &Context, args: &ExtendArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let local = Local::new(&context.places()?, &profile.name);
    let limit = args.waiting.limit();
    let (request, held) = context.block_on(async {
        let line = |id: &str| format!("hallpass extend {id} --for {}", args.lifetime);
        let sought = Sought { line: &line, ..which::HELD };
        let id = sought.find(&client, args.which.as_deref()).await?;
        let before: wire::Request = client.get(&format!("/v1/requests/{id}")).await?;
        let is_unfetched = before.state == "approved" && local.folder_of(&before)?.is_some();
        if is_unfetched || wait::is_behind(&local.all()?, &before) {
            // The server takes no extension before the certificate of what was granted last is made.
            wait::fetch(&client, &local, &id).await?;
        }
        let reason = if args.reason.is_empty() { before.reason.clone() } else { args.reason.clone() };
        let body = wire::Extend { lifetime: args.lifetime.to_string(), reason };
        let asked: wire::Request = client.post(&format!("/v1/requests/{id}/extend"), &body).await?;
        local.save_request(&asked)?;
        let decided = match (asked.extension.is_some(), limit) {
            (true, Some(limit)) => wait::until(context, &client, &asked.id, limit, |r| r.extension.is_none()).await?,
            (true, None) => {
                context.out.answer(&wait::document(&asked)?, &render::details(&asked, context.now()))?;
                return Err(wait::undecided(&asked));
            }
            (false, _) => asked,
        };
        let end = |r: &wire::Request| r.window.as_ref().map(|w| w.not_after.clone());
        if end(&decided) == end(&before) && matches!(decided.state.as_str(), "approved" | "issued") {
            return Err(not_extended(&client, &decided, context.now()).await);
        }
        wait::settle(context, &client, &local, decided).await
    })?;
    wait::print(context, &request, held.as_ref())
}

/// Why an extension is gone without the window having moved: its log says it.
async fn not_extended(client: &Client, request: &wire::Request, now: Timestamp) -> Failure {
    let id = &request.id;
    let history = client.get::<wire::Entries>(&format!("/v1/requests/{id}/history")).await;
    let last = history.into_iter().flat_map(|h| h.entries).rev().find_map(|text| match Entry::parse(text.as_bytes()) {
        Ok(Entry { event: Event::Denied { by, reason, extension: true, .. }, .. }) => Some(Some((by, reason))),
        Ok(Entry { event: Event::Lapsed { extension: true, .. }, .. }) => Some(None),
        _ => None,
    });
    match last {
        Some(Some((by, reason))) => {
            Failure::new(Exit::Refused, "HP-204", format!("{by} denied the extension of {id}")).because(reason)
        }
        _ => Failure::new(Exit::Over, "HP-205", format!("nobody decided the extension of {id} in time")),
    }
    .because(
        request
            .window
            .as_ref()
            .map_or_else(String::new, |w| format!("access goes on until {}", render::until(&w.not_after, now))),
    )
}
