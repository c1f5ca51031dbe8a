//! Finds out what a host is like, before anything is planned. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::places::{self, CHECK_ACCOUNT, Root};
use super::plan::Facts;
use super::sshd::Sshd;
use super::{program, programs};
use crate::host::program::Program;
use crate::ssh::KeyAlgorithm;
use crate::ssh::private::{LoginKey, PRIVATE_KEY_BYTES_MAX};

/// The most drop-ins of sshd that are read. Our own choice.
const DROP_INS_MAX: usize = 200;

/// A host key: the file of its private half, and the key.
pub struct HostKey {
    /// As sshd's configuration names it.
    pub path: String,
    /// The key.
    pub key: LoginKey,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({})", self.path)
    }
}

/// Everything that a plan goes by.
///
/// # Errors
/// In words: what can't be found out.
pub async fn gather(root: &Root, sshd: &Sshd, program: &Program) -> Result<Facts, String> {
    let (release, _) = sshd.release().await?;
    let effective = sshd.effective(CHECK_ACCOUNT).await?;
    let missing = effective.some("revokedkeys").filter(|path| !root.path(path).exists()).map(str::to_owned);
    let changed = [places::SSHD_CONFIG, places::PAM, places::HOST_TOML, places::SERVICE_TOML, places::TRUST];
    let links = changed.iter().filter(|path| root.path(path).is_symlink()).map(|path| (*path).to_owned());
    let (config, drop_ins) = config(root)?;
    Ok(Facts {
        release,
        config,
        drop_ins,
        pam: text(root, places::PAM)?,
        host_toml: text(root, places::HOST_TOML)?,
        missing: missing.into_iter().collect(),
        links: links.collect::<BTreeSet<_>>(),
        has_systemd: root.is_machine() && Path::new("/run/systemd/system").is_dir(),
        program: program.line(),
        program_problem: program::problem(program),
        has_ssh: programs::find("ssh").is_some(),
        effective,
    })
}

/// The host's own keys, the one that is its identity first.
///
/// # Errors
/// When there is none that can be signed with.
pub fn host_keys(root: &Root, facts: &Facts) -> Result<Vec<HostKey>, String> {
    let mut problems = Vec::new();
    let mut keys = Vec::new();
    for path in facts.effective.all("hostkey") {
        let read = crate::secret::read(&root.path(path), PRIVATE_KEY_BYTES_MAX);
        match read.and_then(|pem| LoginKey::parse(&pem, None).map_err(|error| error.to_string())) {
            Ok(key) => keys.push(HostKey { path: path.clone(), key }),
            Err(why) => problems.push(format!("{path}: {why}")),
        }
    }
    keys.sort_by_key(|key| key.key.public_key().algorithm() != KeyAlgorithm::Ed25519);
    if keys.is_empty() { Err(format!("no SSH host key can be used: {}", problems.join("; "))) } else { Ok(keys) }
}

/// `sshd_config`, and the files in `sshd_config.d` by name.
///
/// # Errors
/// In words, when one can't be read.
pub fn config(root: &Root) -> Result<(String, BTreeMap<String, String>), String> {
    let config = text(root, places::SSHD_CONFIG)?.ok_or_else(|| format!("{} is missing", places::SSHD_CONFIG))?;
    Ok((config, drop_ins(root)?))
}

fn drop_ins(root: &Root) -> Result<BTreeMap<String, String>, String> {
    let Ok(files) = std::fs::read_dir(root.path(places::DROP_IN_FOLDER)) else { return Ok(BTreeMap::new()) };
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let names = names.filter(|name| name.ends_with(".conf")).take(DROP_INS_MAX);
    names
        .map(|name| {
            let found = text(root, &format!("{}/{name}", places::DROP_IN_FOLDER))?;
            Ok((name, found.unwrap_or_default()))
        })
        .collect()
}

/// A file's text; `None` if it is missing.
fn text(root: &Root, path: &str) -> Result<Option<String>, String> {
    let told = |why: &dyn std::fmt::Display| format!("cannot read {path:?}: {why}");
    match std::fs::read(root.path(path)) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|error| told(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(told(&error)),
    }
}
