//! What enrolment would change on a host, and why it can't. Pure.
//!
//! What for: [`plan`] turns what was found ([`Facts`]) and what is wished ([`Wish`]) into the texts of the files to be written. The same
//! plan is printed by `--dry-run`, asked about, and carried out.
//!
//! Invariants: nothing that sshd accepts today is taken away without `--replace`. Our lines stand where sshd reads them first, so
//! no later line undoes them; a `Match` block that would is named. What stays open beside us is named too.

use std::collections::{BTreeMap, BTreeSet};

use super::places::{self, CHECK_ACCOUNT, PRINCIPALS_ACCOUNT};
use super::risks::{EXCLUSIVE, Risk, in_blocks, settings_at_risk};
use super::sshd_config::{self, Effective, Line, Release};
use super::{pam, texts};
use crate::host::program;
use crate::name::{HostName, TagKey, TagValue};

/// What was found on the host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// sshd's release.
    pub release: Option<Release>,
    /// What sshd would do with the check account, from this machine itself.
    pub effective: Effective,
    /// `sshd_config`.
    pub config: String,
    /// The files in `sshd_config.d`, by name.
    pub drop_ins: BTreeMap<String, String>,
    /// `/etc/pam.d/sshd`.
    pub pam: Option<String>,
    /// `host.toml`, if there is one.
    pub host_toml: Option<String>,
    /// Files that sshd's configuration names and that are missing.
    pub missing: BTreeSet<String>,
    /// Files to be written that are links to somewhere else.
    pub links: BTreeSet<String>,
    /// Whether systemd runs the machine.
    pub has_systemd: bool,
    /// The program that the host will run, as its lines begin ([`Program::line`](program::Program::line)).
    pub program: String,
    /// What is wrong with it, if sshd would not run it.
    pub program_problem: Option<String>,
    /// Whether there is an `ssh` to log in to itself with.
    pub has_ssh: bool,
}

/// What is wished.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The host's name.
    pub name: HostName,
    /// Its tags.
    pub tags: BTreeMap<TagKey, TagValue>,
    /// Whether sessions are to end with their windows.
    pub has_guard: bool,
    /// Whether another CA, and the principals that go with it, may be replaced.
    pub may_replace: bool,
    /// Where host certificates will be, as far as there are some.
    pub certificates: Vec<String>,
    /// `host-service.toml`; `None` before the service has named its log key.
    pub service: Option<String>,
    /// The trust bundle; `None` before the service has given it.
    pub bundle: Option<String>,
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where, as sshd sees it.
    pub path: String,
    /// What; `None` for what only the service will tell.
    pub text: Option<String>,
    /// Whether the file as a whole is ours. A shared one holds lines of others.
    pub is_ours: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In this order; taken back in the reverse one.
    pub writes: Vec<Write>,
    /// Accounts that must exist.
    pub accounts: Vec<&'static str>,
    /// What stays open, or surprises.
    pub risks: Vec<Risk>,
    /// Whether the daemon's unit is to be started.
    pub has_unit: bool,
}

/// Why it can't be done, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is in the way.
    pub what: String,
    /// What to do.
    pub next: String,
}

/// Where our lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A file in the folder that `sshd_config` includes before anything of ours is set.
    DropIn,
    /// A file of our own, included by the first line of `sshd_config`.
    Aside,
    /// The top of `sshd_config` itself, where sshd knows no `Include`.
    Inline,
}

/// Keywords that we set, in lower case.
const OURS: [&str; 5] = [
    "trustedusercakeys",
    "authorizedprincipalsfile",
    "authorizedprincipalscommand",
    "authorizedprincipalscommanduser",
    "loglevel",
];

