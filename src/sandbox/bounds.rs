//! What a configuration leaves open.

use std::path::{Path, PathBuf};

/// What may be done with a file, or with all below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Read it.
    Read,
    /// Read, write, make, replace and remove files.
    Keep,
    /// That, and folders, links, sockets and devices' own commands: for a library whose needs we don't know.
    All,
}

/// What is left open.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// The files and connections; `None` leaves all of them open.
    pub files: Option<Files>,
    /// Whether programs may be started.
    pub programs: bool,
}

/// The files that may be opened, and the TCP ports that may be connected to. Nothing more may be listened on.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// In the order in which they were named.
    pub paths: Vec<(PathBuf, Access)>,
    /// The ports.
    pub connect: Vec<u16>,
    /// Whether hosts are found by their names, which takes datagrams.
    pub names: bool,
    /// Whether the service manager is told by way of an abstract socket, which is then left open.
    pub abstract_sockets: bool,
}

impl Files {
    /// One path. What is not there when the sandbox is entered can't be opened later.
    pub fn add(&mut self, path: impl Into<PathBuf>, access: Access) {
        let entry = (path.into(), access);
        if !self.paths.contains(&entry) {
            self.paths.push(entry);
        }
    }

    /// A file that is read again later, when another one may have taken its place: its folder, and the folder of what it is a link to now.
    pub fn add_replaced(&mut self, file: &Path, access: Access) {
        let folder = |file: &Path| file.parent().map(Path::to_owned);
        let here = std::path::absolute(file).ok().as_deref().and_then(folder);
        let there = file.canonicalize().ok().as_deref().and_then(folder);
        for folder in [here, there].into_iter().flatten() {
            self.add(folder, access);
        }
    }

    /// What the C library and we read of the system, whatever is configured: randomness, time zones, the process's own figures.
    pub fn add_system(&mut self) {
        for path in [
            "/dev/urandom",
            "/dev/random",
            "/usr/share/zoneinfo",
            "/usr/share/lib/zoneinfo",
            "/etc/zoneinfo",
            "/proc/self",
        ] {
            self.add(path, Access::Read);
        }
        // Where output that nobody wants goes.
        self.add("/dev/null", Access::Keep);
    }

    /// What finds a host by its name: the C library, its plug-ins, and their settings, which administrators replace file by file; and DNS over
    /// TCP for long answers.
    pub fn add_names(&mut self) {
        self.add_libraries();
        for path in
            ["/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd", "/var/lib/sss"]
        {
            self.add(path, Access::Read);
        }
        self.add_replaced(Path::new("/etc/resolv.conf"), Access::Read);
        self.connect.push(53);
        self.names = true;
    }

    /// Whom the system trusts for TLS.
    pub fn add_roots(&mut self) {
        for path in [
            "/etc/ssl",
            "/etc/pki",
            "/etc/ca-certificates",
            "/usr/share/ca-certificates",
            "/usr/local/share/ca-certificates",
            "/usr/share/pki",
            "/usr/share/ssl",
            "/var/lib/ca-certificates",
        ] {
            self.add(path, Access::Read);
        }
    }

    /// Where shared libraries are, for one that is loaded later.
    pub fn add_libraries(&mut self) {
        for path in
            ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/etc/ld.so.cache"]
        {
            self.add(path, Access::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_its_folder_and_that_of_what_it_is_a_link_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (here, there) = (root.join("here"), root.join("there"));
        for folder in [&here, &there] {
            std::fs::create_dir(folder).unwrap();
        }
        crate::durable::replace(&there.join("key.pem"), b"", 0o600).unwrap();
        std::os::unix::fs::symlink("../there/key.pem", here.join("key.pem")).unwrap();
        let mut files = Files::default();
        files.add_replaced(&here.join("key.pem"), Access::Read);
        files.add_replaced(&here.join("missing"), Access::Read);
        assert_eq!(files.paths, [(here, Access::Read), (there, Access::Read)]);
    }
}
