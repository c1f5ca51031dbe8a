//! `hallpass ca rotate user|host …` and `hallpass ca compromise`: one step at a time, and what comes next.

use clap::{Args, Subcommand};

use super::super::failure::{Exit, Failure};
use super::super::output::{self, escape};
use super::super::{Context, render, usage};
use super::{answer, ca_of, get, hosts_of, label, table, words_of};
use crate::name::{CaName, HostName};
use crate::ssh::Fingerprint;
use crate::time::Timestamp;
use crate::wire::ca as wire;

/// `hallpass ca rotate …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// The key that signs certificates for people
    User(UserArgs),
    /// The key that signs host certificates
    #[command(subcommand)]
    Host(HostCommand),
}

/// `hallpass ca rotate user …`.
#[derive(Clone, Debug, Args)]
pub(crate) struct UserArgs {
    /// Of this user CA; the default one if left out
    #[arg(long, global = true, value_name = "NAME", value_parser = CaName::parse)]
    ca: Option<CaName>,
    #[command(subcommand)]
    command: UserCommand,
}

/// A step for a user CA.
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
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: String,
}

/// `hallpass ca rotate …`.
pub(super) fn run(context: &Context, command: &RotateCommand) -> Result<(), Failure> {
    match command {
        RotateCommand::User(args) => user(context, args.ca.as_ref().and_then(CaName::named).as_ref(), &args.command),
        RotateCommand::Host(command) => host(context, command),
    }
}

/// `hallpass ca compromise`.
pub(super) fn compromise(context: &Context, key: Fingerprint, reason: &str) -> Result<(), Failure> {
    let question = format!("stop trusting {key} for ever, and end every session that it opened?");
    let args = StepArgs { key: Some(key), reason: reason.to_owned() };
    take(context, Some(&question), &step("user", None, ("compromise", &args)))
}

fn user(context: &Context, ca: Option<&CaName>, command: &UserCommand) -> Result<(), Failure> {
    let step = |word, args| step("user", ca, (word, args));
    match command {
        UserCommand::Start(args) => take(context, None, &step("start", args)),
        UserCommand::Status => status(context, "user", ca),
        UserCommand::Switch { accept_unreachable, args } => {
            let accept_unreachable = accept_unreachable.iter().map(ToString::to_string).collect();
            let body = wire::Rotate { accept_unreachable, ..step("switch", args) };
            take(context, Some("sign with the new key from now on?"), &body)
        }
        UserCommand::Finish(args) => {
            let question = "have hosts forget the old key? There is no way back";
            take(context, Some(question), &step("finish", args))
        }
        UserCommand::Abort(args) => take(context, Some("go back to what was?"), &step("abort", args)),
    }
}

fn host(context: &Context, command: &HostCommand) -> Result<(), Failure> {
    let step = |word, args| step("host", None, (word, args));
    match command {
        HostCommand::Start(args) => take(context, None, &step("start", args)),
        HostCommand::Status => status(context, "host", None),
        HostCommand::Switch { now, args } => {
            let body = wire::Rotate { now: *now, ..step("switch", args) };
            take(context, Some("have all hosts get certificates by the new key?"), &body)
        }
        HostCommand::Finish(args) => {
            let question = "have clients forget the old key? There is no way back";
            take(context, Some(question), &step("finish", args))
        }
        HostCommand::Abort(args) => take(context, Some("go back to what was?"), &step("abort", args)),
    }
}

fn step(purpose: &str, ca: Option<&CaName>, (step, args): (&str, &StepArgs)) -> wire::Rotate {
    wire::Rotate {
        step: step.to_owned(),
        purpose: purpose.to_owned(),
        ca: ca.map(ToString::to_string),
        key: args.key.map(|key| key.to_string()),
        reason: args.reason.clone(),
        ..wire::Rotate::default()
    }
}

fn status(context: &Context, purpose: &str, ca: Option<&CaName>) -> Result<(), Failure> {
    let all = get(context)?;
    answer(context, &all, &table(&all))?;
    say_status(context, &all, (purpose, ca.map(CaName::as_str)));
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
        _ => say_status(context, &all, (&body.purpose, body.ca.as_deref())),
    }
    Ok(())
}

