//! What an enrolled host must know: the trust bundle, its grants, its certificates.
//!
//! Hosts ask for it often and mostly nothing is new, so it is kept until something about the host changes or a window of it ends.
//! What is said of a grant is what the log bears out; a row that somebody else wrote counts as ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use super::inventory::HostChange;
use super::policy::sha256_hex;
use super::{Failure, Outcome, Service};
use crate::access::{AccessRequest, State};
use crate::audit::event::Event;
use crate::identity::host::HostProven;
use crate::inventory::EnrolledHost;
use crate::inventory::permit::principals_of;
use crate::keyring::Ca;
use crate::name::{Account, HostName, RequestId, Serial};
use crate::ssh::Fingerprint;
use crate::ssh::cert::Purpose;
use crate::time::Timestamp;

/// The most grants of one state: as many serials as a host's list of ended ones holds (`host::ended`), and what one answer of [`client`](crate::client)
/// takes. A host with more is told nothing, and that is an error in the service's journal: with a part of them it would open what was left out.
const GRANTS_MAX: usize = 100_000;

/// What a host must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState {
    /// Changes with anything else.
    pub etag: String,
    /// The host.
    pub host: EnrolledHost,
    /// Version of the trust bundle.
    pub bundle_version: u64,
    /// Its text. Ten thousand hosts are told the same one, so it is shared.
    pub bundle: Arc<str>,
    /// Of which user CA it is, signed by the log key.
    pub belongs: String,
    /// Grants for it whose window is not over, by serial.
    pub grants: Vec<HostGrant>,
    /// Its certificates that are in their window, by key.
    pub certificates: Vec<String>,
    /// The CA key that signs host certificates, if there is one.
    pub host_ca: Option<Fingerprint>,
    /// CA keys that were compromised: what was opened with them is to be closed.
    pub lost: BTreeSet<Fingerprint>,
}

/// A certificate that may open a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostGrant {
    /// The request.
    pub request: RequestId,
    /// The certificate's serial.
    pub serial: Serial,
    /// As which account.
    pub account: Account,
    /// The end of its window.
    pub until: Timestamp,
    /// Whether the request was ended before that.
    pub is_ended: bool,
}

/// What is kept of each host.
#[derive(Debug, Default)]
pub(super) struct States {
    kept: BTreeMap<HostName, Kept>,
    /// Grows with each change of all hosts.
    all: u64,
}

#[derive(Debug, Default)]
struct Kept {
    /// Grows with each change of this host: what was looked up before is not kept after it.
    changes: u64,
    state: Option<(Arc<HostState>, Timestamp)>,
}

impl States {
    /// Forgets what has changed.
    pub(super) fn forget(&mut self, change: &HostChange) {
        match change {
            HostChange::One(host) => {
                let kept = self.kept.entry(host.clone()).or_default();
                kept.changes = kept.changes.wrapping_add(1);
                kept.state = None;
            }
            HostChange::All => {
                self.all = self.all.wrapping_add(1);
                self.kept.values_mut().for_each(|kept| kept.state = None);
            }
        }
    }

    /// How often this host has changed.
    fn mark(&mut self, host: &HostName) -> (u64, u64) {
        (self.all, self.kept.entry(host.clone()).or_default().changes)
    }
}

impl Service {
    /// What this host must know now.
    ///
    /// # Errors
    /// Store failures.
    pub async fn host_state(&self, by: &HostProven) -> Outcome<Arc<HostState>> {
        self.settle_policy().await?;
        let (host, now) = (by.host(), self.clock.now());
        let version = self.inventory().host(host).map(|host| self.bundle_version(host));
        let mark = {
            let mut states = self.hosts.states.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = states.kept.get(host).and_then(|kept| kept.state.as_ref());
            let holds =
                |(state, until): &&(Arc<HostState>, Timestamp)| now < *until && Some(state.bundle_version) == version;
            if let Some((state, _)) = kept.filter(holds) {
                return Ok(Arc::clone(state));
            }
            states.mark(host)
        };
        let (state, until) = self.look_up_state(host, now).await?;
        let state = Arc::new(state);
        let mut states = self.hosts.states.lock().unwrap_or_else(PoisonError::into_inner);
        if states.mark(host) == mark
            && let Some(kept) = states.kept.get_mut(host)
        {
            kept.state = Some((Arc::clone(&state), until));
        }
        Ok(state)
    }

