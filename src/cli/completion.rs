//! Completion: `hallpass completion SHELL` prints what a shell reads once; the shell then runs us at each key with `HALLPASS_COMPLETE`.
//!
//! Hosts, requests and profiles come from this machine's files alone (`cache`): no network, no runtime, nothing but an answer. What each
//! argument is completed with is one table ([`WITH`]).
//!
//! Invariant: only parsed names are offered, so nothing that a server said can act in a shell.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::args::Cli;
use super::cache::{Cache, Known};
use super::failure::{Exit, Failure};
use super::output::{Form, Loudness, Output};
use super::profile::{self, Places};
use super::{Context, texts};
use crate::name::Account;

/// The variable by which a shell asks.
const VARIABLE: &str = "HALLPASS_COMPLETE";

/// Arguments of `hallpass completion`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Shells with completion.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    /// GNU bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

impl Shell {
    const fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
        }
    }
}

/// What an argument is completed with.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Hosts, also behind `ACCOUNT@`.
    Destinations,
    /// Hosts.
    Hosts,
    /// Requests of anybody, in any state.
    Requests,
    /// Requests that wait for this person, or their hosts.
    ToDecideOrHosts,
    /// This person's requests in these states, or their hosts.
    MineOrHosts(&'static [&'static str]),
    /// Requests, and the pages beside them.
    Pages,
    /// Commands and topics.
    Help,
}

/// Command with its subcommands, argument, and what it is completed with.
const WITH: &[(&str, &str, Kind)] = &[
    ("admin host retire", "host", Kind::Hosts),
    ("admin host show", "host", Kind::Hosts),
    ("admin host tag", "host", Kind::Hosts),
    ("approve", "which", Kind::ToDecideOrHosts),
    ("approve", "only", Kind::Hosts),
    ("cancel", "which", Kind::MineOrHosts(&["pending", "approved"])),
    ("deny", "which", Kind::ToDecideOrHosts),
    ("doctor", "host", Kind::Destinations),
    ("end", "which", Kind::MineOrHosts(&["approved", "issued"])),
    ("explain", "targets", Kind::Hosts),
    ("extend", "which", Kind::MineOrHosts(&["approved", "issued"])),
    ("help", "words", Kind::Help),
    ("hosts", "query", Kind::Hosts),
    ("open", "page", Kind::Pages),
    ("request", "like", Kind::Requests),
    ("request", "targets", Kind::Hosts),
    ("request", "via", Kind::Hosts),
    ("requests", "host", Kind::Hosts),
    ("show", "which", Kind::Requests),
    ("ssh", "host", Kind::Destinations),
    ("wait", "which", Kind::MineOrHosts(&["pending", "approved"])),
];

/// `hallpass completion`.
pub(crate) fn completion(context: &Context, args: CompletionArgs) -> Result<(), Failure> {
    let (mut script, name) = (Vec::new(), context.program.name());
    args.shell
        .completer()
        .write_registration(VARIABLE, name, name, name, &mut script)
        .map_err(|e| Failure::failed("cannot write the completion script").because(e.to_string()))?;
    match args.shell {
        Shell::Bash => context.out.raw(with_accounts(&String::from_utf8_lossy(&script)).as_bytes()),
        Shell::Zsh | Shell::Fish => context.out.raw(&script),
    }
}

