//! Which program a host is set up with, and whether sshd would run it.
//!
//! What for: enrolment writes lines for the program for hosts where there is one, because it takes less memory and starts sooner; and it writes
//! none for a program that sshd would not run.
//!
//! Invariant: a program is run here as root only if nobody but root could have put it there.

use std::os::unix::fs::MetadataExt as _;

use super::programs;
use crate::host::program::{HOST_PROGRAM, Kind, Program};

/// What a program must say of itself to be ours: the same release.
const SAYS: &str = concat!("hallpass-host ", env!("CARGO_PKG_VERSION"));

/// The program for hosts: the one that runs, or the one beside it; else the one that runs is used, and why, if that may surprise.
pub async fn choose(own: Program) -> (Program, Option<String>) {
    let beside = own.path().with_file_name(HOST_PROGRAM);
    if own.kind() == Kind::Host || !beside.is_file() {
        return (own, None);
    }
    let found = match std::fs::canonicalize(&beside) {
        Ok(path) => Program::new(Kind::Host, path),
        Err(error) => return (own, Some(format!("{beside:?} is not used: {error}"))),
    };
    match is_fit(&found).await {
        Ok(()) => (found, None),
        Err(why) => (own, Some(format!("{beside:?} is not used: {why}"))),
    }
}

/// Whether sshd would run it, and it is of this release.
async fn is_fit(program: &Program) -> Result<(), String> {
    if let Some(why) = problem(program) {
        return Err(why);
    }
    let says = programs::output(program.path(), &["--version"]).await?;
    if says.trim() == SAYS { Ok(()) } else { Err(format!("it says that it is {:?}, not {SAYS:?}", says.trim())) }
}

/// Why sshd would not run a program as its command (every folder above it must be root's alone), or its lines would not be known as ours.
#[must_use]
pub fn problem(program: &Program) -> Option<String> {
    let path = program.path();
    let name = path.to_str()?;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+".contains(&b)) {
        return Some(format!("sshd can't run {path:?}: its path has a character that configuration files can't hold"));
    }
    if program.kind() == Kind::Host && !path.ends_with(HOST_PROGRAM) {
        return Some(format!("{path:?} must be called {HOST_PROGRAM}: its lines are recognised by that"));
    }
    let is_open = |path: &&std::path::Path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.uid() != 0 || metadata.mode() & 0o022 != 0)
    };
    let open = path.ancestors().find(is_open)?;
    Some(format!("sshd won't run {path:?}: {open:?} must belong to root and be writable by nobody else"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn whole(path: impl AsRef<Path>) -> Program {
        Program::new(Kind::Whole, path.as_ref().to_owned())
    }

    #[test]
    fn a_program_that_others_could_swap_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hallpass");
        crate::durable::replace(&path, b"", 0o777).unwrap();
        assert!(problem(&whole(&path)).unwrap().contains("belong to root"));
        assert!(problem(&whole("/usr/bin/a b")).unwrap().contains("character"));
        assert_eq!(problem(&whole("/usr/bin/env")), None);
        let host = Program::new(Kind::Host, "/usr/bin/env".into());
        assert!(problem(&host).unwrap().contains("must be called hallpass-host"));
    }

    #[tokio::test]
    async fn what_lies_beside_is_not_even_run_when_others_could_have_put_it_there() {
        let folder = tempfile::tempdir().unwrap();
        let own = whole(folder.path().join("hallpass"));
        assert_eq!(choose(own.clone()).await, (own.clone(), None), "nothing is beside it");
        let ran = folder.path().join("ran");
        let script = format!("#!/bin/sh\ntouch {}\necho '{SAYS}'\n", ran.display());
        crate::durable::replace(&folder.path().join(HOST_PROGRAM), script.as_bytes(), 0o777).unwrap();
        let (chosen, why) = choose(own.clone()).await;
        assert_eq!(chosen, own);
        assert!(why.unwrap().contains("must belong to root"));
        assert!(!ran.exists());
        let host = Program::new(Kind::Host, folder.path().join(HOST_PROGRAM));
        assert_eq!(choose(host.clone()).await, (host, None), "the program for hosts stays with itself");
    }
}
