//! The newest trust bundle that this host has had, and whether another one may follow it.
//!
//! What for: every bundle is signed by the log key, also an old one, and that of another CA. A host takes none that is older than it has had
//! (I-23), and none of another user CA than its own, unless the log key says that it has gone over to that one.
//!
//! What not: whether a bundle is signed ([`Bundle::open`]), and where it is written (`daemon::install`, `enrol`).
//!
//! Invariants: a move that the host has had before does not count a second time: it must be newer than every bundle so far. What is remembered
//! is of one log key; of another log's entries, the numbers say nothing. It is of one host: a machine that comes under a new name, retired or
//! made from another one's image, begins anew with what the log key shows for that name, as one that has had none.

use std::path::Path;

use crate::durable;
use crate::name::{CaName, HostName};
use crate::note::NoteVerifier;
use crate::ssh::belonging::Belonging;
use crate::ssh::bundle::{Bundle, BundleError};

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
    /// The host whose bundle it was; not known either.
    host: Option<HostName>,
}

/// What another bundle would follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// The newest one that the host has had.
    pub newest: Option<Had>,
    /// The one that is installed.
    pub installed: Option<Bundle>,
}

/// Why a bundle may not follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// Whether nothing is wrong with it but that the service does not show whose it is, as one that is older than this program.
    pub is_service_older: bool,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

impl Refused {
    fn of(self, what: &str) -> Self {
        Self { why: format!("{what}: {}", self.why), ..self }
    }
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, is_service_older: false }
    }
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
    pub fn of(bundle: &Bundle, wanted: Wanted<'_>) -> Self {
        Self {
            version: bundle.version(),
            ca: Some(bundle.ca().clone()),
            log_key: Some(wanted.log_key.to_text()),
            host: Some(wanted.host.clone()),
        }
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
        let host = self.host.as_ref().map(HostName::as_str);
        format!("{}\n{}{}{}", self.version, line("ca", ca), line("log-key", log_key), line("host", host))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let version = lines.next()?.trim().parse().ok()?;
        let behind = |word: &str| text.lines().find_map(|line| line.strip_prefix(word));
        let ca = behind("ca ").map(CaName::parse).transpose().ok()?;
        let host = behind("host ").map(HostName::parse).transpose().ok()?;
        Some(Self { version, ca, log_key: behind("log-key ").map(str::to_owned), host })
    }
}

impl Before {
    /// The newest of this host and by this log key: what is remembered, or what is `there`, in the trust file. `named` is what `host.toml` calls
    /// the host before anything is changed, if there is one.
    #[must_use]
    pub fn of(remembered: Option<Had>, there: &str, wanted: Wanted<'_>, named: Option<&HostName>) -> Self {
        let opened = Bundle::open(there, wanted.log_key);
        // What names no log key is of the log whose bundle is there.
        let is_other_log = matches!(opened, Err(BundleError::Signature(_)));
        let is_of_log = |had: &Had| match &had.log_key {
            Some(key) => *key == wanted.log_key.to_text(),
            None => !is_other_log,
        };
        let is_of_host = |had: &Had| had.host.as_ref().or(named) == Some(wanted.host);
        let remembered = remembered.filter(|had| is_of_log(had) && is_of_host(had));
        let installed = opened.ok().filter(|_| named.is_none_or(|named| named == wanted.host));
        let there = installed.as_ref().map(|bundle| Had::of(bundle, wanted));
        let newest = match (remembered, there) {
            (Some(had), Some(there)) if had.version >= there.version => {
                let ca = had.ca.or(there.ca);
                Some(Had { ca, ..had })
            }
            (had, None) => had,
            (_, there) => there,
        };
        Self { newest, installed }
    }
}

/// Whether this bundle, which is signed, may follow what the host has `had`.
///
/// # Errors
/// In words: why not.
pub fn check(bundle: &Bundle, had: Option<&Had>, wanted: Wanted<'_>) -> Result<(), Refused> {
    let version = bundle.version();
    if let Some(had) = had.filter(|had| version < had.version) {
        let why = format!(
            "version {version} comes after version {}; if the service goes on from an older copy of its database, the next step of a CA \
             key there makes a newer one",
            had.version
        );
        return Err(why.into());
    }
    match had.map(|had| (had.version, had.ca.as_ref())) {
        Some((_, Some(ca))) if ca == bundle.ca() => Ok(()),
        // Whose bundle it had is not known: an earlier hallpass took it, and it is lost.
        Some((_, None)) => Ok(()),
        Some((newest, Some(ca))) => belongs(bundle, Some(newest), wanted)
            .map_err(|refused| refused.of(&format!("it is of CA {}, and this host is of CA {ca}", bundle.ca()))),
        None => belongs(bundle, None, wanted).map_err(|refused| refused.of(&format!("it is of CA {}", bundle.ca()))),
    }
}

