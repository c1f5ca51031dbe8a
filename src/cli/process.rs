//! What the service asks of the kernel for its own process: that nobody reads its memory or its files, and that it can open enough.
//!
//! A CA key in a file is in memory while the service runs, a passphrase or PIN for a moment. So: no core dump, whatever the limit that
//! we were started with and however we die; and nobody who is not root may attach to the process, the account that it runs as included.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// File descriptors that are not connections: the database's, the listener, the runtime's, files being read. We use about 20.
const FILES_APART: usize = 64;

/// From here on no core is dumped, nobody else reads our memory, and whatever file we make, the database's own among them, is ours alone.
///
/// # Errors
/// The kernel's.
pub(super) fn keep_to_ourselves() -> rustix::io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The limit does not hold where cores are piped into a program.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Raises the limit of open files as far as we may, and takes no more connections than fit below it: out of file descriptors,
/// the service would not even answer those who are logged in.
pub(super) fn limit_connections(http: &mut crate::http::Settings) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current;
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => limit = maximum,
            Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
        }
    }
    // Without a limit every number fits.
    let Some(limit) = limit else { return };
    let fitting = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(FILES_APART).max(1);
    if http.connections_max > fitting {
        tracing::warn!(
            limit,
            connections_max = fitting,
            "the limit of open files allows fewer connections than configured"
        );
        http.connections_max = fitting;
    }
}
