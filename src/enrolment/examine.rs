//! `hallpass host check`: whether this host does what it is enrolled for, by what sshd really does.

use std::collections::BTreeSet;
use std::path::Path;

use super::check_in::{self, Patience};
use super::contact::Contact;
use super::facts;
use super::leave::open_link;
use super::link::{Link, way_out};
use super::machine;
use super::memory::{Memory, Standing};
use super::owned;
use super::places::{self, CHECK_ACCOUNT, PRINCIPALS_ACCOUNT, Root};
use super::plan::Facts;
use super::risks::{EXCLUSIVE, MATCH, NO_CERTIFICATES, Risk, in_blocks, own_command, settings_at_risk};
use super::service_file::ServiceFile;
use super::sshd::Sshd;
use super::sshd_config::Effective;
use crate::host::program;
use crate::host::sessions::Sessions;
use crate::host::settings::{self, Settings};
use crate::ssh::bundle::Bundle;

/// By how many seconds a host's clock may differ: certificates start 30 s before they are issued.
const CLOCK_SECONDS_MAX: u64 = 20;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// In order.
    Good,
    /// Not in order.
    Bad,
    /// It could not be found out.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One word.
    pub what: &'static str,
    /// How it is.
    pub condition: Condition,
    /// The facts.
    pub text: String,
    /// What to do, if anything.
    pub next: String,
}

/// All that was looked at.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The host's name, if it has one.
    pub name: Option<String>,
    /// In the order in which one rests on another.
    pub findings: Vec<Finding>,
    /// What stays open beside us.
    pub risks: Vec<Risk>,
}

impl Report {
    /// Whether nothing is wrong. What could not be found out is not in order either.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.condition == Condition::Good)
    }

    fn add(&mut self, what: &'static str, found: Result<String, String>, next: &str) {
        let (condition, text, next) = match found {
            Ok(text) => (Condition::Good, text, ""),
            Err(text) => (Condition::Bad, text, next),
        };
        self.findings.push(Finding { what, condition, text, next: next.to_owned() });
    }

    fn unknown(&mut self, what: &'static str, text: &str) {
        self.findings.push(Finding { what, condition: Condition::Unknown, text: text.to_owned(), next: String::new() });
    }
}

/// Looks at everything.
pub async fn examine() -> Report {
    let mut report = Report::default();
    report.add("enrolment", enrolment(), "sudo hallpass host enrol --server URL --token-file FILE");
    let settings = Settings::load(Path::new(settings::PATH));
    report.name = settings.as_ref().ok().map(|settings| settings.name.to_string());
    report.add(
        "host.toml",
        settings.as_ref().map(|s| format!("this host is {}", s.name)).map_err(Clone::clone),
        "mend it",
    );
    let sshd = match Sshd::find(None) {
        Ok(sshd) => sshd,
        Err(why) => {
            report.add("sshd", Err(why), "install the OpenSSH server");
            return report;
        }
    };
    match sshd.effective(CHECK_ACCOUNT).await {
        Ok(effective) => {
            sshd_part(&mut report, &effective, settings.ok().as_ref()).await;
            report.risks = settings_at_risk(&effective);
            let blocks = blocks(&sshd, &effective, &mut report.risks).await;
            report.add(
                "match",
                blocks,
                "take these lines out of the block, or the block; sshd -T -C user=NAME shows what holds",
            );
        }
        Err(why) => report.add("sshd", Err(why), "sshd -t"),
    }
    service_part(&mut report, &sshd).await;
    let (daemon, next) = daemon();
    report.add("daemon", daemon, next);
    report
}

fn enrolment() -> Result<String, String> {
    match Memory::new(&Root::default()).standing()? {
        Standing::Enrolled(_) => Ok("enrolled".to_owned()),
        Standing::Fresh => Err("this host is not enrolled".to_owned()),
        Standing::Unfinished(_) => Err("an enrolment was cut short; the next one takes it back first".to_owned()),
    }
}

