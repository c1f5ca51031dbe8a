//! What the daemon takes from the service, and what it does not; what a login that reads at the same moment sees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use hallpass::enrolment::daemon::install::{Installer, Remembered, granted, new_certificates, tags};
use hallpass::enrolment::facts::HostKey;
use hallpass::enrolment::host_certificate::Expected;
use hallpass::host::settings::Settings;
use hallpass::host::trust;
use hallpass::name::{CaName, HostName, Principal, Serial};
use hallpass::note::NoteSigner;
use hallpass::signer::Signer as _;
use hallpass::ssh::belonging::Belonging;
use hallpass::ssh::bundle::{Bundle, BundleKey, KeyState};
use hallpass::ssh::cert::{Certificate, Fields, KeyId, Options, Purpose, TbsCert};
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Timestamp, Window};
use hallpass::wire::host::{Bundle as WireBundle, Grant, State};

use crate::hosts::machine::private;
use crate::support::Faulty;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix(1_767_607_200 + seconds).unwrap()
}

fn signer(seed: u8) -> NoteSigner {
    NoteSigner::new("hallpass.example.com/log", &[seed; 32]).unwrap()
}

/// A bundle of so many keys.
fn bundle(version: u64, keys: u8, log_key: u8) -> String {
    bundle_of("default", version, keys, log_key)
}

fn bundle_of(ca: &str, version: u64, keys: u8, log_key: u8) -> String {
    let key = |seed: u8| BundleKey {
        key: SessionKey::generate([seed; 32]).public_key().clone(),
        state: if seed == 1 { KeyState::Active } else { KeyState::Staged },
        since: at(0),
    };
    let keys = (1..=keys).map(key).collect();
    Bundle::new(version, at(version), ("https://hallpass.example.com", &CaName::parse(ca).unwrap()), keys)
        .unwrap()
        .to_text(&signer(log_key))
}

fn installer(folder: &tempfile::TempDir) -> Installer {
    let path = |name: &str| folder.path().join(name);
    Installer { trust: path("user_ca_keys"), version: path("version"), log_key: signer(7).verifier().clone() }
}

/// What the service shows of a host's CA.
fn belongs(host: &str, ca: &str, since: u64) -> String {
    let (host, ca) = (HostName::parse(host).unwrap(), CaName::parse(ca).unwrap());
    Belonging { host, ca, since }.to_text(&signer(7))
}

/// As `web-1`, which was of the default CA when it came.
fn install(installer: &Installer, text: &str) -> Result<(Bundle, bool), String> {
    take(installer, text, Some(&belongs("web-1", "default", 0)))
}

/// The same, with what the service shows; it is remembered. The bundle, and whether it is another one.
fn take(installer: &Installer, text: &str, told: Option<&str>) -> Result<(Bundle, bool), String> {
    let installed = installer.bundle(text, &HostName::parse("web-1").unwrap(), told)?;
    assert_eq!(installed.forgotten, None);
    Ok((installed.bundle, installed.is_new))
}

#[test]
fn a_bundle_is_taken_when_the_log_key_has_signed_it_and_never_an_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let installer = installer(&folder);
    let there = || std::fs::read_to_string(&installer.trust).unwrap_or_default();
    let refused = |text: &str, why: &str| {
        let before = there();
        let told = install(&installer, text).unwrap_err();
        assert!(told.contains(why), "{told}");
        assert_eq!(there(), before);
    };
    assert!(install(&installer, &bundle(5, 1, 7)).unwrap().1);
    assert!(!install(&installer, &bundle(5, 1, 7)).unwrap().1, "the same is not written again");
    refused(&bundle(9, 2, 8), "not signed");
    refused(&bundle(9, 2, 7).replace("version 9", "version 10"), "refused");
    refused(&format!("{}garbage\n", bundle(9, 2, 7)), "refused");
    refused("ssh-ed25519 AAAA\n", "refused");
    refused("", "refused");
    refused(&bundle(4, 2, 7), "version 4 comes after version 5");
    refused(&bundle(5, 2, 7), "two of version 5");
    assert!(install(&installer, &bundle(6, 2, 7)).unwrap().1);
    // The file is lost, or somebody has put an older one there: the version is not forgotten.
    std::fs::remove_file(&installer.trust).unwrap();
    refused(&bundle(5, 1, 7), "version 5 comes after version 6");
    std::fs::write(&installer.trust, bundle(2, 1, 7)).unwrap();
    refused(&bundle(5, 1, 7), "version 5 comes after version 6");
    assert!(install(&installer, &bundle(6, 2, 7)).unwrap().1);
    // After a theft no key may be left to trust.
    assert!(install(&installer, &bundle(7, 0, 7)).unwrap().1);
    assert!(trust::parse(&there()).is_err());
}

