//! What needs something beside the command line: a security key (in software), and a real terminal to be asked on.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use super::stage::{HALLPASS, Ran, Stage};

/// Builds the security key's middleware; its path.
fn provider(stage: &Stage) -> String {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/sk_provider.c");
    let library = stage.shown("sk_provider.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, source, "-l:libcrypto.so.3"]).status();
    assert!(built.unwrap().success());
    library
}

/// Gives a person one key more, by the policy in force.
fn enrol(stage: &Stage, person: &str, public_line: &str) {
    let shown = stage.as_person("omar", &["policy", "show"]);
    let (start, rest) = shown.out.split_once(&format!("name = \"{person}@example.com\"")).unwrap();
    let key: Vec<&str> = public_line.split_whitespace().take(2).collect();
    let rest = rest.replacen("keys = [", &format!("keys = [\"{}\", ", key.join(" ")), 1);
    stage.write("more.toml", &format!("{start}name = \"{person}@example.com\"{rest}"));
    let applied = stage.as_person("omar", &["policy", "apply", &stage.shown("more.toml"), "--yes"]);
    assert_eq!(applied.code, 0, "{}", applied.err);
}

#[test]
fn a_security_keys_file_logs_in_through_ssh_keygen() {
    let stage = Stage::new();
    let provider = provider(&stage);
    let key = stage.shown("alice/id_ed25519_sk");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519-sk", "-N", "", "-f", &key])
        .env("SSH_SK_PROVIDER", &provider)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    enrol(&stage, "alice", &std::fs::read_to_string(format!("{key}.pub")).unwrap());
    let (url, pin) = (stage.url(), stage.pin());
    let login = |key: &str, provider: &str| {
        let arguments = ["login", "--profile", "sk", "--server", &url, "--pin", &pin, "--person", "alice@example.com"];
        let mut command = stage.command("alice", &[&arguments[..], &["--key", key]].concat());
        Ran::of(command.env("SSH_SK_PROVIDER", provider).output().unwrap())
    };
    let refused = login(&key, "/nowhere/provider.so");
    assert_eq!((refused.code, refused.out.as_str()), (7, ""), "{}", refused.err);
    assert!(refused.err.contains("did not sign"), "{}", refused.err);
    let ran = login(&key, &provider);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("you are alice@example.com"), "{}", ran.out);
    let status = stage.as_person("alice", &["status", "--profile", "sk", "--json"]);
    assert_eq!(status.field("person"), "alice@example.com");
}

/// Runs a command on a terminal of its own (`script` makes it), typing each answer when its question is there; all that
/// the terminal showed, and the exit code.
fn on_terminal(stage: &Stage, person: &str, arguments: &[&str], talk: &[(&str, &str)]) -> (String, i32) {
    let quoted: Vec<String> = [HALLPASS].iter().chain(arguments).map(|word| format!("'{word}'")).collect();
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &quoted.join(" "), "/dev/null"]).env_clear();
    for (name, value) in stage.command(person, &[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = Vec::new();
    let mut bytes = [0; 4096];
    for (question, answer) in talk {
        while !String::from_utf8_lossy(&shown).contains(question) {
            let count = screen.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended before {question:?}:\n{}", String::from_utf8_lossy(&shown));
            shown.extend_from_slice(&bytes[..count]);
        }
        keyboard.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    // The terminal stays open until the command is over: what it still says is read first.
    screen.read_to_end(&mut shown).unwrap();
    (String::from_utf8(shown).unwrap().replace('\r', ""), child.wait().unwrap().code().unwrap())
}

#[test]
fn a_passphrase_is_asked_on_the_terminal_and_not_shown() {
    let stage = Stage::new();
    let key = stage.shown("alice/protected");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "correct horse", "-f", &key]).status();
    assert!(made.unwrap().success());
    enrol(&stage, "alice", &std::fs::read_to_string(format!("{key}.pub")).unwrap());
    let (url, pin) = (stage.url(), stage.pin());
    let arguments = ["login", "--profile", "p", "--server", &url, "--pin", &pin, "--person", "alice@example.com"];
    let login = [&arguments[..], &["--key", &key]].concat();
    let (shown, code) = on_terminal(&stage, "alice", &login, &[("passphrase of ", "wrong horse")]);
    assert_eq!(code, 7, "{shown}");
    assert!(shown.contains("the passphrase does not open the private key"), "{shown}");
    let (shown, code) = on_terminal(&stage, "alice", &login, &[("passphrase of ", "correct horse")]);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("you are alice@example.com") && !shown.contains("horse"), "{shown}");
}

#[test]
fn init_asks_five_questions_and_asks_a_bad_answer_again() {
    let stage = Stage::empty();
    let line = stage.make_key("omar");
    let folder = stage.shown("asked");
    let talk = [
        ("public URL of the service", "https://access.example.com:7722"),
        ("folder for configuration", folder.as_str()),
        ("name of the first operator", "not a name"),
        ("is not a person", "omar@example.com"),
        ("their public SSH key", line.as_str()),
        ("a first host", ""),
    ];
    let (shown, code) = on_terminal(&stage, "omar", &["init"], &talk);
    assert_eq!(code, 0, "{shown}");
    let asked = ["public URL", "folder for", "first operator (", "their public SSH key", "a first host"];
    assert_eq!(asked.map(|question| shown.matches(question).count()), [1, 1, 2, 1, 1], "{shown}");
    assert!(std::fs::read_to_string(stage.path("asked/policy.toml")).unwrap().contains("name = \"web-1\""));
    let checked = stage.as_person("omar", &["policy", "check", &stage.shown("asked/policy.toml")]);
    assert_eq!(checked.code, 0, "{}", checked.err);
}
