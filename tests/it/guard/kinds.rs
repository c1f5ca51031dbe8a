//! Every way to stay that we know of, side by side in one window: all of it is gone two seconds after the end.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::site::{Client, GuardedHost, More, since, soon, wait_until};

/// How long after the end of its window anything of a session may be there (promise P8).
const TWO_SECONDS: i64 = 2_000;

/// Kinds of sessions: arguments of ssh, remote command.
const COMMANDS: [(&str, &[&str], &str); 6] = [
    ("a command without a terminal", &[], "sleep 600"),
    ("a detached process", &[], "nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600"),
    ("a double fork", &[], "( ( setsid sleep 600 >/dev/null 2>&1 & ) & ); sleep 600"),
    ("signals ignored", &[], "trap '' TERM HUP INT QUIT; while :; do sleep 600; done"),
    ("a terminal multiplexer", &["-tt"], "TERM=xterm tmux -L own new-session -d 'sleep 600'; sleep 600"),
    ("the agent forwarded", &["-A"], "sleep 600"),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_is_there_two_seconds_after_its_window() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = GuardedHost::start(&More::default()).await;
    let end = soon(20);
    let pass = host.pass(end);
    let mut clients: Vec<(&str, Client)> = Vec::new();
    for (kind, options, command) in COMMANDS {
        clients.push((kind, host.session(&pass, options, command).await));
    }
    let mut shell = host.client("ssh", &pass, &["-tt"], &[]);
    let mut typed = shell.child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut typed, b"PS1='$ '; echo re''ady\n").await.unwrap();
    shell.wait_for("ready", &host).await;
    println!("{} {:?}", since(end), host.records());
    wait_until(end, -300).await;
    assert!(shell.is_running());
    for (kind, client) in &mut clients {
        assert!(client.is_running(), "{kind}: not before the end");
    }
    let (code, said) = shell.finish().await;
    println!("{} {code} {said}", since(end));
    while !host.processes().is_empty() && since(end) < 10_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{} {:?}\n{}", since(end), host.processes(), host.logs());
}
