//! Whether plain ssh uses what we hold: the `Include`, the fragment, and what ssh itself makes of it (`ssh -G`).

use std::path::Path;

use super::super::local::Held;
use super::super::ssh_config::Pattern;
use super::super::{keys, profile, setup};
use super::Doctor;
use super::client::AGENT_TIMEOUT;
use super::host::Found;
use super::probe::Shown;
use super::report::{Check, State};
use super::text::{self, Position};
use crate::client::Client;
use crate::name::HostName;

/// How many offers hosts take unless they say otherwise (`MaxAuthTries`).
const OFFERS_MAX: usize = 6;

/// The set-up of plain ssh, whatever the host.
pub(super) fn look(doctor: &Doctor<'_>, client: Option<&Client>, checks: &mut Vec<Check>) {
    let is_wanted = doctor.profile.as_ref().is_some_and(|profile| profile.ssh.is_some());
    let fragment = setup::read(&doctor.places.fragment(doctor.name())).ok().flatten();
    let position = text::position(&doctor.config_text, &doctor.places.fragments());
    if !is_wanted && fragment.is_none() && position == Position::Missing {
        checks.push(
            Check::skipped("include", "plain ssh is not set up; `hallpass ssh` needs no set-up").next("hallpass setup"),
        );
        return;
    }
    checks.push(include(&position));
    checks.push(fragment_of(doctor, fragment.as_deref()));
    if let Some(text) = fragment {
        let hosts = setup::fragment_hosts(&text);
        checks.push(match setup::check_overlap(&doctor.places, doctor.name(), &hosts) {
            Ok(()) => Check::ok("profiles", "no other profile has a host of this one"),
            Err(failure) => Check::failed("profiles", &failure).coded("HP-305"),
        });
    }
    checks.extend(client.and_then(|client| unconfirmed(doctor, client)));
}

/// Hosts that the service names and nobody here has confirmed.
fn unconfirmed(doctor: &Doctor<'_>, client: &Client) -> Option<Check> {
    let profile = doctor.profile.as_ref().filter(|profile| profile.ssh.is_some())?;
    let hosts = doctor.context.block_on(setup::patterns(&doctor.places, profile, client));
    let check = match hosts {
        Ok(hosts) => Check::warn("names", hosts.said()?),
        // That it can't be asked is a finding of its own.
        Err(failure) => Check::warn("names", failure.what.clone()),
    };
    Some(
        check
            .because("plain ssh asks hallpass about hosts that you have confirmed, and what is named like them")
            .next("hallpass setup"),
    )
}

/// HP-305: the `Include` line.
fn include(position: &Position) -> Check {
    let fix = "hallpass doctor --fix";
    match position {
        Position::First(line) => {
            Check::ok("include", format!("our Include stands on line {line}, before everything else"))
        }
        Position::Behind(line, before) => {
            Check::warn("include", format!("our Include stands on line {line}, behind line {}", before.number))
                .because(format!("`{}` comes first, and ssh takes the first value that it reads", before.shown()))
                .coded("HP-305")
                .next(fix)
        }
        Position::Inside(line, block) => Check::bad("include", "HP-305", "your ssh config hides ours")
            .because(format!("our Include stands on line {line}, below `{}` on line {}", block.shown(), block.number))
            .because("there it counts for those hosts alone, and after what stands above")
            .next(fix),
        Position::Missing => Check::bad("include", "HP-305", "your ssh config does not include ours")
            .because("no line of it does")
            .next(fix),
    }
}

