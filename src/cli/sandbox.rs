//! The sandbox of `hallpass serve`: what its configuration names stays open, and the rest is shut.
//!
//! *Why folders, where files are read again?* Certificates, policies and the kept checkpoint are replaced by a new file of the same name, and
//! what was opened by name once would be the old one. What is read at the start alone is open by itself.

use std::path::Path;

use super::failure::{Exit, Failure};
use super::profile;
use crate::config::Config;
use crate::sandbox::{self, Access, Bounds, Files, Sandbox};
use crate::signer;
use crate::store;

/// Enters it.
pub(super) fn enter(config: &Config, ready_file: Option<&Path>) -> Result<Sandbox, Failure> {
    sandbox::enter(config.sandbox.mode, &bounds(config, ready_file)).map_err(|error| {
        Failure::new(Exit::Failed, "sandbox", "cannot enter the sandbox")
            .because(error.to_string())
            .next("[sandbox] in the configuration says what it is for; mode = \"off\" starts without")
    })
}

/// Says what can't be had. Once the service runs: why one does not start is to stand alone.
pub(super) fn tell(mode: sandbox::Mode, sandbox: &Sandbox) {
    if mode == sandbox::Mode::Off {
        tracing::warn!("the sandbox is switched off: who takes this process over has all that its user has");
        return;
    }
    let in_force: Vec<&str> = sandbox.standing().0.iter().filter(|(_, is)| *is).map(|(part, _)| part.word()).collect();
    tracing::info!(restricted = in_force.join(" "), "in the sandbox");
    for lack in sandbox.lacks() {
        tracing::warn!(part = lack.part.word(), why = lack.why, "the sandbox lacks a part");
    }
}

/// What this configuration needs.
fn bounds(config: &Config, ready_file: Option<&Path>) -> Bounds {
    let settings = &config.sandbox;
    let has_token = config.ca_keys().any(|key| matches!(key, signer::Settings::Pkcs11(_)));
    // Nobody knows what a token's library needs, unless an operator has said so.
    let is_known = !has_token || settings.further.is_some();
    Bounds { files: is_known.then(|| files(config, ready_file)), programs: settings.programs }
}

fn files(config: &Config, ready_file: Option<&Path>) -> Files {
    let mut files = Files {
        abstract_sockets: profile::env("NOTIFY_SOCKET").is_some_and(|socket| socket.starts_with('@')),
        ..Files::default()
    };
    files.add_system();
    let tls = &config.http.tls;
    for file in [&tls.certificate, &tls.key, &config.policy_path] {
        files.add_replaced(file, Access::Read);
    }
    files.add_replaced(&config.log_head_path, Access::Keep);
    if let Some(file) = ready_file {
        files.add_replaced(file, Access::Keep);
    }
    files.add(&config.log_key_path, Access::Read);
    let trusted = config.named_cas.values().flat_map(|ca| &ca.trusted).chain(&config.trusted_cas);
    trusted.for_each(|path| files.add(path, Access::Read));
    config.ca_keys().for_each(|key| add_key(&mut files, key));
    match &config.store {
        // Beside it are its write-ahead log, the index of that, and a lock.
        store::Settings::Sqlite(settings) => files.add_replaced(&settings.path, Access::Keep),
        store::Settings::Postgres(settings) => add_database(&mut files, settings),
    }
    let further = config.sandbox.further.clone().unwrap_or_default();
    further.read.into_iter().for_each(|path| files.add(path, Access::Read));
    further.write.into_iter().for_each(|path| files.add(path, Access::All));
    files.connect.extend(further.connect);
    files
}

/// What opening a CA key reads. An agent's socket needs nothing: landlock, as we ask for it, leaves those alone.
fn add_key(files: &mut Files, key: &signer::Settings) {
    match key {
        signer::Settings::File(key) => {
            files.add(&key.path, Access::Read);
            key.passphrase_path.iter().for_each(|path| files.add(path, Access::Read));
        }
        signer::Settings::Agent(key) => files.add(&key.public_key, Access::Read),
        signer::Settings::Pkcs11(key) => {
            for path in [&key.library, &key.pin_path, &key.public_key] {
                files.add(path, Access::Read);
            }
            // What it is made of, and the settings of its cryptography.
            files.add_replaced(&key.library, Access::Read);
            files.add_libraries();
            files.add("/etc/ssl", Access::Read);
        }
    }
}

fn add_database(files: &mut Files, settings: &store::postgres::Settings) {
    settings.password_path.iter().for_each(|path| files.add(path, Access::Read));
    if let Some(host) = settings.server.host() {
        files.connect.push(settings.port);
        if host.parse::<std::net::IpAddr>().is_err() {
            files.add_names();
        }
    }
    // (read whatever the way to it: a way without TLS has a verifier that nobody asks)
    if let Some(path) = settings.server.ca_path() {
        files.add(path, Access::Read);
        return;
    }
    files.add_roots();
    // The same variables as everywhere; the second one is a list.
    profile::env("SSL_CERT_FILE").into_iter().for_each(|path| files.add(path, Access::Read));
    let folders = profile::env("SSL_CERT_DIR").unwrap_or_default();
    std::env::split_paths(&folders)
        .filter(|path| !path.as_os_str().is_empty())
        .for_each(|path| files.add(path, Access::Read));
}

/// Tests say what somebody who has taken us over would try: `FOLDER ADDRESS`, a folder that is not ours and somebody else's server. It is
/// tried on this thread and on one that the runtime started, and told on standard error.
#[cfg(feature = "failpoints")]
pub(super) async fn attempt() {
    let Some(given) = profile::env("HALLPASS_SANDBOX_ATTEMPT") else { return };
    let Some((folder, address)) = given.split_once(' ') else { return };
    let Ok(address) = address.parse() else { return };
    let folder = std::path::PathBuf::from(folder);
    let tell = |thread, outcomes: Vec<(String, String)>| {
        for (what, how) in outcomes {
            tracing::warn!(thread, what, how, "tried");
        }
    };
    tell("first", sandbox::attempt::all(&folder, address));
    let later = tokio::task::spawn_blocking(move || sandbox::attempt::all(&folder, address)).await;
    tell("later", later.unwrap_or_default());
    tracing::warn!("all tried");
}

#[cfg(not(feature = "failpoints"))]
pub(super) async fn attempt() {}
