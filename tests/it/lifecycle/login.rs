//! Login: answers that a real `ssh-keygen` signed, and the sessions they open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hallpass::identity::challenge::{Answer, CHALLENGE_LIFETIME, LoginRefusal, check, issue, statement};
use hallpass::identity::mac::MacKey;
use hallpass::identity::session::{SESSION_LIFETIME, Session, SessionRefusal, mint};
use hallpass::identity::{Directory, Person, Proven};
use hallpass::name::{GroupName, PersonName};
use hallpass::ssh::PublicKey;
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SigError, SshSignature};
use hallpass::time::Timestamp;
use tempfile::TempDir;

const SERVER: &str = "https://pass.example.com";

/// Keys made by the real tool, and what is needed to log in with them.
struct Desk {
    folder: TempDir,
    key: MacKey,
    now: Timestamp,
}

impl Desk {
    fn new() -> Self {
        let now = Timestamp::parse("2026-01-05T10:00:00Z").unwrap();
        Self { folder: TempDir::new().unwrap(), key: MacKey::new([7; 32]), now }
    }

    /// A new key pair under this name.
    fn keygen(&self, name: &str, kind: &str) -> (PathBuf, PublicKey) {
        let path = self.folder.path().join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-C", name, "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        (path, PublicKey::parse_openssh(line.trim_end()).unwrap())
    }

    fn challenge(&self) -> String {
        issue(&self.key, [3; 16], self.now)
    }

    fn check(&self, answer: &Answer, directory: &Directory) -> Result<Proven, LoginRefusal> {
        check(answer, &self.key, SERVER, directory, &BTreeSet::new(), self.now).map(|(proven, _)| proven)
    }
}

