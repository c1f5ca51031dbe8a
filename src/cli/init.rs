//! `hallpass init`: a first configuration that `serve` accepts at once.
//!
//! At most five questions, or a file of answers. Everything is checked before anything is written; nothing that is there is overwritten;
//! secrets are made here, 0600, and never printed.

use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use serde_json::json;

use super::failure::{Exit, Failure};
use super::{Context, local, output, profile};
use crate::audit::checkpoint::LogKey;
use crate::config::Config;
use crate::document;
use crate::durable;
use crate::name::{HostName, PersonName};
use crate::policy::Policy;
use crate::signer::file::FileSigner;
use crate::ssh::PublicKey;

/// The port of the service, when the public URL names none.
const PORT: u16 = 7722;

/// The longest file of answers: 64 KiB. Our own choice; a usual one has 300 bytes.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// Arguments of `hallpass init`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Keys of the answers file: url, listen, folder, operator, operator_key, host, ca_passphrase_file. Only operator and \
                  operator_key are needed."
)]
pub(crate) struct InitArgs {
    /// Take the answers from this file (TOML)
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// The answers as they stand in a file.
#[derive(Clone, Debug, Default)]
struct AnswersSpec {
    /// The public URL.
    url: Option<String>,
    /// The folder for everything.
    folder: Option<String>,
    /// The first operator.
    operator: Option<String>,
    /// Their key: a line, or a file.
    operator_key: Option<String>,
    /// A first host.
    host: Option<String>,
    /// A file with the CA key's passphrase.
    ca_passphrase_file: Option<PathBuf>,
    /// Where to listen, if not on the URL's port on all addresses.
    listen: Option<String>,
}

/// The answers, checked.
#[derive(Debug)]
struct Answers {
    url: String,
    listen: String,
    folder: PathBuf,
    operator: PersonName,
    operator_key: PublicKey,
    host: HostName,
    passphrase: Option<(PathBuf, SecretString)>,
}

/// `hallpass init`.
pub(crate) fn run(context: &Context, args: &InitArgs) -> Result<(), Failure> {
    let answers = match &args.answers {
        Some(file) => from_file(file)?,
        None => AnswersSpec::default(),
    };
    let answers = check(context, answers, args.answers.is_some())?;
    let folder = &answers.folder;
    let config_path = folder.join("config.toml");
    let policy_path = folder.join("policy.toml");
    let (config, policy) = (config_text(&answers), policy_text(&answers));
    accepted(&config, &policy, folder)?;
    if args.dry_run {
        let document = json!({ "schema": "hallpass.init.v1", "dry_run": true, "config": config, "policy": policy });
        return context.out.answer(
            &document,
            &format!("# {}\n{config}\n# {}\n{policy}", config_path.display(), policy_path.display()),
        );
    }
    let paths = [config_path, policy_path, folder.join("user_ca"), folder.join("user_ca.pub"), folder.join("log.key")];
    if let Some(taken) = paths.iter().find(|p| p.exists()) {
        return Err(Failure::failed(format!("{:?} is there already", taken.display().to_string()))
            .because("init overwrites nothing")
            .next("name another folder, or move the old files away"));
    }
    write_all(&answers, &paths, &config, &policy)?;
    let written: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    context.out.answer(
        &json!({ "schema": "hallpass.init.v1", "dry_run": false, "written": written }),
        &format!("{}\n", written.join("\n")),
    )?;
    context.out.note(&next_steps(&answers));
    Ok(())
}

fn next_steps(answers: &Answers) -> String {
    let folder = answers.folder.display();
    format!(
        "next: 1. read {folder}/policy.toml: people, hosts and rules are yours to fill in\n      2. hallpass serve --config {folder}/config.toml\n      \
         3. on each host: put {folder}/user_ca.pub into the file that TrustedUserCAKeys names (or: hallpass ca export)\n      4. hallpass login \
         --server {} --person {} --pin PIN (serve prints the pin)",
        answers.url, answers.operator,
    )
}

/// What is written must be what `serve` takes.
fn accepted(config: &str, policy: &str, folder: &Path) -> Result<(), Failure> {
    let problems = Config::parse(config, "config.toml", folder, None).err().into_iter().flatten();
    let problems = problems.chain(Policy::parse(policy, "policy.toml").err().into_iter().flatten());
    let why: Vec<String> = problems.map(|p| p.to_string()).collect();
    if why.is_empty() {
        return Ok(());
    }
    let mut failure =
        Failure::new(Exit::Usage, "answers", "these answers make no configuration that the service would take");
    failure.why = why;
    Err(failure)
}

fn write_all(answers: &Answers, paths: &[PathBuf; 5], config: &str, policy: &str) -> Result<(), Failure> {
    let [config_path, policy_path, ca_path, ca_public_path, log_path] = paths;
    let new = |path: &Path, bytes: &[u8], mode: u32| {
        durable::create(path, bytes, mode).map_err(|e| Failure::file("write", path, &e))
    };
    durable::create_folder(&answers.folder, 0o700).map_err(|e| Failure::file("make folder", &answers.folder, &e))?;
    let passphrase = answers.passphrase.as_ref().map(|(_, p)| p);
    let ca = FileSigner::create(ca_path, "hallpass user CA", passphrase).map_err(|e| Failure::failed(e.to_string()))?;
    new(ca_public_path, format!("{} hallpass user CA\n", ca.to_openssh()).as_bytes(), 0o644)?;
    let seed = local::random::<32>()?;
    new(log_path, LogKey::seed_text(&seed).as_bytes(), 0o600)?;
    new(policy_path, policy.as_bytes(), 0o640)?;
    // Last, so that a configuration is there only when everything that it names is.
    new(config_path, config.as_bytes(), 0o640)
}

fn from_file(file: &Path) -> Result<AnswersSpec, Failure> {
    let text = std::fs::read_to_string(file).map_err(|e| Failure::file("read answers", file, &e))?;
    let read = document::read(&text, &file.display().to_string(), ANSWERS_BYTES_MAX, |root| {
        let text = |key| root.string(key).map(|found| found.value.to_owned());
        Some(AnswersSpec {
            url: text("url"),
            listen: text("listen"),
            folder: text("folder"),
            operator: text("operator"),
            operator_key: text("operator_key"),
            host: text("host"),
            ca_passphrase_file: text("ca_passphrase_file").map(PathBuf::from),
        })
    });
    read.map_err(|problems| {
        let mut failure = Failure::usage(format!("{:?} is no file of answers", file.display().to_string()));
        failure.why = problems.iter().map(ToString::to_string).collect();
        failure
    })
}

/// Asks for what is missing, then checks all of it. From a file, what has a default may be left out.
fn check(context: &Context, spec: AnswersSpec, is_file: bool) -> Result<Answers, Failure> {
    let AnswersSpec { url, folder, operator, operator_key, host, ca_passphrase_file, listen } = spec;
    let ask = |given: Option<String>, question: &str, default: Option<&str>, key: &str| match (given, is_file, default)
    {
        (Some(given), ..) => Ok(given),
        (None, true, Some(default)) => Ok(default.to_owned()),
        (None, true, None) => Err(Failure::usage(format!("the answers lack {key:?}")).because(question)),
        (None, false, default) => {
            let shown = default.map_or_else(|| question.to_owned(), |d| format!("{question} [{d}]"));
            let answer = output::ask(&shown, context.globals.no_input, "--answers FILE")?;
            Ok(if answer.is_empty() { default.unwrap_or_default().to_owned() } else { answer })
        }
    };
    let bad = |what: &str, e: &dyn std::fmt::Display| Failure::usage(format!("{what}: {e}"));
    let url = ask(url, "public URL of the service", Some("https://localhost:7722"), "url")?;
    let folder = ask(folder, "folder for configuration, keys and database", Some("./hallpass"), "folder")?;
    let operator = ask(operator, "name of the first operator (an address or a login name)", None, "operator")?;
    let operator = PersonName::parse(&operator.to_lowercase()).map_err(|e| bad("operator", &e))?;
    let operator_key = ask(operator_key, "their public SSH key (the line, or its file)", None, "operator_key")?;
    let host = ask(host, "a first host to give access to", Some("web-1"), "host")?;
    let url = profile::normal_url(&url);
    Ok(Answers {
        listen: listen.unwrap_or_else(|| format!("[::]:{}", port_of(&url))),
        url,
        folder: std::path::absolute(&folder).map_err(|e| Failure::file("find folder", Path::new(&folder), &e))?,
        operator,
        operator_key: key(&operator_key)?,
        host: HostName::parse(&host).map_err(|e| bad("host", &e))?,
        passphrase: ca_passphrase_file
            .map(|file| passphrase(&file).map(|p| (std::path::absolute(&file).unwrap_or(file), p)))
            .transpose()?,
    })
}

/// A key line, or a file that holds one.
fn key(text: &str) -> Result<PublicKey, Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("operator_key: {e}")).because("give an OpenSSH public key, or its file")
    };
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
        return PublicKey::parse_openssh(text.trim()).map_err(|e| wrong(&e));
    }
    let path = match (text.strip_prefix("~/"), profile::env("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(text),
    };
    let line = profile::read_small(&path)?
        .ok_or_else(|| wrong(&format!("there is no file {:?}", path.display().to_string())))?;
    PublicKey::parse_openssh(line.trim()).map_err(|e| wrong(&e))
}

