//! The first page of a report, and what the command says of it: counts that add up, what the report was made of, and how to make it again.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::counts::Counts;
use super::exceptions::Kind;
use super::requests::Outcome;
use super::table::{md, md_table};
use super::{Plan, Source};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::report::{UNVOUCHED, note_of};
use crate::audit::text_time;
use crate::name::RequestId;
use crate::time::Timestamp;

/// A table of the report.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) name: &'static str,
    what: &'static str,
    pub(super) text: String,
    rows: usize,
}

impl Listed {
    pub(super) fn new(name: &'static str, what: &'static str, (text, rows): (String, usize)) -> Self {
        Self { name, what, text, rows }
    }
}

/// All that the first page is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: &'a Source<'a>,
    pub(super) counts: &'a Counts,
    pub(super) listed: &'a [Listed],
    pub(super) sampled: &'a [RequestId],
}

impl Summary<'_> {
    /// `summary.md`.
    pub(super) fn page(&self) -> String {
        let Plan { period, .. } = self.plan;
        let mut text = format!("# SSH access in {}\n\n{}\n", period.name(), self.made_of());
        text.push_str(
            "What the log wrote in the period is told here, by the log's own times; what became of a request that was asked for in it, as far \
             as the log goes. Entries are named by their numbers in the log: `hallpass audit show NUMBER`.\n\n",
        );
        text.push_str(&self.sums());
        text.push_str(&self.exceptions());
        text.push_str(&self.files());
        text.push_str(&self.sample());
        text.push_str(&format!(
            "## The same again\n\nThe same export, the same arguments and the same version of the program make the same files, byte for byte:\n\n    {}\n    sha256sum -c SHA256SUMS\n",
            self.command()
        ));
        text
    }

    /// What the report was made of, and how far that can be trusted.
    fn made_of(&self) -> String {
        let Source { verified, sha256, demands } = self.source;
        let (first, last) = verified.span;
        let hex = |hash: &[u8; 32]| data_encoding::HEXLOWER.encode(hash);
        let key = match demands.key {
            Some(_) => "the key was given by who made this report",
            None => {
                "NO: nobody vouched for this key. It is the file's own, and whoever made the file could have chosen it"
            }
        };
        let earlier = match self.earlier() {
            Some(size) => format!("the log continues the one of {size} entries that was kept from before"),
            None => "none was given".to_owned(),
        };
        let (from, to) = (self.plan.period.from(), self.plan.period.to());
        let rows = [
            ("Period", format!("{} up to, and not in it, {}", text_time(from), text_time(to))),
            ("Covered", self.covered()),
            ("Log", verified.key.origin().to_owned()),
            ("Log key", verified.key.to_text()),
            ("Trusted", key.to_owned()),
            ("Sound", format!("{} entries, {} to {}", verified.entries, text_time(first), text_time(last))),
            ("Checkpoint", format!("{} entries, root {}", verified.checkpoint.size, hex(&verified.checkpoint.root))),
            ("Earlier checkpoint", earlier),
            ("Export", format!("SHA-256 {}", hex(sha256))),
            ("Made by", concat!("hallpass ", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        md_table(["", ""], rows.map(|(name, fact)| [name.to_owned(), md(&fact)]))
    }

    fn earlier(&self) -> Option<u64> {
        let note = self.source.demands.earlier.and_then(|text| note_of(text).ok())?;
        Checkpoint::claimed(&note).ok().map(|claimed| claimed.size)
    }

    /// The last moment that the report can tell of, if that is before the period's end.
    fn cut_off(&self) -> Option<Timestamp> {
        let (_, last) = self.source.verified.span;
        Some(last).filter(|last| *last < self.plan.period.to())
    }

    fn covered(&self) -> String {
        match self.cut_off() {
            None => "the whole period".to_owned(),
            Some(last) => {
                format!("up to {}, where the log ends: what came later in the period is not here", text_time(last))
            }
        }
    }

    fn sums(&self) -> String {
        let counts = self.counts;
        let (before, after) = counts.hosts;
        let unseen = match counts.unseen {
            0 => String::new(),
            count => format!(
                "\n- without a login, of which nothing can be said, since their hosts did not report all the while: {count}"
            ),
        };
        let lines = [
            (
                "Requests",
                format!(
                    "{}\n- {}\n- refused by policy at once, so that there is no request: {}",
                    counts.asked_sum(),
                    counts.granted_sum(),
                    counts.refused
                ),
            ),
            (
                "Certificates",
                format!(
                    "{}\n- of those without an entry that says whether they were signed: {}{unseen}",
                    counts.certificates_sum(),
                    counts.without_outcome
                ),
            ),
            ("Sessions", counts.sessions_sum()),
            (
                "Policy and hosts",
                format!(
                    "policy versions applied: {}\n- hosts enrolled where the period begins: {before}, and where it ends: {after}",
                    counts.policies
                ),
            ),
        ];
        lines.map(|(head, lines)| format!("## {head}\n\n- {lines}\n\n")).concat()
    }

    fn exceptions(&self) -> String {
        let long = self.plan.long.to_string();
        let row = |kind: Kind| {
            [
                format!("`{}`", kind.word()),
                self.counts.exceptions_of(kind).to_string(),
                md(&kind.meaning().replace("LONG", &long)),
            ]
        };
        let none = "**There are no exceptions in this period.**\n\n";
        let none = if self.counts.all_exceptions() == 0 { none } else { "" };
        format!(
            "## Exceptions\n\n{none}{}\nNobody approved their own request: of a log in which somebody did there is no report.\n\n",
            md_table(["Kind", "Count", "What it is"], Kind::ALL.map(row))
        )
    }

    fn files(&self) -> String {
        let row = |listed: &Listed| [listed.name.to_owned(), listed.rows.to_string(), listed.what.to_owned()];
        format!("## Files\n\n{}\n", md_table(["File", "Rows", "What it has"], self.listed.iter().map(row)))
    }

    fn sample(&self) -> String {
        let Some(sample) = &self.plan.sample else { return String::new() };
        let pages: Vec<String> = self.sampled.iter().map(|id| format!("- [{id}](sample/{id}.md)\n")).collect();
        format!(
            "## Sample\n\n{} of {} requests, by the seed {}: those whose SHA-256 over the seed, a blank and the id is the smallest.\n\n{}\n",
            self.sampled.len(),
            self.counts.asked,
            md(sample.seed()),
            pages.concat()
        )
    }

    /// The command that makes the same report.
    fn command(&self) -> String {
        let Source { demands, .. } = self.source;
        let mut words =
            format!("hallpass audit report --period {} --longer-than {}", self.plan.period.name(), self.plan.long);
        if let Some(sample) = &self.plan.sample {
            words.push_str(&format!(" --sample {} --seed {}", sample.size(), quoted(sample.seed())));
        }
        if demands.key.is_some() {
            words.push_str(&format!(" --key {}", quoted(&self.source.verified.key.to_text())));
        }
        for (is_given, word) in [
            (demands.earlier.is_some(), " --earlier EARLIER"),
            (demands.signed, " --signed"),
            (demands.signers.is_some(), " --signers SIGNERS"),
        ] {
            words.push_str(if is_given { word } else { "" });
        }
        format!("{words} --out FOLDER EXPORT")
    }

    /// For people at a terminal.
    pub(super) fn text(&self) -> String {
        let Source { verified, sha256, demands } = self.source;
        let counts = self.counts;
        let hex = |hash: &[u8; 32]| data_encoding::HEXLOWER.encode(hash);
        let exceptions = match counts.all_exceptions() {
            0 => "none".to_owned(),
            count => format!("{count}, of {} kinds", counts.exceptions.len()),
        };
        let mut lines = vec![
            ("of those", counts.granted_sum()),
            ("refused", format!("{} by policy at once", counts.refused)),
            ("certificates", counts.certificates_sum()),
            ("sessions", counts.sessions_sum()),
            ("exceptions", exceptions),
        ];
        if self.plan.sample.is_some() {
            lines.push(("sample", format!("{} of {} requests", self.sampled.len(), counts.asked)));
        }
        lines.push(("covered", self.covered()));
        lines.push((
            "checkpoint",
            format!("{} entries, root {}", verified.checkpoint.size, hex(&verified.checkpoint.root)),
        ));
        lines.push(("export", format!("SHA-256 {}", hex(sha256))));
        lines.push((
            "trusted",
            if demands.key.is_some() { "as given by you" } else { "nobody vouched for this key" }.to_owned(),
        ));
        let lines: String = lines.iter().map(|(name, fact)| format!("  {name:<12}  {fact}\n")).collect();
        let warning = if demands.key.is_some() { String::new() } else { format!("warning: {UNVOUCHED}\n") };
        format!("{}: {}\n{lines}{warning}", self.plan.period.name(), counts.asked_sum())
    }

    /// For programs; without the names of the files.
    pub(super) fn json(&self) -> Value {
        let Source { verified, sha256, demands } = self.source;
        let (counts, period) = (self.counts, &self.plan.period);
        let hex = |hash: &[u8; 32]| data_encoding::HEXLOWER.encode(hash);
        let outcomes: BTreeMap<&str, usize> =
            Outcome::ALL.into_iter().map(|one| (one.word(), counts.outcome(one))).collect();
        let exceptions: BTreeMap<&str, usize> =
            Kind::ALL.into_iter().map(|kind| (kind.word(), counts.exceptions_of(kind))).collect();
        json!({
            "schema": "hallpass.audit-report.v1",
            "period": { "name": period.name(), "from": period.from().to_string(), "to": period.to().to_string() },
            "cut_off": self.cut_off().map(|last| last.to_string()),
            "requests": { "asked": counts.asked, "granted": counts.granted(), "refused": counts.refused, "outcomes": outcomes },
            "certificates": {
                "person": counts.person, "extension": counts.extension, "host": counts.host, "check": counts.check,
                "without_outcome": counts.without_outcome, "unseen": counts.unseen,
            },
            "sessions": { "opened": counts.sessions, "ended": counts.ended },
            "exceptions": exceptions,
            "sample": self.sampled.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "log": verified.key.origin(),
            "key": verified.key.to_text(),
            "key_given": demands.key.is_some(),
            "entries": verified.entries,
            "root": hex(&verified.checkpoint.root),
            "earlier": self.earlier(),
            "export_sha256": hex(sha256),
        })
    }
}

/// The hash of each file, as `sha256sum -c` reads them.
pub(super) fn sums(files: &[(String, String)]) -> String {
    let line = |(name, text): &(String, String)| {
        format!("{}  {name}\n", data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())))
    };
    files.iter().map(line).collect()
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
