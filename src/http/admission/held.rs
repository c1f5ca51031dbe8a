//! What one exchange has of a queue: of which kind it is, whose turn it waits for, and its place.
//!
//! Made when an exchange begins and put into its request's extensions, where the extractors find it that know the caller
//! (`http/caller.rs`, `http/web/visitor.rs`) and read the body (`http/extract.rs`). The place ends with the answer, or when
//! the exchange is given up.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, Method};

use super::super::App;
use super::super::error::Problem;
use super::kind::{self, Kind};
use super::{Place, Who};

/// Who called last on a connection, for whom only the queue is looked at; in the extensions of each of its requests.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct LastCaller(Arc<Mutex<Option<Who>>>);

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::http) struct Held(Arc<Mutex<Standing>>);

#[derive(Debug)]
struct Standing {
    kind: Kind,
    awaits_body: bool,
    who: Option<Who>,
    last: Option<LastCaller>,
    place: Option<Place>,
}

impl Held {
    /// Of an exchange that has just begun.
    pub(in crate::http) fn new(method: &Method, route: &str, last: Option<LastCaller>) -> Self {
        let (kind, awaits_body) = (Kind::of(method, route), kind::takes_body(method, route));
        Self(Arc::new(Mutex::new(Standing { kind, awaits_body, who: None, last, place: None })))
    }

    /// Of the exchange that this request belongs to.
    pub(in crate::http) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self::new(&Method::POST, "none", None))
    }

    /// Whose turn it is to be, if it comes to that.
    pub(in crate::http) fn name(&self, who: Who) {
        self.lock().who = Some(who);
    }

    /// Before it is looked who calls: turns the call away if there would be no room for whoever called last.
    pub(in crate::http) fn look(&self, app: &App) -> Result<(), Problem> {
        let (kind, last) = {
            let standing = self.lock();
            (standing.kind, standing.last.clone())
        };
        let who = last.and_then(|last| last.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
        who.map_or(Ok(()), |who| app.lanes.look(kind, &who))
    }

    /// The caller is known; takes the place unless there is a body to wait for.
    pub(in crate::http) async fn known(&self, app: &App, who: Who) -> Result<(), Problem> {
        let awaits_body = {
            let mut standing = self.lock();
            if let Some(last) = &standing.last {
                *last.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(who.clone());
            }
            standing.who = Some(who);
            standing.awaits_body
        };
        if awaits_body { Ok(()) } else { self.arrived(app).await }
    }

    /// All that comes has arrived: takes the place.
    pub(in crate::http) async fn arrived(&self, app: &App) -> Result<(), Problem> {
        let (kind, who) = {
            let standing = self.lock();
            if standing.place.is_some() {
                return Ok(());
            }
            (standing.kind, standing.who.clone().unwrap_or(Who::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
        };
        let place = app.lanes.enter(kind, who).await?;
        self.lock().place = place;
        Ok(())
    }

    /// Gives the place back: the work is done, or there is only waiting left.
    pub(in crate::http) fn release(&self) {
        let place = self.lock().place.take();
        drop(place);
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromRequestParts<App> for Held {
    type Rejection = Problem;

    /// For a handler that goes on waiting when its work is done.
    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(Self::of(&parts.extensions))
    }
}
