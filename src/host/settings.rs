//! `host.toml`: what this host is called, and what the guard and the principals command go by.
//!
//! What for: the one file of the host side; documented key by key in `deploy/host.toml.example`. Enrolment writes the same file.
//!
//! Invariants: an unknown key is an error. The file, and the trust bundle and list that it names, are only read when nobody but
//! root (or the caller, in tests) can change them. Nothing here is secret: an unprivileged command reads it too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::document::{self, Table, quoted};
use crate::name::{Account, HostName, Principal, TagKey, TagValue};

/// Where it is, unless the command line says otherwise.
pub const PATH: &str = "/etc/hallpass/host.toml";

/// Where what is known about running sessions is, unless it says otherwise.
pub const STATE: &str = "/run/hallpass";

/// Where what the daemon has to report is, unless it says otherwise.
pub const SPOOL: &str = "/var/lib/hallpass/host/spool";

/// The longest `host.toml`. Our own choice; a usual one has 300 bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// The most tags and refused accounts. Our own choice.
const COUNT_MAX: usize = 64;

/// The longest path. Our own choice.
const PATH_BYTES_MAX: usize = 1_000;

/// What this host goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The host's name in the policy.
    pub name: HostName,
    /// Which principals open an account here.
    pub scope: Scope,
    /// The host's tags.
    pub tags: BTreeMap<TagKey, TagValue>,
    /// The trust bundle: the public keys of hallpass's CA, and of nothing else.
    pub trust: PathBuf,
    /// Serials of certificates that are over before their window ends, one on each line; need not exist.
    pub ended: PathBuf,
    /// Folder of what is known about running sessions.
    pub state: PathBuf,
    /// Folder of what the host's daemon has to report; need not exist.
    pub spool: PathBuf,
    /// What to do with logins that are not by our CA.
    pub others: Others,
    /// Accounts that no certificate opens here.
    pub refuse_accounts: BTreeSet<Account>,
}

/// Which principals open an account (`scope` of the host in the policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `account@host`, `account@tag:key=value`.
    Host,
    /// The account's plain name.
    Account,
}

/// What to do with logins that are not by our CA: plain keys, passwords, certificates of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They are not our business.
    Allow,
    /// Nobody gets in but by our CA.
    Refuse,
}

impl Settings {
    /// Reads `host.toml`.
    ///
    /// # Errors
    /// In words: what is wrong with it, with file, line and column.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = read(path, TEXT_BYTES_MAX)?;
        let file = path.display().to_string();
        let text = document::decode(&bytes, &file).map_err(|problem| problem.to_string())?;
        Self::parse(text, &file)
    }

    /// Parses the text of `host.toml`.
    ///
    /// # Errors
    /// Every problem, one on each line.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let told =
            |problems: Vec<document::Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        document::read(text, file, TEXT_BYTES_MAX, settings).map_err(told)
    }

    /// What a certificate must name (one of these) to open `account` here; empty when no certificate does.
    #[must_use]
    pub fn principals(&self, account: &Account) -> BTreeSet<Principal> {
        if self.refuse_accounts.contains(account) {
            return BTreeSet::new();
        }
        match self.scope {
            Scope::Account => BTreeSet::from([Principal::of_account(account)]),
            Scope::Host => {
                let by_tag = |(key, value)| Principal::parse(&format!("{account}@tag:{key}={value}")).ok();
                let by_tag = self.tags.iter().filter_map(by_tag);
                by_tag.chain([Principal::on_host(account, &self.name)]).collect()
            }
        }
    }
}

fn settings(root: &Table<'_>) -> Option<Settings> {
    let name = root.needed("name", root.parsed("name", HostName::parse), "name = \"web-1\"");
    let scope = root.parsed("scope", |text| match text {
        "host" => Ok(Scope::Host),
        "account" => Ok(Scope::Account),
        _ => Err(format!("{} is not accepted; it takes \"host\" or \"account\"", quoted(text))),
    });
    let others = root.parsed("others", |text| match text {
        "allow" => Ok(Others::Allow),
        "refuse" => Ok(Others::Refuse),
        _ => Err(format!("{} is not accepted; it takes \"allow\" or \"refuse\"", quoted(text))),
    });
    let tags = root.pairs("tags", COUNT_MAX, TagKey::parse, TagValue::parse);
    let refused = root.list("refuse_accounts", COUNT_MAX, Account::parse);
    let refused = refused.map(|list| list.value.into_iter().map(|account| account.value).collect());
    let path = |key, default: &str| root.parsed(key, parse_path).map_or_else(|| default.into(), |found| found.value);
    let (trust, ended) = (path("trust", "/etc/ssh/hallpass/user_ca_keys"), path("ended", "/etc/ssh/hallpass/ended"));
    let (state, spool) = (path("state", STATE), path("spool", SPOOL));
    Some(Settings {
        name: name?.value,
        scope: scope.map_or(Scope::Host, |found| found.value),
        tags: tags.unwrap_or_default().into_iter().collect(),
        trust,
        ended,
        state,
        spool,
        others: others.map_or(Others::Allow, |found| found.value),
        refuse_accounts: refused.unwrap_or_default(),
    })
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && text.len() <= PATH_BYTES_MAX {
        Ok(PathBuf::from(text))
    } else {
        Err(format!("{} is not accepted; it takes a path from the root, such as \"/run/hallpass\"", quoted(text)))
    }
}

