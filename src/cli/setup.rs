//! `hallpass setup`: makes plain `ssh HOST` use hallpass, and takes it back.
//!
//! What it changes: one `Include` on the first two lines of the user's ssh configuration (with a copy of what was there before), and a
//! fragment of our own per profile (`ssh_config`). Nothing else, and `--undo` leaves every byte of the user's as it was.
//!
//! Invariants: the same command twice changes nothing the second time; the new configuration is read by the real ssh before we are
//! done, and if ssh does not take it everything is put back; no two profiles name the same host; hosts that no person
//! confirmed come in as `confirmed` says, and not otherwise.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::confirmed::{self, Confirmed, Hosts};
use super::failure::Failure;
use super::known_hosts::KnownHosts;
use super::local::Local;
use super::openssh::{check_ssh, no_ssh, ssh_program};
use super::profile::{self, Places, Profile, SshSetup};
use super::session_key::Holder;
use super::ssh_config::{self, Fragment, Pattern};
use super::{Context, output};
use crate::client::Client;
use crate::durable;
use crate::name::HostName;
use crate::wire;

/// Most patterns in a fragment: ssh goes through them for each host that it is asked for.
const PATTERNS_MAX: usize = 2_000;

/// Longest ssh configuration that is changed: 1 MiB.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Most copies of the user's configuration that are kept side by side.
const COPIES_MAX: usize = 100;

/// Arguments of `hallpass setup`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub(crate) struct SetupArgs {
    /// For these hosts, with * and ? as ssh has them; else for all that the service knows, which confirms them, and kept up to date
    #[arg(long, value_name = "PATTERN", num_args = 1.., value_parser = Pattern::parse)]
    hosts: Vec<Pattern>,
    /// Offer your own keys on these hosts, too, after ours
    #[arg(long)]
    coexist: bool,
    /// Have ssh refuse at once where there is no access, instead of trying (OpenSSH 10.1 or newer)
    #[arg(long)]
    strict: bool,
    /// What holds session keys: `file`, `agent` (the file, and your ssh-agent), or the file of a security key
    #[arg(long, value_name = "file|agent|FILE")]
    key: Option<Holder>,
    /// Take everything back
    #[arg(long, conflicts_with_all = ["hosts", "coexist", "strict", "key"])]
    undo: bool,
    /// Only show what would be changed
    #[arg(long)]
    dry_run: bool,
    /// The ssh configuration to change
    #[arg(long, value_name = "FILE", default_value = "~/.ssh/config")]
    ssh_config: PathBuf,
}

/// A file, and what is to be in it; `None` takes it away.
#[derive(Clone, Debug)]
struct FileChange {
    path: PathBuf,
    before: Option<String>,
    after: Option<String>,
    mode: u32,
}

