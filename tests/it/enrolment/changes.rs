//! Changes of files that are cut short, that fail, and that are taken back after others have edited the files too.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use hallpass::enrolment::ledger::Ledger;
use hallpass::enrolment::memory::{Memory, Standing, Which};
use hallpass::enrolment::places::{self, Root};
use hallpass::enrolment::plan::Write;
use hallpass::enrolment::{pam, texts};

const CONFIG: &str = "Port 22\nUsePAM yes";
const PAM: &str = "session required pam_loginuid.so\n";

/// A host's files below a folder of its own.
struct Host {
    folder: tempfile::TempDir,
    memory: Memory,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().to_owned());
        for name in ["etc/ssh", "etc/pam.d"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let host = Self { memory: Memory::new(&root), folder };
        host.put(places::SSHD_CONFIG, CONFIG, 0o640);
        host.put(places::PAM, PAM, 0o644);
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        Root::new(self.folder.path().to_owned()).path(path)
    }

    fn put(&self, path: &str, text: &str, mode: u32) {
        std::fs::write(self.path(path), text).unwrap();
        std::fs::set_permissions(self.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    /// Everything below `/etc`: path, mode and content.
    fn all(&self) -> Vec<(String, u32, String)> {
        let mut all = Vec::new();
        collect(&self.path("/etc"), &mut all);
        all.sort();
        all
    }

    fn begin(&self, id: &str, writes: &[Write]) -> Ledger {
        self.memory.begin(id, writes, &["hallpass-check".to_owned()], false).unwrap()
    }

    fn change(&self, id: &str, writes: &[Write]) -> Ledger {
        let ledger = self.begin(id, writes);
        for write in writes {
            self.memory.write(&ledger, write).unwrap();
        }
        ledger
    }

    fn leave(&self) {
        let Standing::Enrolled(ledger) = self.memory.standing().unwrap() else { panic!("not enrolled") };
        self.memory.restore(Which::Enrolment, &ledger, |_| true).unwrap();
        self.memory.remove_folders(&ledger).unwrap();
        self.memory.forget_all().unwrap();
    }
}

fn collect(folder: &Path, all: &mut Vec<(String, u32, String)>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let mode = entry.metadata().unwrap().mode();
        let text = if path.is_dir() { String::new() } else { std::fs::read_to_string(&path).unwrap() };
        all.push((path.display().to_string(), mode, text));
        if path.is_dir() {
            collect(&path, all);
        }
    }
}

fn id(n: u64) -> String {
    format!("{n:016x}")
}

fn write(path: &str, text: &str, is_ours: bool) -> Write {
    Write { path: path.to_owned(), text: Some(text.to_owned()), is_ours }
}

/// What enrolment writes, in its order.
fn writes() -> Vec<Write> {
    vec![
        write(places::HOST_TOML, "name = \"web-1\"\n", true),
        write(places::TRUST, "keys 1\n", true),
        Write { path: "/etc/ssh/hallpass/later".to_owned(), text: None, is_ours: true },
        write(places::PAM, &pam::with_guard(PAM, "/usr/local/bin/hallpass-host").unwrap(), false),
        write(places::SSHD_CONFIG, &texts::with_include(CONFIG), false),
    ]
}

#[test]
fn a_change_that_is_cut_short_after_any_file_is_taken_back_byte_for_byte() {
    for cut in 0..=writes().len() {
        let host = Host::new();
        let before = host.all();
        let ledger = host.begin(&id(1), &writes());
        for write in writes().iter().take(cut) {
            host.memory.write(&ledger, write).unwrap();
        }
        // Half of the next one, as a crash leaves it.
        std::fs::write(host.path("/etc/ssh/.sshd_config.99-0.tmp"), "half").unwrap();
        let Standing::Unfinished(found) = host.memory.standing().unwrap() else { panic!("it is forgotten") };
        assert_eq!(*found, ledger);
        for _ in 0..2 {
            host.memory.restore(Which::Change, &found, |_| true).unwrap();
            host.memory.remove_folders(&found).unwrap();
        }
        host.memory.forget_change().unwrap();
        assert_eq!(host.all(), before, "cut after {cut}");
        assert_eq!(host.memory.standing(), Ok(Standing::Fresh));
    }
}

