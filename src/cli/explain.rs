//! `hallpass explain`: what policy says about a question, rule by rule, without asking for anything.

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::escape;
use super::request::{Wish, words};
use super::{Context, output, render, usage};
use crate::client::{Client, ClientError};
use crate::name::{Account, PersonName, Target};
use crate::time::{Lifetime, Timestamp};
use crate::wire;

/// Arguments of `hallpass explain`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Hosts, or all hosts with a tag
    #[arg(required = true, value_name = "TARGET", num_args = 1..=16, value_parser = Target::parse)]
    targets: Vec<Target>,
    /// As which account
    #[arg(long = "as", value_name = "ACCOUNT", value_parser = Account::parse)]
    account: Option<Account>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION", value_parser = Lifetime::parse)]
    lifetime: Option<Lifetime>,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true, value_parser = usage::free_text)]
    reason: String,
    /// The ticket
    #[arg(long)]
    ticket: Option<String>,
    /// As if this person asked (operators and auditors)
    #[arg(long, value_parser = PersonName::parse)]
    person: Option<PersonName>,
    /// As if asked at this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    at: Option<Timestamp>,
}

/// `hallpass explain`.
pub(crate) fn run(context: &Context, args: &ExplainArgs) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let wish = Wish {
        targets: args.targets.clone(),
        account: args.account.clone(),
        lifetime: args.lifetime,
        start: None,
        reason: args.reason.clone(),
        ticket: args.ticket.clone(),
    };
    let question = wire::Ask {
        person: args.person.as_ref().map(ToString::to_string),
        at: args.at.map(|at| at.to_string()),
        ..wish.to_wire()
    };
    let again = |account: &Account| format!("hallpass explain {} --as {account}", words(&args.targets));
    let verdict = context.block_on(ask(&client, &question, again))?;
    answer(context, &verdict)
}

/// What policy says about a question. `again`: what to type with an account, where more than one is allowed.
pub(super) async fn ask(
    client: &Client,
    question: &wire::Ask,
    again: impl Fn(&Account) -> String,
) -> Result<wire::Verdict, Failure> {
    match client.post("/v1/explain", question).await {
        Err(ClientError::Problem(problem)) if problem.code == "account" => Err(Failure::name_account(&problem, again)),
        answer => Ok(answer?),
    }
}

/// Prints it; a refusal is a failure, too, in the code that it has everywhere.
pub(super) fn answer(context: &Context, verdict: &wire::Verdict) -> Result<(), Failure> {
    context.out.answer(&output::with_schema("hallpass.verdict.v1", verdict)?, &text(verdict))?;
    if matches!(verdict.verdict.as_str(), "allow" | "ask") {
        return Ok(());
    }
    let code = verdict.code.as_deref().unwrap_or("no_rule");
    let what = if code == "reason" { "the policy wants other words" } else { "the policy refuses this" };
    Err(Failure::new(Exit::NoRule, code, what))
}

fn text(verdict: &wire::Verdict) -> String {
    let mut text = match verdict.verdict.as_str() {
        "allow" => "allowed at once".to_owned(),
        "ask" => "may be asked for".to_owned(),
        // A rule lets them ask; only the words are missing.
        "refuse" if verdict.code.as_deref() == Some("reason") => {
            "may be asked for, but not with these words".to_owned()
        }
        "refuse" => "refused".to_owned(),
        other => escape(other),
    };
    if let (Some(lifetime), Some(max)) = (&verdict.lifetime, &verdict.max) {
        text.push_str(&format!(", for {} (longest {})", escape(lifetime), escape(max)));
    }
    text.push_str(&format!("; policy {}\n", verdict.policy));
    for need in &verdict.needs {
        text.push_str(&format!("  needs {} of {}\n", need.need, render::joined(&need.from)));
    }
    if !verdict.needs.is_empty() {
        let able = if verdict.eligible.is_empty() { "nobody".to_owned() } else { render::joined(&verdict.eligible) };
        text.push_str(&format!("  could agree: {able}\n"));
    }
    if let Some(why) = &verdict.unmeetable {
        text.push_str(&format!("  but {}\n", escape(why)));
    }
    for why in &verdict.refused {
        text.push_str(&format!("  {}\n", escape(why)));
    }
    for host in &verdict.hosts {
        text.push_str(&format!("{}\n", escape(&host.host)));
        for rule in &host.rules {
            let word = if rule.matched { "matches" } else { "does not match" };
            text.push_str(&format!("  rule {} {word}\n", escape(&rule.rule)));
            for clause in &rule.clauses {
                text.push_str(&format!("    {}\n", escape(clause)));
            }
        }
    }
    text
}
