//! Who sees which requests, and how they look to them.
//!
//! A request is seen by its asker, those who may decide it by the policy in force, those who did decide it, operators
//! and auditors. To everybody else it does not exist: an id that is absent and one that is not theirs get the same
//! answer.

use super::access::{ListFilter, View};
use super::tick::tick_step;
use super::{Failure, Outcome, Service};
use crate::access::{AccessRequest, State};
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::identity::Proven;
use crate::name::{PersonName, RequestId, RequestPrefix};
use crate::policy::{Approvals, Policy, Quorum};
use crate::ssh::Fingerprint;
use crate::store::{RequestFilter, Stored};
use crate::time::Timestamp;

/// How many requests one answer lists unless told.
const LIST_DEFAULT: usize = 100;

/// How many requests one call reads at most.
const LIST_MAX: usize = 1000;

impl Service {
    /// One request, if the caller may see it: its asker, those who may decide it, those who did, operators, auditors.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`.
    pub async fn view(&self, by: &Proven, id: &RequestPrefix) -> Outcome<View> {
        let (_, policy) = self.policy_now();
        let now = self.clock.now();
        let stored = self.find(by, id, &policy).await?;
        Ok(Self::view_of(settled(stored, now), by, &policy, now))
    }

    /// Requests the caller may see, newest first. Looks at the newest 1000 that fit the filter (for the inbox: that
    /// wait for anybody): who wants older ones narrows it.
    ///
    /// # Errors
    /// Store failures.
    pub async fn list(&self, by: &Proven, filter: ListFilter) -> Outcome<Vec<View>> {
        let (_, policy) = self.policy_now();
        let now = self.clock.now();
        let ListFilter { mine, inbox, states, host, person, since, limit } = filter;
        let asker = match (mine, person) {
            (false, person) => person,
            (true, None) => Some(by.person().clone()),
            (true, Some(person)) if person == *by.person() => Some(person),
            (true, Some(_)) => return Ok(Vec::new()),
        };
        let read = RequestFilter {
            asker,
            states: states.clone(),
            host,
            waits: inbox,
            since,
            limit: LIST_MAX,
            ..RequestFilter::default()
        };
        let fits = |view: &View| {
            (!inbox || view.may_decide) && (states.is_empty() || states.contains(view.request.parts().state.word()))
        };
        let views = self.store.requests(read).await?.into_iter();
        let views = views.map(|stored| settled(stored, now)).filter(|request| may_see(request, by, &policy, now));
        let views = views.map(|request| Self::view_of(request, by, &policy, now)).filter(fits);
        Ok(views.take(if limit == 0 { LIST_DEFAULT } else { limit.min(LIST_MAX) }).collect())
    }

