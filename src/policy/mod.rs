//! Policy: who may reach which hosts as whom, for how long, and who must agree.
//!
//! What for: a [`Policy`] is made from the text of `policy.toml` and from nothing else, and answers [`Question`]s. The
//! answer depends on policy and question only; the time is part of the question.
//!
//! What not: no state of requests (`access`), no versions (`service::policy`), no files.
//!
//! Invariants: only [`Policy::parse`] makes one, and it takes only texts without a problem; nothing matches → refused;
//! what a person is shown of a refusal names only rules about that person; cost is that of the rules about a person,
//! account and host, not of the file ([`index`]).
//!
//! | File | What |
//! |---|---|
//! | `spec/` | from text to `Policy`, with every problem at once |
//! | `rule.rs`, `when.rs` | one rule's conditions, and how they match |
//! | `index.rs` | which rules can concern a person, an account and a host |
//! | `evaluate.rs`, `trace.rs` | the verdict, and why |
//! | `ways.rs` | what a person may ask for, host by host |
//! | `cas.rs` | which user CA a host is of |
//! | `quorum.rs` | who must agree, and whether they have |
//! | `shortage.rs` | who must agree, and can't, since too few may |
//! | `warn.rs` | what a policy can hardly mean |
//! | `test.rs` | a policy's own tests |
//! | `diff.rs`, `standing.rs` | who gains and loses what between two policies |
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod cas;
pub mod diff;
mod evaluate;
mod index;
pub mod quorum;
mod rule;
mod shortage;
mod spec;
mod standing;
pub mod test;
mod trace;
mod warn;
mod ways;
mod when;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::document::Problem;
use crate::identity::Directory;
use crate::name::{Account, CaName, GroupName, HostName, PersonName, Principal, RuleName, TagKey, TagValue};
use crate::ssh::cert::Options;
use crate::time::{Lifetime, Timestamp};
pub use quorum::{Approvals, Need, Quorum, Who};
pub use shortage::Shortage;
pub use spec::TEXT_BYTES_MAX;
pub use warn::KnownHosts;
pub use ways::Way;

/// The most hosts of one request. Our choice: a certificate stays small, and an approver can read them all.
pub const HOSTS_MAX: usize = 16;

/// A checked policy. Made only by [`Policy::parse`]; immutable. Copies share what is long, and every host.
#[derive(Clone, Debug)]
pub struct Policy {
    text: Arc<str>,
    defaults: rule::Defaults,
    directory: Arc<Directory>,
    operators: BTreeSet<PersonName>,
    auditors: BTreeSet<PersonName>,
    ca_operators: u8,
    cas: Vec<cas::CaRule>,
    hosts: Hosts,
    rules: Arc<[rule::Rule]>,
    index: Arc<index::Index>,
    tests: Arc<[test::Case]>,
}

/// Hosts by name; copies share all that is the same.
type Hosts = RedBlackTreeMapSync<HostName, Arc<Host>>;

/// How many of what a policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// People in the directory.
    pub people: usize,
    /// Hosts.
    pub hosts: usize,
    /// Rules.
    pub rules: usize,
    /// Tests.
    pub tests: usize,
}

/// A machine with sshd, as policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Its tags.
    pub tags: BTreeMap<TagKey, TagValue>,
    /// Which principals its sshd accepts.
    pub scope: Scope,
}

/// A tag that the policy's file and an enrolled host of the same name do not agree about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host {host} is enrolled with {key}={enrolled}, the file says {key}={file}")]
pub struct Contradiction {
    /// The host.
    pub host: HostName,
    /// The tag's key.
    pub key: TagKey,
    /// Its value in the file.
    pub file: TagValue,
    /// Its value in the inventory.
    pub enrolled: TagValue,
}

/// Which principals a host's sshd accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `account@host`: the host maps principals (one line per account). The default.
    Host,
    /// The plain account name: sshd has `TrustedUserCAKeys` and nothing else, so a certificate for one such host
    /// opens all such hosts. Only when the policy says so.
    Account,
}