/// What stands in bash's script before we are asked: for bash a word ends before `@`, and `ACCOUNT@HOST` is one argument.
const BASH_JOINS: &str = "    local _HALLPASS_ACCOUNT=
    if [[ \"$2\" == @* && $COMP_CWORD -gt 1 ]]; then
        local at=$((COMP_CWORD - 1))
        if [[ \"${words[at]}\" == @ ]]; then
            at=$((at - 1))
        fi
        _HALLPASS_ACCOUNT=\"${words[at]}\"
        words=(\"${words[@]:0:at}\" \"${words[at]}$2\")
        _CLAP_COMPLETE_INDEX=$at
    fi
";

/// And after that: bash has the account already.
const BASH_PARTS: &str = "    COMPREPLY=(\"${COMPREPLY[@]#\"$_HALLPASS_ACCOUNT\"}\")\n";

/// The script for bash, which knows of `ACCOUNT@HOST`.
fn with_accounts(script: &str) -> String {
    script.replacen("    COMPREPLY=( $( ", &format!("{BASH_JOINS}    COMPREPLY=( $( "), 1).replacen(
        "        compopt -o nospace\n    fi\n}",
        &format!("        compopt -o nospace\n    fi\n{BASH_PARTS}}}"),
        1,
    )
}

/// Answers a shell that asks, by the command tree for what is typed so far; `None` when none asks.
pub(crate) fn answer(tree: impl FnOnce(&[OsString]) -> clap::Command) -> Option<ExitCode> {
    let name = profile::env(VARIABLE)?;
    // A shell has nowhere to show why there is no answer.
    let Ok(shell) = <Shell as clap::ValueEnum>::from_str(&name, false) else {
        return Some(ExitCode::from(Exit::Usage.code()));
    };
    let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let mut command = tree(&words);
    let out = Output::new(Form::Text, Loudness::Quiet);
    let mut answer = Vec::new();
    let here = std::env::current_dir().ok();
    let completed =
        words.is_empty() || shell.completer().write_complete(&mut command, words, here.as_deref(), &mut answer).is_ok();
    let is_written = completed && out.raw(&answer).is_ok();
    Some(if is_written { ExitCode::SUCCESS } else { ExitCode::from(Exit::Failed.code()) })
}

/// The command tree with what its arguments are completed with.
pub(super) fn command(words: &[OsString]) -> clap::Command {
    let places = Places::from_env().ok();
    let cache = places.as_ref().map(|places| Cache::new(places, &profile_in(words)));
    let mut command = Cli::command();
    if let Some(places) = places {
        let names = move || profile::names(&places).into_iter().map(CompletionCandidate::new).collect();
        command = command.mut_arg("profile", |argument| argument.add(ArgValueCandidates::new(names)));
    }
    for &(name, argument, kind) in WITH {
        let (known, cache) = (cache.clone(), cache.clone());
        let offered = move || cache.as_ref().map_or_else(Vec::new, |cache| kind.candidates(cache));
        // Not `mut_arg`, which would put the argument behind the others.
        let add = |it: clap::Arg| match (it.get_id() == argument, kind) {
            (false, _) => it,
            (true, Kind::Destinations) => it.add(destinations(known.clone())),
            (true, _) => it.add(ArgValueCandidates::new(offered.clone())),
        };
        command = within(command, name, |sub| sub.mut_args(add));
    }
    command
}

/// Hosts as they begin with what is typed so far, behind the account that is typed with them.
fn destinations(cache: Option<Cache>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let typed = typed.to_str().unwrap_or_default();
        let (account, host) = typed.split_once('@').map_or(("", typed), |(account, host)| (account, host));
        let before = if Account::parse(account).is_ok() { format!("{account}@") } else { String::new() };
        let hosts = cache.as_ref().map_or_else(Vec::new, Cache::hosts);
        let fits = |name: &String| name.starts_with(host) && (account.is_empty() || !before.is_empty());
        hosts.into_iter().filter(fits).map(|name| CompletionCandidate::new(format!("{before}{name}"))).collect()
    })
}

/// Changes the subcommand of this path.
fn within(command: clap::Command, path: &str, change: impl FnOnce(clap::Command) -> clap::Command) -> clap::Command {
    match path.split_once(' ') {
        None => command.mut_subcommand(path, change),
        Some((first, rest)) => {
            // The recursion needs one type of closure, whatever its depth.
            let change: Box<dyn FnOnce(clap::Command) -> clap::Command + '_> = Box::new(change);
            command.mut_subcommand(first, move |sub| within(sub, rest, change))
        }
    }
}

/// The profile that the line names so far, else the environment, else the default.
fn profile_in(words: &[OsString]) -> String {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let apart = words.windows(2).find_map(|pair| match pair {
        ["--profile", name] => Some((*name).to_owned()),
        _ => None,
    });
    let joined = || words.iter().find_map(|word| word.strip_prefix("--profile=")).map(str::to_owned);
    apart.or_else(joined).or_else(|| profile::env("HALLPASS_PROFILE")).unwrap_or_else(|| "default".to_owned())
}

impl Kind {
    fn candidates(self, cache: &Cache) -> Vec<CompletionCandidate> {
        let of = |known: Known| CompletionCandidate::new(known.id.clone()).help(Some(known.says().into()));
        let mine = |states: &'static [&'static str]| {
            cache.requests().into_iter().filter(move |known| known.mine && states.contains(&known.state.as_str()))
        };
        match self {
            Self::Hosts | Self::Destinations => cache.hosts().into_iter().map(CompletionCandidate::new).collect(),
            Self::Requests => cache.requests().into_iter().map(of).collect(),
            Self::ToDecideOrHosts => {
                let to_decide = || cache.requests().into_iter().filter(|known| known.may_decide);
                let hosts = to_decide().flat_map(|known| known.hosts).map(CompletionCandidate::new);
                to_decide().map(of).chain(hosts).collect()
            }
            Self::MineOrHosts(states) => {
                let hosts = mine(states).flat_map(|known| known.hosts).map(CompletionCandidate::new);
                mine(states).map(of).chain(hosts).collect()
            }
            Self::Pages => {
                let pages = ["hosts", "audit"].into_iter().map(CompletionCandidate::new);
                cache.requests().into_iter().map(of).chain(pages).collect()
            }
            Self::Help => {
                let command = Cli::command();
                let commands =
                    command.get_subcommands().filter(|sub| !sub.is_hide_set()).map(|sub| sub.get_name().to_owned());
                let topics = texts::TOPICS.iter().map(|(topic, _)| (*topic).to_owned());
                commands.chain(topics).map(CompletionCandidate::new).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_names_an_argument_that_there_is() {
        let tree = Cli::command();
        for (name, argument, _) in WITH {
            let sub = name
                .split(' ')
                .fold(&tree, |tree, name| tree.find_subcommand(name).unwrap_or_else(|| panic!("{name}")));
            assert!(sub.get_arguments().any(|a| a.get_id() == argument), "{name} {argument}");
        }
        command(&[]).debug_assert();
    }

    #[test]
    fn the_profile_of_the_line_counts() {
        let of = |line: &str| profile_in(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!([of("x --profile work y"), of("x --profile=home")], ["work", "home"]);
    }
}
