//! Pages for people: what waits for them, one request with its decisions, hosts, the log.
//!
//! What for: an approver with a phone. Each page is a whole document made on the server and works without a script; the one script
//! adds local times and live updates. Every handler makes the one service call that the API makes, so that a page shows and does
//! nothing that the command line would not.
//!
//! What not: no rule, no JSON (`super`), no login. A browser is let in by a command line that is logged in ([`sign_in`]).
//!
//! Invariants:
//! - A link never decides: `GET` shows, `POST` acts. What acts takes an [`OwnForm`](visitor::OwnForm), which exists only for a form
//!   that the same browser session was shown, sent from our own origin.
//! - A page has no session but its cookie's ([`visitor`]), and the API none but its bearer token.
//! - Where somebody goes after signing in is a parsed [`Goal`], never a URL of the request.
//! - Text is escaped by the templates; no page runs a script or style that is not a file of ours (`Content-Security-Policy`).
//! - An approval carries the digest of what was shown. What changed in between is refused, and shown again.
//!
//! *Why `Referrer-Policy: same-origin` and not `no-referrer`?* With the latter a browser sends `Origin: null` with our own forms, and
//! there would be nothing to check. No page links to another site.

mod assets;
mod audit;
mod decide;
mod desk;
mod frame;
mod hosts;
mod live;
mod request;
mod sign_in;
mod text;
mod visitor;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::routing::{get, post};

use super::App;
use crate::name::{NameError, RequestPrefix};
pub(super) use frame::{linked, problem};

/// The pages.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(desk::show))
        .route("/r/{id}", get(request::show))
        .route("/r/{id}/approve", post(decide::approve))
        .route("/r/{id}/deny", post(decide::deny))
        .route("/r/{id}/withdraw", post(decide::withdraw))
        .route("/r/{id}/end", post(decide::end))
        .route("/r/{id}/live", get(live::of_request))
        .route("/live", get(live::of_desk))
        .route("/hosts", get(hosts::show))
        .route("/audit", get(audit::show))
        .route("/sign-in", get(sign_in::page).post(sign_in::ask))
        .route("/sign-in/confirm", post(sign_in::confirm))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/assets/{name}", get(assets::asset))
}

/// A page that somebody wants to be at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Goal {
    /// What waits for them.
    #[default]
    Inbox,
    /// One request.
    Request(RequestPrefix),
    /// Hosts.
    Hosts,
    /// The log.
    Audit,
}

impl Goal {
    /// Parses what `Display` writes.
    fn parse(text: &str) -> Result<Self, NameError> {
        match text {
            "" => Ok(Self::Inbox),
            "hosts" => Ok(Self::Hosts),
            "audit" => Ok(Self::Audit),
            other => RequestPrefix::parse(other.strip_prefix("r/").unwrap_or_default()).map(Self::Request),
        }
    }
}

impl std::fmt::Display for Goal {
    /// Its path without the first slash.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inbox => Ok(()),
            Self::Request(id) => write!(f, "r/{}", id.as_str()),
            Self::Hosts => f.write_str("hosts"),
            Self::Audit => f.write_str("audit"),
        }
    }
}

/// Whether problems of this exchange are to be shown as pages: somebody looks at it, and it is none of the API.
pub(super) fn wants_page(request: &Request) -> bool {
    let mut accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    !request.uri().path().starts_with("/v1/") && accepted.any(|value| value.contains("text/html"))
}

/// The headers of every page.
pub(super) fn guard(headers: &mut HeaderMap) {
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_a_page_of_ours_and_reads_back() {
        for text in ["", "hosts", "audit", "r/7k3f9qx2", "r/7k3f"] {
            assert_eq!(Goal::parse(text).unwrap().to_string().to_lowercase(), text);
        }
        for text in [
            "/",
            "//evil.example",
            "https://evil.example/",
            "r/",
            "r/../hosts",
            "r/7k3f/../x",
            "hosts/",
            "r/7k3f?x",
            "\\\\evil.example",
            "javascript:alert(1)",
            "r/7k3f#x",
            "r/7k3f\n",
            "%2f%2fevil.example",
            "policy",
        ] {
            assert!(Goal::parse(text).is_err(), "{text:?}");
        }
    }
}
