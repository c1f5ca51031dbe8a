//! Reading files with secrets: nobody but us or root can read or change them.
//!
//! What for: the one way in for the CA key, its passphrase, the log key and the server's TLS key, so that one rule holds for all.
//!
//! Invariants: the checks are made on the opened file, so a link may point to it and can't be swapped in between; what was read
//! is wiped when it is dropped.
//!
//! Decision: `root:root 0440` is taken. systemd shows credentials (`LoadCredential=`) of a service with `User=` so: the
//! group bits are the mask of the access list that lets just that user in. The group root is root.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

/// The longest passphrase file. Our own choice.
const PASSPHRASE_BYTES_MAX: usize = 4096;

/// The longest list of accounts that is looked through. Our own choice.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;

/// How the path of a credential begins that systemd has not given.
const CREDENTIAL: &str = "credential:";

/// Where systemd's credential of this name is, if it has given a folder of them. Else a path that [`read()`] refuses with the reason: only
/// who reads it lacks it.
#[must_use]
pub fn credential(folder: Option<&Path>, name: &str) -> PathBuf {
    folder.map_or_else(|| PathBuf::from(format!("{CREDENTIAL}{name}")), |folder| folder.join(name))
}

/// The name of the credential that systemd has not given, if this is the path of one.
#[must_use]
pub fn missing(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(CREDENTIAL)
}

/// The bytes of a file with a secret; at most `limit`.
///
/// # Errors
/// In words for the operator, without the file's name: what is wrong with it and how to mend it.
pub fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    if let Some(name) = missing(path) {
        return Err(format!("there is no credential {name:?}: systemd gives them (LoadCredential=), and did not"));
    }
    let io = |error: std::io::Error| error.to_string();
    // Without O_NONBLOCK a named pipe would hold us here for ever.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    check_access(path, &metadata)?;
    // Room for all of it: a buffer that grows leaves copies behind.
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(limit);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(2)));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let count = <&File>::take(&file, most).read_to_end(&mut bytes).map_err(io)?;
    if count > limit {
        return Err(format!("it is longer than {} KiB, so it is no such thing", limit.div_ceil(1024)));
    }
    Ok(bytes)
}

/// A passphrase: the only line of its file.
///
/// # Errors
/// As [`read()`].
pub fn passphrase(path: &Path) -> Result<SecretString, String> {
    let bytes = read(path, PASSPHRASE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains('\n') {
        return Err("it must hold the passphrase on one line and nothing else".to_owned());
    }
    Ok(SecretString::from(text))
}

/// Whether a program's library is nobody's to change but ours and root's: whoever can, runs as us.
///
/// # Errors
/// As [`read()`].
pub fn is_ours_to_run(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    check_owner(&metadata, path)?;
    if metadata.is_file() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err("it is not a file that only its owner can change: run `chmod go-w` on it".to_owned())
}

/// Whether nobody but us and root can connect to a socket.
///
/// # Errors
/// As [`read()`].
pub fn is_ours_to_ask(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    check_owner(&metadata, path)?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(format!("others can connect to it (mode {mode:04o}), and have it sign: run `chmod 600 {}`", path.display()))
}

/// What a user is called, where this machine's own list has a name for it that may stand in a line to be typed.
#[must_use]
pub fn user_name(id: u32) -> Option<String> {
    let mut accounts = String::new();
    File::open("/etc/passwd").ok()?.take(ACCOUNTS_BYTES_MAX).read_to_string(&mut accounts).ok()?;
    let named = |line: &str| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        (uid.parse() == Ok(id)).then(|| name.to_owned())
    };
    let is_plain = |name: &String| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(allowed)
    };
    accounts.lines().find_map(named).filter(is_plain)
}

/// The user that this machine's own list has under a name.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    let mut accounts = String::new();
    File::open("/etc/passwd").ok()?.take(ACCOUNTS_BYTES_MAX).read_to_string(&mut accounts).ok()?;
    let line = accounts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split(':').nth(1)?.parse().ok()
}

/// The user as `chown` takes it.
#[must_use]
pub fn user(id: u32) -> String {
    user_name(id).unwrap_or_else(|| id.to_string())
}

/// The line with which the owner of something says this.
#[must_use]
pub fn sudo_as(id: u32) -> String {
    user_name(id).map_or_else(|| format!("sudo -u '#{id}'"), |name| format!("sudo -u {name}"))
}

fn check_owner(metadata: &Metadata, path: &Path) -> Result<(), String> {
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == us || owner == 0 {
        return Ok(());
    }
    Err(format!("it belongs to user id {owner}: {}", of_another(owner, us, path)))
}

