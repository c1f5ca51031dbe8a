//! What a policy says that it can hardly mean: names that mean nobody or nothing, approvals that somebody who may ask can't get, and restrictions of a
//! grant that restrict less than they seem to.
//!
//! What for: a refusal with a misspelt group or tag forbids nothing, and nobody notices; nor does anybody miss what a forced command or a list of networks
//! leaves open. What has no effect in a grant is noticed by whoever misses it, but not by whoever writes the policy.
//!
//! *Why is nothing refused for it?* A rule for a team that is still empty, or against hosts that have not joined yet, is right; and what is in force must
//! stay readable.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::quorum::{Quorum, Who};
use super::rule::{Among, Effect, HostPattern, Rule};
use super::shortage::missed;
use super::trace::listed_up_to;
use super::{Host, Policy};
use crate::document::nearest;
use crate::identity::Directory;
use crate::name::{GroupName, HostName, PersonName, TagKey, TagValue};
use crate::ssh::cert::Extension;

/// The most warnings. Our choice: as many as somebody reads.
const WARNINGS_MAX: usize = 100;

/// The most people that one names. Our choice.
const NAMES_MAX: usize = 8;

/// The most comparisons of a pattern with a host's name. Our choice: well below a second; what comes after that is not looked at.
const LOOKS_MAX: usize = 5_000_000;

/// The most names among which the one that was meant is looked for. Our choice: a hundred times that many is a second.
const NEAR_MAX: usize = 10_000;

/// Which hosts a policy was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownHosts {
    /// Those of its file alone.
    OfFile,
    /// Also the enrolled ones.
    All,
}

impl Policy {
    /// What it can hardly mean, as sentences, by rule.
    #[must_use]
    pub fn warnings(&self, known: KnownHosts) -> Vec<String> {
        let mut names = Names::of(self);
        let all = self.rules.iter().flat_map(|rule| {
            let said = [
                groups(rule, &names),
                patterns(rule, &mut names, known),
                days(rule),
                approvals(rule, &self.directory),
                command(rule),
                networks(rule),
            ];
            said.into_iter().flatten().map(|what| format!("rule {}: {what}", rule.name)).collect::<Vec<_>>()
        });
        all.take(WARNINGS_MAX).collect()
    }
}

/// What there is to be named.
struct Names<'p> {
    hosts: BTreeMap<&'p HostName, &'p Host>,
    tags: BTreeSet<(&'p TagKey, &'p TagValue)>,
    groups: BTreeSet<&'p GroupName>,
    looks: usize,
}

impl<'p> Names<'p> {
    fn of(policy: &'p Policy) -> Self {
        Self {
            hosts: policy.hosts().map(|host| (&host.name, host)).collect(),
            tags: policy.hosts().flat_map(|host| &host.tags).collect(),
            groups: policy.directory.people().flat_map(|person| &person.groups).collect(),
            looks: 0,
        }
    }

    /// Whether a pattern means any host, or has come too late to be looked at.
    fn means_some(&mut self, pattern: &HostPattern) -> bool {
        match pattern {
            HostPattern::Exact(name) => self.hosts.contains_key(name),
            HostPattern::Tag(key, value) => self.tags.contains(&(key, value)),
            HostPattern::Glob(_) => {
                for host in self.hosts.values() {
                    self.looks = self.looks.saturating_add(1);
                    if self.looks > LOOKS_MAX || pattern.matches(host) {
                        return true;
                    }
                }
                false
            }
        }
    }

    /// What a pattern was probably meant to be.
    fn near(&self, pattern: &HostPattern) -> String {
        match pattern {
            HostPattern::Exact(name) => near(name.as_str(), self.hosts.keys().map(|host| host.as_str().to_owned())),
            HostPattern::Tag(..) => {
                near(&pattern.to_string(), self.tags.iter().map(|(key, value)| format!("tag:{key}={value}")))
            }
            HostPattern::Glob(_) => String::new(),
        }
    }
}

