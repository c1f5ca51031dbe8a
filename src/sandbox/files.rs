//! Files, connections and signals, by the kernel's landlock: what is not named can't be opened, connected to or signalled.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, path_beneath_rules,
};

use super::bounds::{Access, Bounds, Files};
use super::{Lack, Part};

/// What we ask for is of this version (Linux 6.12): tried, and known to let through what we need. A later one would restrict
/// sockets in the file system, a signer's agent and a database among them.
const ASKED: ABI = ABI::V6;

/// Since which version each part can be restricted.
const SINCE: [(Part, ABI, &str); 3] =
    [(Part::Files, ABI::V1, "5.13"), (Part::Connections, ABI::V4, "6.7"), (Part::Signals, ABI::V6, "6.12")];

/// Restricts this thread, and all that it starts; gives what can't be.
pub(super) fn restrict(bounds: &Bounds) -> Result<Vec<Lack>, String> {
    let Some(files) = &bounds.files else {
        let why = "a token's library may need any; say which in [sandbox] read, write and connect";
        return Ok(SINCE.map(|(part, ..)| Lack { part, why: why.to_owned() }).into());
    };
    let status = ruled(files, bounds.programs).map_err(|error| error.to_string())?;
    Ok(lacks(status))
}

fn ruled(files: &Files, programs: bool) -> Result<LandlockStatus, RulesetError> {
    let mut handled = AccessFs::from_all(ASKED);
    if programs {
        handled.remove(AccessFs::Execute);
    }
    let scope = if files.abstract_sockets { Scope::Signal.into() } else { Scope::from_all(ASKED) };
    let mut rules =
        Ruleset::default().handle_access(handled)?.handle_access(AccessNet::from_all(ASKED))?.scope(scope)?.create()?;
    for (path, access) in &files.paths {
        rules = rules.add_rules(path_beneath_rules([path], rights(*access)))?;
    }
    for port in &files.connect {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    RulesetCreated::restrict_self(rules).map(|status| status.landlock)
}

/// Never [`AccessFs::Execute`]: a library can be loaded without.
fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let keep = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    match access {
        Access::Read => read,
        Access::Keep => keep,
        Access::All => {
            let mut all = AccessFs::from_all(ASKED);
            all.remove(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
            all
        }
    }
}

fn lacks(status: LandlockStatus) -> Vec<Lack> {
    let had = match status {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => ABI::Unsupported,
    };
    let lack = |(part, since, linux)| {
        let why = match status {
            LandlockStatus::NotEnabled => {
                "landlock is not switched on: it is missing in the kernel's lsm= list".to_owned()
            }
            LandlockStatus::NotImplemented | LandlockStatus::Available { .. } => {
                format!("the kernel has no landlock for it; Linux {linux} does")
            }
        };
        (had < since).then_some(Lack { part, why })
    };
    SINCE.into_iter().filter_map(lack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(abi: ABI) -> Vec<Part> {
        let status = LandlockStatus::Available { effective_abi: abi, kernel_abi: None };
        lacks(status).into_iter().map(|lack| lack.part).collect()
    }

    #[test]
    fn what_an_older_kernel_lacks_is_told_part_by_part() {
        assert_eq!(parts(ABI::V1), [Part::Connections, Part::Signals]);
        assert_eq!(parts(ABI::V4), [Part::Signals]);
        assert!(parts(ABI::V6).is_empty() && parts(ABI::V10).is_empty());
        for status in [LandlockStatus::NotEnabled, LandlockStatus::NotImplemented] {
            assert_eq!(lacks(status).len(), 3, "{status:?}");
        }
    }

    #[test]
    fn nothing_may_be_executed_and_no_device_made_whatever_is_open() {
        for access in [Access::Read, Access::Keep, Access::All] {
            let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock;
            assert!((rights(access) & never).is_empty(), "{access:?}");
        }
    }

    /// On a thread of its own, which alone is restricted.
    #[test]
    fn a_thread_reads_what_is_open_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (open, closed) = (folder.path().join("open"), folder.path().join("closed"));
        for folder in [&open, &closed] {
            std::fs::create_dir(folder).unwrap();
            crate::durable::replace(&folder.join("file"), b"x", 0o600).unwrap();
        }
        let mut files = Files::default();
        files.add(&open, Access::Keep);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let lacks = restrict(&Bounds { files: Some(files), programs: false }).unwrap();
                if lacks.iter().any(|lack| lack.part == Part::Files) {
                    eprintln!("NOT TESTED: the kernel has no landlock");
                    return;
                }
                crate::durable::replace(&open.join("file"), b"y", 0o600).unwrap();
                let error = std::fs::read(closed.join("file")).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
                assert!(crate::durable::replace(&closed.join("new"), b"y", 0o600).is_err());
            });
        });
        assert!(std::fs::read(closed.join("file")).is_ok(), "this thread is not restricted");
    }
}
