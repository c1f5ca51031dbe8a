//! `hallpass status`, `--short` for a shell's prompt, `--watch` for a window that stays open.
//!
//! What for: who am I, what do I hold, what waits. `--short` reads this machine's files alone: no network, no runtime, so that a prompt
//! may call it each time.
//! What not: nothing is swept or fetched by `--short` and `--watch`; they look.
//!
//! `--watch` asks the server every few seconds and shows what changed: drawn over itself on a terminal, as lines elsewhere, one document
//! per change with `--jsonl`. A server that is away is waited for, as in `wait`.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::list::{self, Standing};
use super::local::{Held, Local};
use super::output::escape;
use super::profile::{self, Profile};
use super::screen::Screen;
use super::{Context, output, render, wait};
use crate::client::Client;
use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::wire;

/// How often `--watch` asks. Our own choice: a person sees a decision soon, and three small calls are far below the service's rate.
const PERIOD: Duration = Duration::from_secs(3);

/// How many grants a prompt shows; the others are counted.
const SHORT_MAX: usize = 3;

/// Arguments of `hallpass status`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct StatusArgs {
    /// One short line for a shell's prompt, such as `work web-1 37m`; nothing when nothing is held. Reads local files alone
    #[arg(long)]
    short: bool,
    /// Stay and show what changes, until Ctrl-C; with --jsonl one document per change
    #[arg(long, conflicts_with = "short")]
    watch: bool,
}

impl StatusArgs {
    /// Whether this is a stream.
    pub(crate) const fn is_stream(self) -> bool {
        self.watch
    }
}

/// `hallpass status`.
pub(crate) fn run(context: &Context, args: StatusArgs) -> Result<(), Failure> {
    if args.short {
        return short(context);
    }
    if !args.watch {
        return list::status(context);
    }
    let (profile, client) = context.connect()?;
    context.block_on(Watch::new(context, &profile)?.run(&client))
}

/// A live certificate, as a prompt shows it.
struct Grant {
    id: String,
    hosts: Vec<String>,
    account: String,
    end: Timestamp,
    left_s: u64,
}

impl Grant {
    fn of(held: &Held, now: Timestamp) -> Option<Self> {
        let window = held.certificate.as_ref()?.tbs().fields().window;
        let wire::Request { id, hosts, account, .. } = held.request.clone();
        let left_s = window.end().seconds_since(now);
        window.contains(now).then_some(Self { id, hosts, account, end: window.end(), left_s })
    }

    /// `web-1 37m`, `web-1+2 37m`.
    fn text(&self) -> String {
        let host = self.hosts.first().map(|host| escape(host)).unwrap_or_default();
        let more = match self.hosts.len().saturating_sub(1) {
            0 => String::new(),
            more => format!("+{more}"),
        };
        format!("{host}{more} {}", span(self.left_s))
    }
}

fn short(context: &Context) -> Result<(), Failure> {
    let name = &context.globals.profile;
    profile::check_name(name)?;
    let local = Local::new(&context.places()?, name);
    let (now, held) = (local.now(), local.all()?);
    let mut grants: Vec<Grant> = held.iter().filter_map(|held| Grant::of(held, now)).collect();
    grants.sort_by(|a, b| (a.end, &a.id).cmp(&(b.end, &b.id)));
    let documents: Vec<Value> = grants
        .iter()
        .map(|g| json!({ "id": g.id, "hosts": g.hosts, "account": g.account, "until": g.end.to_string(), "left_s": g.left_s }))
        .collect();
    let document = json!({ "schema": "hallpass.held.v1", "profile": name, "held": documents });
    context.out.answer(&document, &short_text(name, &grants))
}

fn short_text(profile: &str, grants: &[Grant]) -> String {
    let shown: Vec<String> = grants.iter().take(SHORT_MAX).map(Grant::text).collect();
    match (shown.is_empty(), grants.len().saturating_sub(SHORT_MAX)) {
        (true, _) => String::new(),
        (false, 0) => format!("{profile} {}", shown.join(", ")),
        (false, more) => format!("{profile} {} +{more}", shown.join(", ")),
    }
}

/// `40s`, `37m`, `2h05m`.
fn span(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m"),
        (hours, minutes) => format!("{hours}h{minutes:02}m"),
    }
}

