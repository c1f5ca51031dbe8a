//! Public keys, signatures and what an agent answers.

use std::sync::LazyLock;

use hallpass::ssh::agent::{is_done, lists, parse_identities, parse_signature};
use hallpass::ssh::cert::{Certificate, verify_ca_signature};
use hallpass::ssh::sig::{APPROVAL_NAMESPACE, LOGIN_NAMESPACE, SshSignature};
use hallpass::ssh::{Fingerprint, PublicKey, token};

use super::{certificates, told};

/// What the seeds' signatures are over.
pub const MESSAGE: &[u8] = b"hallpass fuzz\n";

/// One key of each kind, made by `ssh-keygen` (those of security keys by hand).
const LINES: [&str; 7] = [
    include_str!("../seeds/public_key/ed25519"),
    include_str!("../seeds/public_key/ecdsa256"),
    include_str!("../seeds/public_key/ecdsa384"),
    include_str!("../seeds/public_key/ecdsa521"),
    include_str!("../seeds/public_key/rsa"),
    include_str!("../seeds/public_key/sk_ed25519"),
    include_str!("../seeds/public_key/sk_ecdsa"),
];

static KEYS: LazyLock<Vec<PublicKey>> =
    LazyLock::new(|| LINES.iter().map(|line| PublicKey::parse_openssh(line).expect("a seed")).collect());

static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(certificates::example);

/// A public key: a line or a wire form.
pub fn public_key(data: &[u8]) -> bool {
    let line = std::str::from_utf8(data).ok().map(PublicKey::parse_openssh);
    let blob = PublicKey::parse_blob(data);
    if let Ok(key) = &blob {
        assert_eq!(key.blob(), data, "one spelling");
    }
    let mut is_taken = false;
    for read in line.into_iter().chain([blob]) {
        match read {
            Ok(key) => is_taken |= is_sound(&key),
            Err(error) => told(&error.to_string(), 1_000),
        }
    }
    is_taken
}

fn is_sound(key: &PublicKey) -> bool {
    assert_eq!(PublicKey::parse_blob(key.blob()).as_ref(), Ok(key));
    let line = key.to_openssh();
    told(&line, 30_000);
    assert!(line.starts_with(key.algorithm().name()));
    assert_eq!(PublicKey::parse_openssh(&line).as_ref(), Ok(key));
    assert_eq!(PublicKey::parse_openssh(&format!("{line} a comment\r\n")).as_ref(), Ok(key));
    assert!(PublicKey::parse_openssh(&format!("restrict {line}")).is_err(), "options are refused");
    let fingerprint = key.fingerprint();
    assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Ok(fingerprint));
    told(&format!("{key:?}"), 200);
    true
}

/// A signature: armoured, or only what an agent or token answers.
pub fn signature(data: &[u8]) -> bool {
    let mut is_taken = false;
    if let Ok(text) = std::str::from_utf8(data) {
        match SshSignature::parse(text) {
            Ok(signature) => is_taken |= is_read(&signature),
            Err(error) => told(&error.to_string(), 200),
        }
    }
    for key in KEYS.iter() {
        if let Ok(armoured) = SshSignature::armour(key, LOGIN_NAMESPACE, data) {
            let signature = SshSignature::parse(&armoured).expect("what is armoured is read");
            is_taken |= is_read(&signature);
        }
        // Over a message that nobody has signed.
        assert!(verify_ca_signature(key, data, b"hallpass fuzz, another").is_err());
        if let Some(blob) = token::signature(key.algorithm(), data) {
            assert!(SshSignature::armour(key, LOGIN_NAMESPACE, &blob).is_ok(), "a token's answer has a form");
            assert!(verify_ca_signature(key, &blob, b"hallpass fuzz, another").is_err());
        }
    }
    is_taken
}

/// Written again, it is the same; where it counts, it does so for one key, purpose and message.
fn is_read(signature: &SshSignature) -> bool {
    let armoured = signature.to_armoured();
    told(&armoured, 40_000);
    assert_eq!(SshSignature::parse(&armoured).as_ref(), Ok(signature));
    let by: Vec<&PublicKey> =
        KEYS.iter().filter(|key| signature.check(key, LOGIN_NAMESPACE, MESSAGE).is_ok()).collect();
    assert!(by.len() <= 1, "a signature is by one key");
    for key in KEYS.iter() {
        assert!(signature.check(key, APPROVAL_NAMESPACE, MESSAGE).is_err());
        assert!(signature.check(key, LOGIN_NAMESPACE, b"hallpass fuzz, another").is_err());
    }
    true
}

/// The body of an agent's answer.
pub fn agent(data: &[u8]) -> bool {
    let listed = lists(data, &CERTIFICATE);
    let identities = parse_identities(data);
    assert_eq!(listed.is_ok(), identities.is_ok(), "both read the same answer");
    let mut is_taken = is_done(data);
    if let Ok(identities) = &identities {
        assert!(identities.len() <= data.len() / 8, "each takes its bytes");
        for (key, comment) in identities {
            told(comment, data.len() * 3);
            is_taken |= is_sound(key);
        }
    }
    if let Ok(Some(blob)) = parse_signature(data) {
        let length = u32::try_from(blob.len()).expect("a frame is short");
        assert_eq!([&[14], &length.to_be_bytes()[..], &blob].concat(), data, "one spelling");
        is_taken = true;
    }
    is_taken || listed == Ok(true)
}
