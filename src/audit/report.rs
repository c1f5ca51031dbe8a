//! The log for people and programs: what a verification shows, and how entries look in `audit tail|search|show`.
//!
//! What not: no arguments and no output (`cli/audit.rs`); input comes as a reader, reports leave as text.
//!
//! Invariants: a report says whose key it believed, since a file that vouches for itself proves little; no character of an entry
//! reaches a terminal unescaped.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::io::BufRead;

use serde_json::{Value, json};

use super::approvals::Signers;
use super::checkpoint::{Checkpoint, LogVerifier};
use super::entry::Entry;
use super::export::{self, Finding, Loss, Verified};
use super::{TimeText, text_time};

/// What a verification shows: for people, for programs, and whether the log is sound (exit code 0) or not (1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For people, several lines, each ended.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Whether nothing was found.
    pub is_sound: bool,
}

/// A key or checkpoint on the command line that is none: exit code 2.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum UsageError {
    /// `--key`.
    #[error("{0:?} is not a log key like hallpass.example.com/log+1a2b3c4d+AbCd…")]
    Key(String),
    /// `--earlier`.
    #[error("the earlier checkpoint is no signed checkpoint, nor the last line of an export")]
    Earlier,
    /// `--signers`.
    #[error("the list of signers: {0}")]
    Signers(String),
}

/// What an auditor brings along and demands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands<'a> {
    /// The verifier key that they got elsewhere.
    pub key: Option<&'a str>,
    /// A checkpoint kept from before: the signed note itself, or the last line of an older export.
    pub earlier: Option<&'a str>,
    /// Whether every approval must be signed.
    pub signed: bool,
    /// Whose keys are whose: lines as in OpenSSH's `allowed_signers`. Approvals signed by others are found.
    pub signers: Option<&'a str>,
}

/// Verifies an export.
///
/// # Errors
/// [`UsageError`]; everything that is wrong with the export itself is in the report.
pub fn verify(input: impl BufRead, demands: Demands<'_>) -> Result<Report, UsageError> {
    verify_showing(input, demands, &mut |_| ()).map(|(report, _)| report)
}

/// As [`verify`]; `seen` is shown each entry as it comes. Also gives what a sound export shows; of another one what `seen` made of the entries
/// counts for nothing.
///
/// # Errors
/// As [`verify`].
pub fn verify_showing(
    input: impl BufRead,
    demands: Demands<'_>,
    seen: &mut (dyn FnMut(&Entry) + Send),
) -> Result<(Report, Option<Verified>), UsageError> {
    let Demands { key, earlier, signed, signers } = demands;
    let wrong = |text: &str| UsageError::Key(text.chars().take(80).collect());
    let given = key.map(|text| LogVerifier::parse(text.trim()).map_err(|_| wrong(text))).transpose()?;
    let earlier = earlier.map(note_of).transpose()?;
    let signers = signers.map(Signers::parse).transpose().map_err(UsageError::Signers)?;
    let verified = export::verify_showing(input, given.as_ref(), earlier.as_deref(), seen).and_then(|verified| {
        let findings = verified.approvals.findings(signed, signers.as_ref());
        if findings.is_empty() { Ok(verified) } else { Err(findings) }
    });
    Ok(match verified {
        Ok(verified) => (sound(&verified, demands, earlier.as_deref()), Some(verified)),
        Err(findings) => (unsound(&findings, given.as_ref()), None),
    })
}

/// The signed note of an earlier checkpoint, however it was kept: as such, or as the last line of an export. Its signature is not looked at.
///
/// # Errors
/// [`UsageError::Earlier`].
pub fn note_of(text: &str) -> Result<String, UsageError> {
    let note = if text.trim_start().starts_with('{') {
        let line: Value = serde_json::from_str(text).map_err(|_| UsageError::Earlier)?;
        line.get("checkpoint").and_then(Value::as_str).ok_or(UsageError::Earlier)?.to_owned()
    } else {
        text.to_owned()
    };
    Checkpoint::claimed(&note).map(|_| note).map_err(|_| UsageError::Earlier)
}

pub(super) const UNVOUCHED: &str = "the key is the file's own: whoever made the file could have chosen it. compare it with one that you got \
                         elsewhere, or give that one as --key";

const UNKNOWN_SIGNERS: &str = "the keys that signed are those that the log names: compare them with the policy, or give your own list as --signers\n";

