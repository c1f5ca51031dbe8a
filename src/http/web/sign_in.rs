//! Signing a browser in and out.
//!
//! A command line that is logged in gets a sign-in token (`POST /v1/session/browser`) and gives it to a browser: in a private file with
//! a form, or behind the `#` of a link, which browsers keep to themselves; never in an argument or in a URL that the server sees. That
//! `POST` signs nobody in: the page asks first, so that nobody is signed in as somebody else without seeing it. Only its button,
//! which must come from our own origin, redeems the token: once, within its minute, for an entirely new session.

use askama::Template;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Redirect, Response};
use secrecy::{ExposeSecret as _, SecretString};

use super::super::App;
use super::super::caller::Anyone;
use super::super::error::Problem;
use super::super::extract::{NoQuery, Query};
use super::Goal;
use super::frame::{Frame, render, sign_in_page};
use super::visitor::{FORGET, GuestForm, OwnForm, OwnOrigin, set};
use crate::service::Failure;

#[derive(Template)]
#[template(path = "confirm.html", config = "src/http/web/askama.toml")]
struct Confirm<'p> {
    frame: Frame,
    person: String,
    token: &'p str,
    to: String,
}

#[derive(Template)]
#[template(path = "signed_out.html", config = "src/http/web/askama.toml")]
struct SignedOut {
    frame: Frame,
}

/// How to sign in; the script gives what is behind the `#` to [`ask`].
pub(super) async fn page(_: Anyone, _: NoQuery, State(app): State<App>) -> Result<Response, Problem> {
    sign_in_page(&app, None)
}

/// Asks whether to sign in, and as whom. Changes nothing.
pub(super) async fn ask(State(app): State<App>, form: GuestForm) -> Result<Response, Problem> {
    let GuestForm { mut fields, .. } = form;
    let (token, to) = wanted(&mut fields)?;
    let proven = app.service.signing_in(token.expose_secret()).await.map_err(refused)?;
    let (person, to) = (proven.person().to_string(), to.to_string());
    render(&Confirm { frame: Frame::for_guest(&app, "Sign in?"), person, token: token.expose_secret(), to })
}

/// Signs in.
pub(super) async fn confirm(_: OwnOrigin, State(app): State<App>, form: GuestForm) -> Result<Response, Problem> {
    let GuestForm { address, mut fields } = form;
    let (token, to) = wanted(&mut fields)?;
    let new = app.service.sign_in(token, address.to_string()).await.map_err(refused)?;
    let cookie = set(&new, app.service.now()).ok_or_else(Problem::internal)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(&format!("/{to}"))).into_response())
}

/// Signs out: this browser alone.
pub(super) async fn sign_out(State(app): State<App>, form: OwnForm) -> Result<Response, Problem> {
    let OwnForm { visitor, mut fields } = form;
    fields.end()?;
    app.service.sign_out(&visitor.browser).await?;
    let page = render(&SignedOut { frame: Frame::for_guest(&app, "Signed out") })?;
    Ok(([(header::SET_COOKIE, FORGET)], page).into_response())
}

fn wanted(fields: &mut Query) -> Result<(SecretString, Goal), Problem> {
    let token = fields.one("token", |text| Ok::<_, std::convert::Infallible>(SecretString::from(text)))?;
    let to = fields.one("to", Goal::parse)?.unwrap_or_default();
    fields.end()?;
    Ok((token.ok_or_else(|| Problem::invalid("token", &"it is missing"))?, to))
}

fn refused(why: Failure) -> Problem {
    match why {
        Failure::LoginRefused => Problem::sign_in_refused(),
        other => other.into(),
    }
}
