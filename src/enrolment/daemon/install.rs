//! Puts what the service says where sshd, PAM and the guard read it.
//!
//! Invariants: a trust bundle is written only when the log key that was pinned at enrolment has signed it, and never one with a lower version
//! than the host has had (I-23), nor one of another user CA than the log key says that this host is of ([`had`]); a reader sees a whole
//! file, the old one or the new one (I-24). What is the same is not written. A host certificate is written only if it is what one for a
//! key of this host must be ([`Expected`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::durable;
use crate::enrolment::facts::HostKey;
use crate::enrolment::had::{self, Before, Had, Wanted};
use crate::enrolment::host_certificate::Expected;
use crate::enrolment::places;
use crate::enrolment::{enrol, texts};
use crate::host::settings::Settings;
use crate::name::{HostName, RequestId, Serial};
use crate::note::NoteVerifier;
use crate::ssh::Fingerprint;
use crate::ssh::bundle::Bundle;
use crate::ssh::cert::Certificate;
use crate::time::{Lifetime, Timestamp};
use crate::wire::host::{Grant, State};

/// What is read again before every login, and where.
#[derive(Clone, Debug)]
pub struct Installer {
    /// The trust bundle.
    pub trust: PathBuf,
    /// Where the newest that this host has had is remembered.
    pub version: PathBuf,
    /// The pinned log key.
    pub log_key: NoteVerifier,
}

/// A trust bundle that is in force.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The bundle.
    pub bundle: Bundle,
    /// Whether it is another one than before.
    pub is_new: bool,
    /// Why it could not be remembered as the newest, in words: its file says it until another one is there.
    pub forgotten: Option<String>,
}

/// What the service grants here, by request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The newest end of each request that goes on.
    pub ends: BTreeMap<RequestId, Timestamp>,
    /// Requests that are over before their time.
    pub over: BTreeSet<RequestId>,
    /// Certificates that are over before their time, and when their windows end.
    pub serials: BTreeMap<Serial, Timestamp>,
}

impl Installer {
    /// Installs the trust bundle of `host`, if it is another one; `belongs` is what the service shows of the host's CA.
    ///
    /// # Errors
    /// Why the bundle is not believed, or could not be written; what was there stays.
    pub fn bundle(&self, text: &str, host: &HostName, belongs: Option<&str>) -> Result<Installed, String> {
        let refused = |why: &dyn std::fmt::Display| format!("the trust bundle is refused: {why}");
        let bundle = Bundle::open(text, &self.log_key).map_err(|why| refused(&why))?;
        let now = std::fs::read_to_string(&self.trust).unwrap_or_default();
        let wanted = Wanted { host, belongs, log_key: &self.log_key };
        let Before { newest, installed } = Before::of(Had::load(&self.version), &now, wanted, Some(host));
        had::check(&bundle, newest.as_ref(), wanted).map_err(|why| refused(&why))?;
        let is_new = now != text;
        if is_new && installed.is_some_and(|installed| installed.version() == bundle.version()) {
            return Err(refused(&format!("there are two of version {}", bundle.version())));
        }
        if is_new {
            durable::replace(&self.trust, text.as_bytes(), 0o644).map_err(|error| error.to_string())?;
        }
        let saved = Had::of(&bundle, wanted).save(&self.version);
        let forgotten =
            saved.err().map(|why| format!("the trust bundle is in place, but it can't be remembered: {why}"));
        Ok(Installed { bundle, is_new, forgotten })
    }
}

/// Writes the tags into `host.toml`, if they are others. Whether they were.
///
/// # Errors
/// In words; the old file stays.
pub fn tags(path: &Path, state: &State) -> Result<bool, String> {
    let settings = Settings::load(path)?;
    let tags = enrol::parse_tags(&state.tags)?;
    if settings.name.as_str() != state.name {
        return Err(format!("the service calls this host {:?}, but it is {:?}", state.name, settings.name.as_str()));
    }
    if settings.tags == tags {
        return Ok(false);
    }
    let before = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
    let after = texts::renamed(&before, &settings.name, &tags)?;
    durable::replace(path, after.as_bytes(), 0o644).map_err(|error| error.to_string())?;
    Ok(true)
}

/// A host certificate that is to lie where sshd reads it.
pub type Placed = (PathBuf, String);

/// The host certificates in these lines that are others than those that are there, and where they go; and why those are refused that are not
/// what they must be.
#[must_use]
pub fn new_certificates(
    folder: &Path,
    lines: &[String],
    keys: &[HostKey],
    expected: &Expected,
) -> (Vec<Placed>, Vec<String>) {
    let (mut new, mut refused) = (Vec::new(), Vec::new());
    for line in lines {
        match certificate(folder, line, keys, expected) {
            Ok(Some((path, text))) => {
                // A certificate that sshd is not told to show is of no use; `host enrol` anew tells it.
                if path.exists() && std::fs::read_to_string(&path).map_or(true, |there| there != text) {
                    new.push((path, text));
                }
            }
            Ok(None) => {}
            Err(why) => refused.push(why),
        }
    }
    (new, refused)
}

/// Writes them: how many were, and the first that could not be, in words.
pub fn write(certificates: &[Placed]) -> (usize, Result<(), String>) {
    let (mut count, mut all) = (0_usize, Ok(()));
    for (path, text) in certificates {
        match durable::replace(path, text.as_bytes(), 0o644) {
            Ok(()) => count = count.saturating_add(1),
            Err(error) => all = all.and(Err(error.to_string())),
        }
    }
    (count, all)
}

