//! `[ca.user]`, `[ca.named.NAME]` and `[ca.host]`: where each CA key is.
//!
//! A key is in one of three places; what belongs to another one is an error, so that nobody believes a key to be in a token while
//! a file is used.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::{Places, quoted, section};
use crate::document::Table;
use crate::keyring::{Ca, NAMED_MAX};
use crate::name::CaName;
use crate::service::Rotation;
use crate::signer;
use crate::time::Lifetime;

/// The longest label of a token (PKCS#11: 32) or of a key in it (our choice).
const LABEL_BYTES_MAX: usize = 64;

/// The most further keys for hosts to trust: a bundle holds sixteen.
const TRUSTED_MAX: usize = 8;

/// The most further keys that a rotation can begin with. Our own choice: one to change to, one in reserve, and some room.
const NEXT_MAX: usize = 4;

/// How old a key may become before its rotation begins by itself: a minute, for tests, to a year.
const ROTATE_EVERY: RangeInclusive<Lifetime> = Lifetime::minutes(1)..=Lifetime::minutes(366 * 24 * 60);

/// How long clients must have been able to fetch a host key before it signs: at most 30 days. Our own choice: laptops come back from leave.
const PUBLISHED: RangeInclusive<Lifetime> = Lifetime::ZERO..=Lifetime::minutes(30 * 24 * 60);

/// The CA keys.
pub(super) struct CaKeys {
    pub(super) user: signer::Settings,
    pub(super) next: Vec<signer::Settings>,
    pub(super) host: Option<signer::Settings>,
    pub(super) host_next: Vec<signer::Settings>,
    pub(super) trusted: Vec<PathBuf>,
    pub(super) named: BTreeMap<CaName, UserCa>,
    pub(super) rotation: Rotation,
}

/// A user CA that is not the default one.
#[derive(Clone, Debug)]
pub struct UserCa {
    /// The key that signs.
    pub key: signer::Settings,
    /// Further keys, for rotations.
    pub next: Vec<signer::Settings>,
    /// Public halves of further keys that its hosts must trust.
    pub trusted: Vec<PathBuf>,
}

impl CaKeys {
    /// Where each key that signs, or may one day, is.
    pub(super) fn all(&self) -> impl Iterator<Item = &signer::Settings> {
        all((&self.user, &self.next), (self.host.as_ref(), &self.host_next), &self.named)
    }
}

/// The keys of all CAs: those that sign, and the further ones.
pub(super) fn all<'k>(
    (user, next): (&'k signer::Settings, &'k [signer::Settings]),
    (host, host_next): (Option<&'k signer::Settings>, &'k [signer::Settings]),
    named: &'k BTreeMap<CaName, UserCa>,
) -> impl Iterator<Item = &'k signer::Settings> {
    let named = named.values().flat_map(|ca| std::iter::once(&ca.key).chain(&ca.next));
    std::iter::once(user).chain(next).chain(host).chain(host_next).chain(named)
}

