//! `hallpass policy`: what operators do. What needs the service is here; what works offline on files is in `policy`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::failure::{Exit, Failure};
use super::output::{self, escape};
use super::{Context, policy, policy_report, render};
use crate::policy::TEXT_BYTES_MAX;
use crate::wire;

/// `hallpass policy …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check policy files, offline
    Check(policy::FilesArgs),
    /// Run the tests in policy files, offline
    Test(policy::FilesArgs),
    /// Say what a policy file would answer, offline
    Explain(policy::ExplainFileArgs),
    /// Say who gains and loses what between two files, offline
    Diff(policy::DiffArgs),
    /// Check, test and apply a policy to the service
    Apply {
        /// The policy file, or `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the policy in force, or another version
    Show {
        /// The version
        #[arg(value_name = "VERSION")]
        version: Option<u32>,
    },
    /// List all versions
    History,
}

/// `hallpass policy …`.
pub(crate) fn policy(context: &Context, command: &PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check(args) => policy::check(context, args),
        PolicyCommand::Test(args) => policy::test(context, args),
        PolicyCommand::Explain(args) => policy::explain(context, args),
        PolicyCommand::Diff(args) => policy::diff(context, args),
        PolicyCommand::Apply { file, dry_run } => apply(context, file, *dry_run),
        PolicyCommand::Show { version } => show_policy(context, *version),
        PolicyCommand::History => history(context),
    }
}

/// Shows who gains and loses what, asks, then applies it on top of the version it was compared with.
fn apply(context: &Context, file: &Path, dry_run: bool) -> Result<(), Failure> {
    let bytes = policy_report::read(file, TEXT_BYTES_MAX).map_err(|e| Failure::file("read policy", file, &e))?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(Failure::usage(format!("{:?} is longer than {TEXT_BYTES_MAX} bytes", file.display().to_string())));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| Failure::usage(format!("{:?} is not UTF-8", file.display().to_string())).because(e.to_string()))?;
    let (_, client) = context.connect()?;
    let applied = context.block_on(async {
        let try_out = wire::PutPolicy { text: text.clone(), base: None, dry_run: true };
        let would: wire::PolicyApplied =
            client.put("/v1/policy", &try_out).await.map_err(|e| in_file(e.into(), file))?;
        if dry_run || would.unchanged {
            return Ok(would);
        }
        context.out.note(&format!("{}{}", changes(&would), warnings(&would)));
        if !context.globals.yes && !output::confirm("apply this?", context.globals.no_input, "--yes")? {
            return Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was changed"));
        }
        let body = wire::PutPolicy { text, base: Some(would.version), dry_run: false };
        client.put("/v1/policy", &body).await.map_err(|e| in_file(e.into(), file))
    })?;
    let sentence = match (applied.unchanged, applied.dry_run) {
        (true, _) => format!("nothing to change: version {} is this policy", applied.version),
        (false, true) => {
            let shown = format!("{}{}", changes(&applied), warnings(&applied));
            format!("{shown}nothing was changed (dry run); in force: version {}", applied.version)
        }
        (false, false) => format!("version {} is in force ({} tests passed)", applied.version, applied.tests),
    };
    context.out.answer(&output::with_schema("hallpass.policy-applied.v1", &applied)?, &sentence)
}

/// The server knows the text, not the file's name: what it says of places is said of the file that was given.
fn in_file(mut failure: Failure, file: &Path) -> Failure {
    if failure.code == "bad_policy" {
        for why in &mut failure.why {
            if let Some(rest) = why.strip_prefix("policy.toml:") {
                *why = format!("{}:{rest}", policy_report::label(file));
            }
        }
    }
    failure
}

fn warnings(applied: &wire::PolicyApplied) -> String {
    applied.warnings.iter().map(|what| format!("warning: {}\n", escape(what))).collect()
}

fn changes(applied: &wire::PolicyApplied) -> String {
    let lines: String = applied.changes.iter().map(|c| format!("  {}\n", escape(c))).collect();
    if lines.is_empty() { "nobody gains or loses access\n".to_owned() } else { lines }
}

fn show_policy(context: &Context, version: Option<u32>) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let path = version.map_or_else(|| "/v1/policy".to_owned(), |v| format!("/v1/policy?version={v}"));
    let policy: wire::PolicyVersion = context.block_on(async { Ok(client.get(&path).await?) })?;
    context.out.note(&format!(
        "version {} by {} at {}",
        policy.version,
        escape(&policy.by),
        output::local_text(&policy.at)
    ));
    let document = output::with_schema("hallpass.policy-version.v1", &policy)?;
    context.out.answer(&document, policy.text.as_deref().unwrap_or_default())
}

fn history(context: &Context) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let all: wire::PolicyVersions = context.block_on(async { Ok(client.get("/v1/policy/history").await?) })?;
    let rows: Vec<[String; 3]> =
        all.versions.iter().map(|v| [v.version.to_string(), output::local_text(&v.at), escape(&v.by)]).collect();
    context.out.answer(&output::with_schema("hallpass.policy-history.v1", &all)?, &render::columns(&rows))
}
