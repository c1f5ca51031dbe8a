//! Waiting for a decision, and what comes after it: the certificate, or the reason why not. `hallpass wait`.
//!
//! Waiting survives a restarted server, a lost network and a closed lid: the stream is opened again after 1 to 5 seconds, until the
//! decision, the limit or Ctrl-C. Nothing is lost by stopping: the request stays open, its key is on disk.
//! A line every 30 seconds says that we still wait; no spinner.

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::args::Globals;
use super::failure::{Exit, Failure};
use super::local::{Held, Local};
use super::which::{self, Among, Sought};
use super::{Context, clock, ended, list, output, profile, render, still};
use crate::client::{Client, ClientError};
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// How often we say that we still wait.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long the first look may take, even if the limit is shorter.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Longest pause before the stream is opened again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Arguments of `hallpass wait`; `--timeout` ends the waiting (exit code 8).
#[derive(Clone, Debug, Args)]
pub(crate) struct WaitArgs {
    /// The request or its host; the only one that waits, if left out
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: Option<String>,
}

/// `hallpass wait`.
pub(crate) fn run(context: &Context, args: &WaitArgs) -> Result<(), Failure> {
    // Here `--timeout` limits the whole waiting; each call has its usual deadline.
    let limit = context.globals.timeout;
    let calls = Context { globals: Globals { timeout: None, ..context.globals.clone() }, ..context.clone() };
    let (profile, client) = calls.connect()?;
    let local = Local::new(&context.places()?, &profile.name);
    let (request, held) = context.block_on(async {
        let id = match &args.which {
            Some(which) => {
                let line = |id: &str| format!("hallpass wait {id}");
                let sought =
                    Sought { among: Among::Mine, fits: |_| true, none: "you have no such request", line: &line };
                sought.find(&client, Some(which)).await?
            }
            None => only_waiting(&client, &local).await?,
        };
        let request = until(context, &client, &id, limit, |r| !render::waits(r)).await?;
        let settled = settle(context, &client, &local, request).await?;
        // Of two for one host ssh takes what ends last: it must not be one that is over.
        still::sweep(context, &client, &local).await;
        Ok(settled)
    })?;
    print(context, &request, held.as_ref())
}

/// The id of my only request that waits.
async fn only_waiting(client: &Client, local: &Local) -> Result<String, Failure> {
    let mine: wire::Requests = client.get("/v1/requests?mine=true&state=pending&state=approved&state=issued").await?;
    let held = local.all()?;
    let waits = |r: &&wire::Request| render::waits(r) || r.state == "approved" || is_behind(&held, r);
    let waiting: Vec<_> = mine.requests.iter().filter(waits).collect();
    match waiting.as_slice() {
        [one] => Ok(one.id.clone()),
        [] => Err(Failure::failed("none of your requests waits").next("hallpass requests --mine")),
        several => {
            let each = several.iter().map(|r| format!("hallpass wait {}", r.id));
            Err(each.fold(Failure::usage("several of your requests wait"), Failure::next))
        }
    }
}

/// Whether the certificate held here ends before the request's window: an extension was granted, and its certificate not fetched.
pub(crate) fn is_behind(held: &[Held], request: &wire::Request) -> bool {
    let end = request.window.as_ref().and_then(|window| Timestamp::parse(&window.not_after).ok());
    let ours = held.iter().find(|held| held.request.id == request.id).and_then(Held::window);
    request.state == "issued" && ours.zip(end).is_some_and(|(ours, end)| ours.end() < end)
}

