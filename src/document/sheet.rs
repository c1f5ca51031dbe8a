//! A document being read: its text, its places, and the problems found so far.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::{DUPLICATE, PROBLEMS_MAX, Problem, is_deceptive, quoted};

/// Where something stands: key path and byte offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    pub(super) path: String,
    pub(super) at: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub spot: Spot,
}

/// One document being read, and the problems found so far.
#[derive(Debug)]
pub struct Sheet<'d> {
    file: &'d str,
    text: &'d str,
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    unlisted: Cell<usize>,
    /// Every key that was asked for, as in `rule[].window.max`.
    #[cfg(test)]
    pub(crate) keys: RefCell<std::collections::BTreeSet<String>>,
}

impl Spot {
    pub(super) const fn start() -> Self {
        Self { path: String::new(), at: 0 }
    }

    /// The key path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn below(&self, key: &str, at: usize) -> Self {
        let shown = if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && key.len() < 64 {
            key.to_owned()
        } else {
            quoted(key)
        };
        let path = if self.path.is_empty() { shown } else { format!("{}.{shown}", self.path) };
        Self { path, at }
    }

    pub(super) fn item(&self, index: usize, at: usize) -> Self {
        Self { path: format!("{}[{}]", self.path, index.saturating_add(1)), at }
    }
}

impl<T> Found<T> {
    /// The same place with another value.
    #[must_use]
    pub fn with<U>(self, value: U) -> Found<U> {
        Found { value, spot: self.spot }
    }
}

impl<'d> Sheet<'d> {
    pub(super) fn new(text: &'d str, file: &'d str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        let line_starts = std::iter::once(0).chain(newlines.map(|(at, _)| at.saturating_add(1))).collect();
        Self {
            file,
            text,
            line_starts,
            problems: RefCell::default(),
            unlisted: Cell::default(),
            #[cfg(test)]
            keys: RefCell::default(),
        }
    }

    /// Notes a problem.
    pub fn problem(&self, spot: &Spot, what: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        // Sorting comes later, so the first to be left out are those found last, not those that stand last.
        if problems.len() >= PROBLEMS_MAX {
            self.unlisted.set(self.unlisted.get().saturating_add(1));
            return;
        }
        let (line, column) = self.place(spot.at);
        let (file, key) = (self.file.to_owned(), spot.path.clone());
        problems.push(Problem { file, line, column, key, what: what.into() });
    }

    /// `policy.toml:41:1`.
    #[must_use]
    pub fn shown_place(&self, spot: &Spot) -> String {
        let (line, column) = self.place(spot.at);
        format!("{}:{line}:{column}", self.file)
    }

    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= at);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or_default();
        (line, before.chars().count().saturating_add(1))
    }

    pub(super) fn source(&self, span: Range<usize>) -> &'d str {
        self.text.get(span).unwrap_or_default()
    }

    /// Notes what the TOML parser says.
    pub(super) fn syntax(&self, message: &str, span: Option<Range<usize>>) {
        let spot = Spot { path: String::new(), at: span.as_ref().map_or(0, |span| span.start) };
        let source = span.map(|span| self.source(span)).unwrap_or_default();
        let message = if message == DUPLICATE { "this key is there twice" } else { message };
        let what = if source.is_empty() { message.to_owned() } else { format!("{message}: {}", quoted(source)) };
        self.problem(&spot, what);
    }

    #[cfg(test)]
    pub(super) fn note_key(&self, table: &Spot, key: &str) {
        let mut is_index = false;
        let path = table.below(key, 0).path;
        let keep = |c: &char| {
            is_index = *c == '[' || (is_index && c.is_ascii_digit());
            !(is_index && c.is_ascii_digit())
        };
        self.keys.borrow_mut().insert(path.chars().filter(keep).collect());
    }

    /// Deceptive characters that stand in the file as themselves. Controls are left to the TOML parser.
    pub(super) fn check_characters(&self) {
        for (at, c) in self.text.char_indices() {
            let is_mark = at == 0 && c == '\u{feff}';
            if !c.is_ascii() && is_deceptive(c) && !is_mark {
                let what = format!("the invisible or misleading character U+{:04X} is not allowed", u32::from(c));
                self.problem(&Spot { path: String::new(), at }, what);
            }
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        if let (more @ 1.., Some(last)) = (self.unlisted.get(), problems.last()) {
            let (file, line, column) = (last.file.clone(), last.line, last.column);
            problems.push(Problem {
                file,
                line,
                column,
                key: String::new(),
                what: format!("and {more} more problems"),
            });
        }
        problems
    }
}
