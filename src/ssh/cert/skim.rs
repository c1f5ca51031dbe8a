//! Reads just enough of *any* user or host certificate to say whose it is.
//!
//! What for: the guard on a host must know whether a certificate that `sshd` accepted was signed by our CA, also where [`super::Certificate`]
//! refuses to read it: sshd takes some that the strict reader does not (OPENSSH facts 3.13), and skipping those would
//! be the way around the guard.
//!
//! What not: nothing is verified and nothing here makes a certificate good. Ours must then pass the strict reader.
//!
//! Invariants: the field order of PROTOCOL.certkeys for every type that sshd knows, to the last byte; what does not fit is `None`,
//! which callers treat as a refusal.

use super::super::encoding::Reader;
use super::super::{PublicKey, is_certificate_name};

/// How many strings of key material each type has behind its nonce (PROTOCOL.certkeys, PROTOCOL.u2f).
const TYPES: [(&str, usize); 8] = [
    ("ssh-ed25519-cert-v01@openssh.com", 1),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", 2),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", 2),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", 2),
    ("ssh-rsa-cert-v01@openssh.com", 2),
    ("ssh-dss-cert-v01@openssh.com", 4),
    ("sk-ssh-ed25519-cert-v01@openssh.com", 2),
    ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", 3),
];

/// What a certificate says of its origin, unverified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skimmed<'a> {
    ca: &'a [u8],
    key_id: &'a [u8],
}

impl<'a> Skimmed<'a> {
    /// Reads it; `None` for what is not a certificate of a type that is known here, whole and with nothing behind it.
    #[must_use]
    pub fn read(blob: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(blob);
        let name = reader.text()?;
        let (_, key_fields) = TYPES.into_iter().find(|(known, _)| *known == name)?;
        reader.string()?; // nonce
        for _ in 0..key_fields {
            reader.string()?;
        }
        reader.u64()?; // serial
        reader.u32()?; // user or host
        let key_id = reader.string()?;
        reader.string()?; // principals
        reader.u64()?; // valid after
        reader.u64()?; // valid before
        reader.string()?; // critical options
        reader.string()?; // extensions
        reader.string()?; // reserved
        let ca = reader.string()?;
        reader.string()?; // signature
        reader.is_at_end().then_some(Self { ca, key_id })
    }

    /// Whether it names `key` as its CA: the same algorithm and numbers. Leading zeros do not count, as they do not for
    /// sshd: a second spelling of an RSA key is the same key.
    #[must_use]
    pub fn is_by(&self, key: &PublicKey) -> bool {
        let (mut its, mut ours) = (Reader::new(self.ca), Reader::new(key.blob()));
        loop {
            if its.is_at_end() || ours.is_at_end() {
                return its.is_at_end() && ours.is_at_end();
            }
            match (its.string(), ours.string()) {
                (Some(its), Some(ours)) if without_zeros(its) == without_zeros(ours) => {}
                _ => return false,
            }
        }
    }

    /// Whether its key id has the form of ours, whoever signed it.
    #[must_use]
    pub fn says_hallpass(&self) -> bool {
        self.key_id.starts_with(b"hallpass/")
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// Whether `name` is that of a certificate type, known here or not.
#[must_use]
pub fn is_certificate_type(name: &str) -> bool {
    is_certificate_name(name)
}

/// The type that a key or certificate names in its wire form.
#[must_use]
pub fn wire_type(blob: &[u8]) -> Option<&str> {
    Reader::new(blob).text()
}
