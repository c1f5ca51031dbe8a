//! Whether root alone can change a file: the file itself, and every folder above it, in which it could be swapped.
//!
//! What for: whoever can change what says who may log in, or swap the program that is asked, lets himself in; `host check` and check-ins have to
//! say it. Of three files the guard and the principals command look at the file itself, and refuse every certificate while others can
//! write it ([`refused`]); folders, and all the rest, keep nobody out.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::places::{self, Root};
use super::risks::Risk;
use super::sshd_config::Effective;
use super::{facts, pam};
use crate::host::settings::{self, Settings};

/// Whether nobody but root can change it.
///
/// # Errors
/// In words: what is open, and how it is closed. What is not there is not open.
pub fn check(path: &Path) -> Result<(), String> {
    // Where it really is, and every folder of the way there that was named.
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for part in real.ancestors().chain(path.ancestors()) {
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

/// The word of check-ins and plans for files that others than root can change.
pub const OPEN_FILES: &str = "open-files";

/// What is open among the files that say who may log in: what sshd and PAM read, the programs that they ask, and what the guard goes by.
#[must_use]
pub fn open_files(effective: &Effective) -> Vec<String> {
    let root = Root::default();
    let mut files: Vec<PathBuf> = effective.some("trustedusercakeys").map(|path| root.path(path)).into_iter().collect();
    files.push(root.path(places::SERVICE_TOML));
    files.extend(guards_own());
    files.extend(others(effective));
    all_open(files)
}

/// The same before the host is enrolled (anew), which writes the files that are ours and leaves the folders as they are.
#[must_use]
pub fn risk(effective: &Effective) -> Option<Risk> {
    let root = Root::default();
    let ours = [places::TRUST, places::ENDED, places::HOST_TOML, places::SERVICE_TOML];
    let mut files: Vec<PathBuf> = ours.iter().filter_map(|path| Some(root.path(path).parent()?.to_owned())).collect();
    files.extend(others(effective));
    let open = all_open(files);
    (!open.is_empty()).then(|| Risk { word: OPEN_FILES, text: open.join("; ") })
}

/// What sshd and PAM read beside our files, and the programs that they ask.
fn others(effective: &Effective) -> Vec<PathBuf> {
    let root = Root::default();
    let mut files: Vec<PathBuf> =
        [places::SSHD_CONFIG, places::ASIDE, places::PAM].iter().map(|path| root.path(path)).collect();
    // What can't be read, sshd can't read either.
    let drop_ins = facts::config(&root).map(|(_, drop_ins)| drop_ins).unwrap_or_default();
    files.extend(drop_ins.keys().map(|name| root.path(Path::new(places::DROP_IN_FOLDER).join(name))));
    let command = effective.some("authorizedprincipalscommand").and_then(|line| line.split_whitespace().next());
    let pam = std::fs::read_to_string(root.path(places::PAM)).unwrap_or_default();
    files.extend(command.map(str::to_owned).into_iter().chain(pam::guards(&pam)).map(|program| root.path(program)));
    files
}

fn all_open(mut files: Vec<PathBuf>) -> Vec<String> {
    files.sort();
    files.dedup();
    files.iter().filter_map(|path| check(path).err()).collect()
}

/// What the guard and the principals command go by: `host.toml`, and what it names.
fn guards_own() -> Vec<PathBuf> {
    let root = Root::default();
    let host_toml = root.path(places::HOST_TOML);
    match Settings::load(Path::new(settings::PATH)) {
        Ok(settings) => vec![host_toml, settings.trust, settings.ended],
        Err(_) => vec![host_toml, root.path(places::TRUST), root.path(places::ENDED)],
    }
}

/// The files for whose owner or mode the guard and the principals command refuse every certificate, as `host::settings` reads them.
#[must_use]
pub fn refused() -> Vec<PathBuf> {
    guards_own().into_iter().filter(|path| is_refused(path)).collect()
}

fn is_refused(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| is_open(metadata.uid(), metadata.mode()))
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
        // The guard reads it all the same, if it is root's own.
        assert_eq!(is_refused(&path), rustix::process::geteuid().as_raw() != 0);
        assert!(is_refused(folder.path().parent().unwrap()), "everybody writes there");
    }

    #[test]
    fn a_file_is_where_its_link_leads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sshd_config");
        crate::durable::replace(&path, b"", 0o666).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let told = check(&link.join("sshd_config")).unwrap_err();
        assert!(told.starts_with(&format!("{:?}", path.canonicalize().unwrap())), "{told}");
    }
}
