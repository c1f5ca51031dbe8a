//! Whatever the program is built from has been looked at by somebody: each crate in `Cargo.lock`, and in that of the fuzz targets, is in
//! `tests/golden/crates.txt`. A new one, also one that another crate brings along, is a line of a difference that somebody reads.
//! `HALLPASS_UPDATE_GOLDEN=1` writes the list anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn no_crate_comes_in_unseen() {
    let mut locked = BTreeSet::new();
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let text = std::fs::read_to_string(at(lock)).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
        locked.extend(names.map(str::to_owned));
    }
    let golden = at("tests/golden/crates.txt");
    if std::env::var_os("HALLPASS_UPDATE_GOLDEN").is_some() {
        let lines: Vec<String> = locked.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(&golden, lines.concat()).unwrap();
    }
    let seen: BTreeSet<String> = std::fs::read_to_string(golden).unwrap().lines().map(str::to_owned).collect();
    let new: Vec<&String> = locked.difference(&seen).collect();
    assert!(
        new.is_empty(),
        "new in the lock file: {new:?}; see what they are and who makes them, then HALLPASS_UPDATE_GOLDEN=1"
    );
    let gone: Vec<&String> = seen.difference(&locked).collect();
    assert!(gone.is_empty(), "in tests/golden/crates.txt alone: {gone:?}; HALLPASS_UPDATE_GOLDEN=1 takes them out");
}
