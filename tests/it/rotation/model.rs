//! Random rotations beside hosts that follow late or never, certificates that last, keys that are stolen, and crashes anywhere (I-21, I-22).
//! What a host trusts is what it fetched last; what it proves is what it said at its last check-in. There are two user CAs, each with
//! hosts of its own, in one ring: whatever becomes of one is nothing to the other.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::keyring::plan::{Blocked, Facts, apply, plan};
use hallpass::keyring::step::Step;
use hallpass::keyring::{Ca, Configured, Ring, UserKeys};
use hallpass::name::{CaName, HostName};
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::private::SessionKey;
use hallpass::ssh::{Fingerprint, PublicKey};
use hallpass::time::{Lifetime, Timestamp};
use proptest::prelude::*;

const KEYS: u8 = 4;
const HOSTS: usize = 3;

fn key(seed: u8) -> PublicKey {
    SessionKey::generate([seed; 32]).public_key().clone()
}

fn name(host: usize) -> HostName {
    HostName::parse(&format!("web-{host}")).unwrap()
}

/// What a host has, and what it has said.
#[derive(Clone, Debug, Default)]
struct Host {
    version: u64,
    trusts: BTreeSet<Fingerprint>,
    /// The version that it had at its last check-in, with what it proved then.
    said: (u64, BTreeSet<Fingerprint>),
    /// It was locked out knowingly, or a theft left no time; until it fetches the bundle again.
    is_accepted: bool,
}

/// A user CA with its hosts.
struct Side {
    ca: Ca,
    version: u64,
    hosts: Vec<Host>,
    /// Key and end of each certificate for people.
    certificates: Vec<(Fingerprint, Timestamp)>,
    held: Vec<PublicKey>,
}

struct World {
    ring: Ring,
    now: Timestamp,
    sides: [Side; 2],
}

#[derive(Clone, Debug)]
enum Deed {
    Step {
        step: Step,
        key: Option<u8>,
        accepts: bool,
        is_cut_off: bool,
    },
    /// A host fetches the bundle. (That it takes no older one is the installer's, and tested there.)
    Sync {
        host: usize,
    },
    /// It says what it has, with the proofs that have worked.
    CheckIn {
        host: usize,
    },
    Issue {
        minutes: u16,
    },
    Pass {
        minutes: u16,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Start),
        5 => Just(Step::Switch),
        4 => Just(Step::Finish),
        2 => Just(Step::Abort),
        1 => Just(Step::Compromise),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (step(), proptest::option::weighted(0.3, prop_oneof![0..KEYS, 100..100 + KEYS]), proptest::bool::weighted(0.1), proptest::bool::weighted(0.1))
            .prop_map(|(step, key, accepts, is_cut_off)| Deed::Step { step, key, accepts, is_cut_off }),
        8 => (0..HOSTS).prop_map(|host| Deed::Sync { host }),
        8 => (0..HOSTS).prop_map(|host| Deed::CheckIn { host }),
        4 => (1_u16..90).prop_map(|minutes| Deed::Issue { minutes }),
        4 => (1_u16..90).prop_map(|minutes| Deed::Pass { minutes }),
        1 => Just(Deed::Restart),
    ]
}

fn side(ca: Ca, seeds: std::ops::Range<u8>) -> Side {
    let held = seeds.map(key).collect();
    Side { ca, version: 1, hosts: vec![Host::default(); HOSTS], certificates: Vec::new(), held }
}

fn prod() -> CaName {
    CaName::parse("prod").unwrap()
}

