//! `/live` and `/r/ID/live`: that a page has changed, as server-sent events. What has changed is read by loading the page again, under
//! the rules of pages.
//!
//! At each look the session is looked at anew, and before each event the right to see the request. Nothing is told at first: who comes
//! back after a lost connection looks at the page.

use axum::extract::State;
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::super::App;
use super::super::error::Problem;
use super::super::extract::{Id, NoQuery};
use super::super::stream::{self, Look, Subject};
use super::visitor::Visitor;
use crate::identity::Proven;
use crate::name::{RequestId, RequestPrefix};

/// That the visitor's inbox or access may have changed.
pub(super) async fn of_desk(visitor: Visitor, _: NoQuery, State(app): State<App>) -> Result<Response, Problem> {
    stream(&app, visitor, None)
}

/// That a request has changed.
pub(super) async fn of_request(
    visitor: Visitor,
    Id(id): Id,
    _: NoQuery,
    State(app): State<App>,
) -> Result<Response, Problem> {
    let id = app.service.view(&visitor.browser.proven, &id).await?.request.id();
    stream(&app, visitor, Some(id))
}

fn stream(app: &App, visitor: Visitor, only: Option<RequestId>) -> Result<Response, Problem> {
    let place = app.limits.stream(visitor.browser.proven.person())?;
    let changes = app.service.changes();
    let watch = Watch { only, changes, token: visitor.into_token(), news: News::None, app: app.clone() };
    Ok(stream::answer(watch, place, app))
}

/// A page that is open somewhere.
struct Watch {
    app: App,
    only: Option<RequestId>,
    token: SecretString,
    changes: broadcast::Receiver<RequestId>,
    news: News,
}

/// What has changed and was not told yet.
enum News {
    None,
    Of(RequestId),
    /// Any number of requests.
    Many,
}

impl Watch {
    /// Whether the visitor may see this request, and so that it has changed.
    async fn shows(&self, by: &Proven, id: RequestId) -> bool {
        let Ok(prefix) = RequestPrefix::parse(id.digits()) else { return false };
        self.app.service.view(by, &prefix).await.is_ok()
    }
}

impl Subject for Watch {
    async fn changed(&mut self) -> bool {
        loop {
            match self.changes.recv().await {
                Ok(id) if self.only.is_some_and(|only| only != id) => {}
                Ok(id) => {
                    self.news = News::Of(id);
                    return true;
                }
                Err(RecvError::Lagged(_)) => {
                    self.news = self.only.map_or(News::Many, News::Of);
                    return true;
                }
                Err(RecvError::Closed) => return false,
            }
        }
    }

    async fn look(&mut self) -> Option<Look> {
        let browser = self.app.service.browser(self.token.expose_secret()).await.ok()?;
        let is_shown = match std::mem::replace(&mut self.news, News::None) {
            News::None => false,
            News::Of(id) => self.shows(&browser.proven, id).await,
            News::Many => true,
        };
        Some(if is_shown { Look::News("changed".to_owned()) } else { Look::Same })
    }
}
