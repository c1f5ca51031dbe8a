//! `hallpass init`: a first configuration that `serve` accepts at once.
//!
//! At most five questions, or a file of answers. Everything is checked before anything is written; nothing that is there is overwritten;
//! secrets are made here, 0600, and never printed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use serde_json::json;

use super::failure::{Exit, Failure};
use super::{Context, config_file, local, output, profile};
use crate::audit::checkpoint::{LogKey, usual_origin};
use crate::config::{self, Config};
use crate::document;
use crate::durable;
use crate::name::{HostName, PersonName};
use crate::policy::Policy;
use crate::signer::file::FileSigner;
use crate::ssh::PublicKey;

/// The port of the service, when the public URL names none.
const PORT: u16 = 7722;

/// The account of the first rule.
const ACCOUNT: &str = "deploy";

/// The public URL when the answers name none.
const LOCAL_URL: &str = "https://localhost:7722";

/// The folder of the service as `deploy/hallpass.service` has it; where everything goes if nothing else is said and it is ours.
const SYSTEM_FOLDER: &str = "/var/lib/hallpass";

/// The folder of the database, in the service's.
const STATE: &str = "state";

/// The longest file of answers: 64 KiB. Our own choice; a usual one has 300 bytes.
const ANSWERS_BYTES_MAX: usize = 64 * 1024;

/// Arguments of `hallpass init`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Keys of the answers file: url, listen, folder, operator, operator_key, host, ca_passphrase_file. Only operator and \
                  operator_key are needed; folder is /var/lib/hallpass if that is yours, else ./hallpass."
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
    /// A file with the CA keys' passphrase.
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
    let paths = paths_in(folder);
    let [config_path, policy_path, ..] = &paths;
    let (config, policy) = (config_text(&answers), policy_text(&answers));
    accepted(&config, &policy, folder)?;
    if args.dry_run {
        let document = json!({ "schema": "hallpass.init.v1", "dry_run": true, "config": config, "policy": policy });
        return context.out.answer(
            &document,
            &format!("# {}\n{config}\n# {}\n{policy}", config_path.display(), policy_path.display()),
        );
    }
    free(&paths)?;
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
    let Answers { url, operator, host, .. } = answers;
    let folder = answers.folder.display();
    format!(
        "next: 1. add people, hosts and rules to {folder}/policy.toml: nobody approves their own request\n      \
         2. hallpass serve --config {folder}/config.toml\n      \
         3. on {host}: {folder}/user_ca.pub becomes /etc/ssh/hallpass/user_ca_keys, the line {ACCOUNT}@{host} \
         /etc/ssh/hallpass/principals/{ACCOUNT}, and deploy/00-hallpass.conf goes to /etc/ssh/sshd_config.d/\n      \
         4. hallpass login --server {url} --person {operator} --pin PIN (serve prints the pin)"
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

fn write_all(answers: &Answers, paths: &Paths, config: &str, policy: &str) -> Result<(), Failure> {
    let [config_path, policy_path, user_ca, user_public, host_ca, host_public, log_path] = paths;
    let new = |path: &Path, bytes: &[u8], mode: u32| {
        durable::create(path, bytes, mode).map_err(|e| Failure::file("write", path, &e))
    };
    for folder in [answers.folder.clone(), answers.folder.join(STATE)] {
        durable::create_folder(&folder, 0o700).map_err(|e| Failure::file("make folder", &folder, &e))?;
    }
    let passphrase = answers.passphrase.as_ref().map(|(_, p)| p);
    for (name, path, public) in [("hallpass user CA", user_ca, user_public), ("hallpass host CA", host_ca, host_public)]
    {
        let key = FileSigner::create(path, name, passphrase).map_err(|e| Failure::failed(e.to_string()))?;
        new(public, format!("{} {name}\n", key.to_openssh()).as_bytes(), 0o644)?;
    }
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

/// How to ask for what is missing. From a file, what has a default may be left out, and what can't be used is an error; from a
/// person, each answer is looked at before the next question, and asked for again.
struct Asker<'a> {
    context: &'a Context,
    is_file: bool,
}

impl Asker<'_> {
    fn ask<T>(
        &self,
        given: Option<String>,
        (key, question): (&str, &str),
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match (given, self.is_file, default) {
            (Some(given), ..) => return parse(&given),
            (None, true, Some(default)) => return parse(default),
            (None, true, None) => {
                return Err(Failure::usage(format!("the answers lack {key:?}")).because(question));
            }
            (None, false, _) => {}
        }
        if self.context.globals.no_input || !output::is_interactive() {
            return Err(Failure::usage(format!("{question}: nobody to ask here")).next("pass --answers FILE"));
        }
        let shown = default.map_or_else(|| question.to_owned(), |d| format!("{question} [{d}]"));
        loop {
            let answer = output::ask(&shown, self.context.globals.no_input, "--answers FILE")?;
            let answer = if answer.is_empty() { default.unwrap_or_default() } else { &answer };
            match parse(answer) {
                Ok(value) => return Ok(value),
                Err(failure) => self.context.out.failure(&failure),
            }
        }
    }
}

