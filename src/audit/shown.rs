//! Text from outside as people may see it: on a terminal, in a file of a report.
//!
//! What for: the one list of characters that a reader could be deceived with. What a command prints, `cli/output.rs` escapes by it; what is put
//! into a file of a report is escaped where the file is written.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

/// Text on one line with everything escaped that a terminal would act on or hide.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Control, bidirectional, invisible and tag characters (Unicode's `Cc`, `Cf`, `Zl`, `Zp` and default-ignorable ones).
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(escape("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("x\ny\tz\u{9b}"), "x\\u{a}y\\u{9}z\\u{9b}");
        assert_eq!(escape("\u{202e}lanimret\u{200b}"), "\\u{202e}lanimret\\u{200b}");
        assert_eq!(escape("tag\u{e0041}"), "tag\\u{e0041}");
        assert_eq!(escape("Grüße, 日本, é"), "Grüße, 日本, é");
    }
}
