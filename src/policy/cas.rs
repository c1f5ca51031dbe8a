//! Which user CA a host is of: an ordered list of tags, the first one that the host has decides.
//!
//! What for: the keys are the configuration's; which hosts one of them opens is the policy's, so that a version of it says so and somebody
//! has looked at it. A host without any of the tags is of the default CA.
//!
//! What not: whether the service has such a CA (`service`), and what a host trusts while it goes over to another one (`inventory`).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use super::{Host, Policy};
use crate::name::{CaName, HostName, Tag};

/// Hosts with this tag are of this CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CaRule {
    pub(super) tag: Tag,
    pub(super) ca: CaName,
}

impl Policy {
    /// The CA whose keys this host trusts.
    #[must_use]
    pub fn ca_of(&self, host: &Host) -> CaName {
        let has = |tag: &Tag| host.tags.get(&tag.key) == Some(&tag.value);
        self.cas.iter().find(|rule| has(&rule.tag)).map(|rule| rule.ca.clone()).unwrap_or_default()
    }

    /// The CAs that it names.
    #[must_use]
    pub fn cas(&self) -> BTreeSet<CaName> {
        self.cas.iter().map(|rule| rule.ca.clone()).collect()
    }
}

/// The one CA of these hosts; or what to do when there are more.
pub(super) fn one_ca<'h>(policy: &Policy, hosts: impl Iterator<Item = &'h Host>) -> Result<CaName, String> {
    let of: Vec<(CaName, &HostName)> = hosts.map(|host| (policy.ca_of(host), &host.name)).collect();
    let cas: BTreeSet<&CaName> = of.iter().map(|(ca, _)| ca).collect();
    match (cas.len(), cas.first()) {
        (0, _) | (_, None) => Ok(CaName::DEFAULT),
        (1, Some(ca)) => Ok((*ca).clone()),
        _ => {
            let listed: Vec<String> = cas
                .iter()
                .map(|ca| {
                    let its = of.iter().filter(|(of, _)| of == *ca).map(|(_, host)| *host);
                    format!("{} of CA {ca}", super::trace::listed(its))
                })
                .collect();
            Err(format!(
                "these hosts trust the keys of different CAs: {}; one certificate opens hosts of one CA, so ask once for each",
                listed.join("; ")
            ))
        }
    }
}
