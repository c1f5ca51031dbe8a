//! Whether a login may go on, and until when. Pure.
//!
//! What for: sshd has accepted the login; here its certificates are judged a second time, because sshd accepts some that we can't
//! read, and tells nobody when one ends.
//!
//! Invariants (I-32): a login with a certificate by our CA goes on only if *every* certificate of ours in it is read by the strict
//! reader (signature included), is inside its window, names a principal of this host for this account, and is not on the list
//! of ended ones; it then ends when the first of them does. A certificate that can't be read for whose it is, or that says it is ours
//! and isn't, is refused. What can't be known counts as refused wherever a certificate is involved.
//!
//! *Why may plain keys in when `host.toml` is broken?* Somebody has to be able to mend it. sshd did not accept a certificate of
//! ours there, so no window is outlived.

use std::collections::BTreeSet;
use std::path::Path;

use thiserror::Error;

use super::auth_info::AuthInfo;
use super::ended;
use super::settings::{Others, Settings};
use super::trust;
use crate::name::{Account, Serial};
use crate::ssh::cert::skim::Skimmed;
use crate::ssh::cert::{CertError, Certificate, Fields};
use crate::ssh::{Fingerprint, PublicKey};
use crate::time::{Timestamp, Window};

/// What this host goes by, as far as it could be read.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `host.toml`.
    pub settings: Settings,
    /// Our CA keys.
    pub keys: Result<Vec<PublicKey>, String>,
    /// Certificates that are over before their time.
    pub ended: Result<BTreeSet<Serial>, String>,
}

/// A login that may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Not by our CA: not our business.
    NotOurs,
    /// No certificate is involved, and `host.toml` can't be read.
    Unguarded(String),
    /// By our CA, until its window ends.
    Governed(Box<Governed>),
}

/// A login by our CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governed {
    /// The account.
    pub account: Account,
    /// The certificate that ends first.
    pub fields: Fields,
    /// Which CA key signed it.
    pub ca: Fingerprint,
    /// What no extension of its request passes: the first end of the login's certificates by other requests.
    pub bound: Option<Timestamp>,
}

/// Why a login may not go on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Denial {
    /// No `SSH_AUTH_INFO_0`, or an empty one.
    #[error(
        "sshd did not say how the login proved itself; it needs OpenSSH 7.6 or newer, and this line among the session lines of PAM"
    )]
    Silent,
    /// Not as sshd writes it.
    #[error("what sshd said of the login can't be understood: {0}")]
    Unreadable(String),
    /// sshd's question about a certificate does not fit the certificate.
    #[error("{0}")]
    Odd(&'static str),
    /// Something that decides about certificates can't be read.
    #[error("{0}")]
    Unsettled(String),
    /// A certificate whose CA can't be made out.
    #[error("a certificate of a kind that can't be read here")]
    Unskimmable,
    /// Its key id is like ours, its CA key isn't.
    #[error("a certificate says that it is hallpass's, but its CA key is not in the trust bundle")]
    Stranger,
    /// By our CA, and not as we issue them.
    #[error("a certificate by our CA is not one that hallpass issues: {0}")]
    NotAsIssued(CertError),
    /// Not inside its window.
    #[error("certificate {0} is valid from {1}, and it is {2} here")]
    Window(Serial, Window, Timestamp),
    /// It names no principal of this host for this account.
    #[error("certificate {0} does not open {1:?} on this host")]
    Principals(Serial, String),
    /// On the list of ended ones.
    #[error("certificate {0} was ended before its time")]
    Ended(Serial),
    /// `others = "refuse"`.
    #[error("this host takes only certificates by hallpass's CA (others = \"refuse\")")]
    Others,
}

impl Rules {
    /// Loads what `host.toml` names.
    ///
    /// # Errors
    /// In words, when `host.toml` itself can't be read.
    pub fn load(path: &Path) -> Result<Self, String> {
        let settings = Settings::load(path)?;
        let (keys, ended) = (trust::load(&settings.trust), ended::read(&settings.ended));
        Ok(Self { settings, keys, ended })
    }

