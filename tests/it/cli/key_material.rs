//! CA keys, their passphrases and PINs, and every kind of token, are where they belong and nowhere else: not in the log at its most talkative,
//! the database, an error, what other programs are seen to do, or what is left of a process that died.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::stage::{HALLPASS, Ran, Stage};
use super::{REASON, inventory};
use crate::hosts::machine::Machine;

/// The ways in which bytes could be written down.
fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = data_encoding::HEXLOWER.encode(secret);
    // Base64 of a text that holds it, at each of the three places in a group: without the characters that neighbours share.
    let shifted = (0..3).map(|shift| {
        let padded = [&vec![0; shift], secret].concat();
        let text = data_encoding::BASE64_NOPAD.encode(&padded);
        text.as_bytes()[shift.div_ceil(3) * 4..text.len() - 4].to_vec()
    });
    let escaped = secret.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let numbers = secret.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    [("raw", secret.to_vec()), ("hex", hex.to_ascii_lowercase().into_bytes())]
        .into_iter()
        .chain([("HEX", hex.to_ascii_uppercase().into_bytes()), ("strace", escaped.into_bytes())])
        .chain([("numbers", numbers.into_bytes())])
        .chain(shifted.map(|text| ("base64", text)))
        .collect()
}

/// Every file below a folder, and what it holds; files that are meant to hold the secret are left out.
fn files(folder: &Path, apart: &[PathBuf], found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            files(&path, apart, found);
        } else if kind.is_file() && !apart.contains(&path) {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The files in which one of the secrets stands, in some spelling.
fn leaks(folder: &Path, apart: &[PathBuf], secrets: &[(&str, Vec<u8>)]) -> Vec<String> {
    let mut found = Vec::new();
    files(folder, apart, &mut found);
    assert!(found.len() > 10, "too few files to have been a run: {}", found.len());
    let mut leaks = Vec::new();
    for (what, secret) in secrets {
        for (how, wanted) in spellings(secret) {
            let places = found.iter().filter(|(_, bytes)| holds(bytes, &wanted));
            leaks.extend(places.map(|(path, _)| format!("{what} ({how}) in {}", path.display())));
        }
    }
    leaks
}

/// The 32 secret bytes of an unencrypted Ed25519 key file: the last that follow the public key for the second time, in its format
/// (PROTOCOL.key: private part of `ssh-ed25519` is public key, then secret and public key in one string).
fn seed(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
    let public = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let blob = data_encoding::BASE64.decode(public.split(' ').nth(1).unwrap().as_bytes()).unwrap();
    let public = &blob[blob.len() - 32..];
    let last = bytes.windows(32).rposition(|window| window == public).unwrap();
    bytes[last - 32..last].to_vec()
}

fn with_secret_files(stage: &Stage) -> (Vec<PathBuf>, Vec<(&'static str, Vec<u8>)>) {
    let passphrase = "correct horse battery staple 4711";
    stage.write("service/ca_passphrase", &format!("{passphrase}\n"));
    let private = |path: PathBuf| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let passphrase_file = private(stage.path("service/ca_passphrase"));
    let (user, host) = (stage.path("service/user_ca"), stage.path("service/host_ca"));
    let secrets = vec![
        ("the user CA key", seed(&user)),
        ("the host CA key", seed(&host)),
        ("the passphrase", passphrase.as_bytes().to_vec()),
    ];
    let mut encrypt = Command::new("ssh-keygen");
    encrypt.args(["-q", "-p", "-a", "4", "-P", "", "-N", passphrase, "-f"]).arg(&user).stdout(Stdio::null());
    assert!(encrypt.status().unwrap().success());
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    let (before, after) = config.split_once("[ca.user]\n").unwrap();
    stage.write(
        "service/config.toml",
        &format!("{before}[ca.user]\npassphrase_file = {:?}\n{after}", passphrase_file.display().to_string()),
    );
    (vec![passphrase_file, user, host], secrets)
}

/// Has the service log whatever it or a library has to say.
fn tells_all(stage: &Stage) {
    let config = std::fs::read_to_string(stage.path("service/config.toml")).unwrap();
    assert!(!config.contains("[logging]"), "{config}");
    stage.write("service/config.toml", &format!("{config}\n[logging]\nlevel = \"trace\"\n"));
}

#[test]
fn ca_keys_and_passphrases_are_in_no_log_database_error_or_trace_of_others() {
    let mut stage = Stage::empty();
    stage.set_up();
    let (apart, secrets) = with_secret_files(&stage);
    tells_all(&stage);
    stage.start();
    for person in ["alice", "bob", "omar"] {
        stage.log_in(person);
    }
    // A client with everything it reads and writes, each byte spelt out.
    let ask = ["request", "web-1", "--for", "10m", "--reason", "looking at the disk", "--no-wait", "--json"];
    let id = stage.as_person("alice", &ask).field("id");
    assert_eq!(stage.as_person("bob", &["approve", &id, "--yes"]).code, 0);
    let words = ["wait", &id, "--json"];
    let trace = stage.shown("client.trace");
    let mut traced = Command::new("strace");
    traced.args(["-f", "-xx", "-s", "65536", "-o", &trace, HALLPASS]).args(words);
    let client = stage.command("alice", &[]);
    for (name, value) in client.get_envs() {
        traced.env(name, value.unwrap_or_default());
    }
    let ran = Ran::of(traced.output().unwrap());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let hosts = Ran::of(stage.command("omar", &["ca", "ls", "--json"]).output().unwrap());
    assert_eq!(hosts.code, 0, "{}", hosts.err);
    let export = stage.shown("export.jsonl");
    assert_eq!(stage.as_person("omar", &["audit", "export", "--out", &export]).code, 0);
    let said = stage.stop();
    assert!(said.contains("TRACE"), "{said}");
    stage.write("service.log", &said);

    // Errors about the key: a file that others can read, and a wrong passphrase.
    let serve = ["serve".to_owned(), "--config".to_owned(), stage.shown("service/config.toml")];
    let serve: Vec<&str> = serve.iter().map(String::as_str).collect();
    use std::os::unix::fs::PermissionsExt as _;
    let key = stage.path("service/user_ca");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = stage.as_person("omar", &serve);
    assert!(open.code == 1 && open.err.contains("chmod 600"), "{}", open.err);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let right = std::fs::read(&apart[0]).unwrap();
    std::fs::write(&apart[0], "correct horse battery staple 4712\n").unwrap();
    let wrong = stage.as_person("omar", &serve);
    assert!(wrong.code == 1, "{}", wrong.err);
    std::fs::write(&apart[0], right).unwrap();
    stage.write("errors", &format!("{}{}", open.err, wrong.err));
    assert!(!wrong.err.contains("4712"), "{}", wrong.err);

    let leaks = leaks(stage.path("").as_path(), &apart, &secrets);
    assert!(leaks.is_empty(), "{leaks:#?}");
    // The search finds what is there: the trace holds the server's answer, and the request's reason in it.
    let trace = std::fs::read(stage.path("client.trace")).unwrap();
    assert!(
        spellings(b"looking at the disk").iter().any(|(_, wanted)| holds(&trace, wanted)),
        "the trace shows nothing"
    );
}

/// The token behind `before` in a text.
fn token(text: &str, before: &str) -> String {
    let (_, token) = text.split_once(before).unwrap_or_else(|| panic!("{before:?} in {text}"));
    token.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
}

/// The file that `hallpass open` hands to a browser holds a token; the file goes.
fn sign_in_token(stage: &Stage) -> String {
    let mut opening = stage.command("bob", &["open"]);
    assert_eq!(Ran::of(opening.env("BROWSER", "true").output().unwrap()).code, 0);
    let files = std::fs::read_dir(stage.path("bob/run/default")).unwrap().flatten().map(|entry| entry.path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "html")).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    token(&text, "name=\"token\" value=\"")
}

/// What a browser sends and gets; it says nothing that others could see in its arguments.
fn browses(stage: &Stage, arguments: &[&str], secret: &str) -> String {
    use std::io::Write as _;
    let url = stage.url();
    let mut curl = Command::new("curl");
    curl.args([
        "-sk",
        "--noproxy",
        "*",
        "-D",
        "-",
        "-H",
        &format!("origin: {url}"),
        "-H",
        "sec-fetch-site: same-origin",
    ]);
    curl.args(["-H", "accept: text/html"]).args(&arguments[1..]).arg(format!("{url}{}", arguments[0]));
    let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    curl.stdin.take().unwrap().write_all(secret.as_bytes()).unwrap();
    String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap()
}

/// A token as it is written, and as the bytes that it stands for.
fn both(what: &'static str, token: String) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(&token.as_bytes()[4..]).unwrap();
    vec![(what, token.into_bytes()), (what, bytes)]
}

#[test]
fn no_token_is_in_a_log_the_store_an_argument_or_what_is_said_however_talkative_the_service_is() {
    let mut stage = Stage::empty();
    stage.set_up();
    tells_all(&stage);
    stage.start();
    let (mut secrets, mut apart) = (Vec::new(), Vec::new());
    for (person, what) in [("alice", "alice's session"), ("bob", "bob's session"), ("omar", "omar's session")] {
        stage.log_in(person);
        let file = stage.path(&format!("{person}/state/default/session"));
        secrets.extend(both(what, token(&std::fs::read_to_string(&file).unwrap(), "\"token\":\"")));
        apart.push(file);
    }
    // Whatever a command says is kept for the search.
    let said = std::cell::RefCell::new(String::new());
    let types = |person: &str, arguments: &[&str], code: i32| {
        let ran = stage.as_person(person, arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        said.borrow_mut().push_str(&format!("{}{}", ran.out, ran.err));
        ran
    };
    let join = stage.shown("join");
    types("omar", &["admin", "join", "create", "app-*", "--uses", "2", "--out", &join, "-v"], 0);
    let join_token = std::fs::read_to_string(&join).unwrap().trim().to_owned();
    apart.push(join.into());
    let host = inventory::enrol(&stage, &Machine::new("app-1", &[60]), &join_token).unwrap();
    inventory::post(&stage, &host, "/v1/hosts/sessions", &serde_json::json!({ "events": [] }));
    let refused = inventory::enrol(&stage, &Machine::new("db-1", &[61]), &join_token).unwrap_err();
    said.borrow_mut().push_str(&refused);
    secrets.extend(both("the join token", join_token));
    secrets.extend(both("the host token", host));

    let sign_in = sign_in_token(&stage);
    let form = format!("token={sign_in}&to=");
    let asks = browses(&stage, &["/sign-in", "--data-binary", "@-"], &form);
    assert!(asks.starts_with("HTTP/") && asks.contains(&sign_in), "the page asks with the token: {asks}");
    let cookie = token(&browses(&stage, &["/sign-in/confirm", "--data-binary", "@-"], &form), "__Host-hallpass=");
    let page = browses(&stage, &["/", "-H", "@-"], &format!("cookie: __Host-hallpass={cookie}\n"));
    assert!(page.contains("bob@example.com"), "{page}");
    let again = browses(&stage, &["/sign-in/confirm", "--data-binary", "@-"], &form);
    assert!(!again.contains("set-cookie"), "{again}");
    secrets.extend(both("the sign-in token", sign_in));
    secrets.extend(both("the cookie", cookie));

    let ask = ["request", "web-1", "--for", "10m", "--reason", REASON, "--no-wait", "--json", "-v"];
    let id = types("alice", &ask, 8).field("id");
    types("bob", &["approve", &id, "--yes", "-v"], 0);
    types("alice", &["wait", &id, "-v"], 0);
    types("omar", &["admin", "join", "ls", "--json"], 0);
    types("omar", &["audit", "tail", "--json"], 0);
    types("omar", &["audit", "export", "--out", &stage.shown("export.jsonl")], 0);
    types("alice", &["request", "web-9", "--reason", REASON, "-v"], 5);
    // Whatever it finds; the bundle is a file of its own.
    let looked = stage.as_person("alice", &["doctor", "-v", "--bundle", &stage.shown("bundle")]);
    assert!(stage.path("bundle").exists(), "{}", looked.err);
    stage.write("said", &format!("{}{}{}", said.borrow(), looked.out, looked.err));
    for what in ["cmdline", "environ"] {
        let shown = std::fs::read(format!("/proc/{}/{what}", stage.pid())).unwrap();
        std::fs::write(stage.path(&format!("service.{what}")), shown).unwrap();
    }
    types("bob", &["logout", "--everywhere"], 0);
    let told = stage.stop();
    assert!(told.contains("TRACE"), "{told}");
    stage.write("service.log", &told);
    assert_eq!(secrets.len(), 14);
    let leaks = leaks(stage.path("").as_path(), &apart, &secrets);
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn what_the_search_looks_for_it_finds() {
    let folder = tempfile::tempdir().unwrap();
    let secret: Vec<u8> = (0..32).map(|n| n * 7 + 3).collect();
    for n in 0..20 {
        std::fs::write(folder.path().join(format!("other-{n}")), "nothing").unwrap();
    }
    for (n, text) in [
        data_encoding::BASE64.encode(&secret),
        data_encoding::BASE64.encode(&[&b"ab"[..], &secret, b"xyz"].concat()),
        data_encoding::HEXUPPER.encode(&secret),
        format!("{secret:?}"),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(folder.path().join(format!("leak-{n}")), text).unwrap();
    }
    let found = leaks(folder.path(), &[], &[("it", secret)]);
    for n in 0..4 {
        assert!(found.iter().any(|place| place.ends_with(&format!("leak-{n}"))), "leak-{n}: {found:?}");
    }
}

/// The account that nothing belongs to.
const NOBODY: u32 = 65_534;

/// Starts a shell script in a folder, without a limit on cores; as nobody if we are root, whose processes look alike to all.
fn starts(folder: &Path, script: &str) -> Child {
    let script = format!("ulimit -c unlimited; cd '{}'; exec {script}", folder.display());
    let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "sh", "-c", &script];
    let is_root = rustix::process::geteuid().is_root();
    let mut shell = Command::new(if is_root { "setpriv" } else { "sh" });
    shell.args(if is_root { &words[..] } else { &words[7..] });
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Whose the memory of a process is, as the kernel tells others.
fn owner(child: &Child) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{}/mem", child.id())).unwrap())
}

fn aborts(mut child: Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::ABORT).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(6));
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_service_that_dies_leaves_no_core_and_lets_its_own_account_not_look_into_it() {
    let stage = Stage::empty();
    stage.set_up();
    let (folder, program) = (stage.path("dying"), stage.path("hallpass"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(HALLPASS, &program).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        let mut chown = Command::new("chown");
        chown.args(["-R", &format!("{NOBODY}:{NOBODY}")]).arg(stage.path(""));
        assert!(chown.status().unwrap().success());
    }
    let cores = || std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    // Another program in its place is its account's to look into, and leaves a core where this machine writes cores into files.
    let other = starts(&folder, "sleep 1000");
    let comm = format!("/proc/{}/comm", other.id());
    until("sleep", || std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep"));
    assert_eq!(owner(&other), if is_root { NOBODY } else { rustix::process::geteuid().as_raw() });
    aborts(other);
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert!(pattern.starts_with(['|', '/']) || !cores().is_empty(), "no core by {pattern}");
    cores().iter().for_each(|core| std::fs::remove_file(core).unwrap());

    let (config, ready) = (stage.shown("service/config.toml"), stage.path("service/ready"));
    let serve = format!("'{}' serve --config '{config}' --ready-file '{}'", program.display(), ready.display());
    let service = starts(&folder, &serve);
    until("the service", || ready.exists());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    // The kernel gives what is in /proc of a process that must not be dumped to root.
    assert_eq!(owner(&service), 0);
    aborts(service);
    assert_eq!(cores(), Vec::<PathBuf>::new());
}
