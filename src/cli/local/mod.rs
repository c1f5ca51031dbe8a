//! The client's own files per request: the session key, its certificate, and the request as last seen.
//!
//! One folder per request below `Places::requests`, named by the request's eight digits; a key that waits for its request's id is in
//! `new-<random>`. The key is on disk before the server hears of it, so a lost connection or a kill loses nothing: the same key is
//! found again by its fingerprint (see [`Local::folder_of`]).
//!
//! Beside them, `hosts/HOST.conf` for each host that a certificate opens ([`point`]), and the locks ([`lock`]).
//!
//! Invariants: what is kept is what was asked for ([`given`]); folders 0700 and ours, files 0600; the private key never leaves its file (ssh reads it itself); what is over is deleted.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

mod given;
mod lock;
mod point;

pub(crate) use lock::Lock;

use super::clock;
use super::failure::{Exit, Failure};
use super::profile::{self, Places, read_small, write};
use super::session_key::{self, Holder};
use super::ssh_config;
use crate::durable;
use crate::name::{Account, HostName, RequestId};
use crate::ssh::PublicKey;
use crate::ssh::cert::Certificate;
use crate::ssh::private::SessionKey;
use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp, Window};
use crate::wire;

/// How many folders are looked at; a person has a handful.
const FOLDERS_MAX: usize = 1000;

/// How long a key without a request, or a request of unknown end, is kept.
const KEEP: Lifetime = Lifetime::minutes(24 * 60);

/// A file that was begun so long ago is finished by nobody: writing one takes a moment.
const HALF_WRITTEN_S: u64 = 3600;

/// A certificate with less left than this is as good as over; of a short window, a quarter.
const LEFT_MIN_S: u64 = 30;

/// The request folders of one profile.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    root: PathBuf,
    /// Where the profile is that says what holds session keys.
    profile: Option<(Places, String)>,
}

/// A request that this client asked for.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The request as last seen.
    pub(crate) request: wire::Request,
    /// Its certificate, if it was fetched.
    pub(crate) certificate: Option<Certificate>,
}

impl Held {
    /// The private key's file.
    pub(crate) fn key_path(&self) -> PathBuf {
        self.folder.join("key")
    }

    /// The certificate's file.
    pub(crate) fn certificate_path(&self) -> PathBuf {
        self.folder.join("key-cert.pub")
    }

    /// Its certificate's window, if it has one.
    pub(crate) fn window(&self) -> Option<Window> {
        self.certificate.as_ref().map(|certificate| certificate.tbs().fields().window)
    }

    /// How many seconds its certificate has left.
    pub(crate) fn left(&self, now: Timestamp) -> u64 {
        self.window().map_or(0, |window| window.end().seconds_since(now))
    }

    /// Whether its certificate is valid now and for a while yet.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        self.window().is_some_and(|window| window.contains(now) && has_time_left(window, now))
    }

    /// Whether what the service says of a request closes what is held here: it must speak of the same request and the same key, and what it
    /// says must be final. A service that was put back from an older copy may not know that this was granted, or extended; its certificate
    /// is as good on the hosts as before.
    pub(crate) fn is_closed_by(&self, said: &wire::Request) -> bool {
        let subject = |held: &Certificate| held.tbs().subject().fingerprint().to_string();
        let is_same = said.id == self.request.id
            && said.key == self.request.key
            && self.certificate.as_ref().is_none_or(|held| subject(held) == said.key);
        let end = || said.window.as_ref().and_then(|window| Timestamp::parse(&window.not_after).ok());
        is_same
            && match (said.state.as_str(), self.window()) {
                ("ended", _) | ("denied" | "withdrawn" | "lapsed" | "expired", None) => true,
                ("expired", Some(window)) => end().is_some_and(|end| window.end() <= end),
                _ => false,
            }
    }
}

/// Whether a window has more than a moment left.
pub(crate) fn has_time_left(window: Window, now: Timestamp) -> bool {
    window.end().seconds_since(now) >= LEFT_MIN_S.min(window.seconds() / 4)
}

impl Local {
    /// The request folders of `profile`.
    pub(crate) fn new(places: &Places, profile: &str) -> Self {
        Self::at(places.requests(profile)).of(places, profile)
    }

