//! The judgement as a function: whatever stands in `SSH_AUTH_INFO_0`, a login goes on only if every certificate of ours in it is one
//! that we issue, is open now, and is for this host and account; and then ends with the first of them (I-32).

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::BASE64;
use hallpass::host::guard::{Login, Passed, Refused, open_session};
use hallpass::host::judgement::{Denial, Judgement, Rules, judge};
use hallpass::host::principals::{Question, answer};
use hallpass::host::process::{Process, SessionId};
use hallpass::host::program::{Kind, Program};
use hallpass::host::record::Key;
use hallpass::host::settings::Settings;
use hallpass::name::Serial;
use hallpass::ssh::cert::Certificate;
use hallpass::ssh::cert::skim::Skimmed;
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Timestamp, Window};
use proptest::prelude::*;

use super::maker::Maker;

const NOW: u64 = 1_800_000_000;
const ENDED: u64 = 13;

/// A CA of ours, another one, and a host that knows ours.
struct Bench {
    maker: Maker,
    other: Maker,
    rules: Result<Rules, String>,
}

/// One line of the text: what it is, and what it should lead to.
#[derive(Clone, Copy, Debug)]
enum Credential {
    Password,
    Plain,
    /// By our CA: start and end relative to now, which principal, whether it is on the list of ended ones.
    Ours {
        from: i64,
        to: i64,
        fits: bool,
        ended: bool,
    },
    /// By the other CA; its key id says hallpass.
    Stranger,
}

impl Bench {
    fn new() -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [maker, other] = folders.each_ref().map(|folder| Maker::new(folder.path()));
        let rules = Ok(Rules {
            settings: Settings::parse("name = \"web-1\"\ntags = { role = \"web\" }\n", "host.toml").unwrap(),
            keys: Ok(vec![maker.key().clone()]),
            ended: Ok(BTreeSet::from([Serial::new(ENDED).unwrap()])),
        });
        Self { maker, other, rules }
    }

    fn judge(&self, text: &[u8]) -> Result<Judgement, Denial> {
        judge(Some(text), "deploy", &self.rules, at(0))
    }

    fn line(&self, index: usize, credential: Credential) -> String {
        let serial = 20 + u64::try_from(index).unwrap();
        let certificate = match credential {
            Credential::Password => return "password\n".to_owned(),
            Credential::Plain => return format!("publickey {}\n", Maker::subject(5).public_key().to_openssh()),
            Credential::Ours { from, to, fits, ended } => {
                let principal = if fits { "deploy@tag:role=web" } else { "deploy@web-2" };
                let serial = if ended { ENDED } else { serial };
                self.maker.certificate(serial, Window::new(at(from), at(to)).unwrap(), &["a@b", principal])
            }
            Credential::Stranger => {
                self.other.certificate(serial, Window::new(at(-1), at(1)).unwrap(), &["deploy@web-1"])
            }
        };
        format!("publickey {}\n", first_words(&certificate))
    }

    /// Every certificate in the text that another reader, the ssh-key crate, finds signed by our CA key.
    fn governed(&self, text: &[u8]) -> Vec<ssh_key::Certificate> {
        let words = text.split(|b| matches!(b, b' ' | b'\n'));
        let blobs = words.filter_map(|word| BASE64.decode(word).ok());
        let certificates = blobs.filter_map(|blob| ssh_key::Certificate::from_bytes(&blob).ok());
        let ours = ssh_key::PublicKey::from_bytes(self.maker.key().blob()).unwrap();
        certificates.filter(|c| c.signature_key() == ours.key_data() && c.verify_signature().is_ok()).collect()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(NOW.checked_add_signed(seconds).unwrap()).unwrap()
}

