//! Certificates: the strict reader, the skimming one and the ssh-key crate must see the same, and the guard believes nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey};
use hallpass::host::auth_info::AuthInfo;
use hallpass::host::judgement::{Judgement, Rules, first_of_ours, judge};
use hallpass::host::settings::{Others, Scope, Settings};
use hallpass::name::{HostName, Principal, Serial};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::skim::{Skimmed, wire_type};
use hallpass::ssh::cert::{CertError, Certificate, Extension, Fields, KeyId, Options, TbsCert};
use hallpass::ssh::private::SessionKey;
use hallpass::time::{Timestamp, Window};

use super::told;

/// The CA key that signs what is made here, and the seeds. No secret.
pub const CA_SEED: [u8; 32] = [9; 32];

/// The moment at which the guard judges: inside the seeds' windows, 2026-01-05T10:00:00Z.
pub const NOW: u64 = 1_767_607_200;

/// The longest window of any certificate, in seconds: 366 days and one for backdating.
const WINDOW_MAX: u64 = 367 * 86_400;

static CA: LazyLock<PublicKey> = LazyLock::new(|| SessionKey::generate(CA_SEED).public_key().clone());

/// A wire form of a certificate, signed or not, or a line of one.
pub fn certificate(data: &[u8]) -> bool {
    let unsigned = TbsCert::parse(data);
    let signed = Certificate::parse_blob(data);
    let line = std::str::from_utf8(data).ok().map(Certificate::parse_openssh);
    let errors = [unsigned.as_ref().err(), signed.as_ref().err(), line.as_ref().and_then(|line| line.as_ref().err())];
    errors.into_iter().flatten().for_each(|error| told(&error.to_string(), 200));
    let mut is_taken = false;
    if let Ok(tbs) = &unsigned {
        assert_eq!(tbs.bytes(), data, "one spelling");
        is_taken |= sound(tbs);
    }
    match &signed {
        Ok(certificate) => {
            assert_eq!(certificate.blob(), data, "one spelling");
            is_taken |= whole(certificate) && sound(certificate.tbs());
        }
        // All but the signature is as it should be.
        Err(CertError::Signature) => is_taken |= without_signature(data).is_some_and(|tbs| sound(&tbs)),
        Err(CertError::Malformed(_) | CertError::Lint(_)) => {}
    }
    if let Some(Ok(certificate)) = &line {
        is_taken |= whole(certificate);
    }
    is_taken
}

/// What is there before the last string.
fn without_signature(data: &[u8]) -> Option<TbsCert> {
    (0..2_000).find_map(|length| {
        let start = data.len().checked_sub(length + 4)?;
        let said = data.get(start..start + 4)?.try_into().ok().map(u32::from_be_bytes)?;
        if said as usize == length { TbsCert::parse(&data[..start]).ok() } else { None }
    })
}

/// What holds of everything that a CA key could be asked to sign (promises P1 and P9), told without the linter's help.
fn sound(tbs: &TbsCert) -> bool {
    let fields = tbs.fields();
    let principals: Vec<&str> = fields.principals.iter().map(Principal::as_str).collect();
    assert!((1..=256).contains(&principals.len()));
    assert!(principals.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_graphic() && b != b'*')));
    assert!((1..=WINDOW_MAX).contains(&(fields.window.end().unix() - fields.window.start().unix())));
    assert!(fields.serial.number() > 0 && fields.key_id.as_str().starts_with("hallpass/"));
    if tbs.subject() == &*CA {
        return true;
    }
    // The same from our CA is one that can be made, signed and read by all three readers.
    let certificate = issue(fields.clone(), tbs.subject());
    assert_eq!(certificate.tbs().fields(), fields);
    whole(&certificate)
}

/// A certificate by our CA.
///
/// # Panics
/// When it can't be made, or the readers disagree about it.
pub fn issue(fields: Fields, subject: &PublicKey) -> Certificate {
    let tbs = TbsCert::new(fields, subject, &CA, [7; 32]).expect("what was read can be made");
    let signature = SigningKey::from_bytes(&CA_SEED).sign(tbs.bytes()).to_bytes();
    let signature = [&11_u32.to_be_bytes()[..], b"ssh-ed25519", &64_u32.to_be_bytes(), &signature].concat();
    Certificate::assemble(tbs, &signature).expect("the readers agree")
}

