//! What the entries mean together: replays the log and says where an entry contradicts those before it.
//!
//! What for: the tree proves that nobody changed the log since a checkpoint; this shows that what was written makes sense:
//! no certificate without its grant, no window but the granted one, no approval by the asker (P1, P3, P4, P5); and that each
//! signed approval was signed as what the log says it was.
//!
//! What not: no checkpoints and no tree (`verify`); not whose key it is that signed an approval (`approvals`); no policy: whether an approver was in the right group is in the policy text of
//! the version that the entry names, which the log knows only by its hash.
//!
//! *Why not run `access::step` again?* The log does not hold the policy, and a check that shares its code with what it
//! checks would share its mistakes. These are the same rules stated a second time, over events.
//!
//! Memory: a few hundred bytes for each request that is open at one time, eight for each that is over.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod cas;
mod host;
mod keys;
pub(super) mod loss;
mod request;

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use self::cas::SignsFor;
use self::host::Hosts;
use self::keys::Keys;
use self::loss::Losses;
use self::request::Request;
use super::entry::Entry;
use super::event::Event;
use super::export::FindingKind;
use super::host_event::HostEvent;
use crate::name::{PolicyVersion, RequestId, Serial};
use crate::ssh::known::KnownKeys;

/// What is known after the entries so far.
#[derive(Debug, Default)]
pub(in crate::audit) struct Replay {
    open: BTreeMap<RequestId, Box<Request>>,
    over: BTreeSet<RequestId>,
    /// To be signed, without outcome.
    unsigned: BTreeMap<Serial, RequestId>,
    keys: Keys,
    policy: u32,
    hosts: Hosts,
    /// Keys of certificates, so that each is judged once.
    known: KnownKeys,
    pub(super) losses: Losses,
    pub(super) to_be_signed: u64,
}

/// What is wrong with an entry, as a sentence.
#[derive(Debug)]
pub(in crate::audit) struct Wrong {
    pub(in crate::audit) kind: FindingKind,
    pub(in crate::audit) what: String,
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self { kind: FindingKind::Meaning, what }
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(otherwise().into()) }
}

impl Replay {
    /// Takes the next entry; an error says what it contradicts. What can be taken up of a wrong entry is, so that one wrong
    /// entry does not make all later ones look wrong.
    pub(super) fn take(&mut self, entry: Entry) -> Result<(), Wrong> {
        let last = self.policy;
        let in_force = policy_of(&entry.event).is_none_or(|policy| policy.0 == last && last > 0);
        // What is lost says nothing of its own entry, and the other way round.
        let given_up = if in_force { self.losses.take(&entry, || self.open.keys().next()) } else { Ok(()) };
        let taken = self.take_event(entry);
        ensure(in_force, || format!("it rests on a policy that was not in force (the last applied was {last})"))?;
        given_up?;
        taken
    }

    fn take_event(&mut self, entry: Entry) -> Result<(), Wrong> {
        match (&entry.event, entry.event.request()) {
            (Event::Asked { .. }, Some(id)) => self.take_asked(id, entry.event),
            (Event::Host(event), _) => self.take_host(event, &entry),
            (_, Some(id)) => self.take_about(id, &entry),
            (_, None) => self.take_general(&entry),
        }
    }

    /// Certificates that were about to be signed and have no outcome: perhaps handed out, perhaps not.
    pub(super) fn without_outcome(&self) -> Vec<Serial> {
        self.unsigned.keys().copied().chain(self.hosts.without_outcome()).collect()
    }

    /// A login is reported when the host can, also after its request is over.
    fn take_host(&mut self, event: &HostEvent, entry: &Entry) -> Result<(), Wrong> {
        // A move is judged by what was so before it.
        let now = SignsFor { keys: &self.keys, hosts: &self.hosts };
        let moved = now.check_move(event, &self.open, entry);
        let taken = self.hosts.take(event, entry, &mut self.known).and(moved).and_then(|()| {
            if let HostEvent::HostCertificateToBeSigned { ca, .. } = event {
                return self.keys.check_vouches(*ca);
            }
            let HostEvent::CheckCertificateToBeSigned { host, ca, .. } = event else { return Ok(()) };
            self.keys.check_trusted(*ca, self.hosts.ca_of(host))
        });
        let is_known = event.request().is_none_or(|id| self.open.contains_key(&id) || self.over.contains(&id));
        ensure(is_known, || "it names a request that was never asked for".to_owned())?;
        taken
    }

