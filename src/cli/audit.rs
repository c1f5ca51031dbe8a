//! `hallpass audit …`: reads the service's log and proves what it shows; `verify` checks an export, offline.
//!
//! What not: what is sound and how an entry reads is `audit::{verify, report}`; here are arguments, calls and files. `export`, `reconcile` and
//! `report` have files of their own.
//!
//! Invariant: `show` checks what the server sent before it shows it (and `export.rs` before a file has its name).

use std::io::BufRead;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::log_pages::{entries, fitting};
use super::output::{escape, local_time};
use super::{Context, export, follow, reconcile, report as period_report};
use crate::audit::checkpoint::{LogVerifier, newest};
use crate::audit::entry::Entry;
use crate::audit::report;
use crate::audit::search::Search;
use crate::audit::tree::{Hash, verify_inclusion};
use crate::audit::{TimeText, text_time};
use crate::time::{Clock as _, SystemClock};
use crate::wire;

/// The longest key or checkpoint that is read from the command line or a file.
const SMALL_BYTES_MAX: u64 = 64 * 1024;

/// What an export begins with.
const EXPORT_BEGINS: &[u8] = b"{\"hallpass_log\"";

/// The longest list of signers: as long as a policy may be, which has all of their keys.
const SIGNERS_BYTES_MAX: u64 = 8 << 20;

/// `hallpass audit …`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the last entries
    Tail {
        /// How many
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
        count: u64,
        /// Go on with what is added, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the entries for which all of these terms hold
    ///
    /// Terms: `person:alice`, `host:web-1`, `account:root`, `request:7K3F`, `kind:granted`, `serial:12`, `policy:3`,
    /// `since:2026-01-05`, `until:2h` (ago); any other word is looked for in the entry's sentence.
    Search {
        /// `KEY:VALUE`, or a word
        #[arg(required = true, value_name = "TERM")]
        terms: Vec<String>,
    },
    /// Print one entry, with the proof that the signed checkpoint covers it
    Show {
        /// Its number
        #[arg(value_name = "INDEX")]
        index: u64,
    },
    /// Write the whole log with its signed checkpoint into a file; or, for other programs, entries alone
    ///
    /// Without `--since` and `--format` the file proves itself: `audit verify` checks it, offline. With either it has entries and no proof, for a
    /// spreadsheet or for what collects the events of a house.
    Export(export::ExportArgs),
    /// Verify an export, offline
    Verify(VerifyArgs),
    /// Hold the logins that hosts report against what was granted
    ///
    /// Names logins without a request, outside the grant (host, account, window), after the end, and grants that nobody used. Exit code 1
    /// if there are any.
    Reconcile(reconcile::ReconcileArgs),
    /// Make a folder of evidence on a period, from an export, offline
    ///
    /// Verifies the export as `verify` does, and makes nothing of one that is not sound. The folder has a page to begin with (summary.md), tables of
    /// all requests, certificates, sessions, exceptions, policies and hosts of the period (CSV), and with `--sample` a page for each request
    /// that the seed chooses. The same export and arguments make the same files.
    Report(period_report::ReportArgs),
}

/// Arguments of `hallpass audit verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The export, or `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The log key you trust, as you got it elsewhere; without it the file's own is believed, and the report says so
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// A checkpoint you kept from before, which the log must continue: an older export or its last line, or a signed note
    #[arg(long, value_name = "FILE")]
    earlier: Option<PathBuf>,
    /// Every approval must be signed by its approver: name those that are not
    #[arg(long)]
    signed: bool,
    /// Whose keys are whose, as you know it: lines of `NAME KEY` as in ssh's `allowed_signers`. Approvals signed by other keys are found
    #[arg(long, value_name = "FILE")]
    signers: Option<PathBuf>,
}

impl AuditCommand {
    /// Whether it goes on until Ctrl-C.
    pub(crate) const fn is_endless(&self) -> bool {
        matches!(self, Self::Tail { follow: true, .. })
    }
}

/// Runs one of them.
pub(crate) fn run(context: &Context, command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Tail { count, follow } => follow::tail(context, *count, *follow),
        AuditCommand::Search { terms } => search(context, terms),
        AuditCommand::Show { index } => show(context, *index),
        AuditCommand::Export(args) => export::run(context, args),
        AuditCommand::Verify(args) => verify(context, args),
        AuditCommand::Reconcile(args) => reconcile::run(context, args),
        AuditCommand::Report(args) => period_report::run(context, args),
    }
}

