//! What is known about one running session, in a file of its own.
//!
//! What for: it is written before the session begins, so that whoever ends sessions (its watcher, another session's, a daemon) finds it.
//! Rewriting it with a later end is how an approved extension reaches the watcher; with an earlier one, how access ends early.
//!
//! Invariants: only root reads or writes the folder. A file that can't be understood is an error, never "no deadline" (I-34). The
//! file's name alone tells which session it is. A record of an earlier start of the machine means nothing: its numbers are
//! somebody else's now.
//!
//! *Why not fsync it to death?* `durable` replaces it as a whole; the folder lies in memory (`/run`), and no session outlives it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deadline::Deadline;
use super::ending::Target;
use super::judgement::Governed;
use super::process::{Process, SessionId};
use super::settings;
use crate::document::{self, Table};
use crate::name::{Account, HostName, RequestId, Serial};
use crate::ssh::Fingerprint;
use crate::ssh::cert::KeyId;
use crate::time::{Timestamp, Window};

/// The longest record. Our own choice; a usual one has 500 bytes.
const BYTES_MAX: usize = 16 * 1024;

/// The form of record that this program writes and reads.
const VERSION: u64 = 1;

/// Which session a record is about; also its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The audit session id.
    pub session: SessionId,
    /// The process of the connection.
    pub connection: Process,
}

/// What is known about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which session.
    pub key: Key,
    /// The process that watches over it.
    pub watcher: Process,
    /// When it ends.
    pub deadline: Deadline,
    /// The window of its certificate.
    pub window: Window,
    /// The certificate's serial.
    pub serial: Serial,
    /// Which CA key signed it.
    pub ca: Fingerprint,
    /// Who and which request.
    pub key_id: KeyId,
    /// The account.
    pub account: Account,
    /// The address that the connection came from, if sshd told it.
    pub from: Option<IpAddr>,
    /// What no extension passes, because the login rests on other requests too.
    pub bound: Option<Timestamp>,
    /// This host's name.
    pub host: HostName,
    /// Which start of the machine its numbers belong to.
    pub boot_id: String,
}

/// The folder of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Record {
    /// The record of a login that was let in, from an address that is not known.
    #[must_use]
    pub fn new(
        governed: &Governed,
        host: HostName,
        key: Key,
        watcher: Process,
        deadline: Deadline,
        boot_id: String,
    ) -> Self {
        let fields = &governed.fields;
        Self {
            key,
            watcher,
            deadline,
            window: fields.window,
            serial: fields.serial,
            ca: governed.ca,
            key_id: fields.key_id.clone(),
            account: governed.account.clone(),
            from: None,
            bound: governed.bound,
            host,
            boot_id,
        }
    }

    /// What has to end when it is over.
    #[must_use]
    pub const fn target(&self) -> Target {
        Target { session: self.key.session, connection: self.key.connection, watcher: Some(self.watcher) }
    }

    /// The request that it rests on; none for the host's login to itself.
    #[must_use]
    pub const fn request(&self) -> Option<&RequestId> {
        self.key_id.request()
    }

    /// Parses a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        document::read(text, "record", BYTES_MAX, read_table)
            .map_err(|problems| problems.first().map(ToString::to_string).unwrap_or_default())
    }
}

/// The text that [`Record::parse`] reads.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, watcher, deadline, window, serial, ca, key_id, account, from, bound, host, boot_id } = self;
        writeln!(f, "version = {VERSION}")?;
        writeln!(f, "boot_id = \"{boot_id}\"")?;
        writeln!(f, "session = {}", key.session.number())?;
        writeln!(f, "connection = {}\nconnection_started = {}", key.connection.pid, key.connection.started)?;
        writeln!(f, "watcher = {}\nwatcher_started = {}", watcher.pid, watcher.started)?;
        writeln!(f, "host = \"{host}\"\naccount = \"{account}\"\nca = \"{ca}\"")?;
        from.map_or(Ok(()), |from| writeln!(f, "from = \"{from}\""))?;
        bound.map_or(Ok(()), |bound| writeln!(f, "bound = \"{bound}\""))?;
        self.request().map_or(Ok(()), |request| writeln!(f, "request = \"{request}\""))?;
        writeln!(f, "serial = {serial}\nkey_id = \"{}\"", key_id.as_str())?;
        writeln!(f, "window_start = \"{}\"\nwindow_end = \"{}\"", window.start(), window.end())?;
        writeln!(f, "# The session ends when either clock gets here.")?;
        writeln!(f, "end = \"{}\"\nboot_end_ms = {}", deadline.wall, deadline.boot.as_millis())
    }
}

