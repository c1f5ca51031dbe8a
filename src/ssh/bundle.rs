//! The trust bundle: the user CA keys that a host must trust now, as the content of the file that `TrustedUserCAKeys` names.
//!
//! What for: the service writes it, hosts read it, and who pinned the log key can check it offline: that it is the service's, and not
//! older than the one that is there. To `sshd` it is a file of keys with comments.
//!
//! What not: which key is in which state (`keyring`), where the file is and how it is replaced (`host`).
//!
//! | Line | Content |
//! |---|---|
//! | 1 | what this is, with the number of its form |
//! | 2 | `# service URL` |
//! | one more | `# ca NAME`, of a user CA with a name: the hosts of one CA trust no other's keys |
//! | 3 | `# version N`: the index of the log entry that changed it, so it only grows |
//! | 4 | `# at TIME`: when it was changed |
//! | two for each key | `# STATE since TIME, FINGERPRINT`, then the key, without a comment of its own |
//! | last but one | how it is signed |
//! | last | `# — NAME BASE64(key id ‖ signature)`: a signature line (C2SP `signed-note`) over every line above it, line ends included |
//!
//! Invariants: one spelling, so what is read is written back byte for byte; every key is accepted by [`PublicKey`], can be a CA key, and
//! stands there once; a line is at most 16 KiB and every line that is no key begins with `#`, for `sshd` stops reading at the first line
//! that it can't parse. An empty bundle is allowed: after a theft, no key may be left to trust.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use thiserror::Error;

use super::cert::is_ca_algorithm;
use super::{KeyError, PublicKey};
use crate::name::CaName;
use crate::note::{NoteError, NoteSigner, NoteVerifier, is_signature_line};
use crate::time::Timestamp;

/// The longest bundle that is read. Sixteen keys of RSA with 8192 bits have 24,000 bytes.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024;

/// The most keys. Our own choice: two while a key is rotated, one more in reserve.
pub const KEYS_MAX: usize = 16;

/// The longest URL of a service.
const SERVICE_BYTES_MAX: usize = 200;

const TITLE: &str =
    "# hallpass trust bundle 1: the user CA keys that sshd must trust (TrustedUserCAKeys). Replace it as a whole.";
const SIGNED: &str = "# signed by the log key, over every line above (C2SP signed-note)";

/// The life of a CA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyState {
    /// Hosts learn it; it signs nothing yet.
    Staged,
    /// It signs.
    Active,
    /// It signs nothing more; hosts trust it until its last certificate has ended.
    Draining,
    /// Nobody may trust it any more.
    Retired,
    /// Nobody may ever trust it again.
    Compromised,
}

/// One key of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleKey {
    /// The CA key.
    pub key: PublicKey,
    /// One that is trusted.
    pub state: KeyState,
    /// Since when it is in this state.
    pub since: Timestamp,
}

/// A trust bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    version: u64,
    at: Timestamp,
    service: String,
    ca: CaName,
    keys: Vec<BundleKey>,
}

