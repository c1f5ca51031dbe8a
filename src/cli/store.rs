//! `hallpass store migrate` and `take-back`: from a file to a server, while no service runs; and the way back to the file.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::config_file::{self, Reader};
use super::failure::{Exit, Failure};
use super::recover::{log_key, why};
use super::{Context, output, serve};
use crate::audit::checkpoint::LogKey;
use crate::service::recover::{Wrong, examine};
use crate::store::copy::{Copied, CopyError, Terms, copy};
use crate::store::head_file::{HeadFile, KeptHead};
use crate::store::sqlite::Moved;
use crate::store::{self, SEAL_PURPOSE, Settings, Work, sqlite};
use crate::time::{Clock as _, SystemClock};

/// `hallpass store …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy everything from a SQLite file into an empty PostgreSQL database
    ///
    /// Stop the service first. Entries and rows go in one transaction, and are read back before it is committed: the tree is made anew of
    /// the entries and must be that of the sealed head, and of every kind there must be as many rows as before. If anything goes wrong the
    /// database is as it was. A file that is older than what the configuration's `[log] head` knows is not copied. The file keeps all that it has, and is marked
    /// as moved, so that no service goes on with it beside the nodes. To be run again if it was interrupted.
    Migrate(MigrateArgs),
    /// Have services start again on a SQLite file that was moved to PostgreSQL
    ///
    /// Only where every node is stopped for good: what they wrote since is not in the file, and two logs would go on from one beginning.
    TakeBack(TakeBackArgs),
}

/// Arguments of `hallpass store migrate`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The database file: `sqlite:/var/lib/hallpass/state/hallpass.db`
    #[arg(long, value_name = "sqlite:FILE", value_parser = from)]
    from: PathBuf,
    /// The configuration of a node, with [store.postgres]: `postgres:/var/lib/hallpass/config.toml`
    #[arg(long, value_name = "postgres:CONFIG", value_parser = to)]
    to: PathBuf,
    /// Copy a file that was moved before to another database; the one where it was moved to is given up
    #[arg(long)]
    again: bool,
}

/// Arguments of `hallpass store take-back`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TakeBackArgs {
    /// The database file: `sqlite:/var/lib/hallpass/state/hallpass.db`
    #[arg(long, value_name = "sqlite:FILE", value_parser = from)]
    from: PathBuf,
}

fn from(text: &str) -> Result<PathBuf, String> {
    path(text, "sqlite:", "sqlite:/var/lib/hallpass/state/hallpass.db")
}

fn to(text: &str) -> Result<PathBuf, String> {
    path(text, "postgres:", "postgres:/var/lib/hallpass/config.toml")
}

fn path(text: &str, kind: &str, example: &str) -> Result<PathBuf, String> {
    let rest = text.strip_prefix(kind).filter(|rest| !rest.is_empty());
    rest.map(PathBuf::from).ok_or_else(|| format!("it looks like {example}"))
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Migrated {
    entries: u64,
    root: String,
    tables: Vec<Table>,
}

#[derive(Debug, Serialize)]
struct Table {
    name: &'static str,
    rows: u64,
}

/// `hallpass store`.
pub(crate) fn run(context: &Context, command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Migrate(args) => migrate(context, args),
        StoreCommand::TakeBack(args) => take_back(context, args),
    }
}

fn migrate(context: &Context, args: &MigrateArgs) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    serve::arm_fail_point();
    let config = config_file::read_at(&args.to, Reader::Operator)?;
    let Settings::Postgres(to) = &config.store else {
        let shown = args.to.display().to_string();
        return Err(Failure::usage(format!("{shown:?} has no table [store.postgres]"))
            .because("the target is the database that the nodes will work on"));
    };
    let log_key = log_key(context, &config)?;
    let key = log_key.derive(SEAL_PURPOSE);
    let from = sqlite::Settings { path: args.from.clone() };
    let kept: Arc<dyn KeptHead> = Arc::new(HeadFile::new(config.log_head_path.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("cannot start the asynchronous runtime").because(e.to_string()))?;
    let head = runtime.block_on(check_newest(&from, &log_key, Arc::clone(&kept)))?;
    let terms = Terms { key, at: SystemClock.now(), again: args.again, is_behind: head == Kept::Ahead };
    let copied = runtime.block_on(copy(&from, to, terms)).map_err(|why| match why {
        CopyError::Nothing(why) => refused(why.to_string()).next(AGAIN),
        CopyError::Missing => not_what_was_signed(&kept.place()),
        CopyError::Unknown(why) => Failure::failed("it is not known whether all was copied, or nothing")
            .because(why.to_string())
            .because("the database has not answered the commit")
            .next("start nothing, neither a node nor the service; run this again: it finds the copy, or makes it"),
        CopyError::Unmarked(why) => Failure::failed(format!(
            "all was copied, but {:?} could not be marked as moved",
            from.path.display().to_string()
        ))
        .because(why.to_string())
        .because("a service that starts on it would go on from the same entries as the nodes")
        .next("start nothing; mend what is said above, and run this again: it then sets the mark alone"),
    })?;
    let Copied { entries, root, rows, since } = copied;
    let root = data_encoding::HEXLOWER.encode(&root);
    let tables: Vec<Table> = rows.into_iter().map(|(name, rows)| Table { name, rows }).collect();
    let shown: Vec<String> = tables.iter().map(|table| format!("{} {}", table.rows, table.name)).collect();
    let log = format!("the log has {entries} entries, and its tree the root {root}");
    let text = match since {
        Some(0) => format!("it was copied before: {log}"),
        Some(more) => format!("it was copied before: {log}; nodes have gone on from it, by {more} entries"),
        None => format!("copied and checked: {log}\n{}", output::labelled("", "rows", &shown)),
    };
    let document = output::with_schema("hallpass.store-migrated.v1", &Migrated { entries, root, tables })?;
    context.out.answer(&document, &text)?;
    let has_run = since.is_some_and(|more| more > 0);
    for line in next(args, &kept.place(), (head == Kept::Missing, has_run)) {
        context.out.note(&line);
    }
    Ok(())
}