    /// The request folders in this folder; no session key can be made here yet.
    pub(crate) const fn at(root: PathBuf) -> Self {
        Self { root, profile: None }
    }

    /// The same, as those of a profile.
    pub(crate) fn of(mut self, places: &Places, profile: &str) -> Self {
        self.profile = Some((places.clone(), profile.to_owned()));
        self
    }

    /// What holds session keys.
    fn holder(&self) -> Result<Holder, Failure> {
        let Some((places, name)) = &self.profile else { return Ok(Holder::File) };
        Ok(profile::load(places, name)?.map(|profile| profile.session_key).unwrap_or_default())
    }

    /// Where they are.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The time as the server has it: the one that certificates go by.
    pub(crate) fn now(&self) -> Timestamp {
        clock::now(&self.root)
    }

    /// The certificate that lets this person in now, if there is one; quick, and without a change to anything.
    ///
    /// # Errors
    /// When the folders can't be read.
    pub(crate) fn live(&self, host: &HostName, account: Option<&Account>) -> Result<Option<Held>, Failure> {
        let now = self.now();
        Ok(self.for_host(host, account)?.into_iter().find(|held| held.is_live(now)))
    }

    /// Makes a session key, or takes the security key, and keeps it before anybody hears of it. Returns its folder and public half.
    ///
    /// # Errors
    /// When the folder is not safe or can't be written, or the security key is not there.
    pub(crate) fn new_key(&self) -> Result<(PathBuf, PublicKey), Failure> {
        self.check_root()?;
        let folder = self.root.join(format!("new-{}", data_encoding::HEXLOWER.encode(random::<8>()?.as_slice())));
        let key = folder.join("key");
        let public = if let Holder::SecurityKey(path) = self.holder()? {
            let public = session_key::security_key(&path)?;
            durable::create_folder(&folder, 0o700).map_err(|e| Failure::file("make folder", &folder, &e))?;
            std::os::unix::fs::symlink(&path, &key).map_err(|e| Failure::file("link", &key, &e))?;
            public
        } else {
            let made = SessionKey::generate(*random::<32>()?);
            let pem = made
                .to_openssh("hallpass")
                .map_err(|e| Failure::failed("cannot make a session key").because(e.to_string()))?;
            write(&key, pem.as_bytes())?;
            made.public_key().clone()
        };
        write(&folder.join("key.pub"), format!("{}\n", public.to_openssh()).as_bytes())?;
        Ok((folder, public))
    }

    /// Gives a new key's folder its request, under the request's id.
    ///
    /// # Errors
    /// When the folder can't be renamed or written.
    pub(crate) fn adopt(&self, folder: &Path, request: &wire::Request) -> Result<(), Failure> {
        let home = self.home(request)?;
        if !home.exists() {
            std::fs::rename(folder, &home).map_err(|e| Failure::file("rename", folder, &e))?;
        }
        self.save_request(request)
    }

    /// Throws a folder away: its request was refused, or is over. The key goes first: another hallpass that is writing into the folder
    /// then knows why it can't (see [`Local::save_request`]).
    pub(crate) fn discard(&self, folder: &Path) {
        drop(std::fs::remove_file(folder.join("key")));
        drop(std::fs::remove_dir_all(folder));
    }

    /// Notes how a request stands, if it is one of this client's.
    ///
    /// # Errors
    /// When it is not the request that was known here, or its file can't be written.
    pub(crate) fn save_request(&self, request: &wire::Request) -> Result<(), Failure> {
        let Some(folder) = self.folder_of(request)? else { return Ok(()) };
        if let Some(before) = request_in(&folder)? {
            given::check_narrowed(&before, request)?;
        }
        let json = serde_json::to_string(request)
            .map_err(|e| Failure::failed("cannot write the request").because(e.to_string()))?;
        match write(&folder.join("request.json"), json.as_bytes()) {
            // Another hallpass has just deleted it, because it is over.
            Err(_) if !folder.join("key").exists() => Ok(()),
            written => written,
        }
    }

