//! Hostile and careless texts: refused with a sentence that repeats nothing unescaped, and never a panic.

use std::fmt::Write as _;

use hallpass::document;
use hallpass::policy::Policy;
use proptest::prelude::*;

use super::SMALL;

const EXAMPLE: &str = include_str!("../../../policy.toml.example");

fn problems(text: &str) -> Vec<String> {
    Policy::parse(text, "p").unwrap_err().iter().map(ToString::to_string).collect()
}

/// The only problem of [`SMALL`] with one piece replaced.
fn problem(old: &str, new: &str) -> String {
    assert!(SMALL.contains(old), "{old:?} is not in the policy");
    let problems = problems(&SMALL.replace(old, new));
    let [problem] = problems.as_slice() else { panic!("one problem was expected, not {problems:#?}") };
    problem.clone()
}

#[test]
fn names_of_300_bytes_are_refused_and_cut_in_the_message() {
    let long = "a".repeat(300);
    let told = problem("name = \"db-1\"", &format!("name = \"{long}\""));
    assert!(
        told.contains("is not a host") && told.contains(&"a".repeat(64)) && !told.contains(&"a".repeat(65)),
        "{told}"
    );
    let told = problem("message = \"use sudo\"", &format!("message = \"{}\"", "m".repeat(301)));
    assert!(told.ends_with("rule[3].message: a message of 301 characters is too long; it takes 300"), "{told}");
}

#[test]
fn control_and_misleading_characters_are_refused_wherever_they_stand() {
    for (text, code) in [("\\u0000", "U+0000"), ("\\u001b[2J", "U+001B"), ("\\u202e", "U+202E"), ("\\n", "U+000A")] {
        let told = problem("use sudo", &format!("use{text}sudo"));
        assert!(told.contains(code) && told.starts_with("p:35:11: rule[3].message: "), "{told}");
        assert!(!told.contains('\u{202e}') && !told.chars().any(char::is_control), "{told}");
    }
    for raw in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{e0041}'] {
        let code = format!("U+{:04X}", u32::from(raw));
        let told = problem("use sudo", &format!("use{raw} sudo"));
        assert!(told.starts_with("p:35:15: ") && told.contains(&code) && !told.contains(raw), "{told}");
        let told = problem("[roles]", &format!("# comment {raw}\n[roles]"));
        assert!(told.starts_with("p:3:11: ") && told.contains(&code), "{told}");
    }
    for raw in ['\u{0}', '\u{1b}', '\u{7f}'] {
        let told = problems(&SMALL.replace("use sudo", &format!("use{raw}sudo")));
        assert!(told.iter().any(|told| told.starts_with("p:35:1")), "{told:?}");
        assert!(!told.iter().any(|told| told.chars().any(char::is_control)), "{told:?}");
    }
}

#[test]
fn a_byte_order_mark_is_taken_at_the_start_only() {
    Policy::parse(&format!("\u{feff}{SMALL}"), "p").unwrap();
    assert!(problems(&format!("{SMALL}\u{feff}")).iter().any(|told| told.contains("U+FEFF")));
}

#[test]
fn bytes_that_are_no_utf_8_have_a_place() {
    let problem = document::decode(b"version = 1\nname = \"a\xff\"", "p").unwrap_err();
    assert_eq!(problem.to_string(), "p:2:10: this byte is not UTF-8");
}

#[test]
fn too_much_of_anything_is_refused() {
    let told = problems(&"#".repeat((8 << 20) + 1));
    assert_eq!(told, ["p:1:1: 8388609 bytes are too many; it may have 8388608"]);
    let list = |n: usize| (0..n).map(|n| format!("\"h{n}\"")).collect::<Vec<_>>().join(", ");
    let told = problem("hosts = [\"db-1\"]", &format!("hosts = [{}]", list(1001)));
    assert!(told.ends_with("rule[2].hosts: 1001 entries are too many; it takes at most 1000"), "{told}");
    let mut rules = SMALL.to_owned();
    for _ in 0..9_998 {
        rules.push_str("[[rule]]\n");
    }
    assert_eq!(problems(&rules), ["p:20:1: rule: 10001 are too many; there may be 10000"]);
    let told = problems(&format!("{SMALL}\nx = {}{}", "[".repeat(5_000), "]".repeat(5_000)));
    assert!(!told.is_empty());
}

