//! Private key files whose two halves belong to two keys: a signature with one would verify under neither, or give the secret half away.

use std::ops::Range;

use data_encoding::BASE64;
use hallpass::signer::file::{FileSigner, Settings};
use hallpass::ssh::cert::Purpose;
use hallpass::ssh::private::{LoginKey, PrivateKeyError, SessionKey};
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SigError};

use super::Bench;

/// The bytes between a file's first and last line.
fn decoded(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64.decode(body.as_bytes()).unwrap()
}

/// The file of a key of this kind with the public half of another one in these of the places in which that stands; `length` bytes of it make
/// the difference.
fn with_other_half(bench: &Bench, arguments: &[&str], length: usize, which: Range<usize>) -> String {
    for name in ["mine", "mine.pub", "other", "other.pub"] {
        drop(std::fs::remove_file(bench.path(name)));
    }
    let [mine, other] = ["mine", "other"].map(|name| {
        let public = bench.keygen(name, arguments);
        let blob = BASE64.decode(public.split(' ').nth(1).unwrap().as_bytes()).unwrap();
        blob[blob.len() - length..].to_vec()
    });
    let mut bytes = decoded(&bench.read("mine"));
    let places: Vec<usize> = (0..bytes.len() - length).filter(|at| bytes[*at..*at + length] == mine[..]).collect();
    assert!(places.len() >= 2, "once alone, and once beside the secret: {places:?}");
    for at in places.into_iter().enumerate().filter(|(number, _)| which.contains(number)).map(|(_, at)| at) {
        bytes[at..at + length].copy_from_slice(&other);
    }
    let body = BASE64.encode(&bytes);
    let lines: Vec<&str> = body.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n", lines.join("\n"))
}

#[test]
fn a_login_key_of_two_halves_hands_out_no_signature() {
    for (arguments, length) in [
        (&["-t", "ed25519"][..], 32),
        (&["-t", "ecdsa", "-b", "384"], 97),
        (&["-t", "ecdsa", "-b", "521"], 133),
        (&["-t", "rsa", "-b", "3072"], 384),
    ] {
        let bench = Bench::new();
        let file = with_other_half(&bench, arguments, length, 0..usize::MAX);
        let signed = LoginKey::parse(file.as_bytes(), None).and_then(|key| key.sign(LOGIN_NAMESPACE, b"challenge"));
        match (arguments[1], signed) {
            // The library signs with these, and only we look at the outcome.
            ("ecdsa", signed) => assert_eq!(signed, Err(PrivateKeyError::Signature(SigError::Wrong)), "{arguments:?}"),
            (_, signed) => assert!(signed.is_err(), "{arguments:?}"),
        }
        let whole = LoginKey::parse(bench.read("mine").as_bytes(), None).unwrap();
        whole.sign(LOGIN_NAMESPACE, b"challenge").unwrap();
    }
}

#[test]
fn a_ca_key_or_session_key_of_two_halves_is_not_taken() {
    let bench = Bench::new();
    for places in [0..usize::MAX, 0..1, 1..2, 2..3] {
        let file = with_other_half(&bench, &["-t", "ed25519"], 32, places.clone());
        let path = bench.write("forged", &file);
        let opened = FileSigner::open(&Settings { path, passphrase_path: None }, Purpose::User);
        let why = opened.err().unwrap().to_string();
        assert!(why.contains("not a private key in OpenSSH's format"), "{places:?}: {why}");
        assert_eq!(SessionKey::parse(file.as_bytes()).err(), Some(PrivateKeyError::Malformed), "{places:?}");
        let whole = bench.path("mine");
        FileSigner::open(&Settings { path: whole, passphrase_path: None }, Purpose::User).unwrap();
    }
}
