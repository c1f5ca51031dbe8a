//! The example files at the top level: they parse, they mean what their comments say, and each key is explained. That they
//! name every key there is, is tested beside the parsers.

use std::collections::BTreeSet;
use std::path::Path;

use hallpass::config::Config;
use hallpass::name::{Account, CaName, HostName, PersonName};
use hallpass::note::NoteSigner;
use hallpass::policy::{Approvals, Outcome, Policy, Question};
use hallpass::signer;
use hallpass::ssh::PublicKey;
use hallpass::ssh::bundle::{Bundle, BundleKey, KeyState};
use hallpass::time::{Lifetime, Timestamp};

const POLICY: &str = include_str!("../../policy.toml.example");
const BUNDLE: &str = include_str!("../../ca-keys.example");
const CA_KEYS_GUIDE: &str = include_str!("../../docs/ca-keys.md");
const CONFIG: &str = include_str!("../../config.toml.example");
const HOST: &str = include_str!("../../deploy/host.toml.example");

fn policy() -> Policy {
    Policy::parse(POLICY, "policy.toml.example").unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn person(name: &str) -> PersonName {
    PersonName::parse(&format!("{name}@example.com")).unwrap()
}

fn ask(name: &str, host: &str, account: &str) -> Outcome {
    let question = Question {
        person: person(name),
        hosts: BTreeSet::from([HostName::parse(host).unwrap()]),
        account: Account::parse(account).unwrap(),
        lifetime: None,
        held: Lifetime::ZERO,
        start: None,
        reason: "INC-1 the pool is exhausted".to_owned(),
        ticket: None,
        at: Timestamp::parse("2026-01-05T10:00:00Z").unwrap(),
    };
    policy().evaluate(&question).outcome
}

#[test]
fn the_policy_example_gives_the_roles_that_it_names() {
    let policy = policy();
    for (name, is_operator, is_auditor) in
        [("alice", false, false), ("bob", true, false), ("carol", false, true), ("dave", true, false)]
    {
        assert_eq!(policy.is_operator(&person(name)), is_operator, "{name}");
        assert_eq!(policy.is_auditor(&person(name)), is_auditor, "{name}");
    }
}

#[test]
fn the_policy_example_grants_what_its_comments_say() {
    let Outcome::Ask(terms, quorum) = ask("alice", "web-1", "deploy") else { panic!("it asks") };
    assert_eq!((terms.lifetime.to_string(), terms.lifetime_max.to_string()), ("30m".to_owned(), "2h".to_owned()));
    assert_eq!(terms.options.permits.iter().map(|permit| permit.key()).collect::<Vec<_>>(), ["pty"]);
    assert_eq!(terms.options.source_addresses.len(), 2);
    assert_eq!(quorum.to_string(), "needs 1 of group:sre");

    let Outcome::Allow(terms) = ask("alice", "legacy-1", "debug") else { panic!("it is allowed at once") };
    let principals: Vec<&str> = terms.hosts.values().map(hallpass::name::Principal::as_str).collect();
    assert_eq!(principals, ["debug"], "the scope of legacy-1 is the account");
    assert_eq!(terms.options.force_command.unwrap().as_str(), "journalctl -n 1000 -u api");

    let Outcome::Ask(terms, quorum) = ask("bob", "db-1", "postgres") else { panic!("it asks") };
    assert_eq!(terms.lifetime_max.to_string(), "45m");
    let policy = policy();
    let (carol, dave) = (person("carol"), person("dave"));
    let key = policy.directory().person(&dave).unwrap().keys[0].fingerprint();
    let others = Approvals::from([(carol.clone(), None), (dave.clone(), Some(key))]);
    assert!(quorum.is_met(&others, policy.directory()), "whoever asks, the others can approve");
    let unsigned = Approvals::from([(carol, None), (dave, None)]);
    assert!(!quorum.is_met(&unsigned, policy.directory()), "one of them with a signature");
    assert!(matches!(ask("bob", "db-1", "root"), Outcome::Refuse(_)));
}

#[test]
fn the_config_example_means_what_it_says() {
    let config = Config::parse(CONFIG, "config.toml.example", Path::new("/etc/hallpass"), None).unwrap();
    assert_eq!(config.http.listen, "0.0.0.0:7722".parse().unwrap());
    assert_eq!(config.service.public_url, "https://hallpass.example.com:7722");
    assert_eq!(config.policy_path, Path::new("/etc/hallpass/policy.toml"));
    let hallpass::store::Settings::Sqlite(file) = config.store else { panic!("a file") };
    assert_eq!(file.path, Path::new("/var/lib/hallpass/hallpass.db"));
    let path = |ca: signer::Settings| match ca {
        signer::Settings::File(file) => file.path,
        other => panic!("{other:?}"),
    };
    assert_eq!(path(config.user_ca), Path::new("/etc/hallpass/user-ca"));
    assert_eq!(path(config.host_ca.unwrap()), Path::new("/etc/hallpass/host-ca"));
    assert_eq!(config.service.session.to_string(), "12h");
    assert!(config.self_signed && !config.logging.json);
}

/// The log key of the example of a trust bundle.
fn example_signer() -> NoteSigner {
    NoteSigner::new("hallpass.example.com:7722/log", &[1; 32]).unwrap()
}

/// A key whose private half was thrown away, and one in reserve; the log key is a known one, so that the example can be made again.
#[test]
fn the_example_of_a_trust_bundle_is_one() {
    let signer = example_signer();
    let at = |text| Timestamp::parse(text).unwrap();
    let key = |line, state, since| BundleKey { key: PublicKey::parse_openssh(line).unwrap(), state, since: at(since) };
    let first = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMb+l8giIP5zrZWPUwNuUirItoKdUKeWKAjliIPI+b5T";
    let second = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBKnyC/lWJllJxJYPUEqvbjxablFNl59PmSXZ6unhq9SHcyHlBBtAyG40sv2haw45Q+uI1efrX2lZkUrijD8QlWY=";
    let keys = vec![
        key(first, KeyState::Active, "2026-01-05T10:00:00Z"),
        key(second, KeyState::Staged, "2026-04-01T09:30:00Z"),
    ];
    let bundle =
        Bundle::new(1204, at("2026-04-01T09:30:00Z"), ("https://hallpass.example.com:7722", &CaName::DEFAULT), keys)
            .unwrap();
    assert_eq!(BUNDLE, bundle.to_text(&signer));
    assert_eq!(Bundle::open(BUNDLE, signer.verifier()), Ok(bundle));
    assert!(CA_KEYS_GUIDE.contains(&signer.verifier().to_text()), "the guide checks the example with its key");
}

/// The first place of each key in an example, with the comment above it.
fn keys_with_comments(text: &str) -> Vec<(String, String)> {
    let (mut table, mut comment) = (String::new(), String::new());
    let (mut seen, mut keys) = (BTreeSet::new(), Vec::new());
    for line in text.lines() {
        let setting = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        let setting = setting.unwrap_or(line);
        if let Some(words) = setting.strip_prefix('#') {
            comment.push_str(words);
        } else if setting.is_empty() {
            comment.clear();
        } else if setting.starts_with('[') {
            table = setting.to_owned();
            comment.clear();
        } else {
            let key = setting.split('=').next().unwrap().trim().to_owned();
            if seen.insert((table.clone(), key.clone())) {
                keys.push((format!("{table} {key}"), comment.to_lowercase()));
            }
        }
    }
    keys
}

#[test]
fn each_key_of_an_example_has_a_comment_that_tells_its_default_or_that_it_is_required() {
    for (text, count) in [(POLICY, 21), (CONFIG, 21), (HOST, 8)] {
        let keys = keys_with_comments(text);
        assert!(keys.len() >= count, "{keys:?}");
        for (key, comment) in keys {
            assert!(comment.contains("default") || comment.contains("required"), "{key}: {comment:?}");
        }
    }
}

#[test]
fn the_guides_commands_check_the_example_of_a_trust_bundle_offline() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/ca-keys.example"), folder.path().join("ca-keys.example"))
        .unwrap();
    let (_, rest) = CA_KEYS_GUIDE.split_once("```sh\nkey=").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    let run = || {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", &format!("key={script}")]).current_dir(folder.path()).output().unwrap().status.success()
    };
    assert!(run());
    std::fs::write(folder.path().join("ca-keys.example"), BUNDLE.replace("# version 1204", "# version 1205")).unwrap();
    assert!(!run());
    // sshd would read this last line as a key with a comment.
    let (lines, signature) = BUNDLE.trim_end().rsplit_once('\n').unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let with_key = format!("{lines}\n{key} {}\n", signature.rsplit(' ').next().unwrap());
    std::fs::write(folder.path().join("ca-keys.example"), with_key).unwrap();
    assert!(!run());
    // Base64 has `+` in it, too, as what stands between the parts of a key.
    let name = "hallpass.example.com:7722/log";
    let signers = (0..=u8::MAX).map(|seed| NoteSigner::new(name, &[seed; 32]).unwrap());
    let signer = signers.into_iter().find(|signer| signer.verifier().to_text().matches('+').count() == 3).unwrap();
    let bundle = Bundle::open(BUNDLE, example_signer().verifier()).unwrap();
    std::fs::write(folder.path().join("ca-keys.example"), bundle.to_text(&signer)).unwrap();
    let script = script.replace(&example_signer().verifier().to_text(), &signer.verifier().to_text());
    let mut shell = std::process::Command::new("sh");
    let ran = shell.args(["-ec", &format!("key={script}")]).current_dir(folder.path()).output().unwrap();
    assert!(ran.status.success(), "{}: {ran:?}", signer.verifier().to_text());
}