/// `hallpass setup`.
pub(crate) fn run(context: &Context, args: &SetupArgs) -> Result<(), Failure> {
    let places = context.places()?;
    let mut profile = profile::need(&places, &context.globals)?;
    let config = user_config(&args.ssh_config)?;
    if args.undo {
        return undo(context, &places, &mut profile, &config, args.dry_run);
    }
    check_ssh(args.strict)?;
    let holder = match args.key.clone() {
        Some(Holder::SecurityKey(path)) => {
            Holder::SecurityKey(std::path::absolute(&path).map_err(|e| Failure::file("find", &path, &e))?)
        }
        Some(holder) => holder,
        None => profile.session_key.clone(),
    };
    holder.check()?;
    let is_new_holder = holder != profile.session_key;
    let given = args.hosts.iter().map(|p| p.as_str().to_owned()).collect();
    let wanted = SshSetup { hosts: given, coexist: args.coexist, strict: args.strict };
    let hosts = match args.hosts.as_slice() {
        [] => {
            let client = context.client(&places, &profile, context.call_timeout())?;
            context.block_on(known_hosts(&client))?
        }
        given => given.to_vec(),
    };
    check_overlap(&places, &profile.name, &hosts)?;
    if !args.dry_run {
        let client = context.anonymous(profile.server.clone())?;
        // A service that is away, or one from before it had host CA keys, is no reason not to be set up; the next login asks again.
        if let Ok(known) = context.block_on(async { Ok(KnownHosts::fetch(&client, &hosts).await?) }) {
            known.keep(&places, &profile.name)?;
        }
    }
    let before = Confirmed::read(&places, &profile.name)?.filter(|_| args.hosts.is_empty());
    let new = before.map(|before| before.sort(hosts.clone()).left_out).unwrap_or_default();
    let mut changes = vec![fragment_change(&places, &profile, &hosts, &wanted)?];
    let path = places.confirmed(&profile.name);
    let after = args.hosts.is_empty().then(|| confirmed::text(&profile.name, &hosts));
    changes.push(FileChange { before: read(&path)?, path, after, mode: 0o600 });
    let before = read(&config)?;
    let text = before.clone().unwrap_or_default();
    let after = ssh_config::with_include(&text, &places.fragments());
    changes.push(FileChange { mode: mode_of(&config, 0o600), path: config.clone(), before, after: Some(after) });
    changes.retain(|change| change.before != change.after);
    if !args.dry_run {
        apply(&changes, Some(&Trial { config: &config, hosts: &hosts, fragments: &places.fragments() }))?;
        profile.ssh = Some(wanted);
        profile.session_key = holder.clone();
        profile::save(&places, &profile)?;
    }
    let mut said: Vec<String> = changes.iter().map(FileChange::said).collect();
    said.extend(new.iter().map(|host| format!("confirmed  {}", host.as_str())));
    if is_new_holder {
        said.push(format!("changed  profile {}: {}", profile.name, held_by(&holder)));
    }
    report(context, (&changes, &said), args.dry_run, &hosts)
}

/// What holds session keys, as a change of it is said.
fn held_by(holder: &Holder) -> String {
    match holder {
        Holder::File => "session keys are files".to_owned(),
        Holder::Agent => "session keys are files, and lent to your ssh agent from the next certificate on".to_owned(),
        Holder::SecurityKey(path) => {
            format!("from the next request on, the session key is {}", output::escape(&path.display().to_string()))
        }
    }
}

/// Brings a profile's fragment up to the hosts that the service knows now, if that is what it was set up for. Says what is left out.
///
/// # Errors
/// When the service can't be asked, or the file can't be written.
pub(crate) async fn refresh(places: &Places, profile: &Profile, client: &Client) -> Result<Hosts, Failure> {
    if profile.ssh.is_none() {
        return Ok(Hosts::default());
    }
    let hosts = patterns(places, profile, client).await?;
    KnownHosts::fetch(client, &hosts.ours).await?.keep(places, &profile.name)?;
    rewrite(places, profile, &hosts.ours)?;
    Ok(hosts)
}

/// The hosts of a profile: those it was set up for, else those that the service knows and `confirmed` takes (all, before it is set up:
/// then ssh reads none of it).
///
/// # Errors
/// When the service can't be asked, or knows none, or none that was confirmed.
pub(crate) async fn patterns(places: &Places, profile: &Profile, client: &Client) -> Result<Hosts, Failure> {
    let given = profile.ssh.as_ref().map(|setup| setup.hosts.as_slice()).unwrap_or_default();
    if !given.is_empty() {
        let wrong = |why: String| Failure::failed("the profile has a pattern that is none").because(why);
        let ours = given.iter().map(|text| Pattern::parse(text).map_err(wrong)).collect::<Result<_, _>>()?;
        return Ok(Hosts { ours, ..Hosts::default() });
    }
    let named = known_hosts(client).await?;
    if profile.ssh.is_none() {
        return Ok(Hosts { ours: named, ..Hosts::default() });
    }
    let hosts = Confirmed::read(places, &profile.name)?.unwrap_or_default().sort(named);
    match hosts.said().filter(|_| hosts.ours.is_empty()) {
        Some(said) => Err(Failure::failed("you have confirmed no host that the service knows")
            .because(said)
            .next("hallpass setup")),
        None => Ok(hosts),
    }
}