/// Where a certificate goes; nowhere, if it is for a key that this host has no more.
fn certificate(folder: &Path, line: &str, keys: &[HostKey], expected: &Expected) -> Result<Option<Placed>, String> {
    let subject = Certificate::parse_openssh(line.trim())
        .map_err(|why| format!("a host certificate is refused: {why}"))?
        .tbs()
        .subject()
        .clone();
    let Some(key) = keys.iter().find(|key| *key.key.public_key() == subject) else { return Ok(None) };
    let certificate = expected.check(line, &subject)?;
    let place = Path::new(&places::certificate_of(&key.path)).file_name().map(|name| folder.join(name));
    Ok(place.map(|path| (path, format!("{}\n", certificate.to_openssh()))))
}

/// Whether a host certificate that is there is past the half of its time, or past it altogether, or by another CA key than signs now.
#[must_use]
pub fn is_renewal_due(folder: &Path, keys: &[HostKey], ca: Option<Fingerprint>, now: Timestamp) -> bool {
    installed(folder, keys).any(|certificate| {
        let window = certificate.tbs().fields().window;
        ca.is_some_and(|ca| certificate.ca_fingerprint() != ca)
            || now.unix() >= window.start().unix().saturating_add(window.seconds() / 2)
    })
}

/// The CA keys by which the host certificates are that are there and not over, and when the last by each ends.
#[must_use]
pub fn shown(folder: &Path, keys: &[HostKey], now: Timestamp) -> BTreeMap<Fingerprint, Timestamp> {
    let mut shown = BTreeMap::new();
    for certificate in installed(folder, keys) {
        let end = certificate.tbs().fields().window.end();
        if now < end {
            let known = shown.entry(certificate.ca_fingerprint()).or_insert(end);
            *known = end.max(*known);
        }
    }
    shown
}

/// The host certificates that are there.
fn installed(folder: &Path, keys: &[HostKey]) -> impl Iterator<Item = Certificate> {
    keys.iter().filter_map(move |key| {
        let name = Path::new(&places::certificate_of(&key.path)).file_name().map(|name| folder.join(name))?;
        Certificate::parse_openssh(std::fs::read_to_string(name).ok()?.trim()).ok()
    })
}

/// What the service grants on this host.
///
/// # Errors
/// When something in it is not what it should be; then nothing of it is believed.
pub fn granted(grants: &[Grant]) -> Result<Granted, String> {
    let mut all = Granted::default();
    for grant in grants {
        let told = |why: &dyn std::fmt::Display| format!("the service names a grant that is none: {why}");
        let request = RequestId::parse(&grant.request).map_err(|why| told(&why))?;
        let serial = Serial::new(grant.serial).map_err(|why| told(&why))?;
        let until = Timestamp::parse(&grant.until).map_err(|why| told(&why))?;
        if grant.is_ended {
            all.serials.insert(serial, until);
            all.over.insert(request);
        } else {
            let end = all.ends.entry(request).or_insert(until);
            *end = until.max(*end);
        }
    }
    // Ended is ended, whatever else is said of the request.
    all.ends.retain(|request, _| !all.over.contains(request));
    Ok(all)
}

/// The CA keys that were lost or stolen, as the service says.
///
/// # Errors
/// When one of them is no fingerprint; then none is believed.
pub fn lost(fingerprints: &[String]) -> Result<BTreeSet<Fingerprint>, String> {
    let told = |why: &dyn std::fmt::Display| format!("the service names a lost CA key that is none: {why}");
    fingerprints.iter().map(|text| Fingerprint::parse(text).map_err(|why| told(&why))).collect()
}

/// The certificates that are over before their time, each until its window is.
///
/// Ended is ended: one that was named once stays, whatever the service says later (it may go on from an older copy of its database). The
/// list itself says only serials, so after a start of the daemon it is not known when the window of one ends that the service does not name
/// any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered(BTreeMap<Serial, Timestamp>);

/// How long a serial is kept whose window's end nobody names: longer than the longest that a policy grants (30 days).
const UNKNOWN_FOR: Lifetime = Lifetime::minutes(31 * 24 * 60);

/// How long a serial is kept when its window is over, should the host's clock be set back. Our own choice.
const KEEP_FOR: Lifetime = Lifetime::minutes(60);

/// The most that are kept, which the list can hold whatever the serials are. Our own choice.
const REMEMBERED_MAX: usize = 100_000;

impl Remembered {
    /// Adds what the service names, and what is in the list already; drops what is over.
    ///
    /// If they are too many, those go first that the service does not name, and of these the ones that end first.
    pub fn learn(&mut self, granted: &BTreeMap<Serial, Timestamp>, list: &BTreeSet<Serial>, now: Timestamp) {
        for (serial, until) in granted {
            let known = self.0.entry(*serial).or_insert(*until);
            *known = *until.max(known);
        }
        let unknown = now.plus(UNKNOWN_FOR).unwrap_or(now);
        for serial in list {
            self.0.entry(*serial).or_insert(unknown);
        }
        // Past the end of time nothing is over.
        self.0.retain(|_, until| until.plus(KEEP_FOR).map_or(true, |end| now < end));
        let excess = self.0.len().saturating_sub(REMEMBERED_MAX);
        if excess > 0 {
            let others = self.0.iter().filter(|(serial, _)| !granted.contains_key(*serial));
            let mut others: Vec<(Timestamp, Serial)> = others.map(|(serial, until)| (*until, *serial)).collect();
            others.sort_unstable();
            for (_, serial) in others.iter().take(excess) {
                self.0.remove(serial);
            }
        }
    }

    /// Their serials.
    #[must_use]
    pub fn serials(&self) -> BTreeSet<Serial> {
        self.0.keys().copied().collect()
    }
}
