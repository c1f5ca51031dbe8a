//! Tells the service manager how far we are (`sd_notify(3)`): one datagram to the socket that the environment names.
//!
//! What not: the environment is not read here; who starts us passes what it says.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says `state`, such as `READY=1`. Without a service manager that listens nobody is told.
pub fn tell(socket: Option<&str>, state: &str) {
    let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return };
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    let sent = UnixDatagram::unbound().and_then(|own| own.send_to_addr(state.as_bytes(), &address?));
    // A service manager that does not hear us restarts us in the end.
    drop(sent);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_it_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("hallpass-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tell(Some(path.to_str().unwrap()), "READY=1");
        tell(Some(&format!("@{name}")), "STOPPING=1");
        tell(None, "READY=1");
        let heard = |socket: &UnixDatagram| {
            let mut buffer = [0; 32];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!((heard(&by_path).as_str(), heard(&by_name).as_str()), ("READY=1", "STOPPING=1"));
    }
}