/// A table: each key once, in the order in which they are written.
fn read_table(root: &Table<'_>) -> Option<Record> {
    let number = |key, most| root.needed(key, root.integer(key, 0..=most), "a number").map(|found| found.value);
    let process = |pid, started| {
        let (pid, started) = (number(pid, 1 << 30), number(started, u64::MAX >> 1));
        Some(Process { pid: i32::try_from(pid?).ok()?, started: started? })
    };
    let time = |key| root.needed(key, root.parsed(key, Timestamp::parse), "a time").map(|found| found.value);
    let version = number("version", VERSION);
    let boot_id = root.needed("boot_id", root.parsed("boot_id", parse_boot_id), "a boot id").map(|found| found.value);
    let session = number("session", u64::from(u32::MAX)).and_then(|n| u32::try_from(n).ok()).and_then(SessionId::new);
    let connection = process("connection", "connection_started");
    let watcher = process("watcher", "watcher_started");
    let host = root.needed("host", root.parsed("host", HostName::parse), "a host").map(|found| found.value);
    let account = root.needed("account", root.parsed("account", Account::parse), "an account").map(|found| found.value);
    let request = root.parsed("request", RequestId::parse).map(|found| found.value);
    let serial = number("serial", u64::MAX >> 1).and_then(|serial| Serial::new(serial).ok());
    let key_id = root.needed("key_id", root.parsed("key_id", KeyId::parse), "a key id").map(|found| found.value);
    let ca = root.needed("ca", root.parsed("ca", Fingerprint::parse), "a fingerprint").map(|found| found.value);
    let from = root.parsed("from", str::parse::<IpAddr>).map(|found| found.value);
    let bound = root.parsed("bound", Timestamp::parse).map(|found| found.value);
    let (start, window_end, end) = (time("window_start"), time("window_end"), time("end"));
    let boot = number("boot_end_ms", u64::MAX >> 1).map(Duration::from_millis);
    if version != Some(VERSION) || key_id.as_ref().and_then(KeyId::request) != request.as_ref() {
        return None;
    }
    Some(Record {
        key: Key { session: session?, connection: connection? },
        watcher: watcher?,
        deadline: Deadline { wall: end?, boot: boot? },
        window: Window::new(start?, window_end?).ok()?,
        serial: serial?,
        ca: ca?,
        key_id: key_id?,
        account: account?,
        from,
        bound,
        host: host?,
        boot_id: boot_id?,
    })
}

fn parse_boot_id(text: &str) -> Result<String, String> {
    let is_fine = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_fine { Ok(text.to_owned()) } else { Err("not a boot id".to_owned()) }
}

/// Which start of the machine this is.
///
/// # Errors
/// When the kernel does not tell.
pub fn boot_id() -> Result<String, String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| error.to_string())?;
    parse_boot_id(text.trim())
}

impl Key {
    /// From a file's name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let session = SessionId::new(parts.next()?.parse().ok()?)?;
        let connection = Process { pid: parts.next()?.parse().ok()?, started: parts.next()?.parse().ok()? };
        let key = Self { session, connection };
        (key.to_string() == name).then_some(key)
    }
}

/// The file's name.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.session.number(), self.connection.pid, self.connection.started)
    }
}

impl Folder {
    /// The folder below the host's state folder; made if it is missing.
    ///
    /// # Errors
    /// When it can't be made, or others could change what is in it.
    pub fn open(state: &Path) -> Result<Self, String> {
        let path = state.join("sessions");
        // The state folder itself is open to all: sshd's commands may look into it.
        crate::durable::create_folder(state, 0o755).map_err(|error| error.to_string())?;
        crate::durable::create_folder(&path, 0o700).map_err(|error| error.to_string())?;
        for folder in [state, &path] {
            let metadata =
                std::fs::symlink_metadata(folder).map_err(|error| format!("cannot look at {folder:?}: {error}"))?;
            let is_ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
            if !metadata.is_dir() || !is_ours || metadata.mode() & 0o022 != 0 {
                return Err(format!("{folder:?} must be a folder that only root can change: chown root, chmod 755"));
            }
        }
        Ok(Self(path))
    }

    /// The folder that holds this record.
    #[must_use]
    pub fn of(record: &Path) -> Option<Self> {
        record.parent().map(|folder| Self(folder.to_owned()))
    }

    /// The file of a session.
    #[must_use]
    pub fn path(&self, key: Key) -> PathBuf {
        self.0.join(key.to_string())
    }

