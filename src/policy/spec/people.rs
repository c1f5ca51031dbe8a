//! `[[person]]` and `[roles]`: the directory, and whom a policy may name.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::{Once, no_such};
use crate::document::{Found, Sheet, Table};
use crate::identity::{Directory, Person};
use crate::name::{GroupName, PersonName};
use crate::policy::quorum::{Need, Who, can_fill};
use crate::ssh::PublicKey;

/// The most people. Our choice.
const PEOPLE_MAX: usize = 100_000;

/// The most groups, and the most keys, of a person. Our choice.
const GROUPS_MAX: usize = 256;
const KEYS_MAX: usize = 32;

/// The most entries of a role, of a rule's `who` and of an approval's `from`. Our choice.
pub(super) const WHO_MAX: usize = 1_000;

/// The people of the file, with what is needed to check whom it names.
pub(super) struct People {
    people: BTreeMap<PersonName, Person>,
    members: BTreeMap<GroupName, BTreeSet<PersonName>>,
    /// False when some person could not be read; then who is missing is not clear, and no further problem is made of it.
    is_whole: bool,
}

impl People {
    pub(super) fn read(root: &Table<'_>) -> Self {
        let mut this = Self { people: BTreeMap::new(), members: BTreeMap::new(), is_whole: true };
        let (mut names, mut keys) = (Once::new("person"), BTreeMap::new());
        for table in root.tables("person", PEOPLE_MAX) {
            let name = table.needed("name", table.parsed("name", PersonName::parse), "name = \"alice@example.com\"");
            let groups = table.list("groups", GROUPS_MAX, GroupName::parse);
            let listed = table.list("keys", KEYS_MAX, PublicKey::parse_openssh);
            this.is_whole &= name.is_some() && (groups.is_some() || !table.has("groups"));
            let Some(name) = name else { continue };
            names.check(table.sheet(), &name);
            let name = name.value;
            let groups: BTreeSet<GroupName> = values(groups).into_iter().collect();
            for group in &groups {
                this.members.entry(group.clone()).or_default().insert(name.clone());
            }
            for key in listed.iter().flat_map(|found| &found.value) {
                check_key(table.sheet(), key, &name, &mut keys);
            }
            let person = Person { name: name.clone(), groups, keys: values(listed) };
            this.people.insert(name, person);
        }
        this
    }

    pub(super) fn into_directory(self) -> Directory {
        Directory::new(self.people.into_values())
    }

    pub(super) fn has(&self, name: &PersonName) -> bool {
        self.people.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.people.keys().map(PersonName::as_str)
    }

    /// A problem for each named person who does not exist.
    pub(super) fn check_persons(&self, sheet: &Sheet<'_>, list: &[Found<Who>]) {
        for Found { value, spot } in list {
            match value {
                Who::Person(name) if self.is_whole && !self.has(name) => {
                    sheet.problem(spot, no_such("person", name, self.names()));
                }
                Who::Person(_) | Who::Group(_) => {}
            }
        }
    }

    /// A problem for each named group that nobody is in; `so` says what follows. Whether there was none.
    pub(super) fn check_groups(&self, sheet: &Sheet<'_>, list: &[Found<Who>], so: &str) -> bool {
        let mut is_good = true;
        for Found { value, spot } in list {
            match value {
                Who::Group(name) if self.is_whole && !self.members.contains_key(name) => {
                    is_good = false;
                    let near = crate::document::nearest(name.as_str(), self.members.keys().map(GroupName::as_str));
                    let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
                    sheet.problem(spot, format!("nobody is in group {:?}: {so}{hint}", name.as_str()));
                }
                Who::Person(_) | Who::Group(_) => {}
            }
        }
        is_good
    }

