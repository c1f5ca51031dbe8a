//! The service's configuration file → checked settings per module; errors carry place and key.
//!
//! What for: `config.toml` (`DESIGN.md` section 5), documented key by key in `config.toml.example`. `policy.toml` is
//! another file because other people own it.
//!
//! What not: nothing is opened or looked up here. Whether a file exists, and who may read it, its module says when it
//! opens it.
//!
//! Invariants: no secret stands in the file, only the path of one; an unknown key is an error; every limit has a default
//! and a bound.
//!
//! Decision: *why `credential:NAME`?* systemd puts credentials (`LoadCredential=`) into a folder that only the
//! service can read, under a path known at run time only. The caller passes that folder; the environment is not read. Operators'
//! commands beside the service are given none, and need few or none of them: there a secret is lacked only by who reads it.

mod ca;
mod logging;
mod sandbox;
mod store;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit::checkpoint;
use crate::document::{self, Found, Problem, Table, quoted};
use crate::name::{CaName, HostName};
use crate::secret;
use crate::signer;
use crate::time::Lifetime;
pub use ca::UserCa;
pub use logging::Logging;

/// The longest configuration file: 1 MiB. Our choice; a usual one has two thousand bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The longest public URL and path, in bytes. Our choice.
const URL_BYTES_MAX: usize = 200;
const PATH_BYTES_MAX: usize = 1_000;

/// The most names of a self-signed certificate. Our choice.
const NAMES_MAX: usize = 32;

/// How a path in the file says that it is a systemd credential.
const CREDENTIAL: &str = "credential:";

/// The service's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The HTTP server's.
    pub http: crate::http::Settings,
    /// Whether the TLS files are our own to make (self-signed at first start).
    pub self_signed: bool,
    /// The names in that certificate: host names and addresses. Empty unless it is self-signed.
    pub tls_names: Vec<String>,
    /// The service's.
    pub service: crate::service::Settings,
    /// The store's.
    pub store: crate::store::Settings,
    /// The user CA key.
    pub user_ca: signer::Settings,
    /// Further user CA keys, for rotations.
    pub next_cas: Vec<signer::Settings>,
    /// The host CA key. Without one there are no host certificates.
    pub host_ca: Option<signer::Settings>,
    /// Further host CA keys, for rotations.
    pub host_next_cas: Vec<signer::Settings>,
    /// Public halves of further keys that hosts of the default user CA must trust.
    pub trusted_cas: Vec<PathBuf>,
    /// Further user CAs.
    pub named_cas: BTreeMap<CaName, UserCa>,
    /// The log key's file (32-byte seed in base64, 0600).
    pub log_key_path: PathBuf,
    /// The log's name in its checkpoints; `None` if it is that of a public URL whose port is not known yet.
    pub log_origin: Option<String>,
    /// Where the newest signed checkpoint is kept, apart from the database.
    pub log_head_path: PathBuf,
    /// The policy file: version 1 at first start, applied again at SIGHUP.
    pub policy_path: PathBuf,
    /// Where and how to log.
    pub logging: Logging,
    /// What the process denies itself.
    pub sandbox: crate::sandbox::Settings,
}

/// `[tls]`, read.
struct Tls {
    files: crate::http::TlsFiles,
    self_signed: bool,
    names: Vec<String>,
}

/// What paths are relative to.
struct Places<'p> {
    folder: &'p Path,
    credentials: Option<&'p Path>,
    /// Whether a credential that was not given is a problem.
    needs_all: bool,
}

impl Config {
    /// Where each CA key that signs, or may one day, is.
    pub fn ca_keys(&self) -> impl Iterator<Item = &signer::Settings> {
        ca::all((&self.user_ca, &self.next_cas), (self.host_ca.as_ref(), &self.host_next_cas), &self.named_cas)
    }