fn next(args: &MigrateArgs, head: &str, (is_missing, has_run): (bool, bool)) -> Vec<String> {
    let (file, to) = (args.from.display(), args.to.display());
    let heads = if is_missing {
        format!("copy the log.head of the service that had the file to {head}, and to each node")
    } else {
        format!("copy {head} to each node, to where its `[log] head` is")
    };
    let mut next = vec![format!("{file} is marked as moved: no service starts on it any more")];
    if !has_run {
        next.push(format!(
            "next: have [store] in the config.toml of each node name the database, as {to} does; {heads}; and start them"
        ));
    }
    next.push("where the service ran on the file, and no node is to run: systemctl disable hallpass".to_owned());
    if !has_run {
        next.push(format!(
            "before any node has run you can still go back: hallpass store take-back --from sqlite:{file}"
        ));
    }
    next
}

fn take_back(context: &Context, args: &TakeBackArgs) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let shown = args.from.display().to_string();
    let failed = |error| Failure::failed(format!("{shown:?} was not taken back")).because(why(error));
    let settings = sqlite::Settings { path: args.from.clone() };
    sqlite::check_ours(&settings).map_err(failed)?;
    let question = format!("are the nodes that {shown:?} was moved to stopped for good? What they wrote is not in it");
    if !context.globals.yes && !output::confirm(&question, context.globals.no_input, "--yes, once they are")? {
        return Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed"));
    }
    let moved = sqlite::take_back(&settings).map_err(failed)?;
    let text = moved.as_ref().map_or_else(
        || format!("{shown} was not moved: services start on it"),
        |Moved { place, .. }| format!("services start on {shown} again; it had been moved to {place}"),
    );
    let document = json!({
        "schema": "hallpass.store-taken-back.v1",
        "file": shown,
        "place": moved.as_ref().map(|moved| moved.place.clone()),
        "moved": moved.as_ref().map(|moved| moved.at.to_string()),
    });
    context.out.answer(&document, &text)?;
    if moved.is_some() {
        context.out.note("next: if a node ever ran, first hallpass admin store recover --head FILE with the log.head of each: serials would be used twice");
        context.out.note(
            "[store] in the configuration names the file again; drop the other database, so that no node starts on it",
        );
    }
    Ok(())
}

const AGAIN: &str = "stop the service, mend what is said above, and run this again";

fn refused(why: String) -> Failure {
    Failure::failed("nothing was copied").because(why)
}

/// What the checkpoint that is kept for the nodes knows of the file's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// There is none.
    Missing,
    /// No more than the file has.
    Covered,
    /// More: the file is an older copy, and no node would start on a copy of it; or nodes have gone on from a copy that was made.
    Ahead,
}

fn not_what_was_signed(place: &str) -> Failure {
    refused(format!(
        "the file is not what the checkpoint in {place} was signed of: it may be an older copy, or the checkpoint another log's"
    ))
    .next("hallpass admin store recover, with the file's own configuration, says what is missing")
    .next(format!("if the checkpoint is another log's: move {place} away"))
}

/// Looks at the kept checkpoint.
async fn check_newest(from: &sqlite::Settings, key: &LogKey, kept: Arc<dyn KeptHead>) -> Result<Kept, Failure> {
    if !from.path.try_exists().map_err(|why| Failure::file("look for database", &from.path, &why))? {
        return Err(refused(format!("there is no database {:?}", from.path)));
    }
    sqlite::check_ours(from).map_err(|error| refused(why(error)))?;
    let opened = store::open_to(Work::Copy, &Settings::Sqlite(from.clone()), key.derive(SEAL_PURPOSE)).await;
    let opened = opened.map_err(|why| refused(why.to_string()).next(AGAIN))?;
    let place = kept.place();
    let found = examine(opened.as_ref(), key, &[kept]).await.map_err(|why| refused(why.to_string()))?;
    match found.wrong() {
        Wrong::Nothing => Ok(Kept::Covered),
        Wrong::Missing => Ok(Kept::Missing),
        Wrong::Behind => Ok(Kept::Ahead),
        Wrong::GivenUp | Wrong::Begun | Wrong::Other | Wrong::Unusable => Err(not_what_was_signed(&place)),
    }
}
