//! The client's own files per request: the session key, its certificate, and the request as last seen.
//!
//! One folder per request below `Places::requests`, named by the request's eight digits; a key that waits for its request's id is in
//! `new-<random>`. The key is on disk before the server hears of it, so a lost connection or a kill loses nothing: the same key is
//! found again by its fingerprint (see [`Local::folder_of`]).
//!
//! Invariants: folders 0700 and ours, files 0600; the private key never leaves its file (ssh reads it itself); what is over is deleted.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use super::profile::{Places, read_small, write};
use crate::durable;
use crate::name::{Account, HostName, Principal, RequestId};
use crate::ssh::PublicKey;
use crate::ssh::cert::Certificate;
use crate::ssh::private::SessionKey;
use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp};
use crate::wire;

/// How many folders are looked at; a person has a handful.
const FOLDERS_MAX: usize = 1000;

/// How long a key without a request, or a request of unknown end, is kept.
const KEEP: Lifetime = Lifetime::minutes(24 * 60);

/// The request folders of one profile.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    root: PathBuf,
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
}

impl Local {
    /// The request folders of `profile`.
    pub(crate) fn new(places: &Places, profile: &str) -> Self {
        Self { root: places.requests(profile) }
    }

    /// Makes a session key and keeps it before anybody hears of it. Returns its folder and public half.
    ///
    /// # Errors
    /// When the folder is not safe or can't be written.
    pub(crate) fn new_key(&self) -> Result<(PathBuf, PublicKey), Failure> {
        self.check_root()?;
        let seed = random::<32>()?;
        let key = SessionKey::generate(*seed);
        let folder = self.root.join(format!("new-{}", data_encoding::HEXLOWER.encode(random::<8>()?.as_slice())));
        let pem = key
            .to_openssh("hallpass")
            .map_err(|e| Failure::failed("cannot make a session key").because(e.to_string()))?;
        write(&folder.join("key"), pem.as_bytes())?;
        let public = key.public_key().clone();
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

    /// Throws a key away whose request was refused.
    pub(crate) fn discard(&self, folder: &Path) {
        drop(std::fs::remove_dir_all(folder));
    }

    /// Notes how a request stands, if it is one of this client's.
    ///
    /// # Errors
    /// When its file can't be written.
    pub(crate) fn save_request(&self, request: &wire::Request) -> Result<(), Failure> {
        let Some(folder) = self.folder_of(request)? else { return Ok(()) };
        let json = serde_json::to_string(request)
            .map_err(|e| Failure::failed("cannot write the request").because(e.to_string()))?;
        write(&folder.join("request.json"), json.as_bytes())
    }

    /// Keeps a request's certificate beside its key; returns what is held now.
    ///
    /// # Errors
    /// When the certificate is not for this request's key, the key is not here, or its file can't be written.
    pub(crate) fn save_certificate(&self, request: &wire::Request, line: &str) -> Result<Held, Failure> {
        let folder = self.folder_of(request)?.ok_or_else(|| {
            Failure::new(Exit::NotReady, "no_key", format!("the key of {} is not on this machine", request.id))
                .because("a request's certificate is for the key that asked; it was asked elsewhere or its files were deleted")
                .next("hallpass request … to ask again from here")
        })?;
        let certificate = Certificate::parse_openssh(line.trim())
            .map_err(|e| Failure::failed("the server's certificate is not one we accept").because(e.to_string()))?;
        let subject = certificate.tbs().subject().fingerprint().to_string();
        if subject != request.key || self.key_in(&folder)? != Some(subject) {
            return Err(Failure::failed("the server's certificate is for another key")
                .because(format!("expected {}", request.key)));
        }
        // What it opens is what the request is for: `account@host`, or the bare account on a host of that scope.
        let opens = |principal: &Principal| {
            let (account, host) = principal.as_str().split_once('@').unwrap_or((principal.as_str(), ""));
            account == request.account && (host.is_empty() || request.hosts.iter().any(|given| given == host))
        };
        if !certificate.tbs().fields().principals.iter().all(opens) {
            return Err(Failure::failed("the server's certificate is for something else than the request")
                .because(format!("{} is for {} as {}", request.id, request.hosts.join(", "), request.account)));
        }
        write(&folder.join("key-cert.pub"), format!("{}\n", line.trim()).as_bytes())?;
        self.save_request(request)?;
        Ok(Held { folder, request: request.clone(), certificate: Some(certificate) })
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
        let mut all = Vec::new();
        for folder in self.folders()?.into_iter().filter(|f| !is_new(f)) {
            let Some(text) = read_small(&folder.join("request.json"))? else { continue };
            let Ok(request) = serde_json::from_str::<wire::Request>(&text) else { continue };
            let certificate =
                read_small(&folder.join("key-cert.pub"))?.and_then(|line| Certificate::parse_openssh(line.trim()).ok());
            all.push(Held { folder, request, certificate });
        }
        Ok(all)
    }

    /// Everything that this client asked for on this host and as this account (any, if `None`), what ends last first.
    ///
    /// # Errors
    /// When the folders can't be read.
    pub(crate) fn for_host(&self, host: &HostName, account: Option<&Account>) -> Result<Vec<Held>, Failure> {
        let mut held = self.all()?;
        held.retain(|h| h.request.hosts.iter().any(|n| n == host.as_str()));
        held.retain(|h| account.is_none_or(|a| h.request.account == a.as_str()));
        held.sort_by_key(|h| std::cmp::Reverse((ends(h), h.request.asked.clone())));
        Ok(held)
    }

    /// Deletes what is over. Failing to is not worth failing a command for.
    pub(crate) fn sweep(&self) {
        let now = SystemClock.now();
        let Ok(folders) = self.folders() else { return };
        let held = self.all().unwrap_or_default();
        for folder in folders {
            let over = match held.iter().find(|h| h.folder == folder) {
                Some(held) => ends(held).is_none_or(|end| now >= end),
                None => modified(&folder).is_some_and(|at| now.seconds_since(at) > u64::from(KEEP.seconds())),
            };
            if over {
                self.discard(&folder);
            }
        }
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
    fn check_root(&self) -> Result<(), Failure> {
        let shown = self.root.display().to_string();
        if shown.chars().any(|c| matches!(c, '%' | '$' | '"' | '\\') || c.is_control()) {
            return Err(Failure::failed(format!("the path {shown:?} holds %, $, \", \\ or a control character"))
                .because("ssh would read it differently")
                .next("export HALLPASS_RUNTIME_DIR=DIR"));
        }
        durable::create_folder(&self.root, 0o700).map_err(|e| Failure::file("make folder", &self.root, &e))?;
        let meta = std::fs::symlink_metadata(&self.root).map_err(|e| Failure::file("look at", &self.root, &e))?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(Failure::new(Exit::NotReady, "HP-303", format!("others can reach the key folder {shown:?}"))
                .because(format!(
                    "it must be a folder of yours with mode 0700; it has owner {} and mode {:04o}",
                    meta.uid(),
                    meta.mode() & 0o7777
                ))
                .next(format!("chmod 700 {shown}")));
        }
        Ok(())
    }
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
