//! Stored parts that contradict each other are refused: a row that was damaged, edited, or is of another version.

use hallpass::access::{AccessRequest, Extending, Parts, State};
use hallpass::name::{Account, Digest, PolicyVersion, Principal, Serial};
use hallpass::policy::Approvals;
use hallpass::ssh::cert::{Extension, ForceCommand};
use hallpass::time::{Lifetime, Window};

use super::world::{AT_ONCE, BOUND, NOON, ONE, TWO, World, are_bound, at, hosts, key, minutes, person};

/// A request in every state, and with every kind of extension.
pub(super) fn in_every_state() -> Vec<(&'static str, World)> {
    let pending = World::asked(&TWO);
    let mut half = pending.clone();
    half.step(half.approve("bob"), NOON + 10);
    let mut approved = World::asked(&ONE);
    approved.step(approved.approve("bob"), NOON + 60);
    let issued = World::issued();
    let mut waiting = issued.clone();
    waiting.step(waiting.extend("alice", minutes(20)), NOON + 600);
    let mut extended = waiting.clone();
    extended.step(extended.approve("carol"), NOON + 700);
    let [mut denied, mut withdrawn, mut lapsed] = [World::asked(&ONE), approved.clone(), World::asked(&ONE)];
    denied.step(denied.deny("bob"), NOON + 10);
    withdrawn.step(withdrawn.withdraw("alice"), NOON + 90);
    lapsed.step(hallpass::access::Command::Tick, NOON + 1800);
    let [mut ended, mut expired] = [extended.clone(), extended.clone()];
    ended.step(ended.end("alice"), NOON + 900);
    expired.step(hallpass::access::Command::Tick, NOON + 7200);
    vec![
        ("pending", pending),
        ("pending, one of two", half),
        ("approved", approved),
        ("approved at once", World::asked(&AT_ONCE)),
        ("issued", issued),
        ("issued, asking for more", waiting),
        ("issued, more granted", extended),
        ("denied", denied),
        ("withdrawn", withdrawn),
        ("lapsed", lapsed),
        ("ended", ended),
        ("expired", expired),
    ]
}

/// Those, and one whose certificate is bound by everything that can bind it.
fn all_kinds() -> Vec<(&'static str, World)> {
    [in_every_state(), vec![("issued, bound", World::issued_under(&BOUND))]].concat()
}

#[test]
fn every_request_reads_back_from_its_own_parts() {
    for (name, world) in all_kinds() {
        let parts = world.request.parts().clone();
        assert_eq!(AccessRequest::from_parts(parts), Ok(world.request), "{name}");
    }
}

/// Refuses the change, in each state where it changes anything and `applies` says so.
fn is_refused(what: &str, applies: impl Fn(&Parts) -> bool, change: impl Fn(&mut Parts)) {
    let mut tried = 0;
    for (name, world) in all_kinds() {
        let mut parts = world.request.parts().clone();
        if !applies(&parts) {
            continue;
        }
        change(&mut parts);
        if parts != *world.request.parts() {
            tried += 1;
            assert!(AccessRequest::from_parts(parts).is_err(), "{what}: {name}");
        }
    }
    assert!(tried > 0, "{what}: nothing was tried");
}

fn granted(parts: &Parts) -> bool {
    !parts.grants.is_empty()
}

fn certified(parts: &Parts) -> bool {
    parts.grants.first().is_some_and(|grant| grant.certificate.is_some())
}

#[test]
fn nothing_that_was_approved_can_be_edited_in_a_row() {
    is_refused("asker", granted, |parts| parts.asker = person("dave"));
    is_refused("key", granted, |parts| parts.key = key(98));
    is_refused("reason", granted, |parts| parts.reason += "!");
    is_refused("ticket", granted, |parts| parts.ticket = None);
    is_refused("policy", granted, |parts| parts.policy = PolicyVersion(9));
    is_refused("start", granted, |parts| parts.start = Some(at(NOON)));
    is_refused("account", granted, |parts| parts.terms.account = Account::parse("root").unwrap());
    is_refused("lifetime", granted, |parts| parts.terms.lifetime = minutes(41));
    is_refused("backdate", granted, |parts| parts.terms.backdate = minutes(1));
    is_refused("principal", granted, |parts| {
        for principal in parts.terms.hosts.values_mut() {
            *principal = Principal::parse("root@web-1").unwrap();
        }
    });
    is_refused("hosts", granted, |parts| parts.terms.hosts.retain(|host, _| hosts(&["web-1"]).contains(host)));
    is_refused("permits", granted, |parts| {
        parts.terms.options.permits.insert(Extension::AgentForwarding);
    });
    is_refused("fewer permits", granted, |parts| {
        parts.terms.options.permits.remove(&Extension::Pty);
    });
    is_refused("verify-required", granted, |parts| {
        parts.terms.options.verify_required = !parts.terms.options.verify_required;
    });
    let bound = |parts: &Parts| are_bound(&parts.terms.options);
    is_refused("sources", granted, |parts| {
        parts.terms.options.source_addresses.insert("192.0.2.0/24".parse().unwrap());
    });
    is_refused("no sources", bound, |parts| parts.terms.options.source_addresses.clear());
    is_refused("fewer sources", bound, |parts| {
        parts.terms.options.source_addresses.pop_first();
    });
    let command = |text: &str| Some(ForceCommand::parse(text).unwrap());
    is_refused("command", granted, |parts| parts.terms.options.force_command = command("journalctl -u API"));
    is_refused("no command", bound, |parts| parts.terms.options.force_command = None);
    is_refused("digest", granted, |parts| parts.grants[0].digest = Digest::new([0; 32]));
}

