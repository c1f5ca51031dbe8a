//! One page for each `HP-` code: what happened, why it can happen, what to do, whether trying again helps. Read without a network.
//!
//! What for: `hallpass help HP-302`, `hallpass help codes`, and the table in `docs/errors.md`, all from the same pages. A message names
//! its code on its `more` line.
//! What not: no page is made up for a message that nothing says; codes that are only reserved stand in [`RESERVED`].
//!
//! Invariants (tests beside and in `tests/it/cli/help.rs`): codes are sorted and distinct, every code in `src/` has a page and every page
//! is used, no line is wider than a terminal, and the documentation holds the same table.

mod access;
mod client;
mod host;
mod server;

use serde::Serialize;

use super::Context;
use super::failure::Failure;

/// How `hallpass help` knows that a code is meant.
const PREFIX: &str = "HP-";

/// A page on one code.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Page {
    /// `HP-302`.
    pub(crate) code: &'static str,
    /// The situation, in a few words.
    pub(crate) situation: &'static str,
    /// The message's first line, with example names.
    pub(crate) says: &'static str,
    /// How it can come about.
    pub(crate) causes: &'static [&'static str],
    /// What to do; a line that starts with two blanks is a command.
    pub(crate) steps: &'static [&'static str],
    /// Whether trying again helps.
    pub(crate) again: &'static str,
}

/// Codes that the design names and nothing says yet, with what is missing for them.
const RESERVED: &[(&str, &str)] = &[
    ("HP-112", "no browser for the login: logins by browser are not built"),
    ("HP-113", "unknown here after a login by an identity provider: not built"),
    ("HP-122", "a host's clock is wrong: operators see it, and clients are not told"),
];

/// All pages, by code.
pub(crate) fn pages() -> impl Iterator<Item = &'static Page> {
    server::PAGES.iter().chain(access::PAGES).chain(client::PAGES).chain(host::PAGES)
}

/// Whether a word after `hallpass help` means a code, however it is spelt.
pub(crate) fn is_code(word: &str) -> bool {
    word.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// `hallpass help HP-302`.
///
/// # Errors
/// When there is no such page; names the nearest.
pub(crate) fn page(context: &Context, word: &str) -> Result<(), Failure> {
    let code = word.to_ascii_uppercase();
    if let Some(page) = pages().find(|page| page.code == code) {
        return context.out.answer(&serde_json::json!({ "schema": "hallpass.code.v1", "page": page }), &text(page));
    }
    if let Some((code, why)) = RESERVED.iter().find(|(reserved, _)| *reserved == code) {
        return Err(Failure::usage(format!("nothing says {code} yet")).because(*why).next("hallpass help codes"));
    }
    let mut failure = Failure::usage(format!("there is no code {word:?}"));
    if let Some(page) = nearest(&code) {
        failure = failure.because(format!("the nearest is {}: {}", page.code, page.situation));
        failure = failure.next(format!("hallpass help {}", page.code));
    }
    Err(failure.next("hallpass help codes"))
}

/// `hallpass help codes`.
///
/// # Errors
/// When standard output can't take it.
pub(crate) fn list(context: &Context) -> Result<(), Failure> {
    let mut text = "Codes (hallpass help HP-NNN has a page on each)\n".to_owned();
    for page in pages() {
        text.push_str(&format!("  {}  {}\n", page.code, page.situation));
    }
    text.push_str("\nReserved, and not said by this version\n");
    for (code, why) in RESERVED {
        text.push_str(&format!("  {code}  {why}\n"));
    }
    let reserved: Vec<_> = RESERVED.iter().map(|(code, why)| serde_json::json!({ "code": code, "why": why })).collect();
    let document = serde_json::json!({
        "schema": "hallpass.codes.v1", "codes": pages().collect::<Vec<_>>(), "reserved": reserved,
    });
    context.out.answer(&document, &text)
}

/// The page whose number is nearest.
fn nearest(code: &str) -> Option<&'static Page> {
    let number = |code: &str| code.get(PREFIX.len()..)?.parse::<u32>().ok();
    let wanted = number(code)?;
    pages().min_by_key(|page| number(page.code).map_or(u32::MAX, |number| number.abs_diff(wanted)))
}

fn text(page: &Page) -> String {
    let mut text = format!("{}  {}\n\n  hallpass: {}\n", page.code, page.situation, page.says);
    for (title, lines) in [("Why it can happen", page.causes), ("What to do", page.steps)] {
        text.push_str(&format!("\n{title}\n"));
        for line in lines {
            let bullet = if line.starts_with("  ") { "  " } else { "- " };
            text.push_str(&format!("  {bullet}{line}\n"));
        }
    }
    text.push_str(&format!("\nTrying again: {}\n", page.again));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_distinct_and_not_reserved_too() {
        let codes: Vec<&str> = pages().map(|page| page.code).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
        assert!(RESERVED.iter().all(|(code, _)| !codes.contains(code)));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_and_no_page_lacks_a_part() {
        for page in pages() {
            for line in text(page).lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", page.code);
            }
            assert!(!page.causes.is_empty() && !page.again.is_empty(), "{}", page.code);
            assert!(page.steps.iter().any(|step| step.starts_with("  ")), "{} names no command", page.code);
        }
        for (code, why) in RESERVED {
            assert!(code.len() + why.len() <= 76, "{code}");
        }
    }

    #[test]
    fn the_nearest_page_is_offered_for_a_code_that_is_none() {
        assert_eq!(nearest("HP-303").unwrap().code, "HP-303");
        assert_eq!(nearest("HP-399").unwrap().code, "HP-401");
        assert_eq!(nearest("HP-0").unwrap().code, "HP-101");
        assert!(nearest("HP-x").is_none());
    }
}