    /// Parses `config.toml`; relative paths are relative to `folder` (that of the file), and `credential:NAME` is in
    /// `credentials` (what systemd names in `$CREDENTIALS_DIRECTORY`).
    ///
    /// # Errors
    /// Every problem, with its place.
    pub fn parse(text: &str, file: &str, folder: &Path, credentials: Option<&Path>) -> Result<Self, Vec<Problem>> {
        let places = Places { folder, credentials, needs_all: true };
        document::read(text, file, TEXT_BYTES_MAX, |root| config(root, &places))
    }

    /// The same for a command beside the service: a credential that was not given is no problem here, but for who reads it
    /// ([`crate::secret::missing`]).
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_beside(
        text: &str,
        file: &str,
        folder: &Path,
        credentials: Option<&Path>,
    ) -> Result<Self, Vec<Problem>> {
        let places = Places { folder, credentials, needs_all: false };
        document::read(text, file, TEXT_BYTES_MAX, |root| config(root, &places))
    }
}

/// Everything is read before anything is given up, so that every problem is found.
fn config(root: &Table<'_>, places: &Places<'_>) -> Option<Config> {
    let listen = root.parsed("listen", |text| {
        let wrong = |_| format!("{} is not an address with a port, such as \"0.0.0.0:7722\"", quoted(text));
        text.parse::<SocketAddr>().map_err(wrong)
    });
    let listen = root.needed("listen", listen, "listen = \"0.0.0.0:7722\"");
    let url = root.parsed("public_url", PublicUrl::parse);
    let url = root.needed("public_url", url, "public_url = \"https://hallpass.example.com:7722\"");
    if let (Some(listen), Some(url)) = (&listen, &url)
        && url.value.text.ends_with(":0")
        && listen.value.port() != 0
    {
        root.sheet()
            .problem(&url.spot, "port 0 stands for the port that was bound, and only goes with `listen` on port 0");
    }
    let policy_path = places.path(root, "policy").unwrap_or_else(|| places.folder.join("policy.toml"));
    let tls = tls(root, places, url.as_ref().map(|url| &url.value));
    let store = store::store(root, places);
    let cas = ca::keys(root, places);
    let log = section(root, "log", "[log] with key = \"…\"", |table| {
        let (mut head, origin) = (places.path(table, "head"), table.parsed("origin", log_origin));
        head = match &store {
            Some(crate::store::Settings::Sqlite(file)) => head.or_else(|| Some(with_suffix(&file.path, ".head"))),
            // Each node keeps its own, and has no database file to put it beside.
            Some(crate::store::Settings::Postgres(_)) => {
                table.needed("head", head, "head = \"/var/lib/hallpass/log.head\": it has no default with PostgreSQL")
            }
            None => head,
        };
        let key = table.needed("key", places.secret(table, "key"), "key = \"/etc/hallpass/log.key\"")?;
        Some((key, head, origin))
    });
    let limits = Limits::read(root);
    let logging = logging::logging(root);
    let sandbox = sandbox::sandbox(root, places, cas.as_ref());
    let Tls { files, self_signed, names } = tls?;
    let (store, (log_key_path, head, origin)) = (store?, log?);
    let ca::CaKeys { user, next, host, host_next, trusted, named, rotation } = cas?;
    let url = url?.value.text;
    let usual_origin = (!url.ends_with(":0")).then(|| checkpoint::usual_origin(&url));
    Some(Config {
        log_head_path: head?,
        http: crate::http::Settings {
            listen: listen?.value,
            tls: files,
            body_bytes_max: limits.body_bytes_max,
            request_timeout: limits.request_timeout,
            connections_max: limits.connections_max,
            rate_per_s: limits.rate_per_s,
            rate_burst: limits.rate_burst,
            sandbox: crate::sandbox::Standing::default(),
            calls_at_once: limits.calls_at_once,
        },
        self_signed,
        tls_names: names,
        service: crate::service::Settings {
            public_url: url,
            session: limits.session,
            open_requests_max: limits.open_requests_max,
            sign_timeout: limits.sign_timeout,
            rotation,
        },
        store,
        user_ca: user,
        next_cas: next,
        host_ca: host,
        host_next_cas: host_next,
        trusted_cas: trusted,
        named_cas: named,
        log_key_path,
        log_origin: origin.map(|origin| origin.value).or(usual_origin),
        policy_path,
        logging,
        sandbox,
    })
}

