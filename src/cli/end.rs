//! `hallpass end`: gives access back before its end: on the server, in our own files, and in ssh's shared connections. What the service says is
//! over already goes from the latter two as well.

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::local::Local;
use super::masters::{self, Master};
use super::profile::Profile;
use super::which::{self, Sought};
use super::{Context, output, still, usage, wait};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::client::Client;
use crate::name::{Account, HostName};
use crate::time::{Timestamp, Window};
use crate::wire;

/// Arguments of `hallpass end`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EndArgs {
    /// The request or its host; the only live one, if left out
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: Option<String>,
    /// All that you hold
    #[arg(long, conflicts_with = "which")]
    all: bool,
    /// Why; needed when it is not your own
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: String,
}

/// A request that was ended, and what that closed here.
struct Ended {
    request: wire::Request,
    masters: Vec<Master>,
    /// Until when the newest certificate that was made for it is valid.
    certified: Option<Timestamp>,
}

/// `hallpass end`.
pub(crate) fn run(context: &Context, args: &EndArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let local = Local::new(&context.places()?, &profile.name);
    if args.all {
        return all(context, (&profile, &client), &local, &args.reason);
    }
    let ended = context.block_on(async {
        left(context, &client, &local).await;
        let sought = Sought { line: &|id| format!("hallpass end {id}"), ..which::HELD };
        let id = sought.find(&client, args.which.as_deref()).await?;
        Ended::end(&client, &local, &id, &args.reason).await
    })?;
    keep(context, &profile, std::slice::from_ref(&ended));
    local.sweep();
    context.out.answer(&ended.document()?, &ended.text())?;
    ended.say(context);
    Ok(())
}

/// Ends one after the other; what can't be ended does not stop the others, and is the failure at the end.
fn all(context: &Context, (profile, client): (&Profile, &Client), local: &Local, reason: &str) -> Result<(), Failure> {
    let (ended, failed) = context.block_on(async {
        left(context, client, local).await;
        let mine: wire::Requests = client.get("/v1/requests?mine=true&state=approved&state=issued&limit=1000").await?;
        let (mut ended, mut failed) = (Vec::new(), None);
        for request in &mine.requests {
            match Ended::end(client, local, &request.id, reason).await {
                Ok(done) => ended.push(done),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        Ok((ended, failed))
    })?;
    keep(context, profile, &ended);
    local.sweep();
    let documents: Vec<Value> = ended.iter().map(Ended::document).collect::<Result<_, _>>()?;
    let lines: Vec<String> = ended.iter().map(Ended::text).collect();
    let text = if lines.is_empty() { "you hold no access".to_owned() } else { lines.join("\n") };
    context.out.answer(&json!({ "schema": "hallpass.requests.v1", "requests": documents }), &text)?;
    ended.iter().for_each(|ended| ended.say(context));
    failed.map_or(Ok(()), Err)
}

/// Has go what lies here of access that somebody else has ended, or that was given back elsewhere; and the connections that it opened.
async fn left(context: &Context, client: &Client, local: &Local) {
    for request in still::sweep(context, client, local).await {
        masters_of(&request).await.iter().for_each(|master| context.out.note(&master.text()));
    }
}

/// Completion offers them no more.
fn keep(context: &Context, profile: &Profile, ended: &[Ended]) {
    if let Some(cache) = context.cache() {
        cache.keep_requests(profile, &ended.iter().map(|ended| ended.request.clone()).collect::<Vec<_>>());
    }
}

impl Ended {
    async fn end(client: &Client, local: &Local, id: &str, reason: &str) -> Result<Self, Failure> {
        let body = wire::Why { reason: reason.to_owned() };
        let request: wire::Request = client.post(&format!("/v1/requests/{id}/end"), &body).await?;
        // Somebody else's, or asked from elsewhere: its connections are not here.
        let masters = match local.folder_of(&request)? {
            Some(_) => masters_of(&request).await,
            None => Vec::new(),
        };
        let certified = certified(client, local, &request).await;
        local.save_request(&request)?;
        Ok(Self { request, masters, certified })
    }

    fn document(&self) -> Result<Value, Failure> {
        let masters: Vec<Value> = self.masters.iter().map(Master::document).collect();
        wait::document_with(&self.request, "masters", json!(masters))
    }

    fn text(&self) -> String {
        format!("{} ended", output::escape(&self.request.id))
    }

    /// What else there is to know.
    fn say(&self, context: &Context) {
        for master in &self.masters {
            context.out.note(&master.text());
        }
        // Nothing takes a certificate back: what is deleted here may have been copied.
        if let Some(until) = self.certified.filter(|until| *until > context.now()) {
            let until = output::local_time(until);
            context
                .out
                .note(&format!("no certificate is made for it any more; one fetched before is valid until {until}"));
        }
    }
}

/// Until when the newest certificate of a request is valid, if one was made. The window granted last says so only if that was fetched: of an extension
/// that was not, the one before it may be out. The log knows; where it can't be read, what lies here.
async fn certified(client: &Client, local: &Local, request: &wire::Request) -> Option<Timestamp> {
    if request.serial.is_some() {
        return request.window.as_ref().and_then(|window| Timestamp::parse(&window.not_after).ok());
    }
    match client.get::<wire::Entries>(&format!("/v1/requests/{}/history", request.id)).await {
        Ok(history) => history.entries.iter().rev().find_map(|text| match Entry::parse(text.as_bytes()) {
            Ok(Entry { event: Event::CertificateToBeSigned { window, .. }, .. }) => Some(window.end()),
            _ => None,
        }),
        Err(_) => {
            let held = local.all().unwrap_or_default();
            held.iter().find(|held| held.request.id == request.id)?.window().map(Window::end)
        }
    }
}

/// Closes the shared connections to a request's hosts. What the server named counts only as parsed names.
async fn masters_of(request: &wire::Request) -> Vec<Master> {
    let Ok(account) = Account::parse(&request.account) else { return Vec::new() };
    let hosts: Vec<HostName> = request.hosts.iter().filter_map(|host| HostName::parse(host).ok()).collect();
    masters::close(&hosts, &account).await
}
