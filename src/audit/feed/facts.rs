//! Who, where and why, in the same few words for every kind of entry; empty where an entry does not say.

use super::super::entry::Entry;
use super::super::event::Event;
use super::super::host_event::HostEvent;
use super::super::replay::policy_of;
use super::super::search::{hosts, people, serial_of};
use crate::identity::Actor;
use crate::name::Serial;

/// What an entry says of the things that every reader looks for. As it stands there: nothing is quoted or escaped yet.
pub(super) struct Facts {
    /// The entry's number.
    pub(super) number: String,
    /// Everybody whom it names, with blanks between; a part of the system if that did it.
    pub(super) who: String,
    /// The request.
    pub(super) request: String,
    /// All hosts, with blanks between.
    pub(super) hosts: String,
    /// As which account.
    pub(super) account: String,
    /// The certificate's serial.
    pub(super) serial: String,
    /// The policy version that it rests on.
    pub(super) policy: String,
    /// From where somebody came.
    pub(super) address: String,
    /// Why, in the words of whoever did it.
    pub(super) reason: String,
    /// All of it as a sentence.
    pub(super) text: String,
}

impl Facts {
    pub(super) fn of(entry: &Entry) -> Self {
        let event = &entry.event;
        Self {
            number: entry.index.to_string(),
            who: who(event),
            request: optional(event.request()),
            hosts: listed(hosts(event)),
            account: account(event).to_owned(),
            serial: optional(serial_of(event).map(Serial::number)),
            policy: optional(policy_of(event).map(|policy| policy.0)),
            address: address(event).to_owned(),
            reason: reason(event),
            text: event.sentence(),
        }
    }
}

fn optional(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Names, which have no blanks, with blanks between.
fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.join(" ")
}

fn who(event: &Event) -> String {
    if let Event::PolicyApplied { by: by @ Actor::System(_), .. } = event {
        by.to_string()
    } else if let Event::CaKeysChanged { by, proposer: None, .. } = event {
        by.to_string()
    } else {
        listed(people(event))
    }
}

/// A host's report has it as the host read it, which may be anything.
fn account(event: &Event) -> &str {
    if let Event::Refused { account, .. } | Event::Asked { account, .. } = event {
        account.as_str()
    } else if let Event::Host(
        HostEvent::SessionOpened { account, .. }
        | HostEvent::SessionEnded { account, .. }
        | HostEvent::SessionRefused { account, .. },
    ) = event
    {
        account
    } else {
        ""
    }
}

fn address(event: &Event) -> &str {
    if let Event::LoggedIn { address, .. }
    | Event::BrowserSignedIn { address, .. }
    | Event::Host(
        HostEvent::SessionOpened { from: address, .. } | HostEvent::SessionRefused { from: address, .. },
    ) = event
    {
        address
    } else {
        ""
    }
}

fn reason(event: &Event) -> String {
    if let Event::CaKeysChanged { why, .. } = event {
        return why.join("; ");
    }
    if let Event::Refused { reason, .. }
    | Event::Asked { reason, .. }
    | Event::Approved { comment: reason, .. }
    | Event::Denied { reason, .. }
    | Event::CertificateRefused { why: reason, .. }
    | Event::ExtensionAsked { reason, .. }
    | Event::Ended { reason, .. }
    | Event::CaStepProposed { reason, .. }
    | Event::LogRecovered { reason, .. }
    | Event::Host(
        HostEvent::HostRefused { why: reason, .. }
        | HostEvent::HostRetired { reason, .. }
        | HostEvent::SessionEnded { why: reason, .. }
        | HostEvent::SessionRefused { why: reason, .. }
        | HostEvent::SessionFlagged { why: reason, .. },
    ) = event
    {
        reason.clone()
    } else {
        String::new()
    }
}