fn log_origin(text: &str) -> Result<String, String> {
    if checkpoint::is_origin(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not a log's name: visible ASCII characters without \"+\", such as \"hallpass.example.com/log\"",
        quoted(text)
    ))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A table that must be there.
fn section<T>(
    parent: &Table<'_>,
    key: &'static str,
    example: &str,
    take: impl FnOnce(&Table<'_>) -> Option<T>,
) -> Option<T> {
    let table = parent.needed(key, parent.table(key), example)?;
    take(&table)
}

/// `[tls]`: two files, or what to put into files of our own making.
fn tls(root: &Table<'_>, places: &Places<'_>, url: Option<&PublicUrl>) -> Option<Tls> {
    section(root, "tls", "[tls] with certificate and key, or self_signed = true", |table| {
        let self_signed = table.flag("self_signed").map_or_else(|| table.has("self_signed"), |found| found.value);
        let certificate = places.path(table, "certificate");
        let names = table.list("names", NAMES_MAX, tls_name);
        let own = |given: Option<PathBuf>, name: &str| given.or_else(|| Some(places.folder.join(name)));
        if self_signed {
            let key = own(places.path(table, "key"), "tls-key.pem");
            let names = match names {
                Some(names) => names.value.into_iter().map(|found| found.value).collect(),
                None => url.map(|url| url.host.clone()).into_iter().collect(),
            };
            let certificate = own(certificate, "tls-certificate.pem");
            let files = crate::http::TlsFiles { certificate: certificate?, key: key? };
            return Some(Tls { files, self_signed, names });
        }
        table.refuse("names", "only a self-signed certificate takes its names from here; remove the key");
        let certificate = table.needed("certificate", certificate, "certificate = \"tls.pem\", or self_signed = true");
        let key = table.needed("key", places.secret(table, "key"), "key = \"tls-key.pem\"");
        let files = crate::http::TlsFiles { certificate: certificate?, key: key? };
        Some(Tls { files, self_signed, names: Vec::new() })
    })
}

fn tls_name(text: &str) -> Result<String, String> {
    let is_name = text.parse::<IpAddr>().is_ok() || HostName::parse(text).is_ok();
    let wrong = || format!("{} is neither a host name in lower case nor an address", quoted(text));
    if is_name { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// `[limits]`. The defaults suit a machine with one core and a few hundred people.
struct Limits {
    body_bytes_max: usize,
    request_timeout: Duration,
    connections_max: usize,
    rate_per_s: u32,
    rate_burst: u32,
    calls_at_once: usize,
    open_requests_max: u64,
    session: Lifetime,
    sign_timeout: Duration,
}

impl Limits {
    fn read(root: &Table<'_>) -> Self {
        let table = root.table("limits");
        let number = |key, accepted, default| {
            let found = table.as_ref().and_then(|table| table.integer(key, accepted));
            found.map_or(default, |found: Found<u64>| found.value)
        };
        let count = |key, accepted, default| usize::try_from(number(key, accepted, default)).unwrap_or(usize::MAX);
        let rate = |key, accepted, default| u32::try_from(number(key, accepted, default)).unwrap_or(u32::MAX);
        let lifetime = |key, least: u32, most: u32, default: u32| {
            let seconds = |seconds| Lifetime::from_seconds(seconds).unwrap_or(Lifetime::ZERO);
            let accepted = seconds(least)..=seconds(most);
            let found = table.as_ref().and_then(|table| table.duration(key, accepted));
            found.map_or_else(|| seconds(default), |found| found.value)
        };
        let time = |key, most, default| Duration::from_secs(u64::from(lifetime(key, 1, most, default).seconds()));
        Self {
            body_bytes_max: count("body_bytes_max", 16_384..=16_777_216, 262_144),
            request_timeout: time("request_timeout", 300, 30),
            connections_max: count("connections_max", 1..=100_000, 4_096),
            rate_per_s: rate("requests_per_second", 1..=100_000, 20),
            rate_burst: rate("burst", 1..=100_000, 60),
            calls_at_once: count("calls_at_once", 4..=1_024, 48),
            open_requests_max: number("open_requests_max", 1..=1_000, 20),
            session: lifetime("session", 60, 43_200, 43_200),
            sign_timeout: time("sign_timeout", 60, 4),
        }
    }
}

/// Where clients reach the service: `https://`, a host, perhaps a port, and nothing else. A login's signature is bound
/// to it, so it has one spelling.
struct PublicUrl {
    text: String,
    host: String,
}

/// Whether the service takes this public URL.
///
/// # Errors
/// What it should look like.
pub fn check_public_url(text: &str) -> Result<(), String> {
    PublicUrl::parse(text).map(drop)
}

impl PublicUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{} is not like \"https://hallpass.example.com:7722\": https, host, port", quoted(text));
        let authority = text.strip_prefix("https://").filter(|_| text.len() <= URL_BYTES_MAX).ok_or_else(wrong)?;
        // In brackets an IPv6 address; elsewhere the last colon begins the port.
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let is_v6 = authority.starts_with('[');
        let is_host = match host.parse::<IpAddr>() {
            Ok(address) => address.is_ipv6() == is_v6 && address.to_string() == host,
            Err(_) => !is_v6 && HostName::parse(host).is_ok(),
        };
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|n| n.to_string() == port);
        if !is_host || !port.is_none_or(is_port) {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), host: host.to_owned() })
    }
}