#[test]
fn the_bundle_of_another_ca_is_refused_until_the_log_key_says_that_the_host_has_gone_over() {
    let folder = tempfile::tempdir().unwrap();
    let installer = installer(&folder);
    let there = || std::fs::read_to_string(&installer.trust).unwrap();
    let take = |text: &str, told: Option<&str>| take(&installer, text, told);
    let (prod, default) = (bundle_of("prod", 50, 1, 7), bundle_of("default", 60, 2, 7));
    assert!(take(&prod, Some(&belongs("web-1", "prod", 40))).unwrap().1);
    // What everybody can fetch, with whatever else the service has ever shown this host or another.
    let mut refused = vec![None, Some(belongs("web-1", "prod", 40)), Some(belongs("web-1", "default", 0))];
    refused.extend([belongs("web-2", "default", 55), belongs("web-1", "default", 55).replace("55", "56")].map(Some));
    for told in &refused {
        let why = take(&default, told.as_deref()).unwrap_err();
        assert!(why.contains("of CA default, and this host is of CA prod"), "{why}");
        assert_eq!(there(), prod);
    }
    // Nor is it remembered as the newest: its own next one is not older.
    assert!(take(&bundle_of("prod", 55, 2, 7), None).unwrap().1);
    // The file is lost: whose it was is not.
    std::fs::remove_file(&installer.trust).unwrap();
    for told in &refused {
        assert!(take(&default, told.as_deref()).is_err());
    }
    assert!(take(&bundle_of("prod", 55, 2, 7), None).unwrap().1);
    assert!(take(&default, Some(&belongs("web-1", "default", 58))).unwrap().1);
    // And back; the first move does not count again.
    let again = bundle_of("prod", 70, 1, 7);
    assert!(take(&again, Some(&belongs("web-1", "prod", 40))).is_err());
    assert!(take(&again, Some(&belongs("web-1", "prod", 65))).unwrap().1);
}

#[test]
fn a_bundle_that_can_not_be_remembered_is_in_force_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut installer = installer(&folder);
    let version = installer.version.clone();
    install(&installer, &bundle(5, 1, 7)).unwrap();
    // Nothing can be written there.
    installer.version = folder.path().join("missing/version");
    let web_1 = HostName::parse("web-1").unwrap();
    for (number, is_new) in [(5, false), (6, true), (6, false)] {
        let installed = installer.bundle(&bundle(number, 1, 7), &web_1, None).unwrap();
        assert_eq!((installed.bundle.version(), installed.is_new), (number, is_new));
        assert!(installed.forgotten.unwrap().contains("can't be remembered"));
        assert_eq!(std::fs::read_to_string(&installer.trust).unwrap(), bundle(number, 1, 7));
    }
    // What is installed says it, too.
    installer.version = version;
    assert!(install(&installer, &bundle(5, 1, 7)).unwrap_err().contains("version 5 comes after version 6"));
}

