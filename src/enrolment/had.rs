//! The newest trust bundle that this host has had, and whether another one may follow it.
//!
//! What for: every bundle is signed by the log key, also an old one, and that of another CA. A host takes none that is older than it has had
//! (I-23), and none of another user CA than its own, unless the log key says that it has gone over to that one.
//!
//! What not: whether a bundle is signed ([`Bundle::open`]), and where it is written (`daemon::install`, `enrol`).
//!
//! Invariants: a move that the host has had before does not count a second time: it must be newer than every bundle so far. What is remembered
//! is of one log key; of another log's entries, the numbers say nothing.

use std::path::Path;

use crate::durable;
use crate::name::{CaName, HostName};
use crate::note::NoteVerifier;
use crate::ssh::belonging::Belonging;
use crate::ssh::bundle::Bundle;

/// The file below `places::MEMORY` in which it is.
pub const NAME: &str = "bundle-version";

/// What is remembered of the newest bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Had {
    /// Its version.
    pub version: u64,
    /// Its CA; not known of a bundle that an earlier hallpass took.
    pub ca: Option<CaName>,
    /// The log key that has signed it, as text; not known either.
    log_key: Option<String>,
}

/// Who wants a bundle, and what it goes by.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The host.
    pub host: &'a HostName,
    /// What the service says of its CA, signed ([`Belonging`]); nothing, if it is older than this program.
    pub belongs: Option<&'a str>,
    /// The log key.
    pub log_key: &'a NoteVerifier,
}

impl Had {
    /// The first one, or a newer one.
    #[must_use]
    pub fn of(bundle: &Bundle, log_key: &NoteVerifier) -> Self {
        Self { version: bundle.version(), ca: Some(bundle.ca().clone()), log_key: Some(log_key.to_text()) }
    }

