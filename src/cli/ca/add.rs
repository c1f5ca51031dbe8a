//! `hallpass ca add`: a further CA key, on the service's machine, and the lines that configure it.
//!
//! What for: a key that a rotation can begin with is a table of the configuration, which is its owner's file and perhaps under version
//! control; so it is not changed here. What can be wrong with key and table is found before anything is written.
//!
//! What not: no host and no client hears of the key. That is `hallpass ca rotate … start`, once the service has been started with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::config_file::{self, Reader};
use super::super::failure::{Exit, Failure};
use super::super::{Context, profile};
use super::words;
use crate::config::Config;
use crate::document::Problem;
use crate::durable;
use crate::keyring::Ca;
use crate::name::CaName;
use crate::signer::{self, SignError, file::FileSigner};
use crate::ssh::PublicKey;
use crate::ssh::cert::Purpose;

/// How long an agent or a token may take to show that it signs: the service's own default.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a key is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum For {
    /// Certificates for people
    User,
    /// Host certificates
    Host,
}

/// Arguments of `hallpass ca add`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("place").required(true))]
pub(crate) struct AddArgs {
    /// What it is to sign
    #[arg(value_enum, value_name = "user|host")]
    purpose: For,
    /// For this user CA; the default one if left out
    #[arg(long, value_name = "NAME", value_parser = CaName::parse)]
    ca: Option<CaName>,
    /// Make an Ed25519 key in this file (mode 0600; must not exist), and its public half beside it
    #[arg(value_name = "FILE", group = "place")]
    file: Option<PathBuf>,
    /// Encrypt the file with the passphrase in this one
    #[arg(long, value_name = "FILE", requires = "file")]
    passphrase_file: Option<PathBuf>,
    /// Take a key that an ssh-agent at this socket holds
    #[arg(long, value_name = "SOCKET", group = "place", requires = "public_key")]
    agent: Option<PathBuf>,
    /// Take a key in a PKCS#11 token, by this library
    #[arg(long, value_name = "LIBRARY", group = "place", requires_all = ["token", "label", "pin_file", "public_key"])]
    pkcs11: Option<PathBuf>,
    /// The token's label
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    token: Option<String>,
    /// The key's label in the token
    #[arg(long, value_name = "LABEL", requires = "pkcs11")]
    label: Option<String>,
    /// A file with the token's PIN
    #[arg(long, value_name = "FILE", requires = "pkcs11")]
    pin_file: Option<PathBuf>,
    /// The key's public half
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    public_key: Option<PathBuf>,
}

impl For {
    const fn purpose(self) -> Purpose {
        match self {
            Self::User => Purpose::User,
            Self::Host => Purpose::Host,
        }
    }
}

/// `hallpass ca add`.
pub(super) fn run(context: &Context, args: &AddArgs) -> Result<(), Failure> {
    let (purpose, settings) = (args.purpose.purpose(), settings(args)?);
    let ca = Ca::of(purpose, args.ca.clone()).map_err(Failure::usage)?;
    let lines = lines(context, &ca, &settings)?;
    let config = fitting(context, &lines)?;
    let key = match &settings {
        signer::Settings::File(file) => {
            if let Some(config) = read(context)? {
                config_file::check_maker(&config)?;
            }
            make(&ca, file)?
        }
        signer::Settings::Agent(_) | signer::Settings::Pkcs11(_) => look(purpose, &settings)?,
    };
    let fingerprint = key.fingerprint().to_string();
    let shown = config.as_ref().map(|path| path.display().to_string());
    let mut document = json!({
        "schema": "hallpass.ca-add.v1",
        "purpose": purpose.word(),
        "fingerprint": fingerprint,
        "key": key.to_openssh(),
        "lines": lines,
        "config": shown,
    });
    if let (Some(members), Some(name)) = (document.as_object_mut(), ca.named()) {
        members.insert("ca".to_owned(), name.to_string().into());
    }
    context.out.answer(&document, &lines)?;
    match shown {
        Some(shown) => context.out.note(&format!("{shown:?} takes these lines, at its end")),
        None => context.out.note("there is no configuration to try these lines in; name one with --config"),
    }
    let next = match is_first(&lines) {
        false => format!("hallpass ca rotate {} start --key {fingerprint}", words(purpose.word(), ca.named().as_ref())),
        true => "give it hosts, by a tag in [[ca]] of the policy: hallpass policy apply FILE".to_owned(),
    };
    context.out.note(&format!(
        "{fingerprint} signs nothing yet, and nobody has heard of it\n\
         next: add the lines to the configuration, and start the service again\n\
         next: {next}"
    ));
    Ok(())
}

/// Where the key is, or is to be; every path as it is from anywhere.
fn settings(args: &AddArgs) -> Result<signer::Settings, Failure> {
    let whole = |path: &PathBuf| std::path::absolute(path).map_err(|e| Failure::file("find", path, &e));
    let optional = |path: &Option<PathBuf>| path.as_ref().map(whole).transpose();
    let public_key = optional(&args.public_key)?;
    let needed = |what: Option<PathBuf>| what.ok_or_else(|| Failure::usage("the key's place is not named whole"));
    if let Some(library) = optional(&args.pkcs11)? {
        let label = |label: &Option<String>| label.clone().unwrap_or_default();
        return Ok(signer::Settings::Pkcs11(signer::pkcs11::Settings {
            library,
            token: label(&args.token),
            label: label(&args.label),
            pin_path: needed(optional(&args.pin_file)?)?,
            public_key: needed(public_key)?,
        }));
    }
    if let Some(socket) = optional(&args.agent)? {
        return Ok(signer::Settings::Agent(signer::agent::Settings { socket, public_key: needed(public_key)? }));
    }
    let passphrase_path = optional(&args.passphrase_file)?;
    Ok(signer::Settings::File(signer::file::Settings { path: needed(optional(&args.file)?)?, passphrase_path }))
}

