//! What the host tells of itself: which CA keys its sshd really accepts, its clock, its guard, its open doors, its sessions.
//!
//! Invariants: "proven" means that a login to this host's own sshd with a certificate by that key has gone through, guard and all, and
//! that the guard refuses none of its files now ([`owned::refused`]); what stands in a file is only "delivered". The file is the one that sshd says it reads. The
//! guard is armed only if no session gets past it ([`pam::check`]).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest as _, Sha256};

use super::facts::{self, HostKey};
use super::link::Link;
use super::places::{self, CHECK_ACCOUNT, Root};
use super::risks::{Risk, in_blocks, own_command, settings_at_risk};
use super::sshd::{self, Sshd};
use super::sshd_config::Effective;
use super::{about, owned, pam, self_login};
use crate::client::ClientError;
use crate::host::program;
use crate::host::record;
use crate::host::sessions::Sessions;
use crate::host::settings::{self, Settings};
use crate::host::trust;
use crate::ssh::PublicKey;
use crate::ssh::bundle::{Bundle, KeyState};
use crate::ssh::cert::{Certificate, Whose};
use crate::ssh::private::SessionKey;
use crate::wire::host::{CheckIn, OpenSession, Trust};

/// The word of a check-in for a configuration of sshd whose `Match` blocks could not be looked at.
const UNREADABLE: &str = "unreadable";

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
    /// Soon: sshd does not listen, or the service gave no certificate, so that no login was tried; and a rotation may wait for it.
    Soon,
}

/// How long to look whether sshd listens, after it was told to read its configuration.
#[derive(Clone, Copy, Debug)]
pub struct Patience(Instant);

impl Patience {
    /// Where sshd was told nothing.
    #[must_use]
    pub fn none() -> Self {
        Self(Instant::now())
    }

