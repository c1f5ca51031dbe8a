//! CA keys in files: those of `ssh-keygen` open, encrypted too; whatever others could read or is no CA key is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hallpass::signer::Signer as _;
use hallpass::signer::file::{FileSigner, Settings};
use hallpass::ssh::PublicKey;
use hallpass::ssh::cert::Purpose;
use secrecy::SecretString;

use super::{Bench, run};

fn open(path: &Path, passphrase_path: Option<PathBuf>) -> Result<PublicKey, String> {
    let settings = Settings { path: path.to_owned(), passphrase_path };
    FileSigner::open(&settings, Purpose::User)
        .map(|signer| signer.public_key().clone())
        .map_err(|error| error.to_string())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_by_ssh_keygen_opens_plain_and_under_a_passphrase() {
    let bench = Bench::new();
    let plain = bench.public_key("plain", &["-t", "ed25519"]);
    assert_eq!(open(&bench.path("plain"), None), Ok(plain));
    let key = bench.public_key("ca", &["-t", "ed25519", "-a", "4", "-N", "correct horse"]);
    for content in ["correct horse", "correct horse\n", "correct horse\r\n"] {
        assert_eq!(open(&bench.path("ca"), Some(bench.write("passphrase", content))), Ok(key.clone()), "{content:?}");
    }
    let error = open(&bench.path("ca"), Some(bench.write("passphrase", "wrong"))).unwrap_err();
    assert!(error.ends_with("the passphrase does not open the private key"), "{error}");
    assert!(open(&bench.path("ca"), None).unwrap_err().contains("name that as its passphrase file"));
    for content in ["", "\n", "correct horse\n\n", "a\nb"] {
        assert!(open(&bench.path("ca"), Some(bench.write("passphrase", content))).is_err(), "{content:?}");
    }
}

#[test]
fn a_key_that_others_can_reach_is_refused_with_the_command_that_mends_it() {
    let bench = Bench::new();
    let key = bench.public_key("ca", &["-t", "ed25519", "-a", "4", "-N", "secret"]);
    let (path, passphrase) = (bench.path("ca"), bench.write("passphrase", "secret"));
    for (mode, broken) in [(0o600, false), (0o400, false), (0o644, true), (0o660, true), (0o601, true), (0o620, true)] {
        for (file, other) in [(&path, &passphrase), (&passphrase, &path)] {
            set_mode(file, mode);
            set_mode(other, 0o600);
            let opened = open(&path, Some(passphrase.clone()));
            if broken {
                let mend = format!("others have access to it (mode {mode:04o}): run `chmod 600 {}`", file.display());
                assert!(opened.as_ref().is_err_and(|error| error.contains(&mend)), "{mode:o}: {opened:?}");
            } else {
                assert_eq!(opened, Ok(key.clone()));
            }
        }
    }
}

#[test]
fn a_link_is_followed_and_what_it_points_to_is_checked() {
    let bench = Bench::new();
    let key = bench.public_key("ca", &["-t", "ed25519"]);
    symlink(bench.path("ca"), bench.path("link")).unwrap();
    assert_eq!(open(&bench.path("link"), None), Ok(key));
    set_mode(&bench.path("ca"), 0o644);
    assert!(open(&bench.path("link"), None).is_err());
}

#[test]
fn what_is_no_key_file_is_refused() {
    let bench = Bench::new();
    assert!(open(&bench.path("absent"), None).unwrap_err().contains("No such file"));
    assert!(open(bench.folder.path(), None).unwrap_err().contains("not a regular file"));
    run(Command::new("mkfifo").arg("-m").arg("600").arg(bench.path("pipe")));
    assert!(open(&bench.path("pipe"), None).unwrap_err().contains("not a regular file"));
    assert!(open(&bench.write("long", vec![b'x'; 65_537]), None).unwrap_err().contains("longer than 64 KiB"));
    assert!(open(&bench.write("text", "hello"), None).unwrap_err().contains("not a private key in OpenSSH's format"));
    bench.keygen("ca", &["-t", "ed25519"]);
    set_mode(&bench.path("ca.pub"), 0o600);
    assert!(open(&bench.path("ca.pub"), None).unwrap_err().contains("not a private key in OpenSSH's format"));
    let unencrypted = open(&bench.path("ca"), Some(bench.write("passphrase", "x"))).unwrap_err();
    assert!(unencrypted.contains("the key is not encrypted"), "{unencrypted}");
    for (name, arguments) in [("p384", &["-t", "ecdsa", "-b", "384"]), ("rsa", &["-t", "rsa", "-b", "3072"])] {
        bench.keygen(name, arguments);
        let error = open(&bench.path(name), None).unwrap_err();
        assert!(error.contains("RSA and ECDSA CA keys come with agent and PKCS#11 backends"), "{error}");
    }
}

/// Only root can give a file away, so only root sees these rules at work.
#[test]
fn a_key_of_another_user_is_refused_and_a_systemd_credential_is_taken() {
    let bench = Bench::new();
    let key = bench.public_key("ca", &["-t", "ed25519"]);
    let path = bench.path("ca");
    if chown(&path, Some(0), Some(0)).is_err() {
        return;
    }
    set_mode(&path, 0o440);
    assert_eq!(open(&path, None), Ok(key));
    chown(&path, Some(0), Some(12_345)).unwrap();
    assert!(open(&path, None).is_err(), "a group other than root may read it");
    chown(&path, Some(12_345), Some(0)).unwrap();
    set_mode(&path, 0o600);
    assert!(open(&path, None).unwrap_err().contains("it belongs to user id 12345"));
}

#[test]
fn a_created_key_is_read_by_ssh_keygen_and_never_overwritten() {
    let bench = Bench::new();
    for (name, passphrase) in [("plain", None), ("locked", Some("correct horse"))] {
        let path = bench.path(name);
        let key = FileSigner::create(&path, "hallpass CA", passphrase.map(SecretString::from).as_ref()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let line = run(Command::new("ssh-keygen").args(["-y", "-P", passphrase.unwrap_or(""), "-f"]).arg(&path));
        assert_eq!(line, format!("{} hallpass CA\n", key.to_openssh()));
        let passphrase_path = passphrase.map(|passphrase| bench.write("passphrase", passphrase));
        assert_eq!(open(&path, passphrase_path), Ok(key));
        let before = fs::read(&path).unwrap();
        let error = FileSigner::create(&path, "another", None).unwrap_err().to_string();
        assert!(error.contains("File exists"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
