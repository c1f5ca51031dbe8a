//! What the host tells of itself: which CA keys its sshd really accepts, its clock, its guard, its open doors, its sessions.
//!
//! Invariants: "proven" means that a login to this host's own sshd with a certificate by that key has gone through, guard and all; what
//! stands in a file is only "delivered". The file is the one that sshd says it reads.

use std::collections::BTreeSet;
use std::path::Path;

use data_encoding::HEXLOWER;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};

use super::facts::HostKey;
use super::link::Link;
use super::places::{self, CHECK_ACCOUNT, Root};
use super::plan::settings_at_risk;
use super::sshd::{self, Sshd};
use super::sshd_config::Effective;
use super::{about, pam, self_login};
use crate::client::ClientError;
use crate::host::record;
use crate::host::sessions::Sessions;
use crate::host::settings::{self, Settings};
use crate::host::trust;
use crate::ssh::PublicKey;
use crate::ssh::bundle::{Bundle, KeyState};
use crate::ssh::cert::{Certificate, Purpose, Whose};
use crate::ssh::private::SessionKey;
use crate::wire::host::{CheckIn, OpenSession, Trust};

/// The most sessions in one check-in; the service takes no more.
const SESSIONS_MAX: usize = 1024;

/// Which CA keys have let the host log in to itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Fingerprints.
    pub keys: BTreeSet<String>,
    /// What went wrong with the key that signs now.
    pub problem: Option<String>,
    /// Whether a key that the service can sign with has not let it in, though it is not the one that signs now: it is tried again.
    pub is_partial: bool,
    /// When it is worth another try.
    pub again: Again,
}

/// When a proof that lacks something is worth another try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Again {
    /// With the next check-in.
    #[default]
    Later,
    /// Soon: the service did not answer, so a login was not even tried, and a rotation may wait for it.
    Soon,
    /// In a moment: sshd does not listen yet, or the service wants a pause; and it is about the key that signs now.
    InAMoment,
}

/// 16 hex digits that nobody can guess.
///
/// # Errors
/// When the system has no randomness.
pub fn random_id() -> Result<String, String> {
    let mut bytes = [0; 8];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| error.to_string())?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Whether a line is a host certificate for this key that is in its window or will be.
#[must_use]
pub fn is_certificate_of(line: &str, key: &PublicKey) -> bool {
    Certificate::parse_openssh(line.trim())
        .is_ok_and(|certificate| certificate.tbs().purpose() == Purpose::Host && certificate.tbs().subject() == key)
}

/// Logs in to itself with a certificate by each key of the bundle that can sign one.
///
/// Left out are those of which it is `known` already that they let it in: the service gives certificates for this only so often.
pub async fn prove(
    sshd: &Sshd,
    link: &mut Link,
    (bundle, known): (&Bundle, &BTreeSet<String>),
    keys: &[HostKey],
) -> Proof {
    let mut proof = Proof::default();
    let host_keys: Vec<PublicKey> = keys.iter().map(|key| key.key.public_key().clone()).collect();
    for key in bundle.keys() {
        let fingerprint = key.key.fingerprint().to_string();
        if known.contains(&fingerprint) {
            proof.keys.insert(fingerprint);
            continue;
        }
        match prove_one(sshd, link, &fingerprint, &host_keys).await {
            Ok(()) => _ = proof.keys.insert(fingerprint),
            // One that signs nothing yet, or nothing more, is not what logins fail by; a rotation waits for it all the same.
            Err(failed) if key.state == KeyState::Active => {
                proof.problem = Some(failed.why);
                proof.again = proof.again.max(failed.again);
            }
            Err(failed) => {
                proof.is_partial |= !failed.is_offline;
                proof.again = proof.again.max(failed.again.min(Again::Soon));
            }
        }
    }
    if !bundle.keys().iter().any(|key| key.state == KeyState::Active) {
        proof.problem = Some("the service has no CA key that signs".to_owned());
    }
    proof
}

/// A login to itself that did not go through.
struct Failed {
    why: String,
    /// When it may go through.
    again: Again,
    /// Whether the service can't sign with the key: then there is nothing to try.
    is_offline: bool,
}