    /// What is remembered; nothing where that can't be read.
    #[must_use]
    pub fn load(path: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// Remembers it, unless it is remembered.
    ///
    /// # Errors
    /// In words.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        if Self::load(path).as_ref() == Some(self) {
            return Ok(());
        }
        durable::replace(path, self.to_text().as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    fn to_text(&self) -> String {
        let line = |word: &str, value: Option<&str>| value.map(|value| format!("{word} {value}\n")).unwrap_or_default();
        let (ca, log_key) = (self.ca.as_ref().map(CaName::as_str), self.log_key.as_deref());
        format!("{}\n{}{}", self.version, line("ca", ca), line("log-key", log_key))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let version = lines.next()?.trim().parse().ok()?;
        let behind = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
        let ca = behind("ca ").map(CaName::parse).transpose().ok()?;
        Some(Self { version, ca, log_key: behind("log-key ").map(str::to_owned) })
    }

    /// The newest by this log key: what is remembered, or what is installed.
    #[must_use]
    pub fn newest(remembered: Option<Self>, installed: Option<&Bundle>, log_key: &NoteVerifier) -> Option<Self> {
        let is_its = |had: &Self| had.log_key.as_ref().is_none_or(|key| *key == log_key.to_text());
        let installed = installed.map(|bundle| Self::of(bundle, log_key));
        match (remembered.filter(is_its), installed) {
            (Some(had), Some(there)) if had.version >= there.version => {
                let ca = had.ca.or(there.ca);
                Some(Self { ca, ..had })
            }
            (had, None) => had,
            (_, there) => there,
        }
    }
}

/// Whether this bundle, which is signed, may follow what the host has `had`.
///
/// # Errors
/// In words: why not.
pub fn check(bundle: &Bundle, had: Option<&Had>, wanted: Wanted<'_>) -> Result<(), String> {
    let version = bundle.version();
    if let Some(had) = had.filter(|had| version < had.version) {
        return Err(format!(
            "version {version} comes after version {}; if the service goes on from an older copy of its database, the next step of a CA \
             key there makes a newer one",
            had.version
        ));
    }
    match had.map(|had| (had.version, had.ca.as_ref())) {
        Some((_, Some(ca))) if ca == bundle.ca() => Ok(()),
        // Whose bundle it had is not known: an earlier hallpass took it, and it is lost.
        Some((_, None)) => Ok(()),
        Some((newest, Some(ca))) => belongs(bundle, Some(newest), wanted)
            .map_err(|why| format!("it is of CA {}, and this host is of CA {ca}: {why}", bundle.ca())),
        None => belongs(bundle, None, wanted).map_err(|why| format!("it is of CA {}: {why}", bundle.ca())),
    }
}

/// Whether the log key says that the host is of the bundle's CA, and if it was of another one, that it is so since the newest bundle that it had.
fn belongs(bundle: &Bundle, newest: Option<u64>, wanted: Wanted<'_>) -> Result<(), String> {
    let text = wanted.belongs.ok_or(
        "the service does not show that this host belongs there, which needs a service that is not older than this program: update it first",
    )?;
    let told = Belonging::open(text, wanted.log_key).map_err(|why| format!("what the service shows for it: {why}"))?;
    if told.host != *wanted.host || told.ca != *bundle.ca() {
        return Err(format!("the service shows that {} is of CA {}", told.host, told.ca));
    }
    if newest.is_some_and(|newest| told.since <= newest) || bundle.version() < told.since {
        return Err(format!(
            "what the service shows for it (log entry {}) is no newer than what this host has had",
            told.since
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::NoteSigner;
    use crate::time::Timestamp;

    fn signer() -> NoteSigner {
        NoteSigner::new("hallpass.example.com/log", &[7; 32]).unwrap()
    }

    fn ca(name: &str) -> CaName {
        CaName::parse(name).unwrap()
    }

    fn bundle(name: &str, version: u64) -> Bundle {
        let at = Timestamp::from_unix(1_767_607_200).unwrap();
        Bundle::new(version, at, ("https://hallpass.example.com", &ca(name)), Vec::new()).unwrap()
    }

    fn told(host: &str, name: &str, since: u64) -> String {
        Belonging { host: HostName::parse(host).unwrap(), ca: ca(name), since }.to_text(&signer())
    }

    /// Whether `web-1`, which has `had` this, takes a bundle with what the service shows.
    fn is_taken(bundle: &Bundle, had: Option<&Had>, belongs: Option<&str>) -> bool {
        let (host, signer) = (HostName::parse("web-1").unwrap(), signer());
        check(bundle, had, Wanted { host: &host, belongs, log_key: signer.verifier() }).is_ok()
    }

    #[test]
    fn a_host_takes_the_bundles_of_its_own_ca_and_of_no_other() {
        let had = Had::of(&bundle("prod", 50), signer().verifier());
        assert!(is_taken(&bundle("prod", 50), Some(&had), None) && is_taken(&bundle("prod", 60), Some(&had), None));
        assert!(!is_taken(&bundle("prod", 49), Some(&had), None), "it is older");
        // The default CA's bundle is public, signed, and newer.
        let default = bundle("default", 60);
        for belongs in [
            None,
            Some("garbage".to_owned()),
            // What the service has shown this host, now and before, and shows others.
            Some(told("web-1", "prod", 40)),
            Some(told("web-1", "default", 0)),
            Some(told("web-1", "default", 50)),
            Some(told("web-2", "default", 55)),
            Some(told("web-1", "test", 55)),
            // Newer than the bundle: that is not yet the one of after the move.
            Some(told("web-1", "default", 61)),
            Some(told("web-1", "default", 55).replace("55", "56")),
        ] {
            assert!(!is_taken(&default, Some(&had), belongs.as_deref()), "{belongs:?}");
        }
        for since in [51, 55, 60] {
            assert!(is_taken(&default, Some(&had), Some(&told("web-1", "default", since))), "it has gone over");
        }
    }

    #[test]
    fn a_host_that_has_had_none_takes_the_one_that_is_shown_to_be_its() {
        assert!(is_taken(&bundle("prod", 60), None, Some(&told("web-1", "prod", 40))));
        assert!(is_taken(&bundle("default", 60), None, Some(&told("web-1", "default", 0))));
        assert!(!is_taken(&bundle("default", 60), None, Some(&told("web-1", "prod", 40))));
        assert!(!is_taken(&bundle("default", 60), None, None));
    }

    #[test]
    fn what_was_had_is_remembered_and_read_from_what_an_earlier_release_left() {
        let folder = tempfile::tempdir().unwrap();
        let (path, verifier) = (folder.path().join(NAME), signer().verifier().clone());
        assert_eq!(Had::load(&path), None);
        let had = Had::of(&bundle("prod", 50), &verifier);
        had.save(&path).unwrap();
        assert_eq!(Had::load(&path), Some(had.clone()));
        let earlier = Had::parse("50\n").unwrap();
        assert_eq!(earlier, Had { version: 50, ca: None, log_key: None });
        let newest = |had: &Had, installed: Option<&Bundle>| {
            Had::newest(Some(had.clone()), installed, &verifier).map(|had| (had.version, had.ca))
        };
        assert_eq!(newest(&earlier, Some(&bundle("prod", 40))), Some((50, Some(ca("prod")))));
        assert_eq!(newest(&earlier, None), Some((50, None)));
        assert_eq!(newest(&had, Some(&bundle("default", 40))), Some((50, Some(ca("prod")))), "somebody put that there");
        assert_eq!(newest(&had, Some(&bundle("default", 60))), Some((60, Some(ca("default")))));
        // Another log counts anew.
        let other = NoteSigner::new("hallpass.example.com/log", &[8; 32]).unwrap();
        assert_eq!(Had::newest(Some(had), None, other.verifier()), None);
    }
}