/// HP-305: the fragment is there, and of this program and folder.
fn fragment_of(doctor: &Doctor<'_>, fragment: Option<&str>) -> Check {
    let again = "hallpass setup";
    let Some(fragment) = fragment else {
        return Check::bad("fragment", "HP-305", "the fragment for ssh is missing")
            .because(format!("{} is not there", doctor.places.fragment(doctor.name()).display()))
            .next(again);
    };
    let program =
        fragment.split_once("exec \"'").and_then(|(_, rest)| rest.split_once('\'')).map(|(program, _)| program);
    let folder =
        fragment.split_once("--folder '").and_then(|(_, rest)| rest.split_once('\'')).map(|(folder, _)| folder);
    let bad = |what: &str| Check::bad("fragment", "HP-305", what).next(again);
    let (Some(program), Some(folder)) = (program, folder) else {
        return bad("the fragment for ssh is not as `hallpass setup` writes it");
    };
    if Path::new(folder) != doctor.local.root() {
        return bad("the fragment for ssh is of another folder than this command uses")
            .because(format!("it names {folder}"))
            .because(format!("keys are kept in {}", doctor.local.root().display()));
    }
    if !Path::new(program).is_file() {
        return bad("the fragment for ssh runs a program that is not there").because(format!("it names {program}"));
    }
    if std::env::current_exe().is_ok_and(|ours| ours != Path::new(program)) {
        return Check::warn("fragment", "the fragment for ssh runs another hallpass than this one")
            .because(format!("it names {program}"))
            .next(again);
    }
    Check::ok(
        "fragment",
        format!("the fragment for ssh is of this program, for {} patterns", setup::fragment_hosts(fragment).len()),
    )
}

/// What ssh would do for this host, against what we hold.
pub(super) fn look_for(doctor: &Doctor<'_>, host: &HostName, found: &Found, shown: &Shown, checks: &mut Vec<Check>) {
    let is_set_up =
        !matches!(checks.iter().find(|check| check.id == "include"), Some(check) if check.state == State::Skipped);
    if is_set_up {
        checks.push(covered(doctor, host));
    }
    if let Some(held) = found.live.as_ref().filter(|_| is_set_up) {
        effect(doctor, host, found, (held, shown), checks);
    }
    if let Some(held) = &found.live {
        checks.extend(multiplexing(host, shown, held.left(found.now)));
    }
}

fn covered(doctor: &Doctor<'_>, host: &HostName) -> Check {
    let text = setup::read(&doctor.places.fragment(doctor.name())).ok().flatten().unwrap_or_default();
    let wanted = Pattern::from(host);
    match setup::fragment_hosts(&text).iter().find(|pattern| pattern.overlaps(&wanted)) {
        Some(pattern) => Check::ok("covered", format!("{host} is a host of ours, by {:?}", pattern.as_str())),
        None => Check::bad("covered", "HP-305", format!("{host} is none of the hosts that plain ssh was set up for"))
            .because("the list is brought up to date at each login, unless `setup` was given hosts; a new domain waits for `setup`")
            .next("hallpass setup"),
    }
}

/// Whether ssh uses what is held, and as which account.
fn effect(
    doctor: &Doctor<'_>,
    host: &HostName,
    found: &Found,
    (held, shown): (&Held, &Shown),
    checks: &mut Vec<Check>,
) {
    let has = |key: &str, path: &Path| shown.all(key).iter().any(|value| Path::new(value) == path);
    let is_shown = has("certificatefile", &held.certificate_path()) && has("identityfile", &held.key_path());
    let position = text::position(&doctor.config_text, &doctor.places.fragments());
    let account = account(doctor, host, found, shown);
    let is_other_account = account.as_ref().is_some_and(|check| check.state == State::Bad);
    if is_shown {
        checks.push(Check::ok("effect", format!("`ssh -G {host}` shows our certificate and key")));
    } else if is_other_account && matches!(position, Position::First(_) | Position::Behind(..)) {
        // Our lines are read, and are for another account.
        checks.push(Check::skipped("effect", "our lines are for another account than ssh takes: see `account`"));
    } else {
        checks.push(hidden(doctor, host, &position));
        checks.extend(crowd(host, shown));
        // As whom ssh would log in means nothing before that is mended.
        return;
    }
    checks.extend(account);
}

