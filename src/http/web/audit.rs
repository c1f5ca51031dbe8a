//! `/audit`: the newest entries of the log as sentences, for operators and auditors.
//!
//! What not: no proof. A page says what the service says; an export is verified elsewhere.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::App;
use super::super::error::Problem;
use super::super::extract::Query;
use super::frame::{Frame, render};
use super::text::When;
use super::visitor::Visitor;
use crate::audit::entry::Entry;
use crate::audit::search::Search;
use crate::name::{HostName, PersonName, RequestPrefix};
use crate::time::Timestamp;

/// How many entries one page shows. Our own choice.
const SHOWN_MAX: usize = 50;

#[derive(Template)]
#[template(path = "audit.html", config = "src/http/web/askama.toml")]
struct Page {
    frame: Frame,
    person: String,
    host: String,
    request: String,
    entries: Vec<Line>,
    older: Option<String>,
}

struct Line {
    index: u64,
    at: When,
    text: String,
    id: String,
    digits: Option<String>,
}

/// The newest entries that fit.
pub(super) async fn show(visitor: Visitor, mut query: Query, State(app): State<App>) -> Result<Response, Problem> {
    let person = query.one("person", |text| filled(text, PersonName::parse))?.flatten();
    let host = query.one("host", |text| filled(text, HostName::parse))?.flatten();
    let request = query.one("request", |text| filled(text, RequestPrefix::parse))?.flatten();
    let before = query.number("before")?;
    query.end()?;
    let terms = [
        ("person", person.as_ref().map(ToString::to_string)),
        ("host", host.as_ref().map(ToString::to_string)),
        ("request", request.as_ref().map(|request| request.as_str().to_owned())),
    ];
    let terms: Vec<(&str, String)> = terms.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let text: Vec<String> = terms.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    let now = app.service.now();
    let search = Search::parse(&text.join(" "), now).map_err(|error| Problem::invalid("query", &error))?;
    let found = app.service.find_entries(&visitor.browser.proven, &search, before, SHOWN_MAX).await?;
    // Of the characters of a name only `+` means something else in a query.
    let pairs = terms.iter().map(|(key, value)| format!("&{key}={}", value.replace('+', "%2B")));
    let older = found.before.map(|before| format!("/audit?before={before}{}", pairs.collect::<String>()));
    let value = |wanted: &str| terms.iter().find(|(key, _)| *key == wanted).map(|(_, v)| v.clone()).unwrap_or_default();
    render(&Page {
        frame: Frame { here: "audit", ..Frame::new(&app, &visitor, "Audit log", now) },
        person: value("person"),
        host: value("host"),
        request: value("request"),
        entries: found.entries.iter().map(|entry| line(entry, now)).collect(),
        older,
    })
}

/// An empty field of a form is one that was not filled in.
fn filled<T, E>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Option<T>, E> {
    let text = text.trim();
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn line(entry: &Entry, now: Timestamp) -> Line {
    let request = entry.event.request();
    Line {
        index: entry.index,
        at: When::with_day(entry.at, now),
        text: super::text::sentence(entry),
        id: request.map(|id| id.to_string()).unwrap_or_default(),
        digits: request.map(|id| id.digits().to_owned()),
    }
}