impl Places<'_> {
    /// A path, relative to the file's folder.
    fn path(&self, table: &Table<'_>, key: &'static str) -> Option<PathBuf> {
        let found = table.parsed(key, |text| {
            if text.starts_with(CREDENTIAL) {
                return Err("this can't be a credential: it is no secret, or it is written here".to_owned());
            }
            self.plain(text)
        });
        found.map(|found| found.value)
    }

    /// The path of a secret: a file, or a credential.
    fn secret(&self, table: &Table<'_>, key: &'static str) -> Option<PathBuf> {
        let found = table.parsed(key, |text| match text.strip_prefix(CREDENTIAL) {
            Some(name) => self.credential(name),
            None if text.contains("PRIVATE KEY") => {
                Err("this is a key itself; write it to a file and name the file here".to_owned())
            }
            None => self.plain(text),
        });
        found.map(|found| found.value)
    }

    fn plain(&self, text: &str) -> Result<PathBuf, String> {
        match text.len() {
            0 => Err("the path is empty".to_owned()),
            1..=PATH_BYTES_MAX => Ok(self.folder.join(text)),
            bytes => Err(format!("a path of {bytes} bytes is too long; it takes {PATH_BYTES_MAX}")),
        }
    }

    fn credential(&self, name: &str) -> Result<PathBuf, String> {
        let is_name = (1..=100).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !is_name {
            return Err(format!("{} is not a credential's name: letters, digits and . _ -", quoted(name)));
        }
        if self.needs_all && self.credentials.is_none() {
            return Err(format!("there is no credential {name:?}: systemd gives them (LoadCredential=), and did not"));
        }
        Ok(secret::credential(self.credentials, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../config.toml.example");

    fn parse(text: &str) -> Result<Config, Vec<Problem>> {
        Config::parse(text, "config.toml", Path::new("/etc/hallpass"), Some(Path::new("/run/credentials/hallpass")))
    }

    /// Keys of CA keys that are not in files, of which a table takes one of the three places; further CA keys; PostgreSQL;
    /// and what a token's library needs.
    const ELSEWHERE: [&str; 26] = [
        "agent",
        "pkcs11",
        "token",
        "label",
        "pin_file",
        "public_key",
        "next",
        "rotate_every",
        "named",
        "postgres",
        "host",
        "port",
        "database",
        "user",
        "password_file",
        "ca_file",
        "plaintext",
        "connections",
        "connect_timeout",
        "statement_timeout",
        "lock_timeout",
        "idle_timeout",
        "read",
        "write",
        "connect",
        "programs",
    ];

    /// The example with every commented key switched on, apart from [`ELSEWHERE`].
    fn all_keys() -> String {
        let line = |line: &str| {
            let key = line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            let is_key = key.is_some_and(|rest| !ELSEWHERE.contains(&rest.split(' ').next().unwrap()));
            if is_key { line.trim_start_matches('#').to_owned() } else { line.to_owned() }
        };
        EXAMPLE.lines().map(|l| line(l) + "\n").collect()
    }

    #[test]
    fn every_key_that_is_known_stands_in_the_example() {
        let text = all_keys();
        let places = Places { folder: Path::new("/x"), credentials: Some(Path::new("/y")), needs_all: true };
        let known = document::read(&text, "config.toml.example", TEXT_BYTES_MAX, |root| {
            config(root, &places).map(|_| root.sheet().keys.borrow().clone())
        });
        let known = known.unwrap();
        assert!(known.len() > 20, "{known:?}");
        // The result is all unknown keys; only what was looked for counts.
        let _unknown = document::read(&text, "config.toml.example", TEXT_BYTES_MAX, |root| {
            for key in &known {
                let last = key.rsplit('.').next().unwrap();
                let stands = [format!("\n#{last} = "), format!("\n#[{key}]\n"), format!("\n#[{key}.")]
                    .iter()
                    .any(|line| text.contains(line));
                let is_elsewhere = ELSEWHERE.contains(&last) && stands;
                assert!(is_elsewhere || has(root, key), "{key} is missing in config.toml.example");
            }
            Some(())
        });
    }

    fn has(table: &Table<'_>, path: &str) -> bool {
        // Keys are 'static so that nobody makes them up at run time; a test may.
        let leak = |key: &str| -> &'static str { Box::leak(key.to_owned().into_boxed_str()) };
        match path.split_once('.') {
            None => table.has(leak(path)),
            Some((first, rest)) => table.table(leak(first)).is_some_and(|table| has(&table, rest)),
        }
    }

    #[test]
    fn defaults_in_the_examples_comments_are_the_real_ones() {
        let (bare, full) = (parse(EXAMPLE).unwrap(), parse(&all_keys()).unwrap());
        let mut full_without_passphrase = full;
        let cas = std::iter::once(&mut full_without_passphrase.user_ca).chain(&mut full_without_passphrase.host_ca);
        for (ca, name) in cas.zip(["ca-passphrase", "host-ca-passphrase"]) {
            let signer::Settings::File(file) = ca else { panic!("{ca:?}") };
            let passphrase = file.passphrase_path.take().unwrap();
            assert_eq!(passphrase, Path::new("/run/credentials/hallpass").join(name));
        }
        assert_eq!(format!("{bare:?}"), format!("{full_without_passphrase:?}"));
    }

    #[test]
    fn relative_paths_are_relative_to_the_files_folder() {
        let config = parse(&EXAMPLE.replace("\"/etc/hallpass/user-ca\"", "\"keys/ca\"")).unwrap();
        let signer::Settings::File(file) = &config.user_ca else { panic!("{:?}", config.user_ca) };
        assert_eq!(file.path, Path::new("/etc/hallpass/keys/ca"));
        assert_eq!(config.policy_path, Path::new("/etc/hallpass/policy.toml"));
    }

    #[test]
    fn a_service_without_a_host_ca_has_none() {
        let (before, rest) = EXAMPLE.split_once("[ca.host]").unwrap();
        let (_, after) = rest.split_once("\n[log]").unwrap();
        assert!(parse(&format!("{before}\n[log]{after}")).unwrap().host_ca.is_none());
        let problems = parse(&EXAMPLE.replace("key = \"/etc/hallpass/host-ca\"", "")).unwrap_err();
        assert!(problems.first().unwrap().to_string().contains("ca.host"), "{problems:?}");
    }

    #[test]
    fn a_self_signed_certificate_needs_no_other_key() {
        let text = EXAMPLE
            .replace("certificate = \"/etc/hallpass/tls-certificate.pem\"", "")
            .replace("key         = \"/etc/hallpass/tls-key.pem\"", "")
            .replace("names = [\"hallpass.example.com\", \"192.0.2.10\"]", "");
        let config = parse(&text).unwrap();
        assert_eq!(config.http.tls.key, Path::new("/etc/hallpass/tls-key.pem"));
        assert_eq!(config.tls_names, ["hallpass.example.com"]);
    }

    #[test]
    fn port_0_in_the_public_url_needs_a_listener_on_port_0() {
        let with = |listen: &str, url: &str| {
            let text = EXAMPLE.replace("0.0.0.0:7722", listen).replace("https://hallpass.example.com:7722", url);
            parse(&text).map(|config| config.service.public_url)
        };
        assert_eq!(with("127.0.0.1:0", "https://127.0.0.1:0").unwrap(), "https://127.0.0.1:0");
        assert!(with("127.0.0.1:7722", "https://127.0.0.1:0").is_err());
    }

    #[test]
    fn public_urls_have_one_spelling() {
        for good in ["https://a", "https://a.example:7722", "https://192.0.2.1:1", "https://[2001:db8::1]:65535"] {
            assert_eq!(PublicUrl::parse(good).unwrap().text, good);
        }
        for bad in [
            "http://a",
            "https://",
            "https://a/",
            "https://a:07722",
            "https://a:65536",
            "https://a:",
            "https://A",
            "https://u@a",
            "https://a/path",
            "https://a?q",
            "https://[::1",
            "https://[192.0.2.1]",
            "https://2001:db8::1",
            "https://[2001:DB8::1]",
            " https://a",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let text = EXAMPLE
            .replace("listen = ", "lisen = ")
            .replace("https://hallpass", "http://hallpass")
            .replace("self_signed = true", "self_signed = \"yes\"")
            .replace("path = \"/var/lib/hallpass/hallpass.db\"", "path = 7")
            .replace("key = \"/etc/hallpass/log.key\"", "key = \"credential:../../etc/shadow\"")
            .replace("#session = \"12h\"", "session = \"13h\"")
            .replace("#burst = 60", "burst = -1")
            .replace("#level = \"info\"", "level = \"loud!\"");
        let problems = parse(&text).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "config.toml:1:1: \"listen\" is missing; write listen = \"0.0.0.0:7722\"",
                "config.toml:13:1: lisen: unknown key; did you mean \"listen\"?",
                "config.toml:17:14: public_url: \"http://hallpass.example.com:7722\" is not like \
                 \"https://hallpass.example.com:7722\": https, host, port",
                "config.toml:29:15: tls.self_signed: \"yes\" is a string, but it takes true or false",
                "config.toml:37:8: store.path: 7 is a whole number, but it takes a string \"…\"",
                "config.toml:144:7: log.key: \"../../etc/shadow\" is not a credential's name: letters, digits and . _ -",
                "config.toml:170:9: limits.burst: -1 is not accepted; it takes 1 to 100000",
                "config.toml:181:11: limits.session: \"13h\" is not accepted; it takes 1m to 12h",
                "config.toml:193:9: logging.level: \"loud!\" is not a level: one of off error warn info debug trace, \
                 or \"warn,hallpass=debug\"",
            ]
        );
    }

    #[test]
    fn a_credential_without_systemd_is_a_problem() {
        let text = EXAMPLE.replace("\"/etc/hallpass/log.key\"", "\"credential:log\"");
        let problems = Config::parse(&text, "c", Path::new("/x"), None).unwrap_err();
        assert!(problems.first().unwrap().what.starts_with("there is no credential \"log\""), "{problems:?}");
        // Beside the service it is for who reads it; what is no name is a problem there, too.
        let beside = |text: &str| Config::parse_beside(text, "c", Path::new("/x"), None);
        assert_eq!(secret::missing(&beside(&text).unwrap().log_key_path), Some("log"));
        beside(&text.replace("credential:log", "credential:../log")).unwrap_err();
    }
}
