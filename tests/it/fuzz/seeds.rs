//! Seeds that are made of fixed keys: they stay what the program writes today. `HALLPASS_UPDATE_GOLDEN=1` writes them anew.
//!
//! The others are by `ssh-keygen`, by hand, or links to examples and test cases.

use hallpass::audit::checkpoint::LogKey;
use hallpass::audit::entry::Entry;
use hallpass::audit::export::Exporter;
use hallpass::audit::tree::Frontier;
use hallpass::name::{CaName, HostName, Principal};
use hallpass::ssh::PublicKey;
use hallpass::ssh::bundle::{Bundle, BundleKey, KeyState};
use hallpass::ssh::cert::{Certificate, Extension, Fields, ForceCommand, KeyId, Options};
use hallpass::ssh::host::{CHECK_COMMAND, check_principal};
use hallpass::ssh::private::{LoginKey, SessionKey};
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SshSignature};
use hallpass::time::{Lifetime, Timestamp, Window};

use super::folder;
use super::targets::certificates::{CA_SEED, NOW, example, issue};
use super::targets::keys::MESSAGE;
use super::targets::log::{LOG_SEED, ORIGIN};
use crate::formats::security_keys::Authenticator;

/// A seed: its file below `fuzz/seeds`, and what is in it.
type Seed = (String, Vec<u8>);

