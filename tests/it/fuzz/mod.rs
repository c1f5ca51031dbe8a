//! The fuzz targets, without a fuzzer: each holds for its seeds, for some thousand changes of them, and above every limit.
//!
//! The changes are the same each time. `HALLPASS_FUZZ=100000` makes more of them; for hours and with coverage there is `fuzz/run`.

mod seeds;
#[path = "../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, dead_code, reason = "the library of the fuzz targets, whose functions the targets call")]
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use targets::{TARGETS, Target};

use crate::support::numbers::Numbers;

/// How many changes of the seeds each target sees, unless the environment says otherwise.
const CHANGES: usize = 1_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Names of the files in a folder, without what is behind the point.
fn names_in(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The seeds of a target, in the order of their names.
fn seeds_of(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder().join("seeds").join(name)).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let mut seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    if name == "entry" {
        // As `fuzz/run` does it: each line of the golden file is one.
        let golden = std::fs::read(folder().join("../tests/golden/events.jsonl")).unwrap();
        seeds.extend(golden.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
    }
    seeds
}

/// What breaks readers: lengths at the edges, controls, quotes, digits, characters of several bytes, pieces of a syntax.
const PIECES: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\\\",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\0\0\0\x01",
    b"\x7f\xff\xff\xff",
    b" ",
    b"#",
    b"=",
    b"[[",
    b"{",
    b"18446744073709551616",
    b"-1",
    "\u{202e}".as_bytes(),
    "e\u{301}".as_bytes(),
    "\u{feff}".as_bytes(),
    "\u{1f4be}".as_bytes(),
];

/// A seed with one to four changes.
fn changed(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let (at, other) = (numbers.below(bytes.len()), &seeds[numbers.below(seeds.len())]);
        let (from, upto) = (numbers.below(other.len()), numbers.below(64));
        let piece = other.get(from..(from + upto).min(other.len())).unwrap_or_default();
        match numbers.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            1 if !bytes.is_empty() => bytes[at] = u8::try_from(numbers.below(256)).unwrap(),
            2 => drop(bytes.drain(at..(at + upto).min(bytes.len()))),
            3 => drop(bytes.splice(at..at, piece.to_vec())),
            4 => drop(bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].to_vec())),
            5 => bytes.truncate(at),
            _ => {
                let again = bytes.get(at..(at + upto).min(bytes.len())).unwrap_or_default().to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes
}

/// Runs a target, and shows the input when it fails.
fn holds(target: &Target, bytes: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(bytes.get(..4_096).unwrap_or(bytes)).into_owned();
    catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)))
        .unwrap_or_else(|_| panic!("{}: {} bytes: {:?}", target.name, bytes.len(), shown()))
}

/// A target must hold for all of it, take at least one seed, and refuse at least one change.
fn hold(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = seeds_of(name);
    assert!(seeds.iter().filter(|seed| holds(target, seed)).count() > 0, "{name}: no seed is taken");
    let changes = std::env::var("HALLPASS_FUZZ").ok().map_or(CHANGES, |text| text.parse().expect("HALLPASS_FUZZ"));
    let mut numbers = Numbers(u64::try_from(name.len()).unwrap());
    let refused = (0..changes).filter(|_| !holds(target, &changed(&seeds, &mut numbers))).count();
    assert!(refused > 0, "{name}: every change is taken");
    // Longer than anything that is taken, and nothing at all.
    let longest = seeds.iter().max_by_key(|seed| seed.len()).unwrap();
    holds(target, &longest.repeat(target.longest / longest.len().max(1) + 1));
    holds(target, b"");
}

macro_rules! targets_hold {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            hold(stringify!($name));
        })*

        #[test]
        fn every_target_is_tried_here_has_seeds_and_is_a_program_for_the_fuzzer() {
            let tried: BTreeSet<String> = [$(stringify!($name)),*].map(str::to_owned).into();
            let listed: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
            assert_eq!(tried, listed);
            assert_eq!(names_in(&folder().join("seeds")), listed);
            assert_eq!(names_in(&folder().join("fuzz_targets")), listed);
            let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
            for name in &listed {
                assert!(manifest.contains(&format!("\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")), "{name}");
            }
            assert!(names_in(&folder().join("dictionaries")).is_subset(&listed), "a dictionary of no target");
        }
    };
}

targets_hold!(agent auth_info bodies bundle certificate config entry export host_files names policy public_key signature);

/// The profile that is built with, of one kind of crates.
fn profile<'m>(manifest: &'m str, of: &str) -> &'m str {
    let begin = format!("\n[profile.dev.package.{of}]\n");
    let (_, rest) = manifest.split_once(&begin).unwrap_or_else(|| panic!("no profile of {of}"));
    rest.split("\n[").next().unwrap().split("\n#").next().unwrap().trim_end()
}

#[test]
fn what_is_built_with_coverage_never_gets_into_the_program() {
    let fuzz = std::fs::read_to_string(folder().join("Cargo.toml")).unwrap();
    let ours = std::fs::read_to_string(folder().join("../Cargo.toml")).unwrap();
    // The same for all that is not: both are built in one place, and cargo tells them apart by this alone.
    assert_eq!(profile(&fuzz, "\"*\""), profile(&ours, "\"*\""));
    let script = std::fs::read_to_string(folder().join("instrument")).unwrap();
    let names: Vec<&str> = script
        .lines()
        .find(|line| line.ends_with(") ;;"))
        .unwrap()
        .trim_end_matches(") ;;")
        .split(" | ")
        .filter_map(|pattern| pattern.trim().strip_prefix("*:"))
        .collect();
    assert!(names.contains(&"ssh-key"), "{names:?}");
    for name in &names {
        let level = profile(&fuzz, name);
        assert!(!profile(&ours, "\"*\"").contains(level), "{name}: {level}");
        assert!(!ours.contains(&format!("[profile.dev.package.{name}]")), "{name}");
    }
    let with_level = fuzz.matches("\n[profile.dev.package.").count();
    assert_eq!(with_level, names.len() + 1, "a crate has a level of its own and is built without coverage");
}