/// A person's certificate: the one that seeds are made of.
pub fn example() -> Certificate {
    let window = |text| Timestamp::parse(text).expect("a time");
    let fields = Fields {
        serial: Serial::new(42).expect("a serial"),
        key_id: KeyId::parse("hallpass/7K3F9QX2/alice@example.com").expect("a key id"),
        principals: ["deploy@web-1", "deploy@web-2"].map(|p| Principal::parse(p).expect("a principal")).into(),
        window: Window::new(window("2026-01-05T09:59:30Z"), window("2026-01-05T10:30:00Z")).expect("a window"),
        options: Options { permits: [Extension::Pty].into(), ..Options::default() },
    };
    issue(fields, SessionKey::generate([1; 32]).public_key())
}

/// What holds of a certificate whose signature verifies.
fn whole(certificate: &Certificate) -> bool {
    assert_eq!(Certificate::parse_blob(certificate.blob()).as_ref(), Ok(certificate));
    let line = certificate.to_openssh();
    told(&line, 300_000);
    assert_eq!(Certificate::parse_openssh(&format!("{line}\n")).as_ref(), Ok(certificate));
    let skimmed = Skimmed::read(certificate.blob()).expect("what the strict reader takes, the skimming one does");
    let ca = certificate.tbs().ca();
    assert!(skimmed.is_by(ca) && skimmed.says_hallpass());
    assert_eq!(skimmed.is_by(&CA), ca == &*CA, "another CA's certificate is not ours");
    true
}

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    settings: Settings {
        name: HostName::parse("web-1").expect("a host"),
        scope: Scope::Host,
        tags: BTreeMap::new(),
        trust: PathBuf::new(),
        ended: PathBuf::new(),
        state: PathBuf::new(),
        spool: PathBuf::new(),
        others: Others::Allow,
        refuse_accounts: BTreeSet::new(),
    },
    keys: Ok(vec![CA.clone()]),
    ended: Ok(BTreeSet::new()),
});

/// The text of `SSH_AUTH_INFO_0`, as sshd gives it to the guard.
pub fn auth_info(data: &[u8]) -> bool {
    let read = AuthInfo::parse(data);
    let now = Timestamp::from_unix(NOW).expect("a time");
    let judged = judge(Some(data), "deploy", &Ok(RULES.clone()), now);
    if let Err(denial) = &judged {
        told(&denial.to_string(), 1_000);
    }
    let info = match read {
        Ok(info) => info,
        Err(why) => {
            told(&why.to_string(), 200);
            assert!(judged.is_err(), "what can't be read lets nobody in");
            return false;
        }
    };
    let text = std::str::from_utf8(data).expect("what was read is text");
    assert_eq!(info.certificates, found(text), "a certificate was overlooked, or seen twice");
    // Whatever the guard takes for ours verifies, and the judgement rests on one that is in its window and names the account.
    let ours = |blob: &Vec<u8>| Certificate::parse_blob(blob).ok().filter(|one| one.tbs().ca() == &*CA);
    let ours: Vec<Certificate> = info.certificates.iter().filter_map(ours).collect();
    let is_by_ca = |blob: &Vec<u8>| Skimmed::read(blob).is_some_and(|skimmed| skimmed.is_by(&CA));
    match judged {
        Ok(Judgement::Governed(governed)) => {
            let basis = ours.iter().find(|one| one.tbs().fields() == &governed.fields).expect("a basis");
            assert!(basis.tbs().fields().window.contains(now) && governed.account.as_str() == "deploy");
            assert!(basis.tbs().fields().principals.iter().any(|one| one.as_str() == "deploy@web-1"));
        }
        Ok(Judgement::NotOurs) => assert!(!info.certificates.iter().any(is_by_ca), "one of ours went unguarded"),
        Ok(Judgement::Unguarded(_)) => panic!("the rules can be read"),
        Err(_) => {}
    }
    assert_eq!(first_of_ours(Some(data), &RULES).is_some(), !ours.is_empty());
    true
}

/// Every word of the text that is a certificate, by another way than the reader's.
fn found(text: &str) -> Vec<Vec<u8>> {
    let blobs = text.split(['\n', ' ']).filter_map(|word| BASE64.decode(word.as_bytes()).ok());
    blobs.filter(|blob| wire_type(blob).is_some_and(|name| name.contains("-cert"))).collect()
}
