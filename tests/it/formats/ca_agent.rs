//! CA keys in an ssh-agent: a real one that is killed and hangs, and a fake at the agent protocol that lies.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer as _, SigningKey};
use hallpass::signer::{self, Health, SignError, Signer};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{Certificate, Purpose, TbsCert};
use hallpass::ssh::private::SessionKey;
use hallpass::ssh::sig::{APPROVAL_NAMESPACE, LOGIN_NAMESPACE, SshSignature};

use super::agent::Agent;
use super::certificates::{fields, quick_key};
use super::{Bench, list_certificate, run, string};

/// How long a backend may take in these tests. Real answers take a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// CA keys of each kind, as `ssh-keygen` makes them.
pub(super) const CA_KINDS: [&[&str]; 4] =
    [&["-t", "ed25519"], &["-t", "ecdsa", "-b", "256"], &["-t", "ecdsa", "-b", "384"], &["-t", "rsa", "-b", "3072"]];

pub(super) fn open(socket: &Path, public_key: PathBuf, purpose: Purpose) -> Result<Arc<dyn Signer>, SignError> {
    let settings = signer::agent::Settings { socket: socket.to_owned(), public_key };
    signer::open(&signer::Settings::Agent(settings), purpose, PATIENCE)
}

/// Why opening failed.
fn refused(socket: &Path, public_key: PathBuf) -> String {
    open(socket, public_key, Purpose::User).unwrap_err().to_string()
}

/// Another certificate each time, so that an old signature fits none.
fn tbs(signer: &dyn Signer) -> TbsCert {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut nonce = [7; 32];
    nonce[..8].copy_from_slice(&MADE.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    TbsCert::new(fields(), &quick_key(9), signer.public_key(), nonce).unwrap()
}

pub(super) fn certify(signer: &dyn Signer) -> Result<Certificate, String> {
    let tbs = tbs(signer);
    let blob = signer.sign(&tbs).map_err(|error| error.to_string())?;
    Ok(Certificate::assemble(tbs, &blob).unwrap())
}

/// Waits until it signs again: it looks for what it has lost once a second.
fn recovers(signer: &dyn Signer) {
    let until = Instant::now() + Duration::from_secs(30);
    while signer.health() != Health::Up {
        assert!(Instant::now() < until, "{:?}", signer.health());
        std::thread::sleep(Duration::from_millis(20));
    }
    certify(signer).unwrap();
}

#[test]
fn keys_of_each_kind_in_a_real_agent_sign_certificates_that_ssh_keygen_reads() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    for (number, arguments) in CA_KINDS.iter().enumerate() {
        let name = format!("ca{number}");
        bench.keygen(&name, arguments);
        agent.add(&bench, &name);
        let signer = open(&agent.socket, bench.path(&format!("{name}.pub")), Purpose::User).unwrap();
        let certificate = certify(signer.as_ref()).unwrap();
        let listed = list_certificate(&bench.write("cert.pub", certificate.to_openssh()));
        assert!(listed.iter().any(|line| line.contains(&signer.public_key().fingerprint().to_string())), "{listed:?}");
        assert_eq!(signer.health(), Health::Up);
    }
}

#[test]
fn an_agent_without_the_key_a_bad_public_key_and_no_agent_are_refused_at_start() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    bench.keygen("ca", &["-t", "ed25519"]);
    assert!(refused(&agent.socket, bench.path("ca.pub")).contains("does not hold SHA256:"));
    assert!(refused(&bench.path("nobody"), bench.path("ca.pub")).contains("No such file"));
    assert!(refused(&agent.socket, bench.path("nothing.pub")).contains("No such file"));
    agent.add(&bench, "ca");
    std::fs::set_permissions(&agent.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(refused(&agent.socket, bench.path("ca.pub")).contains("others can connect to it (mode 0666)"));
    bench.keygen("large", &["-t", "ecdsa", "-b", "521"]);
    assert!(refused(&agent.socket, bench.path("large.pub")).contains("is not for CA keys"));
    bench.keygen("small", &["-t", "rsa", "-b", "2048"]);
    assert!(refused(&agent.socket, bench.path("small.pub")).contains("2048 bits is not accepted"));
    assert!(refused(&agent.socket, bench.path("ca")).contains("not an OpenSSH public key"), "the private half");
}