/// What `ssh-keygen -Y sign` makes of `message`.
fn sign(key: &Path, namespace: &str, message: &str) -> SshSignature {
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), message.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    SshSignature::parse(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

fn person(name: &str) -> PersonName {
    PersonName::parse(name).unwrap()
}

fn directory(people: &[(&str, &[&PublicKey])]) -> Directory {
    Directory::new(people.iter().map(|(name, keys)| Person {
        name: person(name),
        groups: BTreeSet::from([GroupName::parse("sre").unwrap()]),
        keys: keys.iter().map(|key| (*key).clone()).collect(),
    }))
}

/// The right answer of `name` to `challenge`.
fn answer(name: &str, challenge: &str, (path, key): &(PathBuf, PublicKey)) -> Answer {
    let signature = sign(path, LOGIN_NAMESPACE, &statement(SERVER, &person(name), challenge));
    Answer { person: person(name), challenge: challenge.to_owned(), key: key.clone(), signature }
}

#[test]
fn an_answer_signed_by_ssh_keygen_proves_the_person_with_their_groups() {
    let desk = Desk::new();
    for kind in ["ed25519", "ecdsa"] {
        let alice = desk.keygen(kind, kind);
        let given = answer("alice", &desk.challenge(), &alice);
        let known = directory(&[("alice", &[&alice.1])]);
        let (proven, redemption) = check(&given, &desk.key, SERVER, &known, &BTreeSet::new(), desk.now).unwrap();
        assert_eq!(proven.person(), &person("alice"));
        assert_eq!(proven.key(), alice.1.fingerprint());
        assert_eq!(proven.groups().len(), 1);
        assert_eq!(redemption.nonce, [3; 16], "the nonce to be redeemed once");
        assert_eq!(redemption.expires, desk.now.plus(CHALLENGE_LIFETIME).unwrap());
    }
}

#[test]
fn an_answer_counts_until_the_second_before_its_challenge_expires() {
    let desk = Desk::new();
    let alice = desk.keygen("alice", "ed25519");
    let known = directory(&[("alice", &[&alice.1])]);
    let given = answer("alice", &desk.challenge(), &alice);
    let at = |seconds: u64| {
        let now = Timestamp::from_unix(desk.now.unix() + seconds).unwrap();
        check(&given, &desk.key, SERVER, &known, &BTreeSet::new(), now).map(|_| ())
    };
    assert_eq!(at(119), Ok(()));
    assert_eq!(at(120), Err(LoginRefusal::Expired));
}

#[test]
fn an_answer_given_to_another_server_is_worth_nothing_here() {
    let desk = Desk::new();
    let alice = desk.keygen("alice", "ed25519");
    let known = directory(&[("alice", &[&alice.1])]);
    for server in ["https://pass.example.org", "https://pass.example.com/", "http://pass.example.com", ""] {
        let challenge = desk.challenge();
        let signature = sign(&alice.0, LOGIN_NAMESPACE, &statement(server, &person("alice"), &challenge));
        let given = Answer { person: person("alice"), challenge, key: alice.1.clone(), signature };
        assert_eq!(desk.check(&given, &known), Err(LoginRefusal::Signature(SigError::Wrong)), "{server}");
    }
}

#[test]
fn an_answer_is_bound_to_its_person_its_challenge_its_key_and_its_purpose() {
    let desk = Desk::new();
    let (alice, bob) = (desk.keygen("alice", "ed25519"), desk.keygen("bob", "ed25519"));
    let known = directory(&[("alice", &[&alice.1]), ("bob", &[&bob.1])]);
    let right = || answer("alice", &desk.challenge(), &alice);
    assert!(desk.check(&right(), &known).is_ok());

    let as_bob = Answer { person: person("bob"), ..right() };
    assert_eq!(desk.check(&as_bob, &known), Err(LoginRefusal::Signature(SigError::Wrong)));
    let other_challenge = Answer { challenge: issue(&desk.key, [4; 16], desk.now), ..right() };
    assert_eq!(desk.check(&other_challenge, &known), Err(LoginRefusal::Signature(SigError::Wrong)));
    let other_key = Answer { key: bob.1.clone(), ..right() };
    assert_eq!(desk.check(&other_key, &known), Err(LoginRefusal::Signature(SigError::Key)));
    let foreign = issue(&MacKey::new([8; 32]), [3; 16], desk.now);
    assert_eq!(desk.check(&answer("alice", &foreign, &alice), &known), Err(LoginRefusal::Challenge));
    // What alice signs for git or for a file must never log her in.
    let text = statement(SERVER, &person("alice"), &desk.challenge());
    let file = Answer { signature: sign(&alice.0, "file", &text), ..right() };
    assert_eq!(desk.check(&file, &known), Err(LoginRefusal::Signature(SigError::Namespace)));
}

#[test]
fn a_key_logs_in_only_the_person_whose_key_it_is() {
    let desk = Desk::new();
    let (alice, bob) = (desk.keygen("alice", "ed25519"), desk.keygen("bob", "ed25519"));
    let known = directory(&[("alice", &[&alice.1]), ("bob", &[&bob.1])]);
    let challenge = desk.challenge();
    assert_eq!(desk.check(&answer("alice", &challenge, &bob), &known), Err(LoginRefusal::Unknown), "bob as alice");
    assert_eq!(desk.check(&answer("mallory", &challenge, &bob), &known), Err(LoginRefusal::Unknown), "nobody");
    let without = directory(&[("alice", &[])]);
    assert_eq!(desk.check(&answer("alice", &challenge, &alice), &without), Err(LoginRefusal::Unknown), "key removed");
}

#[test]
fn a_signing_key_of_the_service_logs_nobody_in_even_if_the_directory_lists_it() {
    let desk = Desk::new();
    let ca = desk.keygen("ca", "ed25519");
    let known = directory(&[("alice", &[&ca.1])]);
    let given = answer("alice", &desk.challenge(), &ca);
    let service_keys = BTreeSet::from([ca.1.fingerprint()]);
    let refused = check(&given, &desk.key, SERVER, &known, &service_keys, desk.now).map(|_| ());
    assert_eq!(refused, Err(LoginRefusal::ServiceKey));
}

#[test]
fn a_wrong_signature_is_told_before_anything_about_the_person() {
    let desk = Desk::new();
    let (alice, bob) = (desk.keygen("alice", "ed25519"), desk.keygen("bob", "ed25519"));
    let known = directory(&[("alice", &[&alice.1])]);
    for name in ["alice", "nobody"] {
        let wrong = sign(&bob.0, LOGIN_NAMESPACE, "something else");
        let given = Answer { person: person(name), challenge: desk.challenge(), key: bob.1.clone(), signature: wrong };
        assert_eq!(desk.check(&given, &known), Err(LoginRefusal::Signature(SigError::Wrong)), "{name}");
    }
}

#[test]
fn a_session_lasts_until_it_expires_or_its_person_or_key_leaves() {
    let desk = Desk::new();
    let (alice, bob) = (desk.keygen("alice", "ed25519"), desk.keygen("bob", "ed25519"));
    let known = directory(&[("alice", &[&alice.1, &bob.1])]);
    let session = Session {
        token: mint([1; 32]).1,
        person: person("alice"),
        key: alice.1.fingerprint(),
        opened: desk.now,
        expires: desk.now.plus(SESSION_LIFETIME).unwrap(),
        seal: [0; 32],
    };
    assert_eq!(session.check(&desk.key, &known, desk.now), Err(SessionRefusal::Forged), "not written by the service");
    let session = session.sealed(&desk.key);
    let of_bob = Session { person: person("bob"), key: bob.1.fingerprint(), ..session.clone() };
    assert_eq!(of_bob.check(&desk.key, &directory(&[("bob", &[&bob.1])]), desk.now), Err(SessionRefusal::Forged));
    let later = |seconds: u64| Timestamp::from_unix(desk.now.unix() + seconds).unwrap();
    let proven = session.check(&desk.key, &known, later(12 * 3600 - 1)).unwrap();
    assert_eq!((proven.person(), proven.key()), (&person("alice"), alice.1.fingerprint()));
    assert_eq!(session.check(&desk.key, &known, later(12 * 3600)), Err(SessionRefusal::Expired));
    let stretched = Session { expires: later(90 * 86_400), ..session.clone() }.sealed(&desk.key);
    assert_eq!(
        stretched.check(&desk.key, &known, later(12 * 3600)),
        Err(SessionRefusal::Expired),
        "a row claims 90 days"
    );

    assert_eq!(session.check(&desk.key, &directory(&[("bob", &[&alice.1])]), desk.now), Err(SessionRefusal::Gone));
    assert_eq!(session.check(&desk.key, &directory(&[("alice", &[&bob.1])]), desk.now), Err(SessionRefusal::Gone));
}

#[test]
fn a_session_has_the_groups_of_the_directory_in_force() {
    let desk = Desk::new();
    let alice = desk.keygen("alice", "ed25519");
    let expires = desk.now.plus(SESSION_LIFETIME).unwrap();
    let key = alice.1.fingerprint();
    let session =
        Session { token: mint([1; 32]).1, person: person("alice"), key, opened: desk.now, expires, seal: [0; 32] };
    let session = session.sealed(&desk.key);
    let known = directory(&[("alice", &[&alice.1])]);
    assert_eq!(session.check(&desk.key, &known, desk.now).unwrap().groups().len(), 1);
    let moved = Directory::new([Person { groups: BTreeSet::new(), ..known.person(&person("alice")).unwrap().clone() }]);
    assert!(session.check(&desk.key, &moved, desk.now).unwrap().groups().is_empty());
}
