//! Who gains and loses what: the sentences, and that nothing more is granted where no gain is told.

use hallpass::policy::diff::{Effect, diff};
use hallpass::policy::{Outcome, Policy};
use proptest::prelude::*;

use super::SMALL;
use super::properties::{RuleSpec, any_question, any_rule, any_rules, numbered, policy};

/// The differences that one change of [`SMALL`] makes, with `+` before gains.
fn changes(old: &str, new: &str) -> Vec<String> {
    assert!(SMALL.contains(old), "{old:?} is not in the policy");
    let parse = |text: &str| Policy::parse(text, "p").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let changes = diff(&parse(SMALL), &parse(&SMALL.replace(old, new)));
    changes.into_iter().map(|change| format!("{} {}", change.effect.sign(), change.text)).collect()
}

#[test]
fn comments_order_of_keys_and_names_of_rules_change_nothing() {
    assert_eq!(changes("version = 1", "# a comment\nversion = 1"), Vec::<String>::new());
    assert_eq!(changes("name = \"web\"", "name = \"other\""), Vec::<String>::new());
}

#[test]
fn a_lost_and_a_gained_account_are_told_for_each_person() {
    assert_eq!(
        changes("accounts = [\"deploy\"]", "accounts = [\"debug\"]"),
        [
            "+ alice gains debug on web-1 (1 of group:sre must agree, 30m up to 1h (4h in total))",
            "- alice loses deploy on web-1 (was: 1 of group:sre must agree, 30m up to 1h (4h in total))",
        ]
    );
}

#[test]
fn less_is_told_as_less_and_what_is_not_clearly_less_as_more() {
    let max = |max: &str| {
        changes(
            "hosts = [\"web-*\"]",
            &format!("hosts = [\"web-*\"]\nwindow = {{ default = \"10m\", max = \"{max}\" }}"),
        )
    };
    let was = "was 1 of group:sre must agree, 30m up to 1h (4h in total); becomes 1 of group:sre must agree, 10m up to";
    assert_eq!(max("30m"), [format!("- alice as deploy on web-1: {was} 30m (4h in total)")]);
    assert_eq!(max("2h"), [format!("+ alice as deploy on web-1: {was} 2h (4h in total)")]);
    let told = changes(
        "approval = [{ need = 1, from = [\"group:sre\"] }]",
        "approval = [{ need = 1, from = [\"person:carol\"] }]",
    );
    assert!(told[0].starts_with("+ alice as deploy on web-1: was 1 of group:sre"), "{told:?}");
}

#[test]
fn two_entries_alike_are_two_people() {
    let one = "approval = [{ need = 1, from = [\"group:sre\"] }]";
    let two = "approval = [{ need = 1, from = [\"group:sre\"] }, { need = 1, from = [\"group:sre\"] }]";
    let small = SMALL.replace("[[person]]\nname = \"carol\"", "[[person]]\nname = \"carol\"\ngroups = [\"sre\"]");
    let parse = |text: &str| Policy::parse(text, "p").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let (of_one, of_two) = (parse(&small), parse(&small.replace(one, two)));
    let effect = |old, new| diff(old, new).into_iter().map(|change| change.effect).collect::<Vec<_>>();
    assert_eq!(effect(&of_one, &of_two), [Effect::Loss]);
    assert_eq!(effect(&of_two, &of_one), [Effect::Gain]);
    let mut asked = super::question("alice", "web-1", "deploy");
    asked.reason = "it hangs, INC-7".to_owned();
    let Outcome::Ask(_, quorum) = of_two.evaluate(&asked).outcome else { panic!("it must be asked for") };
    assert_eq!(quorum.to_string(), "needs 1 of group:sre and 1 of group:sre");
}

