//! Every way to stay that we know of; for the test that all of it ends, and for the benchmark that ends each many times.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};

use super::site::{Client, GuardedHost, Pass, write};

/// A way to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Shell,
    Command,
    Detached,
    Multiplexer,
    DoubleFork,
    SignalsIgnored,
    Master,
    Local,
    Remote,
    Dynamic,
    Transfer,
    Agent,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 12] = [
        Self::Shell,
        Self::Command,
        Self::Detached,
        Self::Multiplexer,
        Self::DoubleFork,
        Self::SignalsIgnored,
        Self::Master,
        Self::Local,
        Self::Remote,
        Self::Dynamic,
        Self::Transfer,
        Self::Agent,
    ];

    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Shell => "a shell on a terminal",
            Self::Command => "a command without a terminal",
            Self::Detached => "nohup setsid",
            Self::Multiplexer => "tmux",
            Self::DoubleFork => "a double fork",
            Self::SignalsIgnored => "signals ignored",
            Self::Master => "a master and a second session",
            Self::Local => "-L",
            Self::Remote => "-R",
            Self::Dynamic => "-D",
            Self::Transfer => "a transfer by sftp",
            Self::Agent => "the agent forwarded",
        }
    }
}

/// Something that talks through the session's connection.
pub(crate) trait Line: Read + Write + Send {}
impl<T: Read + Write + Send> Line for T {}

/// One connection that stays, as long as it may.
pub(crate) struct Stay {
    /// The programs on the client's side; the one that holds the connection first.
    pub(crate) clients: Vec<Client>,
    /// What goes through it, if it is a forward.
    pub(crate) line: Option<Box<dyn Line>>,
    /// The terminal's keyboard, and the agent: open as long as the session.
    _held: (Option<ChildStdin>, Option<Child>),
}

impl Stay {
    /// Starts one, and waits until it is there; `number` is nobody else's.
    pub(crate) async fn start(host: &GuardedHost, pass: &Pass, kind: Kind, number: u32) -> Self {
        let command = async |options: &[&str], command: &str| Self::of(host.session(pass, options, command).await);
        match kind {
            Kind::Shell => shell(host, pass).await,
            Kind::Command => command(&[], "sleep 600").await,
            Kind::Detached => command(&[], "nohup setsid sleep 600 >/dev/null 2>&1 & sleep 600").await,
            Kind::Multiplexer => {
                let tmux = format!("TERM=xterm tmux -L own{number} new-session -d 'sleep 600'; sleep 600");
                command(&["-tt"], &tmux).await
            }
            Kind::DoubleFork => command(&[], "( ( setsid sleep 600 >/dev/null 2>&1 & ) & ); sleep 600").await,
            Kind::SignalsIgnored => command(&[], "trap '' TERM HUP INT QUIT; while :; do sleep 600; done").await,
            Kind::Master => {
                let socket = host.path(&format!("master{number}")).display().to_string();
                let master = host.session(pass, &["-M", "-S", &socket], "sleep 600").await;
                let second = host.session(pass, &["-S", &socket], "sleep 600").await;
                Self { clients: vec![master, second], line: None, _held: (None, None) }
            }
            Kind::Local | Kind::Remote | Kind::Dynamic => forwarded(host, pass, kind, number).await,
            Kind::Transfer => transfer(host, pass, number).await,
            Kind::Agent => agent(host, pass, number).await,
        }
    }

    fn of(client: Client) -> Self {
        Self { clients: vec![client], line: None, _held: (None, None) }
    }

    /// Whether all of it is there.
    pub(crate) fn is_there(&mut self) -> bool {
        self.clients.iter_mut().all(Client::is_running) && self.line.as_mut().is_none_or(|line| echoes(line.as_mut()))
    }

    /// Whether none of its programs runs any more.
    pub(crate) fn is_over(&mut self) -> bool {
        !self.clients.iter_mut().any(Client::is_running)
    }
}

/// Typed into, as people do.
async fn shell(host: &GuardedHost, pass: &Pass) -> Stay {
    let mut shell = host.client("ssh", pass, &["-tt"], &[]);
    let mut typed = shell.child.stdin.take().unwrap();
    typed.write_all(b"PS1='$ '; echo re''ady\n").await.unwrap();
    shell.wait_for("ready", host).await;
    Stay { clients: vec![shell], line: None, _held: (Some(typed), None) }
}

/// A real agent, without keys; the session has its socket.
async fn agent(host: &GuardedHost, pass: &Pass, number: u32) -> Stay {
    let socket = host.path(&format!("agent{number}")).display().to_string();
    let agent = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).kill_on_drop(true).spawn();
    while !std::path::Path::new(&socket).exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = host.options(pass).into_iter();
    let options = options.map(|option| option.replace("IdentityAgent=none", &format!("IdentityAgent={socket}")));
    let command = "test -S \"$SSH_AUTH_SOCK\" && echo ready; sleep 600";
    let mut client = host.client_with("ssh", options.collect(), &["-A"], &[command]);
    client.wait_for("ready", host).await;
    Stay { clients: vec![client], line: None, _held: (None, Some(agent.unwrap())) }
}

/// A slow download that would take hours.
async fn transfer(host: &GuardedHost, pass: &Pass, number: u32) -> Stay {
    let (big, into) = (host.path("home/big"), host.path(&format!("into{number}")));
    // Whichever makes it first; nothing is in it.
    std::fs::File::create(&big).unwrap().set_len(1 << 40).unwrap();
    let batch = host.path(&format!("batch{number}"));
    write(&batch, &format!("get {} {}\n", big.display(), into.display()));
    let client = host.client("sftp", pass, &["-l", "8000", "-b", &batch.display().to_string()], &[]);
    while !into.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Stay::of(client)
}

/// `-L`, `-R` or `-D`, with a connection that has just carried something.
async fn forwarded(host: &GuardedHost, pass: &Pass, kind: Kind, number: u32) -> Stay {
    let echo = echo_server();
    let local = host.path(&format!("local{number}")).display().to_string();
    let remote = host.path(&format!("home/remote{number}")).display().to_string();
    let dynamic = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (option, forward) = match kind {
        Kind::Local => ("-L", format!("{local}:127.0.0.1:{echo}")),
        Kind::Remote => ("-R", format!("{remote}:127.0.0.1:{echo}")),
        _ => ("-D", dynamic.to_string()),
    };
    let client = host.client("ssh", pass, &["-N", option, &forward], &[]);
    let unix = |path: &str| UnixStream::connect(path).map(|line| Box::new(line) as Box<dyn Line>);
    let connect = || match kind {
        Kind::Local => unix(&local),
        Kind::Remote => unix(&remote),
        _ => socks(dynamic, echo).map(|line| Box::new(line) as Box<dyn Line>),
    };
    let mut line = loop {
        if let Ok(line) = connect() {
            break line;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(echoes(line.as_mut()), "{kind:?} works");
    Stay { clients: vec![client], line: Some(line), _held: (None, None) }
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

/// Whether what is said through the line comes back.
pub(crate) fn echoes(line: &mut dyn Line) -> bool {
    let mut answer = [0; 4];
    line.write_all(b"ping").and_then(|()| line.read_exact(&mut answer)).is_ok() && answer == *b"ping"
}
