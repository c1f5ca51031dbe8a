//! What PAM and sshd run on a host, as an operator who tries it by hand sees it.

use data_encoding::BASE64;
use hallpass::time::{Timestamp, Window};

use super::stage::{Ran, Stage};
use crate::guard::maker::Maker;

#[test]
fn the_hosts_commands_say_what_they_are_for_answer_or_refuse() {
    let mut stage = Stage::empty();
    let maker = Maker::new(stage.path("").as_path());
    let at = |text| Timestamp::parse(text).unwrap();
    let window = Window::new(at("2026-01-05T09:59:30Z"), at("2026-01-05T10:30:00Z")).unwrap();
    let certificate = maker.certificate(7, window, &["deploy@web-1"]);
    stage.write("trust", &format!("{}\n", maker.key().to_openssh()));
    let settings = |stage: &Stage, more: &str| {
        let (trust, ended) = (stage.shown("trust"), stage.shown("ended"));
        let text =
            format!("name = \"web-1\"\ntrust = {trust:?}\nended = {ended:?}\ntags = {{ role = \"web\" }}\n{more}");
        stage.write("host.toml", &text);
    };
    settings(&stage, "");
    let config = stage.shown("host.toml");
    let (key_id, blob) = (certificate.tbs().fields().key_id.as_str(), BASE64.encode(certificate.blob()));
    let ask = |user: &str, serial: &str, blob: &str| {
        let words = ["host", "principals", "--config", &config].map(str::to_owned);
        let question = [("user", user), ("serial", serial), ("key-id", key_id), ("cert", blob)];
        words.into_iter().chain(question.map(|(name, value)| format!("--{name}={value}"))).collect::<Vec<_>>()
    };
    let types = |stage: &mut Stage, words: Vec<String>, code: i32| {
        let ran = stage.types("root", &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(code == 0 || ran.out.is_empty(), "nothing is printed on an error: {}", ran.out);
    };
    types(&mut stage, ask("deploy", "7", &blob), 0);
    types(&mut stage, [ask("deploy", "7", &blob), vec!["--json".to_owned()]].concat(), 0);
    types(&mut stage, ask("debug", "7", &blob), 3);
    types(&mut stage, ask("deploy\u{1b}[2J", "7", &blob), 3);
    types(&mut stage, ask("deploy", "8", &blob), 3);
    types(&mut stage, ask("deploy", "7", "garbage"), 3);
    types(&mut stage, ["host", "principals", "--user=deploy"].map(str::to_owned).to_vec(), 2);
    stage.write("ended", "7\n");
    types(&mut stage, ask("deploy", "7", &blob), 3);
    std::fs::remove_file(stage.path("ended")).unwrap();
    settings(&stage, "refuse_accounts = [\"deploy\"]\n");
    types(&mut stage, ask("deploy", "7", &blob), 3);
    settings(&stage, "acounts = [\"deploy\"]\n");
    types(&mut stage, ask("deploy", "7", &blob), 3);
    stage.write("trust", "garbage\n");
    settings(&stage, "");
    types(&mut stage, ask("deploy", "7", &blob), 3);
    types(&mut stage, ["host", "guard"].map(str::to_owned).to_vec(), 2);
    types(&mut stage, ["host", "watch", "--spool=/nowhere", "/nowhere"].map(str::to_owned).to_vec(), 7);
    settings(&stage, &format!("state = {:?}\n", stage.shown("state")));
    types(&mut stage, ["host", "tend", "--config", &config].map(str::to_owned).to_vec(), 0);
    types(&mut stage, ["host", "tend", "--config", &config, "--json"].map(str::to_owned).to_vec(), 0);
    types(&mut stage, ["host", "tend", "--config", "/nowhere/host.toml"].map(str::to_owned).to_vec(), 7);
    for (event, code) in [("close_session", 0), ("auth", 0), ("open_session", 3)] {
        let ran = stage.types_with("root", &["host", "guard", "--config", &config], &[("PAM_TYPE", event)]);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{event}");
    }
    let (event, info) = (("PAM_TYPE", "open_session"), ("SSH_AUTH_INFO_0", "password\n"));
    let ran = stage.types_with("root", &["host", "guard", "--config", &config], &[event, info]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    types(&mut stage, ["help", "host", "guard"].map(str::to_owned).to_vec(), 0);
    types(&mut stage, ["help", "host", "tend"].map(str::to_owned).to_vec(), 0);
    types(&mut stage, ["help", "host", "principals"].map(str::to_owned).to_vec(), 0);
    stage.check("host");
}

/// The commands of a host in a program of their own: the same answers, one word less, and nothing of the service or of people.
#[test]
fn the_program_for_hosts_has_the_same_commands_in_its_own_words() {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_hallpass-host");
    let mut stage = Stage::empty();
    stage.write("host.toml", &format!("name = \"web-1\"\nstate = {:?}\n", stage.shown("state")));
    let config = stage.shown("host.toml");
    let mut types = |words: &[&str], code: i32| {
        let ran = Ran::of(stage.command_of(PROGRAM, "root", words).output().unwrap());
        assert_eq!(ran.code, code, "{words:?}: {}", ran.err);
        stage.note_of("hallpass-host", "root", words, &ran);
        ran
    };
    types(&["--help"], 0);
    types(&["guard", "--help"], 0);
    types(&["principals", "--help"], 0);
    types(&["--version"], 0);
    types(&["version"], 0);
    types(&["version", "--json"], 0);
    types(&[], 2);
    types(&["host", "guard"], 2);
    types(&["serve"], 2);
    types(&["tned"], 2);
    types(&["guard"], 2);
    types(&["guard", "--jsonl"], 2);
    types(&["watch", "--spool=/nowhere", "/nowhere"], 7);
    types(&["tend", "--config", &config], 0);
    types(&["tend", "--config", &config, "--json"], 0);
    types(&["principals", "--config", &config, "--user=deploy", "--serial=7", "--key-id=x", "--cert=garbage"], 3);
    let completion = types(&["completion", "bash"], 0);
    assert!(completion.out.contains("hallpass-host"), "{}", completion.out);
    stage.check("host_program");
}

/// An answer to a shell would be a success, and so a login that nothing ends.
#[test]
fn no_variable_of_the_environment_makes_the_guard_let_a_login_through() {
    let stage = Stage::empty();
    let small: &[&str] = &["guard"];
    for (program, words) in [(env!("CARGO_BIN_EXE_hallpass-host"), small), (super::stage::HALLPASS, &["host", "guard"])]
    {
        let mut command = stage.command_of(program, "root", words);
        command.env("HALLPASS_COMPLETE", "bash").env("PAM_TYPE", "open_session");
        let ran = Ran::of(command.output().unwrap());
        assert_eq!(ran.code, 3, "{words:?}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn completion_of_the_program_for_hosts_offers_its_commands_and_no_others() {
    let stage = Stage::empty();
    let mut command = stage.command_of(env!("CARGO_BIN_EXE_hallpass-host"), "root", &["--", "hallpass-host", "s"]);
    command.env("HALLPASS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "1").env("_CLAP_IFS", "\n");
    let ran = Ran::of(command.output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (0, "status\nsessions"), "{}", ran.err);
}