/// Type and base64.
fn first_words(certificate: &Certificate) -> String {
    certificate.to_openssh().split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn credential() -> impl Strategy<Value = Credential> {
    let ours = (-3..2_i64, 1..4_i64, 0..8_u8, 0..8_u8).prop_map(|(from, length, fits, ended)| Credential::Ours {
        from,
        to: from + length,
        fits: fits > 0,
        ended: ended == 0,
    });
    prop_oneof![1 => Just(Credential::Password), 2 => Just(Credential::Plain), 5 => ours, 1 => Just(Credential::Stranger)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_login_goes_on_only_if_all_that_is_ours_in_it_is_good_and_ends_with_the_first(
        credentials in prop::collection::vec(credential(), 1..4)
    ) {
        let bench = Bench::new();
        let text: String = credentials.iter().enumerate().map(|(index, c)| bench.line(index, *c)).collect();
        let is_bad = |credential: &Credential| match credential {
            Credential::Password | Credential::Plain => false,
            Credential::Ours { from, to, fits, ended } => *from > 0 || *to <= 0 || !fits || *ended,
            Credential::Stranger => true,
        };
        let ends = credentials.iter().filter_map(|credential| match credential {
            Credential::Ours { to, .. } => Some(at(*to)),
            Credential::Password | Credential::Plain | Credential::Stranger => None,
        });
        match (bench.judge(text.as_bytes()), ends.min()) {
            (Err(_), _) => prop_assert!(credentials.iter().any(is_bad), "{text}"),
            (Ok(Judgement::NotOurs), None) => prop_assert!(!credentials.iter().any(is_bad), "{text}"),
            (Ok(Judgement::Governed(governed)), Some(end)) => {
                prop_assert!(!credentials.iter().any(is_bad), "{text}");
                prop_assert_eq!(governed.fields.window.end(), end);
            }
            (other, _) => prop_assert!(false, "{other:?} for {text}"),
        }
    }

    #[test]
    fn no_change_of_the_text_makes_a_login_end_later_or_never(
        credentials in prop::collection::vec(credential(), 1..3), place in any::<prop::sample::Index>(),
        byte in any::<u8>(), way in 0..4_u8
    ) {
        let bench = Bench::new();
        let mut text: Vec<u8> =
            credentials.iter().enumerate().flat_map(|(index, c)| bench.line(index, *c).into_bytes()).collect();
        let place = place.index(text.len());
        match way {
            0 => text[place] = byte,
            1 => text.insert(place, byte),
            2 => drop(text.remove(place)),
            _ => text.truncate(place),
        }
        let governed = bench.governed(&text);
        match bench.judge(&text) {
            Err(_) => {}
            Ok(Judgement::Governed(one)) => {
                let first = governed.iter().map(ssh_key::Certificate::valid_before).min();
                prop_assert_eq!(Some(one.fields.window.end().unix()), first);
                prop_assert!(governed.iter().all(|c| c.valid_after() <= NOW && NOW < c.valid_before()));
            }
            Ok(_) => prop_assert!(governed.is_empty(), "{:?}", String::from_utf8_lossy(&text)),
        }
    }

    #[test]
    fn any_bytes_are_judged_without_panic_and_none_are_ours(text in prop::collection::vec(any::<u8>(), 0..300)) {
        let bench = Bench::new();
        prop_assert!(!matches!(bench.judge(&text), Ok(Judgement::Governed(_) | Judgement::Unguarded(_))));
    }
}

#[test]
fn what_cannot_be_known_is_refused_wherever_a_certificate_is_involved() {
    let bench = Bench::new();
    let window = Window::new(at(-1), at(1)).unwrap();
    let line = format!("publickey {}\n", first_words(&bench.maker.certificate(20, window, &["deploy@web-1"])));
    assert!(matches!(bench.judge(line.as_bytes()), Ok(Judgement::Governed(_))));
    assert_eq!(judge(None, "deploy", &bench.rules, at(0)), Err(Denial::Silent));
    assert_eq!(bench.judge(b""), Err(Denial::Silent));
    for account in ["root", "Deploy", "deploy ", "", "deploy\n", "../deploy"] {
        let judged = judge(Some(line.as_bytes()), account, &bench.rules, at(0));
        assert!(matches!(judged, Err(Denial::Principals(_, _))), "{account:?}: {judged:?}");
    }
    let broken: Result<Rules, String> = Err("broken".to_owned());
    assert_eq!(judge(Some(line.as_bytes()), "deploy", &broken, at(0)), Err(Denial::Unsettled("broken".to_owned())));
    assert_eq!(judge(Some(b"password\n"), "deploy", &broken, at(0)), Ok(Judgement::Unguarded("broken".to_owned())));
    let rules = bench.rules.clone().unwrap();
    for broken in [
        Rules { keys: Err("no keys".to_owned()), ..rules.clone() },
        Rules { ended: Err("no list".to_owned()), ..rules.clone() },
    ] {
        let judged = judge(Some(line.as_bytes()), "deploy", &Ok(broken), at(0));
        assert!(matches!(judged, Err(Denial::Unsettled(_))), "{judged:?}");
    }
    // A type that no reader here knows.
    let blob = [b"\0\0\0\x1cssh-new-cert-v01@openssh.com".as_slice(), b"\0\0\0\x01x"].concat();
    let line = format!("publickey ssh-new-cert-v01@openssh.com {}\n", BASE64.encode(&blob));
    assert_eq!(bench.judge(line.as_bytes()), Err(Denial::Unskimmable));
}

#[test]
fn the_principals_are_told_for_our_certificates_alone_and_for_expired_ones_too() {
    let bench = Bench::new();
    let rules = bench.rules.as_ref().unwrap();
    let (open, over) = (Window::new(at(-1), at(1)).unwrap(), Window::new(at(-9), at(-1)).unwrap());
    let encoded = |certificate: &Certificate| BASE64.encode(certificate.blob());
    let good = encoded(&bench.maker.certificate(20, open, &["deploy@web-1"]));
    let key_id = bench.maker.certificate(20, open, &["deploy@web-1"]).tbs().fields().key_id.as_str().to_owned();
    let question = Question { user: "deploy", serial: "20", key_id: &key_id, certificate: &good };
    let told = |question: &Question<'_>| {
        answer(rules, question).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let all = vec!["deploy@tag:role=web".to_owned(), "deploy@web-1".to_owned()];
    assert_eq!(told(&question), Ok(all.clone()));
    let expired = encoded(&bench.maker.certificate(20, over, &["deploy@web-1"]));
    assert_eq!(told(&Question { certificate: &expired, ..question }), Ok(all));
    let theirs = encoded(&bench.other.certificate(20, open, &["deploy@web-1"]));
    let elsewhere = encoded(&bench.maker.certificate(20, open, &["deploy@web-2"]));
    let ended = encoded(&bench.maker.certificate(ENDED, open, &["deploy@web-1"]));
    for wrong in [
        Question { user: "debug", ..question },
        Question { user: "deploy;id", ..question },
        Question { serial: "21", ..question },
        Question { serial: "020", ..question },
        Question { key_id: "hallpass/00000001/bob@example.com", ..question },
        Question { key_id: "", ..question },
        Question { certificate: "", ..question },
        Question { certificate: &good[..good.len() - 4], ..question },
        Question { certificate: &theirs, ..question },
        Question { certificate: &elsewhere, ..question },
        Question { certificate: &ended, serial: "13", ..question },
    ] {
        assert!(told(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_ca_of_every_certificate_that_ssh_keygen_makes_is_recognised_and_of_none_that_is_cut_or_longer() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let keygen = |arguments: &[&str]| {
        let ran = Command::new("ssh-keygen").arg("-q").args(arguments).current_dir(folder.path()).status().unwrap();
        assert!(ran.success(), "{arguments:?}");
    };
    let kinds: [&[&str]; 6] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "3072"],
        &["-t", "dsa"],
    ];
    for (index, kind) in kinds.iter().enumerate() {
        keygen(&[&["-N", "", "-f", &format!("key{index}")], *kind].concat());
    }
    let public = |index: usize| std::fs::read_to_string(path(&format!("key{index}.pub"))).unwrap();
    // DSA is no CA key any more.
    let cas: Vec<_> = (0..5).map(|ca| hallpass::ssh::PublicKey::parse_openssh(&public(ca)).unwrap()).collect();
    for (ca, ca_key) in cas.iter().enumerate() {
        for subject in 0..6 {
            let name = if ca == 0 { "hallpass/x" } else { "somebody" };
            keygen(&["-s", &format!("key{ca}"), "-I", name, "-n", "a,b", "-h", &format!("key{subject}.pub")]);
            let line = std::fs::read_to_string(path(&format!("key{subject}-cert.pub"))).unwrap();
            let blob = BASE64.decode(line.split(' ').nth(1).unwrap().as_bytes()).unwrap();
            let skimmed = Skimmed::read(&blob).unwrap();
            assert_eq!(skimmed.says_hallpass(), ca == 0);
            for (index, other) in cas.iter().enumerate() {
                assert_eq!(skimmed.is_by(other), index == ca, "{ca} {subject} {:?}", ca_key.algorithm());
            }
            assert!((0..blob.len()).all(|length| Skimmed::read(&blob[..length]).is_none()));
            assert_eq!(Skimmed::read(&[blob.as_slice(), b"x"].concat()), None);
            assert_eq!(Skimmed::read(SessionKey::generate([1; 32]).public_key().blob()), None);
        }
    }
}

/// What somebody does to a file of the host's.
type Change = Box<dyn Fn(&Path)>;

#[test]
fn files_that_others_can_change_or_nobody_can_read_close_a_host_to_certificates_and_not_to_keys() {
    let set = |mode: u32| move |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let chown = |path: &Path| std::os::unix::fs::chown(path, Some(65_534), None).unwrap();
    let put = |text: &'static [u8]| move |path: &Path| hallpass::durable::replace(path, text, 0o644).unwrap();
    let folder = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    let ours = "must be a file that only root can change";
    let mut ways: Vec<(&str, &str, Change)> = vec![
        ("trust", ours, Box::new(set(0o666))),
        ("trust", ours, Box::new(set(0o664))),
        ("trust", ours, Box::new(set(0o646))),
        ("trust", ours, Box::new(folder)),
        ("trust", "trust:1: ", Box::new(put(b"garbage\n"))),
        ("trust", "there is no CA key in it", Box::new(put(b"# nothing\n"))),
        ("trust", "is not text", Box::new(put(b"\xff\n"))),
        ("trust", "cannot read", Box::new(|path: &Path| std::fs::remove_file(path).unwrap())),
        ("ended", ours, Box::new(set(0o666))),
        ("ended", ours, Box::new(folder)),
        ("ended", "ended:1: not a serial", Box::new(put(b"garbage\n"))),
        ("ended", "ended:1: not a serial", Box::new(put(b"\xff\n"))),
    ];
    if rustix::process::geteuid().is_root() {
        ways.push(("trust", ours, Box::new(chown)));
        ways.push(("ended", ours, Box::new(chown)));
    }
    for (number, (file, why, change)) in ways.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let maker = Maker::new(folder.path());
        let settings = on_disk(folder.path(), &maker);
        super::site::write(&folder.path().join("ended"), "7\n");
        let certificate = maker.certificate(20, Window::new(at(-1), at(1)).unwrap(), &["deploy@web-1"]);
        let line = format!("publickey {}\n", first_words(&certificate));
        let (key_id, blob) = (certificate.tbs().fields().key_id.as_str(), BASE64.encode(certificate.blob()));
        let question = Question { user: "deploy", serial: "20", key_id, certificate: &blob };
        let look = || {
            let rules = Rules::load(&settings);
            let told = answer(rules.as_ref().unwrap(), &question);
            let plain = format!("publickey {}\n", Maker::subject(5).public_key().to_openssh());
            let judged =
                [line.as_str(), &plain, "password\n"].map(|text| judge(Some(text.as_bytes()), "deploy", &rules, at(0)));
            (told, judged)
        };
        let (told, [certified, ..]) = look();
        assert!(told.is_ok() && matches!(certified, Ok(Judgement::Governed(_))), "as it is meant");
        change(&folder.path().join(file));
        let (told, [certified, plain, password]) = look();
        for denied in [told.map(drop), certified.map(drop)] {
            let Err(Denial::Unsettled(said)) = denied else { panic!("{number} {file}: {denied:?}") };
            assert!(said.contains(why), "{number} {file}: {said}");
        }
        // Somebody has to be able to mend it.
        assert_eq!((plain, password), (Ok(Judgement::NotOurs), Ok(Judgement::NotOurs)), "{number} {file}");
    }
}

/// The host's files in a folder, with this CA's key; where `host.toml` is.
fn on_disk(folder: &Path, maker: &Maker) -> PathBuf {
    let (path, shown) = (|name: &str| folder.join(name), folder.display());
    super::site::write(&path("trust"), &format!("{}\n", maker.key().to_openssh()));
    super::site::write(
        &path("host.toml"),
        &format!(
            "name = \"web-1\"\ntrust = \"{shown}/trust\"\nended = \"{shown}/ended\"\nstate = \"{shown}/state\"\n\
             spool = \"{shown}/spool\"\n"
        ),
    );
    path("host.toml")
}

/// In place of a watcher: puts something else in place of one of the host's files before it says that it is armed.
fn meddler(folder: &Path, file: &str, text: &str) -> Program {
    let (script, path) = (folder.join("meddler.txt"), folder.join("meddler"));
    let lines = format!("#!/bin/sh\nread word\nprintf '{text}' > {}/{file}\necho armed\n", folder.display());
    super::site::write(&script, &lines);
    // By another process: what this one still has open for writing can't be run.
    assert!(Command::new("install").args(["-m", "755"]).args([&script, &path]).status().unwrap().success());
    Program::new(Kind::Host, path)
}

#[test]
fn a_login_is_refused_whose_certificate_ends_early_between_its_judgement_and_its_record() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let window =
        Window::new(Timestamp::from_unix(now - 60).unwrap(), Timestamp::from_unix(now + 600).unwrap()).unwrap();
    for (file, text, why) in [
        ("elsewhere", "7\n", None),
        ("ended", "8\n", None),
        ("ended", "7\n", Some(Denial::Ended(Serial::new(7).unwrap()))),
        // Another CA key than the one that signed it.
        (
            "trust",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n",
            Some(Denial::Stranger),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let maker = Maker::new(folder.path());
        let settings = on_disk(folder.path(), &maker);
        let certificate = maker.certificate(7, window, &["deploy@web-1"]);
        let login = Login {
            account: "deploy".to_owned(),
            auth_info: Some(format!("publickey {}\n", first_words(&certificate)).into_bytes()),
            from: None,
        };
        let key = || Ok(Key { session: SessionId::new(12).unwrap(), connection: Process::own().unwrap() });
        let passed = open_session(&login, &settings, &meddler(folder.path(), file, text), key);
        match why {
            None => assert!(matches!(passed, Ok(Passed::Armed(_))), "{file} {text:?}: {passed:?}"),
            Some(why) => assert_eq!(passed, Err(Refused::Denied(why))),
        }
    }
}
