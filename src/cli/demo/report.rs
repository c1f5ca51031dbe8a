//! What the demo tells: each step with its time and evidence, as text while it happens or as one JSON document at the end.

use std::io::Write as _;
use std::time::Instant;

use serde::Serialize;

/// The steps so far.
#[derive(Debug)]
pub(super) struct Report {
    began: Instant,
    json: bool,
    steps: Vec<Step>,
    gaps: Vec<String>,
}

/// One step.
#[derive(Debug, Serialize)]
struct Step {
    /// Seconds since the demo began, to a tenth.
    at: String,
    /// What was done or shown.
    what: String,
    /// Whether what should be is.
    held: bool,
    /// What can be seen.
    evidence: Vec<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    held: bool,
    steps: &'a [Step],
    not_shown: &'a [String],
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { began: Instant::now(), json, steps: Vec::new(), gaps: Vec::new() }
    }

    /// Adds a step that held (or did not), with its evidence.
    pub(super) fn step(&mut self, held: bool, what: &str, evidence: Vec<String>) {
        let elapsed = self.began.elapsed();
        let at = format!("{}.{}", elapsed.as_secs(), elapsed.subsec_millis() / 100);
        if !self.json {
            let mut text = format!("{} {at:>5} s  {what}\n", if held { "ok  " } else { "FAIL" });
            for line in &evidence {
                text.push_str(&format!("               {line}\n"));
            }
            print(&text);
        }
        self.steps.push(Step { at, what: what.to_owned(), held, evidence });
    }

    /// Adds something that can't be shown here, and why.
    pub(super) fn gap(&mut self, what: &str) {
        if !self.json {
            print(&format!("--            {what}\n"));
        }
        self.gaps.push(what.to_owned());
    }

    /// Whether every step held.
    pub(super) fn held(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|s| s.held)
    }

    /// The last words.
    pub(super) fn finish(&self) {
        if self.json {
            let document =
                Document { schema: "hallpass.demo.v1", held: self.held(), steps: &self.steps, not_shown: &self.gaps };
            print(&format!("{}\n", serde_json::to_string_pretty(&document).unwrap_or_default()));
            return;
        }
        let failed = self.steps.iter().filter(|s| !s.held).count();
        if failed == 0 {
            print(&format!("\neverything held: {} steps\n", self.steps.len()));
        } else {
            print(&format!("\n{failed} of {} steps did not hold\n", self.steps.len()));
        }
    }

    /// Says something that is no step; silent in JSON.
    pub(super) fn say(&self, text: &str) {
        if !self.json {
            print(&format!("{text}\n"));
        }
    }
}

/// Standard output may be closed (`| head`): the demo goes on, its exit code tells.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