fn near(text: &str, known: impl Iterator<Item = String>) -> String {
    let known: Vec<String> = known.take(NEAR_MAX).collect();
    let near = nearest(text, known.iter().map(String::as_str));
    near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// Days of which there are none.
fn days(rule: &Rule) -> Vec<String> {
    let so = match &rule.effect {
        Effect::Grant(_) => "grants nothing",
        Effect::Refuse { .. } => "refuses nothing",
    };
    let never = rule.when.as_ref().filter(|when| when.is_never());
    never
        .map(|_| format!("\"when\" names no day, so that it {so}; without \"days\" it counts on all of them"))
        .into_iter()
        .collect()
}

/// Groups that nobody is in, among those whom it is about.
fn groups(rule: &Rule, names: &Names<'_>) -> Vec<String> {
    let Among::Only(who) = &rule.who else { return Vec::new() };
    let so = match &rule.effect {
        Effect::Grant(_) => "lets nobody ask",
        Effect::Refuse { .. } => "keeps nobody out",
    };
    let empty = who.iter().filter_map(|who| match who {
        Who::Group(group) if !names.groups.contains(group) => Some(group),
        Who::Group(_) | Who::Person(_) => None,
    });
    let hint = |group: &GroupName| near(group.as_str(), names.groups.iter().map(ToString::to_string));
    empty.map(|group| format!("nobody is in group {:?}, so that {so}{}", group.as_str(), hint(group))).collect()
}

/// Host terms of a refusal that mean no host. A policy without any host is for those that enrol.
fn patterns(rule: &Rule, names: &mut Names<'_>, known: KnownHosts) -> Vec<String> {
    let (Among::Only(patterns), Effect::Refuse { .. }) = (&rule.hosts, &rule.effect) else { return Vec::new() };
    if names.hosts.is_empty() {
        return Vec::new();
    }
    let whose = match known {
        KnownHosts::OfFile => "no host of this file (enrolled ones are known to the service)",
        KnownHosts::All => "no host",
    };
    let empty = patterns.iter().filter(|pattern| !names.means_some(pattern)).take(WARNINGS_MAX);
    let empty: Vec<&HostPattern> = empty.collect();
    let say = |pattern: &&HostPattern| {
        format!("{:?} means {whose}, so that keeps nobody out{}", pattern.to_string(), names.near(pattern))
    };
    empty.iter().map(say).collect()
}

/// What goes on beside a forced command: forwardings need no command, and sshd runs the account's own `~/.ssh/rc` before it.
fn command(rule: &Rule) -> Vec<String> {
    let Some(options) = rule.grant().map(|grant| &grant.options).filter(|it| it.force_command.is_some()) else {
        return Vec::new();
    };
    let beside: Vec<&str> =
        options.permits.iter().filter(|permit| **permit != Extension::Pty).map(|permit| permit.key()).collect();
    if beside.is_empty() {
        return Vec::new();
    }
    let beside = beside.join(", ");
    vec![format!(
        "\"command\" does not stop what \"permit\" gives beside it ({beside}); without that, the command is all that can be done"
    )]
}

/// Networks that are everything.
fn networks(rule: &Rule) -> Vec<String> {
    let sources = rule.grant().map(|grant| &grant.options.source_addresses);
    let all = sources.into_iter().flatten().filter(|network| network.prefix_len() == 0);
    all.map(|network| {
        let family = if network.addr().is_ipv4() { "IPv4" } else { "IPv6" };
        format!("\"sources\" names {network}, which is every {family} address, so that keeps none of them out")
    })
    .collect()
}

/// Approvals that somebody who may ask can't get, since nobody approves their own request.
fn approvals(rule: &Rule, directory: &Directory) -> Vec<String> {
    let Some(quorum) = rule.grant().and_then(|grant| Quorum::new(grant.approval.clone())) else { return Vec::new() };
    let may_ask = |name: &PersonName| match &rule.who {
        Among::All => true,
        Among::Only(who) => who.iter().any(|who| who.includes(name, directory)),
    };
    let askers = missed(quorum.needs(), directory).into_iter().filter(|name| may_ask(name));
    let short: Vec<&PersonName> = askers.filter(|name| quorum.shortage(name, directory).is_some()).collect();
    if short.is_empty() {
        return Vec::new();
    }
    let short = listed_up_to(NAMES_MAX, short);
    vec![format!(
        "it {quorum}, which {short} can't get: nobody approves their own request, and there are not enough others"
    )]
}
