//! The service's configuration file, for the commands on its machine: where it is, why it can't be read, and how a hint names it.
//!
//! What for: `serve`, and what operators run beside it (`admin backup`, `admin store`, `store migrate`, `ca add`), all by one rule.
//! Whose it and the service's files are is in `rights.rs`.
//! What not: a host's `host.toml` and a person's profiles; those have their own places.
//!
//! *Why no variable of the environment?* `sudo` takes it away, and then another file would be read than was meant.

mod rights;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub(super) use rights::{check_database, check_maker, check_readable, check_user, install_folder, install_for};

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
        ErrorKind::PermissionDenied => rights::unreadable(failure, path),
        _ => failure,
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
        let unit = include_str!("../../../deploy/hallpass.service");
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