    fn take_general(&mut self, entry: &Entry) -> Result<(), Wrong> {
        match &entry.event {
            Event::LogStarted { .. } => ensure(entry.index == 0, || "the log starts a second time".to_owned()),
            Event::ServiceStarted { .. } => self.keys.started(entry),
            Event::CaKeysChanged { .. } => self.keys.changed(entry),
            Event::CaStepProposed { .. } => self.keys.proposed(entry),
            Event::PolicyApplied { version, .. } => {
                let last = std::mem::replace(&mut self.policy, version.0);
                let follows = last.checked_add(1) == Some(version.0);
                ensure(follows, || format!("policy {version} follows policy {last}"))
            }
            Event::LoggedIn { .. }
            | Event::BrowserSignedIn { .. }
            | Event::LoggedOut { .. }
            | Event::Refused { .. }
            | Event::Asked { .. }
            | Event::Narrowed { .. }
            | Event::Approved { .. }
            | Event::Granted { .. }
            | Event::Denied { .. }
            | Event::Withdrawn { .. }
            | Event::Lapsed { .. }
            | Event::CertificateToBeSigned { .. }
            | Event::CertificateSigned { .. }
            | Event::CertificateRefused { .. }
            | Event::ExtensionAsked { .. }
            | Event::Ended { .. }
            | Event::Expired { .. }
            | Event::EntryLost { .. }
            | Event::LogRecovered { .. }
            | Event::Host(_) => Ok(()),
        }
    }

    fn take_asked(&mut self, id: RequestId, event: Event) -> Result<(), Wrong> {
        let Some(request) = Request::ask(event) else { return Ok(()) };
        let is_something = request.is_something();
        let is_known = self.over.contains(&id);
        match self.open.entry(id) {
            Slot::Vacant(slot) if !is_known => slot.insert(Box::new(request)),
            Slot::Vacant(_) | Slot::Occupied(_) => return Err(format!("{id} was asked for before").into()),
        };
        ensure(is_something, || "nothing was asked for".to_owned())
    }

    fn take_about(&mut self, id: RequestId, entry: &Entry) -> Result<(), Wrong> {
        if let Event::CertificateToBeSigned { serial, ca, window, .. } = &entry.event {
            self.keys.signing(id, *ca, *window);
            self.to_be_signed = self.to_be_signed.saturating_add(1);
            self.unsigned.insert(*serial, id);
        }
        if let Event::CertificateSigned { serial, .. } = &entry.event {
            // It may follow the request's end: the outcome is written after the signature, whatever happened meanwhile.
            let of = self.unsigned.remove(serial);
            return ensure(of == Some(id), || {
                format!("certificate {serial} of {id} was not about to be signed, or was signed before")
            });
        }
        let Some(request) = self.open.get_mut(&id) else {
            let is_over = self.over.contains(&id);
            let refused = matches!(entry.event, Event::CertificateRefused { .. });
            // A refusal changes nothing, so it may be written after what ended the request.
            return ensure(
                refused && is_over,
                || if is_over { format!("{id} was over before") } else { never_asked(id) },
            );
        };
        let cas = SignsFor { keys: &self.keys, hosts: &self.hosts };
        let result = request.take(id, entry, cas, &mut self.known);
        if ends(&entry.event) {
            self.open.remove(&id);
            self.keys.over(id);
            self.over.insert(id);
        }
        result
    }
}

/// Whether nothing can follow for the request.
const fn ends(event: &Event) -> bool {
    match event {
        Event::Denied { extension, .. } | Event::Withdrawn { extension, .. } | Event::Lapsed { extension, .. } => {
            !*extension
        }
        Event::Ended { .. } | Event::Expired { .. } => true,
        Event::LogStarted { .. }
        | Event::ServiceStarted { .. }
        | Event::CaKeysChanged { .. }
        | Event::CaStepProposed { .. }
        | Event::PolicyApplied { .. }
        | Event::LoggedIn { .. }
        | Event::BrowserSignedIn { .. }
        | Event::LoggedOut { .. }
        | Event::Refused { .. }
        | Event::Asked { .. }
        | Event::Narrowed { .. }
        | Event::Approved { .. }
        | Event::Granted { .. }
        | Event::CertificateToBeSigned { .. }
        | Event::CertificateSigned { .. }
        | Event::CertificateRefused { .. }
        | Event::ExtensionAsked { .. }
        | Event::EntryLost { .. }
        | Event::LogRecovered { .. }
        | Event::Host(_) => false,
    }
}

fn never_asked(id: RequestId) -> String {
    format!("{id} was never asked for")
}

/// The policy version that an event rests on.
pub(in crate::audit) const fn policy_of(event: &Event) -> Option<PolicyVersion> {
    match event {
        Event::Refused { policy, .. }
        | Event::Asked { policy, .. }
        | Event::Approved { policy, .. }
        | Event::Granted { policy, .. }
        | Event::CertificateToBeSigned { policy, .. }
        | Event::CertificateRefused { policy, .. }
        | Event::ExtensionAsked { policy, .. } => Some(*policy),
        Event::LogStarted { .. }
        | Event::ServiceStarted { .. }
        | Event::CaKeysChanged { .. }
        | Event::CaStepProposed { .. }
        | Event::PolicyApplied { .. }
        | Event::LoggedIn { .. }
        | Event::BrowserSignedIn { .. }
        | Event::LoggedOut { .. }
        | Event::Narrowed { .. }
        | Event::Denied { .. }
        | Event::Withdrawn { .. }
        | Event::Lapsed { .. }
        | Event::CertificateSigned { .. }
        | Event::Ended { .. }
        | Event::Expired { .. }
        | Event::EntryLost { .. }
        | Event::LogRecovered { .. }
        | Event::Host(_) => None,
    }
}