impl Side {
    fn keys(&self) -> UserKeys<'_> {
        UserKeys { first: &self.held[0], next: &self.held[1..], trusted: &[] }
    }

    fn name(&self) -> CaName {
        match &self.ca {
            Ca::User(name) => name.clone(),
            Ca::Host => panic!("not a user CA"),
        }
    }

    fn trusted(&self, ring: &Ring) -> BTreeSet<Fingerprint> {
        ring.trusted_by_hosts(&self.name()).iter().map(|key| key.key.fingerprint()).collect()
    }

    fn active(&self, ring: &Ring) -> Option<Fingerprint> {
        ring.active(&self.ca).map(PublicKey::fingerprint)
    }

    fn unproven(&self, ring: &Ring) -> BTreeMap<Fingerprint, BTreeMap<HostName, String>> {
        let why = |ca: Fingerprint| {
            let behind = |host: &Host| host.said.0 != self.version || !host.said.1.contains(&ca);
            let named = self.hosts.iter().enumerate().filter(|(_, host)| behind(host));
            named.map(|(number, _)| (name(number), "behind".to_owned())).collect()
        };
        self.trusted(ring).into_iter().map(|ca| (ca, why(ca))).collect()
    }
}

impl World {
    fn new() -> Self {
        let now = Timestamp::parse("2026-01-05T10:00:00Z").unwrap();
        let sides = [side(Ca::USER, 0..KEYS), side(Ca::User(prod()), 100..100 + KEYS)];
        let mut world = Self { ring: Ring::default(), now, sides };
        world.ring = world.restarted();
        for side in 0..2 {
            (0..HOSTS).for_each(|host| world.sync(side, host));
        }
        world
    }

    /// The ring that a start of the service makes of it.
    fn restarted(&self) -> Ring {
        let configured = Configured {
            user: self.sides[0].keys(),
            named: &BTreeMap::from([(prod(), self.sides[1].keys())]),
            host: None,
            host_next: &[],
            lasting: &self.lasting(),
        };
        self.ring.configured(&configured, self.now).unwrap_or_else(|_lost| self.ring.clone())
    }

    /// The keys by which certificates last.
    fn lasting(&self) -> BTreeSet<Fingerprint> {
        let certificates = self.sides.iter().flat_map(|side| &side.certificates);
        certificates.filter(|(_, end)| self.now < *end).map(|(ca, _)| *ca).collect()
    }

    fn sync(&mut self, side: usize, host: usize) {
        let side = &mut self.sides[side];
        let (version, trusts) = (side.version, side.trusted(&self.ring));
        let host = &mut side.hosts[host];
        *host = Host { version, trusts, is_accepted: false, ..host.clone() };
    }

    fn step(&mut self, number: usize, step: Step, wanted: Option<u8>, accepts: bool) {
        let side = &self.sides[number];
        let unproven = side.unproven(&self.ring);
        let accepted = if accepts { (0..HOSTS).map(name).collect() } else { BTreeSet::new() };
        let mut last_end = BTreeMap::new();
        for (ca, end) in self.sides.iter().flat_map(|side| &side.certificates) {
            let last = last_end.entry(*ca).or_insert(*end);
            *last = (*last).max(*end);
        }
        // Also a key of the other CA may be named, by mistake.
        let wanted = wanted.map(|seed| key(seed).fingerprint());
        let facts = Facts {
            ca: side.ca.clone(),
            held: &side.held,
            listed: &[],
            key: if step == Step::Compromise { wanted.or_else(|| side.active(&self.ring)) } else { wanted },
            unproven: &unproven,
            accepted: &accepted,
            last_end: &last_end,
            shown: &BTreeMap::new(),
            published: Lifetime::ZERO,
            is_early: false,
            now: self.now,
        };
        let planned = match plan(&self.ring, step, &facts) {
            Ok(planned) => planned,
            Err(Blocked::Unproven { hosts, .. }) => return assert!(!hosts.is_empty() && !accepts),
            Err(_) => return,
        };
        let before = self.ring.clone();
        self.ring = apply(&self.ring, &side.ca, &planned.moves, self.now).unwrap();
        let other = &self.sides[1 - number];
        assert_eq!(before.trusted_by_hosts(&other.name()), self.ring.trusted_by_hosts(&other.name()));
        assert_eq!(other.active(&before), other.active(&self.ring), "the other CA is left alone");
        let side = &mut self.sides[number];
        side.version += 1;
        for (number, host) in side.hosts.iter_mut().enumerate() {
            host.is_accepted |= planned.unproven.contains(&name(number));
        }
        for one in &planned.moves {
            assert_eq!(before.known(&one.key).map(|known| known.state), one.from);
            assert!(!one.why.is_empty());
        }
    }

