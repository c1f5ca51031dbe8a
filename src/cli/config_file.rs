//! The service's configuration file, for the commands on its machine: where it is, why it can't be read, and how a hint names it.
//!
//! What for: `serve`, and what operators run beside it (`admin backup`, `admin store`, `store migrate`, `ca add`), all by one rule.
//! What not: a host's `host.toml` and a person's profiles; those have their own places.
//!
//! *Why no variable of the environment?* `sudo` takes it away, and then another file would be read than was meant.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::failure::{Exit, Failure};
use super::{Context, profile};
use crate::config::Config;
use crate::secret;

/// Where it is looked for, in turn, unless `--config` names one: where an administrator keeps it, and where `hallpass init` and
/// the unit have it.
const PLACES: [&str; 2] = ["/etc/hallpass/config.toml", "/var/lib/hallpass/config.toml"];

/// Who reads it, and so what to do when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The service.
    Service,
    /// A command beside it.
    Operator,
}

/// Where the configuration is; `None` if none is named and there is none.
pub(super) fn found(context: &Context) -> Option<PathBuf> {
    context.globals.config.clone().or_else(|| first_there(&PLACES))
}

/// Reads it.
///
/// # Errors
/// When there is none, when it can't be read, and every problem that is in it.
pub(super) fn read(context: &Context, reader: Reader) -> Result<Config, Failure> {
    let path = found(context).ok_or_else(|| nowhere(reader))?;
    read_at(&path, reader)
}

/// Reads this one.
///
/// # Errors
/// As [`read()`].
pub(super) fn read_at(path: &Path, reader: Reader) -> Result<Config, Failure> {
    let shown = path.display().to_string();
    let text = text(path, reader)?;
    // Relative paths in it are relative to its folder, wherever we were started.
    let folder = std::path::absolute(path).ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
    let credentials = profile::env("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let parse = match reader {
        Reader::Service => Config::parse,
        Reader::Operator => Config::parse_beside,
    };
    parse(&text, &shown, &folder, credentials.as_deref()).map_err(|problems| {
        let mut failure = Failure::new(Exit::Usage, "config", format!("{shown:?} is not a configuration we can run"));
        failure.why = problems.iter().map(ToString::to_string).collect();
        failure
    })
}

/// What stands in this one.
///
/// # Errors
/// When it can't be read.
pub(super) fn text(path: &Path, reader: Reader) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|why| unreadable(path, &why, reader))
}

/// A command of ours for the configuration that this one works on.
pub(super) fn command(context: &Context, words: &str) -> String {
    match &context.globals.config {
        Some(path) => format!("{words} --config {}", word(&path.display().to_string())),
        None => words.to_owned(),
    }
}

/// Whether we are the service's user, and have what it needs. What another user leaves beside the service's files locks it out.
///
/// # Errors
/// When we are another; what root has put there for us and we can't use.
pub(super) fn check_user(context: &Context, config: &Config, reader: Reader) -> Result<(), Failure> {
    // Who that is, systemd says then.
    if secret::missing(&config.log_key_path).is_some() {
        return Ok(());
    }
    let us = rustix::process::geteuid().as_raw();
    let Some((user, path)) = service_user(config).filter(|(user, _)| *user != us) else {
        return check_files(config, reader);
    };
    let failure = not_the_user((user, path), us);
    // It would be no better off, as long as root alone can read these.
    let file = found(context);
    let roots: Vec<&Path> = file.as_deref().into_iter().chain([config.log_key_path.as_path()]).collect();
    let roots = roots.into_iter().filter(|path| us == 0 && is_roots_alone(path));
    Err(gives(failure, user, roots).next(as_user(user)))
}

