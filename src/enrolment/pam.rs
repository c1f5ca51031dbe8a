//! Where the guard's line goes in `/etc/pam.d/sshd`. Pure.
//!
//! Directly below `pam_loginuid`, which gives the session the number that the guard finds it by; above every line that may take
//! variables from a file of the user's (`pam_env`), because the guard believes those that sshd sets.

use crate::host::program;

/// Why the line can't be put there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PamProblem {
    /// There is no `pam_loginuid` line in the file itself.
    #[error("it has no session line with pam_loginuid.so to put the guard below")]
    NoLoginUid,
    /// A line above would let users say who they are.
    #[error("line {0} has pam_env.so above pam_loginuid.so; the guard's line must stand above every pam_env.so")]
    EnvironmentAbove(usize),
}

/// The guard's line; `program` is how lines of the program that runs it begin.
#[must_use]
pub fn line(program: &str) -> String {
    format!("session    required     pam_exec.so quiet type=open_session {program} guard")
}

/// Whether a line runs the guard, whichever program it names.
#[must_use]
pub fn is_guard(line: &str) -> bool {
    is_session(line)
        && line.contains("pam_exec.so")
        && line.trim_end().ends_with(" guard")
        && program::runs(line, "guard")
}

/// The text with the guard's line in it, once.
///
/// # Errors
/// [`PamProblem`].
pub fn with_guard(text: &str, program: &str) -> Result<String, PamProblem> {
    let rest = without_guard(text);
    let lines: Vec<&str> = rest.split_inclusive('\n').collect();
    let has = |line: &str, module: &str| is_session(line) && line.contains(module);
    let place = lines.iter().rposition(|line| has(line, "pam_loginuid.so")).ok_or(PamProblem::NoLoginUid)?;
    if let Some(above) = lines.iter().take(place).position(|line| has(line, "pam_env.so")) {
        return Err(PamProblem::EnvironmentAbove(above.saturating_add(1)));
    }
    let (above, below) = lines.split_at(place.saturating_add(1));
    let mut with = above.concat();
    if !with.ends_with('\n') {
        with.push('\n');
    }
    with.extend([&line(program), "\n"]);
    with.extend(below.iter().copied());
    Ok(with)
}

/// The text without the guard's line.
#[must_use]
pub fn without_guard(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !is_guard(line)).collect()
}

/// Whether it is a session line: comments, includes and other kinds are not.
fn is_session(line: &str) -> bool {
    line.trim_start().trim_start_matches('-').starts_with("session")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "@include common-auth\naccount    required     pam_nologin.so\n@include common-account\n\
        session [success=ok ignore=ignore module_unknown=ignore default=bad]        pam_selinux.so close\n\
        session    required     pam_loginuid.so\nsession    optional     pam_keyinit.so force revoke\n@include common-session\n\
        session    required     pam_env.so user_readenv=1 envfile=/etc/default/locale\n@include common-password\n";
    const RED_HAT: &str = "#%PAM-1.0\nauth       substack     password-auth\naccount    required     pam_sepermit.so\n\
        # pam_selinux.so close should be the first session rule\nsession    required     pam_selinux.so close\n\
        session    required     pam_loginuid.so\nsession    required     pam_selinux.so open env_params\nsession    include      password-auth\n";

    #[test]
    fn the_guard_stands_directly_below_loginuid_and_once() {
        for text in [DEBIAN, RED_HAT] {
            let with = with_guard(text, "/usr/local/bin/hallpass host").unwrap();
            let below = with.lines().skip_while(|line| !line.contains("pam_loginuid.so")).nth(1).unwrap();
            assert_eq!(below, line("/usr/local/bin/hallpass host"));
            assert_eq!(with_guard(&with, "/usr/local/bin/hallpass host").as_deref(), Ok(with.as_str()));
            let moved = with_guard(&with, "/opt/hallpass-host").unwrap();
            assert!(
                !moved.contains("/usr/local/bin/hallpass host guard") && moved.lines().count() == with.lines().count()
            );
            assert_eq!(without_guard(&with), text);
        }
    }

    #[test]
    fn no_other_line_is_changed_however_it_ends() {
        const PROGRAM: &str = "/opt/hallpass-host";
        let text =
            "session required pam_loginuid.so\r\nsession required pam_limits.so\r\r\nsession required pam_mail.so";
        let with = with_guard(text, PROGRAM).unwrap();
        let expected = text.replacen("\r\n", &format!("\r\n{}\n", line(PROGRAM)), 1);
        assert_eq!(with, expected);
        assert_eq!(with_guard(&with, PROGRAM).as_deref(), Ok(with.as_str()));
        assert_eq!(without_guard(&with), text);
        let last = with_guard("session required pam_loginuid.so", PROGRAM).unwrap();
        assert_eq!(last, format!("session required pam_loginuid.so\n{}\n", line(PROGRAM)));
    }

    #[test]
    fn a_stack_in_which_it_could_not_be_believed_is_refused() {
        let none =
            "auth required pam_unix.so\nsession include system-remote-login\n#session required pam_loginuid.so\n";
        assert_eq!(with_guard(none, "/x"), Err(PamProblem::NoLoginUid));
        let above = "session required pam_env.so user_readenv=1\nsession required pam_loginuid.so\n";
        assert_eq!(with_guard(above, "/x"), Err(PamProblem::EnvironmentAbove(1)));
    }
}
