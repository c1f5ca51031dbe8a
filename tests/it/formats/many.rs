//! Certificates by the thousand, of every kind and at every edge, as our encoder writes them and as `ssh-keygen -L` reads them: field by
//! field, character by character. `HALLPASS_CERTIFICATES=1000000` makes a million, `HALLPASS_CERTIFICATES=1000000..2000000` the next.
//!
//! What is expected is written down here as `ssh-keygen` prints it, from the fields that were asked for, and with no help of ours but
//! the fingerprints and times in words. Where it prints something else than what the certificate says, [`validity`] explains it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hallpass::name::{HostName, PersonName, Principal, RequestId, Serial};
use hallpass::ssh::cert::{
    CHECK_SECONDS_MAX, Certificate, Extension, Fields, ForceCommand, HOST_SECONDS_MAX, KeyId, Options, Purpose, TbsCert,
};
use hallpass::ssh::host::{CHECK_COMMAND, check_principal};
use hallpass::ssh::private::SessionKey;
use hallpass::ssh::{KeyAlgorithm, PublicKey};
use hallpass::time::{Timestamp, Window};
use ipnet::IpNet;
use signature::Signer as _;

use super::security_keys::Authenticator;
use super::{Bench, KINDS, run, string};
use crate::support::numbers::{self, Numbers};

/// How many certificates, unless the environment says otherwise.
const COUNT: u64 = 3_000;

/// How many lie in one file. Each file has numbers of its own, whoever works on it.
const IN_A_FILE: u64 = 500;

/// After how many it is said how far it is.
const SAID_EACH: u64 = 10_000;

/// The last second that a certificate may name, and the longest window of a person's.
const LAST: u64 = 253_402_207_200;
const PERSON_SECONDS_MAX: u64 = 367 * 86_400;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz_";
const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A CA key that signs what it is given.
enum Ca {
    Ed25519(ed25519_dalek::SigningKey),
    Other(ssh_key::PrivateKey),
}

struct Maker {
    cas: Vec<(PublicKey, Ca)>,
    subjects: Vec<PublicKey>,
}

impl Ca {
    /// The wire form of its signature.
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [string("ssh-ed25519"), string(key.sign(bytes).to_bytes())].concat(),
            Self::Other(key) => {
                let signature: ssh_key::Signature = key.try_sign(bytes).unwrap();
                Vec::try_from(signature).unwrap()
            }
        }
    }
}

impl Maker {
    /// Keys of every kind that may be certified, and of every kind that may sign.
    fn new(bench: &Bench) -> Self {
        // Twice, as those of the other kinds.
        let devices = [Authenticator::both(), Authenticator::both()];
        let mut subjects: Vec<PublicKey> = devices.iter().flatten().map(Authenticator::public_key).collect();
        let mut cas = Vec::new();
        for (number, (arguments, _)) in KINDS.iter().enumerate() {
            let ours = bench.public_key(&format!("ca{number}"), arguments);
            subjects.extend((0..2).map(|n| bench.public_key(&format!("key{number}-{n}"), arguments)));
            if ours.algorithm() != KeyAlgorithm::EcdsaP521 && ours.algorithm() != KeyAlgorithm::Ed25519 {
                let private = ssh_key::PrivateKey::from_openssh(bench.read(&format!("ca{number}"))).unwrap();
                cas.push((ours, Ca::Other(private)));
            }
        }
        for seed in 100..120 {
            cas.push((session_key(seed), Ca::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))));
            subjects.push(session_key(seed - 100));
        }
        Self { cas, subjects }
    }

    /// A certificate, and what `ssh-keygen -L` must print of it below its line's number.
    fn make(&self, numbers: &mut Numbers) -> (Certificate, String) {
        let ((ca, key), subject) = (numbers.of(&self.cas), numbers.of(&self.subjects));
        let fields = match numbers.below(8) {
            0 => own_fields(numbers),
            1 => check_fields(numbers),
            _ => person_fields(numbers, subject),
        };
        let mut nonce = [0; 32];
        nonce.iter_mut().for_each(|byte| *byte = u8::try_from(numbers.below(256)).unwrap());
        let tbs = TbsCert::new(fields, subject, ca, nonce).unwrap();
        let signature = key.sign(tbs.bytes());
        let certificate = Certificate::assemble(tbs, &signature).unwrap();
        let expected = expected(&certificate);
        (certificate, expected)
    }
}

