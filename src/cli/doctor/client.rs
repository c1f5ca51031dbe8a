//! This machine: ssh itself, our files, the folder of the keys, leftovers, the agent.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::local::Held;
use super::super::session_key::{self, Holder};
use super::super::{keys, openssh, output, profile, still};
use super::Doctor;
use super::report::Check;
use crate::wire;

/// Most files that are looked at; a person has a few dozen.
const FILES_MAX: usize = 10_000;

/// Most levels of folders that are looked at: profile, request, file.
const DEPTH_MAX: usize = 4;

/// How long an agent may take to list its keys: it asks nobody.
pub(super) const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A file or folder of ours that others can reach, that we can't, or that is not ours.
#[derive(Clone, Debug)]
pub(super) struct Amiss {
    /// Where.
    pub(super) path: PathBuf,
    /// Its permissions.
    pub(super) mode: u32,
    /// What they should be; `None` when it is not ours to change, or they are not what is wrong.
    pub(super) wanted: Option<u32>,
    /// Whether it is ours and we can't read it.
    pub(super) is_closed: bool,
}

impl Amiss {
    fn is_key(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == "key")
    }

    /// What is wrong with it.
    fn fact(&self) -> String {
        let shown = self.path.display();
        match (self.wanted, self.is_closed) {
            (Some(wanted), _) => format!("{shown} has mode {:04o}, not {wanted:04o}", self.mode),
            (None, true) => {
                format!("{shown} is yours, with mode {:04o}, and opening it is refused all the same", self.mode)
            }
            (None, false) => format!("{shown} is a link, or somebody else's, or others can read what it leads to"),
        }
    }
}

/// All of this machine's checks.
pub(super) fn look(doctor: &Doctor<'_>, closed: &[(Held, wire::Request)], checks: &mut Vec<Check>) {
    checks.push(ssh(doctor));
    checks.push(files(doctor));
    checks.push(runtime(doctor));
    checks.push(leftovers(doctor, closed));
    checks.push(agent(doctor));
}

/// HP-304.
fn ssh(doctor: &Doctor<'_>) -> Check {
    let program = openssh::ssh_program();
    let setup = doctor.profile.as_ref().and_then(|profile| profile.ssh.as_ref());
    match openssh::check_ssh(setup.is_some_and(|setup| setup.strict)) {
        Ok((major, minor)) => Check::ok("ssh", format!("OpenSSH {major}.{minor} ({})", found(&program))),
        Err(failure) => Check::failed("ssh", &failure).because(format!("found at {}", found(&program))),
    }
}

/// Where a program stands in `PATH`.
fn found(program: &str) -> String {
    if program.contains('/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let place = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|place| place.is_file());
    place.map_or_else(|| program.to_owned(), |place| place.display().to_string())
}

/// HP-303.
fn files(doctor: &Doctor<'_>) -> Check {
    let amiss = amiss(doctor);
    let Some(first) = amiss.first() else {
        return Check::ok("files", "no file of ours can be read or changed by others");
    };
    let what = match (first.wanted, first.is_closed) {
        (None, false) => "a file in our folders is not yours",
        _ if amiss.iter().any(|file| file.is_key() && file.is_closed) => "we cannot read our own key",
        (_, true) => "we cannot read files of ours",
        _ if amiss.iter().any(Amiss::is_key) => "ssh ignores the key: others can read it",
        _ => "others can reach files of ours",
    };
    let check = amiss.iter().fold(Check::bad("files", "HP-303", what), |check, file| check.because(file.fact()));
    if amiss.iter().any(|file| file.wanted.is_some()) {
        return check.next("hallpass doctor --fix");
    }
    check.next(format!("ls -ld {}", output::word(&first.path)))
}

/// Everything of ours with a wrong mode or owner.
pub(super) fn amiss(doctor: &Doctor<'_>) -> Vec<Amiss> {
    let mut found = Vec::new();
    // Keys, certificates and the login's token: nobody else's business. The configuration may be read, not changed.
    for (folder, forbidden) in [
        (doctor.local.root().to_owned(), 0o077),
        (doctor.places.state_of(doctor.name()), 0o077),
        (doctor.places.fragments(), 0o022),
    ] {
        walk(&folder, forbidden, 0, &mut found);
    }
    found
}

fn walk(path: &Path, forbidden: u32, depth: usize, found: &mut Vec<Amiss>) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if found.len() >= FILES_MAX || depth > DEPTH_MAX {
        return;
    }
    let mode = meta.mode() & 0o7777;
    if meta.is_symlink() && path.file_name().is_some_and(|name| name == "key") {
        found.extend(linked_key(path));
        return;
    }
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw() && (meta.is_dir() || meta.is_file());
    let (usual, needed) = if meta.is_dir() { (0o700, 0o500) } else { (0o600, 0o400) };
    // Root could read it without the bits, and lists, permissions of folders and security modules can refuse it with them.
    let is_refused = || path.file_name().is_some_and(|name| name == "key") && std::fs::File::open(path).is_err();
    let is_closed = is_ours && (mode & needed != needed || (meta.is_file() && is_refused()));
    if !is_ours || mode & forbidden != 0 || is_closed {
        let wanted = Some(usual).filter(|usual| is_ours && mode != *usual);
        found.push(Amiss { path: path.to_owned(), mode, wanted, is_closed });
    }
    if !is_ours || !meta.is_dir() {
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    let mut inside: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).take(FILES_MAX).collect();
    inside.sort();
    for path in inside {
        walk(&path, forbidden, depth.saturating_add(1), found);
    }
}