pub(super) fn keys(root: &Table<'_>, places: &Places<'_>) -> Option<CaKeys> {
    let example = "[ca.user] with key = \"/etc/hallpass/user-ca\"";
    section(root, "ca", example, |ca| {
        let mut host_next = Some(Vec::new());
        let mut rotation = Rotation::default();
        let further = |table: &Table<'_>| -> Option<Vec<signer::Settings>> {
            table.tables("next", NEXT_MAX).iter().map(|table| ca_key(table, places)).collect()
        };
        let every = |table: &Table<'_>| table.duration("rotate_every", ROTATE_EVERY).map(|found| found.value);
        let user_ca = |table: &Table<'_>| -> (Option<Lifetime>, Option<UserCa>) {
            let listed = table.list("trusted", TRUSTED_MAX, |text| places.plain(text));
            let trusted =
                listed.map_or_else(Vec::new, |found| found.value.into_iter().map(|path| path.value).collect());
            let (next, every, key) = (further(table), every(table), ca_key(table, places));
            (every, key.zip(next).map(|(key, next)| UserCa { key, next, trusted }))
        };
        let user = section(ca, "user", example, |table| {
            let (every, user) = user_ca(table);
            rotation.every.extend(every.map(|every| (Ca::USER, every)));
            user
        });
        let tables = ca.named_tables("named", NAMED_MAX, named);
        let mut named = BTreeMap::new();
        for (name, table) in &tables {
            let (every, ca) = user_ca(table);
            rotation.every.extend(every.map(|every| (Ca::User(name.value.clone()), every)));
            named.extend(ca.map(|ca| (name.value.clone(), ca)));
        }
        let are_whole = named.len() == tables.len();
        let host = ca.table("host").map(|table| {
            host_next = further(&table);
            rotation.every.extend(every(&table).map(|every| (Ca::Host, every)));
            rotation.published = table.duration("published", PUBLISHED).map_or(rotation.published, |found| found.value);
            ca_key(&table, places)
        });
        let host = host.map_or(Some(None), |host| host.map(Some));
        let (UserCa { key: user, next, trusted }, host, host_next) = (user?, host?, host_next?);
        are_whole.then_some(CaKeys { user, next, host, host_next, trusted, named, rotation })
    })
}

