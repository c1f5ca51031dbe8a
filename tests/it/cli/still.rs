//! Access that was ended where this machine did not see it: from another login of the same person, by an operator, because its CA key was
//! compromised. What lies here of it goes with the next command that talks to the service, and with nothing but the service's own word.

use serde_json::{Value, json};

use super::doctor::check;
use super::hostile::lying_server;
use super::plain_ssh::Plain;
use super::rotation::{fingerprint, stage as stage_with_keys};
use super::stage::{Ran, Stage};

const LOGS: [&str; 5] = ["db-1", "--reason", "looking", "--ticket", "INC-9"];

/// alice's access to db-1, which policy gives at once: its id.
fn held(stage: &Stage, lifetime: &str) -> String {
    let ask = [&["request"], &LOGS[..], &["--for", lifetime, "--no-wait", "--json"]].concat();
    let asked = stage.as_person("alice", &ask);
    assert_eq!(asked.code, 0, "{}", asked.err);
    let id = asked.field("id");
    assert!(lies_here(stage, &id));
    id
}

fn lies_here(stage: &Stage, id: &str) -> bool {
    stage.path(&format!("alice/run/default/{}/key", id.replace('-', ""))).exists()
}

/// Whether plain ssh would offer it to db-1.
fn is_offered(stage: &Stage, id: &str) -> bool {
    let file = std::fs::read_to_string(stage.path("alice/run/default/hosts/db-1.conf")).unwrap_or_default();
    file.contains(&id.replace('-', ""))
}

