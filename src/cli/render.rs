//! Requests as people read them. Every word that came from the server is escaped here, so that line ends in the result are ours.

use super::output::{escape, local_text as time};
use crate::time::Timestamp;
use crate::wire;

/// A request in full: all that an approver agrees to, and how it stands at `now`, the server's time.
pub(crate) fn details(request: &wire::Request, now: Timestamp) -> String {
    let mut lines = Lines(format!(
        "{}  {}: {} asks for {} as {} for {}\n",
        escape(&request.id),
        escape(&request.state),
        escape(&request.person),
        joined(&request.hosts),
        escape(&request.account),
        escape(&request.lifetime),
    ));
    lines.add("reason", &escape(&request.reason));
    lines.maybe("ticket", request.ticket.as_deref().map(escape));
    lines.add("asked", &time(&request.asked));
    lines.maybe("start", request.start.as_deref().map(time));
    lines.maybe("decide by", request.decide_by.as_deref().filter(|_| request.state == "pending").map(time));
    // The usual 30 s is not worth a line.
    let backdate = Some(request.backdate.as_str()).filter(|backdate| !matches!(*backdate, "" | "30s" | "0s"));
    lines.maybe("begins", backdate.map(|backdate| format!("{} before its approval", escape(backdate))));
    // Of what was ended before its time nothing is left.
    let is_open = matches!(request.state.as_str(), "pending" | "approved" | "issued");
    lines.maybe("window", request.window.as_ref().map(|of| window(of, Some(now).filter(|_| is_open))));
    lines.add("principals", &joined(&request.principals));
    lines.add("may use", &if request.permit.is_empty() { "commands only".to_owned() } else { joined(&request.permit) });
    lines.maybe("command", request.command.as_deref().map(escape));
    lines.add("from", &if request.sources.is_empty() { "anywhere".to_owned() } else { joined(&request.sources) });
    lines.maybe("must", request.verify_required.then(|| "check a PIN or finger for each use of the key".to_owned()));
    lines.add("key", &escape(&request.key));
    lines.add("rules", &format!("{} (policy {})", joined(&request.rules), request.policy));
    for need in &request.needs {
        let signed = if need.signed { " (signed)" } else { "" };
        lines.add("needs", &format!("{} of {}{signed}", need.need, joined(&need.from)));
    }
    lines.maybe("approved by", some(&request.approved_by));
    lines.maybe("can approve", some(&request.eligible).filter(|_| waits(request)));
    lines.maybe("but", request.unmeetable.as_deref().map(escape));
    if let Some(extension) = &request.extension {
        lines.add("extension", &format!("{} more: {}", escape(&extension.lifetime), escape(&extension.reason)));
        lines.add("decide by", &time(&extension.decide_by));
    }
    if let Some(closed) = &request.closed {
        let reason = if closed.reason.is_empty() { String::new() } else { format!(": {}", escape(&closed.reason)) };
        lines.add("closed", &format!("by {}{reason}", escape(&closed.by)));
    }
    lines.maybe("serial", request.serial.map(|s| s.to_string()));
    lines.add("digest", &escape(&request.digest));
    lines.0
}

/// One line: id, state, person, hosts, until when or for how long, reason. Of an extension that waits: how much more, and why.
pub(crate) fn row(request: &wire::Request) -> [String; 5] {
    let when = match &request.window {
        Some(window) if matches!(request.state.as_str(), "approved" | "issued") => {
            format!("until {}", time(&window.not_after))
        }
        _ => format!("for {}", request.lifetime),
    };
    let (more, reason) = match &request.extension {
        Some(extension) => (format!(", asks for {} more", escape(&extension.lifetime)), &extension.reason),
        None => (String::new(), &request.reason),
    };
    [
        escape(&request.id),
        escape(&request.state),
        escape(&request.person),
        format!("{} as {} {}{more}", joined(&request.hosts), escape(&request.account), escape(&when)),
        escape(reason),
    ]
}

/// Requests as a table, or the sentence for none.
pub(crate) fn table(requests: &[wire::Request], none: &str) -> String {
    if requests.is_empty() {
        return format!("{none}\n");
    }
    columns(&requests.iter().map(row).collect::<Vec<_>>())
}

/// Rows with their columns aligned, two blanks between.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Who has to agree still: `bob@example.com or carol@example.com`.
pub(crate) fn who_can(request: &wire::Request) -> String {
    if request.eligible.is_empty() {
        return "nobody who is known now".to_owned();
    }
    request.eligible.iter().map(|p| escape(p)).collect::<Vec<_>>().join(" or ")
}

