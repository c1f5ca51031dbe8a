//! Whose the service's files are, whether we may use them, and what to type where we may not.
//!
//! Invariant: a line that is offered for root to type gives away nothing but a file that stands in its path, or a folder that `hallpass init`
//! would have made with nothing else in it. What is anywhere else is to be moved, in words: who owns a folder of the system owns what is
//! below it, and a line that is printed is typed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{Reader, as_user, found, word};
use crate::cli::Context;
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::secret;

/// Whether we are the service's user, and have what it needs. What another user leaves beside the service's files locks it out.
///
/// # Errors
/// When we are another; what root has put there for us and we can't use.
pub(in crate::cli) fn check_user(context: &Context, config: &Config, reader: Reader) -> Result<(), Failure> {
    // Who that is, systemd says then.
    if secret::missing(&config.log_key_path).is_some() {
        return Ok(());
    }
    let us = us();
    let Some((user, path)) = service_user(config).filter(|(user, _)| *user != us) else {
        return check_files(context, config, reader);
    };
    let failure = not_the_user((user, path), us);
    // It would be no better off, as long as root alone can read these.
    let file = found(context);
    let roots = file.as_deref().into_iter().chain([config.log_key_path.as_path()]);
    let roots = roots.filter(|path| us == 0 && is_roots_alone(path) && is_plain_file(path));
    Err(gives(failure, user, roots).next(as_user(user)))
}

/// Whether what we make is the service's user's, who must be able to read it.
///
/// # Errors
/// When we are another.
pub(in crate::cli) fn check_maker(config: &Config) -> Result<(), Failure> {
    let us = us();
    match service_user(config).filter(|(user, _)| *user != us) {
        None => Ok(()),
        Some((user, path)) => Err(not_the_user((user, path), us).next(as_user(user))),
    }
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn not_the_user((user, path): (u32, &Path), us: u32) -> Failure {
    Failure::failed("this is for the service's user").because(format!(
        "{path:?} belongs to {}, and you are {}",
        secret::user(user),
        secret::user(us)
    ))
}

/// The service's user: whose its files are, but for root's; with the one that says so.
fn service_user(config: &Config) -> Option<(u32, &Path)> {
    let database = config.database();
    let folders = [database, Some(config.log_head_path.as_path())].into_iter().flatten().filter_map(Path::parent);
    let paths = std::iter::once(config.log_key_path.as_path()).chain(database).chain(folders);
    let mut owned = paths.filter_map(|path| Some((std::fs::metadata(path).ok()?.uid(), path)));
    owned.find(|(owner, _)| *owner != 0)
}

/// Whether root alone can read it.
fn is_roots_alone(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata
        .is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o004 == 0 && (meta.gid() == 0 || meta.mode() & 0o040 == 0))
}

/// With a line that gives these to a user, if there are any.
fn gives<'p>(failure: Failure, user: u32, paths: impl Iterator<Item = &'p Path>) -> Failure {
    let words: String = paths.map(|path| format!(" {}", word(&path.display().to_string()))).collect();
    if words.is_empty() { failure } else { failure.next(format!("sudo chown {}{words}", secret::user(user))) }
}

/// What is done to something that the configuration names.
#[derive(Clone, Copy)]
struct Use<'c> {
    /// As the configuration names it.
    named: &'c Path,
    /// That, or its folder.
    path: &'c Path,
    access: Access,
}

impl<'c> Use<'c> {
    const fn read(path: &'c Path) -> Self {
        Self { named: path, path, access: Access::READ_OK }
    }

    const fn write(path: &'c Path) -> Self {
        Self { access: Access::READ_OK.union(Access::WRITE_OK), ..Self::read(path) }
    }

    /// Files are made in its folder.
    fn folder(named: &'c Path) -> Option<Self> {
        let path = named.parent()?;
        Some(Self { named, ..Self::write(path) })
    }

    fn is_denied(&self) -> bool {
        rustix::fs::access(self.path, self.access) == Err(rustix::io::Errno::ACCESS)
    }
}

/// Whether we can use what is there of the service's files, as far as whoever reads them all needs it.
fn check_files(context: &Context, config: &Config, reader: Reader) -> Result<(), Failure> {
    let mut uses = vec![Use::read(&config.log_key_path)];
    if reader == Reader::Service {
        uses.extend(of_database(config));
        uses.extend(config.ca_key_files().map(Use::read));
        // It is replaced, whoever's the one before was.
        uses.extend(Use::folder(&config.log_head_path));
        uses.push(Use::read(&config.log_head_path));
    }
    check(context, &uses)
}

/// Whether we may open the database file.
///
/// # Errors
/// What is in the way, with what to do.
pub(in crate::cli) fn check_database(context: &Context, config: &Config) -> Result<(), Failure> {
    check(context, &of_database(config))
}

