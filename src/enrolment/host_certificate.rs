//! What a host certificate must be before it is put where sshd shows it. Pure.
//!
//! What for: a certificate with a name too many shows clients another host, and one by another CA key, or whose window is over, shows them
//! nothing that they trust.
//!
//! What not: that its signature is by the key that it names; [`Certificate`] is none without that.

use std::collections::BTreeSet;

use crate::name::{HostName, Principal};
use crate::ssh::cert::{Certificate, Purpose};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

/// What the host certificates of a host must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    host: HostName,
    names: BTreeSet<Principal>,
    ca: Option<Fingerprint>,
    now: Timestamp,
}

impl Expected {
    /// Of this host with these further names, by this CA key, at this moment. A service that is older than this program names no CA key;
    /// then it may be any.
    ///
    /// # Errors
    /// In words, when one of them is none.
    pub fn new(host: &HostName, further: &[String], ca: Option<&str>, now: Timestamp) -> Result<Self, String> {
        let told = |why: &dyn std::fmt::Display| format!("the service names what is none: {why}");
        let further = further.iter().map(|name| HostName::parse(name).map(|name| Principal::of_host(&name)));
        let mut names = further.collect::<Result<BTreeSet<_>, _>>().map_err(|why| told(&why))?;
        names.insert(Principal::of_host(host));
        let ca = ca.map(Fingerprint::parse).transpose().map_err(|why| told(&why))?;
        Ok(Self { host: host.clone(), names, ca, now })
    }

    /// The certificate in this line, if it is what one for this key of the host must be.
    ///
    /// # Errors
    /// In words: why not.
    pub fn check(&self, line: &str, key: &PublicKey) -> Result<Certificate, String> {
        let refused = |why: &dyn std::fmt::Display| format!("a host certificate is refused: {why}");
        let certificate = Certificate::parse_openssh(line.trim()).map_err(|why| refused(&why))?;
        let (tbs, ca) = (certificate.tbs(), certificate.ca_fingerprint());
        let fields = tbs.fields();
        if tbs.purpose() != Purpose::Host || tbs.subject() != key {
            return Err(refused(&"it is none for this host key"));
        }
        if fields.principals != self.names || fields.key_id.host() != Some(&self.host) {
            let names: Vec<&str> = fields.principals.iter().map(Principal::as_str).collect();
            return Err(refused(&format!("its names ({}) are not those of this host", names.join(", "))));
        }
        if self.ca.is_some_and(|expected| expected != ca) {
            return Err(refused(&format!("{ca}, by which it is, is not the CA key that the service names for hosts")));
        }
        if !fields.window.contains(self.now) {
            let (start, end) = (fields.window.start(), fields.window.end());
            return Err(refused(&format!(
                "it is valid from {start} to {end}, and by this host's clock it is {}",
                self.now
            )));
        }
        Ok(certificate)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::name::Serial;
    use crate::ssh::cert::{Fields, KeyId, Options, TbsCert};
    use crate::ssh::private::SessionKey;
    use crate::time::Window;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix(1_767_607_200 + seconds).unwrap()
    }

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    /// A certificate of `of` with these names, in a window of 1000 seconds, for the key of one seed by that of another.
    fn line(of: &str, names: &[&str], start: u64, (subject, ca): (u8, u8)) -> String {
        let fields = Fields {
            serial: Serial::new(7).unwrap(),
            key_id: KeyId::of_host(&name(of)).unwrap(),
            principals: names.iter().map(|one| Principal::of_host(&name(one))).collect(),
            window: Window::new(at(start), at(start + 1_000)).unwrap(),
            options: Options::default(),
        };
        signed(fields, subject, ca)
    }

    fn signed(fields: Fields, subject: u8, ca: u8) -> String {
        let (subject, signs) = (SessionKey::generate([subject; 32]), SigningKey::from_bytes(&[ca; 32]));
        let tbs =
            TbsCert::new(fields, subject.public_key(), SessionKey::generate([ca; 32]).public_key(), [9; 32]).unwrap();
        let signature = signs.sign(tbs.bytes()).to_bytes();
        let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let blob = [string(b"ssh-ed25519"), string(&signature)].concat();
        Certificate::assemble(tbs, &blob).unwrap().to_openssh()
    }

    #[test]
    fn a_host_certificate_has_the_hosts_names_and_no_other_its_key_its_ca_and_a_window_that_is_now() {
        let key = SessionKey::generate([1; 32]).public_key().clone();
        let ca = SessionKey::generate([3; 32]).public_key().fingerprint().to_string();
        let expected = Expected::new(&name("web-1"), &["www".to_owned()], Some(&ca), at(500)).unwrap();
        let is_taken = |line: &str| expected.check(line, &key).is_ok();
        assert!(is_taken(&line("web-1", &["web-1", "www"], 0, (1, 3))));
        for (why, wrong) in [
            ("a name too many", line("web-1", &["web-1", "www", "db-1"], 0, (1, 3))),
            ("a name too few", line("web-1", &["web-1"], 0, (1, 3))),
            ("another host's, of whose names ours are", line("www", &["web-1", "www"], 0, (1, 3))),
            ("another key", line("web-1", &["web-1", "www"], 0, (2, 3))),
            ("another CA", line("web-1", &["web-1", "www"], 0, (1, 4))),
            ("not yet", line("web-1", &["web-1", "www"], 501, (1, 3))),
            ("cut", line("web-1", &["web-1", "www"], 0, (1, 3)).chars().take(200).collect()),
        ] {
            assert!(!is_taken(&wrong), "{why}");
        }
        let later = Expected { now: at(1_000), ..expected.clone() };
        assert!(later.check(&line("web-1", &["web-1", "www"], 0, (1, 3)), &key).is_err(), "it is over");
        let older = Expected { ca: None, ..expected };
        assert!(older.check(&line("web-1", &["web-1", "www"], 0, (1, 4)), &key).is_ok(), "no CA key is named");
        assert!(Expected::new(&name("web-1"), &["a b".to_owned()], None, at(0)).is_err());
        assert!(Expected::new(&name("web-1"), &[], Some("SHA256:x"), at(0)).is_err());
    }

    #[test]
    fn a_certificate_for_people_is_none_for_hosts() {
        let key = SessionKey::generate([1; 32]).public_key().clone();
        let fields = Fields {
            serial: Serial::new(7).unwrap(),
            key_id: KeyId::of_check(&name("web-1")).unwrap(),
            principals: BTreeSet::from([crate::ssh::host::check_principal(&name("web-1")).unwrap()]),
            window: Window::new(at(0), at(100)).unwrap(),
            options: Options {
                force_command: crate::ssh::cert::ForceCommand::parse("true").ok(),
                ..Options::default()
            },
        };
        let expected = Expected::new(&name("web-1"), &[], None, at(50)).unwrap();
        assert!(expected.check(&signed(fields, 1, 3), &key).unwrap_err().contains("none for this host key"));
    }
}
