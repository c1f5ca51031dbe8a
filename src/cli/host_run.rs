//! `hallpass host run|check|status|sessions`: what looks after an enrolled host, and what looks at it.

use std::path::Path;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Exit, Failure};
use super::host::own_program;
use super::{Context, output};
use crate::enrolment::contact::Contact;
use crate::enrolment::daemon;
use crate::enrolment::examine::{self, Condition, Report};
use crate::enrolment::memory::{Memory, Standing};
use crate::enrolment::places::{self, Root};
use crate::enrolment::service_file::{ServiceFile, parse_command};
use crate::host::sessions::{Session, Sessions};
use crate::host::settings::{self, Settings};
use crate::name::RequestId;
use crate::ssh::bundle::Bundle;

pub(super) const RUN_HELP: &str = "\
The daemon of an enrolled host; hallpass-host.service runs it. It keeps the trust bundle, host
certificates, the list of ended certificates and the tags as the service has them, moves and ends
sessions as the service says, and reports. Logins and ends of sessions do not need it.";

pub(super) const CHECK_HELP: &str = "\
Looks at what sshd really does, logs in to itself, compares the clock. Exit code 0 if all is in
order, 7 if not. Run it as root.";

/// Arguments of `hallpass host run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// How sshd is told to read its configuration, for `sh -c`; else as `enrol` was given, or systemctl, or SIGHUP
    #[arg(long, value_name = "COMMAND", value_parser = parse_command)]
    reload_command: Option<String>,
}

/// Arguments of `hallpass host sessions`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SessionsArgs {
    /// End the sessions of this request now
    #[arg(long, value_name = "REQUEST", value_parser = RequestId::parse)]
    end: Option<RequestId>,
}

/// `hallpass host run`.
///
/// # Errors
/// When the host is not enrolled.
pub(crate) fn run(context: &Context, args: &RunArgs) -> Result<(), Failure> {
    // Under the service manager each line goes to its journal.
    let say = |text: &str| context.out.note(&context.program.words(text));
    let program = own_program(context)?;
    #[expect(clippy::disallowed_methods, reason = "the service manager says in the environment where it listens")]
    let socket = std::env::var("NOTIFY_SOCKET").ok();
    context.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| no_signals(&error))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| no_signals(&error))?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        daemon::run(program, args.reload_command.clone(), socket.as_deref(), &say, stop)
            .await
            .map_err(|why| not_ready("cannot look after this host", why).next("hallpass host check"))
    })
}

fn no_signals(error: &std::io::Error) -> Failure {
    Failure::failed("cannot listen for signals").because(error.to_string())
}

/// `hallpass host check`.
///
/// # Errors
/// Exit code 7 when something is not in order.
pub(crate) fn check(context: &Context) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(Exit::NotReady, "host", "what sshd does, and the host's keys, only root can see")
            .next("sudo hallpass host check"));
    }
    let mut report = context.block_on(async { Ok(examine::examine().await) })?;
    for finding in &mut report.findings {
        finding.next = context.program.words(&finding.next);
    }
    context.out.answer(&check_document(&report), &check_text(&report))?;
    if report.is_good() { Ok(()) } else { Err(Failure::silent().with_exit(Exit::NotReady)) }
}

const fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Good => "ok",
        Condition::Bad => "BAD",
        Condition::Unknown => "?",
    }
}

fn check_document(report: &Report) -> serde_json::Value {
    let checks = report.findings.iter().map(|finding| {
        let condition = match finding.condition {
            Condition::Good => "good",
            Condition::Bad => "bad",
            Condition::Unknown => "unknown",
        };
        json!({ "check": finding.what, "condition": condition, "text": finding.text, "next": finding.next })
    });
    let risks = report.risks.iter().map(|risk| json!({ "risk": risk.word, "text": risk.text }));
    json!({
        "schema": "hallpass.host-check.v1", "host": report.name, "good": report.is_good(),
        "checks": checks.collect::<Vec<_>>(), "risks": risks.collect::<Vec<_>>(),
    })
}

fn check_text(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!("{:<4} {:<11} {}\n", word(finding.condition), finding.what, finding.text));
        if !finding.next.is_empty() {
            text.push_str(&format!("{:<16} next: {}\n", "", finding.next));
        }
    }
    for risk in &report.risks {
        text.push_str(&format!("note {:<11} {}\n", risk.word, risk.text));
    }
    text
}

