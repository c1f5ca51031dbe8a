//! What somebody who has taken the service over would try, for tests: nothing of it is in a shipped binary.
//!
//! Each attempt is made on the calling thread, and told with what the kernel said.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

/// One attempt, and how it ended: `done`, or the kernel's error.
pub type Outcome = (String, String);

fn told<T>(name: &str, outcome: std::io::Result<T>) -> Outcome {
    let how = outcome.map_or_else(
        |error| error.raw_os_error().map_or_else(|| error.to_string(), |number| word(number).to_owned()),
        |_| "done".to_owned(),
    );
    (name.to_owned(), how)
}

fn word(number: i32) -> &'static str {
    match number {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOSYS => "ENOSYS",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::ENOENT => "ENOENT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        _ => "another error",
    }
}

/// Makes all of them: `beside` is a folder that is not ours, with a file `file` in it; `server` is somebody else's.
#[must_use]
pub fn all(beside: &Path, server: SocketAddr) -> Vec<Outcome> {
    let io = |outcome: rustix::io::Result<()>| outcome.map_err(std::io::Error::from);
    let started = std::process::Command::new("/bin/true").status();
    let parent = rustix::process::getppid().map_or(Ok(()), rustix::process::test_kill_process);
    vec![
        told("read /etc/shadow", std::fs::read("/etc/shadow")),
        told("read a file beside", std::fs::read(beside.join("file"))),
        told("list a folder beside", std::fs::read_dir(beside)),
        told("write a file beside", OpenOptions::new().write(true).create_new(true).open(beside.join("new"))),
        told("remove a file beside", std::fs::remove_file(beside.join("file"))),
        told("start a program", started),
        told("connect elsewhere", TcpStream::connect_timeout(&server, Duration::from_secs(5))),
        told("connect elsewhere by datagrams", std::net::UdpSocket::bind("127.0.0.1:0")),
        told(
            "connect elsewhere by MPTCP",
            rustix::net::socket(AddressFamily::INET, SocketType::STREAM, Some(MPTCP)).map_err(Into::into),
        ),
        told("connect elsewhere with the first bytes", fast_open(server)),
        told("listen", TcpListener::bind("127.0.0.1:0")),
        told("signal the parent", io(parent)),
        told(
            "look at packets",
            rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, None).map_err(Into::into),
        ),
        told(
            "talk to the kernel",
            rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).map_err(Into::into),
        ),
        told("change the root", io(rustix::process::chroot("/"))),
        told("join a namespace", join()),
    ]
}

/// As the C library numbers it.
const MPTCP: rustix::net::Protocol = rustix::net::ipproto::MPTCP;

/// A connection that is made by sending.
fn fast_open(server: SocketAddr) -> std::io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::sendto(
        &socket,
        b"x",
        rustix::net::SendFlags::from_bits_retain(libc::MSG_FASTOPEN.unsigned_abs()),
        &server,
    )?;
    Ok(())
}

/// Our own one: what is not refused changes nothing.
fn join() -> std::io::Result<()> {
    use std::os::fd::AsFd as _;
    let own = std::fs::File::open("/proc/self/ns/uts")?;
    Ok(rustix::thread::move_into_link_name_space(own.as_fd(), None)?)
}