/// What is asked; everything an evaluation may look at besides the policy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub person: PersonName,
    /// Which hosts, 1 to 16.
    pub hosts: BTreeSet<HostName>,
    /// As which account.
    pub account: Account,
    /// For how long; `None` takes the rule's default. For an extension: the added time.
    pub lifetime: Option<Lifetime>,
    /// Seconds the request has been granted before (zero unless this is an extension); counts against `total`.
    pub held: Lifetime,
    /// From when; `None` means from approval. A start before `at` is refused, so whoever puts the question again
    /// after the start has passed gives `None`.
    pub start: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// The ticket, if one was given.
    pub ticket: Option<String>,
    /// When the question is put.
    pub at: Timestamp,
}

/// Policy's answer, always with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What.
    pub outcome: Outcome,
    /// Why: per host, each rule and what of it matched or did not, in file order.
    pub trace: Vec<HostTrace>,
}

/// What the policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Allowed at once on these terms.
    Allow(Terms),
    /// Allowed on these terms once the quorum agrees.
    Ask(Terms, Quorum),
    /// Refused.
    Refuse(Vec<Refused>),
}

/// Why one host (or all) was refused; safe to show to the asker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The host, unless it concerns the question as a whole.
    pub host: Option<HostName>,
    /// The rule that decided, if one did.
    pub rule: Option<RuleName>,
    /// What kind.
    pub kind: RefusedKind,
    /// The sentence: what is missing or forbidden, with the numbers; names the rule where it matters.
    pub why: String,
}

/// The kinds of refusal that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// No rule lets this person ask this (exit 5, HP-201).
    NoRule,
    /// A `refuse` rule matched (exit 5).
    Rule,
    /// A rule matched, but reason or ticket do not satisfy it (HP-202).
    Reason,
    /// A rule matched, but the window is longer than it allows (HP-208 for extensions).
    Window,
    /// The host is not known, or the question is malformed (too many hosts).
    Unknown,
}

/// What an allowed request may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Hosts and the principal each one accepts.
    pub hosts: BTreeMap<HostName, Principal>,
    /// The user CA whose keys they all trust.
    pub ca: CaName,
    /// The account.
    pub account: Account,
    /// How long, from approval (or start).
    pub lifetime: Lifetime,
    /// The longest that could be asked for now.
    pub lifetime_max: Lifetime,
    /// How much earlier the window starts, for slow host clocks.
    pub backdate: Lifetime,
    /// How long an undecided request waits.
    pub decide_by: Lifetime,
    /// Critical options and extensions.
    pub options: Options,
    /// The rules that decided, one per host, without doubles, in file order.
    pub rules: Vec<RuleName>,
}

/// How the rules fared for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTrace {
    /// Which host.
    pub host: HostName,
    /// Each rule looked at.
    pub rules: Vec<RuleTrace>,
}

/// How one rule fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    /// Which rule.
    pub rule: RuleName,
    /// Whether all of its conditions matched.
    pub matched: bool,
    /// One clause per condition looked at: `who: group:backend matches`, `when: 21:14 is outside 08:00-20:00`.
    pub clauses: Vec<String>,
}

