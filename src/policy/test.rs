//! The policy's own `[[test]]`s: run by `hallpass policy test`, and before a policy is applied.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::fmt;

use super::{Outcome, Policy, Question};
use crate::name::RuleName;

/// One test of the policy file.
#[derive(Clone, Debug)]
pub struct Case {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) question: Question,
    pub(super) expected: Expected,
    pub(super) rule: Option<RuleName>,
}

/// Which verdict a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Allowed at once.
    Allow,
    /// Allowed once people agree.
    Ask,
    /// Refused.
    Refuse,
}

/// How one test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// Its name.
    pub name: String,
    /// Where it stands: `policy.toml:41:1`.
    pub place: String,
    /// `None` if as expected, else what was expected, what came, and why.
    pub failure: Option<String>,
}

impl Case {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it asks.
    #[must_use]
    pub const fn question(&self) -> &Question {
        &self.question
    }
}

impl Policy {
    /// Its own tests, in file order.
    pub fn tests(&self) -> impl Iterator<Item = &Case> {
        self.tests.iter()
    }

    /// Runs its own tests, in file order.
    #[must_use]
    pub fn run_tests(&self) -> Vec<Tested> {
        let run =
            |case: &Case| Tested { name: case.name.clone(), place: case.place.clone(), failure: self.failure_of(case) };
        self.tests.iter().map(run).collect()
    }

    fn failure_of(&self, case: &Case) -> Option<String> {
        let outcome = self.evaluate(&case.question).outcome;
        let (came, rules, why) = described(&outcome);
        if came != case.expected {
            return Some(format!("expected {}, but it is {came}: {why}", case.expected));
        }
        let expected = case.rule.as_ref().filter(|rule| !rules.contains(rule))?;
        let by: Vec<String> = rules.iter().map(|rule| format!("{:?}", rule.as_str())).collect();
        let by = if by.is_empty() { "no rule".to_owned() } else { by.join(", ") };
        Some(format!("expected rule {:?} to decide, but it was {by}: {why}", expected.as_str()))
    }
}

/// What an outcome is, which rules made it, and why.
fn described(outcome: &Outcome) -> (Expected, Vec<&RuleName>, String) {
    match outcome {
        Outcome::Allow(terms) => (Expected::Allow, terms.rules.iter().collect(), format!("{terms}")),
        Outcome::Ask(terms, quorum) => (Expected::Ask, terms.rules.iter().collect(), format!("{terms}, {quorum}")),
        Outcome::Refuse(refused) => {
            let why: Vec<&str> = refused.iter().map(|refused| refused.why.as_str()).collect();
            (Expected::Refuse, refused.iter().filter_map(|refused| refused.rule.as_ref()).collect(), why.join("; "))
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Refuse => "refuse",
        })
    }
}
