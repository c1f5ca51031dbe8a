//! The commands that run at each login, and at each ssh: read without building the whole command tree, which takes longer than some of them.
//!
//! What for: `host guard`, `host principals` and `host watch` come in the one form that PAM, sshd and the guard are told, and are read by hand;
//! `ssh-prepare`, which has a person's flags and environment, by a tree of that one command.
//!
//! Invariant: what is read here means the same to the whole tree; what is not read here (a typing error, a call for help, another spelling
//! or command) is left to that.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::args::{Cli, Command, Globals};
use super::host::{HostCommand, PrincipalsArgs, WatchArgs};
use super::prepare::PrepareArgs;

/// A host's commands that are read by hand.
const OFTEN: [&str; 3] = ["guard", "principals", "watch"];

/// `ssh-prepare`, with what all commands share.
#[derive(Debug, Parser)]
#[command(name = "hallpass", disable_help_flag = true, disable_help_subcommand = true)]
struct Often {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: OftenCommand,
}

#[derive(Debug, Subcommand)]
enum OftenCommand {
    SshPrepare(PrepareArgs),
}

/// Reads a command line (the program's name first), if it is one of these.
pub(super) fn read(line: impl Iterator<Item = OsString>) -> Option<Cli> {
    let line: Vec<OsString> = line.collect();
    let words: Vec<&str> = line.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
    match words.as_slice() {
        ["host", rest @ ..] => {
            let (globals, command) = host(rest)?;
            Some(Cli { globals, command: Command::Host(command) })
        }
        // The second is what the fragment of ssh's configuration says.
        ["ssh-prepare", ..] | ["--profile", _, "ssh-prepare", ..] => {
            let Often { globals, command: OftenCommand::SshPrepare(args) } = Often::try_parse_from(line).ok()?;
            Some(Cli { globals, command: Command::SshPrepare(args) })
        }
        _ => None,
    }
}

/// The same for the program that has a host's commands alone.
pub(super) fn read_host(line: impl Iterator<Item = OsString>) -> Option<(Globals, HostCommand)> {
    let line: Vec<OsString> = line.collect();
    let words: Vec<&str> = line.iter().skip(1).map(|word| word.to_str()).collect::<Option<_>>()?;
    host(&words)
}

/// One of those that run on a host.
fn host(words: &[&str]) -> Option<(Globals, HostCommand)> {
    let (command, words) = words.split_first().filter(|(command, _)| OFTEN.contains(command))?;
    let mut given = Given::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--config" => once(&mut given.config, words.next()?)?,
            "--spool" => once(&mut given.spool, words.next()?)?,
            word => match word.split_once('=') {
                Some(("--user", value)) => once(&mut given.user, value)?,
                Some(("--serial", value)) => once(&mut given.serial, value)?,
                Some(("--key-id", value)) => once(&mut given.key_id, value)?,
                Some(("--cert", value)) => once(&mut given.cert, value)?,
                _ if word.starts_with('/') => once(&mut given.record, word)?,
                _ => return None,
            },
        }
    }
    let config = given.config.take().map(PathBuf::from);
    let command = match *command {
        "guard" => HostCommand::Guard,
        "principals" => HostCommand::Principals(PrincipalsArgs {
            user: given.user.take()?,
            serial: given.serial.take()?,
            key_id: given.key_id.take()?,
            cert: given.cert.take()?,
        }),
        _ => HostCommand::Watch(WatchArgs {
            spool: given.spool.take().map(PathBuf::from)?,
            record: given.record.take().map(PathBuf::from)?,
        }),
    };
    // Whatever is left belongs to another command.
    let is_all = given == Given::default();
    is_all.then(|| (Globals::of_host(config), command))
}

/// What stands in the line.
#[derive(Default, PartialEq, Eq)]
struct Given {
    config: Option<String>,
    spool: Option<String>,
    record: Option<String>,
    user: Option<String>,
    serial: Option<String>,
    key_id: Option<String>,
    cert: Option<String>,
}

/// A second time is an error, which the whole tree explains; so is a flag where a value should be.
fn once(place: &mut Option<String>, value: &str) -> Option<()> {
    let is_fine = place.is_none() && !value.starts_with('-');
    *place = Some(value.to_owned());
    is_fine.then_some(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::ssh_config::{self, Fragment, Pattern};

    fn both(words: &str) -> (Option<String>, Option<String>) {
        let line = || words.split(' ').map(OsString::from);
        let shown = |cli: Cli| format!("{cli:?}");
        (read(line()).map(shown), Cli::try_parse_from(line()).ok().map(shown))
    }

    #[test]
    fn what_is_read_here_means_the_same_to_the_whole_tree() {
        for words in [
            "hallpass host guard",
            "hallpass host guard --config /etc/x/host.toml",
            "hallpass host principals --user=deploy --serial=9 --key-id=hallpass/7K3F9QX2/alice --cert=AAAA",
            "hallpass host principals --user=deploy --serial=9 --key-id= --config /x --cert=AA==",
            "hallpass host watch --spool /var/lib/hallpass/host/spool /run/hallpass/sessions/1-2-3",
            "hallpass ssh-prepare --folder /run/x --profile work --timeout 3s",
            "hallpass --profile work ssh-prepare --folder /run/x --strict",
            "hallpass ssh-prepare --folder=/run/x --strict --no-input --server https://h -qy",
        ] {
            let (here, whole) = both(words);
            assert!(here.is_some(), "{words}");
            assert_eq!(here, whole, "{words}");
        }
    }

    #[test]
    fn what_ssh_runs_is_read_here() {
        let pattern = Pattern::parse("web-1").unwrap();
        for strict in [false, true] {
            let text = ssh_config::fragment(&Fragment {
                profile: "work",
                hosts: std::slice::from_ref(&pattern),
                program: Path::new("hallpass"),
                folder: Path::new("/run/x"),
                known_hosts: None,
                coexist: false,
                strict,
            });
            let line = text.lines().find_map(|line| line.split_once("exec \"")).unwrap().1;
            let (here, whole) = both(&line.trim_end_matches('"').replace('\'', ""));
            assert!(here.is_some(), "{line}");
            assert_eq!(here, whole, "{line}");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_whole_tree() {
        for words in [
            "hallpass",
            "hallpass host",
            "hallpass host check",
            "hallpass host guard --help",
            "hallpass host guard -h",
            "hallpass host guard now",
            "hallpass host guard --config",
            "hallpass host guard --config --json",
            "hallpass host guard --json",
            "hallpass host guard --user=deploy",
            "hallpass host guard /run/hallpass/sessions/1-2-3",
            "hallpass host watch --spool /x",
            "hallpass host watch --spool /x /y /z",
            "hallpass host principals --user deploy --serial=9 --key-id=x --cert=AAAA",
            "hallpass host principals --user=deploy",
            "hallpass host principals --user=a --user=b --serial=9 --key-id=x --cert=AAAA",
            "hallpass --quiet host guard",
            "hallpass ssh-prepare",
            "hallpass ssh-prepare --folder /x --timeout never",
            "hallpass --profile ssh-prepare --folder /x",
            "hallpass --profile work status",
            "hallpass version",
        ] {
            assert_eq!(both(words).0, None, "{words}");
        }
    }
}
