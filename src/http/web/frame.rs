//! What all pages share: the frame around them, rendering, and problems as pages.

use askama::Template;
use axum::body::Body;
use axum::http::{HeaderValue, header, request};
use axum::response::{Html, IntoResponse as _, Response};
use secrecy::ExposeSecret as _;

use super::super::App;
use super::super::error::Problem;
use super::assets;
use super::visitor::Visitor;
use crate::time::Timestamp;
use crate::wire;

/// The frame of a page.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Where the stylesheet, the script and the icon are.
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
    /// The page's title.
    pub(super) title: String,
    /// What the service calls itself: its host.
    pub(super) service: String,
    /// When it was made; empty if nobody counts.
    pub(super) now: String,
    /// Who looks at it.
    pub(super) who: Option<Who>,
    /// Which of the pages in the navigation it is.
    pub(super) here: &'static str,
    /// The stream that says when it changes.
    pub(super) stream: Option<String>,
    /// Whether it asks before it shows what is new.
    pub(super) asks: bool,
    /// Whether it is loaded again by itself where there is no script.
    pub(super) renews: bool,
}

/// Who looks at a page.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) person: String,
    pub(super) form: String,
    pub(super) reads_all: bool,
}

impl Frame {
    /// Of a page for nobody in particular.
    pub(super) fn for_guest(app: &App, title: &str) -> Self {
        let url = app.service.settings().public_url.as_str();
        let service = url.split_once("://").map_or(url, |(_, host)| host).to_owned();
        let (style, script, icon) = (assets::style(), assets::script(), assets::icon());
        Self { style, script, icon, title: title.to_owned(), service, ..Self::default() }
    }

    /// Of a page for this visitor.
    pub(super) fn new(app: &App, visitor: &Visitor, title: &str, now: Timestamp) -> Self {
        let browser = &visitor.browser;
        let who = Who {
            person: browser.proven.person().to_string(),
            form: browser.form_token.expose_secret().to_owned(),
            reads_all: browser.reads_all,
        };
        Self { now: now.to_string(), who: Some(who), ..Self::for_guest(app, title) }
    }
}

/// A template as an answer.
pub(super) fn render(page: &impl Template) -> Result<Response, Problem> {
    match page.render() {
        Ok(html) => Ok(Html(html).into_response()),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            Err(Problem::internal())
        }
    }
}

/// An answer that is whole although its status says that something was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole;

#[derive(Template)]
#[template(path = "problem.html", config = "src/http/web/askama.toml")]
struct ProblemPage<'p> {
    frame: Frame,
    why: &'p [String],
    next: &'p [String],
    status: u16,
    code: &'p str,
    trace: &'p str,
}

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/http/web/askama.toml")]
struct SignInPage {
    frame: Frame,
    go_on: Option<String>,
}

/// The page that says how to sign in. `from`: what was asked for, if a link elsewhere led to it; then one step from this page may be
/// all that is missing, as a browser keeps a strict cookie from the first.
pub(super) fn sign_in_page(app: &App, from: Option<String>) -> Result<Response, Problem> {
    render(&SignInPage { frame: Frame::for_guest(app, "Sign in"), go_on: from })
}

/// The path that a link on another site led to, if one did.
pub(in super::super) fn linked(request: &request::Request<Body>) -> Option<String> {
    let site = request.headers().get("sec-fetch-site")?.to_str().ok()?;
    let is_link = *request.method() == axum::http::Method::GET && matches!(site, "cross-site" | "same-site");
    let path = request.uri().path();
    let goal = super::Goal::parse(path.strip_prefix('/')?).ok()?;
    is_link.then(|| format!("/{goal}"))
}

/// A problem as a page. `linked`: see [`linked`].
pub(in super::super) fn problem(app: &App, response: Response, trace: &str, linked: Option<String>) -> Response {
    let (mut parts, body) = response.into_parts();
    if parts.extensions.get::<Whole>().is_some() {
        return Response::from_parts(parts, body);
    }
    let problem = parts.extensions.remove::<Problem>().unwrap_or_else(|| Problem::of_status(parts.status));
    let page = if problem.body.code == "not_logged_in" {
        sign_in_page(app, linked)
    } else {
        let wire::Problem { title, why, next, code, status, .. } = problem.body.as_ref();
        let frame = Frame::for_guest(app, title);
        render(&ProblemPage { frame, why, next, status: *status, code, trace })
    };
    let body = page.map(Response::into_body).unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Response::from_parts(parts, body)
}