fn end_as_operator(stage: &Stage, id: &str) {
    let ended = stage.as_person("omar", &["end", id, "--reason", "laptop lost"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
}

/// A command of alice's; what `hallpass ssh` becomes prints what it was given.
fn as_alice(stage: &Stage, arguments: &[&str]) -> Ran {
    let is_ssh = arguments.first() == Some(&"ssh");
    // Not as soon as people want it: this machine may have more to do.
    let patience = if is_ssh { &["--timeout", "20s"][..] } else { &[] };
    let mut command = stage.command("alice", &[patience, arguments].concat());
    if is_ssh {
        command.env("HALLPASS_SSH", "/bin/echo");
    }
    Ran::of(command.output().unwrap())
}

#[test]
fn whatever_is_typed_next_has_go_what_an_operator_ended() {
    let stage = Stage::new();
    let ask_again = [&["ssh"], &LOGS[..]].concat();
    let request = [&["request"], &LOGS[..], &["--for", "2m", "--no-wait"]].concat();
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["cert", "ls"], 0),
        (&["end", "ID"], 9),
        (&["end", "db-1"], 1),
        (&["end", "--all"], 0),
        (&["wait", "ID"], 9),
        (&request, 0),
        (&ask_again, 0),
        (&["doctor", "--fix"], 0),
    ] {
        let id = held(&stage, "10m");
        end_as_operator(&stage, &id);
        assert!(lies_here(&stage, &id) && is_offered(&stage, &id), "nothing has told this machine yet");
        let arguments: Vec<&str> = arguments.iter().map(|word| if *word == "ID" { &id } else { *word }).collect();
        let ran = as_alice(&stage, &arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(!lies_here(&stage, &id) && !is_offered(&stage, &id), "{arguments:?}: {}{}", ran.out, ran.err);
        let is_said = ran.err.contains("laptop lost") || ran.out.contains("fixed    delete ");
        assert!(is_said, "{arguments:?}: {}{}", ran.out, ran.err);
        // What was asked for instead stays, and is given back for the next one.
        assert_eq!(stage.as_person("alice", &["end", "--all"]).code, 0);
    }
}

#[test]
fn a_new_certificate_is_used_though_one_that_is_over_would_have_ended_later() {
    let stage = Stage::new();
    let old = held(&stage, "10m");
    end_as_operator(&stage, &old);
    let new = held(&stage, "2m");
    assert!(!is_offered(&stage, &old) && is_offered(&stage, &new));
    let ran = as_alice(&stage, &["ssh", "db-1"]);
    assert!(ran.code == 0 && ran.out.contains(&new.replace('-', "")), "{}{}", ran.out, ran.err);
    // Of two that are good, what ends last is taken; where that one goes, the other.
    let later = held(&stage, "9m");
    assert!(as_alice(&stage, &["ssh", "db-1"]).out.contains(&later.replace('-', "")));
    end_as_operator(&stage, &later);
    assert!(as_alice(&stage, &["ssh", "db-1"]).out.contains(&new.replace('-', "")));
    assert!(!lies_here(&stage, &later) && is_offered(&stage, &new));
}

#[cfg(feature = "failpoints")]
#[test]
fn access_by_a_stolen_key_that_a_killed_service_did_not_come_to_end_ends_with_its_next_start() {
    let mut stage = stage_with_keys();
    let (stolen, reserve) = (fingerprint(&stage, "user_ca"), fingerprint(&stage, "next_ca"));
    assert_eq!(stage.as_person("omar", &["ca", "rotate", "user", "start", "--key", &reserve]).code, 0);
    let ids = [held(&stage, "10m"), held(&stage, "9m")];
    stage.stop();
    stage.start_with(&[("HALLPASS_FAILPOINT", "rotate.durable")]);
    assert_ne!(
        stage.as_person("omar", &["ca", "compromise", &stolen, "--reason", "a disk was stolen", "--yes"]).code,
        0
    );
    assert_eq!(stage.ended(), None, "it died with the key given up, and nothing ended");
    assert!(ids.iter().all(|id| lies_here(&stage, id)));

    stage.start();
    stage.hears("were still open under a CA key that was compromised");
    assert_eq!(as_alice(&stage, &["status"]).code, 0);
    for id in &ids {
        assert!(!lies_here(&stage, id) && !is_offered(&stage, id));
        let shown = stage.as_person("alice", &["show", id, "--json"]);
        assert_eq!(shown.field("state"), "ended", "{}", shown.out);
    }
    let found = stage.as_person("omar", &["audit", "search", "kind:ended"]).out;
    assert_eq!(found.matches("was compromised").count(), 2, "{found}");
    assert_eq!(found.matches("omar@example.com ended it").count(), 2, "{found}");
}

#[test]
fn two_at_once_find_that_it_is_over_and_one_new_certificate_stays() {
    let stage = Stage::new();
    for _ in 0..3 {
        let id = held(&stage, "10m");
        end_as_operator(&stage, &id);
        let words = [&["ssh"], &LOGS[..]].concat();
        let start = || {
            let mut command = stage.command("alice", &words);
            command.env("HALLPASS_SSH", "/bin/echo").stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped()).spawn().unwrap()
        };
        let both = [start(), start()].map(|child| Ran::of(child.wait_with_output().unwrap()));
        for ran in &both {
            assert!(ran.code == 0 && !ran.out.contains(&id.replace('-', "")), "{}{}", ran.out, ran.err);
            let key = ran.out.split_whitespace().nth(1).unwrap();
            assert!(std::path::Path::new(key).exists(), "{key}");
        }
        assert!(!lies_here(&stage, &id));
        assert_eq!(stage.as_person("alice", &["end", "--all"]).code, 0);
    }
}

#[test]
fn after_a_ca_key_was_compromised_people_get_in_again_and_are_told_why() {
    let mut stage = stage_with_keys();
    let (old, new) = (fingerprint(&stage, "user_ca"), fingerprint(&stage, "next_ca"));
    assert_eq!(stage.as_person("omar", &["ca", "rotate", "user", "start", "--key", &new]).code, 0);
    let env = [("HALLPASS_SSH", "/bin/echo")];
    stage.types("alice", &[&["request"], &LOGS[..], &["--for", "10m", "--no-wait"]].concat());
    let lost = ["ca", "compromise", &old, "--reason", "a disk was stolen", "--yes"];
    assert_eq!(stage.types("omar", &lost).code, 0);
    stage.types_with("alice", &[&["ssh"], &LOGS[..], &["--for", "5m"]].concat(), &env);
    stage.types_with("alice", &[&["ssh"], &LOGS[..]].concat(), &env);
    stage.types("alice", &["status"]);
    // Given back from another machine of hers.
    let (url, pin, key) = (stage.url(), stage.pin(), stage.shown("alice/login_key"));
    let login = ["login", "--server", &url, "--pin", &pin, "--person", "alice@example.com", "--key", &key];
    assert_eq!(stage.as_person("desk", &login).code, 0);
    stage.types("desk", &["end", "db-1"]);
    stage.types("alice", &["end", "--all"]);
    stage.types("alice", &["end", "--all"]);
    stage.check("over_elsewhere");
}