    /// Reads a certificate that sshd accepted: `None` if it is by somebody else's CA, and that is none of our business.
    ///
    /// # Errors
    /// [`Denial`], for one that must not open anything.
    pub fn read(&self, blob: &[u8]) -> Result<Option<Certificate>, Denial> {
        let keys = self.keys.as_ref().map_err(|why| Denial::Unsettled(why.clone()))?;
        let skimmed = Skimmed::read(blob).ok_or(Denial::Unskimmable)?;
        if !keys.iter().any(|key| skimmed.is_by(key)) {
            return if skimmed.says_hallpass() { Err(Denial::Stranger) } else { Ok(None) };
        }
        let certificate = Certificate::parse_blob(blob).map_err(Denial::NotAsIssued)?;
        // The strict reader verified with the CA key that the certificate names: it must be one of ours to the byte.
        if keys.contains(certificate.tbs().ca()) { Ok(Some(certificate)) } else { Err(Denial::Stranger) }
    }

    /// Whether a certificate opens `account` here, apart from its window.
    ///
    /// # Errors
    /// [`Denial::Principals`], [`Denial::Ended`], [`Denial::Unsettled`].
    pub fn check(&self, fields: &Fields, account: &str) -> Result<Account, Denial> {
        let closed = || Denial::Principals(fields.serial, account.chars().take(64).collect());
        let parsed = Account::parse(account).ok().ok_or_else(closed)?;
        if self.settings.principals(&parsed).is_disjoint(&fields.principals) {
            return Err(closed());
        }
        let ended = self.ended.as_ref().map_err(|why| Denial::Unsettled(why.clone()))?;
        if ended.contains(&fields.serial) { Err(Denial::Ended(fields.serial)) } else { Ok(parsed) }
    }
}

/// Judges a login to `account` by what sshd said of it (`SSH_AUTH_INFO_0`).
///
/// # Errors
/// [`Denial`]: the connection must be closed.
pub fn judge(
    auth_info: Option<&[u8]>,
    account: &str,
    rules: &Result<Rules, String>,
    now: Timestamp,
) -> Result<Judgement, Denial> {
    let text = auth_info.filter(|text| !text.is_empty()).ok_or(Denial::Silent)?;
    let info = AuthInfo::parse(text).map_err(|why| Denial::Unreadable(why.to_string()))?;
    let rules = match rules {
        Ok(rules) => rules,
        Err(why) if info.certificates.is_empty() => return Ok(Judgement::Unguarded(why.clone())),
        Err(why) => return Err(Denial::Unsettled(why.clone())),
    };
    let mut ours: Vec<Governed> = Vec::new();
    for blob in &info.certificates {
        let Some(certificate) = rules.read(blob)? else { continue };
        ours.push(admit(rules, &certificate, account, now)?);
    }
    match (first_to_end(&ours), rules.settings.others) {
        (Some(governed), _) => Ok(Judgement::Governed(Box::new(governed))),
        (None, Others::Allow) => Ok(Judgement::NotOurs),
        (None, Others::Refuse) => Err(Denial::Others),
    }
}

/// The one that ends first, with what bounds it.
fn first_to_end(ours: &[Governed]) -> Option<Governed> {
    let first = ours.iter().min_by_key(|one| one.fields.window.end())?.clone();
    let others = ours.iter().filter(|one| one.fields.key_id.request() != first.fields.key_id.request());
    let bound = others.map(|one| one.fields.window.end()).min();
    Some(Governed { bound, ..first })
}

/// The first certificate of ours in what sshd said, whether it may be used or not; for what is told of a refused login.
#[must_use]
pub fn first_of_ours(auth_info: Option<&[u8]>, rules: &Rules) -> Option<(Fields, Fingerprint)> {
    let info = AuthInfo::parse(auth_info?).ok()?;
    let certificate = info.certificates.iter().find_map(|blob| rules.read(blob).ok().flatten())?;
    Some((certificate.tbs().fields().clone(), certificate.tbs().ca().fingerprint()))
}

fn admit(rules: &Rules, certificate: &Certificate, account: &str, now: Timestamp) -> Result<Governed, Denial> {
    let fields = certificate.tbs().fields();
    if !fields.window.contains(now) {
        return Err(Denial::Window(fields.serial, fields.window, now));
    }
    let (account, ca) = (rules.check(fields, account)?, certificate.tbs().ca().fingerprint());
    Ok(Governed { account, fields: fields.clone(), ca, bound: None })
}
