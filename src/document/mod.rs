//! Reads TOML documents key by key and collects *all* problems, each with its place.
//!
//! What for: the two files that people write, `policy.toml` and `config.toml`. The one home of the `toml` crate.
//!
//! What not: no meaning. Which keys there are, and what they may hold, is for `policy::spec` and `config`.
//!
//! Invariants:
//! - A key that nobody asked for is a problem: [`Table`] reports it when it is dropped, so forgetting to is impossible.
//! - A document with a problem yields no value. Problems come in the order of the file, at most [`PROBLEMS_MAX`].
//! - Nothing of the file is repeated unescaped, nor more than 64 characters of it.
//! - Characters that make text look like other text (controls, bidirectional overrides, invisible ones) are refused
//!   everywhere, comments included: a policy is reviewed by people (CVE-2021-42574's class).
//!
//! Decisions:
//! - *Why not serde?* It stops at the first problem, and it can't say what would be accepted.
//! - *Why no meaning after a syntax error?* What the parser guesses behind it would make false problems. A duplicate
//!   key is the exception: everything else about the file is still clear.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

mod sheet;
mod table;

use std::fmt;

use toml::de::DeTable;

pub use sheet::{Found, Sheet, Spot};
pub use table::Table;

/// The most problems that are listed; a last one counts the rest. Our choice; nobody fixes more in one go.
pub const PROBLEMS_MAX: usize = 200;

/// What the parser says of a key that is there twice.
const DUPLICATE: &str = "duplicate key";

/// How much of an offending text is repeated, in characters.
const QUOTED_CHARS_MAX: usize = 64;

/// One problem in a file, with its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file's name as the user gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key path, as in `rule[2].window.max` (the first rule is `rule[1]`); empty for the file as a whole.
    pub key: String,
    /// What is wrong, with the offending value and what would be accepted.
    pub what: String,
}

impl fmt::Display for Problem {
    /// `policy.toml:41:9: rule[3].window.max: "26h" …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// Reads a document of at most `bytes_max`: `take` asks its root table for what it knows.
///
/// # Errors
/// Every problem, in the order of the file; there is no value beside problems.
pub fn read<T>(
    text: &str,
    file: &str,
    bytes_max: usize,
    take: impl FnOnce(&Table<'_>) -> Option<T>,
) -> Result<T, Vec<Problem>> {
    let sheet = Sheet::new(text, file);
    if text.len() > bytes_max {
        sheet.problem(&Spot::start(), format!("{} bytes are too many; it may have {bytes_max}", text.len()));
        return Err(sheet.into_problems());
    }
    sheet.check_characters();
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut is_clear = true;
    for error in errors {
        is_clear &= error.message() == DUPLICATE;
        sheet.syntax(error.message(), error.span());
    }
    let value = if is_clear { take(&Table::new(&sheet, root.get_ref(), Spot::start())) } else { None };
    let problems = sheet.into_problems();
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        Some(_) => Err(problems),
        None => Err(explained(problems, file)),
    }
}

/// The text of a file's bytes.
///
/// # Errors
/// The place of the first byte that is not UTF-8.
pub fn decode<'b>(bytes: &'b [u8], file: &str) -> Result<&'b str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).and_then(|good| std::str::from_utf8(good).ok()).unwrap_or_default();
        let (line, column) = Sheet::new(good, file).place(good.len());
        Problem { file: file.to_owned(), line, column, key: String::new(), what: "this byte is not UTF-8".to_owned() }
    })
}

/// `text` in quotes, escaped, at most 64 characters of it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let start: String = chars.by_ref().take(QUOTED_CHARS_MAX).collect();
    if chars.next().is_none() { format!("{start:?}") } else { format!("{start:?}…") }
}

/// `text` as a document holds it: a basic string, which is read as the same text.
#[must_use]
pub fn written(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The one of `known` that `text` was probably meant to be.
#[must_use]
pub fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let letters = text.len();
    if letters > QUOTED_CHARS_MAX {
        return None;
    }
    let close = letters.checked_div(3).unwrap_or(0).max(1);
    let distances = known.into_iter().map(|k| (strsim::damerau_levenshtein(text, k), k));
    distances.filter(|(d, _)| *d <= close).min().map(|(_, k)| k)
}

/// Whether a character can make text look like other text: controls, bidirectional marks, invisible ones.
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A reader that gives nothing without saying why is a mistake of ours, but must still be an error with a text.
fn explained(mut problems: Vec<Problem>, file: &str) -> Vec<Problem> {
    if problems.is_empty() {
        let what = "the file could not be understood".to_owned();
        problems.push(Problem { file: file.to_owned(), line: 1, column: 1, key: String::new(), what });
    }
    problems
}
