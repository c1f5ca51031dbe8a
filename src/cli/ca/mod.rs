//! `hallpass ca`: CA keys, what hosts prove of them, further ones, and rotations.

mod add;
mod rotate;

use clap::Subcommand;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, escape};
use super::{Context, known_hosts, render, usage};
use crate::name::CaName;
use crate::ssh::Fingerprint;
use crate::wire::ca as wire;

/// `hallpass ca …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Print the CA keys that hosts must trust, or those by which clients know hosts
    Export {
        /// What for: sshd's `TrustedUserCAKeys` (user CA keys), or ssh's known hosts (host CA keys)
        #[arg(long, value_enum, default_value_t = ExportFormat::Openssh)]
        format: ExportFormat,
        /// Of this user CA; the default one if left out
        #[arg(long, value_name = "NAME", value_parser = CaName::parse)]
        ca: Option<CaName>,
    },
    /// List all CA keys: states, what hosts prove, certificates that last
    Ls,
    /// Show one of them, with the hosts that do not prove that they trust it
    Show {
        /// Its fingerprint, SHA256:…
        #[arg(value_name = "KEY", value_parser = Fingerprint::parse)]
        key: Fingerprint,
    },
    /// Make a further CA key, or look at one in an agent or token, and print the lines that configure it
    Add(add::AddArgs),
    /// Replace a CA key without locking anybody out
    #[command(subcommand)]
    Rotate(rotate::RotateCommand),
    /// A CA key is lost or stolen: nobody is to trust it any longer, hosts end what it opened, and another key takes over at once
    Compromise {
        /// Its fingerprint, SHA256:…
        #[arg(value_name = "KEY", value_parser = Fingerprint::parse)]
        key: Fingerprint,
        /// Why, for the log
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = usage::free_text)]
        reason: String,
    },
}

/// What exported keys are for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// The content of a `TrustedUserCAKeys` file
    Openssh,
    /// `@cert-authority` lines for a known-hosts file, during a rotation of both host CA keys
    KnownHosts,
}

/// `hallpass ca …`.
pub(crate) fn run(context: &Context, command: &CaCommand) -> Result<(), Failure> {
    match command {
        CaCommand::Export { format: ExportFormat::Openssh, ca } => export(context, ca.as_ref()),
        CaCommand::Export { format: ExportFormat::KnownHosts, ca: None } => known_hosts::export(context),
        CaCommand::Export { format: ExportFormat::KnownHosts, ca: Some(_) } => {
            Err(Failure::usage("--ca names a user CA, and known hosts are of the host CA")
                .because("there is one host CA"))
        }
        CaCommand::Ls => list(context),
        CaCommand::Show { key } => show(context, *key),
        CaCommand::Add(args) => add::run(context, args),
        CaCommand::Rotate(command) => rotate::run(context, command),
        CaCommand::Compromise { key, reason } => rotate::compromise(context, *key, reason),
    }
}

/// `user --ca prod`, `user`, `host`: the words that name a CA on the command line.
pub(in crate::cli) fn words(purpose: &str, name: Option<&CaName>) -> String {
    name.map_or_else(|| purpose.to_owned(), |name| format!("{purpose} --ca {name}"))
}

/// The same of what the service said.
fn words_of(purpose: &str, name: Option<&str>) -> String {
    words(&escape(purpose), name.and_then(|name| CaName::parse(name).ok()).as_ref())
}

/// `prod user`, `user`, `host`: a CA in a table.
fn label(purpose: &str, name: Option<&str>) -> String {
    name.map_or_else(|| escape(purpose), |name| format!("{} {}", escape(name), escape(purpose)))
}

/// The user CA of a key, if there is more than one.
fn ca_of<'k>(all: &'k wire::Keys, key: &wire::Key) -> Option<&'k wire::UserCa> {
    let name = key.ca.as_deref().unwrap_or(CaName::DEFAULT.as_str());
    all.cas.iter().find(|ca| ca.name == name)
}

/// How many hosts are of it.
fn hosts_of(all: &wire::Keys, key: &wire::Key) -> usize {
    ca_of(all, key).map_or(all.hosts, |ca| ca.hosts)
}

