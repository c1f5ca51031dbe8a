//! What else changed in a period: the policy, and which hosts there are.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::period::When;
use super::requests::{Mark, text};
use super::table::Csv;
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::name::{HostName, PolicyVersion};

/// A policy version, when it was applied.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) mark: Mark,
    pub(super) by: String,
    pub(super) sha256: String,
    tests: usize,
    changes: usize,
    when: When,
}

/// Policies and hosts.
#[derive(Debug, Default)]
pub(super) struct Changes {
    policies: BTreeMap<PolicyVersion, Applied>,
    hosts: Vec<Entry>,
    enrolled: BTreeSet<HostName>,
    /// How many hosts were enrolled where the period begins, and where it ends.
    before: usize,
    after: usize,
}

impl Changes {
    /// Takes the next entry.
    pub(super) fn take(&mut self, entry: &Entry, when: When) {
        if let Event::PolicyApplied { by, version, sha256, tests, changes } = &entry.event {
            let (by, sha256, tests, changes) = (by.to_string(), sha256.clone(), *tests, *changes);
            let applied = Applied { mark: Mark::of(entry), by, sha256, tests, changes, when };
            self.policies.insert(*version, applied);
        }
        let Event::Host(event) = &entry.event else { return };
        if let HostEvent::HostEnrolled { host, .. } = event {
            self.enrolled.insert(host.clone());
        } else if let HostEvent::HostRetired { host, .. } | HostEvent::HostLeft { host } = event {
            self.enrolled.remove(host);
        }
        match when {
            When::Before => (self.before, self.after) = (self.enrolled.len(), self.enrolled.len()),
            When::Within => self.after = self.enrolled.len(),
            When::After => {}
        }
        let is_told = event.is_of_inventory() || matches!(event, HostEvent::HostDoubled { .. });
        if when == When::Within && is_told {
            self.hosts.push(entry.clone());
        }
    }

    pub(super) fn policy(&self, version: PolicyVersion) -> Option<&Applied> {
        self.policies.get(&version)
    }

    /// How many policies were applied in the period.
    pub(super) fn applied(&self) -> usize {
        self.policies.values().filter(|applied| applied.when == When::Within).count()
    }

    /// How many hosts were enrolled where the period begins, and where it ends.
    pub(super) const fn hosts(&self) -> (usize, usize) {
        (self.before, self.after)
    }

    /// The policy that was in force when the period began, and those of the period.
    pub(super) fn policy_csv(&self) -> (String, usize) {
        let mut csv = Csv::new(["version", "applied_at", "entry", "by", "sha256", "tests", "changes"]);
        let before = self.policies.iter().rev().find(|(_, applied)| applied.when == When::Before);
        let within = self.policies.iter().filter(|(_, applied)| applied.when == When::Within);
        for (version, Applied { mark, by, sha256, tests, changes, when: _ }) in before.into_iter().chain(within) {
            csv.row([
                version.to_string(),
                mark.at.to_string(),
                mark.entry.to_string(),
                by.clone(),
                sha256.clone(),
                tests.to_string(),
                changes.to_string(),
            ]);
        }
        csv.finish()
    }

    pub(super) fn hosts_csv(&self) -> (String, usize) {
        let mut csv = Csv::new(["entry", "at", "host", "what", "by", "details"]);
        for entry in &self.hosts {
            let Event::Host(event) = &entry.event else { continue };
            csv.row([
                entry.index.to_string(),
                entry.at.to_string(),
                text(event.host()),
                entry.event.kind().to_owned(),
                text(event.person()),
                entry.event.sentence(),
            ]);
        }
        csv.finish()
    }
}
