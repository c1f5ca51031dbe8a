//! `[sandbox]`: how much of it must be had, and what more it leaves open.

use super::ca::CaKeys;
use super::{Places, quoted};
use crate::document::{Found, Table};
use crate::sandbox::{Further, Mode, Settings};
use crate::signer;

/// The most paths and ports of each list. Our own choice: who needs more wants `mode = "off"`.
const LIST_MAX: usize = 32;

pub(super) fn sandbox(root: &Table<'_>, places: &Places<'_>, cas: Option<&CaKeys>) -> Settings {
    let Some(table) = root.table("sandbox") else { return Settings::default() };
    let found = table.parsed("mode", |text| match text {
        "on" => Ok(Mode::On),
        "required" => Ok(Mode::Required),
        "off" => Ok(Mode::Off),
        other => Err(format!("{} is not a mode: \"on\", \"required\" or \"off\"", quoted(other))),
    });
    let mode = found.as_ref().map_or(Mode::On, |found| found.value);
    let is_told = ["read", "write", "connect"].map(|key| table.has(key)).contains(&true);
    let paths = |key| values(table.list(key, LIST_MAX, |text| places.plain(text)));
    let further =
        Further { read: paths("read"), write: paths("write"), connect: values(table.list("connect", LIST_MAX, port)) };
    let programs = table.flag("programs").is_some_and(|found| found.value);
    // (a key that could not be read is a problem of its own)
    let has_token = cas.is_none_or(CaKeys::has_token);
    if programs && !has_token {
        table.refuse("programs", "only the library of a token starts any, and no CA key is in one; remove this");
    }
    if let Some(found) = found
        && mode == Mode::Required
        && has_token
        && !is_told
    {
        let why = "a token's library may need files and connections of its own: say which in read, write and connect (docs/operations.md)";
        table.sheet().problem(&found.spot, why);
    }
    Settings { mode, further: is_told.then_some(further), programs }
}

fn values<T>(found: Option<Found<Vec<Found<T>>>>) -> Vec<T> {
    found.map_or_else(Vec::new, |found| found.value.into_iter().map(|one| one.value).collect())
}

fn port(text: &str) -> Result<u16, String> {
    let wrong = || format!("{} is not a port: \"1\" to \"65535\"", quoted(text));
    text.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == text).ok_or_else(wrong)
}

impl CaKeys {
    /// Whether any of the keys is in a token.
    fn has_token(&self) -> bool {
        self.all().any(|key| matches!(key, signer::Settings::Pkcs11(_)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::{Further, Mode, Settings};

    const EXAMPLE: &str = include_str!("../../config.toml.example");
    const TOKEN: &str =
        "pkcs11 = \"/usr/lib/x.so\"\ntoken = \"t\"\nlabel = \"k\"\npin_file = \"pin\"\npublic_key = \"ca.pub\"";

    fn with(key: &str, lines: &str) -> Result<Settings, String> {
        let text = EXAMPLE
            .replace("key = \"/etc/hallpass/user-ca\"", key)
            .replace("\n[sandbox]\n", &format!("\n[sandbox]\n{lines}\n"));
        let parsed = Config::parse(&text, "config.toml", Path::new("/etc/hallpass"), None);
        parsed.map(|config| config.sandbox).map_err(|problems| problems.iter().map(|p| format!("{p}\n")).collect())
    }

    #[test]
    fn what_a_token_needs_is_said_before_the_sandbox_can_be_required() {
        let file = "key = \"user-ca\"";
        assert_eq!(with(file, ""), Ok(Settings::default()));
        assert_eq!(with(file, "mode = \"required\"").unwrap().mode, Mode::Required);
        assert_eq!(with(TOKEN, "mode = \"off\"").unwrap().mode, Mode::Off);
        let told = with(
            TOKEN,
            "mode = \"required\"\nwrite = [\"/var/lib/softhsm\", \"t\"]\nconnect = [\"1792\"]\nprograms = true",
        )
        .unwrap();
        let write = ["/var/lib/softhsm", "/etc/hallpass/t"].map(Into::into).into();
        let further = Some(Further { read: Vec::new(), write, connect: vec![1792] });
        assert_eq!(told, Settings { mode: Mode::Required, further, programs: true });
        for (key, lines, wrong) in [
            (TOKEN, "mode = \"required\"", "may need files and connections of its own"),
            (file, "programs = true", "no CA key is in one"),
            (file, "mode = \"strict\"", "is not a mode"),
            (file, "connect = [\"0\"]", "is not a port"),
            (file, "connect = [443]", "it takes a string"),
            (file, "read = [\"\"]", "the path is empty"),
            (file, "exec = true", "unknown key"),
        ] {
            let problems = with(key, lines).unwrap_err();
            assert!(problems.contains(wrong), "{lines}: {problems}");
        }
    }
}
