//! What a person may ask for, host by host, without a question: for a list of hosts.
//!
//! What not: no verdict. Reason, ticket and window belong to a question; whether they satisfy the rule is `evaluate`'s. What is listed
//! here may still be refused for these, and what is not listed would be refused whatever is said.
//!
//! Cost: per account of the policy's granting rules, that of looking at each host once; the caller limits the hosts.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use super::evaluate::{Asked, decide, forbidden_by_scope};
use super::{Host, Policy, Question, Quorum, Scope};
use crate::name::{Account, PersonName, RuleName};
use crate::time::{Lifetime, Timestamp};

/// A way into a host that a person may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// As which account.
    pub account: Account,
    /// The rule that decides.
    pub rule: RuleName,
    /// Who must agree; `None`: nobody.
    pub quorum: Option<Quorum>,
    /// The longest that can be asked for at once.
    pub longest: Lifetime,
}

impl Policy {
    /// The ways into each of these hosts that this person may ask for at this time, by account; in the hosts' order.
    #[must_use]
    pub fn ways(&self, person: &PersonName, hosts: &[&Host], at: Timestamp) -> Vec<Vec<Way>> {
        let mut ways: Vec<Vec<Way>> = hosts.iter().map(|_| Vec::new()).collect();
        for account in self.accounts() {
            let question = Question {
                person: person.clone(),
                hosts: BTreeSet::new(),
                account: account.clone(),
                lifetime: None,
                held: Lifetime::ZERO,
                start: None,
                reason: String::new(),
                ticket: None,
                at,
            };
            let asked = Asked::new(self, &question);
            let is_granted = |number: &usize| self.rules.get(*number).is_some_and(|rule| rule.grant().is_some());
            if !asked.candidates.iter().any(is_granted) {
                continue;
            }
            let forbidden = forbidden_by_scope(&asked).is_some();
            for (host, ways) in hosts.iter().zip(&mut ways) {
                if host.scope == Scope::Account && forbidden {
                    continue;
                }
                if let Ok(granted) = decide(&asked, host) {
                    ways.push(Way {
                        account: account.clone(),
                        rule: granted.rule.name.clone(),
                        quorum: Quorum::of_all(std::iter::once(granted.grant.approval.as_slice())),
                        longest: granted.grant.window.max.min(granted.grant.window.total),
                    });
                }
            }
        }
        ways
    }
}