    /// Log entries about one request that the caller may see.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn history(&self, by: &Proven, id: &RequestPrefix) -> Outcome<Vec<Entry>> {
        let (_, policy) = self.policy_now();
        let stored = self.find(by, id, &policy).await?;
        Ok(self.store.entries_of(stored.request.id()).await?)
    }

    /// The one request with this id or prefix that the caller may see.
    pub(super) async fn find(&self, by: &Proven, id: &RequestPrefix, policy: &Policy) -> Outcome<Stored> {
        let mut found = match RequestId::parse(id.as_str()) {
            Ok(id) => self.store.request(id).await?.into_iter().collect(),
            Err(_) => {
                let filter = RequestFilter { prefix: Some(id.clone()), limit: LIST_MAX, ..RequestFilter::default() };
                self.store.requests(filter).await?
            }
        };
        let now = self.clock.now();
        let is_cut = found.len() >= LIST_MAX;
        found.retain(|stored| may_see(&stored.request, by, policy, now));
        match (found.pop(), found.is_empty(), is_cut) {
            (Some(only), true, false) => Ok(only),
            (None, _, false) => self.absent(Failure::NotFound("request")).await,
            (_, _, true) => Err(Failure::Invalid(format!("{:?} is too short an id; give more digits", id.as_str()))),
            (Some(last), false, false) => {
                let ids = found.iter().chain([&last]).map(|stored| stored.request.id());
                Err(Failure::Ambiguous(ids.collect()))
            }
        }
    }

    /// The same, to be moved on: as it stands now, and only if the log bears it out.
    pub(super) async fn find_logged(&self, by: &Proven, id: &RequestPrefix, policy: &Policy) -> Outcome<Stored> {
        let id = match RequestId::parse(id.as_str()) {
            Ok(id) => id,
            Err(_) => self.find(by, id, policy).await?.request.id(),
        };
        let Some((stored, entries)) = self.store.logged(id).await? else {
            return self.absent(Failure::NotFound("request")).await;
        };
        if !may_see(&stored.request, by, policy, self.clock.now()) {
            return Err(Failure::NotFound("request"));
        }
        let events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
        match stored.request.check_logged(&events) {
            Ok(()) => Ok(stored),
            Err(why) => {
                let why = format!("{id}: {why}; somebody else wrote into the database");
                Err(Failure::internal("comparing a request with the log", why))
            }
        }
    }

    /// How a request looks to somebody who may see it.
    pub(super) fn view_of(request: AccessRequest, by: &Proven, policy: &Policy, now: Timestamp) -> View {
        let quorum = request.quorum(policy, now);
        let approvals = approvals(&request);
        let asker = &request.parts().asker;
        let mut eligible = quorum.as_ref().map(|q| q.eligible(asker, policy.directory())).unwrap_or_default();
        // Whose approval does not count any more, or would count for more if it were signed, can still help.
        let says_all = |person: &PersonName, given: Option<Fingerprint>| {
            let (quorum, directory) = (quorum.as_ref(), policy.directory());
            quorum.is_some_and(|q| q.counts(person, given, directory))
                && (given.is_some() || !quorum.is_some_and(|q| q.wants_signature_of(person, directory)))
        };
        eligible.retain(|person| approvals.get(person).is_none_or(|given| !says_all(person, *given)));
        let may_decide = eligible.contains(by.person());
        let shortage = quorum.as_ref().and_then(|q| q.shortage(asker, policy.directory()));
        View { request, eligible, quorum, shortage, may_decide }
    }
}

/// The request as it is at `now`, whether or not the passing of time has been saved yet.
pub(super) fn settled(stored: Stored, now: Timestamp) -> AccessRequest {
    match tick_step(stored.clone(), now) {
        Some((_, taken)) => taken.request,
        None => stored.request,
    }
}

/// Who has approved what waits.
fn approvals(request: &AccessRequest) -> Approvals {
    let parts = request.parts();
    match (&parts.state, &parts.extension) {
        (State::Pending { approvals, .. }, _) => approvals.clone(),
        (_, Some(extension)) => extension.approvals.clone(),
        (_, None) => Approvals::new(),
    }
}

/// Whether this person may see this request.
///
/// Who could decide it when it was asked, and would still be who policy then named, keeps seeing it after others
/// decided; who could only decide it by today's rules sees it while it waits.
fn may_see(request: &AccessRequest, by: &Proven, policy: &Policy, now: Timestamp) -> bool {
    let (person, parts) = (by.person(), request.parts());
    let is_eligible = |quorum: &Quorum| quorum.is_eligible(person, policy.directory());
    let has_decided = parts.grants.iter().any(|grant| grant.approvers.contains_key(person))
        || approvals(request).contains_key(person)
        || match &parts.state {
            State::Denied { by, .. } | State::Ended { by, .. } => by == person,
            _ => false,
        };
    parts.asker == *person
        || Service::reads_all(by, policy)
        || has_decided
        || parts.quorum.as_ref().is_some_and(is_eligible)
        || parts.extension.as_ref().is_some_and(|extension| is_eligible(&extension.quorum))
        || request.may_decide(person, policy, now)
}
