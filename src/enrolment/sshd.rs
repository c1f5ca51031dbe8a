//! The host's sshd: what it would do, whether its configuration holds, how it is told to read it again, where it listens.
//!
//! Invariants: nothing is reloaded that `sshd -t` does not accept (an sshd that can't read its configuration ends). A process is only
//! signalled when it is an sshd that listens, in our own mount namespace: not a container's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::places;
use super::programs::{self, PATIENCE};
use super::sshd_config::{Effective, Release};

/// systemd's names for what starts it when somebody comes; what is started so reads the configuration as it is then.
const SOCKETS: [&str; 2] = ["ssh.socket", "sshd.socket"];

/// systemd's names for it.
const UNITS: [&str; 2] = ["ssh.service", "sshd.service"];

/// How long a connection to itself may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The host's sshd.
#[derive(Clone, Debug)]
pub struct Sshd {
    program: PathBuf,
    reload: Option<String>,
}

/// How sshd was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// By this.
    By(String),
    /// No sshd listens: what starts next reads the new configuration.
    NotRunning,
}

impl Sshd {
    /// The machine's. `reload`: a command for `sh` to be used in place of what is found out.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(reload: Option<String>) -> Result<Self, String> {
        let program = programs::find("sshd").ok_or("there is no sshd on this machine; install the OpenSSH server")?;
        Ok(Self { program, reload })
    }

    /// Its release, and what it says of itself.
    ///
    /// # Errors
    /// When it can't be run.
    pub async fn release(&self) -> Result<(Option<Release>, String), String> {
        let ran = programs::run(&self.program, &["-V"], PATIENCE).await?;
        let said = format!("{}\n{}", ran.output, ran.errors);
        let shown = said.split(|c: char| c.is_whitespace() || c == ',').find(|word| word.starts_with("OpenSSH_"));
        Ok((Release::find(&said), shown.unwrap_or("unknown").chars().take(60).collect()))
    }

    /// What it would do with a login of `account` from this machine.
    ///
    /// # Errors
    /// What it complains about.
    pub async fn effective(&self, account: &str) -> Result<Effective, String> {
        let login = format!("user={account},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22");
        programs::output(&self.program, &["-T", "-C", &login]).await.map(|text| Effective::parse(&text))
    }

    /// Whether its configuration can be read.
    ///
    /// # Errors
    /// What it complains about.
    pub async fn test(&self) -> Result<(), String> {
        programs::output(&self.program, &["-t"]).await.map(drop)
    }

    /// Tells it to read its configuration again.
    ///
    /// # Errors
    /// When it could not be told.
    pub async fn reload(&self) -> Result<Told, String> {
        self.test().await?;
        if let Some(command) = &self.reload {
            programs::output(Path::new("/bin/sh"), &["-c", command]).await?;
            return Ok(Told::By(command.clone()));
        }
        if Path::new("/run/systemd/system").is_dir()
            && let Some(systemctl) = programs::find("systemctl")
        {
            for unit in UNITS {
                // One that does not answer has not said that the unit is not active.
                if programs::run(&systemctl, &["is-active", "--quiet", unit], PATIENCE).await?.code == Some(0) {
                    programs::output(&systemctl, &["reload", unit]).await?;
                    return Ok(Told::By(format!("systemctl reload {unit}")));
                }
            }
            for unit in SOCKETS {
                if programs::run(&systemctl, &["is-active", "--quiet", unit], PATIENCE).await?.code == Some(0) {
                    return Ok(Told::NotRunning);
                }
            }
        }
        let effective = self.effective(places::CHECK_ACCOUNT).await?;
        let pid_file = effective.some("pidfile").map(PathBuf::from);
        match pid_file.and_then(|path| named_listener(&path)).or_else(only_listener) {
            Some(pid) => {
                kill_process(pid, Signal::HUP).map_err(|error| format!("cannot signal sshd: {error}"))?;
                Ok(Told::By(format!("SIGHUP to process {}", pid.as_raw_nonzero())))
            }
            None => match own_address(&effective) {
                Ok(address) if listens(address).await.is_ok() => Err(format!(
                    "something listens at {address}, and which process that is can't be told from here: give `--reload-command` \
                     (`true`, if each connection has an sshd started for it)"
                )),
                _ => Ok(Told::NotRunning),
            },
        }
    }
}

#[cfg(test)]
impl Sshd {
    /// One that is not there.
    pub(super) fn nowhere() -> Self {
        Self { program: "/nowhere".into(), reload: None }
    }
}

/// Whether something listens there.
///
/// # Errors
/// In words: why it does not, as far as can be told.
pub async fn listens(address: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_WITHIN, tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", CONNECT_WITHIN.as_secs())),
    }
}

/// Where a login from this machine to itself goes.
///
/// # Errors
/// When sshd does not say where it listens.
pub fn own_address(effective: &Effective) -> Result<SocketAddr, String> {
    let listens = effective.all("listenaddress").iter().filter_map(|text| parse_address(text));
    let own = listens.map(|address| match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
        _ => address,
    });
    // Loopback, if it is there; the first otherwise.
    let mut all: Vec<SocketAddr> = own.collect();
    all.sort_by_key(|address| !address.ip().is_loopback());
    all.first().copied().ok_or_else(|| "sshd does not say where it listens".to_owned())
}

/// `[::]:22`, `0.0.0.0:22`, `192.0.2.7:22 rdomain x`.
fn parse_address(text: &str) -> Option<SocketAddr> {
    text.split_whitespace().next()?.parse().ok()
}

/// The sshd whose process id is in this file.
fn named_listener(path: &Path) -> Option<Pid> {
    let pid: i32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    is_listener(pid).then(|| Pid::from_raw(pid)).flatten()
}

/// The sshd that listens, where there is just one.
fn only_listener() -> Option<Pid> {
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    let mut found = pids.filter(|pid| is_listener(*pid));
    let first = found.next()?;
    if found.next().is_some() { None } else { Pid::from_raw(first) }
}

/// Whether a process is an sshd that listens, in our own mount namespace. It says `[listener]` of itself.
fn is_listener(pid: i32) -> bool {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let here = |name: &str| std::fs::read_link(Path::new("/proc/self/ns").join(name)).ok();
    let there = |name: &str| std::fs::read_link(folder.join("ns").join(name)).ok();
    let is_sshd = std::fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim() == "sshd");
    let says_so = std::fs::read(folder.join("cmdline")).is_ok_and(|line| {
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("[listener]") || line.contains("-D")
    });
    let is_roots = std::fs::metadata(&folder).is_ok_and(|metadata| metadata.uid() == 0);
    is_sshd && says_so && is_roots && here("mnt").is_some() && here("mnt") == there("mnt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_calls_itself_where_its_sshd_listens() {
        for (said, address) in [
            ("listenaddress [::]:22\nlistenaddress 0.0.0.0:22\n", Some("127.0.0.1:22")),
            ("listenaddress 192.0.2.7:2222\n", Some("192.0.2.7:2222")),
            ("listenaddress 192.0.2.7:22\nlistenaddress [::1]:2200\n", Some("[::1]:2200")),
            ("listenaddress 192.0.2.7:22 rdomain blue\n", Some("192.0.2.7:22")),
            ("port 22\n", None),
        ] {
            let found = own_address(&Effective::parse(said)).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{said}");
        }
    }
}
