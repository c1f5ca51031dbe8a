//! Operators and the CA keys: what they see of them, and a rotation from its beginning to its end.

use std::process::Command;

use super::stage::Stage;

/// A stage whose service has a key to change to, and one in reserve.
pub(super) fn stage() -> Stage {
    let mut stage = Stage::empty();
    stage.set_up();
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let mut next = String::new();
    for name in ["next_ca", "reserve_ca"] {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(stage.path(&format!("service/{name}")));
        assert!(keygen.status().unwrap().success());
        next.push_str(&format!("\n[[ca.user.next]]\nkey = {name:?}\n"));
    }
    stage.write("service/config.toml", &config.replace("\n[ca.host]", &format!("{next}\n[ca.host]")));
    stage.start();
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    stage
}

/// The fingerprint of a key file's public half.
pub(super) fn fingerprint(stage: &Stage, name: &str) -> String {
    let shown = Command::new("ssh-keygen").arg("-lf").arg(stage.path(&format!("service/{name}.pub"))).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// Each user key by its fingerprint, with its state.
#[cfg(feature = "failpoints")]
fn states(stage: &Stage) -> std::collections::BTreeMap<String, String> {
    let all = stage.as_person("omar", &["ca", "ls", "--json"]).json();
    let keys = all["keys"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    keys.map(|key| (text(&key["fingerprint"]), text(&key["state"]))).collect()
}

/// Where a step can be cut short: the start of the service is the first commit, the step the second.
#[cfg(feature = "failpoints")]
const CUTS: [&str; 3] = ["store.commit.before:2", "store.commit.after:2", "rotate.durable"];

/// Has this step killed at `point`, and done again if it was not done; afterwards both keys are in these states.
#[cfg(feature = "failpoints")]
fn killed_and_done(stage: &mut Stage, point: &str, words: &[&str], keys: [(&str, &str); 2]) {
    stage.stop();
    stage.start_with(&[("HALLPASS_FAILPOINT", point)]);
    let before = states(stage);
    assert_ne!(stage.as_person("omar", words).code, 0, "{point} {words:?}");
    assert_eq!(stage.ended(), None, "it died at {point} of {words:?}");
    stage.start();
    let found = states(stage);
    let is_done = keys.iter().all(|(key, state)| found.get(*key).is_some_and(|found| found == state));
    assert_eq!(is_done, !point.contains("before"), "{point} {words:?}: {found:?}");
    if !is_done {
        assert_eq!(found, before, "{point} {words:?}");
        assert_eq!(stage.as_person("omar", words).code, 0, "{point} {words:?}");
    }
    assert_eq!(states(stage)[keys[1].0], keys[1].1, "{point} {words:?}");
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_at_any_moment_of_a_step_the_service_is_before_it_or_after_it_and_goes_on() {
    let mut stage = stage();
    let (old, new) = (fingerprint(&stage, "user_ca"), fingerprint(&stage, "next_ca"));
    for point in CUTS {
        for (step, [first, second]) in [
            (&["start", "--key", &new][..], ["active", "staged"]),
            (&["switch", "--yes"], ["draining", "active"]),
            (&["abort", "--yes"], ["active", "draining"]),
            (&["finish", "--yes"], ["active", "retired"]),
        ] {
            let words = [&["ca", "rotate", "user"], step].concat();
            killed_and_done(&mut stage, point, &words, [(&old, first), (&new, second)]);
        }
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_at_any_moment_of_a_host_keys_step_the_service_is_before_it_or_after_it_and_goes_on() {
    let mut stage = Stage::empty();
    stage.set_up();
    let (config, file) = (stage.shown("service/config.toml"), stage.shown("service/host_ca_2"));
    let lines = stage.as_person("omar", &["ca", "add", "host", &file, "--config", &config]).out;
    let text = std::fs::read_to_string(&config).unwrap();
    stage.write("service/config.toml", &format!("{text}\n{lines}"));
    stage.start();
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    let (old, new) = (fingerprint(&stage, "host_ca"), fingerprint(&stage, "host_ca_2"));
    for point in CUTS {
        for (step, [first, second]) in [
            (&["start", "--key", &new][..], ["active", "staged"]),
            (&["switch", "--now", "--yes"], ["draining", "active"]),
            (&["abort", "--yes"], ["active", "draining"]),
            (&["finish", "--yes"], ["active", "retired"]),
        ] {
            let words = [&["ca", "rotate", "host"], step].concat();
            killed_and_done(&mut stage, point, &words, [(&old, first), (&new, second)]);
        }
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_while_it_takes_a_proposal_or_the_second_word_the_service_has_it_or_not() {
    let mut stage = stage();
    let two = "operator = [\"person:omar@example.com\", \"person:bob@example.com\"]\nca_operators = 2\n";
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let operates = policy.lines().find(|line| line.starts_with("operator")).unwrap().to_owned();
    stage.write("two.toml", &policy.replace(&format!("{operates}\n"), two));
    let file = stage.shown("two.toml");
    let applied = stage.as_person("omar", &["policy", "apply", &file, "--yes"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    let new = fingerprint(&stage, "next_ca");
    let switch = ["ca", "rotate", "user", "switch", "--yes"];
    let proposed = |stage: &Stage| !stage.as_person("omar", &["ca", "ls", "--json"]).json()["proposal"].is_null();
    for point in CUTS {
        assert_eq!(stage.as_person("omar", &["ca", "rotate", "user", "start", "--key", &new]).code, 0);
        for (who, code, is_proposed, state) in [("omar", 8, true, "staged"), ("bob", 0, false, "active")] {
            stage.stop();
            stage.start_with(&[("HALLPASS_FAILPOINT", point)]);
            assert_ne!(stage.as_person(who, &switch).code, 0, "{point} {who}");
            assert_eq!(stage.ended(), None, "it died at {point} of {who}'s word");
            stage.start();
            if point.contains("before") {
                assert_eq!((proposed(&stage), states(&stage)[&new].as_str()), (!is_proposed, "staged"), "{point}");
                let again = stage.as_person(who, &switch);
                assert_eq!(again.code, code, "{point} {who}: {}", again.err);
            }
            assert_eq!((proposed(&stage), states(&stage)[&new].as_str()), (is_proposed, state), "{point} {who}");
        }
        for step in ["abort", "finish"] {
            let words = ["ca", "rotate", "user", step, "--yes"];
            assert_eq!(["omar", "bob"].map(|who| stage.as_person(who, &words).code), [8, 0], "{point} {step}");
        }
    }
}

#[test]
fn operators_rotate_the_user_ca_key_and_give_up_one_that_was_stolen() {
    let mut stage = stage();
    let (old, new, reserve) =
        (fingerprint(&stage, "user_ca"), fingerprint(&stage, "next_ca"), fingerprint(&stage, "reserve_ca"));
    stage.types("omar", &["ca", "ls"]);
    stage.types("alice", &["ca", "ls"]);
    stage.types("omar", &["ca", "rotate", "user", "status"]);
    stage.types("omar", &["ca", "rotate", "user", "switch", "--yes"]);
    stage.types("alice", &["ca", "rotate", "user", "start"]);
    stage.types("omar", &["ca", "rotate", "user", "start", "--reason", "yearly"]);
    stage.types("omar", &["ca", "rotate", "user", "start"]);
    stage.types("omar", &["ca", "rotate", "user", "abort", "--yes"]);
    stage.types("omar", &["ca", "rotate", "user", "start", "--key", &new]);
    stage.types("omar", &["ca", "rotate", "user", "status", "--json"]);
    stage.types("omar", &["ca", "rotate", "user", "switch"]);
    stage.types("omar", &["ca", "rotate", "user", "switch", "--yes"]);
    stage.types("omar", &["ca", "show", &old]);
    stage.types("omar", &["ca", "show", &new, "--json"]);
    stage.types("omar", &["ca", "show", &reserve]);
    stage.types("omar", &["ca", "show", "SHA256:x"]);
    stage.types("omar", &["ca", "rotate", "user", "finish", "--yes"]);
    stage.types("omar", &["ca", "compromise", &new, "--reason", "a disk was stolen", "--yes"]);
    stage.types("omar", &["ca", "rotate", "user", "start", "--key", &reserve]);
    stage.types("omar", &["ca", "compromise", &new, "--reason", "a disk was stolen", "--yes"]);
    stage.types("omar", &["audit", "search", "kind:ca_keys_changed"]);
    stage.check("rotation");
}

#[test]
fn operators_make_a_further_key_and_rotate_the_host_ca_key() {
    let mut stage = Stage::empty();
    stage.set_up();
    stage.start();
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    let config = stage.path("service/config.toml").display().to_string();
    let key = stage.path("service/host_ca_2").display().to_string();
    stage.types("omar", &["ca", "add", "host", &key, "--config", &config]);
    stage.types("omar", &["ca", "add", "host", &key, "--config", &config]);
    stage.types("omar", &["ca", "add", "host"]);
    stage.types("omar", &["ca", "add", "user", "--agent", "/nowhere"]);
    let public = format!("{key}.pub");
    stage.types("omar", &["ca", "add", "user", "--agent", "/nowhere", "--public-key", &public]);
    let other = stage.path("service/user_ca_2").display().to_string();
    stage.types("omar", &["ca", "add", "user", &other, "--config", &config, "--json"]);
    // What it has printed is what the service takes.
    let lines = stage.as_person("omar", &["ca", "add", "user", &format!("{other}b"), "--config", &config]).out;
    let text = std::fs::read_to_string(&config).unwrap();
    stage.stop();
    stage.write("service/config.toml", &format!("{text}\n{lines}\n[[ca.host.next]]\nkey = \"host_ca_2\"\n"));
    stage.start();
    stage.types("omar", &["ca", "rotate", "host", "status"]);
    stage.types("omar", &["ca", "rotate", "host", "start", "--reason", "yearly"]);
    stage.types("omar", &["ca", "rotate", "host", "switch", "--yes"]);
    stage.types("omar", &["ca", "rotate", "host", "switch", "--now", "--yes"]);
    stage.types("omar", &["ca", "rotate", "host", "finish", "--yes"]);
    stage.types("omar", &["audit", "search", "kind:ca_keys_changed"]);
    let lost = fingerprint(&stage, "host_ca_2");
    stage.types("omar", &["ca", "compromise", &lost, "--reason", "a disk was stolen", "--yes"]);
    // The key that signs is not replaced by one that nobody trusts.
    stage.stop();
    let text = std::fs::read_to_string(&config).unwrap();
    let moved = text.replace("key = \"user_ca\"", &format!("key = \"{other}\""));
    stage.write("service/config.toml", &moved);
    stage.types("omar", &["serve", "--config", &config]);
    stage.check("host_rotation");
}

#[test]
fn where_the_policy_wants_two_operators_one_proposes_and_the_other_carries_it_out() {
    let mut stage = stage();
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    let two = "operator = [\"person:omar@example.com\", \"person:bob@example.com\"]\nca_operators = 2\n";
    stage.write("two.toml", &policy.replace("operator = [\"person:omar@example.com\"]\n", two));
    let file = stage.path("two.toml").display().to_string();
    stage.types("omar", &["policy", "apply", &file, "--yes"]);
    let new = fingerprint(&stage, "next_ca");
    stage.types("omar", &["ca", "rotate", "user", "start", "--key", &new]);
    stage.types("omar", &["ca", "rotate", "user", "switch", "--yes", "--reason", "yearly"]);
    stage.types("omar", &["ca", "rotate", "user", "switch", "--yes"]);
    stage.types("bob", &["ca", "rotate", "user", "status"]);
    stage.types("bob", &["ca", "ls", "--json"]);
    stage.types("bob", &["ca", "rotate", "user", "switch", "--yes"]);
    stage.types("omar", &["audit", "search", "kind:ca_step_proposed"]);
    stage.check("two_operators");
}
