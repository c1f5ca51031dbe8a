//! `hallpass admin join …` and `admin host …`: who may enrol, and which hosts have.
//!
//! Invariant: a join token is printed once, on standard output or into a file that only its owner reads, and is never an argument.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::failure::{Exit, Failure};
use super::output::{self, escape};
use super::{Context, backup, recover, render, request, usage};
use crate::durable;
use crate::name::{CaName, HostName, JoinId, NamePattern, Tag, TagKey};
use crate::time::Lifetime;
use crate::wire::Why;
use crate::wire::host as wire;

/// `hallpass admin …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Join tokens: what lets hosts enrol
    #[command(subcommand)]
    Join(JoinCommand),
    /// Enrolled hosts
    #[command(subcommand)]
    Host(HostCommand),
    /// Backups of the service's database, on its machine
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// The service's database, on its machine
    #[command(subcommand)]
    Store(recover::StoreCommand),
}

/// `hallpass admin join …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum JoinCommand {
    /// Make a join token, and print it this once
    Create(CreateArgs),
    /// List join tokens, without their secrets
    Ls,
    /// Take a join token back; hosts that have joined with it stay
    Revoke {
        /// Its id
        #[arg(value_name = "ID", value_parser = JoinId::parse)]
        id: JoinId,
    },
}

/// Arguments of `hallpass admin join create`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CreateArgs {
    /// Names that a host may take, also as further names: `web-1`, `web-*`
    #[arg(required = true, value_name = "NAME|PATTERN", num_args = 1.., value_parser = NamePattern::parse)]
    names: Vec<NamePattern>,
    /// Tags that every such host has
    #[arg(long, value_name = "KEY=VALUE", value_parser = Tag::parse)]
    tag: Vec<Tag>,
    /// Key of a further tag that such a host may give itself; may be repeated
    #[arg(long, value_name = "KEY", value_parser = TagKey::parse)]
    may_tag: Vec<TagKey>,
    /// How many hosts may join
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    uses: u32,
    /// For how long, at most 30d
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = Lifetime::parse)]
    lifetime: Lifetime,
    /// Write the token into this file (mode 0600; must not exist) instead of printing it; `-` prints it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `hallpass admin host …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List all hosts that are or were enrolled, and how they are
    Ls,
    /// Show one of them
    Show {
        /// The host
        #[arg(value_parser = HostName::parse)]
        host: HostName,
    },
    /// Set tags of a host, and take tags away
    Tag {
        /// The host
        #[arg(value_parser = HostName::parse)]
        host: HostName,
        /// Tags to set
        #[arg(value_name = "KEY=VALUE", value_parser = Tag::parse, required_unless_present = "remove")]
        set: Vec<Tag>,
        /// A tag to take away
        #[arg(long, value_name = "KEY", value_parser = TagKey::parse)]
        remove: Vec<TagKey>,
    },
    /// Take a host out: from then on it is an unknown host, and its name and keys are free
    Retire {
        /// The host
        #[arg(value_parser = HostName::parse)]
        host: HostName,
        /// Why; asked for on a terminal
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = usage::free_text)]
        reason: Option<String>,
    },
}

