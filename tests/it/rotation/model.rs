//! Random rotations beside hosts that follow late or never, certificates that last, keys that are stolen, and crashes anywhere (I-21, I-22,
//! I-23). What a host trusts is what it fetched last; what it proves is what it said at its last check-in.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::keyring::plan::{Blocked, Facts, apply, plan};
use hallpass::keyring::step::Step;
use hallpass::keyring::{Configured, Ring};
use hallpass::name::HostName;
use hallpass::ssh::bundle::KeyState;
use hallpass::ssh::cert::Purpose;
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

struct World {
    ring: Ring,
    version: u64,
    now: Timestamp,
    hosts: Vec<Host>,
    /// Key and end of each certificate for people.
    certificates: Vec<(Fingerprint, Timestamp)>,
    held: Vec<PublicKey>,
}

#[derive(Clone, Debug)]
enum Deed {
    Step {
        step: Step,
        key: Option<u8>,
        accepts: bool,
        is_cut_off: bool,
    },
    /// A host fetches the bundle; a proxy may give it an old one.
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
        6 => (step(), proptest::option::weighted(0.3, 0..KEYS), proptest::bool::weighted(0.1), proptest::bool::weighted(0.1))
            .prop_map(|(step, key, accepts, is_cut_off)| Deed::Step { step, key, accepts, is_cut_off }),
        8 => (0..HOSTS).prop_map(|host| Deed::Sync { host }),
        8 => (0..HOSTS).prop_map(|host| Deed::CheckIn { host }),
        4 => (1_u16..90).prop_map(|minutes| Deed::Issue { minutes }),
        4 => (1_u16..90).prop_map(|minutes| Deed::Pass { minutes }),
        1 => Just(Deed::Restart),
    ]
}

impl World {
    fn new() -> Self {
        let now = Timestamp::parse("2026-01-05T10:00:00Z").unwrap();
        let held: Vec<PublicKey> = (0..KEYS).map(key).collect();
        let mut world = Self {
            ring: Ring::default(),
            version: 1,
            now,
            hosts: vec![Host::default(); HOSTS],
            certificates: Vec::new(),
            held,
        };
        world.ring = world.restarted();
        (0..HOSTS).for_each(|host| world.sync(host));
        world
    }

    /// The ring that a start of the service makes of it.
    fn restarted(&self) -> Ring {
        let configured = Configured {
            user: &self.held[0],
            next: &self.held[1..],
            host: None,
            host_next: &[],
            trusted: &[],
            lasting: &self.lasting(),
        };
        self.ring.configured(&configured, self.now).unwrap_or_else(|_lost| self.ring.clone())
    }

    /// The keys by which certificates last.
    fn lasting(&self) -> BTreeSet<Fingerprint> {
        self.certificates.iter().filter(|(_, end)| self.now < *end).map(|(ca, _)| *ca).collect()
    }

    fn trusted(&self) -> BTreeSet<Fingerprint> {
        self.ring.trusted_by_hosts().iter().map(|key| key.key.fingerprint()).collect()
    }

    fn active(&self) -> Option<Fingerprint> {
        self.ring.active(Purpose::User).map(PublicKey::fingerprint)
    }

    fn sync(&mut self, host: usize) {
        let (version, trusts) = (self.version, self.trusted());
        let host = &mut self.hosts[host];
        assert!(version >= host.version, "a bundle never goes back (I-23)");
        *host = Host { version, trusts, is_accepted: false, ..host.clone() };
    }

    fn unproven(&self) -> BTreeMap<Fingerprint, BTreeMap<HostName, String>> {
        let why = |ca: Fingerprint| {
            let behind = |host: &Host| host.said.0 != self.version || !host.said.1.contains(&ca);
            let named = self.hosts.iter().enumerate().filter(|(_, host)| behind(host));
            named.map(|(number, _)| (name(number), "behind".to_owned())).collect()
        };
        self.trusted().into_iter().map(|ca| (ca, why(ca))).collect()
    }

