//! `hallpass audit reconcile`: holds the logins that hosts report against what was granted, over the service's log or an export of it.
//!
//! What not: what fits is `audit::reconcile`; whether an export is sound is for `audit verify`.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::list::since;
use super::log_pages::each;
use super::output::escape;
use super::{Context, render};
use crate::audit::entry::{ENTRY_BYTES_MAX, Entry};
use crate::audit::reconcile::{Finding, FindingKind, Reconciled, Reconciler};
use crate::audit::text_time;
use crate::time::{Clock as _, SystemClock, Timestamp};
use crate::wire;

/// Arguments of `hallpass audit reconcile`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Only logins that were or were reported, and windows that ended, since then: a time (RFC 3339), or how long ago (`7d`)
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Timestamp>,
    /// An export to read, offline, instead of the service's log; verify it first
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// `hallpass audit reconcile`: exit 1 if anything does not fit.
pub(crate) fn run(context: &Context, args: &ReconcileArgs) -> Result<(), Failure> {
    let mut reconciler = Reconciler::new(args.since.unwrap_or(Timestamp::MIN));
    match &args.file {
        Some(path) => read(path, &mut reconciler)?,
        None => ask(context, &mut reconciler)?,
    }
    let found = reconciler.finish(SystemClock.now());
    context.out.answer(&document(&found), &text(&found))?;
    if found.findings.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Exit::Failed, "not_reconciled", "not everything fits what was granted")
        .because(format!("findings: {}", found.findings.len()));
    Err(next(&found).into_iter().fold(failure, Failure::next))
}

/// Where to look further: what was flagged at the time, and who asked for what nobody used (the newest of them).
fn next(found: &Reconciled) -> Vec<String> {
    let is_login = |finding: &&Finding| matches!(finding.kind, FindingKind::Login(_));
    let flagged = found.findings.iter().find(is_login).map(|_| "hallpass audit search kind:session_flagged".to_owned());
    let unused = found.findings.iter().rev().find(|finding| finding.kind == FindingKind::NeverUsed);
    let unused = unused.and_then(|finding| finding.request).map(|id| format!("hallpass audit search request:{id}"));
    flagged.into_iter().chain(unused).collect()
}

fn take(reconciler: &mut Reconciler, line: &str) -> Result<(), Failure> {
    let entry = Entry::parse(line.as_bytes());
    let entry = entry.map_err(|why| Failure::failed("an entry of the log cannot be read").because(why.to_string()))?;
    reconciler.take(&entry);
    Ok(())
}

fn ask(context: &Context, reconciler: &mut Reconciler) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    context.block_on(async {
        let head: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
        each(context, &client, 0, head.size, |line| take(reconciler, line)).await
    })
}

/// The entries of an export: its other lines are no entries, which have a `kind`.
fn read(path: &Path, reconciler: &mut Reconciler) -> Result<(), Failure> {
    use std::io::Read as _;
    let unread = |e: std::io::Error| Failure::file("read export", path, &e);
    let mut file = std::io::BufReader::new(std::fs::File::open(path).map_err(unread)?);
    let most = u64::try_from(ENTRY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(2);
    loop {
        let mut line = String::new();
        if file.by_ref().take(most).read_line(&mut line).map_err(unread)? == 0 {
            return Ok(());
        }
        let has_kind = serde_json::from_str::<Value>(&line).is_ok_and(|line| line.get("kind").is_some());
        if has_kind {
            take(reconciler, line.trim_end_matches('\n'))?;
        }
    }
}

fn document(found: &Reconciled) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "kind": finding.kind.word(), "at": finding.at.to_string(), "entry": finding.entry,
            "host": finding.host.as_ref().map(ToString::to_string),
            "request": finding.request.map(|id| id.to_string()), "serial": finding.serial, "why": finding.why,
        })
    };
    let findings: Vec<Value> = found.findings.iter().map(finding).collect();
    json!({
        "schema": "hallpass.audit-reconcile.v1", "sessions": found.sessions, "reporting": found.reporting,
        "unseen": found.unseen, "findings": findings,
    })
}

fn text(found: &Reconciled) -> String {
    let row = |finding: &Finding| {
        [
            format!("entry {}", finding.entry),
            text_time(finding.at),
            finding.kind.word().to_owned(),
            finding.host.as_ref().map(ToString::to_string).unwrap_or_default(),
            finding.request.map(|id| id.to_string()).unwrap_or_default(),
            escape(&finding.why),
        ]
    };
    let rows: Vec<[String; 6]> = found.findings.iter().map(row).collect();
    let logins = if found.sessions == 1 { "login" } else { "logins" };
    format!("{}{} {logins} looked at: {}\n", render::columns(&rows), found.sessions, sum(found))
}

/// What it comes to, and what could not be looked at.
fn sum(found: &Reconciled) -> String {
    let whole = match found.findings.len() {
        // Of nothing that was looked at, nothing can be said.
        0 if found.reporting == 0 && found.sessions == 0 => "no host reports".to_owned(),
        0 => "everything fits what was granted".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    match found.unseen {
        0 => whole,
        1 => format!("{whole}; 1 certificate could not be looked at (no report of its hosts for all of its time)"),
        count => format!(
            "{whole}; {count} certificates could not be looked at (no report of their hosts for all of their time)"
        ),
    }
}