/// Makes the plan.
///
/// # Errors
/// Everything that is in the way, together.
pub fn plan(facts: &Facts, wish: &Wish) -> Result<Plan, Vec<Obstacle>> {
    let mut obstacles = obstacles(facts, wish);
    let place = place(facts);
    let pam = guarded_pam(facts, wish).unwrap_or_else(|obstacle| {
        obstacles.push(obstacle);
        None
    });
    let host_toml = texts::host_toml(facts.host_toml.as_deref(), wish).map_err(|why| Obstacle {
        what: format!("{} can't be kept: {why}", places::HOST_TOML),
        next: format!("mend or remove {}", places::HOST_TOML),
    });
    let host_toml = match host_toml {
        Ok(text) if obstacles.is_empty() => text,
        Ok(_) => return Err(obstacles),
        Err(obstacle) => {
            obstacles.push(obstacle);
            return Err(obstacles);
        }
    };
    let ours = |path: &str, text: Option<String>| Write { path: path.to_owned(), text, is_ours: true };
    let mut writes = vec![
        ours(places::HOST_TOML, Some(host_toml)),
        ours(places::SERVICE_TOML, wish.service.clone()),
        ours(places::TRUST, wish.bundle.clone()),
    ];
    if facts.has_systemd {
        writes.push(ours(places::UNIT, Some(texts::unit(&facts.program))));
    }
    writes.extend(pam.map(|text| Write { path: places::PAM.to_owned(), text: Some(text), is_ours: false }));
    writes.extend(sshd_writes(facts, wish, place));
    Ok(Plan {
        writes,
        accounts: vec![CHECK_ACCOUNT, PRINCIPALS_ACCOUNT],
        risks: risks(facts, wish),
        has_unit: facts.has_systemd,
    })
}

/// What tells sshd about us; last, because only that opens anything.
fn sshd_writes(facts: &Facts, wish: &Wish, place: Place) -> Vec<Write> {
    let has_match = place != Place::Inline;
    let text = texts::sshd(facts, wish, has_match);
    let ours = |path: String, text: String| Write { path, text: Some(text), is_ours: true };
    let shared = |text: String| Write { path: places::SSHD_CONFIG.to_owned(), text: Some(text), is_ours: false };
    let bare = texts::without_ours(&facts.config);
    match place {
        Place::DropIn => vec![ours(places::drop_in(), text)],
        Place::Aside => vec![ours(places::ASIDE.to_owned(), text), shared(texts::with_include(&bare))],
        Place::Inline => vec![shared(texts::with_block(&bare, &text))],
    }
}

/// Where our lines are read before anybody else's.
fn place(facts: &Facts) -> Place {
    if facts.release.is_some_and(|release| release < Release::INCLUDE) {
        return Place::Inline;
    }
    let config = texts::without_ours(&facts.config);
    let lines = sshd_config::lines(&config);
    let is_include = |line: &&Line| {
        line.keyword == "include"
            && line.block.is_none()
            && sshd_config::includes(&line.value, places::DROP_IN_FOLDER, places::DROP_IN_NAME)
    };
    let Some(include) = lines.iter().find(is_include) else { return Place::Aside };
    let is_early = |line: &&Line| line.number < include.number && is_in_the_way(line);
    let before_us = facts.drop_ins.iter().filter(|(name, _)| name.as_str() < places::DROP_IN_NAME);
    let mut first_files = before_us.flat_map(|(_, text)| sshd_config::lines(text));
    if lines.iter().any(|line| is_early(&line)) || first_files.any(|line| is_in_the_way(&line)) {
        return Place::Aside;
    }
    Place::DropIn
}

/// Whether a line that sshd reads before ours would win over it.
fn is_in_the_way(line: &Line) -> bool {
    OURS.contains(&line.keyword.as_str()) || line.keyword == "match" || line.keyword == "include"
}

/// The lines for PAM, where they change.
fn guarded_pam(facts: &Facts, wish: &Wish) -> Result<Option<String>, Obstacle> {
    if !wish.has_guard {
        return Ok(facts.pam.as_deref().map(pam::without_guard).filter(|text| facts.pam.as_deref() != Some(text)));
    }
    let obstacle = |what: String| Obstacle {
        what,
        next: "mend it, or enrol with --no-guard: then open sessions live on after their window".to_owned(),
    };
    let Some(text) = &facts.pam else { return Err(obstacle(format!("{} is missing", places::PAM))) };
    let with = pam::with_guard(text, &facts.program);
    with.map(Some).map_err(|why| obstacle(format!("{}: {why}", places::PAM)))
}

