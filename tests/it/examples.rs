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
