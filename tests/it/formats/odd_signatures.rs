//! Signatures whose numbers are zero, the group's order or beyond it, or spelt another way: refused wherever one is verified, also
//! when it is an agent that gives them for a CA key.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::HEXUPPER;
use hallpass::signer::Signer;
use hallpass::ssh::cert::{CertError, Certificate, Purpose, TbsCert, verify_ca_signature};
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SigError, SshSignature};
use hallpass::ssh::{KeyAlgorithm, PublicKey, agent};

use super::agent::Agent;
use super::ca_agent::{CA_KINDS, certify, open};
use super::certificates::{fields, quick_key};
use super::security_keys::{Authenticator, TOUCHED};
use super::{Bench, string};

const MESSAGE: &[u8] = b"a challenge";

/// The curves with the orders of their groups (SP 800-186, section 3.2.1).
const CURVES: [(&str, KeyAlgorithm, &str); 3] = [
    ("256", KeyAlgorithm::EcdsaP256, "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551"),
    (
        "384",
        KeyAlgorithm::EcdsaP384,
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
    ),
    (
        "521",
        KeyAlgorithm::EcdsaP521,
        "01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF\
         FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
    ),
];

fn order(algorithm: KeyAlgorithm) -> Vec<u8> {
    let (_, _, digits) = CURVES.into_iter().find(|(_, known, _)| *known == algorithm).unwrap();
    HEXUPPER.decode(digits.as_bytes()).unwrap()
}

/// `a + b`, or `a - b`, of big-endian digits, with one digit more in front.
fn sum(a: &[u8], b: &[u8], sign: i16) -> Vec<u8> {
    let length = a.len().max(b.len()) + 1;
    let digit =
        |number: &[u8], place: usize| number.len().checked_sub(place + 1).map_or(0, |index| i16::from(number[index]));
    let (mut digits, mut carry) = (Vec::new(), 0);
    for place in 0..length {
        let whole = digit(a, place) + sign * digit(b, place) + carry;
        digits.push(u8::try_from(whole.rem_euclid(256)).unwrap());
        carry = whole.div_euclid(256);
    }
    assert_eq!(carry, 0);
    digits.into_iter().rev().collect()
}

/// The one spelling of a number in SSH (RFC 4251 section 5).
fn mpint(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = number.iter().copied().skip_while(|digit| *digit == 0).collect();
    string(if digits.first().is_some_and(|first| *first >= 0x80) { [vec![0], digits].concat() } else { digits })
}

/// The strings that a wire form begins with.
fn strings(mut bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for _ in 0..count {
        let (length, rest) = bytes.split_at(4);
        let (field, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(length.try_into().unwrap())).unwrap());
        found.push(field.to_vec());
        bytes = rest;
    }
    found
}

/// What may stand in place of a good `number`, in wire form, and makes no signature.
fn bad_numbers(number: &[u8], order: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("zero", mpint(&[])),
        ("zero as a byte", string([0])),
        ("the order", mpint(order)),
        ("the order and one", mpint(&sum(order, &[1], 1))),
        ("itself and the order", mpint(&sum(number, order, 1))),
        ("as large as its digits allow", mpint(&vec![0xff; order.len()])),
        ("longer than any", mpint(&[vec![1], vec![0; order.len()]].concat())),
        ("negative", string(vec![0xff; order.len()])),
        ("padded", string([&[0, 0], number].concat())),
        ("nothing", vec![]),
        ("cut", mpint(number)[..8].to_vec()),
    ]
}

