//! The hosts that policy knows, and what a person may ask for there.

use std::sync::Arc;

use super::{Failure, Outcome, Service};
use crate::identity::Proven;
use crate::name::{TagKey, TagValue};
use crate::policy::{Host, Way};

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
        // A large policy takes its time: off the threads that serve others.
        let work = move || {
            let policy = Arc::clone(&policy);
            let mut hosts: Vec<&Host> = policy.hosts().filter(|host| filter.fits(host)).collect();
            if !filter.ways {
                let hosts = hosts.into_iter().map(|host| HostView { host: host.clone(), ways: None }).collect();
                return HostList { hosts, is_cut: false };
            }
            let is_cut = hosts.len() > WAYS_HOSTS_MAX;
            hosts.truncate(WAYS_HOSTS_MAX);
            let ways = policy.ways(&person, &hosts, now);
            let view = |(host, ways): (&Host, Vec<Way>)| HostView { host: host.clone(), ways: Some(ways) };
            HostList { hosts: hosts.into_iter().zip(ways).map(view).collect(), is_cut }
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal("listing hosts", error))
    }
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