/// A security key's own file, which a request's folder links to: found, if ssh would not take it; its mode is its owner's business.
fn linked_key(path: &Path) -> Option<Amiss> {
    let amiss = |mode| Amiss { path: path.to_owned(), mode, wanted: None, is_closed: false };
    let Ok(meta) = std::fs::metadata(path) else { return Some(amiss(0)) };
    let is_ours = meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw();
    let mode = meta.mode() & 0o7777;
    if is_ours && mode & 0o077 == 0 { None } else { Some(amiss(mode)) }
}

/// Whether keys are kept in memory alone.
fn runtime(doctor: &Doctor<'_>) -> Check {
    let folder = doctor.local.root();
    let shown = folder.display();
    let nearest = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
    match is_memory(nearest) {
        Some(true) => Check::ok("runtime", format!("keys are kept in memory, in {shown}")),
        Some(false) => Check::warn("runtime", format!("keys are kept on disk, in {shown}"))
            .because("they are deleted when access is over, but a disk may keep what was deleted")
            .next("log in with a session that sets XDG_RUNTIME_DIR, or set HALLPASS_RUNTIME_DIR"),
        None => Check::skipped("runtime", format!("keys are kept in {shown}; of what kind it is cannot be told here")),
    }
}

/// Whether a folder is on `tmpfs` or `ramfs`.
#[cfg(target_os = "linux")]
fn is_memory(folder: &Path) -> Option<bool> {
    /// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `statfs(2)`.
    const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
    let kind = rustix::fs::statfs(folder).ok()?.f_type;
    Some(IN_MEMORY.iter().any(|known| i128::from(*known) == i128::from(kind)))
}

#[cfg(not(target_os = "linux"))]
fn is_memory(_folder: &Path) -> Option<bool> {
    None
}

/// What is over and still there. What the service says is closed stands in the way: ssh offers it while its window lasts.
fn leftovers(doctor: &Doctor<'_>, closed: &[(Held, wire::Request)]) -> Check {
    let now = doctor.local.now();
    let is_offered = |held: &Held| held.window().is_some_and(|window| now < window.end());
    let offered: Vec<&wire::Request> =
        closed.iter().filter(|(held, _)| is_offered(held)).map(|(_, said)| said).collect();
    if !offered.is_empty() {
        let what = format!("ssh would offer certificates of access that is over: {}", offered.len());
        let check = Check::bad("leftovers", "HP-206", what);
        let check = offered.into_iter().fold(check, |check, said| check.because(still::why(said)));
        return check.because("their windows last, and hosts refuse them all the same").next("hallpass doctor --fix");
    }
    match doctor.local.over() {
        Ok(over) if over.is_empty() => Check::ok("leftovers", "nothing is left of access that is over"),
        Ok(over) => Check::warn("leftovers", format!("keys of access that is over are left: {}", over.len()))
            .because("no certificate of theirs is valid; the next command deletes them")
            .next("hallpass doctor --fix"),
        Err(failure) => Check::failed("leftovers", &failure),
    }
}

/// HP-301: the agent, if it is what we log in with or lend certificates to.
fn agent(doctor: &Doctor<'_>) -> Check {
    let holder = doctor.profile.as_ref().map(|profile| &profile.session_key);
    if let Some(holder) = holder.filter(|holder| **holder != Holder::File) {
        return holding(doctor, holder);
    }
    let key = doctor.profile.as_ref().and_then(|profile| profile.key.clone());
    let is_needed = key.as_ref().is_some_and(|key| key.extension().is_some_and(|extension| extension == "pub"));
    let Some(socket) = profile::env("SSH_AUTH_SOCK") else {
        if is_needed {
            return Check::bad("agent", "HP-301", "there is no ssh agent, and your login key is in one")
                .because("SSH_AUTH_SOCK is not set")
                .next("eval \"$(ssh-agent)\" && ssh-add");
        }
        return Check::skipped("agent", "there is no ssh agent here; access needs none");
    };
    match keys::identities(Path::new(&socket), AGENT_TIMEOUT) {
        Ok(held) => Check::ok("agent", format!("an ssh agent answers; keys in it: {}", held.len())),
        Err(failure) if is_needed => Check::failed("agent", &failure),
        Err(failure) => {
            let mut check = Check::warn("agent", "SSH_AUTH_SOCK is set, and no agent answers there").coded("HP-301");
            check.why.clone_from(&failure.why);
            check.because("access needs none; a login with a key in it does").next("unset SSH_AUTH_SOCK")
        }
    }
}

/// HP-301: what `hallpass setup --key` chose to hold session keys, and whether it does.
fn holding(doctor: &Doctor<'_>, holder: &Holder) -> Check {
    if let Err(failure) = holder.check() {
        return Check::failed("agent", &failure);
    }
    if let Holder::SecurityKey(path) = holder {
        return Check::ok("agent", format!("session keys are of the security key {}", path.display()));
    }
    let now = doctor.local.now();
    let live = doctor.local.all().unwrap_or_default().into_iter().filter(|held| held.is_live(now));
    for held in live {
        let missing = match session_key::is_lent(&held) {
            Ok(true) => continue,
            Ok(false) => "it does not list it".to_owned(),
            Err(failure) => failure.why.join("; "),
        };
        return Check::bad(
            "agent",
            "HP-301",
            format!("your ssh agent does not hold the certificate of {}", held.request.id),
        )
        .because(missing)
        .because("the certificate is in its file, so ssh, scp, rsync and git work")
        .next("hallpass setup --key file")
        .next("ssh-add -L");
    }
    Check::ok("agent", "an ssh agent answers, and holds every certificate that is good now")
}