#[test]
fn a_key_for_hosts_signs_no_user_certificate() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    bench.keygen("ca", &["-t", "ed25519"]);
    agent.add(&bench, "ca");
    let signer = open(&agent.socket, bench.path("ca.pub"), Purpose::Host).unwrap();
    assert_eq!(certify(signer.as_ref()).unwrap_err(), "this CA key signs host certificates only");
    let signer = open(&agent.socket, bench.path("ca.pub"), Purpose::User).unwrap();
    let other = TbsCert::new(fields(), &quick_key(9), &quick_key(8), [7; 32]).unwrap();
    assert!(matches!(signer.sign(&other), Err(SignError::OtherKey)));
}

#[test]
fn a_killed_agent_fails_at_once_and_another_one_in_its_place_is_found() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    bench.keygen("ca", &["-t", "ed25519"]);
    agent.add(&bench, "ca");
    let signer = open(&agent.socket, bench.path("ca.pub"), Purpose::User).unwrap();
    certify(signer.as_ref()).unwrap();
    let socket = agent.socket.clone();
    drop(agent);
    assert!(certify(signer.as_ref()).is_err());
    assert!(matches!(signer.health(), Health::Down(_)));
    // An agent that came back empty is not enough.
    drop(std::fs::remove_file(&socket));
    let agent = Agent::start(&bench);
    assert!(certify(signer.as_ref()).is_err());
    agent.add(&bench, "ca");
    recovers(signer.as_ref());
    // A restart between two signatures is not noticed at all.
    drop(agent);
    drop(std::fs::remove_file(&socket));
    let agent = Agent::start(&bench);
    agent.add(&bench, "ca");
    certify(signer.as_ref()).unwrap();
}

#[test]
fn a_hung_agent_fails_in_time_and_goes_on_when_it_wakes() {
    let bench = Bench::new();
    let agent = Agent::start(&bench);
    bench.keygen("ca", &["-t", "ed25519"]);
    agent.add(&bench, "ca");
    let signer = open(&agent.socket, bench.path("ca.pub"), Purpose::User).unwrap();
    let send = |signal: &str| run(Command::new("kill").args([signal, &agent.id().to_string()]));
    send("-STOP");
    let all: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| certify(signer.as_ref()))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(all.iter().all(Result::is_err), "{all:?}");
    assert!(matches!(signer.health(), Health::Down(_)));
    send("-CONT");
    recovers(signer.as_ref());
}

/// What a fake agent does with a request to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// One bit of the signature is another.
    FlippedBit,
    /// Another key signs.
    OtherKey,
    /// It signs other bytes.
    OtherBytes,
    /// It gives the signature of the request before.
    Replay,
    /// It answers after the deadline.
    Late,
    /// A byte now and then, each in time.
    Drip,
    /// A frame longer than any agent may send.
    LongFrame,
    /// No frame of the protocol.
    Garbage,
    /// It refuses.
    Refuses,
    /// It hangs up.
    HangsUp,
}

/// A fake at the agent protocol, because no real agent lies: it holds one Ed25519 key and does as it is told.
struct Fake {
    socket: PathBuf,
    lie: Arc<Mutex<Lie>>,
    /// What it was asked to sign.
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

const SEED: [u8; 32] = [0xAB; 32];

impl Fake {
    fn start(bench: &Bench) -> Self {
        let fake = Self { socket: bench.path("fake"), lie: Arc::new(Mutex::new(Lie::None)), asked: Arc::default() };
        let listener = UnixListener::bind(&fake.socket).unwrap();
        std::fs::set_permissions(&fake.socket, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (lie, asked) = (Arc::clone(&fake.lie), Arc::clone(&fake.asked));
        std::thread::spawn(move || {
            let last = Arc::new(Mutex::new(vec![0; 64]));
            for stream in listener.incoming() {
                let (stream, lie, asked, last) =
                    (stream.unwrap(), Arc::clone(&lie), Arc::clone(&asked), Arc::clone(&last));
                // Who is told to hang up, or waits for a deadline, must not keep others waiting.
                std::thread::spawn(move || while serve(&stream, &lie, &asked, &last).is_some() {});
            }
        });
        bench.write("ca.pub", SessionKey::generate(SEED).public_key().to_openssh());
        fake
    }

    fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
    }
}

/// Answers one request; `None` when the connection is over.
fn serve(mut stream: &UnixStream, lie: &Mutex<Lie>, asked: &Mutex<Vec<Vec<u8>>>, last: &Mutex<Vec<u8>>) -> Option<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut body).ok()?;
    let key = SessionKey::generate(SEED).public_key().clone();
    if body == [11] {
        let answer = [&[12, 0, 0, 0, 1][..], &string(key.blob()), &string("fake")].concat();
        return stream.write_all(&string(answer)).ok();
    }
    let mut data = body.split_off(1 + 4 + key.blob().len() + 4);
    data.truncate(data.len() - 4);
    asked.lock().unwrap().push(data.clone());
    let lie = *lie.lock().unwrap();
    let mut signature = SigningKey::from_bytes(&SEED).sign(&data).to_bytes().to_vec();
    let before = std::mem::replace(&mut *last.lock().unwrap(), signature.clone());
    match lie {
        Lie::FlippedBit => signature[40] ^= 4,
        Lie::OtherKey => signature = SigningKey::from_bytes(&[1; 32]).sign(&data).to_bytes().to_vec(),
        Lie::OtherBytes => {
            signature = SigningKey::from_bytes(&SEED).sign(&[&data[..], b"x"].concat()).to_bytes().to_vec();
        }
        Lie::Replay => signature = before,
        Lie::HangsUp => return None,
        Lie::Refuses => return stream.write_all(&string([5])).ok(),
        Lie::Garbage => return stream.write_all(&string([14, 0, 0, 0, 9, 1])).ok(),
        Lie::LongFrame => return stream.write_all(&[0, 4, 0, 1]).and_then(|()| stream.write_all(&[0; 64])).ok(),
        Lie::None | Lie::Late | Lie::Drip => {}
    }
    let blob = [string("ssh-ed25519"), string(&signature)].concat();
    let answer = string([&[14][..], &string(blob)].concat());
    match lie {
        Lie::Late => std::thread::sleep(PATIENCE + Duration::from_millis(200)),
        Lie::Drip => {
            for byte in &answer {
                stream.write_all(&[*byte]).ok()?;
                std::thread::sleep(PATIENCE / 20);
            }
            return Some(());
        }
        _ => {}
    }
    stream.write_all(&answer).ok()
}

