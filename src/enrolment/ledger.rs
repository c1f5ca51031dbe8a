//! What a change of the host started from, as it is written down before the change begins. Pure.
//!
//! What for: the whole way back is on disk before the first step forward. One ledger is about a change that is under way, another
//! about everything since the host was enrolled; [`Ledger::joined`] makes the second of both when a change has held.
//!
//! Invariants: unknown keys and versions are errors: a way back that is not understood is not walked.

use std::fmt::{self, Write as _};

use crate::document::{self, Table, written};

/// The form that this program writes and reads.
const VERSION: u64 = 1;

/// The longest ledger. Our own choice; a usual one has 2 KiB.
pub const BYTES_MAX: usize = 256 * 1024;

/// The most entries of a kind.
const COUNT_MAX: usize = 200;

/// What there was before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Names this change: 16 hex digits.
    pub id: String,
    /// Files, in the order in which they are written.
    pub files: Vec<Original>,
    /// Accounts that were made.
    pub accounts: Vec<String>,
    /// Folders that were made, outermost first.
    pub folders: Vec<String>,
    /// Whether the daemon's unit was started.
    pub has_unit: bool,
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Where, as sshd sees it.
    pub path: String,
    /// Whether the file as a whole is ours.
    pub is_ours: bool,
    /// What was there; `None` if there was no file.
    pub was: Option<Saved>,
}

/// A copy of what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The copy's number in the ledger's folder.
    pub copy: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Ledger {
    /// Parses one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        document::read(text, "ledger", BYTES_MAX, read_root)
            .map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())
    }

    /// The first number that no copy has.
    #[must_use]
    pub fn next_copy(&self) -> u64 {
        let copies = self.files.iter().filter_map(|file| file.was.as_ref()).map(|saved| saved.copy);
        copies.max().map_or(0, |most| most.saturating_add(1))
    }

    /// This ledger, and after it `newer`: where both know a file, what was there first counts. Copies of `newer` that are kept
    /// are told to `keep` with their old and new number.
    #[must_use]
    pub fn joined(&self, newer: &Self, mut keep: impl FnMut(u64, u64)) -> Self {
        let mut all = self.clone();
        all.id.clone_from(&newer.id);
        for file in &newer.files {
            if all.files.iter().any(|known| known.path == file.path) {
                continue;
            }
            let copy = all.next_copy();
            let was = file.was.clone().map(|saved| {
                keep(saved.copy, copy);
                Saved { copy, ..saved }
            });
            all.files.push(Original { was, ..file.clone() });
        }
        let add = |list: &mut Vec<String>, more: &[String]| {
            for name in more {
                if !list.contains(name) {
                    list.push(name.clone());
                }
            }
        };
        add(&mut all.accounts, &newer.accounts);
        add(&mut all.folders, &newer.folders);
        all.has_unit |= newer.has_unit;
        all
    }
}

/// The text that [`Ledger::parse`] reads.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, files, accounts, folders, has_unit } = self;
        let list = |names: &[String]| names.iter().map(|name| written(name)).collect::<Vec<_>>().join(", ");
        writeln!(f, "# What this host was before `hallpass host enrol`: the way back. Do not edit.")?;
        writeln!(f, "version = {VERSION}\nid = \"{id}\"\nhas_unit = {has_unit}")?;
        writeln!(f, "accounts = [{}]\nfolders = [{}]", list(accounts), list(folders))?;
        for Original { path, is_ours, was } in files {
            writeln!(f, "\n[[file]]\npath = {}\nis_ours = {is_ours}", written(path))?;
            if let Some(Saved { copy, mode, uid, gid }) = was {
                writeln!(f, "copy = {copy}\nmode = {mode}\nuid = {uid}\ngid = {gid}")?;
            }
        }
        f.write_char('\n')
    }
}

fn read_root(root: &Table<'_>) -> Option<Ledger> {
    let version = root.needed("version", root.integer("version", VERSION..=VERSION), "version = 1");
    let id = root.needed("id", root.parsed("id", parse_id), "an id");
    let has_unit = root.flag("has_unit").is_some_and(|found| found.value);
    let names = |key, parse: fn(&str) -> Result<String, String>| {
        let list = root.needed(key, root.list(key, COUNT_MAX, parse), "a list")?;
        Some(list.value.into_iter().map(|name| name.value).collect::<Vec<_>>())
    };
    let (accounts, folders) = (names("accounts", parse_account), names("folders", parse_path));
    let tables = root.tables("file", COUNT_MAX);
    let files: Vec<Original> = tables.iter().filter_map(read_file).collect();
    if version.is_none() || files.len() != tables.len() {
        return None;
    }
    Some(Ledger { id: id?.value, files, accounts: accounts?, folders: folders?, has_unit })
}

