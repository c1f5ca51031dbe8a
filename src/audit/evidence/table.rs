//! The two forms of a report's files: tables as CSV (RFC 4180), and pages in Markdown.
//!
//! Invariants: a text that people wrote stays within its cell, whoever reads it: on one line, with nothing in it that a terminal acts on; in CSV
//! not as a formula of a spreadsheet; in Markdown neither as HTML nor as a link, an emphasis or a cell's end.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use crate::audit::shown::escape;

/// What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection), with the wide forms that some take as well. Tab and carriage
/// return are escaped before.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// What stands before such a beginning: spreadsheets show what follows as text.
const TEXT: char = '\'';

/// What means something in Markdown inside of a cell.
const MARKS: [char; 11] = ['\\', '`', '*', '_', '[', ']', '<', '>', '|', '~', '&'];

/// A table of so many columns, as CSV.
#[derive(Debug)]
pub(super) struct Csv<const N: usize> {
    text: String,
    rows: usize,
}

impl<const N: usize> Csv<N> {
    /// One with these columns and no row.
    pub(super) fn new(columns: [&str; N]) -> Self {
        let mut csv = Self { text: String::new(), rows: 0 };
        csv.line(columns.map(str::to_owned));
        csv
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.line(cells);
        self.rows = self.rows.saturating_add(1);
    }

    fn line(&mut self, cells: [String; N]) {
        self.text.push_str(&cells.map(|cell| csv_cell(&cell)).join(","));
        self.text.push_str("\r\n");
    }

    /// The text, and how many rows there are below the first.
    pub(super) fn finish(self) -> (String, usize) {
        (self.text, self.rows)
    }
}

fn csv_cell(text: &str) -> String {
    let mut shown = escape(text);
    if shown.trim_start().starts_with(FORMULA) {
        shown.insert(0, TEXT);
    }
    if shown.contains([',', '"']) { format!("\"{}\"", shown.replace('"', "\"\"")) } else { shown }
}

/// A text as it stands in a cell or a line of Markdown.
pub(super) fn md(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        if MARKS.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    // Readers on the web make links of these by themselves.
    out.replace("://", ":\\//").replace("www.", "www\\.")
}

/// A table in Markdown: its head, and rows of cells that have passed [`md`].
pub(super) fn md_table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned));
    text.push_str(&line(&head.map(|_| "---".to_owned())));
    for row in rows {
        text.push_str(&line(&row));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_csv_is_one_text_and_no_formula() {
        for (text, cell) in [
            ("disk is full", "disk is full"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-rf", "'-rf"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("  =1", "'  =1"),
            ("\u{ff1d}1", "'\u{ff1d}1"),
            ("\t=1", "\\u{9}=1"),
            ("\r=1", "\\u{d}=1"),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("two\nlines", "two\\u{a}lines"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("Grüße", "Grüße"),
        ] {
            assert_eq!(csv_cell(text), cell, "{text:?}");
        }
    }

    #[test]
    fn a_table_has_its_columns_in_every_line() {
        let mut csv = Csv::new(["a", "b"]);
        csv.row(["1".to_owned(), "x,y".to_owned()]);
        assert_eq!(csv.finish(), ("a,b\r\n1,\"x,y\"\r\n".to_owned(), 1));
    }

    #[test]
    fn a_text_in_markdown_means_nothing_but_itself() {
        for (text, shown) in [
            ("INC-1 disk, at 90 %", "INC-1 disk, at 90 %"),
            ("a | b", "a \\| b"),
            ("<script>", "\\<script\\>"),
            ("&lt;", "\\&lt;"),
            ("[x](http://evil)", "\\[x\\](http:\\//evil)"),
            ("www.evil.example", "www\\.evil.example"),
            ("**loud** `code` _em_", "\\*\\*loud\\*\\* \\`code\\` \\_em\\_"),
            ("x\n# head", "x\\\\u{a}# head"),
            ("back\\", "back\\\\"),
        ] {
            assert_eq!(md(text), shown, "{text:?}");
        }
        let table = md_table(["a", "b"], [["1".to_owned(), "2".to_owned()]]);
        assert_eq!(table, "| a | b |\n| --- | --- |\n| 1 | 2 |\n");
    }
}