    /// The file that whoever ends sessions locks, outside the folder of the records.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.0.with_file_name("lock")
    }

    /// Writes a record.
    ///
    /// # Errors
    /// In words.
    pub fn save(&self, record: &Record) -> Result<(), String> {
        let path = self.path(record.key);
        crate::durable::replace(&path, record.to_string().as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// Writes a record again that is gone, perhaps with its folder, if there is still a place for that.
    ///
    /// # Errors
    /// In words.
    pub fn restore(&self, record: &Record) -> Result<(), String> {
        let state = self.0.parent().filter(|state| state.parent().is_some_and(Path::is_dir));
        Self::open(state.ok_or("the state folder's own folder is gone")?)?.save(record)
    }

    /// Forgets a session. One that is forgotten already is fine; a record that can't be removed means nothing once its session is gone.
    pub fn remove(&self, key: Key) {
        drop(std::fs::remove_file(self.path(key)));
    }

    /// The text of a session's record; `None` when there is none (or no folder).
    ///
    /// # Errors
    /// When there is one that can't be read.
    pub fn text(&self, key: Key) -> Result<Option<String>, String> {
        let path = self.path(key);
        match std::fs::symlink_metadata(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            _ => {}
        }
        let bytes = settings::read(&path, BYTES_MAX)?;
        String::from_utf8(bytes).map(Some).map_err(|_| "the record is not text".to_owned())
    }

    /// All sessions with a record. A folder that can't be read has none.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let Ok(files) = std::fs::read_dir(&self.0) else { return Vec::new() };
        files.flatten().filter_map(|file| file.file_name().to_str().and_then(Key::parse)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record to test with.
    pub(in crate::host) fn record() -> Record {
        let at = |seconds| Timestamp::from_unix(seconds).unwrap();
        Record {
            key: Key { session: SessionId::new(12).unwrap(), connection: Process { pid: 4711, started: 99 } },
            watcher: Process { pid: 4713, started: 100 },
            deadline: Deadline { wall: at(1_000), boot: Duration::from_millis(5_250) },
            window: Window::new(at(400), at(1_000)).unwrap(),
            serial: Serial::new(7).unwrap(),
            ca: Fingerprint::parse(&format!("SHA256:{}", "A".repeat(43))).unwrap(),
            key_id: KeyId::parse("hallpass/7K3F9QX2/alice@example.com").unwrap(),
            account: Account::parse("deploy").unwrap(),
            from: Some("192.0.2.7".parse().unwrap()),
            bound: Some(at(2_000)),
            host: HostName::parse("web-1").unwrap(),
            boot_id: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_its_name_tells_whose_it_is() {
        let record = record();
        assert_eq!(Record::parse(&record.to_string()), Ok(record.clone()));
        assert_eq!(record.key.to_string(), "12-4711-99");
        assert_eq!(Key::parse("12-4711-99"), Some(record.key));
        for name in
            ["", "12", "12-4711", "12-4711-99-1", "012-4711-99", "4294967295-1-1", ".12-4711-99.1-0.tmp", "lock"]
        {
            assert_eq!(Key::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_record_with_anything_missing_wrong_or_unknown_is_an_error() {
        let text = record().to_string();
        let is_needed = |line: &&str| !["#", "from =", "bound ="].iter().any(|start| line.starts_with(start));
        for line in text.lines().filter(is_needed) {
            assert!(Record::parse(&text.replace(&format!("{line}\n"), "")).is_err(), "without {line}");
        }
        for (from, to) in [
            ("version = 1", "version = 0"),
            ("session = 12", "session = 4294967295"),
            ("connection = 4711", "connection = -1"),
            ("request = \"7K3F-9QX2\"", "request = \"7K3F-9QX3\""),
            ("end = \"1970-01-01T00:16:40Z\"\nboot", "end = \"never\"\nboot"),
            ("serial = 7", "serial = 0"),
            ("version = 1", "version = 1\nforever = true"),
        ] {
            assert!(text.contains(from) && Record::parse(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
        for text in ["", "garbage", "\0", "version = 1"] {
            assert!(Record::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(state.path()).unwrap();
        folder.save(&record()).unwrap();
        assert_eq!(folder.keys(), [record().key]);
        assert_eq!(folder.text(record().key), Ok(Some(record().to_string())));
        let sessions = state.path().join("sessions");
        let mode = std::fs::metadata(&sessions).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::set_permissions(&sessions, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Folder::open(state.path()).unwrap_err().contains("only root"));
        folder.remove(record().key);
        assert_eq!((folder.keys(), folder.text(record().key)), (vec![], Ok(None)));
    }
}
