//! `[ca.user]` and `[ca.host]`: where each CA key is.
//!
//! A key is in one of three places; what belongs to another one is an error, so that nobody believes a key to be in a token while
//! a file is used.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::{Places, quoted, section};
use crate::document::Table;
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
    pub(super) rotation: Rotation,
}

pub(super) fn keys(root: &Table<'_>, places: &Places<'_>) -> Option<CaKeys> {
    let example = "[ca.user] with key = \"/etc/hallpass/user-ca\"";
    section(root, "ca", example, |ca| {
        let (mut trusted, mut next, mut host_next) = (Vec::new(), Some(Vec::new()), Some(Vec::new()));
        let mut rotation = Rotation::default();
        let further = |table: &Table<'_>| -> Option<Vec<signer::Settings>> {
            table.tables("next", NEXT_MAX).iter().map(|table| ca_key(table, places)).collect()
        };
        let every = |table: &Table<'_>| table.duration("rotate_every", ROTATE_EVERY).map(|found| found.value);
        let user = section(ca, "user", example, |table| {
            let listed = table.list("trusted", TRUSTED_MAX, |text| places.plain(text));
            trusted = listed.map_or_else(Vec::new, |found| found.value.into_iter().map(|path| path.value).collect());
            next = further(table);
            rotation.user_every = every(table);
            ca_key(table, places)
        });
        let host = ca.table("host").map(|table| {
            host_next = further(&table);
            rotation.host_every = every(&table);
            rotation.published = table.duration("published", PUBLISHED).map_or(rotation.published, |found| found.value);
            ca_key(&table, places)
        });
        let host = host.map_or(Some(None), |host| host.map(Some));
        Some(CaKeys { user: user?, next: next?, host: host?, host_next: host_next?, trusted, rotation })
    })
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::signer;

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
        let seconds = |lifetime: Option<crate::time::Lifetime>| lifetime.map(crate::time::Lifetime::seconds);
        assert_eq!((seconds(rotation.user_every), seconds(rotation.host_every)), (Some(90 * 86_400), None));
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
