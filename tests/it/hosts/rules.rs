//! The rules of joining as properties: whatever hosts do in whatever order, names and keys stay apart, and the log replays.

use std::collections::BTreeSet;

use hallpass::audit::entry::Entry;
use hallpass::audit::event::Event;
use hallpass::audit::host_event::HostEvent;
use hallpass::identity::host::{HostAnswer, ProvenKeys, challenge, check};
use hallpass::identity::mac::MacKey;
use hallpass::identity::session::TokenHash;
use hallpass::inventory::enrol::{EnrolRefusal, Surroundings, Wish, enrol};
use hallpass::inventory::{EnrolledHost, Inventory};
use hallpass::name::{Digest, HostName, JoinId, NamePattern, Tag, TagKey};
use hallpass::policy::Policy;
use hallpass::ssh::host::{HOST_NAMESPACE, HostPurpose, statement};
use hallpass::ssh::sig::SshSignature;
use hallpass::time::Timestamp;
use proptest::prelude::*;

use super::machine::private;
use crate::support::fixtures::{House, at, person};

const SERVER: &str = "https://hallpass.example.com";

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

/// These keys, proven in the name of this host.
fn proven(name: &str, seeds: &[u8]) -> ProvenKeys {
    let mac = MacKey::new([1; 32]);
    let text = challenge(&mac, HostPurpose::Enrol, &host(name), [1; 16], at(0));
    let signed = statement(SERVER, HostPurpose::Enrol, &host(name), &text);
    let proofs = seeds.iter().map(|seed| {
        let key = private(*seed);
        let signature = key.sign(HOST_NAMESPACE, signed.as_bytes()).unwrap();
        (key.public_key().clone(), SshSignature::parse(&signature).unwrap())
    });
    let answer =
        HostAnswer { host: host(name), purpose: HostPurpose::Enrol, challenge: text, proofs: proofs.collect() };
    check(&answer, &mac, SERVER, at(0)).unwrap().0
}

/// An inventory that was told this much.
#[derive(Default)]
struct Told {
    inventory: Inventory,
    entries: Vec<Entry>,
}

impl Told {
    fn tell(&mut self, seconds: u64, event: HostEvent) {
        let index = u64::try_from(self.entries.len()).unwrap();
        let entry = Entry { index, at: at(seconds), event: event.into() };
        self.inventory.take(&entry);
        self.entries.push(entry);
    }

    /// A token number `n` for these names and so many hosts.
    fn join(&mut self, n: u8, names: &[&str], uses: u64, tags: &[&str], expires: Timestamp) {
        let event = HostEvent::JoinCreated {
            join: JoinId::from_random([n; 5]),
            by: person("olga@example.com"),
            token: Digest::new([n; 32]),
            uses,
            expires,
            names: names.iter().map(|name| NamePattern::parse(name).unwrap()).collect(),
            tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
            may_tag: Some(BTreeSet::from([TagKey::parse("role").unwrap()])),
        };
        self.tell(0, event);
    }

    fn enrol(
        &mut self,
        policy: &Policy,
        (token, name, seeds): (u8, &str, &[u8]),
        (names, tags): (&[&str], &[&str]),
        seconds: u64,
    ) -> Result<HostEvent, EnrolRefusal> {
        let wish = Wish {
            token: TokenHash([token; 32]),
            tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
            names: names.iter().map(|name| host(name)).collect(),
        };
        let around = Surroundings { policy, service_keys: &BTreeSet::new() };
        let event = enrol(&self.inventory, &proven(name, seeds), wish, around, at(seconds))?;
        self.tell(seconds, event.clone());
        Ok(event)
    }
}

const NEVER: u64 = 1_000_000;

#[test]
fn the_identity_is_the_ed25519_key_and_stays_what_it_was() {
    let house = House::new();
    let mut told = Told::default();
    told.join(1, &["app-*"], 5, &[], at(NEVER));
    let Ok(HostEvent::HostEnrolled { keys, .. }) = told.enrol(&house.policy, (1, "app-1", &[60, 61]), (&[], &[]), 1)
    else {
        panic!("enrolled")
    };
    assert_eq!(&keys[0], private(60).public_key());
    // The same keys in another order, and one more: the same host.
    let Ok(HostEvent::HostEnrolled { keys, .. }) =
        told.enrol(&house.policy, (1, "app-1", &[62, 61, 60]), (&[], &[]), 2)
    else {
        panic!("enrolled")
    };
    assert_eq!(&keys[0], private(60).public_key());
    assert_eq!(told.inventory.join(&JoinId::from_random([1; 5])).unwrap().used, 1);
    let other = told.enrol(&house.policy, (1, "app-1", &[61, 62]), (&[], &[]), 3);
    assert!(matches!(other, Err(EnrolRefusal::Known { event: Some(_), .. })));
}

