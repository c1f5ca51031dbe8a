//! `hallpass ca`: CA keys, what hosts prove of them, and the rotation of the user CA key.

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::{Exit, Failure};
use super::output::{self, escape};
use super::{Context, render};
use crate::name::HostName;
use crate::ssh::Fingerprint;
use crate::wire::ca as wire;

/// `hallpass ca …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Print the CA keys that hosts must trust: the content of a `TrustedUserCAKeys` file
    Export,
    /// List all CA keys: states, what hosts prove, certificates that last
    Ls,
    /// Show one of them, with the hosts that do not prove that they trust it
    Show {
        /// Its fingerprint, SHA256:…
        #[arg(value_name = "KEY", value_parser = Fingerprint::parse)]
        key: Fingerprint,
    },
    /// Replace a CA key without locking anybody out
    #[command(subcommand)]
    Rotate(RotateCommand),
    /// A user CA key is lost or stolen: hosts trust it no longer, end what it opened, and another key takes over at once
    Compromise {
        /// Its fingerprint, SHA256:…
        #[arg(value_name = "KEY", value_parser = Fingerprint::parse)]
        key: Fingerprint,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// `hallpass ca rotate …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// The key that signs certificates for people
    #[command(subcommand)]
    User(UserCommand),
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

/// `hallpass ca …`.
pub(crate) fn run(context: &Context, command: &CaCommand) -> Result<(), Failure> {
    match command {
        CaCommand::Export => export(context),
        CaCommand::Ls => list(context),
        CaCommand::Show { key } => show(context, *key),
        CaCommand::Rotate(RotateCommand::User(command)) => rotate(context, command),
        CaCommand::Compromise { key, reason } => {
            let question = format!("stop trusting {key} for ever, and end every session that it opened?");
            let args = StepArgs { key: Some(*key), reason: reason.clone() };
            take(context, ("compromise", Some(&question)), &args, &[])
        }
    }
}

fn export(context: &Context) -> Result<(), Failure> {
    let places = context.places()?;
    let profile = super::profile::need(&places, &context.globals)?;
    let client = context.anonymous(profile.server)?;
    let bundle = context.block_on(async { Ok(client.text("/v1/ca/user-keys").await?) })?;
    context.out.answer(&json!({ "schema": "hallpass.trust-bundle.v1", "bundle": bundle }), &bundle)
}

fn get(context: &Context) -> Result<wire::Keys, Failure> {
    let (_, client) = context.connect()?;
    context.block_on(async { Ok(client.get("/v1/ca/keys").await?) })
}

fn answer(context: &Context, all: &wire::Keys, text: &str) -> Result<(), Failure> {
    context.out.answer(&output::with_schema("hallpass.ca-keys.v1", all)?, text)
}

fn list(context: &Context) -> Result<(), Failure> {
    let all = get(context)?;
    answer(context, &all, &table(&all))?;
    context.out.note(&format!("trust bundle version {}", all.version));
    Ok(())
}

/// One line for each key.
fn table(all: &wire::Keys) -> String {
    let row = |key: &wire::Key| {
        let proven = key.proven.map(|proven| format!("{proven} of {} hosts prove it", all.hosts));
        let until = key.last_end.as_deref().map(|end| format!(" until {}", output::local_text(end)));
        let certificates = format!("{} certificates{}", key.certificates, until.unwrap_or_default());
        [
            escape(&key.purpose),
            escape(&key.fingerprint),
            escape(&key.state),
            format!("since {}", output::local_text(&key.since)),
            format!("backend {}", escape(&key.backend)),
            proven.unwrap_or_default(),
            if key.purpose == "user" { certificates } else { String::new() },
        ]
    };
    let spare = |key: &wire::Spare| {
        let blank = String::new;
        ["user".to_owned(), escape(&key.fingerprint), "unused".to_owned(), blank(), blank(), blank(), blank()]
    };
    let rows: Vec<[String; 7]> = all.keys.iter().map(row).chain(all.spare.iter().map(spare)).collect();
    render::columns(&rows)
}

fn show(context: &Context, wanted: Fingerprint) -> Result<(), Failure> {
    let all = get(context)?;
    let key = all.keys.iter().find(|key| key.fingerprint == wanted.to_string());
    let is_spare = all.spare.iter().any(|key| key.fingerprint == wanted.to_string());
    let key = key.ok_or_else(|| match is_spare {
        true => Failure::failed(format!("no host has heard of {wanted} yet"))
            .because("it is configured as a key to change to, and no rotation has begun with it")
            .next(format!("hallpass ca rotate user start --key {wanted}")),
        false => Failure::failed(format!("there is no CA key {wanted}"))
            .because("the log does not name it, and it is not configured")
            .next("hallpass ca ls"),
    })?;
    let mut text = format!("{}  {}\n", escape(&key.fingerprint), escape(&key.state));
    let mut add = |name: &str, value: &str| text.push_str(&format!("  {name:<14}{value}\n"));
    add("purpose", &escape(&key.purpose));
    add("since", &output::local_text(&key.since));
    add("key", &escape(&key.key));
    add("backend", &escape(&key.backend));
    if let Some(proven) = key.proven {
        add("proven", &format!("by {proven} of {} hosts", all.hosts));
    }
    key.unproven.iter().for_each(|one| add("not proven", &format!("{}: {}", escape(&one.host), escape(&one.why))));
    if key.purpose == "user" {
        add("certificates", &format!("{} that last", key.certificates));
    }
    if let Some(end) = &key.last_end {
        add("last end", &output::local_text(end));
    }
    context.out.answer(&output::with_schema("hallpass.ca-key.v1", key)?, &text)
}

fn rotate(context: &Context, command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Start(args) => take(context, ("start", None), args, &[]),
        UserCommand::Status => {
            let all = get(context)?;
            answer(context, &all, &table(&all))?;
            say_status(context, &all);
            Ok(())
        }
        UserCommand::Switch { accept_unreachable, args } => {
            let question = "sign with the new key from now on?";
            take(context, ("switch", Some(question)), args, accept_unreachable)
        }
        UserCommand::Finish(args) => {
            take(context, ("finish", Some("have hosts forget the old key? There is no way back")), args, &[])
        }
        UserCommand::Abort(args) => take(context, ("abort", Some("go back to what was?")), args, &[]),
    }
}