/// What can be said without the service.
async fn sshd_part(report: &mut Report, effective: &Effective, settings: Option<&Settings>) {
    let again = "sudo hallpass host enrol";
    report.add("trust", trust(effective), again);
    let open = owned::open_files(effective);
    let files = if open.is_empty() {
        Ok("root alone can change what says who may log in".to_owned())
    } else {
        let refused = if owned::refused().is_empty() { "" } else { "; the guard refuses every certificate then" };
        Err(format!("{}{refused}", open.join("; ")))
    };
    report.add("files", files, "close them, then sudo hallpass host enrol, which writes them anew");
    report.add("principals", principals(effective).await, again);
    let guard = check_in::guard(effective).map(|()| "PAM asks the guard for each session".to_owned());
    report.add("guard", guard.map_err(|why| format!("sessions may not end with their windows: {why}")), again);
    if let Some(settings) = settings {
        report.add("sessions", sessions(settings), "sudo hallpass host tend");
    }
}

/// Whether what holds for the host's own login holds for every other one. The rest that blocks do is added to the risks.
async fn blocks(sshd: &Sshd, effective: &Effective, risks: &mut Vec<Risk>) -> Result<String, String> {
    let (config, drop_ins) = facts::config(&Root::default())?;
    let (ours, others): (Vec<Risk>, Vec<Risk>) =
        in_blocks(&config, &drop_ins, own_command(effective)).into_iter().partition(|risk| risk.word == MATCH);
    risks.extend(others);
    let mut all: Vec<String> = ours.into_iter().map(|risk| risk.text).collect();
    // Also by a file that is not looked at.
    let root = sshd.effective("root").await?;
    let other = EXCLUSIVE.iter().find(|(keyword, _)| root.one(keyword) != effective.one(keyword));
    if root.some("trustedusercakeys").is_none() {
        // Nothing of ours is in place of anything there. Of all logins, `trust` tells.
        if effective.some("trustedusercakeys").is_some() && !risks.iter().any(|risk| risk.word == NO_CERTIFICATES) {
            let text = "for root, no certificate opens anything (TrustedUserCAKeys none)".to_owned();
            risks.push(Risk { word: NO_CERTIFICATES, text });
        }
    } else if let Some((keyword, shown)) = other.filter(|_| all.is_empty()) {
        let value = root.one(keyword).unwrap_or("none");
        all.push(format!("for root, sshd goes by another line than for the host's own login: {shown} {value}"));
    }
    if all.is_empty() { Ok("no Match block takes the place of our settings".to_owned()) } else { Err(all.join("; ")) }
}

/// The file that sshd reads, as a whole.
fn trust(effective: &Effective) -> Result<String, String> {
    let path = effective.some("trustedusercakeys").ok_or("sshd trusts no CA key (TrustedUserCAKeys)")?;
    if path != places::TRUST {
        return Err(format!("sshd goes by {path}, not by {}", places::TRUST));
    }
    let service = ServiceFile::load(Path::new(places::SERVICE_TOML))?;
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let bundle = Bundle::open(&text, &service.log_key).map_err(|error| format!("{path}: {error}"))?;
    match bundle.keys().len() {
        0 => Err("the trust bundle holds no CA key: no certificate opens anything".to_owned()),
        count => {
            let ca = bundle.ca().named().map(|ca| format!(", CA {ca}")).unwrap_or_default();
            Ok(format!("sshd trusts {count} CA key(s) of {}{ca}, version {}", bundle.service(), bundle.version()))
        }
    }
}

async fn principals(effective: &Effective) -> Result<String, String> {
    let command = effective.some("authorizedprincipalscommand").unwrap_or_default();
    let account = effective.some("authorizedprincipalscommanduser").unwrap_or_default();
    if !program::runs(command, "principals") {
        return Err("sshd does not ask hallpass for principals (AuthorizedPrincipalsCommand)".to_owned());
    }
    if account != PRINCIPALS_ACCOUNT || !machine::has_account(account).await? {
        return Err(format!("sshd asks as account {account:?}, which should be {PRINCIPALS_ACCOUNT:?} and exist"));
    }
    Ok("sshd asks hallpass which certificates open an account".to_owned())
}

