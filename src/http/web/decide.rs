//! The forms on a request's page: approve, deny, withdraw, end.
//!
//! What was done is shown by the page that the browser is sent to. What was refused is said on the page as it stands now, with the
//! status and code that the API has for it: somebody was faster, or it has changed since it was shown.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::super::App;
use super::super::error::Problem;
use super::super::extract::{Id, Query};
use super::frame::Whole;
use super::request::{Notice, page};
use super::text::{ago, sentence};
use super::visitor::{OwnForm, Visitor};
use crate::access::Narrowing;
use crate::audit::event::Event;
use crate::name::{Digest, HostName, RequestPrefix};
use crate::service::access::{Approval, View};
use crate::service::desk::Story;
use crate::service::{Failure, Outcome};
use crate::time::Lifetime;

/// Approves exactly what was shown, perhaps narrowed.
pub(super) async fn approve(Id(id): Id, State(app): State<App>, form: OwnForm) -> Result<Response, Problem> {
    let OwnForm { visitor, mut fields } = form;
    let approval = approval(&mut fields)?;
    fields.end()?;
    let outcome = app.service.approve(&visitor.browser.proven, &id, approval).await;
    answer(&app, &visitor, &id, outcome).await
}

fn approval(fields: &mut Query) -> Result<Approval, Problem> {
    let digest = fields.one("digest", Digest::parse)?.ok_or_else(|| Problem::invalid("digest", &"it is missing"))?;
    let lifetime =
        fields.one("for", |text| if text.is_empty() { Ok(None) } else { Lifetime::parse(text).map(Some) })?;
    // Without a tick nothing is sent: that means none, not all.
    let chosen = fields.one("choice", |text| if text == "hosts" { Ok(()) } else { Err("not \"hosts\"") })?;
    let only: Result<BTreeSet<HostName>, _> = fields.all("only").iter().map(|host| HostName::parse(host)).collect();
    let only = only.map_err(|error| Problem::invalid("only", &error))?;
    let narrow = Narrowing {
        lifetime: lifetime.flatten(),
        only: (chosen.is_some() || !only.is_empty()).then_some(only),
        without: BTreeSet::new(),
    };
    let comment = fields.one("comment", text)?.unwrap_or_default();
    Ok(Approval { digest, narrow, comment, signature: None })
}

fn text(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.to_owned())
}

/// The one reason of a form.
fn reason(fields: &mut Query) -> Result<String, Problem> {
    let reason = fields.one("reason", text)?.unwrap_or_default();
    fields.end()?;
    Ok(reason)
}

/// Says no, with a reason.
pub(super) async fn deny(Id(id): Id, State(app): State<App>, form: OwnForm) -> Result<Response, Problem> {
    let OwnForm { visitor, mut fields } = form;
    let outcome = app.service.deny(&visitor.browser.proven, &id, reason(&mut fields)?).await;
    answer(&app, &visitor, &id, outcome).await
}

/// Takes one's own request, or its extension, back.
pub(super) async fn withdraw(Id(id): Id, State(app): State<App>, form: OwnForm) -> Result<Response, Problem> {
    let OwnForm { visitor, mut fields } = form;
    fields.end()?;
    let outcome = app.service.withdraw(&visitor.browser.proven, &id).await;
    answer(&app, &visitor, &id, outcome).await
}

/// Gives access back, or ends somebody else's.
pub(super) async fn end(Id(id): Id, State(app): State<App>, form: OwnForm) -> Result<Response, Problem> {
    let OwnForm { visitor, mut fields } = form;
    let outcome = app.service.end(&visitor.browser.proven, &id, reason(&mut fields)?).await;
    answer(&app, &visitor, &id, outcome).await
}

/// To the page as it is now; if it was refused, with why.
async fn answer(app: &App, visitor: &Visitor, id: &RequestPrefix, outcome: Outcome<View>) -> Result<Response, Problem> {
    let why = match outcome {
        Ok(view) => return Ok(Redirect::to(&format!("/r/{}", view.request.id().digits())).into_response()),
        Err(why @ (Failure::Refused(_) | Failure::Invalid(_) | Failure::Policy(_) | Failure::Conflict(_))) => why,
        Err(other) => return Err(other.into()),
    };
    let problem = Problem::from(why);
    let story = app.service.story(&visitor.browser.proven, id).await?;
    let mut response = page(app, visitor, &story, Some(notice(&problem, &story)))?;
    *response.status_mut() = problem.status;
    response.extensions_mut().insert(Whole);
    Ok(response)
}

/// What to say about a refusal: who was faster, if somebody was.
fn notice(problem: &Problem, story: &Story) -> Notice {
    let body = &problem.body;
    let lines = body.why.iter().chain(&body.next).cloned();
    let code = Some(format!("{} · {}", body.status, body.code));
    let faster = matches!(body.code.as_str(), "wrong_state" | "over" | "already_approved");
    match decided(story).filter(|_| faster && problem.status == StatusCode::CONFLICT) {
        Some(title) => {
            let lines = std::iter::once(body.title.clone()).chain(lines).collect();
            Notice { title, lines, code }
        }
        None => Notice { title: body.title.clone(), lines: lines.collect(), code },
    }
}

/// `bob@example.com approved it, 4 s ago`: the last decision that the log knows.
fn decided(story: &Story) -> Option<String> {
    let is_decision = |event: &Event| {
        matches!(
            event,
            Event::Approved { .. }
                | Event::Denied { .. }
                | Event::Withdrawn { .. }
                | Event::Lapsed { .. }
                | Event::Ended { .. }
        )
    };
    let last = story.entries.iter().rfind(|entry| is_decision(&entry.event))?;
    Some(format!("{}, {}", sentence(last), ago(last.at, story.now)))
}
