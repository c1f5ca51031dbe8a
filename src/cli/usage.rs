//! A command line that was not understood, and one that asks for help or the version.
//!
//! What for: the parser's own texts in our form: what, why, next, and the exit code.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::failure::{Exit, Failure};
use super::output::{Form, Loudness, Output};
use crate::host::program::Kind;

/// Help and version are answers; anything else is wrong usage, with the exit code that `exit` tells.
pub(super) fn not_parsed(error: &clap::Error, program: Kind, exit: impl FnOnce() -> Exit) -> ExitCode {
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
    let exit = exit();
    out.failure(&failure(error, &text).next(format!("{} --help", program.name())).with_exit(exit));
    ExitCode::from(exit.code())
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
    for line in lines.filter(|l| !l.starts_with("For more information")) {
        failure = match nearest.filter(|_| line.starts_with("tip:")) {
            Some(nearest) => failure.because(format!("the nearest command is '{nearest}'")),
            None => failure.because(line),
        };
    }
    failure
}
