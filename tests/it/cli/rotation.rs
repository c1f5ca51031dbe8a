//! Operators and the CA keys: what they see of them, and a rotation from its beginning to its end.

use std::process::Command;

use super::stage::Stage;

/// A stage whose service has a key to change to, and one in reserve.
fn stage() -> Stage {
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
fn fingerprint(stage: &Stage, name: &str) -> String {
    let shown = Command::new("ssh-keygen").arg("-lf").arg(stage.path(&format!("service/{name}.pub"))).output().unwrap();
    String::from_utf8(shown.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
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
