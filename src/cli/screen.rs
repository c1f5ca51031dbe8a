//! A text on a terminal that is drawn over itself: `status --watch`, `inbox --watch`.
//!
//! What for: the only place where hallpass moves the cursor. What not: where text must stand still (no terminal, `TERM=dumb`,
//! `ACCESSIBLE=1`, `NO_COLOR`, `--no-color`) there is no [`Screen`], and the caller prints lines.
//!
//! Invariants: everything between our own codes is escaped; a line takes one row, whatever its characters: the terminal cuts it.

use std::ops::ControlFlow;

use super::failure::Failure;
use super::{Context, output, profile};

/// How many rows there are where the terminal doesn't say.
const ROWS: u16 = 24;

/// Lines are not wrapped while we draw, so that a line is a row; afterwards they are.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// A terminal on which a text is drawn over itself.
#[derive(Debug)]
pub(crate) struct Screen {
    out: output::Output,
    /// How many rows the last text took.
    drawn: usize,
}

impl Screen {
    /// The terminal on standard output; `None` where text must stand still.
    pub(crate) fn open(context: &Context) -> Option<Self> {
        let is_set = |name: &str| profile::env(name).is_some();
        let is_dumb = profile::env("TERM").is_none_or(|term| term == "dumb");
        let is_still = context.globals.no_color || is_set("NO_COLOR") || is_set("ACCESSIBLE") || is_dumb;
        (output::is_shown() && !is_still).then_some(Self { out: context.out, drawn: 0 })
    }

    /// Draws this text in place of the last one; what does not fit is counted.
    ///
    /// # Errors
    /// When standard output can't take it.
    pub(crate) fn draw(&mut self, text: &str) -> Result<ControlFlow<()>, Failure> {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_row);
        let rows = usize::from(if size == 0 { ROWS } else { size });
        let (drawing, drawn) = drawing(text, rows, self.drawn);
        self.drawn = drawn;
        self.out.stream(drawing.as_bytes())
    }
}

/// What to write, and how many rows it takes, after a text that took `before` rows.
fn drawing(text: &str, rows: usize, before: usize) -> (String, usize) {
    let mut lines: Vec<String> = text.lines().map(output::escape).collect();
    // The cursor stands on the row below the text.
    let fit = rows.saturating_sub(1).max(1);
    if lines.len() > fit {
        let cut = lines.len().saturating_sub(fit).saturating_add(1);
        lines.truncate(fit.saturating_sub(1));
        lines.push(format!("… and {cut} lines more"));
    }
    let up = if before == 0 { String::new() } else { format!("\x1b[{before}A") };
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    (format!("\r{up}\x1b[J{NO_WRAP}{body}{WRAP}"), lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_drawn_over_the_one_before() {
        let (first, rows) = drawing("a\nb\n", 24, 0);
        assert_eq!((first.as_str(), rows), ("\r\x1b[J\x1b[?7la\nb\n\x1b[?7h", 2));
        let (second, rows) = drawing("c\n", 24, rows);
        assert_eq!((second.as_str(), rows), ("\r\x1b[2A\x1b[J\x1b[?7lc\n\x1b[?7h", 1));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_codes_from_outside_are_escaped() {
        let (text, rows) = drawing("1\n2\n3\n4\n", 4, 0);
        assert_eq!((text.as_str(), rows), ("\r\x1b[J\x1b[?7l1\n2\n… and 2 lines more\n\x1b[?7h", 3));
        assert!(drawing("x\x1b[2J", 4, 0).0.contains("x\\u{1b}[2J"));
    }
}