/// A good signature blob with every bad number in its place; the last one has one number too many.
fn bad_signatures(blob: &[u8], order: &[u8]) -> Vec<(String, Vec<u8>)> {
    let [name, inner] = <[_; 2]>::try_from(strings(blob, 2)).unwrap();
    let tail = &blob[8 + name.len() + inner.len()..];
    let [r, s] = <[_; 2]>::try_from(strings(&inner, 2)).unwrap();
    let made = |r: &[u8], s: &[u8]| [string(&name), string([r, s].concat()), tail.to_vec()].concat();
    assert_eq!(made(&mpint(&r), &mpint(&s)), blob, "one spelling");
    let mut bad = Vec::new();
    for (what, number) in bad_numbers(&r, order) {
        bad.push((format!("r {what}"), made(&number, &mpint(&s))));
    }
    for (what, number) in bad_numbers(&s, order) {
        bad.push((format!("s {what}"), made(&mpint(&r), &number)));
        bad.push((format!("r and s {what}"), made(&number, &number)));
    }
    bad.push(("r and s exchanged".to_owned(), made(&mpint(&s), &mpint(&r))));
    bad.push(("a third number".to_owned(), made(&mpint(&r), &[mpint(&s), mpint(&[1])].concat())));
    bad
}

/// The same of an RSA signature by a key with this modulus.
fn bad_rsa_signatures(blob: &[u8], modulus: &[u8]) -> Vec<(String, Vec<u8>)> {
    let [name, good] = <[_; 2]>::try_from(strings(blob, 2)).unwrap();
    let length = good.len();
    let with_modulus = sum(&good, modulus, 1);
    let digits = with_modulus.iter().position(|digit| *digit != 0).unwrap();
    let bad = [
        ("zero", vec![0; length]),
        ("one", [vec![0; length - 1], vec![1]].concat()),
        ("the modulus", modulus[modulus.len() - length..].to_vec()),
        ("the modulus less one", sum(modulus, &[1], -1).split_off(modulus.len() + 1 - length)),
        ("itself and the modulus", with_modulus[digits..].to_vec()),
        ("as large as its digits allow", vec![0xff; length]),
        ("padded", [&[0], &good[..]].concat()),
        ("cut", good[1..].to_vec()),
        ("nothing", vec![]),
    ];
    bad.map(|(what, bytes)| (what.to_owned(), [string(&name), string(bytes)].concat())).into()
}

/// The other signature that holds where one does: with the order less `s`. That it does says that the order above is the right one.
fn twin(blob: &[u8], order: &[u8]) -> Vec<u8> {
    let [name, inner] = <[_; 2]>::try_from(strings(blob, 2)).unwrap();
    let tail = &blob[8 + name.len() + inner.len()..];
    let [r, s] = <[_; 2]>::try_from(strings(&inner, 2)).unwrap();
    [string(&name), string([mpint(&r), mpint(&sum(order, &s, -1))].concat()), tail.to_vec()].concat()
}

fn ask_to_sign(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(request).unwrap();
    agent::parse_signature(&frame(&stream).unwrap()).unwrap().unwrap()
}

/// One frame, without its length.
fn frame(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// What the reader of logins and approvals says of this signature.
fn check(key: &PublicKey, blob: &[u8]) -> Result<(), SigError> {
    let armoured = SshSignature::armour(key, LOGIN_NAMESPACE, blob)?;
    SshSignature::parse(&armoured)?.check(key, LOGIN_NAMESPACE, MESSAGE)
}

#[test]
fn an_ecdsa_signature_of_zero_the_order_or_beyond_is_none_wherever_one_is_verified() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    for (bits, algorithm, _) in CURVES {
        let name = format!("key{bits}");
        let key = bench.public_key(&name, &["-t", "ecdsa", "-b", bits]);
        agent.add(&bench, &name);
        let (order, data) = (order(algorithm), SshSignature::to_be_signed(LOGIN_NAMESPACE, MESSAGE));
        let blob = ask_to_sign(&agent.socket, &agent::sign_request(&key, &data));
        for good in [&blob, &twin(&blob, &order)] {
            assert_eq!((check(&key, good), verify_ca_signature(&key, good, &data)), (Ok(()), Ok(())), "{bits}");
        }
        for (what, bad) in bad_signatures(&blob, &order) {
            assert!(check(&key, &bad).is_err(), "{bits}: {what}");
            assert_eq!(verify_ca_signature(&key, &bad, &data), Err(CertError::Signature), "{bits}: {what}");
        }
        if algorithm == KeyAlgorithm::EcdsaP521 {
            continue;
        }
        let tbs = TbsCert::new(fields(), &quick_key(9), &key, [7; 32]).unwrap();
        let blob = ask_to_sign(&agent.socket, &agent::sign_request(&key, tbs.bytes()));
        assert!(Certificate::parse_blob(&[tbs.bytes(), &string(&blob)].concat()).is_ok());
        for (what, bad) in bad_signatures(&blob, &order) {
            let read = Certificate::parse_blob(&[tbs.bytes(), &string(&bad)].concat());
            assert_eq!(read, Err(CertError::Signature), "{bits}: {what}");
            assert_eq!(Certificate::assemble(tbs.clone(), &bad), Err(CertError::Signature), "{bits}: {what}");
        }
    }
}

