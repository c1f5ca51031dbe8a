//! Which host certificates sshd may still show, although others lie there by now.
//!
//! What for: a certificate that lies there need not be the one that sshd shows until sshd has read its configuration again (older releases read
//! certificates for each connection). Until then the service must not let go of the CA key that the old one is by.
//!
//! Invariants: what sshd has is noted durably, beside the certificates, before another one is written, and forgotten only once sshd has been
//! told. A note that can't be read says that there is something to be told.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use crate::durable;
use crate::ssh::Fingerprint;
use crate::time::Timestamp;

/// By which CA keys, and until when.
pub(super) type Shown = BTreeMap<Fingerprint, Timestamp>;

/// The note: a line for each CA key, with the end of the last certificate by it that sshd may show; no file if sshd was told of all.
#[derive(Clone, Debug)]
pub(super) struct Untold(PathBuf);

impl Untold {
    pub(super) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// What sshd may still show that does not lie there any more; `None` if it was told of all that does.
    pub(super) fn still(&self) -> Option<Shown> {
        match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.unwrap_or_default().lines().filter_map(read_line).collect()),
        }
    }

    /// Notes that others are about to lie there than these.
    ///
    /// # Errors
    /// In words; then nothing may be written.
    pub(super) fn note(&self, shown: &Shown) -> Result<(), String> {
        let mut all = self.still().unwrap_or_default();
        for (ca, end) in shown {
            let known = all.entry(*ca).or_insert(*end);
            *known = *end.max(known);
        }
        let text: String = all.iter().map(|(ca, end)| format!("{ca} {end}\n")).collect();
        durable::replace(&self.0, text.as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// sshd has been told.
    ///
    /// # Errors
    /// In words.
    pub(super) fn forget(&self) -> Result<(), String> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {:?}: {error}", self.0))
            }
            _ => Ok(()),
        }
    }
}

fn read_line(line: &str) -> Option<(Fingerprint, Timestamp)> {
    let (ca, end) = line.split_once(' ')?;
    Some((Fingerprint::parse(ca).ok()?, Timestamp::parse(end).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_may_show_is_kept_until_it_was_told_and_a_note_that_makes_no_sense_counts() {
        let folder = tempfile::tempdir().unwrap();
        let untold = Untold::at(folder.path().join("untold"));
        assert_eq!(untold.still(), None);
        let shown = |last: char, end: u64| {
            let key = Fingerprint::parse(&format!("SHA256:{}{last}", "A".repeat(42))).unwrap();
            (key, Timestamp::from_unix(end).unwrap())
        };
        untold.note(&Shown::from([shown('A', 20)])).unwrap();
        untold.note(&Shown::from([shown('A', 10), shown('E', 30)])).unwrap();
        assert_eq!(untold.still(), Some(Shown::from([shown('A', 20), shown('E', 30)])));
        untold.forget().unwrap();
        untold.forget().unwrap();
        assert_eq!(untold.still(), None);
        durable::replace(&folder.path().join("untold"), &[0xFF, b'\n'], 0o600).unwrap();
        assert_eq!(untold.still(), Some(Shown::new()));
        untold.forget().unwrap();
        durable::create_folder(&folder.path().join("untold"), 0o700).unwrap();
        assert!(untold.still() == Some(Shown::new()) && untold.forget().is_err());
    }
}