/// Asks for what is missing, and checks all of it.
fn check(context: &Context, spec: AnswersSpec, is_file: bool) -> Result<Answers, Failure> {
    let AnswersSpec { url, folder, operator, operator_key, host, ca_passphrase_file, listen } = spec;
    let asker = Asker { context, is_file };
    let bad = |what: &str, e: &dyn std::fmt::Display| Failure::usage(format!("{what}: {e}"));
    let url_default = if is_file { LOCAL_URL.to_owned() } else { usual_url() };
    let url = asker.ask(url, ("url", "public URL of the service"), Some(&url_default), |text| {
        let url = profile::normal_url(text);
        config::check_public_url(&url).map(|()| url).map_err(|e| bad("url", &e))
    })?;
    if url.contains("//localhost") {
        context.out.note("note: localhost is this machine; nobody can log in there from another one");
    }
    let question = ("folder", "folder for configuration, keys and database");
    let folder = asker.ask(folder, question, Some(usual_folder(Path::new(SYSTEM_FOLDER))), |text| {
        let folder = std::path::absolute(text).map_err(|e| Failure::file("find folder", Path::new(text), &e))?;
        if is_file { Ok(folder) } else { free(&paths_in(&folder)).map(|()| folder) }
    })?;
    let question = ("operator", "name of the first operator (an address or a login name)");
    let operator = asker.ask(operator, question, None, |text| {
        PersonName::parse(&text.to_lowercase()).map_err(|e| bad("operator", &e))
    })?;
    let question = ("operator_key", "their public SSH key (paste the line of their .pub file, or name it)");
    let operator_key = asker.ask(operator_key, question, None, key)?;
    let question = ("host", "a first host to give access to");
    let host = asker.ask(host, question, Some("web-1"), |text| HostName::parse(text).map_err(|e| bad("host", &e)))?;
    Ok(Answers {
        listen: listen.unwrap_or_else(|| format!("[::]:{}", port_of(&url))),
        url,
        folder,
        operator,
        operator_key,
        host,
        passphrase: ca_passphrase_file
            .map(|path| passphrase(&path).map(|passphrase| (std::path::absolute(&path).unwrap_or(path), passphrase)))
            .transpose()?,
    })
}

/// What a person is offered: this machine's name.
fn usual_url() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let url = format!("https://{}:{PORT}", name.trim().to_lowercase());
    if config::check_public_url(&url).is_ok() { url } else { LOCAL_URL.to_owned() }
}

/// The folder that the system's service has, for whom it belongs to.
fn usual_folder(system: &Path) -> &str {
    let us = rustix::process::geteuid().as_raw();
    let is_ours = std::fs::metadata(system).is_ok_and(|meta| meta.is_dir() && meta.uid() == us);
    system.to_str().filter(|_| is_ours).unwrap_or("./hallpass")
}

