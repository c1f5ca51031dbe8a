//! `hallpass host …`: what PAM and sshd run on a host. Thin calls of the host side.
//!
//! What for: [`guard()`] turns PAM's environment into a login and the outcome into an exit code and one line in the machine's log;
//! [`principals()`] prints what sshd asked for, or nothing; [`watch`] is the guard's own; [`tend()`] makes good what went wrong with it.
//!
//! Invariants: no network, no asynchronous runtime, nothing of the client's files. Whatever goes wrong, the exit code is not 0.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Context;
use super::failure::{Exit, Failure};
use super::{host_enrol, host_run};
use crate::host::guard::{self, Login, Passed, Refused};
use crate::host::judgement::Rules;
use crate::host::principals::{Question, answer};
use crate::host::program::Program;
use crate::host::sessions::{Sessions, Tended};
use crate::host::settings::Settings;
use crate::host::spool::Spool;
use crate::host::{journal, settings, watch};

const GUARD_HELP: &str = "\
In /etc/pam.d/sshd, directly below the line with pam_loginuid:
  session required pam_exec.so quiet type=open_session /usr/local/bin/hallpass-host guard

In no other file: logins that do not come from sshd would be refused.

A login by our CA goes on once its end is certain. What can't be read is refused. All other
logins go on, unless /etc/hallpass/host.toml (or the file that --config names) says otherwise.";

const PRINCIPALS_HELP: &str = "\
In sshd_config, the first on one line:
  AuthorizedPrincipalsCommand /usr/local/bin/hallpass-host principals
      --user=%u --serial=%s --key-id=%i --cert=%k
  AuthorizedPrincipalsCommandUser nobody

Prints the principals of this host for the account, one on each line, or nothing. The host's
name and tags are in /etc/hallpass/host.toml (or the file that --config names).";

const TEND_HELP: &str = "\
Each session by certificate has a small process that ends it. Should one be gone (killed by root),
this starts another; a session whose record makes no sense is ended, and what is over is
forgotten. Run it once as root after such an accident, or from a timer on hosts without the daemon.";

/// `hallpass host …`
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Set this host up beside its sshd, in one go
    #[command(after_help = host_enrol::ENROL_HELP)]
    Enrol(Box<host_enrol::EnrolArgs>),
    /// Take everything back that enrolling did
    #[command(after_help = host_enrol::LEAVE_HELP)]
    Leave(host_enrol::LeaveArgs),
    /// Look after this host (the daemon)
    #[command(after_help = host_run::RUN_HELP)]
    Run(host_run::RunArgs),
    /// Whether this host does what it is enrolled for
    #[command(after_help = host_run::CHECK_HELP)]
    Check,
    /// What this host is enrolled as, and how it stands with the service
    Status,
    /// Sessions by certificate that are open here
    Sessions(host_run::SessionsArgs),
    /// End sessions with their windows (run by PAM)
    #[command(after_help = GUARD_HELP)]
    Guard,
    /// Say which principals open an account (run by sshd)
    #[command(after_help = PRINCIPALS_HELP)]
    Principals(PrincipalsArgs),
    /// Start watchers again for sessions that have none
    #[command(after_help = TEND_HELP)]
    Tend,
    /// Started by the guard
    #[command(hide = true)]
    Watch(WatchArgs),
}

/// Arguments of `hallpass host principals`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PrincipalsArgs {
    /// The account (%u)
    #[arg(long, value_name = "ACCOUNT")]
    pub(super) user: String,
    /// The certificate's serial (%s)
    #[arg(long, value_name = "SERIAL")]
    pub(super) serial: String,
    /// The certificate's key id (%i)
    #[arg(long, value_name = "ID")]
    pub(super) key_id: String,
    /// The certificate in base64 (%k)
    #[arg(long, value_name = "BASE64")]
    pub(super) cert: String,
}

/// Arguments of `hallpass host watch`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    /// Where events are put down
    #[arg(long, value_name = "FOLDER")]
    pub(super) spool: PathBuf,
    /// The session's record
    #[arg(value_name = "FILE")]
    pub(super) record: PathBuf,
}