#[test]
fn hosts_that_go_over_to_another_ca_are_named() {
    let cas = |order: [&str; 2]| {
        let line = |tag| format!("[[ca]]\ntag = \"role={tag}\"\nname = \"{tag}\"\n");
        SMALL.to_owned() + &line(order[0]) + &line(order[1])
    };
    let parse = |text: &str| Policy::parse(text, "p").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let told = |old: &str, new: &str| -> Vec<String> {
        let changes = diff(&parse(old), &parse(new));
        changes.into_iter().map(|change| format!("{} {}", change.effect.sign(), change.text)).collect()
    };
    let some = cas(["web", "db"]);
    let moved = ["~ CA db instead of default for db-1", "~ CA web instead of default for web-1"];
    let new = ["~ new: hosts with role=db are of CA db", "~ new: hosts with role=web are of CA web"];
    assert_eq!(told(SMALL, &some), [moved, new].concat());
    assert_eq!(told(&some, SMALL)[0], "~ CA default instead of db for db-1");
    assert_eq!(told(&some, &some), Vec::<String>::new());
    let other = "~ tags are looked at in another order for the CA of a host";
    assert_eq!(told(&some, &cas(["db", "web"])), [other]);
}

#[test]
fn a_reason_that_is_wanted_no_longer_is_told_with_a_difference() {
    let grant = "1 of group:sre must agree, 30m up to 1h (4h in total)";
    assert_eq!(
        changes("accounts = [\"deploy\"]", "accounts = [\"deploy\"]\nreason = { min_length = 0 }"),
        [format!("+ alice as deploy on web-1: was {grant}; becomes {grant}, without a reason")]
    );
}

#[test]
fn to_want_signatures_is_less_and_to_want_them_no_longer_is_more() {
    let was = "30m up to 1h (4h in total)";
    assert_eq!(
        changes("[roles]", "[defaults]\nsigned_approvals = \"required\"\n[roles]"),
        [format!(
            "- alice as deploy on web-1: was 1 of group:sre must agree, {was}; becomes 1 of group:sre (signed) must agree, {was}"
        )]
    );
    let signed = SMALL.replace("from = [\"group:sre\"] }]", "from = [\"group:sre\"], signed = true }]");
    let parse = |text: &str| Policy::parse(text, "p").unwrap();
    let back = diff(&parse(&signed), &parse(SMALL));
    assert!(back.len() == 1 && back[0].effect == Effect::Gain, "{back:?}");
}

#[test]
fn people_keys_roles_hosts_and_defaults_are_told() {
    assert_eq!(
        changes("groups = [\"sre\"]", "groups = [\"sre\", \"backend\"]"),
        [
            "+ bob gains deploy on web-1 (1 of group:sre must agree, 30m up to 1h (4h in total))",
            "+ bob joins group backend",
        ]
    );
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKpO3wrKuKHwsGh/p7l2Fwl6Gz66mEQTzVcH7GQmQmKb";
    let told = changes("name = \"bob\"", &format!("name = \"bob\"\nkeys = [\"{key}\"]"));
    assert!(told.len() == 1 && told[0].starts_with("+ bob may log in with SHA256:"), "{told:?}");
    assert_eq!(changes("operator = [", "auditor = [\"person:bob\"]\noperator = ["), ["+ bob becomes an auditor"]);
    assert_eq!(
        changes("tags = { role = \"web\" }", "tags = { role = \"db\" }\nscope = \"account\""),
        [
            "+ host web-1 takes plain account names now, like every other host of that scope",
            "~ host web-1 has other tags: was role=web; becomes role=db",
        ]
    );
    assert_eq!(changes("[roles]", "[defaults]\nbackdate = \"1m\"\n[roles]"), ["+ backdate becomes 1m, was 30s"]);
    assert_eq!(
        changes("[[person]]\nname = \"alice\"\ngroups = [\"backend\"]\n", ""),
        [
            "- alice is no longer in the directory",
            "- alice leaves group backend",
            "- alice loses deploy on web-1 (was: 1 of group:sre must agree, 30m up to 1h (4h in total))",
        ]
    );
}

#[test]
fn policies_too_big_to_compare_by_person_are_compared_by_rule_and_it_is_said() {
    let mut big = SMALL.to_owned();
    for n in 0..800 {
        big.push_str(&format!("[[person]]\nname = \"p{n}\"\ngroups = [\"backend\"]\n"));
        big.push_str(&format!("[[host]]\nname = \"h-{n}\"\n"));
    }
    let old = Policy::parse(&big, "p").unwrap();
    let new =
        Policy::parse(&big.replace("name = \"web\"\n", "name = \"web\"\nsources = [\"10.0.0.0/8\"]\n"), "p").unwrap();
    let told: Vec<String> = diff(&old, &new).into_iter().map(|change| change.text).collect();
    assert_eq!(
        told,
        ["rule \"web\" changes", "too many people and hosts to compare one by one; these are the rules that differ"]
    );
}