/// Has alice's profile be of this server, where she is logged in.
fn go_over(stage: &Stage, url: &str) {
    stage.write("alice/config/profiles/default.toml", &format!("server = \"{url}\"\nperson = \"alice@example.com\"\n"));
    let session =
        json!({ "server": url, "person": "alice@example.com", "token": "hps_x", "expires": "2126-01-05T10:00:00Z" });
    stage.write("alice/state/default/session", &session.to_string());
}

/// A server that lists nothing, and answers this about any request.
fn server_that_says(status: u16, about: Value) -> String {
    lying_server(move |path| match path.split('?').next().unwrap_or_default() {
        "/v1/session" => {
            let times = ("2126-01-05T10:00:00Z", "2026-01-05T10:00:00Z");
            (
                200,
                json!({ "person": "alice@example.com", "groups": [], "roles": [], "expires": times.0, "now": times.1 }),
            )
        }
        "/v1/requests" => (200, json!({ "requests": [] })),
        path if path.starts_with("/v1/requests/") => (status, about.clone()),
        _ => (500, json!("what?")),
    })
}

#[test]
fn nothing_goes_without_the_services_own_word_about_that_request_and_key() {
    let mut stage = Stage::new();
    let id = held(&stage, "10m");
    let file = stage.path(&format!("alice/run/default/{}/request.json", id.replace('-', "")));
    let text = std::fs::read_to_string(&file).unwrap();
    let said = |changes: &[(&str, Value)]| {
        let mut request: Value = serde_json::from_str(&text).unwrap();
        changes.iter().for_each(|(field, value)| request[field] = value.clone());
        request
    };
    let certificate = std::fs::read(file.with_file_name("key-cert.pub")).unwrap();
    let commands = || {
        let request = ["request", "web-1", "--reason", super::REASON, "--no-wait"];
        [
            &["status"][..],
            &["cert", "ls"],
            &["end", "--all"],
            &["wait", &id, "--timeout", "1s"],
            &request,
            &["ssh", "db-1"],
            &["doctor", "--fix"],
        ]
        .map(|words| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    let stays = |stage: &Stage, what: &str| {
        for words in commands() {
            let ran = as_alice(stage, &words.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(lies_here(stage, &id) && is_offered(stage, &id), "{what} {words:?}: {}{}", ran.out, ran.err);
            assert_eq!(std::fs::read(file.with_file_name("key-cert.pub")).unwrap(), certificate, "{what} {words:?}");
            let is_used = ran.out.contains(&id.replace('-', ""));
            let uses = matches!(words[0].as_str(), "cert" | "ssh");
            assert_eq!(ran.code == 0 && is_used, uses, "{what} {words:?}: {}{}", ran.out, ran.err);
        }
    };
    stage.stop();
    stays(&stage, "away");
    let over = ["expired", "2026-01-05T10:00:00Z"];
    for (what, status, about) in [
        ("unknown", 404, json!({ "type": "x", "status": 404, "title": "no such request", "code": "not_found" })),
        ("broken", 500, json!("what?")),
        ("logged out", 401, json!({ "type": "x", "status": 401, "title": "log in", "code": "login" })),
        ("nonsense", 200, json!({ "state": "ended" })),
        ("another request", 200, said(&[("state", json!("ended")), ("id", json!("7K3F-9QX2"))])),
        ("another key", 200, said(&[("state", json!("ended")), ("key", json!("SHA256:x"))])),
        ("a new state", 200, said(&[("state", json!("vanished"))])),
        ("an older copy: lapsed", 200, said(&[("state", json!("lapsed"))])),
        ("an older copy: denied", 200, said(&[("state", json!("denied"))])),
        ("an older copy: withdrawn", 200, said(&[("state", json!("withdrawn"))])),
        (
            "an older copy: not extended",
            200,
            said(&[("state", json!(over[0])), ("window", json!({ "not_before": over[1], "not_after": over[1] }))]),
        ),
    ] {
        go_over(&stage, &server_that_says(status, about));
        stays(&stage, what);
    }
    // It is the word that counts, and not how it came.
    go_over(&stage, &server_that_says(200, said(&[("state", json!("ended"))])));
    as_alice(&stage, &["status"]);
    assert!(!lies_here(&stage, &id) && !is_offered(&stage, &id));
}

/// A prompt reads local files alone, so it shows what somebody has ended until a command asks.
#[test]
fn a_prompt_asks_nobody_and_a_list_of_certificates_asks_whether_they_are_over() {
    let stage = Stage::new();
    let id = held(&stage, "10m");
    end_as_operator(&stage, &id);
    let prompt = || as_alice(&stage, &["status", "--short"]).out;
    assert!(prompt().starts_with("default db-1 "), "{}", prompt());
    let ran = as_alice(&stage, &["cert", "ls"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "no certificates here\n"));
    let told = format!("{id} is over: omar@example.com ended it (laptop lost); what lay here of it is deleted\n");
    assert_eq!(ran.err, told);
    assert_eq!(prompt(), "");
}

/// Folders of requests that the service does not know, as another one or an older copy does not; they come before and after the one that
/// matters.
#[test]
fn what_the_service_does_not_know_hides_nothing_that_is_over() {
    let stage = Stage::new();
    let id = held(&stage, "10m");
    let file = stage.path(&format!("alice/run/default/{}/request.json", id.replace('-', "")));
    let mut request: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (number, first) in (0..60).flat_map(|number| [(number, '0'), (number, 'Z')]) {
        request["id"] = json!(format!("{first}000-00{number:02}"));
        let folder = format!("alice/run/default/{first}00000{number:02}");
        std::fs::create_dir(stage.path(&folder)).unwrap();
        stage.write(&format!("{folder}/request.json"), &request.to_string());
    }
    end_as_operator(&stage, &id);
    let ran = as_alice(&stage, &["status", "--timeout", "30s"]);
    assert!(ran.code == 0 && ran.err.contains("laptop lost"), "{}", ran.err);
    assert!(!lies_here(&stage, &id) && !is_offered(&stage, &id));
    assert!(stage.path("alice/run/default/Z0000059/request.json").exists(), "nothing was said about it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_ssh_is_brought_back_by_status_and_by_doctor_which_says_what_is_wrong() {
    let Some(mut plain) = Plain::new().await else { return };
    let config = plain.stage.shown("ssh_config");
    let doctor = |plain: &Plain, arguments: &[&str]| {
        let words = [&["doctor", "--json", "--ssh-config", &config], arguments].concat();
        plain.stage.as_person("alice", &words)
    };
    for mends in ["status", "doctor"] {
        let id = plain.granted(&["web-1"]);
        assert_eq!(plain.ssh(&["web-1", "true"]).code, 0);
        end_as_operator(&plain.stage, &id);
        // The host alone would say no; this one was not told, and asks nobody.
        assert_eq!(plain.ssh(&["web-1", "true"]).err, "");
        if mends == "doctor" {
            let ran = doctor(&plain, &["web-1"]);
            let (left, access) = (check(&ran, "leftovers"), check(&ran, "access"));
            assert_eq!((ran.code, left["state"].as_str(), left["code"].as_str()), (7, Some("bad"), Some("HP-206")));
            let why = format!("{id} is over: omar@example.com ended it (laptop lost)");
            assert_eq!(
                (left["why"][0].as_str(), left["next"][0].as_str()),
                (Some(&*why), Some("hallpass doctor --fix"))
            );
            assert_eq!((access["state"].as_str(), access["code"].as_str()), (Some("bad"), Some("HP-206")), "{access}");
            assert_eq!(check(&ran, "login")["state"], "skipped");
            let ran = doctor(&plain, &["--fix", "--dry-run"]);
            assert!(ran.json()["changes"][0].as_str().unwrap().starts_with("delete "), "{}", ran.out);
            assert!(lies_here(&plain.stage, &id), "nothing was changed");
            let ran = doctor(&plain, &["--fix"]);
            assert_eq!((ran.code, check(&ran, "leftovers")["state"].as_str()), (0, Some("ok")), "{}", ran.out);
        } else {
            assert_eq!(plain.stage.as_person("alice", &["status"]).code, 0);
        }
        assert!(!lies_here(&plain.stage, &id));
        let ran = plain.ssh(&["web-1", "true"]);
        assert!(ran.err.starts_with("hallpass: omar@example.com ended your access to web-1\n"), "{}", ran.err);
    }
}
