//! `[store]`: a SQLite file, or a PostgreSQL database for several nodes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Places, quoted, section};
use crate::document::{Found, Table};
use crate::store;
use crate::store::postgres::{Server, Settings};
use crate::time::Lifetime;

/// PostgreSQL's own longest name.
const NAME_BYTES_MAX: usize = 63;

/// The longest host name there is.
const HOST_BYTES_MAX: usize = 253;

pub(super) fn store(root: &Table<'_>, places: &Places<'_>) -> Option<store::Settings> {
    section(root, "store", "[store] with path = \"…\", or a table [store.postgres]", |table| {
        if table.has("postgres") {
            table.refuse("path", "the store is in PostgreSQL; remove this, or the table [store.postgres]");
            return postgres(&table.table("postgres")?, places).map(store::Settings::Postgres);
        }
        let example = "path = \"/var/lib/hallpass/hallpass.db\", or a table [store.postgres]";
        let path = table.needed("path", places.path(table, "path"), example)?;
        Some(store::Settings::Sqlite(store::sqlite::Settings { path }))
    })
}

/// Everything is read before anything is given up, so that every problem is found.
fn postgres(table: &Table<'_>, places: &Places<'_>) -> Option<Settings> {
    let server = server(table, places);
    let name = |key| table.parsed(key, name).map(|found| found.value);
    let database = table.needed("database", name("database"), "database = \"hallpass\"");
    let user = table.needed("user", name("user"), "user = \"hallpass\"");
    let password_path = places.secret(table, "password_file");
    let number = |key, accepted, default| table.integer(key, accepted).map_or(default, |found| found.value);
    let time = |key, default: u32| {
        let seconds = |seconds| Lifetime::from_seconds(seconds).unwrap_or(Lifetime::ZERO);
        let found = table.duration(key, seconds(1)..=seconds(60));
        Duration::from_secs(u64::from(found.map_or(default, |found| found.value.seconds())))
    };
    let settings = Settings {
        port: u16::try_from(number("port", 1..=65_535, 5_432)).unwrap_or(5_432),
        connections: usize::try_from(number("connections", 1..=200, 8)).unwrap_or(8),
        connect_timeout: time("connect_timeout", 5),
        statement_timeout: time("statement_timeout", 10),
        lock_timeout: time("lock_timeout", 10),
        idle_timeout: time("idle_timeout", 5),
        server: server?,
        database: database?,
        user: user?,
        password_path,
    };
    Some(settings)
}

/// The way to the server: plaintext goes nowhere but to this machine.
fn server(table: &Table<'_>, places: &Places<'_>) -> Option<Server> {
    let host = table.parsed("host", |text| if text.starts_with('/') { Ok(text.to_owned()) } else { host(text) });
    let ca_path: Option<PathBuf> = places.path(table, "ca_file");
    let plaintext = table.flag("plaintext");
    let Found { value: host, spot, .. } =
        table.needed("host", host, "host = \"db.example.com\", or the folder of a Unix socket")?;
    let is_plain = plaintext.is_some_and(|found| found.value);
    if host.starts_with('/') {
        for key in ["ca_file", "plaintext"] {
            table.refuse(key, "the server is reached by a Unix socket, without TLS; remove this");
        }
        return Some(Server::socket(PathBuf::from(host)));
    }
    if !is_plain {
        return Some(Server::tls(host, ca_path));
    }
    table.refuse("ca_file", "with plaintext = true no certificate is checked; remove one of the two");
    let server = Server::plain(host);
    if server.is_none() {
        let why = "plaintext = true is for 127.0.0.1 and ::1 alone: what leaves this machine goes by TLS";
        table.sheet().problem(&spot, why);
    }
    server
}

/// A host's name or address, in one spelling.
fn host(text: &str) -> Result<String, String> {
    let is_host = (1..=HOST_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b));
    if is_host {
        Ok(text.to_owned())
    } else {
        Err(format!("{} is not a host's name or address, or a folder", quoted(text)))
    }
}

/// A name in PostgreSQL: of a database or a role.
fn name(text: &str) -> Result<String, String> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if is_name { Ok(text.to_owned()) } else { Err(format!("{} is not a name of at most 63 bytes", quoted(text))) }
}

