//! `/`: what waits for the visitor, and what they hold.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::super::App;
use super::super::error::Problem;
use super::super::extract::NoQuery;
use super::frame::{Frame, render};
use super::text::{When, list, mark};
use super::visitor::Visitor;
use crate::access;
use crate::service::access::View;
use crate::time::Timestamp;

#[derive(Template)]
#[template(path = "desk.html", config = "src/http/web/askama.toml")]
struct Page {
    frame: Frame,
    inbox: Vec<Card>,
    mine: Vec<Card>,
}

/// A request in a list.
struct Card {
    id: String,
    digits: String,
    person: String,
    hosts: String,
    account: String,
    reason: String,
    ticket: Option<String>,
    what: String,
    others: String,
    asked: When,
    decide_by: Option<When>,
    until: Option<When>,
    state: &'static str,
    mark: &'static str,
    waits: bool,
}

/// The inbox.
pub(super) async fn show(visitor: Visitor, _: NoQuery, State(app): State<App>) -> Result<Response, Problem> {
    let desk = app.service.desk(&visitor.browser.proven).await?;
    let title = match desk.inbox.len() {
        0 => "Inbox".to_owned(),
        count => format!("({count}) Inbox"),
    };
    let frame = Frame::new(&app, &visitor, &title, desk.now);
    let frame = Frame { here: "inbox", stream: Some("/live".to_owned()), asks: true, renews: true, ..frame };
    let cards = |views: &[View]| views.iter().map(|view| card(view, desk.now)).collect();
    render(&Page { inbox: cards(&desk.inbox), mine: cards(&desk.mine), frame })
}

fn card(view: &View, now: Timestamp) -> Card {
    let parts = view.request.parts();
    let extension = parts.extension.as_ref();
    let decide_by = match &parts.state {
        access::State::Pending { decide_by, .. } => Some(*decide_by),
        _ => extension.map(|extension| extension.decide_by),
    };
    let end = view.request.grant().map(|grant| grant.window.end());
    Card {
        id: parts.id.to_string(),
        digits: parts.id.digits().to_owned(),
        person: parts.asker.to_string(),
        hosts: list(parts.terms.hosts.keys()),
        account: parts.terms.account.to_string(),
        reason: extension
            .filter(|extension| !extension.reason.is_empty())
            .map_or_else(|| parts.reason.clone(), |extension| extension.reason.clone()),
        ticket: parts.ticket.clone(),
        what: extension.map_or_else(
            || format!("for {}", parts.terms.lifetime),
            |extension| format!("{} more, on top of what they hold", extension.lifetime),
        ),
        others: format!("can approve it: {}", eligible(view)),
        asked: When::new(extension.map_or(parts.asked, |extension| extension.asked), now),
        decide_by: decide_by.map(|at| When::new(at, now)),
        until: end.map(|at| When::new(at, now)),
        state: parts.state.word(),
        mark: mark(&parts.state),
        waits: view.request.waits(),
    }
}

/// Who can still approve what waits.
pub(super) fn eligible(view: &View) -> String {
    if view.eligible.is_empty() { "nobody who is known now".to_owned() } else { list(&view.eligible) }
}
