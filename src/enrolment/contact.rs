//! What the daemon last knew of the service, in a file for `host status` and `host check`.
//!
//! It lies in memory (`/run`): after a start of the machine nobody has been in contact yet.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::places::Root;
use crate::document::{self, Table};
use crate::durable;
use crate::host::process::Process;
use crate::host::settings;
use crate::time::Timestamp;

/// Where it is.
const PATH: &str = "/run/hallpass/daemon";

/// The longest such file: all that is kept, and then some.
const BYTES_MAX: usize = 8 * 1024;

/// The most of a trouble that is kept: with a line to type, in which stand a URL and a pin.
const TROUBLE_CHARS_MAX: usize = 1024;

/// The most of a reason why something is not in place.
const REASON_CHARS_MAX: usize = 300;

/// The most of what is not in place that is kept.
const LEFT_MAX: usize = 16;

/// What the daemon last knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The daemon's process.
    pub daemon: Process,
    /// When the service answered last.
    pub answered: Option<Timestamp>,
    /// When the last check-in was taken.
    pub checked_in: Option<Timestamp>,
    /// Whether the service has said that it has retired this host.
    pub is_retired: bool,
    /// Why the service can't be asked now.
    pub trouble: Option<String>,
    /// Why something that it said is not in place; a sentence each.
    pub left: Vec<String>,
}

impl Contact {
    /// Writes it down. Nothing depends on it.
    ///
    /// # Errors
    /// In words.
    pub fn save(&self) -> Result<(), String> {
        let path = path();
        if let Some(folder) = path.parent() {
            durable::create_folder(folder, 0o755).map_err(|error| error.to_string())?;
        }
        durable::replace(&path, self.to_text().as_bytes(), 0o600).map_err(|error| error.to_string())
    }

    /// Reads it; `None` if there is none, or it makes no sense.
    #[must_use]
    pub fn load() -> Option<Self> {
        let bytes = settings::read(&path(), BYTES_MAX).ok()?;
        document::read(std::str::from_utf8(&bytes).ok()?, PATH, BYTES_MAX, read_root).ok()
    }

    /// Whether the daemon that wrote it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon.is_running()
    }

    fn to_text(&self) -> String {
        let Self { daemon, answered, checked_in, is_retired, trouble, left } = self;
        let mut text = format!("pid = {}\nstarted = {}\n", daemon.pid, daemon.started);
        let times = [("answered", answered), ("checked_in", checked_in)];
        for (key, at) in times {
            if let Some(at) = at {
                // Writing to a string can't fail.
                _ = writeln!(text, "{key} = \"{at}\"");
            }
        }
        if *is_retired {
            text.push_str("retired = true\n");
        }
        if let Some(trouble) = trouble {
            _ = writeln!(text, "trouble = {}", quoted(trouble, TROUBLE_CHARS_MAX));
        }
        // Each once, as the reader of documents demands of a list.
        let left: BTreeSet<String> = left.iter().map(|why| quoted(why, REASON_CHARS_MAX)).take(LEFT_MAX).collect();
        let left: Vec<String> = left.into_iter().collect();
        _ = writeln!(text, "left = [{}]", left.join(", "));
        text
    }
}

/// As much of a text as is kept, in quotation marks.
fn quoted(text: &str, most: usize) -> String {
    let plain = text.chars().map(|c| if (' '..='~').contains(&c) && c != '"' && c != '\\' { c } else { '\'' });
    format!("\"{}\"", plain.take(most).collect::<String>())
}

fn read_root(root: &Table<'_>) -> Option<Contact> {
    let pid = root.needed("pid", root.integer("pid", 0..=1 << 30), "a number");
    let started = root.needed("started", root.integer("started", 0..=u64::MAX >> 1), "a number");
    let time = |key| root.parsed(key, Timestamp::parse).map(|found| found.value);
    let (answered, checked_in) = (time("answered"), time("checked_in"));
    let is_retired = root.flag("retired").is_some_and(|found| found.value);
    let trouble = root.string("trouble").map(|found| found.value.to_owned());
    let left = root.list("left", LEFT_MAX, |text| Ok::<_, String>(text.to_owned()));
    let left = left.map(|found| found.value.into_iter().map(|why| why.value).collect()).unwrap_or_default();
    let daemon = Process { pid: i32::try_from(pid?.value).ok()?, started: started?.value };
    Some(Contact { daemon, answered, checked_in, is_retired, trouble, left })
}

fn path() -> PathBuf {
    Root::default().path(Path::new(PATH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_whatever_the_trouble_says() {
        let contact = Contact {
            daemon: Process { pid: 7, started: 99 },
            answered: Some(Timestamp::from_unix(1_000).unwrap()),
            checked_in: None,
            is_retired: true,
            trouble: Some("no \"answer\"\nfrom \\ it".to_owned()),
            left: vec!["no space".to_owned(), "no\tsshd".to_owned(), "no space".to_owned()],
        };
        let read = |text: &str| document::read(text, "x", BYTES_MAX, read_root);
        let found = read(&contact.to_text()).unwrap();
        let left = vec!["no space".to_owned(), "no'sshd".to_owned()];
        assert_eq!(found, Contact { trouble: Some("no 'answer''from ' it".to_owned()), left, ..contact.clone() });
        // However much there is, it can be read.
        let left = (0..99).map(|n| format!("{n}{}", "y".repeat(999)));
        let much = Contact {
            trouble: Some("x".repeat(2_000)),
            left: left.chain(["y".to_owned(), "y".to_owned()]).collect(),
            ..contact
        };
        let found = read(&much.to_text()).unwrap();
        assert_eq!((found.left.len(), found.left[0].len()), (LEFT_MAX, REASON_CHARS_MAX));
        assert_eq!(found.trouble.unwrap().len(), TROUBLE_CHARS_MAX);
        assert!(read("pid = 7\n").is_err());
    }
}
