//! Values as people read them on a page: times, spans, states, sentences.
//!
//! Times are written in UTC, without the day if it is today's; the script shows them in the reader's zone and counts on.

use crate::access::State;
use crate::audit::entry::Entry;
use crate::policy::Quorum;
use crate::time::Timestamp;

/// A moment, seen from another one.
#[derive(Clone, Debug)]
pub(super) struct When {
    /// For machines.
    pub(super) iso: String,
    /// For people.
    pub(super) text: String,
    /// How long until then: `12 min left`, or `over`.
    pub(super) left: String,
    /// How long since then: `4 s ago`.
    pub(super) ago: String,
}

impl When {
    pub(super) fn new(at: Timestamp, now: Timestamp) -> Self {
        let left = match at.seconds_since(now) {
            0 => "over".to_owned(),
            seconds => format!("{} left", span(seconds)),
        };
        let (iso, today) = (at.to_string(), now.to_string());
        let (day, clock) = iso.trim_end_matches('Z').split_once('T').unwrap_or((iso.as_str(), ""));
        let text = if today.starts_with(day) { format!("{clock} UTC") } else { format!("{day} {clock} UTC") };
        Self { text, left, ago: ago(at, now), iso }
    }

    /// The same, with its day in any case.
    pub(super) fn with_day(at: Timestamp, now: Timestamp) -> Self {
        let text = format!("{} UTC", at.to_string().trim_end_matches('Z').replace('T', " "));
        Self { text, ..Self::new(at, now) }
    }
}

/// `4 s ago`.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(now.seconds_since(at)))
}

/// Seconds as people say them: `40 s`, `12 min`, `3 h 5 min`.
pub(super) fn span(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// A sign beside a state's word, for who does not see its colour.
pub(super) const fn mark(state: &State) -> &'static str {
    match state {
        State::Pending { .. } => "…",
        State::Approved | State::Issued => "✓",
        State::Denied { .. } => "✗",
        State::Withdrawn | State::Lapsed | State::Ended { .. } | State::Expired => "–",
    }
}

/// What happened, without the request's id in front.
pub(super) fn sentence(entry: &Entry) -> String {
    let text = entry.event.sentence();
    let id = entry.event.request().map(|id| format!("{id}: "));
    id.and_then(|id| text.strip_prefix(&id).map(str::to_owned)).unwrap_or(text)
}

/// Words with commas between.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// `1 of group:sre and 2 of group:security (signed)`.
pub(super) fn needs(quorum: &Quorum) -> String {
    let need = |need: &crate::policy::Need| {
        format!("{} of {}{}", need.need, list(&need.from), if need.signed { " (signed)" } else { "" })
    };
    quorum.needs().iter().map(need).collect::<Vec<_>>().join(" and ")
}