fn session_key(seed: u8) -> PublicKey {
    SessionKey::generate([seed; 32]).public_key().clone()
}

fn serial(numbers: &mut Numbers) -> Serial {
    let number = match numbers.below(4) {
        0 => *numbers.of(&[1, 2, u64::from(u32::MAX), 1 << 32, (1 << 63) - 1]),
        1 => numbers.next() >> 1,
        _ => numbers.next() >> 40,
    };
    Serial::new(number.max(1)).unwrap()
}

/// A window of at most so many seconds, at the beginning of time, at its end, at the edges of 32 bits, and now.
fn window(numbers: &mut Numbers, longest: u64) -> Window {
    let length = match numbers.below(4) {
        0 => *numbers.of(&[1, 2, 59, longest]),
        _ => 1 + numbers.next() % longest,
    };
    let edges = [0, 1, (1 << 31) - 1, 1 << 31, u64::from(u32::MAX), 1 << 32, LAST - length];
    let start = match numbers.below(4) {
        0 => *numbers.of(&edges),
        1 => numbers.next() % (LAST - length),
        _ => 1_767_607_200 + numbers.next() % 100_000_000,
    };
    let moment = |seconds| Timestamp::from_unix(seconds).unwrap();
    Window::new(moment(start), moment(start + length)).unwrap()
}

fn host_name(numbers: &mut Numbers) -> HostName {
    let label = |numbers: &mut Numbers| {
        let length = 1 + numbers.below(20);
        let middle = numbers.text(DIGITS, b"abcxyz0123456789-", length);
        format!("{middle}{}", char::from(*numbers.of(DIGITS)))
    };
    let text = match numbers.below(8) {
        0 => "a".repeat(63),
        1 => format!("10.0.{}.7", numbers.below(256)),
        2 => format!("{}.{}", "b".repeat(63), "c".repeat(26)),
        _ => (0..=numbers.below(4)).map(|_| label(numbers)).collect::<Vec<_>>().join("."),
    };
    HostName::parse(&text).unwrap_or_else(|_| HostName::parse("web-1").unwrap())
}

fn person_fields(numbers: &mut Numbers, subject: &PublicKey) -> Fields {
    let random = numbers.next().to_be_bytes();
    let request = RequestId::from_random(random[..5].try_into().unwrap());
    Fields {
        serial: serial(numbers),
        key_id: KeyId::new(&request, &person(numbers)).unwrap(),
        principals: principals(numbers),
        window: window(numbers, PERSON_SECONDS_MAX),
        options: options(numbers, subject),
    }
}

/// Names with everything in them that a key id may hold.
fn person(numbers: &mut Numbers) -> PersonName {
    let length = *numbers.of(&[1, 2, 8, 20, 63, 128]);
    let user = numbers.text(DIGITS, b"abcxyz0189._+-", length);
    let text = match numbers.below(3) {
        0 => user,
        _ => format!("{}@{}", user.split_at(length.min(60)).0, numbers.text(DIGITS, b"abc019.-", 5)),
    };
    PersonName::parse(&text).unwrap()
}

fn principals(numbers: &mut Numbers) -> BTreeSet<Principal> {
    let count = match numbers.below(64) {
        0 => *numbers.of(&[255, 256]),
        1..4 => 1 + numbers.below(64),
        _ => 1 + numbers.below(3),
    };
    let mut principals = BTreeSet::new();
    while principals.len() < count {
        let length = *numbers.of(&[1, 3, 12, 40, 128]);
        // Of one character there are too few for a long list.
        let length = if count > 20 { length.max(12) } else { length };
        let text = numbers.text(LETTERS, b"abcxyz0189_.@:=-", length);
        principals.insert(Principal::parse(&text).unwrap());
    }
    principals
}

