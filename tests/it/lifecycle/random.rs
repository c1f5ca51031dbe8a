//! Long random histories: commands by anybody, narrowings, changes of policy, a clock that jumps, also backwards, and
//! permits lost in a crash. The [`Ledger`] checks each step.

use std::collections::BTreeSet;

use hallpass::access::{Command, Narrowing};
use hallpass::name::Digest;
use hallpass::policy::Question;
use hallpass::ssh::cert::Extension;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::ledger::Ledger;
use super::world::{
    AT_ONCE, BOB_LEFT, BOUND, FEWER, NOON, NOTHING, ONE, SHORTER, Shape, TWO, World, at, hosts, minutes, person,
    proven, question,
};

const PEOPLE: [&str; 5] = ["alice", "bob", "carol", "dave", "omar"];

/// The policies, and whether they allow anything.
const SHAPES: [(Shape, bool); 8] = [
    (ONE, true),
    (TWO, true),
    (AT_ONCE, true),
    (BOB_LEFT, true),
    (SHORTER, true),
    (FEWER, true),
    (BOUND, true),
    (NOTHING, false),
];

#[derive(Clone, Debug)]
enum Act {
    Approve { by: &'static str, narrow: Narrowing, stale: bool },
    Deny(&'static str),
    Withdraw(&'static str),
    Tick,
    Certify { by: &'static str, crash: bool },
    Extend { by: &'static str, minutes: u32 },
    End { by: &'static str, is_operator: bool },
    Switch(usize),
}

fn anybody() -> impl Strategy<Value = &'static str> {
    // Mostly those who can do something.
    prop_oneof![3 => Just("bob"), 3 => Just("carol"), 2 => Just("alice"), 1 => prop::sample::select(&PEOPLE[..])]
}

fn mostly_alice() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just("alice"), 1 => prop::sample::select(&PEOPLE[..])]
}

fn narrowing() -> impl Strategy<Value = Narrowing> {
    let lifetime = prop::option::weighted(0.5, (0_u32..45).prop_map(minutes));
    let only = vec![vec!["web-1"], vec!["web-2"], vec!["web-1", "web-2"], vec!["db-1", "web-1"], vec![]];
    let only = prop::option::weighted(0.3, prop::sample::select(only));
    let without = prop::sample::subsequence(Extension::ALL.to_vec(), 0..=2);
    let narrow = (lifetime, only, without).prop_map(|(lifetime, only, without)| Narrowing {
        lifetime,
        only: only.map(|names| hosts(&names)),
        without: without.into_iter().collect::<BTreeSet<_>>(),
    });
    prop_oneof![2 => Just(Narrowing::default()), 1 => narrow]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (anybody(), narrowing(), prop::bool::weighted(0.1))
            .prop_map(|(by, narrow, stale)| Act::Approve { by, narrow, stale }),
        1 => anybody().prop_map(Act::Deny),
        1 => mostly_alice().prop_map(Act::Withdraw),
        1 => Just(Act::Tick),
        6 => (mostly_alice(), prop::bool::weighted(0.2)).prop_map(|(by, crash)| Act::Certify { by, crash }),
        4 => (mostly_alice(), 0_u32..70).prop_map(|(by, minutes)| Act::Extend { by, minutes }),
        1 => (anybody(), any::<bool>()).prop_map(|(by, is_operator)| Act::End { by, is_operator }),
        3 => (0..SHAPES.len()).prop_map(Act::Switch),
    ]
}

fn play(ledger: &mut Ledger, act: Act, now: u64, shown: Digest) {
    let world = &ledger.world;
    let (command, crash) = match act {
        Act::Approve { by, narrow, stale: true } => (world.approve_digest(by, narrow, shown), false),
        Act::Approve { by, narrow, stale: false } => (world.approve_narrowed(by, narrow), false),
        Act::Deny(by) => (world.deny(by), false),
        Act::Withdraw(by) => (world.withdraw(by), false),
        Act::Tick => (Command::Tick, false),
        Act::Certify { by, crash } => (world.certify(by), crash),
        Act::Extend { by, minutes: more } => (world.extend(by, minutes(more)), false),
        Act::End { by, is_operator } => {
            (Command::End { by: proven(by), is_operator, reason: "done".to_owned() }, false)
        }
        Act::Switch(number) => {
            let (shape, allows) = &SHAPES[number];
            return ledger.switch(shape, *allows);
        }
    };
    ledger.act(&command, now, crash);
}

/// The same histories each time.
fn config() -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(20_260_105);
    ProptestConfig { cases: 600, failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_history_breaks_a_promise(
        first in prop::sample::select(vec![ONE, TWO, TWO, AT_ONCE, BOB_LEFT, BOUND]),
        start in prop::option::weighted(0.3, 1_u64..2000),
        acts in prop::collection::vec((-90_i64..900, act()), 1..40),
    ) {
        let asked = Question { start: start.map(|ahead| at(NOON + ahead)), ..question(NOON) };
        let mut ledger = Ledger::new(World::asking(&first, &asked).unwrap().0, first);
        let (mut now, shown) = (NOON, ledger.world.request.digest());
        for (passed, act) in acts {
            now = now.saturating_add_signed(passed);
            play(&mut ledger, act, now, shown);
            let (request, policy) = (&ledger.world.request, &ledger.world.check.policy);
            prop_assert!(!request.may_decide(&person("alice"), policy, at(now)), "nobody decides their own request");
        }
    }
}