    /// So long from now on.
    #[must_use]
    pub fn of(within: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(within).unwrap_or(now))
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

/// How often to look whether sshd listens.
const LISTEN_LOOK: Duration = Duration::from_millis(200);

/// How often to ask again for a certificate, of a service that wants a pause. Our own choice.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// 16 hex digits that nobody can guess.
///
/// # Errors
/// When the system has no randomness.
pub fn random_id() -> Result<String, String> {
    let mut bytes = [0; 8];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| error.to_string())?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Logs in to itself with a certificate by each key of the bundle that can sign one.
///
/// Left out are those of which it is `known` already that they let it in: the service gives certificates for this only so often.
pub async fn prove(
    sshd: &Sshd,
    link: &mut Link,
    (bundle, known): (&Bundle, &BTreeSet<String>),
    keys: &[HostKey],
    patience: Patience,
) -> Proof {
    let mut proof = Proof::default();
    let host_keys: Vec<PublicKey> = keys.iter().map(|key| key.key.public_key().clone()).collect();
    for key in bundle.keys() {
        let fingerprint = key.key.fingerprint().to_string();
        if known.contains(&fingerprint) {
            proof.keys.insert(fingerprint);
            continue;
        }
        match prove_one(sshd, link, &fingerprint, &host_keys, patience).await {
            Ok(()) => _ = proof.keys.insert(fingerprint),
            // One that signs nothing yet, or nothing more, is not what logins fail by; a rotation waits for it all the same.
            Err(failed) if key.state == KeyState::Active => {
                proof.problem = Some(failed.why);
                proof.again = proof.again.max(failed.again);
            }
            Err(failed) => {
                proof.is_partial |= !failed.is_offline;
                proof.again = proof.again.max(failed.again);
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

impl Failed {
    const fn lasting(why: String) -> Self {
        Self { why, again: Again::Later, is_offline: false }
    }

    const fn passing(why: String) -> Self {
        Self { why, again: Again::Soon, is_offline: false }
    }
}

/// One login to itself, with one certificate however often sshd has to be tried. While nothing listens none is fetched: each is in the log,
/// the service gives only so many, and what it would say then is not what is wrong.
async fn prove_one(
    sshd: &Sshd,
    link: &mut Link,
    ca: &str,
    host_keys: &[PublicKey],
    patience: Patience,
) -> Result<(), Failed> {
    let effective = sshd.effective(CHECK_ACCOUNT).await.map_err(Failed::lasting)?;
    let address = sshd::own_address(&effective).map_err(Failed::lasting)?;
    while let Err(why) = sshd::listens(address).await {
        if patience.is_over() {
            return Err(Failed::passing(format!("sshd does not listen at {address}: {why}")));
        }
        tokio::time::sleep(LISTEN_LOOK).await;
    }
    let (key, certificate) = fetch(link, ca, patience).await?;
    loop {
        match self_login::log_in(address, host_keys, &key, &certificate.to_openssh()).await {
            Ok(()) => return Ok(()),
            // It read its configuration in just this moment.
            Err(why) if why.contains("Connection refused") => {
                if patience.is_over() {
                    return Err(Failed::passing(format!("sshd does not listen at {address}: {why}")));
                }
                tokio::time::sleep(LISTEN_LOOK).await;
            }
            Err(why) => return Err(Failed::lasting(why)),
        }
    }
}

/// A certificate by this CA key for the login, with its key.
async fn fetch(link: &mut Link, ca: &str, patience: Patience) -> Result<(SessionKey, Certificate), Failed> {
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(seed.as_mut_slice()).map_err(|error| Failed::lasting(error.to_string()))?;
    let key = SessionKey::generate(*seed);
    let line = loop {
        match link.check_certificate(key.public_key().to_openssh(), Some(ca.to_owned())).await {
            Ok(line) => break line,
            Err(error) if is_busy(&error) && !patience.is_over() => tokio::time::sleep(ASK_AGAIN).await,
            Err(error) => return Err(refused(&error)),
        }
    };
    // What came must be what was asked for, and nothing that opens anything else.
    let certificate = Certificate::parse_openssh(line.trim()).map_err(|error| Failed::lasting(error.to_string()))?;
    let whose = certificate.tbs().fields().key_id.whose();
    let is_asked_for = certificate.tbs().subject() == key.public_key()
        && certificate.ca_fingerprint().to_string() == ca
        && matches!(whose, Whose::Check(host) if host == link.name());
    if is_asked_for {
        Ok((key, certificate))
    } else {
        Err(Failed::lasting("the service gave a certificate that was not asked for".to_owned()))
    }
}

/// Whether asking again in a moment may help; of too many calls it would only be one more.
fn is_busy(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem) if problem.retryable && problem.code != "too_many")
}

/// Why there is no certificate, with all that the service says of it: also how long to wait.
fn refused(error: &ClientError) -> Failed {
    let ClientError::Problem(problem) = error else { return Failed::passing(error.to_string()) };
    let facts = problem.why.iter().chain(&problem.next).map(String::as_str).collect::<Vec<_>>().join("; ");
    let why = if facts.is_empty() { problem.title.clone() } else { format!("{} ({facts})", problem.title) };
    let why = format!("the service gives no certificate for it: {why}");
    let again = if problem.retryable { Again::Soon } else { Again::Later };
    Failed { why, again, is_offline: problem.code == "not_found" }
}

/// What the host is like now, with what has been proven.
pub async fn report(sshd: &Sshd, link: &Link, proof: &Proof) -> CheckIn {
    let effective = sshd.effective(CHECK_ACCOUNT).await.unwrap_or_default();
    let open = owned::open_files(&effective);
    let config = facts::config(&Root::default());
    let blocks = config.map(|(config, drop_ins)| in_blocks(&config, &drop_ins, own_command(&effective)));
    CheckIn {
        about: about::about(sshd).await,
        trust: trust_of(&effective, proof, owned::refused().is_empty()),
        clock_ms: link.offset().seconds().unwrap_or(0).saturating_mul(1_000),
        guard: guard(&effective).is_ok(),
        risky: risky(&effective, blocks, open.is_empty()),
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

/// One word for each.
fn risky(effective: &Effective, blocks: Result<Vec<Risk>, String>, is_closed: bool) -> Vec<String> {
    let unknown = blocks.is_err().then_some(UNREADABLE);
    let all = settings_at_risk(effective).into_iter().chain(blocks.unwrap_or_default()).map(|risk| risk.word);
    let all: BTreeSet<&str> = all.chain((!is_closed).then_some(owned::OPEN_FILES)).chain(unknown).collect();
    all.into_iter().map(str::to_owned).collect()
}

/// What sshd reads, not what we wrote. Nothing is proven where the guard refuses every certificate for the mode of a file: what was proven
/// before that mode was set is no more so.
fn trust_of(effective: &Effective, proof: &Proof, has_guard: bool) -> Trust {
    let path = effective.some("trustedusercakeys").unwrap_or_default();
    let bytes = std::fs::read(Root::default().path(path)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let keys = trust::parse(&text).unwrap_or_default();
    let keys: Vec<String> = keys.iter().map(|key| key.fingerprint().to_string()).collect();
    let proven = proof.keys.iter().filter(|key| has_guard && keys.contains(key)).cloned().collect();
    Trust { file_sha256: HEXLOWER.encode(&Sha256::digest(&bytes)), keys, proven }
}

/// Whether sessions end with their windows: sshd asks PAM, and PAM asks the guard, of the program that sshd asks, too, whatever comes.
///
/// # Errors
/// In words: why they do not.
pub fn guard(effective: &Effective) -> Result<(), String> {
    if !effective.is("usepam", "yes") {
        return Err("sshd does not ask PAM (UsePAM)".to_owned());
    }
    if !Path::new("/proc/self/sessionid").exists() {
        return Err("the kernel gives sessions no number (/proc/self/sessionid)".to_owned());
    }
    let command = effective.some("authorizedprincipalscommand").unwrap_or_default();
    let Some((program, _)) = command.split_once(" principals").filter(|_| program::runs(command, "principals")) else {
        return Err("sshd does not ask hallpass for principals, so whose guard it would be is not known".to_owned());
    };
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", places::PAM);
    let text = std::fs::read_to_string(Root::default().path(places::PAM)).map_err(|error| told(&error))?;
    pam::check(&text, program).map_err(|why| told(&why))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_could_not_be_looked_at_are_told_and_not_passed_over() {
        let effective = Effective::parse("permittunnel yes\n");
        let block = |word| Risk { word, text: String::new() };
        assert_eq!(risky(&effective, Ok(vec![block("match"), block("match")]), true), ["match", "tunnels"]);
        assert_eq!(risky(&effective, Err("no".to_owned()), true), ["tunnels", UNREADABLE]);
        assert_eq!(risky(&Effective::default(), Ok(Vec::new()), false), [owned::OPEN_FILES]);
    }
}
