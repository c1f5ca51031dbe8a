//! `hallpass admin backup create|verify|restore`: a database file with a manifest. On the service's machine, as the service's user.
//!
//! Invariants: nothing is ever overwritten; what is put back has been looked at as a whole, at the place where it will be; and whether it is
//! the newest is said, not assumed (`admin store recover`).

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::config_file::{self, Reader};
use super::failure::Failure;
use super::progress::Progress;
use super::recover::{check_there, log_key, why};
use super::{Context, output, serve};
use crate::audit::checkpoint::LogKey;
use crate::config::Config;
use crate::durable;
use crate::fail;
use crate::service::check::{Checked, check};
use crate::service::recover::{Found, Wrong, examine};
use crate::store::backup::{DATABASE, MANIFEST, Manifest, create};
use crate::store::head_file::{HeadFile, KeptHead};
use crate::store::scratch::Scratch;
use crate::store::sqlite::{self, backup::Free};
use crate::store::{self, SEAL_PURPOSE, Store, StoreError};
use crate::time::{Clock as _, SystemClock};

/// How much room there must be for a database to be opened. Our choice: the write-ahead log and its index begin with a tenth of it.
const OPENING_BYTES: u64 = 1 << 20;

/// What helps a restore for which there is no room.
const ROOM: &str = "make room there, or have the service's user own that folder; it is checked where it will be";

/// `hallpass admin backup …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Make a backup of the database in a new folder, while the service runs
    ///
    /// The folder holds the whole database as of one moment (hallpass.db), and a manifest that says what it is, sealed by the log key. There is
    /// no key in it, and of tokens only hashes. PostgreSQL has its own tools for this: see docs/postgres.md.
    Create {
        /// The folder to make
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
    /// Check a backup, or the database itself, as a whole: the log, and every row that the log tells of
    ///
    /// Without FOLDER the configured database is checked in its place, while no service runs on it. Of an interrupted check a hidden folder
    /// `.FOLDER.PID.tmp` stays beside the backup, which may be deleted.
    Verify {
        /// The backup's folder
        #[arg(value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// Where there is room to take the database out, if not beside the backup
        #[arg(long, value_name = "FOLDER", requires = "folder")]
        work: Option<PathBuf>,
    },
    /// Put the database of a backup where the configuration wants it, or into a new file
    ///
    /// It is checked as a whole first. Nothing is overwritten: move the old database with its -wal and -shm away before. If it is not the newest
    /// that there was, no service starts on it before `hallpass admin store recover`.
    Restore(RestoreArgs),
}

/// Arguments of `hallpass admin backup restore`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup's folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Another place than the configured one; must not exist
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// `hallpass admin backup`.
pub(crate) fn run(context: &Context, command: &BackupCommand) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    serve::arm_fail_point();
    let config = config_file::read(context, Reader::Operator)?;
    let key = log_key(context, &config)?;
    match command {
        BackupCommand::Create { folder } => make(context, &config, &key, folder),
        BackupCommand::Verify { folder: Some(folder), work } => verify(context, &key, folder, work.as_deref()),
        BackupCommand::Verify { folder: None, .. } => verify_in_place(context, &config, &key),
        BackupCommand::Restore(args) => restore(context, &config, &key, args),
    }
}

fn make(context: &Context, config: &Config, key: &LogKey, folder: &Path) -> Result<(), Failure> {
    let store::Settings::Sqlite(file) = &config.store else {
        return Err(Failure::usage("the store is in PostgreSQL, which has its own backups")
            .because("pg_dump, or base backups with WAL archiving, which come back to any moment")
            .next(
                "after putting one back into a database of its own: hallpass admin backup verify --config ITS-CONFIG",
            ));
    };
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty())
        && let Err(why) = std::fs::metadata(parent)
    {
        let us = rustix::process::geteuid().as_raw();
        let failure = Failure::file("make a backup in", parent, &why);
        return Err(match why.kind() {
            ErrorKind::NotFound => failure.next(config_file::install_for(us, parent)),
            _ => failure,
        });
    }
    let mut progress = Progress::new(context, "pages copied");
    let mut told = |done, all| progress.tell(|| format!("{done} of {all}"));
    let manifest = create(file, folder, (key, SystemClock.now()), &mut told).map_err(|error| {
        Failure::failed(format!("no backup was made at {:?}", folder.display().to_string()))
            .because(why(error))
            .next("mend what is said above, and run this again")
    })?;
    let text = format!("{} holds {}", folder.display(), described(&manifest));
    context.out.answer(&about(folder, &manifest, "hallpass.backup.v1"), &text)?;
    let verify = config_file::command(context, "hallpass admin backup verify FOLDER");
    context.out.note(&format!("it is read back and checked by: {verify}"));
    context.out.note("do not keep log.head with it: that file tells an old backup from the newest database");
    Ok(())
}

fn described(manifest: &Manifest) -> String {
    let Manifest { entries, last, bytes, made, .. } = manifest;
    let (last, made) = (output::local_text(last), output::local_text(made));
    format!("the database as of {made}: {entries} log entries, the last of {last}; {bytes} bytes")
}