fn sessions(settings: &Settings) -> Result<String, String> {
    let all = Sessions::open(settings)?.of_people();
    match all.iter().filter(|session| !session.is_watched).count() {
        0 => Ok(format!("{} open by certificate, each with its watcher", all.len())),
        count => Err(format!("{count} of {} have no watcher: nothing ends them", all.len())),
    }
}

/// What needs the service.
async fn service_part(report: &mut Report, sshd: &Sshd) {
    let offline = "the service could not be asked";
    let (mut link, service) = match open_link(sshd).await {
        Ok(open) => open,
        Err(why) => return report.add("service", Err(why), "sudo hallpass host enrol"),
    };
    let state = match link.state().await {
        Ok(state) => state,
        Err(error) => {
            let next = way_out(&error, &service.server);
            let next = next.unwrap_or_else(|| "hallpass host status says when it was there last".to_owned());
            report.add("service", Err(error.to_string()), &next);
            report.unknown("login", offline);
            return report.unknown("clock", offline);
        }
    };
    let known =
        if state.is_retired { Err("the service has retired this host".to_owned()) } else { Ok(service.server.url) };
    let next = "sudo hallpass host leave; or, with a new join token: sudo hallpass host enrol --token-file FILE";
    report.add("service", known, next);
    report.add("clock", clock(&link), "set up time synchronisation");
    match Bundle::open(&state.bundle.text, &service.log_key) {
        Ok(bundle) => report.add("login", login(sshd, &mut link, &bundle).await, "sudo hallpass host enrol"),
        Err(why) => report.add("login", Err(why.to_string()), "ask whoever runs the service"),
    }
}

fn clock(link: &Link) -> Result<String, String> {
    match link.offset().seconds() {
        Some(seconds) if seconds.unsigned_abs() <= CLOCK_SECONDS_MAX => Ok("as the service's".to_owned()),
        Some(seconds) => {
            Err(format!("{seconds} s ahead of the service's: certificates are taken too early or too late"))
        }
        None => Err("the service does not say what time it is".to_owned()),
    }
}

/// A real login to itself.
async fn login(sshd: &Sshd, link: &mut Link, bundle: &Bundle) -> Result<String, String> {
    let facts = Facts { effective: sshd.effective(CHECK_ACCOUNT).await?, ..Facts::default() };
    let keys = facts::host_keys(&Root::default(), &facts)?;
    let proof = check_in::prove(sshd, link, (bundle, &BTreeSet::new()), &keys, Patience::none()).await;
    match proof.problem {
        None => Ok(format!("the host logs in to itself with {} of {} CA keys", proof.keys.len(), bundle.keys().len())),
        Some(why) => Err(format!("the host cannot log in to itself: {why}")),
    }
}

/// How it is with the daemon, and what to do if it is not well.
fn daemon() -> (Result<String, String>, &'static str) {
    let start = "systemctl status hallpass-host, or run `hallpass host run`";
    let Some(Contact { trouble, answered, left, .. }) = Contact::load().filter(Contact::is_running) else {
        return (Err("the daemon does not run".to_owned()), start);
    };
    match (trouble, left.first(), answered) {
        (None, Some(why), _) => {
            let why = format!("what the service says is not all in place, which is tried again: {why}");
            (Err(why), "hallpass host status shows all of it; sshd -t")
        }
        (Some(trouble), ..) => (Err(trouble), "hallpass host status"),
        (None, None, Some(at)) => (Ok(format!("in touch, last answer {at}")), start),
        (None, None, None) => (Err("the daemon has not reached the service yet".to_owned()), "hallpass host status"),
    }
}