/// A status that stays.
struct Watch<'a> {
    context: &'a Context,
    profile: &'a Profile,
    /// `None` where text must stand still.
    screen: Option<Screen>,
    interrupt: Option<Signal>,
    last: Option<Standing>,
    is_away: bool,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context, profile: &'a Profile) -> Result<Self, Failure> {
        let screen = if context.out.is_json() { None } else { Screen::open(context) };
        Ok(Self { context, profile, screen, interrupt: None, last: None, is_away: false })
    }

    /// Until Ctrl-C, or until nobody reads on.
    async fn run(mut self, client: &Client) -> Result<(), Failure> {
        let caught = signal(SignalKind::interrupt());
        self.interrupt = Some(caught.map_err(|e| Failure::failed("cannot catch signals").because(e.to_string()))?);
        loop {
            let Some(looked) = self.or_stop(Standing::look(client)).await else { return Ok(()) };
            let flow = match looked {
                Ok(standing) => self.sees(client, standing).await?,
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
        let interrupted = async {
            match &mut self.interrupt {
                Some(interrupt) => interrupt.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = work => Some(done),
            _ = interrupted => None,
        }
    }

    /// Shows how things stand: all of it on a screen, else what changed.
    async fn sees(&mut self, client: &Client, standing: Standing) -> Result<ControlFlow<()>, Failure> {
        if std::mem::take(&mut self.is_away) && self.screen.is_none() {
            self.context.out.note("connected again");
        }
        let before = self.last.replace(standing.clone());
        if let Some(screen) = &mut self.screen {
            let at = output::local_time(SystemClock.now());
            return screen.draw(&format!("{}as of {at}; Ctrl-C ends\n", standing.text(self.profile)));
        }
        match before {
            Some(before) if before.is_same(&standing) => Ok(ControlFlow::Continue(())),
            Some(before) if !self.context.out.is_json() => {
                let lines = changes(client, &before, &standing).await;
                self.context.out.stream(lines.as_bytes())
            }
            _ => self.context.out.event(&standing.document(self.profile), &standing.text(self.profile)),
        }
    }

    /// The server is away: said once.
    fn away(&mut self) -> Result<ControlFlow<()>, Failure> {
        const AWAY: &str = "the access server cannot be reached; trying again";
        let is_new = !std::mem::replace(&mut self.is_away, true);
        match (&mut self.screen, &self.last) {
            (Some(screen), last) => {
                let text = last.as_ref().map(|last| last.text(self.profile)).unwrap_or_default();
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
async fn changes(client: &Client, before: &Standing, after: &Standing) -> String {
    let at = output::local_time(SystemClock.now());
    let line = |request: &wire::Request| format!("{at}  {}\n", render::row(request).join("  "));
    let old = |request: &wire::Request| before.mine.requests.iter().find(|r| r.id == request.id);
    let is_new = |request: &&wire::Request| old(request).is_none_or(|old| !list::is_same(old, request));
    let mut text: String = after.mine.requests.iter().filter(is_new).map(line).collect();
    for gone in before.mine.requests.iter().filter(|b| after.mine.requests.iter().all(|a| a.id != b.id)) {
        // How it ended is worth a look; that it is gone is known without.
        match client.get::<wire::Request>(&format!("/v1/requests/{}", gone.id)).await {
            Ok(request) => text.push_str(&line(&request)),
            Err(_) => text.push_str(&format!("{at}  {}  over\n", escape(&gone.id))),
        }
    }
    if before.inbox.requests.len() != after.inbox.requests.len() {
        text.push_str(&format!("{at}  waiting for you: {}\n", after.inbox.requests.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(hosts: &[&str], left_s: u64) -> Grant {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        let end = Timestamp::from_unix(1_800_000_000).unwrap();
        Grant { id: "7K3F-9QX2".to_owned(), hosts, account: "deploy".to_owned(), end, left_s }
    }

    #[test]
    fn a_prompt_gets_one_short_line_or_nothing() {
        assert_eq!(short_text("work", &[]), "");
        assert_eq!(short_text("work", &[grant(&["web-1"], 37 * 60 + 59)]), "work web-1 37m");
        assert_eq!(
            short_text("work", &[grant(&["web-1"], 40), grant(&["db-1", "db-2", "db-3"], 7_500)]),
            "work web-1 40s, db-1+2 2h05m"
        );
        let many: Vec<Grant> = (0..5).map(|_| grant(&["web-1"], 60)).collect();
        assert_eq!(short_text("work", &many), "work web-1 1m, web-1 1m, web-1 1m +2");
    }
}
