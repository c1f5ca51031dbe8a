//! The hosts that policy knows, what a person may ask for there, and what operators see of enrolled ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Failure, Outcome, Service};
use crate::identity::Proven;
use crate::inventory::EnrolledHost;
use crate::inventory::check_in::{Seen, TrustState};
use crate::name::{HostName, TagKey, TagValue};
use crate::policy::{Host, Way};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// The most hosts of one answer that says what may be asked for. Our choice: more than anybody reads, and a bounded piece of work.
pub const WAYS_HOSTS_MAX: usize = 1000;

/// Which hosts.
#[derive(Clone, Debug, Default)]
pub struct HostFilter {
    /// Only those with this in their name or in a tag (`key=value`).
    pub text: Option<String>,
    /// Only those with this tag.
    pub tag: Option<(TagKey, TagValue)>,
    /// Whether to say what the caller may ask for.
    pub ways: bool,
}

/// A host as somebody sees it.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The host.
    pub host: Host,
    /// The ways in that the caller may ask for now, if that was wanted.
    pub ways: Option<Vec<Way>>,
    /// Whether it is enrolled.
    pub is_enrolled: bool,
    /// What it told last, for those who may read everything.
    pub seen: Option<SeenView>,
}

/// What a host told last, as somebody sees it now.
#[derive(Clone, Debug)]
pub struct SeenView {
    /// What it told.
    pub seen: Seen,
    /// Whether that is too long ago.
    pub is_stale: bool,
    /// Whether two machines tell it, by turns.
    pub is_doubled: bool,
    /// How far it follows the trust bundle.
    pub trust: TrustState,
}

/// An enrolled host as operators and auditors see it.
#[derive(Clone, Debug)]
pub struct EnrolledView {
    /// The host.
    pub host: EnrolledHost,
    /// What it told last.
    pub seen: Option<SeenView>,
}

/// The hosts that fit, by name.
#[derive(Clone, Debug)]
pub struct HostList {
    /// The hosts.
    pub hosts: Vec<HostView>,
    /// Whether there are more, which the limit cut off.
    pub is_cut: bool,
}

impl Service {
    /// Lists hosts by name; with their ways at most [`WAYS_HOSTS_MAX`] of them.
    ///
    /// # Errors
    /// `Internal` when the work was cancelled.
    pub async fn hosts(&self, by: &Proven, filter: HostFilter) -> Outcome<HostList> {
        let (_, policy) = self.policy_now();
        let (person, now) = (by.person().clone(), self.clock.now());
        let inventory = self.inventory();
        let seen = if Self::reads_all(by, &policy) { self.seen_views(now) } else { BTreeMap::new() };
        // A large policy takes its time: off the threads that serve others.
        let work = move || {
            let policy = Arc::clone(&policy);
            let view = |host: &Host, ways: Option<Vec<Way>>| HostView {
                host: host.clone(),
                ways,
                is_enrolled: inventory.host(&host.name).is_some_and(|known| known.is_active),
                seen: seen.get(&host.name).cloned(),
            };
            let mut hosts: Vec<&Host> = policy.hosts().filter(|host| filter.fits(host)).collect();
            if !filter.ways {
                let hosts = hosts.into_iter().map(|host| view(host, None)).collect();
                return HostList { hosts, is_cut: false };
            }
            let is_cut = hosts.len() > WAYS_HOSTS_MAX;
            hosts.truncate(WAYS_HOSTS_MAX);
            let ways = policy.ways(&person, &hosts, now);
            let hosts = hosts.into_iter().zip(ways).map(|(host, ways)| view(host, Some(ways))).collect();
            HostList { hosts, is_cut }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal("listing hosts", error))
    }

    /// The host CA keys as lines for ssh's known hosts, one for each name of each enrolled host: they vouch for these and no others.
    /// During a rotation these are two keys.
    #[must_use]
    pub fn known_hosts(&self) -> String {
        let (inventory, in_use) = (self.inventory(), self.keys.now());
        let cas: Vec<String> = in_use.ring.trusted_by_clients().map(PublicKey::to_openssh).collect();
        let names = inventory.active().flat_map(|host| [&host.name].into_iter().chain(&host.names));
        names.flat_map(|name| cas.iter().map(move |ca| format!("@cert-authority {name} {ca}\n"))).collect()
    }

    /// One enrolled host, also a retired one; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`, `NotFound`.
    pub fn enrolled_host(&self, by: &Proven, name: &HostName) -> Outcome<EnrolledView> {
        self.check_reader(by, "read about enrolled hosts")?;
        let host = self.inventory().host(name).cloned().ok_or(Failure::NotFound("enrolled host"))?;
        let seen = self.seen(name).map(|seen| seen_view(seen, &self.bundle_keys(&host), self.clock.now()));
        Ok(EnrolledView { host, seen })
    }

    /// All enrolled hosts, also retired ones, by name; operators and auditors only.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn enrolled_hosts(&self, by: &Proven) -> Outcome<Vec<EnrolledView>> {
        self.check_reader(by, "read about enrolled hosts")?;
        let mut seen = self.seen_views(self.clock.now());
        let inventory = self.inventory();
        let view = |host: &EnrolledHost| EnrolledView { host: host.clone(), seen: seen.remove(&host.name) };
        Ok(inventory.hosts().map(view).collect())
    }

    fn seen_views(&self, now: Timestamp) -> BTreeMap<HostName, SeenView> {
        let inventory = self.inventory();
        let view = |(name, seen): (HostName, Seen)| {
            let bundle = inventory.host(&name).map(|host| self.bundle_keys(host)).unwrap_or_default();
            (name, seen_view(seen, &bundle, now))
        };
        self.hosts.seen.all().into_iter().map(view).collect()
    }
}

fn seen_view(seen: Seen, bundle: &BTreeSet<Fingerprint>, now: Timestamp) -> SeenView {
    let is_doubled = seen.check_in.runs.is_doubled(now);
    SeenView { is_stale: seen.is_stale(now), is_doubled, trust: seen.check_in.trust(bundle), seen }
}

impl HostFilter {
    fn fits(&self, host: &Host) -> bool {
        let has_text = |text: &str| {
            host.name.as_str().contains(text)
                || host.tags.iter().any(|(key, value)| format!("{key}={value}").contains(text))
        };
        self.text.as_deref().is_none_or(has_text)
            && self.tag.as_ref().is_none_or(|(key, value)| host.tags.get(key) == Some(value))
    }
}
