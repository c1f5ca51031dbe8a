//! Profiles: which server, under which name, with which key; and where the client's files are (UX 2.6).
//!
//! What for: one small file per profile, and the login session beside nothing else.
//! What not: no keys of people (those stay where ssh has them); the keys of requests are `local`'s.
//!
//! Invariants: a session token is sent to no other server than the one that gave it; the session file is 0600 in a 0700 folder.
//! Order of settings: flag, environment, profile, default.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::args::Globals;
use super::failure::Failure;
use super::session_key::Holder;
use crate::client::Server;
use crate::durable;
use crate::time::Lifetime;

/// The longest profile or session file that is read; ours have a few hundred bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The client's folders.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    config: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    cache: Option<PathBuf>,
}

/// A profile's file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// The server's URL without a final slash.
    server: String,
    /// SHA-256 of its certificate, hex; left out when the web's roots decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<String>,
    /// Who we are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    /// The login key file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    /// How plain ssh was set up; left out when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh: Option<SshSetup>,
    /// What holds session keys: `agent`, or the path of a security key's file; left out for files of ours.
    #[serde(default, skip_serializing_if = "is_file")]
    session_key: Holder,
}

fn is_file(holder: &Holder) -> bool {
    *holder == Holder::File
}

/// How plain ssh was set up for a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshSetup {
    /// The host patterns that were given; empty: all hosts that the service knows.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// Whether the user's own keys are offered too.
    #[serde(default)]
    pub(crate) coexist: bool,
    /// Whether ssh refuses to connect where there is no access, instead of trying.
    #[serde(default)]
    pub(crate) strict: bool,
}

/// A profile.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    /// Its name.
    pub(crate) name: String,
    /// The server.
    pub(crate) server: Server,
    /// Who we are there, once logged in.
    pub(crate) person: Option<String>,
    /// The login key file, if one was named.
    pub(crate) key: Option<PathBuf>,
    /// How plain ssh was set up, if it was.
    pub(crate) ssh: Option<SshSetup>,
    /// What holds session keys.
    pub(crate) session_key: Holder,
}

/// A login session's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionSpec {
    server: String,
    person: String,
    token: String,
    expires: String,
    /// The key that logged in; older sessions don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<LoginKey>,
}

/// The key that logged in: whoever approves signs with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginKey {
    /// `SHA256:…`.
    pub(crate) fingerprint: String,
    /// Its file, if it was not an agent that signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
}

/// A login session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Who.
    pub(crate) person: String,
    /// The secret.
    pub(crate) token: SecretString,
    /// Until when, RFC 3339.
    pub(crate) expires: String,
    /// The key that logged in, if it is known.
    pub(crate) key: Option<LoginKey>,
}

/// A variable of the environment; empty and non-UTF-8 ones count as unset.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|v| v.into_string().ok()).filter(|v| !v.is_empty())
}

/// The name of the user that we run as, as ssh takes it when no account is named; `None` if nothing local says it.
pub(crate) fn local_user() -> Option<String> {
    let id = rustix::process::getuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ours = accounts.lines().find(|line| line.split(':').nth(2) == Some(id.as_str()));
    let name = ours.and_then(|line| line.split(':').next()).map(str::to_owned);
    name.or_else(|| env("LOGNAME")).or_else(|| env("USER"))
}

/// The proxy for calls to the server: `HTTPS_PROXY`, also in small letters as curl has it.
pub(crate) fn proxy() -> Option<String> {
    env("HTTPS_PROXY").or_else(|| env("https_proxy"))
}