fn export(context: &Context, ca: Option<&CaName>) -> Result<(), Failure> {
    let places = context.places()?;
    let profile = super::profile::need(&places, &context.globals)?;
    let client = context.anonymous(profile.server)?;
    let name = ca.and_then(CaName::named);
    let path = name.as_ref().map(|name| format!("/v1/ca/user-keys/{name}"));
    let path = path.as_deref().unwrap_or("/v1/ca/user-keys");
    let bundle = context.block_on(async { Ok(client.text(path).await?) })?;
    let mut document = json!({ "schema": "hallpass.trust-bundle.v1", "bundle": bundle });
    if let (Some(members), Some(name)) = (document.as_object_mut(), &name) {
        members.insert("ca".to_owned(), name.to_string().into());
    }
    context.out.answer(&document, &bundle)
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
    for ca in all.cas.iter().filter(|ca| ca.name != CaName::DEFAULT.as_str()) {
        context.out.note(&format!("that of CA {}: version {}", escape(&ca.name), ca.version));
    }
    rotate::say_waiting(context, &all);
    Ok(())
}

/// One line for each key.
fn table(all: &wire::Keys) -> String {
    let row = |key: &wire::Key| {
        let proven = key.proven.map(|proven| format!("{proven} of {} hosts prove it", hosts_of(all, key)));
        let until = key.last_end.as_deref().map(|end| format!(" until {}", output::local_text(end)));
        let until = until.unwrap_or_default();
        let certificates = match key.purpose.as_str() {
            "user" => format!("{} certificates{until}", key.certificates),
            _ if key.state == "draining" => format!("{} hosts show it{until}", key.shown.len()),
            _ => String::new(),
        };
        [
            label(&key.purpose, key.ca.as_deref()),
            escape(&key.fingerprint),
            escape(&key.state),
            format!("since {}", output::local_text(&key.since)),
            format!("backend {}", escape(&key.backend)),
            proven.unwrap_or_default(),
            certificates,
        ]
    };
    let spare = |key: &wire::Spare| {
        let blank = String::new;
        [
            label(&key.purpose, key.ca.as_deref()),
            escape(&key.fingerprint),
            "unused".to_owned(),
            blank(),
            blank(),
            blank(),
            blank(),
        ]
    };
    let rows: Vec<[String; 7]> = all.keys.iter().map(row).chain(all.spare.iter().map(spare)).collect();
    render::columns(&rows)
}

fn show(context: &Context, wanted: Fingerprint) -> Result<(), Failure> {
    let all = get(context)?;
    let key = all.keys.iter().find(|key| key.fingerprint == wanted.to_string());
    let spare = all.spare.iter().find(|key| key.fingerprint == wanted.to_string());
    let key = key.ok_or_else(|| match spare {
        Some(spare) => Failure::failed(format!("nobody has heard of {wanted} yet"))
            .because("it is configured as a key to change to, and no rotation has begun with it")
            .next(format!("hallpass ca rotate {} start --key {wanted}", words_of(&spare.purpose, spare.ca.as_deref()))),
        None => Failure::failed(format!("there is no CA key {wanted}"))
            .because("the log does not name it, and it is not configured")
            .next("hallpass ca ls"),
    })?;
    let mut text = format!("{}  {}\n", escape(&key.fingerprint), escape(&key.state));
    let mut add = |name: &str, value: &str| text.push_str(&format!("  {name:<14}{value}\n"));
    add("purpose", &escape(&key.purpose));
    if let Some(ca) = &key.ca {
        add("ca", &escape(ca));
    }
    add("since", &output::local_text(&key.since));
    add("key", &escape(&key.key));
    add("backend", &escape(&key.backend));
    if let Some(proven) = key.proven {
        add("proven", &format!("by {proven} of {} hosts", hosts_of(&all, key)));
    }
    key.unproven.iter().for_each(|one| add("not proven", &format!("{}: {}", escape(&one.host), escape(&one.why))));
    let shows = |one: &wire::Shown| format!("{}: until {}", escape(&one.host), output::local_text(&one.until));
    key.shown.iter().for_each(|one| add("shown by", &shows(one)));
    if key.purpose == "user" {
        add("certificates", &format!("{} that last", key.certificates));
    }
    if let Some(end) = &key.last_end {
        add("last end", &output::local_text(end));
    }
    context.out.answer(&output::with_schema("hallpass.ca-key.v1", key)?, &text)
}