/// The guide's script for hosts that are set up by hand, run with something in place of `curl` that brings whatever it is told to.
struct Fetching {
    folder: tempfile::TempDir,
    script: String,
}

impl Fetching {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (_, rest) = CA_KEYS_GUIDE.split_once("```sh\n#!/bin/sh\n# /usr/local/sbin/fetch-user-ca-keys").unwrap();
        let (script, _) = rest.split_once("```").unwrap();
        let shown = folder.path().display();
        let place = "\nto=/etc/ssh/hallpass/user_ca_keys\n";
        assert!(script.contains(place) && script.contains("\nca=  "));
        let script = script.replace(place, &format!("\nto={shown}/here/keys\n"));
        std::fs::create_dir(folder.path().join("here")).unwrap();
        // It checks the connection as the script says, and leaves a file that nobody else may read.
        let curl = format!(
            "#!/bin/sh\ncase \"$*\" in *'--fail '*'--proto =https '*'--cacert '*) ;; *) exit 2 ;; esac\n\
             for word in \"$@\"; do test \"${{last-}}\" = --output && to=$word; last=$word; done\n\
             test \"$last\" = \"$(cat {shown}/url)\" && cp {shown}/answer \"$to\" && chmod 600 \"$to\"\n"
        );
        let path = folder.path().join("bin/curl");
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        hallpass::durable::replace(&path, curl.as_bytes(), 0o755).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        Self { folder, script: format!("# {script}") }
    }

    /// What the script makes of this answer for the hosts of this CA (`""`: the one without a name): whether it says that all is well, and the file.
    fn run(&self, ca: &str, answer: Option<&str>) -> (bool, Option<String>) {
        let path = |name: &str| self.folder.path().join(name);
        let way = if ca.is_empty() { String::new() } else { format!("/{ca}") };
        std::fs::write(path("url"), format!("https://access.example.com:7722/v1/ca/user-keys{way}")).unwrap();
        match answer {
            Some(text) => std::fs::write(path("answer"), text).unwrap(),
            None => drop(std::fs::remove_file(path("answer"))),
        }
        let script = self.script.replacen("\nca=  ", &format!("\nca={ca}  "), 1);
        let programs = format!("{}:{}", path("bin").display(), std::env::var("PATH").unwrap());
        let mut shell = std::process::Command::new("sh");
        let ran = shell.args(["-c", &script]).env("PATH", programs).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.success() || said.contains("stays as it is"), "{said}");
        let names = std::fs::read_dir(path("here")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| name == "keys"), "nothing of it is left behind");
        (ran.status.success(), std::fs::read_to_string(path("here/keys")).ok())
    }

    /// The same where this is there already.
    fn run_over(&self, there: &str, ca: &str, answer: &str) -> (bool, Option<String>) {
        std::fs::write(self.folder.path().join("here/keys"), there).unwrap();
        self.run(ca, Some(answer))
    }
}

