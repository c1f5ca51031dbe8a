//! `hallpass demo` as people run it: the real program, as root and as an ordinary user.

use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hallpass");

fn document(output: &Output) -> serde_json::Value {
    let err = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{err}\n{out}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e} in {out}"))
}

/// The steps that must be in every story, by a word of each.
const STEPS: [&str; 12] = [
    "signing service runs",
    "logged in",
    "host web-1 runs",
    "asks for 20 s",
    "before approval there is no certificate",
    "before approval sshd refuses",
    "may not approve it herself",
    "the clock starts now",
    "ssh-keygen -L reads it",
    "plain ssh runs a command",
    "all its processes are ended",
    "verifies offline",
];

#[track_caller]
fn check(story: &serde_json::Value) {
    assert_eq!(story["schema"], "hallpass.demo.v1");
    crate::cli::schemas::check_lines(&story.to_string());
    assert_eq!(story["held"], true, "{story:#}");
    let steps = story["steps"].as_array().unwrap();
    for wanted in STEPS {
        let step = steps.iter().find(|s| s["what"].as_str().unwrap().contains(wanted));
        assert_eq!(step.unwrap_or_else(|| panic!("no step says {wanted:?}: {story:#}"))["held"], true);
    }
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM).args(["demo", "--json"]).env("TMPDIR", folder.path()).output().unwrap();
    let story = document(&output);
    check(&story);
    if rustix::process::geteuid().is_root() {
        let text = story.to_string();
        assert!(text.contains("refused for the account nobody"), "{story:#}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the throw-away state is gone");
}

#[test]
fn the_demo_holds_for_an_ordinary_user_and_says_what_it_can_not_show() {
    if !rustix::process::geteuid().is_root() {
        // Then the test above ran as one.
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    for path in [folder.path(), &home] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    rustix::fs::chown(&home, Some(rustix::process::Uid::from_raw(64_005)), None).unwrap();
    // The program itself may lie where others can't go.
    let program = folder.path().join("hallpass");
    std::fs::copy(PROGRAM, &program).unwrap();
    // An account of our own, in a mount namespace of our own.
    let passwd = folder.path().join("passwd");
    let mut accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    accounts.push_str(&format!("walker:x:64005:64005::{}:/bin/sh\n", home.display()));
    std::fs::write(&passwd, accounts).unwrap();
    std::fs::set_permissions(&passwd, std::fs::Permissions::from_mode(0o644)).unwrap();
    let script = format!("mount --bind '{}' /etc/passwd && exec \"$@\"", passwd.display());
    let output = Command::new("unshare")
        .args(["-m", "--", "sh", "-c", &script, "sh"])
        .args(["setpriv", "--reuid=64005", "--regid=64005", "--clear-groups"])
        .arg(&program)
        .args(["demo", "--json"])
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .current_dir("/")
        .output()
        .unwrap();
    let story = document(&output);
    check(&story);
    assert!(story["not_shown"].to_string().contains("not shown without root"), "{story:#}");
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "the throw-away state is gone");
}
