//! `hallpass status`, `--short` for a shell's prompt, `--watch` for a window that stays open.
//!
//! What for: who am I, what do I hold, what waits. `--short` reads this machine's files alone: no network, no runtime, so that a prompt
//! may call it each time. What was ended elsewhere it shows until a command asks the service (`still`).
//! What not: nothing is swept or fetched by `--short` and `--watch`; they look.
//!
//! How `--watch` goes on is `watch`'s.

use clap::Args;
use serde_json::{Value, json};

use super::cache::Cache;
use super::failure::Failure;
use super::local::{Held, Local};
use super::output::escape;
use super::profile::{self, Profile};
use super::watch::{self, View};
use super::{Context, list, open, output, render, still};
use crate::client::{Client, ClientError};
use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::wire;

/// How many grants a prompt shows; the others are counted.
const SHORT_MAX: usize = 3;

/// Arguments of `hallpass status`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct StatusArgs {
    /// One short line for a shell's prompt, such as `work web-1 37m`; nothing when nothing is held. Reads local files alone: what was
    /// ended elsewhere is shown until another command asks the service
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
    if args.watch { watch::run::<Standing>(context) } else { status(context) }
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

/// How somebody stands.
#[derive(Clone, Debug)]
struct Standing {
    me: wire::WhoAmI,
    /// What they hold and ask for.
    mine: wire::Requests,
    /// What waits for them.
    inbox: wire::Requests,
    /// How many seconds their clock is off.
    clock_off_s: u64,
}

impl View for Standing {
    const GONE: &'static str = "over";

    async fn look(client: &Client) -> Result<Self, ClientError> {
        let me: wire::WhoAmI = client.get("/v1/session").await?;
        let mine: wire::Requests =
            client.get("/v1/requests?mine=true&state=pending&state=approved&state=issued").await?;
        let inbox: wire::Requests = client.get("/v1/requests?inbox=true").await?;
        let here = SystemClock.now();
        let there = Timestamp::parse(&me.now).unwrap_or(here);
        let clock_off_s = here.seconds_since(there).max(there.seconds_since(here));
        Ok(Self { me, mine, inbox, clock_off_s })
    }

    fn document(&self, profile: &Profile) -> Value {
        let Self { me, mine, inbox, clock_off_s } = self;
        json!({
            "schema": "hallpass.status.v1", "profile": profile.name, "server": profile.server.url, "person": me.person,
            "groups": me.groups, "roles": me.roles, "expires": me.expires, "clock_off_s": clock_off_s, "requests": mine.requests,
            "inbox": inbox.requests,
        })
    }

    fn text(&self, profile: &Profile, _: Timestamp) -> String {
        let Self { me, mine, inbox, .. } = self;
        let roles = if me.roles.is_empty() { String::new() } else { format!(" ({})", render::joined(&me.roles)) };
        let mut text = format!(
            "{} · {}{roles} · {} · logged in until {}\n",
            profile.name,
            escape(&me.person),
            profile.server.url,
            output::local_text(&me.expires),
        );
        text.push_str(&render::table(&mine.requests, "you hold no access and ask for none"));
        if !inbox.requests.is_empty() {
            text.push_str(&format!("waiting for you: {}\n", inbox.requests.len()));
        }
        text
    }

    fn is_same(&self, other: &Self) -> bool {
        let login = |standing: &Self| {
            let wire::WhoAmI { groups, roles, expires, .. } = &standing.me;
            (groups.clone(), roles.clone(), expires.clone())
        };
        list::are_same(&self.mine.requests, &other.mine.requests)
            && list::are_same(&self.inbox.requests, &other.inbox.requests)
            && login(self) == login(other)
    }

    fn requests(&self) -> &[wire::Request] {
        &self.mine.requests
    }

    fn more(&self, before: &Self) -> Option<String> {
        let waiting = self.inbox.requests.len();
        (before.inbox.requests.len() != waiting).then(|| format!("waiting for you: {waiting}"))
    }

    fn keep(&self, cache: &Cache, profile: &Profile) {
        cache.keep_open(profile, &self.mine.requests);
        cache.keep_inbox(profile, &self.inbox.requests);
    }
}

fn status(context: &Context) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let local = Local::new(&context.places()?, &profile.name);
    local.sweep();
    open::sweep(&local, open::FILE_SECONDS);
    let standing = context.block_on(async {
        let standing = Standing::look(&client).await?;
        still::sweep_but(context, &client, &local, &standing.mine.requests).await;
        Ok(standing)
    })?;
    if let Some(cache) = context.cache() {
        standing.keep(&cache, &profile);
    }
    context.out.answer(&standing.document(&profile), &standing.text(&profile, context.now()))
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