#[test]
fn a_host_certificate_with_a_name_too_many_or_by_another_ca_is_refused_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other) = (Faulty::of([0xCB; 32], Purpose::Host), Faulty::of([0xCC; 32], Purpose::Host));
    let keys = [HostKey { path: "/etc/ssh/ssh_host_ed25519_key".to_owned(), key: private(1) }];
    let certificate = |subject: u8, names: &[&str], ca: &Faulty| {
        let fields = Fields {
            serial: Serial::new(7).unwrap(),
            key_id: KeyId::of_host(&HostName::parse("web-1").unwrap()).unwrap(),
            principals: names.iter().map(|name| Principal::parse(name).unwrap()).collect(),
            window: Window::new(at(0), at(1_000)).unwrap(),
            options: Options::default(),
        };
        let tbs = TbsCert::new(fields, private(subject).public_key(), ca.public_key(), [7; 32]).unwrap();
        let signature = ca.sign(&tbs).unwrap();
        Certificate::assemble(tbs, &signature).unwrap().to_openssh()
    };
    let names = ["web-1".to_owned(), "www".to_owned()];
    let named = ca.public_key().fingerprint().to_string();
    let expected = Expected::new(&HostName::parse("web-1").unwrap(), &names[1..], Some(&named), at(10)).unwrap();
    let new = |line: String| new_certificates(folder.path(), &[line], &keys, &expected);
    let good = certificate(1, &["web-1", "www"], &ca);
    let nothing = (Vec::new(), Vec::new());
    assert_eq!(new(good.clone()), nothing, "sshd is not told to show one");
    let place = folder.path().join("ssh_host_ed25519_key-cert.pub");
    hallpass::durable::replace(&place, b"", 0o644).unwrap();
    assert_eq!(new(good.clone()), (vec![(place.clone(), format!("{good}\n"))], Vec::new()));
    assert_eq!(new(certificate(2, &["web-1", "www"], &ca)), nothing, "it has that key no more");
    for (line, why) in [
        (certificate(1, &["web-1", "www", "db-1"], &ca), "its names (db-1, web-1, www)"),
        (certificate(1, &["web-1", "www"], &other), "not the CA key"),
        ("garbage".to_owned(), "refused"),
    ] {
        let (placed, refused) = new(line);
        assert!(placed.is_empty() && refused.len() == 1 && refused[0].contains(why), "{refused:?}");
    }
    hallpass::durable::replace(&place, format!("{good}\n").as_bytes(), 0o644).unwrap();
    assert_eq!(new(good), nothing, "what is the same is not written");
}

