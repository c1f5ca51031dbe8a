//! `/hosts`: which hosts there are, what the visitor may ask for there, and for operators and auditors what they told last.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::App;
use super::super::error::Problem;
use super::super::extract::Query;
use super::frame::{Frame, render};
use super::text::{ago, needs, span};
use super::visitor::Visitor;
use crate::policy::Way;
use crate::service::hosts::{HostFilter, HostView, SeenView};
use crate::time::Timestamp;

/// The longest text that hosts are looked for by; no name or tag is longer.
const TEXT_MAX: usize = 253;

/// How many hosts one page shows. Our own choice: a page that opens on a bad line.
const SHOWN_MAX: usize = 100;

#[derive(Template)]
#[template(path = "hosts.html", config = "src/http/web/askama.toml")]
struct Page {
    frame: Frame,
    query: String,
    hosts: Vec<Card>,
    is_cut: bool,
}

struct Card {
    name: String,
    tags: String,
    ways: Vec<String>,
    state: Vec<String>,
}

/// Hosts by name.
pub(super) async fn show(visitor: Visitor, mut query: Query, State(app): State<App>) -> Result<Response, Problem> {
    let text = |text: &str| {
        if text.len() <= TEXT_MAX { Ok(text.trim().to_owned()) } else { Err(format!("longer than {TEXT_MAX} bytes")) }
    };
    let wanted = query.one("q", text)?.unwrap_or_default();
    query.end()?;
    let filter = HostFilter { text: Some(wanted.clone()).filter(|text| !text.is_empty()), tag: None, ways: true };
    let list = app.service.hosts(&visitor.browser.proven, filter).await?;
    let now = app.service.now();
    let frame = Frame { here: "hosts", ..Frame::new(&app, &visitor, "Hosts", now) };
    let is_cut = list.is_cut || list.hosts.len() > SHOWN_MAX;
    let hosts = list.hosts.iter().take(SHOWN_MAX).map(|host| card(host, now)).collect();
    render(&Page { frame, query: wanted, hosts, is_cut })
}

fn card(view: &HostView, now: Timestamp) -> Card {
    let HostView { host, ways, is_enrolled, seen } = view;
    let mut state = Vec::new();
    match seen {
        Some(seen) => state.extend(told(seen, now)),
        None if *is_enrolled => state.push("enrolled".to_owned()),
        None => state.push("not enrolled: open sessions are not ended from here".to_owned()),
    }
    Card {
        name: host.name.to_string(),
        tags: host.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("  "),
        ways: ways.iter().flatten().map(way).collect(),
        state,
    }
}

/// `as deploy, up to 1 h: 1 of group:sre must agree (rule web-debug)`.
fn way(way: &Way) -> String {
    let agree =
        way.quorum.as_ref().map_or_else(|| "at once".to_owned(), |quorum| format!("{} must agree", needs(quorum)));
    let longest = span(u64::from(way.longest.seconds()));
    format!("as {}, up to {longest}: {agree} (rule {})", way.account, way.rule)
}

/// What a host told last.
fn told(view: &SeenView, now: Timestamp) -> Vec<String> {
    let (told, at) = (&view.seen.check_in, view.seen.at);
    let stale = if view.is_stale { ", too long ago" } else { "" };
    let guard = if told.guard { "guard" } else { "no guard" };
    let mut lines = vec![
        format!("checked in {}{stale}", ago(at, now)),
        format!("trust {}, {guard}, clock {} ms off, {} sessions", view.trust.word(), told.clock_ms, told.sessions),
    ];
    if !told.risky.is_empty() {
        let risky: Vec<String> = told.risky.iter().map(|word| format!("{word:?}")).collect();
        lines.push(format!("risky: {}", risky.join(", ")));
    }
    lines
}