/// The files that are written.
type Paths = [PathBuf; 7];

fn paths_in(folder: &Path) -> Paths {
    ["config.toml", "policy.toml", "user_ca", "user_ca.pub", "host_ca", "host_ca.pub", "log.key"]
        .map(|name| folder.join(name))
}

/// Nothing that is there is overwritten.
fn free(paths: &Paths) -> Result<(), Failure> {
    let [config, ..] = paths;
    if let Some(left) = config_file::left_in(config.parent().unwrap_or(config)) {
        return Err(Failure::failed(format!("{:?} is there already", left.display().to_string()))
            .because("it is of a log with a key that init would not make: no service would start with it")
            .next("to go on with it: put config.toml and the keys back from the offline copy")
            .next(
                "to begin a new log: docs/operations.md, \"The log key was lost or stolen\"; or name another folder",
            ));
    }
    let Some(taken) = paths.iter().find(|p| p.exists()) else { return Ok(()) };
    Err(Failure::failed(format!("{:?} is there already", taken.display().to_string()))
        .because("init overwrites nothing")
        .next("name another folder, or move the old files away"))
}

/// A key line, or a file that holds one.
fn key(text: &str) -> Result<PublicKey, Failure> {
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("operator_key: {e}"))
            .because("it takes an OpenSSH public key, as one line, or the path of its file")
    };
    if text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-") {
        return PublicKey::parse_openssh(text.trim()).map_err(|e| wrong(&e));
    }
    let path = match (text.strip_prefix("~/"), profile::env("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(text),
    };
    if text.is_empty() {
        return Err(wrong(&"it is empty"));
    }
    let line = profile::read_small(&path)
        .map_err(|failure| failure.next("paste the line itself"))?
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
    // Written down, so that the URL can change later. Port 0 has no name before it is bound.
    let origin = match answers.url.ends_with(":0") {
        true => String::new(),
        false => format!("origin = {}\n", string(&usual_origin(&answers.url))),
    };
    format!(
        "# The service. Every key is explained in config.toml.example. Relative paths are relative to this file.\n\
         listen = {}\npublic_url = {}\npolicy = \"policy.toml\"\n\n[tls]\nself_signed = true\n\n[store]\npath = \"{STATE}/hallpass.db\"\n\n[ca.user]\nkey = \"user_ca\"\n{passphrase}\n[ca.host]\nkey = \"host_ca\"\n{passphrase}\n[log]\nkey = \"log.key\"\nhead = \"log.head\"\n{origin}",
        string(&answers.listen),
        string(&answers.url),
    )
}

fn policy_text(answers: &Answers) -> String {
    let Answers { operator, operator_key, host, .. } = answers;
    let key = operator_key.to_openssh();
    format!(
        r#"# Who may do what. Check it with `hallpass policy check`; apply it with `hallpass policy apply`.
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

# On the host, the account's principals file holds the line {ACCOUNT}@{host} (deploy/00-hallpass.conf).
[[host]]
name = "{host}"
tags = {{ env = "prod" }}

[[rule]]
name     = "ops-{ACCOUNT}"
who      = ["group:ops"]
hosts    = ["{host}"]
accounts = ["{ACCOUNT}"]
reason   = {{ min_length = 10 }}
approval = [{{ need = 1, from = ["group:ops"] }}]
permit   = {{ pty = true }}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_folder_is_the_usual_one_for_whom_it_belongs_to() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Some(usual_folder(folder.path())), folder.path().to_str());
        assert_eq!(usual_folder(&folder.path().join("nothing")), "./hallpass");
        // Only root can give a folder away, so only root sees this.
        if std::os::unix::fs::chown(folder.path(), Some(12_345), None).is_ok() {
            assert_eq!(usual_folder(folder.path()), "./hallpass");
        }
    }
}