fn about(folder: &Path, manifest: &Manifest, schema: &str) -> Value {
    let Manifest { program, made, schema: of, entries, last, checkpoint, bytes, sha256, .. } = manifest;
    json!({
        "schema": schema,
        "folder": folder.display().to_string(),
        "made": made,
        "program": program,
        "database_schema": of,
        "entries": entries,
        "last": last,
        "checkpoint": checkpoint,
        "bytes": bytes,
        "sha256": sha256,
    })
}

/// A backup's database, taken out beside `beside`, opened as by a service.
struct Taken {
    // The store lets the file go before the folder does.
    store: Box<dyn Store>,
    scratch: Scratch,
}

/// Takes the database out and opens it. What the place beside `beside` can't take says nothing about the backup; `elsewhere` is what to
/// do then.
async fn take_out(
    folder: &Path,
    manifest: &Manifest,
    key: &LogKey,
    (beside, elsewhere): (&Path, &str),
) -> Result<Taken, Failure> {
    let scratch =
        Scratch::beside(beside).map_err(|why| Failure::file("make a folder beside", beside, &why).next(elsewhere))?;
    let path = scratch.file(DATABASE);
    let no_room = |why: String| {
        let (from, to) = (folder.display().to_string(), path.display().to_string());
        Failure::failed(format!("cannot take the database of {from:?} out to {to:?}"))
            .because(format!("{why}; it has {} bytes", manifest.bytes))
            .next(elsewhere)
    };
    if let Err(error) = manifest.take_out(folder, &path) {
        // (the store names the file that it read, also if it is the other one that failed)
        let read = format!("{:?}: ", folder.join(DATABASE));
        return Err(match error {
            StoreError::Failed { why, .. } if can_be_read(&folder.join(DATABASE)) => {
                no_room(why.replacen(&read, "", 1))
            }
            other => unusable(folder, why(other)),
        });
    }
    let settings = store::Settings::Sqlite(sqlite::Settings { path: path.clone() });
    match store::open_to(store::Work::Copy, &settings, key.derive(SEAL_PURPOSE)).await {
        Ok(store) => Ok(Taken { store, scratch }),
        Err(StoreError::Failed { why, .. }) if is_full(&path) => Err(no_room(why)),
        Err(error) => Err(unusable(folder, why(error))),
    }
}

fn unusable(folder: &Path, why: String) -> Failure {
    Failure::failed(format!("{:?} is no backup to rely on", folder.display().to_string())).because(why)
}

/// Whether a file can be read to its end.
fn can_be_read(path: &Path) -> bool {
    File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink())).is_ok()
}

/// Whether the file system has no room for what SQLite has beside a database that it opens.
pub(super) fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < OPENING_BYTES)
}

/// The manifest of a backup that we may read: whether it is one to rely on, is something else.
fn read(folder: &Path, key: &LogKey) -> Result<Manifest, Failure> {
    config_file::check_readable("read the backup", folder, &[MANIFEST, DATABASE])?;
    Manifest::read(folder, key).map_err(|why| unusable(folder, why.to_string()))
}

/// The whole of a store.
async fn look(context: &Context, store: &dyn Store, key: &LogKey) -> Result<Checked, Failure> {
    let mut progress = Progress::new(context, "log entries read");
    let mut told = |done: u64| progress.tell(|| done.to_string());
    let checked = check(store, key, &mut told).await;
    checked.map_err(|why| Failure::failed("the database can't be read to its end").because(why.to_string()))
}

fn verify(context: &Context, key: &LogKey, folder: &Path, work: Option<&Path>) -> Result<(), Failure> {
    let manifest = read(folder, key)?;
    let beside = work.map_or_else(|| folder.to_path_buf(), |work| work.join("backup"));
    let shown = folder.display();
    let again = config_file::command(context, &format!("hallpass admin backup verify {shown} --work FOLDER"));
    let elsewhere = format!("{again}, where there is room");
    let checked = context.block_on(async {
        let taken = take_out(folder, &manifest, key, (&beside, &elsewhere)).await?;
        let mut checked = look(context, taken.store.as_ref(), key).await?;
        if (manifest.entries, &manifest.checkpoint) != (checked.entries, &key.sign(checked.entries, &checked.root)) {
            checked.findings.push("the manifest tells of another log than the database holds".to_owned());
        }
        Ok(checked)
    })?;
    report(context, &checked, &described(&manifest), Some((folder, &manifest)))
}

fn verify_in_place(context: &Context, config: &Config, key: &LogKey) -> Result<(), Failure> {
    check_there(context, config)?;
    let checked = context.block_on(async {
        let opened =
            store::open_to(store::Work::Look, &config.store, key.derive(SEAL_PURPOSE)).await.map_err(|why| {
                Failure::failed(format!("cannot open the database {:?}", config.store.shown())).because(why.to_string())
            })?;
        look(context, opened.as_ref(), key).await
    })?;
    report(context, &checked, &config.store.shown(), None)
}