/// Ways to change a policy by hand, most of them meant to take something away.
fn changed(rules: &[RuleSpec], more: &RuleSpec, place: usize, how: u8) -> Vec<(usize, RuleSpec)> {
    let mut new = numbered(rules);
    let place = place % new.len();
    let rule = &mut new[place].1;
    match how {
        0 => drop(new.remove(place)),
        1 => new.insert(place, (99, RuleSpec { is_refusal: true, ..more.clone() })),
        2 => rule.max_minutes = more.max_minutes,
        3 => rule.approval |= more.approval,
        4 => rule.permits &= more.permits,
        5 => rule.sources = more.sources,
        6 => rule.reason = more.reason,
        7 => rule.when = more.when,
        8 => rule.who &= more.who,
        _ => new.swap(place, 0),
    }
    new
}

proptest! {
    #[test]
    fn a_policy_does_not_differ_from_itself(rules in any_rules()) {
        prop_assert_eq!(diff(&policy(&numbered(&rules)), &policy(&numbered(&rules))), Vec::new());
    }

    #[test]
    fn where_no_gain_is_told_nobody_can_do_more(
        rules in any_rules(), more in any_rule(), place in 0..6_usize, how in 0..10_u8,
        questions in prop::collection::vec(any_question(1), 20),
    ) {
        let (old, new) = (policy(&numbered(&rules)), policy(&changed(&rules, &more, place, how)));
        let changes = diff(&old, &new);
        if changes.iter().any(|change| change.effect == Effect::Gain) {
            return Ok(());
        }
        for question in questions {
            let terms = |policy: &Policy| match policy.evaluate(&question).outcome {
                Outcome::Allow(terms) => Some((terms, Vec::new())),
                Outcome::Ask(terms, quorum) => Some((terms, quorum.needs().to_vec())),
                Outcome::Refuse(_) => None,
            };
            let Some((is, needs)) = terms(&new) else { continue };
            let Some((was, needed)) = terms(&old) else { panic!("{question:?} is granted now: {changes:?}") };
            prop_assert!(is.lifetime_max <= was.lifetime_max && is.lifetime <= was.lifetime);
            prop_assert!(is.options.permits.is_subset(&was.options.permits));
            prop_assert!(needed.iter().all(|need| needs.contains(need)));
            prop_assert!(changes.is_empty() || is.hosts == was.hosts);
        }
    }
}

#[test]
fn what_hosts_of_scope_account_no_longer_demand_for_each_other_is_a_gain() {
    let text = |host: &str, rule: &str| {
        format!(
            "version = 1\n[roles]\noperator = [\"person:omar\"]\n[[person]]\nname = \"omar\"\nkeys = [\"ssh-ed25519 \
             AAAAC3NzaC1lZDI1NTE5AAAAILasL2VM7oM2X06aM/W6FRWxOU6To1xFU83M5hUw+sIl\"]\n\
             [[host]]\nname = \"web-1\"\nscope = \"account\"\n{host}\
             [[rule]]\nname = \"web\"\nwho = [\"person:omar\"]\nhosts = [\"web-1\"]\naccounts = [\"ops\"]\n{rule}"
        )
    };
    let host = "[[host]]\nname = \"db-1\"\nscope = \"account\"\n";
    let rule = "[[rule]]\nname = \"db\"\nwho = [\"person:omar\"]\nhosts = [\"db-1\"]\naccounts = [\"ops\"]\n\
                reason = { min_length = 20 }\n";
    let parse = |text: &str| Policy::parse(text, "p").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let old = parse(&text(host, rule));
    let gains = |new: &str| diff(&old, &parse(new)).into_iter().filter(|change| change.effect == Effect::Gain).count();
    assert_eq!(gains(&text(host, rule)), 0);
    assert_eq!(gains(&text(host, "")), 1, "the rule is gone");
    assert_eq!(gains(&text("", "")), 2, "the host is gone");
}