/// Whether somebody's decision is awaited.
pub(crate) fn waits(request: &wire::Request) -> bool {
    request.state == "pending" || request.extension.is_some()
}

/// Words with commas between.
pub(crate) fn joined(words: &[String]) -> String {
    words.iter().map(|w| escape(w)).collect::<Vec<_>>().join(", ")
}

/// `2026-01-05 11:00:00 +01:00 (12 min left)`, at `now`, the server's time.
pub(crate) fn until(at: &str, now: Timestamp) -> String {
    match Timestamp::parse(at) {
        Ok(end) if end > now => format!("{} ({} left)", time(at), span(end.seconds_since(now))),
        _ => format!("{} (over)", time(at)),
    }
}

/// `(12 min left)`, at `now`, the server's time; nothing of what is over.
pub(crate) fn left(at: &str, now: Timestamp) -> String {
    match Timestamp::parse(at) {
        Ok(end) if end > now => format!("({} left)", span(end.seconds_since(now))),
        _ => String::new(),
    }
}

/// From when to when, and with a time how much is left.
fn window(window: &wire::Window, now: Option<Timestamp>) -> String {
    let end = now.map_or_else(|| format!("{} (over)", time(&window.not_after)), |now| until(&window.not_after, now));
    format!("{} to {end}", time(&window.not_before))
}

/// Seconds as people say them: `40 s`, `12 min`, `3 h 5 min`.
pub(crate) fn span(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

fn some(words: &[String]) -> Option<String> {
    if words.is_empty() { None } else { Some(joined(words)) }
}

/// Labelled lines.
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, text: &str) {
        self.0.push_str(&format!("  {label:<11}  {text}\n"));
    }

    fn maybe(&mut self, label: &str, text: Option<String>) {
        if let Some(text) = text {
            self.add(label, &text);
        }
    }
}

#[cfg(test)]
pub(crate) use tests::tests_request;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_say_them() {
        assert_eq!([span(40), span(725), span(3600), span(11_100)], ["40 s", "12 min", "1 h", "3 h 5 min"]);
    }

    #[test]
    fn a_line_end_from_the_server_makes_no_line() {
        let request = wire::Request { reason: "x\n  closed  by root".to_owned(), ..tests_request() };
        let text = details(&request, Timestamp::from_unix(0).unwrap());
        assert!(text.contains("x\\u{a}  closed"));
        assert!(!row(&request).concat().contains('\n'));
    }

    #[test]
    fn of_what_was_ended_nothing_is_left() {
        let window =
            wire::Window { not_before: "2026-01-05T10:00:00Z".into(), not_after: "2026-01-05T10:30:00Z".into() };
        let now = Timestamp::parse("2026-01-05T10:26:00Z").unwrap();
        let closed = Some(wire::Closed { by: "alice".into(), reason: String::new() });
        let ended = wire::Request { state: "ended".into(), window: Some(window), closed, ..tests_request() };
        let text = details(&ended, now);
        assert!(text.contains("(over)\n") && text.contains("by alice\n") && !text.contains("left"), "{text}");
        let text = details(&wire::Request { state: "issued".into(), ..ended }, now);
        assert!(text.contains("(4 min left)"), "{text}");
    }

    #[test]
    fn a_row_shows_what_an_extension_asks_for_and_why() {
        let at = |hour: u8| format!("2026-01-05T{hour}:00:00Z");
        let request = wire::Request {
            state: "issued".to_owned(),
            reason: "of before".to_owned(),
            window: Some(wire::Window { not_before: at(10), not_after: at(11) }),
            extension: Some(wire::Extension {
                lifetime: "20m".to_owned(),
                reason: "rollback\nruns".to_owned(),
                decide_by: at(11),
            }),
            ..tests_request()
        };
        let [_, state, _, what, reason] = row(&request);
        assert_eq!((state.as_str(), reason.as_str()), ("issued", "rollback\\u{a}runs"));
        assert!(what.starts_with("h as d until ") && what.ends_with(", asks for 20m more"), "{what}");
    }

    /// A request that waits.
    pub(crate) fn tests_request() -> wire::Request {
        serde_json::from_value(serde_json::json!({
            "schema": "hallpass.request.v1", "id": "7K3F-9QX2", "state": "pending", "person": "a", "hosts": ["h"], "account": "d",
            "principals": ["d@h"], "reason": "r", "for": "30m", "asked": "2026-01-05T10:00:00Z", "permit": [], "sources": [],
            "key": "SHA256:x", "needs": [], "approved_by": [], "eligible": [], "rules": [], "policy": 1, "digest": "00",
            "may_decide": false,
        }))
        .unwrap()
    }
}