impl Policy {
    /// Parses a policy; `file` names it in problems.
    ///
    /// # Errors
    /// Every problem there is, each with its place.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        spec::parse(text, file)
    }

    /// The text it was made from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The people it knows.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// How many operators must want a step of CA keys from which there is no quick way back: 1 or 2.
    #[must_use]
    pub const fn ca_operators(&self) -> u8 {
        self.ca_operators
    }

    /// Whether this person operates the service.
    #[must_use]
    pub fn is_operator(&self, person: &PersonName) -> bool {
        self.operators.contains(person)
    }

    /// Whether this person may read everything.
    #[must_use]
    pub fn is_auditor(&self, person: &PersonName) -> bool {
        self.auditors.contains(person)
    }

    /// The hosts it knows, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().map(|host| &**host)
    }

    /// This host.
    #[must_use]
    pub fn host(&self, name: &HostName) -> Option<&Host> {
        self.hosts.get(name).map(|host| &**host)
    }

    /// This policy with enrolled hosts beside those of its file. An enrolled host counts like one of the file; where both have
    /// one name, the enrolled host's scope holds, and it has the tags of both.
    ///
    /// # Errors
    /// Every tag for which file and enrolled host have different values.
    pub fn with_hosts(&self, enrolled: impl IntoIterator<Item = Arc<Host>>) -> Result<Self, Vec<Contradiction>> {
        self.with_changed(self, enrolled.into_iter().map(|host| (host.name.clone(), Some(host))))
    }

    /// What [`Self::with_hosts`] gives once these hosts are enrolled like this, or (`None`) not any more; `before` is what it gave until then. It
    /// costs as much as they are, however many others there are.
    ///
    /// # Errors
    /// Every tag of theirs for which file and enrolled host have different values.
    pub fn with_changed(
        &self,
        before: &Self,
        changed: impl IntoIterator<Item = (HostName, Option<Arc<Host>>)>,
    ) -> Result<Self, Vec<Contradiction>> {
        let (mut hosts, mut wrong) = (before.hosts.clone(), Vec::new());
        for (name, enrolled) in changed {
            let plain = self.hosts.get(&name);
            let Some(mut host) = enrolled else {
                match plain {
                    Some(plain) => hosts.insert_mut(name, Arc::clone(plain)),
                    None => drop(hosts.remove_mut(&name)),
                }
                continue;
            };
            for (key, value) in plain.into_iter().flat_map(|plain| &plain.tags) {
                let has = Arc::make_mut(&mut host).tags.entry(key.clone()).or_insert_with(|| value.clone());
                if has != value {
                    let (name, key) = (name.clone(), key.clone());
                    wrong.push(Contradiction { host: name, key, file: value.clone(), enrolled: has.clone() });
                }
            }
            hosts.insert_mut(name, host);
        }
        if wrong.is_empty() { Ok(Self { hosts, ..self.clone() }) } else { Err(wrong) }
    }

    /// The hosts with this tag.
    pub fn hosts_with_tag(&self, key: &TagKey, value: &TagValue) -> impl Iterator<Item = &Host> {
        self.hosts().filter(move |h| h.tags.get(key) == Some(value))
    }

    /// Answers a question: a matching `refuse` rule wins; else the first matching rule in file order; else refused. Several
    /// hosts: all must be allowed; terms are the narrowest of all, needs of all count. The trace is short: the rules for this
    /// person and account, at most 16 a host.
    #[must_use]
    pub fn evaluate(&self, question: &Question) -> Verdict {
        evaluate::evaluate(self, question, evaluate::Detail::Short)
    }

    /// The same outcome with a trace of every rule, for those who may read the policy. Its cost is that of the whole file.
    #[must_use]
    pub fn explain(&self, question: &Question) -> Verdict {
        evaluate::evaluate(self, question, evaluate::Detail::Full)
    }

    /// The accounts that its granting rules name, for whoever asks without naming one.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<&Account> {
        let granting = self.rules.iter().filter(|rule| matches!(rule.effect, rule::Effect::Grant(_)));
        let named = granting.filter_map(|rule| match &rule.accounts {
            rule::Among::Only(accounts) => Some(accounts),
            rule::Among::All => None,
        });
        named.flatten().collect()
    }

    /// How many of what it has.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let people = self.directory.people().count();
        Counts { people, hosts: self.hosts.size(), rules: self.rules.len(), tests: self.tests.len() }
    }

    /// The groups of a person, empty if unknown.
    #[must_use]
    pub fn groups_of(&self, person: &PersonName) -> BTreeSet<GroupName> {
        self.directory.person(person).map(|p| p.groups.clone()).unwrap_or_default()
    }
}

impl fmt::Display for Counts {
    /// `3 people, 1 host, 2 rules, 0 tests`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let people = count(self.people, "person", "people");
        let (hosts, rules) = (count(self.hosts, "host", "hosts"), count(self.rules, "rule", "rules"));
        write!(f, "{people}, {hosts}, {rules}, {}", count(self.tests, "test", "tests"))
    }
}

impl fmt::Display for Terms {
    /// `deploy on web-1, web-2 for 30m (rule "prod-web")`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.rules.iter().map(|rule| format!("{:?}", rule.as_str())).collect();
        let word = if rules.len() == 1 { "rule" } else { "rules" };
        write!(
            f,
            "{} on {} for {} ({word} {})",
            self.account,
            trace::listed(self.hosts.keys()),
            self.lifetime,
            rules.join(", ")
        )
    }
}
