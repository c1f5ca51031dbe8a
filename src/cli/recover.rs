//! `hallpass admin store recover`: what the database lacks of what was signed, and the way on. Offline, on the service's machine.
//!
//! Invariant: nothing is changed without `--apply`, a name and a reason. What is done, and why in this order, is in `service/recover.rs`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::backup::is_full;
use super::config_file::{self, Reader};
use super::failure::{Exit, Failure};
use super::recover_report::{applied, beyond, ends, explain, written};
use super::{Context, output, serve, usage};
use crate::audit::checkpoint::{LogKey, usual_origin};
use crate::audit::report::note_of;
use crate::config::Config;
use crate::name::PersonName;
use crate::policy::Policy;
use crate::service::clock::check_rest;
use crate::service::lost::Stands;
use crate::service::recover::{Found, HEADS_MAX, RecoverError, Word, Wrong, examine, recover, to_write};
use crate::store::head_file::{self, HeadFile, KeptHead};
use crate::store::sqlite::{self, IN_USE};
use crate::store::{self, SEAL_PURPOSE, Store, StoreError};
use crate::time::{Clock as _, SystemClock};

/// So many serials that no checkpoint knows of are given up without a question. Our own choice: some days' worth; more is looked at twice.
const UNASKED: u64 = 10_000;

/// What puts a copy back.
const RESTORE: &str = "hallpass admin backup restore FOLDER";

/// `hallpass admin store …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Say what the database lacks of what was signed; with --apply, have the log go on without it
    ///
    /// Run on the service's machine, as the service's user, while no service runs on the database. The log's newest checkpoint is kept in a
    /// file beside the database (`head` in `[log]`): where the two disagree, an older copy was put back, and no service starts. Look for a newer
    /// copy first. With --past, what --apply would do is counted first; serials that no checkpoint knows of are given up on a sound database, or
    /// in great number, only after a question. If there is no newer copy, --apply writes into the log which entries are lost, and who answers for it; lets no serial be
    /// given twice; ends every request that is open in the copy, and every login. Nothing is changed without it.
    Recover(RecoverArgs),
}

/// Arguments of `hallpass admin store recover`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RecoverArgs {
    /// One more checkpoint to look at: of another node, or an auditor's; may be repeated
    #[arg(long, value_name = "FILE")]
    head: Vec<PathBuf>,
    /// A serial that was given out: the highest in any host's log, where no checkpoint tells how long the lost log was
    #[arg(long, value_name = "SERIAL")]
    past: Option<u64>,
    /// Do it
    #[arg(long, requires = "by", requires = "reason")]
    apply: bool,
    /// Do it although the clock is more than 400 days after the log's last entry
    #[arg(long, requires = "apply")]
    accept_clock: bool,
    /// Your name as in the policy, for the log; one that is not in the database's policy is asked about
    #[arg(long, value_name = "PERSON", value_parser = PersonName::parse)]
    by: Option<PersonName>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: Option<String>,
}

/// `hallpass admin store`.
pub(crate) fn run(context: &Context, command: &StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Recover(args) = command;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    serve::arm_fail_point();
    let config = config_file::read(context, Reader::Operator)?;
    if args.head.len() >= HEADS_MAX {
        return Err(Failure::usage(format!("at most {HEADS_MAX} checkpoints can be given")));
    }
    let key = log_key(context, &config)?;
    let own: Arc<dyn KeptHead> = Arc::new(HeadFile::new(config.log_head_path.clone()));
    // Read once, before anything is opened: it is here and ours to read, or nothing is looked at.
    own.read().map_err(|why| unread(&config.log_head_path, &why))?;
    let given = args.head.iter().map(|path| Given::read(path).map(|given| -> Arc<dyn KeptHead> { Arc::new(given) }));
    let given = given.collect::<Result<Vec<_>, _>>()?;
    let places: Vec<Arc<dyn KeptHead>> = std::iter::once(Arc::clone(&own)).chain(given).collect();
    context.block_on(async {
        let work = if args.apply { store::Work::Repair } else { store::Work::Look };
        let store = open(context, &config, &key, work).await?;
        let found = examine(store.as_ref(), &key, &places).await;
        let found = found.map_err(|why| unusable(context, &config, why.to_string()))?;
        check_given(&found)?;
        if !args.apply {
            return explain(context, &config, &found, args.past);
        }
        let (Some(by), Some(reason)) = (args.by.clone(), args.reason.clone()) else {
            return Err(Failure::usage("--apply needs --by and --reason"));
        };
        let now = SystemClock.now();
        if !args.accept_clock {
            check_rest(found.last, now).map_err(|why| {
                Failure::failed("nothing was changed")
                    .because(why)
                    .next("set the clock, what is written into the log stays there; or, if it is right, do it with --accept-clock")
            })?;
        }
        check_name(context, store.as_ref(), &by).await?;
        check_past(context, &found, args.past)?;
        let word = Word { by, reason, past: args.past };
        let mut told = |size: u64, end: u64| context.out.note(&format!("the log has {size} of {end} entries by now"));
        let done = recover(store.as_ref(), (&key, own.as_ref()), (&found, &word), now, &mut told).await;
        let done = done.map_err(|why| {
            let failure = Failure::failed("the database was not recovered").because(why.to_string());
            match (why, full(&config)) {
                (RecoverError::Nothing, _) => failure,
                (RecoverError::Store(_), Some(folder)) => failure.next(room(&folder)),
                _ => failure.next("mend what is said above, and run this again"),
            }
        })?;
        applied(context, &found, &done)
    })
}

