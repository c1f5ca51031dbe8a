//! Several user CAs, as operators see and change them.

use super::stage::Stage;

#[test]
fn operators_add_a_ca_give_it_hosts_and_rotate_its_key() {
    let mut stage = Stage::empty();
    stage.set_up();
    stage.start();
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    let config = stage.path("service/config.toml").display().to_string();
    let key = |stage: &Stage, name: &str| stage.path(&format!("service/{name}")).display().to_string();
    let (first, second) = (key(&stage, "prod_ca"), key(&stage, "prod_ca_2"));
    // A CA is there before the policy names it.
    let policy = std::fs::read_to_string(stage.path("service/policy.toml")).unwrap();
    stage.write("prod.toml", &format!("{policy}\n[[ca]]\ntag = \"env=prod\"\nname = \"prod\"\n"));
    let file = stage.path("prod.toml").display().to_string();
    stage.types("omar", &["policy", "apply", &file, "--yes"]);
    stage.types("omar", &["ca", "add", "host", "--ca", "prod", &first, "--config", &config]);
    stage.types("omar", &["ca", "add", "user", "--ca", "prod", &first, "--config", &config]);
    stage.stop();
    add(&stage, &format!("[ca.named.prod]\nkey = {first:?}\n"));
    stage.types("omar", &["ca", "add", "user", "--ca", "prod", &second, "--config", &config, "--json"]);
    add(&stage, &format!("[[ca.named.prod.next]]\nkey = {second:?}\n"));
    stage.start();
    stage.types("omar", &["policy", "apply", &file, "--yes"]);
    stage.types("omar", &["ca", "ls"]);
    stage.types("omar", &["ca", "ls", "--json"]);
    stage.types("omar", &["ca", "export", "--ca", "prod"]);
    stage.types("omar", &["ca", "export", "--ca", "prod", "--json"]);
    stage.types("omar", &["ca", "export", "--ca", "lab"]);
    stage.types("omar", &["ca", "rotate", "user", "--ca", "prod", "start", "--reason", "yearly"]);
    stage.types("omar", &["ca", "rotate", "user", "status", "--ca", "prod"]);
    stage.types("omar", &["ca", "rotate", "user", "status"]);
    stage.types("omar", &["ca", "rotate", "user", "--ca", "lab", "start"]);
    stage.types("omar", &["ca", "rotate", "user", "--ca", "prod", "switch", "--yes"]);
    stage.types("omar", &["ca", "rotate", "user", "--ca", "prod", "finish", "--yes"]);
    let shown = stage.as_person("omar", &["ca", "ls", "--json"]).json();
    let of_prod = shown["keys"].as_array().unwrap().iter().find(|key| key["ca"] == "prod" && key["state"] == "active");
    let active = of_prod.unwrap()["fingerprint"].as_str().unwrap().to_owned();
    stage.types("omar", &["ca", "show", &active]);
    stage.types("omar", &["ca", "show", &active, "--json"]);
    stage.types("omar", &["ca", "compromise", &active, "--reason", "a disk was stolen", "--yes"]);
    stage.types("omar", &["audit", "search", "kind:ca_keys_changed"]);
    // What the policy names stays in the configuration.
    stage.stop();
    let text = std::fs::read_to_string(&config).unwrap();
    let (without, _) = text.split_once("[ca.named.prod]").unwrap();
    stage.write("service/config.toml", without);
    stage.types("omar", &["serve", "--config", &config]);
    stage.check("cas");
}

fn add(stage: &Stage, lines: &str) {
    let text = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    stage.write("service/config.toml", &format!("{text}\n{lines}"));
}