/// Waits until `is_done`, at most `limit`.
///
/// # Errors
/// HP-203 when the limit is reached, 130 on Ctrl-C, HP-111 when the login ends; never because the server was away.
pub(crate) async fn until(
    context: &Context,
    client: &Client,
    id: &str,
    limit: Option<Lifetime>,
    is_done: impl Fn(&wire::Request) -> bool,
) -> Result<wire::Request, Failure> {
    let began = Instant::now();
    let far = Duration::from_secs(366 * 86_400);
    let deadline = began + limit.map_or(far, profile::seconds);
    // Caught before anything is said, so that Ctrl-C never ends us without a word.
    let interrupt =
        signal(SignalKind::interrupt()).map_err(|e| Failure::failed("cannot catch signals").because(e.to_string()))?;
    let next_beat = began + HEARTBEAT;
    let mut waiter = Waiter { context, began, deadline, next_beat, interrupt, last: None, is_away: false };
    // One look comes before a short limit, so that it still says who is waited for; Ctrl-C comes before anything.
    let path = format!("/v1/requests/{id}");
    let looked = tokio::select! {
        looked = client.get::<wire::Request>(&path) => looked,
        _ = waiter.interrupt.recv() => return Err(interrupted(id)),
        () = tokio::time::sleep_until(deadline.max(began + FIRST_LOOK)) => return Err(waiter.undecided(id)),
    };
    match looked {
        Ok(request) if is_done(&request) => return Ok(request),
        Ok(request) => waiter.sees(request)?,
        Err(error) => drop(waiter.away(error)?),
    }
    let mut pause = Duration::from_secs(1);
    loop {
        match waiter.listen(client, id, &is_done).await? {
            Heard::Done(request) => return Ok(*request),
            Heard::TimedOut => return Err(waiter.undecided(id)),
            Heard::Something => pause = Duration::from_secs(1),
            Heard::Nothing => {}
        }
        if waiter.sleep(pause, id).await? {
            return Err(waiter.undecided(id));
        }
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// What one connection brought.
enum Heard {
    Done(Box<wire::Request>),
    Something,
    Nothing,
    TimedOut,
}

struct Waiter<'a> {
    context: &'a Context,
    began: Instant,
    deadline: Instant,
    next_beat: Instant,
    interrupt: Signal,
    last: Option<wire::Request>,
    is_away: bool,
}

impl Waiter<'_> {
    /// Listens on one connection until it ends.
    async fn listen(
        &mut self,
        client: &Client,
        id: &str,
        is_done: &impl Fn(&wire::Request) -> bool,
    ) -> Result<Heard, Failure> {
        let mut heard = Heard::Nothing;
        let Some(opened) = self.or_stop(client.events(id), id).await? else { return Ok(Heard::TimedOut) };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(error) => return self.away(error),
        };
        loop {
            let Some(event) = self.or_stop(client.next_event(&mut stream), id).await? else {
                return Ok(Heard::TimedOut);
            };
            match event {
                Ok(Some(request)) => {
                    if std::mem::take(&mut self.is_away) {
                        self.context.out.note("connected again");
                    }
                    if is_done(&request) {
                        return Ok(Heard::Done(Box::new(request)));
                    }
                    self.sees(request)?;
                    heard = Heard::Something;
                }
                Ok(None) => return Ok(heard),
                Err(error) => return self.away(error),
            }
        }
    }

    /// Remembers how the request stands; the first time it says who is waited for. In a stream each change is an event.
    ///
    /// # Errors
    /// When standard output can't take the event.
    fn sees(&mut self, request: wire::Request) -> Result<(), Failure> {
        if self.last.is_none() {
            self.context.out.note(&self.waiting_for(&request));
            if let Some(why) = &request.unmeetable {
                self.context.out.note(&format!("but {}", output::escape(why)));
            }
        }
        let is_news = self.last.as_ref().is_none_or(|last| !list::is_same(last, &request));
        if is_news && self.context.out.is_stream() && self.context.out.event(&request, "")?.is_break() {
            return Err(interrupted(&request.id));
        }
        self.last = Some(request);
        Ok(())
    }

    /// A server that is away, or not ready yet, is waited for; anything else ends the waiting.
    fn away(&mut self, error: ClientError) -> Result<Heard, Failure> {
        if !is_transient(&error) {
            return Err(error.into());
        }
        if !std::mem::replace(&mut self.is_away, true) {
            self.context.out.note("the access server cannot be reached; trying again (the request stays open)");
        }
        Ok(Heard::Nothing)
    }

    /// The outcome of `work`, or `None` at the deadline; beats every 30 s meanwhile.
    async fn or_stop<T>(&mut self, work: impl Future<Output = T>, id: &str) -> Result<Option<T>, Failure> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                _ = self.interrupt.recv() => return Err(interrupted(id)),
                () = tokio::time::sleep_until(self.deadline) => return Ok(None),
                () = tokio::time::sleep_until(self.next_beat) => self.beat(),
            }
        }
    }

    /// Whether the deadline came first.
    async fn sleep(&mut self, pause: Duration, id: &str) -> Result<bool, Failure> {
        Ok(self.or_stop(tokio::time::sleep(pause), id).await?.is_none())
    }

    fn beat(&mut self) {
        self.next_beat += HEARTBEAT;
        let waited = self.began.elapsed().as_secs();
        let what =
            self.last.as_ref().map_or_else(|| "waiting for the access server".to_owned(), |r| self.waiting_for(r));
        self.context.out.note(&format!("{what} ({waited} s so far)"));
    }

    fn waiting_for(&self, request: &wire::Request) -> String {
        let id = output::escape(&request.id);
        if request.eligible.is_empty() {
            return format!("waiting ({id}), though nobody is known now who could approve it");
        }
        format!("waiting for {} ({id})", render::who_can(request))
    }

    fn undecided(&self, id: &str) -> Failure {
        match &self.last {
            Some(request) => undecided(request),
            None => Failure::new(Exit::Undecided, "HP-203", format!("{id} is not decided, as far as we know"))
                .because("the access server could not be reached")
                .next(format!("hallpass wait {id}")),
        }
    }
}

