//! `hallpass audit export`: the whole log in one file, written as it comes, however long it is.
//!
//! What not: the file's format, and whether entries and checkpoint fit together, are `audit::export`'s.
//!
//! Invariants: the file has its name once all of it is there and has been checked. What an older export says is not believed but checked like
//! what the server sends: the server's checkpoint vouches for all of it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::feed::Format;
use super::list::since;
use super::log_pages::each;
use super::output::{escape, word};
use super::progress::Progress;
use super::sink::{Sink, is_stdout};
use super::{Context, feed};
use crate::audit::checkpoint::{Checkpoint, LogVerifier};
use crate::audit::entry::ENTRY_BYTES_MAX;
use crate::audit::export::{ExportError, Exporter};
use crate::client::Client;
use crate::time::Timestamp;
use crate::wire;

/// Arguments of `hallpass audit export`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExportArgs {
    /// The file, which must not exist; `-` for standard output (the whole log: not on a terminal)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// An older export of this log: only what came since is fetched, and the log must continue it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "format"])]
    earlier: Option<PathBuf>,
    /// Only entries since then: a time (RFC 3339), or how long ago (`7d`). A part does not prove itself
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Timestamp>,
    /// Entries alone, for other programs, without proof; with --since alone: jsonl
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// `hallpass audit export`.
pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    match (args.format, args.since) {
        (None, None) => whole(context, &args.out, args.earlier.as_deref()),
        (format, since) => feed::run(context, &args.out, format.unwrap_or(Format::Jsonl), since),
    }
}

/// Writes the log as of its present checkpoint; to standard output, if that is what `out` stands for and no terminal. Who reads it there checks
/// it.
fn whole(context: &Context, out: &Path, earlier: Option<&Path>) -> Result<(), Failure> {
    let mut sink = Sink::begin_exact(context, out)?;
    let (_, client) = context.connect()?;
    let (head, fetched) = context.block_on(write_lines(context, &client, earlier, |lines| sink.write(lines)))?;
    let document = json!({
        "schema": "hallpass.export.v1", "file": out, "entries": head.size, "fetched": fetched, "log_key": head.log_key,
    });
    sink.finish(context, &document, |place| written(&head, place, (fetched, earlier)))?;
    let file = if is_stdout(out) { "FILE, or - for FILE".to_owned() } else { word(out) };
    context.out.note(&format!("next: hallpass audit verify --key KEY {file}"));
    say_key(context, &head);
    Ok(())
}

/// How many entries were written, in which place, and how many of them are new.
fn written(head: &wire::Checkpoint, place: &str, (fetched, earlier): (u64, Option<&Path>)) -> String {
    let of_those = if earlier.is_some() { format!(", {fetched} of them new") } else { String::new() };
    format!("{} entries{place}{of_those}", head.size)
}

fn say_key(context: &Context, head: &wire::Checkpoint) {
    context.out.note("KEY is the log key that you know from elsewhere than this server; it says of itself:");
    context.out.note(&format!("  {}", escape(&head.log_key)));
}

/// All lines, each written as it comes; gives the checkpoint, and how many entries were fetched.
async fn write_lines(
    context: &Context,
    client: &Client,
    earlier: Option<&Path>,
    mut write: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(wire::Checkpoint, u64), Failure> {
    let (head, key, Checkpoint { size, .. }) = checkpoint(client).await?;
    let (mut exporter, header) = Exporter::new(key);
    write(&header)?;
    if let Some(earlier) = earlier {
        let mut progress = Progress::new(context, "log entries taken over");
        take_over(earlier, (&header, &mut exporter), |size, lines| {
            progress.tell(|| size.to_string());
            write(lines)
        })?;
    }
    let taken_over = exporter.size();
    if taken_over > size {
        return Err(other_log(format!("that has {taken_over} entries, and the server's log has {size}")));
    }
    let take = |entry: &str| write(&exporter.entry(entry.as_bytes()).map_err(|why| unfit(&why))?);
    each(context, client, taken_over, size, take).await?;
    let last = exporter.finish(&head.checkpoint).map_err(|why| match (&why, earlier) {
        (ExportError::Root, Some(_)) => {
            other_log("its checkpoint was not signed for those entries and the ones that were fetched".to_owned())
        }
        _ => unfit(&why),
    })?;
    write(&last)?;
    let fetched = size.saturating_sub(taken_over);
    Ok((head, fetched))
}

/// The log's present checkpoint, whose signature was checked with the key that the server gives.
pub(super) async fn checkpoint(client: &Client) -> Result<(wire::Checkpoint, LogVerifier, Checkpoint), Failure> {
    let head: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
    let key = LogVerifier::parse(&head.log_key).map_err(|e| unfit(&e.into()))?;
    let checkpoint = key.check(&head.checkpoint).map_err(|e| unfit(&e.into()))?;
    if checkpoint.size != head.size {
        return Err(unfit(&ExportError::Size { checkpoint: checkpoint.size, entries: head.size }));
    }
    Ok((head, key, checkpoint))
}

/// One that says something else than the earlier export, which the same key has signed.
fn other_log(why: String) -> Failure {
    Failure::failed("the log does not continue the earlier export")
        .because(why)
        .next("hallpass audit export --out FILE, without --earlier")
        .next("hallpass audit verify --earlier EARLIER FILE, which says where history was rewritten")
}

pub(super) fn unfit(why: &ExportError) -> Failure {
    Failure::failed("the server's log does not fit together").because(why.to_string())
}

/// Hands over the lines of an older export's entries.
fn take_over(
    path: &Path,
    (header, exporter): (&str, &mut Exporter),
    mut write: impl FnMut(u64, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unread = |e: std::io::Error| Failure::file("read the earlier export", path, &e);
    let unusable = |why: String| {
        let what = format!("{:?} is no export of this log to go on from", path.display().to_string());
        Failure::failed(what).because(why)
    };
    let damaged = |why: String| unusable(why).next("hallpass audit verify says what is wrong with it");
    let mut file = BufReader::new(std::fs::File::open(path).map_err(unread)?);
    // One byte more than a line may have, and its end.
    let most = u64::try_from(ENTRY_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(2);
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        file.by_ref().take(most).read_until(b'\n', &mut line).map_err(unread)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            let is_long = line.len() > ENTRY_BYTES_MAX;
            let why = if is_long { "is longer than 1 MiB" } else { "has no end: the file is cut off" };
            return Err(damaged(format!("line {number} {why}")));
        };
        if number == 1 {
            if header.strip_suffix('\n').map(str::as_bytes) != Some(text) {
                let why = "line 1: it is of another log key, or no export".to_owned();
                return Err(unusable(why).next("name an export of this service's log, or leave --earlier out"));
            }
            continue;
        }
        match exporter.earlier_line(text).map_err(|why| damaged(format!("line {number}: {why}")))? {
            Some(lines) => write(exporter.size(), &lines)?,
            // Its checkpoint, over just what was taken over.
            None if file.fill_buf().map_err(unread)?.is_empty() => break,
            None => return Err(damaged(format!("line {number}: more follows the checkpoint"))),
        }
    }
    Ok(())
}
