//! One page for each request of a sample: who asked, why, who agreed and when, what was certified and used, and the log's own words for it.
//!
//! A page is made of the request's entries alone; the numbers in it are theirs, so that each statement can be looked up.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use super::certificates::Certificates;
use super::changes::Changes;
use super::requests::{Mark, Request, joined};
use super::sessions::Sessions;
use super::table::{md, md_table};
use crate::audit::entry::Entry;
use crate::audit::event::{Answer, Event};
use crate::audit::text_time;
use crate::time::Timestamp;

/// What was asked for at one time, the access itself or more time for it, and what came of that.
#[derive(Debug, Default)]
struct Step {
    asked: String,
    needs_approval: bool,
    approvals: Vec<(Mark, String)>,
    granted: Option<(Mark, String)>,
    certificate: Option<Mark>,
    /// How it was closed without a grant.
    closed: Option<String>,
}

/// The page.
pub(super) fn page(request: &Request, entries: &[Entry], changes: &Changes) -> String {
    let mut certificates = Certificates::default();
    let mut sessions = Sessions::default();
    for entry in entries {
        certificates.begin(entry, false);
        certificates.end(entry);
        sessions.begin(entry);
        sessions.end(entry);
    }
    let mut text = format!("# Request {}\n\n{}\n", request.id(), facts(request, changes));
    text.push_str("## Who agreed, and when\n\n");
    text.push_str(&md_table(
        ["Asked", "Approved", "Granted", "Certificate", "Agreed before it was certified"],
        steps(entries).iter().map(Step::row),
    ));
    text.push_str("\n## Certificates\n\n");
    text.push_str(&certificates_table(&certificates));
    text.push_str("\n## Sessions, by the hosts' reports\n\n");
    text.push_str(&sessions_table(&sessions));
    text.push_str("\n## The log's own words\n\n");
    let words = |entry: &Entry| [entry.index.to_string(), text_time(entry.at), md(&entry.event.sentence())];
    text.push_str(&md_table(["Entry", "Written at", "What"], entries.iter().map(words)));
    text
}

/// What was asked for, by whom, and under which policy.
fn facts(request: &Request, changes: &Changes) -> String {
    let ticket = request.ticket.as_deref().unwrap_or("none");
    let start = request.start.map(|start| format!(", from {}", text_time(start))).unwrap_or_default();
    let asked = format!("{} (entry {})", text_time(request.asked.at), request.asked.entry);
    let said = match request.verdict {
        Answer::Allow => "allowed at once",
        Answer::Ask => "needs approval",
    };
    let policy = changes.policy(request.policy).map(|applied| {
        let (at, entry) = (text_time(applied.mark.at), applied.mark.entry);
        format!(", applied {at} by {} (entry {entry}), SHA-256 {}", applied.by, applied.sha256)
    });
    let policy = format!("version {}{}", request.policy, policy.unwrap_or_default());
    let rows = [
        ("Who asked", request.person.to_string()),
        ("For what", format!("{} as {}, for {}{start}", joined(&request.hosts), request.account, request.lifetime)),
        ("Why", request.reason.clone()),
        ("Ticket", ticket.to_owned()),
        ("Asked", asked),
        ("Policy in force", policy),
        ("What it said", format!("{said}, by the rules: {}", joined(&request.rules))),
        ("Outcome", request.outcome().word().to_owned()),
    ];
    md_table(["", ""], rows.map(|(name, fact)| [name.to_owned(), md(&fact)]))
}

fn steps(entries: &[Entry]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for entry in entries {
        if let Some(step) = Step::ask(entry) {
            steps.push(step);
        } else if let Some(step) = steps.last_mut() {
            step.take(entry);
        }
    }
    steps
}

impl Step {
    fn ask(entry: &Entry) -> Option<Self> {
        let (what, verdict) = if let Event::Asked { lifetime, verdict, .. } = &entry.event {
            (format!("access for {lifetime}"), verdict)
        } else if let Event::ExtensionAsked { lifetime, reason, verdict, .. } = &entry.event {
            (format!("{lifetime} more: {reason}"), verdict)
        } else {
            return None;
        };
        let asked = format!("{what} ({})", place(Mark::of(entry)));
        Some(Self { asked, needs_approval: *verdict == Answer::Ask, ..Self::default() })
    }