/// Reads a small file that nobody but root and us can change.
///
/// # Errors
/// In words, with the file's name.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("cannot read {path:?}: {error}");
    // Without O_NONBLOCK a named pipe would hold us here for ever.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    let is_ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !is_ours || metadata.mode() & 0o022 != 0 {
        return Err(format!("{path:?} must be a file that only root can change: chown root, chmod 644"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    <&File>::take(&file, most).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() > limit { Err(format!("{path:?} is longer than {limit} bytes")) } else { Ok(bytes) }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test makes the files that operators make")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/host.toml.example");

    /// The example with every key that it only mentions put in.
    fn full() -> String {
        let uncomment = |line: &str| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned(),
            _ => line.to_owned(),
        };
        EXAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n")
    }

    fn texts(settings: &Settings, account: &str) -> Vec<String> {
        settings.principals(&Account::parse(account).unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_names_every_key_and_its_defaults_are_the_real_ones() {
        let known = document::read(&full(), "x", TEXT_BYTES_MAX, |root| {
            settings(root).map(|_| root.sheet().keys.borrow().clone())
        });
        let known: Vec<String> = known.unwrap().into_iter().collect();
        assert_eq!(known, ["ended", "name", "others", "refuse_accounts", "scope", "spool", "state", "tags", "trust"]);
        for key in &known {
            assert!(full().contains(&format!("\n{key} ")), "{key} is missing in deploy/host.toml.example");
        }
        let (bare, full) = (Settings::parse(EXAMPLE, "x").unwrap(), Settings::parse(&full(), "x").unwrap());
        assert_eq!(Settings { tags: full.tags.clone(), refuse_accounts: full.refuse_accounts.clone(), ..bare }, full);
        assert_eq!(texts(&full, "deploy"), ["deploy@tag:env=prod", "deploy@tag:role=web", "deploy@web-1"]);
        assert!(texts(&full, "root").is_empty());
    }

    #[test]
    fn a_host_of_account_scope_takes_the_plain_name() {
        let settings = Settings::parse("name = \"web-1\"\nscope = \"account\"\ntags = { a = \"b\" }\n", "x").unwrap();
        assert_eq!(texts(&settings, "deploy"), ["deploy"]);
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let text = "nme = \"web-1\"\nscope = \"tag\"\nothers = true\nstate = \"run\"\ntags = { A = \"b\" }\n\
                    refuse_accounts = [\"ro ot\"]\n";
        assert_eq!(
            Settings::parse(text, "host.toml").unwrap_err().lines().collect::<Vec<_>>(),
            [
                "host.toml:1:1: \"name\" is missing; write name = \"web-1\"",
                "host.toml:1:1: nme: unknown key; did you mean \"name\"?",
                "host.toml:2:9: scope: \"tag\" is not accepted; it takes \"host\" or \"account\"",
                "host.toml:3:10: others: true is true or false, but it takes a string \"…\"",
                "host.toml:4:9: state: \"run\" is not accepted; it takes a path from the root, such as \"/run/hallpass\"",
                "host.toml:5:10: tags.A: \"A\" is not a tag key: 1 to 32 of a-z 0-9 _ . -, starting with a letter or digit",
                "host.toml:6:20: refuse_accounts[1]: \"ro ot\" is not an account: 1 to 32 of a-z 0-9 _ . -, starting with a letter or _",
            ]
        );
    }

    #[test]
    fn a_file_that_others_can_change_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.toml");
        std::fs::write(&path, "name = \"web-1\"\n").unwrap();
        for (mode, is_believed) in [(0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Settings::load(&path).is_ok(), is_believed, "{mode:o}");
        }
    }
}