fn interrupted(id: &str) -> Failure {
    Failure::new(Exit::Interrupted, "interrupted", "interrupted; the request stays open")
        .next(format!("hallpass wait {id}"))
        .next(format!("hallpass cancel {id}"))
}

/// Whether trying again can help: the server is away, or not ready yet.
pub(crate) fn is_transient(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Problem(problem) => problem.retryable && problem.status >= 500 || problem.status == 429,
        ClientError::Setup { .. }
        | ClientError::Pin { .. }
        | ClientError::Renamed { .. }
        | ClientError::Protocol(_) => false,
    }
}

/// HP-203.
pub(crate) fn undecided(request: &wire::Request) -> Failure {
    let by = request.extension.as_ref().map(|e| &e.decide_by).or(request.decide_by.as_ref());
    let mut failure = Failure::new(Exit::Undecided, "HP-203", format!("{} is not decided yet", request.id))
        .because(format!("can approve: {}", render::who_can(request)));
    if let Some(by) = by {
        failure = failure.because(format!("lapses at {}", output::local_text(by)));
    }
    match &request.unmeetable {
        Some(why) => failure.because(why.clone()).next(format!("hallpass cancel {}", request.id)),
        None => failure.next(format!("hallpass wait {}", request.id)),
    }
}

/// After the decision: fetches the certificate of an approved request, or says why there is none.
///
/// # Errors
/// Exit 3 when denied, 9 when over, 8 when pending still.
pub(crate) async fn settle(
    context: &Context,
    client: &Client,
    local: &Local,
    request: wire::Request,
) -> Result<(wire::Request, Option<Held>), Failure> {
    match request.state.as_str() {
        "approved" | "issued" => {}
        "pending" => return Err(undecided(&request)),
        _ => {
            local.heed(&request)?;
            return Err(over(&request, context.now()));
        }
    }
    if local.folder_of(&request)?.is_none() {
        context
            .out
            .note(&format!("the key of {} is not on this machine, so its certificate is not fetched here", request.id));
        return Ok((request, None));
    }
    let held = fetch(client, local, &request.id).await.map_err(|failure| begins_later(&request, failure))?;
    Ok((held.request.clone(), Some(held)))
}

/// HP-210 in place of the server's `not_yet`: granted, but what begins later is certified then.
fn begins_later(request: &wire::Request, failure: Failure) -> Failure {
    if failure.code == "HP-210" { not_begun(request) } else { failure }
}

/// HP-210.
pub(crate) fn not_begun(request: &wire::Request) -> Failure {
    let begins = request.window.as_ref().map_or_else(String::new, |w| output::local_text(&w.not_before));
    Failure::new(Exit::Undecided, "HP-210", format!("{} is granted, but begins later", request.id))
        .because(format!("its window begins at {begins}"))
        .because("its certificate is made then, by the rules of that time; until then it can be taken back")
        .next(format!("hallpass wait {}", request.id))
}

/// Fetches the certificate of a granted request of ours and keeps it.
///
/// # Errors
/// What the server refuses, or what can't be kept.
pub(crate) async fn fetch(client: &Client, local: &Local, id: &str) -> Result<Held, Failure> {
    let (mut answer, mut request) = certified(client, id).await?;
    if request.serial != Some(answer.serial) {
        // More time was granted between the two answers, and has a certificate of its own.
        (answer, request) = certified(client, id).await?;
    }
    keep(client, local, &request, &answer)
}

