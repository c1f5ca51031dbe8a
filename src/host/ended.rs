//! The ended list: serials of certificates that are over before their window ends, one on each line.
//!
//! What for: `host principals` and the guard refuse what is on it; the host's daemon writes it from what the service says.
//!
//! Invariants: a line that is not a serial makes the whole list unreadable, and then no certificate opens anything: nobody can know. It is
//! replaced as a whole, and readable by the unprivileged command that sshd runs.

use std::collections::BTreeSet;
use std::path::Path;

use super::settings;
use crate::name::Serial;

/// The longest list: a hundred thousand serials. Our own choice.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// Reads the list; one that is not there is empty.
///
/// # Errors
/// In words, when it is there and can't be read or understood.
pub fn read(path: &Path) -> Result<BTreeSet<Serial>, String> {
    match path.try_exists() {
        Ok(false) => return Ok(BTreeSet::new()),
        Ok(true) => {}
        Err(error) => return Err(format!("cannot look for {path:?}: {error}")),
    }
    let bytes = settings::read(path, BYTES_MAX)?;
    let wrong = |number: usize| format!("{}:{number}: not a serial", path.display());
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(1))?;
    let parse = |(index, line): (usize, &str)| {
        let number = line.parse().ok().filter(|number: &u64| number.to_string() == line);
        number.and_then(|number| Serial::new(number).ok()).ok_or_else(|| wrong(index.saturating_add(1)))
    };
    text.lines().enumerate().map(parse).collect()
}

/// Replaces the list, durably, if it says anything else now. Whether it did.
///
/// # Errors
/// In words; the old list is then still there, whole. Also for one that would be too long to be read.
pub fn write(path: &Path, serials: &BTreeSet<Serial>) -> Result<bool, String> {
    let is_there = path.try_exists().map_err(|error| format!("cannot look for {path:?}: {error}"))?;
    if is_there && read(path).as_ref() == Ok(serials) {
        return Ok(false);
    }
    let text = serials.iter().fold(String::new(), |text, serial| format!("{text}{serial}\n"));
    if text.len() > BYTES_MAX {
        return Err(format!("{} ended serials are too many for {path:?}", serials.len()));
    }
    crate::durable::replace(path, text.as_bytes(), 0o644).map_err(|error| error.to_string())?;
    Ok(true)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes the files that operators make")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn serials(numbers: &[u64]) -> BTreeSet<Serial> {
        numbers.iter().map(|number| Serial::new(*number).unwrap()).collect()
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_only_written_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        assert_eq!(read(&path), Ok(serials(&[])));
        assert_eq!(write(&path, &serials(&[])), Ok(true), "an empty list is a list");
        assert_eq!(write(&path, &serials(&[42, 7])), Ok(true));
        assert_eq!(write(&path, &serials(&[7, 42])), Ok(false));
        assert_eq!(read(&path), Ok(serials(&[7, 42])));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        std::fs::write(&path, "garbage").unwrap();
        assert_eq!(write(&path, &serials(&[7])), Ok(true), "what can't be read is replaced");
    }

    #[test]
    fn a_list_that_others_can_change_or_with_a_bad_line_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        for (text, mode) in [("7\n", 0o666), ("7\n\n8\n", 0o644), ("0\n", 0o644), ("07\n", 0o644), ("7 8\n", 0o644)] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(read(&path).is_err(), "{text:?} {mode:o}");
        }
    }
}