/// One canonical entry, as the server sent it, on one line. Times as in the log itself, and in what is made of it.
pub(crate) fn line(entry: &str) -> String {
    line_in(entry, &text_time)
}

/// The same for who reads about a request: times as on their own clock, like those around it.
pub(crate) fn local_line(entry: &str) -> String {
    line_in(entry, &local_time)
}

fn line_in(entry: &str, time: TimeText<'_>) -> String {
    match Entry::parse(entry.as_bytes()) {
        Ok(entry) => report::line_in(&entry, time),
        // Of a newer service: better shown as it is than not at all.
        Err(_) => format!("     ?  {}", escape(entry)),
    }
}

fn verify(context: &Context, args: &VerifyArgs) -> Result<(), Failure> {
    let report = with_export(args, |input, demands| report::verify(input, demands).map_err(|why| wrong_usage(&why)))?;
    if report.is_sound {
        return context.out.answer(&report.json, &report.text);
    }
    Err(unsound(context, &report)?)
}

/// Hands over an export to be verified, and what is demanded of it.
pub(super) fn with_export<T>(
    args: &VerifyArgs,
    take: impl FnOnce(&mut dyn BufRead, report::Demands<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let earlier = args.earlier.as_deref().map(read_checkpoint).transpose()?;
    let earlier = earlier.map(|text| newest(&text));
    let signers =
        args.signers.as_deref().map(|path| read_up_to("list of signers", path, SIGNERS_BYTES_MAX)).transpose()?;
    let (key, earlier, signers) = (args.key.as_deref(), earlier.as_deref(), signers.as_deref());
    let demands = report::Demands { key, earlier, signed: args.signed, signers };
    if args.file.as_os_str() == "-" {
        return take(&mut std::io::stdin().lock(), demands);
    }
    let unread = |e: std::io::Error| Failure::file("read export", &args.file, &e);
    let mut file = std::io::BufReader::new(std::fs::File::open(&args.file).map_err(unread)?);
    // A folder, say: what can't be read at all says nothing about the log.
    file.fill_buf().map_err(unread)?;
    take(&mut file, demands)
}

pub(super) fn wrong_usage(why: &report::UsageError) -> Failure {
    Failure::usage(why.to_string())
}

/// Prints what was found in an export, and says that it is not sound.
pub(super) fn unsound(context: &Context, report: &report::Report) -> Result<Failure, Failure> {
    context.out.answer(&report.json, &report.text)?;
    let found = report.json.get("findings").and_then(Value::as_array).map_or(0, Vec::len);
    Ok(Failure::new(Exit::Failed, "log_not_sound", "the log is not sound")
        .because(format!("findings: {found}"))
        .next("compare with another export, and with the checkpoints that you kept"))
}

/// Reads a checkpoint that somebody kept; of a whole export the last line.
pub(super) fn read_checkpoint(path: &Path) -> Result<String, Failure> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let unread = |e: std::io::Error| Failure::file("read checkpoint", path, &e);
    let mut file = std::fs::File::open(path).map_err(unread)?;
    let mut begin = Vec::new();
    let most = u64::try_from(EXPORT_BEGINS.len()).unwrap_or(u64::MAX);
    file.by_ref().take(most).read_to_end(&mut begin).map_err(unread)?;
    if begin != EXPORT_BEGINS {
        // (perhaps a pipe, which can't be read twice)
        return text_of("checkpoint", path, begin.as_slice().chain(file), SMALL_BYTES_MAX);
    }
    let length = file.seek(SeekFrom::End(0)).map_err(unread)?;
    file.seek(SeekFrom::Start(length.saturating_sub(SMALL_BYTES_MAX))).map_err(unread)?;
    let mut end = Vec::new();
    file.take(SMALL_BYTES_MAX).read_to_end(&mut end).map_err(unread)?;
    let last = end.strip_suffix(b"\n").and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    let last = last.ok_or_else(|| cut_off(path))?;
    Ok(format!("{}\n", String::from_utf8_lossy(last)))
}

fn cut_off(path: &Path) -> Failure {
    Failure::failed(format!("{:?} is cut off", path.display().to_string()))
        .because("an export ends with a whole line, which is its checkpoint")
        .next("name another export, or a checkpoint that you kept")
}

/// Reads a text file of at most so many bytes.
fn read_up_to(what: &str, path: &Path, most: u64) -> Result<String, Failure> {
    let file = std::fs::File::open(path).map_err(|e| Failure::file(&format!("read {what}"), path, &e))?;
    text_of(what, path, file, most)
}