    /// Whether all people together could meet these needs.
    pub(super) fn could_meet(&self, needs: &[Need]) -> bool {
        // A place that more people could take than there are places is never the problem, so that many will do.
        let count = needs.iter().map(|need| usize::from(need.need)).fold(0, usize::saturating_add);
        let mut numbers: BTreeMap<&PersonName, usize> = BTreeMap::new();
        let mut places: Vec<Vec<usize>> = Vec::new();
        for need in needs {
            let mut able = BTreeSet::new();
            for name in need.from.iter().flat_map(|who| self.meant(who)) {
                let next = numbers.len();
                able.insert(*numbers.entry(name).or_insert(next));
                if able.len() >= count {
                    break;
                }
            }
            places.extend(std::iter::repeat_n(able.into_iter().collect(), usize::from(need.need)));
        }
        !self.is_whole || can_fill(&places)
    }

    fn meant<'p>(&'p self, who: &'p Who) -> Box<dyn Iterator<Item = &'p PersonName> + 'p> {
        match who {
            Who::Group(name) => Box::new(self.members.get(name).into_iter().flatten()),
            Who::Person(name) => Box::new(self.people.get_key_value(name).map(|(name, _)| name).into_iter()),
        }
    }
}

/// A key that logs two people in would make one of them the other.
fn check_key(
    sheet: &Sheet<'_>,
    key: &Found<PublicKey>,
    person: &PersonName,
    seen: &mut BTreeMap<PublicKey, PersonName>,
) {
    match seen.get(&key.value) {
        Some(other) if other != person => {
            sheet.problem(&key.spot, format!("{other} has this key as well; each key belongs to one person"));
        }
        Some(_) => {}
        None => drop(seen.insert(key.value.clone(), person.clone())),
    }
}

/// `[roles]`, resolved.
pub(super) struct Roles {
    pub(super) operators: BTreeSet<PersonName>,
    pub(super) auditors: BTreeSet<PersonName>,
    pub(super) ca_operators: u8,
}

/// `[roles]`: operators and auditors.
pub(super) fn roles(root: &Table<'_>, people: &People) -> Option<Roles> {
    let example = "[roles] with operator = [\"person:you@example.com\"]";
    let table = root.needed("roles", root.table("roles"), example)?;
    let list = |key: &'static str| {
        let found = table.list(key, WHO_MAX, Who::parse);
        if let Some(found) = &found {
            people.check_persons(table.sheet(), &found.value);
            people.check_groups(table.sheet(), &found.value, "it gives the role to nobody");
        }
        found
    };
    let (operator, auditor) = (list("operator"), list("auditor"));
    let operator = table.needed("operator", operator, "operator = [\"person:you@example.com\"]");
    let members = |list: &[Found<Who>]| -> BTreeSet<PersonName> {
        list.iter().flat_map(|who| people.meant(&who.value)).cloned().collect()
    };
    let auditors = auditor.map(|found| members(&found.value)).unwrap_or_default();
    let can_log_in = |name: &PersonName| people.people.get(name).is_some_and(|person| !person.keys.is_empty());
    let operator = operator?;
    let operators = members(&operator.value);
    if people.is_whole && !operators.iter().any(can_log_in) {
        let problem = "this leaves no operator who could log in: name a person of this policy who has a key";
        table.sheet().problem(&operator.spot, problem);
    }
    let needed = table.integer("ca_operators", 1..=2);
    if let Some(found) = needed.as_ref().filter(|found| found.value > 1)
        && people.is_whole
        && operators.iter().filter(|name| can_log_in(name)).count() < 2
    {
        let problem = "this leaves fewer operators who could log in than CA keys would need: name two who have a key";
        table.sheet().problem(&found.spot, problem);
    }
    let ca_operators = needed.map_or(1, |found| u8::try_from(found.value).unwrap_or(u8::MAX));
    Some(Roles { operators, auditors, ca_operators })
}

fn values<T>(found: Option<Found<Vec<Found<T>>>>) -> Vec<T> {
    found.map(|found| found.value.into_iter().map(|found| found.value).collect()).unwrap_or_default()
}
