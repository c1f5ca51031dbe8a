//! Every way to stay that we know of, side by side in one window: all of it is gone two seconds after the end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::site::{Client, GuardedHost, More, Pass, since, soon, still, wait_until};

/// How long after the end of its window anything of a session may be there, in milliseconds (promise P8).
const GONE_WITHIN: i64 = 2_000;

/// Kinds of sessions that run a command: arguments of ssh, the command.
const COMMANDS: [(&str, &[&str], &str); 6] = [
    ("a command without a terminal", &[], "sleep 600"),
    ("a detached process", &[], "nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600"),
    ("a double fork", &[], "( ( setsid sleep 600 >/dev/null 2>&1 & ) & ); sleep 600"),
    ("signals ignored", &[], "trap '' TERM HUP INT QUIT; while :; do sleep 600; done"),
    ("a terminal multiplexer", &["-tt"], "TERM=xterm tmux -L own new-session -d 'sleep 600'; sleep 600"),
    ("the agent forwarded", &["-A"], "sleep 600"),
];

/// Something that talks through the session's connection.
trait Line: Read + Write + Send {}
impl<T: Read + Write + Send> Line for T {}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_session_is_there_two_seconds_after_its_window() {
    if !GuardedHost::can_be_had() {
        return;
    }
    let host = GuardedHost::start(&More::default()).await;
    let end = soon(30);
    let pass = host.pass(end);
    let mut clients: Vec<(&str, Client)> = Vec::new();
    for (kind, options, command) in COMMANDS {
        clients.push((kind, host.session(&pass, options, command).await));
    }
    clients.extend(multiplexed(&host, &pass).await);
    clients.push(("a transfer", transfer(&host, &pass).await));
    let (forwards, mut lines) = forwarded(&host, &pass).await;
    clients.extend(forwards);
    let mut shell = host.client("ssh", &pass, &["-tt"], &[]);
    let mut typed = shell.child.stdin.take().unwrap();
    typed.write_all(b"PS1='$ '; echo re''ady\n").await.unwrap();
    shell.wait_for("ready", &host).await;
    assert_eq!((host.records().len(), host.watchers()), (12, 12), "one for each connection");

    wait_until(end, -400).await;
    still(end, "a shell", || shell.is_running());
    for (kind, client) in &mut clients {
        still(end, kind, || client.is_running());
    }
    for (kind, line) in &mut lines {
        still(end, kind, || echoes(line.as_mut()));
    }

    let is_over = |clients: &mut Vec<(&str, Client)>| {
        clients.retain_mut(|(_, client)| client.is_running());
        clients.is_empty() && host.processes().is_empty()
    };
    while !is_over(&mut clients) {
        let left: Vec<&str> = clients.iter().map(|(kind, _)| *kind).collect();
        assert!(since(end) < GONE_WITHIN, "still there: {left:?} {:?} {:?}", host.processes(), host.records());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("everything was gone {} ms after the end", since(end));
    // The watchers put that down, and go too.
    while !host.records().is_empty() || host.watchers() > 0 {
        assert!(since(end) < 20_000, "{:?}", host.records());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (kind, line) in &mut lines {
        assert!(!echoes(line.as_mut()), "{kind}");
    }
    let (code, said) = shell.finish().await;
    assert_eq!(code, 255);
    assert!(
        said.contains("[hallpass] access to web-1 ended ")
            && said.contains(", HP-207\r")
            && said.contains("hallpass ssh web-1\r"),
        "{said:?}"
    );
    let (code, _) = host.ssh(&pass, "true").await;
    assert_eq!(code, 255, "the next login is refused");
    assert!(host.logs().contains("Certificate invalid: expired"), "{}", host.logs());
}

/// A master connection, and a second session that goes through it.
async fn multiplexed(host: &GuardedHost, pass: &Pass) -> Vec<(&'static str, Client)> {
    let socket = host.path("master").display().to_string();
    let master = host.session(pass, &["-M", "-S", &socket], "sleep 600").await;
    let second = host.session(pass, &["-S", &socket], "sleep 600").await;
    vec![("a master connection", master), ("a second session on it", second)]
}

/// A slow download that would take hours.
async fn transfer(host: &GuardedHost, pass: &Pass) -> Client {
    let big = host.path("home/big");
    std::fs::File::create(&big).unwrap().set_len(1 << 40).unwrap();
    super::site::write(&host.path("batch"), &format!("get {} /dev/null\n", big.display()));
    let before = host.processes().len();
    let client = host.client("sftp", pass, &["-l", "8000", "-b", &host.path("batch").display().to_string()], &[]);
    while host.processes().len() <= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client
}

/// `-L`, `-R` and `-D`, each with a connection that has just carried something.
async fn forwarded(
    host: &GuardedHost,
    pass: &Pass,
) -> (Vec<(&'static str, Client)>, Vec<(&'static str, Box<dyn Line>)>) {
    let echo = echo_server();
    let local = host.path("local").display().to_string();
    let remote = host.path("home/remote").display().to_string();
    let dynamic = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let clients = vec![
        ("-L", host.client("ssh", pass, &["-N", "-L", &format!("{local}:127.0.0.1:{echo}")], &[])),
        ("-R", host.client("ssh", pass, &["-N", "-R", &format!("{remote}:127.0.0.1:{echo}")], &[])),
        ("-D", host.client("ssh", pass, &["-N", "-D", &dynamic.to_string()], &[])),
    ];
    let unix = |path: &str| UnixStream::connect(path).map(|line| Box::new(line) as Box<dyn Line>);
    let mut lines: Vec<(&'static str, Box<dyn Line>)> = Vec::new();
    for (kind, connect) in [
        ("-L", &|| unix(&local) as std::io::Result<Box<dyn Line>>),
        ("-R", &|| unix(&remote)),
        ("-D", &|| socks(dynamic, echo).map(|line| Box::new(line) as Box<dyn Line>)),
    ] as [(&str, &dyn Fn() -> std::io::Result<Box<dyn Line>>); 3]
    {
        let mut line = loop {
            if let Ok(line) = connect() {
                break line;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(echoes(line.as_mut()), "{kind} works");
        lines.push((kind, line));
    }
    (clients, lines)
}

/// A server that says back what it is told; its port.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for line in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ended = std::io::copy(&mut &line, &mut &line);
            });
        }
    });
    port
}

/// Connects to a local port through a SOCKS server (RFC 1928).
fn socks(server: u16, port: u16) -> std::io::Result<TcpStream> {
    let mut line = TcpStream::connect(("127.0.0.1", server))?;
    line.write_all(&[5, 1, 0])?;
    line.read_exact(&mut [0; 2])?;
    line.write_all(&[&[5, 1, 0, 1, 127, 0, 0, 1], port.to_be_bytes().as_slice()].concat())?;
    line.read_exact(&mut [0; 10])?;
    Ok(line)
}

fn echoes(line: &mut dyn Line) -> bool {
    let mut answer = [0; 4];
    line.write_all(b"ping").and_then(|()| line.read_exact(&mut answer)).is_ok() && answer == *b"ping"
}
