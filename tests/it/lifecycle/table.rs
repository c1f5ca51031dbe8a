//! The golden table: what each command, by each kind of person, does in each state. `UPDATE_GOLDEN=1` writes it anew.

use std::fmt::Write as _;

use hallpass::access::{Command, Narrowing};
use hallpass::policy::Question;

use super::rows::in_every_state;
use super::world::{NOON, ONE, World, kinds, minutes, question};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lifecycle/transitions.txt");

const HEADER: &str = "\
# What each command does to a request in each state. Made by tests/it/lifecycle/table.rs; UPDATE_GOLDEN=1 writes it anew.
#
# Alice asked for 40 minutes; bob and carol may approve; dave has no say; omar operates the service.
# Under each state: what happens, and the commands that make it happen, with who gives them. What happens is the next state
# (`=` for the same) and the log's events; or, with a minus, why it is refused. `permit`: the certificate may be made, and its
# log entry comes with it. A state is `late` when the clock has something to do about it that it has not done yet.
";

/// Each command with its name.
fn commands(world: &World) -> Vec<(&'static str, Command)> {
    let shorter = Narrowing { lifetime: Some(minutes(5)), ..Narrowing::default() };
    let other = World::asking(&ONE, &Question { lifetime: Some(minutes(41)), ..question(NOON) }).unwrap().0;
    vec![
        ("approve bob", world.approve("bob")),
        ("approve-shorter bob", world.approve_narrowed("bob", shorter)),
        ("approve-something-else bob", world.approve_digest("bob", Narrowing::default(), other.request.digest())),
        ("approve carol", world.approve("carol")),
        ("approve alice", world.approve("alice")),
        ("approve dave", world.approve("dave")),
        ("deny bob", world.deny("bob")),
        ("deny alice", world.deny("alice")),
        ("deny dave", world.deny("dave")),
        ("deny omar", world.deny("omar")),
        ("withdraw alice", world.withdraw("alice")),
        ("withdraw bob", world.withdraw("bob")),
        ("tick", Command::Tick),
        ("certify alice", world.certify("alice")),
        ("certify bob", world.certify("bob")),
        ("extend alice", world.extend("alice", minutes(10))),
        ("extend bob", world.extend("bob", minutes(10))),
        ("end alice", world.end("alice")),
        ("end bob", world.end("bob")),
        ("end omar", world.end("omar")),
        ("cut omar", Command::Cut { by: super::world::person("omar"), reason: "the disk died".to_owned() }),
    ]
}

fn table() -> String {
    let mut table = HEADER.to_owned();
    for (name, world) in in_every_state() {
        section(&mut table, name, &world, NOON + 1000);
        if world.request.next_tick().is_some() {
            section(&mut table, &format!("{name}, late"), &world, world.request.next_tick().unwrap().unix());
        }
    }
    table
}

fn section(table: &mut String, name: &str, world: &World, now: u64) {
    let before = world.word();
    let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
    for (command_name, command) in commands(world) {
        let mut world = world.clone();
        let outcome = match world.try_step(command, now) {
            Ok(taken) => {
                let next = if world.word() == before { "=" } else { world.word() };
                let permit = taken.permit.is_some().then_some("permit");
                [next].into_iter().chain(kinds(&taken.events)).chain(permit).collect::<Vec<_>>().join(" ")
            }
            Err(refusal) => format!("- {}", refusal.code()),
        };
        match outcomes.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, commands)) => commands.push(command_name),
            None => outcomes.push((outcome, vec![command_name])),
        }
    }
    writeln!(table, "\n{name}").unwrap();
    for (outcome, commands) in outcomes {
        writeln!(table, "    {outcome:34} {}", commands.join(", ")).unwrap();
    }
}

#[test]
fn the_transition_table_is_the_reviewed_one() {
    let table = table();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        #[expect(
            clippy::disallowed_methods,
            reason = "the golden file is written on demand, by a person who looks at it"
        )]
        std::fs::write(TABLE, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(TABLE).unwrap_or_default();
    assert!(table == reviewed, "run with UPDATE_GOLDEN=1 and review the difference; now it is:\n{table}");
}