impl Places {
    /// From the environment: ours first, then XDG's, then below the home folder.
    ///
    /// # Errors
    /// When none of them says where.
    pub(crate) fn from_env() -> Result<Self, Failure> {
        let pick = |own: &str, xdg: &str, home: &str| {
            env(own)
                .map(PathBuf::from)
                .or_else(|| env(xdg).map(|d| Path::new(&d).join("hallpass")))
                .or_else(|| env("HOME").map(|d| Path::new(&d).join(home).join("hallpass")))
                .ok_or_else(|| {
                    Failure::failed(format!("neither {own}, {xdg} nor HOME is set")).next(format!("export {own}=DIR"))
                })
        };
        let state = pick("HALLPASS_STATE_DIR", "XDG_STATE_HOME", ".local/state")?;
        let runtime = env("HALLPASS_RUNTIME_DIR")
            .map(PathBuf::from)
            .or_else(|| env("XDG_RUNTIME_DIR").map(|d| Path::new(&d).join("hallpass")))
            .unwrap_or_else(|| state.join("run"));
        // What is only convenient is done without when nobody says where it goes.
        let cache = pick("HALLPASS_CACHE_DIR", "XDG_CACHE_HOME", ".cache").ok();
        Ok(Self { config: pick("HALLPASS_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")?, state, runtime, cache })
    }

    /// The folder of a profile's request folders.
    pub(crate) fn requests(&self, profile: &str) -> PathBuf {
        self.runtime.join(profile)
    }

    /// The folder of what completion offers for a profile.
    pub(crate) fn cache(&self, profile: &str) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(profile))
    }

    /// The folder of the ssh fragments.
    pub(crate) fn fragments(&self) -> PathBuf {
        self.config.join("ssh")
    }

    /// A profile's ssh fragment.
    pub(crate) fn fragment(&self, profile: &str) -> PathBuf {
        self.fragments().join(format!("{profile}.conf"))
    }

    /// A profile's file of host CA keys.
    pub(crate) fn known_hosts(&self, profile: &str) -> PathBuf {
        self.fragments().join(format!("{profile}.known_hosts"))
    }

    /// The file of the hosts that were confirmed for a profile.
    pub(crate) fn confirmed(&self, profile: &str) -> PathBuf {
        self.fragments().join(format!("{profile}.confirmed"))
    }

    /// All folders below one, for tests.
    #[cfg(test)]
    pub(crate) fn below(folder: &Path) -> Self {
        let at = |name: &str| folder.join(name);
        Self { config: at("config"), state: at("state"), runtime: at("run"), cache: None }
    }

    /// The folder of a profile's login session.
    pub(crate) fn state_of(&self, profile: &str) -> PathBuf {
        self.state.join(profile)
    }

    fn profile(&self, name: &str) -> PathBuf {
        self.config.join("profiles").join(format!("{name}.toml"))
    }

    fn session(&self, name: &str) -> PathBuf {
        self.state_of(name).join("session")
    }
}

/// Checks a profile's name: it becomes part of paths.
///
/// # Errors
/// Says what would be accepted.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    crate::name::RuleName::parse(name)
        .map(|_| ())
        .map_err(|e| Failure::usage(format!("{:?} is not a profile name", e.given)).because(e.rule))
}

/// The names of all profiles that there are.
pub(crate) fn names(places: &Places) -> Vec<String> {
    let entries = std::fs::read_dir(places.config.join("profiles")).into_iter().flatten().filter_map(Result::ok);
    let stem = |path: PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".toml")?.to_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| stem(entry.path())).collect();
    names.retain(|name| check_name(name).is_ok());
    names.sort();
    names
}

/// Loads the profile that the flags name; `None` when there is none yet.
///
/// # Errors
/// When its file can't be read or holds what it must not.
pub(crate) fn load(places: &Places, name: &str) -> Result<Option<Profile>, Failure> {
    check_name(name)?;
    let path = places.profile(name);
    let Some(text) = read_small(&path)? else { return Ok(None) };
    let spec: Spec = toml::from_str(&text).map_err(|e| {
        Failure::failed(format!("cannot read profile {:?}", path.display().to_string())).because(e.message().to_owned())
    })?;
    let Spec { server, pin, person, key, ssh, session_key } = spec;
    let server = Server { url: server, pin, proxy: proxy() };
    Ok(Some(Profile { name: name.to_owned(), server, person, key, ssh, session_key }))
}

