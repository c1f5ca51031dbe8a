//! `hallpass doctor`: what is wrong with this machine's set-up, and with a host named, why it does not let us in.
//!
//! What for: every check that can be made from here, in the order in which things depend on each other; each says what, why and what to
//! do, with a code that has a page (`help`). `report` holds a finding's form, `server`, `service`, `client`, `config` and `host` make them, `probe`
//! runs ssh, `trace` and `diagnosis` read what it said, `fix` repairs, `bundle` writes it all down.
//! What not: nothing is changed without `--fix`, nothing is asked of a person, nobody but the access server and the host is contacted,
//! and no key but ours is offered to the host.
//!
//! Invariants: exit 0 when nothing is bad (warnings are not), 7 otherwise; what is inferred is called so.

mod bundle;
mod client;
mod config;
mod diagnosis;
mod fix;
mod host;
mod jump;
mod probe;
mod report;
mod server;
mod service;
mod text;
mod trace;

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{Exit, Failure};
use super::local::Local;
use super::profile::{self, Places, Profile};
use super::{Context, openssh, setup, ssh};
use crate::name::{Account, HostName};
use probe::Shown;
use report::{Check, Report, State};

/// Where ssh looks when nothing else is named.
const USUAL_CONFIG: &str = "~/.ssh/config";

/// Arguments of `hallpass doctor`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub(crate) struct DoctorArgs {
    /// A host, or ACCOUNT@HOST: why it does or does not let you in
    #[arg(value_name = "HOST", value_parser = ssh::parse_destination)]
    host: Option<(Option<Account>, HostName)>,
    /// Repair modes of our files, the place of our Include, and what is left of access that is over
    #[arg(long)]
    fix: bool,
    /// With --fix: only say what would be changed
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// Write all findings into a new file, for whoever runs the host or the service
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Look at the way to the access server, step by step
    #[arg(long)]
    net: bool,
    /// The ssh configuration to look at
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    ssh_config: PathBuf,
}

/// What is looked at.
struct Doctor<'a> {
    context: &'a Context,
    args: &'a DoctorArgs,
    places: Places,
    profile: Option<Profile>,
    local: Local,
    /// The user's ssh configuration.
    config: PathBuf,
    config_text: String,
}

/// `hallpass doctor`.
pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Result<(), Failure> {
    let mut doctor = Doctor::new(context, args)?;
    let host = args.host.as_ref().map(|(_, host)| host);
    let mut report = Report::new(doctor.name(), host.map(ToString::to_string));
    if args.fix {
        report.dry_run = args.dry_run;
        report.changes = fix::repair(&doctor, args.dry_run)?;
        doctor.config_text = setup::read(&doctor.config)?.unwrap_or_default();
    }
    let seen = doctor.look(host, &mut report.checks)?;
    if let Some(path) = &args.bundle {
        let bundle = bundle::Bundle {
            report: &report,
            now: seen.now,
            ssh: openssh::ssh_says().unwrap_or_else(|failure| failure.what.clone()),
            shown: seen.shown.as_ref(),
            lines: &seen.lines,
            ours: doctor.local.root(),
        };
        bundle::write(path, &bundle)?;
        context.out.note(&format!("written: {}", path.display()));
    }
    context.out.answer(&report, &report.text())?;
    verdict(&report)
}

/// Exit 0, or 7 and how many problems there are.
fn verdict(report: &Report) -> Result<(), Failure> {
    let bad = report.count(State::Bad);
    if bad == 0 {
        return Ok(());
    }
    let what = if bad == 1 { "1 problem was found".to_owned() } else { format!("{bad} problems were found") };
    let first = report.checks.iter().find(|check| check.state == State::Bad);
    let failure = Failure::new(Exit::NotReady, "doctor", what);
    Err(match first.and_then(|check| check.next.first()) {
        Some(next) => failure.next(next.clone()),
        None => failure,
    })
}

/// What the bundle needs beside the findings.
#[derive(Default)]
struct Seen {
    now: String,
    shown: Option<Shown>,
    lines: Vec<String>,
}

impl<'a> Doctor<'a> {
    fn new(context: &'a Context, args: &'a DoctorArgs) -> Result<Self, Failure> {
        let places = context.places()?;
        let name = &context.globals.profile;
        let profile = match profile::load(&places, name)? {
            Some(_) => Some(profile::need(&places, &context.globals)?),
            None => None,
        };
        let local = Local::new(&places, name);
        let config = setup::user_config(&args.ssh_config)?;
        let config_text = setup::read(&config)?.unwrap_or_default();
        Ok(Self { context, args, places, profile, local, config, config_text })
    }

    /// The profile's name.
    fn name(&self) -> &str {
        &self.context.globals.profile
    }

    /// The account that was named.
    fn account(&self) -> Option<&Account> {
        self.args.host.as_ref().and_then(|(account, _)| account.as_ref())
    }

    /// The configuration as ssh must be told of it; `None` where it looks by itself.
    fn given_config(&self) -> Option<&Path> {
        if self.args.ssh_config == Path::new(USUAL_CONFIG) { None } else { Some(&self.config) }
    }

    /// All checks, in their order.
    fn look(&self, host: Option<&HostName>, checks: &mut Vec<Check>) -> Result<Seen, Failure> {
        let server = server::look(self, checks)?;
        let closed = server.closed(self);
        client::look(self, &closed, checks);
        config::look(self, server.client.as_ref(), checks);
        let mut seen = Seen { now: host::shown_now(&server), ..Seen::default() };
        let Some(host) = host else { return Ok(seen) };
        let found = host::look(self, host, (&server, &closed), checks)?;
        match self.context.block_on(Shown::ask(self.given_config(), self.account(), host)) {
            Ok(shown) => {
                config::look_for(self, host, &found, &shown, checks);
                checks.extend(jump::look_for(self, &shown, found.now));
                let (check, lines) = host::attempt(self, host, &found, &server, &shown)?;
                checks.push(check);
                seen.lines = lines;
                seen.shown = Some(shown);
            }
            Err(failure) => checks.push(Check::failed("effect", &failure)),
        }
        Ok(seen)
    }
}
