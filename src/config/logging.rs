//! `[logging]`: the process's own log.

use super::quoted;
use crate::document::Table;

/// The levels there are. A filter of the library takes any other word for the name of a part of the program, and switches all others off.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The longest filter, in bytes. Our choice.
const FILTER_BYTES_MAX: usize = 200;

/// The process's own log (not the audit log), on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// JSON instead of text.
    pub json: bool,
    /// `off error warn info debug trace`, or a filter such as `warn,hallpass=debug`.
    pub level: String,
}

pub(super) fn logging(root: &Table<'_>) -> Logging {
    let Some(table) = root.table("logging") else { return Logging { json: false, level: "info".to_owned() } };
    let json = table.parsed("format", |text| match text {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(format!("{} is not a format: \"text\" or \"json\"", quoted(other))),
    });
    let level = table.parsed("level", |text| {
        let wrong =
            || format!("{} is not a level: one of {}, or \"warn,hallpass=debug\"", quoted(text), LEVELS.join(" "));
        if text.len() <= FILTER_BYTES_MAX && text.split(',').all(is_directive) {
            Ok(text.to_owned())
        } else {
            Err(wrong())
        }
    });
    Logging {
        json: json.is_some_and(|found| found.value),
        level: level.map_or_else(|| "info".to_owned(), |found| found.value),
    }
}

/// A level, or one for a part of the program: `hallpass::http=debug`.
fn is_directive(text: &str) -> bool {
    let Some((part, level)) = text.split_once('=') else { return LEVELS.contains(&text) };
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:-".contains(&b);
    !part.is_empty() && part.bytes().all(is_part) && LEVELS.contains(&level)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    const EXAMPLE: &str = include_str!("../../config.toml.example");

    fn level(text: &str) -> Result<String, String> {
        let text = EXAMPLE.replace("#level = \"info\"", &format!("level = \"{text}\""));
        let parsed = Config::parse(&text, "config.toml", Path::new("/etc/hallpass"), None);
        parsed.map(|config| config.logging.level).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// What is no level would be the name of a part that nothing has, and the log would be silent.
    #[test]
    fn a_word_that_is_no_level_is_a_problem() {
        for good in
            ["off", "error", "warn", "info", "debug", "trace", "hallpass=debug", "warn,hallpass::http=trace,h2=off"]
        {
            assert_eq!(level(good).as_deref(), Ok(good));
        }
        let long = format!("{}=info", "a".repeat(200));
        for bad in
            ["warning", "Info", "hallpass", "info,hallpas", "hallpass=warning", "=info", "info,", "", "loud!", &long]
        {
            let problem = level(bad).unwrap_err();
            assert!(
                problem.contains("logging.level") && problem.contains("off error warn info debug trace"),
                "{problem}"
            );
        }
    }
}