fn passphrase(file: &Path) -> Result<SecretString, Failure> {
    let wrong =
        |why| Failure::usage(format!("cannot use passphrase file {:?}", file.display().to_string())).because(why);
    crate::secret::passphrase(file).map_err(wrong)
}

fn port_of(url: &str) -> u16 {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(PORT)
}

fn config_text(answers: &Answers) -> String {
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let passphrase = answers
        .passphrase
        .as_ref()
        .map_or_else(String::new, |(file, _)| format!("passphrase_file = {}\n", string(&file.display().to_string())));
    format!(
        "# The service. Every key is explained in config.toml.example. Relative paths are relative to this file.\n\
         listen = {}\npublic_url = {}\npolicy = \"policy.toml\"\n\n[tls]\nself_signed = true\n\n[store]\npath = \"state/hallpass.db\"\n\n[ca.user]\nkey = \"user_ca\"\n{passphrase}\n[log]\nkey = \"log.key\"\n",
        string(&answers.listen),
        string(&answers.url),
    )
}

fn policy_text(answers: &Answers) -> String {
    let Answers { operator, operator_key, host, .. } = answers;
    let key = operator_key.to_openssh();
    format!(
        r#"# Who may do what. Check it with `hallpass policy check`; apply it with `hallpass policy apply` or SIGHUP.
version = 1

[defaults]
backdate  = "30s"            # windows start this much earlier, for slow host clocks
decide_by = "30m"            # an undecided request lapses
window    = {{ default = "30m", max = "1h", total = "4h" }}

[roles]
operator = ["person:{operator}"]
auditor  = ["person:{operator}"]

# One table per person. Nobody approves their own request, so a second person is needed before access can be given.
[[person]]
name   = "{operator}"
groups = ["ops"]
keys   = ["{key}"]

# `scope = "account"`: the host's sshd has TrustedUserCAKeys and nothing else.
[[host]]
name  = "{host}"
tags  = {{ env = "prod" }}
scope = "account"

[[rule]]
name     = "ops-debug"
who      = ["group:ops"]
hosts    = ["{host}"]
accounts = ["debug"]
reason   = {{ min_length = 10 }}
approval = [{{ need = 1, from = ["group:ops"] }}]
permit   = {{ pty = true }}
"#
    )
}
