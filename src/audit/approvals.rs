//! Who signed the approvals of a log: what a verification counts, and what an auditor demands of it.
//!
//! What for: the log names the key of each signed approval, and whoever holds the log key could name one of their own. Whether it
//! is the approver's is for the auditor to say: by a list of keys that they got elsewhere, or by reading the ones listed here.
//!
//! What not: whether a signature fits what the log says (`replay`).
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::event::Event;
use super::export::{Finding, FindingKind};
use crate::name::PersonName;
use crate::ssh::{Fingerprint, PublicKey};

/// How many signers a report names for people; programs get all.
const SIGNERS_SHOWN: usize = 20;

/// The approvals in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvals {
    /// Those that their approver's key signed.
    signed: BTreeMap<(PersonName, Fingerprint), Seen>,
    /// Those that rest on a login alone.
    unsigned: BTreeMap<PersonName, Seen>,
    /// The servers that signers named.
    servers: BTreeSet<String>,
}

/// How often, and where first.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    count: u64,
    line: u64,
    entry: u64,
}

impl Approvals {
    /// Counts an event of this entry in this line, if it is an approval.
    pub(super) fn count(&mut self, event: &Event, line: u64, entry: u64) {
        let Event::Approved { by, signature, .. } = event else { return };
        let seen = Seen { count: 0, line, entry };
        let seen = match signature {
            Some(signature) => {
                self.servers.insert(signature.server().to_owned());
                self.signed.entry((by.clone(), signature.key().fingerprint())).or_insert(seen)
            }
            None => self.unsigned.entry(by.clone()).or_insert(seen),
        };
        seen.count = seen.count.saturating_add(1);
    }

    /// How many are signed.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.signed.values().fold(0, |sum, seen| sum.saturating_add(seen.count))
    }

    /// How many are not.
    #[must_use]
    pub fn unsigned(&self) -> u64 {
        self.unsigned.values().fold(0, |sum, seen| sum.saturating_add(seen.count))
    }

    /// What is found where every approval must be signed, and by keys that this list has for the approver.
    pub(super) fn findings(&self, all_signed: bool, signers: Option<&Signers>) -> Vec<Finding> {
        let finding = |seen: &Seen, what: String| {
            let what = match seen.count {
                1 => what,
                count => format!("{what}; {count} times, first here"),
            };
            Finding { line: seen.line, entry: Some(seen.entry), kind: FindingKind::Approval, what }
        };
        let unsigned = self.unsigned.iter().filter(|_| all_signed);
        let unsigned = unsigned.map(|(by, seen)| finding(seen, format!("{by} approved without a signature")));
        let is_strange =
            |by: &PersonName, key: Fingerprint| signers.is_some_and(|signers| !signers.0.contains(&(by.clone(), key)));
        let strange = self.signed.iter().filter(|((by, key), _)| is_strange(by, *key));
        let strange = strange.map(|((by, key), seen)| finding(seen, format!("{key} is none of your keys for {by}")));
        let mut all: Vec<Finding> = unsigned.chain(strange).collect();
        all.sort_by_key(|finding| finding.line);
        all
    }

    /// For people: lines of a report, each with its name.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let (signed, unsigned) = (self.signed(), self.unsigned());
        let mut lines = vec![("approvals", format!("{signed} signed by the approver, {unsigned} by login alone"))];
        for ((by, key), seen) in self.signed.iter().take(SIGNERS_SHOWN) {
            lines.push(("signed by", format!("{by} with {key}: {}", seen.count)));
        }
        if let Some(more) = self.signed.len().checked_sub(SIGNERS_SHOWN).filter(|more| *more > 0) {
            lines.push(("signed by", format!("{more} more, which --json names")));
        }
        if !self.servers.is_empty() {
            let servers: Vec<&str> = self.servers.iter().map(String::as_str).take(SIGNERS_SHOWN).collect();
            lines.push(("signed for", servers.join(", ")));
        }
        lines
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let signer = |((by, key), seen): (&(PersonName, Fingerprint), &Seen)| json!({ "person": by.to_string(), "key": key.to_string(), "count": seen.count });
        json!({
            "signed": self.signed(),
            "unsigned": self.unsigned(),
            "signers": self.signed.iter().map(signer).collect::<Vec<_>>(),
            "servers": self.servers,
        })
    }
}

/// Whose keys are whose, as the auditor knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signers(BTreeSet<(PersonName, Fingerprint)>);

impl Signers {
    /// Parses lines of `NAME[,NAME] KEY`, as in OpenSSH's `allowed_signers`, without its options.
    ///
    /// # Errors
    /// What is wrong, with the number of its line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut signers = BTreeSet::new();
        for (number, line) in (1_u64..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: &dyn std::fmt::Display| format!("line {number}: {why}");
            let (names, key) = line.split_once(' ').ok_or_else(|| wrong(&"not a name and a key"))?;
            let key = PublicKey::parse_openssh(key.trim_start()).map_err(|why| wrong(&why))?;
            for name in names.split(',') {
                signers.insert((PersonName::parse(name).map_err(|why| wrong(&why))?, key.fingerprint()));
            }
        }
        Ok(Self(signers))
    }
}