#[test]
fn what_holds_is_taken_back_by_leaving_also_after_it_was_changed_again() {
    let host = Host::new();
    let before = host.all();
    let first = host.change(&id(1), &writes());
    host.memory.keep(&first).unwrap();
    assert!(matches!(host.memory.standing(), Ok(Standing::Enrolled(_))));
    assert_eq!(std::fs::metadata(host.path(places::SSHD_CONFIG)).unwrap().mode() & 0o7777, 0o640);
    // The daemon goes on writing; an enrolment anew adds a file and changes others.
    host.put("/etc/ssh/hallpass/ended", "7\n", 0o644);
    let mut again = writes();
    again.push(write("/etc/ssh/sshd_config.d/00-hallpass.conf", "more\n", true));
    let second = host.change(&id(2), &again);
    host.memory.keep(&second).unwrap();
    host.put(places::TRUST, "keys 9\n", 0o644);
    host.leave();
    assert_eq!(host.all(), before);
    assert!(!host.path(places::MEMORY).exists());
}

#[test]
fn a_second_change_that_fails_leaves_the_first_in_force() {
    let host = Host::new();
    let first = host.change(&id(1), &writes());
    host.memory.keep(&first).unwrap();
    let enrolled = host.all();
    let second = host.change(&id(2), &[write(places::HOST_TOML, "name = \"web-2\"\n", true)]);
    assert_eq!(host.text(places::HOST_TOML).as_deref(), Some("name = \"web-2\"\n"));
    host.memory.restore(Which::Change, &second, |_| true).unwrap();
    host.memory.forget_change().unwrap();
    assert_eq!(host.all(), enrolled);
    host.leave();
    assert_eq!(host.text(places::SSHD_CONFIG).as_deref(), Some(CONFIG));
}

#[test]
fn a_crash_between_holding_and_sweeping_is_no_reason_to_take_it_back() {
    let host = Host::new();
    let change = host.change(&id(1), &writes());
    let folder = host.path(places::MEMORY);
    let kept = std::fs::read(folder.join("changing.toml")).unwrap();
    host.memory.keep(&change).unwrap();
    std::fs::write(folder.join("changing.toml"), kept).unwrap();
    assert!(matches!(host.memory.standing(), Ok(Standing::Enrolled(_))));
    assert!(!folder.join("changing.toml").exists());
}

#[test]
fn what_others_have_edited_since_stays_and_only_our_lines_go() {
    let host = Host::new();
    let change = host.change(&id(1), &writes());
    host.memory.keep(&change).unwrap();
    let config = host.text(places::SSHD_CONFIG).unwrap();
    host.put(places::SSHD_CONFIG, &format!("{config}\nBanner /etc/issue\n"), 0o640);
    let lines = host.text(places::PAM).unwrap();
    host.put(places::PAM, &format!("{lines}session optional pam_motd.so\n"), 0o644);
    host.leave();
    assert_eq!(host.text(places::SSHD_CONFIG).unwrap(), format!("{CONFIG}\nBanner /etc/issue\n"));
    assert_eq!(host.text(places::PAM).unwrap(), format!("{PAM}session optional pam_motd.so\n"));
}

#[test]
fn a_host_that_was_set_up_by_hand_gets_its_own_files_back() {
    let host = Host::new();
    std::fs::create_dir_all(host.path(places::SSHD_FOLDER)).unwrap();
    host.put(places::TRUST, "by hand\n", 0o600);
    let before = host.all();
    let change = host.change(&id(1), &writes());
    assert_eq!(std::fs::metadata(host.path(places::TRUST)).unwrap().mode() & 0o777, 0o644, "sshd's command reads it");
    host.memory.keep(&change).unwrap();
    host.leave();
    assert_eq!(host.all(), before);
}

#[test]
fn a_folder_in_which_nothing_can_be_written_changes_nothing() {
    let host = Host::new();
    // Where a folder should be made stands a file: no permission keeps root from anything.
    host.put("/etc/hallpass", "not a folder", 0o644);
    let before = host.all();
    let refused = host.memory.begin(&id(1), &writes(), &[], false).unwrap_err();
    assert!(refused.contains("/etc/hallpass"), "{refused}");
    assert_eq!((host.all(), host.memory.standing()), (before, Ok(Standing::Fresh)));
    std::fs::remove_file(host.path("/etc/hallpass")).unwrap();
    let before = host.all();
    let ledger = host.begin(&id(1), &writes());
    host.put("/etc/hallpass", "it came in between", 0o644);
    let failed = writes().iter().find_map(|write| host.memory.write(&ledger, write).err());
    assert!(failed.unwrap().contains("/etc/hallpass"));
    std::fs::remove_file(host.path("/etc/hallpass")).unwrap();
    host.memory.restore(Which::Change, &ledger, |_| true).unwrap();
    host.memory.remove_folders(&ledger).unwrap();
    assert_eq!(host.all(), before);
}

#[test]
fn a_ledger_that_is_not_understood_stops_everything() {
    let host = Host::new();
    host.change(&id(1), &writes());
    std::fs::write(host.path(places::MEMORY).join("changing.toml"), "version = 9\n").unwrap();
    assert!(host.memory.standing().unwrap_err().contains("changing.toml"));
}