/// The example's bundle in another version and of another CA, with its first keys alone.
fn example_bundle(version: u64, ca: &CaName, keys: usize) -> String {
    let bundle = Bundle::open(BUNDLE, example_signer().verifier()).unwrap();
    let keys = bundle.keys()[..keys].to_vec();
    Bundle::new(version, bundle.at(), (bundle.service(), ca), keys).unwrap().to_text(&example_signer())
}

/// A bundle's text that somebody has changed and who has the log key has signed again.
fn signed_anew(text: &str, change: impl FnOnce(&str) -> String) -> String {
    let (lines, _) = text.trim_end().rsplit_once('\n').unwrap();
    let changed = change(&format!("{lines}\n"));
    format!("{changed}# {}\n", example_signer().sign(&changed))
}

#[test]
fn the_guides_script_fetches_newer_bundles_and_one_without_keys_too() {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    let fetching = Fetching::new();
    let path = fetching.folder.path().join("here/keys");
    let newer = |version, keys| example_bundle(version, &CaName::DEFAULT, keys);
    assert_eq!(fetching.run("", Some(BUNDLE)), (true, Some(BUNDLE.to_owned())), "the first one");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644, "sshd's command reads it, too");
    assert_eq!(fetching.run("", Some(BUNDLE)), (true, Some(BUNDLE.to_owned())), "the same once more");
    let mut before = std::fs::File::open(&path).unwrap();
    assert_eq!(fetching.run("", Some(&newer(1300, 1))), (true, Some(newer(1300, 1))));
    let mut text = String::new();
    before.read_to_string(&mut text).unwrap();
    assert_eq!(text, BUNDLE, "another file was put in its place");
    // After the theft of the only key nobody may be let in by it: what holds the stolen one must not stay.
    let empty = newer(1301, 0);
    assert!(empty.lines().all(|line| line.starts_with("# ")));
    assert_eq!(fetching.run("", Some(&empty)), (true, Some(empty)));
    // What somebody made by hand has no version.
    let by_hand = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n";
    assert_eq!(fetching.run_over(by_hand, "", BUNDLE), (true, Some(BUNDLE.to_owned())));
    let prod = example_bundle(1205, &CaName::parse("prod").unwrap(), 2);
    assert_eq!(fetching.run_over(BUNDLE, "prod", &prod), (true, Some(prod)));
}