/// The profile that the flags name, which must be there; `--server` must fit it.
///
/// # Errors
/// When there is none, or it is for another server.
pub(crate) fn need(places: &Places, globals: &Globals) -> Result<Profile, Failure> {
    let Some(profile) = load(places, &globals.profile)? else {
        return Err(Failure::not_logged_in(&globals.profile)
            .because("there is no such profile yet")
            .replace_next(format!("hallpass login --profile {} --server URL --person NAME", globals.profile)));
    };
    if let Some(server) = &globals.server
        && normal_url(server) != profile.server.url
    {
        return Err(Failure::usage(format!("profile {:?} is for {}", profile.name, profile.server.url))
            .because(format!("--server (or HALLPASS_SERVER) names {server}"))
            .next("log in there under another name: hallpass login --profile NAME --server URL"));
    }
    Ok(profile)
}

/// A URL as profiles keep it and login statements name it: without a final slash.
pub(crate) fn normal_url(url: &str) -> String {
    url.trim().trim_end_matches('/').to_owned()
}

/// Saves a profile.
///
/// # Errors
/// When its file can't be written.
pub(crate) fn save(places: &Places, profile: &Profile) -> Result<(), Failure> {
    let path = places.profile(&profile.name);
    let spec = Spec {
        server: profile.server.url.clone(),
        pin: profile.server.pin.clone(),
        person: profile.person.clone(),
        key: profile.key.clone(),
        ssh: profile.ssh.clone(),
        session_key: profile.session_key.clone(),
    };
    let text =
        toml::to_string(&spec).map_err(|e| Failure::failed("cannot write the profile").because(e.to_string()))?;
    write(&path, text.as_bytes())
}

/// The session of a profile, if it is for this server.
///
/// # Errors
/// When its file can't be read.
pub(crate) fn session(places: &Places, profile: &Profile) -> Result<Option<Session>, Failure> {
    let Some(text) = read_small(&places.session(&profile.name))? else { return Ok(None) };
    let Ok(spec) = serde_json::from_str::<SessionSpec>(&text) else { return Ok(None) };
    if spec.server != profile.server.url {
        return Ok(None);
    }
    Ok(Some(Session { person: spec.person, token: spec.token.into(), expires: spec.expires, key: spec.key }))
}

/// Saves a session.
///
/// # Errors
/// When its file can't be written.
pub(crate) fn save_session(places: &Places, profile: &Profile, session: &Session) -> Result<(), Failure> {
    let spec = SessionSpec {
        server: profile.server.url.clone(),
        person: session.person.clone(),
        token: session.token.expose_secret().to_owned(),
        expires: session.expires.clone(),
        key: session.key.clone(),
    };
    let text =
        serde_json::to_string(&spec).map_err(|e| Failure::failed("cannot write the session").because(e.to_string()))?;
    write(&places.session(&profile.name), text.as_bytes())
}

/// Forgets a session.
///
/// # Errors
/// When its file is there and can't be deleted.
pub(crate) fn forget_session(places: &Places, profile: &Profile) -> Result<(), Failure> {
    let path = places.session(&profile.name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("delete", &path, &e)),
        _ => Ok(()),
    }
}

/// A lifetime as the runtime's duration.
pub(crate) fn seconds(lifetime: Lifetime) -> std::time::Duration {
    std::time::Duration::from_secs(u64::from(lifetime.seconds()))
}

/// Reads a small text file; `None` when there is none.
///
/// # Errors
/// When it can't be read or is longer than ours ever are.
pub(crate) fn read_small(path: &Path) -> Result<Option<String>, Failure> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|e| Failure::file("open", path, &e))?,
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(|e| Failure::file("read", path, &e))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(Failure::failed(format!("{:?} is longer than 64 KiB", path.display().to_string())));
    }
    Ok(Some(text))
}

/// Writes a file of ours, 0600 in a 0700 folder.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        durable::create_folder(folder, 0o700).map_err(|e| Failure::file("make folder", folder, &e))?;
    }
    durable::replace(path, bytes, 0o600).map_err(|e| Failure::file("write", path, &e))
}