/// Why a text is no trust bundle to rely on.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BundleError {
    /// Longer than [`BUNDLE_BYTES_MAX`].
    #[error("a trust bundle has at most 64 KiB")]
    TooLong,
    /// Not in the form, or not in its one spelling; says at which line, counted from 1.
    #[error("line {line}: {what}")]
    Line {
        /// The line.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A key that is not accepted.
    #[error("line {line}: {error}")]
    Key {
        /// The line.
        line: usize,
        /// Why not.
        error: KeyError,
    },
    /// A key twice, a retired one, more than [`KEYS_MAX`], an algorithm that is none for CA keys, a service that is not a URL.
    #[error("{0}")]
    Content(&'static str),
    /// Its signature does not count.
    #[error("{0} (the service's log key was expected)")]
    Signature(#[from] NoteError),
}

impl KeyState {
    /// All of them, in the order of a key's life.
    pub const ALL: [Self; 5] = [Self::Staged, Self::Active, Self::Draining, Self::Retired, Self::Compromised];

    /// `staged`, `active`, `draining`, `retired`, `compromised`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Compromised => "compromised",
        }
    }

    /// The state of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether hosts must trust a key in this state.
    #[must_use]
    pub const fn is_trusted(self) -> bool {
        match self {
            Self::Staged | Self::Active | Self::Draining => true,
            Self::Retired | Self::Compromised => false,
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Bundle {
    /// A bundle of these keys, in this order, for the hosts of this CA, as changed by log entry `version` at `at`.
    ///
    /// # Errors
    /// [`BundleError::Content`].
    pub fn new(
        version: u64,
        at: Timestamp,
        (service, ca): (&str, &CaName),
        keys: Vec<BundleKey>,
    ) -> Result<Self, BundleError> {
        let is_url = service.starts_with("https://")
            && service.len() <= SERVICE_BYTES_MAX
            && service.bytes().all(|b| b.is_ascii_graphic());
        let rules = [
            (is_url, "the service is not named by its URL"),
            (keys.len() <= KEYS_MAX, "there are more than 16 keys"),
            (keys.iter().all(|key| key.state.is_trusted()), "a key that is over is not trusted"),
            (keys.iter().all(|key| is_ca_algorithm(key.key.algorithm())), "a key's algorithm is not one for CA keys"),
            (keys.iter().map(|key| &key.key).collect::<BTreeSet<_>>().len() == keys.len(), "a key is there twice"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, broken)) => Err(BundleError::Content(broken)),
            None => Ok(Self { version, at, service: service.to_owned(), ca: ca.clone(), keys }),
        }
    }

    /// The text, signed.
    #[must_use]
    pub fn to_text(&self, signer: &NoteSigner) -> String {
        let text = self.unsigned();
        let line = signer.sign(&text);
        format!("{text}# {line}\n")
    }

    /// Every line but the signature.
    fn unsigned(&self) -> String {
        let Self { version, at, service, ca, keys } = self;
        let ca = ca.named().map(|ca| format!("# ca {ca}\n")).unwrap_or_default();
        let mut text = format!("{TITLE}\n# service {service}\n{ca}# version {version}\n# at {at}\n");
        for BundleKey { key, state, since } in keys {
            // Writing to a string can't fail.
            _ = writeln!(text, "# {state} since {since}, {}\n{}", key.fingerprint(), key.to_openssh());
        }
        text.push_str(SIGNED);
        text.push('\n');
        text
    }

    /// Reads a bundle and checks its signature. Whether it is newer than another one is a comparison of [`Self::version`].
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(text: &str, log_key: &NoteVerifier) -> Result<Self, BundleError> {
        let (bundle, signature) = Self::read(text)?;
        log_key.check(&bundle.unsigned(), signature)?;
        Ok(bundle)
    }

    /// What a text says that nobody has vouched for: for showing it, never for trusting it.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn claimed(text: &str) -> Result<Self, BundleError> {
        Ok(Self::read(text)?.0)
    }

    /// The bundle, and its signature line.
    fn read(text: &str) -> Result<(Self, &str), BundleError> {
        if text.len() > BUNDLE_BYTES_MAX {
            return Err(BundleError::TooLong);
        }
        let mut lines = Lines { rest: text, number: 0 };
        lines.exactly(TITLE)?;
        let service = lines.behind("# service ", "# service URL")?;
        let ca = lines.ca()?;
        let version = lines.parsed("# version ", "# version NUMBER", |number| number.parse::<u64>().ok())?;
        let at = lines.parsed("# at ", "# at TIME", |at| Timestamp::parse(at).ok())?;
        let mut keys = Vec::new();
        loop {
            let line = lines.next()?;
            if line == SIGNED {
                break;
            }
            keys.push(lines.key(line)?);
        }
        let signature = lines.behind("# ", "the log key's signature")?;
        if !is_signature_line(signature) {
            return Err(lines.wrong("the log key's signature"));
        }
        if !lines.rest.is_empty() {
            return Err(lines.wrong("nothing stands below the signature"));
        }
        let bundle = Self::new(version, at, (service, &ca), keys)?;
        // Catches every second spelling: zeros before a number, blanks, a comment behind a key.
        if text.strip_prefix(bundle.unsigned().as_str()).is_some_and(|rest| rest == format!("# {signature}\n")) {
            Ok((bundle, signature))
        } else {
            Err(BundleError::Content("it is not written as the service writes it"))
        }
    }

    /// The index of the log entry that made it what it is; it only grows.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// When it was changed last.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// The public URL of the service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The user CA for whose hosts it is.
    #[must_use]
    pub const fn ca(&self) -> &CaName {
        &self.ca
    }

    /// The keys, in their order.
    #[must_use]
    pub fn keys(&self) -> &[BundleKey] {
        &self.keys
    }
}

/// Lines, counted.
struct Lines<'t> {
    rest: &'t str,
    number: usize,
}