/// Whether the log key says that the host is of the bundle's CA, and if it was of another one, that it is so since the newest bundle that it had.
fn belongs(bundle: &Bundle, newest: Option<u64>, wanted: Wanted<'_>) -> Result<(), Refused> {
    let text = wanted.belongs.ok_or_else(|| Refused {
        why: "the service does not show that this host belongs there, which needs a service that is not older than this program: update \
              it first"
            .to_owned(),
        is_service_older: true,
    })?;
    let told = Belonging::open(text, wanted.log_key).map_err(|why| format!("what the service shows for it: {why}"))?;
    if told.host != *wanted.host || told.ca != *bundle.ca() {
        return Err(format!("the service shows that {} is of CA {}", told.host, told.ca).into());
    }
    if newest.is_some_and(|newest| told.since <= newest) || bundle.version() < told.since {
        let why =
            format!("what the service shows for it (log entry {}) is no newer than what this host has had", told.since);
        return Err(why.into());
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

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    /// What `web-1` has had.
    fn had(bundle: &Bundle) -> Had {
        Had::of(bundle, Wanted { host: &host("web-1"), belongs: None, log_key: signer().verifier() })
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
        let had = had(&bundle("prod", 50));
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
        let (name, signer) = (host("web-1"), signer());
        let refused = |belongs, had| {
            let wanted = Wanted { host: &name, belongs, log_key: signer.verifier() };
            check(&bundle("default", 60), had, wanted).unwrap_err()
        };
        let prod = had(&bundle("prod", 50));
        assert!(refused(None, None).is_service_older && refused(None, Some(&prod)).is_service_older);
        assert!(!refused(Some("garbage"), None).is_service_older);
        assert!(!refused(None, Some(&had(&bundle("prod", 70)))).is_service_older, "it is older itself");
    }

    #[test]
    fn what_was_had_is_remembered_and_read_from_what_an_earlier_release_left() {
        let folder = tempfile::tempdir().unwrap();
        let (path, name, log) = (folder.path().join(NAME), host("web-1"), signer());
        let wanted = Wanted { host: &name, belongs: None, log_key: log.verifier() };
        assert_eq!(Had::load(&path), None);
        let prod = had(&bundle("prod", 50));
        prod.save(&path).unwrap();
        assert_eq!(Had::load(&path), Some(prod.clone()));
        let earlier = Had::parse("50\n").unwrap();
        assert_eq!(earlier, Had { version: 50, ca: None, log_key: None, host: None });
        let newest = |had: &Had, there: Option<&Bundle>| {
            let there = there.map(|bundle| bundle.to_text(&log)).unwrap_or_default();
            Before::of(Some(had.clone()), &there, wanted, Some(&name)).newest.map(|had| (had.version, had.ca))
        };
        assert_eq!(newest(&earlier, Some(&bundle("prod", 40))), Some((50, Some(ca("prod")))));
        assert_eq!(newest(&earlier, None), Some((50, None)));
        assert_eq!(
            newest(&prod, Some(&bundle("default", 40))),
            Some((50, Some(ca("prod")))),
            "somebody put that there"
        );
        assert_eq!(newest(&prod, Some(&bundle("default", 60))), Some((60, Some(ca("default")))));
    }

    #[test]
    fn another_log_counts_anew_also_where_an_earlier_release_did_not_note_which_it_was() {
        let (name, log) = (host("web-1"), NoteSigner::new("hallpass.example.com/log", &[8; 32]).unwrap());
        let wanted = Wanted { host: &name, belongs: None, log_key: log.verifier() };
        let (noted, earlier) = (had(&bundle("prod", 50)), Had::parse("50\n").unwrap());
        let there = bundle("prod", 50).to_text(&signer());
        for remembered in [noted, earlier.clone()] {
            assert_eq!(Before::of(Some(remembered), &there, wanted, Some(&name)), Before::default());
        }
        // It was the new log's.
        let there = bundle("prod", 3).to_text(&log);
        let newest = Before::of(Some(earlier), &there, wanted, Some(&name)).newest.unwrap();
        assert_eq!(newest.version, 50);
    }

    #[test]
    fn a_machine_that_comes_under_a_new_name_begins_anew_and_only_with_what_is_shown_for_that_name() {
        let (web_1, web_2, log) = (host("web-1"), host("web-2"), signer());
        let (noted, earlier) = (had(&bundle("prod", 50)), Had::parse("50\n").unwrap());
        let there = bundle("prod", 50).to_text(&log);
        let default = bundle("default", 10);
        // Retired with all its files, or made from an image with all of them or with this one alone.
        for (remembered, there, named) in [
            (&noted, there.as_str(), Some(&web_1)),
            (&earlier, there.as_str(), Some(&web_1)),
            (&noted, "", None),
            (&earlier, "", None),
        ] {
            for (belongs, is_taken) in [
                (Some(told("web-2", "default", 0)), true),
                (Some(told("web-1", "default", 0)), false),
                (Some(told("web-2", "prod", 0)), false),
                (None, false),
            ] {
                let wanted = Wanted { host: &web_2, belongs: belongs.as_deref(), log_key: log.verifier() };
                let before = Before::of(Some(remembered.clone()), there, wanted, named);
                assert_eq!(before, Before::default());
                assert_eq!(check(&default, before.newest.as_ref(), wanted).is_ok(), is_taken, "{belongs:?}");
            }
        }
        // By its own name it is held to all of it, also when `host.toml` is lost.
        let belongs = told("web-1", "default", 0);
        let wanted = Wanted { host: &web_1, belongs: Some(&belongs), log_key: log.verifier() };
        for (remembered, named) in [(&noted, None), (&noted, Some(&web_1)), (&earlier, Some(&web_1))] {
            let before = Before::of(Some(remembered.clone()), &there, wanted, named);
            assert!(check(&default, before.newest.as_ref(), wanted).is_err());
        }
    }
}