fn text_of(what: &str, path: &Path, file: impl std::io::Read, most: u64) -> Result<String, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    file.take(most.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|e| Failure::file(&format!("read {what}"), path, &e))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > most {
        return Err(Failure::failed(format!("{:?} is too long for a {what}", path.display().to_string())));
    }
    Ok(text)
}

fn search(context: &Context, terms: &[String]) -> Result<(), Failure> {
    let search = Search::parse(&terms.join(" "), SystemClock.now()).map_err(|e| Failure::usage(e.to_string()))?;
    let fits = |text: &str| Entry::parse(text.as_bytes()).is_ok_and(|entry| search.matches(&entry));
    let (_, client) = context.connect()?;
    let found = context.block_on(async {
        let head: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
        fitting(context, &client, head.size, fits).await
    })?;
    print(context, &found, "no entry holds all of this\n")
}

pub(super) fn print(context: &Context, entries: &[String], none: &str) -> Result<(), Failure> {
    let lines: String = entries.iter().map(|entry| format!("{}\n", line(entry))).collect();
    let documents: Vec<Value> =
        entries.iter().filter_map(|entry| Entry::parse(entry.as_bytes()).ok()).map(|e| report::document(&e)).collect();
    let document = json!({ "schema": "hallpass.entries.v1", "entries": documents });
    context.out.answer(&document, if lines.is_empty() { none } else { &lines })
}

/// One entry, its inclusion proof checked against the signed checkpoint.
fn show(context: &Context, index: u64) -> Result<(), Failure> {
    let (_, client) = context.connect()?;
    let (text, head, proof) = context.block_on(async {
        let head: wire::Checkpoint = client.get("/v1/log/checkpoint").await?;
        if index >= head.size {
            return Err(Failure::failed(format!("there is no entry {index}"))
                .because(format!("the log has {} entries", head.size)));
        }
        let entry = entries(&client, index, index.saturating_add(1)).await?.pop().unwrap_or_default();
        let proof: wire::Proof = client.get(&format!("/v1/log/proof?index={index}&size={}", head.size)).await?;
        Ok((entry, head, proof))
    })?;
    let broken = |why: String| Failure::failed(format!("entry {index} is not proven to be in the log")).because(why);
    let verifier = LogVerifier::parse(&head.log_key).map_err(|e| broken(e.to_string()))?;
    let checkpoint = verifier.check(&head.checkpoint).map_err(|e| broken(e.to_string()))?;
    let hashes = hashes(&proof).ok_or_else(|| broken("the proof is not made of hashes".to_owned()))?;
    let leaf = Entry::leaf_hash(text.as_bytes());
    if !verify_inclusion(&leaf, index, checkpoint.size, &hashes, &checkpoint.root) {
        return Err(broken("the proof does not lead to the signed root".to_owned()));
    }
    let entry = Entry::parse(text.as_bytes()).map_err(|why| broken(why.to_string()))?;
    let mut document = report::document(&entry);
    if let Value::Object(members) = &mut document {
        members.insert("proof".to_owned(), json!(proof.proof));
        members.insert("checkpoint".to_owned(), json!(head.checkpoint));
        members.insert("log_key".to_owned(), json!(head.log_key));
    }
    let proven = format!(
        "{}proven: in the log of {} entries whose checkpoint is signed by {}",
        report::details(&entry),
        checkpoint.size,
        escape(&head.log_key),
    );
    context.out.answer(&document, &proven)
}

/// The hashes of a proof; `None` if it has something else.
pub(super) fn hashes(proof: &wire::Proof) -> Option<Vec<Hash>> {
    let hash = |hex: &String| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().and_then(|b| Hash::try_from(b).ok());
    proof.proof.iter().map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable;

    #[test]
    fn of_an_export_however_long_the_last_line_is_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let read = |text: &str| {
            durable::replace(&path, text.as_bytes(), 0o600).unwrap();
            read_checkpoint(&path)
        };
        let lines = "{\"at\":1}\n".repeat(20_000);
        for lines in ["", &lines] {
            let text = format!("{{\"hallpass_log\":1}}\n{lines}{{\"checkpoint\":\"x\"}}\n");
            assert_eq!(read(&text).unwrap(), "{\"checkpoint\":\"x\"}\n");
            assert!(read(text.trim_end()).unwrap_err().what.contains("cut off"));
        }
        assert_eq!(read("a note\n\n").unwrap(), "a note\n\n");
        assert!(read(&lines).unwrap_err().what.contains("too long"));
        assert!(read_checkpoint(&folder.path().join("none")).is_err());
    }
}