/// Everything in the way.
fn obstacles(facts: &Facts, wish: &Wish) -> Vec<Obstacle> {
    let mut found = Vec::new();
    let mut add = |what: String, next: &str| found.push(Obstacle { what, next: next.to_owned() });
    if facts.release.is_some_and(|release| release < Release::GUARD) && wish.has_guard {
        add(
            "the guard is not possible: sshd is older than OpenSSH 7.6".to_owned(),
            "update OpenSSH, or enrol with --no-guard",
        );
    }
    if wish.has_guard && !facts.effective.is("usepam", "yes") {
        let why = if facts.effective.one("usepam").is_none() { "sshd is built without PAM" } else { "UsePAM is no" };
        add(
            format!("the guard is not possible: {why}"),
            "set `UsePAM yes`, or enrol with --no-guard: then open sessions live on after their window",
        );
    }
    if facts.effective.is("pubkeyauthentication", "no") {
        add(
            "sshd takes no keys and certificates: PubkeyAuthentication is no".to_owned(),
            "set `PubkeyAuthentication yes`",
        );
    }
    if let Some(algorithms) =
        facts.effective.one("pubkeyacceptedalgorithms").or_else(|| facts.effective.one("pubkeyacceptedkeytypes"))
        && !algorithms.split(',').any(|one| one == "ssh-ed25519-cert-v01@openssh.com")
    {
        add(
            "sshd takes no Ed25519 certificates (PubkeyAcceptedAlgorithms)".to_owned(),
            "add ssh-ed25519-cert-v01@openssh.com to PubkeyAcceptedAlgorithms",
        );
    }
    for path in &facts.missing {
        add(
            format!("sshd refuses every key, because RevokedKeys names {path:?} and that is missing"),
            "make that file (an empty one revokes nothing), or take the line out",
        );
    }
    for path in &facts.links {
        add(
            format!("{path:?} is a link: something else manages it"),
            "let that write the lines (`--dry-run` shows them)",
        );
    }
    if let Some(why) = &facts.program_problem {
        add(why.clone(), "install hallpass as /usr/local/bin/hallpass, owned by root and writable by nobody else");
    }
    if !facts.has_ssh {
        add("there is no `ssh` for the host's login to itself".to_owned(), "install the OpenSSH client");
    }
    for (shown, value) in taken(facts).into_iter().filter(|_| !wish.may_replace) {
        add(
            format!("sshd already has {shown} {value}"),
            "enrol with --replace if hallpass is to take its place (`host leave` brings it back)",
        );
    }
    found
}

/// Settings of another CA that ours would take the place of: keyword and value.
fn taken(facts: &Facts) -> Vec<(&'static str, &str)> {
    let is_ours = |value: &str| value.starts_with("/etc/ssh/hallpass/") || program::runs(value, "principals");
    let other = |keyword: &str| facts.effective.some(keyword).filter(|value| !is_ours(value));
    EXCLUSIVE.iter().filter_map(|(keyword, shown)| Some((*shown, other(keyword)?))).collect()
}

/// What stays open beside us, or takes something away from us.
fn risks(facts: &Facts, wish: &Wish) -> Vec<Risk> {
    let mut found = settings_at_risk(&facts.effective);
    found.extend(in_blocks(&facts.config, &facts.drop_ins, Some(&texts::principals(&facts.program))));
    let mut add = |word, text| found.push(Risk { word, text });
    for (shown, value) in taken(facts).into_iter().filter(|_| wish.may_replace) {
        add("replaced", format!("{shown} {value} is replaced"));
    }
    if !wish.has_guard {
        add("no-guard", "without the guard, sessions that are open when their window ends live on".to_owned());
    }
    found
}