#[test]
fn a_host_sets_the_tags_that_its_token_says_and_keeps_those_that_it_has() {
    let house = House::new();
    let mut told = Told::default();
    told.join(1, &["app-*"], 5, &["zone=eu"], at(NEVER));
    let mut enrol = |tags: &[&str], second| told.enrol(&house.policy, (1, "app-1", &[60]), (&[], tags), second);
    let refused = enrol(&["env=prod"], 1);
    let Err(EnrolRefusal::TagNotGiven { key, given, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((key.as_str(), given.as_str()), ("env", "role"));
    enrol(&["role=web", "zone=eu"], 2).unwrap();
    let refused = enrol(&["role=web", "env=prod"], 3);
    assert!(matches!(refused, Err(EnrolRefusal::TagNotGiven { .. })), "{refused:?}");
    // An operator's tags are in the host's file; it comes again with them.
    let tags = ["env=prod", "role=web", "zone=eu"].map(|tag| Tag::parse(tag).unwrap());
    let by = person("olga@example.com");
    told.tell(4, HostEvent::HostTagged { host: host("app-1"), by, tags: BTreeSet::from(tags) });
    let mut enrol = |tags: &[&str], second| told.enrol(&house.policy, (1, "app-1", &[60]), (&[], tags), second);
    enrol(&["env=prod", "role=db"], 5).unwrap();
    let refused = enrol(&["env=test"], 6);
    assert!(matches!(refused, Err(EnrolRefusal::TagNotGiven { .. })), "{refused:?}");
}

#[test]
fn of_a_tag_an_operators_newest_word_counts_whatever_the_host_comes_with() {
    let house = House::new();
    let mut told = Told::default();
    told.join(1, &["app-*"], 2, &["zone=eu"], at(NEVER));
    told.join(2, &["app-*"], 5, &["zone=af"], at(NEVER));
    let mut seconds = 0;
    let mut enrol = |told: &mut Told, token: u8, tags: &[&str]| {
        seconds += 1;
        told.enrol(&house.policy, (token, "app-1", &[60]), (&[], tags), seconds).unwrap();
        let tags = &told.inventory.host(&host("app-1")).unwrap().tags;
        tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let by_operator = |told: &mut Told, tags: &[&str]| {
        let tags = tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
        told.tell(9, HostEvent::HostTagged { host: host("app-1"), by: person("olga@example.com"), tags });
    };
    assert_eq!(enrol(&mut told, 1, &["role=web"]), "role=web zone=eu");
    assert_eq!(enrol(&mut told, 1, &[]), "role=web zone=eu", "a host alone loses no tag");
    assert_eq!(enrol(&mut told, 1, &["role=app"]), "role=app zone=eu", "its own it may change");
    by_operator(&mut told, &["env=prod", "role=db", "zone=us"]);
    for (token, tags) in [(1, &[][..]), (1, &["role=web"]), (1, &["zone=eu"]), (2, &[]), (1, &["zone=us"])] {
        assert_eq!(enrol(&mut told, token, tags), "env=prod role=db zone=us", "{token} {tags:?}");
    }
    by_operator(&mut told, &["env=prod"]);
    for (token, tags) in [(1, &["role=web", "zone=eu"][..]), (2, &["role=web"])] {
        assert_eq!(enrol(&mut told, token, tags), "env=prod", "{token} {tags:?}");
    }
    // A token that was made later is an operator's word, too; and an earlier one does not take it back.
    told.join(3, &["app-*"], 5, &["zone=ap"], at(NEVER));
    assert_eq!(enrol(&mut told, 3, &["role=web"]), "env=prod role=web zone=ap");
    assert_eq!(enrol(&mut told, 2, &[]), "env=prod role=web zone=ap");
    // Retired, it begins anew.
    let (by, reason) = (person("olga@example.com"), String::new());
    told.tell(9, HostEvent::HostRetired { host: host("app-1"), by, reason });
    told.join(4, &["app-*"], 1, &[], at(NEVER));
    assert_eq!(enrol(&mut told, 4, &[]), "");
    let log = told.entries.into_iter().map(|entry| (at(9), entry.event)).collect();
    assert_eq!(crate::audit_log::log::meaning_of(log), Vec::<String>::new());
}

#[test]
fn a_token_for_other_names_notes_nothing_at_a_host_and_one_for_its_name_not_without_end() {
    let house = House::new();
    let mut told = Told::default();
    told.join(1, &["app-*"], 5, &[], at(NEVER));
    told.join(2, &["zzz-1"], 5, &[], at(NEVER));
    told.enrol(&house.policy, (1, "app-1", &[60]), (&[], &[]), 1).unwrap();
    for seed in [61, 62] {
        let refused = told.enrol(&house.policy, (2, "app-1", &[seed]), (&[], &[]), 2);
        assert!(matches!(refused, Err(EnrolRefusal::Name { .. })), "{refused:?}");
    }
    let mut noted = |seconds: u64| {
        let mut count = 0;
        for seed in 61..=180 {
            match told.enrol(&house.policy, (1, "app-1", &[seed]), (&[], &[]), seconds) {
                Err(EnrolRefusal::Known { event, .. }) => {
                    count += usize::from(event.is_some());
                    event.into_iter().for_each(|event| told.tell(seconds, *event));
                }
                other => panic!("{other:?}"),
            }
        }
        count
    };
    assert_eq!(noted(10), 100);
    assert_eq!(noted(3609), 0, "still the same hour");
    assert_eq!(noted(3610), 100);
}

#[test]
fn a_persons_key_and_a_signing_key_are_no_host_keys() {
    let house = House::new();
    let mut told = Told::default();
    told.join(1, &["*"], 5, &[], at(NEVER));
    // Seed 3 is bob's login key.
    let refused = told.enrol(&house.policy, (1, "app-1", &[3]), (&[], &[]), 1);
    assert!(matches!(refused, Err(EnrolRefusal::Invalid(why)) if why.contains("login key")), "{refused:?}");
    let wish = Wish { token: TokenHash([1; 32]), tags: BTreeSet::new(), names: BTreeSet::new() };
    let service_keys = BTreeSet::from([private(60).public_key().fingerprint()]);
    let around = Surroundings { policy: &house.policy, service_keys: &service_keys };
    let refused = enrol(&told.inventory, &proven("app-1", &[60]), wish, around, at(1));
    assert!(matches!(refused, Err(EnrolRefusal::Invalid(why)) if why.contains("signing key")), "{refused:?}");
}

#[test]
fn enrolled_hosts_count_for_policy_like_hosts_of_the_file_and_retired_ones_do_not() {
    let house = House::new();
    let mut told = Told::default();
    told.join(1, &["*"], 5, &["zone=eu"], at(NEVER));
    told.enrol(&house.policy, (1, "web-77", &[60]), (&[], &["role=x"]), 1).unwrap();
    let joined = |told: &Told| {
        let hosts = told.inventory.active().map(EnrolledHost::for_policy);
        house.policy.with_hosts(hosts).unwrap()
    };
    let zone = Tag::parse("zone=eu").unwrap();
    assert_eq!(joined(&told).hosts_with_tag(&zone.key, &zone.value).count(), 1);
    assert_eq!(joined(&told).host(&host("web-77")).unwrap().tags.len(), 2);
    told.tell(2, HostEvent::HostLeft { host: host("web-77") });
    assert!(joined(&told).host(&host("web-77")).is_none());
    assert_eq!(joined(&told).hosts().count(), house.policy.hosts().count());
}

/// One thing that somebody tries.
#[derive(Clone, Debug)]
enum Try {
    Enrol { token: u8, name: u8, seeds: Vec<u8>, further: Vec<u8> },
    Retire(u8),
    Revoke(u8),
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let seeds =
        proptest::collection::btree_set(60_u8..64, 1..3).prop_map(|seeds| seeds.into_iter().collect::<Vec<u8>>());
    let further = proptest::collection::vec(0_u8..5, 0..2);
    let enrol = (1_u8..4, 0_u8..5, seeds, further).prop_map(|(token, name, seeds, further)| Try::Enrol {
        token,
        name,
        seeds,
        further,
    });
    let one = prop_oneof![6 => enrol, 1 => (0_u8..5).prop_map(Try::Retire), 1 => (1_u8..4).prop_map(Try::Revoke)];
    proptest::collection::vec(one, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_hosts_try_names_and_keys_stay_apart_and_tokens_give_no_more_than_they_were_made_for(tries in tries()) {
        let house = House::new();
        let mut told = Told::default();
        told.join(1, &["app-*"], 2, &[], at(NEVER));
        told.join(2, &["app-1", "app-2"], 1, &["role=web"], at(NEVER));
        told.join(3, &["*"], 9, &[], at(10));
        // A host of the file counts again when the enrolled one of its name has left.
        let hosts = "\n[[host]]\nname = \"app-2\"\ntags = { role = \"web\", zone = \"eu\" }\n[[host]]\nname = \"app-9\"\n";
        let file = format!("{}{hosts}", house.policy.text());
        let file = Policy::parse(&file, "policy.toml").unwrap();
        let mut joined = file.clone();
        for (second, one) in (1_u64..).zip(tries) {
            let before = told.inventory.clone();
            match one {
                Try::Enrol { token, name, seeds, further } => {
                    let names: Vec<String> = further.iter().map(|n| format!("app-{n}")).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    match told.enrol(&house.policy, (token, &format!("app-{name}"), &seeds), (&names, &[]), second) {
                        Err(EnrolRefusal::Known { event: Some(event), .. }) => told.tell(second, *event),
                        Err(_) => prop_assert_eq!(&before, &told.inventory),
                        Ok(_) => {}
                    }
                }
                Try::Retire(name) => {
                    let name = host(&format!("app-{name}"));
                    if told.inventory.host(&name).is_some_and(|host| host.is_active) {
                        told.tell(second, HostEvent::HostLeft { host: name });
                    }
                }
                Try::Revoke(n) => {
                    let join = JoinId::from_random([n; 5]);
                    if !told.inventory.join(&join).unwrap().is_revoked {
                        told.tell(second, HostEvent::JoinRevoked { join, by: person("olga@example.com") });
                    }
                }
            }
            let changed = (0..5).map(|n| host(&format!("app-{n}"))).filter(|name| before.host(name) != told.inventory.host(name));
            joined = file.with_changed(&joined, changed.map(|name| told.inventory.named_for_policy(name))).unwrap();
            let whole = file.with_hosts(told.inventory.active().map(EnrolledHost::for_policy)).unwrap();
            prop_assert!(joined.hosts().eq(whole.hosts()), "what has changed is all that differs");
            let (mut names, mut keys) = (BTreeSet::new(), BTreeSet::new());
            for host in told.inventory.active() {
                for name in host.names.iter().chain([&host.name]) {
                    prop_assert!(names.insert(name.clone()), "{} twice", name);
                }
                for key in &host.keys {
                    prop_assert!(keys.insert(key.clone()), "a key of {} twice", host.name);
                }
            }
            for name in (0..5).map(|n| host(&format!("app-{n}"))) {
                let is_called = |host: &&EnrolledHost| host.name == name || host.names.contains(&name);
                let mut called: Vec<&EnrolledHost> = told.inventory.called(&name).collect();
                called.sort_by_key(|host| &host.name);
                prop_assert_eq!(called, told.inventory.active().filter(is_called).collect::<Vec<_>>());
            }
            for key in (60..64).map(|seed| private(seed).public_key().clone()) {
                let has_it = |host: &&EnrolledHost| host.keys.contains(&key);
                prop_assert_eq!(told.inventory.with_key(&key), told.inventory.active().find(has_it));
            }
            for join in told.inventory.joins() {
                prop_assert!(join.used <= join.uses, "{join:?}");
                for name in &join.hosts {
                    prop_assert!(join.names.iter().any(|pattern| pattern.matches(name)));
                }
            }
        }
        // An inventory is what its entries say, whoever reads them.
        let mut again = Inventory::default();
        let copies: Vec<Entry> = told.entries.iter().map(|entry| Entry::parse(&entry.to_bytes()).unwrap()).collect();
        copies.iter().for_each(|entry| again.take(entry));
        prop_assert_eq!(&again, &told.inventory);
        // And the auditor's own rules agree that each of them could happen.
        let findings = crate::audit_log::log::meaning_of(copies.into_iter().map(|entry| (entry.at, entry.event)).collect());
        prop_assert_eq!(findings, Vec::<String>::new());
    }
}

#[test]
fn an_entry_of_another_subject_changes_no_inventory() {
    let mut inventory = Inventory::default();
    inventory.take(&Entry { index: 0, at: at(0), event: Event::LoggedOut { person: person("alice@example.com") } });
    assert_eq!(inventory, Inventory::default());
}
