//! Nothing of the memory goes to the swap: a CA key in a file is in it.
//!
//! *Why only where there is no limit?* The kernel counts what is mapped, not what is used, and a process that has promised to lock all that it
//! will ever map gets no more memory once the count is at the limit: it would die in the middle of its work.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

/// Locks what is there and what will come, page by page as it is used.
pub(super) fn lock() -> Result<(), String> {
    if !is_unlimited() {
        return Err("the limit of locked memory is too low; LimitMEMLOCK=infinity in the unit lifts it".to_owned());
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(|error| error.to_string())
}

/// Whether as much may be locked as there is.
fn is_unlimited() -> bool {
    getrlimit(Resource::Memlock).current.is_none() || is_above_limits()
}

/// Whether the kernel looks at no limit: the capability counts in the first user namespace alone, where each user is itself.
fn is_above_limits() -> bool {
    let may_lock = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    may_lock && users.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_may_be_reached_is_one() {
        let is_limited = getrlimit(Resource::Memlock).current.is_some();
        let is_root = rustix::process::geteuid().is_root();
        // Whoever is not root has no such capability here; what root has is the machine's to say.
        assert!(is_root || is_unlimited() != is_limited);
    }
}
