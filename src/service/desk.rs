//! What a page shows at one go, read under one policy: a person's desk, and a request with its story.
//!
//! What not: no rule of its own. Who sees what is `look`'s, as for every other reader.

use super::access::{ListFilter, View};
use super::{Outcome, Service};
use crate::audit::entry::Entry;
use crate::identity::Proven;
use crate::name::RequestPrefix;
use crate::time::Timestamp;

/// The states of what somebody holds or asks for.
const OPEN: [&str; 3] = ["pending", "approved", "issued"];

/// What waits for a person, and what they hold and ask for.
#[derive(Clone, Debug)]
pub struct Desk {
    /// What they may decide now, oldest first.
    pub inbox: Vec<View>,
    /// What they hold and ask for, newest first.
    pub mine: Vec<View>,
    /// When this was so.
    pub now: Timestamp,
}

/// A request with all that the log says of it.
#[derive(Clone, Debug)]
pub struct Story {
    /// The request.
    pub view: View,
    /// The log's entries about it, oldest first.
    pub entries: Vec<Entry>,
    /// Whether the viewer's approval would count only if they sign it.
    pub must_sign: bool,
    /// Whether the viewer operates the service, and may end it.
    pub is_operator: bool,
    /// When this was so.
    pub now: Timestamp,
}

impl Service {
    /// A person's desk.
    ///
    /// # Errors
    /// Store failures.
    pub async fn desk(&self, by: &Proven) -> Outcome<Desk> {
        let mut inbox = self.list(by, ListFilter { inbox: true, ..ListFilter::default() }).await?;
        inbox.reverse();
        let states = OPEN.into_iter().collect();
        let mine = self.list(by, ListFilter { mine: true, states, ..ListFilter::default() }).await?;
        Ok(Desk { inbox, mine, now: self.clock.now() })
    }

    /// One request with its story, if the caller may see it.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`.
    pub async fn story(&self, by: &Proven, id: &RequestPrefix) -> Outcome<Story> {
        let view = self.view(by, id).await?;
        let entries = self.store.entries_of(view.request.id()).await?;
        let (_, policy) = self.policy_now();
        let counts_unsigned = |quorum: &crate::policy::Quorum| quorum.counts(by.person(), None, policy.directory());
        let must_sign = view.may_decide && !view.quorum.as_ref().is_some_and(counts_unsigned);
        let is_operator = policy.is_operator(by.person());
        Ok(Story { view, entries, must_sign, is_operator, now: self.clock.now() })
    }
}