fn read_file(table: &Table<'_>) -> Option<Original> {
    let path = table.needed("path", table.parsed("path", parse_path), "a path");
    let is_ours = table.needed("is_ours", table.flag("is_ours"), "true or false");
    let copy = table.integer("copy", 0..=u64::from(u32::MAX)).map(|found| found.value);
    let number = |key, most: u32| {
        let found = table.integer(key, 0..=u64::from(most))?.value;
        u32::try_from(found).ok()
    };
    let (mode, uid, gid) = (number("mode", 0o7777), number("uid", u32::MAX), number("gid", u32::MAX));
    let was = match copy {
        Some(copy) => Some(Saved { copy, mode: mode?, uid: uid?, gid: gid? }),
        None => None,
    };
    Some(Original { path: path?.value, is_ours: is_ours?.value, was })
}

fn parse_id(text: &str) -> Result<String, String> {
    let is_fine = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_fine { Ok(text.to_owned()) } else { Err("not an id".to_owned()) }
}

fn parse_account(text: &str) -> Result<String, String> {
    crate::name::Account::parse(text).map(|account| account.to_string()).map_err(|error| error.to_string())
}

/// A path of the host without anything that leads elsewhere.
fn parse_path(text: &str) -> Result<String, String> {
    let is_plain = text.starts_with('/') && text.len() < 1_000 && !text.split('/').any(|part| part == "..");
    if is_plain { Ok(text.to_owned()) } else { Err("not a path".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let saved = |copy| Some(Saved { copy, mode: 0o644, uid: 0, gid: 7 });
        let file = |path: &str, was: Option<Saved>| Original { path: path.to_owned(), is_ours: was.is_none(), was };
        Ledger {
            id: "0123456789abcdef".to_owned(),
            // The last has an accent that stands on its own: Rust's way to write it is not TOML's.
            files: vec![file("/etc/a b\"", saved(0)), file("/etc/b", None), file("/etc/c\\e\u{301}", None)],
            accounts: vec!["hallpass-check".to_owned()],
            folders: vec!["/etc/x".to_owned(), "/etc/x/y".to_owned()],
            has_unit: true,
        }
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        assert_eq!(Ledger::parse(&ledger().to_string()), Ok(ledger()));
        let empty = Ledger { id: "00000000000000ff".to_owned(), ..Ledger::default() };
        assert_eq!(Ledger::parse(&empty.to_string()), Ok(empty));
    }

    #[test]
    fn one_that_is_not_understood_is_an_error() {
        let text = ledger().to_string();
        for (from, to) in [
            ("version = 1", "version = 2"),
            ("id = \"01", "id = \"g1"),
            ("/etc/b", "/etc/../b"),
            ("is_ours = true", "is_ours = true\nis_mine = true"),
            ("gid = 7\n", ""),
            ("hallpass-check", "hall pass"),
        ] {
            assert!(text.contains(from) && Ledger::parse(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(Ledger::parse("").is_err());
    }

    #[test]
    fn what_was_there_first_counts() {
        let saved = |copy| Some(Saved { copy, mode: 0o600, uid: 1, gid: 1 });
        let newer = Ledger {
            id: "fedcba9876543210".to_owned(),
            files: vec![
                Original { path: "/etc/b".to_owned(), is_ours: true, was: saved(0) },
                Original { path: "/etc/c".to_owned(), is_ours: false, was: saved(1) },
            ],
            accounts: vec!["hallpass-check".to_owned(), "other".to_owned()],
            ..Ledger::default()
        };
        let mut kept = Vec::new();
        let all = ledger().joined(&newer, |from, to| kept.push((from, to)));
        assert_eq!(kept, [(1, 1)]);
        assert_eq!(all.id, newer.id);
        assert_eq!(all.files[1].was, None, "there was no /etc/b before we came");
        assert_eq!((all.files[3].path.as_str(), all.files[3].was.clone()), ("/etc/c", saved(1)));
        assert_eq!(all.accounts, ["hallpass-check", "other"]);
        assert!(all.has_unit);
    }
}
