//! The parts of the machine that are no files of ours: system accounts, and the daemon's unit.

use std::path::Path;
use std::time::Duration;

use super::programs::{self, PATIENCE};

/// The daemon's unit, as systemd calls it.
const UNIT: &str = "hallpass-host.service";

/// Where no home is.
const NO_HOME: &str = "/nonexistent";

/// How `userdel` says that something runs as the account: a login to itself that is just ending.
const USERDEL_BUSY: i32 = 8;

/// How often, and how long apart, it is tried then.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// Whether an account exists.
///
/// # Errors
/// When nobody can tell.
pub async fn has_account(name: &str) -> Result<bool, String> {
    let id = programs::find("id").ok_or("there is no `id` on this machine")?;
    Ok(programs::run(&id, &["-u", name], PATIENCE).await?.code == Some(0))
}

/// Makes a system account that nobody can use: no shell, no home, no password that fits. Not locked, though: without PAM sshd refuses
/// a locked account, whatever it comes with.
///
/// # Errors
/// What `useradd` complains about.
pub async fn add_account(name: &str) -> Result<(), String> {
    if has_account(name).await? {
        return Ok(());
    }
    let useradd = programs::find("useradd").ok_or_else(|| {
        format!(
            "there is no `useradd` on this machine; make the system account {name:?} by hand, without shell and home"
        )
    })?;
    let shell = programs::find("nologin").ok_or("there is no `nologin` on this machine")?.display().to_string();
    let arguments = [
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        NO_HOME,
        "--shell",
        &shell,
        "--password",
        "*",
        "--comment",
        "hallpass",
        name,
    ];
    programs::output(&useradd, &arguments).await.map(drop).map_err(|why| format!("cannot make account {name:?}: {why}"))
}

/// Removes an account of ours. One that is gone is fine.
///
/// # Errors
/// What `userdel` complains about.
pub async fn remove_account(name: &str) -> Result<(), String> {
    if !has_account(name).await? {
        return Ok(());
    }
    let userdel = programs::find("userdel").ok_or_else(|| format!("remove the account {name:?} by hand"))?;
    for _ in 0..BUSY_TRIES {
        let ran = programs::run(&userdel, &[name], PATIENCE).await?;
        match ran.code {
            Some(0) => return Ok(()),
            Some(USERDEL_BUSY) => tokio::time::sleep(BUSY_PAUSE).await,
            _ => return Err(format!("cannot remove account {name:?}: {}", ran.complaint())),
        }
    }
    Err(format!("cannot remove account {name:?}: something still runs as it"))
}

/// Starts the daemon's unit, now and at each start of the machine.
///
/// # Errors
/// What `systemctl` complains about.
pub async fn start_unit() -> Result<(), String> {
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", UNIT]).await?;
    systemctl(&["restart", UNIT]).await
}

/// Stops the daemon's unit, for good. Not an error where it is not there.
///
/// # Errors
/// What `systemctl` complains about.
pub async fn stop_unit() -> Result<(), String> {
    if !is_systemd() {
        return Ok(());
    }
    systemctl(&["disable", "--now", UNIT]).await
}

/// Lets systemd see that the unit's file is gone.
pub async fn forget_unit() {
    if is_systemd() {
        // It sees that by itself at the next start of the machine.
        drop(systemctl(&["daemon-reload"]).await);
    }
}

fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

async fn systemctl(arguments: &[&str]) -> Result<(), String> {
    let program = programs::find("systemctl").ok_or("there is no `systemctl` on this machine")?;
    programs::output(&program, arguments).await.map(drop)
}
