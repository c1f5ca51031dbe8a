//! `hallpass policy check|test|explain|diff`: offline, on files. Arguments and printing; what is said comes from
//! [`super::policy_report`].

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::policy_report::{self, Asked, Report};
use super::{Context, output, usage};
use crate::name::{Account, PersonName, Target};
use crate::time::{Clock as _, Lifetime, SystemClock, Timestamp};

/// Arguments of `hallpass policy check` and `test`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FilesArgs {
    /// The policy files, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// Arguments of `hallpass policy explain`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainFileArgs {
    /// The policy file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Who asks
    #[arg(long, value_name = "NAME", value_parser = PersonName::parse)]
    pub(crate) person: PersonName,
    /// For which host (or tag:KEY=VALUE); may be repeated
    #[arg(long = "host", required = true, value_name = "TARGET", value_parser = Target::parse)]
    pub(crate) targets: Vec<Target>,
    /// As which account
    #[arg(long = "as", value_name = "ACCOUNT", value_parser = Account::parse)]
    pub(crate) account: Account,
    /// For how long; the rule's default if not given
    #[arg(long = "for", value_name = "DURATION", value_parser = Lifetime::parse)]
    pub(crate) lifetime: Option<Lifetime>,
    /// From when (RFC 3339); from approval if not given
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    pub(crate) start: Option<Timestamp>,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "a question about the policy", allow_hyphen_values = true, value_parser = usage::free_text)]
    pub(crate) reason: String,
    /// The ticket
    #[arg(long, value_name = "TICKET")]
    pub(crate) ticket: Option<String>,
    /// As if asked at this time (RFC 3339); now if not given
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    pub(crate) at: Option<Timestamp>,
}

/// Arguments of `hallpass policy diff`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DiffArgs {
    /// The policy as it is, or `-` for standard input
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The policy as it would be, or `-` for standard input
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
}

/// `hallpass policy check`.
pub(crate) fn check(context: &Context, args: &FilesArgs) -> Result<(), Failure> {
    readable(&args.files)?;
    print(context, policy_report::check(&args.files))
}

/// `hallpass policy test`.
pub(crate) fn test(context: &Context, args: &FilesArgs) -> Result<(), Failure> {
    readable(&args.files)?;
    print(context, policy_report::test(&args.files))
}

/// `hallpass policy explain`.
pub(crate) fn explain(context: &Context, args: &ExplainFileArgs) -> Result<(), Failure> {
    readable(std::slice::from_ref(&args.file))?;
    let asked = Asked {
        person: args.person.clone(),
        targets: args.targets.clone(),
        account: args.account.clone(),
        lifetime: args.lifetime,
        start: args.start,
        reason: args.reason.clone(),
        ticket: args.ticket.clone(),
        at: args.at.unwrap_or_else(|| SystemClock.now()),
    };
    print(context, policy_report::explain(&args.file, asked)?)
}

/// `hallpass policy diff`.
pub(crate) fn diff(context: &Context, args: &DiffArgs) -> Result<(), Failure> {
    readable(&[args.old.clone(), args.new.clone()])?;
    print(context, policy_report::diff(&args.old, &args.new))
}

/// A file that can't be opened is no policy with a problem.
fn readable(files: &[PathBuf]) -> Result<(), Failure> {
    let (inputs, files): (Vec<&PathBuf>, Vec<&PathBuf>) =
        files.iter().partition(|path| policy_report::is_standard_input(path));
    if inputs.len() > 1 {
        return Err(Failure::usage("`-` is standard input, which can be read once"));
    }
    for path in files {
        std::fs::File::open(path)
            .map_err(|e| Failure::file("read policy", path, &e).next(format!("ls -l {}", output::word(path))))?;
    }
    Ok(())
}

/// The report is the answer, also when it is bad news; the failure adds the exit code and one line.
fn print(context: &Context, report: Report) -> Result<(), Failure> {
    context.out.answer(&report.document, &report.text)?;
    report.failure.map_or(Ok(()), Err)
}