#[test]
fn the_guides_script_keeps_what_is_there_when_anything_else_comes_and_says_so() {
    let fetching = Fetching::new();
    let new = example_bundle(1300, &CaName::DEFAULT, 2);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let other = NoteSigner::new("hallpass.example.com:7722/log", &[2; 32]).unwrap();
    let (lines, signature) = new.trim_end().rsplit_once("\n").unwrap();
    let base64 = signature.rsplit(' ').next().unwrap();
    let bad = [
        ("nothing", String::new()),
        ("a page", "<html>\n<p>log in</p>\n</html>\n".to_owned()),
        ("garbage before", format!("garbage\n{new}")),
        ("garbage behind", format!("{new}garbage\n")),
        ("a key behind", format!("{new}{key}\n")),
        ("a key behind the signature", format!("{lines}\n{signature}\r{key}\n")),
        ("a key in place of the signature's comment", format!("{lines}\n{key} {base64}\n")),
        ("no signature", format!("{lines}\n")),
        ("cut", new[..new.len() / 2].to_owned()),
        ("a version that was changed", new.replace("# version 1300", "# version 1301")),
        ("signed by another key", Bundle::open(&new, example_signer().verifier()).unwrap().to_text(&other)),
        ("signed, another title", signed_anew(&new, |text| text.replace("bundle 1:", "bundle 2:"))),
        ("signed, no bundle", signed_anew("hallpass.example.com:7722/log\n7\n\n", str::to_owned)),
        ("signed, garbage before", signed_anew(&new, |text| format!("garbage\n{text}"))),
        ("signed, garbage between", signed_anew(&new, |text| text.replacen("\nssh-", "\ngarbage\nssh-", 1))),
        ("signed, garbage behind", signed_anew(&new, |text| format!("{text}garbage\n"))),
        ("signed, options", signed_anew(&new, |text| text.replacen("\nssh-", "\ncert-authority ssh-", 1))),
        ("signed, two versions", signed_anew(&new, |text| format!("{text}# version 1301\n"))),
        ("signed, no version", signed_anew(&new, |text| text.replace("# version 1300\n", ""))),
        ("signed, of another CA", example_bundle(1300, &CaName::parse("prod").unwrap(), 2)),
        ("older", example_bundle(1203, &CaName::DEFAULT, 2)),
        ("older, and shorter as a text", example_bundle(999, &CaName::DEFAULT, 2)),
    ];
    for (what, text) in bad {
        assert_eq!(fetching.run_over(BUNDLE, "", &text), (false, Some(BUNDLE.to_owned())), "{what}");
    }
    assert_eq!(fetching.run("", None), (false, Some(BUNDLE.to_owned())), "no answer");
    for wrong in [&new, &example_bundle(1300, &CaName::parse("production").unwrap(), 2)] {
        assert_eq!(fetching.run_over(BUNDLE, "prod", wrong), (false, Some(BUNDLE.to_owned())));
    }
    // A key that was taken out by hand stays out until there is something newer.
    let (without, _) = BUNDLE.split_once("\nssh-ed25519").unwrap();
    assert_eq!(fetching.run_over(without, "", BUNDLE), (false, Some(without.to_owned())));
    assert_eq!(fetching.run_over(without, "", &new), (true, Some(new)));
}

#[test]
fn the_host_example_means_what_it_says_and_the_same_lines_stand_everywhere() {
    let host = hallpass::host::settings::Settings::parse(HOST, "host.toml").unwrap();
    assert_eq!((host.name.as_str(), host.trust.as_path()), ("web-1", Path::new("/etc/ssh/hallpass/user_ca_keys")));
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    // sshd and PAM are told the same in the files to install, in the guide and in the help.
    let line = |text: &str, with: &str| {
        let found = text.lines().find(|line| line.contains(with)).unwrap_or_else(|| panic!("no {with:?}"));
        found.trim_start_matches('#').split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (pam, guide, help) = (read("deploy/pam-sshd"), read("docs/hosts.md"), read("tests/cli/host.txt"));
    let guard = line(&pam, "pam_exec.so");
    assert_eq!((line(&guide, "pam_exec.so"), line(&help, "pam_exec.so")), (guard.clone(), guard));
    let sshd = read("deploy/00-hallpass.conf");
    let command = line(&sshd, "AuthorizedPrincipalsCommand /usr");
    assert_eq!(line(&guide, "AuthorizedPrincipalsCommand /usr"), command);
    let folded = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(folded.contains(&command), "{command}");
}
