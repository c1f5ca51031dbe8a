//! Security keys (`sk-`), by an authenticator in software: touch is required, and certificates over them are readable.

use std::process::Command;

use hallpass::signer::Signer as _;
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::{Certificate, Fields, Options, TbsCert};
use hallpass::ssh::sig::{LOGIN_NAMESPACE, SigError, SshSignature};
use sha2::{Digest as _, Sha256};
use signature::Signer as _;

use super::certificates::{ca, fields};
use super::{Bench, list_certificate, string, try_run};

const MESSAGE: &[u8] = b"a challenge";
pub(crate) const TOUCHED: u8 = 0x01;
const VERIFIED: u8 = 0x05;

/// What a security key does (PROTOCOL.u2f), without the key.
pub(crate) enum Authenticator {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl Authenticator {
    pub(crate) fn both() -> [Self; 2] {
        let p256 = p256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap();
        [Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[5; 32])), Self::P256(p256)]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "sk-ssh-ed25519@openssh.com",
            Self::P256(_) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        let numbers = match self {
            Self::Ed25519(key) => string(key.verifying_key().as_bytes()),
            Self::P256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                [string("nistp256"), string(point.as_bytes())].concat()
            }
        };
        PublicKey::parse_blob(&[string(self.name()), numbers, string("ssh:")].concat()).unwrap()
    }

    pub(crate) fn sign(&self, application: &str, flags: u8, counter: u32, data: &[u8]) -> Vec<u8> {
        let tail = [&[flags], &counter.to_be_bytes()[..]].concat();
        let signed = [&Sha256::digest(application)[..], &tail, &Sha256::digest(data)].concat();
        let signature = match self {
            Self::Ed25519(key) => key.sign(&signed).to_bytes().to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(&signed);
                let (r, s) = signature.split_bytes();
                [mpint(&r), mpint(&s)].concat()
            }
        };
        [string(self.name()), string(signature), tail].concat()
    }

    fn login(&self, application: &str, flags: u8) -> String {
        let data = SshSignature::to_be_signed(LOGIN_NAMESPACE, MESSAGE);
        SshSignature::armour(&self.public_key(), LOGIN_NAMESPACE, &self.sign(application, flags, 7, &data)).unwrap()
    }
}

fn mpint(digits: &[u8]) -> Vec<u8> {
    let start = digits.iter().position(|d| *d != 0).unwrap();
    let digits = &digits[start..];
    string(if digits[0] >= 0x80 { [&[0], digits].concat() } else { digits.to_vec() })
}

fn check(key: &PublicKey, armoured: &str) -> Result<(), SigError> {
    SshSignature::parse(armoured)?.check(key, LOGIN_NAMESPACE, MESSAGE)
}

#[test]
fn a_touched_security_key_logs_in_and_ssh_keygen_agrees() {
    let bench = Bench::new();
    for device in Authenticator::both() {
        for flags in [TOUCHED, VERIFIED] {
            let armoured = device.login("ssh:", flags);
            assert_eq!(check(&device.public_key(), &armoured), Ok(()), "{}", device.name());
            let path = bench.write("message.sig", armoured);
            let mut command = Command::new("ssh-keygen");
            command.args(["-Y", "check-novalidate", "-n", LOGIN_NAMESPACE, "-s"]).arg(path);
            assert!(try_run(&mut command, MESSAGE).status.success(), "{}", device.name());
        }
    }
}

#[test]
fn an_untouched_security_key_does_not_count_although_its_signature_verifies() {
    for device in Authenticator::both() {
        for flags in [0, 0x04, 0xfe] {
            assert_eq!(
                check(&device.public_key(), &device.login("ssh:", flags)),
                Err(SigError::NotTouched),
                "{flags:#x}"
            );
        }
    }
}

#[test]
fn flags_counter_and_application_are_signed() {
    for device in Authenticator::both() {
        let key = device.public_key();
        assert_eq!(check(&key, &device.login("https://example.com", TOUCHED)), Err(SigError::Wrong));
        let data = SshSignature::to_be_signed(LOGIN_NAMESPACE, MESSAGE);
        let untouched = device.sign("ssh:", 0, 7, &data);
        for (back, value) in [(5, TOUCHED), (1, 8)] {
            let mut forged = untouched.clone();
            let place = forged.len() - back;
            forged[place] = value;
            let armoured = SshSignature::armour(&key, LOGIN_NAMESPACE, &forged).unwrap();
            assert_eq!(check(&key, &armoured), Err(SigError::Wrong));
        }
        let bare = &untouched[..untouched.len() - 5];
        assert_eq!(SshSignature::armour(&key, LOGIN_NAMESPACE, bare), Err(SigError::Malformed));
    }
}

#[test]
fn a_security_key_s_public_line_and_certificate_are_read_by_ssh_keygen() {
    let bench = Bench::new();
    let ca = ca(&bench);
    for device in Authenticator::both() {
        let key = device.public_key();
        assert_eq!(PublicKey::parse_openssh(&format!("{} me", key.to_openssh())), Ok(key.clone()));
        let options = Options { verify_required: true, ..Options::default() };
        let tbs = TbsCert::new(Fields { options, ..fields() }, &key, ca.public_key(), [7; 32]).unwrap();
        assert_eq!(TbsCert::parse(tbs.bytes()), Ok(tbs.clone()));
        let signature = ca.sign(&tbs).unwrap();
        let certificate = Certificate::assemble(tbs, &signature).unwrap();
        let listed = list_certificate(&bench.write("id-cert.pub", certificate.to_openssh()));
        let (name, _) = device.name().split_once('@').unwrap();
        assert_eq!(listed[0], format!("Type: {name}-cert-v01@openssh.com user certificate"));
        assert!(listed[1].ends_with(&key.fingerprint().to_string()), "{}", listed[1]);
        assert_eq!(listed[9..], ["Critical Options:", "verify-required", "Extensions: (none)"].map(str::to_owned));
        assert_eq!(Certificate::parse_openssh(&certificate.to_openssh()), Ok(certificate));
    }
}

#[test]
fn an_application_that_could_not_be_shown_is_refused() {
    let blob = Authenticator::both()[0].public_key().blob().to_vec();
    let start = &blob[..blob.len() - 8];
    for application in ["", "a b", "ssh:\u{1b}", &"x".repeat(257)] {
        assert!(PublicKey::parse_blob(&[start, &string(application)].concat()).is_err(), "{application:?}");
    }
    assert!(PublicKey::parse_blob(&[start, &string("ssh:laptop")].concat()).is_ok());
}
