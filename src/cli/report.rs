//! `hallpass audit report`: a folder of evidence on a period, made of an export, offline.
//!
//! What not: what is in its files is `audit::evidence`'s, and whether the export is sound `audit::report`'s.
//!
//! Invariants: the folder has its name once all of it is there; the export that is verified, told of and named by its hash is read once, so that
//! nobody can put another one in between; of one that is not sound there is no report.
//!
//! *Why is the log not fetched here?* What a report says is worth what it can be compared with: the export is the evidence, and must be kept.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::audit::{VerifyArgs, unsound, with_export, wrong_usage};
use super::failure::Failure;
use super::output::word;
use super::progress::Progress;
use crate::audit::evidence::{Evidence, Hashed, Pack, Period, Plan, Sample, Source};
use crate::audit::report;
use crate::durable::NewFolder;
use crate::time::Lifetime;

/// Arguments of `hallpass audit report`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// Of when, in UTC: `2026`, `2026-Q3`, `2026-07`, or `2026-07-01..2026-09-30` with both days in it
    #[arg(long, value_name = "PERIOD", value_parser = Period::parse)]
    period: Period,
    /// The folder to make, which must not exist
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Access that lasts longer in all, with its extensions, is told as an exception
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = Lifetime::parse)]
    longer_than: Lifetime,
    /// Make a page for each of so many requests, which the seed chooses
    #[arg(long, value_name = "N", requires = "seed", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sample: Option<u16>,
    /// Your own words, which nobody could know before; whoever has them can make the choice again
    #[arg(long, value_name = "TEXT", requires = "sample")]
    seed: Option<String>,
    #[command(flatten)]
    export: VerifyArgs,
}

/// `hallpass audit report`.
pub(crate) fn run(context: &Context, args: &ReportArgs) -> Result<(), Failure> {
    let sample = args.sample.zip(args.seed.as_deref());
    let sample = sample.map(|(size, seed)| Sample::new(size.into(), seed)).transpose();
    let sample = sample.map_err(|why| Failure::usage(format!("--seed: {why}")))?;
    let plan = Plan { period: args.period.clone(), long: args.longer_than, sample };
    let unwritten = |e: std::io::Error| Failure::file("create", &args.out, &e);
    let folder = NewFolder::begin(&args.out).map_err(unwritten)?;
    let mut pack = make(context, plan, &args.export)?;
    for (name, text) in &pack.files {
        folder.create(name, text.as_bytes(), 0o600).map_err(unwritten)?;
    }
    folder.finish().map_err(unwritten)?;
    if let Some(document) = pack.json.as_object_mut() {
        document.insert("folder".to_owned(), json!(args.out));
    }
    context.out.answer(&pack.json, &pack.text)?;
    context.out.note(&format!("next: read {}", word(&args.out.join("summary.md"))));
    Ok(())
}

/// Verifies the export and gathers what is told of it.
fn make(context: &Context, plan: Plan, args: &VerifyArgs) -> Result<Pack, Failure> {
    let mut evidence = Evidence::new(plan);
    let mut progress = Progress::new(context, "log entries read");
    with_export(args, |input, demands| {
        let mut input = Hashed::new(input);
        let (found, verified) = report::verify_showing(&mut input, demands, &mut |entry| {
            evidence.take(entry);
            progress.tell(|| entry.index.to_string());
        })
        .map_err(|why| wrong_usage(&why))?;
        let Some(verified) = verified else {
            return Err(unsound(context, &found)?.because("no report was made of it"));
        };
        let source = Source { verified: &verified, sha256: input.finish(), demands };
        evidence.finish(&source).map_err(|why| {
            Failure::failed("the log tells nothing of that period")
                .because(why.to_string())
                .next("name another period, or make a newer export")
        })
    })
}
