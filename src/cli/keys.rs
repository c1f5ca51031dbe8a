//! Login keys: where they are, and how each kind signs a login or an approval.
//!
//! What for: candidates in the order they are tried, and one signature from each kind: an agent (security keys too), a key file
//! (passphrase asked on the terminal), a security key's file (through `ssh-keygen -Y sign`, which talks to the device).
//! What not: nothing is cached, no key is added to an agent, and an agent is asked for SSHSIG-framed data only.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::agent::{agent_failed, exchange};
use super::failure::{Exit, Failure};
use super::output;
use super::profile::env;
use crate::ssh::agent;
use crate::ssh::private::{LoginKey, PRIVATE_KEY_BYTES_MAX, PrivateKeyError, is_encrypted};
use crate::ssh::sig::SshSignature;
use crate::ssh::{KeyAlgorithm, KeyError, PublicKey};

/// How long an agent may take to answer; a person may have to touch a key or confirm.
const AGENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How many keys of an agent are tried: OpenSSH servers allow six.
const AGENT_KEYS_MAX: usize = 6;

/// Files below `~/.ssh` that are tried when nothing else is named.
const DEFAULT_FILES: [&str; 5] = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"];

/// A key that could log in.
#[derive(Clone, Debug)]
pub(crate) enum Candidate {
    /// A key in the agent at this socket.
    Agent {
        /// The agent.
        socket: PathBuf,
        /// The key.
        key: PublicKey,
    },
    /// A private key file.
    File(PathBuf),
}

/// A statement's signature and who made it.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The key.
    pub(crate) key: PublicKey,
    /// Armoured SSHSIG.
    pub(crate) signature: String,
}

impl Candidate {
    /// As people recognise it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Agent { key, .. } => format!("{} {} in the agent", key.algorithm().name(), key.fingerprint()),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Its file, absolute, unless an agent holds it.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Agent { .. } => None,
            Self::File(path) => Some(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        }
    }

    /// Signs a statement under a namespace of ours.
    ///
    /// # Errors
    /// When the key can't be used; says what to do.
    pub(crate) fn sign(&self, namespace: &str, statement: &str, no_input: bool) -> Result<Signed, Failure> {
        match self {
            Self::Agent { socket, key } => sign_by_agent(socket, key, (namespace, statement)),
            Self::File(path) => sign_by_file(path, (namespace, statement), no_input),
        }
    }

    /// Whether it is the key of this fingerprint, as far as that shows without asking anybody for a passphrase.
    fn is(&self, fingerprint: &str) -> bool {
        let of = |key: &PublicKey| key.fingerprint().to_string() == fingerprint;
        match self {
            Self::Agent { key, .. } => of(key),
            Self::File(path) => public_half(path).is_ok_and(|key| of(&key)),
        }
    }
}

/// The key that logged in, wherever it can sign now: in the file it was in then, else in the agent, else in one of the usual files.
pub(crate) fn of_login(fingerprint: &str, file: Option<&Path>) -> Option<Candidate> {
    let then = file.filter(|path| path.exists()).map(|path| Candidate::File(path.to_owned()));
    then.or_else(|| agent_keys().into_iter().chain(usual_files()).find(|candidate| candidate.is(fingerprint)))
}

/// The keys to try, in order: the named file alone; else those of the agent; else the usual files.
///
/// # Errors
/// When the named file is not there.
pub(crate) fn candidates(named: Option<&Path>) -> Result<Vec<Candidate>, Failure> {
    if let Some(path) = named {
        return named_key(path, agent_keys).map(|c| vec![c]);
    }
    let mut all = agent_keys();
    all.truncate(AGENT_KEYS_MAX);
    all.extend(usual_files());
    Ok(all)
}

/// The agent's keys; none if there is no agent, or it does not answer.
fn agent_keys() -> Vec<Candidate> {
    let Some(socket) = env("SSH_AUTH_SOCK").map(PathBuf::from) else { return Vec::new() };
    let keys = identities(&socket, AGENT_TIMEOUT).unwrap_or_default();
    keys.into_iter().map(|key| Candidate::Agent { socket: socket.clone(), key }).collect()
}

/// Those of the usual files that are there.
fn usual_files() -> Vec<Candidate> {
    let Some(home) = env("HOME") else { return Vec::new() };
    let files = DEFAULT_FILES.iter().map(|f| Path::new(&home).join(".ssh").join(f));
    files.filter(|p| p.exists()).map(Candidate::File).collect()
}

/// A named file: a private key, or a public one whose private half an agent holds or that stands beside it.
fn named_key(path: &Path, agent_keys: impl FnOnce() -> Vec<Candidate>) -> Result<Candidate, Failure> {
    let text = read_key(path)?;
    let Some(public) = std::str::from_utf8(&text).ok().and_then(|t| PublicKey::parse_openssh(t.trim()).ok()) else {
        return Ok(Candidate::File(path.to_owned()));
    };
    let held = agent_keys().into_iter().find(|c| matches!(c, Candidate::Agent { key, .. } if *key == public));
    let beside = || Some(path.with_extension("")).filter(|p| p.exists()).map(Candidate::File);
    held.or_else(beside).ok_or_else(|| {
        Failure::new(Exit::NotReady, "HP-301", format!("no private key for {:?}", path.display().to_string()))
            .because("it is a public key; its private half is neither in the agent nor beside it")
            .next(format!("ssh-add {}", output::word(&path.with_extension(""))))
    })
}

fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let file = std::fs::File::open(path).map_err(|e| Failure::file("open key", path, &e))?;
    let mut bytes = Zeroizing::new(Vec::new());
    let most = u64::try_from(PRIVATE_KEY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(|e| Failure::file("read key", path, &e))?;
    Ok(bytes)
}

/// The public key beside a private one.
fn public_half(path: &Path) -> Result<PublicKey, String> {
    let line = read_key(&PathBuf::from(format!("{}.pub", path.display()))).map_err(|failure| failure.what.clone())?;
    let line = std::str::from_utf8(&line).map_err(|_not_text| KeyError::Malformed.to_string())?;
    PublicKey::parse_openssh(line.trim()).map_err(|e| e.to_string())
}

fn sign_by_file(path: &Path, (namespace, statement): (&str, &str), no_input: bool) -> Result<Signed, Failure> {
    let bytes = read_key(path)?;
    if is_left_to_ssh_keygen(path) {
        if is_encrypted(&bytes) == Ok(true) && (no_input || !output::is_interactive()) {
            return Err(nobody_to_ask(path));
        }
        return sign_by_ssh_keygen(path, (namespace, statement));
    }
    let wrong = |e: &PrivateKeyError| {
        Failure::new(Exit::NotReady, "key", format!("cannot use key {:?}", path.display().to_string()))
            .because(e.to_string())
    };
    let key = match LoginKey::parse(&bytes, None) {
        Err(PrivateKeyError::SecurityKey) => return sign_by_ssh_keygen(path, (namespace, statement)),
        Err(PrivateKeyError::NeedsPassphrase) => {
            let passphrase = ask_passphrase(path, no_input)?;
            LoginKey::parse(&bytes, Some(&passphrase)).map_err(|e| wrong(&e))?
        }
        parsed => parsed.map_err(|e| wrong(&e))?,
    };
    let signature = key.sign(namespace, statement.as_bytes()).map_err(|e| wrong(&e))?;
    Ok(Signed { key: key.public_key().clone(), signature })
}

/// Of P-256 keys the library reads only those whose number fills its 32 bytes: one in 256 does not.
fn is_left_to_ssh_keygen(path: &Path) -> bool {
    public_half(path).is_ok_and(|key| key.algorithm() == KeyAlgorithm::EcdsaP256)
}

fn nobody_to_ask(path: &Path) -> Failure {
    Failure::new(Exit::NotReady, "key", format!("key {:?} needs a passphrase", path.display().to_string()))
        .because("nobody to ask here")
        .next(format!("ssh-add {}", output::word(path)))
}

fn ask_passphrase(path: &Path, no_input: bool) -> Result<SecretString, Failure> {
    if no_input || !output::is_interactive() {
        return Err(nobody_to_ask(path));
    }
    // The library asks first and silences the terminal then; what is typed, or pasted, in between would be seen.
    let _silence = output::Silence::begin();
    rpassword::prompt_password(format!("passphrase of {}: ", output::escape(&path.display().to_string())))
        .map(SecretString::from)
        .map_err(|e| Failure::failed("cannot read the passphrase").because(e.to_string()))
}

/// Signs with OpenSSH's own program: it talks to a security key's device and asks for touch, PIN or passphrase on the terminal.
fn sign_by_ssh_keygen(path: &Path, (namespace, statement): (&str, &str)) -> Result<Signed, Failure> {
    let failed = |why: String| {
        Failure::new(Exit::NotReady, "key", format!("key {:?} did not sign", path.display().to_string())).because(why)
    };
    let key = public_half(path).map_err(failed)?;
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("cannot run ssh-keygen: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(statement.as_bytes()).map_err(|e| failed(format!("cannot talk to ssh-keygen: {e}")))?;
    }
    let output = child.wait_with_output().map_err(|e| failed(format!("cannot wait for ssh-keygen: {e}")))?;
    let signature = String::from_utf8(output.stdout).map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("ssh-keygen ended with {}", output.status)));
    }
    let checked = SshSignature::parse(&signature).and_then(|s| s.check(&key, namespace, statement.as_bytes()));
    checked.map_err(|e| failed(e.to_string()))?;
    Ok(Signed { key, signature })
}

fn sign_by_agent(socket: &Path, key: &PublicKey, (namespace, statement): (&str, &str)) -> Result<Signed, Failure> {
    let data = SshSignature::to_be_signed(namespace, statement.as_bytes());
    let answer = exchange(socket, &agent::sign_request(key, &data), AGENT_TIMEOUT)?;
    let blob = agent::parse_signature(&answer).map_err(|e| agent_failed(&e.to_string()))?;
    let blob = blob.ok_or_else(|| agent_failed(&format!("it refused to sign with {}", key.fingerprint())))?;
    let signature = SshSignature::armour(key, namespace, &blob).map_err(|e| agent_failed(&e.to_string()))?;
    Ok(Signed { key: key.clone(), signature })
}

/// The keys of the agent at this socket.
///
/// # Errors
/// HP-301 when it does not answer as agents do, or not in time.
pub(crate) fn identities(socket: &Path, timeout: Duration) -> Result<Vec<PublicKey>, Failure> {
    let answer = exchange(socket, &agent::request_identities(), timeout)?;
    let keys = agent::parse_identities(&answer).map_err(|e| agent_failed(&e.to_string()))?;
    Ok(keys.into_iter().map(|(key, _)| key).collect())
}