/// `hallpass admin …`.
pub(crate) fn run(context: &Context, command: &AdminCommand) -> Result<(), Failure> {
    match command {
        AdminCommand::Join(JoinCommand::Create(args)) => create(context, args),
        AdminCommand::Join(JoinCommand::Ls) => joins(context),
        AdminCommand::Join(JoinCommand::Revoke { id }) => revoke(context, id),
        AdminCommand::Backup(command) => backup::run(context, command),
        AdminCommand::Store(command) => recover::run(context, command),
        AdminCommand::Host(HostCommand::Ls) => hosts(context),
        AdminCommand::Host(HostCommand::Show { host }) => show(context, host),
        AdminCommand::Host(HostCommand::Tag { host, set, remove }) => tag(context, host, (set, remove)),
        AdminCommand::Host(HostCommand::Retire { host, reason }) => retire(context, host, reason.clone()),
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn create(context: &Context, args: &CreateArgs) -> Result<(), Failure> {
    let out = args.out.as_deref().filter(|path| path.as_os_str() != "-");
    if let Some(path) = out.filter(|path| path.exists()) {
        // Looked at before a token is made that then nobody has; `create` looks again.
        let exists = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Failure::file("write join token", path, &exists));
    }
    let (profile, client) = context.connect()?;
    let body = wire::JoinFor {
        names: texts(&args.names),
        tags: texts(&args.tag),
        may_tag: texts(&args.may_tag),
        uses: Some(args.uses),
        lifetime: Some(args.lifetime.to_string()),
    };
    let new: wire::NewJoin = context.block_on(async { Ok(client.post("/v1/hosts/joins", &body).await?) })?;
    if let Some(path) = out {
        keep(path, &new.token)?;
    }
    let mut document = output::with_schema("hallpass.join.v1", &new.join)?;
    if let (Value::Object(members), None) = (&mut document, out) {
        members.insert("token".to_owned(), (*new.token).into());
    }
    let text = match out {
        Some(path) => format!("join token {} in {}", escape(&new.join.id), path.display()),
        None => escape(&new.token),
    };
    context.out.answer(&document, &text)?;
    let many = if args.uses == 1 { "one host".to_owned() } else { format!("{} hosts", args.uses) };
    let until = output::local_text(&new.join.expires);
    context.out.note(&format!("join token {} lets in {many} until {until}", escape(&new.join.id)));
    context.out.note("next: on the host, with the token in a file that only root reads:");
    let pin = profile.server.pin.as_ref().map(|pin| format!(" --pin {}", escape(pin))).unwrap_or_default();
    let url = escape(&profile.server.url);
    context.out.note(&format!("  sudo hallpass-host enrol --server {url}{pin} --token-file FILE"));
    Ok(())
}

fn keep(path: &Path, token: &str) -> Result<(), Failure> {
    let line = format!("{token}\n");
    durable::create(path, line.as_bytes(), 0o600).map_err(|e| Failure::file("write join token", path, &e))
}

fn joins(context: &Context) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let all: wire::Joins = context.block_on(async { Ok(client.get("/v1/hosts/joins").await?) })?;
    let row = |join: &wire::Join| {
        let tags = if join.tags.is_empty() { String::new() } else { format!(" with {}", render::joined(&join.tags)) };
        let own = match &join.may_tag {
            Some(keys) if keys.is_empty() => String::new(),
            Some(keys) => format!(", may set {}", render::joined(keys)),
            None => ", may set any other tag".to_owned(),
        };
        [
            escape(&join.id),
            escape(&join.state),
            format!("{} of {}", join.hosts.len(), join.uses),
            format!("until {}", output::local_text(&join.expires)),
            format!("{}{tags}{own}", render::joined(&join.names)),
            escape(&join.by),
        ]
    };
    let rows: Vec<[String; 6]> = all.joins.iter().map(row).collect();
    let text = if rows.is_empty() { "no join tokens\n".to_owned() } else { render::columns(&rows) };
    context.out.answer(&output::with_schema("hallpass.joins.v1", &all)?, &text)
}

fn revoke(context: &Context, id: &JoinId) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    context.block_on(async { Ok(client.delete(&format!("/v1/hosts/joins/{id}")).await?) })?;
    let document = serde_json::json!({ "schema": "hallpass.join-revoked.v1", "id": id.as_str() });
    context.out.answer(&document, &format!("join token {id} lets nobody in any more"))
}

fn hosts(context: &Context) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let all: wire::Inventory = context.block_on(async { Ok(client.get("/v1/hosts/inventory").await?) })?;
    let row =
        |host: &wire::HostDetail| [escape(&host.name), escape(&host.state), render::joined(&host.tags), how(host)];
    let rows: Vec<[String; 4]> = all.hosts.iter().map(row).collect();
    let text = if rows.is_empty() { "no host is enrolled\n".to_owned() } else { render::columns(&rows) };
    context.out.answer(&output::with_schema("hallpass.inventory.v1", &all)?, &text)?;
    let active: Vec<&wire::HostDetail> = all.hosts.iter().filter(|host| host.state == "active").collect();
    let count = |is: &dyn Fn(&wire::HostDetail) -> bool| active.iter().filter(|host| is(host)).count();
    let stale = count(&|host| host.seen.as_ref().is_none_or(|seen| seen.is_stale));
    let behind = count(&|host| host.seen.as_ref().is_some_and(|seen| seen.trust == "behind"));
    let open = count(&|host| host.seen.as_ref().is_some_and(|seen| !seen.guard));
    let noted = count(&|host| !host.conflicts.is_empty());
    let doubled = count(&|host| host.seen.as_ref().is_some_and(|seen| seen.doubled.is_some()));
    let total = active.len();
    context.out.note(&format!(
        "{total} enrolled: {stale} stale or not seen, {behind} without a CA key, {open} without guard, {noted} with refused doubles, \
         {doubled} on two machines"
    ));
    Ok(())
}

/// `seen TIME, guard, trust proven`, with what is wrong said.
pub(crate) fn seen(seen: &wire::Seen) -> String {
    let stale = if seen.is_stale { " (stale)" } else { "" };
    let guard = if seen.guard { "guard" } else { "no guard" };
    let doubled = if seen.doubled.is_some() { ", on two machines" } else { "" };
    format!("seen {}{stale}, {guard}, trust {}{doubled}", output::local_text(&seen.at), escape(&seen.trust))
}

