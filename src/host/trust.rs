//! Reads the trust bundle: the public keys of our CA.
//!
//! sshd reads the same file (`TrustedUserCAKeys`) line by line and stops at the first that it can't read, so a bad line hides
//! every key behind it (OPENSSH facts L18). A file with a bad line is therefore no trust bundle here: what sshd makes of it is
//! not what whoever wrote it meant.

use std::path::Path;

use super::settings;
use crate::ssh::PublicKey;

/// The longest trust bundle. Our own choice: some 300 keys of the largest kind.
const BYTES_MAX: usize = 256 * 1024;

/// Loads the keys.
///
/// # Errors
/// In words: the file, the line, and what is wrong with it.
pub fn load(path: &Path) -> Result<Vec<PublicKey>, String> {
    let bytes = settings::read(path, BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| format!("{path:?} is not text"))?;
    parse(text).map_err(|(number, why)| format!("{}:{number}: {why}", path.display()))
}

/// The keys of a trust bundle's text; blank lines and comments are skipped as sshd does.
///
/// # Errors
/// The first line that is not a key, and why; line 1 when there is no key at all.
pub fn parse(text: &str) -> Result<Vec<PublicKey>, (usize, String)> {
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches([' ', '\t']).trim_end_matches('\r');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index.saturating_add(1);
        keys.push(PublicKey::parse_openssh(line).map_err(|error| (number, error.to_string()))?);
    }
    if keys.is_empty() { Err((1, "there is no CA key in it".to_owned())) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../ca-keys.example");
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn comments_blank_lines_indents_and_other_line_ends_are_read_as_sshd_reads_them() {
        assert!(!parse(EXAMPLE).unwrap().is_empty());
        let text = format!("# a comment\n\n  \t{KEY} the CA\r\n\r\n   # another\n{KEY}");
        assert_eq!(parse(&text).unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_others_can_change_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user_ca_keys");
        for (mode, is_believed) in [(0o644, true), (0o664, false), (0o646, false)] {
            crate::durable::replace(&path, EXAMPLE.as_bytes(), mode).unwrap();
            assert_eq!(load(&path).is_ok(), is_believed, "{mode:o}");
        }
    }

    #[test]
    fn a_file_with_a_bad_line_or_without_a_key_is_no_trust_bundle() {
        for (text, line) in [
            (String::new(), 1),
            ("# nothing\n".to_owned(), 1),
            (format!("{KEY}\ngarbage\n"), 2),
            (format!("garbage\n{KEY}\n"), 1),
            (format!("{KEY}\n\ncert-authority {KEY}\n"), 3),
            (format!("{KEY}\u{0}\n"), 1),
        ] {
            assert_eq!(parse(&text).unwrap_err().0, line, "{text:?}");
        }
    }
}