#[test]
fn nor_is_one_of_a_security_key() {
    let [_, device] = Authenticator::both();
    let data = SshSignature::to_be_signed(LOGIN_NAMESPACE, MESSAGE);
    let (key, blob) = (device.public_key(), device.sign("ssh:", TOUCHED, 7, &data));
    assert_eq!(check(&key, &blob), Ok(()));
    for (what, bad) in bad_signatures(&blob, &order(KeyAlgorithm::EcdsaP256)) {
        assert!(check(&key, &bad).is_err(), "{what}");
    }
}

#[test]
fn nor_is_an_rsa_signature_of_zero_the_modulus_or_beyond() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    let key = bench.public_key("key", &["-t", "rsa", "-b", "3072"]);
    agent.add(&bench, "key");
    let modulus = strings(key.blob(), 3).pop().unwrap();
    let data = SshSignature::to_be_signed(LOGIN_NAMESPACE, MESSAGE);
    let blob = ask_to_sign(&agent.socket, &agent::sign_request(&key, &data));
    assert_eq!((check(&key, &blob), verify_ca_signature(&key, &blob, &data)), (Ok(()), Ok(())));
    for (what, bad) in bad_rsa_signatures(&blob, &modulus) {
        assert!(check(&key, &bad).is_err(), "{what}");
        assert_eq!(verify_ca_signature(&key, &bad, &data), Err(CertError::Signature), "{what}");
    }
}

/// What a lying agent makes of a request to sign: its socket, the data, and the honest answer.
type Lie = Arc<dyn Fn(&Path, &[u8], Vec<u8>) -> Vec<u8> + Send + Sync>;

/// Stands before a real agent and answers with lies, for keys of any kind.
struct Between {
    socket: PathBuf,
    lie: Arc<Mutex<Option<Lie>>>,
}

impl Between {
    fn start(bench: &Bench, agent: &Agent) -> Self {
        let between = Self { socket: bench.path("between"), lie: Arc::default() };
        let listener = UnixListener::bind(&between.socket).unwrap();
        std::fs::set_permissions(&between.socket, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (lie, socket) = (Arc::clone(&between.lie), agent.socket.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, lie, socket) = (stream.unwrap(), Arc::clone(&lie), socket.clone());
                std::thread::spawn(move || while Self::pass(&stream, &socket, &lie).is_some() {});
            }
        });
        between
    }

    /// Passes one request on, and an answer back; `None` when the connection is over.
    fn pass(mut stream: &UnixStream, socket: &Path, lie: &Mutex<Option<Lie>>) -> Option<()> {
        let request = frame(stream)?;
        let mut behind = UnixStream::connect(socket).ok()?;
        behind.write_all(&string(&request)).ok()?;
        let mut answer = frame(&behind)?;
        let lie = lie.lock().unwrap().clone();
        if let (Some(lie), 13) = (lie, request[0]) {
            let [_, data] = <[_; 2]>::try_from(strings(&request[1..], 2)).unwrap();
            let [blob] = <[_; 1]>::try_from(strings(&answer[1..], 1)).unwrap();
            answer = [&[14][..], &string(lie(socket, &data, blob))].concat();
        }
        stream.write_all(&string(answer)).ok()
    }

    fn tell(&self, lie: Option<&Lie>) {
        *self.lie.lock().unwrap() = lie.cloned();
    }
}

