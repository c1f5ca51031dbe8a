//! Who must agree, against the plainest definition: try every way to seat the approvers.

use std::collections::BTreeSet;

use hallpass::identity::{Directory, Person};
use hallpass::name::{GroupName, PersonName};
use hallpass::policy::{Approvals, Need, Quorum, Who};
use proptest::prelude::*;

fn person(n: usize) -> PersonName {
    PersonName::parse(&format!("p{n}")).unwrap()
}

fn group(n: usize) -> GroupName {
    GroupName::parse(&format!("g{n}")).unwrap()
}

/// People `p0` to `p5`; bit `g` of a number says that this person is in group `g`.
fn directory(groups: &[u8]) -> Directory {
    Directory::new(groups.iter().enumerate().map(|(n, bits)| Person {
        name: person(n),
        groups: (0..3).filter(|g| bits & (1 << g) != 0).map(group).collect(),
        keys: Vec::new(),
    }))
}

fn quorum(needs: &[(u8, Vec<usize>)]) -> Quorum {
    let who = |n: usize| if n < 3 { Who::Group(group(n)) } else { Who::Person(person(n - 3)) };
    let need = |(need, from): &(u8, Vec<usize>)| Need {
        need: *need,
        from: from.iter().map(|n| who(*n)).collect(),
        signed: false,
    };
    Quorum::new(needs.iter().map(need).collect()).unwrap()
}

/// All of them approved, without signing.
fn unsigned(people: impl IntoIterator<Item = PersonName>) -> Approvals {
    people.into_iter().map(|name| (name, None)).collect()
}

/// Whether the places from `place` on can be filled with people who are still free, by trying everything.
fn can_seat(places: &[&Need], free: &BTreeSet<PersonName>, directory: &Directory) -> bool {
    let Some((place, rest)) = places.split_first() else { return true };
    free.iter().filter(|name| place.includes(name, directory)).any(|name| {
        let mut free = free.clone();
        free.remove(name);
        can_seat(rest, &free, directory)
    })
}

#[test]
fn somebody_in_two_groups_counts_for_the_one_where_they_are_needed() {
    // p0 is in both groups, p1 only in g0: they meet "1 of g0 and 1 of g1", in whatever order the needs stand.
    let directory = directory(&[0b11, 0b01]);
    for needs in [[(1, vec![0]), (1, vec![1])], [(1, vec![1]), (1, vec![0])]] {
        let quorum = quorum(&needs);
        assert!(quorum.is_met(&unsigned([person(0), person(1)]), &directory));
        assert!(!quorum.is_met(&unsigned([person(0)]), &directory));
        assert!(!quorum.is_met(&unsigned([person(1)]), &directory));
    }
}

#[test]
fn people_who_left_the_directory_count_for_nothing() {
    let quorum = quorum(&[(1, vec![3 + 5])]);
    assert!(!quorum.is_met(&unsigned([person(5)]), &directory(&[0, 0])));
    assert!(quorum.is_met(&unsigned([person(5)]), &directory(&[0; 6])));
}

#[test]
fn where_signatures_are_wanted_only_those_by_a_key_of_the_person_count() {
    let key = |seed: u8| hallpass::ssh::private::SessionKey::generate([seed; 32]).public_key().clone();
    let person_with = |n: usize, seed: u8| Person { name: person(n), groups: [group(0)].into(), keys: vec![key(seed)] };
    let directory = Directory::new([person_with(0, 10), person_with(1, 11)]);
    let need = |need: u8, signed: bool| Need { need, from: [Who::Group(group(0))].into(), signed };
    let met = |needs: &[Need], given: [Option<u8>; 2]| {
        let approvals: Approvals = given
            .into_iter()
            .enumerate()
            .map(|(n, seed)| (person(n), seed.map(|seed| key(seed).fingerprint())))
            .collect();
        Quorum::new(needs.to_vec()).unwrap().is_met(&approvals, &directory)
    };
    for (given, one_signed, two_signed) in [
        ([None, None], false, false),
        ([Some(10), None], true, false),
        ([None, Some(11)], true, false),
        ([Some(10), Some(11)], true, true),
        ([Some(11), Some(10)], false, false),
        ([Some(10), Some(10)], true, false),
    ] {
        assert!(met(&[need(2, false)], given), "{given:?}");
        assert_eq!(met(&[need(1, true), need(1, false)], given), one_signed, "{given:?}");
        assert_eq!(met(&[need(2, true)], given), two_signed, "{given:?}");
    }
    let quorum = Quorum::new(vec![need(1, true)]).unwrap();
    assert!(quorum.is_eligible(&person(0), &directory), "who could sign can help");
    assert!(!quorum.counts(&person(0), None, &directory));
    assert!(quorum.wants_signature_of(&person(0), &directory) && !quorum.wants_signature_of(&person(5), &directory));
    assert!(quorum.counts(&person(0), Some(key(10).fingerprint()), &directory));
}

#[test]
fn there_is_no_quorum_of_nothing() {
    assert_eq!(Quorum::new(Vec::new()), None);
}

proptest! {
    #[test]
    fn a_quorum_is_met_exactly_when_some_seating_meets_it(
        groups in prop::collection::vec(0..8_u8, 6),
        needs in prop::collection::vec((1..4_u8, prop::collection::vec(0..9_usize, 1..4)), 1..4),
        approvers in 0..64_u8,
        asker in 0..6_usize,
    ) {
        let (directory, quorum) = (directory(&groups), quorum(&needs));
        let chosen: BTreeSet<PersonName> = (0..6).filter(|n| approvers & (1 << n) != 0).map(person).collect();
        let places: Vec<&Need> =
            quorum.needs().iter().flat_map(|need| std::iter::repeat_n(need, usize::from(need.need))).collect();
        let is_met = quorum.is_met(&unsigned(chosen.clone()), &directory);
        prop_assert_eq!(is_met, can_seat(&places, &chosen, &directory));
        prop_assert!(!is_met || chosen.len() >= places.len(), "somebody was counted twice");

        let eligible = quorum.eligible(&person(asker), &directory);
        prop_assert!(!eligible.contains(&person(asker)), "nobody approves their own request");
        let helpful: BTreeSet<PersonName> =
            chosen.iter().filter(|name| quorum.is_eligible(name, &directory)).cloned().collect();
        prop_assert_eq!(quorum.is_met(&unsigned(helpful), &directory), is_met, "the others change nothing");
        for name in chosen.iter().filter(|name| **name != person(asker)) {
            prop_assert_eq!(eligible.contains(name), quorum.is_eligible(name, &directory));
        }
    }
}
