//! Which CA's key could open which host: whether a certificate was by the key of its hosts' CA, and whether a host that went over to
//! another CA could still be reached.
//!
//! The rules of `inventory::moves` and `access::permit` stated a second time, over entries. Of a host that is not enrolled the log knows
//! the CA only by what was asked: its tags are in the policy.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{HostCa, Hosts};
use super::keys::Keys;
use super::request::Request;
use super::{Wrong, ensure};
use crate::audit::entry::Entry;
use crate::audit::host_event::HostEvent;
use crate::name::{CaName, HostName, RequestId};
use crate::ssh::Fingerprint;

/// Who could sign what at an entry.
#[derive(Clone, Copy)]
pub(super) struct SignsFor<'r> {
    pub(super) keys: &'r Keys,
    pub(super) hosts: &'r Hosts,
}

impl SignsFor<'_> {
    /// A certificate for these hosts, asked for as one of this CA.
    pub(super) fn check(&self, key: Fingerprint, ca: &CaName, hosts: &BTreeSet<HostName>) -> Result<(), Wrong> {
        ensure(self.keys.signs_at_all(key), || {
            format!("the CA key {key} was not announced by a start of the service")
        })?;
        ensure(self.keys.signs_for(ca, key), || format!("the CA key {key} is not the one that signs for CA {ca}"))?;
        for host in hosts {
            let Some(known) = self.hosts.ca_of(host) else { continue };
            ensure(known.ca == ca, || format!("host {host} was of CA {}, not of CA {ca}", known.ca))?;
            ensure(!known.waits, || format!("host {host} had not proven that it trusts a key of CA {ca}"))?;
        }
        Ok(())
    }

    /// A host goes over to another CA, or has got further with it.
    pub(super) fn check_move(
        &self,
        event: &HostEvent,
        open: &BTreeMap<RequestId, Box<Request>>,
        entry: &Entry,
    ) -> Result<(), Wrong> {
        let HostEvent::HostMoved { host, ca, keeps, waits } = event else { return Ok(()) };
        let Some(before) = self.hosts.ca_of(host) else { return Ok(()) };
        let HostCa { proven, is_new_at, .. } = before;
        let is_new = is_new_at.checked_add(1) == Some(entry.index);
        if before.ca != ca {
            ensure(*waits || is_new, || format!("host {host} did not have to prove that it trusts a key of CA {ca}"))?;
        } else if before.waits && !waits {
            let has_proven = proven.iter().any(|key| self.keys.signs_for(ca, *key));
            ensure(has_proven, || format!("host {host} did not prove that it trusts the key of CA {ca}"))?;
        }
        let could_keep = |key: &Fingerprint| before.keeps.contains(key) || self.keys.is_of(before.ca, *key);
        ensure(keeps.iter().all(could_keep), || format!("host {host} trusts a key that it did not trust before"))?;
        let is_kept = |key: Fingerprint| keeps.contains(&key) || self.keys.is_of(ca, key);
        let its = open.iter().filter(|(_, request)| !is_new && request.is_for(host)).map(|(id, _)| *id);
        let lost = its.flat_map(|id| self.keys.lasting_of(id, entry.at)).find(|key| !is_kept(*key));
        match lost.filter(|key| self.keys.is_trusted(*key)) {
            Some(key) => Err(format!("host {host} forgets {key}, and a certificate for it by that key lasts").into()),
            None => Ok(()),
        }
    }
}
