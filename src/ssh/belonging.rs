//! Of which user CA a host is, as the log key says it.
//!
//! What for: every trust bundle is signed, and that of the default CA is public; so a signature does not tell a host whose bundle it is.
//! This does: the service signs it for one host, and whoever has only the service's TLS key can't make one.
//!
//! What not: which keys the CA has ([`super::bundle`]), and what the host had before (`enrolment`).
//!
//! | Line | Content |
//! |---|---|
//! | 1 | what this is, with the number of its form |
//! | 2 | `# host NAME` |
//! | 3 | `# ca NAME`; `default` is written out |
//! | 4 | `# since N`: the index of the newest log entry that says so; 0 of a host that always was of the default CA |
//! | last | `# — NAME BASE64(key id ‖ signature)`, as of a trust bundle |
//!
//! Invariants: one spelling; the first line is neither that of a trust bundle nor a checkpoint's, so none passes for another.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use thiserror::Error;

use crate::name::{CaName, HostName};
use crate::note::{NoteError, NoteSigner, NoteVerifier};

/// The longest text. Our own choice; a usual one has 300 bytes.
const BYTES_MAX: usize = 2 * 1024;

const TITLE: &str = "# hallpass host CA 1: the user CA whose trust bundle is for this host";

/// Of which CA a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belonging {
    /// The host.
    pub host: HostName,
    /// Its CA.
    pub ca: CaName,
    /// The newest log entry that says so.
    pub since: u64,
}

/// Why a text does not tell a host's CA.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BelongingError {
    /// Not in the form, or not in its one spelling.
    #[error("it is not in the form that we know")]
    Form,
    /// Its signature does not count.
    #[error("{0} (the service's log key was expected)")]
    Signature(#[from] NoteError),
}

impl Belonging {
    /// The text, signed.
    #[must_use]
    pub fn to_text(&self, signer: &NoteSigner) -> String {
        let text = self.unsigned();
        let line = signer.sign(&text);
        format!("{text}# {line}\n")
    }

    fn unsigned(&self) -> String {
        let Self { host, ca, since } = self;
        format!("{TITLE}\n# host {host}\n# ca {ca}\n# since {since}\n")
    }

    /// Reads one and checks its signature.
    ///
    /// # Errors
    /// [`BelongingError`].
    pub fn open(text: &str, log_key: &NoteVerifier) -> Result<Self, BelongingError> {
        let (told, signature) = Self::read(text).ok_or(BelongingError::Form)?;
        log_key.check(&told.unsigned(), signature)?;
        Ok(told)
    }

    fn read(text: &str) -> Option<(Self, &str)> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let mut lines = text.split_inclusive('\n').map(|line| line.strip_suffix('\n'));
        let mut behind = |start: &str| lines.next()??.strip_prefix(start);
        behind(TITLE)?;
        let told = Self {
            host: HostName::parse(behind("# host ")?).ok()?,
            ca: CaName::parse(behind("# ca ")?).ok()?,
            since: behind("# since ")?.parse().ok()?,
        };
        let signature = behind("# ")?;
        // Catches every second spelling, and whatever stands below.
        (text == format!("{}# {signature}\n", told.unsigned())).then_some((told, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::bundle::Bundle;
    use crate::time::Timestamp;

    fn signer() -> NoteSigner {
        NoteSigner::new("hallpass.example.com/log", &[7; 32]).unwrap()
    }

    fn told(ca: &str) -> Belonging {
        Belonging { host: HostName::parse("web-1").unwrap(), ca: CaName::parse(ca).unwrap(), since: 42 }
    }

    #[test]
    fn what_is_written_is_read_back_and_any_change_is_refused() {
        for ca in ["default", "prod"] {
            let (text, verifier) = (told(ca).to_text(&signer()), signer().verifier().clone());
            assert_eq!(Belonging::open(&text, &verifier), Ok(told(ca)));
            for place in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= 1;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert!(Belonging::open(&changed, &verifier).is_err(), "{changed}");
                }
                assert!(text.get(..place).is_none_or(|cut| Belonging::open(cut, &verifier).is_err()));
            }
            assert!(Belonging::open(&format!("{text}\n"), &verifier).is_err());
            let another = NoteSigner::new("hallpass.example.com/log", &[8; 32]).unwrap();
            assert_eq!(Belonging::open(&text, another.verifier()), Err(NoteError::Unsigned.into()));
        }
    }

    #[test]
    fn a_second_spelling_is_refused_although_it_is_signed() {
        let text = told("prod").unsigned();
        for (old, new) in [("since 42", "since 042"), ("since 42", "since +42"), ("# host", "#  host"), ("\n", "\r\n")]
        {
            let changed = text.replace(old, new);
            let signed = format!("{changed}# {}\n", signer().sign(&changed));
            assert_eq!(Belonging::open(&signed, signer().verifier()), Err(BelongingError::Form), "{new:?}");
        }
    }

    #[test]
    fn neither_it_nor_a_trust_bundle_passes_for_the_other() {
        let at = Timestamp::from_unix(1_767_607_200).unwrap();
        let bundle = Bundle::new(42, at, ("https://hallpass.example.com", &CaName::DEFAULT), Vec::new()).unwrap();
        let (bundle, told) = (bundle.to_text(&signer()), told("default").to_text(&signer()));
        assert!(Belonging::open(&bundle, signer().verifier()).is_err());
        assert!(Bundle::open(&told, signer().verifier()).is_err());
    }
}