#[test]
fn no_window_can_be_moved_in_a_row() {
    let later = |window: Window| Window::new(window.start(), window.end().plus(minutes(1)).unwrap()).unwrap();
    let earlier = |window: Window| Window::new(window.start().minus(minutes(1)).unwrap(), window.end()).unwrap();
    is_refused("a later end", granted, |parts| parts.grants[0].window = later(parts.grants[0].window));
    is_refused("an earlier start", granted, |parts| parts.grants[0].window = earlier(parts.grants[0].window));
    is_refused("approved later", granted, |parts| {
        parts.grants[0].approved = parts.grants[0].approved.plus(minutes(1)).unwrap();
    });
    let extended = |parts: &Parts| parts.grants.len() == 2;
    is_refused("an extension that shortens", extended, |parts| {
        parts.grants[1].window = Window::new(at(NOON + 100), at(NOON + 200)).unwrap();
    });
    is_refused("an extension that starts earlier", extended, |parts| {
        let end = parts.grants[1].window.end();
        parts.grants[1].window = Window::new(at(NOON - 600), end).unwrap();
    });
    is_refused("an extension after the end", extended, |parts| parts.grants[1].approved = at(NOON + 7200));
}

#[test]
fn no_certificate_can_be_exchanged_in_a_row() {
    let (other, _) = World::asking(
        &AT_ONCE,
        &hallpass::policy::Question { lifetime: Some(minutes(41)), ..super::world::question(NOON) },
    )
    .unwrap();
    let mut other = other;
    other.fetch(NOON);
    let foreign = other.request.grant().unwrap().certificate.clone();
    is_refused("another's", certified, |parts| parts.grants[0].certificate = foreign.clone());
    is_refused("another serial", certified, |parts| {
        if let Some(certificate) = &mut parts.grants[0].certificate {
            certificate.serial = Serial::new(77).unwrap();
        }
    });
    is_refused("none", certified, |parts| parts.grants[0].certificate = None);
}

#[test]
fn the_asker_cannot_be_put_among_the_approvers() {
    is_refused("grant", granted, |parts| {
        parts.grants[0].approvers.insert(person("alice"), None);
    });
    let pending = |parts: &Parts| matches!(parts.state, State::Pending { .. });
    is_refused("pending", pending, |parts| {
        if let State::Pending { approvals, .. } = &mut parts.state {
            approvals.insert(person("alice"), None);
        }
    });
    is_refused(
        "extension",
        |parts| parts.extension.is_some(),
        |parts| {
            if let Some(extension) = &mut parts.extension {
                extension.approvals.insert(person("alice"), None);
            }
        },
    );
    is_refused(
        "approvers where nobody was asked",
        |parts| parts.quorum.is_none(),
        |parts| {
            parts.grants[0].approvers = Approvals::from([(person("bob"), None)]);
        },
    );
    is_refused(
        "no approvers where somebody was asked",
        |parts| granted(parts) && parts.quorum.is_some(),
        |parts| {
            parts.grants[0].approvers = Approvals::new();
        },
    );
}

#[test]
fn a_state_that_does_not_fit_the_rest_is_refused() {
    let states = || {
        [
            State::Pending { approvals: Approvals::new(), decide_by: at(NOON + 1800) },
            State::Approved,
            State::Issued,
            State::Denied { by: person("bob"), reason: "no".to_owned() },
            State::Withdrawn,
            State::Lapsed,
            State::Ended { by: person("alice"), reason: String::new(), at: at(NOON) },
            State::Expired,
        ]
    };
    // What each set of windows and certificates can be, by hand; everything else must be refused.
    let fits = |parts: &Parts, state: &State| {
        let (grants, unanswered) = (parts.grants.len(), parts.quorum.is_some());
        match state {
            State::Pending { .. } | State::Denied { .. } | State::Lapsed => grants == 0 && unanswered,
            State::Withdrawn => grants == 0 || grants == 1 && !certified(parts),
            State::Approved => grants == 1 && !certified(parts),
            State::Issued => certified(parts),
            State::Ended { .. } | State::Expired => grants > 0 && parts.extension.is_none(),
        }
    };
    for (name, world) in in_every_state() {
        for state in states() {
            let parts = Parts { state: state.clone(), ..world.request.parts().clone() };
            let expected = fits(&parts, &state);
            assert_eq!(AccessRequest::from_parts(parts).is_ok(), expected, "{name} as {}", state.word());
        }
    }
}

#[test]
fn an_extension_waits_only_for_what_it_can_extend() {
    let (_, waiting) = in_every_state().into_iter().find(|(name, _)| *name == "issued, asking for more").unwrap();
    let extension = waiting.request.parts().extension.clone();
    is_refused(
        "somewhere else",
        |parts| !matches!(parts.state, State::Issued),
        |parts| {
            parts.extension.clone_from(&extension);
        },
    );
    let waits = |parts: &Parts| parts.extension.is_some();
    let change = |with: fn(&mut Extending)| {
        move |parts: &mut Parts| {
            if let Some(extension) = &mut parts.extension {
                with(extension);
            }
        }
    };
    is_refused("no time", waits, change(|extension| extension.lifetime = Lifetime::ZERO));
    is_refused("beyond the end", waits, change(|extension| extension.decide_by = at(NOON + 7200)));
}

#[test]
fn a_request_for_nothing_is_refused() {
    is_refused("no host", |_| true, |parts| parts.terms.hosts.clear());
    is_refused("no time", |_| true, |parts| parts.terms.lifetime = Lifetime::ZERO);
}
