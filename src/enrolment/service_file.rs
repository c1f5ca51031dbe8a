//! `host-service.toml`: where the service is, how it is recognised, and whose signature a trust bundle must bear.
//!
//! Apart from `host.toml` because nothing that decides about a login needs it. Nothing here is secret: the host proves itself with its SSH
//! host key.

use std::path::Path;

use crate::client::Server;
use crate::document::{self, Table};
use crate::host::settings;
use crate::note::NoteVerifier;

/// The longest file. Our own choice; a usual one has 500 bytes.
const BYTES_MAX: usize = 16 * 1024;

/// The longest command. Our own choice.
const COMMAND_BYTES_MAX: usize = 1_000;

/// What is in it.
#[derive(Clone, Debug)]
pub struct ServiceFile {
    /// Where the service is.
    pub server: Server,
    /// The log key, as it was when the host was enrolled.
    pub log_key: NoteVerifier,
    /// How sshd is told to read its configuration, for `sh -c`, where neither systemctl nor SIGHUP is right.
    pub reload: Option<String>,
}

impl ServiceFile {
    /// Reads it.
    ///
    /// # Errors
    /// In words: what is wrong with it.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = settings::read(path, BYTES_MAX)?;
        let file = path.display().to_string();
        let text = document::decode(&bytes, &file).map_err(|problem| problem.to_string())?;
        Self::parse(text, &file)
    }

    /// Parses its text.
    ///
    /// # Errors
    /// Every problem, one on each line.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        document::read(text, file, BYTES_MAX, read_root)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    /// Its text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { server: Server { url, pin, proxy }, log_key, reload } = self;
        let optional = |key: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{key} = {value:?}\n")).unwrap_or_default()
        };
        format!(
            "# Where the access service is. Written by `hallpass host enrol`.\n\
             server = {url:?}\n{}{}\
             # Signs trust bundles: one that it has not signed is not taken.\nlog_key = \"{}\"\n{}",
            optional("pin", pin),
            optional("proxy", proxy),
            log_key.to_text(),
            optional("reload", reload)
        )
    }
}

fn read_root(root: &Table<'_>) -> Option<ServiceFile> {
    let server = root.needed("server", root.parsed("server", parse_plain), "server = \"https://…\"");
    let pin = root.parsed("pin", parse_plain).map(|found| found.value);
    let proxy = root.parsed("proxy", parse_plain).map(|found| found.value);
    let log_key = root.needed("log_key", root.parsed("log_key", NoteVerifier::parse), "the log key");
    let reload = root.parsed("reload", parse_command).map(|found| found.value);
    let url = server?.value;
    Some(ServiceFile { server: Server { url, pin, proxy }, log_key: log_key?.value, reload })
}

/// A command for `sh -c`, which this file can hold.
///
/// # Errors
/// When it is none, or has other characters than printable ones of ASCII.
pub fn parse_command(text: &str) -> Result<String, &'static str> {
    let is_plain =
        !text.trim().is_empty() && text.len() <= COMMAND_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if is_plain {
        Ok(text.to_owned())
    } else {
        Err("it must be one line of printable ASCII, 1,000 characters at most; name a script")
    }
}

/// What the client will look at more closely.
fn parse_plain(text: &str) -> Result<String, &'static str> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if is_plain { Ok(text.to_owned()) } else { Err("it must be printable, without blanks") }
}