impl super::Config {
    /// The database, where it is a file.
    #[must_use]
    pub fn database(&self) -> Option<&Path> {
        match &self.store {
            store::Settings::Sqlite(file) => Some(&file.path),
            store::Settings::Postgres(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::Config;
    use super::{Server, Settings, store};

    const EXAMPLE: &str = include_str!("../../config.toml.example");

    /// The example with this `[store]`.
    fn stored(lines: &str) -> Result<store::Settings, String> {
        let (before, rest) = EXAMPLE.split_once("[store]").unwrap();
        let (_, after) = rest.split_once("\n# The key that signs user certificates").unwrap();
        let text = format!("{before}[store]\n{lines}\n#{after}").replace("#head =", "head =");
        let parsed = Config::parse(&text, "config.toml", Path::new("/etc/hallpass"), None);
        let shown = |problems: Vec<crate::document::Problem>| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        parsed.map(|config| config.store).map_err(shown)
    }

    fn postgres(lines: &str) -> Result<Settings, String> {
        match stored(&format!("postgres = {{ database = \"d\", user = \"u\", {lines} }}"))? {
            store::Settings::Postgres(settings) => Ok(settings),
            store::Settings::Sqlite(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_examples_table_is_one_and_says_the_defaults() {
        let (_, rest) = EXAMPLE.split_once("#[store.postgres]\n").unwrap();
        let (table, _) = rest.split_once("\n# The key that signs user certificates").unwrap();
        let line = |line: &str| {
            let key = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            key.unwrap_or(line).to_owned() + "\n"
        };
        let table: String = table.lines().map(line).filter(|line| !line.starts_with("plaintext")).collect();
        let shown = |store| match store {
            store::Settings::Postgres(settings) => settings,
            store::Settings::Sqlite(other) => panic!("{other:?}"),
        };
        let all = shown(stored(&format!("[store.postgres]\n{table}")).unwrap());
        let folder = Path::new("/etc/hallpass");
        let server = Server::tls("db.example.com".to_owned(), Some(folder.join("database-ca.pem")));
        let bare = Settings {
            server: Server::tls("db.example.com".to_owned(), None),
            database: "hallpass".to_owned(),
            user: "hallpass".to_owned(),
            ..postgres("host = \"db.example.com\"").unwrap()
        };
        let password_path = Some(folder.join("database-password"));
        assert_eq!(all, Settings { server, password_path, ..bare });
        assert_eq!(all.idle_timeout, Duration::from_secs(5));
    }

    #[test]
    fn plaintext_goes_to_this_machine_alone() {
        let way = |lines: &str| postgres(lines).map(|settings| settings.server);
        assert_eq!(way("host = \"/run/postgresql\"").unwrap(), Server::socket("/run/postgresql".into()));
        assert_eq!(Some(way("host = \"127.0.0.1\", plaintext = true").unwrap()), Server::plain("127.0.0.1".to_owned()));
        let tls = Server::tls("127.0.0.1".to_owned(), None);
        assert_eq!(way("host = \"127.0.0.1\", plaintext = false").unwrap(), tls);
        for (lines, wrong) in [
            ("host = \"192.0.2.1\", plaintext = true", "what leaves this machine goes by TLS"),
            ("host = \"localhost\", plaintext = true", "what leaves this machine goes by TLS"),
            ("host = \"127.0.0.1\", plaintext = true, ca_file = \"x\"", "remove one of the two"),
            ("host = \"/run/postgresql\", ca_file = \"x\"", "by a Unix socket"),
            ("host = \"/run/postgresql\", plaintext = true", "by a Unix socket"),
            ("host = \"postgres://u:p@db/d\"", "is not a host's name"),
            ("port = 1", "\"host\" is missing"),
            ("host = \"db\", sslmode = \"prefer\"", "unknown key"),
            ("host = \"db\", password = \"p\"", "unknown key"),
            ("host = \"db\", connections = 0", "1 to 200"),
            ("host = \"db\", lock_timeout = \"2m\"", "it takes 1s to 1m"),
        ] {
            let problems = postgres(lines).unwrap_err();
            assert!(problems.contains(wrong), "{lines}: {problems}");
        }
        let problems =
            stored("path = \"x\"\npostgres = { host = \"db\", database = \"d\", user = \"u\" }").unwrap_err();
        assert!(problems.contains("remove this, or the table"), "{problems}");
        assert!(stored("").unwrap_err().contains("or a table [store.postgres]"));
    }
}
