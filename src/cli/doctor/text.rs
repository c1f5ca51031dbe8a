//! An ssh configuration's text, line by line: where our `Include` stands, what stands before it, and which line names a user. Pure.
//!
//! Source: `ssh_config(5)`: `Keyword arguments`, `=` allowed between, quotes around arguments, `#` starts a comment line. Files that are
//! included are not followed.

use std::path::Path;

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: usize,
    /// The keyword in small letters.
    keyword: String,
    /// The rest, without quotes around it.
    pub(super) value: String,
}

/// Where our `Include` stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Before everything else.
    First(usize),
    /// Behind a line that is for all hosts: that one wins where both say something.
    Behind(usize, Line),
    /// Below a `Host` or `Match` line: it counts for those alone.
    Inside(usize, Line),
    /// Nowhere.
    Missing,
}

impl Line {
    /// As it stands: `Host *`.
    pub(super) fn shown(&self) -> String {
        let keyword = match self.keyword.as_str() {
            "host" => "Host",
            "match" => "Match",
            other => other,
        };
        format!("{keyword} {}", self.value)
    }
}

/// The lines that say something.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let parse = |(index, line): (usize, &str)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (keyword, value) = line.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((line, ""));
        let value = value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim_end().trim_matches('"');
        Some(Line { number: index.saturating_add(1), keyword: keyword.to_ascii_lowercase(), value: value.to_owned() })
    };
    text.lines().enumerate().filter_map(parse).collect()
}

/// Where the line stands that includes `folder/*.conf`.
pub(super) fn position(text: &str, folder: &Path) -> Position {
    let ours = format!("{}/*.conf", folder.display());
    let all = lines(text);
    let is_ours = |line: &Line| line.keyword == "include" && line.value == ours;
    let Some(index) = all.iter().position(is_ours) else { return Position::Missing };
    let (before, rest) = all.split_at(index);
    let number = rest.first().map_or(0, |line| line.number);
    let block = before.iter().rev().find(|line| matches!(line.keyword.as_str(), "host" | "match"));
    match (block, before.first()) {
        (Some(block), _) => Position::Inside(number, block.clone()),
        (None, Some(line)) => Position::Behind(number, line.clone()),
        (None, None) => Position::First(number),
    }
}

/// The first line that names this user.
pub(super) fn user_line(text: &str, user: &str) -> Option<Line> {
    lines(text).into_iter().find(|line| line.keyword == "user" && line.value == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: &str = "/home/ann/.config/hallpass/ssh";
    const OURS: &str = "Include \"/home/ann/.config/hallpass/ssh/*.conf\"\n";

    fn of(text: &str) -> String {
        match position(text, Path::new(FOLDER)) {
            Position::First(line) => format!("first {line}"),
            Position::Behind(line, before) => format!("{line} behind {} {}", before.number, before.shown()),
            Position::Inside(line, block) => format!("{line} inside {} {}", block.number, block.shown()),
            Position::Missing => "missing".to_owned(),
        }
    }

    #[test]
    fn the_include_is_found_with_what_hides_it() {
        assert_eq!(of(&format!("# a\n{OURS}Host *\n")), "first 2");
        assert_eq!(of(&format!("Host *\n  User x\n\n{OURS}")), "4 inside 1 Host *");
        assert_eq!(of(&format!("User=x\n{OURS}")), "2 behind 1 user x");
        assert_eq!(of(&format!("match host a\nHost b\n\tUser x\n{}", OURS.to_lowercase())), "4 inside 2 Host b");
        assert_eq!(of("Include other\n# Include \"/home/ann/.config/hallpass/ssh/*.conf\"\n"), "missing");
    }

    #[test]
    fn the_line_that_names_a_user_is_found() {
        assert_eq!(user_line("Host a\n  User \"deploi\"\n", "deploi").unwrap().number, 2);
        assert_eq!(user_line("Host a\n  # User deploi\n", "deploi"), None);
    }
}
