//! `hosts/HOST.conf` for each host that a certificate opens: what plain `ssh HOST` includes (`ssh_config`).
//!
//! Invariant: they are made anew from the request folders whenever a certificate comes or goes, under a lock, and never hold anything
//! that the folders do not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Held, Local, ends};
use crate::cli::failure::Failure;
use crate::cli::profile::{self, read_small, write};
use crate::cli::ssh_config::{self, Way};
use crate::name::{Account, HostName};

/// The folder of the host files.
const HOSTS: &str = "hosts";

impl Local {
    /// Whether the host's file names this certificate. Who has just fetched one is perhaps still about to write it.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(crate) fn is_pointed(&self, host: &HostName, held: &Held) -> Result<bool, Failure> {
        let text = read_small(&host_path(&self.root.join(HOSTS), host))?;
        Ok(text.is_some_and(|text| text.contains(&format!("\"{}\"", held.certificate_path().display()))))
    }

    /// Brings the host files up to what is held now. Under a lock, so that two at once leave what is there after both.
    ///
    /// # Errors
    /// When they can't be read or written.
    pub(crate) fn point(&self) -> Result<(), Failure> {
        let _lock = self.lock(HOSTS, |_| true)?;
        let now = self.now();
        let mut held = self.all()?;
        held.retain(|h| h.certificate.as_ref().is_some_and(|c| c.tbs().fields().window.end() > now));
        held.sort_by_key(|h| std::cmp::Reverse((ends(h), h.request.asked.clone())));
        let mut ways: BTreeMap<HostName, Vec<Way>> = BTreeMap::new();
        for held in &held {
            let Ok(account) = Account::parse(&held.request.account) else { continue };
            for host in held.request.hosts.iter().filter_map(|host| HostName::parse(host).ok()) {
                let ways = ways.entry(host).or_default();
                if ways.iter().all(|way| way.account != account) {
                    let (key, certificate) = (held.key_path(), held.certificate_path());
                    ways.push(Way { account: account.clone(), key, certificate });
                }
            }
        }
        let (folder, user) = (self.root.join(HOSTS), profile::local_user());
        for path in files(&folder)? {
            if !ways.keys().any(|host| path == host_path(&folder, host)) {
                std::fs::remove_file(&path).map_err(|e| Failure::file("delete", &path, &e))?;
            }
        }
        for (host, ways) in &ways {
            let (path, text) = (host_path(&folder, host), ssh_config::host_file(host, ways, user.as_deref()));
            if read_small(&path)?.as_ref() != Some(&text) {
                write(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// The file of a host. A host's name is safe as a file's name: it has no slash and no leading dot.
fn host_path(folder: &Path, host: &HostName) -> PathBuf {
    folder.join(format!("{host}.conf"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => {
            let entries = read.map_err(|e| Failure::file("read folder", folder, &e))?;
            Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
        }
    }
}