/// Takes a step, and says what comes next.
fn take(
    context: &Context,
    (step, question): (&str, Option<&str>),
    args: &StepArgs,
    accepted: &[HostName],
) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    if let Some(question) = question
        && !context.globals.yes
        && !output::confirm(question, context.globals.no_input, "--yes")?
    {
        return Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed"));
    }
    let body = wire::Rotate {
        step: step.to_owned(),
        key: args.key.map(|key| key.to_string()),
        accept_unreachable: accepted.iter().map(ToString::to_string).collect(),
        reason: args.reason.clone(),
    };
    let all: wire::Keys = context.block_on(async { Ok(client.post("/v1/ca/rotate", &body).await?) })?;
    answer(context, &all, &table(&all))?;
    say_status(context, &all);
    Ok(())
}

/// What hosts do not prove, and what comes next.
fn say_status(context: &Context, all: &wire::Keys) {
    let in_state = |state: &str| all.keys.iter().find(|key| key.purpose == "user" && key.state == state);
    if let Some(draining) = in_state("draining") {
        let next = match &draining.last_end {
            Some(end) => format!("certificates by the old key last until {}; then", output::local_text(end)),
            None => "no certificate by the old key lasts".to_owned(),
        };
        context.out.note(&format!("{next}\nnext: hallpass ca rotate user finish"));
        return;
    }
    let Some(staged) = in_state("staged") else {
        let next = if all.spare.is_empty() { "" } else { "\nnext: hallpass ca rotate user start" };
        context.out.note(&format!("no rotation is under way{next}"));
        return;
    };
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
