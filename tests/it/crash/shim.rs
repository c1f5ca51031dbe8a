//! The failing disk (`shim.c`): built once, and told what to fail.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// `errno` of Linux: an error of the device, no space left, too many open files.
pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;
pub(crate) const EMFILE: i32 = 24;

/// The library, built once for the test program.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // Kept, since it is loaded until the end; one small file.
        let library = tempfile::Builder::new().prefix("shim").tempdir().unwrap().keep().join("shim.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/crash/shim.c");
        let options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"];
        let built = Command::new("cc").args(options).arg(&library).arg(source).status();
        assert!(built.unwrap().success());
        library
    })
}

/// Which call on which file fails how: `("fsync", "hallpass.db-wal", EIO)`.
pub(crate) type Rule = (&'static str, &'static str, i32);

/// What one service's disk does.
pub(crate) struct Shim {
    control: PathBuf,
}

impl Shim {
    /// Its files are in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { control: folder.join("faults") }
    }

    /// Has a program that is started live on this disk.
    pub(crate) fn wrap(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("HALLPASS_TEST_FAULTS", &self.control);
    }

    /// From now on these calls fail: each `every`-th.
    pub(crate) fn fail(&self, rules: &[Rule], every: u32) {
        let lines = rules.iter().map(|(call, file, number)| format!("{call} {file} {number} 0 {every}\n"));
        self.say(&lines.collect::<String>());
    }

    /// From now on all goes well.
    pub(crate) fn mend(&self) {
        self.say("");
    }

    fn say(&self, rules: &str) {
        // Who reads sees the old rules or the new.
        let new = self.control.with_extension("new");
        std::fs::write(&new, rules).unwrap();
        std::fs::rename(new, &self.control).unwrap();
    }

    /// How many calls failed so far.
    pub(crate) fn hits(&self) -> usize {
        std::fs::read_to_string(self.control.with_extension("hits")).unwrap_or_default().lines().count()
    }

    /// Waits until so many more have failed.
    pub(crate) async fn hit(&self, more: usize) {
        let wanted = self.hits() + more;
        while self.hits() < wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What a power failure makes of the write-ahead log, the database or the kept checkpoint, when nothing runs any more: what a failed sync has not brought to the disk is
    /// gone. Gives the number of bytes.
    pub(crate) fn power_fails(&self, file: &Path) -> u64 {
        use std::os::unix::fs::FileExt as _;
        let name = file.to_str().unwrap();
        let ranges = match name.rsplit_once(['-', '.']).unwrap().1 {
            "wal" => "lost",
            "head" => "lost-head",
            _ => "lost-database",
        };
        let ranges = self.control.with_extension(ranges);
        let ranges = std::fs::read_to_string(ranges).unwrap_or_default();
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(file) else { return 0 };
        let mut lost = 0;
        for line in ranges.lines() {
            let (at, len) = line.split_once(' ').unwrap();
            let (at, len): (u64, u64) = (at.parse().unwrap(), len.parse().unwrap());
            if at < file.metadata().unwrap().len() {
                file.write_all_at(&vec![0; usize::try_from(len).unwrap()], at).unwrap();
                lost += len;
            }
        }
        lost
    }
}
