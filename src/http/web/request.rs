//! `/r/ID`: one request, all that an approver agrees to, what happened, and what the visitor may do about it.

use std::collections::BTreeSet;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use secrecy::ExposeSecret as _;

use super::super::App;
use super::super::error::Problem;
use super::super::extract::{Id, NoQuery};
use super::desk::eligible;
use super::frame::{Frame, render};
use super::text::{When, list, mark, needs, sentence, span};
use super::visitor::Visitor;
use crate::access;
use crate::name::PersonName;
use crate::service::desk::Story;
use crate::time::{Lifetime, Timestamp};

/// Shorter times that an approver is offered; another one is given on the command line.
const SHORTER: [Lifetime; 5] = [
    Lifetime::minutes(240),
    Lifetime::minutes(120),
    Lifetime::minutes(60),
    Lifetime::minutes(30),
    Lifetime::minutes(15),
];

/// How many of them, besides the time that was asked for.
const SHORTER_MAX: usize = 3;

#[derive(Template)]
#[template(path = "request.html", config = "src/http/web/askama.toml")]
struct Page {
    frame: Frame,
    notice: Option<Notice>,
    id: String,
    digits: String,
    headline: String,
    state: &'static str,
    mark: &'static str,
    standing: String,
    reason: String,
    extension: Option<String>,
    asker: String,
    facts: Vec<Fact>,
    rule: String,
    story: Vec<Step>,
    form: String,
    digest: String,
    sign: Option<String>,
    approve: Option<Approve>,
    may_deny: bool,
    may_withdraw: bool,
    withdraw: &'static str,
    end: Option<End>,
}

/// Something to be said before all else.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) title: String,
    pub(super) lines: Vec<String>,
    pub(super) code: Option<String>,
}

struct Fact {
    label: &'static str,
    value: Value,
}

enum Value {
    Text(String),
    Left(When),
    Ago(When),
    Window(When, When),
    Would(When, When, String),
}

struct Step {
    at: When,
    text: String,
}

/// What can be approved.
struct Approve {
    times: Vec<Time>,
    hosts: Vec<String>,
    outcome: String,
    what: Option<String>,
}

struct Time {
    value: String,
    text: String,
}

struct End {
    label: String,
    needs_reason: bool,
}

/// The request as it stands.
pub(super) async fn show(
    visitor: Visitor,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let story = app.service.story(&visitor.browser.proven, &id).await?;
    page(&app, &visitor, &story, None)
}

/// The page on a request, perhaps with something said before it.
pub(super) fn page(app: &App, visitor: &Visitor, story: &Story, notice: Option<Notice>) -> Result<Response, Problem> {
    let Story { view, entries, must_sign, now, .. } = story;
    let (request, me, now) = (&view.request, visitor.browser.proven.person(), *now);
    let parts = request.parts();
    let (id, digits, hosts) = (parts.id.to_string(), parts.id.digits().to_owned(), list(parts.terms.hosts.keys()));
    let extension = parts.extension.as_ref();
    let headline = match extension {
        None => format!("{} asks for {hosts} as {} for {}", parts.asker, parts.terms.account, parts.terms.lifetime),
        Some(more) => format!("{} asks for {} more on {hosts} as {}", parts.asker, more.lifetime, parts.terms.account),
    };
    let frame = Frame::new(app, visitor, &format!("{id} {}", parts.state.word()), now);
    let stream = request.next_tick().map(|_| format!("/r/{digits}/live"));
    let step = |entry: &crate::audit::entry::Entry| Step { at: When::new(entry.at, now), text: sentence(entry) };
    let is_mine = parts.asker == *me;
    render(&Page {
        // What somebody is about to approve does not change under their eyes.
        frame: Frame { stream, asks: view.may_decide, ..frame },
        notice,
        headline,
        state: parts.state.word(),
        mark: mark(&parts.state),
        standing: standing(story),
        reason: parts.reason.clone(),
        extension: extension.map(|more| more.reason.clone()).filter(|reason| !reason.is_empty()),
        asker: parts.asker.to_string(),
        facts: facts(story),
        rule: rule(story),
        story: entries.iter().map(step).collect(),
        form: visitor.browser.form_token.expose_secret().to_owned(),
        digest: request.digest().to_string(),
        sign: must_sign.then(|| format!("hallpass approve {id}")),
        approve: (view.may_decide && !must_sign).then(|| approve(story)),
        may_deny: may_deny(story, me),
        may_withdraw: is_mine && may_withdraw(story),
        withdraw: if extension.is_some() { "Withdraw the extension" } else { "Withdraw the request" },
        end: end(story, me),
        id,
        digits,
    })
}

/// How it stands, in a few words.
fn standing(story: &Story) -> String {
    let Story { view, now, .. } = story;
    match &view.request.parts().state {
        _ if view.request.waits() => String::new(),
        access::State::Denied { by, reason } => format!("by {by}: {reason}"),
        access::State::Ended { by, at, reason } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("by {by} {}{reason}", super::text::ago(*at, *now))
        }
        _ => {
            let approvers = view.request.grant().map(|grant| list(grant.approvers.keys())).unwrap_or_default();
            if approvers.is_empty() { String::new() } else { format!("approved by {approvers}") }
        }
    }
}

/// What a principal without a host's name means: such hosts look at nothing else.
const BEYOND: &str = ": every host that takes this account from certificates, not only those that were asked for";

