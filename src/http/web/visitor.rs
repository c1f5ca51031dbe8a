//! Who looks at a page, and whether a form is one of ours.
//!
//! [`Visitor`]: a browser with a live session, known by its cookie alone. [`OwnForm`]: a form of a page that this very browser session
//! was shown. [`GuestForm`]: a form of somebody who is not signed in; only signing in takes one.
//!
//! *Why three checks on a form?* `SameSite=Strict` keeps the cookie away from other sites' forms, `Origin` and `Sec-Fetch-Site` say where
//! one came from, and its token says that its page was made for this session. Each has had a hole in some browser; all at once have not.

use std::net::IpAddr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret as _, SecretString};

use super::super::App;
use super::super::admission::{Held, Who};
use super::super::caller::Anyone;
use super::super::error::Problem;
use super::super::extract::Query;
use crate::service::browser::{Browser, NewBrowser};
use crate::time::Timestamp;

/// The cookie's name; the prefix makes browsers refuse it from elsewhere, unencrypted, for another path or for subdomains.
const COOKIE: &str = "__Host-hallpass";

/// A browser with a live session, and its person within their rate.
#[derive(Debug)]
pub(super) struct Visitor {
    /// Who, and what their forms carry.
    pub(super) browser: Browser,
    token: SecretString,
}

impl Visitor {
    /// The cookie's token, to look again later.
    pub(super) fn into_token(self) -> SecretString {
        self.token
    }
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let found = match cookie(&parts.headers) {
            Some(token) => app.service.browser(token.expose_secret()).await.map(|browser| (browser, token)),
            None => return guest(parts, app).await.and_then(|_| Err(nobody())),
        };
        match found {
            Ok((browser, token)) => {
                tracing::Span::current().record("person", browser.proven.person().as_str());
                app.limits.person(browser.proven.person())?;
                Held::of(&parts.extensions).known(app, Who::Person(browser.proven.person().clone())).await?;
                Ok(Self { browser, token })
            }
            // Guessing tokens counts against the guesser's address.
            Err(crate::service::Failure::NotLoggedIn) => guest(parts, app).await.and_then(|_| Err(nobody())),
            Err(why) => Err(guest(parts, app).await.err().unwrap_or_else(|| Problem::from(why))),
        }
    }
}

async fn guest(parts: &mut Parts, app: &App) -> Result<Anyone, Problem> {
    Anyone::from_request_parts(parts, app).await
}

fn nobody() -> Problem {
    Problem::not_signed_in()
}

/// A form of a page that this browser session was shown.
#[derive(Debug)]
pub(super) struct OwnForm {
    /// Whose.
    pub(super) visitor: Visitor,
    /// Its fields, without the token.
    pub(super) fields: Query,
}

impl FromRequest<App> for OwnForm {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, app).await?;
        check_origin(&parts.headers, app)?;
        let mut fields = Query::of_form(Request::from_parts(parts, body), app).await?;
        let given = fields.one("form", |text| Ok::<_, std::convert::Infallible>(text.to_owned()))?;
        if !given.is_some_and(|given| app.service.is_own_form(&visitor.browser, &given)) {
            return Err(foreign("it does not carry what the page was given"));
        }
        Ok(Self { visitor, fields })
    }
}

/// A form of somebody who is not signed in, from whatever page.
#[derive(Debug)]
pub(super) struct GuestForm {
    /// From where they call.
    pub(super) address: IpAddr,
    /// Its fields.
    pub(super) fields: Query,
}

impl FromRequest<App> for GuestForm {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Anyone { address } = guest(&mut parts, app).await?;
        Ok(Self { address, fields: Query::of_form(Request::from_parts(parts, body), app).await? })
    }
}

/// That a form came from a page of our own origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnOrigin;

impl FromRequestParts<App> for OwnOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        check_origin(&parts.headers, app).map(|()| Self)
    }
}

/// Refuses what another site's page sends, and what does not say where it comes from.
fn check_origin(headers: &HeaderMap, app: &App) -> Result<(), Problem> {
    let ours = origin_of(&app.service.settings().public_url);
    if one(headers, "sec-fetch-site").is_some_and(|site| site != Some("same-origin")) {
        return Err(foreign("the browser says that another site sent it"));
    }
    match one(headers, header::ORIGIN.as_str()) {
        Some(Some(origin)) if origin == ours => Ok(()),
        Some(Some("null") | None) | None => Err(foreign("the browser does not say which page sent it")),
        Some(Some(_)) => {
            Err(foreign("the page that sent it is not one of this service").next(&format!("open {ours} by this name")))
        }
    }
}

/// The origin of a public URL, which is a scheme, a host and perhaps a port: browsers leave out the usual port.
fn origin_of(url: &str) -> &str {
    url.strip_suffix(":443").unwrap_or(url)
}

/// The one header of this name: `None` without one, `Some(None)` if it is no text or there are several.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<Option<&'h str>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { None } else { first.to_str().ok() })
}

fn foreign(why: &str) -> Problem {
    let title = "this form did not come from a page that you were shown; nothing was done";
    Problem::new(StatusCode::FORBIDDEN, "forbidden", title).why([why.to_owned()]).next("open the page and try again")
}

/// Our cookie's value; none when there are two, as two readers could take different ones.
pub(super) fn cookie(headers: &HeaderMap) -> Option<SecretString> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut ours = pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    let first = ours.next()?;
    if ours.next().is_some() { None } else { Some(SecretString::from(first)) }
}

/// The cookie of a new session, which ends with it.
pub(super) fn set(new: &NewBrowser, now: Timestamp) -> Option<HeaderValue> {
    let seconds = new.expires.seconds_since(now);
    let token = new.token.expose_secret();
    let mut value = HeaderValue::from_str(&format!(
        "{COOKIE}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"
    ))
    .ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What makes a browser forget the cookie.
pub(super) const FORGET: HeaderValue =
    HeaderValue::from_static("__Host-hallpass=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(values: &[&'static str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::COOKIE, HeaderValue::from_static(value));
        }
        cookie(&headers).map(|token| token.expose_secret().to_owned())
    }

    #[test]
    fn an_origin_is_spelt_as_browsers_do() {
        for (url, origin) in [
            ("https://a.example:443", "https://a.example"),
            ("https://a.example", "https://a.example"),
            ("https://a.example:7443", "https://a.example:7443"),
            ("https://[2001:db8::1]:443", "https://[2001:db8::1]"),
            ("https://[2001:db8::443]", "https://[2001:db8::443]"),
        ] {
            assert_eq!(origin_of(url), origin);
        }
    }

    #[test]
    fn our_cookie_is_found_among_others_and_refused_twice() {
        assert_eq!(sent(&[]), None);
        assert_eq!(sent(&["a=b; __Host-hallpass=hpb_x; c=d"]).as_deref(), Some("hpb_x"));
        assert_eq!(sent(&["a=b", "__Host-hallpass=hpb_x"]).as_deref(), Some("hpb_x"), "HTTP/2 splits them");
        assert_eq!(sent(&["hallpass=hpb_x; x__Host-hallpass=hpb_y"]), None);
        assert_eq!(sent(&["__Host-hallpass=hpb_x; __Host-hallpass=hpb_y"]), None);
        assert_eq!(sent(&["__Host-hallpass=hpb_x", "__Host-hallpass=hpb_x"]), None);
    }
}
