//! All histories of a small world up to a depth, not a sample of them: two approvers, two policies, a clock that makes
//! what waits lapse and what is granted end. The [`Ledger`] checks each step; histories that have the same future are
//! walked once.

use std::collections::{BTreeMap, BTreeSet};

use hallpass::access::{Command, Narrowing};

use super::ledger::Ledger;
use super::world::{BOB_LEFT, NOON, ONE, Shape, TWO, World, minutes};

/// How many steps a history has.
const DEPTH: usize = 7;

/// Every history over these two policies, in both orders.
fn explore(policies: [Shape; 2]) -> BTreeMap<&'static str, usize> {
    let mut reached = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut edge = vec![(Ledger::new(World::asked(&policies[0]), policies[0]), 0_usize, NOON)];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for (ledger, policy, now) in edge {
            for (ledger, policy, now) in futures(&ledger, policies, policy, now) {
                if known.insert(format!("{} {policy} {now}", ledger.key())) {
                    *reached.entry(ledger.world.word()).or_insert(0) += 1;
                    next.push((ledger, policy, now));
                }
            }
        }
        edge = next;
    }
    reached
}

/// All that can happen next.
fn futures(ledger: &Ledger, policies: [Shape; 2], policy: usize, now: u64) -> Vec<(Ledger, usize, u64)> {
    let world = &ledger.world;
    let shorter = Narrowing { lifetime: Some(minutes(10)), ..Narrowing::default() };
    let commands = [
        world.approve("alice"),
        world.approve("bob"),
        world.approve("carol"),
        world.approve_narrowed("bob", shorter),
        world.deny("carol"),
        world.withdraw("alice"),
        Command::Tick,
        world.certify("alice"),
        world.extend("alice", minutes(15)),
        world.end("alice"),
    ];
    let mut futures = Vec::new();
    for command in commands {
        let mut ledger = ledger.clone();
        ledger.act(&command, now, false);
        futures.push((ledger, policy, now));
    }
    if world.request.next_tick().is_none() {
        // Nothing left this state; neither time nor policy will change that.
        return futures;
    }
    let mut switched = ledger.clone();
    switched.switch(&policies[1 - policy], true);
    futures.push((switched, 1 - policy, now));
    futures.push((ledger.clone(), policy, now + 15 * 60));
    futures
}

#[test]
fn no_short_history_breaks_a_promise() {
    for policies in [[ONE, TWO], [TWO, ONE], [ONE, BOB_LEFT]] {
        let reached = explore(policies);
        let words: Vec<&str> = reached.keys().copied().collect();
        let all = ["approved", "denied", "ended", "expired", "issued", "lapsed", "pending", "withdrawn"];
        assert_eq!(words, all, "every state was reached");
    }
}