/// Writes a profile's fragment anew for these hosts, if it was set up.
///
/// # Errors
/// When its file can't be written, or another profile has one of the hosts.
pub(crate) fn rewrite(places: &Places, profile: &Profile, hosts: &[Pattern]) -> Result<(), Failure> {
    let Some(setup) = &profile.ssh else { return Ok(()) };
    check_overlap(places, &profile.name, hosts)?;
    let change = fragment_change(places, profile, hosts, setup)?;
    if change.before == change.after { Ok(()) } else { apply(&[change], None) }
}

async fn known_hosts(client: &Client) -> Result<Vec<Pattern>, Failure> {
    let answer: wire::Hosts = client.get("/v1/hosts").await?;
    let mut hosts: Vec<Pattern> = answer
        .hosts
        .iter()
        .filter_map(|host| HostName::parse(&host.name).ok())
        .map(|host| Pattern::from(&host))
        .collect();
    hosts.sort();
    match hosts.len() {
        0 => Err(Failure::failed("the service knows no host yet").next("hallpass setup --hosts 'web-*' 'db-*'")),
        1..=PATTERNS_MAX => Ok(hosts),
        count => {
            Err(Failure::usage(format!("{count} hosts are too many for ssh's configuration; it takes {PATTERNS_MAX}"))
                .next("hallpass setup --hosts 'web-*' 'db-*'"))
        }
    }
}

fn fragment_change(
    places: &Places,
    profile: &Profile,
    hosts: &[Pattern],
    setup: &SshSetup,
) -> Result<FileChange, Failure> {
    let local = Local::new(places, &profile.name);
    local.check_root()?;
    let program =
        std::env::current_exe().map_err(|e| Failure::failed("cannot find our own program").because(e.to_string()))?;
    for path in [program.as_path(), places.fragments().as_path()] {
        ssh_config::check_path(path).map_err(|why| {
            Failure::failed(format!("{:?} cannot stand in ssh's configuration", path.display().to_string()))
                .because(why)
        })?;
    }
    let SshSetup { hosts: _, coexist, strict } = *setup;
    let known_hosts = Some(places.known_hosts(&profile.name)).filter(|path| path.exists());
    let (folder, known_hosts) = (local.root(), known_hosts.as_deref());
    let of = Fragment { profile: &profile.name, hosts, program: &program, folder, known_hosts, coexist, strict };
    let path = places.fragment(&profile.name);
    Ok(FileChange { before: read(&path)?, path, after: Some(ssh_config::fragment(&of)), mode: 0o600 })
}

/// Two profiles with a host in common would both be asked for it.
///
/// # Errors
/// Names both, and the host.
pub(crate) fn check_overlap(places: &Places, profile: &str, hosts: &[Pattern]) -> Result<(), Failure> {
    for path in fragments(&places.fragments())? {
        let other = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if other == profile {
            continue;
        }
        let theirs = fragment_hosts(&read(&path)?.unwrap_or_default());
        for host in hosts {
            if let Some(same) = theirs.iter().find(|pattern| pattern.overlaps(host)) {
                return Err(Failure::usage(format!("profile {other:?} has {:?} already", same.as_str()))
                    .because(format!("{:?} would belong to both", host.as_str()))
                    .next("hallpass setup --hosts 'web-*' 'db-*'")
                    .next(format!("hallpass setup --profile {other} --undo")));
            }
        }
    }
    Ok(())
}

/// The host patterns of a fragment.
pub(crate) fn fragment_hosts(fragment: &str) -> Vec<Pattern> {
    let line = fragment.lines().find_map(|line| line.strip_prefix("Host ")).unwrap_or_default();
    line.split(' ').filter_map(|word| Pattern::parse(word).ok()).collect()
}