#[test]
fn a_fast_reader_sees_a_whole_bundle_at_every_moment() {
    let folder = tempfile::tempdir().unwrap();
    let installer = installer(&folder);
    install(&installer, &bundle(1, 1, 7)).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut last) = (0_u64, 0);
            while !is_over.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(&installer.trust).unwrap();
                let bundle = Bundle::open(&text, &installer.log_key).expect("a whole bundle");
                assert!(bundle.version() >= last, "it went back");
                last = bundle.version();
                assert_eq!(trust::parse(&text).unwrap().len(), bundle.keys().len());
                reads += 1;
            }
            reads
        });
        for version in 2..200 {
            install(&installer, &bundle(version, u8::try_from(version % 8 + 1).unwrap(), 7)).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn grants_are_believed_as_a_whole_and_ended_is_ended() {
    let grant = |request: &str, serial, until: u64, is_ended| Grant {
        request: request.to_owned(),
        serial,
        account: "deploy".to_owned(),
        until: at(until).to_string(),
        is_ended,
    };
    let all = granted(&[
        grant("7K3F-9QX2", 7, 100, false),
        grant("7K3F-9QX2", 9, 300, false),
        grant("7K3F-9QX2", 8, 200, false),
        grant("no-request", 1, 1, false),
    ]);
    assert!(all.unwrap_err().contains("a grant that is none"));
    let all = granted(&[
        grant("7K3F-9QX2", 7, 100, false),
        grant("7K3F-9QX2", 9, 300, false),
        grant("7K3F-9QX2", 8, 200, false),
        grant("9502-QB92", 11, 100, true),
        grant("9502-QB92", 12, 900, false),
    ])
    .unwrap();
    let ends: Vec<(String, Timestamp)> = all.ends.iter().map(|(request, end)| (request.to_string(), *end)).collect();
    assert_eq!(ends, [("7K3F-9QX2".to_owned(), at(300))]);
    assert_eq!(all.over.iter().map(ToString::to_string).collect::<Vec<_>>(), ["9502-QB92"]);
    assert_eq!(
        all.serials.iter().map(|(serial, until)| (serial.number(), *until)).collect::<Vec<_>>(),
        [(11, at(100))]
    );
}

#[test]
fn tags_follow_the_service_and_nothing_else_of_host_toml_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.toml");
    hallpass::durable::replace(
        &path,
        b"# mine\nname = \"web-1\"\nothers = \"refuse\"\ntags = { role = \"web\" }\n",
        0o644,
    )
    .unwrap();
    let state = |name: &str, tags: &[&str]| State {
        etag: "x".to_owned(),
        name: name.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        names: Vec::new(),
        bundle: WireBundle { version: 1, text: String::new() },
        belongs: None,
        grants: Vec::new(),
        certificates: Vec::new(),
        host_ca: None,
        lost: Vec::new(),
        is_retired: false,
    };
    assert_eq!(tags(&path, &state("web-1", &["role=web"])), Ok(false));
    assert_eq!(tags(&path, &state("web-1", &["role=db", "env=prod"])), Ok(true));
    let settings = Settings::load(&path).unwrap();
    assert_eq!(settings.tags.len(), 2);
    let text = std::fs::read_to_string(&path).unwrap();
    let wanted = "# mine\nname = \"web-1\"\nothers = \"refuse\"\ntags = { \"env\" = \"prod\", \"role\" = \"db\" }\n";
    assert_eq!(text, wanted, "each line stays in its place");
    for (name, bad) in [("web-2", &["role=db"][..]), ("web-1", &["role"]), ("web-1", &["role=a\"\nothers = \"allow"])] {
        assert!(tags(&path, &state(name, bad)).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn what_was_ended_once_stays_in_the_list_until_its_window_is_over_whatever_the_service_says() {
    const DAY: u64 = 86_400;
    let serial = |number: u64| Serial::new(number).unwrap();
    let named = |all: &[(u64, u64)]| -> BTreeMap<Serial, Timestamp> {
        all.iter().map(|(number, until)| (serial(*number), at(*until))).collect()
    };
    let numbers = |remembered: &Remembered| remembered.serials().iter().map(|one| one.number()).collect::<Vec<_>>();
    let (mut remembered, nothing) = (Remembered::default(), BTreeSet::new());
    remembered.learn(&named(&[(7, 1_000), (8, 20_000)]), &nothing, at(0));
    assert_eq!(numbers(&remembered), [7, 8]);
    // The service forgets one, and says that the other one's window ends earlier.
    remembered.learn(&named(&[(8, 10)]), &remembered.serials(), at(500));
    assert_eq!(numbers(&remembered), [7, 8]);
    // Over, but for a clock that is set back; then over.
    remembered.learn(&named(&[]), &nothing, at(1_000 + 3_599));
    assert_eq!(numbers(&remembered), [7, 8]);
    remembered.learn(&named(&[]), &remembered.serials(), at(1_000 + 3_600));
    assert_eq!(numbers(&remembered), [8]);
    // A daemon that has just been started: what it does not know the end of is kept longer than any window lasts.
    let mut remembered = Remembered::default();
    remembered.learn(&named(&[(9, 100)]), &BTreeSet::from([serial(8), serial(9)]), at(0));
    remembered.learn(&named(&[]), &remembered.serials(), at(30 * DAY));
    assert_eq!(numbers(&remembered), [8]);
    remembered.learn(&named(&[]), &remembered.serials(), at(32 * DAY));
    assert!(numbers(&remembered).is_empty());
    // Bounded: what the service names stays.
    let many = (1..=100_000).map(serial).collect();
    remembered.learn(&named(&[(200_000, 100), (200_001, 100)]), &many, at(0));
    let all = numbers(&remembered);
    assert_eq!((all.len(), all[0], &all[99_998..]), (100_000, 3, &[200_000, 200_001][..]));
}