fn options(numbers: &mut Numbers, subject: &PublicKey) -> Options {
    let printable: Vec<u8> = (b' '..=b'~').collect();
    let command = numbers.is_one_in(3).then(|| {
        let length = *numbers.of(&[1, 10, 80, 1_024]);
        let text = numbers.text(b"/abc'\"\\#$`", &printable, length);
        ForceCommand::parse(&text).unwrap()
    });
    let count = match numbers.below(32) {
        0 => 256,
        1..8 => 1 + numbers.below(6),
        _ => 0,
    };
    Options {
        force_command: command,
        source_addresses: (0..count).map(|_| block(numbers)).collect(),
        verify_required: subject.algorithm().is_security_key() && numbers.is_one_in(2),
        permits: Extension::ALL.into_iter().filter(|_| numbers.is_one_in(2)).collect(),
    }
}

fn block(numbers: &mut Numbers) -> IpNet {
    let bytes = [numbers.next().to_be_bytes(), numbers.next().to_be_bytes()].concat();
    if numbers.is_one_in(2) {
        let address: [u8; 4] = bytes[..4].try_into().unwrap();
        return IpNet::new(address.into(), u8::try_from(numbers.below(33)).unwrap()).unwrap().trunc();
    }
    let mut address: [u8; 16] = bytes.try_into().unwrap();
    // Runs of zeros, which are written in several ways.
    (0..numbers.below(16)).for_each(|_| address[numbers.below(16)] = 0);
    // None is IPv4 written as IPv6: that is refused.
    address[0] |= 0x20;
    let length = u8::try_from(8 + numbers.below(121)).unwrap();
    IpNet::new(address.into(), length).unwrap().trunc()
}

fn check_fields(numbers: &mut Numbers) -> Fields {
    let host = host_name(numbers);
    Fields {
        serial: serial(numbers),
        key_id: KeyId::of_check(&host).unwrap(),
        principals: [check_principal(&host).unwrap()].into(),
        window: window(numbers, CHECK_SECONDS_MAX),
        options: Options { force_command: Some(ForceCommand::parse(CHECK_COMMAND).unwrap()), ..Options::default() },
    }
}

fn own_fields(numbers: &mut Numbers) -> Fields {
    let host = host_name(numbers);
    let mut principals: BTreeSet<Principal> =
        (0..numbers.below(17)).map(|_| Principal::of_host(&host_name(numbers))).collect();
    principals.insert(Principal::of_host(&host));
    Fields {
        serial: serial(numbers),
        key_id: KeyId::of_host(&host).unwrap(),
        principals,
        window: window(numbers, HOST_SECONDS_MAX),
        options: Options::default(),
    }
}

/// What `ssh-keygen -L` prints (`print_cert` in its `ssh-keygen.c`).
fn expected(certificate: &Certificate) -> String {
    let (tbs, fields) = (certificate.tbs(), certificate.tbs().fields());
    let kind = match fields.key_id.purpose() {
        Purpose::User => "user",
        Purpose::Host => "host",
    };
    let name = tbs.subject().algorithm().name();
    let (plain, ending) = name.split_once("@openssh.com").map_or((name, ""), |(plain, _)| (plain, "@openssh.com"));
    let cert_name =
        if ending.is_empty() { format!("{name}-cert-v01@openssh.com") } else { format!("{plain}-cert-v01{ending}") };
    let list = |title: &str, lines: Vec<String>| match lines.as_slice() {
        [] => format!("        {title}: (none)\n"),
        some => format!(
            "        {title}: \n{}",
            some.iter().map(|line| format!("                {line}\n")).collect::<String>()
        ),
    };
    let ca = tbs.ca();
    [
        format!("        Type: {cert_name} {kind} certificate\n"),
        format!("        Public key: {}-CERT {}\n", short(tbs.subject()), tbs.subject().fingerprint()),
        format!("        Signing CA: {} {} (using {})\n", short(ca), ca.fingerprint(), signature_name(ca)),
        format!("        Key ID: \"{}\"\n", fields.key_id.as_str()),
        format!("        Serial: {}\n", fields.serial.number()),
        format!("        Valid: {}\n", validity(fields.window)),
        list("Principals", fields.principals.iter().map(|p| p.as_str().to_owned()).collect()),
        list("Critical Options", critical(&fields.options)),
        list("Extensions", fields.options.permits.iter().map(|permit| permit.name().to_owned()).collect()),
    ]
    .concat()
}

/// What `ssh-keygen` calls a kind of key when it is short of words.
const fn short(key: &PublicKey) -> &'static str {
    match key.algorithm() {
        KeyAlgorithm::Ed25519 => "ED25519",
        KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::EcdsaP521 => "ECDSA",
        KeyAlgorithm::Rsa => "RSA",
        KeyAlgorithm::SkEd25519 => "ED25519-SK",
        KeyAlgorithm::SkEcdsaP256 => "ECDSA-SK",
    }
}

