//! `hallpass ssh HOST`: a live certificate if there is one that the service does not say is over, else ask, wait, fetch; then the real ssh in
//! our place. With a service that does not answer soon, what there is, is used.
//!
//! Invariants: the private key stays in its file, ssh reads it itself, no agent holds it. hallpass *becomes* ssh (`exec`), so terminal,
//! signals and exit status are ssh's own; every failure before that is 255, as ssh itself would report it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use clap::Args;

use super::failure::{Exit, Failure};
use super::local::{Held, Local, has_time_left};
use super::openssh::{self, no_ssh, ssh_program};
use super::request::{self, Asked, Wish};
use super::{Context, clock, output, profile, still, usage};
use crate::client::{Client, ClientError};
use crate::name::{Account, HostName, Target};
use crate::time::{Lifetime, Timestamp, Window};
use crate::wire;

/// Arguments of `hallpass ssh`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SshArgs {
    /// The host, or ACCOUNT@HOST
    #[arg(value_name = "HOST", value_parser = parse_destination)]
    host: (Option<Account>, HostName),
    /// Why, if it has to be asked for
    #[arg(long, env = "HALLPASS_REASON", hide_env_values = true, allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: Option<String>,
    /// The ticket
    #[arg(long, env = "HALLPASS_TICKET", hide_env_values = true)]
    ticket: Option<String>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION", value_parser = Lifetime::parse)]
    lifetime: Option<Lifetime>,
    /// As which account
    #[arg(long = "as", value_name = "ACCOUNT", value_parser = Account::parse)]
    account: Option<Account>,
    /// Wait no longer than this for a decision
    #[arg(long, value_name = "DURATION", value_parser = Lifetime::parse)]
    wait: Option<Lifetime>,
    /// What ssh gets after the host: options and a command
    #[arg(last = true, value_name = "SSH-ARGS")]
    args: Vec<OsString>,
}

/// `web-1` or `deploy@web-1`. Both parts are parsed names, so neither can be an option to ssh.
///
/// # Errors
/// What a name looks like.
pub(crate) fn parse_destination(text: &str) -> Result<(Option<Account>, HostName), String> {
    let (account, host) = match text.split_once('@') {
        Some((account, host)) => (Some(Account::parse(account).map_err(|e| e.to_string())?), host),
        None => (None, text),
    };
    Ok((account, HostName::parse(host).map_err(|e| e.to_string())?))
}

/// `hallpass ssh`.
pub(crate) fn run(context: &Context, args: &SshArgs) -> Result<(), Failure> {
    // Nobody is to agree to access that can't be used.
    let held = openssh::find().and_then(|()| prepare(context, args)).map_err(|f| f.with_exit(Exit::Ssh))?;
    context.keep_clock();
    context.warn_of_clock();
    Err(become_ssh(args, &held).with_exit(Exit::Ssh))
}

/// A certificate that lets us in, one way or the other.
fn prepare(context: &Context, args: &SshArgs) -> Result<Held, Failure> {
    let places = context.places()?;
    let (in_host, host) = &args.host;
    let account = args.account.as_ref().or(in_host.as_ref());
    if let (Some(one), Some(other)) = (&args.account, in_host)
        && one != other
    {
        return Err(Failure::usage(format!("two accounts: {one} and {other}")));
    }
    profile::check_name(&context.globals.profile)?;
    let local = Local::new(&places, &context.globals.profile);
    local.sweep();
    let now = local.now();
    for held in local.for_host(host, account)?.into_iter().filter(|held| held.is_live(now)) {
        if still::is_closed(context, &local, &held) {
            continue;
        }
        // The answer has told the time.
        context.keep_clock();
        if !held.is_live(local.now()) {
            continue;
        }
        if args.lifetime.is_some() || args.reason.is_some() || args.ticket.is_some() {
            let id = output::escape(&held.request.id);
            context.out.note(&format!(
                "using {id}, which you hold already; nothing is asked (hallpass extend {id} asks for more time)"
            ));
        }
        return Ok(held);
    }
    let ours = local.for_host(host, account)?;
    let (_, client) = context.connect()?;
    context.block_on(async {
        let asked = match open_request(&client, &local, &ours).await? {
            Some(request) => request.into(),
            None => ask(context, &client, &local, args, account).await?,
        };
        if asked.request.state == "pending" {
            request::announce(context, &asked.request, true);
        }
        let (request, held) = request::obtain(context, &client, &local, asked, Some(args.wait)).await?;
        held.ok_or_else(|| Failure::failed(format!("no certificate for {}", request.id)))
    })
}

/// The first of our requests for this host that is not closed, and not about to end. Of those that are closed, what lies here goes.
pub(crate) async fn open_request(
    client: &Client,
    local: &Local,
    ours: &[Held],
) -> Result<Option<wire::Request>, Failure> {
    for held in ours {
        let request: wire::Request = match client.get(&format!("/v1/requests/{}", held.request.id)).await {
            Ok(request) => request,
            Err(ClientError::Problem(problem)) if problem.status == 404 => continue,
            // Not knowing is no reason to trouble people with a second request.
            Err(error) => return Err(error.into()),
        };
        let is_open = match request.state.as_str() {
            "pending" => true,
            "approved" | "issued" => request
                .window
                .as_ref()
                .and_then(parse_window)
                .is_some_and(|w| has_time_left(w, clock::measured(client.offset(), None))),
            _ => false,
        };
        if is_open {
            return Ok(Some(request));
        }
        if held.is_closed_by(&request) {
            local.throw_away(std::slice::from_ref(&held.folder));
        }
    }
    Ok(None)
}

async fn ask(
    context: &Context,
    client: &Client,
    local: &Local,
    args: &SshArgs,
    account: Option<&Account>,
) -> Result<Asked, Failure> {
    let mut wish = Wish {
        targets: vec![Target::Host(args.host.1.clone())],
        account: account.cloned(),
        lifetime: args.lifetime,
        start: None,
        reason: args.reason.clone().unwrap_or_default(),
        ticket: args.ticket.clone(),
    };
    wish.reason = request::reason_wanted(context, client, &wish).await?;
    request::ask(client, local, &wish).await
}

fn parse_window(window: &wire::Window) -> Option<Window> {
    Window::new(Timestamp::parse(&window.not_before).ok()?, Timestamp::parse(&window.not_after).ok()?).ok()
}

/// Replaces this process by ssh; only a failure comes back.
fn become_ssh(args: &SshArgs, held: &Held) -> Failure {
    // The server named it, and our file holds it; only a parsed name becomes an argument.
    let account = match Account::parse(&held.request.account) {
        Ok(account) => account,
        Err(why) => return Failure::failed("the request's account is no account").because(why.to_string()),
    };
    let error = std::process::Command::new(ssh_program())
        .arg("-i")
        .arg(held.key_path())
        .arg("-o")
        .arg(format!("CertificateFile=\"{}\"", held.certificate_path().display()))
        // A multiplexing master outlives the certificate that opened it, and one of another certificate must not be joined.
        .args(["-o", "IdentitiesOnly=yes", "-o", "ControlPath=none", "-l"])
        .arg(account.as_str())
        .arg(args.host.1.as_str())
        .args(&args.args)
        .exec();
    no_ssh(&error)
}
