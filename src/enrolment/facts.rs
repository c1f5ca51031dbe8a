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
    // It may be written back, so all of it must be text.
    let config = text(root, places::SSHD_CONFIG)?.ok_or_else(|| format!("{} is missing", places::SSHD_CONFIG))?;
    Ok(Facts {
        release,
        config,
        drop_ins: drop_ins(root)?,
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

/// `sshd_config`, and the files in `sshd_config.d` by name, to look at: sshd takes a comment that is not UTF-8.
///
/// # Errors
/// In words, when one can't be read.
pub fn config(root: &Root) -> Result<(String, BTreeMap<String, String>), String> {
    let config = lossy(root, places::SSHD_CONFIG)?.ok_or_else(|| format!("{} is missing", places::SSHD_CONFIG))?;
    Ok((config, drop_ins(root)?))
}

fn drop_ins(root: &Root) -> Result<BTreeMap<String, String>, String> {
    let files = match std::fs::read_dir(root.path(places::DROP_IN_FOLDER)) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("cannot read {:?}: {error}", places::DROP_IN_FOLDER)),
    };
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let names = names.filter(|name| name.ends_with(".conf")).take(DROP_INS_MAX);
    names
        .map(|name| {
            let found = lossy(root, &format!("{}/{name}", places::DROP_IN_FOLDER))?;
            Ok((name, found.unwrap_or_default()))
        })
        .collect()
}

/// A file's text; `None` if it is missing.
fn text(root: &Root, path: &str) -> Result<Option<String>, String> {
    let found = bytes(root, path)?.map(String::from_utf8).transpose();
    found.map_err(|error| format!("cannot read {path:?}: {error}"))
}

/// The same, of what is not written back: with something else in place of what is no text.
fn lossy(root: &Root, path: &str) -> Result<Option<String>, String> {
    Ok(bytes(root, path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn bytes(root: &Root, path: &str) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(root.path(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {path:?}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_that_is_not_utf_8_hides_nothing_and_what_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().to_owned());
        std::fs::create_dir_all(root.path(places::DROP_IN_FOLDER)).unwrap();
        let block = b"# f\xfcr alle\nMatch User deploy\nPermitTunnel yes\n";
        crate::durable::replace(&root.path(places::SSHD_CONFIG), block, 0o600).unwrap();
        let drop_in = root.path(places::DROP_IN_FOLDER).join("50-x.conf");
        crate::durable::replace(&drop_in, block, 0o600).unwrap();
        let (config, drop_ins) = config(&root).unwrap();
        for text in [Some(&config), drop_ins.get("50-x.conf")] {
            assert!(text.is_some_and(|text| text.ends_with("alle\nMatch User deploy\nPermitTunnel yes\n")), "{text:?}");
        }
        assert!(text(&root, places::SSHD_CONFIG).is_err(), "what is written back has to be text");
        std::fs::remove_file(&drop_in).unwrap();
        std::fs::create_dir(&drop_in).unwrap();
        assert!(super::config(&root).is_err_and(|why| why.contains("50-x.conf")));
        std::fs::remove_dir_all(root.path(places::DROP_IN_FOLDER)).unwrap();
        crate::durable::replace(&root.path(places::DROP_IN_FOLDER), b"", 0o600).unwrap();
        assert!(super::config(&root).is_err_and(|why| why.contains("sshd_config.d")));
    }
}
