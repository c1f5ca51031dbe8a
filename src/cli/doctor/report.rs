//! What `hallpass doctor` found, as people and as programs read it.
//!
//! Invariants: each finding's first line stands alone; `next` is runnable as printed; every text from outside is escaped when it is shown.

use serde::Serialize;

use super::super::failure::Failure;
use super::super::output::{escape, labelled};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Works, and could be better.
    Warn,
    /// Does not work.
    Bad,
    /// Could not be looked at, or has no meaning here.
    Skipped,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Check {
    /// Which check; stable.
    pub(crate) id: &'static str,
    /// How it came out.
    pub(crate) state: State,
    /// What was found, one line.
    pub(crate) what: String,
    /// The facts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) why: Vec<String>,
    /// What to type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) next: Vec<String>,
    /// The code with a page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
}

impl Check {
    fn new(id: &'static str, state: State, what: impl Into<String>) -> Self {
        Self { id, state, what: what.into(), why: Vec::new(), next: Vec::new(), code: None }
    }

    /// As it should be.
    pub(crate) fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, State::Ok, what)
    }

    /// Works, and could be better.
    pub(crate) fn warn(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, State::Warn, what)
    }

    /// Not looked at.
    pub(crate) fn skipped(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, State::Skipped, what)
    }

    /// Does not work.
    pub(crate) fn bad(id: &'static str, code: &str, what: impl Into<String>) -> Self {
        Self::new(id, State::Bad, what).coded(code)
    }

    /// What a command would have failed with.
    pub(crate) fn failed(id: &'static str, failure: &Failure) -> Self {
        let mut check = Self::new(id, State::Bad, failure.what.clone());
        check.why.clone_from(&failure.why);
        check.next.clone_from(&failure.next);
        if failure.code.starts_with("HP-") { check.coded(&failure.code) } else { check }
    }

    /// With a code.
    #[must_use]
    pub(crate) fn coded(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    /// With one more fact.
    #[must_use]
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// With one more thing to do.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

/// Everything that was found, and what `--fix` did or would do.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    /// The profile.
    pub(crate) profile: String,
    /// The host, if one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Whether `changes` are only what would be done.
    pub(crate) dry_run: bool,
    /// What `--fix` changed.
    pub(crate) changes: Vec<String>,
    /// The findings, in the order they were looked at.
    pub(crate) checks: Vec<Check>,
}

impl Report {
    /// A report without findings yet.
    pub(crate) fn new(profile: &str, host: Option<String>) -> Self {
        Self {
            schema: "hallpass.doctor.v1",
            profile: profile.to_owned(),
            host,
            dry_run: false,
            changes: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// How many checks came out so.
    pub(crate) fn count(&self, state: State) -> usize {
        self.checks.iter().filter(|check| check.state == state).count()
    }

    /// As people read it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for change in &self.changes {
            let word = if self.dry_run { "would" } else { "fixed" };
            text.push_str(&format!("{word}    {}\n", escape(change)));
        }
        for check in &self.checks {
            let word = match check.state {
                State::Ok => "ok",
                State::Warn => "warn",
                State::Bad => "bad",
                State::Skipped => "skipped",
            };
            text.push_str(&format!("{word:<8} {:<12} {}\n", check.id, escape(&check.what)));
            let more: Vec<String> = check.code.iter().map(|code| format!("hallpass help {code}")).collect();
            for (label, lines) in [("why", &check.why), ("next", &check.next), ("more", &more)] {
                text.push_str(&labelled("           ", label, lines));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_state_what_why_next_more() {
        let mut report = Report::new("work", Some("web-1".to_owned()));
        report.changes.push("mode of \"k\" 0644 -> 0600".to_owned());
        report.checks.push(Check::ok("server", "answers\u{1b}"));
        report.checks.push(Check::bad("include", "HP-305", "hidden").because("line 4").because("x").next("y"));
        assert_eq!(
            report.text(),
            "fixed    mode of \"k\" 0644 -> 0600\nok       server       answers\\u{1b}\nbad      include      hidden\n           \
             why   line 4\n                 x\n           next  y\n           more  hallpass help HP-305\n"
        );
        assert_eq!((report.count(State::Bad), report.count(State::Warn)), (1, 0));
    }
}