fn how(host: &wire::HostDetail) -> String {
    let mut text = host.seen.as_ref().map_or_else(|| "not seen yet".to_owned(), seen);
    if !host.conflicts.is_empty() {
        text.push_str(&format!(", {} refused doubles", host.conflicts.len()));
    }
    text
}

fn show(context: &Context, name: &HostName) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let host: wire::HostDetail = context.block_on(async { Ok(client.get(&format!("/v1/hosts/{name}")).await?) })?;
    context.out.answer(&output::with_schema("hallpass.host.v1", &host)?, &details(&host))?;
    if host.state == "active" && host.seen.is_some_and(|seen| seen.doubled.is_some()) {
        context.out.note(&doubled(name));
    }
    Ok(())
}

/// Whether it goes over from one user CA to another.
const fn is_moving(host: &wire::HostDetail) -> bool {
    host.waits || !host.keeps.is_empty()
}

/// What to do about a host that is two machines.
fn doubled(name: &HostName) -> String {
    format!(
        "next: one of the two is a copy with {name}'s host key. On the copy, as root: a key and a name of its own\n  \
         rm /etc/ssh/ssh_host_*_key*; ssh-keygen -A\n  \
         hallpass-host leave; hallpass-host enrol --server URL --name NAME --token-file FILE\n\
         If you did not make that copy, somebody has {name}'s host key: set {name} up anew, too"
    )
}

fn details(host: &wire::HostDetail) -> String {
    let mut text = format!("{}  {}\n", escape(&host.name), escape(&host.state));
    let mut add = |key: &str, value: &str| text.push_str(&format!("  {key:<12}{value}\n"));
    let some = |list: &[String]| if list.is_empty() { "none".to_owned() } else { render::joined(list) };
    add("tags", &some(&host.tags));
    add("also called", &some(&host.names));
    host.keys.iter().for_each(|key| add("key", &escape(key)));
    if let Some(ca) = host.ca.as_deref().or_else(|| is_moving(host).then_some(CaName::DEFAULT.as_str())) {
        add("ca", &escape(ca));
    }
    if host.waits {
        add("", "nothing is issued for it before its next check-in proves that it trusts that CA's key");
    }
    host.keeps.iter().for_each(|key| add("keeps", &format!("{}, for certificates that last", escape(key))));
    let (enrolled, join) = (output::local_text(&host.enrolled), escape(&host.join));
    add("enrolled", &format!("{enrolled}, last with join token {join}"));
    match &host.seen {
        None => add("seen", "not yet"),
        Some(told) => {
            add("seen", seen(told).trim_start_matches("seen "));
            let about = &told.about;
            add("runs", &render::joined(&[about.program.clone(), about.sshd.clone(), about.os.clone()]));
            add("clock", &format!("{} ms ahead", told.clock_ms));
            add("risky", &some(&told.risky));
            add("sessions", &told.sessions.to_string());
            if let Some(at) = &told.doubled {
                let at = output::local_text(at);
                add("doubled", &format!("two machines check in as {}, by turns; last seen {at}", escape(&host.name)));
            }
        }
    }
    for conflict in &host.conflicts {
        let (at, name) = (output::local_text(&conflict.at), escape(&conflict.name));
        add("refused", &format!("{at}: {name} with {}: {}", escape(&conflict.key), escape(&conflict.why)));
    }
    text
}

fn tag(context: &Context, name: &HostName, (set, remove): (&[Tag], &[TagKey])) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let body = wire::SetTags { set: texts(set), unset: texts(remove) };
    let host: wire::HostDetail =
        context.block_on(async { Ok(client.post(&format!("/v1/hosts/{name}/tags"), &body).await?) })?;
    let tags = if host.tags.is_empty() { "no tags".to_owned() } else { render::joined(&host.tags) };
    let text = format!("{} has {tags}", escape(&host.name));
    context.out.answer(&output::with_schema("hallpass.host.v1", &host)?, &text)
}

fn retire(context: &Context, name: &HostName, reason: Option<String>) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let reason = request::reason(context, reason)?;
    let question = format!("retire {name}? Nobody can ask for it any more");
    if !context.globals.yes && !output::confirm(&question, context.globals.no_input, "--yes")? {
        return Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed"));
    }
    let body = Why { reason };
    let host: wire::HostDetail =
        context.block_on(async { Ok(client.post(&format!("/v1/hosts/{name}/retire"), &body).await?) })?;
    let text =
        format!("{} is retired; sessions that are open there run to the end of their window", escape(&host.name));
    context.out.answer(&output::with_schema("hallpass.host.v1", &host)?, &text)
}
