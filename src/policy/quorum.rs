//! Who must agree, and whether they have.
//!
//! What for: the needs of a request (`1 of group:sre, 2 of group:security`) against the people who agreed.
//!
//! Invariants: an approver counts for one need only, so two needs always take two people; whoever is not in the
//! directory counts for nothing; the asker is never among the eligible (I-15). Where a need wants signed approvals, one counts as
//! signed only while its key is a login key of that person.
//!
//! Decision: *why a matching and not a tally?* Bob, in both groups, and Carol, in one of them, meet "1 of a and 1 of
//! b" only if Bob is counted for the group that Carol is not in; counting need by need in file order gets that wrong
//! in one direction or the other. Kuhn's algorithm for bipartite matching is twenty lines.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::identity::Directory;
use crate::name::{GroupName, PersonName};
use crate::ssh::Fingerprint;

/// Who approved, each with the login key that signed their approval, if one did.
pub type Approvals = BTreeMap<PersonName, Option<Fingerprint>>;

/// A person or a group, as policy names them: `person:alice@example.com`, `group:sre`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Everybody in the group.
    Group(GroupName),
    /// One person.
    Person(PersonName),
}

/// `need` distinct people out of `from`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// How many, 1 to 10.
    pub need: u8,
    /// Out of whom.
    pub from: BTreeSet<Who>,
    /// Whether only signed approvals count.
    pub signed: bool,
}

/// How often a grant has a need, and how many of those want signatures.
#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    all: usize,
    signed: usize,
}

/// Whether these needs hold everything that the others demand: each of the others has one of its own here, with signatures if it wants them.
pub(super) fn demand_all_of(needs: &[Need], others: &[Need]) -> bool {
    let mut left: Vec<&Need> = needs.iter().collect();
    let mut take =
        |wanted: &Need| left.iter().position(|need| **need == *wanted).map(|place| left.swap_remove(place)).is_some();
    // Those that want signatures first: nothing else can stand for them.
    let (signed, others): (Vec<&Need>, Vec<&Need>) = others.iter().partition(|need| need.signed);
    signed.into_iter().all(&mut take) && others.into_iter().all(|need| take(need) || take(&need.with_signatures()))
}

/// All needs of a request; each approver counts for one of them. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum(pub(super) Vec<Need>);

impl Quorum {
    /// The needs.
    #[must_use]
    pub fn needs(&self) -> &[Need] {
        &self.0
    }

    /// A quorum of these needs; `None` when there are none.
    #[must_use]
    pub fn new(needs: Vec<Need>) -> Option<Self> {
        if needs.is_empty() { None } else { Some(Self(needs)) }
    }

    /// What all these grants demand, in order. The same need of two grants is one need, which wants signatures if either does; two alike of
    /// one grant are two.
    pub(super) fn of_all<'n>(grants: impl Iterator<Item = &'n [Need]>) -> Option<Self> {
        let mut all: BTreeMap<Need, Copies> = BTreeMap::new();
        for grant in grants {
            let mut own: BTreeMap<Need, Copies> = BTreeMap::new();
            for need in grant {
                let copies = own.entry(Need { signed: false, ..need.clone() }).or_default();
                copies.all = copies.all.saturating_add(1);
                copies.signed = copies.signed.saturating_add(usize::from(need.signed));
            }
            for (need, copies) in own {
                let most = all.entry(need).or_default();
                most.all = most.all.max(copies.all);
                most.signed = most.signed.max(copies.signed);
            }
        }
        let mut needs = Vec::new();
        for (need, Copies { all, signed }) in all {
            needs.extend(std::iter::repeat_n(need.with_signatures(), signed));
            needs.extend(std::iter::repeat_n(need, all.saturating_sub(signed)));
        }
        needs.sort();
        Self::new(needs)
    }

    /// Whether this person's approval could count, if need be signed.
    #[must_use]
    pub fn is_eligible(&self, person: &PersonName, directory: &Directory) -> bool {
        self.0.iter().any(|need| need.includes(person, directory))
    }

    /// Whether this person's approval counts, signed by this key or by none.
    #[must_use]
    pub fn counts(&self, person: &PersonName, signed_by: Option<Fingerprint>, directory: &Directory) -> bool {
        self.0.iter().any(|need| need.counts(person, signed_by, directory))
    }

    /// Whether this person's signature could count where their approval without one does not.
    #[must_use]
    pub fn wants_signature_of(&self, person: &PersonName, directory: &Directory) -> bool {
        self.0.iter().any(|need| need.signed && need.includes(person, directory))
    }

    /// Whether these distinct people meet every need, each counted once (a matching, not a tally).
    #[must_use]
    pub fn is_met(&self, approvals: &Approvals, directory: &Directory) -> bool {
        // One place per person needed; the people who could take it, by number.
        let mut places: Vec<Vec<usize>> = Vec::new();
        for need in &self.0 {
            let counts =
                |(person, signed_by): (&PersonName, &Option<Fingerprint>)| need.counts(person, *signed_by, directory);
            let able = approvals.iter().enumerate().filter(|(_, approval)| counts(*approval));
            let able: Vec<usize> = able.map(|(number, _)| number).collect();
            places.extend(std::iter::repeat_n(able, usize::from(need.need)));
        }
        can_fill(&places)
    }

    /// Everybody who could still help, except `asker`, by name.
    #[must_use]
    pub fn eligible(&self, asker: &PersonName, directory: &Directory) -> BTreeSet<PersonName> {
        // Not everybody, to see who is one of them: there may be fifty thousand, and this is asked at each look at a request.
        let people = self.0.iter().flat_map(|need| &need.from).flat_map(|who| who.people(directory));
        people.filter(|name| *name != asker).cloned().collect()
    }
}

