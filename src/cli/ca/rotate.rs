//! `hallpass ca rotate user|host …` and `hallpass ca compromise`: one step at a time, and what comes next.

use clap::{Args, Subcommand};

use super::super::failure::{Exit, Failure};
use super::super::output::{self, escape};
use super::super::{Context, render};
use super::{answer, get, table};
use crate::name::HostName;
use crate::ssh::Fingerprint;
use crate::wire::ca as wire;

/// `hallpass ca rotate …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// The key that signs certificates for people
    #[command(subcommand)]
    User(UserCommand),
    /// The key that signs host certificates
    #[command(subcommand)]
    Host(HostCommand),
}

/// `hallpass ca rotate user …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Have hosts learn a further key ([[ca.user.next]]); it signs nothing yet
    Start(StepArgs),
    /// Say how far it is, and which hosts do not prove that they trust the new key
    Status,
    /// Sign with the new key from now on; refused while a host does not prove that it trusts it
    Switch {
        /// A host that may be locked out
        #[arg(long, value_name = "NAME", num_args = 1.., value_parser = HostName::parse)]
        accept_unreachable: Vec<HostName>,
        #[command(flatten)]
        args: StepArgs,
    },
    /// Have hosts forget the old key; refused while a certificate by it lasts
    Finish(StepArgs),
    /// Go back: before the switch the new key is forgotten, after it both change places again
    Abort(StepArgs),
}

/// `hallpass ca rotate host …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Have clients learn a further key ([[ca.host.next]]); it signs nothing yet
    Start(StepArgs),
    /// Say how far it is, and which hosts still show a certificate by the old key
    Status,
    /// Sign host certificates with the new key from now on; refused before clients could fetch it for as long as `published` says
    Switch {
        /// Do not wait: who has not fetched it sees hosts that they do not know
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        args: StepArgs,
    },
    /// Have clients forget the old key; refused while a host has a certificate by it
    Finish(StepArgs),
    /// Go back: before the switch the new key is forgotten, after it both change places again
    Abort(StepArgs),
}

/// Arguments of each step.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct StepArgs {
    /// The fingerprint of the key that is meant, where more than one fits
    #[arg(long, value_name = "KEY", value_parser = Fingerprint::parse)]
    key: Option<Fingerprint>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// `hallpass ca rotate …`.
pub(super) fn run(context: &Context, command: &RotateCommand) -> Result<(), Failure> {
    match command {
        RotateCommand::User(command) => user(context, command),
        RotateCommand::Host(command) => host(context, command),
    }
}

/// `hallpass ca compromise`.
pub(super) fn compromise(context: &Context, key: Fingerprint, reason: &str) -> Result<(), Failure> {
    let question = format!("stop trusting {key} for ever, and end every session that it opened?");
    let args = StepArgs { key: Some(key), reason: reason.to_owned() };
    take(context, Some(&question), &step("user", "compromise", &args))
}

fn user(context: &Context, command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Start(args) => take(context, None, &step("user", "start", args)),
        UserCommand::Status => status(context, "user"),
        UserCommand::Switch { accept_unreachable, args } => {
            let accept_unreachable = accept_unreachable.iter().map(ToString::to_string).collect();
            let body = wire::Rotate { accept_unreachable, ..step("user", "switch", args) };
            take(context, Some("sign with the new key from now on?"), &body)
        }
        UserCommand::Finish(args) => {
            let question = "have hosts forget the old key? There is no way back";
            take(context, Some(question), &step("user", "finish", args))
        }
        UserCommand::Abort(args) => take(context, Some("go back to what was?"), &step("user", "abort", args)),
    }
}

fn host(context: &Context, command: &HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::Start(args) => take(context, None, &step("host", "start", args)),
        HostCommand::Status => status(context, "host"),
        HostCommand::Switch { now, args } => {
            let body = wire::Rotate { now: *now, ..step("host", "switch", args) };
            take(context, Some("have all hosts get certificates by the new key?"), &body)
        }
        HostCommand::Finish(args) => {
            let question = "have clients forget the old key? There is no way back";
            take(context, Some(question), &step("host", "finish", args))
        }
        HostCommand::Abort(args) => take(context, Some("go back to what was?"), &step("host", "abort", args)),
    }
}

fn step(purpose: &str, step: &str, args: &StepArgs) -> wire::Rotate {
    wire::Rotate {
        step: step.to_owned(),
        purpose: purpose.to_owned(),
        key: args.key.map(|key| key.to_string()),
        reason: args.reason.clone(),
        ..wire::Rotate::default()
    }
}

fn status(context: &Context, purpose: &str) -> Result<(), Failure> {
    let all = get(context)?;
    answer(context, &all, &table(&all))?;
    say_status(context, &all, purpose);
    say_waiting(context, &all);
    Ok(())
}