/// The lies about a key of this kind: those about any, and those about its numbers.
fn lies(key: &PublicKey, other: &PublicKey, (data, good): (&[u8], &[u8])) -> Vec<(String, Lie)> {
    let (other, own, old) = (other.clone(), key.clone(), good.to_vec());
    let mut lies: Vec<(String, Lie)> = vec![
        (
            "another key".to_owned(),
            Arc::new(move |socket, data, _| ask_to_sign(socket, &agent::sign_request(&other, data))),
        ),
        ("other bytes".to_owned(), {
            let own = own.clone();
            Arc::new(move |socket, data, _| ask_to_sign(socket, &agent::sign_request(&own, &[data, b"x"].concat())))
        }),
        ("an older signature".to_owned(), Arc::new(move |_, _, _| old.clone())),
        ("a flipped bit".to_owned(), {
            Arc::new(|_, _, mut blob| {
                let place = blob.len() - 9;
                blob[place] ^= 4;
                blob
            })
        }),
        ("no signature".to_owned(), Arc::new(|_, _, _| Vec::new())),
    ];
    if key.algorithm() == KeyAlgorithm::Rsa {
        let modulus = strings(key.blob(), 3).pop().unwrap();
        // The flags of a request are its last four bytes: 2 asks for SHA-256, 0 for SHA-1.
        for flags in [0, 2] {
            let own = own.clone();
            lies.push((
                format!("a hash that was not asked for ({flags})"),
                Arc::new(move |socket, data, _| {
                    let mut request = agent::sign_request(&own, data);
                    *request.last_mut().unwrap() = flags;
                    ask_to_sign(socket, &request)
                }),
            ));
        }
        for (number, (what, _)) in bad_rsa_signatures(good, &modulus).into_iter().enumerate() {
            let modulus = modulus.clone();
            lies.push((what, Arc::new(move |_, _, blob| bad_rsa_signatures(&blob, &modulus)[number].1.clone())));
        }
    } else {
        let order = order(key.algorithm());
        assert!(verify_ca_signature(key, good, data).is_ok());
        for (number, (what, _)) in bad_signatures(good, &order).into_iter().enumerate() {
            let order = order.clone();
            lies.push((what, Arc::new(move |_, _, blob| bad_signatures(&blob, &order)[number].1.clone())));
        }
    }
    lies
}

/// Waits until it signs: who asks soon after a failure is told the same once more.
fn signs_again(signer: &dyn Signer) {
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(why) = certify(signer) {
        assert!(Instant::now() < until, "{why}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_agent_that_lies_about_a_key_of_another_kind_than_ed25519_is_not_opened_and_signs_nothing() {
    for arguments in &CA_KINDS[1..] {
        let bench = Bench::new();
        let agent = Agent::start(&bench);
        let [key, other] = ["ca", "other"].map(|name| {
            let key = bench.public_key(name, arguments);
            agent.add(&bench, name);
            key
        });
        let between = Between::start(&bench, &agent);
        let open = || open(&between.socket, bench.path("ca.pub"), Purpose::User);
        let signer = open().unwrap();
        let good = ask_to_sign(&agent.socket, &agent::sign_request(&key, MESSAGE));
        for (what, lie) in lies(&key, &other, (MESSAGE, &good)) {
            signs_again(signer.as_ref());
            between.tell(Some(&lie));
            assert!(open().is_err(), "{arguments:?}: {what}");
            let failed = certify(signer.as_ref()).unwrap_err();
            assert!(failed.starts_with("the CA key's backend failed: ssh-agent "), "{arguments:?}: {what}: {failed}");
            between.tell(None);
        }
        signs_again(signer.as_ref());
    }
}
