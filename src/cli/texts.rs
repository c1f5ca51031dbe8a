//! What hallpass says about itself: examples, help topics, manual pages, version.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::args::Cli;
use super::failure::Failure;
use super::{Context, help};

/// The two examples at the top of the help.
pub(crate) const EXAMPLES: &str = "\
Examples:
  hallpass ssh web-1 --reason \"INC-4421 pool exhausted\"     ask, wait for approval, connect
  hallpass approve 7K3F                                     look at a request and approve it
";

/// The end of the help.
pub(crate) const AFTER_HELP: &str =
    "Topics: hallpass help codes | HP-NNN | exit-codes | environment | files | formatting";

/// The topics of `hallpass help`, each also a manual page.
pub(crate) const TOPICS: &[(&str, &str)] =
    &[("exit-codes", EXIT_CODES), ("environment", ENVIRONMENT), ("files", FILES), ("formatting", FORMATTING)];

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
  HALLPASS_CONFIG_DIR   folder of the profiles
  HALLPASS_STATE_DIR    folder of the login sessions
  HALLPASS_RUNTIME_DIR  folder of keys and certificates
  HALLPASS_CACHE_DIR    folder of what completion offers
  HALLPASS_SSH          the ssh program to run
  HALLPASS_NO_BROWSER   1: `open` starts no browser and prints a link
  HALLPASS_ON_MISSING   what plain ssh does without access: ask (default), hint or request
  BROWSER               the browser of `open`; else xdg-open (macOS: open) where there is a display
  SSH_AUTH_SOCK         the ssh-agent that holds the login key
  HTTPS_PROXY           the proxy to the access server
  TZ                    the time zone in which times are shown
  NO_COLOR, ACCESSIBLE  set: text stands still (`… --watch`); TERM=dumb does the same
  CLICOLOR_FORCE        without effect: there is no colour to force
";

const FORMATTING: &str = "\
Formatting
  Standard output holds the answer and nothing else; everything else goes to standard error.
  (default)   text for people: local times with their offset, lists as columns
  --json      one JSON document; each has a `schema` field, and a JSON schema of that name in
              docs/schemas. Times are RFC 3339 in UTC. Fields are only ever added.
  --jsonl     one JSON document per line, for what happens over time: `wait`, `status --watch`,
              `inbox --watch`, `audit tail` (with --follow: until Ctrl-C)
  A failure with --json or --jsonl is one JSON line on standard error (hallpass.failure.v1).
  -q          says nothing but the answer and failures; -v says more
  There is no colour, and no redrawing but that of `status --watch` and `inbox --watch` on a
  terminal; there, --no-color, NO_COLOR, ACCESSIBLE=1 and TERM=dumb make the text stand still.
  What a terminal would act on or hide is shown as \\u{...}, wherever it came from.
";

const FILES: &str = "\
Files
  $XDG_CONFIG_HOME/hallpass/profiles/NAME.toml   server, pin, person and key of a profile (else ~/.config)
  $XDG_STATE_HOME/hallpass/NAME/session          login session, mode 0600 (else ~/.local/state)
  $XDG_RUNTIME_DIR/hallpass/NAME/ID/             one folder per request, mode 0700 (else the state folder):
      key, key.pub      the session key made for this request
      key-cert.pub      its certificate, once approved
      request.json      the request as last seen
  $XDG_RUNTIME_DIR/hallpass/NAME/sign-in-*.html  what `open` gives a browser, mode 0600, worth nothing after a minute
  $XDG_CONFIG_HOME/hallpass/ssh/NAME.known_hosts host CA keys that the service names, if it names any
  $XDG_CACHE_HOME/hallpass/NAME/                 hosts and requests for completion; safe to delete (else ~/.cache)
  $XDG_RUNTIME_DIR/hallpass/NAME/hosts/          what plain ssh includes for each host that a certificate opens
  $XDG_CONFIG_HOME/hallpass/ssh/NAME.conf        the fragment that `hallpass setup` wrote for a profile
  $XDG_CONFIG_HOME/hallpass/ssh/NAME.confirmed   the hosts that `hallpass setup` confirmed
  What is over is deleted at the next run.
On the service's machine
  /etc/hallpass/config.toml                      the service's configuration; if it is not there,
  /var/lib/hallpass/config.toml                  this one; --config FILE goes before both
On a host
  /etc/hallpass/host.toml                        the host's name, tags and trust bundle, for `hallpass host`
  /etc/ssh/hallpass/user_ca_keys                 the trust bundle: CA keys of hallpass
  /etc/ssh/hallpass/ended                        serials that are over before their time, one on each line
  /run/hallpass/sessions/                        one file per session by certificate, mode 0700
";

/// Arguments of `hallpass man`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// Write one page per command and topic below this folder (man1, man7), instead of printing hallpass(1)
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

/// `hallpass man`.
pub(crate) fn man(context: &Context, args: &ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(folder) = &args.out else {
        return context.out.raw(&page(&command, "hallpass")?);
    };
    let mut written = Vec::new();
    write_pages(&command, "hallpass", folder, &mut written)?;
    for (topic, text) in TOPICS {
        write_page(&folder.join("man7").join(format!("hallpass-{topic}.7")), &topic_page(topic, text), &mut written)?;
    }
    context.out.answer(
        &serde_json::json!({ "schema": "hallpass.man.v1", "written": written }),
        &format!("{}\n", written.join("\n")),
    )
}

fn write_pages(
    command: &clap::Command,
    name: &str,
    folder: &std::path::Path,
    written: &mut Vec<String>,
) -> Result<(), Failure> {
    write_page(&folder.join("man1").join(format!("{name}.1")), &page(command, name)?, written)?;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        write_pages(sub, &format!("{name}-{}", sub.get_name()), folder, written)?;
    }
    Ok(())
}

fn write_page(path: &std::path::Path, text: &[u8], written: &mut Vec<String>) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        crate::durable::create_folder(folder, 0o755).map_err(|e| Failure::file("make folder", folder, &e))?;
    }
    crate::durable::replace(path, text, 0o644).map_err(|e| Failure::file("write", path, &e))?;
    written.push(path.display().to_string());
    Ok(())
}

/// A help topic as a page of section 7: its first line is the name, the others stand as they are.
fn topic_page(topic: &str, text: &str) -> Vec<u8> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    // In roff a line that begins with a dot or a quote is a request, a backslash an escape, a bare hyphen a typographic one.
    let line = |line: &str| format!("\\&{}\n", line.replace('\\', "\\e").replace('-', "\\-"));
    let body: String = rest.lines().map(line).collect();
    let name = format!("hallpass\\-{}", topic.replace('-', "\\-"));
    let head =
        format!(".TH hallpass\\-{topic} 7\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n.nf\n", line(first).trim_end());
    format!("{head}{body}.fi\n").into_bytes()
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
    let (name, version) = (context.program.name(), env!("CARGO_PKG_VERSION"));
    context.out.answer(
        &serde_json::json!({ "schema": "hallpass.version.v1", "name": name, "version": version }),
        &format!("{name} {version}"),
    )
}

/// `hallpass help`.
pub(crate) fn help(context: &Context, args: &HelpArgs) -> Result<(), Failure> {
    if let Some((_, text)) = TOPICS.iter().find(|(topic, _)| args.words.first().is_some_and(|word| word == topic)) {
        return context.out.text(text);
    }
    match args.words.first().map(String::as_str) {
        Some("codes") => return help::list(context),
        Some(word) if help::is_code(word) => return help::page(context, word),
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
