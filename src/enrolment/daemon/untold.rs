//! Which host certificates sshd has not been told of.
//!
//! What for: a certificate that lies there need not be the one that sshd shows until sshd reads its configuration again (older releases read
//! certificates for each connection), and that may fail: its configuration has an error, a service manager does not answer. Then it is told again until it works, also by the next daemon; and what
//! it shows meanwhile, by a CA key that may be on its way out, is said to the service, which must not let that key go.
//!
//! Invariants: what sshd has is noted durably before another certificate is written, and forgotten only once sshd has been told. A note that
//! can't be read says that there is something to be told.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use crate::durable;
use crate::ssh::Fingerprint;

/// The note: a file with the CA key's fingerprint of each certificate that sshd may still show, a line each; none if sshd was told of all.
#[derive(Clone, Debug)]
pub(super) struct Untold(PathBuf);

impl Untold {
    pub(super) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// By which CA keys sshd may still show certificates that do not lie there any more; `None` if it was told of all that lies there.
    pub(super) fn still(&self) -> Option<BTreeSet<Fingerprint>> {
        match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.unwrap_or_default().lines().filter_map(|line| Fingerprint::parse(line).ok()).collect()),
        }
    }

    /// Notes that other certificates are about to lie there than those by these CA keys.
    ///
    /// # Errors
    /// In words; then nothing may be written.
    pub(super) fn note(&self, shown: &BTreeSet<Fingerprint>) -> Result<(), String> {
        let all = shown.union(&self.still().unwrap_or_default()).map(|ca| format!("{ca}\n")).collect::<String>();
        durable::replace(&self.0, all.as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// sshd has been told.
    ///
    /// # Errors
    /// In words; it is then told once more, which does no harm.
    pub(super) fn forget(&self) -> Result<(), String> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {:?}: {error}", self.0))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_may_show_is_kept_until_it_was_told_and_a_note_that_makes_no_sense_counts() {
        let folder = tempfile::tempdir().unwrap();
        let untold = Untold::at(folder.path().join("untold"));
        assert_eq!(untold.still(), None);
        let key = |last| Fingerprint::parse(&format!("SHA256:{}{last}", "A".repeat(42))).unwrap();
        untold.note(&BTreeSet::from([key('A')])).unwrap();
        untold.note(&BTreeSet::from([key('E')])).unwrap();
        assert_eq!(untold.still(), Some(BTreeSet::from([key('A'), key('E')])));
        untold.forget().unwrap();
        untold.forget().unwrap();
        assert_eq!(untold.still(), None);
        durable::replace(&folder.path().join("untold"), &[0xFF, b'\n'], 0o600).unwrap();
        assert_eq!(untold.still(), Some(BTreeSet::new()));
    }
}