    /// Keeps a request's certificate beside its key; returns what is held now.
    ///
    /// # Errors
    /// When the certificate is not that of this request, the request is not what it was, the key is not here, or a file can't be written.
    pub(crate) fn save_certificate(&self, request: &wire::Request, line: &str) -> Result<Held, Failure> {
        let folder = self.folder_of(request)?.ok_or_else(|| {
            Failure::new(Exit::NotReady, "no_key", format!("the key of {} is not on this machine", request.id))
                .because("a request's certificate is for the key that asked; it was asked elsewhere or its files were deleted")
                .next(format!("hallpass request --like {}", request.id))
        })?;
        let certificate = Certificate::parse_openssh(line.trim())
            .map_err(|e| Failure::failed("the server's certificate is not one we accept").because(e.to_string()))?;
        given::check_certificate(request, &certificate, self.key_in(&folder)?.as_deref())?;
        let before = Self::held_in(&folder)?;
        if let Some(before) = &before {
            given::check_narrowed(&before.request, request)?;
        }
        write(&folder.join("key-cert.pub"), format!("{}\n", line.trim()).as_bytes())?;
        self.save_request(request)?;
        self.point()?;
        let held = Held { folder, request: request.clone(), certificate: Some(certificate) };
        if self.holder()? == Holder::Agent {
            let profile = self.profile.as_ref().map_or("", |(_, name)| name);
            let comment = format!("hallpass:{profile}:{}:{}", request.hosts.join(","), request.id);
            // Of an extended request the earlier certificate ends first, and would be offered first.
            if let Some(before) = before {
                session_key::forget(&before);
            }
            session_key::lend(&held, &comment, self.now())?;
        }
        Ok(held)
    }

    /// The folder that holds the key of this request; `None` when it was asked elsewhere. A key whose request's answer was lost is
    /// recognised by its fingerprint and gets its name now.
    ///
    /// # Errors
    /// When the folders can't be read.
    pub(crate) fn folder_of(&self, request: &wire::Request) -> Result<Option<PathBuf>, Failure> {
        let home = self.home(request)?;
        if home.join("key").exists() {
            return Ok(Some(home));
        }
        for folder in self.folders()?.into_iter().filter(|f| is_new(f)) {
            if self.key_in(&folder)?.as_deref() == Some(request.key.as_str()) {
                std::fs::rename(&folder, &home).map_err(|e| Failure::file("rename", &folder, &e))?;
                return Ok(Some(home));
            }
        }
        Ok(None)
    }

    /// Everything this client asked for and still keeps, by id.
    ///
    /// # Errors
    /// When the folders can't be read.
    pub(crate) fn all(&self) -> Result<Vec<Held>, Failure> {
        self.matching(|_| true)
    }

    /// Everything that this client asked for on this host and as this account (any, if `None`), what ends last first.
    ///
    /// # Errors
    /// When the folders can't be read.
    pub(crate) fn for_host(&self, host: &HostName, account: Option<&Account>) -> Result<Vec<Held>, Failure> {
        let mut held = self.matching(|request| {
            request.hosts.iter().any(|n| n == host.as_str()) && account.is_none_or(|a| request.account == a.as_str())
        })?;
        held.sort_by_key(|h| std::cmp::Reverse((ends(h), h.request.asked.clone())));
        Ok(held)
    }

    /// What we hold of the requests that fit; only their certificates are read.
    fn matching(&self, fits: impl Fn(&wire::Request) -> bool) -> Result<Vec<Held>, Failure> {
        let mut all = Vec::new();
        for folder in self.folders()?.into_iter().filter(|f| !is_new(f)) {
            if let Some(request) = request_in(&folder)?.filter(&fits) {
                let certificate = certificate_in(&folder)?;
                all.push(Held { folder, request, certificate });
            }
        }
        Ok(all)
    }

    /// What we hold of the request in this folder.
    fn held_in(folder: &Path) -> Result<Option<Held>, Failure> {
        let Some(request) = request_in(folder)? else { return Ok(None) };
        Ok(Some(Held { folder: folder.to_owned(), request, certificate: certificate_in(folder)? }))
    }

    /// The folders of what is over.
    ///
    /// # Errors
    /// When the folders can't be read.
    pub(crate) fn over(&self) -> Result<Vec<PathBuf>, Failure> {
        let now = self.now();
        let held = self.all()?;
        let is_over = |folder: &PathBuf| match held.iter().find(|h| h.folder == *folder) {
            Some(held) => ends(held).is_none_or(|end| now >= end),
            None => modified(folder).is_some_and(|at| now.seconds_since(at) > u64::from(KEEP.seconds())),
        };
        Ok(self.folders()?.into_iter().filter(is_over).collect())
    }

