//! From an exchange to who is calling. A handler names one of these as its first argument, and so can't run without saying so:
//! [`Caller`], a person with a live session, [`Operator`], one who operates the service, [`HostCaller`], an enrolled host, or [`Anyone`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use secrecy::{ExposeSecret as _, SecretString};

use super::App;
use super::admission::{Held, Who};
use super::error::Problem;
use super::limit::network;
use crate::identity::Proven;
use crate::identity::host::HostProven;
use crate::service::Failure;
use crate::time::Timestamp;

/// A person with a live session, and within their rate.
#[derive(Debug)]
pub(super) struct Caller {
    /// Who.
    pub(super) proven: Proven,
    /// Until when the session lasts.
    pub(super) expires: Timestamp,
    token: SecretString,
}

/// A caller who operates the service: where a body is taken that is too large to be taken from everybody. The service looks
/// again when it acts.
#[derive(Debug)]
pub(super) struct Operator(pub(super) Caller);

/// An enrolled host with a live host token, and within its rate. A person's session is none.
#[derive(Debug)]
pub(super) struct HostCaller {
    /// Which host.
    pub(super) proven: HostProven,
    token: SecretString,
}

impl HostCaller {
    /// The token alone, to look again later.
    pub(super) fn into_token(self) -> SecretString {
        self.token
    }
}

impl FromRequestParts<App> for HostCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Held::of(&parts.extensions).look(app)?;
        let found = match bearer(parts) {
            Ok(token) => match app.service.host_caller(token.expose_secret()).await {
                Ok(proven) => Ok((proven, token)),
                Err(Failure::NotLoggedIn) => Err(Problem::no_host_token("there is no such host token, or it is over")),
                Err(why) => Err(Problem::from(why)),
            },
            Err(why) => Err(Problem::no_host_token(why)),
        };
        match found {
            Ok((proven, token)) => {
                tracing::Span::current().record("person", format!("host:{}", proven.host()));
                app.limits.host(proven.host())?;
                Held::of(&parts.extensions).known(app, Who::Host(proven.host().clone())).await?;
                Ok(Self { proven, token })
            }
            Err(problem) => Err(app.limits.address(address(parts)).err().unwrap_or(problem)),
        }
    }
}

/// Whoever calls, within the rate of their address.
#[derive(Debug)]
pub(super) struct Anyone {
    /// From where.
    pub(super) address: IpAddr,
}

/// The other end of the connection, put into each request by the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

impl Caller {
    /// The session's token.
    pub(super) fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// The token alone, to look again later.
    pub(super) fn into_token(self) -> SecretString {
        self.token
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Held::of(&parts.extensions).look(app)?;
        let found = match bearer(parts) {
            Ok(token) => {
                app.service.caller(token.expose_secret()).await.map(|found| (found, token)).map_err(Problem::from)
            }
            Err(why) => Err(Problem::not_logged_in(why)),
        };
        match found {
            Ok(((proven, expires), token)) => {
                tracing::Span::current().record("person", proven.person().as_str());
                app.limits.person(proven.person())?;
                Held::of(&parts.extensions).known(app, Who::Person(proven.person().clone())).await?;
                Ok(Self { proven, expires, token })
            }
            // Guessing tokens is work for us and nothing for the guesser: it counts against their address.
            Err(problem) => Err(app.limits.address(address(parts)).err().unwrap_or(problem)),
        }
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, app).await?;
        app.service.check_may_apply(&caller.proven)?;
        Ok(Self(caller))
    }
}

impl FromRequestParts<App> for Anyone {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let address = address(parts);
        app.limits.address(address)?;
        // What anybody may look at is answered out of memory, whatever else goes on; a body that comes waits its turn.
        Held::of(&parts.extensions).name(Who::Address(network(address)));
        Ok(Self { address })
    }
}

/// The caller's address; all without one share the unspecified address (a router without a server, in tests).
fn address(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip().to_canonical())
}

/// The one bearer token (RFC 6750 section 2.1); two headers are refused, as two readers could take different ones.
fn bearer(parts: &Parts) -> Result<SecretString, &'static str> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let header = headers.next().ok_or("there is no Authorization header")?;
    if headers.next().is_some() {
        return Err("there are two Authorization headers");
    }
    let text = header.to_str().map_err(|_not_text| "the Authorization header is not text")?;
    let (scheme, token) = text.split_once(' ').ok_or("the Authorization header is not \"Bearer TOKEN\"")?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(SecretString::from(token))
    } else {
        Err("the Authorization header is not \"Bearer TOKEN\"")
    }
}