    /// A start: it changes nothing that a rotation has done, unless the only key of a CA was stolen: then the first configured one signs,
    /// whoever trusts it.
    fn restart(&mut self) {
        let restarted = self.restarted();
        for side in &mut self.sides {
            if side.active(&self.ring).is_some() {
                assert_eq!(side.trusted(&restarted), side.trusted(&self.ring));
                assert_eq!(side.active(&restarted), side.active(&self.ring));
            } else {
                side.version += 1;
                side.hosts.iter_mut().for_each(|host| host.is_accepted = true);
            }
        }
        if self.sides.iter().all(|side| side.active(&self.ring).is_some()) {
            assert_eq!(restarted, self.ring, "a start changes nothing that a rotation has done");
        }
        self.ring = restarted;
    }

    fn check(&self) {
        let state = |ca: Fingerprint| {
            self.ring.keys().iter().find(|known| known.key.fingerprint() == ca).map(|known| known.state)
        };
        let [one, other] = &self.sides;
        assert!(one.trusted(&self.ring).is_disjoint(&other.trusted(&self.ring)), "no key opens hosts of both");
        for side in &self.sides {
            let mut ours = self.ring.keys().iter().filter(|known| known.ca == side.ca);
            let is_lost = ours.any(|known| known.state == KeyState::Compromised);
            assert!(side.active(&self.ring).is_some() || is_lost, "one key signs, unless the only one was lost");
            for (ca, end) in side.certificates.iter().filter(|(_, end)| self.now < *end) {
                if state(*ca) == Some(KeyState::Compromised) {
                    assert!(!side.trusted(&self.ring).contains(ca), "hosts are told at once");
                    continue;
                }
                assert!(side.trusted(&self.ring).contains(ca), "a certificate outlives its key until {end} (I-22)");
                for host in side.hosts.iter().filter(|host| !host.is_accepted) {
                    assert!(host.trusts.contains(ca), "a host refuses a certificate that is not over (I-21): {host:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_certificate_opens_every_host_that_was_not_given_up(
        deeds in proptest::collection::vec((0_usize..2, deed()), 1..120)
    ) {
        let mut world = World::new();
        let mut lost: BTreeSet<Fingerprint> = BTreeSet::new();
        for (side, deed) in deeds {
            match deed {
                // A crash before the commit leaves what was; one after it is a restart.
                Deed::Step { is_cut_off: true, .. } => {}
                Deed::Step { step, key, accepts, .. } => world.step(side, step, key, accepts),
                Deed::Sync { host } => world.sync(side, host),
                Deed::CheckIn { host } => {
                    let host = &mut world.sides[side].hosts[host];
                    host.said = (host.version, host.trusts.clone());
                }
                Deed::Issue { minutes } => {
                    let end = world.now.plus(Lifetime::minutes(minutes.into())).unwrap();
                    let active = world.sides[side].active(&world.ring);
                    world.sides[side].certificates.extend(active.map(|ca| (ca, end)));
                }
                Deed::Pass { minutes } => world.now = world.now.plus(Lifetime::minutes(minutes.into())).unwrap(),
                Deed::Restart => world.restart(),
            }
            world.check();
            lost.extend(world.ring.keys().iter().filter(|k| k.state == KeyState::Compromised).map(|k| k.key.fingerprint()));
            let trusted: BTreeSet<Fingerprint> = world.sides.iter().flat_map(|side| side.trusted(&world.ring)).collect();
            prop_assert!(trusted.is_disjoint(&lost), "what was compromised never comes back");
        }
    }
}
