//! Needs that the people of the directory can't meet.
//!
//! What for: nobody approves their own request, so what two of a group must approve can't be had by one of its two members. Who asks hears so at
//! once and not when the request lapses; whoever writes the policy hears it from `policy check`.
//!
//! What not: whether somebody who could approve has time, a key at hand, or would.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::quorum::{Need, Quorum, can_fill};
use super::trace::listed_up_to;
use crate::identity::Directory;
use crate::name::PersonName;

/// The most people that the sentence names. Our choice.
const NAMES_MAX: usize = 8;

/// What can't be met for one asker, and by whom alone it could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    asker: PersonName,
    needs: String,
    able: BTreeSet<PersonName>,
}

impl Quorum {
    /// What the people of the directory, without the asker, can't meet; the first need that can't be, else all of them together.
    #[must_use]
    pub fn shortage(&self, asker: &PersonName, directory: &Directory) -> Option<Shortage> {
        let each = self.needs().iter().map(std::slice::from_ref);
        let short = each.chain([self.needs()]).find(|needs| !can_be_met(needs, asker, directory))?;
        let needs: Vec<String> = short.iter().map(ToString::to_string).collect();
        let able =
            short.iter().flat_map(|need| need.people(directory)).filter(|name| *name != asker).cloned().collect();
        Some(Shortage { asker: asker.clone(), needs: needs.join(" and "), able })
    }
}

/// Whether others than the asker could meet these needs, each of them counted once.
fn can_be_met(needs: &[Need], asker: &PersonName, directory: &Directory) -> bool {
    let count = places(needs);
    let mut numbers: BTreeMap<&PersonName, usize> = BTreeMap::new();
    let mut all: Vec<Vec<usize>> = Vec::new();
    for need in needs {
        let mut able = BTreeSet::new();
        // A place that more people could take than there are places is never the problem, so that many will do.
        for name in need.people(directory).filter(|name| *name != asker) {
            let next = numbers.len();
            able.insert(*numbers.entry(name).or_insert(next));
            if able.len() >= count {
                break;
            }
        }
        all.extend(std::iter::repeat_n(able.into_iter().collect(), usize::from(need.need)));
    }
    can_fill(&all)
}

fn places(needs: &[Need]) -> usize {
    needs.iter().map(|need| usize::from(need.need)).fold(0, usize::saturating_add)
}

/// The people who may be missed among those who could meet these needs: of a need that has more of them than all needs take, none is.
pub(super) fn missed<'d>(needs: &'d [Need], directory: &'d Directory) -> BTreeSet<&'d PersonName> {
    let enough = places(needs).saturating_add(1);
    let few = |need: &'d Need| {
        let mut able = BTreeSet::new();
        for name in need.people(directory) {
            able.insert(name);
            if able.len() >= enough {
                return BTreeSet::new();
            }
        }
        able
    };
    needs.iter().flat_map(few).collect()
}

impl fmt::Display for Shortage {
    /// `"2 of group:ops" can't be had as the policy is: besides alice@example.com, who asks, only bob@example.com could approve`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asker, needs, able } = self;
        let able = match able.len() {
            0 => "nobody could approve".to_owned(),
            _ => format!("only {} could approve", listed_up_to(NAMES_MAX, able)),
        };
        write!(f, "\"{needs}\" can't be had as the policy is: besides {asker}, who asks, {able}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Person;
    use crate::policy::Who;

    fn name(text: &str) -> PersonName {
        PersonName::parse(&format!("{text}@example.com")).unwrap()
    }

    fn directory() -> Directory {
        let person = |text: &str, groups: &[&str]| Person {
            name: name(text),
            groups: groups.iter().map(|group| crate::name::GroupName::parse(group).unwrap()).collect(),
            keys: Vec::new(),
        };
        Directory::new([
            person("alice", &["ops"]),
            person("bob", &["ops", "security"]),
            person("carol", &["web"]),
            person("dan", &["web"]),
            person("eve", &["web"]),
        ])
    }

    fn short(needs: &[(u8, &str)], asker: &str) -> Option<String> {
        let need = |(need, from): &(u8, &str)| Need {
            need: *need,
            from: BTreeSet::from([Who::parse(from).unwrap()]),
            signed: false,
        };
        let quorum = Quorum::new(needs.iter().map(need).collect()).unwrap();
        quorum.shortage(&name(asker), &directory()).map(|short| short.to_string())
    }

    #[test]
    fn what_others_can_meet_is_no_shortage_and_what_they_cannot_names_who_could_help() {
        assert_eq!(short(&[(2, "group:ops")], "carol"), None);
        assert_eq!(
            short(&[(2, "group:ops")], "alice").unwrap(),
            "\"2 of group:ops\" can't be had as the policy is: besides alice@example.com, who asks, only bob@example.com could approve"
        );
        assert_eq!(
            short(&[(1, "person:carol@example.com")], "carol").unwrap(),
            "\"1 of person:carol@example.com\" can't be had as the policy is: besides carol@example.com, who asks, nobody could approve"
        );
        // Each alone could be met, but by the same one.
        let both = short(&[(1, "group:ops"), (1, "group:security")], "alice").unwrap();
        assert!(both.starts_with("\"1 of group:ops and 1 of group:security\" can't be had"), "{both}");
        assert_eq!(short(&[(1, "group:ops"), (1, "group:security")], "carol"), None);
        assert_eq!(short(&[(2, "group:web")], "eve"), None);
    }
}
