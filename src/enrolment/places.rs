//! Where enrolment's files are on a host, and the root below which they are (`/`, but for tests and images).
//!
//! Paths in plans, journals and configuration files are as sshd sees them; only [`Root::path`] puts the root in front.

use std::path::{Path, PathBuf};

/// What this host is called; the guard's own file.
pub const HOST_TOML: &str = crate::host::settings::PATH;
/// Where the service is and how it is recognised.
pub const SERVICE_TOML: &str = "/etc/hallpass/host-service.toml";
/// Folder of what sshd reads and the daemon keeps fresh.
pub const SSHD_FOLDER: &str = "/etc/ssh/hallpass";
/// The trust bundle.
pub const TRUST: &str = "/etc/ssh/hallpass/user_ca_keys";
/// The list of ended certificates.
pub const ENDED: &str = "/etc/ssh/hallpass/ended";
/// Which host certificates sshd may still show, as long as it could not be told of newer ones.
pub const UNTOLD: &str = "/etc/ssh/hallpass/untold";
/// sshd's own file.
pub const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
/// The folder that distributions let sshd include.
pub const DROP_IN_FOLDER: &str = "/etc/ssh/sshd_config.d";
/// Our file in it. `00`: sshd keeps the first value it reads, and cloud images ship a `50-` file.
pub const DROP_IN_NAME: &str = "00-hallpass.conf";
/// Our file where that folder is not included, or not first.
pub const ASIDE: &str = "/etc/ssh/hallpass/sshd.conf";
/// sshd's lines for PAM.
pub const PAM: &str = "/etc/pam.d/sshd";
/// The daemon's unit.
pub const UNIT: &str = "/etc/systemd/system/hallpass-host.service";
/// Folder of what enrolment and daemon remember.
pub const MEMORY: &str = "/var/lib/hallpass/host";

/// The account of the host's login to itself.
pub const CHECK_ACCOUNT: &str = "hallpass-check";
/// The account that sshd runs `hallpass host principals` as.
pub const PRINCIPALS_ACCOUNT: &str = "hallpass-principals";

/// What stands in front of every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl Root {
    /// Below `folder`.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// A path of the host, below the root.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether this is the machine itself.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.0 == Path::new("/")
    }
}

/// Our drop-in's full path.
#[must_use]
pub fn drop_in() -> String {
    format!("{DROP_IN_FOLDER}/{DROP_IN_NAME}")
}

/// Where the certificate of a host key goes.
#[must_use]
pub fn certificate_of(host_key: &str) -> String {
    let name = host_key.rsplit('/').next().unwrap_or(host_key);
    format!("{SSHD_FOLDER}/{name}-cert.pub")
}