#[test]
fn of_very_many_problems_the_first_are_told_and_the_rest_counted() {
    let mut text = SMALL.to_owned();
    for n in 0..1_000 {
        writeln!(text, "x{n} = 1").unwrap();
    }
    let told = problems(&text);
    assert_eq!(told.len(), 201);
    assert!(told.last().unwrap().ends_with("and 800 more problems"), "{:?}", told.last());
}

#[test]
fn what_belongs_to_later_releases_is_refused_with_its_reason() {
    let told = problem("accounts = [\"deploy\"]", "accounts = [\"deploy\"]\nemergency = { who = [\"group:sre\"] }");
    assert!(told.ends_with("not supported yet: break-glass comes with a later release; remove this key"), "{told}");
    let told = problem("who = [\"group:backend\"]", "who = [\"workload:deploy-job\"]");
    assert!(told.ends_with("workload identities are not supported yet; remove this entry"), "{told}");
}

#[test]
fn a_policy_that_nobody_could_mend_is_refused() {
    for (old, new, why) in [
        ("operator = [\"person:carol\"]", "operator = []", "this leaves no operator who could log in"),
        ("operator = [\"person:carol\"]", "operator = [\"person:bob\"]", "this leaves no operator who could log in"),
        ("operator = [\"person:carol\"]", "operator = [\"person:carl\"]", "did you mean \"carol\"?"),
        ("[roles]\noperator = [\"person:carol\"]", "", "\"roles\" is missing"),
        ("[roles]\noperator = [\"person:carol\"]", "[roles]", "\"operator\" is missing"),
    ] {
        let told = problems(&SMALL.replace(old, new));
        assert!(told.iter().any(|told| told.contains(why)), "{new}: {told:?}");
    }
}

#[test]
fn ticket_patterns_that_would_match_more_than_they_seem_to_are_refused() {
    for (pattern, why) in [
        ("a)|(b", "not a regular expression"),
        ("[", "not a regular expression"),
        ("(?:a{1000}){1000}", "too complex"),
        (&"a".repeat(201), "longer than 200 bytes"),
    ] {
        let told = problem(
            "accounts = [\"deploy\"]",
            &format!("accounts = [\"deploy\"]\nreason = {{ ticket = '{pattern}' }}"),
        );
        assert!(told.contains(why), "{pattern}: {told}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_or_a_problem_lie(
        from in 0..EXAMPLE.len(), length in 0..200_usize, insert in "\\PC{0,20}|[\\[\\]{}=\"'#\n]{0,20}",
    ) {
        let floor = |mut at: usize| { while !EXAMPLE.is_char_boundary(at) { at -= 1; } at };
        let (from, to) = (floor(from), floor((from + length).min(EXAMPLE.len())));
        let text = format!("{}{insert}{}", &EXAMPLE[..from], &EXAMPLE[to.max(from)..]);
        if let Err(problems) = Policy::parse(&text, "p") {
            prop_assert!(!problems.is_empty());
            // The last may be the count of what is not listed.
            prop_assert!(problems.windows(2).rev().skip(1).all(|pair| pair[0] <= pair[1]));
            let lines = text.lines().count() + 1;
            for problem in problems {
                prop_assert!((1..=lines).contains(&problem.line), "{problem}");
                prop_assert!(!problem.to_string().chars().any(document::is_deceptive), "{problem}");
            }
        }
    }

    #[test]
    fn no_rubbish_makes_the_parser_panic(text in "\\PC{0,200}|[a-z\\[\\]{}=\"',.# \n0-9]{0,300}") {
        prop_assert!(Policy::parse(&text, "p").is_err());
    }
}