fn undo(
    context: &Context,
    places: &Places,
    profile: &mut Profile,
    config: &Path,
    dry_run: bool,
) -> Result<(), Failure> {
    let fragment = places.fragment(&profile.name);
    let mut changes = Vec::new();
    let others = fragments(&places.fragments())?.iter().any(|path| *path != fragment);
    let before = read(config)?;
    if let (Some(text), false) = (&before, others) {
        let after = ssh_config::without_include(text, &places.fragments());
        // Nothing else in it, and no copy says that it was empty before: we made the file, or it has not been theirs for long.
        let is_ours = after.is_empty() && !copies(config)?.iter().any(String::is_empty);
        let after = (!is_ours).then_some(after);
        changes.push(FileChange { path: config.to_owned(), mode: mode_of(config, 0o600), before, after });
    }
    for path in [fragment, places.confirmed(&profile.name)] {
        changes.push(FileChange { before: read(&path)?, path, after: None, mode: 0o600 });
    }
    changes.retain(|change| change.before != change.after);
    if !dry_run {
        apply(&changes, None)?;
        KnownHosts::default().keep(places, &profile.name)?;
        profile.ssh = None;
        profile::save(places, profile)?;
    }
    let said: Vec<String> = changes.iter().map(FileChange::said).collect();
    report(context, (&changes, &said), dry_run, &[])
}

/// Puts our `Include` back on the first line of `config`, with a copy of what was there.
///
/// # Errors
/// When ssh does not take the result (all is as before then), or a file can't be written.
pub(crate) fn move_include(places: &Places, config: &Path) -> Result<(), Failure> {
    let before = read(config)?;
    let after = ssh_config::with_include(before.as_deref().unwrap_or_default(), &places.fragments());
    let change = FileChange { path: config.to_owned(), mode: mode_of(config, 0o600), before, after: Some(after) };
    apply(&[change], Some(&Trial { config, hosts: &[], fragments: &places.fragments() }))
}

/// What changes of the user's configuration are tried with; who only takes our lines out of it needs no trial, and no copy.
struct Trial<'a> {
    config: &'a Path,
    hosts: &'a [Pattern],
    fragments: &'a Path,
}

/// Makes the changes in their order; if ssh then does not read its configuration, or one can't be made, takes all of them back.
fn apply(changes: &[FileChange], trial: Option<&Trial<'_>>) -> Result<(), Failure> {
    let make = |change: &FileChange| {
        if let (Some(before), Some(trial), true) = (&change.before, trial, change.is_theirs()) {
            keep_copy(&change.path, before, trial.fragments)?;
        }
        put(&change.path, change.after.as_deref(), change.mode)
    };
    let outcome = changes
        .iter()
        .try_for_each(make)
        .and_then(|()| trial.map_or(Ok(()), |trial| check_config(trial.config, trial.hosts)));
    outcome.inspect_err(|_| {
        for change in changes.iter().rev() {
            // What can't be put back is in the copy.
            drop(put(&change.path, change.before.as_deref(), change.mode));
        }
    })
}

impl FileChange {
    /// Whether it is the user's own file, not one of ours.
    fn is_theirs(&self) -> bool {
        self.path.extension().is_none_or(|extension| extension != "conf" && extension != "confirmed")
    }

    fn said(&self) -> String {
        let path = output::escape(&self.path.display().to_string());
        match (&self.before, &self.after) {
            (None, _) => format!("new      {path}"),
            (Some(_), None) => format!("deleted  {path}"),
            (Some(_), Some(_)) => format!("changed  {path}"),
        }
    }
}

fn put(path: &Path, text: Option<&str>, mode: u32) -> Result<(), Failure> {
    let Some(text) = text else {
        return match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("delete", path, &e)),
            _ => Ok(()),
        };
    };
    if let Some(folder) = path.parent() {
        durable::create_folder(folder, 0o700).map_err(|e| Failure::file("make folder", folder, &e))?;
    }
    durable::replace(path, text.as_bytes(), mode).map_err(|e| Failure::file("write", path, &e))
}

/// Keeps what the user's configuration was before we change it, beside it: `config.before-hallpass`, or with a number. One that is kept
/// already, but for our own lines, is not kept once more; what has our lines alone was never theirs.
fn keep_copy(path: &Path, text: &str, fragments: &Path) -> Result<(), Failure> {
    let theirs = |text: &str| ssh_config::without_include(text, fragments);
    let copies = copies(path)?;
    let is_ours_alone = !text.is_empty() && theirs(text).is_empty();
    if is_ours_alone || copies.iter().any(|kept| theirs(kept) == theirs(text)) {
        return Ok(());
    }
    let copy = free_copy_path(path)?;
    durable::replace(&copy, text.as_bytes(), 0o600).map_err(|e| Failure::file("write", &copy, &e))
}