fn of_database(config: &Config) -> Vec<Use<'_>> {
    config.database().into_iter().flat_map(|file| Use::folder(file).into_iter().chain([Use::write(file)])).collect()
}

fn check(context: &Context, uses: &[Use<'_>]) -> Result<(), Failure> {
    let us = us();
    // What stands in the way, and what for.
    let mut denied: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for Use { named, path, .. } in uses.iter().filter(|used| used.is_denied()) {
        denied.entry(barrier(path)).or_default().insert(named);
    }
    if denied.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::failed(format!("{} may not use what this needs", secret::user(us)));
    let own = found(context).and_then(|file| own_folder(&file));
    let (mut given, mut ours, mut moved) = (Vec::new(), Vec::new(), BTreeSet::<&Path>::new());
    for (at, named) in &denied {
        let metadata = std::fs::metadata(at).ok();
        let mode = metadata.as_ref().map(|meta| meta.mode() & 0o7777).unwrap_or_default();
        let owner = metadata.as_ref().map(Metadata::uid);
        let whose = owner.map_or_else(|| "nobody known".to_owned(), secret::user);
        failure = failure.because(format!("{at:?} belongs to {whose} (mode {mode:04o})"));
        match owner {
            Some(0) if named.contains(at) && is_plain_file(at) => given.push(*at),
            Some(0) if own.as_deref().is_some_and(|own| is_made_by_init(at, own)) => given.push(*at),
            Some(0) => moved.extend(named.iter().copied()),
            Some(owner) if owner == us => ours.push(*at),
            _ => {}
        }
    }
    // What is moved comes to be its user's by that.
    let failure = gives(failure, us, given.into_iter().filter(|path| !moved.contains(path)));
    let failure = moved.iter().fold(failure, |failure, path| failure.next(move_it(path, us)));
    Err(ours.into_iter().fold(failure, |failure, path| failure.next(opened_up(path))))
}

/// Whether it is a file with this one name, and no link to one.
fn is_plain_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

/// The folder that the configuration is in.
fn own_folder(file: &Path) -> Option<PathBuf> {
    std::path::absolute(file).ok()?.parent().map(Path::to_owned)
}

/// Whether it is a folder as `init` makes them: the configuration's own, with what belongs to a service and nothing else, or the database's in
/// one that is such or ours.
fn is_made_by_init(path: &Path, own: &Path) -> bool {
    let is_folder = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let is_below = || path == own.join("state") && (owner_of(own) == Some(us()) || holds_a_service_alone(own));
    is_folder && (path == own && holds_a_service_alone(own) || is_below())
}

/// Whether all that is in a folder has a name that our own manuals give it; never one of the system's, however empty.
fn holds_a_service_alone(folder: &Path) -> bool {
    const SYSTEM: [&str; 8] = ["etc", "home", "lib", "local", "log", "run", "tmp", "usr"];
    const NAMES: [&str; 11] = [
        "config.toml",
        "policy.toml",
        "user_ca",
        "user_ca.pub",
        "host_ca",
        "host_ca.pub",
        "log.key",
        "log.head",
        "state",
        "tls-certificate.pem",
        "tls-key.pem",
    ];
    let is_named = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| NAMES.contains(&name));
    let is_deep = folder.components().count() > 2;
    let is_system = folder.file_name().is_none_or(|name| SYSTEM.iter().any(|system| name == *system));
    let Ok(mut inside) = std::fs::read_dir(folder) else { return false };
    is_deep && !is_system && inside.all(|entry| entry.is_ok_and(|entry| is_named(&entry.file_name())))
}

/// What to do about a file that is where its user can't be let in.
fn move_it(path: &Path, user: u32) -> String {
    let (path, name) = (path.display(), secret::user(user));
    format!(
        "move {path} to a folder of {name}'s own, as {name}'s file, and name it there: {}",
        install_for(user, Path::new("FOLDER"))
    )
}

/// Whether we may read this folder of ours and these in it, as far as they are there.
///
/// # Errors
/// The first that we may not, with what to do.
pub(in crate::cli) fn check_readable(doing: &str, folder: &Path, names: &[&str]) -> Result<(), Failure> {
    let us = us();
    for path in std::iter::once(folder.to_owned()).chain(names.iter().map(|name| folder.join(name))) {
        let Some(why) = std::fs::File::open(&path).err().filter(|why| why.kind() == ErrorKind::PermissionDenied) else {
            continue;
        };
        let at = barrier(&path);
        let failure = Failure::file(doing, at, &why).because("that says nothing about what is in it");
        return Err(match owner_of(at) {
            Some(0) => copied(failure, folder, names),
            Some(owner) if owner == us => failure.next(opened_up(at)),
            Some(owner) => failure.next(as_user(owner)),
            None => failure,
        });
    }
    Ok(())
}