const LIES: [Lie; 10] = [
    Lie::FlippedBit,
    Lie::OtherKey,
    Lie::OtherBytes,
    Lie::Replay,
    Lie::Late,
    Lie::Drip,
    Lie::LongFrame,
    Lie::Garbage,
    Lie::Refuses,
    Lie::HangsUp,
];

#[test]
fn an_agent_that_lies_from_the_start_is_not_opened() {
    let bench = Bench::new();
    let fake = Fake::start(&bench);
    // Something to give once more.
    open(&fake.socket, bench.path("ca.pub"), Purpose::User).unwrap();
    for lie in LIES {
        fake.tell(lie);
        assert!(open(&fake.socket, bench.path("ca.pub"), Purpose::User).is_err(), "{lie:?}");
    }
}

#[test]
fn an_agent_that_begins_to_lie_signs_nothing_and_is_believed_again_when_it_stops() {
    let bench = Bench::new();
    let fake = Fake::start(&bench);
    let signer = open(&fake.socket, bench.path("ca.pub"), Purpose::User).unwrap();
    for lie in LIES {
        fake.tell(lie);
        let failed = certify(signer.as_ref()).unwrap_err();
        assert!(failed.starts_with("the CA key's backend failed: ssh-agent "), "{lie:?}: {failed}");
        assert!(matches!(signer.health(), Health::Down(_)), "{lie:?}");
        fake.tell(Lie::None);
        recovers(signer.as_ref());
    }
}

#[test]
fn what_a_check_has_signed_is_neither_a_certificate_nor_a_login_nor_an_approval() {
    let bench = Bench::new();
    let fake = Fake::start(&bench);
    let signer = open(&fake.socket, bench.path("ca.pub"), Purpose::User).unwrap();
    let asked = fake.asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    let key: &PublicKey = signer.public_key();
    for data in &asked {
        assert!(data.starts_with(b"SSHSIG") && TbsCert::parse(data).is_err());
        // As the length of a certificate's first field, it is more than any packet holds.
        assert!(u32::from_be_bytes(data[..4].try_into().unwrap()) > 1 << 30);
        let namespace = usize::try_from(u32::from_be_bytes(data[6..10].try_into().unwrap())).unwrap();
        assert_eq!(&data[10..10 + namespace], b"ca-check@hallpass");
        let blob = [string("ssh-ed25519"), string(SigningKey::from_bytes(&SEED).sign(data).to_bytes())].concat();
        for namespace in [LOGIN_NAMESPACE, APPROVAL_NAMESPACE, "file", "git"] {
            let armoured = SshSignature::armour(key, namespace, &blob).unwrap();
            assert!(SshSignature::parse(&armoured).unwrap().check(key, namespace, b"anything").is_err());
        }
    }
    // Fresh each time: an old answer proves nothing.
    drop(open(&fake.socket, bench.path("ca.pub"), Purpose::User).unwrap());
    let again = fake.asked.lock().unwrap();
    assert_ne!(again[0], again[asked.len()]);
}