    /// The state, and until when it holds if nothing changes.
    async fn look_up_state(&self, name: &HostName, now: Timestamp) -> Outcome<(HostState, Timestamp)> {
        let inventory = self.inventory();
        let host = inventory.host(name).cloned().ok_or(Failure::NotLoggedIn)?;
        let in_use = self.keys.now();
        let lost = in_use.lost();
        let grants = self.grants_of(name, now, &lost).await?;
        let ca = in_use.ring.active(&Ca::Host).map(crate::ssh::PublicKey::fingerprint);
        let mut certificates = Vec::new();
        let mut until = grants.iter().map(|grant| grant.until).min();
        for certificate in self.store.host_certificates(name.clone()).await? {
            let tbs = certificate.tbs();
            let end = tbs.fields().window.end();
            let is_ours = Some(certificate.ca_fingerprint()) == ca && tbs.purpose() == Purpose::Host;
            let is_its = tbs.fields().key_id.host() == Some(name) && host.keys.contains(tbs.subject());
            let has_its_names = tbs.fields().principals == principals_of(&host);
            if host.is_active && is_ours && is_its && has_its_names && now < end {
                until = Some(until.map_or(end, |until| until.min(end)));
                certificates.push(certificate.to_openssh());
            }
        }
        let bundle = self.bundle_of_host(&in_use, &host)?;
        let belongs = self.belonging(&host);
        let mut state = HostState {
            etag: String::new(),
            host,
            bundle_version: bundle.version,
            bundle: bundle.text,
            belongs,
            grants,
            certificates,
            host_ca: ca,
            lost,
        };
        // Conflicts are no news for the host; everything else that it is told is in here.
        state.host.conflicts = Vec::new();
        state.etag = sha256_hex(format!("{state:?}").as_bytes()).chars().take(32).collect();
        let hour = crate::time::Lifetime::minutes(60);
        Ok((state, until.unwrap_or_else(|| now.plus(hour).unwrap_or(now))))
    }

    /// The grants for this host whose window is not over.
    async fn grants_of(
        &self,
        host: &HostName,
        now: Timestamp,
        lost: &BTreeSet<Fingerprint>,
    ) -> Outcome<Vec<HostGrant>> {
        let mut grants = Vec::new();
        for id in self.store.certified_for(host.clone(), now).await? {
            let Some((stored, entries)) = self.store.logged(id).await? else { continue };
            let events: Vec<Event> = entries.into_iter().map(|entry| entry.event).collect();
            let is_forged = stored.request.check_logged(&events).is_err();
            if is_forged {
                tracing::error!(request = %id, "a request is not what the log says of it; hosts are told that it is over");
            }
            grants.extend(grants_in(&stored.request, host, now, (is_forged, lost)));
        }
        if grants.len() > GRANTS_MAX {
            let why = format!("{} grants of {host} in their window; a host takes {GRANTS_MAX} at most", grants.len());
            return Err(Failure::internal("telling a host its grants", why));
        }
        grants.sort_by_key(|grant| grant.serial);
        Ok(grants)
    }
}

/// The certificates of one request that may open this host.
fn grants_in(
    request: &AccessRequest,
    host: &HostName,
    now: Timestamp,
    (is_forged, lost): (bool, &BTreeSet<Fingerprint>),
) -> Vec<HostGrant> {
    let parts = request.parts();
    if !parts.terms.hosts.contains_key(host) {
        return Vec::new();
    }
    let is_ended = is_forged || matches!(parts.state, State::Ended { .. });
    let grant = |grant: &crate::access::Grant| {
        let certified = grant.certificate.as_ref().filter(|_| now < grant.window.end())?;
        Some(HostGrant {
            request: parts.id,
            serial: certified.serial,
            account: parts.terms.account.clone(),
            until: grant.window.end(),
            is_ended: is_ended || lost.contains(&certified.tbs.ca().fingerprint()),
        })
    };
    parts.grants.iter().filter_map(grant).collect()
}
