//! Whether a stored request is what the log says of it.
//!
//! What for: before anything is decided or signed on the word of a row, the log must bear it out: what was asked, who
//! approved and with which key, what was granted, which bytes were to be signed, and that it is not over. Whoever can
//! write the database, but adds nothing to the log, gets nothing by it (S1, P2).
//!
//! What not: the entries are proven to be in the log by the store. What no entry holds is not compared: who had to agree
//! when it was asked, and until when it waits; neither lets anybody in whom the policy in force does not.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::{Parts, State, digest};
use crate::audit::event::Event;
use crate::name::{Digest, PersonName, Serial};
use crate::policy::Approvals;
use crate::time::Window;

/// What the log says of one request.
#[derive(Default)]
struct Told<'e> {
    /// The digest of the request itself, as narrowed.
    request: Option<Digest>,
    /// What waits, and who has approved it, with the key that signed.
    waiting: Option<(Digest, Approvals)>,
    granted: Vec<(Window, Approvals, Digest)>,
    certified: Vec<(Serial, &'e [u8])>,
    is_over: bool,
}

/// Checks these parts against all events about the request, in their order.
pub(super) fn check(parts: &Parts, events: &[Event]) -> Result<(), &'static str> {
    let mut told = Told::default();
    events.iter().for_each(|event| told.take(event));
    let rules = [
        (told.request == Some(digest::of_request(parts)), "the log tells of another request"),
        (told.is_over == is_over(&parts.state), "the log says otherwise whether it is over"),
        (told.granted == granted(parts), "the log tells of other grants"),
        (told.certified == certified(parts), "the log holds other bytes to be signed"),
        (told.is_over || told.waiting == waiting(parts), "the log tells of other approvals"),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, wrong)| Err(wrong))
}

const fn is_over(state: &State) -> bool {
    match state {
        State::Pending { .. } | State::Approved | State::Issued => false,
        State::Denied { .. } | State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => true,
    }
}

fn granted(parts: &Parts) -> Vec<(Window, Approvals, Digest)> {
    parts.grants.iter().map(|grant| (grant.window, grant.approvers.clone(), grant.digest)).collect()
}

fn certified(parts: &Parts) -> Vec<(Serial, &[u8])> {
    let certified = parts.grants.iter().filter_map(|grant| grant.certificate.as_ref());
    certified.map(|certified| (certified.serial, certified.tbs.bytes())).collect()
}

fn waiting(parts: &Parts) -> Option<(Digest, Approvals)> {
    let approvals = match (&parts.state, &parts.extension) {
        (State::Pending { approvals, .. }, _) => approvals,
        (_, Some(extension)) => &extension.approvals,
        (_, None) => return None,
    };
    Some((digest::digest(parts), approvals.clone()))
}

impl<'e> Told<'e> {
    fn take(&mut self, event: &'e Event) {
        match event {
            Event::Asked { digest, .. } => {
                self.request = Some(*digest);
                self.waiting = Some((*digest, Approvals::new()));
            }
            Event::Narrowed { digest, .. } => {
                // Behind the first grant only an extension waits, and its digest is its own.
                if self.granted.is_empty() {
                    self.request = Some(*digest);
                }
                self.waiting = Some((*digest, Approvals::new()));
            }
            Event::ExtensionAsked { digest, .. } => self.waiting = Some((*digest, Approvals::new())),
            Event::Approved { by, signature, .. } => {
                if let Some((_, approvals)) = &mut self.waiting {
                    approvals.insert(by.clone(), signature.as_ref().map(|signature| signature.key().fingerprint()));
                }
            }
            Event::Granted { window, approvers, digest, .. } => {
                let (_, mut approvals) = self.waiting.take().unwrap_or((*digest, Approvals::new()));
                let key = |name: &PersonName| (name.clone(), approvals.remove(name).flatten());
                self.granted.push((*window, approvers.iter().map(key).collect(), *digest));
            }
            Event::Denied { extension, .. } | Event::Withdrawn { extension, .. } | Event::Lapsed { extension, .. } => {
                self.waiting = None;
                self.is_over |= !extension;
            }
            Event::CertificateToBeSigned { serial, tbs, .. } => self.certified.push((*serial, tbs)),
            Event::Ended { .. } | Event::Expired { .. } => self.is_over = true,
            Event::LogStarted { .. }
            | Event::ServiceStarted { .. }
            | Event::CaKeysChanged { .. }
            | Event::CaStepProposed { .. }
            | Event::PolicyApplied { .. }
            | Event::LoggedIn { .. }
            | Event::BrowserSignedIn { .. }
            | Event::LoggedOut { .. }
            | Event::Refused { .. }
            | Event::CertificateSigned { .. }
            | Event::CertificateRefused { .. }
            | Event::EntryLost { .. }
            | Event::LogRecovered { .. }
            | Event::Host(_) => {}
        }
    }
}