/// The name of a user CA beside the default one.
fn named(text: &str) -> Result<CaName, String> {
    match CaName::parse(text) {
        Ok(name) if name.is_default() => Err("the default CA is [ca.user]; give this one another name".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

/// Where one CA key is: in a file, an agent or a token. What belongs to another backend is refused.
fn ca_key(table: &Table<'_>, places: &Places<'_>) -> Option<signer::Settings> {
    let refuse = |keys: &[&'static str], backend: &str| {
        for key in keys {
            table.refuse(key, &format!("a CA key in {backend} has no such setting; remove it"));
        }
    };
    let public_key = |table: &Table<'_>| {
        table.needed("public_key", places.path(table, "public_key"), "public_key = \"/etc/hallpass/user-ca.pub\"")
    };
    if table.has("pkcs11") {
        refuse(&["key", "passphrase_file", "agent"], "a token");
        let library = places.path(table, "pkcs11");
        let label = |key| table.parsed(key, label).map(|found| found.value);
        let token = table.needed("token", label("token"), "token = \"hallpass\", the token's label");
        let label = table.needed("label", label("label"), "label = \"user-ca\", the key's label in the token");
        let pin_path = table.needed("pin_file", places.secret(table, "pin_file"), "pin_file = \"credential:ca-pin\"");
        let public_key = public_key(table);
        let (library, token, label) = (library?, token?, label?);
        let (pin_path, public_key) = (pin_path?, public_key?);
        return Some(signer::Settings::Pkcs11(signer::pkcs11::Settings {
            library,
            token,
            label,
            pin_path,
            public_key,
        }));
    }
    refuse(&["token", "label", "pin_file"], "a file or an agent");
    if table.has("agent") {
        refuse(&["key", "passphrase_file"], "an agent");
        let (socket, public_key) = (places.path(table, "agent"), public_key(table));
        return Some(signer::Settings::Agent(signer::agent::Settings { socket: socket?, public_key: public_key? }));
    }
    refuse(&["public_key"], "a file");
    let example = "key = \"/etc/hallpass/user-ca\", or agent or pkcs11";
    let key = table.needed("key", places.secret(table, "key"), example);
    let passphrase_path = places.secret(table, "passphrase_file");
    Some(signer::Settings::File(signer::file::Settings { path: key?, passphrase_path }))
}

/// A label in a token.
fn label(text: &str) -> Result<String, String> {
    let is_label = (1..=LABEL_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_label { Ok(text.to_owned()) } else { Err(format!("{} is not a label of at most 64 bytes", quoted(text))) }
}

impl super::Config {
    /// CA keys that are in files.
    pub fn ca_key_files(&self) -> impl Iterator<Item = &Path> {
        self.ca_keys().filter_map(|key| match key {
            signer::Settings::File(file) => Some(file.path.as_path()),
            signer::Settings::Agent(_) | signer::Settings::Pkcs11(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::{Ca, CaName, Lifetime, signer};

    const EXAMPLE: &str = include_str!("../../config.toml.example");

    /// The example with other lines for the user CA key.
    fn user_ca(lines: &str) -> Result<signer::Settings, Vec<String>> {
        let parsed = Config::parse(
            &EXAMPLE.replace("key = \"/etc/hallpass/user-ca\"", lines),
            "config.toml",
            Path::new("/etc/hallpass"),
            Some(Path::new("/run/credentials/hallpass")),
        );
        parsed.map(|config| config.user_ca).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_further_key_takes_what_the_first_takes_and_each_is_checked() {
        let with = |lines: &str| {
            let text = EXAMPLE.replace("\n[ca.host]", &format!("\n{lines}\n[ca.host]"));
            let parsed = Config::parse(&text, "config.toml", Path::new("/etc/hallpass"), None);
            parsed.map(|config| config.next_cas).map_err(|problems| problems.iter().map(ToString::to_string).collect())
        };
        let two = "[[ca.user.next]]\nkey = \"a\"\n[[ca.user.next]]\nagent = \"/run/x\"\npublic_key = \"b\"";
        let found: Result<_, Vec<String>> = with(two);
        assert!(matches!(found.as_deref(), Ok([signer::Settings::File(_), signer::Settings::Agent(_)])), "{found:?}");
        for (lines, wrong) in [
            ("[[ca.user.next]]".to_owned(), "or agent or pkcs11"),
            ("[[ca.user.next]]\nkey = \"a\"\nlabel = \"b\"".to_owned(), "has no such setting"),
            ("[[ca.user.next]]\nkey = \"a\"\ntrusted = [\"b\"]".to_owned(), "unknown key"),
            ("[[ca.user.next]]\nkey = \"a\"\n".repeat(5), "there may be 4"),
        ] {
            let problems = with(&lines).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(wrong)), "{lines}: {problems:?}");
        }
    }

    #[test]
    fn when_keys_are_changed_stands_beside_each_of_them() {
        let with = |user: &str, host: &str| {
            let text = EXAMPLE.replace("[ca.user]\n", &format!("[ca.user]\n{user}\n"));
            let key = "key = \"/etc/hallpass/host-ca\"\n";
            let text = text.replace(key, &format!("{key}{host}\n"));
            let parsed = Config::parse(&text, "config.toml", Path::new("/etc/hallpass"), None);
            parsed.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let config = with("rotate_every = \"90d\"", "published = \"2h\"\n[[ca.host.next]]\nkey = \"b\"\n").unwrap();
        let rotation = config.service.rotation;
        let seconds = |ca: &Ca| rotation.every.get(ca).copied().map(Lifetime::seconds);
        assert_eq!((seconds(&Ca::USER), seconds(&Ca::Host)), (Some(90 * 86_400), None));
        assert_eq!((rotation.published.seconds(), config.host_next_cas.len()), (7_200, 1));
        let usual = with("", "").unwrap();
        assert_eq!((usual.service.rotation.published.seconds(), usual.host_next_cas.len()), (86_400, 0));
        for (user, host, wrong) in [
            ("rotate_every = \"2y\"", "", "rotate_every"),
            ("rotate_every = \"1s\"", "", "it takes 1m to"),
            ("published = \"1h\"", "", "unknown key"),
            ("", "published = \"31d\"", "to 30d"),
            ("", "trusted = []", "unknown key"),
        ] {
            let problems = with(user, host).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(wrong)), "{user} {host}: {problems:?}");
        }
    }

    #[test]
    fn a_named_ca_takes_what_the_default_one_takes_and_its_name_is_no_other_ones() {
        let with = |lines: &str| {
            let text = EXAMPLE.replace("\n[log]", &format!("\n{lines}\n[log]"));
            let parsed = Config::parse(&text, "config.toml", Path::new("/etc/hallpass"), None);
            parsed.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let prod = "[ca.named.prod]\nkey = \"p\"\ntrusted = [\"old.pub\"]\nrotate_every = \"30d\"\n[[ca.named.prod.next]]\nkey = \"q\"";
        let config = with(&format!("{prod}\n[ca.named.lab]\nagent = \"/run/x\"\npublic_key = \"l.pub\"")).unwrap();
        let (prod_name, lab) = (CaName::parse("prod").unwrap(), CaName::parse("lab").unwrap());
        let known = &config.named_cas[&prod_name];
        assert_eq!((known.next.len(), known.trusted.len()), (1, 1));
        assert!(matches!(config.named_cas[&lab].key, signer::Settings::Agent(_)));
        let every = config.service.rotation.every.get(&Ca::User(prod_name)).copied().map(Lifetime::seconds);
        assert_eq!((every, config.service.rotation.every.len()), (Some(30 * 86_400), 1));
        assert!(with("").unwrap().named_cas.is_empty());
        let many: String = (0..9).map(|n| format!("[ca.named.c{n}]\nkey = \"k{n}\"\n")).collect();
        for (lines, wrong) in [
            ("[ca.named.default]\nkey = \"p\"", "the default CA is [ca.user]"),
            ("[ca.named.Prod]\nkey = \"p\"", "is not a CA"),
            ("[ca.named.prod]", "or agent or pkcs11"),
            ("[ca.named.prod]\nkey = \"p\"\npublished = \"1d\"", "unknown key"),
            ("[ca.named]\nprod = \"p\"", "takes a table"),
            (many.as_str(), "there may be 8"),
        ] {
            let problems = with(lines).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(wrong)), "{lines}: {problems:?}");
        }
    }

    #[test]
    fn a_ca_key_is_in_one_place() {
        let agent = "agent = \"/run/ca/agent\"\npublic_key = \"ca.pub\"";
        let signer::Settings::Agent(settings) = user_ca(agent).unwrap() else { panic!("an agent") };
        assert_eq!(
            (settings.socket.to_str(), settings.public_key.to_str()),
            (Some("/run/ca/agent"), Some("/etc/hallpass/ca.pub"))
        );
        let token = "pkcs11 = \"/usr/lib/x.so\"\ntoken = \"t\"\nlabel = \"k\"\npin_file = \"credential:pin\"\npublic_key = \"ca.pub\"";
        let signer::Settings::Pkcs11(settings) = user_ca(token).unwrap() else { panic!("a token") };
        assert_eq!((settings.token.as_str(), settings.label.as_str()), ("t", "k"));
        assert_eq!(settings.pin_path, Path::new("/run/credentials/hallpass/pin"));
        for (lines, wrong) in [
            (format!("key = \"x\"\n{agent}"), "an agent has no such setting"),
            (format!("{agent}\nlabel = \"x\""), "a file or an agent has no such setting"),
            (format!("{agent}\n{token}").replacen("public_key = \"ca.pub\"\n", "", 1), "a token has no such setting"),
            (format!("{token}\npassphrase_file = \"x\""), "a token has no such setting"),
            ("key = \"x\"\npublic_key = \"y\"".to_owned(), "a file has no such setting"),
            ("agent = \"/run/ca/agent\"".to_owned(), "\"public_key\" is missing"),
            (token.replace("pin_file", "pin_fil"), "\"pin_file\" is missing"),
            (token.replace("\"t\"", "\"\""), "not a label"),
            (String::new(), "or agent or pkcs11"),
        ] {
            let problems = user_ca(&lines).unwrap_err();
            assert!(problems.iter().any(|problem| problem.contains(wrong)), "{lines}: {problems:?}");
        }
    }
}