/// Runs one of them.
///
/// # Errors
/// Why sshd must not go on.
pub(crate) fn run(context: &Context, command: &HostCommand) -> Result<(), Failure> {
    let settings = context.globals.config.as_deref().unwrap_or_else(|| Path::new(settings::PATH));
    match command {
        HostCommand::Enrol(args) => host_enrol::enrol(context, args),
        HostCommand::Leave(args) => host_enrol::leave(context, args),
        HostCommand::Run(args) => host_run::run(context, args),
        HostCommand::Check => host_run::check(context),
        HostCommand::Status => host_run::status(context),
        HostCommand::Sessions(args) => host_run::sessions(context, settings, args),
        HostCommand::Guard => guard(context, settings),
        HostCommand::Tend => tend(context, settings),
        HostCommand::Principals(args) => principals(context, settings, args),
        HostCommand::Watch(args) => watch::run(&args.record, Spool::at(&args.spool))
            .map_err(|why| not_ready("cannot watch over a session", why)),
    }
}

/// `hallpass host guard`.
fn guard(context: &Context, settings: &Path) -> Result<(), Failure> {
    let Some(event) = std::env::var_os("PAM_TYPE") else {
        return Err(
            Failure::usage("`hallpass host guard` is run by PAM, not by people").next("hallpass host guard --help")
        );
    };
    // The other events of a session are nothing to us: the watcher sees by itself when a connection ends.
    if event != "open_session" {
        return Ok(());
    }
    let login = Login {
        account: std::env::var_os("PAM_USER").unwrap_or_default().to_string_lossy().into_owned(),
        auth_info: std::env::var_os("SSH_AUTH_INFO_0").map(std::os::unix::ffi::OsStringExt::into_vec),
        from: std::env::var_os("SSH_CONNECTION").and_then(|text| text.to_str()?.split(' ').next()?.parse().ok()),
    };
    let program = own_program(context)?;
    let from = std::env::var_os("PAM_RHOST").unwrap_or_default();
    let who = format!("{} from {}", login.account, from.to_string_lossy());
    match guard::open(&login, settings, &program) {
        Ok(Passed::NotOurs) => Ok(()),
        Ok(Passed::Unguarded(why)) => {
            journal::note(&format!("{who} let through without a certificate, but host.toml can't be read: {why}"));
            Ok(())
        }
        Ok(Passed::Armed(record)) => {
            let (key, id, serial) = (record.key.session.number(), record.key_id.as_str(), record.serial);
            let end = record.deadline.wall;
            journal::note(&format!("{who}: session {key} by {id} (serial {serial}) ends {end}"));
            Ok(())
        }
        Err(refused) => {
            journal::note(&format!("{who} refused: {refused}"));
            Err(match refused {
                Refused::Denied(why) => {
                    Failure::new(Exit::Refused, "refused", "this login is refused").because(why.to_string())
                }
                Refused::NotArmed(_) => not_ready("this login is refused", refused.to_string()),
            })
        }
    }
}

/// `hallpass host tend`.
fn tend(context: &Context, settings: &Path) -> Result<(), Failure> {
    let failed = |why| not_ready("cannot look after the sessions of this host", why);
    let settings = Settings::load(settings).map_err(failed)?;
    let program = own_program(context)?;
    let tended = Sessions::open(&settings).and_then(|sessions| sessions.tend(&program)).map_err(failed)?;
    let Tended { watched, forgotten, ended } = tended;
    context.out.answer(
        &serde_json::json!({ "schema": "hallpass.host-tend.v1", "watched": watched, "forgotten": forgotten, "ended": ended }),
        &format!("watched again: {watched}; ended: {ended}; over: {forgotten}"),
    )
}

/// The program that runs: it starts itself as the watcher.
pub(super) fn own_program(context: &Context) -> Result<Program, Failure> {
    Program::own(context.program).map_err(|why| not_ready("cannot go on", why))
}

/// `hallpass host principals`.
fn principals(context: &Context, settings: &Path, args: &PrincipalsArgs) -> Result<(), Failure> {
    let refused = |why: String| {
        journal::note(&format!("principals for {}: none: {why}", args.user));
        Failure::new(Exit::Refused, "refused", "no principals for this certificate").because(why)
    };
    let rules = Rules::load(settings).map_err(refused)?;
    let question = Question { user: &args.user, serial: &args.serial, key_id: &args.key_id, certificate: &args.cert };
    let principals = answer(&rules, &question).map_err(|denial| refused(denial.to_string()))?;
    let principals: Vec<String> = principals.iter().map(ToString::to_string).collect();
    context.out.answer(
        &serde_json::json!({ "schema": "hallpass.host-principals.v1", "principals": principals }),
        &principals.join("\n"),
    )
}

fn not_ready(what: &str, why: String) -> Failure {
    Failure::new(Exit::NotReady, "host", what).because(why)
}
