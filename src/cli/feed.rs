//! `hallpass audit export --since T --format jsonl|csv|cef`: entries alone, for spreadsheets and for what collects security events.
//!
//! What for: what is new, day by day, as other programs read it. What not: how a line looks is `audit::feed`'s; and what is written here proves
//! nothing to anybody else, which is said each time.
//!
//! Invariant: nothing is called whole that the log's signed checkpoint does not cover: the entries are checked as those of the whole export
//! are, from the last one before the time that was asked for, so that none is missing at either end.

use std::path::Path;

use serde_json::json;

use super::failure::Failure;
use super::log_pages::{each, first};
use super::output::{self, escape, local_time};
use super::sink::Sink;
use super::{Context, audit, export};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::entry::Entry;
use crate::audit::export::ExportError;
use crate::audit::feed::{cef, csv};
use crate::audit::report;
use crate::audit::stretch::Stretch;
use crate::client::Client;
use crate::time::Timestamp;
use crate::wire;

/// How entries are written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// One JSON document per line, as `audit tail --jsonl` prints it
    Jsonl,
    /// For a spreadsheet (RFC 4180), with a line of column names
    Csv,
    /// For what collects security events (Common Event Format, CEF:0)
    Cef,
}

impl Format {
    const fn word(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Cef => "cef",
        }
    }

    /// What stands before all entries.
    const fn head(self) -> &'static str {
        match self {
            Self::Csv => csv::HEAD,
            Self::Jsonl | Self::Cef => "",
        }
    }

    fn line(self, entry: &Entry) -> Result<String, Failure> {
        match self {
            Self::Jsonl => output::json_line(&report::document(entry)),
            Self::Csv => Ok(csv::line(entry, escape)),
            Self::Cef => Ok(cef::line(entry, env!("CARGO_PKG_VERSION"), escape)),
        }
    }
}

/// Writes the entries since then, or all of them.
pub(super) fn run(context: &Context, out: &Path, format: Format, since: Option<Timestamp>) -> Result<(), Failure> {
    let mut sink = Sink::begin(context, out)?;
    let (_, client) = context.connect()?;
    let (first, size) = context.block_on(write_lines(context, &client, (format, since), |line| sink.write(line)))?;
    let entries = size.saturating_sub(first);
    let document = json!({
        "schema": "hallpass.feed.v1", "file": out, "format": format.word(), "since": since.map(|since| since.to_string()),
        "first": (entries > 0).then_some(first), "entries": entries, "log_entries": size,
    });
    let of_those = since.map(|since| format!(", those since {}", local_time(since))).unwrap_or_default();
    sink.finish(context, &document, |place| format!("{entries} entries{place}{of_those}"))?;
    context.out.note("these lines prove nothing by themselves; the whole log does: hallpass audit export --out FILE");
    Ok(())
}

/// All lines, each written as it comes; gives the number of the first entry, and how many the log has.
async fn write_lines(
    context: &Context,
    client: &Client,
    (format, since): (Format, Option<Timestamp>),
    mut write: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(u64, u64), Failure> {
    let (_, _, checkpoint) = export::checkpoint(client).await?;
    let size = checkpoint.size;
    let begin = match since {
        Some(since) => first(client, size, |text| Ok(parsed(text)?.at >= since)).await?,
        None => 0,
    };
    // One earlier, to know that it is older.
    let from = begin.saturating_sub(1);
    let mut stretch = stretch(client, &checkpoint, from).await?;
    write(format.head())?;
    let take = |text: &str| {
        let entry = stretch.entry(text.as_bytes()).map_err(|why| export::unfit(&why))?;
        let is_new = since.is_none_or(|since| entry.at >= since);
        if is_new != (entry.index >= begin) {
            return Err(Failure::failed("the server's log does not fit together")
                .because(format!("entry {} is of {}, and its neighbours are not", entry.index, entry.at)));
        }
        if is_new { write(&format.line(&entry)?) } else { Ok(()) }
    };
    each(context, client, from, size, take).await?;
    stretch.finish().map_err(|why| export::unfit(&why))?;
    Ok((begin, size))
}

/// What checks the entries from this one on.
async fn stretch(client: &Client, checkpoint: &Checkpoint, from: u64) -> Result<Stretch, Failure> {
    let hashes = if from == 0 {
        Vec::new()
    } else {
        let proof: wire::Proof = client.get(&format!("/v1/log/proof?index={from}&size={}", checkpoint.size)).await?;
        audit::hashes(&proof).ok_or_else(|| export::unfit(&ExportError::Root))?
    };
    Stretch::new(checkpoint, from, &hashes).map_err(|why| export::unfit(&why))
}

fn parsed(text: &str) -> Result<Entry, Failure> {
    Entry::parse(text.as_bytes())
        .map_err(|why| Failure::failed("an entry of the log cannot be read").because(why.to_string()))
}
