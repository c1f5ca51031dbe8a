//! `hallpass approve`, `deny`: look at what would be signed, then decide about exactly that.

use clap::Args;

use super::failure::{Exit, Failure};
use super::which::{self, Among, Sought};
use super::{Context, output, profile, render, signing, usage, wait};
use crate::client::{Client, ClientError};
use crate::name::{Digest, HostName};
use crate::ssh::cert::Extension;
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// Arguments of `hallpass approve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The request or its host
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: String,
    /// For a shorter time
    #[arg(long = "for", value_name = "DURATION", value_parser = Lifetime::parse)]
    pub(super) lifetime: Option<Lifetime>,
    /// Only these hosts
    #[arg(long, value_name = "HOST", num_args = 1.., value_parser = HostName::parse)]
    pub(super) only: Vec<HostName>,
    /// Without these: `pty`, `port_forwarding`, `agent_forwarding`, `x11_forwarding`, `user_rc`
    #[arg(long, value_name = "PERMISSION", num_args = 1.., value_parser = extension)]
    pub(super) without: Vec<Extension>,
    /// A remark, for the log
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true, value_parser = usage::free_text)]
    comment: String,
    /// Only if this is what would be approved (as an earlier `show` printed it)
    #[arg(long, value_name = "HEX", value_parser = Digest::parse)]
    digest: Option<Digest>,
    /// By your login alone, without your key's signature; where the policy wants one, it does not count
    #[arg(long)]
    unsigned: bool,
}

impl ApproveArgs {
    /// The remark as the service keeps it.
    pub(super) fn comment(&self) -> &str {
        self.comment.trim_matches(' ')
    }
}

/// Arguments of `hallpass deny`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DenyArgs {
    /// The request or its host
    #[arg(value_name = "ID|HOST", value_parser = which::parse)]
    which: String,
    /// Why; the asker reads it
    #[arg(long, allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: Option<String>,
}

fn extension(text: &str) -> Result<Extension, String> {
    let known = || Extension::ALL.map(Extension::key).join(", ");
    Extension::ALL.into_iter().find(|e| e.key() == text).ok_or_else(|| format!("none of {}", known()))
}

/// `hallpass approve`.
pub(crate) fn approve(context: &Context, args: &ApproveArgs) -> Result<(), Failure> {
    let (profile, client) = context.connect()?;
    let session = profile::session(&context.places()?, &profile)?;
    let session = session.ok_or_else(|| Failure::not_logged_in(&profile.name))?;
    let request = context.block_on(async {
        let shown = look(&client, &to_decide(&client, &args.which, "approve").await?).await?;
        if let Some(digest) = &args.digest
            && digest.to_string() != shown.digest
        {
            return Err(Failure::new(
                Exit::Refused,
                "changed",
                format!("{} is not what you looked at any more", shown.id),
            )
            .because(format!("its digest is {}", shown.digest))
            .next(format!("hallpass show {}", shown.id)));
        }
        ask_first(context, &shown, "approve this?")?;
        // Of what nobody waits for the service says what became of it; nothing is signed for that.
        let signature = match args.unsigned || !render::waits(&shown) {
            true => None,
            false => Some(signing::sign(context, (&profile, &session), &shown, args)?),
        };
        let body = wire::Approve {
            digest: shown.digest.clone(),
            lifetime: args.lifetime.map(|l| l.to_string()),
            only: (!args.only.is_empty()).then(|| args.only.iter().map(ToString::to_string).collect()),
            without: args.without.iter().map(|e| e.key().to_owned()).collect(),
            comment: args.comment().to_owned(),
            signature,
        };
        client.post::<_, wire::Request>(&format!("/v1/requests/{}/approve", shown.id), &body).await.map_err(may_not)
    })?;
    context.out.answer(&wait::document(&request)?, &approved(&request, context.now()))
}

/// `hallpass deny`.
pub(crate) fn deny(context: &Context, args: &DenyArgs) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let reason = super::request::reason(context, args.reason.clone())?;
    let request = context.block_on(async {
        let id = to_decide(&client, &args.which, "deny").await?;
        let body = wire::Why { reason: reason.clone() };
        client.post::<_, wire::Request>(&format!("/v1/requests/{id}/deny"), &body).await.map_err(may_not)
    })?;
    let what = if request.state == "denied" { "denied" } else { "extension denied" };
    context.out.answer(&wait::document(&request)?, &format!("{} {what}", output::escape(&request.id)))
}

/// HP-209: a refusal to somebody who would decide.
fn may_not(error: ClientError) -> Failure {
    let mut failure = Failure::from(error);
    // What is over is a no to who would decide it, and the end of access only to its asker.
    if failure.exit == Exit::Refused || failure.exit == Exit::Over {
        "HP-209".clone_into(&mut failure.code);
        failure.exit = Exit::Refused;
    }
    failure
}

/// The id of the request that is to be decided: of those that wait for the caller, where a host is named.
async fn to_decide(client: &Client, which: &str, command: &str) -> Result<String, Failure> {
    let line = |id: &str| format!("hallpass {command} {id}");
    let none = "nothing waits for you";
    Sought { among: Among::ToDecide, fits: |_| true, none, line: &line }.find(client, Some(which)).await
}

/// The request as it stands.
async fn look(client: &Client, id: &str) -> Result<wire::Request, Failure> {
    Ok(client.get(&format!("/v1/requests/{id}")).await?)
}

/// Shows what would be signed and asks, unless `--yes` or nobody waits for it: then there is nothing to say yes to.
fn ask_first(context: &Context, request: &wire::Request, question: &str) -> Result<(), Failure> {
    context.out.note(&render::details(request, context.now()));
    if context.globals.yes || !render::waits(request) || output::confirm(question, context.globals.no_input, "--yes")? {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was decided")
        .next(format!("hallpass deny {}", request.id)))
}

/// What an approval led to.
fn approved(request: &wire::Request, now: Timestamp) -> String {
    let id = output::escape(&request.id);
    if render::waits(request) {
        let short = request.unmeetable.as_ref().map(|why| format!("\n{}", output::escape(why))).unwrap_or_default();
        return match request.eligible.is_empty() {
            true => format!(
                "{id} approved by you; that is not enough, and nobody else is known who could approve it{short}"
            ),
            false => format!("{id} approved by you; it still needs {}{short}", render::who_can(request)),
        };
    }
    let until =
        request.window.as_ref().map_or_else(String::new, |w| format!(" until {}", render::until(&w.not_after, now)));
    let (person, account) = (output::escape(&request.person), output::escape(&request.account));
    format!("{id} approved: {person} may reach {} as {account}{until}", render::joined(&request.hosts))
}