    /// Files that a process was writing when it was killed, an hour ago or more: it does not come back to them.
    fn half_written(&self) -> Vec<PathBuf> {
        // A file's times are this machine's.
        let now = SystemClock.now();
        let is_half =
            |path: &PathBuf| name_of(path).is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
        let is_old = |path: &PathBuf| modified(path).is_some_and(|at| now.seconds_since(at) > HALF_WRITTEN_S);
        let entries =
            [self.root.clone(), self.root.join("hosts")].into_iter().filter_map(|f| std::fs::read_dir(f).ok());
        let paths = entries.flatten().filter_map(Result::ok).map(|entry| entry.path());
        paths.filter(is_half).filter(is_old).take(FOLDERS_MAX).collect()
    }

    /// Deletes what is over. Failing to is not worth failing a command for.
    pub(crate) fn sweep(&self) {
        self.half_written().iter().for_each(|path| drop(std::fs::remove_file(path)));
        self.throw_away(&self.over().unwrap_or_default());
    }

    /// Deletes what is in these folders, has the agent forget it, and no host file names it any more. Failing to is not worth failing a
    /// command for.
    pub(crate) fn throw_away(&self, folders: &[PathBuf]) {
        if folders.is_empty() {
            return;
        }
        let held = self.all().unwrap_or_default();
        let is_lent = self.holder().is_ok_and(|holder| holder == Holder::Agent);
        for folder in folders {
            if let Some(held) = held.iter().find(|h| h.folder == *folder).filter(|_| is_lent) {
                session_key::forget(held);
            }
            self.discard(folder);
        }
        // The next one that changes something mends them.
        drop(self.point());
    }

    /// Has what lies here of a request go, if the service's word closes it.
    ///
    /// # Errors
    /// When the folders can't be read or written.
    pub(crate) fn heed(&self, said: &wire::Request) -> Result<(), Failure> {
        match self.all()?.into_iter().find(|held| held.request.id == said.id) {
            Some(held) if held.is_closed_by(said) => self.throw_away(&[held.folder]),
            Some(_) => {}
            // Perhaps a key whose request's answer was lost.
            None => self.save_request(said)?,
        }
        self.sweep();
        Ok(())
    }

    fn home(&self, request: &wire::Request) -> Result<PathBuf, Failure> {
        let id = RequestId::parse(&request.id)
            .map_err(|e| Failure::failed("the server's answer is not hallpass'").because(e.to_string()))?;
        Ok(self.root.join(id.digits()))
    }

    fn key_in(&self, folder: &Path) -> Result<Option<String>, Failure> {
        let line = read_small(&folder.join("key.pub"))?;
        Ok(line.and_then(|l| PublicKey::parse_openssh(l.trim()).ok()).map(|k| k.fingerprint().to_string()))
    }

    fn folders(&self) -> Result<Vec<PathBuf>, Failure> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|e| Failure::file("read folder", &self.root, &e))?,
        };
        self.check_root()?;
        let mut folders: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| is_new(p) || name_of(p).is_some_and(|n| n.len() == 8 && RequestId::parse(n).is_ok()))
            .take(FOLDERS_MAX)
            .collect();
        folders.sort();
        Ok(folders)
    }

    /// HP-303: the folder must be ours alone, and its path must survive ssh's own expansions unchanged.
    pub(crate) fn check_root(&self) -> Result<(), Failure> {
        let shown = self.root.display().to_string();
        ssh_config::check_path(&self.root).map_err(|why| {
            Failure::failed(format!("keys cannot be kept in {shown:?}"))
                .because(why)
                .next("export HALLPASS_RUNTIME_DIR=/dev/shm/hallpass-$(id -u)")
        })?;
        durable::create_folder(&self.root, 0o700).map_err(|e| Failure::file("make folder", &self.root, &e))?;
        let meta = std::fs::symlink_metadata(&self.root).map_err(|e| Failure::file("look at", &self.root, &e))?;
        // A link is nobody's: where it leads to can change.
        let is_ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw();
        if !is_ours || meta.mode() & 0o077 != 0 {
            return Err(Failure::new(Exit::NotReady, "HP-303", format!("others can reach the key folder {shown:?}"))
                .because(format!(
                    "it must be a folder of yours with mode 0700; it has owner {} and mode {:04o}",
                    meta.uid(),
                    meta.mode() & 0o7777
                ))
                .next(if is_ours { format!("chmod 700 {shown}") } else { format!("ls -ld {shown}") }));
        }
        Ok(())
    }
}