fn report(context: &Context, checked: &Checked, what: &str, backup: Option<(&Path, &Manifest)>) -> Result<(), Failure> {
    let Checked { entries, root, certificates, policies, requests, findings } = checked;
    let root = data_encoding::HEXLOWER.encode(root);
    let number = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let is_sound = findings.is_empty();
    let mut text = if is_sound {
        format!(
            "sound: {what}\n  log         {}, root {root}; {}\n  rows        {} and {} are what the log says of them\n  not shown   whether it \
             is the newest: {} says that\n",
            number(*entries, "entry", "entries"),
            number(*certificates, "certificate", "certificates"),
            number(*requests, "request", "requests"),
            number(*policies, "policy", "policies"),
            config_file::command(context, "hallpass admin store recover"),
        )
    } else {
        format!("NOT sound: {what}\n")
    };
    findings.iter().for_each(|finding| text.push_str(&format!("  {finding}\n")));
    let document = json!({
        "schema": "hallpass.backup-verify.v1",
        "sound": is_sound,
        "folder": backup.map(|(folder, _)| folder.display().to_string()),
        "made": backup.map(|(_, manifest)| manifest.made.clone()),
        "entries": entries,
        "root": root,
        "certificates": certificates,
        "requests": requests,
        "policies": policies,
        "findings": findings,
    });
    context.out.answer(&document, &text)?;
    if is_sound { Ok(()) } else { Err(Failure::silent()) }
}

fn restore(context: &Context, config: &Config, key: &LogKey, args: &RestoreArgs) -> Result<(), Failure> {
    let target = match (&args.to, &config.store) {
        (Some(path), _) => path.clone(),
        (None, store::Settings::Sqlite(file)) => file.path.clone(),
        (None, store::Settings::Postgres(_)) => {
            return Err(Failure::usage("the store is in PostgreSQL, and a backup is a file")
                .next(config_file::command(context, "hallpass admin backup restore FOLDER --to FILE"))
                .next("hallpass store migrate --from sqlite:FILE --to postgres:CONFIG"));
        }
    };
    let is_in_place = matches!(&config.store, store::Settings::Sqlite(file) if file.path == target);
    let manifest = read(&args.folder, key)?;
    let nothing = |why: String| Failure::failed("nothing was put back").because(why);
    if let Some(folder) = target.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        durable::create_folder(folder, 0o700).map_err(|why| Failure::file("make folder", folder, &why))?;
    }
    let free = Free::claim(&target).map_err(|error| nothing(why(error)))?;
    let head: Arc<dyn KeptHead> = Arc::new(HeadFile::new(config.log_head_path.clone()));
    let (found, scratch, moved) = context.block_on(async {
        let Taken { store, scratch } = take_out(&args.folder, &manifest, key, (&target, ROOM)).await?;
        let checked = look(context, store.as_ref(), key).await?;
        if !checked.findings.is_empty() {
            return Err(checked.findings.into_iter().fold(Failure::failed("nothing was put back"), Failure::because));
        }
        let found = examine(store.as_ref(), key, &[head]).await.map_err(|why| nothing(why.to_string()))?;
        let moved = store.moved().map(|moved| moved.refusal(&target.display().to_string()));
        Ok((found, scratch, moved))
    })?;
    fail::point("restore.checked");
    free.put(&scratch.file(DATABASE)).map_err(|error| nothing(why(error)))?;
    fail::point("restore.placed");
    let mut document = about(&args.folder, &manifest, "hallpass.backup-restored.v1");
    if let Value::Object(members) = &mut document {
        members.insert("to".to_owned(), target.display().to_string().into());
        members.insert("wrong".to_owned(), found.wrong().word().into());
    }
    context.out.answer(&document, &format!("{} is {}", target.display(), described(&manifest)))?;
    match moved {
        Some(refusal) => context.out.note(&format!("no service starts on it: {refusal}")),
        None => context.out.note(&after(context, &found, is_in_place)),
    }
    Ok(())
}

/// What to do with what was put back.
fn after(context: &Context, found: &Found, is_in_place: bool) -> String {
    let recover = config_file::command(context, "hallpass admin store recover");
    match found.wrong() {
        Wrong::Nothing | Wrong::GivenUp if !is_in_place => {
            "it has all that was signed until now; no service uses it, since another database is configured".to_owned()
        }
        Wrong::Missing if !is_in_place => {
            "whether it has all that was signed is not known, since no checkpoint is kept; another database is configured"
                .to_owned()
        }
        _ if !is_in_place => "it does not have all that was signed; another database is configured".to_owned(),
        Wrong::Nothing | Wrong::GivenUp => "next: start the service; it has all that was signed".to_owned(),
        Wrong::Missing => format!("next: {recover}, since no kept checkpoint says whether it is the newest"),
        Wrong::Behind | Wrong::Other | Wrong::Unusable | Wrong::Begun => {
            format!("next: {recover}; it is not the newest, and no service starts on it before")
        }
    }
}