/// The certificate of a request, and then how the request stands.
async fn certified(client: &Client, id: &str) -> Result<(wire::Certificate, wire::Request), Failure> {
    let answer = client.post(&format!("/v1/requests/{id}/certificate"), &json!({})).await?;
    let request = client.get(&format!("/v1/requests/{id}")).await?;
    Ok((answer, request))
}

/// Keeps a certificate that the server gave for this request of ours.
///
/// # Errors
/// What can't be kept.
pub(crate) fn keep(
    client: &Client,
    local: &Local,
    request: &wire::Request,
    given: &wire::Certificate,
) -> Result<Held, Failure> {
    // What is live is told by the server's clock; ours may be off and this the first answer to say so.
    clock::keep(local.root(), client.offset());
    local.save_certificate(request, &given.certificate)
}

/// HP-204, HP-205, HP-206: a request that is closed.
pub(crate) fn over(request: &wire::Request, now: Timestamp) -> Failure {
    let id = &request.id;
    let by = request.closed.as_ref().map_or("somebody", |c| c.by.as_str());
    let host = request.hosts.first().map_or("HOST", String::as_str);
    let again = format!("hallpass request --like {id}");
    let failure = match request.state.as_str() {
        "denied" => {
            Failure::new(Exit::Refused, "HP-204", format!("{by} denied {id}")).next(format!("hallpass explain {host}"))
        }
        "lapsed" => Failure::new(Exit::Over, "HP-205", format!("nobody decided {id} in time")).next(again),
        "withdrawn" => Failure::new(Exit::Over, "HP-206", format!("{id} was taken back")).next(again),
        "ended" => Failure::new(Exit::Over, "HP-206", format!("{by} ended {id}")).next(again),
        _ => ended::over(host, request, now),
    };
    match request.closed.as_ref().filter(|c| !c.reason.is_empty()) {
        Some(closed) => failure.because(closed.reason.clone()),
        None => failure,
    }
}

/// Prints a granted request and where its certificate is.
///
/// # Errors
/// When standard output can't take it.
pub(crate) fn print(context: &Context, request: &wire::Request, held: Option<&Held>) -> Result<(), Failure> {
    let next = request.hosts.first().map(|host| format!("hallpass ssh {}", output::escape(host)));
    print_and_next(context, request, held, next.as_deref())
}

/// The same, with another thing to do next.
///
/// # Errors
/// When standard output can't take it.
pub(crate) fn print_and_next(
    context: &Context,
    request: &wire::Request,
    held: Option<&Held>,
    next: Option<&str>,
) -> Result<(), Failure> {
    let mut document = document(request)?;
    let mut text = granted(request, context.now());
    if let Some(held) = held {
        let serial = held.certificate.as_ref().map(|c| c.tbs().fields().serial.number());
        let (key, certificate) = (held.key_path(), held.certificate_path());
        document =
            document_with(request, "certificate", json!({ "key_path": key, "path": certificate, "serial": serial }))?;
        text.push_str(&format!("\n  key          {}\n  certificate  {}", key.display(), certificate.display()));
        if let Some(serial) = serial {
            text.push_str(&format!(" (serial {serial})"));
        }
    }
    context.out.answer(&document, &text)?;
    if let Some(next) = next.filter(|_| held.is_some()) {
        context.out.note(&format!("next: {next}"));
    }
    Ok(())
}

/// A request as JSON, to be added to.
///
/// # Errors
/// Never in practice.
pub(crate) fn document(request: &wire::Request) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(request).map_err(|e| Failure::failed("cannot write the JSON document").because(e.to_string()))
}

/// A request as JSON with one more field.
///
/// # Errors
/// Never in practice.
pub(crate) fn document_with(
    request: &wire::Request,
    key: &str,
    value: serde_json::Value,
) -> Result<serde_json::Value, Failure> {
    let mut document = document(request)?;
    if let Some(fields) = document.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
    Ok(document)
}

fn granted(request: &wire::Request, now: Timestamp) -> String {
    let by = match request.approved_by.as_slice() {
        [] => "allowed by policy".to_owned(),
        people => format!("approved by {}", render::joined(people)),
    };
    let until =
        request.window.as_ref().map_or_else(String::new, |w| format!(" until {}", render::until(&w.not_after, now)));
    let hosts = render::joined(&request.hosts);
    format!("{} {by}\n  access       {hosts} as {}{until}", request.id, output::escape(&request.account))
}
