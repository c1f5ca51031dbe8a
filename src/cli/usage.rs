//! A command line that was not understood, and one that asks for help or the version.
//!
//! What for: the parser's own texts in our form: what, why, next, and the exit code. Also what counts as a text on the command line.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::failure::{Exit, Failure};
use super::output::{Form, Loudness, Output};
use crate::host::program::Kind;

/// A text as somebody says it (a reason): it may begin with a hyphen, as long as it can't be an option that was meant as one.
///
/// # Errors
/// When it looks like an option: then its own value is missing.
pub(super) fn free_text(text: &str) -> Result<String, String> {
    let is_option = text.len() > 1 && text.starts_with('-') && !text.contains(char::is_whitespace);
    if is_option { Err("it looks like an option, and a text is wanted here".to_owned()) } else { Ok(text.to_owned()) }
}

/// Help and version are answers; anything else is wrong usage. `tree` has the program's commands, of which `hallpass ssh` fails as ssh does.
pub(super) fn not_parsed(error: &clap::Error, program: Kind, tree: &clap::Command) -> ExitCode {
    let form = if std::env::args_os().any(|a| a == "--json" || a == "--jsonl") { Form::Json } else { Form::Text };
    let out = Output::new(form, Loudness::Usual);
    let text = program.words(&error.render().to_string());
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match out.text(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.exit.code()),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        out.note(&text);
        return ExitCode::from(Exit::Usage.code());
    }
    let unknown = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word),
        _ => None,
    };
    let words = std::env::args_os().skip(1).filter_map(|word| word.into_string().ok());
    let commands = commands(tree, words.take_while(|word| Some(word) != unknown));
    let is_ssh = commands == ["ssh"];
    let mut failure = failure(error, &text);
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg).filter(|_| is_ssh)
        && error.kind() == ErrorKind::UnknownArgument
    {
        failure =
            failure.because("what ssh is to get stands behind `--`").next(format!("hallpass ssh HOST -- {word} …"));
    }
    let words: Vec<&str> = std::iter::once(program.name()).chain(commands.iter().map(String::as_str)).collect();
    // `hallpass ssh` stands in for ssh, which also has 255 for what it does not understand.
    let exit = if is_ssh { Exit::Ssh } else { Exit::Usage };
    out.failure(&failure.next(format!("{} --help", words.join(" "))).with_exit(exit));
    ExitCode::from(exit.code())
}

/// The commands that were named, as far as there are such.
fn commands(tree: &clap::Command, words: impl Iterator<Item = String>) -> Vec<String> {
    let (mut at, mut named) = (tree, Vec::new());
    for word in words {
        if let Some(command) = at.find_subcommand(&word) {
            at = command;
            named.push(word);
        }
    }
    named
}

/// What is wrong, in our form.
fn failure(error: &clap::Error, text: &str) -> Failure {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let first = lines.next().unwrap_or("wrong usage");
    let mut failure = Failure::usage(first.strip_prefix("error: ").unwrap_or(first));
    // Of several that are similar the last is the most: one suggestion, and nothing is run for it.
    let nearest = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(names)) => names.last(),
        Some(ContextValue::String(name)) => Some(name),
        _ => None,
    };
    // Behind `--` stands nothing of ours but what `ssh` gets.
    let leads_nowhere =
        |line: &&str| line.starts_with("For more information") || line.contains(" as a value, use '-- ");
    for line in lines.filter(|line| !leads_nowhere(line)) {
        failure = match nearest.filter(|_| line.starts_with("tip:")) {
            Some(nearest) => failure.because(format!("the nearest command is '{nearest}'")),
            None => failure.because(line),
        };
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_may_begin_with_a_hyphen_and_be_no_option() {
        for good in ["-rf was typed on web-1", "- see INC-1", "-", "", "pool exhausted"] {
            assert_eq!(free_text(good), Ok(good.to_owned()));
        }
        for option in ["--wait", "-y", "--for=1h"] {
            free_text(option).unwrap_err();
        }
    }

    #[test]
    fn the_command_is_found_among_options() {
        let tree = clap::Command::new("p").subcommand(clap::Command::new("a").subcommand(clap::Command::new("b")));
        let named = |line: &str| commands(&tree, line.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(named("--profile work a --x b c"), "a b");
        assert_eq!(named("c b"), "");
    }
}