/// All that an approver agrees to, and when.
fn facts(story: &Story) -> Vec<Fact> {
    let Story { view, now, .. } = story;
    let (parts, grant) = (view.request.parts(), view.request.grant());
    let when = |at: Timestamp| When::new(at, *now);
    let mut facts = Vec::new();
    let mut add = |label, value| facts.push(Fact { label, value });
    if let Some(ticket) = &parts.ticket {
        add("Ticket", Value::Text(ticket.clone()));
    }
    add("Asked", Value::Ago(when(parts.asked)));
    if let access::State::Pending { decide_by, .. } = &parts.state {
        add("Lapses", Value::Left(when(*decide_by)));
    }
    if let Some(extension) = &parts.extension {
        add("Extension lapses", Value::Left(when(extension.decide_by)));
    }
    if let Some(grant) = grant {
        add("Window", Value::Window(when(grant.window.start()), when(grant.window.end())));
    }
    if let Some((label, (from, to))) = next_window(story) {
        add(label, Value::Would(when(from), when(to), span(to.seconds_since(from))));
    }
    if view.request.waits() {
        add("Approvers", Value::Text(eligible(view)));
        if let Some(short) = &view.shortage {
            add("But", Value::Text(short.to_string()));
        }
    }
    let options = &parts.terms.options;
    let permits = list(options.permits.iter().map(|permit| permit.key().replace('_', " ")));
    add("May use", Value::Text(if permits.is_empty() { "commands only".to_owned() } else { permits }));
    if let Some(command) = &options.force_command {
        add("Only", Value::Text(command.as_str().to_owned()));
    }
    if !options.source_addresses.is_empty() {
        add("From", Value::Text(list(&options.source_addresses)));
    }
    if options.verify_required {
        add("With", Value::Text("a security key that checks a PIN or finger each time".to_owned()));
    }
    let opens: BTreeSet<&str> = parts.terms.hosts.values().map(crate::name::Principal::as_str).collect();
    let beyond = if opens.iter().all(|principal| principal.contains('@')) { "" } else { BEYOND };
    add("Opens", Value::Text(format!("{}{beyond}", list(opens))));
    add("Key", Value::Text(parts.key.fingerprint().to_string()));
    facts
}

/// The window that an approval now would give.
fn next_window(story: &Story) -> Option<(&'static str, (Timestamp, Timestamp))> {
    let Story { view, now, .. } = story;
    let parts = view.request.parts();
    let more = |from: Timestamp, span: Lifetime| from.plus(span).unwrap_or(from);
    if let Some(extension) = &parts.extension {
        let end = view.request.grant()?.window.end();
        return Some(("Would add", (end, more(end, extension.lifetime))));
    }
    if !matches!(parts.state, access::State::Pending { .. }) {
        return None;
    }
    let begins = parts.start.unwrap_or(*now);
    let from = if parts.start.is_some() { begins } else { now.minus(parts.terms.backdate).unwrap_or(*now) };
    Some(("Approved now", (from, more(begins, parts.terms.lifetime))))
}

/// What routed it, as a sentence.
fn rule(story: &Story) -> String {
    let Story { view, .. } = story;
    let parts = view.request.parts();
    let (rules, policy) = (list(&parts.terms.rules), parts.policy.0);
    match (&view.quorum, &parts.quorum) {
        (Some(quorum), _) => format!("Rule {rules} of policy {policy} wants {} to agree.", needs(quorum)),
        (None, Some(quorum)) => format!("Rule {rules} of policy {policy} asked for {}.", needs(quorum)),
        (None, None) => format!("Rule {rules} of policy {policy} allows it at once."),
    }
}

fn approve(story: &Story) -> Approve {
    let parts = story.view.request.parts();
    let extension = parts.extension.as_ref();
    let asked = extension.map_or(parts.terms.lifetime, |extension| extension.lifetime);
    let named = |lifetime: Lifetime| span(u64::from(lifetime.seconds()));
    let as_asked = Time { value: String::new(), text: format!("{} (as asked)", named(asked)) };
    let shorter = SHORTER.into_iter().filter(|shorter| *shorter < asked).take(SHORTER_MAX);
    let shorter = shorter.map(|shorter| Time { value: shorter.to_string(), text: named(shorter) });
    let outcome = match extension {
        Some(_) => "The session that is open stays open; its end moves.",
        None if parts.start.is_some() => "The window begins when it was asked for.",
        None => "The window begins with the approval that completes it.",
    };
    let hosts =
        if extension.is_some() { Vec::new() } else { parts.terms.hosts.keys().map(ToString::to_string).collect() };
    let times: Vec<Time> = std::iter::once(as_asked).chain(shorter).collect();
    // With a choice the button does not name one.
    let what = (times.len() == 1).then(|| named(asked));
    Approve { times, hosts, outcome: outcome.to_owned(), what }
}

/// Whether the visitor may say no; the step looks again. Operators may, also where they can't approve.
fn may_deny(story: &Story, me: &PersonName) -> bool {
    let Story { view, is_operator, .. } = story;
    view.request.waits() && view.request.parts().asker != *me && (view.may_decide || *is_operator)
}

fn may_withdraw(story: &Story) -> bool {
    let request = &story.view.request;
    matches!(request.parts().state, access::State::Pending { .. } | access::State::Approved) || request.waits()
}

fn end(story: &Story, me: &PersonName) -> Option<End> {
    let parts = story.view.request.parts();
    if !matches!(parts.state, access::State::Approved | access::State::Issued) {
        return None;
    }
    match (parts.asker == *me, story.is_operator) {
        (true, _) => Some(End { label: "Why? May be empty".to_owned(), needs_reason: false }),
        (false, true) => Some(End { label: format!("Why? {} reads it", parts.asker), needs_reason: true }),
        (false, false) => None,
    }
}