fn signature_name(ca: &PublicKey) -> &'static str {
    if ca.algorithm() == KeyAlgorithm::Rsa { "rsa-sha2-512" } else { ca.algorithm().name() }
}

/// The one difference: a window that begins with 1970 is printed as one without a beginning, for 0 is how a certificate says that.
fn validity(window: Window) -> String {
    let words = |time: Timestamp| time.to_string().trim_end_matches('Z').to_owned();
    let (start, end) = (words(window.start()), words(window.end()));
    if window.start().unix() == 0 { format!("before {end}") } else { format!("from {start} to {end}") }
}

fn critical(options: &Options) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(options.force_command.as_ref().map(|command| format!("force-command {}", command.as_str())));
    if !options.source_addresses.is_empty() {
        let list: Vec<String> = options.source_addresses.iter().map(ToString::to_string).collect();
        lines.push(format!("source-address {}", list.join(",")));
    }
    lines.extend(options.verify_required.then(|| "verify-required".to_owned()));
    lines
}

/// Makes a file of certificates, has `ssh-keygen` read it, and compares. How many there were of each kind.
fn compare_file(maker: &Maker, bench: &Bench, number: u64) -> BTreeMap<String, u64> {
    let mut numbers = Numbers(number);
    let (certificates, wanted): (Vec<Certificate>, Vec<String>) =
        (0..IN_A_FILE).map(|_| maker.make(&mut numbers)).unzip();
    let lines: String = certificates.iter().map(|one| format!("{}\n", one.to_openssh())).collect();
    let path = bench.write(&format!("many{number}.pub"), lines);
    let listed = run(Command::new("ssh-keygen").arg("-L").arg("-f").arg(&path));
    let mut listed = listed.split_inclusive('\n').peekable();
    let mut kinds = BTreeMap::new();
    for (at, (certificate, wanted)) in certificates.iter().zip(&wanted).enumerate() {
        // The first is headed by the file's name alone.
        let line = if at == 0 { String::new() } else { format!("{}:", at + 1) };
        assert_eq!(listed.next(), Some(format!("{}:{line}\n", path.display()).as_str()), "file {number}");
        let mut got = String::new();
        while let Some(line) = listed.next_if(|line| line.starts_with(' ')) {
            got.push_str(line);
        }
        assert_eq!(&got, wanted, "file {number}, certificate {at}");
        assert_eq!(Certificate::parse_blob(certificate.blob()).as_ref(), Ok(certificate));
        let tbs = certificate.tbs();
        let kind = format!("{} by {}", tbs.subject().algorithm().name(), tbs.ca().algorithm().name());
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(listed.next(), None);
    std::fs::remove_file(path).unwrap();
    kinds
}

#[test]
fn ssh_keygen_reads_every_field_of_thousands_of_certificates_as_it_was_asked_for() {
    let wanted = numbers::wanted("HALLPASS_CERTIFICATES", 0..COUNT);
    let files = wanted.start / IN_A_FILE..wanted.end.div_ceil(IN_A_FILE);
    let bench = Bench::new();
    let maker = Maker::new(&bench);
    let (next, kinds) = (AtomicU64::new(files.start), Mutex::new(BTreeMap::new()));
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= files.end {
            break;
        }
        let more = compare_file(&maker, &bench, number);
        let mut kinds = kinds.lock().unwrap();
        more.into_iter().for_each(|(kind, more)| *kinds.entry(kind).or_insert(0) += more);
        let compared = kinds.values().sum::<u64>();
        if compared.is_multiple_of(SAID_EACH) {
            println!("{compared} certificates from number {} on are as they were asked for", files.start * IN_A_FILE);
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        (0..workers).for_each(|_| drop(scope.spawn(work)));
    });
    let kinds = kinds.into_inner().unwrap();
    assert_eq!(kinds.values().sum::<u64>(), (files.end - files.start) * IN_A_FILE);
    // Seven kinds of subject key, four kinds of CA key.
    assert_eq!(kinds.len(), 28, "{kinds:?}");
    println!("{kinds:#?}");
}