    fn take(&mut self, entry: &Entry) {
        let mark = Mark::of(entry);
        if let Event::Approved { by, comment, signature, .. } = &entry.event {
            let how = signature.as_ref().map_or_else(
                || "by a login alone".to_owned(),
                |signature| format!("signed with {}", signature.key().fingerprint()),
            );
            let comment = if comment.is_empty() { String::new() } else { format!(": {comment}") };
            self.approvals.push((mark, format!("{by}, {how}{comment}")));
        } else if let Event::Narrowed { by, lifetime, hosts, .. } = &entry.event {
            // What was approved before counts no more.
            self.approvals.clear();
            self.asked.push_str(&format!("; narrowed by {by} to {} for {lifetime} ({})", joined(hosts), place(mark)));
        } else if let Event::Granted { policy, window, .. } = &entry.event {
            let window = format!("{} to {}", text_time(window.start()), text_time(window.end()));
            self.granted = Some((mark, format!("{window}, under policy {policy}")));
        } else if let Event::CertificateToBeSigned { .. } = &entry.event {
            self.certificate = Some(mark);
        } else if let Event::Denied { .. } | Event::Withdrawn { .. } | Event::Lapsed { .. } = &entry.event
            && self.granted.is_none()
        {
            self.closed = Some(format!("{} ({})", entry.event.kind(), place(mark)));
        }
    }

    fn row(&self) -> [String; 5] {
        let with_place = |(mark, what): &(Mark, String)| format!("{what} ({})", place(*mark));
        let approved = match (self.approvals.as_slice(), self.needs_approval) {
            ([], true) => "nobody".to_owned(),
            ([], false) => "nobody was asked: policy allows it".to_owned(),
            (some, _) => some.iter().map(with_place).collect::<Vec<_>>().join("; "),
        };
        let closed = self.closed.clone().unwrap_or_else(|| "not decided".to_owned());
        let granted = self.granted.as_ref().map_or(closed, with_place);
        let certificate = self.certificate.map_or_else(
            || "none".to_owned(),
            |mark| format!("{}, about to be signed {}", mark.entry, text_time(mark.at)),
        );
        [&self.asked, &approved, &granted, &certificate, &self.order()].map(|cell| md(cell))
    }

    /// Whether all that a certificate rests on stands in the log before it.
    fn order(&self) -> String {
        let Some(certificate) = self.certificate else { return "-".to_owned() };
        let basis = self.approvals.iter().map(|(mark, _)| mark).chain(self.granted.as_ref().map(|(mark, _)| mark));
        let entries: Vec<u64> = basis.map(|mark| mark.entry).collect();
        let is_approved = !self.needs_approval || !self.approvals.is_empty();
        let is_before = self.granted.is_some() && is_approved && entries.iter().all(|entry| *entry < certificate.entry);
        let word = if is_before { "yes" } else { "NO" };
        format!("{word}: entries {}, then {}", joined(&entries), certificate.entry)
    }
}

fn place(mark: Mark) -> String {
    format!("{}, entry {}", text_time(mark.at), mark.entry)
}

fn certificates_table(certificates: &Certificates) -> String {
    let rows: Vec<[String; 4]> = certificates
        .iter()
        .map(|(serial, certificate)| {
            let (start, end) = (certificate.window.start(), certificate.window.end());
            let signed = certificate.signed.as_ref();
            let signed = signed.map(|(entry, sha256)| format!("signed (entry {entry}), SHA-256 {sha256}"));
            let signed = signed.unwrap_or_else(|| "nothing says whether it was signed".to_owned());
            [serial.to_string(), text_time(start), text_time(end), md(&signed)]
        })
        .collect();
    if rows.is_empty() { "none\n".to_owned() } else { md_table(["Serial", "Valid from", "Until", "Outcome"], rows) }
}

fn sessions_table(sessions: &Sessions) -> String {
    let span = |from: Timestamp, to: Timestamp| format!("{} ({} s)", text_time(to), to.seconds_since(from));
    let rows: Vec<[String; 5]> = sessions
        .all()
        .iter()
        .map(|session| {
            let from = if session.from.is_empty() { String::new() } else { format!(" from {}", session.from) };
            let who = format!("{} as {}{from}", session.host, session.account);
            let (ended, how) = session.ended.as_ref().map_or_else(
                || ("no end reported".to_owned(), String::new()),
                |ended| (span(session.opened, ended.at), format!("{} (entry {})", ended.why, ended.entry)),
            );
            let opened = format!("{} (entry {})", text_time(session.opened), session.mark.entry);
            [session.serial.to_string(), md(&who), opened, ended, md(&how)]
        })
        .collect();
    let head = ["Serial", "Where", "Opened", "Ended", "How"];
    if rows.is_empty() { "none\n".to_owned() } else { md_table(head, rows) }
}
