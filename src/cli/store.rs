//! `hallpass store migrate`: from a file to a server, while no service runs.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::config_file::{self, Reader};
use super::failure::Failure;
use super::recover::log_key;
use super::{Context, output};
use crate::audit::checkpoint::LogKey;
use crate::service::recover::{Wrong, examine};
use crate::store::copy::{Copied, copy};
use crate::store::head_file::{HeadFile, KeptHead};
use crate::store::{self, SEAL_PURPOSE, Settings, sqlite};

/// `hallpass store …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy everything from a SQLite file into an empty PostgreSQL database
    ///
    /// Stop the service first. Entries and rows go in one transaction, and are read back before it is committed: the tree is made anew of
    /// the entries and must be that of the sealed head, and of every kind there must be as many rows as before. If anything goes wrong the
    /// database is as it was. A file that is older than what the configuration's `[log] head` knows is not copied. The file stays; keep it until the nodes run, and start no service on it again: two logs would go on from
    /// one beginning.
    Migrate(MigrateArgs),
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
    }
}

fn migrate(context: &Context, args: &MigrateArgs) -> Result<(), Failure> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let config = config_file::read_at(&args.to, Reader::Operator)?;
    let Settings::Postgres(to) = &config.store else {
        let shown = args.to.display().to_string();
        return Err(Failure::usage(format!("{shown:?} has no table [store.postgres]"))
            .because("the target is the database that the nodes will work on"));
    };
    let log_key = log_key(&config)?;
    let key = log_key.derive(SEAL_PURPOSE);
    let from = sqlite::Settings { path: args.from.clone() };
    let kept: Arc<dyn KeptHead> = Arc::new(HeadFile::new(config.log_head_path.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("cannot start the asynchronous runtime").because(e.to_string()))?;
    let is_kept = runtime.block_on(check_newest(&from, &log_key, Arc::clone(&kept)))?;
    let copied = runtime.block_on(copy(&from, to, key)).map_err(|why| {
        Failure::failed("nothing was copied")
            .because(why.to_string())
            .next("stop the service, mend what is said above, and run this again")
    })?;
    let Copied { entries, root, rows } = copied;
    let root = data_encoding::HEXLOWER.encode(&root);
    let tables: Vec<Table> = rows.into_iter().map(|(name, rows)| Table { name, rows }).collect();
    let shown: Vec<String> = tables.iter().map(|table| format!("{} {}", table.rows, table.name)).collect();
    let text = format!(
        "copied and checked: the log has {entries} entries, and its tree the root {root}\n{}",
        output::labelled("", "rows", &shown)
    );
    let document = output::with_schema("hallpass.store-migrated.v1", &Migrated { entries, root, tables })?;
    context.out.answer(&document, &text)?;
    let head = kept.place();
    context.out.note(&if is_kept {
        format!("next: copy {head} to each node, to where its `[log] head` is, and start them")
    } else {
        format!("next: copy the log.head of the service that had the file to {head}, and to each node, and start them")
    });
    Ok(())
}

/// Whether a checkpoint is kept for the nodes; not if it knows more of the log than the file has: then a node would not start on the copy.
async fn check_newest(from: &sqlite::Settings, key: &LogKey, kept: Arc<dyn KeptHead>) -> Result<bool, Failure> {
    let refuse = |why: String| Failure::failed("nothing was copied").because(why);
    if !from.path.try_exists().map_err(|why| Failure::file("look for database", &from.path, &why))? {
        return Err(refuse(format!("there is no database {:?}", from.path)));
    }
    let opened = store::open(&Settings::Sqlite(from.clone()), key.derive(SEAL_PURPOSE)).await;
    let opened = opened
        .map_err(|why| refuse(why.to_string()).next("stop the service, mend what is said above, and run this again"))?;
    let place = kept.place();
    let found = examine(opened.as_ref(), key, &[kept]).await.map_err(|why| refuse(why.to_string()))?;
    match found.wrong() {
        Wrong::Nothing => Ok(true),
        Wrong::Missing => Ok(false),
        Wrong::GivenUp | Wrong::Begun | Wrong::Behind | Wrong::Other | Wrong::Unusable => Err(refuse(format!(
            "the file is not what the checkpoint in {place} was signed of: it may be an older copy, or the checkpoint another log's"
        ))
        .next("hallpass admin store recover, with the file's own configuration, says what is missing")
        .next(format!("if the checkpoint is another log's: move {place} away"))),
    }
}