/// What somebody has brought: another node's file, an auditor's checkpoint, or an export, which ends with one.
#[derive(Debug)]
struct Given {
    place: String,
    notes: Vec<String>,
}

impl Given {
    fn read(path: &Path) -> Result<Self, Failure> {
        let place = path.display().to_string();
        let text = super::audit::read_checkpoint(path)?;
        let notes = if text.trim_start().starts_with('{') {
            let none = |_| {
                Failure::usage(format!("{place:?} is no checkpoint of this log")).because("it does not end with one")
            };
            vec![note_of(&text).map_err(none)?]
        } else {
            // A node's file has two, of which one may be damaged.
            head_file::checkpoints(text.as_bytes())
        };
        Ok(Self { place, notes })
    }
}

impl KeptHead for Given {
    fn read(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.notes.clone())
    }

    fn write(&self, _checkpoint: &str) -> Result<(), StoreError> {
        Err(StoreError::Failed { doing: "keeping a checkpoint", why: format!("{} is somebody else's", self.place) })
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// What is no checkpoint of this log says nothing, and must not be taken for an answer.
fn check_given(found: &Found) -> Result<(), Failure> {
    for head in found.heads.iter().skip(1) {
        if let Stands::Unusable(why) = &head.stands {
            return Err(Failure::usage(format!("{:?} is no checkpoint of this log", head.place)).because(why.clone()));
        }
    }
    Ok(())
}

fn unread(path: &Path, error: &StoreError) -> Failure {
    let shown = path.display().to_string();
    let owner = format!("it must be the service's own: ls -l {shown}, and chown it");
    Failure::failed(format!("cannot read the log's checkpoint {shown:?}")).because(why(error.clone())).next(owner)
}

/// Asks about a name that nobody has in the copy's policy: it stays in the log for good. It is not refused, since the copy may be older than
/// that person.
async fn check_name(context: &Context, store: &dyn Store, by: &PersonName) -> Result<(), Failure> {
    let Ok(Some(stored)) = store.policy(None).await else { return Ok(()) };
    let Ok(policy) = Policy::parse(&stored.text, "policy.toml") else { return Ok(()) };
    if policy.directory().person(by).is_some() || context.globals.yes {
        return Ok(());
    }
    let question =
        format!("{by} is nobody in this database's policy {}: write that name into the log for good?", stored.version);
    match output::confirm(&question, context.globals.no_input, "--yes, or another name as --by")? {
        true => Ok(()),
        false => Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed")),
    }
}

/// Asks before what --past alone says is lost is given up: on a sound database, or very much of it. It can't be taken back.
fn check_past(context: &Context, found: &Found, past: Option<u64>) -> Result<(), Failure> {
    // What there is to refuse is refused when it is done.
    let (Some(past), Ok(writes)) = (past, to_write(found, past)) else { return Ok(()) };
    let beyond = beyond(found, writes);
    if beyond == 0 {
        return Ok(());
    }
    let is_sound = matches!(found.wrong(), Wrong::Nothing | Wrong::GivenUp);
    if (is_sound || beyond > UNASKED) && !context.globals.yes {
        let sound = if is_sound { "the database has all that the kept checkpoints cover; " } else { "" };
        let question = format!(
            "{sound}was serial {past} really given out? {beyond} serials that no checkpoint knows of are given up for good, {}, and everybody is \
             logged out",
            ends(found)
        );
        if !output::confirm(&question, context.globals.no_input, "--yes, or another --past")? {
            return Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed"));
        }
    }
    context.out.note(&format!("writing {}", written(writes)));
    Ok(())
}

/// The folder of a database file that has no room left for anything.
fn full(config: &Config) -> Option<String> {
    let store::Settings::Sqlite(file) = &config.store else { return None };
    let folder = file.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    is_full(folder).then(|| folder.display().to_string())
}

fn room(folder: &str) -> String {
    format!("make room there (df -h {folder}), and run this again")
}

/// The key that signs checkpoints, and seals the log's head; for the service's user alone.
pub(super) fn log_key(context: &Context, config: &Config) -> Result<LogKey, Failure> {
    config_file::check_user(context, config, Reader::Operator)?;
    let password = match &config.store {
        store::Settings::Postgres(settings) => settings.password_path.as_deref(),
        store::Settings::Sqlite(_) => None,
    };
    let secrets: Vec<&Path> = std::iter::once(config.log_key_path.as_path()).chain(password).collect();
    config_file::check_credentials(&secrets)?;
    let origin = config.log_origin.clone().unwrap_or_else(|| usual_origin(&config.service.public_url));
    serve::log_key(config, &origin)
}

/// Opens the database as a service would; one that is not there is not made. One that was moved is refused before all else: the log goes on elsewhere,
/// so whatever else is wrong with the file, no copy is to take its place.
async fn open(context: &Context, config: &Config, key: &LogKey, work: store::Work) -> Result<Box<dyn Store>, Failure> {
    check_there(context, config)?;
    if let store::Settings::Sqlite(file) = &config.store
        && let Some(moved) = sqlite::moved(file).map_err(|error| unusable(context, config, why(error)))?
    {
        return Err(Failure::failed("the file is not the log's database any more")
            .because(moved.refusal(&file.path.display().to_string())));
    }
    let opened = store::open_to(work, &config.store, key.derive(SEAL_PURPOSE)).await;
    opened.map_err(|error| unusable(context, config, why(error)))
}

/// Whether the database file is there. That it may not be looked for is something else.
pub(super) fn check_there(context: &Context, config: &Config) -> Result<(), Failure> {
    let store::Settings::Sqlite(file) = &config.store else { return Ok(()) };
    match std::fs::metadata(&file.path) {
        Ok(_) => config_file::check_database(context, config),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let restore = config_file::command(context, RESTORE);
            Err(Failure::failed(format!("there is no database {:?}", config.store.shown()))
                .next(format!("put the newest copy back first: {restore}")))
        }
        Err(error) => Err(Failure::file("look for the database", &file.path, &error)
            .because("each folder on the way must let the service's user in")
            .next(format!("namei -l {}", file.path.display()))),
    }
}

/// Why, without where in the program.
pub(super) fn why(error: StoreError) -> String {
    match error {
        StoreError::Failed { why, .. } => why,
        other => other.to_string(),
    }
}

fn unusable(context: &Context, config: &Config, why: String) -> Failure {
    let shown = config.store.shown();
    if let Some(folder) = full(config) {
        return Failure::failed(format!("there is no room in {folder:?} to open the database"))
            .because(why)
            .because("nothing says that the database is damaged: what is beside it while it is open has no room")
            .next(room(&folder));
    }
    let failure = Failure::failed(format!("the database {shown:?} can't be read"));
    let next = match &config.store {
        store::Settings::Postgres(_) => "see that the server runs, and that no node does".to_owned(),
        store::Settings::Sqlite(_) if why.contains(IN_USE) => "stop the service on it, and run this again".to_owned(),
        store::Settings::Sqlite(_) => {
            let restore = config_file::command(context, RESTORE);
            format!("if it is damaged, put the newest good copy back: {restore}")
        }
    };
    failure.because(why).next(next)
}
