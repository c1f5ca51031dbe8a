//! The command tree, output rules, exit codes.
//!
//! What for: [`run`] parses the command line, runs one command, prints its failure if there is one, and gives the exit code of DESIGN
//! section 10; [`run_host`] does the same for a host's commands alone, in a program of their own. `args` holds the tree, `failure` what can go wrong, `output` all printing, `profile` and `local` the client's files, `keys`
//! the signing of logins, `help` the pages on codes; the other modules are the commands.
//! What not: no rule is decided here; the server, the policy and ssh decide.
//!
//! Invariants: standard output holds the answer alone; nothing is printed unescaped; no secret is an argument; no question is asked
//! without a terminal.

mod admin;
mod agent;
mod args;
mod audit;
mod background;
mod backup;
mod ca;
mod cache;
mod caller;
mod cert;
mod change;
mod clock;
mod completion;
mod config_file;
mod confirmed;
mod decide;
pub mod demo;
mod doctor;
mod end;
mod ended;
mod explain;
mod export;
mod failure;
mod feed;
mod follow;
mod help;
mod host;
mod host_enrol;
mod host_program;
mod host_run;
mod hosts;
mod inbox;
mod init;
mod keys;
mod known_hosts;
mod list;
mod local;
mod log_pages;
mod login;
mod masters;
mod moment;
mod often;
mod open;
mod openssh;
mod operator;
mod output;
mod policy;
mod policy_report;
mod prepare;
mod process;
mod profile;
mod progress;
mod reconcile;
mod recover;
mod recover_report;
mod render;
mod report;
mod request;
mod sandbox;
mod screen;
mod serve;
mod session_key;
mod setup;
mod signing;
mod sink;
mod ssh;
mod ssh_config;
mod status;
mod still;
mod store;
mod texts;
mod usage;
mod wait;
mod watch;
mod which;

pub use host_program::run_host;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command, DemoArgs, Globals};
use failure::{Exit, Failure};
use output::{Form, Loudness, Output};
use profile::{Places, Profile};

use crate::client::{Client, ClientError, ClockOffset, Server};
use crate::host::program::Kind;
use crate::time::Timestamp;

/// How long one call to the server may take, unless `--timeout` says otherwise. Our own choice.
const CALL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What every command gets: the global flags and where to print.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The global flags.
    pub(crate) globals: Globals,
    /// Where and how to print.
    pub(crate) out: Output,
    /// What the server's answers said about this machine's clock.
    pub(crate) offset: ClockOffset,
    /// Which of the two programs runs.
    pub(crate) program: Kind,
}

/// Runs the program.
#[must_use]
pub fn run() -> ExitCode {
    // First: what PAM and sshd run must not turn into an answer to a shell by a variable of the environment.
    let often = often::read(std::env::args_os());
    if often.is_none()
        && let Some(code) = completion::answer(completion::command)
    {
        return code;
    }
    let cli = match often.map_or_else(Cli::try_parse, Ok) {
        Ok(cli) => cli,
        Err(error) => return usage::not_parsed(&error, Kind::Whole, &Cli::command()),
    };
    let form = match &cli.command {
        Command::SshPrepare(_) => Form::Brief,
        _ => Form::of(&cli.globals),
    };
    let context = Context::new(cli.globals, form, Kind::Whole);
    let outcome = check_form(form, &cli.command).and_then(|()| dispatch(&context, cli.command));
    context.conclude(outcome)
}

/// A stream is no single document, and what ends at once is no stream.
fn check_form(form: Form, command: &Command) -> Result<(), Failure> {
    let endless = match command {
        Command::Status(args) => args.is_stream(),
        Command::Inbox(args) => args.is_stream(),
        Command::Audit(command) => command.is_endless(),
        _ => false,
    };
    let is_stream = endless || matches!(command, Command::Wait(_) | Command::Audit(audit::AuditCommand::Tail { .. }));
    match form {
        Form::Json if endless => Err(Failure::usage("--json prints one document, and this goes on until Ctrl-C")
            .because("--jsonl prints one per line")),
        Form::JsonLines if !is_stream => Err(Failure::usage("--jsonl is for what happens over time")
            .because("it goes with `wait`, `status --watch`, `inbox --watch` and `audit tail`")
            .because("--json prints one document")),
        Form::Json | Form::JsonLines | Form::Text | Form::Brief => Ok(()),
    }
}

/// One line per command. A table.
fn dispatch(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Login(args) => login::login(context, &args),
        Command::Logout(args) => login::logout(context, &args),
        Command::Status(args) => status::run(context, args),
        Command::Hosts(args) => hosts::run(context, &args),
        Command::Request(args) => request::run(context, &args),
        Command::Wait(args) => wait::run(context, &args),
        Command::Show(args) => list::show(context, &args),
        Command::Requests(args) => list::requests(context, &args),
        Command::Open(args) => open::run(context, &args),
        Command::Inbox(args) => inbox::run(context, args),
        Command::Approve(args) => decide::approve(context, &args),
        Command::Deny(args) => decide::deny(context, &args),
        Command::Cancel(args) => change::cancel(context, &args),
        Command::Extend(args) => change::extend(context, &args),
        Command::End(args) => end::run(context, &args),
        Command::Ssh(args) => ssh::run(context, &args),
        Command::Setup(args) => setup::run(context, &args),
        Command::SshPrepare(args) => prepare::run(context, &args),
        Command::Doctor(args) => doctor::run(context, &args),
        Command::Explain(args) => explain::run(context, &args),
        Command::KnownHosts => known_hosts::run(context),
        Command::Cert(command) => cert::run(context, &command),
        Command::Ca(command) => ca::run(context, &command).map_err(Failure::for_operator),
        Command::Policy(command) => operator::policy(context, &command).map_err(Failure::for_operator),
        Command::Audit(command) => audit::run(context, &command).map_err(Failure::for_operator),
        Command::Admin(command) => admin::run(context, &command).map_err(Failure::for_operator),
        Command::Host(command) => host::run(context, &command),
        Command::Store(command) => store::run(context, &command),
        Command::Init(args) => init::run(context, &args),
        Command::Serve(args) => serve::run(context, &args),
        Command::Demo(args) => run_demo(context, args),
        Command::Completion(args) => completion::completion(context, args),
        Command::Man(args) => texts::man(context, &args),
        Command::Version => texts::version(context),
        Command::Help(args) => texts::help(context, &args),
    }
}