fn key(seed: u8) -> PublicKey {
    SessionKey::generate([seed; 32]).public_key().clone()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Public keys that are seeds themselves, by name.
fn keys() -> Vec<(String, PublicKey)> {
    ["ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa", "sk_ed25519", "sk_ecdsa"]
        .map(|name| {
            let line = std::fs::read_to_string(folder().join("seeds/public_key").join(name)).unwrap();
            (name.to_owned(), PublicKey::parse_openssh(&line).unwrap())
        })
        .into()
}

/// A person's with every option, a host's login to itself, a host's own.
fn kinds() -> [(&'static str, Certificate); 4] {
    let fields = || example().tbs().fields().clone();
    let host = HostName::parse("web-1").unwrap();
    let command = |text| Some(ForceCommand::parse(text).unwrap());
    let options = Options {
        force_command: command("journalctl -n 1000 -u \"api\""),
        source_addresses: ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"].map(|a| a.parse().unwrap()).into(),
        verify_required: false,
        permits: Extension::ALL.into(),
    };
    let start = Timestamp::from_unix(NOW - 60).unwrap();
    let window = Window::new(start, start.plus(Lifetime::minutes(3)).unwrap()).unwrap();
    let check = Fields {
        key_id: KeyId::of_check(&host).unwrap(),
        principals: [check_principal(&host).unwrap()].into(),
        options: Options { force_command: command(CHECK_COMMAND), ..Options::default() },
        window,
        ..fields()
    };
    let own = Fields {
        key_id: KeyId::of_host(&host).unwrap(),
        principals: [Principal::of_host(&host), Principal::parse("192.0.2.1").unwrap()].into(),
        options: Options::default(),
        ..fields()
    };
    [
        ("person", example()),
        ("options", issue(Fields { options, ..fields() }, &key(1))),
        ("check", issue(check, &key(1))),
        ("host", issue(own, &key(1))),
    ]
}

fn certificates() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = kinds().map(|(name, one)| (format!("certificate/{name}"), one.blob().to_vec())).into();
    for (name, subject) in keys() {
        let one = issue(example().tbs().fields().clone(), &subject);
        seeds.push((format!("certificate/subject-{name}"), one.blob().to_vec()));
    }
    seeds.push(("certificate/unsigned".to_owned(), example().tbs().bytes().to_vec()));
    seeds.push(("certificate/line".to_owned(), example().to_openssh().into_bytes()));
    seeds
}

fn auth_infos() -> Vec<Seed> {
    let words = |one: &Certificate| one.to_openssh().split(' ').take(2).collect::<Vec<_>>().join(" ");
    let [person, options, ..] = kinds().map(|(_, one)| words(&one));
    let plain = key(3).to_openssh();
    let seed = |name: &str, text: String| (format!("auth_info/{name}"), text.into_bytes());
    vec![
        seed("certificate", format!("publickey {person}\n")),
        seed("several", format!("publickey {plain}\npublickey {options}\npassword\npublickey {person}\n")),
        seed("hostbased", format!("hostbased {person} client user \"u\", client host \"h\"\n")),
    ]
}

fn agents() -> Vec<Seed> {
    let mut body = vec![12];
    let count = u32::try_from(keys().len() + 1).unwrap();
    body.extend_from_slice(&count.to_be_bytes());
    for (name, key) in keys() {
        body.extend([string(key.blob()), string(name.as_bytes())].concat());
    }
    body.extend([string(example().blob()), string(b"a certificate")].concat());
    let signature = [string(b"ssh-ed25519"), string(&[7; 64])].concat();
    vec![
        ("agent/identities".to_owned(), body),
        ("agent/signature".to_owned(), [vec![14], string(&signature)].concat()),
        ("agent/done".to_owned(), vec![6]),
        ("agent/failure".to_owned(), vec![5]),
    ]
}

/// What `ssh-keygen` can't make without hardware or the key: those of security keys.
fn signatures() -> Vec<Seed> {
    let data = SshSignature::to_be_signed(LOGIN_NAMESPACE, MESSAGE);
    let mut seeds: Vec<Seed> = Authenticator::both()
        .iter()
        .zip(["sk_ed25519", "sk_ecdsa"])
        .map(|(device, name)| {
            let blob = device.sign("ssh:", 1, 7, &data);
            let armoured = SshSignature::armour(&device.public_key(), LOGIN_NAMESPACE, &blob).unwrap();
            (format!("signature/{name}"), armoured.into_bytes())
        })
        .collect();
    let pem = SessionKey::generate(CA_SEED).to_openssh("").unwrap();
    let armoured = LoginKey::parse(pem.as_bytes(), None).unwrap().sign(LOGIN_NAMESPACE, MESSAGE).unwrap();
    seeds.push(("signature/another".to_owned(), armoured.into_bytes()));
    seeds.push(("signature/blob".to_owned(), [string(b"ssh-ed25519"), string(&[7; 64])].concat()));
    seeds.push(("signature/raw".to_owned(), vec![7; 64]));
    seeds
}

fn log() -> Vec<Seed> {
    let log = LogKey::new(ORIGIN, &LOG_SEED).unwrap();
    let at = Timestamp::from_unix(NOW).unwrap();
    let bundled = |key, state| BundleKey { key, state, since: at };
    let keys = vec![bundled(key(9), KeyState::Active), bundled(key(2), KeyState::Staged)];
    let bundle =
        |ca, keys| Bundle::new(42, at, ("https://hallpass.example.com", ca), keys).unwrap().to_text(log.notes());
    let prod = CaName::parse("prod-eu").unwrap();
    let golden = std::fs::read_to_string(folder().join("../tests/golden/events.jsonl")).unwrap();
    let (mut exporter, mut text) = Exporter::new(log.verifier());
    let mut tree = Frontier::default();
    for line in golden.lines().take(12) {
        text.push_str(&exporter.entry(line.as_bytes()).unwrap());
        tree.push(Entry::leaf_hash(line.as_bytes()));
    }
    let note = log.sign(tree.size(), &tree.root());
    text.push_str(&exporter.finish(&note).unwrap());
    let seed = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    vec![
        seed("bundle/two", bundle(&CaName::DEFAULT, keys.clone())),
        seed("bundle/named", bundle(&prod, keys)),
        seed("bundle/empty", bundle(&CaName::DEFAULT, Vec::new())),
        seed("bundle/checkpoint", note),
        seed("export/sound", text),
    ]
}

#[test]
fn the_seeds_are_what_the_program_writes_today() {
    for (name, bytes) in [certificates(), auth_infos(), agents(), signatures(), log()].concat() {
        let path = folder().join("seeds").join(&name);
        if std::env::var_os("HALLPASS_UPDATE_GOLDEN").is_some() {
            hallpass::durable::replace(&path, &bytes, 0o644).unwrap();
        }
        let same = std::fs::read(&path).is_ok_and(|there| there == bytes);
        assert!(same, "fuzz/seeds/{name} is another; set HALLPASS_UPDATE_GOLDEN=1 to write it anew");
    }
}