/// Whether these lines are a CA's first key, and no further one.
fn is_first(lines: &str) -> bool {
    !lines.starts_with("[[")
}

/// The head of its table: a CA that the configuration does not have yet begins with this key.
fn head(context: &Context, ca: &Ca) -> Result<String, Failure> {
    let table = ca.table();
    let Some((path, text)) = configuration(context)? else { return Ok(format!("[[{table}.next]]\n")) };
    let is_new = match (ca.named(), parse(&path, &text)) {
        (Some(name), Ok(config)) => !config.named_cas.contains_key(&name),
        // What is wrong with the file is said when it is tried with the lines.
        (Some(_) | None, _) => false,
    };
    Ok(if is_new { format!("[{table}]\n") } else { format!("[[{table}.next]]\n") })
}

/// The table that configures it.
fn lines(context: &Context, ca: &Ca, settings: &signer::Settings) -> Result<String, Failure> {
    let path = |path: &Path| match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(Failure::usage(format!("{:?} cannot stand in the configuration", path.display().to_string()))
            .because("it is not plain text")),
    };
    let pairs: Vec<(&str, String)> = match settings {
        signer::Settings::File(file) => {
            let passphrase = file.passphrase_path.as_deref().map(path).transpose()?;
            let passphrase = passphrase.map(|text| ("passphrase_file", text));
            std::iter::once(("key", path(&file.path)?)).chain(passphrase).collect()
        }
        signer::Settings::Agent(agent) => {
            vec![("agent", path(&agent.socket)?), ("public_key", path(&agent.public_key)?)]
        }
        signer::Settings::Pkcs11(token) => vec![
            ("pkcs11", path(&token.library)?),
            ("token", token.token.clone()),
            ("label", token.label.clone()),
            ("pin_file", path(&token.pin_path)?),
            ("public_key", path(&token.public_key)?),
        ],
    };
    let lines = pairs.iter().map(|(name, text)| {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{name} = \"{quoted}\"\n")
    });
    Ok(std::iter::once(head(context, ca)?).chain(lines).collect())
}

/// The configuration file and its text, if there is one.
fn configuration(context: &Context) -> Result<Option<(PathBuf, String)>, Failure> {
    let Some(path) = config_file::found(context) else { return Ok(None) };
    let text = config_file::text(&path, Reader::Operator)?;
    Ok(Some((path, text)))
}

fn parse(path: &Path, text: &str) -> Result<Config, Vec<Problem>> {
    let folder = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned)).unwrap_or_default();
    let credentials = profile::env("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Config::parse_beside(text, &path.display().to_string(), &folder, credentials.as_deref())
}

/// The configuration, if there is one.
fn read(context: &Context) -> Result<Option<Config>, Failure> {
    let Some((path, text)) = configuration(context)? else { return Ok(None) };
    // What is wrong with it has been said: it takes the lines.
    Ok(parse(&path, &text).ok())
}

/// The configuration file, if there is one, once it takes these lines.
fn fitting(context: &Context, lines: &str) -> Result<Option<PathBuf>, Failure> {
    let Some((path, text)) = configuration(context)? else { return Ok(None) };
    let shown = path.display().to_string();
    // Whatever the text ends with, a table begins on a line of its own.
    match parse(&path, &format!("{text}\n{lines}")) {
        Ok(_) => Ok(Some(path)),
        Err(problems) => {
            let mut failure =
                Failure::new(Exit::Usage, "config", format!("{shown:?} does not take another table of this kind"));
            failure.why = problems.iter().map(ToString::to_string).collect();
            Err(failure.next("mend the file; where it has `next = [...]`, the key belongs into that list"))
        }
    }
}

/// Makes the key, and its public half beside it.
fn make(ca: &Ca, settings: &signer::file::Settings) -> Result<PublicKey, Failure> {
    let name = format!("hallpass {ca} CA");
    let public = PathBuf::from(format!("{}.pub", settings.path.display()));
    if public.exists() {
        return Err(Failure::failed(format!("{:?} is there already", public.display().to_string()))
            .next("name another file, or take it away"));
    }
    let wrong = |why: String| Failure::failed("cannot use the passphrase file").because(why);
    let passphrase = settings.passphrase_path.as_deref().map(crate::secret::passphrase).transpose().map_err(wrong)?;
    let key = FileSigner::create(&settings.path, &name, passphrase.as_ref());
    let key = key.map_err(|error| not_made(&settings.path, &error))?;
    let line = format!("{} {name}\n", key.to_openssh());
    durable::create(&public, line.as_bytes(), 0o644).map_err(|e| Failure::file("write", &public, &e))?;
    Ok(key)
}

/// Why there is no key file.
fn not_made(path: &Path, error: &SignError) -> Failure {
    let us = rustix::process::geteuid().as_raw();
    let failure = Failure::failed(error.to_string());
    match path.parent() {
        _ if path.exists() => failure.next("name a file that does not exist"),
        Some(folder) if !folder.exists() => {
            let shown = folder.display().to_string();
            Failure::failed(format!("there is no folder {shown:?}"))
                .next(config_file::install_for(us, folder))
                .next("or name a file in a folder that is there")
        }
        _ => failure.next("name a file in a folder of the service's user, such as /var/lib/hallpass"),
    }
}

/// Has the backend sign something with the key.
fn look(purpose: Purpose, settings: &signer::Settings) -> Result<PublicKey, Failure> {
    let opened = signer::open(settings, purpose, PATIENCE);
    let signer = opened
        .map_err(|error| Failure::failed(error.to_string()).because("docs/ca-keys.md says how to make and find one"))?;
    Ok(signer.public_key().clone())
}