/// With how root makes a copy of these for us. What root keeps stays as it is.
fn copied(failure: Failure, folder: &Path, names: &[&str]) -> Failure {
    let (us, copy) = (us(), Path::new("COPY"));
    let files: String =
        names.iter().map(|name| format!(" {}", word(&folder.join(name).display().to_string()))).collect();
    failure
        .next(install_for(us, copy))
        .next(format!("sudo install -o {} -m 0600 -t COPY{files}", secret::user(us)))
        .next("then run this on COPY, a folder of its own that you remove afterwards")
}

/// What lets its owner use something again.
fn opened_up(path: &Path) -> String {
    let bits = if path.is_dir() { "u+rwx" } else { "u+rw" };
    format!("chmod {bits} {}", word(&path.display().to_string()))
}

/// What keeps us from a file: itself, or the folder on its way behind which we see nothing.
fn barrier(path: &Path) -> &Path {
    path.ancestors().find(|path| owner_of(path).is_some()).unwrap_or(path)
}

fn owner_of(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|meta| meta.uid())
}

/// How a folder of the service's is made, for its user.
pub(in crate::cli) fn install_folder(config: &Config, folder: &Path) -> String {
    let user = service_user(config).map_or_else(us, |(user, _)| user);
    install_for(user, folder)
}

/// How a folder is made for a user.
pub(in crate::cli) fn install_for(user: u32, folder: &Path) -> String {
    format!("sudo install -d -o {} -m 0700 {}", secret::user(user), word(&folder.display().to_string()))
}

/// With what to do about a configuration that we may not read.
pub(super) fn unreadable(failure: Failure, path: &Path) -> Failure {
    let (us, at) = (us(), barrier(path));
    match std::fs::metadata(at).map(|meta| (meta.uid(), meta.mode())) {
        Ok((owner, _)) if owner == us => failure.next(opened_up(at)),
        Ok((0, mode)) => {
            let beside = at.parent().and_then(owner_of).filter(|owner| *owner != 0);
            let user = beside.or_else(|| secret::user_id("hallpass")).unwrap_or(us);
            // Others than root can read it as it is: then it is for one of them.
            let is_roots = mode & 0o055 == 0;
            if is_roots && !(at == path && is_configuration(path)) {
                return failure.next(move_it(path, user));
            }
            let failure = if is_roots { gives(failure, user, std::iter::once(at)) } else { failure };
            if user == us { failure } else { failure.next(as_user(user)) }
        }
        Ok((owner, _)) => failure.next(as_user(owner)),
        Err(_) => failure,
    }
}

/// Whether a file looks like one, by its name: nothing else can be seen of it.
fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "toml") && is_plain_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_the_services_own_when_all_in_it_is_and_a_folder_of_the_system_never_is() {
        let there = tempfile::tempdir().unwrap();
        let own = there.path().join("hallpass");
        let state = own.join("state");
        std::fs::create_dir_all(&state).unwrap();
        for name in ["config.toml", "log.head", "tls-key.pem"] {
            crate::durable::create(&own.join(name), b"", 0o600).unwrap();
        }
        assert!(is_made_by_init(&own, &own) && is_made_by_init(&state, &own));
        assert!(!is_made_by_init(there.path(), &own), "what it is in is somebody else's");
        assert!(!is_made_by_init(&own.join("config.toml"), &own) && !is_made_by_init(&own.join("backups"), &own));
        let link = there.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(!is_made_by_init(&link, &link));
        crate::durable::create(&own.join("passwd"), b"", 0o600).unwrap();
        assert!(!is_made_by_init(&own, &own));
        let etc = there.path().join("etc");
        std::fs::create_dir(&etc).unwrap();
        assert!(!is_made_by_init(&etc, &etc), "by its name, though it is empty");
        for system in ["/", "/etc", "/root", "/home", "/opt", "/var", "/var/lib", "/usr", "/usr/local"] {
            assert!(!is_made_by_init(Path::new(system), Path::new(system)), "{system}");
        }
    }

    #[test]
    fn a_link_is_not_given_away_as_a_file() {
        let there = tempfile::tempdir().unwrap();
        let (file, link) = (there.path().join("config.toml"), there.path().join("link.toml"));
        crate::durable::create(&file, b"", 0o600).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(is_configuration(&file) && !is_configuration(&link) && !is_configuration(there.path()));
        std::fs::hard_link(&file, there.path().join("again.toml")).unwrap();
        assert!(!is_plain_file(&file));
    }
}