/// Takes a step, and says what comes next.
fn take(context: &Context, question: Option<&str>, body: &wire::Rotate) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    if let Some(question) = question
        && !context.globals.yes
        && !output::confirm(question, context.globals.no_input, "--yes")?
    {
        return Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed"));
    }
    let all: wire::Keys = context.block_on(async { Ok(client.post("/v1/ca/rotate", body).await?) })?;
    if let Some(proposal) = &all.proposal {
        return Err(proposed(proposal));
    }
    answer(context, &all, &table(&all))?;
    match body.step.as_str() {
        "compromise" => say_compromised(context, &all, body.key.as_deref()),
        _ => say_status(context, &all, &body.purpose),
    }
    Ok(())
}

/// A step that waits for a second operator has not been taken.
fn proposed(proposal: &wire::Proposal) -> Failure {
    let mut words = format!("hallpass ca rotate {} {}", escape(&proposal.purpose), escape(&proposal.step));
    if proposal.now {
        words.push_str(" --now");
    }
    if let Some(key) = &proposal.key {
        words.push_str(&format!(" --key {}", escape(key)));
    }
    if !proposal.accept_unreachable.is_empty() {
        words.push_str(&format!(" --accept-unreachable {}", escape(&proposal.accept_unreachable.join(" "))));
    }
    Failure::new(Exit::Undecided, "proposed", "it is proposed, and another operator has to agree")
        .because(format!(
            "the policy wants two operators for it; the proposal lapses at {}",
            output::local_text(&proposal.until)
        ))
        .next(format!("the other operator: {words}"))
}

/// What waits for a person.
pub(super) fn say_waiting(context: &Context, all: &wire::Keys) {
    if let Some(proposal) = &all.proposal {
        let wire::Proposal { by, purpose, step, until, .. } = proposal;
        let (by, step, purpose) = (escape(by), escape(step), escape(purpose));
        let until = output::local_text(until);
        context
            .out
            .note(&format!("{by} proposes: ca rotate {purpose} {step}; another operator can do it until {until}"));
    }
    all.attention.iter().for_each(|said| context.out.note(&escape(said)));
}

fn in_state<'k>(all: &'k wire::Keys, purpose: &str, state: &str) -> Option<&'k wire::Key> {
    all.keys.iter().find(|key| key.purpose == purpose && key.state == state)
}

/// After a key was given up: whether another one signs.
fn say_compromised(context: &Context, all: &wire::Keys, lost: Option<&str>) {
    let key = all.keys.iter().find(|key| Some(key.fingerprint.as_str()) == lost);
    let purpose = key.map_or("user", |key| key.purpose.as_str());
    match in_state(all, purpose, "active") {
        Some(active) => context.out.note(&format!("{} signs", escape(&active.fingerprint))),
        None => context.out.note(&format!(
            "no {purpose} key signs any more\nnext: put a new key into [ca.{purpose}] in place of the lost one, and start the service"
        )),
    }
    if purpose == "host" {
        context.out.note("clients trust the lost key until they fetch the others: hallpass known-hosts");
    }
}

/// What is not proven, and what comes next.
fn say_status(context: &Context, all: &wire::Keys, purpose: &str) {
    if let Some(draining) = in_state(all, purpose, "draining") {
        for one in &draining.shown {
            context.out.note(&format!("  {}: until {}", escape(&one.host), output::local_text(&one.until)));
        }
        let next = match &draining.last_end {
            Some(end) => format!("certificates by the old key last until {}; then", output::local_text(end)),
            None => "no certificate by the old key lasts".to_owned(),
        };
        context.out.note(&format!("{next}\nnext: hallpass ca rotate {purpose} finish"));
        return;
    }
    let Some(staged) = in_state(all, purpose, "staged") else {
        let is_spare = all.spare.iter().any(|key| key.purpose == purpose);
        let next = if is_spare { format!("\nnext: hallpass ca rotate {purpose} start") } else { String::new() };
        context.out.note(&format!("no rotation is under way{next}"));
        return;
    };
    if purpose == "host" {
        let since = output::local_text(&staged.since);
        context.out.note(&format!("clients can fetch the new key since {since}\nnext: hallpass ca rotate host switch"));
        return;
    }
    say_unproven(context, all, staged);
}

fn say_unproven(context: &Context, all: &wire::Keys, staged: &wire::Key) {
    let proven = staged.proven.unwrap_or_default();
    context.out.note(&format!("{proven} of {} hosts prove that they trust the new key", all.hosts));
    for one in &staged.unproven {
        context.out.note(&format!("  {}: {}", escape(&one.host), escape(&one.why)));
    }
    if !all.by_hand.is_empty() {
        let names = render::joined(&all.by_hand);
        context.out.note(&format!("not enrolled, so nobody knows whether they trust it: {names}"));
    }
    let next =
        if staged.unproven.is_empty() { "hallpass ca rotate user switch" } else { "hallpass ca rotate user status" };
    context.out.note(&format!("next: {next}"));
}
