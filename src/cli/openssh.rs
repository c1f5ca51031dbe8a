//! The `ssh` that is run: which, how new, and what is said when there is none.

use std::path::Path;

use super::failure::{Exit, Failure};
use super::profile;

/// What `ssh -V` says.
///
/// # Errors
/// HP-304 when it can't be run.
pub(crate) fn ssh_says() -> Result<String, Failure> {
    let ran = std::process::Command::new(ssh_program()).arg("-V").output().map_err(|e| no_ssh(&e))?;
    Ok(String::from_utf8_lossy(&ran.stderr).trim().to_owned())
}

/// ssh must be there, and know `Include`; for a strict fragment also `RefuseConnection`. Returns its version.
///
/// # Errors
/// HP-304.
pub(crate) fn check_ssh(strict: bool) -> Result<(u32, u32), Failure> {
    let said = ssh_says()?;
    let Some(version) = version(&said) else {
        return Err(Failure::new(Exit::NotReady, "HP-304", "this ssh is not OpenSSH").because(said));
    };
    let too_old = |what: &str, least: &str| {
        Failure::new(Exit::NotReady, "HP-304", format!("ssh {}.{} is too old for {what}", version.0, version.1))
            .because(format!("it takes OpenSSH {least} or newer"))
    };
    if version < (7, 3) {
        return Err(too_old("this", "7.3").because("`hallpass ssh HOST` needs no set-up"));
    }
    if strict && version < (10, 1) {
        return Err(too_old("--strict", "10.1").because("without it ssh tries, and fails").next("hallpass setup"));
    }
    Ok(version)
}

/// The version in `OpenSSH_9.2p1 Debian-2, …`.
fn version(said: &str) -> Option<(u32, u32)> {
    let numbers = said.strip_prefix("OpenSSH_")?.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let (major, minor) = numbers.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The ssh that is run.
pub(crate) fn ssh_program() -> String {
    profile::env("HALLPASS_SSH").unwrap_or_else(|| "ssh".to_owned())
}

/// Looks whether there is an ssh to run; it is not run.
///
/// # Errors
/// HP-304 when there is none.
pub(crate) fn find() -> Result<(), Failure> {
    let program = ssh_program();
    let is_there = if program.contains('/') {
        Path::new(&program).is_file()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(&program).is_file())
    };
    if is_there { Ok(()) } else { Err(no_ssh(&rustix::io::Errno::NOENT.into())) }
}

/// HP-304: ssh can't be run.
pub(crate) fn no_ssh(error: &std::io::Error) -> Failure {
    Failure::new(Exit::NotReady, "HP-304", format!("cannot run {:?}", ssh_program()))
        .because(error.to_string())
        .next("install OpenSSH's client, or set HALLPASS_SSH to its path")
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn opensshs_version_is_found() {
        assert_eq!(version("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.20"), Some((9, 2)));
        assert_eq!(version("OpenSSH_10.0p2, LibreSSL"), Some((10, 0)));
        assert_eq!(version("OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2"), None);
        assert_eq!(version("Sun_SSH_1.1"), None);
    }
}