/// A step that waits for a second operator has not been taken.
fn proposed(proposal: &wire::Proposal) -> Failure {
    let ca = words_of(&proposal.purpose, proposal.ca.as_deref());
    let mut words = format!("hallpass ca rotate {ca} {}", escape(&proposal.step));
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
        let wire::Proposal { by, purpose, ca, step, until, .. } = proposal;
        let (by, step, ca) = (escape(by), escape(step), words_of(purpose, ca.as_deref()));
        let until = output::local_text(until);
        context.out.note(&format!("{by} proposes: ca rotate {ca} {step}; another operator can do it until {until}"));
    }
    all.attention.iter().for_each(|said| context.out.note(&escape(said)));
}

/// A CA as the service names it: what for, and its name if it has one.
type Of<'o> = (&'o str, Option<&'o str>);

fn in_state<'k>(all: &'k wire::Keys, (purpose, ca): Of<'_>, state: &str) -> Option<&'k wire::Key> {
    all.keys.iter().find(|key| (key.purpose.as_str(), key.ca.as_deref()) == (purpose, ca) && key.state == state)
}

/// After a key was given up: whether another one signs.
fn say_compromised(context: &Context, all: &wire::Keys, lost: Option<&str>) {
    let key = all.keys.iter().find(|key| Some(key.fingerprint.as_str()) == lost);
    let (purpose, ca) = key.map_or(("user", None), |key| (key.purpose.as_str(), key.ca.as_deref()));
    let table = ca.map_or_else(|| format!("ca.{}", escape(purpose)), |ca| format!("ca.named.{}", escape(ca)));
    match in_state(all, (purpose, ca), "active") {
        Some(active) => context.out.note(&format!("{} signs", escape(&active.fingerprint))),
        None => context.out.note(&format!(
            "no {} key signs any more\nnext: put a new key into [{table}] in place of the lost one, and start the service",
            label(purpose, ca)
        )),
    }
    if purpose == "host" {
        context.out.note("clients trust the lost key until they fetch the others: hallpass known-hosts");
    }
}

/// What is not proven, and what comes next.
fn say_status(context: &Context, all: &wire::Keys, of: Of<'_>) {
    let (purpose, ca) = of;
    let words = words_of(purpose, ca);
    if let Some(draining) = in_state(all, of, "draining") {
        for one in &draining.shown {
            context.out.note(&format!("  {}: until {}", escape(&one.host), output::local_text(&one.until)));
        }
        let next = match &draining.last_end {
            Some(end) => format!("certificates by the old key last until {}; then", output::local_text(end)),
            None => "no certificate by the old key lasts".to_owned(),
        };
        context.out.note(&format!("{next}\nnext: hallpass ca rotate {words} finish"));
        return;
    }
    let Some(staged) = in_state(all, of, "staged") else {
        let is_spare = all.spare.iter().any(|key| (key.purpose.as_str(), key.ca.as_deref()) == of);
        let next = if is_spare { format!("\nnext: hallpass ca rotate {words} start") } else { String::new() };
        context.out.note(&format!("no rotation is under way{next}"));
        return;
    };
    if purpose == "host" {
        say_published(context, staged);
        return;
    }
    say_unproven(context, all, staged);
}

/// Since when clients can fetch a host key, and from when on it may sign.
fn say_published(context: &Context, staged: &wire::Key) {
    let since = output::local_text(&staged.since);
    let waits = staged.may_sign.as_deref().filter(|from| Timestamp::parse(from).is_ok_and(|at| context.now() < at));
    let (from, next) = match waits.map(output::local_text) {
        Some(from) => (format!("; it may sign from {from}"), format!("next, from {from}")),
        None => (String::new(), "next".to_owned()),
    };
    context
        .out
        .note(&format!("clients can fetch the new key since {since}{from}\n{next}: hallpass ca rotate host switch"));
}

fn say_unproven(context: &Context, all: &wire::Keys, staged: &wire::Key) {
    let proven = staged.proven.unwrap_or_default();
    context.out.note(&format!("{proven} of {} hosts prove that they trust the new key", hosts_of(all, staged)));
    for one in &staged.unproven {
        context.out.note(&format!("  {}: {}", escape(&one.host), escape(&one.why)));
    }
    let by_hand = ca_of(all, staged).map_or(&all.by_hand, |ca| &ca.by_hand);
    if !by_hand.is_empty() {
        let names = render::joined(by_hand);
        context.out.note(&format!("not enrolled, so nobody knows whether they trust it: {names}"));
    }
    let next = if staged.unproven.is_empty() { "switch" } else { "status" };
    context.out.note(&format!("next: hallpass ca rotate {} {next}", words_of("user", staged.ca.as_deref())));
}