fn sound(verified: &Verified, demands: Demands<'_>, earlier: Option<&str>) -> Report {
    let Verified { entries, checkpoint, key, span, certificates, without_outcome, approvals, losses } = verified;
    let is_given = demands.key.is_some();
    let (first, last) = span;
    let root = data_encoding::HEXLOWER.encode(&checkpoint.root);
    let earlier = earlier.and_then(|note| Checkpoint::claimed(note).ok()).map(|earlier| earlier.size);
    let open: Vec<u64> = without_outcome.iter().map(|serial| serial.number()).collect();

    let continues = match earlier {
        Some(size) => format!("the log continues the one of {size} entries that you kept"),
        None => "none given; keep this one to show later that nothing was rewritten".to_owned(),
    };
    let outcome = match open.as_slice() {
        [] => "all signed".to_owned(),
        some => format!("no outcome recorded for {some:?}: perhaps handed out, perhaps not"),
    };
    let mut text = format!(
        "the log is sound: {entries} entries, {} to {}\n\
         \x20 log           {}\n\
         \x20 key           {}\n\
         \x20 trusted       {}\n\
         \x20 checkpoint    {entries} entries, root {root}\n\
         \x20 earlier       {continues}\n\
         \x20 certificates  {certificates}, {outcome}\n",
        text_time(*first),
        text_time(*last),
        key.origin(),
        key.to_text(),
        if is_given { "as given by you" } else { "nobody vouched for this key" },
    );
    for (name, fact) in approvals.lines() {
        text.push_str(&format!("  {name:<12}  {fact}\n"));
    }
    for loss in losses {
        let (range, entry, sentence) = (loss.range(), loss.entry, &loss.sentence);
        text.push_str(&format!("  lost          {range}, given up in entry {entry}: {sentence}\n"));
    }
    if approvals.signed() > 0 && demands.signers.is_none() {
        text.push_str(UNKNOWN_SIGNERS);
    }
    if !is_given {
        text.push_str("warning: ");
        text.push_str(UNVOUCHED);
        text.push('\n');
    }
    let json = json!({
        "schema": "hallpass.audit-verify.v1",
        "sound": true,
        "entries": entries,
        "first": first.to_string(),
        "last": last.to_string(),
        "log": key.origin(),
        "key": key.to_text(),
        "key_given": is_given,
        "root": root,
        "earlier": earlier,
        "certificates": certificates,
        "without_outcome": open,
        "approvals": approvals.json(),
        "lost": losses.iter().map(lost).collect::<Vec<Value>>(),
        "signers_given": demands.signers.is_some(),
        "findings": [],
    });
    Report { text, json, is_sound: true }
}

fn lost(loss: &Loss) -> Value {
    let heads: Vec<Value> = loss
        .heads
        .iter()
        .map(|head| json!({ "entries": head.size, "root": data_encoding::HEXLOWER.encode(&head.root) }))
        .collect();
    let (first, last) = loss.lost.unzip();
    json!({ "kept": loss.kept, "first": first, "last": last, "entry": loss.entry, "heads": heads, "text": loss.sentence })
}

fn unsound(findings: &[Finding], given: Option<&LogVerifier>) -> Report {
    let count = findings.len();
    let (noun, more) = match count {
        1 => ("finding", ""),
        100.. => ("findings", ", and perhaps more"),
        _ => ("findings", ""),
    };
    let mut text = format!("the log is NOT sound: {count} {noun}{more}\n");
    for Finding { line, entry, kind, what } in findings {
        let entry = entry.map(|entry| format!(", entry {entry}")).unwrap_or_default();
        text.push_str(&format!("  line {line}{entry}: {}: {what}\n", kind.word()));
    }
    text.push_str(
        "the first finding is nearest to the cause; compare with another copy of the log before you conclude\n",
    );
    let list: Vec<Value> = findings
        .iter()
        .map(|Finding { line, entry, kind, what }| {
            json!({ "line": line, "entry": entry, "kind": kind.word(), "what": what })
        })
        .collect();
    let json = json!({
        "schema": "hallpass.audit-verify.v1",
        "sound": false,
        "key": given.map(LogVerifier::to_text),
        "key_given": given.is_some(),
        "findings": list,
    });
    Report { text, json, is_sound: false }
}

/// One line for `audit tail` and `audit search`, without a line end.
#[must_use]
pub fn line(entry: &Entry) -> String {
    line_in(entry, &text_time)
}

/// The same, with times written so.
#[must_use]
pub fn line_in(entry: &Entry, time: TimeText<'_>) -> String {
    format!("{:>6}  {}  {}", entry.index, time(entry.at), entry.event.sentence_in(time))
}

/// An entry as one JSON document: `entry` is the logged object itself; the other members are for reading.
#[must_use]
pub fn document(entry: &Entry) -> Value {
    let bytes = entry.to_bytes();
    json!({
        "schema": "hallpass.audit-entry.v1",
        "index": entry.index,
        "at": entry.at.to_string(),
        "kind": entry.event.kind(),
        "request": entry.event.request().map(|id| id.to_string()),
        "text": entry.event.sentence(),
        "leaf_hash": data_encoding::HEXLOWER.encode(&Entry::leaf_hash(&bytes)),
        "entry": serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
    })
}

/// All of an entry for `audit show`, several lines.
#[must_use]
pub fn details(entry: &Entry) -> String {
    let bytes = entry.to_bytes();
    let mut text = format!("{}\n", line(entry));
    text.push_str(&format!("  {:<12}  {}\n", "leaf hash", data_encoding::HEXLOWER.encode(&Entry::leaf_hash(&bytes))));
    if let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(&bytes) {
        for (name, value) in &members {
            text.push_str(&format!("  {name:<12}  {}\n", shown(name, value)));
        }
    }
    text
}

/// A member's value, escaped, and to-be-signed bytes by their length only: the certificate's own members say what is in them.
fn shown(name: &str, value: &Value) -> String {
    match value {
        Value::String(bytes) if name == "tbs" => format!("{} characters of base64", bytes.len()),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown("", item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) if name == "signature" => {
            let member = |name: &str| members.get(name).map(|value| shown(name, value)).unwrap_or_default();
            format!("by {} for {} at {}", member("key"), member("server"), member("signed"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