impl<'t> Lines<'t> {
    fn wrong(&self, what: &'static str) -> BundleError {
        BundleError::Line { line: self.number, what }
    }

    fn next(&mut self) -> Result<&'t str, BundleError> {
        self.number = self.number.saturating_add(1);
        let (line, rest) = self.rest.split_once('\n').ok_or_else(|| self.wrong("the text ends too early"))?;
        self.rest = rest;
        Ok(line)
    }

    /// The CA, if a line names one: the default one needs no word.
    fn ca(&mut self) -> Result<CaName, BundleError> {
        let expected = "# ca NAME";
        if !self.rest.starts_with("# ca ") {
            return Ok(CaName::DEFAULT);
        }
        self.parsed("# ca ", expected, |name| CaName::parse(name).ok())
    }

    fn exactly(&mut self, expected: &str) -> Result<(), BundleError> {
        if self.next()? == expected { Ok(()) } else { Err(self.wrong("this is no trust bundle of a form we know")) }
    }

    fn behind(&mut self, start: &str, expected: &'static str) -> Result<&'t str, BundleError> {
        self.next()?.strip_prefix(start).ok_or_else(|| self.wrong(expected))
    }

    fn parsed<T>(
        &mut self,
        start: &str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, BundleError> {
        let text = self.behind(start, expected)?;
        parse(text).ok_or_else(|| self.wrong(expected))
    }

    /// The key of which `line` tells state and fingerprint.
    fn key(&mut self, line: &str) -> Result<BundleKey, BundleError> {
        let expected = "# STATE since TIME, FINGERPRINT";
        let parts = line.strip_prefix("# ").and_then(|line| {
            let (state, rest) = line.split_once(" since ")?;
            let (since, fingerprint) = rest.split_once(", ")?;
            Some((KeyState::from_word(state)?, Timestamp::parse(since).ok()?, fingerprint))
        });
        let (state, since, fingerprint) = parts.ok_or_else(|| self.wrong(expected))?;
        let key = PublicKey::parse_openssh(self.next()?);
        let key = key.map_err(|error| BundleError::Key { line: self.number, error })?;
        if key.fingerprint().to_string() == fingerprint {
            Ok(BundleKey { key, state, since })
        } else {
            Err(self.wrong("the key is not the one whose fingerprint stands above it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::private::SessionKey;

    fn signer() -> NoteSigner {
        NoteSigner::new("hallpass.example.com/log", &[7; 32]).unwrap()
    }

    fn key(seed: u8, state: KeyState) -> BundleKey {
        let key = SessionKey::generate([seed; 32]).public_key().clone();
        BundleKey { key, state, since: Timestamp::from_unix(1_767_607_200).unwrap() }
    }

    fn bundle(keys: Vec<BundleKey>) -> Result<Bundle, BundleError> {
        Bundle::new(
            42,
            Timestamp::from_unix(1_767_607_200).unwrap(),
            ("https://hallpass.example.com", &CaName::DEFAULT),
            keys,
        )
    }

    #[test]
    fn what_is_written_is_read_back_and_any_change_is_refused() {
        let bundle = bundle(vec![key(1, KeyState::Active), key(2, KeyState::Staged)]).unwrap();
        let (text, verifier) = (bundle.to_text(&signer()), signer().verifier().clone());
        assert_eq!(Bundle::open(&text, &verifier), Ok(bundle.clone()));
        assert_eq!(Bundle::claimed(&text), Ok(bundle));
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(Bundle::open(&changed, &verifier).is_err(), "{changed}");
            }
            assert!(text.get(..place).is_none_or(|cut| Bundle::open(cut, &verifier).is_err()));
        }
        assert!(Bundle::open(&format!("{text}\n"), &verifier).is_err());
        assert!(Bundle::open(&format!("{text}{text}"), &verifier).is_err());
        let another = NoteSigner::new("hallpass.example.com/log", &[8; 32]).unwrap();
        assert_eq!(Bundle::open(&text, another.verifier()), Err(NoteError::Unsigned.into()));
    }

    #[test]
    fn a_second_spelling_is_refused_although_it_is_signed() {
        let text = bundle(vec![key(1, KeyState::Active)]).unwrap().unsigned();
        for (old, new) in [
            ("version 42", "version 042"),
            ("version 42", "version +42"),
            (" since ", "  since "),
            ("# active", "#  active"),
            ("# active", "# retired"),
            ("# active", "# lost"),
            ("https://", "http://"),
            ("bundle 1", "bundle 2"),
            ("\nssh-ed25519 ", "\n ssh-ed25519 "),
            ("\nssh-ed25519 ", "\ncert-authority ssh-ed25519 "),
            ("\n# signed", " comment\n# signed"),
            ("\n# signed", "\n\n# signed"),
            ("\n# signed", "\n# a remark\n# signed"),
            ("\n", "\r\n"),
        ] {
            let changed = text.replacen(old, new, if old == "\n" { usize::MAX } else { 1 });
            assert_ne!(changed, text, "{old:?}");
            let signed = format!("{changed}# {}\n", signer().sign(&changed));
            assert!(Bundle::open(&signed, signer().verifier()).is_err(), "{new:?}");
        }
    }

    #[test]
    fn what_ends_in_something_else_than_a_signature_claims_nothing() {
        let text = bundle(vec![key(1, KeyState::Active)]).unwrap().unsigned();
        for last in ["# a remark", "# \u{2}\u{0}", "# — a b c", "# — a\u{1b}[2J AAAAAAAA", "# "] {
            let refused = Bundle::claimed(&format!("{text}{last}\n"));
            assert_eq!(refused, Err(BundleError::Line { line: 8, what: "the log key's signature" }), "{last:?}");
        }
        let another = signer().sign("another text");
        assert!(Bundle::claimed(&format!("{text}# {another}\n")).is_ok(), "nobody has looked at it");
    }

    #[test]
    fn a_bundle_holds_each_key_once_none_that_is_retired_and_may_be_empty() {
        assert!(bundle(vec![key(1, KeyState::Active), key(1, KeyState::Draining)]).is_err());
        assert!(bundle(vec![key(1, KeyState::Retired)]).is_err());
        assert!(bundle((0..17).map(|seed| key(seed, KeyState::Staged)).collect()).is_err());
        let empty = bundle(Vec::new()).unwrap();
        assert_eq!(Bundle::open(&empty.to_text(&signer()), signer().verifier()), Ok(empty));
    }

    #[test]
    fn a_bundle_of_a_ca_with_a_name_says_so_and_the_default_one_says_nothing() {
        let prod = CaName::parse("prod").unwrap();
        let made = |ca: &CaName| {
            let at = Timestamp::from_unix(1_767_607_200).unwrap();
            let keys = vec![key(1, KeyState::Active)];
            Bundle::new(42, at, ("https://hallpass.example.com", ca), keys).unwrap().to_text(&signer())
        };
        let (named, usual) = (made(&prod), made(&CaName::DEFAULT));
        assert_eq!(Bundle::open(&named, signer().verifier()).unwrap().ca(), &prod);
        assert_eq!(Bundle::open(&usual, signer().verifier()).unwrap().ca(), &CaName::DEFAULT);
        assert!(named.contains("\n# ca prod\n# version 42\n") && !usual.contains("# ca"));
        // A second spelling, another name, and a line less are no bundle of ours.
        let spelt = usual.replace("# version", "# ca default\n# version");
        assert!(matches!(Bundle::claimed(&spelt), Err(BundleError::Content(_))));
        for other in [named.replace("# ca prod", "# ca lab"), named.replace("# ca prod\n", "")] {
            assert!(matches!(Bundle::open(&other, signer().verifier()), Err(BundleError::Signature(_))));
        }
        assert!(matches!(Bundle::claimed(&named.replace("# ca prod", "# ca Prod")), Err(BundleError::Line { .. })));
    }

    #[test]
    fn a_checkpoint_of_the_log_is_no_bundle_and_a_bundle_no_checkpoint() {
        let text = bundle(vec![key(1, KeyState::Active)]).unwrap().to_text(&signer());
        assert!(!crate::note::is_name(text.lines().next().unwrap()), "a checkpoint begins with its log's name");
    }
}