/// `hallpass host status`.
///
/// # Errors
/// When standard output can't take it.
pub(crate) fn status(context: &Context) -> Result<(), Failure> {
    let standing = Memory::new(&Root::default()).standing();
    let contact = Contact::load().filter(Contact::is_running);
    let enrolment = match &standing {
        Ok(Standing::Enrolled(_)) if contact.as_ref().is_some_and(|contact| contact.is_retired) => "retired",
        Ok(Standing::Enrolled(_)) => "enrolled",
        Ok(Standing::Fresh) => "not enrolled",
        Ok(Standing::Unfinished(_)) => "cut short",
        Err(_) => "unknown",
    };
    let name = Settings::load(Path::new(settings::PATH)).ok().map(|settings| settings.name.to_string());
    let service = ServiceFile::load(Path::new(places::SERVICE_TOML)).ok();
    let text = std::fs::read_to_string(places::TRUST).unwrap_or_default();
    let bundle = service.as_ref().and_then(|service| Bundle::open(&text, &service.log_key).ok());
    let url = service.map(|service| service.server.url);
    let document = json!({
        "schema": "hallpass.host-status.v1", "enrolment": enrolment, "host": name, "service": url,
        "bundle": bundle.as_ref().map(Bundle::version), "daemon": contact.is_some(),
        "answered": contact.as_ref().and_then(|c| c.answered).map(|at| at.to_string()),
        "checked_in": contact.as_ref().and_then(|c| c.checked_in).map(|at| at.to_string()),
        "trouble": contact.as_ref().and_then(|c| c.trouble.clone()),
        "left": contact.as_ref().map_or(&[][..], |c| &c.left),
    });
    let mut lines = vec![match (&name, &url) {
        (Some(name), Some(url)) => format!("{name}: {enrolment} at {url}"),
        _ => format!("this host: {enrolment}"),
    }];
    lines.extend(bundle.map(|b| {
        let ca = b.ca().named().map(|ca| format!(" of CA {ca}")).unwrap_or_default();
        format!("trust bundle: version {}, {} CA key(s){ca}", b.version(), b.keys().len())
    }));
    lines.push(match &contact {
        None => "daemon: does not run".to_owned(),
        Some(Contact { trouble: Some(trouble), .. }) => format!("daemon: {}", context.program.words(trouble)),
        Some(Contact { answered: Some(at), .. }) => {
            format!("daemon: in touch, last answer {}", output::local_time(*at))
        }
        Some(_) => "daemon: runs, has not reached the service yet".to_owned(),
    });
    for why in contact.iter().flat_map(|contact| &contact.left) {
        lines.push(format!("not in place yet: {why}"));
    }
    context.out.answer(&document, &lines.join("\n"))
}

/// `hallpass host sessions`.
///
/// # Errors
/// When the sessions can't be looked at or ended.
pub(crate) fn sessions(context: &Context, settings: &Path, args: &SessionsArgs) -> Result<(), Failure> {
    let failed = |why| not_ready("cannot look at the sessions of this host", why);
    let sessions = open_sessions(settings).map_err(failed)?;
    if let Some(request) = &args.end {
        let count = sessions.end(request).map_err(failed)?;
        context.out.note(&format!("{count} sessions of request {request} end within two seconds"));
    }
    let all = sessions.of_people();
    let shown: Vec<_> = all.iter().map(session_document).collect();
    let lines: Vec<String> = all.iter().map(|session| context.program.words(&session_line(session))).collect();
    let text = if lines.is_empty() { "no session by certificate is open".to_owned() } else { lines.join("\n") };
    context.out.answer(&json!({ "schema": "hallpass.host-sessions.v1", "sessions": shown }), &text)
}

/// The sessions of this host; on one that has left, what it has left open.
fn open_sessions(settings: &Path) -> Result<Sessions, String> {
    let why = match Settings::load(settings) {
        Ok(settings) => return Sessions::open(&settings),
        Err(why) => why,
    };
    let has_left = settings == Path::new(settings::PATH) && matches!(settings.try_exists(), Ok(false));
    let left_behind = if has_left { Sessions::left_behind()? } else { None };
    left_behind.ok_or(why)
}

/// A line for each session of people that is open here.
pub(super) fn session_lines(context: &Context) -> Vec<String> {
    let sessions = open_sessions(Path::new(settings::PATH)).map(|sessions| sessions.of_people()).unwrap_or_default();
    sessions.iter().map(|session| context.program.words(&session_line(session))).collect()
}

fn session_document(session: &Session) -> serde_json::Value {
    let record = session.record.as_ref().ok();
    json!({
        "session": session.key.session.number(),
        "connection": session.key.connection.pid,
        "request": record.and_then(|record| record.request()).map(ToString::to_string),
        "key_id": record.map(|record| record.key_id.as_str()),
        "account": record.map(|record| record.account.to_string()),
        "until": record.map(|record| record.deadline.wall.to_string()),
        "watched": session.is_watched,
    })
}

fn session_line(session: &Session) -> String {
    let watched = if session.is_watched { "" } else { ", without a watcher: hallpass host tend" };
    match &session.record {
        Ok(record) => {
            let until = output::local_time(record.deadline.wall);
            format!("{} as {} until {until}{watched}", record.key_id.as_str(), record.account)
        }
        Err(why) => format!("session {}: its record makes no sense ({why}){watched}", session.key),
    }
}

fn not_ready(what: &str, why: String) -> Failure {
    Failure::new(Exit::NotReady, "host", what).because(why)
}
