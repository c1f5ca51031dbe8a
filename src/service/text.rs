//! What a person may write into a request: reasons, remarks and tickets, checked in one place.
//!
//! An approver must read what was written and nothing else, and a log line or terminal must not be steered by it.
//! So control characters, line breaks, bidi marks and characters that print as nothing are refused, not stripped:
//! what is stored, shown and signed is what was sent, apart from blanks at both ends.
//!
//! What not: HTML and terminal escaping, which belong to those who print; look-alike letters, which are legitimate
//! in a reason (names are ASCII, see `name`).

use super::failure::{Failure, Outcome};

/// Longest reason or remark, in characters. Our own choice: a screenful.
pub const REASON_CHARS_MAX: usize = 1000;

/// Longest ticket, in characters. Our own choice.
pub const TICKET_CHARS_MAX: usize = 64;

/// The text without blanks at both ends, if it is acceptable; may be empty.
///
/// # Errors
/// `Invalid`, naming the character and its place.
pub fn check(what: &'static str, text: &str, chars_max: usize) -> Outcome<String> {
    let text = text.trim_matches(' ');
    let length = text.chars().count();
    if length > chars_max {
        return Err(Failure::Invalid(format!("the {what} has {length} characters; it may have {chars_max}")));
    }
    match text.chars().zip(1_usize..).find(|(c, _)| !is_visible(*c)) {
        None => Ok(text.to_owned()),
        Some((c, place)) => Err(Failure::Invalid(format!(
            "the {what} has the character U+{:04X} at place {place}; control, direction and invisible characters \
             are not accepted",
            u32::from(c)
        ))),
    }
}

/// Whether a character prints as something and leaves its neighbours alone.
fn is_visible(c: char) -> bool {
    !c.is_control() && !is_bidi(c) && !is_invisible(c) && !is_noncharacter(c)
}

/// Unicode's `Bidi_Control` (UAX #9): they reorder what is read.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Unicode's `Default_Ignorable_Code_Point` and separators, fillers and tags that show as nothing or as a line break.
const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200D}' | '\u{2028}'..='\u{2029}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0E}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Code points that are no characters, and private ones that each font shows differently.
fn is_noncharacter(c: char) -> bool {
    let point = u32::from(c);
    point & 0xFFFE == 0xFFFE
        || matches!(c, '\u{FDD0}'..='\u{FDEF}' | '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{10FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_of_many_languages_passes_and_only_outer_blanks_go() {
        for text in ["INC-1 check replication", "größere Störung – 本番 🔥", "naïve \"quotes\" & <tags>", ""]
        {
            assert_eq!(check("reason", text, 1000).unwrap(), text);
        }
        assert_eq!(check("reason", "  two  words  ", 1000).unwrap(), "two  words");
    }

    #[test]
    fn what_cannot_be_seen_is_refused_with_its_place() {
        for c in [
            '\0',
            '\n',
            '\r',
            '\t',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{200b}',
            '\u{200f}',
            '\u{202e}',
            '\u{2028}',
            '\u{2066}',
            '\u{feff}',
            '\u{fffe}',
            '\u{e000}',
            '\u{e0041}',
            '\u{10ffff}',
        ] {
            let Err(Failure::Invalid(why)) = check("reason", &format!("ab{c}d"), 1000) else {
                panic!("U+{:04X} passed", u32::from(c));
            };
            assert!(why.contains("at place 3") && why.contains(&format!("U+{:04X}", u32::from(c))), "{why}");
            assert!(why.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{why:?}");
        }
    }

    #[test]
    fn length_counts_characters_and_the_limit_itself_passes() {
        assert!(check("ticket", &"ü".repeat(64), TICKET_CHARS_MAX).is_ok());
        assert!(check("ticket", &"ü".repeat(65), TICKET_CHARS_MAX).is_err());
    }
}