/// Whether what we make is the service's user's, who must be able to read it.
///
/// # Errors
/// When we are another.
pub(super) fn check_maker(config: &Config) -> Result<(), Failure> {
    let us = rustix::process::geteuid().as_raw();
    match service_user(config).filter(|(user, _)| *user != us) {
        None => Ok(()),
        Some((user, path)) => Err(not_the_user((user, path), us).next(as_user(user))),
    }
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

/// Whether we can use what is there of the service's files.
fn check_files(config: &Config, reader: Reader) -> Result<(), Failure> {
    use rustix::fs::Access;
    let us = rustix::process::geteuid().as_raw();
    let (read, write) = (Access::READ_OK, Access::READ_OK | Access::WRITE_OK);
    let mut wanted = vec![(config.log_key_path.as_path(), read)];
    if let Some(database) = config.database() {
        wanted.extend(database.parent().map(|folder| (folder, write)));
        wanted.push((database, write));
    }
    if reader == Reader::Service {
        wanted.extend(config.ca_key_files().map(|path| (path, read)));
        wanted.extend(config.log_head_path.parent().map(|folder| (folder, write)));
        wanted.push((&config.log_head_path, write));
    }
    let is_denied =
        |(path, access): &(&Path, Access)| rustix::fs::access(*path, *access) == Err(rustix::io::Errno::ACCESS);
    let denied: Vec<&Path> = wanted.into_iter().filter(is_denied).map(|(path, _)| barrier(path)).collect();
    let denied: BTreeSet<(Option<u32>, &Path)> = denied.into_iter().map(|path| (owner_of(path), path)).collect();
    if denied.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::failed(format!("{} may not use what this needs", secret::user(us)));
    for (owner, path) in &denied {
        let mode = std::fs::metadata(path).map(|meta| meta.mode() & 0o7777).unwrap_or_default();
        let owner = owner.map_or_else(|| "nobody known".to_owned(), secret::user);
        failure = failure.because(format!("{path:?} belongs to {owner} (mode {mode:04o})"));
    }
    let of = |whose: u32| denied.iter().filter(move |(owner, _)| *owner == Some(whose)).map(|(_, path)| *path);
    let failure = gives(failure, us, of(0));
    Err(of(us).fold(failure, |failure, path| failure.next(opened_up(path))))
}

/// Whether we may read this folder of ours and these in it, as far as they are there.
///
/// # Errors
/// The first that we may not, with what to do.
pub(super) fn check_readable(doing: &str, folder: &Path, names: &[&str]) -> Result<(), Failure> {
    let us = rustix::process::geteuid().as_raw();
    for path in std::iter::once(folder.to_owned()).chain(names.iter().map(|name| folder.join(name))) {
        let Some(why) = std::fs::File::open(&path).err().filter(|why| why.kind() == ErrorKind::PermissionDenied) else {
            continue;
        };
        let at = barrier(&path);
        let failure = Failure::file(doing, at, &why).because("that says nothing about what is in it");
        return Err(match owner_of(at) {
            Some(0) => {
                let (user, shown) = (secret::user(us), word(&folder.display().to_string()));
                failure.next(format!("sudo chown -R {user} {shown}"))
            }
            Some(owner) if owner == us => failure.next(opened_up(at)),
            Some(owner) => failure.next(as_user(owner)),
            None => failure,
        });
    }
    Ok(())
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
pub(super) fn install_folder(config: &Config, folder: &Path) -> String {
    let us = rustix::process::geteuid().as_raw();
    let user = service_user(config).map_or(us, |(user, _)| user);
    install_for(user, folder)
}

/// How a folder is made for a user.
pub(super) fn install_for(user: u32, folder: &Path) -> String {
    format!("sudo install -d -o {} -m 0700 {}", secret::user(user), word(&folder.display().to_string()))
}

/// What is there of a service that has run: the log's kept checkpoint, and the database file.
pub(super) fn traces(config: &Config) -> Vec<&Path> {
    let database = config.database();
    let there = |path: &&Path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    [Some(config.log_head_path.as_path()), database].into_iter().flatten().filter(there).collect()
}

/// What to do about one of the service's keys that is not there: it was never made, or it was lost. `section` of the manual says what
/// then.
pub(super) fn absent(failure: Failure, config: &Config, section: &str) -> Failure {
    match traces(config).first() {
        None => failure.next("hallpass init"),
        Some(trace) => lost(failure.because(format!("{trace:?} is there, of a service that had one")), section),
    }
}

fn lost(failure: Failure, section: &str) -> Failure {
    failure
        .next("put it back from the offline copy, mode 0600, for the service's user; nothing else goes on with what is there")
        .next(format!("if there is no copy: {section}"))
}

/// Whether systemd has given the credentials among these secrets, as it does the service.
///
/// # Errors
/// When it has not; says how it does.
pub(super) fn check_credentials(secrets: &[&Path]) -> Result<(), Failure> {
    let missing: Vec<&str> = secrets.iter().filter_map(|path| secret::missing(path)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let loads: String = missing.iter().map(|name| format!(" -p LoadCredential={name}:FILE")).collect();
    let named: Vec<String> = missing.iter().map(|name| format!("\"credential:{name}\"")).collect();
    Err(Failure::failed(format!("this needs {}, which systemd gives the service alone", named.join(" and ")))
        .because("FILE is what LoadCredential= in the service's unit names")
        .next(format!("sudo systemd-run --pty --uid=hallpass{loads} {}", typed())))
}

/// What was typed, to be typed again so that this user does it.
fn as_user(id: u32) -> String {
    format!("{} {}", secret::sudo_as(id), typed())
}

fn typed() -> String {
    let words = std::env::args_os().skip(1).map(|typed| format!(" {}", word(&typed.to_string_lossy())));
    format!("hallpass{}", words.collect::<String>())
}

/// The first of these that is there, or that we may not look for: that it can't be read is then said of the right one.
fn first_there(places: &[&str]) -> Option<PathBuf> {
    places.iter().map(PathBuf::from).find(|path| path.try_exists().unwrap_or(true))
}

fn nowhere(reader: Reader) -> Failure {
    let failure = Failure::failed("there is no configuration of the service here")
        .because(format!("looked for {}", PLACES.join(" and ")));
    let usual = PLACES.last().map_or(Path::new(""), Path::new);
    ways(failure, usual, reader)
}

fn unreadable(path: &Path, why: &std::io::Error, reader: Reader) -> Failure {
    let failure = Failure::file("read configuration", path, why);
    match why.kind() {
        ErrorKind::NotFound => ways(failure, path, reader),
        ErrorKind::PermissionDenied => denied(failure, barrier(path)),
        _ => failure,
    }
}

/// What to do where we may not read it.
fn denied(failure: Failure, at: &Path) -> Failure {
    let us = rustix::process::geteuid().as_raw();
    match std::fs::metadata(at).map(|meta| (meta.uid(), meta.mode())) {
        Ok((owner, _)) if owner == us => failure.next(opened_up(at)),
        Ok((0, mode)) => {
            let beside = at.parent().and_then(owner_of).filter(|owner| *owner != 0);
            let user = beside.or_else(|| secret::user_id("hallpass")).unwrap_or(us);
            // Others than root can read it as it is: then it is for one of them.
            let failure = if mode & 0o044 == 0 { gives(failure, user, std::iter::once(at)) } else { failure };
            if user == us { failure } else { failure.next(as_user(user)) }
        }
        Ok((owner, _)) => failure.next(as_user(owner)),
        Err(_) => failure,
    }
}

/// What to do when it is not there.
fn ways(failure: Failure, path: &Path, reader: Reader) -> Failure {
    match reader {
        Reader::Service if let Some(trace) = left_in(path.parent().unwrap_or(path)) => lost(
            failure.because(format!("{trace:?} is there, of a service that had one")),
            "docs/operations.md, \"What there is to keep\"",
        ),
        Reader::Service => failure.next("hallpass init").next("hallpass serve --config FILE"),
        Reader::Operator => failure.next("pass --config FILE"),
    }
}

/// What a service that `init` has set up in this folder has left there.
pub(super) fn left_in(folder: &Path) -> Option<PathBuf> {
    ["log.head", "state/hallpass.db"].map(|name| folder.join(name)).into_iter().find(|path| path.exists())
}

/// A word for a shell.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._:=@%+,-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_has_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let places = [one.to_str().unwrap(), two.to_str().unwrap()];
        assert_eq!(first_there(&places), None);
        crate::durable::create(&two, b"", 0o600).unwrap();
        assert_eq!(first_there(&places).as_ref(), Some(&two));
        crate::durable::create(&one, b"", 0o600).unwrap();
        assert_eq!(first_there(&places), Some(one));
        // One that can't be looked for is not passed by.
        let below_a_file = two.join("config.toml");
        assert_eq!(first_there(&[below_a_file.to_str().unwrap()]), Some(below_a_file));
        let unit = include_str!("../../deploy/hallpass.service");
        assert!(
            PLACES.iter().any(|place| unit.contains(&format!("hallpass serve --config {place}\n"))),
            "the unit's is one of them"
        );
    }

    #[test]
    fn words_are_quoted_for_a_shell_where_they_must_be() {
        for (text, typed) in [
            ("/etc/a-b_c.toml", "/etc/a-b_c.toml"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(word(text), typed);
        }
    }
}
