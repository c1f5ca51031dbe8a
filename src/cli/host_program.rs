//! The root of `hallpass-host`: a host's commands alone, by the same code as `hallpass host …`.
//!
//! What for: what a host runs at each login, and all the time, starts sooner and takes less memory if its program holds nothing else.
//!
//! What not: no command of its own. What can't be reached from here, the linker leaves out; so nothing here names the whole tree
//! (`args::Cli`), the service, the store or the pages.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use super::args::Globals;
use super::completion::{self, CompletionArgs};
use super::failure::Failure;
use super::host::{self, HostCommand};
use super::output::Form;
use super::{Context, often, texts, usage};
use crate::host::program::Kind;

const AFTER_HELP: &str = "\
`hallpass host` has the same commands; this program holds nothing else. Enrolling with it, or with
`hallpass` from the same folder, has sshd, PAM and the daemon's unit run this one.";

/// hallpass on a host: ends sessions with their windows, says which certificates open an account, keeps in touch.
#[derive(Debug, Parser)]
#[command(
    name = "hallpass-host",
    version,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100,
    after_help = AFTER_HELP,
    mut_arg("profile", |profile| profile.hide(true)),
    mut_arg("jsonl", |jsonl| jsonl.hide(true)),
    mut_arg("config", |config| config.help("The host's file, instead of /etc/hallpass/host.toml")),
    mut_arg("timeout", |timeout| timeout.help("How long one call to the server may take (10s)"))
)]
struct HostCli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Words,
}

#[derive(Debug, Subcommand)]
enum Words {
    #[command(flatten)]
    Host(HostCommand),
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Print the version
    Version,
}

/// Runs the program for hosts.
#[must_use]
pub fn run_host() -> ExitCode {
    let often = often::read_host(std::env::args_os()).map(|(globals, command)| (globals, Words::Host(command)));
    // Not before: see `cli::run`.
    if often.is_none()
        && let Some(code) = completion::answer(|_| HostCli::command())
    {
        return code;
    }
    let parsed = often.map_or_else(|| HostCli::try_parse().map(|cli| (cli.globals, cli.command)), Ok);
    let (globals, command) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage::not_parsed(&error, Kind::Host, &HostCli::command()),
    };
    let form = Form::of(&globals);
    let context = Context::new(globals, form, Kind::Host);
    let outcome = run(&context, command);
    context.conclude(outcome)
}

fn run(context: &Context, command: Words) -> Result<(), Failure> {
    if context.globals.jsonl {
        return Err(Failure::usage("--jsonl is for what happens over time").because("--json prints one document"));
    }
    match command {
        Words::Host(command) => host::run(context, &command),
        Words::Completion(args) => completion::completion(context, args),
        Words::Version => texts::version(context),
    }
}
