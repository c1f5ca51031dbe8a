//! A real sshd on loopback for the demo and for tests: we listen, and each connection gets its own `sshd -i`, as
//! socket-activated sshd services do.
//!
//! Why not sshd's own listener? Started per connection, each connection's log and process are known without guessing, and
//! an ordinary user can run it. What it decides about keys and certificates is sshd's own code and configuration in both cases.
//!
//! Not for production: see `deploy/00-hallpass.conf` for a real host.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::host::process::Process;

/// What to run and under which configuration.
#[derive(Clone, Debug)]
pub struct Sshd {
    /// The sshd program, absolute: sshd insists on it.
    pub program: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// A program and arguments to put in front (a fake clock in tests).
    pub prefix: Vec<String>,
}

/// A listening host. Dropping it closes the port; connections go on until they are ended.
#[derive(Debug)]
pub struct Host {
    address: SocketAddr,
    connections: Arc<Mutex<BTreeMap<u64, Connection>>>,
    count: watch::Receiver<u64>,
    accept: JoinHandle<()>,
}

/// One connection's sshd.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its process; `None` once it has ended.
    pub process: Option<Process>,
    /// The client's port: sessions have it in `SSH_CONNECTION`.
    pub peer: SocketAddr,
    /// What this sshd has logged so far.
    pub log: Vec<String>,
}

/// Where sshd is: in `PATH`, or in the folders where distributions keep it.
#[must_use]
pub fn find(path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    let from_path = path.map(|p| std::env::split_paths(p).collect::<Vec<_>>()).unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from);
    from_path.into_iter().chain(usual).map(|folder| folder.join("sshd")).find(|p| p.is_absolute() && p.is_file())
}

impl Host {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn listen(sshd: Sshd) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Mutex::new(BTreeMap::new()));
        let (counter, count) = watch::channel(0);
        let accept = tokio::spawn(accept(listener, sshd, Arc::clone(&connections), counter));
        Ok(Self { address, connections, count, accept })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// All connections so far, by number.
    #[must_use]
    pub fn connections(&self) -> BTreeMap<u64, Connection> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves whenever something about a connection has changed since the last call on this receiver.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.count.clone()
    }

    /// The whole log of the connection opened last.
    #[must_use]
    pub fn last_log(&self) -> Vec<String> {
        self.connections().pop_last().map(|(_, c)| c.log).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(
    listener: TcpListener,
    sshd: Sshd,
    connections: Arc<Mutex<BTreeMap<u64, Connection>>>,
    counter: watch::Sender<u64>,
) {
    let counter = Arc::new(counter);
    for number in 1_u64.. {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let Ok(mut child) = start(&sshd, stream) else { continue };
        let process = child.id().and_then(own_child);
        let note = {
            let (connections, counter) = (Arc::clone(&connections), Arc::clone(&counter));
            move |change: &dyn Fn(&mut Connection)| {
                let mut all = connections.lock().unwrap_or_else(PoisonError::into_inner);
                change(all.entry(number).or_insert_with(|| Connection { process, peer, log: Vec::new() }));
                drop(all);
                counter.send_modify(|n| *n = n.wrapping_add(1));
            }
        };
        note(&|_| {});
        tokio::spawn(async move {
            if let Some(errors) = child.stderr.take() {
                let mut lines = BufReader::new(errors).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    note(&|c| c.log.push(line.trim_end().to_owned()));
                }
            }
            let _status = child.wait().await;
            note(&|c| c.process = None);
        });
    }
}

/// Starts one sshd on an accepted connection: the socket is its standard input and output, its log our pipe.
fn start(sshd: &Sshd, stream: tokio::net::TcpStream) -> io::Result<tokio::process::Child> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let twin = stream.try_clone()?;
    let mut words = sshd.prefix.iter().map(String::as_str).map(std::ffi::OsStr::new);
    let mut command = match words.next() {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(words).arg(&sshd.program);
            command
        }
        None => Command::new(&sshd.program),
    };
    command
        .args(["-i", "-e", "-f"])
        .arg(&sshd.config)
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::from(OwnedFd::from(twin)))
        .stderr(Stdio::piped())
        .spawn()
}

/// The start time of a child of ours, so that its pid can't be mistaken later.
fn own_child(pid: u32) -> Option<Process> {
    Process::running(i32::try_from(pid).ok()?).ok()?
}

/// What a host's sshd is told.
#[derive(Clone, Debug)]
pub struct Setup<'a> {
    /// A folder of ours for its files.
    pub folder: &'a Path,
    /// Content of `TrustedUserCAKeys`.
    pub trust: &'a str,
    /// Principals per account; `None` writes no `AuthorizedPrincipalsFile` line (account scope).
    pub principals: Option<&'a [(&'a str, &'a str)]>,
    /// The host's private key, OpenSSH form.
    pub host_key: &'a str,
    /// More lines.
    pub extra: &'a str,
}

/// Writes a host's files and returns its configuration file's path.
///
/// # Errors
/// Any I/O error.
pub fn write(setup: &Setup<'_>) -> io::Result<PathBuf> {
    use crate::durable::{create_folder, replace};
    create_folder(setup.folder, 0o755)?;
    let at = |name: &str| setup.folder.join(name);
    replace(&at("host_key"), setup.host_key.as_bytes(), 0o600)?;
    replace(&at("user_ca_keys"), setup.trust.as_bytes(), 0o644)?;
    let mut config = format!(
        "HostKey {folder}/host_key\n\
         TrustedUserCAKeys {folder}/user_ca_keys\n\
         AuthorizedKeysFile none\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         UsePAM no\n\
         PermitRootLogin prohibit-password\n\
         # Its folder is a temporary one, which others may write to.\n\
         StrictModes no\n\
         PidFile none\n\
         PrintMotd no\n\
         LogLevel VERBOSE\n\
         Subsystem sftp internal-sftp\n",
        folder = setup.folder.display(),
    );
    if let Some(principals) = setup.principals {
        create_folder(&at("principals"), 0o755)?;
        for (account, principal) in principals {
            replace(&at("principals").join(account), format!("{principal}\n").as_bytes(), 0o644)?;
        }
        config.push_str(&format!("AuthorizedPrincipalsFile {}/principals/%u\n", setup.folder.display()));
    }
    config.push_str(setup.extra);
    let path = at("sshd_config");
    replace(&path, config.as_bytes(), 0o644)?;
    Ok(path)
}
