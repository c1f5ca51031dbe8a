//! What hallpass says about itself: examples, help topics, completion scripts, manual pages, version.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::Context;
use super::args::Cli;
use super::failure::Failure;

/// The two examples at the top of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  hallpass ssh web-1 --reason \"INC-4421 pool exhausted\"     ask, wait for approval, connect
  hallpass approve 7K3F                                     look at a request and approve it
";

/// The end of the help.
pub(crate) const AFTER_HELP: &str = "Topics: hallpass help exit-codes | environment | files";

const EXIT_CODES: &str = "\
Exit codes
  0    done
  1    failed, no better code
  2    wrong usage
  3    a person or rule said no
  4    login needed
  5    no rule allows asking this
  6    server unreachable; trying again can help
  7    host or client not ready
  8    not decided yet; resume with `hallpass wait`
  9    access is over, or the request lapsed
  130  interrupted; the request stays open
`hallpass ssh` returns what ssh returns, and 255 for failures before it starts.
";

const ENVIRONMENT: &str = "\
Environment (a flag wins over the environment, the environment over the profile)
  HALLPASS_PROFILE      which profile to use
  HALLPASS_SERVER       the access server
  HALLPASS_REASON       reason of `request` and `ssh`
  HALLPASS_TICKET       ticket of `request` and `ssh`
  HALLPASS_NO_INPUT     1: never ask a question
  HALLPASS_ON_MISSING   what plain ssh does without access: ask (at a terminal), hint, request
  HALLPASS_CONFIG_DIR   folder of the profiles
  HALLPASS_STATE_DIR    folder of the login sessions
  HALLPASS_RUNTIME_DIR  folder of keys and certificates
  HALLPASS_SSH          the ssh program to run
  SSH_AUTH_SOCK         the ssh-agent that holds the login key
";

const FILES: &str = "\
Files
  $XDG_CONFIG_HOME/hallpass/profiles/NAME.toml   server, pin, person and key of a profile (else ~/.config)
  $XDG_STATE_HOME/hallpass/NAME/session          login session, mode 0600 (else ~/.local/state)
  $XDG_RUNTIME_DIR/hallpass/NAME/ID/             one folder per request, mode 0700 (else the state folder):
      key, key.pub      the session key made for this request
      key-cert.pub      its certificate, once approved
      request.json      the request as last seen
  $XDG_RUNTIME_DIR/hallpass/NAME/hosts/          what plain ssh includes for each host that a certificate opens
  $XDG_CONFIG_HOME/hallpass/ssh/NAME.conf        the fragment that `hallpass setup` wrote for a profile
  What is over is deleted at the next run.
On a host
  /etc/hallpass/host.toml                        the host's name, tags and trust bundle, for `hallpass host`
  /etc/ssh/hallpass/user_ca_keys                 the trust bundle: CA keys of hallpass
  /etc/ssh/hallpass/ended                        serials that are over before their time, one on each line
  /run/hallpass/sessions/                        one file per session by certificate, mode 0700
";

/// Arguments of `hallpass completion`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells with a completion script.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// Arguments of `hallpass man`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// Write one page per command into this folder, instead of printing hallpass(1)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Arguments of `hallpass help`.
#[derive(Clone, Debug, Args)]
pub(crate) struct HelpArgs {
    /// A command such as `policy apply`, or a topic
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// `hallpass completion`.
pub(crate) fn completion(context: &Context, args: CompletionArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, "hallpass", &mut script);
    context.out.raw(&script)
}

/// `hallpass man`.
pub(crate) fn man(context: &Context, args: &ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(folder) = &args.out else {
        return context.out.raw(&page(&command, "hallpass")?);
    };
    crate::durable::create_folder(folder, 0o755).map_err(|e| Failure::file("make folder", folder, &e))?;
    let mut written = Vec::new();
    write_pages(&command, "hallpass", folder, &mut written)?;
    context.out.answer(&serde_json::json!({ "written": written }), &format!("{}\n", written.join("\n")))
}

fn write_pages(
    command: &clap::Command,
    name: &str,
    folder: &std::path::Path,
    written: &mut Vec<String>,
) -> Result<(), Failure> {
    let path = folder.join(format!("{name}.1"));
    crate::durable::replace(&path, &page(command, name)?, 0o644).map_err(|e| Failure::file("write", &path, &e))?;
    written.push(path.display().to_string());
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), folder, written)?;
    }
    Ok(())
}

fn page(command: &clap::Command, name: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut text)
        .map_err(|e| Failure::failed(format!("cannot write the manual page {name}")).because(e.to_string()))?;
    Ok(text)
}

/// `hallpass version`.
pub(crate) fn version(context: &Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    context.out.answer(&serde_json::json!({ "name": "hallpass", "version": version }), &format!("hallpass {version}"))
}

/// `hallpass help`.
pub(crate) fn help(context: &Context, args: &HelpArgs) -> Result<(), Failure> {
    match args.words.first().map(String::as_str) {
        Some("exit-codes") => return context.out.text(EXIT_CODES),
        Some("environment") => return context.out.text(ENVIRONMENT),
        Some("files") => return context.out.text(FILES),
        _ => {}
    }
    let mut command = Cli::command();
    command.build();
    for word in &args.words {
        let Some(found) = command.find_subcommand(word) else {
            return Err(Failure::usage(format!("no help on {word:?}")).next("hallpass help"));
        };
        command = found.clone();
    }
    context.out.text(&command.render_long_help().to_string())
}
