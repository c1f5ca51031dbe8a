//! What stays open and shows what changes: `status --watch`, `inbox --watch`.
//!
//! What for: one loop for both. It asks the server every few seconds and shows what changed: drawn over itself on a terminal, as lines
//! elsewhere, one document per change with `--jsonl`. A server that is away is waited for, as in `wait`.
//! What not: what is looked at, and how it reads, is its [`View`]'s.
//!
//! *Why does it ask, and does not listen?* The service's streams are of one request, or of a browser's page. A small call every three seconds
//! is soon enough for a person.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cache::Cache;
use super::failure::Failure;
use super::output::escape;
use super::profile::Profile;
use super::screen::Screen;
use super::{Context, list, output, render, wait};
use crate::client::{Client, ClientError};
use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::wire;

/// How often the server is asked. Our own choice: a person sees a decision soon, and three small calls are far below the service's rate.
const PERIOD: Duration = Duration::from_secs(3);

/// Something of the server's that is looked at again and again.
pub(super) trait View: Clone {
    /// What is said of a request that was seen and can't be seen any more.
    const GONE: &'static str;

    /// Asks the server.
    async fn look(client: &Client) -> Result<Self, ClientError>;

    /// As one JSON document.
    fn document(&self, profile: &Profile) -> Value;

    /// As people read it, at `now`, the server's time.
    fn text(&self, profile: &Profile, now: Timestamp) -> String;

    /// Whether nothing has changed but the time.
    fn is_same(&self, other: &Self) -> bool;

    /// The requests of which each change is a line.
    fn requests(&self) -> &[wire::Request];

    /// Further lines about what changed.
    fn more(&self, _before: &Self) -> Option<String> {
        None
    }

    /// Keeps what completion offers.
    fn keep(&self, cache: &Cache, profile: &Profile);
}

/// Shows it until Ctrl-C, or until nobody reads on.
///
/// # Errors
/// When the server says no, or standard output can't take it; never because the server was away.
pub(super) fn run<V: View>(context: &Context) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    context.block_on(async {
        let caught = signal(SignalKind::interrupt());
        let interrupt = caught.map_err(|e| Failure::failed("cannot catch signals").because(e.to_string()))?;
        let screen = if context.out.is_json() { None } else { Screen::open(context) };
        let watch = Watch::<V> { context, profile: &profile, screen, interrupt, last: None, is_away: false };
        watch.run(&client).await
    })
}

/// A view that stays open.
struct Watch<'a, V> {
    context: &'a Context,
    profile: &'a Profile,
    /// `None` where text must stand still.
    screen: Option<Screen>,
    interrupt: Signal,
    last: Option<V>,
    is_away: bool,
}

impl<V: View> Watch<'_, V> {
    async fn run(mut self, client: &Client) -> Result<(), Failure> {
        loop {
            let Some(looked) = self.or_stop(V::look(client)).await else { return Ok(()) };
            let flow = match looked {
                Ok(view) => self.sees(client, view).await?,
                Err(error) if wait::is_transient(&error) => self.away()?,
                Err(error) => return Err(error.into()),
            };
            if flow.is_break() || self.or_stop(tokio::time::sleep(PERIOD)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// The outcome of `work`; `None` on Ctrl-C.
    async fn or_stop<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = self.interrupt.recv() => None,
        }
    }

    /// Shows how things stand: all of it on a screen, else what changed.
    async fn sees(&mut self, client: &Client, view: V) -> Result<ControlFlow<()>, Failure> {
        if std::mem::take(&mut self.is_away) && self.screen.is_none() {
            self.context.out.note("connected again");
        }
        let before = self.last.replace(view.clone());
        let is_news = before.as_ref().is_none_or(|before| !before.is_same(&view));
        if let Some(cache) = self.context.cache().filter(|_| is_news) {
            view.keep(&cache, self.profile);
        }
        if let Some(screen) = &mut self.screen {
            let at = output::local_time(SystemClock.now());
            let text = view.text(self.profile, self.context.now());
            return screen.draw(&format!("{text}as of {at}; Ctrl-C ends\n"));
        }
        match before {
            _ if !is_news => Ok(ControlFlow::Continue(())),
            Some(before) if !self.context.out.is_json() => {
                self.context.out.stream(changes(client, &before, &view).await.as_bytes())
            }
            _ => {
                let text = view.text(self.profile, self.context.now());
                self.context.out.event(&view.document(self.profile), &text)
            }
        }
    }

    /// The server is away: said once.
    fn away(&mut self) -> Result<ControlFlow<()>, Failure> {
        const AWAY: &str = "the access server cannot be reached; trying again";
        let is_new = !std::mem::replace(&mut self.is_away, true);
        match (&mut self.screen, &self.last) {
            (Some(screen), last) => {
                let text = last.as_ref().map(|last| last.text(self.profile, self.context.now())).unwrap_or_default();
                screen.draw(&format!("{text}{AWAY}; Ctrl-C ends\n"))
            }
            (None, _) => {
                if is_new {
                    self.context.out.note(AWAY);
                }
                Ok(ControlFlow::Continue(()))
            }
        }
    }
}

/// One line for each request that is new, has changed, or is gone.
async fn changes<V: View>(client: &Client, before: &V, after: &V) -> String {
    let at = output::local_time(SystemClock.now());
    let line = |request: &wire::Request| format!("{at}  {}\n", render::row(request).join("  "));
    let old = |request: &wire::Request| before.requests().iter().find(|r| r.id == request.id);
    let is_new = |request: &&wire::Request| old(request).is_none_or(|old| !list::is_same(old, request));
    let mut text: String = after.requests().iter().filter(is_new).map(line).collect();
    for gone in before.requests().iter().filter(|b| after.requests().iter().all(|a| a.id != b.id)) {
        // How it ended is worth a look; that it is gone is known without.
        match client.get::<wire::Request>(&format!("/v1/requests/{}", gone.id)).await {
            Ok(request) => text.push_str(&line(&now_with_others(request))),
            Err(_) => text.push_str(&format!("{at}  {}  {}\n", escape(&gone.id), V::GONE)),
        }
    }
    if let Some(more) = after.more(before) {
        text.push_str(&format!("{at}  {more}\n"));
    }
    text
}

/// A request that is gone from the view, and is not decided: it waits for somebody else.
fn now_with_others(request: wire::Request) -> wire::Request {
    let waits = render::waits(&request);
    let state = if waits { format!("{}, waits for others", request.state) } else { request.state.clone() };
    wire::Request { state, ..request }
}