/// What to do about a file of another user. Root is hardly the one it should belong to: the service would lose it.
fn of_another(owner: u32, us: u32, path: &Path) -> String {
    match us {
        0 => format!("you are root; run this as that user, with `{}` before it", sudo_as(owner)),
        us => format!("run `chown {} {}` as root", user(us), path.display()),
    }
}

fn check_access(path: &Path, metadata: &Metadata) -> Result<(), String> {
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let (shown, mode) = (path.display(), metadata.mode() & 0o7777);
    if owner != us && owner != 0 {
        return Err(format!("it belongs to user id {owner}, who can read it: {}", of_another(owner, us, path)));
    }
    if !is_private(mode, owner, metadata.gid()) {
        return Err(format!("others have access to it (mode {mode:04o}): run `chmod 600 {shown}`"));
    }
    Ok(())
}

/// No access for group or others, or a systemd credential.
const fn is_private(mode: u32, owner: u32, group: u32) -> bool {
    let is_credential = owner == 0 && group == 0 && mode & 0o037 == 0;
    mode & 0o077 == 0 || is_credential
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test makes the files that operators make")]
    fn file(folder: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = folder.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn only_we_root_and_systemd_may_have_access() {
        for (mode, owner, group, private) in [
            (0o600, 1000, 1000, true),
            (0o400, 0, 0, true),
            (0o440, 0, 0, true),
            (0o440, 1000, 1000, false),
            (0o440, 0, 5, false),
            (0o444, 0, 0, false),
            (0o460, 0, 0, false),
            (0o604, 1000, 1000, false),
        ] {
            assert_eq!(is_private(mode, owner, group), private, "{mode:o} {owner}:{group}");
        }
    }

    #[test]
    fn a_credential_that_was_not_given_is_lacked_by_who_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let (here, nowhere) = (credential(Some(folder.path()), "secret"), credential(None, "secret"));
        assert_eq!(here, file(&folder, "secret", 0o600));
        assert_eq!((missing(&here), missing(&nowhere)), (None, Some("secret")));
        assert_eq!(read(&here, 6).unwrap().as_slice(), b"secret");
        let why = read(&nowhere, 6).unwrap_err();
        assert!(why.contains("there is no credential \"secret\"") && why.contains("LoadCredential="), "{why}");
    }

    #[test]
    fn what_others_can_read_is_not_read_nor_what_is_no_file_or_too_long() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&file(&folder, "secret", 0o600), 6).unwrap().as_slice(), b"secret");
        assert!(read(&file(&folder, "secret", 0o600), 5).unwrap_err().contains("longer"));
        assert!(read(&file(&folder, "secret", 0o644), 6).unwrap_err().contains("chmod 600"));
        assert!(read(folder.path(), 6).unwrap_err().contains("regular file"));
        assert!(read(Path::new("/dev/null"), 6).unwrap_err().contains("regular file"));
    }

    #[test]
    fn what_others_could_change_is_not_run_and_where_they_could_ask_is_not_asked() {
        let folder = tempfile::tempdir().unwrap();
        is_ours_to_run(&file(&folder, "library", 0o755)).unwrap();
        assert!(is_ours_to_run(&file(&folder, "library", 0o775)).unwrap_err().contains("chmod go-w"));
        assert!(is_ours_to_run(folder.path()).is_err());
        assert!(is_ours_to_run(&folder.path().join("nothing")).is_err());
        is_ours_to_ask(&file(&folder, "socket", 0o600)).unwrap();
        assert!(is_ours_to_ask(&file(&folder, "socket", 0o660)).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn root_is_told_to_be_the_files_user_and_not_to_take_the_file() {
        // Numbers that nobody has.
        let (us, they) = (1_999_999_990, 1_999_999_991);
        let (root, other) = (of_another(they, 0, Path::new("/k")), of_another(they, us, Path::new("/k")));
        assert!(root.contains("sudo -u '#1999999991'") && !root.contains("chown"), "{root}");
        assert_eq!(other, "run `chown 1999999990 /k` as root");
        assert_eq!(user(0), "root");
    }

    #[test]
    fn a_passphrase_is_the_only_line() {
        let folder = tempfile::tempdir().unwrap();
        for (text, passphrase_is) in [
            ("a b", Some("a b")),
            ("a b\n", Some("a b")),
            ("a b\r\n", Some("a b")),
            ("", None),
            ("\n", None),
            ("a\nb\n", None),
        ] {
            let read = passphrase(&file(&folder, text, 0o600));
            assert_eq!(read.ok().as_ref().map(ExposeSecret::expose_secret), passphrase_is, "{text:?}");
        }
        passphrase(&file(&folder, "a b\n", 0o644)).unwrap_err();
    }
}