fn request_in(folder: &Path) -> Result<Option<wire::Request>, Failure> {
    Ok(read_small(&folder.join("request.json"))?.and_then(|text| serde_json::from_str(&text).ok()))
}

fn certificate_in(folder: &Path) -> Result<Option<Certificate>, Failure> {
    let line = read_small(&folder.join("key-cert.pub"))?;
    Ok(line.and_then(|line| Certificate::parse_openssh(line.trim()).ok()))
}

/// When a request's files may go; `None` when its state says it is over.
fn ends(held: &Held) -> Option<Timestamp> {
    let request = &held.request;
    let time = |text: &Option<String>| text.as_deref().and_then(|t| Timestamp::parse(t).ok());
    let lifetime = Lifetime::parse(&request.lifetime).unwrap_or(KEEP);
    match request.state.as_str() {
        "pending" => {
            let latest = time(&request.decide_by).max(time(&request.start))?;
            latest.plus(lifetime.saturating_add(KEEP)).ok()
        }
        "approved" | "issued" => {
            let end = request.window.as_ref().and_then(|w| Timestamp::parse(&w.not_after).ok())?;
            let extended = request.extension.as_ref().and_then(|e| {
                let more = Lifetime::parse(&e.lifetime).ok()?;
                Timestamp::parse(&e.decide_by).ok()?.max(end).plus(more).ok()
            });
            Some(extended.map_or(end, |e| e.max(end)))
        }
        _ => None,
    }
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(|n| n.to_str())
}

fn is_new(path: &Path) -> bool {
    name_of(path).is_some_and(|n| n.starts_with("new-"))
}

fn modified(path: &Path) -> Option<Timestamp> {
    let at = std::fs::symlink_metadata(path).ok()?.mtime();
    Timestamp::from_unix(u64::try_from(at).ok()?).ok()
}

/// Random bytes of the operating system, wiped after use.
pub(crate) fn random<const N: usize>() -> Result<zeroize::Zeroizing<[u8; N]>, Failure> {
    use rand::TryRng as _;
    let mut bytes = zeroize::Zeroizing::new([0_u8; N]);
    rand::rngs::SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|e| Failure::failed("the system has no randomness to give").because(e.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_was_writing_goes_after_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::at(folder.path().join("keys"));
        let at = |name: &str| local.root().join(name);
        for name in [".told.7-0.tmp", ".told.8-0.tmp", "told", ".x"] {
            write(&at(name), b"x").unwrap();
        }
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        for name in [".told.7-0.tmp", "told", ".x"] {
            std::fs::File::options().write(true).open(at(name)).unwrap().set_modified(long_ago).unwrap();
        }
        local.sweep();
        let is_there = |name: &str| at(name).exists();
        assert_eq!([".told.7-0.tmp", ".told.8-0.tmp", "told", ".x"].map(is_there), [false, true, true, true]);
    }

    /// Whoever is writing into the folder at that moment looks for the key, to see whether it is being deleted.
    #[test]
    fn of_a_folder_that_is_thrown_away_the_key_goes_first() {
        use rustix::fs::inotify;
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let local = Local::at(folder.path().join("keys"));
        let home = local.root().join("7K3F9QX2");
        // In which order a folder is read is the file system's business; in memory it is the newest first.
        let names = ["key", "key.pub", "key-cert.pub", "request.json", ".request.json.1-0.tmp"];
        for name in names {
            write(&home.join(name), b"x").unwrap();
        }
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &home, inotify::WatchFlags::DELETE).unwrap();
        local.discard(&home);
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let deleted: Vec<String> =
            names.iter().map(|_| events.next().unwrap().file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(deleted[0], "key", "{deleted:?}");
        assert!(!home.exists());
    }
}
