//! Whether root alone can change a file: the file itself, and every folder above it, in which it could be swapped.
//!
//! What for: the guard and the principals command believe no file that others can write, and then refuse every certificate; sshd reads such
//! a file all the same. Either way the host does not do what it is enrolled for, which `host check` and check-ins have to say.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::places::{self, Root};
use super::sshd_config::Effective;
use crate::host::settings::{self, Settings};

/// Whether nobody but root can change it.
///
/// # Errors
/// In words: what is open, and how it is closed. What is not there is not open.
pub fn check(path: &Path) -> Result<(), String> {
    for part in path.ancestors() {
        let metadata = match std::fs::metadata(part) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("cannot look at {part:?}: {error}")),
        };
        if is_open(metadata.uid(), metadata.mode()) {
            return Err(format!(
                "{part:?} belongs to user {}, mode {:o}, so others than root can change {path:?}: chown root, chmod go-w",
                metadata.uid(),
                metadata.mode() & 0o7777
            ));
        }
    }
    Ok(())
}

const fn is_open(owner: u32, mode: u32) -> bool {
    owner != 0 || mode & 0o022 != 0
}

/// What is open among the files that say who may log in: the trust bundle that sshd reads, and what the guard goes by.
#[must_use]
pub fn open_files(effective: &Effective) -> Vec<String> {
    let root = Root::default();
    let mut files: Vec<PathBuf> = effective.some("trustedusercakeys").map(|path| root.path(path)).into_iter().collect();
    files.extend([places::HOST_TOML, places::SERVICE_TOML].map(|path| root.path(path)));
    match Settings::load(Path::new(settings::PATH)) {
        Ok(settings) => files.extend([settings.trust, settings.ended]),
        Err(_) => files.push(root.path(places::ENDED)),
    }
    files.sort();
    files.dedup();
    files.iter().filter_map(|path| check(path).err()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_write_or_own_is_open() {
        for (owner, mode, is_it) in [
            (0, 0o100_644, false),
            (0, 0o100_600, false),
            (0, 0o040_755, false),
            (0, 0o100_664, true),
            (0, 0o100_646, true),
            (1, 0o100_644, true),
        ] {
            assert_eq!(is_open(owner, mode), is_it, "{owner} {mode:o}");
        }
        assert_eq!(check(Path::new("/usr/bin/env")), Ok(()));
        assert_eq!(check(Path::new("/usr/bin/no-such-program")), Ok(()));
        // Below a folder that everybody can write to, it could be swapped.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user_ca_keys");
        crate::durable::replace(&path, b"", 0o644).unwrap();
        assert!(check(&path).unwrap_err().contains("chmod go-w"));
    }
}
