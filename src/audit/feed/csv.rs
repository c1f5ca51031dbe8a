//! Entries for spreadsheets: RFC 4180, one line of names and one for each entry.
//!
//! Invariant: no cell is taken for a formula. One that a spreadsheet would take for one has a `'` in front, which is how people mark a text there;
//! and whatever could end a cell in any dialect (a comma, a semicolon, a blank) is inside quotes.

use super::super::entry::Entry;
use super::Shown;
use super::facts::Facts;

/// The first line. Columns are only ever added, at the end.
pub const HEAD: &str = "number,time,kind,who,request,host,account,serial,policy,address,reason,text\r\n";

/// With what a formula begins; the wide forms are the same to some.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// An entry's line, with its end.
#[must_use]
pub fn line(entry: &Entry, shown: Shown) -> String {
    let Facts { number, who, request, hosts, account, serial, policy, address, reason, text } = Facts::of(entry);
    let (time, kind) = (entry.at.to_string(), entry.event.kind().to_owned());
    let cells = [number, time, kind, who, request, hosts, account, serial, policy, address, reason, text];
    let cells = cells.map(|text| cell(&text, shown));
    format!("{}\r\n", cells.join(","))
}

fn cell(text: &str, shown: Shown) -> String {
    let is_formula = text.starts_with(['\t', '\r', '\n']) || text.trim_start().starts_with(FORMULA);
    let text = format!("{}{}", if is_formula { "'" } else { "" }, shown(text));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@/".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOLDEN, ended, shown};
    use super::*;

    #[test]
    fn a_cell_is_one_cell_and_no_formula_whatever_stands_in_it() {
        for (text, wanted) in [
            ("", ""),
            ("alice@example.com", "alice@example.com"),
            ("two words", "\"two words\""),
            ("a,b;c", "\"a,b;c\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("a\r\nb", "\"a\\u{d}\\u{a}b\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"'\\u{9}=1\""),
            ("\tx", "\"'\\u{9}x\""),
            ("\rx", "\"'\\u{d}x\""),
            ("  =1", "\"'  =1\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("x\",\"=1", "\"x\"\",\"\"=1\""),
            ("1-1", "1-1"),
            ("\u{202e}x", "\"\\u{202e}x\""),
        ] {
            assert_eq!(cell(text, shown), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_line_has_what_is_known_in_its_columns() {
        assert_eq!(
            line(&ended("=cmd|' /C calc'!A0"), shown),
            "16,2026-01-05T10:16:40Z,ended,alice@example.com,7K3F-9QX2,,,,,,\"'=cmd|' /C calc'!A0\",\
             \"7K3F-9QX2: alice@example.com ended it: \"\"=cmd|' /C calc'!A0\"\"\"\r\n"
        );
        let of = |kind: &str| {
            let entries = GOLDEN.lines().map(|line| Entry::parse(line.as_bytes()).unwrap());
            line(&entries.into_iter().find(|entry| entry.event.kind() == kind).unwrap(), shown)
        };
        for (kind, begins) in [
            ("policy_applied", "1,2026-01-05T10:00:00Z,policy_applied,system:start,,,,,,,,\""),
            ("logged_in", "3,2026-01-05T10:00:05Z,logged_in,alice,,,,,,192.0.2.1,,\""),
            ("asked", "5,2026-01-05T10:00:10Z,asked,alice,7K3F-9QX2,\"web-1 web-2\",deploy,,1,,"),
            ("granted", "8,2026-01-05T10:00:20Z,granted,bob,7K3F-9QX2,,,,1,,,\""),
            ("certificate_signed", "10,2026-01-05T10:00:21Z,certificate_signed,,7K3F-9QX2,,,9,,,,\""),
            ("session_opened", "37,2026-01-05T10:48:21Z,session_opened,,7K3F-9QX2,web-1,deploy,9,,192.0.2.7,,\""),
        ] {
            assert!(of(kind).starts_with(begins), "{}", of(kind));
        }
    }

    /// Cells of a line, by the grammar of RFC 4180.
    fn cells(line: &str) -> Vec<String> {
        let (mut cells, mut is_quoted) = (vec![String::new()], false);
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            let last = cells.last_mut().unwrap();
            match c {
                '"' if is_quoted && characters.peek() == Some(&'"') => last.extend(characters.next()),
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => cells.push(String::new()),
                other => last.push(other),
            }
        }
        assert!(!is_quoted, "{line}");
        cells
    }

    #[test]
    fn every_line_has_the_columns_of_the_first() {
        let columns = cells(HEAD.trim_end()).len();
        for text in GOLDEN.lines() {
            let entry = Entry::parse(text.as_bytes()).unwrap();
            let cells = cells(line(&entry, shown).trim_end());
            assert_eq!(cells.len(), columns, "{text}");
            assert_eq!(cells.last().unwrap(), &shown(&entry.event.sentence()));
        }
    }
}