    fn step(&mut self, step: Step, wanted: Option<u8>, accepts: bool) {
        let unproven = self.unproven();
        let accepted = if accepts { (0..HOSTS).map(name).collect() } else { BTreeSet::new() };
        let mut last_end = BTreeMap::new();
        for (ca, end) in &self.certificates {
            let last = last_end.entry(*ca).or_insert(*end);
            *last = (*last).max(*end);
        }
        let wanted = wanted.map(|seed| key(seed).fingerprint());
        let facts = Facts {
            purpose: Purpose::User,
            held: &self.held,
            listed: &[],
            key: if step == Step::Compromise { wanted.or_else(|| self.active()) } else { wanted },
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
        self.ring = apply(&self.ring, Purpose::User, &planned.moves, self.now).unwrap();
        self.version += 1;
        for (number, host) in self.hosts.iter_mut().enumerate() {
            host.is_accepted |= planned.unproven.contains(&name(number));
        }
        for one in &planned.moves {
            assert_eq!(before.known(&one.key).map(|known| known.state), one.from);
            assert!(!one.why.is_empty());
        }
    }

    /// A start has another key sign, of which no host knows yet.
    fn take_over(&mut self, restarted: Ring) {
        self.ring = restarted;
        self.version += 1;
        self.hosts.iter_mut().for_each(|host| host.is_accepted = true);
    }

    fn check(&self) {
        let is_lost = self.ring.keys().iter().any(|known| known.state == KeyState::Compromised);
        assert!(self.active().is_some() || is_lost, "one key signs, unless the only one was lost");
        let state = |ca: Fingerprint| {
            self.ring.keys().iter().find(|known| known.key.fingerprint() == ca).map(|known| known.state)
        };
        for (ca, end) in self.certificates.iter().filter(|(_, end)| self.now < *end) {
            if state(*ca) == Some(KeyState::Compromised) {
                assert!(!self.trusted().contains(ca), "hosts are told at once");
                continue;
            }
            assert!(self.trusted().contains(ca), "a certificate outlives its key until {end} (I-22)");
            for host in self.hosts.iter().filter(|host| !host.is_accepted) {
                assert!(host.trusts.contains(ca), "a host refuses a certificate that is not over (I-21): {host:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_certificate_opens_every_host_that_was_not_given_up(
        deeds in proptest::collection::vec(deed(), 1..80)
    ) {
        let mut world = World::new();
        let mut lost: BTreeSet<Fingerprint> = BTreeSet::new();
        for deed in deeds {
            match deed {
                // A crash before the commit leaves what was; one after it is a restart.
                Deed::Step { is_cut_off: true, .. } => {}
                Deed::Step { step, key, accepts, .. } => world.step(step, key, accepts),
                Deed::Sync { host } => world.sync(host),
                Deed::CheckIn { host } => {
                    let host = &mut world.hosts[host];
                    host.said = (host.version, host.trusts.clone());
                }
                Deed::Issue { minutes } => {
                    let end = world.now.plus(Lifetime::minutes(minutes.into())).unwrap();
                    world.certificates.extend(world.active().map(|ca| (ca, end)));
                }
                Deed::Pass { minutes } => world.now = world.now.plus(Lifetime::minutes(minutes.into())).unwrap(),
                Deed::Restart => {
                    let restarted = world.restarted();
                    if world.active().is_some() {
                        prop_assert_eq!(&restarted, &world.ring, "a start changes nothing that a rotation has done");
                    } else {
                        // After a theft that left none, the first configured key signs, whoever trusts it.
                        world.take_over(restarted);
                    }
                }
            }
            world.check();
            lost.extend(world.ring.keys().iter().filter(|k| k.state == KeyState::Compromised).map(|k| k.key.fingerprint()));
            prop_assert!(world.trusted().is_disjoint(&lost), "what was compromised never comes back");
        }
    }
}