/// `hallpass demo`: exit 0 only if everything held.
fn run_demo(context: &Context, args: DemoArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("cannot start the asynchronous runtime").because(e.to_string()))?;
    match runtime.block_on(demo::run(demo::Args { stay: args.stay, json: context.out.is_json() })) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::failed("the demo did not hold what it promises")),
        Err(why) => Err(Failure::new(Exit::NotReady, "demo", "the demo cannot be shown here").because(why)),
    }
}

impl Context {
    /// For one run of a program.
    fn new(globals: Globals, form: Form, program: Kind) -> Self {
        let loudness = match (globals.quiet, globals.verbose) {
            (true, _) => Loudness::Quiet,
            (false, 0) => Loudness::Usual,
            (false, _) => Loudness::Verbose,
        };
        Self { globals, out: Output::new(form, loudness), offset: ClockOffset::default(), program }
    }

    /// Says how it went, and turns that into the exit code.
    fn conclude(&self, outcome: Result<(), Failure>) -> ExitCode {
        self.keep_clock();
        // In front of what ssh says, three lines are enough.
        if outcome.is_ok() || !self.out.is_brief() {
            self.warn_of_clock();
        }
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                let failure = failure.in_words_of(self.program);
                // One that says nothing: all has been said before it.
                if !failure.what.is_empty() {
                    self.out.failure(&failure);
                }
                ExitCode::from(failure.exit.code())
            }
        }
    }

    /// How long one call to the server may take.
    pub(crate) fn call_timeout(&self) -> std::time::Duration {
        self.globals.timeout.map_or(CALL_TIMEOUT, profile::seconds)
    }

    /// Where completion's names are kept; nowhere when the environment does not say.
    pub(crate) fn cache(&self) -> Option<cache::Cache> {
        Some(cache::Cache::new(&self.places().ok()?, &self.globals.profile))
    }

    /// The client's folders.
    ///
    /// # Errors
    /// When the environment does not say where they are.
    pub(crate) fn places(&self) -> Result<Places, Failure> {
        Places::from_env()
    }

    /// The profile in use and a logged-in client for its server.
    ///
    /// # Errors
    /// HP-111 when there is no login.
    pub(crate) fn connect(&self) -> Result<(Profile, Client), Failure> {
        let places = self.places()?;
        let profile = profile::need(&places, &self.globals)?;
        let client = self.client(&places, &profile, self.call_timeout())?;
        Ok((profile, client))
    }

    /// A logged-in client for a profile's server.
    ///
    /// # Errors
    /// HP-111 when there is no login.
    pub(crate) fn client(
        &self,
        places: &Places,
        profile: &Profile,
        timeout: std::time::Duration,
    ) -> Result<Client, Failure> {
        let Some(session) = profile::session(places, profile)? else {
            return Err(Failure::not_logged_in(&profile.name));
        };
        let client = Client::new(profile.server.clone(), Some(session.token), timeout)?.noting(&self.offset);
        Ok(client.telling(self.out.pausing()))
    }

    /// A client for a server where nobody is logged in yet.
    ///
    /// # Errors
    /// When the server's URL, pin or proxy can't be used.
    pub(crate) fn anonymous(&self, server: Server) -> Result<Client, ClientError> {
        let client = Client::new(server, None, self.call_timeout())?.noting(&self.offset);
        Ok(client.telling(self.out.pausing()))
    }

    /// Keeps what was learnt about this machine's clock.
    pub(crate) fn keep_clock(&self) {
        if self.offset.seconds().is_some()
            && let Ok(places) = self.places()
        {
            clock::keep(&places.requests(&self.globals.profile), &self.offset);
        }
    }

    /// The server's time, as far as this run or an earlier one knows it: the one that access goes by.
    pub(crate) fn now(&self) -> Timestamp {
        let folder = self.places().ok().map(|places| places.requests(&self.globals.profile));
        clock::measured(&self.offset, folder.as_deref())
    }

    /// Says what people should know about this machine's clock.
    pub(crate) fn warn_of_clock(&self) {
        if let Some(warning) = clock::warning(&self.offset) {
            self.out.note(&warning);
        }
    }

    /// Runs a client's asynchronous work to its end.
    ///
    /// # Errors
    /// What the work fails with.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::failed("cannot start the asynchronous runtime").because(e.to_string()))?;
        let done = runtime.block_on(work);
        // A look for an address that nobody waits for any more goes on for as long as the resolver likes.
        runtime.shutdown_background();
        done
    }
}
