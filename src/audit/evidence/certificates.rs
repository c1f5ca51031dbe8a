//! Every certificate of a period: people's, hosts', and those of hosts' logins to themselves, each with what was written of its signing.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::requests::{Mark, joined, text};
use super::table::Csv;
use crate::audit::entry::Entry;
use crate::audit::event::Event;
use crate::audit::host_event::HostEvent;
use crate::name::{HostName, PersonName, PolicyVersion, RequestId, Serial};
use crate::ssh::Fingerprint;
use crate::ssh::cert::TbsCert;
use crate::ssh::known::KnownKeys;
use crate::time::Window;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum For {
    /// A person's first of a request.
    Person,
    /// A person's, for more time.
    Extension,
    /// A host's key.
    Host,
    /// A host's login to itself.
    Check,
}

impl For {
    /// `person`, `extension`, `host`, `check`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Extension => "extension",
            Self::Host => "host",
            Self::Check => "check",
        }
    }
}

/// A certificate, from when it was about to be signed.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) of: For,
    pub(super) mark: Mark,
    pub(super) request: Option<RequestId>,
    pub(super) who: Option<PersonName>,
    host: Option<HostName>,
    principals: String,
    pub(super) window: Window,
    ca: Fingerprint,
    policy: Option<PolicyVersion>,
    /// The outcome's entry, and the finished certificate's SHA-256.
    pub(super) signed: Option<(u64, String)>,
}

/// Certificates by their serials.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    all: BTreeMap<u64, Certificate>,
    /// Their keys, so that each is judged once.
    known: KnownKeys,
}

impl Certificates {
    /// Takes one that is about to be signed; `extends` whether its request had one before.
    pub(super) fn begin(&mut self, entry: &Entry, extends: bool) {
        let mark = Mark::of(entry);
        let certificate = if let Event::CertificateToBeSigned { request, person, ca, window, tbs, policy, .. } =
            &entry.event
        {
            Certificate {
                of: if extends { For::Extension } else { For::Person },
                mark,
                request: Some(*request),
                who: Some(person.clone()),
                host: None,
                principals: principals(tbs, &mut self.known),
                window: *window,
                ca: *ca,
                policy: Some(*policy),
                signed: None,
            }
        } else if let Event::Host(HostEvent::HostCertificateToBeSigned { host, ca, window, tbs, .. }) = &entry.event {
            Certificate::of_host(For::Host, (mark, host), (*ca, *window), principals(tbs, &mut self.known))
        } else if let Event::Host(HostEvent::CheckCertificateToBeSigned { host, ca, window, tbs, .. }) = &entry.event {
            Certificate::of_host(For::Check, (mark, host), (*ca, *window), principals(tbs, &mut self.known))
        } else {
            return;
        };
        self.all.insert(entry.index, certificate);
    }

    /// Takes what became of one.
    pub(super) fn end(&mut self, entry: &Entry) {
        let Some((serial, sha256)) = signed(&entry.event) else { return };
        if let Some(certificate) = self.all.get_mut(&serial.number()) {
            certificate.signed = Some((entry.index, sha256.to_owned()));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Certificate)> {
        self.all.iter().map(|(serial, certificate)| (*serial, certificate))
    }

    pub(super) fn count(&self, of: For) -> usize {
        self.all.values().filter(|certificate| certificate.of == of).count()
    }

    pub(super) fn without_outcome(&self) -> usize {
        self.all.values().filter(|certificate| certificate.signed.is_none()).count()
    }

    pub(super) fn csv(&self) -> (String, usize) {
        let mut csv = Csv::new([
            "serial",
            "for",
            "at",
            "request",
            "who",
            "host",
            "principals",
            "valid_from",
            "valid_until",
            "ca",
            "policy",
            "signed_entry",
            "sha256",
        ]);
        for (serial, certificate) in self.iter() {
            let Certificate { of, mark, request, who, host, principals, window, ca, policy, signed } = certificate;
            csv.row([
                serial.to_string(),
                of.word().to_owned(),
                mark.at.to_string(),
                text(*request),
                text(who.as_ref()),
                text(host.as_ref()),
                principals.clone(),
                window.start().to_string(),
                window.end().to_string(),
                ca.to_string(),
                text(*policy),
                text(signed.as_ref().map(|(entry, _)| entry)),
                text(signed.as_ref().map(|(_, sha256)| sha256)),
            ]);
        }
        csv.finish()
    }
}

impl Certificate {
    fn of_host(
        of: For,
        (mark, host): (Mark, &HostName),
        (ca, window): (Fingerprint, Window),
        principals: String,
    ) -> Self {
        let host = Some(host.clone());
        Self { of, mark, request: None, who: None, host, principals, window, ca, policy: None, signed: None }
    }
}

/// The principals in bytes to be signed, which the verification has read as well.
fn principals(tbs: &[u8], known: &mut KnownKeys) -> String {
    TbsCert::parse_knowing(tbs, known).map(|tbs| joined(&tbs.fields().principals)).unwrap_or_default()
}

/// The serial of a certificate that was signed, and the finished one's SHA-256.
fn signed(event: &Event) -> Option<(Serial, &str)> {
    if let Event::CertificateSigned { serial, sha256, .. }
    | Event::Host(HostEvent::HostCertificateSigned { serial, sha256, .. })
    | Event::Host(HostEvent::CheckCertificateSigned { serial, sha256, .. }) = event
    {
        Some((*serial, sha256))
    } else {
        None
    }
}