/// HP-305: held, and ssh does not see it.
fn hidden(doctor: &Doctor<'_>, host: &HostName, position: &Position) -> Check {
    let check = Check::bad("effect", "HP-305", "your ssh config hides ours")
        .because(format!("`ssh -G {host}` does not show our certificate, which you hold"));
    let (file, again) = (doctor.config.display(), "hallpass setup");
    match position {
        Position::Inside(line, block) => check
            .because(format!(
                "our Include is on line {line} of {file}, below `{}` on line {}",
                block.shown(),
                block.number
            ))
            .next("hallpass doctor --fix"),
        Position::Missing => check.because(format!("no line of {file} includes ours")).next("hallpass doctor --fix"),
        // The line is there; what it leads to is not what ssh reads.
        Position::First(line) | Position::Behind(line, _) => check
            .because(format!(
                "our Include is on line {line} of {file}; the fragment is not in order, or ssh reads another file"
            ))
            .next(again),
    }
}

/// HP-302: what ssh would offer in place of ours.
fn crowd(host: &HostName, shown: &Shown) -> Option<Check> {
    let socket = match shown.one("identityagent") {
        None | Some("SSH_AUTH_SOCK") => profile::env("SSH_AUTH_SOCK")?,
        Some("none") => return None,
        Some(path) => path.to_owned(),
    };
    if shown.one("identitiesonly") == Some("yes") {
        return None;
    }
    let count = keys::identities(Path::new(&socket), AGENT_TIMEOUT).ok()?.len();
    if count < OFFERS_MAX {
        return None;
    }
    Some(
        Check::bad("offers", "HP-302", format!("ssh offers {count} other keys to {host} before our certificate"))
            .because(format!("known: your agent holds {count}, and no line names ours for {host}"))
            .because(format!("inferred: {host} hangs up after {OFFERS_MAX} (sshd's default), with \"Too many authentication failures\""))
            .next("hallpass setup"),
    )
}

/// HP-402: the account that ssh would take.
fn account(doctor: &Doctor<'_>, host: &HostName, found: &Found, shown: &Shown) -> Option<Check> {
    let user = shown.one("user")?;
    if found.accounts.iter().any(|account| account == user) {
        return Some(Check::ok("account", format!("ssh logs in as {user}, which this access is for")));
    }
    let by = match text::user_line(&doctor.config_text, user) {
        _ if doctor.account().is_some() => "as you named it".to_owned(),
        Some(line) => format!("line {} of {}", line.number, doctor.config.display()),
        None if profile::local_user().as_deref() == Some(user) => "your own name: no account is named".to_owned(),
        None => "from your ssh config".to_owned(),
    };
    let accounts = found.accounts.join(", ");
    let first = found.accounts.first().cloned().unwrap_or_default();
    Some(
        Check::bad("account", "HP-402", format!("{host} has no login `{user}` for this grant"))
            .because(format!("it allows: {accounts}"))
            .because(format!("ssh takes `{user}`: {by}"))
            .next(format!("ssh {first}@{host}")),
    )
}

/// A master connection that outlives the access.
fn multiplexing(host: &HostName, shown: &Shown, left: u64) -> Option<Check> {
    let path = shown.one("controlpath").filter(|path| *path != "none")?;
    let master = shown.one("controlmaster").filter(|master| !matches!(*master, "no" | "false"))?;
    let persist = shown.one("controlpersist").unwrap_or("no");
    let seconds = match persist {
        "no" => return None,
        "yes" | "0" => u64::MAX,
        text => text.parse().unwrap_or(u64::MAX),
    };
    if seconds <= left {
        return None;
    }
    Some(
        Check::warn("multiplexing", format!("a master connection to {host} outlives this access"))
            .because(format!("ControlMaster {master}, ControlPersist {persist}, {left} s of access left; {path}"))
            .because("sessions through it work on after the end, unless the host ends them")
            .next(format!("ssh -O exit {host}")),
    )
}