/// One login to itself.
async fn prove_one(sshd: &Sshd, link: &mut Link, ca: &str, host_keys: &[PublicKey]) -> Result<(), Failed> {
    let lasting = |why: String| Failed { why, again: Again::Later, is_offline: false };
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(seed.as_mut_slice()).map_err(|error| lasting(error.to_string()))?;
    let key = SessionKey::generate(*seed);
    let line = link.check_certificate(key.public_key().to_openssh(), Some(ca.to_owned())).await;
    let line = line.map_err(|error| Failed {
        why: error.to_string(),
        again: again_after(&error),
        is_offline: matches!(&error, ClientError::Problem(problem) if problem.code == "not_found"),
    })?;
    // What came must be what was asked for, and nothing that opens anything else.
    let certificate = Certificate::parse_openssh(line.trim()).map_err(|error| lasting(error.to_string()))?;
    let whose = certificate.tbs().fields().key_id.whose();
    let is_asked_for = certificate.tbs().subject() == key.public_key()
        && certificate.ca_fingerprint().to_string() == ca
        && matches!(whose, Whose::Check(host) if host == link.name());
    if !is_asked_for {
        return Err(lasting("the service gave a certificate that was not asked for".to_owned()));
    }
    let effective = sshd.effective(CHECK_ACCOUNT).await.map_err(lasting)?;
    let address = sshd::own_address(&effective).map_err(lasting)?;
    let tried = self_login::log_in(address, host_keys, &key, &certificate.to_openssh()).await;
    tried.map_err(|why| {
        let again = if why.contains("Connection refused") { Again::InAMoment } else { Again::Later };
        Failed { why, again, is_offline: false }
    })
}

fn again_after(error: &ClientError) -> Again {
    match error {
        ClientError::Problem(problem) if problem.retryable => Again::InAMoment,
        ClientError::Problem(_) => Again::Later,
        _ => Again::Soon,
    }
}

/// What the host is like now, with what has been proven.
pub async fn report(sshd: &Sshd, link: &Link, proof: &Proof) -> CheckIn {
    let effective = sshd.effective(CHECK_ACCOUNT).await.unwrap_or_default();
    let risky = settings_at_risk(&effective).into_iter().map(|risk| risk.word.to_owned()).collect();
    CheckIn {
        about: about::about(sshd).await,
        trust: trust_of(&effective, proof),
        clock_ms: link.offset().seconds().unwrap_or(0).saturating_mul(1_000),
        guard: has_guard(&effective),
        risky,
        sessions: sessions(),
        run: run(),
        shows: Vec::new(),
    }
}

/// Which run of which machine this is: a hash, so that neither id leaves the machine. `None` where the kernel does not say.
fn run() -> Option<String> {
    let boot = record::boot_id().ok()?;
    // Missing in some containers; then the boot id alone has to do.
    let machine = std::fs::read_to_string(Root::default().path("/etc/machine-id")).unwrap_or_default();
    Some(HEXLOWER.encode(&Sha256::digest(format!("hallpass run v1\n{}\n{boot}\n", machine.trim()))))
}

/// Sends it.
///
/// # Errors
/// What the service or the way to it says.
pub async fn send(link: &mut Link, report: CheckIn) -> Result<(), ClientError> {
    link.check_in(&report).await
}

/// What sshd reads, not what we wrote.
fn trust_of(effective: &Effective, proof: &Proof) -> Trust {
    let path = effective.some("trustedusercakeys").unwrap_or_default();
    let bytes = std::fs::read(Root::default().path(path)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let keys = trust::parse(&text).unwrap_or_default();
    let keys: Vec<String> = keys.iter().map(|key| key.fingerprint().to_string()).collect();
    let proven = proof.keys.iter().filter(|key| keys.contains(key)).cloned().collect();
    Trust { file_sha256: HEXLOWER.encode(&Sha256::digest(&bytes)), keys, proven }
}

/// Whether sessions end with their windows: sshd asks PAM, and PAM asks the guard.
#[must_use]
pub fn has_guard(effective: &Effective) -> bool {
    let lines = std::fs::read_to_string(Root::default().path(places::PAM)).unwrap_or_default();
    let has_number = Path::new("/proc/self/sessionid").exists();
    effective.is("usepam", "yes") && has_number && lines.lines().any(pam::is_guard)
}

/// The open sessions by our certificates.
fn sessions() -> Vec<OpenSession> {
    let Ok(settings) = Settings::load(Path::new(settings::PATH)) else { return Vec::new() };
    let Ok(sessions) = Sessions::open(&settings) else { return Vec::new() };
    let known = sessions.list().into_iter().filter_map(|session| session.record.ok());
    let shown = known.filter_map(|record| {
        Some(OpenSession {
            request: record.request()?.to_string(),
            serial: record.serial.number(),
            account: record.account.to_string(),
            since: record.window.start().to_string(),
            until: record.deadline.wall.to_string(),
        })
    });
    shown.take(SESSIONS_MAX).collect()
}