/// Whether every place can be taken by a person of its own (Kuhn's algorithm).
pub(super) fn can_fill(places: &[Vec<usize>]) -> bool {
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    (0..places.len()).all(|place| find_for(place, places, &mut taken, &mut BTreeSet::new()))
}

/// Finds a person for `place`, moving others to places that they can take too. `asked` are people already tried.
/// Recursion is at most as deep as there are places.
fn find_for(
    place: usize,
    places: &[Vec<usize>],
    taken: &mut BTreeMap<usize, usize>,
    asked: &mut BTreeSet<usize>,
) -> bool {
    for person in places.get(place).map(Vec::as_slice).unwrap_or_default() {
        if !asked.insert(*person) {
            continue;
        }
        let is_free = match taken.get(person).copied() {
            None => true,
            Some(other) => find_for(other, places, taken, asked),
        };
        if is_free {
            taken.insert(*person, place);
            return true;
        }
    }
    false
}

impl Need {
    /// Whether this person's approval could count for this need.
    #[must_use]
    pub fn includes(&self, person: &PersonName, directory: &Directory) -> bool {
        self.from.iter().any(|who| who.includes(person, directory))
    }

    /// Everybody whom it means; somebody may come twice.
    pub(super) fn people<'a>(&'a self, directory: &'a Directory) -> impl Iterator<Item = &'a PersonName> {
        self.from.iter().flat_map(|who| who.people(directory))
    }

    /// The same need, of signed approvals.
    #[must_use]
    pub(super) fn with_signatures(&self) -> Self {
        Self { signed: true, ..self.clone() }
    }

    /// Whether it does count, signed by this key or by none.
    #[must_use]
    pub fn counts(&self, person: &PersonName, signed_by: Option<Fingerprint>, directory: &Directory) -> bool {
        self.includes(person, directory) && (!self.signed || signed_by.is_some_and(|key| directory.lists(person, key)))
    }
}

impl Who {
    /// Parses `group:sre` or `person:alice@example.com`.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("group", name)) => GroupName::parse(name).map(Self::Group).map_err(|error| error.to_string()),
            Some(("person", name)) => PersonName::parse(name).map(Self::Person).map_err(|error| error.to_string()),
            Some(("workload", _)) => Err("workload identities are not supported yet; remove this entry".to_owned()),
            Some(_) | None => {
                let shown = crate::document::quoted(text);
                Err(format!("{shown} is nobody: it takes \"group:NAME\" or \"person:NAME\""))
            }
        }
    }

    /// Everybody whom it means.
    fn people<'a>(&'a self, directory: &'a Directory) -> impl Iterator<Item = &'a PersonName> {
        let (group, person) = match self {
            Self::Group(group) => (Some(group), None),
            Self::Person(name) => (None, directory.person(name)),
        };
        let members = group.into_iter().flat_map(|group| directory.members(group));
        members.chain(person.map(|person| &person.name))
    }

    /// Whether it means this person.
    #[must_use]
    pub fn includes(&self, person: &PersonName, directory: &Directory) -> bool {
        match self {
            Self::Group(group) => directory.person(person).is_some_and(|p| p.groups.contains(group)),
            Self::Person(name) => name == person && directory.person(person).is_some(),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Person(name) => write!(f, "person:{name}"),
        }
    }
}

impl fmt::Display for Need {
    /// `1 of group:sre, person:dave`, and ` (signed)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from: Vec<String> = self.from.iter().map(ToString::to_string).collect();
        let signed = if self.signed { " (signed)" } else { "" };
        write!(f, "{} of {}{signed}", self.need, from.join(", "))
    }
}

impl fmt::Display for Quorum {
    /// `needs 1 of group:sre and 1 of group:security`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "needs {}", needs.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sre`: one of group:sre; `sre!`: the same, signed.
    fn needs(words: &str) -> Vec<Need> {
        let need = |word: &str| {
            let from = BTreeSet::from([Who::parse(&format!("group:{}", word.trim_end_matches('!'))).unwrap()]);
            Need { need: 1, from, signed: word.ends_with('!') }
        };
        words.split_whitespace().map(need).collect()
    }

    #[test]
    fn what_two_grants_want_alike_is_wanted_once_and_what_one_wants_twice_is_wanted_twice() {
        for (grants, all) in [
            (&[""][..], ""),
            (&["sre", "sre"], "sre"),
            (&["sre sre"], "sre sre"),
            (&["sre sre", "sre"], "sre sre"),
            (&["sre sre!"], "sre sre!"),
            (&["sre", "sre!"], "sre!"),
            (&["sre sre", "sre!"], "sre sre!"),
            (&["sre! sre!", "sre sre sre"], "sre sre! sre!"),
            (&["sre dba", "dba"], "dba sre"),
        ] {
            let grants: Vec<Vec<Need>> = grants.iter().map(|grant| needs(grant)).collect();
            let quorum = Quorum::of_all(grants.iter().map(Vec::as_slice));
            assert_eq!(quorum.map(|quorum| quorum.0).unwrap_or_default(), needs(all), "{grants:?}");
        }
    }

    #[test]
    fn a_need_stands_for_one_other_and_a_signature_for_none() {
        for (mine, others, holds) in [
            ("", "", true),
            ("sre", "", true),
            ("sre", "sre", true),
            ("sre", "sre sre", false),
            ("sre sre!", "sre sre", true),
            ("sre sre!", "sre! sre!", false),
            ("sre! sre", "sre sre!", true),
            ("dba", "sre", false),
        ] {
            assert_eq!(demand_all_of(&needs(mine), &needs(others)), holds, "{mine:?} for {others:?}");
        }
    }
}