/// The copies that are there.
fn copies(path: &Path) -> Result<Vec<String>, Failure> {
    (1..=COPIES_MAX).filter_map(|number| read(&copy_path(path, number)).transpose()).collect()
}

fn free_copy_path(path: &Path) -> Result<PathBuf, Failure> {
    for number in 1..=COPIES_MAX {
        let copy = copy_path(path, number);
        if read(&copy)?.is_none() {
            return Ok(copy);
        }
    }
    Err(Failure::failed(format!("there are {COPIES_MAX} copies of {:?} already", path.display().to_string()))
        .next("delete those you do not need"))
}

fn copy_path(path: &Path, number: usize) -> PathBuf {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("config");
    let suffix = if number == 1 { String::new() } else { format!("-{number}") };
    path.with_file_name(format!("{name}.before-hallpass{suffix}"))
}

/// The first that names a host, and not several.
fn one_host(hosts: &[Pattern]) -> Option<&str> {
    hosts.iter().map(Pattern::as_str).find(|host| !host.contains(['*', '?']))
}

/// Has the real ssh read the configuration.
fn check_config(config: &Path, hosts: &[Pattern]) -> Result<(), Failure> {
    let host = one_host(hosts).unwrap_or("localhost");
    let ran = std::process::Command::new(ssh_program())
        .args(["-G", "-F"])
        .arg(config)
        .arg(host)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| no_ssh(&e))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    Err(Failure::failed("ssh does not take the new configuration; nothing was changed").because(said))
}

/// The user's configuration, through a link if it is one.
///
/// # Errors
/// When there is no home folder to look in.
pub(crate) fn user_config(given: &Path) -> Result<PathBuf, Failure> {
    let path = match given.strip_prefix("~") {
        Ok(rest) => {
            let home = profile::env("HOME")
                .ok_or_else(|| Failure::failed("HOME is not set").next("pass --ssh-config FILE"))?;
            Path::new(&home).join(rest)
        }
        Err(_) => std::path::absolute(given).map_err(|e| Failure::file("find", given, &e))?,
    };
    // Dotfiles are often links into a repository: the file behind it is what is changed.
    Ok(std::fs::canonicalize(&path).unwrap_or(path))
}

fn mode_of(path: &Path, default: u32) -> u32 {
    std::fs::metadata(path).map_or(default, |metadata| metadata.permissions().mode() & 0o777)
}

/// A configuration's text; `None` when there is none.
///
/// # Errors
/// When it can't be read, or is longer than any of ours.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::file("read", path, &e)),
        Ok(bytes) if bytes.len() > CONFIG_BYTES_MAX => {
            Err(Failure::failed(format!("{:?} is longer than 1 MiB", path.display().to_string())))
        }
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Failure::failed(format!("{:?} is not UTF-8; it is left alone", path.display().to_string()))),
    }
}

fn fragments(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Failure::file("read folder", folder, &e))?,
    };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect())
}

fn report(
    context: &Context,
    (changes, said): (&[FileChange], &[String]),
    dry_run: bool,
    hosts: &[Pattern],
) -> Result<(), Failure> {
    let document = json!({
        "schema": "hallpass.setup.v1", "dry_run": dry_run, "changes": said,
        "hosts": hosts.iter().map(Pattern::as_str).collect::<Vec<_>>(),
    });
    let mut text = if said.is_empty() { "nothing to change".to_owned() } else { said.join("\n") };
    if dry_run {
        for change in changes {
            if let Some(after) = &change.after {
                let first = if change.is_theirs() { 2 } else { usize::MAX };
                let lines: Vec<&str> = after.lines().take(first).collect();
                text.push_str(&format!("\n\n# {}\n{}", change.path.display(), lines.join("\n")));
            }
        }
    }
    context.out.answer(&document, &text)?;
    if let (Some(host), false) = (one_host(hosts), dry_run) {
        context.out.note(&format!("next: ssh {host}"));
    }
    Ok(())
}
